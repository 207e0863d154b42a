//! The settings that there are, and the codes of everything that can be wrong with them. Both lists drive the reader, the
//! tests and the documentation.

/// Every code that reading the settings can report, with its meaning.
pub const CODES: &[(&str, &str)] = &[
    ("address-not-public", "an address of a host cannot be reached from the internet"),
    ("alias-domain-unknown", "an alias lies in no domain of the site"),
    ("alias-loop", "aliases lead in a circle"),
    ("alias-self", "an alias leads to itself"),
    ("bad-choice", "a word is not one of the choices"),
    ("bad-file-name", "a file in domains/ is not named after a domain"),
    ("bad-value", "a name, address, path or version is malformed"),
    ("certificate-is-key", "certificate and key are the same file"),
    ("dkim-ed25519-alone", "a domain would sign with Ed25519 only"),
    ("dkim-map-one-key", "a domain would sign with Ed25519 where Rspamd takes the selector from a map"),
    ("dmarc-reports-foreign", "DMARC reports go to a domain outside of the site"),
    ("dmarc-reports-long", "no name in DNS can hold the consent to DMARC reports"),
    ("duplicate-address", "two hosts have the same address"),
    ("duplicate-alias", "an alias is written twice"),
    ("duplicate-domain", "a domain is declared twice"),
    ("duplicate-entry", "a list holds something twice"),
    ("duplicate-host", "a host is declared twice"),
    ("empty-list", "a list that needs an element has none"),
    ("filter-rspamd-too-old", "a release of filter-rspamd that postseal cannot configure safely"),
    ("missing-key", "a setting that must be written is missing"),
    ("no-domain", "the site has no domain"),
    ("no-host", "the site has no host"),
    ("not-yet", "a later release of postseal brings this"),
    ("opensmtpd-too-old", "a release of OpenSMTPD that postseal cannot configure safely"),
    ("postmaster-missing", "a domain has no alias for its postmaster"),
    ("syntax", "a file is not TOML"),
    ("two-choices", "one setting names two choices"),
    ("unknown-key", "a setting that does not exist"),
    ("wrong-type", "a setting wants another type of value"),
];

/// Every table by its name, with the settings that it takes; the first is the top of `postseal.toml`.
///
/// The entries of `[aliases]` are the user's own. A file in `domains/` holds what `domain` lists, without `name`.
pub const SETTINGS: &[(&str, &[&str])] = &[
    ("", &["accounts", "aliases", "ca", "clients", "delivery", "dkim", "domain", "host", "notify"]),
    ("accounts", &["external", "managed"]),
    ("accounts.external", &["path", "type"]),
    ("accounts.managed", &[]),
    ("ca", &["key", "name"]),
    ("clients", &["trust"]),
    ("delivery", &["lmtp", "maildir"]),
    ("delivery.lmtp", &["socket"]),
    ("delivery.maildir", &["path"]),
    ("dkim", &["rotate_every", "signing", "standby"]),
    ("domain", &["dkim", "dmarc", "name", "spf"]),
    ("domain.dmarc", &["policy", "reports"]),
    (
        "host",
        &[
            "addresses",
            "filter_rspamd",
            "listen",
            "mx_certificate",
            "name",
            "opensmtpd",
            "platform",
            "smtpd_conf",
            "submission_certificate",
        ],
    ),
    ("host.mx_certificate", &["files", "issued"]),
    ("host.mx_certificate.files", &["certificate", "key"]),
    ("host.mx_certificate.issued", &[]),
    ("host.submission_certificate", &["files", "issued"]),
    ("host.submission_certificate.files", &["certificate", "key"]),
    ("host.submission_certificate.issued", &[]),
    ("notify", &["before", "from", "sendmail"]),
];

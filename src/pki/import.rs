//! A site CA that was made elsewhere: what it must be, so that all that postseal issues under it is accepted, and what rcgen
//! would write otherwise than asked (a subject that it reorders or drops parts of), found by issuing a probe.

use time::OffsetDateTime;

use super::inspect::Role;
use super::issue::{self, Authority, ClientRequest, ClientSerials};
use super::{Certificate, PkiError, Refusal};
use crate::keys::{PrivateKey, Signing};
use crate::names::{DeviceName, HostName, MailAddress, Serial};

/// What the CA will have to certify, and what it must not be.
#[derive(Clone, Copy, Debug)]
pub struct Needs<'a> {
    /// The site's hosts.
    pub hosts: &'a [HostName],
    /// Mailboxes of the site, one of each domain at least.
    pub mailboxes: &'a [MailAddress],
    /// What daemons trust for clients.
    pub trusted: &'a [Certificate],
}

/// What a probe is made with; nobody ever sees it.
#[derive(Debug)]
pub struct Probe {
    /// The key of its certificates.
    pub key: PrivateKey,
    /// Their serials.
    pub serials: [Serial; 4],
}

/// The extensions that are understood where they are critical: key usage, basic and name constraints, extended key usage.
const UNDERSTOOD: [&str; 4] = ["2.5.29.15", "2.5.29.19", "2.5.29.30", "2.5.29.37"];

/// Refuses a certificate and key that cannot be the site's CA.
///
/// # Errors
/// A [`Refusal`] that says what is wrong with them.
pub fn check<'k>(
    certificate: &Certificate,
    key: impl Into<Signing<'k>>,
    needs: Needs<'_>,
    probe: Probe,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let key = key.into();
    if !certificate.belongs_to(key) {
        return Err(Refusal::new("the private key does not belong to the certificate", "name the pair of one CA"));
    }
    check_rights(certificate)?;
    check_dates(certificate, now)?;
    let spki = &certificate.facts().spki;
    if certificate.facts().is_twin() || needs.trusted.iter().any(|twin| twin.facts().spki == *spki) {
        return Err(Refusal::new(
            "daemons trust this CA's key for clients already: as the site CA it would admit all that it ever issues",
            "name the CA that people know, not one of the list of trusted CAs",
        ));
    }
    check_names(certificate, needs)?;
    check_probe(certificate, key, needs, probe, now)
}

fn check_rights(certificate: &Certificate) -> Result<(), Refusal> {
    let facts = certificate.facts();
    let usage = &facts.extended_key_usage;
    let used_for = |purpose| usage.is_empty() || usage.contains(&"any") || usage.contains(&purpose);
    let unknown = facts.critical.iter().find(|oid| !UNDERSTOOD.contains(&oid.as_str()));
    match facts.role {
        None | Some(Role::Leaf) => {
            return Err(Refusal::new("the certificate is no CA's: it lacks basicConstraints CA:TRUE", MAKE));
        }
        Some(Role::Authority(Some(0))) => {
            return Err(Refusal::new(
                "the CA's path length is 0, and a client's certificate has an issuing CA in between",
                "have the CA made with a path length of 1, or without one",
            ));
        }
        Some(Role::Authority(_)) => {}
    }
    if !facts.key_usage.contains("Key Cert Sign") {
        return Err(Refusal::new("the CA may not sign certificates: its key usage lacks keyCertSign", MAKE));
    }
    if !used_for("serverAuth") || !used_for("clientAuth") {
        let problem = "the CA's extended key usage leaves out servers or clients";
        return Err(Refusal::new(problem, "have the CA made without an extended key usage"));
    }
    if let Some(unknown) = unknown {
        let problem =
            format!("the CA has the critical extension {unknown}, for which many programs refuse all below it");
        return Err(Refusal::new(problem, MAKE));
    }
    if facts.subject_key_id.is_none() {
        return Err(Refusal::new("the CA has no subject key identifier, by which chains are found", MAKE));
    }
    if !facts.is_self_issued() || !certificate.is_signed_by(certificate) {
        return Err(Refusal::new(
            "the CA is not signed by itself in a way that postseal verifies, so that people could not trust it alone",
            "name a root CA that was signed with SHA-256",
        ));
    }
    Ok(())
}

/// How a CA is made that passes.
const MAKE: &str = "have it made with basicConstraints critical,CA:TRUE, keyUsage critical,keyCertSign,cRLSign and \
                    subjectKeyIdentifier hash";

fn check_dates(certificate: &Certificate, now: OffsetDateTime) -> Result<(), Refusal> {
    let facts = certificate.facts();
    let problem = if facts.not_after <= now {
        format!("the CA ended on {}", facts.not_after.date())
    } else if facts.not_before > now {
        format!("the CA begins on {} only", facts.not_before.date())
    } else {
        return Ok(());
    };
    Err(Refusal::new(problem, "look at the clock, or have the CA renewed where it was made"))
}

fn check_names(certificate: &Certificate, needs: Needs<'_>) -> Result<(), Refusal> {
    let facts = certificate.facts();
    let excluded = |what: &str| {
        let problem = format!("the CA's name constraints exclude `{what}`");
        Refusal::new(problem, "have the CA made without name constraints, or with ones that permit the site's names")
    };
    if let Some(host) = needs.hosts.iter().find(|host| !facts.permits_host(host)) {
        return Err(excluded(host.as_str()));
    }
    if let Some(address) = needs.mailboxes.iter().find(|address| !facts.permits_mailbox(address)) {
        return Err(excluded(address.as_str()));
    }
    // Directory names, above all: what postseal issues has subjects of its own.
    let judged = |name: &&String| ["dns:", "email:", "ip:"].iter().any(|kind| name.starts_with(kind));
    if let Some(other) = facts.permitted.iter().chain(&facts.excluded).find(|name| !judged(name)) {
        let problem = format!("the CA's name constraints speak of `{other}`, which postseal does not judge");
        return Err(Refusal::new(problem, "have the CA made without constraints of that kind"));
    }
    Ok(())
}

/// Issues a server's and a client's certificate; each is compared with what was asked, octet for octet, where it is issued.
fn check_probe(
    certificate: &Certificate,
    key: Signing<'_>,
    needs: Needs<'_>,
    probe: Probe,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let Probe { key: own, serials: [first, leaf, issuing, twin] } = probe;
    let (Some(host), Some(address)) = (needs.hosts.first(), needs.mailboxes.first()) else { return Ok(()) };
    let device = DeviceName::default();
    let public = own.public().clone();
    let issued = || {
        issue::subject_of(certificate)?;
        let authority = Authority::new(certificate, key)?;
        issue::server(host, &public, &authority, first, None, now)?;
        let request = ClientRequest { address, device: &device, key: &public, days: None };
        issue::client(&request, own, ClientSerials { leaf, issuing, twin }, &authority, now, issue::EmptyCrl::Omitted)
            .map(|_| ())
    };
    issued().map_err(|error: PkiError| {
        let why = match error {
            PkiError::Unexpected { what, .. } => what.to_owned(),
            other => other.to_string(),
        };
        let problem = format!("what the CA `{}` issues would not lead back to it: {why}", certificate.facts().subject);
        let mend =
            "use a CA whose subject has each attribute once and no two in one part, such as CN=Example CA,O=Example";
        Refusal::new(problem, mend)
    })
}

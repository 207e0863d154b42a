//! What each kind of certificate says, as data: usage, constraints, lifetime. Who is named in it is decided in `issue`.

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, EmailProtection, ServerAuth};
use rcgen::KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};
use rcgen::{CidrSubnet, ExtendedKeyUsagePurpose, GeneralSubtree, KeyUsagePurpose, NameConstraints};
use time::Duration;

use super::PkiError;
use crate::keys::KeyKind;
use crate::names::{DomainName, HostName, MailAddress};

/// How far a certificate's begin lies before its issue, for clocks that are slow.
pub const BACKDATED: Duration = Duration::hours(1);

/// What all certificates of one kind have in common.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// The name, for messages.
    pub name: &'static str,
    /// For a CA, how many CAs may stand between it and a leaf (RFC 5280 §4.2.1.9); none for a leaf.
    pub path_length: Option<u8>,
    /// The key usage of a P-256 key; critical (RFC 5280 §4.2.1.3).
    pub key_usage: &'static [KeyUsagePurpose],
    /// The key usage of an RSA key.
    pub key_usage_rsa: &'static [KeyUsagePurpose],
    /// The extended key usage. None for a CA: OpenSSL alone would heed it there.
    pub extended_key_usage: &'static [ExtendedKeyUsagePurpose],
    /// The lifetime if nobody asks for another, in days.
    pub default_days: u16,
    /// The longest lifetime, in days.
    pub maximum_days: u16,
}

const CA_USAGE: &[KeyUsagePurpose] = &[KeyCertSign, CrlSign];

/// The CA that everyone of the site knows: ten years, one level of CAs below it.
pub const SITE_CA: Profile = Profile {
    name: "site CA",
    path_length: Some(1),
    key_usage: CA_USAGE,
    key_usage_rsa: CA_USAGE,
    extended_key_usage: &[],
    default_days: 3652,
    maximum_days: 3652,
};

/// An issuing CA and its twin: they sign leaves only.
pub const ISSUING_CA: Profile = Profile { name: "issuing CA", path_length: Some(0), ..SITE_CA };

/// A server certificate of the site CA. Apple's systems take none above 825 days, private or not.
pub const SERVER: Profile = Profile {
    name: "server",
    path_length: None,
    key_usage: &[DigitalSignature],
    key_usage_rsa: &[DigitalSignature, KeyEncipherment],
    extended_key_usage: &[ServerAuth],
    default_days: 200,
    maximum_days: 825,
};

/// A client certificate: for TLS, and for signed mail to the same address.
pub const CLIENT: Profile =
    Profile { name: "client", extended_key_usage: &[ClientAuth, EmailProtection], default_days: 365, ..SERVER };

impl Profile {
    /// Returns the key usage for a key of the kind.
    pub fn key_usage_for(&self, kind: KeyKind) -> &'static [KeyUsagePurpose] {
        match kind {
            KeyKind::P256 => self.key_usage,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 => self.key_usage_rsa,
        }
    }

    /// Returns the lifetime of so many days, or the default one.
    ///
    /// # Errors
    /// [`PkiError::Lifetime`] for no day or more than the profile allows.
    pub fn lifetime(&self, days: Option<u16>) -> Result<Duration, PkiError> {
        let days = days.unwrap_or(self.default_days);
        if (1..=self.maximum_days).contains(&days) {
            return Ok(Duration::days(i64::from(days)));
        }
        Err(PkiError::Lifetime { profile: self.name, days, maximum: self.maximum_days })
    }
}

/// What an issuing CA may certify: one mailbox (`pinned`), or the mailboxes of the domains (`ca`).
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Every mailbox directly in one of the domains, not in domains below.
    Domains(&'a [DomainName]),
    /// One mailbox.
    Mailbox(&'a MailAddress),
}

/// The most domains of one issuing CA: LibreSSL refuses everyone above 512 constraints of a chain together.
pub const MAXIMUM_DOMAINS: usize = 200;

/// Returns the site CA's constraints: servers for the hosts, nothing for addresses, and mailboxes left to the issuing CAs, so
/// that a domain that is added does not change the CA.
pub fn site_constraints(hosts: &[HostName]) -> NameConstraints {
    NameConstraints {
        permitted_subtrees: hosts.iter().map(|host| GeneralSubtree::DnsName(host.to_string())).collect(),
        excluded_subtrees: every_address(),
    }
}

/// Returns an issuing CA's constraints: its mailboxes, and no server of any name.
pub fn issuing_constraints(scope: Scope<'_>) -> NameConstraints {
    let permitted_subtrees = match scope {
        Scope::Domains(domains) => {
            domains.iter().map(|domain| GeneralSubtree::Rfc822Name(domain.to_string())).collect()
        }
        Scope::Mailbox(address) => vec![GeneralSubtree::Rfc822Name(address.to_string())],
    };
    let mut excluded_subtrees = vec![GeneralSubtree::DnsName(String::new())];
    excluded_subtrees.extend(every_address());
    NameConstraints { permitted_subtrees, excluded_subtrees }
}

fn every_address() -> Vec<GeneralSubtree> {
    vec![
        GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
        GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_bounded_by_the_profile() {
        assert_eq!(CLIENT.lifetime(None), Ok(Duration::days(365)));
        assert_eq!(CLIENT.lifetime(Some(825)), Ok(Duration::days(825)));
        assert!(CLIENT.lifetime(Some(826)).is_err() && SERVER.lifetime(Some(0)).is_err());
    }
}

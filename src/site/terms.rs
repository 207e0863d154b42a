//! The values of records that settings may name: terms of SPF and values of CAA, each by its grammar.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{CaaIssuer, SpfTerm};
use crate::names::{DomainName, NameError, RecordName, shown};

const TERMS: &str = "write include:NAME, a:NAME, mx:NAME, or a network such as ip4:192.0.2.0/24 or ip6:2001:db8::/32";

impl FromStr for SpfTerm {
    type Err = NameError;

    /// Reads `include:`, `a:`, `mx:`, `ip4:` or `ip6:` with its value (RFC 7208 §5).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let term = text.split_once(':').and_then(|(mechanism, value)| match mechanism {
            "a" => value.parse().ok().map(Self::A),
            "include" => value.parse().ok().map(Self::Include),
            "ip4" => network(value, 32).filter(|(address, _)| address.is_ipv4()).map(|(one, of)| Self::Ip(one, of)),
            "ip6" => network(value, 128).filter(|(address, _)| address.is_ipv6()).map(|(one, of)| Self::Ip(one, of)),
            "mx" => value.parse().ok().map(Self::Mx),
            _ => None,
        });
        term.ok_or_else(|| NameError {
            problem: format!("`{}` is no term of SPF that postseal takes", shown(text)),
            mend: TERMS.to_owned(),
        })
    }
}

/// Reads an address with the length of its prefix, without leading zeros (RFC 7208 §5.6).
fn network(text: &str, longest: u8) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let length = match length {
        None => longest,
        Some(digits) => {
            let length: u8 = digits.parse().ok().filter(|length| *length <= longest)?;
            (length.to_string() == digits).then_some(length)?
        }
    };
    Some((address.parse().ok()?, length))
}

impl fmt::Display for SpfTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |f: &mut fmt::Formatter<'_>, mechanism, name: &RecordName| write!(f, "{mechanism}:{name}");
        match self {
            Self::A(of) => name(f, "a", of),
            Self::Include(of) => name(f, "include", of),
            Self::Ip(address, length) => {
                let (mechanism, longest) = if address.is_ipv4() { ("ip4", 32) } else { ("ip6", 128) };
                write!(f, "{mechanism}:{address}")?;
                if *length < longest { write!(f, "/{length}") } else { Ok(()) }
            }
            Self::Mx(of) => name(f, "mx", of),
        }
    }
}

impl FromStr for CaaIssuer {
    type Err = NameError;

    /// Reads the domain of a CA with parameters, such as `letsencrypt.org; accounturi=https://...`, or `;` for nobody
    /// (RFC 8659 §4.2, RFC 8657). Values of parameters are printable ASCII without `;`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(';').map(|part| part.trim_matches([' ', '\t']));
        let issuer = parts.next().unwrap_or_default();
        let parameters: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        let is_label = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !name.is_empty() && name.bytes().all(plain) && !name.starts_with('-') && !name.ends_with('-')
        };
        let is_parameter = |parameter: &&str| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                is_label(name) && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
            })
        };
        let name = match issuer {
            "" => (text.contains(';') && parameters.is_empty()).then(|| ";".to_owned()),
            _ => issuer.parse::<DomainName>().ok().map(|name| name.to_string()),
        };
        let Some(name) = name.filter(|_| parameters.iter().all(is_parameter) && text.len() <= 400) else {
            return Err(NameError {
                problem: format!("`{}` names no CA as CAA records do", shown(text)),
                mend: "write the domain that the CA is known by, such as letsencrypt.org, with its parameters behind `;`; \
                       or `;` alone for nobody"
                    .to_owned(),
            });
        };
        Ok(Self(std::iter::once(name.as_str()).chain(parameters).collect::<Vec<_>>().join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_another_sender_may_stand_at_a_name_that_is_no_hosts() {
        let term: SpfTerm = "include:_spf.Example.com".parse().unwrap();
        assert_eq!(term.to_string(), "include:_spf.example.com");
        for bad in ["include:_spf", "include:a b.example.com", "include:a..example.com", "include:%{d}.example.com"] {
            assert!(bad.parse::<SpfTerm>().is_err(), "{bad}");
        }
    }
}

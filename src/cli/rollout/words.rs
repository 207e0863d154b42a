//! What is said of many domains, for people.

use crate::names::DomainName;

/// How many domains are named where the same is said of many.
const NAMED: usize = 5;

/// Lays out what is said of domains: a line each, or one where the same is said of many.
pub(in crate::cli) fn grouped(said: &[(DomainName, String)]) -> Vec<String> {
    let mut by_text: std::collections::HashMap<&str, Vec<&DomainName>> = std::collections::HashMap::new();
    let mut order = Vec::new();
    for (domain, text) in said {
        let domains = by_text.entry(text).or_insert_with(|| {
            order.push(text.as_str());
            Vec::new()
        });
        domains.push(domain);
    }
    let mut lines = Vec::new();
    for text in order {
        let domains = by_text.remove(text).unwrap_or_default();
        if domains.len() <= NAMED + 1 {
            lines.extend(domains.into_iter().map(|domain| format!("{domain}: {text}")));
        } else {
            let named: Vec<&str> = domains.iter().take(NAMED).map(|domain| domain.as_str()).collect();
            lines.push(format!("{} and {} more: {text}", named.join(", "), domains.len() - NAMED));
        }
    }
    lines
}

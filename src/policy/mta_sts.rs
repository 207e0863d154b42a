//! The MTA-STS policy file (RFC 8461 §3.2) and the identifier that tells senders of a new one (§3.1).

use std::fmt::Write as _;

use crate::names::Digest;
use crate::policy::rollout::InForce;
use crate::stages::StsStage;

/// How many hexadecimal digits of the policy's digest name it: 32 characters at most (RFC 8461 §3.1).
const ID: usize = 20;

/// Returns the policy file, with lines that end in CRLF; none if there is no policy.
pub fn policy(in_force: &InForce<'_>) -> Option<String> {
    let mode = match in_force.mta_sts {
        StsStage::Off => return None,
        StsStage::Testing => "testing",
        StsStage::Enforce | StsStage::EnforceLong => "enforce",
        StsStage::Withdrawn => "none",
    };
    let mut text = format!("version: STSv1\r\nmode: {mode}\r\n");
    if in_force.mta_sts != StsStage::Withdrawn {
        for host in &in_force.policy_mx {
            // Writing to a String cannot fail.
            let _ = write!(text, "mx: {host}\r\n");
        }
    }
    let _ = write!(text, "max_age: {}\r\n", in_force.max_age);
    Some(text)
}

/// Returns the identifier of a policy file: it changes if, and only if, the file does.
pub fn id(policy: &str) -> String {
    Digest::of(policy.as_bytes()).to_string().chars().take(ID).collect()
}

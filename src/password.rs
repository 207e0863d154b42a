//! Passwords: made from random octets, judged, and hashed for OpenSMTPD's credentials table.

use crate::names::NameError;
use crate::secret::Secret;

/// How many random octets [`generate`] turns into a password: 120 bits.
pub const RANDOM_OCTETS: usize = 15;

/// The letters of a generated password: 32, so that five bits choose one; without those that look like another.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// bcrypt reads no further; more would be a false promise.
const BCRYPT_LIMIT: usize = 72;

/// 2^10 rounds, about 70 ms: OpenSMTPD checks all logins in one process, so that each hash delays the next login.
const BCRYPT_COST: u32 = 10;

/// Turns random octets into a password of ASCII letters and digits in groups that can be read over the telephone.
pub fn generate(random: &Secret) -> Secret {
    let mut password = Vec::with_capacity(RANDOM_OCTETS * 2);
    let mut bits: u32 = 0;
    let mut count = 0;
    for octet in random.expose() {
        bits = (bits << 8 | u32::from(*octet)) & 0xffff;
        count += 8;
        while count >= 5 {
            count -= 5;
            let index = (bits >> count & 31) as usize;
            if password.len() % 7 == 6 {
                password.push(b'-');
            }
            password.extend(LETTERS.get(index));
        }
    }
    Secret::new(password)
}

/// Takes a password that a person chose: one line of 8 to 72 octets without control characters.
pub fn judge(password: &Secret) -> Result<Secret, NameError> {
    let refuse = |problem: &str, mend: &str| Err(NameError { problem: problem.to_owned(), mend: mend.to_owned() });
    let Some(text) = password.expose_str() else {
        return refuse("the password is not in UTF-8", "save the file as UTF-8");
    };
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.chars().any(char::is_control) {
        return refuse("the password holds a control character", "write it as one line of printable characters");
    }
    if text.chars().count() < 8 {
        return refuse("the password is shorter than 8 characters", "choose a longer one, or let postseal make one");
    }
    if text.len() > BCRYPT_LIMIT {
        return refuse("the password is longer than 72 octets, of which bcrypt reads no more", "choose a shorter one");
    }
    Ok(Secret::new(text.as_bytes().to_vec()))
}

/// Returns the bcrypt hash of a password (`$2b$10$...`), which OpenSMTPD and Dovecot both read through crypt(3).
pub fn hash(password: &Secret, salt: [u8; 16]) -> Result<Secret, bcrypt::BcryptError> {
    let parts = bcrypt::hash_with_salt(password.expose(), BCRYPT_COST, salt)?;
    Ok(Secret::from(parts.format_for_version(bcrypt::Version::TwoB)))
}

/// Tells whether a password has that bcrypt hash.
pub fn opens(password: &Secret, hash: &str) -> bool {
    bcrypt::verify(password.expose(), hash).unwrap_or(false)
}

/// Tells whether a text is a bcrypt hash as crypt(3) writes it: version, cost, and 53 characters of salt and hash.
pub fn is_hash(text: &str) -> bool {
    let parts: Vec<&str> = text.split('$').collect();
    let ["", "2a" | "2b" | "2x" | "2y", cost, rest] = parts.as_slice() else { return false };
    let is_cost = cost.len() == 2 && cost.parse::<u8>().is_ok_and(|cost| (4..=31).contains(&cost));
    is_cost && rest.len() == 53 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_password_uses_every_bit_and_reads_well() {
        assert_eq!(generate(&Secret::new(vec![0; 15])).expose_str(), Some("aaaaaa-aaaaaa-aaaaaa-aaaaaa"));
        assert_eq!(generate(&Secret::new(vec![0xff; 15])).expose_str(), Some("999999-999999-999999-999999"));
        let mut one = vec![0; 15];
        one[14] = 1;
        assert_eq!(generate(&Secret::new(one)).expose_str(), Some("aaaaaa-aaaaaa-aaaaaa-aaaaab"));
    }

    #[test]
    fn a_chosen_password_loses_its_line_end_and_nothing_else() {
        let judged = |text: &str| judge(&Secret::from(text.to_owned()));
        assert_eq!(judged(" correct horse \r\n").ok().as_ref().and_then(Secret::expose_str), Some(" correct horse "));
        for bad in ["", "short", "two\nlines here", "nul\0in the middle", &"x".repeat(73)] {
            assert!(judged(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_hash_is_what_crypt_calls_2b() {
        let hash = hash(&Secret::from("correct horse".to_owned()), [7; 16]).expect("bcrypt hashes");
        let text = hash.expose_str().expect("a hash is ASCII");
        assert!(text.starts_with("$2b$10$") && text.len() == 60 && is_hash(text));
        assert!(!is_hash("") && !is_hash(&text.replace("$10$", "$99$")) && !is_hash(&format!("{text}.")));
        assert!(bcrypt::verify("correct horse", text).expect("bcrypt verifies"));
    }
}

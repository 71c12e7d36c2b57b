//! Keys: how a new one is made, and the hash that stands for it afterwards.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use thiserror::Error;

/// The SHA-256 of a key; 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a key's hash is 64 hexadecimal digits (`tenantry keys hash` prints it)")]
pub struct BadKeyHash;

/// A key as its owner gets it, once.
pub struct NewKey(String);

// === impl KeyHash ===

impl KeyHash {
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl FromStr for KeyHash {
    type Err = BadKeyHash;

    fn from_str(text: &str) -> Result<Self, BadKeyHash> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(BadKeyHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| (c as char).to_digit(16).ok_or(BadKeyHash);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl NewKey ===

impl NewKey {
    /// A key of 192 random bits from the operating system.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bits = [0_u8; 24];
        getrandom::fill(&mut bits)?;
        let digits: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("sk-tenantry-{digits}")))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_as_it_was_written() {
        let hash = KeyHash::of(b"sk-demo-acme");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
    }

    #[test]
    fn other_text_is_no_hash() {
        for text in ["", "abc", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert_eq!(text.parse::<KeyHash>(), Err(BadKeyHash), "{text}");
        }
    }

    #[test]
    fn two_new_keys_differ() {
        let (one, two) = (NewKey::generate().expect("random bits"), NewKey::generate().expect("random bits"));
        assert_ne!(one.text(), two.text());
        assert_eq!(one.text().len(), "sk-tenantry-".len() + 48);
    }
}

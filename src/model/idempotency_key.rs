//! The key with which a sender can repeat a send.

use crate::error::Invalid;

/// The name that a sender gives to one send, so that it can repeat the send: 1 to 64 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Checks a key.
    ///
    /// # Errors
    /// [`Invalid::IdempotencyKey`] when the text is out of the bounds of [`IdempotencyKey`].
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let valid = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        valid.then(|| Self(text.into())).ok_or(Invalid::IdempotencyKey)
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_out_of_bounds_is_invalid() {
        for good in ["1", "8e03978e-40d5-43dd-bc93-6894a57f9324", "\"quoted\"", "!~", &"x".repeat(64)] {
            assert!(IdempotencyKey::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\tb", "\u{7f}", "é", &"x".repeat(65)] {
            assert_eq!(IdempotencyKey::new(bad), Err(Invalid::IdempotencyKey), "{bad:?}");
        }
    }
}

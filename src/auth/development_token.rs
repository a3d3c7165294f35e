//! Signs tokens for development with the secret that the daemon verifies them with.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;

use super::signatures;

/// A token with these claims, signed with HS256.
///
/// # Errors
/// When the secret is too short: the daemon would refuse it.
pub fn development_token(secret: &[u8], claims: &Value) -> Result<String, &'static str> {
    if secret.len() < signatures::SHORTEST_SECRET {
        return Err("the secret has less than 32 bytes, and the daemon accepts no shorter one");
    }
    signatures::install();
    let key = EncodingKey::from_secret(secret).map_err(|_| "the secret cannot be used")?;
    encode(&Header::new(Algorithm::HS256), claims, &key).map_err(|_| "the token cannot be signed")
}

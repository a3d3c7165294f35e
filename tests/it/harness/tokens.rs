//! Tokens as other programs make them, and files with their keys.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use serde_json::{Value, json};

pub const RSA: &str = include_str!("../keys/rsa.pem");
pub const RSA_PUBLIC: &str = include_str!("../keys/rsa.pub.pem");
pub const OTHER_RSA: &str = include_str!("../keys/other-rsa.pem");
pub const OTHER_RSA_PUBLIC: &str = include_str!("../keys/other-rsa.pub.pem");

pub const SECRET: &str = "a secret of at least 32 bytes, as RFC 7518 wants";

/// Whoever signs tokens.
pub enum Signer {
    Secret(Vec<u8>),
    /// A private key in PKCS#8.
    Private(Vec<u8>),
}

impl Signer {
    pub fn secret(secret: impl AsRef<[u8]>) -> Self {
        Self::Secret(secret.as_ref().to_vec())
    }

    pub fn rsa() -> Self {
        Self::Private(der(RSA))
    }

    pub fn other_rsa() -> Self {
        Self::Private(der(OTHER_RSA))
    }

    /// A new key, and its public half in PEM.
    pub fn generate(algorithm: &'static rcgen::SignatureAlgorithm) -> (Self, String) {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        (Self::Private(key.serialize_der()), key.public_key_pem())
    }

    /// A token with this header and these claims. The header's `alg` picks the algorithm; an unknown one gives no signature.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let header: Value = serde_json::from_str(header).expect("JSON");
        let signature = self.signature(header["alg"].as_str().unwrap_or_default(), message.as_bytes());
        format!("{message}.{}", encode(signature))
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match (self, algorithm) {
            (Self::Secret(secret), "HS256") => mac(hmac::HMAC_SHA256, secret, message),
            (Self::Secret(secret), "HS384") => mac(hmac::HMAC_SHA384, secret, message),
            (Self::Secret(secret), "HS512") => mac(hmac::HMAC_SHA512, secret, message),
            (Self::Private(key), "RS256") => rsa(&signature::RSA_PKCS1_SHA256, key, message),
            (Self::Private(key), "RS384") => rsa(&signature::RSA_PKCS1_SHA384, key, message),
            (Self::Private(key), "RS512") => rsa(&signature::RSA_PKCS1_SHA512, key, message),
            (Self::Private(key), "PS256") => rsa(&signature::RSA_PSS_SHA256, key, message),
            (Self::Private(key), "PS384") => rsa(&signature::RSA_PSS_SHA384, key, message),
            (Self::Private(key), "PS512") => rsa(&signature::RSA_PSS_SHA512, key, message),
            (Self::Private(key), "ES256") => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, key, message),
            (Self::Private(key), "ES384") => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, key, message),
            (Self::Private(key), "EdDSA") => {
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).expect("a key");
                key.sign(message).as_ref().to_vec()
            }
            _ => Vec::new(),
        }
    }
}

fn mac(algorithm: hmac::Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
}

fn rsa(algorithm: &'static dyn RsaEncoding, key: &[u8], message: &[u8]) -> Vec<u8> {
    let key = RsaKeyPair::from_pkcs8(key).expect("a key");
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(algorithm, &SystemRandom::new(), message, &mut signature).expect("a signature");
    signature
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, key: &[u8], message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, key, &random).expect("a key");
    key.sign(&random, message).expect("a signature").as_ref().to_vec()
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a PEM.
fn der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(lines).expect("base64")
}

/// An RSA key of a JWKS. `key` is its private half in PEM.
pub fn rsa_jwk(id: &str, key: &str) -> Value {
    let key = RsaKeyPair::from_pkcs8(&der(key)).expect("a key");
    let RsaPublicKeyComponents::<Vec<u8>> { n, e } = key.public().into();
    let [n, e] = [n, e].map(encode);
    json!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": n, "e": e})
}

pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Seconds since 1970, from now.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("before the year 9999") + seconds
}

/// The claims of `user/device` for a minute.
pub fn claims(device: &str) -> Value {
    let (user, device) = device.split_once('/').expect("user/device");
    json!({"userid": user, "clientid": device, "exp": seconds_from_now(60)})
}

/// A token of `user/device`, signed with [`SECRET`].
pub fn token(device: &str) -> String {
    Signer::secret(SECRET).sign(&json!({"alg": "HS256", "typ": "JWT"}), &claims(device))
}

/// A new file of the tests.
pub fn file(name: &str, content: impl AsRef<[u8]>) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (folder, count) = (env!("CARGO_TARGET_TMPDIR"), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = format!("{folder}/token-{}-{count}-{name}", std::process::id());
    std::fs::write(&path, content).expect("writable");
    path
}

//! The cryptography of tokens and tickets: makes `jsonwebtoken` use ring, which TLS needs anyway.
//!
//! The providers that come with `jsonwebtoken` would add about forty crates, or a library in C. A new algorithm goes here.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{Error as SignatureError, Signer, Verifier},
};
use ring::{
    hmac,
    signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm},
};

/// Makes ring the provider of `jsonwebtoken`, which panics without one. Only the first call has an effect.
pub(super) fn install() {
    let _was_installed_before = PROVIDER.install_default();
}

/// `key_utils` stays empty: it makes JWKs from other keys, and nothing here does that.
static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Verifies the signatures of one key.
struct KeyVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Signs with a secret. The daemon signs only its own tickets.
struct SecretSigner(hmac::Key);

/// Whether a key can verify a token, and whoever has a token cannot guess the key (RFC 7518, sections 3.2 and 3.3). ring refuses an
/// unusable key only when a token comes, and then every token fails.
pub(super) fn is_usable(key: &DecodingKey) -> bool {
    match (key.family(), key.kind()) {
        (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => secret.len() >= SHORTEST_SECRET,
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => is_modulus(n) && is_exponent(e),
        (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => modulus(der).is_some_and(is_modulus),
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => POINTS.contains(&point.len()),
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(key)) => key.len() == ED25519,
        _ => false,
    }
}

/// Whether ring takes a number as the modulus of an RSA key: no zeros before it, and 2048 to 8192 bits.
fn is_modulus(n: &[u8]) -> bool {
    (256..=1024).contains(&n.len()) && n[0] != 0
}

/// Whether ring takes a number as the exponent of an RSA key: no zeros before it, odd, and 3 to 2^33 - 1.
fn is_exponent(e: &[u8]) -> bool {
    let is_odd = e.last().is_some_and(|last| last % 2 == 1);
    is_odd && e[0] != 0 && e != [1] && (e.len() < 5 || (e.len() == 5 && e[0] == 1))
}

/// The modulus of an RSA key in DER (RFC 8017, appendix A.1.1). `None` also when it is so short that its length takes one byte.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    let [0x30, 0x82, _, _, 0x02, 0x82, high, low, numbers @ ..] = der else { return None };
    let modulus = numbers.get(..usize::from(u16::from_be_bytes([*high, *low])))?;
    // The sign of the number.
    Some(modulus.strip_prefix(&[0]).unwrap_or(modulus))
}

/// The output of SHA-256.
pub(super) const SHORTEST_SECRET: usize = 32;

/// The bytes of a point on P-256 and on P-384: its form and two coordinates.
const POINTS: [usize; 2] = [65, 97];

/// The bytes of a public key for Ed25519.
const ED25519: usize = 32;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library calls it so")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // Otherwise a public key, which everybody has, could be used as the secret of an HMAC.
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(KeyVerifier { algorithm: *algorithm, key: key.clone() }))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library calls it so")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if *algorithm != Algorithm::HS256 || key.family() != AlgorithmFamily::Hmac {
        return Err(ErrorKind::UnsupportedAlgorithm.into());
    }
    Ok(Box::new(SecretSigner(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))))
}

impl Verifier<Vec<u8>> for KeyVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let verified = match self.algorithm {
            Algorithm::HS256 => self.with_secret(hmac::HMAC_SHA256, message, signature),
            Algorithm::HS384 => self.with_secret(hmac::HMAC_SHA384, message, signature),
            Algorithm::HS512 => self.with_secret(hmac::HMAC_SHA512, message, signature),
            Algorithm::RS256 => self.with_rsa(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature),
            Algorithm::RS384 => self.with_rsa(&signature::RSA_PKCS1_2048_8192_SHA384, message, signature),
            Algorithm::RS512 => self.with_rsa(&signature::RSA_PKCS1_2048_8192_SHA512, message, signature),
            Algorithm::PS256 => self.with_rsa(&signature::RSA_PSS_2048_8192_SHA256, message, signature),
            Algorithm::PS384 => self.with_rsa(&signature::RSA_PSS_2048_8192_SHA384, message, signature),
            Algorithm::PS512 => self.with_rsa(&signature::RSA_PSS_2048_8192_SHA512, message, signature),
            Algorithm::ES256 => self.with_bytes(&signature::ECDSA_P256_SHA256_FIXED, message, signature),
            Algorithm::ES384 => self.with_bytes(&signature::ECDSA_P384_SHA384_FIXED, message, signature),
            Algorithm::EdDSA => self.with_bytes(&signature::ED25519, message, signature),
            // The library may get further algorithms.
            _ => None,
        };
        verified.ok_or_else(SignatureError::new)
    }
}

/// Each function returns `None` if the signature is wrong.
impl KeyVerifier {
    fn with_secret(&self, hash: hmac::Algorithm, message: &[u8], signature: &[u8]) -> Option<()> {
        hmac::verify(&hmac::Key::new(hash, self.key.try_get_as_bytes().ok()?), message, signature).ok()
    }

    fn with_bytes(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Option<()> {
        UnparsedPublicKey::new(algorithm, self.key.try_get_as_bytes().ok()?).verify(message, signature).ok()
    }

    fn with_rsa(&self, algorithm: &'static RsaParameters, message: &[u8], signature: &[u8]) -> Option<()> {
        match self.key.kind() {
            DecodingKeyKind::SecretOrDer(_) => self.with_bytes(algorithm, message, signature),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(algorithm, message, signature).ok()
            }
        }
    }
}

impl JwtVerifier for KeyVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Signer<Vec<u8>> for SecretSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl JwtSigner for SecretSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

//! The keys that tokens are verified with: one secret, one public key, or a set of keys (JWKS, RFC 7517).

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Header, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_rustls::rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

use super::signatures::{self, SHORTEST_SECRET};
use crate::error::IdentityFault;

/// What every token must say, besides who the caller is.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// A token that names an audience must be for one of these; without any of these, it must name none. With some, it must name one.
    pub audiences: Vec<String>,
    /// A token must come from one of these. Empty: from anybody who has the key.
    pub issuers: Vec<String>,
}

/// Keys, each with the rules for the tokens that it signs.
pub struct KeySet {
    keys: Vec<Key>,
    /// Whether keys have ids, so that the header of a token can name one. Only the keys of a JWKS have them.
    has_ids: bool,
}

/// One key, and the algorithms of its family that it may be used with.
pub(super) struct Key {
    id: Option<String>,
    pub(super) decoding: DecodingKey,
    pub(super) validation: Validation,
}

/// Who can read a JWKS. Decides whether a secret in it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The operator of the daemon, and whoever may read his files.
    Operator,
    /// Everybody, because it is at a URL. A secret there is known to all, so it is ignored.
    Everybody,
}

#[derive(Deserialize)]
struct Jwks<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// One secret for HS256, HS384 and HS512.
    ///
    /// # Errors
    /// When the secret is so short that whoever has a token could guess it (RFC 7518, section 3.2).
    pub fn secret(secret: &[u8], expected: &Expected) -> Result<Self, &'static str> {
        if secret.len() < SHORTEST_SECRET {
            return Err("the secret has less than 32 bytes, so whoever has a token could guess it");
        }
        let key = DecodingKey::from_secret(secret).map_err(|_| "the secret cannot be used")?;
        Ok(Self { keys: vec![Key::new(None, key, None, expected)], has_ids: false })
    }

    /// One public key in PEM: RSA, EC (P-256 or P-384) or Ed25519.
    ///
    /// # Errors
    /// When it is another kind of key, a private one, or an RSA key that is too short.
    pub fn public_key(pem: &[u8], expected: &Expected) -> Result<Self, &'static str> {
        if memchr::memmem::find(pem, b"PRIVATE KEY").is_some() {
            return Err("this is a private key; the daemon needs only the public one");
        }
        let key = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem));
        let is_certificate = memchr::memmem::find(pem, b"BEGIN CERTIFICATE").is_some();
        let refusal = |reason| if is_certificate { CERTIFICATE } else { reason };
        let key = key.map_err(|_| refusal("not a public key in PEM: RSA, EC (P-256 or P-384) or Ed25519"))?;
        match key.family() {
            AlgorithmFamily::Rsa if !signatures::is_usable(&key) => {
                Err(refusal("an RSA key must have 2048 to 8192 bits"))
            }
            AlgorithmFamily::Ec if !is_on_known_curve(pem) => Err(refusal("an EC key must be on P-256 or P-384")),
            _ => Ok(Self { keys: vec![Key::new(None, key, None, expected)], has_ids: false }),
        }
    }

    /// A JWKS. Ignores the keys that cannot verify a token here, as RFC 7517, section 5, demands.
    ///
    /// # Errors
    /// When it is not a JWKS, or has no key that can verify a token.
    pub fn jwks(json: &[u8], readers: Readers, expected: &Expected) -> Result<Self, &'static str> {
        let jwks: Jwks<'_> = serde_json::from_slice(json).map_err(|_| NO_SET)?;
        if jwks.keys.len() > MOST_KEYS {
            return Err("the set has more than 256 keys");
        }
        let keys: Vec<_> = jwks.keys.iter().filter_map(|key| Key::of_jwk(key, readers, expected)).collect();
        if keys.is_empty() {
            return Err(
                "the set has no key that can verify a token: RSA (2048 to 8192 bits), EC (P-256 or P-384) or Ed25519",
            );
        }
        Ok(Self { keys, has_ids: true })
    }

    /// Says so when the set has more keys of one family than are tried for a token that names none.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        let of = |family| self.keys.iter().filter(|key| key.decoding.family() == family).count();
        self.keys.iter().any(|key| of(key.decoding.family()) > MOST_TRIED).then_some(
            "the key set has more than 8 keys of one kind: for a token without a kid only the first 8 of its kind are tried",
        )
    }

    /// The keys that may have signed a token with this header: the one that it names, or the first [`MOST_TRIED`] of its family.
    pub(super) fn for_header<'a>(&'a self, header: &'a Header) -> Result<impl Iterator<Item = &'a Key>, IdentityFault> {
        let id = header.kid.as_deref().filter(|_| self.has_ids);
        let is_named = move |key: &&Key| id.is_none() || key.id.as_deref() == id;
        if !self.keys.iter().any(|key| is_named(&key)) {
            return Err(IdentityFault::UnknownKey);
        }
        let fits = |key: &&Key| key.validation.algorithms.contains(&header.alg);
        Ok(self.keys.iter().filter(is_named).filter(fits).take(MOST_TRIED))
    }
}

impl Key {
    fn new(id: Option<String>, key: DecodingKey, algorithm: Option<Algorithm>, expected: &Expected) -> Self {
        signatures::install();
        let mut validation = Validation::new_for_family(key.family());
        if let Some(algorithm) = algorithm {
            validation.algorithms = vec![algorithm];
        }
        let mut required = vec!["exp"];
        // Without `required`, the library would accept a token that has no audience or no issuer at all.
        if !expected.audiences.is_empty() {
            validation.set_audience(&expected.audiences);
            required.push("aud");
        }
        if !expected.issuers.is_empty() {
            validation.set_issuer(&expected.issuers);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        // `jwt.rs` checks the times: the library's clock panics before 1970.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        Self { id, decoding: key, validation }
    }

    fn of_jwk(json: &RawValue, readers: Readers, expected: &Expected) -> Option<Self> {
        let jwk: Jwk = serde_json::from_str(json.get()).ok()?;
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let is_supported = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => true,
            AlgorithmParameters::EllipticCurve(key) => matches!(key.curve, EllipticCurve::P256 | EllipticCurve::P384),
            AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519,
            AlgorithmParameters::OctetKey(_) => readers == Readers::Operator,
            _ => false,
        };
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|key| signs && is_supported && signatures::is_usable(key))?;
        let algorithm: Option<Algorithm> = common.key_algorithm.map(TryInto::try_into).transpose().ok()?;
        let fits = algorithm.is_none_or(|algorithm| algorithm.family() == key.family());
        fits.then(|| Self::new(common.key_id.clone(), key, algorithm, expected))
    }
}

/// Whether an EC key is on P-256 or P-384. Its length does not show that: other curves have points of the same length.
fn is_on_known_curve(pem: &[u8]) -> bool {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(pem);
    key.is_ok_and(|key| [P256, P384].iter().any(|curve| memchr::memmem::find(&key, curve).is_some()))
}

/// How many keys are tried for one token. Each costs a computation, and a stranger's token fails with all of them.
const MOST_TRIED: usize = 8;

/// Identity providers have a handful of keys. More are a mistake, and each token is looked up among all of them.
const MOST_KEYS: usize = 256;

/// Says how to get the key out of a certificate.
const CERTIFICATE: &str = "this is a certificate; give its public key (openssl x509 -pubkey -noout)";

/// Also for a key without its set.
const NO_SET: &str = r#"not a JSON Web Key Set: it needs {"keys":[...]}"#;

/// The object identifiers of the curves, in DER (RFC 5480, section 2.1.1.1).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

#[cfg(test)]
mod tests {
    use super::*;

    /// A set of secrets with the ids `0`, `1` and so on, after `others` keys of another family.
    fn set(secrets: usize, others: usize) -> Result<KeySet, &'static str> {
        let other = serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "other", "x": "A".repeat(43)});
        let secret = |id: usize| serde_json::json!({"kty": "oct", "kid": id.to_string(), "k": "A".repeat(43)});
        let keys: Vec<_> = (0..others).map(|_| other.clone()).chain((0..secrets).map(secret)).collect();
        let json = serde_json::json!({ "keys": keys }).to_string();
        KeySet::jwks(json.as_bytes(), Readers::Operator, &Expected::default())
    }

    /// The ids of the keys that are tried for a token.
    fn tried(set: &KeySet, algorithm: Algorithm, id: Option<&str>) -> Vec<String> {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(algorithm) };
        set.for_header(&header).unwrap().map(|key| key.id.clone().unwrap()).collect()
    }

    #[test]
    fn for_a_token_that_names_no_key_at_most_8_of_its_family_are_tried() {
        let set = set(140, 20).unwrap();
        let first_8: Vec<_> = (0..8).map(|id| id.to_string()).collect();
        assert_eq!(tried(&set, Algorithm::HS256, None), first_8);
        assert_eq!(tried(&set, Algorithm::EdDSA, None), ["other"; 8]);
        assert_eq!(tried(&set, Algorithm::HS256, Some("139")), ["139"]);
        // Several keys may have the same id.
        assert_eq!(tried(&set, Algorithm::EdDSA, Some("other")), ["other"; 8]);
        assert_eq!(tried(&set, Algorithm::RS256, None), [""; 0]);
    }

    #[test]
    fn a_set_with_keys_that_are_never_tried_is_a_warning_and_one_with_too_many_keys_is_refused() {
        for (secrets, others, warns) in [(1, 0, false), (8, 8, false), (9, 0, true), (1, 9, true), (256, 0, true)] {
            assert_eq!(set(secrets, others).unwrap().warning().is_some(), warns, "{secrets} and {others}");
        }
        assert_eq!(set(200, 57).err(), Some("the set has more than 256 keys"));
    }
}

//! The keys that sign and verify access tokens. Each `kid` has one algorithm, so a token cannot choose how it is
//! verified. HS256 by default: a few microseconds, and only gateways need to verify; with an Ed25519 key in the ring
//! that one signs, and its public half is published for an institute's other services (RFC 7517).

use contracts::access_token::{self, AUDIENCE, AccessClaims, ISSUER};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse},
};
use secrecy::ExposeSecret;

use crate::config::Secrets;

/// How far clocks may be apart, seconds.
pub(super) const LEEWAY_SECS: u64 = 30;
/// HS256 asks for a key as long as its hash (RFC 7518 §3.2).
const HS256_BYTES_MIN: usize = 32;

/// Why the ring cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A secret that could be guessed.
    #[error("an HS256 secret must have at least {HS256_BYTES_MIN} bytes")]
    SecretTooShort,
    /// Not a PEM of an Ed25519 private key.
    #[error("secrets.jwt_eddsa_pem is not a PKCS#8 PEM of an Ed25519 private key: {0}")]
    BadEd25519(#[from] jsonwebtoken::errors::Error),
    /// bcrypt refused the configured cost.
    #[error("auth.bcrypt_cost is not usable: {0}")]
    BadCost(#[from] bcrypt::BcryptError),
}

/// A token that must be refused; why is nobody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// The keys by `kid`; the first signs.
pub(super) struct KeyRing {
    signer: EncodingKey,
    header: Header,
    keys: Vec<Key>,
}

struct Key {
    kid: String,
    /// The first part of every token that was signed with it here.
    encoded_header: String,
    decoding: DecodingKey,
    validation: Validation,
    public: Option<Jwk>,
}

impl KeyRing {
    /// Parses the keys, once.
    pub(super) fn new(secrets: &Secrets) -> Result<Self, AuthError> {
        let hs256 = secrets.jwt_hs256.expose_secret().as_bytes();
        let mut keys = vec![Key::hs256(hs256)?];
        if let Some(previous) = &secrets.jwt_hs256_previous {
            keys.push(Key::hs256(previous.expose_secret().as_bytes())?);
        }
        let mut signer = EncodingKey::from_secret(hs256);
        let mut algorithm = Algorithm::HS256;
        if let Some(pem) = &secrets.jwt_eddsa_pem {
            signer = EncodingKey::from_ed_pem(pem.expose_secret().as_bytes())?;
            algorithm = Algorithm::EdDSA;
            keys.insert(0, Key::ed25519(&signer)?);
        }
        let header = header(algorithm, &keys[0].kid);
        Ok(Self { signer, header, keys })
    }

    /// Signs.
    pub(super) fn sign(&self, claims: &AccessClaims) -> String {
        jsonwebtoken::encode(&self.header, claims, &self.signer).expect("the key was parsed for this algorithm")
    }

    /// Verifies signature, algorithm, issuer, audience and times, and reads the claims.
    pub(super) fn verify(&self, token: &str) -> Result<AccessClaims, Refused> {
        let key = self.key_of(token).ok_or(Refused)?;
        let token = jsonwebtoken::decode(token, &key.decoding, &key.validation).map_err(|_| Refused)?;
        Ok(token.claims)
    }

    /// Our own headers are known as they are encoded; one that another program wrote is read for its `kid`.
    fn key_of(&self, token: &str) -> Option<&Key> {
        let (header, _) = token.split_once('.')?;
        if let Some(key) = self.keys.iter().find(|key| key.encoded_header == header) {
            return Some(key);
        }
        let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
        self.keys.iter().find(|key| key.kid == kid)
    }

    /// The public keys; empty while only secrets are in the ring.
    pub(super) fn public_keys(&self) -> JwkSet {
        JwkSet { keys: self.keys.iter().filter_map(|key| key.public.clone()).collect() }
    }
}

impl Key {
    fn hs256(secret: &[u8]) -> Result<Self, AuthError> {
        if secret.len() < HS256_BYTES_MIN {
            return Err(AuthError::SecretTooShort);
        }
        let kid = access_token::kid("HS256", secret);
        Ok(Self {
            encoded_header: encoded_header(Algorithm::HS256, &kid, &EncodingKey::from_secret(secret))?,
            kid,
            decoding: DecodingKey::from_secret(secret),
            validation: validation(Algorithm::HS256),
            public: None,
        })
    }

    fn ed25519(private: &EncodingKey) -> Result<Self, AuthError> {
        let mut public = Jwk::from_encoding_key(private, Algorithm::EdDSA)?;
        let decoding = DecodingKey::from_jwk(&public)?;
        let AlgorithmParameters::OctetKeyPair(pair) = &public.algorithm else {
            unreachable!("an Ed25519 key is an octet key pair (RFC 8037)")
        };
        let kid = access_token::kid("EdDSA", pair.x.as_bytes());
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self {
            encoded_header: encoded_header(Algorithm::EdDSA, &kid, private)?,
            kid,
            decoding,
            validation: validation(Algorithm::EdDSA),
            public: Some(public),
        })
    }
}

fn header(algorithm: Algorithm, kid: &str) -> Header {
    Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) }
}

fn encoded_header(algorithm: Algorithm, kid: &str, key: &EncodingKey) -> Result<String, AuthError> {
    let token = jsonwebtoken::encode(&header(algorithm, kid), &serde_json::json!({}), key)?;
    Ok(token.split('.').next().unwrap_or_default().to_owned())
}

fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    // `jti`, `sid`, `role` and `iat` are required by the type of the claims.
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY_SECS;
    validation
}

#[cfg(test)]
#[path = "key_ring_tests.rs"]
mod tests;

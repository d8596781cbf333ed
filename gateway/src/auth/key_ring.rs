//! The keys that sign and verify access tokens. Each `kid` has one algorithm, so a token cannot choose how it is
//! verified. HS256 by default: a few microseconds, and only gateways need to verify; with an Ed25519 key in the ring
//! that one signs, and its public half is published for an institute's other services (RFC 7517).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contracts::access_token::{self, AUDIENCE, AccessClaims, ISSUER};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, crypto, get_current_timestamp,
    jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse},
};
use secrecy::ExposeSecret;

use crate::config::GatewaySecrets;

/// Tolerated difference of clocks, seconds.
pub(super) const LEEWAY_SECS: u64 = 30;
/// HS256 asks for a key as long as its hash (RFC 7518 §3.2).
const HS256_BYTES_MIN: usize = 32;

/// A key or cost that cannot be used.
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

/// A token that must be refused; the reason is never revealed.
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
    algorithm: Algorithm,
    decoding: DecodingKey,
    public: Option<Jwk>,
}

impl KeyRing {
    /// Parses the configured keys.
    pub(super) fn new(secrets: &GatewaySecrets) -> Result<Self, AuthError> {
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

    /// Signs claims into a token.
    pub(super) fn sign(&self, claims: &AccessClaims) -> String {
        jsonwebtoken::encode(&self.header, claims, &self.signer).expect("the key was parsed for this algorithm")
    }

    /// Verifies signature, algorithm, issuer, audience and times, and reads the claims.
    ///
    /// [`jsonwebtoken::decode`] reads the header and the claims of every token twice, a tenth of what a request cost here:
    /// the signature is checked by the same crate, the few claims that all our tokens have are checked below.
    pub(super) fn verify(&self, token: &str) -> Result<AccessClaims, Refused> {
        let (message, signature) = token.rsplit_once('.').ok_or(Refused)?;
        let (header, claims) = message.split_once('.').ok_or(Refused)?;
        let key = self.key_of(token, header).ok_or(Refused)?;
        let signed = crypto::verify(signature, message.as_bytes(), &key.decoding, key.algorithm);
        if !signed.map_err(|_| Refused)? {
            return Err(Refused);
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Refused)?;
        let claims: AccessClaims = serde_json::from_slice(&claims).map_err(|_| Refused)?;
        if is_good(&claims, get_current_timestamp()) { Ok(claims) } else { Err(Refused) }
    }

    /// The key that a token names. Headers written here are compared as encoded; one that another program wrote is parsed
    /// for its `kid` and algorithm.
    fn key_of(&self, token: &str, header: &str) -> Option<&Key> {
        if let Some(key) = self.keys.iter().find(|key| key.encoded_header == header) {
            return Some(key);
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        let key = self.keys.iter().find(|key| header.kid.as_ref() == Some(&key.kid))?;
        // Critical extensions (RFC 7515 §4.1.11) are not supported.
        (header.alg == key.algorithm && header.crit.is_none()).then_some(key)
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
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(secret),
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
            algorithm: Algorithm::EdDSA,
            decoding,
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

/// Checks the registered claims (RFC 7519 §4.1) at this time, in seconds since 1970. The type of the claims holds that
/// each is present and of its type.
fn is_good(claims: &AccessClaims, now: u64) -> bool {
    claims.iss == ISSUER
        && claims.aud == AUDIENCE
        && claims.exp.saturating_add(LEEWAY_SECS) >= now
        && claims.nbf <= now.saturating_add(LEEWAY_SECS)
}

#[cfg(test)]
#[path = "key_ring_tests.rs"]
mod tests;

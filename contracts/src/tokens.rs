//! Single-use tokens that travel by mail (verify, reset, magic link). The token is `<id>.<HMAC(secret, id)>`; only the
//! id is stored in `user_tokens` and sent through queues, the HMAC is computed while the mail is rendered. So neither a
//! queue nor a table holds a secret.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// Encodes and decodes mailed tokens.
#[derive(Clone)]
pub struct MailTokens {
    mac: Hmac<Sha256>,
}

impl MailTokens {
    /// Takes the secret that gateways and the email pool share.
    pub fn new(secret: &[u8]) -> Self {
        Self { mac: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length") }
    }

    /// The token for the row `user_tokens.id`; 65 characters, safe in a URL.
    pub fn encode(&self, id: Uuid) -> String {
        let mut mac = self.mac.clone();
        mac.update(id.as_bytes());
        let tag = mac.finalize().into_bytes();
        let tag = tag[..16].iter().fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
        format!("{}.{tag:032x}", id.simple())
    }

    /// The id of the row `user_tokens.id`; `None` where the token was not made with our secret.
    pub fn decode(&self, token: &str) -> Option<Uuid> {
        let (id, tag) = token.split_once('.').filter(|(id, tag)| id.len() == 32 && tag.len() == 32)?;
        let id = Uuid::try_parse(id).ok()?;
        let tag = u128::from_str_radix(tag, 16).ok()?.to_be_bytes();
        let mut mac = self.mac.clone();
        mac.update(id.as_bytes());
        mac.verify_truncated_left(&tag).ok()?;
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_tokens_are_decoded() {
        let tokens = MailTokens::new(b"secret");
        let id = crate::ids::new_id();
        assert_eq!(tokens.decode(&tokens.encode(id)), Some(id));
        assert_eq!(MailTokens::new(b"other").decode(&tokens.encode(id)), None);
        assert_eq!(tokens.decode(&format!("{}.{:032x}", id.simple(), 0)), None);
        assert_eq!(tokens.decode("nonsense"), None);
    }
}

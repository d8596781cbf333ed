//! Identifiers. An operation id is opaque to clients: `op_` + base62 of the event's UUID, 32 bits of the payload's
//! fingerprint and a 48-bit MAC, so that a gateway can distinguish *accepted, not settled yet* from *never existed*
//! without a write at ingress, and an anonymous client holds a capability that cannot be guessed.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::Fingerprint;

/// The namespace of every derived id (UUIDv5, RFC 9562 §5.5).
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_8a3c_52b7_5e0e_9c41_7be2_90d4_a5f3);

const TAIL_BYTES: usize = 10;
const UUID_DIGITS: usize = 22;
const TAIL_DIGITS: usize = 14;

/// A new id for a row or an event: time-ordered, so that inserts stay at the right edge of the index.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// The id of a request with an `Idempotency-Key`: the same scope, route and key give the same operation.
pub fn keyed_id(scope: &str, route: &str, key: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, ["key", scope, route, key].join("\0").as_bytes())
}

/// The id of a follow-up, derived from its parent and a key that the handler chooses, never from an ordinal.
pub fn follow_up_id(parent: Uuid, kind: &str, key: &str) -> Uuid {
    Uuid::new_v5(&parent, [kind, key].join("\0").as_bytes())
}

/// The id of a command that the clock publishes, derived from its kind, its subject and the time at which it was due.
pub fn due_id(kind: &str, subject: &str, due: chrono::DateTime<chrono::Utc>) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("due\0{kind}\0{subject}\0{}", due.timestamp_micros()).as_bytes())
}

/// Encodes and decodes operation ids.
#[derive(Clone)]
pub struct OperationIds {
    mac: Hmac<Sha256>,
}

/// A decoded operation id whose MAC is valid: a gateway with our secret issued it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationId {
    /// The event's id.
    pub id: Uuid,
    /// The first 32 bits of the payload's fingerprint.
    pub fingerprint_prefix: [u8; 4],
}

impl OperationIds {
    /// Takes the secret that all gateways share.
    pub fn new(secret: &[u8]) -> Self {
        Self { mac: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length") }
    }

    /// The text sent to the client, 39 characters.
    pub fn encode(&self, id: Uuid, fingerprint: &Fingerprint) -> String {
        let mut tail = [0; TAIL_BYTES];
        tail[..4].copy_from_slice(&fingerprint.prefix());
        let mac = self.tag(id, fingerprint.prefix());
        tail[4..].copy_from_slice(&mac);
        let tail = tail.iter().fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
        format!("op_{:0>UUID_DIGITS$}{:0>TAIL_DIGITS$}", base62::encode(id.as_u128()), base62::encode(tail))
    }

    /// Decodes what a client sent; `None` where its MAC is not ours.
    pub fn decode(&self, text: &str) -> Option<OperationId> {
        let digits = text.strip_prefix("op_").filter(|d| d.len() == UUID_DIGITS + TAIL_DIGITS && d.is_ascii())?;
        let (uuid, tail) = digits.split_at(UUID_DIGITS);
        let id = Uuid::from_u128(base62::decode(uuid).ok()?);
        let tail = base62::decode(tail).ok()?.to_be_bytes();
        let (overflow, tail) = tail.split_at(16 - TAIL_BYTES);
        if overflow.iter().any(|byte| *byte != 0) {
            return None;
        }
        let fingerprint_prefix = [tail[0], tail[1], tail[2], tail[3]];
        let mut mac = self.mac.clone();
        mac.update(id.as_bytes());
        mac.update(&fingerprint_prefix);
        mac.verify_truncated_left(&tail[4..]).ok()?;
        Some(OperationId { id, fingerprint_prefix })
    }

    fn tag(&self, id: Uuid, prefix: [u8; 4]) -> [u8; 6] {
        let mut mac = self.mac.clone();
        mac.update(id.as_bytes());
        mac.update(&prefix);
        let full = mac.finalize().into_bytes();
        [full[0], full[1], full[2], full[3], full[4], full[5]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_id_survives_the_round_trip_and_nothing_else_does() {
        let ids = OperationIds::new(b"secret");
        let fingerprint = Fingerprint::of("k", b"data");
        for id in [Uuid::nil(), Uuid::max(), new_id()] {
            let text = ids.encode(id, &fingerprint);
            assert_eq!(text.len(), 39);
            assert_eq!(ids.decode(&text), Some(OperationId { id, fingerprint_prefix: fingerprint.prefix() }));
            assert_eq!(OperationIds::new(b"other").decode(&text), None);
            for i in 3..text.len() {
                let mut forged = text.clone().into_bytes();
                forged[i] = if forged[i] == b'0' { b'1' } else { b'0' };
                assert_eq!(ids.decode(std::str::from_utf8(&forged).expect("ascii")), None, "digit {i}");
            }
        }
        for bad in ["", "op_", "op_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "xx_000000000000000000000000000000000000"] {
            assert_eq!(ids.decode(bad), None);
        }
    }

    #[test]
    fn keyed_ids_keep_scopes_routes_and_keys_apart() {
        let id = keyed_id("a@x", "POST /v1/payments", "k1");
        assert_eq!(id, keyed_id("a@x", "POST /v1/payments", "k1"));
        assert_ne!(id, keyed_id("b@x", "POST /v1/payments", "k1"));
        assert_ne!(id, keyed_id("a@x", "POST /v1/registrations", "k1"));
        assert_ne!(id, keyed_id("a@x", "POST /v1/payments", "k2"));
    }
}

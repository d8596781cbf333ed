//! Cursors of keyset pages: opaque, typed by their list and order, and independent of the row they name, so that a page
//! can follow a row that was deleted meanwhile.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Bytes that tell lists and orders apart.
const TAG_BYTES: usize = 2;

/// The place of a row in the order of its list; as bytes in a cursor.
pub trait CursorKey: Sized {
    /// Appends the key's bytes.
    fn write(&self, bytes: &mut Vec<u8>);

    /// Reads a key from all of these bytes; `None` where they are none.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// A row's id, in lists ordered by id. Ids are UUIDv7, so that is the order of creation.
impl CursorKey for Uuid {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Self::from_slice(bytes).ok()
    }
}

/// A time and an id, in lists whose ids are not in the order of time. Times to the microsecond, as Postgres keeps them.
pub type Newest = (DateTime<Utc>, Uuid);

impl CursorKey for Newest {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0.timestamp_micros().to_be_bytes());
        self.1.write(bytes);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (micros, id) = bytes.split_first_chunk::<8>()?;
        Some((DateTime::from_timestamp_micros(i64::from_be_bytes(*micros))?, Uuid::read(id)?))
    }
}

/// Encodes the place of a row in this list and order.
pub fn encode<K: CursorKey>(list: &str, key: &K) -> String {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(&tag(list));
    key.write(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes a cursor; `None` unless it was made for this list and order.
pub fn decode<K: CursorKey>(list: &str, cursor: &str) -> Option<K> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (tag_sent, key) = bytes.split_first_chunk::<TAG_BYTES>()?;
    (*tag_sent == tag(list)).then(|| K::read(key)).flatten()
}

fn tag(list: &str) -> [u8; TAG_BYTES] {
    let digest = Sha256::digest(list);
    [digest[0], digest[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_by_its_own_list_alone() {
        let time = DateTime::from_timestamp_micros(1_767_225_600_000_123).expect("in range");
        let cursor = encode("notifications", &(time, Uuid::max()));
        assert_eq!(decode("notifications", &cursor), Some((time, Uuid::max())));
        assert_eq!(decode::<Newest>("operations", &cursor), None);
        assert_eq!(decode::<Uuid>("notifications", &cursor), None);
        let by_id = encode("payments", &Uuid::nil());
        assert_eq!(decode("payments", &by_id), Some(Uuid::nil()));
        for bad in ["", "AA", "not base64!", "018f3c1e-7a00-7000-8000-000000000001", &format!("{by_id}AAAA")] {
            assert_eq!(decode::<Uuid>("payments", bad), None, "{bad}");
        }
    }
}

//! W3C Trace Context (`traceparent`, level 1): one trace id from the HTTP request through every event to the mail.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::text;

/// Length of the text: `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const TEXT_BYTES: usize = 55;

/// A position in a trace: `00-<trace id>-<span id>-<flags>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// The error for a header that is not a valid `traceparent`. It is ignored and a new trace begun, as the standard
/// demands.
#[derive(Debug, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct BadTraceParent;

impl TraceParent {
    /// Begins a trace.
    pub fn new() -> Self {
        let random = Uuid::new_v4().as_u128();
        Self { trace_id: random, span_id: Uuid::new_v4().as_u64_pair().1 | 1, flags: 1 }
    }

    /// A new span within the same trace.
    pub fn child(&self) -> Self {
        Self { span_id: Uuid::new_v4().as_u64_pair().1 | 1, ..*self }
    }

    /// The trace id, 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> String {
        Uuid::from_u128(self.trace_id).simple().to_string()
    }

    /// The header's value, ASCII. uuid writes the digits several times as fast as integer formatting would, and every
    /// event has one.
    pub fn encode(&self) -> [u8; TEXT_BYTES] {
        let mut text = *b"00-________________________________-________________-__";
        Uuid::from_u128(self.trace_id).simple().encode_lower(&mut text[3..35]);
        let mut tail = [0; 32];
        Uuid::from_u64_pair(self.span_id, u64::from(self.flags) << 56).simple().encode_lower(&mut tail);
        text[36..52].copy_from_slice(&tail[..16]);
        text[53..].copy_from_slice(&tail[16..18]);
        text
    }
}

impl Default for TraceParent {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.encode()).expect("hexadecimal digits are ASCII"))
    }
}

impl FromStr for TraceParent {
    type Err = BadTraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower_hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = text.split('-');
        let (Some("00"), Some(trace), Some(span), Some(flags), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadTraceParent);
        };
        if trace.len() != 32 || span.len() != 16 || flags.len() != 2 || ![trace, span, flags].into_iter().all(lower_hex)
        {
            return Err(BadTraceParent);
        }
        let trace_id = Uuid::try_parse(trace).map_err(|_| BadTraceParent)?.as_u128();
        let span_id = u64::from_str_radix(span, 16).map_err(|_| BadTraceParent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| BadTraceParent)?;
        if trace_id == 0 || span_id == 0 {
            return Err(BadTraceParent);
        }
        Ok(Self { trace_id, span_id, flags })
    }
}

impl Serialize for TraceParent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.encode()).expect("hexadecimal digits are ASCII"))
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_trace_id_through_children() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent: TraceParent = text.parse().expect("the standard's own example");
        assert_eq!(parent.to_string(), text);
        assert_eq!(parent.child().trace_id(), parent.trace_id());
        assert_ne!(parent.child(), parent);
    }

    #[test]
    fn refuses_what_the_standard_refuses() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-0f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad}");
        }
    }
}

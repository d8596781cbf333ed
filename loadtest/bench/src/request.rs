//! HTTP requests, rendered before the load begins, so that the driver only writes bytes.

use std::ops::Range;

use contracts::{Principal, Role, ids};
use uuid::Uuid;

/// Rendered requests, stored one after the other in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    operations: Vec<Uuid>,
    /// End of each request's operations in `operations`.
    operation_ends: Vec<usize>,
}

/// A POST request.
#[derive(Debug)]
pub(crate) struct Post<'a> {
    /// Path, such as `/v1/payments`.
    pub path: &'a str,
    /// `Idempotency-Key`.
    pub key: &'a str,
    /// Access token, where the client is signed in.
    pub token: Option<&'a str>,
    /// Scope of the key: `student:<uuid>`, or a visitor's e-mail address.
    pub scope: &'a str,
    /// More header lines, each with its line end.
    pub headers: &'a str,
    /// JSON body.
    pub body: &'a str,
}

impl Requests {
    /// Renders a request that creates one operation.
    pub(crate) fn push(&mut self, post: &Post<'_>) {
        let Post { path, key, scope, .. } = post;
        self.push_bulk(post, [ids::keyed_id(scope, &format!("POST {path}"), key)]);
    }

    /// Renders a request that creates several operations.
    pub(crate) fn push_bulk(&mut self, post: &Post<'_>, operations: impl IntoIterator<Item = Uuid>) {
        let Post { path, key, token, headers, body, .. } = post;
        let mut text = format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n");
        if let Some(token) = token {
            text += &format!("authorization: Bearer {token}\r\n");
        }
        text += &format!("idempotency-key: {key}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len());
        self.operations.extend(operations);
        self.operation_ends.push(self.operations.len());
    }

    /// Number of requests.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of one request.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        &self.bytes[start(&self.ends, index)..self.ends[index]]
    }

    /// Ids of the operations of these requests, derived from scope, route and key as in the gateway.
    pub(crate) fn operations(&self, requests: Range<usize>) -> &[Uuid] {
        &self.operations[start(&self.operation_ends, requests.start)..start(&self.operation_ends, requests.end)]
    }
}

fn start(ends: &[usize], index: usize) -> usize {
    index.checked_sub(1).map_or(0, |before| ends[before])
}

/// Scope of a signed-in student's keys.
pub(crate) fn student_scope(student_id: Uuid) -> String {
    Principal::User { id: student_id, role: Role::Student }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_found_again() {
        let mut requests = Requests::default();
        for key in ["a", "b"] {
            requests.push(&Post { path: "/v1/x", key, token: Some("t"), scope: "s", headers: "", body: "{}" });
        }
        assert_eq!(requests.len(), 2);
        let text = std::str::from_utf8(requests.bytes(1)).expect("text");
        assert!(text.starts_with("POST /v1/x HTTP/1.1\r\n") && text.ends_with("content-length: 2\r\n\r\n{}"), "{text}");
        assert!(text.contains("idempotency-key: b\r\n"));
        let operations = requests.operations(0..2);
        assert_ne!(operations[0], operations[1]);
        assert_eq!((requests.operations(1..2), requests.operations(2..2)), (&operations[1..], &[][..]));
    }
}

//! One kind of message without its type.

use schemars::Schema;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Command, NewEvent, Queue,
    envelope::{Draft, Origin},
};

/// One kind of message.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The CloudEvents `type`.
    pub name: &'static str,
    /// Its queue.
    pub queue: Queue,
    /// A sentence about its purpose.
    pub summary: &'static str,
    /// JSON Schema (draft 2020-12) of its data.
    pub schema: fn() -> Schema,
    /// A valid example of its data.
    pub example: fn() -> Value,
    /// An event of this id that holds the example.
    pub example_event: fn(Uuid, &Origin<'_>) -> NewEvent,
    /// Decodes and validates data of this kind.
    pub check: fn(&[u8]) -> Result<(), String>,
}

impl Kind {
    pub(crate) const fn of<C: Command>(summary: &'static str) -> Self {
        Self {
            name: C::KIND,
            queue: C::QUEUE,
            summary,
            schema: || schemars::schema_for!(C),
            example: || serde_json::to_value(C::example()).expect("examples serialise"),
            example_event: |id, origin| Draft::new(&C::example()).event(id, origin),
            check: |data| {
                let command: C = serde_json::from_slice(data).map_err(|error| error.to_string())?;
                command.validate().map_err(|errors| {
                    let fields: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
                    fields.join("; ")
                })
            },
        }
    }
}

//! `invoice.render.v1`: an issued invoice becomes a PDF in the file store, and the mail with it goes out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError,
    command::{Command, Queue},
};

/// Renders an issued invoice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RenderInvoice {
    /// The invoice.
    pub invoice_id: Uuid,
}

impl Command for RenderInvoice {
    const KIND: &'static str = "invoice.render.v1";
    const QUEUE: Queue = Queue::Documents;

    fn partition_key(&self) -> String {
        self.invoice_id.to_string()
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    fn example() -> Self {
        Self { invoice_id: example_id(5) }
    }
}

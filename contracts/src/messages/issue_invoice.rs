//! `invoice.issue.v1`: an approved payment gets its invoice, with the next number of its series, without gaps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError,
    command::{Command, Queue},
};

/// Issues the invoice of an approved payment, once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IssueInvoice {
    /// The payment.
    pub payment_id: Uuid,
}

impl Command for IssueInvoice {
    const KIND: &'static str = "invoice.issue.v1";
    const QUEUE: Queue = Queue::Invoicing;

    fn partition_key(&self) -> String {
        self.payment_id.to_string()
    }

    fn weight(&self) -> usize {
        2
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    fn example() -> Self {
        Self { payment_id: example_id(4) }
    }
}

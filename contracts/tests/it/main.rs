//! The wire format as others see it: the checked-in documents, the released examples, the public CloudEvents SDK, and
//! malformed bytes.

mod documents;
mod envelope;
mod oracle;
mod released;

use contracts::{CATALOG, NewEvent, Principal, TraceParent, envelope::Origin, ids};

/// An event of every kind, with its own example.
fn one_of_each() -> Vec<NewEvent> {
    let origin = Origin {
        source: "/gateway",
        principal: Principal::User { id: ids::new_id(), role: contracts::Role::Student },
        accepted_at: chrono::Utc::now(),
        trace: TraceParent::new(),
        parent: Some(ids::new_id()),
    };
    CATALOG.iter().map(|kind| (kind.example_event)(ids::new_id(), &origin)).collect()
}

//! The wire format as others see it: the checked-in documents, the released examples, the public CloudEvents SDK, and
//! bytes that mean harm.

mod documents;
mod envelope;
mod oracle;
mod released;

use contracts::{
    Command, NewEvent, Principal, TraceParent,
    envelope::Origin,
    ids,
    messages::{
        CancelRegistration, ConfirmRegistration, CreateNotification, DecidePayment, ExpireHold, IssueInvoice,
        RenderInvoice, ReviewRegistration, SendEmail, SubmitPayment, SubmitRegistration,
    },
};

/// An event of every kind, with its own example.
fn one_of_each() -> Vec<NewEvent> {
    let events = vec![
        example_event::<SubmitRegistration>(),
        example_event::<ConfirmRegistration>(),
        example_event::<ReviewRegistration>(),
        example_event::<CancelRegistration>(),
        example_event::<SubmitPayment>(),
        example_event::<DecidePayment>(),
        example_event::<ExpireHold>(),
        example_event::<IssueInvoice>(),
        example_event::<RenderInvoice>(),
        example_event::<CreateNotification>(),
        example_event::<SendEmail>(),
    ];
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    let catalog: Vec<_> = contracts::CATALOG.iter().map(|kind| kind.name).collect();
    assert_eq!(kinds, catalog, "every kind of the catalog has a line in one_of_each()");
    events
}

fn example_event<C: Command>() -> NewEvent {
    let origin = Origin {
        source: "/gateway",
        principal: Principal::User { id: ids::new_id(), role: contracts::Role::Student },
        accepted_at: chrono::Utc::now(),
        trace: TraceParent::new(),
        parent: Some(ids::new_id()),
    };
    NewEvent::new(ids::new_id(), &C::example(), &origin)
}

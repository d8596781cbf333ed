//! The pool `registrations`: seats and waitlists of course batches. Seats are counted in `batches` alone, under that row's
//! lock. Every handler has the same shape: it loads a `…State` (locking course batch, then registration, then payment,
//! each in id order), decides each delivery in memory and in order, and saves what changed with one statement a table.
//!
//! The *memo* of an outcome is the part that only the follow-ups need: it is stored in `operations` beside the result, is
//! never shown to a client, and makes the follow-ups the same whenever they are computed again.

pub mod active_registrations;
pub mod admission;
pub mod cancel_registration;
pub mod confirm_registration;
pub mod enrollment;
pub mod magic_links;
pub mod notice;
pub mod registrants;
pub mod registration;
pub mod registration_state;
pub mod review_registration;
pub mod seats;
pub mod status;
pub mod submit_registration;

pub use cancel_registration::CancelRegistrationHandler;
pub use confirm_registration::ConfirmRegistrationHandler;
pub use notice::Notice;
pub use registration::{Registration, Registrations};
pub use review_registration::ReviewRegistrationHandler;
pub use seats::{Place, Seats};
pub use status::RegistrationStatus;
pub use submit_registration::SubmitRegistrationHandler;

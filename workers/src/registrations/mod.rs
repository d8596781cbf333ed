//! The registrations pool: who asks for a seat, who gets one, who waits. Seats are counted in `batches` alone, under
//! that row's lock; every handler locks batch, then registration, then payment, each in id order, decides in memory in
//! the batch's order, and writes what changed with one statement a table.

pub mod admission;
pub mod audit;
pub mod cancel_registration;
pub mod confirm_registration;
pub mod enrollment;
pub mod magic_links;
pub mod notice;
pub mod registrants;
pub mod registration;
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

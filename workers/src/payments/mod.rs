//! The payments pool: what students say they have paid, what the accountants make of it, and the end of holds, which
//! stays behind the payments that beat it. Locks are taken in the order batch, registration, payment, each by id.

pub mod decide_payment;
pub mod decision;
pub mod expire_hold;
pub mod payment;
pub mod submit_payment;

pub use decide_payment::DecidePaymentHandler;
pub use expire_hold::ExpireHoldHandler;
pub use payment::{Payment, PaymentStatus, Payments};
pub use submit_payment::SubmitPaymentHandler;

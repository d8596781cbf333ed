//! The pool `payments`: submitted payments, the accountants' decisions, and the end of holds, which is settled after the
//! payments that were accepted before it. Locks are taken in the order course batch, registration, payment, each by id.

pub mod decide_payment;
pub mod decision_state;
pub mod expire_hold;
pub mod payment;
pub mod payment_state;
pub mod submit_payment;

pub use decide_payment::DecidePaymentHandler;
pub use expire_hold::ExpireHoldHandler;
pub use payment::{Payment, PaymentStatus, Payments};
pub use submit_payment::SubmitPaymentHandler;

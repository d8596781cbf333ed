//! The scenarios, one file each: the rows that it inserts, the requests that it posts, and the rules that must hold.

mod approvals;
mod backlog;
mod crowd;
mod dispatch;
mod fairness;
mod growth;
mod mail;
mod payments;
mod pdf;
mod plans;
mod registrations;
mod scale_out;
mod stampede;
mod waiters;

pub(crate) use approvals::ApprovalsScenario;
pub(crate) use backlog::measure as measure_backlog;
pub(crate) use dispatch::{run_helper_process, run_scenario};
pub(crate) use mail::MailScenario;
pub(crate) use payments::PaymentsScenario;
pub(crate) use pdf::PdfScenario;
pub(crate) use registrations::{RegistrantKind, RegistrationsScenario};

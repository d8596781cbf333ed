//! HTTP itself, without any resource: the accept loop and its time limits, middleware, errors as problems, ETags, the
//! OpenAPI document, metrics. Imports nothing of the gateway but its settings.

pub mod errors;
pub mod metrics;
pub mod middleware;
pub mod openapi;
pub mod prefer;
pub mod representation;
pub mod request_context;
pub mod server;
pub mod timeouts;

pub use errors::{ApiError, ApiResult};
pub use representation::Representation;

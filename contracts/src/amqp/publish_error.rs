//! Why a publish failed, and whether anything was sent.

/// The reason why an event is not known to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection; nothing was sent.
    #[error("the broker is unreachable")]
    Unavailable,
    /// The broker accepts nothing (`connection.blocked`), or its confirms are late; nothing was sent.
    #[error("the broker is blocked")]
    Blocked,
    /// Too many events wait for their confirm; nothing was sent.
    #[error("too many events wait for the broker")]
    Overloaded,
    /// It was sent and not confirmed in time: it may be durable or not. Send it again under the same id.
    #[error("the broker did not confirm in time")]
    Unknown,
}

//! The reasons for which deliveries cannot be settled, classified by type or SQLSTATE, never by text.

use std::error::Error as StdError;

/// A failure, named after what has to happen next.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Another worker settles the same event or has changed the row: roll back and start again at once.
    #[error("another worker settles the same")]
    Race,
    /// Postgres is away or out of resources (classes 08, 53, 57P; I/O; pool): retry all deliveries in place.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Serialization failure, deadlock, lock or statement timeout: try three times, then bisect.
    #[error("a transient conflict in the database: {0}")]
    Conflict(#[source] sqlx::Error),
    /// The data itself: classes 22, 23, a panic, anything unexpected. Bisect down to the single culprit, which goes to
    /// the retry ladder.
    #[error("the data cannot be settled: {0}")]
    Data(#[source] Box<dyn StdError + Send + Sync>),
    /// This event cannot be settled now: through the retry ladder.
    #[error("to be retried: {0}")]
    Retry(#[source] Box<dyn StdError + Send + Sync>),
    /// This event can never be settled: to the dead letters.
    #[error("beyond repair: {0}")]
    Poison(#[source] Box<dyn StdError + Send + Sync>),
}

impl Failure {
    /// Returns a stable word for metrics, `dead_letters.error_class` and the event's `errorclass`.
    pub fn class(&self) -> &'static str {
        match self {
            Failure::Race => "race",
            Failure::Unavailable(_) => "database_unavailable",
            Failure::Conflict(_) => "conflict",
            Failure::Data(_) => "data",
            Failure::Retry(_) => "retry",
            Failure::Poison(_) => "poison",
        }
    }

    /// Returns a conversion that takes a violation of this unique constraint for a race: another transaction wrote the
    /// row since it was looked up.
    pub fn race_on(constraint: &str) -> impl Fn(sqlx::Error) -> Self {
        move |error| match &error {
            sqlx::Error::Database(database)
                if database.is_unique_violation() && database.constraint() == Some(constraint) =>
            {
                Failure::Race
            }
            _ => error.into(),
        }
    }

    /// Returns a failure that sends one event to the retry ladder, with a reason.
    pub fn retry(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Failure::Retry(reason.into())
    }

    /// Returns a failure that sends one event to the dead letters, with a reason.
    pub fn poison(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Failure::Poison(reason.into())
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                match code.as_ref() {
                    "40001" | "40P01" | "55P03" | "57014" => Failure::Conflict(error),
                    // Read-only transaction: a standby that we are still connected to after a failover.
                    "25006" => Failure::Unavailable(error),
                    code if code.starts_with("08") || code.starts_with("53") || code.starts_with("57P") => {
                        Failure::Unavailable(error)
                    }
                    _ => Failure::Data(Box::new(error)),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Failure::Unavailable(error),
            _ => Failure::Data(Box::new(error)),
        }
    }
}

/// Returns the whole chain of causes in one line, for a dead letter.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

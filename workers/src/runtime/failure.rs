//! Why a batch could not be settled, classified by type or SQLSTATE, never by text.

use std::error::Error as StdError;

/// What went wrong, by what has to happen next.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Somebody else holds the same event or row version: roll back and start again at once.
    #[error("another worker settles the same")]
    Race,
    /// Postgres is away or out of resources (classes 08, 53, 57P; I/O; pool): the whole batch again, in place.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Serialization failure, deadlock, lock or statement timeout: three times, then bisect.
    #[error("a transient conflict in the database: {0}")]
    Conflict(#[source] sqlx::Error),
    /// The data itself: classes 22, 23, a panic, anything unexpected. Bisect until the culprit is alone, then the ladder.
    #[error("the batch cannot be settled: {0}")]
    Data(#[source] Box<dyn StdError + Send + Sync>),
    /// This event, later, through the ladder.
    #[error("to be retried: {0}")]
    Retry(#[source] Box<dyn StdError + Send + Sync>),
    /// This event never: to the dead letters.
    #[error("beyond repair: {0}")]
    Poison(#[source] Box<dyn StdError + Send + Sync>),
}

impl Failure {
    /// A stable word for metrics, `dead_letters.error_class` and the event's `errorclass`.
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

    /// A row that another transaction wrote since it was looked up, where this constraint keeps it unique, is a race.
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

    /// Puts one event off, with a reason.
    pub fn retry(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Failure::Retry(reason.into())
    }

    /// Gives one event up, with a reason.
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

/// The whole chain of causes in one line, for a dead letter.
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

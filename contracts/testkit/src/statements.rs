//! A recorder of the SQL statements that the code under test executes. sqlx reports each of them to `tracing`, in the task
//! that executes it; the recorder listens on the test's own thread, so concurrent tests do not disturb the count.

use std::sync::{Arc, Mutex, Once};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::{DefaultGuard, Interest},
};

/// Records statements until it is dropped, on the thread that created it: use it in tests on a current-thread runtime,
/// which is what `#[tokio::test]` gives.
pub struct Statements {
    texts: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Statements {
    /// Starts recording.
    pub fn record() -> Self {
        keep_callsites_awake();
        let texts = Arc::default();
        let guard = tracing::subscriber::set_default(Recorder { texts: Some(Arc::clone(&texts)) });
        Self { texts, _guard: guard }
    }

    /// Returns and removes every statement so far, without transaction control.
    pub fn take(&self) -> Vec<String> {
        let texts = std::mem::take(&mut *self.texts.lock().expect("no code panics while it holds the lock"));
        texts.into_iter().filter(|text| !is_transaction_control(text)).collect()
    }
}

/// Sets a default subscriber for the whole process, which records nothing. tracing asks a callsite's subscribers once
/// whether it will ever matter; without a default, a callsite that a thread without a recorder reaches first would be
/// silenced for every thread.
pub(crate) fn keep_callsites_awake() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let silent = Recorder { texts: None };
        tracing::subscriber::set_global_default(silent).expect("tests set no other default subscriber");
    });
}

fn is_transaction_control(statement: &str) -> bool {
    let word = statement.split_whitespace().next().unwrap_or_default();
    ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"].iter().any(|control| word.eq_ignore_ascii_case(control))
}

/// Records into `texts`; without them it only stays interested.
struct Recorder {
    texts: Option<Arc<Mutex<Vec<String>>>>,
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.texts.is_some() && metadata.target() == "sqlx::query" && *metadata.level() <= Level::DEBUG
    }

    /// Interest is asked for at every event: a subscriber of another thread may want statements that this one ignores.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(texts) = &self.texts else { return };
        let mut statement = Statement::default();
        event.record(&mut statement);
        let text = if statement.full.is_empty() { statement.summary } else { statement.full };
        if !text.is_empty() {
            texts.lock().expect("no code panics while it holds the lock").push(text);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Statement {
    summary: String,
    full: String,
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => self.summary = value.to_owned(),
            "db.statement" => self.full = value.trim().to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

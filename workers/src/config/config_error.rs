//! The errors of a configuration, all of them at once.

use std::fmt;

/// Settings that cannot be used; a line each, with the key and the fix.
#[derive(Debug, Default)]
pub struct WorkerConfigError {
    lines: Vec<String>,
}

impl WorkerConfigError {
    /// Adds an error unless the condition holds.
    pub(super) fn require(&mut self, holds: bool, error: &str) {
        if !holds {
            self.lines.push(error.to_owned());
        }
    }

    /// Returns itself as the error, if there is any.
    pub(super) fn into_result(self) -> Result<(), Self> {
        if self.lines.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for WorkerConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these settings cannot be used:")?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  - {line}"))
    }
}

impl std::error::Error for WorkerConfigError {}

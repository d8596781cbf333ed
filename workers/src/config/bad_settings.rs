//! What is wrong with settings, all of it at once.

use std::fmt;

/// Settings that cannot be used, each with its key and the fix.
#[derive(Debug)]
pub struct BadSettings(pub(super) Vec<String>);

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these settings cannot be used:")?;
        self.0.iter().try_for_each(|complaint| write!(f, "\n  - {complaint}"))
    }
}

impl std::error::Error for BadSettings {}

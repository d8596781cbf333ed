//! What is wrong with the settings, all of it at once.

/// One line each: the key, what is wrong, what to do.
pub(super) struct Complaints(pub(super) Vec<String>);

impl Complaints {
    /// Adds a complaint unless it fits.
    pub(super) fn unless(&mut self, fits: bool, complaint: &str) {
        if !fits {
            self.0.push(complaint.to_owned());
        }
    }
}

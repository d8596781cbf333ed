//! The rows that a caller may see: decided here, and given to the query. Each scope has a statement of its own, with its own plan.

use contracts::Role;
use uuid::Uuid;

use super::Caller;

/// The rows of a list that a caller may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    All,
    /// Those of one student.
    OwnStudent(Uuid),
    /// Those of the course batches that this user teaches (`batches.instructor_id`), without money, answers or contacts.
    TaughtBy(Uuid),
}

/// The kinds of rows whose visibility depends on the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// `student_registrations`.
    Registrations,
    /// `enrollments`.
    Enrollments,
    /// `payments`.
    Payments,
    /// `invoices`.
    Invoices,
}

impl Caller {
    /// Returns the rows of this kind that the caller may see.
    pub fn scope(&self, records: Records) -> Scope {
        match (self.role, records) {
            (Role::Accountant | Role::Admin, _) => Scope::All,
            (Role::Teacher, Records::Registrations | Records::Enrollments) => Scope::TaughtBy(self.user_id),
            (Role::Student | Role::Teacher, _) => Scope::OwnStudent(self.user_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staff_see_all_teachers_their_course_batches_and_students_their_own() {
        let id = Uuid::max();
        let scope = |role, records| Caller { user_id: id, role, sid: Uuid::nil(), expires_at: 0 }.scope(records);
        for records in [Records::Registrations, Records::Enrollments, Records::Payments, Records::Invoices] {
            assert_eq!(scope(Role::Admin, records), Scope::All);
            assert_eq!(scope(Role::Accountant, records), Scope::All);
            assert_eq!(scope(Role::Student, records), Scope::OwnStudent(id));
        }
        assert_eq!(scope(Role::Teacher, Records::Registrations), Scope::TaughtBy(id));
        assert_eq!(scope(Role::Teacher, Records::Enrollments), Scope::TaughtBy(id));
        assert_eq!(scope(Role::Teacher, Records::Payments), Scope::OwnStudent(id));
    }
}

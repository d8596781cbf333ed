//! The registrant of a registration: a visitor is named in the body, a signed-in student must not be.

use std::collections::BTreeMap;

use contracts::{FieldError, Problem, ProblemType, Role, messages::Registrant};

use super::views::NewRegistration;
use crate::{
    auth::Caller,
    http::{ApiError, ApiResult},
};

/// Returns the registrant, and the answers to the batch's questions.
///
/// # Errors
/// 403 for staff; 422 where a visitor leaves a member out, or a student sends one that their account has.
pub fn registrant(
    caller: Option<&Caller>,
    body: NewRegistration,
) -> ApiResult<(Registrant, Option<BTreeMap<String, String>>)> {
    let NewRegistration { batch_id: _, email, full_name, phone, answers } = body;
    let Some(caller) = caller else {
        let missing = |field: &str| FieldError::new(field, "required", "is missing: say who you are, or sign in");
        return match (email, full_name) {
            (Some(email), Some(full_name)) => Ok((Registrant::Visitor { email, full_name, phone }, answers)),
            (email, full_name) => Err(ApiError::validation(
                [("email", email.is_none()), ("full_name", full_name.is_none())]
                    .into_iter()
                    .filter(|(_, is_missing)| *is_missing)
                    .map(|(field, _)| missing(field))
                    .collect(),
            )),
        };
    };
    if caller.role != Role::Student {
        let detail = "Only students and visitors register; staff register nobody but through the import.";
        return Err(Problem::new(ProblemType::Forbidden).detail(detail).into());
    }
    let sent: Vec<_> = [("email", email.is_some()), ("full_name", full_name.is_some()), ("phone", phone.is_some())]
        .into_iter()
        .filter(|(_, is_sent)| *is_sent)
        .map(|(field, _)| {
            FieldError::new(field, "not_allowed", "must not be sent when signed in: your account says it")
        })
        .collect();
    if sent.is_empty() {
        Ok((Registrant::Student { student_id: caller.user_id }, answers))
    } else {
        Err(ApiError::validation(sent))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn body(email: Option<&str>, full_name: Option<&str>) -> NewRegistration {
        let (email, full_name) = (email.map(str::to_owned), full_name.map(str::to_owned));
        NewRegistration { batch_id: Uuid::nil(), email, full_name, phone: None, answers: None }
    }

    fn caller(role: Role) -> Caller {
        Caller { user_id: Uuid::max(), role, sid: Uuid::nil(), expires_at: 0 }
    }

    #[test]
    fn visitors_are_named_in_the_body_and_students_are_not() {
        assert!(registrant(None, body(Some("a@b.co"), Some("A"))).is_ok());
        let missing = registrant(None, body(None, None)).expect_err("refused");
        assert_eq!(
            missing.problem().errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(),
            ["email", "full_name"]
        );
        let student = caller(Role::Student);
        assert!(registrant(Some(&student), body(None, None)).is_ok());
        let sent = registrant(Some(&student), body(Some("a@b.co"), None)).expect_err("refused");
        assert_eq!(sent.problem().errors[0].code, "not_allowed");
        let staff = registrant(Some(&caller(Role::Admin)), body(None, None)).expect_err("refused");
        assert_eq!(staff.problem().status, 403);
    }
}

//! `notification.create.v1`: a notification in the application. Self-deduplicating: the unique key of its table takes
//! the place of a row in `operations`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError, RawJson, Role,
    command::{Command, Queue},
    validation::Checks,
};

/// Notifies a user, or every active user of a role, once per dedupe key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreateNotification {
    /// The recipient.
    pub to: NotificationTarget,
    /// A stable word for the client's icon and link: `payment_approved`, …
    #[serde(rename = "type")]
    pub notification_type: String,
    /// One line; at most 200 characters.
    pub title: String,
    /// At most 2,000 characters.
    pub body: String,
    /// Data that the client needs to link to the subject.
    #[serde(default)]
    pub data: RawJson,
    /// Deduplication key: a user gets one notification per key, however often this is delivered.
    pub dedupe_key: String,
}

/// The recipient of a notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotificationTarget {
    /// One user.
    User(Uuid),
    /// Every active user of a role; for example accountants, of a suspicious reference.
    Role(Role),
}

impl Command for CreateNotification {
    const KIND: &'static str = "notification.create.v1";
    const QUEUE: Queue = Queue::Notifications;

    fn partition_key(&self) -> String {
        match self.to {
            NotificationTarget::User(id) => id.to_string(),
            NotificationTarget::Role(role) => role.to_string(),
        }
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        Checks::new()
            .line("type", &self.notification_type, 50)
            .line("title", &self.title, 200)
            .optional_text("body", Some(&self.body), 2_000)
            .line("dedupe_key", &self.dedupe_key, 200)
            .ensure(
                self.to != NotificationTarget::Role(Role::Student),
                "to",
                "too_many",
                "must be one user or a role of staff: students are told one by one",
            )
            .finish()
    }

    fn example() -> Self {
        Self {
            to: NotificationTarget::User(example_id(3)),
            notification_type: "payment_received".into(),
            title: "We have your payment".into(),
            body: "An accountant will look at it.".into(),
            data: serde_json::json!({ "payment_id": example_id(4) }).into(),
            dedupe_key: format!("payment_received:{}", example_id(4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staff_is_notified_by_role_and_students_one_by_one() {
        let to = |role| CreateNotification { to: NotificationTarget::Role(role), ..CreateNotification::example() };
        assert_eq!(to(Role::Accountant).validate(), Ok(()));
        let errors = to(Role::Student).validate().expect_err("all students at once");
        assert_eq!((errors[0].field.as_str(), errors[0].code.as_str()), ("to", "too_many"));
    }
}

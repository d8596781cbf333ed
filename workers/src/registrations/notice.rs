//! The content of mails and notifications about a registration. It is read in the settling transaction and stored in the
//! outcome's memo, so that the same messages can be computed from it again.

use chrono::{DateTime, Utc};
use contracts::{
    RawJson,
    messages::{CreateNotification, EmailTemplate, SendEmail, create_notification::NotificationTarget},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::RegistrationStatus;
use crate::runtime::FollowUp;

/// The recipient of a message, and the registration that it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// `users.id` of the student.
    pub user_id: Uuid,
    /// The student's address.
    pub email: String,
    /// The student's name.
    pub name: String,
    /// BCP 47.
    pub locale: String,
    /// `student_registrations.id`.
    pub registration_id: Uuid,
    /// The number that people quote.
    pub request_no: String,
    /// The registration's status now.
    pub status: RegistrationStatus,
    /// The course's title.
    pub course: String,
    /// The name of the course batch; stored as `batch`.
    #[serde(rename = "batch")]
    pub course_batch: String,
    /// The price in all.
    pub amount_due: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// The sum that confirms the seat, where that is less than everything.
    pub deposit: Option<Decimal>,
    /// The end of the hold, while a seat is held.
    pub deadline: Option<DateTime<Utc>>,
    /// Registrations that waited when the place on the waitlist was taken, this one included.
    pub position: Option<i32>,
    /// `user_tokens.id` of a link that signs the student in.
    pub token_id: Option<Uuid>,
}

impl Notice {
    /// Adds a link that signs the student in.
    #[must_use]
    pub fn token(mut self, token_id: Option<Uuid>) -> Self {
        self.token_id = token_id;
        self
    }

    /// Returns a mail under a dedupe key. The members of `extra`, an object with other keys than `MailContext`, are added
    /// to the template's context.
    pub fn mail(&self, template: EmailTemplate, dedupe_key: String, extra: &impl Serialize) -> FollowUp {
        let context = MailContext {
            name: &self.name,
            course: &self.course,
            course_batch: &self.course_batch,
            request_no: &self.request_no,
            registration_id: self.registration_id,
            amount_due: self.amount_due,
            currency: &self.currency,
            deposit: self.deposit,
            deadline: self.deadline,
            position: self.position,
            link_needed: self.token_id.is_some(),
            extra,
        };
        let mail = SendEmail {
            to_email: self.email.clone(),
            to_name: Some(self.name.clone()),
            user_id: Some(self.user_id),
            template,
            locale: self.locale.clone(),
            context: RawJson::of(&context),
            token_id: self.token_id,
            attachment_file_id: None,
            dedupe_key: dedupe_key.clone(),
        };
        FollowUp::new(dedupe_key, mail)
    }

    /// Returns a notification in the application, under a dedupe key that begins with its type.
    pub fn notification(&self, notification_type: &str, title: &str, body: String, subject: &str) -> FollowUp {
        let dedupe_key = format!("{notification_type}:{subject}");
        let notification = CreateNotification {
            to: NotificationTarget::User(self.user_id),
            notification_type: notification_type.to_owned(),
            title: title.to_owned(),
            body,
            data: RawJson::of(&Link { registration_id: self.registration_id, request_no: &self.request_no }),
            dedupe_key: dedupe_key.clone(),
        };
        FollowUp::new(dedupe_key, notification)
    }

    /// Returns the messages to a student who was promoted from the waitlist.
    pub fn promoted(&self) -> Vec<FollowUp> {
        let id = self.registration_id;
        let place = format!("{}, {}", self.course, self.course_batch);
        if self.status == RegistrationStatus::Confirmed {
            return self.enrolled();
        }
        let body = match self.deadline {
            Some(end) => format!("A seat in {place} is held for you until {}.", end.format("%Y-%m-%d %H:%M UTC")),
            None => format!("A seat in {place} is held for you while your payment is looked at."),
        };
        vec![
            self.mail(EmailTemplate::SeatOffered, format!("seat_offered:{id}"), &NoExtra {}),
            self.notification("seat_offered", "A seat became free", body, &id.to_string()),
        ]
    }

    /// Returns the messages to a student whose seat is confirmed.
    pub fn enrolled(&self) -> Vec<FollowUp> {
        let id = self.registration_id;
        let body = format!("Your seat in {}, {} is confirmed.", self.course, self.course_batch);
        vec![
            self.mail(EmailTemplate::EnrollmentConfirmed, format!("enrollment_confirmed:{id}"), &NoExtra {}),
            self.notification("enrollment_confirmed", "You are enrolled", body, &id.to_string()),
        ]
    }
}

/// The template's context.
#[derive(Serialize)]
struct MailContext<'a, E> {
    name: &'a str,
    course: &'a str,
    #[serde(rename = "batch")]
    course_batch: &'a str,
    request_no: &'a str,
    registration_id: Uuid,
    amount_due: Decimal,
    currency: &'a str,
    deposit: Option<Decimal>,
    deadline: Option<DateTime<Utc>>,
    position: Option<i32>,
    link_needed: bool,
    #[serde(flatten)]
    extra: &'a E,
}

/// The registration that a client opens from a notification.
#[derive(Serialize)]
struct Link<'a> {
    registration_id: Uuid,
    request_no: &'a str,
}

/// The `extra` of a mail that needs none.
#[derive(Serialize)]
pub struct NoExtra {}

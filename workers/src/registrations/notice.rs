//! What a mail or a notification about a registration has to say. It is read in the settling transaction and stored in
//! the outcome's memo, so that the same messages can be computed from it again.

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

/// Whom to tell, and about which registration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The student.
    pub user_id: Uuid,
    /// The student's address.
    pub email: String,
    /// The student's name.
    pub name: String,
    /// BCP 47.
    pub locale: String,
    /// The registration.
    pub registration_id: Uuid,
    /// The number that people quote.
    pub request_no: String,
    /// Where it stands now.
    pub status: RegistrationStatus,
    /// The course's title.
    pub course: String,
    /// The batch's name.
    pub batch: String,
    /// In all.
    pub amount_due: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// What confirms the seat, where that is less than everything.
    pub deposit: Option<Decimal>,
    /// The end of the hold, while a seat is held.
    pub deadline: Option<DateTime<Utc>>,
    /// How many waited when the place on the waitlist was taken, this one included.
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

    /// A mail under a dedupe key; the members of `extra`, an object with other keys than ours, add to what the template
    /// fills in.
    pub fn mail(&self, template: EmailTemplate, dedupe_key: String, extra: &impl Serialize) -> FollowUp {
        let context = MailContext {
            name: &self.name,
            course: &self.course,
            batch: &self.batch,
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

    /// A line in the student's inbox in the application, under a dedupe key that begins with its type.
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

    /// What is told to somebody who came off the waitlist.
    pub fn promoted(&self) -> Vec<FollowUp> {
        let id = self.registration_id;
        let place = format!("{}, {}", self.course, self.batch);
        if self.status == RegistrationStatus::Confirmed {
            return self.enrolled();
        }
        let body = match self.deadline {
            Some(end) => format!("A seat in {place} is held for you until {}.", end.format("%Y-%m-%d %H:%M UTC")),
            None => format!("A seat in {place} is held for you while your payment is looked at."),
        };
        vec![
            self.mail(EmailTemplate::SeatOffered, format!("seat_offered:{id}"), &Nothing {}),
            self.notification("seat_offered", "A seat became free", body, &id.to_string()),
        ]
    }

    /// What is told to somebody whose seat has become theirs.
    pub fn enrolled(&self) -> Vec<FollowUp> {
        let id = self.registration_id;
        let body = format!("Your seat in {}, {} is confirmed.", self.course, self.batch);
        vec![
            self.mail(EmailTemplate::EnrollmentConfirmed, format!("enrollment_confirmed:{id}"), &Nothing {}),
            self.notification("enrollment_confirmed", "You are enrolled", body, &id.to_string()),
        ]
    }
}

/// What the templates know of a registration.
#[derive(Serialize)]
struct MailContext<'a, E> {
    name: &'a str,
    course: &'a str,
    batch: &'a str,
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

/// What a client links a notification to.
#[derive(Serialize)]
struct Link<'a> {
    registration_id: Uuid,
    request_no: &'a str,
}

/// Adds nothing to a mail.
#[derive(Serialize)]
pub struct Nothing {}

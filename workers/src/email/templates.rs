//! The contents of mails: one HTML and one text file per template, under `templates/email/`; the text's first line is the
//! subject. HTML is escaped, text is not, and a subject is always one line, whatever the context holds. A key that the
//! context lacks renders as empty text.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use contracts::{messages::EmailTemplate, tokens::MailTokens};
use minijinja::{Environment, UndefinedBehavior, context};
use rust_decimal::Decimal;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::config::Institute;

/// The compiled mail templates.
#[derive(Debug)]
pub struct MailTemplates {
    environment: Environment<'static>,
    public_url: String,
}

/// The contents of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The subject, on one line.
    pub subject: String,
    /// The `text/plain` part.
    pub text: String,
    /// The `text/html` part.
    pub html: String,
}

struct Files {
    template: EmailTemplate,
    html: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($variant:ident $name:literal)*) => {
        &[$(Files {
            template: EmailTemplate::$variant,
            html: include_str!(concat!("../../templates/email/", $name, ".html")),
            text: include_str!(concat!("../../templates/email/", $name, ".txt")),
        },)*]
    };
}

const LAYOUT: &str = include_str!("../../templates/email/layout.html");
const FILES: &[Files] = files! {
    SeatHeld "seat_held"
    Waitlisted "waitlisted"
    RegistrationReceived "registration_received"
    RegistrationRejected "registration_rejected"
    SeatOffered "seat_offered"
    HoldExpiresSoon "hold_expires_soon"
    HoldExpired "hold_expired"
    RegistrationCancelled "registration_cancelled"
    PaymentReceived "payment_received"
    PaymentApproved "payment_approved"
    PaymentRejected "payment_rejected"
    EnrollmentConfirmed "enrollment_confirmed"
    MagicLink "magic_link"
    PasswordReset "password_reset"
    NewSignIn "new_sign_in"
    DuplicateReference "duplicate_reference"
};

impl MailTemplates {
    /// Compiles all templates.
    ///
    /// # Errors
    /// A template with a syntax error.
    pub fn new(institute: &Institute, public_url: &Url) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.add_template("layout.html", LAYOUT)?;
        for files in FILES {
            let name = files.template.name();
            let (subject, text) = files.text.split_once("\n\n").unwrap_or((files.text, ""));
            environment.add_template_owned(format!("{name}.html"), files.html)?;
            environment.add_template_owned(format!("{name}.txt"), text)?;
            environment.add_template_owned(format!("{name}.subject"), subject.trim_start_matches("Subject: "))?;
        }
        let zone = institute.time_zone.0;
        environment
            .add_filter("day_time", move |time: Option<String>| time.map_or_else(String::new, |t| day_time(&t, zone)));
        environment.add_global("institute", institute.name.clone());
        environment.add_global("bank_details", minijinja::Value::from(institute.bank_details.clone()));
        let public_url = public_url.as_str().trim_end_matches('/').to_owned();
        environment.add_global("public_url", public_url.clone());
        Ok(Self { environment, public_url })
    }

    /// Renders the subject alone.
    ///
    /// # Errors
    /// The context does not fit the template, such as a list where a text is needed.
    pub fn subject(&self, template: EmailTemplate, mail: &Value) -> Result<String, minijinja::Error> {
        let values = values(mail);
        let subject =
            self.environment.get_template(&format!("{}.subject", template.name()))?.render(context! { ..values })?;
        Ok(one_line(&subject))
    }

    /// Renders the whole mail. A token's secret is computed here and stored nowhere.
    ///
    /// # Errors
    /// As [`MailTemplates::subject`].
    pub fn render(
        &self,
        template: EmailTemplate,
        mail: &Value,
        token: Option<(Uuid, &MailTokens)>,
    ) -> Result<Content, minijinja::Error> {
        let page = if template == EmailTemplate::PasswordReset { "reset" } else { "magic" };
        let link = token.map(|(id, tokens)| format!("{}/{page}#token={}", self.public_url, tokens.encode(id)));
        let values = context! { link, ..values(mail) };
        let render = |suffix: &str| {
            self.environment.get_template(&format!("{}.{suffix}", template.name()))?.render(values.clone())
        };
        Ok(Content { subject: one_line(&render("subject")?), text: render("txt")?, html: render("html")? })
    }
}

/// Drops nulls, a balance of zero or less, and keys that would hide the reserved ones.
fn values(mail: &Value) -> minijinja::Value {
    const RESERVED: [&str; 4] = ["institute", "bank_details", "public_url", "link"];
    let given = mail.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value)));
    let nothing = |key: &str, text: &str| key == "balance" && text.parse::<Decimal>().is_ok_and(|n| n <= Decimal::ZERO);
    let values: BTreeMap<String, minijinja::Value> = given
        .filter_map(|(key, text)| {
            text.filter(|text| !RESERVED.contains(&key.as_str()) && !nothing(&key, text)).map(|text| (key, text.into()))
        })
        .collect();
    // A map, not collected into a value: that would be a list of pairs.
    minijinja::Value::from(values)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn one_line(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    printable.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn day_time(time: &str, zone: Tz) -> String {
    match time.parse::<DateTime<Utc>>() {
        Ok(time) => format!("{} ({zone})", time.with_timezone(&zone).format("%-d %B %Y, %H:%M")),
        Err(_) => time.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::email) fn templates() -> MailTemplates {
        let institute: Institute =
            figment::Figment::from(<figment::providers::Toml as figment::providers::Format>::string(include_str!(
                "../../../deploy/workers.sample.toml"
            )))
            .extract_inner("institute")
            .expect("the sample");
        MailTemplates::new(&institute, &"https://example.org/".parse().expect("a URL")).expect("they compile")
    }

    const KEYS: [&str; 15] = [
        "name",
        "course",
        "batch",
        "request_no",
        "registration_id",
        "amount_due",
        "amount",
        "currency",
        "deadline",
        "position",
        "reason",
        "transaction_id",
        "invoice_number",
        "balance",
        "ip",
    ];

    #[test]
    fn every_template_survives_a_hostile_context() {
        let hostile = "<script>alert(1)</script>\r\nBcc: victim@example.org\r\n\r\n{{ public_url }}";
        let mail: Value =
            KEYS.iter().map(|key| ((*key).to_owned(), json!(hostile))).collect::<serde_json::Map<_, _>>().into();
        let tokens = MailTokens::new(b"secret");
        for template in EmailTemplate::ALL {
            let content = templates().render(template, &mail, Some((Uuid::nil(), &tokens))).expect("rendered");
            assert!(!content.html.contains("<script>"), "{template:?}: {}", content.html);
            assert!(!content.subject.contains(['\r', '\n']) && !content.subject.is_empty(), "{template:?}");
            assert!(content.subject.chars().count() <= 200);
            assert!(!content.text.contains("{%") && !content.html.contains("{%"), "{template:?}");
            assert_eq!(content.subject, templates().subject(template, &mail).expect("rendered"));
        }
    }

    #[test]
    fn every_template_says_what_its_mail_is_about() {
        let mail = json!({
            "name": "Asha Rao", "course": "Rust", "batch": "Evenings", "request_no": "R-42", "amount_due": "11800.00",
            "amount": "5900.00", "currency": "INR", "deadline": "2026-07-14T13:00:00Z", "position": 7,
            "reason": "not_received", "transaction_id": "UTR-1", "invoice_number": "IN-1", "balance": "5900.00",
            "ip": "192.0.2.1",
        });
        let about = |template| match template {
            EmailTemplate::SeatHeld | EmailTemplate::SeatOffered => vec!["INR 11800.00", "14 July 2026, 18:30"],
            EmailTemplate::HoldExpiresSoon => vec!["14 July 2026, 18:30"],
            EmailTemplate::Waitlisted => vec!["7"],
            EmailTemplate::PaymentReceived => vec!["INR 5900.00", "UTR-1"],
            EmailTemplate::PaymentApproved => vec!["INR 5900.00", "UTR-1", "IN-1"],
            EmailTemplate::PaymentRejected => vec!["UTR-1", "not_received"],
            EmailTemplate::NewSignIn => vec!["192.0.2.1"],
            EmailTemplate::DuplicateReference => vec!["UTR-1"],
            _ => vec![],
        };
        for template in EmailTemplate::ALL {
            let content = templates().render(template, &mail, None).expect("rendered");
            let without_course = [
                EmailTemplate::MagicLink,
                EmailTemplate::PasswordReset,
                EmailTemplate::NewSignIn,
                EmailTemplate::DuplicateReference,
            ];
            let course = (!without_course.contains(&template)).then_some("Rust");
            for said in about(template).into_iter().chain(course) {
                assert!(content.text.contains(said), "{template:?} lacks {said}: {}", content.text);
                assert!(content.html.contains(said), "{template:?} lacks {said}: {}", content.html);
            }
            assert!(content.html.contains("Asha Rao") || template == EmailTemplate::DuplicateReference, "{template:?}");
        }
        let approved = templates().subject(EmailTemplate::PaymentApproved, &mail).expect("rendered");
        assert_eq!(approved, "Your payment for Rust (Evenings) was approved: invoice IN-1");
    }

    #[test]
    fn every_template_does_without_any_key() {
        for template in EmailTemplate::ALL {
            for mail in [Value::Null, json!({}), json!({ "name": null, "link": "https://evil.example" })] {
                let content = templates().render(template, &mail, None).expect("rendered");
                assert!(!content.subject.is_empty() && content.text.contains("Sample Institute"), "{template:?}");
                assert!(content.html.contains("</html>") && !content.html.contains("evil"), "{template:?}");
                for text in [&content.text, &content.html, &content.subject] {
                    assert!(!text.contains("none") && !text.contains("undefined"), "{template:?}: {text}");
                }
            }
        }
    }

    #[test]
    fn links_carry_the_token_behind_the_hash() {
        let tokens = MailTokens::new(b"secret");
        let token = tokens.encode(Uuid::nil());
        let link =
            |template| templates().render(template, &Value::Null, Some((Uuid::nil(), &tokens))).expect("rendered");
        for template in [EmailTemplate::SeatHeld, EmailTemplate::Waitlisted, EmailTemplate::MagicLink] {
            let content = link(template);
            let expected = format!("https://example.org/magic#token={token}");
            assert!(content.text.contains(&expected), "{}", content.text);
            assert!(content.html.contains(&token), "{}", content.html);
        }
        assert!(link(EmailTemplate::PasswordReset).text.contains(&format!("https://example.org/reset#token={token}")));
    }

    #[test]
    fn times_are_the_institute_s() {
        assert_eq!(day_time("2026-07-14T13:00:00Z", chrono_tz::Asia::Kolkata), "14 July 2026, 18:30 (Asia/Kolkata)");
        assert_eq!(day_time("tomorrow", chrono_tz::UTC), "tomorrow");
    }
}

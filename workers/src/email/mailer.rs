//! Builds a MIME message and sends it to the mail server, within a time limit and a limited number of idle connections. No
//! field can inject a header: addresses are parsed, names and subjects are encoded and on one line.

use std::time::Duration;

use contracts::TraceParent;
use lettre::{
    Address, Message,
    message::{
        Attachment as AttachmentPart, Mailbox, MultiPart,
        header::{ContentType, HeaderName, HeaderValue},
    },
};
use secrecy::ExposeSecret;

use super::{
    smtp_connections::{SendError, SmtpConnections},
    templates::Content,
};
use crate::{config::Smtp, runtime::Failure};

/// A client of the mail server.
#[derive(Clone, Debug)]
pub struct Mailer {
    connections: SmtpConnections,
    from: Mailbox,
    timeout: Duration,
}

/// A mail to send.
#[derive(Debug)]
pub struct OutgoingMail<'a> {
    /// The recipient's address.
    pub to_email: &'a str,
    /// The recipient's name.
    pub to_name: Option<&'a str>,
    /// `<…@…>`; the same whenever this mail is sent again.
    pub message_id: &'a str,
    /// The trace that the mail ends.
    pub trace: TraceParent,
    /// Subject and bodies.
    pub content: Content,
    /// The attached file.
    pub attachment: Option<MailAttachment>,
}

/// A file that is attached to a mail.
#[derive(Debug)]
pub struct MailAttachment {
    /// The file name.
    pub file_name: String,
    /// The MIME type.
    pub mime: String,
    /// The bytes.
    pub content: Vec<u8>,
}

impl Mailer {
    /// Creates a client that connects when the first mail is sent.
    ///
    /// # Errors
    /// `smtp.url` or `smtp.from` cannot be used.
    pub fn new(smtp: &Smtp) -> anyhow::Result<Self> {
        let timeout = Duration::from_millis(smtp.timeout_ms);
        let connections = SmtpConnections::new(smtp.url.expose_secret(), smtp.pool_max as usize, timeout)?;
        Ok(Self { connections, from: smtp.from.parse()?, timeout })
    }

    /// Returns the domain of Message-IDs: the sender's.
    pub fn domain(&self) -> &str {
        self.from.email.domain()
    }

    /// Sends one mail.
    ///
    /// # Errors
    /// [`Failure::Poison`] where the server refuses this mail for good (5xx) or it cannot be written at all;
    /// [`Failure::Retry`] for all else: 4xx, a refused login, no connection, no answer in time.
    pub async fn send(&self, mail: OutgoingMail<'_>) -> Result<(), Failure> {
        let message = self.message(mail)?;
        match tokio::time::timeout(self.timeout, self.connections.send(&message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SendError::Smtp(error))) if error.is_permanent() && !refuses_login(&error) => {
                Err(Failure::poison(error))
            }
            Ok(Err(error)) => Err(Failure::retry(error)),
            Err(elapsed) => Err(Failure::retry(elapsed)),
        }
    }

    fn message(&self, mail: OutgoingMail<'_>) -> Result<Message, Failure> {
        let to: Address = mail.to_email.parse().map_err(Failure::poison)?;
        let to_name = mail.to_name.map(|name| name.replace(char::is_control, " "));
        let builder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(to_name, to))
            .subject(mail.content.subject)
            .message_id(Some(mail.message_id.to_owned()))
            .date_now()
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("traceparent", &mail.trace.to_string()))
            .raw_header(header("X-Registrar-Trace", &mail.trace.trace_id()));
        let body = MultiPart::alternative_plain_html(mail.content.text, mail.content.html);
        let message = match mail.attachment {
            None => builder.multipart(body),
            Some(file) => {
                let mime = ContentType::parse(&file.mime).map_err(Failure::poison)?;
                let file_name = file.file_name.replace(|c: char| c.is_control() || "/\\\"".contains(c), "-");
                let part = AttachmentPart::new(file_name).body(file.content, mime);
                builder.multipart(MultiPart::mixed().multipart(body).singlepart(part))
            }
        };
        message.map_err(Failure::poison)
    }
}

/// Returns true where the server refuses our login, not the mail (RFC 4954): the mail is sent once the login is mended.
fn refuses_login(error: &lettre::transport::smtp::Error) -> bool {
    error.status().is_some_and(|code| matches!(u16::from(code), 530 | 534 | 535 | 538))
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailer() -> Mailer {
        let smtp = Smtp {
            url: "smtp://127.0.0.1:9".into(),
            from: "Sample Institute <no-reply@example.org>".into(),
            pool_max: 1,
            timeout_ms: 2_000,
            concurrency: 1,
        };
        Mailer::new(&smtp).expect("valid settings")
    }

    fn mail<'a>(to_email: &'a str, to_name: &'a str, subject: &str) -> OutgoingMail<'a> {
        OutgoingMail {
            to_email,
            to_name: Some(to_name),
            message_id: "<1@example.org>",
            trace: TraceParent::new(),
            content: Content { subject: subject.into(), text: "text".into(), html: "<p>html</p>".into() },
            attachment: Some(MailAttachment {
                file_name: "a\"\r\nBcc: x@y.zz.pdf".into(),
                mime: "application/pdf".into(),
                content: b"%PDF-".to_vec(),
            }),
        }
    }

    #[tokio::test]
    async fn no_field_adds_a_header() {
        let message =
            mailer().message(mail("asha@example.org", "Asha\r\nBcc: x@y.zz", "Hello\r\nBcc: x@y.zz")).expect("written");
        let text = String::from_utf8(message.formatted()).expect("ASCII");
        let (headers, _) = text.split_once("\r\n\r\n").expect("headers and body");
        assert!(!text.lines().any(|line| line.to_ascii_lowercase().starts_with("bcc:")), "{text}");
        for header in
            ["Message-ID: <1@example.org>", "Auto-Submitted: auto-generated", "traceparent: 00-", "X-Registrar-Trace: "]
        {
            assert!(headers.contains(header), "{header} in {headers}");
        }
    }

    #[tokio::test]
    async fn bad_addresses_are_poison_and_a_server_away_is_not() {
        let bad = mailer().send(mail("a@b\r\nBcc: x@y.zz", "A", "S")).await.expect_err("no address");
        assert!(matches!(bad, Failure::Poison(_)), "{bad}");
        let away = mailer().send(mail("a@example.org", "A", "S")).await.expect_err("nobody listens on port 9");
        assert!(matches!(away, Failure::Retry(_)), "{away}");
    }
}

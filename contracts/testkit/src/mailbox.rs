//! The mail catcher's inbox (maildev's JSON API). All tests share it: use addresses that no other test writes to.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::{environment, eventually};

const MAIL_LIMIT: Duration = Duration::from_secs(30);

/// The inbox.
#[derive(Clone, Debug)]
pub struct Mailbox {
    base: Url,
    http: reqwest::Client,
}

/// A received mail.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceivedMail {
    /// The catcher's own id.
    pub id: String,
    /// The subject, decoded.
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub subject: String,
    /// The plain text part.
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub text: String,
    /// The HTML part.
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub html: String,
    /// Attached files; their bytes: [`Mailbox::attachment`].
    #[serde(default, deserialize_with = "list_or_nothing")]
    pub attachments: Vec<ReceivedAttachment>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(default)]
    to: Vec<Address>,
}

/// A file attached to a received mail.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedAttachment {
    /// The file name shown to the recipient.
    pub file_name: String,
    /// MIME type.
    pub content_type: String,
    /// Size in bytes.
    #[serde(default)]
    pub length: u64,
    #[serde(default)]
    generated_file_name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    address: String,
}

impl ReceivedMail {
    /// A header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str())
    }

    /// The names of all headers, lower case.
    pub fn header_names(&self) -> Vec<&str> {
        self.headers.keys().map(String::as_str).collect()
    }

    /// The first link, of the text part or else of the HTML part, that contains this.
    pub fn link(&self, containing: &str) -> Option<String> {
        let ends = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"');
        let words = self.text.split(ends).chain(self.html.split(ends));
        words
            .filter(|word| word.starts_with("http"))
            .find(|word| word.contains(containing))
            .map(|link| link.replace("&amp;", "&"))
    }
}

impl Mailbox {
    /// The inbox of the running services.
    ///
    /// # Panics
    /// Where the environment does not configure it.
    pub fn new() -> Self {
        Self { base: environment::url("MAIL_URL"), http: reqwest::Client::new() }
    }

    /// All mails to an address, oldest first.
    pub async fn mails_to(&self, address: &str) -> Vec<ReceivedMail> {
        let mut url = environment::with_path(&self.base, "/email");
        url.query_pairs_mut().append_pair("to.address", address);
        let answer = self.http.get(url).send().await.expect("the mail catcher answers: are the services up?");
        let mails: Vec<ReceivedMail> = answer.json().await.expect("the mail catcher lists mails as JSON");
        // A catcher without filters lists all mails.
        mails.into_iter().filter(|mail| mail.to.iter().any(|to| to.address.eq_ignore_ascii_case(address))).collect()
    }

    /// Waits at most 30 s for a mail to the address whose subject contains a text; the first one if there are several.
    ///
    /// # Panics
    /// Where none arrives.
    pub async fn wait_for_mail(&self, address: &str, subject_contains: &str) -> ReceivedMail {
        let awaited = format!("a mail to {address} with `{subject_contains}` in its subject");
        let look =
            || async { self.mails_to(address).await.into_iter().find(|mail| mail.subject.contains(subject_contains)) };
        eventually(&awaited, MAIL_LIMIT, look).await
    }

    /// The bytes of an attached file.
    pub async fn attachment(&self, mail: &ReceivedMail, attachment: &ReceivedAttachment) -> Bytes {
        let name = attachment.generated_file_name.as_deref().unwrap_or(&attachment.file_name);
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http address has a path").extend(["email", &mail.id, "attachment", name]);
        self.get(url).await
    }

    /// The mail as received over SMTP.
    pub async fn source(&self, mail: &ReceivedMail) -> Bytes {
        self.get(environment::with_path(&self.base, &format!("/email/{}/source", mail.id))).await
    }

    async fn get(&self, url: Url) -> Bytes {
        let answer = self.http.get(url).send().await.expect("the mail catcher answers");
        let answer = answer.error_for_status().expect("the mail catcher has what it listed");
        answer.bytes().await.expect("the mail catcher sends it whole")
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads a list; the catcher sends `null` where a mail has no attachment.
fn list_or_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<ReceivedAttachment>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a text; the catcher sends `false` or `null` where a mail has no such part.
fn text_or_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_str().unwrap_or_default().to_owned())
}

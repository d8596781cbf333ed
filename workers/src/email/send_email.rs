//! `email.send.v1`: sends mails, at least once and recognisably: the row in `email_logs` is leased, then the mail goes out,
//! then the row is marked. A crash in between repeats the mail with the same Message-ID; it never loses one. It is
//! self-deduplicating: the unique dedupe key takes the place of an operations row.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use contracts::{Outcome, messages::SendEmail, tokens::MailTokens};
use secrecy::ExposeSecret;
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    email_log::{self, Entry, Mark},
    mailer::{MailAttachment, Mailer, OutgoingMail},
    templates::MailTemplates,
};
use crate::{
    config::WorkerSettings,
    file_store::FileStore,
    runtime::{Claim, Delivery, Effect, Failure, chain},
};

/// The time that a lease lasts beyond the longest that its mails may take.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Settles `email.send.v1`.
#[derive(Clone, Debug)]
pub struct SendEmailHandler {
    inner: Arc<Inner>,
}

struct Inner {
    templates: MailTemplates,
    mailer: Mailer,
    tokens: MailTokens,
    files: FileStore,
    concurrency: usize,
    consumers: usize,
    timeout: Duration,
    in_flight: Semaphore,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendEmailHandler").field("mailer", &self.mailer).finish_non_exhaustive()
    }
}

/// A mail that this worker has leased and has to send.
#[derive(Debug)]
pub struct ClaimedMail {
    message_id: String,
    attachment: Option<StoredFile>,
    lease_ends: Instant,
}

#[derive(Clone, Debug)]
struct StoredFile {
    object_key: String,
    file_name: String,
    mime: String,
}

impl SendEmailHandler {
    /// Creates the handler with a mail server, the templates and the secret of mailed links.
    ///
    /// # Errors
    /// `smtp.url` or `smtp.from` cannot be used, or a template is broken.
    pub fn new(settings: &WorkerSettings, files: FileStore) -> anyhow::Result<Self> {
        let smtp = &settings.smtp;
        let inner = Inner {
            templates: MailTemplates::new(&settings.institute, &settings.public_url)?,
            mailer: Mailer::new(smtp)?,
            tokens: MailTokens::new(settings.secrets.tokens.expose_secret().as_bytes()),
            files,
            concurrency: smtp.concurrency,
            consumers: settings.runtime.consumers as usize,
            timeout: Duration::from_millis(smtp.timeout_ms),
            in_flight: Semaphore::new(smtp.concurrency),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the lease of so many mails: their time when every mail of every consumer takes its whole time limit.
    fn lease(&self, mails: usize) -> Duration {
        let rounds = (mails * self.inner.consumers).div_ceil(self.inner.concurrency);
        self.inner.timeout * u32::try_from(rounds).unwrap_or(u32::MAX) + LEASE_MARGIN
    }

    async fn attachment(&self, file: &StoredFile) -> Result<MailAttachment, Failure> {
        let content = self.inner.files.get(&file.object_key).await.map_err(Failure::retry)?;
        Ok(MailAttachment { file_name: file.file_name.clone(), mime: file.mime.clone(), content: content.to_vec() })
    }
}

impl Effect for SendEmailHandler {
    type Command = SendEmail;
    type Work = ClaimedMail;
    type Done = ();
    type Result = ();
    type Memo = ();

    const SELF_DEDUPLICATING: bool = true;
    /// An upper bound; `smtp.concurrency` is what holds.
    const CONCURRENCY: usize = 64;

    async fn claim(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<Self::Command>],
    ) -> Result<Vec<Claim<Self::Work>>, Failure> {
        let lease = self.lease(deliveries.len());
        let lease_ends = Instant::now() + lease;
        let subject = |delivery: &Delivery<Self::Command>| {
            let context = delivery.command.context.value().map_err(|error| Failure::Data(Box::new(error)))?;
            let subject = self.inner.templates.subject(delivery.command.template, &context);
            subject.map_err(|error| Failure::Data(Box::new(error)))
        };
        let subjects = deliveries.iter().map(subject).collect::<Result<Vec<_>, _>>()?;
        let domain = self.inner.mailer.domain();
        let entries = email_log::claim(tx, deliveries, &subjects, domain, lease.as_secs_f64()).await?;
        let files = select_files(tx, deliveries).await?;
        let claim = |(delivery, entry): (&Delivery<Self::Command>, Entry)| match entry {
            Entry::Claimed(message_id) => {
                let attachment = delivery.command.attachment_file_id.and_then(|id| files.get(&id).cloned());
                Claim::Do(ClaimedMail { message_id, attachment, lease_ends })
            }
            Entry::Settled => Claim::Done,
            Entry::Leased => Claim::Later,
        };
        Ok(deliveries.iter().zip(entries).map(claim).collect())
    }

    async fn perform(&self, delivery: &Delivery<Self::Command>, work: &Self::Work) -> Result<Self::Done, Failure> {
        let command = &delivery.command;
        let _permit = self.inner.in_flight.acquire().await.map_err(Failure::retry)?;
        if Instant::now() + self.inner.timeout > work.lease_ends {
            return Err(Failure::retry("the lease would run out before the mail is sent"));
        }
        let attachment = match (&work.attachment, command.attachment_file_id) {
            (Some(file), _) => Some(self.attachment(file).await?),
            (None, Some(id)) => return Err(Failure::retry(format!("the file {id} to attach is not there"))),
            (None, None) => None,
        };
        let token = command.token_id.map(|id| (id, &self.inner.tokens));
        let context = command.context.value().map_err(Failure::poison)?;
        let content = self.inner.templates.render(command.template, &context, token).map_err(Failure::poison)?;
        let mail = OutgoingMail {
            to_email: &command.to_email,
            to_name: command.to_name.as_deref(),
            message_id: &work.message_id,
            trace: delivery.trace,
            content,
            attachment,
        };
        self.inner.mailer.send(mail).await
    }

    async fn mark(
        &self,
        tx: &mut PgConnection,
        performed: &[(&Delivery<Self::Command>, &Self::Work, &Result<Self::Done, Failure>)],
    ) -> Result<Vec<Outcome<Self::Result>>, Failure> {
        let mark = |delivery: &Delivery<Self::Command>, result: &Result<(), Failure>| {
            let (status, error) = match result {
                Ok(()) => ("sent", None),
                Err(error @ Failure::Poison(_)) => ("failed", Some(chain(error))),
                Err(error) => ("queued", Some(chain(error))),
            };
            let error = error.map(|text| text.replace('\0', "\u{fffd}"));
            Mark { dedupe_key: delivery.command.dedupe_key.clone(), status, error }
        };
        let marks: Vec<Mark> = performed.iter().map(|(delivery, _, result)| mark(delivery, result)).collect();
        email_log::mark(tx, &marks).await?;
        Ok(performed.iter().filter(|(_, _, result)| result.is_ok()).map(|_| Outcome::succeeded(())).collect())
    }
}

async fn select_files(
    tx: &mut PgConnection,
    deliveries: &[Delivery<SendEmail>],
) -> Result<HashMap<Uuid, StoredFile>, Failure> {
    let wanted: Vec<Uuid> = deliveries.iter().filter_map(|delivery| delivery.command.attachment_file_id).collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let files = sqlx::query!("SELECT id, object_key, file_name, mime FROM files WHERE id = ANY ($1)", &wanted)
        .fetch_all(&mut *tx)
        .await?;
    let stored = files.into_iter().map(|file| {
        let file_name = file.file_name.unwrap_or_else(|| "attachment".to_owned());
        (file.id, StoredFile { object_key: file.object_key, file_name, mime: file.mime })
    });
    Ok(stored.collect())
}

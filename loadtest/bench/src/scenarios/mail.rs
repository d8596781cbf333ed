//! Mails a second: queued mails, sent by the pool `email` to Postfix's smtp-sink, which accepts and discards all.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use chrono::Utc;
use contracts::{
    Principal, Queue, TraceParent,
    amqp::{AmqpSettings, Publisher},
    envelope::{NewEvent, Origin},
    ids,
    messages::{EmailTemplate, SendEmail},
};
use serde_json::json;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};
use uuid::Uuid;

use super::backlog::BacklogScenario;
use crate::{args::Args, config::Installation, record::Check, scenario::dead_letters, services::Services};

/// Events published before their confirms are awaited.
const PUBLISHED_AT_ONCE: usize = 8_192;
const SINK_READY_WITHIN: Duration = Duration::from_secs(5);

/// Queued mails.
#[derive(Default)]
pub(crate) struct MailScenario {
    /// The smtp-sink process, killed when dropped.
    sink: Option<Child>,
}

impl BacklogScenario for MailScenario {
    fn name(&self) -> &'static str {
        "mails"
    }

    fn pool(&self) -> &'static str {
        Queue::Email.name()
    }

    async fn prepare(&mut self, installation: &Installation) -> anyhow::Result<()> {
        let url = installation.workers_setting("REGISTRAR__SMTP__URL")?;
        let address = url.strip_prefix("smtp://").context("REGISTRAR__SMTP__URL is not smtp://host:port")?;
        ensure!(TcpStream::connect(address).await.is_err(), "{address} is taken: stop the mail catcher");
        let program =
            installation.smtp_sink.as_ref().context("smtp-sink is missing: deploy/local/install smtp-sink")?;
        let mut command = Command::new(program);
        command.args([address, "1000"]).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        self.sink = Some(command.spawn().with_context(|| format!("{}", program.display()))?);
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SINK_READY_WITHIN, listens).await.context("smtp-sink does not listen")
    }

    async fn fill(&mut self, args: &Args, installation: &Installation, _: &Services) -> anyhow::Result<Vec<Uuid>> {
        let publisher = Publisher::start(AmqpSettings::new(&installation.amqp_url, "bench"));
        ensure!(publisher.wait_connected(Duration::from_secs(10)).await, "the broker does not answer");
        let items: Vec<Uuid> = (0..args.items).map(|_| ids::new_id()).collect();
        for chunk in items.chunks(PUBLISHED_AT_ONCE) {
            publisher.publish_all(chunk.iter().map(|id| event(*id))).await?;
        }
        Ok(items)
    }

    async fn finished_us(&self, services: &Services, items: &[Uuid]) -> anyhow::Result<Vec<i64>> {
        let sql = "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint
                     FROM email_logs WHERE event_id = ANY($1) AND status = 'sent'";
        Ok(sqlx::query_scalar(sql).bind(items).fetch_all(&services.database).await?)
    }

    async fn check(&self, services: &Services, items: &[Uuid]) -> anyhow::Result<Vec<Check>> {
        let sql = "SELECT count(DISTINCT message_id) FROM email_logs WHERE event_id = ANY($1) AND attempts = 1";
        let once = sqlx::query_scalar(sql).bind(items).fetch_one(&services.database).await?;
        Ok(vec![
            Check::new("each mail was sent at the first attempt", i64::try_from(items.len())?, once),
            dead_letters(services).await?,
        ])
    }
}

fn event(id: Uuid) -> NewEvent {
    let mail = SendEmail {
        to_email: format!("student-{}@load.example.org", id.simple()),
        to_name: Some("Load Test".to_owned()),
        user_id: None,
        template: EmailTemplate::EnrollmentConfirmed,
        locale: "en".to_owned(),
        context: json!({
            "name": "Load Test", "course": "Rust in Production", "batch": "Benchmark", "request_no": "R-0000000042",
            "registration_id": id, "amount_due": "11800.00", "currency": "INR", "deposit": null, "deadline": null,
            "position": null, "link_needed": false,
        })
        .into(),
        token_id: None,
        attachment_file_id: None,
        dedupe_key: format!("enrollment_confirmed:{id}"),
    };
    let origin = Origin {
        source: "/bench",
        principal: Principal::System,
        accepted_at: Utc::now(),
        trace: TraceParent::new(),
        parent: None,
    };
    NewEvent::new(id, &mail, &origin)
}

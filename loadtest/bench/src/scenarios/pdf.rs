//! PDFs a second: invoices, issued by approving payments, rendered by the pool `documents`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::ensure;
use contracts::Queue;
use uuid::Uuid;

use super::{ApprovalsScenario, backlog::BacklogScenario};
use crate::{
    args::Args,
    config::Installation,
    load::{self, Load, Model},
    processes::{Layout, RunningSystem},
    record::Check,
    scenario::{Scenario as _, dead_letters},
    services::Services,
    single_run,
};

const APPROVED_WITHIN: Duration = Duration::from_secs(600);

/// Issued invoices without a PDF.
#[derive(Default)]
pub(crate) struct PdfScenario {
    /// Folder of the invoices in the file store.
    folder: Option<PathBuf>,
}

impl BacklogScenario for PdfScenario {
    fn name(&self) -> &'static str {
        "PDFs"
    }

    fn pool(&self) -> &'static str {
        Queue::Documents.name()
    }

    async fn prepare(&mut self, installation: &Installation) -> anyhow::Result<()> {
        let store = installation.workers_setting("REGISTRAR__FILES__URL")?;
        self.folder = store.strip_prefix("file://").map(|folder| PathBuf::from(folder).join("invoices"));
        Ok(())
    }

    /// Returns the ids of the payments whose invoices are to be rendered.
    async fn fill(
        &mut self,
        args: &Args,
        installation: &Installation,
        services: &Services,
    ) -> anyhow::Result<Vec<Uuid>> {
        let mut approvals = ApprovalsScenario::new(args.items as usize);
        let count = approvals.requests().map_or(0, |(_, count)| count);
        let args = &approvals.adapt(args.clone());
        let requests = Arc::new(approvals.make(services, count).await?);
        let system = RunningSystem::start(installation, &Layout::of(args)).await?;
        let outcome = load::run(load(args, system.gateways.clone(), requests.clone())).await?;
        let operations = requests.operations(outcome.sent);
        let left = single_run::drain(services, &approvals, operations, args.drain_limit()).await?;
        ensure!(left == 0, "{left} effects of the approvals are missing after {:?}", args.drain_limit());
        system.stop().await?;
        services.broker.take_all(Queue::Email).await?;
        Ok(approvals.payments(operations))
    }

    async fn finished_us(&self, services: &Services, items: &[Uuid]) -> anyhow::Result<Vec<i64>> {
        let sql = "SELECT (extract(epoch FROM pg_xact_commit_timestamp(f.xmin)) * 1000000)::bigint
                     FROM invoices AS i JOIN files AS f ON f.id = i.pdf_file_id
                    WHERE i.payment_id = ANY($1)";
        Ok(sqlx::query_scalar(sql).bind(items).fetch_all(&services.database).await?)
    }

    async fn check(&self, services: &Services, items: &[Uuid]) -> anyhow::Result<Vec<Check>> {
        let wanted = i64::try_from(items.len())?;
        let sql = "SELECT count(DISTINCT f.object_key)
                     FROM invoices AS i JOIN files AS f ON f.id = i.pdf_file_id
                    WHERE i.payment_id = ANY($1) AND f.size_bytes > 1000";
        let stored = sqlx::query_scalar(sql).bind(items).fetch_one(&services.database).await?;
        let mails = services.broker.take_all(Queue::Email).await?;
        Ok(vec![
            Check::new("each invoice has a PDF of its own", wanted, stored),
            Check::new("each has one e-mail event", wanted, i64::try_from(mails.distinct)?),
            dead_letters(services).await?,
        ])
    }
}

/// Deletes the PDFs, whose invoices go with the database. Not right before a run: after many deletions creating a file
/// is slow for about a minute.
impl Drop for PdfScenario {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.folder.as_ref().filter(|folder| folder.exists()).map(std::fs::remove_dir_all) {
            eprintln!("bench: the PDFs stay where they are: {error}");
        }
    }
}

fn load(args: &Args, gateways: Vec<SocketAddr>, requests: Arc<crate::request::Requests>) -> Load {
    Load {
        range: 0..requests.len(),
        requests,
        gateways,
        connections: args.connections.into(),
        threads: 1,
        model: Model::Closed,
        duration: APPROVED_WITHIN,
        duplicates_percent: 0,
    }
}

//! PDFs a second: issued invoices, made by approving payments, rendered by the pool `documents`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::ensure;
use contracts::Queue;
use uuid::Uuid;

use super::{Approvals, Backlog, Check, Scenario as _, dead_letters};
use crate::{
    args::Args,
    config::Installation,
    load::{self, Load, Model},
    processes::{Layout, System},
    repeat,
    world::World,
};

const APPROVED_WITHIN: Duration = Duration::from_secs(600);

/// Invoices that have no PDF yet.
#[derive(Default)]
pub struct Pdf {
    /// Where the file store keeps those of invoices.
    folder: Option<PathBuf>,
}

impl Backlog for Pdf {
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

    /// Answers the payments whose invoices they are.
    async fn fill(&mut self, args: &Args, installation: &Installation, world: &World) -> anyhow::Result<Vec<Uuid>> {
        let mut approvals = Approvals::of(args.items as usize);
        let count = approvals.requests().map_or(0, |(_, count)| count);
        let args = &approvals.adapt(args.clone());
        let requests = Arc::new(approvals.make(world, count).await?);
        let system = System::start(installation, &Layout::of(args)).await?;
        let outcome = load::run(load(args, system.gateways.clone(), requests.clone())).await?;
        let operations = requests.operations(outcome.sent);
        let left = repeat::drain(world, &approvals, operations, args.drain_limit()).await?;
        ensure!(left == 0, "{left} effects of the approvals are missing after {:?}", args.drain_limit());
        system.stop().await?;
        world.broker.take_all(Queue::Email).await?;
        Ok(approvals.payments(operations))
    }

    async fn finished_us(&self, world: &World, pieces: &[Uuid]) -> anyhow::Result<Vec<i64>> {
        let sql = "SELECT (extract(epoch FROM pg_xact_commit_timestamp(f.xmin)) * 1000000)::bigint
                     FROM invoices AS i JOIN files AS f ON f.id = i.pdf_file_id
                    WHERE i.payment_id = ANY($1)";
        Ok(sqlx::query_scalar(sql).bind(pieces).fetch_all(&world.database).await?)
    }

    async fn check(&self, world: &World, pieces: &[Uuid]) -> anyhow::Result<Vec<Check>> {
        let wanted = i64::try_from(pieces.len())?;
        let sql = "SELECT count(DISTINCT f.object_key)
                     FROM invoices AS i JOIN files AS f ON f.id = i.pdf_file_id
                    WHERE i.payment_id = ANY($1) AND f.size_bytes > 1000";
        let stored = sqlx::query_scalar(sql).bind(pieces).fetch_one(&world.database).await?;
        let mails = world.broker.take_all(Queue::Email).await?;
        Ok(vec![
            Check::new("each invoice has a PDF of its own", wanted, stored),
            Check::new("each has one e-mail event", wanted, i64::try_from(mails.distinct)?),
            dead_letters(world).await?,
        ])
    }
}

/// The database is new each time: what lies there belongs to invoices that are gone. Never right before a run: for a minute
/// the file system walks around what was just deleted whenever a file is made.
impl Drop for Pdf {
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

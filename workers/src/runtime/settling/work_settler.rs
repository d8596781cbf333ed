//! The settling of a work queue: its events grouped by kind, each group given to the settler of its kind.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use chrono::Utc;
use contracts::{KeyHash, amqp::Target};
use futures::{FutureExt, future::BoxFuture};

use super::{
    disposition::Disposition,
    outbound::Outbound,
    raw_event::{RawEvent, Undecodable, metric_kind},
    registry::Registry,
    settler::{Deliveries, Settler},
};
use crate::{
    fault_injection,
    runtime::shared::{Interrupted, PoolContext},
};

/// Settles the deliveries of a work queue.
pub struct WorkSettler {
    registry: Arc<Registry>,
}

impl WorkSettler {
    /// Returns a settler with these handlers.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

impl Settler for WorkSettler {
    fn settle<'a>(
        &'a self,
        pool: &'a PoolContext,
        deliveries: Deliveries,
    ) -> BoxFuture<'a, Result<Outbound, Interrupted>> {
        async move {
            let mut outbound = Outbound::default();
            outbound.publish.extend(deliveries.undecodable.into_iter().map(park));
            for group in by_kind(deliveries.events) {
                let dispositions = settle_group(&self.registry, pool, &group).await?;
                count(pool, &group, &dispositions);
                for (event, disposition) in group.iter().zip(dispositions) {
                    let attempts_max = pool.shared.settings.attempts_max;
                    outbound.add(event, disposition, attempts_max, pool.shared.partitions());
                }
            }
            Ok(outbound)
        }
        .boxed()
    }

    fn weight(&self, kind: &str) -> usize {
        self.registry.weight(kind)
    }
}

/// Returns what parks bytes that are no event.
pub fn park(undecodable: Undecodable) -> (Target, bytes::Bytes) {
    tracing::warn!(reason = undecodable.reason, bytes = undecodable.bytes.len(), "undecodable");
    (Target::Undecodable, undecodable.bytes)
}

/// Groups by kind, keeping the order within a kind, and of each partition key over all kinds: an event joins the last
/// group of its kind unless something of its key stands in a later group, which it must not overtake.
fn by_kind(events: Vec<RawEvent>) -> Vec<Vec<RawEvent>> {
    let mut groups: Vec<Vec<RawEvent>> = Vec::new();
    // Two keys of one hash cost one group more, but no order.
    let mut newest: HashMap<KeyHash, usize> = HashMap::with_capacity(events.len());
    for event in events {
        let behind = newest.entry(event.key()).or_default();
        let of_kind = groups.iter().rposition(|group| group[0].kind == event.kind);
        *behind = of_kind.filter(|group| group >= behind).unwrap_or(groups.len());
        match groups.get_mut(*behind) {
            Some(group) => group.push(event),
            None => groups.push(vec![event]),
        }
    }
    groups
}

/// Settles events of one kind, at least one; returns one disposition each.
async fn settle_group(
    registry: &Registry,
    pool: &PoolContext,
    group: &[RawEvent],
) -> Result<Vec<Disposition>, Interrupted> {
    fault_injection::kill_on_marker(group.iter().map(|event| &event.bytes[..])).await;
    let started = Instant::now();
    let unknown = |event: &RawEvent| Disposition::Poison {
        class: "unknown_kind",
        text: format!("no handler settles `{}`", event.kind),
    };
    let dispositions = match registry.settler(&group[0].kind) {
        Some(settler) => settler.settle(pool, group).await?,
        None => group.iter().map(unknown).collect(),
    };
    pool.stage("settle_kind", started);
    Ok(dispositions)
}

/// Records the outcomes of a group, and the ages of those that were settled, in metrics.
fn count(pool: &PoolContext, group: &[RawEvent], dispositions: &[Disposition]) {
    let (pool, kind) = (pool.name, metric_kind(&group[0].kind));
    let ages = metrics::histogram!("settled_age_seconds", "pool" => pool, "kind" => kind);
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let now = Utc::now();
    for (event, disposition) in group.iter().zip(dispositions) {
        *counts.entry(disposition.outcome()).or_default() += 1;
        if let Disposition::Settled { .. } = disposition {
            ages.record((now - event.accepted_at).as_seconds_f64().max(0.0));
        }
    }
    for (outcome, count) in counts {
        metrics::counter!("events_total", "pool" => pool, "kind" => kind, "outcome" => outcome).increment(count);
    }
}

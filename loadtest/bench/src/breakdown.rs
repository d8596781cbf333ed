//! The time of one command, step by step, from the histograms of gateways and workers in the order in which a command
//! passes them. A step without a histogram is the difference of two means; [`Step::from`] names them.

use crate::record::{Stage, Step};

/// The histograms of all processes, and the pool whose steps are computed.
struct Timings<'a> {
    stages: &'a [Stage],
    pool: &'a str,
}

/// Returns the steps of a command that this pool settles, without those that no process observed.
pub(crate) fn steps(stages: &[Stage], pool: &str) -> Vec<Step> {
    let timings = Timings { stages, pool };
    let mut steps = timings.at_the_gateway();
    steps.extend(timings.queue_time());
    steps.extend(timings.observed("events settled together", "workers", "batch_events", &format!("pool=\"{pool}\"")));
    for (name, stage) in [
        ("decode the delivery", "decode"),
        ("settle deliveries, all of it", "settle_batch"),
        ("  apply: the handler's statements", "apply"),
        ("  settle: the operations' rows", "settle"),
        ("  commit", "commit"),
        ("  perform: SMTP, Typst", "perform"),
        ("follow-ups confirmed, beside the next events", "follow_ups"),
        ("ack", "ack"),
    ] {
        steps.extend(timings.of_pool(name, stage));
    }
    steps.extend(timings.observed("  workers' confirm by the broker", "workers", "amqp_confirm_seconds", ""));
    steps.extend(timings.observed("  workers' events an AMQP message", "workers", "amqp_array_events", ""));
    steps.extend(timings.age());
    steps
}

impl Timings<'_> {
    fn at_the_gateway(&self) -> Vec<Step> {
        let request = self.observed("request at the gateway, all of it", "gateway", "gateway_request_seconds", "/v1/");
        let confirm = self.observed("", "gateway", "gateway_confirm_seconds", "");
        let broker = self.observed("  confirm by the broker", "gateway", "amqp_confirm_seconds", "");
        let mut steps = Vec::new();
        steps.extend(request.clone());
        // Duplicates are answered without being published, so that there are fewer publishes than requests.
        let published = |confirm: &Step| {
            let requests = self.count("gateway", "gateway_request_seconds", "/v1/");
            let confirms = self.count("gateway", "gateway_confirm_seconds", "");
            Step {
                mean: confirm.mean * confirms / requests,
                from: "gateway_confirm ÷ requests".to_owned(),
                ..confirm.clone()
            }
        };
        steps.extend(difference("  parse, check, answer", &request, &confirm.as_ref().map(published)));
        steps.extend(difference("  publish wait: for a place in the window", &confirm, &broker));
        steps.extend(broker);
        steps.extend(self.observed("  events an AMQP message", "gateway", "amqp_array_events", ""));
        steps
    }

    /// Time in the queue, estimated: an event's age when it is settled counts from its acceptance, just before
    /// publishing.
    fn queue_time(&self) -> Option<Step> {
        let (age, settling) = (self.age()?, self.of_pool("", "settle_batch")?);
        let published = self.observed("", "gateway", "gateway_confirm_seconds", "").map_or(0.0, |step| step.mean);
        Some(Step {
            name: "in the queue and consumer buffer (estimated)",
            mean: (age.mean - published - settling.mean).max(0.0),
            p50_bound: None,
            p99_bound: None,
            from: "settled_age − gateway_confirm − settle_batch".to_owned(),
        })
    }

    fn age(&self) -> Option<Step> {
        let label = format!("pool=\"{}\"", self.pool);
        self.observed("accepted → settled, all of it", "workers", "settled_age_seconds", &label)
    }

    fn of_pool(&self, name: &'static str, stage: &str) -> Option<Step> {
        let labels = [format!("pool=\"{}\"", self.pool), format!("stage=\"{stage}\"")];
        self.mean(name, format!("stage_seconds{{{stage}}}"), |found| {
            found.metric == "stage_seconds" && labels.iter().all(|label| found.labels.contains(label.as_str()))
        })
    }

    fn observed(&self, name: &'static str, process: &str, metric: &str, label: &str) -> Option<Step> {
        self.mean(name, metric.to_owned(), |found| {
            found.metric == metric && found.process.starts_with(process) && found.labels.contains(label)
        })
    }

    fn count(&self, process: &str, metric: &str, label: &str) -> f64 {
        let is_counted = |s: &&Stage| s.metric == metric && s.process.starts_with(process) && s.labels.contains(label);
        self.stages.iter().filter(is_counted).map(|stage| stage.count).sum()
    }

    /// Mean over all processes and labels; the bounds are those of the series with the most observations.
    fn mean(&self, name: &'static str, from: String, is_wanted: impl Fn(&Stage) -> bool) -> Option<Step> {
        let found: Vec<&Stage> = self.stages.iter().filter(|stage| is_wanted(stage)).collect();
        let most = found.iter().max_by(|a, b| a.count.total_cmp(&b.count))?;
        let (sum, count) = found.iter().fold((0.0, 0.0), |(sum, n), s| (sum + s.mean * s.count, n + s.count));
        Some(Step { name, mean: sum / count, p50_bound: most.p50_bound, p99_bound: most.p99_bound, from })
    }
}

fn difference(name: &'static str, whole: &Option<Step>, part: &Option<Step>) -> Option<Step> {
    let (whole, part) = (whole.as_ref()?, part.as_ref()?);
    let from = format!("{} − {}", whole.from, part.from).replace("_seconds", "");
    Some(Step { name, mean: whole.mean - part.mean, p50_bound: None, p99_bound: None, from })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(process: &str, metric: &str, labels: &str, mean: f64) -> Stage {
        let (process, metric, labels) = (process.into(), metric.into(), labels.into());
        Stage { process, metric, labels, count: 2.0, mean, p50_bound: Some(mean), p99_bound: None, share: 0.0 }
    }

    #[test]
    fn a_step_without_a_histogram_is_a_difference() {
        let stages = [
            stage("gateway-1", "gateway_confirm_seconds", "", 0.010),
            stage("gateway-1", "amqp_confirm_seconds", "", 0.004),
            stage("gateway-2", "amqp_confirm_seconds", "", 0.002),
            stage("workers-1", "amqp_confirm_seconds", "", 0.100),
            stage("workers-1", "settled_age_seconds", "pool=\"payments\",kind=\"x\"", 0.050),
            stage("workers-1", "stage_seconds", "pool=\"payments\",stage=\"settle_batch\"", 0.015),
            stage("workers-1", "stage_seconds", "pool=\"email\",stage=\"settle_batch\"", 9.0),
        ];
        let steps = steps(&stages, "payments");
        let mean = |name: &str| steps.iter().find(|step| step.name.contains(name)).map(|s| (s.mean * 1e3).round());
        assert_eq!(mean("publish wait"), Some(7.0));
        assert_eq!(mean("in the queue"), Some(25.0));
        assert_eq!(mean("settle deliveries"), Some(15.0));
        assert_eq!(mean("ack"), None);
    }
}

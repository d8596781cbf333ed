//! Parser of the Prometheus text of gateways and workers, and the difference of two readings. It uses counters and the
//! sums, counts and buckets of histograms.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;

/// All series of one reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// Values by process and series.
    series: BTreeMap<(String, String), f64>,
}

/// One histogram between two readings.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    /// The process that observed it.
    pub process: String,
    /// Name of the metric.
    pub metric: String,
    /// Labels, such as `pool="payments",stage="apply"`; empty where there are none.
    pub labels: String,
    /// Number of observations.
    pub count: f64,
    /// Sum of the observations, in the metric's unit.
    pub sum: f64,
    /// Upper bound of each bucket, with the number of observations up to it.
    pub buckets: Vec<(f64, f64)>,
}

impl Reading {
    /// Reads the metrics of several processes, given by name and URL.
    ///
    /// # Errors
    /// Where a process does not answer.
    pub(crate) async fn take(client: &reqwest::Client, processes: &[(String, String)]) -> anyhow::Result<Self> {
        let mut reading = Reading::default();
        for (process, url) in processes {
            let response = client.get(url).timeout(Duration::from_secs(5)).send().await.with_context(|| url.clone())?;
            reading.add(process, &response.text().await.with_context(|| url.clone())?);
        }
        Ok(reading)
    }

    fn add(&mut self, process: &str, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((series, value)) = line.rsplit_once(' ')
                && let Ok(value) = value.parse::<f64>()
            {
                self.series.insert((process.to_owned(), series.to_owned()), value);
            }
        }
    }

    /// Returns the increase of each series since an earlier reading.
    pub(crate) fn since(&self, before: &Reading) -> Reading {
        let earlier = |name: &(String, String)| before.series.get(name).copied().unwrap_or_default();
        Reading { series: self.series.iter().map(|(name, value)| (name.clone(), value - earlier(name))).collect() }
    }

    /// Returns every histogram with at least one observation.
    pub(crate) fn histograms(&self) -> Vec<Histogram> {
        let mut found = Vec::new();
        for ((process, name), count) in self.series.iter().filter(|(_, count)| **count > 0.0) {
            let (metric, labels) = name.split_once('{').unwrap_or((name, "}"));
            let Some(metric) = metric.strip_suffix("_count") else { continue };
            let labels = labels.trim_end_matches('}').to_owned();
            let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let Some(sum) = self.series.get(&(process.clone(), format!("{metric}_sum{braced}"))) else { continue };
            let buckets = self.buckets(process, metric, &labels);
            let (process, metric) = (process.clone(), metric.to_owned());
            found.push(Histogram { process, metric, labels, count: *count, sum: *sum, buckets });
        }
        found
    }

    fn buckets(&self, process: &str, metric: &str, labels: &str) -> Vec<(f64, f64)> {
        let prefix = format!("{metric}_bucket{{{labels}");
        let bucket = |((owner, name), count): (&(String, String), &f64)| {
            let name = (owner == process).then_some(name)?;
            let bound = name.strip_prefix(&prefix)?.trim_start_matches(',').strip_prefix("le=\"")?;
            Some((bound.strip_suffix("\"}")?.parse().ok()?, *count))
        };
        let mut buckets: Vec<(f64, f64)> = self.series.iter().filter_map(bucket).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}

impl Histogram {
    /// Mean of the observations.
    pub(crate) fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// Upper bound of the bucket that holds this quantile; none where that bucket is unbounded.
    pub(crate) fn quantile_bound(&self, share: f64) -> Option<f64> {
        let wanted = self.count * share;
        self.buckets
            .iter()
            .find(|(_, count)| *count >= wanted)
            .map(|(bound, _)| *bound)
            .filter(|bound| bound.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(text: &str) -> Reading {
        let mut reading = Reading::default();
        reading.add("p", text);
        reading
    }

    #[test]
    fn histograms_are_distinguished_by_their_labels() {
        let before = reading("x_sum{stage=\"a\"} 1\nx_count{stage=\"a\"} 1\n");
        let after = reading(
            "# HELP x y\nx_sum{stage=\"a\"} 4\nx_count{stage=\"a\"} 4\nx_bucket{stage=\"a\",le=\"0.5\"} 1\n\
             x_bucket{stage=\"a\",le=\"+Inf\"} 3\nx_sum 9\nx_count 3\ny_total{k=\"v\"} 2\n",
        );
        let delta = after.since(&before);
        let histograms = delta.histograms();
        assert_eq!(histograms.len(), 2);
        let labelled = histograms.iter().find(|h| h.labels == "stage=\"a\"").expect("there");
        assert_eq!((labelled.mean(), labelled.quantile_bound(0.3)), (1.0, Some(0.5)));
        assert_eq!(histograms.iter().find(|h| h.labels.is_empty()).expect("there").mean(), 3.0);
    }
}

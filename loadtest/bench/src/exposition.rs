//! Reads the Prometheus text of gateways and workers, and tells what happened between two readings. Only sums, counts and
//! buckets of histograms and the values of counters are used.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;

/// All series of one reading.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// By process and series.
    series: BTreeMap<(String, String), f64>,
}

/// One histogram between two readings.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// Whose.
    pub process: String,
    /// The metric's name.
    pub metric: String,
    /// `pool="payments",stage="apply"`, or nothing.
    pub labels: String,
    /// Observations.
    pub count: f64,
    /// Their sum, in the metric's unit.
    pub sum: f64,
    /// Upper bounds and the observations up to each.
    pub buckets: Vec<(f64, f64)>,
}

impl Reading {
    /// Reads several processes, given by name and address.
    ///
    /// # Errors
    /// Where one does not answer.
    pub async fn take(client: &reqwest::Client, processes: &[(String, String)]) -> anyhow::Result<Self> {
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

    /// What was added since an earlier reading, series by series.
    pub fn since(&self, before: &Reading) -> Reading {
        let earlier = |name: &(String, String)| before.series.get(name).copied().unwrap_or_default();
        Reading { series: self.series.iter().map(|(name, value)| (name.clone(), value - earlier(name))).collect() }
    }

    /// Every histogram that observed something.
    pub fn histograms(&self) -> Vec<Histogram> {
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
    /// The mean observation.
    pub fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// The upper bound of the bucket in which this share of the observations ends; none where that bucket has no bound.
    pub fn quantile_bound(&self, share: f64) -> Option<f64> {
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
    fn histograms_are_told_apart_by_their_labels() {
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

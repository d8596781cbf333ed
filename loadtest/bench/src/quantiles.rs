//! Exact quantiles, computed from all samples without buckets.

use serde::Serialize;

/// Quantiles of a distribution, in the unit of its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest sample.
    pub max: f64,
}

impl Quantiles {
    /// Quantiles of these samples; all zero where there are none.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { p50: at(&samples, 0.50), p95: at(&samples, 0.95), p99: at(&samples, 0.99), max: at(&samples, 1.0) }
    }
}

/// Returns the smallest sample that at least this share of the sorted samples does not exceed.
pub(crate) fn at(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_samples() {
        let quantiles = Quantiles::of((1..=100).rev().map(f64::from).collect());
        assert_eq!(quantiles, Quantiles { p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 });
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}

//! Exact quantiles: every sample is kept, so nothing is rounded into buckets.

use serde::Serialize;

/// A distribution, in the unit of its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are below.
    pub p50: f64,
    /// 95 % are below.
    pub p95: f64,
    /// 99 % are below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Quantiles {
    /// Of these samples; all zero where there are none.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { p50: at(&samples, 0.50), p95: at(&samples, 0.95), p99: at(&samples, 0.99), max: at(&samples, 1.0) }
    }
}

/// The smallest sample that at least this share of the sorted samples does not exceed.
pub fn at(sorted: &[f64], share: f64) -> f64 {
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

//! The outcome of a command. A business "no" is an outcome, not an error. The row stores everything that follow-ups are
//! computed from; the client sees the verdict only.

use serde::{Deserialize, Serialize};

use crate::Problem;

/// The part of an outcome that the client sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Verdict<R> {
    /// It was done; stored under `result`.
    #[serde(rename = "result")]
    Succeeded(R),
    /// It was refused, and nothing changed; stored under `problem`.
    #[serde(rename = "problem")]
    Rejected(Problem),
}

/// The outcome of a command: `{"result": …, "memo": …}` or `{"problem": …, "memo": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome<R, M = ()> {
    /// The part that the client sees.
    #[serde(flatten)]
    pub verdict: Verdict<R>,
    /// Data that only the follow-ups need: addresses, token ids, promoted registrations. Never shown to clients.
    #[serde(default)]
    pub memo: M,
}

impl<R, M: Default> Outcome<R, M> {
    /// A success without a memo.
    pub fn succeeded(result: R) -> Self {
        Self { verdict: Verdict::Succeeded(result), memo: M::default() }
    }

    /// A rejection without a memo.
    pub fn rejected(problem: impl Into<Problem>) -> Self {
        Self { verdict: Verdict::Rejected(problem.into()), memo: M::default() }
    }

    /// Adds the data that the follow-ups need.
    #[must_use]
    pub fn memo(mut self, memo: M) -> Self {
        self.memo = memo;
        self
    }
}

impl<R, M> Outcome<R, M> {
    /// The value of `operations.state`.
    pub const fn state(&self) -> &'static str {
        match self.verdict {
            Verdict::Succeeded(_) => "succeeded",
            Verdict::Rejected(_) => "rejected",
        }
    }
}

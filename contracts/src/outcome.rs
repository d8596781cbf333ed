//! What became of a command. A business "no" is an outcome, not an error. The row stores all that follow-ups are
//! computed from; the client is shown the verdict only.

use serde::{Deserialize, Serialize};

use crate::Problem;

/// The part of an outcome that the client is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Verdict<R> {
    /// It was done; stored under `result`.
    #[serde(rename = "result")]
    Succeeded(R),
    /// It was refused, and nothing changed; stored under `problem`.
    #[serde(rename = "problem")]
    Rejected(Problem),
}

/// What became of a command: `{"result": …, "memo": …}` or `{"problem": …, "memo": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome<R, M = ()> {
    /// What the client is told.
    #[serde(flatten)]
    pub verdict: Verdict<R>,
    /// What only the follow-ups need: addresses, token ids, who was promoted. Never shown.
    #[serde(default)]
    pub memo: M,
}

impl<R, M: Default> Outcome<R, M> {
    /// Done, and nothing more to remember.
    pub fn succeeded(result: R) -> Self {
        Self { verdict: Verdict::Succeeded(result), memo: M::default() }
    }

    /// Refused.
    pub fn rejected(problem: impl Into<Problem>) -> Self {
        Self { verdict: Verdict::Rejected(problem.into()), memo: M::default() }
    }

    /// Remembers what the follow-ups need.
    #[must_use]
    pub fn memo(mut self, memo: M) -> Self {
        self.memo = memo;
        self
    }
}

impl<R, M> Outcome<R, M> {
    /// `operations.state`.
    pub const fn state(&self) -> &'static str {
        match self.verdict {
            Verdict::Succeeded(_) => "succeeded",
            Verdict::Rejected(_) => "rejected",
        }
    }
}

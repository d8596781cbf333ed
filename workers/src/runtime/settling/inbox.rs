//! The inbox: the table `operations`, read to find out which events are settled already, and with which outcome.

use std::collections::HashMap;

use contracts::Outcome;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{fault_injection, runtime::failure::Failure};

/// The columns of a settled operation that tell a duplicate from a replay, and from which its follow-ups are computed.
pub struct SettledRow {
    pub state: String,
    pub outcome: Value,
    pub memo: Option<Vec<u8>>,
    pub fingerprint: Vec<u8>,
}

impl SettledRow {
    /// Returns the stored outcome, with the memo that the follow-ups need.
    ///
    /// # Errors
    /// Where the row holds another shape than the kind has.
    pub fn outcome<R: DeserializeOwned, M: DeserializeOwned + Default>(&self) -> serde_json::Result<Outcome<R, M>> {
        match &self.memo {
            Some(memo) => {
                let verdict = serde_json::from_value(self.outcome.clone())?;
                Ok(Outcome { verdict, memo: serde_json::from_slice(memo)? })
            }
            None => serde_json::from_value(self.outcome.clone()),
        }
    }
}

/// Returns the rows of those among these ids that are settled, for a transaction that is to settle the others.
///
/// # Errors
/// As [`settled`].
pub async fn look_up(conn: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, SettledRow>, Failure> {
    if fault_injection::inbox_is_off() {
        return Ok(HashMap::new());
    }
    Ok(settled(conn, ids).await?)
}

/// Returns the rows of those among these ids that are settled.
///
/// # Errors
/// Any error of Postgres.
pub async fn settled(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, SettledRow>> {
    let rows = sqlx::query!("SELECT id, state, outcome, memo, fingerprint FROM operations WHERE id = ANY($1)", ids)
        .fetch_all(conn)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let (id, state, outcome, memo, fingerprint) = (row.id, row.state, row.outcome, row.memo, row.fingerprint);
            (id, SettledRow { state, outcome, memo, fingerprint })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_memo_is_read_from_where_its_row_has_it() {
        let row = |outcome, memo: Option<&str>| SettledRow {
            state: "succeeded".into(),
            outcome,
            memo: memo.map(|memo| memo.as_bytes().to_vec()),
            fingerprint: Vec::new(),
        };
        let wanted = Outcome::<i32, Vec<i32>>::succeeded(7).memo(vec![1, 2]);
        let apart = row(json!({ "result": 7 }), Some("[1,2]"));
        let of_before = row(json!({ "result": 7, "memo": [1, 2] }), None);
        for row in [apart, of_before] {
            assert_eq!(row.outcome::<i32, Vec<i32>>().expect("of this shape"), wanted);
        }
        let without = row(json!({ "result": 7 }), None).outcome::<i32, ()>();
        assert_eq!(without.expect("of this shape"), Outcome::succeeded(7));
    }
}

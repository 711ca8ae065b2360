//! Counts rows that lie on a shard that does not own them: after a move none should, and during one only where it says so.
//! Reads every row of the sharded tables.

use super::side::{MoveError, Side};
use super::table;
use crate::backend::control::Control;
use std::sync::Arc;

/// Rows of one table on one shard that are not where their slots are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    /// The shard's name.
    pub shard: Arc<str>,
    /// `schema.name`.
    pub table: String,
    /// Rows that have no business there: nobody finds them by their key.
    pub rows: i64,
    /// Rows of a move that is not over.
    pub moving: i64,
}

/// Every table on every shard where there are such rows.
///
/// # Errors
/// [`MoveError`]: a shard does not answer.
pub async fn check(control: &Arc<Control>) -> Result<Vec<Misplaced>, MoveError> {
    control.refresh_schema().await?;
    let topology = control.topology.load_full();
    let mut misplaced = Vec::new();
    for shard in topology.shard_ids() {
        let side = Side::connect(control, shard).await?;
        for table in table::describe(&side, &topology.schema).await? {
            let rows = side
                .rows(&format!(
                    "SELECT count(*) FILTER (WHERE NOT o.foreign_slots @> r.slot OR r.slot IS NULL), \
                       count(*) FILTER (WHERE o.foreign_slots @> r.slot) \
                     FROM (SELECT {} AS slot FROM {}) r, pgring.ownership o \
                     WHERE NOT o.owned @> r.slot OR r.slot IS NULL",
                    table.slot(""),
                    table.from()
                ))
                .await?;
            let Some(row) = rows.first() else {
                continue;
            };
            let count = |column| row.try_get::<_, i64>(column);
            let counts = count(0).and_then(|rows| Ok((rows, count(1)?)));
            let (rows, moving) = counts.map_err(|error| side.refuse(error))?;
            if rows + moving > 0 {
                misplaced.push(Misplaced {
                    shard: side.name.clone(),
                    table: table.name,
                    rows,
                    moving,
                });
            }
        }
    }
    Ok(misplaced)
}

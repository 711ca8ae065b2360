//! The first copy of a move's rows, under the snapshot that its slot was made with; and deleting rows where they are not
//! wanted. Both no faster than they are allowed to, and both can be stopped.

use super::record;
use super::side::{MoveError, Side};
use super::table::MovedTable;
use super::want::Wants;
use crate::topology::slot::SlotSet;
use futures_util::{SinkExt as _, StreamExt as _, pin_mut};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often progress is recorded.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// Pages that one batch of deleting looks at.
const BATCH_PAGES: i64 = 128;
/// Bytes of a row of which the statistics do not tell.
const ROW_BYTES: u64 = 128;
/// Bytes of a page.
const PAGE: u64 = 8192;
/// A limit is kept over spans of this length: no burst is longer.
const SPAN: Duration = Duration::from_millis(100);

/// Lets bytes through at a rate.
#[derive(Debug)]
pub struct Limiter {
    rate: u64,
    started: Instant,
    passed: u64,
}

impl Limiter {
    /// 0 for no limit.
    pub fn new(rate: u64) -> Self {
        Self {
            rate,
            started: Instant::now(),
            passed: 0,
        }
    }

    /// Waits until these bytes may have passed.
    pub async fn pass(&mut self, bytes: u64) {
        let wait = self.wait(bytes, self.started.elapsed());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    /// How long these bytes must wait, that far after the start.
    fn wait(&mut self, bytes: u64, elapsed: Duration) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        self.passed += bytes;
        let due = Duration::from_secs_f64(self.passed as f64 / self.rate as f64);
        // What could not be sent in time is not made up for later.
        if elapsed.saturating_sub(due) > SPAN {
            self.restart();
        }
        due.saturating_sub(elapsed)
    }

    /// Time that passed for another reason does not count.
    pub fn restart(&mut self) {
        *self = Self::new(self.rate);
    }
}

/// What a copy has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Copies the rows of the slots, table after table. `from` must be inside a transaction with the slot's snapshot; `progress`
/// is a connection to the move's source, to write to, with the move's id.
///
/// # Errors
/// [`MoveError`]; some tables may be copied then.
pub async fn copy(
    from: &Side,
    to: &Side,
    progress: (&Side, i32),
    slots: &SlotSet,
    tables: &[MovedTable],
    rate: u64,
    wants: &mut Wants,
) -> Result<Copied, MoveError> {
    let mut copied = Copied::default();
    let mut limiter = Limiter::new(rate);
    let started = Instant::now();
    let mut noted = Instant::now();
    // Rows come as they are: what triggers did for them is done, and their foreign keys are checked where they come from.
    to.run("SET session_replication_role = replica").await?;
    for table in tables {
        let format = match table.has_own_types {
            true => "text",
            false => "binary",
        };
        let columns = table.columns.join(", ");
        let out = from
            .client
            .copy_out(&format!(
                "COPY (SELECT {columns} FROM {} WHERE {}) TO STDOUT (FORMAT {format})",
                table.from(),
                table.is_in(slots)
            ))
            .await
            .map_err(|error| from.refuse(error))?;
        let into = to
            .client
            .copy_in(&format!(
                "COPY {} ({columns}) FROM STDIN (FORMAT {format})",
                table.name
            ))
            .await
            .map_err(|error| to.refuse(error))?;
        pin_mut!(out);
        pin_mut!(into);
        let before = copied.rows;
        while let Some(chunk) = out.next().await {
            let chunk = chunk.map_err(|error| from.refuse(error))?;
            let bytes = chunk.len() as u64;
            if wants.go_on().await? {
                limiter.restart();
            }
            limiter.pass(bytes).await;
            copied.bytes += bytes;
            copied.rows += 1;
            into.feed(chunk).await.map_err(|error| to.refuse(error))?;
            if noted.elapsed() >= NOTE_EVERY {
                noted = Instant::now();
                note(progress, copied, started).await?;
            }
        }
        let rows = into.finish().await.map_err(|error| to.refuse(error))?;
        copied.rows = before + rows;
        note(progress, copied, started).await?;
    }
    to.run("RESET session_replication_role").await?;
    for table in tables {
        to.run(&format!("ANALYZE {}", table.name)).await?;
    }
    Ok(copied)
}

async fn note(
    (progress, id): (&Side, i32),
    copied: Copied,
    started: Instant,
) -> Result<(), MoveError> {
    let Copied { rows, bytes } = copied;
    let seconds = started.elapsed().as_secs_f64();
    record::note(
        progress,
        id,
        &format!("rows_copied = {rows}, bytes_copied = {bytes}, copy_seconds = {seconds}"),
    )
    .await
}

/// Deletes the rows of the slots in batches, which must all be foreign to the shard: what it owns is never deleted. Returns
/// how many they were; `progress` is the source with the move's id, to write that to.
///
/// # Errors
/// [`MoveError`]; some are deleted then.
pub async fn delete(
    side: &Side,
    slots: &SlotSet,
    tables: &[MovedTable],
    rate: u64,
    progress: Option<(&Side, i32)>,
) -> Result<u64, MoveError> {
    let mut limiter = Limiter::new(rate);
    let mut deleted = 0;
    let mut noted = Instant::now();
    side.run("SET session_replication_role = replica").await?;
    for table in tables {
        let row_bytes = match table.rows {
            0 => ROW_BYTES,
            rows => (table.bytes / rows).unsigned_abs(),
        };
        for leaf in &table.leaves {
            let pages: i64 = side
                .value(&format!(
                    "SELECT pg_catalog.pg_relation_size({}::pg_catalog.regclass) / {PAGE}",
                    super::side::literal(&leaf.name)
                ))
                .await?;
            let sql = format!(
                "DELETE FROM ONLY {} WHERE ctid >= $1 AND ctid < $2 AND {} \
                   AND EXISTS (SELECT FROM pgring.ownership WHERE foreign_slots OPERATOR(pg_catalog.@>) '{slots}'::pg_catalog.int4multirange)",
                leaf.name,
                table.is_in(slots)
            );
            for page in (0..=pages).step_by(BATCH_PAGES as usize) {
                let bound = |page: i64| format!("'({page},0)'::pg_catalog.tid");
                let batch = sql
                    .replace("$1", &bound(page))
                    .replace("$2", &bound(page + BATCH_PAGES));
                let rows = side.client.execute_typed(&batch, &[]).await;
                let rows = rows.map_err(|error| side.refuse(error))?;
                deleted += rows;
                limiter.pass(rows * row_bytes).await;
                if let Some((progress, id)) = progress
                    && noted.elapsed() >= NOTE_EVERY
                {
                    noted = Instant::now();
                    record::note(progress, id, &format!("rows_deleted = {deleted}")).await?;
                }
            }
        }
    }
    side.run("RESET session_replication_role").await?;
    for table in tables {
        let left: bool = side
            .value(&format!(
                "SELECT EXISTS (SELECT FROM {} WHERE {})",
                table.from(),
                table.is_in(slots)
            ))
            .await?;
        if left {
            return Err(MoveError::State(format!(
                "shard {}: rows of {} in the slots that were moved away are still there",
                side.name, table.name
            )));
        }
    }
    if let Some((progress, id)) = progress {
        record::note(progress, id, &format!("rows_deleted = {deleted}")).await?;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_their_rate() {
        let mut limiter = Limiter::new(1000);
        let mut elapsed = Duration::ZERO;
        for _ in 0..50 {
            elapsed += limiter.wait(100, elapsed);
        }
        assert_eq!(elapsed, Duration::from_secs(5));
    }

    #[test]
    fn what_was_late_is_not_made_up_for_in_a_burst() {
        let mut limiter = Limiter::new(1000);
        assert_eq!(limiter.wait(100, Duration::from_secs(9)), Duration::ZERO);
        assert_eq!(
            limiter.wait(100, Duration::ZERO),
            Duration::from_millis(100)
        );
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert_eq!(
            Limiter::new(0).wait(u64::MAX, Duration::ZERO),
            Duration::ZERO
        );
    }
}

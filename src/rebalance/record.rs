//! [`MoveRecord`]: a move as it stands in `pgring.move` on its source, which is the truth, and on its target, which is for
//! people. Reads and writes it; must not know what the phases mean.

use super::phase::Phase;
use super::side::{MoveError, Side, literal};
use crate::topology::slot::SlotSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What people want of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// That it goes on by itself as far as it does: until the flip.
    Run,
    /// That nothing more is done for now.
    Pause,
    /// That the source keeps the slots. Before the flip.
    Cancel,
    /// That the source gets them back. After the flip.
    Rollback,
    /// That the source's rows are deleted. After the flip.
    Complete,
}

const WORDS: [(Wanted, &str); 5] = [
    (Wanted::Run, "run"),
    (Wanted::Pause, "pause"),
    (Wanted::Cancel, "cancel"),
    (Wanted::Rollback, "rollback"),
    (Wanted::Complete, "complete"),
];

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(wanted, _)| wanted == self);
        f.write_str(word.map_or("", |(_, word)| word))
    }
}

impl FromStr for Wanted {
    type Err = MoveError;

    fn from_str(text: &str) -> Result<Self, MoveError> {
        let wanted = WORDS.iter().find(|(_, word)| *word == text);
        wanted
            .map(|(wanted, _)| *wanted)
            .ok_or_else(|| MoveError::State(format!("\"{text}\" is nothing to want of a move")))
    }
}

/// What the person who started a rebalance chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes per second of copying and deleting; 0 for no limit.
    pub rate: u64,
    /// How long statements may be held for a flip. At least 1 ms.
    pub pause_budget: Duration,
}

/// The longest that statements may be held for a flip.
const PAUSE_BUDGET_MAX: Duration = Duration::from_secs(3600);

impl Options {
    /// What a person chose, in words.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(rate: u64, pause_budget: Duration) -> Result<Self, String> {
        if i64::try_from(rate).is_err() {
            return Err("the rate is too large".to_owned());
        }
        if pause_budget.is_zero() || pause_budget > PAUSE_BUDGET_MAX {
            return Err("the pause budget must be between 1ms and 1h".to_owned());
        }
        Ok(Self { rate, pause_budget })
    }
}

/// When things happened to a move, as PostgreSQL prints it, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// It was planned.
    pub created: String,
    /// Its slots changed their owner the first time.
    pub flipped: Option<String>,
    /// Its record was changed last.
    pub changed: String,
}

/// How far a move has come, for people.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// By the statistics of the source when it was planned.
    pub rows_expected: i64,
    /// The same in bytes.
    pub bytes_expected: i64,
    /// By the copy that ran last.
    pub rows_copied: i64,
    /// As sent from shard to shard.
    pub bytes_copied: i64,
    /// How long that copy has taken.
    pub copy_seconds: f64,
    /// From the side that lost the slots.
    pub rows_deleted: i64,
    /// How long a write took to follow when that was measured last.
    pub lag_ms: Option<f64>,
    /// How often the slots were fenced.
    pub fences: i32,
    /// How long they were the last time.
    pub pause_ms: Option<f64>,
}

/// One move.
#[derive(Debug, Clone, PartialEq)]
pub struct MoveRecord {
    /// Unique in the cluster.
    pub id: i32,
    /// Name of the shard that has the slots.
    pub source: Arc<str>,
    /// Name of the shard that gets them.
    pub target: Arc<str>,
    /// Which.
    pub slots: SlotSet,
    /// How far it is.
    pub phase: Phase,
    /// What people want.
    pub wanted: Wanted,
    /// What they chose.
    pub options: Options,
    /// For people.
    pub progress: Progress,
    /// Why it does not go on.
    pub error: Option<String>,
}

const COLUMNS: &str = "id, source, target, slots::pg_catalog.text, phase, wanted, rate, pause_budget, rows_expected, \
     bytes_expected, rows_copied, bytes_copied, copy_seconds, rows_deleted, lag_ms, fences, pause_ms, error";

/// Every move that has the shard as its source, oldest first.
///
/// # Errors
/// [`MoveError`]
pub async fn read_all(
    client: &tokio_postgres::Client,
    shard: &Arc<str>,
) -> Result<Vec<MoveRecord>, MoveError> {
    let rows = select_all(client, shard, COLUMNS).await?;
    rows.iter().map(|row| read(shard, row)).collect()
}

/// How many columns [`COLUMNS`] has.
const COLUMN_COUNT: usize = 18;

/// The same with the times.
///
/// # Errors
/// [`MoveError`]
pub async fn read_history(
    client: &tokio_postgres::Client,
    shard: &Arc<str>,
) -> Result<Vec<(MoveRecord, Times)>, MoveError> {
    let time = |column| {
        format!("pg_catalog.to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"')")
    };
    let times = ["created_at", "flipped_at", "changed_at"].map(time);
    let columns = format!("{COLUMNS}, {}", times.join(", "));
    let rows = select_all(client, shard, &columns).await?;
    let times = |row: &tokio_postgres::Row| {
        Ok(Times {
            created: row.try_get(COLUMN_COUNT)?,
            flipped: row.try_get(COLUMN_COUNT + 1)?,
            changed: row.try_get(COLUMN_COUNT + 2)?,
        })
    };
    rows.iter()
        .map(|row| {
            let times = times(row).map_err(|source| MoveError::Query {
                shard: shard.clone(),
                source,
            });
            Ok((read(shard, row)?, times?))
        })
        .collect()
}

async fn select_all(
    client: &tokio_postgres::Client,
    shard: &Arc<str>,
    columns: &str,
) -> Result<Vec<tokio_postgres::Row>, MoveError> {
    let sql = format!(
        "SELECT {columns} FROM pgring.move WHERE source = {} ORDER BY id",
        literal(shard)
    );
    let rows = client.query_typed(&sql, &[]).await;
    rows.map_err(|source| MoveError::Query {
        shard: shard.clone(),
        source,
    })
}

/// One move.
///
/// # Errors
/// [`MoveError`]: it is not there, too.
pub async fn read_one(source: &Side, id: i32) -> Result<MoveRecord, MoveError> {
    let sql = format!("SELECT {COLUMNS} FROM pgring.move WHERE id = {id}");
    match source.rows(&sql).await?.first() {
        Some(row) => read(&source.name, row),
        None => Err(MoveError::State(format!(
            "shard {}: there is no move {id}",
            source.name
        ))),
    }
}

fn read(shard: &Arc<str>, row: &tokio_postgres::Row) -> Result<MoveRecord, MoveError> {
    let refuse = |source| MoveError::Query {
        shard: shard.clone(),
        source,
    };
    let state = |error: &dyn fmt::Display| MoveError::State(format!("shard {shard}: {error}"));
    let text = |column| row.try_get::<_, &str>(column).map_err(refuse);
    let number = |column| row.try_get::<_, i64>(column).map_err(refuse);
    let budget: i32 = row.try_get(7).map_err(refuse)?;
    Ok(MoveRecord {
        id: row.try_get(0).map_err(refuse)?,
        source: text(1)?.into(),
        target: text(2)?.into(),
        slots: text(3)?.parse().map_err(|error| state(&error))?,
        phase: text(4)?.parse().map_err(|error| state(&error))?,
        wanted: text(5)?.parse()?,
        options: Options {
            rate: number(6)?.unsigned_abs(),
            pause_budget: Duration::from_millis(budget.unsigned_abs().into()),
        },
        progress: Progress {
            rows_expected: number(8)?,
            bytes_expected: number(9)?,
            rows_copied: number(10)?,
            bytes_copied: number(11)?,
            copy_seconds: row.try_get(12).map_err(refuse)?,
            rows_deleted: number(13)?,
            lag_ms: row.try_get(14).map_err(refuse)?,
            fences: row.try_get(15).map_err(refuse)?,
            pause_ms: row.try_get(16).map_err(refuse)?,
        },
        error: row.try_get(17).map_err(refuse)?,
    })
}

impl MoveRecord {
    /// Writes the move to one of its shards, unless it is there.
    ///
    /// # Errors
    /// [`MoveError`]
    pub async fn insert(&self, side: &Side) -> Result<(), MoveError> {
        side.run(&format!(
            "INSERT INTO pgring.move (id, source, target, slots, phase, rate, pause_budget, rows_expected, bytes_expected) \
             VALUES ({}, {}, {}, '{}', '{}', {}, {}, {}, {}) ON CONFLICT (id) DO NOTHING",
            self.id,
            literal(&self.source),
            literal(&self.target),
            self.slots,
            self.phase,
            self.options.rate,
            self.options.pause_budget.as_millis(),
            self.progress.rows_expected,
            self.progress.bytes_expected
        ))
        .await
    }
}

/// SQL that records a phase.
pub fn phase_sql(id: i32, phase: Phase) -> String {
    format!(
        "UPDATE pgring.move SET phase = '{phase}', changed_at = pg_catalog.clock_timestamp() WHERE id = {id}"
    )
}

/// Records why a move does not go on, or that nothing keeps it.
///
/// # Errors
/// [`MoveError`]
pub async fn note_error(side: &Side, id: i32, error: Option<&str>) -> Result<(), MoveError> {
    let error = error.map_or("NULL".to_owned(), literal);
    side.run(&format!(
        "UPDATE pgring.move SET error = {error}, changed_at = pg_catalog.clock_timestamp() \
         WHERE id = {id} AND error IS DISTINCT FROM {error}"
    ))
    .await
}

/// Records what people want.
///
/// # Errors
/// [`MoveError`]
pub async fn want(side: &Side, id: i32, wanted: Wanted) -> Result<(), MoveError> {
    side.run(&format!(
        "UPDATE pgring.move SET wanted = '{wanted}', error = NULL WHERE id = {id}"
    ))
    .await
}

/// Records a part of the progress: `column = expression, …`.
///
/// # Errors
/// [`MoveError`]
pub async fn note(side: &Side, id: i32, assignments: &str) -> Result<(), MoveError> {
    side.run(&note_sql(id, assignments)).await
}

/// SQL that records it.
pub fn note_sql(id: i32, assignments: &str) -> String {
    format!(
        "UPDATE pgring.move SET {assignments}, changed_at = pg_catalog.clock_timestamp() WHERE id = {id}"
    )
}

/// Where the target's log was when the slots became its own, as the flip recorded it.
///
/// # Errors
/// [`MoveError`]: there was no flip, too.
pub async fn returns_from(source: &Side, id: i32) -> Result<String, MoveError> {
    let sql = format!("SELECT returns_from::pg_catalog.text FROM pgring.move WHERE id = {id}");
    let from: Option<String> = source.value(&sql).await?;
    from.ok_or_else(|| MoveError::State(format!("move {id} has not recorded its flip")))
}

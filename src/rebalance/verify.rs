//! Compares the rows of moved slots on two shards, of which one follows the other by a stream. Knows nothing of how they were
//! copied: it asks for every row with its own words.
//!
//! Sums of hashes by slot come first. Where they differ, because of a write between the two questions or because of a row,
//! rows are compared by their identity; and a row that differs is locked where it is written, for the moment that the
//! other side needs to come level: then it is the same, or it is a difference.

use super::side::{MoveError, Side, ident, literal};
use super::stream::{self, Direction};
use super::table::MovedTable;
use super::want::Wants;
use crate::topology::slot::SlotSet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// How many different rows are named before the comparison is given up.
const NAMED_MAX: usize = 10;
/// How long the follower may take to come level while a row is compared.
const LEVEL_WAIT: Duration = Duration::from_secs(10);
/// How often a row that comes and goes is looked at.
const TRIES: u32 = 20;
/// Rows that one slot of one table may have: their identities are held in memory.
const ROWS_MAX: i64 = 4_000_000;

/// The two sides of a comparison.
pub struct Pair<'a> {
    /// The one that owns the slots.
    pub owner: &'a Side,
    /// A second connection to it: one holds a row while the other marks the stream.
    pub marking: &'a Side,
    /// The one that follows.
    pub follower: &'a Side,
    /// The stream between them.
    pub direction: Direction,
    /// Of the move.
    pub id: i32,
}

/// Compares every row of the slots.
///
/// # Errors
/// [`MoveError::Differs`] names rows that are not the same.
pub async fn verify(
    pair: &Pair<'_>,
    slots: &SlotSet,
    tables: &[MovedTable],
    wants: &mut Option<Wants>,
) -> Result<(), MoveError> {
    let mut named = Vec::new();
    for table in tables {
        pair.level().await?;
        let sql = sums(table, slots);
        let (owner, follower) =
            tokio::join!(read_sums(pair.owner, &sql), read_sums(pair.follower, &sql));
        let (owner, follower) = (owner?, follower?);
        let both: BTreeSet<i32> = owner.keys().chain(follower.keys()).copied().collect();
        for slot in both {
            if owner.get(&slot) == follower.get(&slot) {
                continue;
            }
            if let Some(wants) = wants {
                wants.go_on().await?;
            }
            compare_slot(pair, table, slot, &mut named).await?;
            if named.len() >= NAMED_MAX {
                named.push("and maybe more".to_owned());
                return Err(MoveError::Differs(named));
            }
        }
    }
    match named.is_empty() {
        true => Ok(()),
        false => Err(MoveError::Differs(named)),
    }
}

impl Pair<'_> {
    async fn level(&self) -> Result<(), MoveError> {
        stream::level(
            self.marking,
            self.follower,
            self.id,
            self.direction,
            LEVEL_WAIT,
        )
        .await?;
        Ok(())
    }
}

/// What a row is, in one number.
fn hash(table: &MovedTable) -> String {
    format!(
        "pg_catalog.hashtextextended(ROW({})::pg_catalog.text COLLATE \"C\", 0)",
        table.columns.join(", ")
    )
}

/// Slot, rows, and a sum that does not depend on their order.
fn sums(table: &MovedTable, slots: &SlotSet) -> String {
    format!(
        "SELECT {}, pg_catalog.count(*), pg_catalog.sum({}::pg_catalog.numeric)::pg_catalog.text FROM {} WHERE {} GROUP BY 1",
        table.slot(""),
        hash(table),
        table.from(),
        table.is_in(slots)
    )
}

async fn read_sums(side: &Side, sql: &str) -> Result<BTreeMap<i32, (i64, String)>, MoveError> {
    let rows = side.rows(sql).await?;
    rows.iter()
        .map(|row| {
            let read = || Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)));
            read().map_err(|error| side.refuse(error))
        })
        .collect()
}

/// The columns that tell rows apart: the replica identity where all leaves have the same one, else all.
fn identity(table: &MovedTable) -> Vec<String> {
    let first = table.leaves.first().map(|leaf| &leaf.identity);
    let same = |identity: &&Vec<String>| {
        !identity.is_empty()
            && table
                .leaves
                .iter()
                .all(|leaf| leaf.identity == **identity && !leaf.identity_is_full)
    };
    match first.filter(same) {
        Some(identity) => identity.iter().map(|column| ident(column)).collect(),
        None => table.columns.clone(),
    }
}

/// Identity → how many rows have it, and the sum of their hashes.
type Rows = HashMap<Vec<Option<String>>, (i64, String)>;

async fn read_rows(
    side: &Side,
    table: &MovedTable,
    slot: i32,
    condition: &str,
) -> Result<Rows, MoveError> {
    let columns = identity(table);
    let texts: Vec<String> = columns
        .iter()
        .map(|column| format!("{column}::pg_catalog.text"))
        .collect();
    let list = texts.join(", ");
    let places: Vec<String> = (1..=columns.len()).map(|place| place.to_string()).collect();
    let rows = side
        .rows(&format!(
            "SELECT {list}, pg_catalog.count(*), pg_catalog.sum({}::pg_catalog.numeric)::pg_catalog.text \
             FROM {} WHERE {} OPERATOR(pg_catalog.=) {slot}{condition} GROUP BY {} LIMIT {ROWS_MAX}",
            hash(table),
            table.from(),
            table.slot(""),
            places.join(", ")
        ))
        .await?;
    if rows.len() as i64 == ROWS_MAX {
        return Err(MoveError::State(format!(
            "slot {slot} of {} has {ROWS_MAX} rows or more, which is too many to compare",
            table.name
        )));
    }
    let width = columns.len();
    rows.iter()
        .map(|row| {
            let read = || {
                let identity: Result<Vec<Option<String>>, _> =
                    (0..width).map(|column| row.try_get(column)).collect();
                Ok((identity?, (row.try_get(width)?, row.try_get(width + 1)?)))
            };
            read().map_err(|error| side.refuse(error))
        })
        .collect()
}

async fn compare_slot(
    pair: &Pair<'_>,
    table: &MovedTable,
    slot: i32,
    named: &mut Vec<String>,
) -> Result<(), MoveError> {
    pair.level().await?;
    let (owner, follower) = tokio::join!(
        read_rows(pair.owner, table, slot, ""),
        read_rows(pair.follower, table, slot, "")
    );
    let (owner, follower) = (owner?, follower?);
    let both: BTreeSet<&Vec<Option<String>>> = owner.keys().chain(follower.keys()).collect();
    for identity in both {
        if owner.get(identity) == follower.get(identity) {
            continue;
        }
        if let Some(difference) = compare_row(pair, table, slot, identity).await? {
            named.push(difference);
            if named.len() >= NAMED_MAX {
                break;
            }
        }
    }
    Ok(())
}

/// What is different about a row, or about the rows that have this identity, if it is.
async fn compare_row(
    pair: &Pair<'_>,
    table: &MovedTable,
    slot: i32,
    key: &[Option<String>],
) -> Result<Option<String>, MoveError> {
    let columns = identity(table);
    let mut condition = String::new();
    for (column, value) in columns.iter().zip(key) {
        // By the text where the type may have no equality.
        let is_key = columns.len() < table.columns.len();
        let part = match value {
            None => format!(" AND {column} IS NULL"),
            Some(value) if is_key => format!(" AND {column} = {}", literal(value)),
            Some(value) => format!(" AND {column}::pg_catalog.text = {}", literal(value)),
        };
        condition.push_str(&part);
    }
    let lock = format!(
        "SELECT 1 FROM {} WHERE {} OPERATOR(pg_catalog.=) {slot}{condition} FOR SHARE",
        table.from(),
        table.slot("")
    );
    for _ in 0..TRIES {
        pair.owner.run("BEGIN").await?;
        let compared = async {
            pair.owner.rows(&lock).await?;
            let owner = read_rows(pair.owner, table, slot, &condition).await?;
            pair.level().await?;
            let follower = read_rows(pair.follower, table, slot, &condition).await?;
            // What is not there cannot be locked.
            let again = read_rows(pair.owner, table, slot, &condition).await?;
            Ok::<_, MoveError>((owner == again, owner, follower))
        };
        let compared = compared.await;
        pair.owner.run("ROLLBACK").await?;
        match compared? {
            (_, owner, follower) if owner == follower => return Ok(None),
            (true, owner, follower) => {
                let count = |rows: &Rows| rows.values().map(|(count, _)| count).sum::<i64>();
                let what = match (count(&owner), count(&follower)) {
                    (owner, 0) if owner > 0 => {
                        format!("is missing on shard {}", pair.follower.name)
                    }
                    (0, _) => format!("is on shard {} only", pair.follower.name),
                    (owner, follower) if owner == follower => "is different".to_owned(),
                    (owner, follower) => format!("is there {owner} and {follower} times"),
                };
                let key: Vec<String> = columns
                    .iter()
                    .zip(key)
                    .map(|(column, value)| {
                        let column = column.trim_matches('"');
                        format!("{column} = {}", value.as_deref().unwrap_or("NULL"))
                    })
                    .collect();
                return Ok(Some(format!("{}: {} {what}", table.name, key.join(", "))));
            }
            (false, ..) => {}
        }
    }
    Err(MoveError::State(format!(
        "a row of {} in slot {slot} comes and goes too often to be compared",
        table.name
    )))
}

//! Triggers that refuse writes of rows in moved slots where they must not be, whoever writes and however stale that writer's
//! view is: the last line behind the fence.
//!
//! A trigger cannot trust what it reads of a table: in a transaction with an old snapshot that is old. So what it does is
//! its function's own text, which PostgreSQL looks up anew at each command, and a shared advisory lock, which needs no
//! snapshot. A *watching* guard takes the lock for its transaction; a *refusing* one raises. Closing slots is: refuse, then
//! take the lock exclusively, which waits for whoever wrote before, prepared transactions included.

use super::side::{MoveError, Side, ident};
use super::table::MovedTable;
use crate::topology::hash;
use crate::topology::slot::SlotSet;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

/// First half of the advisory locks of writers of moved slots; the other is the move's id. The bytes of "pggd".
pub const LOCK_CLASS: i32 = 0x7067_6764;
/// How long CREATE TRIGGER may hold up others at a time while it waits for writers of its table.
const TRY: Duration = Duration::from_millis(100);
/// Between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(400);

/// What a guard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Lets writes through and marks their transactions.
    Watching,
    /// Refuses them.
    Refusing,
}

/// The function for a table: the same name whatever other tables there are.
fn function(id: i32, table: &MovedTable) -> String {
    let number = hash::hash_bytes(table.name.as_bytes(), hash::SEED);
    format!("pgring.guard_{id}_{number:x}")
}

/// SQL that makes, or changes, what the guards of a move do on one shard.
pub fn functions(id: i32, slots: &SlotSet, tables: &[MovedTable], guard: Guard) -> String {
    let mut sql = String::new();
    for table in tables {
        let function = function(id, table);
        let condition = match guard {
            Guard::Watching => {
                format!(" AND NOT pg_catalog.pg_try_advisory_xact_lock_shared({LOCK_CLASS}, {id})")
            }
            Guard::Refusing => String::new(),
        };
        let check = |row: &str| {
            let slot = table.slot(row);
            format!(
                "IF {slot} OPERATOR(pg_catalog.<@) '{slots}'::pg_catalog.int4multirange{condition} THEN \
                 RAISE EXCEPTION 'slot % is being moved to or from this shard', {slot} \
                 USING ERRCODE = '40001', DETAIL = 'pgring: move {id} guards the slot', HINT = 'Try the transaction again.'; \
                 END IF;"
            )
        };
        let (new, old) = (check("NEW."), check("OLD."));
        let _ = write!(
            sql,
            "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $guard$ BEGIN \
             IF TG_OP OPERATOR(pg_catalog.<>) 'DELETE' THEN {new} END IF; \
             IF TG_OP OPERATOR(pg_catalog.<>) 'INSERT' THEN {old} END IF; \
             IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $guard$;"
        );
    }
    sql
}

/// SQL of the function that keeps a moved table from being truncated, which no stream of a part of its rows can tell.
fn truncate_function(id: i32) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION pgring.guard_truncate_{id}() RETURNS trigger LANGUAGE plpgsql AS $guard$ BEGIN \
         RAISE EXCEPTION 'table % cannot be truncated while slots of it are moved', TG_TABLE_NAME \
         USING ERRCODE = '55006', HINT = 'Complete, roll back or cancel move {id} first, or use DELETE.'; END $guard$;"
    )
}

/// Fires after all other BEFORE triggers, which may change the row: PostgreSQL goes by their names.
fn trigger(id: i32) -> String {
    ident(&format!("~pgring_{id}"))
}

/// Makes the guards of a move on one shard. When this returns, every transaction that writes these slots has met them.
///
/// # Errors
/// [`MoveError`]
pub async fn install(
    side: &Side,
    id: i32,
    slots: &SlotSet,
    tables: &[MovedTable],
    guard: Guard,
    patience: Duration,
) -> Result<(), MoveError> {
    side.run(&functions(id, slots, tables, guard)).await?;
    side.run(&truncate_function(id)).await?;
    let name = trigger(id);
    for table in tables {
        let function = function(id, table);
        let target = &table.name;
        let there: bool = side
            .value(&format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = {}::pg_catalog.regclass AND tgname = '~pgring_{id}')",
                super::side::literal(target)
            ))
            .await?;
        if there {
            continue;
        }
        let truncate = ident(&format!("~pgring_truncate_{id}"));
        // A partition may be emptied by its own name.
        let mut targets: BTreeSet<&str> =
            table.leaves.iter().map(|leaf| leaf.name.as_str()).collect();
        targets.insert(target);
        let truncates: String = targets
            .into_iter()
            .map(|target| {
                format!(
                    "; CREATE TRIGGER {truncate} BEFORE TRUNCATE ON {target} \
                     FOR EACH STATEMENT EXECUTE FUNCTION pgring.guard_truncate_{id}()"
                )
            })
            .collect();
        patiently(
            side,
            patience,
            &format!("table {target} is written by a transaction that"),
            &format!(
                "CREATE TRIGGER {name} BEFORE INSERT OR UPDATE OR DELETE ON {target} \
                 FOR EACH ROW EXECUTE FUNCTION {function}(){truncates}"
            ),
        )
        .await?;
    }
    Ok(())
}

/// Takes the guards of a move off one shard.
///
/// # Errors
/// [`MoveError`]
pub async fn remove(side: &Side, id: i32, patience: Duration) -> Result<(), MoveError> {
    let functions = side
        .rows(&format!(
            "SELECT p.proname::pg_catalog.text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
             WHERE n.nspname = 'pgring' AND p.proname ~ '^guard_(truncate_)?{id}(_[0-9a-f]+)?$'"
        ))
        .await?;
    for row in functions {
        let function: &str = row.try_get(0).map_err(|error| side.refuse(error))?;
        // Each takes its triggers along, one or two.
        patiently(
            side,
            patience,
            "a table is used by a transaction that",
            &format!("DROP FUNCTION IF EXISTS pgring.{function}() CASCADE"),
        )
        .await?;
    }
    Ok(())
}

/// DDL that must not make others queue behind it for long: its wait is short and repeated.
async fn patiently(
    side: &Side,
    patience: Duration,
    what: &str,
    sql: &str,
) -> Result<(), MoveError> {
    let deadline = Instant::now() + patience;
    loop {
        let tried = side
            .client
            .batch_execute(&format!(
                "BEGIN; SET LOCAL lock_timeout = {}; {sql}; COMMIT",
                TRY.as_millis()
            ))
            .await;
        let Err(error) = tried else {
            return Ok(());
        };
        side.run("ROLLBACK").await?;
        if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(side.refuse(error));
        }
        if Instant::now() > deadline {
            return Err(MoveError::TimedOut {
                what: what.to_owned(),
                after: patience,
            });
        }
        tokio::time::sleep(TRY_PAUSE).await;
    }
}

/// Refuses every further write of the slots, waits until whoever wrote before has ended, and then runs `last`, all in one
/// message: gives the first column of the last row. Held until [`open`], or until the connection ends; the refusal stays.
///
/// # Errors
/// [`MoveError::Late`]: not within what is `left` of the budget; the guards refuse then.
pub async fn close(
    side: &Side,
    id: i32,
    slots: &SlotSet,
    tables: &[MovedTable],
    (budget, left): (Duration, Duration),
    last: &str,
) -> Result<Option<String>, MoveError> {
    let milliseconds = left.as_millis().max(1);
    // What of the log the guards are in is on disk before what `last` writes is, and that before any flip.
    let ran = side
        .client
        .simple_query(&format!(
            "BEGIN; SET LOCAL synchronous_commit = 'off'; {} COMMIT; \
             BEGIN; SET LOCAL lock_timeout = {milliseconds}; SELECT pg_catalog.pg_advisory_lock({LOCK_CLASS}, {id}); COMMIT; {last}",
            functions(id, slots, tables, Guard::Refusing)
        ))
        .await;
    let error = match ran {
        Ok(messages) => {
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
                _ => None,
            });
            return Ok(rows.last().flatten());
        }
        Err(error) => error,
    };
    side.run("ROLLBACK").await?;
    match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => Err(MoveError::Late {
            budget,
            what: "a transaction that writes the slots did not end".to_owned(),
        }),
        _ => Err(side.refuse(error)),
    }
}

/// Lets go of the lock that [`close`] took, if it did.
///
/// # Errors
/// [`MoveError`]
pub async fn open(side: &Side, id: i32) -> Result<(), MoveError> {
    side.run(&format!(
        "SELECT pg_catalog.pg_advisory_unlock({LOCK_CLASS}, {id}) FROM pg_catalog.pg_locks \
         WHERE locktype = 'advisory' AND classid::pg_catalog.int8 = {LOCK_CLASS} AND objid::pg_catalog.int8 = {id} AND objsubid = 2 \
           AND mode = 'ExclusiveLock' AND granted AND pid = pg_catalog.pg_backend_pid()"
    ))
    .await
}

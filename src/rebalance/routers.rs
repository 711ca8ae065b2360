//! Waiting until every router knows what a shard owns now and nothing that it planned before runs there any more.
//!
//! A router that has a shard's ownership holds an advisory lock there for as long as it listens, and writes to
//! `pgring.acknowledgement` after each change. One that stays silent is cut off: its connections are terminated, and
//! whatever connects again reads the ownership first.

use super::side::{MoveError, Side};
use crate::backend::registration::LOCK_CLASS;
use crate::backend::store;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// A router that has not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its id.
    pub router: i64,
    /// The backend that registers it.
    pub pid: i32,
}

/// What is done about a router that is silent at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The wait is given up.
    GivesUp,
    /// It is cut off.
    CutsOff,
}

/// What the shard's ownership is at now.
///
/// # Errors
/// [`MoveError`]
pub async fn epoch(side: &Side) -> Result<i64, MoveError> {
    side.value("SELECT epoch FROM pgring.ownership").await
}

/// The routers that listen to the shard.
///
/// # Errors
/// [`MoveError`]
pub async fn registered(side: &Side) -> Result<Vec<i64>, MoveError> {
    let waiting = waiting(side, i64::MAX).await?;
    Ok(waiting.into_iter().map(|waiting| waiting.router).collect())
}

/// The routers that have not acknowledged `epoch`.
async fn waiting(side: &Side, epoch: i64) -> Result<Vec<Waiting>, MoveError> {
    let rows = side
        .rows(&format!(
            "SELECT l.objid::pg_catalog.int8, l.pid FROM pg_catalog.pg_locks l \
             LEFT JOIN pgring.acknowledgement a ON a.router::pg_catalog.int8 = l.objid::pg_catalog.int8 AND a.epoch >= {epoch} \
             WHERE l.locktype = 'advisory' AND l.classid::pg_catalog.int8 = {LOCK_CLASS} AND l.objsubid = 2 AND l.granted \
               AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
               AND a.router IS NULL"
        ))
        .await?;
    rows.iter()
        .map(|row| {
            let read = || {
                Ok(Waiting {
                    router: row.try_get(0)?,
                    pid: row.try_get(1)?,
                })
            };
            read().map_err(|error| side.refuse(error))
        })
        .collect()
}

/// Returns when every router that listens to the shard has acknowledged `epoch`, or was cut off.
///
/// # Errors
/// [`MoveError::TimedOut`] where silence gives up.
pub async fn acknowledged(
    side: &Side,
    epoch: i64,
    limit: Duration,
    silence: Silence,
) -> Result<(), MoveError> {
    let started = Instant::now();
    let changed: String = side
        .value("SELECT pg_catalog.clock_timestamp()::pg_catalog.text")
        .await?;
    loop {
        let silent = waiting(side, epoch).await?;
        if silent.is_empty() {
            return Ok(());
        }
        if started.elapsed() >= limit {
            if silence == Silence::GivesUp {
                return Err(MoveError::TimedOut {
                    what: format!(
                        "the acknowledgement of router {} on shard {}",
                        silent[0].router, side.name
                    ),
                    after: limit,
                });
            }
            return cut_off(side, &silent, &changed).await;
        }
        sleep(PAUSE).await;
    }
}

/// Terminates what silent routers may have on the shard: nobody says which backends are whose, so every client backend that
/// no router answers for, but not the control plane's and not those that came after the change and so have read it.
async fn cut_off(side: &Side, silent: &[Waiting], changed: &str) -> Result<(), MoveError> {
    let routers: Vec<String> = silent
        .iter()
        .map(|waiting| waiting.router.to_string())
        .collect();
    let pids: Vec<String> = silent
        .iter()
        .map(|waiting| waiting.pid.to_string())
        .collect();
    let (routers, pids) = (routers.join(", "), pids.join(", "));
    tracing::warn!(shard = %side.name, routers, "routers that do not acknowledge are cut off");
    side.run(&format!(
        "SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity \
         WHERE datname = pg_catalog.current_database() AND backend_type = 'client backend' AND backend_start < '{changed}' \
           AND pid <> pg_catalog.pg_backend_pid() \
           AND (pid IN ({pids}) OR application_name IS DISTINCT FROM '{}' AND NOT EXISTS ( \
             SELECT FROM pgring.acknowledgement a WHERE pid = ANY (a.pids) AND a.router NOT IN ({routers})))",
        store::APPLICATION_NAME
    ))
    .await
}

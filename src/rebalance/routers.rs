//! Waiting until every router knows what a shard owns now and nothing that it planned before runs there any more.
//!
//! A router that has a shard's ownership holds an advisory lock there for as long as it listens, and writes to
//! `pgring.acknowledgement` after each change: at once that it has heard of it, and when that is so that nothing it planned
//! before runs there any more. One that is silent is cut off: its connections are terminated, and whatever connects again
//! reads the ownership first. One that has heard is waited for.

use super::side::{MoveError, Side};
use crate::backend::registration::{self, Silent};
use crate::backend::store;
use crate::topology::Epoch;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two looks at what was acknowledged.
const PAUSE: Duration = Duration::from_millis(1);
/// How long what is terminated may take to end.
const CUT_WAIT: Duration = Duration::from_secs(60);
/// Between two looks at who is registered, for which PostgreSQL holds up whoever locks something.
const LOCKS_PAUSE: Duration = Duration::from_millis(25);

/// What the shard's ownership is at now.
///
/// # Errors
/// [`MoveError`]
pub async fn epoch(side: &Side) -> Result<i64, MoveError> {
    side.value("SELECT epoch FROM pgring.ownership").await
}

/// Asks every router for a word: a new epoch, which each reads.
///
/// # Errors
/// [`MoveError`]
pub async fn rouse(side: &Side) -> Result<i64, MoveError> {
    side.value("UPDATE pgring.ownership SET epoch = epoch + 1 RETURNING epoch")
        .await
}

/// The routers that listen to the shard.
///
/// # Errors
/// [`MoveError`]
pub async fn registered(side: &Side) -> Result<Vec<i64>, MoveError> {
    let silent = silent(side, i64::MAX).await?;
    Ok(silent.iter().map(|silent| silent.router.into()).collect())
}

async fn silent(side: &Side, epoch: i64) -> Result<Vec<Silent>, MoveError> {
    let silent = registration::silent(&side.client, Epoch(epoch.unsigned_abs())).await;
    silent.map_err(|error| side.refuse(error))
}

/// Returns when every router that listens to the shard has acknowledged `epoch`.
///
/// # Errors
/// [`MoveError::TimedOut`]
pub async fn acknowledged(side: &Side, epoch: i64, limit: Duration) -> Result<(), MoveError> {
    let started = Instant::now();
    loop {
        // Who registers after the change has read it first, so that these are all.
        let waited_for = silent(side, epoch).await?;
        let Some(first) = waited_for.first() else {
            return Ok(());
        };
        if started.elapsed() >= limit {
            return Err(MoveError::TimedOut {
                what: format!(
                    "the acknowledgement of router {} on shard {}",
                    first.router, side.name
                ),
                after: limit,
            });
        }
        let routers = list(waited_for.iter().map(|silent| silent.router));
        let sql = format!(
            "SELECT count(*) FROM pgring.acknowledgement WHERE router IN ({routers}) AND epoch >= {epoch}"
        );
        let looked = Instant::now();
        while looked.elapsed() < LOCKS_PAUSE.min(limit.saturating_sub(started.elapsed())) {
            sleep(PAUSE).await;
            if side.value::<i64>(&sql).await? == waited_for.len() as i64 {
                return Ok(());
            }
        }
    }
}

/// Returns when every router that listens to the shard knows of `epoch`; those that do not after `limit` are cut off.
///
/// # Errors
/// [`MoveError`]
pub async fn heard(side: &Side, epoch: i64, limit: Duration) -> Result<(), MoveError> {
    let started = Instant::now();
    loop {
        let mut deaf = silent(side, epoch).await?;
        deaf.retain(|silent| !silent.has_heard);
        if deaf.is_empty() {
            return Ok(());
        }
        if started.elapsed() >= limit + CUT_WAIT {
            return Err(MoveError::TimedOut {
                what: format!("cutting router {} off shard {}", deaf[0].router, side.name),
                after: CUT_WAIT,
            });
        }
        if started.elapsed() >= limit {
            cut_off(side, epoch, &deaf).await?;
        }
        sleep(LOCKS_PAUSE).await;
    }
}

/// Returns when nothing runs on the shard that a router planned before now. A router that does not say a word within
/// `silence` is cut off; one that does is waited for.
///
/// # Errors
/// [`MoveError::TimedOut`]: not within `limit`.
pub async fn settled(side: &Side, silence: Duration, limit: Duration) -> Result<(), MoveError> {
    let started = Instant::now();
    let mut pause = silence;
    loop {
        let epoch = rouse(side).await?;
        heard(side, epoch, silence).await?;
        match acknowledged(side, epoch, pause).await {
            Err(MoveError::TimedOut { .. }) if started.elapsed() < limit => {}
            done => return done,
        }
        // It may have stopped since it was heard of.
        pause *= 2;
    }
}

fn list(numbers: impl Iterator<Item = i32>) -> String {
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    numbers.join(", ")
}

/// Terminates what silent routers may have on the shard: nobody says which backends are whose, so every client backend that
/// no router answers for, but not the control plane's and not those that came after a router had read the change.
async fn cut_off(side: &Side, epoch: i64, silent: &[Silent]) -> Result<(), MoveError> {
    let routers = list(silent.iter().map(|silent| silent.router));
    let pids = list(silent.iter().map(|silent| silent.process));
    tracing::warn!(shard = %side.name, routers, "routers that do not hear of a change are cut off");
    side.run(&format!(
        "SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity \
         WHERE datname = pg_catalog.current_database() AND backend_type = 'client backend' \
           AND pid <> pg_catalog.pg_backend_pid() \
           AND (pid IN ({pids}) OR application_name IS DISTINCT FROM '{}' \
             AND backend_start < (SELECT coalesce(min(a.at), pg_catalog.now()) FROM pgring.acknowledgement a \
               WHERE a.heard >= {epoch} AND a.router NOT IN ({routers})) \
             AND NOT EXISTS (SELECT FROM pgring.acknowledgement a WHERE pid = ANY (a.pids) AND a.router NOT IN ({routers})))",
        store::APPLICATION_NAME
    ))
    .await
}

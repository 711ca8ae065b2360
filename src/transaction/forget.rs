//! When a decision is no longer needed, its row goes from `pgring.decision`: once each part is finished on the shard that
//! prepared it and on every standby that may take that shard's place, since one that comes up without COMMIT PREPARED has
//! the part prepared again, and asks.
//!
//! What is committed by the time of a snapshot, and has no part prepared when all shards are asked after that, is
//! finished; when the standbys have the log up to then, it may be forgotten. A server that crashed or was replaced
//! meanwhile gives its transaction ids, and places in its log, another meaning: then all begins again.

use super::recovery::{Listed, ask_shard};
use crate::backend::control::Control;
use crate::topology::ShardId;
use futures_util::future::join_all;
use std::collections::HashMap;
use tokio_postgres::types::{ToSql, Type};

/// Changes when the server starts, also after the crash of one of its processes.
const INCARNATION: &str = "(SELECT backend_start::pg_catalog.text FROM pg_catalog.pg_stat_activity \
     WHERE backend_type = 'checkpointer')";

/// Whether the log up to a place is on each standby that is there.
const STANDBYS_HAVE: &str = "(SELECT coalesce(bool_and(coalesce(flush_lsn >= $1::pg_catalog.text::pg_catalog.pg_lsn, false)), true) \
     FROM pg_catalog.pg_stat_replication r WHERE state <> 'backup' AND NOT EXISTS \
       (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))";

/// What is forgotten next.
#[derive(Debug, Default)]
pub(super) struct Forgetting {
    /// What each shard that may have decided had committed then.
    snapshots: HashMap<ShardId, Moment>,
    /// Up to where the standbys of each shard that may have prepared need the log; None until the shards were asked.
    finished: Option<Finished>,
}

/// A snapshot, or a place in the log, of one server.
#[derive(Debug)]
struct Moment {
    text: String,
    incarnation: String,
}

#[derive(Debug)]
struct Finished {
    logs: HashMap<ShardId, Moment>,
    /// Transactions of deciders that had parts left, whoever of the deciders.
    unfinished: Vec<String>,
}

async fn moment(control: &Control, shard: ShardId, what: &str) -> Option<Moment> {
    let sql = format!("SELECT {what}::pg_catalog.text, {INCARNATION}");
    let rows = ask_shard(control, shard, &sql, &[]).await.ok()?;
    let row = rows.first()?;
    let (text, incarnation) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
    Some(Moment { text, incarnation })
}

async fn moments(
    control: &Control,
    shards: impl IntoIterator<Item = ShardId>,
    what: &str,
) -> HashMap<ShardId, Moment> {
    let asked = shards
        .into_iter()
        .map(|shard| async move { (shard, moment(control, shard, what).await) });
    let asked = join_all(asked).await.into_iter();
    asked
        .filter_map(|(shard, moment)| Some((shard, moment?)))
        .collect()
}

impl Forgetting {
    /// Before the shards are asked what is prepared.
    pub(super) async fn begin(&mut self, control: &Control) {
        if self.finished.is_none() {
            let topology = control.topology.load_full();
            let snapshot = "pg_catalog.pg_current_snapshot()";
            self.snapshots = moments(control, topology.shard_ids(), snapshot).await;
        }
    }

    /// After that.
    pub(super) async fn go_on(&mut self, control: &Control, listed: &Listed) {
        let finished = match self.finished.take() {
            Some(finished) => finished,
            None => {
                let place = "pg_catalog.pg_current_wal_insert_lsn()";
                let gids = listed.gids.iter();
                let mut logs = moments(control, listed.shards.iter().copied(), place).await;
                // What is prepared there was asked of the same server.
                logs.retain(|shard, log| {
                    let before = self.snapshots.get(shard);
                    before.is_some_and(|before| before.incarnation == log.incarnation)
                });
                Finished {
                    logs,
                    unfinished: gids.map(|gid| gid.xid.to_string()).collect(),
                }
            }
        };
        let logs = finished.logs.iter();
        let levels = logs.map(|(shard, log)| is_level(control, *shard, log));
        let levels: Result<Vec<bool>, Restarted> = join_all(levels).await.into_iter().collect();
        match levels {
            // Looked at again in the next round.
            Ok(levels) if levels.contains(&false) => self.finished = Some(finished),
            Ok(_) => self.forget(control, &finished).await,
            Err(Restarted) => {}
        }
    }

    async fn forget(&self, control: &Control, finished: &Finished) {
        let topology = control.topology.load_full();
        let shards = finished.logs.keys();
        let shards: Vec<&str> = shards.map(|shard| &**topology.shard_name(*shard)).collect();
        let sql = format!(
            "DELETE FROM pgring.decision \
             WHERE pg_catalog.pg_visible_in_snapshot(xid, $1::pg_catalog.text::pg_catalog.pg_snapshot) \
               AND others <@ $2::pg_catalog.text[] AND NOT xid = ANY ($3::pg_catalog.text[]::pg_catalog.xid8[]) \
               AND {INCARNATION} = $4"
        );
        let deciders = self.snapshots.iter();
        let deletes = deciders.map(|(shard, snapshot)| {
            let (sql, shards) = (&sql, &shards);
            async move {
                let arguments: [(&(dyn ToSql + Sync), Type); 4] = [
                    (&snapshot.text, Type::TEXT),
                    (shards, Type::TEXT_ARRAY),
                    (&finished.unfinished, Type::TEXT_ARRAY),
                    (&snapshot.incarnation, Type::TEXT),
                ];
                if let Err(error) = ask_shard(control, *shard, sql, &arguments).await {
                    tracing::debug!(%error, "decisions are not forgotten");
                }
            }
        });
        join_all(deletes).await;
    }
}

/// A server is not the one that it was, or cannot be asked.
struct Restarted;

/// Whether the shard's standbys have its log up to there.
async fn is_level(control: &Control, shard: ShardId, log: &Moment) -> Result<bool, Restarted> {
    let sql = format!("SELECT {STANDBYS_HAVE}, {INCARNATION}");
    let rows = ask_shard(control, shard, &sql, &[(&log.text, Type::TEXT)]).await;
    let rows = rows.map_err(|_| Restarted)?;
    let row = rows.first().ok_or(Restarted)?;
    let incarnation: String = row.try_get(1).map_err(|_| Restarted)?;
    if incarnation != log.incarnation {
        return Err(Restarted);
    }
    row.try_get(0).map_err(|_| Restarted)
}

//! [`leave`]: shards leave the cluster, since the map has them no more. They may when nothing lies there that is nowhere
//! else. From then on a shard's record says that it has not joined: nothing is read there by any router, and should it come
//! back, it is given the rows of reference tables anew before it is read again.

use super::mover;
use super::request::Alone;
use super::routers;
use super::side::{MoveError, Side};
use super::table;
use crate::backend::control::Control;
use crate::backend::init::LOCK_KEY;
use crate::backend::store::{self, StoreError};
use crate::topology::ShardId;
use crate::transaction::recovery;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long all of it may take.
const WAIT: Duration = Duration::from_secs(60);
/// How long routers may take to read nothing there any more.
const ROUTERS_WAIT: Duration = Duration::from_secs(30);
/// Parts of transactions that are prepared for longer wait for something.
const PREPARED_MAX: Duration = Duration::from_secs(5);

/// As long as it lives nobody begins moves, and nobody lets the shards join again.
pub struct Leaving {
    _alone: Alone,
    /// Hold the locks of [`crate::backend::init`].
    _sides: Vec<Side>,
}

/// Lets shards leave, or says why one has to stay.
///
/// # Errors
/// [`MoveError`]: why it stays, too. It may have become one that nothing is read from.
pub async fn leave(control: &Arc<Control>, shards: &[ShardId]) -> Result<Leaving, MoveError> {
    let left = timeout(WAIT, async {
        let alone = Alone::become_so(control).await?;
        control.refresh_schema().await?;
        let mut sides = Vec::new();
        for shard in shards {
            sides.push(leave_one(control, *shard).await?);
        }
        Ok(Leaving {
            _alone: alone,
            _sides: sides,
        })
    });
    left.await.unwrap_or_else(|_| {
        Err(MoveError::TimedOut {
            what: "asking the shards whether one can be removed".to_owned(),
            after: WAIT,
        })
    })
}

async fn leave_one(control: &Arc<Control>, shard: ShardId) -> Result<Side, MoveError> {
    let stays = |reason: String| Err(MoveError::State(reason));
    let topology = control.topology.load_full();
    let name = topology.shard_name(shard).clone();
    let moves = mover::moves(control).await?;
    let touches = moves
        .iter()
        .filter(|record| !record.phase.is_over())
        .find(|record| record.source == name || record.target == name);
    if let Some(record) = touches {
        return stays(format!(
            "move {} from {} to {} is under way: complete, roll back or cancel it first",
            record.id, record.source, record.target
        ));
    }
    let side = Side::connect(control, shard).await?;
    let lock = format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK_KEY})");
    if !side.value::<bool>(&lock).await? {
        return stays(format!("pgring init is at work on shard {name}"));
    }
    let ownership = match store::status(&side.client).await {
        Ok(status) => status.ownership,
        // Nobody gave it a place.
        Err(StoreError::Missing) => return Ok(side),
        Err(error) => return stays(format!("shard {name}: {error}")),
    };
    let is_ours = control
        .cluster_id()
        .is_some_and(|id| id == ownership.cluster_id);
    if !is_ours || ownership.shard != name {
        // The map names a database that is another's.
        return Ok(side);
    }
    if !ownership.owned.is_empty() {
        return stays(format!(
            "shard {name} owns slots {}: DRAIN SHARD and REBALANCE move them",
            ownership.owned.brief()
        ));
    }
    if !ownership.foreign_slots.is_empty() {
        return stays(format!(
            "rows of slots {} may lie on shard {name}",
            ownership.foreign_slots.brief()
        ));
    }
    for table in table::describe(&side, &topology.schema).await? {
        let sql = format!("SELECT EXISTS (SELECT FROM {})", table.from());
        if side.value::<bool>(&sql).await? {
            let table = table.name;
            return stays(format!(
                "the sharded table {table} has rows on shard {name}, which owns none of them"
            ));
        }
    }
    if !ownership.joining {
        side.run(
            "UPDATE pgring.ownership SET joining = true, epoch = epoch + 1 \
             WHERE isempty(owned) AND isempty(foreign_slots) AND NOT joining",
        )
        .await?;
    }
    let epoch = routers::epoch(&side).await?;
    routers::acknowledged(&side, epoch, ROUTERS_WAIT).await?;
    // By now no transaction began there that has to be answered for.
    for other in topology.shard_ids() {
        for part in recovery::prepared(control, other).await? {
            let concerns = other == shard || part.decider.as_ref() == Some(&name);
            if concerns && part.age > PREPARED_MAX {
                return stays(format!(
                    "transaction {} is prepared on shard {} since {} s: RECOVER TRANSACTIONS settles it",
                    part.gid,
                    topology.shard_name(other),
                    part.age.as_secs()
                ));
            }
        }
    }
    Ok(side)
}

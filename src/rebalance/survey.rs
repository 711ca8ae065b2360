//! Asks the shards for what a plan is made of. Changes nothing: what it tries, it rolls back. Start at [`plan`].

use super::move_plan::{self, Facts, MovePlan};
use super::record;
use super::routers;
use super::side::{MoveError, Side, declared, literal};
use super::stream;
use super::table;
use crate::backend::control::Control;
use crate::topology::ring::{self, Member};
use crate::topology::shard_map;
use crate::topology::snapshot::Topology;
use crate::topology::{ShardId, ownership};
use futures_util::future::try_join_all;
use std::sync::Arc;

const FACTS: &str = "
    SELECT current_setting('server_version_num')::int4, current_setting('wal_level'),
           current_setting('max_replication_slots')::int4 - (SELECT count(*)::int4 FROM pg_replication_slots),
           current_setting('max_wal_senders')::int4 - (SELECT count(*)::int4 FROM pg_stat_replication),
           current_setting('max_logical_replication_workers')::int4
             - (SELECT count(*)::int4 FROM pg_stat_activity WHERE backend_type = 'logical replication worker'),
           current_setting('max_prepared_transactions')::int4,
           (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
           (SELECT count(*)::int8 FROM (SELECT unnest(owned) FROM pgring.ownership) ranges(slots),
              generate_series(lower(slots), upper(slots) - 1))";

/// What a rebalance would do now.
///
/// # Errors
/// [`MoveError`]: a shard does not answer, or the shard map cannot be followed.
pub async fn plan(control: &Arc<Control>) -> Result<MovePlan, MoveError> {
    control.refresh_schema().await?;
    let topology = control.topology.load_full();
    let sides = try_join_all(
        topology
            .shard_ids()
            .map(|shard| Side::connect(control, shard)),
    )
    .await?;
    let mut records = Vec::new();
    for side in &sides {
        records.push(read_ownership(side).await?);
    }
    let records: Vec<_> = records.iter().map(Some).collect();
    let names: Vec<Arc<str>> = sides.iter().map(|side| side.name.clone()).collect();
    if let Some(problem) = ownership::problems(&names, &records).into_iter().next() {
        return Err(MoveError::State(problem.to_string()));
    }
    let owners = ownership::owners(&records);
    let proposed = propose(control, &topology, &owners)?;
    let (mut moves, _) = move_plan::moves(owners.iter(), &proposed);
    let mut facts = try_join_all(sides.iter().map(|side| ask(side, &topology))).await?;
    for planned in &mut moves {
        move_plan::estimate(planned, &facts[usize::from(planned.source.0)]);
        for (here, there) in [
            (planned.source, planned.target),
            (planned.target, planned.source),
        ] {
            let other = names[usize::from(there.0)].clone();
            let refused = reach(control, &sides[usize::from(here.0)], &other).await?;
            let facts = &mut facts[usize::from(here.0)];
            if let Some(reason) = refused
                && !facts.unreachable.iter().any(|(known, _)| *known == other)
            {
                facts.unreachable.push((other, reason));
            }
        }
    }
    let blockers = move_plan::blockers(&moves, &names, &facts);
    Ok(MovePlan { moves, blockers })
}

async fn read_ownership(side: &Side) -> Result<ownership::OwnershipRecord, MoveError> {
    let status = crate::backend::store::status(&side.client).await;
    let status =
        status.map_err(|error| MoveError::State(format!("shard {}: {error}", side.name)))?;
    Ok(status.ownership)
}

/// Who should own each slot, by the shard map.
fn propose(
    control: &Control,
    topology: &Topology,
    owners: &ownership::Owners,
) -> Result<Box<[ShardId]>, MoveError> {
    use crate::topology::snapshot::SlotOwner;
    let config = control.config();
    // One that the map has no more is to be emptied.
    let weight = |name: &str| declared(&config, name).map_or(0, |shard| shard.weight);
    let names: Vec<Arc<str>> = topology
        .shard_ids()
        .map(|shard| topology.shard_name(shard).clone())
        .collect();
    let members: Vec<Member> = names
        .iter()
        .map(|name| Member {
            name: name.clone(),
            weight: weight(name),
        })
        .collect();
    let (pins, errors) = shard_map::pinned_slots(&config.pins, &topology.schema, &names);
    if let Some(error) = errors.into_iter().next() {
        return Err(MoveError::State(error.to_string()));
    }
    let current: Vec<Option<ShardId>> = owners
        .iter()
        .map(|(_, owner)| match owner {
            SlotOwner::Shard(shard) | SlotOwner::Fenced(shard) => Some(shard),
            SlotOwner::Gap | SlotOwner::Overlap(..) => None,
        })
        .collect();
    let proposed = ring::propose(&members, config.ring.virtual_nodes, &current, &pins);
    proposed.map_err(|error| MoveError::State(error.to_string()))
}

async fn ask(side: &Side, topology: &Topology) -> Result<Facts, MoveError> {
    let rows = side.rows(FACTS).await?;
    let Some(row) = rows.first() else {
        return Err(MoveError::State(format!(
            "shard {} answered without a row",
            side.name
        )));
    };
    let refuse = |error| side.refuse(error);
    let moves = record::read_all(&side.client, &side.name).await?;
    Ok(Facts {
        version: row.try_get(0).map_err(refuse)?,
        wal_level: row.try_get(1).map_err(refuse)?,
        slots_free: row.try_get(2).map_err(refuse)?,
        senders_free: row.try_get(3).map_err(refuse)?,
        workers_free: row.try_get(4).map_err(refuse)?,
        prepared_transactions_max: row.try_get(5).map_err(refuse)?,
        is_superuser: row.try_get(6).map_err(refuse)?,
        routers: routers::registered(side).await?,
        tables: table::describe(side, &topology.schema).await?,
        owned: usize::try_from(row.try_get::<_, i64>(7).map_err(refuse)?).unwrap_or_default(),
        moves: moves
            .iter()
            .filter(|open| !open.phase.is_over())
            .map(|open| format!("move {} to shard {} ({})", open.id, open.target, open.phase))
            .collect(),
        unreachable: Vec::new(),
    })
}

/// Why one shard's server cannot connect to another's, if it cannot: it is made to try.
async fn reach(control: &Control, from: &Side, to: &str) -> Result<Option<String>, MoveError> {
    let config = control.config();
    let connection = stream::connection_string(&config, declared(&config, to)?);
    let tried = from
        .client
        .batch_execute(&format!(
            "BEGIN; CREATE SUBSCRIPTION pgring_reach CONNECTION {} PUBLICATION pgring_reach \
             WITH (create_slot = false, slot_name = NONE, enabled = false, copy_data = false)",
            literal(&connection)
        ))
        .await;
    from.run("ROLLBACK").await?;
    match tried {
        Ok(()) => Ok(None),
        Err(error) if error.as_db_error().is_some() => {
            Ok(Some(crate::backend::store::reason(&error)))
        }
        Err(error) => Err(from.refuse(error)),
    }
}

//! Asks the shards for what a plan is made of. Changes nothing: what it tries, it rolls back. Start at [`plan`].

use super::move_plan::{self, Facts, MovePlan};
use super::record;
use super::routers;
use super::side::{MoveError, Side, declared, literal};
use super::stream;
use super::table;
use crate::backend::control::Control;
use crate::topology::proposal::Proposal;
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
    let taking_part = topology.shard_ids().map(|id| Side::connect(control, id));
    let sides: Vec<Side> = try_join_all(taking_part).await?;
    // By ShardId, as all that follows.
    let mut records = vec![None; topology.shards.len()];
    for side in &sides {
        records[usize::from(side.shard.0)] = Some(read_ownership(side).await?);
    }
    let joining: Vec<bool> = records
        .iter()
        .map(|record| record.as_ref().is_some_and(|record| record.joining))
        .collect();
    let records: Vec<_> = records.iter().map(Option::as_ref).collect();
    let shards = topology.shards.iter();
    let names: Vec<Arc<str>> = shards.map(|shard| shard.name.clone()).collect();
    if let Some(problem) = ownership::problems(&names, &records).into_iter().next() {
        return Err(MoveError::State(problem.to_string()));
    }
    let owners = ownership::owners(&records);
    let proposed = propose(control, &topology, &owners)?;
    let (mut moves, _) = move_plan::moves(owners.iter(), &proposed);
    let mut facts = vec![Facts::default(); names.len()];
    for (side, found) in sides
        .iter()
        .zip(try_join_all(sides.iter().map(|side| ask(side, &topology))).await?)
    {
        facts[usize::from(side.shard.0)] = Facts {
            is_joining: joining[usize::from(side.shard.0)],
            ..found
        };
    }
    let side = |shard: ShardId| {
        let found = sides.iter().find(|side| side.shard == shard);
        found.ok_or_else(|| {
            let name = topology.shard_name(shard);
            MoveError::State(format!(
                "shard {name} has no place in the cluster yet: run pgring init"
            ))
        })
    };
    for planned in &mut moves {
        move_plan::estimate(planned, &facts[usize::from(planned.source.0)]);
        for (here, there) in [
            (planned.source, planned.target),
            (planned.target, planned.source),
        ] {
            let other = side(there)?.name.clone();
            let refused = reach(control, side(here)?, &other).await?;
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
    let proposal = Proposal::new(&control.config(), topology, owners);
    if let Some(error) = proposal.pin_errors.into_iter().next() {
        return Err(MoveError::State(error.to_string()));
    }
    let owners = proposal.owners;
    owners.map_err(|error| MoveError::State(error.to_string()))
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
        is_joining: false,
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

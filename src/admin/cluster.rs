//! What the console shows of the cluster: shards, slots, and who owns what. As the router knows it, without asking a shard.

use super::AdminError;
use super::answer::{Answer, Cell, Row, row};
use super::map_change::TableName;
use crate::router::Router;
use crate::sql::search_path;
use crate::topology::key_value::{KeyType, KeyValue};
use crate::topology::proposal::Proposal;
use crate::topology::schema::{Placement, Relation, RelationKind, Schema};
use crate::topology::snapshot::{Membership, SlotOwner, Topology};
use crate::topology::{ShardId, SlotId, colocation, hash, shard_map};
use std::sync::Arc;

pub(super) fn shards(router: &Router) -> Vec<Row> {
    let topology = router.topology();
    let mut slots = vec![0usize; topology.shards.len()];
    for (_, owner) in topology.owners.iter() {
        if let SlotOwner::Shard(shard) | SlotOwner::Fenced(shard) = owner {
            slots[usize::from(shard.0)] += 1;
        }
    }
    let config = router.control.config();
    let health = router.control.health();
    let shards = (0..).map(ShardId).zip(&topology.shards);
    let rows = shards
        .zip(health)
        .zip(slots)
        .map(|(((id, shard), health), slots)| {
            let endpoint = router.control.endpoint(id);
            let nodes: Vec<String> = endpoint.nodes.iter().map(ToString::to_string).collect();
            let mut declared = config.shards.iter();
            let weight = declared.find(|declared| *declared.name == *shard.name);
            let state = match (shard.membership, health.reachable) {
                (Membership::Out, _) => "out",
                (Membership::Joining, _) => "joining",
                (Membership::Whole, true) => "up",
                (Membership::Whole, false) => "down",
            };
            row![
                &*shard.name,
                &*endpoint.database,
                nodes.join(","),
                weight.map(|declared| declared.weight),
                state,
                health
                    .server_version
                    .map(|version| version.text.to_string()),
                shard.epoch.0,
                slots,
                u8::from(router.pools.is_paused(id)),
                health.last_error.filter(|_| !health.reachable)
            ]
        });
    rows.collect()
}

pub(super) fn slots(router: &Router) -> Vec<Row> {
    let topology = router.topology();
    let mut ranges: Vec<(SlotId, SlotId, SlotOwner)> = Vec::new();
    for (slot, owner) in topology.owners.iter() {
        match ranges.last_mut() {
            Some((_, last, known)) if *known == owner => *last = slot,
            _ => ranges.push((slot, slot, owner)),
        }
    }
    ranges
        .into_iter()
        .map(|(first, last, owner)| {
            let (shard, state) = owner_in_words(&topology, owner);
            row![first.0, last.0, last.0 - first.0 + 1, shard, state]
        })
        .collect()
}

/// The shards that claim a slot, and what that means for it.
pub(super) fn owner_in_words(
    topology: &Topology,
    owner: SlotOwner,
) -> (Option<String>, &'static str) {
    let name = |shard: ShardId| topology.shard_name(shard).to_string();
    match owner {
        SlotOwner::Shard(shard) => (Some(name(shard)), "owned"),
        SlotOwner::Fenced(shard) => (Some(name(shard)), "fenced"),
        SlotOwner::Gap => (None, "unowned"),
        SlotOwner::Overlap(one, other) => {
            (Some(format!("{},{}", name(one), name(other))), "overlap")
        }
    }
}

pub(super) fn ring(router: &Router) -> Vec<Row> {
    let (config, topology) = (router.control.config(), router.topology());
    let proposal = Proposal::new(&config, &topology, &topology.owners);
    let Proposal {
        members,
        current,
        pins,
        owners,
        pin_errors: _,
    } = &proposal;
    let rows = (0..).map(ShardId).zip(members).map(|(id, member)| {
        let owned = current.iter().filter(|owner| **owner == Some(id)).count();
        let pinned = pins.values().filter(|owner| **owner == id).count();
        let changes = owners.as_ref().ok().map(|proposed| {
            let pairs = || proposed.iter().zip(current);
            let of = proposed.iter().filter(|owner| **owner == id).count();
            let gained = pairs()
                .filter(|(new, old)| **new == id && **old != Some(id))
                .count();
            let lost = pairs()
                .filter(|(new, old)| **new != id && **old == Some(id))
                .count();
            (of, gained, lost)
        });
        row![
            &*member.name,
            member.weight,
            u64::from(member.weight) * u64::from(config.ring.virtual_nodes),
            owned,
            changes.map(|(of, _, _)| of),
            changes.map(|(_, gained, _)| gained),
            changes.map(|(_, _, lost)| lost),
            pinned
        ]
    });
    rows.collect()
}

/// Tables of people's own schemas.
fn own_tables(schema: &Schema) -> Vec<&Arc<Relation>> {
    let relations = schema.relations.values().flat_map(|tables| tables.values());
    let mut tables: Vec<_> = relations
        .filter(|table| table.kind == RelationKind::Table && table.placement != Placement::Catalog)
        .collect();
    tables.sort_by(|one, other| (&one.schema, &one.name).cmp(&(&other.schema, &other.name)));
    tables
}

pub(super) fn tables(router: &Router) -> Vec<Row> {
    let topology = router.topology();
    let schema = &topology.schema;
    let place = |table: &Arc<Relation>| match &table.placement {
        Placement::Sharded { key, .. } => {
            let column = table.columns.get(*key);
            let name = column.map(|column| column.name.to_string());
            let key_type = column.map(|column| column.type_name.to_string());
            ("sharded", name, key_type, None)
        }
        Placement::Reference => ("reference", None, None, None),
        Placement::Local(shard) => {
            let shard = topology.shard_name(*shard).to_string();
            ("local", None, None, Some(shard))
        }
        Placement::Catalog | Placement::View => ("other", None, None, None),
    };
    let known = own_tables(schema).into_iter().map(|table| {
        let (kind, key, key_type, shard) = place(table);
        row![
            &*table.schema,
            &*table.name,
            kind,
            key,
            key_type,
            shard,
            Cell::Null
        ]
    });
    let mut misfits: Vec<_> = schema.misfits.iter().collect();
    misfits.sort();
    let misfits = misfits.into_iter().map(|((schema, name), reason)| {
        let none = Cell::Null;
        row![
            &**schema,
            &**name,
            "refused",
            none,
            Cell::Null,
            Cell::Null,
            &**reason
        ]
    });
    known.chain(misfits).collect()
}

/// A sharded table by the name that an operator gave it, and the type of its key.
pub(super) fn sharded_table<'s>(
    router: &Router,
    schema: &'s Schema,
    (of, name): &TableName,
) -> Result<(&'s Arc<Relation>, KeyType), AdminError> {
    let path = router.control.default_search_path();
    let path = search_path::parse(&path, &router.config.backend.user);
    let path = path.map_err(|error| AdminError::Refused(Box::new(error)))?;
    let table = schema.relation(of.as_deref(), name, &path);
    let found = table.and_then(|table| Some((table, table.key_type()?)));
    found.ok_or_else(|| {
        AdminError::NoShardedTable(match of {
            Some(of) => format!("{of}.{name}"),
            None => name.clone(),
        })
    })
}

pub(super) fn where_key(
    router: &Router,
    key: &str,
    table: Option<&TableName>,
) -> Result<Answer, AdminError> {
    let topology = router.topology();
    let schema = &topology.schema;
    let tables: Vec<&Arc<Relation>> = match table {
        None => own_tables(schema),
        Some(table) => vec![sharded_table(router, schema, table)?.0],
    };
    let (mut rows, mut wrong) = (Vec::new(), None);
    for table in tables {
        let Some(key_type) = table.key_type() else {
            continue;
        };
        let value = match KeyValue::from_text(key_type, key) {
            Ok(value) => value,
            Err(source) => {
                let key = key.to_owned();
                wrong = wrong.or(Some(AdminError::Key { key, source }));
                continue;
            }
        };
        let slot = hash::slot(&value);
        let (shard, state) = owner_in_words(&topology, topology.owner(slot));
        let column = match &table.placement {
            Placement::Sharded { key, .. } => table.columns.get(*key),
            _ => None,
        };
        rows.push(row![
            format!("{}.{}", table.schema, table.name),
            column.map(|column| column.name.to_string()),
            column.map(|column| column.type_name.to_string()),
            slot.0,
            shard,
            state
        ]);
    }
    // A text that is a key of some tables is none of others.
    match wrong {
        Some(error) if rows.is_empty() => Err(error),
        _ => Ok(Answer::rows(rows)),
    }
}

/// What is wrong, as far as the router knows.
pub(super) fn check(router: &Router) -> Vec<Row> {
    let (config, topology) = (router.control.config(), router.topology());
    let mut rows = Vec::new();
    let health = router.control.health();
    for ((id, shard), health) in (0..).map(ShardId).zip(&topology.shards).zip(health) {
        let subject = format!("shard {}", shard.name);
        if !health.reachable {
            let reason = health.last_error.unwrap_or_default();
            rows.push(row![subject, format!("is down: {reason}")]);
        } else if !router.control.two_phase_allowed(id) {
            let problem = "max_prepared_transactions is 0: writes on several shards are refused";
            rows.push(row![subject, problem]);
        }
    }
    let problems = router.control.ownership_problems();
    rows.extend(
        problems
            .iter()
            .map(|problem| row!["ownership", problem.to_string()]),
    );
    let mut misfits: Vec<_> = topology.schema.misfits.iter().collect();
    misfits.sort();
    rows.extend(
        misfits
            .into_iter()
            .map(|((schema, name), reason)| row![format!("table {schema}.{name}"), &**reason]),
    );
    let unenforced = colocation::unenforced(&topology.schema);
    rows.extend(unenforced.into_iter().map(|what| {
        row![
            "foreign key",
            format!("{what}: each shard checks it among its own rows")
        ]
    }));
    let names: Vec<Arc<str>> = topology
        .shards
        .iter()
        .map(|shard| shard.name.clone())
        .collect();
    let (_, errors) = shard_map::pinned_slots(&config.pins, &topology.schema, &names);
    rows.extend(errors.iter().map(|error| row!["pin", error.to_string()]));
    rows
}

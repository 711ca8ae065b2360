//! What the console shows of the cluster: shards, slots, and who owns what. As the router knows it, without asking a shard.

use super::answer::{Row, row};
use crate::router::Router;
use crate::topology::snapshot::{Membership, SlotOwner};
use crate::topology::{ShardId, SlotId};

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
    let name = |shard: ShardId| topology.shard_name(shard).to_string();
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
            let (shard, state) = match owner {
                SlotOwner::Shard(shard) => (Some(name(shard)), "owned"),
                SlotOwner::Fenced(shard) => (Some(name(shard)), "fenced"),
                SlotOwner::Gap => (None, "unowned"),
                SlotOwner::Overlap(one, other) => {
                    (Some(format!("{},{}", name(one), name(other))), "overlap")
                }
            };
            row![first.0, last.0, last.0 - first.0 + 1, shard, state]
        })
        .collect()
}

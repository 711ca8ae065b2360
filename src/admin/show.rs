//! What the console shows, one function a question. Reads only, and asks a shard only where the answer is nowhere else.

use super::AdminError;
use super::answer::{Answer, Row, row};
use super::command::{self, Show};
use crate::router::Router;
use crate::topology::snapshot::SlotOwner;
use crate::topology::{ShardId, SlotId};
use std::sync::Arc;

/// Answers a question.
///
/// # Errors
/// [`AdminError`].
pub async fn run(router: &Arc<Router>, show: Show) -> Result<Answer, AdminError> {
    let rows = match show {
        Show::Help => help(),
        Show::Version => vec![row![concat!("pgring ", env!("CARGO_PKG_VERSION"))]],
        Show::Shards => shards(router),
        Show::Slots => slots(router),
    };
    Ok(Answer::rows(rows))
}

fn help() -> Vec<Row> {
    command::help()
        .map(|(usage, description)| row![usage, description])
        .collect()
}

fn shards(router: &Router) -> Vec<Row> {
    let topology = router.topology();
    let mut slots = vec![0usize; topology.shards.len()];
    for (_, owner) in topology.owners.iter() {
        if let SlotOwner::Shard(shard) | SlotOwner::Fenced(shard) = owner {
            slots[usize::from(shard.0)] += 1;
        }
    }
    let health = router.control.health();
    let shards = topology.shards.iter().zip(&router.config.shards);
    shards
        .zip(health)
        .zip(slots)
        .map(|(((shard, declared), health), slots)| {
            let nodes: Vec<String> = declared.nodes.iter().map(ToString::to_string).collect();
            row![
                &*shard.name,
                declared.database.as_str(),
                nodes.join(","),
                declared.weight,
                if health.reachable { "up" } else { "down" },
                health
                    .server_version
                    .map(|version| version.text.to_string()),
                shard.epoch.0,
                slots,
                health.last_error.filter(|_| !health.reachable)
            ]
        })
        .collect()
}

fn slots(router: &Router) -> Vec<Row> {
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

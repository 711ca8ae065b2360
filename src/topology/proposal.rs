//! [`Proposal`]: who should own each slot by the shard map, beside who does. What the console shows of the ring and what a
//! rebalance moves is this one answer. Pure.

use super::ShardId;
use super::SlotId;
use super::ownership::Owners;
use super::ring::{self, Member, RingError};
use super::shard_map::{self, PinError};
use super::snapshot::{Membership, SlotOwner, Topology};
use crate::config::Config;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the shard map asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Every shard, by [`ShardId`]. One that takes no part weighs 0, and one that the map has no more: it is to be emptied.
    pub members: Vec<Member>,
    /// Who owns each slot now, by [`SlotId`]; None where that is not one shard.
    pub current: Vec<Option<ShardId>>,
    /// The slots that pins hold.
    pub pins: BTreeMap<SlotId, ShardId>,
    /// Pins that cannot be followed: they are left out.
    pub pin_errors: Vec<PinError>,
    /// Who should own each slot, by [`SlotId`].
    pub owners: Result<Box<[ShardId]>, RingError>,
}

impl Proposal {
    /// By the map, for the shards of the topology, where `owners` own the slots.
    pub fn new(config: &Config, topology: &Topology, owners: &Owners) -> Self {
        let weight = |name: &str| {
            let mut declared = config.shards.iter();
            let declared = declared.find(|declared| declared.name == name);
            declared.map_or(0, |declared| declared.weight)
        };
        let shards = topology.shards.iter();
        let members: Vec<Member> = shards
            .map(|shard| Member {
                name: shard.name.clone(),
                weight: match shard.membership {
                    Membership::Whole | Membership::Joining => weight(&shard.name),
                    Membership::Out => 0,
                },
            })
            .collect();
        let names: Vec<Arc<str>> = members.iter().map(|member| member.name.clone()).collect();
        let (pins, pin_errors) = shard_map::pinned_slots(&config.pins, &topology.schema, &names);
        let current: Vec<Option<ShardId>> = owners
            .iter()
            .map(|(_, owner)| match owner {
                SlotOwner::Shard(shard) | SlotOwner::Fenced(shard) => Some(shard),
                SlotOwner::Gap | SlotOwner::Overlap(..) => None,
            })
            .collect();
        let owners = ring::propose(&members, config.ring.virtual_nodes, &current, &pins);
        Self {
            members,
            current,
            pins,
            pin_errors,
            owners,
        }
    }
}

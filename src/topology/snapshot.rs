//! [`Topology`]: the immutable snapshot that a statement plans against; swapped whole.

use super::schema::Schema;
use super::{Epoch, SLOT_COUNT, ShardId, SlotId};
use std::sync::Arc;

/// One shard as the router knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name in `shards.toml`.
    pub name: Arc<str>,
    /// The epoch of the ownership that was read last.
    pub epoch: Epoch,
}

/// Who owns a slot now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotOwner {
    /// One shard, as it must be.
    Shard(ShardId),
    /// The owner holds it fenced while it moves.
    Fenced(ShardId),
    /// No shard claims it.
    Gap,
    /// Two shards claim it.
    Overlap(ShardId, ShardId),
}

/// A router's immutable snapshot of shards, ownership and tables.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// By [`ShardId`].
    pub shards: Vec<Shard>,
    /// By [`SlotId`]; [`SLOT_COUNT`] long.
    pub owners: Arc<[SlotOwner]>,
    /// Home of local tables and of catalog queries.
    pub default_shard: ShardId,
    /// Tables and functions.
    pub schema: Arc<Schema>,
}

impl Topology {
    /// Who owns `slot`.
    pub fn owner(&self, slot: SlotId) -> SlotOwner {
        debug_assert!(usize::from(slot.0) < SLOT_COUNT);
        self.owners[usize::from(slot.0)]
    }

    /// All shards in order.
    pub fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards.len() as u16).map(ShardId)
    }

    /// The shard's name.
    pub fn shard_name(&self, shard: ShardId) -> &Arc<str> {
        &self.shards[usize::from(shard.0)].name
    }

    /// The shard called `name`.
    pub fn shard_named(&self, name: &str) -> Option<ShardId> {
        self.shard_ids()
            .find(|shard| &**self.shard_name(*shard) == name)
    }
}

//! Where rows live: hash, slots, ring, ownership, schema and the snapshot that a statement plans against.
//! Pure: knows nothing of connections or files. Start at [`snapshot::Topology`].

pub mod colocation;
pub mod hash;
pub mod key_value;
pub mod ownership;
pub mod proposal;
pub mod ring;
pub mod schema;
pub mod shard_map;
pub mod slot;
pub mod snapshot;
mod date_time;
mod decimal;

use std::fmt;

/// How many slots the hash space has. Never changes: it is part of where rows live.
pub const SLOT_COUNT: usize = 16384;

/// A shard's index in the topology's shard list (the order of `shards.toml`); valid within one router only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One of [`SLOT_COUNT`] parts of the hash space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u16);

/// Counts the changes of one shard's ownership row; it only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The last that PostgreSQL's `bigint` holds, which none ever gets to.
    pub const MAX: Self = Self(i64::MAX as u64);
}

//! [`Topology`]: the immutable snapshot that a statement plans against; swapped whole.

use super::hash;
use super::key_value::KeyValue;
use super::ownership::{self, Fence, Owners, OwnershipRecord};
use super::schema::Schema;
use super::shard_map::{self, PlacementErrors};
use super::slot::SlotSet;
use super::{Epoch, ShardId, SlotId};
use crate::config::Config;
use std::sync::Arc;

/// One shard as the router knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name in `shards.toml`.
    pub name: Arc<str>,
    /// The epoch of the ownership that was read last.
    pub epoch: Epoch,
    /// The generation with which its own slots, or the others' whose rows may lie there, became others.
    pub rows_since: u64,
    /// What it holds fenced, and since when.
    pub fences: Arc<[Fence]>,
    /// Whether it takes part.
    pub membership: Membership,
}

/// What part a shard takes in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Membership {
    /// In all.
    #[default]
    Whole,
    /// In what is written on every shard, but nothing is read there.
    Joining,
    /// None: it was not given its place yet, or the map does not name it any more. It owns nothing.
    Out,
}

/// Who owns a slot now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Grows with each change of ownership that the router sees, and when it is registered on a shard anew.
    pub generation: u64,
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// By [`ShardId`].
    pub shards: Vec<Shard>,
    /// Of all slots.
    pub owners: Owners,
    /// Whether rows of other shards may lie on some shard, where they must not be seen.
    pub has_foreign_rows: bool,
    /// See [`ownership::in_transit`].
    pub in_transit: Option<ShardId>,
    /// Home of local tables and of catalog queries.
    pub default_shard: ShardId,
    /// Tables and functions.
    pub schema: Arc<Schema>,
}

impl Topology {
    /// Puts together what the files declare, what the shards record (in the order of the shards, None where nothing
    /// is known) and the catalog of one shard, in which placements are set here.
    ///
    /// # Errors
    ///
    /// Every declared table that does not fit the catalog.
    pub fn new(
        config: &Config,
        records: &[Option<&OwnershipRecord>],
        schema: Schema,
    ) -> Result<Self, PlacementErrors> {
        let names = shard_map::shard_names(config);
        let is_default = |name: &Arc<str>| **name == *config.cluster.default_shard;
        let default_shard = ShardId(names.iter().position(is_default).unwrap_or(0) as u16);
        let schema = shard_map::place_all(schema, &config.tables, &names, default_shard)?;
        let shards = names
            .into_iter()
            .map(|name| Shard {
                name,
                epoch: Epoch::default(),
                membership: Membership::default(),
                rows_since: 0,
                fences: Arc::default(),
            })
            .collect();
        let topology = Self {
            generation: 0,
            cluster: config.cluster.name.as_str().into(),
            shards,
            owners: ownership::owners(&[]),
            has_foreign_rows: false,
            in_transit: None,
            default_shard,
            schema: Arc::new(schema),
        };
        Ok(topology.with_ownership(records))
    }

    /// The same with other records, in the order of the shards; None where nothing is known.
    pub fn with_ownership(&self, records: &[Option<&OwnershipRecord>]) -> Self {
        let mut topology = self.clone();
        topology.owners = ownership::owners(records);
        topology.has_foreign_rows = ownership::have_foreign_rows(records);
        topology.in_transit = ownership::in_transit(records);
        for (index, shard) in topology.shards.iter_mut().enumerate() {
            let record = records.get(index).copied().flatten();
            shard.epoch = record.map_or(Epoch::default(), |record| record.epoch);
            let fenced = record.map(|record| &record.fenced);
            shard.fences = fenced
                .map_or(Vec::new(), |fenced| ownership::fences(&[], fenced, 0))
                .into();
        }
        topology
    }

    /// Whether no shard holds anything fenced.
    pub fn is_unfenced(&self) -> bool {
        self.shards.iter().all(|shard| shard.fences.is_empty())
    }

    /// What the shard holds fenced.
    pub fn fences(&self, shard: ShardId) -> &[Fence] {
        let shard = self.shards.get(usize::from(shard.0));
        shard.map_or(&[], |shard| &shard.fences)
    }

    /// A shard that holds something fenced, or has given away what nobody has taken yet.
    pub fn fenced_shard(&self) -> Option<ShardId> {
        let fenced = |shard: &ShardId| !self.fences(*shard).is_empty();
        self.in_transit.or_else(|| self.shard_ids().find(fenced))
    }

    /// The same without the fences that are younger than what began on their shards at these generations.
    pub fn let_through(&self, begun: &[(ShardId, u64)]) -> Self {
        let mut topology = self.clone();
        let mut lifted = SlotSet::new();
        for (shard, since) in begun {
            let Some(fences) = topology.shards.get_mut(usize::from(shard.0)) else {
                continue;
            };
            let (old, young): (Vec<Fence>, Vec<Fence>) = fences
                .fences
                .iter()
                .cloned()
                .partition(|fence| fence.since <= *since);
            for fence in young {
                lifted = lifted.union(&fence.slots);
            }
            fences.fences = old.into();
        }
        let owner = |(slot, owner)| match owner {
            SlotOwner::Fenced(shard) if lifted.contains(slot) => SlotOwner::Shard(shard),
            owner => owner,
        };
        topology.owners = self.owners.iter().map(owner).collect();
        topology
    }

    /// Who owns the slot of `key`.
    pub fn owner_of(&self, key: &KeyValue) -> SlotOwner {
        self.owner(hash::slot(key))
    }

    /// Who owns `slot`.
    pub fn owner(&self, slot: SlotId) -> SlotOwner {
        self.owners.of(slot)
    }

    /// The shards that take part, in order.
    pub fn shard_ids(&self) -> impl Iterator<Item = ShardId> {
        let shards = (0..).map(ShardId).zip(&self.shards);
        let takes_part = |shard: &Shard| match shard.membership {
            Membership::Whole | Membership::Joining => true,
            Membership::Out => false,
        };
        shards.filter_map(move |(id, shard)| takes_part(shard).then_some(id))
    }

    /// The shards that may be read, in order.
    pub fn readable(&self) -> impl Iterator<Item = ShardId> {
        self.shard_ids()
            .filter(|shard| match self.shards[usize::from(shard.0)].membership {
                Membership::Whole => true,
                Membership::Joining | Membership::Out => false,
            })
    }

    /// Whether more shards than one take part.
    pub fn is_spread(&self) -> bool {
        self.shard_ids().nth(1).is_some()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn record(shard: &str, epoch: u64, owned: &str) -> OwnershipRecord {
        let (owned, fenced) = (owned.parse().unwrap(), "{}".parse().unwrap());
        OwnershipRecord {
            shard: shard.into(),
            cluster_id: "c".into(),
            epoch: Epoch(epoch),
            owned,
            fenced,
            closed: SlotSet::new(),
            foreign_slots: SlotSet::new(),
            joining: false,
        }
    }

    #[test]
    fn a_key_is_found_through_its_slot_and_the_records() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("shard-config");
        let config = Config::load(&directory).unwrap();
        let (first, second) = (
            record("s0", 7, "{[0,8000)}"),
            record("s2", 9, "{[8000,16384)}"),
        );
        let topology = Topology::new(
            &config,
            &[Some(&first), None, Some(&second)],
            Schema::default(),
        )
        .unwrap();
        assert_eq!(
            topology
                .shards
                .iter()
                .map(|shard| shard.epoch.0)
                .collect::<Vec<_>>(),
            [7, 0, 9]
        );
        assert_eq!(
            (&*topology.cluster, topology.default_shard),
            ("shop", ShardId(0))
        );
        for id in 0..100 {
            let key = KeyValue::Integer(id);
            let expected = if hash::slot(&key).0 < 8000 {
                ShardId(0)
            } else {
                ShardId(2)
            };
            assert_eq!(topology.owner_of(&key), SlotOwner::Shard(expected));
        }
        let mut fenced = first.clone();
        fenced.fenced = "{[1,3)}".parse().unwrap();
        let mut topology = topology.with_ownership(&[Some(&fenced), None, Some(&second)]);
        topology.shards[0].fences = ownership::fences(&[], &fenced.fenced, 5).into();
        let of = |topology: &Topology| topology.owner(SlotId(1));
        let through = |since| topology.let_through(&[(ShardId(0), since)]);
        assert_eq!(of(&topology), SlotOwner::Fenced(ShardId(0)));
        assert_eq!(of(&through(4)), SlotOwner::Shard(ShardId(0)));
        assert!(through(4).is_unfenced());
        assert_eq!(of(&through(5)), SlotOwner::Fenced(ShardId(0)));
        assert_eq!(through(5).fenced_shard(), Some(ShardId(0)));
        let later = topology.with_ownership(&[None, None, Some(&second)]);
        assert_eq!(later.owner(SlotId(0)), SlotOwner::Gap);
        assert_eq!(later.shards[0].epoch, Epoch(0));
    }
}

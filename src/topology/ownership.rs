//! Which slots each shard says it owns, and what that makes of every slot. Where shards disagree nothing is guessed.

use super::slot::SlotSet;
use super::snapshot::SlotOwner;
use super::{Epoch, SLOT_COUNT, ShardId, SlotId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The one row of `pgring.ownership` on a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnershipRecord {
    /// The shard's own name.
    pub shard: Arc<str>,
    /// Drawn when the cluster was made; the same on all its shards.
    pub cluster_id: Arc<str>,
    /// Grows with each change.
    pub epoch: Epoch,
    /// What the shard owns.
    pub owned: SlotSet,
    /// What of that it holds fenced; other slots in here mean nothing.
    pub fenced: SlotSet,
    /// Those fenced slots whose writes it refuses itself.
    pub closed: SlotSet,
    /// Slots that it does not own, and whose rows may lie there.
    pub foreign_slots: SlotSet,
    /// The shard is new: it gets all that is written on every shard, and may lack what was written before.
    pub joining: bool,
}

/// Who owns each slot. Looked at for every statement, and each time at another place: so it is packed, to stay in the
/// processor's nearest cache. Four shards take four kilobytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    /// Each once.
    kinds: Arc<[SlotOwner]>,
    /// By [`SlotId`], [`Self::width`] bits each: an index into [`Self::kinds`].
    packed: Arc<[u64]>,
    /// A power of two, so that none lies across two words.
    width: u32,
}

impl Owners {
    /// Who owns `slot`.
    pub fn of(&self, slot: SlotId) -> SlotOwner {
        let bit = u32::from(slot.0) * self.width;
        let word = self.packed[(bit / u64::BITS) as usize];
        let kind = (word >> (bit % u64::BITS)) as usize & ((1 << self.width) - 1);
        self.kinds[kind]
    }

    /// Whether nobody owns one of them.
    pub fn have_gap(&self) -> bool {
        self.kinds.contains(&SlotOwner::Gap)
    }

    /// All slots in order.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, SlotOwner)> {
        (0..SLOT_COUNT as u16).map(|slot| (SlotId(slot), self.of(SlotId(slot))))
    }
}

impl FromIterator<SlotOwner> for Owners {
    /// In the order of [`SlotId`].
    fn from_iter<I: IntoIterator<Item = SlotOwner>>(owners: I) -> Self {
        let mut kinds = Vec::new();
        let mut indexes = HashMap::new();
        let indexes: Vec<u64> = owners
            .into_iter()
            .map(|owner| {
                *indexes.entry(owner).or_insert_with(|| {
                    kinds.push(owner);
                    kinds.len() as u64 - 1
                })
            })
            .collect();
        // As many bits as the last index has.
        let bits = usize::BITS - kinds.len().saturating_sub(1).leading_zeros();
        let width = bits.max(1).next_power_of_two();
        let words = indexes.chunks((u64::BITS / width) as usize);
        let word = |indexes: &[u64]| {
            let placed = indexes.iter().zip((0..).step_by(width as usize));
            placed.fold(0, |word, (index, bit)| word | index << bit)
        };
        Self {
            kinds: kinds.into(),
            packed: words.map(word).collect(),
            width,
        }
    }
}

/// Who owns each slot, by the records in the order of [`ShardId`]; None where nothing is known of a shard. A slot that one
/// shard gives to another is fenced until both have said so.
pub fn owners(records: &[Option<&OwnershipRecord>]) -> Owners {
    let mut owners = vec![SlotOwner::Gap; SLOT_COUNT];
    for (shard, record) in known(records) {
        for slot in record.owned.iter() {
            let owner = &mut owners[usize::from(slot.0)];
            *owner = match *owner {
                SlotOwner::Gap if record.fenced.contains(slot) => SlotOwner::Fenced(shard),
                SlotOwner::Gap => SlotOwner::Shard(shard),
                // One gives it to the other, of which all is not known yet.
                SlotOwner::Fenced(first) => SlotOwner::Fenced(first),
                SlotOwner::Shard(_) if record.fenced.contains(slot) => SlotOwner::Fenced(shard),
                SlotOwner::Shard(first) | SlotOwner::Overlap(first, _) => {
                    SlotOwner::Overlap(first, shard)
                }
            };
        }
    }
    for (shard, record) in known(records) {
        for slot in record.foreign_slots.iter() {
            let owner = &mut owners[usize::from(slot.0)];
            if *owner == SlotOwner::Gap {
                *owner = SlotOwner::Fenced(shard);
            }
        }
    }
    owners.into_iter().collect()
}

/// Whether rows of other shards may lie on some shard.
pub fn have_foreign_rows(records: &[Option<&OwnershipRecord>]) -> bool {
    known(records).any(|(_, record)| !record.foreign_slots.is_empty())
}

/// A shard that has given slots away which no other has taken yet, as far as is known.
pub fn in_transit(records: &[Option<&OwnershipRecord>]) -> Option<ShardId> {
    let owned = known(records).fold(SlotSet::new(), |owned, (_, record)| {
        owned.union(&record.owned)
    });
    let has_given = |record: &OwnershipRecord| !record.foreign_slots.difference(&owned).is_empty();
    let mut givers = known(records).filter(|(_, record)| has_given(record));
    givers.next().map(|(shard, _)| shard)
}

/// Slots that a shard has held fenced since a generation of the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The generation that was the first to have the fence.
    pub since: u64,
    /// Which.
    pub slots: SlotSet,
}

/// The fences of a shard that had those `before` and has these slots fenced from `generation` on.
pub fn fences(before: &[Fence], fenced: &SlotSet, generation: u64) -> Vec<Fence> {
    let mut new = fenced.clone();
    let mut fences = Vec::new();
    for fence in before {
        new = new.difference(&fence.slots);
        fences.push(Fence {
            since: fence.since,
            slots: fence.slots.intersection(fenced),
        });
    }
    fences.push(Fence {
        since: generation,
        slots: new,
    });
    fences.retain(|fence| !fence.slots.is_empty());
    fences
}

/// Something that no set of records of one healthy cluster shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnershipProblem {
    /// The shard that the map calls so says that it is another.
    #[error("shard \"{declared}\" of the shard map calls itself \"{recorded}\"")]
    Name {
        /// In `shards.toml`.
        declared: Arc<str>,
        /// On the shard.
        recorded: Arc<str>,
    },
    /// Two shards belong to different clusters.
    #[error("shards \"{first}\" and \"{second}\" belong to different clusters")]
    Cluster {
        /// The first shard that says what its cluster is.
        first: Arc<str>,
        /// The one that says otherwise.
        second: Arc<str>,
    },
    /// Nobody owns them.
    #[error("no shard owns slots {slots}", slots = .slots.brief())]
    Gap {
        /// Which.
        slots: SlotSet,
    },
    /// Two shards own them.
    #[error("both \"{first}\" and \"{second}\" own slots {slots}", slots = .slots.brief())]
    Overlap {
        /// One owner.
        first: Arc<str>,
        /// The other.
        second: Arc<str>,
        /// Which.
        slots: SlotSet,
    },
}

/// Everything that is wrong with the records of the shards called `names`, both in the order of [`ShardId`].
pub fn problems(names: &[Arc<str>], records: &[Option<&OwnershipRecord>]) -> Vec<OwnershipProblem> {
    let mut problems = Vec::new();
    let name = |shard: ShardId| Arc::clone(&names[usize::from(shard.0)]);
    let mut cluster: Option<(ShardId, &Arc<str>)> = None;
    for (shard, record) in known(records) {
        if record.shard != name(shard) {
            problems.push(OwnershipProblem::Name {
                declared: name(shard),
                recorded: Arc::clone(&record.shard),
            });
        }
        let (first, id) = *cluster.get_or_insert((shard, &record.cluster_id));
        if *id != record.cluster_id {
            problems.push(OwnershipProblem::Cluster {
                first: name(first),
                second: name(shard),
            });
        }
    }
    let mut gaps = SlotSet::new();
    let mut overlaps: BTreeMap<(ShardId, ShardId), SlotSet> = BTreeMap::new();
    for (slot, owner) in owners(records).iter() {
        match owner {
            SlotOwner::Shard(_) | SlotOwner::Fenced(_) => {}
            SlotOwner::Gap => gaps.insert(slot),
            SlotOwner::Overlap(first, second) => {
                overlaps.entry((first, second)).or_default().insert(slot)
            }
        }
    }
    if !gaps.is_empty() {
        problems.push(OwnershipProblem::Gap { slots: gaps });
    }
    let overlap = |((first, second), slots)| OwnershipProblem::Overlap {
        first: name(first),
        second: name(second),
        slots,
    };
    problems.extend(overlaps.into_iter().map(overlap));
    problems
}

fn known<'r>(
    records: &[Option<&'r OwnershipRecord>],
) -> impl Iterator<Item = (ShardId, &'r OwnershipRecord)> {
    records
        .iter()
        .enumerate()
        .filter_map(|(shard, record)| Some((ShardId(shard as u16), (*record)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shard: &str, cluster_id: &str, owned: &str, fenced: &str) -> OwnershipRecord {
        let (owned, fenced) = (owned.parse().unwrap(), fenced.parse().unwrap());
        OwnershipRecord {
            shard: shard.into(),
            cluster_id: cluster_id.into(),
            epoch: Epoch(1),
            owned,
            fenced,
            closed: SlotSet::new(),
            foreign_slots: SlotSet::new(),
            joining: false,
        }
    }

    #[test]
    fn every_slot_has_one_owner_or_a_named_problem() {
        let first = record("a", "c", "{[0,8000)}", "{[10,20),[9000,9001)}");
        let second = record("b", "c", "{[7990,16000)}", "{}");
        let owners = owners(&[Some(&first), Some(&second), None]);
        let of = |slot| owners.of(SlotId(slot));
        let (a, b) = (ShardId(0), ShardId(1));
        assert_eq!(owners.iter().count(), SLOT_COUNT);
        assert_eq!(
            (of(0), of(10), of(20)),
            (
                SlotOwner::Shard(a),
                SlotOwner::Fenced(a),
                SlotOwner::Shard(a)
            )
        );
        assert_eq!(
            (of(7989), of(7990), of(8000)),
            (
                SlotOwner::Shard(a),
                SlotOwner::Overlap(a, b),
                SlotOwner::Shard(b)
            )
        );
        assert_eq!((of(9000), of(16000)), (SlotOwner::Shard(b), SlotOwner::Gap));
    }

    #[test]
    fn a_fence_is_as_old_as_its_slots() {
        let slots = |text: &str| text.parse::<SlotSet>().unwrap();
        let first = fences(&[], &slots("{[0,4)}"), 7);
        let second = fences(&first, &slots("{[2,6)}"), 9);
        let found: Vec<(u64, String)> = second
            .iter()
            .map(|fence| (fence.since, fence.slots.to_string()))
            .collect();
        assert_eq!(
            found,
            [(7, "{[2,4)}".to_owned()), (9, "{[4,6)}".to_owned())]
        );
        assert_eq!(fences(&second, &SlotSet::new(), 10), []);
    }

    #[test]
    fn slots_between_two_shards_are_fenced() {
        let mut first = record("a", "c", "{[0,8)}", "{}");
        let mut second = record("b", "c", "{[9,16384)}", "{}");
        let slot = |first: &OwnershipRecord, second: &OwnershipRecord| {
            owners(&[Some(first), Some(second)]).of(SlotId(8))
        };
        assert_eq!(slot(&first, &second), SlotOwner::Gap);
        assert_eq!(in_transit(&[Some(&first), Some(&second)]), None);
        // Given away there, and not taken here yet.
        first.foreign_slots = "{[8,9)}".parse().unwrap();
        assert_eq!(slot(&first, &second), SlotOwner::Fenced(ShardId(0)));
        let transit = in_transit(&[Some(&first), Some(&second)]);
        assert_eq!(transit, Some(ShardId(0)));
        // Taken here, and not given away there yet, as far as is known.
        let third = record("a", "c", "{[0,9)}", "{[8,9)}");
        second.owned = "{[8,16384)}".parse().unwrap();
        assert_eq!(slot(&third, &second), SlotOwner::Fenced(ShardId(0)));
        assert_eq!(slot(&first, &second), SlotOwner::Shard(ShardId(1)));
    }

    #[test]
    fn any_number_of_owners_is_packed() {
        for shards in [1, 2, 3, 4, 5, 17, 300, 16384] {
            let owner = |slot: usize| SlotOwner::Shard(ShardId((slot * 7 % shards) as u16));
            let owners: Vec<SlotOwner> = (0..SLOT_COUNT).map(owner).collect();
            let packed: Owners = owners.iter().copied().collect();
            let unpacked: Vec<SlotOwner> = packed.iter().map(|(_, owner)| owner).collect();
            assert_eq!(unpacked, owners);
        }
        let owner = |slot: usize| SlotOwner::Shard(ShardId((slot % 4) as u16));
        let four = (0..SLOT_COUNT).map(owner).collect::<Owners>();
        assert_eq!(four.packed.len() * size_of::<u64>(), 4096);
    }

    #[test]
    fn problems_are_told_as_ranges() {
        let names = ["a", "b", "c"].map(Arc::from);
        let first = record("a", "one", "{[0,8000)}", "{}");
        let second = record("x", "two", "{[7990,16000)}", "{}");
        let texts: Vec<String> = problems(&names, &[Some(&first), Some(&second), None])
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            texts,
            [
                "shard \"b\" of the shard map calls itself \"x\"",
                "shards \"a\" and \"b\" belong to different clusters",
                "no shard owns slots {[16000,16384)}",
                "both \"a\" and \"b\" own slots {[7990,8000)}",
            ]
        );
        let whole = record("a", "one", "{[0,16384)}", "{}");
        assert_eq!(problems(&names, &[Some(&whole), None, None]), []);
    }
}

//! The consistent-hash ring: proposes which shard should own each slot. A proposal changes nothing; ownership does.
//!
//! Every shard has a *target*: its fair share of the slots by weight, in whole slots. A plain ring with bounded loads
//! would cascade: a slot that a full shard refuses goes on to the next one, so that a change of the shard set moves
//! slots between shards that did not change. Here the current owner keeps a slot unless
//!
//! 1. the slot is pinned elsewhere, or its owner is drained or gone. Such slots first lift the shards that hold less
//!    than 95 % of their share, then go to the next shard on the ring that is below its target;
//! 2. a shard holds less than 95 %: it takes slots, those nearest to its positions first, from shards above their
//!    target (above 105 % first) until it has its own target;
//! 3. a shard still holds more than 105 %: it gives what is above its target to shards below theirs.
//!
//! From a placement within those bounds, adding a shard moves its target's number of slots, all to it: the others
//! hold more than 105 % of their new shares by less than that. Removing one moves only its own: the others lack less
//! of 95 % of their new shares than it held. And what was proposed is proposed again. The tests below try all three.

use super::hash::hash_bytes;
use super::{SLOT_COUNT, ShardId, SlotId};
use hashring::HashRing;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// Seed of the ring's positions. Never changes.
const POSITION_SEED: u64 = 0x7269_6e67;

/// A shard as the ring sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, which its positions are made of.
    pub name: Arc<str>,
    /// Its share of the slots relative to the others; 0 for none but pinned ones.
    pub weight: u32,
}

/// Why no placement can be proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// All weights are 0.
    #[error("no shard has a weight above 0")]
    NoWeight,
    /// A pin or a current owner is beyond the members.
    #[error("shard {0} is not on the ring")]
    UnknownShard(ShardId),
}

/// Proposes the owner of every slot, by [`SlotId`].
///
/// `members` are in the order of [`ShardId`]; the proposal does not depend on that order. `current` is who owns each
/// slot now, by [`SlotId`]; shorter, or None, where nobody on the ring does. `pins` win over everything.
///
/// # Errors
///
/// [`RingError`]
pub fn propose(
    members: &[Member],
    virtual_nodes: u32,
    current: &[Option<ShardId>],
    pins: &BTreeMap<SlotId, ShardId>,
) -> Result<Box<[ShardId]>, RingError> {
    let on_ring = |shard: &&ShardId| usize::from(shard.0) >= members.len();
    if let Some(unknown) = current.iter().flatten().chain(pins.values()).find(on_ring) {
        return Err(RingError::UnknownShard(*unknown));
    }
    if members.iter().all(|member| member.weight == 0) {
        return Err(RingError::NoWeight);
    }
    let mut placement = Placement::keep(members, virtual_nodes, current, pins);
    placement.place_ownerless();
    placement.fill_the_poor();
    placement.relieve_the_rich();
    Ok(placement.owners.into_iter().flatten().collect())
}

/// Where on the ring (the whole of u64) a slot is.
fn slot_position(slot: SlotId) -> u64 {
    hash_bytes(&slot.0.to_le_bytes(), POSITION_SEED)
}

/// One position of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct VirtualNode {
    position: u64,
    shard: ShardId,
}

/// A `HashRing` hashes what it holds and what it is asked for: these are hashed already.
impl Hash for VirtualNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.position);
    }
}

#[derive(Clone, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(self.0, |hash, byte| hash << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, position: u64) {
        self.0 = position;
    }
}

impl BuildHasher for Identity {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self::default()
    }
}

/// Some shards' positions.
struct Ring(HashRing<VirtualNode, Identity>);

impl Ring {
    /// A ring of those members that are `included`.
    fn new(members: &[Member], virtual_nodes: u32, included: impl Fn(ShardId) -> bool) -> Self {
        let mut nodes = Vec::new();
        for (shard, member) in members.iter().enumerate() {
            let shard = ShardId(shard as u16);
            if included(shard) {
                let count = u64::from(virtual_nodes) * u64::from(member.weight);
                let position = |index| {
                    hash_bytes(format!("{}#{index}", member.name).as_bytes(), POSITION_SEED)
                };
                nodes.extend((0..count).map(|index| VirtualNode {
                    position: position(index),
                    shard,
                }));
            }
        }
        let mut ring = HashRing::with_hasher(Identity::default());
        ring.batch_add(nodes);
        Self(ring)
    }

    /// The virtual nodes from `position` on, once around the ring.
    fn walk(&self, position: u64) -> impl Iterator<Item = VirtualNode> + '_ {
        let mut next = position;
        (0..self.0.len()).map_while(move |_| {
            let node = *self.0.get(&next)?;
            next = node.position.wrapping_add(1);
            Some(node)
        })
    }

    /// How far the next virtual node is.
    fn distance(&self, position: u64) -> u64 {
        self.0
            .get(&position)
            .map_or(u64::MAX, |node| node.position.wrapping_sub(position))
    }
}

/// What one shard holds, should hold, and may hold.
struct Load {
    slots: usize,
    target: usize,
    least: usize,
    most: usize,
}

struct Placement<'p> {
    members: &'p [Member],
    virtual_nodes: u32,
    pins: &'p BTreeMap<SlotId, ShardId>,
    owners: Vec<Option<ShardId>>,
    loads: Vec<Load>,
}

impl<'p> Placement<'p> {
    /// Pinned slots are where they must be, others with their owner unless it is drained.
    fn keep(
        members: &'p [Member],
        virtual_nodes: u32,
        current: &[Option<ShardId>],
        pins: &'p BTreeMap<SlotId, ShardId>,
    ) -> Self {
        let kept = |slot: u16| {
            let owner = current.get(usize::from(slot)).copied().flatten();
            let owner = owner.filter(|owner| members[usize::from(owner.0)].weight > 0);
            pins.get(&SlotId(slot)).copied().or(owner)
        };
        let mut loads = loads(members, pins);
        let owners: Vec<_> = (0..SLOT_COUNT as u16).map(kept).collect();
        for owner in owners.iter().flatten() {
            loads[usize::from(owner.0)].slots += 1;
        }
        Self {
            members,
            virtual_nodes,
            pins,
            owners,
            loads,
        }
    }

    fn place_ownerless(&mut self) {
        self.place_ownerless_below(|load| load.least);
        self.place_ownerless_below(|load| load.target);
    }

    /// Gives slots without an owner to the next shard on the ring that is below `level`.
    fn place_ownerless_below(&mut self, level: impl Fn(&Load) -> usize) {
        let slots: Vec<SlotId> = self.slots(|owner| owner.is_none());
        let poor = self
            .loads
            .iter()
            .map(|load| load.slots < level(load))
            .collect::<Vec<_>>();
        self.hand_over(slots, &poor, |_| true, level);
    }

    fn fill_the_poor(&mut self) {
        let poor: Vec<bool> = self
            .loads
            .iter()
            .map(|load| load.slots < load.least)
            .collect();
        let rich = |load: &Load| load.slots > load.most;
        self.hand_over(self.movable(&poor), &poor, rich, |load| load.target);
        self.hand_over(
            self.movable(&poor),
            &poor,
            |load| load.slots > load.target,
            |load| load.target,
        );
    }

    fn relieve_the_rich(&mut self) {
        let others: Vec<bool> = self
            .loads
            .iter()
            .map(|load| load.slots <= load.most)
            .collect();
        if others.iter().all(|other| *other) {
            return;
        }
        self.hand_over(
            self.movable(&others),
            &others,
            |load| load.slots > load.target,
            |load| load.target,
        );
    }

    /// Gives `slots`, those nearest to a taker first, to the next taker on the ring that is below `level`, while their
    /// owner, if any, `can_give`.
    fn hand_over(
        &mut self,
        mut slots: Vec<SlotId>,
        takers: &[bool],
        can_give: impl Fn(&Load) -> bool,
        level: impl Fn(&Load) -> usize,
    ) {
        let is_taker = |shard: ShardId| takers[usize::from(shard.0)];
        let ring = Ring::new(self.members, self.virtual_nodes, is_taker);
        let wanted = |load: &Load| level(load).saturating_sub(load.slots);
        let mut room: usize = self
            .loads
            .iter()
            .zip(takers)
            .filter(|(_, taker)| **taker)
            .map(|(load, _)| wanted(load))
            .sum();
        slots.sort_by_cached_key(|slot| (ring.distance(slot_position(*slot)), *slot));
        for slot in slots {
            if room == 0 {
                return;
            }
            let owner = self.owners[usize::from(slot.0)];
            if owner.is_some_and(|owner| !can_give(&self.loads[usize::from(owner.0)])) {
                continue;
            }
            let has_room = |node: &VirtualNode| wanted(&self.loads[usize::from(node.shard.0)]) > 0;
            let Some(taker) = ring.walk(slot_position(slot)).find(has_room) else {
                return;
            };
            if let Some(owner) = owner {
                self.loads[usize::from(owner.0)].slots -= 1;
            }
            self.loads[usize::from(taker.shard.0)].slots += 1;
            self.owners[usize::from(slot.0)] = Some(taker.shard);
            room -= 1;
        }
    }

    /// Slots that are not pinned and whose owner is not among the `takers`.
    fn movable(&self, takers: &[bool]) -> Vec<SlotId> {
        let mut slots =
            self.slots(|owner| owner.is_some_and(|owner| !takers[usize::from(owner.0)]));
        slots.retain(|slot| !self.pins.contains_key(slot));
        slots
    }

    fn slots(&self, chosen: impl Fn(Option<ShardId>) -> bool) -> Vec<SlotId> {
        (0..SLOT_COUNT as u16)
            .map(SlotId)
            .filter(|slot| chosen(self.owners[usize::from(slot.0)]))
            .collect()
    }
}

/// Everyone's target and bounds. A shard with more pinned slots than its fair share has those alone, and the others
/// share the rest.
fn loads(members: &[Member], pins: &BTreeMap<SlotId, ShardId>) -> Vec<Load> {
    let mut pinned = vec![0_usize; members.len()];
    for shard in pins.values() {
        pinned[usize::from(shard.0)] += 1;
    }
    let mut shares: Vec<bool> = members.iter().map(|member| member.weight > 0).collect();
    loop {
        let alone = |(shard, count): (usize, &usize)| if shares[shard] { 0 } else { *count };
        let shared = SLOT_COUNT - pinned.iter().enumerate().map(alone).sum::<usize>();
        let weight: usize = members
            .iter()
            .zip(&shares)
            .filter(|(_, shares)| **shares)
            .map(|(member, _)| member.weight as usize)
            .sum();
        // Fair share × weight, to stay with whole numbers.
        let fair = |shard: usize| shared * members[shard].weight as usize;
        let too_many = |shard: usize| shares[shard] && pinned[shard] * weight > fair(shard);
        if let Some(shard) = (0..members.len()).find(|shard| too_many(*shard)) {
            shares[shard] = false;
            continue;
        }
        let mut targets: Vec<usize> = (0..members.len())
            .map(|shard| {
                if shares[shard] {
                    fair(shard) / weight
                } else {
                    pinned[shard]
                }
            })
            .collect();
        // What whole slots leave over goes to the largest fractions, then by name.
        let mut by_fraction: Vec<usize> =
            (0..members.len()).filter(|shard| shares[*shard]).collect();
        by_fraction.sort_by_key(|shard| {
            (
                std::cmp::Reverse(fair(*shard) % weight),
                &members[*shard].name,
            )
        });
        let left_over = SLOT_COUNT - targets.iter().sum::<usize>();
        for shard in by_fraction.into_iter().take(left_over) {
            targets[shard] += 1;
        }
        let load = |shard: usize| match shares[shard] {
            true => Load {
                slots: 0,
                target: targets[shard],
                least: fair(shard) * 95 / (weight * 100),
                most: (fair(shard) * 105).div_ceil(weight * 100),
            },
            false => Load {
                slots: 0,
                target: targets[shard],
                least: targets[shard],
                most: targets[shard],
            },
        };
        return (0..members.len()).map(load).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NO_PINS: BTreeMap<SlotId, ShardId> = BTreeMap::new();

    fn members(weights: &[u32]) -> Vec<Member> {
        let member = |(shard, weight): (usize, &u32)| Member {
            name: format!("s{shard}").into(),
            weight: *weight,
        };
        weights.iter().enumerate().map(member).collect()
    }

    fn place(weights: &[u32], current: &[Option<ShardId>]) -> Vec<ShardId> {
        propose(&members(weights), 40, current, &NO_PINS)
            .unwrap()
            .into_vec()
    }

    fn owned(placement: &[ShardId]) -> Vec<Option<ShardId>> {
        placement.iter().copied().map(Some).collect()
    }

    fn count(placement: &[ShardId], shard: usize) -> usize {
        placement
            .iter()
            .filter(|owner| usize::from(owner.0) == shard)
            .count()
    }

    fn check_bounds(weights: &[u32], placement: &[ShardId]) -> Result<(), TestCaseError> {
        let total: u32 = weights.iter().sum();
        for (shard, weight) in weights.iter().enumerate() {
            let fair = SLOT_COUNT as f64 * f64::from(*weight) / f64::from(total);
            let slots = count(placement, shard);
            prop_assert!(
                slots <= (fair * 1.05).ceil() as usize,
                "shard {} has {} of {}",
                shard,
                slots,
                fair
            );
            prop_assert!(
                slots >= (fair * 0.95).floor() as usize,
                "shard {} has {} of {}",
                shard,
                slots,
                fair
            );
        }
        Ok(())
    }

    #[test]
    fn the_placement_is_the_same_in_every_process_and_version() {
        let placement = propose(&members(&[1, 1, 1, 1]), 160, &[], &NO_PINS).unwrap();
        let bytes: Vec<u8> = placement
            .iter()
            .flat_map(|shard| shard.0.to_le_bytes())
            .collect();
        assert_eq!(hash_bytes(&bytes, 0), 16_688_845_802_764_535_575);
    }

    #[test]
    fn pins_win_and_only_their_slots_move() {
        let before = place(&[1, 1, 1], &[]);
        let pins: BTreeMap<_, _> = (0..100).map(|slot| (SlotId(slot), ShardId(2))).collect();
        let after = propose(&members(&[1, 1, 1]), 40, &owned(&before), &pins).unwrap();
        for slot in 0..SLOT_COUNT {
            let expected = if slot < 100 { ShardId(2) } else { before[slot] };
            assert_eq!(after[slot], expected, "{slot}");
        }
    }

    #[test]
    fn a_shard_of_weight_0_holds_its_pins_only() {
        let pins: BTreeMap<_, _> = [(SlotId(7), ShardId(1)), (SlotId(9000), ShardId(1))].into();
        let placement = propose(&members(&[1, 0, 1]), 40, &[], &pins).unwrap();
        assert_eq!(count(&placement, 1), 2);
        assert_eq!((placement[7], placement[9000]), (ShardId(1), ShardId(1)));
        assert_eq!(count(&placement, 0), 8191);
    }

    #[test]
    fn a_shard_with_more_pins_than_its_share_gets_nothing_else() {
        let pins: BTreeMap<_, _> = (0..10_000).map(|slot| (SlotId(slot), ShardId(0))).collect();
        let placement = propose(&members(&[1, 1, 1]), 40, &[], &pins).unwrap();
        let counts = [0, 1, 2].map(|shard| count(&placement, shard));
        assert_eq!(counts, [10_000, 3192, 3192]);
    }

    #[test]
    fn no_weight_and_unknown_shards_are_errors() {
        assert_eq!(
            propose(&members(&[0, 0]), 40, &[], &NO_PINS),
            Err(RingError::NoWeight)
        );
        assert_eq!(propose(&[], 40, &[], &NO_PINS), Err(RingError::NoWeight));
        let current = [Some(ShardId(2))];
        assert_eq!(
            propose(&members(&[1, 1]), 40, &current, &NO_PINS),
            Err(RingError::UnknownShard(ShardId(2)))
        );
    }

    #[test]
    fn a_ring_is_not_blocks() {
        // Neighbouring slots are spread: with blocks there would be three borders only.
        let placement = place(&[1, 1, 1, 1], &[]);
        assert!(
            placement
                .windows(2)
                .filter(|pair| pair[0] != pair[1])
                .count()
                > SLOT_COUNT / 2
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn every_shard_is_within_its_bounds(weights in proptest::collection::vec(1_u32..5, 1..9)) {
            let placement = place(&weights, &[]);
            check_bounds(&weights, &placement)?;
            prop_assert_eq!(place(&weights, &owned(&placement)), placement);
        }

        #[test]
        fn adding_a_shard_moves_its_share_all_to_it(mut weights in proptest::collection::vec(1_u32..4, 1..9), weight in 1_u32..4) {
            let before = place(&weights, &[]);
            weights.push(weight);
            let after = place(&weights, &owned(&before));
            let added = ShardId(weights.len() as u16 - 1);
            let moved: Vec<usize> = (0..SLOT_COUNT).filter(|slot| before[*slot] != after[*slot]).collect();
            prop_assert!(moved.iter().all(|slot| after[*slot] == added));
            let fair = SLOT_COUNT * weight as usize / weights.iter().sum::<u32>() as usize;
            prop_assert!(moved.len().abs_diff(fair) <= 1, "{} of {}", moved.len(), fair);
            check_bounds(&weights, &after)?;
        }

        #[test]
        fn draining_a_shard_moves_only_its_own(mut weights in proptest::collection::vec(1_u32..4, 2..9), drained: proptest::sample::Index) {
            let before = place(&weights, &[]);
            let drained = drained.index(weights.len());
            weights[drained] = 0;
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let after = place(&weights, &owned(&before));
            for slot in 0..SLOT_COUNT {
                let is_drained = usize::from(before[slot].0) == drained;
                prop_assert_eq!(before[slot] != after[slot], is_drained);
            }
            check_bounds(&weights, &after)?;
        }

        #[test]
        fn a_life_of_changes_keeps_each_promise(
            drains in proptest::collection::vec(proptest::option::of(any::<proptest::sample::Index>()), 1..6),
        ) {
            let mut weights = vec![1; 8];
            let mut placement = place(&weights, &[]);
            for drain in drains {
                let live: Vec<usize> = (0..weights.len()).filter(|shard| weights[*shard] > 0).collect();
                let changed = match drain {
                    Some(index) if live.len() > 1 => live[index.index(live.len())],
                    _ => weights.len(),
                };
                weights.resize(weights.len().max(changed + 1), 0);
                weights[changed] = 1 - weights[changed];
                let after = place(&weights, &owned(&placement));
                for slot in (0..SLOT_COUNT).filter(|slot| placement[*slot] != after[*slot]) {
                    let between = [placement[slot], after[slot]].map(|shard| usize::from(shard.0));
                    prop_assert!(between.contains(&changed), "{:?} without {}", between, changed);
                }
                check_bounds(&weights, &after)?;
                placement = after;
            }
        }

        #[test]
        fn any_placement_comes_within_bounds_at_once(weights in proptest::collection::vec(1_u32..4, 2..7), seed: u64) {
            let shard = |slot: u16| (hash_bytes(&slot.to_le_bytes(), seed) % 20) as u16;
            let current: Vec<_> = (0..SLOT_COUNT as u16).map(|slot| Some(ShardId(shard(slot))).filter(|shard| usize::from(shard.0) < weights.len())).collect();
            let after = place(&weights, &current);
            check_bounds(&weights, &after)?;
            prop_assert_eq!(place(&weights, &owned(&after)), after);
        }

        #[test]
        fn the_order_of_shards_does_not_matter(weights in proptest::collection::vec(1_u32..4, 2..7)) {
            let mut reversed = members(&weights);
            reversed.reverse();
            let there = propose(&reversed, 40, &[], &NO_PINS).unwrap();
            let name = |shard: ShardId| ShardId(weights.len() as u16 - 1 - shard.0);
            prop_assert_eq!(there.iter().copied().map(name).collect::<Vec<_>>(), place(&weights, &[]));
        }
    }
}

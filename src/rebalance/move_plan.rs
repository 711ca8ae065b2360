//! What a rebalance would do: the fewest moves from what the shards own to what the shard map declares, how much they carry,
//! and what stands in their way. Pure; [`super::survey`] asks the shards for the facts.

use super::table::MovedTable;
use crate::topology::slot::SlotSet;
use crate::topology::snapshot::SlotOwner;
use crate::topology::{SLOT_COUNT, ShardId, SlotId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The oldest PostgreSQL whose publications take row filters.
const VERSION_MIN: i32 = 150_000;

/// Slots that change their owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMove {
    /// Loses them.
    pub source: ShardId,
    /// Gets them.
    pub target: ShardId,
    /// Which.
    pub slots: SlotSet,
    /// By the statistics of the source.
    pub rows: i64,
    /// The same in bytes.
    pub bytes: i64,
}

/// Something that must be mended before slots can move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The shard's name.
    pub shard: Arc<str>,
    /// What is wrong, and what to do about it.
    pub what: String,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.shard, self.what)
    }
}

/// What one shard says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `server_version_num`
    pub version: i32,
    /// `wal_level`
    pub wal_level: String,
    /// `max_replication_slots` less those that there are.
    pub slots_free: i32,
    /// `max_wal_senders` less those that run.
    pub senders_free: i32,
    /// `max_logical_replication_workers` less those that run.
    pub workers_free: i32,
    /// `max_prepared_transactions`
    pub prepared_transactions_max: i32,
    /// Whether the control plane's role may do all of it.
    pub is_superuser: bool,
    /// The routers that listen.
    pub routers: Vec<i64>,
    /// The sharded tables.
    pub tables: Vec<MovedTable>,
    /// How many slots it owns.
    pub owned: usize,
    /// Moves that are not over.
    pub moves: Vec<String>,
    /// Shards of its moves that it cannot reach, with the reason.
    pub unreachable: Vec<(Arc<str>, String)>,
    /// It lacks what was written before it came.
    pub is_joining: bool,
}

/// What there is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MovePlan {
    /// In the order in which they are done.
    pub moves: Vec<PlannedMove>,
    /// None, or nothing is done.
    pub blockers: Vec<Blocker>,
}

/// The fewest moves from `current` to `proposed`, both by slot. Slots that are not owned by exactly one shard are no business
/// of a move: they are returned beside.
pub fn moves(
    current: impl Iterator<Item = (SlotId, SlotOwner)>,
    proposed: &[ShardId],
) -> (Vec<PlannedMove>, SlotSet) {
    let mut slots: BTreeMap<(ShardId, ShardId), SlotSet> = BTreeMap::new();
    let mut unowned = SlotSet::new();
    for ((slot, owner), target) in current.zip(proposed) {
        match owner {
            SlotOwner::Shard(source) | SlotOwner::Fenced(source) if source != *target => {
                slots.entry((*target, source)).or_default().insert(slot);
            }
            SlotOwner::Shard(_) | SlotOwner::Fenced(_) => {}
            SlotOwner::Gap | SlotOwner::Overlap(..) => unowned.insert(slot),
        }
    }
    let moves = slots
        .into_iter()
        .map(|((target, source), slots)| PlannedMove {
            source,
            target,
            slots,
            rows: 0,
            bytes: 0,
        });
    (moves.collect(), unowned)
}

/// Fills in how much a move carries: its part of what its source has.
pub fn estimate(planned: &mut PlannedMove, source: &Facts) {
    let part = planned.slots.len() as f64 / source.owned.max(1) as f64;
    let sum = |of: fn(&MovedTable) -> i64| {
        let total: i64 = source.tables.iter().map(of).sum();
        (total as f64 * part).round() as i64
    };
    planned.rows = sum(|table| table.rows);
    planned.bytes = sum(|table| table.bytes);
}

/// Everything that stands in the way of the moves. `facts` and `names` are by [`ShardId`].
pub fn blockers(moves: &[PlannedMove], names: &[Arc<str>], facts: &[Facts]) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    for (shard, (name, facts)) in names.iter().zip(facts).enumerate() {
        let shard = ShardId(shard as u16);
        let mut block = |what: String| {
            blockers.push(Blocker {
                shard: name.clone(),
                what,
            });
        };
        for open in &facts.moves {
            block(format!(
                "{open} is not over: complete, roll back or cancel it first"
            ));
        }
        let gives = moves
            .iter()
            .filter(|planned| planned.source == shard)
            .count() as i32;
        let takes = moves
            .iter()
            .filter(|planned| planned.target == shard)
            .count() as i32;
        if takes > 0 && facts.is_joining {
            block("it has not joined the cluster yet: run pgring init".to_owned());
        }
        if gives + takes > 0 {
            shard_blockers(facts, gives, takes, &mut block);
        }
    }
    for planned in moves {
        let (source, target) = (usize::from(planned.source.0), usize::from(planned.target.0));
        let differences = drift(&facts[source], &names[source], &facts[target]);
        blockers.extend(differences.into_iter().map(|what| Blocker {
            shard: names[target].clone(),
            what,
        }));
    }
    // The same may stand in the way of many moves.
    let mut seen = Vec::new();
    blockers.retain(|blocker| {
        let is_new = !seen.contains(blocker);
        seen.push(blocker.clone());
        is_new
    });
    blockers
}

/// What one shard lacks that gives slots away in so many moves and gets some in others. They are copied one after the
/// other, and then may all be kept at the same time: the source follows, the target sends.
fn shard_blockers(facts: &Facts, gives: i32, takes: i32, block: &mut impl FnMut(String)) {
    let (sends, follows) = (takes + gives.min(1), gives + takes.min(1));
    if facts.version < VERSION_MIN {
        block("PostgreSQL 15 is the oldest that moves slots".to_owned());
    }
    if facts.wal_level != "logical" {
        block(format!(
            "wal_level is {}: it must be logical, which needs a restart",
            facts.wal_level
        ));
    }
    for (free, needed, setting) in [
        (facts.slots_free, sends, "max_replication_slots"),
        // The one that makes the slot, too.
        (facts.senders_free, sends + gives.min(1), "max_wal_senders"),
        (
            facts.workers_free,
            follows,
            "max_logical_replication_workers",
        ),
    ] {
        if free < needed {
            block(format!(
                "{setting}: {free} are free, and {needed} are needed"
            ));
        }
    }
    if facts.prepared_transactions_max == 0 {
        block("max_prepared_transactions is 0, so that no slot can change its owner".to_owned());
    }
    if !facts.is_superuser {
        block("the role of [backend] is no superuser, which subscriptions need".to_owned());
    }
    for (other, reason) in &facts.unreachable {
        block(format!("its server cannot reach shard {other}: {reason}"));
    }
    for table in &facts.tables {
        for leaf in &table.leaves {
            if leaf.is_unlogged {
                block(format!(
                    "table {} is unlogged, and so cannot be followed",
                    leaf.name
                ));
            }
            if !leaf.identifies(&table.key) {
                block(format!(
                    "table {}: its replica identity lacks the sharding key {}: put the key into the primary key, or ALTER TABLE … REPLICA IDENTITY FULL",
                    leaf.name, table.key
                ));
            }
        }
    }
}

/// How the tables of a target differ from the source's.
fn drift(source: &Facts, source_name: &str, target: &Facts) -> Vec<String> {
    let mut differences = Vec::new();
    for table in &source.tables {
        let other = target.tables.iter().find(|other| other.name == table.name);
        match other {
            None => differences.push(format!(
                "table {} is missing, which shard {source_name} has",
                table.name
            )),
            Some(other) if other.definition != table.definition => differences.push(format!(
                "table {} differs: ({}) here, ({}) on shard {source_name}",
                table.name, other.definition, table.definition
            )),
            Some(other) if other.is_partitioned != table.is_partitioned => {
                differences.push(format!(
                    "table {} is partitioned on one of this shard and shard {source_name} only",
                    table.name
                ))
            }
            Some(_) => {}
        }
    }
    if source.version / 10_000 > target.version / 10_000 {
        differences.push(format!(
            "its PostgreSQL {} is older than shard {source_name}'s {}",
            target.version / 10_000,
            source.version / 10_000
        ));
    }
    let unaware = source
        .routers
        .iter()
        .filter(|router| !target.routers.contains(router));
    for router in unaware {
        differences.push(format!(
            "router {router}, which listens to shard {source_name}, does not listen here: its shard map may lack this shard"
        ));
    }
    differences
}

/// The share of all slots that moves.
pub fn moved_share(moves: &[PlannedMove]) -> f64 {
    let slots: usize = moves.iter().map(|planned| planned.slots.len()).sum();
    slots as f64 / SLOT_COUNT as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rebalance::table::Leaf;
    use crate::topology::key_value::KeyType;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);
    const C: ShardId = ShardId(2);

    fn owners(owners: &[SlotOwner]) -> impl Iterator<Item = (SlotId, SlotOwner)> + '_ {
        (0u16..).map(SlotId).zip(owners.iter().copied())
    }

    fn table(identity: &[&str]) -> MovedTable {
        MovedTable {
            name: "public.orders".to_owned(),
            key: "id".to_owned(),
            key_type: KeyType::Int8,
            is_partitioned: false,
            columns: vec!["\"id\"".to_owned()],
            definition: "id bigint not null".to_owned(),
            has_own_types: false,
            leaves: vec![Leaf {
                name: "public.orders".to_owned(),
                identity: identity.iter().map(|column| (*column).to_owned()).collect(),
                identity_is_full: false,
                is_unlogged: false,
            }],
            rows: 1000,
            bytes: 8000,
        }
    }

    fn good() -> Facts {
        Facts {
            version: 150_004,
            wal_level: "logical".to_owned(),
            slots_free: 10,
            senders_free: 10,
            workers_free: 4,
            prepared_transactions_max: 64,
            is_superuser: true,
            routers: vec![7],
            tables: vec![table(&["id"])],
            owned: 4,
            moves: Vec::new(),
            unreachable: Vec::new(),
            is_joining: false,
        }
    }

    fn names() -> Vec<Arc<str>> {
        vec!["a".into(), "b".into(), "c".into()]
    }

    fn one_move() -> Vec<PlannedMove> {
        let current = [SlotOwner::Shard(A); 4];
        moves(owners(&current), &[A, A, A, B]).0
    }

    fn told(facts: [Facts; 3]) -> Vec<String> {
        let blockers = blockers(&one_move(), &names(), &facts);
        blockers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_slots_that_change_their_owner_move() {
        let current = [
            SlotOwner::Shard(A),
            SlotOwner::Shard(A),
            SlotOwner::Fenced(B),
            SlotOwner::Gap,
            SlotOwner::Overlap(A, B),
        ];
        let (moves, unowned) = moves(owners(&current), &[A, C, C, A, A]);
        let pairs: Vec<_> = moves
            .iter()
            .map(|planned| (planned.source, planned.target, planned.slots.to_string()))
            .collect();
        assert_eq!(
            pairs,
            [(A, C, "{[1,2)}".to_owned()), (B, C, "{[2,3)}".to_owned())]
        );
        assert_eq!(unowned.to_string(), "{[3,5)}");
    }

    #[test]
    fn a_move_carries_its_part_of_the_source() {
        let mut planned = one_move().remove(0);
        estimate(&mut planned, &good());
        assert_eq!((planned.rows, planned.bytes), (250, 2000));
        assert!(moved_share(&[planned]) < 0.0001);
    }

    #[test]
    fn nothing_stands_in_the_way_of_good_shards() {
        assert_eq!(told([good(), good(), good()]), [""; 0]);
    }

    #[test]
    fn a_shard_that_takes_no_part_may_lack_everything() {
        let facts = Facts {
            moves: Vec::new(),
            ..Facts::default()
        };
        assert_eq!(told([good(), good(), facts]), [""; 0]);
    }

    #[test]
    fn whatever_a_shard_lacks_is_named() {
        let mut source = good();
        source.wal_level = "replica".to_owned();
        source.slots_free = 0;
        source.prepared_transactions_max = 0;
        source.is_superuser = false;
        source.tables = vec![table(&["other"])];
        source.unreachable = vec![("b".into(), "no route".to_owned())];
        let told = told([source, good(), good()]);
        for part in [
            "wal_level is replica",
            "max_replication_slots: 0 are free, and 1 are needed",
            "max_prepared_transactions is 0",
            "no superuser",
            "lacks the sharding key id",
            "cannot reach shard b: no route",
        ] {
            assert!(
                told.iter().any(|line| line.contains(part)),
                "{part}: {told:?}"
            );
        }
    }

    #[test]
    fn what_the_target_has_otherwise_is_named() {
        let mut missing = good();
        missing.tables.clear();
        assert_eq!(
            told([good(), missing, good()]),
            ["shard b: table public.orders is missing, which shard a has"]
        );
        let mut other = good();
        other.tables[0].definition = "id integer".to_owned();
        other.version = 140_000;
        other.routers.clear();
        let told = told([good(), other, good()]);
        assert!(
            told[1].contains("differs: (id integer) here, (id bigint not null)"),
            "{told:?}"
        );
        assert!(told[2].contains("is older than"), "{told:?}");
        assert!(told[3].contains("router 7"), "{told:?}");
    }

    #[test]
    fn a_shard_that_has_not_joined_gets_no_slots() {
        let mut new = good();
        new.is_joining = true;
        assert_eq!(told([good(), good(), new.clone()]), [""; 0]);
        assert_eq!(
            told([good(), new, good()]),
            ["shard b: it has not joined the cluster yet: run pgring init"]
        );
    }

    #[test]
    fn a_move_that_is_not_over_blocks_all() {
        let mut facts = good();
        facts.moves = vec!["move 3".to_owned()];
        assert_eq!(
            told([good(), good(), facts]),
            ["shard c: move 3 is not over: complete, roll back or cancel it first"]
        );
    }
}

//! Deadlocks that no shard can see by itself: transactions that wait for each other in a circle over several shards.
//! Pure: what each shard says of its waits goes in, circles come out. The questions are asked by [`super::detection`].
//!
//! A backend waits for those that [`Wait::blockers`] names. The backends of one distributed transaction carry one
//! [`Mark`] and are one node: it goes on only when all of its parts do. A circle within one shard is left to that shard's
//! own detector (PostgreSQL's chapter "Deadlocks").
//!
//! Shards are not read at one moment, so a circle is only a suspicion. It is one in truth if each of its waits is still
//! the same wait, begun at the same moment, when all shards are read again: between the two readings there is a moment
//! at which all of them held, and a transaction that waits gives nothing up.

use crate::topology::ShardId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;

/// What the parts of one distributed transaction carry on their shards: the key of a shared advisory lock, which ends
/// with the part, and which everyone can see in `pg_locks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(i64);

impl Mark {
    /// The upper 16 bits of every mark: by them it is told from locks of others.
    pub const SPACE: u16 = 0x7264;
    const NUMBER_BITS: u32 = 48;

    /// The mark with the lower 48 bits of `number`, which ought to be random.
    pub fn new(number: u64) -> Self {
        let number = number & ((1 << Self::NUMBER_BITS) - 1);
        let space = u64::from(Self::SPACE) << Self::NUMBER_BITS;
        Self((space | number).cast_signed())
    }

    /// The mark whose lock has this key; None for the lock of another.
    pub fn of_key(key: i64) -> Option<Self> {
        let space = key.cast_unsigned() >> Self::NUMBER_BITS;
        (space == u64::from(Self::SPACE)).then_some(Self(key))
    }

    /// The statement that marks a transaction on one shard, until it ends or rolls back to a savepoint from before.
    pub fn statement(self) -> String {
        format!("SELECT pg_catalog.pg_advisory_xact_lock_shared({})", self.0)
    }
}

/// Who holds or waits for a lock on one shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A server process.
    Backend(i32),
    /// A prepared transaction, by its virtual transaction as `pg_locks` shows it.
    Prepared(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(pid) => write!(f, "process {pid}"),
            Self::Prepared(_) => f.write_str("a prepared transaction"),
        }
    }
}

/// A process that waits for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The process; of a parallel query its leader.
    pub pid: i32,
    /// When it began, in microseconds of the shard's clock: tells this wait from a later one of the same process.
    pub since: i64,
    /// For whom, holders and those ahead in the queue.
    pub blockers: Vec<Holder>,
}

/// A part of a distributed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Who runs it.
    pub holder: Holder,
    /// Of which transaction.
    pub mark: Mark,
    /// When it began, in microseconds of the shard's clock, if that is known.
    pub began: Option<i64>,
}

/// What one shard said at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Its waits.
    pub waits: Vec<Wait>,
    /// Its parts of distributed transactions.
    pub parts: Vec<Part>,
}

/// Who waits: a distributed transaction, or whatever else runs on one shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Node {
    Distributed(Mark),
    Local(ShardId, Holder),
}

/// One wait for one other, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Edge {
    from: Node,
    to: Node,
    shard: ShardId,
    waiter: i32,
    since: i64,
    blocker: Holder,
}

/// A circle of waits over several shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlock {
    edges: Vec<Edge>,
    /// The distributed transactions in it, the one that began last first.
    pub youngest_first: Vec<Mark>,
}

impl Deadlock {
    /// Whether each of its waits is there still, and for the same transactions.
    pub fn stands(&self, looks: &BTreeMap<ShardId, Look>) -> bool {
        let now: BTreeSet<Edge> = edges(looks).into_iter().collect();
        self.edges.iter().all(|edge| now.contains(edge))
    }

    /// Whether it is the same circle of the same waits.
    pub fn is_same(&self, other: &Self) -> bool {
        self.edges == other.edges
    }

    /// Its waits in words.
    pub fn describe(&self, shard_name: impl Fn(ShardId) -> String) -> String {
        let waits = self.edges.iter().map(|edge| {
            format!(
                "On shard {} process {} waits for {}.",
                shard_name(edge.shard),
                edge.waiter,
                edge.blocker
            )
        });
        waits.collect::<Vec<_>>().join("\n")
    }
}

/// All waits as edges between transactions.
fn edges(looks: &BTreeMap<ShardId, Look>) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (shard, look) in looks {
        let marks: HashMap<&Holder, Mark> = look
            .parts
            .iter()
            .map(|part| (&part.holder, part.mark))
            .collect();
        let node = |holder: &Holder| match marks.get(holder) {
            Some(mark) => Node::Distributed(*mark),
            None => Node::Local(*shard, holder.clone()),
        };
        for wait in &look.waits {
            let from = node(&Holder::Backend(wait.pid));
            for blocker in &wait.blockers {
                edges.push(Edge {
                    from: from.clone(),
                    to: node(blocker),
                    shard: *shard,
                    waiter: wait.pid,
                    since: wait.since,
                    blocker: blocker.clone(),
                });
            }
        }
    }
    edges.sort();
    edges.dedup();
    edges
}

/// Distributed transactions in the order of their beginning, which is that of their first part; of equals by mark.
fn youngest_first(looks: &BTreeMap<ShardId, Look>) -> Vec<Mark> {
    let mut began: BTreeMap<Mark, i64> = BTreeMap::new();
    for part in looks.values().flat_map(|look| &look.parts) {
        let first = began.entry(part.mark).or_insert(i64::MAX);
        *first = (*first).min(part.began.unwrap_or(i64::MAX));
    }
    let mut marks: Vec<(i64, Mark)> = began.into_iter().map(|(mark, at)| (at, mark)).collect();
    marks.sort_unstable_by(|a, b| b.cmp(a));
    marks.into_iter().map(|(_, mark)| mark).collect()
}

/// The circles that these looks show, at most one for each transaction that would be cancelled for it; whoever sees the
/// same finds the same.
pub fn deadlocks(looks: &BTreeMap<ShardId, Look>) -> Vec<Deadlock> {
    let edges = edges(looks);
    let order = youngest_first(looks);
    let mut outgoing: BTreeMap<&Node, Vec<&Edge>> = BTreeMap::new();
    for edge in &edges {
        outgoing.entry(&edge.from).or_default().push(edge);
    }
    let mut broken: BTreeSet<Mark> = BTreeSet::new();
    let mut found = Vec::new();
    for mark in &order {
        // One that ends frees all who wait for it.
        let Some(circle) = circle(*mark, &outgoing, &broken) else {
            continue;
        };
        let inside: BTreeSet<Mark> = circle
            .iter()
            .filter_map(|edge| match edge.from {
                Node::Distributed(mark) => Some(mark),
                Node::Local(..) => None,
            })
            .collect();
        let inside = order.iter().filter(|mark| inside.contains(mark));
        let youngest_first: Vec<Mark> = inside.copied().collect();
        broken.extend(youngest_first.first());
        found.push(Deadlock {
            youngest_first,
            edges: circle.into_iter().cloned().collect(),
        });
    }
    found
}

/// A shortest circle of waits over more than one shard that starts at `mark` and leaves out what is `broken`.
fn circle<'a>(
    mark: Mark,
    outgoing: &BTreeMap<&'a Node, Vec<&'a Edge>>,
    broken: &BTreeSet<Mark>,
) -> Option<Vec<&'a Edge>> {
    let start = Node::Distributed(mark);
    // A way is told from others to the same node by the one shard that it has used, if it is one.
    let mut seen: BTreeSet<(&Node, Option<ShardId>)> = BTreeSet::new();
    let mut ways: VecDeque<(Vec<&Edge>, Option<ShardId>)> = VecDeque::new();
    ways.push_back((Vec::new(), None));
    while let Some((way, only)) = ways.pop_front() {
        let at = way.last().map_or(&start, |edge| &edge.to);
        for edge in outgoing.get(at).into_iter().flatten() {
            let is_broken = matches!(edge.to, Node::Distributed(other) if broken.contains(&other));
            if is_broken || way.iter().any(|before| before.to == edge.to) {
                continue;
            }
            let only = match way.is_empty() {
                true => Some(edge.shard),
                false => only.filter(|only| *only == edge.shard),
            };
            let mut longer = way.clone();
            longer.push(*edge);
            if edge.to == start {
                match only {
                    None => return Some(longer),
                    Some(_) => continue,
                }
            }
            if seen.insert((&edge.to, only)) {
                ways.push_back((longer, only));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn mark(number: u64) -> Mark {
        Mark(((Mark::SPACE as i64) << 48) | number as i64)
    }

    /// Shards by number, each with `waiter > blocker` pairs of transactions: T1 has process 1 everywhere; from 50 on
    /// they are local.
    fn looks(shards: &[&[(i32, i32)]]) -> BTreeMap<ShardId, Look> {
        let mut looks = BTreeMap::new();
        for (shard, waits) in (0u16..).zip(shards) {
            let mut look = Look::default();
            for (waiter, blocker) in *waits {
                look.waits.push(Wait {
                    pid: *waiter,
                    since: i64::from(*waiter),
                    blockers: vec![Holder::Backend(*blocker)],
                });
                for pid in [*waiter, *blocker] {
                    let part = Part {
                        holder: Holder::Backend(pid),
                        mark: mark(pid as u64),
                        began: Some(i64::from(pid)),
                    };
                    if pid < 50 && !look.parts.contains(&part) {
                        look.parts.push(part);
                    }
                }
            }
            looks.insert(ShardId(shard), look);
        }
        looks
    }

    fn victims(shards: &[&[(i32, i32)]]) -> Vec<Mark> {
        let found = deadlocks(&looks(shards));
        found.iter().map(|found| found.youngest_first[0]).collect()
    }

    #[test]
    fn a_mark_is_told_from_other_locks() {
        let mark = Mark::new(u64::MAX);
        assert_eq!(Mark::of_key(mark.0), Some(mark));
        assert_eq!(Mark::of_key(42), None);
        assert_eq!(Mark::of_key(-1), None);
        assert!(Mark::new(7).statement().ends_with("(8242713217994850311)"));
    }

    #[test]
    fn two_that_wait_for_each_other_on_two_shards_are_found() {
        assert_eq!(victims(&[&[(1, 2)], &[(2, 1)]]), [mark(2)]);
    }

    #[test]
    fn a_mere_wait_is_none() {
        assert_eq!(victims(&[&[(1, 2)], &[]]), []);
        assert_eq!(victims(&[&[(1, 2)], &[(1, 2)]]), []);
        assert_eq!(victims(&[&[(1, 2)], &[(2, 3)], &[(1, 3)]]), []);
    }

    #[test]
    fn a_circle_on_one_shard_is_that_shards_own() {
        assert_eq!(victims(&[&[(1, 2), (2, 1)], &[(1, 3)]]), []);
    }

    #[test]
    fn three_in_a_circle_lose_the_youngest() {
        assert_eq!(
            victims(&[&[(1, 2)], &[(2, 3)], &[(3, 1)], &[(4, 1)]]),
            [mark(3)]
        );
    }

    #[test]
    fn a_circle_through_a_transaction_on_one_shard_is_found() {
        // T1 waits on shard 0 for 50, which waits there for T2; T2 waits on shard 1 for T1.
        assert_eq!(victims(&[&[(1, 50), (50, 2)], &[(2, 1)]]), [mark(2)]);
        // Process 50 is another one on each shard.
        assert_eq!(victims(&[&[(1, 50)], &[(50, 1)]]), []);
    }

    #[test]
    fn a_longer_way_over_two_shards_is_found_beside_a_short_one_on_one() {
        // T3 and T1 are a circle on shard 0 too.
        let found = deadlocks(&looks(&[&[(3, 1), (1, 3), (3, 2)], &[(2, 3)]]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].youngest_first, [mark(3), mark(2)]);
    }

    #[test]
    fn two_circles_that_share_a_victim_are_broken_by_it() {
        assert_eq!(victims(&[&[(3, 1), (3, 2)], &[(1, 3), (2, 3)]]), [mark(3)]);
        assert_eq!(
            victims(&[&[(1, 2), (3, 4)], &[(2, 1), (4, 3)]]),
            [mark(4), mark(2)]
        );
    }

    #[test]
    fn a_prepared_part_is_a_part() {
        let mut looks = looks(&[&[(1, 2)], &[(2, 1)]]);
        let look = looks.get_mut(&ShardId(1)).unwrap();
        let prepared = Holder::Prepared("-1/77".to_owned());
        look.waits[0].blockers = vec![prepared.clone()];
        assert_eq!(deadlocks(&looks), []);
        looks.get_mut(&ShardId(1)).unwrap().parts.push(Part {
            holder: prepared,
            mark: mark(1),
            began: None,
        });
        let found = deadlocks(&looks);
        assert_eq!(found[0].youngest_first, [mark(2), mark(1)]);
        let told = found[0].describe(|shard| format!("s{}", shard.0));
        assert!(
            told.contains("On shard s1 process 2 waits for a prepared transaction."),
            "{told}"
        );
    }

    #[test]
    fn a_deadlock_stands_only_while_each_wait_is_the_same() {
        let mut looks = looks(&[&[(1, 2)], &[(2, 1)]]);
        let found = deadlocks(&looks).remove(0);
        assert!(found.stands(&looks));
        looks.get_mut(&ShardId(0)).unwrap().waits[0].since += 1;
        assert!(!found.stands(&looks));
        looks.get_mut(&ShardId(0)).unwrap().waits[0].since -= 1;
        looks.get_mut(&ShardId(1)).unwrap().parts[0].mark = mark(9);
        assert!(!found.stands(&looks));
    }

    /// Whether some transaction waits, over whatever, for itself.
    fn has_circle(edges: &[Edge]) -> bool {
        let mut reached: BTreeSet<(Node, Node)> = edges
            .iter()
            .map(|edge| (edge.from.clone(), edge.to.clone()))
            .collect();
        loop {
            let pairs = reached.iter();
            let longer: Vec<_> = pairs
                .flat_map(|(a, b)| {
                    let onward = reached.iter().filter(move |(from, _)| from == b);
                    onward.map(move |(_, c)| (a.clone(), c.clone()))
                })
                .collect();
            let before = reached.len();
            reached.extend(longer);
            if reached.len() == before {
                return reached.iter().any(|(a, b)| a == b);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_a_circle_over_shards_and_without_the_victims_none_is_left(
            waits in prop::collection::vec((0usize..3, 1i32..8, 1i32..8), 0..16)
        ) {
            let mut shards = vec![Vec::new(); 3];
            for (shard, waiter, blocker) in waits {
                if waiter != blocker {
                    shards[shard].push((waiter, blocker));
                }
            }
            let shards: Vec<&[(i32, i32)]> = shards.iter().map(Vec::as_slice).collect();
            let looks = looks(&shards);
            let found = deadlocks(&looks);
            for deadlock in &found {
                let edges = &deadlock.edges;
                for (edge, next) in edges.iter().zip(edges.iter().cycle().skip(1)) {
                    prop_assert_eq!(&edge.to, &next.from);
                }
                prop_assert!(edges.iter().any(|edge| edge.shard != edges[0].shard));
                prop_assert!(deadlock.stands(&looks));
            }
            // What is left of circles is within one shard each, or through transactions that are no more.
            let victims: Vec<Mark> =
                found.iter().map(|found| found.youngest_first[0]).collect();
            let mut left: Vec<Edge> = edges(&looks);
            left.retain(|edge| {
                [&edge.from, &edge.to].iter().all(|node| match node {
                    Node::Distributed(mark) => !victims.contains(mark),
                    Node::Local(..) => true,
                })
            });
            if has_circle(&left) {
                for mark in youngest_first(&looks) {
                    let mut outgoing: BTreeMap<&Node, Vec<&Edge>> = BTreeMap::new();
                    for edge in &left {
                        outgoing.entry(&edge.from).or_default().push(edge);
                    }
                    prop_assert!(circle(mark, &outgoing, &BTreeSet::new()).is_none());
                }
            }
        }
    }
}

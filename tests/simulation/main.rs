//! Commits over several shards with crashes after every step, seed by seed: the router's own decisions
//! ([`pgring::transaction::two_phase`]) over shards that are made of a log alone ([`shard`]).
//!
//! Routers, clients, recovery and snapshots are tasks ([`router`]) that talk to shards over connections. Between any two
//! steps the order is drawn: a request may be executed long after its router is gone, an answer may be lost, a router or a
//! shard may crash, a shard may lose what it had not written out, or fail over to a copy that lags. What must hold is
//! asserted at each step and at the end ([`world`]).
//!
//! `PGRING_SIMULATION_SEEDS` says how many seeds, `PGRING_SIMULATION_SEED` which is the first.

// Not all of it is used here.
#[allow(dead_code)]
#[path = "../differential/random.rs"]
mod random;
mod router;
mod shard;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Flaw, Told, World};

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// Runs seeds until one fails; what it said. Counts what clients were told.
fn first_failure(
    flaw: Option<Flaw>,
    start: u64,
    seeds: u64,
    told: &mut BTreeMap<Told, usize>,
) -> Option<String> {
    (start..start + seeds).find_map(|seed| {
        let run = catch_unwind(AssertUnwindSafe(|| World::new(seed, flaw).run(told)));
        let panic = run.err()?;
        let said = panic.downcast_ref::<String>().cloned();
        Some(format!("seed {seed}: {}", said.unwrap_or_default()))
    })
}

#[test]
fn a_commit_is_all_or_none_whatever_crashes() {
    let start = setting("PGRING_SIMULATION_SEED", 1);
    let seeds = setting("PGRING_SIMULATION_SEEDS", 1500);
    let mut told = BTreeMap::new();
    assert_eq!(first_failure(None, start, seeds, &mut told), None);
    // Most is not to be cut short, and each end is to be seen.
    println!("{seeds} seeds: {told:?}");
    let seen = |what| told.get(&what).copied().unwrap_or_default() as u64;
    assert!(seen(Told::Committed) > seeds);
    assert!(seen(Told::RolledBack) > seeds / 2);
    assert!(seen(Told::Unknown) > seeds / 100);
}

/// Each of these is a part of the protocol that nobody would miss on a day without crashes.
#[test]
fn what_the_protocol_rests_on_is_missed_when_it_is_left_out() {
    for flaw in Flaw::ALL {
        let found = first_failure(Some(flaw), 1, 10_000, &mut BTreeMap::new());
        println!("{flaw:?}: {found:?}");
        assert!(found.is_some(), "{flaw:?} is not noticed");
    }
}

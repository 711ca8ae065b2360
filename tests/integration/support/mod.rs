//! What the tests stand on: throw-away PostgreSQLs ([`cluster`]), one test's databases and router ([`deployment`]),
//! a client that hides nothing ([`client`]), a link that can be cut ([`fault`]) and a look at a process's [`memory`]. Shared by all test binaries, so
//! not every one uses all of it.

#![allow(dead_code, unused_imports)]

pub mod client;
pub mod cluster;
pub mod deployment;
pub mod fault;
pub mod memory;
pub mod process;

pub use client::{Client, Failure, Reply, Target};
pub use deployment::{Deployment, Router};

use std::time::{Duration, Instant};

/// Waits until `condition` holds; the test fails if that takes longer than `limit`.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A number from the environment, for long runs by hand.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number"))
    })
}

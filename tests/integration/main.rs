//! The router as a process over real PostgreSQLs. One binary, so that the servers start once; each test has databases
//! of its own. `PGRING_CRASH_ROUNDS` and `PGRING_KILL_ROUNDS` make the crash loops longer, `PGRING_SOAK_SECONDS` the soak;
//! `PGRING_TEST_LOG` sets the routers' log level.

#[path = "../differential/random.rs"]
mod random;
mod support;

mod advise;
mod attached;
mod automatic;
mod behaviours;
mod console;
mod console_map;
mod console_moves;
mod copy;
mod crashes;
mod create_as;
mod cursors;
mod deadlocks;
mod decisions;
mod failures;
mod fence;
mod gather;
mod insert_select;
mod key_updates;
mod literals;
mod memory;
mod migrations;
mod misfits;
mod moves;
mod partial;
mod pg_dump;
mod pgbench;
mod pinning;
mod prepared;
mod protocol_errors;
mod rebalance;
mod routing;
mod sequences;
mod session_soak;
mod sessions;
mod shard_defaults;
mod shard_map;
mod snapshots;
mod soak;
mod spelled;
mod sql_prepare;
mod temporary;
mod transactions;
mod views;

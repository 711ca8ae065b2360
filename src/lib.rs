//! pgring: a PostgreSQL sharding router. Applications connect to it as if it were PostgreSQL; it finds the
//! sharding key of each statement, picks the shard from a consistent-hash ring, fans out and merges what
//! crosses shards, and commits across shards atomically.
//!
//! # Floors
//!
//! A module imports lower floors only, never its own; `tests/tidy.rs` enforces it.
//!
//! | Floor | Modules | |
//! |---|---|---|
//! | 9 | [`cli`] | one file per subcommand: arguments to a running router or a report |
//! | 8 | [`frontend`] | sockets and conversations; no decision about shards |
//! | 7 | [`admin`] | the operators' console: commands, what they show and change |
//! | 6 | [`router`] | every shared service as a named field; built once |
//! | 5 | [`rebalance`] | moves slots while clients run |
//! | 4 | [`executor`], [`transaction`] | run a plan on leases, merge rows · what a block touched and how it ends |
//! | 3 | [`planner`], [`backend`] | pure: statement + topology → plan · connections to shards |
//! | 2 | [`sql`], [`topology`] | pure: lexer, parser, classification · hash, slots, ring, schema, snapshot |
//! | 1 | [`wire`], [`telemetry`] | frames and messages · logs |
//! | 0 | [`config`] | the shard map's files as plain data |
//!
//! A query's way is the same for one shard and for many:
//! `read_request → topology.current → plan_for → transaction.lease → execute → observe → finished`.
//!
//! # Invariants
//!
//! - A statement plans against one topology.
//! - The planner never waits; the executor makes no routing choice.
//! - After the decider commits nothing rolls back.
//! - A lease goes back only at ReadyForQuery 'I'.
//! - A shard's error reaches the client byte for byte.
//! - No buffer without a named maximum.
//! - Ownership changes only inside a fence.
//!
//! # Glossary
//!
//! *Router*: one pgring process. *Shard*: one PostgreSQL primary with its replicas. *Slot*: one of 16384 parts
//! of the hash space, the unit of placement. *Ring*: proposes which shard should own a slot. *Ownership*: which
//! slots a shard owns now, stored on that shard. *Topology*: a router's immutable snapshot of all that.
//! *Sharded / reference / local table*: rows spread by key / full copy everywhere / lives on one named shard.
//! *Plan*, *step*: what to run where. *Lease*: a backend connection held by a session until ReadyForQuery 'I'.
//! *Decider*: the participant whose own commit is the decision of a distributed transaction.

pub mod cli;
pub mod frontend;
pub mod admin;
pub mod router;
pub mod rebalance;
pub mod executor;
pub mod transaction;
pub mod planner;
pub mod backend;
pub mod sql;
pub mod topology;
pub mod wire;
pub mod config;
pub mod telemetry;

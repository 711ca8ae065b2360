//! The shard map's files as plain data: what `pgring.toml` and `shards.toml` declare, checked as a whole.
//! They declare only: which shard owns which slot is recorded on the shards. Must not know sockets or catalogs.
//! Start at [`Config::load`].

mod address;
mod document;
pub mod edit;
mod load;
pub mod rewrite;
mod secret;
mod settings;
pub mod unit;

pub use address::{Address, AddressError};
pub use document::{ConfigError, Problem};
pub use load::{CONSOLE_DATABASE, LISTEN_FILE, SHARDS_FILE};
pub use secret::{ScramVerifier, Secret};
pub use settings::{Difference, Setting};

use std::path::PathBuf;
use std::time::Duration;

/// Everything that the two files of a `shard-config` directory declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directory that was loaded.
    pub directory: PathBuf,
    /// `[listen]`
    pub listen: Listen,
    /// `[[user]]`, at least one, names unique.
    pub users: Vec<User>,
    /// `[backend]`
    pub backend: Backend,
    /// `[pool]`
    pub pool: Pool,
    /// `[limits]`
    pub limits: Limits,
    /// `[merge]`
    pub merge: Merge,
    /// `[state]`
    pub state: State,
    /// `[recovery]`
    pub recovery: Recovery,
    /// `[deadlock]`
    pub deadlock: Deadlock,
    /// `[snapshot]`
    pub snapshot: Snapshot,
    /// `[rebalance]`
    pub rebalance: Rebalance,
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[ring]`
    pub ring: Ring,
    /// `[[shard]]`, at least one, names unique; the order gives the shards their index.
    pub shards: Vec<Shard>,
    /// `[[table]]`, names unique.
    pub tables: Vec<TableDeclaration>,
    /// `[[pin]]`
    pub pins: Vec<Pin>,
}

impl Config {
    /// The user called `name`.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }
}

/// Where clients and people connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Clients and the console; always [`Address::Tcp`]. Default 127.0.0.1:6432.
    pub address: Address,
    /// Metrics, health and page; always [`Address::Tcp`]. None by default.
    pub admin_http: Option<Address>,
    /// Threads that answer clients, at most 1024. 0, the default: one for each two processors.
    pub workers: usize,
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The role's name, here and on the shards.
    pub name: String,
    /// How the client proves itself.
    pub login: Login,
    /// Whether the console obeys it.
    pub admin: bool,
    /// Whether the console answers its questions.
    pub monitor: bool,
}

/// How a client proves that it is the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// SCRAM-SHA-256 against this password or verifier.
    Password(Secret),
    /// `trust = true`: not at all; the shards must let the role in without a password too.
    Trust,
}

/// The control plane's own role on the shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Role name.
    pub user: String,
    /// Never a verifier. Absent where the shards ask for none.
    pub password: Option<Secret>,
    /// How the shards' connections are protected.
    pub tls: BackendTls,
}

/// Protection of the connections to shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendTls {
    /// `"disable"`, the default: cleartext.
    Disable,
}

/// Pools of connections to the shards: one for each shard and user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// When a connection goes back. Default transaction.
    pub mode: PoolMode,
    /// Connections at most in each pool. Default 20.
    pub size: usize,
    /// Connections of each pool at most that sessions keep for what lives there. Default half of `size`.
    pub pinned: usize,
    /// How long a client waits for a connection. Default 5s.
    pub wait: Duration,
    /// How long a transaction waits while its shard is paused. Default 2min.
    pub pause: Duration,
    /// How long connecting and logging in to a shard may take. Default 5s.
    pub connect: Duration,
    /// After this long without use a connection is closed. Default 10min.
    pub idle: Duration,
    /// At this age a connection is closed as soon as it is idle. Default 1h.
    pub lifetime: Duration,
}

/// When a client's connections to shards go back to their pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// At the end of each transaction.
    Transaction,
    /// When the client leaves.
    Session,
}

/// Named limits. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once, logged in or not. Default 10000.
    pub clients: usize,
    /// Client connections at once that have not logged in yet. Default 1000.
    pub unauthenticated_clients: usize,
    /// From accept to the end of login. Default 15s.
    pub login: Duration,
    /// One message from a client or a shard. Default 1GB, at most `i32::MAX`.
    pub frame_bytes: usize,
    /// One message that goes to several shards, held once for each. Default 64MB.
    pub request_bytes: usize,
    /// Statement text that is parsed; longer text can only pass to a named shard. Default 1MB.
    pub statement_bytes: usize,
    /// Tokens of a statement that is parsed. Default 200000.
    pub statement_tokens: usize,
    /// Depth of nesting of a statement that is parsed. Default 100.
    pub statement_depth: usize,
    /// Rows gathered for one statement. Default 64MB.
    pub merge_bytes: usize,
    /// Rows gathered for all statements at once. Default 512MB.
    pub merge_bytes_total: usize,
    /// COPY data held for each shard. Default 1MB.
    pub copy_buffer_bytes: usize,
    /// What one block sets, and its savepoints, kept for shards that join later. Default 16MB.
    pub block_bytes: usize,
    /// Prepared statements of one client. Default 1000.
    pub prepared_statements: usize,
    /// Portals of one client. Default 1024.
    pub portals: usize,
    /// Prepared statements kept on one backend. Default 500.
    pub backend_prepared_statements: usize,
    /// Statement shapes whose plan is kept. Default 5000.
    pub cached_plans: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 10_000,
            unauthenticated_clients: 1000,
            login: Duration::from_secs(15),
            frame_bytes: 1 << 30,
            request_bytes: 64 << 20,
            statement_bytes: 1 << 20,
            statement_tokens: 200_000,
            statement_depth: 100,
            merge_bytes: 64 << 20,
            merge_bytes_total: 512 << 20,
            copy_buffer_bytes: 1 << 20,
            block_bytes: 16 << 20,
            prepared_statements: 1000,
            portals: 1024,
            backend_prepared_statements: 500,
            cached_plans: 5000,
        }
    }
}

/// Where merges that PostgreSQL must do run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// `on = "shards"`, the default.
    Shards,
}

/// What the router keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The last good topology. Default `topology.json` beside the files.
    pub file: PathBuf,
}

/// The recovery of distributed transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Between two looks at what is prepared on the shards. Default 5s.
    pub interval: Duration,
}

/// Deadlocks over several shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlock {
    /// How long a transaction of several shards runs one statement before the shards are asked who waits for whom, and
    /// how often they are asked while that goes on. Default 1s.
    pub timeout: Duration,
}

/// Consistent snapshots over several shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// How long opening one may take, and so how long it may keep distributed transactions from committing. Default 5s.
    pub wait: Duration,
}

/// Slots that move between shards while clients run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebalance {
    /// How long a statement is held whose slots are about to change their shard; then it fails with 40001. Default 10s.
    pub fence_wait: Duration,
    /// How long a router may run what it planned before a change of a shard that needs no fence; then its connections there
    /// are terminated. Default 1min.
    pub silence: Duration,
    /// How much of the log a shard may keep for a move before the move is given up. Default 16GB.
    pub wal_bytes: u64,
}

/// The cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// 1 to 32 of `[A-Za-z0-9_-]`; part of the names of two-phase transactions.
    pub name: String,
    /// The database name that clients ask for.
    pub database: String,
    /// Name of the shard that is home of local tables. Default the first.
    pub default_shard: String,
}

/// The consistent-hash ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Positions of a shard of weight 1. Default 160. They decide where slots go that must go somewhere.
    pub virtual_nodes: u32,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// 1 to 32 of `[A-Za-z0-9_-]`.
    pub name: String,
    /// Its share of the slots relative to the others; 0 is drained. Default 1.
    pub weight: u32,
    /// Its database. Default the cluster's.
    pub database: String,
    /// Its servers, at least one; PostgreSQL says which is the primary.
    pub nodes: Vec<Address>,
}

/// One declared table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDeclaration {
    /// Schema as PostgreSQL stores it. Default public.
    pub schema: String,
    /// Name as PostgreSQL stores it.
    pub name: String,
    /// Where its rows live.
    pub kind: TableKind,
    /// Line in `shards.toml`.
    pub line: usize,
}

/// Where the rows of a declared table live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableKind {
    /// Spread by this column.
    Sharded {
        /// Column name as PostgreSQL stores it.
        key: String,
        /// Whether unique constraints without the key may be there, though they hold on each shard only. Default false.
        unique_per_shard: bool,
    },
    /// A full copy on every shard.
    Reference,
    /// All rows on the shard of this name.
    Local {
        /// Shard name.
        shard: String,
    },
}

/// Puts a key or slots on a named shard; wins over the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What is pinned.
    pub target: PinTarget,
    /// Shard name.
    pub shard: String,
    /// Line in `shards.toml`.
    pub line: usize,
}

/// What a pin holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinTarget {
    /// The slot of a key of a sharded table.
    Key {
        /// Schema of the table.
        schema: String,
        /// Name of the table.
        table: String,
        /// The key's text, as its type's input function takes it.
        key: String,
    },
    /// These slots, both ends included.
    Slots {
        /// First.
        first: u16,
        /// Last.
        last: u16,
    },
}

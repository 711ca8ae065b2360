//! [`Router`]: every shared service of one process as a named field; built once, no globals anywhere.

use crate::backend::control::Control;
use crate::backend::pool::Pools;
use crate::config::Config;
use crate::planner::Template;
use crate::topology::snapshot::Topology;
use crate::transaction::recovery;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What makes a statement's template: its text, the parameter types that were declared, and how names are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    /// The client's text.
    pub sql: Arc<str>,
    /// The OIDs of Parse.
    pub parameter_types: Arc<[u32]>,
    /// Where unqualified names are looked up.
    pub search_path: Arc<[Arc<str>]>,
    /// [`crate::topology::schema::Schema::version`].
    pub schema_version: u64,
}

/// The services of one router.
#[derive(Debug)]
pub struct Router {
    /// The files, as loaded.
    pub config: Arc<Config>,
    /// Ownership, schema, health.
    pub control: Arc<Control>,
    /// How many threads answer clients, each with a reactor of its own.
    pub workers: usize,
    /// Connections to the shards.
    pub pools: Pools,
    /// Templates of statements, by text.
    pub templates: quick_cache::sync::Cache<TemplateKey, Arc<Template>>,
    /// Clients that are connected, and those of them that have not logged in yet.
    pub clients: AtomicUsize,
    /// See [`Self::clients`].
    pub unauthenticated_clients: AtomicUsize,
    /// Spreads what any shard can answer.
    spread: AtomicUsize,
    /// The number of each named statement, while it is in use often enough.
    statement_ids: quick_cache::sync::Cache<TemplateKey, u64>,
    /// The last number given out.
    statements: AtomicU64,
}

impl Router {
    /// Builds the router's services and starts the recovery of distributed transactions on the calling runtime.
    pub fn start(config: Arc<Config>, control: Arc<Control>) -> Arc<Self> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let router = Arc::new(Self {
            pools: Pools::new(config.clone(), control.clone(), workers),
            templates: quick_cache::sync::Cache::new(config.limits.cached_plans),
            clients: AtomicUsize::new(0),
            unauthenticated_clients: AtomicUsize::new(0),
            spread: AtomicUsize::new(0),
            statement_ids: quick_cache::sync::Cache::new(config.limits.cached_plans),
            statements: AtomicU64::new(1),
            workers,
            config,
            control: control.clone(),
        });
        tokio::spawn(recovery::run(control));
        router
    }

    /// The topology that a statement plans against.
    pub fn topology(&self) -> Arc<Topology> {
        self.control.topology.load_full()
    }

    /// A number that spreads statements which any shard can answer.
    pub fn next_spread(&self) -> usize {
        self.spread.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of a named statement: the same for all clients that mean the same by it. A text that looks up its
    /// names elsewhere, or in another schema, may have other columns, which PostgreSQL does not let a statement change.
    pub fn statement_id(&self, key: &TemplateKey) -> u64 {
        let id = self.statement_ids.get_or_insert_with(key, || {
            Ok::<_, std::convert::Infallible>(self.next_statement())
        });
        match id {
            Ok(id) => id,
            Err(never) => match never {},
        }
    }

    /// A number that no statement has.
    pub fn next_statement(&self) -> u64 {
        self.statements.fetch_add(1, Ordering::Relaxed)
    }
}

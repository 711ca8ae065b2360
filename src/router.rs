//! [`Router`]: every shared service of one process as a named field; built once, no globals anywhere.

pub mod clients;
pub mod period;
pub mod traffic;

use crate::backend::control::Control;
use crate::backend::pool::Pools;
use crate::backend::reload::ReloadError;
use crate::config::Config;
use crate::executor::gather::Budget;
use crate::planner::Template;
use crate::rebalance::side::MoveError;
use crate::rebalance::{depart, mover};
use crate::topology::ShardId;
use crate::topology::snapshot::Topology;
use crate::transaction::detection::{self, Detector};
use crate::transaction::foreseeable::Foreseeable;
use crate::transaction::recovery;
use crate::transaction::settings::Settings;
use clients::Clients;
use period::{PERIOD, Period, Totals};
use quick_cache::Equivalent;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use traffic::{Counts, Traffic};

/// What makes a statement's template: its text, the parameter types that were declared, and how names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A [`TemplateKey`] to look up: hashes and compares as one.
#[derive(Debug, Clone, Copy)]
pub struct TemplateRef<'a> {
    /// See [`TemplateKey::sql`].
    pub sql: &'a str,
    /// See [`TemplateKey::parameter_types`].
    pub parameter_types: &'a [u32],
    /// See [`TemplateKey::search_path`].
    pub search_path: &'a Arc<[Arc<str>]>,
    /// See [`TemplateKey::schema_version`].
    pub schema_version: u64,
}

impl Hash for TemplateRef<'_> {
    /// One text hardly ever has other types or another search path: they are compared, but not hashed.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.sql.as_bytes());
        state.write_u64(self.schema_version);
    }
}

impl Hash for TemplateKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            sql,
            parameter_types,
            search_path,
            schema_version,
        } = self;
        let same = TemplateRef {
            sql,
            parameter_types,
            search_path,
            schema_version: *schema_version,
        };
        same.hash(state);
    }
}

impl Equivalent<TemplateKey> for TemplateRef<'_> {
    fn equivalent(&self, key: &TemplateKey) -> bool {
        self.schema_version == key.schema_version
            && *self.sql == *key.sql
            && *self.parameter_types == *key.parameter_types
            && (Arc::ptr_eq(self.search_path, &key.search_path)
                || *self.search_path == key.search_path)
    }
}

impl From<TemplateRef<'_>> for TemplateKey {
    fn from(key: TemplateRef<'_>) -> Self {
        Self {
            sql: key.sql.into(),
            parameter_types: key.parameter_types.into(),
            search_path: key.search_path.clone(),
            schema_version: key.schema_version,
        }
    }
}

/// A statement that a client parsed without a name, and its like may parse again.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Its text without what follows it.
    pub sql: Arc<str>,
    /// The OIDs of Parse.
    pub parameter_types: Arc<[u32]>,
    /// Its template.
    pub template: Arc<Template>,
}

/// A bounded cache that forgets what is used least; its locks are many.
pub type Cache<V> = quick_cache::sync::Cache<
    TemplateKey,
    V,
    quick_cache::UnitWeighter,
    foldhash::fast::RandomState,
>;

fn cache<V: Clone>(entries_max: usize) -> Cache<V> {
    Cache::with(
        entries_max,
        entries_max as u64,
        quick_cache::UnitWeighter,
        foldhash::fast::RandomState::default(),
        quick_cache::sync::DefaultLifecycle::default(),
    )
}

/// How many different settings of clients that log in are remembered.
const SHARED_SETTINGS: usize = 1024;

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
    pub templates: Cache<Arc<Template>>,
    /// Templates of shapes, by their text; `None` for a shape that has none which serves.
    pub shapes: Cache<Option<Arc<Template>>>,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// What each worker has answered.
    pub traffic: Box<[Traffic]>,
    /// What happened lately.
    period: Period,
    /// Held by whoever edits the shard map's file, or takes it over for the console.
    pub editing: tokio::sync::Mutex<()>,
    /// Whether the router ends.
    ending: watch::Sender<bool>,
    /// What gathered rows may take, and do.
    pub merge_budget: Budget,
    /// The settings that clients log in with.
    settings: quick_cache::sync::Cache<Settings, Arc<Settings>>,
    /// What SET can be said to do before a shard has done it.
    pub foreseeable: Foreseeable,
    /// The transactions of several shards, and their deadlocks.
    pub detector: Arc<Detector>,
    /// Spreads what any shard can answer.
    spread: AtomicUsize,
    /// Unnamed statements that clients parsed.
    pub parsed: Cache<Parsed>,
    /// The number of each named statement, while it is in use often enough.
    statement_ids: Cache<u64>,
    /// The last number given out.
    statements: AtomicU64,
}

impl Router {
    /// Builds the router's services and starts the recovery of distributed transactions, the detector of their
    /// deadlocks, and the mover of slots, on the calling runtime.
    pub fn start(config: Arc<Config>, control: Arc<Control>) -> Arc<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // A busy thread takes many events at a time; two that are half as busy wake twice as often for the same work.
        let workers = match config.listen.workers {
            0 => processors.div_ceil(2),
            workers => workers,
        };
        let router = Arc::new(Self {
            pools: Pools::new(&config, control.clone(), workers),
            templates: cache(config.limits.cached_plans),
            shapes: cache(config.limits.cached_plans),
            parsed: cache(config.limits.cached_plans),
            settings: quick_cache::sync::Cache::new(SHARED_SETTINGS),
            merge_budget: Budget::new(config.limits.merge_bytes, config.limits.merge_bytes_total),
            foreseeable: Foreseeable::default(),
            detector: Detector::new(config.deadlock.timeout),
            clients: Arc::default(),
            traffic: (0..workers).map(|_| Traffic::default()).collect(),
            period: Period::begin(Instant::now()),
            editing: tokio::sync::Mutex::new(()),
            ending: watch::Sender::new(false),
            spread: AtomicUsize::new(0),
            statement_ids: cache(config.limits.cached_plans),
            statements: AtomicU64::new(1),
            workers,
            config,
            control: control.clone(),
        });
        tokio::spawn(recovery::run(control.clone()));
        tokio::spawn(mover::run(control.clone()));
        tokio::spawn(detection::run(control, router.detector.clone()));
        tokio::spawn(count(Arc::downgrade(&router)));
        router
    }

    /// The same pointer for all that log in with the same settings: backends that change hands between them are seen to
    /// need nothing at a glance.
    pub fn shared(&self, settings: Settings) -> Arc<Settings> {
        let share = || Ok::<_, std::convert::Infallible>(Arc::new(settings.clone()));
        match self.settings.get_or_insert_with(&settings, share) {
            Ok(shared) => shared,
            Err(never) => match never {},
        }
    }

    /// Takes over another shard map; see [`Control::reload`]. Shards that it has no more leave the cluster first, and
    /// have to be able to.
    ///
    /// # Errors
    /// [`ReloadError`]; the map that was in force stays. A shard may have become one that nothing is read from.
    pub async fn reload(&self, map: Arc<Config>) -> Result<(), ReloadError> {
        let control = self.control.clone();
        let reloading = self.control.run(async move {
            let reloaded = async {
                control.check_map(&map).await?;
                let topology = control.topology.load_full();
                let is_named = |name: &str| map.shards.iter().any(|shard| shard.name == name);
                let leaving: Vec<ShardId> = topology
                    .shard_ids()
                    .filter(|shard| !is_named(topology.shard_name(*shard)))
                    .collect();
                let _left = match leaving[..] {
                    [] => None,
                    _ => Some(
                        depart::leave(&control, &leaving)
                            .await
                            .map_err(of_leaving)?,
                    ),
                };
                control.reload(&map).await
            };
            Ok(reloaded.await)
        });
        reloading.await?
    }

    /// The topology that a statement plans against.
    pub fn topology(&self) -> Arc<Topology> {
        self.control.topology.load_full()
    }

    /// Has the router end, as by a signal.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Returns when the router is to end.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn ended(&self) {
        let mut ending = self.ending.subscribe();
        // The sender lives as long as the router.
        let _ = ending.wait_for(|ending| *ending).await;
    }

    /// Everything that was counted since the start.
    pub fn totals(&self) -> Totals {
        let workers = self.traffic.iter().map(Traffic::counts);
        let pools = self.pools.status();
        Totals {
            counts: workers.fold(Counts::default(), |all, one| all + one),
            leases: pools.iter().map(|pool| pool.leases).sum(),
            waited: pools.iter().map(|pool| pool.waited).sum(),
        }
    }

    /// What happened in the last whole [`PERIOD`], or since the start until the first is over; and how long that was.
    pub fn lately(&self) -> (Totals, Duration) {
        self.period.last(Instant::now(), self.totals())
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

fn of_leaving(error: MoveError) -> ReloadError {
    match error {
        MoveError::Control(error) => ReloadError::Control(error),
        error => ReloadError::Stays(error.to_string()),
    }
}

/// Ends the periods of a router's counts, as long as it lives.
async fn count(router: Weak<Router>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(router) = router.upgrade() else {
            return;
        };
        router.period.end(Instant::now(), router.totals());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_known_by_its_whole_text_and_types() {
        let search_path: Arc<[Arc<str>]> = ["public".into()].into();
        let key = |sql, parameter_types| TemplateRef {
            sql,
            parameter_types,
            search_path: &search_path,
            schema_version: 1,
        };
        let known = TemplateKey::from(key("SELECT $1", &[23]));
        assert!(key("SELECT $1", &[23]).equivalent(&known));
        assert!(!key("SELECT $2", &[23]).equivalent(&known));
        assert!(!key("SELECT $1", &[20]).equivalent(&known));
        let elsewhere = ["other".into()].into();
        let moved = TemplateRef {
            search_path: &elsewhere,
            ..key("SELECT $1", &[23])
        };
        assert!(!moved.equivalent(&known));
    }
}

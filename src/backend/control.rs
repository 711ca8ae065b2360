//! [`Control`]: the control plane. Keeps the topology true to what the shards say of themselves: reads their ownership
//! and one shard's catalog, listens for changes, knows which shards answer. Must not see a client's statement.
//! Start at [`Control::start`].

use super::acknowledge;
use super::cache;
use super::catalog::{self, CatalogError};
use super::connection::Endpoint;
use super::member::{Member, ShardHealth};
use super::presence::Presence;
use super::registration::{self, RegistrationError};
use super::store::{self, ShardStatus, StoreError};
use super::version;
use crate::config::Config;
use crate::topology::ownership::{self, Fence, Owners, OwnershipRecord};
use crate::topology::schema::Schema;
use crate::topology::shard_map;
use crate::topology::snapshot::{Membership, Shard, Topology};
use crate::topology::{Epoch, ShardId, colocation};
use arc_swap::{ArcSwap, ArcSwapOption};
use deadpool_postgres::PoolError;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, NoTls};

/// A shard that says nothing is asked this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a lost shard is left alone: from, doubling, to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The catalog is compared this often although nobody said that it changed.
const SCHEMA_INTERVAL: Duration = Duration::from_secs(30);
/// Notifications that wait to be looked at. More than one say nothing that one does not.
const NOTIFICATIONS_MAX: usize = 16;
/// Pause between notifications, so that a flood of them costs little.
const NOTIFICATION_PAUSE: Duration = Duration::from_millis(5);
/// What is wrong with a shard that was given none.
const NO_PLACE: &str = "has no place in the cluster yet";
/// PostgreSQL's own default.
const SEARCH_PATH: &str = "\"$user\", public";

/// A client of the control plane on one shard's primary; goes back to its pool when dropped.
pub type Client = deadpool_postgres::Object;

/// Why the control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No shard answers: the catalog cannot be known.
    #[error("no shard can be reached; {shard}: {reason}")]
    NoShard {
        /// One of them.
        shard: Arc<str>,
        /// What it said.
        reason: String,
    },
    /// A shard answers, and no slots were given out there.
    #[error("shard {shard} has no pgring ownership; run pgring init")]
    NotInitialized {
        /// Its name.
        shard: Arc<str>,
    },
    /// A shard's row cannot be read or believed.
    #[error("shard {shard}: {reason}")]
    Ownership {
        /// Its name.
        shard: Arc<str>,
        /// What is wrong.
        reason: String,
    },
    /// The router cannot draw its id.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(#[from] getrandom::Error),
    /// The catalog cannot be used.
    #[error("shard {shard}: {source}")]
    Catalog {
        /// The shard that was asked.
        shard: Arc<str>,
        /// What is wrong.
        source: CatalogError,
    },
}

/// Why the control plane could not do something on a shard.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It cannot be reached, or all connections are in use.
    #[error("shard {shard} cannot be reached: {reason}")]
    Unreachable {
        /// Its name.
        shard: Arc<str>,
        /// Why.
        reason: String,
    },
    /// It said no.
    #[error("shard {shard}: {}", store::reason(.source))]
    Query {
        /// Its name.
        shard: Arc<str>,
        /// What it said.
        source: tokio_postgres::Error,
    },
    /// Its catalog cannot be used; the one that was loaded before stays.
    #[error("shard {shard}: {source}")]
    Catalog {
        /// Its name.
        shard: Arc<str>,
        /// What is wrong.
        source: CatalogError,
    },
    /// It did not answer in time.
    #[error("shard {shard} did not answer within {after:?}")]
    TimedOut {
        /// Its name.
        shard: Arc<str>,
        /// The limit.
        after: Duration,
    },
    /// No shard is reachable.
    #[error("no shard can be reached")]
    NoShard,
    /// The control plane is shutting down.
    #[error("the router is shutting down")]
    Closed,
}

/// The control plane of one router.
pub struct Control {
    /// What statements plan against now.
    pub topology: Arc<ArcSwap<Topology>>,
    /// Of [`Self::topology`].
    generations: watch::Sender<u64>,
    /// See [`Self::router_id`].
    router: AtomicI32,
    /// Some shard knows the router by its id, which stays from then on.
    registered: AtomicBool,
    /// Whether clients are served, so that the shards must know of it.
    serves: bool,
    pub(super) config: ArcSwap<Config>,
    /// By [`ShardId`]: a shard keeps its place for as long as the router runs.
    pub(super) members: ArcSwap<Vec<Arc<Member>>>,
    known: Mutex<Known>,
    cluster_id: ArcSwapOption<Arc<str>>,
    server_version: ArcSwapOption<Arc<str>>,
    /// Every shard was asked once.
    started: AtomicBool,
    search_path: ArcSwap<Arc<str>>,
    /// What [`Self::refresh_schema`] loaded last; held while it loads.
    pub(super) loaded: tokio::sync::Mutex<Loaded>,
    records_changed: tokio::sync::Notify,
    /// The runtime that drives the control plane's connections.
    runtime: tokio::runtime::Handle,
}

/// What the topology is made of.
pub(super) struct Known {
    /// See [`Topology::generation`].
    generation: u64,
    /// By [`ShardId`].
    pub(super) records: Vec<Option<OwnershipRecord>>,
    /// By [`ShardId`]: what each holds fenced, and [`Shard::rows_since`].
    fences: Vec<(Arc<[Fence]>, u64)>,
    owners: Owners,
    has_foreign_rows: bool,
    in_transit: Option<ShardId>,
    pub(super) schema: Arc<Schema>,
}

/// Where the schema came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loaded {
    shard: ShardId,
    fingerprint: String,
}

impl Control {
    /// Reads all shards, or for those that are down what the state file remembers; then keeps the topology up to date by
    /// tasks on the calling runtime, until the last reference goes.
    ///
    /// # Errors
    /// [`StartError`]: not a single shard answers, or one that answers cannot be part of this cluster.
    pub async fn start(config: Arc<Config>) -> Result<Arc<Self>, StartError> {
        Self::begin(config, true).await
    }

    /// The same for what serves no clients: it is not registered on the shards, so nobody waits for it.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn observe(config: Arc<Config>) -> Result<Arc<Self>, StartError> {
        Self::begin(config, false).await
    }

    async fn begin(config: Arc<Config>, serves: bool) -> Result<Arc<Self>, StartError> {
        let mut control = Self::idle(config);
        control.serves = serves;
        control.router = registration::draw_router_id()?.into();
        let loaded = control.first_look().await?;
        control.loaded = tokio::sync::Mutex::new(loaded);
        let control = Arc::new(control);
        for shard in control.shard_ids() {
            tokio::spawn(watch(Arc::downgrade(&control), shard));
        }
        tokio::spawn(keep_cache(Arc::downgrade(&control)));
        tokio::spawn(keep_schema(Arc::downgrade(&control)));
        Ok(control)
    }

    fn idle(config: Arc<Config>) -> Self {
        let shards = (0..).map(ShardId).zip(&config.shards);
        let members: Vec<_> = shards
            .map(|(shard, declared)| Member::new(&config, shard, declared))
            .collect();
        let records = vec![None; members.len()];
        let default_shard = config
            .shards
            .iter()
            .position(|shard| shard.name == config.cluster.default_shard);
        let topology = Topology {
            generation: 0,
            cluster: config.cluster.name.as_str().into(),
            shards: members
                .iter()
                .map(|member| Shard {
                    name: member.name.clone(),
                    epoch: Epoch(0),
                    membership: Membership::Whole,
                    rows_since: 0,
                    fences: Arc::default(),
                })
                .collect(),
            owners: ownership::owners(&[]),
            has_foreign_rows: false,
            in_transit: None,
            default_shard: ShardId(default_shard.unwrap_or_default() as u16),
            schema: Arc::default(),
        };
        let known = Known {
            generation: 0,
            fences: vec![Default::default(); members.len()],
            records,
            owners: topology.owners.clone(),
            has_foreign_rows: false,
            in_transit: None,
            schema: topology.schema.clone(),
        };
        Self {
            topology: Arc::new(ArcSwap::from_pointee(topology)),
            generations: watch::Sender::new(0),
            router: AtomicI32::default(),
            registered: AtomicBool::new(false),
            serves: true,
            members: ArcSwap::from_pointee(members),
            known: Mutex::new(known),
            cluster_id: ArcSwapOption::empty(),
            server_version: ArcSwapOption::empty(),
            started: AtomicBool::new(false),
            search_path: ArcSwap::from_pointee(SEARCH_PATH.into()),
            loaded: tokio::sync::Mutex::new(Loaded {
                shard: ShardId(0),
                fingerprint: String::new(),
            }),
            records_changed: tokio::sync::Notify::new(),
            runtime: tokio::runtime::Handle::current(),
            config: ArcSwap::new(config),
        }
    }

    /// Asks every shard; decides whether they are this cluster.
    async fn first_look(&self) -> Result<Loaded, StartError> {
        let answers = join_all(self.shard_ids().map(|shard| self.read_status(shard))).await;
        let (mut down, mut absent) = (None, None);
        let mut cluster_id: Option<(Arc<str>, Arc<str>)> = None;
        for (shard, answer) in self.shard_ids().zip(answers) {
            let name = self.shard_name(shard);
            match answer {
                Ok(status) => {
                    let id = status.ownership.cluster_id.clone();
                    if let Err(reason) = self.check_name(shard, &status.ownership) {
                        return Err(StartError::Ownership {
                            shard: name,
                            reason,
                        });
                    }
                    match &cluster_id {
                        Some((first, known)) if *known != id => {
                            let reason =
                                format!("it belongs to another cluster than shard {first}");
                            return Err(StartError::Ownership {
                                shard: name,
                                reason,
                            });
                        }
                        Some(_) => {}
                        None => cluster_id = Some((name, id.clone())),
                    }
                    self.cluster_id.store(Some(Arc::new(id)));
                    self.note_status(shard, status);
                }
                Err(StatusError::Unreachable(reason)) => {
                    tracing::warn!(shard = %name, reason, "a shard is down");
                    self.note_lost(shard, &reason);
                    down = down.or(Some((name, reason)));
                }
                Err(StatusError::Store(StoreError::Missing)) => {
                    self.note_absent(shard);
                    absent = absent.or(Some(name));
                }
                Err(StatusError::Store(error)) => {
                    return Err(StartError::Ownership {
                        shard: name,
                        reason: error.to_string(),
                    });
                }
            }
        }
        if cluster_id.is_none()
            && absent.is_none()
            && let Some((shard, reason)) = down
        {
            return Err(StartError::NoShard { shard, reason });
        }
        self.started.store(true, Ordering::Relaxed);
        self.note_versions();
        self.take_cache().await;
        // A shard is left out only where the others own all slots.
        if let Some(shard) = absent
            && self.known().owners.have_gap()
        {
            return Err(StartError::NotInitialized { shard });
        }
        self.warn_of_problems();
        let shard = self
            .catalog_shard()
            .unwrap_or(self.topology.load().default_shard);
        let refuse = |source| StartError::Catalog {
            shard: self.shard_name(shard),
            source,
        };
        let mut client = self
            .client(shard)
            .await
            .map_err(|error| StartError::Ownership {
                shard: self.shard_name(shard),
                reason: error.to_string(),
            })?;
        let fingerprint = catalog::fingerprint(&client).await.map_err(refuse)?;
        let schema = catalog::load(&mut client).await.map_err(refuse)?;
        let mut schema = self.place(schema);
        schema.version = 1;
        let mut known = self.known();
        known.schema = Arc::new(schema);
        self.publish(&mut known);
        Ok(Loaded { shard, fingerprint })
    }

    /// What the state file knows of shards that did not answer.
    async fn take_cache(&self) {
        let file = &self.config().state.file;
        let cached = match cache::read(file, &self.cluster()).await {
            Ok(cached) => cached.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the state file is not used");
                return;
            }
        };
        for record in cached {
            let Some(shard) = self
                .shard_ids()
                .find(|shard| self.shard_name(*shard) == record.shard)
            else {
                continue;
            };
            if self.cluster_id().is_some_and(|id| id != record.cluster_id) {
                tracing::warn!(file = %file.display(), "the state file is of another cluster of the same name");
                return;
            }
            let unknown = self.known().records[usize::from(shard.0)].is_none();
            if unknown {
                tracing::warn!(shard = %record.shard, epoch = record.epoch.0, "ownership is taken from the state file");
                self.note_ownership(shard, record);
            }
        }
    }

    /// Takes in what a shard said of its ownership, and publishes it if it is news. Never goes back to an older epoch.
    pub fn note_ownership(&self, shard: ShardId, record: OwnershipRecord) {
        let is_ours = self.cluster_id().is_none_or(|id| id == record.cluster_id);
        if let Err(reason) = self.check_name(shard, &record) {
            return tracing::error!(shard = %self.shard_name(shard), reason, "ownership is not believed");
        }
        if !is_ours || !store::is_given_out(&record) {
            return tracing::error!(shard = %record.shard, "ownership of another cluster is not believed");
        }
        let mut known = self.known();
        let Some(slot) = known.records.get_mut(usize::from(shard.0)) else {
            return;
        };
        if let Some(before) = slot {
            if *before == record {
                return;
            }
            if before.epoch > record.epoch {
                return tracing::error!(
                    shard = %record.shard, known = before.epoch.0, read = record.epoch.0,
                    "the shard's ownership went back to an older epoch, which is not believed"
                );
            }
            if before.epoch == record.epoch {
                tracing::error!(shard = %record.shard, epoch = record.epoch.0, "ownership changed without a new epoch");
            }
        }
        tracing::info!(shard = %record.shard, epoch = record.epoch.0, slots = record.owned.len(), "ownership read");
        let is_other = slot.as_ref().is_none_or(|before| {
            before.owned != record.owned || before.foreign_slots != record.foreign_slots
        });
        let fenced = record.fenced.clone();
        *slot = Some(record);
        known.generation += 1;
        let generation = known.generation;
        let count = known.records.len();
        known.fences.resize(count, Default::default());
        if let Some((fences, rows_since)) = known.fences.get_mut(usize::from(shard.0)) {
            *fences = ownership::fences(fences, &fenced, generation).into();
            if is_other {
                *rows_since = generation;
            }
        }
        let records: Vec<_> = known.records.iter().map(Option::as_ref).collect();
        let owners = ownership::owners(&records);
        let in_transit = ownership::in_transit(&records);
        let has_foreign_rows = ownership::have_foreign_rows(&records);
        known.owners = owners;
        known.in_transit = in_transit;
        if known.has_foreign_rows != has_foreign_rows {
            known.has_foreign_rows = has_foreign_rows;
            // Templates know of it.
            let version = known.schema.version + 1;
            Arc::make_mut(&mut known.schema).version = version;
        }
        self.publish(&mut known);
        self.presence(shard).note_change(known.generation);
        drop(known);
        self.records_changed.notify_one();
    }

    pub(super) fn publish(&self, known: &mut Known) {
        let before = self.topology.load();
        let members = self.members.load();
        let count = known.records.len();
        known.fences.resize(count, Default::default());
        let shards = members.iter().zip(&known.records).zip(&known.fences);
        let shards = shards.map(|((member, record), (fences, rows_since))| {
            let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
            let owns_nothing = record
                .as_ref()
                .is_none_or(|record| record.owned.is_empty() && record.foreign_slots.is_empty());
            let out = is(&member.left) || (is(&member.absent) && !known.owners.have_gap());
            Shard {
                name: member.name.clone(),
                epoch: record.as_ref().map_or(Epoch(0), |record| record.epoch),
                rows_since: *rows_since,
                fences: fences.clone(),
                membership: match (out && owns_nothing, record) {
                    (true, _) => Membership::Out,
                    (false, Some(record)) if record.joining => Membership::Joining,
                    (false, _) => Membership::Whole,
                },
            }
        });
        let shards: Vec<Shard> = shards.collect();
        let memberships =
            |shards: &[Shard]| -> Vec<_> { shards.iter().map(|shard| shard.membership).collect() };
        if memberships(&shards) != memberships(&before.shards) {
            // Templates may know how many shards there are.
            let version = known.schema.version + 1;
            Arc::make_mut(&mut known.schema).version = version;
        }
        self.topology.store(Arc::new(Topology {
            generation: known.generation,
            cluster: before.cluster.clone(),
            shards,
            owners: known.owners.clone(),
            has_foreign_rows: known.has_foreign_rows,
            in_transit: known.in_transit,
            default_shard: before.default_shard,
            schema: known.schema.clone(),
        }));
        self.generations.send_replace(known.generation);
    }

    /// A shard answers, and was given no place in the cluster yet.
    fn note_absent(&self, shard: ShardId) {
        let member = self.member(shard);
        let is_known = member.absent.swap(true, Ordering::Relaxed);
        let before = {
            let mut health = member.health();
            health.reachable = false;
            health.last_error.replace(NO_PLACE.to_owned())
        };
        if before.as_deref() != Some(NO_PLACE) {
            tracing::warn!(shard = %member.name, "a shard of the map {NO_PLACE}: run pgring init");
        }
        if !is_known {
            self.publish(&mut self.known());
        }
    }

    /// Everything that is wrong with the ownership as it is known: gaps, overlaps, strangers.
    pub fn ownership_problems(&self) -> Vec<ownership::OwnershipProblem> {
        let known = self.known();
        let records: Vec<_> = known.records.iter().map(Option::as_ref).collect();
        ownership::problems(&self.names(), &records)
    }

    fn warn_of_problems(&self) {
        for problem in self.ownership_problems() {
            tracing::error!(%problem, "statements on these slots are refused");
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.members.load().len() as u16).map(ShardId)
    }

    /// Every shard that the map names, or has named since the router began.
    pub fn shards(&self) -> Vec<(ShardId, Arc<str>)> {
        (0..).map(ShardId).zip(self.names()).collect()
    }

    /// Where connections to the shard are made now.
    pub fn endpoint(&self, shard: ShardId) -> Arc<Endpoint> {
        self.member(shard).reach.load().endpoint.clone()
    }

    fn names(&self) -> Vec<Arc<str>> {
        let members = self.members.load();
        members.iter().map(|member| member.name.clone()).collect()
    }

    fn member(&self, shard: ShardId) -> Arc<Member> {
        self.members.load()[usize::from(shard.0)].clone()
    }

    fn shard_name(&self, shard: ShardId) -> Arc<str> {
        self.member(shard).name.clone()
    }

    fn check_name(&self, shard: ShardId, record: &OwnershipRecord) -> Result<(), String> {
        let name = self.shard_name(shard);
        if name == record.shard {
            Ok(())
        } else {
            Err(format!("its ownership row is of shard {}", record.shard))
        }
    }

    /// By which the shards know this router: it is the second key of the lock that it holds on each.
    pub fn router_id(&self) -> i32 {
        self.router.load(Ordering::Relaxed)
    }

    /// Returns when statements are planned against a later topology than that of this generation.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn changed_since(&self, generation: u64) {
        let mut generations = self.generations.subscribe();
        // It lives as long as this.
        let _ = generations.wait_for(|now| *now > generation).await;
    }

    /// What this router runs on a shard.
    pub(super) fn presence(&self, shard: ShardId) -> Arc<Presence> {
        self.member(shard).presence.clone()
    }

    /// The epoch of the shard's ownership as it is known, and the generation with which it became so.
    pub(super) fn epoch(&self, shard: ShardId) -> (Epoch, u64) {
        let known = self.known();
        let record = known.records[usize::from(shard.0)].as_ref();
        let epoch = record.map_or(Epoch(0), |record| record.epoch);
        (epoch, self.presence(shard).changed())
    }

    /// The router is registered on the shard, and its ownership was read since.
    fn note_registered(&self, shard: ShardId) {
        let mut known = self.known();
        known.generation += 1;
        self.publish(&mut known);
        self.presence(shard).note_registered(known.generation);
    }

    /// Registers the router on a shard by its listening connection there; gives the process that serves it.
    async fn register(
        &self,
        client: &tokio_postgres::Client,
        former: Option<i32>,
    ) -> Result<i32, RegistrationError> {
        let (id, wait) = (self.router_id(), self.config().pool.connect);
        let registered = registration::register(client, id, former, wait).await;
        match &registered {
            Ok(_) => self.registered.store(true, Ordering::Relaxed),
            Err(RegistrationError::Taken(taken)) if !self.registered.load(Ordering::Relaxed) => {
                if let Ok(other) = registration::draw_router_id() {
                    let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
                    let _ = self
                        .router
                        .compare_exchange(*taken, other, success, failure);
                }
            }
            Err(_) => {}
        }
        registered
    }

    /// The router stops in good order: the shards that can be reached forget what it acknowledged.
    pub async fn leave(&self) {
        let leaving = self.shard_ids().map(|shard| async move {
            if let Ok(client) = self.client(shard).await {
                let _ = acknowledge::forget(&client, self.router_id()).await;
            }
        });
        let _ = timeout(self.config().pool.connect, join_all(leaving)).await;
    }

    /// The cluster's id, once a shard has told it.
    pub fn cluster_id(&self) -> Option<Arc<str>> {
        self.cluster_id.load().as_deref().cloned()
    }

    /// The name of the cluster, as it stands in the names of distributed transactions.
    pub fn cluster(&self) -> Arc<str> {
        self.topology.load().cluster.clone()
    }

    /// The files, as loaded last.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// `search_path` of a session that sets none, as the control plane's role sees it on the default shard.
    pub fn default_search_path(&self) -> Arc<str> {
        Arc::clone(&self.search_path.load())
    }

    /// Every shard, by [`ShardId`].
    pub fn health(&self) -> Vec<ShardHealth> {
        let members = self.members.load();
        members
            .iter()
            .map(|member| member.health().clone())
            .collect()
    }

    /// Whether the shard can hold prepared transactions, as far as is known.
    pub fn two_phase_allowed(&self, shard: ShardId) -> bool {
        let max = self.member(shard).health().max_prepared_transactions;
        max.is_none_or(|max| max > 0)
    }

    fn note_status(&self, shard: ShardId, status: ShardStatus) {
        let version_changed;
        {
            let member = self.member(shard);
            member.absent.store(false, Ordering::Relaxed);
            let mut health = member.health();
            let is_news = !health.reachable;
            health.reachable = true;
            let version = Some(&status.server_version);
            version_changed = health.server_version.as_ref() != version;
            health.server_version = version.cloned();
            if health
                .max_prepared_transactions
                .replace(status.max_prepared_transactions)
                != Some(status.max_prepared_transactions)
                && status.max_prepared_transactions == 0
            {
                tracing::warn!(
                    shard = %member.name,
                    "max_prepared_transactions is 0: writes on several shards are refused where this one takes part"
                );
            }
            if is_news {
                tracing::info!(shard = %member.name, version = %status.server_version.text, "a shard is up");
            }
        }
        if version_changed {
            self.note_versions();
        }
        if shard == self.topology.load().default_shard
            && ***self.search_path.load() != *status.search_path
        {
            self.search_path.store(Arc::new(status.search_path.into()));
        }
        self.note_ownership(shard, status.ownership);
    }

    /// What follows from the versions as they are known now.
    fn note_versions(&self) {
        let health = self.health();
        let names = self.names();
        let versions = names
            .iter()
            .zip(&health)
            .filter_map(|(name, health)| Some((&**name, health.server_version.as_ref()?)));
        // At start not before all that answer have said theirs.
        if self.started.load(Ordering::Relaxed)
            && let Some(mixed) = version::mixed(versions.clone())
        {
            tracing::warn!("{mixed}");
        }
        let lowest = versions.map(|(_, version)| version).min();
        self.server_version
            .store(lowest.map(|lowest| Arc::new(lowest.text.clone())));
    }

    /// The lowest `server_version` of the shards that have answered so far: what clients are told.
    pub fn server_version(&self) -> Option<Arc<str>> {
        self.server_version.load().as_deref().cloned()
    }

    fn note_lost(&self, shard: ShardId, reason: &str) {
        {
            let _known = self.known();
            self.presence(shard).note_lost();
        }
        let member = self.member(shard);
        let mut health = member.health();
        if health.reachable {
            tracing::warn!(shard = %member.name, reason, "a shard was lost");
        }
        health.reachable = false;
        health.last_error = Some(reason.to_owned());
    }

    async fn read_status(&self, shard: ShardId) -> Result<ShardStatus, StatusError> {
        let client = self
            .client(shard)
            .await
            .map_err(|error| StatusError::Unreachable(error.to_string()))?;
        self.in_time(store::status(&client)).await
    }

    /// Bounds one question to a shard by `pool.connect`.
    async fn in_time(
        &self,
        question: impl Future<Output = Result<ShardStatus, StoreError>>,
    ) -> Result<ShardStatus, StatusError> {
        match timeout(self.config().pool.connect, question).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(StoreError::Query(error))) if error.is_closed() => {
                Err(StatusError::Unreachable(store::reason(&error)))
            }
            Ok(Err(error)) => Err(StatusError::Store(error)),
            Err(_) => Err(StatusError::Unreachable("no answer in time".to_owned())),
        }
    }

    /// A connection of the control plane's own role to the shard's primary. Call it on the control plane's runtime, or
    /// inside [`Self::run`], since that is where the connection is driven.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`], at the latest after twice `pool.connect`.
    pub async fn client(&self, shard: ShardId) -> Result<Client, ControlError> {
        let pool = self.member(shard).reach.load().pool.clone();
        pool.get().await.map_err(|error| {
            let reason = match &error {
                PoolError::Backend(error) => store::reason(error),
                PoolError::Timeout(_) => {
                    format!("no connection within {:?}", self.config().pool.connect)
                }
                other => other.to_string(),
            };
            ControlError::Unreachable {
                shard: self.shard_name(shard),
                reason,
            }
        })
    }

    /// A connection of the control plane's own role to the shard's primary that is in no pool: for what takes long, or is
    /// kept in the session. It is driven on the calling runtime and ends when the client is dropped.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`], at the latest after `pool.connect`.
    pub async fn connect(&self, shard: ShardId) -> Result<tokio_postgres::Client, ControlError> {
        let unreachable = |reason| ControlError::Unreachable {
            shard: self.shard_name(shard),
            reason,
        };
        let after = self.config().pool.connect;
        let connection = self.member(shard).reach.load().connection.clone();
        let connecting = connection.connect(NoTls);
        match timeout(after, connecting).await {
            Ok(Ok((client, connection))) => {
                tokio::spawn(connection);
                Ok(client)
            }
            Ok(Err(error)) => Err(unreachable(store::reason(&error))),
            Err(_) => Err(unreachable(format!("no connection within {after:?}"))),
        }
    }

    /// Runs `work` on the control plane's runtime. A dropped call lets it run to its end.
    ///
    /// # Errors
    /// [`ControlError::Closed`] when that runtime is gone, else what `work` says.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ControlError>> + Send + 'static,
    ) -> Result<T, ControlError> {
        self.runtime
            .spawn(work)
            .await
            .unwrap_or(Err(ControlError::Closed))
    }

    /// Where the catalog is read: the default shard, or the first that answers.
    fn catalog_shard(&self) -> Option<ShardId> {
        let default_shard = self.topology.load().default_shard;
        let shards = std::iter::once(default_shard).chain(self.shard_ids());
        shards
            .into_iter()
            .find(|shard| self.member(*shard).health().reachable)
    }

    /// Loads the catalog again if it may have changed; when this returns, the topology is at least as new as the call.
    ///
    /// # Errors
    /// [`ControlError`]; the topology keeps the schema that it has.
    pub async fn refresh_schema(self: &Arc<Self>) -> Result<(), ControlError> {
        let control = self.clone();
        self.run(async move { control.load_schema().await }).await
    }

    async fn load_schema(&self) -> Result<(), ControlError> {
        let mut loaded = self.loaded.lock().await;
        let shard = self.catalog_shard().ok_or(ControlError::NoShard)?;
        let after = self.config().pool.connect * 2;
        let load = self.load_schema_from(shard, &mut loaded);
        let late = ControlError::TimedOut {
            shard: self.shard_name(shard),
            after,
        };
        timeout(after, load).await.unwrap_or(Err(late))
    }

    /// Sets placements; complains of declarations that do not fit and of foreign keys that cannot hold, once while they
    /// are there.
    pub fn place(&self, schema: Schema) -> Schema {
        let topology = self.topology.load();
        let (schema, errors) = shard_map::place(
            schema,
            &self.config.load().tables,
            &self.names(),
            topology.default_shard,
        );
        for error in errors {
            let reason = error.to_string();
            let mut known = topology.schema.misfits.values();
            if !known.any(|known| **known == *reason) {
                tracing::error!("{reason}: statements on it are refused");
            }
        }
        let known = colocation::unenforced(&topology.schema);
        for what in colocation::unenforced(&schema) {
            if !known.contains(&what) {
                tracing::warn!("{what}: each shard checks it among its own rows");
            }
        }
        schema
    }

    async fn load_schema_from(
        &self,
        shard: ShardId,
        loaded: &mut Loaded,
    ) -> Result<(), ControlError> {
        let refuse = |source| ControlError::Catalog {
            shard: self.shard_name(shard),
            source,
        };
        let mut client = self.client(shard).await?;
        let fingerprint = catalog::fingerprint(&client).await.map_err(refuse)?;
        let now = Loaded { shard, fingerprint };
        if *loaded == now {
            return Ok(());
        }
        let schema = catalog::load(&mut client).await.map_err(refuse)?;
        let mut schema = self.place(schema);
        let mut known = self.known();
        if !catalog::is_same(&known.schema, &schema) {
            schema.version = known.schema.version + 1;
            tracing::info!(shard = %self.shard_name(shard), version = schema.version, "the schema changed");
            known.schema = Arc::new(schema);
            self.publish(&mut known);
        }
        *loaded = now;
        Ok(())
    }

    /// Tells the routers, this one included, that the schema changed: after DDL. Shards that cannot be reached are left
    /// out, since one is enough for a router to hear it.
    ///
    /// # Errors
    /// [`ControlError`] when no shard could be told.
    pub async fn notify_schema_changed(self: &Arc<Self>) -> Result<(), ControlError> {
        let control = self.clone();
        self.run(async move {
            let told = join_all(control.shard_ids().map(|shard| control.notify(shard))).await;
            let mut failure = Err(ControlError::NoShard);
            for answer in told {
                match answer {
                    Ok(()) => return Ok(()),
                    Err(error) => failure = Err(error),
                }
            }
            failure
        })
        .await
    }

    async fn notify(&self, shard: ShardId) -> Result<(), ControlError> {
        self.execute(
            shard,
            "SELECT pg_catalog.pg_notify($1, $2)",
            &[store::CHANNEL, store::SCHEMA_CHANGED],
        )
        .await
    }

    async fn execute(
        &self,
        shard: ShardId,
        sql: &str,
        arguments: &[&'static str],
    ) -> Result<(), ControlError> {
        self.query(shard, sql, arguments).await.map(drop)
    }

    pub(super) async fn query(
        &self,
        shard: ShardId,
        sql: &str,
        arguments: &[&'static str],
    ) -> Result<Vec<tokio_postgres::Row>, ControlError> {
        let after = self.config().pool.connect;
        let work = async {
            let client = self.client(shard).await?;
            let arguments: Vec<_> = arguments
                .iter()
                .map(|argument| {
                    (
                        argument as &(dyn tokio_postgres::types::ToSql + Sync),
                        Type::TEXT,
                    )
                })
                .collect();
            let ran = client.query_typed(sql, &arguments).await;
            ran.map_err(|source| ControlError::Query {
                shard: self.shard_name(shard),
                source,
            })
        };
        let late = ControlError::TimedOut {
            shard: self.shard_name(shard),
            after,
        };
        timeout(after, work).await.unwrap_or(Err(late))
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("shards", &self.names())
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

/// Why a shard's status is not known.
enum StatusError {
    /// It, or the way to it, is down.
    Unreachable(String),
    /// It answers, and not as it should.
    Store(StoreError),
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => f.write_str(reason),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

/// Listens to one shard for as long as the control plane lives, connecting again and again.
pub(super) async fn watch(control: Weak<Control>, shard: ShardId) {
    let (shortest, longest) = BACKOFF;
    let mut pause = shortest;
    let mut process = None;
    loop {
        let Some(strong) = control.upgrade() else {
            return;
        };
        let connection = strong.member(shard).reach.load().connection.clone();
        let connect = strong.config().pool.connect;
        drop(strong);
        let reason = match timeout(connect, connection.connect(NoTls)).await {
            Ok(Ok((client, connection))) => {
                let (sender, notifications) = mpsc::channel(NOTIFICATIONS_MAX);
                let driver = tokio::spawn(drive(connection, sender));
                let mut listener = Listener {
                    shard,
                    client: &client,
                    notifications,
                    process: &mut process,
                    pause: &mut pause,
                };
                let reason = listen(&control, &mut listener).await;
                // Before the shard can know.
                if let (Some(strong), Some(reason)) = (control.upgrade(), &reason) {
                    strong.note_lost(shard, reason);
                }
                driver.abort();
                reason
            }
            Ok(Err(error)) => Some(store::reason(&error)),
            Err(_) => Some("cannot connect in time".to_owned()),
        };
        let (Some(strong), Some(reason)) = (control.upgrade(), reason) else {
            return;
        };
        strong.note_lost(shard, &reason);
        let presence = strong.presence(shard);
        drop(strong);
        // A shard that is wanted is tried at once, but not in vain all the time.
        sleep(shortest).await;
        let _ = timeout(pause - shortest, presence.wanted()).await;
        pause = (pause * 2).min(longest);
    }
}

/// Moves a connection's bytes; passes on what it is notified of.
async fn drive(
    mut connection: tokio_postgres::Connection<
        tokio_postgres::Socket,
        tokio_postgres::tls::NoTlsStream,
    >,
    sender: mpsc::Sender<bool>,
) {
    let mut messages =
        futures_util::stream::poll_fn(move |context| connection.poll_message(context));
    while let Some(Ok(message)) = messages.next().await {
        if let AsyncMessage::Notification(notification) = message {
            // When there is no room, one that waits will do.
            let _ = sender.try_send(notification.payload() == store::SCHEMA_CHANGED);
        }
    }
}

/// One connection that listens to a shard.
struct Listener<'a> {
    shard: ShardId,
    client: &'a tokio_postgres::Client,
    notifications: mpsc::Receiver<bool>,
    /// The server process that registers the router there, or did so last.
    process: &'a mut Option<i32>,
    /// How long a lost shard is left alone next.
    pause: &'a mut Duration,
}

impl Listener<'_> {
    /// Registers the router, then listens: both before the connection's first look at what the shard owns.
    async fn open(&mut self, control: &Control) -> Result<(), RegistrationError> {
        if control.serves {
            *self.process = Some(control.register(self.client, *self.process).await?);
        }
        // What it writes is of no use after a crash: acknowledgements.
        let listen = format!("SET synchronous_commit = 'off'; LISTEN {}", store::CHANNEL);
        Ok(self.client.batch_execute(&listen).await?)
    }
}

/// Follows one connection until it is lost: gives the reason. None: the control plane is gone.
async fn listen(control: &Weak<Control>, listener: &mut Listener<'_>) -> Option<String> {
    let strong = control.upgrade()?;
    let opening = timeout(strong.config().pool.connect * 2, listener.open(&strong));
    match opening.await {
        Ok(Ok(())) => {}
        Ok(Err(RegistrationError::Query(StoreError::Missing))) => {
            strong.note_absent(listener.shard);
            return Some(NO_PLACE.to_owned());
        }
        Ok(Err(error)) => return Some(error.to_string()),
        Err(_) => return Some("no answer in time".to_owned()),
    }
    match strong.in_time(store::status(listener.client)).await {
        Ok(status) => strong.note_status(listener.shard, status),
        Err(StatusError::Store(StoreError::Missing)) => {
            strong.note_absent(listener.shard);
            return Some(NO_PLACE.to_owned());
        }
        Err(error) => return Some(error.to_string()),
    }
    let serves = strong.serves;
    if serves {
        strong.note_registered(listener.shard);
    }
    drop(strong);
    *listener.pause = BACKOFF.0;
    tokio::select! {
        reason = acknowledge::acknowledge(control, listener.shard, listener.client), if serves => reason,
        reason = follow(control, listener.shard, listener.client, &mut listener.notifications) => reason,
    }
}

/// Reads again what the shard says of itself whenever it says that this changed.
async fn follow(
    control: &Weak<Control>,
    shard: ShardId,
    client: &tokio_postgres::Client,
    notifications: &mut mpsc::Receiver<bool>,
) -> Option<String> {
    // What happened before LISTEN was not heard.
    let mut schema_changed = true;
    let mut read = Instant::now();
    loop {
        let strong = control.upgrade()?;
        if schema_changed {
            // Ownership does not wait for it.
            tokio::spawn(async move {
                if let Err(error) = strong.load_schema().await {
                    tracing::warn!(%error, "the schema is not refreshed");
                }
            });
        } else {
            drop(strong);
        }
        schema_changed = match timeout(HEARTBEAT, notifications.recv()).await {
            Ok(Some(schema)) => {
                sleep(NOTIFICATION_PAUSE.saturating_sub(read.elapsed())).await;
                let mut any = schema;
                while let Ok(schema) = notifications.try_recv() {
                    any |= schema;
                }
                any
            }
            Ok(None) => return Some("the connection was closed".to_owned()),
            Err(_) => false,
        };
        let strong = control.upgrade()?;
        read = Instant::now();
        match strong.in_time(store::status(client)).await {
            Ok(status) => strong.note_status(shard, status),
            Err(error) => return Some(error.to_string()),
        }
    }
}

/// Writes the state file after each change.
async fn keep_cache(control: Weak<Control>) {
    loop {
        let Some(strong) = control.upgrade() else {
            return;
        };
        let changed = timeout(HEARTBEAT, strong.records_changed.notified()).await;
        if changed.is_err() {
            continue;
        }
        let records: Vec<OwnershipRecord> =
            strong.known().records.iter().flatten().cloned().collect();
        let file = &strong.config().state.file;
        if let Err(error) = cache::write(file, &strong.cluster(), &records).await {
            tracing::warn!(file = %file.display(), %error, "cannot write the state file");
        }
    }
}

/// Compares the catalog now and then: DDL that did not go through a router notifies nobody.
async fn keep_schema(control: Weak<Control>) {
    loop {
        sleep(SCHEMA_INTERVAL).await;
        let Some(strong) = control.upgrade() else {
            return;
        };
        if let Err(error) = strong.load_schema().await {
            tracing::warn!(%error, "the schema is not refreshed");
        }
    }
}

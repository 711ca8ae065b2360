//! [`Pools`]: connections to the shards, one pool for each shard and role, made when first asked for; and the [`Lease`]
//! that a session holds. A connection goes back only clean; whatever else happens to it, it is closed. Must not know
//! statements or transactions.
//!
//! A pool keeps its idle connections by *worker*, the thread whose reactor watches their sockets. A session takes one of
//! its own worker's, without a lock that others want, and its wake-ups stay on its thread; only a pool that is full, or
//! one whose other workers have no use for theirs, moves connections between workers. Who finds none waits in line, and
//! nobody overtakes the line. (The `deadpool` crate has one stack for all: with two workers half of all leases moved a
//! socket to another reactor, and a lease cost half as much as the statement.)

use super::connection::{Backend, BackendState, Cluster, Login};
use super::control::Control;
use super::defaults::{DATE_STYLE, Defaults, SettingValues};
use super::gate::Gate;
use super::login::{ConnectError, ConnectProblem};
use super::pinned::Pinned;
use super::presence::Presence;
use super::servers::{Entry, Server, Servers};
use crate::config::Config;
use crate::topology::ShardId;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use arc_swap::ArcSwap;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often idle connections are looked at.
const REAP_INTERVAL: Duration = Duration::from_secs(5);

/// A connection that another worker has not used for this long is taken rather than a new one opened.
const UNUSED: Duration = Duration::from_secs(1);

/// How many times a session of another worker may be served before the one that waits longest.
const OVERTAKEN_MAX: u8 = 4;

/// How many times a session may be served before one that waits longer, and for which the connection would have to be
/// replaced by a new one.
const UNFIT_OVERTAKEN_MAX: u8 = 32;

/// How far down the line, or a stack, one is looked for that fits better.
const NEAR_MAX: usize = 32;

/// Names of customized settings (`a.b`).
pub type Custom = BTreeSet<Arc<str>>;

/// How well a connection suits a session with customized settings. PostgreSQL never forgets that it knows of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It knows of the same ones.
    Same,
    /// It knows of fewer, which will be more.
    Fewer,
    /// It knows of one that the session must not see.
    Unfit,
}

impl Fit {
    fn of(pooled: &Pooled, custom: &Arc<Custom>) -> Self {
        let known = &pooled.backend.custom;
        if Arc::ptr_eq(known, custom) || (known.is_empty() && custom.is_empty()) {
            return Self::Same;
        }
        match known.is_subset(custom) {
            true if known.len() == custom.len() => Self::Same,
            true => Self::Fewer,
            false => Self::Unfit,
        }
    }
}

/// All pools of one router. Shared by its worker threads.
pub struct Pools {
    shared: Arc<Shared>,
}

struct Shared {
    /// By [`ShardId`], made when first asked for.
    gates: Mutex<Vec<Arc<Gate>>>,
    settings: Settings,
    workers: usize,
    control: Arc<Control>,
    users: ArcSwap<Users>,
}

/// Role name → its pool on each shard, by [`ShardId`].
type Users = HashMap<Arc<str>, Arc<[Arc<Pool>]>>;

/// A connection goes from stack to lease and back: as a pointer.
type Parked = Box<Pooled>;

#[derive(Clone, Copy)]
struct Settings {
    size: usize,
    pinned: usize,
    wait: Duration,
    pause: Duration,
    idle: Duration,
    lifetime: Duration,
}

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A transaction that has none yet: waits while its shard is paused.
    First,
    /// One that runs on another shard already, and is to come to its end.
    Further,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// All connections were in use for too long.
    #[error("no connection to shard {shard} became free within pool.wait ({after:?})")]
    NotInTime {
        /// The shard.
        shard: Arc<str>,
        /// The limit.
        after: Duration,
    },
    /// The shard was paused for too long.
    #[error("shard {shard} is paused")]
    Paused {
        /// The shard.
        shard: Arc<str>,
        /// The limit.
        after: Duration,
    },
    /// As many connections as may be are kept by sessions already.
    #[error("too many sessions keep a connection to shard {shard}")]
    TooManyPinned {
        /// The shard.
        shard: Arc<str>,
        /// The limit.
        max: usize,
    },
    /// A new connection was needed and could not be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The router is shutting down.
    #[error("the router is shutting down")]
    Closed,
}

impl ErrorReply for LeaseError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NotInTime { .. } | Self::TooManyPinned { .. } => SqlState::TOO_MANY_CONNECTIONS,
            Self::Paused { .. } => SqlState::CANNOT_CONNECT_NOW,
            Self::Connect(error) => error.sqlstate(),
            Self::Closed => SqlState::ADMIN_SHUTDOWN,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::NotInTime { .. }
            | Self::Paused { .. }
            | Self::TooManyPinned { .. }
            | Self::Closed => Fault::Router,
            Self::Connect(error) => error.fault(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.detail(),
            Self::TooManyPinned { max, .. } => Some(format!("pool.pinned is {max}")),
            Self::Paused { after, .. } => {
                Some(format!("It was not resumed within pool.pause ({after:?})."))
            }
            Self::NotInTime { .. } | Self::Closed => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotInTime { .. } => {
                Some("Shorten transactions, or raise pool.size or pool.wait.".to_owned())
            }
            Self::TooManyPinned { .. } => Some(
                "Unlock, UNLISTEN, close or drop what other sessions keep, or raise pool.pinned."
                    .to_owned(),
            ),
            Self::Paused { .. } => Some("Try again after RESUME in the console.".to_owned()),
            Self::Connect(error) => error.hint(),
            Self::Closed => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// One pool as it is now.
#[derive(Debug, Clone)]
pub struct PoolStatus {
    /// The role.
    pub user: Arc<str>,
    /// The shard.
    pub shard: ShardId,
    /// Connections that are open, in use or idle.
    pub open: usize,
    /// Connections that wait for a session.
    pub idle: usize,
    /// Connections that are being opened.
    pub opening: usize,
    /// Connections that sessions keep beyond their transactions.
    pub pinned: usize,
    /// Sessions that wait for a connection, or for RESUME.
    pub waiting: usize,
    /// Connections that were opened so far.
    pub connects: u64,
    /// Attempts to open one that failed.
    pub connect_errors: u64,
    /// Waits that took longer than `pool.wait`.
    pub timeouts: u64,
    /// How often one was given to a session.
    pub leases: u64,
    /// How long sessions have waited in line, all together.
    pub waited: Duration,
    /// How long the first in line has waited.
    pub longest_wait: Duration,
    /// Whether new transactions wait for RESUME.
    pub paused: bool,
}

/// One connection as it is now.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// The role.
    pub user: Arc<str>,
    /// The shard.
    pub shard: ShardId,
    /// The connection.
    pub server: Arc<Server>,
    /// Whether it waits for a session.
    pub idle: bool,
    /// Whether it is closed when it comes back.
    pub closing: bool,
}

impl Pools {
    /// No connection yet; sessions will run on `workers` threads. Starts a task on the calling runtime that closes idle
    /// connections.
    pub fn new(config: &Config, control: Arc<Control>, workers: usize) -> Self {
        let settings = Settings {
            size: config.pool.size,
            pinned: config.pool.pinned,
            wait: config.pool.wait,
            pause: config.pool.pause,
            idle: config.pool.idle,
            lifetime: config.pool.lifetime,
        };
        let shared = Shared {
            gates: Mutex::default(),
            settings,
            workers: workers.max(1),
            control,
            users: ArcSwap::default(),
        };
        let shared = Arc::new(shared);
        tokio::spawn(reap(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// The pools of a role, for a session that runs on `worker`.
    pub fn of(&self, login: Login, worker: usize) -> UserPools {
        UserPools {
            pools: self.shared.pools_of(&login.user, 0),
            shared: self.shared.clone(),
            login,
            worker: worker % self.shared.workers,
        }
    }

    /// Every pool, in no order.
    pub fn status(&self) -> Vec<PoolStatus> {
        let users = self.shared.users.load();
        let pools = users.values().flat_map(|pools| pools.iter());
        pools.map(|pool| pool.status()).collect()
    }

    /// Every connection, by pool and in the order in which they were opened.
    pub fn servers(&self) -> Vec<ServerStatus> {
        let users = self.shared.users.load();
        let pools = users.values().flat_map(|pools| pools.iter());
        pools.flat_map(|pool| pool.server_status()).collect()
    }

    /// Has new transactions wait for these shards; those that run there go on. Idle connections are closed.
    pub fn pause(&self, shards: &[ShardId]) {
        self.gates(shards).for_each(|gate| gate.shut());
        self.each(shards, |pool| pool.clear_out());
    }

    /// Ends [`Self::pause`].
    pub fn resume(&self, shards: &[ShardId]) {
        self.gates(shards).for_each(|gate| gate.open());
    }

    /// Whether new transactions wait for the shard.
    pub fn is_paused(&self, shard: ShardId) -> bool {
        self.shared.gate(shard).is_shut_now()
    }

    /// Returns when no transaction runs on these shards. Connections that sessions keep beyond their transactions stay.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn quiet(&self, shards: &[ShardId]) {
        self.until(shards, |pool| pool.running() == 0).await;
    }

    /// Closes the connections to these shards: idle ones now, others when they come back.
    pub fn reconnect(&self, shards: &[ShardId]) {
        self.gates(shards).for_each(|gate| gate.renew());
        self.each(shards, |pool| pool.drop_idle());
    }

    /// Returns when no connection to these shards is older than the last [`Self::reconnect`].
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn renewed(&self, shards: &[ShardId]) {
        let is_new = |pool: &Pool| !pool.servers.any_before(pool.gate.generation());
        self.until(shards, is_new).await;
    }

    fn gates(&self, shards: &[ShardId]) -> impl Iterator<Item = Arc<Gate>> {
        shards.iter().map(|shard| self.shared.gate(*shard))
    }

    fn each(&self, shards: &[ShardId], mut act: impl FnMut(&Arc<Pool>)) {
        let users = self.shared.users.load();
        let pools = users.values().flat_map(|pools| pools.iter());
        let pools = pools.filter(|pool| shards.contains(&pool.shard));
        pools.for_each(&mut act);
    }

    /// Returns when all pools of these shards are so at once, looking again whenever a connection is closed or rests.
    async fn until(&self, shards: &[ShardId], is_so: impl Fn(&Pool) -> bool) {
        let not_yet = || {
            let mut gate = None;
            self.each(shards, |pool| {
                if !is_so(pool) {
                    gate = Some(pool.gate.clone());
                }
            });
            gate
        };
        while let Some(gate) = not_yet() {
            let mut left = pin!(gate.left.notified());
            left.as_mut().enable();
            // What happened before it listened was not heard.
            if not_yet().is_some_and(|other| Arc::ptr_eq(&other, &gate)) {
                left.await;
            }
        }
    }

    /// Closes all idle connections and gives no more leases. Those that are out are closed when they come back.
    pub fn close(&self) {
        let users = self.shared.users.load();
        users
            .values()
            .flat_map(|pools| pools.iter())
            .for_each(|pool| pool.close());
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn gate(&self, shard: ShardId) -> Arc<Gate> {
        let mut gates = lock(&self.gates);
        let index = usize::from(shard.0);
        if gates.len() <= index {
            gates.resize_with(index + 1, Arc::default);
        }
        gates[index].clone()
    }

    /// The pools of a role, `least` of them if there are as many shards.
    fn pools_of(&self, user: &Arc<str>, least: usize) -> Arc<[Arc<Pool>]> {
        if let Some(pools) = self.users.load().get(user)
            && pools.len() >= least
        {
            return pools.clone();
        }
        self.users.rcu(|users| {
            let mut users = HashMap::clone(users);
            let known = users.get(user).map_or(&[][..], |pools| pools);
            let defaults = known.first().map(|pool| pool.defaults.clone());
            let defaults = defaults.unwrap_or_default();
            let shards = self.control.shards().into_iter().skip(known.len());
            let new = shards.map(|(shard, name)| self.pool(shard, name, user, &defaults));
            let pools = known.iter().cloned().chain(new.map(Arc::new)).collect();
            users.insert(user.clone(), pools);
            users
        });
        let users = self.users.load();
        users.get(user).cloned().unwrap_or_default()
    }

    fn pool(
        &self,
        shard: ShardId,
        shard_name: Arc<str>,
        user: &Arc<str>,
        defaults: &Arc<Defaults>,
    ) -> Pool {
        Pool {
            defaults: defaults.clone(),
            shard,
            shard_name,
            settings: self.settings,
            user: user.clone(),
            presence: self.control.presence(shard),
            control: self.control.clone(),
            gate: self.gate(shard),
            servers: Servers::default(),
            leases: (0..self.workers).map(|_| AtomicU64::new(0)).collect(),
            waited: AtomicU64::new(0),
            resting: Arc::default(),
            held: Arc::default(),
            node: AtomicUsize::new(0),
            idle: (0..self.workers).map(|_| Mutex::default()).collect(),
            open: AtomicUsize::new(0),
            pinned: Arc::default(),
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
            closed: AtomicBool::new(false),
            connects: AtomicU64::new(0),
            connect_errors: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
        }
    }
}

/// Closes connections that were idle or alive for too long, as long as the pools live.
async fn reap(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(REAP_INTERVAL).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        for pool in shared.users.load().values().flat_map(|pools| pools.iter()) {
            pool.reap();
        }
    }
}

/// The pools of one role on all shards, as one session sees them.
#[derive(Clone)]
pub struct UserPools {
    /// Of the shards that there were when the session began.
    pools: Arc<[Arc<Pool>]>,
    shared: Arc<Shared>,
    login: Login,
    worker: usize,
}

impl UserPools {
    /// A connection to `shard`, clean and idle, that knows of no customized settings but these: a pooled one, or a new
    /// one, if need be in the place of a pooled one that knows of others.
    ///
    /// # Errors
    /// [`LeaseError`].
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn acquire(
        &self,
        shard: ShardId,
        custom: &Arc<Custom>,
        need: Need,
    ) -> Result<Lease, LeaseError> {
        match self.pools.get(usize::from(shard.0)) {
            Some(pool) => pool.acquire(&self.login, self.worker, custom, need).await,
            None => {
                let pool = self.added(shard)?;
                pool.acquire(&self.login, self.worker, custom, need).await
            }
        }
    }

    /// The pool of a shard that was added after the session began.
    fn added(&self, shard: ShardId) -> Result<Arc<Pool>, LeaseError> {
        let index = usize::from(shard.0);
        let pools = self.shared.pools_of(&self.login.user, index + 1);
        pools.get(index).cloned().ok_or(LeaseError::Closed)
    }

    /// [`Self::acquire`] where that takes no waiting: a pooled connection, if nobody stands in line for one.
    pub fn take(&self, shard: ShardId, custom: &Arc<Custom>, need: Need) -> Option<Lease> {
        match self.pools.get(usize::from(shard.0)) {
            Some(pool) => pool.take(self.worker, custom, need),
            None => self.added(shard).ok()?.take(self.worker, custom, need),
        }
    }

    /// Waits while the shard is paused.
    ///
    /// # Errors
    /// [`LeaseError::Paused`].
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn pass(&self, shard: ShardId) -> Result<(), LeaseError> {
        match self.pools.get(usize::from(shard.0)) {
            Some(pool) => pool.pass().await,
            None => self.added(shard)?.pass().await,
        }
    }

    /// What the role's sessions start with, as the default shard says; if it has said nothing yet, `shard` is asked.
    ///
    /// # Errors
    /// [`LeaseError`].
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn defaults(&self, shard: ShardId) -> Result<Arc<SettingValues>, LeaseError> {
        let pool = self.added(shard)?;
        if let Some(settled) = pool.defaults.settled() {
            return Ok(settled);
        }
        let none = Arc::default();
        let lease = pool
            .acquire(&self.login, self.worker, &none, Need::First)
            .await?;
        lease.release();
        pool.defaults.known().ok_or(LeaseError::Closed)
    }

    /// DateStyle of a login that asks for a `part` of it. PostgreSQL takes the rest from the server's configuration, not
    /// from the defaults of database and role, so a connection that is made in this way is asked, once.
    ///
    /// # Errors
    /// [`LeaseError`].
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn complete_date_style(
        &self,
        shard: ShardId,
        part: &'static str,
    ) -> Result<Arc<str>, LeaseError> {
        let pool = self.added(shard)?;
        if let Some(known) = pool.defaults.date_styles().get(part) {
            return Ok(known.clone());
        }
        // Its place in the pool is for a connection that no other session has.
        let none = Arc::default();
        let lease = pool
            .acquire(&self.login, self.worker, &none, Need::First)
            .await?;
        let _room = lease.into_room().ok_or(LeaseError::Closed)?;
        let asked = SettingValues::from([(DATE_STYLE.into(), part.into())]);
        let backend = pool.connect_with(&self.login, &asked).await?;
        let shown = backend.applied.get(DATE_STYLE);
        let shown = shown.ok_or(LeaseError::Closed)?.clone();
        pool.defaults.date_styles().insert(part, shown.clone());
        Ok(shown)
    }

    /// On which worker's thread.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// As whom.
    pub fn login(&self) -> &Login {
        &self.login
    }
}

impl fmt::Debug for UserPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserPools({:?} on {})", self.login, self.worker)
    }
}

/// The connections of one role to one shard.
struct Pool {
    shard: ShardId,
    shard_name: Arc<str>,
    settings: Settings,
    user: Arc<str>,
    control: Arc<Control>,
    /// Of this router on the shard.
    presence: Arc<Presence>,
    gate: Arc<Gate>,
    servers: Servers,
    /// How many leases each worker was given; written by that worker only.
    leases: Box<[AtomicU64]>,
    /// How long sessions have stood in line, in microseconds.
    waited: AtomicU64,
    /// Connections that sessions keep and that no transaction uses.
    resting: Arc<AtomicUsize>,
    /// Sessions that wait for RESUME.
    held: Arc<AtomicUsize>,
    /// What the role's sessions start with, on all shards.
    defaults: Arc<Defaults>,
    /// Index of the node that was the primary last.
    node: AtomicUsize,
    /// Idle connections by worker, the one that came back last on top: it is the warmest, the others grow old.
    idle: Box<[Mutex<Vec<Parked>>]>,
    /// Connections that are open or being opened, never more than `pool.size`.
    open: AtomicUsize,
    /// Connections that sessions keep, never more than `pool.pinned`.
    pinned: Arc<AtomicUsize>,
    /// How many stand in line.
    waiting: AtomicUsize,
    line: Mutex<VecDeque<Waiter>>,
    closed: AtomicBool,
    connects: AtomicU64,
    connect_errors: AtomicU64,
    timeouts: AtomicU64,
}

/// A session in line.
struct Waiter {
    worker: usize,
    custom: Arc<Custom>,
    overtaken: u8,
    need: Need,
    since: tokio::time::Instant,
    grant: oneshot::Sender<Grant>,
}

/// What a session in line is given.
enum Grant {
    /// A connection.
    Idle(Parked),
    /// Room to open one.
    Room(Room),
}

/// The right to one connection of a pool's size; dropped, it goes to the next in line.
struct Room {
    pool: Arc<Pool>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.pool.open.fetch_sub(1, Ordering::SeqCst);
        self.pool.gate.left.notify_waiters();
        self.pool.serve();
    }
}

/// A connection and its place in a pool.
struct Pooled {
    backend: Backend,
    /// When it is too old.
    expires: Instant,
    /// When it came back last.
    released: Instant,
    /// Whose reactor watches it.
    worker: usize,
    /// The session that holds it keeps it.
    pinned: Option<Pinned>,
    /// The session that keeps it does not use it.
    resting: Option<Pinned>,
    entry: Entry,
    /// Last, since who waits for its place to be free sees the others gone.
    room: Room,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    async fn acquire(
        self: &Arc<Self>,
        login: &Login,
        worker: usize,
        custom: &Arc<Custom>,
        need: Need,
    ) -> Result<Lease, LeaseError> {
        loop {
            if self.closed.load(Ordering::Relaxed) {
                return Err(LeaseError::Closed);
            }
            if self.holds(need) {
                Box::pin(self.pass()).await?;
            }
            if let Some(lease) = self.take(worker, custom, need) {
                return Ok(lease);
            }
            if self.waiting.load(Ordering::Relaxed) == 0 {
                let room = self.take_room();
                let room = room.or_else(|| self.take_unfit(worker).map(room_of));
                if let Some(room) = room {
                    if self.holds(need) {
                        continue;
                    }
                    return Box::pin(self.open(room, login, worker)).await;
                }
            }
            if let Some(lease) = self.stand_in_line(login, worker, custom, need).await? {
                return Ok(lease);
            }
        }
    }

    /// Whether who needs a connection for this has to wait until the shard is resumed.
    fn holds(&self, need: Need) -> bool {
        need == Need::First && self.gate.is_shut_now()
    }

    /// Waits while the shard is paused.
    async fn pass(&self) -> Result<(), LeaseError> {
        let _held = Pinned::take(&self.held, usize::MAX);
        match self.gate.pass(self.settings.pause).await {
            true => Ok(()),
            false => Err(LeaseError::Paused {
                shard: self.shard_name.clone(),
                after: self.settings.pause,
            }),
        }
    }

    /// An idle connection that still serves, unless others wait for one. (A closed pool has none.)
    fn take(&self, worker: usize, custom: &Arc<Custom>, need: Need) -> Option<Lease> {
        let held = need == Need::First && self.gate.is_shut();
        if held || self.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let mut idle = std::iter::from_fn(|| self.take_idle(worker, custom));
        idle.find_map(|pooled| Lease::of(pooled, worker))
    }

    /// An idle connection that `worker` may have: one of its own, or one that the others do not need. Of those that fit
    /// one that knows of the same customized settings is best, then the warmest.
    fn take_idle(&self, worker: usize, custom: &Arc<Custom>) -> Option<Parked> {
        let fewer = {
            let mut own = lock(&self.idle[worker]);
            match best_of(&own, custom) {
                Some((place, Fit::Same)) => return Some(own.remove(place)),
                Some((_, Fit::Fewer)) => true,
                Some((_, Fit::Unfit)) | None => false,
            }
        };
        let full = self.open.load(Ordering::Relaxed) >= self.settings.size;
        let of_others = |fit: Fit| {
            self.others(worker).find_map(|idle| {
                let mut idle = lock(idle);
                let unused = |pooled: &Parked| full || pooled.released.elapsed() >= UNUSED;
                let first = idle.iter().take(NEAR_MAX);
                let mut first = first.take_while(|pooled| unused(pooled));
                let place = first.position(|pooled| Fit::of(pooled, custom) == fit)?;
                Some(idle.remove(place))
            })
        };
        if let Some(pooled) = of_others(Fit::Same) {
            return Some(pooled);
        }
        if fewer {
            let mut own = lock(&self.idle[worker]);
            if let Some((place, Fit::Same | Fit::Fewer)) = best_of(&own, custom) {
                return Some(own.remove(place));
            }
        }
        of_others(Fit::Fewer)
    }

    /// The idle connection that was not used for longest: it fits nobody who is here.
    fn take_unfit(&self, worker: usize) -> Option<Parked> {
        let stacks = std::iter::once(&self.idle[worker]).chain(self.others(worker));
        stacks.into_iter().find_map(|idle| {
            let mut idle = lock(idle);
            (!idle.is_empty()).then(|| idle.remove(0))
        })
    }

    fn others(&self, worker: usize) -> impl Iterator<Item = &Mutex<Vec<Parked>>> {
        let (before, from) = self.idle.split_at(worker);
        from.iter().skip(1).chain(before)
    }

    fn take_room(self: &Arc<Self>) -> Option<Room> {
        let grow = |open| (open < self.settings.size).then_some(open + 1);
        let grown = self
            .open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, grow);
        grown.ok().map(|_| Room { pool: self.clone() })
    }

    async fn stand_in_line(
        self: &Arc<Self>,
        login: &Login,
        worker: usize,
        custom: &Arc<Custom>,
        need: Need,
    ) -> Result<Option<Lease>, LeaseError> {
        let (grant, granted) = oneshot::channel();
        let since = tokio::time::Instant::now();
        let waiter = Waiter {
            worker,
            custom: custom.clone(),
            overtaken: 0,
            need,
            since,
            grant,
        };
        {
            let mut line = lock(&self.line);
            // Who shuts the gate takes those out of the line who have to wait before it.
            if self.holds(need) {
                return Ok(None);
            }
            line.push_back(waiter);
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
        let mut place = Place {
            pool: self,
            served: false,
        };
        // What came back between the look and the place in line.
        fence(Ordering::SeqCst);
        self.serve();
        let deadline = since + self.settings.wait;
        let granted = tokio::time::timeout_at(deadline, granted).await;
        let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited.fetch_add(waited, Ordering::Relaxed);
        place.served = matches!(granted, Ok(Ok(_)));
        drop(place);
        let room = match granted {
            Ok(Ok(Grant::Idle(pooled))) if Fit::of(&pooled, custom) == Fit::Unfit => {
                room_of(pooled)
            }
            Ok(Ok(Grant::Idle(pooled))) => match Lease::or_room(pooled, worker) {
                Ok(lease) => return Ok(Some(lease)),
                Err(room) => room,
            },
            Ok(Ok(Grant::Room(room))) => room,
            // It was taken out of the line.
            Ok(Err(_)) => return Ok(None),
            Err(_) => {
                self.timeouts.fetch_add(1, Ordering::Relaxed);
                return Err(LeaseError::NotInTime {
                    shard: self.shard_name.clone(),
                    after: self.settings.wait,
                });
            }
        };
        Box::pin(self.open(room, login, worker)).await.map(Some)
    }

    /// Gives those in line what there is.
    fn serve(self: &Arc<Self>) {
        while self.waiting.load(Ordering::SeqCst) > 0 {
            let idle = self.idle.iter().enumerate().find_map(|(worker, idle)| {
                let pooled = lock(idle).pop()?;
                Some((worker, Grant::Idle(pooled)))
            });
            let room = || self.take_room().map(|room| (usize::MAX, Grant::Room(room)));
            let Some((worker, grant)) = idle.or_else(room) else {
                return;
            };
            match self.hand_over(grant, worker) {
                None => {}
                Some(Grant::Idle(pooled)) => lock(&self.idle[worker]).push(pooled),
                Some(Grant::Room(room)) => drop(room),
            }
        }
    }

    /// Gives `grant` to who waits longest, with some preference for a session that it fits, and for one of the
    /// connection's own worker; back, if nobody takes it.
    fn hand_over(&self, mut grant: Grant, worker: usize) -> Option<Grant> {
        let mut line = lock(&self.line);
        loop {
            let rank = |waiter: &Waiter| match &grant {
                Grant::Idle(pooled) => (Fit::of(pooled, &waiter.custom), waiter.worker != worker),
                Grant::Room(_) => (Fit::Same, false),
            };
            let first = line.front()?;
            let (fit, elsewhere) = rank(first);
            let patience = match fit {
                Fit::Unfit => UNFIT_OVERTAKEN_MAX,
                Fit::Same | Fit::Fewer => OVERTAKEN_MAX,
            };
            let mut place = 0;
            if (fit, elsewhere) > (Fit::Same, false) && first.overtaken < patience {
                let front = line.iter().take(NEAR_MAX).enumerate();
                let best = front.min_by_key(|(place, waiter)| (rank(waiter), *place));
                place = best.map_or(0, |(place, _)| place);
            }
            if place > 0 {
                line[0].overtaken += 1;
            }
            let waiter = line.remove(place)?;
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            match waiter.grant.send(grant) {
                Ok(()) => return None,
                // It gave up.
                Err(refused) => grant = refused,
            }
        }
    }

    async fn open(&self, room: Room, login: &Login, worker: usize) -> Result<Lease, LeaseError> {
        let generation = self.gate.generation();
        let backend = self.connect(login).await?;
        let addresses = backend.stream.addresses();
        let entry = self.servers.enter(backend.pid, addresses, generation);
        let now = Instant::now();
        self.count_lease(worker);
        Ok(Lease {
            pooled: Some(Box::new(Pooled {
                backend,
                expires: now + self.settings.lifetime,
                released: now,
                worker,
                pinned: None,
                resting: None,
                entry,
                room,
            })),
        })
    }

    /// A connection that starts as all of the role's do.
    async fn connect(&self, login: &Login) -> Result<Backend, ConnectError> {
        let is_default_shard = self.control.topology.load().default_shard == self.shard;
        // The default shard is not told what it is asked for.
        let settings = (!is_default_shard).then(|| self.defaults.known()).flatten();
        if let Some(settings) = settings {
            return self.connect_with(login, &settings).await;
        }
        let backend = self.connect_with(login, &SettingValues::default()).await?;
        let shard = &self.shard_name;
        self.defaults
            .note(shard, is_default_shard, &backend.applied);
        Ok(backend)
    }

    async fn connect_with(
        &self,
        login: &Login,
        settings: &SettingValues,
    ) -> Result<Backend, ConnectError> {
        let endpoint = self.control.endpoint(self.shard);
        let nodes = &endpoint.nodes;
        let first = self.node.load(Ordering::Relaxed);
        let mut attempts = (0..nodes.len())
            .map(|offset| (first + offset) % nodes.len())
            .peekable();
        while let Some(node) = attempts.next() {
            let cluster_id = self.control.cluster_id();
            let cluster = Cluster {
                id: cluster_id.as_deref(),
                presence: &self.presence,
            };
            let address = &nodes[node];
            let connecting = Backend::connect(&endpoint, address, login, settings, &cluster);
            match connecting.await {
                Ok((backend, greeting)) => {
                    self.node.store(node, Ordering::Relaxed);
                    self.connects.fetch_add(1, Ordering::Relaxed);
                    // The topology is at least as new as the connection before anything runs on it.
                    self.control.note_ownership(self.shard, greeting.ownership);
                    // Nothing runs on it that nobody would wait for.
                    let wait = endpoint.connect;
                    let registered = tokio::time::timeout(wait, self.presence.registered());
                    return match registered.await {
                        Ok(()) => Ok(backend),
                        Err(_) => Err(ConnectError {
                            shard: self.shard_name.clone(),
                            address: Some(address.clone()),
                            problem: ConnectProblem::Unregistered { after: wait },
                        }),
                    };
                }
                Err(error) => {
                    let elsewhere = matches!(
                        error.problem,
                        ConnectProblem::Standby
                            | ConnectProblem::Unreachable(_)
                            | ConnectProblem::TimedOut { .. }
                    );
                    if !elsewhere || attempts.peek().is_none() {
                        self.connect_errors.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(address = %nodes[node], %error, "cannot connect");
                        return Err(error);
                    }
                }
            }
        }
        Err(ConnectError {
            shard: self.shard_name.clone(),
            address: None,
            problem: ConnectProblem::Protocol("the shard has no nodes".to_owned()),
        })
    }

    /// Keeps a clean connection for others, unless it is too old.
    fn keep(self: &Arc<Self>, mut pooled: Parked) {
        let now = Instant::now();
        pooled.released = now;
        let server = &pooled.entry.server;
        let is_old = now >= pooled.expires
            || pooled.backend.attendance.is_outdated()
            || server.generation != self.gate.generation();
        if is_old || self.closed.load(Ordering::SeqCst) {
            return;
        }
        server.note_released(now, pooled.backend.prepared.len());
        lock(&self.idle[pooled.worker]).push(pooled);
        // Who stands in line since then sees it, or is seen here.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve();
        }
        // What came in between has seen an empty stack.
        if self.closed.load(Ordering::SeqCst) {
            self.close();
        } else if self.gate.is_shut_now() {
            self.drop_idle();
        }
    }

    fn count_lease(&self, worker: usize) {
        let leases = &self.leases[worker];
        leases.store(leases.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn reap(&self) {
        for idle in &self.idle {
            let now = Instant::now();
            let is_too_old = |pooled: &mut Parked| {
                now.saturating_duration_since(pooled.released) >= self.settings.idle
                    || now >= pooled.expires
                    || pooled.backend.attendance.is_outdated()
            };
            // Dropped after the lock: a connection's room goes to who stands in line.
            let old: Vec<_> = lock(idle).extract_if(.., is_too_old).collect();
            drop(old);
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.drop_idle();
        let line = std::mem::take(&mut *lock(&self.line));
        self.waiting.fetch_sub(line.len(), Ordering::SeqCst);
    }

    fn drop_idle(&self) {
        for idle in &self.idle {
            let closed = std::mem::take(&mut *lock(idle));
            drop(closed);
        }
    }

    /// The gate was shut: who has to wait before it leaves the line, and idle connections are closed.
    fn clear_out(&self) {
        let held: Vec<Waiter> = {
            let mut line = lock(&self.line);
            let (held, line_left) = std::mem::take(&mut *line)
                .into_iter()
                .partition(|waiter| waiter.need == Need::First);
            *line = line_left;
            held.into()
        };
        self.waiting.fetch_sub(held.len(), Ordering::SeqCst);
        drop(held);
        self.drop_idle();
    }

    /// Connections that transactions use, or that are being opened.
    fn running(&self) -> usize {
        let status = self.status();
        let unused = status.idle + self.resting.load(Ordering::SeqCst);
        status.open.saturating_sub(unused)
    }

    fn server_status(&self) -> Vec<ServerStatus> {
        let idle: Vec<u64> = self
            .idle
            .iter()
            .flat_map(|idle| {
                let idle = lock(idle);
                let ids = idle.iter().map(|pooled| pooled.entry.server.id);
                ids.collect::<Vec<_>>()
            })
            .collect();
        let generation = self.gate.generation();
        let servers = self.servers.all().into_iter();
        servers
            .map(|server| ServerStatus {
                user: self.user.clone(),
                shard: self.shard,
                idle: idle.contains(&server.id),
                closing: server.generation != generation,
                server,
            })
            .collect()
    }

    fn status(&self) -> PoolStatus {
        let open = self.open.load(Ordering::Relaxed);
        PoolStatus {
            user: self.user.clone(),
            shard: self.shard,
            open,
            opening: open.saturating_sub(self.servers.count()),
            idle: self.idle.iter().map(|idle| lock(idle).len()).sum(),
            pinned: self.pinned.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed) + self.held.load(Ordering::Relaxed),
            connects: self.connects.load(Ordering::Relaxed),
            connect_errors: self.connect_errors.load(Ordering::Relaxed),
            timeouts: self.timeouts.load(Ordering::Relaxed),
            leases: self
                .leases
                .iter()
                .map(|leases| leases.load(Ordering::Relaxed))
                .sum(),
            waited: Duration::from_micros(self.waited.load(Ordering::Relaxed)),
            longest_wait: lock(&self.line)
                .front()
                .map_or(Duration::ZERO, |waiter| waiter.since.elapsed()),
            paused: self.gate.is_shut(),
        }
    }
}

/// Closes a connection; what is left of it is its room.
fn room_of(pooled: Parked) -> Room {
    let Pooled { room, .. } = *pooled;
    room
}

/// Where the idle connection is that fits best, of the warmest those that fit equally.
fn best_of(idle: &[Parked], custom: &Arc<Custom>) -> Option<(usize, Fit)> {
    let mut best: Option<(usize, Fit)> = None;
    for (place, pooled) in idle.iter().enumerate().rev().take(NEAR_MAX) {
        let fit = Fit::of(pooled, custom);
        if best.is_none_or(|(_, other)| fit < other) {
            best = Some((place, fit));
        }
        if fit == Fit::Same {
            break;
        }
    }
    best
}

/// A place in line; dropped, it is given up.
struct Place<'a> {
    pool: &'a Pool,
    served: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        let mut line = lock(&self.pool.line);
        let before = line.len();
        line.retain(|waiter| !waiter.grant.is_closed());
        let gone = before - line.len();
        self.pool.waiting.fetch_sub(gone, Ordering::SeqCst);
    }
}

/// A backend that a session holds. Dropping it closes the connection, and cancels what still runs on it; only
/// [`Lease::release`] gives it back.
pub struct Lease {
    /// Present until release or drop.
    pooled: Option<Parked>,
}

impl Lease {
    /// Has `worker` hold an idle connection; `None` if it is of no use any more.
    fn of(pooled: Parked, worker: usize) -> Option<Self> {
        Self::or_room(pooled, worker).ok()
    }

    /// As [`Self::of`]; what is left of a useless connection is its room.
    fn or_room(mut pooled: Parked, worker: usize) -> Result<Self, Room> {
        let backend = &mut pooled.backend;
        // Bytes are a farewell (the shard shut down), or an answer that nobody waited for.
        let mut useful = backend.state == BackendState::Clean
            && !backend.attendance.is_outdated()
            && backend.stream.is_quiet();
        if useful && pooled.worker != worker {
            useful = backend.stream.rehome().is_ok();
            pooled.worker = worker;
        }
        if !useful {
            return Err(pooled.room);
        }
        pooled.backend.state = BackendState::InUse;
        pooled.room.pool.count_lease(worker);
        Ok(Self {
            pooled: Some(pooled),
        })
    }

    /// Closes the connection, on which nothing runs.
    fn into_room(mut self) -> Option<Room> {
        self.pooled.take().map(room_of)
    }

    /// Has the connection count as one that its session keeps, until it is released or dropped.
    ///
    /// # Errors
    /// [`LeaseError::TooManyPinned`].
    pub fn pin(&mut self) -> Result<(), LeaseError> {
        let pooled = self.pooled.as_mut().ok_or(LeaseError::Closed)?;
        if pooled.pinned.is_none() {
            let pool = &pooled.room.pool;
            let max = pool.settings.pinned;
            let pinned = Pinned::take(&pool.pinned, max);
            pooled.pinned = Some(pinned.ok_or_else(|| LeaseError::TooManyPinned {
                shard: pool.shard_name.clone(),
                max,
            })?);
        }
        Ok(())
    }

    /// Ends [`Self::pin`]; the session may hold the connection still.
    pub fn unpin(&mut self) {
        if let Some(pooled) = self.pooled.as_mut() {
            pooled.pinned = None;
        }
    }

    /// The session that keeps the connection does not use it now.
    pub fn set_aside(&mut self) {
        if let Some(pooled) = self.pooled.as_mut() {
            let pool = &pooled.room.pool;
            pooled.resting = Pinned::take(&pool.resting, usize::MAX);
            pool.gate.left.notify_waiters();
        }
    }

    /// Ends [`Self::set_aside`].
    pub fn take_up(&mut self) {
        if let Some(pooled) = self.pooled.as_mut() {
            pooled.resting = None;
        }
    }

    /// Gives the connection back for others. The caller has seen ReadyForQuery 'I' for all that it sent. A connection
    /// that is broken or tainted, or has bytes left in either direction is closed instead.
    pub fn release(mut self) {
        let Some(pooled) = self.pooled.as_mut() else {
            return;
        };
        let backend = &mut pooled.backend;
        if backend.state != BackendState::InUse || backend.tainted {
            return;
        }
        if !backend.stream.is_drained() {
            // A notification, or a parameter that a reload of the shard changed, may come at any time.
            tracing::info!(shard = %backend.shard_name, "a connection with bytes left is closed");
            return;
        }
        backend.state = BackendState::Clean;
        backend.rest();
        backend.stream.trim();
        pooled.pinned = None;
        pooled.resting = None;
        if let Some(pooled) = self.pooled.take() {
            let pool = pooled.room.pool.clone();
            pool.keep(pooled);
        }
    }
}

impl Deref for Lease {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        let pooled = self.pooled.as_deref();
        &pooled
            .expect("a lease holds its backend until it is dropped")
            .backend
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Backend {
        let pooled = self.pooled.as_deref_mut();
        &mut pooled
            .expect("a lease holds its backend until it is dropped")
            .backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(pooled) = self.pooled.take() else {
            return;
        };
        if pooled.backend.state == BackendState::InUse
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let token = pooled.backend.cancel_token();
            runtime.spawn(async move {
                if let Err(error) = token.cancel().await {
                    tracing::debug!(?token, %error, "a cancel did not reach its shard");
                }
            });
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pooled.as_deref().map(|pooled| &pooled.backend).fmt(f)
    }
}

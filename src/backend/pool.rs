//! [`Pools`]: connections to the shards, one pool for each shard and role, made when first asked for; and the [`Lease`]
//! that a session holds. A connection goes back only clean; whatever else happens to it, it is closed. Must not know
//! statements or transactions.

use super::connection::{Backend, BackendState, Endpoint, Login};
use super::control::Control;
use super::login::{ConnectError, ConnectProblem};
use crate::config::Config;
use crate::topology::ShardId;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use arc_swap::ArcSwap;
use deadpool::managed::{self, Metrics, Object, QueueMode, RecycleError, RecycleResult};
use deadpool::{Runtime, managed::PoolError, managed::TimeoutType};
use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often idle connections are looked at.
const REAP_INTERVAL: Duration = Duration::from_secs(5);

/// All pools of one router. Shared by its worker threads.
pub struct Pools {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: Vec<Endpoint>,
    settings: Settings,
    control: Arc<Control>,
    /// Role name → its pool on each shard, by [`ShardId`].
    users: ArcSwap<HashMap<Arc<str>, Arc<[Pool]>>>,
}

#[derive(Clone, Copy)]
struct Settings {
    size: usize,
    wait: Duration,
    idle: Duration,
    lifetime: Duration,
}

type Pool = managed::Pool<Connector>;

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
            Self::NotInTime { .. } => SqlState::TOO_MANY_CONNECTIONS,
            Self::Connect(error) => error.sqlstate(),
            Self::Closed => SqlState::ADMIN_SHUTDOWN,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::NotInTime { .. } | Self::Closed => Fault::Router,
            Self::Connect(error) => error.fault(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.detail(),
            Self::NotInTime { .. } | Self::Closed => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotInTime { .. } => {
                Some("Shorten transactions, or raise pool.size or pool.wait.".to_owned())
            }
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
    /// Sessions that wait for a connection, those included for whom one is being opened.
    pub waiting: usize,
    /// Connections that were opened so far.
    pub connects: u64,
    /// Attempts to open one that failed.
    pub connect_errors: u64,
    /// Waits that took longer than `pool.wait`.
    pub timeouts: u64,
}

impl Pools {
    /// No connection yet. Starts a task on the calling runtime that closes idle connections.
    pub fn new(config: Arc<Config>, control: Arc<Control>) -> Self {
        let settings = Settings {
            size: config.pool.size,
            wait: config.pool.wait,
            idle: config.pool.idle,
            lifetime: config.pool.lifetime,
        };
        let shared = Shared {
            endpoints: Endpoint::all(&config),
            settings,
            control,
            users: ArcSwap::default(),
        };
        let shared = Arc::new(shared);
        tokio::spawn(reap(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// A connection to `shard` for the role, clean and idle: a pooled one, or a new one while the pool has room.
    ///
    /// # Errors
    /// [`LeaseError`].
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn acquire(&self, shard: ShardId, login: &Login) -> Result<Lease, LeaseError> {
        let pools = self.shared.pools_of(&login.user);
        let pool = pools.get(usize::from(shard.0)).ok_or(LeaseError::Closed)?;
        let connector = pool.manager();
        match ASKING.scope(login.clone(), pool.get()).await {
            Ok(object) => Ok(Lease {
                object: Some(object),
            }),
            Err(PoolError::Backend(error)) => Err(LeaseError::Connect(error)),
            Err(PoolError::Timeout(
                TimeoutType::Wait | TimeoutType::Create | TimeoutType::Recycle,
            )) => {
                connector.timeouts.fetch_add(1, Ordering::Relaxed);
                let shard = connector.endpoint.shard_name.clone();
                Err(LeaseError::NotInTime {
                    shard,
                    after: self.shared.settings.wait,
                })
            }
            Err(
                PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_),
            ) => Err(LeaseError::Closed),
        }
    }

    /// Every pool, in no order.
    pub fn status(&self) -> Vec<PoolStatus> {
        let users = self.shared.users.load();
        let status = |user: &Arc<str>, pool: &Pool| {
            let (status, connector) = (pool.status(), pool.manager());
            PoolStatus {
                user: user.clone(),
                shard: connector.endpoint.shard,
                open: status.size,
                idle: status.available,
                waiting: status.waiting,
                connects: connector.connects.load(Ordering::Relaxed),
                connect_errors: connector.connect_errors.load(Ordering::Relaxed),
                timeouts: connector.timeouts.load(Ordering::Relaxed),
            }
        };
        users
            .iter()
            .flat_map(|(user, pools)| pools.iter().map(move |pool| status(user, pool)))
            .collect()
    }

    /// Closes all idle connections and gives no more leases. Those that are out are closed when they come back.
    pub fn close(&self) {
        self.shared
            .users
            .load()
            .values()
            .flat_map(|pools| pools.iter())
            .for_each(Pool::close);
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

impl Shared {
    fn pools_of(&self, user: &Arc<str>) -> Arc<[Pool]> {
        if let Some(pools) = self.users.load().get(user) {
            return pools.clone();
        }
        let made: Arc<[Pool]> = self
            .endpoints
            .iter()
            .map(|endpoint| self.pool(endpoint, user))
            .collect();
        // Another thread may have been faster: its pools stay.
        self.users.rcu(|users| {
            let mut users = HashMap::clone(users);
            users.entry(user.clone()).or_insert_with(|| made.clone());
            users
        });
        self.users.load().get(user).cloned().unwrap_or(made)
    }

    fn pool(&self, endpoint: &Endpoint, user: &Arc<str>) -> Pool {
        let connector = Connector {
            endpoint: endpoint.clone(),
            settings: self.settings,
            user: user.clone(),
            control: self.control.clone(),
            node: AtomicUsize::new(0),
            connects: AtomicU64::new(0),
            connect_errors: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
        };
        // The connection that came back last is the warmest; the others grow old and are closed.
        let mut config = managed::PoolConfig::new(self.settings.size);
        config.timeouts.wait = Some(self.settings.wait);
        config.queue_mode = QueueMode::Lifo;
        let pool = Pool::builder(connector)
            .config(config)
            .runtime(Runtime::Tokio1)
            .build();
        pool.expect("a pool with timeouts has a runtime")
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
            drop(pool.retain(|backend, metrics| !shared.settings.is_too_old(backend, &metrics)));
        }
    }
}

impl Settings {
    fn is_too_old(self, backend: &Backend, metrics: &Metrics) -> bool {
        backend.released.elapsed() >= self.idle || metrics.age() >= self.lifetime
    }
}

/// Opens and checks the connections of one pool.
struct Connector {
    endpoint: Endpoint,
    settings: Settings,
    user: Arc<str>,
    control: Arc<Control>,
    /// Index of the node that was the primary last.
    node: AtomicUsize,
    connects: AtomicU64,
    connect_errors: AtomicU64,
    timeouts: AtomicU64,
}

tokio::task_local! {
    /// Who asks for a lease, so that a connection is opened with the very proof that this session gave: deadpool's
    /// `create` takes no argument.
    static ASKING: Login;
}

impl Connector {
    fn impossible(&self, what: &str) -> ConnectError {
        ConnectError {
            shard: self.endpoint.shard_name.clone(),
            address: None,
            problem: ConnectProblem::Protocol(what.to_owned()),
        }
    }
}

impl managed::Manager for Connector {
    type Type = Backend;
    type Error = ConnectError;

    async fn create(&self) -> Result<Backend, ConnectError> {
        let Ok(login) = ASKING.try_with(Login::clone) else {
            return Err(self.impossible("nobody asks"));
        };
        let nodes = &self.endpoint.nodes;
        let first = self.node.load(Ordering::Relaxed);
        let mut attempts = (0..nodes.len())
            .map(|offset| (first + offset) % nodes.len())
            .peekable();
        while let Some(node) = attempts.next() {
            let cluster_id = self.control.cluster_id();
            match Backend::connect(&self.endpoint, &nodes[node], &login, cluster_id.as_deref())
                .await
            {
                Ok((backend, greeting)) => {
                    self.node.store(node, Ordering::Relaxed);
                    self.connects.fetch_add(1, Ordering::Relaxed);
                    // The topology is at least as new as the connection before anything runs on it.
                    self.control
                        .note_ownership(self.endpoint.shard, greeting.ownership);
                    return Ok(backend);
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
        Err(self.impossible("the shard has no nodes"))
    }

    async fn recycle(
        &self,
        backend: &mut Backend,
        metrics: &Metrics,
    ) -> RecycleResult<ConnectError> {
        if backend.state != BackendState::Clean || self.settings.is_too_old(backend, metrics) {
            return Err(RecycleError::message("not clean, or too old"));
        }
        // Bytes are a farewell (the shard shut down), or an answer that nobody waited for.
        if !backend.stream.is_quiet() {
            return Err(RecycleError::message(
                "the shard closed it or sent something",
            ));
        }
        let here = tokio::runtime::Handle::current().id();
        if backend.home != here {
            backend
                .stream
                .rehome()
                .map_err(|_| RecycleError::message("the socket failed"))?;
            backend.home = here;
        }
        backend.state = BackendState::InUse;
        Ok(())
    }
}

/// A backend that a session holds. Dropping it closes the connection, and cancels what still runs on it; only
/// [`Lease::release`] gives it back.
#[derive(Debug)]
pub struct Lease {
    /// Present until release or drop.
    object: Option<Object<Connector>>,
}

impl Lease {
    /// Gives the connection back for others. The caller has seen ReadyForQuery 'I' for all that it sent. A connection
    /// that is broken or tainted, or has bytes left in either direction is closed instead.
    pub fn release(mut self) {
        let Some(backend) = self.object.as_deref_mut() else {
            return;
        };
        let is_drained = backend.stream.input().is_empty() && backend.stream.out().is_empty();
        if backend.state != BackendState::InUse || backend.tainted {
            return;
        }
        if !is_drained {
            // A notification, or a parameter that a reload of the shard changed, may come at any time.
            tracing::info!(shard = %backend.shard_name, "a connection with bytes left is closed");
            return;
        }
        backend.state = BackendState::Clean;
        backend.released = Instant::now();
        drop(self.object.take());
    }
}

impl Deref for Lease {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        self.object
            .as_deref()
            .expect("a lease holds its backend until it is dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Backend {
        self.object
            .as_deref_mut()
            .expect("a lease holds its backend until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else {
            return;
        };
        let backend = Object::take(object);
        if backend.state == BackendState::InUse
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let token = backend.cancel_token();
            runtime.spawn(async move {
                if let Err(error) = token.cancel().await {
                    tracing::debug!(?token, %error, "a cancel did not reach its shard");
                }
            });
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Connector({} on {})",
            self.user, self.endpoint.shard_name
        )
    }
}

//! [`Member`]: one shard, as the control plane reaches it. Knows nothing of other shards.

use super::connection::Endpoint;
use super::presence::Presence;
use super::store;
use super::version::ServerVersion;
use crate::config::{self, Config};
use crate::topology::ShardId;
use arc_swap::ArcSwap;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_postgres::NoTls;

/// Connections of the control plane to each shard, beside the one that listens.
const CONNECTIONS_MAX: usize = 4;

/// How a shard is, as the control plane saw it last.
#[derive(Debug, Clone, Default)]
pub struct ShardHealth {
    /// Whether its control connection lives.
    pub reachable: bool,
    /// Why it was lost, or never made.
    pub last_error: Option<String>,
    /// The server's setting; None until it was seen.
    pub max_prepared_transactions: Option<i32>,
    /// None until it was seen.
    pub server_version: Option<ServerVersion>,
}

/// One shard, as the control plane reaches it.
pub(super) struct Member {
    pub(super) name: Arc<str>,
    /// What this router runs there.
    pub(super) presence: Arc<Presence>,
    pub(super) reach: ArcSwap<Reach>,
    pub(super) health: Mutex<ShardHealth>,
    /// It answered, and had been given no place in the cluster.
    pub(super) absent: AtomicBool,
    /// The map that was loaded last does not name it any more.
    pub(super) left: AtomicBool,
}

/// The way to a shard, as the map says.
pub(super) struct Reach {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) pool: Pool,
    pub(super) connection: tokio_postgres::Config,
}

impl Reach {
    pub(super) fn new(config: &Config, shard: ShardId, declared: &config::Shard) -> Self {
        let connection = store::connection_config(config, declared);
        Self {
            endpoint: Arc::new(Endpoint::new(config, shard, declared)),
            pool: pool(&connection, config.pool.connect),
            connection,
        }
    }
}

impl Member {
    pub(super) fn new(config: &Config, shard: ShardId, declared: &config::Shard) -> Arc<Self> {
        let reach = Reach::new(config, shard, declared);
        Arc::new(Self {
            name: reach.endpoint.shard_name.clone(),
            presence: Arc::new(Presence::unregistered()),
            reach: ArcSwap::from_pointee(reach),
            health: Mutex::default(),
            absent: AtomicBool::new(false),
            left: AtomicBool::new(false),
        })
    }

    pub(super) fn health(&self) -> MutexGuard<'_, ShardHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pool(connection: &tokio_postgres::Config, connect: Duration) -> Pool {
    let manager_config = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(connection.clone(), NoTls, manager_config);
    let pool = Pool::builder(manager)
        .max_size(CONNECTIONS_MAX)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(connect))
        .create_timeout(Some(connect));
    pool.build().expect("a pool with timeouts has a runtime")
}

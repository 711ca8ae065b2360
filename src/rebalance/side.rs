//! [`Side`]: one end of a move, with a connection of the control plane's role to that shard; and [`MoveError`], what can
//! go wrong there.

use crate::backend::control::{Control, ControlError};
use crate::backend::login::ConnectError;
use crate::backend::store;
use crate::config::{Config, Shard};
use crate::topology::ShardId;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

/// Values look the same wherever they are printed; names mean the same; nobody waits for a lock for long.
const SETTINGS: &str = "SET search_path = pg_catalog; SET timezone = 'UTC'; SET lc_monetary = 'C'; SET lock_timeout = '10s'; \
     SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET synchronous_commit = 'on'";

/// How much of the cluster's id stands in names.
const CLUSTER_DIGITS: usize = 8;

/// Why a step of a move failed. It changes nothing but what the phase allows.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A shard cannot be reached, or cannot do what the control plane asks.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// No connection in replication mode.
    #[error(transparent)]
    Replication(#[from] ConnectError),
    /// A shard said no.
    #[error("shard {shard}: {}", store::reason(.source))]
    Query {
        /// Its name.
        shard: Arc<str>,
        /// What it said.
        source: tokio_postgres::Error,
    },
    /// What was to be handed over did not come to rest in time.
    #[error("not handed over within the pause budget of {budget:?}: {what}")]
    Late {
        /// The limit.
        budget: Duration,
        /// What was waited for.
        what: String,
    },
    /// Something did not happen in time.
    #[error("{what} took longer than {after:?}")]
    TimedOut {
        /// What.
        what: String,
        /// The limit.
        after: Duration,
    },
    /// A shard did not answer in the middle of a handover.
    #[error("a shard did not answer within {0:?} in the middle of a handover")]
    Stuck(Duration),
    /// A shard keeps too much of its log for the move.
    #[error(
        "shard {shard} keeps {bytes} bytes of its log for the move, and rebalance.wal_bytes is {limit}"
    )]
    Retains {
        /// Its name.
        shard: Arc<str>,
        /// How much.
        bytes: i64,
        /// The limit.
        limit: u64,
    },
    /// Rows that are not the same on both sides.
    #[error("{}", .0.join("; "))]
    Differs(Vec<String>),
    /// Somebody asked for something else meanwhile.
    #[error("interrupted")]
    Interrupted,
    /// What the shards say cannot be.
    #[error("{0}")]
    State(String),
}

/// One end of a move.
pub struct Side {
    /// Which shard.
    pub shard: ShardId,
    /// Its name.
    pub name: Arc<str>,
    /// Tells the cluster's things on a server from another's.
    pub cluster: String,
    /// Ends with this.
    pub client: tokio_postgres::Client,
}

impl Side {
    /// Connects.
    ///
    /// # Errors
    /// [`MoveError`]
    pub async fn connect(control: &Control, shard: ShardId) -> Result<Self, MoveError> {
        let side = Self {
            shard,
            name: control.topology.load().shard_name(shard).clone(),
            cluster: control
                .cluster_id()
                .map_or_else(String::new, |id| id.chars().take(CLUSTER_DIGITS).collect()),
            client: control.connect(shard).await?,
        };
        side.run(SETTINGS).await?;
        Ok(side)
    }

    /// Runs statements that answer with no rows.
    ///
    /// # Errors
    /// [`MoveError::Query`]
    pub async fn run(&self, sql: &str) -> Result<(), MoveError> {
        let ran = self.client.batch_execute(sql).await;
        ran.map_err(|error| self.refuse(error))
    }

    /// The rows of one query.
    ///
    /// # Errors
    /// [`MoveError::Query`]
    pub async fn rows(&self, sql: &str) -> Result<Vec<Row>, MoveError> {
        let rows = self.client.query_typed(sql, &[]).await;
        rows.map_err(|error| self.refuse(error))
    }

    /// The first column of the only row.
    ///
    /// # Errors
    /// [`MoveError::Query`]
    pub async fn value<T: FromSqlOwned>(&self, sql: &str) -> Result<T, MoveError> {
        let row = self.client.query_typed_one(sql, &[]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| self.refuse(error))
    }

    /// What the shard said, with its name.
    pub fn refuse(&self, source: tokio_postgres::Error) -> MoveError {
        MoveError::Query {
            shard: self.name.clone(),
            source,
        }
    }
}

/// What the shard map says of a shard.
///
/// # Errors
/// [`MoveError::State`]: it is not in the map any more.
pub fn declared<'c>(config: &'c Config, name: &str) -> Result<&'c Shard, MoveError> {
    let mut shards = config.shards.iter();
    shards
        .find(|shard| shard.name == name)
        .ok_or_else(|| MoveError::State(format!("the shard map has no shard {name}")))
}

/// A name as SQL.
pub fn ident(name: &str) -> String {
    escape_identifier(name)
}

/// A text as SQL.
pub fn literal(text: &str) -> String {
    escape_literal(text).trim_start().to_owned()
}

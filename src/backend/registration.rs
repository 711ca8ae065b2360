//! How a router is known on a shard: by the session-level advisory lock that its listening connection holds there. Who
//! moves slots waits for every router that holds one to acknowledge what changed (see [`super::acknowledge`]).

use super::store::{self, StoreError};
use crate::topology::Epoch;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

/// First key of the lock, in its form with two keys: the bytes of "pgri". The second is the router's id.
pub const LOCK_CLASS: i32 = 0x7067_7269;

/// A number that no other router has, most likely; the lock shows whether that is so.
///
/// # Errors
/// The system gives no random numbers.
pub fn draw_router_id() -> Result<i32, getrandom::Error> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)?;
    Ok((i32::from_ne_bytes(bytes) & i32::MAX).max(1))
}

/// Why a router is not registered on a shard.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The shard did not answer as it should.
    #[error(transparent)]
    Query(#[from] StoreError),
    /// The id is in use.
    #[error("another router is registered as {0} there")]
    Taken(i32),
}

impl From<tokio_postgres::Error> for RegistrationError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Query(StoreError::of(error))
    }
}

/// Takes the lock, and removes what routers that are gone have acknowledged. A connection of this router that the shard
/// still believes in, by its `former` process there, is ended. Gives the process that holds the lock.
///
/// # Errors
/// [`RegistrationError`].
pub async fn register(
    client: &Client,
    router: i32,
    former: Option<i32>,
    wait: Duration,
) -> Result<i32, RegistrationError> {
    let key = [(&LOCK_CLASS as _, Type::INT4), (&router as _, Type::INT4)];
    let sql = "SELECT pg_catalog.pg_try_advisory_lock($1, $2), pg_catalog.pg_backend_pid()";
    let row = client.query_typed_one(sql, &key).await?;
    if !row.try_get::<_, bool>(0)? {
        if !end_former(client, router, former).await? {
            return Err(RegistrationError::Taken(router));
        }
        let locking = client.query_typed("SELECT pg_catalog.pg_advisory_lock($1, $2)", &key);
        match timeout(wait, locking).await {
            Ok(locked) => drop(locked?),
            Err(_) => return Err(RegistrationError::Taken(router)),
        }
    }
    let sql = "DELETE FROM pgring.acknowledgement a WHERE a.router = $2 OR NOT EXISTS (\
         SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 \
         AND l.classid = $1::pg_catalog.int4::pg_catalog.oid AND l.objid = a.router::pg_catalog.oid AND l.granted \
         AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))";
    match client.query_typed(sql, &key).await {
        // A shard that has no place in a cluster yet: no router has acknowledged anything.
        Err(error) if error.code().is_some_and(store::is_missing) => {}
        removed => drop(removed?),
    }
    Ok(row.try_get(1)?)
}

/// A router that has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Its id.
    pub router: i32,
    /// The process on the shard that serves the connection by which it listens.
    pub process: i32,
    /// Where it connects from, if not by a socket of the shard's own machine.
    pub address: Option<String>,
    /// It knows of the epoch, and has not ended what it planned before.
    pub has_heard: bool,
}

/// The routers that listen to the shard and have not acknowledged `epoch` there.
///
/// # Errors
/// What the shard says.
pub async fn silent(client: &Client, epoch: Epoch) -> Result<Vec<Silent>, tokio_postgres::Error> {
    let sql = "SELECT l.objid::pg_catalog.int8::pg_catalog.int4, l.pid, s.client_addr::pg_catalog.text, \
           coalesce(a.heard >= $2, false) \
         FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity s ON s.pid = l.pid \
         LEFT JOIN pgring.acknowledgement a ON a.router::pg_catalog.oid = l.objid \
         WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND coalesce(a.epoch < $2, true) \
         AND l.classid = $1::pg_catalog.int4::pg_catalog.oid \
         AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";
    let epoch = epoch.0 as i64;
    let arguments = [(&LOCK_CLASS as _, Type::INT4), (&epoch as _, Type::INT8)];
    let rows = client.query_typed(sql, &arguments).await?;
    let read = |row: &Row| {
        Ok(Silent {
            router: row.try_get(0)?,
            process: row.try_get(1)?,
            address: row.try_get(2)?,
            has_heard: row.try_get(3)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Ends this router's own earlier connection. Whether it is that which holds the lock.
async fn end_former(
    client: &Client,
    router: i32,
    former: Option<i32>,
) -> Result<bool, tokio_postgres::Error> {
    let Some(former) = former else {
        return Ok(false);
    };
    let sql = "SELECT pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks l \
         WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.pid = $3 \
         AND l.classid = $1::pg_catalog.int4::pg_catalog.oid AND l.objid = $2::pg_catalog.int4::pg_catalog.oid \
         AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";
    let arguments = [
        (&LOCK_CLASS as _, Type::INT4),
        (&router as _, Type::INT4),
        (&former as _, Type::INT4),
    ];
    let ended = client.query_typed(sql, &arguments).await?;
    Ok(!ended.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_the_bytes_of_the_name() {
        assert_eq!(LOCK_CLASS.to_be_bytes(), *b"pgri");
        assert!((0..100).all(|_| draw_router_id().is_ok_and(|id| id > 0)));
    }
}

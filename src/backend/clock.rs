//! The time by the clock of one shard.

use super::control::{Control, ControlError};
use crate::topology::ShardId;
use std::sync::Arc;
use tokio::time::timeout;

/// Asks for the time at which the transaction that asks began, in a form that no setting changes.
pub const NOW: &str =
    "SELECT pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')";

/// The time now, by the default shard's clock.
///
/// # Errors
/// [`ControlError`].
///
/// # Cancel safety
/// May be dropped.
pub async fn ask(control: &Arc<Control>) -> Result<Arc<str>, ControlError> {
    let asked = control.clone();
    let home: ShardId = control.topology.load().default_shard;
    let work = async move {
        let shard = asked.topology.load().shard_name(home).clone();
        let after = asked.config().pool.connect;
        let asking = async {
            let row = asked.client(home).await?.query_typed_one(NOW, &[]).await;
            let time = row.and_then(|row| row.try_get::<_, String>(0));
            time.map(Arc::from).map_err(|source| ControlError::Query {
                shard: shard.clone(),
                source,
            })
        };
        let late = ControlError::TimedOut {
            shard: shard.clone(),
            after,
        };
        timeout(after, asking).await.unwrap_or(Err(late))
    };
    control.run(work).await
}

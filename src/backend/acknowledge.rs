//! Tells a shard up to which epoch of its ownership nothing that this router planned before runs there any more: one row
//! of `pgring.acknowledgement`, written again after each change, and at once when that is heard of. Who moves slots waits for the rows of all routers that
//! are registered (see [`super::registration`]).

use super::control::Control;
use super::store::StoreError;
use crate::topology::ShardId;
use std::sync::Weak;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// How often is looked whether what was planned before a change has ended: from, doubling, to.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(4));
/// A control plane that is gone is noticed at the latest after this.
const ALIVE: Duration = Duration::from_secs(5);

/// Acknowledges each change of a shard where the router is registered by `client`'s connection, which this follows until it
/// fails: gives the reason. None: the control plane is gone.
pub(super) async fn acknowledge(
    control: &Weak<Control>,
    shard: ShardId,
    client: &Client,
) -> Option<String> {
    let (mut heard, mut acknowledged) = (None, None);
    let mut pause = LOOK.0;
    let mut noticed = Instant::now();
    loop {
        let strong = control.upgrade()?;
        let presence = strong.presence(shard);
        let (router, wait) = (strong.router_id(), strong.config().pool.connect);
        let (epoch, generation) = strong.epoch(shard);
        drop(strong);
        if acknowledged == Some(generation) {
            let _ = timeout(ALIVE, presence.changed_since(generation)).await;
            (pause, noticed) = (LOOK.0, Instant::now());
            continue;
        }
        let is_clear = presence.is_clear_since(generation);
        if !is_clear && heard == Some(generation) {
            sleep(pause).await;
            pause = (pause * 2).min(LOOK.1);
            continue;
        }
        let pids = presence.pids();
        let ended = noticed.elapsed();
        match timeout(wait, write(client, router, epoch.0, is_clear, &pids)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(error.to_string()),
            Err(_) => return Some("no answer in time".to_owned()),
        }
        heard = Some(generation);
        if is_clear {
            acknowledged = heard;
            let total = noticed.elapsed();
            tracing::debug!(
                shard = shard.0,
                epoch = epoch.0,
                ?ended,
                ?total,
                "a change is acknowledged"
            );
        }
    }
}

async fn write(
    client: &Client,
    router: i32,
    epoch: u64,
    is_clear: bool,
    pids: &[i32],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO pgring.acknowledgement AS a (router, heard, epoch, pids) \
         VALUES ($1, $2, CASE WHEN $3 THEN $2 ELSE 0 END, $4) \
         ON CONFLICT (router) DO UPDATE SET heard = EXCLUDED.heard, epoch = greatest(a.epoch, EXCLUDED.epoch), \
           pids = EXCLUDED.pids, at = pg_catalog.now()";
    let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
    let row = [
        (&router as _, Type::INT4),
        (&epoch as _, Type::INT8),
        (&is_clear as _, Type::BOOL),
        (&pids as _, Type::INT4_ARRAY),
    ];
    client.query_typed(sql, &row).await?;
    Ok(())
}

/// The router stops in good order: nobody need wait for it, or look at what it acknowledged.
pub(super) async fn forget(client: &Client, router: i32) -> Result<(), StoreError> {
    let sql = "DELETE FROM pgring.acknowledgement WHERE router = $1";
    client.query_typed(sql, &[(&router, Type::INT4)]).await?;
    Ok(())
}

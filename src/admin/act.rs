//! What the console changes, one function a verb. Each verb may be given again: what is so already stays so.

use super::AdminError;
use super::answer::{Answer, row};
use super::command::{Change, Scope, Shutdown};
use super::{map, moves};
use crate::config::{Config, Difference};
use crate::rebalance::record::Wanted;
use crate::router::Router;
use crate::topology::ShardId;
use crate::transaction::recovery;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Does what the command says.
///
/// # Errors
/// [`AdminError`].
pub async fn run(router: &Arc<Router>, change: &Change) -> Result<Answer, AdminError> {
    let pools = &router.pools;
    match change {
        Change::Pause(scope) => {
            let shards = shards_of(router, scope)?;
            pools.pause(&shards);
            pools.quiet(&shards).await;
            return Ok(kept(router, &shards));
        }
        Change::Resume(scope) => pools.resume(&shards_of(router, scope)?),
        Change::Reconnect(scope) => pools.reconnect(&shards_of(router, scope)?),
        Change::WaitClose(scope) => pools.renewed(&shards_of(router, scope)?).await,
        Change::KillAll(scope) => {
            let shards = shards_of(router, scope)?;
            pools.pause(&shards);
            let killed = router.clients.kill_all();
            pools.quiet(&shards).await;
            return Ok(Answer::notice(format!(
                "{killed} clients were cut off; new transactions wait for RESUME"
            )));
        }
        Change::KillClient(id) => {
            if !router.clients.kill(*id) {
                return Ok(Answer::notice(format!("there is no client {id}")));
            }
        }
        Change::Disable(scope) => {
            shards_of(router, scope)?;
            router.clients.disabled.store(true, Ordering::Relaxed);
        }
        Change::Enable(scope) => {
            shards_of(router, scope)?;
            router.clients.disabled.store(false, Ordering::Relaxed);
        }
        Change::Reload { dry_run } => return reload(router, *dry_run).await,
        Change::Shutdown(mode) => shut_down(router, *mode),
        Change::Rebalance(options) => return moves::begin(router, *options).await,
        Change::OfRebalance(Wanted::Run) => return moves::resume(router).await,
        Change::OfRebalance(wanted) => return moves::want(router, *wanted).await,
        Change::Map(change) => return map::change(router, change).await,
        Change::RecoverTransactions => return recover_transactions(router).await,
    }
    Ok(Answer::default())
}

/// The shards that a command is about.
fn shards_of(router: &Router, scope: &Scope) -> Result<Vec<ShardId>, AdminError> {
    let topology = router.topology();
    match scope {
        Scope::All => Ok(topology.shard_ids().collect()),
        Scope::Database(name) if *name == router.config.cluster.database => {
            Ok(topology.shard_ids().collect())
        }
        Scope::Database(name) => Err(AdminError::NoDatabase(name.clone())),
        Scope::Shard(name) => {
            let shard = topology.shard_named(name);
            let shard = shard.ok_or_else(|| AdminError::NoShard(name.clone()))?;
            Ok(vec![shard])
        }
    }
}

/// Says which connections are still open although no transaction runs.
fn kept(router: &Router, shards: &[ShardId]) -> Answer {
    let pools = router.pools.status().into_iter();
    let kept: usize = pools
        .filter(|pool| shards.contains(&pool.shard))
        .map(|pool| pool.open)
        .sum();
    match kept {
        0 => Answer::default(),
        kept => Answer::notice(format!(
            "{kept} connections stay open: sessions keep them for locks, LISTEN, cursors, temporary tables, or pool.mode"
        )),
    }
}

/// Reads the files again. What they say of the shard map is taken over; all else is named, and waits for a restart.
async fn reload(router: &Arc<Router>, dry_run: bool) -> Result<Answer, AdminError> {
    let _alone = router.editing.lock().await;
    let before = router.control.config();
    let after = Arc::new(Config::load(&before.directory)?);
    let differences = before.differences(&after);
    if !dry_run && differences.iter().any(|difference| difference.changeable) {
        router.reload(after).await?;
    }
    let effect = |changeable| match (changeable, dry_run) {
        (true, false) => "taken over",
        (true, true) => "would be taken over",
        (false, _) => "needs a restart",
    };
    let row = |difference: Difference| {
        row![
            difference.key,
            difference.before,
            difference.after,
            effect(difference.changeable)
        ]
    };
    Ok(Answer::rows(differences.into_iter().map(row).collect()))
}

/// Has the router end: at once if it was told so before. The operator need not stay.
fn shut_down(router: &Arc<Router>, mode: Shutdown) {
    let clients = &router.clients;
    let again = clients.leaving.swap(true, Ordering::Relaxed);
    let mode = if again { Shutdown::Now } else { mode };
    let router = router.clone();
    match mode {
        Shutdown::Now => router.end(),
        Shutdown::WaitForServers => {
            let shards: Vec<ShardId> = router.topology().shard_ids().collect();
            router.pools.pause(&shards);
            tokio::spawn(async move {
                router.pools.quiet(&shards).await;
                router.end();
            });
        }
        Shutdown::WaitForClients => {
            tokio::spawn(async move {
                router.clients.gone().await;
                router.end();
            });
        }
    }
}

async fn recover_transactions(router: &Arc<Router>) -> Result<Answer, AdminError> {
    let control = router.control.clone();
    let round = async move { Ok(recovery::recover_once(&control).await) };
    let report = router.control.run(round).await?;
    let rows = vec![row![
        report.committed,
        report.rolled_back,
        report.in_progress,
        report.in_doubt.len(),
        report.shards_skipped
    ]];
    Ok(Answer::rows(rows))
}

//! Snapshots of all shards in which a distributed transaction is seen whole or not at all.
//!
//! Between the decider's commit and the last COMMIT PREPARED a transaction is visible on some shards only. Who commits
//! holds a shared advisory lock on the decider from before the one until after the other. Who wants a consistent snapshot
//! takes that lock exclusively on every shard, in [`ShardId`] order; nothing is half visible then but what a crash left
//! prepared, which is settled; then the snapshots are opened, and the locks go. Any number of routers may do both, since
//! the lock is the shards' own.
//!
//! What is promised is that, and no order between transactions of one shard each on different shards.

use super::command::{self, CommandError};
use super::participants::Participants;
use super::recovery;
use super::{JoinError, Participant, Tenant, Transaction};
use crate::backend::connection::Backend;
use crate::topology::ShardId;
use crate::wire::frame::Frame;
use futures_util::future::try_join_all;
use std::time::Duration;
use tokio::time::timeout;

/// The lock: the bytes of "pgring" and one more.
const LOCK_KEY: i64 = 0x7067_7269_6e67_0002;

/// What a decider is told before it commits, as an expression: from here on its transaction may become visible.
pub(super) fn enter() -> String {
    format!("pg_catalog.pg_advisory_lock_shared({LOCK_KEY})")
}

/// Its transaction is visible everywhere, or nowhere.
///
/// # Errors
/// [`CommandError`]: the connection must be closed, and the lock goes with it.
pub(super) async fn leave(decider: &mut Backend) -> Result<(), CommandError> {
    let sql = format!("SELECT pg_catalog.pg_advisory_unlock_shared({LOCK_KEY})");
    command::run_apart(decider, &[&sql]).await.map(|_| ())
}

/// [`leave`], then gives the lease back. Nobody waits for that, unless the session keeps the connection.
pub(super) async fn leave_and_release(mut decider: Participant) {
    let is_kept = !decider.reasons.is_empty();
    let leaving = async move {
        if leave(&mut decider.lease).await.is_ok() {
            decider.release();
        }
    };
    if is_kept {
        leaving.await;
    } else {
        tokio::spawn(leaving);
    }
}

impl Transaction {
    /// Whether the block has consistent snapshots on all shards.
    pub fn is_consistent(&self) -> bool {
        self.consistent
    }

    /// Opens snapshots on `shards`, all of them in ascending order, in a block that has done nothing yet and keeps one
    /// snapshot. What the shards said for the client's ears.
    ///
    /// # Errors
    /// [`JoinError`]; no shard takes part then.
    ///
    /// # Cancel safety
    /// A dropped call closes its connections.
    pub async fn open_consistent(
        &mut self,
        shards: Vec<ShardId>,
        tenant: Tenant<'_>,
        wait: Duration,
    ) -> Result<Vec<Frame>, JoinError> {
        self.leave_unused().await;
        if !self.participants.is_empty() {
            return Err(JoinError::SnapshotTooLate);
        }
        let opened = timeout(wait, self.open(shards, tenant)).await;
        let opened = opened.unwrap_or(Err(JoinError::SnapshotNotInTime { after: wait }));
        let (participants, asides) = opened?;
        self.participants = participants;
        self.consistent = true;
        Ok(asides)
    }

    async fn open(
        &mut self,
        shards: Vec<ShardId>,
        tenant: Tenant<'_>,
    ) -> Result<(Participants, Vec<Frame>), JoinError> {
        let mut opening = Vec::with_capacity(shards.len());
        for shard in shards {
            let mut joining = self.lease(shard, tenant).await?;
            joining.prepare(tenant).await?;
            opening.push(joining);
        }
        let lock = format!("SELECT pg_catalog.pg_advisory_lock({LOCK_KEY})");
        for joining in &mut opening {
            command::run(&mut joining.lease, &lock).await?;
        }
        let control = tenant.control.clone();
        let settled = tenant
            .control
            .run(async move { Ok(recovery::settle(&control).await) });
        settled
            .await
            .map_err(|error| JoinError::Unsettled(error.to_string()))?
            .map_err(JoinError::Unsettled)?;
        let mark = self.distribute(opening.len(), tenant);
        // The mark is a query, and so takes the snapshot.
        let preamble = self.block.preamble(mark).unwrap_or_default();
        let begin = opening.iter_mut();
        let begin = begin.map(|joining| command::run(&mut joining.lease, &preamble));
        let begun = try_join_all(begin).await?;
        let unlock = format!("SELECT pg_catalog.pg_advisory_unlock({LOCK_KEY})");
        let leave = opening.iter_mut();
        let leave = leave.map(|joining| command::run(&mut joining.lease, &unlock));
        try_join_all(leave).await?;
        let asides = begun.into_iter().flat_map(|reply| reply.asides).collect();
        let opened = opening.into_iter().map(|mut joining| {
            joining.begun = true;
            joining.marked = mark.is_some();
            (joining.lease.shard, joining)
        });
        Ok((opened.collect(), asides))
    }
}

//! [`Gate`]: whether new transactions may take connections to a shard, and which connections are to be replaced. One for
//! each shard; all pools of the shard share it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// A shard's gate.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: AtomicBool,
    opened: Notify,
    /// Connections of an earlier one are closed when they come back.
    generation: AtomicU64,
    /// Something that a waiting operator may wait for has happened.
    pub(super) left: Notify,
}

impl Gate {
    /// Whether new transactions have to wait.
    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Relaxed)
    }

    /// [`Self::is_shut`] for who has just taken room: whoever shuts the gate sees the room, or the taker the gate.
    pub(super) fn is_shut_now(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    pub(super) fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    /// Returns when the gate is open; whether that was within `limit`.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub(super) async fn pass(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let opened = self.opened.notified();
            if !self.is_shut_now() {
                return true;
            }
            if timeout_at(deadline, opened).await.is_err() {
                return false;
            }
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// All connections that are open now are to be replaced.
    pub(super) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn who_waits_passes_when_the_gate_opens_and_not_before() {
        let gate = Arc::new(Gate::default());
        assert!(gate.pass(Duration::ZERO).await);
        gate.shut();
        assert!(!gate.pass(Duration::from_millis(1)).await);
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.pass(Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        gate.open();
        assert!(waiting.await.unwrap());
    }
}

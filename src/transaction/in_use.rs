//! [`InUse`]: the backends that work for one session now, so that others than the session can cancel what it runs: its
//! client by its key, or whoever breaks a deadlock.

use super::deadlock::Mark;
use crate::backend::connection::CancelToken;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The backends that work for one session now. A backend is never given to another session between the look of a cancel
/// and its end: whoever gives one back waits for the cancel that is under way.
#[derive(Debug, Default)]
pub struct InUse {
    tokens: Mutex<Tokens>,
    /// Held by the cancel that is under way.
    gate: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Tokens {
    tokens: Vec<CancelToken>,
    /// The distributed transaction that they work for, if it is one.
    mark: Option<Mark>,
    cancelling: bool,
    /// Told of a cancel while the session's statement is held.
    held: Option<Arc<Notify>>,
}

impl InUse {
    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These backends work for the session, in the distributed transaction with this mark or in none.
    pub fn set(&self, tokens: impl Iterator<Item = CancelToken>, mark: Option<Mark>) {
        let mut now = self.tokens();
        now.mark = mark;
        now.tokens.clear();
        now.tokens.extend(tokens);
    }

    /// No backend works for the session any more; waits for a cancel that is under way.
    pub async fn clear(&self) {
        if self.forget() {
            drop(self.gate.lock().await);
        }
    }

    /// No backend works for the session any more. Whether a cancel is under way, which [`Self::clear`] waits for.
    pub fn forget(&self) -> bool {
        let mut now = self.tokens();
        now.mark = None;
        now.tokens.clear();
        now.cancelling
    }

    /// The session's statement is held until [`Self::let_go`]: a cancel tells what this gives.
    pub fn hold(&self) -> Arc<Notify> {
        let notify = Arc::<Notify>::default();
        self.tokens().held = Some(notify.clone());
        notify
    }

    /// Ends [`Self::hold`].
    pub fn let_go(&self) {
        self.tokens().held = None;
    }

    /// Cancels what the session runs, if anything.
    pub async fn cancel(&self) {
        let held = self.tokens().held.clone();
        if let Some(held) = held {
            return held.notify_one();
        }
        self.cancel_if(|_| true, |_| ()).await;
    }

    /// Cancels what the session runs, which is told that it was in a deadlock, if that is still in the transaction with
    /// this mark and not in its commit. Whether it was.
    pub async fn cancel_deadlocked(&self, mark: Mark, detail: &Arc<str>) -> bool {
        let is_it = |now: &Tokens| now.mark == Some(mark);
        self.cancel_if(is_it, |token| token.note_deadlock(detail))
            .await
    }

    async fn cancel_if(
        &self,
        condition: impl Fn(&Tokens) -> bool,
        before: impl Fn(&CancelToken),
    ) -> bool {
        let _gate = self.gate.lock().await;
        let (cancelling, tokens) = {
            let mut now = self.tokens();
            if !condition(&now) {
                return false;
            }
            now.cancelling = true;
            (Cancelling(self), now.tokens.clone())
        };
        tokens.iter().for_each(before);
        let cancels = tokens.iter().map(|token| async {
            if let Err(error) = token.cancel().await {
                tracing::warn!(%error, "a cancel did not reach its shard");
            }
        });
        futures_util::future::join_all(cancels).await;
        drop(cancelling);
        true
    }
}

/// A cancel is under way.
struct Cancelling<'a>(&'a InUse);

impl Drop for Cancelling<'_> {
    fn drop(&mut self) {
        self.0.tokens().cancelling = false;
    }
}

//! Cancel keys: which CancelRequest belongs to which session, and which backends it must reach.

use crate::backend::connection::CancelToken;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use subtle::ConstantTimeEq as _;

/// The bytes of a cancel key in protocol 3.0, and in 3.2.
pub const KEY_BYTES: usize = 4;
/// The bytes of a cancel key from protocol 3.2 on.
pub const LONG_KEY_BYTES: usize = 32;

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
    cancelling: bool,
}

impl InUse {
    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These backends work for the session.
    pub fn set(&self, tokens: impl Iterator<Item = CancelToken>) {
        let mut now = self.tokens();
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
        now.tokens.clear();
        now.cancelling
    }

    async fn cancel(&self) {
        let _gate = self.gate.lock().await;
        let cancelling = Cancelling::begin(self);
        let tokens = self.tokens().tokens.clone();
        let cancels = tokens.iter().map(|token| async {
            if let Err(error) = token.cancel().await {
                tracing::warn!(%error, "a cancel did not reach its shard");
            }
        });
        futures_util::future::join_all(cancels).await;
        drop(cancelling);
    }
}

/// A cancel is under way.
struct Cancelling<'a>(&'a InUse);

impl<'a> Cancelling<'a> {
    fn begin(in_use: &'a InUse) -> Self {
        in_use.tokens().cancelling = true;
        Self(in_use)
    }
}

impl Drop for Cancelling<'_> {
    fn drop(&mut self) {
        self.0.tokens().cancelling = false;
    }
}

/// A session's key, and its backends.
type Keyed = (Vec<u8>, Arc<InUse>);

/// All sessions' cancel keys.
#[derive(Debug, Default)]
pub struct Cancels {
    sessions: Mutex<HashMap<u32, Keyed>>,
}

impl Cancels {
    /// Registers a session; gives its process id and its key, both from the system's random source.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn register(
        &self,
        key_bytes: usize,
    ) -> Result<(u32, Vec<u8>, Arc<InUse>), getrandom::Error> {
        let mut key = vec![0; key_bytes];
        getrandom::fill(&mut key)?;
        let in_use = Arc::new(InUse::default());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Positive, as some drivers keep it signed.
            let pid = getrandom::u32()? >> 1;
            if pid != 0 && !sessions.contains_key(&pid) {
                sessions.insert(pid, (key.clone(), in_use.clone()));
                return Ok((pid, key, in_use));
            }
        }
    }

    /// Forgets a session.
    pub fn forget(&self, pid: u32) {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&pid);
    }

    /// Cancels what the session with this process id and key runs; a wrong key does nothing, in the same time.
    pub async fn cancel(&self, pid: u32, key: &[u8]) {
        let in_use = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions
                .get(&pid)
                .filter(|(own, _)| bool::from(own.ct_eq(key)))
                .map(|(_, in_use)| in_use.clone())
        };
        if let Some(in_use) = in_use {
            in_use.cancel().await;
        }
    }
}

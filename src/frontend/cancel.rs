//! Cancel keys: which CancelRequest belongs to which session, and which backends it must reach.

use crate::transaction::in_use::InUse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq as _;

/// The bytes of a cancel key in protocol 3.0, and in 3.2.
pub const KEY_BYTES: usize = 4;
/// The bytes of a cancel key from protocol 3.2 on.
pub const LONG_KEY_BYTES: usize = 32;

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

//! [`Presence`]: what this router runs on one shard, so that it can say when nothing is left there that was planned before
//! the shard's ownership changed.
//!
//! Each backend says in a word of its own since when it works: the generation of the topology that its transaction, or
//! its statement outside of one, was planned against first. Who begins writes that word, and looks then whether the shard
//! has changed since ([`Attendance::begin`]); who has changed the topology says so first, and looks at the words then
//! ([`Presence::is_clear_since`]). So one of the two sees the other, and a statement costs no lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What a backend says on which nothing runs.
const RESTING: u64 = u64::MAX;

/// All backends of this router on one shard.
#[derive(Debug, Default)]
pub struct Presence {
    /// The generation with which the shard changed last, or more than any while the router is not registered there.
    changed: AtomicU64,
    registered: AtomicBool,
    /// How many times the registration was lost.
    losses: AtomicU64,
    next: AtomicU64,
    backends: Mutex<HashMap<u64, Arc<Word>>>,
    /// The shard changed, or the router was registered there.
    news: Notify,
    /// Somebody waits for the registration.
    wanted: Notify,
}

#[derive(Debug)]
struct Word {
    pid: i32,
    since: AtomicU64,
}

impl Presence {
    /// A shard where the router is not registered yet.
    pub fn unregistered() -> Self {
        Self {
            changed: AtomicU64::new(u64::MAX),
            ..Self::default()
        }
    }

    fn backends(&self) -> MutexGuard<'_, HashMap<u64, Arc<Word>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard changed with this generation, which statements are planned against already. Called by one at a time.
    pub fn note_change(&self, generation: u64) {
        if self.registered.load(Ordering::SeqCst) {
            self.changed.store(generation, Ordering::SeqCst);
            self.news.notify_waiters();
        }
    }

    /// The router is registered on the shard, and has seen there what statements are planned against since this
    /// generation. Called by one at a time.
    pub fn note_registered(&self, generation: u64) {
        self.registered.store(true, Ordering::SeqCst);
        self.note_change(generation);
    }

    /// The router is not registered on the shard any more: nothing begins there, and no pooled backend is used again.
    /// Called by one at a time.
    pub fn note_lost(&self) {
        self.changed.store(u64::MAX, Ordering::SeqCst);
        if self.registered.swap(false, Ordering::SeqCst) {
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Returns when the router is registered on the shard.
    pub async fn registered(&self) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.registered.load(Ordering::SeqCst) {
                return;
            }
            self.wanted.notify_one();
            news.await;
        }
    }

    /// Returns when somebody waits for the registration.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// The generation with which the shard changed last.
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::SeqCst)
    }

    /// Returns when the shard changed with a later generation than this.
    pub async fn changed_since(&self, generation: u64) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.changed() != generation {
                return;
            }
            news.await;
        }
    }

    /// Whether nothing runs on the shard that was planned against an older generation.
    pub fn is_clear_since(&self, generation: u64) -> bool {
        let backends = self.backends();
        let mut since = backends
            .values()
            .map(|word| word.since.load(Ordering::SeqCst));
        since.all(|since| since >= generation)
    }

    /// The server processes of all backends there, ascending.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self.backends().values().map(|word| word.pid).collect();
        pids.sort_unstable();
        pids
    }

    /// A backend that is there from now on, as long as what this gives lives.
    pub fn enter(self: &Arc<Self>, pid: i32) -> Attendance {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let word = Arc::new(Word {
            pid,
            since: AtomicU64::new(RESTING),
        });
        self.backends().insert(id, word.clone());
        Attendance {
            losses: self.losses.load(Ordering::SeqCst),
            presence: self.clone(),
            id,
            word,
        }
    }
}

/// One backend of [`Presence`].
#[derive(Debug)]
pub struct Attendance {
    presence: Arc<Presence>,
    id: u64,
    word: Arc<Word>,
    losses: u64,
}

impl Attendance {
    /// Something begins that was planned against this generation. False: the shard has changed since, so that it must be
    /// planned again; nothing has begun then.
    pub fn begin(&self, generation: u64) -> bool {
        self.word.since.store(generation, Ordering::SeqCst);
        let current = self.presence.changed.load(Ordering::SeqCst) <= generation;
        if !current {
            self.rest();
        }
        current
    }

    /// What began has ended.
    pub fn rest(&self) {
        self.word.since.store(RESTING, Ordering::Release);
    }

    /// The generation that what runs was planned against; none if nothing does.
    pub fn since(&self) -> Option<u64> {
        let since = self.word.since.load(Ordering::Relaxed);
        (since != RESTING).then_some(since)
    }

    /// Whether the router's registration has been lost since the backend was connected.
    pub fn is_outdated(&self) -> bool {
        self.presence.losses.load(Ordering::Relaxed) != self.losses
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.presence.backends().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_clear_once_all_that_began_before_has_ended() {
        let presence = Arc::new(Presence::unregistered());
        let (one, other) = (presence.enter(7), presence.enter(5));
        assert!(!one.begin(3), "nothing begins before the registration");
        presence.note_registered(3);
        assert!(one.begin(3));
        presence.note_change(4);
        assert!(!presence.is_clear_since(4));
        assert!(!other.begin(3), "planned before the change");
        assert_eq!((one.since(), other.since()), (Some(3), None));
        assert!(other.begin(4));
        one.rest();
        assert!(presence.is_clear_since(4));
        assert_eq!(presence.pids(), [5, 7]);
        drop(one);
        assert_eq!(presence.pids(), [5]);
        presence.note_lost();
        assert!(other.is_outdated());
        other.rest();
        assert!(!other.begin(9));
    }
}

//! [`Stop`]: tells the sessions that the router ends. Looked at before each wait for a client, so it is one flag that all
//! read and a waker that only its session writes: nothing that sessions on other threads contend for.

use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Whether the router ends, and whom that must wake.
#[derive(Debug, Default)]
pub struct Stop {
    raised: AtomicBool,
    next: AtomicU64,
    sleepers: Mutex<HashMap<u64, Arc<AtomicWaker>>>,
}

impl Stop {
    fn sleepers(&self) -> MutexGuard<'_, HashMap<u64, Arc<AtomicWaker>>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The router ends: all that listen are woken.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.sleepers().values().for_each(|waker| waker.wake());
    }

    /// Has a session hear of it.
    pub fn listen(self: &Arc<Self>) -> Listening {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let waker = Arc::<AtomicWaker>::default();
        self.sleepers().insert(id, waker.clone());
        Listening {
            stop: self.clone(),
            id,
            waker,
            registered: None,
        }
    }
}

/// One session's ear.
#[derive(Debug)]
pub struct Listening {
    stop: Arc<Stop>,
    id: u64,
    waker: Arc<AtomicWaker>,
    /// What [`Self::waker`] holds.
    registered: Option<Waker>,
}

impl Listening {
    /// Whether the router ends; if not yet, the task is woken once it does.
    pub fn poll(&mut self, context: &Context<'_>) -> bool {
        let waker = context.waker();
        if !self
            .registered
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            self.waker.register(waker);
            self.registered = Some(waker.clone());
        }
        self.stop.raised.load(Ordering::SeqCst)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.sleepers().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker_ref;

    #[test]
    fn who_listens_is_told_and_who_left_is_forgotten() {
        let stop = Arc::<Stop>::default();
        let (mut one, other) = (stop.listen(), stop.listen());
        let context = Context::from_waker(noop_waker_ref());
        assert!(!one.poll(&context));
        drop(other);
        stop.raise();
        assert!(one.poll(&context));
        assert_eq!(stop.sleepers().len(), 1);
    }
}

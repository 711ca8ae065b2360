//! [`Pinned`]: one of the places that a pool has for connections which sessions keep beyond their transactions, or of
//! others that are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A place that is taken; dropped, it is free.
#[derive(Debug)]
pub(super) struct Pinned {
    taken: Arc<AtomicUsize>,
}

impl Pinned {
    /// One of `max` places, if one is left.
    pub(super) fn take(taken: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let grow = |places| (places < max).then_some(places + 1);
        let grown = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow);
        grown.ok().map(|_| Self {
            taken: taken.clone(),
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let taken = Arc::new(AtomicUsize::new(0));
        let first = Pinned::take(&taken, 2);
        let second = Pinned::take(&taken, 2);
        assert!(first.is_some() && second.is_some());
        assert!(Pinned::take(&taken, 2).is_none());
        drop(first);
        assert!(Pinned::take(&taken, 2).is_some());
        assert!(Pinned::take(&taken, 0).is_none());
    }
}

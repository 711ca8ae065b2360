//! [`PreparedStatements`]: which statements are prepared on one backend, the least recently used leaving first. Pure;
//! it sends nothing.

use foldhash::fast::RandomState;
use std::collections::HashMap;

/// Router-wide ids of the statements that one backend has prepared; never more than its maximum.
#[derive(Debug)]
pub struct PreparedStatements {
    /// When each was used last, in uses.
    last_use: HashMap<u64, u64, RandomState>,
    uses: u64,
    statements_max: usize,
}

impl PreparedStatements {
    /// None yet; `statements_max` (at least 1) is `limits.backend_prepared_statements`.
    pub fn new(statements_max: usize) -> Self {
        Self {
            last_use: HashMap::default(),
            uses: 0,
            statements_max: statements_max.max(1),
        }
    }

    /// Whether `id` is prepared. Counts as a use.
    pub fn contains(&mut self, id: u64) -> bool {
        self.uses += 1;
        match self.last_use.get_mut(&id) {
            Some(last_use) => {
                *last_use = self.uses;
                true
            }
            None => false,
        }
    }

    /// Notes that `id` is prepared; gives the one that must be closed for it.
    pub fn insert(&mut self, id: u64) -> Option<u64> {
        let full = self.last_use.len() >= self.statements_max && !self.last_use.contains_key(&id);
        // A walk over all costs less than the Parse that comes with it.
        let evicted = if full {
            self.last_use
                .iter()
                .min_by_key(|(_, use_)| **use_)
                .map(|(id, _)| *id)
        } else {
            None
        };
        if let Some(evicted) = evicted {
            self.last_use.remove(&evicted);
        }
        self.uses += 1;
        self.last_use.insert(id, self.uses);
        evicted
    }

    /// Forgets `id`: it was closed, or its Parse failed.
    pub fn remove(&mut self, id: u64) {
        self.last_use.remove(&id);
    }

    /// Forgets all: DEALLOCATE ALL or DISCARD ALL ran.
    pub fn clear(&mut self) {
        self.last_use.clear();
    }

    /// Those that are prepared, in no order.
    pub fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.last_use.keys().copied()
    }

    /// How many are prepared.
    pub fn len(&self) -> usize {
        self.last_use.len()
    }

    /// Whether none is prepared.
    pub fn is_empty(&self) -> bool {
        self.last_use.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_leaves_first() {
        let mut prepared = PreparedStatements::new(2);
        assert_eq!(prepared.insert(1), None);
        assert_eq!(prepared.insert(2), None);
        assert!(prepared.contains(1));
        assert_eq!(prepared.insert(3), Some(2));
        assert!(!prepared.contains(2) && prepared.contains(1) && prepared.contains(3));
        assert_eq!(prepared.len(), 2);
    }

    #[test]
    fn one_that_is_there_evicts_none() {
        let mut prepared = PreparedStatements::new(1);
        prepared.insert(7);
        assert_eq!(prepared.insert(7), None);
        assert!(prepared.contains(7));
    }

    #[test]
    fn removed_statements_make_room() {
        let mut prepared = PreparedStatements::new(1);
        prepared.insert(7);
        prepared.remove(7);
        assert!(prepared.is_empty());
        assert_eq!(prepared.insert(8), None);
    }
}

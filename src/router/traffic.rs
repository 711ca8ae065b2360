//! [`Traffic`]: what one worker has answered so far. Only its own thread adds, without waiting for others; the console
//! sums all workers up.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Traffic {
    queries: AtomicU64,
    transactions: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    busy: AtomicU64,
    in_transaction: AtomicU64,
}

/// Counts as they are at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that ended in ReadyForQuery.
    pub queries: u64,
    /// Those after which no block was open.
    pub transactions: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
    /// Microseconds in which clients were answered.
    pub busy: u64,
    /// Microseconds in which clients were answered, or idle in a block.
    pub in_transaction: u64,
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            queries: self.queries + other.queries,
            transactions: self.transactions + other.transactions,
            received: self.received + other.received,
            sent: self.sent + other.sent,
            busy: self.busy + other.busy,
            in_transaction: self.in_transaction + other.in_transaction,
        }
    }
}

impl Traffic {
    /// Adds what happened since the last time. Only the worker's own thread may.
    pub fn add(&self, more: Counts) {
        let add = |total: &AtomicU64, more: u64| {
            total.store(total.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        };
        add(&self.queries, more.queries);
        add(&self.transactions, more.transactions);
        add(&self.received, more.received);
        add(&self.sent, more.sent);
        add(&self.busy, more.busy);
        add(&self.in_transaction, more.in_transaction);
    }

    /// What was added so far.
    pub fn counts(&self) -> Counts {
        let now = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counts {
            queries: now(&self.queries),
            transactions: now(&self.transactions),
            received: now(&self.received),
            sent: now(&self.sent),
            busy: now(&self.busy),
            in_transaction: now(&self.in_transaction),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_did_adds_up() {
        let (one, other) = (Traffic::default(), Traffic::default());
        let more = Counts {
            queries: 2,
            sent: 5,
            ..Counts::default()
        };
        one.add(more);
        one.add(more);
        other.add(more);
        let sum = one.counts() + other.counts();
        assert_eq!((sum.queries, sum.sent, sum.busy), (6, 15, 0));
    }
}

//! [`Period`]: what happened in the last whole period, for averages.

use super::traffic::Counts;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a period is.
pub const PERIOD: Duration = Duration::from_secs(60);

/// Everything that is counted, as it is at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// What the workers have answered.
    pub counts: Counts,
    /// How often a connection to a shard was given to a session.
    pub leases: u64,
    /// How long sessions have waited in line for one, all together.
    pub waited: Duration,
}

impl Totals {
    /// What came since an earlier time.
    fn since(&self, earlier: &Self) -> Self {
        let (now, then) = (&self.counts, &earlier.counts);
        Self {
            counts: Counts {
                queries: now.queries.saturating_sub(then.queries),
                transactions: now.transactions.saturating_sub(then.transactions),
                received: now.received.saturating_sub(then.received),
                sent: now.sent.saturating_sub(then.sent),
                busy: now.busy.saturating_sub(then.busy),
                in_transaction: now.in_transaction.saturating_sub(then.in_transaction),
            },
            leases: self.leases.saturating_sub(earlier.leases),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// The last whole period and the one that runs.
#[derive(Debug)]
pub struct Period(Mutex<State>);

#[derive(Debug)]
struct State {
    begun: Instant,
    before: Totals,
    last: Option<(Totals, Duration)>,
}

impl Period {
    /// The first period begins now.
    pub fn begin(now: Instant) -> Self {
        Self(Mutex::new(State {
            begun: now,
            before: Totals::default(),
            last: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the period; the next begins.
    pub fn end(&self, now: Instant, totals: Totals) {
        let mut state = self.lock();
        let length = now.saturating_duration_since(state.begun);
        state.last = Some((totals.since(&state.before), length));
        state.before = totals;
        state.begun = now;
    }

    /// What happened in the last whole period, or in the first until it ends; and how long that was.
    pub fn last(&self, now: Instant, totals: Totals) -> (Totals, Duration) {
        let state = self.lock();
        let first = (totals, now.saturating_duration_since(state.begun));
        state.last.unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(queries: u64) -> Totals {
        Totals {
            counts: Counts {
                queries,
                ..Counts::default()
            },
            ..Totals::default()
        }
    }

    #[test]
    fn averages_are_of_the_last_whole_period() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let period = Period::begin(start);
        assert_eq!(
            period.last(after(5), totals(10)),
            (totals(10), Duration::from_secs(5))
        );
        period.end(after(60), totals(100));
        period.end(after(120), totals(130));
        let (last, length) = period.last(after(125), totals(999));
        assert_eq!((last, length), (totals(30), PERIOD));
    }
}

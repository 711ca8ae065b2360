//! Statements that cannot begin yet, since their rows are on the move: they are held until the topology is another, and
//! planned against that. What is held has no lease but those of its block, and is let go by a cancel, by its client's
//! leaving, by `statement_timeout`, and at the latest after `rebalance.fence_wait`.

use super::error::{Later, SessionError, Stop};
use super::session::Session;
use crate::planner::plan::Plan;
use crate::planner::{Binding, PlanError, Template};
use crate::topology::ShardId;
use crate::topology::snapshot::Topology;
use crate::transaction::state::Phase;
use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What a client may send while its statement is held, before it is not listened to any more.
const AHEAD_BYTES: usize = 64 * 1024;

/// Since when one statement is held.
#[derive(Debug, Default)]
pub(super) struct Held {
    since: Option<Instant>,
}

impl Session {
    /// The plan of a template against the topology of now. A block that began on a shard before its fence goes on there.
    pub(super) fn plan(
        &mut self,
        template: &Template,
        binding: &Binding<'_>,
    ) -> Result<Plan, Stop> {
        let topology = self.topology();
        self.check_suits(template, &topology)?;
        self.plan_against(&topology, |topology| {
            template.plan_or_report(binding, topology)
        })
    }

    /// A template that was made a moment before the topology changed would show rows of other shards: the statement has
    /// to be planned from its text again, at once.
    pub(super) fn check_suits(&self, template: &Template, topology: &Topology) -> Result<(), Stop> {
        match template.suits(topology) {
            true => Ok(()),
            false => Err(Stop::Later(Later {
                generation: topology.generation.saturating_sub(1),
                otherwise: Box::new(self.moved(topology.default_shard).into()),
            })),
        }
    }

    /// What `plan` makes of the topology, or of what of its fences holds for the session's block.
    pub(super) fn plan_against<P>(
        &mut self,
        topology: &Arc<Topology>,
        plan: impl Fn(&Topology) -> Result<P, PlanError>,
    ) -> Result<P, Stop> {
        self.planned = topology.generation;
        let seen = self.passable(topology);
        plan(&seen).map_err(|error| Stop::of_plan(error, topology))
    }

    /// The topology as the session's block may use it.
    fn passable<'t>(&mut self, topology: &'t Arc<Topology>) -> Cow<'t, Topology> {
        if topology.is_unfenced() {
            return Cow::Borrowed(topology);
        }
        let begun: Vec<(ShardId, u64)> = self
            .transaction
            .backends()
            .filter_map(|backend| Some((backend.shard, backend.since()?)))
            .collect();
        match begun.is_empty() {
            true => Cow::Borrowed(topology),
            false => Cow::Owned(topology.let_through(&begun)),
        }
    }

    /// Before something runs on a shard that takes part: notes against which topology it was planned, and sees that the
    /// shard has not changed since.
    pub(super) fn begin_on(&mut self, shard: ShardId) -> Result<(), Stop> {
        let planned = self.planned;
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        if let Some(since) = backend.since() {
            return match since < planned {
                true => self.check_snapshot_of(shard, since),
                false => Ok(()),
            };
        }
        let generation = match planned {
            0 => self.router.control.topology.load().generation,
            planned => planned,
        };
        match backend.begin(generation) {
            true => Ok(()),
            false => Err(Stop::Later(Later {
                generation,
                otherwise: Box::new(self.moved(shard).into()),
            })),
        }
    }

    fn moved(&self, shard: ShardId) -> SessionError {
        SessionError::Moved {
            shard: self.router.topology().shard_name(shard).to_string(),
        }
    }

    /// A block with one snapshot cannot follow rows to where they have moved.
    fn check_snapshot_of(&self, shard: ShardId, since: u64) -> Result<(), Stop> {
        let topology = self.router.control.topology.load();
        let changed = topology.shards.get(usize::from(shard.0));
        let has_changed = changed.is_some_and(|changed| changed.rows_since > since);
        let settings = self.parameters.before_block();
        if has_changed && self.transaction.has_one_snapshot(settings) {
            return Err(self.moved(shard).into());
        }
        Ok(())
    }

    /// Waits until a statement that could not begin may be planned again.
    ///
    /// # Errors
    /// It has waited too long, was cancelled, or the client is gone.
    pub(super) async fn wait_for_topology(
        &mut self,
        held: &mut Held,
        later: Later,
    ) -> Result<(), Stop> {
        if self.transaction.block.phase() == Phase::Idle && !self.pipeline.unsynced {
            self.release_idle().await;
        }
        let since = *held.since.get_or_insert_with(Instant::now);
        let fence_wait = self.router.config.rebalance.fence_wait;
        let timeout = self.statement_timeout();
        let until = since + timeout.map_or(fence_wait, |timeout| timeout.min(fence_wait));
        let cancelled = self.in_use.hold();
        let control = self.router.control.clone();
        let client = &mut self.client;
        let left = poll_fn(|context| {
            while client.input().len() < AHEAD_BYTES {
                match client.poll_fill(context) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            Poll::Pending
        });
        let ended = tokio::select! {
            biased;
            () = cancelled.notified() => Err(SessionError::Cancelled.into()),
            () = left => Err(Stop::Gone),
            () = control.changed_since(later.generation) => Ok(()),
            () = sleep_until(until) => match timeout {
                Some(timeout) if timeout < fence_wait => Err(SessionError::StatementTimeout.into()),
                _ => Err(*later.otherwise),
            },
        };
        self.in_use.let_go();
        ended
    }

    /// `statement_timeout`, if the client has set one.
    fn statement_timeout(&self) -> Option<Duration> {
        let setting = self.parameters.in_force().get("statement_timeout")?;
        milliseconds(setting).filter(|timeout| !timeout.is_zero())
    }
}

/// A time as PostgreSQL reads it where milliseconds are meant if no unit is there.
fn milliseconds(setting: &str) -> Option<Duration> {
    let setting = setting.trim();
    let digits = setting.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, unit) = setting.split_at(digits.unwrap_or(setting.len()));
    let milliseconds = match unit.trim() {
        "us" => 0.001,
        "" | "ms" => 1.0,
        "s" => 1e3,
        "min" => 60e3,
        "h" => 3600e3,
        "d" => 86_400e3,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * milliseconds / 1e3).ok()
}

impl Stop {
    /// Why there is no plan against this topology, which another may have.
    pub(super) fn of_plan(error: PlanError, topology: &Topology) -> Self {
        match error.is_held() {
            true => Self::Later(Later {
                generation: topology.generation,
                otherwise: Box::new(error.into()),
            }),
            false => error.into(),
        }
    }

    /// What it is that ends the step, if it cannot be tried again.
    pub(super) fn settled(self) -> Self {
        match self {
            Self::Later(later) => *later.otherwise,
            stop => stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_postgresql_reads_it() {
        let read = |setting| milliseconds(setting).map(|read| read.as_millis());
        assert_eq!(read("250"), Some(250));
        assert_eq!(read("1.5s"), Some(1500));
        assert_eq!(read("2 min"), Some(120_000));
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("soon"), None);
    }
}

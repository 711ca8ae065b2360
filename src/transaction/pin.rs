//! What keeps a backend with its session beyond the end of a transaction: real session state, which lives in that
//! backend alone. Whether there still is any is asked of the backend, never guessed. Start at [`Pins`].

use super::command::{self, CommandError};
use crate::backend::connection::Backend;
use crate::backend::pool::Lease;
use crate::topology::ShardId;
use crate::wire::frame::Frame;
use crate::wire::stream::StreamError;
use std::fmt;
use std::ops::{BitOr, BitOrAssign};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a backend may take to forget what its session left there; then it is closed.
const CLEANING: Duration = Duration::from_secs(5);

/// Asks a backend outside a transaction what of its session's lives there, one column for each of [`ASKED`].
const WHAT_LIVES_HERE: &str = "SELECT \
     EXISTS (SELECT FROM pg_catalog.pg_locks \
             WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())::int, \
     EXISTS (SELECT FROM pg_catalog.pg_listening_channels())::int";

/// The reasons that a backend can be asked for.
const ASKED: [Reasons; 2] = [Reasons::ADVISORY_LOCKS, Reasons::LISTENING];

/// A set of reasons to keep a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasons(u8);

impl Reasons {
    /// Advisory locks of the session.
    pub const ADVISORY_LOCKS: Self = Self(1);
    /// Channels that it listens to.
    pub const LISTENING: Self = Self(1 << 1);

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether something lives there, beside the wish to keep it.
    pub fn is_state(self) -> bool {
        !self.is_empty()
    }

    /// Whether all of `others` are among them.
    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

impl BitOr for Reasons {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Reasons {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::ADVISORY_LOCKS, "advisory locks"),
            (Self::LISTENING, "LISTEN"),
        ];
        let here: Vec<&str> = names
            .iter()
            .filter(|(reason, _)| self.contains(*reason))
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&here.join(", "))
    }
}

/// A backend that its session keeps.
#[derive(Debug)]
pub struct Pin {
    /// The connection.
    pub lease: Lease,
    /// Why.
    pub reasons: Reasons,
    /// Something ran that may have changed that.
    pub unsettled: bool,
}

/// The backends that a session keeps between its transactions.
#[derive(Debug, Default)]
pub struct Pins {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that no transaction uses now.
    kept: Vec<Pin>,
    /// All that should be there, in use or not.
    expected: Vec<(ShardId, Reasons)>,
}

/// A shard that was lost, with what the session had there.
#[derive(Debug, Clone, Copy)]
pub struct LostPin {
    /// The shard.
    pub shard: ShardId,
    /// What is gone with it.
    pub reasons: Reasons,
}

impl Pins {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session keeps none, and has lost none.
    pub fn is_empty(&self) -> bool {
        self.state().expected.is_empty()
    }

    /// Whether a backend is kept for this and not in use.
    pub fn keeps(&self, shard: ShardId, reason: Reasons) -> bool {
        let state = self.state();
        let mut kept = state.kept.iter();
        kept.any(|pin| pin.lease.shard == shard && pin.reasons.contains(reason))
    }

    /// A shard that is kept and not in use.
    pub fn first(&self) -> Option<ShardId> {
        self.state().kept.first().map(|pin| pin.lease.shard)
    }

    /// Keeps a backend until it is taken again.
    pub fn keep(&self, pin: Pin) {
        let mut state = self.state();
        let shard = pin.lease.shard;
        state.expected.retain(|(other, _)| *other != shard);
        state.expected.push((shard, pin.reasons));
        state.kept.push(pin);
    }

    /// The shard's backend, if the session keeps one.
    pub fn take(&self, shard: ShardId) -> Option<Pin> {
        let mut state = self.state();
        let place = state.kept.iter().position(|pin| pin.lease.shard == shard)?;
        Some(state.kept.swap_remove(place))
    }

    /// Outside a transaction: a backend that should be here and is not, which is forgotten.
    pub fn take_lost(&self) -> Option<LostPin> {
        let mut state = self.state();
        let State { kept, expected } = &mut *state;
        let is_lost = |(shard, _): &(ShardId, Reasons)| {
            let mut here = kept.iter().filter(|pin| pin.lease.shard == *shard);
            here.next().is_none()
        };
        let place = expected.iter().position(is_lost)?;
        let (shard, reasons) = expected.swap_remove(place);
        Some(LostPin { shard, reasons })
    }

    /// Takes all: the session needs none of them any more.
    pub fn take_all(&self) -> Vec<Pin> {
        let mut state = self.state();
        state.expected.clear();
        std::mem::take(&mut state.kept)
    }

    fn take_unsettled(&self) -> Vec<Pin> {
        let mut state = self.state();
        state.kept.extract_if(.., |pin| pin.unsettled).collect()
    }

    fn forget(&self, shard: ShardId) {
        self.state().expected.retain(|(other, _)| *other != shard);
    }

    /// Outside a transaction: asks the backends where something may have changed what lives there, and gives back those
    /// where nothing does. One that does not answer is lost. What they said meanwhile for the client's ears.
    pub async fn settle(&self) -> Vec<Frame> {
        let mut asides = Vec::new();
        for mut pin in self.take_unsettled() {
            let reasons = match ask(&mut pin.lease, &mut asides).await {
                Ok(reasons) => reasons,
                // It has no time for the question now.
                Err(CommandError::Refused(_)) => {
                    self.keep(pin);
                    continue;
                }
                Err(CommandError::Lost { .. }) => continue,
            };
            if !reasons.is_empty() {
                pin.reasons = reasons;
                pin.unsettled = false;
                self.keep(pin);
                continue;
            }
            self.forget(pin.lease.shard);
            if !pin.lease.tainted || clean(&mut pin.lease).await {
                pin.lease.release();
            }
        }
        asides
    }

    /// Waits for a backend that is kept to say something unasked, or to be gone; which one.
    pub fn poll_heard(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<(ShardId, Result<usize, StreamError>)> {
        for pin in &mut self.state().kept {
            if let Poll::Ready(heard) = pin.lease.stream.poll_fill(context) {
                return Poll::Ready((pin.lease.shard, heard));
            }
        }
        Poll::Pending
    }
}

/// What of its session's lives in a backend.
async fn ask(backend: &mut Backend, asides: &mut Vec<Frame>) -> Result<Reasons, CommandError> {
    let reply = command::run(backend, WHAT_LIVES_HERE).await?;
    asides.extend(reply.asides);
    let mut reasons = Reasons::default();
    let row = reply.rows.into_iter().next().unwrap_or_default();
    for (value, reason) in row.into_iter().zip(ASKED) {
        if value.as_deref() == Some("1") {
            reasons |= reason;
        }
    }
    Ok(reasons)
}

/// Has a backend outside a transaction forget all that its session did there. Whether it did.
pub async fn clean(backend: &mut Backend) -> bool {
    let cleaned = tokio::time::timeout(CLEANING, command::run(backend, "DISCARD ALL")).await;
    if !matches!(cleaned, Ok(Ok(_))) {
        return false;
    }
    backend.tainted = false;
    backend.applied = Arc::default();
    backend.prepared.clear();
    backend.forget_unnamed();
    true
}

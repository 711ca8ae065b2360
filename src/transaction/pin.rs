//! What keeps a backend with its session beyond the end of a transaction: real session state, which lives in that
//! backend alone. Whether there still is any is asked of the backend, never guessed. Start at [`Pins`].

use super::command::{self, CommandError};
use crate::backend::connection::Backend;
use crate::backend::pool::Lease;
use crate::config::PoolMode;
use crate::topology::ShardId;
use crate::wire::frame::Frame;
use crate::wire::stream::StreamError;
use std::collections::HashMap;
use std::fmt;
use std::ops::{BitOr, BitOrAssign};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a backend may take to forget what its session left there; then it is closed.
const CLEANING: Duration = Duration::from_secs(5);

/// Asks a backend outside a transaction what of its session's lives there: a reason by its name in [`ASKED`], and the
/// name of what it is.
const WHAT_LIVES_HERE: &str = "\
    SELECT 'lock', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
        WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()) \
    UNION ALL SELECT 'channel', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
    UNION ALL SELECT 'cursor', name FROM pg_catalog.pg_cursors WHERE is_holdable \
    UNION ALL SELECT 'temporary', NULL WHERE pg_catalog.pg_my_temp_schema() <> 0 AND ( \
        EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()) \
        OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()) \
        OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema()))";

/// The reasons that a backend can be asked for.
const ASKED: [(&str, Reasons); 4] = [
    ("lock", Reasons::ADVISORY_LOCKS),
    ("channel", Reasons::LISTENING),
    ("cursor", Reasons::HELD_CURSORS),
    ("temporary", Reasons::TEMPORARY),
];

/// A set of reasons to keep a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasons(u8);

impl Reasons {
    /// Advisory locks of the session.
    pub const ADVISORY_LOCKS: Self = Self(1);
    /// Channels that it listens to.
    pub const LISTENING: Self = Self(1 << 1);
    /// Cursors WITH HOLD.
    pub const HELD_CURSORS: Self = Self(1 << 2);
    /// Temporary tables and the like.
    pub const TEMPORARY: Self = Self(1 << 3);
    /// `pool.mode = "session"`: nothing need live there.
    pub const SESSION_MODE: Self = Self(1 << 7);

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether something lives there, beside the wish to keep it.
    pub fn is_state(self) -> bool {
        !Self::SESSION_MODE.contains(self)
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
            (Self::HELD_CURSORS, "cursors WITH HOLD"),
            (Self::TEMPORARY, "temporary tables"),
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
    /// Its cursors WITH HOLD when it was asked last.
    pub cursors: Vec<String>,
    /// Something ran that may have changed that.
    pub unsettled: bool,
}

impl Pin {
    /// A connection where nothing lives yet.
    pub fn of(lease: Lease, reasons: Reasons) -> Self {
        Self {
            lease,
            reasons,
            cursors: Vec::new(),
            unsettled: false,
        }
    }
}

/// The backends that a session keeps between its transactions.
#[derive(Debug, Default)]
pub struct Pins {
    /// Why every backend is kept, if it is.
    always: Reasons,
    /// Whether any should be there: asked of each statement, and most sessions keep none.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that no transaction uses now.
    kept: Vec<Pin>,
    /// All that should be there, in use or not.
    expected: Vec<(ShardId, Reasons)>,
}

/// A shard whose backend was lost, with all that is gone.
#[derive(Debug, Clone, Copy)]
pub struct LostPin {
    /// The shard.
    pub shard: ShardId,
    /// What lived there, and in others that were lost with it.
    pub reasons: Reasons,
}

impl Pins {
    /// None yet; with [`PoolMode::Session`] every backend is to be kept.
    pub fn new(mode: PoolMode) -> Self {
        Self {
            always: match mode {
                PoolMode::Transaction => Reasons::default(),
                PoolMode::Session => Reasons::SESSION_MODE,
            },
            ..Self::default()
        }
    }

    /// Why every backend is kept, if it is.
    pub fn always(&self) -> Reasons {
        self.always
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session keeps none, and has lost none.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// Notes why the shard's backend should be there, or that it need not.
    fn expect(&self, expected: &mut Vec<(ShardId, Reasons)>, shard: ShardId, why: Option<Reasons>) {
        expected.retain(|(other, _)| *other != shard);
        expected.extend(why.map(|reasons| (shard, reasons)));
        self.any.store(!expected.is_empty(), Ordering::Relaxed);
    }

    /// Whether a backend is kept for this and not in use.
    pub fn keeps(&self, shard: ShardId, reason: Reasons) -> bool {
        let state = self.state();
        let mut kept = state.kept.iter();
        kept.any(|pin| pin.lease.shard == shard && pin.reasons.contains(reason))
    }

    /// A shard that is kept and not in use.
    pub fn first(&self) -> Option<ShardId> {
        if self.is_empty() {
            return None;
        }
        self.state().kept.first().map(|pin| pin.lease.shard)
    }

    /// The cursors WITH HOLD and where they are, outside a transaction.
    pub fn held_cursors(&self) -> HashMap<String, ShardId> {
        let state = self.state();
        let named = |pin: &Pin| {
            let shard = pin.lease.shard;
            let names = pin.cursors.clone().into_iter();
            names.map(move |name| (name, shard)).collect::<Vec<_>>()
        };
        state.kept.iter().flat_map(named).collect()
    }

    /// Keeps a backend until it is taken again.
    pub fn keep(&self, mut pin: Pin) {
        pin.lease.set_aside();
        let mut state = self.state();
        self.expect(&mut state.expected, pin.lease.shard, Some(pin.reasons));
        state.kept.push(pin);
    }

    /// The shard's backend, if the session keeps one.
    pub fn take(&self, shard: ShardId) -> Option<Pin> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.state();
        let place = state.kept.iter().position(|pin| pin.lease.shard == shard)?;
        let mut pin = state.kept.swap_remove(place);
        pin.lease.take_up();
        Some(pin)
    }

    /// Outside a transaction: what lived in backends that should be here and are not, which are forgotten.
    pub fn take_lost(&self) -> Option<LostPin> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.state();
        let State { kept, expected } = &mut *state;
        let is_lost = |(shard, _): &(ShardId, Reasons)| {
            let mut here = kept.iter().filter(|pin| pin.lease.shard == *shard);
            here.next().is_none()
        };
        let lost: Vec<_> = expected.extract_if(.., |one| is_lost(one)).collect();
        self.any.store(!expected.is_empty(), Ordering::Relaxed);
        let mut lost = lost.into_iter().filter(|(_, reasons)| reasons.is_state());
        let (shard, mut reasons) = lost.next()?;
        lost.for_each(|(_, more)| reasons |= more);
        Some(LostPin { shard, reasons })
    }

    /// Takes all: the session needs none of them any more.
    pub fn take_all(&self) -> Vec<Pin> {
        let mut state = self.state();
        state.expected.clear();
        self.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut state.kept)
    }

    fn take_unsettled(&self) -> Vec<Pin> {
        let mut state = self.state();
        state.kept.extract_if(.., |pin| pin.unsettled).collect()
    }

    fn forget(&self, shard: ShardId) {
        self.expect(&mut self.state().expected, shard, None);
    }

    /// Outside a transaction: asks the backends where something may have changed what lives there, and gives back those
    /// where nothing does. One that does not answer is lost. What they said meanwhile for the client's ears.
    pub async fn settle(&self) -> Vec<Frame> {
        let mut asides = Vec::new();
        for mut pin in self.take_unsettled() {
            let (reasons, cursors) = match ask(&mut pin.lease, &mut asides).await {
                Ok(answer) => answer,
                // It has no time for the question now.
                Err(CommandError::Refused(_)) => {
                    self.keep(pin);
                    continue;
                }
                Err(CommandError::Lost { .. }) => continue,
            };
            let reasons = reasons | self.always;
            if !reasons.is_state() {
                pin.lease.unpin();
            }
            if !reasons.is_empty() {
                pin.reasons = reasons;
                pin.cursors = cursors;
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
        if self.is_empty() {
            return Poll::Pending;
        }
        for pin in &mut self.state().kept {
            if let Poll::Ready(heard) = pin.lease.stream.poll_fill(context) {
                return Poll::Ready((pin.lease.shard, heard));
            }
        }
        Poll::Pending
    }
}

/// Why a backend is to be kept, and its cursors WITH HOLD.
async fn ask(
    backend: &mut Backend,
    asides: &mut Vec<Frame>,
) -> Result<(Reasons, Vec<String>), CommandError> {
    let reply = command::run(backend, WHAT_LIVES_HERE).await?;
    asides.extend(reply.asides);
    let mut reasons = Reasons::default();
    let mut cursors = Vec::new();
    for row in reply.rows {
        let mut row = row.into_iter();
        let (kind, name) = (row.next().flatten(), row.next().flatten());
        let known = ASKED
            .iter()
            .find(|(known, _)| kind.as_deref() == Some(known));
        reasons |= known.map(|(_, reason)| *reason).unwrap_or_default();
        cursors.extend(name);
    }
    Ok((reasons, cursors))
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

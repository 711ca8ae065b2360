//! What a session's block touched and how it ends. A block joins shards lazily: a shard gets BEGIN, and what the block
//! has set so far, with the first statement that needs it. Start at [`Transaction`]; the end is in [`commit`].

pub mod state;
pub mod command;
pub mod settings;
pub mod foreseeable;
pub mod two_phase;
pub mod commit;
pub mod gid;
pub mod recovery;
mod forget;
pub mod pin;
pub mod in_use;
pub mod deadlock;
pub mod detection;
pub mod visibility;
mod participants;

use crate::backend::connection::Backend;
use crate::backend::control::Control;
use crate::backend::pool::{Lease, LeaseError, Need, UserPools};
use crate::sql::statement::IsolationLevel;
use crate::topology::ShardId;
use crate::wire::backend_message::TransactionStatus;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::frame::Frame;
use crate::wire::sqlstate::SqlState;
use command::CommandError;
use deadlock::Mark;
use detection::{Detector, Distributed};
use in_use::InUse;
use participants::Participants;
use pin::{Pin, Pins, Reasons};
use settings::{Custom, Settings};
use state::{BlockState, Phase};
use std::sync::Arc;

/// One shard's part in a block, or in one statement outside a block.
#[derive(Debug)]
pub struct Participant {
    /// The connection.
    pub lease: Lease,
    /// The backend's settings before the block, to which a rollback returns.
    settings_before: Arc<Settings>,
    /// BEGIN was sent.
    begun: bool,
    /// It ran more than SHOW: leaving it would lose something.
    used: bool,
    /// PostgreSQL does not prepare what it ran: it must be the one that decides.
    unpreparable: bool,
    /// Why its session keeps it when the block ends.
    reasons: Reasons,
    /// The cursors WITH HOLD that it had before the block.
    cursors: Vec<String>,
    /// Something ran that may have changed that.
    unsettled: bool,
    /// It carries the mark of the block.
    marked: bool,
    pins: Arc<Pins>,
}

impl Participant {
    /// Makes the backend's settings the session's.
    async fn prepare(&mut self, tenant: Tenant<'_>) -> Result<(), CommandError> {
        settings::apply(&mut self.lease, tenant.settings).await?;
        settings::create_custom(&mut self.lease, tenant.custom, tenant.settings).await?;
        self.settings_before = self.lease.applied.clone();
        Ok(())
    }

    /// Gives the lease back, which stands at ReadyForQuery 'I': to its pool, or to the session that keeps it.
    fn release(self) {
        if self.reasons.is_empty() {
            return self.lease.release();
        }
        self.lease.rest();
        self.pins.clone().keep(Pin {
            lease: self.lease,
            reasons: self.reasons,
            cursors: self.cursors,
            unsettled: self.unsettled,
        });
    }
}

/// Who leases, and how its backends must be set.
#[derive(Debug, Clone, Copy)]
pub struct Tenant<'a> {
    /// Makes transaction ids durable before they decide.
    pub control: &'a Arc<Control>,
    /// Where leases come from, and as whom.
    pub pools: &'a UserPools,
    /// With which settings; in a block, those before it.
    pub settings: &'a Arc<Settings>,
    /// With which settings they are left by a commit.
    pub committed: &'a Arc<Settings>,
    /// Which customized settings the session has set at some time.
    pub custom: &'a Arc<Custom>,
    /// Where what spans several shards is watched.
    pub detector: &'a Arc<Detector>,
    /// What a cancel of it reaches.
    pub in_use: &'a Arc<InUse>,
    /// A shard that has answers to give, and so takes no message that wants one by itself.
    pub talking: Option<ShardId>,
}

/// Why a shard could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The shard refused BEGIN, a setting or a savepoint.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A second shard in a block whose snapshot would have to span both.
    #[error("a REPEATABLE READ or SERIALIZABLE block cannot span several shards")]
    SnapshotIsolation,
    /// Something ran in the block before its shards' snapshots were opened.
    #[error("the transaction's snapshots cannot be opened after it has begun on a shard")]
    SnapshotTooLate,
    /// The shards' snapshots could not be opened in time.
    #[error("no consistent snapshot of the shards within snapshot.wait ({after:?})")]
    SnapshotNotInTime {
        /// The limit.
        after: std::time::Duration,
    },
    /// A transaction is half committed and cannot be settled now.
    #[error("no consistent snapshot of the shards: {0}")]
    Unsettled(String),
}

impl ErrorReply for JoinError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Lease(error) => error.sqlstate(),
            Self::Command(error) => error.sqlstate(),
            Self::SnapshotIsolation | Self::SnapshotTooLate => SqlState::FEATURE_NOT_SUPPORTED,
            Self::SnapshotNotInTime { .. } | Self::Unsettled(_) => SqlState::SERIALIZATION_FAILURE,
        }
    }
    fn fault(&self) -> Fault {
        match self {
            Self::Lease(error) => error.fault(),
            Self::Command(error) => error.fault(),
            Self::SnapshotIsolation | Self::SnapshotTooLate => Fault::Client,
            Self::SnapshotNotInTime { .. } => Fault::Router,
            Self::Unsettled(_) => Fault::Backend,
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::Lease(error) => error.detail(),
            Self::Command(error) => error.detail(),
            Self::SnapshotIsolation => {
                Some("Each shard would see a snapshot of its own.".to_owned())
            }
            Self::SnapshotTooLate | Self::SnapshotNotInTime { .. } | Self::Unsettled(_) => None,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Lease(error) => error.hint(),
            Self::Command(error) => error.hint(),
            Self::SnapshotIsolation => {
                Some("Use READ COMMITTED, keep the block to one sharding key, or SET pgring.snapshot = 'consistent' for REPEATABLE READ.".to_owned())
            }
            Self::SnapshotTooLate => {
                Some("SET pgring.snapshot before the block's first statement.".to_owned())
            }
            Self::SnapshotNotInTime { .. } | Self::Unsettled(_) => {
                Some("Try the transaction again.".to_owned())
            }
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Lease(error) => error.refusal(),
            Self::Command(error) => error.refusal(),
            Self::SnapshotIsolation | Self::SnapshotTooLate => Some("snapshot-isolation"),
            Self::SnapshotNotInTime { .. } | Self::Unsettled(_) => None,
        }
    }
}

/// A session's block, or the leases of one statement outside a block.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Phase and preamble.
    pub block: BlockState,
    participants: Participants,
    /// What the session keeps between its transactions.
    pub pins: Arc<Pins>,
    /// The block spans, or spanned, several shards.
    distributed: Option<Distributed>,
    /// It has snapshots of all shards that agree.
    consistent: bool,
    /// The time that its statements on several shards are told, once one was.
    pub time: Option<Arc<str>>,
}

impl Transaction {
    /// Of a session without a block that keeps these backends.
    pub fn new(pins: Pins) -> Self {
        Self {
            pins: Arc::new(pins),
            ..Self::default()
        }
    }

    /// The shards that hold a lease now.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.participants.keys().copied()
    }

    /// The shard that statements for any shard should prefer: one that is here already.
    pub fn preferred(&self) -> Option<ShardId> {
        let joined = self.participants.keys().next().copied();
        joined.or_else(|| self.pins.first())
    }

    /// The shard's backend, if it takes part.
    pub fn backend(&mut self, shard: ShardId) -> Option<&mut Backend> {
        self.participants
            .get_mut(&shard)
            .map(|participant| &mut *participant.lease)
    }

    /// The backends of all participants, in [`ShardId`] order.
    pub fn backends(&mut self) -> impl Iterator<Item = &mut Backend> {
        self.participants
            .values_mut()
            .map(|participant| &mut *participant.lease)
    }

    /// [`Self::join`] where that takes no waiting: outside a block, with a pooled connection that is set as the session
    /// is. Whether it did.
    pub fn join_at_once(&mut self, shard: ShardId, tenant: Tenant<'_>) -> bool {
        if self.block.phase() != Phase::Idle || !self.pins.is_empty() {
            return false;
        }
        let Some(lease) = tenant.pools.take(shard, tenant.custom, self.need()) else {
            return false;
        };
        if !settings::are_applied(&lease, tenant.settings, tenant.custom) {
            lease.release();
            return false;
        }
        let joining = self.participant(Pin::of(lease, self.pins.always()));
        self.participants.insert(shard, joining);
        true
    }

    /// Makes `shard` a participant: a lease, the session's settings, and in a block all that the block has said so far.
    /// What the shard said meanwhile for the client's ears (ParameterStatus, NOTICE) is appended to `asides`.
    ///
    /// # Errors
    /// [`JoinError`]; the shard does not take part then.
    pub async fn join(
        &mut self,
        shard: ShardId,
        tenant: Tenant<'_>,
        asides: &mut Vec<Frame>,
    ) -> Result<&mut Backend, JoinError> {
        if !self.participants.contains_key(&shard) {
            if self.block.phase() != Phase::Idle {
                self.leave_unused().await;
            }
            let mut joining = self.lease(shard, tenant).await?;
            if !self.participants.is_empty() && self.has_snapshot(tenant.settings) {
                joining.release();
                return Err(JoinError::SnapshotIsolation);
            }
            joining.prepare(tenant).await?;
            let mark = self.distribute(1, tenant);
            if let Some(sql) = self.block.preamble(mark) {
                // At once with the first shard's, so that the mark costs a block no time.
                let (begun, marked) = tokio::join!(
                    command::run(&mut joining.lease, &sql),
                    mark_all(&mut self.participants, mark, tenant.talking)
                );
                asides.extend(begun?.asides);
                marked?;
                joining.begun = true;
                joining.marked = mark.is_some();
            }
            self.participants.insert(shard, joining);
        }
        let participant = self
            .participants
            .get_mut(&shard)
            .ok_or(LeaseError::Closed)?;
        Ok(&mut participant.lease)
    }

    /// The mark that the parts of a block carry that has more than one, with `more` of them still to come.
    fn distribute(&mut self, more: usize, tenant: Tenant<'_>) -> Option<Mark> {
        let several = self.participants.len() + more > 1;
        if self.block.phase() == Phase::Idle || !several {
            return None;
        }
        let watch = || tenant.detector.watch(tenant.in_use.clone());
        let distributed = self.distributed.get_or_insert_with(watch);
        Some(distributed.mark())
    }

    /// Marks the block's parts before they take no more messages while others join.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn mark_for_more(&mut self, tenant: Tenant<'_>) -> Result<(), CommandError> {
        let mark = self.distribute(1, tenant);
        mark_all(&mut self.participants, mark, None).await
    }

    /// The mark of a block that spans several shards.
    pub fn mark(&self) -> Option<Mark> {
        self.distributed.as_ref().map(Distributed::mark)
    }

    /// A statement of the session begins.
    pub fn note_busy(&mut self) {
        if let Some(distributed) = &self.distributed {
            distributed.note_busy();
            for (_, participant) in self.participants.iter() {
                participant.lease.forget_deadlock();
            }
        }
    }

    /// The session waits for its client.
    pub fn note_resting(&self) {
        if let Some(distributed) = &self.distributed {
            distributed.note_resting();
        }
    }

    /// Whether the block has one snapshot for all of its statements, and no more than that.
    pub fn is_repeatable_read(&self, before_block: &Settings) -> bool {
        let level = self.block.modes().isolation;
        let level = level.or_else(|| settings::default_isolation(before_block));
        self.block.phase() != Phase::Idle && level == Some(IsolationLevel::RepeatableRead)
    }

    /// Whether the block has one snapshot for all of its statements, on one shard or on all.
    pub fn has_one_snapshot(&self, before_block: &Settings) -> bool {
        self.consistent || self.has_snapshot(before_block)
    }

    /// Whether the block has one snapshot for all of its statements.
    fn has_snapshot(&self, before_block: &Settings) -> bool {
        match (self.block.phase(), self.block.modes().isolation) {
            (Phase::Idle, _) => false,
            (_, Some(level)) => level.has_snapshot(),
            (_, None) => settings::snapshot_by_default(before_block),
        }
    }

    /// After the block's isolation was set: leaves it to at most one shard if it is to have one snapshot.
    ///
    /// # Errors
    /// [`JoinError::SnapshotIsolation`].
    pub async fn check_snapshot(&mut self) -> Result<(), JoinError> {
        if self.consistent {
            return Ok(());
        }
        let isolation = self.block.modes().isolation;
        if isolation.is_some_and(IsolationLevel::has_snapshot) && self.participants.len() > 1 {
            self.leave_unused().await;
            if self.participants.len() > 1 {
                return Err(JoinError::SnapshotIsolation);
            }
        }
        Ok(())
    }

    /// The backend that the session keeps on the shard, else one of the pool's.
    async fn lease(&self, shard: ShardId, tenant: Tenant<'_>) -> Result<Participant, LeaseError> {
        let has_pins = !self.pins.is_empty() && self.need() == Need::First;
        if has_pins && self.pins.keeps(shard, Reasons::default()) {
            tenant.pools.pass(shard).await?;
        }
        let pin = match self.pins.take(shard) {
            Some(pin) => pin,
            None => {
                let acquiring = tenant.pools.acquire(shard, tenant.custom, self.need());
                let lease = acquiring.await?;
                Pin::of(lease, self.pins.always())
            }
        };
        Ok(self.participant(pin))
    }

    /// What its next connection is wanted for.
    fn need(&self) -> Need {
        match self.participants.is_empty() {
            true => Need::First,
            false => Need::Further,
        }
    }

    fn participant(&self, pin: Pin) -> Participant {
        Participant {
            settings_before: pin.lease.applied.clone(),
            lease: pin.lease,
            begun: false,
            used: false,
            unpreparable: false,
            reasons: pin.reasons,
            cursors: pin.cursors,
            unsettled: pin.unsettled,
            marked: false,
            pins: self.pins.clone(),
        }
    }

    /// Has the session keep the shard's backend beyond the end of the block, for what will live there.
    ///
    /// # Errors
    /// [`LeaseError::TooManyPinned`].
    pub fn pin(&mut self, shard: ShardId, reason: Reasons) -> Result<(), LeaseError> {
        let participant = self.participants.get_mut(&shard);
        let participant = participant.ok_or(LeaseError::Closed)?;
        participant.lease.pin()?;
        participant.reasons |= reason;
        participant.unsettled = true;
        Ok(())
    }

    /// Whether the session keeps the shard's backend for this, as far as is known.
    pub fn keeps(&self, shard: ShardId, reason: Reasons) -> bool {
        match self.participants.get(&shard) {
            Some(participant) => participant.reasons.contains(reason),
            None => self.pins.keeps(shard, reason),
        }
    }

    /// Notes that what lives in the shard's backend may have changed.
    pub fn unsettle(&mut self, shard: ShardId) {
        if let Some(participant) = self.participants.get_mut(&shard) {
            participant.unsettled = true;
        }
    }

    /// Notes that the shard runs what PostgreSQL does not prepare.
    pub fn mark_unpreparable(&mut self, shard: ShardId) {
        if let Some(participant) = self.participants.get_mut(&shard) {
            participant.unpreparable = true;
        }
    }

    /// Notes that a statement runs on the shard whose outcome belongs to the block.
    pub fn mark_used(&mut self, shard: ShardId) {
        if let Some(participant) = self.participants.get_mut(&shard) {
            participant.used = true;
        }
    }

    /// Whether a statement ran whose outcome belongs to the block.
    pub fn is_used(&self) -> bool {
        self.participants.iter().any(|(_, one)| one.used)
    }

    /// Whether a shard takes part where nothing ran whose outcome belongs to the block.
    pub fn has_unused(&self) -> bool {
        self.participants.iter().any(|(_, one)| !one.used)
    }

    /// Leaves the shards that only set or showed something; what the block set is said again to those that join.
    async fn leave_unused(&mut self) {
        let unused = |participant: &Participant| !participant.used;
        let shards: Vec<ShardId> = self
            .participants
            .iter()
            .filter(|(_, one)| unused(one))
            .map(|(shard, _)| *shard)
            .collect();
        let participants = shards
            .iter()
            .filter_map(|shard| Some((*shard, self.participants.remove(shard)?)));
        let mut left = Self {
            participants: participants.collect(),
            ..Self::default()
        };
        left.rollback().await;
    }

    /// Turns the statement outside a block that already ran on some shard, with its Sync still to come, into a part of
    /// the router's own block.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn begin_implicit(&mut self, tenant: Tenant<'_>) -> Result<(), CommandError> {
        if self.block.phase() != Phase::Idle {
            return Ok(());
        }
        self.block.begin_implicit();
        for participant in self
            .participants
            .values_mut()
            .filter(|participant| !participant.begun)
        {
            command::run_apart(&mut participant.lease, &["BEGIN"]).await?;
            participant.begun = true;
            // What was set before BEGIN stays set by a rollback.
            participant.settings_before = participant.lease.applied.clone();
        }
        let mark = self.distribute(0, tenant);
        // All have just been asked something, so all may be again.
        mark_all(&mut self.participants, mark, None).await
    }

    /// Whether [`Self::clean_tainted`] has anything to do.
    pub fn is_tainted(&self) -> bool {
        self.participants.iter().any(|(_, one)| one.lease.tainted)
    }

    /// Has backends forget what a statement that was not looked at may have left there. One that does not is closed.
    pub async fn clean_tainted(&mut self) {
        let mut lost = Vec::new();
        for (shard, participant) in self.participants.iter_mut() {
            let backend = &mut *participant.lease;
            if !backend.tainted {
                continue;
            }
            // What the session keeps there is not to be forgotten with it.
            if !participant.reasons.is_empty() {
                participant.unsettled = true;
            } else if !Box::pin(pin::clean(backend)).await {
                lost.push(*shard);
            }
        }
        for shard in lost {
            self.participants.remove(&shard);
        }
    }

    /// Gives back the leases of a statement outside a block; each stands at ReadyForQuery 'I'.
    pub fn release_idle(&mut self) {
        if self.block.phase() == Phase::Idle {
            for participant in self.participants.drain() {
                participant.release();
            }
        }
    }

    /// Closes one participant's connection: its state is not known.
    pub fn drop_participant(&mut self, shard: ShardId) {
        if self.participants.remove(&shard).is_some() {
            self.block.tear();
        }
    }

    /// Closes all connections of the block, so that the shards roll back.
    pub fn abandon(&mut self) {
        self.participants.clear();
        self.distributed = None;
        self.consistent = false;
        self.time = None;
        self.block.end();
    }

    /// Runs statements on all participants at once; the answers in [`ShardId`] order.
    pub async fn run_on_all(
        &mut self,
        statements: &[&str],
    ) -> Vec<(ShardId, Result<command::Reply, CommandError>)> {
        let commands = self
            .participants
            .iter_mut()
            .map(|(shard, participant)| async {
                let answer = command::run_apart(&mut participant.lease, statements).await;
                (*shard, answer)
            });
        futures_util::future::join_all(commands).await
    }

    /// ROLLBACK on every shard; what the shards said meanwhile for the client's ears. A connection that does not answer
    /// is closed, which rolls back too.
    pub async fn rollback(&mut self) -> Vec<Frame> {
        let participants = std::mem::take(&mut self.participants);
        let rollbacks = participants
            .into_values()
            .map(|mut participant| async move {
                if !participant.begun {
                    participant.release();
                    return Vec::new();
                }
                match command::run(&mut participant.lease, "ROLLBACK").await {
                    Ok(reply) if reply.status == TransactionStatus::Idle => {
                        participant.lease.applied = participant.settings_before.clone();
                        participant.unsettled |= participant.reasons.is_state();
                        participant.release();
                        reply.asides
                    }
                    Ok(_) | Err(_) => Vec::new(),
                }
            });
        let asides = futures_util::future::join_all(rollbacks).await;
        self.distributed = None;
        self.consistent = false;
        self.time = None;
        self.block.end();
        asides.into_iter().flatten().collect()
    }
}

/// Marks the parts that are not yet, but for the one that has answers to give.
async fn mark_all(
    participants: &mut Participants,
    mark: Option<Mark>,
    talking: Option<ShardId>,
) -> Result<(), CommandError> {
    let Some(mark) = mark else {
        return Ok(());
    };
    let sql = mark.statement();
    let unmarked = participants.iter_mut().filter(|(shard, participant)| {
        participant.begun && !participant.marked && talking != Some(**shard)
    });
    let marking = unmarked.map(|(_, participant)| async {
        command::run_apart(&mut participant.lease, &[&sql]).await?;
        participant.marked = true;
        Ok(())
    });
    let marked = futures_util::future::join_all(marking).await;
    marked.into_iter().collect()
}

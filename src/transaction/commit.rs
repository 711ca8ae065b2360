//! How a block that touched shards commits: a plain COMMIT where at most one shard wrote, else two phases without a log.
//!
//! One writing participant is the *decider*. It adds a row to `pgring.decision` while the others PREPARE under a name
//! that says which row; then it commits, and the row, durable with all else that it wrote, is the decision; then the others
//! finish. [`super::two_phase`] says what follows what; what a crash leaves prepared is settled by [`super::recovery`].
//! (Gray & Lamport, "Consensus on Transaction Commit", §3, with the coordinator's record replaced by the decider's.)

use super::command::{self, CommandError, Reply};
use super::gid::GlobalTransactionId;
use super::participants::Participants;
use super::two_phase::{self, Answer, Decision, Outcome, Preparable, Step, Verdict, Vote};
use super::{Participant, Tenant, Transaction, visibility};
use crate::backend::pool::Need;
use crate::topology::ShardId;
use crate::topology::snapshot::Topology;
use crate::wire::backend_message::TransactionStatus;
use crate::wire::error_response::{self, ErrorReply, Fault};
use crate::wire::frame::Frame;
use crate::wire::sqlstate::SqlState;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// How far apart a decider whose answer was lost is asked what became of its transaction.
const VERDICT_PAUSE: Duration = Duration::from_millis(200);

/// How long a decided transaction is waited for on the other shards before it is left to recovery.
const FINISH_WAIT: Duration = Duration::from_secs(10);

/// How a block ended.
#[derive(Debug)]
pub struct Ended {
    /// `COMMIT`, or `ROLLBACK` where a shard found its part failed already.
    pub committed: bool,
    /// NOTICEs of deferred triggers and the like.
    pub asides: Vec<Frame>,
}

/// Why a block did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A shard refused; all of the block is rolled back.
    #[error(transparent)]
    RolledBack(CommandError),
    /// There is no randomness to name it by; all of the block is rolled back.
    #[error("the transaction was rolled back: there is no name for it: {0}")]
    NoName(#[source] getrandom::Error),
    /// The connection broke after COMMIT was sent and nobody can say what became of it.
    #[error("the outcome of the transaction is not known")]
    Unknown {
        /// The shard that was to decide.
        shard: Arc<str>,
    },
}

impl ErrorReply for CommitError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::RolledBack(error) => error.sqlstate(),
            Self::NoName(_) => SqlState::SYSTEM_ERROR,
            Self::Unknown { .. } => SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        }
    }
    fn fault(&self) -> Fault {
        Fault::Backend
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::RolledBack(error) => error.detail(),
            Self::NoName(_) => None,
            Self::Unknown { shard } => Some(format!(
                "shard {shard} was lost while it committed; it is all or nothing on the shards"
            )),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::RolledBack(error) => error.hint(),
            Self::NoName(_) => None,
            Self::Unknown { .. } => {
                Some("Read back what the transaction wrote before trying it again.".to_owned())
            }
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

impl Transaction {
    /// COMMIT on every shard of the block: all of it or none.
    ///
    /// # Errors
    /// [`CommitError`]. The block is over in every case.
    ///
    /// # Cancel safety
    /// A call dropped before the decision rolls back (its connections close); one dropped after it is finished by
    /// recovery.
    pub async fn commit(
        &mut self,
        tenant: Tenant<'_>,
        topology: &Topology,
    ) -> Result<Ended, CommitError> {
        let participants = std::mem::take(&mut self.participants);
        self.block.end();
        let ended = commit_all(participants, tenant, topology).await;
        self.distributed = None;
        self.consistent = false;
        self.time = None;
        ended
    }
}

async fn commit_all(
    mut participants: Participants,
    tenant: Tenant<'_>,
    topology: &Topology,
) -> Result<Ended, CommitError> {
    if participants.len() <= 1 {
        return match participants.pop_first() {
            Some((_, participant)) => commit_one(participant, tenant).await,
            None => Ok(Ended {
                committed: true,
                asides: Vec::new(),
            }),
        };
    }
    let asked = join_all(participants.values_mut().map(written)).await;
    let mut writers = Vec::new();
    let shards: Vec<ShardId> = participants.keys().copied().collect();
    for (shard, answer) in shards.into_iter().zip(asked) {
        match answer {
            Ok(Some(written)) => writers.push((shard, written)),
            Ok(None) => {}
            Err(error) => {
                roll_back(participants).await;
                return Err(CommitError::RolledBack(error));
            }
        }
    }
    if writers.len() >= 2 {
        let fitness = writers.iter().map(|(shard, _)| {
            let participant = participants.get(shard);
            participant.map_or(Preparable::No, preparable)
        });
        let decider = two_phase::decider(fitness);
        let nonce = match getrandom::u64() {
            Ok(nonce) => nonce,
            Err(error) => {
                roll_back(participants).await;
                return Err(CommitError::NoName(error));
            }
        };
        let (shard, xid) = writers[decider];
        let name = GlobalTransactionId {
            cluster: topology.cluster.clone(),
            decider: topology.shard_name(shard).clone(),
            nonce,
            xid,
            number: 0,
        };
        let writers: Vec<ShardId> = writers.into_iter().map(|(shard, _)| shard).collect();
        let commit = TwoPhases::new(participants, &writers, shard, name, tenant);
        return Box::pin(commit.run()).await;
    }
    // The one that wrote goes first: while it may still fail, nothing else has ended.
    let first = writers.first().map_or_else(
        || participants.keys().next().copied(),
        |(shard, _)| Some(*shard),
    );
    let mut ended = Ended {
        committed: true,
        asides: Vec::new(),
    };
    if let Some(participant) = first.and_then(|shard| participants.remove(&shard)) {
        match commit_one(participant, tenant).await {
            Ok(first) => ended = first,
            Err(error) => {
                roll_back(participants).await;
                return Err(error);
            }
        }
    }
    for answer in join_all(
        participants
            .into_values()
            .map(|participant| commit_one(participant, tenant)),
    )
    .await
    {
        // These only read: their end decides nothing.
        ended
            .asides
            .extend(answer.map(|ended| ended.asides).unwrap_or_default());
    }
    Ok(ended)
}

fn preparable(participant: &Participant) -> Preparable {
    if participant.unpreparable {
        Preparable::No
    } else if participant.reasons.is_state() {
        Preparable::Perhaps
    } else {
        Preparable::Yes
    }
}

/// Asks a participant whether it wrote, and under which transaction id.
async fn written(participant: &mut Participant) -> Result<Option<u64>, CommandError> {
    // One that must decide needs a transaction id for it.
    let id = if participant.unpreparable {
        "pg_current_xact_id()"
    } else {
        "pg_current_xact_id_if_assigned()"
    };
    let question = format!("SELECT pg_catalog.{id}::text");
    let reply = command::run(&mut participant.lease, &question).await?;
    let xid = reply.rows.into_iter().flatten().next().flatten();
    Ok(xid.and_then(|xid| xid.parse().ok()))
}

/// COMMIT of one participant; gives its lease back.
async fn commit_one(
    mut participant: Participant,
    tenant: Tenant<'_>,
) -> Result<Ended, CommitError> {
    if !participant.begun {
        participant.release();
        return Ok(Ended {
            committed: true,
            asides: Vec::new(),
        });
    }
    let shard = participant.lease.shard_name.clone();
    match command::run(&mut participant.lease, "COMMIT").await {
        Ok(reply) => {
            let committed = reply.tag == "COMMIT";
            finish(participant, &reply, committed, tenant);
            Ok(Ended {
                committed,
                asides: reply.asides,
            })
        }
        Err(CommandError::Lost { .. }) => Err(CommitError::Unknown { shard }),
        Err(error) => {
            give_back(participant);
            Err(CommitError::RolledBack(error))
        }
    }
}

/// Gives back the lease of a participant whose part was rolled back, and its settings with it.
fn give_back(mut participant: Participant) {
    participant.lease.applied = participant.settings_before.clone();
    participant.release();
}

/// Gives back the lease of a participant whose block ended.
fn finish(mut participant: Participant, reply: &Reply, committed: bool, tenant: Tenant<'_>) {
    if reply.status == TransactionStatus::Idle {
        let settings = if committed {
            tenant.committed
        } else {
            &participant.settings_before
        };
        participant.lease.applied = settings.clone();
        participant.release();
    }
}

async fn roll_back(participants: Participants) {
    let mut transaction = Transaction {
        participants,
        ..Transaction::default()
    };
    transaction.rollback().await;
}

/// A commit in two phases, between its steps ([`two_phase::Step`]).
struct TwoPhases<'a> {
    tenant: Tenant<'a>,
    /// What the names of the prepared parts are made of, which are numbered from one.
    name: GlobalTransactionId,
    /// Where the decision falls.
    shard: ShardId,
    /// None once its connection is gone.
    decider: Option<Participant>,
    /// Those that wrote beside it, until they are asked to prepare.
    others: Vec<Participant>,
    /// Those that are prepared, and under which name.
    prepared: Vec<(Participant, String)>,
    readers: Participants,
    asides: Vec<Frame>,
    /// Why it is rolled back; None where a shard found its part failed already.
    failure: Option<CommitError>,
}

impl<'a> TwoPhases<'a> {
    /// Parts the writers, of which the one on `shard` decides, from the readers.
    fn new(
        mut participants: Participants,
        writers: &[ShardId],
        shard: ShardId,
        name: GlobalTransactionId,
        tenant: Tenant<'a>,
    ) -> Self {
        Self {
            tenant,
            name,
            shard,
            decider: participants.remove(&shard),
            others: writers
                .iter()
                .filter_map(|shard| participants.remove(shard))
                .collect(),
            prepared: Vec::new(),
            readers: participants,
            asides: Vec::new(),
            failure: None,
        }
    }

    async fn run(mut self) -> Result<Ended, CommitError> {
        let mut step = Step::Prepare;
        loop {
            step = match step {
                Step::Prepare => two_phase::voted(&self.prepare().await),
                Step::Decide => two_phase::decided(self.decide().await),
                Step::Ask { time } => two_phase::told(self.ask().await, time),
                Step::Finish(outcome) => return self.finish(outcome).await,
            }
        }
    }

    async fn prepare(&mut self) -> Vec<Vote> {
        let names = self.others.iter();
        let names = names.map(|participant| &*participant.lease.shard_name);
        let decide = two_phase::decide(&self.name, names);
        let Some(decider) = &mut self.decider else {
            return vec![Vote::Lost];
        };
        let getting_ready = get_ready(decider, &decide);
        let mut others = Vec::new();
        for (number, participant) in (1..).zip(self.others.drain(..)) {
            let name = GlobalTransactionId {
                number,
                ..self.name.clone()
            };
            others.push((participant, name.to_string()));
        }
        let prepares = others.iter_mut().map(|(participant, gid)| {
            let sql = format!("PREPARE TRANSACTION '{gid}'");
            async move { command::run(&mut participant.lease, &sql).await }
        });
        let (ready, answers) = tokio::join!(getting_ready, join_all(prepares));
        let mut votes = vec![match ready {
            Ok(()) => Vote::Ready,
            Err(error) => self.refused(error),
        }];
        for (answer, (participant, gid)) in answers.into_iter().zip(others) {
            votes.push(match answer {
                Ok(reply) if reply.tag == "PREPARE TRANSACTION" => {
                    self.asides.extend(reply.asides);
                    self.prepared.push((participant, gid));
                    Vote::Ready
                }
                // A part that had failed already answers ROLLBACK.
                Ok(_) => {
                    give_back(participant);
                    Vote::RolledBack
                }
                Err(error) => {
                    if let CommandError::Refused(_) = error {
                        give_back(participant);
                    }
                    self.refused(error)
                }
            });
        }
        votes
    }

    /// Keeps the first error for the client.
    fn refused(&mut self, error: CommandError) -> Vote {
        let vote = match error {
            CommandError::Refused(_) => Vote::RolledBack,
            CommandError::Lost { .. } => Vote::Lost,
        };
        self.failure.get_or_insert(CommitError::RolledBack(error));
        vote
    }

    async fn decide(&mut self) -> Decision {
        let Some(decider) = &mut self.decider else {
            return Decision::Lost;
        };
        match command::run(&mut decider.lease, "COMMIT").await {
            Ok(reply) if reply.tag == "COMMIT" => {
                decider.lease.applied = self.tenant.committed.clone();
                self.asides.extend(reply.asides);
                Decision::Committed
            }
            Ok(_) => Decision::RolledBack,
            Err(error) => match self.refused(error) {
                Vote::Lost => {
                    self.decider = None;
                    Decision::Lost
                }
                Vote::Ready | Vote::RolledBack => Decision::RolledBack,
            },
        }
    }

    /// Asks the decider, over a new connection, what became of its transaction. None: it does not answer.
    async fn ask(&mut self) -> Option<Verdict> {
        tokio::time::sleep(VERDICT_PAUSE).await;
        let (pools, custom) = (self.tenant.pools, self.tenant.custom);
        let mut lease = pools
            .acquire(self.shard, custom, Need::Further)
            .await
            .ok()?;
        let status = two_phase::status_question(&self.name);
        let status = match command::run(&mut lease, &status).await {
            Ok(reply) => reply.rows.into_iter().next()?.into_iter().next()?,
            // The id is not given out, or not any more after a crash.
            Err(CommandError::Refused(frame))
                if error_response::is_invalid_parameter_value(frame.body()) =>
            {
                None
            }
            Err(_) => return None,
        };
        let decision = two_phase::decision_question(&self.name);
        let reply = command::run(&mut lease, &decision).await.ok()?;
        lease.release();
        let decided = reply.rows.into_iter().flatten().next().flatten()?;
        Some(two_phase::judge(&Answer {
            status,
            decided: decided == "true",
        }))
    }

    async fn finish(self, outcome: Outcome) -> Result<Ended, CommitError> {
        let Some(verb) = outcome.verb() else {
            // Recovery settles what is prepared as soon as the decider answers again.
            return Err(CommitError::Unknown {
                shard: self.name.decider,
            });
        };
        let others = finish_prepared(self.prepared, verb, self.tenant);
        if outcome == Outcome::Committed {
            let readers = self.readers.into_values();
            let readers = readers.map(|participant| commit_one(participant, self.tenant));
            tokio::join!(others, join_all(readers));
            if let Some(decider) = self.decider {
                visibility::leave_and_release(decider).await;
            }
            return Ok(Ended {
                committed: true,
                asides: self.asides,
            });
        }
        let mut rest = self.readers;
        for participant in self.others {
            rest.insert(participant.lease.shard, participant);
        }
        let rest = async {
            if let Some(mut decider) = self.decider
                && visibility::leave(&mut decider.lease).await.is_ok()
            {
                rest.insert(self.shard, decider);
            }
            roll_back(rest).await;
        };
        tokio::join!(others, rest);
        match self.failure {
            Some(error) => Err(error),
            None => Ok(Ended {
                committed: false,
                asides: self.asides,
            }),
        }
    }
}

/// The decider waits until its decision may be seen, and decides but for its COMMIT.
async fn get_ready(decider: &mut Participant, decide: &str) -> Result<(), CommandError> {
    let sql = format!("SELECT {}, {decide}", visibility::enter());
    command::run(&mut decider.lease, &sql).await.map(drop)
}

/// COMMIT PREPARED or ROLLBACK PREPARED on each; what cannot be reached is left to recovery.
async fn finish_prepared(prepared: Vec<(Participant, String)>, verb: &str, tenant: Tenant<'_>) {
    join_all(
        prepared
            .into_iter()
            .map(|(mut participant, gid)| async move {
                let sql = format!("{verb} '{gid}'");
                let run = command::run(&mut participant.lease, &sql);
                match tokio::time::timeout(FINISH_WAIT, run).await {
                    Ok(Ok(reply)) => finish(participant, &reply, true, tenant),
                    // Recovery, of any router, may have been faster.
                    Ok(Err(CommandError::Refused(frame))) => {
                        tracing::info!(gid, error = ?frame, "not finished here");
                    }
                    Ok(Err(error @ CommandError::Lost { .. })) => {
                        tracing::warn!(gid, %error, "a decided transaction is left to recovery");
                    }
                    Err(_) => {
                        tracing::warn!(
                            gid,
                            "a shard is slow: a decided transaction is left to recovery"
                        );
                    }
                }
            }),
    )
    .await;
}

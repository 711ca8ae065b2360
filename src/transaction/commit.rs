//! How a block that touched shards commits: a plain COMMIT where at most one shard wrote, else two phases without a log.
//!
//! One writing participant is the *decider*. The others PREPARE under a name that carries the decider's transaction id;
//! then the decider commits, and that commit, durable in its own commit log, is the decision; then the others finish.
//! Before the decision every failure rolls all back; after it nothing does. What a crash leaves prepared is settled by
//! [`super::recovery`]. (Gray & Lamport, "Consensus on Transaction Commit", §3, with the coordinator's record replaced
//! by the decider's.)

use super::command::{self, CommandError, Reply};
use super::gid::GlobalTransactionId;
use super::participants::Participants;
use super::{Participant, Tenant, Transaction, visibility};
use crate::backend::control::ControlError;
use crate::topology::ShardId;
use crate::topology::snapshot::Topology;
use crate::wire::backend_message::TransactionStatus;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::frame::Frame;
use crate::wire::sqlstate::SqlState;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// Asks a participant whether it wrote, under which transaction id, and on which timeline.
const WHO_WROTE: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::text, \
     pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";

/// The same of one that must decide: only what has a transaction id can.
const DECIDES: &str = "SELECT pg_catalog.pg_current_xact_id()::text, \
     pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";

/// How often, and how far apart, a decider whose answer was lost is asked what became of its transaction.
const VERDICT_ATTEMPTS: u32 = 10;
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
    /// The decider's transaction id could not be made durable; all of the block is rolled back.
    #[error("the transaction was rolled back: {0}")]
    NoDecision(#[source] ControlError),
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
            Self::NoDecision(_) => SqlState::CONNECTION_FAILURE,
            Self::Unknown { .. } => SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        }
    }
    fn fault(&self) -> Fault {
        Fault::Backend
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::RolledBack(error) => error.detail(),
            Self::NoDecision(_) => None,
            Self::Unknown { shard } => Some(format!(
                "shard {shard} was lost while it committed; it is all or nothing on the shards"
            )),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::RolledBack(error) => error.hint(),
            Self::NoDecision(_) => Some("Try the transaction again.".to_owned()),
            Self::Unknown { .. } => {
                Some("Read back what the transaction wrote before trying it again.".to_owned())
            }
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// What a participant said to [`WHO_WROTE`].
struct Written {
    xid: u64,
    timeline: String,
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
        let decider = decider(&participants, &writers);
        writers.swap(0, decider);
        let commit = commit_in_two_phases(participants, writers, tenant, topology);
        return Box::pin(commit).await;
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

/// Which of the writers decides. PostgreSQL does not prepare what listens, notifies or uses temporary tables, nor what
/// locks in a transaction what its session has locked.
fn decider(participants: &Participants, writers: &[(ShardId, Written)]) -> usize {
    let first = |decides: fn(&Participant) -> bool| {
        let participant = |shard| participants.get(shard);
        writers
            .iter()
            .position(|(shard, _)| participant(shard).is_some_and(decides))
    };
    first(|participant| participant.unpreparable)
        .or_else(|| first(|participant| participant.reasons.is_state()))
        .unwrap_or(0)
}

async fn written(participant: &mut Participant) -> Result<Option<Written>, CommandError> {
    let question = if participant.unpreparable {
        DECIDES
    } else {
        WHO_WROTE
    };
    let reply = command::run(&mut participant.lease, question).await?;
    let mut row = reply
        .rows
        .into_iter()
        .next()
        .unwrap_or_default()
        .into_iter();
    let (xid, timeline) = (row.next().flatten(), row.next().flatten());
    Ok(xid
        .and_then(|xid| xid.parse().ok())
        .zip(timeline)
        .map(|(xid, timeline)| Written { xid, timeline }))
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

async fn commit_in_two_phases(
    mut participants: Participants,
    writers: Vec<(ShardId, Written)>,
    tenant: Tenant<'_>,
    topology: &Topology,
) -> Result<Ended, CommitError> {
    let mut writers = writers.into_iter();
    let Some((decider_shard, decision)) = writers.next() else {
        return Ok(Ended {
            committed: true,
            asides: Vec::new(),
        });
    };
    let Some(mut decider) = participants.remove(&decider_shard) else {
        return Ok(Ended {
            committed: true,
            asides: Vec::new(),
        });
    };
    let mut prepared = Vec::new();
    for (number, (shard, _)) in (1..).zip(writers) {
        let gid = GlobalTransactionId {
            cluster: topology.cluster.clone(),
            decider: topology.shard_name(decider_shard).clone(),
            timeline: decision.timeline.clone(),
            xid: decision.xid,
            number,
        };
        prepared.extend(
            participants
                .remove(&shard)
                .map(|participant| (participant, gid.to_string())),
        );
    }
    let readers = participants;

    // 1. The others prepare, once the name that they prepare under cannot come to mean another transaction.
    if let Err(error) = tenant.control.make_ids_durable(decider_shard).await {
        take_back(
            Vec::new(),
            Some(decider),
            prepared
                .into_iter()
                .map(|(one, _)| (one.lease.shard, one))
                .chain(readers)
                .collect(),
        )
        .await;
        return Err(CommitError::NoDecision(error));
    }
    let prepares = prepared.iter_mut().map(|(participant, gid)| {
        let sql = format!("PREPARE TRANSACTION '{gid}'");
        async move { command::run(&mut participant.lease, &sql).await }
    });
    let mut failure = None;
    let mut done = Vec::new();
    let mut asides = Vec::new();
    let (answers, entered) =
        tokio::join!(join_all(prepares), visibility::enter(&mut decider.lease));
    if let Err(error) = entered {
        failure = Some(Some(error));
    }
    for (answer, (participant, gid)) in answers.into_iter().zip(prepared) {
        match answer {
            // A part that had failed already answers ROLLBACK.
            Ok(reply) if reply.tag == "PREPARE TRANSACTION" => {
                asides.extend(reply.asides);
                done.push((participant, gid));
            }
            Ok(_) => {
                give_back(participant);
                failure = failure.or(Some(None));
            }
            Err(error @ CommandError::Refused(_)) => {
                give_back(participant);
                failure = failure.flatten().map(Some).or(Some(Some(error)));
            }
            Err(error) => failure = failure.flatten().map(Some).or(Some(Some(error))),
        }
    }
    if let Some(error) = failure {
        take_back(done, left(decider).await, readers).await;
        return match error {
            Some(error) => Err(CommitError::RolledBack(error)),
            None => Ok(Ended {
                committed: false,
                asides,
            }),
        };
    }

    // 2. The decider commits: the decision.
    let decider_name = decider.lease.shard_name.clone();
    let mut visible = None;
    match command::run(&mut decider.lease, "COMMIT").await {
        Ok(reply) if reply.tag == "COMMIT" => {
            decider.lease.applied = tenant.committed.clone();
            visible = Some(decider).filter(|_| reply.status == TransactionStatus::Idle);
            asides.extend(reply.asides);
        }
        Ok(_) => {
            take_back(done, left(decider).await, readers).await;
            return Ok(Ended {
                committed: false,
                asides,
            });
        }
        Err(error @ CommandError::Refused(_)) => {
            take_back(done, left(decider).await, readers).await;
            return Err(CommitError::RolledBack(error));
        }
        Err(error @ CommandError::Lost { .. }) => {
            drop(decider);
            match verdict(decider_shard, &decision, tenant).await {
                Some(true) => {}
                Some(false) => {
                    finish_prepared(done, "ROLLBACK PREPARED", tenant).await;
                    roll_back(readers).await;
                    return Err(CommitError::RolledBack(error));
                }
                // Recovery settles what is prepared as soon as the decider answers again.
                None => {
                    return Err(CommitError::Unknown {
                        shard: decider_name,
                    });
                }
            }
        }
    }

    // 3. The others follow; whatever happens now, the transaction is committed.
    let (_, _) = tokio::join!(
        finish_prepared(done, "COMMIT PREPARED", tenant),
        join_all(
            readers
                .into_values()
                .map(|participant| commit_one(participant, tenant))
        )
    );
    if let Some(decider) = visible {
        visibility::leave_and_release(decider).await;
    }
    Ok(Ended {
        committed: true,
        asides,
    })
}

/// A decider that does not decide any more, if it is of use still.
async fn left(mut decider: Participant) -> Option<Participant> {
    let left = visibility::leave(&mut decider.lease).await;
    left.is_ok().then_some(decider)
}

/// Before the decision: everything goes back.
async fn take_back(
    prepared: Vec<(Participant, String)>,
    decider: Option<Participant>,
    readers: Participants,
) {
    let undo = prepared
        .into_iter()
        .map(|(mut participant, gid)| async move {
            // Settings made in the block survive PREPARE on this connection: others do not get it.
            let sql = format!("ROLLBACK PREPARED '{gid}'");
            let undone = command::run(&mut participant.lease, &sql).await;
            if undone.is_ok() && !participant.reasons.is_empty() {
                participant.release();
            }
        });
    let mut rest = readers;
    if let Some(decider) = decider {
        rest.insert(decider.lease.shard, decider);
    }
    tokio::join!(join_all(undo), roll_back(rest));
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

/// Asks a decider, over a new connection, what became of its transaction. None: it cannot be said.
async fn verdict(shard: ShardId, decision: &Written, tenant: Tenant<'_>) -> Option<bool> {
    let sql = format!(
        "SELECT pg_catalog.pg_xact_status('{}'::pg_catalog.xid8), \
         pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)",
        decision.xid
    );
    for _ in 0..VERDICT_ATTEMPTS {
        tokio::time::sleep(VERDICT_PAUSE).await;
        let Ok(mut lease) = tenant.pools.acquire(shard, tenant.custom).await else {
            continue;
        };
        let Ok(reply) = command::run(&mut lease, &sql).await else {
            continue;
        };
        lease.release();
        let mut row = reply
            .rows
            .into_iter()
            .next()
            .unwrap_or_default()
            .into_iter();
        let (status, timeline) = (row.next().flatten(), row.next().flatten());
        if timeline.as_deref() != Some(&decision.timeline) {
            return None;
        }
        match status.as_deref() {
            Some("committed") => return Some(true),
            Some("aborted") => return Some(false),
            _ => {}
        }
    }
    None
}

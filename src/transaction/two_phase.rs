//! What a commit over several shards decides: who decides, what follows what, and what a decider's commit log proves.
//! Pure: [`super::commit`] and [`super::recovery`] do what is said here, and so does `tests/simulation.rs`, with crashes
//! after every step.
//!
//! Read [`Step`] first. Before the decision every failure rolls all back; after it nothing does; and where nobody knows
//! whether it was taken, nothing is guessed.

use super::gid::GlobalTransactionId;

/// How often a decider whose answer was lost is asked what became of its transaction.
pub const ASKED_MAX: u32 = 10;

/// What a shard is asked for its timeline: 8 hexadecimal digits.
pub const TIMELINE: &str =
    "pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";

/// Whether PostgreSQL prepares what a writer did. It does not prepare what listens, notifies or uses temporary tables,
/// nor what locks in a transaction what its session has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preparable {
    /// It certainly does not.
    No,
    /// Its session has state that may be in the way.
    Perhaps,
    /// Nothing is known to be in the way.
    Yes,
}

/// Which of the writers decides: the first of those that are least fit to be prepared.
pub fn decider(writers: impl IntoIterator<Item = Preparable>) -> usize {
    let least = writers.into_iter().enumerate().min_by_key(|(_, fit)| *fit);
    least.map_or(0, |(place, _)| place)
}

/// What a commit does next. The function that is named with each says what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Makes sure that no crash of the decider gives its transaction's id to another one: [`named`].
    MakeIdsDurable,
    /// The decider gets ready to decide. Its connection still stands then, so that what was made durable before is this
    /// transaction's id, and not the next one's of a decider that crashed in between: [`ready`].
    GetReady,
    /// PREPARE TRANSACTION on the others: [`voted`].
    Prepare,
    /// COMMIT on the decider: [`decided`].
    Decide,
    /// Asks the decider, whose answer was lost, for the `time`th time what became of its transaction: [`told`].
    Ask {
        /// From one.
        time: u32,
    },
    /// Tells the prepared parts and the client.
    Finish(Outcome),
}

/// How a commit over several shards ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is, or will be: COMMIT PREPARED.
    Committed,
    /// None of it is, or will be: ROLLBACK PREPARED.
    RolledBack,
    /// Nobody can say now: what is prepared stays for recovery.
    Unknown,
}

/// What came of making ready for the decision on one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// It is prepared; the decider: it may decide.
    Ready,
    /// Its part is rolled back.
    RolledBack,
    /// Its answer was lost: it may be prepared or not.
    Lost,
}

/// What came of COMMIT on the decider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It said so.
    Committed,
    /// It refused, or had failed before.
    RolledBack,
    /// Its answer was lost.
    Lost,
}

/// After [`Step::MakeIdsDurable`].
pub fn named(durable: bool) -> Step {
    if durable {
        Step::GetReady
    } else {
        Step::Finish(Outcome::RolledBack)
    }
}

/// After [`Step::GetReady`].
pub fn ready(vote: Vote) -> Step {
    match vote {
        Vote::Ready => Step::Prepare,
        Vote::RolledBack | Vote::Lost => Step::Finish(Outcome::RolledBack),
    }
}

/// After [`Step::Prepare`]: one that is not ready is enough.
pub fn voted(votes: &[Vote]) -> Step {
    if votes.iter().all(|vote| *vote == Vote::Ready) {
        Step::Decide
    } else {
        Step::Finish(Outcome::RolledBack)
    }
}

/// After [`Step::Decide`].
pub fn decided(decision: Decision) -> Step {
    match decision {
        Decision::Committed => Step::Finish(Outcome::Committed),
        Decision::RolledBack => Step::Finish(Outcome::RolledBack),
        Decision::Lost => Step::Ask { time: 1 },
    }
}

/// After [`Step::Ask`]; without a verdict where the decider did not answer.
pub fn told(verdict: Option<Verdict>, time: u32) -> Step {
    match verdict {
        Some(Verdict::Committed) => Step::Finish(Outcome::Committed),
        Some(Verdict::Aborted) => Step::Finish(Outcome::RolledBack),
        Some(Verdict::InProgress) | None if time < ASKED_MAX => Step::Ask { time: time + 1 },
        Some(Verdict::InProgress | Verdict::Unknown(_)) | None => Step::Finish(Outcome::Unknown),
    }
}

/// What a decider answered: the status of the transaction there (`pg_xact_status`), and then, so that a promotion in
/// between shows, its timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, None of an id that is too old; or why the shard does not say.
    pub status: Result<Option<String>, String>,
    /// As WAL files are named.
    pub timeline: String,
}

/// What a decider's commit log says of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is committed.
    Committed,
    /// It is rolled back, and always will be.
    Aborted,
    /// It may still become either.
    InProgress,
    /// The log proves nothing, for this reason.
    Unknown(String),
}

/// The status of a transaction id proves something on the timeline that gave it out only: a failover may lose the
/// transaction and give its id to another.
pub fn judge(gid: &GlobalTransactionId, answer: &Answer) -> Verdict {
    if answer.timeline != gid.timeline {
        return Verdict::Unknown(format!(
            "shard {} is on timeline {} now",
            gid.decider, answer.timeline
        ));
    }
    match &answer.status {
        Ok(Some(status)) => match status.as_str() {
            "committed" => Verdict::Committed,
            "aborted" => Verdict::Aborted,
            "in progress" => Verdict::InProgress,
            other => Verdict::Unknown(format!("shard {} says \"{other}\"", gid.decider)),
        },
        Ok(None) => Verdict::Unknown(format!(
            "transaction {} is too old for shard {} to know",
            gid.xid, gid.decider
        )),
        Err(reason) => Verdict::Unknown(format!("shard {}: {reason}", gid.decider)),
    }
}

impl Verdict {
    /// How a part that was left prepared ends.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Committed => Outcome::Committed,
            Self::Aborted => Outcome::RolledBack,
            Self::InProgress | Self::Unknown(_) => Outcome::Unknown,
        }
    }

    /// Whether a prepared part hides from a snapshot, opened while nobody may decide, what other shards show.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub fn is_half_committed(self) -> Result<bool, String> {
        match self {
            Self::Committed => Ok(true),
            // It cannot commit while nobody may.
            Self::Aborted | Self::InProgress => Ok(false),
            Self::Unknown(reason) => Err(reason),
        }
    }
}

impl Outcome {
    /// What ends a prepared part so; None: nothing may.
    pub fn verb(self) -> Option<&'static str> {
        match self {
            Self::Committed => Some("COMMIT PREPARED"),
            Self::RolledBack => Some("ROLLBACK PREPARED"),
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid() -> GlobalTransactionId {
        "pgring:shop:s0:00000001:740:1".parse().unwrap()
    }

    fn answer(timeline: &str, status: Result<Option<&str>, &str>) -> Answer {
        let status = status
            .map(|status| status.map(str::to_owned))
            .map_err(str::to_owned);
        Answer {
            timeline: timeline.to_owned(),
            status,
        }
    }

    #[test]
    fn who_cannot_be_prepared_decides() {
        use Preparable::{No, Perhaps, Yes};
        for (writers, expected) in [
            (vec![Yes, Yes], 0),
            (vec![Yes, Perhaps, Perhaps], 1),
            (vec![Perhaps, Yes, No], 2),
            (vec![Yes, No, No], 1),
        ] {
            assert_eq!(decider(writers.clone()), expected, "{writers:?}");
        }
    }

    #[test]
    fn only_a_decision_that_all_are_ready_for_is_taken() {
        use Vote::{Lost, Ready, RolledBack};
        assert_eq!(voted(&[Ready, Ready, Ready]), Step::Decide);
        for votes in [[Ready, Ready, Lost], [RolledBack, Ready, Ready]] {
            assert_eq!(voted(&votes), Step::Finish(Outcome::RolledBack));
        }
        assert_eq!(ready(Ready), Step::Prepare);
        assert_eq!(ready(RolledBack), Step::Finish(Outcome::RolledBack));
        assert_eq!(ready(Lost), Step::Finish(Outcome::RolledBack));
        assert_eq!(named(true), Step::GetReady);
        assert_eq!(named(false), Step::Finish(Outcome::RolledBack));
    }

    #[test]
    fn a_lost_decision_is_asked_for_until_it_is_known() {
        assert_eq!(decided(Decision::Lost), Step::Ask { time: 1 });
        assert_eq!(told(None, 1), Step::Ask { time: 2 });
        assert_eq!(told(Some(Verdict::InProgress), 2), Step::Ask { time: 3 });
        let outcomes = [
            (Some(Verdict::Committed), Outcome::Committed),
            (Some(Verdict::Aborted), Outcome::RolledBack),
            (Some(Verdict::InProgress), Outcome::Unknown),
            (Some(Verdict::Unknown(String::new())), Outcome::Unknown),
            (None, Outcome::Unknown),
        ];
        for (verdict, outcome) in outcomes {
            assert_eq!(told(verdict, ASKED_MAX), Step::Finish(outcome));
        }
    }

    #[test]
    fn the_deciders_commit_log_decides() {
        for (status, verdict) in [
            ("committed", Verdict::Committed),
            ("aborted", Verdict::Aborted),
            ("in progress", Verdict::InProgress),
        ] {
            assert_eq!(
                judge(&gid(), &answer("00000001", Ok(Some(status)))),
                verdict
            );
        }
    }

    #[test]
    fn nothing_is_guessed_after_a_failover() {
        let verdict = judge(&gid(), &answer("00000002", Ok(Some("committed"))));
        assert_eq!(
            verdict,
            Verdict::Unknown("shard s0 is on timeline 00000002 now".to_owned())
        );
        assert_eq!(verdict.outcome().verb(), None);
        assert!(verdict.is_half_committed().is_err());
    }

    #[test]
    fn nothing_is_guessed_of_an_id_that_is_too_old_or_not_given_out() {
        for status in [
            Ok(None),
            Err("transaction ID 740 is in the future"),
            Ok(Some("odd")),
        ] {
            assert!(matches!(
                judge(&gid(), &answer("00000001", status)),
                Verdict::Unknown(_)
            ));
        }
    }
}

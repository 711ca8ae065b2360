//! What a commit over several shards decides: who decides, what follows what, and what the decider's row proves.
//! Pure: [`super::commit`] and [`super::recovery`] do what is said here, and so does `tests/simulation.rs`, with crashes
//! after every step.
//!
//! Read [`Step`] first. Before the decision every failure rolls all back; after it nothing does; and where nobody knows
//! whether it was taken, nothing is guessed.

use super::gid::GlobalTransactionId;

/// How often a decider whose answer was lost is asked what became of its transaction.
pub const ASKED_MAX: u32 = 10;

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
    /// The decider's row on the decider ([`decide`]), and PREPARE TRANSACTION on the others, all at once: what one of them
    /// makes durable means nothing without the decider's commit. [`voted`].
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

/// Makes the decider's COMMIT last once it is answered, as that of the others does anyway, even where the session waits
/// for nothing.
const LASTING: &str = "pg_catalog.set_config('synchronous_commit', \
     CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' THEN 'local' \
     ELSE pg_catalog.current_setting('synchronous_commit') END, true)";

/// What the decider does as the last of its transaction, as two expressions of a query: it adds the row that is there if it
/// commits, and is not if it does not, whatever becomes of the server, and sees to it that its COMMIT lasts. `others` are
/// the shards that prepare.
pub fn decide<'a>(gid: &GlobalTransactionId, others: impl IntoIterator<Item = &'a str>) -> String {
    let others: Vec<&str> = others.into_iter().collect();
    let (nonce, others) = (gid.nonce.cast_signed(), others.join(","));
    format!("pgring.decide({nonce}, '{{{others}}}'), {LASTING}")
}

/// Asks a decider whether the transaction's id is one that still runs there.
pub fn status_question(gid: &GlobalTransactionId) -> String {
    let xid = gid.xid;
    format!("SELECT pg_catalog.pg_xact_status('{xid}'::pg_catalog.xid8)")
}

/// Asks a decider for the transaction's row. After the status, in a snapshot of its own: what has ended by then shows.
pub fn decision_question(gid: &GlobalTransactionId) -> String {
    let (nonce, xid) = (gid.nonce.cast_signed(), gid.xid);
    format!(
        "SELECT EXISTS (SELECT FROM pgring.decision \
         WHERE xid = '{xid}'::pg_catalog.xid8 AND nonce = {nonce})::pg_catalog.text"
    )
}

/// What a decider answered: first the status of the transaction's id ([`status_question`]), then whether its row is there
/// ([`decision_question`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// None of an id that the server does not know: it is too old, or a crash took it back.
    pub status: Option<String>,
    /// The row is there.
    pub decided: bool,
}

/// What a decider says of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is committed.
    Committed,
    /// It is rolled back, and always will be.
    Aborted,
    /// It may still become either.
    InProgress,
    /// It proves nothing, for this reason.
    Unknown(String),
}

/// The row is the proof, and its absence is one as soon as the id does not run: whether the transaction had it, or, after
/// a crash or a failover that lost the transaction, another one, or nobody yet.
pub fn judge(answer: &Answer) -> Verdict {
    if answer.decided {
        return Verdict::Committed;
    }
    match answer.status.as_deref() {
        Some("in progress") => Verdict::InProgress,
        Some("committed" | "aborted") | None => Verdict::Aborted,
        Some(other) => Verdict::Unknown(format!("the decider says \"{other}\"")),
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
    fn the_deciders_row_decides() {
        for (status, decided, verdict) in [
            (Some("committed"), true, Verdict::Committed),
            // A crash gave the id to another transaction.
            (Some("in progress"), true, Verdict::Committed),
            (Some("committed"), false, Verdict::Aborted),
            (Some("aborted"), false, Verdict::Aborted),
            (None, false, Verdict::Aborted),
            (Some("in progress"), false, Verdict::InProgress),
        ] {
            let status = status.map(str::to_owned);
            let answer = Answer { status, decided };
            assert_eq!(judge(&answer), verdict, "{answer:?}");
        }
    }

    #[test]
    fn nothing_is_guessed_of_words_that_are_not_known() {
        let status = Some("odd".to_owned());
        let verdict = judge(&Answer {
            status,
            decided: false,
        });
        assert_eq!(
            verdict,
            Verdict::Unknown("the decider says \"odd\"".to_owned())
        );
        assert_eq!(verdict.outcome().verb(), None);
        assert!(verdict.is_half_committed().is_err());
    }

    #[test]
    fn a_decision_names_the_shards_that_prepare() {
        let gid: GlobalTransactionId = "pgring:shop:s0:ffffffffffffffff:740:0".parse().unwrap();
        let sql = decide(&gid, ["s1", "s-2"]);
        assert!(sql.starts_with("pgring.decide(-1, '{s1,s-2}'), "), "{sql}");
    }
}

//! [`Flip`]: the distributed transaction that changes the owner of slots, which the move's source decides. What of it need not
//! wait for the fence is done before it: connections, the decider's row, the name. Knows nothing of how the sides come level.

use super::guard::{self, Guard};
use super::handover::Handover;
use super::record;
use super::side::{MoveError, Side};
use super::stream::Direction;
use crate::transaction::gid::GlobalTransactionId;
use crate::transaction::two_phase;
use futures_util::future::{join, try_join};

/// A flip that can be given up until [`Flip::decide`].
pub struct Flip<'a> {
    handover: &'a Handover<'a>,
    /// A connection of its own.
    other: Side,
    gid: String,
    /// Records the phase.
    phase: String,
}

impl<'a> Flip<'a> {
    /// Begins transactions on both sides, the decider's with the row by which it decides.
    ///
    /// # Errors
    /// [`MoveError`]: nothing has begun then.
    pub async fn begin(handover: &'a Handover<'a>) -> Result<Self, MoveError> {
        let other = Side::connect(handover.control, handover.other.shard).await?;
        let mut flip = Self {
            handover,
            other,
            gid: String::new(),
            phase: record::phase_sql(handover.id, handover.flipped),
        };
        match flip.open().await {
            Ok(gid) => flip.gid = gid,
            Err(error) => {
                handover.decider.run("ROLLBACK").await?;
                return Err(error);
            }
        }
        Ok(flip)
    }

    /// The name of what will be prepared.
    async fn open(&self) -> Result<String, MoveError> {
        let Handover {
            control, decider, ..
        } = self.handover;
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}",
            self.handover.budget.as_millis().max(1)
        );
        decider.run(&begin).await?;
        // What notifies cannot be prepared.
        let silently = format!("{begin}; SET LOCAL pgring.notify = 'off'");
        self.other.run(&silently).await?;
        let xid: String = decider
            .value("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text")
            .await?;
        let gid = GlobalTransactionId {
            cluster: control.cluster(),
            decider: decider.name.clone(),
            nonce: getrandom::u64().map_err(|error| MoveError::State(error.to_string()))?,
            xid: xid
                .parse()
                .map_err(|_| MoveError::State(format!("{xid} is no transaction id")))?,
            number: 1,
        };
        let decide = two_phase::decide(&gid, [&*self.other.name]);
        decider.run(&format!("SELECT {decide}")).await?;
        Ok(gid.to_string())
    }

    /// What both sides change. The slots must be fenced, as of this epoch; the sides need not be level yet.
    ///
    /// # Errors
    /// [`MoveError`]: then [`Self::abandon`] is due.
    pub async fn change(&self, epoch: i64) -> Result<(), MoveError> {
        let Handover {
            id, slots, tables, ..
        } = self.handover;
        // Whoever lifted the fence meanwhile has made another epoch.
        let gives = format!(
            "UPDATE pgring.ownership SET owned = owned - '{slots}', fenced = fenced - '{slots}', \
             closed = closed - '{slots}', foreign_slots = foreign_slots + '{slots}', \
             epoch = CASE epoch WHEN {epoch} THEN epoch + 1 END"
        );
        let takes = format!(
            "UPDATE pgring.ownership SET owned = owned + '{slots}', foreign_slots = foreign_slots - '{slots}', \
             epoch = epoch + 1; {}",
            guard::functions(*id, slots, tables, Guard::Watching)
        );
        let (decides, follows) = match self.handover.source_gives {
            true => (gives, takes),
            false => (takes, gives),
        };
        let follows = format!("{follows}; {}", self.phase);
        try_join(
            self.handover.decider.run(&decides),
            self.other.run(&follows),
        )
        .await?;
        Ok(())
    }

    /// The other side promises to commit. What it logged before is on its disk then, and that must be so of all that has
    /// followed: where it takes the slots, this comes after the sides are level.
    ///
    /// # Errors
    /// [`MoveError`]: then [`Self::abandon`] is due.
    pub async fn prepare(&self) -> Result<(), MoveError> {
        let prepare = format!("PREPARE TRANSACTION '{}'", self.gid);
        self.other.run(&prepare).await
    }

    /// Commits. `level` is where the log of the taking side was when all that followed had arrived there: what is written to
    /// it later is its own.
    ///
    /// # Errors
    /// [`MoveError`]: the record says whether it was decided.
    pub async fn decide(&self, level: &str) -> Result<(), MoveError> {
        let Handover { id, decider, .. } = self.handover;
        let mut sql = self.phase.clone();
        if self.handover.stream == Direction::Forward {
            let returns = format!("returns_from = '{level}'");
            sql = format!("{sql}; {}", record::note_sql(*id, &returns));
        }
        decider.run(&format!("{sql}; COMMIT")).await
    }

    /// After the decision: the other side commits, and says so. Whether it has: recovery may have been faster.
    pub async fn finish(&self) -> bool {
        let commit = format!("COMMIT PREPARED '{}'", self.gid);
        // One behind the other on its way.
        let (committed, _) = join(self.other.run(&commit), self.other.run(TELL)).await;
        committed.is_ok()
    }

    /// Undoes what is not decided. What cannot be undone from here, recovery rolls back.
    pub async fn abandon(&self) {
        // Where the decider cannot say that it has not decided, recovery asks it.
        if self.handover.decider.run("ROLLBACK").await.is_err() {
            return;
        }
        let _ = self.other.run("ROLLBACK").await;
        let _ = self
            .other
            .run(&format!("ROLLBACK PREPARED '{}'", self.gid))
            .await;
    }
}

/// Lets routers read again what the shard owns.
pub const TELL: &str = "SELECT pg_catalog.pg_notify('pgring', 'ownership')";

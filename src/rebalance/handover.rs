//! Handing slots over from the shard that owns them to the one that follows it, in either direction: fence, wait, flip.
//! Until the flip commits everything can be given back; see [`super::phase`].

use super::guard::{self, Guard};
use super::phase::Phase;
use super::record;
use super::routers::{self, Silence};
use super::side::{MoveError, Side};
use super::stream::{self, Direction};
use super::table::MovedTable;
use crate::backend::control::Control;
use crate::topology::slot::SlotSet;
use crate::transaction::gid::GlobalTransactionId;
use crate::transaction::{recovery, two_phase};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a router may run what it planned before a change that needs no fence, before it is cut off.
pub const SILENCE: Duration = Duration::from_secs(60);
/// How long a flip that has begun may take to be settled before the step is tried again.
const SETTLE_WAIT: Duration = Duration::from_secs(30);

/// How long each part of a handover took, for the log.
struct Stages(String, Instant);

impl Stages {
    fn new(now: Instant) -> Self {
        Self(String::new(), now)
    }

    fn end(&mut self, name: &str) {
        let took = self.1.elapsed().as_secs_f64() * 1000.0;
        let separator = if self.0.is_empty() { "" } else { ", " };
        self.0.push_str(&format!("{separator}{name} {took:.1} ms"));
        self.1 = Instant::now();
    }
}

/// A handover.
pub struct Handover<'a> {
    /// For recovery, which settles a flip that a crash left.
    pub control: &'a Arc<Control>,
    /// The move.
    pub id: i32,
    /// Its slots.
    pub slots: &'a SlotSet,
    /// Its tables.
    pub tables: &'a [MovedTable],
    /// Loses the slots.
    pub giving: &'a Side,
    /// Gets them.
    pub taking: &'a Side,
    /// The stream from the one to the other.
    pub stream: Direction,
    /// The move's source: what it commits decides, since its record is the truth.
    pub source_gives: bool,
    /// What the flip records.
    pub flipped: Phase,
    /// How long statements may be held.
    pub budget: Duration,
}

impl Handover<'_> {
    fn late(&self, what: &str) -> MoveError {
        MoveError::Late {
            budget: self.budget,
            what: what.to_owned(),
        }
    }

    fn left(&self, started: Instant, what: &str) -> Result<Duration, MoveError> {
        // The last quarter is for the flip.
        let left = (self.budget * 3 / 4).checked_sub(started.elapsed());
        left.filter(|left| !left.is_zero())
            .ok_or_else(|| self.late(what))
    }

    /// Fences the slots, lets the taking side come level, and flips. Returns how long they were fenced.
    ///
    /// # Errors
    /// [`MoveError`]: unless the record says that the flip was done, [`Self::give_back`] is due.
    pub async fn hand_over(&self) -> Result<Duration, MoveError> {
        let Self { giving, taking, .. } = self;
        // Whoever is not up to date now would not be within the budget either.
        let epoch = routers::epoch(giving).await?;
        routers::acknowledged(giving, epoch, SILENCE, Silence::CutsOff).await?;
        let lag = stream::level(giving, taking, self.id, self.stream, self.budget).await;
        if !matches!(lag, Ok(lag) if lag < self.budget / 2) {
            return Err(self.late("the stream lags"));
        }
        if self.stream == Direction::Forward {
            // What it has not sent will be skipped, which takes as long as reading the log from where it begins.
            stream::renew_slot(taking, self.id, Direction::Back).await?;
        }

        let slots = self.slots;
        let started = Instant::now();
        let mut stages = Stages::new(started);
        let epoch: i64 = giving
            .value(&format!(
                "UPDATE pgring.ownership SET fenced = fenced + '{slots}', epoch = epoch + 1 RETURNING epoch"
            ))
            .await?;
        let left = self.left(started, "the fence")?;
        routers::acknowledged(giving, epoch, left, Silence::GivesUp)
            .await
            .map_err(|error| match error {
                MoveError::TimedOut { what, .. } => self.late(&what),
                other => other,
            })?;
        stages.end("routers");
        let left = self.left(started, "the routers")?;
        let closed = guard::close(giving, self.id, slots, self.tables, self.budget, left).await;
        if matches!(closed, Err(MoveError::Late { .. })) {
            // It may be one that was prepared and forgotten.
            recovery::recover_once(self.control).await;
        }
        closed?;
        stages.end("writers");
        let left = self.left(started, "writers that are no router's")?;
        stream::level(giving, taking, self.id, self.stream, left)
            .await
            .map_err(|error| match error {
                MoveError::TimedOut { what, .. } => self.late(&what),
                other => other,
            })?;
        stages.end("stream");
        if self.stream == Direction::Forward {
            // What came by this stream must not go back by the other.
            stream::skip(taking, self.id, Direction::Back).await?;
        }
        stages.end("stream back");
        self.left(started, "the stream back")?;
        self.flip().await?;
        stages.end("flip");
        let pause = started.elapsed();
        tracing::info!(
            id = self.id,
            ?pause,
            stages = stages.0,
            "slots were handed over"
        );
        guard::open(giving, self.id).await?;
        Ok(pause)
    }

    /// The flip: one distributed transaction that the move's source decides.
    async fn flip(&self) -> Result<(), MoveError> {
        let Self {
            id,
            slots,
            giving,
            taking,
            ..
        } = self;
        let phase = record::phase_sql(*id, self.flipped);
        let begin = "BEGIN; SET LOCAL pgring.notify = 'off'";
        let gives = format!(
            "{begin}; UPDATE pgring.ownership SET owned = owned - '{slots}', fenced = fenced - '{slots}', \
             closed = closed - '{slots}', foreign_slots = foreign_slots + '{slots}', epoch = epoch + 1; {phase}"
        );
        let takes = format!(
            "{begin}; UPDATE pgring.ownership SET owned = owned + '{slots}', foreign_slots = foreign_slots - '{slots}', \
             epoch = epoch + 1; {}; {phase}",
            guard::functions(*id, slots, self.tables, Guard::Watching)
        );
        let (decider, decides, other, follows) = match self.source_gives {
            true => (giving, gives, taking, takes),
            false => (taking, takes, giving, gives),
        };
        let prepared = async {
            decider.run(&decides).await?;
            let xid: String = decider
                .value("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text")
                .await?;
            let gid = GlobalTransactionId {
                cluster: self.control.cluster(),
                decider: decider.name.clone(),
                nonce: getrandom::u64().map_err(|error| MoveError::State(error.to_string()))?,
                xid: xid
                    .parse()
                    .map_err(|_| MoveError::State(format!("{xid} is no transaction id")))?,
                number: 1,
            };
            let decide = format!("SELECT {}", two_phase::decide(&gid, [&*other.name]));
            decider.run(&decide).await?;
            other.run(&follows).await?;
            other.run(&format!("PREPARE TRANSACTION '{gid}'")).await?;
            Ok::<_, MoveError>(gid)
        };
        let gid = match prepared.await {
            Ok(gid) => gid,
            Err(error) => {
                // Whatever of it runs; what is prepared, recovery rolls back.
                let _ = decider.run("ROLLBACK").await;
                let _ = other.run("ROLLBACK").await;
                return Err(error);
            }
        };
        decider.run("COMMIT").await?;
        // From here on nothing goes back. Recovery may be faster.
        let finished = other.run(&format!("COMMIT PREPARED '{gid}'")).await;
        if finished.is_err() {
            self.settle().await?;
        }
        self.tell().await
    }

    /// Routers read again what the flip did not say.
    async fn tell(&self) -> Result<(), MoveError> {
        let notify = "SELECT pg_catalog.pg_notify('pgring', 'ownership')";
        self.taking.run(notify).await?;
        self.giving.run(notify).await
    }

    /// Returns when no flip is prepared on either side any more.
    ///
    /// # Errors
    /// [`MoveError::TimedOut`]
    pub async fn settle(&self) -> Result<(), MoveError> {
        let started = Instant::now();
        loop {
            let mut prepared = false;
            for side in [self.giving, self.taking] {
                // A prepared transaction has locks and no process.
                let there: bool = side
                    .value(
                        "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid IS NULL \
                         AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
                         AND relation = 'pgring.ownership'::pg_catalog.regclass AND mode = 'RowExclusiveLock')",
                    )
                    .await?;
                prepared |= there;
            }
            if !prepared {
                return Ok(());
            }
            if started.elapsed() > SETTLE_WAIT {
                return Err(MoveError::TimedOut {
                    what: "settling the flip".to_owned(),
                    after: SETTLE_WAIT,
                });
            }
            recovery::recover_once(self.control).await;
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Unfences the slots: the giving side keeps them.
    ///
    /// # Errors
    /// [`MoveError`]
    pub async fn give_back(&self) -> Result<(), MoveError> {
        self.settle().await?;
        unfence(self.giving, self.id, self.slots, self.tables).await
    }

    /// After the flip: both sides are told again, by whoever may not have been.
    ///
    /// # Errors
    /// [`MoveError`]
    pub async fn finish(&self) -> Result<(), MoveError> {
        self.settle().await?;
        guard::open(self.giving, self.id).await?;
        self.tell().await
    }
}

/// Lets statements on the slots through again. Only while no flip of them can commit any more.
///
/// # Errors
/// [`MoveError`]
pub async fn unfence(
    giving: &Side,
    id: i32,
    slots: &SlotSet,
    tables: &[MovedTable],
) -> Result<(), MoveError> {
    guard::open(giving, id).await?;
    giving
        .run(&guard::functions(id, slots, tables, Guard::Watching))
        .await?;
    giving
        .run(&format!(
            "UPDATE pgring.ownership SET fenced = fenced - '{slots}', closed = closed - '{slots}', epoch = epoch + 1 \
             WHERE fenced && '{slots}'"
        ))
        .await
}

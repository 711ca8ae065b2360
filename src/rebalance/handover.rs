//! Handing slots over from the shard that owns them to the one that follows it, in either direction: fence, wait, flip.
//! Until the flip commits everything can be given back; see [`super::phase`].

use super::flip::{Flip, TELL};
use super::guard::{self, Guard};
use super::phase::Phase;
use super::routers;
use super::side::{MoveError, Side};
use super::stream::{self, Direction};
use super::table::MovedTable;
use crate::backend::control::Control;
use crate::topology::slot::SlotSet;
use crate::transaction::recovery;
use futures_util::future::try_join;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long routers may take to end what they planned before an earlier change.
pub const ROUTERS_WAIT: Duration = Duration::from_secs(60);
/// How often the stream may lag before the slots are not fenced at all.
const LEVEL_TRIES: u32 = 5;
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
    /// The move's source, whose commit decides, since its record is the truth. By the connection that holds the move's lock:
    /// whoever gets the lock next finds the decision made or gone.
    pub decider: &'a Side,
    /// Its target.
    pub other: &'a Side,
    /// The stream from the one to the other.
    pub stream: Direction,
    /// Whether the source loses the slots, or gets them.
    pub source_gives: bool,
    /// What the flip records.
    pub flipped: Phase,
    /// How long statements may be held.
    pub budget: Duration,
}

impl Handover<'_> {
    /// Who loses the slots, and who gets them.
    fn sides(&self) -> (&Side, &Side) {
        match self.source_gives {
            true => (self.decider, self.other),
            false => (self.other, self.decider),
        }
    }

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
        self.get_ready().await?;
        // The decider's connection is in the flip's transaction meanwhile.
        let beside = Side::connect(self.control, self.decider.shard).await?;
        let flip = Flip::begin(self).await?;
        let (giving, taking) = match self.source_gives {
            true => (&beside, self.other),
            false => (self.other, &beside),
        };
        let handed = self.hand_over_by(&flip, giving, taking).await;
        if handed.is_err() {
            flip.abandon().await;
        }
        let pause = handed?;
        guard::open(giving, self.id).await?;
        Ok(pause)
    }

    /// Whoever is not up to date now would not be within the budget either.
    async fn get_ready(&self) -> Result<(), MoveError> {
        let (giving, taking) = self.sides();
        let epoch = routers::rouse(giving).await?;
        let silence = self.control.config().rebalance.silence;
        routers::heard(giving, epoch, silence).await?;
        routers::acknowledged(giving, epoch, ROUTERS_WAIT).await?;
        if self.stream == Direction::Forward {
            // So that what it has not sent is little, which its server keeps the log for.
            stream::skip(taking, self.id, Direction::Back).await?;
        }
        for _ in 0..LEVEL_TRIES {
            let lag = stream::level(giving, taking, self.id, self.stream, self.budget).await;
            if lag.is_ok_and(|lag| lag < self.budget / 4) {
                return Ok(());
            }
        }
        Err(self.late("the stream lags"))
    }

    /// The pause: what clients wait for stands here, and nothing else does. In turn: the fence; the routers, which read it
    /// and acknowledge; the marker, in one message with the guards; its arrival; the target's promise; the decision; the other
    /// side's commit, which lets the routers read who owns the slots.
    async fn hand_over_by(
        &self,
        flip: &Flip<'_>,
        giving: &Side,
        taking: &Side,
    ) -> Result<Duration, MoveError> {
        let slots = self.slots;
        let started = Instant::now();
        let mut stages = Stages::new(started);
        let epoch: i64 = giving
            .value(&format!(
                "UPDATE pgring.ownership SET fenced = fenced + '{slots}', epoch = epoch + 1 RETURNING epoch"
            ))
            .await?;
        stages.end("fence");
        let come_level = self.come_level((giving, taking), epoch, started, &mut stages);
        // What a subscription applies is not waited for on its disk. Where the decider takes the slots, its commit sees to it.
        let early = async {
            flip.change(epoch).await?;
            match self.source_gives {
                true => Ok(()),
                false => flip.prepare().await,
            }
        };
        let (level, ()) = try_join(come_level, early).await?;
        if self.source_gives {
            flip.prepare().await?;
        }
        stages.end("prepare");
        self.left(started, "the stream")?;
        flip.decide(&level).await?;
        stages.end("decision");
        // From here on nothing goes back.
        if !flip.finish().await {
            self.settle().await?;
            self.tell().await?;
        }
        stages.end("commit");
        let pause = started.elapsed();
        tracing::info!(
            id = self.id,
            ?pause,
            stages = stages.0,
            "slots were handed over"
        );
        Ok(pause)
    }

    /// Returns when nothing writes the slots any more and all that was written has arrived; where the taking side's log was
    /// then.
    async fn come_level(
        &self,
        (giving, taking): (&Side, &Side),
        epoch: i64,
        started: Instant,
        stages: &mut Stages,
    ) -> Result<String, MoveError> {
        let late = |error| match error {
            MoveError::TimedOut { what, .. } => self.late(&what),
            other => other,
        };
        let left = self.left(started, "the fence")?;
        let acknowledged = routers::acknowledged(giving, epoch, left).await;
        acknowledged.map_err(late)?;
        stages.end("routers");
        let left = self.left(started, "the routers")?;
        let mark = stream::mark_sql(self.id, self.stream);
        let (slots, tables) = (self.slots, self.tables);
        let closed = guard::close(giving, self.id, slots, tables, (self.budget, left), &mark).await;
        if matches!(closed, Err(MoveError::Late { .. })) {
            // It may be one that was prepared and forgotten.
            recovery::recover_once(self.control).await;
        }
        let token = stream::token(closed?)?;
        stages.end("writers");
        let left = self.left(started, "writers that are no router's")?;
        let arrival = stream::arrival(giving, taking, self.id, self.stream, token, left).await;
        let level = arrival.map_err(late)?;
        stages.end("stream");
        Ok(level)
    }

    /// Routers read again what the flip did not say.
    async fn tell(&self) -> Result<(), MoveError> {
        self.other.run(TELL).await?;
        self.decider.run(TELL).await
    }

    /// Returns when no flip is prepared on either side any more.
    ///
    /// # Errors
    /// [`MoveError::TimedOut`]
    pub async fn settle(&self) -> Result<(), MoveError> {
        let started = Instant::now();
        loop {
            let mut prepared = false;
            for side in [self.decider, self.other] {
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
        unfence(self.sides().0, self.id, self.slots, self.tables).await
    }

    /// After the flip: both sides are told again, by whoever may not have been.
    ///
    /// # Errors
    /// [`MoveError`]
    pub async fn finish(&self) -> Result<(), MoveError> {
        self.settle().await?;
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

//! Drives moves: takes the lock of one on its source, does what [`super::phase`] says, and records each step there. A router
//! drives whatever nobody else does ([`run`]); `pgring rebalance` is a driver like any other.

use super::copy;
use super::guard::{self, Guard};
use super::handover::{self, Handover};
use super::phase::{Action, Event, Phase, TransitionError};
use super::record::{self, MoveRecord, Wanted};
use super::routers;
use super::side::{MoveError, Side, declared};
use super::stream::{self, Direction};
use super::table::{self, MovedTable};
use super::verify::{self, Pair};
use super::want::Wants;
use crate::backend::control::Control;
use crate::backend::replication::ExportedSlot;
use crate::topology::ShardId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// First half of the advisory lock of whoever drives a move; the other is its id, which is never 0. The bytes of "pgmv".
pub(super) const LOCK_CLASS: i32 = 0x7067_6d76;
/// How often a router looks for moves that nobody drives.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between tries of a step that fails: from, doubling, to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How close behind the target must be before it is compared.
const LAG_MAX: Duration = Duration::from_millis(100);
/// Between two looks at what has arrived of the backlog of a copy.
const FOLLOW_PAUSE: Duration = Duration::from_millis(5);
/// How long transactions that run when a copy starts may take to end.
const SLOT_WAIT: Duration = Duration::from_secs(3600);
/// How long a shard may say nothing in a handover, beyond what its parts may take.
const STUCK: Duration = Duration::from_secs(70);
/// How long transactions that write a table may keep its guard from being made.
const GUARD_WAIT: Duration = Duration::from_secs(3600);

/// Every move of the cluster, oldest first.
///
/// # Errors
/// [`MoveError`]: a shard does not answer.
pub async fn moves(control: &Control) -> Result<Vec<MoveRecord>, MoveError> {
    let topology = control.topology.load_full();
    let mut moves = Vec::new();
    for shard in topology.shard_ids() {
        let client = control.client(shard).await?;
        moves.extend(record::read_all(&client, topology.shard_name(shard)).await?);
    }
    moves.sort_by_key(|record| record.id);
    Ok(moves)
}

/// The shard called so.
pub(super) fn shard_named(control: &Control, name: &str) -> Result<ShardId, MoveError> {
    let shard = control.topology.load().shard_named(name);
    shard.ok_or_else(|| MoveError::State(format!("the shard map has no shard {name}")))
}

/// Drives what nobody drives, until the control plane is gone.
pub async fn run(control: Arc<Control>) {
    let control = Arc::downgrade(&control);
    loop {
        let Some(strong) = control.upgrade() else {
            return;
        };
        if let Err(error) = drive_all(&strong).await {
            tracing::debug!(%error, "moves are not driven");
        }
        drop(strong);
        sleep(INTERVAL).await;
    }
}

/// Drives every move, one after the other in the order of their ids, that is not over and that nobody else drives, until
/// each is over, or kept, or stopped.
///
/// # Errors
/// [`MoveError`]: the moves cannot be read.
pub async fn drive_all(control: &Arc<Control>) -> Result<(), MoveError> {
    for record in moves(control).await? {
        if record.phase.is_over() || is_resting(&record) {
            continue;
        }
        // One copy at a time: the next move waits for this one.
        let settled = match Driver::take(control, &record).await? {
            Some(driver) => driver.drive().await.is_after_flip(),
            None => record.phase.is_after_flip(),
        };
        if !settled {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a move waits for people.
pub fn is_resting(record: &MoveRecord) -> bool {
    match record.wanted {
        Wanted::Pause => !matches!(
            record.phase,
            Phase::HandingOver | Phase::Flipped | Phase::HandingBack
        ),
        Wanted::Run | Wanted::Cancel => record.phase == Phase::Kept,
        Wanted::Rollback | Wanted::Complete => false,
    }
}

/// A handover that a shard does not answer in the middle of.
async fn in_time(handover: Handover<'_>) -> Result<Duration, MoveError> {
    let silence = handover.control.config().rebalance.silence;
    let after = silence + handover::ROUTERS_WAIT + 2 * handover.budget + STUCK;
    let handed = timeout(after, handover.hand_over()).await;
    handed.unwrap_or(Err(MoveError::Stuck(after)))
}

/// Returns when the source keeps more of its log for a move than it may.
async fn watch_log(control: &Control, source: ShardId, id: i32) -> MoveError {
    let limit = control.config().rebalance.wal_bytes;
    let mut side = None;
    loop {
        // Where the source cannot be asked, the work cannot go on either.
        if side.is_none() {
            side = Side::connect(control, source).await.ok();
        }
        if let Some(asked) = &side {
            match stream::retained(asked, id, Direction::Forward).await {
                Ok(bytes) if bytes.unsigned_abs() > limit => {
                    return MoveError::Retains {
                        shard: asked.name.clone(),
                        bytes,
                        limit,
                    };
                }
                Ok(_) => {}
                Err(_) => side = None,
            }
        }
        sleep(INTERVAL).await;
    }
}

/// Drives one move, and holds its lock.
struct Driver {
    control: Arc<Control>,
    record: MoveRecord,
    /// Holds the lock: when it ends, another may drive.
    source: Side,
    target: Side,
    /// Further connections to the same shards.
    marking: Side,
    tables: Vec<MovedTable>,
    wants: Wants,
}

impl Driver {
    /// None: somebody else drives it, or it is over meanwhile.
    async fn take(control: &Arc<Control>, record: &MoveRecord) -> Result<Option<Self>, MoveError> {
        let id = record.id;
        let (from, to) = (
            shard_named(control, &record.source)?,
            shard_named(control, &record.target)?,
        );
        let source = Side::connect(control, from).await?;
        let lock = format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK_CLASS}, {id})");
        if !source.value(&lock).await? {
            return Ok(None);
        }
        let record = record::read_one(&source, id).await?;
        if record.phase.is_over() || is_resting(&record) {
            return Ok(None);
        }
        let mut record = record;
        let schema = control.topology.load().schema.clone();
        if record.phase == Phase::HandingOver {
            // Somebody may be held, and the target be what is lost.
            let tables = table::describe(&source, &schema).await?;
            handover::unfence(&source, id, &record.slots, &tables).await?;
            source.run(&record::phase_sql(id, Phase::Ready)).await?;
            record.phase = Phase::Ready;
        }
        let target = Side::connect(control, to).await?;
        control.refresh_schema().await?;
        let schema = control.topology.load().schema.clone();
        let tables = table::describe(&source, &schema).await?;
        let marking = Side::connect(control, from).await?;
        let asking = Side::connect(control, from).await?;
        let wants = Wants::follow(asking, id, record.wanted);
        Ok(Some(Self {
            control: control.clone(),
            record,
            source,
            target,
            marking,
            tables,
            wants,
        }))
    }

    /// Until the move is over, rests, or cannot be driven from here any more. Returns how far it came.
    async fn drive(mut self) -> Phase {
        let (shortest, longest) = BACKOFF;
        let mut pause = shortest;
        let mut owed = Duration::ZERO;
        let mut event = Event::TakenUp;
        loop {
            let (phase, action) = match self.next(event) {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(id = self.record.id, %error, "a move is left alone");
                    return self.record.phase;
                }
            };
            // What was begun is ended before a pause of any kind: somebody may be held.
            let begun = matches!(action, Action::GiveBack | Action::TakeBack | Action::Keep);
            if !begun && action != Action::End {
                sleep(std::mem::take(&mut owed)).await;
                if self.wants.now() == Wanted::Pause {
                    return self.record.phase;
                }
            }
            // The record says that slots may be fenced until they are not.
            let unfences = matches!(action, Action::GiveBack | Action::TakeBack);
            if !unfences && let Err(error) = self.note_phase(phase).await {
                tracing::warn!(id = self.record.id, %error, "a move is let go");
                return self.record.phase;
            }
            if matches!(action, Action::End | Action::Wait | Action::Stop) {
                return phase;
            }
            let mut done = self.act_within_log(action).await;
            if unfences && done.is_ok() {
                done = self.note_phase(phase).await;
            }
            event = match done {
                Ok(()) => {
                    // What was given up says why.
                    if !begun && action != Action::Undo {
                        pause = shortest;
                        let _ = record::note_error(&self.marking, self.record.id, None).await;
                    }
                    Event::Done
                }
                // The connections may be in the middle of something: whoever takes it next begins from the record.
                Err(MoveError::Stuck(_)) => return phase,
                Err(error) => {
                    // Whoever takes it next connects anew; until then the record says what is to be done.
                    if self.note_failure(&error).await.is_err() || self.has_lost_a_side() {
                        return self.record.phase;
                    }
                    owed = pause;
                    pause = (pause * 2).min(longest);
                    match error {
                        MoveError::Differs(_) => Event::Differs,
                        MoveError::Retains { .. } => Event::Cancel,
                        _ => {
                            if begun {
                                sleep(owed).await;
                            }
                            Event::Failed
                        }
                    }
                }
            };
        }
    }

    /// People come before the work, where the phase lets them.
    fn next(&self, event: Event) -> Result<(Phase, Action), TransitionError> {
        let asked = self.asked().filter(|_| event != Event::Differs);
        let asked = asked.and_then(|asked| self.record.phase.next(asked).ok());
        asked.map_or_else(|| self.record.phase.next(event), Ok)
    }

    /// Whether a connection has ended, which a step that is tried again would use again.
    fn has_lost_a_side(&self) -> bool {
        let sides = [&self.source, &self.target, &self.marking];
        sides.iter().any(|side| side.client.is_closed())
    }

    async fn note_failure(&self, error: &MoveError) -> Result<(), MoveError> {
        let id = self.record.id;
        if matches!(error, MoveError::Interrupted) {
            return Ok(());
        }
        let reason = error.to_string();
        tracing::warn!(id, phase = %self.record.phase, reason, "a step of a move failed");
        record::note_error(&self.source, id, Some(&reason)).await?;
        if matches!(error, MoveError::Differs(_)) {
            record::note(&self.source, id, "wanted = 'pause'").await?;
        }
        Ok(())
    }

    /// What people ask for.
    fn asked(&self) -> Option<Event> {
        match self.wants.now() {
            Wanted::Run | Wanted::Pause => None,
            Wanted::Cancel => Some(Event::Cancel),
            Wanted::Rollback => Some(Event::Rollback),
            Wanted::Complete => Some(Event::Complete),
        }
    }

    /// On the source first; the flip has done it already.
    async fn note_phase(&mut self, phase: Phase) -> Result<(), MoveError> {
        if self.record.phase == phase {
            return Ok(());
        }
        let sql = record::phase_sql(self.record.id, phase);
        self.source.run(&sql).await?;
        self.record.phase = phase;
        self.target.run(&sql).await?;
        tracing::info!(id = self.record.id, %phase, "a move goes on");
        Ok(())
    }

    /// [`Self::act`], given up where the source keeps too much of its log meanwhile.
    async fn act_within_log(&mut self, action: Action) -> Result<(), MoveError> {
        let copies = matches!(action, Action::Copy | Action::CatchUp | Action::Verify);
        if !copies || self.record.phase.is_after_flip() {
            return self.act(action).await;
        }
        let control = self.control.clone();
        let watching = watch_log(&control, self.source.shard, self.record.id);
        let done = tokio::select! {
            done = self.act(action) => return done,
            refused = watching => Err(refused),
        };
        // What was cut off may have left them in a transaction.
        self.source.run("ROLLBACK").await?;
        self.target.run("ROLLBACK").await?;
        done
    }

    async fn act(&mut self, action: Action) -> Result<(), MoveError> {
        match action {
            Action::Copy => self.copy().await,
            Action::CatchUp => self.catch_up().await,
            Action::Verify => self.verify().await,
            Action::HandOver => self.hand_over().await,
            Action::GiveBack => self.forward().give_back().await,
            Action::Keep => self.keep().await,
            Action::HandBack => self.hand_back().await,
            Action::TakeBack => self.back().give_back().await,
            Action::Clean => self.clean().await,
            Action::Undo => self.undo().await,
            Action::Wait | Action::Stop | Action::End => Ok(()),
        }
    }

    fn forward(&self) -> Handover<'_> {
        Handover {
            control: &self.control,
            id: self.record.id,
            slots: &self.record.slots,
            tables: &self.tables,
            decider: &self.source,
            other: &self.target,
            stream: Direction::Forward,
            source_gives: true,
            flipped: Phase::Flipped,
            budget: self.record.options.pause_budget,
        }
    }

    fn back(&self) -> Handover<'_> {
        Handover {
            stream: Direction::Back,
            source_gives: false,
            flipped: Phase::Undoing,
            ..self.forward()
        }
    }

    fn connection_to(&self, side: &Side) -> Result<String, MoveError> {
        let config = self.control.config();
        let shard = declared(&config, &side.name)?;
        Ok(stream::connection_string(&config, shard))
    }

    async fn remove_streams(&self) -> Result<(), MoveError> {
        let (source, target, id) = (&self.source, &self.target, self.record.id);
        stream::remove(source, target, id, Direction::Forward).await?;
        stream::remove(target, source, id, Direction::Back).await
    }

    /// From now on readers of many shards look at what each owns; when this returns, all do.
    async fn announce_foreign(&self, side: &Side) -> Result<(), MoveError> {
        let slots = &self.record.slots;
        side.run(&format!(
            "UPDATE pgring.ownership SET foreign_slots = foreign_slots + '{slots}', epoch = epoch + 1 \
             WHERE NOT foreign_slots @> '{slots}'"
        ))
        .await?;
        let silence = self.control.config().rebalance.silence;
        routers::settled(side, silence, GUARD_WAIT).await
    }

    /// Routers that do not answer are cut off: their transactions would be waited for.
    async fn rouse(&self, side: &Side) -> Result<(), MoveError> {
        let epoch = routers::rouse(side).await?;
        let silence = self.control.config().rebalance.silence;
        routers::heard(side, epoch, silence).await
    }

    async fn copy(&mut self) -> Result<(), MoveError> {
        let id = self.record.id;
        self.remove_streams().await?;
        self.rouse(&self.source).await?;
        self.announce_foreign(&self.target).await?;
        for (side, guard) in [
            (&self.target, Guard::Refusing),
            (&self.source, Guard::Watching),
        ] {
            guard::install(
                side,
                id,
                &self.record.slots,
                &self.tables,
                guard,
                GUARD_WAIT,
            )
            .await?;
        }
        // What an earlier try left.
        copy::delete(&self.target, &self.record.slots, &self.tables, 0, None).await?;

        stream::publish(
            &self.source,
            id,
            Direction::Forward,
            &self.record.slots,
            &self.tables,
        )
        .await?;
        let config = self.control.config();
        let shard = declared(&config, &self.source.name)?;
        let name = Direction::Forward.name(&self.source, id);
        let made = timeout(SLOT_WAIT, ExportedSlot::create(&config, shard, &name)).await;
        let slot = made.map_err(|_| MoveError::TimedOut {
            what: "the end of the transactions that ran when the copy began".to_owned(),
            after: SLOT_WAIT,
        })??;
        let reading = Side::connect(&self.control, self.source.shard).await?;
        reading
            .run(&format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
                slot.snapshot
            ))
            .await?;
        drop(slot);
        let writing = Side::connect(&self.control, self.target.shard).await?;
        copy::copy(
            &reading,
            &writing,
            (&self.marking, id),
            &self.record.slots,
            &self.tables,
            self.record.options.rate,
            &mut self.wants,
        )
        .await?;
        reading.run("COMMIT").await
    }

    async fn catch_up(&mut self) -> Result<(), MoveError> {
        let id = self.record.id;
        let connection = self.connection_to(&self.source)?;
        stream::subscribe(&self.target, id, Direction::Forward, &connection).await?;
        // For a rollback after the flip; what it would send until then is skipped.
        stream::publish(
            &self.target,
            id,
            Direction::Back,
            &self.record.slots,
            &self.tables,
        )
        .await?;
        stream::make_slot(&self.target, id, Direction::Back).await?;
        loop {
            let lag = self.follow().await?;
            self.note_lag(lag).await?;
            stream::skip(&self.target, id, Direction::Back).await?;
            if lag <= LAG_MAX {
                return Ok(());
            }
        }
    }

    /// Waits until what is written now has arrived, as long as that is wanted; how long it took.
    async fn follow(&mut self) -> Result<Duration, MoveError> {
        let (id, started) = (self.record.id, Instant::now());
        let mut looked = started;
        let token = stream::mark(&self.source, id, Direction::Forward).await?;
        while stream::arrived(&self.target, id, Direction::Forward, token)
            .await?
            .is_none()
        {
            self.wants.go_on().await?;
            if looked.elapsed() >= INTERVAL {
                looked = Instant::now();
                self.note_lag(started.elapsed()).await?;
                let failures = stream::failures(&self.target, id, Direction::Forward).await?;
                if failures > 0 {
                    let shard = &self.target.name;
                    let reason = format!(
                        "shard {shard} failed {failures} times to apply what follows; its log says why"
                    );
                    record::note_error(&self.marking, id, Some(&reason)).await?;
                }
            }
            sleep(FOLLOW_PAUSE).await;
        }
        Ok(started.elapsed())
    }

    async fn note_lag(&self, lag: Duration) -> Result<(), MoveError> {
        let milliseconds = lag.as_secs_f64() * 1000.0;
        record::note(
            &self.marking,
            self.record.id,
            &format!("lag_ms = {milliseconds}"),
        )
        .await
    }

    async fn verify(&mut self) -> Result<(), MoveError> {
        let after_flip = self.record.phase.is_after_flip();
        let (owner, follower, direction) = match after_flip {
            false => (&self.source, &self.target, Direction::Forward),
            true => (&self.target, &self.source, Direction::Back),
        };
        let marking = Side::connect(&self.control, owner.shard).await?;
        let pair = Pair {
            owner,
            marking: &marking,
            follower,
            direction,
            id: self.record.id,
        };
        let mut wants = (!after_flip).then(|| self.wants.clone());
        verify::verify(&pair, &self.record.slots, &self.tables, &mut wants).await
    }

    async fn hand_over(&mut self) -> Result<(), MoveError> {
        let id = self.record.id;
        self.check_tables().await?;
        record::note(&self.marking, id, "fences = fences + 1").await?;
        let handed = in_time(self.forward()).await;
        if matches!(handed, Err(MoveError::Stuck(_))) {
            return handed.map(drop);
        }
        // The record is the truth, whatever was heard of the flip.
        if let Err(error) = handed {
            let now = record::read_one(&self.source, id).await?;
            if now.phase != Phase::Flipped {
                return Err(error);
            }
        } else if let Ok(pause) = handed {
            self.note_pause(pause).await?;
        }
        Ok(())
    }

    /// A table that was made after the copy began was not copied.
    async fn check_tables(&self) -> Result<(), MoveError> {
        self.control.refresh_schema().await?;
        let schema = self.control.topology.load().schema.clone();
        let now = table::describe(&self.source, &schema).await?;
        let name = Direction::Forward.name(&self.source, self.record.id);
        let published = self
            .source
            .rows(&format!(
                "SELECT pg_catalog.format('%I.%I', schemaname, tablename) FROM pg_catalog.pg_publication_tables WHERE pubname = '{name}'"
            ))
            .await?;
        let published: Result<Vec<String>, _> =
            published.iter().map(|row| row.try_get(0)).collect();
        let published = published.map_err(|error| self.source.refuse(error))?;
        let is_new = |table: &&MovedTable| !published.contains(&table.name);
        match now.iter().find(is_new) {
            None => Ok(()),
            Some(table) => Err(MoveError::State(format!(
                "table {} was made after the copy began: cancel the move and start it again",
                table.name
            ))),
        }
    }

    async fn note_pause(&self, pause: Duration) -> Result<(), MoveError> {
        let milliseconds = pause.as_secs_f64() * 1000.0;
        let sql = format!(
            "pause_ms = {milliseconds}, flipped_at = coalesce(flipped_at, pg_catalog.clock_timestamp())"
        );
        record::note(&self.marking, self.record.id, &sql).await
    }

    /// The target owns the slots: from now on the source follows it.
    async fn keep(&mut self) -> Result<(), MoveError> {
        let id = self.record.id;
        self.forward().finish().await?;
        // First: what comes back must not be sent on again.
        stream::remove(&self.source, &self.target, id, Direction::Forward).await?;
        if !stream::is_subscribed(&self.source, id, Direction::Back).await? {
            // What came by the other stream is there already.
            let place = record::returns_from(&self.source, id).await?;
            stream::skip_to(&self.target, id, Direction::Back, &place).await?;
        }
        let connection = self.connection_to(&self.target)?;
        stream::subscribe(&self.source, id, Direction::Back, &connection).await
    }

    async fn hand_back(&mut self) -> Result<(), MoveError> {
        let id = self.record.id;
        record::note(&self.marking, id, "fences = fences + 1").await?;
        match in_time(self.back()).await {
            Ok(pause) => self.note_pause(pause).await,
            Err(MoveError::Stuck(after)) => Err(MoveError::Stuck(after)),
            Err(error) => {
                let now = record::read_one(&self.source, id).await?;
                match now.phase {
                    Phase::Undoing => Ok(()),
                    _ => Err(error),
                }
            }
        }
    }

    async fn clean(&mut self) -> Result<(), MoveError> {
        self.remove_streams().await?;
        self.delete_from(&self.source).await
    }

    async fn undo(&mut self) -> Result<(), MoveError> {
        // A rollback's flip may be unsettled; a cancelled move may be fenced.
        self.forward().give_back().await?;
        self.remove_streams().await?;
        self.delete_from(&self.target).await
    }

    /// Deletes the rows from the side that does not own them, and ends what the move made on both.
    async fn delete_from(&self, side: &Side) -> Result<(), MoveError> {
        let (id, slots) = (self.record.id, &self.record.slots);
        let rate = self.record.options.rate;
        // There may be partitions that are newer than the move.
        let schema = self.control.topology.load().schema.clone();
        let tables = table::describe(side, &schema).await?;
        copy::delete(side, slots, &tables, rate, Some((&self.marking, id))).await?;
        side.run(&format!(
            "UPDATE pgring.ownership SET foreign_slots = foreign_slots - '{slots}', epoch = epoch + 1 \
             WHERE foreign_slots && '{slots}'"
        ))
        .await?;
        for side in [&self.source, &self.target] {
            guard::remove(side, id, GUARD_WAIT).await?;
        }
        Ok(())
    }
}

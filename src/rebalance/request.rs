//! What people ask for: that moves begin, and what they want of those that are there. The command line and the console ask
//! here alike. Everything may be asked for again: what is so already stays so.

use super::move_plan::MovePlan;
use super::mover::{self, LOCK_CLASS, shard_named};
use super::phase::Phase;
use super::record::{self, MoveRecord, Options, Progress, Wanted};
use super::side::{MoveError, Side};
use super::survey;
use crate::backend::control::Control;
use std::sync::Arc;
use tokio_postgres::error::SqlState;

/// What became of a request to rebalance.
#[derive(Debug)]
pub enum Begun {
    /// Moves had begun before, and go on: these.
    GoesOn(Vec<i32>),
    /// Every shard owns what the shard map declares.
    Nothing,
    /// Something stands in the way, and nothing has begun.
    Blocked(MovePlan),
    /// These moves.
    Started(Vec<i32>),
}

/// Which moves have what was asked of them.
#[derive(Debug, Default)]
pub struct Asked {
    /// Those that have it, now or from before.
    pub granted: Vec<MoveRecord>,
    /// Those that are not over, and cannot have it where they are.
    pub refused: Vec<MoveRecord>,
}

/// Goes on with what has begun, or begins what the shard map asks for. Routers take the moves up, or
/// [`mover::drive_all`] does.
///
/// # Errors
/// [`MoveError`]. Some of the moves may be recorded; a further request goes on with them.
pub async fn begin(control: &Arc<Control>, options: Options) -> Result<Begun, MoveError> {
    let _alone = Alone::become_so(control).await?;
    let moves = mover::moves(control).await?;
    let ids: Vec<i32> = moves
        .iter()
        .filter(|record| !is_where_it_should_be(record))
        .map(|record| record.id)
        .collect();
    if !ids.is_empty() {
        resume(control).await?;
        return Ok(Begun::GoesOn(ids));
    }
    let plan = survey::plan(control).await?;
    if plan.moves.is_empty() {
        return Ok(Begun::Nothing);
    }
    if !plan.blockers.is_empty() {
        return Ok(Begun::Blocked(plan));
    }
    Ok(Begun::Started(start(control, &plan, options).await?))
}

/// Records what people want of every move that can have it.
///
/// # Errors
/// [`MoveError`]
pub async fn want(control: &Control, wanted: Wanted) -> Result<Asked, MoveError> {
    let mut asked = Asked::default();
    for mut record in mover::moves(control).await? {
        if record.phase.is_over() {
            continue;
        }
        if !can_have(&record, wanted) {
            asked.refused.push(record);
            continue;
        }
        note(control, &mut record, wanted).await?;
        asked.granted.push(record);
    }
    Ok(asked)
}

/// Lets every move that waits go on; which those are.
///
/// # Errors
/// [`MoveError`]
pub async fn resume(control: &Control) -> Result<Vec<MoveRecord>, MoveError> {
    let mut resumed = Vec::new();
    for mut record in mover::moves(control).await? {
        if record.wanted == Wanted::Pause && !record.phase.is_over() {
            note(control, &mut record, Wanted::Run).await?;
            resumed.push(record);
        }
    }
    Ok(resumed)
}

/// Whether nothing more was asked of the move than where it is.
pub fn is_where_it_should_be(record: &MoveRecord) -> bool {
    record.phase.is_over() || is_kept(record)
}

/// Whether it is kept, and nobody has asked for its end.
fn is_kept(record: &MoveRecord) -> bool {
    record.phase == Phase::Kept && matches!(record.wanted, Wanted::Run | Wanted::Cancel)
}

/// Whether it makes sense to want this of a move that is not over.
fn can_have(record: &MoveRecord, wanted: Wanted) -> bool {
    let already = record.wanted == wanted;
    match (wanted, record.phase) {
        (Wanted::Run, _) => true,
        (Wanted::Pause, _) => !is_kept(record),
        (Wanted::Cancel, phase) => !phase.is_after_flip(),
        (Wanted::Rollback, Phase::HandingBack | Phase::Undoing)
        | (Wanted::Complete, Phase::Cleaning) => already,
        (Wanted::Rollback | Wanted::Complete, phase) => {
            matches!(phase, Phase::Kept | Phase::Completing)
        }
    }
}

async fn note(control: &Control, record: &mut MoveRecord, wanted: Wanted) -> Result<(), MoveError> {
    let source = Side::connect(control, shard_named(control, &record.source)?).await?;
    record::want(&source, record.id, wanted).await?;
    record.wanted = wanted;
    Ok(())
}

/// Whoever begins moves, or takes a shard away that they might go to, is the only one in the cluster who does.
pub struct Alone {
    /// Holds the lock as long as it lives.
    _lock: Side,
}

impl Alone {
    /// Waits for others, as long as a [`Side`] waits for a lock.
    ///
    /// # Errors
    /// [`MoveError`]: others take too long, too.
    pub async fn become_so(control: &Control) -> Result<Self, MoveError> {
        let default_shard = control.topology.load().default_shard;
        let side = Side::connect(control, default_shard).await?;
        let sql = format!("SELECT pg_catalog.pg_advisory_lock({LOCK_CLASS}, 0)");
        match side.run(&sql).await {
            Ok(()) => Ok(Self { _lock: side }),
            Err(MoveError::Query { source, .. })
                if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
            {
                Err(MoveError::State(
                    "somebody else begins moves, or removes a shard, at this time".to_owned(),
                ))
            }
            Err(error) => Err(error),
        }
    }
}

/// Records what a plan says as moves.
async fn start(
    control: &Control,
    plan: &MovePlan,
    options: Options,
) -> Result<Vec<i32>, MoveError> {
    let names = control.topology.load_full();
    let mut last = 0;
    for shard in names.shard_ids() {
        // Those of shards that are gone, too: their targets remember them.
        let sql = "SELECT coalesce(max(id), 0) FROM pgring.move";
        let side = Side::connect(control, shard).await?;
        last = last.max(side.value::<i32>(sql).await?);
    }
    let mut ids = Vec::new();
    for (planned, id) in plan.moves.iter().zip(last + 1..) {
        let record = MoveRecord {
            id,
            source: names.shard_name(planned.source).clone(),
            target: names.shard_name(planned.target).clone(),
            slots: planned.slots.clone(),
            phase: Phase::Planned,
            wanted: Wanted::Run,
            options,
            progress: Progress {
                rows_expected: planned.rows,
                bytes_expected: planned.bytes,
                ..Progress::default()
            },
            error: None,
        };
        // The source last: it is what counts.
        for shard in [planned.target, planned.source] {
            record.insert(&Side::connect(control, shard).await?).await?;
        }
        ids.push(id);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(phase: Phase, wanted: Wanted) -> MoveRecord {
        MoveRecord {
            id: 1,
            source: "a".into(),
            target: "b".into(),
            slots: [crate::topology::SlotId(0)].into_iter().collect(),
            phase,
            wanted,
            options: Options {
                rate: 0,
                pause_budget: std::time::Duration::from_millis(200),
            },
            progress: Progress::default(),
            error: None,
        }
    }

    #[test]
    fn what_can_be_wanted_depends_on_how_far_a_move_is() {
        let can = |phase, now, wanted| can_have(&record(phase, now), wanted);
        assert!(can(Phase::Copying, Wanted::Run, Wanted::Cancel));
        assert!(!can(Phase::Kept, Wanted::Run, Wanted::Cancel));
        assert!(can(Phase::Kept, Wanted::Run, Wanted::Rollback));
        assert!(!can(Phase::Copying, Wanted::Run, Wanted::Rollback));
        assert!(!can(Phase::Copying, Wanted::Run, Wanted::Complete));
        assert!(can(Phase::Copying, Wanted::Run, Wanted::Pause));
        assert!(!can(Phase::Kept, Wanted::Run, Wanted::Pause));
        assert!(can(Phase::Kept, Wanted::Complete, Wanted::Pause));
    }

    #[test]
    fn what_was_asked_for_may_be_asked_for_again() {
        for (phase, wanted) in [
            (Phase::Undoing, Wanted::Cancel),
            (Phase::HandingBack, Wanted::Rollback),
            (Phase::Undoing, Wanted::Rollback),
            (Phase::Completing, Wanted::Complete),
            (Phase::Cleaning, Wanted::Complete),
        ] {
            assert!(can_have(&record(phase, wanted), wanted), "{phase} {wanted}");
        }
        assert!(!can_have(
            &record(Phase::Undoing, Wanted::Cancel),
            Wanted::Rollback
        ));
        assert!(!can_have(
            &record(Phase::Cleaning, Wanted::Run),
            Wanted::Complete
        ));
    }

    #[test]
    fn a_pause_budget_has_its_bounds() {
        let new = |seconds| Options::new(0, std::time::Duration::from_secs(seconds)).is_ok();
        assert!(new(1) && new(3600));
        assert!(!new(0) && !new(3601));
        assert!(Options::new(u64::MAX, std::time::Duration::from_secs(1)).is_err());
    }
}

//! Moves of slots, as the console plans, begins, steers and shows them. What a move is stands on the shards: this asks them,
//! and any router carries on what was begun here.

use super::AdminError;
use super::answer::{Answer, Cell, Row, row};
use super::ask::ask;
use crate::rebalance::move_plan::{MovePlan, moved_share};
use crate::rebalance::phase::Phase;
use crate::rebalance::record::{self, MoveRecord, Options, Times, Wanted};
use crate::rebalance::request::{self, Begun};
use crate::rebalance::side::MoveError;
use crate::rebalance::{mover, placement, survey};
use crate::router::Router;
use crate::topology::snapshot::Topology;
use futures_util::future::{AbortHandle, abortable};
use std::time::Duration;
use tokio::time::timeout;

/// How long all shards may take to answer what verbs ask of them.
const WAIT: Duration = Duration::from_secs(60);

/// Bounds it.
async fn in_time<T>(work: impl Future<Output = Result<T, MoveError>>) -> Result<T, MoveError> {
    let done = timeout(WAIT, work).await;
    done.unwrap_or_else(|_| {
        Err(MoveError::TimedOut {
            what: "asking the shards".to_owned(),
            after: WAIT,
        })
    })
}

/// Does work of the control plane that goes on although the operator leaves.
async fn finish<T: Send + 'static>(
    router: &Router,
    work: impl Future<Output = Result<T, MoveError>> + Send + 'static,
) -> Result<T, AdminError> {
    let done = router.control.run(async move { Ok(in_time(work).await) });
    Ok(done.await??)
}

/// Does work of the control plane that only looks: it ends when the operator leaves.
async fn look<T: Send + 'static>(
    router: &Router,
    work: impl Future<Output = Result<T, MoveError>> + Send + 'static,
) -> Result<T, AdminError> {
    struct Ends(AbortHandle);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let (work, handle) = abortable(work);
    let _ends = Ends(handle);
    let done = router.control.run(async move { Ok(work.await) });
    match done.await? {
        Ok(done) => Ok(done?),
        // Only whoever waits for it ends it.
        Err(_) => Err(MoveError::Interrupted.into()),
    }
}

/// What a rebalance would do, and what stands in its way.
pub(super) async fn plan(router: &Router) -> Result<Answer, AdminError> {
    let control = router.control.clone();
    let plan = look(router, in_time(async move { survey::plan(&control).await })).await?;
    let rows = plan_rows(&plan, &router.topology());
    let notice = match plan.moves.is_empty() {
        true => "ownership is what the shard map declares".to_owned(),
        false => format!(
            "{:.1} % of all slots would move",
            moved_share(&plan.moves) * 100.0
        ),
    };
    let notices = vec![notice];
    Ok(Answer { rows, notices })
}

fn plan_rows(plan: &MovePlan, topology: &Topology) -> Vec<Row> {
    let moves = plan.moves.iter().map(|planned| {
        row![
            &**topology.shard_name(planned.source),
            &**topology.shard_name(planned.target),
            planned.slots.len(),
            planned.rows,
            planned.bytes,
            Cell::Null
        ]
    });
    let blockers = plan.blockers.iter().map(|blocker| {
        let none = || Cell::Null;
        row![none(), none(), none(), none(), none(), blocker.to_string()]
    });
    moves.chain(blockers).collect()
}

/// Begins what the shard map asks for, or lets what has begun go on.
pub(super) async fn begin(router: &Router, options: Options) -> Result<Answer, AdminError> {
    let control = router.control.clone();
    let begun = finish(router, async move {
        let begun = request::begin(&control, options).await?;
        let moves = match &begun {
            Begun::GoesOn(_) | Begun::Started(_) => mover::moves(&control).await?,
            Begun::Nothing | Begun::Blocked(_) => Vec::new(),
        };
        Ok((begun, moves))
    });
    let (begun, moves) = begun.await?;
    let rows = |ids: Vec<i32>| {
        moves
            .iter()
            .filter(move |record| ids.contains(&record.id))
            .map(state)
    };
    let (rows, notice) = match begun {
        Begun::Started(ids) => {
            let notice = "the moves go on by themselves: SHOW REBALANCE shows how far they are";
            (rows(ids).collect(), notice)
        }
        Begun::GoesOn(ids) => {
            let notice = "these moves had begun before, and go on with the rate and the pause budget that they have";
            (rows(ids).collect(), notice)
        }
        Begun::Nothing => (
            Vec::new(),
            "ownership is what the shard map declares: nothing moves",
        ),
        Begun::Blocked(plan) => {
            let blockers = plan.blockers.iter().map(ToString::to_string).collect();
            return Err(AdminError::Blocked(blockers));
        }
    };
    let notices = vec![notice.to_owned()];
    Ok(Answer { rows, notices })
}

/// Asks something of every move that can have it.
pub(super) async fn want(router: &Router, wanted: Wanted) -> Result<Answer, AdminError> {
    let control = router.control.clone();
    let asked = finish(router, async move { request::want(&control, wanted).await }).await?;
    let mut refused = asked.refused.iter().map(|record| refusal(record, wanted));
    if asked.granted.is_empty() && !asked.refused.is_empty() {
        return Err(AdminError::NoMoveCan {
            what: past(wanted),
            why: refused.collect(),
            hint: hint(&asked.refused[0], wanted),
        });
    }
    let mut notices: Vec<String> = refused.by_ref().collect();
    if asked.granted.is_empty() {
        notices.push("no move is under way".to_owned());
    }
    let rows = asked.granted.iter().map(state).collect();
    Ok(Answer { rows, notices })
}

/// Lets moves that wait go on.
pub(super) async fn resume(router: &Router) -> Result<Answer, AdminError> {
    let control = router.control.clone();
    let resumed = finish(router, async move { request::resume(&control).await }).await?;
    let rows: Vec<Row> = resumed.iter().map(state).collect();
    let notices = match rows.is_empty() {
        true => vec!["no move is paused".to_owned()],
        false => Vec::new(),
    };
    Ok(Answer { rows, notices })
}

fn past(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Run => "resumed",
        Wanted::Pause => "paused",
        Wanted::Cancel => "cancelled",
        Wanted::Rollback => "rolled back",
        Wanted::Complete => "completed",
    }
}

fn refusal(record: &MoveRecord, wanted: Wanted) -> String {
    let (id, phase) = (record.id, record.phase);
    format!("move {id} is {phase}: it cannot be {}", past(wanted))
}

/// What can be asked of it instead.
fn hint(record: &MoveRecord, wanted: Wanted) -> &'static str {
    match (wanted, record.phase.is_after_flip()) {
        (Wanted::Cancel, _) => "ROLLBACK REBALANCE gives the slots of a kept move back.",
        (Wanted::Rollback | Wanted::Complete, false) => {
            "It can when it is kept; CANCEL REBALANCE ends one before that."
        }
        (Wanted::Pause, true) => "A kept move waits for COMPLETE or ROLLBACK REBALANCE anyway.",
        (Wanted::Run | Wanted::Pause | Wanted::Rollback | Wanted::Complete, _) => {
            "SHOW REBALANCE shows what was asked of it before."
        }
    }
}

/// What verbs show of a move.
fn state(record: &MoveRecord) -> Row {
    row![
        record.id,
        &*record.source,
        &*record.target,
        record.slots.len(),
        record.phase.to_string(),
        record.wanted.to_string(),
        record.progress.rows_expected,
        record.progress.bytes_expected
    ]
}

/// Moves under way.
pub(super) async fn under_way(router: &Router) -> Result<Answer, AdminError> {
    let (moves, notices) = history(router).await?;
    let open = moves.iter().filter(|(record, _)| !record.phase.is_over());
    let rows = open.map(|(record, _)| {
        let (options, progress) = (&record.options, &record.progress);
        row![
            record.id,
            &*record.source,
            &*record.target,
            record.slots.len(),
            record.phase.to_string(),
            record.wanted.to_string(),
            progress.rows_copied,
            progress.rows_expected,
            progress.bytes_copied,
            progress.bytes_expected,
            rate(record),
            Some(options.rate).filter(|rate| *rate > 0),
            progress.lag_ms.map(whole),
            copy_left(record).map(whole),
            progress.rows_deleted,
            progress.fences,
            progress.pause_ms.map(whole),
            options.pause_budget.as_millis(),
            record.error.as_deref()
        ]
    });
    let rows = rows.collect();
    Ok(Answer { rows, notices })
}

/// Every move that there was.
pub(super) async fn all(router: &Router) -> Result<Answer, AdminError> {
    let (moves, notices) = history(router).await?;
    let rows = moves.iter().map(|(record, times)| {
        let progress = &record.progress;
        row![
            record.id,
            &*record.source,
            &*record.target,
            record.slots.len(),
            record.phase.to_string(),
            progress.rows_copied,
            progress.bytes_copied,
            rate(record),
            progress.rows_deleted,
            progress.fences,
            progress.pause_ms.map(whole),
            times.created.as_str(),
            times.flipped.as_deref(),
            times.changed.as_str(),
            record.error.as_deref()
        ]
    });
    let rows = rows.collect();
    Ok(Answer { rows, notices })
}

async fn history(router: &Router) -> Result<(Vec<(MoveRecord, Times)>, Vec<String>), AdminError> {
    let (mut moves, notices) = ask(router, |control, shard| async move {
        let name = control.topology.load().shard_name(shard).clone();
        let client = control.client(shard).await?;
        record::read_history(&client, &name).await
    })
    .await?;
    moves.sort_by_key(|(record, _)| record.id);
    Ok((moves, notices))
}

/// Bytes a second of the copy; None before it has begun.
fn rate(record: &MoveRecord) -> Option<i64> {
    let progress = &record.progress;
    (progress.copy_seconds > 0.0)
        .then(|| whole(progress.bytes_copied as f64 / progress.copy_seconds))
}

/// Seconds that the copy will take still, where that can be told.
fn copy_left(record: &MoveRecord) -> Option<f64> {
    let progress = &record.progress;
    let left = progress.rows_expected - progress.rows_copied;
    let known = record.phase == Phase::Copying && progress.rows_copied > 0 && left > 0;
    known.then(|| left as f64 * progress.copy_seconds / progress.rows_copied as f64)
}

/// The nearest whole number.
fn whole(number: f64) -> i64 {
    number.round() as i64
}

/// Rows that lie where nobody looks for them.
pub(super) async fn check_placement(router: &Router) -> Result<Answer, AdminError> {
    let control = router.control.clone();
    let misplaced = look(router, async move { placement::check(&control).await }).await?;
    let rows: Vec<Row> = misplaced
        .iter()
        .map(|found| {
            row![
                &*found.shard,
                found.table.as_str(),
                found.rows,
                found.moving
            ]
        })
        .collect();
    let notices = match rows.is_empty() {
        true => vec!["every row lies where its slot is owned".to_owned()],
        false => Vec::new(),
    };
    Ok(Answer { rows, notices })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rebalance::record::Progress;
    use crate::topology::SlotId;

    #[test]
    fn what_is_left_of_a_copy_is_told_by_its_rate_so_far() {
        let mut record = MoveRecord {
            id: 1,
            source: "a".into(),
            target: "b".into(),
            slots: [SlotId(0)].into_iter().collect(),
            phase: Phase::Copying,
            wanted: Wanted::Run,
            options: Options {
                rate: 0,
                pause_budget: Duration::from_millis(200),
            },
            progress: Progress {
                rows_expected: 1000,
                ..Progress::default()
            },
            error: None,
        };
        assert_eq!((rate(&record), copy_left(&record)), (None, None));
        record.progress.rows_copied = 250;
        record.progress.bytes_copied = 4000;
        record.progress.copy_seconds = 2.0;
        assert_eq!((rate(&record), copy_left(&record)), (Some(2000), Some(6.0)));
        // More than the statistics had said, and what comes after the copy.
        record.progress.rows_copied = 1001;
        assert_eq!(copy_left(&record), None);
        record.progress.rows_copied = 250;
        record.phase = Phase::CatchingUp;
        assert_eq!(copy_left(&record), None);
    }
}

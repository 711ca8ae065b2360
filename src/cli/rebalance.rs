//! `pgring rebalance`: makes ownership what the shard map declares, and shows how that goes. It drives moves as a router does,
//! and may be stopped and started again at any time: everything that counts stands on the shards.

use super::ConfigArgument;
use super::check::columns;
use crate::backend::control::Control;
use crate::config::unit;
use crate::rebalance::move_plan::{MovePlan, moved_share};
use crate::rebalance::mover;
use crate::rebalance::phase::Phase;
use crate::rebalance::record::{MoveRecord, Options, Wanted};
use crate::rebalance::request::{self, Begun};
use crate::rebalance::survey;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often what is shown is read.
const INTERVAL: Duration = Duration::from_millis(250);

/// Move slots between shards until ownership is what the shard map declares
#[derive(Debug, clap::Args)]
pub(super) struct Rebalance {
    #[command(flatten)]
    config: ConfigArgument,
    /// Only show what would be moved, and what stands in the way
    #[arg(long, group = "what")]
    plan: bool,
    /// Delete the rows that moves which are kept have left on their sources
    #[arg(long, group = "what")]
    complete: bool,
    /// Give back the slots of moves that are kept
    #[arg(long, group = "what")]
    rollback: bool,
    /// End moves whose slots have not changed their owner
    #[arg(long, group = "what")]
    cancel: bool,
    /// Let moves wait
    #[arg(long, group = "what")]
    pause: bool,
    /// Bytes per second of copying and deleting ("50MB"); without it, as fast as it goes
    #[arg(long, value_parser = unit::bytes, default_value = "0B")]
    rate: u64,
    /// How long statements may be held when slots change their owner
    #[arg(long, value_parser = unit::duration, default_value = "200ms")]
    pause_budget: Duration,
}

impl Rebalance {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = Arc::new(self.config.load()?);
        let options = Options::new(self.rate, self.pause_budget).map_err(anyhow::Error::msg)?;
        let control = Control::observe(config).await?;
        let wanted = match (self.complete, self.rollback, self.cancel, self.pause) {
            (true, ..) => Some(Wanted::Complete),
            (_, true, ..) => Some(Wanted::Rollback),
            (_, _, true, _) => Some(Wanted::Cancel),
            (.., true) => Some(Wanted::Pause),
            _ => None,
        };
        if self.plan {
            return show_plan(&control, &survey::plan(&control).await?);
        }
        let ids = match wanted {
            Some(wanted) => {
                let asked = request::want(&control, wanted).await?;
                asked.granted.iter().map(|record| record.id).collect()
            }
            None => match request::begin(&control, options).await? {
                Begun::GoesOn(ids) | Begun::Started(ids) => ids,
                Begun::Nothing => Vec::new(),
                Begun::Blocked(plan) => return show_plan(&control, &plan),
            },
        };
        if ids.is_empty() {
            super::print("nothing to do\n")?;
            return Ok(());
        }
        if wanted == Some(Wanted::Pause) {
            return Ok(super::print(&format!("{} moves wait\n", ids.len()))?);
        }
        let moves = drive(&control, &ids).await?;
        super::print(&report(&moves))?;
        if wanted == Some(Wanted::Cancel)
            && let Some(record) = moves.iter().find(|record| record.phase.is_after_flip())
        {
            anyhow::bail!(
                "move {} had changed the owner of its slots already: --rollback gives them back",
                record.id
            );
        }
        let given_up =
            |record: &&MoveRecord| record.phase == Phase::Undone && record.wanted == Wanted::Run;
        if let Some(record) = moves.iter().find(given_up) {
            anyhow::bail!(
                "move {} was given up: {}",
                record.id,
                record.error.as_deref().unwrap_or("nothing says why")
            );
        }
        let stopped = moves
            .iter()
            .find(|record| !request::is_where_it_should_be(record));
        match stopped {
            Some(record) => anyhow::bail!(
                "move {} is {} and waits: {}",
                record.id,
                record.phase,
                record.error.as_deref().unwrap_or("it is paused")
            ),
            None => Ok(()),
        }
    }
}

/// What there is to do; fails where something stands in the way.
fn show_plan(control: &Control, plan: &MovePlan) -> anyhow::Result<()> {
    let topology = control.topology.load();
    let mut rows = vec![["from", "to", "slots", "rows", "bytes"].map(str::to_owned)];
    for planned in &plan.moves {
        rows.push([
            topology.shard_name(planned.source).to_string(),
            topology.shard_name(planned.target).to_string(),
            planned.slots.len().to_string(),
            format!("~{}", planned.rows),
            format!("~{}", bytes(planned.bytes as f64)),
        ]);
    }
    let share = moved_share(&plan.moves) * 100.0;
    match plan.moves.is_empty() {
        true => super::print("ownership is what the shard map declares\n")?,
        false => super::print(&format!(
            "{}\n{share:.1} % of all slots move\n",
            columns(&rows)
        ))?,
    }
    if plan.blockers.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = plan.blockers.iter().map(ToString::to_string).collect();
    anyhow::bail!("{}", lines.join("\npgring: "))
}

/// Drives these moves, or watches who does, until each rests.
async fn drive(control: &Arc<Control>, ids: &[i32]) -> anyhow::Result<Vec<MoveRecord>> {
    let driving = {
        let control = control.clone();
        tokio::spawn(async move {
            loop {
                if let Err(error) = mover::drive_all(&control).await {
                    tracing::warn!(%error, "moves are not driven");
                }
                sleep(INTERVAL).await;
            }
        })
    };
    let bars = MultiProgress::new();
    let mut shown: BTreeMap<i32, ProgressBar> = BTreeMap::new();
    let moves = loop {
        // A shard may be away for a moment.
        if let Ok(mut moves) = mover::moves(control).await {
            moves.retain(|record| ids.contains(&record.id));
            for record in &moves {
                let bar = shown
                    .entry(record.id)
                    .or_insert_with(|| bars.add(new_bar()));
                show(bar, record);
            }
            let rests = |record: &MoveRecord| record.phase.is_over() || mover::is_resting(record);
            if moves.iter().all(rests) {
                break moves;
            }
        }
        sleep(INTERVAL).await;
    };
    driving.abort();
    for bar in shown.values() {
        bar.finish();
    }
    Ok(moves)
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:28} {bar:30} {msg}");
    let bar = ProgressBar::new(1);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, record: &MoveRecord) {
    let progress = &record.progress;
    bar.set_prefix(format!(
        "{}: {} -> {}",
        record.id, record.source, record.target
    ));
    let copied = progress.rows_copied.unsigned_abs();
    let expected = progress.rows_expected.unsigned_abs().max(copied).max(1);
    bar.set_length(expected);
    bar.set_position(match record.phase {
        Phase::Planned => 0,
        Phase::Copying => copied,
        _ => expected,
    });
    let mut message = format!("{}, {copied} rows, {}", record.phase, rate(record));
    if let Some(lag) = progress.lag_ms {
        message.push_str(&format!(", lag {lag:.0} ms"));
    }
    if let Some(error) = &record.error {
        message.push_str(&format!(", {error}"));
    }
    bar.set_message(message);
}

fn rate(record: &MoveRecord) -> String {
    let progress = &record.progress;
    format!(
        "{}/s",
        bytes(progress.bytes_copied as f64 / progress.copy_seconds.max(0.001))
    )
}

/// For people: three digits or so.
fn bytes(count: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut left = count;
    let mut unit = 0;
    while left >= 1024.0 && unit + 1 < units.len() {
        left /= 1024.0;
        unit += 1;
    }
    format!("{left:.1} {}", units[unit])
}

/// What became of the moves.
fn report(moves: &[MoveRecord]) -> String {
    let head = [
        "move", "from", "to", "slots", "phase", "rows", "bytes", "rate", "fences", "pause",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for record in moves {
        let progress = &record.progress;
        rows.push([
            record.id.to_string(),
            record.source.to_string(),
            record.target.to_string(),
            record.slots.len().to_string(),
            record.phase.to_string(),
            progress.rows_copied.to_string(),
            bytes(progress.bytes_copied as f64),
            rate(record),
            progress.fences.to_string(),
            progress
                .pause_ms
                .map_or("-".to_owned(), |pause| format!("{pause:.0} ms")),
        ]);
    }
    let mut text = columns(&rows);
    if moves.iter().any(|record| record.phase == Phase::Kept) {
        text.push_str(
            "\nthe sources still follow: pgring rebalance --complete deletes their rows, --rollback gives the slots back\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_easily() {
        assert_eq!(bytes(512.0), "512.0 B");
        assert_eq!(bytes(1536.0), "1.5 kB");
        assert_eq!(bytes(50.0 * 1024.0 * 1024.0), "50.0 MB");
    }
}

//! `pgring check`: reads the shard map's files and reports what they mean; with `--online` also asks the shards
//! whether they are as they must be. Changes nothing.

use super::ConfigArgument;
use super::inspect;
use crate::backend::control::Control;
use crate::config::{Config, Pin, PinTarget, TableKind};
use crate::rebalance::placement;
use crate::topology::ring::{self, Member, RingError};
use crate::topology::{SLOT_COUNT, ShardId, SlotId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Validate the shard map's files, and with --online the shards
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArgument,
    /// Also ask the shards: versions, settings, ownership, tables and keys, collations
    #[arg(long)]
    online: bool,
    /// Also read every row of the sharded tables, and count those that lie on the wrong shard
    #[arg(long)]
    placement: bool,
}

impl Check {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        super::print(&summary(&config)?)?;
        if self.online {
            let report = inspect::inspect(&config).await;
            super::print(&format!("\n{}", report.facts))?;
            if !report.problems.is_empty() {
                anyhow::bail!("{}", report.problems.join("\npgring: "));
            }
            super::print("the shards are as they must be\n")?;
        }
        match self.placement {
            true => check_placement(config).await,
            false => Ok(()),
        }
    }
}

/// Fails where rows lie on the wrong shard; those of a move that is not over are only told.
async fn check_placement(config: Config) -> anyhow::Result<()> {
    let control = Control::observe(Arc::new(config)).await?;
    let misplaced = placement::check(&control).await?;
    let mut rows = vec![["shard", "table", "misplaced", "moving"].map(str::to_owned)];
    rows.extend(misplaced.iter().map(|found| {
        [
            found.shard.to_string(),
            found.table.clone(),
            found.rows.to_string(),
            found.moving.to_string(),
        ]
    }));
    if rows.len() > 1 {
        super::print(&format!("\n{}", columns(&rows)))?;
    }
    let strays: i64 = misplaced.iter().map(|found| found.rows).sum();
    anyhow::ensure!(strays == 0, "{strays} rows lie on the wrong shard");
    Ok(super::print("every row lies where its slot is owned\n")?)
}

/// What the files declare, as a person would want to see it before acting on it.
fn summary(config: &Config) -> Result<String, RingError> {
    let counts = slots_by_shard(config)?;
    let mut shards = vec![["shard", "weight", "slots", "share", "nodes"].map(str::to_owned)];
    for (shard, slots) in config.shards.iter().zip(counts) {
        let nodes: Vec<String> = shard.nodes.iter().map(ToString::to_string).collect();
        let nodes = format!("{} ({})", nodes.join(", "), shard.database);
        let share = format!("{:.1} %", slots as f64 * 100.0 / SLOT_COUNT as f64);
        shards.push([
            shard.name.clone(),
            shard.weight.to_string(),
            slots.to_string(),
            share,
            nodes,
        ]);
    }
    let mut tables = vec![["table", "rows"].map(str::to_owned)];
    for table in &config.tables {
        let rows = match &table.kind {
            TableKind::Sharded { key, .. } => format!("by {key}"),
            TableKind::Reference => "on every shard".to_owned(),
            TableKind::Local { shard } => format!("on {shard}"),
        };
        tables.push([format!("{}.{}", table.schema, table.name), rows]);
    }
    tables.push([
        "all others".to_owned(),
        format!("on {}", config.cluster.default_shard),
    ]);
    let keys = config
        .pins
        .iter()
        .filter(|pin| matches!(pin.target, PinTarget::Key { .. }))
        .count();
    let pins = match keys {
        0 => String::new(),
        _ => format!(
            "{keys} pinned keys are not counted above: where they hash to depends on the type of the key's column\n"
        ),
    };
    Ok(format!(
        "{}: cluster \"{}\", listens on {}\n\n{}{pins}\n{}",
        config.directory.display(),
        config.cluster.name,
        config.listen.address,
        columns(&shards),
        columns(&tables)
    ))
}

/// How many slots each shard would be given on a new cluster.
fn slots_by_shard(config: &Config) -> Result<Vec<usize>, RingError> {
    let members: Vec<Member> = config
        .shards
        .iter()
        .map(|shard| Member {
            name: shard.name.as_str().into(),
            weight: shard.weight,
        })
        .collect();
    let mut pins = BTreeMap::new();
    for Pin { target, shard, .. } in &config.pins {
        let owner = config.shards.iter().position(|other| other.name == *shard);
        if let (PinTarget::Slots { first, last }, Some(owner)) = (target, owner) {
            pins.extend((*first..=*last).map(|slot| (SlotId(slot), ShardId(owner as u16))));
        }
    }
    let mut counts = vec![0; members.len()];
    for owner in ring::propose(&members, config.ring.virtual_nodes, &[], &pins)? {
        counts[usize::from(owner.0)] += 1;
    }
    Ok(counts)
}

/// Rows with their columns below each other.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_summary_counts_the_slots_that_weights_and_pins_give() {
        let config =
            Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shard-config")).unwrap();
        let counts = slots_by_shard(&config).unwrap();
        assert_eq!(counts.iter().sum::<usize>(), SLOT_COUNT);
        // Weights 1, 1, 2; s2's pinned slots are among its own.
        let fair = |shares: f64| SLOT_COUNT as f64 * shares / 4.0;
        for (count, shares) in counts.iter().zip([1.0, 1.0, 2.0]) {
            assert!(
                (*count as f64 / fair(shares) - 1.0).abs() < 0.06,
                "{counts:?}"
            );
        }
        let summary = summary(&config).unwrap();
        for part in [
            "cluster \"shop\"",
            "public.orders",
            "by customer_id",
            "on every shard",
            "audit.log",
            "on s1",
            "1 pinned keys",
        ] {
            assert!(summary.contains(part), "{part}:\n{summary}");
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "bb"], ["ccc", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "a    bb\nccc\n");
    }
}

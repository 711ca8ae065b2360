//! [`Plan::describe`]: a plan in words, for EXPLAIN and for the plan cases.

use super::plan::{Access, Fold, Merge, Plan, SortKey, StepArguments, StepSql, Tier};
use crate::topology::snapshot::Topology;

impl Tier {
    /// Its name for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::SingleShard => "single shard",
            Self::AnyShard => "any shard",
            Self::NamedShard => "named shard",
            Self::Catalog => "catalog",
            Self::PushDown => "push down",
            Self::Partial => "partial and final",
            Self::Gather => "gather",
            Self::AllShards => "all shards",
        }
    }
}

impl Plan {
    /// The plan in lines: tier and shards, each distinct rewritten text, and how the outputs become one.
    pub fn describe(&self, topology: &Topology) -> Vec<String> {
        let tier = self.tier.words();
        let access = match self.access {
            Access::Read => "",
            Access::Write => " (write)",
            Access::Ddl => " (ddl)",
            Access::OutsideBlock => " (outside a block)",
        };
        let shards: Vec<&str> = self
            .steps
            .iter()
            .map(|step| &**topology.shard_name(step.shard))
            .collect();
        let mut lines = vec![format!("{tier} on {}{access}", shards.join(", "))];
        for input in &self.inputs {
            let shards: Vec<&str> = input
                .steps
                .iter()
                .map(|step| &**topology.shard_name(step.shard))
                .collect();
            let text = input.steps.first().map(|step| match &step.sql {
                StepSql::Rewritten(sql) => format!(": {sql}{}", with(&step.arguments)),
                StepSql::AsSent => String::new(),
            });
            let place = match shards.as_slice() {
                [] => "nowhere".to_owned(),
                shards => shards.join(", "),
            };
            let text = text.unwrap_or_default();
            lines.push(format!("{} from {place}{text}", input.relation));
        }
        let same = self
            .steps
            .windows(2)
            .all(|pair| pair[0].sql == pair[1].sql && pair[0].arguments == pair[1].arguments);
        for step in self
            .steps
            .iter()
            .take(if same { 1 } else { self.steps.len() })
        {
            if let StepSql::Rewritten(sql) = &step.sql {
                let place = if same {
                    String::new()
                } else {
                    format!("on {}: ", topology.shard_name(step.shard))
                };
                let with = with(&step.arguments);
                lines.push(format!("{place}{sql}{with}"));
            }
        }
        match &self.merge {
            Merge::Relay => {}
            Merge::Append { offset, limit } => {
                lines.push(format!("merge: append{}", bounds(*offset, *limit)))
            }
            Merge::Sort {
                keys,
                hidden_columns,
                offset,
                limit,
            } => {
                let keys: Vec<String> = keys.iter().map(sort_key).collect();
                let hidden = if *hidden_columns == 0 {
                    String::new()
                } else {
                    format!(" hidden({hidden_columns})")
                };
                lines.push(format!(
                    "merge: sort({}){hidden}{}",
                    keys.join(", "),
                    bounds(*offset, *limit)
                ));
            }
            Merge::Fold(folds) => {
                let folds: Vec<&str> = folds.iter().map(|fold| fold_name(*fold)).collect();
                lines.push(format!("merge: one row ({})", folds.join(", ")));
            }
            Merge::InTurn(_) => lines.push("merge: in the order of VALUES".to_owned()),
            Merge::Move(key_move) => {
                let target = topology.shard_name(key_move.target);
                lines.push(format!("then: {}", key_move.delete));
                lines.push(format!("on {target}: {}", key_move.insert));
            }
            Merge::Store(store) => {
                let values = store.values();
                lines.push(format!("then, where each row belongs: {values}"));
            }
            Merge::First(_) => lines.push("merge: first".to_owned()),
            Merge::Of(place) => {
                let step = self.steps.get(usize::from(*place));
                let name = step.map_or("", |step| topology.shard_name(step.shard));
                lines.push(format!("merge: that of {name}"));
            }
        }
        lines
    }
}

/// The client's parameters that a step has, if they are not all.
fn with(arguments: &StepArguments) -> String {
    match arguments {
        StepArguments::AsSent => String::new(),
        StepArguments::Chosen(chosen) if chosen.is_empty() => String::new(),
        StepArguments::Chosen(chosen) => {
            let chosen: Vec<String> = chosen
                .iter()
                .map(|index| format!("${}", index + 1))
                .collect();
            format!(" with ({})", chosen.join(", "))
        }
    }
}

fn bounds(offset: u64, limit: Option<u64>) -> String {
    let offset = if offset == 0 {
        String::new()
    } else {
        format!(" offset({offset})")
    };
    let limit = limit
        .map(|limit| format!(" limit({limit})"))
        .unwrap_or_default();
    format!("{offset}{limit}")
}

fn fold_name(fold: Fold) -> &'static str {
    match fold {
        Fold::Sum => "sum",
        Fold::Min => "min",
        Fold::Max => "max",
        Fold::And => "and",
        Fold::Or => "or",
        Fold::BitAnd => "bit and",
        Fold::BitOr => "bit or",
        Fold::BitXor => "bit xor",
    }
}

fn sort_key(key: &SortKey) -> String {
    let direction = if key.descending { "desc" } else { "asc" };
    let nulls = if key.nulls_first { "first" } else { "last" };
    let bytes = if key.text_by_bytes { " by bytes" } else { "" };
    format!("column {} {direction} nulls {nulls}{bytes}", key.column + 1)
}

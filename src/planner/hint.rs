//! [`Hint`]: where the session, or a comment, wants a statement to run.

use super::key::KeyColumn;
use super::refusal::{PlanError, Refusal};
use super::template::Context;
use crate::topology::ShardId;
use crate::topology::schema::{Placement, Relation};
use crate::topology::snapshot::Topology;

/// Routing by the session's word (`SET pgring.shard`, `SET pgring.key`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// This shard.
    Shard(ShardId),
    /// The shard that owns a key.
    Key {
        /// The table whose key it is; needed where the tables' keys are of different types.
        table: Option<String>,
        /// The key in its text form.
        value: String,
    },
}

impl Hint {
    /// Reads a hint comment's text, what follows `pgring:`: `shard=s1`, `key=42`, or `key=42 table=orders`; a value
    /// with blanks is quoted as in SQL.
    ///
    /// # Errors
    /// Another form, or a shard that does not exist.
    pub fn parse(text: &str, topology: &Topology) -> Result<Self, PlanError> {
        let wrong = |reason: String| PlanError::Hint {
            reason: reason.into(),
        };
        let (mut shard, mut key, mut table) = (None, None, None);
        let mut rest = text.trim_ascii();
        while !rest.is_empty() {
            let (name, after) = rest
                .split_once('=')
                .ok_or_else(|| wrong(format!("\"{rest}\" is not name=value")))?;
            let after = after.trim_ascii_start();
            let value = if let Some(quoted) = after.strip_prefix('\'') {
                let end = closing_quote(quoted)
                    .ok_or_else(|| wrong("a quote is not closed".to_owned()))?;
                rest = &quoted[end + 1..];
                quoted[..end].replace("''", "'")
            } else {
                let end = after.find([' ', '\t', '\n', ',']).unwrap_or(after.len());
                rest = &after[end..];
                after[..end].to_owned()
            };
            rest = rest.trim_start_matches([' ', '\t', '\n', ',']);
            let place = match name.trim_ascii() {
                "shard" => &mut shard,
                "key" => &mut key,
                "table" => &mut table,
                other => return Err(wrong(format!("\"{other}\" is none of shard, key, table"))),
            };
            if place.replace(value).is_some() {
                return Err(wrong("a name is there twice".to_owned()));
            }
        }
        match (shard, key, table) {
            (Some(name), None, None) => topology
                .shard_named(&name)
                .map(Hint::Shard)
                .ok_or_else(|| wrong(format!("there is no shard \"{name}\""))),
            (None, Some(value), table) => Ok(Hint::Key { table, value }),
            _ => Err(wrong(
                "it names neither a shard nor a key, or both".to_owned(),
            )),
        }
    }
}

/// Where a quoted text ends; a doubled quote does not end it.
fn closing_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|byte| *byte == b'\'')?;
        if bytes.get(at + 1) != Some(&b'\'') {
            return Some(at);
        }
        at += 2;
    }
}

/// The key column that a hint's value is for.
pub(super) fn hinted_column(
    table: Option<&str>,
    context: &Context<'_>,
) -> Result<KeyColumn, PlanError> {
    let refuse = |reason: String| PlanError::refused(Refusal::KeyValue, reason);
    let schema = &context.topology.schema;
    let column_of = |relation: &Relation| match &relation.placement {
        Placement::Sharded { key, .. } => relation
            .columns
            .get(*key)
            .and_then(|column| KeyColumn::new(&relation.name, column)),
        _ => None,
    };
    match table {
        Some(table) => {
            let (qualifier, name) = match table.split_once('.') {
                Some((qualifier, name)) => (Some(qualifier), name),
                None => (None, table),
            };
            let relation = schema
                .relation(qualifier, name, context.search_path)
                .ok_or_else(|| {
                    refuse(format!(
                        "the table \"{table}\" of the routing hint does not exist"
                    ))
                })?;
            column_of(relation).ok_or_else(|| {
                refuse(format!(
                    "the table \"{table}\" of the routing hint is not sharded"
                ))
            })
        }
        None => {
            let mut columns = schema
                .relations
                .values()
                .flat_map(|relations| relations.values())
                .filter_map(|relation| column_of(relation));
            let first = columns.next().ok_or_else(|| {
                refuse("the routing hint names a key, but no table is sharded".to_owned())
            })?;
            if columns.all(|column| column.equals_as(&first)) {
                Ok(first)
            } else {
                Err(refuse(
                    "the routing hint does not name the table, and keys are of different types"
                        .to_owned(),
                ))
            }
        }
    }
}

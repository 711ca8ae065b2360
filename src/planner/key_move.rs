//! How rows whose sharding key is changed come to the shard of the new key: the client's UPDATE runs where they are,
//! untouched, so that PostgreSQL itself checks and returns what it always does; then the rows, which have the new key by
//! now, are deleted there and inserted where they belong, all in one distributed transaction.
//!
//! Deleting and inserting must do no more than that, so whatever hangs on the table and would notice is refused.

use super::key::Source;
use super::plan::{KeyMove, Transport};
use crate::sql::lex::quote_identifier;
use crate::topology::ShardId;
use crate::topology::schema::{
    Column, ColumnDefault, ForeignKey, Placement, Relation, RelationKind, Schema,
};
use std::sync::Arc;

/// The texts that move rows of one table to one key, to whichever shard has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveText {
    delete: Arc<str>,
    insert: Arc<str>,
    columns: Arc<[Transport]>,
    parameter: Option<(u16, u32)>,
}

impl MoveText {
    /// The texts for rows of `relation` that get the key `source`.
    ///
    /// # Errors
    /// Why rows of the table are not moved, as a part of a sentence.
    pub fn new(relation: &Relation, source: &Source, schema: &Schema) -> Result<Self, String> {
        let Placement::Sharded { key, .. } = relation.placement else {
            return Err("the table is not sharded".to_owned());
        };
        let Some(key) = relation.columns.get(key) else {
            return Err("the key is not known".to_owned());
        };
        if let Some(reason) = obstacle(relation, key, schema) {
            return Err(reason);
        }
        let (value, parameter) = match source {
            Source::Text(text) => (format!("'{}'", text.replace('\'', "''")), None),
            Source::Number(number) => (number.to_string(), None),
            Source::Parameter { index, oid } => ("$1".to_owned(), Some((*index, *oid))),
            Source::Null | Source::ArrayText(_) | Source::ArrayParameter { .. } => {
                return Err("its new value is not one key".to_owned());
            }
        };
        let stored: Vec<&Column> = relation
            .columns
            .iter()
            .filter(|column| column.default != ColumnDefault::Generated)
            .collect();
        let names: Vec<String> = stored
            .iter()
            .map(|column| quote_identifier(&column.name))
            .collect();
        let names = names.join(", ");
        let table = format!(
            "{}.{}",
            quote_identifier(&relation.schema),
            quote_identifier(&relation.name)
        );
        let places: Vec<String> = (1..=stored.len())
            .map(|place| format!("${place}"))
            .collect();
        Ok(Self {
            delete: format!(
                "DELETE FROM {table} WHERE {} = CAST({value} AS {}) RETURNING {names}",
                quote_identifier(&key.name),
                key.type_name
            )
            .into(),
            insert: format!(
                "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE VALUES ({})",
                places.join(", ")
            )
            .into(),
            columns: stored.into_iter().map(Transport::of).collect(),
            parameter,
        })
    }

    /// The move to the shard that has the key.
    pub fn to(&self, target: ShardId) -> KeyMove {
        KeyMove {
            target,
            delete: self.delete.clone(),
            insert: self.insert.clone(),
            columns: self.columns.clone(),
            parameter: self.parameter,
        }
    }
}

/// What would notice that a row is deleted and inserted rather than updated.
fn obstacle(relation: &Relation, key: &Column, schema: &Schema) -> Option<String> {
    let own = (relation.schema.clone(), relation.name.clone());
    let table = &relation.name;
    if relation.kind != RelationKind::Table {
        return Some(format!("{table} is not a table"));
    }
    if let Some(trigger) = relation.triggers.first() {
        return Some(format!("{table} has the trigger {}", trigger.name));
    }
    if let Some(rule) = relation.rules.first() {
        return Some(format!("{table} has the rule {}", rule.definition.name));
    }
    if let Some(policy) = relation.policies.first() {
        return Some(format!("{table} has the policy {}", policy.name));
    }
    let placement = |(namespace, name): &(Arc<str>, Arc<str>)| {
        let relation = schema.relations.get(namespace)?.get(name)?;
        Some(relation.placement.clone())
    };
    let leaves = relation.foreign_keys.iter().find(|foreign_key| {
        foreign_key.columns.contains(&key.name)
            && placement(&foreign_key.table) != Some(Placement::Reference)
    });
    if let Some(foreign_key) = leaves {
        return Some(format!(
            "{} references rows of the old key",
            foreign_key.name
        ));
    }
    let others = schema.relations.values().flat_map(|names| names.values());
    for other in others {
        let references = |foreign_key: &&ForeignKey| foreign_key.table == own;
        if let Some(foreign_key) = other.foreign_keys.iter().find(references) {
            return Some(format!("{} references {table}", foreign_key.name));
        }
        if other.parents.contains(&own) {
            return Some(format!("{table} has the partition or child {}", other.name));
        }
    }
    (!relation.parents.is_empty()).then(|| format!("{table} is a partition or child"))
}

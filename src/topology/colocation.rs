//! Whether rows that belong together are on one shard: the tables of a foreign key, a table and its parts.

use super::ShardId;
use super::schema::{Declared, HashFamily, Placement, Relation, Schema};
use std::sync::Arc;

/// Where a table's rows are, as far as it says who is beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// With the key column.
    Sharded {
        /// Its name.
        key: Arc<str>,
        /// How it hashes; None: its type is not known yet.
        family: Option<HashFamily>,
    },
    /// On every shard.
    Reference,
    /// On one shard.
    Local(ShardId),
    /// Not known, or not a table's.
    Other,
}

impl Home {
    /// That of a relation.
    pub fn of(relation: &Relation) -> Self {
        match &relation.placement {
            Placement::Sharded { key, family } => Self::Sharded {
                key: relation.columns[*key].name.clone(),
                family: Some(*family),
            },
            Placement::Reference => Self::Reference,
            Placement::Local(shard) => Self::Local(*shard),
            Placement::Catalog | Placement::View => Self::Other,
        }
    }

    /// That of a table which the shard map declares.
    pub fn declared(declared: &Declared) -> Self {
        match declared {
            Declared::Sharded { key, .. } => Self::Sharded {
                key: key.clone(),
                family: None,
            },
            Declared::Reference => Self::Reference,
            Declared::Local(shard) => Self::Local(*shard),
        }
    }

    /// Whether a table here may be a part of one there.
    pub fn is_beside(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Sharded { key, family },
                Self::Sharded {
                    key: other_key,
                    family: other_family,
                },
            ) => {
                key == other_key
                    && (family.is_none() || other_family.is_none() || family == other_family)
            }
            (Self::Reference, Self::Reference) => true,
            (Self::Local(shard), Self::Local(other)) => shard == other,
            _ => false,
        }
    }
}

/// Why a foreign key from `own` to `other` would not hold; `pairs`: a column and the one that it references.
pub fn foreign_key_gap<'a>(
    own: &Home,
    other: &Home,
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<&'static str> {
    match (own, other) {
        (Home::Other, _) | (_, Home::Other | Home::Reference) => None,
        (
            Home::Sharded { key, family },
            Home::Sharded {
                key: other_key,
                family: other_family,
            },
        ) => {
            let mut pairs = pairs.into_iter();
            if !pairs.any(|(column, referenced)| *column == **key && *referenced == **other_key) {
                return Some("does not pair the sharding keys");
            }
            let apart = family.is_some() && other_family.is_some() && family != other_family;
            apart.then_some("pairs sharding keys of types that hash apart")
        }
        (Home::Local(shard), Home::Local(other)) if shard == other => None,
        (_, Home::Sharded { .. }) => Some("references a sharded table"),
        (_, Home::Local(_)) => Some("references a local table"),
    }
}

/// The foreign keys that PostgreSQL checks against the rows of one shard though the referenced row may be on another,
/// each with the reason.
pub fn unenforced(schema: &Schema) -> Vec<String> {
    let relations = schema.relations.values().flat_map(|within| within.values());
    let mut found = Vec::new();
    for relation in relations {
        for key in &relation.foreign_keys {
            let (namespace, name) = &key.table;
            let referenced = schema
                .relations
                .get(namespace)
                .and_then(|within| within.get(name));
            let Some(referenced) = referenced else {
                continue;
            };
            let columns = key.columns.iter().map(|column| &**column);
            let pairs = columns.zip(key.referenced.iter().map(|column| &**column));
            if let Some(gap) = foreign_key_gap(&Home::of(relation), &Home::of(referenced), pairs) {
                found.push(format!(
                    "the foreign key {} of {}.{} {gap}",
                    key.name, relation.schema, relation.name
                ));
            }
        }
    }
    found.sort();
    found
}

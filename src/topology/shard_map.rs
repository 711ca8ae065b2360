//! Lays the declared tables over the catalog of a shard: sets the placement of every relation, and finds the slots
//! of pinned keys. What is declared but does not exist yet is fine: it will be placed once it is created.

use super::hash;
use super::key_value::{KeyError, KeyType, KeyValue};
use super::schema::{Collation, Placement, Relation, RelationKind, Schema};
use super::slot::SlotSet;
use super::{ShardId, SlotId};
use crate::config::{Config, Pin, PinTarget, SHARDS_FILE, TableDeclaration, TableKind};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// A relation's schema and name.
type Name = (Arc<str>, Arc<str>);

/// A declaration that does not fit the catalog.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{SHARDS_FILE}:{line}: table \"{schema}.{table}\": {reason}")]
pub struct PlacementError {
    /// Line of the declaration.
    pub line: usize,
    /// Its schema.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// What does not fit.
    pub reason: PlacementReason,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementReason {
    /// A view, a sequence or the like.
    #[error("is not a table")]
    NotATable,
    /// No such key column, here or in a partition.
    #[error("key: there is no column \"{column}\"")]
    NoColumn {
        /// The declared key.
        column: String,
    },
    /// Values of this type do not hash here.
    #[error("key: column \"{column}\" of type {type_name} cannot be a sharding key")]
    KeyType {
        /// The declared key.
        column: String,
        /// As PostgreSQL prints it.
        type_name: Arc<str>,
    },
    /// Equal texts would have different slots.
    #[error("key: column \"{column}\" has a nondeterministic collation")]
    KeyCollation {
        /// The declared key.
        column: String,
    },
    /// A shard that is not in the map.
    #[error("shard: there is no shard \"{shard}\"")]
    NoShard {
        /// The declared shard.
        shard: String,
    },
    /// A parent shows the rows of its children, so both must be placed alike.
    #[error("it is a partition or child of \"{schema}.{table}\", which must be declared in the same way")]
    Parent {
        /// The parent's schema.
        schema: Arc<str>,
        /// The parent.
        table: Arc<str>,
    },
}

/// Every declaration that does not fit; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementErrors(pub Vec<PlacementError>);

impl std::error::Error for PlacementErrors {}

impl fmt::Display for PlacementErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

/// Sets [`Relation::placement`] of every relation, whatever it was:
///
/// - declared tables as declared, and their partitions and children like them;
/// - what the system schemas and `pgring` hold: [`Placement::Catalog`];
/// - views: the most demanding of what they read (see [`Placement::View`]);
/// - all else: [`Placement::Local`] on `default_shard`.
///
/// `shards` are names in the order of [`ShardId`].
///
/// # Errors
///
/// Every declaration that does not fit.
pub fn place(
    mut schema: Schema,
    tables: &[TableDeclaration],
    shards: &[Arc<str>],
    default_shard: ShardId,
) -> Result<Schema, PlacementErrors> {
    let mut errors = Vec::new();
    let mut declared: HashMap<(&str, &str), &TableDeclaration> = HashMap::new();
    for table in tables {
        declared.insert((&table.schema, &table.name), table);
    }
    let mut placements: HashMap<Name, Placement> = HashMap::new();
    for relation in relations(&schema) {
        let own = declared.get(&(&*relation.schema, &*relation.name)).copied();
        let root = own.or_else(|| inherited(&schema, &declared, relation));
        let placement = match root {
            _ if is_system(&relation.schema) => Placement::Catalog,
            None => Placement::Local(default_shard),
            Some(table) => match declared_placement(relation, table, shards) {
                Ok(placement) => placement,
                Err(reason) => {
                    errors.push(error(table, reason));
                    continue;
                }
            },
        };
        placements.insert(name_of(relation), placement);
    }
    for relation in relations(&schema) {
        errors.extend(parent_error(&schema, &declared, &placements, relation));
    }
    let views: Vec<(Name, Placement)> = relations(&schema)
        .filter(|relation| is_view(relation) && !is_system(&relation.schema))
        .map(|view| (name_of(view), view_placement(view, &placements)))
        .collect();
    placements.extend(views);
    if !errors.is_empty() {
        // The same declaration may fail for many partitions.
        let mut seen = HashSet::new();
        errors.retain(|error: &PlacementError| seen.insert(error.to_string()));
        errors.sort_by_key(|error| error.line);
        return Err(PlacementErrors(errors));
    }
    for relation in schema.relations.values_mut().flat_map(HashMap::values_mut) {
        if let Some(placement) = placements.remove(&name_of(relation)) {
            Arc::make_mut(relation).placement = placement;
        }
    }
    Ok(schema)
}

fn relations(schema: &Schema) -> impl Iterator<Item = &Relation> {
    schema.relations.values().flat_map(HashMap::values).map(Arc::as_ref)
}

fn name_of(relation: &Relation) -> Name {
    (Arc::clone(&relation.schema), Arc::clone(&relation.name))
}

/// Schemas that every shard has for itself.
fn is_system(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast" | "pgring")
}

fn is_view(relation: &Relation) -> bool {
    match relation.kind {
        RelationKind::View | RelationKind::MaterializedView => true,
        RelationKind::Table | RelationKind::Sequence | RelationKind::ForeignTable | RelationKind::Other => false,
    }
}

fn error(table: &TableDeclaration, reason: PlacementReason) -> PlacementError {
    PlacementError { line: table.line, schema: table.schema.clone(), table: table.name.clone(), reason }
}

/// The declaration of the nearest declared ancestor.
fn inherited<'d>(
    schema: &Schema,
    declared: &HashMap<(&str, &str), &'d TableDeclaration>,
    relation: &Relation,
) -> Option<&'d TableDeclaration> {
    let mut waiting: Vec<&Name> = relation.parents.iter().collect();
    let mut seen = HashSet::new();
    while let Some(parent) = waiting.pop() {
        if let Some(table) = declared.get(&(&*parent.0, &*parent.1)) {
            return Some(table);
        }
        if seen.insert(parent) {
            let parent = schema.relations.get(&parent.0).and_then(|relations| relations.get(&parent.1));
            waiting.extend(parent.iter().flat_map(|parent| &parent.parents));
        }
    }
    None
}

fn declared_placement(
    relation: &Relation,
    table: &TableDeclaration,
    shards: &[Arc<str>],
) -> Result<Placement, PlacementReason> {
    match relation.kind {
        RelationKind::Table => {}
        RelationKind::View
        | RelationKind::MaterializedView
        | RelationKind::Sequence
        | RelationKind::ForeignTable
        | RelationKind::Other => return Err(PlacementReason::NotATable),
    }
    match &table.kind {
        TableKind::Reference => Ok(Placement::Reference),
        TableKind::Local { shard } => {
            shard_named(shards, shard).map(Placement::Local).ok_or_else(|| PlacementReason::NoShard { shard: shard.clone() })
        }
        TableKind::Sharded { key: column } => {
            let key = relation.column(column).ok_or_else(|| PlacementReason::NoColumn { column: column.clone() })?;
            let definition = &relation.columns[key];
            let key_type = KeyType::of_column(definition).ok_or_else(|| PlacementReason::KeyType {
                column: column.clone(),
                type_name: Arc::clone(&definition.type_name),
            })?;
            match definition.collation {
                Collation::None | Collation::Bytes | Collation::Other => {}
                Collation::Nondeterministic => return Err(PlacementReason::KeyCollation { column: column.clone() }),
            }
            Ok(Placement::Sharded { key, family: key_type.family() })
        }
    }
}

fn shard_named(shards: &[Arc<str>], name: &str) -> Option<ShardId> {
    shards.iter().position(|shard| &**shard == name).map(|shard| ShardId(shard as u16))
}

/// A relation whose rows some parent shows must be placed like that parent.
fn parent_error(
    schema: &Schema,
    declared: &HashMap<(&str, &str), &TableDeclaration>,
    placements: &HashMap<Name, Placement>,
    relation: &Relation,
) -> Option<PlacementError> {
    let own = placements.get(&name_of(relation))?;
    let key_name = |relation: &Relation, placement: &Placement| match placement {
        Placement::Sharded { key, family } => Some((Arc::clone(&relation.columns[*key].name), *family)),
        Placement::Reference | Placement::Local(_) | Placement::Catalog | Placement::View => None,
    };
    let differs = |parent: &&Name| {
        let relation_of_parent = schema.relations.get(&parent.0).and_then(|relations| relations.get(&parent.1));
        let (Some(parent_relation), Some(theirs)) = (relation_of_parent, placements.get(*parent)) else { return false };
        // Column positions may differ between a parent and its child, names may not.
        match (own, theirs) {
            (Placement::Sharded { .. }, Placement::Sharded { .. }) => {
                key_name(relation, own) != key_name(parent_relation, theirs)
            }
            (own, theirs) => own != theirs,
        }
    };
    let (schema_name, table) = relation.parents.iter().find(differs)?;
    let own_declaration = declared.get(&(&*relation.schema, &*relation.name)).copied();
    let declaration = own_declaration.or_else(|| inherited(schema, declared, relation))?;
    let reason = PlacementReason::Parent { schema: Arc::clone(schema_name), table: Arc::clone(table) };
    Some(error(declaration, reason))
}

fn view_placement(view: &Relation, placements: &HashMap<Name, Placement>) -> Placement {
    let mut most = Placement::Reference;
    for read in &view.reads {
        let next = placements.get(read).cloned().unwrap_or(Placement::View);
        most = match (most, next) {
            (Placement::View | Placement::Sharded { .. }, _) | (_, Placement::View | Placement::Sharded { .. }) => {
                Placement::View
            }
            (Placement::Local(one), Placement::Local(other)) if one != other => Placement::View,
            (Placement::Local(shard), _) | (_, Placement::Local(shard)) => Placement::Local(shard),
            (Placement::Catalog, _) | (_, Placement::Catalog) => Placement::Catalog,
            (Placement::Reference, Placement::Reference) => Placement::Reference,
        };
    }
    most
}

/// A pin whose slots cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{SHARDS_FILE}:{line}: pin: {reason}")]
pub struct PinError {
    /// Line of the pin.
    pub line: usize,
    /// Why.
    pub reason: PinReason,
}

/// Why a pin's slots cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinReason {
    /// The table is not there yet, or is not sharded: the key's type is not known.
    #[error("table \"{schema}.{table}\" does not exist yet")]
    NoTable {
        /// Its schema.
        schema: String,
        /// Its name.
        table: String,
    },
    /// The key is not of the key column's type.
    #[error("key \"{key}\" is {error}")]
    Key {
        /// As given.
        key: String,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A shard that is not in the map.
    #[error("there is no shard \"{shard}\"")]
    NoShard {
        /// As given.
        shard: String,
    },
    /// An earlier pin puts some of the slots elsewhere.
    #[error("slots {slots} are pinned to \"{shard}\" already")]
    Twice {
        /// Which.
        slots: SlotSet,
        /// The other pin's shard.
        shard: Arc<str>,
    },
}

/// The pinned slots, by a placed schema; `shards` are names in the order of [`ShardId`]. Pins that cannot be told
/// are left out and returned beside: before tables exist that may be fine.
pub fn pinned_slots(
    pins: &[Pin],
    schema: &Schema,
    shards: &[Arc<str>],
) -> (BTreeMap<SlotId, ShardId>, Vec<PinError>) {
    let mut pinned: BTreeMap<SlotId, ShardId> = BTreeMap::new();
    let mut errors = Vec::new();
    for pin in pins {
        if let Err(reason) = add_pin(&mut pinned, pin, schema, shards) {
            errors.push(PinError { line: pin.line, reason });
        }
    }
    (pinned, errors)
}

fn add_pin(
    pinned: &mut BTreeMap<SlotId, ShardId>,
    pin: &Pin,
    schema: &Schema,
    shards: &[Arc<str>],
) -> Result<(), PinReason> {
    let shard = shard_named(shards, &pin.shard).ok_or_else(|| PinReason::NoShard { shard: pin.shard.clone() })?;
    let slots: SlotSet = match &pin.target {
        PinTarget::Slots { first, last } => (*first..=*last).map(SlotId).collect(),
        PinTarget::Key { schema: schema_name, table, key } => {
            let relation = schema.relations.get(schema_name.as_str()).and_then(|relations| relations.get(table.as_str()));
            let key_type = relation.and_then(|relation| relation.key_type());
            let no_table = || PinReason::NoTable { schema: schema_name.clone(), table: table.clone() };
            let value = KeyValue::from_text(key_type.ok_or_else(no_table)?, key);
            let value = value.map_err(|error| PinReason::Key { key: key.clone(), error })?;
            [hash::slot(&value)].into_iter().collect()
        }
    };
    let elsewhere = |slot: &SlotId| pinned.get(slot).is_some_and(|other| *other != shard);
    if let Some(first) = slots.iter().find(elsewhere) {
        let other = pinned[&first];
        let twice = slots.iter().filter(|slot| pinned.get(slot) == Some(&other)).collect();
        return Err(PinReason::Twice { slots: twice, shard: Arc::clone(&shards[usize::from(other.0)]) });
    }
    pinned.extend(slots.iter().map(|slot| (slot, shard)));
    Ok(())
}

/// The names of the declared shards, in the order of [`ShardId`].
pub fn shard_names(config: &Config) -> Vec<Arc<str>> {
    config.shards.iter().map(|shard| Arc::from(shard.name.as_str())).collect()
}

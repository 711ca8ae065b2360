//! Lays the declared tables over the catalog of a shard: sets the placement of every relation, and finds the slots
//! of pinned keys. What is declared but does not exist yet is fine: it will be placed once it is created.

use super::hash;
use super::key_value::{KeyError, KeyType, KeyValue};
use super::schema::{Collation, Declared, Placement, Relation, RelationKind, Schema};
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
    #[error(
        "it is a partition or child of \"{schema}.{table}\", which must be declared in the same way"
    )]
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
/// `shards` are names in the order of [`ShardId`]. Every declaration that does not fit is returned beside, in the order
/// of the file; the relations that it is about become [`Schema::misfits`], and all others are placed.
pub fn place(
    mut schema: Schema,
    tables: &[TableDeclaration],
    shards: &[Arc<str>],
    default_shard: ShardId,
) -> (Schema, Vec<PlacementError>) {
    let mut errors = Vec::new();
    let mut misfits: HashMap<Name, Arc<str>> = HashMap::new();
    let mut declared: HashMap<(&str, &str), &TableDeclaration> = HashMap::new();
    for table in tables {
        declared.insert((&table.schema, &table.name), table);
    }
    let known = tables.iter().filter_map(|table| {
        let name: Name = (table.schema.as_str().into(), table.name.as_str().into());
        Some((name, declaration(table, shards)?))
    });
    schema.declared = known.collect();
    let mut placements: HashMap<Name, Placement> = HashMap::new();
    let mut unique_per_shard: HashSet<Name> = HashSet::new();
    for relation in relations(&schema) {
        let own = declared.get(&(&*relation.schema, &*relation.name)).copied();
        let root = own.or_else(|| inherited(&schema, &declared, relation));
        let placement = match root {
            _ if is_system(&relation.schema) => Placement::Catalog,
            None => Placement::Local(default_shard),
            Some(table) => match declared_placement(relation, table, shards) {
                Ok(placement) => placement,
                Err(reason) => {
                    let error = error(table, reason);
                    misfits.insert(name_of(relation), error.to_string().into());
                    errors.push(error);
                    continue;
                }
            },
        };
        if let Some(TableKind::Sharded {
            unique_per_shard: true,
            ..
        }) = root.map(|table| &table.kind)
        {
            unique_per_shard.insert(name_of(relation));
        }
        placements.insert(name_of(relation), placement);
    }
    for relation in relations(&schema) {
        if let Some((error, parent)) = parent_error(&schema, &declared, &placements, relation) {
            let reason: Arc<str> = error.to_string().into();
            misfits.insert(name_of(relation), reason.clone());
            misfits.entry(parent).or_insert(reason);
            errors.push(error);
        }
    }
    spread_misfits(&schema, &mut misfits);
    placements.retain(|name, _| !misfits.contains_key(name));
    let views: Vec<(Name, Placement)> = relations(&schema)
        .filter(|relation| is_view(relation) && !is_system(&relation.schema))
        .map(|view| (name_of(view), view_placement(view, &placements)))
        .collect();
    placements.extend(views);
    // The same declaration may fail for many partitions.
    let mut seen = HashSet::new();
    errors.retain(|error: &PlacementError| seen.insert(error.to_string()));
    errors.sort_by_key(|error| error.line);
    schema.misfits = misfits;
    for relation in schema.relations.values_mut().flat_map(HashMap::values_mut) {
        let name = name_of(relation);
        if let Some(placement) = placements.remove(&name) {
            let relation = Arc::make_mut(relation);
            relation.placement = placement;
            relation.unique_per_shard = unique_per_shard.contains(&name);
        }
    }
    (schema, errors)
}

/// As [`place`], where no declaration may fail to fit.
///
/// # Errors
///
/// Every declaration that does not fit.
pub fn place_all(
    schema: Schema,
    tables: &[TableDeclaration],
    shards: &[Arc<str>],
    default_shard: ShardId,
) -> Result<Schema, PlacementErrors> {
    match place(schema, tables, shards, default_shard) {
        (schema, errors) if errors.is_empty() => Ok(schema),
        (_, errors) => Err(PlacementErrors(errors)),
    }
}

/// What shows the rows of a misfit, or is shown by one, is one too.
fn spread_misfits(schema: &Schema, misfits: &mut HashMap<Name, Arc<str>>) {
    loop {
        let mut more: Vec<(Name, Arc<str>)> = Vec::new();
        for relation in relations(schema).filter(|relation| !relation.parents.is_empty()) {
            let own = name_of(relation);
            match misfits.get(&own) {
                Some(reason) => {
                    let parents = relation.parents.iter();
                    let parents = parents.filter(|parent| !misfits.contains_key(*parent));
                    more.extend(parents.map(|parent| (parent.clone(), reason.clone())));
                }
                None => {
                    let mut reasons = relation.parents.iter();
                    if let Some(reason) = reasons.find_map(|parent| misfits.get(parent)) {
                        more.push((own, reason.clone()));
                    }
                }
            }
        }
        if more.is_empty() {
            return;
        }
        misfits.extend(more);
    }
}

fn relations(schema: &Schema) -> impl Iterator<Item = &Relation> {
    schema
        .relations
        .values()
        .flat_map(HashMap::values)
        .map(Arc::as_ref)
}

fn name_of(relation: &Relation) -> Name {
    (Arc::clone(&relation.schema), Arc::clone(&relation.name))
}

/// Schemas that every shard has for itself.
fn is_system(schema: &str) -> bool {
    matches!(
        schema,
        "pg_catalog" | "information_schema" | "pg_toast" | "pgring"
    )
}

fn is_view(relation: &Relation) -> bool {
    match relation.kind {
        RelationKind::View | RelationKind::MaterializedView => true,
        RelationKind::Table
        | RelationKind::Sequence
        | RelationKind::ForeignTable
        | RelationKind::Other => false,
    }
}

fn error(table: &TableDeclaration, reason: PlacementReason) -> PlacementError {
    PlacementError {
        line: table.line,
        schema: table.schema.clone(),
        table: table.name.clone(),
        reason,
    }
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
            let parent = schema
                .relations
                .get(&parent.0)
                .and_then(|relations| relations.get(&parent.1));
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
            shard_named(shards, shard)
                .map(Placement::Local)
                .ok_or_else(|| PlacementReason::NoShard {
                    shard: shard.clone(),
                })
        }
        TableKind::Sharded { key: column, .. } => {
            let key = relation
                .column(column)
                .ok_or_else(|| PlacementReason::NoColumn {
                    column: column.clone(),
                })?;
            let definition = &relation.columns[key];
            let key_type =
                KeyType::of_column(definition).ok_or_else(|| PlacementReason::KeyType {
                    column: column.clone(),
                    type_name: Arc::clone(&definition.type_name),
                })?;
            match definition.collation {
                Collation::None | Collation::Bytes | Collation::Other => {}
                Collation::Nondeterministic => {
                    return Err(PlacementReason::KeyCollation {
                        column: column.clone(),
                    });
                }
            }
            Ok(Placement::Sharded {
                key,
                family: key_type.family(),
            })
        }
    }
}

fn declaration(table: &TableDeclaration, shards: &[Arc<str>]) -> Option<Declared> {
    Some(match &table.kind {
        TableKind::Sharded {
            key,
            unique_per_shard,
        } => Declared::Sharded {
            key: key.as_str().into(),
            unique_per_shard: *unique_per_shard,
        },
        TableKind::Reference => Declared::Reference,
        TableKind::Local { shard } => Declared::Local(shard_named(shards, shard)?),
    })
}

fn shard_named(shards: &[Arc<str>], name: &str) -> Option<ShardId> {
    shards
        .iter()
        .position(|shard| &**shard == name)
        .map(|shard| ShardId(shard as u16))
}

/// A relation whose rows some parent shows must be placed like that parent; which parent it is not.
fn parent_error(
    schema: &Schema,
    declared: &HashMap<(&str, &str), &TableDeclaration>,
    placements: &HashMap<Name, Placement>,
    relation: &Relation,
) -> Option<(PlacementError, Name)> {
    let own = placements.get(&name_of(relation))?;
    let key_name = |relation: &Relation, placement: &Placement| match placement {
        Placement::Sharded { key, family } => {
            Some((Arc::clone(&relation.columns[*key].name), *family))
        }
        Placement::Reference | Placement::Local(_) | Placement::Catalog | Placement::View => None,
    };
    let differs = |parent: &&Name| {
        let relation_of_parent = schema
            .relations
            .get(&parent.0)
            .and_then(|relations| relations.get(&parent.1));
        let (Some(parent_relation), Some(theirs)) = (relation_of_parent, placements.get(*parent))
        else {
            return false;
        };
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
    let reason = PlacementReason::Parent {
        schema: Arc::clone(schema_name),
        table: Arc::clone(table),
    };
    let parent = (Arc::clone(schema_name), Arc::clone(table));
    Some((error(declaration, reason), parent))
}

fn view_placement(view: &Relation, placements: &HashMap<Name, Placement>) -> Placement {
    let mut most = Placement::Reference;
    for read in &view.reads {
        let next = placements.get(read).cloned().unwrap_or(Placement::View);
        most = match (most, next) {
            (Placement::View | Placement::Sharded { .. }, _)
            | (_, Placement::View | Placement::Sharded { .. }) => Placement::View,
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
    #[error("slots {slots} are pinned to \"{shard}\" already", slots = .slots.brief())]
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
            errors.push(PinError {
                line: pin.line,
                reason,
            });
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
    let shard = shard_named(shards, &pin.shard).ok_or_else(|| PinReason::NoShard {
        shard: pin.shard.clone(),
    })?;
    let slots: SlotSet = match &pin.target {
        PinTarget::Slots { first, last } => (*first..=*last).map(SlotId).collect(),
        PinTarget::Key {
            schema: schema_name,
            table,
            key,
        } => {
            let relation = schema
                .relations
                .get(schema_name.as_str())
                .and_then(|relations| relations.get(table.as_str()));
            let key_type = relation.and_then(|relation| relation.key_type());
            let no_table = || PinReason::NoTable {
                schema: schema_name.clone(),
                table: table.clone(),
            };
            let value = KeyValue::from_text(key_type.ok_or_else(no_table)?, key);
            let value = value.map_err(|error| PinReason::Key {
                key: key.clone(),
                error,
            })?;
            [hash::slot(&value)].into_iter().collect()
        }
    };
    let elsewhere = |slot: &SlotId| pinned.get(slot).is_some_and(|other| *other != shard);
    if let Some(first) = slots.iter().find(elsewhere) {
        let other = pinned[&first];
        let twice = slots
            .iter()
            .filter(|slot| pinned.get(slot) == Some(&other))
            .collect();
        return Err(PinReason::Twice {
            slots: twice,
            shard: Arc::clone(&shards[usize::from(other.0)]),
        });
    }
    pinned.extend(slots.iter().map(|slot| (slot, shard)));
    Ok(())
}

/// The names of the declared shards, in the order of [`ShardId`].
pub fn shard_names(config: &Config) -> Vec<Arc<str>> {
    config
        .shards
        .iter()
        .map(|shard| Arc::from(shard.name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::schema::{Column, ColumnDefault, HashFamily};
    use super::*;

    const DEFAULT: ShardId = ShardId(0);

    fn name(qualified: &str) -> Name {
        let (schema, name) = qualified.split_once('.').unwrap_or(("public", qualified));
        (schema.into(), name.into())
    }

    fn column(name: &str, type_oid: u32, type_name: &str, collation: Collation) -> Column {
        Column {
            name: name.into(),
            type_oid,
            type_name: type_name.into(),
            collation,
            collation_name: None,
            default: ColumnDefault::Null,
            not_null: false,
        }
    }

    /// A table with an integer `id`, a text `code`, a `fuzzy` text and a `ratio`.
    fn table(qualified: &str) -> Relation {
        let (schema, name) = name(qualified);
        let columns = vec![
            column("id", 23, "integer", Collation::None),
            column("code", 25, "text", Collation::Other),
            column("fuzzy", 25, "text", Collation::Nondeterministic),
            column("ratio", 701, "double precision", Collation::None),
        ];
        Relation {
            columns,
            ..Relation::new(schema, name, RelationKind::Table, Placement::Reference)
        }
    }

    fn view(qualified: &str, reads: &[&str]) -> Relation {
        let reads = reads.iter().map(|read| name(read)).collect();
        Relation {
            kind: RelationKind::View,
            reads,
            ..table(qualified)
        }
    }

    fn child(qualified: &str, parent: &str) -> Relation {
        Relation {
            parents: vec![name(parent)],
            ..table(qualified)
        }
    }

    fn schema(relations: Vec<Relation>) -> Schema {
        let mut schema = Schema::default();
        for relation in relations {
            let (within, name) = name_of(&relation);
            schema
                .relations
                .entry(within)
                .or_default()
                .insert(name, Arc::new(relation));
        }
        schema
    }

    fn declare(line: usize, qualified: &str, kind: TableKind) -> TableDeclaration {
        let (schema, name) = name(qualified);
        TableDeclaration {
            schema: schema.to_string(),
            name: name.to_string(),
            kind,
            line,
        }
    }

    fn sharded(line: usize, qualified: &str, key: &str) -> TableDeclaration {
        declare(
            line,
            qualified,
            TableKind::Sharded {
                key: key.to_owned(),
                unique_per_shard: false,
            },
        )
    }

    fn shards() -> [Arc<str>; 3] {
        ["s0", "s1", "s2"].map(Arc::from)
    }

    fn placed(relations: Vec<Relation>, tables: &[TableDeclaration]) -> Schema {
        place_all(schema(relations), tables, &shards(), DEFAULT).unwrap()
    }

    fn placement(schema: &Schema, qualified: &str) -> Placement {
        let (within, name) = name(qualified);
        schema.relations[&within][&name].placement.clone()
    }

    fn errors(relations: Vec<Relation>, tables: &[TableDeclaration]) -> String {
        place_all(schema(relations), tables, &shards(), DEFAULT)
            .unwrap_err()
            .to_string()
    }

    const BY_ID: Placement = Placement::Sharded {
        key: 0,
        family: HashFamily::Integer,
    };

    #[test]
    fn tables_are_placed_as_declared_and_others_on_the_default_shard() {
        let local = TableKind::Local {
            shard: "s2".to_owned(),
        };
        let schema = placed(
            vec![
                table("orders"),
                table("codes"),
                table("audit.log"),
                table("other"),
                table("pg_catalog.pg_class"),
                table("pgring.ownership"),
            ],
            &[
                sharded(1, "orders", "id"),
                declare(2, "codes", TableKind::Reference),
                declare(3, "audit.log", local),
                sharded(4, "not_yet", "id"),
            ],
        );
        assert_eq!(placement(&schema, "orders"), BY_ID);
        assert_eq!(placement(&schema, "codes"), Placement::Reference);
        assert_eq!(
            placement(&schema, "audit.log"),
            Placement::Local(ShardId(2))
        );
        assert_eq!(placement(&schema, "other"), Placement::Local(DEFAULT));
        assert_eq!(
            placement(&schema, "pg_catalog.pg_class"),
            Placement::Catalog
        );
        assert_eq!(placement(&schema, "pgring.ownership"), Placement::Catalog);
        assert_eq!(
            schema.relations["public"]["orders"].key_type(),
            Some(KeyType::Int4)
        );
    }

    #[test]
    fn partitions_follow_their_declared_ancestor_by_the_name_of_the_key() {
        let mut leaf = child("orders_1_1", "orders_1");
        leaf.columns.reverse();
        let schema = placed(
            vec![table("orders"), child("orders_1", "orders"), leaf],
            &[sharded(1, "orders", "id")],
        );
        assert_eq!(placement(&schema, "orders_1"), BY_ID);
        assert_eq!(
            placement(&schema, "orders_1_1"),
            Placement::Sharded {
                key: 3,
                family: HashFamily::Integer
            }
        );
    }

    #[test]
    fn views_are_as_demanding_as_what_they_read() {
        let local = |shard: &str| TableKind::Local {
            shard: shard.to_owned(),
        };
        let schema = placed(
            vec![
                table("orders"),
                table("codes"),
                table("one"),
                table("two"),
                table("pg_catalog.pg_class"),
                view("nothing", &[]),
                view("of_codes", &["codes"]),
                view("of_catalog", &["codes", "pg_catalog.pg_class"]),
                view("of_one", &["codes", "one", "pg_catalog.pg_class"]),
                view("of_both", &["one", "two"]),
                view("of_orders", &["codes", "orders"]),
                view("of_unknown", &["codes", "gone"]),
                view("pg_catalog.pg_views", &["pg_catalog.pg_class"]),
            ],
            &[
                sharded(1, "orders", "id"),
                declare(2, "codes", TableKind::Reference),
                declare(3, "one", local("s1")),
                declare(4, "two", local("s2")),
            ],
        );
        for (view, expected) in [
            ("nothing", Placement::Reference),
            ("of_codes", Placement::Reference),
            ("of_catalog", Placement::Catalog),
            ("of_one", Placement::Local(ShardId(1))),
            ("of_both", Placement::View),
            ("of_orders", Placement::View),
            ("of_unknown", Placement::View),
            ("pg_catalog.pg_views", Placement::Catalog),
        ] {
            assert_eq!(placement(&schema, view), expected, "{view}");
        }
    }

    #[test]
    fn declarations_that_do_not_fit_are_all_named() {
        let local = TableKind::Local {
            shard: "s9".to_owned(),
        };
        let found = errors(
            vec![
                table("a"),
                table("b"),
                table("c"),
                view("d", &["a"]),
                table("e"),
            ],
            &[
                sharded(1, "a", "nope"),
                sharded(2, "b", "ratio"),
                sharded(3, "c", "fuzzy"),
                declare(4, "d", TableKind::Reference),
                declare(5, "e", local),
            ],
        );
        assert_eq!(
            found,
            "shards.toml:1: table \"public.a\": key: there is no column \"nope\"\n\
             shards.toml:2: table \"public.b\": key: column \"ratio\" of type double precision cannot be a sharding key\n\
             shards.toml:3: table \"public.c\": key: column \"fuzzy\" has a nondeterministic collation\n\
             shards.toml:4: table \"public.d\": is not a table\n\
             shards.toml:5: table \"public.e\": shard: there is no shard \"s9\""
        );
    }

    #[test]
    fn a_parent_and_its_children_must_be_placed_alike() {
        let expected = "shards.toml:1: table \"public.child\": it is a partition or child of \"public.parent\", \
                        which must be declared in the same way";
        let relations = || vec![table("parent"), child("child", "parent")];
        assert_eq!(errors(relations(), &[sharded(1, "child", "id")]), expected);
        assert_eq!(
            errors(
                relations(),
                &[sharded(1, "child", "id"), sharded(2, "parent", "code")]
            ),
            expected
        );
        let both = [sharded(1, "child", "id"), sharded(2, "parent", "id")];
        assert_eq!(placement(&placed(relations(), &both), "child"), BY_ID);
        let two_parents = Relation {
            parents: vec![name("parent"), name("other")],
            ..table("child")
        };
        let found = errors(
            vec![table("parent"), table("other"), two_parents],
            &[sharded(1, "parent", "id")],
        );
        assert!(found.contains("child of \"public.other\""), "{found}");
    }

    #[test]
    fn inheritance_that_goes_in_a_circle_ends() {
        let schema = placed(vec![child("a", "b"), child("b", "a")], &[]);
        assert_eq!(placement(&schema, "a"), Placement::Local(DEFAULT));
    }

    fn pin(line: usize, shard: &str, target: PinTarget) -> Pin {
        Pin {
            target,
            shard: shard.to_owned(),
            line,
        }
    }

    fn key(table: &str, key: &str) -> PinTarget {
        PinTarget::Key {
            schema: "public".to_owned(),
            table: table.to_owned(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn pins_are_slots_of_keys_and_ranges() {
        let schema = placed(vec![table("orders")], &[sharded(1, "orders", "id")]);
        let slot = hash::slot(&KeyValue::Integer(42));
        let pins = [
            pin(1, "s1", key("orders", " 42")),
            pin(
                2,
                "s2",
                PinTarget::Slots {
                    first: slot.0 + 1,
                    last: slot.0 + 3,
                },
            ),
        ];
        let (pinned, errors) = pinned_slots(&pins, &schema, &shards());
        assert_eq!(errors, []);
        let pinned: Vec<_> = pinned
            .into_iter()
            .map(|(pinned, shard)| (pinned.0 - slot.0, shard.0))
            .collect();
        assert_eq!(pinned, [(0, 1), (1, 2), (2, 2), (3, 2)]);
    }

    #[test]
    fn pins_that_cannot_be_told_are_left_out_and_named() {
        let schema = placed(vec![table("orders")], &[sharded(1, "orders", "id")]);
        let pins = [
            pin(1, "s1", PinTarget::Slots { first: 0, last: 9 }),
            pin(2, "s1", key("not_yet", "1")),
            pin(3, "s1", key("orders", "one")),
            pin(4, "s9", key("orders", "1")),
            pin(5, "s2", PinTarget::Slots { first: 5, last: 12 }),
        ];
        let (pinned, errors) = pinned_slots(&pins, &schema, &shards());
        assert_eq!(pinned.len(), 10);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "shards.toml:2: pin: table \"public.not_yet\" does not exist yet",
                "shards.toml:3: pin: key \"one\" is not a value of the key's type",
                "shards.toml:4: pin: there is no shard \"s9\"",
                "shards.toml:5: pin: slots {[5,10)} are pinned to \"s1\" already",
            ]
        );
    }
}

//! [`advise`]: which columns an unsharded database could be sharded by, and what each would mean: the statements that
//! would run on one shard, by this planner's own word; how evenly the rows would lie; which constraints would not hold.
//! Knows the catalog, statistics and statements as data; asks nobody.

use super::attached;
use super::plan::Tier;
use super::template::{Binding, Context, template};
use crate::config::{TableDeclaration, TableKind};
use crate::sql::lex::{self, LexLimits};
use crate::sql::statement::{self, Statement};
use crate::topology::key_value::KeyType;
use crate::topology::schema::{HashFamily, Relation, RelationKind, Schema};
use crate::topology::snapshot::{Membership, Shard, SlotOwner, Topology};
use crate::topology::{Epoch, SLOT_COUNT, ShardId, colocation, shard_map};
use crate::wire::error_response::ErrorReply as _;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Schema and name.
type Name = (Arc<str>, Arc<str>);

/// A table of no more rows and bytes may be copied to every shard.
const REFERENCE_ROWS_MAX: f64 = 100_000.0;
/// See [`REFERENCE_ROWS_MAX`].
const REFERENCE_BYTES_MAX: u64 = 64 << 20;
/// Columns that are looked at closely: those whose tables have the most bytes.
const CANDIDATES_MAX: usize = 12;
/// Statements that a candidate shows as those that cross shards most often.
const EXAMPLES_MAX: usize = 5;
/// A statement is longer than this only by mistake.
const LIMITS: LexLimits = LexLimits {
    tokens_max: 20_000,
    depth_max: 500,
};
/// Values for this many parameters are made up.
const PARAMETERS_MAX: usize = 256;

/// What statistics say of a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColumnFacts {
    /// Different values.
    pub distinct: f64,
    /// The share of the rows that have the most common value.
    pub top_share: f64,
    /// The share of the rows that have none.
    pub null_share: f64,
}

/// What statistics say of a table, its partitions included.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableFacts {
    /// About so many rows.
    pub rows: f64,
    /// With indexes and all.
    pub bytes: u64,
    /// By column; one that was never analyzed has none.
    pub columns: HashMap<Arc<str>, ColumnFacts>,
}

/// A database without shards.
#[derive(Debug)]
pub struct Database {
    /// Its catalog; placements are not looked at.
    pub schema: Schema,
    /// By table.
    pub tables: HashMap<Name, TableFacts>,
    /// Statements, with parameters in place of values, and how often each was run.
    pub statements: Vec<(Arc<str>, u64)>,
    /// Where their names are looked up.
    pub search_path: Vec<Arc<str>>,
}

/// How the calls of the statements would be answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calls {
    /// By one shard.
    pub one_shard: u64,
    /// By any shard, or the one that has the table: no sharded table is concerned.
    pub unsharded: u64,
    /// By several.
    pub several: u64,
    /// Not at all.
    pub refused: u64,
    /// The planner cannot tell: statistics cut or changed the text.
    pub unknown: u64,
}

impl Calls {
    fn known(&self) -> u64 {
        self.one_shard + self.unsharded + self.several + self.refused
    }

    /// The share of the calls that one shard answers; None without calls.
    pub fn one_shard_share(&self) -> Option<f64> {
        let known = self.known();
        (known > 0).then(|| (self.one_shard + self.unsharded) as f64 / known as f64)
    }
}

/// A statement that one shard does not answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Its text.
    pub sql: Arc<str>,
    /// How often it was run.
    pub calls: u64,
    /// The refusal, if it would be.
    pub refusal: Option<String>,
}

/// A way to shard the database.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Sharded tables with their keys.
    pub keys: Vec<(Name, Arc<str>)>,
    /// All that the shard map would say of tables.
    pub declarations: Vec<TableDeclaration>,
    /// The calls.
    pub calls: Calls,
    /// The most frequent calls that are not answered by one shard.
    pub examples: Vec<Example>,
    /// The share of all bytes that would be spread.
    pub spread_share: f64,
    /// Different values of the key in the table that has most; None if nothing is known.
    pub distinct: Option<f64>,
    /// The largest share of a table's rows that one value has, with the table.
    pub top: Option<(f64, Name)>,
    /// What would not hold, or would be refused.
    pub obstacles: Vec<String>,
}

impl Candidate {
    /// More is better. By calls first; a tenant that has a large part of the rows, or too few tenants, weigh against it.
    fn score(&self, shards: usize) -> f64 {
        let calls = self.calls.one_shard_share();
        let refused = self.calls.refused as f64 / self.calls.known().max(1) as f64;
        let top = self.top.as_ref().map_or(0.0, |(share, _)| *share);
        // A fair share is one over the shards: what one value has above it cannot be spread.
        let skew = (top - 1.0 / shards as f64).max(0.0);
        let few = match self.distinct {
            Some(distinct) if distinct < 16.0 * shards as f64 => 0.5,
            Some(_) | None => 0.0,
        };
        calls.unwrap_or(0.5) + 0.5 * self.spread_share
            - refused
            - 2.0 * skew
            - few
            - 0.01 * self.obstacles.len() as f64
    }
}

/// The ways to shard the database over so many shards, the best first.
pub fn advise(database: &Database, shards: usize) -> Vec<Candidate> {
    let mut classes = Classes::of(&database.schema).classes();
    let bytes = |class: &Class| -> u64 {
        let tables = class
            .keys
            .keys()
            .filter_map(|name| database.tables.get(name));
        tables.map(|table| table.bytes).sum()
    };
    classes.sort_by_key(|class| Reverse((bytes(class), class.keys.len())));
    classes.truncate(CANDIDATES_MAX);
    let candidates = classes.iter().map(|class| weigh(class, database, shards));
    let mut candidates: Vec<Candidate> = candidates.collect();
    candidates.sort_by(|a, b| b.score(shards).total_cmp(&a.score(shards)));
    candidates
}

/// Columns that have the same values, as far as can be told: each may be its table's key.
struct Class {
    keys: BTreeMap<Name, usize>,
}

/// Sets of columns that grow together.
struct Classes<'a> {
    columns: Vec<(&'a Relation, usize)>,
    /// By column: another of its set, or itself.
    parents: Vec<usize>,
}

impl<'a> Classes<'a> {
    fn of(schema: &'a Schema) -> Self {
        let mut columns = Vec::new();
        for relation in tables(schema) {
            columns.extend((0..relation.columns.len()).map(|column| (relation, column)));
        }
        let mut classes = Self {
            parents: (0..columns.len()).collect(),
            columns,
        };
        classes.join_foreign_keys(schema);
        classes.join_names();
        classes
    }

    fn family(&self, index: usize) -> Option<HashFamily> {
        let (relation, column) = self.columns[index];
        KeyType::of_column(&relation.columns[column]).map(KeyType::family)
    }

    fn root(&mut self, index: usize) -> usize {
        let mut root = index;
        while self.parents[root] != root {
            root = self.parents[root];
        }
        self.parents[index] = root;
        root
    }

    /// One set of two, unless their values hash apart.
    fn join(&mut self, one: usize, other: usize) {
        let family = self.family(one);
        if family.is_some() && family == self.family(other) {
            let (one, other) = (self.root(one), self.root(other));
            self.parents[other] = one;
        }
    }

    fn find(&self, table: &Name, column: &str) -> Option<usize> {
        let is_it = |(relation, index): &(&Relation, usize)| {
            (&relation.schema, &relation.name) == (&table.0, &table.1)
                && *relation.columns[*index].name == *column
        };
        self.columns.iter().position(is_it)
    }

    fn join_foreign_keys(&mut self, schema: &Schema) {
        for relation in tables(schema) {
            let own = (relation.schema.clone(), relation.name.clone());
            for key in &relation.foreign_keys {
                for (column, referenced) in key.columns.iter().zip(&key.referenced) {
                    let one = self.find(&own, column);
                    let other = self.find(&key.table, referenced);
                    if let (Some(one), Some(other)) = (one, other) {
                        self.join(one, other);
                    }
                }
            }
        }
    }

    /// Many databases have no foreign keys: `customer_id` is the same in all tables, and the `id` of `customers`.
    fn join_names(&mut self) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for index in 0..self.columns.len() {
            let (relation, column) = self.columns[index];
            let name = &*relation.columns[column].name;
            if name.ends_with("_id") || name.ends_with("_uuid") {
                let known = *first.entry(name).or_insert(index);
                self.join(known, index);
            }
        }
        for index in 0..self.columns.len() {
            let (relation, column) = self.columns[index];
            if &*relation.columns[column].name != "id" {
                continue;
            }
            let singular =
                |suffix: &str| Some(format!("{}_id", relation.name.strip_suffix(suffix)?));
            let names = [singular("s"), singular("es"), singular("")];
            for name in names.into_iter().flatten() {
                if let Some(known) = first.get(&*name) {
                    self.join(*known, index);
                }
            }
        }
    }

    fn classes(mut self) -> Vec<Class> {
        let mut classes: BTreeMap<usize, BTreeMap<Name, usize>> = BTreeMap::new();
        for index in 0..self.columns.len() {
            let (relation, column) = self.columns[index];
            if self.family(index).is_none() {
                continue;
            }
            let root = self.root(index);
            let name = (relation.schema.clone(), relation.name.clone());
            let class = classes.entry(root).or_default();
            let kept = class.entry(name).or_insert(column);
            // Of two columns of one table, say sender and receiver, the one that rows cannot lack, then the first.
            if !relation.columns[*kept].not_null && relation.columns[column].not_null {
                *kept = column;
            }
        }
        classes.into_values().map(|keys| Class { keys }).collect()
    }
}

/// Tables of users that are no parts of others.
fn tables(schema: &Schema) -> impl Iterator<Item = &Relation> {
    let relations = schema.relations.values().flat_map(HashMap::values);
    let mut tables: Vec<&Relation> = relations
        .map(Arc::as_ref)
        .filter(|relation| relation.kind == RelationKind::Table && relation.parents.is_empty())
        .filter(|relation| !is_system(&relation.schema))
        .collect();
    tables.sort_by_key(|relation| (&relation.schema, &relation.name));
    tables.into_iter()
}

fn is_system(schema: &str) -> bool {
    schema == "information_schema" || schema == "pgring" || schema.starts_with("pg_")
}

fn weigh(class: &Class, database: &Database, shards: usize) -> Candidate {
    let (schema, mut keys) = (&database.schema, Vec::new());
    let mut declarations = Vec::new();
    let (mut spread, mut all) = (0, 0);
    let (mut distinct, mut top): (Option<f64>, Option<(f64, Name)>) = (None, None);
    let mut obstacles = Vec::new();
    for relation in tables(schema) {
        let name = (relation.schema.clone(), relation.name.clone());
        let none = TableFacts::default();
        let facts = database.tables.get(&name).unwrap_or(&none);
        all += facts.bytes;
        let kind = if let Some(column) = class.keys.get(&name) {
            let column = &relation.columns[*column];
            spread += facts.bytes;
            keys.push((name.clone(), column.name.clone()));
            if let Some(column) = facts.columns.get(&column.name) {
                distinct = Some(distinct.map_or(column.distinct, |most| most.max(column.distinct)));
                if top
                    .as_ref()
                    .is_none_or(|(most, _)| *most < column.top_share)
                {
                    top = Some((column.top_share, name.clone()));
                }
                if column.null_share > 0.0 {
                    obstacles.push(format!(
                        "{:.1} % of the rows of {} have no {}, which a sharding key has to have",
                        column.null_share * 100.0,
                        relation.name,
                        keys[keys.len() - 1].1
                    ));
                }
            }
            TableKind::Sharded {
                key: column.name.to_string(),
                unique_per_shard: false,
            }
        } else if facts.rows <= REFERENCE_ROWS_MAX && facts.bytes <= REFERENCE_BYTES_MAX {
            TableKind::Reference
        } else {
            continue;
        };
        declarations.push(TableDeclaration {
            schema: relation.schema.to_string(),
            name: relation.name.to_string(),
            kind,
            line: 0,
        });
    }
    let topology = topology(schema, &declarations, shards, &mut obstacles);
    obstacles.extend(broken(&topology.schema));
    let (calls, examples) = route(database, &topology);
    Candidate {
        keys,
        declarations,
        calls,
        examples,
        spread_share: spread as f64 / all.max(1) as f64,
        distinct,
        top,
        obstacles,
    }
}

/// The database as it would be over `shards` shards with slots in turn.
fn topology(
    schema: &Schema,
    declarations: &[TableDeclaration],
    shards: usize,
    obstacles: &mut Vec<String>,
) -> Topology {
    let names: Vec<Arc<str>> = (0..shards)
        .map(|shard| format!("s{shard}").into())
        .collect();
    let (schema, errors) = shard_map::place(schema.clone(), declarations, &names, ShardId(0));
    obstacles.extend(errors.iter().map(|error| error.reason.to_string()));
    Topology {
        generation: 0,
        cluster: "advice".into(),
        in_transit: None,
        has_foreign_rows: false,
        shards: names
            .into_iter()
            .map(|name| Shard {
                name,
                epoch: Epoch(1),
                membership: Membership::Whole,
                rows_since: 0,
                fences: Arc::default(),
            })
            .collect(),
        owners: (0..SLOT_COUNT)
            .map(|slot| SlotOwner::Shard(ShardId((slot % shards) as u16)))
            .collect(),
        default_shard: ShardId(0),
        schema: Arc::new(schema),
    }
}

/// Constraints that would hold among the rows of a shard only.
fn broken(schema: &Schema) -> Vec<String> {
    let mut broken = colocation::unenforced(schema);
    for relation in tables(schema) {
        broken.extend(attached::without_key(relation).map(|unique| {
            format!(
                "the unique index {} of {} does not include the sharding key",
                unique.name, relation.name
            )
        }));
    }
    broken
}

/// Plans every statement.
fn route(database: &Database, topology: &Topology) -> (Calls, Vec<Example>) {
    let context = Context {
        topology,
        search_path: &database.search_path,
        hint: None,
        limits: &LIMITS,
    };
    let (mut calls, mut examples) = (Calls::default(), Vec::new());
    for (sql, times) in &database.statements {
        let Some(routed) = routed(sql, &context) else {
            continue;
        };
        let refusal = match routed {
            Routed::Unknown => {
                calls.unknown += times;
                continue;
            }
            Routed::OneShard => {
                calls.one_shard += times;
                continue;
            }
            Routed::Unsharded => {
                calls.unsharded += times;
                continue;
            }
            Routed::Several => {
                calls.several += times;
                None
            }
            Routed::Refused(reason) => {
                calls.refused += times;
                Some(reason)
            }
        };
        examples.push(Example {
            sql: sql.clone(),
            calls: *times,
            refusal,
        });
    }
    examples.sort_by_key(|example| Reverse(example.calls));
    examples.truncate(EXAMPLES_MAX);
    (calls, examples)
}

enum Routed {
    OneShard,
    Unsharded,
    Several,
    Refused(String),
    Unknown,
}

/// None: no query of tables.
fn routed(sql: &str, context: &Context<'_>) -> Option<Routed> {
    let tokens = lex::lex(sql, context.limits).ok()?;
    let Ok(Statement::Query(_)) = statement::classify(sql, &tokens) else {
        return None;
    };
    let refused = |error: super::PlanError| match error.refusal() {
        Some(code) => Routed::Refused(format!("{error} ({code})")),
        None => Routed::Unknown,
    };
    let template = match template(sql, &[], context) {
        Ok(template) => template,
        Err(error) => return Some(refused(error)),
    };
    // Any value will do, if it can be read as one of the key's type.
    let texts: [&[u8]; 4] = [
        b"1",
        b"00000000-0000-0000-0000-000000000001",
        b"2026-01-01",
        b"\\x01",
    ];
    let placing = template.placing_parameters();
    let planned = texts.iter().find_map(|text| {
        let mut values = vec![Some(&b"1"[..]); PARAMETERS_MAX];
        for parameter in &placing {
            *values.get_mut(usize::from(*parameter))? = Some(*text);
        }
        let binding = Binding {
            values: &values,
            ..Binding::default()
        };
        match template.plan(&binding, context.topology) {
            Err(error) if error.refusal().is_none() => None,
            planned => Some(planned),
        }
    });
    Some(match planned {
        None => Routed::Unknown,
        Some(Err(error)) => refused(error),
        Some(Ok(plan)) => match plan.tier {
            Tier::SingleShard => Routed::OneShard,
            // Of tools that look at the database, not of what it is for.
            Tier::Catalog => return None,
            Tier::AnyShard | Tier::NamedShard => Routed::Unsharded,
            Tier::PushDown | Tier::Partial | Tier::Gather | Tier::AllShards => Routed::Several,
        },
    })
}

//! The catalog of one shard as plain data: relations with columns and placement, functions with volatility.
//! `backend::control` fills it; the planner reads it. Names are as PostgreSQL stores them (folded, unquoted).

use super::ShardId;
use super::key_value::KeyType;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Which of PostgreSQL's extended hash functions places a key; keys of one family are co-located: values that
/// `=` finds equal have one hash. That is why there are more families than hash functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashFamily {
    /// int2, int4, int8 (`hashint8extended`).
    Integer,
    /// date (`hashint4extended` of its days).
    Date,
    /// timestamp (`timestamp_hash_extended` of its microseconds).
    Time,
    /// timestamptz: hashes as timestamp does, but only a session's time zone makes the two equal.
    TimeWithZone,
    /// text, varchar (`hashtextextended`).
    Text,
    /// char(n) (`hashbpcharextended`): `'a '::varchar = 'a'::char(2)` is true although they hash apart.
    Character,
    /// uuid (`uuid_hash_extended`).
    Uuid,
    /// bytea (`hashvarlenaextended`).
    Bytea,
    /// numeric (`hash_numeric_extended`).
    Numeric,
}

/// Where the rows of a relation are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Spread by the column with this index in [`Relation::columns`].
    Sharded {
        /// Index of the key column.
        key: usize,
        /// How the key's values hash.
        family: HashFamily,
    },
    /// A full copy on every shard.
    Reference,
    /// All rows on one shard.
    Local(ShardId),
    /// pg_catalog, information_schema and pgring: every shard has its own, one is asked.
    Catalog,
    /// A view whose rows no single shard shows: it reads sharded tables, or local tables of different shards. Its query
    /// says which of its columns is a key.
    View,
}

/// How a text-like column compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collation {
    /// Not a collatable type.
    None,
    /// Compares by bytes: C, POSIX, C.UTF-8.
    Bytes,
    /// Any other deterministic one: only PostgreSQL may sort it.
    Other,
    /// Texts that differ in bytes may be equal: cannot be a key.
    Nondeterministic,
}

/// What a column holds when an INSERT leaves it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnDefault {
    /// NULL.
    Null,
    /// serial, identity or a `nextval` default: would repeat over shards.
    Sequence,
    /// An expression, as `pg_get_expr` prints it.
    Expression(Arc<str>),
    /// GENERATED ALWAYS AS … STORED.
    Generated,
}

/// The name of the schema of a session's temporary relations.
pub const TEMPORARY: &str = "pg_temp";

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// Base type OID (a domain's base).
    pub type_oid: u32,
    /// `format_type` of the declared type.
    pub type_name: Arc<str>,
    /// How it compares.
    pub collation: Collation,
    /// Its collation, quoted and with its schema, where it is another than its type's.
    pub collation_name: Option<Arc<str>>,
    /// Its default.
    pub default: ColumnDefault,
    /// NOT NULL.
    pub not_null: bool,
}

/// What kind of relation a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// An ordinary or partitioned table.
    Table,
    /// A view; see [`Relation::reads`].
    View,
    /// A materialized view.
    MaterializedView,
    /// A sequence.
    Sequence,
    /// A foreign table.
    ForeignTable,
    /// An index or anything else with a name in `pg_class`.
    Other,
}

/// What a write does to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// INSERT, COPY.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE.
    Truncate,
}

/// A function that triggers call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerFunction {
    /// Its schema.
    pub schema: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `plpgsql`, `c`, `internal`, …
    pub language: Arc<str>,
    /// Its body, or the symbol of a function in C.
    pub body: Arc<str>,
}

/// A trigger that is enabled and that a user made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: Arc<str>,
    /// Schema and name of the table that has it.
    pub table: (Arc<str>, Arc<str>),
    /// The writes of the relation whose list this is in that may fire it.
    pub events: Vec<Event>,
    /// What its function is given.
    pub arguments: Vec<Arc<str>>,
    /// WHEN, as PostgreSQL prints it.
    pub condition: Option<Arc<str>>,
    /// What it calls.
    pub function: Arc<TriggerFunction>,
}

/// A unique index, primary key, unique or exclusion constraint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unique {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is the primary key.
    pub is_primary: bool,
    /// Whether it is a constraint, not an index alone.
    pub is_constraint: bool,
    /// The columns that rows must be equal in to conflict, as column indexes.
    pub columns: Vec<usize>,
    /// Whether more than these columns says which rows conflict: an expression, a predicate, another operator.
    pub is_partial: bool,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignKey {
    /// Its name.
    pub name: Arc<str>,
    /// Its columns.
    pub columns: Vec<Arc<str>>,
    /// Schema and name of the table that it references.
    pub table: (Arc<str>, Arc<str>),
    /// The referenced columns, in the same order.
    pub referenced: Vec<Arc<str>>,
}

/// An expression or command of the catalog with the name of what it is part of, as PostgreSQL prints it: all names
/// qualified but those of `pg_catalog`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expression {
    /// The policy or rule; with a word before it, a constraint, column or index.
    pub name: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
}

/// What a write of one table makes PostgreSQL evaluate for rows of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caused {
    /// Schema and name of the table with these rows: a partition or child, or one whose foreign key acts on the write.
    pub table: (Arc<str>, Arc<str>),
    /// The check or default.
    pub expression: Expression,
    /// Whether its value is stored: a default that a foreign key sets.
    pub is_stored: bool,
    /// The writes of the relation whose list this is in that cause it.
    pub events: Vec<Event>,
}

/// A rule that rewrites writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The writes that it rewrites.
    pub event: Event,
    /// Its CREATE RULE.
    pub definition: Expression,
}

/// One relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Schema name.
    pub schema: Arc<str>,
    /// Relation name.
    pub name: Arc<str>,
    /// Kind.
    pub kind: RelationKind,
    /// Live columns in `attnum` order. Empty for catalog relations.
    pub columns: Vec<Column>,
    /// Where its rows are. A view: the most demanding placement of what it reads.
    pub placement: Placement,
    /// Unique indexes, its partitions' included.
    pub unique: Vec<Unique>,
    /// Whether the shard map accepts that unique constraints without the sharding key hold on each shard only.
    pub unique_per_shard: bool,
    /// Foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// Triggers that writes of it may fire: its own, those of its partitions and children, and those of tables whose
    /// foreign keys act on its writes.
    pub triggers: Vec<Trigger>,
    /// Rules on writes of it.
    pub rules: Vec<Rule>,
    /// Policies, if row-level security is on.
    pub policies: Vec<Expression>,
    /// What is evaluated for each row that is written: CHECK constraints, its domains' included, generated columns, and
    /// the expressions and predicates of indexes.
    pub checks: Vec<Expression>,
    /// What else is evaluated when it is written.
    pub caused: Vec<Caused>,
    /// For a view: its own query.
    pub query: Option<Arc<str>>,
    /// For a view: its query and those of the views that it reads.
    pub queries: Vec<Expression>,
    /// For a view: schema-qualified tables that it reads, through other views too.
    pub reads: Vec<(Arc<str>, Arc<str>)>,
    /// Schema-qualified tables that it is a partition or an inheritance child of, direct ones only.
    pub parents: Vec<(Arc<str>, Arc<str>)>,
}

impl Relation {
    /// A relation of which no more is known.
    pub fn new(
        schema: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
        kind: RelationKind,
        placement: Placement,
    ) -> Self {
        Self {
            schema: schema.into(),
            name: name.into(),
            kind,
            columns: Vec::new(),
            placement,
            unique: Vec::new(),
            unique_per_shard: false,
            foreign_keys: Vec::new(),
            triggers: Vec::new(),
            rules: Vec::new(),
            policies: Vec::new(),
            checks: Vec::new(),
            caused: Vec::new(),
            query: None,
            queries: Vec::new(),
            reads: Vec::new(),
            parents: Vec::new(),
        }
    }

    /// The type of the sharding key; None unless the relation is sharded.
    pub fn key_type(&self) -> Option<KeyType> {
        match self.placement {
            Placement::Sharded { key, .. } => KeyType::of_column(self.columns.get(key)?),
            Placement::Reference | Placement::Local(_) | Placement::Catalog | Placement::View => {
                None
            }
        }
    }

    /// Whether it is temporary.
    pub fn is_temporary(&self) -> bool {
        *self.schema == *TEMPORARY
    }

    /// The index of the column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| &*column.name == name)
    }
}

/// `pg_proc.provolatile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// Same arguments, same result, for ever.
    Immutable,
    /// Same result within a statement.
    Stable,
    /// Anything.
    Volatile,
}

/// The source of a function that is not in C.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Body {
    /// `sql`, `plpgsql`, …
    pub language: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
}

/// One function name's overloads taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The worst volatility of its overloads.
    pub volatility: Volatility,
    /// Whether any overload is written in SQL, PL/pgSQL or another procedural language, so that it may read tables.
    pub procedural: bool,
    /// Whether any overload is an aggregate.
    pub aggregate: bool,
    /// Whether any overload is a window function.
    pub window: bool,
    /// Whether any overload returns a set.
    pub set_returning: bool,
    /// The sources of the overloads that users wrote, and of what aggregates are made of.
    pub bodies: Vec<Arc<Body>>,
}

/// A cast that a user made and that PostgreSQL applies where the text shows no call, if that calls or reads something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutomaticCast {
    /// `the cast from … to …`.
    pub name: Arc<str>,
    /// Whether expressions apply it, not assignments to columns alone.
    pub is_implicit: bool,
    /// Its function. None: it reads texts as dates or times.
    pub function: Option<Function>,
    /// OIDs of a type that a user made, without which it is never applied, and of the types that are made of it. Empty:
    /// anything may apply it.
    pub types: Vec<u32>,
}

/// An event trigger that is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTrigger {
    /// Its name.
    pub name: Arc<str>,
    /// The command tags that it is for; empty: all.
    pub tags: Vec<Arc<str>>,
    /// What it calls.
    pub function: TriggerFunction,
}

/// What the shard map says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declared {
    /// Spread by a column.
    Sharded {
        /// The column.
        key: Arc<str>,
        /// See [`Relation::unique_per_shard`].
        unique_per_shard: bool,
    },
    /// A full copy on every shard.
    Reference,
    /// All rows on one shard.
    Local(ShardId),
}

impl Declared {
    /// Whether its rows are on `shard` and nowhere else.
    pub fn is_local_on(&self, shard: ShardId) -> bool {
        *self == Self::Local(shard)
    }
}

/// What a transaction changed, so that the catalog as it was loaded does not tell of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Relations: schema, name.
    pub relations: HashSet<(Arc<str>, Arc<str>)>,
    /// Functions, whatever their schema.
    pub functions: HashSet<Arc<str>>,
    /// Whether casts, operators or domains, which act without a call of their functions.
    pub conversions: bool,
    /// Whether event triggers.
    pub event_triggers: bool,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes in others.
    pub fn extend(&mut self, others: Self) {
        self.relations.extend(others.relations);
        self.functions.extend(others.functions);
        self.conversions |= others.conversions;
        self.event_triggers |= others.event_triggers;
    }

    /// Takes in what is placed by the shard map in a schema.
    pub fn schema(&mut self, name: &str, schema: &Schema) {
        let declared = schema
            .declared
            .keys()
            .filter(|(within, _)| **within == *name);
        self.relations.extend(declared.cloned());
        for relation in schema
            .relations
            .get(name)
            .into_iter()
            .flat_map(HashMap::values)
        {
            if !matches!(relation.placement, Placement::Local(_)) {
                self.relations
                    .insert((relation.schema.clone(), relation.name.clone()));
            }
        }
    }
}

/// The catalog of one shard.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Grows by one with each reload that found a difference.
    pub version: u64,
    /// schema → name → relation. Includes pg_catalog and information_schema (without columns).
    pub relations: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Relation>>>,
    /// The tables that are declared in the shard map, whether they exist or not: schema, name.
    pub declared: HashMap<(Arc<str>, Arc<str>), Declared>,
    /// Relations that were changed since, and are not to be found.
    pub unloaded: HashSet<(Arc<str>, Arc<str>)>,
    /// Relations whose declarations do not fit them, and why: not to be found either.
    pub misfits: HashMap<(Arc<str>, Arc<str>), Arc<str>>,
    /// name → function, for functions in pg_catalog.
    pub builtin_functions: HashMap<Arc<str>, Function>,
    /// schema → name → function, for all others.
    pub user_functions: HashMap<Arc<str>, HashMap<Arc<str>, Function>>,
    /// schema → symbol → what its functions are, for operators that users made.
    pub operators: HashMap<Arc<str>, HashMap<Arc<str>, Function>>,
    /// type → what the functions are that cast to it, for casts that users made.
    pub casts: HashMap<Arc<str>, Function>,
    /// Casts that users made and that PostgreSQL applies by itself.
    pub automatic_casts: Vec<AutomaticCast>,
    /// domain → its CHECK constraints, and those of the domains that it is made of.
    pub domains: HashMap<Arc<str>, Vec<Expression>>,
    /// domain → what columns of it get that have no default of their own; all texts of domains of one name.
    pub domain_defaults: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Event triggers.
    pub event_triggers: Vec<EventTrigger>,
    /// Whether it no longer tells of all casts, operators and domains.
    pub unloaded_conversions: bool,
    /// Whether it no longer tells of all event triggers.
    pub unloaded_event_triggers: bool,
}

impl Schema {
    /// The catalog without what was changed: the relations with their parts and parents, those whose triggers call the
    /// functions, and the functions.
    pub fn without(&self, changes: &Changes) -> Self {
        let mut schema = self.clone();
        let relations = || self.relations.values().flat_map(HashMap::values);
        let mut unloaded = changes.relations.clone();
        for relation in relations() {
            let mut functions = relation
                .triggers
                .iter()
                .map(|trigger| &trigger.function.name);
            if functions.any(|function| changes.functions.contains(function)) {
                unloaded.insert((relation.schema.clone(), relation.name.clone()));
            }
        }
        loop {
            let mut more = Vec::new();
            for relation in relations() {
                let own = (relation.schema.clone(), relation.name.clone());
                let mut parents = relation.parents.iter();
                if unloaded.contains(&own) {
                    more.extend(parents.filter(|parent| !unloaded.contains(parent)).cloned());
                } else if parents.any(|parent| unloaded.contains(parent)) {
                    more.push(own);
                }
            }
            if more.is_empty() {
                break;
            }
            unloaded.extend(more);
        }
        for functions in schema.user_functions.values_mut() {
            functions.retain(|name, _| !changes.functions.contains(name));
        }
        schema.unloaded = unloaded;
        schema.unloaded_conversions = changes.conversions;
        schema.unloaded_event_triggers = changes.event_triggers;
        schema
    }

    /// What the shard map says of a name, whether there is such a table or not.
    pub fn declared(
        &self,
        schema: Option<&str>,
        name: &str,
        search_path: &[Arc<str>],
    ) -> Option<&Declared> {
        let of = |schema: &str| self.declared.get(&(schema.into(), name.into()));
        match schema {
            Some(schema) => of(schema),
            None => search_path.iter().find_map(|schema| of(schema)),
        }
    }

    /// Why the declaration of what a name means does not fit it, if that is so.
    pub fn misfit(
        &self,
        schema: Option<&str>,
        name: &str,
        search_path: &[Arc<str>],
    ) -> Option<&Arc<str>> {
        if self.misfits.is_empty() || self.relation(schema, name, search_path).is_some() {
            return None;
        }
        let of = |schema: &str| self.misfits.get(&(schema.into(), name.into()));
        match schema {
            Some(schema) => of(schema),
            None => search_path.iter().find_map(|schema| of(schema)),
        }
    }

    /// Lays a session's temporary relations over the catalog. A view that reads what is not on their shard is found to
    /// be one.
    pub fn add_temporary(&mut self, relations: &[Relation], default_shard: ShardId) {
        let here = Placement::Local(default_shard);
        let is_here = |(schema, name): &(Arc<str>, Arc<str>)| {
            let read = self
                .relations
                .get(schema)
                .and_then(|within| within.get(name));
            **schema == *TEMPORARY
                || read.is_some_and(|read| {
                    read.placement == here
                        || matches!(read.placement, Placement::Reference | Placement::Catalog)
                })
        };
        let placed = relations.iter().map(|relation| {
            let mut relation = relation.clone();
            if !relation.reads.iter().all(is_here) {
                relation.placement = Placement::View;
            }
            (relation.name.clone(), Arc::new(relation))
        });
        let placed = placed.collect();
        self.relations.insert(TEMPORARY.into(), placed);
    }

    /// Whether a column's type may be a domain: by its name alone, whatever the schema.
    pub fn is_domain(&self, column: &Column) -> bool {
        let name = &*column.type_name;
        let last = name.rsplit('.').next().unwrap_or(name);
        let last = last.trim_matches('"').replace("\"\"", "\"");
        name.starts_with("information_schema.") || self.domains.contains_key(&*last)
    }

    /// Whether there are temporary relations.
    pub fn has_temporary(&self) -> bool {
        self.relations.contains_key(TEMPORARY)
    }

    /// Whether it is known that a schema exists.
    pub fn has_schema(&self, name: &str) -> bool {
        self.relations.contains_key(name)
            || self.user_functions.contains_key(name)
            || self.declared.keys().any(|(schema, _)| **schema == *name)
    }

    /// Whether a name that [`Self::relation`] does not find may mean a declared table that was made since the catalog was
    /// loaded, or a relation that was changed: what it looks like is not known.
    pub fn is_unloaded(&self, schema: Option<&str>, name: &str, search_path: &[Arc<str>]) -> bool {
        let declared = |schema: &str| {
            let name = (schema.into(), name.into());
            self.declared.contains_key(&name)
                || self.unloaded.contains(&name)
                || self.misfits.contains_key(&name)
        };
        self.relation(schema, name, search_path).is_none()
            && match schema {
                Some(schema) => declared(schema),
                None => search_path.iter().any(|schema| declared(schema)),
            }
    }

    /// Finds a relation as PostgreSQL would: temporary ones first, then those of pg_catalog (unless the path names them),
    /// then `search_path` in order.
    pub fn relation(
        &self,
        schema: Option<&str>,
        name: &str,
        search_path: &[Arc<str>],
    ) -> Option<&Arc<Relation>> {
        // What is there but not known hides what comes after it in the path.
        let is_hidden = |schema: &str| {
            let may_be = !(self.unloaded.is_empty() && self.misfits.is_empty());
            may_be && {
                let name = (schema.into(), name.into());
                self.unloaded.contains(&name) || self.misfits.contains_key(&name)
            }
        };
        let within = |schema: &str| {
            let relations = self.relations.get(schema)?;
            relations.get(name).filter(|_| !is_hidden(schema))
        };
        match schema {
            Some(schema) => within(schema),
            None => {
                let is_named = |schema: &str| search_path.iter().any(|named| **named == *schema);
                let first = |schema: &str| within(schema).filter(|_| !is_named(schema));
                first(TEMPORARY)
                    .or_else(|| first("pg_catalog"))
                    .or_else(|| {
                        let path = search_path.iter();
                        let mut path = path.take_while(|schema| !is_hidden(schema));
                        path.find_map(|schema| within(schema))
                    })
            }
        }
    }
}

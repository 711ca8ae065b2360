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
    /// A view whose rows no single shard shows: it reads sharded tables, or local tables of different shards. Which
    /// of its columns is a key is not known.
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
    /// Its default.
    pub default: ColumnDefault,
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
    /// Primary key and unique constraints or indexes, as column indexes.
    pub unique: Vec<Vec<usize>>,
    /// For a view: schema-qualified tables that it reads, through other views too.
    pub reads: Vec<(Arc<str>, Arc<str>)>,
    /// Schema-qualified tables that it is a partition or an inheritance child of, direct ones only.
    pub parents: Vec<(Arc<str>, Arc<str>)>,
}

impl Relation {
    /// The type of the sharding key; None unless the relation is sharded.
    pub fn key_type(&self) -> Option<KeyType> {
        match self.placement {
            Placement::Sharded { key, .. } => KeyType::of_column(self.columns.get(key)?),
            Placement::Reference | Placement::Local(_) | Placement::Catalog | Placement::View => {
                None
            }
        }
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

/// One function name's overloads taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

/// The catalog of one shard.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Grows by one with each reload that found a difference.
    pub version: u64,
    /// schema → name → relation. Includes pg_catalog and information_schema (without columns).
    pub relations: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Relation>>>,
    /// The tables that are declared in the shard map, whether they exist or not: schema, name.
    pub declared: HashSet<(Arc<str>, Arc<str>)>,
    /// name → function, for functions in pg_catalog.
    pub builtin_functions: HashMap<Arc<str>, Function>,
    /// schema → name → function, for all others.
    pub user_functions: HashMap<Arc<str>, HashMap<Arc<str>, Function>>,
}

impl Schema {
    /// Whether a name that [`Self::relation`] does not find may mean a declared table that was made since the catalog was
    /// loaded: where its rows belong is known, what it looks like is not.
    pub fn is_unloaded(&self, schema: Option<&str>, name: &str, search_path: &[Arc<str>]) -> bool {
        let declared = |schema: &str| self.declared.contains(&(schema.into(), name.into()));
        self.relation(schema, name, search_path).is_none()
            && match schema {
                Some(schema) => declared(schema),
                None => search_path.iter().any(|schema| declared(schema)),
            }
    }

    /// Finds a relation as PostgreSQL would: pg_catalog first (unless the path names it), then `search_path` in order.
    pub fn relation(
        &self,
        schema: Option<&str>,
        name: &str,
        search_path: &[Arc<str>],
    ) -> Option<&Arc<Relation>> {
        let within = |schema: &str| {
            self.relations
                .get(schema)
                .and_then(|relations| relations.get(name))
        };
        match schema {
            Some(schema) => within(schema),
            None => {
                let named = search_path.iter().any(|schema| &**schema == "pg_catalog");
                let first = if named { None } else { within("pg_catalog") };
                first.or_else(|| search_path.iter().find_map(|schema| within(schema)))
            }
        }
    }
}

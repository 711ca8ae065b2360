//! One walk over a statement's tree: which tables it uses and where their rows are, which keys restrict them, and
//! whether each shard's answer over its own rows is a part of the whole answer.
//!
//! Two questions are answered at once. *Keys*: for each use of a sharded table, a set of keys such that the
//! statement's answer stays the same if only rows with these keys existed ([`Graph`]). *Shape*: whether the statement
//! may run on several shards and its outputs be appended or merged; what stands in the way is an *obstacle*. An
//! obstacle inside a subquery vanishes if each sharded table in it is tied to the key of the outer row: then the
//! subquery reads one shard's rows only, where the outer row is. Obstacles of the whole statement are
//! [`Analysis::multi`]; what is refused on any shard is an error at once.
//!
//! Start at [`analyze`]. Each part of a statement is walked in the file that has its name: `query`, `with`, `select`,
//! `source` (FROM), `order`, `write`, `insert`, `merge`, `expression`. Names are in `scope`, keys in `key`.

use super::automatic::Touched;
use super::gathered::{FirstRows, Gathered};
use super::key::{Formula, Graph, KeyColumn, NodeId, Source};
use super::key_move::MoveText;
use super::partial::Partial;
use super::plan::{SessionEffects, SettingChange};
use super::refusal::{PlanError, Refusal};
use super::scope::{OutColumn, Scope};
use super::view::Views;
use crate::sql::parse::{self, ast};
use crate::topology::ShardId;
use crate::topology::snapshot::Topology;
use ast::{Expr, ObjectName, ObjectNamePart, Query, Statement, TableAlias};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// A statement may have this many uses of relations, each use of a WITH query counted with all that is in it.
pub(super) const RELATIONS_MAX: usize = 2000;

/// One use of a sharded table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// `schema.table`.
    pub relation: Arc<str>,
    /// The keys that matter.
    pub formula: Formula,
    /// The key column.
    pub column: Arc<KeyColumn>,
}

/// LIMIT or OFFSET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Count {
    /// A literal.
    Number(i64),
    /// A parameter, from zero, with its declared type.
    Parameter {
        /// From zero.
        index: u16,
        /// 0: bigint.
        oid: u32,
    },
}

/// How the outputs of several shards are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The output column, or `None` for one that must be added.
    pub column: Option<u16>,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
    /// Known to compare by bytes.
    pub by_bytes: bool,
}

/// What merging a query's outputs needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outer {
    /// ORDER BY.
    pub order: Vec<Order>,
    /// Output columns, if known.
    pub width: Option<u16>,
    /// LIMIT.
    pub limit: Option<Count>,
    /// OFFSET.
    pub offset: Option<Count>,
}

/// Rows that an INSERT stores in a sharded table, by their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The key column.
    pub column: Arc<KeyColumn>,
    /// The key of each row.
    pub keys: Vec<Source>,
    /// Whether these are the rows of a VALUES list, in order, that may be split.
    pub split: bool,
}

/// A column of an INSERT's rows that a sequence fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// The table's schema.
    pub schema: Arc<str>,
    /// The table.
    pub table: Arc<str>,
    /// The column.
    pub column: Arc<str>,
    /// The columns that are given, if the INSERT does not list them.
    pub(super) unlisted: Vec<Arc<str>>,
    /// How many rows there are.
    pub rows: usize,
    /// Whether it is the sharding key.
    pub(super) is_key: bool,
}

/// An assignment to a key column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUpdate {
    /// Says which rows it is of.
    pub formula: Formula,
    /// The column.
    pub column: Arc<KeyColumn>,
    /// The new key.
    pub key: Source,
    /// What moves the rows to another shard, or why they are not moved.
    pub moves: Result<MoveText, String>,
}

/// What is known of a statement.
#[derive(Debug, Clone, Default)]
pub struct Analysis {
    /// Uses of sharded tables.
    pub uses: Vec<Use>,
    /// Rows that are stored in sharded tables.
    pub stored: Vec<Stored>,
    /// A column that its sequence fills, since the INSERT leaves it out.
    pub fill: Option<Fill>,
    /// Assignments to key columns.
    pub key_updates: Vec<KeyUpdate>,
    /// Local tables and their shards.
    pub locals: Vec<(ShardId, Arc<str>)>,
    /// Whether it reads a reference table.
    pub reference: bool,
    /// Reference tables that it writes.
    pub reference_writes: Vec<Arc<str>>,
    /// Whether it locks rows of a reference table.
    pub reference_locks: bool,
    /// A catalog relation or function in it.
    pub catalog: Option<Arc<str>>,
    /// A catalog relation among its sources.
    pub catalog_relation: bool,
    /// A function that must run on a designated shard.
    pub designated: Option<Arc<str>>,
    /// A relation that is not in the schema: it does not exist, or was made a moment ago.
    pub unknown_relation: bool,
    /// What `set_config` sets.
    pub settings: Vec<SettingChange>,
    /// What functions do beyond the transaction.
    pub session: SessionEffects,
    /// A function that is not in the schema.
    pub unknown: Option<Arc<str>>,
    /// Whether it writes, or calls what may.
    pub writes: bool,
    /// Whether it uses or creates a temporary relation.
    pub temporary: bool,
    /// How many statements in it write tables.
    pub writers: usize,
    /// Whether it casts to a date or time, or to a type that may hold one.
    pub casts_to_time: bool,
    /// Parameters, from zero, that are only stored in columns of other types than dates and times.
    pub timeless_parameters: Vec<u16>,
    /// Why its parts over reference tables may differ between shards.
    pub unstable: Option<PlanError>,
    /// Why the clock or chance make it differ between shards.
    pub differs: Option<PlanError>,
    /// Why it cannot run on several shards.
    pub multi: Option<PlanError>,
    /// Why it cannot run on several shards because of its shape.
    pub shape: Option<PlanError>,
    /// Why the rows of its FROM, and what it computes of each, cannot be had from several shards.
    pub rows_obstacle: Option<PlanError>,
    /// Why it cannot run over gathered rows either.
    pub ungatherable: Option<PlanError>,
    /// Where its text names sharded tables.
    pub(super) sources: Vec<Gathered>,
    /// Whether it names what gathered rows have not: a row of a table or view, or its schema, in a way that is not
    /// understood.
    pub whole_row: bool,
    /// Where it names a column, or all columns, along with the schema of their table.
    pub(super) qualified: Vec<parse::Place>,
    /// Whether it is an UPDATE, and writes no other table.
    pub is_update: bool,
    /// Whether it names a system column, which says where a row is.
    pub system_column: bool,
    /// Whether it uses columns that it does not name.
    pub every_column: bool,
    /// The order in which the first of its rows are wanted.
    pub(super) first_rows: Option<FirstRows>,
    /// The query in two parts, if the shards can make parts of its aggregates.
    pub(super) partial: Option<Box<Partial>>,
    /// ORDER BY and LIMIT.
    pub outer: Outer,
}

/// Rows that a query yields.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    pub(super) columns: Option<Vec<OutColumn>>,
    pub(super) partitioned: bool,
    /// Whether they come in an order that its query gives them.
    pub(super) ordered: bool,
    pub(super) obstacle: Option<PlanError>,
    /// Output columns that are constants, for INSERT … SELECT.
    pub(super) constants: Vec<Option<Expr>>,
}

/// A subquery inside an expression, or a lateral one.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) uses: Range<usize>,
    pub(super) obstacle: Option<PlanError>,
}

/// What the expressions of one query hold.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) pending: Vec<Pending>,
    pub(super) aggregate: bool,
    pub(super) ordered: bool,
    pub(super) random: bool,
    pub(super) windows: Vec<Vec<Expr>>,
    pub(super) window_names: Vec<(String, Vec<Expr>)>,
}

pub(super) struct CteEntry<'a> {
    pub(super) name: String,
    pub(super) alias: &'a TableAlias,
    pub(super) query: &'a Query,
    /// What its own query sees.
    pub(super) env: Option<usize>,
    pub(super) scope: Option<Rc<Scope>>,
    /// The next entry that a user of this one sees.
    pub(super) parent: Option<usize>,
    /// The output of a data-modifying query, which is walked once.
    pub(super) done: Option<Done>,
    pub(super) used: bool,
}

/// What a data-modifying query gives back.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) rows: Rows,
    /// The key of the table that it writes, if that is sharded.
    pub(super) target: Option<NodeId>,
}

pub(super) struct UseNode {
    pub(super) relation: Arc<str>,
    pub(super) node: NodeId,
}

/// Which key nodes a predicate may restrict.
#[derive(Debug, Clone)]
pub(super) enum Allow {
    /// All of the innermost FROM.
    All,
    /// These of it: the nullable side of an outer join.
    Only(Vec<NodeId>),
}

pub(super) struct Analyzer<'a> {
    pub(super) topology: &'a Topology,
    pub(super) search_path: &'a [Arc<str>],
    pub(super) parameter_types: &'a [u32],
    pub(super) graph: Graph,
    pub(super) found: Analysis,
    pub(super) blocks: Vec<Block>,
    pub(super) uses: Vec<UseNode>,
    pub(super) ctes: Vec<CteEntry<'a>>,
    pub(super) env: Option<usize>,
    pub(super) expanding: Vec<usize>,
    /// WITH queries that were found to use themselves.
    pub(super) recursive: Vec<usize>,
    pub(super) relations: usize,
    pub(super) next_column: u32,
    pub(super) key_updates: Vec<(NodeId, Source, Result<MoveText, String>)>,
    pub(super) touched: Touched,
    /// Parameters by how they are used: stored in columns that hold no time, or in any other way.
    pub(super) parameters_stored: Vec<u16>,
    pub(super) parameters_used: Vec<u16>,
    /// What the column `name` of `pg_settings` is in the select list that is walked, if that is all there is.
    pub(super) setting_named: Option<&'a str>,
    pub(super) views: &'a Views,
}

pub(super) type Outcome<T> = Result<T, PlanError>;

/// Walks `statement`; `views` has the queries of those that it may name.
pub fn analyze(
    statement: &Statement,
    views: &Views,
    topology: &Topology,
    search_path: &[Arc<str>],
    parameter_types: &[u32],
) -> Result<Analysis, PlanError> {
    let mut analyzer = Analyzer {
        topology,
        search_path,
        parameter_types,
        graph: Graph::default(),
        found: Analysis::default(),
        blocks: vec![Block::default()],
        uses: Vec::new(),
        ctes: Vec::new(),
        env: None,
        expanding: Vec::new(),
        recursive: Vec::new(),
        relations: 0,
        next_column: 1,
        key_updates: Vec::new(),
        touched: Touched::default(),
        parameters_stored: Vec::new(),
        parameters_used: Vec::new(),
        setting_named: None,
        views,
    };
    let rows = analyzer.statement(statement, None)?;
    analyzer.automatic_casts()?;
    let Analyzer {
        graph,
        mut found,
        uses,
        key_updates,
        parameters_stored,
        parameters_used,
        ..
    } = analyzer;
    let timeless = parameters_stored.into_iter();
    found.timeless_parameters = timeless
        .filter(|parameter| !parameters_used.contains(parameter))
        .collect();
    found.uses = uses
        .into_iter()
        .map(|UseNode { relation, node }| Use {
            relation,
            formula: graph.formula(node),
            column: graph.column(node).clone(),
        })
        .collect();
    found.key_updates = key_updates
        .into_iter()
        .map(|(node, key, moves)| KeyUpdate {
            formula: graph.formula(node),
            column: graph.column(node).clone(),
            key,
            moves,
        })
        .collect();
    found.shape = rows.obstacle;
    if found.shape.is_none() && !rows.partitioned && !found.uses.is_empty() {
        found.shape = Some(PlanError::refused(
            Refusal::Subquery,
            "a subquery reads sharded rows of several shards",
        ));
    }
    Ok(found)
}

pub(super) fn beyond<T>(what: &str) -> Outcome<T> {
    Err(PlanError::Unparsed {
        reason: format!("{what} is not PostgreSQL's, or not known to the planner").into(),
    })
}

/// An object's name in parts, folded.
pub(super) fn object_name(name: &ObjectName) -> Outcome<Vec<String>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(parse::name(ident)),
            ObjectNamePart::Function(_) => beyond("a function as a name"),
        })
        .collect()
}

/// Without parentheses around it.
pub(super) fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

impl<'a> Analyzer<'a> {
    pub(super) fn block(&mut self) -> &mut Block {
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }

    /// Notes why the statement cannot run on several shards, whatever its keys' shape.
    pub(super) fn never_multi(&mut self, refusal: Refusal, reason: impl Into<Arc<str>>) {
        let obstacle = PlanError::refused(refusal, reason);
        if !refusal.is_of_shape() {
            self.never_gathered(&obstacle);
        }
        if !refusal.is_of_the_end() {
            self.found.rows_obstacle.get_or_insert(obstacle.clone());
        }
        self.found.multi.get_or_insert(obstacle);
    }

    /// Notes why the statement cannot run over gathered rows.
    pub(super) fn never_gathered(&mut self, obstacle: &PlanError) {
        self.found
            .ungatherable
            .get_or_insert_with(|| obstacle.clone());
    }

    pub(super) fn unstable(&mut self, refusal: Refusal, reason: &str) {
        if self.found.unstable.is_none() {
            self.found.unstable = Some(PlanError::refused(refusal, reason));
        }
    }

    pub(super) fn statement(
        &mut self,
        statement: &'a Statement,
        outer: Option<Rc<Scope>>,
    ) -> Outcome<Rows> {
        match statement {
            Statement::Query(query) => self.query(query, outer, false, true),
            Statement::Insert(insert) => self.insert(insert, outer),
            Statement::Update(update) => self.update(update, outer),
            Statement::Delete(delete) => self.delete(delete, outer),
            Statement::Merge(merge) => self.merge(merge, outer),
            _ => beyond("this statement"),
        }
    }
}

/// `$1` → 0.
pub(super) fn placeholder(text: &str) -> Option<u16> {
    text.strip_prefix('$')?.parse::<u16>().ok()?.checked_sub(1)
}

pub(super) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

pub(super) fn is_constant(expr: &Expr) -> bool {
    match bare(expr) {
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Cast { expr, .. } | Expr::UnaryOp { expr, .. } => is_constant(expr),
        _ => false,
    }
}

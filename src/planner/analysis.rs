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
//! Start at [`analyze`]. Expressions are walked in `expression`, names in `scope`, keys in `key`.

use super::function::Effect;
use super::key::{Formula, Graph, KeyColumn, NodeId, Source};
use super::plan::{SessionEffects, SettingChange};
use super::refusal::{PlanError, Refusal};
use super::scope::{Found, From, Item, Key, Lookup, OutColumn, Scope};
use super::{attached, catalog_text, clock};
use crate::sql::parse::{self, ast};
use crate::topology::ShardId;
use crate::topology::schema::{
    Collation, Column, ColumnDefault, Event, Placement, Relation, RelationKind,
};
use crate::topology::snapshot::Topology;
use ast::{
    Expr, FromTable, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, OrderByExpr,
    OrderByKind, OrderBySort, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier,
    Statement, TableAlias, TableFactor, TableWithJoins,
};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// A statement may have this many uses of relations, each use of a WITH query counted with all that is in it.
const RELATIONS_MAX: usize = 2000;

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

/// What is known of a statement.
#[derive(Debug, Clone, Default)]
pub struct Analysis {
    /// Uses of sharded tables.
    pub uses: Vec<Use>,
    /// Rows that are stored in sharded tables.
    pub stored: Vec<Stored>,
    /// Assignments to key columns: the node's formula and the new key.
    pub key_updates: Vec<(Formula, Arc<KeyColumn>, Source)>,
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
    /// Whether it creates a table.
    pub creates: bool,
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
    /// ORDER BY and LIMIT.
    pub outer: Outer,
}

/// Rows that a query yields.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    pub(super) columns: Option<Vec<OutColumn>>,
    pub(super) partitioned: bool,
    pub(super) obstacle: Option<PlanError>,
    /// Output columns that are constants, for INSERT … SELECT.
    pub(super) constants: Vec<Option<Expr>>,
}

/// A subquery inside an expression, or a lateral one.
#[derive(Debug)]
struct Pending {
    uses: Range<usize>,
    obstacle: Option<PlanError>,
}

/// What the expressions of one query hold.
#[derive(Debug, Default)]
pub(super) struct Block {
    pending: Vec<Pending>,
    pub(super) aggregate: bool,
    pub(super) ordered: bool,
    pub(super) random: bool,
    pub(super) windows: Vec<Vec<Expr>>,
    pub(super) window_names: Vec<(String, Vec<Expr>)>,
}

struct CteEntry<'a> {
    name: String,
    alias: &'a TableAlias,
    query: &'a Query,
    /// What its own query sees.
    env: Option<usize>,
    scope: Option<Rc<Scope>>,
    /// The next entry that a user of this one sees.
    parent: Option<usize>,
    /// The output of a data-modifying query, which is walked once.
    done: Option<Rows>,
    used: bool,
}

struct UseNode {
    relation: Arc<str>,
    node: NodeId,
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
    uses: Vec<UseNode>,
    ctes: Vec<CteEntry<'a>>,
    pub(super) env: Option<usize>,
    expanding: Vec<usize>,
    /// WITH queries that were found to use themselves.
    recursive: Vec<usize>,
    relations: usize,
    next_column: u32,
    key_updates: Vec<(NodeId, Source)>,
    /// Parameters by how they are used: stored in columns that hold no time, or in any other way.
    parameters_stored: Vec<u16>,
    pub(super) parameters_used: Vec<u16>,
}

pub(super) type Outcome<T> = Result<T, PlanError>;

/// Walks `statement`.
pub fn analyze(
    statement: &Statement,
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
        parameters_stored: Vec::new(),
        parameters_used: Vec::new(),
    };
    let rows = analyzer.statement(statement, None)?;
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
        .map(|(node, source)| (graph.formula(node), graph.column(node).clone(), source))
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
        if self.found.multi.is_none() {
            self.found.multi = Some(PlanError::refused(refusal, reason));
        }
    }

    fn unstable(&mut self, refusal: Refusal, reason: &str) {
        if self.found.unstable.is_none() {
            self.found.unstable = Some(PlanError::refused(refusal, reason));
        }
    }

    fn statement(&mut self, statement: &'a Statement, outer: Option<Rc<Scope>>) -> Outcome<Rows> {
        match statement {
            Statement::Query(query) => self.query(query, outer, false, true),
            Statement::Insert(insert) => self.insert(insert, outer),
            Statement::Update(update) => self.update(update, outer),
            Statement::Delete(delete) => self.delete(delete, outer),
            Statement::Merge(merge) => self.merge(merge, outer),
            _ => beyond("this statement"),
        }
    }

    /// A query. `restricts_outer` as in [`Scope`]; `top` if its output is the statement's.
    pub(super) fn query(
        &mut self,
        query: &'a Query,
        outer: Option<Rc<Scope>>,
        restricts_outer: bool,
        top: bool,
    ) -> Outcome<Rows> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if for_clause.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || !pipe_operators.is_empty()
        {
            return beyond("a clause of this query");
        }
        let env = self.env;
        let first_cte = self.ctes.len();
        if let Some(with) = with {
            self.with(with, &outer)?;
        }
        let order: &[OrderByExpr] = match order_by
            .as_ref()
            .map(|order_by| (&order_by.kind, &order_by.interpolate))
        {
            None => &[],
            Some((OrderByKind::Expressions(order), None)) => order,
            Some(_) => return beyond("this ORDER BY"),
        };
        let (limit, offset) = match limit_clause {
            None => (None, None),
            Some(ast::LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            }) if limit_by.is_empty() => {
                (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
            }
            Some(_) => return beyond("this LIMIT"),
        };
        let fetched = match fetch {
            None => None,
            Some(fetch) if fetch.percent => return beyond("FETCH … PERCENT"),
            Some(fetch) => Some(fetch),
        };
        let limited = limit.is_some() || offset.is_some() || fetched.is_some();
        if limited {
            let scope = Rc::new(Scope {
                from: From::default(),
                outer: outer.clone(),
                restricts_outer: false,
            });
            for expr in [
                limit,
                offset,
                fetched.and_then(|fetch| fetch.quantity.as_ref()),
            ]
            .into_iter()
            .flatten()
            {
                self.expression(expr, &scope)?;
            }
        }
        let plain = !limited;
        let mut rows = match &**body {
            SetExpr::Select(select) => {
                self.select(select, order, &outer, restricts_outer && plain, top)?
            }
            SetExpr::Query(inner) => self.parenthesized(inner, order, limited, &outer, top)?,
            SetExpr::SetOperation { .. } | SetExpr::Values(_) => {
                let rows = self.set_expr(body, &outer)?;
                if top {
                    self.order_by_output(order, &rows, &outer)?;
                } else {
                    self.order_expressions(order, &outer)?;
                }
                rows
            }
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => {
                if !order.is_empty() || limited || !locks.is_empty() {
                    return beyond("ORDER BY, LIMIT or FOR after a write");
                }
                self.statement(statement, outer.clone())?
            }
            SetExpr::Table(_) => return beyond("TABLE here"),
        };
        for lock in locks {
            self.lock(lock, body)?;
        }
        if limited {
            let ties = fetched.is_some_and(|fetch| fetch.with_ties);
            if top {
                if ties {
                    self.never_multi(
                        Refusal::LimitWithTies,
                        "FETCH FIRST … WITH TIES needs the rows of all shards",
                    );
                }
                if !locks.is_empty() {
                    self.never_multi(Refusal::LockingWithLimit, "FOR UPDATE with LIMIT would lock rows on several shards that are not returned");
                }
                let limit =
                    match (limit, fetched) {
                        (Some(limit), None) => Some(limit.clone()),
                        (None, Some(fetch)) => Some(fetch.quantity.clone().unwrap_or_else(|| {
                            Expr::value(ast::Value::Number("1".to_owned(), false))
                        })),
                        (None, None) => None,
                        (Some(_), Some(_)) => return beyond("both LIMIT and FETCH"),
                    };
                self.found.outer.limit = self.count(limit.as_ref());
                self.found.outer.offset = self.count(offset);
            } else if rows.partitioned {
                rows.obstacle.get_or_insert_with(|| {
                    PlanError::refused(
                        Refusal::Limit,
                        "LIMIT in a subquery needs the rows of all shards",
                    )
                });
            } else if rows_may_differ(body) {
                self.unstable(
                    Refusal::Limit,
                    "LIMIT in a subquery may choose other rows on each shard",
                );
            }
            if !top {
                rows.columns = rows.columns.map(|columns| self.opaque(columns));
            }
            rows.constants.clear();
        }
        for index in first_cte..self.ctes.len() {
            if !self.ctes[index].used {
                self.cte_rows(index)?;
            }
        }
        self.env = env;
        Ok(rows)
    }

    /// `(query) ORDER BY … LIMIT …`, where each clause may stand inside or outside.
    fn parenthesized(
        &mut self,
        inner: &'a Query,
        order: &'a [OrderByExpr],
        limited: bool,
        outer: &Option<Rc<Scope>>,
        top: bool,
    ) -> Outcome<Rows> {
        if !top {
            self.order_expressions(order, outer)?;
            return self.query(inner, outer.clone(), false, false);
        }
        if order.is_empty() && !limited {
            let rows = self.query(inner, outer.clone(), false, true)?;
            let Outer {
                order,
                limit,
                offset,
                ..
            } = &self.found.outer;
            if limit.is_some()
                || offset.is_some()
                || order.iter().any(|order| order.column.is_none())
            {
                self.never_multi(Refusal::Rewrite, "ORDER BY or LIMIT in parentheses");
            }
            return Ok(rows);
        }
        let rows = self.query(inner, outer.clone(), false, false)?;
        if inner.order_by.is_some() {
            self.never_multi(Refusal::OrderBy, "ORDER BY in parentheses");
        }
        self.order_by_output(order, &rows, outer)?;
        Ok(rows)
    }

    fn lock(&mut self, lock: &ast::LockClause, body: &SetExpr) -> Outcome<()> {
        let only = match &lock.of {
            Some(of) => Some(object_name(of)?.pop().unwrap_or_default()),
            None => None,
        };
        let SetExpr::Select(select) = body else {
            return Ok(());
        };
        for source in &select.from {
            self.lock_source(source, only.as_deref())?;
        }
        Ok(())
    }

    fn lock_source(&mut self, source: &TableWithJoins, only: Option<&str>) -> Outcome<()> {
        let joined = source.joins.iter().map(|join| &join.relation);
        for factor in std::iter::once(&source.relation).chain(joined) {
            let locks = match factor {
                TableFactor::NestedJoin {
                    table_with_joins,
                    alias: None,
                } => {
                    self.lock_source(table_with_joins, only)?;
                    continue;
                }
                TableFactor::Table { name, alias, .. } => {
                    let parts = object_name(name)?;
                    let called = alias.as_ref().map_or_else(
                        || parts.last().cloned().unwrap_or_default(),
                        |alias| parse::name(&alias.name),
                    );
                    let reference = self
                        .relation(&parts)
                        .is_some_and(|relation| relation.placement == Placement::Reference);
                    reference && only.is_none_or(|only| only == called)
                }
                // A lock of a subquery is one of all tables in it.
                TableFactor::Derived { alias, .. } | TableFactor::NestedJoin { alias, .. } => {
                    let called = alias.as_ref().map(|alias| parse::name(&alias.name));
                    self.found.reference && (only.is_none() || only == called.as_deref())
                }
                _ => false,
            };
            if locks {
                self.found.reference_locks = true;
            }
        }
        Ok(())
    }

    fn with(&mut self, with: &'a ast::With, outer: &Option<Rc<Scope>>) -> Outcome<()> {
        let first = self.ctes.len();
        for cte in &with.cte_tables {
            if cte.from.is_some() {
                return beyond("FROM after a WITH query");
            }
            let entry = CteEntry {
                name: parse::name(&cte.alias.name),
                alias: &cte.alias,
                query: &cte.query,
                env: self.env,
                scope: outer.clone(),
                parent: self.env,
                done: None,
                used: false,
            };
            self.ctes.push(entry);
            self.env = Some(self.ctes.len() - 1);
        }
        if with.recursive {
            // Each may use itself and the others.
            for index in first..self.ctes.len() {
                self.ctes[index].env = self.env;
            }
        }
        // What writes runs once, whether it is used or not.
        for index in first..self.ctes.len() {
            let mut body = &self.ctes[index].query.body;
            while let SetExpr::Query(inner) = &**body {
                body = &inner.body;
            }
            if matches!(
                **body,
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
            ) {
                self.never_multi(Refusal::DataModifyingCte, "a data-modifying WITH query");
                let rows = self.cte_rows(index)?;
                self.ctes[index].done = Some(Rows {
                    columns: rows.columns.map(|columns| {
                        columns
                            .into_iter()
                            .map(|column| OutColumn {
                                key: None,
                                ..column
                            })
                            .collect()
                    }),
                    ..Rows::default()
                });
            }
        }
        Ok(())
    }

    /// The rows of a WITH query, as if it stood where it is used.
    fn cte_rows(&mut self, index: usize) -> Outcome<Rows> {
        self.ctes[index].used = true;
        if let Some(done) = &self.ctes[index].done {
            return Ok(done.clone());
        }
        let (query, env, scope) = (
            self.ctes[index].query,
            self.ctes[index].env,
            self.ctes[index].scope.clone(),
        );
        let saved = std::mem::replace(&mut self.env, env);
        self.expanding.push(index);
        let rows = self.query(query, scope, false, false);
        self.expanding.pop();
        self.env = saved;
        let mut rows = rows?;
        if self.recursive.contains(&index) {
            self.recursive.retain(|recursive| *recursive != index);
            rows.columns = None;
            if rows.partitioned || rows.obstacle.is_some() {
                rows.obstacle = Some(PlanError::refused(
                    Refusal::Recursive,
                    "a recursive query over sharded rows",
                ));
            }
        }
        Ok(rows)
    }

    fn cte_named(&self, name: &str) -> Option<usize> {
        let mut next = self.env;
        while let Some(index) = next {
            if self.ctes[index].name == name {
                return Some(index);
            }
            next = self.ctes[index].parent;
        }
        None
    }

    fn set_expr(&mut self, body: &'a SetExpr, outer: &Option<Rc<Scope>>) -> Outcome<Rows> {
        match body {
            SetExpr::Select(select) => self.select(select, &[], outer, false, false),
            SetExpr::Query(query) => self.query(query, outer.clone(), false, false),
            SetExpr::Values(values) => {
                if values.explicit_row || values.value_keyword {
                    return beyond("this VALUES");
                }
                self.blocks.push(Block::default());
                let scope = Rc::new(Scope {
                    from: From::default(),
                    outer: outer.clone(),
                    restricts_outer: false,
                });
                for row in &values.rows {
                    for expr in &row.content {
                        self.expression(expr, &scope)?;
                    }
                }
                let width = values.rows.first().map_or(0, |row| row.content.len());
                let columns = (1..=width)
                    .map(|number| self.column(&format!("column{number}")))
                    .collect();
                let block = self.blocks.pop().unwrap_or_default();
                let obstacle = self.settle(block.pending, &[]);
                Ok(Rows {
                    columns: Some(columns),
                    partitioned: false,
                    obstacle,
                    constants: Vec::new(),
                })
            }
            SetExpr::SetOperation {
                left,
                op,
                set_quantifier,
                right,
            } => {
                let left = self.set_expr(left, outer)?;
                let right = self.set_expr(right, outer)?;
                let all = match set_quantifier {
                    SetQuantifier::All => true,
                    SetQuantifier::None | SetQuantifier::Distinct => false,
                    SetQuantifier::ByName
                    | SetQuantifier::AllByName
                    | SetQuantifier::DistinctByName => return beyond("BY NAME"),
                };
                let mut keyed = false;
                let columns = match (left.columns, right.columns) {
                    (Some(left), Some(right)) => Some(
                        left.into_iter()
                            .zip(right)
                            .map(|(left, right)| {
                                let key = self.set_key(op, &left, &right);
                                keyed |= key.is_some_and(|key| !key.nullable);
                                let by_bytes = left.collation == Collation::Bytes
                                    && right.collation == Collation::Bytes;
                                let collation = if by_bytes {
                                    Collation::Bytes
                                } else {
                                    Collation::Other
                                };
                                OutColumn {
                                    key,
                                    collation,
                                    id: 0,
                                    name: left.name,
                                }
                            })
                            .collect(),
                    ),
                    _ => None,
                };
                let mut obstacle = left.obstacle.or(right.obstacle);
                let partitioned = left.partitioned || right.partitioned;
                let appends = *op == SetOperator::Union && all;
                if partitioned && (left.partitioned != right.partitioned || !(appends || keyed)) {
                    obstacle.get_or_insert_with(|| {
                        PlanError::refused(
                            Refusal::SetOperation,
                            format!("{op} needs the rows of all shards"),
                        )
                    });
                }
                Ok(Rows {
                    columns,
                    partitioned,
                    obstacle,
                    constants: Vec::new(),
                })
            }
            SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_)
            | SetExpr::Table(_) => beyond("a write in a set operation"),
        }
    }

    /// The key of a set operation's output column.
    fn set_key(&mut self, op: &SetOperator, left: &OutColumn, right: &OutColumn) -> Option<Key> {
        let (left, right) = (left.key?, right.key?);
        let column = self.graph.column(left.node).clone();
        if !column.equals_as(self.graph.column(right.node)) {
            return None;
        }
        let node = self.graph.add(column);
        self.graph.edge(node, left.node);
        self.graph.edge(node, right.node);
        match op {
            SetOperator::Union => self.graph.union(node, &[left.node, right.node]),
            SetOperator::Except | SetOperator::Minus => self.graph.edge(left.node, node),
            SetOperator::Intersect => {
                self.graph.edge(left.node, node);
                self.graph.edge(right.node, node);
            }
        }
        Some(Key {
            node,
            nullable: left.nullable || right.nullable,
        })
    }

    pub(super) fn column(&mut self, name: &str) -> OutColumn {
        OutColumn {
            name: name.into(),
            id: 0,
            key: None,
            collation: Collation::Other,
        }
    }

    /// Keys whose restriction must not reach into the query that yields them.
    fn opaque(&mut self, columns: Vec<OutColumn>) -> Vec<OutColumn> {
        columns
            .into_iter()
            .map(|mut column| {
                if let Some(key) = &mut column.key {
                    let outside = self.graph.add(self.graph.column(key.node).clone());
                    self.graph.edge(key.node, outside);
                    key.node = outside;
                }
                column
            })
            .collect()
    }

    /// The subqueries of a block must be tied to the key of the block's row.
    fn settle(&mut self, pending: Vec<Pending>, anchors: &[NodeId]) -> Option<PlanError> {
        let mut obstacle = None;
        for Pending {
            uses,
            obstacle: inside,
        } in pending
        {
            let tied = self.uses[uses.clone()]
                .iter()
                .all(|used| self.graph.tied(used.node, anchors));
            if !tied && obstacle.is_none() {
                let table = self.uses[uses.start].relation.clone();
                obstacle = inside.or_else(|| {
                    Some(PlanError::refused(
                        Refusal::Subquery,
                        format!("a subquery over the sharded table {table} is not tied to the outer row's sharding key"),
                    ))
                });
            }
        }
        obstacle
    }

    /// A subquery in an expression.
    pub(super) fn subquery(
        &mut self,
        query: &'a Query,
        scope: &Rc<Scope>,
        restricts_outer: bool,
    ) -> Outcome<Rows> {
        let first = self.uses.len();
        let rows = self.query(query, Some(scope.clone()), restricts_outer, false)?;
        let uses = first..self.uses.len();
        if !uses.is_empty() {
            let obstacle = rows.obstacle.clone();
            self.block().pending.push(Pending { uses, obstacle });
        }
        Ok(rows)
    }

    fn select(
        &mut self,
        select: &'a Select,
        order: &'a [OrderByExpr],
        outer: &Option<Rc<Scope>>,
        restricts_outer: bool,
        top: bool,
    ) -> Outcome<Rows> {
        let Select {
            select_token: _,
            optimizer_hints: _,
            distinct,
            select_modifiers,
            top: top_clause,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let foreign = select_modifiers.is_some()
            || top_clause.is_some()
            || exclude.is_some()
            || !lateral_views.is_empty()
            || prewhere.is_some()
            || !connect_by.is_empty()
            || !cluster_by.is_empty()
            || !distribute_by.is_empty()
            || !sort_by.is_empty()
            || qualify.is_some()
            || value_table_mode.is_some()
            || *flavor != ast::SelectFlavor::Standard;
        if foreign {
            return beyond("a clause of this SELECT");
        }
        if into.is_some() {
            self.found.writes = true;
            self.found.writers += 1;
            self.found.creates = true;
        }
        self.blocks.push(Block::default());
        let sources = self.sources(from, outer)?;
        // An aggregate without GROUP BY has a row even when there are none, so it restricts nothing outside.
        let plain = matches!(group_by, ast::GroupByExpr::Expressions(expressions, modifiers) if expressions.is_empty() && modifiers.is_empty())
            && having.is_none()
            && !projection.iter().any(|item| self.may_aggregate(item));
        let scope = Rc::new(Scope {
            from: sources,
            outer: outer.clone(),
            restricts_outer: restricts_outer && plain,
        });
        let mut groups = scope.from.clone();
        if let Some(selection) = selection {
            for (a, b) in self.conjuncts(selection, &scope, &Allow::All)? {
                groups.equate(a, b);
            }
        }
        for definition in named_window {
            let ast::NamedWindowDefinition(name, window) = definition;
            let partition = match window {
                ast::NamedWindowExpr::WindowSpec(spec) => self.window_spec(spec, &scope)?,
                ast::NamedWindowExpr::NamedWindow(_) => {
                    return beyond("a window named after a window");
                }
            };
            self.block()
                .window_names
                .push((parse::name(name), partition));
        }
        let mut columns = Some(Vec::new());
        let mut constants = Vec::new();
        for item in projection {
            self.projected(item, &scope, &groups, &mut columns, &mut constants)?;
        }
        let (grouping, grouping_sets): (&[Expr], bool) = match group_by {
            ast::GroupByExpr::Expressions(expressions, modifiers) if modifiers.is_empty() => {
                let sets = expressions.iter().any(|expr| {
                    matches!(
                        expr,
                        Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_)
                    )
                });
                (expressions, sets)
            }
            ast::GroupByExpr::Expressions(..) | ast::GroupByExpr::All(_) => {
                return beyond("this GROUP BY");
            }
        };
        for expr in grouping {
            self.expression(expr, &scope)?;
        }
        if let Some(having) = having {
            self.expression(having, &scope)?;
        }
        if let Some(ast::Distinct::On(expressions)) = distinct {
            for expr in expressions {
                self.expression(expr, &scope)?;
            }
        }
        for item in order {
            self.expression(&item.expr, &scope)?;
        }
        let block = self.blocks.pop().unwrap_or_default();
        let anchors = groups.nodes();
        let partitioned = groups.partitioned;
        let mut obstacle = groups.obstacle.clone();
        let subquery_obstacle = self.settle(block.pending, &anchors);
        let mut stop = |refusal: Refusal, reason: &str| {
            obstacle.get_or_insert_with(|| PlanError::refused(refusal, reason));
        };
        let windows_keyed = block.windows.iter().all(|partition| {
            partition
                .iter()
                .any(|expr| self.is_key(expr, &scope, &groups))
        });
        if partitioned {
            if groups.groups.len() > 1 {
                stop(
                    Refusal::Join,
                    "a join of sharded tables that is not an equality of their sharding keys",
                );
            }
            let aggregated = block.aggregate || having.is_some();
            if grouping.is_empty() {
                if aggregated {
                    stop(
                        Refusal::Aggregate,
                        "an aggregate over the rows of several shards",
                    );
                }
            } else if !grouping
                .iter()
                .any(|expr| self.groups_by_key(expr, projection, &scope, &groups))
            {
                stop(
                    Refusal::GroupBy,
                    "GROUP BY without the sharding key over several shards",
                );
            }
            match distinct {
                Some(ast::Distinct::Distinct) => {
                    let keyed = columns.as_ref().is_some_and(|columns| {
                        columns
                            .iter()
                            .any(|column: &OutColumn| column.key.is_some_and(|key| !key.nullable))
                    });
                    if !keyed {
                        stop(
                            Refusal::Distinct,
                            "DISTINCT without the sharding key in the select list over several shards",
                        );
                    }
                }
                Some(ast::Distinct::On(expressions)) => {
                    if !expressions
                        .iter()
                        .any(|expr| self.groups_by_key(expr, projection, &scope, &groups))
                    {
                        stop(
                            Refusal::DistinctOn,
                            "DISTINCT ON without the sharding key over several shards",
                        );
                    }
                }
                Some(ast::Distinct::All) | None => {}
            }
            if !windows_keyed {
                stop(
                    Refusal::Window,
                    "a window function without the sharding key in PARTITION BY over several shards",
                );
            }
        } else {
            // Every shard computes this by itself: it must come to the same.
            if block.random {
                self.unstable(
                    Refusal::VolatileFunction,
                    "a volatile function is called once for all rows",
                );
            }
            if block.ordered && !scope.from.items.is_empty() {
                self.unstable(
                    Refusal::Aggregate,
                    "a function depends on the order of reference rows",
                );
            }
            if matches!(distinct, Some(ast::Distinct::On(_))) {
                self.unstable(
                    Refusal::DistinctOn,
                    "DISTINCT ON may choose other rows on each shard",
                );
            }
        }
        obstacle = obstacle.or(subquery_obstacle);
        if top {
            self.outer_order(order, select, &scope, &columns)?;
        }
        let opaque = matches!(distinct, Some(ast::Distinct::On(_))) || !windows_keyed;
        if grouping_sets || (block.aggregate && grouping.is_empty()) {
            columns = columns.map(|columns: Vec<OutColumn>| {
                columns
                    .into_iter()
                    .map(|column| OutColumn {
                        key: None,
                        ..column
                    })
                    .collect()
            });
        }
        if opaque {
            columns = columns.map(|columns| self.opaque(columns));
            constants.clear();
        }
        Ok(Rows {
            columns,
            partitioned,
            obstacle,
            constants,
        })
    }

    /// Whether a select item may hold an aggregate.
    fn may_aggregate(&self, item: &SelectItem) -> bool {
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => !matches!(
                bare(expr),
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_)
            ),
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => false,
            SelectItem::ExprWithAliases { .. } => true,
        }
    }

    /// Whether `expr` is a key column that tells where the row is.
    fn is_key(&self, expr: &Expr, scope: &Rc<Scope>, groups: &From) -> bool {
        matches!(self.key_of(expr, scope), Some((0, key)) if !key.nullable && groups.groups.iter().any(|group| group.contains(&key.node)))
    }

    /// As [`Self::is_key`] for GROUP BY and DISTINCT ON, where an ordinal or an output name stands for a select item.
    fn groups_by_key(
        &self,
        expr: &Expr,
        projection: &[SelectItem],
        scope: &Rc<Scope>,
        groups: &From,
    ) -> bool {
        let item = match bare(expr) {
            Expr::Value(value) => match &value.value {
                ast::Value::Number(number, _) => number.parse::<usize>().ok().and_then(|number| {
                    let before = projection.get(..number)?;
                    let plain = before.iter().all(|item| {
                        matches!(
                            item,
                            SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
                        )
                    });
                    plain.then(|| before.last()).flatten()
                }),
                _ => None,
            },
            Expr::Identifier(ident) => {
                let name = parse::name(ident);
                match scope.from.unqualified(&name) {
                    Lookup::Absent => projection.iter().find(
                        |item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if parse::name(alias) == name),
                    ),
                    Lookup::Column(_) | Lookup::Unknown => return self.is_key(expr, scope, groups),
                }
            }
            Expr::Tuple(expressions) => {
                return expressions
                    .iter()
                    .any(|expr| self.groups_by_key(expr, projection, scope, groups));
            }
            _ => return self.is_key(expr, scope, groups),
        };
        match item {
            Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
                self.is_key(expr, scope, groups)
            }
            _ => false,
        }
    }

    fn projected(
        &mut self,
        item: &'a SelectItem,
        scope: &Rc<Scope>,
        groups: &From,
        columns: &mut Option<Vec<OutColumn>>,
        constants: &mut Vec<Option<Expr>>,
    ) -> Outcome<()> {
        let located = |mut column: OutColumn| {
            if column
                .key
                .is_some_and(|key| !groups.groups.iter().any(|group| group.contains(&key.node)))
            {
                column.key = None;
            }
            column
        };
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                self.expression(expr, scope)?;
                let name = match item {
                    SelectItem::ExprWithAlias { alias, .. } => parse::name(alias),
                    _ => output_name(expr).unwrap_or_default(),
                };
                let column = match self.find(expr, scope) {
                    Some((0, column)) => OutColumn {
                        name: name.as_str().into(),
                        ..located(column)
                    },
                    _ => OutColumn {
                        collation: explicit_collation(expr),
                        ..self.column(&name)
                    },
                };
                if let Some(columns) = columns {
                    columns.push(column);
                }
                constants.push(Some(expr.clone()).filter(is_constant));
            }
            SelectItem::Wildcard(options) => {
                plain_wildcard(options)?;
                match (columns.as_mut(), &scope.from.output) {
                    (Some(columns), Some(output)) => {
                        constants.extend(output.iter().map(|_| None));
                        columns.extend(output.iter().cloned().map(located));
                    }
                    _ => *columns = None,
                }
            }
            SelectItem::QualifiedWildcard(
                ast::SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ) => {
                plain_wildcard(options)?;
                let parts = object_name(name)?;
                let item = match parts.as_slice() {
                    [name] => scope.from.item(None, name),
                    [schema, name] => scope.from.item(Some(schema), name),
                    _ => None,
                };
                match (columns.as_mut(), item.and_then(|item| item.columns.clone())) {
                    (Some(columns), Some(output)) => {
                        constants.extend(output.iter().map(|_| None));
                        columns.extend(output.iter().cloned().map(located));
                    }
                    _ => *columns = None,
                }
            }
            SelectItem::QualifiedWildcard(
                ast::SelectItemQualifiedWildcardKind::Expr(expr),
                options,
            ) => {
                plain_wildcard(options)?;
                self.expression(expr, scope)?;
                *columns = None;
            }
            SelectItem::ExprWithAliases { .. } => {
                return beyond("several aliases for an expression");
            }
        }
        Ok(())
    }

    /// The column that `expr` is, with its level.
    pub(super) fn find(&self, expr: &Expr, scope: &Rc<Scope>) -> Option<(usize, OutColumn)> {
        let parts = match bare(expr) {
            Expr::Identifier(ident) => vec![parse::name(ident)],
            Expr::CompoundIdentifier(idents) => idents.iter().map(parse::name).collect(),
            _ => return None,
        };
        match scope.find(&parts) {
            Found::Column { level, column } => Some((level, column)),
            Found::Unknown => None,
        }
    }

    /// The key that `expr` is, with its level.
    pub(super) fn key_of(&self, expr: &Expr, scope: &Rc<Scope>) -> Option<(usize, Key)> {
        let (level, column) = self.find(expr, scope)?;
        Some((level, column.key?))
    }

    fn sources(&mut self, list: &'a [TableWithJoins], outer: &Option<Rc<Scope>>) -> Outcome<From> {
        let mut all = From {
            output: Some(Vec::new()),
            ..From::default()
        };
        for source in list {
            let next = self.joined(source, &all, outer)?;
            all = all.beside(next);
        }
        Ok(all)
    }

    /// One element of FROM; `left` is what a lateral source in it sees.
    fn joined(
        &mut self,
        source: &'a TableWithJoins,
        left: &From,
        outer: &Option<Rc<Scope>>,
    ) -> Outcome<From> {
        let mut from = self.factor(&source.relation, left, outer)?;
        for join in &source.joins {
            if join.global {
                return beyond("GLOBAL JOIN");
            }
            let seen = left.clone().beside(from.clone());
            let right = self.factor(&join.relation, &seen, outer)?;
            from = self.join(from, right, &join.join_operator, outer)?;
        }
        Ok(from)
    }

    fn join(
        &mut self,
        mut left: From,
        mut right: From,
        operator: &'a JoinOperator,
        outer: &Option<Rc<Scope>>,
    ) -> Outcome<From> {
        #[derive(PartialEq, Clone, Copy)]
        enum Kind {
            Inner,
            Left,
            Right,
            Full,
        }
        let (kind, constraint) = match operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::CrossJoin(constraint) => (Kind::Inner, constraint),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (Kind::Left, constraint)
            }
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                (Kind::Right, constraint)
            }
            JoinOperator::FullOuter(constraint) => (Kind::Full, constraint),
            JoinOperator::Semi(_)
            | JoinOperator::LeftSemi(_)
            | JoinOperator::RightSemi(_)
            | JoinOperator::Anti(_)
            | JoinOperator::LeftAnti(_)
            | JoinOperator::RightAnti(_)
            | JoinOperator::CrossApply
            | JoinOperator::OuterApply
            | JoinOperator::AsOf { .. }
            | JoinOperator::StraightJoin(_)
            | JoinOperator::ArrayJoin
            | JoinOperator::LeftArrayJoin
            | JoinOperator::InnerArrayJoin => return beyond("this kind of join"),
        };
        let allow = match kind {
            Kind::Inner => Allow::All,
            Kind::Left => Allow::Only(right.key_nodes()),
            Kind::Right => Allow::Only(left.key_nodes()),
            Kind::Full => Allow::Only(Vec::new()),
        };
        let mut pairs = Vec::new();
        let mut merged = Vec::new();
        match constraint {
            JoinConstraint::None => {}
            JoinConstraint::On(condition) => {
                let both = left.clone().beside(right.clone());
                let scope = Rc::new(Scope {
                    from: both,
                    outer: outer.clone(),
                    restricts_outer: false,
                });
                pairs = self.conjuncts(condition, &scope, &allow)?;
            }
            JoinConstraint::Using(names) => {
                for name in names {
                    merged.push(object_name(name)?.pop().unwrap_or_default());
                }
            }
            JoinConstraint::UsingAlias(..) => return beyond("an alias for USING"),
            JoinConstraint::Natural => match (&left.output, &right.output) {
                (Some(left), Some(right)) => {
                    let names = |columns: &[OutColumn], name: &str| {
                        columns.iter().any(|column| &*column.name == name)
                    };
                    merged.extend(
                        left.iter()
                            .filter(|column| names(right, &column.name))
                            .map(|column| column.name.to_string()),
                    );
                }
                _ => {
                    return Err(PlanError::Unparsed {
                        reason: "NATURAL JOIN of relations whose columns are not known".into(),
                    });
                }
            },
        }
        let mut merged_columns = Vec::new();
        for name in &merged {
            let (Lookup::Column(a), Lookup::Column(b)) =
                (left.unqualified(name), right.unqualified(name))
            else {
                merged_columns.push(self.column(name));
                continue;
            };
            let mut column = match kind {
                Kind::Inner | Kind::Left => a.clone(),
                Kind::Right => b.clone(),
                Kind::Full => OutColumn {
                    key: None,
                    id: 0,
                    ..a.clone()
                },
            };
            if let (Some(first), Some(second)) = (a.key, b.key)
                && self
                    .graph
                    .column(first.node)
                    .equals_as(self.graph.column(second.node))
            {
                let may = |node: NodeId| match &allow {
                    Allow::All => true,
                    Allow::Only(nodes) => nodes.contains(&node),
                };
                if may(second.node) {
                    self.graph.edge(first.node, second.node);
                }
                if may(first.node) {
                    self.graph.edge(second.node, first.node);
                }
                pairs.push((first.node, second.node));
                if kind == Kind::Full {
                    let node = self.graph.add(self.graph.column(first.node).clone());
                    self.graph.edge(node, first.node);
                    self.graph.edge(node, second.node);
                    self.graph.union(node, &[first.node, second.node]);
                    column.key = Some(Key {
                        node,
                        nullable: first.nullable || second.nullable,
                    });
                }
            }
            merged_columns.push(column);
        }
        let linked = left.groups.len() == 1
            && right.groups.len() == 1
            && pairs.iter().any(|(a, b)| {
                (left.groups[0].contains(a) && right.groups[0].contains(b))
                    || (left.groups[0].contains(b) && right.groups[0].contains(a))
            });
        let sound = match (kind, left.partitioned, right.partitioned) {
            (Kind::Inner, _, _)
            | (_, false, false)
            | (Kind::Left, true, false)
            | (Kind::Right, false, true) => true,
            (Kind::Left | Kind::Right | Kind::Full, true, true) => linked,
            (Kind::Left, false, true)
            | (Kind::Right, true, false)
            | (Kind::Full, true, false)
            | (Kind::Full, false, true) => false,
        };
        match kind {
            Kind::Inner => {}
            Kind::Left => right.make_nullable(),
            Kind::Right => left.make_nullable(),
            Kind::Full => {
                left.make_nullable();
                right.make_nullable();
            }
        }
        let mut both = left.beside(right);
        if !sound {
            let reason = if linked || both.groups.len() < 2 {
                "an outer join keeps reference rows that have no match among sharded rows"
            } else {
                "an outer join of sharded tables that is not an equality of their sharding keys"
            };
            both.obstacle
                .get_or_insert_with(|| PlanError::refused(Refusal::Join, reason));
        }
        for (a, b) in pairs {
            both.equate(a, b);
        }
        if !merged.is_empty() {
            for column in &merged_columns {
                if let Some(key) = column.key
                    && kind == Kind::Full
                    && both.groups.len() == 1
                {
                    both.groups[0].push(key.node);
                }
            }
            for index in 0..both.items.len() {
                for name in &merged {
                    both.hidden.push((index, name.as_str().into()));
                }
            }
            both.merged
                .retain(|column| !merged.iter().any(|name| **name == *column.name));
            both.output = both.output.take().map(|output| {
                let rest = output
                    .into_iter()
                    .filter(|column| !merged.iter().any(|name| **name == *column.name));
                merged_columns.iter().cloned().chain(rest).collect()
            });
            both.merged.extend(merged_columns);
        }
        Ok(both)
    }

    fn factor(
        &mut self,
        factor: &'a TableFactor,
        left: &From,
        outer: &Option<Rc<Scope>>,
    ) -> Outcome<From> {
        let lateral_scope = || {
            Rc::new(Scope {
                from: left.clone(),
                outer: outer.clone(),
                restricts_outer: false,
            })
        };
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_directives,
                inheritance: _,
            } => {
                if !with_hints.is_empty()
                    || version.is_some()
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || !index_directives.is_empty()
                {
                    return beyond("a clause of this table");
                }
                let parts = object_name(name)?;
                if let Some(args) = args {
                    if args.settings.is_some() {
                        return beyond("SETTINGS");
                    }
                    let scope = lateral_scope();
                    self.call(&parts, args.args.len(), &scope, None, &args.args)?;
                    return self.function_rows(
                        parts.last().cloned().unwrap_or_default(),
                        alias.as_ref(),
                        *with_ordinality,
                    );
                }
                if *with_ordinality {
                    return beyond("WITH ORDINALITY here");
                }
                if let Some(
                    ast::TableSampleKind::BeforeTableAlias(sample)
                    | ast::TableSampleKind::AfterTableAlias(sample),
                ) = sample
                {
                    self.never_multi(Refusal::TableSample, "TABLESAMPLE");
                    self.unstable(Refusal::TableSample, "TABLESAMPLE");
                    if let Some(quantity) = &sample.quantity {
                        self.expression(&quantity.value, &lateral_scope())?;
                    }
                }
                self.table(&parts, alias.as_ref(), false)
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample,
            } => {
                if sample.is_some() {
                    return beyond("a sample of a subquery");
                }
                let first = self.uses.len();
                let parent = if *lateral {
                    Some(lateral_scope())
                } else {
                    outer.clone()
                };
                let mut rows = self.query(subquery, parent, false, false)?;
                let uses = first..self.uses.len();
                if *lateral && !uses.is_empty() {
                    // It is computed for each row on its left, like a subquery of an expression.
                    self.block().pending.push(Pending {
                        uses,
                        obstacle: rows.obstacle.take(),
                    });
                    rows.partitioned = false;
                }
                self.derived(rows, alias.as_ref())
            }
            TableFactor::Function {
                lateral: _,
                name,
                args,
                with_ordinality,
                alias,
            } => {
                let parts = object_name(name)?;
                let scope = lateral_scope();
                self.call(&parts, args.len(), &scope, None, args)?;
                self.function_rows(
                    parts.last().cloned().unwrap_or_default(),
                    alias.as_ref(),
                    *with_ordinality,
                )
            }
            TableFactor::TableFunction { expr, alias } => {
                self.expression(expr, &lateral_scope())?;
                self.function_rows("table".to_owned(), alias.as_ref(), false)
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                with_offset_alias,
                with_ordinality,
            } => {
                if *with_offset || with_offset_alias.is_some() {
                    return beyond("WITH OFFSET");
                }
                let scope = lateral_scope();
                for expr in array_exprs {
                    self.expression(expr, &scope)?;
                }
                self.function_rows("unnest".to_owned(), alias.as_ref(), *with_ordinality)
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                let mut from = self.joined(table_with_joins, left, outer)?;
                if let Some(alias) = alias {
                    // The alias hides the names inside.
                    let columns = from.output.take();
                    let (partitioned, groups, obstacle) =
                        (from.partitioned, from.groups, from.obstacle);
                    let columns = columns.map(|columns| renamed(columns, alias)).transpose()?;
                    from = From {
                        items: vec![Item {
                            name: parse::name(&alias.name),
                            schema: None,
                            columns: columns.clone().map(Into::into),
                            reference: false,
                        }],
                        output: columns,
                        partitioned,
                        groups,
                        obstacle,
                        ..From::default()
                    };
                }
                Ok(from)
            }
            TableFactor::JsonTable { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::UnpivotExpr { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::XmlTable { .. }
            | TableFactor::SemanticView { .. } => beyond("this kind of row source"),
        }
    }

    fn function_rows(
        &mut self,
        name: String,
        alias: Option<&TableAlias>,
        ordinality: bool,
    ) -> Outcome<From> {
        // What other functions give may have any number of columns.
        let single = [
            "generate_series",
            "generate_subscripts",
            "string_to_table",
            "regexp_split_to_table",
        ];
        let columns: Option<Vec<OutColumn>> = (!ordinality && single.contains(&name.as_str()))
            .then(|| {
                let column = match alias {
                    Some(TableAlias { columns, .. }) if !columns.is_empty() => {
                        parse::name(&columns[0].name)
                    }
                    Some(alias) => parse::name(&alias.name),
                    None => name.clone(),
                };
                vec![self.column(&column)]
            });
        let name = alias.map_or(name, |alias| parse::name(&alias.name));
        let item = Item {
            name,
            schema: None,
            columns: columns.clone().map(Into::into),
            reference: false,
        };
        Ok(From {
            items: vec![item],
            output: columns,
            ..From::default()
        })
    }

    fn derived(&mut self, rows: Rows, alias: Option<&TableAlias>) -> Outcome<From> {
        let columns = match (rows.columns, alias) {
            (Some(columns), Some(alias)) => Some(renamed(columns, alias)?),
            (columns, _) => columns,
        };
        let columns: Option<Vec<OutColumn>> = columns.map(|columns| {
            columns
                .into_iter()
                .map(|column| {
                    self.next_column += 1;
                    OutColumn {
                        id: self.next_column,
                        ..column
                    }
                })
                .collect()
        });
        let nodes = columns
            .iter()
            .flatten()
            .filter_map(|column| column.key.map(|key| key.node))
            .collect();
        Ok(From {
            items: vec![Item {
                name: alias
                    .map(|alias| parse::name(&alias.name))
                    .unwrap_or_default(),
                schema: None,
                columns: columns.clone().map(Into::into),
                reference: false,
            }],
            output: columns,
            partitioned: rows.partitioned,
            groups: if rows.partitioned {
                vec![nodes]
            } else {
                Vec::new()
            },
            obstacle: rows.obstacle,
            ..From::default()
        })
    }

    /// The relation that a name means.
    fn relation(&self, parts: &[String]) -> Option<Arc<Relation>> {
        let (schema, name) = match parts {
            [name] => (None, name),
            [schema, name] | [_, schema, name] => (Some(schema.as_str()), name),
            _ => return None,
        };
        self.topology
            .schema
            .relation(schema, name, self.search_path)
            .cloned()
    }

    /// A use of a relation by name; `target` if it is written.
    fn table(
        &mut self,
        parts: &[String],
        alias: Option<&TableAlias>,
        target: bool,
    ) -> Outcome<From> {
        self.relations += 1;
        if self.relations > RELATIONS_MAX {
            return Err(PlanError::refused(
                Refusal::TooComplex,
                "this statement uses too many relations",
            ));
        }
        if let [name] = parts
            && !target
            && let Some(index) = self.cte_named(name)
        {
            if self.expanding.contains(&index) {
                self.recursive.push(index);
                let name = alias.map_or(name.clone(), |alias| parse::name(&alias.name));
                let item = Item {
                    name,
                    schema: None,
                    columns: None,
                    reference: false,
                };
                return Ok(From {
                    items: vec![item],
                    ..From::default()
                });
            }
            let mut rows = self.cte_rows(index)?;
            let own = self.ctes[index].alias;
            rows.columns = rows
                .columns
                .map(|columns| renamed(columns, own))
                .transpose()?;
            let mut from = self.derived(rows, alias)?;
            if alias.is_none() {
                from.items[0].name = name.clone();
            }
            return Ok(from);
        }
        let called = alias.map_or_else(
            || parts.last().cloned().unwrap_or_default(),
            |alias| parse::name(&alias.name),
        );
        let Some(relation) = self.relation(parts) else {
            let (name, schema) = (parts.last(), parts.iter().rev().nth(1));
            let declared = &self.topology.schema;
            if let Some(name) = name
                && declared.is_unloaded(schema.map(String::as_str), name, self.search_path)
            {
                return Err(PlanError::refused(
                    Refusal::UnloadedTable,
                    format!("{name} is not in the router's catalog yet"),
                ));
            }
            self.found.unknown_relation = true;
            // PostgreSQL reports it.
            self.found
                .locals
                .push((self.topology.default_shard, parts.join(".").into()));
            let item = Item {
                name: called,
                schema: None,
                columns: None,
                reference: false,
            };
            return Ok(From {
                items: vec![item],
                ..From::default()
            });
        };
        let full: Arc<str> = format!("{}.{}", relation.schema, relation.name).into();
        if let Some(obstacle) = attached::read(&relation, &self.topology.schema)? {
            self.differs_by_shard(obstacle);
        }
        let mut columns: Option<Vec<OutColumn>> = (!relation.columns.is_empty()).then(|| {
            relation
                .columns
                .iter()
                .map(|column| {
                    self.next_column += 1;
                    OutColumn {
                        name: (&*column.name).into(),
                        id: self.next_column,
                        key: None,
                        collation: column.collation,
                    }
                })
                .collect()
        });
        let mut partitioned = false;
        let mut groups = Vec::new();
        let mut reference = false;
        match &relation.placement {
            Placement::View => {
                return Err(PlanError::refused(
                    Refusal::View,
                    format!("the view {full} reads sharded tables"),
                ));
            }
            Placement::Sharded { .. }
                if matches!(
                    relation.kind,
                    RelationKind::View | RelationKind::MaterializedView
                ) =>
            {
                return Err(PlanError::refused(
                    Refusal::View,
                    format!("the view {full} reads sharded tables"),
                ));
            }
            Placement::Sharded { key, .. } => {
                let key_column = relation
                    .columns
                    .get(*key)
                    .and_then(|column| KeyColumn::new(&relation.name, column));
                let (Some(column), Some(columns)) = (key_column, &mut columns) else {
                    return Err(PlanError::Internal {
                        what: format!(
                            "the sharding key of {full} has a type that cannot be hashed"
                        )
                        .into(),
                    });
                };
                let node = self.graph.add(Arc::new(column));
                self.uses.push(UseNode {
                    relation: full,
                    node,
                });
                columns[*key].key = Some(Key {
                    node,
                    nullable: false,
                });
                partitioned = true;
                groups.push(vec![node]);
            }
            Placement::Reference => {
                reference = true;
                if target {
                    self.found.reference_writes.push(full);
                } else {
                    self.found.reference = true;
                }
            }
            Placement::Local(shard) => self.found.locals.push((*shard, full)),
            Placement::Catalog => {
                self.found.catalog_relation = true;
                self.found.catalog.get_or_insert(full);
            }
        }
        let columns = match (columns, alias) {
            (Some(columns), Some(alias)) => Some(renamed(columns, alias)?),
            (columns, _) => columns,
        };
        let schema = alias.is_none().then(|| relation.schema.to_string());
        let item = Item {
            name: called,
            schema,
            columns: columns.clone().map(Into::into),
            reference,
        };
        Ok(From {
            items: vec![item],
            output: columns,
            partitioned,
            groups,
            ..From::default()
        })
    }

    /// Notes what gives other rows or values on each shard.
    fn differs_by_shard(&mut self, obstacle: PlanError) {
        self.found.differs.get_or_insert_with(|| obstacle.clone());
        self.found.multi.get_or_insert(obstacle);
    }

    /// A write of `relation`; `assigned` as in [`attached::write()`].
    fn written(
        &mut self,
        relation: Option<&Relation>,
        events: &[Event],
        assigned: Option<&[Arc<str>]>,
    ) -> Outcome<()> {
        let Some(relation) = relation else {
            return Ok(());
        };
        let obstacle = attached::write(relation, events, assigned, &self.topology.schema)?;
        if let Some(obstacle) = obstacle {
            self.differs_by_shard(obstacle);
        }
        Ok(())
    }

    fn returning(
        &mut self,
        returning: &'a Option<Vec<SelectItem>>,
        scope: &Rc<Scope>,
    ) -> Outcome<Rows> {
        let mut columns = Some(Vec::new());
        for item in returning.iter().flatten() {
            self.projected(item, scope, &From::default(), &mut columns, &mut Vec::new())?;
        }
        Ok(Rows {
            columns,
            ..Rows::default()
        })
    }

    /// The target of a write.
    fn target(&mut self, factor: &'a TableFactor) -> Outcome<(From, Option<Arc<Relation>>)> {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
        else {
            return beyond("this target");
        };
        self.found.writes = true;
        self.found.writers += 1;
        let parts = object_name(name)?;
        let from = self.table(&parts, alias.as_ref(), true)?;
        let relation = self.relation(&parts);
        if relation.as_ref().is_some_and(|relation| {
            &*relation.name == "pg_settings" && relation.placement == Placement::Catalog
        }) {
            return Err(PlanError::refused(
                Refusal::SessionState,
                "a write of pg_settings sets what its server session keeps",
            ));
        }
        Ok((from, relation))
    }

    fn assignments(
        &mut self,
        assignments: &'a [ast::Assignment],
        relation: Option<&Relation>,
        key: Option<NodeId>,
        scope: &Rc<Scope>,
    ) -> Outcome<()> {
        let key_name = match relation.map(|relation| (&relation.placement, relation)) {
            Some((Placement::Sharded { key, .. }, relation)) => {
                relation.columns.get(*key).map(|column| column.name.clone())
            }
            _ => None,
        };
        for assignment in assignments {
            let column = match &assignment.target {
                ast::AssignmentTarget::ColumnName(name) => object_name(name)?.pop(),
                ast::AssignmentTarget::Tuple(_) => None,
            };
            let column = column.zip(relation);
            let column = column.and_then(|(name, relation)| {
                relation
                    .column(&name)
                    .map(|column| &relation.columns[column])
            });
            self.stored_value(&assignment.value, column, scope)?;
            let Some(key_name) = &key_name else { continue };
            let refused = || {
                PlanError::refused(
                    Refusal::KeyUpdate,
                    format!("the sharding key {key_name} is updated"),
                )
            };
            match &assignment.target {
                ast::AssignmentTarget::ColumnName(name) => {
                    if object_name(name)?.iter().any(|part| part == &**key_name) {
                        let (Some(node), true) = (key, name.0.len() == 1) else {
                            return Err(refused());
                        };
                        // SET k = k changes nothing.
                        if matches!(self.key_of(&assignment.value, scope), Some((0, same)) if same.node == node)
                        {
                            continue;
                        }
                        let column = self.graph.column(node).clone();
                        let source = self
                            .constant(&assignment.value, &column)
                            .ok_or_else(refused)?;
                        self.key_updates.push((node, source));
                    }
                }
                ast::AssignmentTarget::Tuple(names) => {
                    for name in names {
                        if object_name(name)?.iter().any(|part| part == &**key_name) {
                            return Err(refused());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The value of a column. Where the column holds no time, a word such as `now` is no more than a word.
    fn stored_value(
        &mut self,
        value: &'a Expr,
        column: Option<&Column>,
        scope: &Rc<Scope>,
    ) -> Outcome<()> {
        if let (Expr::Value(value), Some(column)) = (value, column)
            && !clock::may_be_time(column.type_oid)
        {
            match &value.value {
                ast::Value::Placeholder(text) => {
                    self.parameters_stored.extend(placeholder(text));
                    return Ok(());
                }
                other if parse::string(other).is_some() => return Ok(()),
                _ => {}
            }
        }
        self.expression(value, scope)
    }

    fn update(&mut self, update: &'a ast::Update, outer: Option<Rc<Scope>>) -> Outcome<Rows> {
        let ast::Update {
            update_token: _,
            optimizer_hints: _,
            table,
            on_cluster,
            assignments,
            from,
            selection,
            returning,
            output,
            or,
            order_by,
            limit,
            settings,
        } = update;
        if !table.joins.is_empty()
            || on_cluster.is_some()
            || output.is_some()
            || or.is_some()
            || !order_by.is_empty()
            || limit.is_some()
            || settings.is_some()
        {
            return beyond("a clause of this UPDATE");
        }
        let sources: &[TableWithJoins] = match from {
            None => &[],
            Some(ast::UpdateTableFromKind::AfterSet(sources)) => sources,
            Some(ast::UpdateTableFromKind::BeforeSet(_)) => return beyond("FROM before SET"),
        };
        self.blocks.push(Block::default());
        let (target, relation) = self.target(&table.relation)?;
        let assigned = assigned_columns(assignments)?;
        self.written(relation.as_deref(), &[Event::Update], Some(&assigned))?;
        let key = target
            .groups
            .first()
            .and_then(|group| group.first())
            .copied();
        let is_sharded = target.partitioned;
        if !sources.is_empty() && target.items.first().is_some_and(|item| item.reference) {
            self.unstable(
                Refusal::ReferenceWriteDiffers,
                "UPDATE … FROM may join other rows on each shard",
            );
        }
        let others = self.sources(sources, &outer)?;
        self.write(
            target.beside(others),
            is_sharded,
            selection.as_ref(),
            outer,
            |this, scope| {
                this.assignments(assignments, relation.as_deref(), key, scope)?;
                this.returning(returning, scope)
            },
        )
    }

    fn delete(&mut self, delete: &'a ast::Delete, outer: Option<Rc<Scope>>) -> Outcome<Rows> {
        let ast::Delete {
            delete_token: _,
            optimizer_hints: _,
            tables,
            from,
            on_cluster,
            using,
            selection,
            returning,
            output,
            order_by,
            limit,
            settings,
        } = delete;
        if !tables.is_empty()
            || on_cluster.is_some()
            || output.is_some()
            || !order_by.is_empty()
            || limit.is_some()
            || settings.is_some()
        {
            return beyond("a clause of this DELETE");
        }
        let FromTable::WithFromKeyword(from) = from else {
            return beyond("DELETE without FROM");
        };
        let [table] = from.as_slice() else {
            return beyond("DELETE FROM several tables");
        };
        if !table.joins.is_empty() {
            return beyond("DELETE FROM a join");
        }
        self.blocks.push(Block::default());
        let (target, relation) = self.target(&table.relation)?;
        self.written(relation.as_deref(), &[Event::Delete], None)?;
        let is_sharded = target.partitioned;
        let others = self.sources(using.as_deref().unwrap_or_default(), &outer)?;
        self.write(
            target.beside(others),
            is_sharded,
            selection.as_ref(),
            outer,
            |this, scope| this.returning(returning, scope),
        )
    }

    /// What UPDATE and DELETE share: the target joined with other sources, filtered.
    fn write(
        &mut self,
        from: From,
        is_sharded: bool,
        selection: Option<&'a Expr>,
        outer: Option<Rc<Scope>>,
        rest: impl FnOnce(&mut Self, &Rc<Scope>) -> Outcome<Rows>,
    ) -> Outcome<Rows> {
        let scope = Rc::new(Scope {
            from,
            outer,
            restricts_outer: false,
        });
        let mut groups = scope.from.clone();
        if let Some(selection) = selection {
            for (a, b) in self.conjuncts(selection, &scope, &Allow::All)? {
                groups.equate(a, b);
            }
        }
        let mut rows = rest(self, &scope)?;
        let block = self.blocks.pop().unwrap_or_default();
        let anchors = groups.nodes();
        let subquery_obstacle = self.settle(block.pending, &anchors);
        rows.partitioned = groups.partitioned;
        rows.obstacle = groups.obstacle.clone();
        if groups.groups.len() > 1 {
            rows.obstacle.get_or_insert_with(|| {
                PlanError::refused(
                    Refusal::Join,
                    "a join of sharded tables that is not an equality of their sharding keys",
                )
            });
        }
        if groups.partitioned && !is_sharded {
            rows.obstacle.get_or_insert_with(|| {
                PlanError::refused(
                    Refusal::LocalWithSharded,
                    "a table that is not sharded is written with rows of sharded tables",
                )
            });
        }
        if !groups.partitioned && block.random {
            self.unstable(
                Refusal::VolatileFunction,
                "a volatile function gives each copy another value",
            );
        }
        rows.obstacle = rows.obstacle.or(subquery_obstacle);
        Ok(rows)
    }

    fn insert(&mut self, insert: &'a ast::Insert, outer: Option<Rc<Scope>>) -> Outcome<Rows> {
        let ast::Insert {
            insert_token: _,
            optimizer_hints: _,
            or,
            ignore,
            into,
            table,
            table_alias,
            columns,
            by_name,
            overwrite,
            source,
            assignments,
            partitioned,
            after_columns,
            overriding: _,
            has_table_keyword,
            on,
            returning,
            output,
            replace_into,
            priority,
            insert_alias,
            settings,
            format_clause,
            multi_table_insert_type,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause,
        } = insert;
        let foreign = or.is_some()
            || *ignore
            || !*into
            || *by_name
            || *overwrite
            || !assignments.is_empty()
            || partitioned.is_some()
            || !after_columns.is_empty()
            || *has_table_keyword
            || output.is_some()
            || *replace_into
            || priority.is_some()
            || insert_alias.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || multi_table_insert_type.is_some()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty()
            || multi_table_else_clause.is_some();
        if foreign {
            return beyond("a clause of this INSERT");
        }
        let ast::TableObject::TableName(name) = table else {
            return beyond("this INSERT's target");
        };
        let parts = object_name(name)?;
        self.found.writes = true;
        self.found.writers += 1;
        self.blocks.push(Block::default());
        let before = self.uses.len();
        let mut target = self.table(&parts, None, true)?;
        // The rows that an INSERT touches are those that it stores, not those that are there.
        self.uses.truncate(before);
        if let Some(alias) = table_alias {
            target.items[0].name = parse::name(&alias.alias);
            target.items[0].schema = None;
        }
        let relation = self.relation(&parts);
        let updates = matches!(on, Some(ast::OnInsert::OnConflict(conflict))
            if matches!(conflict.action, ast::OnConflictAction::DoUpdate(_)));
        let events: &[Event] = if updates {
            &[Event::Insert, Event::Update]
        } else {
            &[Event::Insert]
        };
        self.written(relation.as_deref(), events, None)?;
        let reference = target.items[0].reference;
        let sharded = match relation.as_deref() {
            Some(Relation {
                placement: Placement::Sharded { key, .. },
                ..
            }) => Some(*key),
            _ => None,
        };
        let mut listed = Vec::new();
        for column in columns {
            // `a.b` and `a[1]` store into a part of column a.
            listed.push(object_name(column)?.into_iter().next().unwrap_or_default());
        }
        let source_rows = match source.as_deref() {
            None => None,
            Some(query) => match &*query.body {
                SetExpr::Values(values)
                    if query.with.is_none()
                        && query.order_by.is_none()
                        && query.limit_clause.is_none()
                        && query.fetch.is_none() =>
                {
                    if values.explicit_row || values.value_keyword {
                        return beyond("this VALUES");
                    }
                    let scope = Rc::new(Scope {
                        from: From::default(),
                        outer: outer.clone(),
                        restricts_outer: false,
                    });
                    let columns = relation.as_deref().map_or(&[][..], |found| &found.columns);
                    let column_at = |position: usize| match listed.get(position) {
                        Some(name) => columns.iter().find(|column| *column.name == **name),
                        None if listed.is_empty() => columns.get(position),
                        None => None,
                    };
                    for row in &values.rows {
                        for (position, expr) in row.content.iter().enumerate() {
                            if !is_default(expr) {
                                self.stored_value(expr, column_at(position), &scope)?;
                            }
                        }
                    }
                    Some(InsertRows::Values(&values.rows))
                }
                _ => Some(InsertRows::Query(self.query(
                    query,
                    outer.clone(),
                    false,
                    false,
                )?)),
            },
        };
        // Which columns are given, by their index in the relation.
        let width = match &source_rows {
            None => 0,
            Some(InsertRows::Values(rows)) => rows.first().map_or(0, |row| row.content.len()),
            Some(InsertRows::Query(rows)) => rows.columns.as_ref().map_or(usize::MAX, Vec::len),
        };
        let mut obstacle = None;
        if let Some(relation) = relation.as_deref()
            && (sharded.is_some() || reference)
        {
            let given: Vec<usize> = if listed.is_empty() {
                (0..relation.columns.len().min(width)).collect()
            } else {
                listed
                    .iter()
                    .map(|name| relation.column(name).unwrap_or(usize::MAX))
                    .collect()
            };
            for (index, column) in relation.columns.iter().enumerate() {
                let defaulted = match given.iter().position(|given| *given == index) {
                    None => true,
                    Some(position) => match &source_rows {
                        Some(InsertRows::Values(rows)) => rows
                            .iter()
                            .any(|row| row.content.get(position).is_some_and(is_default)),
                        Some(InsertRows::Query(_)) | None => false,
                    },
                };
                if defaulted {
                    self.defaulted(relation, column, reference)?;
                }
            }
            if let Some(key) = sharded {
                let Some(column) = relation
                    .columns
                    .get(key)
                    .and_then(|column| KeyColumn::new(&relation.name, column))
                else {
                    return Err(PlanError::Internal {
                        what: "the sharding key has a type that cannot be hashed".into(),
                    });
                };
                let missing = || {
                    PlanError::refused(
                        Refusal::MissingKey,
                        format!("INSERT without the sharding key {}", column.name),
                    )
                };
                let position = given
                    .iter()
                    .position(|given| *given == key)
                    .ok_or_else(missing)?;
                let column = Arc::new(column.clone());
                match &source_rows {
                    None => return Err(missing()),
                    Some(InsertRows::Values(rows)) => {
                        let mut keys = Vec::with_capacity(rows.len());
                        for row in rows.iter() {
                            let value = row.content.get(position).ok_or_else(missing)?;
                            if is_default(value) {
                                return Err(missing());
                            }
                            keys.push(self.constant(value, &column).ok_or_else(|| {
                                PlanError::refused(
                                    Refusal::KeyValue,
                                    format!("the sharding key {} is an expression", column.name),
                                )
                            })?);
                        }
                        self.found.stored.push(Stored {
                            column,
                            keys,
                            split: true,
                        });
                    }
                    Some(InsertRows::Query(rows)) => {
                        let refused =
                            |reason: String| PlanError::refused(Refusal::InsertSelect, reason);
                        if let Some(Some(constant)) = rows.constants.get(position) {
                            let source = self.constant(constant, &column).ok_or_else(|| {
                                refused(format!(
                                    "the sharding key {} is an expression",
                                    column.name
                                ))
                            })?;
                            self.found.stored.push(Stored {
                                column,
                                keys: vec![source],
                                split: false,
                            });
                            if rows.partitioned {
                                obstacle = Some(refused(
                                    "rows of several shards are stored under one sharding key"
                                        .to_owned(),
                                ));
                            }
                        } else {
                            let key = rows
                                .columns
                                .as_ref()
                                .and_then(|columns| columns.get(position))
                                .and_then(|column| column.key);
                            let carried = key.filter(|key| {
                                !key.nullable && self.graph.column(key.node).stores_as(&column)
                            });
                            if carried.is_none() {
                                return Err(refused(format!(
                                    "the sharding key {} is not the source's sharding key",
                                    column.name
                                )));
                            }
                        }
                    }
                }
            }
        }
        let scope = {
            let mut from = target.clone();
            let mut excluded = target.items[0].clone();
            excluded.name = "excluded".to_owned();
            excluded.schema = None;
            from.items.push(excluded);
            Rc::new(Scope {
                from,
                outer: outer.clone(),
                restricts_outer: false,
            })
        };
        match on {
            None => {}
            Some(ast::OnInsert::OnConflict(conflict)) => {
                if let Some(ast::ConflictTarget::Columns {
                    predicate: Some(predicate),
                    ..
                }) = &conflict.conflict_target
                {
                    self.expression(predicate, &scope)?;
                }
                if reference && matches!(source_rows, Some(InsertRows::Query(_))) {
                    self.unstable(
                        Refusal::ReferenceWriteDiffers,
                        "ON CONFLICT may meet the rows in another order on each shard",
                    );
                }
                if let (Some(relation), Some(key)) = (relation.as_deref(), sharded) {
                    arbitrates_by_key(conflict.conflict_target.as_ref(), relation, key)?;
                }
                if let ast::OnConflictAction::DoUpdate(update) = &conflict.action {
                    self.conflict_updates(
                        &update.assignments,
                        conflict.conflict_target.as_ref(),
                        relation.as_deref(),
                        &scope,
                    )?;
                    if let Some(selection) = &update.selection {
                        self.expression(selection, &scope)?;
                    }
                }
            }
            Some(_) => return beyond("ON DUPLICATE KEY"),
        }
        let target_scope = Rc::new(Scope {
            from: target,
            outer,
            restricts_outer: false,
        });
        let mut rows = self.returning(returning, &target_scope)?;
        let block = self.blocks.pop().unwrap_or_default();
        if block.random && reference {
            self.unstable(
                Refusal::VolatileFunction,
                "a volatile function gives each copy another value",
            );
        }
        // A row that is stored has no key node to tie a subquery to.
        let subquery_obstacle = self.settle(block.pending, &[]);
        match source_rows {
            Some(InsertRows::Query(source)) => {
                rows.partitioned = source.partitioned && sharded.is_some();
                rows.obstacle = source.obstacle.or(obstacle).or(subquery_obstacle);
                if source.partitioned && sharded.is_none() {
                    rows.obstacle.get_or_insert_with(|| {
                        PlanError::refused(
                            Refusal::LocalWithSharded,
                            "rows of several shards are stored in a table that is not sharded",
                        )
                    });
                }
            }
            Some(InsertRows::Values(_)) | None => {
                rows.partitioned = sharded.is_some();
                rows.obstacle = subquery_obstacle;
            }
        }
        Ok(rows)
    }

    /// ON CONFLICT … DO UPDATE SET.
    fn conflict_updates(
        &mut self,
        assignments: &'a [ast::Assignment],
        target: Option<&ast::ConflictTarget>,
        relation: Option<&Relation>,
        scope: &Rc<Scope>,
    ) -> Outcome<()> {
        let key = match relation.map(|relation| (&relation.placement, relation)) {
            Some((Placement::Sharded { key, .. }, relation)) => {
                relation.columns.get(*key).map(|column| &*column.name)
            }
            _ => None,
        };
        let arbiter = matches!(target, Some(ast::ConflictTarget::Columns { columns, .. })
            if key.is_some_and(|key| columns.iter().any(|column| parse::name(column) == key)));
        for assignment in assignments {
            // A row that conflicts in its key has the key of the row that was to be stored.
            let same = match (&assignment.target, bare(&assignment.value)) {
                (ast::AssignmentTarget::ColumnName(name), Expr::CompoundIdentifier(value)) => {
                    let name = object_name(name)?;
                    let value: Vec<String> = value.iter().map(parse::name).collect();
                    arbiter
                        && name.len() == 1
                        && value.len() == 2
                        && value[0] == "excluded"
                        && value[1] == name[0]
                        && Some(name[0].as_str()) == key
                }
                _ => false,
            };
            if !same {
                self.assignments(std::slice::from_ref(assignment), relation, None, scope)?;
            }
        }
        Ok(())
    }

    /// An INSERT leaves `column` to its default.
    fn defaulted(&mut self, relation: &Relation, column: &Column, reference: bool) -> Outcome<()> {
        match default_obstacle(relation, column, reference, self.topology, self.search_path) {
            None => {}
            Some((obstacle, true)) => return Err(obstacle),
            Some((obstacle, false)) if reference => {
                self.found.differs.get_or_insert(obstacle);
            }
            Some((obstacle, false)) => {
                self.found.multi.get_or_insert(obstacle);
            }
        }
        Ok(())
    }

    fn merge(&mut self, merge: &'a ast::Merge, outer: Option<Rc<Scope>>) -> Outcome<Rows> {
        let ast::Merge {
            merge_token: _,
            optimizer_hints: _,
            into,
            table,
            source,
            on,
            clauses,
            output,
        } = merge;
        if !*into || output.is_some() {
            return beyond("a clause of this MERGE");
        }
        self.blocks.push(Block::default());
        let (target, relation) = self.target(table)?;
        let events = clauses.iter().filter_map(|clause| match &clause.action {
            ast::MergeAction::Insert(_) => Some(Event::Insert),
            ast::MergeAction::Update(_) => Some(Event::Update),
            ast::MergeAction::Delete { .. } => Some(Event::Delete),
            ast::MergeAction::DoNothing { .. } => None,
        });
        self.written(relation.as_deref(), &events.collect::<Vec<_>>(), None)?;
        if target.items[0].reference {
            self.unstable(
                Refusal::ReferenceWriteDiffers,
                "MERGE may meet the rows in another order on each shard",
            );
        }
        let key = target
            .groups
            .first()
            .and_then(|group| group.first())
            .copied();
        let is_sharded = target.partitioned;
        let other = self.factor(source, &From::default(), &outer)?;
        let source_groups = other.groups.clone();
        let source_partitioned = other.partitioned;
        // Every source row counts, matched or not: an outer join that keeps the source.
        let allow = Allow::Only(target.key_nodes());
        let scope = Rc::new(Scope {
            from: target.beside(other),
            outer,
            restricts_outer: false,
        });
        let pairs = self.conjuncts(on, &scope, &allow)?;
        let mut groups = scope.from.clone();
        for (a, b) in pairs {
            groups.equate(a, b);
        }
        for clause in clauses {
            if let Some(predicate) = &clause.predicate {
                self.expression(predicate, &scope)?;
            }
            match &clause.action {
                ast::MergeAction::Delete { .. } | ast::MergeAction::DoNothing { .. } => {}
                ast::MergeAction::Update(update) => {
                    let (ast::MergeUpdateKind::Set(assignments), None, None) = (
                        &update.kind,
                        &update.update_predicate,
                        &update.delete_predicate,
                    ) else {
                        return beyond("this UPDATE of MERGE");
                    };
                    self.assignments(assignments, relation.as_deref(), key, &scope)?;
                }
                ast::MergeAction::Insert(insert) => {
                    self.merge_insert(insert, relation.as_deref(), key, &scope, &source_groups)?
                }
            }
        }
        let block = self.blocks.pop().unwrap_or_default();
        let subquery_obstacle = self.settle(block.pending, &groups.nodes());
        let mut obstacle = groups.obstacle.clone();
        if is_sharded && !(source_partitioned && groups.groups.len() == 1) {
            obstacle.get_or_insert_with(|| {
                PlanError::refused(
                    Refusal::Merge,
                    "MERGE does not join target and source on their sharding keys",
                )
            });
        }
        if !is_sharded && source_partitioned {
            obstacle.get_or_insert_with(|| {
                PlanError::refused(
                    Refusal::LocalWithSharded,
                    "a table that is not sharded is written with rows of sharded tables",
                )
            });
        }
        Ok(Rows {
            columns: None,
            partitioned: groups.partitioned,
            obstacle: obstacle.or(subquery_obstacle),
            constants: Vec::new(),
        })
    }

    fn merge_insert(
        &mut self,
        insert: &'a ast::MergeInsertExpr,
        relation: Option<&Relation>,
        key: Option<NodeId>,
        scope: &Rc<Scope>,
        source_groups: &[Vec<NodeId>],
    ) -> Outcome<()> {
        let (ast::MergeInsertKind::Values(values), None) = (&insert.kind, &insert.insert_predicate)
        else {
            return beyond("this INSERT of MERGE");
        };
        let [row] = values.rows.as_slice() else {
            return beyond("this INSERT of MERGE");
        };
        for expr in &row.content {
            if !is_default(expr) {
                self.expression(expr, scope)?;
            }
        }
        let Some(relation) = relation else {
            return Ok(());
        };
        let is_reference = relation.placement == Placement::Reference;
        let mut listed = Vec::new();
        for column in &insert.columns {
            listed.push(object_name(column)?.pop().unwrap_or_default());
        }
        if key.is_none() && !is_reference {
            return Ok(());
        }
        for (index, column) in relation.columns.iter().enumerate() {
            let position = if listed.is_empty() {
                Some(index)
            } else {
                listed
                    .iter()
                    .position(|name| name.as_str() == &*column.name)
            };
            let value = position
                .and_then(|position| row.content.get(position))
                .filter(|value| !is_default(value));
            let is_key =
                matches!(relation.placement, Placement::Sharded { key, .. } if key == index);
            match (value, key) {
                (None, _) if is_key => {
                    return Err(PlanError::refused(
                        Refusal::MissingKey,
                        format!("INSERT without the sharding key {}", column.name),
                    ));
                }
                (None, _) => self.defaulted(relation, column, is_reference)?,
                (Some(value), Some(node)) if is_key => {
                    let key_column = self.graph.column(node).clone();
                    if let Some(source) = self.constant(value, &key_column) {
                        self.found.stored.push(Stored {
                            column: key_column,
                            keys: vec![source],
                            split: false,
                        });
                        self.never_multi(Refusal::Merge, "MERGE stores a constant sharding key");
                        continue;
                    }
                    let carried = matches!(self.key_of(value, scope), Some((0, key))
                        if !key.nullable && source_groups.iter().any(|group| group.contains(&key.node))
                            && self.graph.column(key.node).stores_as(&key_column));
                    if !carried {
                        return Err(PlanError::refused(
                            Refusal::Merge,
                            "MERGE stores a sharding key that is not the source's",
                        ));
                    }
                }
                (Some(_), _) => {}
            }
        }
        Ok(())
    }

    // ORDER BY and LIMIT of the outermost query.

    fn order_expressions(
        &mut self,
        order: &'a [OrderByExpr],
        outer: &Option<Rc<Scope>>,
    ) -> Outcome<()> {
        let scope = Rc::new(Scope {
            from: From::default(),
            outer: outer.clone(),
            restricts_outer: false,
        });
        for item in order {
            self.expression(&item.expr, &scope)?;
        }
        Ok(())
    }

    /// ORDER BY after a set operation: by output columns only.
    fn order_by_output(
        &mut self,
        order: &'a [OrderByExpr],
        rows: &Rows,
        outer: &Option<Rc<Scope>>,
    ) -> Outcome<()> {
        self.order_expressions(order, outer)?;
        self.found.outer.width = rows
            .columns
            .as_ref()
            .and_then(|columns| u16::try_from(columns.len()).ok());
        for item in order {
            let column = match bare(&item.expr) {
                Expr::Identifier(ident) => {
                    let name = parse::name(ident);
                    rows.columns.as_ref().and_then(|columns| {
                        only(columns.iter().map(|column| *column.name == *name))
                    })
                }
                expr => ordinal(expr),
            };
            let Some(column) = column else {
                self.never_multi(
                    Refusal::OrderBy,
                    "ORDER BY of a set operation by other than an output column",
                );
                return Ok(());
            };
            let by_bytes = rows
                .columns
                .as_ref()
                .and_then(|columns| columns.get(usize::from(column)))
                .is_some_and(|column| column.collation == Collation::Bytes);
            self.push_order(item, Some(column), by_bytes)?;
        }
        Ok(())
    }

    fn outer_order(
        &mut self,
        order: &'a [OrderByExpr],
        select: &'a Select,
        scope: &Rc<Scope>,
        columns: &Option<Vec<OutColumn>>,
    ) -> Outcome<()> {
        self.found.outer.width = columns
            .as_ref()
            .and_then(|columns| u16::try_from(columns.len()).ok());
        // The select item of each output column, as far as there is no `*` before it.
        let plain: Vec<&Expr> = select
            .projection
            .iter()
            .map_while(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    Some(expr)
                }
                _ => None,
            })
            .collect();
        let unsure = select.projection.iter().any(
            |item| matches!(item, SelectItem::UnnamedExpr(expr) if output_name(expr).is_none()),
        );
        for item in order {
            let mut column = ordinal(bare(&item.expr));
            if column.is_none()
                && matches!(bare(&item.expr), Expr::Value(value) if !matches!(value.value, ast::Value::Placeholder(_)))
            {
                self.never_multi(Refusal::OrderBy, "ORDER BY a constant");
                return Ok(());
            }
            if let (None, Expr::Identifier(ident)) = (column, &item.expr) {
                // A bare name is an output column first.
                let name = parse::name(ident);
                match columns {
                    None => {
                        self.never_multi(
                            Refusal::OrderBy,
                            "ORDER BY with a select list whose columns are not known",
                        );
                        return Ok(());
                    }
                    Some(columns) => {
                        let named = columns
                            .iter()
                            .filter(|column| *column.name == *name)
                            .count();
                        if named == 0 && unsure {
                            self.never_multi(
                                Refusal::OrderBy,
                                format!(
                                    "ORDER BY {name}, which may be the name of an output column"
                                ),
                            );
                            return Ok(());
                        }
                        if named > 0 {
                            // Several of one name must be the same column, or PostgreSQL complains.
                            column = columns
                                .iter()
                                .position(|column| *column.name == *name)
                                .and_then(|index| u16::try_from(index).ok());
                        }
                    }
                }
            }
            if column.is_none() {
                let wanted = self
                    .find(&item.expr, scope)
                    .filter(|(level, column)| *level == 0 && column.id != 0)
                    .map(|(_, column)| column.id);
                column = match (wanted, columns) {
                    (Some(id), Some(columns)) => columns.iter().position(|column| column.id == id),
                    _ => plain.iter().position(|expr| bare(expr) == bare(&item.expr)),
                }
                .and_then(|index| u16::try_from(index).ok());
            }
            let by_bytes = match column {
                Some(column) => columns
                    .as_ref()
                    .and_then(|columns| columns.get(usize::from(column)))
                    .is_some_and(|column| column.collation == Collation::Bytes),
                None => match self.find(&item.expr, scope) {
                    Some((_, column)) => column.collation == Collation::Bytes,
                    None => explicit_collation(&item.expr) == Collation::Bytes,
                },
            };
            if column.is_none() && select.distinct.is_some() {
                self.never_multi(
                    Refusal::OrderBy,
                    "ORDER BY of a DISTINCT query by other than an output column",
                );
                return Ok(());
            }
            self.push_order(item, column, by_bytes)?;
        }
        Ok(())
    }

    fn push_order(
        &mut self,
        item: &OrderByExpr,
        column: Option<u16>,
        by_bytes: bool,
    ) -> Outcome<()> {
        if item.with_fill.is_some() {
            return beyond("WITH FILL");
        }
        let descending = match &item.options.sort {
            None | Some(OrderBySort::Asc) => false,
            Some(OrderBySort::Desc) => true,
            Some(OrderBySort::Using(_)) => {
                self.never_multi(Refusal::OrderBy, "ORDER BY … USING");
                return Ok(());
            }
        };
        let nulls_first = item.options.nulls_first.unwrap_or(descending);
        self.found.outer.order.push(Order {
            column,
            descending,
            nulls_first,
            by_bytes,
        });
        Ok(())
    }

    fn count(&mut self, expr: Option<&Expr>) -> Option<Count> {
        let expr = expr?;
        let count = match cast_to_integer(expr) {
            Expr::Value(value) => match &value.value {
                ast::Value::Null => return None,
                ast::Value::Placeholder(text) => placeholder(text).map(|index| {
                    let oid = self
                        .parameter_types
                        .get(usize::from(index))
                        .copied()
                        .unwrap_or(0);
                    Count::Parameter { index, oid }
                }),
                ast::Value::Number(text, _) => text.parse().ok().map(Count::Number),
                other => parse::string(other)
                    .and_then(|text| text.trim_ascii().parse().ok())
                    .map(Count::Number),
            },
            Expr::UnaryOp {
                op: ast::UnaryOperator::Minus,
                expr,
            } => match bare(expr) {
                Expr::Value(value) => match &value.value {
                    ast::Value::Number(text, _) => text
                        .parse::<i64>()
                        .ok()
                        .map(|number| Count::Number(-number)),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        if count.is_none() {
            self.never_multi(Refusal::LimitExpression, "LIMIT or OFFSET is an expression");
        }
        count
    }
}

enum InsertRows<'a> {
    Values(&'a [ast::Parens<Vec<Expr>>]),
    Query(Rows),
}

impl From {
    /// All key nodes of all columns, located or not.
    fn key_nodes(&self) -> Vec<NodeId> {
        let columns = self
            .items
            .iter()
            .filter_map(|item| item.columns.as_ref())
            .flat_map(|columns| columns.iter());
        columns
            .chain(&self.merged)
            .filter_map(|column| column.key.map(|key| key.node))
            .collect()
    }
}

/// The one index at which `matches` is true.
fn only(matches: impl Iterator<Item = bool>) -> Option<u16> {
    let mut at = matches
        .enumerate()
        .filter(|(_, matches)| *matches)
        .map(|(index, _)| index);
    let first = at.next()?;
    at.next()
        .is_none()
        .then(|| u16::try_from(first).ok())
        .flatten()
}

/// ORDER BY 1.
fn ordinal(expr: &Expr) -> Option<u16> {
    match expr {
        Expr::Value(value) => match &value.value {
            ast::Value::Number(text, _) => text
                .parse::<u16>()
                .ok()
                .and_then(|number| number.checked_sub(1)),
            _ => None,
        },
        _ => None,
    }
}

fn cast_to_integer(expr: &Expr) -> &Expr {
    match bare(expr) {
        Expr::Cast {
            expr,
            data_type:
                ast::DataType::BigInt(None)
                | ast::DataType::Int8(None)
                | ast::DataType::Integer(None)
                | ast::DataType::Int(None)
                | ast::DataType::Int4(None),
            ..
        } => bare(expr),
        other => other,
    }
}

/// `$1` → 0.
pub(super) fn placeholder(text: &str) -> Option<u16> {
    text.strip_prefix('$')?.parse::<u16>().ok()?.checked_sub(1)
}

pub(super) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

fn is_constant(expr: &Expr) -> bool {
    match bare(expr) {
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Cast { expr, .. } | Expr::UnaryOp { expr, .. } => is_constant(expr),
        _ => false,
    }
}

fn explicit_collation(expr: &Expr) -> Collation {
    match bare(expr) {
        Expr::Collate { collation, .. } => match object_name(collation)
            .ok()
            .and_then(|mut parts| parts.pop())
            .as_deref()
        {
            Some("C" | "POSIX" | "ucs_basic") => Collation::Bytes,
            _ => Collation::Other,
        },
        _ => Collation::Other,
    }
}

fn plain_wildcard(options: &ast::WildcardAdditionalOptions) -> Outcome<()> {
    let ast::WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    if opt_ilike.is_some()
        || opt_exclude.is_some()
        || opt_except.is_some()
        || opt_replace.is_some()
        || opt_rename.is_some()
        || opt_alias.is_some()
    {
        return beyond("an option of *");
    }
    Ok(())
}

/// Columns under the names of an alias's list.
fn renamed(mut columns: Vec<OutColumn>, alias: &TableAlias) -> Outcome<Vec<OutColumn>> {
    if alias.at.is_some() {
        return beyond("AT in an alias");
    }
    for (column, new) in columns.iter_mut().zip(&alias.columns) {
        column.name = parse::name(&new.name).as_str().into();
    }
    Ok(columns)
}

/// Refuses an ON CONFLICT whose unique index lacks the sharding key: the row that conflicts may be on another shard.
fn arbitrates_by_key(
    target: Option<&ast::ConflictTarget>,
    relation: &Relation,
    key: usize,
) -> Outcome<()> {
    let key_name = &relation.columns[key].name;
    let reason = match target {
        Some(ast::ConflictTarget::Columns { columns, .. }) => {
            if columns
                .iter()
                .any(|column| parse::name(column) == **key_name)
            {
                return Ok(());
            }
            "ON CONFLICT".to_owned()
        }
        Some(ast::ConflictTarget::OnConstraint(name)) => {
            let name = object_name(name)?.pop().unwrap_or_default();
            let named = relation
                .unique
                .iter()
                .find(|unique| unique.is_constraint && *unique.name == *name);
            if named.is_some_and(|unique| unique.columns.contains(&key)) {
                return Ok(());
            }
            format!("ON CONFLICT ON CONSTRAINT {name}")
        }
        None => match attached::without_key(relation).next() {
            None => return Ok(()),
            Some(unique) => format!("ON CONFLICT by {}", unique.name),
        },
    };
    Err(PlanError::refused(
        Refusal::OnConflict,
        format!("{reason} without the sharding key {key_name} sees the rows of one shard only"),
    ))
}

/// The columns that an UPDATE sets.
fn assigned_columns(assignments: &[ast::Assignment]) -> Outcome<Vec<Arc<str>>> {
    let mut columns = Vec::with_capacity(assignments.len());
    for assignment in assignments {
        let names = match &assignment.target {
            ast::AssignmentTarget::ColumnName(name) => std::slice::from_ref(name),
            ast::AssignmentTarget::Tuple(names) => names,
        };
        for name in names {
            // `a.b` sets a part of column a.
            let first = object_name(name)?.into_iter().next();
            columns.push(first.unwrap_or_default().into());
        }
    }
    Ok(columns)
}

/// Why a column's default is not what one PostgreSQL would give, and whether that is so on one shard too.
pub(super) fn default_obstacle(
    relation: &Relation,
    column: &Column,
    reference: bool,
    topology: &Topology,
    search_path: &[Arc<str>],
) -> Option<(PlanError, bool)> {
    let text = match &column.default {
        ColumnDefault::Null | ColumnDefault::Generated => return None,
        ColumnDefault::Sequence => {
            let reason = format!("{}.{} is left to its sequence", relation.name, column.name);
            return Some((PlanError::refused(Refusal::SequenceDefault, reason), true));
        }
        ColumnDefault::Expression(text) => text,
    };
    let reason = format!(
        "{}.{} is left to its default {text}",
        relation.name, column.name
    );
    let (refusal, always) = match catalog_text::effect(text, &topology.schema, search_path) {
        Effect::Same => return None,
        Effect::Random if !reference => return None,
        Effect::Random | Effect::Time | Effect::Catalog | Effect::Unknown if reference => {
            (Refusal::ReferenceWriteDiffers, false)
        }
        Effect::Random | Effect::Time | Effect::Catalog | Effect::Unknown => {
            (Refusal::DefaultDiffers, false)
        }
        Effect::Designated => (Refusal::SequenceDefault, true),
        Effect::Procedural => (Refusal::ProceduralFunction, true),
        Effect::Session => (Refusal::SessionState, true),
    };
    Some((PlanError::refused(refusal, reason), always))
}

/// The name that PostgreSQL gives an output column; `None` if that is not known for certain.
fn output_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(parse::name(ident)),
        Expr::CompoundIdentifier(idents) => idents.last().map(parse::name),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => output_name(inner),
        Expr::Function(function) => object_name(&function.name)
            .ok()
            .and_then(|mut parts| parts.pop()),
        Expr::Value(value) if matches!(value.value, ast::Value::Boolean(_)) => None,
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::Overlay { .. } => Some("overlay".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Tuple(_) => Some("row".to_owned()),
        Expr::BinaryOp { .. }
        | Expr::UnaryOp { .. }
        | Expr::Value(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::Between { .. }
        | Expr::In { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. } => Some("?column?".to_owned()),
        Expr::Cast { expr: inner, .. } => match bare(inner) {
            named @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Function(_)) => {
                output_name(named)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether a query's rows may come in another order on another copy.
fn rows_may_differ(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => !select.from.is_empty(),
        SetExpr::Values(_) => false,
        _ => true,
    }
}

//! Queries: WITH, set operations, parentheses, row locks, and what a subquery may leave to the query around it.

use super::analysis::{Analyzer, Block, Outcome, Outer, Pending, Rows, beyond, object_name};
use super::key::NodeId;
use super::refusal::{PlanError, Refusal};
use super::scope::{From, Key, OutColumn, Scope};
use super::sorting::Sorts;
use crate::sql::parse::{self, ast};
use crate::topology::schema::{Collation, Placement};
use ast::{
    Expr, OrderByExpr, OrderByKind, Query, SetExpr, SetOperator, SetQuantifier, TableFactor,
    TableWithJoins,
};
use std::rc::Rc;

impl<'a> Analyzer<'a> {
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
                if ties || (offset.is_some() && self.found.outer.offset.is_none()) {
                    self.found.first_rows = None;
                }
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
        rows.ordered |= !order.is_empty();
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
        let obstacle = PlanError::refused(Refusal::Join, "rows to lock are on several shards");
        self.never_gathered(&obstacle);
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
                    let placement = self.relation(&parts);
                    let reference = match placement.map(|relation| relation.placement.clone()) {
                        Some(Placement::Reference) => true,
                        // A lock of a view is one of all tables in it.
                        Some(Placement::View) => self.found.reference,
                        _ => false,
                    };
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
                    ordered: false,
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
                                    is_exact: left.is_exact && right.is_exact,
                                    sorts: left.sorts.beside(right.sorts),
                                    id: 0,
                                    name: left.name,
                                    origin: None,
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
                    ordered: false,
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
            origin: None,
            is_exact: false,
            sorts: Sorts::Unknown,
        }
    }

    /// Keys whose restriction must not reach into the query that yields them.
    pub(super) fn opaque(&mut self, columns: Vec<OutColumn>) -> Vec<OutColumn> {
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
    pub(super) fn settle(
        &mut self,
        pending: Vec<Pending>,
        anchors: &[NodeId],
    ) -> Option<PlanError> {
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

    /// The array of a query's rows, in the order in which they come.
    pub(super) fn array_of(&mut self, query: &'a Query) {
        if query.order_by.is_none() && rows_may_differ(&query.body) {
            self.found.differs.get_or_insert_with(|| {
                PlanError::refused(
                    Refusal::Aggregate,
                    "an array depends on the order of reference rows",
                )
            });
        }
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

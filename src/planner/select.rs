//! SELECT: grouping, DISTINCT, windows and the select list, over the rows of FROM.

use super::analysis::{
    Allow, Analyzer, Block, Outcome, Rows, bare, beyond, is_constant, object_name,
};
use super::order::explicit_collation;
use super::refusal::{PlanError, Refusal};
use super::scope::{Found, From, Key, Lookup, OutColumn, Scope};
use super::temporary;
use crate::sql::parse::{self, ast};
use crate::topology::schema::TEMPORARY;
use ast::{Expr, OrderByExpr, Select, SelectItem};
use std::rc::Rc;
use std::sync::Arc;

/// `FROM pg_settings WHERE name = '…'`: the one setting whose row there is. So pg_dump sets what not all versions have.
fn named_setting<'a>(
    from: &'a [ast::TableWithJoins],
    selection: Option<&'a Expr>,
    search_path: &[Arc<str>],
) -> Option<&'a str> {
    let [source] = from else {
        return None;
    };
    let ast::TableFactor::Table {
        name, alias: None, ..
    } = &source.relation
    else {
        return None;
    };
    let parts = object_name(name).ok()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let catalog_first = || search_path.iter().all(|schema| &**schema != "pg_catalog");
    let is_catalog = match parts.as_slice() {
        ["pg_catalog", "pg_settings"] => true,
        ["pg_settings"] => catalog_first(),
        _ => false,
    };
    let Some(Expr::BinaryOp {
        left,
        op: ast::BinaryOperator::Eq,
        right,
    }) = selection
    else {
        return None;
    };
    match (&**left, &**right) {
        (Expr::Identifier(column), Expr::Value(value))
            if is_catalog && source.joins.is_empty() && parse::name(column) == "name" =>
        {
            parse::string(&value.value)
        }
        _ => None,
    }
}

impl<'a> Analyzer<'a> {
    pub(super) fn select(
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
        if let Some(into) = into {
            self.found.writes = true;
            self.found.writers += 1;
            self.created(into)?;
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
            self.note_filters(from, selection, &scope);
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
        let setting_named = match self.ctes.is_empty() {
            true => named_setting(from, selection.as_ref(), self.search_path),
            false => None,
        };
        let outer_setting = std::mem::replace(&mut self.setting_named, setting_named);
        for item in projection {
            self.projected(item, &scope, &groups, &mut columns, &mut constants)?;
        }
        self.setting_named = outer_setting;
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
        if !grouping_sets {
            self.note_grouped(grouping, &scope);
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
        let mut block = self.blocks.pop().unwrap_or_default();
        let plain_rows = !block.aggregate && grouping.is_empty() && block.windows.is_empty();
        let anchors = groups.nodes();
        let partitioned = groups.partitioned;
        let mut obstacle = groups.obstacle.clone();
        let pending = std::mem::take(&mut block.pending);
        let subquery_obstacle = self.settle(pending, &anchors);
        let is_by_shard =
            obstacle.is_none() && subquery_obstacle.is_none() && groups.groups.len() == 1;
        if top && partitioned && is_by_shard {
            let partial = self.partial(select, order, &scope, &block);
            self.found.partial = partial.map(Box::new);
            self.found.first_rows = self.first_rows(select, order, &scope, &block);
        }
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
        // PostgreSQL gives a subquery's rows on as they come, unless it has to bring them together.
        let ordered = scope.from.ordered
            && scope.from.items.len() == 1
            && plain_rows
            && distinct.is_none()
            && order.is_empty();
        if top && ordered && partitioned && obstacle.is_none() {
            self.never_multi(
                Refusal::OrderBy,
                "ORDER BY in a subquery orders the rows of one shard only",
            );
        }
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
            ordered,
            obstacle,
            constants,
        })
    }

    /// The table that SELECT INTO makes, which is a temporary one: another would be on one shard only, as the text cannot
    /// be sent to make it on others.
    fn created(&mut self, into: &ast::SelectInto) -> Outcome<()> {
        let name = match into.targets.as_slice() {
            [Expr::Identifier(ident)] => vec![parse::name(ident)],
            [Expr::CompoundIdentifier(idents)] => idents.iter().map(parse::name).collect(),
            _ => return beyond("this target of INTO"),
        };
        let schema = name.iter().rev().nth(1).map(String::as_str);
        let table = name.last().map_or("", String::as_str);
        let here = self.topology.default_shard;
        if temporary::made_temporary(schema, into.temporary, self.topology, self.search_path)? {
            self.found.temporary = true;
            self.found.session.temporary = true;
            let name = format!("{TEMPORARY}.{table}");
            self.found.locals.push((here, name.into()));
            return Ok(());
        }
        Err(PlanError::refused(
            Refusal::CreateTableAs,
            format!("SELECT INTO {table} would create the table on one shard only"),
        ))
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

    pub(super) fn projected(
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
                        is_exact: self.is_exact(expr, scope),
                        sorts: self.sorts(expr, scope),
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
                self.found.every_column = true;
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
                self.found.every_column = true;
                let parts = object_name(name)?;
                if parts.len() > 1 {
                    self.qualified_row(&parts, parse::place(name), scope);
                }
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
                self.found.every_column = true;
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

/// The name that PostgreSQL gives an output column; `None` if that is not known for certain.
pub(super) fn output_name(expr: &Expr) -> Option<String> {
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

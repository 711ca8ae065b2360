//! Tier 4: a query whose groups have rows on several shards, but whose aggregates are made of parts that shards can
//! compute by themselves. Each shard answers a *partial* query: a row for each of its groups, with the parts. The
//! *final* query over these rows is the client's own, where each aggregate is made of its parts, and each expression of
//! GROUP BY is a column. Here the tree of the final query is made of the client's, and every place in the text where the
//! two differ is noted; [`super::partial_text`] makes the texts and proves them by these trees.
//!
//! An aggregate of the distinct values of a column is computed by the final query itself: partial rows are grouped by the
//! column, too, which all other parts bear.
//!
//! What is not split: aggregates that depend on the order of rows, and sums and averages of floats with them, which
//! depend on it in their last digits; what has no type that [`super::typing`]
//! knows; and a query that computes something of rows beside its groups. All that is gathered.

use super::aggregate::{
    self, Final, PartFunction, SQUARES_BETWEEN, SQUARES_FIRST, SQUARES_LAST, Split,
};
use super::analysis::{Analyzer, Block, bare, object_name};
use super::function;
use super::plan::Fold;
use super::scope::{Lookup, Scope};
use super::select::output_name;
use super::typing::{self, Typed};
use crate::sql::lex::LexLimits;
use crate::sql::parse::{self, Place, ast};
use crate::topology::schema::{Collation, Column, ColumnDefault};
use ast::{
    Distinct, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    OrderByExpr, Select, SelectItem, SetExpr, Statement, Value, WindowFrameBound, WindowType,
};
use std::rc::Rc;
use std::sync::Arc;

/// The name of the partial rows.
pub(super) const PARTIAL: &str = "pgring_partial";

/// Partial rows may have this many columns, with which a query stays under PostgreSQL's own limit of 1664.
const COLUMNS_MAX: usize = 1_600;

/// For texts that are written here.
const LIMITS: LexLimits = LexLimits {
    tokens_max: 1_000,
    depth_max: 100,
};

/// A query in two parts.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    /// What partial rows are grouped by.
    pub(super) groups: Vec<Group>,
    /// Their further columns.
    pub(super) parts: Vec<Part>,
    /// Where the final text is another than the client's, beside FROM and WHERE.
    pub(super) edits: Vec<Edit>,
    /// The final query's tree, with the client's FROM and WHERE.
    pub(super) select: Box<Select>,
    /// Its ORDER BY.
    pub(super) order: Vec<OrderByExpr>,
    /// How the router itself makes the one row of the shards' answers to the client's own text, where each of its columns
    /// is an aggregate of a simple type.
    pub(super) folds: Option<Arc<[Fold]>>,
}

/// An expression that partial rows are grouped by, which is a column of theirs.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) expr: Expr,
    /// Where its text stands.
    pub(super) home: Home,
    /// The table's column that it is, or 0.
    id: u32,
    /// Only an aggregate of its distinct values may name it in the final query.
    is_distinct: bool,
    pub(super) column: Column,
}

/// Where an expression's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// A column's name of this many parts.
    Name { place: Place, parts: usize },
    /// All of an item of the select list.
    Select(usize),
    /// All of an item of GROUP BY.
    GroupBy(usize),
}

/// A part of an aggregate, which is a column of partial rows.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The call as the shards get it.
    pub(super) call: ast::Function,
    /// The function, of pg_catalog.
    pub(super) function: PartFunction,
    /// Where the call stands whose arguments it has.
    pub(super) place: Place,
    pub(super) column: Column,
}

/// What stands in the final text instead.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// Of a column's name: a group.
    Name {
        place: Place,
        parts: usize,
        group: usize,
    },
    /// Of an expression, of which the first name stands at `anchor`: a group.
    Expression { anchor: Place, group: usize },
    /// Of an item of GROUP BY: a group.
    GroupBy { item: usize, group: usize },
    /// Of an aggregate's call: this text.
    Call {
        place: Place,
        text: String,
        fold: Option<Fold>,
    },
    /// Behind an item of the select list: its name.
    Called { item: usize, name: String },
}

impl Partial {
    /// How the final text names a group.
    pub(super) fn group_name(group: usize) -> String {
        format!("{PARTIAL}.g{}", group + 1)
    }

    fn part_name(part: usize) -> String {
        format!("{PARTIAL}.a{}", part + 1)
    }

    fn group_expr(group: usize) -> Expr {
        Expr::CompoundIdentifier(vec![
            Ident::new(PARTIAL),
            Ident::new(format!("g{}", group + 1)),
        ])
    }
}

/// A column of a type that is named by its OID.
fn column_of(name: String, type_oid: u32, typed: Option<&Typed>) -> Option<Column> {
    let (collation, collation_name) = match typed {
        Some(Typed::Of { collation, .. }) if typing::is_text(type_oid) => {
            (Collation::Other, collation.clone())
        }
        _ => (Collation::None, None),
    };
    Some(Column {
        name: name.into(),
        type_oid,
        type_name: aggregate::type_name(type_oid)?.into(),
        collation,
        collation_name,
        default: ColumnDefault::Null,
        not_null: false,
    })
}

/// The first name in an expression whose type is known.
pub(super) fn anchor(expr: &Expr) -> Option<Place> {
    let first = |list: &[&Expr]| list.iter().find_map(|expr| anchor(expr));
    match expr {
        Expr::Identifier(ident) => parse::place_of(ident),
        Expr::CompoundIdentifier(idents) => idents.first().and_then(parse::place_of),
        Expr::Function(function) => parse::place(&function.name),
        Expr::Nested(inner)
        | Expr::UnaryOp { expr: inner, .. }
        | Expr::Cast { expr: inner, .. }
        | Expr::Extract { expr: inner, .. }
        | Expr::Substring { expr: inner, .. }
        | Expr::Trim { expr: inner, .. }
        | Expr::AtTimeZone {
            timestamp: inner, ..
        }
        | Expr::Between { expr: inner, .. }
        | Expr::In { expr: inner, .. }
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner) => anchor(inner),
        Expr::BinaryOp { left, right, .. }
        | Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right) => first(&[left, right]),
        Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
            first(&[expr, pattern])
        }
        Expr::Case {
            operand,
            conditions,
            else_result,
            ..
        } => operand.as_deref().and_then(anchor).or_else(|| {
            let whens = conditions.iter();
            whens
                .flat_map(|when| [&when.condition, &when.result])
                .chain(else_result.as_deref())
                .find_map(anchor)
        }),
        _ => None,
    }
}

/// The tree of an expression that is written here.
fn expression(text: &str) -> Option<Expr> {
    let text = format!("SELECT {text}");
    let tokens = parse::tokens(&text, &LIMITS).ok()?;
    let Statement::Query(query) = parse::parse(&text, tokens).ok()?.statement else {
        return None;
    };
    match *query.body {
        SetExpr::Select(select) => match select.projection.into_iter().next()? {
            SelectItem::UnnamedExpr(expr) => Some(expr),
            _ => None,
        },
        _ => None,
    }
}

/// How the router makes the only row, if it can.
fn folds(select: &Select, partial: &Partial) -> Option<Arc<[Fold]>> {
    let is_row = partial.groups.is_empty()
        && select.having.is_none()
        && select.distinct.is_none()
        && select.named_window.is_empty()
        && partial.order.is_empty();
    if !is_row {
        return None;
    }
    let fold = |item: &SelectItem| {
        let Expr::Function(function) = item_expr(item)? else {
            return None;
        };
        let own = parse::place(&function.name)?;
        partial.edits.iter().find_map(|edit| match edit {
            Edit::Call { place, fold, .. } if *place == own => *fold,
            _ => None,
        })
    };
    select.projection.iter().map(fold).collect()
}

/// The item of the select list that a number in GROUP BY or ORDER BY stands for.
fn ordinal(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse::<usize>().ok()?.checked_sub(1),
            _ => None,
        },
        _ => None,
    }
}

fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

impl Analyzer<'_> {
    /// The query in two parts, if it is one of groups and all that it computes of rows can be split. Its rows, before
    /// they are grouped, are known to be each on one shard.
    pub(super) fn partial(
        &self,
        select: &Select,
        order: &[OrderByExpr],
        scope: &Rc<Scope>,
        block: &Block,
    ) -> Option<Partial> {
        let GroupByExpr::Expressions(grouping, _) = &select.group_by else {
            return None;
        };
        if block.random || select.into.is_some() {
            return None;
        }
        let mut partial = Partial {
            groups: Vec::new(),
            parts: Vec::new(),
            edits: Vec::new(),
            select: Box::new(select.clone()),
            order: order.to_vec(),
            folds: None,
        };
        let projection = &select.projection;
        let is_grouped = block.aggregate || !grouping.is_empty() || select.having.is_some();
        if is_grouped {
            self.grouping(grouping, projection, scope, &mut partial)?;
        } else if matches!(select.distinct, Some(Distinct::Distinct)) && block.windows.is_empty() {
            for (index, item) in projection.iter().enumerate() {
                self.group(item_expr(item)?, Home::Select(index), scope, &mut partial)?;
            }
        } else {
            return None;
        }

        self.names(select, order, scope, &mut partial)?;
        // The trees are taken out while they are changed.
        let mut changed = partial.select.clone();
        for item in &mut changed.projection {
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item
            else {
                return None;
            };
            self.finish(expr, scope, &mut partial)?;
        }
        if let GroupByExpr::Expressions(items, _) = &mut changed.group_by {
            for (index, item) in items.iter_mut().enumerate() {
                self.finish_group(index, item, projection, scope, &mut partial)?;
            }
        }
        if let Some(having) = &mut changed.having {
            self.finish(having, scope, &mut partial)?;
        }
        for definition in &mut changed.named_window {
            let ast::NamedWindowExpr::WindowSpec(spec) = &mut definition.1 else {
                return None;
            };
            self.finish_window(spec, scope, &mut partial)?;
        }
        if let Some(Distinct::On(expressions)) = &mut changed.distinct {
            for expr in expressions {
                self.finish_key(expr, projection, scope, &mut partial)?;
            }
        }
        partial.select = changed;
        let mut order = partial.order.clone();
        for item in &mut order {
            if matches!(item.options.sort, Some(ast::OrderBySort::Using(_))) {
                return None;
            }
            self.finish_key(&mut item.expr, projection, scope, &mut partial)?;
        }
        partial.order = order;
        self.name_items(&mut partial)?;
        partial.folds = folds(select, &partial);
        let columns = partial.groups.len() + partial.parts.len();
        (columns > 0 && columns <= COLUMNS_MAX).then_some(partial)
    }

    /// Notes what GROUP BY groups by; of grouping sets all that is in any.
    fn grouping(
        &self,
        grouping: &[Expr],
        projection: &[SelectItem],
        scope: &Rc<Scope>,
        partial: &mut Partial,
    ) -> Option<()> {
        for (index, item) in grouping.iter().enumerate() {
            match item {
                Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                    for expr in sets.iter().flatten() {
                        // A column's name, which is not an output column's.
                        self.group(expr, Home::GroupBy(index), scope, partial)
                            .filter(|group| partial.groups[*group].id != 0)?;
                    }
                }
                item => {
                    let (expr, home) = self.grouped(index, item, projection, scope)?;
                    self.group(expr, home, scope, partial)?;
                }
            }
        }
        Some(())
    }

    /// What an item of GROUP BY stands for, and where its text is.
    fn grouped<'e>(
        &self,
        index: usize,
        item: &'e Expr,
        projection: &'e [SelectItem],
        scope: &Rc<Scope>,
    ) -> Option<(&'e Expr, Home)> {
        if let Some(ordinal) = ordinal(item) {
            return Some((item_expr(projection.get(ordinal)?)?, Home::Select(ordinal)));
        }
        if let Expr::Identifier(ident) = item {
            let name = parse::name(ident);
            match scope.from.unqualified(&name) {
                Lookup::Column(_) => {}
                Lookup::Unknown => return None,
                Lookup::Absent => {
                    let called = |item: &SelectItem| matches!(item, SelectItem::ExprWithAlias { alias, .. } if parse::name(alias) == name);
                    let ordinal = projection.iter().position(called)?;
                    return Some((item_expr(&projection[ordinal])?, Home::Select(ordinal)));
                }
            }
        }
        Some((item, Home::GroupBy(index)))
    }

    /// The group that `expr` is, which becomes one if it is none yet.
    fn group(
        &self,
        expr: &Expr,
        home: Home,
        scope: &Rc<Scope>,
        partial: &mut Partial,
    ) -> Option<usize> {
        if let Some(group) = self.group_of(expr, scope, partial) {
            return Some(group);
        }
        let name = format!("g{}", partial.groups.len() + 1);
        let group = match (self.find(expr, scope), expr) {
            (Some((0, column)), Expr::Identifier(_) | Expr::CompoundIdentifier(_)) => {
                let origin = column.origin.filter(|_| column.id != 0)?;
                // One that is NOT NULL takes no NULL from an outer join.
                if self.topology.schema.is_domain(origin.column()) {
                    return None;
                }
                let parts = match expr {
                    Expr::CompoundIdentifier(idents) => idents.len(),
                    _ => 1,
                };
                let place = anchor(expr)?;
                Group {
                    expr: expr.clone(),
                    home: Home::Name { place, parts },
                    id: column.id,
                    is_distinct: false,
                    column: Column {
                        name: name.into(),
                        ..origin.column().clone()
                    },
                }
            }
            (_, Expr::Value(_) | Expr::Nested(_)) => return None,
            _ => {
                anchor(expr)?;
                let typed = self.typed(expr, scope)?;
                let Typed::Of { oid, .. } = typed else {
                    return None;
                };
                Group {
                    expr: expr.clone(),
                    home,
                    id: 0,
                    is_distinct: false,
                    column: column_of(name, oid, Some(&typed))?,
                }
            }
        };
        partial.groups.push(group);
        Some(partial.groups.len() - 1)
    }

    fn group_of(&self, expr: &Expr, scope: &Rc<Scope>, partial: &Partial) -> Option<usize> {
        let id = match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => match self.find(expr, scope)? {
                (0, column) if column.id != 0 => column.id,
                _ => return None,
            },
            _ => 0,
        };
        let is_same = |group: &Group| match id {
            0 => group.id == 0 && group.expr == *expr,
            id => group.id == id,
        };
        partial.groups.iter().position(is_same)
    }

    /// ORDER BY and DISTINCT ON may name output columns, whose names change with their expressions: these get the names
    /// that they had.
    fn names(
        &self,
        select: &Select,
        order: &[OrderByExpr],
        scope: &Rc<Scope>,
        partial: &mut Partial,
    ) -> Option<()> {
        let on: &[Expr] = match &select.distinct {
            Some(Distinct::On(expressions)) => expressions,
            _ => &[],
        };
        let mut keys = order.iter().map(|item| &item.expr).chain(on);
        if !keys.any(|key| matches!(key, Expr::Identifier(_))) {
            return Some(());
        }
        for (item, selected) in select.projection.iter().enumerate() {
            if let SelectItem::UnnamedExpr(expr) = selected {
                let name = match self.find(expr, scope) {
                    Some((_, column)) => column.name.to_string(),
                    None => output_name(expr)?,
                };
                partial.edits.push(Edit::Called { item, name });
            }
        }
        Some(())
    }

    /// Names the items of the final select list.
    fn name_items(&self, partial: &mut Partial) -> Option<()> {
        for edit in &partial.edits {
            let Edit::Called { item, name } = edit else {
                continue;
            };
            let item = partial.select.projection.get_mut(*item)?;
            let expr = item_expr(item)?.clone();
            let alias = Ident::with_quote('"', name.replace('"', "\"\""));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
        Some(())
    }

    /// An item of ORDER BY or DISTINCT ON: a number or a name of an output column stays.
    fn finish_key(
        &self,
        expr: &mut Expr,
        projection: &[SelectItem],
        scope: &Rc<Scope>,
        partial: &mut Partial,
    ) -> Option<()> {
        if ordinal(expr).is_some() {
            return Some(());
        }
        if let Expr::Identifier(ident) = expr {
            let name = parse::name(ident);
            let is_called = |item: &SelectItem| match item {
                SelectItem::ExprWithAlias { alias, .. } => parse::name(alias) == name,
                SelectItem::UnnamedExpr(expr) => match self.find(expr, scope) {
                    Some((_, column)) => *column.name == *name,
                    None => output_name(expr).is_some_and(|output| output == name),
                },
                _ => false,
            };
            if projection.iter().any(is_called) {
                return Some(());
            }
        }
        self.finish(expr, scope, partial)
    }

    fn finish_group(
        &self,
        index: usize,
        item: &mut Expr,
        projection: &[SelectItem],
        scope: &Rc<Scope>,
        partial: &mut Partial,
    ) -> Option<()> {
        if let Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) = item {
            let mut expressions = sets.iter_mut().flatten();
            return expressions.try_for_each(|expr| self.finish(expr, scope, partial));
        }
        let (expr, _) = self.grouped(index, item, projection, scope)?;
        let group = self.group_of(expr, scope, partial)?;
        partial.edits.push(Edit::GroupBy { item: index, group });
        *item = Partial::group_expr(group);
        Some(())
    }

    fn finish_window(
        &self,
        spec: &mut ast::WindowSpec,
        scope: &Rc<Scope>,
        partial: &mut Partial,
    ) -> Option<()> {
        let order = spec.order_by.iter_mut().map(|item| &mut item.expr);
        for expr in spec.partition_by.iter_mut().chain(order) {
            self.finish(expr, scope, partial)?;
        }
        if let Some(frame) = &mut spec.window_frame {
            let bounds = std::iter::once(&mut frame.start_bound).chain(&mut frame.end_bound);
            for bound in bounds {
                if let WindowFrameBound::Preceding(Some(expr))
                | WindowFrameBound::Following(Some(expr)) = bound
                {
                    self.finish(expr, scope, partial)?;
                }
            }
        }
        Some(())
    }

    /// Makes `expr` one over partial rows.
    fn finish(&self, expr: &mut Expr, scope: &Rc<Scope>, partial: &mut Partial) -> Option<()> {
        if let Expr::Function(function) = expr
            && function.over.is_none()
            && self.is_aggregate(function)?
        {
            if self.is_of_distinct(function) {
                return self.finish_distinct(function, scope, partial);
            }
            let place = parse::place(&function.name)?;
            let (text, fold) = self.split(function, place, scope, partial)?;
            *expr = expression(&text)?;
            partial.edits.push(Edit::Call { place, text, fold });
            return Some(());
        }
        let group = self.group_of(expr, scope, partial);
        if let Some(group) = group.filter(|group| !partial.groups[*group].is_distinct) {
            return finish_group(expr, group, partial);
        }
        let mut all = |list: Vec<&mut Expr>| {
            list.into_iter()
                .try_for_each(|expr| self.finish(expr, scope, partial))
        };
        match expr {
            Expr::Value(_) | Expr::TypedString(_) => Some(()),
            Expr::Nested(inner)
            | Expr::UnaryOp { expr: inner, .. }
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::Cast { expr: inner, .. }
            | Expr::Collate { expr: inner, .. }
            | Expr::Extract { expr: inner, .. }
            | Expr::Ceil { expr: inner, .. }
            | Expr::Floor { expr: inner, .. } => all(vec![inner]),
            Expr::Interval(interval) => all(vec![&mut interval.value]),
            Expr::BinaryOp { left, right, .. }
            | Expr::IsDistinctFrom(left, right)
            | Expr::IsNotDistinctFrom(left, right) => all(vec![left, right]),
            Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => all(vec![timestamp, time_zone]),
            Expr::Between {
                expr, low, high, ..
            } => all(vec![expr, low, high]),
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
                all(vec![expr, pattern])
            }
            Expr::In {
                expr,
                target: ast::InTarget::List(list),
                ..
            } => {
                all(vec![expr])?;
                all(list.iter_mut().collect())
            }
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                all(vec![expr])?;
                all(substring_from
                    .iter_mut()
                    .chain(substring_for)
                    .map(|bound| &mut **bound)
                    .collect())
            }
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                all(operand.iter_mut().map(|operand| &mut **operand).collect())?;
                for when in conditions {
                    all(vec![&mut when.condition, &mut when.result])?;
                }
                all(else_result.iter_mut().map(|result| &mut **result).collect())
            }
            Expr::Tuple(list) => all(list.iter_mut().collect()),
            Expr::Array(array) => all(array.elem.iter_mut().collect()),
            Expr::Function(function) => self.finish_call(function, scope, partial),
            _ => None,
        }
    }

    fn finish_call(
        &self,
        function: &mut ast::Function,
        scope: &Rc<Scope>,
        partial: &mut Partial,
    ) -> Option<()> {
        match &mut function.args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(_) => return None,
            FunctionArguments::List(list) => {
                if !list.clauses.is_empty() {
                    return None;
                }
                for arg in &mut list.args {
                    match arg {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                            self.finish(expr, scope, partial)?;
                        }
                        // A window's count(*).
                        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => {}
                        _ => return None,
                    }
                }
            }
        }
        if let Some(filter) = &mut function.filter {
            self.finish(filter, scope, partial)?;
        }
        match &mut function.over {
            None | Some(WindowType::NamedWindow(_)) => Some(()),
            Some(WindowType::WindowSpec(spec)) => self.finish_window(spec, scope, partial),
        }
    }

    /// Whether it is an aggregate that the final query may compute of the distinct values of a column.
    fn is_of_distinct(&self, function: &ast::Function) -> bool {
        let name = self.own_function(function);
        let is_known = name.is_some_and(|name| aggregate::OF_DISTINCT.contains(&name.as_str()));
        let FunctionArguments::List(list) = &function.args else {
            return false;
        };
        is_known && list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct)
    }

    /// Makes an aggregate of the distinct values of a column one over partial rows, which are grouped by it.
    fn finish_distinct(
        &self,
        function: &mut ast::Function,
        scope: &Rc<Scope>,
        partial: &mut Partial,
    ) -> Option<()> {
        let name = self.own_function(function)?;
        if function.filter.is_some() || function.null_treatment.is_some() {
            return None;
        }
        let FunctionArguments::List(list) = &mut function.args else {
            return None;
        };
        let (first, others) = list.args.split_first_mut()?;
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = first else {
            return None;
        };
        let (level, column) = self.find(expr, scope)?;
        let origin = column.origin.filter(|_| level == 0 && column.id != 0)?;
        if !aggregate::is_of_distinct(&name, origin.column()) {
            return None;
        }
        let known = partial.groups.len();
        let place = anchor(expr)?;
        let parts = match expr {
            Expr::Identifier(_) => 1,
            Expr::CompoundIdentifier(idents) => idents.len(),
            _ => return None,
        };
        let group = self.group(expr, Home::Name { place, parts }, scope, partial)?;
        if group == known {
            partial.groups[group].is_distinct = true;
        }
        let id = column.id;
        finish_group(expr, group, partial)?;
        for other in others {
            match other {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(_))) => {}
                _ => return None,
            }
        }
        for clause in &mut list.clauses {
            let ast::FunctionArgumentClause::OrderBy(items) = clause else {
                return None;
            };
            for item in items {
                let same = self.find(&item.expr, scope);
                same.filter(|(level, same)| *level == 0 && same.id == id)?;
                finish_group(&mut item.expr, group, partial)?;
            }
        }
        Some(())
    }

    fn is_aggregate(&self, function: &ast::Function) -> Option<bool> {
        if !function.within_group.is_empty() {
            return None;
        }
        let mut parts = object_name(&function.name).ok()?;
        let name = parts.pop()?;
        let count = match &function.args {
            FunctionArguments::List(list) => list.args.len(),
            _ => 0,
        };
        let schema = &self.topology.schema;
        let qualifier = parts.last().map(String::as_str);
        Some(function::effect(schema, self.search_path, qualifier, &name, count).aggregate)
    }

    /// The text that makes an aggregate of its parts, which are noted, and how the router makes it.
    fn split(
        &self,
        function: &ast::Function,
        place: Place,
        scope: &Rc<Scope>,
        partial: &mut Partial,
    ) -> Option<(String, Option<Fold>)> {
        let FunctionArguments::List(list) = &function.args else {
            return None;
        };
        if !list.clauses.is_empty() || function.null_treatment.is_some() {
            return None;
        }
        let is_true = |filter: &Expr| matches!(self.typed(filter, scope), Some(Typed::Of { oid, .. }) if oid == typing::oid::BOOL);
        if !function.filter.as_deref().is_none_or(is_true) {
            return None;
        }
        let is_distinct = list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct);
        let name = self.own_function(function)?;
        let (typed, user_type) = match list.args.as_slice() {
            [
                FunctionArg::Unnamed(
                    FunctionArgExpr::Wildcard | FunctionArgExpr::QualifiedWildcard(_),
                ),
            ] if name == "count" => (None, None),
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => (
                Some(self.typed(expr, scope)?),
                self.column_type(expr, scope),
            ),
            _ => return None,
        };
        let argument = typed.as_ref().and_then(|typed| match typed {
            Typed::Of { oid, .. } => Some(*oid),
            Typed::Open => None,
        });
        let split = match aggregate::split(&name, argument, is_distinct) {
            Some(split) => split,
            None => aggregate::extreme(&name).filter(|_| user_type.is_some())?,
        };
        let fold = split.fold();
        let Split { parts, whole } = split;
        let mut names = Vec::with_capacity(parts.len());
        for (function_name, type_oid) in parts {
            let call = function_name.call(function)?;
            let known = partial.parts.iter().position(|part| part.call == call);
            let part = match known {
                Some(part) => part,
                None => {
                    let name = format!("a{}", partial.parts.len() + 1);
                    let column = match &user_type {
                        Some(column) if type_oid == 0 => Column {
                            name: name.into(),
                            ..column.clone()
                        },
                        _ => column_of(name, type_oid, typed.as_ref())?,
                    };
                    partial.parts.push(Part {
                        call,
                        function: function_name,
                        place,
                        column,
                    });
                    partial.parts.len() - 1
                }
            };
            names.push(Partial::part_name(part));
        }
        Some((Final::text(whole, &names), fold))
    }

    /// The column that `expr` is, if it is of an array type, or of a type that users made but that is no domain.
    fn column_type(&self, expr: &Expr, scope: &Rc<Scope>) -> Option<Column> {
        let (level, column) = self.find(bare(expr), scope)?;
        let origin = column.origin.filter(|_| level == 0)?;
        let column = origin.column();
        let is_array = column.type_name.ends_with("[]");
        let is_user = column.type_oid >= FIRST_USER_OID;
        ((is_array || is_user) && !self.topology.schema.is_domain(column)).then(|| column.clone())
    }
}

/// Puts a group in the place of `expr`.
fn finish_group(expr: &mut Expr, group: usize, partial: &mut Partial) -> Option<()> {
    let anchor = anchor(expr)?;
    partial.edits.push(match expr {
        Expr::Identifier(_) => Edit::Name {
            place: anchor,
            parts: 1,
            group,
        },
        Expr::CompoundIdentifier(idents) => Edit::Name {
            place: anchor,
            parts: idents.len(),
            group,
        },
        _ => Edit::Expression { anchor, group },
    });
    *expr = Partial::group_expr(group);
    Some(())
}

impl PartFunction {
    /// The call that a shard computes for an aggregate's.
    fn call(self, function: &ast::Function) -> Option<ast::Function> {
        let Self::Squares = self else {
            let mut call = function.clone();
            let name = vec![Ident::new("pg_catalog"), Ident::new(self.name())];
            call.name = ast::ObjectName::from(name);
            return Some(call);
        };
        let FunctionArguments::List(list) = &function.args else {
            return None;
        };
        let [FunctionArg::Unnamed(FunctionArgExpr::Expr(own))] = list.args.as_slice() else {
            return None;
        };
        let text = format!("{SQUARES_FIRST}x{SQUARES_BETWEEN}x{SQUARES_LAST}");
        let Expr::Function(mut call) = expression(&text)? else {
            return None;
        };
        let FunctionArguments::List(list) = &mut call.args else {
            return None;
        };
        let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::BinaryOp { left, right, .. }))] =
            list.args.as_mut_slice()
        else {
            return None;
        };
        for factor in [left, right] {
            let Expr::Cast { expr, .. } = &mut **factor else {
                return None;
            };
            let Expr::Nested(inner) = &mut **expr else {
                return None;
            };
            **inner = own.clone();
        }
        call.filter = function.filter.clone();
        Some(call)
    }
}

/// The first OID of what is not PostgreSQL's own.
const FIRST_USER_OID: u32 = 16_384;

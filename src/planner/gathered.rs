//! What a query over gathered rows needs to know of the tables that its text names: where they stand, what WHERE asks of
//! their rows alone, where GROUP BY has their keys. [`super::gather`] makes texts of it.

use super::analysis::{Analyzer, Block, bare, object_name};
use super::clock;
use super::refusal::{PlanError, Refusal};
use super::scope::{Found, Item, OutColumn, Scope};
use super::select::output_name;
use crate::sql::lex::quote_identifier;
use crate::sql::parse::{self, Place, ast};
use crate::topology::schema::Relation;
use ast::{
    BinaryOperator, Expr, InTarget, JoinOperator, SelectItem, TableAlias, TableFactor,
    TableWithJoins, UnaryOperator, Value,
};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// One place that names a sharded table or view, however often the analysis comes by.
#[derive(Debug, Clone)]
pub(super) struct Gathered {
    pub(super) place: Place,
    pub(super) relation: Arc<Relation>,
    /// What the query calls it.
    pub(super) called: String,
    /// Whether the text says so behind the table's name.
    pub(super) aliased: bool,
    /// Whether the alias renames columns.
    pub(super) renamed: bool,
    /// The ids of its columns, as they were given last.
    pub(super) ids: Range<u32>,
    /// Indexes into the analysis' uses.
    pub(super) uses: Vec<usize>,
    /// What the query asks of rows of this table alone.
    pub(super) filters: Vec<Expr>,
    /// Whether the query uses its rows as values of the table's own type.
    pub(super) whole: bool,
    /// Where GROUP BY names its primary key, so that a query may use the table's other columns ungrouped.
    pub(super) grouped: Vec<Place>,
    /// For a view that is made of rows of several shards at once: the tables that its query names. They have its uses.
    pub(super) inside: Option<Inside>,
}

/// What the query of a view names.
#[derive(Debug, Clone)]
pub(super) struct Inside {
    pub(super) sources: Vec<Gathered>,
    /// Whether it uses columns that it does not name.
    pub(super) every_column: bool,
}

/// The order in which the first rows of the only table are wanted, where its rows are those of the answer.
#[derive(Debug, Clone)]
pub(super) struct FirstRows {
    /// Where the text names the table.
    pub(super) place: Place,
    /// ORDER BY: what by, and its direction.
    pub(super) order: Vec<(FirstBy, String)>,
    /// How many conditions AND joins in WHERE: all of them must be filters.
    pub(super) conditions: usize,
}

/// What the first rows are ordered by.
#[derive(Debug, Clone)]
pub(super) enum FirstBy {
    /// A column of the table, by its name there.
    Column(String),
    /// What every shard computes alike of a row, as the client's text says it.
    Expression(Box<Expr>),
}

impl Gathered {
    /// Takes in another use of the same place.
    fn again(&mut self, other: Self) {
        self.ids = other.ids;
        self.uses.extend(other.uses);
        let others = other.inside.into_iter().flat_map(|inside| inside.sources);
        let known = self
            .inside
            .iter_mut()
            .flat_map(|inside| &mut inside.sources);
        for (known, other) in known.zip(others) {
            known.again(other);
        }
    }

    /// How many uses it and what is inside have.
    pub(super) fn use_count(&self) -> usize {
        let inside = self.inside.iter().flat_map(|inside| &inside.sources);
        self.uses.len() + inside.map(Self::use_count).sum::<usize>()
    }
}

impl Analyzer<'_> {
    /// Notes where the text names a sharded table, or a view over such: what follows `first` among the uses of tables is
    /// what it reads; `inside` says how, unless its rows on each shard are a part of all its rows.
    pub(super) fn note_source(
        &mut self,
        relation: Arc<Relation>,
        item: &Item,
        first: usize,
        place: Option<Place>,
        alias: Option<&TableAlias>,
        inside: Option<Inside>,
    ) {
        let Some(place) = place else {
            let obstacle = PlanError::refused(Refusal::Rewrite, "a table's name with a clause");
            return self.never_gathered(&obstacle);
        };
        let ids = item.columns.as_deref().unwrap_or_default();
        let ids =
            ids.first().map_or(0, |column| column.id)..ids.last().map_or(0, |column| column.id + 1);
        let source = Gathered {
            place,
            relation,
            called: item.name.clone(),
            aliased: alias.is_some(),
            renamed: alias.is_some_and(|alias| !alias.columns.is_empty()),
            ids,
            uses: match inside {
                Some(_) => Vec::new(),
                None => (first..self.uses.len()).collect(),
            },
            filters: Vec::new(),
            whole: false,
            grouped: Vec::new(),
            inside,
        };
        // A use of a WITH query comes by again.
        let sources = &mut self.found.sources;
        match sources.iter_mut().find(|known| known.place == place) {
            Some(known) => known.again(source),
            None => sources.push(source),
        }
    }

    /// Notes where GROUP BY has a table's primary key.
    pub(super) fn note_grouped(&mut self, grouping: &[Expr], scope: &Rc<Scope>) {
        let mut named = Vec::new();
        for expr in grouping {
            let place = match expr {
                Expr::Identifier(ident) => parse::place_of(ident),
                Expr::CompoundIdentifier(idents) => idents.first().and_then(parse::place_of),
                _ => None,
            };
            if let (Some((0, column)), Some(place)) = (self.find(expr, scope), place) {
                named.push((column.id, place));
            }
        }
        for source in &mut self.found.sources {
            let key = source
                .relation
                .unique
                .iter()
                .find(|unique| unique.is_primary);
            let Some(key) = key.filter(|key| !key.is_partial) else {
                continue;
            };
            let place_of = |index: &usize| {
                let id = source.ids.start + *index as u32;
                let own = |(named, _): &&(u32, Place)| *named == id && id < source.ids.end;
                named.iter().find(own).map(|(_, place)| *place)
            };
            let places: Option<Vec<_>> = key.columns.iter().map(place_of).collect();
            if let Some([first, ..]) = places.as_deref()
                && !source.grouped.contains(first)
            {
                source.grouped.push(*first);
            }
        }
    }

    /// Notes what WHERE asks of rows of one table alone.
    pub(super) fn note_filters(
        &mut self,
        from: &[TableWithJoins],
        selection: &Expr,
        scope: &Rc<Scope>,
    ) {
        for place in restricted(from) {
            let Some(index) = self
                .found
                .sources
                .iter()
                .position(|source| source.place == place)
            else {
                continue;
            };
            let ids = self.found.sources[index].ids.clone();
            let column = |expr: &Expr| match self.find(expr, scope) {
                Some((0, column)) => Some(column),
                _ => None,
            };
            let filters: Vec<Expr> = conjuncts(selection)
                .into_iter()
                .filter(|condition| is_filter(condition, &column, &ids))
                .cloned()
                .collect();
            // The same clause of a WITH query comes by for each use of it.
            self.found.sources[index].filters = filters;
        }
    }

    /// The order of the first rows, if a query of one table gives some of its rows and computes nothing of several.
    pub(super) fn first_rows(
        &self,
        select: &ast::Select,
        order: &[ast::OrderByExpr],
        scope: &Rc<Scope>,
        block: &Block,
    ) -> Option<FirstRows> {
        let is_rows = !block.aggregate
            && !block.random
            && block.windows.is_empty()
            && select.distinct.is_none()
            && select.having.is_none()
            && select.named_window.is_empty()
            && matches!(&select.group_by, ast::GroupByExpr::Expressions(list, _) if list.is_empty());
        let [from] = select.from.as_slice() else {
            return None;
        };
        let TableFactor::Table {
            name, args: None, ..
        } = &from.relation
        else {
            return None;
        };
        if !is_rows || !from.joins.is_empty() || order.is_empty() {
            return None;
        }
        // What has a type here gives one row for one.
        for item in &select.projection {
            match item {
                SelectItem::Wildcard(_)
                | SelectItem::QualifiedWildcard(
                    ast::SelectItemQualifiedWildcardKind::ObjectName(_),
                    _,
                ) => {}
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    self.typed(expr, scope)?;
                }
                _ => return None,
            }
        }
        let mut keys = Vec::with_capacity(order.len());
        for item in order {
            let direction = match item.options.sort {
                None | Some(ast::OrderBySort::Asc) => "ASC",
                Some(ast::OrderBySort::Desc) => "DESC",
                Some(ast::OrderBySort::Using(_)) => return None,
            };
            let nulls = match item.options.nulls_first {
                None => "",
                Some(true) => " NULLS FIRST",
                Some(false) => " NULLS LAST",
            };
            let direction = format!("{direction}{nulls}");
            let Some((_, column)) = self
                .find(&item.expr, scope)
                .filter(|(level, _)| *level == 0)
            else {
                // A number, and a name, is an output column.
                let is_computed = !matches!(bare(&item.expr), Expr::Identifier(_) | Expr::Value(_));
                self.typed(&item.expr, scope).filter(|_| is_computed)?;
                keys.push((FirstBy::Expression(Box::new(item.expr.clone())), direction));
                continue;
            };
            // A bare name is an output column first.
            let is_other = |item: &SelectItem| match item {
                SelectItem::ExprWithAlias { alias, .. } => parse::name(alias) == *column.name,
                SelectItem::UnnamedExpr(expr) if self.find(expr, scope).is_none() => {
                    output_name(expr).is_none_or(|name| *name == *column.name)
                }
                _ => false,
            };
            let origin = column.origin.as_ref().filter(|_| column.id != 0)?;
            if select.projection.iter().any(is_other) {
                return None;
            }
            let name = quote_identifier(&origin.column().name);
            keys.push((FirstBy::Column(name), direction));
        }
        let conditions = select
            .selection
            .as_ref()
            .map_or(0, |selection| conjuncts(selection).len());
        Some(FirstRows {
            place: parse::place(name)?,
            order: keys,
            conditions,
        })
    }

    /// Notes that a row of `item` is used as a value: where that is a table, one of the table's own type.
    pub(super) fn row_used(&mut self, item: &Item) {
        let Some(first) = item
            .columns
            .iter()
            .flat_map(|columns| columns.iter())
            .next()
        else {
            return;
        };
        for source in &mut self.found.sources {
            source.whole |= source.ids.contains(&first.id);
        }
    }

    /// As [`Self::row_used`], of `relation.*` among the arguments of a function.
    pub(super) fn row_of(&mut self, name: &ast::ObjectName, scope: &Rc<Scope>) {
        match object_name(name).ok().as_deref() {
            Some([relation]) => match scope.item(relation) {
                Some(item) => self.row_used(item),
                None => self.found.whole_row = true,
            },
            _ => self.found.whole_row = true,
        }
    }

    /// Notes that a column is named along with its table's schema, which gathered rows have not: without the schema it
    /// must mean the same.
    pub(super) fn qualified_column(
        &mut self,
        parts: &[String],
        place: Option<Place>,
        scope: &Rc<Scope>,
    ) {
        let same = match parts {
            [_, relation, name] => {
                let short = [relation.clone(), name.clone()];
                match (scope.find(parts), scope.find(&short)) {
                    (
                        Found::Column { level, column },
                        Found::Column {
                            level: other_level,
                            column: other,
                        },
                    ) => column.id != 0 && column.id == other.id && level == other_level,
                    _ => false,
                }
            }
            _ => false,
        };
        self.qualified(place.filter(|_| same));
    }

    /// As [`Self::qualified_column`], of `schema.relation.*` in a select list.
    pub(super) fn qualified_row(
        &mut self,
        parts: &[String],
        place: Option<Place>,
        scope: &Rc<Scope>,
    ) {
        let same = match parts {
            [schema, relation] => {
                let long = scope.from.item(Some(schema), relation);
                let short = scope.from.item(None, relation);
                matches!((long, short), (Some(long), Some(short)) if std::ptr::eq(long, short))
            }
            _ => false,
        };
        self.qualified(place.filter(|_| same));
    }

    fn qualified(&mut self, place: Option<Place>) {
        match place {
            Some(place) if !self.found.qualified.contains(&place) => {
                self.found.qualified.push(place);
            }
            Some(_) => {}
            None => self.found.whole_row = true,
        }
    }
}

/// The tables of a FROM clause whose rows a WHERE clause restricts: not those that an outer join may leave out.
pub(super) fn restricted(from: &[TableWithJoins]) -> Vec<Place> {
    let place = |factor: &TableFactor| match factor {
        TableFactor::Table { name, .. } => parse::place(name),
        _ => None,
    };
    let mut all = Vec::new();
    for TableWithJoins { relation, joins } in from {
        let mut here: Vec<Place> = place(relation).into_iter().collect();
        for join in joins {
            let right = place(&join.relation);
            match &join.join_operator {
                JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => {
                    here.extend(right);
                }
                JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => {}
                JoinOperator::Right(_) | JoinOperator::RightOuter(_) => {
                    here = right.into_iter().collect();
                }
                _ => here.clear(),
            }
        }
        all.extend(here);
    }
    all
}

/// The conditions that AND joins.
pub(super) fn conjuncts(condition: &Expr) -> Vec<&Expr> {
    let mut open = vec![condition];
    let mut found = Vec::new();
    while let Some(expr) = open.pop() {
        match bare(expr) {
            Expr::BinaryOp {
                left,
                op: BinaryOperator::And,
                right,
            } => {
                open.push(right);
                open.push(left);
            }
            other => found.push(other),
        }
    }
    found
}

/// Whether `expr` compares columns of one table, as `column` tells them, with constants and parameters by what every
/// PostgreSQL has and answers alike.
pub(super) fn is_filter(
    expr: &Expr,
    column: &dyn Fn(&Expr) -> Option<OutColumn>,
    own: &Range<u32>,
) -> bool {
    fn walk(
        expr: &Expr,
        column: &dyn Fn(&Expr) -> Option<OutColumn>,
        own: &Range<u32>,
        found: &mut bool,
    ) -> bool {
        let mut all = |list: &[&Expr]| list.iter().all(|expr| walk(expr, column, own, found));
        match expr {
            Expr::Nested(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner) => all(&[inner]),
            Expr::UnaryOp {
                op: UnaryOperator::Not | UnaryOperator::Minus | UnaryOperator::Plus,
                expr,
            } => all(&[expr]),
            Expr::BinaryOp { left, op, right } => {
                matches!(
                    op,
                    BinaryOperator::And
                        | BinaryOperator::Or
                        | BinaryOperator::Eq
                        | BinaryOperator::NotEq
                        | BinaryOperator::Lt
                        | BinaryOperator::LtEq
                        | BinaryOperator::Gt
                        | BinaryOperator::GtEq
                        | BinaryOperator::Plus
                        | BinaryOperator::Minus
                        | BinaryOperator::Multiply
                ) && all(&[left, right])
            }
            Expr::Between {
                expr,
                negated: _,
                low,
                high,
            } => all(&[expr, low, high]),
            Expr::In {
                expr,
                target: InTarget::List(list),
                negated: _,
                global: false,
            } => all(&[expr]) && list.iter().all(|expr| walk(expr, column, own, found)),
            Expr::Like {
                expr,
                pattern,
                any: false,
                escape_char: None,
                negated: _,
            } => all(&[expr, pattern]),
            // Where the rows come from, the table has another name.
            Expr::CompoundIdentifier(parts) if parts.len() > 2 => false,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                let is_own = column(expr).is_some_and(|column| own.contains(&column.id));
                *found |= is_own;
                is_own
            }
            Expr::Value(value) => match &value.value {
                Value::Number(..) | Value::Boolean(_) | Value::Null | Value::Placeholder(_) => true,
                Value::SingleQuotedString(text) => !clock::tells_time(text),
                _ => false,
            },
            Expr::TypedString(typed) => {
                let is_plain = matches!(
                    typed.data_type,
                    ast::DataType::Date | ast::DataType::Timestamp(..)
                );
                is_plain
                    && parse::string(&typed.value.value)
                        .is_some_and(|text| !clock::tells_time(text))
            }
            Expr::Interval(interval) => all(&[&interval.value]),
            _ => false,
        }
    }
    let mut found = false;
    walk(expr, column, own, &mut found) && found
}

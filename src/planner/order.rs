//! ORDER BY, LIMIT and OFFSET: what merging the outputs of several shards needs.

use super::analysis::{
    Analyzer, Count, Order, Outcome, Rows, bare, beyond, object_name, placeholder,
};
use super::refusal::Refusal;
use super::scope::{From, OutColumn, Scope};
use super::select::output_name;
use super::sorting::Sorts;
use crate::sql::parse::{self, ast};
use crate::topology::schema::Collation;
use ast::{Expr, OrderByExpr, OrderBySort, Select, SelectItem};
use std::rc::Rc;

impl<'a> Analyzer<'a> {
    pub(super) fn order_expressions(
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
    pub(super) fn order_by_output(
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
            let sorted = rows
                .columns
                .as_ref()
                .and_then(|columns| columns.get(usize::from(column)));
            let by_bytes = sorted.is_some_and(|column| column.collation == Collation::Bytes);
            self.sorted(sorted.map_or(Sorts::Unknown, |column| column.sorts));
            self.push_order(item, Some(column), by_bytes)?;
        }
        Ok(())
    }

    pub(super) fn outer_order(
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
            let sorted = match column {
                Some(column) => columns
                    .as_ref()
                    .and_then(|columns| columns.get(usize::from(column)).cloned()),
                None => self.find(&item.expr, scope).map(|(_, column)| column),
            };
            let by_bytes = match &sorted {
                Some(column) => column.collation == Collation::Bytes,
                None => column.is_none() && explicit_collation(&item.expr) == Collation::Bytes,
            };
            self.sorted(match (&sorted, column) {
                (Some(column), _) => column.sorts,
                (None, None) => self.sorts(&item.expr, scope),
                (None, Some(_)) => Sorts::Unknown,
            });
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

    /// Notes that rows are ordered by such values.
    fn sorted(&mut self, sorts: Sorts) {
        match sorts {
            Sorts::ByPostgres => self.never_multi(
                Refusal::OrderByCollation,
                "ORDER BY values that only PostgreSQL sorts",
            ),
            // The shards say of what type they are.
            Sorts::Alike | Sorts::Unknown => {}
        }
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

    pub(super) fn count(&mut self, expr: Option<&Expr>) -> Option<Count> {
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

/// The one index at which `matches` is true.
pub(super) fn only(matches: impl Iterator<Item = bool>) -> Option<u16> {
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
pub(super) fn ordinal(expr: &Expr) -> Option<u16> {
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

pub(super) fn explicit_collation(expr: &Expr) -> Collation {
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

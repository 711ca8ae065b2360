//! INSERT of a query's rows that belong elsewhere than where they are made: the query runs by itself, as any does; then
//! each row is placed as one of VALUES would be, and each shard stores its rows as they come out of arrays. The INSERT's
//! own columns, casts, defaults, ON CONFLICT and RETURNING stay PostgreSQL's.

use super::added;
use super::gather::PORTABLE;
use super::plan::{Merge, Plan, RowValue, StepArguments, StepSql, Store, Transport};
use super::refusal::{PlanError, Refusal};
use super::rewrite::outermost;
use super::template::{self, Binding, Context, Template};
use crate::sql::lex::{Token, TokenKind, quote_identifier};
use crate::sql::parse::{self, ast};
use crate::topology::snapshot::Topology;
use ast::{Expr, SelectItem, SetExpr, Statement, Value};
use std::fmt::Write;
use std::sync::Arc;

/// An INSERT has this many columns at most, each an array.
const COLUMNS_MAX: usize = 1600;

/// An INSERT in parts.
#[derive(Debug, Clone)]
pub(super) struct StoreText {
    /// Its query.
    source: Box<Template>,
    /// What is around the query, and the constants in it.
    store: Arc<Store>,
}

/// An INSERT of a query's rows, taken apart; `None`: it is none, or not understood well enough.
pub(super) fn store_text(
    sql: &str,
    tokens: &[Token],
    statement: &Statement,
    parameter_types: &[u32],
    context: &Context<'_>,
) -> Option<StoreText> {
    let Statement::Insert(insert) = statement else {
        return None;
    };
    let source = insert.source.as_deref()?;
    let (first, last) = source_range(sql, tokens)?;
    let (start, end) = (tokens[first].start, tokens[last].end);
    let outside = tokens[..first].iter().chain(&tokens[last + 1..]);
    if outside
        .clone()
        .any(|token| token.kind == TokenKind::Parameter)
    {
        return None;
    }
    // The text between is the query, and nothing else of the statement is.
    let text = &sql[start..end];
    let parsed = parse::parse(text, parse::tokens(text, context.limits).ok()?).ok()?;
    if !matches!(&parsed.statement, Statement::Query(query) if **query == *source) {
        return None;
    }
    let query = template::template_collected(text, parameter_types, context).ok()?;
    let width = query.width().filter(|width| *width <= COLUMNS_MAX)?;
    let mut items = items(source, width)?;
    let end = tokens.last().map_or(0, |token| token.end);
    let added::RowColumns { given, added } = added::row_values(insert, width, context)?;
    items.resize(width + added.len(), None);
    let store = Store {
        before: before(&sql[..start], insert, &given, &added).into(),
        after: sql[tokens[last].end..end].into(),
        items: items.into(),
        added: added.iter().map(|(_, value)| value.clone()).collect(),
    };
    // Whatever else the INSERT does must be such that the rows of VALUES could be split.
    let values = store.values();
    let tokens = parse::tokens(&values, context.limits).ok()?;
    match parse::parse(&values, tokens).ok()?.statement {
        Statement::Insert(mut proof) if proof.source.is_some() => {
            proof.source = insert.source.clone();
            if !added.is_empty() {
                proof.columns.truncate(insert.columns.len());
                proof.overriding = insert.overriding;
            }
            if Statement::Insert(proof) != *statement {
                return None;
            }
        }
        _ => return None,
    }
    template::template(&values, &[], context)
        .ok()
        .filter(|values| {
            values.stores_in_parts() && values.fill().is_none() && !values.is_spelled()
        })?;
    Some(StoreText {
        source: Box::new(query),
        store: Arc::new(store),
    })
}

/// The text before the query with further columns. What is there besides is proven by the caller.
fn before(
    text: &str,
    insert: &ast::Insert,
    given: &[Arc<str>],
    added: &[(Arc<str>, RowValue)],
) -> String {
    if added.is_empty() {
        return text.to_owned();
    }
    let mut text = text.trim_ascii_end().to_owned();
    let mut names: Vec<String> = Vec::new();
    match insert.columns.is_empty() {
        true => {
            text.push_str(" (");
            names.extend(given.iter().map(|name| quote_identifier(name)));
        }
        false => {
            // The end of the list.
            text.pop();
            text.push_str(", ");
        }
    }
    names.extend(added.iter().map(|(name, _)| quote_identifier(name)));
    text.push_str(&names.join(", "));
    let draws = |(_, value): &(_, RowValue)| matches!(value, RowValue::Sequence { .. });
    text.push_str(match added.iter().any(draws) {
        true => ") OVERRIDING SYSTEM VALUE ",
        false => ") ",
    });
    text
}

impl StoreText {
    /// The query's plan, after which its rows are stored.
    pub fn plan(&self, binding: &Binding<'_>, topology: &Topology) -> Result<Plan, PlanError> {
        let mut plan = self.source.plan(binding, topology)?;
        let limited = match &plan.merge {
            Merge::Relay => false,
            Merge::Append { offset, limit } => *offset > 0 || limit.is_some(),
            _ => true,
        };
        if limited {
            return Err(PlanError::refused(
                Refusal::InsertSelect,
                "rows of several shards would have to be merged before they are stored",
            ));
        }
        for step in &mut plan.steps {
            if step.sql == StepSql::AsSent {
                step.sql = StepSql::Rewritten(self.source.sql().clone());
                step.arguments = StepArguments::AsSent;
            }
        }
        plan.access = super::plan::Access::Write;
        plan.merge = Merge::Store(self.store.clone());
        Ok(plan)
    }
}

impl Store {
    /// The INSERT of one row of parameters: where it goes, a row of the query goes.
    pub fn values(&self) -> String {
        let list: Vec<String> = (1..=self.items.len())
            .map(|number| format!("${number}"))
            .collect();
        format!("{}VALUES ({}){}", self.before, list.join(", "), self.after)
    }

    /// The INSERT of rows from arrays, one parameter a column of these types.
    pub fn from_arrays(&self, types: &[&str]) -> String {
        let mut list = String::new();
        let (mut arrays, mut names) = (String::new(), String::new());
        for (index, (item, type_name)) in self.items.iter().zip(types).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _ = match item {
                Some(constant) => write!(list, "{comma}{constant}"),
                None => write!(list, "{comma}c{index}"),
            };
            let _ = write!(arrays, "{comma}${}::{type_name}[]", index + 1);
            let _ = write!(names, "{comma}c{index}");
        }
        // PostgreSQL reads only the bare name as that of a function of several arrays; of one it may be a user's.
        let unnest = match types.len() {
            1 => "pg_catalog.unnest",
            _ => "unnest",
        };
        let (before, after) = (&self.before, &self.after);
        format!("{before}SELECT {list} FROM {unnest}({arrays}) AS r ({names}){after}")
    }
}

/// How values of a type travel in an array, and the type's name without a length; `None`: it has another OID on each
/// server, or is an array or a row itself.
pub fn carried(oid: u32) -> Option<(Transport, &'static str)> {
    let (oid, name) = PORTABLE.iter().find(|(portable, _)| *portable == oid)?;
    let name = match *name {
        // These words alone mean a length of one.
        "character" => "pg_catalog.bpchar",
        "bit" => "pg_catalog.\"bit\"",
        name => name,
    };
    Some((Transport::Binary { oid: *oid }, name))
}

/// The query among the tokens of an INSERT: its first token and its last.
fn source_range(sql: &str, tokens: &[Token]) -> Option<(usize, usize)> {
    let outer = outermost(sql, tokens);
    let is = |at: usize, words: &[&str]| {
        tokens
            .get(at)
            .is_some_and(|token| words.iter().any(|word| token.is(sql, word)))
    };
    if !is(0, &["insert"]) {
        return None;
    }
    let first = *outer
        .iter()
        .find(|at| is(**at, &["select", "with", "table"]))?;
    let end = outer
        .iter()
        .find(|at| **at > first && (is(**at, &["returning"]) || is_conflict(&is, **at)));
    let last = end.map_or(tokens.len(), |end| *end).checked_sub(1)?;
    (last > first).then_some((first, last))
}

fn is_conflict(is: &dyn Fn(usize, &[&str]) -> bool, at: usize) -> bool {
    is(at, &["on"]) && is(at + 1, &["conflict"])
}

/// The select list's constants without a type, to which the INSERT gives that of their column: by the column, as text.
fn items(source: &ast::Query, width: usize) -> Option<Vec<Option<Arc<str>>>> {
    let mut items = vec![None; width];
    let select = match &*source.body {
        SetExpr::Select(select) => select,
        // PostgreSQL gives the constants of set operations types of their own.
        SetExpr::SetOperation { .. } => return Some(items),
        _ => return None,
    };
    let is_star = |item: &SelectItem| {
        matches!(
            item,
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
        )
    };
    let has_star = select.projection.iter().any(is_star);
    for (index, item) in select.projection.iter().enumerate() {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
            continue;
        };
        let Expr::Value(value) = super::analysis::bare(expr) else {
            continue;
        };
        let constant = match &value.value {
            Value::Number(..)
            | Value::Boolean(_)
            | Value::SingleQuotedByteStringLiteral(_)
            | Value::HexStringLiteral(_) => continue,
            Value::Null => "NULL".to_owned(),
            Value::SingleQuotedString(text) if !text.contains('\\') => {
                format!("'{}'", text.replace('\'', "''"))
            }
            _ => return None,
        };
        if has_star {
            // Its place is not known.
            return None;
        }
        *items.get_mut(index)? = Some(constant.into());
    }
    Some(items)
}

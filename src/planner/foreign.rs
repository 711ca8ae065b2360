//! While slots move, rows of one shard may lie on another too, where they are not to be seen: a text for several shards
//! gets a condition for each sharded table that it names, by which a shard takes rows of its own slots only.
//!
//! The condition goes into WHERE of the query that names the table, which changes nothing else of it: whole rows, system
//! columns, locks and what follows from a primary key stay as they are. What runs on several shards as it stands gives for
//! the rows of each slot what it would give if they lay alone; so rows that hang together have one slot, and it does not
//! matter that a condition on the side of an outer join that may be NULL is asked last: a NULL passes.
//!
//! Which slots are a shard's own is read there, by the statement's own snapshot: so a plan is good for any ownership, and
//! what a snapshot shows of rows and of their owner belongs together. A form that cannot get its conditions runs over
//! gathered rows, if it can, and is refused otherwise.

use super::analysis::{Analysis, object_name};
use super::gather::name_range;
use super::refusal::{PlanError, Refusal};
use super::rewrite;
use super::template::Context;
use crate::sql::lex::{Token, quote_identifier};
use crate::sql::parse::{self, Parsed, ast};
use crate::sql::statement::Body;
use crate::topology::hash;
use crate::topology::schema::{ColumnDefault, Placement, Relation, Schema};
use ast::{FromTable, Statement, TableFactor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The slots of the shard that runs it. The sum is made once; what is read may be compressed, and be unpacked for each row.
const OWNED: &str =
    "(SELECT pg_catalog.multirange_union(o.owned, o.owned) FROM pgring.ownership AS o)";

/// The condition that a row of `relation`, which the query calls `called`, has a slot of the shard's own.
pub(super) fn condition(relation: &Relation, called: &str) -> Option<String> {
    let Placement::Sharded { key, .. } = &relation.placement else {
        return None;
    };
    let column = relation.columns.get(*key)?;
    let column = format!(
        "{}.{}",
        quote_identifier(called),
        quote_identifier(&column.name)
    );
    let slot = hash::sql_expression(&column, relation.key_type()?);
    Some(format!(
        "pg_catalog.elem_contained_by_multirange({slot}::pg_catalog.int4, {OWNED}) IS NOT FALSE"
    ))
}

/// COPY of a table that has parts or children is not what a query of it is.
///
/// # Errors
/// [`Refusal::ForeignRows`].
pub(super) fn check_alone(relation: &Relation, schema: &Schema) -> Result<(), PlanError> {
    let is_it = |(schema, name): &(Arc<str>, Arc<str>)| {
        *schema == relation.schema && *name == relation.name
    };
    let mut all = schema.relations.values().flat_map(|named| named.values());
    match all.any(|other| other.parents.iter().any(is_it)) {
        true => Err(refused("COPY of a table with partitions or children")),
        false => Ok(()),
    }
}

/// COPY … TO of a table that copies rows of the shard's own slots only, in the columns that it names.
///
/// # Errors
/// The text is not understood.
pub(super) fn copy_text(
    sql: &str,
    relation: &Relation,
    columns: Option<&[Cow<'_, str>]>,
    context: &Context<'_>,
) -> Result<Arc<str>, PlanError> {
    let tokens = parse::tokens(sql, context.limits)?;
    let outer = rewrite::outermost(sql, &tokens);
    let to = outer.into_iter().skip(2);
    let to = to
        .filter_map(|index| tokens.get(index))
        .find(|token| token.is(sql, "to"));
    let (Some(copy), Some(to)) = (tokens.first(), to) else {
        return Err(refused("the form of COPY"));
    };
    let columns: Vec<String> = match columns {
        Some(columns) => columns.iter().map(|name| quote_identifier(name)).collect(),
        // Generated columns are not copied.
        None => relation
            .columns
            .iter()
            .filter(|column| column.default != ColumnDefault::Generated)
            .map(|column| quote_identifier(&column.name))
            .collect(),
    };
    let own = condition(relation, &relation.name);
    let own = own.ok_or_else(|| refused("a table has no sharding key"))?;
    let text = format!(
        "{} (SELECT {} FROM ONLY {}.{} WHERE {own}) {}",
        &sql[..copy.end],
        columns.join(", "),
        quote_identifier(&relation.schema),
        quote_identifier(&relation.name),
        &sql[to.start..]
    );
    Ok(text.into())
}

/// COPY of a query with another text of the query.
///
/// # Errors
/// The text is not understood.
pub(super) fn copy_of(
    sql: &str,
    body: &Body<'_>,
    text: &str,
    context: &Context<'_>,
) -> Result<Arc<str>, PlanError> {
    let tokens = parse::tokens(sql, context.limits)?;
    let first = tokens.get(body.first_token);
    let start = first.ok_or_else(|| refused("the form of COPY"))?.start;
    let end = start + body.text.len();
    match sql.get(start..end) == Some(body.text) {
        true => Ok(format!("{}{text}\n{}", &sql[..start], &sql[end..]).into()),
        false => Err(refused("the form of COPY")),
    }
}

fn refused(reason: &str) -> PlanError {
    PlanError::refused(
        Refusal::ForeignRows,
        format!("slots are moving, and rows of other shards cannot be told apart: {reason}"),
    )
}

/// The text that sees no rows of other shards. None if it names no sharded table.
///
/// # Errors
/// [`Refusal::ForeignRows`]: its form does not let that be said in it.
pub(super) fn own_rows(
    sql: &str,
    parsed: &Parsed,
    analysis: &Analysis,
    context: &Context<'_>,
) -> Result<Option<String>, PlanError> {
    if analysis.uses.is_empty() {
        return Ok(None);
    }
    let tokens = parsed.tokens.as_slice();
    // Where a condition goes, and which.
    let mut places: BTreeMap<usize, (Where, Vec<String>)> = BTreeMap::new();
    let mut add = |name: usize, condition: Option<String>| {
        let condition = condition.ok_or_else(|| refused("a table has no sharding key"))?;
        let place = Where::after(sql, tokens, name);
        let (_, conditions) = places.entry(place.end).or_insert((place, Vec::new()));
        conditions.push(condition);
        Ok(())
    };
    match &parsed.statement {
        Statement::Query(_) | Statement::Insert(_) => {
            let uses = analysis.sources.iter().map(|source| source.uses.len());
            if uses.sum::<usize>() != analysis.uses.len() {
                return Err(refused("a view, or a table's name with a clause"));
            }
            for source in &analysis.sources {
                if source.renamed {
                    return Err(refused("an alias renames columns"));
                }
                let name = name_range(sql, tokens, source);
                let name = name.ok_or_else(|| refused("a table's name"))?;
                add(name.start, condition(&source.relation, &source.called))?;
            }
        }
        Statement::Update(update) => {
            let target = &update.table.relation;
            target_of(sql, tokens, target, context).and_then(|(name, own)| add(name, own))?;
        }
        Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) =
                &delete.from;
            let [table] = tables.as_slice() else {
                return Err(refused("the target"));
            };
            target_of(sql, tokens, &table.relation, context)
                .and_then(|(name, own)| add(name, own))?;
        }
        _ => return Err(refused("the kind of statement")),
    }
    let end = tokens.last().map_or(0, |token| token.end);
    let mut text = String::with_capacity(end + 256 * places.len());
    let mut edits: Vec<(usize, String)> = Vec::new();
    for (Where { condition, end }, conditions) in places.into_values() {
        let all = conditions.join(" AND ");
        match condition {
            // A line break ends a comment that may stand in the text.
            Some(start) => {
                edits.push((start, " (".to_owned()));
                edits.push((end, format!("\n) AND {all}")));
            }
            None => edits.push((end, format!("\nWHERE {all}"))),
        }
    }
    // Of two that meet at one place the inner one ends first, and was found first.
    edits.sort_by_key(|(at, _)| *at);
    let mut at = 0;
    for (place, edit) in &edits {
        text.push_str(&sql[at..*place]);
        text.push_str(edit);
        at = *place;
    }
    text.push_str(&sql[at..end]);
    Ok(Some(text))
}

/// Where the target of a write is named, and its condition.
fn target_of(
    sql: &str,
    tokens: &[Token],
    target: &TableFactor,
    context: &Context<'_>,
) -> Result<(usize, Option<String>), PlanError> {
    let TableFactor::Table { name, alias, .. } = target else {
        return Err(refused("the target"));
    };
    let parts = object_name(name)?;
    let schema = parts.len().checked_sub(2).and_then(|at| parts.get(at));
    let own = parts.last().ok_or_else(|| refused("the target"))?;
    let relation =
        context
            .topology
            .schema
            .relation(schema.map(String::as_str), own, context.search_path);
    let relation = relation.ok_or_else(|| refused("the target"))?;
    let called = match alias {
        Some(alias) if alias.columns.is_empty() => parse::name(&alias.name),
        Some(_) => return Err(refused("an alias renames columns")),
        None => own.clone(),
    };
    let place = parse::place(name).and_then(|place| parse::byte(sql, place));
    let place = place.filter(|start| tokens.iter().any(|token| token.start == *start));
    let place = place.ok_or_else(|| refused("the target"))?;
    Ok((place, condition(relation, &called)))
}

/// Where a query's condition stands, in bytes.
#[derive(Debug, Clone, Copy)]
struct Where {
    /// Behind WHERE, if there is one.
    condition: Option<usize>,
    /// Behind the condition, or where it would stand.
    end: usize,
}

impl Where {
    /// Of the query in whose FROM, or UPDATE or DELETE, a table is named at this byte. Words that end a clause are reserved:
    /// unquoted they are nothing else, but behind AS or a point.
    fn after(sql: &str, tokens: &[Token], name: usize) -> Self {
        let first = tokens.partition_point(|token| token.start < name);
        let mut depth = 0_usize;
        let mut condition = None;
        let mut last = first;
        for (index, token) in tokens.iter().enumerate().skip(first) {
            if token.is_symbol(sql, "(") || token.is_symbol(sql, "[") {
                depth += 1;
            } else if token.is_symbol(sql, ")") || token.is_symbol(sql, "]") {
                match depth.checked_sub(1) {
                    Some(outer) => depth = outer,
                    None => break,
                }
            } else if depth == 0 && index > first {
                let before = &tokens[index - 1];
                let is_name = before.is(sql, "as") || before.is_symbol(sql, ".");
                let next = tokens.get(index + 1);
                let is_next = |word: &str| next.is_some_and(|next| next.is(sql, word));
                let is = |word: &str| !is_name && token.is(sql, word);
                let ends = [
                    "having",
                    "window",
                    "limit",
                    "offset",
                    "fetch",
                    "for",
                    "union",
                    "intersect",
                    "except",
                    "returning",
                ];
                let ends = ends.into_iter().any(is)
                    || (is("group") || is("order")) && is_next("by")
                    || is("on") && is_next("conflict")
                    || token.is_symbol(sql, ";");
                if ends {
                    break;
                }
                if is("where") && condition.is_none() {
                    condition = Some(token.end);
                }
            }
            last = index;
        }
        Self {
            condition,
            end: tokens.get(last).map_or(name, |token| token.end),
        }
    }
}

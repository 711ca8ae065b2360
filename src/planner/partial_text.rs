//! The texts of a query in two parts: what the shards run, and the final query over their rows. Both are spliced from the
//! client's text at its tokens, and parsed again: their trees must be those that [`super::partial`] made.

use super::aggregate::{PartFunction, SQUARES_BETWEEN, SQUARES_FIRST, SQUARES_LAST};
use super::analysis::is_constant;
use super::gather::{GatherText, InputText, define, has_own_cast};
use super::partial::{Edit, Home, PARTIAL, Part, Partial, anchor};
use super::plan::{Fold, StepArguments, Tier, Transport};
use super::rewrite::{self, Splice};
use super::template::Context;
use crate::sql::lex::{LexLimits, Token, TokenKind, quote_identifier};
use crate::sql::parse::{self, Parsed, Place, ast};
use crate::topology::schema::Column;
use ast::{Expr, GroupByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, Value};
use std::ops::Range;
use std::sync::Arc;

/// OID of `unknown`, which declares nothing.
const UNKNOWN: u32 = 705;

/// How the router makes the only row of the shards' answers to the client's text, if it can.
pub(super) fn folds(parsed: &Parsed, partial: &Partial) -> Option<Arc<[Fold]>> {
    let (query, _) = plain_query(&parsed.statement)?;
    let is_whole = query.limit_clause.is_none() && query.fetch.is_none();
    partial.folds.clone().filter(|_| is_whole)
}

/// Both texts; `uses` are all those of the analysis. None if the client's text is not understood well enough.
pub(super) fn partial_text(
    sql: &str,
    parsed: &Parsed,
    partial: &Partial,
    parameter_types: &[u32],
    uses: usize,
    context: &Context<'_>,
) -> Option<GatherText> {
    let (query, select) = plain_query(&parsed.statement)?;
    let tokens = parsed.tokens.as_slice();
    if sql.contains(PARTIAL) {
        return None;
    }
    let text = Text { sql, tokens };
    let parameters = text.parameters(parameter_types)?;
    let clauses = text.clauses(select)?;
    let columns: Vec<&Column> = partial
        .groups
        .iter()
        .map(|group| &group.column)
        .chain(partial.parts.iter().map(|part| &part.column))
        .collect();
    if columns.iter().any(|column| has_own_cast(column, context)) {
        return None;
    }

    let pieces = text.shard_pieces(partial, &clauses)?;
    prove(
        &text.rendered(&pieces, &|_| None),
        &shard_query(query, select, partial),
        context.limits,
    )?;
    let chosen = text.parameters_of(&pieces);
    let shard_sql = text.rendered(&pieces, &|number| place_of(&chosen, number));

    let mut edits = text.final_edits(partial, &clauses)?;
    let is_kept = |token: &Token| {
        let mut edits = edits.iter();
        !edits.any(|(start, end, _)| token.start >= *start && token.end <= *end)
    };
    let kept = rewrite::parameters(sql, tokens, is_kept);
    let mut number = kept.len();
    let mut with = "WITH ".to_owned();
    define(
        &mut with,
        PARTIAL,
        &columns,
        &mut number,
        &context.topology.schema,
    );
    with.push(' ');
    let first = tokens.first()?.start;
    edits.insert(0, (first, first, with));
    let end = tokens.last()?.end;
    let splice = Splice { sql, tokens, edits };
    let final_tree = final_query(query, partial, context.limits)?;
    prove(
        &splice.render(0, end, &|_| None),
        &final_tree,
        context.limits,
    )?;
    let final_sql = splice.render(0, end, &|number| place_of(&kept, number));

    let input = InputText {
        relation: "partial".into(),
        sql: shard_sql.into(),
        parameters: chosen.into(),
        columns: columns.iter().map(|column| Transport::of(column)).collect(),
        uses: (0..uses).collect(),
        order: None,
    };
    Some(GatherText {
        tier: Tier::Partial,
        sql: final_sql.into(),
        arguments: StepArguments::Chosen(kept.into()),
        parameters,
        inputs: [input].into(),
    })
}

fn place_of(chosen: &[u16], number: u16) -> Option<u16> {
    let place = chosen.binary_search(&number).ok()?;
    u16::try_from(place).ok()
}

/// A query of one SELECT whose LIMIT has nothing to compute.
fn plain_query(statement: &Statement) -> Option<(&Query, &Select)> {
    let Statement::Query(query) = statement else {
        return None;
    };
    let SetExpr::Select(select) = &*query.body else {
        return None;
    };
    let (limit, offset) = match &query.limit_clause {
        None => (None, None),
        Some(ast::LimitClause::LimitOffset { limit, offset, .. }) => {
            (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
        }
        Some(_) => return None,
    };
    let fetched = query
        .fetch
        .as_ref()
        .and_then(|fetch| fetch.quantity.as_ref());
    let mut counts = limit.into_iter().chain(offset).chain(fetched);
    let is_plain = query.with.is_none() && query.locks.is_empty() && counts.all(is_constant);
    is_plain.then_some((query, select))
}

/// Proves that a text is this query, but for what stands in a WITH clause.
fn prove(text: &str, expected: &Query, limits: &LexLimits) -> Option<()> {
    let tokens = parse::tokens(text, limits).ok()?;
    let Statement::Query(mut query) = parse::parse(text, tokens).ok()?.statement else {
        return None;
    };
    query.with = None;
    (*query == *expected).then_some(())
}

/// The tree of what the shards run.
fn shard_query(query: &Query, select: &Select, partial: &Partial) -> Query {
    let groups = partial.groups.iter().map(|group| group.expr.clone());
    let parts = partial.parts.iter();
    let parts = parts.map(|part| Expr::Function(part.call.clone()));
    let number = |index: usize| Expr::value(Value::Number((index + 1).to_string(), false));
    let group_by = (0..partial.groups.len()).map(number).collect();
    let select = Select {
        distinct: None,
        projection: groups.chain(parts).map(SelectItem::UnnamedExpr).collect(),
        group_by: GroupByExpr::Expressions(group_by, Vec::new()),
        having: None,
        named_window: Vec::new(),
        ..select.clone()
    };
    Query {
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        ..query.clone()
    }
}

/// The tree of the final query.
fn final_query(query: &Query, partial: &Partial, limits: &LexLimits) -> Option<Query> {
    let from = format!("SELECT FROM {PARTIAL}");
    let tokens = parse::tokens(&from, limits).ok()?;
    let Statement::Query(source) = parse::parse(&from, tokens).ok()?.statement else {
        return None;
    };
    let SetExpr::Select(source) = *source.body else {
        return None;
    };
    let select = Select {
        from: source.from,
        selection: None,
        ..(*partial.select).clone()
    };
    let mut query = query.clone();
    if let Some(order_by) = &mut query.order_by {
        order_by.kind = OrderByKind::Expressions(partial.order.clone());
    }
    *query.body = SetExpr::Select(Box::new(select));
    Some(query)
}

/// Ranges of tokens.
struct Clauses {
    /// The items of the select list, without their names.
    select: Vec<Range<usize>>,
    /// FROM and WHERE.
    rows: Range<usize>,
    /// The items of GROUP BY.
    group_by: Vec<Range<usize>>,
}

/// A part of a text.
enum Piece {
    Own(String),
    /// These tokens of the client's.
    Client(Range<usize>),
}

/// The client's text.
#[derive(Clone, Copy)]
struct Text<'a> {
    sql: &'a str,
    tokens: &'a [Token],
}

impl Text<'_> {
    fn is(&self, index: usize, word: &str) -> bool {
        self.tokens
            .get(index)
            .is_some_and(|token| token.is(self.sql, word))
    }

    fn is_symbol(&self, index: usize, symbol: &str) -> bool {
        let token = self.tokens.get(index);
        token.is_some_and(|token| token.is_symbol(self.sql, symbol))
    }

    /// How many parameters it has. None if the type of one depends on where it stands first: the two texts have it in
    /// other places.
    fn parameters(&self, parameter_types: &[u32]) -> Option<usize> {
        let is_declared = |number: u16| {
            let declared = parameter_types.get(usize::from(number));
            declared.is_some_and(|oid| !matches!(*oid, 0 | UNKNOWN))
        };
        let all = rewrite::parameters(self.sql, self.tokens, |_| true);
        let places = self.tokens.iter();
        let places = places
            .filter(|token| token.kind == TokenKind::Parameter)
            .count();
        let is_once = all.len() == places;
        if !is_once && !all.iter().all(|number| is_declared(*number)) {
            return None;
        }
        let used = all.last().map_or(0, |number| usize::from(*number) + 1);
        Some(used.max(parameter_types.len()))
    }

    fn clauses(&self, select: &Select) -> Option<Clauses> {
        let outer = rewrite::outermost(self.sql, self.tokens);
        let is_name = |index: usize| {
            // After AS or a point, a reserved word is a name.
            index > 0 && (self.is(index - 1, "as") || self.is_symbol(index - 1, "."))
        };
        let begins = |index: usize| {
            !is_name(index)
                && (["having", "window", "limit", "offset", "fetch", "for"]
                    .iter()
                    .any(|word| self.is(index, word))
                    || (["group", "order"].iter().any(|word| self.is(index, word))
                        && self.is(index + 1, "by")))
        };
        if !self.is(0, "select") {
            return None;
        }
        let is_from = |index: usize| {
            self.is(index, "from") && !is_name(index) && !self.is(index - 1, "distinct")
        };
        let from = outer.iter().copied().find(|index| is_from(*index))?;
        let after = |index: usize| {
            let next = outer
                .iter()
                .copied()
                .find(|next| *next > index && begins(*next));
            next.unwrap_or(self.tokens.len())
        };
        let rows = from..after(from);
        let mut first = 1;
        if self.is(first, "all") {
            first += 1;
        }
        if self.is(first, "distinct") {
            first += 1;
            if self.is(first, "on") {
                let close = outer.iter().find(|index| **index > first + 1)?;
                first = close + 1;
            }
        }
        let mut items = self.items(&outer, first..from);
        if items.len() != select.projection.len() {
            return None;
        }
        for (item, range) in select.projection.iter().zip(&mut items) {
            if matches!(item, SelectItem::ExprWithAlias { .. }) {
                range.end -= 1;
                if range.end > range.start && self.is(range.end - 1, "as") {
                    range.end -= 1;
                }
            }
        }
        let group = rows.end;
        let group_by = if self.is(group, "group") {
            self.items(&outer, group + 2..after(group))
        } else {
            Vec::new()
        };
        let is_full = |range: &Range<usize>| range.start < range.end;
        let all_full = items.iter().chain(&group_by).all(is_full) && is_full(&rows);
        all_full.then_some(Clauses {
            select: items,
            rows,
            group_by,
        })
    }

    /// The items of a list.
    fn items(&self, outer: &[usize], list: Range<usize>) -> Vec<Range<usize>> {
        let mut items = Vec::new();
        let mut start = list.start;
        for index in outer.iter().copied() {
            if list.contains(&index) && self.is_symbol(index, ",") {
                items.push(start..index);
                start = index + 1;
            }
        }
        items.push(start..list.end);
        items
    }

    /// The token at a place.
    fn token_at(&self, place: Place) -> Option<usize> {
        let byte = parse::byte(self.sql, place)?;
        let token = |token: &Token| token.start.cmp(&byte);
        self.tokens.binary_search_by(token).ok()
    }

    /// The tokens of a name of so many parts.
    fn name(&self, place: Place, parts: usize) -> Option<Range<usize>> {
        let first = self.token_at(place)?;
        Some(first..first + 2 * parts - 1)
    }

    /// The tokens of a call's arguments and FILTER.
    fn arguments(&self, place: Place) -> Option<Range<usize>> {
        let mut open = self.token_at(place)? + 1;
        while self.is_symbol(open, ".") {
            open += 2;
        }
        let mut end = self.closing(open)? + 1;
        if self.is(end, "filter") {
            end = self.closing(end + 1)? + 1;
        }
        Some(open..end)
    }

    /// The bracket that closes the one at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        if !self.is_symbol(open, "(") {
            return None;
        }
        let mut depth = 0_usize;
        (open..self.tokens.len()).find(|index| {
            depth += usize::from(self.is_symbol(*index, "("));
            depth -= usize::from(self.is_symbol(*index, ")"));
            depth == 0
        })
    }

    /// The tokens of a group's own text.
    fn home(&self, home: Home, clauses: &Clauses) -> Option<Range<usize>> {
        match home {
            Home::Name { place, parts } => self.name(place, parts),
            Home::Select(item) => clauses.select.get(item).cloned(),
            Home::GroupBy(item) => clauses.group_by.get(item).cloned(),
        }
    }

    /// The tokens of an expression that stands elsewhere too, at `home`, by a place that both have.
    fn occurrence(
        &self,
        place: Place,
        home_place: Place,
        home: Range<usize>,
    ) -> Option<Range<usize>> {
        let before = self.token_at(home_place)?.checked_sub(home.start)?;
        let start = self.token_at(place)?.checked_sub(before)?;
        let found = self.tokens.get(start..start + home.len())?;
        let text = |token: &Token| (token.kind, token.text(self.sql).to_ascii_lowercase());
        let same = |(one, other): (&Token, &Token)| text(one) == text(other);
        let is_same = found.iter().zip(&self.tokens[home.clone()]).all(same);
        is_same.then_some(start..start + home.len())
    }

    fn bytes(&self, range: &Range<usize>) -> Option<(usize, usize)> {
        let first = self.tokens.get(range.start)?;
        let last = self.tokens.get(range.end.checked_sub(1)?)?;
        Some((first.start, last.end))
    }

    /// What the shards run.
    fn shard_pieces(&self, partial: &Partial, clauses: &Clauses) -> Option<Vec<Piece>> {
        let own = |text: &str| Piece::Own(text.to_owned());
        let mut pieces = vec![own("SELECT ")];
        for (index, group) in partial.groups.iter().enumerate() {
            pieces.extend((index > 0).then(|| own(", ")));
            pieces.push(Piece::Client(self.home(group.home, clauses)?));
        }
        for (index, part) in partial.parts.iter().enumerate() {
            let comma = index + partial.groups.len() > 0;
            pieces.extend(comma.then(|| own(", ")));
            self.call_pieces(part, &mut pieces)?;
        }
        pieces.push(own(" "));
        pieces.push(Piece::Client(clauses.rows.clone()));
        if !partial.groups.is_empty() {
            let numbers: Vec<String> = (1..=partial.groups.len())
                .map(|number| number.to_string())
                .collect();
            pieces.push(Piece::Own(format!(" GROUP BY {}", numbers.join(", "))));
        }
        Some(pieces)
    }

    /// The call of a part.
    fn call_pieces(&self, part: &Part, pieces: &mut Vec<Piece>) -> Option<()> {
        let all = self.arguments(part.place)?;
        if part.function != PartFunction::Squares {
            pieces.push(Piece::Own(format!("pg_catalog.{}", part.function.name())));
            pieces.push(Piece::Client(all));
            return Some(());
        }
        let close = self.closing(all.start)?;
        let own = |text: &str| Piece::Own(text.to_owned());
        let argument = || Piece::Client(all.start + 1..close);
        pieces.extend([
            own(SQUARES_FIRST),
            argument(),
            own(SQUARES_BETWEEN),
            argument(),
        ]);
        pieces.push(own(SQUARES_LAST));
        if close + 1 < all.end {
            pieces.extend([own(" "), Piece::Client(close + 1..all.end)]);
        }
        Some(())
    }

    fn parameters_of(&self, pieces: &[Piece]) -> Vec<u16> {
        let mut found: Vec<u16> = pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Own(_) => None,
                Piece::Client(range) => self.tokens.get(range.clone()),
            })
            .flat_map(|tokens| rewrite::parameters(self.sql, tokens, |_| true))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn rendered(&self, pieces: &[Piece], number: &dyn Fn(u16) -> Option<u16>) -> String {
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Own(text) => out.push_str(text),
                Piece::Client(range) => {
                    let tokens = &self.tokens[range.clone()];
                    if let Some((start, end)) = self.bytes(range) {
                        let edits = Vec::new();
                        let sql = self.sql;
                        out.push_str(&Splice { sql, tokens, edits }.render(start, end, number));
                    }
                }
            }
        }
        out
    }

    /// What stands elsewhere in the final text, ascending.
    fn final_edits(
        &self,
        partial: &Partial,
        clauses: &Clauses,
    ) -> Option<Vec<(usize, usize, String)>> {
        let (start, end) = self.bytes(&clauses.rows)?;
        let mut edits = vec![(start, end, format!("FROM {PARTIAL}"))];
        for edit in &partial.edits {
            let (range, text) = match edit {
                Edit::Name {
                    place,
                    parts,
                    group,
                } => (self.name(*place, *parts)?, Partial::group_name(*group)),
                Edit::Expression { anchor: at, group } => {
                    let own = &partial.groups[*group];
                    let home = self.home(own.home, clauses)?;
                    let range = self.occurrence(*at, anchor(&own.expr)?, home)?;
                    (range, Partial::group_name(*group))
                }
                Edit::GroupBy { item, group } => (
                    clauses.group_by.get(*item)?.clone(),
                    Partial::group_name(*group),
                ),
                Edit::Call { place, text, .. } => {
                    let arguments = self.arguments(*place)?;
                    (self.token_at(*place)?..arguments.end, text.clone())
                }
                Edit::Called { item, name } => {
                    let (_, end) = self.bytes(clauses.select.get(*item)?)?;
                    edits.push((end, end, format!(" AS {}", quote_identifier(name))));
                    continue;
                }
            };
            let (start, end) = self.bytes(&range)?;
            edits.push((start, end, text));
        }
        // What is put in stands behind what ends there.
        edits.sort_by_key(|(start, end, _)| (*start, *end));
        let apart = edits.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        apart.then_some(edits)
    }
}

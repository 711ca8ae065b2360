//! Texts for the shards, spliced from the client's text at its tokens, never printed from a tree; and the proof that
//! a spliced text still means what it should: it is parsed again and its tree compared with the original's.

use super::analysis::Fill;
use super::refusal::{PlanError, Refusal};
use crate::sql::lex::{LexLimits, Token, TokenKind, quote_identifier};
use crate::sql::parse::{self, ast};
use ast::{Expr, OrderByKind, Query, SelectItem, SetExpr, Statement};
use std::fmt::Write;
use std::sync::Arc;

/// The LIMIT of the text that is proven; every other number in its place is as good.
const PROOF_LIMIT: u64 = 4_294_967_291;

/// The value that is added to each row of the text that is proven; every other one in its place is as good.
const PROOF_VALUE: i64 = 4_294_967_291;

/// The name of an added column.
fn hidden_name(index: usize) -> String {
    format!("pgring_sort_{}", index + 1)
}

/// A query's text around its LIMIT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryText {
    before: Box<str>,
    after: Box<str>,
    /// The parameters that are left, if some are gone with LIMIT and OFFSET.
    pub parameters: Option<Arc<[u16]>>,
    /// How many columns were added for sorting.
    pub hidden: u16,
}

impl QueryText {
    /// The text with `limit`.
    pub fn with_limit(&self, limit: Option<u64>) -> Arc<str> {
        let Self { before, after, .. } = self;
        match limit {
            Some(limit) if after.is_empty() => format!("{before} LIMIT {limit}").into(),
            Some(limit) => format!("{before} LIMIT {limit} {after}").into(),
            None => format!("{before}{after}").into(),
        }
    }
}

/// A list of replacements in a text.
pub(super) struct Splice<'a> {
    pub(super) sql: &'a str,
    pub(super) tokens: &'a [Token],
    /// Byte ranges and what stands there instead, ascending.
    pub(super) edits: Vec<(usize, usize, String)>,
}

impl Splice<'_> {
    /// The text `from..to` after the edits, with parameters renumbered.
    pub(super) fn render(
        &self,
        from: usize,
        to: usize,
        number: &dyn Fn(u16) -> Option<u16>,
    ) -> String {
        let mut out = String::with_capacity(to - from + 32);
        let mut at = from;
        let mut edits = self
            .edits
            .iter()
            .filter(|(start, end, _)| *start >= from && *end <= to)
            .peekable();
        let mut tokens = self
            .tokens
            .iter()
            .filter(|token| token.kind == TokenKind::Parameter)
            .peekable();
        loop {
            let next_edit = edits.peek().map_or(to, |(start, _, _)| *start);
            while let Some(token) = tokens.next_if(|token| token.start < next_edit) {
                if token.start < at {
                    continue;
                }
                let renumbered = parameter(self.sql, token).and_then(number);
                if let Some(renumbered) = renumbered {
                    out.push_str(&self.sql[at..token.start]);
                    let _ = write!(out, "${}", u32::from(renumbered) + 1);
                    at = token.end;
                }
            }
            if next_edit > at {
                out.push_str(&self.sql[at..next_edit]);
                at = next_edit;
            }
            match edits.next() {
                Some((_, end, text)) => {
                    out.push_str(text);
                    at = at.max(*end);
                }
                None => return out,
            }
        }
    }
}

/// The parameter that a token is, from zero.
fn parameter(sql: &str, token: &Token) -> Option<u16> {
    token
        .text(sql)
        .strip_prefix('$')?
        .parse::<u16>()
        .ok()?
        .checked_sub(1)
}

/// All parameters of tokens for which `keep` holds, ascending.
pub(super) fn parameters(
    sql: &str,
    tokens: &[Token],
    mut keep: impl FnMut(&Token) -> bool,
) -> Vec<u16> {
    let mut found: Vec<u16> = tokens
        .iter()
        .filter(|token| token.kind == TokenKind::Parameter)
        .filter(|token| keep(token))
        .filter_map(|token| parameter(sql, token))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Indexes of tokens outside all brackets, up to the statement's end.
pub(super) fn outermost(sql: &str, tokens: &[Token]) -> Vec<usize> {
    let mut depth = 0_usize;
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let open = token.is_symbol(sql, "(") || token.is_symbol(sql, "[");
        let close = token.is_symbol(sql, ")") || token.is_symbol(sql, "]");
        if close {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 {
            found.push(index);
        }
        if open {
            depth += 1;
        }
    }
    found
}

fn refused(reason: &str) -> PlanError {
    PlanError::refused(
        Refusal::Rewrite,
        format!("pgring cannot rewrite this statement: {reason}"),
    )
}

/// The text of a query whose LIMIT and OFFSET are replaced and that yields the sort keys numbered in `hidden` (of its
/// ORDER BY list) as further columns.
pub fn query_text(
    sql: &str,
    tokens: &[Token],
    statement: &Statement,
    hidden: &[usize],
    limits: &LexLimits,
) -> Result<QueryText, PlanError> {
    let outer = outermost(sql, tokens);
    let word = |index: usize, word: &str| {
        // After AS or a point, a reserved word is a name.
        let named =
            index > 0 && (tokens[index - 1].is(sql, "as") || tokens[index - 1].is_symbol(sql, "."));
        !named && tokens[index].is(sql, word)
    };
    let ends_clause = |index: usize| {
        ["limit", "offset", "fetch", "for"]
            .iter()
            .any(|keyword| word(index, keyword))
    };
    let end = tokens.last().map_or(0, |token| token.end);
    let mut edits = Vec::new();

    if !hidden.is_empty() {
        let select = outer
            .iter()
            .position(|index| word(*index, "select"))
            .ok_or_else(|| refused("it has no SELECT"))?;
        let from = outer[select..]
            .iter()
            .copied()
            .find(|index| word(*index, "from") && !tokens[index - 1].is(sql, "distinct"))
            .ok_or_else(|| refused("it has no FROM"))?;
        let order = outer
            .iter()
            .position(|index| word(*index, "order"))
            .ok_or_else(|| refused("it has no ORDER BY"))?;
        let items = order_items(sql, tokens, &outer[order..], &ends_clause)?;
        let mut added = String::new();
        for (index, item) in hidden.iter().enumerate() {
            let (start, end) = items
                .get(*item)
                .copied()
                .ok_or_else(|| refused("its ORDER BY is not understood"))?;
            // A line break ends a comment that may stand in the text.
            let _ = write!(
                added,
                ", ({}\n) AS \"{}\"",
                &sql[start..end],
                hidden_name(index)
            );
        }
        added.push(' ');
        // Right after the select list, before any comment that follows it.
        edits.push((tokens[from - 1].end, tokens[from - 1].end, added));
    }

    let mut cuts: Vec<(usize, usize)> = Vec::new();
    for (position, index) in outer.iter().enumerate() {
        if !["limit", "offset", "fetch"]
            .iter()
            .any(|keyword| word(*index, keyword))
        {
            continue;
        }
        let next = outer[position + 1..]
            .iter()
            .copied()
            .find(|index| ends_clause(*index));
        cuts.push((
            tokens[*index].start,
            next.map_or(end, |next| tokens[next].start),
        ));
    }
    let split = cuts.first().map_or_else(
        || {
            outer
                .iter()
                .copied()
                .find(|index| word(*index, "for"))
                .map_or(end, |index| tokens[index].start)
        },
        |(start, _)| *start,
    );
    edits.extend(
        cuts.iter()
            .map(|(start, end)| (*start, *end, String::new())),
    );
    let splice = Splice { sql, tokens, edits };

    let same = |_: u16| None;
    let proof = format!(
        "{} LIMIT {PROOF_LIMIT} {}",
        splice.render(0, split, &same),
        splice.render(split, end, &same)
    );
    prove_query(&proof, statement, hidden, limits)?;

    let cut = |token: &Token| {
        cuts.iter()
            .any(|(start, end)| token.start >= *start && token.end <= *end)
    };
    let all = parameters(sql, tokens, |_| true);
    let left = parameters(sql, tokens, |token| !cut(token));
    let gone = left.len() < all.len();
    let renumber = |number: u16| {
        left.binary_search(&number)
            .ok()
            .and_then(|index| u16::try_from(index).ok())
    };
    let number: &dyn Fn(u16) -> Option<u16> = if gone { &renumber } else { &same };
    let mut before = splice.render(0, split, number);
    if gone {
        // The added columns hold the client's own numbers.
        before = renumbered_hidden(&splice, split, number, limits)?.unwrap_or(before);
    }
    Ok(QueryText {
        before: before.into(),
        after: splice.render(split, end, number).into(),
        parameters: gone.then(|| left.clone().into()),
        hidden: u16::try_from(hidden.len()).unwrap_or(u16::MAX),
    })
}

/// Renders the first part once more with the parameters in inserted text renumbered too.
fn renumbered_hidden(
    splice: &Splice<'_>,
    split: usize,
    number: &dyn Fn(u16) -> Option<u16>,
    limits: &LexLimits,
) -> Result<Option<String>, PlanError> {
    let mut edits = Vec::with_capacity(splice.edits.len());
    for (start, end, text) in &splice.edits {
        let tokens = parse::tokens(text, limits)?;
        let inner = Splice {
            sql: text,
            tokens: &tokens,
            edits: Vec::new(),
        };
        edits.push((*start, *end, inner.render(0, text.len(), number)));
    }
    Ok(Some(
        Splice {
            sql: splice.sql,
            tokens: splice.tokens,
            edits,
        }
        .render(0, split, number),
    ))
}

/// The byte ranges of ORDER BY's expressions; `outer` starts at ORDER.
fn order_items(
    sql: &str,
    tokens: &[Token],
    outer: &[usize],
    ends_clause: &dyn Fn(usize) -> bool,
) -> Result<Vec<(usize, usize)>, PlanError> {
    if !outer
        .get(1)
        .is_some_and(|index| tokens[*index].is(sql, "by"))
    {
        return Err(refused("its ORDER BY is not understood"));
    }
    let first = outer[1] + 1;
    let stop = outer[2..]
        .iter()
        .copied()
        .find(|index| ends_clause(*index))
        .unwrap_or(tokens.len());
    let mut items = Vec::new();
    let mut start = first;
    let commas = outer
        .iter()
        .copied()
        .filter(|index| *index > first && *index < stop && tokens[*index].is_symbol(sql, ","));
    for end in commas.chain(std::iter::once(stop)) {
        let mut last = end;
        let is = |index: usize, words: &[&str]| {
            index > start && words.iter().any(|word| tokens[index].is(sql, word))
        };
        if last >= start + 2 && is(last - 1, &["first", "last"]) && is(last - 2, &["nulls"]) {
            last -= 2;
        }
        if last > start && is(last - 1, &["asc", "desc"]) {
            last -= 1;
        }
        if last <= start {
            return Err(refused("its ORDER BY is not understood"));
        }
        items.push((tokens[start].start, tokens[last - 1].end));
        start = end + 1;
    }
    Ok(items)
}

fn query_of(statement: &Statement) -> Option<&Query> {
    match statement {
        Statement::Query(query) => Some(query),
        _ => None,
    }
}

/// Proves that `text` is `statement` but for the added columns and another LIMIT.
fn prove_query(
    text: &str,
    statement: &Statement,
    hidden: &[usize],
    limits: &LexLimits,
) -> Result<(), PlanError> {
    let failed = || refused("the rewritten text does not parse to the same tree");
    let original = query_of(statement).ok_or_else(failed)?;
    let tokens = parse::tokens(text, limits)?;
    let Statement::Query(mut rewritten) = parse::parse(text, tokens)?.statement else {
        return Err(failed());
    };
    let limit = Expr::value(ast::Value::Number(PROOF_LIMIT.to_string(), false));
    let expected = ast::LimitClause::LimitOffset {
        limit: Some(limit),
        offset: None,
        limit_by: Vec::new(),
    };
    if rewritten.limit_clause.as_ref() != Some(&expected) || rewritten.fetch.is_some() {
        return Err(failed());
    }
    rewritten.limit_clause = original.limit_clause.clone();
    rewritten.fetch = original.fetch.clone();
    if !hidden.is_empty() {
        let (SetExpr::Select(select), SetExpr::Select(before)) =
            (&mut *rewritten.body, &*original.body)
        else {
            return Err(failed());
        };
        let Some(OrderByKind::Expressions(order)) =
            original.order_by.as_ref().map(|order_by| &order_by.kind)
        else {
            return Err(failed());
        };
        let count = before.projection.len();
        if select.projection.len() != count + hidden.len() {
            return Err(failed());
        }
        let added = select.projection.split_off(count);
        for (index, (item, wanted)) in added.iter().zip(hidden).enumerate() {
            let SelectItem::ExprWithAlias {
                expr: Expr::Nested(expr),
                alias,
            } = item
            else {
                return Err(failed());
            };
            if order.get(*wanted).map(|item| &item.expr) != Some(&**expr)
                || alias.value != hidden_name(index)
            {
                return Err(failed());
            }
        }
    }
    if *rewritten == *original {
        Ok(())
    } else {
        Err(failed())
    }
}

/// An INSERT's text around and in its VALUES list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsertText {
    tokens: Box<[Token]>,
    rows: Box<[(usize, usize)]>,
    end: usize,
    /// What stands before the rows if each is given one value more.
    head: Vec<(usize, usize, String)>,
}

/// The parts of an INSERT whose VALUES list may be split by rows.
pub fn insert_text(
    sql: &str,
    tokens: &[Token],
    statement: &Statement,
    fill: Option<&Fill>,
    limits: &LexLimits,
) -> Result<InsertText, PlanError> {
    let failed = || refused("its VALUES list is not understood");
    let count = values_of(statement).ok_or_else(failed)?.rows.len();
    let outer = outermost(sql, tokens);
    let values = outer
        .windows(2)
        .position(|pair| tokens[pair[0]].is(sql, "values") && tokens[pair[1]].is_symbol(sql, "("))
        .ok_or_else(failed)?;
    let mut rows = Vec::with_capacity(count);
    let mut at = values + 1;
    loop {
        let (Some(open), Some(close)) = (outer.get(at), outer.get(at + 1)) else {
            return Err(failed());
        };
        if !tokens[*open].is_symbol(sql, "(") || !tokens[*close].is_symbol(sql, ")") {
            return Err(failed());
        }
        rows.push((tokens[*open].start, tokens[*close].end));
        match outer.get(at + 2) {
            Some(index) if tokens[*index].is_symbol(sql, ",") => at += 3,
            _ => break,
        }
    }
    if rows.len() != count {
        return Err(failed());
    }
    let text = InsertText {
        tokens: tokens
            .iter()
            .filter(|token| token.kind == TokenKind::Parameter)
            .copied()
            .collect(),
        rows: rows.into(),
        end: tokens.last().map_or(0, |token| token.end),
        head: match fill {
            None => Vec::new(),
            Some(fill) => {
                let before = values.checked_sub(1).and_then(|before| outer.get(before));
                let before = &tokens[*before.ok_or_else(failed)?];
                head(fill, before, &tokens[outer[values]]).ok_or_else(failed)?
            }
        },
    };
    // Each row stands by itself if all of them, in reverse order, still parse to the same rows.
    let reversed: Vec<usize> = (0..count).rev().collect();
    let drawn = vec![PROOF_VALUE; fill.map_or(0, |_| count)];
    let proof = text.assemble(sql, &reversed, &drawn, &|_| None);
    let mut rewritten = parse::parse(&proof, parse::tokens(&proof, limits)?)?.statement;
    let rows = &mut values_of_mut(&mut rewritten).ok_or_else(failed)?.rows;
    rows.reverse();
    if let Some(fill) = fill {
        for row in rows {
            let added = row.content.pop().map(|added| added.to_string());
            if added != Some(PROOF_VALUE.to_string()) {
                return Err(failed());
            }
        }
        let Statement::Insert(insert) = &mut rewritten else {
            return Err(failed());
        };
        insert.overriding = None;
        let added = insert.columns.pop().map(|added| added.to_string());
        if added != Some(quote_identifier(&fill.column)) {
            return Err(failed());
        }
        if !fill.unlisted.is_empty() {
            insert.columns.clear();
        }
    }
    if rewritten != *statement {
        return Err(refused(
            "the rewritten text does not parse to the same tree",
        ));
    }
    Ok(text)
}

/// What is put into the text before VALUES for rows with one value more; `before` is the token in front of it.
fn head(fill: &Fill, before: &Token, values: &Token) -> Option<Vec<(usize, usize, String)>> {
    const OVERRIDING: &str = "OVERRIDING SYSTEM VALUE ";
    let column = quote_identifier(&fill.column);
    if !fill.unlisted.is_empty() {
        let names: Vec<String> = fill
            .unlisted
            .iter()
            .map(|name| quote_identifier(name))
            .collect();
        let list = format!("({}, {column}) {OVERRIDING}", names.join(", "));
        return Some(vec![(values.start, values.start, list)]);
    }
    // The end of the list of columns.
    let close = before.end.checked_sub(1)?;
    Some(vec![
        (close, close, format!(", {column}")),
        (values.start, values.start, OVERRIDING.to_owned()),
    ])
}

impl InsertText {
    /// The statement with these of its rows only, each with its value of `drawn` if there are any, and the parameters that
    /// are left in it, if any are gone.
    pub fn with_rows(
        &self,
        sql: &str,
        rows: &[usize],
        drawn: &[i64],
    ) -> (Arc<str>, Option<Arc<[u16]>>) {
        let (first, last) = (self.rows[0].0, self.rows[self.rows.len() - 1].1);
        let all = parameters(sql, &self.tokens, |_| true);
        let mut spans = rows.iter().map(|row| self.rows[*row]).peekable();
        let left = parameters(sql, &self.tokens, |token| {
            if token.start < first || token.start >= last {
                return true;
            }
            // Tokens and rows both ascend.
            while spans.next_if(|(_, end)| *end <= token.start).is_some() {}
            spans.peek().is_some_and(|(start, _)| token.start >= *start)
        });
        if left.len() == all.len() {
            return (self.assemble(sql, rows, drawn, &|_| None).into(), None);
        }
        let number = |number: u16| {
            left.binary_search(&number)
                .ok()
                .and_then(|index| u16::try_from(index).ok())
        };
        (
            self.assemble(sql, rows, drawn, &number).into(),
            Some(left.clone().into()),
        )
    }

    fn assemble(
        &self,
        sql: &str,
        rows: &[usize],
        drawn: &[i64],
        number: &dyn Fn(u16) -> Option<u16>,
    ) -> String {
        let render = |from: usize, to: usize, edits: Vec<(usize, usize, String)>| {
            let start = self.tokens.partition_point(|token| token.start < from);
            let end = self.tokens.partition_point(|token| token.start < to);
            Splice {
                sql,
                tokens: &self.tokens[start..end],
                edits,
            }
            .render(from, to, number)
        };
        let mut out = render(0, self.rows[0].0, self.head.clone());
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            let (start, end) = self.rows[*row];
            let close = end - 1;
            let added = drawn.get(*row);
            let added = added.map(|added| (close, close, format!(", {added}")));
            out.push_str(&render(start, end, added.into_iter().collect()));
        }
        let last = self.rows[self.rows.len() - 1].1;
        out.push_str(&render(last, self.end, Vec::new()));
        out
    }
}

fn insert_of(statement: &Statement) -> Option<&ast::Insert> {
    match statement {
        Statement::Insert(insert) => Some(insert),
        Statement::Query(query) => match &*query.body {
            SetExpr::Insert(statement) => insert_of(statement),
            _ => None,
        },
        _ => None,
    }
}

fn values_of(statement: &Statement) -> Option<&ast::Values> {
    match &*insert_of(statement)?.source.as_deref()?.body {
        SetExpr::Values(values) => Some(values),
        _ => None,
    }
}

fn values_of_mut(statement: &mut Statement) -> Option<&mut ast::Values> {
    let insert = match statement {
        Statement::Insert(insert) => insert,
        Statement::Query(query) => match &mut *query.body {
            SetExpr::Insert(Statement::Insert(insert)) => insert,
            _ => return None,
        },
        _ => return None,
    };
    match &mut *insert.source.as_deref_mut()?.body {
        SetExpr::Values(values) => Some(values),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LexLimits = LexLimits {
        tokens_max: 10_000,
        depth_max: 100,
    };

    fn parsed(sql: &str) -> parse::Parsed {
        parse::parse(sql, parse::tokens(sql, &LIMITS).expect("tokens")).expect("a tree")
    }

    fn rewritten(sql: &str, hidden: &[usize]) -> Result<QueryText, PlanError> {
        let parsed = parsed(sql);
        query_text(sql, &parsed.tokens, &parsed.statement, hidden, &LIMITS)
    }

    #[test]
    fn the_proof_sees_any_other_change() {
        let statement = parsed("SELECT a FROM t WHERE b = 1 ORDER BY c").statement;
        let prove = |text: &str, hidden: &[usize]| {
            prove_query(
                &text.replace("LIMIT n", &format!("LIMIT {PROOF_LIMIT}")),
                &statement,
                hidden,
                &LIMITS,
            )
        };
        assert_eq!(
            prove("SELECT a FROM t WHERE b = 1 ORDER BY c LIMIT n", &[]),
            Ok(())
        );
        assert_eq!(
            prove(
                "SELECT a, (c) AS \"pgring_sort_1\" FROM t WHERE b = 1 ORDER BY c LIMIT n",
                &[0]
            ),
            Ok(())
        );
        for (text, hidden) in [
            ("SELECT a FROM t WHERE b = 2 ORDER BY c LIMIT n", &[][..]),
            ("SELECT a FROM t WHERE b = '1' ORDER BY c LIMIT n", &[]),
            ("SELECT a FROM t ORDER BY c LIMIT n", &[]),
            ("SELECT a FROM t WHERE b = 1 ORDER BY c", &[]),
            (
                "SELECT a FROM t WHERE b = 1 ORDER BY c LIMIT n OFFSET 1",
                &[],
            ),
            ("SELECT a FROM t WHERE b = 1 ORDER BY c LIMIT 5", &[]),
            ("SELECT a, (c) FROM t WHERE b = 1 ORDER BY c LIMIT n", &[0]),
            (
                "SELECT a, (d) AS \"pgring_sort_1\" FROM t WHERE b = 1 ORDER BY c LIMIT n",
                &[0],
            ),
            (
                "SELECT (c) AS \"pgring_sort_1\", a FROM t WHERE b = 1 ORDER BY c LIMIT n",
                &[0],
            ),
            (
                "SELECT a, (c) AS \"pgring_sort_2\" FROM t WHERE b = 1 ORDER BY c LIMIT n",
                &[0],
            ),
        ] {
            assert!(prove(text, hidden).is_err(), "{text}");
        }
    }

    #[test]
    fn literals_comments_and_quotes_come_through_byte_for_byte() {
        let sql = "SELECT 'it''s' AS \"fr\"\"om\", E'\\' FROM x', $q$ LIMIT 1 $q$ -- LIMIT 2\n/* FROM */ FROM t ORDER BY a OFFSET 3";
        let text = rewritten(sql, &[0])
            .expect("it is rewritten")
            .with_limit(Some(7));
        assert_eq!(
            &*text,
            "SELECT 'it''s' AS \"fr\"\"om\", E'\\' FROM x', $q$ LIMIT 1 $q$, (a\n) AS \"pgring_sort_1\"  -- LIMIT 2\n/* FROM */ FROM t ORDER BY a  LIMIT 7"
        );
    }

    #[test]
    fn names_that_look_like_clauses_are_not_taken_for_them() {
        for sql in [
            "SELECT a AS limit FROM t ORDER BY b OFFSET 1",
            "SELECT t.from, t.limit FROM t ORDER BY t.offset OFFSET 1",
            "SELECT a IS NOT DISTINCT FROM b FROM t ORDER BY c OFFSET 1",
            "SELECT substring(a FROM 2 FOR 3) FROM t ORDER BY c OFFSET 1",
            "WITH x AS (SELECT 1 FROM y ORDER BY 1 LIMIT 1) SELECT a FROM t, x ORDER BY c, d OFFSET 1",
            "SELECT (SELECT 1 FROM u ORDER BY 2 LIMIT 1), a FROM t ORDER BY CASE WHEN a THEN 1 ELSE 2 END, b OFFSET 1",
        ] {
            let text = rewritten(sql, &[0]).unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert!(text.with_limit(Some(1)).contains("pgring_sort_1"), "{sql}");
        }
    }

    #[test]
    fn rows_of_an_insert_are_split_where_they_end() {
        let sql =
            "INSERT INTO t (a, b) VALUES (1, '), (2'), (ARRAY[(3), 4], $2) RETURNING (VALUES (5))";
        let parsed = parsed(sql);
        let text = insert_text(sql, &parsed.tokens, &parsed.statement, None, &LIMITS)
            .expect("it is split");
        let (first, parameters) = text.with_rows(sql, &[0], &[]);
        assert_eq!(
            &*first,
            "INSERT INTO t (a, b) VALUES (1, '), (2') RETURNING (VALUES (5))"
        );
        assert_eq!(parameters.as_deref(), Some(&[][..]));
        let (second, parameters) = text.with_rows(sql, &[1], &[]);
        assert_eq!(
            &*second,
            "INSERT INTO t (a, b) VALUES (ARRAY[(3), 4], $2) RETURNING (VALUES (5))"
        );
        assert_eq!(parameters, None);
    }

    #[test]
    fn a_table_called_values_is_not_taken_for_the_list() {
        let sql = "INSERT INTO values (a, b) VALUES (1, 2), (3, 4)";
        if let Ok(tokens) = parse::tokens(sql, &LIMITS)
            && let Ok(parsed) = parse::parse(sql, tokens)
        {
            assert!(insert_text(sql, &parsed.tokens, &parsed.statement, None, &LIMITS).is_err());
        }
    }
}

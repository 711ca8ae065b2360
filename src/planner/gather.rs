//! Tier 5: a query that several shards cannot answer by themselves runs whole on one of them, over *intermediate
//! relations* in the place of the sharded tables. Each holds the columns that the query may name, of the rows that pass
//! what the query asks of that table alone, from the shards that the keys leave. PostgreSQL does the rest: so whatever
//! the query's shape, its types, collations and functions are PostgreSQL's own.
//!
//! An intermediate relation travels as arrays, one parameter a column: `WITH pgring_gather_1 (a, b) AS (SELECT … FROM
//! unnest($1::bigint[], $2::text[]))`. The client's text is spliced at the names of the tables, never printed from a
//! tree, and the spliced text is parsed again and compared.

use super::analysis::Analysis;
use super::foreign;
use super::gathered::{FirstBy, FirstRows, Gathered, Inside};
use super::plan::{StepArguments, Tier, Transport};
use super::refusal::{PlanError, Refusal};
use super::template::Context;
use super::view;
use crate::sql::lex::{self, LexLimits, Token, TokenKind, quote_identifier};
use crate::sql::parse::{self, Parsed, Place, ast};
use crate::topology::schema::{Column, Relation, Schema};
use std::collections::HashSet;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

/// How the names of intermediate relations begin.
const PREFIX: &str = "pgring_gather_";

/// A statement may have this many tables replaced.
const RELATIONS_MAX: usize = 64;

/// A statement may have this many columns gathered: each is a parameter, and Bind counts them in 16 bits.
const COLUMNS_MAX: usize = 20_000;

/// How a query runs on one shard over intermediate relations.
#[derive(Debug, Clone)]
pub struct GatherText {
    /// What it is called.
    pub(super) tier: Tier,
    /// The final query.
    pub(super) sql: Arc<str>,
    /// The client's parameters in it; those behind them are the relations' columns.
    pub(super) arguments: StepArguments,
    /// How many parameters the client's text has.
    pub(super) parameters: usize,
    /// The relations in the order of their parameters.
    pub(super) inputs: Box<[InputText]>,
}

/// One intermediate relation.
#[derive(Debug, Clone)]
pub(super) struct InputText {
    /// What it holds rows of: `schema.table`.
    pub(super) relation: Arc<str>,
    /// What the shards run.
    pub(super) sql: Arc<str>,
    /// The client's parameters in it, from zero.
    pub(super) parameters: Arc<[u16]>,
    /// How its columns travel.
    pub(super) columns: Arc<[Transport]>,
    /// Indexes into the analysis' uses: rows that any of them needs.
    pub(super) uses: Box<[usize]>,
    /// ORDER BY of the rows of which the answer needs no more than LIMIT and OFFSET together say.
    pub(super) order: Option<Box<str>>,
}

/// PostgreSQL's own types whose binary form is the same on every server: OID, and how `format_type` prints them.
pub(super) const PORTABLE: [(u32, &str); 35] = [
    (16, "boolean"),
    (17, "bytea"),
    (18, "\"char\""),
    (19, "name"),
    (20, "bigint"),
    (21, "smallint"),
    (23, "integer"),
    (25, "text"),
    (26, "oid"),
    (114, "json"),
    (600, "point"),
    (650, "cidr"),
    (700, "real"),
    (701, "double precision"),
    (774, "macaddr8"),
    (790, "money"),
    (829, "macaddr"),
    (869, "inet"),
    (1042, "character"),
    (1043, "character varying"),
    (1082, "date"),
    (1083, "time without time zone"),
    (1114, "timestamp without time zone"),
    (1184, "timestamp with time zone"),
    (1186, "interval"),
    (1266, "time with time zone"),
    (1560, "bit"),
    (1562, "bit varying"),
    (1700, "numeric"),
    (2950, "uuid"),
    (3802, "jsonb"),
    (3904, "int4range"),
    (3906, "numrange"),
    (3912, "daterange"),
    (3926, "int8range"),
];

impl Transport {
    /// How a column travels.
    pub(super) fn of(column: &Column) -> Self {
        let name = &*column.type_name;
        // Without its length: `timestamp(3) without time zone`.
        let plain = match (name.find('('), name.find(')')) {
            (Some(open), Some(close)) if open < close => {
                format!("{}{}", &name[..open], &name[close + 1..])
            }
            _ => name.to_owned(),
        };
        let is_own = |(oid, own): &&(u32, &str)| *oid == column.type_oid && *own == plain;
        match PORTABLE.iter().find(is_own) {
            Some((oid, _)) => Self::Binary { oid: *oid },
            None => Self::Text,
        }
    }
}

fn refused(reason: &str) -> PlanError {
    PlanError::refused(
        Refusal::Rewrite,
        format!("pgring cannot gather this statement: {reason}"),
    )
}

/// The text of a query over intermediate relations, and what these are.
///
/// # Errors
/// The text is not understood well enough.
pub(super) fn gather_text(
    sql: &str,
    parsed: &Parsed,
    analysis: &Analysis,
    parameter_count: usize,
    context: &Context<'_>,
) -> Result<GatherText, PlanError> {
    let sources = analysis.sources.as_slice();
    let tokens = &parsed.tokens;
    if sql.contains(PREFIX) {
        return Err(refused("it names what pgring names"));
    }
    let used = parameters(sql, tokens);
    let before = used
        .iter()
        .map(|number| usize::from(*number) + 1)
        .max()
        .unwrap_or(0)
        .max(parameter_count);
    let mut relations = Relations {
        context,
        first_rows: analysis.first_rows.as_ref().filter(|_| sources.len() == 1),
        with: String::new(),
        inputs: Vec::with_capacity(sources.len()),
        names: 0,
        number: before,
    };
    let mut edits = relations.replace(sql, tokens, sources, analysis.every_column, true)?;
    for place in &analysis.qualified {
        edits.push((qualifier(sql, tokens, *place)?, String::new()));
    }
    let Relations {
        with,
        inputs,
        number,
        ..
    } = relations;
    if number > COLUMNS_MAX || inputs.is_empty() {
        return Err(refused("it needs too many columns"));
    }
    before_query(sql, tokens, &mut edits, &with);
    let text = spliced(sql, tokens, &mut edits);
    prove(&text, tokens, sql, &edits, context.limits)?;
    let found = parse::parse(&text, parse::tokens(&text, context.limits)?)?.statement;
    match found {
        ast::Statement::Query(query) if query.with.is_some() => Ok(GatherText {
            tier: Tier::Gather,
            sql: text.into(),
            arguments: StepArguments::AsSent,
            parameters: before,
            inputs: inputs.into(),
        }),
        _ => Err(refused(UNPROVEN)),
    }
}

/// Pieces of text that are put in the place of others.
type Edits = Vec<(Range<usize>, String)>;

/// The intermediate relations of a query, as they are found.
struct Relations<'a> {
    context: &'a Context<'a>,
    /// Which rows are wanted of the only table that the client's text names.
    first_rows: Option<&'a FirstRows>,
    /// Their definitions.
    with: String,
    inputs: Vec<InputText>,
    /// How many have names.
    names: usize,
    /// The last parameter that is taken.
    number: usize,
}

impl Relations<'_> {
    /// Puts the names of intermediate relations in the place of those of tables and views in a query. `is_clients`: it is
    /// the client's own, not a view's.
    fn replace(
        &mut self,
        sql: &str,
        tokens: &[Token],
        sources: &[Gathered],
        every_column: bool,
        is_clients: bool,
    ) -> Result<Edits, PlanError> {
        let named: HashSet<String> = tokens
            .iter()
            .filter(|token| token.is_identifier())
            .map(|token| name_of(token, sql))
            .collect();
        let used = parameters(sql, tokens);
        let mut edits: Edits = Vec::new();
        for source in sources {
            let all = every_column || source.renamed || source.whole;
            let mut columns: Vec<&Column> = source
                .relation
                .columns
                .iter()
                .filter(|column| all || named.contains(&*column.name))
                .collect();
            if columns.is_empty() {
                // Only its number of rows matters.
                columns.extend(source.relation.columns.first());
            }
            let query = match &source.inside {
                Some(inside) => Some(self.query(source, inside, &columns, is_clients)?),
                None => None,
            };
            self.names += 1;
            if self.names > RELATIONS_MAX {
                return Err(refused("it names too many tables"));
            }
            let name = format!("{PREFIX}{}", self.names);
            let mut range =
                name_range(sql, tokens, source).ok_or_else(|| refused("a table's name"))?;
            let mut splice = match source.whole {
                true => rows_of(source, &name, &columns)?,
                false => name.clone(),
            };
            if !source.aliased {
                let _ = write!(splice, " AS {}", quote_identifier(&source.called));
            }
            if let Some(command) = table_command(sql, tokens, range.start) {
                splice = format!("SELECT * FROM {splice}");
                range.start = command;
            }
            edits.push((range, splice));
            if !self.with.is_empty() {
                self.with.push_str(", ");
            }
            if let Some(query) = query {
                let columns: Vec<&Column> = source.relation.columns.iter().collect();
                let _ = write!(self.with, "{name} ({}) AS ({query})", names(&columns));
                continue;
            }
            if columns
                .iter()
                .any(|column| has_own_cast(column, self.context))
            {
                return Err(refused("a column's type has casts of its own"));
            }
            for place in &source.grouped {
                let start = parse::byte(sql, *place).ok_or_else(|| refused("GROUP BY"))?;
                edits.push((start..start, dependents(source, &columns)));
            }
            let first_rows = self.first_rows.filter(|_| is_clients);
            let input = input(
                sql,
                tokens,
                source,
                &columns,
                &used,
                first_rows,
                self.context,
            )?;
            let schema = &self.context.topology.schema;
            define(&mut self.with, &name, &columns, &mut self.number, schema);
            self.inputs.push(input);
        }
        Ok(edits)
    }

    /// The query of a view over intermediate relations. Where the client names the view, PostgreSQL checks that it may
    /// read these columns of it.
    fn query(
        &mut self,
        view: &Gathered,
        inside: &Inside,
        columns: &[&Column],
        is_clients: bool,
    ) -> Result<String, PlanError> {
        let Relation {
            schema,
            name,
            query,
            ..
        } = &*view.relation;
        let limits = self.context.limits;
        let sql = query.as_deref().ok_or_else(|| refused("a view"))?;
        let tokens = parse::tokens(sql, limits)?;
        if !view::means_the_same(sql, &tokens, self.context) {
            return Err(refused(
                "a name in a view means something else to the session",
            ));
        }
        let mut edits = self.replace(sql, &tokens, &inside.sources, inside.every_column, false)?;
        let text = spliced(sql, &tokens, &mut edits);
        prove(&text, &tokens, sql, &edits, limits)?;
        Ok(match is_clients {
            false => text,
            true => format!(
                "SELECT * FROM ({text}) AS v WHERE NOT EXISTS (SELECT {} FROM {}.{} LIMIT 0)",
                names(columns),
                quote_identifier(schema),
                quote_identifier(name)
            ),
        })
    }
}

/// Whether users made casts to the column's type: its text would not be read as its input function reads it.
pub(super) fn has_own_cast(column: &Column, context: &Context<'_>) -> bool {
    let name = column.type_name.trim_end_matches("[]");
    let name = name.rsplit('.').next().unwrap_or(name).trim_matches('"');
    matches!(Transport::of(column), Transport::Text)
        && context.topology.schema.casts.contains_key(name)
}

/// `name (columns) AS (SELECT … FROM unnest(…))`; `number` is the last parameter that is taken.
pub(super) fn define(
    with: &mut String,
    name: &str,
    columns: &[&Column],
    number: &mut usize,
    schema: &Schema,
) {
    let list = |each: &dyn Fn(usize, &Column) -> String| {
        let items: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(index, column)| each(index, column))
            .collect();
        items.join(", ")
    };
    let first = *number;
    *number += columns.len();
    let columns_named = names(columns);
    // The arrays' elements have lost the length of their type and the column's collation.
    let values = list(&|index, column| {
        let is_whole = matches!(Transport::of(column), Transport::Binary { .. })
            && !column.type_name.contains('(');
        let cast = if is_whole {
            String::new()
        } else {
            format!("::{}", column.type_name)
        };
        let collate = column.collation_name.as_ref();
        let collate = collate.map_or_else(String::new, |name| format!(" COLLATE {name}"));
        format!("c{index}{cast}{collate}")
    });
    let arrays = list(&|index, column| {
        let element = match Transport::of(column) {
            Transport::Binary { .. } => &*column.type_name,
            Transport::Text => "pg_catalog.text",
        };
        format!("${}::{element}[]", first + index + 1)
    });
    // PostgreSQL reads only the bare name as that of a function of several arrays; of one it may be a user's.
    let unnest = if columns.len() == 1 {
        "pg_catalog.unnest"
    } else {
        "unnest"
    };
    let aliases = list(&|index, _| format!("c{index}"));
    // A domain that is NOT NULL takes no NULL that an outer join makes, above which PostgreSQL would cast.
    let apart = match columns.iter().any(|column| schema.is_domain(column)) {
        true => "MATERIALIZED ",
        false => "",
    };
    let _ = write!(
        with,
        "{name} ({columns_named}) AS {apart}(SELECT {values} FROM {unnest}({arrays}) AS r ({aliases}))"
    );
}

/// The columns that follow from a primary key, as GROUP BY lists them: gathered rows have no key that PostgreSQL knows.
fn dependents(source: &Gathered, columns: &[&Column]) -> String {
    let relation = &source.relation;
    let is_key = |column: &Column| {
        let key = relation.unique.iter().find(|unique| unique.is_primary);
        let index = relation.column(&column.name);
        key.is_some_and(|key| index.is_some_and(|index| key.columns.contains(&index)))
    };
    // Types of PostgreSQL's own that have no equality.
    let compares = |column: &Column| !["json", "xml", "point"].contains(&&*column.type_name);
    let mut list = String::new();
    for column in columns {
        if !is_key(column) && compares(column) {
            let _ = write!(
                list,
                "{}.{}, ",
                quote_identifier(&source.called),
                quote_identifier(&column.name)
            );
        }
    }
    list
}

/// What the shards run for one table.
fn input(
    sql: &str,
    tokens: &[Token],
    source: &Gathered,
    columns: &[&Column],
    used: &[u16],
    first_rows: Option<&FirstRows>,
    context: &Context<'_>,
) -> Result<InputText, PlanError> {
    let relation = &source.relation;
    let mut text = format!(
        "SELECT {} FROM {}.{} AS {}",
        names(columns),
        quote_identifier(&relation.schema),
        quote_identifier(&relation.name),
        quote_identifier(&source.called)
    );
    let mut chosen: Vec<u16> = Vec::new();
    let mut conditions = Vec::new();
    if !source.renamed {
        for filter in &source.filters {
            let Some(range) = text_range(sql, tokens, filter) else {
                continue;
            };
            let own: Vec<u16> = parameters(sql, &tokens[range.clone()]);
            // A parameter that stands elsewhere too may have another type there, which its first place decides.
            let alone = |number: &u16| used.iter().filter(|other| *other == number).count() == 1;
            if own.iter().all(alone) {
                chosen.extend(own);
                conditions.push(range);
            }
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    let is_all =
        |first: &&FirstRows| first.place == source.place && first.conditions == conditions.len();
    let order = first_rows
        .filter(is_all)
        .and_then(|first| order_text(sql, tokens, source, first));
    let bounded = !conditions.is_empty();
    for (index, range) in conditions.into_iter().enumerate() {
        text.push_str(if index == 0 { " WHERE (" } else { " AND (" });
        let (start, end) = (tokens[range.start].start, tokens[range.end - 1].end);
        let mut at = start;
        for token in tokens[range]
            .iter()
            .filter(|token| token.kind == TokenKind::Parameter)
        {
            text.push_str(&sql[at..token.start]);
            let place = parameter(sql, token).and_then(|number| chosen.binary_search(&number).ok());
            let place = place.ok_or_else(|| refused("a parameter"))?;
            let _ = write!(text, "${}", place + 1);
            at = token.end;
        }
        text.push_str(&sql[at..end]);
        text.push(')');
    }
    if context.topology.has_foreign_rows {
        let own = foreign::condition(relation, &source.called);
        let own = own.ok_or_else(|| refused("a table has no sharding key"))?;
        text.push_str(if bounded { " AND " } else { " WHERE " });
        text.push_str(&own);
    }
    Ok(InputText {
        relation: format!("{}.{}", relation.schema, relation.name).into(),
        sql: text.into(),
        parameters: chosen.into(),
        columns: columns.iter().map(|column| Transport::of(column)).collect(),
        uses: source.uses.clone().into(),
        order,
    })
}

/// ORDER BY of the first rows, as the shards get it; none if it cannot stand there.
fn order_text(
    sql: &str,
    tokens: &[Token],
    source: &Gathered,
    first: &FirstRows,
) -> Option<Box<str>> {
    let text = |by: &FirstBy| match by {
        FirstBy::Column(name) => Some(name.clone()),
        FirstBy::Expression(expr) => {
            let range = text_range(sql, tokens, expr).filter(|_| !source.renamed)?;
            let tokens = &tokens[range];
            // Where the rows come from, the table has another name than behind its schema.
            let qualified =
                |three: &[Token]| three[0].is_symbol(sql, ".") && three[2].is_symbol(sql, ".");
            let plain = parameters(sql, tokens).is_empty() && !tokens.windows(3).any(qualified);
            let (first, last) = (tokens.first()?, tokens.last()?);
            plain.then(|| format!("({})", &sql[first.start..last.end]))
        }
    };
    let mut list = String::new();
    for (by, direction) in &first.order {
        let comma = if list.is_empty() { "" } else { ", " };
        let _ = write!(list, "{comma}{} {direction}", text(by)?);
    }
    Some(list.into())
}

/// Tokens that say what `expr` is, wherever in the text: those that its printed form has.
fn text_range(sql: &str, tokens: &[Token], expr: &ast::Expr) -> Option<Range<usize>> {
    let printed = expr.to_string();
    let limits = LexLimits {
        tokens_max: tokens.len(),
        depth_max: usize::MAX,
    };
    let wanted = lex::lex(&printed, &limits).ok()?;
    if wanted.is_empty() || wanted.len() > tokens.len() {
        return None;
    }
    let same = |token: &Token, other: &Token| {
        let (text, printed) = (token.text(sql), other.text(&printed));
        token.kind == other.kind
            && (text == printed
                || (token.kind == TokenKind::Word && text.eq_ignore_ascii_case(printed)))
    };
    let mut places = tokens
        .windows(wanted.len())
        .enumerate()
        .filter(|(_, window)| window.iter().zip(&wanted).all(|(a, b)| same(a, b)));
    let (start, _) = places.next()?;
    Some(start..start + wanted.len())
}

/// The bytes of a table's name, schema included.
pub(super) fn name_range(sql: &str, tokens: &[Token], source: &Gathered) -> Option<Range<usize>> {
    let start = parse::byte(sql, source.place)?;
    let first = tokens.iter().position(|token| token.start == start)?;
    let mut last = first;
    while tokens
        .get(last + 1)
        .is_some_and(|token| token.is_symbol(sql, "."))
    {
        last += 2;
    }
    let own = tokens.get(last).filter(|token| token.is_identifier())?;
    let after = tokens.get(last + 1);
    // `table *` asks for its children, as every table does.
    let starred = after.is_some_and(|token| token.is_symbol(sql, "*"));
    (name_of(own, sql) == *source.relation.name && !starred).then_some(start..own.end)
}

/// Where the command `TABLE name` begins whose name does: what stands there instead may have an alias.
fn table_command(sql: &str, tokens: &[Token], name: usize) -> Option<usize> {
    let before = tokens.iter().take_while(|token| token.start < name).last();
    before
        .filter(|token| token.is(sql, "table"))
        .map(|token| token.start)
}

/// Gathered rows as a row source whose rows are of the table's own type, as those of the table are.
fn rows_of(source: &Gathered, name: &str, columns: &[&Column]) -> Result<String, PlanError> {
    if !source.grouped.is_empty() {
        return Err(refused("GROUP BY a table's key, and its row"));
    }
    Ok(format!(
        "pg_catalog.unnest(ARRAY(SELECT ROW({}) :: {}.{} FROM {name}))",
        names(columns),
        quote_identifier(&source.relation.schema),
        quote_identifier(&source.relation.name),
    ))
}

/// The bytes of the schema, with its period, in front of a name.
fn qualifier(sql: &str, tokens: &[Token], place: Place) -> Result<Range<usize>, PlanError> {
    let unclear = || refused("a name with a schema");
    let start = parse::byte(sql, place).ok_or_else(unclear)?;
    let first = tokens.iter().position(|token| token.start == start);
    match first.and_then(|first| tokens.get(first..first + 3)) {
        Some([schema, period, name]) if schema.is_identifier() && period.is_symbol(sql, ".") => {
            Ok(start..name.start)
        }
        _ => Err(unclear()),
    }
}

/// Adds `with` in front of a query.
fn before_query(sql: &str, tokens: &[Token], edits: &mut Edits, with: &str) {
    match tokens {
        [first, second, ..] if first.is(sql, "with") => {
            let after = if second.is(sql, "recursive") {
                second
            } else {
                first
            };
            edits.push((after.end..after.end, format!(" {with},")));
        }
        [first, ..] => edits.push((first.start..first.start, format!("WITH {with} "))),
        [] => {}
    }
}

/// The text with its edits, which are sorted.
fn spliced(sql: &str, tokens: &[Token], edits: &mut Edits) -> String {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let end = tokens.last().map_or(0, |token| token.end);
    let added: usize = edits.iter().map(|(_, splice)| splice.len()).sum();
    let mut text = String::with_capacity(end + added);
    let mut at = 0;
    for (range, splice) in edits {
        text.push_str(&sql[at..range.start]);
        text.push_str(splice);
        at = range.end;
    }
    text.push_str(&sql[at..end]);
    text
}

const UNPROVEN: &str = "the rewritten text does not parse as it should";

/// Proves that `text` has the tokens of `sql` but for its edits.
fn prove(
    text: &str,
    tokens: &[Token],
    sql: &str,
    edits: &[(Range<usize>, String)],
    limits: &LexLimits,
) -> Result<(), PlanError> {
    let found = parse::tokens(text, limits)?;
    let mut expected: Vec<&str> = Vec::with_capacity(found.len());
    let mut pieces: Vec<Vec<Token>> = Vec::with_capacity(edits.len());
    for (_, splice) in edits {
        pieces.push(lex::lex(splice, limits)?);
    }
    let mut kept = tokens.iter().peekable();
    for ((range, splice), piece) in edits.iter().zip(&pieces) {
        while let Some(token) = kept.next_if(|token| token.start < range.start) {
            expected.push(token.text(sql));
        }
        while kept.next_if(|token| token.start < range.end).is_some() {}
        expected.extend(piece.iter().map(|token| token.text(splice)));
    }
    expected.extend(kept.map(|token| token.text(sql)));
    let found = found.iter().map(|token| token.text(text));
    match found.eq(expected.iter().copied()) {
        true => Ok(()),
        false => Err(refused(UNPROVEN)),
    }
}

/// The columns' names, as a list.
fn names(columns: &[&Column]) -> String {
    let names = columns.iter().map(|column| quote_identifier(&column.name));
    names.collect::<Vec<_>>().join(", ")
}

fn name_of(token: &Token, sql: &str) -> String {
    lex::identifier_value(token.text(sql))
        .map(|name| name.into_owned())
        .unwrap_or_default()
}

/// The parameter that a token is, from zero.
fn parameter(sql: &str, token: &Token) -> Option<u16> {
    let number = token.text(sql).strip_prefix('$')?;
    number.parse::<u16>().ok()?.checked_sub(1)
}

/// All parameters of tokens, as often as they stand there.
fn parameters(sql: &str, tokens: &[Token]) -> Vec<u16> {
    tokens
        .iter()
        .filter(|token| token.kind == TokenKind::Parameter)
        .filter_map(|token| parameter(sql, token))
        .collect()
}

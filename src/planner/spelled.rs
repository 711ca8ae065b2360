//! Writes that leave to each shard what all must have alike: columns that are left to the time, to a sequence or to a
//! random UUID, and calls for the time or a UUID. [`spelling`] finds these in a statement's text and what has to be asked
//! for; [`Spelling::text`] is the statement with the values written out, which is then planned as any other is.
//!
//! Columns are added and DEFAULTs replaced at tokens, and proven as all splices are: without what was added, the tree is
//! the client's.

use super::added;
use super::clock::{self, TimeCall};
use super::refusal::{PlanError, Refusal};
use super::rewrite::outermost;
use super::template::Context;
use super::write;
use crate::sql::lex::{self, LexLimits, Token, TokenKind, quote_identifier};
use crate::sql::parse::{self, ast};
use crate::topology::schema::{Column, ColumnDefault, Placement, Relation, RelationKind};
use ast::{Expr, SetExpr, Statement};
use std::sync::Arc;

/// What stands for each added value in the text that is proven; every other value in its place is as good.
const PROOF: &str = "4294967291";

/// What stands for values while nothing has been asked for.
const SAMPLE_TIME: &str = "2000-01-01 00:00:00+00";
const SAMPLE_UUID: &str = "00000000-0000-4000-8000-000000000000";

/// Functions that make a UUID of chance, in pg_catalog and in the extension `uuid-ossp`.
const UUIDS: [&str; 2] = ["gen_random_uuid", "uuid_generate_v4"];

/// Types, by OID, that take a UUID as its text: uuid, text, varchar.
pub(super) const TAKE_UUID_TEXT: [u32; 3] = [2950, 25, 1043];

/// A statement's text with gaps for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spelling {
    sql: Arc<str>,
    edits: Vec<Edit>,
    /// Whether it needs the time.
    pub time: bool,
    /// The sequences that it needs values of.
    pub sequences: Vec<Drawn>,
    /// How many UUIDs it needs.
    pub uuids: usize,
}

/// Values that a statement needs of a column's sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The table's schema.
    pub schema: Arc<str>,
    /// The table.
    pub table: Arc<str>,
    /// The column.
    pub column: Arc<str>,
    /// How many.
    pub count: usize,
}

/// What fills the gaps.
#[derive(Debug, Clone, Default)]
pub struct SpelledValues {
    /// The time, in a form that no setting changes.
    pub time: Arc<str>,
    /// Of each of [`Spelling::sequences`] as many as it needs.
    pub numbers: Vec<Vec<i64>>,
    /// In text form.
    pub uuids: Vec<String>,
}

/// A part of the text that is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    start: usize,
    end: usize,
    with: Vec<Piece>,
    /// What stands there in the text that is proven; None: the client's own.
    proof: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Time,
    Number { sequence: usize, index: usize },
    Uuid(usize),
}

/// Whether what a refusal is about may be spelled out.
pub(super) fn may_help(error: &PlanError) -> bool {
    let PlanError::Refused { refusal, .. } = error else {
        return false;
    };
    matches!(
        refusal,
        Refusal::DefaultDiffers
            | Refusal::VolatileFunction
            | Refusal::ReferenceWriteDiffers
            | Refusal::SequenceDefault
            | Refusal::MissingKey
            | Refusal::KeyValue
            | Refusal::InsertSelect
            | Refusal::ReferenceWriteReads
    )
}

/// What of a statement can be spelled out. None: nothing, or not all of it.
pub fn spelling(sql: &str, context: &Context<'_>) -> Option<Spelling> {
    let tokens = parse::tokens(sql, context.limits).ok()?;
    let depth = parse::depth(sql, &tokens);
    parse::on_stack_for(depth, || {
        let parsed = parse::parse(sql, tokens).ok()?;
        spelling_of(sql, &parsed, context)
    })
}

/// As [`spelling`], of a statement that is parsed already.
pub(super) fn spelling_of(
    sql: &str,
    parsed: &parse::Parsed,
    context: &Context<'_>,
) -> Option<Spelling> {
    if context.hint.is_some() {
        return None;
    }
    // Names that PostgreSQL printed for its own functions must mean them.
    let mut path = context.search_path.iter().skip(1);
    if path.any(|schema| **schema == *"pg_catalog") {
        return None;
    }
    let mut finder = Finder::new(sql, &parsed.tokens, context);
    match &parsed.statement {
        Statement::Update(update) => finder.update(update)?,
        Statement::Insert(insert) => finder.insert(insert)?,
        Statement::Query(query) => match &*query.body {
            SetExpr::Insert(Statement::Insert(insert)) => finder.insert(insert)?,
            SetExpr::Update(Statement::Update(update)) => finder.update(update)?,
            _ => {}
        },
        _ => {}
    }
    finder.times()?;
    let Finder {
        mut edits,
        sequences,
        time,
        uuids,
        ..
    } = finder;
    if edits.is_empty() {
        return None;
    }
    edits.sort_by_key(|edit| (edit.start, edit.end));
    let overlap = edits.windows(2).any(|pair| pair[0].end > pair[1].start);
    let spelling = Spelling {
        sql: sql.into(),
        edits,
        time,
        sequences,
        uuids,
    };
    (!overlap && spelling.is_proven(&parsed.statement, context.limits)).then_some(spelling)
}

impl Spelling {
    /// The statement with these values.
    pub fn text(&self, values: &SpelledValues) -> Option<String> {
        let mut text = String::with_capacity(self.sql.len() + 64 * self.edits.len());
        let mut at = 0;
        for edit in &self.edits {
            text.push_str(&self.sql[at..edit.start]);
            for piece in &edit.with {
                match piece {
                    Piece::Text(piece) => text.push_str(piece),
                    Piece::Time => text.push_str(&values.time),
                    Piece::Number { sequence, index } => {
                        text.push_str(&values.numbers.get(*sequence)?.get(*index)?.to_string());
                    }
                    Piece::Uuid(index) => text.push_str(values.uuids.get(*index)?),
                }
            }
            at = edit.end;
        }
        text.push_str(&self.sql[at..]);
        Some(text)
    }

    /// Values for a text that shows what the statement comes to, and no more.
    pub fn sample(&self) -> SpelledValues {
        let numbers = self.sequences.iter();
        SpelledValues {
            time: SAMPLE_TIME.into(),
            numbers: numbers.map(|drawn| vec![1; drawn.count]).collect(),
            uuids: vec![SAMPLE_UUID.to_owned(); self.uuids],
        }
    }

    /// Whether the text without what was added has the tree of `statement`.
    fn is_proven(&self, statement: &Statement, limits: &LexLimits) -> bool {
        let mut text = String::new();
        let mut at = 0;
        let mut edited = false;
        for edit in &self.edits {
            if let Some(proof) = &edit.proof {
                text.push_str(&self.sql[at..edit.start]);
                text.push_str(proof);
                at = edit.end;
                edited = true;
            }
        }
        if !edited {
            return true;
        }
        text.push_str(&self.sql[at..]);
        let parsed = parse::tokens(&text, limits).map(|tokens| parse::parse(&text, tokens));
        let Ok(Ok(mut parsed)) = parsed else {
            return false;
        };
        let done = match (
            insert_of_mut(&mut parsed.statement),
            parse_insert(statement),
        ) {
            (Some(rewritten), Some(original)) => without_added(rewritten, original),
            (None, None) => update_of_mut(&mut parsed.statement)
                .zip(update_of(statement))
                .map(|(rewritten, original)| {
                    without_replaced(&mut rewritten.assignments, &original.assignments)
                }),
            _ => None,
        };
        done.is_some() && parsed.statement == *statement
    }
}

fn is_proof(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value)
        if matches!(&value.value, ast::Value::Number(text, false) if text == PROOF))
}

/// Puts back what stood in the places of proof values.
fn without_replaced(rewritten: &mut [ast::Assignment], original: &[ast::Assignment]) {
    for (rewritten, original) in rewritten.iter_mut().zip(original) {
        if is_proof(&rewritten.value) {
            rewritten.value = original.value.clone();
        }
    }
}

/// Takes the added columns away, and puts back what was replaced.
fn without_added(rewritten: &mut ast::Insert, original: &ast::Insert) -> Option<()> {
    rewritten.overriding = original.overriding;
    if original.columns.is_empty() {
        rewritten.columns.clear();
    }
    rewritten.columns.truncate(original.columns.len());
    match (&mut rewritten.source, &original.source) {
        (source @ Some(_), None) => {
            let Some(SetExpr::Values(values)) = source.as_deref().map(|query| &*query.body) else {
                return None;
            };
            let [row] = values.rows.as_slice() else {
                return None;
            };
            if !row.content.iter().all(is_proof) {
                return None;
            }
            *source = None;
        }
        (Some(rewritten), Some(original)) => {
            without_added_values(&mut rewritten.body, &original.body)?;
        }
        _ => return None,
    }
    if let (
        Some(ast::OnInsert::OnConflict(ast::OnConflict {
            action: ast::OnConflictAction::DoUpdate(rewritten),
            ..
        })),
        Some(ast::OnInsert::OnConflict(ast::OnConflict {
            action: ast::OnConflictAction::DoUpdate(original),
            ..
        })),
    ) = (&mut rewritten.on, &original.on)
    {
        without_replaced(&mut rewritten.assignments, &original.assignments);
    }
    Some(())
}

fn without_added_values(rewritten: &mut SetExpr, original: &SetExpr) -> Option<()> {
    match (rewritten, original) {
        (SetExpr::Values(rewritten), SetExpr::Values(original)) => {
            for (rewritten, original) in rewritten.rows.iter_mut().zip(&original.rows) {
                let width = original.content.len();
                let added = rewritten.content.get(width..)?;
                if !added.iter().all(is_proof) {
                    return None;
                }
                rewritten.content.truncate(width);
                for (rewritten, original) in rewritten.content.iter_mut().zip(&original.content) {
                    if is_proof(rewritten) {
                        *rewritten = original.clone();
                    }
                }
            }
            Some(())
        }
        (SetExpr::Select(rewritten), SetExpr::Select(original)) => {
            let width = original.projection.len();
            let mut added = rewritten.projection.get(width..)?.iter();
            let are_proofs = added
                .all(|item| matches!(item, ast::SelectItem::UnnamedExpr(expr) if is_proof(expr)));
            rewritten.projection.truncate(width);
            are_proofs.then_some(())
        }
        (
            SetExpr::SetOperation { left, right, .. },
            SetExpr::SetOperation {
                left: original_left,
                right: original_right,
                ..
            },
        ) => {
            without_added_values(left, original_left)?;
            without_added_values(right, original_right)
        }
        _ => None,
    }
}

fn insert_of_mut(statement: &mut Statement) -> Option<&mut ast::Insert> {
    match statement {
        Statement::Insert(insert) => Some(insert),
        Statement::Query(query) => match &mut *query.body {
            SetExpr::Insert(Statement::Insert(insert)) => Some(insert),
            _ => None,
        },
        _ => None,
    }
}

fn parse_insert(statement: &Statement) -> Option<&ast::Insert> {
    match statement {
        Statement::Insert(insert) => Some(insert),
        Statement::Query(query) => match &*query.body {
            SetExpr::Insert(Statement::Insert(insert)) => Some(insert),
            _ => None,
        },
        _ => None,
    }
}

fn update_of_mut(statement: &mut Statement) -> Option<&mut ast::Update> {
    match statement {
        Statement::Update(update) => Some(update),
        Statement::Query(query) => match &mut *query.body {
            SetExpr::Update(Statement::Update(update)) => Some(update),
            _ => None,
        },
        _ => None,
    }
}

fn update_of(statement: &Statement) -> Option<&ast::Update> {
    match statement {
        Statement::Update(update) => Some(update),
        Statement::Query(query) => match &*query.body {
            SetExpr::Update(Statement::Update(update)) => Some(update),
            _ => None,
        },
        _ => None,
    }
}

/// How many columns a query has, as far as its text tells.
fn width(body: &SetExpr) -> Option<usize> {
    match body {
        SetExpr::Select(select) => {
            let named = select.projection.iter().all(|item| {
                matches!(
                    item,
                    ast::SelectItem::UnnamedExpr(_) | ast::SelectItem::ExprWithAlias { .. }
                )
            });
            named.then_some(select.projection.len())
        }
        SetExpr::SetOperation { left, right, .. } => width(left).or_else(|| width(right)),
        _ => None,
    }
}

/// One row of a VALUES list, by tokens.
struct Row {
    open: usize,
    close: usize,
    /// The first and the last token of each value.
    values: Vec<(usize, usize)>,
}

pub(super) struct Finder<'a> {
    sql: &'a str,
    tokens: &'a [Token],
    context: &'a Context<'a>,
    edits: Vec<Edit>,
    sequences: Vec<Drawn>,
    time: bool,
    uuids: usize,
    /// The tokens of the list of results whose columns' names nobody sees: that of an INSERT's query.
    results: Option<(usize, usize)>,
}

impl<'a> Finder<'a> {
    /// Of a statement of these tokens.
    pub(super) fn new(sql: &'a str, tokens: &'a [Token], context: &'a Context<'a>) -> Self {
        Self {
            sql,
            tokens,
            context,
            edits: Vec::new(),
            sequences: Vec::new(),
            time: false,
            uuids: 0,
            results: None,
        }
    }

    fn is(&self, at: usize, word: &str) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|token| token.is(self.sql, word))
    }

    fn is_symbol(&self, at: usize, symbol: &str) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|token| token.is_symbol(self.sql, symbol))
    }

    pub(super) fn table(&self, name: &ast::ObjectName) -> Option<&'a Relation> {
        let parts = super::analysis::object_name(name).ok()?;
        let (schema, name) = match parts.as_slice() {
            [name] => (None, name),
            [schema, name] | [_, schema, name] => (Some(schema.as_str()), name),
            _ => return None,
        };
        let schemas = &self.context.topology.schema;
        let relation = schemas.relation(schema, name, self.context.search_path)?;
        // What a view's columns are left to is that of tables behind it; a table with rules or such is not written anyway.
        let is_placed = matches!(
            relation.placement,
            Placement::Sharded { .. } | Placement::Reference
        );
        (relation.kind == RelationKind::Table && is_placed).then_some(&**relation)
    }

    /// Whether a column that is left to its default is to be spelled out.
    pub(super) fn is_spelled(&self, relation: &Relation, index: usize) -> bool {
        let column = &relation.columns[index];
        let is_key = matches!(relation.placement, Placement::Sharded { key, .. } if key == index);
        let reference = relation.placement == Placement::Reference;
        let (topology, path) = (self.context.topology, self.context.search_path);
        match &column.default {
            ColumnDefault::Null | ColumnDefault::Generated => false,
            ColumnDefault::Sequence => true,
            ColumnDefault::Expression(_) if is_key => true,
            ColumnDefault::Expression(_) => {
                write::default_obstacle(relation, column, reference, topology, path).is_some()
            }
        }
    }

    fn drawn(&mut self, relation: &Relation, column: &Column) -> Piece {
        let known = self
            .sequences
            .iter()
            .position(|drawn| *drawn.column == *column.name);
        let sequence = known.unwrap_or_else(|| {
            self.sequences.push(Drawn {
                schema: relation.schema.clone(),
                table: relation.name.clone(),
                column: column.name.clone(),
                count: 0,
            });
            self.sequences.len() - 1
        });
        let drawn = &mut self.sequences[sequence];
        drawn.count += 1;
        Piece::Number {
            sequence,
            index: drawn.count - 1,
        }
    }

    fn uuid(&mut self, type_oid: Option<u32>) -> Vec<Piece> {
        let piece = Piece::Uuid(self.uuids);
        self.uuids += 1;
        let cast = match type_oid {
            Some(oid) if TAKE_UUID_TEXT.contains(&oid) => "'",
            _ => "'::uuid",
        };
        vec![
            Piece::Text("'".to_owned()),
            piece,
            Piece::Text(cast.to_owned()),
        ]
    }

    /// The value of a column that is left to its default, for one row.
    pub(super) fn default(
        &mut self,
        relation: &Relation,
        column: &Column,
        once: bool,
    ) -> Option<Vec<Piece>> {
        let text = match &column.default {
            ColumnDefault::Null | ColumnDefault::Generated => return None,
            ColumnDefault::Sequence if once => return Some(vec![self.drawn(relation, column)]),
            ColumnDefault::Sequence => return None,
            ColumnDefault::Expression(text) => text,
        };
        let tokens = lex::lex(text, &super::catalog_text::LIMITS).ok()?;
        if let Some((0, end)) = uuid_call(text, &tokens, last_name(text, &tokens))
            && end + 1 == tokens.len()
        {
            return once.then(|| self.uuid(Some(column.type_oid)));
        }
        if !self.means_the_same(text, &tokens) {
            return None;
        }
        let calls = clock::time_calls(text, &tokens, None)?;
        let is_key = matches!(relation.placement, Placement::Sharded { key, .. }
            if relation.columns[key].name == column.name);
        if calls.is_empty() && !is_key {
            return None;
        }
        let mut pieces = vec![Piece::Text("(".to_owned())];
        let mut at = 0;
        for call in calls {
            pieces.push(Piece::Text(text[at..call.start].to_owned()));
            pieces.extend(self.told(&call));
            at = call.end;
        }
        pieces.push(Piece::Text(format!("{})", &text[at..])));
        Some(pieces)
    }

    /// Whether the names of a text that PostgreSQL printed mean the same in the session: those without a schema are its own.
    fn means_the_same(&self, text: &str, tokens: &[Token]) -> bool {
        let schema = &self.context.topology.schema;
        let own_functions = |name: &str| {
            let mut functions = schema.user_functions.values();
            functions.any(|functions| functions.contains_key(name))
        };
        let own_operators = |symbol: &str| {
            let mut operators = schema.operators.values();
            operators.any(|operators| operators.contains_key(symbol))
        };
        tokens.iter().enumerate().all(|(at, token)| {
            let qualified = at > 0 && tokens[at - 1].is_symbol(text, ".");
            if token.is_identifier() && !qualified {
                let name = lex::identifier_value(token.text(text));
                name.is_ok_and(|name| !own_functions(&name))
            } else if token.kind == TokenKind::Operator {
                !own_operators(token.text(text))
            } else {
                true
            }
        })
    }

    fn told(&mut self, call: &TimeCall) -> [Piece; 3] {
        self.time = true;
        [
            Piece::Text("'".to_owned()),
            Piece::Time,
            Piece::Text(format!("'::timestamptz{}", call.cast)),
        ]
    }

    /// SET column = DEFAULT, outside parentheses, from token `from` on.
    fn assigned_defaults(&mut self, relation: &Relation, from: usize) -> Option<()> {
        let outer = outermost(self.sql, self.tokens);
        for at in outer.into_iter().filter(|at| *at >= from.max(2)) {
            if !self.is(at, "default") || !self.is_symbol(at - 1, "=") {
                continue;
            }
            let name = &self.tokens[at - 2];
            let name = lex::identifier_value(name.text(self.sql)).ok()?;
            let index = relation.column(&name)?;
            if !self.is_spelled(relation, index) {
                continue;
            }
            let with = self.default(relation, &relation.columns[index], false)?;
            self.edits.push(Edit {
                start: self.tokens[at].start,
                end: self.tokens[at].end,
                with,
                proof: Some(PROOF.to_owned()),
            });
        }
        Some(())
    }

    fn update(&mut self, update: &ast::Update) -> Option<()> {
        let ast::TableFactor::Table { name, .. } = &update.table.relation else {
            return Some(());
        };
        match self.table(name) {
            Some(relation) => self.assigned_defaults(relation, 0),
            None => Some(()),
        }
    }

    fn insert(&mut self, insert: &ast::Insert) -> Option<()> {
        let ast::TableObject::TableName(name) = &insert.table else {
            return None;
        };
        let outer = outermost(self.sql, self.tokens);
        let start = outer
            .iter()
            .position(|at| self.is(*at, "insert") && self.is(*at + 1, "into"))?;
        // Behind the table's name and alias.
        let mut at = outer[start] + 3;
        while self.is_symbol(at, ".") {
            at += 2;
        }
        if self.is(at, "as") {
            at += 2;
        }
        let listed = !insert.columns.is_empty();
        let place = outer.iter().position(|other| *other == at)?;
        // The bracket that closes the list of columns, or what stands where the list would.
        let head = match listed {
            true => *outer.get(place + 1)?,
            false => at,
        };
        let behind = outer.iter().position(|other| *other == head)?;
        let rest = &outer[behind..];
        let (sql, tokens) = (self.sql, self.tokens);
        let find = |word: &str| rest.iter().copied().find(|at| tokens[*at].is(sql, word));
        let Some(relation) = self.table(name) else {
            return Some(());
        };
        match insert.source.as_deref() {
            None => {
                let default = find("default")?;
                if !self.is(default + 1, "values") || listed {
                    return None;
                }
                self.values_of_defaults(relation, default)?;
            }
            Some(query) => match &*query.body {
                SetExpr::Values(values)
                    if query.with.is_none()
                        && query.order_by.is_none()
                        && query.limit_clause.is_none()
                        && query.fetch.is_none() =>
                {
                    let first = find("values")? + 1;
                    let rows = self.rows(first, values)?;
                    self.row_values(insert, relation, head, &rows)?;
                }
                body => {
                    let columns = self.omitted(insert, relation, width(body))?;
                    let first = find("select")?;
                    self.selected(insert, relation, head, first, rest, columns)?;
                }
            },
        }
        if let Some(conflict) = find("conflict") {
            self.assigned_defaults(relation, conflict)?;
        }
        Some(())
    }

    /// The columns, by index, that an INSERT of rows this wide leaves out and that are to be spelled out.
    pub(super) fn omitted(
        &self,
        insert: &ast::Insert,
        relation: &Relation,
        width: Option<usize>,
    ) -> Option<Vec<usize>> {
        let mut given = Vec::new();
        for column in &insert.columns {
            let name = super::analysis::object_name(column).ok()?;
            given.push(relation.column(name.first()?)?);
        }
        if given.is_empty() {
            match width {
                Some(width) if width <= relation.columns.len() => given.extend(0..width),
                Some(_) => return None,
                // All of them, so far as is known.
                None => return Some(Vec::new()),
            }
        }
        let all = 0..relation.columns.len();
        let left = all.filter(|index| !given.contains(index) && self.is_spelled(relation, *index));
        Some(left.collect())
    }

    /// Adds columns to the list, or makes one of what is given; `head` as in [`Self::insert`].
    fn add_columns(
        &mut self,
        insert: &ast::Insert,
        relation: &Relation,
        head: usize,
        width: usize,
        added: &[usize],
        overriding: bool,
    ) {
        let listed = !insert.columns.is_empty();
        let names = |columns: &mut dyn Iterator<Item = usize>| {
            let names = columns.map(|index| quote_identifier(&relation.columns[index].name));
            names.collect::<Vec<_>>().join(", ")
        };
        let overriding = if overriding {
            " OVERRIDING SYSTEM VALUE "
        } else {
            " "
        };
        let (at, list) = match listed {
            true => {
                let list = names(&mut added.iter().copied());
                let comma = if added.is_empty() { "" } else { ", " };
                (self.tokens[head].start, format!("{comma}{list})"))
            }
            false => {
                let list = names(&mut (0..width).chain(added.iter().copied()));
                (self.tokens[head].start, format!("({list})"))
            }
        };
        let end = if listed { self.tokens[head].end } else { at };
        let text = format!("{list}{overriding}");
        self.edits.push(Edit {
            start: at,
            end,
            with: vec![Piece::Text(text.clone())],
            proof: Some(text),
        });
    }

    /// The rows of a VALUES list whose first bracket is at `first`.
    fn rows(&self, first: usize, values: &ast::Values) -> Option<Vec<Row>> {
        let mut rows = Vec::with_capacity(values.rows.len());
        let mut at = first;
        for row in &values.rows {
            if !self.is_symbol(at, "(") {
                return None;
            }
            let (open, mut depth) = (at, 0_usize);
            let mut parts = Vec::new();
            let mut start = at + 1;
            loop {
                let token = self.tokens.get(at)?;
                let is = |symbol| token.is_symbol(self.sql, symbol);
                if is("(") || is("[") {
                    depth += 1;
                } else if is(")") || is("]") {
                    depth -= 1;
                }
                let ends = depth == 0;
                if ends || (depth == 1 && is(",")) {
                    parts.push((start, at.checked_sub(1)?));
                    start = at + 1;
                }
                if ends {
                    break;
                }
                at += 1;
            }
            if parts.len() != row.content.len() || parts.iter().any(|(first, last)| first > last) {
                return None;
            }
            rows.push(Row {
                open,
                close: at,
                values: parts,
            });
            at += 2;
        }
        Some(rows)
    }

    fn row_values(
        &mut self,
        insert: &ast::Insert,
        relation: &Relation,
        head: usize,
        rows: &[Row],
    ) -> Option<()> {
        let width = rows.first()?.values.len();
        if rows.iter().any(|row| row.values.len() != width) {
            return None;
        }
        let added = self.omitted(insert, relation, Some(width))?;
        let listed: Vec<Option<usize>> = match insert.columns.is_empty() {
            true => (0..width).map(Some).collect(),
            false => {
                let names = insert.columns.iter();
                let names = names.map(|name| super::analysis::object_name(name).ok());
                names
                    .map(|name| {
                        name.filter(|name| name.len() == 1)
                            .and_then(|name| relation.column(&name[0]))
                    })
                    .collect()
            }
        };
        let (key, reference) = match relation.placement {
            Placement::Sharded { key, .. } => (Some(key), false),
            _ => (None, true),
        };
        let mut overriding = added
            .iter()
            .any(|index| relation.columns[*index].default == ColumnDefault::Sequence);
        for row in rows {
            for (place, (first, last)) in row.values.iter().enumerate() {
                let Some(index) = listed.get(place).copied().flatten() else {
                    continue;
                };
                let column = &relation.columns[index];
                let with = if first == last && self.is(*first, "default") {
                    if !self.is_spelled(relation, index) {
                        continue;
                    }
                    if column.default == ColumnDefault::Sequence {
                        // Of an identity column PostgreSQL takes no other value then.
                        let given = rows
                            .iter()
                            .any(|row| !self.is(row.values[place].0, "default"));
                        if given {
                            return None;
                        }
                        overriding = true;
                    }
                    self.default(relation, column, true)?
                } else {
                    if reference || key == Some(index) {
                        self.uuid_calls(*first, *last, column)?;
                    }
                    continue;
                };
                self.edits.push(Edit {
                    start: self.tokens[*first].start,
                    end: self.tokens[*first].end,
                    with,
                    proof: Some(PROOF.to_owned()),
                });
            }
            if !added.is_empty() {
                let mut with = Vec::new();
                let mut proof = String::new();
                for index in &added {
                    with.push(Piece::Text(", ".to_owned()));
                    with.extend(self.default(relation, &relation.columns[*index], true)?);
                    proof.push_str(", ");
                    proof.push_str(PROOF);
                }
                let close = self.tokens[row.close].start;
                debug_assert!(row.open < row.close);
                self.edits.push(Edit {
                    start: close,
                    end: close,
                    with,
                    proof: Some(proof),
                });
            }
        }
        if overriding {
            // With it PostgreSQL would take a value for an identity column that is given.
            let sequences = relation.columns.iter().enumerate();
            let mut sequences =
                sequences.filter(|(_, column)| column.default == ColumnDefault::Sequence);
            let drawn = &self.sequences;
            let all = sequences.all(|(_, column)| {
                let mut drawn = drawn.iter();
                drawn.any(|drawn| *drawn.column == *column.name && drawn.count == rows.len())
            });
            if !all || insert.overriding.is_some() {
                return None;
            }
        }
        if overriding || !added.is_empty() {
            self.add_columns(insert, relation, head, width, &added, overriding);
        }
        Some(())
    }

    /// Calls that make a UUID in a value of a row, each of which is evaluated once at most.
    fn uuid_calls(&mut self, first: usize, last: usize, column: &Column) -> Option<()> {
        let mut at = first;
        while at <= last {
            if self.is(at, "select") {
                return Some(());
            }
            let Some((start, end)) = uuid_call(self.sql, self.tokens, at) else {
                at += 1;
                continue;
            };
            let whole = start == first && end == last;
            let with = self.uuid(whole.then_some(column.type_oid));
            self.edits.push(Edit {
                start: self.tokens[start].start,
                end: self.tokens[end].end,
                with,
                proof: None,
            });
            at = end + 1;
        }
        Some(())
    }

    /// DEFAULT VALUES, which begins at `default`.
    fn values_of_defaults(&mut self, relation: &Relation, default: usize) -> Option<()> {
        let all = 0..relation.columns.len();
        let added: Vec<usize> = all
            .filter(|index| self.is_spelled(relation, *index))
            .collect();
        if added.is_empty() {
            return Some(());
        }
        let names: Vec<String> = added
            .iter()
            .map(|index| quote_identifier(&relation.columns[*index].name))
            .collect();
        let sequence = |index: &usize| relation.columns[*index].default == ColumnDefault::Sequence;
        let overriding = match added.iter().any(sequence) {
            true => "OVERRIDING SYSTEM VALUE ",
            false => "",
        };
        let head = format!("({}) {overriding}VALUES (", names.join(", "));
        let mut with = vec![Piece::Text(head.clone())];
        for (place, index) in added.iter().enumerate() {
            if place > 0 {
                with.push(Piece::Text(", ".to_owned()));
            }
            with.extend(self.default(relation, &relation.columns[*index], true)?);
        }
        with.push(Piece::Text(")".to_owned()));
        let proofs = vec![PROOF; added.len()].join(", ");
        self.edits.push(Edit {
            start: self.tokens[default].start,
            end: self.tokens[default + 1].end,
            with,
            proof: Some(format!("{head}{proofs})")),
        });
        Some(())
    }

    /// An INSERT's query, whose SELECT is the token `first`; `rest` are tokens outside brackets.
    fn selected(
        &mut self,
        insert: &ast::Insert,
        relation: &Relation,
        head: usize,
        first: usize,
        rest: &[usize],
        added: Vec<usize>,
    ) -> Option<()> {
        const ENDS: [&str; 15] = [
            "from",
            "where",
            "group",
            "having",
            "window",
            "order",
            "limit",
            "offset",
            "fetch",
            "for",
            "union",
            "intersect",
            "except",
            "returning",
            "on",
        ];
        let ends = |at: usize| {
            let named =
                self.is(at - 1, "as") || self.is_symbol(at - 1, ".") || self.is(at - 1, "distinct");
            !named && ENDS.iter().any(|word| self.is(at, word))
        };
        let mut lists = Vec::new();
        let selects = rest.iter().copied().filter(|at| *at >= first);
        for select in selects.filter(|at| self.is(*at, "select")) {
            let end = rest.iter().copied().find(|at| *at > select && ends(*at));
            lists.push((select, end.unwrap_or(self.tokens.len())));
        }
        self.results = lists.first().copied();
        // What each row has of its own it is given when all rows are there.
        let mut added = added;
        added.retain(|index| added::row_value(relation, *index).is_none());
        if added.is_empty() {
            return Some(());
        }
        let mut proof = String::new();
        for _ in &added {
            proof.push_str(", ");
            proof.push_str(PROOF);
        }
        for (_, end) in lists {
            let at = self.tokens[end.checked_sub(1)?].end;
            let mut with = Vec::new();
            for index in &added {
                with.push(Piece::Text(", ".to_owned()));
                with.extend(self.default(relation, &relation.columns[*index], false)?);
            }
            with.push(Piece::Text(" ".to_owned()));
            self.edits.push(Edit {
                start: at,
                end: at,
                with,
                proof: Some(format!("{proof} ")),
            });
        }
        let width = width(&insert.source.as_deref()?.body).unwrap_or(0);
        self.add_columns(insert, relation, head, width, &added, false);
        Some(())
    }

    /// Calls for the time, anywhere.
    fn times(&mut self) -> Option<()> {
        let mut own = self.context.topology.schema.user_functions.values();
        // Which one is meant is not looked at.
        if own.any(|functions| {
            clock::BEGAN
                .iter()
                .any(|name| functions.contains_key(*name))
        }) {
            return Some(());
        }
        for call in clock::time_calls(self.sql, self.tokens, self.results)? {
            let with = self.told(&call).into();
            self.edits.push(Edit {
                start: call.start,
                end: call.end,
                with,
                proof: None,
            });
        }
        Some(())
    }
}

/// The place of the name that is called in a text such as `public.f()`.
pub(super) fn last_name(text: &str, tokens: &[Token]) -> usize {
    let qualified = tokens
        .get(1)
        .is_some_and(|token| token.is_symbol(text, "."));
    if qualified { 2 } else { 0 }
}

/// The call without arguments that makes a UUID and whose name is the token `at`: its first token and its last.
pub(super) fn uuid_call(sql: &str, tokens: &[Token], at: usize) -> Option<(usize, usize)> {
    let symbol = |at: usize, symbol: &str| {
        let token = tokens.get(at);
        token.is_some_and(|token| token.is_symbol(sql, symbol))
    };
    let name = tokens.get(at).filter(|token| token.is_identifier())?;
    let name = lex::identifier_value(name.text(sql)).ok()?;
    if !UUIDS.contains(&&*name) || !symbol(at + 1, "(") || !symbol(at + 2, ")") {
        return None;
    }
    let qualified = at > 1 && symbol(at - 1, ".");
    let start = if qualified { at - 2 } else { at };
    let twice = start > 0 && symbol(start - 1, ".");
    (!twice).then_some((start, at + 2))
}

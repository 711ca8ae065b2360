//! Columns that rows leave out and are given a value of before they are stored: the rows of COPY, and those of an INSERT's
//! query that are stored once they are there. See [`super::spelled`] for those that a statement's text has.

use super::plan::RowValue;
use super::spelled::{Finder, Piece, TAKE_UUID_TEXT, last_name, uuid_call};
use super::template::Context;
use crate::sql::copy::{CopySource, CopyStatement};
use crate::sql::lex::{self, quote_identifier};
use crate::sql::parse::ast;
use crate::sql::statement;
use crate::topology::schema::{ColumnDefault, Placement, Relation, RelationKind};
use std::sync::Arc;

/// The value of each row's own that a column is left to.
pub(super) fn row_value(relation: &Relation, index: usize) -> Option<RowValue> {
    let column = &relation.columns[index];
    match &column.default {
        ColumnDefault::Null | ColumnDefault::Generated => None,
        ColumnDefault::Sequence => Some(RowValue::Sequence {
            schema: relation.schema.clone(),
            table: relation.name.clone(),
            column: column.name.clone(),
        }),
        ColumnDefault::Expression(text) => {
            let tokens = lex::lex(text, &super::catalog_text::LIMITS).ok()?;
            let (_, end) = uuid_call(text, &tokens, last_name(text, &tokens))?;
            let takes_uuid = TAKE_UUID_TEXT.contains(&column.type_oid);
            (end + 1 == tokens.len() && takes_uuid).then_some(RowValue::Uuid)
        }
    }
}

/// The columns of an INSERT of a query's rows.
#[derive(Debug, Clone, Default)]
pub(super) struct RowColumns {
    /// The names of the first of the table's, as many as the query has.
    pub given: Vec<Arc<str>>,
    /// Those that are given a value of each row's own.
    pub added: Vec<(Arc<str>, RowValue)>,
}

/// The columns that an INSERT of a query's rows, `width` columns wide, leaves to values of each row's own.
pub(super) fn row_values(
    insert: &ast::Insert,
    width: usize,
    context: &Context<'_>,
) -> Option<RowColumns> {
    let finder = Finder::new("", &[], context);
    let ast::TableObject::TableName(name) = &insert.table else {
        return None;
    };
    let Some(relation) = finder.table(name) else {
        return Some(RowColumns::default());
    };
    let omitted = finder.omitted(insert, relation, Some(width))?;
    let mut added = Vec::new();
    for index in omitted {
        if let Some(value) = row_value(relation, index) {
            added.push((relation.columns[index].name.clone(), value));
        }
    }
    let sequences = relation.columns.iter();
    let sequences = sequences.filter(|column| column.default == ColumnDefault::Sequence);
    let is_drawn = |(_, value): &&(_, RowValue)| matches!(value, RowValue::Sequence { .. });
    let drawn = added.iter().filter(is_drawn).count();
    // With OVERRIDING PostgreSQL would take a value for an identity column that is given.
    let overrides = drawn > 0 && (insert.overriding.is_some() || sequences.count() != drawn);
    let given = relation.columns.iter().take(width);
    let given = given.map(|column| column.name.clone()).collect();
    (!overrides).then_some(RowColumns { given, added })
}

/// A COPY FROM with further columns, which its data do not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyAdded {
    /// The table's schema.
    pub schema: Arc<str>,
    /// The table.
    pub table: Arc<str>,
    /// The statement with these columns behind the others.
    pub sql: String,
    /// In this order.
    pub columns: Vec<AddedColumn>,
}

/// A column that each row is given a value of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedColumn {
    /// Its name.
    pub name: Arc<str>,
    /// Its type.
    pub type_oid: u32,
    /// What it is given.
    pub value: AddedValue,
}

/// What the rows of a COPY are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddedValue {
    /// All the same.
    Time(AddedTime),
    /// The next of its sequence.
    Sequence,
    /// A UUID of chance.
    Uuid,
}

/// An expression of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedTime {
    pieces: Vec<Piece>,
    type_oid: u32,
    type_name: Arc<str>,
}

impl AddedTime {
    /// A query of its value for this time: as text that every setting reads alike, or what is sent for it in binary, in
    /// hexadecimal digits.
    pub fn query(&self, time: &str, binary: bool) -> Option<String> {
        let mut told = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => told.push_str(text),
                Piece::Time => told.push_str(time),
                Piece::Number { .. } | Piece::Uuid(_) => return None,
            }
        }
        let value = format!("CAST({told} AS {})", self.type_name);
        if !binary {
            return Some(format!(
                "SELECT pg_catalog.to_json({value}) OPERATOR(pg_catalog.#>>) '{{}}'"
            ));
        }
        let send = match self.type_oid {
            1082 => "date_send",
            1083 => "time_send",
            1114 => "timestamp_send",
            1184 => "timestamptz_send",
            1266 => "timetz_send",
            _ => return None,
        };
        Some(format!(
            "SELECT pg_catalog.encode(pg_catalog.{send}({value}), 'hex')"
        ))
    }
}

/// The types, by OID, of columns that a COPY's rows may be given a time in: dates and times, and text.
const TAKE_TIME: [u32; 6] = [1082, 1083, 1114, 1184, 1266, 25];

/// A COPY FROM whose data leave out columns that are to be spelled out. None: there are none, or not all can be.
pub fn copy_added(copy: &CopyStatement<'_>, sql: &str, context: &Context<'_>) -> Option<CopyAdded> {
    let CopySource::Table { name, columns } = &copy.source else {
        return None;
    };
    let path = context.search_path;
    let mut late = path.iter().skip(1);
    if copy.options.default.is_some() || late.any(|schema| **schema == *"pg_catalog") {
        return None;
    }
    let schemas = &context.topology.schema;
    let relation = schemas.relation(name.schema.as_deref(), &name.name, path)?;
    let is_placed = matches!(
        relation.placement,
        Placement::Sharded { .. } | Placement::Reference
    );
    if !is_placed || relation.kind != RelationKind::Table {
        return None;
    }
    let columns = columns.as_ref()?;
    let mut finder = Finder::new(sql, &[], context);
    let mut added = Vec::new();
    for (index, column) in relation.columns.iter().enumerate() {
        let given = columns.iter().any(|given| **given == *column.name);
        if given || !finder.is_spelled(relation, index) {
            continue;
        }
        let pieces = finder.default(relation, column, true)?;
        let value = match pieces.as_slice() {
            [Piece::Number { .. }] if matches!(column.type_oid, 20 | 21 | 23) => {
                AddedValue::Sequence
            }
            [_, Piece::Uuid(_), _] if TAKE_UUID_TEXT.contains(&column.type_oid) => AddedValue::Uuid,
            pieces if TAKE_TIME.contains(&column.type_oid) && pieces.contains(&Piece::Time) => {
                AddedValue::Time(AddedTime {
                    pieces: pieces.to_vec(),
                    type_oid: column.type_oid,
                    type_name: column.type_name.clone(),
                })
            }
            _ => return None,
        };
        added.push(AddedColumn {
            name: column.name.clone(),
            type_oid: column.type_oid,
            value,
        });
    }
    if added.is_empty() {
        return None;
    }
    // The list of columns is the first thing in brackets.
    let tokens = lex::lex(sql, context.limits).ok()?;
    let close = tokens.iter().find(|token| token.is_symbol(sql, ")"))?.start;
    let mut text = sql[..close].to_owned();
    for column in &added {
        text.push_str(", ");
        text.push_str(&quote_identifier(&column.name));
    }
    text.push_str(&sql[close..]);
    let tokens = lex::lex(&text, context.limits).ok()?;
    let Ok(statement::Statement::Copy(mut proof)) = statement::classify(&text, &tokens) else {
        return None;
    };
    if let CopySource::Table {
        columns: Some(columns),
        ..
    } = &mut proof.source
    {
        let given = columns.len().checked_sub(added.len())?;
        let mut names = columns[given..].iter().zip(&added);
        if !names.all(|(name, added)| **name == *added.name) {
            return None;
        }
        columns.truncate(given);
    }
    (*proof == *copy).then_some(())?;
    Some(CopyAdded {
        schema: relation.schema.clone(),
        table: relation.name.clone(),
        sql: text,
        columns: added,
    })
}

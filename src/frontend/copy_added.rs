//! COPY FROM into columns that the client's data leave to the time, to a sequence or to chance: each row is given values
//! of them behind its own, in the format of the data.

use super::error::{self, Stop};
use super::session::Session;
use crate::backend::sequence::SequenceColumn;
use crate::planner::{self, AddedValue, Context, CopyAdded, PlanError};
use crate::sql::copy::{CopyFormat, CopyHeader, CopyOptions, CopyStatement};
use crate::sql::copy_rows::CopyRow;
use crate::topology::ShardId;
use crate::transaction::command::{self, CommandError};
use crate::wire::frame::{Frame, HEADER_BYTES};
use bytes::{BufMut, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many values of a sequence are drawn at first, and at most, at once. What is left of them at the end is lost.
const DRAW_FIRST: usize = 16;
const DRAW_MOST: usize = 4096;

/// Gives rows their further values.
pub(super) struct Adder {
    options: CopyOptions,
    names: Vec<Arc<str>>,
    values: Vec<Value>,
}

enum Value {
    /// As it is in a row of the data; without its length.
    Fixed(Vec<u8>),
    Sequence {
        column: SequenceColumn,
        type_oid: u32,
        drawn: VecDeque<i64>,
        batch: usize,
    },
    Uuid {
        type_oid: u32,
    },
}

impl Session {
    /// A COPY FROM with the columns that it leaves out, where that is what helps it.
    pub(super) fn copy_added(
        &mut self,
        copy: &CopyStatement<'_>,
        sql: &str,
    ) -> Result<Option<CopyAdded>, Stop> {
        if self.hint(sql)?.is_some() {
            return Ok(None);
        }
        let topology = self.topology();
        let search_path = self.search_path()?;
        let context = Context {
            topology: &topology,
            search_path: &search_path,
            hint: None,
            limits: &self.lex_limits(),
        };
        Ok(planner::copy_added(copy, sql, &context))
    }

    /// Asks for what all rows are given; `first` has joined.
    pub(super) async fn adder(
        &mut self,
        copy: &CopyStatement<'_>,
        added: &CopyAdded,
        first: ShardId,
    ) -> Result<Adder, Stop> {
        let binary = copy.options.format == CopyFormat::Binary;
        let mut values = Vec::with_capacity(added.columns.len());
        for column in &added.columns {
            values.push(match &column.value {
                AddedValue::Sequence => Value::Sequence {
                    column: SequenceColumn {
                        schema: added.schema.clone(),
                        table: added.table.clone(),
                        column: column.name.clone(),
                    },
                    type_oid: column.type_oid,
                    drawn: VecDeque::new(),
                    batch: DRAW_FIRST,
                },
                AddedValue::Uuid => Value::Uuid {
                    type_oid: column.type_oid,
                },
                AddedValue::Time(time) => {
                    let now = self.one_time().await?;
                    let query = time
                        .query(&now, binary)
                        .ok_or_else(|| PlanError::Internal {
                            what: "a time that has no binary form".into(),
                        })?;
                    let text = self.ask_first(first, &query).await?;
                    Value::Fixed(match binary {
                        false => text.into_bytes(),
                        true => from_hex(&text).ok_or(Stop::Gone)?,
                    })
                }
            });
        }
        Ok(Adder {
            options: copy.options.clone(),
            names: added
                .columns
                .iter()
                .map(|column| column.name.clone())
                .collect(),
            values,
        })
    }

    async fn ask_first(&mut self, shard: ShardId, query: &str) -> Result<String, Stop> {
        let backend = self.transaction.backend(shard).ok_or(Stop::Gone)?;
        match command::run_apart(backend, &[query]).await {
            Ok(reply) => {
                let value = reply.rows.into_iter().flatten().flatten().next();
                value.ok_or(Stop::Gone)
            }
            Err(error) => {
                if let CommandError::Lost { .. } = error {
                    self.lose(shard);
                }
                Err(error::of_command(error))
            }
        }
    }
}

impl Adder {
    /// The row with its further values, and how much of it comes before the line end.
    pub(super) async fn add(
        &mut self,
        session: &Session,
        row: CopyRow<'_>,
    ) -> Result<(Vec<u8>, usize), Stop> {
        let mut out = Vec::with_capacity(row.bytes.len() + 48 * self.values.len());
        if self.options.format == CopyFormat::Binary {
            let (count, fields) = row.bytes.split_first_chunk::<2>().ok_or(Stop::Gone)?;
            let count = i16::from_be_bytes(*count).saturating_add(self.values.len() as i16);
            out.extend_from_slice(&count.to_be_bytes());
            out.extend_from_slice(fields);
            for value in &mut self.values {
                let value = value.next_binary(session).await?;
                out.extend_from_slice(&(value.len() as i32).to_be_bytes());
                out.extend_from_slice(&value);
            }
            let content = out.len();
            return Ok((out, content));
        }
        let content = row.content();
        let end = &row.bytes[content.len()..];
        // A backslash that ends the data stands for nothing, and would take the delimiter with it.
        let backslashes = content.iter().rev().take_while(|byte| **byte == b'\\');
        let lone = self.options.format == CopyFormat::Text && backslashes.count() % 2 == 1;
        out.extend_from_slice(&content[..content.len() - usize::from(lone)]);
        for value in &mut self.values {
            let text = value.next_text(session).await?;
            write_field(&mut out, &self.options, text.as_bytes());
        }
        let content = out.len();
        out.extend_from_slice(end);
        Ok((out, content))
    }

    /// The header line with the names of the columns, where they are looked at.
    pub(super) fn header(&self, header: &[u8]) -> Vec<u8> {
        if self.options.format == CopyFormat::Binary || self.options.header != CopyHeader::Match {
            return header.to_vec();
        }
        let is_end = |byte: &&u8| matches!(**byte, b'\r' | b'\n');
        let content = header.len() - header.iter().rev().take_while(is_end).count();
        let mut out = header[..content].to_vec();
        for name in &self.names {
            write_field(&mut out, &self.options, name.as_bytes());
        }
        out.extend_from_slice(&header[content..]);
        out
    }

    /// What the client is told of the format: that of the columns that it sends.
    pub(super) fn response(&self, response: &Frame) -> Option<Frame> {
        let body = response.body();
        let (format, rest) = body.split_first()?;
        let (_, codes) = rest.split_first_chunk::<2>()?;
        let count = (codes.len() / 2).checked_sub(self.values.len())?;
        let mut out = BytesMut::with_capacity(HEADER_BYTES + 3 + 2 * count);
        out.put_u8(response.tag());
        out.put_i32((4 + 3 + 2 * count) as i32);
        out.put_u8(*format);
        out.put_i16(count as i16);
        out.put_slice(codes.get(..2 * count)?);
        Some(Frame::new(out.freeze()))
    }
}

/// A delimiter and a field that is not NULL.
fn write_field(out: &mut Vec<u8>, options: &CopyOptions, value: &[u8]) {
    out.push(options.delimiter);
    match options.format {
        CopyFormat::Csv => {
            out.push(options.quote);
            for byte in value {
                if *byte == options.quote || *byte == options.escape {
                    out.push(options.escape);
                }
                out.push(*byte);
            }
            out.push(options.quote);
        }
        CopyFormat::Text | CopyFormat::Binary => {
            let start = out.len();
            for byte in value {
                if *byte == options.delimiter || *byte == b'\\' {
                    out.push(b'\\');
                }
                match byte {
                    b'\n' => out.extend_from_slice(b"\\n"),
                    b'\r' => out.extend_from_slice(b"\\r"),
                    byte => out.push(*byte),
                }
            }
            if out[start..] == *options.null.as_bytes() && !value.is_empty() {
                // Another way to write its first byte: what stands for NULL is compared before that is read.
                let first = out[start];
                out.splice(start..=start, format!("\\x{first:02x}").into_bytes());
            }
        }
    }
}

impl Value {
    async fn next_number(
        session: &Session,
        column: &SequenceColumn,
        drawn: &mut VecDeque<i64>,
        batch: &mut usize,
    ) -> Result<i64, Stop> {
        if drawn.is_empty() {
            drawn.extend(session.draw_for(column.clone(), *batch).await?);
            *batch = (*batch * 2).min(DRAW_MOST);
        }
        drawn.pop_front().ok_or(Stop::Gone)
    }

    async fn next_text(&mut self, session: &Session) -> Result<String, Stop> {
        match self {
            Self::Fixed(bytes) => String::from_utf8(bytes.clone()).map_err(|_| Stop::Gone),
            Self::Sequence {
                column,
                drawn,
                batch,
                ..
            } => {
                let number = Self::next_number(session, column, drawn, batch).await?;
                Ok(number.to_string())
            }
            Self::Uuid { .. } => super::draw::uuid(),
        }
    }

    async fn next_binary(&mut self, session: &Session) -> Result<Vec<u8>, Stop> {
        match self {
            Self::Fixed(bytes) => Ok(bytes.clone()),
            Self::Sequence {
                column,
                type_oid,
                drawn,
                batch,
            } => {
                let number = Self::next_number(session, column, drawn, batch).await?;
                let bytes = match type_oid {
                    21 => i16::try_from(number).map(|number| number.to_be_bytes().to_vec()),
                    23 => i32::try_from(number).map(|number| number.to_be_bytes().to_vec()),
                    _ => Ok(number.to_be_bytes().to_vec()),
                };
                bytes.map_err(|_| {
                    Stop::from(PlanError::CountRange {
                        text: number.to_string().into(),
                    })
                })
            }
            Self::Uuid { type_oid } => {
                let text = super::draw::uuid()?;
                match type_oid {
                    2950 => from_hex(&text.replace('-', "")).ok_or(Stop::Gone),
                    _ => Ok(text.into_bytes()),
                }
            }
        }
    }
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{lex, statement};

    fn options(sql: &str) -> CopyOptions {
        let limits = lex::LexLimits {
            tokens_max: 100,
            depth_max: 10,
        };
        let tokens = lex::lex(sql, &limits).unwrap();
        match statement::classify(sql, &tokens).unwrap() {
            statement::Statement::Copy(copy) => copy.options.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_are_never_taken_for_null_or_for_two() {
        for (sql, value, field) in [
            (
                "COPY t (a) FROM STDIN",
                "2026-01-01T10:00",
                "\t2026-01-01T10:00",
            ),
            (
                "COPY t (a) FROM STDIN (DELIMITER '-')",
                "2026-01",
                "-2026\\-01",
            ),
            ("COPY t (a) FROM STDIN (NULL '17')", "17", "\t\\x317"),
            ("COPY t (a) FROM STDIN (FORMAT csv)", "17", ",\"17\""),
            (
                "COPY t (a) FROM STDIN (FORMAT csv, QUOTE '-', ESCAPE '+')",
                "1-2+3",
                ",-1+-2++3-",
            ),
        ] {
            let mut out = Vec::new();
            write_field(&mut out, &options(sql), value.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), field, "{sql}");
        }
    }
}

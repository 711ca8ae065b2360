//! [`CopyStatement`]: COPY with its target and options, in the new syntax and the old. The rows are
//! [`super::copy_rows`]'s.

use super::reader::{Body, Name, Reader, StatementError};
use std::borrow::Cow;

/// A COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStatement<'a> {
    /// Which way rows go.
    pub direction: CopyDirection,
    /// The table or query.
    pub source: CopySource<'a>,
    /// The other end.
    pub target: CopyTarget<'a>,
    /// What the data look like.
    pub options: CopyOptions,
    /// Whether a WHERE filters rows on their way in.
    pub where_clause: bool,
}

/// Which way rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDirection {
    /// Into the table.
    From,
    /// Out of the table or query.
    To,
}

/// The end of a COPY that is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource<'a> {
    /// A table.
    Table {
        /// Its name.
        name: Name<'a>,
        /// The columns, where it names them.
        columns: Option<Vec<Cow<'a, str>>>,
    },
    /// A query, or DML with RETURNING, in parentheses.
    Query(Body<'a>),
}

/// The other end of a COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyTarget<'a> {
    /// STDIN or STDOUT: CopyData messages.
    Client,
    /// A file on the server.
    File(Cow<'a, str>),
    /// A program on the server.
    Program(Cow<'a, str>),
}

/// What the data look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Lines with backslash escapes.
    Text,
    /// Comma separated values.
    Csv,
    /// PostgreSQL's binary tuples.
    Binary,
}

/// Whether there is a header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyHeader {
    /// No.
    Off,
    /// Yes.
    On,
    /// Yes, and it must name the columns.
    Match,
}

/// What a FORCE option applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyColumns {
    /// No column.
    None,
    /// All of them.
    All,
    /// These.
    Names(Vec<String>),
}

impl CopyColumns {
    /// Whether the column called `name` is one of them.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Names(names) => names.iter().any(|it| it == name),
        }
    }
}

/// COPY's options, with PostgreSQL's defaults filled in. Which of them go together, PostgreSQL judges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    /// FORMAT.
    pub format: CopyFormat,
    /// DELIMITER.
    pub delimiter: u8,
    /// NULL: what stands for it.
    pub null: String,
    /// DEFAULT (from PostgreSQL 16): what stands for the column's default.
    pub default: Option<String>,
    /// HEADER.
    pub header: CopyHeader,
    /// QUOTE.
    pub quote: u8,
    /// ESCAPE.
    pub escape: u8,
    /// FORCE_QUOTE.
    pub force_quote: CopyColumns,
    /// FORCE_NOT_NULL.
    pub force_not_null: CopyColumns,
    /// FORCE_NULL.
    pub force_null: CopyColumns,
    /// FREEZE.
    pub freeze: bool,
    /// ENCODING; without it, client_encoding holds.
    pub encoding: Option<String>,
    /// The names of other options, of which nothing is known here.
    pub other: Vec<String>,
}

/// Reads what follows COPY, to the end of the statement or a WHERE.
pub(crate) fn copy_statement<'a>(
    reader: &mut Reader<'a, '_>,
) -> Result<CopyStatement<'a>, StatementError> {
    let mut options = Options::default();
    let source = if reader.is_symbol(0, "(") {
        CopySource::Query(reader.parenthesised()?)
    } else {
        if reader.take(&["binary"]) {
            options.format = Some(CopyFormat::Binary);
        }
        let name = reader.qualified_name()?;
        let columns = if reader.is_symbol(0, "(") {
            Some(columns(reader)?)
        } else {
            None
        };
        CopySource::Table { name, columns }
    };
    let is_table = matches!(source, CopySource::Table { .. });
    let direction = if is_table && reader.take(&["from"]) {
        CopyDirection::From
    } else {
        reader.expect(&["to"])?;
        CopyDirection::To
    };
    let target = if reader.take(&["program"]) {
        CopyTarget::Program(reader.string()?)
    } else if reader.take_any(&["stdin", "stdout"]).is_some() {
        CopyTarget::Client
    } else {
        CopyTarget::File(reader.string()?)
    };
    if is_table && (reader.is_word(0, "using") || reader.is_word(0, "delimiters")) {
        reader.take(&["using"]);
        reader.expect(&["delimiters"])?;
        options.delimiter = Some(reader.string()?);
    }
    reader.take(&["with"]);
    if reader.take_symbol("(") {
        reader.list(|reader| options.read_one(reader))?;
        reader.expect_symbol(")")?;
    } else {
        while options.read_old(reader)? {}
    }
    let where_clause = is_table && reader.take(&["where"]);
    if where_clause {
        reader.body()?;
    }
    reader.expect_end()?;
    Ok(CopyStatement {
        direction,
        source,
        target,
        options: options.finish()?,
        where_clause,
    })
}

fn columns<'a>(reader: &mut Reader<'a, '_>) -> Result<Vec<Cow<'a, str>>, StatementError> {
    reader.expect_symbol("(")?;
    let columns = reader.list(Reader::name)?;
    reader.expect_symbol(")")?;
    Ok(columns)
}

/// The options as far as they are read: what a default is depends on the format, which may come last.
#[derive(Default)]
struct Options<'a> {
    format: Option<CopyFormat>,
    delimiter: Option<Cow<'a, str>>,
    null: Option<Cow<'a, str>>,
    default: Option<Cow<'a, str>>,
    header: Option<CopyHeader>,
    quote: Option<Cow<'a, str>>,
    escape: Option<Cow<'a, str>>,
    force_quote: Option<CopyColumns>,
    force_not_null: Option<CopyColumns>,
    force_null: Option<CopyColumns>,
    freeze: bool,
    encoding: Option<Cow<'a, str>>,
    other: Vec<String>,
}

/// What stands after an option's name.
enum Argument<'a> {
    Nothing,
    Text(Cow<'a, str>),
    All,
    List(Vec<String>),
}

impl<'a> Argument<'a> {
    fn read(reader: &mut Reader<'a, '_>) -> Result<Self, StatementError> {
        if reader.is_symbol(0, ",") || reader.is_symbol(0, ")") {
            return Ok(Self::Nothing);
        }
        if reader.take_symbol("*") {
            return Ok(Self::All);
        }
        if reader.take_symbol("(") {
            let names = reader.list(|reader| text(reader).map(Cow::into_owned))?;
            reader.expect_symbol(")")?;
            return Ok(Self::List(names));
        }
        text(reader).map(Self::Text)
    }

    fn text(self, option: &str) -> Result<Cow<'a, str>, StatementError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Nothing | Self::All | Self::List(_) => Err(StatementError::CopyParameter {
                option: option.to_owned(),
            }),
        }
    }

    fn columns(self, option: &str) -> Result<CopyColumns, StatementError> {
        match self {
            Self::All => Ok(CopyColumns::All),
            Self::List(names) => Ok(CopyColumns::Names(names)),
            Self::Nothing | Self::Text(_) => Err(StatementError::CopyParameter {
                option: option.to_owned(),
            }),
        }
    }
}

/// A Boolean, string, word or number, as text.
fn text<'a>(reader: &mut Reader<'a, '_>) -> Result<Cow<'a, str>, StatementError> {
    if let Some(word) = reader.take_any(&["true", "false", "on"]) {
        return Ok(Cow::Borrowed(word));
    }
    match reader.peek() {
        Some(token) if token.is_string() => reader.string(),
        Some(token) if token.is_identifier() => reader.word(),
        _ => reader.number().map(Cow::Owned),
    }
}

fn boolean(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    match () {
        () if is(&["true", "on", "1"]) => Some(true),
        () if is(&["false", "off", "0"]) => Some(false),
        () => None,
    }
}

impl<'a> Options<'a> {
    /// One of `(option argument, …)`.
    fn read_one(&mut self, reader: &mut Reader<'a, '_>) -> Result<(), StatementError> {
        let name = reader.label()?;
        let argument = Argument::read(reader)?;
        match &*name {
            "format" => {
                let format = argument.text(&name)?;
                self.format = Some(match &*format {
                    "text" => CopyFormat::Text,
                    "csv" => CopyFormat::Csv,
                    "binary" => CopyFormat::Binary,
                    _ => {
                        return Err(StatementError::CopyFormat {
                            format: format.into_owned(),
                        });
                    }
                });
            }
            "delimiter" => self.delimiter = Some(argument.text(&name)?),
            "null" => self.null = Some(argument.text(&name)?),
            "default" => self.default = Some(argument.text(&name)?),
            "header" => self.header = Some(header(argument)?),
            "quote" => self.quote = Some(argument.text(&name)?),
            "escape" => self.escape = Some(argument.text(&name)?),
            "force_quote" => self.force_quote = Some(argument.columns(&name)?),
            "force_not_null" => self.force_not_null = Some(argument.columns(&name)?),
            "force_null" => self.force_null = Some(argument.columns(&name)?),
            "freeze" => {
                self.freeze =
                    !matches!(argument, Argument::Text(text) if boolean(&text) == Some(false))
            }
            "encoding" => self.encoding = Some(argument.text(&name)?),
            _ => self.other.push(name.into_owned()),
        }
        Ok(())
    }

    /// One option of the syntax before PostgreSQL 9.0, if one comes.
    fn read_old(&mut self, reader: &mut Reader<'a, '_>) -> Result<bool, StatementError> {
        const OPTIONS: &[&str] = &[
            "binary",
            "freeze",
            "delimiter",
            "null",
            "csv",
            "header",
            "quote",
            "escape",
            "force",
            "encoding",
        ];
        let Some(option) = reader.take_any(OPTIONS) else {
            return Ok(false);
        };
        if matches!(option, "delimiter" | "null" | "quote" | "escape") {
            reader.take(&["as"]);
        }
        match option {
            "binary" => self.format = Some(CopyFormat::Binary),
            "csv" => self.format = Some(CopyFormat::Csv),
            "freeze" => self.freeze = true,
            "header" => self.header = Some(CopyHeader::On),
            "delimiter" => self.delimiter = Some(reader.string()?),
            "null" => self.null = Some(reader.string()?),
            "quote" => self.quote = Some(reader.string()?),
            "escape" => self.escape = Some(reader.string()?),
            "encoding" => self.encoding = Some(reader.string()?),
            _ => match reader.take_any(&["quote", "not", "null"]) {
                Some("quote") if reader.take_symbol("*") => {
                    self.force_quote = Some(CopyColumns::All)
                }
                Some("quote") => self.force_quote = Some(old_columns(reader)?),
                Some("not") => {
                    reader.expect(&["null"])?;
                    self.force_not_null = Some(old_columns(reader)?);
                }
                Some(_) => self.force_null = Some(old_columns(reader)?),
                None => return Err(reader.unexpected()),
            },
        }
        Ok(true)
    }

    fn finish(self) -> Result<CopyOptions, StatementError> {
        let format = self.format.unwrap_or(CopyFormat::Text);
        let csv = format == CopyFormat::Csv;
        let quote = one_byte(self.quote, "quote", b'"')?;
        Ok(CopyOptions {
            format,
            delimiter: one_byte(self.delimiter, "delimiter", if csv { b',' } else { b'\t' })?,
            null: self
                .null
                .map_or_else(|| if csv { "" } else { "\\N" }.to_owned(), Cow::into_owned),
            default: self.default.map(Cow::into_owned),
            header: self.header.unwrap_or(CopyHeader::Off),
            quote,
            escape: one_byte(self.escape, "escape", quote)?,
            force_quote: self.force_quote.unwrap_or(CopyColumns::None),
            force_not_null: self.force_not_null.unwrap_or(CopyColumns::None),
            force_null: self.force_null.unwrap_or(CopyColumns::None),
            freeze: self.freeze,
            encoding: self.encoding.map(Cow::into_owned),
            other: self.other,
        })
    }
}

fn old_columns(reader: &mut Reader<'_, '_>) -> Result<CopyColumns, StatementError> {
    Ok(CopyColumns::Names(
        reader
            .list(Reader::name)?
            .into_iter()
            .map(Cow::into_owned)
            .collect(),
    ))
}

fn header(argument: Argument<'_>) -> Result<CopyHeader, StatementError> {
    match argument {
        Argument::Nothing => Ok(CopyHeader::On),
        Argument::Text(text) if text.eq_ignore_ascii_case("match") => Ok(CopyHeader::Match),
        Argument::Text(text) => match boolean(&text) {
            Some(true) => Ok(CopyHeader::On),
            Some(false) => Ok(CopyHeader::Off),
            None => Err(StatementError::CopyHeader),
        },
        Argument::All | Argument::List(_) => Err(StatementError::CopyHeader),
    }
}

fn one_byte(
    value: Option<Cow<'_, str>>,
    option: &'static str,
    default: u8,
) -> Result<u8, StatementError> {
    match value.as_deref().map(str::as_bytes) {
        None => Ok(default),
        Some([byte]) => Ok(*byte),
        Some(_) => Err(StatementError::CopyCharacter { option }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lex::{LexLimits, lex};
    use crate::sql::statement::{Statement, classify};

    fn copy(sql: &str) -> Result<CopyStatement<'_>, StatementError> {
        let tokens = lex(
            sql,
            &LexLimits {
                tokens_max: 1000,
                depth_max: 100,
            },
        )?;
        match classify(sql, &tokens)? {
            Statement::Copy(copy) => Ok(*copy),
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn text_options() -> CopyOptions {
        CopyOptions {
            format: CopyFormat::Text,
            delimiter: b'\t',
            null: "\\N".to_owned(),
            default: None,
            header: CopyHeader::Off,
            quote: b'"',
            escape: b'"',
            force_quote: CopyColumns::None,
            force_not_null: CopyColumns::None,
            force_null: CopyColumns::None,
            freeze: false,
            encoding: None,
            other: Vec::new(),
        }
    }

    fn csv_options() -> CopyOptions {
        CopyOptions {
            format: CopyFormat::Csv,
            delimiter: b',',
            null: String::new(),
            ..text_options()
        }
    }

    #[test]
    fn tables_and_queries_are_told_apart() {
        let into = copy("copy S.\"T\" (a, \"B\") from stdin where a > 1").unwrap();
        let name = Name {
            catalog: None,
            schema: Some("s".into()),
            name: "T".into(),
        };
        assert_eq!(
            into.source,
            CopySource::Table {
                name,
                columns: Some(vec!["a".into(), "B".into()])
            }
        );
        assert_eq!(
            (into.direction, into.target, into.where_clause),
            (CopyDirection::From, CopyTarget::Client, true)
        );

        let out = copy("copy (select f(1)) to stdout (format csv)").unwrap();
        assert_eq!(
            out.source,
            CopySource::Query(Body {
                text: "select f(1)",
                first_token: 2
            })
        );
        assert_eq!(
            (out.direction, out.where_clause),
            (CopyDirection::To, false)
        );

        assert_eq!(
            copy("copy t to '/a''b'").unwrap().target,
            CopyTarget::File("/a'b".into())
        );
        assert_eq!(
            copy("copy t from program 'x' csv").unwrap().target,
            CopyTarget::Program("x".into())
        );
    }

    #[test]
    fn options_are_read_in_both_syntaxes() {
        let names = |names: &[&str]| {
            CopyColumns::Names(names.iter().map(|name| (*name).to_owned()).collect())
        };
        let full = CopyOptions {
            delimiter: b';',
            null: "-".to_owned(),
            header: CopyHeader::On,
            quote: b'\'',
            escape: b'\\',
            force_quote: CopyColumns::All,
            force_not_null: names(&["a", "B"]),
            freeze: true,
            encoding: Some("latin1".to_owned()),
            ..csv_options()
        };
        let cases = [
            ("copy t from stdin", text_options()),
            ("copy t from stdin with", text_options()),
            ("copy t from stdin (format csv)", csv_options()),
            ("copy t from stdin csv", csv_options()),
            (
                "copy binary t to stdout",
                CopyOptions {
                    format: CopyFormat::Binary,
                    ..text_options()
                },
            ),
            (
                "copy t to stdout with binary",
                CopyOptions {
                    format: CopyFormat::Binary,
                    ..text_options()
                },
            ),
            (
                "copy t from stdin using delimiters '|'",
                CopyOptions {
                    delimiter: b'|',
                    ..text_options()
                },
            ),
            ("copy t from stdin with (quote '''', format csv)", {
                CopyOptions {
                    quote: b'\'',
                    escape: b'\'',
                    ..csv_options()
                }
            }),
            (
                "copy t from stdin (header match)",
                CopyOptions {
                    header: CopyHeader::Match,
                    ..text_options()
                },
            ),
            ("copy t from stdin (header 0, freeze off)", text_options()),
            ("copy t from stdin (force_null (x), format csv)", {
                CopyOptions {
                    force_null: names(&["x"]),
                    ..csv_options()
                }
            }),
            ("copy t from stdin (default 'D', on_error ignore)", {
                CopyOptions {
                    default: Some("D".to_owned()),
                    other: vec!["on_error".to_owned()],
                    ..text_options()
                }
            }),
            (
                "copy t from stdin with (format csv, delimiter ';', null '-', header true, quote '''', \
                 escape E'\\\\', force_quote *, force_not_null (a, \"B\"), freeze, encoding 'latin1')",
                full.clone(),
            ),
            (
                "copy t from stdin with csv delimiter as ';' null '-' header quote '''' escape as E'\\\\' \
                 force quote * force not null a, \"B\" freeze encoding 'latin1'",
                full,
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(copy(sql).map(|copy| copy.options), Ok(expected), "{sql}");
        }
    }

    #[test]
    fn wrong_statements_are_refused_in_postgresqls_words() {
        let cases = [
            ("copy", "syntax error at end of input"),
            ("copy t", "syntax error at end of input"),
            (
                "copy (select 1) from stdin",
                "syntax error at or near \"from\"",
            ),
            ("copy t from stdin foo", "syntax error at or near \"foo\""),
            ("copy t from stdin ()", "syntax error at or near \")\""),
            (
                "copy t from stdin (format csv) csv",
                "syntax error at or near \"csv\"",
            ),
            ("copy t from stdin where", "syntax error at end of input"),
            (
                "copy t from stdin (format xml)",
                "COPY format \"xml\" not recognized",
            ),
            (
                "copy t from stdin (delimiter '||')",
                "COPY delimiter must be a single one-byte character",
            ),
            (
                "copy t from stdin (format csv, quote 'é')",
                "COPY quote must be a single one-byte character",
            ),
            (
                "copy t from stdin (header maybe)",
                "header requires a Boolean value or \"match\"",
            ),
            ("copy t from stdin (null)", "null requires a parameter"),
        ];
        for (sql, expected) in cases {
            assert_eq!(
                copy(sql).map_err(|error| error.to_string()),
                Err(expected.to_owned()),
                "{sql}"
            );
        }
    }
}

//! [`CopyRows`]: the rows in a stream of CopyData, however it is cut; [`CopyKey`]: one column's value in a row.
//!
//! Rows end where PostgreSQL 15's COPY FROM ends them, in all three formats. Everything about a row but its border
//! and its key is for a shard to judge. Assumes an encoding in which no byte of a longer character is ASCII: UTF-8,
//! all single-byte ones, EUC; not SJIS, BIG5, GBK, UHC, GB18030 or JOHAB.

use super::copy::{CopyFormat, CopyHeader, CopyOptions};
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use std::borrow::Cow;
use std::ops::Range;
use thiserror::Error;

const BINARY_SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Data that PostgreSQL would not take, or past the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CopyRowError {
    /// 53400.
    #[error("COPY row is longer than {row_bytes_max} bytes")]
    RowTooLong {
        /// The limit that was given.
        row_bytes_max: usize,
    },
    /// In text, where lines end otherwise: 22P04.
    #[error("literal carriage return found in data")]
    LiteralCarriageReturn,
    /// In text, where lines end otherwise: 22P04.
    #[error("literal newline found in data")]
    LiteralNewline,
    /// In CSV, where lines end otherwise: 22P04.
    #[error("unquoted carriage return found in data")]
    UnquotedCarriageReturn,
    /// In CSV, where lines end otherwise: 22P04.
    #[error("unquoted newline found in data")]
    UnquotedNewline,
    /// `\.` with something after it on its line: 22P04.
    #[error("end-of-copy marker corrupt")]
    EndMarkerCorrupt,
    /// `\.` on a line that ends otherwise than the ones before it: 22P04.
    #[error("end-of-copy marker does not match previous newline style")]
    EndMarkerNewline,
    /// 22P04.
    #[error("COPY file signature not recognized")]
    BinarySignature,
    /// 22P04.
    #[error("invalid COPY file header ({0})")]
    BinaryHeader(&'static str),
    /// 22P04.
    #[error("unrecognized critical flags in COPY file header")]
    BinaryFlags,
    /// 22P04.
    #[error("invalid field size")]
    BinaryFieldSize,
    /// 22P04.
    #[error("unexpected EOF in COPY data")]
    UnexpectedEnd,
    /// Data after the binary trailer, or after `\.` in CSV, which is data from PostgreSQL 18 on: 22P04.
    #[error("received copy data after EOF marker")]
    DataAfterEnd,
}

impl ErrorReply for CopyRowError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::RowTooLong { .. } => SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            Self::LiteralCarriageReturn
            | Self::LiteralNewline
            | Self::UnquotedCarriageReturn
            | Self::UnquotedNewline
            | Self::EndMarkerCorrupt
            | Self::EndMarkerNewline
            | Self::BinarySignature
            | Self::BinaryHeader(_)
            | Self::BinaryFlags
            | Self::BinaryFieldSize
            | Self::UnexpectedEnd
            | Self::DataAfterEnd => SqlState::BAD_COPY_FILE_FORMAT,
        }
    }

    fn fault(&self) -> Fault {
        Fault::Client
    }

    fn detail(&self) -> Option<String> {
        None
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::LiteralCarriageReturn => "Use \"\\r\" to represent carriage return.",
            Self::LiteralNewline => "Use \"\\n\" to represent newline.",
            Self::UnquotedCarriageReturn => "Use quoted CSV field to represent carriage return.",
            Self::UnquotedNewline => "Use quoted CSV field to represent newline.",
            Self::RowTooLong { .. }
            | Self::EndMarkerCorrupt
            | Self::EndMarkerNewline
            | Self::BinarySignature
            | Self::BinaryHeader(_)
            | Self::BinaryFlags
            | Self::BinaryFieldSize
            | Self::UnexpectedEnd
            | Self::DataAfterEnd => return None,
        };
        Some(hint.to_owned())
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// A piece of the stream that has one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyPiece<'a> {
    /// The header line, or the binary signature and header: every shard must get it, first.
    Header(&'a [u8]),
    /// One row.
    Row(CopyRow<'a>),
    /// The binary trailer: every shard must get it, last. It may be absent.
    Trailer(&'a [u8]),
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRow<'a> {
    /// Its bytes with its line end; the last line may have none.
    pub bytes: &'a [u8],
    /// How many of them come before the line end.
    content: usize,
}

impl<'a> CopyRow<'a> {
    /// A row of these bytes, `content` of which come before its line end.
    pub fn new(bytes: &'a [u8], content: usize) -> Self {
        debug_assert!(content <= bytes.len());
        Self { bytes, content }
    }

    /// Its bytes without its line end.
    pub fn content(&self) -> &'a [u8] {
        &self.bytes[..self.content]
    }
}

/// Cuts a stream of CopyData into rows.
#[derive(Debug, Clone)]
pub struct CopyRows {
    format: CopyFormat,
    quote: u8,
    /// `None` if it is the quote itself.
    escape: Option<u8>,
    row_bytes_max: usize,
    buffer: Vec<u8>,
    /// Where in `buffer` the piece that is being read starts.
    start: usize,
    /// Up to where in `buffer` it is read.
    scan: usize,
    line_end: LineEnd,
    in_quote: bool,
    after_escape: bool,
    /// Of a binary tuple, once its count is read.
    fields_left: Option<u16>,
    expected: Expected,
    input_ended: bool,
}

/// How lines end, found with the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Unknown,
    Newline,
    CarriageReturn,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Header,
    Row,
    Nothing,
}

/// A piece as ranges of the buffer.
enum Found {
    Header(Range<usize>),
    Row(Range<usize>, usize),
    Trailer(Range<usize>),
}

/// What a search for the end of a line found.
enum Line {
    /// Where its content ends, and its line end.
    Ended(usize, usize),
    /// The end-of-copy marker, at this byte.
    Marker(usize),
    /// Not yet.
    More,
}

/// What a backslash and the bytes after it are.
enum Marker {
    /// The end-of-copy marker.
    Here,
    /// Something else: in CSV just data, in text what is wrong with it.
    None(CopyRowError),
    /// Too little to tell.
    More,
}

impl CopyRows {
    /// A stream that has not begun. `row_bytes_max` bounds one row, and with it (and the size of one chunk) what is
    /// buffered.
    pub fn new(options: &CopyOptions, row_bytes_max: usize) -> Self {
        let has_header = options.format == CopyFormat::Binary || options.header != CopyHeader::Off;
        Self {
            format: options.format,
            quote: options.quote,
            escape: (options.escape != options.quote).then_some(options.escape),
            row_bytes_max,
            buffer: Vec::new(),
            start: 0,
            scan: 0,
            line_end: LineEnd::Unknown,
            in_quote: false,
            after_escape: false,
            fields_left: None,
            expected: if has_header {
                Expected::Header
            } else {
                Expected::Row
            },
            input_ended: false,
        }
    }

    /// Takes one chunk. Call [`read`](Self::read) until it gives `None` before the next.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scan -= self.start;
            self.start = 0;
        }
        // PostgreSQL reads on after the end-of-copy marker of the text format, and ignores what it reads.
        if self.expected != Expected::Nothing || self.format != CopyFormat::Text {
            self.buffer.extend_from_slice(chunk);
        }
    }

    /// The client said CopyDone: [`read`](Self::read) gives what is left.
    pub fn finish(&mut self) {
        self.input_ended = true;
    }

    /// The next piece, or `None` if that needs more input, or the input is over.
    ///
    /// # Errors
    /// What PostgreSQL rejects, or a row over the limit. The stream is of no use then.
    pub fn read(&mut self) -> Result<Option<CopyPiece<'_>>, CopyRowError> {
        let found = match self.format {
            CopyFormat::Binary => self.find_binary()?,
            CopyFormat::Text | CopyFormat::Csv => self.find_line()?,
        };
        let Some(found) = found else {
            return if self.buffer.len() - self.start > self.row_bytes_max {
                Err(self.too_long())
            } else {
                Ok(None)
            };
        };
        let (Found::Header(bytes) | Found::Row(bytes, _) | Found::Trailer(bytes)) = &found;
        if bytes.len() > self.row_bytes_max {
            return Err(self.too_long());
        }
        Ok(Some(match found {
            Found::Header(bytes) => CopyPiece::Header(&self.buffer[bytes]),
            Found::Row(bytes, content) => CopyPiece::Row(CopyRow {
                bytes: &self.buffer[bytes],
                content,
            }),
            Found::Trailer(bytes) => CopyPiece::Trailer(&self.buffer[bytes]),
        }))
    }

    fn too_long(&self) -> CopyRowError {
        CopyRowError::RowTooLong {
            row_bytes_max: self.row_bytes_max,
        }
    }

    /// Takes the piece up to `end`.
    fn take(&mut self, end: usize) -> Range<usize> {
        let taken = self.start..end;
        (self.start, self.scan) = (end, end);
        taken
    }

    fn find_line(&mut self) -> Result<Option<Found>, CopyRowError> {
        if self.expected == Expected::Nothing {
            return if self.start < self.buffer.len() {
                Err(CopyRowError::DataAfterEnd)
            } else {
                Ok(None)
            };
        }
        let line = if self.format == CopyFormat::Csv {
            self.find_csv_end()?
        } else {
            self.find_text_end()?
        };
        let (content_end, end) = match line {
            Line::Ended(content_end, end) => (content_end, end),
            Line::Marker(marker) => (marker, marker),
            Line::More if self.input_ended && self.start < self.buffer.len() => {
                (self.buffer.len(), self.buffer.len())
            }
            Line::More => return Ok(None),
        };
        let expected = std::mem::replace(&mut self.expected, Expected::Row);
        let bytes = self.take(end);
        (self.in_quote, self.after_escape) = (false, false);
        if let Line::Marker(_) = line {
            self.expected = Expected::Nothing;
            self.start = self.marker_end(end);
            self.scan = self.start;
            if bytes.is_empty() {
                return self.find_line();
            }
        }
        match expected {
            Expected::Header => Ok(Some(Found::Header(bytes))),
            Expected::Row | Expected::Nothing => {
                Ok(Some(Found::Row(bytes.clone(), content_end - bytes.start)))
            }
        }
    }

    /// Where data would go on after the marker: after its line, or at the end, for PostgreSQL ignores what follows
    /// it in the text format.
    fn marker_end(&self, marker: usize) -> usize {
        if self.format == CopyFormat::Text {
            return self.buffer.len();
        }
        let line = &self.buffer[marker..];
        let newline = if line[2..].starts_with(b"\r\n") { 2 } else { 1 };
        marker + 2 + newline
    }

    fn find_text_end(&mut self) -> Result<Line, CopyRowError> {
        while let Some(length) = memchr::memchr3(b'\n', b'\r', b'\\', &self.buffer[self.scan..]) {
            let at = self.scan + length;
            self.scan = at;
            if self.buffer[at] != b'\\' {
                return self.end_line(at);
            }
            match self.buffer.get(at + 1) {
                None => return Ok(Line::More),
                Some(b'.') => {
                    return match self.marker(at) {
                        Marker::Here => Ok(Line::Marker(at)),
                        Marker::More => Ok(Line::More),
                        Marker::None(error) => Err(error),
                    };
                }
                Some(_) => self.scan = at + 2,
            }
        }
        self.scan = self.buffer.len();
        Ok(Line::More)
    }

    fn find_csv_end(&mut self) -> Result<Line, CopyRowError> {
        loop {
            let rest = &self.buffer[self.scan..];
            if self.in_quote {
                let escape = self.escape.unwrap_or(self.quote);
                let Some(length) = memchr::memchr2(self.quote, escape, rest) else {
                    break;
                };
                // An escape counts only directly before what it escapes.
                self.after_escape &= length == 0;
                let byte = rest[length];
                if self.escape == Some(byte) {
                    self.after_escape = !self.after_escape;
                } else {
                    self.in_quote = self.after_escape;
                    self.after_escape = false;
                }
                self.scan += length + 1;
                continue;
            }
            if self.scan == self.start && rest.first() == Some(&b'\\') {
                match self.marker(self.scan) {
                    Marker::Here => return Ok(Line::Marker(self.scan)),
                    Marker::More => return Ok(Line::More),
                    Marker::None(_) => {}
                }
                self.in_quote = self.quote == b'\\';
                self.scan += 1;
                continue;
            }
            let Some(length) = memchr::memchr3(self.quote, b'\n', b'\r', rest) else {
                break;
            };
            let at = self.scan + length;
            self.scan = at;
            if self.buffer[at] != self.quote {
                return self.end_line(at);
            }
            self.in_quote = true;
            self.scan = at + 1;
        }
        self.after_escape &= self.scan == self.buffer.len();
        self.scan = self.buffer.len();
        Ok(Line::More)
    }

    /// The line whose carriage return or newline is at `at`.
    fn end_line(&mut self, at: usize) -> Result<Line, CopyRowError> {
        let csv = self.format == CopyFormat::Csv;
        let is_return = self.buffer[at] == b'\r';
        match (self.line_end, is_return) {
            (LineEnd::Unknown | LineEnd::Both, true) => match self.buffer.get(at + 1) {
                Some(b'\n') => {
                    self.line_end = LineEnd::Both;
                    Ok(Line::Ended(at, at + 2))
                }
                None if !self.input_ended => Ok(Line::More),
                _ if self.line_end == LineEnd::Both => Err(stray_return(csv)),
                _ => {
                    self.line_end = LineEnd::CarriageReturn;
                    Ok(Line::Ended(at, at + 1))
                }
            },
            (LineEnd::CarriageReturn, true) => Ok(Line::Ended(at, at + 1)),
            (LineEnd::Newline, true) => Err(stray_return(csv)),
            (LineEnd::Unknown | LineEnd::Newline, false) => {
                self.line_end = LineEnd::Newline;
                Ok(Line::Ended(at, at + 1))
            }
            (LineEnd::CarriageReturn | LineEnd::Both, false) if csv => {
                Err(CopyRowError::UnquotedNewline)
            }
            (LineEnd::CarriageReturn | LineEnd::Both, false) => Err(CopyRowError::LiteralNewline),
        }
    }

    /// Whether the backslash at `at` begins the end-of-copy marker.
    fn marker(&self, at: usize) -> Marker {
        let byte = |ahead: usize| self.buffer.get(at + ahead).copied();
        let none_at_end = |error| {
            if self.input_ended {
                Marker::None(error)
            } else {
                Marker::More
            }
        };
        match byte(1) {
            None => return none_at_end(CopyRowError::EndMarkerCorrupt),
            Some(b'.') => {}
            Some(_) => return Marker::None(CopyRowError::EndMarkerCorrupt),
        }
        let both = self.line_end == LineEnd::Both;
        if both {
            match byte(2) {
                None => return none_at_end(CopyRowError::EndMarkerCorrupt),
                Some(b'\r') => {}
                Some(b'\n') => return Marker::None(CopyRowError::EndMarkerNewline),
                Some(_) => return Marker::None(CopyRowError::EndMarkerCorrupt),
            }
        }
        let last = if both { 3 } else { 2 };
        match (byte(last), self.line_end) {
            (None, _) => none_at_end(CopyRowError::EndMarkerCorrupt),
            // The newline that may follow belongs to the marker's line.
            (Some(b'\r'), LineEnd::Unknown) if byte(3).is_none() && !self.input_ended => {
                Marker::More
            }
            (Some(b'\n'), LineEnd::Unknown | LineEnd::Newline | LineEnd::Both)
            | (Some(b'\r'), LineEnd::Unknown | LineEnd::CarriageReturn) => Marker::Here,
            (Some(b'\n' | b'\r'), _) => Marker::None(CopyRowError::EndMarkerNewline),
            (Some(_), _) => Marker::None(CopyRowError::EndMarkerCorrupt),
        }
    }

    fn find_binary(&mut self) -> Result<Option<Found>, CopyRowError> {
        match self.expected {
            Expected::Header => self.find_binary_header(),
            Expected::Row => self.find_tuple(),
            Expected::Nothing if self.start < self.buffer.len() => Err(CopyRowError::DataAfterEnd),
            Expected::Nothing => Ok(None),
        }
    }

    fn find_binary_header(&mut self) -> Result<Option<Found>, CopyRowError> {
        let bytes = &self.buffer[self.start..];
        let known = bytes.len().min(BINARY_SIGNATURE.len());
        if bytes[..known] != BINARY_SIGNATURE[..known] {
            return Err(CopyRowError::BinarySignature);
        }
        let short = |error| {
            if self.input_ended {
                Err(error)
            } else {
                Ok(None)
            }
        };
        if known < BINARY_SIGNATURE.len() {
            return short(CopyRowError::BinarySignature);
        }
        let Some(flags) = read_i32(bytes, 11) else {
            return short(CopyRowError::BinaryHeader("missing flags"));
        };
        if flags & 1 << 16 != 0 {
            return Err(CopyRowError::BinaryHeader("WITH OIDS"));
        }
        if flags >> 16 != 0 {
            return Err(CopyRowError::BinaryFlags);
        }
        let Some(length) = read_i32(bytes, 15) else {
            return short(CopyRowError::BinaryHeader("missing length"));
        };
        let wrong = CopyRowError::BinaryHeader("wrong length");
        let length = usize::try_from(length).map_err(|_| wrong)?;
        if length > self.row_bytes_max {
            return Err(self.too_long());
        }
        if bytes.len() < 19 + length {
            return short(wrong);
        }
        self.expected = Expected::Row;
        Ok(Some(Found::Header(self.take(self.start + 19 + length))))
    }

    fn find_tuple(&mut self) -> Result<Option<Found>, CopyRowError> {
        let mut left = match self.fields_left {
            Some(left) => left,
            None => {
                let Some(count) = self.buffer.get(self.start..self.start + 2) else {
                    return self.at_binary_end();
                };
                self.scan = self.start + 2;
                match i16::from_be_bytes([count[0], count[1]]) {
                    -1 => {
                        self.expected = Expected::Nothing;
                        return Ok(Some(Found::Trailer(self.take(self.start + 2))));
                    }
                    count => u16::try_from(count).map_err(|_| CopyRowError::BinaryFieldSize)?,
                }
            }
        };
        while left > 0 {
            self.fields_left = Some(left);
            let Some(length) = read_i32(&self.buffer, self.scan) else {
                return self.at_binary_end();
            };
            let length = match length {
                -1 => 0,
                length => usize::try_from(length).map_err(|_| CopyRowError::BinaryFieldSize)?,
            };
            let end = self.scan + 4 + length;
            if end - self.start > self.row_bytes_max {
                return Err(self.too_long());
            }
            if end > self.buffer.len() {
                return self.at_binary_end();
            }
            self.scan = end;
            left -= 1;
        }
        self.fields_left = None;
        let bytes = self.take(self.scan);
        let content = bytes.len();
        Ok(Some(Found::Row(bytes, content)))
    }

    fn at_binary_end(&self) -> Result<Option<Found>, CopyRowError> {
        match self.input_ended && self.start < self.buffer.len() {
            true => Err(CopyRowError::UnexpectedEnd),
            false => Ok(None),
        }
    }
}

fn stray_return(csv: bool) -> CopyRowError {
    if csv {
        CopyRowError::UnquotedCarriageReturn
    } else {
        CopyRowError::LiteralCarriageReturn
    }
}

fn read_i32(bytes: &[u8], at: usize) -> Option<i32> {
    bytes
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(i32::from_be_bytes)
}

/// A row whose key has no value. PostgreSQL has the better words for the first two: a shard, any shard, that gets
/// the row rejects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CopyKeyError {
    /// The row ends before the key's column: 22P04.
    #[error("missing data for the sharding key's column")]
    Missing,
    /// 22P04.
    #[error("unterminated CSV quoted field")]
    UnterminatedQuote,
    /// The row asks for the column's default: 0A000.
    #[error("COPY of a default into the sharding key is not supported")]
    Default,
}

impl ErrorReply for CopyKeyError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Missing | Self::UnterminatedQuote => SqlState::BAD_COPY_FILE_FORMAT,
            Self::Default => SqlState::FEATURE_NOT_SUPPORTED,
        }
    }

    fn fault(&self) -> Fault {
        Fault::Client
    }

    fn detail(&self) -> Option<String> {
        None
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing | Self::UnterminatedQuote => None,
            Self::Default => Some("Write the key's value into the row.".to_owned()),
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Missing | Self::UnterminatedQuote => None,
            Self::Default => Some("copy_default_key"),
        }
    }
}

/// Finds one column's value in rows.
#[derive(Debug, Clone)]
pub struct CopyKey {
    format: CopyFormat,
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: Vec<u8>,
    default: Option<Vec<u8>>,
    force_not_null: bool,
    force_null: bool,
    column: usize,
}

impl CopyKey {
    /// For the column called `name` that comes `column`th (from 0) in the data.
    pub fn new(options: &CopyOptions, column: usize, name: &str) -> Self {
        Self {
            format: options.format,
            delimiter: options.delimiter,
            quote: options.quote,
            escape: options.escape,
            null: options.null.as_bytes().to_owned(),
            default: options
                .default
                .as_ref()
                .map(|default| default.as_bytes().to_owned()),
            force_not_null: options.force_not_null.contains(name),
            force_null: options.force_null.contains(name),
            column,
        }
    }

    /// The value: decoded text in the client's encoding, or the type's binary form; `None` is NULL.
    ///
    /// # Errors
    /// See [`CopyKeyError`].
    pub fn value<'a>(&self, row: CopyRow<'a>) -> Result<Option<Cow<'a, [u8]>>, CopyKeyError> {
        match self.format {
            CopyFormat::Text => self.text_value(row.content()),
            CopyFormat::Csv => self.csv_value(row.content()),
            CopyFormat::Binary => self.binary_value(row.bytes),
        }
    }

    fn text_value<'a>(&self, mut rest: &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, CopyKeyError> {
        for _ in 0..self.column {
            let end = text_field_end(rest, self.delimiter);
            rest = rest.get(end + 1..).ok_or(CopyKeyError::Missing)?;
        }
        let raw = &rest[..text_field_end(rest, self.delimiter)];
        // A backslash that ends the line stands for nothing.
        let raw = if ends_in_lone_backslash(raw) {
            &raw[..raw.len() - 1]
        } else {
            raw
        };
        if raw == self.null {
            return Ok(None);
        }
        if self.default.as_deref() == Some(raw) {
            return Err(CopyKeyError::Default);
        }
        Ok(Some(unescape(raw)))
    }

    fn csv_value<'a>(&self, mut rest: &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, CopyKeyError> {
        for _ in 0..self.column {
            let (_, _, end) = self.csv_field(rest)?;
            rest = rest.get(end + 1..).ok_or(CopyKeyError::Missing)?;
        }
        let (value, quoted, end) = self.csv_field(rest)?;
        if !quoted && self.default.as_deref() == Some(&rest[..end]) {
            return Err(CopyKeyError::Default);
        }
        let is_null = *value == *self.null;
        Ok(match quoted {
            false if is_null && self.force_not_null => Some(value),
            false if is_null => None,
            _ if is_null && self.force_null => None,
            _ => Some(value),
        })
    }

    /// The first field's value, whether it has quotes, and where it ends.
    fn csv_field<'a>(&self, rest: &'a [u8]) -> Result<(Cow<'a, [u8]>, bool, usize), CopyKeyError> {
        let plain = memchr::memchr2(self.delimiter, self.quote, rest).unwrap_or(rest.len());
        if rest.get(plain) != Some(&self.quote) {
            return Ok((Cow::Borrowed(&rest[..plain]), false, plain));
        }
        let mut value = rest[..plain].to_vec();
        let mut in_quote = false;
        let mut at = plain;
        while let Some(&byte) = rest.get(at) {
            let next = rest.get(at + 1).copied();
            at += 1;
            match in_quote {
                false if byte == self.delimiter => return Ok((Cow::Owned(value), true, at - 1)),
                false if byte == self.quote => in_quote = true,
                true if byte == self.escape
                    && next.is_some_and(|next| next == self.escape || next == self.quote) =>
                {
                    value.extend(next);
                    at += 1;
                }
                true if byte == self.quote => in_quote = false,
                _ => value.push(byte),
            }
        }
        if in_quote {
            Err(CopyKeyError::UnterminatedQuote)
        } else {
            Ok((Cow::Owned(value), true, at))
        }
    }

    fn binary_value<'a>(&self, tuple: &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, CopyKeyError> {
        let mut at = 2;
        for column in 0.. {
            let length = read_i32(tuple, at).ok_or(CopyKeyError::Missing)?;
            let field = usize::try_from(length).ok();
            let end = at + 4 + field.unwrap_or(0);
            if column == self.column {
                let value = tuple.get(at + 4..end).ok_or(CopyKeyError::Missing)?;
                return Ok(field.map(|_| Cow::Borrowed(value)));
            }
            at = end;
        }
        Err(CopyKeyError::Missing)
    }
}

/// Where the first field of a text line ends.
fn text_field_end(rest: &[u8], delimiter: u8) -> usize {
    let mut at = 0;
    while let Some(length) = rest
        .get(at..)
        .and_then(|rest| memchr::memchr2(delimiter, b'\\', rest))
    {
        at += length;
        // PostgreSQL does not let a backslash be the delimiter.
        if rest[at] == delimiter {
            return at;
        }
        at += 2;
    }
    rest.len()
}

fn ends_in_lone_backslash(raw: &[u8]) -> bool {
    raw.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The value of a field of the text format.
fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        value.extend_from_slice(&rest[..at]);
        let escape = &rest[at + 1..];
        let Some(&first) = escape.first() else {
            return Cow::Owned(value);
        };
        let (byte, length) = match first {
            b'0'..=b'7' => digits(escape, 8, 3),
            b'x' if escape.get(1).is_some_and(u8::is_ascii_hexdigit) => {
                let (byte, length) = digits(&escape[1..], 16, 2);
                (byte, length + 1)
            }
            b'b' => (b'\x08', 1),
            b'f' => (b'\x0c', 1),
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b't' => (b'\t', 1),
            b'v' => (b'\x0b', 1),
            other => (other, 1),
        };
        value.push(byte);
        rest = &escape[length..];
    }
    value.extend_from_slice(rest);
    Cow::Owned(value)
}

/// The low eight bits of up to `digits_max` digits, and how many there are.
fn digits(text: &[u8], radix: u32, digits_max: usize) -> (u8, usize) {
    let digits = text
        .iter()
        .take(digits_max)
        .map_while(|byte| char::from(*byte).to_digit(radix));
    let (number, length) = digits.fold((0, 0), |(number, length), digit| {
        (number * radix + digit, length + 1)
    });
    ((number & 0xff) as u8, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::copy::CopySource;
    use crate::sql::lex::{LexLimits, lex};
    use crate::sql::statement::{Statement, classify};
    use proptest::prelude::*;

    fn options(with: &str) -> CopyOptions {
        let sql = format!("copy t from stdin ({with})");
        let tokens = lex(
            &sql,
            &LexLimits {
                tokens_max: 100,
                depth_max: 10,
            },
        )
        .unwrap();
        match classify(&sql, &tokens) {
            Ok(Statement::Copy(copy)) if matches!(copy.source, CopySource::Table { .. }) => {
                copy.options
            }
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// Pieces as text: `H` or `R` or `T`, then the bytes.
    fn pieces(
        options: &CopyOptions,
        chunks: &[&[u8]],
    ) -> Result<Vec<(char, Vec<u8>)>, CopyRowError> {
        let mut rows = CopyRows::new(options, 64);
        let mut pieces = Vec::new();
        for index in 0..=chunks.len() {
            match chunks.get(index) {
                Some(chunk) => rows.push(chunk),
                None => rows.finish(),
            }
            while let Some(piece) = rows.read()? {
                pieces.push(match piece {
                    CopyPiece::Header(bytes) => ('H', bytes.to_vec()),
                    CopyPiece::Row(row) => ('R', row.bytes.to_vec()),
                    CopyPiece::Trailer(bytes) => ('T', bytes.to_vec()),
                });
            }
        }
        Ok(pieces)
    }

    /// The pieces of `data`, which must not depend on how it is cut.
    fn cut(with: &str, data: &[u8]) -> Result<Vec<(char, Vec<u8>)>, CopyRowError> {
        let options = options(with);
        let whole = pieces(&options, &[data]);
        for size in 1..data.len() {
            assert_eq!(
                pieces(&options, &data.chunks(size).collect::<Vec<_>>()),
                whole,
                "{size}"
            );
        }
        whole
    }

    fn expect(with: &str, data: &str, expected: &[(char, &str)]) {
        let expected = expected
            .iter()
            .map(|(kind, bytes)| (*kind, bytes.as_bytes().to_vec()))
            .collect();
        assert_eq!(cut(with, data.as_bytes()), Ok(expected), "{data:?}");
    }

    fn key(with: &str, column: usize, row: &str) -> Result<Option<Vec<u8>>, CopyKeyError> {
        let row = CopyRow {
            bytes: row.as_bytes(),
            content: row.len(),
        };
        CopyKey::new(&options(with), column, "k")
            .value(row)
            .map(|value| value.map(Cow::into_owned))
    }

    #[test]
    fn text_lines_end_as_postgresql_ends_them() {
        let text = "format text";
        expect(text, "", &[]);
        expect(text, "a\nb", &[('R', "a\n"), ('R', "b")]);
        expect(
            text,
            "a\r\n\r\nb\r\n",
            &[('R', "a\r\n"), ('R', "\r\n"), ('R', "b\r\n")],
        );
        expect(text, "a\rb\r", &[('R', "a\r"), ('R', "b\r")]);
        expect(
            text,
            "a\\\nb\\\\\nc\n",
            &[('R', "a\\\nb\\\\\n"), ('R', "c\n")],
        );
        expect(text, "a\n\\.\nb\n", &[('R', "a\n")]);
        expect(text, "a\\.\nb\n", &[('R', "a")]);
        expect(text, "a\r\n\\.\r\n", &[('R', "a\r\n")]);
        expect(text, "a\\", &[('R', "a\\")]);
        expect("header", "k\n1\n", &[('H', "k\n"), ('R', "1\n")]);
    }

    #[test]
    fn csv_lines_end_outside_quotes_only() {
        let csv = "format csv";
        expect(
            csv,
            "\"a\nb\",c\nd\n",
            &[('R', "\"a\nb\",c\n"), ('R', "d\n")],
        );
        expect(csv, "a\"\n\"b\nc", &[('R', "a\"\n\"b\n"), ('R', "c")]);
        expect(
            csv,
            "\"a\"\"\n\"\nb\n",
            &[('R', "\"a\"\"\n\"\n"), ('R', "b\n")],
        );
        expect(
            "format csv, escape '\\'",
            "\"a\\\"\n\\\\\"\nb\n",
            &[('R', "\"a\\\"\n\\\\\"\n"), ('R', "b\n")],
        );
        expect(
            "format csv, quote ''''",
            "'\n'\n\"\n",
            &[('R', "'\n'\n"), ('R', "\"\n")],
        );
        expect(
            "format csv, header",
            "\"k\n\"\r\n1\r\n",
            &[('H', "\"k\n\"\r\n"), ('R', "1\r\n")],
        );
        expect(csv, "a\n\\.\n", &[('R', "a\n")]);
        expect(csv, "\\.\r\n", &[]);
        expect(csv, "\\.x\n\\.", &[('R', "\\.x\n"), ('R', "\\.")]);
        expect(
            csv,
            "a\\.\n\"\n\\.\n\"\n",
            &[('R', "a\\.\n"), ('R', "\"\n\\.\n\"\n")],
        );
    }

    #[test]
    fn mixed_line_ends_are_errors() {
        let cases = [
            (
                "format text",
                "a\nb\rc",
                CopyRowError::LiteralCarriageReturn,
            ),
            (
                "format text",
                "a\r\nb\rc",
                CopyRowError::LiteralCarriageReturn,
            ),
            ("format text", "a\r\nb\n", CopyRowError::LiteralNewline),
            ("format text", "a\rb\n", CopyRowError::LiteralNewline),
            (
                "format csv",
                "a\nb\r\n",
                CopyRowError::UnquotedCarriageReturn,
            ),
            ("format csv", "a\r\nb\n", CopyRowError::UnquotedNewline),
            ("format text", "a\n\\.b\n", CopyRowError::EndMarkerCorrupt),
            ("format text", "a\n\\.", CopyRowError::EndMarkerCorrupt),
            ("format text", "a\n\\.\r\n", CopyRowError::EndMarkerNewline),
            ("format text", "a\r\n\\.\n", CopyRowError::EndMarkerNewline),
            ("format csv", "a\n\\.\nb", CopyRowError::DataAfterEnd),
        ];
        for (with, data, expected) in cases {
            assert_eq!(cut(with, data.as_bytes()), Err(expected), "{data:?}");
        }
    }

    fn binary(fields: &[&[Option<&[u8]>]], trailer: &[u8]) -> Vec<u8> {
        let mut data = BINARY_SIGNATURE.to_vec();
        data.extend([0, 0, 0, 0, 0, 0, 0, 2, b'x', b'y']);
        for tuple in fields {
            data.extend((tuple.len() as i16).to_be_bytes());
            for field in *tuple {
                data.extend(field.map_or(-1, |field| field.len() as i32).to_be_bytes());
                data.extend(field.unwrap_or_default());
            }
        }
        data.extend(trailer);
        data
    }

    #[test]
    fn binary_tuples_are_found() {
        let data = binary(&[&[Some(b"ab"), None], &[]], &[0xff, 0xff]);
        let expected = vec![
            ('H', data[..21].to_vec()),
            ('R', data[21..33].to_vec()),
            ('R', vec![0, 0]),
            ('T', vec![0xff, 0xff]),
        ];
        assert_eq!(cut("format binary", &data), Ok(expected));
        assert_eq!(
            cut("format binary", &binary(&[&[]], &[])).map(|pieces| pieces.len()),
            Ok(2)
        );
    }

    #[test]
    fn wrong_binary_data_are_errors() {
        let with = |at: usize, bytes: &[u8]| {
            let mut data = binary(&[], &[]);
            data[at..at + bytes.len()].copy_from_slice(bytes);
            data
        };
        let cases = [
            (b"PGCOPX".to_vec(), CopyRowError::BinarySignature),
            (b"PGC".to_vec(), CopyRowError::BinarySignature),
            (
                BINARY_SIGNATURE.to_vec(),
                CopyRowError::BinaryHeader("missing flags"),
            ),
            (
                with(11, &[0, 1, 0, 0]),
                CopyRowError::BinaryHeader("WITH OIDS"),
            ),
            (with(11, &[0, 2, 0, 0]), CopyRowError::BinaryFlags),
            (
                with(15, &[0xff; 4]),
                CopyRowError::BinaryHeader("wrong length"),
            ),
            (
                with(15, &[0, 0, 0, 3]),
                CopyRowError::BinaryHeader("wrong length"),
            ),
            (binary(&[], &[0, 1, 0]), CopyRowError::UnexpectedEnd),
            (binary(&[], &[0xff, 0xfe]), CopyRowError::BinaryFieldSize),
            (
                binary(&[], &[0, 1, 0xff, 0xff, 0xff, 0xfe]),
                CopyRowError::BinaryFieldSize,
            ),
            (
                binary(&[], &[0, 1, 0x7f, 0xff, 0xff, 0xff]),
                CopyRowError::RowTooLong { row_bytes_max: 64 },
            ),
            (binary(&[], &[0xff, 0xff, 0]), CopyRowError::DataAfterEnd),
        ];
        for (data, expected) in cases {
            let whole = pieces(&options("format binary"), &[&data]);
            assert_eq!(whole, Err(expected), "{data:?}");
        }
    }

    #[test]
    fn a_row_may_be_as_long_as_the_limit_and_no_longer() {
        let row = |length: usize| [vec![b'x'; length - 1], vec![b'\n']].concat();
        assert_eq!(
            cut("format text", &row(64)).map(|pieces| pieces.len()),
            Ok(1)
        );
        assert_eq!(
            cut("format text", &row(65)),
            Err(CopyRowError::RowTooLong { row_bytes_max: 64 })
        );
    }

    #[test]
    fn text_keys_are_decoded() {
        let cases = [
            ("a\tb\tc", 1, Ok(Some("b"))),
            ("a\t\\N\tc", 1, Ok(None)),
            ("a\t\\\\N\tc", 1, Ok(Some("\\N"))),
            ("a\\\tb\tc", 1, Ok(Some("c"))),
            (
                "\\b\\f\\n\\r\\t\\v\\\\\\q",
                0,
                Ok(Some("\x08\x0c\n\r\t\x0b\\q")),
            ),
            ("\\101\\x41\\x4z\\xg\\1018", 0, Ok(Some("AA\x04zxgA8"))),
            ("a\\", 0, Ok(Some("a"))),
            ("", 0, Ok(Some(""))),
            ("a\t", 1, Ok(Some(""))),
            ("a\tb", 2, Err(CopyKeyError::Missing)),
        ];
        for (row, column, expected) in cases {
            let expected = expected.map(|value| value.map(|value: &str| value.as_bytes().to_vec()));
            assert_eq!(key("format text", column, row), expected, "{row:?}");
        }
        assert_eq!(key("null 'x', delimiter '|'", 1, "a|x"), Ok(None));
        assert_eq!(key("default 'd'", 0, "d"), Err(CopyKeyError::Default));
    }

    #[test]
    fn csv_keys_are_decoded() {
        let csv = "format csv";
        let cases = [
            (csv, "a,b,c", 1, Ok(Some("b"))),
            (csv, "a,,c", 1, Ok(None)),
            (csv, "a,\"\",c", 1, Ok(Some(""))),
            (csv, "\"a,\"\"\n\",b", 0, Ok(Some("a,\"\n"))),
            (csv, "\"a,\"\"\n\",b", 1, Ok(Some("b"))),
            (csv, "x\"a,\"y\"z\",b", 0, Ok(Some("xa,yz"))),
            (csv, "\"a", 0, Err(CopyKeyError::UnterminatedQuote)),
            (csv, "a", 1, Err(CopyKeyError::Missing)),
            (
                "format csv, escape '\\'",
                "\"a\\\"\\\\\\b\"",
                0,
                Ok(Some("a\"\\\\b")),
            ),
            ("format csv, null 'N'", "N", 0, Ok(None)),
            ("format csv, null 'N'", "\"N\"", 0, Ok(Some("N"))),
            ("format csv, null 'N', force_null (k)", "\"N\"", 0, Ok(None)),
            (
                "format csv, null 'N', force_not_null (k)",
                "N",
                0,
                Ok(Some("N")),
            ),
            (
                "format csv, default 'D'",
                "D",
                0,
                Err(CopyKeyError::Default),
            ),
            ("format csv, default 'D'", "\"D\"", 0, Ok(Some("D"))),
        ];
        for (with, row, column, expected) in cases {
            let expected = expected.map(|value| value.map(|value: &str| value.as_bytes().to_vec()));
            assert_eq!(key(with, column, row), expected, "{with} {row:?}");
        }
    }

    #[test]
    fn binary_keys_are_found() {
        let data = binary(&[&[Some(b"ab"), None, Some(b"")]], &[]);
        let row = CopyRow {
            bytes: &data[21..],
            content: data.len() - 21,
        };
        let value = |column| CopyKey::new(&options("format binary"), column, "k").value(row);
        assert_eq!(value(0), Ok(Some(Cow::Borrowed(b"ab".as_slice()))));
        assert_eq!(value(1), Ok(None));
        assert_eq!(value(2), Ok(Some(Cow::Borrowed(b"".as_slice()))));
        assert_eq!(value(3), Err(CopyKeyError::Missing));
    }

    fn encode_text(field: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        for byte in field {
            match byte {
                b'\n' => encoded.extend(b"\\n"),
                b'\r' => encoded.extend(b"\\r"),
                b'\t' | b'\\' => encoded.extend([b'\\', *byte]),
                _ => encoded.push(*byte),
            }
        }
        encoded
    }

    proptest! {
        #[test]
        fn chunks_never_change_the_rows(
            data in proptest::collection::vec(prop::sample::select(b"ab,\"\\.\n\r\t".to_vec()), 0..40),
            cuts in proptest::collection::vec(0usize..40, 0..6),
            with in prop::sample::select(vec!["format text", "format csv", "format csv, escape '\\'", "header"]),
        ) {
            let options = options(with);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(data.len())).chain([0, data.len()]).collect();
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &data[cut[0]..cut[1]]).collect();
            prop_assert_eq!(pieces(&options, &chunks), pieces(&options, &[&data]));
        }

        #[test]
        fn encoded_text_fields_are_found_again(
            fields in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..8), 1..4),
        ) {
            let line = fields.iter().map(|field| encode_text(field)).collect::<Vec<_>>().join(&b'\t');
            let mut rows = CopyRows::new(&options("format text"), 1024);
            rows.push(&[&line[..], b"\n"].concat());
            let Ok(Some(CopyPiece::Row(row))) = rows.read() else { panic!("{line:?}") };
            for (column, field) in fields.iter().enumerate() {
                let key = CopyKey::new(&options("format text"), column, "k");
                let value = key.value(row).unwrap();
                prop_assert_eq!(value.as_deref(), Some(&field[..]));
            }
        }
    }
}

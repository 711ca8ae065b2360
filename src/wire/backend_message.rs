//! What a shard sends: readers over a frame's body; and writers for what the router sends to a client. Shards are
//! not trusted: every length and count is checked. Errors and notices are written by [`super::error_response`].
//!
//! PostgreSQL's documentation: "Message Formats".

use super::error_response::Severity;
use super::frame::{Format, Formats, MessageError, Reader};
use super::frame::{put_counted, put_text, put_value, write_message};
use super::sqlstate::SqlState;
use bytes::{BufMut, BytesMut};
use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};

/// The tags of what a server sends.
pub mod tag {
    /// Authentication requests of all kinds.
    pub const AUTHENTICATION: u8 = b'R';
    /// BackendKeyData.
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// BindComplete.
    pub const BIND_COMPLETE: u8 = b'2';
    /// CloseComplete.
    pub const CLOSE_COMPLETE: u8 = b'3';
    /// CommandComplete.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// CopyBothResponse.
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    /// CopyData.
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone.
    pub const COPY_DONE: u8 = b'c';
    /// CopyInResponse.
    pub const COPY_IN_RESPONSE: u8 = b'G';
    /// CopyOutResponse.
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    /// DataRow.
    pub const DATA_ROW: u8 = b'D';
    /// EmptyQueryResponse.
    pub const EMPTY_QUERY: u8 = b'I';
    /// ErrorResponse.
    pub const ERROR_RESPONSE: u8 = b'E';
    /// FunctionCallResponse.
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    /// NegotiateProtocolVersion.
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    /// NoData.
    pub const NO_DATA: u8 = b'n';
    /// NoticeResponse.
    pub const NOTICE_RESPONSE: u8 = b'N';
    /// NotificationResponse.
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    /// ParameterDescription.
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    /// ParameterStatus.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// ParseComplete.
    pub const PARSE_COMPLETE: u8 = b'1';
    /// PortalSuspended.
    pub const PORTAL_SUSPENDED: u8 = b's';
    /// ReadyForQuery.
    pub const READY_FOR_QUERY: u8 = b'Z';
    /// RowDescription.
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// All fields of an ErrorResponse or NoticeResponse. Text that is not UTF-8 has its bad bytes replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// `V`, else `S`; ERROR where neither says a known word.
    pub severity: Severity,
    /// `C`; `XX000` where there is none.
    pub sqlstate: SqlState,
    /// `M`.
    pub message: Cow<'a, str>,
    /// `D`.
    pub detail: Option<Cow<'a, str>>,
    /// `H`.
    pub hint: Option<Cow<'a, str>>,
    /// `P`: characters from 1 in the text as the shard saw it.
    pub position: Option<u32>,
    /// `p`: characters from 1 in [`ErrorFields::internal_query`].
    pub internal_position: Option<u32>,
    /// `q`.
    pub internal_query: Option<Cow<'a, str>>,
    /// `W`: the context.
    pub context: Option<Cow<'a, str>>,
    /// `s`.
    pub schema: Option<Cow<'a, str>>,
    /// `t`.
    pub table: Option<Cow<'a, str>>,
    /// `c`.
    pub column: Option<Cow<'a, str>>,
    /// `d`.
    pub data_type: Option<Cow<'a, str>>,
    /// `n`.
    pub constraint: Option<Cow<'a, str>>,
    /// `F`: file of the server's source.
    pub file: Option<Cow<'a, str>>,
    /// `L`: line in it.
    pub line: Option<Cow<'a, str>>,
    /// `R`: its function.
    pub routine: Option<Cow<'a, str>>,
}

impl<'a> ErrorFields<'a> {
    /// Reads the body of an ErrorResponse or NoticeResponse. Unknown fields are skipped; of a repeated one the last
    /// counts.
    ///
    /// # Errors
    ///
    /// A field without its NUL, no final NUL, or bytes after it.
    pub fn read(body: &'a [u8]) -> Result<ErrorFields<'a>, MessageError> {
        let mut fields = ErrorFields {
            severity: Severity::Error,
            sqlstate: SqlState::INTERNAL_ERROR,
            message: Cow::Borrowed(""),
            detail: None,
            hint: None,
            position: None,
            internal_position: None,
            internal_query: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            data_type: None,
            constraint: None,
            file: None,
            line: None,
            routine: None,
        };
        let (mut localized, mut untranslated) = (None, None);
        let mut reader = Reader::new(body);
        loop {
            let name = reader.u8()?;
            if name == 0 {
                break;
            }
            let bytes = reader.text_bytes()?;
            let text = String::from_utf8_lossy(bytes);
            match name {
                b'S' => localized = Severity::parse(bytes),
                b'V' => untranslated = Severity::parse(bytes),
                b'C' => fields.sqlstate = SqlState::parse(bytes).unwrap_or(fields.sqlstate),
                b'M' => fields.message = text,
                b'D' => fields.detail = Some(text),
                b'H' => fields.hint = Some(text),
                b'P' => fields.position = text.parse().ok(),
                b'p' => fields.internal_position = text.parse().ok(),
                b'q' => fields.internal_query = Some(text),
                b'W' => fields.context = Some(text),
                b's' => fields.schema = Some(text),
                b't' => fields.table = Some(text),
                b'c' => fields.column = Some(text),
                b'd' => fields.data_type = Some(text),
                b'n' => fields.constraint = Some(text),
                b'F' => fields.file = Some(text),
                b'L' => fields.line = Some(text),
                b'R' => fields.routine = Some(text),
                _ => (),
            }
        }
        reader.end()?;
        fields.severity = untranslated.or(localized).unwrap_or(Severity::Error);
        Ok(fields)
    }
}

/// One column of a RowDescription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnDescription<'a> {
    /// Its name, in the client's encoding.
    pub name: &'a [u8],
    /// The table it comes from, or 0.
    pub table_oid: u32,
    /// Its `attnum` there, or 0.
    pub attribute: i16,
    /// Its type.
    pub type_oid: u32,
    /// `typlen`: bytes, or negative for a varying width.
    pub type_size: i16,
    /// `atttypmod`, or -1.
    pub type_modifier: i32,
    /// How its values are written; in the answer to Describe of a statement always text.
    pub format: Format,
}

impl<'a> ColumnDescription<'a> {
    /// A text column that comes from no table, as for the router's own results.
    pub fn text(name: &'a str) -> ColumnDescription<'a> {
        ColumnDescription {
            name: name.as_bytes(),
            table_oid: 0,
            attribute: 0,
            type_oid: 25,
            type_size: -1,
            type_modifier: -1,
            format: Format::Text,
        }
    }
}

/// Reads the body of a RowDescription.
///
/// # Errors
///
/// Fewer columns than counted, or bytes after them.
pub fn read_row_description(body: &[u8]) -> Result<Vec<ColumnDescription<'_>>, MessageError> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        columns.push(read_column(&mut reader)?);
    }
    reader.end()?;
    Ok(columns)
}

fn read_column<'a>(reader: &mut Reader<'a>) -> Result<ColumnDescription<'a>, MessageError> {
    Ok(ColumnDescription {
        name: reader.text_bytes()?,
        table_oid: reader.u32()?,
        attribute: reader.i16()?,
        type_oid: reader.u32()?,
        type_size: reader.i16()?,
        type_modifier: reader.i32()?,
        format: Format::from_code(reader.u16()?)?,
    })
}

/// The columns of one DataRow, read as they are asked for.
#[derive(Debug, Clone, Copy)]
pub struct DataRow<'a> {
    reader: Reader<'a>,
    count: u16,
}

impl<'a> DataRow<'a> {
    /// Reads the count of the DataRow with this body.
    ///
    /// # Errors
    ///
    /// A body without a count.
    pub fn read(body: &'a [u8]) -> Result<DataRow<'a>, MessageError> {
        let mut reader = Reader::new(body);
        let count = reader.u16()?;
        Ok(DataRow { reader, count })
    }

    /// How many columns are left.
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// Whether no column is left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Column `index` (from 0). Walks over those before it.
    ///
    /// # Errors
    ///
    /// [`MessageError::Truncated`] where the row has no such column.
    pub fn column(mut self, index: usize) -> Result<Option<&'a [u8]>, MessageError> {
        self.nth(index).unwrap_or(Err(MessageError::Truncated))
    }
}

impl<'a> Iterator for DataRow<'a> {
    type Item = Result<Option<&'a [u8]>, MessageError>;

    /// The next column; `Ok(None)` is NULL. Ends after an error, and with one where bytes follow the last column.
    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let value = self.reader.value().and_then(|value| {
            if self.count == 0 && !self.reader.rest().is_empty() {
                return Err(MessageError::Trailing);
            }
            Ok(value)
        });
        if value.is_err() {
            self.count = 0;
        }
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.count.into()))
    }
}

/// The status in a ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// `I`: in no block.
    Idle,
    /// `T`: in a block.
    InBlock,
    /// `E`: in a block that has failed.
    Failed,
}

impl TransactionStatus {
    /// The byte on the wire.
    pub fn code(self) -> u8 {
        match self {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InBlock => b'T',
            TransactionStatus::Failed => b'E',
        }
    }
}

/// Reads the body of a ReadyForQuery.
///
/// # Errors
///
/// A status that is none.
pub fn read_ready_for_query(body: &[u8]) -> Result<TransactionStatus, MessageError> {
    let mut reader = Reader::new(body);
    let status = match reader.u8()? {
        b'I' => TransactionStatus::Idle,
        b'T' => TransactionStatus::InBlock,
        b'E' => TransactionStatus::Failed,
        other => {
            return Err(MessageError::Field {
                field: "transaction status",
                value: other.into(),
            });
        }
    };
    reader.end()?;
    Ok(status)
}

/// What a CommandComplete says; printed as PostgreSQL does (`INSERT 0 3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandTag<'a> {
    /// The command: `SELECT`, `CREATE TABLE`, …
    pub verb: &'a str,
    /// How many rows, where the command counts them.
    pub rows: Option<u64>,
}

impl Display for CommandTag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows {
            None => f.write_str(self.verb),
            Some(rows) if self.verb == "INSERT" => write!(f, "INSERT 0 {rows}"),
            Some(rows) => write!(f, "{} {rows}", self.verb),
        }
    }
}

/// Reads the body of a CommandComplete.
///
/// # Errors
///
/// What is not one text.
pub fn read_command_complete(body: &[u8]) -> Result<CommandTag<'_>, MessageError> {
    let mut reader = Reader::new(body);
    let tag = reader.text()?;
    reader.end()?;
    let counted = tag.rsplit_once(' ').and_then(|(verb, rows)| {
        let digits = rows.bytes().all(|byte| byte.is_ascii_digit());
        Some((verb, digits.then(|| rows.parse::<u64>().ok())??))
    });
    Ok(match counted {
        // The number between is the OID of one inserted row; since PostgreSQL 12 always 0.
        Some((verb, rows)) if verb.starts_with("INSERT ") => CommandTag {
            verb: "INSERT",
            rows: Some(rows),
        },
        Some((verb, rows)) => CommandTag {
            verb,
            rows: Some(rows),
        },
        None => CommandTag {
            verb: tag,
            rows: None,
        },
    })
}

/// The tag of a statement that ran in parts: their rows summed. `None` without parts, when they name different
/// commands, when only some count rows, and when the sum passes 64 bits.
pub fn sum_tags<'a>(tags: impl IntoIterator<Item = CommandTag<'a>>) -> Option<CommandTag<'a>> {
    let mut tags = tags.into_iter();
    let first = tags.next()?;
    tags.try_fold(first, |sum, tag| {
        if tag.verb != sum.verb {
            return None;
        }
        let rows = match (sum.rows, tag.rows) {
            (Some(sum), Some(rows)) => Some(sum.checked_add(rows)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return None,
        };
        Some(CommandTag { rows, ..sum })
    })
}

/// Reads the body of a ParameterStatus: name and value.
///
/// # Errors
///
/// What is not two texts.
pub fn read_parameter_status(body: &[u8]) -> Result<(&str, &str), MessageError> {
    let mut reader = Reader::new(body);
    let pair = (reader.text()?, reader.text()?);
    reader.end()?;
    Ok(pair)
}

/// What a CancelRequest must show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BackendKeyData<'a> {
    /// The backend's process id.
    pub pid: i32,
    /// 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub key: &'a [u8],
}

/// Sizes that a cancel key may have, in bytes.
pub const CANCEL_KEY_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// Reads the body of a BackendKeyData.
///
/// # Errors
///
/// A key of a size outside [`CANCEL_KEY_BYTES`].
pub fn read_backend_key_data(body: &[u8]) -> Result<BackendKeyData<'_>, MessageError> {
    let mut reader = Reader::new(body);
    let pid = reader.i32()?;
    let key = reader.rest();
    if !CANCEL_KEY_BYTES.contains(&key.len()) {
        return Err(MessageError::Field {
            field: "cancel key length",
            value: key.len() as i64,
        });
    }
    Ok(BackendKeyData { pid, key })
}

/// An authentication request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Logged in.
    Ok,
    /// The password in clear is wanted.
    CleartextPassword,
    /// The password hashed by MD5 is wanted.
    Md5Password {
        /// What to hash it with.
        salt: [u8; 4],
    },
    /// One of these SASL mechanisms is wanted.
    Sasl {
        /// The server's preference first.
        mechanisms: Vec<&'a str>,
    },
    /// The next step of SASL.
    SaslContinue(&'a [u8]),
    /// The last step of SASL.
    SaslFinal(&'a [u8]),
    /// A way that the router does not speak: Kerberos, GSSAPI, SSPI, …
    Other(u32),
}

/// Reads the body of an authentication request.
///
/// # Errors
///
/// What does not have the form of its kind.
pub fn read_authentication(body: &[u8]) -> Result<Authentication<'_>, MessageError> {
    let mut reader = Reader::new(body);
    let authentication = match reader.u32()? {
        0 => Authentication::Ok,
        3 => Authentication::CleartextPassword,
        5 => Authentication::Md5Password {
            salt: reader.array()?,
        },
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                let mechanism = reader.text()?;
                if mechanism.is_empty() {
                    break;
                }
                mechanisms.push(mechanism);
            }
            Authentication::Sasl { mechanisms }
        }
        11 => return Ok(Authentication::SaslContinue(reader.rest())),
        12 => return Ok(Authentication::SaslFinal(reader.rest())),
        other => return Ok(Authentication::Other(other)),
    };
    reader.end()?;
    Ok(authentication)
}

/// Reads the body of a ParameterDescription: the types' OIDs.
///
/// # Errors
///
/// Fewer than counted, or bytes after them.
pub fn read_parameter_description(body: &[u8]) -> Result<Vec<u32>, MessageError> {
    let mut reader = Reader::new(body);
    let types = reader.oids()?;
    reader.end()?;
    Ok(types)
}

/// A CopyInResponse, CopyOutResponse or CopyBothResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyResponse<'a> {
    /// Text (or CSV), or binary, as a whole.
    pub format: Format,
    /// One for each column.
    pub column_formats: Formats<'a>,
}

/// Reads the body of a CopyInResponse, CopyOutResponse or CopyBothResponse.
///
/// # Errors
///
/// Fewer formats than counted, unknown ones, or bytes after them.
pub fn read_copy_response(body: &[u8]) -> Result<CopyResponse<'_>, MessageError> {
    let mut reader = Reader::new(body);
    let response = CopyResponse {
        format: Format::from_code(reader.u8()?.into())?,
        column_formats: reader.formats()?,
    };
    reader.end()?;
    Ok(response)
}

/// A NotificationResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The notifying backend's process id.
    pub pid: i32,
    /// The channel.
    pub channel: &'a str,
    /// What was sent on it.
    pub payload: &'a str,
}

/// Reads the body of a NotificationResponse.
///
/// # Errors
///
/// What does not have its form.
pub fn read_notification(body: &[u8]) -> Result<Notification<'_>, MessageError> {
    let mut reader = Reader::new(body);
    let notification = Notification {
        pid: reader.i32()?,
        channel: reader.text()?,
        payload: reader.text()?,
    };
    reader.end()?;
    Ok(notification)
}

/// A NegotiateProtocolVersion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiateProtocolVersion<'a> {
    /// The minor version that the server speaks.
    pub minor: u16,
    /// The `_pq_.` options that it does not know.
    pub options: Vec<&'a str>,
}

/// Reads the body of a NegotiateProtocolVersion.
///
/// # Errors
///
/// Fewer options than counted, a version that is not 3, or bytes after the options.
pub fn read_negotiate_protocol_version(
    body: &[u8],
) -> Result<NegotiateProtocolVersion<'_>, MessageError> {
    let mut reader = Reader::new(body);
    // The documentation says the minor version alone; servers send the major one in the upper half.
    let (major, minor) = (reader.u16()?, reader.u16()?);
    if !matches!(major, 0 | 3) {
        return Err(MessageError::Field {
            field: "protocol version",
            value: major.into(),
        });
    }
    let count = reader.u32()?;
    let mut options = Vec::new();
    for _ in 0..count {
        options.push(reader.text()?);
    }
    reader.end()?;
    Ok(NegotiateProtocolVersion { minor, options })
}

/// Appends an AuthenticationOk.
pub fn write_authentication_ok(out: &mut BytesMut) {
    write_message(out, tag::AUTHENTICATION, |out| out.put_u32(0));
}

/// Appends an AuthenticationSASL that offers `mechanisms`, the preferred one first.
pub fn write_authentication_sasl(out: &mut BytesMut, mechanisms: &[&str]) {
    write_message(out, tag::AUTHENTICATION, |out| {
        out.put_u32(10);
        for mechanism in mechanisms {
            put_text(out, mechanism.as_bytes());
        }
        out.put_u8(0);
    });
}

/// Appends an AuthenticationSASLContinue.
pub fn write_authentication_sasl_continue(out: &mut BytesMut, message: &[u8]) {
    write_message(out, tag::AUTHENTICATION, |out| {
        out.put_u32(11);
        out.put_slice(message);
    });
}

/// Appends an AuthenticationSASLFinal.
pub fn write_authentication_sasl_final(out: &mut BytesMut, message: &[u8]) {
    write_message(out, tag::AUTHENTICATION, |out| {
        out.put_u32(12);
        out.put_slice(message);
    });
}

/// Appends a ParameterStatus.
pub fn write_parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    write_message(out, tag::PARAMETER_STATUS, |out| {
        put_text(out, name.as_bytes());
        put_text(out, value.as_bytes());
    });
}

/// Appends a BackendKeyData. A client of protocol 3.0 takes a key of 4 bytes only.
pub fn write_backend_key_data(out: &mut BytesMut, pid: i32, key: &[u8]) {
    write_message(out, tag::BACKEND_KEY_DATA, |out| {
        out.put_i32(pid);
        out.put_slice(key);
    });
}

/// Appends a NegotiateProtocolVersion: the version that will be spoken and the `_pq_.` options that will not.
pub fn write_negotiate_protocol_version<'a>(
    out: &mut BytesMut,
    minor: u16,
    options: impl ExactSizeIterator<Item = &'a str>,
) {
    write_message(out, tag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.put_u16(3);
        out.put_u16(minor);
        out.put_u32(options.len() as u32);
        for option in options {
            put_text(out, option.as_bytes());
        }
    });
}

/// Appends a ReadyForQuery.
pub fn write_ready_for_query(out: &mut BytesMut, status: TransactionStatus) {
    write_message(out, tag::READY_FOR_QUERY, |out| out.put_u8(status.code()));
}

/// Appends a RowDescription.
pub fn write_row_description<'a>(
    out: &mut BytesMut,
    columns: impl IntoIterator<Item = ColumnDescription<'a>>,
) {
    write_message(out, tag::ROW_DESCRIPTION, |out| {
        put_counted(out, columns, |out, column| {
            put_text(out, column.name);
            out.put_u32(column.table_oid);
            out.put_i16(column.attribute);
            out.put_u32(column.type_oid);
            out.put_i16(column.type_size);
            out.put_i32(column.type_modifier);
            out.put_u16(column.format.code());
        });
    });
}

/// Appends a DataRow; `None` is NULL.
pub fn write_data_row<'a>(out: &mut BytesMut, values: impl IntoIterator<Item = Option<&'a [u8]>>) {
    write_message(out, tag::DATA_ROW, |out| {
        put_counted(out, values, put_value)
    });
}

/// Appends the DataRow whose body is `body` with its first `columns` columns only.
///
/// # Errors
///
/// A row that has fewer; nothing is appended then.
pub fn truncate_data_row(
    out: &mut BytesMut,
    body: &[u8],
    columns: u16,
) -> Result<(), MessageError> {
    truncate(out, tag::DATA_ROW, body, columns, |reader| {
        reader.value().map(drop)
    })
}

/// Appends the RowDescription whose body is `body` with its first `columns` columns only.
///
/// # Errors
///
/// A description of fewer; nothing is appended then.
pub fn truncate_row_description(
    out: &mut BytesMut,
    body: &[u8],
    columns: u16,
) -> Result<(), MessageError> {
    truncate(out, tag::ROW_DESCRIPTION, body, columns, |reader| {
        read_column(reader).map(drop)
    })
}

fn truncate(
    out: &mut BytesMut,
    tag: u8,
    body: &[u8],
    columns: u16,
    mut skip: impl FnMut(&mut Reader<'_>) -> Result<(), MessageError>,
) -> Result<(), MessageError> {
    let mut reader = Reader::new(body);
    if reader.u16()? < columns {
        return Err(MessageError::Truncated);
    }
    let from = reader.rest();
    for _ in 0..columns {
        skip(&mut reader)?;
    }
    let kept = &from[..from.len() - reader.rest().len()];
    write_message(out, tag, |out| {
        out.put_u16(columns);
        out.put_slice(kept);
    });
    Ok(())
}

/// Appends a CommandComplete with `command` as its tag: text or a [`CommandTag`].
pub fn write_command_complete(out: &mut BytesMut, command: impl Display) {
    write_message(out, tag::COMMAND_COMPLETE, |out| {
        let _ = write!(out, "{command}");
        out.put_u8(0);
    });
}

/// Appends an EmptyQueryResponse.
pub fn write_empty_query(out: &mut BytesMut) {
    write_message(out, tag::EMPTY_QUERY, |_| ());
}

/// Appends a NoData.
pub fn write_no_data(out: &mut BytesMut) {
    write_message(out, tag::NO_DATA, |_| ());
}

/// Appends a ParseComplete.
pub fn write_parse_complete(out: &mut BytesMut) {
    write_message(out, tag::PARSE_COMPLETE, |_| ());
}

/// Appends a BindComplete.
pub fn write_bind_complete(out: &mut BytesMut) {
    write_message(out, tag::BIND_COMPLETE, |_| ());
}

/// Appends a CloseComplete.
pub fn write_close_complete(out: &mut BytesMut) {
    write_message(out, tag::CLOSE_COMPLETE, |_| ());
}

/// Appends a PortalSuspended.
pub fn write_portal_suspended(out: &mut BytesMut) {
    write_message(out, tag::PORTAL_SUSPENDED, |_| ());
}

/// Appends a ParameterDescription.
pub fn write_parameter_description(out: &mut BytesMut, types: &[u32]) {
    write_message(out, tag::PARAMETER_DESCRIPTION, |out| {
        put_counted(out, types, |out, oid| out.put_u32(*oid));
    });
}

/// Appends a CopyInResponse.
pub fn write_copy_in_response(
    out: &mut BytesMut,
    format: Format,
    column_formats: impl IntoIterator<Item = Format>,
) {
    write_copy_response(out, tag::COPY_IN_RESPONSE, format, column_formats);
}

/// Appends a CopyOutResponse.
pub fn write_copy_out_response(
    out: &mut BytesMut,
    format: Format,
    column_formats: impl IntoIterator<Item = Format>,
) {
    write_copy_response(out, tag::COPY_OUT_RESPONSE, format, column_formats);
}

/// Appends a CopyBothResponse.
pub fn write_copy_both_response(
    out: &mut BytesMut,
    format: Format,
    column_formats: impl IntoIterator<Item = Format>,
) {
    write_copy_response(out, tag::COPY_BOTH_RESPONSE, format, column_formats);
}

fn write_copy_response(
    out: &mut BytesMut,
    tag: u8,
    format: Format,
    column_formats: impl IntoIterator<Item = Format>,
) {
    write_message(out, tag, |out| {
        out.put_u8(format.code() as u8);
        put_counted(out, column_formats, |out, format| {
            out.put_u16(format.code());
        });
    });
}

/// Appends a CopyData.
pub fn write_copy_data(out: &mut BytesMut, data: &[u8]) {
    write_message(out, tag::COPY_DATA, |out| out.put_slice(data));
}

/// Appends a CopyDone.
pub fn write_copy_done(out: &mut BytesMut) {
    write_message(out, tag::COPY_DONE, |_| ());
}

/// Appends a NotificationResponse.
pub fn write_notification(out: &mut BytesMut, notification: Notification<'_>) {
    write_message(out, tag::NOTIFICATION_RESPONSE, |out| {
        out.put_i32(notification.pid);
        put_text(out, notification.channel.as_bytes());
        put_text(out, notification.payload.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Frame, header};
    use super::*;
    use proptest::prelude::*;

    fn frame(write: impl FnOnce(&mut BytesMut)) -> Frame {
        let mut out = BytesMut::new();
        write(&mut out);
        assert_eq!(header(&out).unwrap().unwrap().frame_bytes, out.len());
        Frame::new(out.freeze())
    }

    #[test]
    fn all_fields_of_an_error_are_read() {
        let body = b"SFEHLER\0VERROR\0C23505\0Mdup\0Dd\0Hh\0P8\0p9\0qi\0Ww\0ss\0tt\0cc\0dd\0nn\0Ff\0L1\0Rr\0Zz\0\0";
        let fields = ErrorFields::read(body).unwrap();
        assert_eq!(fields.severity, Severity::Error);
        assert_eq!(fields.sqlstate, SqlState::UNIQUE_VIOLATION);
        assert_eq!(
            (fields.position, fields.internal_position),
            (Some(8), Some(9))
        );
        let texts = [
            fields.detail,
            fields.hint,
            fields.internal_query,
            fields.context,
            fields.schema,
            fields.table,
            fields.column,
            fields.data_type,
            fields.constraint,
            fields.file,
            fields.line,
            fields.routine,
        ];
        assert_eq!(texts.map(Option::unwrap).concat(), "dhiwstcdnf1r");
        assert_eq!(fields.message, "dup");
    }

    #[test]
    fn an_error_without_severity_and_code_is_an_internal_error() {
        let fields = ErrorFields::read(b"Moops\0C??\0\0").unwrap();
        assert_eq!(
            (fields.severity, fields.sqlstate.as_str()),
            (Severity::Error, "XX000")
        );
        assert_eq!(ErrorFields::read(b"Moops\0"), Err(MessageError::Truncated));
        assert_eq!(ErrorFields::read(b"Moops"), Err(MessageError::Unterminated));
    }

    fn columns() -> [ColumnDescription<'static>; 3] {
        let id = ColumnDescription {
            name: b"id",
            table_oid: 16385,
            attribute: 1,
            type_oid: 20,
            type_size: 8,
            type_modifier: -1,
            format: Format::Binary,
        };
        [
            id,
            ColumnDescription::text("name"),
            ColumnDescription { name: b"", ..id },
        ]
    }

    #[test]
    fn a_row_description_is_read_back_and_cut() {
        let whole = frame(|out| write_row_description(out, columns()));
        assert_eq!(read_row_description(whole.body()), Ok(columns().to_vec()));
        let cut = frame(|out| truncate_row_description(out, whole.body(), 2).unwrap());
        assert_eq!(
            cut,
            frame(|out| write_row_description(out, columns().into_iter().take(2)))
        );
    }

    #[test]
    fn a_data_row_is_read_back_and_cut() {
        let values = [Some(&b"7"[..]), None, Some(&b""[..])];
        let whole = frame(|out| write_data_row(out, values));
        let read: Result<Vec<_>, _> = DataRow::read(whole.body()).unwrap().collect();
        assert_eq!(read, Ok(values.to_vec()));
        let row = DataRow::read(whole.body()).unwrap();
        assert_eq!(
            (row.column(1), row.column(3)),
            (Ok(None), Err(MessageError::Truncated))
        );
        let cut = frame(|out| truncate_data_row(out, whole.body(), 2).unwrap());
        assert_eq!(
            cut,
            frame(|out| write_data_row(out, values.into_iter().take(2)))
        );
    }

    #[test]
    fn a_row_too_short_to_cut_leaves_nothing_behind() {
        let mut out = BytesMut::new();
        let error = truncate_data_row(&mut out, b"\0\x01\xff\xff\xff\xff", 2);
        assert_eq!(error, Err(MessageError::Truncated));
        let error = truncate_data_row(&mut out, b"\0\x02\xff\xff\xff\xff\0\0", 2);
        assert_eq!(error, Err(MessageError::Truncated));
        assert!(out.is_empty());
    }

    #[test]
    fn a_row_that_goes_on_after_its_last_column_is_an_error() {
        let row = DataRow::read(b"\0\x01\xff\xff\xff\xffx").unwrap();
        assert_eq!(row.collect::<Vec<_>>(), [Err(MessageError::Trailing)]);
    }

    #[track_caller]
    fn check_tag(text: &str, verb: &str, rows: Option<u64>) {
        let frame = frame(|out| write_command_complete(out, text));
        let tag = read_command_complete(frame.body()).unwrap();
        assert_eq!(tag, CommandTag { verb, rows });
        assert_eq!(tag.to_string(), text);
    }

    #[test]
    fn a_command_tag_is_its_verb_and_its_rows() {
        check_tag("SELECT 5", "SELECT", Some(5));
        check_tag("INSERT 0 3", "INSERT", Some(3));
        check_tag("CREATE TABLE", "CREATE TABLE", None);
        check_tag("BEGIN", "BEGIN", None);
        check_tag("ODD 99999999999999999999", "ODD 99999999999999999999", None);
        check_tag("ODD +5", "ODD +5", None);
    }

    #[test]
    fn tags_of_one_command_are_summed_and_no_others() {
        let tag = |verb, rows| CommandTag { verb, rows };
        let sum = sum_tags([tag("INSERT", Some(2)), tag("INSERT", Some(3))]);
        assert_eq!(sum.unwrap().to_string(), "INSERT 0 5");
        assert_eq!(
            sum_tags([tag("ANALYZE", None); 2]),
            Some(tag("ANALYZE", None))
        );
        assert_eq!(
            sum_tags([tag("UPDATE", Some(2)), tag("DELETE", Some(3))]),
            None
        );
        assert_eq!(
            sum_tags([tag("UPDATE", Some(2)), tag("UPDATE", None)]),
            None
        );
        assert_eq!(
            sum_tags([tag("UPDATE", Some(u64::MAX)), tag("UPDATE", Some(1))]),
            None
        );
        assert_eq!(sum_tags([]), None);
    }

    #[test]
    fn every_authentication_request_is_known_or_named() {
        let read = |write: fn(&mut BytesMut)| {
            let frame = frame(write);
            format!("{:?}", read_authentication(frame.body()).unwrap())
        };
        assert_eq!(read(write_authentication_ok), "Ok");
        assert_eq!(
            read(|out| write_authentication_sasl(out, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])),
            "Sasl { mechanisms: [\"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\"] }"
        );
        assert_eq!(
            read(|out| write_authentication_sasl_continue(out, b"a")),
            "SaslContinue([97])"
        );
        assert_eq!(
            read(|out| write_authentication_sasl_final(out, b"b")),
            "SaslFinal([98])"
        );
        let salt = *b"salt";
        assert_eq!(
            read_authentication(b"\0\0\0\x05salt"),
            Ok(Authentication::Md5Password { salt })
        );
        assert_eq!(
            read_authentication(b"\0\0\0\x07"),
            Ok(Authentication::Other(7))
        );
        assert_eq!(
            read_authentication(b"\0\0\0\x0aSCRAM\0"),
            Err(MessageError::Unterminated)
        );
    }

    #[test]
    fn a_cancel_key_has_4_to_256_bytes() {
        let read = |bytes: usize| {
            let frame = frame(|out| write_backend_key_data(out, 7, &vec![1; bytes]));
            read_backend_key_data(frame.body()).map(|data| (data.pid, data.key.len()))
        };
        assert_eq!((read(4), read(256)), (Ok((7, 4)), Ok((7, 256))));
        assert!(read(3).is_err() && read(257).is_err());
    }

    #[test]
    fn the_smaller_messages_are_read_back() {
        for status in [
            TransactionStatus::Idle,
            TransactionStatus::InBlock,
            TransactionStatus::Failed,
        ] {
            let frame = frame(|out| write_ready_for_query(out, status));
            assert_eq!(read_ready_for_query(frame.body()), Ok(status));
        }
        assert!(read_ready_for_query(b"X").is_err());
        let status = frame(|out| write_parameter_status(out, "TimeZone", "UTC"));
        assert_eq!(
            read_parameter_status(status.body()),
            Ok(("TimeZone", "UTC"))
        );
        let types = frame(|out| write_parameter_description(out, &[20, 25]));
        assert_eq!(read_parameter_description(types.body()), Ok(vec![20, 25]));
        let copy = frame(|out| write_copy_in_response(out, Format::Binary, [Format::Binary; 2]));
        let response = read_copy_response(copy.body()).unwrap();
        assert_eq!(
            (response.format, response.column_formats.len()),
            (Format::Binary, 2)
        );
        let notification = Notification {
            pid: 7,
            channel: "c",
            payload: "p",
        };
        let frame_ = frame(|out| write_notification(out, notification));
        assert_eq!(read_notification(frame_.body()), Ok(notification));
        let negotiate =
            frame(|out| write_negotiate_protocol_version(out, 2, ["_pq_.x"].into_iter()));
        let expect = NegotiateProtocolVersion {
            minor: 2,
            options: vec!["_pq_.x"],
        };
        assert_eq!(
            read_negotiate_protocol_version(negotiate.body()),
            Ok(expect)
        );
    }

    #[test]
    fn a_count_of_four_billion_options_is_truncated_at_once() {
        let error = read_negotiate_protocol_version(b"\0\x03\0\0\xff\xff\xff\xff");
        assert_eq!(error, Err(MessageError::Unterminated));
    }

    proptest! {
        #[test]
        fn no_body_makes_a_reader_panic(body in prop::collection::vec(any::<u8>(), 0..64), columns in 0..4_u16) {
            let _ = ErrorFields::read(&body);
            let _ = read_row_description(&body);
            let _ = DataRow::read(&body).map(|row| row.count());
            let _ = read_ready_for_query(&body);
            let _ = read_command_complete(&body);
            let _ = read_parameter_status(&body);
            let _ = read_backend_key_data(&body);
            let _ = read_authentication(&body);
            let _ = read_parameter_description(&body);
            let _ = read_copy_response(&body);
            let _ = read_notification(&body);
            let _ = read_negotiate_protocol_version(&body);
            let _ = truncate_data_row(&mut BytesMut::new(), &body, columns);
            let _ = truncate_row_description(&mut BytesMut::new(), &body, columns);
        }

        #[test]
        fn a_row_with_a_changed_byte_never_panics(
            values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 1..9),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let frame = frame(|out| write_data_row(out, values.iter().map(Option::as_deref)));
            let mut body = frame.body().to_vec();
            *at.get_mut(&mut body) = byte;
            let row = DataRow::read(&body).unwrap();
            prop_assert!(row.count() <= row.len());
            let _ = truncate_data_row(&mut BytesMut::new(), &body, 2);
        }
    }
}

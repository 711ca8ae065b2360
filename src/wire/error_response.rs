//! How an error becomes an ErrorResponse or NoticeResponse: the trait that every error which can reach a client
//! implements, and the one printer. Knows no error of its own. Start at [`ErrorReply`] and [`write_error_reply`].
//!
//! PostgreSQL's documentation: "Error and Notice Message Fields" and "Error Message Style Guide".

use super::frame::{put_text, write_message};
use super::sqlstate::SqlState;
use bytes::{BufMut, BytesMut};

/// Whose fault an error is: its log level and its label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client asked for what cannot be, or spoke the protocol wrongly.
    Client,
    /// A shard, or the way to it.
    Backend,
    /// The router: a limit, a bug, its configuration.
    Router,
}

impl Fault {
    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::Backend => "backend",
            Fault::Router => "router",
        }
    }
}

/// How bad it is, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session ends.
    Fatal,
    /// All sessions of a shard end.
    Panic,
    /// A NoticeResponse that a person should see.
    Warning,
    /// A NoticeResponse that may help.
    Notice,
    /// A NoticeResponse with what was asked for.
    Info,
    /// A NoticeResponse for a log.
    Log,
    /// A NoticeResponse for a developer.
    Debug,
}

impl Severity {
    /// PostgreSQL's word, not translated.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Panic => "PANIC",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
            Severity::Info => "INFO",
            Severity::Log => "LOG",
            Severity::Debug => "DEBUG",
        }
    }

    /// The severity that PostgreSQL's word names; `None` for a translated or unknown one.
    pub fn parse(word: &[u8]) -> Option<Severity> {
        Some(match word {
            b"ERROR" => Severity::Error,
            b"FATAL" => Severity::Fatal,
            b"PANIC" => Severity::Panic,
            b"WARNING" => Severity::Warning,
            b"NOTICE" => Severity::Notice,
            b"INFO" => Severity::Info,
            b"LOG" => Severity::Log,
            b"DEBUG" => Severity::Debug,
            _ => return None,
        })
    }

    /// Whether it travels as ErrorResponse; the others are NoticeResponses.
    pub fn is_error(self) -> bool {
        matches!(self, Severity::Error | Severity::Fatal | Severity::Panic)
    }
}

/// What a client is told of an error. Its `Display` is the primary message: lower case, no full stop.
pub trait ErrorReply: std::error::Error {
    /// The code.
    fn sqlstate(&self) -> SqlState;
    /// Whose fault it is.
    fn fault(&self) -> Fault;
    /// The facts, in full sentences.
    fn detail(&self) -> Option<String>;
    /// What to do about it, in full sentences.
    fn hint(&self) -> Option<String>;
    /// The stable code of a refusal (0A000).
    fn refusal(&self) -> Option<&'static str>;
    /// Where in the client's text: characters from 1.
    fn position(&self) -> Option<u32> {
        None
    }
}

/// The fields of an error or notice that the router itself raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<'a> {
    /// Decides between ErrorResponse and NoticeResponse.
    pub severity: Severity,
    /// The code.
    pub sqlstate: SqlState,
    /// The primary message.
    pub message: &'a str,
    /// The facts.
    pub detail: Option<&'a str>,
    /// The advice.
    pub hint: Option<&'a str>,
    /// Characters from 1.
    pub position: Option<u32>,
}

impl Report<'_> {
    /// Appends the ErrorResponse or NoticeResponse.
    pub fn write(&self, out: &mut BytesMut) {
        let tag = if self.severity.is_error() { b'E' } else { b'N' };
        write_message(out, tag, |out| {
            let mut field = |name: u8, text: &str| {
                out.put_u8(name);
                put_text(out, text.as_bytes());
            };
            field(b'S', self.severity.as_str());
            field(b'V', self.severity.as_str());
            field(b'C', self.sqlstate.as_str());
            field(b'M', self.message);
            if let Some(detail) = self.detail {
                field(b'D', detail);
            }
            if let Some(hint) = self.hint {
                field(b'H', hint);
            }
            if let Some(position) = self.position {
                field(b'P', &position.to_string());
            }
            out.put_u8(0);
        });
    }
}

/// Appends `error` as an ErrorResponse, or as a NoticeResponse where `severity` is below ERROR. A refusal's code
/// is the last sentence of the DETAIL.
pub fn write_error_reply(out: &mut BytesMut, error: &dyn ErrorReply, severity: Severity) {
    let detail = match (error.detail(), error.refusal()) {
        (detail, None) => detail,
        (None, Some(refusal)) => Some(format!("refusal: {refusal}")),
        (Some(detail), Some(refusal)) => Some(format!("{detail} refusal: {refusal}")),
    };
    let (message, hint) = (error.to_string(), error.hint());
    let report = Report {
        severity,
        sqlstate: error.sqlstate(),
        message: &message,
        detail: detail.as_deref(),
        hint: hint.as_deref(),
        position: error.position(),
    };
    report.write(out);
}

/// Appends a shard's ErrorResponse with body `body`: byte for byte when `position_offset_chars` is 0, else with
/// its `P` field moved by so many characters: the shard saw only the end of the client's text, or a statement under
/// another name.
pub fn write_shard_error(out: &mut BytesMut, body: &[u8], position_offset_chars: i64) {
    match position_field(body) {
        Some((_, _, position)) if position_offset_chars != 0 => {
            let place = (position + position_offset_chars).max(1);
            write_shard_error_at(out, body, Some(place));
        }
        _ => write_message(out, b'E', |out| out.put_slice(body)),
    }
}

/// Appends a shard's ErrorResponse with body `body` with another `P` field than its own, or without one.
pub fn write_shard_error_at(out: &mut BytesMut, body: &[u8], place: Option<i64>) {
    write_message(out, b'E', |out| match (position_field(body), place) {
        (Some((start, end, _)), Some(place)) => {
            out.put_slice(&body[..start]);
            put_text(out, place.to_string().as_bytes());
            out.put_slice(&body[end..]);
        }
        (Some((start, end, _)), None) => {
            // Its name stands before it.
            out.put_slice(&body[..start - 1]);
            out.put_slice(&body[end..]);
        }
        (None, _) => out.put_slice(body),
    });
}

/// The `P` field of a shard's ErrorResponse with body `body`.
pub fn position(body: &[u8]) -> Option<i64> {
    position_field(body).map(|(_, _, position)| position)
}

/// Whether a shard's ErrorResponse with body `body` says that the shard closes its connection.
pub fn is_farewell(body: &[u8]) -> bool {
    let severity = body.split(|byte| *byte == 0).find_map(|field| {
        let word = field.strip_prefix(b"V")?;
        Severity::parse(word)
    });
    matches!(severity, Some(Severity::Fatal | Severity::Panic))
}

/// Whether a shard's ErrorResponse with body `body` says that the statement was cancelled, by a request or a timeout.
pub fn is_cancel(body: &[u8]) -> bool {
    field(body, b'C') == Some(b"57014")
}

/// Whether a shard's ErrorResponse with body `body` says that its transaction was idle for too long.
pub fn is_idle_timeout(body: &[u8]) -> bool {
    field(body, b'C') == Some(b"25P03")
}

/// Whether a shard's ErrorResponse with body `body` says that an argument has a value which cannot be.
pub fn is_invalid_parameter_value(body: &[u8]) -> bool {
    field(body, b'C') == Some(b"22023")
}

fn field(body: &[u8], tag: u8) -> Option<&[u8]> {
    let mut fields = body.split(|byte| *byte == 0);
    fields.find_map(|field| field.strip_prefix(&[tag]))
}

/// Whether a shard's ErrorResponse with body `body` says that a prepared statement is gone, or cannot be used since what it
/// reads has changed: it must be prepared anew (PostgreSQL's `RevalidateCachedQuery`).
pub fn is_stale_statement(body: &[u8]) -> bool {
    match field(body, b'C') {
        Some(b"26000") => true,
        // In every language of PostgreSQL's messages the routine has the same name.
        Some(b"0A000") => field(body, b'R') == Some(b"RevalidateCachedQuery"),
        _ => false,
    }
}

/// Whether a shard's ErrorResponse with body `body` is of the guard that keeps rows from where they have moved away.
pub fn is_of_guard(body: &[u8]) -> bool {
    field(body, b'C') == Some(b"40001")
        && field(body, b'D').is_some_and(|detail| detail.starts_with(b"pgring: "))
}

/// Appends a shard's ErrorResponse with body `body` under another severity, which says what it means for the client's
/// own connection; all else stays.
pub fn write_shard_error_as(out: &mut BytesMut, body: &[u8], severity: Severity) {
    write_message(out, b'E', |out| {
        let severity = severity.as_str().as_bytes();
        for field in body.split(|byte| *byte == 0) {
            match field.first() {
                Some(name @ (b'S' | b'V')) => {
                    out.put_u8(*name);
                    put_text(out, severity);
                }
                Some(_) => put_text(out, field),
                None => {}
            }
        }
        out.put_u8(0);
    });
}

/// Finds the `P` field's value: where it starts, where its NUL ends, and the number. `None` in a body without one
/// or that is malformed.
fn position_field(body: &[u8]) -> Option<(usize, usize, i64)> {
    let mut at = 0;
    loop {
        let name = *body.get(at)?;
        let start = at + 1;
        let length = memchr::memchr(0, body.get(start..)?)?;
        if name == b'P' {
            let digits = std::str::from_utf8(&body[start..start + length]).ok()?;
            return Some((
                start,
                start + length + 1,
                i64::from(digits.parse::<u32>().ok()?),
            ));
        }
        if name == 0 {
            return None;
        }
        at = start + length + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot run on several shards")]
    struct Refused {
        detail: Option<String>,
    }

    impl ErrorReply for Refused {
        fn sqlstate(&self) -> SqlState {
            SqlState::FEATURE_NOT_SUPPORTED
        }
        fn fault(&self) -> Fault {
            Fault::Client
        }
        fn detail(&self) -> Option<String> {
            self.detail.clone()
        }
        fn hint(&self) -> Option<String> {
            Some("Name the key.".to_owned())
        }
        fn refusal(&self) -> Option<&'static str> {
            Some("join_without_key")
        }
        fn position(&self) -> Option<u32> {
            Some(8)
        }
    }

    #[test]
    fn a_refusal_shows_its_code_last_in_the_detail() {
        let mut out = BytesMut::new();
        let refused = Refused {
            detail: Some("Tables a and b meet.".to_owned()),
        };
        write_error_reply(&mut out, &refused, Severity::Error);
        assert_eq!(
            &out[5..],
            b"SERROR\0VERROR\0C0A000\0Mcannot run on several shards\0\
              DTables a and b meet. refusal: join_without_key\0HName the key.\0P8\0\0"
        );
        assert_eq!(out[0], b'E');
        assert_eq!(
            u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize,
            out.len() - 1
        );
    }

    #[test]
    fn a_warning_is_a_notice() {
        let mut out = BytesMut::new();
        write_error_reply(&mut out, &Refused { detail: None }, Severity::Warning);
        assert_eq!(out[0], b'N');
        assert!(String::from_utf8_lossy(&out).contains("\0Drefusal: join_without_key\0H"));
    }

    #[test]
    fn a_shards_error_passes_byte_for_byte() {
        let body = b"SERROR\0C42601\0Mbad\0P10\0Xodd\0\0";
        let mut out = BytesMut::new();
        write_shard_error(&mut out, body, 0);
        assert_eq!(&out[5..], body);
    }

    #[test]
    fn a_shards_position_moves_to_where_the_client_wrote_it() {
        let mut out = BytesMut::new();
        write_shard_error(&mut out, b"SERROR\0P10\0p10\0\0", 95);
        assert_eq!(&out[..], b"E\0\0\0\x15SERROR\0P105\0p10\0\0");
        let mut out = BytesMut::new();
        write_shard_error_at(&mut out, b"SERROR\0P10\0p10\0\0", None);
        assert_eq!(&out[5..], b"SERROR\0p10\0\0");
        out.clear();
        write_shard_error(&mut out, b"SERROR\0P10\0\0", -3);
        assert_eq!(&out[5..], b"SERROR\0P7\0\0");
    }

    proptest! {
        #[test]
        fn any_shard_error_is_framed(body in prop::collection::vec(any::<u8>(), 0..64), offset in any::<i32>()) {
            let mut out = BytesMut::new();
            write_shard_error(&mut out, &body, i64::from(offset));
            prop_assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize, out.len() - 1);
        }
    }

    #[test]
    fn a_farewell_becomes_an_error_of_the_statement() {
        let body = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0";
        assert!(is_farewell(body));
        let mut out = BytesMut::new();
        write_shard_error_as(&mut out, body, Severity::Error);
        assert_eq!(
            &out[5..],
            b"SERROR\0VERROR\0C57P01\0Mterminating connection\0\0"
        );
        assert!(!is_farewell(&out[5..]));
    }
}

//! What a client sends: [`FrontendMessage`] decoded from a frame, and writers for what the router sends to a shard.
//! Borrows everything from the frame; knows nothing of sessions or order. The first packet is in [`super::startup`].
//!
//! PostgreSQL's documentation: "Message Formats".

use super::frame::{Format, Formats, MessageError, Reader};
use super::frame::{put_counted, put_text, put_value, write_length, write_message};
use bytes::{BufMut, BytesMut};

/// The tags of what a client sends.
pub mod tag {
    /// Bind.
    pub const BIND: u8 = b'B';
    /// Close.
    pub const CLOSE: u8 = b'C';
    /// CopyData.
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone.
    pub const COPY_DONE: u8 = b'c';
    /// CopyFail.
    pub const COPY_FAIL: u8 = b'f';
    /// Describe.
    pub const DESCRIBE: u8 = b'D';
    /// Execute.
    pub const EXECUTE: u8 = b'E';
    /// Flush.
    pub const FLUSH: u8 = b'H';
    /// FunctionCall.
    pub const FUNCTION_CALL: u8 = b'F';
    /// Parse.
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse.
    pub const PASSWORD: u8 = b'p';
    /// Query.
    pub const QUERY: u8 = b'Q';
    /// Sync.
    pub const SYNC: u8 = b'S';
    /// Terminate.
    pub const TERMINATE: u8 = b'X';
}

/// What a Describe or Close names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

impl Target {
    /// The byte on the wire.
    pub fn code(self) -> u8 {
        match self {
            Target::Statement => b'S',
            Target::Portal => b'P',
        }
    }
}

/// A message of a client after startup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrontendMessage<'a> {
    /// Statements to run by the simple protocol.
    Query {
        /// Zero or more statements.
        sql: &'a str,
    },
    /// Prepares a statement.
    Parse {
        /// Its name; empty is the unnamed one.
        name: &'a str,
        /// One statement at most.
        sql: &'a str,
        /// Type OIDs of the first parameters; 0 leaves one to the server.
        parameter_types: Vec<u32>,
    },
    /// Makes a portal of a statement and values.
    Bind(Bind<'a>),
    /// Asks for parameters and columns.
    Describe {
        /// Statement or portal.
        target: Target,
        /// Its name.
        name: &'a str,
    },
    /// Runs a portal.
    Execute {
        /// Its name.
        portal: &'a str,
        /// Rows to give at most; 0 or below for all.
        row_limit: i32,
    },
    /// Drops a statement or portal.
    Close {
        /// Statement or portal.
        target: Target,
        /// Its name.
        name: &'a str,
    },
    /// Asks for the answers so far.
    Flush,
    /// Ends an extended query.
    Sync,
    /// Says goodbye.
    Terminate,
    /// A piece of COPY data.
    CopyData(&'a [u8]),
    /// The end of COPY data.
    CopyDone,
    /// COPY data ends in failure.
    CopyFail {
        /// Why.
        message: &'a str,
    },
    /// The fast path; its body is not read.
    FunctionCall,
    /// A step of authentication, its kind known from what was asked; see [`read_password`] and
    /// [`read_sasl_initial`].
    Password(&'a [u8]),
}

impl<'a> FrontendMessage<'a> {
    /// Decodes the body of the message with `tag`.
    ///
    /// # Errors
    ///
    /// Whatever the body does not say as PostgreSQL's formats have it; nothing may follow the last field.
    pub fn decode(tag: u8, body: &'a [u8]) -> Result<FrontendMessage<'a>, MessageError> {
        let mut reader = Reader::new(body);
        let message = match tag {
            tag::QUERY => FrontendMessage::Query {
                sql: reader.text()?,
            },
            tag::PARSE => FrontendMessage::Parse {
                name: reader.text()?,
                sql: reader.text()?,
                parameter_types: reader.oids()?,
            },
            tag::BIND => return Bind::decode(body).map(FrontendMessage::Bind),
            tag::DESCRIBE => {
                let (target, name) = target_and_name(&mut reader)?;
                FrontendMessage::Describe { target, name }
            }
            tag::EXECUTE => FrontendMessage::Execute {
                portal: reader.text()?,
                row_limit: reader.i32()?,
            },
            tag::CLOSE => {
                let (target, name) = target_and_name(&mut reader)?;
                FrontendMessage::Close { target, name }
            }
            tag::FLUSH => FrontendMessage::Flush,
            tag::SYNC => FrontendMessage::Sync,
            tag::TERMINATE => FrontendMessage::Terminate,
            tag::COPY_DATA => return Ok(FrontendMessage::CopyData(body)),
            tag::COPY_DONE => FrontendMessage::CopyDone,
            tag::COPY_FAIL => FrontendMessage::CopyFail {
                message: reader.text()?,
            },
            tag::FUNCTION_CALL => return Ok(FrontendMessage::FunctionCall),
            tag::PASSWORD => return Ok(FrontendMessage::Password(body)),
            _ => return Err(MessageError::Tag(tag)),
        };
        reader.end()?;
        Ok(message)
    }
}

fn target_and_name<'a>(reader: &mut Reader<'a>) -> Result<(Target, &'a str), MessageError> {
    let target = match reader.u8()? {
        b'S' => Target::Statement,
        b'P' => Target::Portal,
        other => {
            return Err(MessageError::Field {
                field: "statement or portal subtype",
                value: other.into(),
            });
        }
    };
    Ok((target, reader.text()?))
}

/// A Bind, checked to its end and left where it is: nothing is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal to make; empty is the unnamed one.
    pub portal: &'a str,
    /// The statement to make it of; empty is the unnamed one.
    pub statement: &'a str,
    /// Format codes of the values, as sent.
    pub parameter_formats: Formats<'a>,
    /// Format codes of the columns wanted, as sent.
    pub result_formats: Formats<'a>,
    values: &'a [u8],
    value_count: u16,
}

impl<'a> Bind<'a> {
    /// Decodes the body of a Bind.
    ///
    /// # Errors
    ///
    /// As [`FrontendMessage::decode`].
    pub fn decode(body: &'a [u8]) -> Result<Bind<'a>, MessageError> {
        let mut reader = Reader::new(body);
        let portal = reader.text()?;
        let statement = reader.text()?;
        let parameter_formats = reader.formats()?;
        let value_count = reader.u16()?;
        if parameter_formats.len() > 1 && parameter_formats.len() != usize::from(value_count) {
            return Err(MessageError::FormatCount {
                formats: parameter_formats.len(),
                parameters: usize::from(value_count),
            });
        }
        let from = reader.rest();
        for _ in 0..value_count {
            reader.value()?;
        }
        let values = &from[..from.len() - reader.rest().len()];
        let result_formats = reader.formats()?;
        reader.end()?;
        Ok(Bind {
            portal,
            statement,
            parameter_formats,
            result_formats,
            values,
            value_count,
        })
    }

    /// How many values there are.
    pub fn value_count(&self) -> usize {
        usize::from(self.value_count)
    }

    /// The values in order; `None` is NULL.
    pub fn values(&self) -> Values<'a> {
        Values {
            rest: self.values,
            count: self.value_count,
        }
    }

    /// Value `index` (from 0): `None` when there are fewer, `Some(None)` for NULL. Walks over those before it.
    pub fn value(&self, index: usize) -> Option<Option<&'a [u8]>> {
        self.values().nth(index)
    }

    /// The format of value `index` (from 0).
    pub fn parameter_format(&self, index: usize) -> Format {
        self.parameter_formats.of(index)
    }

    /// The format wanted for column `index` (from 0).
    pub fn result_format(&self, index: usize) -> Format {
        self.result_formats.of(index)
    }
}

/// The values of a [`Bind`].
#[derive(Debug, Clone)]
pub struct Values<'a> {
    rest: &'a [u8],
    count: u16,
}

impl<'a> Iterator for Values<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader::new(self.rest);
        self.count = self.count.checked_sub(1)?;
        // `Bind::decode` has read them all once.
        let value = reader.value().ok()?;
        self.rest = reader.rest();
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count.into(), Some(self.count.into()))
    }
}

impl ExactSizeIterator for Values<'_> {}

/// Reads the body of a PasswordMessage.
///
/// # Errors
///
/// Text without NUL, or more after it.
pub fn read_password(body: &[u8]) -> Result<&[u8], MessageError> {
    let mut reader = Reader::new(body);
    let password = reader.text_bytes()?;
    reader.end()?;
    Ok(password)
}

/// Reads the body of a SASLInitialResponse: the mechanism and, unless left out, the client's first message.
///
/// # Errors
///
/// What does not have that form.
pub fn read_sasl_initial(body: &[u8]) -> Result<(&str, Option<&[u8]>), MessageError> {
    let mut reader = Reader::new(body);
    let mechanism = reader.text()?;
    let response = reader.value()?;
    reader.end()?;
    Ok((mechanism, response))
}

/// Appends a StartupMessage of protocol 3.0 with these parameters.
pub fn write_startup<'a>(
    out: &mut BytesMut,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    write_length(out, |out| {
        out.put_u16(3);
        out.put_u16(0);
        for (name, value) in parameters {
            put_text(out, name.as_bytes());
            put_text(out, value.as_bytes());
        }
        out.put_u8(0);
    });
}

/// Appends a CancelRequest.
pub fn write_cancel_request(out: &mut BytesMut, pid: i32, key: &[u8]) {
    write_length(out, |out| {
        out.put_u16(1234);
        out.put_u16(5678);
        out.put_i32(pid);
        out.put_slice(key);
    });
}

/// Appends a Query.
pub fn write_query(out: &mut BytesMut, sql: &str) {
    write_message(out, tag::QUERY, |out| put_text(out, sql.as_bytes()));
}

/// Appends a Parse.
pub fn write_parse(out: &mut BytesMut, name: &str, sql: &str, types: &[u32]) {
    write_message(out, tag::PARSE, |out| {
        put_text(out, name.as_bytes());
        put_text(out, sql.as_bytes());
        put_counted(out, types, |out, oid| out.put_u32(*oid));
    });
}

/// Appends a Bind. `formats`: none, one for all, or one for each value; so `result_formats` for the columns.
pub fn write_bind<'a>(
    out: &mut BytesMut,
    portal: &str,
    statement: &str,
    formats: impl IntoIterator<Item = Format>,
    values: impl IntoIterator<Item = Option<&'a [u8]>>,
    result_formats: impl IntoIterator<Item = Format>,
) {
    write_message(out, tag::BIND, |out| {
        put_text(out, portal.as_bytes());
        put_text(out, statement.as_bytes());
        put_counted(out, formats, |out, format| out.put_u16(format.code()));
        put_counted(out, values, put_value);
        put_counted(out, result_formats, |out, format| {
            out.put_u16(format.code());
        });
    });
}

/// Appends the Bind whose body is `body` with other names; all behind the names is copied untouched.
///
/// # Errors
///
/// [`MessageError::Unterminated`] when the two names are not there.
pub fn rewrite_bind(
    out: &mut BytesMut,
    body: &[u8],
    portal: &str,
    statement: &str,
) -> Result<(), MessageError> {
    let rest = rewrite_bind_head(out, body, portal, statement)?;
    out.put_slice(rest);
    Ok(())
}

/// The head of [`rewrite_bind`]; gives all behind the names, which must follow.
///
/// # Errors
///
/// [`MessageError::Unterminated`] when the two names are not there.
pub fn rewrite_bind_head<'a>(
    out: &mut BytesMut,
    body: &'a [u8],
    portal: &str,
    statement: &str,
) -> Result<&'a [u8], MessageError> {
    let mut reader = Reader::new(body);
    reader.text_bytes()?;
    reader.text_bytes()?;
    let rest = reader.rest();
    let start = out.len();
    write_message(out, tag::BIND, |out| {
        put_text(out, portal.as_bytes());
        put_text(out, statement.as_bytes());
    });
    let bytes = out.len() - start - 1 + rest.len();
    let length = i32::try_from(bytes).expect("a message is below 2 GiB");
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    Ok(rest)
}

/// Appends a Describe.
pub fn write_describe(out: &mut BytesMut, target: Target, name: &str) {
    write_message(out, tag::DESCRIBE, |out| {
        out.put_u8(target.code());
        put_text(out, name.as_bytes());
    });
}

/// Appends an Execute; a `row_limit` of 0 asks for all rows.
pub fn write_execute(out: &mut BytesMut, portal: &str, row_limit: i32) {
    write_message(out, tag::EXECUTE, |out| {
        put_text(out, portal.as_bytes());
        out.put_i32(row_limit);
    });
}

/// Appends a Close.
pub fn write_close(out: &mut BytesMut, target: Target, name: &str) {
    write_message(out, tag::CLOSE, |out| {
        out.put_u8(target.code());
        put_text(out, name.as_bytes());
    });
}

/// Appends a Sync.
pub fn write_sync(out: &mut BytesMut) {
    write_message(out, tag::SYNC, |_| ());
}

/// Appends a Flush.
pub fn write_flush(out: &mut BytesMut) {
    write_message(out, tag::FLUSH, |_| ());
}

/// Appends a CopyData.
pub fn write_copy_data(out: &mut BytesMut, data: &[u8]) {
    write_message(out, tag::COPY_DATA, |out| out.put_slice(data));
}

/// Appends a CopyDone.
pub fn write_copy_done(out: &mut BytesMut) {
    write_message(out, tag::COPY_DONE, |_| ());
}

/// Appends a CopyFail.
pub fn write_copy_fail(out: &mut BytesMut, message: &str) {
    write_message(out, tag::COPY_FAIL, |out| put_text(out, message.as_bytes()));
}

/// Appends a PasswordMessage.
pub fn write_password(out: &mut BytesMut, password: &[u8]) {
    write_message(out, tag::PASSWORD, |out| put_text(out, password));
}

/// Appends a SASLInitialResponse.
pub fn write_sasl_initial(out: &mut BytesMut, mechanism: &str, response: &[u8]) {
    write_message(out, tag::PASSWORD, |out| {
        put_text(out, mechanism.as_bytes());
        put_value(out, Some(response));
    });
}

/// Appends a SASLResponse.
pub fn write_sasl_response(out: &mut BytesMut, response: &[u8]) {
    write_message(out, tag::PASSWORD, |out| out.put_slice(response));
}

/// Appends a Terminate.
pub fn write_terminate(out: &mut BytesMut) {
    write_message(out, tag::TERMINATE, |_| ());
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

    #[track_caller]
    fn check(write: impl FnOnce(&mut BytesMut), expect: FrontendMessage<'_>) {
        let frame = frame(write);
        assert_eq!(
            FrontendMessage::decode(frame.tag(), frame.body()),
            Ok(expect)
        );
        if !matches!(frame.tag(), b'd' | b'p' | b'F') {
            let mut longer = frame.body().to_vec();
            longer.push(0);
            let error = FrontendMessage::decode(frame.tag(), &longer).unwrap_err();
            assert_eq!(error, MessageError::Trailing);
        }
    }

    #[test]
    fn what_the_writers_write_the_decoder_reads_and_nothing_longer() {
        use FrontendMessage::*;
        let parse = Parse {
            name: "s",
            sql: "select $1",
            parameter_types: vec![23, 0],
        };
        check(
            |out| write_query(out, "select 'ä'"),
            Query { sql: "select 'ä'" },
        );
        check(|out| write_parse(out, "s", "select $1", &[23, 0]), parse);
        let (target, name) = (Target::Portal, "p");
        check(
            |out| write_describe(out, target, name),
            Describe { target, name },
        );
        check(|out| write_close(out, target, name), Close { target, name });
        let (portal, row_limit) = ("p", -7);
        check(
            |out| write_execute(out, portal, row_limit),
            Execute { portal, row_limit },
        );
        check(write_flush, Flush);
        check(write_sync, Sync);
        check(write_terminate, Terminate);
        check(|out| write_copy_data(out, b"1\t2\n"), CopyData(b"1\t2\n"));
        check(write_copy_done, CopyDone);
        check(|out| write_copy_fail(out, "no"), CopyFail { message: "no" });
        check(|out| write_password(out, b"secret"), Password(b"secret\0"));
    }

    #[test]
    fn a_bind_keeps_values_and_formats() {
        let values = [Some(&b"1"[..]), None, Some(&b""[..])];
        let formats = [Format::Text, Format::Binary, Format::Text];
        let frame = frame(|out| write_bind(out, "p", "s", formats, values, [Format::Binary]));
        let bind = Bind::decode(frame.body()).unwrap();
        assert_eq!((bind.portal, bind.statement), ("p", "s"));
        assert!(bind.values().eq(values));
        assert!(bind.parameter_formats.iter().eq(formats));
        assert_eq!(bind.parameter_format(1), Format::Binary);
        assert_eq!(bind.result_format(9), Format::Binary);
        assert_eq!(bind.value(1), Some(None));
        assert_eq!(bind.value(3), None);
    }

    #[test]
    fn a_bind_is_renamed_and_otherwise_untouched() {
        let write = |portal: &str, statement: &str| {
            frame(|out| {
                write_bind(
                    out,
                    portal,
                    statement,
                    [],
                    [Some(&b"v"[..])],
                    [Format::Text],
                )
            })
        };
        let before = write("", "client's");
        let after = frame(|out| rewrite_bind(out, before.body(), "p", "pgring_7").unwrap());
        assert_eq!(after, write("p", "pgring_7"));
        let error = rewrite_bind(&mut BytesMut::new(), b"a\0b", "", "").unwrap_err();
        assert_eq!(error, MessageError::Unterminated);
    }

    #[test]
    fn a_bind_with_formats_for_some_values_only_is_refused() {
        let frame = frame(|out| write_bind(out, "", "", [Format::Text; 2], [None; 3], []));
        let error = MessageError::FormatCount {
            formats: 2,
            parameters: 3,
        };
        assert_eq!(Bind::decode(frame.body()), Err(error));
    }

    #[test]
    fn a_bind_that_promises_more_than_it_holds_is_truncated() {
        let body = b"\0\0\0\0\xff\xff\0\0\0\x01x";
        assert_eq!(Bind::decode(body), Err(MessageError::Truncated));
        let body = b"\0\0\0\0\0\x01\x7f\xff\xff\xffx";
        assert_eq!(Bind::decode(body), Err(MessageError::Truncated));
    }

    #[test]
    fn an_unknown_tag_or_target_is_an_error() {
        assert_eq!(
            FrontendMessage::decode(b'!', b""),
            Err(MessageError::Tag(b'!'))
        );
        let error = FrontendMessage::decode(b'D', b"Xname\0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid statement or portal subtype in message: 88"
        );
    }

    #[test]
    fn sql_that_is_not_utf8_is_an_encoding_error() {
        assert_eq!(
            FrontendMessage::decode(b'Q', b"select '\xe4'\0"),
            Err(MessageError::Utf8(0xe4))
        );
    }

    #[test]
    fn sasl_messages_are_read_back() {
        let initial = frame(|out| write_sasl_initial(out, "SCRAM-SHA-256", b"n,,n=,r=x"));
        assert_eq!(
            read_sasl_initial(initial.body()),
            Ok(("SCRAM-SHA-256", Some(&b"n,,n=,r=x"[..])))
        );
        assert_eq!(read_password(b"secret\0"), Ok(&b"secret"[..]));
        assert_eq!(read_password(b"secret"), Err(MessageError::Unterminated));
    }

    #[test]
    fn startup_and_cancel_have_no_tag() {
        let mut out = BytesMut::new();
        write_startup(&mut out, [("user", "app")]);
        assert_eq!(&out[..], b"\0\0\0\x12\0\x03\0\0user\0app\0\0");
        out.clear();
        write_cancel_request(&mut out, 7, b"key!");
        assert_eq!(&out[..], b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07key!");
    }

    proptest! {
        #[test]
        fn no_body_makes_the_decoder_panic(tag in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = FrontendMessage::decode(tag, &body);
            for tag in *b"BCdcfDEHFPpQSX" {
                if let Ok(FrontendMessage::Bind(bind)) = FrontendMessage::decode(tag, &body) {
                    prop_assert_eq!(bind.values().count(), bind.value_count());
                }
            }
            let _ = read_sasl_initial(&body);
            let _ = read_password(&body);
            let _ = rewrite_bind(&mut BytesMut::new(), &body, "", "");
        }

        #[test]
        fn a_changed_bind_never_panics_nor_loses_values(
            values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..9),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let frame = frame(|out| {
                write_bind(out, "p", "s", [], values.iter().map(Option::as_deref), [])
            });
            let bind = Bind::decode(frame.body()).unwrap();
            prop_assert!(bind.values().eq(values.iter().map(Option::as_deref)));
            let mut body = frame.body().to_vec();
            *at.get_mut(&mut body) = byte;
            if let Ok(bind) = Bind::decode(&body) {
                prop_assert_eq!(bind.values().count(), bind.value_count());
            }
        }
    }
}

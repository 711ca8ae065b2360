//! A client that does as little as it can between question and answer: it looks for ReadyForQuery and reads nothing else.

use crate::support::Target;
use bytes::BytesMut;
use pgring::wire::frame::{Format, HEADER_BYTES, header};
use pgring::wire::{backend_message, frontend_message};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const BUFFER_BYTES: usize = 256 * 1024;
/// No measure waits longer for one read or write.
const PATIENCE: Duration = Duration::from_secs(120);

/// A logged-in connection.
pub struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Link {
    /// Logs in.
    pub fn login(target: &Target) -> Self {
        Self {
            stream: socket(target),
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Sends `request` and reads up to ReadyForQuery: how many bytes that was.
    ///
    /// # Errors
    /// The server's words, or what broke.
    pub fn ask(&mut self, request: &[u8]) -> Result<u64, String> {
        let sent = self.stream.write_all(request);
        let answered = self.answer();
        match (answered, sent) {
            // What the server said explains more than a write that failed.
            (Err(said), _) => Err(said),
            (Ok(_), Err(error)) => Err(error.to_string()),
            (Ok(bytes), Ok(())) => Ok(bytes),
        }
    }

    fn answer(&mut self) -> Result<u64, String> {
        let (mut total, mut kept, mut passing) = (0, 0, 0);
        let mut failure = None;
        loop {
            let read = match self.stream.read(&mut self.buffer[kept..]) {
                Ok(0) => return Err(failure.unwrap_or_else(|| "the server hung up".to_owned())),
                Ok(read) => read,
                Err(error) => return Err(failure.unwrap_or_else(|| error.to_string())),
            };
            total += read as u64;
            let end = kept + read;
            let mut at = passing.min(end);
            passing -= at;
            while passing == 0 {
                let rest = &self.buffer[at..end];
                let Some(header) = header(rest).map_err(|error| error.to_string())? else {
                    break;
                };
                if matches!(header.tag, b'E' | b'Z') && rest.len() < header.frame_bytes {
                    break;
                }
                match header.tag {
                    b'Z' => return failure.map_or(Ok(total), Err),
                    b'E' => {
                        let body = &rest[HEADER_BYTES..header.frame_bytes];
                        let fields = backend_message::ErrorFields::read(body);
                        let fields = fields.map_err(|error| error.to_string())?;
                        failure = Some(format!("{} {}", fields.sqlstate, fields.message));
                    }
                    _ => {}
                }
                let here = header.frame_bytes.min(rest.len());
                at += here;
                passing = header.frame_bytes - here;
            }
            self.buffer.copy_within(at..end, 0);
            kept = end - at;
        }
    }
}

/// The socket of a client that has logged in.
pub fn socket(target: &Target) -> TcpStream {
    let stream = target.connect().into_tcp().expect("a quiet TCP socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A simple query.
pub fn query(sql: &str) -> BytesMut {
    let mut request = BytesMut::new();
    frontend_message::write_query(&mut request, sql);
    request
}

/// A Parse and a Sync.
pub fn parsed(statement: &str, sql: &str, types: &[u32]) -> BytesMut {
    let mut request = BytesMut::new();
    frontend_message::write_parse(&mut request, statement, sql, types);
    frontend_message::write_sync(&mut request);
    request
}

/// What libpq sends for a prepared statement with one binary parameter.
pub fn bound(statement: &str, value: &[u8]) -> BytesMut {
    let mut request = BytesMut::with_capacity(value.len() + 128);
    let (formats, values) = ([Format::Binary], [Some(value)]);
    frontend_message::write_bind(&mut request, "", statement, formats, values, []);
    frontend_message::write_describe(&mut request, frontend_message::Target::Portal, "");
    frontend_message::write_execute(&mut request, "", 0);
    frontend_message::write_sync(&mut request);
    request
}

//! A blocking PostgreSQL client that hides nothing: every message can be sent and seen. Tests that need a real driver
//! use tokio-postgres instead; tests that break the protocol build their own bytes and use [`Client::send`].

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a read waits before the test fails.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Where to log in, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A host name, or the folder of a unix socket when it starts with a slash.
    pub host: String,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Database.
    pub database: String,
}

impl Target {
    /// As a URL; unix folders are put into the query part, which libpq and tokio-postgres understand.
    pub fn url(&self) -> String {
        let Self {
            host,
            port,
            user,
            password,
            database,
        } = self;
        match host.starts_with('/') {
            true => format!("postgresql://{user}:{password}@/{database}?host={host}&port={port}"),
            false => format!("postgresql://{user}:{password}@{host}:{port}/{database}"),
        }
    }

    /// The same place as another user.
    pub fn user(&self, user: &str, password: &str) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
            ..self.clone()
        }
    }

    /// The same place, another database.
    pub fn database(&self, database: &str) -> Self {
        Self {
            database: database.into(),
            ..self.clone()
        }
    }

    /// A connection on which nothing was said yet.
    pub fn socket(&self) -> io::Result<Client> {
        let stream = match self.host.starts_with('/') {
            true => Stream::Unix(UnixStream::connect(format!(
                "{}/.s.PGSQL.{}",
                self.host, self.port
            ))?),
            false => {
                let stream = TcpStream::connect((self.host.as_str(), self.port))?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
        };
        let mut client = Client {
            stream,
            received: Vec::new(),
            parameters: BTreeMap::new(),
            notices: Vec::new(),
            backend_key: Vec::new(),
        };
        client.read_timeout(READ_TIMEOUT);
        Ok(client)
    }

    /// Logs in with more startup parameters.
    ///
    /// # Errors
    /// What the server said, or what broke.
    pub fn login(&self, parameters: &[(&str, &str)]) -> Result<Client, Failure> {
        let mut client = self.socket().map_err(|error| Failure::lost(&error))?;
        client.startup(self, parameters)?;
        Ok(client)
    }

    /// Logs in; the test fails if that fails.
    pub fn connect(&self) -> Client {
        self.login(&[])
            .unwrap_or_else(|failure| panic!("cannot log in to {}: {failure}", self.url()))
    }

    /// Sends a CancelRequest with `key` (the body of a BackendKeyData) and waits until the server hangs up.
    pub fn cancel(&self, key: &[u8]) {
        let mut client = self.socket().expect("connect to cancel");
        let mut request = Vec::new();
        request.extend_from_slice(&(8 + key.len() as i32).to_be_bytes());
        request.extend_from_slice(&80877102_i32.to_be_bytes());
        request.extend_from_slice(key);
        client.send(&request);
        assert!(client.read().is_none(), "a CancelRequest has no answer");
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What the server said when it refused.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// By field code; the pseudo field `!` stands for a connection that broke.
    pub fields: BTreeMap<char, String>,
}

impl Failure {
    fn lost(error: &dyn fmt::Display) -> Self {
        Self {
            fields: BTreeMap::from([('!', error.to_string())]),
        }
    }

    fn field(&self, code: char) -> &str {
        self.fields.get(&code).map_or("", String::as_str)
    }

    /// SQLSTATE; empty if the connection broke.
    pub fn code(&self) -> &str {
        self.field('C')
    }

    /// Primary message.
    pub fn message(&self) -> &str {
        self.field('M')
    }

    /// Detail, or empty.
    pub fn detail(&self) -> &str {
        self.field('D')
    }

    /// Hint, or empty.
    pub fn hint(&self) -> &str {
        self.field('H')
    }

    /// ERROR or FATAL.
    pub fn severity(&self) -> &str {
        self.field('V')
    }

    /// The router's refusal code, if it is one: the detail ends in `refusal: <code>`.
    pub fn refusal(&self) -> Option<&str> {
        let (_, code) = self.detail().rsplit_once("refusal: ")?;
        Some(code).filter(|_| self.code() == "0A000")
    }

    /// Whether the connection broke instead of an error being reported.
    pub fn is_lost(&self) -> bool {
        self.fields.contains_key(&'!')
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_lost() {
            return write!(f, "connection lost: {}", self.field('!'));
        }
        write!(f, "{} {}: {}", self.severity(), self.code(), self.message())?;
        for (name, code) in [("detail", 'D'), ("hint", 'H'), ("where", 'W')] {
            if let Some(text) = self.fields.get(&code) {
                write!(f, "; {name}: {text}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One backend message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// First byte.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads the body's fields in turn.
    pub fn fields(&self) -> Fields<'_> {
        Fields(&self.body)
    }

    /// The fields of an ErrorResponse or NoticeResponse.
    pub fn failure(&self) -> Failure {
        let mut fields = BTreeMap::new();
        let mut rest = self.fields();
        while let Some(code) = rest.byte().filter(|code| *code != 0) {
            fields.insert(char::from(code), rest.text());
        }
        Failure { fields }
    }

    /// The columns of a RowDescription.
    pub fn columns(&self) -> Vec<Column> {
        let mut rest = self.fields();
        (0..rest.int16())
            .map(|_| {
                let name = rest.text();
                let (table_oid, attribute) = (rest.int32() as u32, rest.int16());
                let (type_oid, type_len, type_modifier) =
                    (rest.int32() as u32, rest.int16(), rest.int32());
                Column {
                    name,
                    table_oid,
                    attribute,
                    type_oid,
                    type_len,
                    type_modifier,
                    format: rest.int16(),
                }
            })
            .collect()
    }

    /// The values of a DataRow.
    pub fn values(&self) -> Vec<Option<Vec<u8>>> {
        let mut rest = self.fields();
        (0..rest.int16())
            .map(|_| match rest.int32() {
                -1 => None,
                length => Some(rest.bytes(length as usize).to_vec()),
            })
            .collect()
    }
}

/// One column of a RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Table, if it is a plain column of one.
    pub table_oid: u32,
    /// Attribute number in that table.
    pub attribute: i16,
    /// Type.
    pub type_oid: u32,
    /// Type length.
    pub type_len: i16,
    /// Type modifier.
    pub type_modifier: i32,
    /// 0 text, 1 binary.
    pub format: i16,
}

/// A cursor over a message's body; a short body fails the test.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        head
    }

    /// The next byte, `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (head, tail) = self.0.split_first()?;
        self.0 = tail;
        Some(*head)
    }

    /// Big-endian.
    pub fn int16(&mut self) -> i16 {
        i16::from_be_bytes(self.bytes(2).try_into().unwrap())
    }

    /// Big-endian.
    pub fn int32(&mut self) -> i32 {
        i32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }

    /// Up to the next zero byte.
    pub fn text(&mut self) -> String {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .expect("a zero ends a string");
        let text = String::from_utf8_lossy(self.bytes(end)).into_owned();
        self.bytes(1);
        text
    }
}

/// The outcome of one statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Empty if the statement returns none.
    pub columns: Vec<Column>,
    /// NULL is `None`.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// The command tag; none if it failed, was empty or was suspended.
    pub tag: Option<String>,
}

/// All that came up to ReadyForQuery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// One for each statement that ended or returned something.
    pub outcomes: Vec<Outcome>,
    /// The error, if there was one.
    pub failure: Option<Failure>,
    /// Bytes of CopyData messages.
    pub copied: Vec<u8>,
    /// ReadyForQuery's status: `I`, `T` or `E`; a space if the connection broke.
    pub status: char,
}

/// One connection.
pub struct Client {
    stream: Stream,
    received: Vec<u8>,
    /// Latest values of ParameterStatus.
    pub parameters: BTreeMap<String, String>,
    /// NoticeResponses so far.
    pub notices: Vec<Failure>,
    /// The body of BackendKeyData.
    pub backend_key: Vec<u8>,
}

impl Client {
    /// How long [`Client::read`] may wait.
    pub fn read_timeout(&mut self, timeout: Duration) {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
        .expect("set a read timeout");
    }

    /// The socket of a client that has read all that was sent, for those who measure.
    pub fn into_tcp(self) -> Option<TcpStream> {
        match self.stream {
            Stream::Tcp(stream) if self.received.is_empty() => Some(stream),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// Sends bytes as they are. That the peer hung up shows in the next read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        };
    }

    /// Builds a message by `build` and sends it.
    pub fn message(&mut self, build: impl FnOnce(&mut bytes::BytesMut) -> io::Result<()>) {
        let mut buffer = bytes::BytesMut::new();
        build(&mut buffer).expect("a message that can be built");
        self.send(&buffer);
    }

    /// Some raw bytes, at most `limit`; empty at the end of the stream.
    pub fn read_bytes(&mut self, limit: usize) -> Vec<u8> {
        if self.received.is_empty() && !self.fill() {
            return Vec::new();
        }
        let count = limit.min(self.received.len());
        self.received.drain(..count).collect()
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16384];
        let outcome = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut chunk),
            Stream::Unix(stream) => stream.read(&mut chunk),
        };
        match outcome {
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                count > 0
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                panic!(
                    "the server said nothing in time; unread: {:?}",
                    self.received
                )
            }
            Err(_) => false,
        }
    }

    /// The next message, whatever it is; `None` at the end of the stream.
    pub fn read(&mut self) -> Option<Message> {
        loop {
            if self.received.len() >= 5 {
                let length = i32::from_be_bytes(self.received[1..5].try_into().unwrap());
                let length = usize::try_from(length).expect("a length that is not negative");
                if self.received.len() > length {
                    let tag = self.received[0];
                    let body = self.received[5..=length].to_vec();
                    self.received.drain(..=length);
                    return Some(Message { tag, body });
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The next message that is not asynchronous; notices and parameters are kept aside.
    pub fn read_synchronous(&mut self) -> Option<Message> {
        loop {
            let message = self.read()?;
            match message.tag {
                b'N' => self.notices.push(message.failure()),
                b'S' => {
                    let mut fields = message.fields();
                    self.parameters.insert(fields.text(), fields.text());
                }
                _ => return Some(message),
            }
        }
    }

    /// Sends the startup message and does what the server asks for until ReadyForQuery.
    ///
    /// # Errors
    /// What the server said, or what broke.
    pub fn startup(&mut self, target: &Target, parameters: &[(&str, &str)]) -> Result<(), Failure> {
        let all = [
            ("user", target.user.as_str()),
            ("database", target.database.as_str()),
        ];
        let all = all.into_iter().chain(parameters.iter().copied());
        self.message(|buffer| frontend::startup_message(all, buffer));
        self.finish_startup(&target.password)
    }

    /// The part of [`Client::startup`] after the startup message.
    ///
    /// # Errors
    /// What the server said, or what broke.
    pub fn finish_startup(&mut self, password: &str) -> Result<(), Failure> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let message = self
                .read_synchronous()
                .ok_or_else(|| Failure::lost(&"hung up in login"))?;
            match message.tag {
                b'R' => match message.fields().int32() {
                    0 => {}
                    3 => self
                        .message(|buffer| frontend::password_message(password.as_bytes(), buffer)),
                    10 => self.message(|buffer| {
                        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), buffer)
                    }),
                    11 => {
                        scram
                            .update(&message.body[4..])
                            .map_err(|error| Failure::lost(&error))?;
                        self.message(|buffer| frontend::sasl_response(scram.message(), buffer));
                    }
                    12 => scram
                        .finish(&message.body[4..])
                        .map_err(|error| Failure::lost(&error))?,
                    other => panic!("unknown authentication request {other}"),
                },
                b'K' => self.backend_key = message.body,
                b'v' => {}
                b'E' => return Err(message.failure()),
                b'Z' => return Ok(()),
                tag => panic!("message {:?} in login", char::from(tag)),
            }
        }
    }

    /// Reads up to ReadyForQuery. CopyInResponse ends the reading too, with status `G`.
    pub fn reply(&mut self) -> Reply {
        let mut reply = Reply::default();
        let mut current = Outcome::default();
        loop {
            let Some(message) = self.read_synchronous() else {
                reply
                    .failure
                    .get_or_insert_with(|| Failure::lost(&"hung up"));
                reply.status = ' ';
                return reply;
            };
            match message.tag {
                b'T' => current.columns = message.columns(),
                b'D' => current.rows.push(message.values()),
                b'C' => {
                    current.tag = Some(message.fields().text());
                    reply.outcomes.push(std::mem::take(&mut current));
                }
                b'I' | b's' => reply.outcomes.push(std::mem::take(&mut current)),
                b'E' => {
                    let failure = message.failure();
                    let fatal = failure.severity() != "ERROR";
                    assert!(
                        fatal || reply.failure.is_none(),
                        "two errors: {:?} and {failure}",
                        reply.failure
                    );
                    current = Outcome::default();
                    reply.failure = Some(failure);
                    if fatal {
                        reply.status = ' ';
                        return reply;
                    }
                }
                b'd' => reply.copied.extend_from_slice(&message.body),
                b'G' => {
                    reply.status = 'G';
                    return reply;
                }
                b'Z' => {
                    reply.status = char::from(message.body[0]);
                    return reply;
                }
                b'1' | b'2' | b'3' | b'n' | b't' | b'H' | b'c' => {}
                tag => panic!("unexpected message {:?}", char::from(tag)),
            }
        }
    }

    /// Runs `sql` by the simple protocol.
    pub fn simple(&mut self, sql: &str) -> Reply {
        self.message(|buffer| frontend::query(sql, buffer));
        self.reply()
    }

    /// Runs `sql` by the extended protocol, unnamed, parameters as text; results as text or binary.
    pub fn extended(
        &mut self,
        sql: &str,
        parameters: &[Option<&str>],
        binary_results: bool,
    ) -> Reply {
        self.message(|buffer| {
            frontend::parse("", sql, [], buffer)?;
            let values = parameters.iter().copied();
            let formats = [i16::from(binary_results)];
            let bound = frontend::bind("", "", [], values, put_text, formats, buffer);
            bound.map_err(|_| io::Error::other("bind"))?;
            frontend::describe(b'P', "", buffer)?;
            frontend::execute("", 0, buffer)?;
            frontend::sync(buffer);
            Ok(())
        });
        self.reply()
    }

    /// Runs what must succeed and returns the last command tag.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> String {
        self.ok(sql)
            .outcomes
            .pop()
            .and_then(|outcome| outcome.tag)
            .unwrap_or_default()
    }

    #[track_caller]
    fn ok(&mut self, sql: &str) -> Reply {
        let reply = self.simple(sql);
        if let Some(failure) = &reply.failure {
            panic!("{sql}\nfailed: {failure}");
        }
        reply
    }

    /// Runs what must fail and returns how.
    #[track_caller]
    pub fn fails(&mut self, sql: &str) -> Failure {
        let reply = self.simple(sql);
        let rows: usize = reply
            .outcomes
            .iter()
            .map(|outcome| outcome.rows.len())
            .sum();
        reply
            .failure
            .unwrap_or_else(|| panic!("{sql}\nshould have failed, gave {rows} rows"))
    }

    /// Rows of the last statement of `sql` as text; NULL as `NULL`.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let outcome = self.ok(sql).outcomes.pop().unwrap_or_default();
        outcome
            .rows
            .iter()
            .map(|row| row.iter().map(text_of).collect())
            .collect()
    }

    /// The first column of [`Client::rows`].
    #[track_caller]
    pub fn column(&mut self, sql: &str) -> Vec<String> {
        self.rows(sql)
            .into_iter()
            .map(|mut row| row.swap_remove(0))
            .collect()
    }

    /// The only value of the only row.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        let rows = self.column(sql);
        assert_eq!(rows.len(), 1, "{sql} should give one row");
        rows.into_iter().next().unwrap()
    }

    /// `COPY … FROM STDIN` with all of `data` in pieces of `piece` bytes.
    pub fn copy_in(&mut self, sql: &str, data: &[u8], piece: usize) -> Reply {
        self.message(|buffer| frontend::query(sql, buffer));
        let reply = self.reply();
        if reply.status != 'G' {
            return reply;
        }
        for piece in data.chunks(piece) {
            self.copy_data(piece);
        }
        self.message(|buffer| {
            frontend::copy_done(buffer);
            Ok(())
        });
        self.reply()
    }

    /// One CopyData message.
    pub fn copy_data(&mut self, data: &[u8]) {
        self.message(|buffer| frontend::CopyData::new(data).map(|message| message.write(buffer)));
    }

    /// `COPY … TO STDOUT`: the bytes.
    #[track_caller]
    pub fn copy_out(&mut self, sql: &str) -> Vec<u8> {
        self.ok(sql).copied
    }
}

fn text_of(value: &Option<Vec<u8>>) -> String {
    value.as_ref().map_or("NULL".into(), |value| {
        String::from_utf8_lossy(value).into_owned()
    })
}

type BindError = Box<dyn std::error::Error + Sync + Send>;

fn put_text(
    value: Option<&str>,
    buffer: &mut bytes::BytesMut,
) -> Result<postgres_protocol::IsNull, BindError> {
    match value {
        None => Ok(postgres_protocol::IsNull::Yes),
        Some(text) => {
            buffer.extend_from_slice(text.as_bytes());
            Ok(postgres_protocol::IsNull::No)
        }
    }
}

//! Wire transcripts: what a client sends and what must come back, message by message. Each file in `tests/wire` runs
//! against plain PostgreSQL, through the router over one shard, and through it over four; all must say the same.
//!
//! A transcript is blocks of lines. `> …` is sent, `< …` is expected; `#` comments. A block of sent lines is answered
//! up to as many ReadyForQuery as it has `query` and `sync` lines, or, if it says `> until Name`, up to the first
//! message of that name. Names are PostgreSQL's. What is sent:
//!
//! ```text
//! > query SELECT 1                       simple query; \n in the text is a line break
//! > skipped SELECT 1                     the same where no ReadyForQuery answers it
//! > parse s1 (int4,-) SELECT $1, $2      statement name (- is unnamed), parameter types (- is unspecified), text
//! > bind p1 s1 (1, null, x'0001') binary portal, statement, values; hex values are binary; binary asks for binary results
//! > describe statement s1 | portal p1    > execute p1 10    > close statement s1 | portal p1
//! > flush    > sync    > copydata 1\tone\n    > copydone    > copyfail because
//! ```
//!
//! Left out of the expectation is what must differ from server to server: table OIDs, file, line and routine of
//! errors, and their context (a COPY's line number is the shard's). `UPDATE_EXPECT=1 cargo test --test wire` writes
//! what plain PostgreSQL says into the files.

#[path = "integration/support/mod.rs"]
mod support;

use postgres_protocol::message::frontend;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use support::client::Message;
use support::{Client, Deployment, Target};

/// Tables that transcripts may use; empty at the start of each.
const SCHEMA: &str = "
    CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2), CHECK (price >= 0));
    CREATE TABLE places (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE notes (id int PRIMARY KEY, body text);
    CREATE FUNCTION notice(message text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN RAISE NOTICE ''%'', message; RETURN message; END';
    CREATE FUNCTION fail(message text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN RAISE ''%'', message USING ERRCODE = ''P9999'', DETAIL = ''why'', HINT = ''what then''; END'";
const TABLES: [&str; 3] = ["items", "places", "notes"];

fn deployment(shards: usize) -> Deployment<'static> {
    let options = Deployment::shared().shards(shards).schema(SCHEMA);
    options.sharded("items", "id").reference("places").start()
}

#[test]
fn plain_postgresql_says_what_the_transcripts_expect() {
    let deployment = Deployment::shared()
        .shards(1)
        .schema(SCHEMA)
        .plain()
        .start();
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let one = deployment.one();
    check("plain PostgreSQL", &one, update, || {
        empty(&mut one.connect())
    });
}

#[test]
fn a_router_over_one_shard_says_the_same() {
    let deployment = deployment(1);
    check("one shard", &deployment.target(), false, || {
        empty(&mut deployment.shard(0))
    });
}

#[test]
fn a_router_over_four_shards_says_the_same() {
    let deployment = deployment(4);
    let clean = || (0..4).for_each(|shard| empty(&mut deployment.shard(shard)));
    check("four shards", &deployment.target(), false, clean);
}

fn empty(client: &mut Client) {
    client.run(&format!("TRUNCATE {}", TABLES.join(", ")));
}

/// Runs all transcripts and fails with all differences at once. `UPDATE_EXPECT` needs the plain test to run alone
/// or first: the others compare with the files.
fn check(against: &str, target: &Target, update: bool, clean: impl Fn()) {
    let wanted = std::env::var("PGRING_TRANSCRIPT").unwrap_or_default();
    let mut different = String::new();
    for file in transcripts() {
        if !file.to_string_lossy().contains(&wanted) {
            continue;
        }
        clean();
        let expected = fs::read_to_string(&file).expect("read a transcript");
        let said = match std::panic::catch_unwind(|| play(target, &expected)) {
            Ok(said) => said,
            Err(_) => "the transcript stopped: see above".into(),
        };
        if said == expected {
            continue;
        }
        if update {
            fs::write(&file, said).expect("write a transcript");
        } else {
            write!(
                different,
                "\n{} against {against}:\n{}",
                file.display(),
                difference(&expected, &said)
            )
            .unwrap();
        }
    }
    assert!(different.is_empty(), "{different}");
}

fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let entries = fs::read_dir(folder).expect("the folder of transcripts");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// The transcript as this server would have it: its own sent lines and comments, the server's answers.
fn play(target: &Target, transcript: &str) -> String {
    let mut client = target.connect();
    let mut said = String::new();
    let mut block = Block::default();
    for line in transcript.lines().chain([""]) {
        if let Some(sent) = line.strip_prefix("> ") {
            block.add(sent);
        } else {
            block.exchange(&mut client, &mut said);
        }
        if !line.starts_with("< ") {
            said.push_str(line);
            said.push('\n');
        }
        if line.starts_with("> ") && block.is_over() {
            block.exchange(&mut client, &mut said);
        }
    }
    said.pop();
    said
}

/// Sent lines whose answer was not read yet.
#[derive(Default)]
struct Block {
    bytes: bytes::BytesMut,
    ready_for_query: usize,
    until: Option<String>,
}

impl Block {
    fn is_over(&self) -> bool {
        self.until.is_some()
    }

    fn add(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if verb == "until" {
            self.until = Some(rest.into());
            return;
        }
        if matches!(verb, "query" | "sync") {
            self.ready_for_query += 1;
        }
        append(&mut self.bytes, verb, rest)
            .unwrap_or_else(|error| panic!("cannot send {line:?}: {error}"));
    }

    fn exchange(&mut self, client: &mut Client, said: &mut String) {
        let Self {
            bytes,
            mut ready_for_query,
            until,
        } = std::mem::take(self);
        if bytes.is_empty() && until.is_none() {
            return;
        }
        client.send(&bytes);
        // Several in a row come in an order that means nothing.
        let mut parameters = Vec::new();
        while ready_for_query > 0 || until.is_some() {
            let Some(message) = client.read() else {
                said.push_str("< the server hung up\n");
                return;
            };
            let text = describe(&message);
            if message.tag == b'S' {
                parameters.push(format!("< {text}\n"));
                continue;
            }
            parameters.sort();
            said.extend(parameters.drain(..));
            writeln!(said, "< {text}").unwrap();
            if message.tag == b'Z' {
                ready_for_query = ready_for_query.saturating_sub(1);
            }
            if until
                .as_deref()
                .is_some_and(|until| text.split(' ').next() == Some(until))
            {
                return;
            }
        }
    }
}

type Wrong = Box<dyn std::error::Error + Send + Sync>;

fn append(buffer: &mut bytes::BytesMut, verb: &str, rest: &str) -> Result<(), Wrong> {
    match verb {
        "query" | "skipped" => frontend::query(&unescape(rest), buffer)?,
        "parse" => {
            let (name, rest) = word(rest);
            let (types, text) = list(rest)?;
            let types: Result<Vec<u32>, Wrong> = types.iter().map(|name| type_oid(name)).collect();
            frontend::parse(name, &unescape(text), types?, buffer)?;
        }
        "bind" => {
            let (portal, rest) = word(rest);
            let (statement, rest) = word(rest);
            let (values, rest) = list(rest)?;
            let values: Vec<Value> = values
                .iter()
                .map(|text| value(text))
                .collect::<Result<_, _>>()?;
            let formats: Vec<i16> = values.iter().map(|value| i16::from(value.binary)).collect();
            let results = match rest {
                "binary" => vec![1],
                "" => vec![],
                other => return Err(format!("unknown result format {other}").into()),
            };
            let put = |value: Value, buffer: &mut bytes::BytesMut| match value.bytes {
                None => Ok(postgres_protocol::IsNull::Yes),
                Some(bytes) => {
                    buffer.extend_from_slice(&bytes);
                    Ok(postgres_protocol::IsNull::No)
                }
            };
            frontend::bind(portal, statement, formats, values, put, results, buffer)
                .map_err(|_| "cannot bind")?;
        }
        "describe" | "close" => {
            let (kind, name) = match rest.split_once(' ').ok_or("what?")? {
                ("statement", name) => (b'S', word(name).0),
                ("portal", name) => (b'P', word(name).0),
                _ => return Err("statement or portal".into()),
            };
            match verb {
                "describe" => frontend::describe(kind, name, buffer)?,
                _ => frontend::close(kind, name, buffer)?,
            }
        }
        "execute" => {
            let (portal, limit) = word(rest);
            let limit = if limit.is_empty() { 0 } else { limit.parse()? };
            frontend::execute(portal, limit, buffer)?;
        }
        "flush" => frontend::flush(buffer),
        "sync" => frontend::sync(buffer),
        "copydata" => frontend::CopyData::new(unescape(rest).as_bytes())?.write(buffer),
        "copydone" => frontend::copy_done(buffer),
        "copyfail" => frontend::copy_fail(rest, buffer)?,
        _ => return Err("unknown verb".into()),
    }
    Ok(())
}

/// The next word; `-` stands for the empty name.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    (if word == "-" { "" } else { word }, rest)
}

/// `(a, b) rest` → a, b and the rest. Values hold no commas or parentheses.
fn list(text: &str) -> Result<(Vec<&str>, &str), Wrong> {
    let (items, rest) = text
        .strip_prefix('(')
        .and_then(|text| text.split_once(')'))
        .ok_or("no (list)")?;
    let items = items
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect();
    Ok((items, rest.trim_start()))
}

struct Value {
    bytes: Option<Vec<u8>>,
    binary: bool,
}

fn value(text: &str) -> Result<Value, Wrong> {
    if text == "null" {
        return Ok(Value {
            bytes: None,
            binary: false,
        });
    }
    let Some(hex) = text
        .strip_prefix("x'")
        .and_then(|text| text.strip_suffix('\''))
    else {
        return Ok(Value {
            bytes: Some(unescape(text).into_bytes()),
            binary: false,
        });
    };
    let pairs = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    Ok(Value {
        bytes: Some(pairs.collect::<Result<_, _>>()?),
        binary: true,
    })
}

/// `\n`, `\t`, `\\` and the empty value `\0`.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some('0') => {}
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            _ => plain.push(character),
        }
    }
    plain
}

const TYPES: [(&str, u32); 12] = [
    ("-", 0),
    ("bool", 16),
    ("bytea", 17),
    ("name", 19),
    ("int8", 20),
    ("int2", 21),
    ("int4", 23),
    ("text", 25),
    ("numeric", 1700),
    ("timestamptz", 1184),
    ("unknown", 705),
    ("varchar", 1043),
];

fn type_oid(name: &str) -> Result<u32, Wrong> {
    TYPES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, oid)| *oid)
        .ok_or_else(|| "unknown type".into())
}

fn type_name(oid: u32) -> String {
    TYPES
        .iter()
        .find(|(_, known)| *known == oid)
        .map_or_else(|| oid.to_string(), |(name, _)| (*name).into())
}

/// One backend message as a line.
fn describe(message: &Message) -> String {
    let mut fields = message.fields();
    match message.tag {
        b'1' => "ParseComplete".into(),
        b'2' => "BindComplete".into(),
        b'3' => "CloseComplete".into(),
        b'n' => "NoData".into(),
        b's' => "PortalSuspended".into(),
        b'I' => "EmptyQueryResponse".into(),
        b'c' => "CopyDone".into(),
        b'Z' => format!("ReadyForQuery {}", char::from(message.body[0])),
        b'C' => format!("CommandComplete {}", fields.text()),
        b'A' => {
            let _pid = fields.int32();
            format!("NotificationResponse {} {}", fields.text(), fields.text())
        }
        b'S' => format!("ParameterStatus {}={}", fields.text(), fields.text()),
        b'd' => format!("CopyData {}", printable(&message.body)),
        b'G' | b'H' => {
            let name = if message.tag == b'G' {
                "CopyInResponse"
            } else {
                "CopyOutResponse"
            };
            let overall = fields.byte();
            let columns: Vec<i16> = (0..fields.int16()).map(|_| fields.int16()).collect();
            let format = |binary: bool| if binary { "binary" } else { "text" };
            assert!(
                columns
                    .iter()
                    .all(|column| Some(*column) == overall.map(i16::from)),
                "formats agree"
            );
            format!(
                "{name} {} columns={}",
                format(overall == Some(1)),
                columns.len()
            )
        }
        b't' => {
            let types: Vec<String> = (0..fields.int16())
                .map(|_| type_name(fields.int32() as u32))
                .collect();
            format!("ParameterDescription ({})", types.join(", "))
        }
        b'T' => {
            let mut text = String::from("RowDescription");
            for column in message.columns() {
                let binary = if column.format == 1 { " binary" } else { "" };
                let of_table = if column.table_oid == 0 {
                    String::new()
                } else {
                    format!(" #{}", column.attribute)
                };
                let modifier = if column.type_modifier == -1 {
                    String::new()
                } else {
                    format!("({})", column.type_modifier)
                };
                let name = type_name(column.type_oid);
                write!(
                    text,
                    " [{} {name}{modifier}{of_table}{binary}]",
                    column.name
                )
                .unwrap();
            }
            text
        }
        b'D' => {
            let values = message.values();
            let values = values
                .iter()
                .map(|value| value.as_deref().map_or("null".into(), printable));
            format!("DataRow ({})", values.collect::<Vec<_>>().join(", "))
        }
        b'E' | b'N' => {
            let failure = message.failure();
            let mut text = format!(
                "{}Response",
                if message.tag == b'E' {
                    "Error"
                } else {
                    "Notice"
                }
            );
            for (code, value) in &failure.fields {
                // S repeats V in the server's language.
                if !matches!(code, 'F' | 'L' | 'R' | 'W' | 'S') {
                    write!(text, " {code}={value:?}").unwrap();
                }
            }
            text
        }
        tag => format!("{:?} {:?}", char::from(tag), message.body),
    }
}

/// Text as it is when printable, in quotes when it is empty or looks like something else, hex otherwise.
fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_empty() || text == "null" => format!("{text:?}"),
        Ok(text) if !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) => text
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace('\t', "\\t"),
        _ => {
            let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{}'", digits.concat())
        }
    }
}

/// Each exchange that differs. Sent lines, comments and empty lines are the same in both.
fn difference(expected: &str, said: &str) -> String {
    let (expected, said): (Vec<&str>, Vec<&str>) = (
        expected.split("\n\n").collect(),
        said.split("\n\n").collect(),
    );
    let mut text = String::new();
    for at in 0..expected.len().max(said.len()) {
        let (expected, said) = (expected.get(at).unwrap_or(&""), said.get(at).unwrap_or(&""));
        if expected != said {
            let answers = said.lines().filter(|line| !line.starts_with("> "));
            let answers: String = answers.map(|line| format!("    {line}\n")).collect();
            write!(
                text,
                "  expected\n    {}\n  said\n{answers}",
                expected.replace('\n', "\n    ")
            )
            .unwrap();
        }
    }
    text
}

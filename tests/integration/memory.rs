//! Large messages: the router holds a parameter once and a row in pieces, and gives back what they took.

use crate::support::memory::{peak, reset_peak, resident};
use crate::support::{Client, Deployment, Reply};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use std::io;
use std::time::{Duration, Instant};

const MEGABYTE: usize = 1024 * 1024;
const LARGE: usize = 64 * MEGABYTE;
const BYTEA_OID: u32 = 17;
const INT4_OID: u32 = 23;

/// What else a router may take meanwhile, in kB.
const SLACK: u64 = 16 * 1024;

fn deployment() -> Deployment<'static> {
    Deployment::shared()
        .schema(
            "CREATE TABLE documents (id int PRIMARY KEY, body bytea); \
             CREATE TABLE notes (id int PRIMARY KEY, body bytea)",
        )
        .sharded("documents", "id")
        .reference("notes")
        .settings("[limits]\nrequest_bytes = \"1MB\"\n")
        .start()
}

/// One binary value of this many bytes and a key, in this order or the other.
fn bind(client: &mut Client, statement: &str, bytes: usize, key_first: bool) -> Reply {
    let large = vec![b'x'; bytes];
    let key = 7i32.to_be_bytes();
    let values: [&[u8]; 2] = if key_first {
        [&key, &large]
    } else {
        [&large, &key]
    };
    client.message(|buffer| {
        let put = |value: &[u8], buffer: &mut bytes::BytesMut| {
            buffer.extend_from_slice(value);
            Ok(IsNull::No)
        };
        let bound = frontend::bind("", statement, [1], values, put, [0], buffer);
        bound.map_err(|_| io::Error::other("bind"))?;
        frontend::describe(b'P', "", buffer)?;
        frontend::execute("", 0, buffer)?;
        frontend::sync(buffer);
        Ok(())
    });
    client.reply()
}

fn parse(client: &mut Client, statement: &str, sql: &str, types: &[u32]) {
    client.message(|buffer| {
        frontend::parse(statement, sql, types.iter().copied(), buffer)?;
        frontend::sync(buffer);
        Ok(())
    });
    let reply = client.reply();
    assert!(reply.failure.is_none(), "{sql}: {:?}", reply.failure);
}

#[track_caller]
fn value(reply: &Reply) -> String {
    assert!(reply.failure.is_none(), "{:?}", reply.failure);
    let value = reply.outcomes[0].rows[0].last().expect("a column");
    String::from_utf8(value.clone().expect("a value")).expect("text")
}

/// Runs `work`; how much more than before the process had at most, in kB. Afterwards it gives that back, while it works on:
/// the allocator looks for what was not used for a second once in many allocations.
fn growth(pid: u32, client: &mut Client, work: impl FnOnce(&mut Client)) -> u64 {
    let before = resident(pid);
    reset_peak(pid);
    work(client);
    let grown = peak(pid).saturating_sub(before);
    let mut now = resident(pid);
    let deadline = Instant::now() + Duration::from_secs(30);
    while now >= before + SLACK {
        let late = Instant::now() >= deadline;
        assert!(!late, "{before} kB before, {now} kB afterwards");
        std::thread::sleep(Duration::from_millis(50));
        for _ in 0..200 {
            client.run("SELECT id FROM documents WHERE id = 7 LIMIT 1; SELECT 1");
        }
        now = resident(pid);
    }
    grown
}

#[test]
fn a_large_parameter_is_held_once() {
    let mut deployment = deployment();
    let pid = deployment.router().pid();
    let mut client = deployment.connect();
    client.run("INSERT INTO documents VALUES (7, '')");
    let once = (LARGE / 1024) as u64 + SLACK;
    for (statement, key_first) in [("", true), ("", false), ("named", false)] {
        let (sql, types) = if key_first {
            (
                "SELECT length($2) FROM documents WHERE id = $1",
                [INT4_OID, BYTEA_OID],
            )
        } else {
            (
                "SELECT length($1) FROM documents WHERE id = $2",
                [BYTEA_OID, INT4_OID],
            )
        };
        // The first time a connection may have to be made, the second time it knows the statement.
        for round in 0..2 {
            // A simple query ends the unnamed statement.
            if round == 0 || statement.is_empty() {
                parse(&mut client, statement, sql, &types);
            }
            let grown = growth(pid, &mut client, |client| {
                let reply = bind(client, statement, LARGE, key_first);
                assert_eq!(value(&reply), LARGE.to_string());
            });
            assert!(grown < once, "{sql}: {grown} kB");
        }
    }
}

#[test]
fn a_large_parameter_is_sent_once_more_after_its_statement_was_prepared_anew() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("INSERT INTO documents VALUES (7, '')");
    let sql = "SELECT *, length($1) FROM documents WHERE id = $2";
    parse(&mut client, "named", sql, &[BYTEA_OID, INT4_OID]);
    assert_eq!(
        value(&bind(&mut client, "named", MEGABYTE, false)),
        MEGABYTE.to_string()
    );
    // The shard's own statement has another result from here on, of which the router knows nothing.
    for shard in 0..deployment.shards() {
        let mut shard = deployment.shard(shard);
        shard.run("ALTER TABLE documents ALTER COLUMN body TYPE text USING ''");
    }
    let again = bind(&mut client, "named", MEGABYTE, false);
    assert_eq!(value(&again), MEGABYTE.to_string());
}

#[test]
fn a_large_row_passes_in_pieces() {
    let mut deployment = deployment();
    let pid = deployment.router().pid();
    let mut client = deployment.connect();
    client.run("INSERT INTO documents VALUES (7, '')");
    let sql = format!("SELECT repeat('x', {LARGE}) FROM documents WHERE id = 7");
    let grown = growth(pid, &mut client, |client| {
        assert_eq!(client.value(&sql).len(), LARGE);
        let extended = client.extended(&sql, &[], false);
        assert_eq!(value(&extended).len(), LARGE);
    });
    assert!(grown < SLACK, "{grown} kB");
}

#[test]
fn a_message_for_several_shards_is_held_for_each_up_to_its_limit() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let sql = "INSERT INTO notes (body, id) VALUES ($1, $2)";
    parse(&mut client, "", sql, &[BYTEA_OID, INT4_OID]);
    let reply = bind(&mut client, "", MEGABYTE, false);
    let failure = reply.failure.expect("over the limit");
    assert_eq!(failure.code(), "53400", "{failure}");
    assert!(failure.message().contains("too large for several shards"));
    assert_eq!(reply.status, 'I');
    let below = bind(&mut client, "", MEGABYTE - 1024, false);
    assert!(below.failure.is_none(), "{:?}", below.failure);
    assert_eq!(
        deployment.on_each_shard("SELECT length(body) FROM notes"),
        vec![(MEGABYTE - 1024).to_string(); deployment.shards()]
    );
    let text = format!(
        "INSERT INTO notes VALUES (8, '{}')",
        "x".repeat(MEGABYTE + 1)
    );
    assert_eq!(client.fails(&text).code(), "53400");
}

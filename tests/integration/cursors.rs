//! Cursors and portals over rows of several shards, where `tests/wire` cannot look: limits, blocks with writes, failures,
//! what is refused.

use crate::support::{Client, Deployment};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

/// A hundred accounts of a thousand bytes on all shards.
fn filled(settings: &str) -> (Deployment<'static>, Client) {
    let deployment = Deployment::shared()
        .schema("CREATE TABLE accounts (aid int PRIMARY KEY, bid int, note text)")
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    let mut client = deployment.connect();
    let rows: Vec<String> = (1..=100)
        .map(|aid| format!("({aid}, {}, repeat('x', 1000))", aid % 10))
        .collect();
    client.run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    (deployment, client)
}

#[test]
fn a_portal_that_is_run_in_pieces_keeps_its_rows() {
    let (deployment, mut client) = filled("");
    client.run("BEGIN");
    client.run("UPDATE accounts SET bid = 77 WHERE aid <= 50");
    client.message(|buffer| {
        frontend::parse("", "SELECT aid FROM accounts WHERE bid = $1", [], buffer)?;
        let values = [Some("77")];
        let write = |value: Option<&str>, buffer: &mut bytes::BytesMut| match value {
            Some(value) => {
                buffer.extend_from_slice(value.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        };
        let bound = frontend::bind("p", "", [], values, write, [], buffer);
        assert!(bound.is_ok(), "a Bind");
        frontend::execute("p", 20, buffer)?;
        frontend::sync(buffer);
        Ok(())
    });
    let mut found: Vec<i32> = ids(&client.reply());
    assert_eq!(found.len(), 20);
    // What happens in between changes nothing for it.
    client.run("UPDATE accounts SET bid = 0 WHERE aid > 0");
    for rows in [20, 10, 0] {
        client.message(|buffer| {
            frontend::execute("p", 20, buffer)?;
            frontend::sync(buffer);
            Ok(())
        });
        let reply = client.reply();
        assert!(reply.failure.is_none(), "{:?}", reply.failure);
        let more = ids(&reply);
        assert_eq!(more.len(), rows);
        found.extend(more);
    }
    found.sort_unstable();
    assert_eq!(found, (1..=50).collect::<Vec<i32>>());
    client.run("COMMIT");
    assert_eq!(deployment.prepared(), [""; 0]);
    assert_eq!(
        client.value("SELECT count(*) FROM accounts WHERE bid = 0"),
        "100"
    );
}

fn ids(reply: &crate::support::Reply) -> Vec<i32> {
    let outcomes = reply.outcomes.iter();
    let rows = outcomes.flat_map(|outcome| &outcome.rows);
    rows.map(|row| {
        let value = row[0].as_deref().expect("an id");
        std::str::from_utf8(value).unwrap().parse().unwrap()
    })
    .collect()
}

#[test]
fn a_cursor_shows_what_there_was_when_it_was_declared() {
    let (_deployment, mut client) = filled("");
    client.run("BEGIN");
    client.run("DELETE FROM accounts WHERE aid > 90");
    client.run("DECLARE c CURSOR FOR SELECT bid, count(*) FROM accounts GROUP BY bid ORDER BY bid");
    client.run("DELETE FROM accounts WHERE aid > 10");
    assert_eq!(client.rows("FETCH 2 c"), [["0", "9"], ["1", "9"]]);
    client.run("SAVEPOINT s; DECLARE inner_one CURSOR FOR SELECT aid FROM accounts; ROLLBACK TO s");
    assert_eq!(client.fails("FETCH inner_one").code(), "34000");
    client.run("ROLLBACK");
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "100");
}

#[test]
fn a_cursor_over_the_limit_is_an_error_that_names_it() {
    let (_deployment, mut client) = filled("[limits]\nmerge_bytes = \"64kB\"");
    client.run("BEGIN");
    let failure = client.fails("DECLARE c CURSOR FOR SELECT note FROM accounts");
    assert_eq!(failure.code(), "53400");
    assert_eq!(client.fails("SELECT 1").code(), "25P02");
    client.run("ROLLBACK");
    assert_eq!(client.column("SELECT note FROM accounts").len(), 100);
}

#[test]
fn a_cursor_that_locks_is_refused_over_several_shards_only() {
    let (_deployment, mut client) = filled("");
    for (sql, refusal) in [
        (
            "DECLARE c CURSOR FOR SELECT aid FROM accounts WHERE aid = 1 FOR UPDATE",
            None,
        ),
        (
            "DECLARE d CURSOR FOR SELECT aid FROM accounts FOR UPDATE",
            Some("cursor"),
        ),
        ("DECLARE e CURSOR FOR SELECT a FROM accounts a", None),
    ] {
        client.run("BEGIN");
        let reply = client.simple(sql);
        let failure = reply.failure.as_ref();
        assert_eq!(
            failure.and_then(|failure| failure.refusal()),
            refusal,
            "{sql}"
        );
        client.run("ROLLBACK");
    }
    assert_eq!(
        client
            .fails("DECLARE c CURSOR FOR SELECT aid FROM accounts")
            .code(),
        "25P01"
    );
    assert_eq!(client.fails("FETCH c").code(), "34000");
}

//! Queries over rows that are gathered from several shards, where `tests/differential` cannot look: blocks, limits,
//! failures, prepared statements.

use crate::support::{Client, Deployment};
use postgres_protocol::message::frontend;
use std::time::{Duration, Instant};

const SCHEMA: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE TABLE accounts (aid int PRIMARY KEY, bid int, mood mood, note text);
    CREATE TABLE journal (id int PRIMARY KEY, entry text)";

fn deployment(settings: &str) -> Deployment<'static> {
    Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start()
}

/// A hundred accounts on all shards.
fn filled(settings: &str) -> (Deployment<'static>, Client) {
    let deployment = deployment(settings);
    let mut client = deployment.connect();
    let rows: Vec<String> = (1..=100)
        .map(|aid| {
            let mood = if aid % 3 == 0 { "sad" } else { "glad" };
            format!("({aid}, {}, '{mood}', repeat('x', 1000))", aid % 10)
        })
        .collect();
    client.run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    (deployment, client)
}

#[test]
fn a_block_sees_what_it_wrote_on_every_shard() {
    let (deployment, mut client) = filled("");
    client.run("INSERT INTO journal VALUES (1, 'one')");
    client.run("BEGIN");
    client.run("UPDATE accounts SET bid = 77 WHERE bid = 7");
    client.run("DELETE FROM accounts WHERE aid = 1");
    assert_eq!(
        client.rows(
            "SELECT bid, count(*) FROM accounts WHERE bid IN (1, 7, 77) GROUP BY bid ORDER BY bid"
        ),
        [["1", "9"], ["77", "10"]]
    );
    client.run("INSERT INTO journal VALUES (77, 'many')");
    assert_eq!(
        client.rows("SELECT entry, count(*) FROM journal JOIN accounts ON bid = id GROUP BY entry ORDER BY entry"),
        [["many", "10"], ["one", "9"]]
    );
    client.run("ROLLBACK");
    assert_eq!(
        client.value("SELECT count(*) FROM accounts WHERE bid = 7"),
        "10"
    );
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn a_failed_gather_fails_the_block_and_leaves_clean_connections() {
    let (_deployment, mut client) = filled("[pool]\nsize = 2");
    for _ in 0..5 {
        client.run("BEGIN");
        assert_eq!(
            client
                .fails("SELECT count(*) FROM accounts WHERE bid + 2147483647 > 3")
                .code(),
            "22003",
        );
        assert_eq!(client.fails("SELECT 1").code(), "25P02");
        client.run("ROLLBACK");
        // On the shard that runs the query over the rows.
        assert_eq!(
            client
                .fails("SELECT sum(1 / (aid - 50)) FROM accounts")
                .code(),
            "22012"
        );
        assert_eq!(client.value("SELECT count(*) FROM accounts"), "100");
    }
}

#[test]
fn more_rows_than_the_limit_are_an_error_that_names_it() {
    let (_deployment, mut client) = filled("[limits]\nmerge_bytes = \"64kB\"");
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "100");
    // Sixty-four rows of a thousand bytes fit, a hundred do not.
    assert_eq!(
        client.value("SELECT count(DISTINCT note || '') FROM accounts WHERE bid < 6"),
        "1"
    );
    let failure = client.fails("SELECT count(DISTINCT note || '') FROM accounts");
    assert_eq!(failure.code(), "53400");
    assert!(
        failure.message().contains("limits.merge_bytes"),
        "{failure}"
    );
    assert!(!failure.hint().is_empty());
    // Of its distinct values each shard sends each once.
    assert_eq!(
        client.value("SELECT count(DISTINCT note) FROM accounts"),
        "1"
    );
    client.run("UPDATE accounts SET note = note || aid");
    let failure = client.fails("SELECT count(DISTINCT note) FROM accounts");
    assert_eq!(failure.code(), "53400");
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "100");
}

#[test]
fn floats_that_the_session_rounds_are_not_gathered_as_text() {
    let deployment = Deployment::shared()
        .schema("CREATE TABLE points (id int PRIMARY KEY, x float8, path float8[])")
        .sharded("points", "id")
        .start();
    let mut client = deployment.connect();
    client.run("INSERT INTO points SELECT 1, 0.1::float8 + 0.2, ARRAY[0.1::float8 + 0.2]");
    client.run("INSERT INTO points VALUES (2, 0, '{}'), (3, 0, '{}')");
    for (digits, refusal) in [("1", None), ("0", Some("rounded-floats"))] {
        client.run(&format!("SET extra_float_digits = {digits}"));
        let exact = "SELECT max(x) > 0.3 FROM points";
        assert_eq!(client.value(exact), "t", "{digits}");
        let reply = client.simple("SELECT max(path[1]) > 0.3 FROM points");
        let failure = reply.failure.as_ref();
        assert_eq!(failure.and_then(|failure| failure.refusal()), refusal);
    }
    assert_eq!(client.value("SELECT count(*) FROM points"), "3");
}

#[test]
fn a_cancel_request_ends_a_gather_wherever_it_waits() {
    let (deployment, mut client) = filled("");
    let mut locker = deployment.shard(2);
    locker.run("BEGIN; LOCK TABLE accounts");
    for sql in [
        "SELECT count(DISTINCT bid) FROM accounts",
        "SELECT count(DISTINCT bid + 0) FROM accounts",
        "SELECT count(pg_sleep(60)) FROM accounts WHERE aid = 1 OR aid = 2",
    ] {
        client.message(|buffer| frontend::query(sql, buffer));
        std::thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        deployment.target().cancel(&client.backend_key);
        let failure = client.reply().failure.expect("it was cancelled");
        assert_eq!(failure.code(), "57014", "{sql}: {failure}");
        assert!(started.elapsed() < Duration::from_secs(5), "{sql}");
    }
    locker.run("ROLLBACK");
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "100");
}

#[test]
fn parameters_go_where_they_are_named() {
    let (_deployment, mut client) = filled("");
    let sql = "SELECT bid, count(*), $3::text FROM accounts
        WHERE bid BETWEEN $1 AND $2 AND mood = $4 GROUP BY bid HAVING count(*) > $1 ORDER BY bid LIMIT $5";
    for binary in [false, true] {
        let values = [Some("3"), Some("6"), Some("it's"), Some("glad"), Some("2")];
        let reply = client.extended(sql, &values, binary);
        let rows = reply.outcomes[0].rows.len();
        assert_eq!(rows, 2, "{:?}", reply.failure);
    }
    client.run("PREPARE moods (int, mood) AS SELECT mood, count(*), max(aid) FROM accounts WHERE bid < $1 AND mood <> $2 GROUP BY mood");
    for _ in 0..2 {
        assert_eq!(
            client.rows("EXECUTE moods(2, 'sad')"),
            [["glad", "14", "100"]]
        );
        assert_eq!(
            client.rows("EXECUTE moods(1 + 1, 'glad')"),
            [["sad", "6", "90"]]
        );
    }
}

#[test]
fn a_portal_gives_as_many_rows_as_it_is_asked_for() {
    let (_deployment, mut client) = filled("");
    client.message(|buffer| {
        frontend::parse(
            "",
            "SELECT DISTINCT bid FROM accounts ORDER BY 1",
            [],
            buffer,
        )?;
        let bound = frontend::bind(
            "",
            "",
            [],
            std::iter::empty::<i32>(),
            |_, _| unreachable!(),
            [0],
            buffer,
        );
        bound.map_err(|_| std::io::Error::other("bind"))?;
        frontend::describe(b'P', "", buffer)?;
        frontend::execute("", 4, buffer)?;
        frontend::sync(buffer);
        Ok(())
    });
    let reply = client.reply();
    assert_eq!(reply.outcomes[0].rows.len(), 4, "{:?}", reply.failure);
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn explain_shows_what_is_gathered_and_from_where() {
    let (_deployment, mut client) = filled("");
    let lines = client.column("EXPLAIN SELECT count(DISTINCT bid + 0) FROM accounts WHERE bid > 4");
    assert!(lines[0].starts_with("gather on s"), "{lines:?}");
    assert_eq!(
        lines[1],
        "public.accounts from s0, s1, s2, s3: SELECT \"bid\" FROM \"public\".\"accounts\" AS \"accounts\" WHERE (bid > 4)"
    );
    let scans = lines
        .iter()
        .filter(|line| line.contains("Scan on accounts"));
    assert_eq!(scans.count(), 4, "{lines:?}");
}

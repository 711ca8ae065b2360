//! PREPARE and EXECUTE in SQL: where they run, and that they are each client's own. What they say is in
//! `tests/wire/sql_prepare.txt`.

use crate::support::{Client, Deployment};

const SCHEMA: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE TABLE accounts (aid bigint PRIMARY KEY, name text, balance int, mood mood);
    CREATE TABLE notes (id int PRIMARY KEY, body text)";

fn deployment(settings: &str) -> Deployment<'static> {
    let options = Deployment::shared().schema(SCHEMA).settings(settings);
    let deployment = options.sharded("accounts", "aid").start();
    let rows: Vec<String> = (1..=40)
        .map(|aid| format!("({aid}, 'name {aid}', {aid}, 'sad')"))
        .collect();
    let mut client = deployment.connect();
    client.run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    deployment
}

/// The lines of EXPLAIN.
fn explained(client: &mut Client, sql: &str) -> Vec<String> {
    let reply = client.extended(sql, &[], false);
    assert!(reply.failure.is_none(), "{sql}: {:?}", reply.failure);
    let simple = client.column(sql);
    let extended: Vec<String> = reply.outcomes[0]
        .rows
        .iter()
        .map(|row| String::from_utf8_lossy(row[0].as_deref().unwrap()).into_owned())
        .collect();
    // What the planner counts may differ from one run to the next.
    assert_eq!(extended[0], simple[0]);
    simple
}

#[test]
fn execute_goes_to_the_shard_of_its_argument() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("PREPARE one AS SELECT name FROM accounts WHERE aid = $1");
    client.run(
        "PREPARE raise (bigint, int) AS UPDATE accounts SET balance = balance + $2 WHERE aid = $1",
    );
    for aid in 1..=40 {
        let direct = client.column(&format!(
            "EXPLAIN SELECT name FROM accounts WHERE aid = {aid}"
        ));
        for argument in [format!("{aid}"), format!("'{aid}'"), format!("{aid} + 0.2")] {
            let lines = explained(&mut client, &format!("EXPLAIN EXECUTE one({argument})"));
            assert_eq!(lines[0], direct[0], "{argument}");
            assert!(lines[0].starts_with("single shard on "), "{lines:?}");
            assert!(
                lines.iter().any(|line| line.contains("Index Scan")),
                "{lines:?}"
            );
            assert_eq!(
                client.value(&format!("EXECUTE one({argument})")),
                format!("name {aid}")
            );
        }
        client.run(&format!("EXECUTE raise({aid}, 1)"));
    }
    let total: i32 = deployment
        .on_each_shard("SELECT coalesce(sum(balance), 0) FROM accounts")
        .iter()
        .map(|sum| sum.parse::<i32>().unwrap())
        .sum();
    assert_eq!(total, (1..=40).sum::<i32>() + 40);
    client.run(
        "PREPARE many (bigint[]) AS SELECT aid FROM accounts WHERE aid = ANY ($1) ORDER BY aid",
    );
    assert_eq!(client.column("EXECUTE many('{3,1,2}')"), ["1", "2", "3"]);
    assert_eq!(client.column("EXECUTE many(ARRAY[3, 1 + 1])"), ["2", "3"]);
    let lines = explained(
        &mut client,
        "EXPLAIN EXECUTE many(ARRAY[3, 1, 2, 4, 5, 6, 7])",
    );
    assert!(lines[0].starts_with("push down on s0, s1"), "{lines:?}");
    let lines = client.column("EXPLAIN (ANALYZE, TIMING OFF) EXECUTE raise(1 + 1, 1)");
    assert!(lines[0].starts_with("single shard on "), "{lines:?}");
    assert_eq!(
        client.value("SELECT balance FROM accounts WHERE aid = 2"),
        "4"
    );
    let refused = client.fails("EXPLAIN ANALYZE EXECUTE missing(1)");
    assert_eq!(refused.code(), "26000", "{refused}");
}

#[test]
fn names_are_each_clients_own() {
    let deployment = deployment("[pool]\nsize = 1");
    let (mut one, mut other) = (deployment.connect(), deployment.connect());
    one.run("PREPARE s AS SELECT 'one'");
    assert_eq!(other.fails("EXECUTE s").code(), "26000");
    other.run("PREPARE s AS SELECT 'other'");
    assert_eq!(one.value("EXECUTE s"), "one");
    assert_eq!(other.value("EXECUTE s"), "other");
    other.run("DEALLOCATE ALL");
    assert_eq!(one.value("EXECUTE s"), "one");
    assert_eq!(other.fails("EXECUTE s").code(), "26000");
    drop(one);
    let mut next = deployment.connect();
    assert_eq!(next.fails("EXECUTE s").code(), "26000");
    // Nothing of what a PREPARE is looked at with stays on a shard.
    let refused = next.fails("SELECT name FROM pg_prepared_statements");
    assert_eq!(refused.refusal(), Some("session-state"), "{refused}");
    next.run("PREPARE s (int) AS SELECT $1; EXECUTE s(1 + 1)");
    let left = "/* pgring: shard=s0 */ SELECT count(*) FROM pg_prepared_statements WHERE name !~ '^pgring_[0-9]+$'";
    assert_eq!(next.value(left), "0");
}

#[test]
fn the_number_of_statements_is_limited() {
    let deployment =
        deployment("[limits]\nprepared_statements = 2\nbackend_prepared_statements = 1");
    let mut client = deployment.connect();
    client.run("PREPARE a AS SELECT 'a'; PREPARE b AS SELECT 'b'");
    let failure = client.fails("PREPARE c AS SELECT 'c'");
    assert_eq!(failure.code(), "53400", "{failure}");
    // A backend keeps one: each pushes the other out.
    for _ in 0..3 {
        client.run("BEGIN");
        assert_eq!(client.value("EXECUTE a"), "a");
        assert_eq!(client.value("EXECUTE b"), "b");
        client.run("COMMIT");
    }
    client.run("DEALLOCATE a");
    client.run("PREPARE c AS SELECT 'c'");
    assert_eq!(client.value("EXECUTE c"), "c");
}

#[test]
fn types_that_users_made_have_other_numbers_on_each_shard() {
    let deployment = deployment("");
    // Whatever they were, they differ from here on.
    deployment
        .shard(1)
        .run("CREATE TYPE filler AS ENUM (); CREATE TYPE more AS (a int); DROP TYPE filler");
    let mut client = deployment.connect();
    client.run("CREATE TYPE size AS ENUM ('s', 'l'); ALTER TABLE accounts ADD COLUMN size size");
    client.run("PREPARE put (bigint, size, mood) AS INSERT INTO accounts (aid, size, mood) VALUES ($1, $2, $3)");
    client.run("PREPARE put_too AS INSERT INTO accounts (aid, size) VALUES ($1, $2)");
    for aid in 50..60 {
        client.run(&format!("EXECUTE put({aid}, 'l', 'glad')"));
        client.run(&format!("EXECUTE put({aid} + 10, 's'::size, 'glad')"));
        client.run(&format!("EXECUTE put_too({aid} + 20, 'l')"));
    }
    let counted = "SELECT count(*) FILTER (WHERE size = 'l') || ' ' || count(*) FILTER (WHERE mood = 'glad') FROM accounts";
    let counts = deployment.on_each_shard(counted);
    let sum = |at: usize| -> i32 {
        let number = |text: &String| text.split(' ').nth(at).unwrap().parse::<i32>().unwrap();
        counts.iter().map(number).sum()
    };
    assert_eq!((sum(0), sum(1)), (20, 20));
    let refused = client.fails("PREPARE echo (size) AS SELECT $1");
    assert_eq!(refused.refusal(), Some("sql-prepare"), "{refused}");
    client.run("PREPARE echo AS SELECT $1::size");
    assert_eq!(client.value("EXECUTE echo('s')"), "s");
}

#[test]
fn what_arguments_do_is_done_once_and_kept() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("CREATE SEQUENCE numbers");
    client.run("PREPARE two (bigint, bigint) AS SELECT aid FROM accounts WHERE aid IN ($1, $2 + 30) ORDER BY aid");
    assert_eq!(
        client.column("EXECUTE two(nextval('numbers'), 2)"),
        ["1", "32"]
    );
    assert_eq!(
        client.column("EXECUTE two(nextval('numbers'), nextval('numbers'))"),
        ["2", "33"]
    );
    assert_eq!(client.value("SELECT nextval('numbers')"), "4");
    client.run("PREPARE one (bigint, text) AS SELECT name || $2 FROM accounts WHERE aid = $1");
    assert_eq!(
        client.value("EXECUTE one(length(set_config('application_name', 'abc', false)), '!')"),
        "name 3!"
    );
    assert_eq!(client.value("SHOW application_name"), "abc");
    // A block of the router's own that fails takes back what its arguments did.
    client.run("PREPARE fail (bigint, int) AS SELECT 1 / $2 FROM accounts WHERE aid = $1");
    let failed =
        client.fails("EXECUTE fail(length(set_config('application_name', 'abcd', false)), 0)");
    assert_eq!(failed.code(), "22012", "{failed}");
    assert_eq!(client.value("SHOW application_name"), "abc");
    // What it sets itself is the session's too.
    // On a shard that its key names, too.
    client.run("EXECUTE one(1, set_config('application_name', 'abc', false))");
    let mut other = deployment.connect();
    for aid in 1..=8 {
        client.run(&format!(
            "EXECUTE one({aid}, set_config('application_name', 'leaked', false))"
        ));
        other.run(&format!("SELECT * FROM accounts WHERE aid = {aid}"));
        assert_ne!(other.value("SHOW application_name"), "leaked");
    }
    assert_eq!(client.value("SHOW application_name"), "leaked");
    client.run("PREPARE lock (int, text) AS SELECT $1 + 1, $2");
    client.run("EXECUTE lock(1, pg_advisory_lock(31)::text)");
    assert_eq!(other.value("SELECT pg_try_advisory_lock(31)"), "f");
    client.run("SELECT pg_advisory_unlock(31)");
    assert_eq!(other.value("SELECT pg_try_advisory_lock(31)"), "t");
    client.run("PREPARE name (text) AS SELECT set_config('application_name', $1, false)");
    assert_eq!(client.value("EXECUTE name('mine')"), "mine");
    assert_eq!(client.value("SHOW application_name"), "mine");
    assert_ne!(other.value("SHOW application_name"), "mine");
    // Floats and times are passed on exactly, however they are shown.
    client.run(
        "SET extra_float_digits = 0; SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kolkata'",
    );
    client.run("PREPARE exact (bigint, float8, timestamptz) AS SELECT $2 = 0.1::float8 * 3, $3 = '2024-05-06 01:02:03.456789+00' FROM accounts WHERE aid = $1");
    assert_eq!(
        client.rows(
            "EXECUTE exact(1 + 1, 0.1::float8 * 3, timestamptz '2024-05-06 01:02:03.456789+00')"
        ),
        [["t", "t"]]
    );
}

#[test]
fn a_statement_that_the_schema_outlived_is_prepared_anew() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("PREPARE all_columns AS SELECT * FROM notes; PREPARE by_key (bigint) AS SELECT * FROM accounts WHERE aid = $1");
    assert_eq!(
        client.rows("EXECUTE all_columns"),
        Vec::<Vec<String>>::new()
    );
    assert_eq!(client.rows("EXECUTE by_key(5)")[0].len(), 4);
    deployment
        .connect()
        .run("ALTER TABLE notes ADD COLUMN more int; ALTER TABLE accounts ADD COLUMN more int");
    client.run("INSERT INTO notes VALUES (1, 'a', 2)");
    assert_eq!(client.rows("EXECUTE all_columns"), [["1", "a", "2"]]);
    assert_eq!(client.rows("EXECUTE by_key(5)")[0].len(), 5);
    assert_eq!(
        client.extended("EXECUTE by_key(5)", &[], false).outcomes[0].rows[0].len(),
        5
    );
    // A connection that forgot all it had prepared.
    client.run("SET search_path = public");
    client.run("/* pgring: shard=s0 */ SELECT 1; SELECT 1");
    assert_eq!(client.rows("EXECUTE all_columns"), [["1", "a", "2"]]);
}

#[test]
fn what_cannot_be_executed_is_refused() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("PREPARE s AS SELECT 1");
    for (sql, code) in [
        ("CREATE TABLE made AS EXECUTE s", "sql-prepare"),
        ("CREATE TEMP TABLE made AS EXECUTE s", "sql-prepare"),
        (
            "CREATE FUNCTION reads() RETURNS int LANGUAGE sql AS 'SELECT balance FROM accounts'",
            "",
        ),
        (
            "PREPARE rows AS SELECT count(*) FROM accounts TABLESAMPLE SYSTEM (10) REPEATABLE (1)",
            "",
        ),
        ("EXECUTE rows", "table-sample"),
        ("PREPARE arguments (int) AS SELECT $1", ""),
        ("EXECUTE arguments(currval('x')::int)", "session-state"),
        ("EXECUTE arguments(reads())", "procedural-function"),
    ] {
        let reply = client.simple(sql);
        let refusal = reply.failure.as_ref().and_then(|failure| failure.refusal());
        assert_eq!(
            refusal.unwrap_or_default(),
            code,
            "{sql}: {:?}",
            reply.failure
        );
    }
    // A hint of EXECUTE counts.
    client.run("PREPARE total AS SELECT count(a.*) FROM accounts a");
    assert_eq!(client.value("EXECUTE total"), "40");
    let counts: i32 = (0..4)
        .map(|shard| client.value(&format!("/* pgring: shard=s{shard} */ EXECUTE total")))
        .map(|count| count.parse::<i32>().unwrap())
        .sum();
    assert_eq!(counts, 40);
}

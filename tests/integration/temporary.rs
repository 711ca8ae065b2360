//! Temporary tables: whose they are, where they run, and what they may meet. What they say is in
//! `tests/wire/temporary_tables.txt`.

use crate::support::{Client, Deployment, eventually};
use std::time::Duration;

const SCHEMA: &str = "
    CREATE TABLE accounts (aid bigint PRIMARY KEY, name text, balance int);
    CREATE TABLE places (id int PRIMARY KEY, name text);
    CREATE TABLE notes (id int PRIMARY KEY, body text)";
const SOON: Duration = Duration::from_secs(20);

fn deployment(settings: &str) -> Deployment<'static> {
    let options = Deployment::shared().schema(SCHEMA).settings(settings);
    let deployment = options
        .sharded("accounts", "aid")
        .reference("places")
        .start();
    let rows: Vec<String> = (1..=40)
        .map(|aid| format!("({aid}, 'name {aid}', {aid})"))
        .collect();
    let mut client = deployment.connect();
    client.run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    client.run("INSERT INTO places VALUES (1, 'here'), (2, 'there')");
    client.run("INSERT INTO notes VALUES (1, 'lasting')");
    deployment
}

/// Temporary relations of all sessions of the shard's database.
fn temporary_relations(shard: &mut Client) -> String {
    shard.value(
        "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind IN ('r', 'v', 'S')",
    )
}

#[track_caller]
fn refused(client: &mut Client, sql: &str, code: &str) {
    let failure = client.fails(sql);
    assert_eq!(failure.refusal(), Some(code), "{sql}: {failure}");
}

#[test]
fn they_are_each_sessions_own() {
    // One connection that is pinned, and one for all others.
    let deployment = deployment("[pool]\nsize = 2");
    let (mut one, mut other) = (deployment.connect(), deployment.connect());
    one.run("CREATE TEMP TABLE t (id int); INSERT INTO t VALUES (1)");
    one.run("CREATE TEMP TABLE notes (id int)");
    for _ in 0..5 {
        assert_eq!(other.fails("SELECT * FROM t").code(), "42P01");
        assert_eq!(
            other.value("SELECT body FROM notes WHERE id = 1"),
            "lasting"
        );
        assert_eq!(one.value("SELECT count(*) FROM notes WHERE id = 1"), "0");
        assert_eq!(
            one.value("SELECT count(*) FROM accounts WHERE aid = 5"),
            "1"
        );
        assert_eq!(one.value("SELECT * FROM t WHERE id = 1"), "1");
    }
    // One of the same name and another shape.
    one.run("DROP TABLE notes");
    assert_eq!(one.value("SELECT body FROM notes WHERE id = 1"), "lasting");
    assert_eq!(temporary_relations(&mut deployment.shard(0)), "1");
    drop(one);
    eventually(SOON, "the table is gone", || {
        temporary_relations(&mut deployment.shard(0)) == "0"
    });
    other.run("CREATE TEMP TABLE t (a text); INSERT INTO t VALUES ('x')");
    assert_eq!(other.value("SELECT * FROM t"), "x");
    for shard in 1..4 {
        assert_eq!(temporary_relations(&mut deployment.shard(shard)), "0");
    }
}

#[test]
fn the_connection_is_given_back_when_none_is_left() {
    let deployment = deployment("[pool]\nsize = 2\npinned = 1");
    let (mut one, mut other) = (deployment.connect(), deployment.connect());
    let endings: [&[&str]; 7] = [
        &["CREATE TEMP TABLE t (id int)", "DROP TABLE t"],
        &["CREATE TEMP TABLE t (id int)", "DISCARD TEMP"],
        &["CREATE TEMP TABLE t (id int)", "DISCARD ALL"],
        &["BEGIN; CREATE TEMP TABLE t (id int); ROLLBACK"],
        &[
            "BEGIN; CREATE TEMP TABLE t (id int) ON COMMIT DROP",
            "COMMIT",
        ],
        &[
            "BEGIN; SAVEPOINT s",
            "SELECT 1 AS id INTO TEMP t",
            "ROLLBACK TO s",
            "COMMIT",
        ],
        &[
            "SET search_path = pg_temp; CREATE TABLE t (id int); RESET search_path",
            "DROP TABLE t",
        ],
    ];
    for ending in endings {
        for (at, sql) in ending.iter().enumerate() {
            one.run(sql);
            if at == 0 && ending.len() == 2 {
                let failure = other.fails("CREATE TEMP TABLE t (id int)");
                assert_eq!(failure.code(), "53300", "{failure}");
            }
        }
        let reply = other.simple("CREATE TEMP TABLE t (other int)");
        assert!(reply.failure.is_none(), "{ending:?}: {:?}", reply.failure);
        assert_eq!(one.fails("SELECT * FROM t").code(), "42P01", "{ending:?}");
        other.run("DROP TABLE t");
        assert_eq!(
            temporary_relations(&mut deployment.shard(0)),
            "0",
            "{ending:?}"
        );
    }
    // One that cannot be made keeps nothing.
    one.fails("CREATE TEMP TABLE t (id nosuchtype)");
    one.fails("BEGIN; CREATE TEMP TABLE t (id int); SELECT 1 / 0");
    one.run("ROLLBACK");
    other.run("CREATE TEMP TABLE t (other int)");
    other.run("DROP TABLE t");
    // What runs by a hint leaves nothing to others, explained or not.
    one.run("SET pgring.shard = 's0'");
    one.run("EXPLAIN ANALYZE CREATE TEMP TABLE hinted AS SELECT 1 AS a");
    one.run("SELECT 1 AS a INTO TEMP hinted_too");
    one.run("RESET pgring.shard");
    assert_eq!(temporary_relations(&mut deployment.shard(0)), "0");
    // In a block, the path of the block counts.
    one.run("BEGIN; SET LOCAL search_path = pg_temp; CREATE TABLE by_local_path (id int)");
    assert_eq!(other.fails("SELECT * FROM by_local_path").code(), "42P01");
    one.run("COMMIT");
    assert_eq!(one.value("SELECT count(*) FROM by_local_path"), "0");
    let made = "SELECT count(*) FROM pg_class WHERE relname = 'by_local_path'";
    assert_eq!(deployment.on_each_shard(made), ["1", "0", "0", "0"]);
    one.run("DISCARD ALL");
    assert_eq!(temporary_relations(&mut deployment.shard(0)), "0");
    // The path is each session's own too.
    one.run("SET search_path = pg_temp, public");
    other.run("CREATE TABLE lasting (id int)");
    assert_eq!(other.fails("CREATE TABLE lasting (id int)").code(), "42P07");
    deployment.connect().run("INSERT INTO lasting VALUES (1)");
    assert_eq!(one.value("SELECT * FROM lasting"), "1");
}

#[test]
fn a_lost_backend_is_told_and_its_tables_are_gone() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("CREATE TEMP TABLE notes (id int)");
    client.run("INSERT INTO notes VALUES (7)");
    let pid = client.value("SELECT pg_backend_pid()");
    deployment
        .shard(0)
        .run(&format!("SELECT pg_terminate_backend({pid})"));
    let mut failure = client.fails("SELECT * FROM notes WHERE id = 1");
    if failure.code() == "57P01" {
        // It was asked before it was known to be gone.
        failure = client.fails("SELECT * FROM notes WHERE id = 1");
    }
    assert_eq!(failure.code(), "08006", "{failure}");
    assert!(failure.detail().contains("temporary tables"), "{failure}");
    assert_eq!(
        client.value("SELECT body FROM notes WHERE id = 1"),
        "lasting"
    );
}

#[test]
fn what_they_cannot_meet_is_refused() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client
        .run("CREATE TEMP TABLE t (id bigint, v text); INSERT INTO t SELECT id, name FROM places");
    let on = |client: &mut Client, shard: &str| -> String {
        let mut aids = 1..=40;
        let aid = aids.find(|aid| {
            client.column(&format!("EXPLAIN SELECT 1 FROM accounts WHERE aid = {aid}"))[0]
                .ends_with(&format!(" {shard}"))
        });
        aid.expect("a key of the shard").to_string()
    };
    let (here, elsewhere) = (on(&mut client, "s0"), on(&mut client, "s2"));
    let joined = |aid: &str| format!("SELECT name FROM accounts, t WHERE aid = {aid} AND t.id = 1");
    assert_eq!(client.value(&joined(&here)), format!("name {here}"));
    // Rows of other shards are gathered where the table is.
    assert_eq!(
        client.value(&joined(&elsewhere)),
        format!("name {elsewhere}")
    );
    let gathered = "SELECT aid, v FROM accounts JOIN t ON aid = id ORDER BY aid";
    assert_eq!(client.rows(gathered), [["1", "here"], ["2", "there"]]);
    let reply = client.extended(gathered, &[], false);
    assert_eq!(reply.outcomes[0].rows.len(), 2, "{:?}", reply.failure);
    client.run(
        "PREPARE joined (int) AS SELECT v FROM accounts JOIN t ON aid = id AND id < $1 ORDER BY 1",
    );
    assert_eq!(client.column("EXECUTE joined(5)"), ["here", "there"]);
    client.run("DEALLOCATE joined");
    refused(
        &mut client,
        "DELETE FROM accounts USING t WHERE aid = id",
        "local-with-sharded",
    );
    refused(
        &mut client,
        "INSERT INTO places SELECT id + 10, v FROM t",
        "reference-write-reads",
    );
    refused(
        &mut client,
        "CREATE TEMP TABLE made AS SELECT * FROM accounts",
        "temporary-table",
    );
    refused(
        &mut client,
        &format!("CREATE TEMP TABLE made AS SELECT * FROM accounts WHERE aid = {elsewhere}"),
        "temporary-table",
    );
    client.run(&format!(
        "CREATE TEMP TABLE made AS SELECT * FROM accounts WHERE aid = {here}"
    ));
    client.run(&format!(
        "SELECT name INTO TEMP made_too FROM accounts WHERE aid = {here}"
    ));
    assert_eq!(
        client.value("SELECT count(*) FROM made JOIN made_too USING (name)"),
        "1"
    );
    refused(
        &mut client,
        &format!("SELECT * INTO TEMP other FROM accounts WHERE aid = {elsewhere}"),
        "local-with-sharded",
    );
    for sql in [
        "CREATE TEMP VIEW seen AS SELECT * FROM accounts",
        "CREATE VIEW lasting AS SELECT * FROM t",
        "CREATE MATERIALIZED VIEW lasting AS SELECT * FROM accounts, pg_temp.t",
        "CREATE TABLE lasting (LIKE t)",
        "CREATE TABLE lasting (id int) INHERITS (t)",
        "CREATE TEMP TABLE child () INHERITS (accounts)",
        "CREATE TEMP TABLE child () INHERITS (notes)",
        "ALTER TABLE t INHERIT notes",
        "ALTER TABLE notes INHERIT t",
        "DROP TABLE t, notes",
        "DROP TABLE notes, t",
        "TRUNCATE t, accounts",
        "TRUNCATE t, places",
        "LOCK accounts, t",
        "ANALYZE accounts, t",
        "VACUUM (ANALYZE) t, notes",
        "GRANT SELECT ON t TO PUBLIC",
        "COMMENT ON TABLE t IS 'x'",
        "CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE RULE r AS ON INSERT TO notes DO ALSO INSERT INTO t VALUES (1)",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE pg_temp.pair AS (a int)",
        "CREATE DOMAIN pg_temp.short AS text",
        "CREATE MATERIALIZED VIEW pg_temp.lasting AS SELECT 1",
        "CREATE TABLE pg_temp_3.x (a int)",
        "/* pgring: shard=s1 */ CREATE TEMP TABLE x (a int)",
        "/* pgring: shard=s1 */ DROP TABLE t",
    ] {
        let failure = client.fails(sql);
        let known = [
            "temporary-table",
            "create-table-as",
            "view",
            "local-with-sharded",
        ];
        assert!(
            failure.refusal().is_some_and(|code| known.contains(&code)),
            "{sql}: {failure}"
        );
    }
    for (sql, code) in [
        (
            "EXPLAIN ANALYZE SELECT 1 INTO TEMP explained",
            "temporary-table",
        ),
        (
            "EXPLAIN ANALYZE SELECT set_config('application_name', 'x', false)",
            "session-state",
        ),
        (
            "COPY (SELECT set_config('application_name', 'x', false)) TO STDOUT",
            "session-state",
        ),
        (
            "DECLARE c CURSOR WITH HOLD FOR SELECT set_config('application_name', 'x', false)",
            "session-state",
        ),
    ] {
        refused(&mut client, sql, code);
    }
    client.run("SET search_path = pg_temp, public");
    for sql in [
        "CREATE TYPE pair AS (a int)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ] {
        refused(&mut client, sql, "temporary-table");
    }
    client.run("CREATE TYPE public.pair AS (a int)");
    client.run("SET search_path = nosuch, pg_temp, public");
    refused(&mut client, "CREATE TABLE which (a int)", "temporary-table");
    client.run("SET search_path = public, pg_temp");
    client.run("CREATE TABLE lasting (a int)");
    client.run("RESET search_path");
    let made = "SELECT count(*) FROM pg_class WHERE relname = 'lasting'";
    assert_eq!(deployment.on_each_shard(made), ["1"; 4]);
    for shard in 1..4 {
        assert_eq!(temporary_relations(&mut deployment.shard(shard)), "0");
    }
    // What is still there works.
    assert_eq!(client.value("SELECT count(*) FROM t"), "2");
    client.run("COMMENT ON TABLE public.lasting IS 't'");
}

#[test]
fn a_block_with_them_commits_on_all_shards() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("BEGIN");
    client.run("UPDATE accounts SET balance = 0");
    client.run("CREATE TEMP TABLE t (id int)");
    client.run("INSERT INTO t VALUES (1)");
    client.run("INSERT INTO notes SELECT id + 1, 'from t' FROM t");
    assert_eq!(client.run("COMMIT"), "COMMIT");
    client.run("BEGIN");
    client.run("UPDATE accounts SET balance = 1");
    assert_eq!(client.value("SELECT * FROM t"), "1");
    assert_eq!(client.run("COMMIT"), "COMMIT");
    client.run("ALTER TABLE accounts ADD COLUMN more int");
    client.run("BEGIN; ALTER TABLE accounts ADD COLUMN yet_more int; UPDATE t SET id = 2; COMMIT");
    let sums = deployment.on_each_shard(
        "SELECT count(*) FROM accounts WHERE balance = 1 AND more IS NULL AND yet_more IS NULL",
    );
    assert_eq!(
        sums.iter()
            .map(|sum| sum.parse::<i32>().unwrap())
            .sum::<i32>(),
        40
    );
    client.run("BEGIN");
    client.run("UPDATE accounts SET balance = 2");
    client.run("DROP TABLE t");
    client.run("ROLLBACK");
    assert_eq!(client.value("SELECT * FROM t"), "2");
    assert_eq!(deployment.prepared(), Vec::<String>::new());
}

#[test]
fn plans_are_not_shared_with_others() {
    let deployment = deployment("");
    let (mut one, mut other) = (deployment.connect(), deployment.connect());
    let queries = [
        "SELECT * FROM accounts WHERE aid = 3",
        "SELECT * FROM notes WHERE id = 1",
        "SELECT count(*) FROM places",
    ];
    let before: Vec<_> = queries.iter().map(|sql| other.rows(sql)).collect();
    for round in 0..2 {
        for table in ["accounts", "notes", "places"] {
            one.run(&format!("CREATE TEMP TABLE {table} (aid int, id int)"));
        }
        for sql in queries {
            let rows = one.rows(sql);
            assert!(rows.is_empty() || rows == [["0"]], "{sql}: {rows:?}");
            let reply = one.extended(sql, &[], true);
            assert!(reply.failure.is_none(), "{sql}");
            let explained = one.column(&format!("EXPLAIN {sql}"));
            assert!(explained[0].ends_with(" on s0"), "{explained:?}");
        }
        for (sql, before) in queries.iter().zip(&before) {
            assert_eq!(&other.rows(sql), before, "{round}: {sql}");
            assert_eq!(
                other.extended(sql, &[], false).outcomes[0].rows.len(),
                before.len()
            );
        }
        if round == 0 {
            one.run("DROP TABLE accounts, notes, places");
            for (sql, before) in queries.iter().zip(&before) {
                assert_eq!(&one.rows(sql), before, "{sql}");
            }
        }
    }
    one.run("DISCARD ALL");
    for (sql, before) in queries.iter().zip(&before) {
        assert_eq!(&one.rows(sql), before, "{sql}");
    }
}

#[test]
fn a_prepared_statement_means_what_its_names_mean_now() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("PREPARE one (int) AS SELECT count(*) FROM accounts WHERE aid = $1");
    client.run("PREPARE note (int) AS SELECT body FROM notes WHERE id = $1");
    for round in 0..2 {
        assert_eq!(client.value("EXECUTE one(5)"), "1");
        assert_eq!(client.value("EXECUTE note(1)"), "lasting");
        client.run(
            "CREATE TEMP TABLE notes (id int, body text); CREATE TEMP TABLE accounts (aid int)",
        );
        client.run("INSERT INTO notes VALUES (1, 'passing'); INSERT INTO accounts VALUES (5), (5)");
        assert_eq!(client.value("EXECUTE one(5)"), "2", "{round}");
        assert_eq!(client.value("EXECUTE note(1)"), "passing", "{round}");
        assert_eq!(client.value("EXECUTE note(0 + 1)"), "passing", "{round}");
        let lines = client.column("EXPLAIN EXECUTE one(6)");
        assert_eq!(lines[0], "named shard on s0");
        client.run("BEGIN; DROP TABLE notes, accounts");
        assert_eq!(client.value("EXECUTE one(5)"), "1", "{round}");
        assert_eq!(client.value("EXECUTE note(1)"), "lasting", "{round}");
        client.run("COMMIT");
    }
}

#[test]
fn copy_fills_and_reads_them() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("CREATE TEMP TABLE accounts (id int, v text)");
    let rows: String = (0..5000).map(|id| format!("{id}\trow {id}\n")).collect();
    let reply = client.copy_in("COPY accounts FROM STDIN", rows.as_bytes(), 1000);
    assert!(reply.failure.is_none(), "{:?}", reply.failure);
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "5000");
    assert_eq!(client.copy_out("COPY accounts TO STDOUT"), rows.as_bytes());
    assert_eq!(
        client.copy_out("COPY (SELECT id FROM accounts WHERE id < 2) TO STDOUT"),
        b"0\n1\n"
    );
    assert_eq!(
        client.value("SELECT count(*) FROM public.accounts WHERE aid = 1"),
        "1"
    );
    client.run("DROP TABLE accounts");
    assert_eq!(
        client.value("SELECT count(*) FROM accounts WHERE aid = 1"),
        "1"
    );
}

#[test]
fn a_session_that_keeps_its_connections_has_them_too() {
    let deployment = deployment("[pool]\nmode = \"session\"");
    let mut client = deployment.connect();
    client.run("CREATE TEMP TABLE t (id int); INSERT INTO t VALUES (1)");
    assert_eq!(client.value("SELECT * FROM t"), "1");
    client.run("SELECT * FROM accounts");
    client.run("DROP TABLE t");
    assert_eq!(client.fails("SELECT * FROM t").code(), "42P01");
    // By a hint nothing is looked at; what it leaves is found.
    client.run("/* pgring: shard=s0 */ SELECT 2 AS id INTO TEMP t");
    assert_eq!(client.value("SELECT * FROM t"), "2");
}

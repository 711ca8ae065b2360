//! Which shards a statement reaches, and what is refused.

use crate::support::{Client, Deployment, Failure};

const SCHEMA: &str = "
    CREATE TABLE accounts (aid int PRIMARY KEY, bid int, balance int);
    CREATE TABLE branches (bid int PRIMARY KEY, name text);
    CREATE TABLE journal (id int PRIMARY KEY, entry text)";

fn deployment() -> Deployment<'static> {
    Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .reference("branches")
        .start()
}

/// A hundred accounts, inserted through the router in one statement.
fn filled() -> (Deployment<'static>, Client) {
    let deployment = deployment();
    let mut client = deployment.connect();
    let rows: Vec<String> = (1..=100)
        .map(|aid| format!("({aid}, {}, {})", aid % 10, aid * 10))
        .collect();
    assert_eq!(
        client.run(&format!("INSERT INTO accounts VALUES {}", rows.join(", "))),
        "INSERT 0 100"
    );
    (deployment, client)
}

#[test]
fn a_multi_row_insert_is_split_over_all_shards() {
    let (deployment, _client) = filled();
    let counts = deployment.on_each_shard("SELECT count(*) FROM accounts");
    let counts: Vec<usize> = counts.iter().map(|count| count.parse().unwrap()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 100);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn each_row_is_found_by_its_key_where_it_was_put() {
    let (deployment, mut client) = filled();
    for aid in [1, 2, 3, 50, 99, 100] {
        assert_eq!(
            client.rows(&format!(
                "SELECT bid, balance FROM accounts WHERE aid = {aid}"
            )),
            [[(aid % 10).to_string(), (aid * 10).to_string()]]
        );
        let found =
            deployment.shards_with(&format!("SELECT count(*) FROM accounts WHERE aid = {aid}"));
        assert_eq!(found.len(), 1, "account {aid} is on {found:?}");
    }
}

#[test]
fn statements_by_key_touch_one_shard() {
    let (_deployment, mut client) = filled();
    // Each shard's triggers say that it was asked, even where no row matches.
    client.run(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE NOTICE ''%'', TG_OP; RETURN NULL; END'",
    );
    client.run(
        "CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON accounts FOR EACH STATEMENT EXECUTE FUNCTION note()",
    );
    for (sql, tag, operation) in [
        (
            "UPDATE accounts SET balance = 0 WHERE aid = 7",
            "UPDATE 1",
            "UPDATE",
        ),
        ("DELETE FROM accounts WHERE aid = 7", "DELETE 1", "DELETE"),
        (
            "INSERT INTO accounts VALUES (7, 7, 70)",
            "INSERT 0 1",
            "INSERT",
        ),
    ] {
        client.notices.clear();
        assert_eq!(client.run(sql), tag);
        let said: Vec<&str> = client.notices.iter().map(Failure::message).collect();
        assert_eq!(said, [operation], "{sql}");
    }
    // A notice that all shards send is shown once.
    client.notices.clear();
    assert_eq!(
        client.run("UPDATE accounts SET balance = balance"),
        "UPDATE 100"
    );
    assert_eq!(client.notices.len(), 1);
}

#[test]
fn explain_says_which_shards_are_asked() {
    let (deployment, mut client) = filled();
    let mut explain = |sql: &str| client.column(&format!("EXPLAIN {sql}")).join("\n");
    let home = deployment.shards_with("SELECT count(*) FROM accounts WHERE aid = 7")[0];
    let one = explain("SELECT * FROM accounts WHERE aid = 7");
    assert!(one.contains(&format!("s{home}")), "{one}");
    assert!(
        (0..4)
            .filter(|shard| one.contains(&format!("s{shard}")))
            .count()
            == 1,
        "{one}"
    );
    let all = explain("SELECT * FROM accounts ORDER BY aid LIMIT 3");
    assert!(
        (0..4).all(|shard| all.contains(&format!("s{shard}"))) || all.contains("all shards"),
        "{all}"
    );
    assert!(all.contains("Limit"), "the shards' own plans follow: {all}");
}

#[test]
fn an_in_list_finds_its_rows_on_all_shards() {
    let (_deployment, mut client) = filled();
    let found = client
        .column("SELECT aid FROM accounts WHERE aid IN (1, 2, 3, 4, 5, 6, 7, 8, 500) ORDER BY aid");
    assert_eq!(found, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    assert_eq!(
        client.run("UPDATE accounts SET balance = -1 WHERE aid IN (1, 2, 3, 4, 5, 6, 7, 8, 500)"),
        "UPDATE 8"
    );
    assert_eq!(
        client.run("DELETE FROM accounts WHERE aid IN (1, 2, 3, 4, 500)"),
        "DELETE 4"
    );
}

#[test]
fn an_order_by_with_limit_equals_one_postgresql() {
    let (_deployment, mut client) = filled();
    let found = client.column("SELECT aid FROM accounts ORDER BY bid DESC, aid LIMIT 4 OFFSET 8");
    assert_eq!(found, ["89", "99", "8", "18"]);
    assert_eq!(
        client.column("SELECT aid FROM accounts ORDER BY aid DESC LIMIT 3"),
        ["100", "99", "98"]
    );
}

#[test]
fn what_is_not_provably_right_is_refused_with_code_reason_and_hint() {
    let (_deployment, mut client) = filled();
    for sql in [
        "SELECT count(*) FROM accounts TABLESAMPLE SYSTEM (10) REPEATABLE (1)",
        "SELECT DISTINCT current_database() FROM accounts",
        "SELECT a.aid FROM accounts a JOIN accounts b ON a.bid = b.bid FOR UPDATE",
        "UPDATE accounts a SET balance = b.balance FROM accounts b WHERE a.bid = b.bid",
        "SELECT 1; BEGIN READ ONLY; UPDATE accounts SET balance = 99 WHERE aid = 1",
    ] {
        let failure = client.fails(sql);
        assert_eq!(failure.code(), "0A000", "{sql}: {failure}");
        let code = failure.refusal().unwrap_or_default();
        assert!(!code.is_empty() && !code.contains(' '), "{sql}: {failure}");
        assert!(!failure.hint().is_empty(), "{sql}: {failure}");
        assert_eq!(failure.severity(), "ERROR");
    }
    assert_eq!(
        client.value("SELECT balance FROM accounts WHERE aid = 1"),
        "10"
    );
}

#[test]
fn a_statement_that_was_refused_passes_to_a_named_shard() {
    let (deployment, mut client) = filled();
    let sql = "SELECT count(DISTINCT bid) FROM accounts";
    client.run("SET pgring.shard = 's2'");
    let there = deployment.shard(2).value(sql);
    assert_eq!(client.value(sql), there);
    client.run("RESET pgring.shard");
    assert_eq!(
        client.column("SELECT aid FROM accounts ORDER BY aid").len(),
        100
    );
}

#[test]
fn a_reference_table_is_the_same_on_every_shard() {
    let (deployment, mut client) = filled();
    client.run("INSERT INTO branches VALUES (1, 'one'), (2, 'two')");
    client.run("UPDATE branches SET name = 'zwei' WHERE bid = 2");
    let contents =
        deployment.on_each_shard("SELECT string_agg(name, ',' ORDER BY bid) FROM branches");
    assert_eq!(contents, ["one,zwei"; 4]);
    assert_eq!(client.value("SELECT count(*) FROM branches"), "2");
    let joined = client.rows(
        "SELECT aid, name FROM accounts JOIN branches USING (bid) WHERE bid = 2 ORDER BY aid",
    );
    assert_eq!(joined.len(), 10);
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn a_table_that_is_not_declared_lives_on_the_default_shard() {
    let (deployment, mut client) = filled();
    client.run("INSERT INTO journal VALUES (1, 'a'), (2, 'b')");
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) FROM journal"),
        ["2", "0", "0", "0"]
    );
    assert_eq!(
        client.column("SELECT entry FROM journal ORDER BY id"),
        ["a", "b"]
    );
}

#[test]
fn ddl_reaches_all_shards_or_none() {
    let (deployment, mut client) = filled();
    client.run("CREATE TABLE made (id int PRIMARY KEY, v text)");
    client.run("CREATE INDEX made_v ON made (v)");
    client.run("ALTER TABLE accounts ADD COLUMN note text DEFAULT 'none'");
    assert_eq!(
        deployment
            .on_each_shard("SELECT count(*) FROM pg_class WHERE relname IN ('made', 'made_v')"),
        ["2"; 4]
    );
    assert_eq!(
        client.value("SELECT note FROM accounts WHERE aid = 5"),
        "none"
    );
    // It cannot be made on one of the shards.
    deployment.shard(2).run("CREATE TABLE in_the_way (id int)");
    assert_eq!(
        client.fails("CREATE TABLE in_the_way (id int)").code(),
        "42P07"
    );
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) FROM pg_class WHERE relname = 'in_the_way'"),
        ["0", "0", "1", "0"]
    );
    client.run("DROP TABLE made");
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) FROM pg_class WHERE relname = 'made'"),
        ["0"; 4]
    );
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn ddl_in_a_block_is_rolled_back_on_all_shards() {
    let (deployment, mut client) = filled();
    client.run("BEGIN");
    client.run("CREATE TABLE made (id int)");
    client.run("UPDATE accounts SET balance = 0 WHERE aid = 3");
    client.run("ROLLBACK");
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) FROM pg_class WHERE relname = 'made'"),
        ["0"; 4]
    );
    assert_eq!(
        client.value("SELECT balance FROM accounts WHERE aid = 3"),
        "30"
    );
}

#[test]
fn a_concurrent_index_is_built_on_every_shard() {
    let (deployment, mut client) = filled();
    client.run("CREATE INDEX CONCURRENTLY by_bid ON accounts (bid)");
    let valid = "SELECT count(*) FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname = 'by_bid' AND indisvalid";
    assert_eq!(deployment.on_each_shard(valid), ["1"; 4]);
    client.run("VACUUM accounts");
    client.run("ANALYZE accounts");
}

#[test]
fn what_psql_asks_of_the_catalog_is_answered_once() {
    let (deployment, mut client) = filled();
    assert_eq!(
        client.value("SELECT count(*) FROM pg_class WHERE relname = 'accounts'"),
        "1"
    );
    let psql = |command: &str| {
        let output = deployment
            .program("psql")
            .args(["-X", "-c", command])
            .output()
            .expect("run psql");
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let tables = psql("\\dt");
    for table in ["accounts", "branches", "journal"] {
        assert_eq!(tables.matches(table).count(), 1, "{tables}");
    }
    let columns = psql("\\d accounts");
    assert!(
        columns.contains("accounts_pkey") && columns.contains("balance"),
        "{columns}"
    );
    for command in [
        "\\d",
        "\\d+ accounts",
        "\\di",
        "\\df",
        "\\dn",
        "\\du",
        "\\l",
        "\\dT",
        "\\dx",
        "\\conninfo",
    ] {
        psql(command);
    }
    let copied = psql("\\copy accounts to stdout");
    assert_eq!(copied.lines().count(), 100);
}

#[test]
fn a_view_is_planned_by_what_it_reads() {
    let (_deployment, mut client) = filled();
    client.run("CREATE VIEW rich AS SELECT aid, balance FROM accounts WHERE balance > 950");
    client.run("CREATE VIEW names AS SELECT name FROM branches");
    assert_eq!(client.value("SELECT count(*) FROM names"), "0");
    // Either it is spread over the shards as its table is, or it is refused: one shard's rows would be wrong.
    let reply = client.simple("SELECT aid FROM rich ORDER BY aid");
    match reply.failure {
        None => assert_eq!(reply.outcomes[0].rows.len(), 5),
        Some(failure) => assert!(failure.refusal().is_some(), "{failure}"),
    }
}

#[test]
fn text_that_the_parser_does_not_know_is_refused_or_passed_but_never_guessed() {
    let (_deployment, mut client) = filled();
    for sql in [
        "SELEC 1",
        "SELECT FROM WHERE",
        "UPDATE accounts SET",
        "INSERT INTO accounts VALUES (1,",
    ] {
        let failure = client.fails(sql);
        assert!(
            matches!(failure.code(), "42601" | "0A000"),
            "{sql}: {failure}"
        );
    }
    let deep = format!("SELECT {}1{}", "(".repeat(3000), ")".repeat(3000));
    assert!(client.simple(&deep).failure.is_some());
    let wide = format!(
        "SELECT aid FROM accounts WHERE aid IN ({}1)",
        "1,".repeat(20_000)
    );
    assert_eq!(client.column(&wide), ["1"]);
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn a_plan_in_any_format_is_of_the_formats_type_and_shows_the_routing() {
    let (deployment, mut client) = filled();
    let mut plain = deployment.one().connect();
    let several = "SELECT * FROM accounts WHERE bid < 5 AND balance > 1";
    let one = "UPDATE accounts SET bid = 1 WHERE aid = 7";
    for format in ["json", "XML", "'yaml'", "text"] {
        let explain = |sql: &str| format!("EXPLAIN (COSTS off, FORMAT {format}) {sql}");
        let expected = plain.simple(&explain(one)).outcomes[0].columns.clone();
        for (sql, shards) in [(one, 1), (several, 4)] {
            let simple = client.simple(&explain(sql));
            let extended = client.extended(&explain(sql), &[], false);
            assert!(extended.failure.is_none(), "{:?}", extended.failure);
            assert_eq!(simple.outcomes[0].columns, expected, "{format}");
            assert_eq!(extended.outcomes[0].columns, expected, "{format}");
            assert_eq!(extended.outcomes[0].rows, simple.outcomes[0].rows);
            if format == "text" {
                continue;
            }
            let document = simple.outcomes[0].rows[0][0].clone().unwrap();
            let document = String::from_utf8(document).unwrap();
            let (check, plans) = match format {
                "json" => (
                    format!(
                        "SELECT $${document}$$::json->-1->'Routing'->>0, json_array_length($${document}$$::json->-1->'Shards')"
                    ),
                    document.matches("\"Plan\":").count(),
                ),
                "XML" => (
                    format!(
                        "SELECT (xpath('//*[local-name()=''Line'']/text()', d))[1], cardinality(xpath('//*[local-name()=''Shard'']', d))
                         FROM (SELECT xmlparse(DOCUMENT $${document}$$)) x(d)"
                    ),
                    document.matches("<Query>").count(),
                ),
                _ => {
                    assert!(document.contains("\n- Routing: [\""), "{document}");
                    (String::new(), document.matches("- Plan:").count())
                }
            };
            assert_eq!(plans, shards, "{document}");
            if !check.is_empty() {
                let row = plain.rows(&check).remove(0);
                assert!(row[0].contains(" on s"), "{row:?}");
                assert_eq!(row[1], shards.to_string());
            }
        }
    }
}

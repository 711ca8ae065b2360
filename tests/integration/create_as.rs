//! Relations that are made of a query: defined on every shard, filled where they are at home.

use crate::support::{Client, Deployment};

const SCHEMA: &str = "
    CREATE TABLE orders (id bigint, customer bigint, PRIMARY KEY (customer, id));
    CREATE TABLE codes (code text PRIMARY KEY, name text);
    CREATE TABLE journal (id int PRIMARY KEY, entry text)";

/// Local tables are on the third shard.
fn filled() -> (Deployment<'static>, Client) {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .default_shard(2)
        .sharded("orders", "customer")
        .reference("codes")
        .start();
    let mut client = deployment.connect();
    client.run("INSERT INTO journal VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    client.run("INSERT INTO codes VALUES ('x', 'one'), ('y', 'two')");
    (deployment, client)
}

#[test]
fn what_is_made_of_a_query_is_defined_on_every_shard() {
    let (mut deployment, mut client) = filled();
    for (sql, tag, rows) in [
        (
            "CREATE TABLE made AS SELECT * FROM journal",
            "SELECT 3",
            "3",
        ),
        (
            "CREATE TABLE made (a, b) AS (TABLE journal) -- all",
            "SELECT 3",
            "3",
        ),
        (
            "CREATE UNLOGGED TABLE made AS SELECT * FROM journal WITH DATA;",
            "SELECT 3",
            "3",
        ),
        (
            "CREATE TABLE made AS TABLE journal WITH NO DATA",
            "CREATE TABLE AS",
            "0",
        ),
        (
            "CREATE TABLE IF NOT EXISTS made AS VALUES (1), (2)",
            "SELECT 2",
            "2",
        ),
        ("CREATE TABLE made AS SELECT * FROM codes", "SELECT 2", "2"),
        (
            "CREATE TABLE made AS SELECT FROM journal, codes",
            "SELECT 6",
            "6",
        ),
        (
            "CREATE TABLE made AS SELECT relname FROM pg_class LIMIT 2",
            "SELECT 2",
            "2",
        ),
        (
            "CREATE TABLE made AS SELECT random(), now()",
            "SELECT 1",
            "1",
        ),
    ] {
        assert_eq!(client.run(sql), tag, "{sql}");
        let counts = deployment.on_each_shard("SELECT count(*) FROM made");
        assert_eq!(counts, ["0", "0", rows, "0"], "{sql}");
        assert_eq!(client.value("SELECT count(*) FROM made"), rows, "{sql}");
        client.run("ALTER TABLE made ADD COLUMN more int; CREATE INDEX ON made (more)");
        client.run("DROP TABLE made");
    }
    let reply = client.extended("CREATE TABLE made AS SELECT * FROM journal", &[], false);
    assert_eq!(reply.failure, None);
    assert_eq!(
        client.run("CREATE TABLE IF NOT EXISTS made AS SELECT 1"),
        "CREATE TABLE AS"
    );
    client.run("INSERT INTO made VALUES (4, 'd')");
    deployment.kill_and_restart();
    let mut client = deployment.connect();
    client.run("INSERT INTO made VALUES (5, 'e')");
    client.run("CREATE INDEX made_entry ON made (entry)");
    assert_eq!(
        client.value("SELECT string_agg(entry, '' ORDER BY id) FROM made"),
        "abcde"
    );
    let counts = deployment.on_each_shard("SELECT count(*) FROM made");
    assert_eq!(counts, ["0", "0", "5", "0"]);
    // It cannot be made on one of the shards.
    deployment.shard(3).run("CREATE TABLE in_the_way (id int)");
    let failure = client.fails("CREATE TABLE in_the_way AS SELECT * FROM journal");
    assert_eq!(failure.code(), "42P07");
    let there = "SELECT count(*) FROM pg_class WHERE relname = 'in_the_way'";
    assert_eq!(deployment.on_each_shard(there), ["0", "0", "0", "1"]);
    client.run("BEGIN; CREATE TABLE undone AS SELECT 1; INSERT INTO undone VALUES (2)");
    assert_eq!(client.value("SELECT count(*) FROM undone"), "2");
    client.run("ROLLBACK");
    assert_eq!(client.fails("SELECT * FROM undone").code(), "42P01");
}

#[test]
fn a_materialized_view_has_rows_where_what_it_shows_is() {
    let (deployment, mut client) = filled();
    let sql = "CREATE MATERIALIZED VIEW seen AS SELECT * FROM journal WHERE id > 1";
    assert_eq!(client.run(sql), "SELECT 2");
    assert_eq!(client.value("SELECT count(*) FROM seen"), "2");
    client.run("INSERT INTO journal VALUES (4, 'd'); REFRESH MATERIALIZED VIEW seen");
    assert_eq!(client.value("SELECT count(*) FROM seen"), "3");
    client.run("CREATE INDEX ON seen (id); ALTER MATERIALIZED VIEW seen RENAME TO shown");
    client.run("DROP MATERIALIZED VIEW shown");
    for (sql, rows) in [
        (
            "CREATE MATERIALIZED VIEW seen AS SELECT name FROM codes",
            "2",
        ),
        ("CREATE MATERIALIZED VIEW seen AS VALUES (1)", "1"),
    ] {
        assert_eq!(client.run(sql), format!("SELECT {rows}"));
        for _ in 0..4 {
            assert_eq!(client.value("SELECT count(*) FROM seen"), rows, "{sql}");
        }
        let counts = deployment.on_each_shard("SELECT count(*) FROM seen");
        assert_eq!(counts, [rows; 4], "{sql}");
        client.run("REFRESH MATERIALIZED VIEW seen; DROP MATERIALIZED VIEW seen");
    }
}

#[test]
fn what_would_be_filled_elsewhere_is_refused() {
    let (deployment, mut client) = filled();
    for sql in [
        "CREATE TABLE made AS SELECT * FROM orders",
        "CREATE TABLE made AS SELECT * FROM orders WHERE customer = 1",
        "CREATE TABLE orders AS SELECT * FROM journal",
        "CREATE TABLE IF NOT EXISTS codes AS SELECT * FROM journal",
        "CREATE MATERIALIZED VIEW made AS SELECT now()",
        "CREATE MATERIALIZED VIEW made AS SELECT random() FROM codes",
        "CREATE MATERIALIZED VIEW made AS SELECT relname FROM pg_class",
        "SELECT * INTO made FROM journal",
        "SELECT 1 INTO made",
    ] {
        let failure = client.fails(sql);
        assert_eq!(
            failure.refusal(),
            Some("create-table-as"),
            "{sql}: {failure}"
        );
        assert!(failure.hint().contains("CREATE TABLE AS"), "{sql}");
    }
    client.run("CREATE TEMP TABLE mine AS SELECT 1 AS id");
    let failure = client.fails("CREATE TABLE made AS SELECT * FROM mine");
    assert_eq!(failure.refusal(), Some("temporary-table"), "{failure}");
    let made = "SELECT count(*) FROM pg_class WHERE relname = 'made'";
    assert_eq!(deployment.on_each_shard(made), ["0"; 4]);
}

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

/// What a table is made of, and what is in it.
fn shape(client: &mut Client) -> Vec<String> {
    let columns =
        "SELECT attname || ' ' || format_type(atttypid, atttypmod) || ' ' || coalesce(collname, '')
        FROM pg_attribute LEFT JOIN pg_collation c ON c.oid = attcollation
        WHERE attrelid = 'made'::regclass AND attnum > 0 ORDER BY attnum";
    let mut shape: Vec<String> = client.rows(columns).concat();
    shape.sort();
    shape
}

#[test]
fn a_table_is_made_of_the_rows_of_several_shards() {
    const SCHEMA: &str = "
        CREATE TYPE mood AS ENUM ('sad', 'glad');
        CREATE TABLE orders (id bigint, customer bigint PRIMARY KEY, total numeric(10,2), mood mood, tags varchar(4)[],
            note text COLLATE \"C\", code char(3), wait interval(0));
        CREATE TABLE journal (id int PRIMARY KEY, entry text)";
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .default_shard(2)
        .sharded("orders", "customer")
        .start();
    let (mut client, mut one) = (deployment.connect(), deployment.one().connect());
    let values: Vec<String> = (1..=40)
        .map(|i| {
            let mood = if i % 2 == 0 { "sad" } else { "glad" };
            let tags = if i % 3 == 0 {
                "'{a,\"b,\",NULL}'"
            } else {
                "NULL"
            };
            let (id, total, note) = (i * 2, f64::from(i) / 3.0, i % 4);
            format!("({id}, {i}, {total}, '{mood}', {tags}, 'n{note}', 'c', '{i} min')")
        })
        .collect();
    let rows = &format!("INSERT INTO orders VALUES {}", values.join(", "));
    for side in [&mut client, &mut one] {
        side.run(rows);
        side.run("INSERT INTO journal VALUES (1, 'a'), (2, 'b')");
    }
    for (sql, order) in [
        ("CREATE TABLE made AS SELECT * FROM orders", "customer"),
        ("CREATE TABLE made AS TABLE orders WITH DATA", "customer"),
        (
            "CREATE TABLE made AS SELECT * FROM orders WHERE customer = 7",
            "customer",
        ),
        (
            "CREATE TABLE made (a, b) AS (SELECT note, count(*) FROM orders GROUP BY note)",
            "a",
        ),
        (
            "CREATE TABLE made AS SELECT o, o.mood, entry FROM orders o JOIN journal j ON j.id = o.id % 3 -- all",
            "1",
        ),
        (
            "CREATE UNLOGGED TABLE made WITH (fillfactor = 50) AS WITH o AS (SELECT * FROM orders ORDER BY total LIMIT 3) SELECT total, tags FROM o",
            "1",
        ),
        (
            "CREATE TABLE made AS SELECT sum(total), max(mood), min(wait), avg(id) FROM orders",
            "1",
        ),
        (
            "CREATE TABLE made AS SELECT id, code FROM orders WITH NO DATA",
            "1",
        ),
        (
            "CREATE TABLE IF NOT EXISTS made AS SELECT id FROM orders WHERE customer < 0",
            "1",
        ),
    ] {
        assert_eq!(client.run(sql), one.run(sql), "{sql}");
        let all = format!("SELECT made::text FROM made ORDER BY {order}");
        assert_eq!(client.rows(&all), one.rows(&all), "{sql}");
        let expected = shape(&mut one);
        for shard in 0..4 {
            let mut shard = deployment.shard(shard);
            assert_eq!(shape(&mut shard), expected, "{sql}");
        }
        let counts = deployment.on_each_shard("SELECT count(*) FROM made");
        let rows = one.value("SELECT count(*) FROM made");
        assert_eq!(counts, ["0", "0", &rows, "0"], "{sql}");
        for side in [&mut client, &mut one] {
            side.run("DROP TABLE made");
        }
    }
    // In a block it sees what the block did, and goes with it.
    client.run(
        "BEGIN; DELETE FROM orders WHERE customer > 5; CREATE TABLE made AS SELECT * FROM orders",
    );
    assert_eq!(client.value("SELECT count(*) FROM made"), "5");
    client.run("ROLLBACK");
    let reply = client.extended(
        "CREATE TABLE made AS SELECT customer FROM orders",
        &[],
        false,
    );
    assert_eq!(reply.failure, None);
    assert_eq!(client.value("SELECT sum(customer) FROM made"), "820");
    // It is all or nothing, whichever shard says no.
    deployment.shard(3).run("CREATE TABLE in_the_way (id int)");
    assert_eq!(
        client
            .fails("CREATE TABLE in_the_way AS SELECT * FROM orders")
            .code(),
        "42P07"
    );
    let failure = client.fails("CREATE TABLE broken AS SELECT 1 / (customer - 7) FROM orders");
    assert_eq!(failure.code(), "22012");
    let failure = client.fails("CREATE TABLE broken AS SELECT nothing FROM orders");
    assert_eq!(failure.code(), "42703");
    let there = "SELECT count(*) FROM pg_class WHERE relname IN ('in_the_way', 'broken')";
    assert_eq!(deployment.on_each_shard(there), ["0", "0", "0", "1"]);
    let prepared = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
    assert_eq!(deployment.on_each_shard(prepared), ["0"; 4]);
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
        "CREATE MATERIALIZED VIEW made AS SELECT * FROM orders",
        "SELECT * INTO made FROM orders",
        "CREATE TABLE orders AS SELECT * FROM orders",
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

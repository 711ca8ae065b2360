//! Declarations and the tables that they are about: what does not fit is refused, and all else lives.

use crate::support::{Client, Deployment};

const SCHEMA: &str = "
    CREATE TABLE orders (id bigint, customer bigint, PRIMARY KEY (customer, id));
    CREATE TABLE parts (id bigint PRIMARY KEY, note text) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
    CREATE TABLE codes (code text PRIMARY KEY, name text);
    CREATE TABLE journal (id int PRIMARY KEY, entry text);
    CREATE VIEW seen AS SELECT * FROM parts";

fn deployment() -> Deployment<'static> {
    Deployment::shared()
        .schema(SCHEMA)
        .sharded("orders", "customer")
        .sharded("parts", "id")
        .sharded("later", "id")
        .reference("codes")
        .start()
}

#[track_caller]
fn refused(client: &mut Client, sql: &str, code: &str) -> String {
    let failure = client.fails(sql);
    assert_eq!(failure.refusal(), Some(code), "{sql}: {failure}");
    failure.message().to_owned()
}

#[test]
fn a_declared_table_whose_key_cannot_be_hashed_is_refused_and_others_live() {
    let mut deployment = deployment();
    let mut client = deployment.connect();
    client.run("INSERT INTO orders VALUES (1, 1); INSERT INTO codes VALUES ('a', 'one')");
    client.run("INSERT INTO parts VALUES (1, 'x')");
    for shard in 0..4 {
        deployment.shard(shard).run(
            "DROP VIEW seen; DROP TABLE parts;
             CREATE TABLE parts (id money, note text) PARTITION BY LIST (note);
             CREATE TABLE parts_low PARTITION OF parts FOR VALUES IN ('x');
             CREATE VIEW seen AS SELECT * FROM parts",
        );
    }
    let check = |client: &mut Client| {
        for sql in [
            "SELECT * FROM parts",
            "SELECT * FROM parts WHERE id = '1'",
            "SELECT * FROM parts_low",
            "INSERT INTO parts VALUES ('1', 'x')",
            "UPDATE parts_low SET note = 'x'",
            "COPY parts FROM STDIN",
            "SELECT * FROM orders JOIN parts ON true",
            "SELECT * FROM seen",
        ] {
            let message = refused(client, sql, "declaration");
            let expected =
                "table \"public.parts\": key: column \"id\" of type money cannot be a sharding key";
            assert!(message.ends_with(expected), "{sql}: {message}");
        }
        assert_eq!(
            client.value("SELECT count(*) FROM orders WHERE customer = 1"),
            "1"
        );
        assert_eq!(client.value("SELECT name FROM codes"), "one");
        client.run("INSERT INTO journal VALUES (1, 'x'); DELETE FROM journal");
    };
    // What the router changes itself makes it look at all.
    client.run("ALTER TABLE orders ADD COLUMN note text");
    check(&mut client);
    client.run("UPDATE orders SET note = 'x' WHERE customer = 1");
    // A router that starts says so, and serves the rest.
    deployment.kill_and_restart();
    let mut client = deployment.connect();
    check(&mut client);
    assert!(
        deployment
            .router()
            .log()
            .contains("cannot be a sharding key")
    );
    for shard in 0..4 {
        deployment.shard(shard).run(
            "DROP TABLE parts CASCADE; CREATE TABLE parts (id bigint PRIMARY KEY, note text);
             GRANT ALL ON parts TO PUBLIC",
        );
    }
    client.run("ALTER TABLE orders DROP COLUMN note");
    client.run("INSERT INTO parts VALUES (1, 'x'), (2, 'y')");
    assert_eq!(
        client.column("SELECT note FROM parts ORDER BY id"),
        ["x", "y"]
    );
}

#[test]
fn no_statement_makes_a_declared_table_on_one_shard_only() {
    let deployment = deployment();
    let mut client = deployment.connect();
    for sql in [
        "SELECT * INTO later FROM journal",
        "SELECT * INTO public.later FROM journal WHERE id = 1",
        "SELECT id INTO UNLOGGED TABLE later FROM journal",
        "CREATE TABLE later AS SELECT * FROM journal",
        "CREATE TABLE later AS TABLE journal",
        "CREATE TABLE public.later AS VALUES (1)",
        "CREATE MATERIALIZED VIEW later AS SELECT * FROM journal",
        "EXPLAIN ANALYZE SELECT * INTO later FROM journal",
    ] {
        refused(&mut client, sql, "create-table-as");
    }
    refused(
        &mut client,
        "EXPLAIN ANALYZE SELECT * INTO TEMP others FROM journal",
        "temporary-table",
    );
    for sql in [
        "CREATE SCHEMA made CREATE TABLE later (id int)",
        "CREATE SCHEMA IF NOT EXISTS made AUTHORIZATION app CREATE TABLE later (id int)",
        "CREATE SCHEMA AUTHORIZATION app CREATE VIEW v AS SELECT 1",
        "CREATE SCHEMA made CREATE TABLE t (id int REFERENCES public.orders) GRANT SELECT ON t TO PUBLIC",
    ] {
        refused(&mut client, sql, "mixed-placement");
    }
    // A declared table that is not there is missed as any other.
    let read = "SELECT id FROM later WHERE id = 1";
    for at in ["", "BEGIN"] {
        client.run(at);
        let missing = client.fails(read);
        assert_eq!((missing.code(), &*missing.fields[&'P']), ("42P01", "16"));
        client.run("ROLLBACK");
        let missing = client.extended(read, &[], false).failure.unwrap();
        assert_eq!((missing.code(), &*missing.fields[&'P']), ("42P01", "16"));
    }
    client.run("CREATE SCHEMA made; CREATE SCHEMA IF NOT EXISTS made");
    let made = "SELECT count(*) FROM pg_class WHERE relname = 'later'";
    assert_eq!(deployment.on_each_shard(made), ["0"; 4]);
    client.run("CREATE TABLE later (id bigint PRIMARY KEY)");
    client.run("INSERT INTO later VALUES (1), (2), (3)");
    assert_eq!(
        client.column("SELECT id FROM later ORDER BY id"),
        ["1", "2", "3"]
    );
}

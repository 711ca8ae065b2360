//! Migrations: DDL and the use of what it changed in one block, as Django, Alembic and Rails send them.

use crate::support::{Client, Deployment};

const SCHEMA: &str = "
    CREATE TABLE orders (id bigint, customer bigint, note text, PRIMARY KEY (customer, id));
    CREATE TABLE codes (code text PRIMARY KEY, name text);
    CREATE TABLE log (what text)";

fn filled() -> (Deployment<'static>, Client) {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("orders", "customer")
        .sharded("lines", "customer")
        .reference("codes")
        .start();
    let mut client = deployment.connect();
    let rows: Vec<String> = (1..=40)
        .map(|id| format!("({id}, {id}, 'n{id}')"))
        .collect();
    client.run(&format!("INSERT INTO orders VALUES {}", rows.join(", ")));
    client.run("INSERT INTO codes VALUES ('a', 'one'), ('b', 'two')");
    (deployment, client)
}

#[track_caller]
fn refused(client: &mut Client, sql: &str, code: &str) {
    let failure = client.fails(sql);
    assert_eq!(failure.refusal(), Some(code), "{sql}: {failure}");
}

#[test]
fn a_column_is_added_and_filled_in_one_block() {
    let (deployment, mut client) = filled();
    for end in ["ROLLBACK", "COMMIT"] {
        client.run("BEGIN");
        client.run("ALTER TABLE orders ADD COLUMN state text");
        assert_eq!(client.run("UPDATE orders SET state = 'old'"), "UPDATE 40");
        assert_eq!(
            client.run("UPDATE orders SET state = 'new' WHERE customer = 7"),
            "UPDATE 1"
        );
        client.run("ALTER TABLE orders ALTER COLUMN state SET NOT NULL");
        client.run("CREATE INDEX orders_state ON orders (state)");
        assert_eq!(
            client.run("INSERT INTO orders (id, customer, state) VALUES (1, 101, 'x'), (1, 102, 'x'), (1, 103, 'x')"),
            "INSERT 0 3"
        );
        for customer in 101..=103 {
            let sql = format!("SELECT state FROM orders WHERE customer = {customer}");
            assert_eq!(client.value(&sql), "x");
        }
        let found = client.extended(
            "SELECT state FROM orders WHERE customer = $1",
            &[Some("7")],
            false,
        );
        assert_eq!(found.outcomes[0].rows, [[Some(b"new".to_vec())]]);
        client.run("ALTER TABLE codes ADD COLUMN rank int");
        assert_eq!(client.run("UPDATE codes SET rank = 1"), "UPDATE 2");
        client.run(end);
    }
    assert_eq!(
        client.column("SELECT DISTINCT state FROM orders WHERE customer = 7"),
        ["new"]
    );
    let each = deployment.on_each_shard("SELECT string_agg(rank::text, ',') FROM codes");
    assert_eq!(each, ["1,1"; 4]);
    let rows = deployment.on_each_shard("SELECT count(*) FROM orders");
    assert_eq!(
        rows.iter()
            .map(|rows| rows.parse::<u32>().unwrap())
            .sum::<u32>(),
        43
    );
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn what_a_block_made_is_gone_with_its_savepoint_and_its_end() {
    let (_deployment, mut client) = filled();
    let sql = "UPDATE orders SET extra = 1";
    client.run("BEGIN; SAVEPOINT one");
    client.run("ALTER TABLE orders ADD COLUMN extra int");
    assert_eq!(client.run(sql), "UPDATE 40");
    client.run("ROLLBACK TO one");
    assert_eq!(client.fails(sql).code(), "42703");
    client.run("ROLLBACK TO one");
    client.run("ALTER TABLE orders ADD COLUMN extra text DEFAULT 'x'");
    assert_eq!(
        client.value("SELECT extra FROM orders WHERE customer = 1"),
        "x"
    );
    client.run("RELEASE one");
    assert_eq!(
        client.value("SELECT extra FROM orders WHERE customer = 2"),
        "x"
    );
    client.run("ROLLBACK");
    assert_eq!(client.fails(sql).code(), "42703");
    // Nothing that others plan by has changed.
    client.run("BEGIN");
    client.run("ALTER TABLE orders DROP COLUMN note");
    client.run("INSERT INTO orders VALUES (9, 201), (9, 202)");
    assert_eq!(
        client
            .fails("INSERT INTO orders VALUES (9, 203, 'x')")
            .code(),
        "42601"
    );
    client.run("ROLLBACK");
    client.run("INSERT INTO orders VALUES (9, 203, 'x')");
    // The settings of the block are what they were.
    client.run("BEGIN; SET LOCAL search_path = public, pg_temp; SET LOCAL work_mem = '77kB'");
    client.run("ALTER TABLE orders ADD COLUMN extra int");
    assert_eq!(client.run(sql), "UPDATE 41");
    assert_eq!(client.value("SHOW search_path"), "public, pg_temp");
    assert_eq!(client.value("SHOW work_mem"), "77kB");
    client.run("ROLLBACK");
}

#[test]
fn what_the_block_made_is_judged_as_what_was_there_before() {
    let (_deployment, mut client) = filled();
    for (make, sql, code) in [
        (
            "ALTER TABLE orders ADD COLUMN at timestamptz; ALTER TABLE orders ALTER COLUMN at SET DEFAULT clock_timestamp()",
            "INSERT INTO orders (id, customer) VALUES (1, 201), (1, 202), (1, 203), (1, 204)",
            "default-differs",
        ),
        (
            "CREATE SEQUENCE numbers; ALTER TABLE orders ADD COLUMN n int;
             ALTER TABLE orders ALTER COLUMN n SET DEFAULT nextval('numbers')",
            "INSERT INTO orders (id, customer) VALUES (1, 201)",
            "sequence-default",
        ),
        (
            "CREATE FUNCTION track() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO log VALUES (TG_OP); RETURN NEW; END';
             CREATE TRIGGER track BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION track()",
            "INSERT INTO orders (id, customer) VALUES (1, 201)",
            "trigger",
        ),
        (
            "CREATE TABLE lines (customer bigint, no int, PRIMARY KEY (customer, no))",
            "INSERT INTO lines VALUES (1 + 1, 1)",
            "key-value",
        ),
        (
            "CREATE VIEW shown AS SELECT * FROM orders",
            "DELETE FROM shown",
            "view",
        ),
    ] {
        client.run("BEGIN");
        client.run(make);
        refused(&mut client, sql, code);
        client.run("ROLLBACK");
    }
    // A table, its rows, a foreign key to it, a function and a view, all in one block.
    client.run("BEGIN");
    client.run(
        "CREATE TABLE lines (customer bigint, id bigint, no int, PRIMARY KEY (customer, id, no))",
    );
    client.run("INSERT INTO lines SELECT customer, id, 1 FROM orders");
    client.run("ALTER TABLE lines ADD FOREIGN KEY (customer, id) REFERENCES orders (customer, id)");
    client.run("INSERT INTO lines VALUES (1, 1, 3), (2, 2, 3), (3, 3, 3)");
    client
        .run("CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2'");
    client.run("UPDATE lines SET no = doubled(no)");
    client.run("CREATE VIEW named AS SELECT * FROM codes");
    assert_eq!(
        client.column("SELECT name FROM named ORDER BY code"),
        ["one", "two"]
    );
    client.run("COMMIT");
    assert_eq!(
        client.column("SELECT no FROM lines WHERE customer = 3 ORDER BY no"),
        ["2", "6"]
    );
    assert_eq!(
        client.column("SELECT customer FROM lines ORDER BY customer LIMIT 2"),
        ["1", "1"]
    );
    // In one string, and where a hint changed one shard only.
    client.run("ALTER TABLE orders ADD COLUMN z int; UPDATE orders SET z = 1");
    client.run("BEGIN; SET LOCAL pgring.shard = 's1'; ALTER TABLE orders ADD COLUMN q int");
    client.run("SET LOCAL pgring.shard = ''");
    refused(&mut client, "UPDATE orders SET q = 1", "table-not-loaded");
    client.run("ROLLBACK");
}

//! serial and identity columns of sharded tables: values are unique over all shards.

use crate::support::{Client, Deployment};
use std::collections::BTreeSet;

const SCHEMA: &str = r#"
    CREATE TABLE users (id serial PRIMARY KEY, name text);
    CREATE TABLE notes (owner int, id bigint GENERATED ALWAYS AS IDENTITY, "what it says" text DEFAULT 'nothing',
        PRIMARY KEY (owner, id));
    CREATE SEQUENCE odd_numbers INCREMENT 2;
    CREATE TABLE odd (id int PRIMARY KEY, number int DEFAULT nextval('odd_numbers'));
    CREATE TABLE even (id int PRIMARY KEY, number int DEFAULT 2 * nextval('odd_numbers'));
    CREATE TABLE two (id int PRIMARY KEY, a serial, b serial);
    CREATE SEQUENCE short MAXVALUE 2;
    CREATE TABLE few (id int PRIMARY KEY, number int DEFAULT nextval('short'))"#;

fn deployment() -> Deployment<'static> {
    let options = Deployment::shared().schema(SCHEMA);
    let tables = [
        ("users", "id"),
        ("notes", "owner"),
        ("odd", "id"),
        ("even", "id"),
    ];
    let options = tables
        .into_iter()
        .fold(options, |options, (table, key)| options.sharded(table, key));
    options.sharded("two", "id").sharded("few", "id").start()
}

fn numbers(client: &mut Client, sql: &str) -> Vec<i64> {
    let rows = client.column(sql);
    rows.iter().map(|row| row.parse().unwrap()).collect()
}

#[test]
fn a_serial_key_places_its_row() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let first = client.value("INSERT INTO users (name) VALUES ('a') RETURNING id");
    assert_eq!(first, "1");
    assert_eq!(
        numbers(
            &mut client,
            "INSERT INTO users (name) VALUES ('b'), ('c'), ('d'), ('e') RETURNING id"
        ),
        [2, 3, 4, 5]
    );
    for id in 6..=40 {
        assert_eq!(
            client.run("INSERT INTO users (name) VALUES ('x')"),
            "INSERT 0 1"
        );
        let found = client.value(&format!("SELECT name FROM users WHERE id = {id}"));
        assert_eq!(found, "x");
    }
    let per_shard = deployment.on_each_shard("SELECT count(*) FROM users");
    assert!(per_shard.iter().all(|count| count != "0"), "{per_shard:?}");
    // A value that is given is that value.
    client.run("INSERT INTO users (id, name) VALUES (1000, 'given')");
    client.run("INSERT INTO users VALUES (1001, 'given')");
    assert_eq!(
        client
            .fails("INSERT INTO users (id, name) VALUES (1000, 'again')")
            .code(),
        "23505"
    );
    // The sequence is one for all, however it is called.
    assert_eq!(client.value("SELECT nextval('users_id_seq')"), "41");
    client.value("SELECT setval('users_id_seq', 2000)");
    let next = client.value("INSERT INTO users (name) VALUES ('z') RETURNING id");
    assert_eq!(next, "2001");
}

#[test]
fn parameters_and_prepared_statements_have_values_of_their_own() {
    let deployment = deployment();
    let another = deployment.another_router();
    let mut clients = [deployment.connect(), another.target().connect()];
    let sql = "INSERT INTO users (name) VALUES ($1) RETURNING id, name";
    let mut ids = BTreeSet::new();
    for round in 0..10 {
        for client in &mut clients {
            let name = format!("it's {round}");
            let reply = client.extended(sql, &[Some(&name)], false);
            assert!(reply.failure.is_none(), "{:?}", reply.failure);
            let row = &reply.outcomes[0].rows[0];
            let text = |column: usize| String::from_utf8(row[column].clone().unwrap()).unwrap();
            assert_eq!(text(1), name);
            assert!(ids.insert(text(0)), "{} was given before", text(0));
        }
    }
    let (one, _) = clients.split_first_mut().unwrap();
    let two = "INSERT INTO users (name) VALUES ($2), ($1), ($2) RETURNING name";
    let reply = one.extended(two, &[Some("a"), Some("b")], false);
    let names: Vec<_> = reply.outcomes[0]
        .rows
        .iter()
        .map(|row| row[0].clone().unwrap())
        .collect();
    assert_eq!(names, [b"b", b"a", b"b"]);
    assert_eq!(one.value("SELECT count(*) FROM users"), "23");
}

#[test]
fn identity_and_default_columns_are_filled_too() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let mut expected = 0;
    for owner in 1..=10 {
        let sql = format!("INSERT INTO notes VALUES ({owner}) -- no more\n RETURNING id");
        let refused = client.simple(&sql);
        assert!(refused.failure.is_none(), "{:?}", refused.failure);
        expected += 1;
        let sql = format!("INSERT INTO notes (owner) VALUES ({owner}), ({owner}) RETURNING id");
        assert_eq!(numbers(&mut client, &sql), [expected + 1, expected + 2]);
        expected += 2;
    }
    assert_eq!(
        client.run("INSERT INTO notes (owner, \"what it says\") VALUES (1, 'x' -- c\n) ON CONFLICT (owner, id) DO NOTHING"),
        "INSERT 0 1"
    );
    assert_eq!(
        client
            .fails("INSERT INTO notes (owner, id) VALUES (1, 5)")
            .code(),
        "428C9"
    );
    let all = client.value("SELECT count(DISTINCT id) FROM notes");
    assert_eq!(all, client.value("SELECT count(*) FROM notes"));
    let odd = "INSERT INTO odd (id) VALUES (1), (2), (3), (4) RETURNING number";
    assert_eq!(numbers(&mut client, odd), [1, 3, 5, 7]);
    client.run("BEGIN");
    client.run("INSERT INTO odd (id) VALUES (5)");
    client.run("ROLLBACK");
    let next = client.value("INSERT INTO odd (id) VALUES (5) RETURNING number");
    assert_eq!(next, "11", "as in PostgreSQL a rollback gives none back");
}

#[test]
fn what_is_no_plain_sequence_is_refused() {
    let deployment = deployment();
    let mut client = deployment.connect();
    for sql in [
        "INSERT INTO even (id) VALUES (1)",
        "INSERT INTO two (id, a) VALUES (1, 1)",
        "INSERT INTO users (id, name) VALUES (DEFAULT, 'x'), (7, 'y')",
        "INSERT INTO even (id) SELECT 1",
        "INSERT INTO two (id, a) SELECT 1, 1",
        "WITH x AS (INSERT INTO odd (id) VALUES (1) RETURNING id) SELECT * FROM x",
        "INSERT INTO notes (owner) OVERRIDING USER VALUE VALUES (1)",
        "EXPLAIN INSERT INTO odd (id) VALUES (1)",
    ] {
        let failure = client.fails(sql);
        assert!(
            matches!(failure.refusal(), Some("sequence-default" | "missing-key")),
            "{sql}: {failure}"
        );
    }
    client.run("INSERT INTO few (id) VALUES (1), (2)");
    assert_eq!(
        client.fails("INSERT INTO few (id) VALUES (3)").code(),
        "2200H"
    );
}

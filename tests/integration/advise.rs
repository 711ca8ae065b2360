//! `pgring advise` over a shop without shards: what it sees in statistics, foreign keys, names and statements.

use crate::support::cluster;
use pgring::cli::sandbox::Sandbox;
use std::process::Command;

const SCHEMA: &str = "
    CREATE EXTENSION pg_stat_statements;
    CREATE TABLE countries (code text PRIMARY KEY, name text);
    CREATE TABLE customers (id bigint PRIMARY KEY, email text CONSTRAINT one_email UNIQUE, country text REFERENCES countries);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers, total numeric);
    CREATE TABLE items (order_id bigint NOT NULL REFERENCES orders, customer_id bigint NOT NULL, no int, sku text);
    CREATE TABLE notes (customer_id bigint, text text);
    INSERT INTO countries SELECT 'c' || g, 'x' FROM generate_series(1, 20) g;
    INSERT INTO customers SELECT g, 'm' || g, 'c1' FROM generate_series(1, 2000) g;
    INSERT INTO orders SELECT g, g % 2000 + 1, g FROM generate_series(1, 20000) g;
    INSERT INTO items SELECT g % 20000 + 1, CASE WHEN g % 10 < 3 THEN 7 ELSE g % 2000 + 1 END, 1, 'sku' FROM generate_series(1, 40000) g;
    INSERT INTO notes SELECT nullif(g % 2000, 0), 'x' FROM generate_series(1, 4000) g;
    ANALYZE";

fn advise(sandbox: &Sandbox, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pgring"))
        .arg("advise")
        .arg(sandbox.superuser_dsn(0, "postgres"))
        .args(arguments)
        .output()
        .expect("run pgring");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_key_that_most_statements_have_is_found_with_what_speaks_against_it() {
    let preloaded = ("shared_preload_libraries", "pg_stat_statements");
    let sandbox = cluster::start_with(1, &[preloaded]);
    let mut client = cluster::superuser(&sandbox, 0, "postgres").connect();
    client.run(SCHEMA);
    client.run("SELECT pg_stat_statements_reset()");
    for id in 1..=90 {
        client.run(&format!("SELECT * FROM orders WHERE customer_id = {id}"));
    }
    for id in 1..=6 {
        client.run(&format!("SELECT * FROM items WHERE order_id = {id}"));
    }
    for _ in 1..=4 {
        client.run("SELECT c.name FROM countries c WHERE c.code = 'c1'");
    }
    let file = sandbox.directory().join("advised.toml");
    let path = file.to_str().expect("a path");
    let (success, said, complained) = advise(&sandbox, &["--show", "1", "--write", path]);
    assert!(success, "{complained}");
    let first = "1. customers.id, items.customer_id, notes.customer_id, orders.customer_id";
    assert!(said.starts_with(first), "{said}");
    for line in [
        " calls on one shard; 5.9 % over several, 0.0 % refused",
        " % of items",
        "copied to all  countries",
        "! the unique index one_email of customers does not include the sharding key",
        "! the foreign key items_order_id_fkey of public.items does not pair the sharding keys",
        "have no customer_id, which a sharding key has to have",
        "6 × SELECT * FROM items WHERE order_id = $1",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let map = std::fs::read_to_string(&file).expect("the map");
    assert!(
        map.contains("name = \"public.orders\"\nkey = \"customer_id\"\n"),
        "{map}"
    );
    assert!(
        map.contains("name = \"public.countries\"\nkind = \"reference\"\n"),
        "{map}"
    );
    // What is there stays.
    let (success, _, complained) = advise(&sandbox, &["--write", path]);
    assert!(
        !success && complained.contains("advised.toml"),
        "{complained}"
    );
}

#[test]
fn without_statements_it_goes_by_the_tables() {
    let sandbox = cluster::start_with(1, &[]);
    let (success, _, complained) = advise(&sandbox, &[]);
    assert!(!success && complained.contains("no table"), "{complained}");
    let mut client = cluster::superuser(&sandbox, 0, "postgres").connect();
    client.run("CREATE TABLE visits (tenant_uuid uuid, page text)");
    let (success, said, complained) = advise(&sandbox, &[]);
    assert!(
        success && complained.contains("pg_stat_statements is not there"),
        "{complained}"
    );
    assert!(said.starts_with("1. visits."), "{said}");
    assert!(said.contains("values  not known: run ANALYZE"), "{said}");
}

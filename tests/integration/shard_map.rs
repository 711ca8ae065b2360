//! Another shard map while the router runs: shards and tables that come and go.

use crate::support::Deployment;

const SCHEMA: &str = "
    CREATE TABLE orders (id bigint, customer bigint, PRIMARY KEY (customer, id));
    CREATE TABLE notes (id bigint PRIMARY KEY, note text);
    CREATE TABLE codes (code text PRIMARY KEY)";

fn deployment() -> Deployment<'static> {
    Deployment::shared()
        .shards(2)
        .schema(SCHEMA)
        .sharded("orders", "customer")
        .reference("codes")
        .start()
}

#[test]
fn a_shard_that_has_no_place_yet_takes_no_part() {
    let mut deployment = deployment();
    let mut client = deployment.connect();
    client.run("INSERT INTO orders SELECT g, g FROM generate_series(1, 100) g");
    client.run("INSERT INTO codes VALUES ('a')");
    deployment.declare_shard("");
    let said = deployment.router().reload();
    assert!(said.contains("loaded again"), "{said}");
    let counts = |client: &mut crate::support::Client| {
        client.value("SELECT (SELECT count(*) FROM orders) || ' ' || (SELECT count(*) FROM codes)")
    };
    for _ in 0..4 {
        assert_eq!(counts(&mut client), "100 1");
        assert_eq!(client.value("SELECT count(*) FROM codes"), "1");
    }
    client.run("INSERT INTO codes VALUES ('b'); ALTER TABLE orders ADD COLUMN note text; UPDATE orders SET note = 'x'");
    // Nor where it is in the map from the start.
    deployment.kill_and_restart();
    let mut client = deployment.connect();
    assert_eq!(counts(&mut client), "100 2");
    assert!(
        deployment
            .router()
            .log()
            .contains("has no place in the cluster yet")
    );
}

#[test]
fn declarations_change_where_no_row_would_be_lost_from_sight() {
    let mut deployment = deployment();
    let mut client = deployment.connect();
    let notes = "[[table]]\nname = \"public.notes\"\nkey = \"id\"\n";
    let said = deployment.reload(|map| map + notes);
    assert!(said.contains("loaded again"), "{said}");
    client.run("INSERT INTO notes SELECT g, 'x' FROM generate_series(1, 100) g");
    assert_eq!(deployment.shards_with("SELECT count(*) FROM notes"), [0, 1]);
    // Its rows are where they are.
    let said = deployment.reload(|map| map.replace(notes, ""));
    assert!(
        said.contains("table public.notes has rows already"),
        "{said}"
    );
    assert_eq!(client.value("SELECT note FROM notes WHERE id = 77"), "x");
    assert_eq!(client.value("SELECT count(*) FROM notes"), "100");
    client.run("TRUNCATE notes");
    let said = deployment.reload(|map| map);
    assert!(said.contains("loaded again"), "{said}");
    client.run("INSERT INTO notes SELECT g, 'x' FROM generate_series(1, 100) g");
    assert_eq!(deployment.shards_with("SELECT count(*) FROM notes"), [0]);
}

#[test]
fn what_cannot_be_taken_over_changes_nothing() {
    let mut deployment = deployment();
    let map = std::fs::read_to_string(deployment.directory().join("shards.toml")).unwrap();
    let last = map.rfind("[[shard]]").unwrap();
    let end = map[last..]
        .find("[[table]]")
        .map_or(map.len(), |end| last + end);
    let cases = [
        (
            map.replace("name = \"s1\"", "name = \"s9\""),
            "shard s1 owns slots",
        ),
        (
            format!("{}{}", &map[..last], &map[end..]),
            "shard s1 owns slots",
        ),
        (
            map.replace("default_shard = \"s0\"", "default_shard = \"s1\""),
            "cluster.default_shard cannot change",
        ),
        (
            map.replace("key = \"customer\"", "key = \"customers\""),
            "customers",
        ),
        (map.replace("key =", "keys ="), "key: is missing"),
    ];
    for (edited, reason) in cases {
        assert_ne!(edited, map);
        let said = deployment.reload(|_| edited.clone());
        assert!(
            said.contains("stays as it was") && said.contains(reason),
            "{said}"
        );
    }
    let mut client = deployment.connect();
    client.run("INSERT INTO orders SELECT g, g FROM generate_series(1, 100) g");
    assert_eq!(client.value("SELECT count(*) FROM orders"), "100");
    assert_eq!(
        deployment.shards_with("SELECT count(*) FROM orders"),
        [0, 1]
    );
    let said = deployment.reload(|_| map.clone());
    assert!(said.contains("loaded again"), "{said}");
}

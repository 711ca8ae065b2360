//! Another shard map while the router runs: shards and tables that come and go.

use crate::support::Deployment;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

#[test]
fn a_shard_joins_with_the_definitions_and_the_reference_tables() {
    let mut deployment = Deployment::shared()
        .shards(2)
        .schema(SCHEMA)
        .schema(
            "CREATE TYPE mood AS ENUM ('sad', 'ok');
             CREATE TABLE moods (mood mood PRIMARY KEY, twice text GENERATED ALWAYS AS (note || note) STORED, note text);
             CREATE TABLE users (id bigint PRIMARY KEY, mood mood REFERENCES moods);
             CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
             CREATE VIEW sad AS SELECT * FROM moods WHERE mood = 'sad'",
        )
        .sharded("orders", "customer")
        .sharded("users", "id")
        .reference("codes")
        .reference("moods")
        .reference("parted")
        .start();
    let mut client = deployment.connect();
    client.run("INSERT INTO codes VALUES ('a'), ('b'); INSERT INTO moods VALUES ('sad', DEFAULT, 'x'), ('ok', DEFAULT, NULL)");
    client.run("INSERT INTO parted VALUES (1), (2); INSERT INTO notes VALUES (1, 'x')");
    deployment.declare_shard("");
    deployment.router().kill();
    let said = deployment.pgring(&["init"]);
    assert!(said.starts_with("s2 joined cluster"), "{said}");
    assert_eq!(
        deployment.on_each_shard("SELECT string_agg(mood::text || twice, ',') FROM moods")[2],
        "sadxx"
    );
    for table in ["codes", "moods", "parted"] {
        let sql = format!("SELECT count(*) FROM {table}");
        assert_eq!(deployment.on_each_shard(&sql), ["2", "2", "2"], "{table}");
    }
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) FROM notes"),
        ["1", "0", "0"]
    );
    deployment.kill_and_restart();
    let mut client = deployment.connect();
    client.run("INSERT INTO users SELECT g, 'ok' FROM generate_series(1, 100) g");
    for _ in 0..4 {
        assert_eq!(client.value("SELECT count(*) FROM moods"), "2");
        assert_eq!(client.value("SELECT count(*) FROM users"), "100");
    }
    client.run("UPDATE codes SET code = code || 'x'; ALTER TABLE users ADD COLUMN note text");
    assert_eq!(
        deployment.on_each_shard("SELECT string_agg(code, ',' ORDER BY code) FROM codes"),
        ["ax,bx"; 3]
    );
}

#[test]
fn a_shard_joins_while_clients_write() {
    let mut deployment = deployment();
    let second = deployment.another_router();
    deployment
        .connect()
        .run("INSERT INTO codes SELECT 'c' || g FROM generate_series(1, 200) g");
    deployment.declare_shard("");
    let said = deployment.router().reload();
    assert!(said.contains("loaded again"), "{said}");
    second.declare_as(&deployment);
    let said = second.reload();
    assert!(said.contains("loaded again"), "{said}");
    let done = AtomicBool::new(false);
    let targets = [deployment.target(), second.target()];
    let written = std::thread::scope(|scope| {
        let writers = [0, 1, 2, 3].map(|writer: usize| {
            let (target, done) = (&targets[writer % 2], &done);
            scope.spawn(move || {
                let mut client = target.connect();
                let mut written = 0;
                while !done.load(Ordering::Relaxed) {
                    client.run(&format!("INSERT INTO codes VALUES ('w{writer}-{written}')"));
                    client.run(&format!(
                        "UPDATE codes SET code = code WHERE code = 'c{written}'"
                    ));
                    assert_eq!(
                        client.value("SELECT count(*) FROM codes WHERE code LIKE 'c%'"),
                        "200"
                    );
                    written += 1;
                }
                written
            })
        });
        let said = deployment.pgring(&["init"]);
        assert!(said.starts_with("s2 joined cluster"), "{said}");
        std::thread::sleep(Duration::from_millis(200));
        done.store(true, Ordering::Relaxed);
        writers
            .map(|writer| writer.join().expect("a writer"))
            .iter()
            .sum::<i32>()
    });
    let counts = deployment.on_each_shard("SELECT count(*) FROM codes");
    assert_eq!(
        counts,
        [
            (200 + written).to_string(),
            (200 + written).to_string(),
            (200 + written).to_string()
        ]
    );
    let sums =
        deployment.on_each_shard("SELECT md5(string_agg(code, ',' ORDER BY code)) FROM codes");
    assert!(sums.iter().all(|sum| *sum == sums[0]));
}

#[test]
fn a_shard_with_rows_of_its_own_does_not_join() {
    let mut deployment = deployment();
    deployment.declare_shard(&format!("{SCHEMA}; INSERT INTO orders VALUES (1, 1)"));
    deployment.router().kill();
    let said = deployment.fails(&["init"]);
    assert!(
        said.contains("the sharded table \"public\".\"orders\" has rows already"),
        "{said}"
    );
}

#[test]
fn a_shard_that_differs_does_not_join() {
    let mut deployment = deployment();
    deployment.declare_shard("CREATE TABLE orders (id bigint, customer bigint, PRIMARY KEY (customer, id)); CREATE TABLE codes (code text)");
    deployment.router().kill();
    let said = deployment.fails(&["init"]);
    assert!(
        said.contains("shard s2 differs from shard s0 in public.codes"),
        "{said}"
    );
    assert_eq!(
        deployment
            .shard(2)
            .value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgring'"),
        "0"
    );
}

#[test]
fn a_shard_that_left_the_map_is_not_read_when_it_comes_back() {
    let mut deployment = Deployment::shared()
        .shards(3)
        .schema(SCHEMA)
        .sharded("orders", "customer")
        .reference("codes")
        .plain()
        .start();
    let path = deployment.directory().join("shards.toml");
    let map = std::fs::read_to_string(&path).expect("read shards.toml");
    let three = map.replace("name = \"s2\"", "name = \"s2\"\nweight = 0");
    std::fs::write(&path, &three).expect("write shards.toml");
    deployment.pgring(&["init"]);
    deployment.kill_and_restart();
    let mut client = deployment.connect();
    client.run("INSERT INTO codes VALUES ('a')");
    let start = three.find("[[shard]]\nname = \"s2\"").expect("s2");
    let end = three.find("[[table]]").expect("tables");
    let two = format!("{}{}", &three[..start], &three[end..]);
    // Nobody would find these.
    deployment.shard(2).run("INSERT INTO orders VALUES (1, 1)");
    let said = deployment.reload(|_| two.clone());
    assert!(
        said.contains("stays as it was") && said.contains("public.orders has rows on shard s2"),
        "{said}"
    );
    deployment.shard(2).run("DELETE FROM orders");
    let said = deployment.reload(|_| two.clone());
    assert!(said.contains("loaded again"), "{said}");
    client.run("INSERT INTO codes VALUES ('b')");
    let count = "SELECT count(*) FROM codes";
    assert_eq!(deployment.on_each_shard(count), ["2", "2", "1"]);
    let said = deployment.reload(|_| three.clone());
    assert!(said.contains("loaded again"), "{said}");
    client.run("INSERT INTO codes VALUES ('c')");
    for _ in 0..20 {
        assert_eq!(client.value(count), "3");
    }
    let said = deployment.pgring(&["init"]);
    assert!(said.starts_with("s2 joined cluster"), "{said}");
    assert_eq!(deployment.on_each_shard(count), ["3"; 3]);
}

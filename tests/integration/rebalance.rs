//! Slots that move between shards, with and without clients. `PGRING_REBALANCE_SECONDS` lengthens the run under load.

use super::support::Deployment;
use pgring::topology::hash::SEED;
use std::fs;

/// Rows of `t` that a test puts in.
const ROWS: u32 = 2000;

/// A sharded table with rows, and one beside it.
fn deployment(shards: usize) -> Deployment<'static> {
    let deployment = Deployment::shared()
        .shards(shards)
        .schema("CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL, n numeric)")
        .schema("CREATE TABLE line (id int, number int, tags text[], PRIMARY KEY (id, number))")
        .sharded("t", "id")
        .sharded("line", "id")
        .start();
    let mut client = deployment.connect();
    client.run(&format!(
        "INSERT INTO t SELECT g, 'row ' || g, g / 7.0 FROM generate_series(1, {ROWS}) g"
    ));
    client.run(&format!(
        "INSERT INTO line SELECT g, n FROM generate_series(1, {ROWS}) g, generate_series(1, 2) n"
    ));
    client.run("UPDATE line SET tags = ARRAY['a', NULL]");
    deployment
}

/// Puts slots on a shard by a pin in the shard map.
fn pin(deployment: &Deployment<'_>, slots: &str, shard: usize) {
    let file = deployment.directory().join("shards.toml");
    let text = fs::read_to_string(&file).expect("read shards.toml");
    fs::write(
        &file,
        format!("{text}[[pin]]\nslots = \"{slots}\"\nshard = \"s{shard}\"\n"),
    )
    .expect("write shards.toml");
}

/// How many rows of `t` each shard has in the slots below `end`.
fn rows_below(deployment: &Deployment<'_>, end: u32) -> Vec<String> {
    deployment.on_each_shard(&format!(
        "SELECT count(*) FROM t WHERE (hashint8extended(id, {SEED}) & 16383) < {end}"
    ))
}

/// What no move may leave behind.
fn leaves_nothing(deployment: &Deployment<'_>) {
    let leftovers = [
        "SELECT count(*) FROM pg_subscription WHERE subname ~ '^pgring' AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        "SELECT count(*) FROM pg_publication WHERE pubname ~ '^pgring'",
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()",
        "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^~pgring'",
        "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'pgring' AND proname ~ '^guard_[0-9t]'",
        "SELECT count(*) FROM pgring.marker",
        "SELECT count(*) FROM pgring.ownership WHERE fenced <> '{}' OR closed <> '{}' OR foreign_slots <> '{}'",
    ];
    for sql in leftovers {
        for (shard, count) in deployment.on_each_shard(sql).iter().enumerate() {
            assert_eq!(count, "0", "shard {shard}: {sql}");
        }
    }
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn slots_move_with_their_rows_and_the_old_ones_are_deleted() {
    let mut deployment = deployment(2);
    deployment.router().kill();
    pin(&deployment, "0-4095", 1);
    let plan = deployment.pgring(&["rebalance", "--plan"]);
    assert!(plan.contains("s0    s1"), "{plan}");
    let report = deployment.pgring(&["rebalance"]);
    assert!(report.contains("kept"), "{report}");
    let below = rows_below(&deployment, 4096);
    assert_ne!(below[1], "0");
    deployment.kill_and_restart();
    let mut client = deployment.connect();
    for id in 1..20 {
        let count = client.value(&format!("SELECT count(*) FROM t WHERE id = {id}"));
        assert_eq!(count, "1");
    }
    deployment.router().kill();
    let report = deployment.pgring(&["rebalance", "--complete"]);
    deployment.kill_and_restart();
    let mut client = deployment.connect();
    assert!(report.contains("done"), "{report}");
    assert_eq!(rows_below(&deployment, 4096)[0], "0");
    assert_eq!(rows_below(&deployment, 4096)[1], below[1]);
    assert_eq!(client.value("SELECT count(*) FROM t"), ROWS.to_string());
    assert_eq!(
        client.value("SELECT count(*) FROM line"),
        (2 * ROWS).to_string()
    );
    leaves_nothing(&deployment);
    let nothing = deployment.pgring(&["rebalance"]);
    assert!(nothing.contains("nothing to do"), "{nothing}");
}

//! The rows by which blocks over several shards are decided: how long they stay.

use crate::support::deployment::decide;
use crate::support::process::Guarded;
use crate::support::{Client, Deployment, cluster, eventually};
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Some rounds of recovery.
const A_WHILE: Duration = Duration::from_secs(1);
const DECISIONS: &str = "SELECT count(*) FROM pgring.decision";

fn deployment() -> Deployment<'static> {
    let deployment = Deployment::shared()
        .schema("CREATE TABLE accounts (aid int PRIMARY KEY, balance int)")
        .sharded("accounts", "aid")
        .settings("[recovery]\ninterval = \"100ms\"")
        .start();
    let rows: Vec<String> = (1..=40).map(|aid| format!("({aid}, 100)")).collect();
    deployment
        .connect()
        .run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    deployment
}

/// One block over all shards.
fn add_everywhere(client: &mut Client) {
    client.run("UPDATE accounts SET balance = balance + 1");
}

fn none_left(deployment: &Deployment<'_>) -> bool {
    let counts = deployment.on_each_shard(DECISIONS);
    counts.iter().all(|count| count == "0")
}

#[test]
fn a_decision_goes_when_all_shards_have_finished_it() {
    let deployment = deployment();
    let mut client = deployment.connect();
    for _ in 0..3 {
        add_everywhere(&mut client);
    }
    eventually(SOON, "no decision is left", || none_left(&deployment));
    // One that has a part left stays.
    let mut decider = deployment.shard(0);
    decider.run("BEGIN");
    let gid = decide(&mut decider, "s0", "s1");
    let mut part = deployment.shard(1);
    part.run(&format!(
        "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '{gid}'"
    ));
    std::thread::sleep(A_WHILE);
    assert_eq!(deployment.prepared(), [gid.as_str()], "it may still commit");
    decider.run("COMMIT");
    eventually(SOON, "the part is finished", || {
        deployment.prepared().is_empty()
    });
    eventually(SOON, "the decision goes then", || none_left(&deployment));
}

#[test]
fn a_decision_stays_until_the_standbys_know_that_its_parts_are_finished() {
    let deployment = deployment();
    let sandbox = cluster::shared();
    let name = format!("decisions_{}", std::process::id());
    let folder = deployment.directory().join("wal");
    std::fs::create_dir(&folder).unwrap();
    // It says that it has a part of the log when the file is full: never, here.
    let target = cluster::superuser(sandbox, 1, deployment.database());
    let mut standby = cluster::program(sandbox, "pg_receivewal", &target);
    standby
        .arg("-D")
        .arg(&folder)
        .env("PGAPPNAME", &name)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut standby = Guarded::spawn(&mut standby);
    let mut shard = cluster::superuser(sandbox, 1, deployment.database()).connect();
    let streaming = format!(
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'"
    );
    eventually(SOON, "the log is streamed", || {
        shard.value(&streaming) == "1"
    });
    // What was decided before is forgotten by then, or will be when the standby is gone.
    add_everywhere(&mut deployment.connect());
    std::thread::sleep(A_WHILE);
    assert!(!none_left(&deployment), "the standby has not got the end");
    standby.kill();
    eventually(SOON, "the decision goes", || none_left(&deployment));
}

#[test]
fn nobody_decides_for_others() {
    let deployment = deployment();
    let target = cluster::direct(cluster::shared(), 0, deployment.database());
    let mut user = target.connect();
    let failure = user.fails("INSERT INTO pgring.decision VALUES ('5', 1, '{}')");
    assert_eq!(failure.code(), "42501");
    // What a transaction adds names itself.
    user.run("BEGIN");
    let xid = user.value("SELECT pg_current_xact_id()");
    user.run("SELECT pgring.decide(3, '{s1}')");
    let sql = format!("SELECT nonce FROM pgring.decision WHERE xid = '{xid}'");
    assert_eq!(user.value(&sql), "3");
    assert_eq!(
        user.fails("SELECT pgring.decide(4, '{s1}')").code(),
        "23505"
    );
    user.run("ROLLBACK");
    assert_eq!(user.rows(&sql).len(), 0);
}

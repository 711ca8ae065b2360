//! `pgring.snapshot`: what a read over several shards sees of transactions over several shards.

use crate::support::deployment::decide;
use crate::support::{Client, Deployment, Target, eventually, setting};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const SCHEMA: &str = "CREATE TABLE accounts (aid int PRIMARY KEY, balance int)";
const ACCOUNTS: usize = 40;
const TOTAL: &str = "4000";
const SUM: &str = "SELECT sum(balance) FROM accounts";
const REPEATABLE: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";
/// The lock of those who commit or open snapshots.
const LOCK_KEY: u64 = 0x7067_7269_6e67_0002;

fn deployment(settings: &str) -> Deployment<'static> {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    let rows: Vec<String> = (1..=ACCOUNTS).map(|aid| format!("({aid}, 100)")).collect();
    deployment
        .connect()
        .run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    deployment
}

fn consistent(target: &Target) -> Client {
    let mut client = target.connect();
    client.run("SET pgring.snapshot = 'consistent'");
    client
}

/// Leaves a transfer from shard 1 to shard 0 half committed, as a crash would: shard 0 has decided, and shard 1 is
/// still prepared.
fn plant_half(deployment: &Deployment<'_>) -> String {
    let mut decider = deployment.shard(0);
    decider.run("BEGIN; UPDATE accounts SET balance = balance + 10 WHERE aid = (SELECT min(aid) FROM accounts)");
    let gid = decide(&mut decider, "s0", "s1");
    deployment.shard(1).run(&format!(
        "BEGIN; UPDATE accounts SET balance = balance - 10 WHERE aid = (SELECT min(aid) FROM accounts); \
         PREPARE TRANSACTION '{gid}'"
    ));
    decider.run("COMMIT");
    gid
}

#[test]
fn what_is_half_committed_is_seen_in_part_by_default_and_settled_if_asked_for() {
    // Recovery would settle it.
    let deployment = deployment("[recovery]\ninterval = \"1h\"");
    // It looks once at start.
    std::thread::sleep(Duration::from_millis(500));
    plant_half(&deployment);
    let mut plain = deployment.connect();
    assert_eq!(plain.value(SUM), "4010", "the anomaly");
    let mut client = consistent(&deployment.target());
    assert_eq!(client.value(SUM), TOTAL);
    assert_eq!(deployment.prepared(), [""; 0]);
    plant_half(&deployment);
    client.run(REPEATABLE);
    assert_eq!(client.value(SUM), TOTAL);
    client.run("COMMIT");
}

#[test]
fn a_block_sees_one_state_of_all_shards() {
    let deployment = deployment("");
    let ids = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    let of = |aid: &str| format!("SELECT balance FROM accounts WHERE aid = {aid}");
    let (mut client, mut other) = (consistent(&deployment.target()), deployment.connect());
    client.run(REPEATABLE);
    // The first statement opens the snapshots of all shards.
    assert_eq!(client.value(&of(&ids[0])), "100");
    other.run("UPDATE accounts SET balance = balance + 1");
    assert_eq!(other.value(SUM), "4040");
    for aid in &ids {
        assert_eq!(client.value(&of(aid)), "100");
    }
    assert_eq!(client.value(SUM), TOTAL);
    let stale = format!("UPDATE accounts SET balance = 0 WHERE aid = {}", ids[1]);
    assert_eq!(client.fails(&stale).code(), "40001");
    client.run("ROLLBACK");
    assert_eq!(client.value(SUM), "4040");

    // Settings and savepoints of a block that has done nothing else go to all shards.
    client.run(&format!(
        "{REPEATABLE}; SET LOCAL work_mem = '2MB'; SAVEPOINT a"
    ));
    assert_eq!(client.value(SUM), "4040");
    client.run("UPDATE accounts SET balance = 100");
    client.run("ROLLBACK TO a");
    assert_eq!(client.value("SHOW work_mem"), "2MB");
    assert_eq!(client.value(SUM), "4040");
    client.run("UPDATE accounts SET balance = 100");
    assert_eq!(client.run("COMMIT"), "COMMIT");
    assert_eq!(other.value(SUM), TOTAL);
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn the_setting_says_what_it_is_and_what_it_does_not_do() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    assert_eq!(client.value("SHOW pgring.snapshot"), "shard");
    assert_eq!(
        client.fails("SET pgring.snapshot = 'other'").code(),
        "22023"
    );
    client.run("SET pgring.snapshot = 'consistent'");
    assert_eq!(client.value("SHOW pgring.snapshot"), "consistent");
    for (begin, read) in [
        ("BEGIN", SUM),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", SUM),
        ("BEGIN", "COPY accounts TO STDOUT"),
        ("BEGIN", "DECLARE c CURSOR FOR SELECT balance FROM accounts"),
    ] {
        client.run(begin);
        let failure = client.fails(read);
        assert_eq!(
            failure.refusal(),
            Some("snapshot-isolation"),
            "{begin}: {failure}"
        );
        client.run("ROLLBACK");
    }
    client.run("BEGIN; UPDATE accounts SET balance = balance; COMMIT");
    // Too late for a snapshot.
    client.run(&format!(
        "{REPEATABLE}; SET LOCAL pgring.snapshot = 'shard'"
    ));
    client.run("SELECT balance FROM accounts WHERE aid = 1");
    client.run("SET LOCAL pgring.snapshot = 'consistent'");
    assert_eq!(client.fails(SUM).refusal(), Some("snapshot-isolation"));
    client.run("ROLLBACK");
    let reply = client.extended(SUM, &[], false);
    assert!(reply.failure.is_none(), "{:?}", reply.failure);
    assert_eq!(reply.status, 'I');
    assert_eq!(
        client
            .copy_out("COPY accounts TO STDOUT")
            .iter()
            .filter(|byte| **byte == b'\n')
            .count(),
        ACCOUNTS
    );
    client.run("RESET pgring.snapshot");
    client.run("BEGIN");
    assert_eq!(client.value(SUM), TOTAL);
    client.run("COMMIT");
}

#[test]
fn a_snapshot_waits_for_commits_but_not_for_ever() {
    let deployment = deployment("[snapshot]\nwait = \"1s\"");
    let mut client = consistent(&deployment.target());
    assert_eq!(client.value(SUM), TOTAL);
    let mut committer = deployment.shard(2);
    committer.run(&format!("SELECT pg_advisory_lock_shared({LOCK_KEY})"));
    let asked = Instant::now();
    assert_eq!(client.fails(SUM).code(), "40001");
    assert!(asked.elapsed() < Duration::from_secs(3));
    // Nobody else is kept from committing by the one who gave up.
    let mut other = deployment.connect();
    assert_eq!(
        other.run("UPDATE accounts SET balance = balance"),
        "UPDATE 40"
    );
    let waiting = std::thread::spawn(move || {
        let sum = client.value(SUM);
        (client, sum)
    });
    std::thread::sleep(Duration::from_millis(200));
    committer.run(&format!("SELECT pg_advisory_unlock_shared({LOCK_KEY})"));
    let (mut client, sum) = waiting.join().unwrap();
    assert_eq!(sum, TOTAL);
    // Nor does anybody who waits hold up others once the lock is free.
    assert_eq!(
        client.run("UPDATE accounts SET balance = balance"),
        "UPDATE 40"
    );
    eventually(Duration::from_secs(5), "no lock is left", || {
        // Those with two keys are the routers' registrations.
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        deployment
            .on_each_shard(held)
            .iter()
            .all(|held| held == "0")
    });
}

/// Moves money between shards until told to stop.
fn transfer(target: &Target, seed: u64, stop: &AtomicBool, done: &AtomicU64) {
    let mut number = seed;
    let mut client = target.connect();
    while !stop.load(SeqCst) {
        number = number
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let from = 1 + (number >> 33) as usize % ACCOUNTS;
        let to = 1 + (from + 1 + (number >> 45) as usize % (ACCOUNTS - 2)) % ACCOUNTS;
        let mut steps = [(from, -1), (to, 1)];
        steps.sort_unstable();
        client.run("BEGIN");
        for (aid, by) in steps {
            client.run(&format!(
                "UPDATE accounts SET balance = balance + {by} WHERE aid = {aid}"
            ));
        }
        client.run("COMMIT");
        done.fetch_add(1, SeqCst);
    }
}

#[test]
fn an_auditor_sees_the_same_sum_while_money_moves_through_two_routers() {
    let seconds = setting("PGRING_SOAK_SECONDS", 4);
    let deployment = deployment("");
    let another = deployment.another_router();
    let targets = [deployment.target(), another.target()];
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 1..=6 {
            let (target, stop, done) = (&targets[seed as usize % 2], &stop, &done);
            scope.spawn(move || transfer(target, seed, stop, done));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut auditors = targets.each_ref().map(consistent);
            let end = Instant::now() + Duration::from_secs(seconds);
            let mut audits = 0;
            while Instant::now() < end {
                for auditor in &mut auditors {
                    assert_eq!(auditor.value(SUM), TOTAL);
                    auditor.run(REPEATABLE);
                    let parts = auditor.column("SELECT balance FROM accounts");
                    let sum: i64 = parts.iter().map(|part| part.parse::<i64>().unwrap()).sum();
                    assert_eq!(sum.to_string(), TOTAL);
                    auditor.run("COMMIT");
                    audits += 1;
                }
            }
            assert!(
                audits > 5 && done.load(SeqCst) > 20,
                "{audits} audits of {done:?} transfers"
            );
        }));
        stop.store(true, SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(deployment.connect().value(SUM), TOTAL);
}

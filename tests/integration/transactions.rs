//! Blocks over several shards, their atomic end, and what happens when the router dies in between.

use crate::support::cluster;
use crate::support::deployment::{CLUSTER, Options, decide};
use crate::support::{Client, Deployment, Target, eventually, setting};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

const SCHEMA: &str =
    "CREATE TABLE accounts (aid int PRIMARY KEY, balance int CHECK (balance > -1000000))";
const ACCOUNTS: usize = 40;

fn deployment() -> Deployment<'static> {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .start();
    let rows: Vec<String> = (1..=ACCOUNTS).map(|aid| format!("({aid}, 100)")).collect();
    deployment
        .connect()
        .run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    deployment
}

/// One account on each shard.
fn one_account_each(deployment: &Deployment<'_>) -> Vec<String> {
    deployment.on_each_shard("SELECT min(aid) FROM accounts")
}

/// The sum of all balances, past the router.
fn total(deployment: &Deployment<'_>) -> i64 {
    let sums = deployment.on_each_shard("SELECT coalesce(sum(balance), 0) FROM accounts");
    sums.iter().map(|sum| sum.parse::<i64>().unwrap()).sum()
}

fn add(client: &mut Client, aid: &str, amount: i64) {
    assert_eq!(
        client.run(&format!(
            "UPDATE accounts SET balance = balance + {amount} WHERE aid = {aid}"
        )),
        "UPDATE 1"
    );
}

fn balance(client: &mut Client, aid: &str) -> String {
    client.value(&format!("SELECT balance FROM accounts WHERE aid = {aid}"))
}

#[test]
fn a_block_over_all_shards_commits_as_one() {
    let deployment = deployment();
    let accounts = one_account_each(&deployment);
    let (mut client, mut other) = (deployment.connect(), deployment.connect());
    client.run("BEGIN");
    for (aid, amount) in accounts.iter().zip([-30, 10, 10, 10]) {
        add(&mut client, aid, amount);
        assert_eq!(balance(&mut other, aid), "100", "nobody sees it yet");
        assert_eq!(
            balance(&mut client, aid),
            (100 + amount).to_string(),
            "but itself"
        );
    }
    assert_eq!(client.run("COMMIT"), "COMMIT");
    assert_eq!(
        accounts
            .iter()
            .map(|aid| balance(&mut other, aid))
            .collect::<Vec<_>>(),
        ["70", "110", "110", "110"]
    );
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn a_block_is_rolled_back_on_all_shards() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("BEGIN");
    one_account_each(&deployment)
        .iter()
        .for_each(|aid| add(&mut client, aid, 5));
    assert_eq!(client.run("ROLLBACK"), "ROLLBACK");
    assert_eq!(total(&deployment), 100 * ACCOUNTS as i64);
}

#[test]
fn an_error_on_one_shard_fails_the_block_on_all() {
    let deployment = deployment();
    let accounts = one_account_each(&deployment);
    let mut client = deployment.connect();
    client.run("BEGIN");
    add(&mut client, &accounts[0], 5);
    add(&mut client, &accounts[1], 5);
    let reply = client.simple(&format!(
        "UPDATE accounts SET balance = -2000000 WHERE aid = {}",
        accounts[2]
    ));
    assert_eq!(
        (reply.failure.unwrap().code(), reply.status),
        ("23514", 'E')
    );
    assert_eq!(client.fails("SELECT 1").code(), "25P02");
    assert_eq!(
        client
            .fails(&format!(
                "SELECT * FROM accounts WHERE aid = {}",
                accounts[3]
            ))
            .code(),
        "25P02"
    );
    assert_eq!(client.run("COMMIT"), "ROLLBACK");
    assert_eq!(total(&deployment), 100 * ACCOUNTS as i64);
    assert_eq!(client.simple("SELECT 1").status, 'I');
}

#[test]
fn a_router_error_fails_the_block_too() {
    let deployment = deployment();
    let accounts = one_account_each(&deployment);
    let mut client = deployment.connect();
    client.run("BEGIN");
    add(&mut client, &accounts[0], 5);
    let reply = client.simple("SELECT DISTINCT current_database() FROM accounts");
    assert!(reply.failure.unwrap().refusal().is_some());
    assert_eq!(reply.status, 'E');
    assert_eq!(client.fails("SELECT 1").code(), "25P02");
    assert_eq!(client.run("COMMIT"), "ROLLBACK");
    assert_eq!(total(&deployment), 100 * ACCOUNTS as i64);
}

#[test]
fn savepoints_hold_on_shards_that_join_later() {
    let deployment = deployment();
    let accounts = one_account_each(&deployment);
    let mut client = deployment.connect();
    client.run("BEGIN");
    add(&mut client, &accounts[0], 1);
    client.run("SAVEPOINT a");
    add(&mut client, &accounts[1], 2);
    client.run("SAVEPOINT b");
    add(&mut client, &accounts[2], 4);
    client.run("ROLLBACK TO b");
    add(&mut client, &accounts[3], 8);
    client.run("RELEASE b");
    assert_eq!(client.run("COMMIT"), "COMMIT");
    let balances: Vec<_> = accounts
        .iter()
        .map(|aid| balance(&mut client, aid))
        .collect();
    assert_eq!(balances, ["101", "102", "100", "108"]);
    client.run("BEGIN; SAVEPOINT a");
    accounts.iter().for_each(|aid| add(&mut client, aid, 50));
    client.run("ROLLBACK TO a");
    assert_eq!(client.run("COMMIT"), "COMMIT");
    let balances: Vec<_> = accounts
        .iter()
        .map(|aid| balance(&mut client, aid))
        .collect();
    assert_eq!(balances, ["101", "102", "100", "108"]);
}

#[test]
fn a_savepoint_rescues_a_block_after_an_error() {
    let deployment = deployment();
    let accounts = one_account_each(&deployment);
    let mut client = deployment.connect();
    client.run("BEGIN");
    add(&mut client, &accounts[0], 1);
    client.run("SAVEPOINT a");
    assert_eq!(
        client
            .fails(&format!("INSERT INTO accounts VALUES ({}, 1)", accounts[1]))
            .code(),
        "23505"
    );
    client.run("ROLLBACK TO SAVEPOINT a");
    add(&mut client, &accounts[2], 1);
    assert_eq!(client.run("COMMIT"), "COMMIT");
    assert_eq!(total(&deployment), 100 * ACCOUNTS as i64 + 2);
}

#[test]
fn no_savepoint_rescues_a_block_that_lost_a_shard() {
    let deployment = deployment();
    let accounts = one_account_each(&deployment);
    let mut client = deployment.connect();
    client.run("BEGIN");
    add(&mut client, &accounts[0], 1);
    client.run("SAVEPOINT a");
    add(&mut client, &accounts[1], 1);
    deployment.shard(0).run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND state = 'idle in transaction'",
    );
    client.fails(&format!(
        "SELECT balance FROM accounts WHERE aid = {}",
        accounts[0]
    ));
    assert_eq!(client.fails("ROLLBACK TO a").code(), "25P02");
    assert_eq!(client.run("COMMIT"), "ROLLBACK");
    assert_eq!(total(&deployment), 100 * ACCOUNTS as i64);
}

#[test]
fn a_savepoint_takes_settings_back_on_shards_that_joined_later() {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings("[pool]\nsize = 1")
        .start();
    let zone = "SELECT current_setting('timezone')";
    let (mut client, mut other) = (deployment.connect(), deployment.connect());
    let before = client.value(zone);
    client.run("BEGIN; SAVEPOINT a; SET timezone = 'Asia/Tokyo'");
    client.rows("SELECT aid FROM accounts");
    client.run("ROLLBACK TO a");
    assert_eq!(client.value(zone), before);
    client.run("COMMIT");
    for aid in 1..=20 {
        let touch =
            format!("INSERT INTO accounts VALUES ({aid}, 0) RETURNING current_setting('timezone')");
        assert_eq!(other.value(&touch), before);
    }
}

#[test]
fn a_shard_that_cannot_prepare_returns_to_its_settings() {
    let deployment = Deployment::shared()
        .schema(
            "CREATE TABLE nodes (id int PRIMARY KEY, \
             parent int REFERENCES nodes DEFERRABLE INITIALLY DEFERRED)",
        )
        .sharded("nodes", "id")
        .settings("[pool]\nsize = 1")
        .start();
    let mut client = deployment.connect();
    let all: Vec<String> = (1..=20).map(|id| format!("({id})")).collect();
    client.run(&format!("INSERT INTO nodes (id) VALUES {}", all.join(", ")));
    let ids = deployment.on_each_shard("SELECT min(id) FROM nodes");
    client.run("BEGIN");
    for (id, parent) in ids.iter().zip(["NULL", "-1", "NULL", "NULL"]) {
        client.run(&format!(
            "UPDATE nodes SET parent = {parent} WHERE id = {id}"
        ));
    }
    client.run("SET timezone = 'Asia/Tokyo'");
    assert_eq!(client.fails("COMMIT").code(), "23503");
    client.run("SET timezone = 'Asia/Tokyo'");
    for id in &ids {
        let zone = format!("SELECT current_setting('timezone') FROM nodes WHERE id = {id}");
        assert_eq!(client.value(&zone), "Asia/Tokyo");
    }
}

#[test]
fn a_block_keeps_its_isolation_and_mode_on_each_shard() {
    let deployment = deployment();
    let accounts = one_account_each(&deployment);
    let mut client = deployment.connect();
    client.run("BEGIN READ ONLY");
    balance(&mut client, &accounts[0]);
    assert_eq!(
        client
            .fails(&format!("DELETE FROM accounts WHERE aid = {}", accounts[1]))
            .code(),
        "25006"
    );
    client.run("ROLLBACK");
    client.run("BEGIN ISOLATION LEVEL SERIALIZABLE");
    balance(&mut client, &accounts[2]);
    assert_eq!(client.value("SHOW transaction_isolation"), "serializable");
    client.run("ROLLBACK");
    // Over several shards it would not be what it says.
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let reply = client.simple("SELECT aid FROM accounts ORDER BY aid");
    assert!(
        reply
            .failure
            .is_some_and(|failure| failure.refusal().is_some())
    );
    client.run("ROLLBACK");
    // Nor by its other spelling; outside a block neither means anything.
    client.run("BEGIN; SET transaction_isolation = 'repeatable read'");
    let reply = client.simple("SELECT aid FROM accounts ORDER BY aid");
    assert!(
        reply
            .failure
            .is_some_and(|failure| failure.refusal().is_some())
    );
    client.run("ROLLBACK; SET transaction_isolation = 'serializable'");
    client.run("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE");
    client.run("UPDATE accounts SET balance = balance");
    client.run("BEGIN");
    balance(&mut client, &accounts[0]);
    client.run("SET transaction_read_only = on");
    let delete = format!("DELETE FROM accounts WHERE aid = {}", accounts[1]);
    assert_eq!(client.fails(&delete).code(), "25006");
    client.run("ROLLBACK");
    client.run(&delete);
}

#[test]
fn a_clients_own_prepare_is_refused_and_ends_its_block() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("BEGIN; UPDATE accounts SET balance = 7 WHERE aid = 1; UPDATE accounts SET balance = 7 WHERE aid = 2");
    let reply = client.simple("PREPARE TRANSACTION 'mine'");
    let failure = reply.failure.expect("a refusal");
    assert_eq!(
        (failure.code(), failure.refusal()),
        ("0A000", Some("prepare-transaction"))
    );
    // As in PostgreSQL, where a PREPARE TRANSACTION that fails is a ROLLBACK.
    assert_eq!(reply.status, 'I');
    assert_eq!(
        client.value("SELECT count(*) FROM accounts WHERE aid = 1 AND balance = 7"),
        "0"
    );
    client.run("BEGIN");
    client.fails("SELECT 1/0");
    let reply = client.simple("PREPARE TRANSACTION 'mine'");
    assert_eq!(reply.outcomes[0].tag.as_deref(), Some("ROLLBACK"));
    assert_eq!(reply.status, 'I');
    for statement in [
        "PREPARE TRANSACTION",
        "COMMIT PREPARED",
        "ROLLBACK PREPARED",
    ] {
        let failure = client.fails(&format!("{statement} 'mine'"));
        assert_eq!(failure.refusal(), Some("prepare-transaction"));
    }
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn a_deferred_constraint_fails_the_commit_on_all_shards() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''never 13''; END';
         CREATE CONSTRAINT TRIGGER never AFTER UPDATE ON accounts DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (new.balance = 13) EXECUTE FUNCTION never()",
    );
    for failing in 0..4 {
        client.run("BEGIN");
        for (shard, aid) in one_account_each(&deployment).iter().enumerate() {
            let balance = if shard == failing { 13 } else { 14 };
            client.run(&format!(
                "UPDATE accounts SET balance = {balance} WHERE aid = {aid}"
            ));
        }
        let reply = client.simple("COMMIT");
        assert_eq!(
            (
                reply.failure.expect("the trigger fires").message(),
                reply.status
            ),
            ("never 13", 'I')
        );
        assert_eq!(total(&deployment), 100 * ACCOUNTS as i64);
        assert_eq!(deployment.prepared(), [""; 0]);
    }
}

#[test]
fn a_fan_out_update_is_all_or_nothing() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let failing = &one_account_each(&deployment)[3];
    let sql =
        format!("UPDATE accounts SET balance = CASE aid WHEN {failing} THEN -2000000 ELSE 1 END");
    assert_eq!(client.fails(&sql).code(), "23514");
    assert_eq!(total(&deployment), 100 * ACCOUNTS as i64);
    assert_eq!(
        client.run("UPDATE accounts SET balance = balance + 1"),
        format!("UPDATE {ACCOUNTS}")
    );
    assert_eq!(total(&deployment), 101 * ACCOUNTS as i64);
    assert_eq!(deployment.prepared(), [""; 0]);
}

/// Prepares an update on shard 1 under a name that points to a transaction of shard 0.
fn plant(deployment: &Deployment<'_>, aid: &str, commit: bool) -> String {
    let mut decider = deployment.shard(0);
    decider.run("BEGIN");
    let gid = decide(&mut decider, "s0", "s1");
    let mut participant = deployment.shard(1);
    participant.run("BEGIN");
    participant.run(&format!(
        "UPDATE accounts SET balance = 777 WHERE aid = {aid}"
    ));
    participant.run(&format!("PREPARE TRANSACTION '{gid}'"));
    decider.run(if commit { "COMMIT" } else { "ROLLBACK" });
    gid
}

#[test]
fn a_transaction_left_prepared_is_settled_at_start_as_its_decider_was() {
    let mut deployment = deployment();
    deployment.router().kill();
    let accounts = deployment
        .shard(1)
        .column("SELECT aid FROM accounts ORDER BY aid LIMIT 3");
    plant(&deployment, &accounts[0], true);
    plant(&deployment, &accounts[1], false);
    let mut users = deployment.shard(1);
    users.run(&format!(
        "BEGIN; UPDATE accounts SET balance = 1 WHERE aid = {}",
        accounts[2]
    ));
    users.run("PREPARE TRANSACTION 'an application''s own'");
    deployment.kill_and_restart();
    eventually(
        Duration::from_secs(10),
        "the router settles what is its own",
        || deployment.prepared().len() == 1,
    );
    assert_eq!(deployment.prepared(), ["an application's own"]);
    let mut client = deployment.connect();
    assert_eq!(balance(&mut client, &accounts[0]), "777");
    assert_eq!(balance(&mut client, &accounts[1]), "100");
    users.run("ROLLBACK PREPARED 'an application''s own'");
}

#[test]
fn a_transaction_left_prepared_is_settled_while_the_router_runs() {
    let deployment = deployment();
    let aid = deployment.shard(1).value("SELECT min(aid) FROM accounts");
    plant(&deployment, &aid, true);
    eventually(Duration::from_secs(60), "the timer settles it", || {
        deployment.prepared().is_empty()
    });
    assert_eq!(balance(&mut deployment.connect(), &aid), "777");
}

#[test]
fn a_transaction_whose_decider_is_unknown_is_left_alone() {
    let mut deployment = deployment();
    deployment.router().kill();
    let mut participant = deployment.shard(1);
    let aid = participant.value("SELECT min(aid) FROM accounts");
    let gid = format!("pgring:{CLUSTER}:s9:0000000000000001:900:1");
    participant.run(&format!(
        "BEGIN; UPDATE accounts SET balance = 777 WHERE aid = {aid}; PREPARE TRANSACTION '{gid}'"
    ));
    let foreign = "pgring:another:s0:00000001:3:1";
    participant.run(&format!("BEGIN; SELECT 1; PREPARE TRANSACTION '{foreign}'"));
    deployment.kill_and_restart();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(deployment.prepared(), [foreign, gid.as_str()]);
    participant.run(&format!("ROLLBACK PREPARED '{gid}'"));
    participant.run(&format!("ROLLBACK PREPARED '{foreign}'"));
}

/// Moves money between accounts of different shards until told to stop; counts what was acknowledged.
fn transfer(target: &Target, seed: u64, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let mut number = seed;
    while !stop.load(SeqCst) {
        let Ok(mut client) = target.login(&[]) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        loop {
            number = number
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let from = 1 + (number >> 33) as usize % ACCOUNTS;
            let to = 1 + (from + 1 + (number >> 45) as usize % (ACCOUNTS - 2)) % ACCOUNTS;
            // In one order everywhere: deadlocks would cost the loop a second each.
            let mut steps = [(from, -1), (to, 1)];
            steps.sort_unstable();
            let mut sql = vec!["BEGIN".to_owned()];
            sql.extend(steps.map(|(aid, by)| {
                format!("UPDATE accounts SET balance = balance + {by} WHERE aid = {aid}")
            }));
            sql.push("COMMIT".into());
            let replies = sql.iter().map(|sql| client.simple(sql));
            let ended = replies.take_while(|reply| reply.failure.is_none()).last();
            match ended.and_then(|reply| reply.outcomes.into_iter().next()?.tag) {
                Some(tag) if tag == "COMMIT" => acknowledged.fetch_add(1, SeqCst),
                _ => break,
            };
            if stop.load(SeqCst) {
                return;
            }
        }
    }
}

#[test]
fn killing_the_router_in_the_middle_of_commits_loses_nothing() {
    let rounds = setting("PGRING_KILL_ROUNDS", 10);
    let mut deployment = deployment();
    deployment.connect().run("CREATE TABLE nothing (id int)");
    let target = deployment.target();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 1..=6 {
            let (target, stop, acknowledged) = (&target, &stop, &acknowledged);
            scope.spawn(move || transfer(target, seed, stop, acknowledged));
        }
        // A failure in this thread must stop the others, or the scope never ends.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..rounds {
                let before = acknowledged.load(SeqCst);
                eventually(Duration::from_secs(20), "transfers go on", || {
                    acknowledged.load(SeqCst) > before + 5
                });
                std::thread::sleep(Duration::from_millis(round * 7 % 40));
                deployment.kill_and_restart();
            }
        }));
        stop.store(true, SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    eventually(Duration::from_secs(60), "nothing stays prepared", || {
        deployment.prepared().is_empty()
    });
    assert_eq!(total(&deployment), 100 * ACCOUNTS as i64);
    assert!(acknowledged.load(SeqCst) > rounds * 5);
}

#[test]
fn now_is_one_time_on_all_shards() {
    let deployment = Deployment::shared()
        .schema("CREATE TABLE visits (id int PRIMARY KEY, at timestamptz, day date)")
        .sharded("visits", "id")
        .start();
    let mut client = deployment.connect();
    let times = "SELECT count(DISTINCT at), count(DISTINCT day), count(*) FROM visits";
    let rows: Vec<String> = (1..=20)
        .map(|id| format!("({id}, now(), current_date)"))
        .collect();
    let insert = format!("INSERT INTO visits VALUES {}", rows.join(", "));
    client.run(&insert);
    assert_eq!(client.rows(times), [["1", "1", "20"]]);
    let before = client.value("SELECT max(at) FROM visits");
    let update = "UPDATE visits SET at = now() WHERE id < $1 RETURNING id";
    let reply = client.extended(update, &[Some("30")], false);
    assert!(reply.failure.is_none(), "{:?}", reply.failure);
    assert_eq!(reply.outcomes[0].rows.len(), 20);
    assert_eq!(client.rows(times), [["1", "1", "20"]]);
    let later = format!("SELECT count(*) FROM visits WHERE at > '{before}'");
    assert_eq!(client.value(&later), "20");
    // In a block it is when that began, as its first shard sees it.
    client.run("SET timezone = 'Asia/Tokyo'; BEGIN");
    let began = client.value("UPDATE visits SET at = at WHERE id = 7 RETURNING now()");
    client.run("UPDATE visits SET at = now()");
    client.run("SELECT pg_sleep(0.01)");
    client.run("UPDATE visits SET day = current_date, at = now() WHERE id > 10");
    let same = format!("SELECT count(*) FROM visits WHERE at = '{began}'");
    assert_eq!(client.value(&same), "20");
    client.run("COMMIT");
    client.run("DELETE FROM visits WHERE at <= now() - interval '1 day' OR day > current_date");
    assert_eq!(client.value(&same), "20");
    client.run("DELETE FROM visits WHERE at <= now()");
    assert_eq!(client.value(&same), "0");
    // A name that a column of the result would lose.
    let failure = client.fails("UPDATE visits SET at = now() RETURNING now()");
    assert_eq!(failure.refusal(), Some("volatile-function"));
}

#[test]
fn a_commit_over_shards_lasts_where_the_session_waits_for_nothing() {
    // What a COMMIT does not wait for stays in memory.
    let mut sandbox = cluster::start_with(2, &[("wal_writer_delay", "10s")]);
    let deployment = Options::new(&sandbox)
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .start();
    let mut client = deployment.connect();
    let rows: Vec<String> = (1..=ACCOUNTS).map(|aid| format!("({aid}, 100)")).collect();
    client.run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    let accounts = one_account_each(&deployment);
    client.run("SET synchronous_commit = off; BEGIN");
    add(&mut client, &accounts[0], 1);
    add(&mut client, &accounts[1], 2);
    assert_eq!(client.run("COMMIT"), "COMMIT");
    // The deployment borrows the servers; what is left to do needs only its router.
    let router = deployment.into_router().expect("a router");
    for shard in 0..2 {
        sandbox.kill(shard).expect("kill a server");
    }
    for shard in 0..2 {
        sandbox.start_again(shard).expect("start it again");
    }
    for (aid, expected) in accounts.iter().zip(["101", "102"]) {
        let served = format!("SELECT balance FROM accounts WHERE aid = {aid}");
        eventually(Duration::from_secs(20), "the shard is served again", || {
            let mut client = router.target().connect();
            client.simple(&served).failure.is_none()
        });
        assert_eq!(balance(&mut router.target().connect(), aid), expected);
    }
}

#[test]
fn a_commit_over_shards_that_cannot_prepare_is_refused_and_changes_nothing() {
    let sandbox = cluster::start_with(2, &[("max_prepared_transactions", "0")]);
    let deployment = Options::new(&sandbox)
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .start();
    let mut client = deployment.connect();
    for aid in 1..=10 {
        client.run(&format!("INSERT INTO accounts VALUES ({aid}, 100)"));
    }
    for sql in [
        "UPDATE accounts SET balance = 0",
        "INSERT INTO accounts VALUES (21, 1), (22, 1), (23, 1), (24, 1), (25, 1), (26, 1)",
        "BEGIN; UPDATE accounts SET balance = 0; COMMIT",
    ] {
        let failure = client.fails(sql);
        assert!(
            matches!(failure.code(), "0A000" | "55000"),
            "{sql}: {failure}"
        );
        client.simple("ROLLBACK");
    }
    assert_eq!(total(&deployment), 1000);
    assert_eq!(
        client.run("UPDATE accounts SET balance = 0 WHERE aid = 1"),
        "UPDATE 1"
    );
    assert_eq!(total(&deployment), 900);
}

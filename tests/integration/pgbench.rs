//! pgbench's own schema and scripts, with its largest table sharded, and with all of them. `PGRING_PGBENCH_SECONDS` makes
//! it longer.

use crate::support::deployment::Options;
use crate::support::{Client, Deployment, setting};
use std::fs;
use std::process::Command;

/// Its tables, with as many rows as a test needs.
const TABLES: &str = "
    CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int);
    CREATE TABLE pgbench_tellers (tid int, bid int, tbalance int, PRIMARY KEY (bid, tid));
    CREATE TABLE pgbench_accounts (aid int, bid int, abalance int, PRIMARY KEY (bid, aid));
    CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp)";
const APART: &str = "
    CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int);
    CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int);
    CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int);
    CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp)";
const ROWS: &str = "
    INSERT INTO pgbench_branches SELECT n, 0 FROM generate_series(1, 8) n;
    INSERT INTO pgbench_tellers SELECT n, 1 + (n - 1) / 10, 0 FROM generate_series(1, 80) n;
    INSERT INTO pgbench_accounts SELECT n, 1 + (n - 1) / 100, 0 FROM generate_series(1, 800) n";
/// The standard transaction, with what tells the branch where `:branch` stands.
const SCRIPT: &str = "\\set bid random(1, 8)
\\set aid (:bid - 1) * 100 + random(1, 100)
\\set tid (:bid - 1) * 10 + random(1, 10)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid{branch};
SELECT abalance FROM pgbench_accounts WHERE aid = :aid{branch};
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid{branch};
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
";

fn deployment() -> Deployment<'static> {
    let deployment = Deployment::shared()
        .sharded("pgbench_accounts", "aid")
        .reference("pgbench_branches")
        .start();
    // Tables, rows by COPY, primary keys: each through the router.
    succeeds(
        deployment
            .program("pgbench")
            .args(["-i", "-I", "dtgp", "-s", "1", "-q"]),
    );
    deployment
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("run pgbench");
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}",
        output.status
    );
    said
}

#[test]
fn the_standard_schema_is_loaded_and_read_in_all_modes() {
    let deployment = deployment();
    let counts = deployment.on_each_shard("SELECT count(*) FROM pgbench_accounts");
    let counts: Vec<u64> = counts.iter().map(|count| count.parse().unwrap()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 100_000);
    assert!(
        counts.iter().all(|count| (20_000..30_000).contains(count)),
        "{counts:?}"
    );
    let seconds = setting("PGRING_PGBENCH_SECONDS", 2).to_string();
    for mode in ["simple", "extended", "prepared"] {
        let arguments = [
            "-n", "-S", "-c", "32", "-j", "2", "-T", &seconds, "-M", mode,
        ];
        let said = succeeds(deployment.program("pgbench").args(arguments));
        assert!(said.contains("number of failed transactions: 0"), "{said}");
        assert!(
            !said.contains("ERROR") && !said.contains("error:"),
            "{said}"
        );
    }
}

#[test]
fn the_standard_transaction_keeps_its_sums() {
    let deployment = deployment();
    // Accounts, tellers, branches and history are on different shards: each transaction commits over several.
    for mode in ["simple", "prepared"] {
        let arguments = [
            "-n",
            "-c",
            "4",
            "-j",
            "2",
            "-t",
            "25",
            "-M",
            mode,
            "-b",
            "tpcb-like",
        ];
        let said = succeeds(deployment.program("pgbench").args(arguments));
        assert!(said.contains("number of failed transactions: 0"), "{said}");
    }
    balances_agree(&mut deployment.connect());
    let counted = deployment
        .connect()
        .value("SELECT count(*) FROM pgbench_history");
    assert_eq!(counted, "200");
    assert_eq!(deployment.prepared(), [""; 0]);
}

/// What was added to accounts, tellers and branches is what the history says.
fn balances_agree(client: &mut Client) {
    let history = client.value("SELECT sum(delta) FROM pgbench_history");
    for sum in [
        "SELECT sum(abalance) FROM pgbench_accounts",
        "SELECT sum(tbalance) FROM pgbench_tellers",
        "SELECT sum(bbalance) FROM pgbench_branches",
    ] {
        assert_eq!(client.value(sum), history, "{sum}");
    }
}

/// Runs the transaction on tables that are sharded by these keys, and checks their balances.
fn keeps_its_balances(options: Options<'_>, keys: [&str; 4], branch: &str) {
    let names = ["accounts", "tellers", "branches", "history"];
    let tables = names.into_iter().zip(keys);
    let deployment = tables
        .fold(options, |options, (name, key)| {
            options.sharded(&format!("pgbench_{name}"), key)
        })
        .start();
    let mut client = deployment.connect();
    client.run(ROWS);
    let script = deployment.directory().join("tpcb.sql");
    fs::write(&script, SCRIPT.replace("{branch}", branch)).expect("write a script");
    // As many as a long run has, or a few.
    let seconds = setting("PGRING_PGBENCH_SECONDS", 0).to_string();
    let length = match seconds.as_str() {
        "0" => ["-c", "8", "-t", "20"],
        seconds => ["-c", "32", "-T", seconds],
    };
    for mode in ["simple", "prepared"] {
        let mut pgbench = deployment.program("pgbench");
        pgbench
            .args(["-n", "-j", "2", "-M", mode, "-f"])
            .arg(&script);
        let said = succeeds(pgbench.args(length));
        assert!(said.contains("number of failed transactions: 0"), "{said}");
        assert!(
            !said.contains("ERROR") && !said.contains("error:"),
            "{said}"
        );
        balances_agree(&mut client);
    }
    if seconds == "0" {
        assert_eq!(client.value("SELECT count(*) FROM pgbench_history"), "320");
    }
    let spread = deployment.on_each_shard("SELECT count(*) FROM pgbench_history");
    assert!(
        spread.iter().filter(|count| *count != "0").count() > 1,
        "{spread:?}"
    );
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn the_standard_transaction_keeps_its_balances_on_one_shard_each() {
    let options = Deployment::shared().schema(TABLES);
    keeps_its_balances(options, ["bid"; 4], " AND bid = :bid");
}

#[test]
fn the_standard_transaction_keeps_its_balances_over_shards() {
    let options = Deployment::shared().schema(APART);
    keeps_its_balances(options, ["aid", "tid", "bid", "aid"], "");
}

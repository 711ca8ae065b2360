//! pgbench's own schema and scripts, with its largest table sharded.

use crate::support::{Deployment, setting};
use std::process::Command;

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
    let mut client = deployment.connect();
    assert_eq!(client.value("SELECT count(*) FROM pgbench_history"), "200");
    let history = client.value("SELECT sum(delta) FROM pgbench_history");
    assert_eq!(
        client.value("SELECT sum(tbalance) FROM pgbench_tellers"),
        history
    );
    assert_eq!(
        client.value("SELECT sum(bbalance) FROM pgbench_branches"),
        history
    );
    let sums = deployment.on_each_shard("SELECT sum(abalance) FROM pgbench_accounts");
    assert_eq!(
        sums.iter()
            .map(|sum| sum.parse::<i64>().unwrap())
            .sum::<i64>()
            .to_string(),
        history
    );
    assert_eq!(deployment.prepared(), [""; 0]);
}

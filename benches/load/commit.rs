//! What a transaction over two shards costs one client over the same statements on one shard: `BEGIN`, two updates,
//! `COMMIT`, in turn, in one run.

use crate::link::{self, Link};
use crate::rig::{self, Rig};
use crate::statistics::{quantile, ratio};
use crate::support::{Deployment, setting};
use std::time::Instant;

const IN_A_ROW: usize = 20;
/// Accounts of a shard that are taken in turn.
const ACCOUNTS: usize = 500;

/// Prints p50 and p99 of whole transactions and of their COMMIT.
pub fn run() {
    let transactions = setting("PGRING_LOAD_TRANSACTIONS", 2000) as usize;
    // A commit that waits for its disk is what is measured, unless it is said to be off.
    let fsync = ["off", "on"][usize::from(setting("PGRING_LOAD_FSYNC", 1) > 0)];
    let sandbox = rig::servers_with(0, &[("fsync", fsync)]);
    let mut rig = Rig::start(&sandbox, "");
    let accounts = accounts(&rig.four);
    let mut link = Link::login(&rig.sharded().target);
    println!(
        "one client over four shards, fsync = {fsync}, {transactions} transactions of each kind: BEGIN, two UPDATEs, COMMIT"
    );
    println!(
        "{:<12} {:>10} {:>10} {:>14} {:>14}",
        "", "p50 µs", "p99 µs", "COMMIT p50 µs", "COMMIT p99 µs"
    );
    let mut samples = [const { (Vec::new(), Vec::new()) }; 2];
    let mut number = 0;
    // The first round warms up.
    for round in 0..=transactions.div_ceil(IN_A_ROW) {
        for (other, (whole, commit)) in samples.iter_mut().enumerate() {
            for _ in 0..IN_A_ROW {
                number += 1;
                let home = number % accounts.len();
                let away = (home + other) % accounts.len();
                let pair = [
                    &accounts[home][number % ACCOUNTS],
                    &accounts[away][(number + ACCOUNTS / 2) % ACCOUNTS],
                ];
                let start = Instant::now();
                ask(&mut link, "BEGIN");
                for aid in pair {
                    ask(
                        &mut link,
                        &format!(
                            "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = {aid}"
                        ),
                    );
                }
                let committing = Instant::now();
                ask(&mut link, "COMMIT");
                if round > 0 {
                    whole.push(start.elapsed().as_nanos() as u64);
                    commit.push(committing.elapsed().as_nanos() as u64);
                }
            }
        }
    }
    for (whole, commit) in &mut samples {
        whole.sort_unstable();
        commit.sort_unstable();
    }
    let part = |samples: &[u64], part| quantile(samples, part) as f64 / 1e3;
    for (name, (whole, commit)) in ["one shard", "two shards"].iter().zip(&samples) {
        println!(
            "{name:<12} {:>10.0} {:>10.0} {:>14.0} {:>14.0}",
            part(whole, 0.5),
            part(whole, 0.99),
            part(commit, 0.5),
            part(commit, 0.99)
        );
    }
    let [(one, one_commit), (two, two_commit)] = &samples;
    let times = |part: f64, of: [&[u64]; 2]| {
        ratio(quantile(of[1], part) as f64, quantile(of[0], part) as f64)
    };
    println!(
        "{:<12} {:>10} {:>10} {:>14} {:>14}",
        "times",
        times(0.5, [one, two]),
        times(0.99, [one, two]),
        times(0.5, [one_commit, two_commit]),
        times(0.99, [one_commit, two_commit])
    );
}

/// Some accounts of each shard.
fn accounts(deployment: &Deployment<'_>) -> Vec<Vec<String>> {
    let sql = format!("SELECT aid FROM pgbench_accounts ORDER BY aid LIMIT {ACCOUNTS}");
    (0..deployment.shards())
        .map(|shard| deployment.shard(shard).column(&sql))
        .collect()
}

fn ask(link: &mut Link, sql: &str) {
    link.ask(&link::query(sql)).expect("an answer");
}

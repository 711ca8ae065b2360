//! What a place in between adds to one client's point SELECT. One connection to each place, a few hundred questions to
//! one after the other, in turn, in one run: what disturbs one disturbs all.

use crate::link::{self, Link};
use crate::rig::{self, Place, Rig};
use crate::statistics::quantile;
use crate::support::setting;
use std::time::Instant;

const IN_A_ROW: u64 = 200;
const INT4_OID: u32 = 23;
const STATEMENT: &str = "point_select";

/// Prints p50 and p99 of each place, and how much later than direct.
pub fn run() {
    let queries = setting("PGRING_LOAD_QUERIES", 20_000);
    let sandbox = rig::servers(0);
    let mut rig = Rig::start(&sandbox, "");
    println!(
        "latency of one client, {queries} point SELECTs to each place; \"added\" is over direct"
    );
    println!(
        "{:<9} {:<25} {:>8} {:>9} {:>8} {:>9}",
        "protocol", "", "p50 µs", "added µs", "p99 µs", "added µs"
    );
    for mode in ["simple", "prepared"] {
        let pgbouncer = rig.pgbouncer(mode, 1);
        let mut places = vec![rig.direct()];
        places.extend(pgbouncer.iter().map(|pgbouncer| pgbouncer.place()));
        places.extend([rig.unsharded(), rig.sharded()]);
        let samples = ask_in_turn(&places, mode, queries);
        let part = |samples: &[u64], part| quantile(samples, part) as f64 / 1e3;
        let direct = &samples[0];
        for (place, samples) in places.iter().zip(&samples) {
            let (p50, p99) = (part(samples, 0.5), part(samples, 0.99));
            println!(
                "{mode:<9} {:<25} {p50:>8.1} {:>9.1} {p99:>8.1} {:>9.1}",
                place.name,
                p50 - part(direct, 0.5),
                p99 - part(direct, 0.99),
            );
        }
    }
}

/// Nanoseconds of each question, sorted, by place.
fn ask_in_turn(places: &[Place], mode: &str, queries: u64) -> Vec<Vec<u64>> {
    let mut links: Vec<Link> = places
        .iter()
        .map(|place| Link::login(&place.target))
        .collect();
    if mode == "prepared" {
        for link in &mut links {
            let sql = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
            let request = link::parsed(STATEMENT, sql, &[INT4_OID]);
            link.ask(&request).expect("prepare a statement");
        }
    }
    let accounts = rig::scale() * 100_000;
    let mut samples = vec![Vec::with_capacity(queries as usize); places.len()];
    let mut number = 0_u64;
    // The first round warms up.
    for round in 0..=queries.div_ceil(IN_A_ROW) {
        for (link, samples) in links.iter_mut().zip(&mut samples) {
            for _ in 0..IN_A_ROW {
                number += 1;
                // Scattered over all accounts, the same from run to run.
                let account = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % accounts + 1;
                let request = match mode {
                    "simple" => link::query(&format!(
                        "SELECT abalance FROM pgbench_accounts WHERE aid = {account};"
                    )),
                    _ => link::bound(STATEMENT, &(account as i32).to_be_bytes()),
                };
                let start = Instant::now();
                link.ask(&request).expect("an answer");
                if round > 0 {
                    samples.push(start.elapsed().as_nanos() as u64);
                }
            }
        }
    }
    for samples in &mut samples {
        samples.sort_unstable();
    }
    samples
}

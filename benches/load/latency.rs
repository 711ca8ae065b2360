//! What a place in between adds to one client's point SELECT. One connection to each place, a few hundred questions to
//! one after the other, in turn, in one run: what disturbs one disturbs all.

use crate::link::{self, Link};
use crate::rig::{self, Place, Rig};
use crate::statistics::quantile;
use crate::support::{cluster, setting};
use std::rc::Rc;
use std::time::Instant;

const IN_A_ROW: u64 = 200;
const INT4_OID: u32 = 23;
const STATEMENT: &str = "point_select";

/// Where each question goes.
struct Seat {
    name: String,
    links: Vec<Link>,
    /// The link to which an account belongs, by its number; none: the only one.
    owners: Rc<[u8]>,
    /// The seat that has the same rows and nothing in between.
    base: usize,
}

impl Seat {
    fn at(place: &Place, base: usize) -> Self {
        Self {
            name: place.name.clone(),
            links: vec![Link::login(&place.target)],
            owners: Rc::new([]),
            base,
        }
    }

    /// A client that knows where each account is, with a connection to each shard: no router can be faster.
    fn at_each_shard(rig: &Rig<'_>, owners: Rc<[u8]>, base: usize) -> Self {
        let (sandbox, database) = (rig.four.sandbox(), rig.four.database());
        let targets = (0..rig.four.shards()).map(|shard| cluster::direct(sandbox, shard, database));
        Self {
            name: "direct, four PostgreSQLs".to_owned(),
            links: targets.map(|target| Link::login(&target)).collect(),
            owners,
            base,
        }
    }

    fn ask(&mut self, account: u64, request: &[u8]) {
        let owner = self.owners.get(account as usize).copied().unwrap_or(0);
        let answered = self.links[usize::from(owner)].ask(request);
        answered.expect("an answer");
    }
}

/// The shard of each account.
fn owners(rig: &Rig<'_>) -> Rc<[u8]> {
    let mut owners = vec![0; 1 + accounts() as usize];
    for shard in 0..rig.four.shards() {
        for aid in rig
            .four
            .shard(shard)
            .column("SELECT aid FROM pgbench_accounts")
        {
            owners[aid.parse::<usize>().expect("a number")] = shard as u8;
        }
    }
    owners.into()
}

fn accounts() -> u64 {
    rig::scale() * 100_000
}

/// Prints p50 and p99 of each place, and how much later than direct.
pub fn run() {
    let queries = setting("PGRING_LOAD_QUERIES", 20_000);
    let sandbox = rig::servers(0);
    let mut rig = Rig::start(&sandbox, "");
    let owners = owners(&rig);
    println!(
        "latency of one client, {queries} point SELECTs to each place; \"added\" is over direct, to as many PostgreSQLs"
    );
    println!(
        "{:<9} {:<25} {:>8} {:>9} {:>8} {:>9}",
        "protocol", "", "p50 µs", "added µs", "p99 µs", "added µs"
    );
    for mode in ["simple", "prepared"] {
        let pgbouncer = rig.pgbouncer(mode, 1);
        let mut seats = vec![
            Seat::at(&rig.direct(), 0),
            Seat::at_each_shard(&rig, owners.clone(), 1),
        ];
        seats.extend(
            pgbouncer
                .iter()
                .map(|between| Seat::at(&between.place(), 0)),
        );
        seats.extend([Seat::at(&rig.unsharded(), 0), Seat::at(&rig.sharded(), 1)]);
        let samples = ask_in_turn(&mut seats, mode, queries);
        let part = |samples: &[u64], part| quantile(samples, part) as f64 / 1e3;
        for (seat, own) in seats.iter().zip(&samples) {
            let (p50, p99) = (part(own, 0.5), part(own, 0.99));
            let base = &samples[seat.base];
            println!(
                "{mode:<9} {:<25} {p50:>8.1} {:>9.1} {p99:>8.1} {:>9.1}",
                seat.name,
                p50 - part(base, 0.5),
                p99 - part(base, 0.99),
            );
        }
    }
}

/// Nanoseconds of each question, sorted, by seat.
fn ask_in_turn(seats: &mut [Seat], mode: &str, queries: u64) -> Vec<Vec<u64>> {
    if mode == "prepared" {
        let sql = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
        let request = link::parsed(STATEMENT, sql, &[INT4_OID]);
        for link in seats.iter_mut().flat_map(|seat| &mut seat.links) {
            link.ask(&request).expect("prepare a statement");
        }
    }
    let accounts = accounts();
    let mut samples = vec![Vec::with_capacity(queries as usize); seats.len()];
    let mut number = 0_u64;
    // The first round warms up.
    for round in 0..=queries.div_ceil(IN_A_ROW) {
        for (seat, samples) in seats.iter_mut().zip(&mut samples) {
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
                seat.ask(account, &request);
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

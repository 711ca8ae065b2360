//! pgbench's select-only script, by protocol, number of clients and place. Runs of one protocol and number follow each
//! other and are repeated in turn, so that what else the machine does meets all of them.

use crate::pgbench::{self, Load, Run};
use crate::rig::{self, Place, Rig};
use crate::statistics::{cell, median, ratio};

/// Prints one row for each place; the ratios are to PgBouncer's row of the same protocol and number of clients.
pub fn run() {
    let modes = rig::list("PGRING_LOAD_MODES", "simple,extended,prepared");
    let clients: Vec<u64> = rig::list("PGRING_LOAD_CLIENTS", "1,16,64")
        .iter()
        .map(|number| number.parse().expect("PGRING_LOAD_CLIENTS: numbers"))
        .collect();
    let chosen = rig::list("PGRING_LOAD_TARGETS", "direct,pgbouncer,one,four");
    let most = clients.iter().copied().max().unwrap_or_default();
    let sandbox = rig::servers(most);
    let mut rig = Rig::start(&sandbox, "");
    println!(
        "select-only, pools of {}, scale {}, {} s in each of {} rounds; PgBouncer without prepared statements in \
         transaction mode pools by session there",
        rig::pool_size(),
        rig::scale(),
        pgbench::seconds(),
        pgbench::rounds()
    );
    println!(
        "{:<9} {:>7} {:<25} {:>7} {:>6} {:>8} {:>8} {:>9} {:>6} {:>7}",
        "protocol",
        "clients",
        "",
        "TPS",
        "ratio",
        "p50 µs",
        "p99 µs",
        "CPU µs/q",
        "ratio",
        "RSS MB"
    );
    for mode in &modes {
        for &clients in &clients {
            let pgbouncer = rig.pgbouncer(mode, clients);
            let mut places = Vec::new();
            for name in &chosen {
                match name.as_str() {
                    "direct" => places.push(rig.direct()),
                    "pgbouncer" => places.extend(pgbouncer.iter().map(|it| it.place())),
                    "one" => places.push(rig.unsharded()),
                    "four" => places.push(rig.sharded()),
                    other => panic!(
                        "PGRING_LOAD_TARGETS: \"{other}\" is none of direct, pgbouncer, one, four"
                    ),
                }
            }
            let runs = in_turn(&places, |place| {
                Load::select_only(mode, clients).run(&sandbox, place)
            });
            let reference = pgbouncer
                .and_then(|it| places.iter().position(|place| *place == it.place()))
                .map(|index| runs[index]);
            for (place, run) in places.iter().zip(&runs) {
                print(mode, clients, place, run, reference.as_ref());
            }
        }
    }
}

/// Each place's medians over the rounds, the places in turn.
pub fn in_turn(places: &[Place], mut run: impl FnMut(&Place) -> Run) -> Vec<Run> {
    let mut runs = vec![Vec::new(); places.len()];
    for _ in 0..pgbench::rounds() {
        for (place, runs) in places.iter().zip(&mut runs) {
            runs.push(run(place));
        }
    }
    let middle = |runs: &Vec<Run>, of: fn(&Run) -> f64| median(runs.iter().map(of).collect());
    runs.iter()
        .map(|runs| Run {
            tps: middle(runs, |run| run.tps),
            p50: middle(runs, |run| run.p50),
            p99: middle(runs, |run| run.p99),
            cpu_micros: middle(runs, |run| run.cpu_micros),
            resident: middle(runs, |run| run.resident),
        })
        .collect()
}

fn print(mode: &str, clients: u64, place: &Place, run: &Run, reference: Option<&Run>) {
    let of = |field: fn(&Run) -> f64| {
        reference.map_or("-".to_owned(), |reference| {
            ratio(field(run), field(reference))
        })
    };
    println!(
        "{mode:<9} {clients:>7} {:<25} {:>7.0} {:>6} {:>8} {:>8} {:>9} {:>6} {:>7}",
        place.name,
        run.tps,
        of(|run| run.tps),
        cell(run.p50, 0),
        cell(run.p99, 0),
        cell(run.cpu_micros, 1),
        of(|run| run.cpu_micros),
        cell(run.resident / 1024.0, 1),
    );
}

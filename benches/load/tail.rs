//! How even a crowd is served: p99 over p50 of a thousand clients that ask without pause, far more than the pools hold.

use crate::pgbench::Load;
use crate::rig::{self, Rig};
use crate::select::in_turn;
use crate::statistics::{cell, ratio};
use crate::support::setting;

/// Prints p50, p99 and their ratio.
pub fn run() {
    let clients = setting("PGRING_LOAD_CROWD", 1000);
    let sandbox = rig::servers(0);
    let mut rig = Rig::start(&sandbox, "");
    println!("{clients} clients, pools of {}", rig::pool_size());
    println!(
        "{:<9} {:<25} {:>7} {:>8} {:>8} {:>8}",
        "protocol", "", "TPS", "p50 ms", "p99 ms", "p99/p50"
    );
    for mode in ["simple", "extended", "prepared"] {
        let mut places = vec![rig.unsharded(), rig.sharded()];
        // By session it would need as many connections as clients.
        let pgbouncer = rig.pgbouncer(mode, clients).map(|it| (it.place(), it));
        let shared = pgbouncer.filter(|(place, _)| !place.name.ends_with("session"));
        places.extend(shared.iter().map(|(place, _)| place.clone()));
        let runs = in_turn(&places, |place| {
            Load::select_only(mode, clients).run(&sandbox, place)
        });
        for (place, run) in places.iter().zip(&runs) {
            println!(
                "{mode:<9} {:<25} {:>7.0} {:>8} {:>8} {:>8}",
                place.name,
                run.tps,
                cell(run.p50 / 1e3, 2),
                cell(run.p99 / 1e3, 2),
                ratio(run.p99, run.p50),
            );
        }
    }
}

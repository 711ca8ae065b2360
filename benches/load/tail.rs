//! How even a crowd is served: p99 over p50 of a thousand clients that ask without pause, far more than the pools hold.
//!
//! Over four shards there are two rows. Clients that go to a random shard each time make the four waiting lines wander:
//! each line is served as fast as its shard can, whatever its length, so one may be three times as long as another after some
//! seconds, and whoever joins it waits three times as long. (Four ideal lines of a thousand clients at 10,000 a
//! second have a p99 of 1.4 to 1.6 times p50 after half a second, of 1.7 to 3.6 times after seven, and no router can serve
//! a full shard faster.) Clients that keep to a key each keep the lines as long as they are: what is uneven there, the
//! router makes so.

use crate::pgbench::Load;
use crate::rig::{self, Place, Rig};
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
        "{:<9} {:<29} {:>7} {:>8} {:>8} {:>8}",
        "protocol", "", "TPS", "p50 ms", "p99 ms", "p99/p50"
    );
    for mode in ["simple", "extended", "prepared"] {
        let four = rig.sharded();
        let own_key = Place {
            name: format!("{}, own key", four.name),
            ..four.clone()
        };
        let mut places = vec![rig.unsharded(), four, own_key.clone()];
        // By session it would need as many connections as clients.
        let pgbouncer = rig.pgbouncer(mode, clients).map(|it| (it.place(), it));
        let shared = pgbouncer.filter(|(place, _)| !place.name.ends_with("session"));
        places.extend(shared.iter().map(|(place, _)| place.clone()));
        let runs = in_turn(&places, |place| {
            let script = (place.name == own_key.name).then(|| OWN_KEY.to_owned());
            Load {
                script,
                ..Load::select_only(mode, clients)
            }
            .run(&sandbox, place)
        });
        for (place, run) in places.iter().zip(&runs) {
            println!(
                "{mode:<9} {:<29} {:>7.0} {:>8} {:>8} {:>8}",
                place.name,
                run.tps,
                cell(run.p50 / 1e3, 2),
                cell(run.p99 / 1e3, 2),
                ratio(run.p99, run.p50),
            );
        }
    }
}

/// The select-only script, but each client has a key of its own.
const OWN_KEY: &str =
    "\\set aid :client_id + 1\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n";

//! Keeps everything up until the end of stdin, and says where it is: to look at the processes with perf or strace while
//! one's own pgbench runs.

use crate::rig::{self, Rig};
use std::io::Read as _;

/// Prints one line for each place: pid, URL, name.
pub fn run() {
    let sandbox = rig::servers(600);
    let mut rig = Rig::start(&sandbox, "");
    let pooled = rig.pgbouncer("simple", 0);
    let by_session = rig.pgbouncer("prepared", 512);
    let mut places = vec![rig.direct(), rig.unsharded(), rig.sharded()];
    places.extend(
        pooled
            .iter()
            .chain(&by_session)
            .map(|pgbouncer| pgbouncer.place()),
    );
    for place in places {
        let pid = place.pid.map_or("-".to_owned(), |pid| pid.to_string());
        println!("{pid:>8} {} {}", place.target.url(), place.name);
    }
    println!("until stdin ends");
    let _ = std::io::stdin().read(&mut [0; 1]);
}

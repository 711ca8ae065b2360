//! What it costs to route simple queries whose literals change: four shards against one shard, where nothing is to be
//! chosen, and against one shard and one text that never changes.

use crate::pgbench::Load;
use crate::rig::{self, Rig};
use crate::select::in_turn;
use crate::statistics::{cell, ratio};

const CLIENTS: u64 = 16;

/// Prints the router's CPU time a query, and its ratio to one shard's.
pub fn run() {
    let sandbox = rig::servers(0);
    let mut rig = Rig::start(&sandbox, "");
    let mut constant = rig.unsharded();
    "pgring, one shard, one text".clone_into(&mut constant.name);
    let places = [rig.unsharded(), rig.sharded(), constant.clone()];
    let changing = Load::select_only("simple", CLIENTS);
    let same = Load {
        script: Some("SELECT abalance FROM pgbench_accounts WHERE aid = 4242;\n".to_owned()),
        ..changing.clone()
    };
    let runs = in_turn(&places, |place| {
        let load = if *place == constant { &same } else { &changing };
        load.run(&sandbox, place)
    });
    println!("simple point SELECTs, {CLIENTS} clients");
    println!("{:<28} {:>7} {:>9} {:>6}", "", "TPS", "CPU µs/q", "ratio");
    for (place, run) in places.iter().zip(&runs) {
        println!(
            "{:<28} {:>7.0} {:>9} {:>6}",
            place.name,
            run.tps,
            cell(run.cpu_micros, 1),
            ratio(run.cpu_micros, runs[0].cpu_micros),
        );
    }
}

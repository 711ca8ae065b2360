//! Large messages: one result of many rows from one shard, and one parameter. Rate against direct, the CPU time of the
//! process in between, and the most memory that it took.

use crate::link::{self, Link};
use crate::pgbench::rounds;
use crate::pgbouncer::PgBouncer;
use crate::rig::{self, Place};
use crate::statistics::{cell, median, ratio};
use crate::support::deployment::Options;
use crate::support::setting;
use crate::usage;
use std::time::Instant;

const MEGABYTE: u64 = 1024 * 1024;
const BYTEA_OID: u32 = 17;

/// Prints a row for each place; the ratio is to direct.
pub fn run() {
    let result = setting("PGRING_LOAD_RESULT_MB", 1024);
    let parameter = setting("PGRING_LOAD_PARAMETER_MB", 200);
    let sandbox = rig::servers(0);
    let mut deployment = Options::new(&sandbox).start();
    let limits = "[limits]\nrequest_bytes = \"1GB\"\n";
    let mut raised = Options::new(&sandbox).settings(limits).start();
    let folder = sandbox.socket_directory(0);
    let pgbouncer = PgBouncer::start(&sandbox, folder, &deployment.one(), false, 1);
    let direct = Place {
        name: "direct".to_owned(),
        target: deployment.one(),
        pid: None,
    };
    let mut places = vec![direct];
    places.extend(pgbouncer.iter().map(|pgbouncer| pgbouncer.place()));
    places.push(rig::router("pgring", &mut deployment));
    let raised = rig::router("pgring, limit raised", &mut raised);

    let rows = result * MEGABYTE / 1000;
    let sql = format!("SELECT repeat('x', 1000) FROM generate_series(1, {rows})");
    let request = link::query(&format!("/* pgring: shard=s0 */ {sql}"));
    measure("result", result, &places, |link| link.ask(&request));

    places.push(raised);
    let value = vec![b'x'; (parameter * MEGABYTE) as usize];
    let request = link::bound("", &value);
    drop(value);
    measure("parameter", parameter, &places, |link| {
        link.ask(&link::parsed("", "SELECT length($1)", &[BYTEA_OID]))?;
        link.ask(&request)
    });
}

fn measure(
    what: &str,
    megabytes: u64,
    places: &[Place],
    mut ask: impl FnMut(&mut Link) -> Result<u64, String>,
) {
    println!("one {what} of {megabytes} MB");
    println!(
        "{:<20} {:>7} {:>6} {:>10} {:>11} {:>8}",
        "", "MB/s", "ratio", "CPU s/GB", "before MB", "peak MB"
    );
    let mut rates = vec![Vec::new(); places.len()];
    let mut costs = vec![Vec::new(); places.len()];
    let mut memory = vec![(0, 0); places.len()];
    let mut refusals = vec![None; places.len()];
    for _ in 0..rounds() {
        for (index, place) in places.iter().enumerate() {
            let mut link = Link::login(&place.target);
            let before = place.pid.map(|pid| {
                usage::reset_peak(pid);
                (usage::resident(pid), usage::cpu(pid))
            });
            let start = Instant::now();
            let asked = ask(&mut link);
            let seconds = start.elapsed().as_secs_f64();
            if let Err(said) = asked {
                refusals[index] = Some(said);
            }
            rates[index].push(megabytes as f64 / seconds);
            if let (Some(pid), Some((resident, cpu))) = (place.pid, before) {
                let spent = (usage::cpu(pid) - cpu).as_secs_f64();
                costs[index].push(spent * 1024.0 / megabytes as f64);
                let (_, peak) = memory[index];
                memory[index] = (resident, usage::peak(pid).max(peak));
            }
        }
    }
    let direct = median(rates[0].clone());
    for (index, place) in places.iter().enumerate() {
        let rate = median(rates[index].clone());
        let (before, peak) = memory[index];
        match &refusals[index] {
            Some(said) => println!(
                "{:<20} refused: {said} (peak {} MB)",
                place.name,
                cell(peak as f64 / 1024.0, 1)
            ),
            None => println!(
                "{:<20} {rate:>7.0} {:>6} {:>10} {:>11} {:>8}",
                place.name,
                ratio(rate, direct),
                cell(median(costs[index].clone()), 2),
                cell(before as f64 / 1024.0, 1),
                cell(peak as f64 / 1024.0, 1),
            ),
        }
    }
}

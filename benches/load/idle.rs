//! What clients cost that do nothing: resident memory of the process in between, before they come, once they have logged
//! in, and once each has asked something.

use crate::link;
use crate::pgbouncer::PgBouncer;
use crate::rig::{self, Place};
use crate::support::deployment::Options;
use crate::support::{Target, cluster, setting};
use crate::usage;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Of one address, a client has fewer ports than this.
const CLIENTS_MAX: u64 = 25_000;
const THREADS: u64 = 4;
/// Until what was freed is given back.
const REST: Duration = Duration::from_secs(2);

/// Prints kB in all and kB a client.
pub fn run() {
    let clients = setting("PGRING_LOAD_IDLE", 10_000).min(CLIENTS_MAX);
    let sandbox = rig::servers(0);
    let limits = format!("[limits]\nclients = {}\n", clients + 100);
    let mut deployment = Options::new(&sandbox).settings(&limits).start();
    println!("{clients} idle clients: resident memory");
    println!(
        "{:<20} {:>10} {:>13} {:>12} {:>13} {:>12}",
        "", "before MB", "logged in MB", "kB a client", "have asked MB", "kB a client"
    );
    let folder = sandbox.socket_directory(0);
    let pgbouncer = PgBouncer::start(&sandbox, folder, &deployment.one(), false, rig::pool_size());
    let mut places = vec![rig::router("pgring", &mut deployment)];
    places.extend(pgbouncer.iter().map(|pgbouncer| pgbouncer.place()));
    for place in &places {
        measure(place, clients);
    }
}

fn measure(place: &Place, clients: u64) {
    let pid = place.pid.expect("a process in between");
    let resident = || {
        std::thread::sleep(REST);
        usage::resident(pid) as f64
    };
    // Some come and go first, so that pools and caches are there.
    let mut first = open(&place.target, 100);
    first.iter_mut().for_each(ask);
    drop(first);
    let before = resident();
    let mut all = open(&place.target, clients);
    let logged_in = resident();
    all.iter_mut().for_each(ask);
    let asked = resident();
    let each = |now: f64| (now - before) / clients as f64;
    println!(
        "{:<20} {:>10.1} {:>13.1} {:>12.2} {:>13.1} {:>12.2}",
        place.name,
        before / 1024.0,
        logged_in / 1024.0,
        each(logged_in),
        asked / 1024.0,
        each(asked),
    );
}

fn open(target: &Target, clients: u64) -> Vec<TcpStream> {
    assert_eq!(target.user, cluster::USER);
    std::thread::scope(|scope| {
        let part = |thread| (clients + thread) / THREADS;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let logins = (0..part(thread)).map(|_| link::socket(target));
                    logins.collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("log in"))
            .collect()
    })
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(&link::query("SELECT 1")).expect("ask");
    let mut answer = [0; 1024];
    let mut read = 0;
    // ReadyForQuery outside a block.
    while !answer[..read].ends_with(b"Z\0\0\0\x05I") {
        match stream.read(&mut answer[read..]).expect("an answer") {
            0 => panic!("the server hung up: {:?}", answer[..read].escape_ascii()),
            more => read += more,
        }
    }
}

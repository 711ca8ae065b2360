//! One run of pgbench, and what it cost the process in between.
//!
//! pgbench writes each transaction to a log. Logins and the first half second, when pools and plan caches fill, are left
//! out: what counts lies between two moments at which the process' CPU time was read.

use crate::rig::{self, Place};
use crate::statistics::quantile;
use crate::support::{cluster, setting};
use crate::usage;
use pgring::cli::sandbox::Sandbox;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const WARM_UP_MICROS: u64 = 500_000;
const LOGINS_A_SECOND: u64 = 150;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// `PGRING_LOAD_SECONDS`: how long each run is measured.
pub fn seconds() -> u64 {
    setting("PGRING_LOAD_SECONDS", 2).max(1)
}

/// `PGRING_LOAD_ROUNDS`: how often each run is repeated; medians count.
pub fn rounds() -> u64 {
    setting("PGRING_LOAD_ROUNDS", 2).max(1)
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Load {
    /// pgbench's `-M`.
    pub mode: String,
    /// Connections.
    pub clients: u64,
    /// A script of one statement; without one, pgbench's own select-only script.
    pub script: Option<String>,
}

/// What a run showed.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Transactions a second.
    pub tps: f64,
    /// Latencies in µs.
    pub p50: f64,
    /// Of a hundred the slowest.
    pub p99: f64,
    /// CPU time of the process in between, in µs a transaction; NaN without one.
    pub cpu_micros: f64,
    /// Its resident memory at the end, in kB; NaN without one.
    pub resident: f64,
}

/// A reading of a process's CPU time.
struct Reading {
    /// Microseconds since 1970.
    at: u64,
    cpu: Duration,
}

impl Load {
    /// pgbench's select-only script.
    pub fn select_only(mode: &str, clients: u64) -> Self {
        Self {
            mode: mode.to_owned(),
            clients,
            script: None,
        }
    }

    /// Runs it once.
    pub fn run(&self, sandbox: &Sandbox, place: &Place) -> Run {
        let folder = sandbox.directory().join("pgbench");
        fs::create_dir(&folder).expect("make a folder for pgbench's logs");
        let run = self.run_in(&folder, sandbox, place);
        fs::remove_dir_all(&folder).expect("remove pgbench's logs");
        run
    }

    fn run_in(&self, folder: &Path, sandbox: &Sandbox, place: &Place) -> Run {
        let mut command = cluster::program(sandbox, "pgbench", &place.target);
        let threads = self.clients.min(2).to_string();
        // pgbench's clock runs from before the logins, which take a few ms each.
        let logins = 1 + self.clients / LOGINS_A_SECOND;
        let duration = (logins + seconds()).to_string();
        command
            .args(["-n", "-M", &self.mode, "-c", &self.clients.to_string()])
            .args(["-j", &threads, "-T", &duration])
            .args(["-s", &rig::scale().to_string(), "--log", "--log-prefix"])
            .arg(folder.join("log"));
        match &self.script {
            None => command.arg("-S"),
            Some(script) => {
                let file = folder.join("script.sql");
                fs::write(&file, script).expect("write pgbench's script");
                command.arg("-f").arg(file)
            }
        };
        let ended = AtomicBool::new(false);
        let (output, readings, resident) = std::thread::scope(|scope| {
            let watched = scope.spawn(|| watch(place.pid, &ended));
            let output = command.output().expect("run pgbench");
            let resident = place
                .pid
                .map_or(f64::NAN, |pid| usage::resident(pid) as f64);
            ended.store(true, Ordering::Relaxed);
            (output, watched.join().expect("watch a process"), resident)
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !said.contains("ERROR") && !said.contains("error:"),
            "{}: {said}",
            place.name
        );
        let mut transactions = Vec::new();
        for entry in fs::read_dir(folder).expect("read pgbench's logs").flatten() {
            if entry.file_name() != "script.sql" {
                let text = fs::read_to_string(entry.path()).expect("read pgbench's log");
                transactions.extend(text.lines().map(transaction));
            }
        }
        measured(&transactions, &readings, resident)
    }
}

/// When it ended and how long it took, both in µs: a line is "client number latency script seconds micros".
fn transaction(line: &str) -> (u64, u64) {
    let fields: Vec<u64> = line
        .split_whitespace()
        .map(|field| field.parse().expect("numbers in pgbench's log"))
        .collect();
    (fields[4] * 1_000_000 + fields[5], fields[2])
}

fn watch(pid: Option<u32>, ended: &AtomicBool) -> Vec<Reading> {
    let mut readings = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        readings.push(Reading {
            at: now.expect("a clock after 1970").as_micros() as u64,
            cpu: pid.map_or(Duration::ZERO, usage::cpu),
        });
        std::thread::sleep(SAMPLE_INTERVAL);
    }
    readings
}

fn measured(transactions: &[(u64, u64)], readings: &[Reading], resident: f64) -> Run {
    let ends = transactions.iter().map(|(end, _)| *end);
    let (first, last) = (
        ends.clone().min().expect("transactions"),
        ends.max().expect("transactions"),
    );
    let mut within = readings
        .iter()
        .filter(|reading| (first + WARM_UP_MICROS..=last).contains(&reading.at));
    let from = within.next().expect("a reading after the warm-up");
    let to = within.next_back().expect("a reading at the end");
    let mut latencies: Vec<u64> = transactions
        .iter()
        .filter(|(end, _)| (from.at..to.at).contains(end))
        .map(|(_, latency)| *latency)
        .collect();
    latencies.sort_unstable();
    let cpu = (to.cpu - from.cpu).as_secs_f64() * 1e6 / latencies.len() as f64;
    Run {
        tps: latencies.len() as f64 * 1e6 / (to.at - from.at) as f64,
        p50: quantile(&latencies, 0.5) as f64,
        p99: quantile(&latencies, 0.99) as f64,
        cpu_micros: if resident.is_nan() { f64::NAN } else { cpu },
        resident,
    }
}

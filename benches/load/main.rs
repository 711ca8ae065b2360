//! pgbench's select-only script against one PostgreSQL directly, through PgBouncer and through the router over four
//! shards, in one run on one machine, so that the ratios mean something: `cargo bench --bench load`.
//!
//! For each protocol it prints transactions per second, their ratio to PgBouncer's, the pooler's CPU time per query
//! (from `/proc/<pid>/stat`), the ratio of that, and its memory. `PGRING_LOAD_SECONDS` (5), `PGRING_LOAD_CLIENTS`
//! (32), `PGRING_LOAD_SCALE` (1) and `PGRING_LOAD_ROUNDS` (1; the best of the rounds counts) make longer runs.
//! Without PgBouncer its row is left out. A PgBouncer older than 1.21 cannot hold prepared statements when it pools
//! by transaction: it then pools by session for that protocol, which is less work, and the row says so.

#[path = "../../tests/integration/support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::process::Guarded;
use support::{Deployment, Target, cluster, deployment, eventually, setting};

const MODES: [&str; 3] = ["simple", "extended", "prepared"];
/// Kernel ticks a second: `getconf CLK_TCK` is 100 on every Linux that we know.
const TICKS: f64 = 100.0;

fn main() {
    // `cargo test` runs benches too, to see whether they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let clients = setting("PGRING_LOAD_CLIENTS", 32);
    let rounds = setting("PGRING_LOAD_ROUNDS", 1).max(1);
    let options = Deployment::shared()
        .sharded("pgbench_accounts", "aid")
        .settings("[pool]\nsize = 20");
    let mut deployment = options.start();
    let one = deployment.one();
    initialise(&deployment, &deployment.target());
    initialise(&deployment, &one);
    let pid = deployment.router().pid();
    println!(
        "{:<10} {:<26} {:>8} {:>7} {:>10} {:>7} {:>8}",
        "protocol", "", "TPS", "ratio", "CPU µs/q", "ratio", "RSS MB"
    );
    for mode in MODES {
        let pgbouncer = PgBouncer::start(&deployment, mode, clients);
        let mut direct = Run::default();
        let mut pooled = Run::default();
        let mut routed = Run::default();
        for _ in 0..rounds {
            direct = direct.better(Run::measure(&deployment, &one, mode, clients, None));
            if let Some(pgbouncer) = &pgbouncer {
                let pid = Some(pgbouncer.process.pid());
                pooled = pooled.better(Run::measure(
                    &deployment,
                    &pgbouncer.target,
                    mode,
                    clients,
                    pid,
                ));
            }
            routed = routed.better(Run::measure(
                &deployment,
                &deployment.target(),
                mode,
                clients,
                Some(pid),
            ));
        }
        direct.print(mode, "direct, one PostgreSQL", &pooled);
        if let Some(pgbouncer) = &pgbouncer {
            pooled.print(mode, &pgbouncer.name, &pooled);
        }
        routed.print(mode, "pgring, four shards", &pooled);
    }
}

fn initialise(deployment: &Deployment<'_>, target: &Target) {
    let scale = setting("PGRING_LOAD_SCALE", 1).to_string();
    let mut command = cluster::program(deployment.sandbox(), "pgbench", target);
    let output = command
        .args(["-i", "-I", "dtgp", "-q", "-s", &scale])
        .output()
        .expect("run pgbench");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What one run of pgbench showed.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    tps: f64,
    cpu_micros: f64,
    resident_megabytes: f64,
}

impl Run {
    fn measure(
        deployment: &Deployment<'_>,
        target: &Target,
        mode: &str,
        clients: u64,
        pid: Option<u32>,
    ) -> Self {
        let seconds = setting("PGRING_LOAD_SECONDS", 5).to_string();
        let clients = clients.to_string();
        let scale = setting("PGRING_LOAD_SCALE", 1).to_string();
        let mut command = cluster::program(deployment.sandbox(), "pgbench", target);
        command.args([
            "-n", "-S", "-M", mode, "-c", &clients, "-j", "2", "-T", &seconds, "-s", &scale,
        ]);
        let before = pid.map_or(0.0, cpu_seconds);
        let output = command.output().expect("run pgbench");
        let spent = pid.map_or(0.0, cpu_seconds) - before;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let number = |label: &str| -> f64 {
            let line = said.lines().find_map(|line| line.strip_prefix(label));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok())
                .unwrap_or_else(|| panic!("no {label:?} in\n{said}"))
        };
        let transactions = number("number of transactions actually processed:");
        let resident_megabytes = pid.map_or(0.0, resident_megabytes);
        Self {
            tps: number("tps ="),
            cpu_micros: spent * 1e6 / transactions,
            resident_megabytes,
        }
    }

    fn better(self, other: Self) -> Self {
        if other.tps > self.tps { other } else { self }
    }

    fn print(&self, mode: &str, name: &str, reference: &Self) {
        let ratio = |value: f64, of: f64| {
            if value > 0.0 && of > 0.0 {
                format!("{:.2}", value / of)
            } else {
                "-".into()
            }
        };
        let or_dash = |value: f64| {
            if value > 0.0 {
                format!("{value:.1}")
            } else {
                "-".into()
            }
        };
        println!(
            "{mode:<10} {name:<26} {:>8.0} {:>7} {:>10} {:>7} {:>8}",
            self.tps,
            ratio(self.tps, reference.tps),
            or_dash(self.cpu_micros),
            ratio(self.cpu_micros, reference.cpu_micros),
            or_dash(self.resident_megabytes),
        );
    }
}

/// User and system time of a process and its threads so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name in parentheses may hold spaces; utime and stime are the 14th and 15th fields of all.
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().expect("ticks"));
    ticks.sum::<f64>() / TICKS
}

fn resident_megabytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .expect("a number")
        / 1024.0
}

/// A running PgBouncer in front of the single PostgreSQL.
struct PgBouncer {
    process: Guarded,
    target: Target,
    name: String,
}

impl PgBouncer {
    /// `None` if this machine has none.
    fn start(deployment: &Deployment<'_>, mode: &str, clients: u64) -> Option<Self> {
        let paths = [
            "/usr/sbin/pgbouncer",
            "/usr/bin/pgbouncer",
            "/usr/local/bin/pgbouncer",
            "/opt/homebrew/bin/pgbouncer",
        ];
        let Some(program) = paths.iter().find(|path| Path::new(path).exists()) else {
            eprintln!("skipped: pgbouncer is missing");
            return None;
        };
        let version = Command::new(program)
            .arg("--version")
            .output()
            .expect("run pgbouncer");
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let version = version
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        let minor: u32 = version
            .split('.')
            .nth(1)
            .and_then(|minor| minor.parse().ok())
            .unwrap_or_default();
        let prepares = minor >= 21;
        let by_session = mode == "prepared" && !prepares;
        let (pool_mode, size) = if by_session {
            ("session", clients)
        } else {
            ("transaction", 20)
        };
        let one = deployment.one();
        let port = deployment::free_port();
        let folder = deployment
            .sandbox()
            .directory()
            .join(format!("pgbouncer-{port}"));
        fs::create_dir(&folder).expect("make a folder");
        let users = folder.join("users.txt");
        fs::write(&users, format!("\"{}\" \"{}\"\n", one.user, one.password))
            .expect("write the users");
        let prepared = if prepares {
            "max_prepared_statements = 200\n"
        } else {
            ""
        };
        let configuration = format!(
            "[databases]\n{} = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {pool_mode}\n\
             default_pool_size = {size}\nmax_client_conn = 10000\nignore_startup_parameters = extra_float_digits\n{prepared}",
            one.database,
            one.host,
            one.port,
            users.display()
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, configuration).expect("write the configuration");
        let mut command = Command::new(program);
        command
            .arg("-q")
            .arg(&file)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((uid, gid)) = user_without_privileges() {
            command.uid(uid).gid(gid);
        }
        let mut process = Guarded::spawn(&mut command);
        let target = Target { port, ..one };
        eventually(Duration::from_secs(10), "pgbouncer serves", || {
            assert!(process.is_running(), "pgbouncer ended");
            target.login(&[]).is_ok()
        });
        let name = format!(
            "PgBouncer {version}{}",
            if by_session { ", session" } else { "" }
        );
        Some(Self {
            process,
            target,
            name,
        })
    }
}

/// PgBouncer refuses to run as root: the user who then owns the servers' folder.
fn user_without_privileges() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let root = fs::metadata("/proc/self").expect("/proc").uid() == 0;
    let servers = fs::metadata(cluster::shared().directory()).expect("the servers' folder");
    root.then(|| (servers.uid(), servers.gid()))
}

//! A PgBouncer to compare with, set up as the router is.

use crate::rig::Place;
use crate::support::process::Guarded;
use crate::support::{Target, deployment, eventually};
use pgring::cli::sandbox::Sandbox;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PROGRAMS: [&str; 4] = [
    "/usr/sbin/pgbouncer",
    "/usr/bin/pgbouncer",
    "/usr/local/bin/pgbouncer",
    "/opt/homebrew/bin/pgbouncer",
];

/// A running PgBouncer before one PostgreSQL.
pub struct PgBouncer {
    process: Guarded,
    target: Target,
    name: String,
}

/// This machine's program.
fn program() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|path| Path::new(path).exists())
}

fn version() -> Option<String> {
    let output = Command::new(program()?).arg("--version").output();
    let text = String::from_utf8(output.expect("run pgbouncer").stdout).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

/// Whether it can hold prepared statements when it pools by transaction: from 1.21 on. `None` if there is none.
pub fn prepares() -> Option<bool> {
    let version = version()?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    Some((parts.next()?, parts.next()?) >= (1_u32, 21_u32))
}

impl PgBouncer {
    /// Starts one before a PostgreSQL whose socket is in `folder`, with `size` connections. `None` if this machine has
    /// none.
    pub fn start(
        sandbox: &Sandbox,
        folder: &Path,
        before: &Target,
        by_session: bool,
        size: u64,
    ) -> Option<Self> {
        let program = program()?;
        let port = deployment::free_port();
        let target = Target {
            port,
            ..before.clone()
        };
        let own = sandbox.directory().join(format!("pgbouncer-{port}"));
        fs::create_dir(&own).expect("make a folder");
        let users = own.join("users.txt");
        let user = format!("\"{}\" \"{}\"\n", target.user, target.password);
        fs::write(&users, user).expect("write the users");
        let pool_mode = if by_session { "session" } else { "transaction" };
        let prepared = match prepares() {
            Some(true) => "max_prepared_statements = 200\n",
            Some(false) | None => "",
        };
        let configuration = format!(
            "[databases]\n{} = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {pool_mode}\n\
             default_pool_size = {size}\nmax_client_conn = 20000\nlisten_backlog = 1024\n\
             log_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n\
             ignore_startup_parameters = extra_float_digits\n{prepared}",
            before.database,
            folder.display(),
            before.port,
            users.display()
        );
        let file = own.join("pgbouncer.ini");
        fs::write(&file, configuration).expect("write the configuration");
        let mut command = Command::new(program);
        command
            .arg("-q")
            .arg(&file)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if fs::metadata("/proc/self").expect("/proc").uid() == 0 {
            // It refuses to run as root: then it runs as the servers do.
            let servers = fs::metadata(sandbox.directory()).expect("the servers' folder");
            command.uid(servers.uid()).gid(servers.gid());
        }
        let mut process = Guarded::spawn(&mut command);
        eventually(Duration::from_secs(10), "pgbouncer serves", || {
            assert!(process.is_running(), "pgbouncer ended");
            target.login(&[]).is_ok()
        });
        let version = version().unwrap_or_default();
        let mode = if by_session { ", session" } else { "" };
        Some(Self {
            process,
            target,
            name: format!("PgBouncer {version}{mode}"),
        })
    }

    /// Where its clients connect.
    pub fn place(&self) -> Place {
        Place {
            name: self.name.clone(),
            target: self.target.clone(),
            pid: Some(self.process.pid()),
        }
    }
}

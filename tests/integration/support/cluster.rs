//! The PostgreSQLs under test. One set is shared by all tests of a binary; tests that kill servers start their own.

use super::client::Target;
use pgring::cli::sandbox::{SUPERUSER, Sandbox, SandboxOptions};
use std::process::Command;
use std::sync::OnceLock;

/// The role that clients use.
pub const USER: &str = "app";
/// Its password.
pub const PASSWORD: &str = "app's-secret";
/// Servers of the shared set.
pub const SERVERS: usize = 4;

/// The set that all tests of this binary share. It is removed when the process ends, however it ends.
pub fn shared() -> &'static Sandbox {
    static SHARED: OnceLock<Sandbox> = OnceLock::new();
    SHARED.get_or_init(|| start(SERVERS))
}

/// A set of its own for a test.
pub fn start(servers: usize) -> Sandbox {
    start_with(servers, &[])
}

/// The same with lines for `postgresql.conf`.
pub fn start_with(servers: usize, settings: &[(&str, &str)]) -> Sandbox {
    let mut lines = vec![
        ("max_connections", "300"),
        ("max_prepared_transactions", "100"),
        // Many tests move slots at a time.
        ("max_replication_slots", "60"),
        ("max_wal_senders", "60"),
        ("max_logical_replication_workers", "40"),
        ("max_worker_processes", "60"),
        ("wal_retrieve_retry_interval", "50ms"),
    ];
    lines.extend_from_slice(settings);
    let options = SandboxOptions {
        clusters: servers,
        listen_tcp: true,
        scram: true,
        users: vec![(USER.into(), PASSWORD.into())],
        settings: lines
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::start(options).unwrap_or_else(|error| panic!("{error}"));
    for server in 0..servers {
        // Cancelling and watching other sessions is part of what the tests do as this user.
        superuser(&sandbox, server, "postgres")
            .connect()
            .run("GRANT pg_read_all_stats, pg_signal_backend TO app");
    }
    sandbox
}

/// The superuser on one server, over its socket.
pub fn superuser(sandbox: &Sandbox, server: usize, database: &str) -> Target {
    Target {
        host: sandbox
            .socket_directory(server)
            .to_str()
            .expect("a folder in UTF-8")
            .into(),
        port: sandbox.port(server),
        user: SUPERUSER.into(),
        password: String::new(),
        database: database.into(),
    }
}

/// The clients' user on one server, over TCP.
pub fn direct(sandbox: &Sandbox, server: usize, database: &str) -> Target {
    Target {
        host: "127.0.0.1".into(),
        port: sandbox.port(server),
        user: USER.into(),
        password: PASSWORD.into(),
        database: database.into(),
    }
}

/// A fresh database of the clients' user.
pub fn create_database(sandbox: &Sandbox, server: usize, database: &str) {
    let mut client = superuser(sandbox, server, "postgres").connect();
    client.run(&format!("CREATE DATABASE \"{database}\" OWNER {USER}"));
}

/// A PostgreSQL program of the same version as the servers, ready to log in to `target`.
pub fn program(sandbox: &Sandbox, name: &str, target: &Target) -> Command {
    let mut command = Command::new(sandbox.programs().path(name));
    command
        .env("PGHOST", &target.host)
        .env("PGPORT", target.port.to_string())
        .env("PGUSER", &target.user)
        .env("PGPASSWORD", &target.password)
        .env("PGDATABASE", &target.database)
        .env("PGSSLMODE", "prefer");
    command
}

//! What the measures run on: throw-away PostgreSQLs, pgbench's tables on one of them and over shards, routers in front.
//! A [`Place`] is where a client of a measure connects.

use crate::pgbouncer::{self, PgBouncer};
use crate::support::deployment::Options;
use crate::support::{Client, Deployment, Target, cluster, setting};
use pgring::cli::sandbox::Sandbox;
use std::fmt::Write as _;

/// PgBouncer's default, and the router's.
const POOL_SIZE: u64 = 20;

/// `PGRING_LOAD_POOL`: connections of each pool, PgBouncer's and the router's to each shard.
pub fn pool_size() -> u64 {
    setting("PGRING_LOAD_POOL", POOL_SIZE)
}

/// `PGRING_LOAD_SCALE`: 100,000 accounts each.
pub fn scale() -> u64 {
    setting("PGRING_LOAD_SCALE", 1)
}

/// Comma-separated words from the environment.
pub fn list(name: &str, default: &str) -> Vec<String> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(|word| word.trim().to_owned()).collect()
}

/// Four PostgreSQLs that `clients` may use directly, and that nothing disturbs.
pub fn servers(clients: u64) -> Sandbox {
    servers_with(clients, &[])
}

/// The same with lines for `postgresql.conf`.
pub fn servers_with(clients: u64, settings: &[(&str, &str)]) -> Sandbox {
    let connections = (clients + 4 * pool_size() + 100).to_string();
    let own = [
        ("max_connections", &*connections),
        ("shared_buffers", "128MB"),
        ("max_wal_size", "4GB"),
        ("checkpoint_timeout", "1h"),
        ("autovacuum", "off"),
    ];
    cluster::start_with(cluster::SERVERS, &[&own, settings].concat())
}

/// Where a measure's client connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// For the table.
    pub name: String,
    /// Host, port and user.
    pub target: Target,
    /// The process in between, if there is one.
    pub pid: Option<u32>,
}

/// pgbench's tables on one PostgreSQL, on one shard and over four, each loaded.
pub struct Rig<'a> {
    /// The router over four shards.
    pub four: Deployment<'a>,
    /// The router over one.
    pub one: Deployment<'a>,
}

impl<'a> Rig<'a> {
    /// Makes and loads them. `settings` are lines for `pgring.toml`.
    pub fn start(sandbox: &'a Sandbox, settings: &str) -> Self {
        let settings = format!("[pool]\nsize = {}\n{settings}", pool_size());
        let four = Options::new(sandbox)
            .sharded("pgbench_accounts", "aid")
            .settings(&settings)
            .start();
        let one = Options::new(sandbox)
            .shards(1)
            .sharded("pgbench_accounts", "aid")
            .settings(&settings)
            .start();
        let rig = Self { four, one };
        for target in [rig.four.target(), rig.one.target(), rig.four.one()] {
            load(sandbox, &target);
        }
        let mut clients: Vec<Client> = (0..4).map(|shard| rig.four.shard(shard)).collect();
        clients.push(rig.one.shard(0));
        let one = rig.four.one().database;
        clients.push(cluster::superuser(sandbox, 0, &one).connect());
        for client in &mut clients {
            client.run("VACUUM (FREEZE, ANALYZE)");
        }
        clients[0].run("CHECKPOINT");
        rig
    }

    /// One PostgreSQL with all rows, nothing in between.
    pub fn direct(&self) -> Place {
        Place {
            name: "direct, one PostgreSQL".to_owned(),
            target: self.four.one(),
            pid: None,
        }
    }

    /// The router over one shard.
    pub fn unsharded(&mut self) -> Place {
        router("pgring, one shard", &mut self.one)
    }

    /// The router over four.
    pub fn sharded(&mut self) -> Place {
        router("pgring, four shards", &mut self.four)
    }

    /// PgBouncer before the PostgreSQL of [`Self::direct`], in transaction mode where the protocol `mode` allows.
    pub fn pgbouncer(&self, mode: &str, clients: u64) -> Option<PgBouncer> {
        let sandbox = self.four.sandbox();
        let folder = sandbox.socket_directory(0);
        let by_session = mode == "prepared" && !pgbouncer::prepares()?;
        let size = if by_session { clients } else { pool_size() };
        PgBouncer::start(sandbox, folder, &self.four.one(), by_session, size)
    }
}

/// A deployment's router.
pub fn router(name: &str, deployment: &mut Deployment<'_>) -> Place {
    Place {
        name: name.to_owned(),
        target: deployment.target(),
        pid: Some(deployment.router().pid()),
    }
}

fn load(sandbox: &Sandbox, target: &Target) {
    let mut command = cluster::program(sandbox, "pgbench", target);
    let output = command
        .args(["-i", "-I", "dtgp", "-q", "-s", &scale().to_string()])
        .output()
        .expect("run pgbench");
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    let _ = write!(said, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

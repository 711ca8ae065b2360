//! `pgring init`: makes the schema `pgring` on new shards and gives out the slots; or lets new shards join a cluster.

use super::ConfigArgument;
use super::check::columns;
use super::programs::Programs;
use crate::backend::init::{self, InitError, InitReport};
use crate::config::{Address, Config, Secret, Shard};
use anyhow::{Context as _, anyhow, bail};
use std::process::Stdio;
use tokio::process::Command;

/// Create the pgring schema on new shards and give out the slots, or let new shards join a cluster
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Init {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        let InitReport {
            cluster_id,
            shards,
            joined,
            warnings,
        } = match init::init(&config).await {
            Err(InitError::Empty { shard, model }) => {
                copy_definitions(&config, &model, &shard).await?;
                init::init(&config).await?
            }
            report => report?,
        };
        for warning in warnings {
            eprintln!("pgring: warning: {warning}");
        }
        let mut rows = vec![["shard", "slots"].map(str::to_owned)];
        rows.extend(
            shards
                .iter()
                .map(|(name, slots)| [name.to_string(), slots.len().to_string()]),
        );
        let directory = config.directory.display();
        let (what, next) = match &*joined {
            [] => (format!("made cluster {cluster_id}"), "serve"),
            joined => {
                let joined = joined.join(", ");
                (format!("{joined} joined cluster {cluster_id}"), "rebalance")
            }
        };
        let report = format!(
            "{what}\n\n{}\nnext: pgring {next} -c {directory}\n",
            columns(&rows)
        );
        Ok(super::print(&report)?)
    }
}

/// Makes what `model` has on `shard`, but for rows, by `pg_dump` and `psql`.
async fn copy_definitions(config: &Config, model: &str, shard: &str) -> anyhow::Result<()> {
    let programs = Programs::find()?
        .context("pg_dump and psql are needed to copy the definitions, and are not found")?;
    let declared = |name: &str| config.shards.iter().find(|shard| shard.name == name);
    let (Some(model), Some(shard)) = (declared(model), declared(shard)) else {
        bail!("a shard is not in the map");
    };
    eprintln!(
        "pgring: copying the definitions of {} to {}",
        model.name, shard.name
    );
    let program = |name: &str, shard: &Shard| {
        let mut command = Command::new(programs.path(name));
        connect_to(&mut command, config, shard);
        command.kill_on_drop(true);
        command
    };
    let mut dump = program("pg_dump", model);
    dump.args(["--schema-only", "--exclude-schema=pgring"]);
    let mut dumping = dump.stdout(Stdio::piped()).spawn()?;
    let dumped: Stdio = match dumping.stdout.take() {
        Some(dumped) => dumped.try_into()?,
        None => bail!("pg_dump has no output"),
    };
    let mut restore = program("psql", shard);
    let arguments = [
        "--no-psqlrc",
        "--quiet",
        "--single-transaction",
        "--set=ON_ERROR_STOP=1",
    ];
    restore.args(arguments).stdin(dumped).stdout(Stdio::null());
    let (dumped, restored) = tokio::join!(dumping.wait(), restore.status());
    match (dumped?.success(), restored?.success()) {
        (true, true) => Ok(()),
        _ => Err(anyhow!(
            "the definitions of shard {} were not copied to {}",
            model.name,
            shard.name
        )),
    }
}

/// By libpq's variables, which show no password to other users of the machine.
fn connect_to(command: &mut Command, config: &Config, shard: &Shard) {
    let (hosts, ports): (Vec<_>, Vec<_>) = shard
        .nodes
        .iter()
        .map(|node| match node {
            Address::Tcp { host, port } => (host.clone(), port.to_string()),
            Address::Unix { directory, port } => {
                (directory.display().to_string(), port.to_string())
            }
        })
        .unzip();
    command
        .env("PGHOST", hosts.join(","))
        .env("PGPORT", ports.join(","))
        .env("PGDATABASE", &shard.database)
        .env("PGUSER", &config.backend.user)
        .env("PGTARGETSESSIONATTRS", "read-write");
    let password = config.backend.password.as_ref();
    if let Some(password) = password.and_then(Secret::password) {
        command.env("PGPASSWORD", password);
    }
}

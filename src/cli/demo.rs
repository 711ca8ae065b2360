//! `pgring demo`: throw-away PostgreSQL clusters, a shard map over them, TPC-H loaded through the router itself, and
//! an address to connect to. All of it goes with the program.

use super::programs::Programs;
use super::sandbox::{SUPERUSER, Sandbox, SandboxOptions};
use super::serve::Running;
use super::stop::StopSignal;
use super::tpch::{SCALE, Table, Words};
use crate::backend::init;
use crate::config::{Config, LISTEN_FILE, SHARDS_FILE};
use anyhow::Context;
use futures_util::SinkExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_postgres::NoTls;

/// Name of the database, of the cluster, and of the databases on the shards.
const DATABASE: &str = "shop";
/// The demo's only user, and its password: whoever reaches the port of a demo may look at invented data.
const USER: &str = "app";
const LOAD_CHUNK_BYTES: usize = 256 * 1024;

/// Show a sharded database: throw-away PostgreSQL clusters, sample data, and a router, until Ctrl-C
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// How many shards, each a PostgreSQL cluster of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// The router's port on 127.0.0.1
    #[arg(long, default_value_t = 6432, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Where the clusters live: a folder that is missing or empty, and is removed at the end [default: a new one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        TcpListener::bind(("127.0.0.1", self.port)).with_context(|| {
            format!(
                "port {} cannot be used, choose another with --port",
                self.port
            )
        })?;
        // Before signals are caught: it may ask a question, and Ctrl-C should end that.
        tokio::task::spawn_blocking(Programs::find_or_install).await??;
        let mut stop = StopSignal::catch()?;
        let progress = Progress::start(self.shards);
        let options = SandboxOptions {
            clusters: self.shards.into(),
            directory: self.dir,
            users: vec![(USER.to_owned(), USER.to_owned())],
            scram: true,
            ..SandboxOptions::default()
        };
        let sandbox = tokio::task::spawn_blocking(|| Sandbox::start(options)).await??;
        let shown = show(&sandbox, self.port, &progress, &mut stop).await;
        progress.finish();
        eprintln!(
            "stopping: the clusters and {} are removed",
            sandbox.directory().display()
        );
        tokio::task::spawn_blocking(|| drop(sandbox)).await?;
        shown
    }
}

/// Everything after the clusters are up, until a signal or an error.
async fn show(
    sandbox: &Sandbox,
    port: u16,
    progress: &Progress,
    stop: &mut StopSignal,
) -> anyhow::Result<()> {
    let directory = sandbox.directory().join("shard-config");
    let mut running = tokio::select! {
        running = start(sandbox, port, &directory) => running?,
        () = stop.wait() => return Ok(()),
    };
    let address = format!("postgresql://{USER}:{USER}@127.0.0.1:{port}/{DATABASE}");
    let loaded = tokio::select! {
        loaded = load(&address, progress) => loaded.map(|()| true),
        ended = running.ended() => return ended,
        () = stop.wait() => Ok(false),
    };
    if matches!(loaded, Ok(true)) {
        progress.finish();
        super::print(&format!("ready: psql {address}\n"))?;
        eprint!("{}", examples(&directory));
        tokio::select! {
            ended = running.ended() => return ended,
            () = stop.wait() => {}
        }
    }
    // While the clusters still run: sessions end in order.
    running.stop().await?;
    loaded.map(drop)
}

async fn start(sandbox: &Sandbox, port: u16, directory: &Path) -> anyhow::Result<Running> {
    for shard in 0..sandbox.clusters() {
        let made = make_database(sandbox, shard).await;
        made.with_context(|| format!("making the database of shard s{shard}"))?;
    }
    let written = write_shard_map(sandbox, port, directory);
    written.with_context(|| format!("writing {}", directory.display()))?;
    let config = Config::load(directory)?;
    init::init(&config).await?;
    Running::start(config).await
}

async fn make_database(sandbox: &Sandbox, shard: usize) -> anyhow::Result<()> {
    let (client, connection) =
        tokio_postgres::connect(&sandbox.superuser_dsn(shard, "postgres"), NoTls).await?;
    let connection = tokio::spawn(connection);
    client
        .batch_execute(&format!("CREATE DATABASE {DATABASE} OWNER {USER}"))
        .await?;
    drop(client);
    Ok(connection.await??)
}

/// The shard map as a person would write it: they may look at it, and run other commands on it.
fn write_shard_map(sandbox: &Sandbox, port: u16, directory: &Path) -> anyhow::Result<()> {
    let listen = format!(
        "# The demo's router. See shards.toml for what it shards.\n\n\
         [listen]\naddress = \"127.0.0.1:{port}\"\n\n\
         [[user]]\nname = \"{USER}\"\npassword = \"{USER}\"\nadmin = true\n\n\
         [backend]\nuser = \"{SUPERUSER}\"\n"
    );
    let mut shards = format!("[cluster]\nname = \"{DATABASE}\"\ndatabase = \"{DATABASE}\"\n");
    for shard in 0..sandbox.clusters() {
        let node = sandbox
            .address(shard)
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        write!(
            shards,
            "\n[[shard]]\nname = \"s{shard}\"\nnodes = [\"{node}\"]\n"
        )?;
    }
    for table in Table::ALL {
        let kind = match table.key() {
            Some(key) => format!("key = \"{key}\""),
            None => "kind = \"reference\"".to_owned(),
        };
        write!(
            shards,
            "\n[[table]]\nname = \"public.{}\"\n{kind}\n",
            table.name()
        )?;
    }
    std::fs::create_dir(directory)?;
    std::fs::write(directory.join(LISTEN_FILE), listen)?;
    std::fs::write(directory.join(SHARDS_FILE), shards)?;
    Ok(())
}

/// Makes the tables and loads their rows, all as a client of the router.
async fn load(address: &str, progress: &Progress) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(address, NoTls)
        .await
        .context("connecting to the router")?;
    let connection = tokio::spawn(connection);
    progress.say("creating tables");
    for table in Table::ALL {
        client
            .batch_execute(table.ddl())
            .await
            .with_context(|| format!("creating the table {}", table.name()))?;
    }
    let texts = tokio::task::spawn_blocking(|| {
        let words = Words::new();
        Table::ALL.map(|table| (table, table.copy_text(&words)))
    })
    .await?;
    progress.expect(texts.iter().map(|(_, text)| text.len()).sum());
    for (table, text) in texts {
        let name = table.name();
        progress.say(name);
        let loading = || format!("loading the table {name}");
        let copy = client
            .copy_in(&format!("COPY {name} FROM STDIN"))
            .await
            .with_context(loading)?;
        let mut copy = std::pin::pin!(copy);
        let text = bytes::Bytes::from(text);
        for start in (0..text.len()).step_by(LOAD_CHUNK_BYTES) {
            let chunk = text.slice(start..text.len().min(start + LOAD_CHUNK_BYTES));
            progress.add(chunk.len());
            copy.send(chunk).await.with_context(loading)?;
        }
        copy.finish().await.with_context(loading)?;
        client
            .batch_execute(&format!("ANALYZE {name}"))
            .await
            .with_context(loading)?;
    }
    drop(client);
    Ok(connection.await??)
}

fn examples(directory: &Path) -> String {
    format!(
        "\nTPC-H at scale {SCALE}; the shard map is in {}. Things to try:\n\
         \x20 EXPLAIN SELECT * FROM orders JOIN lineitem ON l_orderkey = o_orderkey WHERE o_orderkey = 7;  -- one shard\n\
         \x20 SELECT o_orderkey, o_totalprice FROM orders ORDER BY o_totalprice DESC, o_orderkey LIMIT 5;  -- all shards, merged\n\
         \x20 SELECT c_nationkey, count(*) FROM orders JOIN customer ON c_custkey = o_custkey GROUP BY 1;  -- gathered\n\
         \x20 UPDATE orders SET o_orderkey = 8 WHERE o_orderkey = 7;  -- refused, and why\n\
         Ctrl-C stops everything and removes it.\n",
        directory.display()
    )
}

/// A bar on a terminal, nothing elsewhere.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn start(shards: u16) -> Self {
        // Hidden by itself where stderr is no terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("a valid template"));
        bar.set_message(format!("starting {shards} PostgreSQL clusters"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    fn expect(&self, bytes: usize) {
        let template = "{spinner} loading {msg:8} {bar:40} {bytes} of {total_bytes}";
        self.bar
            .set_style(ProgressStyle::with_template(template).expect("a valid template"));
        self.bar.set_length(bytes as u64);
    }

    fn say(&self, table: &'static str) {
        self.bar.set_message(table);
    }

    fn add(&self, bytes: usize) {
        self.bar.inc(bytes as u64);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

//! One test's world: a fresh database on each shard, one on a single PostgreSQL to compare with, and a router as a
//! child process of the real binary, so that it can be killed.

use super::client::{Client, Target};
use super::cluster::{self, PASSWORD, USER};
use super::process::Guarded;
use pgring::cli::sandbox::Sandbox;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The router's program.
pub const PGRING: &str = env!("CARGO_BIN_EXE_pgring");
/// The database name that clients ask the router for.
pub const DATABASE: &str = "shop";
/// The cluster's name.
pub const CLUSTER: &str = "test";

/// What a deployment is made of. [`Options::start`] makes it.
pub struct Options<'a> {
    sandbox: &'a Sandbox,
    shards: usize,
    default_shard: usize,
    tables: String,
    settings: String,
    schema: String,
    nodes: Vec<(usize, String)>,
    router: bool,
    under: Vec<String>,
}

/// Databases, configuration and the router that is running.
pub struct Deployment<'a> {
    sandbox: &'a Sandbox,
    database: String,
    shards: usize,
    directory: PathBuf,
    port: u16,
    router: Option<Router>,
    under: Vec<String>,
}

impl Deployment<'static> {
    /// On the servers that all tests of the binary share.
    pub fn shared() -> Options<'static> {
        Options::new(cluster::shared())
    }
}

impl<'a> Options<'a> {
    /// Four shards, or as many as `sandbox` has.
    pub fn new(sandbox: &'a Sandbox) -> Self {
        let shards = sandbox.clusters();
        Self {
            sandbox,
            shards,
            default_shard: 0,
            tables: String::new(),
            settings: String::new(),
            schema: String::new(),
            nodes: Vec::new(),
            router: true,
            under: Vec::new(),
        }
    }

    /// How many shards.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// The shard of what is not declared, if not the first.
    pub fn default_shard(mut self, shard: usize) -> Self {
        self.default_shard = shard;
        self
    }

    /// Declares a sharded table.
    pub fn sharded(mut self, table: &str, key: &str) -> Self {
        write!(
            self.tables,
            "[[table]]\nname = \"public.{table}\"\nkey = \"{key}\"\n"
        )
        .unwrap();
        self
    }

    /// Declares a sharded table whose unique constraints may lack the key.
    pub fn sharded_with_unique_per_shard(mut self, table: &str, key: &str) -> Self {
        self = self.sharded(table, key);
        self.tables.push_str("unique_per_shard = true\n");
        self
    }

    /// Declares a reference table.
    pub fn reference(mut self, table: &str) -> Self {
        write!(
            self.tables,
            "[[table]]\nname = \"public.{table}\"\nkind = \"reference\"\n"
        )
        .unwrap();
        self
    }

    /// More lines for `pgring.toml`: whole sections.
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings.push_str(toml);
        self.settings.push('\n');
        self
    }

    /// SQL that is run on each shard and on the single PostgreSQL before the router starts.
    pub fn schema(mut self, sql: &str) -> Self {
        self.schema.push_str(sql);
        self.schema.push_str(";\n");
        self
    }

    /// Gives a shard another address than its server's socket.
    pub fn node(mut self, shard: usize, address: &str) -> Self {
        self.nodes.push((shard, address.into()));
        self
    }

    /// Only the databases: no `pgring init`, no router.
    pub fn plain(mut self) -> Self {
        self.router = false;
        self
    }

    /// Runs the routers under a program that takes theirs as its last arguments.
    pub fn under(mut self, program: &[String]) -> Self {
        self.under = program.to_vec();
        self
    }

    /// Makes the databases and starts the router.
    #[track_caller]
    pub fn start(self) -> Deployment<'a> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let database = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = self.sandbox.directory().join(format!("config-{database}"));
        fs::create_dir(&directory).expect("make the folder of the configuration");
        let mut deployment = Deployment {
            sandbox: self.sandbox,
            database,
            shards: self.shards,
            directory,
            port: free_port(),
            router: None,
            under: self.under.clone(),
        };
        std::thread::scope(|scope| {
            for server in 0..self.shards {
                let (deployment, schema) = (&deployment, &self.schema);
                scope.spawn(move || deployment.create(server, &deployment.database, schema));
            }
            deployment.create(0, &deployment.one().database, &self.schema);
        });
        deployment.write_configuration(&self);
        if self.router {
            deployment.pgring(&["init"]);
            deployment.router = Some(deployment.another_router());
        }
        deployment
    }
}

impl Deployment<'_> {
    fn create(&self, server: usize, database: &str, schema: &str) {
        cluster::create_database(self.sandbox, server, database);
        if !schema.is_empty() {
            cluster::direct(self.sandbox, server, database)
                .connect()
                .run(schema);
        }
    }

    fn write_configuration(&self, options: &Options<'_>) {
        let mut shards = format!(
            "[cluster]\nname = \"{CLUSTER}\"\ndatabase = \"{DATABASE}\"\ndefault_shard = \"s{}\"\n",
            options.default_shard
        );
        for shard in 0..self.shards {
            let given = options
                .nodes
                .iter()
                .find(|(index, _)| *index == shard)
                .map(|(_, address)| address.clone());
            let folder = self.sandbox.socket_directory(shard).display();
            let address = given.unwrap_or_else(|| format!("{folder}:{}", self.sandbox.port(shard)));
            let database = &self.database;
            write!(shards, "[[shard]]\nname = \"s{shard}\"\ndatabase = \"{database}\"\nnodes = [\"{address}\"]\n").unwrap();
        }
        shards.push_str(&options.tables);
        fs::write(self.directory.join("shards.toml"), shards).expect("write shards.toml");
        let router = format!(
            "[listen]\naddress = \"127.0.0.1:{}\"\n[[user]]\nname = \"{USER}\"\npassword = \"{PASSWORD}\"\n\
             [backend]\nuser = \"postgres\"\n{}",
            self.port, options.settings
        );
        fs::write(self.directory.join("pgring.toml"), router).expect("write pgring.toml");
    }

    /// Declares a shard more, on the next server, with a database that has `schema`: routers that start or reload after
    /// this know of it.
    pub fn declare_shard(&mut self, schema: &str) {
        let (shard, node) = (self.shards, self.create_shard(schema));
        let path = self.directory.join("shards.toml");
        let mut map = fs::read_to_string(&path).expect("read shards.toml");
        let database = &self.database;
        write!(
            map,
            "[[shard]]\nname = \"s{shard}\"\ndatabase = \"{database}\"\nnodes = [\"{node}\"]\n"
        )
        .unwrap();
        fs::write(path, map).expect("write shards.toml");
    }

    /// Only makes its database; gives the address of its server.
    pub fn create_shard(&mut self, schema: &str) -> String {
        let shard = self.shards;
        self.create(shard, &self.database, schema);
        self.shards += 1;
        self.node(shard)
    }

    /// The address of a shard's server.
    pub fn node(&self, shard: usize) -> String {
        let folder = self.sandbox.socket_directory(shard).display();
        format!("{folder}:{}", self.sandbox.port(shard))
    }

    /// The name of its database on each shard.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The folder with the configuration.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs a subcommand on the deployment's configuration; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn pgring(&self, arguments: &[&str]) -> String {
        let (success, said, complained) = self.run(arguments);
        assert!(success, "pgring {arguments:?}:\n{said}{complained}");
        said
    }

    /// Runs a subcommand that must fail; returns what it complained of.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str]) -> String {
        let (success, said, complained) = self.run(arguments);
        assert!(!success, "pgring {arguments:?}:\n{said}{complained}");
        complained
    }

    fn run(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = Command::new(PGRING)
            .arg(arguments[0])
            .arg("-c")
            .arg(&self.directory)
            .args(&arguments[1..])
            .stdin(Stdio::null())
            .output()
            .expect("run pgring");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        if std::env::var_os("PGRING_LOG").is_some() {
            eprint!("{complained}");
        }
        (output.status.success(), said, complained)
    }

    /// Another router over the same shards on a port of its own. It ends when dropped.
    pub fn another_router(&self) -> Router {
        let first = self.router.is_none();
        let port = if first { self.port } else { free_port() };
        let mut directory = self.directory.clone();
        if !first {
            directory = self
                .sandbox
                .directory()
                .join(format!("config-{}-{port}", self.database));
            fs::create_dir(&directory).expect("make the folder of the configuration");
            fs::copy(
                self.directory.join("shards.toml"),
                directory.join("shards.toml"),
            )
            .expect("copy shards.toml");
            let text =
                fs::read_to_string(self.directory.join("pgring.toml")).expect("read pgring.toml");
            let text = text.replace(
                &format!("127.0.0.1:{}", self.port),
                &format!("127.0.0.1:{port}"),
            );
            fs::write(directory.join("pgring.toml"), text).expect("write pgring.toml");
        }
        Router::start_under(&self.under, &directory, port)
    }

    /// The router.
    #[track_caller]
    pub fn router(&mut self) -> &mut Router {
        self.router.as_mut().expect("a deployment with a router")
    }

    /// Gives up the databases but keeps the router and its configuration: for tests that stop servers.
    pub fn into_router(mut self) -> Option<Router> {
        self.shards = 0;
        self.router.take()
    }

    /// Changes the shard map's file by `edit`, and asks the router to load it; waits until it has, or has refused: gives
    /// what it said.
    pub fn reload(&mut self, edit: impl Fn(String) -> String) -> String {
        let path = self.directory.join("shards.toml");
        let map = fs::read_to_string(&path).expect("read shards.toml");
        fs::write(path, edit(map)).expect("write shards.toml");
        self.router().reload()
    }

    /// Kills the router (kill -9) and starts it again on the same port.
    pub fn kill_and_restart(&mut self) {
        self.router = None;
        self.router = Some(self.another_router());
    }

    /// The servers below.
    pub fn sandbox(&self) -> &Sandbox {
        self.sandbox
    }

    /// Where clients log in to the router.
    pub fn target(&self) -> Target {
        target(self.port)
    }

    /// A client of the router.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.target().connect()
    }

    /// The database on a single PostgreSQL.
    pub fn one(&self) -> Target {
        cluster::direct(self.sandbox, 0, &format!("{}_one", self.database))
    }

    /// The superuser on one shard, past the router.
    pub fn shard(&self, shard: usize) -> Client {
        cluster::superuser(self.sandbox, shard, &self.database).connect()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The value of `sql` on each shard, past the router.
    #[track_caller]
    pub fn on_each_shard(&self, sql: &str) -> Vec<String> {
        (0..self.shards)
            .map(|shard| self.shard(shard).value(sql))
            .collect()
    }

    /// The shards on which `sql` (a count) is not zero.
    #[track_caller]
    pub fn shards_with(&self, sql: &str) -> Vec<usize> {
        let counts = self.on_each_shard(sql);
        (0..self.shards)
            .filter(|shard| counts[*shard] != "0")
            .collect()
    }

    /// Prepared transactions of all shards that are not settled yet: their names.
    pub fn prepared(&self) -> Vec<String> {
        let sql =
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid";
        (0..self.shards)
            .flat_map(|shard| self.shard(shard).column(sql))
            .collect()
    }

    /// The same, logged in to a shard as its superuser.
    pub fn shard_program(&self, shard: usize, name: &str) -> Command {
        let target = cluster::direct(self.sandbox, shard, &self.database);
        cluster::program(self.sandbox, name, &target)
    }

    /// A PostgreSQL program such as `psql` or `pgbench`, logged in through the router.
    pub fn program(&self, name: &str) -> Command {
        cluster::program(self.sandbox, name, &self.target())
    }
}

impl Drop for Deployment<'_> {
    fn drop(&mut self) {
        if let (Some(router), true) = (&self.router, std::thread::panicking()) {
            eprintln!("the router's log:\n{}", router.log());
        }
        self.router = None;
        // Only to keep the disk small: the servers go away with the process. So failures do not matter.
        for server in 0..self.shards {
            if let Ok(mut client) = cluster::superuser(self.sandbox, server, "postgres").login(&[])
            {
                client.simple(&format!(
                    "DROP DATABASE IF EXISTS {} WITH (FORCE)",
                    self.database
                ));
                if server == 0 {
                    client.simple(&format!(
                        "DROP DATABASE IF EXISTS {}_one WITH (FORCE)",
                        self.database
                    ));
                }
            }
        }
    }
}

fn target(port: u16) -> Target {
    Target {
        host: "127.0.0.1".into(),
        port,
        user: USER.into(),
        password: PASSWORD.into(),
        database: DATABASE.into(),
    }
}

/// Lets a transaction decide on `decider`, where `other` prepares: what the prepared part is called.
pub fn decide(client: &mut Client, decider: &str, other: &str) -> String {
    let xid = client.value("SELECT pg_current_xact_id()");
    client.run(&format!("SELECT pgring.decide(10, '{{{other}}}')"));
    format!("pgring:{CLUSTER}:{decider}:000000000000000a:{xid}:1")
}

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    listener.local_addr().expect("an address").port()
}

/// A running router. Dropping it is kill -9.
pub struct Router {
    process: Guarded,
    port: u16,
    log: PathBuf,
}

/// How long a router may take until clients can log in.
const START_LIMIT: Duration = Duration::from_secs(20);

impl Router {
    /// Starts `pgring serve` on the configuration in `directory` and waits until it serves.
    #[track_caller]
    pub fn start(directory: &Path, port: u16) -> Self {
        Self::start_under(&[], directory, port)
    }

    /// [`Self::start`] with the words of another program before it.
    #[track_caller]
    fn start_under(under: &[String], directory: &Path, port: u16) -> Self {
        let mut router = Self::spawn_under(under, directory, port);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let Err(failure) = target(port).login(&[]) else {
                return router;
            };
            if !router.is_running() || Instant::now() > deadline {
                panic!("the router does not serve: {failure}\n{}", router.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it without waiting.
    pub fn spawn(directory: &Path, port: u16) -> Self {
        Self::spawn_under(&[], directory, port)
    }

    fn spawn_under(under: &[String], directory: &Path, port: u16) -> Self {
        let log = directory.join("log");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("open the router's log");
        let mut words = under.iter().map(String::as_str).chain([PGRING]);
        let mut command = Command::new(words.next().unwrap_or(PGRING));
        command
            .args(words)
            .args(["serve", "-c"])
            .arg(directory)
            .stdin(Stdio::null());
        command.env(
            "RUST_LOG",
            std::env::var("PGRING_TEST_LOG").unwrap_or_else(|_| "info".into()),
        );
        command
            .stdout(file.try_clone().expect("share the router's log"))
            .stderr(file);
        Self {
            process: Guarded::spawn(&mut command),
            port,
            log,
        }
    }

    /// The folder with its configuration.
    pub fn directory(&self) -> &Path {
        self.log.parent().unwrap_or(&self.log)
    }

    /// Where clients log in.
    pub fn target(&self) -> Target {
        target(self.port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Gives the router the shard map that `deployment` has now, to be loaded.
    pub fn declare_as(&self, deployment: &Deployment<'_>) {
        let map = deployment.directory.join("shards.toml");
        fs::copy(map, self.log.with_file_name("shards.toml")).expect("copy shards.toml");
    }

    /// Sends SIGHUP and waits for the answer in the log.
    #[track_caller]
    pub fn reload(&self) -> String {
        let said = |log: &str| {
            let lines = log.lines();
            let lines = lines.filter(|line| line.contains("the shard map "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = said(&self.log()).len();
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status();
        assert!(sent.expect("run kill").success());
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(line) = said(&self.log()).get(before) {
                return line.clone();
            }
            assert!(
                Instant::now() < deadline,
                "no answer to SIGHUP\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the process is alive.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kill -9, and wait until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

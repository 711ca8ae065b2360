//! Owns throw-away PostgreSQL clusters: started in one folder, gone with all their processes when the [`Sandbox`]
//! is dropped or its owner dies, even by kill -9. Knows nothing of routers or shard maps: the demo and the tests
//! build theirs on top. Blocking std only, so that any test can use it.

use super::programs::{Programs, ProgramsError};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// The superuser of each cluster; it logs in over the Unix socket without a password.
pub const SUPERUSER: &str = "postgres";

/// The port of clusters that listen on a Unix socket only.
const SOCKET_ONLY_PORT: u16 = 5432;
/// The port of a cluster that is yet to be given one.
const NO_PORT: u16 = 0;
/// What `sockaddr_un` holds: 108 bytes on Linux, 104 on macOS and the BSDs, with the final zero.
const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// How long a cluster may take until it accepts connections, or until it is gone.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
const START_ATTEMPTS_MAX: usize = 5;

/// Durable enough for a crash of PostgreSQL, not for one of the machine; and ready for two-phase commits and
/// logical replication. Dynamic shared memory in files of the data folder: nothing is left in /dev/shm by a kill -9.
const SETTINGS: [(&str, &str); 11] = [
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "logical"),
    ("max_prepared_transactions", "64"),
    ("max_connections", "200"),
    ("shared_buffers", "32MB"),
    ("max_wal_size", "256MB"),
    ("dynamic_shared_memory_type", "mmap"),
    ("log_min_messages", "warning"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("autovacuum_naptime", "10s"),
];

/// What to start.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// How many clusters; at least one.
    pub clusters: usize,
    /// Where; it must be missing or empty and is removed at the end. By default a new folder for temporary files.
    pub directory: Option<PathBuf>,
    /// Whether the clusters also listen on a free port of 127.0.0.1 (otherwise on Unix sockets only).
    pub listen_tcp: bool,
    /// Arguments of `initdb`: encoding, locale and its provider.
    pub initdb_arguments: Vec<String>,
    /// Lines for `postgresql.conf`, over the sandbox's own: name and value, unquoted.
    pub settings: Vec<(String, String)>,
    /// Roles that are created with LOGIN and a password, name first.
    pub users: Vec<(String, String)>,
    /// Whether roles other than [`SUPERUSER`] must give a password (SCRAM-SHA-256); otherwise nobody does. The
    /// superuser must, too, over TCP, where it has none.
    pub scram: bool,
}

impl Default for SandboxOptions {
    /// One cluster on a Unix socket, UTF-8 and C locale, nobody asked for a password.
    fn default() -> Self {
        Self {
            clusters: 1,
            directory: None,
            listen_tcp: false,
            initdb_arguments: ["--encoding=UTF8", "--locale=C"]
                .map(str::to_owned)
                .to_vec(),
            settings: Vec::new(),
            users: Vec::new(),
            scram: false,
        }
    }
}

/// Why clusters could not be started, stopped or watched.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No PostgreSQL on this machine.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The given folder holds something.
    #[error("the folder {} is not empty: throw-away clusters need one of their own", .0.display())]
    NotEmpty(PathBuf),
    /// The given folder's path does not fit into a socket's address.
    #[error("the path {} is too long for a Unix socket below it: use a shorter one", .0.display())]
    TooLong(PathBuf),
    /// A program of PostgreSQL failed.
    #[error("{program} failed ({status}):\n{said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        said: String,
    },
    /// A cluster did not come up, or did not end, in time.
    #[error("cluster {cluster} {what}; the end of its log:\n{log}")]
    Cluster {
        /// Its index.
        cluster: usize,
        /// What it did instead.
        what: &'static str,
        /// The end of its log.
        log: String,
    },
    /// A folder, file or process could not be made.
    #[error("{what} failed: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why.
        source: io::Error,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> SandboxError {
    let what = what.into();
    move |source| SandboxError::Io { what, source }
}

/// Running throw-away clusters. Dropping it stops them (at once, as in a crash) and removes their folder.
#[derive(Debug)]
pub struct Sandbox {
    directory: PathBuf,
    programs: Programs,
    user: Option<User>,
    clusters: Vec<Cluster>,
    // Last: it removes the folder that the clusters live in.
    watchdog: Watchdog,
}

#[derive(Debug)]
struct Cluster {
    directory: PathBuf,
    listen_tcp: bool,
    port: u16,
    postmaster: Option<Child>,
}

impl Sandbox {
    /// Starts the clusters and waits until all accept connections. PostgreSQL refuses to run as root: then the
    /// clusters run as `postgres` or `nobody`.
    ///
    /// # Errors
    /// See [`SandboxError`]. Nothing is left behind.
    pub fn start(options: SandboxOptions) -> Result<Self, SandboxError> {
        let programs = Programs::find_or_install()?;
        let user = if geteuid().is_root() {
            User::without_privileges()
        } else {
            None
        };
        let directory = make_directory(options.directory.as_deref())?;
        let watchdog = Watchdog::start(&directory)?;
        let mut sandbox = Self {
            directory,
            programs,
            user,
            clusters: Vec::new(),
            watchdog,
        };
        if let Some(User { uid, gid }) = user {
            chown(&sandbox.directory, Some(uid), Some(gid))
                .map_err(io_error("giving away the sandbox's folder"))?;
        }
        for index in 0..options.clusters.max(1) {
            let directory = sandbox.directory.join(format!("s{index}"));
            sandbox.clusters.push(Cluster {
                directory,
                listen_tcp: options.listen_tcp,
                port: if options.listen_tcp {
                    NO_PORT
                } else {
                    SOCKET_ONLY_PORT
                },
                postmaster: None,
            });
        }
        sandbox.make_data(&options)?;
        for index in 0..sandbox.clusters.len() {
            sandbox.spawn(index)?;
        }
        for index in 0..sandbox.clusters.len() {
            sandbox.finish_start(index)?;
        }
        Ok(sandbox)
    }

    /// How many clusters there are, running or not.
    pub fn clusters(&self) -> usize {
        self.clusters.len()
    }

    /// The folder of everything.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// PostgreSQL's programs that the clusters run.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The folder of a cluster's Unix socket: the `host` of a connection string.
    pub fn socket_directory(&self, cluster: usize) -> &Path {
        &self.clusters[cluster].directory
    }

    /// A cluster's port, of its Unix socket and over TCP; it stays the same over stop and start.
    pub fn port(&self, cluster: usize) -> u16 {
        self.clusters[cluster].port
    }

    /// Where a cluster listens, as a shard map names it: `127.0.0.1:port`, or `/socket/directory:port`.
    pub fn address(&self, cluster: usize) -> String {
        let Cluster {
            directory,
            listen_tcp,
            port,
            ..
        } = &self.clusters[cluster];
        if *listen_tcp {
            format!("127.0.0.1:{port}")
        } else {
            format!("{}:{port}", directory.display())
        }
    }

    /// A connection string (keyword = value) for the superuser over the Unix socket.
    pub fn superuser_dsn(&self, cluster: usize, database: &str) -> String {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let Cluster {
            directory, port, ..
        } = &self.clusters[cluster];
        let directory = directory.to_string_lossy();
        format!(
            "host='{}' port={port} user={SUPERUSER} dbname='{}'",
            quote(&directory),
            quote(database)
        )
    }

    /// The postmaster's process id; `None` while stopped.
    pub fn pid(&self, cluster: usize) -> Option<u32> {
        self.clusters[cluster].postmaster.as_ref().map(Child::id)
    }

    /// All that a cluster has logged.
    pub fn log(&self, cluster: usize) -> String {
        let bytes = fs::read(self.clusters[cluster].log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Stops a cluster in order: sessions are ended, a checkpoint is written. No effect on a stopped one.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self, cluster: usize) -> Result<(), SandboxError> {
        self.end(cluster, Signal::INT)
    }

    /// Kills a cluster's postmaster with kill -9, as if its machine had died; its other processes end at once by
    /// themselves. No effect on a stopped one.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn kill(&mut self, cluster: usize) -> Result<(), SandboxError> {
        self.end(cluster, Signal::KILL)
    }

    /// Starts a stopped cluster on the same port and waits until it accepts connections. No effect on a running one.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub fn start_again(&mut self, cluster: usize) -> Result<(), SandboxError> {
        if self.clusters[cluster].postmaster.is_none() {
            self.spawn(cluster)?;
            self.finish_start(cluster)?;
        }
        Ok(())
    }

    /// Makes one data folder and copies it for the others, which takes a tenth of the time.
    fn make_data(&mut self, options: &SandboxOptions) -> Result<(), SandboxError> {
        let (first, others) = self.clusters.split_first().expect("at least one cluster");
        let mut initdb = self.command("initdb");
        initdb
            .args(["--no-sync", "--auth=trust", "-U", SUPERUSER])
            .args(&options.initdb_arguments);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&first.directory)
            .map_err(io_error("making a cluster's folder"))?;
        self.give(&first.directory)?;
        run("initdb", initdb.arg("-D").arg(first.data()), "")?;

        let lines: Vec<String> = SETTINGS
            .iter()
            .map(|(name, value)| (*name, *value))
            .chain(
                options
                    .settings
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            )
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        append(&first.data().join("postgresql.conf"), &lines.concat())?;
        let others_by = if options.scram {
            "scram-sha-256"
        } else {
            "trust"
        };
        let rules = format!(
            "local all {SUPERUSER} trust\nlocal all all {others_by}\nhost all all 127.0.0.1/32 {others_by}\n\
             local replication {SUPERUSER} trust\nhost replication all 127.0.0.1/32 {others_by}\n"
        );
        let hba = first.data().join("pg_hba.conf");
        fs::write(&hba, rules).map_err(io_error("writing pg_hba.conf"))?;
        if !options.users.is_empty() {
            let identifier = |name: &str| name.replace('"', "\"\"");
            let literal = |text: &str| text.replace('\'', "''");
            let create = |(name, password): &(String, String)| {
                format!(
                    "CREATE ROLE \"{}\" LOGIN PASSWORD '{}';\n\n",
                    identifier(name),
                    literal(password)
                )
            };
            let statements: Vec<String> = options.users.iter().map(create).collect();
            let mut single = self.command("postgres");
            single
                .args(["--single", "-j", "-c", "log_min_messages=error", "-D"])
                .arg(first.data())
                .arg("postgres");
            // With -j a statement ends at a semicolon and an empty line.
            run("postgres --single", &mut single, &statements.concat())?;
        }
        for other in others {
            let mut copy = Command::new("cp");
            self.as_user(&mut copy);
            run(
                "cp",
                copy.arg("-Rp").arg(&first.directory).arg(&other.directory),
                "",
            )?;
        }
        Ok(())
    }

    fn spawn(&mut self, index: usize) -> Result<(), SandboxError> {
        let mut command = self.command("postgres");
        let cluster = &mut self.clusters[index];
        if cluster.port == NO_PORT {
            cluster.port = free_port().map_err(io_error("looking for a free port"))?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(cluster.log())
            .map_err(io_error("opening a cluster's log"))?;
        let errors = log
            .try_clone()
            .map_err(io_error("opening a cluster's log"))?;
        command
            .arg("-D")
            .arg(cluster.data())
            .args(["-p", &cluster.port.to_string()])
            .arg("-k")
            .arg(&cluster.directory)
            .args(["-h", if cluster.listen_tcp { "127.0.0.1" } else { "" }])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        cluster.postmaster = Some(command.spawn().map_err(io_error("starting postgres"))?);
        self.tell_watchdog()
    }

    /// Waits until a spawned cluster is ready; tries again where a port was taken in between, or where processes
    /// of a killed predecessor still hold its shared memory.
    fn finish_start(&mut self, index: usize) -> Result<(), SandboxError> {
        let deadline = Instant::now() + PATIENCE;
        for _ in 1..START_ATTEMPTS_MAX {
            if self.clusters[index].is_ready_by(deadline)? {
                return Ok(());
            }
            let log = self.clusters[index].log_end();
            let transient = [
                "pre-existing shared memory",
                "could not bind",
                "is another postmaster",
            ];
            if !transient.iter().any(|text| log.contains(text)) {
                break;
            }
            if log.contains("could not bind")
                && !self.clusters[index].data().join("postmaster.opts").exists()
            {
                self.clusters[index].port = NO_PORT;
            }
            std::thread::sleep(20 * POLL);
            self.spawn(index)?;
        }
        if self.clusters[index].is_ready_by(deadline)? {
            Ok(())
        } else {
            Err(self.failed(index, "did not start"))
        }
    }

    fn end(&mut self, index: usize, signal: Signal) -> Result<(), SandboxError> {
        let Some(postmaster) = &mut self.clusters[index].postmaster else {
            return Ok(());
        };
        kill_process(Pid::from_child(postmaster), signal)
            .map_err(|error| io_error("stopping postgres")(error.into()))?;
        let deadline = Instant::now() + PATIENCE;
        while postmaster
            .try_wait()
            .map_err(io_error("waiting for postgres"))?
            .is_none()
        {
            if Instant::now() > deadline {
                return Err(self.failed(index, "did not stop"));
            }
            std::thread::sleep(POLL);
        }
        self.clusters[index].postmaster = None;
        self.tell_watchdog()
    }

    fn failed(&self, index: usize, what: &'static str) -> SandboxError {
        SandboxError::Cluster {
            cluster: index,
            what,
            log: self.clusters[index].log_end(),
        }
    }

    fn tell_watchdog(&mut self) -> Result<(), SandboxError> {
        let postmasters = self
            .clusters
            .iter()
            .filter_map(|cluster| cluster.postmaster.as_ref())
            .map(Child::id);
        let pids: Vec<String> = postmasters.map(|pid| pid.to_string()).collect();
        self.watchdog
            .watch(&pids.join(" "))
            .map_err(io_error("telling the watchdog"))
    }

    /// A program of PostgreSQL, run by the clusters' user, untouched by the caller's environment and terminal.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.path(program));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
        {
            command.env_remove(name);
        }
        self.as_user(&mut command);
        command
    }

    fn as_user(&self, command: &mut Command) {
        // A process group of its own: Ctrl-C on the terminal is for us to handle.
        command
            .current_dir(&self.directory)
            .env("LC_ALL", "C")
            .process_group(0);
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
    }

    fn give(&self, path: &Path) -> Result<(), SandboxError> {
        match self.user {
            Some(User { uid, gid }) => chown(path, Some(uid), Some(gid))
                .map_err(io_error("giving away a cluster's folder")),
            None => Ok(()),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.watchdog.release();
        for cluster in &mut self.clusters {
            if let Some(postmaster) = &mut cluster.postmaster {
                // The watchdog ends it, by force if need be; here it is only reaped.
                let _ = postmaster.wait();
            }
        }
        self.watchdog.wait();
    }
}

impl Cluster {
    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn log_end(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Whether it accepts connections (true) or ended (false), as soon as one of them is so.
    fn is_ready_by(&mut self, deadline: Instant) -> Result<bool, SandboxError> {
        let Some(postmaster) = &mut self.postmaster else {
            return Ok(false);
        };
        let pid = postmaster.id().to_string();
        let file = self.directory.join("data/postmaster.pid");
        while Instant::now() < deadline {
            if postmaster
                .try_wait()
                .map_err(io_error("waiting for postgres"))?
                .is_some()
            {
                self.postmaster = None;
                return Ok(false);
            }
            // As pg_ctl does: the first line is the pid, the eighth the state.
            let lines = fs::read_to_string(&file).unwrap_or_default();
            let mut lines = lines.lines().map(str::trim);
            if lines.next() == Some(pid.as_str()) && lines.nth(6) == Some("ready") {
                return Ok(true);
            }
            std::thread::sleep(POLL);
        }
        Ok(false)
    }
}

/// A tiny shell that waits on a pipe which only we can write to. When we close it, or die, it stops the postmasters
/// that were named last and removes the folder.
#[derive(Debug)]
struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

/// A postmaster that was killed leaves its small System V segment behind; its number is in line 7 of postmaster.pid.
const WATCHDOG: &str = r#"
trap '' HUP INT QUIT TERM
pids=
while read -r line; do pids=$line; done
for pid in $pids; do kill -QUIT "$pid" 2>/dev/null; done
for pid in $pids; do
  tries=0
  while kill -0 "$pid" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -eq 100 ] && kill -KILL "$pid" 2>/dev/null
    [ "$tries" -gt 150 ] && break
    sleep 0.05
  done
done
for file in "$1"/*/data/postmaster.pid; do
  [ -f "$file" ] || continue
  segment=$(sed -n '7s/.* //p' "$file")
  [ -n "$segment" ] && ipcrm -m "$segment" 2>/dev/null
done
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"#;

impl Watchdog {
    fn start(directory: &Path) -> Result<Self, SandboxError> {
        let mut command = Command::new("sh");
        command
            .args(["-c", WATCHDOG, "pgring-watchdog"])
            .arg(directory)
            .current_dir("/")
            .process_group(0);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = command.spawn().map_err(io_error("starting the watchdog"));
        if started.is_err() {
            let _ = fs::remove_dir(directory);
        }
        let mut shell = started?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    fn watch(&mut self, pids: &str) -> io::Result<()> {
        match &mut self.pipe {
            Some(pipe) => writeln!(pipe, "{pids}"),
            None => Ok(()),
        }
    }

    fn release(&mut self) {
        self.pipe = None;
    }

    fn wait(&mut self) {
        // Nothing can be done about a failure in a drop, and the shell works on without us.
        let _ = self.shell.wait();
    }
}

#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn without_privileges() -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::named(name, &users))
    }

    fn named(name: &str, users: &str) -> Option<Self> {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2);
        Some(Self {
            uid: numbers.next()?.parse().ok()?,
            gid: numbers.next()?.parse().ok()?,
        })
    }
}

fn make_directory(wanted: Option<&Path>) -> Result<PathBuf, SandboxError> {
    let fits = |directory: &Path| {
        directory.as_os_str().len() + "/s999/.s.PGSQL.65535".len() <= SOCKET_PATH_BYTES_MAX
    };
    let Some(wanted) = wanted else {
        let temporary = std::env::temp_dir();
        let name = format!("pgring-{:08x}", random()?);
        let directory = if fits(&temporary.join(&name)) {
            temporary.join(name)
        } else {
            Path::new("/tmp").join(name)
        };
        let made = fs::DirBuilder::new().mode(0o700).create(&directory);
        made.map_err(io_error(format!(
            "making the folder {}",
            directory.display()
        )))?;
        return Ok(directory);
    };
    let directory =
        std::path::absolute(wanted).map_err(io_error(format!("finding {}", wanted.display())))?;
    if !fits(&directory) {
        return Err(SandboxError::TooLong(directory));
    }
    let made = fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&directory);
    made.map_err(io_error(format!(
        "making the folder {}",
        directory.display()
    )))?;
    let mut entries = fs::read_dir(&directory).map_err(io_error(format!(
        "reading the folder {}",
        directory.display()
    )))?;
    if entries.next().is_some() {
        return Err(SandboxError::NotEmpty(directory));
    }
    Ok(directory)
}

fn random() -> Result<u32, SandboxError> {
    getrandom::u32().map_err(|error| io_error("drawing a random name")(io::Error::other(error)))
}

fn free_port() -> io::Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()
        .map(|address| address.port())
}

fn append(file: &Path, text: &str) -> Result<(), SandboxError> {
    let written = File::options()
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(io_error(format!("writing {}", file.display())))
}

fn run(program: &'static str, command: &mut Command, input: &str) -> Result<(), SandboxError> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(io_error(format!("starting {program}")))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends before it has read everything says why itself.
        let _ = pipe.write_all(input.as_bytes());
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child
        .wait_with_output()
        .map_err(io_error(format!("running {program}")))?;
    if status.success() {
        return Ok(());
    }
    let said = [stdout, stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        .join("\n");
    Err(SandboxError::Program {
        program,
        status,
        said: said.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_in_passwd_by_its_whole_name() {
        let users = "root:x:0:0::/root:/bin/sh\npostgresql:x:7:8::/:/bin/sh\npostgres:x:101:104:,,,:/:/bin/sh\n";
        let user = User::named("postgres", users).unwrap();
        assert_eq!((user.uid, user.gid), (101, 104));
        assert!(User::named("nobody", users).is_none());
    }

    #[test]
    fn a_folder_that_holds_something_is_refused_and_kept() {
        let directory = make_directory(None).unwrap();
        fs::write(directory.join("precious"), "1").unwrap();
        let refused = make_directory(Some(&directory));
        let kept = fs::read_to_string(directory.join("precious"));
        fs::remove_dir_all(&directory).unwrap();
        assert!(matches!(refused, Err(SandboxError::NotEmpty(_))));
        assert_eq!(kept.unwrap(), "1");
    }

    #[test]
    fn a_folder_that_is_too_long_for_a_socket_is_refused() {
        let long = Path::new("/tmp").join("x".repeat(90));
        assert!(matches!(
            make_directory(Some(&long)),
            Err(SandboxError::TooLong(_))
        ));
        assert!(!long.exists());
    }

    #[test]
    fn the_watchdog_ends_what_it_watches_and_removes_the_folder() {
        let directory = make_directory(None).unwrap();
        let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
        let mut watchdog = Watchdog::start(&directory).unwrap();
        watchdog.watch("").unwrap();
        watchdog.watch(&sleeper.id().to_string()).unwrap();
        assert!(directory.exists());
        watchdog.release();
        let status = sleeper.wait().unwrap();
        watchdog.wait();
        assert!(!status.success() && !directory.exists());
    }
}

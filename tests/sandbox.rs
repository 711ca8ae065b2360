//! Throw-away clusters start, stop and vanish, also when their owner is killed.

use pgring::cli::sandbox::{Sandbox, SandboxOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// In the environment: play the owner that gets killed.
const OWNER: &str = "PGRING_TEST_SANDBOX_OWNER";

fn ask(sandbox: &Sandbox, cluster: usize, sql: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dsn = sandbox.superuser_dsn(cluster, "postgres");
        let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let messages = client
            .simple_query(sql)
            .await
            .map_err(|error| error.to_string())?;
        let row = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(row.unwrap_or_default())
    })
}

fn is_running(pid: u32) -> bool {
    // A zombie has ended: it waits for a parent that is gone.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn clusters_stop_start_again_and_leave_nothing() {
    let users = vec![("it's \"app\"".to_owned(), "pass'word".to_owned())];
    let options = SandboxOptions {
        clusters: 2,
        users,
        settings: vec![("work_mem".into(), "7MB".into())],
        ..Default::default()
    };
    let mut sandbox = Sandbox::start(options).unwrap();
    assert_eq!(ask(&sandbox, 0, "SHOW work_mem").unwrap(), "7MB");
    assert_eq!(
        ask(
            &sandbox,
            1,
            "SELECT rolname FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256%'"
        )
        .unwrap(),
        "it's \"app\""
    );
    ask(&sandbox, 0, "CREATE TABLE kept AS SELECT 42 AS n").unwrap();

    sandbox.stop(0).unwrap();
    assert!(ask(&sandbox, 0, "SELECT 1").is_err());
    assert_eq!(ask(&sandbox, 1, "SELECT 1").unwrap(), "1");
    sandbox.start_again(0).unwrap();
    assert_eq!(ask(&sandbox, 0, "SELECT n FROM kept").unwrap(), "42");
    sandbox.kill(0).unwrap();
    assert_eq!(sandbox.pid(0), None);
    sandbox.start_again(0).unwrap();
    assert_eq!(ask(&sandbox, 0, "SELECT n FROM kept").unwrap(), "42");

    let pids = [0, 1].map(|cluster| sandbox.pid(cluster).unwrap());
    let directory = sandbox.directory().to_owned();
    drop(sandbox);
    assert!(!directory.exists());
    assert!(pids.iter().all(|pid| !is_running(*pid)));
}

#[test]
fn passwords_are_asked_for_over_tcp() {
    let users = vec![("app".to_owned(), "secret".to_owned())];
    let options = SandboxOptions {
        listen_tcp: true,
        scram: true,
        users,
        ..Default::default()
    };
    let sandbox = Sandbox::start(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let login = |user: &str, password: &str| {
        let dsn = format!(
            "host=127.0.0.1 port={} user={user} password={password} dbname=postgres",
            sandbox.port(0)
        );
        runtime.block_on(async {
            tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
                .await
                .map(|_| ())
        })
    };
    assert!(sandbox.address(0).starts_with("127.0.0.1:"));
    login("app", "secret").unwrap();
    login("app", "wrong").unwrap_err();
    login("postgres", "secret").unwrap_err();
}

#[test]
fn nothing_is_left_when_the_owner_is_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_owner_waits_to_be_killed", "--nocapture"])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("sandbox ")?.1.to_owned()))
        .unwrap();
    let (pid, directory) = line.split_once(' ').unwrap();
    let (pid, directory): (u32, PathBuf) = (pid.parse().unwrap(), directory.into());
    assert!(is_running(pid) && directory.exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("the postmaster ends", || !is_running(pid));
    wait_until("the folder goes", || !Path::new(&directory).exists());
}

#[test]
fn an_owner_waits_to_be_killed() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let sandbox = Sandbox::start(SandboxOptions::default()).unwrap();
    println!(
        "sandbox {} {}",
        sandbox.pid(0).unwrap(),
        sandbox.directory().display()
    );
    std::thread::sleep(Duration::from_secs(600));
}

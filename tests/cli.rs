//! The program as people run it: each subcommand's output, exit code and what it leaves behind.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn pgring(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgring"));
    command
        .args(arguments)
        .env_remove("PGRING_CONFIG")
        .env_remove("PGRING_LOG")
        .stdin(Stdio::null());
    command
}

/// Exit code, stdout, stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = pgring(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A running demo; killed when dropped, and then its watchdog cleans up.
struct Demo {
    process: Child,
    address: String,
    directory: PathBuf,
}

impl Demo {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let directory = std::env::temp_dir().join(format!("demo-{}", std::process::id()));
        let arguments = [
            "demo",
            "--shards",
            "2",
            "--port",
            &port.to_string(),
            "--dir",
            directory.to_str().unwrap(),
        ];
        let mut process = pgring(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Some(address) = line.trim_end().strip_prefix("ready: psql ") else {
            let mut stderr = String::new();
            let _ = process.kill();
            process
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut stderr)
                .unwrap();
            panic!("the demo said {line:?} and {stderr}");
        };
        assert_eq!(
            address,
            format!("postgresql://app:app@127.0.0.1:{port}/shop")
        );
        Self {
            address: address.to_owned(),
            process,
            directory,
        }
    }

    fn map(&self) -> String {
        self.directory
            .join("shard-config")
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn terminate(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut stderr = String::new();
        self.process
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert!(self.process.wait().unwrap().success(), "{stderr}");
        stderr
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ask(address: &str, statements: &[&str]) -> Vec<Result<Vec<String>, tokio_postgres::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(address, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut answers = Vec::new();
        for statement in statements {
            let rows = client.simple_query(statement).await.map(|messages| {
                let rows = messages.iter().filter_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                rows.collect()
            });
            answers.push(rows);
        }
        answers
    })
}

#[test]
fn the_demo_shows_a_sharded_database_and_vanishes() {
    let demo = Demo::start();
    let map = demo.map();
    let largest: Vec<String> = {
        let statements = [
            "SELECT c_name FROM customer WHERE c_custkey = 42",
            "SELECT o_orderkey FROM orders ORDER BY o_orderkey DESC LIMIT 3",
            "UPDATE orders SET o_orderkey = 8 WHERE o_orderkey = 7",
            "SELECT l_linenumber FROM lineitem ORDER BY l_orderkey, l_linenumber LIMIT 1 OFFSET 60174",
            "SELECT l_linenumber FROM lineitem ORDER BY l_orderkey, l_linenumber LIMIT 1 OFFSET 60175",
            "EXPLAIN SELECT * FROM orders JOIN lineitem ON l_orderkey = o_orderkey WHERE o_orderkey = 7",
        ];
        let mut answers = ask(&demo.address, &statements);
        let explained = answers.pop().unwrap().unwrap();
        assert!(explained[0].contains("single shard on s"), "{explained:?}");
        assert_eq!(answers.pop().unwrap().unwrap(), [""; 0]);
        assert_eq!(answers.pop().unwrap().unwrap().len(), 1);
        let refusal = answers.pop().unwrap().unwrap_err();
        let refusal = refusal.as_db_error().unwrap();
        assert_eq!(
            (refusal.code().code(), refusal.detail()),
            ("0A000", Some("refusal: key-update"))
        );
        assert!(refusal.hint().is_some());
        let largest = answers.pop().unwrap().unwrap();
        assert_eq!(answers.pop().unwrap().unwrap(), ["Customer#000000042"]);
        largest
    };
    assert_eq!(largest, ["60000", "59975", "59974"]);

    let (code, stdout, stderr) = run(&["check", "--online", "-c", &map]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(
        stdout.contains("public.orders    by o_orderkey")
            && stdout.contains("the shards are as they must be"),
        "{stdout}"
    );

    let (code, _, stderr) = run(&["init", "-c", &map]);
    assert!(
        code == 1 && stderr.contains("belongs to a cluster already"),
        "{stderr}"
    );

    let (code, stdout, _) = run(&[
        "explain",
        "-c",
        &map,
        "SELECT * FROM orders WHERE o_orderkey = 7; COPY orders FROM STDIN",
    ]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains("single shard on s")
            && stdout.contains("each row to the shard of its o_orderkey"),
        "{stdout}"
    );
    let refused = "UPDATE orders SET o_orderkey = 8 WHERE o_orderkey = 7";
    let (code, stdout, stderr) = run(&["explain", "-c", &map, refused]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.contains("0A000")
            && stderr.contains("refusal: key-update")
            && stderr.contains("hint: "),
        "{stderr}"
    );

    // A shard that differs is named, with the table.
    let node = format!(
        "host={} port=5432 user=postgres dbname=shop",
        demo.directory.join("s1").display()
    );
    ask(&node, &["ALTER TABLE customer ADD COLUMN stray int"])
        .pop()
        .unwrap()
        .unwrap();
    let (code, _, stderr) = run(&["check", "--online", "-c", &map]);
    assert!(
        code == 1 && stderr.contains("table public.customer differs") && stderr.contains("stray"),
        "{stderr}"
    );

    let directory = demo.directory.clone();
    let stderr = demo.terminate();
    assert!(
        stderr.contains("Things to try") && !stderr.contains("ERROR"),
        "{stderr}"
    );
    assert!(!directory.exists());
}

#[test]
fn a_demo_on_a_taken_port_says_so_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let begun = Instant::now();
    let (code, stdout, stderr) = run(&["demo", "--port", &port]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.contains(&format!(
            "port {port} cannot be used, choose another with --port"
        )),
        "{stderr}"
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_demo_touches_no_folder_that_holds_something() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let (code, _, stderr) = run(&["demo", "--port", &port, "--dir", env!("CARGO_MANIFEST_DIR")]);
    assert!(code == 1 && stderr.contains("is not empty"), "{stderr}");
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("Cargo.toml")
            .exists()
    );
}

#[test]
fn broken_files_are_named_with_line_and_key() {
    let directory = std::env::temp_dir().join(format!("broken-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(
        directory.join("pgring.toml"),
        "[listen]\nadress = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    std::fs::write(directory.join("shards.toml"), "[cluster\n").unwrap();
    let map = directory.to_str().unwrap();
    for command in [
        &["check", "-c", map][..],
        &["serve", "-c", map],
        &["init", "-c", map],
        &["explain", "-c", map, "SELECT 1"],
    ] {
        let (code, stdout, stderr) = run(command);
        assert_eq!((code, stdout.as_str()), (1, ""), "{command:?}");
        let misspelt = "pgring.toml:2: listen.adress: unknown key (did you mean \"address\"?)";
        assert!(
            stderr.contains(misspelt) && stderr.contains("shards.toml:1: "),
            "{command:?}: {stderr}"
        );
    }
    std::fs::remove_dir_all(&directory).unwrap();
    let (code, _, stderr) = run(&["check", "-c", map]);
    assert!(
        code == 1 && stderr.contains("pgring.toml: cannot read"),
        "{stderr}"
    );
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for arguments in [
        &[][..],
        &["nosuch"],
        &["demo", "--shards", "0"],
        &["demo", "--port", "0"],
        &["explain"],
        &["check", "--offline"],
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(
            stderr.contains("--help") || stderr.contains("Usage"),
            "{arguments:?}: {stderr}"
        );
    }
    assert_eq!(run(&["--help"]).0, 0);
    assert!(run(&["--version"]).1.starts_with("pgring "));
}

#[test]
fn serve_without_any_shard_fails_and_says_which() {
    let directory = std::env::temp_dir().join(format!("alone-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let listen = "[listen]\naddress = \"127.0.0.1:6999\"\n[[user]]\nname = \"app\"\ntrust = true\n[backend]\nuser = \"pgring\"\n";
    std::fs::write(directory.join("pgring.toml"), listen).unwrap();
    let shards = "[cluster]\nname = \"shop\"\ndatabase = \"shop\"\n[[shard]]\nname = \"s0\"\nnodes = [\"/nonexistent:1\"]\n";
    std::fs::write(directory.join("shards.toml"), shards).unwrap();
    let map = directory.to_str().unwrap();
    let (code, stdout, stderr) = run(&["serve", "-c", map, "--log-format", "json"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.contains("no shard can be reached") && stderr.contains("s0"),
        "{stderr}"
    );
    assert!(
        stderr
            .lines()
            .any(|line| line.starts_with('{') && line.contains("\"shard\":\"s0\"")),
        "{stderr}"
    );
    let (code, _, stderr) = run(&["check", "--online", "-c", map]);
    assert!(
        code == 1 && stderr.contains("shard s0: 0 primaries answer"),
        "{stderr}"
    );
    std::fs::remove_dir_all(&directory).unwrap();
}

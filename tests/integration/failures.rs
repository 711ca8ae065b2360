//! Shards and routers that die, clients that vanish, queries that are cancelled.

use crate::support::{Client, Deployment, cluster, eventually};
use postgres_protocol::message::frontend;
use std::time::{Duration, Instant};

const SCHEMA: &str = "CREATE TABLE accounts (aid int PRIMARY KEY, balance int)";
const SOON: Duration = Duration::from_secs(20);

fn filled(deployment: &Deployment<'_>) -> Vec<String> {
    let rows: Vec<String> = (1..=40).map(|aid| format!("({aid}, 100)")).collect();
    deployment
        .connect()
        .run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    deployment.on_each_shard("SELECT min(aid) FROM accounts")
}

fn deployment() -> Deployment<'static> {
    Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .start()
}

fn by_key(aid: &str) -> String {
    format!("SELECT balance FROM accounts WHERE aid = {aid}")
}

/// 08001, 08004, 08006, or PostgreSQL's own words for it.
fn unreachable(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P0")
}

#[test]
fn a_shard_that_dies_takes_only_its_own_rows_along_and_comes_back() {
    let mut sandbox = cluster::start(2);
    let options = crate::support::deployment::Options::new(&sandbox)
        .schema(SCHEMA)
        .sharded("accounts", "aid");
    let deployment = options.start();
    let accounts = filled(&deployment);
    let (target, directory) = (deployment.target(), deployment.directory().to_owned());
    let mut idle = target.connect();
    assert_eq!(idle.value(&by_key(&accounts[1])), "100");
    let mut in_block = target.connect();
    in_block.run("BEGIN");
    in_block.run(&format!(
        "UPDATE accounts SET balance = 1 WHERE aid = {}",
        accounts[0]
    ));
    in_block.run(&format!(
        "UPDATE accounts SET balance = 1 WHERE aid = {}",
        accounts[1]
    ));
    let mut in_query = target.connect();
    in_query.message(|buffer| {
        frontend::query(
            &format!(
                "SELECT pg_sleep(60) FROM accounts WHERE aid = {}",
                accounts[1]
            ),
            buffer,
        )
    });
    std::thread::sleep(Duration::from_millis(300));
    // The deployment borrows the servers; what is left to do needs only its router.
    let (router, one) = (deployment.into_router(), accounts[0].clone());

    sandbox.kill(1).expect("kill the second server");
    let reply = in_query.reply();
    let failure = reply.failure.expect("the server died in the query");
    assert!(unreachable(failure.code()), "{failure}");
    let failure = in_block.fails(&by_key(&accounts[1]));
    assert!(
        unreachable(failure.code()) || failure.code() == "25P02",
        "{failure}"
    );
    if !in_block.fails("COMMIT; SELECT 1/0").is_lost() {
        in_block.simple("ROLLBACK");
    }
    let failure = target.connect().fails(&by_key(&accounts[1]));
    assert!(unreachable(failure.code()), "{failure}");
    let mut other = target.connect();
    assert_eq!(
        other.value(&by_key(&one)),
        "100",
        "the first server goes on, without the half done block"
    );
    assert!(
        other
            .simple("SELECT aid FROM accounts ORDER BY aid")
            .failure
            .is_some()
    );
    assert_eq!(other.value(&by_key(&one)), "100");

    // A router that starts now serves what there is.
    drop(router);
    let port = target.port;
    let router = crate::support::Router::start(&directory, port);
    let mut other = target.connect();
    assert_eq!(other.value(&by_key(&one)), "100");
    let failure = other.fails(&by_key(&accounts[1]));
    assert!(unreachable(failure.code()), "{failure}");
    assert_eq!(other.value(&by_key(&one)), "100", "the session lives");

    sandbox.start_again(1).expect("start it again");
    eventually(SOON, "the same session is served again", || {
        other.simple(&by_key(&accounts[1])).failure.is_none()
    });
    assert_eq!(other.value(&by_key(&accounts[1])), "100");
    assert_eq!(
        other.column("SELECT aid FROM accounts ORDER BY aid").len(),
        40
    );
    drop(router);
}

#[test]
fn a_server_restart_is_not_noticed_by_idle_clients() {
    let mut sandbox = cluster::start(1);
    let options = crate::support::deployment::Options::new(&sandbox)
        .schema(SCHEMA)
        .sharded("accounts", "aid");
    let deployment = options.start();
    filled(&deployment);
    let mut client = deployment.connect();
    assert_eq!(client.value(&by_key("1")), "100");
    let router = deployment.into_router();
    sandbox.stop(0).expect("stop the server");
    sandbox.start_again(0).expect("start it again");
    // The pool's connections are dead, which must be found out before they are used.
    eventually(SOON, "the shard is served again", || {
        client.simple(&by_key("1")).failure.is_none()
    });
    for _ in 0..20 {
        assert_eq!(client.value(&by_key("2")), "100");
    }
    drop(router);
}

#[test]
fn restarting_the_router_loses_nothing() {
    let mut deployment = deployment();
    let accounts = filled(&deployment);
    let mut client = deployment.connect();
    client.run("BEGIN");
    client.run(&format!(
        "UPDATE accounts SET balance = 0 WHERE aid = {}",
        accounts[2]
    ));
    deployment.kill_and_restart();
    assert!(
        client
            .simple("COMMIT")
            .failure
            .is_some_and(|failure| failure.is_lost())
    );
    let mut client = deployment.connect();
    assert_eq!(
        client.column("SELECT balance FROM accounts ORDER BY aid"),
        ["100"; 40]
    );
    eventually(SOON, "its locks are gone", || {
        let sql = format!(
            "SET lock_timeout = '100ms'; UPDATE accounts SET balance = 5 WHERE aid = {}",
            accounts[2]
        );
        client.simple(&sql).failure.is_none()
    });
}

#[test]
fn two_routers_side_by_side_agree() {
    let deployment = deployment();
    let accounts = filled(&deployment);
    let second = deployment.another_router();
    let (mut one, mut two) = (deployment.connect(), second.target().connect());
    for aid in &accounts {
        one.run(&format!(
            "UPDATE accounts SET balance = balance + {aid} WHERE aid = {aid}"
        ));
        assert_eq!(one.value(&by_key(aid)), two.value(&by_key(aid)));
    }
    let all = "SELECT aid, balance FROM accounts ORDER BY aid";
    assert_eq!(one.rows(all), two.rows(all));
    two.run("INSERT INTO accounts SELECT 1000, 1; INSERT INTO accounts VALUES (1001, 2)");
    assert_eq!(one.value(&by_key("1001")), "2");
    // DDL through one is known to the other.
    one.run("ALTER TABLE accounts ADD COLUMN note text DEFAULT 'x'");
    eventually(SOON, "the other router knows the new column", || {
        two.simple("SELECT note, aid FROM accounts ORDER BY note, aid LIMIT 1")
            .failure
            .is_none()
    });
    two.run("BEGIN");
    accounts.iter().for_each(|aid| {
        drop(two.run(&format!(
            "UPDATE accounts SET balance = 0 WHERE aid = {aid}"
        )))
    });
    two.run("COMMIT");
    assert_eq!(one.value(&by_key(&accounts[3])), "0");
}

/// Starts `sql`, cancels it and returns how long that took.
fn cancelled(deployment: &Deployment<'_>, client: &mut Client, sql: &str) -> Duration {
    client.message(|buffer| frontend::query(sql, buffer));
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    deployment.target().cancel(&client.backend_key);
    let reply = client.reply();
    assert_eq!(
        reply
            .failure
            .unwrap_or_else(|| panic!("{sql} was to be cancelled"))
            .code(),
        "57014"
    );
    started.elapsed()
}

/// Nothing of ours runs on any shard.
fn all_quiet(deployment: &Deployment<'_>) -> bool {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app'
        AND state <> 'idle'";
    deployment.on_each_shard(sql) == ["0"; 4]
}

#[test]
fn a_cancel_request_ends_a_query_on_one_shard() {
    let deployment = deployment();
    let accounts = filled(&deployment);
    let mut client = deployment.connect();
    let sql = format!(
        "SELECT pg_sleep(60) FROM accounts WHERE aid = {}",
        accounts[2]
    );
    assert!(cancelled(&deployment, &mut client, &sql) < Duration::from_secs(5));
    assert!(cancelled(&deployment, &mut client, "SELECT pg_sleep(60)") < Duration::from_secs(5));
    assert_eq!(client.value("SELECT 1"), "1");
    eventually(SOON, "nothing runs on", || all_quiet(&deployment));
}

#[test]
fn a_cancel_request_ends_a_fan_out_on_all_shards() {
    let deployment = deployment();
    filled(&deployment);
    let mut client = deployment.connect();
    let sql = "SELECT aid, pg_sleep(60) FROM accounts";
    assert!(cancelled(&deployment, &mut client, sql) < Duration::from_secs(5));
    assert_eq!(
        client.column("SELECT aid FROM accounts ORDER BY aid").len(),
        40
    );
    eventually(SOON, "nothing runs on", || all_quiet(&deployment));
}

#[test]
fn a_cancel_request_in_a_block_fails_the_block() {
    let deployment = deployment();
    let accounts = filled(&deployment);
    let mut client = deployment.connect();
    client.run("BEGIN");
    client.run(&format!(
        "UPDATE accounts SET balance = 0 WHERE aid = {}",
        accounts[0]
    ));
    let sql = format!(
        "SELECT pg_sleep(60) FROM accounts WHERE aid = {}",
        accounts[1]
    );
    cancelled(&deployment, &mut client, &sql);
    assert_eq!(client.fails("SELECT 1").code(), "25P02");
    assert_eq!(client.run("COMMIT"), "ROLLBACK");
    assert_eq!(client.value(&by_key(&accounts[0])), "100");
}

#[test]
fn a_cancel_request_reaches_only_its_own_client() {
    let deployment = deployment();
    filled(&deployment);
    let (mut victim, mut other) = (deployment.connect(), deployment.connect());
    other.message(|buffer| frontend::query("SELECT pg_sleep(1)", buffer));
    // Nothing runs for this one: its key must not hit whoever uses its connection now.
    assert_eq!(victim.value("SELECT 1"), "1");
    for _ in 0..10 {
        deployment.target().cancel(&victim.backend_key);
    }
    assert_eq!(other.reply().failure, None);
    assert_eq!(victim.value("SELECT 1"), "1");
}

#[test]
fn a_client_that_vanishes_leaves_nothing_running_or_half_done() {
    let deployment = deployment();
    let accounts = filled(&deployment);
    let mut client = deployment.connect();
    client.run("BEGIN");
    client.run(&format!(
        "UPDATE accounts SET balance = 0 WHERE aid = {}",
        accounts[0]
    ));
    client.message(|buffer| frontend::query("SELECT aid, pg_sleep(60) FROM accounts", buffer));
    std::thread::sleep(Duration::from_millis(300));
    drop(client);
    eventually(SOON, "its query is cancelled", || all_quiet(&deployment));
    let mut client = deployment.connect();
    assert_eq!(
        client.run(&format!(
            "UPDATE accounts SET balance = 1 WHERE aid = {}",
            accounts[0]
        )),
        "UPDATE 1"
    );
    assert_eq!(client.value(&by_key(&accounts[0])), "1");
}

#[test]
fn a_client_that_vanishes_in_a_copy_leaves_nothing() {
    let deployment = deployment();
    filled(&deployment);
    let mut client = deployment.connect();
    client.message(|buffer| frontend::query("COPY accounts FROM STDIN", buffer));
    assert_eq!(client.reply().status, 'G');
    (1000..1100).for_each(|aid| client.copy_data(format!("{aid}\t1\n").as_bytes()));
    drop(client);
    eventually(SOON, "its copy is over", || all_quiet(&deployment));
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) FROM accounts WHERE aid >= 1000"),
        ["0"; 4]
    );
}

#[test]
fn a_client_that_does_not_read_does_not_fill_the_routers_memory() {
    let mut deployment = deployment();
    filled(&deployment);
    let mut client = deployment.connect();
    // About 400 MB from each shard.
    let sql = "SELECT aid, repeat('x', 100000) FROM accounts, generate_series(1, 4000 / 4)";
    client.message(|buffer| frontend::query(sql, buffer));
    let pid = deployment.router().pid();
    let resident = || {
        let status =
            std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the router runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number")
            >> 10
    };
    let before = resident();
    for _ in 0..15 {
        std::thread::sleep(Duration::from_millis(100));
        assert!(
            resident() < before + 150,
            "from {before} to {} MB",
            resident()
        );
    }
    drop(client);
    eventually(SOON, "its query is cancelled", || all_quiet(&deployment));
}

#[test]
fn a_pooled_connection_is_clean_for_the_next_client() {
    let settings = "[pool]\nsize = 1";
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    let accounts = filled(&deployment);
    let mut one = deployment.connect();
    one.run("SET work_mem = '7MB'; SET application_name = 'one'; SET statement_timeout = '1h'");
    let prepare = |client: &mut Client, sql: &str| {
        client.message(|buffer| {
            frontend::parse("mine", sql, [], buffer)?;
            frontend::sync(buffer);
            Ok(())
        });
        client.reply()
    };
    assert_eq!(prepare(&mut one, "SELECT 1").failure, None);
    assert_eq!(one.value("SHOW work_mem"), "7MB");
    assert_eq!(one.value("SELECT current_setting('work_mem')"), "7MB");
    let mut two = deployment.connect();
    for aid in &accounts {
        let sql = format!("SELECT current_setting('work_mem') FROM accounts WHERE aid = {aid}");
        assert_eq!(one.value(&sql), "7MB");
        assert_eq!(two.value(&sql), "4MB");
        assert_eq!(one.value(&sql), "7MB");
    }
    assert_eq!(two.value("SHOW statement_timeout"), "0");
    assert_eq!(
        prepare(&mut two, "SELECT 2").failure,
        None,
        "another client's statement of the same name"
    );
    assert_eq!(
        prepare(&mut one, "SELECT 3")
            .failure
            .expect("it exists")
            .code(),
        "42P05"
    );
}

#[test]
fn a_role_does_not_outlive_its_client() {
    let settings = "[pool]\nsize = 1";
    let sandbox = cluster::shared();
    for server in 0..cluster::SERVERS {
        let mut superuser = cluster::superuser(sandbox, server, "postgres").connect();
        superuser.run("DO $$ BEGIN CREATE ROLE lesser; GRANT lesser TO app; EXCEPTION WHEN duplicate_object THEN END $$");
    }
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    let accounts = filled(&deployment);
    let mut one = deployment.connect();
    let reply = one.simple("SET ROLE lesser");
    if let Some(failure) = reply.failure {
        assert!(failure.refusal().is_some(), "{failure}");
        return;
    }
    assert_eq!(one.value("SELECT current_user"), "lesser");
    for aid in &accounts {
        assert_eq!(
            one.fails(&by_key(aid)).code(),
            "42501",
            "the lesser role may not read"
        );
        assert_eq!(deployment.connect().value(&by_key(aid)), "100");
    }
    one.run("RESET ROLE");
    assert_eq!(one.value(&by_key(&accounts[1])), "100");
}

#[test]
fn more_clients_than_connections_wait_for_their_turn() {
    let settings = "[pool]\nsize = 2";
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    filled(&deployment);
    let target = deployment.target();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = target.connect();
                for _ in 0..10 {
                    assert_eq!(
                        client.column("SELECT aid FROM accounts ORDER BY aid").len(),
                        40
                    );
                    client.run(
                        "BEGIN; UPDATE accounts SET balance = balance + 1 WHERE aid = 3; COMMIT",
                    );
                }
            });
        }
    });
    assert_eq!(deployment.connect().value(&by_key("3")), "260");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app'";
    let counts = deployment.on_each_shard(sql);
    assert!(
        counts
            .iter()
            .all(|count| count.parse::<usize>().unwrap() <= 2),
        "{counts:?}"
    );
}

#[test]
fn a_client_that_waits_too_long_for_a_connection_is_told_so() {
    let settings = "[pool]\nsize = 1\nwait = \"500ms\"";
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    let accounts = filled(&deployment);
    let (mut one, mut two) = (deployment.connect(), deployment.connect());
    one.run("BEGIN");
    one.value(&by_key(&accounts[1]));
    assert_eq!(two.fails(&by_key(&accounts[1])).code(), "53300");
    assert_eq!(
        two.value(&by_key(&accounts[2])),
        "100",
        "other shards have room"
    );
    one.run("COMMIT");
    assert_eq!(two.value(&by_key(&accounts[1])), "100");
}

#[test]
fn a_slow_link_to_a_shard_slows_only_what_needs_it() {
    let sandbox = cluster::shared();
    let socket = format!(
        "{}/.s.PGSQL.{}",
        sandbox.socket_directory(1).display(),
        sandbox.port(1)
    );
    let link = crate::support::fault::Fault::before(&socket);
    let options = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .node(1, &link.address());
    let deployment = options.start();
    let accounts = filled(&deployment);
    let mut client = deployment.connect();
    assert_eq!(client.value(&by_key(&accounts[1])), "100");
    link.delay(Duration::from_millis(200));
    let started = Instant::now();
    assert_eq!(client.value(&by_key(&accounts[0])), "100");
    assert!(started.elapsed() < Duration::from_millis(190));
    assert_eq!(client.value(&by_key(&accounts[1])), "100");
    assert!(started.elapsed() > Duration::from_millis(200));
    link.delay(Duration::ZERO);
    link.cut();
    let failure = client.fails(&by_key(&accounts[1]));
    assert!(unreachable(failure.code()), "{failure}");
    assert_eq!(client.value(&by_key(&accounts[0])), "100");
    link.mend();
    eventually(SOON, "the shard is served again", || {
        client.simple(&by_key(&accounts[1])).failure.is_none()
    });
}

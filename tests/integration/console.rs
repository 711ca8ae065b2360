//! The operators' console, through every way that clients have: the simple and the extended protocol by hand, psql, and
//! tokio-postgres, which asks for binary results.

use crate::support::deployment::{Options, decide};
use crate::support::{Client, Deployment, Router, Target, eventually};
use postgres_protocol::message::frontend;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// An administrator and a monitor.
pub(crate) const OPERATORS: &str = "[[user]]\nname = \"dba\"\npassword = \"dba\"\nadmin = true\n\
    [[user]]\nname = \"watch\"\npassword = \"watch\"\nmonitor = true\n";

fn options() -> Options<'static> {
    Deployment::shared()
        .schema("CREATE TABLE orders (id bigint PRIMARY KEY, total int)")
        .sharded("orders", "id")
        .settings(OPERATORS)
}

/// Where an operator logs in.
pub(crate) fn console(deployment: &Deployment<'_>, user: &str) -> Target {
    Target {
        user: user.into(),
        password: user.into(),
        database: "pgring".into(),
        ..deployment.target()
    }
}

/// An administrator.
pub(crate) fn admin(deployment: &Deployment<'_>) -> Client {
    console(deployment, "dba").connect()
}

/// The column of this name, of each row.
pub(crate) fn column(client: &mut Client, sql: &str, name: &str) -> Vec<String> {
    let outcome = client.simple(sql).outcomes.pop().expect("an answer");
    let place = outcome
        .columns
        .iter()
        .position(|column| column.name == name);
    let place = place.unwrap_or_else(|| panic!("{sql} has no column {name}"));
    let text = |row: &Vec<Option<Vec<u8>>>| {
        let value = row[place].as_deref().map(String::from_utf8_lossy);
        value.map_or("NULL".into(), |value| value.into_owned())
    };
    outcome.rows.iter().map(text).collect()
}

#[test]
fn only_operators_are_let_into_the_console() {
    let mut deployment = options().start();
    let app = Target {
        database: "pgring".into(),
        ..deployment.target()
    };
    let failure = app.login(&[]).map(drop).unwrap_err();
    assert_eq!(failure.severity(), "FATAL");
    assert_eq!(failure.code(), "42501");
    assert_eq!(
        failure.message(),
        "user \"app\" is not allowed to use the console"
    );
    // A monitor looks, and changes nothing.
    let mut watch = console(&deployment, "watch").connect();
    assert_eq!(watch.column("SHOW SHARDS"), ["s0", "s1", "s2", "s3"]);
    let failure = watch.fails("RECOVER TRANSACTIONS");
    assert_eq!(failure.code(), "42501");
    assert_eq!(
        failure.message(),
        "permission denied for RECOVER TRANSACTIONS"
    );
    // Not even a line of the log.
    watch.fails("PAUSE SHARD E'x\nconsole: done user=\"dba\"'");
    assert_eq!(watch.rows("SHOW VERSION").len(), 1);
    let mut dba = admin(&deployment);
    assert_eq!(
        dba.rows("RECOVER TRANSACTIONS"),
        [["0", "0", "0", "0", "0"]]
    );
    // Who changed what is in the log, and who was not allowed to.
    let log = deployment.router().log();
    for line in [
        "console: done user=\"dba\" command=RECOVER TRANSACTIONS",
        "console: not done user=\"watch\" command=RECOVER TRANSACTIONS error=permission denied",
        "command=PAUSE SHARD x\\nconsole: done user=\"dba\" error=permission denied",
    ] {
        assert!(log.contains(line), "{line}\n{log}");
    }
}

#[test]
fn the_console_speaks_both_protocols_and_refuses_sql() {
    let deployment = options().start();
    let mut dba = admin(&deployment);
    assert!(dba.parameters.contains_key("server_version"));
    let version = dba.value("SHOW VERSION;");
    assert!(version.starts_with("pgring "), "{version}");
    // Several commands in one string; all are read before any runs.
    let reply = dba.simple("SHOW VERSION; SHOW HELP");
    assert_eq!(reply.outcomes.len(), 2);
    assert_eq!(reply.outcomes[1].tag.as_deref(), Some("SHOW"));
    let failure = dba.fails("SHOW VERSION; SHOW VERSIONS");
    assert_eq!(
        (failure.code(), failure.fields[&'P'].as_str()),
        ("42601", "20")
    );
    // psql's \d, a driver's BEGIN.
    for sql in ["SELECT n.nspname FROM pg_catalog.pg_class c", "BEGIN"] {
        let failure = dba.fails(sql);
        assert_eq!(failure.code(), "0A000");
        assert!(failure.hint().contains("SHOW HELP"));
    }
    assert_eq!(dba.run("SET extra_float_digits = 3"), "SET");
    assert_eq!(dba.simple("").status, 'I');
    // The extended protocol, with binary integers, and an error that skips to Sync.
    let reply = dba.extended("SHOW SLOTS", &[], true);
    let outcome = &reply.outcomes[0];
    assert_eq!(outcome.columns[0].name, "first");
    assert_eq!(outcome.rows[0][0].as_deref(), Some(&[0, 0, 0, 0][..]));
    let failure = dba.extended("SHOW SLOTS", &[Some("1")], false).failure;
    assert_eq!(failure.expect("a failure").code(), "08P01");
    assert_eq!(dba.rows("SHOW VERSION").len(), 1);
    // A portal with a row limit goes on where it stopped.
    dba.message(|buffer| {
        frontend::parse("s", "SHOW HELP", [], buffer)?;
        let none: [&str; 0] = [];
        frontend::bind("p", "s", [], none, |_, _| unreachable!(), [0], buffer)
            .map_err(|_| std::io::Error::other("bind"))?;
        frontend::describe(b'S', "s", buffer)?;
        frontend::execute("p", 2, buffer)?;
        frontend::execute("p", 0, buffer)?;
        frontend::close(b'S', "s", buffer)?;
        frontend::sync(buffer);
        Ok(())
    });
    let reply = dba.reply();
    assert!(reply.failure.is_none(), "{:?}", reply.failure);
    let counts: Vec<usize> = reply
        .outcomes
        .iter()
        .map(|outcome| outcome.rows.len())
        .collect();
    let all = dba.rows("SHOW HELP").len();
    assert_eq!(counts, [2, all - 2]);
}

#[test]
fn slots_and_shards_show_what_is_recorded_on_the_shards() {
    let deployment = options().start();
    let mut dba = admin(&deployment);
    let slots: usize = column(&mut dba, "SHOW SLOTS", "slots")
        .iter()
        .map(|slots| slots.parse::<usize>().unwrap())
        .sum();
    assert_eq!(slots, 16384);
    assert!(
        column(&mut dba, "SHOW SLOTS", "state")
            .iter()
            .all(|state| state == "owned")
    );
    let owned = column(&mut dba, "SHOW SHARDS", "slots");
    let recorded = deployment.on_each_shard(
        "SELECT sum(upper(part) - lower(part)) FROM pgring.ownership, unnest(owned) AS part",
    );
    assert_eq!(owned, recorded);
    assert_eq!(column(&mut dba, "SHOW SHARDS", "state"), ["up"; 4]);
}

#[test]
fn psql_and_tokio_postgres_talk_to_the_console() {
    let deployment = options().start();
    let target = console(&deployment, "dba");
    let output = deployment
        .program("psql")
        .env("PGUSER", "dba")
        .env("PGPASSWORD", "dba")
        .args(["-X", "-At", "-d", "pgring", "-c", "SHOW VERSION"])
        .output()
        .expect("run psql");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("pgring "), "{output:?}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&target.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let rows = client.query("SHOW SLOTS", &[]).await.unwrap();
        let slots: i32 = rows.iter().map(|row| row.get::<_, i32>("slots")).sum();
        assert_eq!(slots, 16384);
        let messages = client.simple_query("SHOW SHARDS").await.unwrap();
        let rows = messages
            .iter()
            .filter(|message| matches!(message, SimpleQueryMessage::Row(_)));
        assert_eq!(rows.count(), 4);
        let error = client.query("SELECT 1", &[]).await.unwrap_err();
        let error = error.as_db_error().expect("an error of the console's");
        assert_eq!(error.code().code(), "0A000");
    });
}

/// Waits until `sql` gives this value.
#[track_caller]
fn becomes(client: &mut Client, sql: &str, name: &str, expected: &[&str]) {
    eventually(Duration::from_secs(10), &format!("{sql}: {name}"), || {
        column(client, sql, name) == expected
    });
}

/// A key of each shard.
fn keys(deployment: &Deployment<'_>) -> Vec<i64> {
    let mut app = deployment.connect();
    app.run("INSERT INTO orders SELECT n, 0 FROM generate_series(1, 100) AS n");
    let first = "SELECT min(id) FROM orders";
    let keys = deployment.on_each_shard(first);
    keys.iter().map(|key| key.parse().unwrap()).collect()
}

#[test]
fn a_client_is_listed_with_what_it_does_and_can_be_cut_off() {
    let deployment = options().start();
    let keys = keys(&deployment);
    let mut dba = admin(&deployment);
    let mut app = deployment
        .target()
        .login(&[("application_name", "billing")])
        .unwrap();
    let id = |dba: &mut Client, name: &str| {
        let names = column(dba, "SHOW CLIENTS", "application_name");
        let place = names.iter().position(|known| known == name);
        place.map(|place| column(dba, "SHOW CLIENTS", "id").swap_remove(place))
    };
    let billing = id(&mut dba, "billing").expect("the client is listed");
    app.run("SET application_name = 'reports'");
    assert_eq!(id(&mut dba, "reports").as_ref(), Some(&billing));
    // At rest, in a block: it is told so, and the block is rolled back.
    app.run(&format!(
        "BEGIN; UPDATE orders SET total = 1 WHERE id = {}",
        keys[0]
    ));
    assert_eq!(dba.run(&format!("KILL_CLIENT {billing}")), "KILL_CLIENT");
    let farewell = app.reply().failure.expect("a farewell");
    assert_eq!((farewell.severity(), farewell.code()), ("FATAL", "57P01"));
    let mut other = deployment.connect();
    let update = format!("UPDATE orders SET total = total + 2 WHERE id = {}", keys[0]);
    other.run(&update);
    assert_eq!(
        other.value(&format!("SELECT total FROM orders WHERE id = {}", keys[0])),
        "2"
    );
    // While it runs something: what runs on the shard is cancelled.
    let mut sleeper = deployment
        .target()
        .login(&[("application_name", "sleeper")])
        .unwrap();
    sleeper.message(|buffer| {
        frontend::query(
            &format!("SELECT pg_sleep(60) FROM orders WHERE id = {}", keys[1]),
            buffer,
        )
    });
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(60)%'";
    let mut shard = deployment.shard(1);
    eventually(Duration::from_secs(10), "it runs", || {
        shard.value(running) == "1"
    });
    let states = column(&mut dba, "SHOW CLIENTS", "state");
    assert!(states.contains(&"active".to_owned()), "{states:?}");
    let sleeping = id(&mut dba, "sleeper").expect("the client is listed");
    dba.run(&format!("KILL {sleeping}"));
    assert!(sleeper.read().is_none(), "it is cut off");
    eventually(Duration::from_secs(10), "it ends", || {
        shard.value(running) == "0"
    });
    assert_eq!(id(&mut dba, "sleeper"), None);
    // Again: it is gone already.
    dba.notices.clear();
    dba.run(&format!("KILL {sleeping}"));
    assert_eq!(
        dba.notices[0].message(),
        format!("there is no client {sleeping}")
    );
}

#[test]
fn pause_waits_for_what_runs_and_holds_what_is_new() {
    let deployment = options().start();
    let keys = keys(&deployment);
    let update = format!("UPDATE orders SET total = total + 1 WHERE id = {}", keys[0]);
    let mut running = deployment.connect();
    running.run(&format!("BEGIN; {update}"));
    let mut dba = admin(&deployment);
    let mut pausing = admin(&deployment);
    pausing.message(|buffer| frontend::query("PAUSE", buffer));
    becomes(
        &mut dba,
        "SHOW DATABASES",
        "paused",
        &["1", "1", "1", "1", "0"],
    );
    // New transactions wait, simple and extended, alone and in a block.
    let mut held = [deployment.target(), deployment.target()].map(|target| {
        // A login needs a shard, too.
        std::thread::spawn(move || target.connect())
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(held.iter_mut().all(|login| !login.is_finished()));
    let waiting = || column(&mut admin(&deployment), "SHOW POOLS BY SHARD", "cl_waiting");
    assert!(
        waiting().iter().any(|waiting| waiting == "2"),
        "{:?}",
        waiting()
    );
    // What runs goes on to its end, on shards that it has not seen yet, too.
    running.run(&format!(
        "UPDATE orders SET total = 9 WHERE id = {}",
        keys[1]
    ));
    running.run("COMMIT");
    assert_eq!(pausing.reply().outcomes[0].tag.as_deref(), Some("PAUSE"));
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database()";
    eventually(Duration::from_secs(5), "its connections are closed", || {
        deployment.on_each_shard(open) == ["0"; 4]
    });
    // Once more changes nothing; a statement of a session that is in waits as well.
    assert_eq!(dba.run("PAUSE shop"), "PAUSE");
    running.message(|buffer| frontend::query(&update, buffer));
    eventually(Duration::from_secs(5), "it waits", || {
        column(&mut dba, "SHOW POOLS", "cl_waiting").contains(&"1".to_owned())
    });
    assert_eq!(dba.run("RESUME"), "RESUME");
    assert_eq!(dba.run("RESUME"), "RESUME");
    assert_eq!(running.reply().outcomes[0].tag.as_deref(), Some("UPDATE 1"));
    for login in held {
        login.join().unwrap().run(&update);
    }
}

#[test]
fn one_shard_is_paused_and_a_wait_has_its_limit() {
    let deployment = options().settings("[pool]\npause = \"200ms\"").start();
    let keys = keys(&deployment);
    let mut dba = admin(&deployment);
    let mut app = deployment.connect();
    assert_eq!(dba.run("PAUSE SHARD s1"), "PAUSE");
    let read = |key: i64| format!("SELECT total FROM orders WHERE id = {key}");
    assert_eq!(app.value(&read(keys[0])), "0");
    let failure = app.fails(&read(keys[1]));
    assert_eq!(
        (failure.code(), failure.message()),
        ("57P03", "shard s1 is paused")
    );
    // In a block that runs already it is not.
    app.run("BEGIN");
    assert_eq!(app.value(&read(keys[0])), "0");
    assert_eq!(app.value(&read(keys[1])), "0");
    app.run("COMMIT");
    // A session that keeps its connection waits before its next transaction, too.
    assert_eq!(
        column(&mut dba, "SHOW STATE", "value"),
        ["no", "no", "yes", "no"]
    );
    dba.run("RESUME SHARD s1");
    assert_eq!(app.value(&read(keys[1])), "0");
    app.run("LISTEN news");
    dba.notices.clear();
    dba.run("PAUSE SHARD s0");
    assert!(
        dba.notices[0]
            .message()
            .starts_with("1 connections stay open")
    );
    assert_eq!(app.fails(&read(keys[0])).code(), "57P03");
    dba.run("RESUME");
    assert_eq!(app.value(&read(keys[0])), "0");
    let failure = dba.fails("PAUSE SHARD s9");
    assert_eq!(
        (failure.code(), failure.message()),
        ("42704", "shard \"s9\" does not exist")
    );
    assert_eq!(dba.fails("PAUSE sho").code(), "3D000");
}

#[test]
fn connections_are_replaced_as_they_come_back() {
    let deployment = options().start();
    let keys = keys(&deployment);
    let mut dba = admin(&deployment);
    let mut app = deployment.connect();
    let pid = format!("SELECT pg_backend_pid() FROM orders WHERE id = {}", keys[2]);
    let mut other = deployment.connect();
    other.run("BEGIN");
    let kept = other.value(&pid);
    let before = app.value(&pid);
    assert!(column(&mut dba, "SHOW SERVERS", "remote_pid").contains(&before));
    dba.run("RECONNECT shop");
    let after = app.value(&pid);
    assert_ne!(before, after);
    assert_eq!(other.value(&pid), kept);
    let closing = |dba: &mut Client| {
        let closing = column(dba, "SHOW SERVERS", "close_needed");
        closing.iter().filter(|closing| *closing == "1").count()
    };
    assert_eq!(closing(&mut dba), 1);
    let mut waiting = admin(&deployment);
    waiting.message(|buffer| frontend::query("WAIT_CLOSE", buffer));
    other.run("COMMIT");
    assert_eq!(
        waiting.reply().outcomes[0].tag.as_deref(),
        Some("WAIT_CLOSE")
    );
    assert_eq!(closing(&mut dba), 0);
}

#[test]
fn clients_are_kept_out_and_all_are_cut_off() {
    let deployment = options().start();
    let keys = keys(&deployment);
    let read = format!("SELECT total FROM orders WHERE id = {}", keys[0]);
    let mut dba = admin(&deployment);
    let mut app = deployment.connect();
    dba.run("DISABLE shop");
    dba.run("DISABLE shop");
    let failure = deployment.target().login(&[]).map(drop).unwrap_err();
    assert_eq!(failure.code(), "55000");
    assert_eq!(
        failure.message(),
        "database \"shop\" is not currently accepting connections"
    );
    assert_eq!(app.value(&read), "0");
    dba.run("ENABLE shop");
    deployment.connect();
    dba.run("KILL shop");
    assert!(app.reply().failure.is_some());
    dba.run("RESUME shop");
    assert_eq!(deployment.connect().value(&read), "0");
}

#[test]
fn what_was_answered_is_counted() {
    let deployment = options().start();
    let keys = keys(&deployment);
    let mut dba = admin(&deployment);
    let numbers = |dba: &mut Client| -> BTreeMap<String, i64> {
        let rows = dba.rows("SHOW TOTALS");
        let number = |row: &Vec<String>| (row[0].clone(), row[1].parse().unwrap());
        rows.iter().map(number).collect()
    };
    let before = numbers(&mut dba);
    let mut app = deployment.connect();
    for _ in 0..10 {
        app.value(&format!("SELECT total FROM orders WHERE id = {}", keys[0]));
    }
    app.run("BEGIN");
    app.extended(
        &format!(
            "SELECT total, pg_sleep(0.05) FROM orders WHERE id = {}",
            keys[0]
        ),
        &[],
        false,
    );
    std::thread::sleep(Duration::from_millis(50));
    app.run("COMMIT");
    drop(app);
    let sum = |name: &str, after: &BTreeMap<String, i64>| after[name] - before[name];
    // A client is answered before that is counted.
    eventually(Duration::from_secs(5), "all is counted", || {
        sum("total_query_count", &numbers(&mut dba)) == 13
    });
    let after = numbers(&mut dba);
    assert_eq!(sum("total_xact_count", &after), 11);
    // One for the login.
    assert_eq!(sum("total_server_assignment_count", &after), 12);
    assert!(sum("total_received", &after) > 13 * 20);
    assert!(sum("total_sent", &after) > 13 * 20);
    let (in_block, busy) = (
        sum("total_xact_time", &after),
        sum("total_query_time", &after),
    );
    // The clock is coarse.
    assert!(in_block >= busy + 40_000, "{in_block} {busy}");
    assert!(busy >= 40_000, "{busy}");
    let stats = dba.rows("SHOW STATS");
    assert_eq!(
        (stats.len(), stats[0][0].as_str(), stats[0].len()),
        (1, "shop", 17)
    );
    assert_eq!(dba.rows("SHOW STATS_TOTALS")[0].len(), 9);
    assert_eq!(dba.rows("SHOW STATS_AVERAGES")[0].len(), 9);
}

#[test]
fn keys_statements_and_tables_are_placed_as_the_shards_have_them() {
    let deployment = options()
        .schema("CREATE TABLE notes (id text PRIMARY KEY)")
        .sharded("notes", "id")
        .schema("CREATE TABLE countries (code text)")
        .reference("countries")
        .schema("CREATE TABLE audit (line text)")
        .start();
    let keys = keys(&deployment);
    let mut dba = admin(&deployment);
    for (shard, key) in keys.iter().enumerate() {
        let sql = format!("WHERE KEY '{key}' OF orders");
        assert_eq!(column(&mut dba, &sql, "shard"), [format!("s{shard}")]);
        let sql = format!("EXPLAIN ROUTE SELECT * FROM orders WHERE id = {key}");
        let plan = dba.column(&sql).join("\n");
        assert!(
            plan.starts_with(&format!("single shard on s{shard}")),
            "{plan}"
        );
    }
    // A text that is a key of one table and none of the other.
    assert_eq!(
        column(&mut dba, "WHERE KEY '1'", "table"),
        ["public.notes", "public.orders"]
    );
    assert_eq!(column(&mut dba, "WHERE KEY 'x'", "table"), ["public.notes"]);
    let failure = dba.fails("WHERE KEY 'x' OF orders");
    assert_eq!(
        (failure.code(), failure.message()),
        ("22P02", "\"x\" is not a value of the key's type")
    );
    assert_eq!(dba.fails("WHERE KEY 'x' OF countries").code(), "42P01");
    // A refusal is the statement's own.
    let failure = dba.fails("EXPLAIN ROUTE UPDATE orders SET id = id + 1");
    assert_eq!(failure.refusal(), Some("key-update"));
    let kinds = dba.rows("SHOW TABLES");
    let kinds: Vec<(&str, &str)> = kinds
        .iter()
        .map(|row| (row[1].as_str(), row[2].as_str()))
        .collect();
    let expected = [
        ("audit", "local"),
        ("countries", "reference"),
        ("notes", "sharded"),
        ("orders", "sharded"),
    ];
    assert_eq!(kinds, expected);
    let owned = column(&mut dba, "SHOW SHARDS", "slots");
    assert_eq!(column(&mut dba, "SHOW RING", "owned"), owned);
    assert_eq!(column(&mut dba, "SHOW RING", "to_gain"), ["0"; 4]);
    assert_eq!(dba.rows("CHECK"), [[""; 0]; 0]);
    // Plans are shown without literals.
    let mut app = deployment.connect();
    app.run("SELECT total FROM orders WHERE id = 31337");
    app.run("SELECT count(*) FROM orders WHERE total = 31338");
    let statements = dba.rows("SHOW STATEMENTS");
    let shown = format!("{statements:?}");
    assert!(
        shown.contains("by key") && shown.contains("count(*)"),
        "{shown}"
    );
    assert!(!shown.contains("3133"), "{shown}");
}

#[test]
fn prepared_parts_and_routers_are_asked_of_the_shards() {
    let deployment = options().settings("[recovery]\ninterval = \"1h\"").start();
    let mut dba = admin(&deployment);
    assert_eq!(dba.rows("SHOW TRANSACTIONS IN DOUBT").len(), 0);
    let mut shard = deployment.shard(1);
    shard.run("BEGIN");
    let gid = decide(&mut shard, "s1", "s1");
    shard.run("COMMIT");
    shard.run("BEGIN; INSERT INTO orders VALUES (1, 1)");
    shard.run(&format!("PREPARE TRANSACTION '{gid}'"));
    let parts = dba.rows("SHOW TRANSACTIONS IN DOUBT");
    assert_eq!(parts.len(), 1);
    assert_eq!((parts[0][0].as_str(), &parts[0][1]), ("s1", &gid));
    assert_eq!(
        (parts[0][4].as_str(), parts[0][5].as_str()),
        ("s1", "committed")
    );
    assert_eq!(dba.rows("RECOVER TRANSACTIONS")[0][0], "1");
    assert_eq!(dba.rows("SHOW TRANSACTIONS IN DOUBT").len(), 0);
    assert_eq!(column(&mut dba, "SHOW ROUTERS", "this"), ["yes"; 4]);
    let _other = deployment.another_router();
    eventually(Duration::from_secs(10), "both are registered", || {
        let this = column(&mut dba, "SHOW ROUTERS", "this");
        this.iter().filter(|this| *this == "no").count() == 4
    });
}

#[test]
fn the_files_are_read_again_and_nothing_of_them_is_passed_over() {
    let deployment = options()
        .schema("CREATE TABLE countries (code text)")
        .start();
    let mut dba = admin(&deployment);
    assert_eq!(dba.rows("RELOAD").len(), 0);
    let edit = |name: &str, more: &str| {
        let file = deployment.directory().join(name);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}{more}")).unwrap();
        text
    };
    edit(
        "shards.toml",
        "[[table]]\nname = \"public.countries\"\nkind = \"reference\"\n",
    );
    let before = edit("pgring.toml", "[pool]\nsize = 7\n");
    let expected = |effect: &str| {
        let table = ["table.public.countries", "NULL", "reference", effect];
        [["pool.size", "20", "7", "needs a restart"], table]
            .map(|row| row.map(str::to_owned).to_vec())
    };
    // `pool.pinned` is half of the size.
    let rows = |dba: &mut Client, sql: &str| {
        let mut rows = dba.rows(sql);
        rows.retain(|row| row[0] != "pool.pinned");
        rows
    };
    assert_eq!(
        rows(&mut dba, "RELOAD DRY RUN"),
        expected("would be taken over")
    );
    let kind = |dba: &mut Client| column(dba, "SHOW TABLES", "kind")[0].clone();
    assert_eq!(kind(&mut dba), "local");
    let mut watch = console(&deployment, "watch").connect();
    assert_eq!(rows(&mut watch, "RELOAD DRY RUN").len(), 2);
    assert_eq!(watch.fails("RELOAD").code(), "42501");
    assert_eq!(rows(&mut dba, "RELOAD"), expected("taken over"));
    assert_eq!(kind(&mut dba), "reference");
    assert_eq!(rows(&mut dba, "RELOAD"), &expected("")[..1]);
    // Files that are wrong change nothing, and say where.
    std::fs::write(
        deployment.directory().join("pgring.toml"),
        format!("{before}[pol]\n"),
    )
    .unwrap();
    let failure = dba.fails("RELOAD");
    assert_eq!(failure.code(), "F0000");
    assert!(failure.detail().contains("pol: unknown key"), "{failure}");
    let config = dba.rows("SHOW CONFIG");
    let of = |key: &str| config.iter().find(|row| row[0] == key).unwrap().clone();
    assert_eq!(of("pool.size"), ["pool.size", "20", "20", "no"]);
    assert_eq!(of("max_client_conn")[1], "10000");
    assert!(
        config.iter().all(|row| !row[1].contains("dba")),
        "no password is shown"
    );
}

#[test]
fn the_router_ends_when_it_is_told() {
    let deployment = options().start();
    let keys = keys(&deployment);
    let dba = |router: &Router| {
        let target = console(&deployment, "dba");
        let port = router.target().port;
        Target { port, ..target }.connect()
    };
    let app = |router: &Router| router.target();
    let ended = |router: &mut Router| {
        eventually(Duration::from_secs(15), "it ends", || !router.is_running());
    };
    // At once.
    let mut router = deployment.another_router();
    let mut client = app(&router).connect();
    assert_eq!(dba(&router).run("SHUTDOWN"), "SHUTDOWN");
    assert_eq!(client.reply().failure.unwrap().code(), "57P01");
    ended(&mut router);
    // When the last client has left; nobody new is let in meanwhile, but an operator.
    let mut router = deployment.another_router();
    let client = app(&router).connect();
    assert_eq!(dba(&router).run("SHUTDOWN WAIT_FOR_CLIENTS"), "SHUTDOWN");
    let failure = app(&router).login(&[]).map(drop).unwrap_err();
    assert_eq!(
        (failure.code(), failure.message()),
        ("57P03", "the router is shutting down")
    );
    assert_eq!(dba(&router).rows("SHOW VERSION").len(), 1);
    drop(client);
    ended(&mut router);
    // When the last transaction is over.
    let mut router = deployment.another_router();
    let mut client = app(&router).connect();
    client.run(&format!(
        "BEGIN; UPDATE orders SET total = 5 WHERE id = {}",
        keys[0]
    ));
    dba(&router).run("SHUTDOWN WAIT_FOR_SERVERS");
    client.run(&format!(
        "UPDATE orders SET total = 5 WHERE id = {}",
        keys[1]
    ));
    assert_eq!(client.run("COMMIT"), "COMMIT");
    ended(&mut router);
    let sum = "SELECT sum(total) FROM orders";
    assert_eq!(deployment.connect().value(sum), "10");
}

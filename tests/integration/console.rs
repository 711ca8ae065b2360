//! The operators' console, through every way that clients have: the simple and the extended protocol by hand, psql, and
//! tokio-postgres, which asks for binary results.

use crate::support::deployment::Options;
use crate::support::{Client, Deployment, Target};
use postgres_protocol::message::frontend;
use tokio_postgres::{NoTls, SimpleQueryMessage};

const OPERATORS: &str = "[[user]]\nname = \"dba\"\npassword = \"dba\"\nadmin = true\n\
    [[user]]\nname = \"watch\"\npassword = \"watch\"\nmonitor = true\n";

fn options() -> Options<'static> {
    Deployment::shared()
        .schema("CREATE TABLE orders (id bigint PRIMARY KEY, total int)")
        .sharded("orders", "id")
        .settings(OPERATORS)
}

fn console(deployment: &Deployment<'_>, user: &str) -> Target {
    Target {
        user: user.into(),
        password: user.into(),
        database: "pgring".into(),
        ..deployment.target()
    }
}

fn admin(deployment: &Deployment<'_>) -> Client {
    console(deployment, "dba").connect()
}

/// The column of this name, of each row.
fn column(client: &mut Client, sql: &str, name: &str) -> Vec<String> {
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
    let deployment = options().start();
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
    assert_eq!(watch.rows("SHOW VERSION").len(), 1);
    let mut dba = admin(&deployment);
    assert_eq!(
        dba.rows("RECOVER TRANSACTIONS"),
        [["0", "0", "0", "0", "0"]]
    );
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

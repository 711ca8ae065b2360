//! What broke other routers and poolers and is shown nowhere else here. `tests/behaviours.md` lists all such behaviours
//! and the test of each.

use crate::support::client::Message;
use crate::support::{Client, Deployment, Target, eventually};
use postgres_protocol::message::frontend;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

/// Four shards and a sharded table of 40 rows.
fn start(settings: &str) -> Deployment<'static> {
    let deployment = Deployment::shared()
        .schema("CREATE TABLE accounts (aid bigint PRIMARY KEY, name text, at timestamptz, photo bytea)")
        .schema(
            "CREATE FUNCTION say(what text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS \
             'BEGIN RAISE NOTICE ''%'', what; RETURN what; END'",
        )
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    let rows: Vec<String> = (1..=40).map(|aid| format!("({aid}, 'n{aid}')")).collect();
    let insert = format!(
        "INSERT INTO accounts (aid, name) VALUES {}",
        rows.join(", ")
    );
    deployment.connect().run(&insert);
    deployment
}

/// One that the tests share.
fn deployment() -> &'static Deployment<'static> {
    static SHARED: OnceLock<Deployment<'static>> = OnceLock::new();
    SHARED.get_or_init(|| start(""))
}

/// One with one connection to each shard, so that each client has what the one before left.
fn narrow() -> Deployment<'static> {
    start("[pool]\nsize = 1")
}

fn prepare(client: &mut Client, name: &str, sql: &str) {
    client.message(|buffer| {
        frontend::parse(name, sql, [], buffer)?;
        frontend::sync(buffer);
        Ok(())
    });
    assert_eq!(client.reply().failure, None, "{sql}");
}

/// Runs a prepared statement; the first column of its rows as text.
fn execute(client: &mut Client, name: &str, values: &[&str]) -> Vec<String> {
    client.message(|buffer| {
        let put = |value: &&str, buffer: &mut bytes::BytesMut| {
            buffer.extend_from_slice(value.as_bytes());
            Ok(postgres_protocol::IsNull::No)
        };
        frontend::bind("", name, [], values, put, [], buffer)
            .map_err(|_| io::Error::other("cannot bind"))?;
        frontend::execute("", 0, buffer)?;
        frontend::sync(buffer);
        Ok(())
    });
    let reply = client.reply();
    assert_eq!(reply.failure, None, "{name}");
    let rows = reply.outcomes.into_iter().flat_map(|outcome| outcome.rows);
    let text = |row: Vec<Option<Vec<u8>>>| {
        String::from_utf8(row[0].clone().unwrap_or_default()).expect("text")
    };
    rows.map(text).collect()
}

#[test]
fn a_name_of_a_statement_means_its_own_clients_statement() {
    let deployment = narrow();
    let mut clients: Vec<Client> = (0..4).map(|_| deployment.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let sql = format!("SELECT name || '-{number}' FROM accounts WHERE aid = $1");
        prepare(client, "s0", &sql);
    }
    for aid in 1..=12 {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(
                execute(client, "s0", &[&aid.to_string()]),
                [format!("n{aid}-{number}")]
            );
        }
    }
    // One client's DEALLOCATE ALL is not the others'.
    clients[0].run("DEALLOCATE ALL");
    assert_eq!(execute(&mut clients[1], "s0", &["5"]), ["n5-1"]);
}

#[test]
fn a_hint_belongs_to_the_statement_that_carries_it() {
    let deployment = deployment();
    let mut client = deployment.connect();
    for shard in 0..4 {
        let sql = format!("/* pgring: shard=s{shard} */ SELECT shard FROM pgring.ownership");
        prepare(&mut client, &format!("s{shard}"), &sql);
    }
    for shard in [2, 0, 3, 1, 1, 0] {
        assert_eq!(
            execute(&mut client, &format!("s{shard}"), &[]),
            [format!("s{shard}")]
        );
    }
}

#[test]
fn lists_are_handed_from_client_to_client_without_growing() {
    let deployment = narrow();
    let paths = [
        r#"public, "a, b", "Odd""x""#,
        r#""$user", public"#,
        "public",
    ];
    let mut clients: Vec<Client> = (0..3).map(|_| deployment.connect()).collect();
    for (client, path) in clients.iter_mut().zip(paths) {
        client.run(&format!("SET search_path = {path}"));
        client.run("SET datestyle = 'SQL, DMY'");
    }
    for aid in 1..=8 {
        for (client, path) in clients.iter_mut().zip(paths) {
            let sql = format!(
                "SELECT current_setting('search_path'), current_setting('datestyle') FROM accounts WHERE aid = {aid}"
            );
            assert_eq!(client.rows(&sql), [[path, "SQL, DMY"]]);
        }
    }
}

#[test]
fn startup_options_are_read_as_postgresql_reads_them() {
    let deployment = deployment();
    let options = [
        r"-c search_path=public,\ pg_catalog -cwork_mem=7MB --application-name=dashed",
        r"-c application_name=it's\ \\\ 'quoted'; -c statement_timeout=1min",
        r"--work_mem=5MB   -c  datestyle=German",
        "-c application_name=x');DROP\\ TABLE\\ accounts;--",
        "-c extra.setting=one",
    ];
    let shows = [
        "search_path",
        "work_mem",
        "application_name",
        "statement_timeout",
        "datestyle",
    ];
    let said = |target: &Target, options: &str| -> Vec<String> {
        let mut client = target.login(&[("options", options)]).unwrap();
        shows
            .iter()
            .map(|name| client.value(&format!("SHOW {name}")))
            .collect()
    };
    for options in options {
        assert_eq!(
            said(&deployment.target(), options),
            said(&deployment.one(), options),
            "{options}"
        );
    }
}

#[test]
fn a_shard_may_be_named_at_login() {
    let deployment = deployment();
    let which = "SELECT shard FROM pgring.ownership";
    let asked = [("options", "-c pgring.shard=s2")];
    let mut client = deployment.target().login(&asked).unwrap();
    assert_eq!(client.value(which), "s2");
    assert_eq!(client.value("SHOW pgring.shard"), "s2");
    client.run("SET pgring.shard = 's3'");
    assert_eq!(client.value(which), "s3");
    for back in [
        "RESET pgring.shard",
        "SET pgring.shard TO DEFAULT",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        client.run("SET pgring.shard = ''");
        assert_eq!(client.value("SHOW pgring.shard"), "");
        client.run(back);
        assert_eq!(client.value(which), "s2", "{back}");
    }
    for wrong in ["-c pgring.shard=nowhere", "-c pgring.other=1"] {
        let failure = deployment.target().login(&[("options", wrong)]).err();
        assert_eq!(failure.expect("a refusal").code(), "22023", "{wrong}");
    }
}

#[test]
fn a_shard_sees_the_clients_application_name() {
    let deployment = deployment();
    let mut client = deployment
        .target()
        .login(&[("application_name", "reports")])
        .unwrap();
    assert_eq!(client.parameters["application_name"], "reports");
    client.run("BEGIN");
    client.run("SELECT FROM accounts");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reports' AND datname = current_database()";
    assert_eq!(deployment.on_each_shard(sql), ["1"; 4]);
    client.run("ROLLBACK");
    assert_eq!(deployment.connect().value("SHOW application_name"), "");
}

#[test]
fn an_error_of_copy_says_where() {
    let deployment = deployment();
    let copy = |client: &mut Client| {
        let reply = client.copy_in(
            "COPY accounts (aid, at) FROM STDIN",
            b"101\t2024-01-01\n102\tnever ever\n",
            9,
        );
        reply.failure.expect("no such time")
    };
    let (ours, plain) = (
        copy(&mut deployment.connect()),
        copy(&mut deployment.one().connect()),
    );
    assert_eq!(
        (ours.code(), ours.message()),
        (plain.code(), plain.message())
    );
    let context = &ours.fields[&'W'];
    assert!(context.starts_with("COPY accounts, line "), "{context}");
    assert!(
        context.ends_with(", column at: \"never ever\""),
        "{context}"
    );
}

#[test]
fn large_objects_live_on_the_default_shard() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let oid = client.value("SELECT lo_from_bytea(0, '\\x00010203')");
    assert_eq!(
        client.value(&format!("SELECT lo_get({oid})")),
        "\\x00010203"
    );
    client.run("BEGIN");
    let descriptor = client.value(&format!("SELECT lo_open({oid}, x'60000'::int)"));
    assert_eq!(
        client.value(&format!("SELECT lowrite({descriptor}, '\\xff')")),
        "1"
    );
    client.run("COMMIT");
    assert_eq!(
        client.value(&format!("SELECT lo_get({oid})")),
        "\\xff010203"
    );
    let sql = format!("SELECT count(*) FROM pg_largeobject_metadata WHERE oid = {oid}");
    assert_eq!(deployment.shards_with(&sql), [0]);
    client.run(&format!("SELECT lo_unlink({oid})"));
}

#[test]
fn the_time_is_one_on_all_shards() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("INSERT INTO accounts (aid, at) VALUES (201, now()), (202, now()), (203, now()), (204, now())");
    let times = "SELECT count(*), count(DISTINCT at) FROM accounts WHERE aid BETWEEN 201 AND 204";
    assert_eq!(client.rows(times), [["4", "1"]]);
    client.run("UPDATE accounts SET at = now()");
    assert_eq!(client.value("SELECT count(DISTINCT at) FROM accounts"), "1");
    client.run("DELETE FROM accounts WHERE aid > 200 AND at < CURRENT_TIMESTAMP");
    // One shard's own time is as good as any.
    client.run("INSERT INTO accounts (aid, at) VALUES (201, now())");
    client.run("UPDATE accounts SET at = clock_timestamp() WHERE aid = 201");
    client.run("DELETE FROM accounts WHERE aid = 201 AND at < CURRENT_TIMESTAMP");
    assert_eq!(
        client.value("SELECT count(*) FROM accounts WHERE aid > 200"),
        "0"
    );
}

#[test]
fn a_notice_of_every_shard_is_heard_once() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("SELECT say('hear') FROM accounts");
    let heard: Vec<&str> = client
        .notices
        .iter()
        .map(|notice| notice.message())
        .collect();
    assert_eq!(heard, ["hear"]);
}

#[test]
fn a_limit_that_is_none_is_an_error_over_all_shards_too() {
    let deployment = deployment();
    let (mut client, mut plain) = (deployment.connect(), deployment.one().connect());
    for sql in ["LIMIT -1", "OFFSET -1"] {
        let sql = format!("SELECT aid FROM accounts ORDER BY aid {sql}");
        assert_eq!(client.fails(&sql).code(), plain.fails(&sql).code(), "{sql}");
    }
    let sql = "SELECT aid FROM accounts ORDER BY aid LIMIT $1 OFFSET $2";
    for bad in [["-1", "0"], ["0", "-1"], ["x", "0"]] {
        let values = bad.map(Some);
        let said = |client: &mut Client| {
            client
                .extended(sql, &values, false)
                .failure
                .expect("an error")
        };
        assert_eq!(said(&mut client).code(), said(&mut plain).code(), "{bad:?}");
    }
}

#[test]
fn megabytes_go_in_and_out_and_past_a_limit_are_refused() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let photo = format!("\\x{}", "0aff".repeat(6 << 20));
    let insert = "INSERT INTO accounts (aid, photo) VALUES (101, $1)";
    let reply = client.extended(insert, &[Some(&photo)], false);
    assert_eq!(reply.failure, None);
    let reply = client.extended("SELECT photo FROM accounts WHERE aid = 101", &[], false);
    let value = reply.outcomes[0].rows[0][0].as_deref();
    assert!(value == Some(photo.as_bytes()), "{:?}", reply.failure);
    let reply = client.extended(
        "SELECT photo FROM accounts ORDER BY aid DESC LIMIT 1",
        &[],
        true,
    );
    let value = reply.outcomes[0].rows[0][0].as_deref();
    assert!(
        value.is_some_and(|bytes| bytes.len() == 12 << 20),
        "{:?}",
        reply.failure
    );
    assert_eq!(
        client.value("SELECT octet_length(photo) FROM accounts WHERE aid = 101"),
        (12 << 20).to_string()
    );
    client.run("DELETE FROM accounts WHERE aid = 101");

    let small = Deployment::shared()
        .schema("CREATE TABLE accounts (aid bigint PRIMARY KEY, photo bytea)")
        .sharded("accounts", "aid")
        .settings("[limits]\nframe_bytes = \"1MB\"")
        .start();
    let mut client = small.connect();
    let below = format!("\\x{}", "0a".repeat(400 << 10));
    assert_eq!(
        client.extended(insert, &[Some(&below)], false).failure,
        None
    );
    let failure = client
        .extended(insert, &[Some(&photo)], false)
        .failure
        .expect("a limit");
    assert!(failure.code() == "54000", "{failure}");
    assert_eq!(
        small
            .connect()
            .value("SELECT count(*) FROM accounts WHERE aid = 101"),
        "1"
    );
}

#[test]
fn who_only_knocks_is_not_worth_a_line() {
    let mut deployment = start("");
    let before = deployment.router().log();
    for _ in 0..20 {
        drop(deployment.target().socket().expect("connect"));
    }
    for knock in [&b"\0"[..], &[0, 0, 0, 8]] {
        let mut client = deployment.target().socket().expect("connect");
        client.send(knock);
    }
    // Answered after them.
    assert_eq!(deployment.connect().value("SELECT 1"), "1");
    std::thread::sleep(Duration::from_millis(200));
    let log = deployment.router().log();
    assert_eq!(&log[before.len()..], "");
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

#[test]
fn what_is_said_before_the_answer_about_encryption_is_not_believed() {
    let deployment = deployment();
    let target = deployment.target();
    let mut client = target.socket().expect("connect");
    let mut startup = bytes::BytesMut::new();
    let who = [
        ("user", target.user.as_str()),
        ("database", target.database.as_str()),
    ];
    frontend::startup_message(who, &mut startup).unwrap();
    client.send(&[&SSL_REQUEST[..], &startup].concat());
    let Message { tag, body } = client.read().expect("an error");
    assert_eq!(tag, b'E', "{body:?}");
    assert!(client.read().is_none(), "the connection ends");
}

#[test]
fn encryption_at_once_is_not_spoken() {
    let deployment = deployment();
    let mut client = deployment.target().socket().expect("connect");
    // The beginning of a TLS ClientHello.
    client.send(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    let said = client.read_bytes(1000);
    assert!(said.is_empty() || said[0] == b'E', "{said:?}");
    assert_eq!(deployment.connect().value("SELECT 1"), "1");
}

#[test]
fn channel_binding_is_offered_to_nobody_without_encryption() {
    let deployment = deployment();
    let target = deployment.target();
    let mut client = target.socket().expect("connect");
    client.message(|buffer| {
        let who = [
            ("user", target.user.as_str()),
            ("database", target.database.as_str()),
        ];
        frontend::startup_message(who, buffer)
    });
    let message = client.read().expect("a question");
    let mut fields = message.fields();
    assert_eq!((message.tag, fields.int32()), (b'R', 10), "SASL");
    assert_eq!(fields.text(), "SCRAM-SHA-256");
    assert_eq!(fields.byte(), Some(0), "and nothing else");
}

#[test]
fn pids_are_those_of_a_shard() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("BEGIN");
    client.run("SELECT FROM accounts WHERE aid = 1");
    let pid = client.value("SELECT pg_backend_pid()");
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'idle in transaction'"
    );
    assert_eq!(deployment.shards_with(&sql).len(), 1);
    client.run("ROLLBACK");
}

#[test]
fn a_dump_is_refused_rather_than_wrong() {
    let deployment = deployment();
    let output = deployment.program("pg_dump").output().expect("run pg_dump");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{complaint}");
    assert!(
        complaint.contains("not supported through the router") || complaint.contains("refusal: "),
        "{complaint}"
    );
    let mut client = deployment.connect();
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let failure = client.fails("SET TRANSACTION SNAPSHOT '00000003-0000001B-1'");
    assert_eq!(failure.refusal(), Some("transaction-snapshot"));
    client.run("ROLLBACK");
    assert_eq!(
        client.fails("SELECT pg_export_snapshot()").refusal(),
        Some("session-state")
    );
}

#[test]
fn what_belongs_to_one_servers_session_is_refused() {
    let deployment = deployment();
    let mut client = deployment.connect();
    for (sql, code) in [
        ("SELECT setseed(0.5)", "session-state"),
        ("SET SEED TO 0.5", "session-state"),
        ("SELECT currval('s')", "session-state"),
        ("SELECT lastval()", "session-state"),
        ("LOAD 'auto_explain'", "session-state"),
        (
            "SET SESSION AUTHORIZATION postgres",
            "session-authorization",
        ),
        ("ALTER SYSTEM SET work_mem = '1MB'", "server-object"),
        ("CREATE DATABASE other", "server-object"),
        ("DO $$ BEGIN PERFORM 1; END $$", "procedural-function"),
        ("SET client_encoding = 'LATIN1'", "client-encoding"),
        (
            "DECLARE c CURSOR FOR SELECT * FROM accounts FOR UPDATE",
            "cursor",
        ),
        ("PREPARE TRANSACTION 'mine'", "prepare-transaction"),
        ("COMMIT PREPARED 'mine'", "prepare-transaction"),
    ] {
        client.run("BEGIN");
        assert_eq!(client.fails(sql).refusal(), Some(code), "{sql}");
        client.simple("ROLLBACK");
        assert_eq!(client.value("SELECT 1"), "1");
    }
    eventually(Duration::from_secs(5), "no connection is kept", || {
        deployment
            .connect()
            .value("SELECT count(*) FROM accounts WHERE aid = 1")
            == "1"
    });
}

#[test]
fn a_type_that_each_shard_numbers_otherwise_is_told_by_its_name_only() {
    // Each server burns another number of OIDs first.
    let deployment = Deployment::shared()
        .schema(
            "DO $$ BEGIN FOR i IN 1..current_setting('port')::int % 50 LOOP \
             EXECUTE 'CREATE TYPE burnt AS ENUM ()'; EXECUTE 'DROP TYPE burnt'; END LOOP; END $$",
        )
        .schema("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
        .schema("CREATE TABLE moods (id bigint PRIMARY KEY, mood mood NOT NULL, past mood[])")
        .sharded("moods", "id")
        .start();
    let oids = deployment.on_each_shard("SELECT 'mood'::regtype::oid");
    assert!(oids.iter().any(|oid| *oid != oids[0]), "{oids:?}");
    let mut client = deployment.connect();
    let rows: Vec<String> = (1..=20)
        .map(|id| format!("({id}, 'ok', '{{sad,ok}}')"))
        .collect();
    client.run(&format!("INSERT INTO moods VALUES {}", rows.join(", ")));
    client.run("UPDATE moods SET mood = 'happy' WHERE id = 7");
    let all = "SELECT id, mood, past FROM moods ORDER BY id";
    let happy = client.rows(all).into_iter().filter(|row| row[1] == "happy");
    assert_eq!(happy.collect::<Vec<_>>(), [["7", "happy", "{sad,ok}"]]);
    assert_eq!(client.extended(all, &[], false).outcomes[0].rows.len(), 20);
    let failure = client.extended(all, &[], true).failure.expect("a refusal");
    assert_eq!(failure.refusal(), Some("schema-drift"), "{failure}");
    for id in 1..=20 {
        let reply = client.extended(
            "SELECT mood FROM moods WHERE id = $1 AND mood = ANY($2)",
            &[Some(&id.to_string()), Some("{ok,happy}")],
            true,
        );
        let mood: &[u8] = if id == 7 { b"happy" } else { b"ok" };
        assert_eq!(reply.outcomes[0].rows, [[Some(mood.to_vec())]]);
    }
}

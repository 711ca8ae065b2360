//! What a session keeps of its own, over connections that it shares with others.

use crate::support::client::Failure;
use crate::support::{Client, Deployment, cluster};
use postgres_protocol::message::frontend;

const SCHEMA: &str = "CREATE TABLE accounts (aid bigint PRIMARY KEY, balance int)";

/// One connection a shard, so that each client has what the one before left.
fn deployment() -> Deployment<'static> {
    Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings("[pool]\nsize = 1")
        .start()
}

/// Runs `sql` on each server as its superuser.
fn as_superuser(sql: &str) {
    let sandbox = cluster::shared();
    for server in 0..cluster::SERVERS {
        cluster::superuser(sandbox, server, "postgres")
            .connect()
            .run(sql);
    }
}

#[test]
fn a_setting_that_was_not_confirmed_is_not_left_to_others() {
    let deployment = deployment();
    as_superuser("GRANT SET ON PARAMETER session_preload_libraries TO app");
    let mut one = deployment.connect();
    let set = "SET session_preload_libraries = 'nothing'";
    assert_eq!(one.fails(set).code(), "42501", "it may set, but not show");
    assert_eq!(one.fails(&format!("SELECT 1; {set}")).code(), "42501");
    assert_eq!(
        one.extended(set, &[], false).failure.unwrap().code(),
        "42501"
    );
    let set = "SELECT set_config('session_preload_libraries', 'nothing', false)";
    assert_eq!(one.fails(set).code(), "42501");
    as_superuser("GRANT pg_read_all_settings TO app");
    let shown = deployment.connect().value("SHOW session_preload_libraries");
    let own = one.value("SHOW session_preload_libraries");
    as_superuser("REVOKE pg_read_all_settings FROM app");
    assert_eq!((shown.as_str(), own.as_str()), ("", ""));
}

#[test]
fn a_default_is_what_the_client_logged_in_with() {
    let deployment = deployment();
    let mut client = deployment
        .target()
        .login(&[("options", "-c work_mem=9MB")])
        .unwrap();
    for back in ["SET work_mem TO DEFAULT", "RESET work_mem", "RESET ALL"] {
        client.run("SET work_mem = '5MB'");
        assert_eq!(client.value("SHOW work_mem"), "5MB");
        client.run(back);
        assert_eq!(client.value("SHOW work_mem"), "9MB", "{back}");
        assert_eq!(deployment.connect().value("SHOW work_mem"), "4MB");
        assert_eq!(client.value("SHOW work_mem"), "9MB", "{back}");
    }
}

#[test]
fn a_hint_that_was_set_in_a_pipeline_that_failed_is_taken_back() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("SET pgring.shard = 's1'");
    client.message(|buffer| {
        for sql in ["SET pgring.shard = 's2'", "SELECT 1/0"] {
            frontend::parse("", sql, [], buffer)?;
            frontend::bind("", "", [], [(); 0], |(), _| unreachable!(), [], buffer)
                .map_err(|_| std::io::Error::other("cannot bind"))?;
            frontend::execute("", 0, buffer)?;
        }
        frontend::sync(buffer);
        Ok(())
    });
    assert_eq!(client.reply().failure.unwrap().code(), "22012");
    assert_eq!(client.value("SHOW pgring.shard"), "s1");
}

#[test]
fn a_setting_of_ones_own_leaves_nothing_to_others() {
    let deployment = deployment();
    let read = "SELECT coalesce(current_setting('my.tenant', true), 'never set')";
    let ways: [&[&str]; 8] = [
        &["SET my.tenant = 'a'", "RESET my.tenant"],
        &["SET my.tenant = 'a'", "RESET ALL"],
        &["SET my.tenant = 'a'", "DISCARD ALL"],
        &["SET my.tenant = 'a'"],
        &["BEGIN; SET LOCAL my.tenant = 'a'; COMMIT"],
        &["BEGIN; SET my.tenant = 'a'; ROLLBACK"],
        &["BEGIN; SELECT set_config('my.tenant', 'a', true); COMMIT"],
        &["SELECT set_config('my.tenant', 'a', false)"],
    ];
    for way in ways {
        let mut one = deployment.connect();
        assert_eq!(one.value(read), "never set", "before {way:?}");
        way.iter().for_each(|sql| {
            one.run(sql);
        });
        assert_ne!(one.value(read), "never set", "{way:?}");
        let mut two = deployment.connect();
        assert_eq!(two.value(read), "never set", "{way:?}");
        two.run("BEGIN");
        assert_eq!(two.value(read), "never set", "{way:?}");
        two.run("COMMIT");
        assert_eq!(one.column("SELECT aid FROM accounts"), [""; 0]);
    }
    let mut client = deployment
        .target()
        .login(&[("options", "-c my.tenant=b")])
        .unwrap();
    assert_eq!(client.value(read), "b");
    assert_eq!(deployment.connect().value(read), "never set");
    assert_eq!(client.value(read), "b");
}

#[test]
fn clients_with_a_setting_of_their_own_share_connections() {
    let deployment = deployment();
    let pid = "SELECT pg_backend_pid()";
    let local = "BEGIN; SELECT set_config('my.tenant', 'a', true); COMMIT";
    let [mut one, mut two] = [deployment.connect(), deployment.connect()];
    one.run(local);
    two.run(local);
    let first = one.value(pid);
    for _ in 0..3 {
        two.run(local);
        assert_eq!(two.value(pid), first);
        one.run(local);
        assert_eq!(one.value(pid), first);
    }
}

#[test]
fn portals_are_limited() {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings("[limits]\nportals = 3")
        .start();
    let mut client = deployment.connect();
    client.run("BEGIN");
    for portal in ["", "a", "b"] {
        assert_eq!(bound(&mut client, portal, "SELECT 1"), None, "{portal}");
    }
    assert_eq!(bound(&mut client, "", "SET work_mem = '5MB'"), None);
    let failure = bound(&mut client, "c", "SELECT 1").expect("one too many");
    assert_eq!(
        (failure.code(), failure.detail(), failure.hint()),
        (
            "53400",
            "limits.portals is 3",
            "Close portals that are no longer used, or send Sync more often."
        )
    );
    client.run("ROLLBACK; BEGIN");
    assert_eq!(bound(&mut client, "c", "SELECT 1"), None);
}

fn bound(client: &mut Client, portal: &str, sql: &str) -> Option<Failure> {
    client.message(|buffer| {
        frontend::parse("", sql, [], buffer)?;
        frontend::bind(portal, "", [], [(); 0], |(), _| unreachable!(), [], buffer)
            .map_err(|_| std::io::Error::other("cannot bind"))?;
        frontend::sync(buffer);
        Ok(())
    });
    client.reply().failure
}

#[test]
fn answers_do_not_wait_for_sync_without_end() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.message(|buffer| {
        frontend::parse("plan", "EXPLAIN SELECT 1", [], buffer)?;
        frontend::parse("", "SELECT 1", [], buffer)?;
        frontend::describe(b'S', "", buffer)?;
        for _ in 0..5000 {
            frontend::describe(b'S', "plan", buffer)?;
        }
        Ok(())
    });
    // Neither Sync nor Flush was sent.
    let mut tags: Vec<u8> = Vec::new();
    while tags.len() < 1000 {
        tags.push(client.read().expect("an answer").tag);
    }
    assert_eq!(tags[..7], *b"11tTtTt");
    client.message(|buffer| {
        frontend::sync(buffer);
        Ok(())
    });
    let rest = std::iter::from_fn(|| client.read().filter(|message| message.tag != b'Z'));
    assert_eq!(tags.len() + rest.count(), 2 + 2 + 2 * 5000);
}

fn fill(client: &mut Client) {
    let rows: Vec<String> = (1..=40).map(|aid| format!("({aid})")).collect();
    client.run(&format!(
        "INSERT INTO accounts (aid) VALUES {}",
        rows.join(", ")
    ));
}

#[test]
fn a_block_that_is_idle_for_too_long_ends_the_session() {
    let deployment = deployment();
    let mut client = deployment.connect();
    fill(&mut client);
    client.run("SET idle_in_transaction_session_timeout = '300ms'");
    client.run("BEGIN; UPDATE accounts SET balance = 1");
    let message = client.read().expect("a farewell");
    assert_eq!(message.tag, b'E');
    let failure = message.failure();
    assert_eq!((failure.code(), failure.severity()), ("25P03", "FATAL"));
    assert!(client.read().is_none(), "the connection is closed");
    let mut other = deployment.connect();
    assert_eq!(
        other.column("SELECT aid FROM accounts WHERE balance = 1"),
        [""; 0]
    );
    other.run("UPDATE accounts SET balance = 2");
}

#[test]
fn a_timeout_ends_a_statement_on_all_shards_once() {
    let deployment = deployment();
    let mut client = deployment.connect();
    fill(&mut client);
    for timeout in ["'300'", "'0.3s'", "300"] {
        client.run(&format!("SET statement_timeout = {timeout}"));
        for sql in [
            "SELECT aid, pg_sleep(60) FROM accounts",
            "UPDATE accounts SET balance = aid WHERE pg_sleep(60) IS NOT NULL",
        ] {
            let failure = client.fails(sql);
            assert_eq!(failure.code(), "57014", "{timeout} {sql}");
            assert!(failure.message().contains("timeout"), "{failure}");
            let failure = client.extended(sql, &[], false).failure.unwrap();
            assert_eq!(failure.code(), "57014", "{timeout} {sql}");
            let running = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND usename = 'app' AND state <> 'idle'";
            assert_eq!(deployment.on_each_shard(running), ["0"; 4]);
        }
        assert_eq!(client.value("SELECT 1"), "1");
    }
}

#[test]
fn of_several_shards_that_fail_the_first_is_heard() {
    let schema = "CREATE TABLE rows (id int PRIMARY KEY, body text, d int, s int, n int)";
    let deployment = Deployment::shared()
        .schema(schema)
        .sharded("rows", "id")
        .start();
    let mut client = deployment.connect();
    let rows: Vec<String> = (1..=100)
        .map(|id| format!("({id}, '{}', 1, 1, 0)", "x".repeat(2000)))
        .collect();
    client.run(&format!("INSERT INTO rows VALUES {}", rows.join(", ")));
    // Fails after rows that are sent at once.
    deployment
        .shard(0)
        .run("UPDATE rows SET d = 0 WHERE id = (SELECT max(id) FROM rows)");
    // Fails with its first row, a little later.
    deployment
        .shard(1)
        .run("DELETE FROM rows WHERE id <> (SELECT max(id) FROM rows)");
    deployment
        .shard(1)
        .run("UPDATE rows SET s = -1, n = 50000000");
    let sql = "SELECT body, length(repeat('x', n)) + 1 / d + sqrt(s) FROM rows";
    for _ in 0..5 {
        assert_eq!(client.fails(sql).code(), "22012");
        let reply = client.extended(sql, &[], false);
        assert_eq!(reply.failure.unwrap().code(), "22012");
    }
}

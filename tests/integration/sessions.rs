//! What a session keeps of its own, over connections that it shares with others.

use crate::support::client::{Failure, Reply};
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
fn clients_with_and_without_a_setting_of_their_own_keep_their_connections() {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings("[pool]\nsize = 3")
        .start();
    let pid = "SELECT pg_backend_pid()";
    let [mut with, mut without] = [deployment.connect(), deployment.connect()];
    with.run("SET my.tenant = 'a'");
    let [first, second] = [with.value(pid), without.value(pid)];
    for _ in 0..5 {
        assert_eq!(with.value(pid), first);
        assert_eq!(without.value(pid), second);
    }
    // Many who wait in line.
    let mut pids: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|client| {
                let target = deployment.target();
                scope.spawn(move || {
                    let mut one = target.connect();
                    if client % 2 == 0 {
                        one.run("SET my.tenant = 'b'");
                    }
                    (0..50).map(|_| one.value(pid)).collect::<Vec<_>>()
                })
            })
            .collect();
        let ended = clients.into_iter().map(|client| client.join().unwrap());
        ended.flatten().collect()
    });
    assert_eq!(pids.len(), 600);
    pids.sort();
    pids.dedup();
    assert!(
        pids.len() <= 60,
        "{} connections for 600 statements",
        pids.len()
    );
}

#[test]
fn a_block_that_begins_with_a_setting_holds_no_connection_for_it() {
    let deployment = deployment();
    let mut client = deployment.connect();
    fill(&mut client);
    let mut other = deployment.connect();
    let on = |shard: usize| {
        deployment
            .shard(shard)
            .value("SELECT min(aid) FROM accounts")
    };
    let read = |shard: usize| {
        let aid = on(shard);
        format!(
            "SELECT current_setting('my.tenant') || current_setting('work_mem') FROM accounts WHERE aid = {aid}"
        )
    };
    let free = format!("SELECT aid FROM accounts WHERE aid = {}", on(0));
    // The first time the default shard is asked, and left when another one is needed.
    client.run("BEGIN; SET LOCAL my.tenant = 'a'; SET LOCAL work_mem = '5MB'");
    assert_eq!(client.value(&read(1)), "a5MB");
    assert_eq!(other.value(&free), on(0));
    client.run("COMMIT");
    // Then it is not asked.
    for (tenant, sql) in [
        ("b", "SET LOCAL my.tenant = 'b'"),
        ("7", "SET LOCAL my.tenant = 7"),
    ] {
        client.run("BEGIN");
        client.run(sql);
        client.run("SET LOCAL work_mem = '5MB'");
        assert_eq!(other.value(&free), on(0));
        assert_eq!(client.value(&read(1)), format!("{tenant}5MB"));
        assert_eq!(other.value(&free), on(0));
        client.run("SAVEPOINT a; SET LOCAL work_mem = '6MB'");
        assert_eq!(client.value(&read(0)), format!("{tenant}6MB"));
        client.run("ROLLBACK TO a");
        assert_eq!(client.value(&read(0)), format!("{tenant}5MB"));
        client.run("COMMIT");
    }
    assert_eq!(
        other.fails("BEGIN; SET LOCAL work_mem = 'lots'").code(),
        "22023"
    );
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

#[test]
fn what_a_block_sets_is_kept_up_to_a_limit() {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings("[limits]\nblock_bytes = \"1kB\"")
        .start();
    let mut client = deployment.connect();
    client.run("BEGIN");
    let value = "x".repeat(300);
    for _ in 0..5 {
        client.run(&format!("SET LOCAL my.own = '{value}'"));
    }
    client.run("SAVEPOINT a; RELEASE a; SAVEPOINT b");
    client.run("SET LOCAL work_mem = '5MB'");
    let long = "x".repeat(700);
    let failure = client.fails(&format!("SET LOCAL my.other = '{long}'"));
    assert_eq!(
        (failure.code(), failure.detail(), failure.hint()),
        (
            "53400",
            "limits.block_bytes is 1024",
            "Release savepoints, or end the transaction."
        )
    );
    client.run("ROLLBACK TO b");
    assert_eq!(client.value("SHOW my.own"), value);
    assert_eq!(client.value("SHOW work_mem"), "4MB");
    let too_many = |client: &mut Client| {
        let mut savepoints = 0;
        while client.simple("SAVEPOINT c").failure.is_none() {
            savepoints += 1;
            assert!(savepoints < 20);
        }
        savepoints
    };
    let left = too_many(&mut client);
    assert!(left > 0);
    client.run("ROLLBACK");
    client.run("BEGIN");
    assert!(too_many(&mut client) > left);
}

#[test]
fn what_set_config_leaves_is_known_or_refused() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let both = "SELECT set_config('work_mem', '5MB', false), set_config('work_mem', '6MB', true)";
    assert_eq!(client.fails(both).refusal(), Some("session-state"));
    let unknown = "SELECT set_config('work_mem', '5MB', 1 = 1)";
    assert_eq!(client.fails(unknown).refusal(), Some("session-state"));
    let named = |name: &str| {
        format!("SELECT set_config(name, '7MB', false) FROM pg_settings WHERE name = '{name}'")
    };
    assert_eq!(client.column(&named("work_mem")), ["7MB"]);
    assert_eq!(client.column(&named("no_such_setting")), [""; 0]);
    assert_eq!(client.value("SHOW work_mem"), "7MB");
    client.run("RESET work_mem");
    let any = "SELECT set_config(name, '7MB', false) FROM pg_settings WHERE name <> ''";
    assert_eq!(client.fails(any).refusal(), Some("session-state"));
    client.run("BEGIN; SET LOCAL work_mem = '5MB'");
    let set = "SELECT set_config('work_mem', '5MB', false)";
    assert_eq!(client.fails(set).refusal(), Some("session-state"));
    client.run("ROLLBACK; BEGIN; SET LOCAL work_mem = '6MB'");
    client.run(&format!("{set}; COMMIT"));
    assert_eq!(client.value("SHOW work_mem"), "5MB");
}

#[test]
fn explain_is_part_of_its_block() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let mut refusals = 0;
    for aid in 1..10 {
        client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
        client.run("EXPLAIN SELECT * FROM accounts WHERE aid = 1");
        let reply = client.simple(&format!("SELECT aid FROM accounts WHERE aid = {aid}"));
        if let Some(failure) = reply.failure {
            assert_eq!(failure.refusal(), Some("snapshot-isolation"));
            refusals += 1;
        }
        client.run("ROLLBACK");
    }
    assert!((1..9).contains(&refusals), "{refusals} of 9 were refused");
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
        frontend::parse("begin", "BEGIN", [], buffer)?;
        frontend::parse("", "SELECT 1", [], buffer)?;
        frontend::describe(b'S', "", buffer)?;
        for _ in 0..20_000 {
            frontend::describe(b'S', "begin", buffer)?;
        }
        Ok(())
    });
    // Neither Sync nor Flush was sent.
    let mut tags: Vec<u8> = Vec::new();
    while tags.len() < 1000 {
        tags.push(client.read().expect("an answer").tag);
    }
    assert_eq!(tags[..7], *b"11tTtnt");
    client.message(|buffer| {
        frontend::sync(buffer);
        Ok(())
    });
    let rest = std::iter::from_fn(|| client.read().filter(|message| message.tag != b'Z'));
    assert_eq!(tags.len() + rest.count(), 2 + 2 + 2 * 20_000);
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

/// Executes the statement `name` with each of `keys`, all before one Sync.
fn executed(client: &mut Client, name: &str, keys: &[i32]) -> Reply {
    client.message(|buffer| {
        for key in keys {
            let text = key.to_string();
            frontend::bind("", name, [], [text], put, [], buffer)
                .map_err(|_| std::io::Error::other("cannot bind"))?;
            frontend::execute("", 0, buffer)?;
        }
        frontend::sync(buffer);
        Ok(())
    });
    client.reply()
}

fn put(
    value: String,
    buffer: &mut bytes::BytesMut,
) -> Result<postgres_protocol::IsNull, Box<dyn std::error::Error + Sync + Send>> {
    buffer.extend_from_slice(value.as_bytes());
    Ok(postgres_protocol::IsNull::No)
}

fn prepare(client: &mut Client, name: &str, sql: &str) {
    client.message(|buffer| {
        frontend::parse(name, sql, [], buffer)?;
        frontend::sync(buffer);
        Ok(())
    });
    assert_eq!(client.reply().failure, None);
}

fn widths(reply: &Reply) -> Vec<usize> {
    assert_eq!(reply.failure, None);
    let rows = reply.outcomes.iter().flat_map(|outcome| &outcome.rows);
    rows.map(Vec::len).collect()
}

#[test]
fn a_statement_whose_table_changed_on_the_shards_is_prepared_anew() {
    let deployment = deployment();
    let mut client = deployment.connect();
    fill(&mut client);
    prepare(&mut client, "all", "SELECT * FROM accounts WHERE aid = $1");
    prepare(
        &mut client,
        "one",
        "SELECT aid FROM accounts WHERE aid = $1",
    );
    let keys: Vec<i32> = (1..=40).collect();
    let mut width = 2;
    let mut change = || {
        // Not through the router, which would know of it.
        deployment.on_each_shard(&format!(
            "ALTER TABLE accounts ADD COLUMN c{width} int; SELECT 1"
        ));
        width += 1;
        width
    };
    assert_eq!(widths(&executed(&mut client, "all", &keys)), [2; 40]);
    let width = change();
    for key in &keys {
        assert_eq!(widths(&executed(&mut client, "all", &[*key])), [width]);
    }
    // Pipelines, on the shard of the first key.
    let key = keys[0];
    let width = change();
    assert_eq!(
        widths(&executed(&mut client, "all", &[key, key])),
        [width; 2]
    );
    assert_eq!(widths(&executed(&mut client, "one", &[key, key])), [1; 2]);
    // What has been answered is not answered again.
    change();
    client.message(|buffer| {
        for name in ["one", "all"] {
            frontend::bind("", name, [], [key.to_string()], put, [], buffer)
                .map_err(|_| std::io::Error::other("cannot bind"))?;
            frontend::execute("", 0, buffer)?;
        }
        frontend::sync(buffer);
        Ok(())
    });
    let reply = client.reply();
    assert_eq!(reply.failure.expect("its columns changed").code(), "0A000");
    assert_eq!(reply.outcomes.len(), 1);
    assert_eq!(widths(&executed(&mut client, "all", &[key, key])).len(), 2);
    // In a block it is an error, once.
    for pipelined in [1, 2] {
        client.run("BEGIN");
        change();
        let failure = executed(&mut client, "all", &vec![key; pipelined]).failure;
        assert_eq!(failure.expect("its columns changed").code(), "0A000");
        assert_eq!(client.run("COMMIT"), "ROLLBACK");
        client.run("BEGIN");
        let reply = executed(&mut client, "all", &vec![key; pipelined]);
        assert_eq!(widths(&reply).len(), pipelined);
        client.run("COMMIT");
    }
}

#[test]
fn a_statement_that_a_shard_has_forgotten_is_prepared_anew() {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .schema(
            "CREATE FUNCTION forget() RETURNS int LANGUAGE plpgsql AS
                'BEGIN EXECUTE ''DEALLOCATE ALL''; RETURN 1; END'",
        )
        .sharded("accounts", "aid")
        .settings("[pool]\nsize = 1")
        .start();
    let mut client = deployment.connect();
    fill(&mut client);
    prepare(
        &mut client,
        "one",
        "SELECT aid FROM accounts WHERE aid = $1",
    );
    let keys: Vec<i32> = (1..=40).collect();
    assert_eq!(widths(&executed(&mut client, "one", &keys)), [1; 40]);
    let forget = |client: &mut Client| {
        for shard in 0..4 {
            client.run(&format!("/* pgring: shard=s{shard} */ SELECT forget()"));
        }
    };
    forget(&mut client);
    for key in &keys {
        assert_eq!(widths(&executed(&mut client, "one", &[*key])), [1]);
        assert_eq!(widths(&executed(&mut client, "one", &[*key, *key])), [1; 2]);
    }
    for pipelined in [1, 2] {
        let keys = vec![keys[0]; pipelined];
        client.run("BEGIN");
        forget(&mut client);
        let failure = executed(&mut client, "one", &keys).failure;
        assert_eq!(failure.expect("it is gone").code(), "26000");
        client.run("ROLLBACK");
        client.run("BEGIN");
        assert_eq!(
            widths(&executed(&mut client, "one", &keys)).len(),
            pipelined
        );
        client.run("COMMIT");
    }
}

//! What lives in a backend beyond its transaction: advisory locks and channels keep the backend with its session, and
//! only as long as they are there.

use crate::support::{Client, Deployment, eventually};
use std::time::Duration;

const SCHEMA: &str = "
    CREATE TABLE accounts (aid int PRIMARY KEY, balance int);
    CREATE TABLE notes (id int PRIMARY KEY, body text)";
const SOON: Duration = Duration::from_secs(20);
/// Long enough for what must not happen.
const A_WHILE: Duration = Duration::from_millis(300);

fn deployment(settings: &str) -> Deployment<'static> {
    let options = Deployment::shared().schema(SCHEMA).settings(settings);
    options.sharded("accounts", "aid").start()
}

/// Sessions of the shard's own database that hold an advisory lock.
fn lock_holders(shard: &mut Client) -> String {
    shard.value(
        "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND objid > 70 AND objid < 100",
    )
}

/// Channel and payload of the next notification.
fn notification(client: &mut Client) -> Option<(String, String)> {
    let message = client.read()?;
    assert_eq!(message.tag, b'A', "{message:?}");
    let mut fields = message.fields();
    fields.int32();
    Some((fields.text(), fields.text()))
}

#[test]
fn a_migration_holds_its_lock_over_blocks_that_change_all_shards() {
    let deployment = deployment("");
    let (mut rails, mut other) = (deployment.connect(), deployment.connect());
    assert_eq!(rails.value("SELECT pg_try_advisory_lock(71)"), "t");
    assert_eq!(other.value("SELECT pg_try_advisory_lock(71)"), "f");
    rails.run("BEGIN");
    rails.run("CREATE TABLE made (id int PRIMARY KEY, v text)");
    rails.run("INSERT INTO accounts VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8)");
    rails.run("COMMIT");
    rails.run("ALTER TABLE made ADD COLUMN w int");
    assert_eq!(
        rails.value("SELECT count(*) FROM accounts WHERE aid = 5"),
        "1"
    );
    assert_eq!(other.value("SELECT pg_try_advisory_lock(71)"), "f");
    assert_eq!(rails.value("SELECT pg_advisory_unlock(71)"), "t");
    assert_eq!(other.value("SELECT pg_try_advisory_lock(71)"), "t");
    assert_eq!(other.value("SELECT pg_advisory_unlock(71)"), "t");
    // What a session and its transaction both lock cannot be prepared: that shard decides.
    rails.run("SELECT pg_advisory_lock(72)");
    rails.run("BEGIN; SELECT pg_advisory_xact_lock(72)");
    rails.run("UPDATE accounts SET balance = 0 WHERE aid = 1 OR aid > 1");
    rails.run("UPDATE notes SET body = ''; INSERT INTO notes VALUES (1, 'a')");
    assert_eq!(rails.run("COMMIT"), "COMMIT");
    rails.run("SELECT pg_advisory_unlock_all()");
    let refused = rails.fails("SELECT pg_advisory_lock(aid) FROM accounts WHERE aid = 1");
    assert_eq!(refused.refusal(), Some("designated-function"), "{refused}");
    let refused = rails.fails("COPY (SELECT pg_advisory_lock(1)) TO STDOUT");
    assert_eq!(refused.refusal(), Some("session-state"), "{refused}");
}

#[test]
fn all_routers_lock_on_the_same_shard() {
    let deployment = deployment("");
    let second = deployment.another_router();
    let (mut one, mut other) = (deployment.connect(), second.target().connect());
    one.run("SELECT pg_advisory_lock(73)");
    assert_eq!(other.value("SELECT pg_try_advisory_lock(73)"), "f");
    other.run("LISTEN jobs");
    one.run("NOTIFY jobs, 'from the first router'");
    assert_eq!(
        notification(&mut other),
        Some(("jobs".into(), "from the first router".into()))
    );
}

#[test]
fn a_client_that_leaves_leaves_no_lock() {
    let deployment = deployment("[pool]\nsize = 1");
    let mut shard = deployment.shard(0);
    let mut one = deployment.connect();
    one.run("SELECT pg_advisory_lock(74)");
    assert_eq!(lock_holders(&mut shard), "1");
    drop(one);
    eventually(SOON, "the lock is given up", || {
        lock_holders(&mut shard) == "0"
    });
    // The connection is given back, not used up.
    let mut next = deployment.connect();
    assert_eq!(next.value("SELECT pg_try_advisory_lock(74)"), "t");
    next.run("DISCARD ALL");
    assert_eq!(lock_holders(&mut shard), "0");
    assert_eq!(
        deployment
            .connect()
            .value("SELECT pg_try_advisory_lock(74)"),
        "t"
    );
}

#[test]
fn so_many_sessions_keep_a_connection_and_no_more() {
    let deployment = deployment("[pool]\nsize = 4\npinned = 2");
    let mut clients: Vec<Client> = (0..3).map(|_| deployment.connect()).collect();
    clients[0].run("SELECT pg_advisory_lock(75)");
    clients[1].run("LISTEN jobs");
    let failure = clients[2].fails("LISTEN jobs");
    assert_eq!(failure.code(), "53300", "{failure}");
    assert!(failure.hint().contains("pool.pinned"), "{failure}");
    assert_eq!(
        clients[2].fails("SELECT pg_advisory_lock(76)").code(),
        "53300"
    );
    assert_eq!(lock_holders(&mut deployment.shard(0)), "1");
    // One that has its connection already may do more with it.
    clients[0].run("LISTEN jobs");
    clients[0].run("UNLISTEN *");
    clients[0].run("SELECT pg_advisory_unlock(75)");
    clients[2].run("LISTEN jobs");
}

#[test]
fn a_listener_hears_while_it_waits() {
    let deployment = deployment("");
    let (mut listener, mut speaker) = (deployment.connect(), deployment.connect());
    listener.run("LISTEN jobs");
    for payload in ["one", "two"] {
        speaker.run(&format!("SELECT pg_notify('jobs', '{payload}')"));
        assert_eq!(
            notification(&mut listener),
            Some(("jobs".into(), payload.into()))
        );
    }
    // With what it commits, on whatever shards, or not at all.
    speaker.run("BEGIN; NOTIFY jobs, 'three'");
    speaker.run("INSERT INTO accounts VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)");
    listener.read_timeout(A_WHILE);
    speaker.run("COMMIT");
    listener.read_timeout(SOON);
    assert_eq!(
        notification(&mut listener),
        Some(("jobs".into(), "three".into()))
    );
    speaker.run("BEGIN; NOTIFY jobs, 'never'; ROLLBACK");
    // In a block, not before its end.
    listener.run("BEGIN");
    speaker.run("NOTIFY jobs, 'four'");
    assert_eq!(
        listener.value("SELECT count(*) FROM accounts WHERE aid = 1"),
        "1"
    );
    listener.message(|buffer| postgres_protocol::message::frontend::query("COMMIT", buffer));
    let mut tags = Vec::new();
    while tags.last() != Some(&b'Z') {
        tags.push(listener.read().expect("the answer").tag);
    }
    if !tags.contains(&b'A') {
        assert_eq!(
            notification(&mut listener),
            Some(("jobs".into(), "four".into()))
        );
    }
    listener.run("UNLISTEN jobs");
    speaker.run("NOTIFY jobs, 'five'");
    assert_eq!(listener.value("SELECT 1"), "1");
}

#[test]
fn a_session_hears_that_its_backend_is_gone() {
    let deployment = deployment("");
    let mut shard = deployment.shard(0);
    let mut end = |of: &str| {
        shard.run(&format!(
            "SELECT pg_terminate_backend(pid) FROM ({of}) _ (pid)"
        ))
    };
    let holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 78 \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut locker = deployment.connect();
    locker.run("SELECT pg_advisory_lock(78)");
    end(holder);
    std::thread::sleep(A_WHILE);
    let failure = locker.fails("SELECT balance FROM accounts WHERE aid = 1");
    assert_eq!(failure.code(), "08006", "{failure}");
    assert!(failure.detail().contains("advisory locks"), "{failure}");
    locker.run("SELECT balance FROM accounts WHERE aid = 1");
    assert_eq!(locker.value("SELECT pg_try_advisory_lock(78)"), "t");
    // In a block: the block fails, and so does the next statement after it.
    locker.run("BEGIN; SELECT pg_backend_pid()");
    end(holder);
    std::thread::sleep(A_WHILE);
    locker.fails("SELECT pg_backend_pid()");
    locker.run("ROLLBACK");
    let failure = locker.fails("SELECT 1");
    assert!(failure.detail().contains("advisory locks"), "{failure}");
    // Who listens may say nothing for ever, so the connection ends.
    let mut listener = deployment.connect();
    listener.run("LISTEN jobs");
    let pid = listener.value("SELECT pg_backend_pid()");
    end(&format!("SELECT {pid}"));
    let farewell = listener.read().expect("a farewell").failure();
    assert_eq!((farewell.severity(), farewell.code()), ("FATAL", "08006"));
    assert!(listener.read().is_none());
}

#[test]
fn what_pools_send_to_reset_a_session_touches_no_shard_needlessly() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("LISTEN jobs");
    client.run("SELECT pg_advisory_lock(79)");
    client.run("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;");
    assert_eq!(lock_holders(&mut deployment.shard(0)), "0");
    deployment.connect().run("NOTIFY jobs, 'unheard'");
    assert_eq!(client.value("SELECT 1"), "1");
    client.run("UNLISTEN nothing");
}

#[test]
fn a_held_cursor_stays_where_its_rows_are() {
    let deployment = deployment("");
    let mut client = deployment.connect();
    client.run("INSERT INTO accounts VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8)");
    for aid in 1..=8 {
        client.run(&format!(
            "DECLARE c{aid} CURSOR WITH HOLD FOR SELECT aid FROM accounts WHERE aid = {aid}"
        ));
    }
    assert_eq!(
        client
            .fails("DECLARE c1 CURSOR WITH HOLD FOR SELECT 1")
            .code(),
        "42P03"
    );
    client.run("UPDATE accounts SET balance = 0 WHERE aid > 0");
    for aid in 1..=8 {
        assert_eq!(client.value(&format!("FETCH c{aid}")), aid.to_string());
    }
    // Nor is a transaction prepared that declares one: its shard decides.
    client.run("BEGIN; DECLARE new CURSOR WITH HOLD FOR SELECT aid FROM accounts WHERE aid = 5");
    client.run("UPDATE accounts SET balance = 1 WHERE aid > 0");
    assert_eq!(client.run("COMMIT"), "COMMIT");
    assert_eq!(client.value("FETCH new"), "5");
    // Of rows of all shards, on one of them.
    client.run("DECLARE all_of_them CURSOR WITH HOLD FOR SELECT aid FROM accounts ORDER BY aid");
    client.run("UPDATE accounts SET balance = 2 WHERE aid > 0");
    assert_eq!(client.column("FETCH 2 FROM all_of_them"), ["1", "2"]);
    assert_eq!(client.column("FETCH ALL FROM all_of_them").len(), 6);
    client.run("CLOSE ALL");
    assert_eq!(client.fails("FETCH c1").code(), "34000");
    assert_eq!(client.fails("FETCH all_of_them").code(), "34000");
}

#[test]
fn in_session_mode_a_client_keeps_its_connections_until_it_leaves() {
    let deployment = deployment("[pool]\nmode = \"session\"\nsize = 1\nwait = \"300ms\"");
    let mut one = deployment.connect();
    one.run("INSERT INTO accounts VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)");
    one.run("SET work_mem = '7MB'");
    one.run("SELECT pg_advisory_lock(80)");
    let mut other = deployment.connect();
    let failure = other.fails("SELECT aid FROM accounts");
    assert_eq!(failure.code(), "53300", "{failure}");
    one.run("BEGIN; UPDATE accounts SET balance = 0 WHERE aid > 0; ROLLBACK");
    one.run("BEGIN; UPDATE accounts SET balance = 0 WHERE aid > 0; COMMIT");
    assert_eq!(other.fails("SELECT count(*) FROM notes").code(), "53300");
    drop(one);
    eventually(SOON, "the other has its turn", || {
        other.simple("SELECT aid FROM accounts").failure.is_none()
    });
    assert_eq!(other.value("SHOW work_mem"), "4MB");
    assert_eq!(other.value("SELECT pg_try_advisory_lock(80)"), "t");
}

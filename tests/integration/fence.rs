//! Moving slots as a router sees it: fences, acknowledgements, rows of other shards. Who moves is played by SQL.

use crate::support::{Deployment, eventually};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// The ids of the routers that are registered on each shard, in order.
fn registered(deployment: &Deployment<'_>) -> Vec<String> {
    deployment.on_each_shard(
        "SELECT string_agg(objid::text, ',' ORDER BY objid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
         AND classid = x'70677269'::int AND granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
}

#[test]
fn each_router_is_registered_on_each_shard_while_it_lives() {
    let deployment = Deployment::shared().shards(2).start();
    let count = |routers: usize| {
        let registered = registered(&deployment);
        registered[0] == registered[1]
            && registered[0].split(',').filter(|id| !id.is_empty()).count() == routers
    };
    eventually(SOON, "one router is registered", || count(1));
    let mut other = deployment.another_router();
    eventually(SOON, "the other one too", || count(2));
    other.kill();
    eventually(SOON, "it is gone", || count(1));
    let before = registered(&deployment);
    deployment.shard(1).run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'pgring control'",
    );
    eventually(SOON, "it registers again by its own id", || {
        registered(&deployment) == before
    });
}

const SCHEMA: &str = "CREATE TABLE accounts (aid int PRIMARY KEY, balance int NOT NULL, note text)";
const ROWS: i32 = 60;

/// `accounts` with [`ROWS`] rows of balance 0 on two shards.
fn filled(settings: &str) -> Deployment<'static> {
    let deployment = Deployment::shared()
        .shards(2)
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(settings)
        .start();
    deployment.connect().run(&format!(
        "INSERT INTO accounts VALUES {}",
        (1..=ROWS)
            .map(|aid| format!("({aid}, 0, 'n{aid}')"))
            .collect::<Vec<_>>()
            .join(", ")
    ));
    deployment
}

/// The slot of an account in SQL.
const SLOT: &str = "((hashint8extended(aid, 123589603454567) & 16383)::int4)";

/// Accounts of a shard.
fn accounts(deployment: &Deployment<'_>, shard: usize) -> Vec<String> {
    deployment
        .shard(shard)
        .column("SELECT aid FROM accounts ORDER BY aid")
}

/// The slots of accounts, as a multirange.
fn slots(deployment: &Deployment<'_>, shard: usize, accounts: &str) -> String {
    deployment.shard(shard).value(&format!(
        "SELECT range_agg(int4range({SLOT}, {SLOT} + 1)) FROM accounts WHERE aid IN ({accounts})"
    ))
}

/// Changes what a shard says of itself; gives its epoch then.
fn change(deployment: &Deployment<'_>, shard: usize, assignments: &str) -> String {
    deployment.shard(shard).value(&format!(
        "UPDATE pgring.ownership SET epoch = epoch + 1, {assignments} RETURNING epoch"
    ))
}

/// Whether all routers of a shard have acknowledged this epoch.
fn acknowledged(deployment: &Deployment<'_>, shard: usize, epoch: &str, routers: usize) -> bool {
    deployment.shard(shard).value(&format!(
        "SELECT count(*) FROM pgring.acknowledgement WHERE epoch >= {epoch}"
    )) == routers.to_string()
}

#[track_caller]
fn await_acknowledgements(deployment: &Deployment<'_>, shard: usize, epoch: &str, routers: usize) {
    eventually(SOON, "all routers acknowledge the epoch", || {
        acknowledged(deployment, shard, epoch, routers)
    });
}

#[test]
fn a_change_is_acknowledged_once_what_began_before_has_ended() {
    let deployment = filled("");
    let other = deployment.another_router();
    let (mine, theirs) = (accounts(&deployment, 0), accounts(&deployment, 1));
    let mut client = deployment.connect();
    client.run("BEGIN");
    client.run(&format!(
        "UPDATE accounts SET balance = 1 WHERE aid = {}",
        mine[0]
    ));
    // One that is pinned without a transaction is nobody's business.
    let mut pinned = other.target().connect();
    pinned.run("SELECT pg_advisory_lock(1)");
    let epoch = change(&deployment, 1, "fenced = '{}'");
    await_acknowledgements(&deployment, 1, &epoch, 2);
    let epoch = change(&deployment, 0, "fenced = '{}'");
    await_acknowledgements(&deployment, 0, &epoch, 1);
    std::thread::sleep(Duration::from_millis(100));
    assert!(acknowledged(&deployment, 0, &epoch, 1), "the block goes on");
    // It may do more there, and elsewhere.
    client.run(&format!(
        "UPDATE accounts SET balance = 1 WHERE aid IN ({}, {})",
        mine[1], theirs[0]
    ));
    client.run("COMMIT");
    await_acknowledgements(&deployment, 0, &epoch, 2);
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app'";
    let known = "SELECT sum(cardinality(pids)) FROM pgring.acknowledgement";
    let mut shard = deployment.shard(0);
    assert_eq!(shard.value(known), shard.value(backends));
}

#[test]
fn statements_on_fenced_slots_are_held_until_the_fence_is_gone() {
    let deployment = filled("");
    let mine = accounts(&deployment, 0);
    let (fenced, free, late) = (mine[0].clone(), mine[1].clone(), mine[2].clone());
    let slots = slots(&deployment, 0, &fenced);
    let mut earlier = deployment.connect();
    earlier.run("BEGIN");
    earlier.run(&format!(
        "UPDATE accounts SET note = 'earlier' WHERE aid = {free}"
    ));
    let mut sum = deployment.connect();
    assert_eq!(sum.value("SELECT sum(balance) FROM accounts"), "0");
    let epoch = change(&deployment, 0, &format!("fenced = '{slots}'"));
    // The block that was there before goes through, and is waited for.
    let mut ends = deployment.connect();
    eventually(SOON, "the router knows of the fence", || {
        let sql =
            format!("SET statement_timeout = '50ms'; SELECT 1 FROM accounts WHERE aid = {fenced}");
        ends.simple(&sql)
            .failure
            .is_some_and(|failure| failure.code() == "57014")
    });
    earlier.run(&format!(
        "UPDATE accounts SET balance = balance + 1 WHERE aid = {fenced}"
    ));
    earlier.run("UPDATE accounts SET note = 'all'");
    assert!(!acknowledged(&deployment, 0, &epoch, 1));
    earlier.run("COMMIT");
    await_acknowledgements(&deployment, 0, &epoch, 1);

    let mut free_client = deployment.connect();
    let add = format!("UPDATE accounts SET balance = balance + 1 WHERE aid = {free}");
    free_client.run(&add);
    let add = format!("UPDATE accounts SET balance = balance + 1 WHERE aid = {fenced}");
    std::thread::scope(|scope| {
        let (deployment, add, free, late, fenced) = (&deployment, &add, &free, &late, &fenced);
        let held = [
            scope.spawn(move || drop(deployment.connect().run(add))),
            scope.spawn(move || {
                let reply = deployment.connect().extended(
                    "UPDATE accounts SET balance = balance + 1 WHERE aid = $1",
                    &[Some(fenced)],
                    false,
                );
                assert_eq!(reply.failure, None);
            }),
            scope.spawn(move || {
                let mut client = deployment.connect();
                client.run("BEGIN");
                client.run(&format!(
                    "UPDATE accounts SET note = 'late' WHERE aid = {late}"
                ));
                client.run(add);
                client.run("COMMIT");
            }),
            scope.spawn(move || {
                let mut client = deployment.connect();
                assert_eq!(
                    client.value("SELECT count(*) FROM accounts WHERE aid < 1000"),
                    ROWS.to_string()
                );
            }),
            scope.spawn(move || {
                let reply = deployment
                    .connect()
                    .extended("SELECT aid, $1 FROM accounts WHERE aid < 1000 ORDER BY aid", &[Some("x")], true);
                assert_eq!(reply.failure, None);
                assert_eq!(reply.outcomes[0].rows.len(), ROWS as usize);
            }),
            scope.spawn(move || {
                let reply = deployment.connect().copy_in(
                    "COPY accounts FROM STDIN",
                    b"1001\t0\ta\n1002\t0\tb\n1003\t0\tc\n1004\t0\td\n",
                    10,
                );
                assert_eq!(reply.failure, None);
            }),
            scope.spawn(move || {
                let copied = deployment.connect().copy_out("COPY accounts TO STDOUT");
                assert!(copied.len() > ROWS as usize * 4);
            }),
            scope.spawn(move || {
                drop(deployment.connect().run(&format!(
                    "PREPARE p (int) AS UPDATE accounts SET balance = balance + 1 WHERE aid = $1; EXECUTE p ({fenced})"
                )));
            }),
        ];
        std::thread::sleep(Duration::from_millis(300));
        let done = held.iter().filter(|client| client.is_finished()).count();
        assert_eq!(done, 0, "all are held");
        free_client.run(&format!(
            "UPDATE accounts SET balance = balance + 1 WHERE aid = {free}"
        ));
        change(deployment, 0, "fenced = '{}'");
    });
    let mut client = deployment.connect();
    let balance = format!("SELECT balance FROM accounts WHERE aid = {fenced}");
    assert_eq!(client.value(&balance), "5");
    assert_eq!(
        client.value("SELECT count(*) FROM accounts"),
        (ROWS + 4).to_string()
    );
}

#[test]
fn what_is_held_ends_by_a_cancel_by_leaving_and_in_time() {
    let deployment = filled("[rebalance]\nfence_wait = \"1s\"");
    let fenced = accounts(&deployment, 0)[0].clone();
    let slots = slots(&deployment, 0, &fenced);
    let epoch = change(&deployment, 0, &format!("fenced = '{slots}'"));
    await_acknowledgements(&deployment, 0, &epoch, 1);
    let sql = format!("SELECT note FROM accounts WHERE aid = {fenced}");
    let mut client = deployment.connect();
    let failure = client.fails(&sql);
    assert_eq!(failure.code(), "40001", "{failure}");
    let failure = client.fails("SELECT count(*) FROM accounts");
    assert_eq!(failure.code(), "40001", "{failure}");
    let failure = client
        .extended(
            "SELECT note FROM accounts WHERE aid = $1",
            &[Some(&fenced)],
            false,
        )
        .failure
        .expect("the fence stays");
    assert_eq!(failure.code(), "40001", "{failure}");
    client.run("SET statement_timeout = '100ms'");
    let failure = client.fails(&sql);
    assert_eq!(failure.code(), "57014", "{failure}");
    assert!(failure.message().contains("statement timeout"), "{failure}");
    client.run("RESET statement_timeout");
    client.message(|buffer| postgres_protocol::message::frontend::query(&sql, buffer));
    std::thread::sleep(Duration::from_millis(100));
    deployment.target().cancel(&client.backend_key);
    let failure = client.reply().failure.expect("it was cancelled");
    assert!(failure.message().contains("user request"), "{failure}");
    assert_eq!(client.value("SELECT 1"), "1", "the session lives");
    // In a block it fails the block, as any error does.
    client.run("BEGIN");
    assert_eq!(client.fails(&sql).code(), "40001");
    assert_eq!(client.fails("SELECT 1").code(), "25P02");
    client.run("ROLLBACK");
    // Who leaves has done nothing.
    let mut leaving = deployment.connect();
    let add = format!("UPDATE accounts SET balance = 9 WHERE aid = {fenced}");
    leaving.message(|buffer| postgres_protocol::message::frontend::query(&add, buffer));
    std::thread::sleep(Duration::from_millis(50));
    drop(leaving);
    std::thread::sleep(Duration::from_millis(100));
    change(&deployment, 0, "fenced = '{}'");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(
        client.value(&format!(
            "SELECT balance FROM accounts WHERE aid = {fenced}"
        )),
        "0"
    );
}

/// Runs `work` again and again until told to stop; gives how many times.
fn again_and_again(stop: &AtomicBool, mut work: impl FnMut(usize)) -> usize {
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        work(times);
        times += 1;
    }
    times
}

/// What a mover does, without its copying: hands slots with their rows from one shard to the other.
fn hand_over(
    deployment: &Deployment<'_>,
    source: usize,
    target: usize,
    slots: &str,
    routers: usize,
) {
    let epoch = change(
        deployment,
        target,
        &format!("foreign_slots = foreign_slots + '{slots}'"),
    );
    await_acknowledgements(deployment, target, &epoch, routers);
    // What was there before may wait for a lock of a block that is held: the fence is lifted then, and set again.
    loop {
        let fenced = format!("fenced = fenced + '{slots}'");
        let epoch = change(deployment, source, &fenced);
        let started = Instant::now();
        let mut all = false;
        while !all && started.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
            all = acknowledged(deployment, source, &epoch, routers);
        }
        if all {
            break;
        }
        change(deployment, source, &format!("fenced = fenced - '{slots}'"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (mut from, mut to) = (deployment.shard(source), deployment.shard(target));
    let rows = format!("{SLOT} <@ '{slots}'::int4multirange");
    let moved = from.rows(&format!(
        "SELECT aid, balance, note FROM accounts WHERE {rows}"
    ));
    let values = moved.iter();
    let values = values.map(|row| format!("({}, {}, '{}')", row[0], row[1], row[2]));
    let values: Vec<String> = values.collect();
    to.run(&format!(
        "INSERT INTO accounts VALUES {}",
        values.join(", ")
    ));
    from.run(&format!(
        "UPDATE pgring.ownership SET epoch = epoch + 1, owned = owned - '{slots}', fenced = fenced - '{slots}', \
         foreign_slots = foreign_slots + '{slots}'"
    ));
    // The routers know of the one before the other.
    std::thread::sleep(Duration::from_millis(30));
    to.run(&format!(
        "UPDATE pgring.ownership SET epoch = epoch + 1, owned = owned + '{slots}', foreign_slots = foreign_slots - '{slots}'"
    ));
    // The rows that are left behind are seen by nobody.
    std::thread::sleep(Duration::from_millis(30));
    from.run(&format!("DELETE FROM accounts WHERE {rows}"));
    let epoch = change(
        deployment,
        source,
        &format!("foreign_slots = foreign_slots - '{slots}'"),
    );
    await_acknowledgements(deployment, source, &epoch, routers);
}

#[test]
fn slots_change_hands_while_clients_run_through_two_routers() {
    // Longer than a busy machine takes.
    let deployment = filled("[rebalance]\nfence_wait = \"60s\"");
    let other = deployment.another_router();
    let all = deployment
        .shard(0)
        .value("SELECT owned FROM pgring.ownership");
    let half = deployment.shard(0).value(
        "SELECT range_agg(int4range(slot, slot + 1)) FROM pgring.ownership, generate_series(0, 16382, 2) slot WHERE owned @> slot",
    );
    assert!(half.len() > 100 && all.len() > 100);
    let stop = AtomicBool::new(false);
    let added: usize = std::thread::scope(|scope| {
        let (stop, deployment) = (&stop, &deployment);
        let key = |turn: usize, client: usize| (turn * 7 + client * 13) % ROWS as usize + 1;
        let mut clients = Vec::new();
        for (number, target) in [deployment.target(), other.target()]
            .into_iter()
            .enumerate()
        {
            let mut client = target.connect();
            clients.push(scope.spawn(move || {
                again_and_again(stop, |turn| {
                    client.run(&format!(
                        "UPDATE accounts SET balance = balance + 1 WHERE aid = {}",
                        key(turn, number)
                    ));
                })
            }));
            let mut client = target.connect();
            clients.push(scope.spawn(move || {
                again_and_again(stop, |turn| {
                    let aid = key(turn, number + 2).to_string();
                    let sql =
                        "UPDATE accounts SET balance = balance + 1 WHERE aid = $1 RETURNING note";
                    let reply = client.extended(sql, &[Some(&aid)], false);
                    assert_eq!(reply.failure, None);
                    assert_eq!(reply.outcomes[0].rows.len(), 1);
                })
            }));
            let mut client = target.connect();
            clients.push(scope.spawn(move || {
                again_and_again(stop, |turn| {
                    client.run("BEGIN");
                    let aid = key(turn, number + 4);
                    let sql =
                        format!("UPDATE accounts SET balance = balance + 1 WHERE aid = {aid}");
                    assert_eq!(client.run(&sql), "UPDATE 1");
                    let count = client.value("SELECT count(*) FROM accounts WHERE aid < 1000");
                    assert_eq!(count, ROWS.to_string());
                    client.run("COMMIT");
                })
            }));
            let mut client = target.connect();
            scope.spawn(move || {
                again_and_again(stop, |turn| {
                    let aids =
                        client.column("SELECT aid FROM accounts WHERE aid < 1000 ORDER BY aid");
                    assert_eq!(aids.len(), ROWS as usize);
                    let row = format!("{}\t1\tc\n", 1000 + turn * 2 + number);
                    let reply = client.copy_in("COPY accounts FROM STDIN", row.as_bytes(), 100);
                    assert_eq!(reply.failure, None);
                })
            });
        }
        for (source, target) in [(0, 1), (1, 0), (0, 1)] {
            std::thread::sleep(Duration::from_millis(100));
            hand_over(deployment, source, target, &half, 2);
        }
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .map(|client| client.join().expect("a client without errors"))
            .sum()
    });
    let mut client = deployment.connect();
    let sum = "SELECT sum(balance) FROM accounts WHERE aid < 1000";
    assert_eq!(client.value(sum), added.to_string());
    let aids = client.column("SELECT aid FROM accounts ORDER BY aid");
    let mut distinct = aids.clone();
    distinct.dedup();
    assert_eq!(aids, distinct);
    for shard in 0..2 {
        let strangers =
            format!("SELECT count(*) FROM accounts, pgring.ownership WHERE NOT owned @> {SLOT}");
        assert_eq!(deployment.shard(shard).value(&strangers), "0");
    }
}

/// What reads rows of several shards, in many ways.
const READS: [&str; 22] = [
    "SELECT * FROM accounts",
    "SELECT a.aid, a.note FROM public.accounts AS a WHERE a.balance < 0 OR a.note LIKE 'n%' -- all",
    "SELECT count(*), sum(balance), min(aid), max(note) FROM accounts",
    "SELECT aid % 3, count(*), avg(balance) FROM accounts GROUP BY aid % 3",
    "SELECT aid, balance FROM accounts ORDER BY note DESC LIMIT 7 OFFSET 2",
    "SELECT aid, count(*) FROM accounts GROUP BY aid HAVING count(*) > 0",
    "SELECT aid, note, row_number() OVER (PARTITION BY aid) FROM accounts",
    "SELECT row_number() OVER (ORDER BY aid), aid FROM accounts",
    "SELECT DISTINCT balance FROM accounts",
    "SELECT a.aid, i.n FROM accounts a JOIN items i USING (aid)",
    "SELECT a.aid, i.n FROM accounts a LEFT JOIN items i ON i.aid = a.aid AND i.n > 1",
    "SELECT a.aid, i.aid, i.n FROM (SELECT * FROM accounts WHERE aid < 20) a FULL JOIN items i ON i.aid = a.aid",
    "SELECT a.aid, b.aid FROM accounts a JOIN accounts b ON b.aid = a.aid + 1",
    "SELECT aid FROM accounts a WHERE EXISTS (SELECT FROM items i WHERE i.aid = a.aid AND i.n = 1)",
    "SELECT aid FROM accounts WHERE aid NOT IN (SELECT aid FROM items)",
    "SELECT aid FROM accounts WHERE aid IN (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)",
    "SELECT aid FROM accounts UNION ALL SELECT n FROM items WHERE n > 0",
    "SELECT aid FROM accounts INTERSECT SELECT aid FROM items",
    "WITH few AS (SELECT aid, note FROM accounts WHERE aid < 30) SELECT few.note, i.n FROM few JOIN items i ON i.aid = few.aid",
    "SELECT * FROM rich",
    "SELECT r.aid, i.n FROM rich r JOIN items i ON i.n = r.aid",
    "SELECT number FROM accounts AS o (number) WHERE number > 5",
];

#[test]
fn rows_of_other_shards_are_not_seen_while_slots_move() {
    let deployment = Deployment::shared()
        .shards(2)
        .schema(SCHEMA)
        .schema("CREATE TABLE items (aid int, n int)")
        .schema("CREATE VIEW rich AS SELECT aid, balance, note FROM accounts WHERE balance > 5")
        .sharded("accounts", "aid")
        .sharded("items", "aid")
        .start();
    let mut client = deployment.connect();
    let rows = |row: &dyn Fn(i32) -> String| (1..=ROWS).map(row).collect::<Vec<_>>().join(", ");
    client.run(&format!(
        "INSERT INTO accounts VALUES {}",
        rows(&|aid| format!("({aid}, {}, 'n{aid}')", aid % 9))
    ));
    client.run(&format!(
        "INSERT INTO items VALUES {}",
        rows(&|aid| format!("({}, {})", aid * 2 % 41 + 1, aid % 4))
    ));
    fn sorted(client: &mut crate::support::Client, sql: &str) -> Vec<Vec<String>> {
        let mut rows = client.rows(sql);
        if !sql.contains("ORDER BY note") {
            rows.sort();
        }
        rows
    }
    let copies = [
        "COPY accounts TO STDOUT",
        "COPY accounts (note, aid) TO STDOUT (FORMAT csv, HEADER)",
        "COPY (SELECT aid FROM accounts WHERE balance > 2) TO STDOUT",
    ];
    fn copied(client: &mut crate::support::Client, sql: &str) -> Vec<String> {
        let text = String::from_utf8(client.copy_out(sql)).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
    let extended = |client: &mut crate::support::Client| {
        let sql = "SELECT aid, balance FROM accounts WHERE balance >= $1 ORDER BY aid";
        let reply = client.extended(sql, &[Some("3")], false);
        assert_eq!(reply.failure, None);
        reply.outcomes[0].rows.clone()
    };
    client.run("PREPARE every (int) AS SELECT aid FROM accounts WHERE balance > $1 ORDER BY aid");
    let every = "EXECUTE every (4)";
    let before: Vec<_> = READS.map(|sql| sorted(&mut client, sql)).into();
    let copied_before = copies.map(|sql| copied(&mut client, sql));
    let (extended_before, prepared_before) = (extended(&mut client), client.rows(every));
    let hinted = [
        "/* pgring: shard=s0 */ SELECT count(*) FROM accounts",
        "/* pgring: key=1 */ SELECT count(*) FROM accounts",
    ];
    let hinted_before = hinted.map(|sql| client.value(sql));

    // Some rows of each shard lie on the other too, not as they are now.
    let planted = [0, 1].map(|owner| {
        let aids = accounts(&deployment, owner)[..20].join(", ");
        (slots(&deployment, owner, &aids), aids)
    });
    for ((slots, aids), other) in planted.iter().zip([1, 0]) {
        let epoch = change(&deployment, other, &format!("foreign_slots = '{slots}'"));
        await_acknowledgements(&deployment, other, &epoch, 1);
        deployment.shard(other).run(&format!(
            "INSERT INTO accounts SELECT aid, 1000 + aid, 'stranger' FROM unnest(ARRAY[{aids}]) aid; \
             INSERT INTO items SELECT aid, 1 FROM unnest(ARRAY[{aids}]) aid"
        ));
    }
    for (sql, before) in READS.into_iter().zip(&before) {
        assert_eq!(&sorted(&mut client, sql), before, "{sql}");
    }
    for (sql, before) in copies.into_iter().zip(&copied_before) {
        assert_eq!(&copied(&mut client, sql), before, "{sql}");
    }
    assert_eq!(extended(&mut client), extended_before);
    assert_eq!(client.rows(every), prepared_before);
    assert_eq!(hinted.map(|sql| client.value(sql)), hinted_before);
    client.run("BEGIN; DECLARE c CURSOR FOR SELECT aid FROM accounts ORDER BY aid");
    assert_eq!(client.rows("FETCH ALL FROM c").len(), ROWS as usize);
    client.run("COMMIT");
    // Writes leave them alone.
    assert_eq!(
        client.run("UPDATE accounts SET balance = balance + 1"),
        format!("UPDATE {ROWS}")
    );
    let joined = client
        .run("UPDATE accounts AS a SET note = note FROM items i WHERE i.aid = a.aid AND i.n = 1");
    assert_ne!(joined, "UPDATE 0");
    client.run("INSERT INTO items SELECT aid, 77 FROM accounts");
    assert_eq!(
        client.run("DELETE FROM items WHERE n = 77"),
        format!("DELETE {ROWS}")
    );
    assert_eq!(
        client
            .rows("DELETE FROM accounts WHERE note = 'stranger' OR aid <= 4 RETURNING aid")
            .len(),
        4
    );
    let strangers =
        "SELECT count(*), sum(balance - 1000 - aid) FROM accounts WHERE note = 'stranger'";
    for shard in 0..2 {
        assert_eq!(deployment.shard(shard).rows(strangers), [["20", "0"]]);
    }
    for refused in [
        "TRUNCATE accounts",
        "ALTER TABLE accounts ADD COLUMN more int",
    ] {
        assert_eq!(
            client.fails(refused).refusal(),
            Some("moving-slots"),
            "{refused}"
        );
    }
    // Once they are gone all is as ever.
    for shard in 0..2 {
        deployment.shard(shard).run(
            "DELETE FROM accounts WHERE note = 'stranger'; DELETE FROM items i USING pgring.ownership o \
             WHERE NOT o.owned @> ((hashint8extended(i.aid, 123589603454567) & 16383)::int4)",
        );
        let epoch = change(&deployment, shard, "foreign_slots = '{}'");
        await_acknowledgements(&deployment, shard, &epoch, 1);
    }
    client.run("ALTER TABLE accounts ADD COLUMN more int");
    assert_eq!(
        client.value("SELECT count(*) FROM accounts"),
        (ROWS - 4).to_string()
    );
}

#[test]
fn a_write_that_comes_too_late_is_sent_where_its_rows_are() {
    let deployment = filled("");
    let aid = accounts(&deployment, 0)[0].clone();
    let slots = slots(&deployment, 0, &aid);
    // The router does not hear of the move for a while.
    deployment.shard(0).run(
        "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           RAISE EXCEPTION 'the row has moved' USING ERRCODE = '40001', DETAIL = 'pgring: it is on another shard';
         END $$;
         CREATE TRIGGER guard BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION guard()",
    );
    let add = format!("UPDATE accounts SET balance = balance + 1 WHERE aid = {aid}");
    std::thread::scope(|scope| {
        let (deployment, add) = (&deployment, &add);
        let held = scope.spawn(move || deployment.connect().run(add));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!held.is_finished());
        deployment
            .shard(1)
            .run(&format!("INSERT INTO accounts VALUES ({aid}, 10, 'moved')"));
        let foreign = format!("foreign_slots = foreign_slots + '{slots}'");
        change(deployment, 1, &foreign);
        change(
            deployment,
            0,
            &format!("owned = owned - '{slots}', {foreign}"),
        );
        change(
            deployment,
            1,
            &format!("foreign_slots = foreign_slots - '{slots}', owned = owned + '{slots}'"),
        );
        assert_eq!(held.join().expect("no error"), "UPDATE 1");
    });
    let balance = format!("SELECT balance FROM accounts WHERE aid = {aid}");
    assert_eq!(deployment.shard(1).value(&balance), "11");
    assert_eq!(deployment.shard(0).value(&balance), "0");
}

#[test]
fn a_block_with_one_snapshot_does_not_outlive_a_change_of_its_rows() {
    let deployment = filled("");
    let mine = accounts(&deployment, 0)[0].clone();
    let theirs = slots(&deployment, 1, &accounts(&deployment, 1)[0]);
    let by_key = format!("SELECT note FROM accounts WHERE aid = {mine}");
    let count = "SELECT count(*) FROM accounts";
    let mut repeatable = deployment.connect();
    repeatable.run("SET pgring.snapshot = 'consistent'");
    repeatable.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(repeatable.value(count), ROWS.to_string());
    let mut committed = deployment.connect();
    committed.run("BEGIN");
    committed.run(&by_key);
    let epoch = change(&deployment, 0, &format!("foreign_slots = '{theirs}'"));
    let mut other = deployment.connect();
    eventually(SOON, "the router knows of it", || {
        let explained = other.column("EXPLAIN SELECT * FROM accounts");
        explained
            .iter()
            .any(|line| line.contains("pgring.ownership"))
    });
    let failure = repeatable.fails(count);
    assert_eq!(failure.code(), "40001", "{failure}");
    repeatable.run("ROLLBACK");
    repeatable.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(repeatable.value(count), ROWS.to_string());
    repeatable.run("COMMIT");
    assert_eq!(committed.value(count), ROWS.to_string());
    assert!(!acknowledged(&deployment, 0, &epoch, 1));
    committed.run("COMMIT");
    await_acknowledgements(&deployment, 0, &epoch, 1);
}

//! Transactions that wait for each other over several shards: one gives way, and who merely waits is let wait.

use crate::support::{Client, Deployment, Failure, Target, eventually};
use std::time::{Duration, Instant};

const SCHEMA: &str = "CREATE TABLE accounts (aid int PRIMARY KEY, balance int)";
/// PostgreSQL's own detector sees a circle after a second, too.
const SOON: Duration = Duration::from_secs(2);

fn deployment() -> Deployment<'static> {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .start();
    let rows: Vec<String> = (1..=40).map(|aid| format!("({aid}, 100)")).collect();
    deployment
        .connect()
        .run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    deployment
}

fn add(aid: &str) -> String {
    format!("UPDATE accounts SET balance = balance + 1 WHERE aid = {aid}")
}

/// How many processes wait for a lock, on all shards.
fn waiting(deployment: &Deployment<'_>) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity \
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waiting = deployment.on_each_shard(sql);
    waiting
        .iter()
        .map(|one| one.parse::<usize>().unwrap())
        .sum()
}

/// A client in a block that holds `first` and asks for `second` when all have begun; then it commits.
struct Member {
    client: Client,
    second: String,
}

impl Member {
    fn begin(target: &Target, first: &str, second: &str) -> Self {
        let mut client = target.connect();
        client.run("BEGIN");
        client.run(&add(first));
        Self {
            client,
            second: second.to_owned(),
        }
    }

    /// Asks and commits; how it failed, how long that took, and what its block is then.
    fn go_on(mut self) -> (Option<Failure>, Duration, Client) {
        let asked = Instant::now();
        let reply = self.client.simple(&add(&self.second));
        let took = asked.elapsed();
        let tag = self.client.run("COMMIT");
        let committed = reply.failure.is_none();
        assert_eq!(tag, if committed { "COMMIT" } else { "ROLLBACK" });
        (reply.failure, took, self.client)
    }
}

/// Lets all members go on at once; the failures.
fn collide(members: Vec<Member>) -> Vec<Failure> {
    let threads: Vec<_> = members
        .into_iter()
        .map(|member| std::thread::spawn(|| member.go_on()))
        .collect();
    let ended = threads.into_iter().map(|thread| thread.join().unwrap());
    ended
        .filter_map(|(failure, took, mut client)| {
            assert!(took < SOON, "{took:?}");
            assert_eq!(client.value("SELECT 1"), "1", "the session goes on");
            failure
        })
        .collect()
}

fn assert_one_victim(failures: &[Failure]) {
    let codes: Vec<_> = failures.iter().map(|failure| failure.code()).collect();
    assert_eq!(codes, ["40P01"]);
    assert_eq!(failures[0].message(), "deadlock detected");
    let detail = failures[0].detail();
    assert!(detail.contains("waits for process"), "{detail}");
}

#[test]
fn of_two_in_opposite_order_one_gives_way() {
    let deployment = deployment();
    let target = deployment.target();
    let ids = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    for round in 0..3 {
        let (one, other) = (&ids[round], &ids[3]);
        assert_one_victim(&collide(vec![
            Member::begin(&target, one, other),
            Member::begin(&target, other, one),
        ]));
        let sum = "SELECT sum(balance) FROM accounts";
        let sum: usize = deployment.connect().value(sum).parse().unwrap();
        assert_eq!(sum, 4000 + 2 * (round + 1), "one of two was committed");
    }
}

#[test]
fn of_three_in_a_circle_one_gives_way() {
    let deployment = deployment();
    let target = deployment.target();
    let ids = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    assert_one_victim(&collide(vec![
        Member::begin(&target, &ids[0], &ids[1]),
        Member::begin(&target, &ids[1], &ids[2]),
        Member::begin(&target, &ids[2], &ids[0]),
    ]));
}

#[test]
fn a_circle_through_two_routers_is_broken_by_one_of_them() {
    let deployment = deployment();
    let another = deployment.another_router();
    let ids = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    for turn in 0..2 {
        let routers = [deployment.target(), another.target()];
        assert_one_victim(&collide(vec![
            Member::begin(&routers[turn], &ids[0], &ids[1]),
            Member::begin(&routers[1 - turn], &ids[1], &ids[0]),
        ]));
    }
}

#[test]
fn a_circle_through_a_transaction_past_the_routers_is_broken() {
    let deployment = deployment();
    let target = deployment.target();
    let ids = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    let free = deployment.shard(0).value("SELECT max(aid) FROM accounts");
    // `first` → `alone` on shard 0 → `second` there → `first` on shard 1.
    let mut alone = deployment.shard(0);
    alone.run("BEGIN");
    alone.run(&add(&free));
    let first = Member::begin(&target, &ids[1], &free);
    let second = Member::begin(&target, &ids[0], &ids[1]);
    let waits = add(&ids[0]);
    let alone = std::thread::spawn(move || {
        let reply = alone.simple(&waits);
        alone.simple("ROLLBACK");
        reply.failure
    });
    eventually(SOON, "the local transaction waits", || {
        waiting(&deployment) == 1
    });
    let failures = collide(vec![first, second]);
    assert_one_victim(&failures);
    assert!(alone.join().unwrap().is_none());
}

#[test]
fn a_mere_wait_is_never_cancelled() {
    let deployment = deployment();
    let ids = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    let mut holder = deployment.connect();
    holder.run("BEGIN");
    holder.run(&add(&ids[0]));
    holder.run(&add(&ids[1]));
    let others = deployment.on_each_shard("SELECT max(aid) FROM accounts");
    // The last one waits behind the first of them.
    let pairs = [
        (&ids[2], &ids[0]),
        (&ids[3], &ids[1]),
        (&others[2], &ids[0]),
    ];
    let waiters = pairs.map(|(first, second)| {
        let mut member = Member::begin(&deployment.target(), first, second);
        std::thread::spawn(move || {
            let reply = member.client.simple(&add(&member.second));
            (reply.failure, member.client.run("COMMIT"))
        })
    });
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(holder.run("COMMIT"), "COMMIT");
    for waiter in waiters {
        let (failure, tag) = waiter.join().unwrap();
        assert!(failure.is_none(), "{failure:?}");
        assert_eq!(tag, "COMMIT");
    }
}

#[test]
fn a_clients_own_cancel_stays_one() {
    let deployment = deployment();
    let ids = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    let mut holder = deployment.connect();
    holder.run("BEGIN");
    holder.run(&add(&ids[0]));
    let mut waiter = deployment.connect();
    waiter.run("BEGIN; SET LOCAL statement_timeout = '1500ms'");
    waiter.run(&add(&ids[1]));
    assert_eq!(waiter.fails(&add(&ids[0])).code(), "57014");
}

#[test]
fn what_was_marked_after_a_savepoint_is_found_after_its_rollback() {
    let deployment = deployment();
    let target = deployment.target();
    let ids = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    let mut first = Member::begin(&target, &ids[0], &ids[1]);
    first.client.run("SAVEPOINT a");
    first.client.run(&add(&ids[2]));
    first.client.run("ROLLBACK TO a");
    let second = Member::begin(&target, &ids[1], &ids[0]);
    assert_one_victim(&collide(vec![first, second]));
}

#[test]
fn a_pipeline_gives_way_as_well() {
    let deployment = deployment();
    let target = deployment.target();
    let ids = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    let (one, other) = (ids[0].clone(), ids[1].clone());
    let mut pipeline = target.connect();
    let second = Member::begin(&target, &other, &one);
    // One transaction up to Sync, over two shards.
    pipeline.message(|out| {
        use postgres_protocol::message::frontend;
        for aid in [&one, &other] {
            frontend::parse("", &add(aid), [], out)?;
            let bound = frontend::bind("", "", [], [(); 0], |_, _| unreachable!(), [], out);
            bound.map_err(|_| std::io::Error::other("bind"))?;
            frontend::execute("", 0, out)?;
        }
        frontend::sync(out);
        Ok(())
    });
    let pipelined = std::thread::spawn(move || pipeline.reply().failure);
    let mut failures = collide(vec![second]);
    failures.extend(pipelined.join().unwrap());
    assert_one_victim(&failures);
}

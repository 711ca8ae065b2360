//! Routers and shards that are killed, and links that are cut, at each message of a commit over three shards: it is on
//! all of them or on none, as its client was told.
//!
//! `PGRING_CRASH_ROUNDS` makes the loop longer: 72 rounds are each message, before it arrives, before it is answered and
//! after, by each of the three. `PGRING_BANK_SECONDS` lets money move for longer, for `PGRING_BANK_CLIENTS`.

use crate::random::Random;
use crate::support::client::Reply;
use crate::support::deployment::Options;
use crate::support::fault::{Fault, Moment, Trap};
use crate::support::{Client, Deployment, Router, Target, cluster, eventually, setting};
use pgring::cli::sandbox::Sandbox;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const SCHEMA: &str = "CREATE TABLE accounts (aid int PRIMARY KEY, balance int);
    CREATE TABLE steps (aid int, round int, PRIMARY KEY (aid, round))";
const ACCOUNTS: usize = 40;
const SUM: &str = "SELECT sum(balance) FROM accounts";
const TOTAL: &str = "4000";
const SOON: Duration = Duration::from_secs(30);

/// The messages of a commit, in their order: how they are told, and which of those it is.
const MESSAGES: [(&[u8], usize); 8] = [
    (b"pg_current_xact_id_if_assigned", 1),
    (b"pgring.decide", 1),
    (b"PREPARE TRANSACTION", 1),
    (b"PREPARE TRANSACTION", 2),
    (b"Q\0\0\0\x0bCOMMIT\0", 1),
    (b"COMMIT PREPARED", 1),
    (b"COMMIT PREPARED", 2),
    (b"pg_advisory_unlock_shared", 1),
];
const MOMENTS: [Moment; 3] = [Moment::Before, Moment::Unanswered, Moment::After];

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    Router,
    Shard,
    Link,
}
const CRASHES: [Crash; 3] = [Crash::Router, Crash::Shard, Crash::Link];

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Committed,
    RolledBack,
    Unknown,
}

/// Shards behind links, and two routers.
struct Field {
    sandbox: Sandbox,
    links: Vec<Fault>,
    database: String,
    routers: Vec<Seat>,
    /// One account on each shard.
    accounts: Vec<String>,
}

/// Where a router runs.
struct Seat {
    directory: PathBuf,
    target: Target,
    router: Option<Router>,
}

impl Seat {
    fn kill_and_restart(&mut self) {
        self.router = None;
        self.router = Some(Router::start(&self.directory, self.target.port));
    }
}

impl Field {
    fn start(shards: usize) -> Self {
        let sandbox = cluster::start(shards);
        let links: Vec<Fault> = (0..shards)
            .map(|shard| {
                let folder = sandbox.socket_directory(shard).display();
                Fault::before(&format!("{folder}/.s.PGSQL.{}", sandbox.port(shard)))
            })
            .collect();
        let options = Options::new(&sandbox)
            .schema(SCHEMA)
            .sharded("accounts", "aid")
            .sharded("steps", "aid")
            .settings("[recovery]\ninterval = \"100ms\"");
        let options = (0..shards).fold(options, |options, shard| {
            options.node(shard, &links[shard].address())
        });
        let deployment = options.start();
        let accounts = Self::fill(&deployment);
        let database = deployment.database().to_owned();
        let second = deployment.another_router();
        let seat = |directory: PathBuf, target: Target, router: Option<Router>| Seat {
            directory,
            target,
            router,
        };
        let own = second.directory().to_owned();
        let second = seat(own, second.target(), Some(second));
        let (directory, target) = (deployment.directory().to_owned(), deployment.target());
        let first = seat(directory, target, deployment.into_router());
        Self {
            sandbox,
            links,
            database,
            routers: vec![first, second],
            accounts,
        }
    }

    fn fill(deployment: &Deployment<'_>) -> Vec<String> {
        let rows: Vec<String> = (1..=ACCOUNTS).map(|aid| format!("({aid}, 100)")).collect();
        let sql = format!("INSERT INTO accounts VALUES {}", rows.join(", "));
        deployment.connect().run(&sql);
        deployment.on_each_shard("SELECT min(aid) FROM accounts")
    }

    fn target(&self) -> Target {
        self.routers[0].target.clone()
    }

    /// One transaction on all shards with a crash at its `place`.
    fn round(&mut self, round: u64, place: (usize, Moment, Crash)) -> Told {
        let (message, moment, crash) = place;
        let mut client = self.target().connect();
        client.run("BEGIN");
        for aid in &self.accounts {
            client.run(&format!("INSERT INTO steps VALUES ({aid}, {round})"));
        }
        let (text, count) = MESSAGES[message];
        let trap = Trap::at(text, count, moment);
        let router = self.routers[0].router.as_ref().map_or(0, Router::pid);
        let (reached, is_reached) = std::sync::mpsc::channel();
        for (shard, link) in self.links.iter().enumerate() {
            let reached = reached.clone();
            let server = self.sandbox.pid(shard).unwrap_or_default();
            let own = link.handle();
            link.set(&trap, move || {
                match crash {
                    Crash::Router => kill(router),
                    Crash::Shard => kill(server),
                    Crash::Link => own.cut(),
                }
                let _ = reached.send(shard);
            });
        }
        let told = told(&client.simple("COMMIT"), crash);
        let shard = is_reached.recv_timeout(SOON);
        let shard = shard.unwrap_or_else(|_| panic!("{place:?} is not reached"));
        self.links.iter().for_each(Fault::free);
        self.mend(shard, crash);
        told
    }

    fn mend(&mut self, shard: usize, crash: Crash) {
        match crash {
            Crash::Router => self.routers[0].kill_and_restart(),
            Crash::Shard => eventually(SOON, "the shard starts again", || {
                // What is left of the old one may be in the way for a moment.
                let killed = self.sandbox.kill(shard);
                killed
                    .and_then(|()| self.sandbox.start_again(shard))
                    .is_ok()
            }),
            Crash::Link => self.links[shard].mend(),
        }
    }

    /// The value of `sql` on each shard, past the router.
    fn on_each_shard(&self, sql: &str) -> Vec<String> {
        let shard = |shard| cluster::superuser(&self.sandbox, shard, &self.database);
        (0..self.links.len())
            .map(|number| shard(number).connect().value(sql))
            .collect()
    }

    /// Waits until nothing is prepared.
    fn settle(&self) {
        let prepared = "SELECT count(*) FROM pg_prepared_xacts";
        eventually(SOON, "nothing stays prepared", || {
            let counts = self.on_each_shard(prepared);
            counts.iter().all(|count| count == "0")
        });
    }

    /// On how many shards the round is, once it is settled.
    fn settled(&self, round: u64) -> usize {
        self.settle();
        let sql = format!("SELECT count(*) FROM steps WHERE round = {round}");
        let counts = self.on_each_shard(&sql);
        counts.iter().filter(|count| *count == "1").count()
    }

    /// Each shard is read and written through the router.
    fn serves(&self) {
        for aid in &self.accounts {
            let sql = format!("UPDATE accounts SET aid = aid WHERE aid = {aid}");
            eventually(SOON, "the shard is served", || {
                let client = self.target().login(&[]);
                client.is_ok_and(|mut client| client.simple(&sql).failure.is_none())
            });
        }
    }
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("a process id"), Signal::KILL);
}

fn told(reply: &Reply, crash: Crash) -> Told {
    let Some(failure) = &reply.failure else {
        assert_eq!(reply.outcomes[0].tag.as_deref(), Some("COMMIT"));
        return Told::Committed;
    };
    if failure.is_lost() {
        assert_eq!(crash, Crash::Router, "a session ends with its router only");
        return Told::Unknown;
    }
    match failure.code() {
        "08007" => Told::Unknown,
        _ => Told::RolledBack,
    }
}

#[test]
fn a_crash_at_any_message_of_a_commit_leaves_all_of_it_or_none() {
    let rounds = setting("PGRING_CRASH_ROUNDS", 9);
    let mut field = Field::start(3);
    let mut kept = Vec::new();
    for round in 0..rounds {
        let number = round as usize;
        let (message, turn) = (number % MESSAGES.len(), number / MESSAGES.len());
        let place = (
            message,
            MOMENTS[(message + turn) % 3],
            CRASHES[(message + message / 3 + turn / 3) % 3],
        );
        field.serves();
        let told = field.round(round, place);
        let there = field.settled(round);
        println!("{round}: {place:?}: {told:?}, on {there} shards");
        match told {
            Told::Committed => assert_eq!(there, 3, "{place:?}"),
            Told::RolledBack => assert_eq!(there, 0, "{place:?}"),
            Told::Unknown => assert!(there == 0 || there == 3, "{place:?}: on {there}"),
        }
        kept.extend((there > 0).then_some(round.to_string()));
    }
    // What ended one way did not end the other way later.
    field.serves();
    let all = "SELECT coalesce(string_agg(round::text, ' ' ORDER BY round), '') FROM steps";
    assert_eq!(field.on_each_shard(all), vec![kept.join(" "); 3]);
}

/// What all who move money share.
#[derive(Default)]
struct Bank {
    stop: AtomicBool,
    /// The numbers that transfers take.
    next: AtomicU64,
    acknowledged: Mutex<Vec<u64>>,
    audits: AtomicU64,
}

/// Ends all when a thread fails, or the scope that waits for the others never ends.
struct StopsAll<'a>(&'a Bank);

impl Drop for StopsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.store(true, SeqCst);
        }
    }
}

impl Bank {
    /// Sessions one after another, each until it is lost.
    fn sessions(&self, target: &Target, mut live: impl FnMut(&mut Client) -> bool) {
        let _guard = StopsAll(self);
        while !self.stop.load(SeqCst) {
            match target.login(&[]) {
                Ok(mut client) => {
                    let mut lives = true;
                    while lives && !self.stop.load(SeqCst) {
                        lives = live(&mut client);
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Moves one from an account to another. Whether the session lives.
    fn transfer(&self, client: &mut Client, random: &mut Random) -> bool {
        let number = self.next.fetch_add(1, SeqCst);
        let from = random.below(ACCOUNTS);
        let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
        // In one order everywhere: deadlocks would take their time.
        let mut steps = [(from + 1, -1), (to + 1, 1)];
        steps.sort_unstable();
        let mut sql = vec!["BEGIN".to_owned()];
        for (aid, by) in steps {
            sql.push(format!(
                "UPDATE accounts SET balance = balance + {by} WHERE aid = {aid}"
            ));
            sql.push(format!("INSERT INTO steps VALUES ({aid}, {number})"));
        }
        sql.push("COMMIT".to_owned());
        for sql in &sql {
            let reply = client.simple(sql);
            if let Some(failure) = reply.failure {
                return !failure.is_lost() && client.simple("ROLLBACK").failure.is_none();
            }
            if reply.outcomes[0].tag.as_deref() == Some("COMMIT") {
                self.acknowledged.lock().unwrap().push(number);
            }
        }
        true
    }

    /// Whether the session lives.
    fn audit(&self, client: &mut Client) -> bool {
        let reply = client.simple("SET pgring.snapshot = 'consistent'");
        if reply.failure.is_some() {
            return false;
        }
        let reply = client.simple(SUM);
        match reply.failure {
            Some(failure) => !failure.is_lost(),
            None => {
                let sum = reply.outcomes[0].rows[0][0].clone().unwrap_or_default();
                assert_eq!(String::from_utf8_lossy(&sum), TOTAL);
                self.audits.fetch_add(1, SeqCst);
                true
            }
        }
    }

    /// Without the setting a read sees transfers half done.
    fn see_the_anomaly(&self, target: &Target) {
        let mut client = target.connect();
        eventually(SOON, "a plain read sees half a transfer", || {
            self.stop.load(SeqCst) || client.value(SUM) != TOTAL
        });
    }
}

#[test]
fn money_that_moves_while_all_crashes_is_neither_made_nor_lost() {
    let seconds = setting("PGRING_BANK_SECONDS", 6);
    let clients = setting("PGRING_BANK_CLIENTS", 8);
    let seed = setting("PGRING_BANK_SEED", 1);
    let mut field = Field::start(4);
    let bank = Bank::default();
    let targets: Vec<Target> = field
        .routers
        .iter()
        .map(|seat| seat.target.clone())
        .collect();
    std::thread::scope(|scope| {
        for number in 0..clients {
            let (bank, target) = (&bank, &targets[number as usize % 2]);
            let mut random = Random::new(seed << 16 | number);
            scope.spawn(move || {
                bank.sessions(target, |client| bank.transfer(client, &mut random));
            });
        }
        let _guard = StopsAll(&bank);
        bank.see_the_anomaly(&targets[0]);
        for target in &targets {
            let bank = &bank;
            scope.spawn(move || bank.sessions(target, |client| bank.audit(client)));
        }
        let mut random = Random::new(seed);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && !bank.stop.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(100 + random.below(400) as u64));
            let shard = random.below(4);
            match random.below(4) {
                0 => field.mend(shard, Crash::Shard),
                1 => {
                    field.links[shard].cut();
                    std::thread::sleep(Duration::from_millis(random.below(300) as u64));
                    field.mend(shard, Crash::Link);
                }
                _ => field.routers[random.below(2)].kill_and_restart(),
            }
        }
        bank.stop.store(true, SeqCst);
    });
    field.serves();
    field.settle();
    assert_eq!(field.target().connect().value(SUM), TOTAL);
    let mut steps = BTreeMap::<u64, usize>::new();
    for rounds in
        field.on_each_shard("SELECT coalesce(string_agg(round::text, ' '), '') FROM steps")
    {
        for round in rounds.split_whitespace() {
            *steps.entry(round.parse().unwrap()).or_default() += 1;
        }
    }
    assert!(
        steps.values().all(|parts| *parts == 2),
        "a transfer is there in part"
    );
    let acknowledged = bank.acknowledged.into_inner().unwrap();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|number| !steps.contains_key(number))
        .collect();
    assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    let audits = bank.audits.into_inner();
    println!("{} transfers, {audits} audits", acknowledged.len());
    assert!(acknowledged.len() > 20 && audits > 2);
}

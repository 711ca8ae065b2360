//! Routers and shards that are killed, and links that are cut, at each message of a commit over three shards: it is on
//! all of them or on none, as its client was told.
//!
//! `PGRING_CRASH_ROUNDS` makes the loop longer: 81 rounds are each message, before it arrives, before it is answered and
//! after, by each of the three.

use crate::support::client::Reply;
use crate::support::deployment::Options;
use crate::support::fault::{Fault, Moment, Trap};
use crate::support::{Deployment, Router, Target, cluster, eventually, setting};
use pgring::cli::sandbox::Sandbox;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::time::Duration;

const SHARDS: usize = 3;
const SCHEMA: &str = "CREATE TABLE accounts (aid int PRIMARY KEY);
    CREATE TABLE steps (aid int, round int, PRIMARY KEY (aid, round))";
const SOON: Duration = Duration::from_secs(30);

/// The messages of a commit, in their order: how they are told, and which of those it is.
const MESSAGES: [(&[u8], usize); 9] = [
    (b"pg_current_xact_id_if_assigned", 1),
    (b"pg_logical_emit_message(true, 'pgring', $1)", 1),
    (b"pg_advisory_lock_shared", 1),
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

/// Three shards behind links, and a router.
struct Field {
    sandbox: Sandbox,
    links: Vec<Fault>,
    database: String,
    directory: PathBuf,
    target: Target,
    router: Option<Router>,
    /// One account on each shard.
    accounts: Vec<String>,
}

impl Field {
    fn start() -> Self {
        let sandbox = cluster::start(SHARDS);
        let links: Vec<Fault> = (0..SHARDS)
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
        let options = (0..SHARDS).fold(options, |options, shard| {
            options.node(shard, &links[shard].address())
        });
        let deployment = options.start();
        let accounts = Self::fill(&deployment);
        let database = deployment.database().to_owned();
        let directory = deployment.directory().to_owned();
        let target = deployment.target();
        let router = deployment.into_router();
        Self {
            sandbox,
            links,
            database,
            directory,
            target,
            router,
            accounts,
        }
    }

    fn fill(deployment: &Deployment<'_>) -> Vec<String> {
        let rows: Vec<String> = (1..=30).map(|aid| format!("({aid})")).collect();
        let sql = format!("INSERT INTO accounts VALUES {}", rows.join(", "));
        deployment.connect().run(&sql);
        deployment.on_each_shard("SELECT min(aid) FROM accounts")
    }

    /// One transaction on all shards with a crash at its `place`.
    fn round(&mut self, round: u64, place: (usize, Moment, Crash)) -> Told {
        let (message, moment, crash) = place;
        let mut client = self.target.connect();
        client.run("BEGIN");
        for aid in &self.accounts {
            client.run(&format!("INSERT INTO steps VALUES ({aid}, {round})"));
        }
        let (text, count) = MESSAGES[message];
        let trap = Trap::at(text, count, moment);
        let router = self.router.as_ref().map_or(0, Router::pid);
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
            Crash::Router => {
                self.router = None;
                self.router = Some(Router::start(&self.directory, self.target.port));
            }
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
        (0..SHARDS)
            .map(|number| shard(number).connect().value(sql))
            .collect()
    }

    /// On how many shards the round is, once it is settled.
    fn settled(&self, round: u64) -> usize {
        let prepared = "SELECT count(*) FROM pg_prepared_xacts";
        eventually(SOON, "nothing stays prepared", || {
            self.on_each_shard(prepared) == ["0"; SHARDS]
        });
        let sql = format!("SELECT count(*) FROM steps WHERE round = {round}");
        let counts = self.on_each_shard(&sql);
        counts.iter().filter(|count| *count == "1").count()
    }

    /// Each shard is read and written through the router.
    fn serves(&self) {
        for aid in &self.accounts {
            let sql = format!("UPDATE accounts SET aid = aid WHERE aid = {aid}");
            eventually(SOON, "the shard is served", || {
                let client = self.target.login(&[]);
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
    let mut field = Field::start();
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
            Told::Committed => assert_eq!(there, SHARDS, "{place:?}"),
            Told::RolledBack => assert_eq!(there, 0, "{place:?}"),
            Told::Unknown => assert!(there == 0 || there == SHARDS, "{place:?}: on {there}"),
        }
        kept.extend((there > 0).then_some(round.to_string()));
    }
    // What ended one way did not end the other way later.
    field.serves();
    let all = "SELECT coalesce(string_agg(round::text, ' ' ORDER BY round), '') FROM steps";
    assert_eq!(field.on_each_shard(all), vec![kept.join(" "); SHARDS]);
}

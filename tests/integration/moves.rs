//! Slots that move while servers, links and routers break. `PGRING_REBALANCE_ROUNDS` lengthens the run over all places of a
//! move where something may break.

use super::rebalance::{LEFTOVERS, ROWS, Stop, ids_below, leaves_nothing, one_move};
use super::support::client::Target;
use super::support::deployment::{Options, PGRING};
use super::support::fault::{Fault, Moment, Trap};
use super::support::process::Guarded;
use super::support::{Client, Deployment, cluster, eventually, setting};
use pgring::cli::sandbox::Sandbox;
use pgring::topology::hash::SEED;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that must happen.
const SOON: Duration = Duration::from_secs(90);

/// What a writer wrote: ids with running numbers.
#[derive(Default)]
struct Written {
    acknowledged: BTreeSet<(u32, u32)>,
    /// The connection was lost before an answer came.
    unsure: BTreeSet<(u32, u32)>,
}

impl Written {
    /// Whether these rows are all that was acknowledged, each once, and nothing that was refused.
    fn check(&self, rows: &[Vec<String>]) {
        let mut found = BTreeSet::new();
        for row in rows {
            let number = |column: usize| row[column].parse().expect("a number");
            let row = (number(0), number(1));
            assert!(found.insert(row), "twice: {row:?}");
        }
        let lost: Vec<_> = self.acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let known = |row: &(u32, u32)| self.acknowledged.contains(row) || self.unsure.contains(row);
        let more: Vec<_> = found.iter().filter(|row| !known(row)).collect();
        assert!(more.is_empty(), "refused, and there: {more:?}");
    }
}

/// Writes rows straight to the shards, wherever they are let in, over connections that may be lost, until told to stop.
fn write_through_crashes(targets: &[Target], stop: &AtomicBool, ids: &[u32]) -> Written {
    let mut written = Written::default();
    let mut clients: Vec<Option<Client>> = targets.iter().map(|_| None).collect();
    let (mut owner, mut number) = (0, 100);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        for id in ids {
            let insert = format!("INSERT INTO line (id, number) VALUES ({id}, {number})");
            let deadline = Instant::now() + SOON;
            while !stop.load(Ordering::Relaxed) {
                assert!(Instant::now() < deadline, "no shard takes {id}");
                if clients[owner].is_none() {
                    clients[owner] = targets[owner].login(&[]).ok();
                }
                let failure = clients[owner]
                    .as_mut()
                    .map(|client| client.simple(&insert).failure);
                match failure {
                    Some(None) => {
                        written.acknowledged.insert((*id, number));
                        break;
                    }
                    // A shutdown ends the session before the statement or within it.
                    Some(Some(failure)) if failure.is_lost() || failure.code() != "40001" => {
                        clients[owner] = None;
                        written.unsure.insert((*id, number));
                        break;
                    }
                    Some(Some(failure)) => {
                        assert!(failure.detail().starts_with("pgring: "), "{failure}");
                    }
                    None => {}
                }
                owner = (owner + 1) % targets.len();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    written
}

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    /// The server of the move's source dies.
    Source,
    /// That of its target.
    Target,
    /// All links to the servers, also between them, are cut.
    Links,
}

/// Two shards behind links: all slots below 2048 are on the first, and the map wants them on the second.
struct Field {
    sandbox: Sandbox,
    links: Vec<Fault>,
    database: String,
    directory: PathBuf,
}

impl Field {
    fn start() -> Self {
        let sandbox = cluster::start(2);
        let link = |shard: usize| {
            let folder = sandbox.socket_directory(shard).display();
            Fault::before(&format!("{folder}/.s.PGSQL.{}", sandbox.port(shard)))
        };
        let links: Vec<Fault> = (0..2).map(link).collect();
        let options = Options::new(&sandbox).settings("[rebalance]\nsilence = \"2s\"");
        let options = (0..2).fold(options, |options, shard| {
            options.node(shard, &links[shard].address())
        });
        let deployment = one_move(options);
        let database = deployment.database().to_owned();
        let directory = deployment.directory().to_owned();
        drop(deployment.into_router());
        Self {
            sandbox,
            links,
            database,
            directory,
        }
    }

    fn targets(&self) -> Vec<Target> {
        let target = |shard| cluster::superuser(&self.sandbox, shard, &self.database);
        (0..2).map(target).collect()
    }

    fn on_each_shard(&self, sql: &str) -> Vec<String> {
        let value = |target: &Target| target.connect().value(sql);
        self.targets().iter().map(value).collect()
    }

    /// `pgring rebalance`, which goes on whatever breaks.
    fn rebalance(&self, arguments: &[&str]) -> Guarded {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("rebalance.log"))
            .expect("open a log");
        let mut command = Command::new(PGRING);
        command
            .args(["rebalance", "-c"])
            .arg(&self.directory)
            .args(arguments)
            .env("PGRING_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Guarded::spawn(&mut command)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("rebalance.log")).unwrap_or_default()
    }

    fn breaks(&self, what: Break) -> Box<dyn Fn() + Send + Sync> {
        let pid = |shard: usize| self.sandbox.pid(shard).expect("a running server");
        let kill = |pid: u32| -> Box<dyn Fn() + Send + Sync> {
            Box::new(move || {
                let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
                assert!(killed.expect("run kill").success());
            })
        };
        match what {
            Break::Source => kill(pid(0)),
            Break::Target => kill(pid(1)),
            Break::Links => {
                let links: Vec<Fault> = self.links.iter().map(Fault::handle).collect();
                Box::new(move || links.iter().for_each(Fault::cut))
            }
        }
    }

    fn mend(&mut self, what: Break) {
        self.links.iter().for_each(Fault::free);
        let shard = match what {
            Break::Source => 0,
            Break::Target => 1,
            Break::Links => {
                // Long enough for whoever looks to see it.
                std::thread::sleep(Duration::from_millis(300));
                return self.links.iter().for_each(Fault::mend);
            }
        };
        eventually(SOON, "the server starts again", || {
            let killed = self.sandbox.kill(shard);
            killed
                .and_then(|()| self.sandbox.start_again(shard))
                .is_ok()
        });
    }

    /// Runs `pgring rebalance` to its end, with a break where a message with `text` passes. Whether one did.
    fn run_to(&mut self, arguments: &[&str], phase: &str, place: (&str, Moment, Break)) -> bool {
        let (text, moment, what) = place;
        let trap = Trap::at(text.as_bytes(), 1, moment);
        for link in &self.links {
            link.set(&trap, self.breaks(what));
        }
        let started = Instant::now();
        let mut process = self.rebalance(arguments);
        let deadline = Instant::now() + SOON;
        while !trap.has_sprung() && process.is_running() {
            assert!(
                Instant::now() < deadline,
                "{place:?}: never passed\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        let has_sprung = trap.has_sprung();
        if has_sprung {
            // The answer to a message that arrives is the break's moment.
            let awaited = || match what {
                Break::Source => self.targets()[0].login(&[]).is_err(),
                Break::Target => self.targets()[1].login(&[]).is_err(),
                Break::Links => self.links.iter().all(Fault::is_cut),
            };
            eventually(SOON, "it is broken", awaited);
        }
        self.mend(what);
        let deadline = Instant::now() + SOON;
        while process.is_running() {
            assert!(
                Instant::now() < deadline,
                "{place:?}: never {phase}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let sql = "SELECT phase FROM pgring.move WHERE source = 's0' ORDER BY id DESC LIMIT 1";
        if self.targets()[0].connect().value(sql) != phase {
            // It may have ended where a shard could not be reached at its start.
            let mut again = self.rebalance(arguments);
            eventually(SOON, "it ends", || !again.is_running());
        }
        let reached = self.targets()[0].connect().value(sql);
        assert_eq!(reached, phase, "{place:?}\n{}", self.log());
        eprintln!("{place:?}: {has_sprung}, {:?}", started.elapsed());
        has_sprung
    }
}

/// Messages at which something breaks on the way to the flip.
const THERE: [&str; 12] = [
    "foreign_slots = foreign_slots +",
    "COPY (SELECT",
    "CREATE SUBSCRIPTION pgring_move",
    "hashtextextended(ROW(",
    "SET fenced = fenced +",
    "pg_advisory_lock(",
    "SET owned = owned -",
    "SET owned = owned +",
    "PREPARE TRANSACTION",
    "returns_from = ",
    "COMMIT PREPARED",
    "CREATE SUBSCRIPTION pgring_back",
];
/// The same on the way back.
const BACK: [&str; 6] = [
    "SET fenced = fenced +",
    "pg_advisory_lock(",
    "PREPARE TRANSACTION",
    "phase = 'undoing'",
    "COMMIT PREPARED",
    "DELETE FROM ONLY",
];
const BREAKS: [Break; 3] = [Break::Source, Break::Target, Break::Links];
const MOMENTS: [Moment; 3] = [Moment::Before, Moment::Unanswered, Moment::After];
/// So many have every place broken by everything at every moment.
const ROUNDS_MAX: usize = 108;

#[test]
fn a_move_goes_on_whatever_breaks_wherever_it_is() {
    let mut field = Field::start();
    let targets = field.targets();
    let below = format!(
        "SELECT id FROM t WHERE (hashint8extended(id, {SEED}) & 16383) < 2048 ORDER BY id LIMIT 8"
    );
    let ids = targets[0].connect().column(&below);
    let ids: Vec<u32> = ids.iter().map(|id| id.parse().expect("an id")).collect();
    assert_eq!(ids.len(), 8);
    let stop = AtomicBool::new(false);
    let rounds = setting("PGRING_REBALANCE_ROUNDS", 3) as usize;
    let written = std::thread::scope(|scope| {
        let _stops = Stop(&stop);
        let writer = scope.spawn(|| write_through_crashes(&targets, &stop, &ids));
        for round in 0..rounds.min(ROUNDS_MAX) {
            let what = BREAKS[(round + round / 12) % 3];
            let moment = MOMENTS[(round + round / 36) % 3];
            let there = THERE[(4 + 5 * round) % THERE.len()];
            let start = ["--pause-budget", "10s"];
            let broken = field.run_to(&start, "kept", (there, moment, what));
            assert!(broken, "{there} never passed");
            let back = BACK[(5 * round) % BACK.len()];
            let broken = field.run_to(&["--rollback"], "undone", (back, moment, what));
            assert!(broken, "{back} never passed");
            for sql in LEFTOVERS {
                assert_eq!(
                    field.on_each_shard(sql),
                    ["0", "0"],
                    "{there}, {back}: {sql}"
                );
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer")
    });
    assert!(written.acknowledged.len() > 100);
    let sql = "SELECT id, number FROM line WHERE number > 100";
    written.check(&targets[0].connect().rows(sql));
    let foreign = targets[1].connect().rows(&format!(
        "SELECT id, number FROM line WHERE (hashint8extended(id, {SEED}) & 16383) < 2048"
    ));
    assert_eq!(foreign, [[""; 0]; 0]);
}

/// Writes rows through a router, in blocks and alone, until told to stop; goes on after errors, by a new connection where
/// that is lost.
fn write_through_a_router(target: &Target, stop: &AtomicBool, first: u32) -> Written {
    let mut written = Written::default();
    let mut client = None;
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let id = number.wrapping_mul(7919) % ROWS + 1;
        let insert = format!("INSERT INTO line (id, number) VALUES ({id}, {number})");
        let sql = match number % 2 {
            0 => insert,
            _ => format!("BEGIN; UPDATE t SET n = n + 1 WHERE id = {id}; {insert}; COMMIT"),
        };
        if client.is_none() {
            client = target.login(&[]).ok();
        }
        let Some(connected) = &mut client else {
            continue;
        };
        connected.read_timeout(SOON);
        match connected.simple(&sql).failure {
            None => {
                written.acknowledged.insert((id, number));
            }
            Some(failure) => {
                // Only the last statement of a block makes it last.
                written.unsure.insert((id, number));
                client = None;
                assert!(
                    failure.is_lost() || ["08", "57", "40", "25"].contains(&&failure.code()[..2]),
                    "{failure}"
                );
            }
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    written
}

/// Stops a process, or lets it go on.
fn signal(signal: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.expect("run kill").success());
}

/// A process that goes on when this is dropped.
struct Halted(u32);

impl Halted {
    fn new(pid: u32) -> Self {
        signal("-STOP", pid);
        Self(pid)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

/// Backends that routers run for clients, with their shards.
fn routed(deployment: &Deployment<'_>) -> BTreeSet<(usize, String)> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
         AND backend_type = 'client backend' AND usename = 'app'";
    let on = |shard| deployment.shard(shard).column(sql).into_iter();
    let shards = 0..deployment.shards();
    shards
        .flat_map(|shard| on(shard).map(move |pid| (shard, pid)))
        .collect()
}

#[test]
fn a_router_that_is_stopped_across_a_move_is_cut_off_and_goes_on_right_afterwards() {
    // What it leaves open would hold up the moves of other tests.
    let sandbox = cluster::start(2);
    let options = Options::new(&sandbox).settings("[rebalance]\nsilence = \"2s\"");
    let deployment = one_move(options);
    let other = deployment.another_router();
    let others = routed(&deployment);
    let stopped = deployment.another_router();
    let ids = ids_below(&deployment, 2048, 1);
    // Blocks that are open on both shards when the router stops, one in the middle of a statement.
    let mut open = stopped.target().connect();
    open.run(&format!(
        "BEGIN; UPDATE t SET v = 'never' WHERE id = {}",
        ids[0]
    ));
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let _stops = Stop(&stop);
        let (target, stop) = (stopped.target(), &stop);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let target = target.clone();
                scope.spawn(move || write_through_a_router(&target, stop, 10 + writer * 10_000_000))
            })
            .collect();
        eventually(SOON, "clients write", || {
            deployment
                .shard(0)
                .value("SELECT count(*) > 50 FROM line WHERE number > 2")
                == "t"
        });
        let halted = Halted::new(stopped.pid());
        assert_ne!(routed(&deployment), others);
        let report = deployment.pgring(&["rebalance", "--pause-budget", "10s"]);
        assert!(report.contains("kept"), "{report}");
        assert_eq!(routed(&deployment), others);
        // What was open was rolled back, before the rows moved.
        let value = format!("SELECT v FROM t WHERE id = {}", ids[0]);
        assert_eq!(deployment.shard(1).value(&value), format!("row {}", ids[0]));
        let before = deployment.shard(1).value("SELECT count(*) FROM line");
        drop(halted);
        eventually(SOON, "the clients go on", || {
            deployment
                .shard(1)
                .value(&format!("SELECT count(*) > {before} + 50 FROM line"))
                == "t"
        });
        deployment.pgring(&["rebalance", "--complete"]);
        stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for writer in writers {
            let Written {
                acknowledged,
                unsure,
            } = writer.join().expect("a writer");
            all.acknowledged.extend(acknowledged);
            all.unsure.extend(unsure);
        }
        all
    });
    let failure = open
        .simple("COMMIT")
        .failure
        .expect("a block that was cut off");
    assert!(
        failure.is_lost() || failure.code().starts_with("08") || failure.code() == "57P01",
        "{failure}"
    );
    leaves_nothing(&deployment);
    let rows = deployment
        .shard(1)
        .rows("SELECT id, number FROM line WHERE number > 2");
    written.check(&rows);
    assert_eq!(deployment.shard(0).value("SELECT count(*) FROM line"), "0");
    // Each of its clients sees what is there now.
    for router in [stopped, other] {
        let mut client = router.target().connect();
        assert_eq!(client.value("SELECT count(*) FROM t"), ROWS.to_string());
    }
}

#[test]
fn a_router_that_does_not_acknowledge_is_cut_off_and_one_that_does_is_not() {
    // What it leaves open would hold up the moves of other tests.
    let sandbox = cluster::start(2);
    let options = Options::new(&sandbox).settings("[rebalance]\nsilence = \"2s\"");
    let deployment = one_move(options);
    let other = deployment.another_router();
    let mut living = other.target().connect();
    living.run("SELECT count(*) FROM t");
    living.run("BEGIN");
    let others = routed(&deployment);
    assert!(!others.is_empty());
    let stopped = deployment.another_router();
    let mut silent = stopped.target().connect();
    silent.run("BEGIN");
    silent.run("SELECT count(*) FROM t");
    assert_ne!(routed(&deployment), others);
    let id = ids_below(&deployment, 2048, 1)[0];
    // A block that began before the fence is waited for, so it must not touch what moves.
    let elsewhere = deployment.shard(1).value(&format!(
        "SELECT min(id) FROM t WHERE (hashint8extended(id, {SEED}) & 16383) >= 2048"
    ));
    let halted = Halted::new(stopped.pid());
    let mut moves = Guarded::spawn(
        Command::new(PGRING)
            .args(["rebalance", "--pause-budget", "10s", "-c"])
            .arg(deployment.directory())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    eventually(SOON, "the silent router is cut off", || {
        routed(&deployment) == others
    });
    assert_eq!(
        living.value(&format!("SELECT v FROM t WHERE id = {elsewhere}")),
        format!("row {elsewhere}")
    );
    living.run("COMMIT");
    eventually(SOON, "the move ends", || !moves.is_running());
    drop(halted);
    let failure = silent.simple("SELECT count(*) FROM t").failure;
    assert!(failure.is_some(), "its block is gone");
    let mut silent = stopped.target().connect();
    assert_eq!(
        silent.value(&format!("SELECT v FROM t WHERE id = {id}")),
        format!("row {id}")
    );
    deployment.pgring(&["rebalance", "--complete"]);
    leaves_nothing(&deployment);
    drop(other);
}

#[test]
fn whoever_writes_straight_to_the_source_after_the_flip_is_rejected() {
    let deployment = one_move(Deployment::shared());
    let id = ids_below(&deployment, 2048, 1)[0];
    let mut direct = deployment.shard(0);
    // An old snapshot sees no fence.
    direct.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t");
    deployment.pgring(&["rebalance"]);
    for sql in [
        format!("UPDATE t SET v = 'lost' WHERE id = {id}"),
        format!("DELETE FROM t WHERE id = {id}"),
        format!("INSERT INTO line (id, number) VALUES ({id}, 7)"),
    ] {
        let refused = deployment.shard(0).fails(&sql);
        assert_eq!(refused.code(), "40001", "{refused}");
        assert!(refused.detail().starts_with("pgring: "), "{refused}");
    }
    let refused = direct.fails(&format!("UPDATE t SET v = 'lost' WHERE id = {id}"));
    assert_eq!(refused.code(), "40001", "{refused}");
    direct.run("ROLLBACK");
    deployment.pgring(&["rebalance", "--complete"]);
    leaves_nothing(&deployment);
    let value = format!("SELECT v FROM t WHERE id = {id}");
    assert_eq!(deployment.shard(1).value(&value), format!("row {id}"));
}

#[test]
fn a_pinned_tenant_moves_alone_under_load_and_stays_where_it_is() {
    let mut deployment = one_move(Deployment::shared());
    // All rows to the first shard, by weight.
    let file = deployment.directory().join("shards.toml");
    let text = fs::read_to_string(&file).expect("read shards.toml");
    let (unpinned, _) = text.split_once("[[pin]]").expect("pins");
    let weighted = unpinned.replace("name = \"s1\"\n", "name = \"s1\"\nweight = 0\n");
    fs::write(&file, &weighted).expect("write shards.toml");
    deployment.pgring(&["rebalance"]);
    deployment.pgring(&["rebalance", "--complete"]);
    assert_eq!(deployment.shard(1).value("SELECT count(*) FROM t"), "0");
    let tenant = 77;
    let pinned =
        format!("{weighted}[[pin]]\ntable = \"public.t\"\nkey = \"{tenant}\"\nshard = \"s1\"\n");
    fs::write(&file, &pinned).expect("write shards.toml");
    deployment.kill_and_restart();
    let target = deployment.target();
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let _stops = Stop(&stop);
        let (target, stop) = (&target, &stop);
        let writer = scope.spawn(move || write_one_tenant(target, stop, tenant));
        let plan = deployment.pgring(&["rebalance", "--plan"]);
        assert!(plan.contains("s0    s1  1 "), "{plan}");
        deployment.pgring(&["rebalance", "--pause-budget", "10s"]);
        deployment.pgring(&["rebalance", "--complete"]);
        // The next one gives the second shard its share, and the tenant stays.
        fs::write(&file, pinned.replace("weight = 0", "weight = 1")).expect("write shards.toml");
        deployment.pgring(&["rebalance", "--pause-budget", "10s"]);
        deployment.pgring(&["rebalance", "--complete"]);
        fs::write(&file, &pinned).expect("write shards.toml");
        deployment.pgring(&["rebalance", "--pause-budget", "10s"]);
        deployment.pgring(&["rebalance", "--complete"]);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer")
    });
    leaves_nothing(&deployment);
    let slot = format!("SELECT hashint8extended({tenant}, {SEED}) & 16383");
    let slot = deployment.shard(0).value(&slot);
    let others = deployment.shard(1).value(&format!(
        "SELECT count(*) FROM t WHERE (hashint8extended(id, {SEED}) & 16383) <> {slot}"
    ));
    assert_eq!(others, "0", "the tenant is alone");
    let found: BTreeMap<String, String> = deployment
        .shard(1)
        .rows(&format!(
            "SELECT number, count(*) FROM line WHERE id = {tenant} AND number > 2 GROUP BY 1"
        ))
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    assert!(written > 50, "{written}");
    assert_eq!(found.len(), written as usize);
    assert!(found.values().all(|count| count == "1"));
}

/// Writes rows of one tenant through a router, each of which must be taken; how many.
fn write_one_tenant(target: &Target, stop: &AtomicBool, tenant: u32) -> u32 {
    let mut client = target.connect();
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        written += 1;
        client.run(&format!(
            "INSERT INTO line (id, number) VALUES ({tenant}, {})",
            written + 2
        ));
        std::thread::sleep(Duration::from_millis(3));
    }
    written
}

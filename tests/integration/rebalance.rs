//! Slots that move between shards, with and without clients. `PGRING_REBALANCE_SECONDS` lengthens the run under load,
//! `PGRING_REBALANCE_CLIENTS` has more write.

use super::support::deployment::Options;
use super::support::deployment::PGRING;
use super::support::process::Guarded;
use super::support::{Client, Deployment, Target, cluster, eventually, setting};
use pgring::topology::hash::SEED;
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Rows of `t` that a test puts in.
pub(super) const ROWS: u32 = 2000;

/// A sharded table with rows, and one beside it.
fn deployment(shards: usize) -> Deployment<'static> {
    filled(Deployment::shared().shards(shards))
}

fn filled(options: Options<'_>) -> Deployment<'_> {
    let deployment = options
        .schema("CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL, n numeric)")
        .schema("CREATE TABLE line (id int, number int, tags text[], PRIMARY KEY (id, number))")
        .sharded("t", "id")
        .sharded("line", "id")
        .start();
    let mut client = deployment.connect();
    client.run(&format!(
        "INSERT INTO t SELECT g, 'row ' || g, g / 7.0 FROM generate_series(1, {ROWS}) g"
    ));
    client.run(&format!(
        "INSERT INTO line SELECT g, n FROM generate_series(1, {ROWS}) g, generate_series(1, 2) n"
    ));
    client.run("UPDATE line SET tags = ARRAY['a', NULL]");
    deployment
}

/// Puts slots on a shard by a pin in the shard map.
fn pin(deployment: &Deployment<'_>, slots: &str, shard: usize) {
    let file = deployment.directory().join("shards.toml");
    let text = fs::read_to_string(&file).expect("read shards.toml");
    fs::write(
        &file,
        format!("{text}[[pin]]\nslots = \"{slots}\"\nshard = \"s{shard}\"\n"),
    )
    .expect("write shards.toml");
}

/// How many rows of `t` each shard has in the slots below `end`.
fn rows_below(deployment: &Deployment<'_>, end: u32) -> Vec<String> {
    deployment.on_each_shard(&format!(
        "SELECT count(*) FROM t WHERE (hashint8extended(id, {SEED}) & 16383) < {end}"
    ))
}

/// Counts of what no move may leave behind.
pub(crate) const LEFTOVERS: [&str; 7] = [
    "SELECT count(*) FROM pg_subscription WHERE subname ~ '^pgring' AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    "SELECT count(*) FROM pg_publication WHERE pubname ~ '^pgring'",
    "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()",
    "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^~pgring'",
    "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'pgring' AND proname ~ '^guard_[0-9t]'",
    "SELECT count(*) FROM pgring.marker",
    "SELECT count(*) FROM pgring.ownership WHERE fenced <> '{}' OR closed <> '{}' OR foreign_slots <> '{}'",
];

/// What no move may leave behind is not there.
pub(crate) fn leaves_nothing(deployment: &Deployment<'_>) {
    for sql in LEFTOVERS {
        for (shard, count) in deployment.on_each_shard(sql).iter().enumerate() {
            assert_eq!(count, "0", "shard {shard}: {sql}");
        }
    }
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn slots_move_with_their_rows_and_the_old_ones_are_deleted() {
    let mut deployment = deployment(2);
    deployment.router().kill();
    pin(&deployment, "0-4095", 1);
    let plan = deployment.pgring(&["rebalance", "--plan"]);
    assert!(plan.contains("s0    s1"), "{plan}");
    let report = deployment.pgring(&["rebalance"]);
    assert!(report.contains("kept"), "{report}");
    let again = deployment.pgring(&["rebalance"]);
    assert!(again.contains("nothing to do"), "{again}");
    let below = rows_below(&deployment, 4096);
    assert_ne!(below[1], "0");
    deployment.kill_and_restart();
    let mut client = deployment.connect();
    for id in 1..20 {
        let count = client.value(&format!("SELECT count(*) FROM t WHERE id = {id}"));
        assert_eq!(count, "1");
    }
    deployment.router().kill();
    let report = deployment.pgring(&["rebalance", "--complete"]);
    deployment.kill_and_restart();
    let mut client = deployment.connect();
    assert!(report.contains("done"), "{report}");
    assert_eq!(rows_below(&deployment, 4096)[0], "0");
    assert_eq!(rows_below(&deployment, 4096)[1], below[1]);
    assert_eq!(client.value("SELECT count(*) FROM t"), ROWS.to_string());
    assert_eq!(
        client.value("SELECT count(*) FROM line"),
        (2 * ROWS).to_string()
    );
    leaves_nothing(&deployment);
    let nothing = deployment.pgring(&["rebalance"]);
    assert!(nothing.contains("nothing to do"), "{nothing}");
}

/// `pgring rebalance` on its own, to be killed.
fn start_rebalance(deployment: &Deployment<'_>, arguments: &[&str]) -> Guarded {
    let mut command = Command::new(PGRING);
    command
        .args(["rebalance", "-c"])
        .arg(deployment.directory())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Guarded::spawn(&mut command)
}

/// Runs `pgring rebalance` until the newest move is in `phase` and kills it there. Whether it was: a phase may be over before it is seen.
fn kill_at(deployment: &Deployment<'_>, arguments: &[&str], phase: &str) -> bool {
    let mut process = start_rebalance(deployment, arguments);
    let mut source = deployment.shard(0);
    let sql = "SELECT phase FROM pgring.move WHERE source = 's0' ORDER BY id DESC LIMIT 1";
    let deadline = Instant::now() + Duration::from_secs(60);
    while process.is_running() {
        assert!(Instant::now() < deadline, "never {phase}");
        if source.column(sql) == [phase] {
            process.kill();
            return source.column(sql) == [phase];
        }
    }
    false
}

/// Writes rows straight to the shards, wherever they are let in, until told to stop: the first it tries is the one that let it in
/// last. Gives what was acknowledged, each id with a running number.
fn write_until(deployment: &Deployment<'_>, stop: &AtomicBool, ids: &[u32]) -> Vec<(u32, u32)> {
    let mut shards: Vec<Client> = (0..2).map(|shard| deployment.shard(shard)).collect();
    let mut acknowledged = Vec::new();
    let mut owner = 0;
    let mut number = 100;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        for id in ids {
            let insert = format!("INSERT INTO line (id, number) VALUES ({id}, {number})");
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let Some(failure) = shards[owner].simple(&insert).failure else {
                    acknowledged.push((*id, number));
                    break;
                };
                assert_eq!(failure.code(), "40001", "{failure}");
                assert!(failure.detail().starts_with("pgring: "), "{failure}");
                assert!(Instant::now() < deadline, "no shard takes {id}");
                owner = 1 - owner;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    acknowledged
}

/// Tells a writer to stop, though the test fails.
pub(super) struct Stop<'a>(pub(super) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ids whose rows are in the slots below `end`.
pub(super) fn ids_below(deployment: &Deployment<'_>, end: u32, count: usize) -> Vec<u32> {
    let sql = format!(
        "SELECT id FROM t WHERE (hashint8extended(id, {SEED}) & 16383) < {end} ORDER BY id LIMIT {count}"
    );
    let ids: Vec<u32> = (0..deployment.shards())
        .flat_map(|shard| deployment.shard(shard).column(&sql))
        .map(|id| id.parse().expect("an id"))
        .collect();
    ids.into_iter().take(count).collect()
}

/// Two shards, the first of which has all slots below 2048, which the map wants on the second.
pub(super) fn one_move(options: Options<'_>) -> Deployment<'_> {
    let mut deployment = filled(options.shards(2));
    deployment.router().kill();
    pin(&deployment, "0-2047", 0);
    pin(&deployment, "2048-16383", 1);
    deployment.pgring(&["rebalance"]);
    deployment.pgring(&["rebalance", "--complete"]);
    let file = deployment.directory().join("shards.toml");
    let text = fs::read_to_string(&file).expect("read shards.toml");
    let text = text.replace(
        "slots = \"0-2047\"\nshard = \"s0\"",
        "slots = \"0-2047\"\nshard = \"s1\"",
    );
    fs::write(&file, text).expect("write shards.toml");
    deployment
}

#[test]
fn a_move_that_is_killed_anywhere_is_taken_up_and_loses_no_write() {
    let deployment = one_move(Deployment::shared());
    let ids = ids_below(&deployment, 2048, 8);
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let _stops = Stop(&stop);
        let writer = scope.spawn(|| write_until(&deployment, &stop, &ids));
        let mut seen = Vec::new();
        for phase in [
            "copying",
            "catching up",
            "verifying",
            "handing over",
            "flipped",
        ] {
            if kill_at(&deployment, &["--pause-budget", "5s"], phase) {
                seen.push(phase);
            }
            deployment.pgring(&["rebalance", "--pause-budget", "5s"]);
            if phase == "flipped" {
                break;
            }
            let back = ["handing back", "undoing"][seen.len() % 2];
            kill_at(&deployment, &["--rollback"], back);
            // What was asked for is remembered.
            deployment.pgring(&["rebalance"]);
            leaves_nothing(&deployment);
        }
        assert!(seen.len() >= 3, "only killed at {seen:?}");
        kill_at(&deployment, &["--complete"], "cleaning");
        deployment.pgring(&["rebalance"]);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer")
    });
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    leaves_nothing(&deployment);
    let condition = format!("(hashint8extended(id, {SEED}) & 16383) < 2048");
    let counts = deployment.on_each_shard(&format!("SELECT count(*) FROM line WHERE {condition}"));
    assert_eq!(counts[0], "0");
    let rows = deployment
        .shard(1)
        .rows("SELECT id, number FROM line WHERE number > 100");
    let found: BTreeSet<(u32, u32)> = rows
        .iter()
        .map(|row| {
            (
                row[0].parse().expect("an id"),
                row[1].parse().expect("a number"),
            )
        })
        .collect();
    let written: BTreeSet<(u32, u32)> = acknowledged.into_iter().collect();
    assert_eq!(found, written);
}

#[test]
fn a_row_that_differs_is_named_and_stops_the_move() {
    let deployment = one_move(Deployment::shared());
    let id = ids_below(&deployment, 2048, 1)[0];
    assert!(kill_at(&deployment, &[], "catching up"));
    deployment.shard(1).run(&format!(
        "SET session_replication_role = replica; UPDATE t SET v = 'wrong' WHERE id = {id}"
    ));
    let said = deployment.fails(&["rebalance"]);
    let named = format!("public.t: id = {id} is different");
    assert!(said.contains(&named), "{said}");
    // The source still has the slots.
    assert_eq!(
        deployment.on_each_shard("SELECT fenced <> '{}' OR NOT owned @> 0 FROM pgring.ownership")
            [0],
        "f"
    );
    deployment.shard(1).run(&format!(
        "SET session_replication_role = replica; UPDATE t SET v = 'row {id}' WHERE id = {id}"
    ));
    deployment.pgring(&["rebalance"]);
    deployment.pgring(&["rebalance", "--complete"]);
    leaves_nothing(&deployment);
}

#[test]
fn a_stream_that_cannot_be_applied_is_told_and_can_be_cancelled() {
    let deployment = one_move(Deployment::shared());
    assert!(kill_at(&deployment, &[], "catching up"));
    let id = deployment.shard(0).value(&format!(
        "SELECT min(g) FROM generate_series({ROWS} + 1, {ROWS} + 1000) g WHERE (hashint8extended(g, {SEED}) & 16383) < 2048"
    ));
    let insert = format!("INSERT INTO t VALUES ({id}, 'x')");
    let planted = format!("SET session_replication_role = replica; {insert}");
    deployment.shard(1).run(&planted);
    deployment.shard(0).run(&insert);
    let mut process = start_rebalance(&deployment, &[]);
    let mut source = deployment.shard(0);
    eventually(Duration::from_secs(30), "the failure is told", || {
        source.column("SELECT 1 FROM pgring.move WHERE error ~ 's1 failed [0-9]+ times'") == ["1"]
    });
    let report = deployment.pgring(&["rebalance", "--cancel"]);
    assert!(report.contains("undone"), "{report}");
    eventually(Duration::from_secs(10), "the first one ends", || {
        !process.is_running()
    });
    assert_eq!(
        deployment
            .shard(1)
            .value(&format!("SELECT count(*) FROM t WHERE id = {id}")),
        "0"
    );
    leaves_nothing(&deployment);
}

#[test]
fn a_cancelled_move_leaves_the_source_as_it_was() {
    let deployment = one_move(Deployment::shared());
    let before = rows_below(&deployment, 2048);
    let mut process = start_rebalance(&deployment, &["--rate", "10kB"]);
    let mut source = deployment.shard(0);
    eventually(Duration::from_secs(30), "rows are copied", || {
        source.column("SELECT 1 FROM pgring.move WHERE phase = 'copying' AND rows_copied > 0 AND source = 's0'") == ["1"]
    });
    // Neither side takes what is not its own meanwhile, and nobody empties a table.
    let id = ids_below(&deployment, 2048, 1)[0];
    let refused = deployment
        .shard(1)
        .fails(&format!("INSERT INTO t VALUES ({id}, 'x')"));
    assert_eq!(refused.code(), "40001", "{refused}");
    assert_eq!(source.fails("TRUNCATE t").code(), "55006");
    let rate = source.value(
        "SELECT bytes_copied / copy_seconds / 10240 FROM pgring.move WHERE phase = 'copying'",
    );
    let rate: f64 = rate.parse().expect("a rate");
    assert!(rate < 1.1, "{rate} of the limit");
    let report = deployment.pgring(&["rebalance", "--cancel"]);
    assert!(report.contains("undone"), "{report}");
    eventually(Duration::from_secs(10), "the first one ends", || {
        !process.is_running()
    });
    assert_eq!(rows_below(&deployment, 2048), before);
    leaves_nothing(&deployment);
}

#[test]
fn what_stands_in_the_way_is_named_and_nothing_begins() {
    let mut deployment = Deployment::shared()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, v text)")
        .sharded("t", "id")
        .start();
    deployment.router().kill();
    deployment.shard(1).run("ALTER TABLE t ADD w int");
    deployment
        .shard(0)
        .run("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t SET UNLOGGED");
    pin(&deployment, "0-16383", 1);
    let said = deployment.fails(&["rebalance"]);
    for part in [
        "shard s1: table public.t differs",
        "lacks the sharding key id",
        "is unlogged",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let moves = deployment.on_each_shard("SELECT count(*) FROM pgring.move");
    assert_eq!(moves, ["0", "0"]);
}

/// What a client of a router saw while slots moved.
#[derive(Default)]
struct Seen {
    /// Ids and numbers of rows whose insert was acknowledged.
    written: Vec<(u32, u32)>,
    /// Errors.
    failures: Vec<String>,
    /// When transactions began, and how long they took.
    took: Vec<(SystemTime, Duration)>,
}

/// Writes through a router, statement by statement and in blocks, until told to stop.
fn write_through(target: &Target, stop: &AtomicBool, first: u32) -> Seen {
    let mut client = target.connect();
    let mut seen = Seen::default();
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let id = number.wrapping_mul(7919) % ROWS + 1;
        let insert = format!("INSERT INTO line (id, number) VALUES ({id}, {number})");
        let sql = match number % 2 {
            0 => insert,
            _ => format!("BEGIN; UPDATE t SET n = n + 1 WHERE id = {id}; {insert}; COMMIT"),
        };
        let (began, start) = (SystemTime::now(), Instant::now());
        match client.simple(&sql).failure {
            None => seen.written.push((id, number)),
            Some(failure) => {
                seen.failures.push(failure.to_string());
                client.simple("ROLLBACK");
            }
        }
        seen.took.push((began, start.elapsed()));
        std::thread::sleep(Duration::from_millis(3));
    }
    seen
}

/// Counts the rows of all shards, again and again, which are as many all the time; how often.
fn read_all_through(target: &Target, stop: &AtomicBool) -> usize {
    let mut client = target.connect();
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let rows = client.rows("SELECT count(*), count(DISTINCT id) FROM t");
        assert_eq!(rows, [[ROWS.to_string(), ROWS.to_string()]]);
        times += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    times
}

/// Prints how long clients waited while slots changed their owner: for each client and change, its longest transaction then.
fn tell_pauses(deployment: &Deployment<'_>, seen: &[Seen]) {
    let sql = "SELECT extract(epoch FROM flipped_at)::float8, pause_ms FROM pgring.move m \
         JOIN pgring.ownership o ON o.shard = m.source WHERE pause_ms IS NOT NULL";
    let mut pauses = Vec::new();
    let mut fences = Vec::new();
    for shard in 0..deployment.shards() {
        for row in deployment.shard(shard).rows(sql) {
            let number = |column: usize| -> f64 { row[column].parse().expect("a number") };
            let (end, pause) = (number(0), number(1) / 1000.0);
            fences.push(Duration::from_secs_f64(pause));
            let second = |time: SystemTime| {
                let since = time.duration_since(SystemTime::UNIX_EPOCH);
                since.expect("a time").as_secs_f64()
            };
            let is_in = |(began, took): &(SystemTime, Duration)| {
                let began = second(*began);
                began < end + 0.02 && began + took.as_secs_f64() > end - pause
            };
            for client in seen {
                let longest = client
                    .took
                    .iter()
                    .filter(|took| is_in(took))
                    .max_by_key(|(_, took)| *took);
                pauses.extend(longest.map(|(_, took)| *took));
            }
        }
    }
    let all = seen
        .iter()
        .flat_map(|seen| seen.took.iter().map(|(_, took)| *took));
    for (what, mut times) in [
        ("at clients", pauses),
        ("of fences", fences),
        ("of all transactions", all.collect()),
    ] {
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        eprintln!(
            "pauses {what}: {} with p50 {:?}, p99 {:?}, longest {:?}",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

#[test]
fn a_fifth_shard_takes_its_share_and_gives_it_back_while_clients_of_two_routers_write() {
    let sandbox = cluster::start(5);
    let mut deployment = Options::new(&sandbox)
        .schema("CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL, n numeric)")
        .schema("CREATE TABLE line (id int, number int, tags text[], PRIMARY KEY (id, number))")
        .sharded("t", "id")
        .sharded("line", "id")
        .plain()
        .start();
    let file = deployment.directory().join("shards.toml");
    let declared = fs::read_to_string(&file).expect("read shards.toml");
    let four = declared.replace("name = \"s4\"\n", "name = \"s4\"\nweight = 0\n");
    fs::write(&file, &four).expect("write shards.toml");
    deployment.pgring(&["init"]);
    deployment.kill_and_restart();
    let second = deployment.another_router();
    let mut client = deployment.connect();
    client.run(&format!(
        "INSERT INTO t SELECT g, 'row ' || g, 0 FROM generate_series(1, {ROWS}) g"
    ));
    assert_eq!(deployment.on_each_shard("SELECT count(*) FROM t")[4], "0");
    fs::write(&file, declared).expect("write shards.toml");

    let stop = AtomicBool::new(false);
    let mut moved = String::new();
    let seconds = Duration::from_secs(setting("PGRING_REBALANCE_SECONDS", 0));
    let clients = setting("PGRING_REBALANCE_CLIENTS", 4) as u32;
    let (targets, started) = ([deployment.target(), second.target()], Instant::now());
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let _stops = Stop(&stop);
        let writers: Vec<_> = (0..clients)
            .map(|writer| {
                let (target, stop) = (&targets[writer as usize % 2], &stop);
                scope.spawn(move || write_through(target, stop, writer * 10_000_000))
            })
            .collect();
        let reader = scope.spawn(|| read_all_through(&targets[1], &stop));
        loop {
            let report = deployment.pgring(&["rebalance", "--pause-budget", "5s"]);
            eprintln!("{report}");
            if started.elapsed() >= seconds {
                break;
            }
            deployment.pgring(&["rebalance", "--rollback"]);
        }
        deployment.pgring(&["rebalance", "--complete"]);
        moved.push_str(&deployment.shard(4).value("SELECT count(*) FROM t"));
        // And back: a shard of no weight is emptied.
        fs::write(&file, &four).expect("write shards.toml");
        let report = deployment.pgring(&["rebalance", "--pause-budget", "5s"]);
        eprintln!("{report}");
        deployment.pgring(&["rebalance", "--complete"]);
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("a reader") > 10);
        writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer"))
            .collect()
    });
    for seen in &seen {
        assert_eq!(seen.failures, [""; 0]);
    }
    tell_pauses(&deployment, &seen);
    leaves_nothing(&deployment);
    let said = deployment.pgring(&["check", "--placement"]);
    assert!(
        said.contains("every row lies where its slot is owned"),
        "{said}"
    );
    let written: BTreeSet<(u32, u32)> = seen.iter().flat_map(|seen| seen.written.clone()).collect();
    let mut found = BTreeSet::new();
    for shard in 0..5 {
        for row in deployment.shard(shard).rows("SELECT id, number FROM line") {
            let row = (
                row[0].parse().expect("an id"),
                row[1].parse().expect("a number"),
            );
            assert!(found.insert(row), "twice: {row:?}");
        }
    }
    assert_eq!(found, written);
    assert_ne!(moved, "0");
    for sql in [
        "SELECT count(*) FROM t",
        "SELECT count(*) FROM pgring.ownership WHERE owned <> '{}'",
    ] {
        assert_eq!(deployment.shard(4).value(sql), "0", "{sql}");
    }
    let blocks = written.iter().filter(|(_, number)| number % 2 == 1).count();
    let added: u32 = deployment
        .on_each_shard("SELECT coalesce(sum(n), 0)::int FROM t")
        .iter()
        .map(|sum| sum.parse::<u32>().expect("a sum"))
        .sum();
    assert_eq!(added as usize, blocks);
}

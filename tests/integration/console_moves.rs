//! Slots that move by commands of the console alone: the router that took the command drives the moves.

use crate::console::{OPERATORS, admin, column, console};
use crate::rebalance::leaves_nothing;
use crate::support::{Client, Deployment, eventually};
use pgring::topology::hash::SEED;
use std::time::Duration;

/// How long a phase may take on a loaded machine.
const PHASE: Duration = Duration::from_secs(120);
/// Statements may be held for long, so that a loaded machine need not try again.
const REBALANCE: &str = "REBALANCE PAUSE BUDGET '10s'";

/// Two shards with rows, and a map that wants slots 0 to 599 on s1, some of which s0 owns: so few that
/// it gets none in their place.
fn deployment() -> Deployment<'static> {
    let mut deployment = Deployment::shared()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL)")
        .sharded("t", "id")
        .settings(OPERATORS)
        .start();
    deployment
        .connect()
        .run("INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 10000) g");
    let said =
        deployment.reload(|map| format!("{map}[[pin]]\nslots = \"0-599\"\nshard = \"s1\"\n"));
    assert!(said.contains("loaded again"), "{said}");
    deployment
}

/// How many rows each shard has in the slots that are wanted on s1.
fn rows(deployment: &Deployment<'_>) -> Vec<u32> {
    let sql = format!("SELECT count(*) FROM t WHERE (hashint8extended(id, {SEED}) & 16383) < 600");
    let counts = deployment.on_each_shard(&sql);
    counts.iter().map(|count| count.parse().unwrap()).collect()
}

/// Waits until the moves under way are in these phases.
#[track_caller]
fn becomes(dba: &mut Client, phases: &[&str]) {
    eventually(PHASE, &format!("the moves are {phases:?}"), || {
        column(dba, "SHOW REBALANCE", "phase") == phases
    });
}

/// The last thing to hear of a command that succeeds.
#[track_caller]
fn notice(dba: &mut Client, sql: &str) -> String {
    dba.notices.clear();
    dba.rows(sql);
    dba.notices.last().expect("a notice").message().to_owned()
}

#[test]
fn slots_are_planned_moved_and_completed() {
    let deployment = deployment();
    let before = rows(&deployment);
    assert!(before[0] > 0, "{before:?}");
    let mut dba = admin(&deployment);
    assert_eq!(dba.rows("SHOW REBALANCE"), [[""; 0]; 0]);
    let plan = dba.rows("PLAN REBALANCE");
    assert_eq!((plan[0][0].as_str(), plan[0][1].as_str()), ("s0", "s1"));
    assert_eq!(plan[0][5], "NULL");
    assert_eq!(plan.len(), 1, "{plan:?}");
    assert_eq!(rows(&deployment), before);
    let begun = dba.rows(REBALANCE);
    assert_eq!(column(&mut dba, "SHOW MOVES", "move").len(), 1);
    assert_eq!(begun.len(), 1);
    becomes(&mut dba, &["kept"]);
    // Again: nothing is left to do; what cannot be done where the moves are is refused.
    let said = notice(&mut dba, "REBALANCE");
    assert!(
        said.starts_with("ownership is what the shard map declares"),
        "{said}"
    );
    for (verb, what) in [("CANCEL", "cancelled"), ("PAUSE", "paused")] {
        let failure = dba.fails(&format!("{verb} REBALANCE"));
        assert_eq!(failure.code(), "55000");
        assert_eq!(failure.message(), format!("no move can be {what}"));
        assert!(failure.detail().contains("move 1 is kept"), "{failure}");
        assert!(failure.hint().contains("ROLLBACK REBALANCE"), "{failure}");
    }
    let shown = &dba.rows("SHOW REBALANCE")[0];
    assert_eq!((shown[1].as_str(), shown[2].as_str()), ("s0", "s1"));
    assert_eq!(
        column(&mut dba, "SHOW REBALANCE", "rows")[0],
        before[0].to_string()
    );
    assert_ne!(column(&mut dba, "SHOW REBALANCE", "pause_ms")[0], "NULL");
    assert_eq!(
        column(&mut dba, "SHOW REBALANCE", "pause_budget_ms")[0],
        "10000"
    );
    // The source's rows are those of a move: nobody misses them.
    let placement = dba.rows("CHECK PLACEMENT");
    assert_eq!(placement[0][..2], ["s0", "public.t"]);
    assert_eq!(placement[0][2..], ["0", &before[0].to_string()]);
    assert_eq!(dba.rows("COMPLETE REBALANCE").len(), 1);
    becomes(&mut dba, &[]);
    assert_eq!(
        notice(&mut dba, "COMPLETE REBALANCE"),
        "no move is under way"
    );
    assert_eq!(notice(&mut dba, "RESUME REBALANCE"), "no move is paused");
    assert_eq!(column(&mut dba, "SHOW MOVES", "phase"), ["done"]);
    assert!(!column(&mut dba, "SHOW MOVES", "flipped").contains(&"NULL".to_owned()));
    assert_eq!(rows(&deployment), [0, before[0] + before[1]]);
    assert_eq!(dba.rows("CHECK PLACEMENT"), [[""; 0]; 0]);
    assert_eq!(
        notice(&mut dba, "PLAN REBALANCE"),
        "ownership is what the shard map declares"
    );
    assert_eq!(
        deployment.connect().value("SELECT count(*) FROM t"),
        "10000"
    );
    leaves_nothing(&deployment);
}

#[test]
fn moves_wait_go_on_and_are_cancelled() {
    let mut deployment = deployment();
    let before = rows(&deployment);
    let mut dba = admin(&deployment);
    dba.rows("REBALANCE RATE '100B' PAUSE BUDGET '10s'");
    eventually(PHASE, "rows are copied", || {
        column(&mut dba, "SHOW REBALANCE", "rows")[0] != "0"
    });
    assert_eq!(column(&mut dba, "SHOW REBALANCE", "rate_limit")[0], "100");
    for _ in 0..2 {
        dba.rows("PAUSE REBALANCE");
        assert_eq!(column(&mut dba, "SHOW REBALANCE", "wanted"), ["pause"]);
    }
    assert_eq!(dba.rows("RESUME REBALANCE").len(), 1);
    assert_eq!(dba.rows("RESUME REBALANCE").len(), 0);
    // What has begun goes on as it began; none more begins.
    dba.rows("PAUSE REBALANCE");
    let said = notice(&mut dba, "REBALANCE RATE '1GB'");
    assert!(said.contains("had begun before"), "{said}");
    assert_eq!(column(&mut dba, "SHOW REBALANCE", "wanted"), ["run"]);
    assert_eq!(column(&mut dba, "SHOW REBALANCE", "rate_limit")[0], "100");
    for verb in ["ROLLBACK", "COMPLETE"] {
        let failure = dba.fails(&format!("{verb} REBALANCE"));
        assert_eq!(failure.code(), "55000");
        assert!(failure.hint().contains("CANCEL REBALANCE"), "{failure}");
    }
    dba.rows("CANCEL REBALANCE");
    dba.rows("CANCEL REBALANCE");
    becomes(&mut dba, &[]);
    assert_eq!(column(&mut dba, "SHOW MOVES", "phase"), ["undone"]);
    assert_eq!(notice(&mut dba, "CANCEL REBALANCE"), "no move is under way");
    assert_eq!(rows(&deployment), before);
    leaves_nothing(&deployment);
    let log = deployment.router().log();
    for line in [
        "console: done user=\"dba\" command=REBALANCE RATE '100B' PAUSE BUDGET '10s'",
        "console: not done user=\"dba\" command=ROLLBACK REBALANCE error=no move can be rolled back",
        "console: done user=\"dba\" command=CANCEL REBALANCE",
    ] {
        assert!(log.contains(line), "{line}\n{log}");
    }
}

#[test]
fn slots_are_given_back() {
    let deployment = deployment();
    let before = rows(&deployment);
    let mut dba = admin(&deployment);
    dba.rows(REBALANCE);
    becomes(&mut dba, &["kept"]);
    dba.rows("ROLLBACK REBALANCE");
    becomes(&mut dba, &[]);
    assert_eq!(
        notice(&mut dba, "ROLLBACK REBALANCE"),
        "no move is under way"
    );
    assert_eq!(column(&mut dba, "SHOW MOVES", "phase"), ["undone"]);
    assert_eq!(rows(&deployment), before);
    leaves_nothing(&deployment);
    // Another try has ids of its own.
    dba.rows(REBALANCE);
    becomes(&mut dba, &["kept"]);
    let ids = column(&mut dba, "SHOW MOVES", "move");
    assert_eq!(ids, ["1", "2"]);
}

#[test]
fn what_stands_in_the_way_is_told_and_nothing_begins() {
    let deployment = deployment();
    deployment
        .shard(0)
        .run("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t SET UNLOGGED");
    let mut dba = admin(&deployment);
    let blockers = column(&mut dba, "PLAN REBALANCE", "blocker");
    for part in ["is unlogged", "lacks the sharding key id"] {
        let found = blockers.iter().any(|blocker| blocker.contains(part));
        assert!(found, "{part}: {blockers:?}");
    }
    let failure = dba.fails("REBALANCE");
    assert_eq!(failure.code(), "55000");
    assert!(failure.detail().contains("is unlogged"), "{failure}");
    assert_eq!(dba.rows("SHOW MOVES").len(), 0);
}

#[test]
fn a_monitor_looks_at_moves_and_changes_none() {
    let deployment = deployment();
    let mut watch = console(&deployment, "watch").connect();
    for verb in [
        "REBALANCE",
        "PAUSE REBALANCE",
        "RESUME REBALANCE",
        "CANCEL REBALANCE",
        "ROLLBACK REBALANCE",
        "COMPLETE REBALANCE",
    ] {
        let failure = watch.fails(verb);
        assert_eq!(failure.code(), "42501");
        assert_eq!(failure.message(), format!("permission denied for {verb}"));
    }
    assert_eq!(watch.rows("SHOW MOVES").len(), 0);
    assert_ne!(watch.rows("PLAN REBALANCE").len(), 0);
    assert_eq!(watch.rows("SHOW REBALANCE").len(), 0);
    // A row that somebody put on the wrong shard.
    let id = deployment.shard(0).value("SELECT min(id) FROM t");
    deployment
        .shard(1)
        .run(&format!("INSERT INTO t VALUES ({id}, 'x')"));
    assert_eq!(
        watch.rows("CHECK PLACEMENT"),
        [["s1", "public.t", "1", "0"]]
    );
}

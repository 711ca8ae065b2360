//! Edits of the shard map from the console: the file keeps what a person wrote, and nothing is taken over that is wrong.

use crate::console::{OPERATORS, admin, column, console};
use crate::support::{Client, Deployment, Target, eventually};
use std::fs;
use std::time::Duration;

/// How long moves may take on a loaded machine.
const MOVED: Duration = Duration::from_secs(120);

const SCHEMA: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, total int);
    CREATE TABLE notes (id text PRIMARY KEY);
    CREATE TABLE codes (code text PRIMARY KEY)";

fn deployment(shards: usize) -> Deployment<'static> {
    Deployment::shared()
        .shards(shards)
        .schema(SCHEMA)
        .sharded("orders", "id")
        .sharded("notes", "id")
        .reference("codes")
        .settings(OPERATORS)
        .start()
}

fn map(deployment: &Deployment<'_>) -> String {
    fs::read_to_string(deployment.directory().join("shards.toml")).expect("read shards.toml")
}

fn write_map(deployment: &Deployment<'_>, text: &str) {
    fs::write(deployment.directory().join("shards.toml"), text).expect("write shards.toml");
}

/// The notices of a command that succeeds.
#[track_caller]
fn notices(dba: &mut Client, sql: &str) -> Vec<String> {
    dba.notices.clear();
    dba.rows(sql);
    let notices = dba.notices.iter();
    notices.map(|notice| notice.message().to_owned()).collect()
}

/// Nothing is changed by the command, for this reason.
#[track_caller]
fn changes_nothing(deployment: &Deployment<'_>, dba: &mut Client, sql: &str, why: &str) {
    let before = map(deployment);
    let told = notices(dba, sql);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(why) && told[0].ends_with("nothing is changed"),
        "{told:?}"
    );
    assert_eq!(map(deployment), before);
}

/// The command is refused, and the file stays as it is.
#[track_caller]
fn refused(deployment: &Deployment<'_>, dba: &mut Client, sql: &str, code: &str, why: &str) {
    let before = map(deployment);
    let failure = dba.fails(sql);
    assert_eq!(failure.code(), code, "{failure}");
    let said = failure.to_string();
    assert!(said.contains(why), "{why}: {said}");
    assert_eq!(map(deployment), before);
    let folder = fs::read_dir(deployment.directory()).expect("read the folder");
    for entry in folder {
        let name = entry.expect("an entry").file_name();
        assert!(
            !name.to_string_lossy().ends_with(".edit"),
            "{name:?} is left"
        );
    }
}

#[test]
fn keys_are_pinned_and_what_people_wrote_stays() {
    let mut deployment = deployment(2);
    let text = map(&deployment);
    let text = format!(
        "# Ours.\n\n{}\n# The last line.\n",
        text.replace(
            "[[shard]]\nname = \"s1\"",
            "\n# The second.\n[[shard]]\nname   = \"s1\" # in the cellar"
        )
    );
    write_map(&deployment, &text);
    let mut dba = admin(&deployment);
    assert_eq!(dba.rows("RELOAD"), [[""; 0]; 0]);
    let place = |dba: &mut Client| column(dba, "WHERE KEY '42' OF orders", "shard")[0].clone();
    let home = place(&mut dba);
    let other = if home == "s0" { "s1" } else { "s0" };
    let rows = dba.rows(&format!("PIN KEY '42' OF orders TO {other}"));
    let key = "pin.public.orders key 42";
    assert_eq!(rows, [[key, "NULL", other, "taken over"]]);
    let pin = format!("\n[[pin]]\ntable = \"public.orders\"\nkey = \"42\"\nshard = \"{other}\"\n");
    let expected = text.replace("\n# The last line.", &format!("{pin}\n# The last line."));
    assert_eq!(map(&deployment), expected);
    let pinned = column(&mut dba, "SHOW RING", "pinned");
    assert_eq!(pinned.iter().filter(|pinned| *pinned == "1").count(), 1);
    assert_eq!(dba.rows("PLAN REBALANCE")[0][1], other);
    // The same key, however it is written, and on the other shard.
    let again = format!("PIN KEY ' 042' OF public.orders TO {other}");
    changes_nothing(&deployment, &mut dba, &again, "is pinned to");
    let rows = dba.rows(&format!("PIN KEY 42 OF orders TO {home}"));
    assert_eq!(rows, [[key, other, home.as_str(), "taken over"]]);
    let told = notices(&mut dba, &format!("PIN KEY 42 OF orders TO {other}"));
    assert!(told[0].contains("REBALANCE moves it"), "{told:?}");
    assert_eq!(map(&deployment), expected);
    // A pinned tenant moves alone.
    let moves = column(&mut dba, "REBALANCE PAUSE BUDGET '10s'", "slots");
    assert_eq!(moves, ["1"]);
    eventually(MOVED, "the key has moved", || place(&mut dba) == other);
    eventually(MOVED, "the move is kept", || {
        column(&mut dba, "SHOW REBALANCE", "phase") == ["kept"]
    });
    assert_eq!(
        dba.rows("UNPIN KEY '42' OF orders"),
        [[key, other, "NULL", "taken over"]]
    );
    assert_eq!(map(&deployment), text);
    changes_nothing(
        &deployment,
        &mut dba,
        "UNPIN KEY '42' OF orders",
        "is not pinned",
    );
    // A key of whatever characters, which the file holds as well.
    let odd = r#"E'a"b\\ c\n#'' '"#;
    dba.rows(&format!("PIN KEY {odd} OF notes TO s1"));
    assert_eq!(dba.rows("RELOAD"), [[""; 0]; 0]);
    let again = format!("PIN KEY {odd} OF notes TO s1");
    changes_nothing(&deployment, &mut dba, &again, "is pinned to s1 already");
    dba.rows(&format!("UNPIN KEY {odd} OF notes"));
    assert_eq!(map(&deployment), text);
    let log = deployment.router().log();
    let line = format!("console: done user=\"dba\" command=PIN KEY '42' OF orders TO {other}");
    assert!(log.contains(&line), "{log}");
}

#[test]
fn pins_that_cannot_be_are_refused() {
    let deployment = deployment(2);
    let mut dba = admin(&deployment);
    let mut refuses = |sql: &str, code, why| refused(&deployment, &mut dba, sql, code, why);
    refuses(
        "PIN KEY '1' OF codes TO s0",
        "42P01",
        "\"codes\" is not a sharded table",
    );
    refuses(
        "PIN KEY '1' OF nowhere TO s0",
        "42P01",
        "is not a sharded table",
    );
    refuses(
        "PIN KEY 'x' OF orders TO s0",
        "22P02",
        "not a value of the key's type",
    );
    refuses(
        "PIN KEY '1' OF orders TO s9",
        "42704",
        "shard \"s9\" does not exist",
    );
    let mut watch = console(&deployment, "watch").connect();
    for sql in [
        "PIN KEY '1' OF orders TO s0",
        "UNPIN KEY '1' OF orders",
        "ADD SHARD s9 NODES 'h:1'",
        "DRAIN SHARD s1",
        "REMOVE SHARD s1",
    ] {
        assert_eq!(watch.fails(sql).code(), "42501");
    }
    // Slots that another pin holds elsewhere; the key's own is told when its pin goes.
    let text = map(&deployment);
    let pinned = format!("{text}[[pin]]\nslots = \"0-16383\"\nshard = \"s0\"\n");
    write_map(&deployment, &pinned);
    dba.rows("RELOAD");
    let mut dba = admin(&deployment);
    let taken = "PIN KEY '1' OF orders TO s1";
    refused(
        &deployment,
        &mut dba,
        taken,
        "55000",
        "are pinned to \"s0\" already",
    );
    dba.rows("PIN KEY '1' OF orders TO s0");
    let told = notices(&mut dba, "UNPIN KEY '1' OF orders");
    assert!(told[0].starts_with("another pin holds slot"), "{told:?}");
    assert_eq!(map(&deployment), pinned);
}

#[test]
fn a_file_that_is_not_what_was_loaded_is_left_alone() {
    let deployment = deployment(2);
    let text = map(&deployment);
    let mut dba = admin(&deployment);
    let pin = "PIN KEY '1' OF orders TO s0";
    write_map(
        &deployment,
        &text.replace("name = \"s1\"", "name = \"s1\"\nweight = 3"),
    );
    refused(
        &deployment,
        &mut dba,
        pin,
        "55000",
        "is not what this router has loaded",
    );
    let failure = dba.fails(pin);
    assert_eq!(failure.detail(), "shard.s1.weight");
    assert!(failure.hint().contains("RELOAD"), "{failure}");
    write_map(&deployment, &format!("{text}[tabel]\n"));
    refused(&deployment, &mut dba, pin, "F0000", "tabel: unknown key");
    write_map(&deployment, &format!("pin = []\n{text}"));
    refused(
        &deployment,
        &mut dba,
        pin,
        "55000",
        "has to be edited by hand",
    );
    // What would be wrong afterwards.
    write_map(&deployment, &text);
    let taken = "ADD SHARD s9 NODES '/nowhere:1' WEIGHT 101";
    refused(
        &deployment,
        &mut dba,
        taken,
        "F0000",
        "must be between 0 and 100",
    );
    let taken = "ADD SHARD 'no good' NODES '/nowhere:1'";
    refused(
        &deployment,
        &mut dba,
        taken,
        "F0000",
        "must be 1 to 32 characters",
    );
    let nodes = text
        .split("nodes = [\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let taken = format!(
        "ADD SHARD s9 NODES '{}' DATABASE '{}'",
        nodes.expect("a node"),
        deployment.database()
    );
    refused(
        &deployment,
        &mut dba,
        &taken,
        "F0000",
        "stands already in line",
    );
    dba.rows(pin);
    assert_ne!(map(&deployment), text);
}

#[test]
fn shards_that_something_needs_stay() {
    let deployment = Deployment::shared()
        .shards(3)
        .schema(SCHEMA)
        .schema("CREATE TABLE audit (line text)")
        .sharded("orders", "id")
        .settings(OPERATORS)
        .start();
    let text = format!(
        "{}[[table]]\nname = \"public.audit\"\nkind = \"local\"\nshard = \"s1\"\n[[pin]]\nslots = \"7\"\nshard = \"s2\"\n",
        map(&deployment)
    );
    write_map(&deployment, &text);
    let mut dba = admin(&deployment);
    dba.rows("RELOAD");
    let mut refuses = |sql: &str, code, why| refused(&deployment, &mut dba, sql, code, why);
    refuses("DRAIN SHARD s9", "42704", "shard \"s9\" does not exist");
    refuses("DRAIN SHARD s2", "55000", "slots 7-7 are pinned there");
    refuses("REMOVE SHARD s0", "55000", "it is the default shard");
    refuses(
        "REMOVE SHARD s1",
        "55000",
        "table public.audit is local there",
    );
    refuses("REMOVE SHARD s2", "55000", "slots 7-7 are pinned there");
    changes_nothing(
        &deployment,
        &mut dba,
        "REMOVE SHARD s9",
        "has no shard \"s9\"",
    );
    let told = notices(&mut dba, "DRAIN SHARD s1");
    assert!(
        told.iter()
            .any(|told| told == "what stays: table public.audit is local there"),
        "{told:?}"
    );
    changes_nothing(
        &deployment,
        &mut dba,
        "DRAIN SHARD s1",
        "has the weight 0 already",
    );
    dba.rows("DRAIN SHARD s0");
    write_map(
        &deployment,
        &map(&deployment).replace("[[pin]]\nslots = \"7\"\nshard = \"s2\"\n", ""),
    );
    dba.rows("RELOAD");
    let mut dba = admin(&deployment);
    let last = "no other has a weight above 0";
    refused(&deployment, &mut dba, "DRAIN SHARD s2", "55000", last);
    refused(&deployment, &mut dba, "REMOVE SHARD s2", "55000", last);
}

/// Makes ownership what the map declares, with the rows deleted where they were.
#[track_caller]
fn rebalance(dba: &mut Client) {
    let begun = dba.rows("REBALANCE PAUSE BUDGET '10s'").len();
    assert_ne!(begun, 0);
    eventually(MOVED, "the moves are kept", || {
        column(dba, "SHOW REBALANCE", "phase") == vec!["kept"; begun]
    });
    dba.rows("COMPLETE REBALANCE");
    eventually(MOVED, "the moves are completed", || {
        dba.rows("SHOW REBALANCE").is_empty()
    });
}

#[test]
fn a_shard_is_added_drained_and_removed() {
    let mut deployment = deployment(2);
    let mut app = deployment.connect();
    app.run("INSERT INTO orders SELECT g, 1 FROM generate_series(1, 1000) g; INSERT INTO codes VALUES ('a')");
    let mut dba = admin(&deployment);
    let node = deployment.create_shard(SCHEMA);
    let database = deployment.database().to_owned();
    let add = format!("ADD SHARD s2 NODES '{node}' DATABASE '{database}'");
    let rows = dba.rows(&add);
    let keys: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(
        keys,
        ["shard.s2.database", "shard.s2.nodes", "shard.s2.weight"]
    );
    assert_eq!(column(&mut dba, "SHOW SHARDS", "state")[2], "out");
    assert_eq!(column(&mut dba, "SHOW RING", "proposed")[2], "0");
    changes_nothing(&deployment, &mut dba, &add, "is declared so already");
    let otherwise = format!("{add} WEIGHT 2");
    refused(
        &deployment,
        &mut dba,
        &otherwise,
        "42710",
        "shard \"s2\" is declared already",
    );
    // A shard without a place goes as it came.
    dba.rows("REMOVE SHARD s2");
    dba.rows(&add);
    deployment.pgring(&["init"]);
    eventually(MOVED, "it has joined", || {
        column(&mut dba, "SHOW SHARDS", "state")[2] == "up"
    });
    rebalance(&mut dba);
    let owned = |dba: &mut Client| column(dba, "SHOW SHARDS", "slots");
    assert_ne!(owned(&mut dba)[2], "0");

    refused(
        &deployment,
        &mut dba,
        "REMOVE SHARD s1",
        "55000",
        "owns slots",
    );
    let failure = dba.fails("REMOVE SHARD s1");
    assert!(failure.hint().contains("DRAIN SHARD"), "{failure}");
    assert_eq!(
        dba.rows("DRAIN SHARD s1"),
        [["shard.s1.weight", "1", "0", "taken over"]]
    );
    let begun = dba.rows("REBALANCE PAUSE BUDGET '10s'").len();
    eventually(MOVED, "the moves are kept", || {
        column(&mut dba, "SHOW REBALANCE", "phase") == vec!["kept"; begun]
    });
    refused(
        &deployment,
        &mut dba,
        "REMOVE SHARD s1",
        "55000",
        "is under way",
    );
    dba.rows("COMPLETE REBALANCE");
    eventually(MOVED, "the moves are completed", || {
        dba.rows("SHOW REBALANCE").is_empty()
    });
    assert_eq!(owned(&mut dba)[1], "0");
    deployment.shard(1).run("INSERT INTO orders VALUES (1, 2)");
    refused(
        &deployment,
        &mut dba,
        "REMOVE SHARD s1",
        "55000",
        "public.orders has rows on shard s1",
    );
    deployment.shard(1).run("DELETE FROM orders");
    // Another router goes by a map of its own, in which the shard is still: it is written there, and not read.
    let other = deployment.another_router();
    let mut other_dba = Target {
        port: other.target().port,
        ..console(&deployment, "dba")
    }
    .connect();
    assert_eq!(column(&mut other_dba, "SHOW SHARDS", "state"), ["up"; 3]);
    let rows = dba.rows("REMOVE SHARD s1");
    assert_eq!(
        column(&mut other_dba, "SHOW SHARDS", "state"),
        ["up", "joining", "up"]
    );
    let mut other_app = other.target().connect();
    deployment.shard(1).run("DELETE FROM codes");
    for _ in 0..10 {
        assert_eq!(other_app.value("SELECT count(*) FROM codes"), "1");
    }
    other_app.run("INSERT INTO codes VALUES ('other')");
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) FROM codes"),
        ["2", "1", "2"]
    );
    assert_eq!(other_dba.rows("REMOVE SHARD s1").len(), 3);
    drop((other_app, other_dba, other));
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(!map(&deployment).contains("\"s1\""));
    changes_nothing(
        &deployment,
        &mut dba,
        "REMOVE SHARD s1",
        "has no shard \"s1\"",
    );
    assert_eq!(
        column(&mut dba, "SHOW SHARDS", "state"),
        ["up", "out", "up"]
    );
    let joining = "SELECT joining FROM pgring.ownership";
    assert_eq!(deployment.shard(1).value(joining), "t");

    // What is written now is not written there; the moves of the others are theirs.
    app.run("INSERT INTO codes VALUES ('b')");
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) FROM codes"),
        ["3", "1", "3"]
    );
    let key = (1..)
        .find(|key| column(&mut dba, &format!("WHERE KEY {key} OF orders"), "shard") == ["s0"]);
    let key = key.expect("a key of s0");
    dba.rows(&format!("PIN KEY {key} OF orders TO s2"));
    rebalance(&mut dba);
    let moved = format!("WHERE KEY {key} OF orders");
    assert_eq!(column(&mut dba, &moved, "shard"), ["s2"]);
    assert_eq!(
        column(&mut dba, "SHOW MOVES", "target").last().unwrap(),
        "s2"
    );
    assert_eq!(app.value("SELECT count(*) FROM orders"), "1000");

    // It comes back as a new one does: nothing is read there before it has what was written meanwhile.
    let node = deployment.node(1);
    dba.rows(&format!(
        "ADD SHARD s1 NODES '{node}' DATABASE '{database}'"
    ));
    eventually(MOVED, "it is written", || {
        column(&mut dba, "SHOW SHARDS", "state")[1] == "joining"
    });
    for _ in 0..10 {
        assert_eq!(app.value("SELECT count(*) FROM codes"), "3");
    }
    let blockers = column(&mut dba, "PLAN REBALANCE", "blocker");
    assert!(
        blockers
            .iter()
            .any(|blocker| blocker.contains("has not joined the cluster yet")),
        "{blockers:?}"
    );
    deployment.pgring(&["init"]);
    eventually(MOVED, "it has joined", || {
        column(&mut dba, "SHOW SHARDS", "state")[1] == "up"
    });
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) FROM codes"),
        ["3"; 3]
    );
}

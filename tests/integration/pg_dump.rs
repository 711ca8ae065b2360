//! `pg_dump` through the router: of one shard it is what the shard itself gives; of several it needs a consistent snapshot,
//! and is refused without, since each shard would give one of its own.

use crate::support::Deployment;
use std::process::Command;

const SCHEMA: &str = "CREATE TABLE accounts (aid int PRIMARY KEY, balance int);
    CREATE TABLE places (id int PRIMARY KEY, name text);
    CREATE VIEW rich AS SELECT aid FROM accounts WHERE balance > 100";

fn deployment(shards: usize) -> Deployment<'static> {
    let options = Deployment::shared().shards(shards).schema(SCHEMA);
    let options = options.sharded("accounts", "aid").reference("places");
    let deployment = options.start();
    let mut client = deployment.connect();
    client.run("INSERT INTO accounts VALUES (1, 1), (2, 1), (3, 1)");
    deployment
}

/// What it prints, or why not.
fn dump(mut pg_dump: Command, arguments: &[&str]) -> Result<String, String> {
    let said = pg_dump.args(arguments).output().expect("run pg_dump");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // Each dump has a key of its own that psql's meta-commands are restricted with.
    let is_kept =
        |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    match said.status.success() {
        true => Ok(text(&said.stdout)
            .lines()
            .filter(is_kept)
            .collect::<Vec<_>>()
            .join("\n")),
        false => Err(text(&said.stderr)),
    }
}

#[test]
fn a_dump_of_one_shard_is_what_the_shard_gives() {
    let deployment = deployment(1);
    for arguments in [
        &["--schema=public", "--schema-only"][..],
        &["--schema=public"],
    ] {
        let direct = deployment.shard_program(0, "pg_dump");
        let direct = dump(direct, arguments).expect("a dump of the shard");
        assert!(direct.contains("CREATE TABLE public.accounts"));
        let through = dump(deployment.program("pg_dump"), arguments);
        assert_eq!(through.expect("a dump through the router"), direct);
    }
}

#[test]
fn a_dump_of_several_shards_has_the_rows_of_all_in_a_consistent_snapshot() {
    let deployment = deployment(4);
    deployment
        .connect()
        .run("INSERT INTO places VALUES (1, 'here')");
    let mut pg_dump = deployment.program("pg_dump");
    pg_dump.env("PGOPTIONS", "-c pgring.snapshot=consistent");
    let whole = dump(pg_dump, &["--schema=public"]).expect("a dump");
    let rows = |copy: &str| -> Vec<&str> {
        let mut lines = whole.lines().skip_while(|line| !line.starts_with(copy));
        lines.next().expect("the table's rows");
        let mut rows: Vec<_> = lines.take_while(|line| *line != "\\.").collect();
        rows.sort_unstable();
        rows
    };
    assert_eq!(rows("COPY public.accounts "), ["1\t1", "2\t1", "3\t1"]);
    assert_eq!(rows("COPY public.places "), ["1\there"]);
    assert_eq!(whole.matches("CREATE VIEW public.rich").count(), 1);
}

#[test]
fn a_dump_of_several_shards_is_refused() {
    let deployment = deployment(4);
    for arguments in [&["--schema-only"][..], &[]] {
        let refused = dump(deployment.program("pg_dump"), arguments).unwrap_err();
        assert!(refused.contains("refusal: snapshot-isolation"), "{refused}");
    }
    // As is the snapshot that parallel jobs share.
    let refused = deployment
        .connect()
        .fails("BEGIN; SET TRANSACTION SNAPSHOT '00000003-1B-1'");
    assert_eq!(refused.refusal(), Some("transaction-snapshot"));
}

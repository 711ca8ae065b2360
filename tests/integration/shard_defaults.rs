//! Shards whose databases and roles have settings of their own: a session has the default shard's everywhere.

use crate::support::client::Reply;
use crate::support::deployment::Options;
use crate::support::fault::Fault;
use crate::support::{Client, Deployment, Router, cluster, eventually};
use std::time::Duration;

/// A table whose rows are printed by every kind of setting.
const SCHEMA: &str = "CREATE TABLE readings (k bigint PRIMARY KEY, day date, length interval, at timestamptz, raw bytea, \
     f float8, cost money, tags text[]);\
     CREATE SCHEMA other; CREATE TABLE other.readings (k bigint PRIMARY KEY, day date)";

/// What each shard's database has of its own; the first shard is the default shard.
const OWN: [&[(&str, &str)]; 4] = [
    &[
        ("datestyle", "'SQL, DMY'"),
        ("intervalstyle", "iso_8601"),
        ("timezone", "'America/New_York'"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-6"),
        ("quote_all_identifiers", "on"),
        ("transform_null_equals", "on"),
    ],
    &[
        ("datestyle", "'Postgres, MDY'"),
        ("timezone", "'Asia/Tokyo'"),
        ("array_nulls", "off"),
        ("lc_monetary", "'C.utf8'"),
    ],
    &[
        ("search_path", "other, public"),
        ("intervalstyle", "sql_standard"),
        ("xmlbinary", "hex"),
        ("standard_conforming_strings", "off"),
    ],
    &[
        ("default_transaction_isolation", "serializable"),
        ("default_text_search_config", "'pg_catalog.german'"),
        ("timezone_abbreviations", "'Australia'"),
    ],
];

/// Databases with these settings, the first shard's on the single PostgreSQL too; no router yet.
fn plain(options: Options<'static>) -> Deployment<'static> {
    let deployment = options
        .schema(SCHEMA)
        .sharded("readings", "k")
        .plain()
        .start();
    for (shard, settings) in OWN.iter().enumerate() {
        give(&mut deployment.shard(shard), settings);
    }
    give(&mut single(&deployment), OWN[0]);
    deployment.pgring(&["init"]);
    deployment
}

/// The single PostgreSQL's superuser.
fn single(deployment: &Deployment<'_>) -> Client {
    let database = deployment.one().database;
    cluster::superuser(deployment.sandbox(), 0, &database).connect()
}

fn give(client: &mut Client, settings: &[(&str, &str)]) {
    let database = client.value("SELECT current_database()");
    for (name, value) in settings {
        client.run(&format!("ALTER DATABASE {database} SET {name} = {value}"));
    }
}

/// Statements whose meaning or print depends on settings, over all shards.
const STATEMENTS: [&str; 8] = [
    "SELECT * FROM readings ORDER BY k",
    "SELECT k, day, length FROM readings WHERE k IN (1, 2, 3, 4, 5, 6, 7, 8) ORDER BY k",
    "SELECT k, xmlforest(raw) FROM readings ORDER BY k",
    "SELECT k, quote_ident(tags[1]), cost FROM readings ORDER BY k",
    "SELECT k, to_tsvector(tags[1] || ' running houses')::text FROM readings ORDER BY k",
    "SELECT k, '2024-01-15 12:00 EST'::timestamptz FROM readings ORDER BY k",
    "SELECT k, 'a\\b' FROM readings ORDER BY k",
    "SELECT k FROM readings WHERE NULL = tags ORDER BY k",
];

#[track_caller]
fn alike(router: &mut Client, plain: &mut Client) {
    // What a single shard says of itself, of rows on each of them.
    let single = (1..=8).map(|k| {
        format!(
            "SELECT current_setting('search_path'), current_setting('transaction_isolation'), \
             current_schemas(false)::text FROM readings WHERE k = {k}"
        )
    });
    for sql in STATEMENTS.map(String::from).into_iter().chain(single) {
        let sql = &*sql;
        let rows = plain.rows(sql);
        assert_eq!(router.rows(sql), rows, "{sql}");
        let texts = |reply: Reply| reply.outcomes.into_iter().map(|outcome| outcome.rows);
        let (one, many) = (
            plain.extended(sql, &[], false),
            router.extended(sql, &[], false),
        );
        assert_eq!(many.failure, one.failure, "{sql}");
        assert!(texts(many).eq(texts(one)), "{sql}");
    }
}

/// Rows on all shards, read as the settings say.
fn fill(client: &mut Client) {
    for k in 1..=24 {
        client.run(&format!(
            "INSERT INTO readings VALUES ({k}, '03/02/2024', '1 year {k} days', '2024-07-0{} 12:00', '\\x00ff41', \
             {k}::float8 / 3, {k}, '{{Run,NULL}}')",
            k % 9 + 1
        ));
    }
    client.run("INSERT INTO readings VALUES (25), (26), (27), (28), (29), (30), (31), (32)");
}

#[test]
fn rows_of_all_shards_are_read_and_printed_as_on_the_default_shard() {
    let deployment = plain(Deployment::shared().settings("[pool]\nsize = 1"));
    let router = deployment.another_router();
    let (mut client, mut plain) = (router.target().connect(), deployment.one().connect());
    fill(&mut client);
    fill(&mut plain);
    assert_eq!(
        deployment
            .shards_with("SELECT count(*) FROM public.readings")
            .len(),
        4
    );
    alike(&mut client, &mut plain);
    for name in ["DateStyle", "IntervalStyle", "TimeZone"] {
        assert_eq!(client.parameters[name], plain.parameters[name], "{name}");
    }
    // What a client set, it takes back to the same.
    let set = "SET datestyle = 'German'; SET bytea_output = hex; SET timezone = 'UTC'; SET search_path = other";
    for back in [
        "RESET datestyle; RESET bytea_output; RESET timezone; RESET search_path",
        "SET datestyle TO DEFAULT; SET bytea_output TO DEFAULT; SET timezone TO DEFAULT; SET search_path TO DEFAULT",
        "RESET ALL",
    ] {
        for client in [&mut client, &mut plain] {
            client.run(set);
            assert_eq!(client.value("SHOW datestyle"), "German, DMY");
            client.run(back);
        }
        alike(&mut client, &mut plain);
    }
    for client in [&mut client, &mut plain] {
        client.run(set);
        client.run("DISCARD ALL");
    }
    alike(&mut client, &mut plain);
    // In a block, where shards join one by one, and with what holds for the block only.
    for client in [&mut client, &mut plain] {
        client.run("BEGIN");
        client.run("SET LOCAL datestyle TO DEFAULT");
        client.run("SELECT FROM readings WHERE k = 3");
        client.run("SET LOCAL intervalstyle TO DEFAULT");
    }
    alike(&mut client, &mut plain);
    for client in [&mut client, &mut plain] {
        client.run("COMMIT");
    }
    alike(&mut client, &mut plain);
}

#[test]
fn a_roles_own_settings_are_those_of_the_default_shard() {
    let deployment = plain(Deployment::shared().settings("[pool]\nsize = 1"));
    let database = deployment.shard(0).value("SELECT current_database()");
    for (shard, style) in ["German", "ISO", "Postgres, YMD", "SQL, YMD"]
        .iter()
        .enumerate()
    {
        deployment.shard(shard).run(&format!(
            "ALTER ROLE app IN DATABASE {database} SET datestyle = '{style}'"
        ));
    }
    single(&deployment).run(&format!(
        "ALTER ROLE app IN DATABASE {database}_one SET datestyle = 'German'"
    ));
    let router = deployment.another_router();
    let (mut client, mut plain) = (router.target().connect(), deployment.one().connect());
    for client in [&mut client, &mut plain] {
        client.run("INSERT INTO readings SELECT 1, '03.02.2024'");
        client.run(
            "INSERT INTO readings VALUES (2, '04.02.2024'), (3, '05.02.2024'), (4, '06.02.2024')",
        );
    }
    alike(&mut client, &mut plain);
    // A login that names a part of it keeps the rest.
    for asked in ["ISO", "YMD", "Postgres, US"] {
        client = router.target().login(&[("DateStyle", asked)]).unwrap();
        plain = deployment.one().login(&[("DateStyle", asked)]).unwrap();
        assert_eq!(
            client.value("SHOW datestyle"),
            plain.value("SHOW datestyle")
        );
        alike(&mut client, &mut plain);
    }
}

#[test]
fn what_the_default_shard_is_told_later_holds_for_those_who_log_in_later() {
    let deployment = plain(Deployment::shared().settings("[pool]\nlifetime = \"1s\"\nsize = 1"));
    let router = deployment.another_router();
    let (mut before, mut plain) = (router.target().connect(), deployment.one().connect());
    for client in [&mut before, &mut plain] {
        client.run(
            "INSERT INTO readings VALUES (1, '03/02/2024'), (2, '04/02/2024'), (3, '05/02/2024')",
        );
    }
    give(&mut deployment.shard(0), &[("datestyle", "'German'")]);
    eventually(Duration::from_secs(20), "a login that hears of it", || {
        // One that needs the default shard: its connection is replaced when it is too old.
        before.run("SET pgring.shard = 's0'; SELECT 1; RESET pgring.shard");
        router.target().connect().value("SHOW datestyle") == "German, DMY"
    });
    alike(&mut before, &mut plain);
    give(&mut single(&deployment), &[("datestyle", "'German'")]);
    let (mut after, mut plain_after) = (router.target().connect(), deployment.one().connect());
    alike(&mut after, &mut plain_after);
    alike(&mut before, &mut plain);
}

#[test]
fn without_the_default_shard_rows_are_printed_alike_all_the_same() {
    let sandbox = cluster::shared();
    let socket = format!(
        "{}/.s.PGSQL.{}",
        sandbox.socket_directory(0).display(),
        sandbox.port(0)
    );
    let link = Fault::before(&socket);
    let deployment = plain(Deployment::shared().node(0, &link.address()));
    let router = deployment.another_router();
    // The router learns what the shards own; nobody logs in to the default shard before it is gone.
    let mut client = router.target().connect();
    client.run("INSERT INTO readings SELECT 1");
    let keys: Vec<String> = (1..=64).map(|k| format!("({k}, '2024-03-02')")).collect();
    client.run("DELETE FROM readings");
    client.run(&format!(
        "INSERT INTO readings (k, day) VALUES {}",
        keys.join(", ")
    ));
    let elsewhere: Vec<String> = (1..4)
        .flat_map(|shard| {
            deployment
                .shard(shard)
                .column("SELECT k FROM public.readings")
        })
        .collect();
    drop((client, router));
    link.cut();
    let router = Router::start(deployment.directory(), deployment.target().port);
    let mut client = router.target().connect();
    let sql = format!(
        "SELECT k, day FROM readings WHERE k IN ({}) ORDER BY k",
        elsewhere.join(", ")
    );
    let days: Vec<String> = client
        .rows(&sql)
        .into_iter()
        .map(|row| row[1].clone())
        .collect();
    assert_eq!(days.len(), elsewhere.len());
    assert!(days.iter().all(|day| *day == days[0]), "{days:?}");
    assert_eq!(days[0], "03-02-2024", "as on s1");
    link.mend();
    eventually(
        Duration::from_secs(20),
        "the default shard is heard",
        || router.target().connect().value("SHOW datestyle") == "SQL, DMY",
    );
    assert_eq!(
        client.rows(&sql)[0][1],
        "03-02-2024",
        "a session keeps what it began with"
    );
    let all = "SELECT DISTINCT k, day::text FROM readings ORDER BY k";
    assert!(client.rows(all).iter().all(|row| row[1] == "03-02-2024"));
    let mut later = router.target().connect();
    assert!(later.rows(all).iter().all(|row| row[1] == "02/03/2024"));
}

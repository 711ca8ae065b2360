//! Sessions that make, drop and use temporary tables, prepared statements and search paths at random, in and out of
//! transactions, over few connections: each must hear what it hears from a PostgreSQL of its own. `PGRING_SOAK_ROUNDS`
//! makes it longer, `PGRING_SOAK_SEED` other.

use crate::random::Random;
use crate::support::{Client, Deployment};

const SCHEMA: &str = "
    CREATE TABLE accounts (aid int PRIMARY KEY, name text);
    CREATE TABLE places (id int PRIMARY KEY, name text);
    CREATE TABLE notes (id int PRIMARY KEY, name text)";
const ROWS: &str = "
    INSERT INTO accounts VALUES (1, 'a1'), (2, 'a2'), (3, 'a3'), (4, 'a4');
    INSERT INTO places VALUES (1, 'p1'), (2, 'p2');
    INSERT INTO notes VALUES (1, 'n1'), (2, 'n2')";
const SESSIONS: usize = 6;
const ROUNDS: usize = 400;
const SEED: u64 = 20_26;

fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    let value = std::env::var(name).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Tables of which the last two are only ever temporary.
const TABLES: [&str; 5] = ["accounts", "places", "notes", "t", "u"];

fn statement(random: &mut Random) -> String {
    let table = random.of(&TABLES);
    let number = random.below(6);
    let key = match table {
        "accounts" => "aid",
        _ => "id",
    };
    match random.below(30) {
        0..=3 => format!("CREATE TEMP TABLE {table} ({key} int, name text)"),
        4 => format!("CREATE TEMP TABLE {table} ({key} int, name text) ON COMMIT DROP"),
        5 => format!("CREATE TEMP TABLE {table} ({key} int, name text) ON COMMIT DELETE ROWS"),
        6 => format!("SELECT id AS {key}, name INTO TEMP {table} FROM public.places"),
        7 => format!("CREATE TEMP TABLE {table} AS SELECT id AS {key}, name FROM public.notes"),
        8 => format!("DROP TABLE IF EXISTS pg_temp.{table}"),
        9..=10 => format!("DROP TABLE pg_temp.{table}"),
        11..=12 => format!("INSERT INTO pg_temp.{table} VALUES ({number}, 'mine')"),
        13 => format!("UPDATE pg_temp.{table} SET name = name || '+' WHERE {key} = {number}"),
        14 => format!("ALTER TABLE pg_temp.{table} ADD COLUMN more int"),
        15..=17 => format!("SELECT * FROM {table} WHERE {key} = {number}"),
        18 => format!("SELECT name FROM {table} WHERE {key} < 100 ORDER BY name"),
        19 => format!("SELECT count(*) FROM pg_temp.{table}"),
        20 => "BEGIN".to_owned(),
        21 => "COMMIT".to_owned(),
        22 => "ROLLBACK".to_owned(),
        23 => format!("SAVEPOINT s{}", random.below(2)),
        24 => format!("ROLLBACK TO s{}", random.below(2)),
        25 => format!(
            "PREPARE p{} (int) AS SELECT $1 + 1, name FROM public.{table} WHERE {key} = $1",
            random.below(3)
        ),
        26 => format!("EXECUTE p{}({number})", random.below(3)),
        27 => format!("DEALLOCATE p{}", random.below(3)),
        28 => match random.below(6) {
            0 => "DISCARD ALL".to_owned(),
            1 => "DISCARD TEMP".to_owned(),
            2 => "RESET search_path".to_owned(),
            _ => "DEALLOCATE ALL".to_owned(),
        },
        _ => match random.below(4) {
            0 => "SET search_path = public, pg_temp".to_owned(),
            1 => "SET LOCAL search_path = pg_temp, public".to_owned(),
            2 => "SHOW search_path".to_owned(),
            _ => "SET search_path = pg_temp, public".to_owned(),
        },
    }
}

/// What can be compared of an answer.
fn said(client: &mut Client, sql: &str, extended: bool) -> String {
    let reply = match extended {
        true => client.extended(sql, &[], false),
        false => client.simple(sql),
    };
    let outcomes: Vec<_> = reply
        .outcomes
        .iter()
        .map(|outcome| {
            let text = |value: &Option<Vec<u8>>| {
                value
                    .as_ref()
                    .map(|value| String::from_utf8_lossy(value).into_owned())
            };
            let rows: Vec<Vec<_>> = outcome
                .rows
                .iter()
                .map(|row| row.iter().map(text).collect())
                .collect();
            (rows, outcome.tag.clone())
        })
        .collect();
    // A connection that had temporary tables once keeps their schema, so that it misses the table in it instead.
    let failure = reply.failure.map(|failure| match failure.code() {
        "3F000" | "42P01" => "nothing there".to_owned(),
        _ => failure.to_string(),
    });
    format!("{outcomes:?} {failure:?} {}", reply.status)
}

#[test]
fn sessions_over_few_connections_see_only_their_own_state() {
    let options = Deployment::shared().schema(SCHEMA);
    let options = options.settings("[pool]\nsize = 8\npinned = 7");
    let deployment = options
        .sharded("accounts", "aid")
        .reference("places")
        .start();
    deployment.one().connect().run(ROWS);
    deployment.connect().run(ROWS);
    let seed = from_environment("PGRING_SOAK_SEED", SEED);
    let mut random = Random::new(seed);
    let pair = || (deployment.connect(), deployment.one().connect());
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| (pair(), Vec::new())).collect();
    for round in 0..from_environment("PGRING_SOAK_ROUNDS", ROUNDS) {
        let ((routed, direct), history) = &mut sessions[random.below(SESSIONS)];
        if random.once_in(60) {
            (*routed, *direct) = pair();
            history.clear();
            continue;
        }
        let sql = statement(&mut random);
        let extended = random.once_in(3);
        history.push(format!("{}{sql}", if extended { "extended " } else { "" }));
        let (here, there) = (said(routed, &sql, extended), said(direct, &sql, extended));
        assert_eq!(
            here,
            there,
            "seed {seed}, round {round}, extended {extended}: {sql}\nafter {}",
            history.join("; ")
        );
    }
}

//! The tables that cases and generator use, and their rows: every key type, NULLs, NaN, infinity, ties, shards
//! without a row.

use crate::compare::Pair;
use crate::random::Random;
use crate::support::{Client, Deployment};
use std::fmt::Write as _;

/// `sparse` has fewer rows than there are shards. `title` sorts by a collation that only PostgreSQL knows.
pub const SCHEMA: &str = r#"
    CREATE TABLE events (id bigint PRIMARY KEY, kind int, label text COLLATE "C", title text COLLATE "und-x-icu",
        amount numeric(14,3), ratio float8, at timestamptz, day date, tag uuid, raw bytea, ok bool);
    CREATE TABLE lines (event_id bigint, no int, what text, qty int, PRIMARY KEY (event_id, no));
    CREATE TABLE people (name text PRIMARY KEY, age int);
    CREATE TABLE things (id uuid PRIMARY KEY, n int);
    CREATE TABLE sparse (id int PRIMARY KEY, n int);
    CREATE TABLE kinds (kind int PRIMARY KEY, name text);
    CREATE TABLE audit (id int PRIMARY KEY, note text);
    CREATE VIEW kind_names AS SELECT kind, upper(name) AS name FROM kinds WHERE kind < 5;
    CREATE VIEW noted AS SELECT a.id, a.note, k.name FROM audit a LEFT JOIN kinds k ON k.kind = a.id;
    CREATE VIEW known AS SELECT id, kind AS sort, label, title AS "the Title", amount, ratio, at, tag FROM events WHERE kind IS NOT NULL;
    CREATE VIEW bought AS SELECT k.id, k.sort, l.no, l.what, l.qty * 2 AS twice, n.name FROM known k
        JOIN lines l ON l.event_id = k.id LEFT JOIN kind_names n ON n.kind = k.sort;
    CREATE VIEW both_sides (id, what) AS SELECT id, label FROM events UNION ALL SELECT event_id, what FROM lines;
    CREATE VIEW per_event AS SELECT event_id, count(*) AS n, array_agg(what ORDER BY no) AS whats FROM lines GROUP BY event_id;
    CREATE VIEW per_kind AS SELECT kind, count(*) AS n, sum(amount) AS total FROM events GROUP BY kind;
    CREATE VIEW latest WITH (security_barrier) AS SELECT id, title FROM events ORDER BY at DESC, id LIMIT 5;
    CREATE VIEW sorted AS SELECT id, label FROM events ORDER BY label, id DESC;
    CREATE VIEW of_views AS SELECT n.name, p.n, l.id FROM per_kind p JOIN kind_names n USING (kind) LEFT JOIN latest l ON l.id = p.kind;
    CREATE VIEW recursive_one AS WITH RECURSIVE r(id) AS (SELECT 1::bigint UNION SELECT e.id FROM events e JOIN r ON e.kind = r.id WHERE e.id < 9)
        SELECT id FROM r;
    CREATE VIEW compared AS SELECT id, title, rank() OVER (ORDER BY title, id), day - lag(day) OVER (ORDER BY id) AS gap,
        CASE WHEN ok THEN 'yes' ELSE label END || E'\\x' AS said, extract(year FROM day) AS year, at AT TIME ZONE 'UTC' AS utc,
        kind = ANY ('{1,2}') OR label LIKE 'a%' AS some, coalesce(amount, 0)::numeric(20,1) AS paid, row(kind, ok) = row(1, true) AS same
        FROM events WHERE day > '2000-01-01' AND id BETWEEN 1 AND 60 AND (label <> '' COLLATE "C" OR at IS DISTINCT FROM NULL);
    CREATE TYPE mood AS ENUM ('sad', 'so-so', 'glad');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN price AS numeric(8,2) CHECK (VALUE >= 0);
    CREATE TABLE odds (id bigint PRIMARY KEY, mood mood, tags int[], words text[], pair pair, price price, doc jsonb,
        span int4range, bits bit(3), net inet, wait interval, hour timetz, pad char(5), cost numeric(10,2), "Odd ""Name" text,
        paid money, moods mood[], plain json, what xml, vector tsvector, place point, code "char", small real,
        title text COLLATE "und-x-icu");
    CREATE VIEW moody AS SELECT mood, price, count(*) AS n, array_agg(tags ORDER BY id) FILTER (WHERE tags <> '{}') AS tags, min(cost) AS cost
        FROM odds GROUP BY mood, price HAVING mood <> 'sad';
    CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF NEW.qty > 6 THEN NEW.qty := 6; NEW.what := upper(NEW.what); END IF; RETURN NEW; END';
    CREATE TRIGGER tidy BEFORE INSERT OR UPDATE ON lines FOR EACH ROW EXECUTE FUNCTION tidy();
    CREATE FUNCTION track() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF TG_OP = ''DELETE'' THEN DELETE FROM audit WHERE id = -OLD.id; END IF; RETURN NULL; END';
    CREATE TRIGGER track AFTER DELETE ON audit FOR EACH ROW EXECUTE FUNCTION track()"#;

/// Each table, with the columns that order it wholly.
pub const TABLES: [(&str, &str); 8] = [
    ("events", "id"),
    ("lines", "event_id, no"),
    ("people", "name"),
    ("things", "id"),
    ("sparse", "id"),
    ("kinds", "kind"),
    ("audit", "id"),
    ("odds", "id"),
];

/// How many rows `events` has: ids 1 to this.
pub const EVENTS: usize = 200;

/// Four shards and a router, tables empty.
pub fn deploy() -> Deployment<'static> {
    let options = Deployment::shared().schema(SCHEMA);
    let options = options
        .sharded("events", "id")
        .sharded("lines", "event_id")
        .sharded("people", "name");
    options
        .sharded("things", "id")
        .sharded("sparse", "id")
        .sharded("odds", "id")
        .reference("kinds")
        .start()
}

/// Empties all tables of one server.
pub fn empty(client: &mut Client) {
    let tables: Vec<&str> = TABLES.iter().map(|(table, _)| *table).collect();
    client.run(&format!("TRUNCATE {}", tables.join(", ")));
}

/// Puts the rows into both sides, past the router where they were and through it where they go: so that splitting
/// an INSERT is tested each time.
pub fn fill(deployment: &Deployment<'_>) -> Pair {
    let (mut one, mut many) = (deployment.one().connect(), deployment.connect());
    empty(&mut one);
    let mut shards: Vec<_> = (0..deployment.shards())
        .map(|shard| deployment.shard(shard))
        .collect();
    for shard in &mut shards {
        empty(shard);
    }
    for insert in rows() {
        assert_eq!(one.run(&insert), many.run(&insert));
    }
    Pair::new(one, many, shards)
}

/// The INSERTs of all rows.
pub fn rows() -> Vec<String> {
    let mut random = Random::new(42);
    let nullable = |random: &mut Random, text: String| {
        if random.once_in(8) {
            "NULL".into()
        } else {
            text
        }
    };
    let labels = [
        "", "a", "B", "b", "ä", "Zebra", "zebra", "a b", "1", "10", "9", "%", "'",
    ];
    let mut odds = String::from("INSERT INTO odds VALUES ");
    for id in 1..=40 {
        let comma = if id == 1 { "" } else { "," };
        let of = |random: &mut Random, values: &[&str]| {
            let value = random.of(values).to_string();
            if random.once_in(6) {
                "NULL".to_owned()
            } else {
                value
            }
        };
        let values = [
            ["'sad'", "'so-so'", "'glad'"].as_slice(),
            &["'{1,2}'", "'{}'", "'{{1,NULL},{3,4}}'", "'[0:1]={5,6}'"],
            &["'{\"a,b\",\"q\\\"x\",NULL}'", "'{NULL}'", "'{\"\"}'"],
            &["ROW(1,'x,\"y')", "ROW(NULL,NULL)", "ROW(2,'')"],
            &["0", "12.50", "999999.99"],
            &["'{\"a\": [1, \"\\\"\"]}'", "'null'", "'7'", "'\"ä\"'"],
            &["'[1,5)'", "'empty'", "'(,3]'"],
            &["B'101'", "B'000'"],
            &["'10.0.0.1/8'", "'::1'"],
            &["'1 year 2 days'", "'-3 hours'", "'00:00:00.000001'"],
            &["'10:00+02'", "'09:00+01'", "'23:59:59.5-11'"],
            &["'ab'", "'ab '", "'abcde'", "''"],
            &["1", "1.5", "-0.01"],
            &["'x'", "'\\'", "'{a,b}'", "'NULL'"],
            &["12.5", "-3"],
            &["'{sad,glad}'", "'{}'"],
            &["'{\"b\": 1,  \"a\":2}'"],
            &["'<a>b</a>'"],
            &["'fat:2 cat:1A'", "''"],
            &["'(1,2.5)'"],
            &["'a'", "''"],
            &["1.5", "'NaN'", "-0.1"],
            &["'ä'", "'a'", "'b'", "'Zebra'", "'zebra'"],
        ];
        let values: Vec<String> = values
            .iter()
            .map(|values| of(&mut random, values))
            .collect();
        write!(odds, "{comma}({id},{})", values.join(",")).unwrap();
    }
    let mut events = String::from("INSERT INTO events VALUES ");
    let mut lines = String::from("INSERT INTO lines VALUES ");
    for id in 1..=EVENTS {
        let kind = random.below(6).to_string();
        let kind = nullable(&mut random, kind);
        let label = labels[random.below(labels.len())].replace('\'', "''");
        let label = nullable(&mut random, format!("'{label}'"));
        let title = labels[random.below(labels.len())].replace('\'', "''");
        let title = nullable(&mut random, format!("'{title}'"));
        let amount = match random.below(12) {
            0 => "'NaN'".into(),
            1 => "0".into(),
            2 => "99999999999.999".into(),
            _ => format!(
                "{}.{:03}",
                random.below(20) as i64 - 10,
                random.below(4) * 250
            ),
        };
        let amount = nullable(&mut random, amount);
        let ratio = match random.below(12) {
            0 => "'NaN'".into(),
            1 => "'-Infinity'".into(),
            2 => "'-0'".into(),
            3 => "1e300".into(),
            _ => format!("{}.5", random.below(9) as i64 - 4),
        };
        let ratio = nullable(&mut random, ratio);
        let at = match random.below(15) {
            0 => "'infinity'".into(),
            1 => "'0044-03-15 12:00+00 BC'".into(),
            _ => format!(
                "'2024-0{}-1{} 0{}:30+00'",
                1 + random.below(9),
                random.below(9),
                random.below(9)
            ),
        };
        let at = nullable(&mut random, at);
        let day = format!(
            "'20{:02}-0{}-2{}'",
            random.below(60),
            1 + random.below(9),
            random.below(8)
        );
        let day = nullable(&mut random, day);
        let tag = format!(
            "'{:08x}-0000-4000-8000-{:012x}'",
            random.next() as u32,
            id % 7
        );
        let tag = nullable(&mut random, tag);
        let raw = format!(
            "'\\x{:0width$x}'",
            random.below(200),
            width = 2 * (1 + random.below(3))
        );
        let raw = nullable(&mut random, raw);
        let ok = random.of(&["true", "false", "NULL"]);
        let comma = if id == 1 { "" } else { "," };
        write!(
            events,
            "{comma}({id},{kind},{label},{title},{amount},{ratio},{at},{day},{tag},{raw},{ok})"
        )
        .unwrap();
        for no in 0..random.below(4) {
            let qty = random.below(9).to_string();
            let qty = nullable(&mut random, qty);
            write!(lines, "({id},{no},'line {}',{qty}),", random.below(5)).unwrap();
        }
    }
    vec![
        odds,
        events,
        lines.trim_end_matches(',').into(),
        "INSERT INTO people VALUES ('', 0), ('Ann', 31), ('ann', 32), ('Bob', NULL), ('ä', 7), ('a''b', 8), ('x y', 9)".into(),
        "INSERT INTO things VALUES ('00000000-0000-4000-8000-00000000000a', 1), \
         ('FFFFFFFF-0000-4000-8000-00000000000B', 2), ('12345678-9abc-4def-8123-456789abcdef', 3)"
            .into(),
        "INSERT INTO sparse VALUES (1, 1), (2, NULL)".into(),
        "INSERT INTO kinds VALUES (0, 'zero'), (1, 'one'), (2, 'two'), (3, 'three'), (4, NULL)".into(),
        "INSERT INTO audit VALUES (1, 'first'), (2, 'second'), (3, NULL)".into(),
    ]
}

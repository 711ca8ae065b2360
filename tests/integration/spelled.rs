//! Columns that are left to the time, a sequence or chance, in writes over several shards and of reference tables: one
//! time for all rows of a statement, no value twice, every copy alike.

use crate::support::{Client, Deployment};
use std::collections::BTreeSet;

const SCHEMA: &str = r#"
    CREATE TABLE orders (id bigint PRIMARY KEY, note text, at timestamptz NOT NULL DEFAULT now(),
        local timestamp DEFAULT CURRENT_TIMESTAMP(3), day date DEFAULT CURRENT_DATE, hour time DEFAULT LOCALTIME(0),
        zoned timetz DEFAULT CURRENT_TIME, said text DEFAULT now(), utc timestamp DEFAULT timezone('utc', now()),
        later timestamptz DEFAULT now() + interval '1 hour', "a ""b" date DEFAULT now());
    CREATE TABLE events (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), no bigint GENERATED ALWAYS AS IDENTITY,
        label text, at timestamptz DEFAULT now());
    CREATE TABLE tokens (token text PRIMARY KEY DEFAULT gen_random_uuid(), n int DEFAULT 7);
    CREATE TABLE twice (id int PRIMARY KEY, a serial, b serial, at timestamptz DEFAULT transaction_timestamp());
    CREATE TABLE fixed (tenant int DEFAULT 42, id int, PRIMARY KEY (tenant, id));
    CREATE TABLE countries (code text PRIMARY KEY, name text, added timestamptz DEFAULT now(), tag uuid DEFAULT gen_random_uuid());
    CREATE TABLE units (id serial PRIMARY KEY, name text UNIQUE, day date DEFAULT CURRENT_DATE);
    CREATE TABLE kinds (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)"#;

fn deployment() -> Deployment<'static> {
    let options = Deployment::shared().schema(SCHEMA);
    let options = ["orders", "events", "twice"]
        .into_iter()
        .fold(options, |options, table| options.sharded(table, "id"));
    let options = ["countries", "units", "kinds"]
        .into_iter()
        .fold(options, |options, table| options.reference(table));
    options
        .sharded("tokens", "token")
        .sharded("fixed", "tenant")
        .start()
}

const TIMES: &str = r#"at, local, day, hour, zoned, said, utc, later, "a ""b""#;

/// The times of rows are one, and what they would be of it.
#[track_caller]
fn at_one_time(client: &mut Client, rows: &str) {
    let wrong = format!(
        r#"SELECT id FROM orders WHERE {rows} AND NOT (local = at::timestamp(3) AND day = at::date AND hour = at::time(0)
         AND zoned = at::timetz AND said = at::text AND utc = at AT TIME ZONE 'UTC' AND later = at + '1 hour'::interval
         AND "a ""b" = at::date)"#
    );
    assert_eq!(client.rows(&wrong), [[""; 0]; 0]);
    assert_eq!(
        client.value(&format!(
            "SELECT count(DISTINCT at) FROM orders WHERE {rows}"
        )),
        "1"
    );
}

#[track_caller]
fn alike(deployment: &Deployment<'_>, table: &str) -> String {
    let sql = format!(
        "SELECT count(*) || ' ' || md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t"
    );
    let copies = deployment.on_each_shard(&sql);
    assert!(
        copies.iter().all(|copy| *copy == copies[0]),
        "{table}: {copies:?}"
    );
    copies[0].split(' ').next().unwrap().to_owned()
}

fn ids(from: usize) -> String {
    let rows: Vec<String> = (from..from + 20).map(|id| format!("({id}, 'x')")).collect();
    rows.join(", ")
}

#[test]
fn rows_of_one_statement_have_one_time() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("SET timezone = 'Asia/Kolkata'; SET datestyle = 'SQL, DMY'");
    let sql = format!(
        "INSERT INTO orders (id, note) VALUES {} RETURNING id, at",
        ids(1)
    );
    let rows = client.rows(&sql);
    assert_eq!(rows.len(), 20);
    assert!(rows.iter().all(|row| row[1] == rows[0][1]), "{rows:?}");
    assert_eq!(
        deployment.shards_with("SELECT count(*) FROM orders").len(),
        4
    );
    at_one_time(&mut client, "id <= 20");
    // Without a list of columns, with DEFAULT, and a given value among them.
    client.run(&format!("INSERT INTO orders VALUES {}", ids(21)));
    at_one_time(&mut client, "id > 20");
    let given = "INSERT INTO orders (at, id, day) VALUES (DEFAULT, 41, DEFAULT), ('2001-02-03', 42, '2001-02-03'), \
         (now(), 43, CURRENT_DATE), (DEFAULT, 44, DEFAULT) RETURNING at, local, day";
    let rows = client.rows(given);
    assert_eq!(
        (&rows[1][0][..10], &*rows[1][2]),
        ("03/02/2001", "03/02/2001")
    );
    assert!([2, 3].iter().all(|row| rows[*row] == rows[0]), "{rows:?}");
    // ON CONFLICT, UPDATE, INSERT … SELECT that stays on its shards and that does not.
    let again = format!(
        "INSERT INTO orders (id, note) VALUES {} ON CONFLICT (id) DO UPDATE SET at = now(), local = DEFAULT, day = DEFAULT, \
         hour = DEFAULT, zoned = DEFAULT, said = DEFAULT, utc = DEFAULT, later = DEFAULT, \"a \"\"b\" = DEFAULT, note = 'again'",
        ids(1)
    );
    assert_eq!(client.run(&again), "INSERT 0 20");
    at_one_time(&mut client, "note = 'again'");
    let set = TIMES.replace(", ", " = DEFAULT, ");
    assert_eq!(
        client.run(&format!("UPDATE orders SET {set} = DEFAULT WHERE id <= 40")),
        "UPDATE 40"
    );
    at_one_time(&mut client, "id <= 40");
    let select = "INSERT INTO orders (id, note) SELECT id + 100, 'moved'::text FROM orders WHERE id <= 20 RETURNING at";
    let rows = client.rows(select);
    assert!(
        rows.len() == 20 && rows.iter().all(|row| row == &rows[0]),
        "{rows:?}"
    );
    at_one_time(&mut client, "note = 'moved'");
    client.run("DELETE FROM orders WHERE id > 20");
    let same = "INSERT INTO orders (id, note) SELECT id, now()::text FROM orders WHERE id < 0";
    assert_eq!(client.run(same), "INSERT 0 0");
}

#[test]
fn a_block_has_one_time_and_every_protocol_tells_it() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let sql = "INSERT INTO orders (id, note) VALUES ($1, $9), ($2, $9), ($3, $9), ($4, $9), ($5, $9), ($6, $9), ($7, $9), \
         ($8, $9) RETURNING id, note, at";
    client.run("BEGIN");
    for round in 0..5 {
        let ids: Vec<String> = (0..8).map(|id| (10 * round + id).to_string()).collect();
        let values: Vec<_> = ids
            .iter()
            .map(|id| Some(&**id))
            .chain([Some("it's")])
            .collect();
        let reply = client.extended(sql, &values, round % 2 == 1);
        assert!(reply.failure.is_none(), "{:?}", reply.failure);
        assert_eq!(reply.outcomes[0].rows.len(), 8);
    }
    client.run(&format!(
        "INSERT INTO orders (id, note) VALUES {}",
        ids(101)
    ));
    client.run("COMMIT");
    at_one_time(&mut client, "true");
    assert_eq!(client.value("SELECT count(*) FROM orders"), "60");
    // Prepared once, run often; each has its time.
    client.run("PREPARE many (int, int, int, int, int, int, int, int) AS INSERT INTO orders (id) VALUES ($1), ($2), ($3), ($4), ($5), ($6), ($7), ($8)");
    client.run("EXECUTE many (201, 202, 203, 204, 205, 206, 207, 208)");
    client.run("EXECUTE many (211, 212, 213, 214, 215, 216, 217, 218)");
    assert_eq!(
        client.value("SELECT count(DISTINCT at) FROM orders WHERE id > 200"),
        "2"
    );
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn copies_of_reference_tables_agree() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("INSERT INTO countries (code, name) VALUES ('de', 'Germany'), ('fr', 'France')");
    client.run("INSERT INTO countries VALUES ('it', gen_random_uuid()::text || now()::text)");
    client.run("INSERT INTO countries VALUES ('es', 'Spain', DEFAULT, DEFAULT), ('pt', 'Portugal', '2001-01-01', gen_random_uuid())");
    client.run("INSERT INTO countries (code) VALUES ('de') ON CONFLICT (code) DO UPDATE SET added = now(), tag = excluded.tag");
    client.run("UPDATE countries SET added = DEFAULT WHERE code = 'fr'");
    client.run("INSERT INTO countries (code, tag) SELECT upper(code), md5(code)::uuid FROM countries WHERE code < 'f'");
    assert_eq!(alike(&deployment, "countries"), "7");
    assert_eq!(
        client.value("SELECT count(DISTINCT tag) FROM countries"),
        "7"
    );
    assert_eq!(
        client.column("INSERT INTO units (name) VALUES ('kg'), ('g'), ('t') RETURNING id"),
        ["1", "2", "3"]
    );
    assert_eq!(
        client.value("INSERT INTO units (name, id) VALUES ('m', DEFAULT) RETURNING id"),
        "4"
    );
    assert_eq!(
        client.value("INSERT INTO units DEFAULT VALUES RETURNING id"),
        "5"
    );
    let upsert = "INSERT INTO units (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET day = DEFAULT RETURNING id";
    for binary in [false, true] {
        let reply = client.extended(upsert, &[Some("kg")], binary);
        assert!(reply.failure.is_none(), "{:?}", reply.failure);
    }
    assert_eq!(alike(&deployment, "units"), "5");
    // As in PostgreSQL what met a row took values too.
    assert_eq!(
        client.value("INSERT INTO units (name) VALUES ('l') RETURNING id"),
        "8"
    );
    client.run("INSERT INTO kinds (name) VALUES ('a'), ('b')");
    assert_eq!(
        client
            .fails("INSERT INTO kinds (id, name) VALUES (DEFAULT, 'c'), (9, 'd')")
            .refusal(),
        Some("sequence-default")
    );
    assert_eq!(
        client
            .fails("INSERT INTO kinds (id, name) VALUES (9, 'd')")
            .code(),
        "428C9"
    );
    assert_eq!(
        client.column("SELECT id FROM kinds ORDER BY id"),
        ["1", "2"]
    );
    // A block that is rolled back leaves no copy with a row.
    client.run("BEGIN; INSERT INTO units (name) VALUES ('x'); ROLLBACK");
    assert_eq!(alike(&deployment, "units"), "6");
    assert_eq!(
        client
            .fails("UPDATE countries SET tag = gen_random_uuid()")
            .refusal(),
        Some("reference-write-differs")
    );
    assert_eq!(
        client.fails("UPDATE countries SET tag = DEFAULT").refusal(),
        Some("reference-write-differs")
    );
}

#[test]
fn chance_and_sequences_place_rows() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        let sql = "INSERT INTO events (label) VALUES ('a'), ('b'), ('c'), ('d') RETURNING id, no";
        for row in client.rows(sql) {
            let found = client.value(&format!("SELECT no FROM events WHERE id = '{}'", row[0]));
            assert_eq!(found, row[1]);
            assert!(seen.insert(row[0].clone()), "{} twice", row[0]);
        }
    }
    let sql =
        "INSERT INTO events (id, label) VALUES (DEFAULT, $1), (gen_random_uuid(), $1) RETURNING id";
    let reply = client.extended(sql, &[Some("p")], false);
    assert!(reply.failure.is_none(), "{:?}", reply.failure);
    client.run("INSERT INTO events DEFAULT VALUES");
    assert_eq!(
        client.value("SELECT count(*) FROM events WHERE substr(id::text, 15, 1) = '4'"),
        "23"
    );
    assert_eq!(
        client.column("SELECT no FROM events ORDER BY no"),
        (1..=23).map(|no| no.to_string()).collect::<Vec<_>>()
    );
    let token = client.value("INSERT INTO tokens (n) VALUES (1) RETURNING token");
    assert_eq!(
        client.value(&format!("SELECT n FROM tokens WHERE token = '{token}'")),
        "1"
    );
    assert_eq!(
        client.run("INSERT INTO tokens VALUES (gen_random_uuid()), (DEFAULT)"),
        "INSERT 0 2"
    );
}

#[test]
fn columns_that_are_left_out_may_be_many() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let rows = client.rows("INSERT INTO twice (id) VALUES (1), (2), (3), (4), (5) RETURNING a, b");
    let expected: Vec<_> = (1..=5)
        .map(|no| vec![no.to_string(), no.to_string()])
        .collect();
    assert_eq!(rows, expected);
    client.run("INSERT INTO twice (id, b, a) VALUES (6, DEFAULT, DEFAULT)");
    assert_eq!(
        client.value("SELECT count(DISTINCT at) FROM twice WHERE id < 6"),
        "1"
    );
    assert_eq!(
        client.run("INSERT INTO fixed (id) VALUES (1), (2)"),
        "INSERT 0 2"
    );
    client.run("INSERT INTO fixed VALUES (DEFAULT, 3)");
    assert_eq!(
        client.value("SELECT count(*) FROM fixed WHERE tenant = 42"),
        "3"
    );
    // What a function of the same name would change is not guessed.
    client.run("CREATE FUNCTION public.timezone(text, text) RETURNS timestamp LANGUAGE sql IMMUTABLE AS 'SELECT ''2000-01-01''::timestamp'");
    let failure = client.fails(&format!("INSERT INTO orders (id, note) VALUES {}", ids(1)));
    assert_eq!(failure.refusal(), Some("default-differs"));
}

/// Rows of COPY data, tuples of binary int8s.
fn binary(ids: std::ops::RangeInclusive<i64>) -> Vec<u8> {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for id in ids {
        data.extend_from_slice(&[0, 1, 0, 0, 0, 8]);
        data.extend_from_slice(&id.to_be_bytes());
    }
    data.extend_from_slice(&[0xff, 0xff]);
    data
}

#[test]
fn copied_rows_are_given_what_their_data_leave_out() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("SET timezone = 'Asia/Kolkata'; SET datestyle = 'SQL, DMY'");
    let lines = |ids: std::ops::RangeInclusive<i64>, end: &str| -> Vec<u8> {
        let rows = ids.map(|id| format!("{id}{end}"));
        rows.collect::<String>().into_bytes()
    };
    for (sql, data, rows) in [
        (
            "COPY orders (id) FROM STDIN",
            lines(1..=40, "\n"),
            "id <= 40",
        ),
        (
            "COPY orders (id, note) FROM STDIN (FORMAT csv, HEADER match, DELIMITER '-')",
            [
                b"id-note\r\n".to_vec(),
                lines(101..=140, "-\"a\r\n-b\"\r\n"),
            ]
            .concat(),
            "id BETWEEN 101 AND 140",
        ),
        (
            "COPY orders (note, id) FROM STDIN (DELIMITER ':', NULL '2026')",
            lines(201..=240, "\n")
                .split(|byte| *byte == b'\n')
                .filter(|id| !id.is_empty())
                .flat_map(|id| [b"x\\:y:", id, b"\r\n"].concat())
                .collect(),
            "id BETWEEN 201 AND 240",
        ),
        (
            "COPY orders (id) FROM STDIN (FORMAT binary)",
            binary(301..=340),
            "id BETWEEN 301 AND 340",
        ),
    ] {
        // The text of the time is that of the session's style, and has no binary form of its own.
        let binary = sql.contains("binary");
        for piece in [3, 10_000] {
            client.run(&format!("DELETE FROM orders WHERE {rows}"));
            if binary {
                client.run("ALTER TABLE orders ALTER said DROP DEFAULT");
            }
            let reply = client.copy_in(sql, &data, piece);
            assert!(reply.failure.is_none(), "{sql}: {:?}", reply.failure);
            assert_eq!(reply.outcomes[0].tag.as_deref(), Some("COPY 40"), "{sql}");
            if binary {
                client.run("UPDATE orders SET said = at::text WHERE said IS NULL");
            }
            at_one_time(&mut client, rows);
        }
    }
    assert_eq!(
        client.value("SELECT note FROM orders WHERE id = 107"),
        "a\r\n-b"
    );
    assert_eq!(
        client.value("SELECT note FROM orders WHERE id = 207"),
        "x:y"
    );
    // Data that PostgreSQL would not take it does not take now either.
    for (data, code) in [
        (&b"1\t2\n"[..], "22P04"),
        (b"x\n", "22P02"),
        (b"\\N\n", "23502"),
        (b"1\n", "23505"),
    ] {
        let reply = client.copy_in("COPY orders (id) FROM STDIN", data, 100);
        assert_eq!(reply.failure.unwrap().code(), code, "{data:?}");
    }
    // Keys and other columns of sequences and of chance.
    for (format, data) in [
        ("text", &b"a\nb\\"[..]),
        ("csv", b"a\n\"b\"\n"),
        (
            "binary",
            b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x01a\0\x01\0\0\0\x01b",
        ),
    ] {
        for table in ["events (label)", "units (name)"] {
            client.run("DELETE FROM units");
            let sql = format!("COPY {table} FROM STDIN (FORMAT {format})");
            let reply = client.copy_in(&sql, data, 7);
            assert!(reply.failure.is_none(), "{sql}: {:?}", reply.failure);
            assert_eq!(reply.outcomes[0].tag.as_deref(), Some("COPY 2"), "{sql}");
        }
        assert_eq!(
            client.column("SELECT name FROM units ORDER BY id"),
            ["a", "b"],
            "{format}"
        );
        assert_eq!(alike(&deployment, "units"), "2");
    }
    assert_eq!(
        client.value(
            "SELECT count(DISTINCT id) || ' ' || count(DISTINCT no) || ' ' || count(at) FROM events"
        ),
        "6 6 6"
    );
    for id in client.column("SELECT id FROM events") {
        assert_eq!(
            client.value(&format!("SELECT count(*) FROM events WHERE id = '{id}'")),
            "1"
        );
    }
    let many = lines(1000..=9999, "\n");
    let reply = client.copy_in("COPY twice (id) FROM STDIN", &many, 8192);
    assert_eq!(
        reply.outcomes[0].tag.as_deref(),
        Some("COPY 9000"),
        "{:?}",
        reply.failure
    );
    assert_eq!(client.value("SELECT count(DISTINCT a) || ' ' || count(DISTINCT b) || ' ' || count(DISTINCT at) FROM twice"), "9000 9000 1");
    client.run("BEGIN");
    client.copy_in("COPY countries (code) FROM STDIN", b"de\nfr\n", 5);
    client.run("COMMIT");
    assert_eq!(alike(&deployment, "countries"), "2");
}

#[test]
fn a_querys_rows_are_given_what_it_leaves_out() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run(&format!("INSERT INTO orders (id, note) VALUES {}", ids(1)));
    let rows = client.rows("INSERT INTO events (label) SELECT note || id FROM orders ORDER BY id RETURNING no, label, id, at");
    assert_eq!(rows.len(), 20);
    for (place, row) in rows.iter().enumerate() {
        assert_eq!(
            row[..2],
            [(place + 1).to_string(), format!("x{}", place + 1)]
        );
        assert_eq!(row[3], rows[0][3]);
        assert_eq!(
            client.value(&format!("SELECT label FROM events WHERE id = '{}'", row[2])),
            row[1]
        );
    }
    assert_eq!(
        client.run("INSERT INTO twice SELECT id FROM orders"),
        "INSERT 0 20"
    );
    assert_eq!(
        client.run("INSERT INTO twice (id) SELECT id + 100 FROM orders WHERE id <= 10"),
        "INSERT 0 10"
    );
    assert_eq!(
        client.value("SELECT count(DISTINCT a) || ' ' || max(a) || ' ' || max(b) || ' ' || count(DISTINCT at) FROM twice"),
        "30 30 30 2"
    );
    let reply = client.extended(
        "INSERT INTO twice (id) SELECT id + $1 FROM orders WHERE id = ANY ($2::int[]) RETURNING a, id",
        &[Some("1000"), Some("{1,2,3}")],
        true,
    );
    assert_eq!(reply.outcomes[0].rows.len(), 3, "{:?}", reply.failure);
    // Reference tables, from sharded ones and from themselves.
    assert_eq!(
        client.run("INSERT INTO units (name) SELECT 'unit ' || id FROM orders"),
        "INSERT 0 20"
    );
    assert_eq!(
        client.run("INSERT INTO units (name) SELECT name || ' again' FROM units WHERE id <= 5"),
        "INSERT 0 5"
    );
    assert_eq!(
        client.run("INSERT INTO countries (code) SELECT name FROM units"),
        "INSERT 0 25"
    );
    assert_eq!(
        client.run(
            "INSERT INTO countries (code, tag) SELECT code || '-b', gen_random_uuid() FROM countries"
        ),
        "INSERT 0 25"
    );
    let upsert = "INSERT INTO units (name) SELECT name FROM units ON CONFLICT (name) DO UPDATE SET day = '2001-01-01'";
    assert_eq!(client.run(upsert), "INSERT 0 25");
    assert_eq!(alike(&deployment, "units"), "25");
    assert_eq!(alike(&deployment, "countries"), "50");
    assert_eq!(
        client.value("SELECT count(DISTINCT tag) FROM countries"),
        "50"
    );
    assert_eq!(
        client.value("INSERT INTO units (name) VALUES ('next') RETURNING id"),
        "51"
    );
    assert_eq!(
        client.run("INSERT INTO kinds (name) SELECT name FROM units WHERE id < 0"),
        "INSERT 0 0"
    );
    let given = "INSERT INTO twice (id, a) SELECT id + 5000, 1 FROM orders";
    assert_eq!(client.fails(given).refusal(), Some("sequence-default"));
}

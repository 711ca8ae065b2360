//! Literals as keys: whatever form one is written in, its row is where PostgreSQL's own hash of it says.

use crate::support::{Client, Deployment};
use pgring::topology::hash;
use pgring::topology::key_value::KeyType;

/// A key column's type, and literals for it.
struct Literals {
    table: &'static str,
    type_name: &'static str,
    type_oid: u32,
    /// Literals that are read: they find the one shard.
    read: &'static [&'static str],
    /// Literals that may be refused where a row is stored, and may be looked for on all shards.
    any: &'static [&'static str],
}

const LITERALS: [Literals; 9] = [
    Literals {
        table: "texts",
        type_name: "text",
        type_oid: 25,
        read: &[
            "'plain'",
            "'it''s'",
            r"'back\\slash'",
            r"'\x41'",
            r"'\''''",
            "'ß€😀'",
            "''",
            "'$1'",
            "'-- no comment'",
            "'/* nor here */'",
            "'two\nlines'",
            "'a'\n'b'",
            "'a' -- and\n  'b'\r\n\t'c''d'",
            "E''",
            "E'plain'",
            r"E'\x41'",
            r"E'\x4'",
            r"E'\x41BC'",
            r"E'\101'",
            r"E'\1011'",
            r"E'\7'",
            r"E'\501'",
            r"E'\u0041'",
            r"E'\u00e9'",
            r"E'\U0001F600'",
            r"E'back\\slash'",
            r"E'\\x41'",
            r"E'\\\\'",
            r"E'\\101'",
            r"E'\\n'",
            r"E'\b\f\n\r\t'",
            r"E'it\'s'",
            r"E'it''s'",
            r"E'\'\''",
            r"E'\q\z\-'",
            r"e'lower'",
            "E'a\\\\'\n'\\'b'",
            "E'a' -- and\n  '\\x62'\n 'c\\'d'",
            r"E'\ud83d\ude00'",
            r"E'\U0000d83d\ude01'",
            r"E'\xc3\xa9\xC3\x9f'",
            r"E'\303\251x'",
            r"E'ß\xe2\x82\xac€'",
            r"E'\\xc3'",
            "E'\\\nnewline'",
            "E'a\\x41'\n'\\x42'",
            r"U&'\0041'",
            r"U&'\D83D\DE00'",
            r"U&'a\d83d!de00' UESCAPE '!'",
            r"U&'!d83d!de00\' UESCAPE '!'",
            r"U&'d\0061t\+000061'",
            r"U&'\\'",
            "U&'it''s'",
            "U&'d!0061t!+000061!!' UESCAPE '!'",
            r"u&'back\\slash' uescape '!'",
            "U&'a'\n'b\\0063'",
            "$$$$",
            "$$plain$$",
            r"$$\x41$$",
            "$$it''s$$",
            "$tag$a$$b$tag$",
            "$$two\nlines$$",
            "'cast'::text",
            "text 'typed'",
            r"text E'\x41'",
            "CAST('cast' AS varchar)",
            r"E'\\x41'::text",
            "('brackets')",
        ],
        any: &[
            r"E'\vertical'",
            "N'national'",
            "N'trailing  '",
            "B'101'",
            "X'1F'",
            "'cut'::varchar(2)",
            "'padded'::char(9)",
            "'a' || 'b'",
            "concat('a', 'b')",
            "5::text",
            "lower('LOWER')",
        ],
    },
    Literals {
        table: "names",
        type_name: "character varying(6)",
        type_oid: 1043,
        read: &[
            "'name'",
            "'name   '",
            "'name12 '",
            r"E'n\x61me'",
            "E'name  \\x20\\x20'",
            r"U&'n\0061me'",
            "$$name$$",
            "'na'\n'me'",
        ],
        any: &[
            "'name12345'",
            "'name12345'::varchar(6)",
            r"E'\x6eame'::char(6)",
        ],
    },
    Literals {
        table: "characters",
        type_name: "character(6)",
        type_oid: 1042,
        read: &[
            "'name'",
            "'name '",
            "'name  '",
            r"E'name\x20'",
            r"U&'n\0061me'",
            "$$name $$",
            "'na'\n'me '",
        ],
        any: &[
            "N'name'",
            "'name'::char(6)",
            "'name '::text",
            "'name9999'::char(4)",
        ],
    },
    Literals {
        table: "numbers",
        type_name: "bigint",
        type_oid: 20,
        read: &[
            "5",
            "-5",
            "+5",
            "- 5",
            "(-5)",
            "'5'",
            "' 5 '",
            "'-5'",
            "'+5'",
            "'005'",
            "9223372036854775807",
            "-9223372036854775808",
            "2147483648",
            r"E'\x35'",
            r"E'\t5\n'",
            r"U&'\0035'",
            "$$5$$",
            "'5'\n'5'",
            "'5'::int",
            "'5'::bigint",
            "CAST('-5' AS smallint)",
            "bigint '5'",
            r"bigint E'\x35'",
            "5::int",
            "5.0::numeric",
            "5.",
            "5.0",
            "5e0",
            "50e-1",
        ],
        any: &[
            "-5::int",
            "-(5)",
            "- -5",
            "~5",
            "5 + 5",
            "5.4",
            "5.5",
            "6.5",
            "-5.5",
            "'5.5'::numeric",
            "5::text::int",
            "B'101'::int",
            "X'1F'::bigint",
            "B'101'",
            "'0x5'",
            "'5_5'",
            "'5e0'",
            "'5.0'",
            "''",
            "abs(-5)",
            "true::int",
            "5::float8",
            "'99999'::smallint",
        ],
    },
    Literals {
        table: "prices",
        type_name: "numeric(8,2)",
        type_oid: 1700,
        read: &[
            "5",
            "-5",
            "5.25",
            "5.250",
            "-5.25",
            "525e-2",
            "'5.25'",
            "'525e-2'",
            "' 5.25 '",
            "'NaN'",
            r"E'5\x2e25'",
            r"U&'5\002e25'",
            "$$5.25$$",
            "5.25::numeric",
            "'5.25'::numeric",
            "'5'::int",
            "'5.'\n'25'",
        ],
        any: &[
            "5.255",
            "-5.255",
            "'5.255'",
            "5.25::numeric(8,1)",
            "5.25::float8",
            "5.25::real",
            "-5.25::numeric",
        ],
    },
    Literals {
        table: "identities",
        type_name: "uuid",
        type_oid: 2950,
        read: &[
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            "'{a0eebc999c0b4ef8bb6d6bb9bd380a11}'",
            "'a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11'",
            r"E'\x610eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            r"U&'\00610eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "$$a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11$$",
            "'a0eebc99-9c0b-4ef8-'\n'bb6d-6bb9bd380a11'",
            "uuid 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
        ],
        any: &[
            "'a0eebc99'",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::text::uuid",
        ],
    },
    Literals {
        table: "bytes",
        type_name: "bytea",
        type_oid: 17,
        read: &[
            r"'\x4142'",
            r"'\x 41 42'",
            r"'AB'",
            r"'\101B'",
            r"'\\'",
            r"E'\\x4142'",
            r"E'\\101B'",
            r"E'\101B'",
            r"E'\x41B'",
            r"E'\\\\'",
            r"U&'\\x4142'",
            r"U&'\0041B'",
            r"$$\x4142$$",
            r"$$\101B$$",
            "'\\x41'\n'42'",
            r"bytea '\x4142'",
            r"bytea E'\\x4142'",
            r"'\x4142'::bytea",
        ],
        any: &[
            r"'\x4'",
            r"'\9'",
            "X'4142'",
            "'AB'::text::bytea",
            "decode('4142', 'hex')",
        ],
    },
    Literals {
        table: "days",
        type_name: "date",
        type_oid: 1082,
        read: &[
            "'2024-02-29'",
            r"E'2024\x2d02-29'",
            r"U&'2024\002d02-29'",
            "$$2024-02-29$$",
            "'2024-'\n'02-29'",
            "date '2024-02-29'",
            "'2024-02-29'::date",
            "'infinity'",
        ],
        any: &[
            "'29 Feb 2024'",
            "'2024-02-30'",
            "'2024-02-29 23:59'",
            "'2024-02-29 23:59'::timestamp",
            "'epoch'",
            "'20240229'",
        ],
    },
    Literals {
        table: "times",
        type_name: "timestamp with time zone",
        type_oid: 1184,
        read: &[
            "'2024-02-29 12:00:00+00'",
            "'2024-02-29T12:00:00Z'",
            r"E'2024-02-29 12:00\x2b01'",
            "$$2024-02-29 12:00:00.123456+05:30$$",
            "timestamptz '2024-02-29 12:00:00+00'",
        ],
        any: &[
            "'2024-02-29 12:00:00'",
            "'2024-02-29'",
            "'2024-02-29'::date",
            "'2024-02-29 12:00:00'::timestamp",
            "'2024-02-29 12:00:00 Europe/Berlin'",
        ],
    },
];

/// A place for a literal, written `?`: the table is `#`.
const PLACES: [&str; 15] = [
    "SELECT count(*) FROM # WHERE k = ?",
    "SELECT count(*) FROM # WHERE ? = k",
    "SELECT count(*) FROM # WHERE k = (?)",
    "SELECT count(*) FROM # WHERE k IN (?)",
    "SELECT count(*) FROM # WHERE k IN (NULL, ?, ?)",
    "SELECT count(*) FROM # WHERE k = ANY (ARRAY[?])",
    "SELECT count(*) FROM # WHERE (k, 1) = (?, 1)",
    "SELECT count(*) FROM # WHERE (k, n) IN ((?, 1), (?, 2))",
    "SELECT count(*) FROM # WHERE k BETWEEN ? AND ?",
    "SELECT count(*) FROM # WHERE k >= ? AND k <= ?",
    "SELECT count(*) FROM # WHERE k = ? OR k = ?",
    "SELECT count(*) FROM # WHERE k IS NOT DISTINCT FROM ?",
    "WITH w AS (SELECT * FROM # WHERE k = ?) SELECT count(*) FROM w",
    "SELECT count(*) FROM (SELECT * FROM #) AS w WHERE k = ?",
    "SELECT count(*) FROM # AS a JOIN # AS b ON a.k = b.k WHERE a.k = ?",
];

/// The shards that the router's part of EXPLAIN names.
fn explained(client: &mut Client, sql: &str) -> Option<Vec<usize>> {
    let reply = client.simple(&format!("EXPLAIN {sql}"));
    let rows = &reply.outcomes.first()?.rows;
    let line = |row: usize| String::from_utf8(rows.get(row)?.first()?.clone()?).ok();
    let first = line(0)?;
    let shards = if first.starts_with("gather") {
        let second = line(1)?;
        let (shards, _) = second.split_once(" from ")?.1.split_once(':')?;
        shards.to_owned()
    } else {
        first.split_once(" on ")?.1.to_owned()
    };
    let shards = shards.trim_end_matches(" (write)").split(", ");
    Some(
        shards
            .map(|shard| shard.trim_start_matches('s').parse().unwrap())
            .collect(),
    )
}

#[test]
fn a_literal_of_any_form_is_routed_as_postgresql_hashes_it() {
    let mut options = Deployment::shared();
    for Literals {
        table, type_name, ..
    } in &LITERALS
    {
        options = options
            .schema(&format!(
                "CREATE TABLE {table} (k {type_name} PRIMARY KEY, n int DEFAULT 1)"
            ))
            .sharded(table, "k");
    }
    let deployment = options.start();
    let mut client = deployment.connect();
    let mut plain = deployment.one().connect();
    let mut shards: Vec<Client> = (0..deployment.shards())
        .map(|shard| deployment.shard(shard))
        .collect();
    let mut wrong = Vec::new();
    for Literals {
        table,
        type_name,
        type_oid,
        read,
        any,
    } in &LITERALS
    {
        let key_type = KeyType::of(*type_oid, type_name).unwrap();
        let slot = format!(
            "SELECT {} FROM {table}",
            hash::sql_expression("k", key_type)
        );
        let is_read = [true, false];
        for (literal, is_read) in [read, any]
            .iter()
            .zip(is_read)
            .flat_map(|(list, is_read)| list.iter().map(move |literal| (literal, is_read)))
        {
            let mut note = |what: String| wrong.push(format!("{table}: {literal}: {what}"));
            let insert = format!("INSERT INTO {table} (k) VALUES ({literal})");
            let valid = plain.simple(&insert).failure.is_none();
            let answer = client.simple(&insert);
            let stored: Vec<usize> = shards
                .iter_mut()
                .enumerate()
                .filter_map(|(shard, connection)| {
                    (connection.value(&format!("SELECT count(*) FROM {table}")) != "0")
                        .then_some(shard)
                })
                .collect();
            let home = valid.then(|| {
                let slot = plain.value(&slot);
                let owned = format!("SELECT owned @> {slot} FROM pgring.ownership");
                shards
                    .iter_mut()
                    .position(|shard| shard.value(&owned) == "t")
                    .unwrap()
            });
            match (&answer.failure, home) {
                (None, Some(home)) if stored == [home] => {}
                (None, _) => note(format!("stored on {stored:?}, not {home:?}")),
                (Some(_), None) if stored.is_empty() => {}
                (Some(failure), Some(home)) if stored.is_empty() && failure.code() == "0A000" => {
                    if is_read {
                        note(format!("not read to store: {failure}"));
                    }
                    shards[home].run(&insert);
                }
                (Some(failure), _) => note(format!("failed: {failure}, stored on {stored:?}")),
            }
            for place in PLACES {
                let sql = place.replace('#', table).replace('?', literal);
                let expected = plain.simple(&sql);
                let fits =
                    |answer: &crate::support::Reply| match (&expected.failure, &answer.failure) {
                        (None, None) => expected.outcomes[0].rows == answer.outcomes[0].rows,
                        (_, Some(failure)) if failure.code() == "0A000" => {
                            !is_read || place.contains("BETWEEN") || place.contains(">=")
                        }
                        (Some(expected), Some(failure)) => expected.code() == failure.code(),
                        _ => false,
                    };
                for answer in [client.simple(&sql), client.extended(&sql, &[], false)] {
                    if !fits(&answer) {
                        note(format!("{sql}: {:?}", answer.failure));
                    }
                }
                if expected.failure.is_some() {
                    continue;
                }
                let matches = expected.outcomes[0].rows[0][0].as_deref() != Some(b"0");
                match (explained(&mut client, &sql), home) {
                    (Some(found), Some(home)) if matches && !found.contains(&home) => {
                        note(format!("{sql}: asked {found:?}, not {home}"))
                    }
                    _ => {}
                }
            }
            for sql in [
                format!("UPDATE {table} SET n = n + 1 WHERE k = {literal}"),
                format!("DELETE FROM {table} WHERE k = {literal}"),
            ] {
                let expected = plain.simple(&sql);
                let answer = client.simple(&sql);
                let tag = |reply: &crate::support::Reply| {
                    reply
                        .outcomes
                        .first()
                        .and_then(|outcome| outcome.tag.clone())
                };
                let refused = answer
                    .failure
                    .as_ref()
                    .is_some_and(|failure| failure.code() == "0A000");
                if (is_read || !refused) && tag(&expected) != tag(&answer) {
                    note(format!("{sql}: {:?}", answer.failure));
                }
            }
            for connection in shards.iter_mut().chain([&mut plain]) {
                connection.run(&format!("DELETE FROM {table}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// With `standard_conforming_strings = off`, `'it\'s'` is one string to the shard and not to the router.
#[test]
fn a_shard_never_reads_backslashes_in_plain_strings() {
    let deployment = Deployment::shared()
        .schema("CREATE TABLE texts (k text PRIMARY KEY)")
        .sharded("texts", "k")
        .start();
    let database = deployment.shard(0).value("SELECT current_database()");
    deployment.on_each_shard(&format!(
        "ALTER DATABASE {database} SET standard_conforming_strings = off; SELECT 1"
    ));
    let mut client = deployment.connect();
    let check = |client: &mut Client, sql: &str| {
        client.run("BEGIN");
        for shard in 0..deployment.shards() {
            client.run(&format!("SET pgring.shard = 's{shard}'"));
            assert_eq!(
                client.value("SHOW standard_conforming_strings"),
                "on",
                "{sql} on s{shard}"
            );
            assert_eq!(
                client.value(r"SELECT length('\\')"),
                "2",
                "{sql} on s{shard}"
            );
        }
        client.run("ROLLBACK; RESET pgring.shard");
    };
    check(&mut client, "login");
    for sql in [
        "RESET standard_conforming_strings",
        "SET standard_conforming_strings TO DEFAULT",
        "RESET ALL",
        "DISCARD ALL",
        "SET standard_conforming_strings = on",
    ] {
        client.run(sql);
        check(&mut client, sql);
    }
    for sql in [
        "SET standard_conforming_strings = off",
        "SET LOCAL standard_conforming_strings TO 'off'",
        "SELECT set_config('standard_conforming_strings', 'off', false)",
        "SELECT set_config(E'standard_\\x63onforming_strings', 'off', false)",
        "SELECT set_config('standard_conforming_' || 'strings', 'off', false)",
        "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
        "DO $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$",
        "CREATE FUNCTION off() RETURNS text LANGUAGE sql IMMUTABLE
            AS $$ SELECT set_config('standard_conforming_strings', 'off', false) $$; SELECT off()",
    ] {
        let failure = client.fails(sql);
        assert_eq!(failure.code(), "0A000", "{sql}: {failure}");
        check(&mut client, sql);
    }
    for parameters in [
        ("standard_conforming_strings", "off"),
        ("options", "-c standard_conforming_strings=off"),
    ] {
        let failure = deployment
            .target()
            .login(&[parameters])
            .err()
            .expect("is refused");
        assert_eq!(failure.code(), "0A000", "{parameters:?}: {failure}");
    }
    let mut client = deployment
        .target()
        .login(&[("standard_conforming_strings", "on")])
        .unwrap();
    check(&mut client, "login with on");
}

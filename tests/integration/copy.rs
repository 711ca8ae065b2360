//! COPY split by shard on its way in, put together on its way out.

use crate::support::{Client, Deployment, Reply};

const SCHEMA: &str =
    "CREATE TABLE facts (id bigint PRIMARY KEY, word text, amount numeric, at timestamptz, raw bytea, ok bool);
     CREATE TABLE places (id int PRIMARY KEY, name text)";

fn deployment() -> Deployment<'static> {
    Deployment::shared()
        .schema(SCHEMA)
        .sharded("facts", "id")
        .reference("places")
        .start()
}

/// All rows as text, past the router.
fn stored(deployment: &Deployment<'_>) -> Vec<Vec<String>> {
    let shards = 0..deployment.shards();
    let mut rows: Vec<_> = shards
        .flat_map(|shard| deployment.shard(shard).rows("SELECT * FROM facts"))
        .collect();
    rows.sort();
    rows
}

/// Rows with everything that the formats must escape, made on the single PostgreSQL, copied out in `format`.
fn source(deployment: &Deployment<'_>, format: &str) -> (Vec<u8>, Vec<Vec<String>>) {
    let mut one = deployment.one().connect();
    one.run(
        "INSERT INTO facts SELECT n - 100,
            (ARRAY['plain', '', NULL, E'tab\\there', E'line\\nbreak', E'back\\\\slash', '\\.', '\"quoted\"', 'a,b',
                   'ünïcode', E'\\r', ' spaces ', '\\N', 'NULL'])[1 + n % 14],
            CASE WHEN n % 7 = 0 THEN NULL WHEN n % 11 = 0 THEN 'NaN' ELSE n / 3.0 END,
            CASE WHEN n % 5 > 0 THEN timestamptz '2024-02-29' + n * interval '1 hour' END,
            CASE WHEN n % 3 > 0 THEN decode(md5(n::text), 'hex') END, n % 2 = 0
         FROM generate_series(1, 500) n",
    );
    let data = one.copy_out(&format!("COPY facts TO STDOUT ({format})"));
    let mut rows = one.rows("SELECT * FROM facts");
    rows.sort();
    (data, rows)
}

fn succeeded(reply: &Reply, tag: &str) {
    assert_eq!(reply.failure, None);
    assert_eq!(
        reply
            .outcomes
            .last()
            .and_then(|outcome| outcome.tag.as_deref()),
        Some(tag)
    );
    assert_eq!(reply.status, 'I');
}

fn arrives_whole(format: &str) {
    arrives_whole_from(format, "");
}

/// `only_out`: more options for the COPY that makes the data.
fn arrives_whole_from(format: &str, only_out: &str) {
    let deployment = deployment();
    let (data, expected) = source(&deployment, &format!("{format}{only_out}"));
    let mut client = deployment.connect();
    // Pieces that cut rows, escapes and characters apart.
    for piece in [7, 8191] {
        succeeded(
            &client.copy_in(&format!("COPY facts FROM STDIN ({format})"), &data, piece),
            "COPY 500",
        );
        assert!(stored(&deployment) == expected, "pieces of {piece} bytes");
        let counts = deployment.on_each_shard("SELECT count(*) FROM facts");
        assert!(counts.iter().all(|count| count != "0"), "{counts:?}");
        assert_eq!(
            client.value("SELECT count(*) FROM facts WHERE id = -50"),
            "1"
        );
        assert_eq!(client.run("DELETE FROM facts"), "DELETE 500");
    }
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn text_arrives_whole() {
    arrives_whole("FORMAT text");
}

#[test]
fn text_with_its_own_delimiter_and_null_arrives_whole() {
    arrives_whole("FORMAT text, DELIMITER '|', NULL 'nothing'");
}

#[test]
fn csv_arrives_whole() {
    arrives_whole("FORMAT csv");
}

#[test]
fn csv_with_header_and_own_quotes_arrives_whole() {
    arrives_whole_from(
        "FORMAT csv, HEADER true, DELIMITER ';', QUOTE '''', ESCAPE '\\', NULL 'n/a'",
        ", FORCE_QUOTE *",
    );
}

#[test]
fn binary_arrives_whole() {
    arrives_whole("FORMAT binary");
}

#[test]
fn columns_may_come_in_another_order() {
    let deployment = deployment();
    let mut client = deployment.connect();
    let data = b"a\t1\nb\t2\nc\t3\nd\t4\ne\t5\n";
    succeeded(
        &client.copy_in("COPY facts (word, id) FROM STDIN", data, 64),
        "COPY 5",
    );
    assert_eq!(
        client.column("SELECT word FROM facts ORDER BY id"),
        ["a", "b", "c", "d", "e"]
    );
    let failure = client.fails("COPY facts (word) FROM STDIN");
    assert!(
        failure.refusal().is_some(),
        "without the key nobody knows where a row goes: {failure}"
    );
}

/// Starts a COPY, sends rows for all shards, and lets `end` end it: it must fail and leave nothing.
fn leaves_nothing(code: &str, end: impl Fn(&mut Client)) {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("INSERT INTO facts (id, word) VALUES (30, 'here')");
    client.message(|buffer| {
        postgres_protocol::message::frontend::query("COPY facts (id, word) FROM STDIN", buffer)
    });
    assert_eq!(client.reply().status, 'G');
    for id in 1..20 {
        client.copy_data(format!("{id}\tword\n").as_bytes());
    }
    end(&mut client);
    let reply = client.reply();
    assert_eq!(reply.failure.expect("COPY fails").code(), code);
    assert_eq!(reply.status, 'I');
    assert_eq!(stored(&deployment).len(), 1);
    assert_eq!(client.value("SELECT word FROM facts WHERE id = 30"), "here");
    assert_eq!(deployment.prepared(), [""; 0]);
}

fn copy_done(client: &mut Client) {
    client.message(|buffer| {
        postgres_protocol::message::frontend::copy_done(buffer);
        Ok(())
    });
}

#[test]
fn a_client_that_gives_up_leaves_nothing() {
    leaves_nothing("57014", |client| {
        client.message(|buffer| postgres_protocol::message::frontend::copy_fail("enough", buffer));
    });
}

#[test]
fn a_bad_key_leaves_nothing() {
    leaves_nothing("22P02", |client| {
        client.copy_data(b"many\tword\n");
        copy_done(client);
    });
}

#[test]
fn a_row_that_one_shard_rejects_leaves_nothing() {
    leaves_nothing("23505", |client| {
        client.copy_data(b"30\tagain\n");
        copy_done(client);
    });
}

#[test]
fn a_row_with_too_many_columns_leaves_nothing() {
    leaves_nothing("22P04", |client| {
        client.copy_data(b"50\tword\textra\n");
        copy_done(client);
    });
}

#[test]
fn rows_of_all_shards_leave_as_one_copy() {
    let deployment = deployment();
    let (data, _) = source(&deployment, "FORMAT binary");
    let mut client = deployment.connect();
    succeeded(
        &client.copy_in("COPY facts FROM STDIN (FORMAT binary)", &data, 4096),
        "COPY 500",
    );
    let mut one = deployment.one().connect();
    for format in [
        "FORMAT text",
        "FORMAT csv, HEADER",
        "FORMAT csv, FORCE_QUOTE *",
    ] {
        let sql = format!("COPY facts TO STDOUT ({format})");
        let text = String::from_utf8(client.copy_out(&sql)).unwrap();
        let expected = String::from_utf8(one.copy_out(&sql)).unwrap();
        let header = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        if format.contains("HEADER") {
            assert_eq!(header(&text), header(&expected));
        }
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert!(sorted(&text) == sorted(&expected), "{format}");
    }
    // Binary: what leaves can be read by one PostgreSQL, so header and trailer are there once.
    let binary = client.copy_out("COPY facts TO STDOUT (FORMAT binary)");
    one.run("CREATE TEMP TABLE back (LIKE facts)");
    succeeded(
        &one.copy_in("COPY back FROM STDIN (FORMAT binary)", &binary, 4096),
        "COPY 500",
    );
    assert_eq!(
        one.value("SELECT count(*) FROM (TABLE back EXCEPT TABLE facts) x"),
        "0"
    );
    assert_eq!(client.run("COPY facts TO STDOUT"), "COPY 500");
    assert_eq!(
        client.run("COPY (SELECT id FROM facts WHERE id = -7) TO STDOUT"),
        "COPY 1"
    );
}

#[test]
fn a_reference_table_is_copied_to_every_shard() {
    let deployment = deployment();
    let mut client = deployment.connect();
    succeeded(
        &client.copy_in("COPY places FROM STDIN", b"1\there\n2\tthere\n", 5),
        "COPY 2",
    );
    assert_eq!(
        deployment.on_each_shard("SELECT string_agg(name, ',' ORDER BY id) FROM places"),
        ["here,there"; 4]
    );
    assert_eq!(
        client.copy_out("COPY places TO STDOUT"),
        b"1\there\n2\tthere\n"
    );
}

#[test]
fn a_copy_belongs_to_its_block() {
    let deployment = deployment();
    let mut client = deployment.connect();
    client.run("BEGIN");
    let reply = client.copy_in("COPY facts (id) FROM STDIN", b"1\n2\n3\n4\n5\n6\n7\n8\n", 3);
    assert_eq!((reply.failure, reply.status), (None, 'T'));
    assert_eq!(client.column("SELECT id FROM facts ORDER BY id").len(), 8);
    client.run("ROLLBACK");
    assert_eq!(stored(&deployment).len(), 0);
}

#[test]
fn a_copy_from_a_server_file_or_program_is_refused_or_forbidden() {
    let deployment = deployment();
    let mut client = deployment.connect();
    for sql in [
        "COPY facts FROM '/etc/passwd'",
        "COPY facts FROM PROGRAM 'true'",
        "COPY facts TO '/tmp/pgring-never'",
    ] {
        let failure = client.fails(sql);
        assert!(
            matches!(failure.code(), "0A000" | "42501"),
            "{sql}: {failure}"
        );
    }
}

#[test]
fn a_trigger_that_talks_during_a_copy_is_heard() {
    let deployment = Deployment::shared()
        .schema(
            "CREATE TABLE facts (id bigint PRIMARY KEY, word text);
             CREATE FUNCTION talk() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN RAISE NOTICE ''%'', repeat(''x'', 200); RETURN new; END';
             CREATE TRIGGER talk BEFORE INSERT ON facts FOR EACH ROW EXECUTE FUNCTION talk()",
        )
        .sharded("facts", "id")
        .shards(1)
        .start();
    // More than the buffers on the way hold, in both directions.
    let rows = 2_500;
    let data: String = (0..rows)
        .map(|id| format!("{id}\t{}\n", "y".repeat(400)))
        .collect();
    let mut client = deployment.connect();
    let reply = client.copy_in("COPY facts FROM STDIN", data.as_bytes(), 8192);
    succeeded(&reply, &format!("COPY {rows}"));
}

#[test]
fn a_copy_over_several_shards_does_not_take_the_time_of_each() {
    let deployment = Deployment::shared()
        .schema(
            "CREATE TABLE facts (id bigint PRIMARY KEY, word text, at timestamptz);
             CREATE TABLE codes (code text PRIMARY KEY, days date[])",
        )
        .sharded("facts", "id")
        .reference("codes")
        .start();
    let mut client = deployment.connect();
    for (sql, data) in [
        (
            "COPY codes FROM STDIN",
            "a\t{2024-01-01}\nb\t{2024-01-02,Today}\n",
        ),
        ("COPY codes (days, code) FROM STDIN", "{t\\157day}\ta\n"),
        ("COPY codes FROM STDIN (FORMAT csv)", "a,{t\"oda\"y}\n"),
        ("COPY facts FROM STDIN", "1\tx\t2024-01-01\n2\tx\tnow\n"),
    ] {
        for piece in [3, 100] {
            let failure = client.copy_in(sql, data.as_bytes(), piece).failure;
            let failure = failure.unwrap_or_else(|| panic!("{sql} should be refused"));
            assert_eq!(failure.refusal(), Some("volatile-function"), "{failure}");
        }
    }
    assert_eq!(client.value("SELECT count(*) FROM codes"), "0");
    let reply = client.copy_in("COPY codes FROM STDIN", b"today\t{2024-01-01}\n", 4);
    succeeded(&reply, "COPY 1");
    let reply = client.copy_in(
        "COPY facts FROM STDIN",
        b"1\tnow\tinfinity\n2\tBUY NOW\t\\N\n",
        5,
    );
    succeeded(&reply, "COPY 2");
}

#[test]
fn queries_that_are_merged_are_copied_out_as_postgresql_writes_them() {
    let deployment = deployment();
    let (data, _) = source(&deployment, "FORMAT text");
    let (mut client, mut one) = (deployment.connect(), deployment.one().connect());
    succeeded(
        &client.copy_in("COPY facts FROM STDIN", &data, 8191),
        "COPY 500",
    );
    for side in [&mut client, &mut one] {
        side.run("INSERT INTO places VALUES (1, 'here'), (2, E'th\\\\er\te')");
    }
    let queries = [
        "SELECT count(*) FROM facts",
        "SELECT * FROM facts ORDER BY id",
        "SELECT word FROM facts ORDER BY word COLLATE \"C\", id",
        "SELECT word AS \"a, b\", count(*), sum(amount), max(at), stddev(id) FROM facts GROUP BY word ORDER BY word",
        "SELECT f.id, p.name FROM facts f JOIN places p ON p.id = f.id % 3 WHERE f.ok ORDER BY f.id LIMIT 7 OFFSET 2",
        "SELECT a.id, b.word, b.raw FROM facts a JOIN facts b ON b.id = a.id + 1 WHERE a.id < 9 ORDER BY a.id -- all",
        "SELECT row_to_json(f), ARRAY[f.word, NULL] FROM facts f ORDER BY id DESC LIMIT 20",
        "SELECT id, id FROM facts WHERE false ORDER BY id",
        "WITH w AS (SELECT DISTINCT word FROM facts) SELECT word FROM w ORDER BY word COLLATE \"C\" NULLS FIRST",
    ];
    let formats = [
        "",
        "(FORMAT text, DELIMITER '|', NULL 'nothing')",
        "(FORMAT csv)",
        "(FORMAT csv, HEADER, DELIMITER ';', QUOTE '''', ESCAPE E'\\\\', NULL 'n/a', FORCE_QUOTE *)",
        "(FORMAT csv, HEADER, NULL 'NULL')",
        "(FORMAT binary)",
        "WITH CSV HEADER",
    ];
    for query in queries {
        for format in formats {
            let sql = format!("COPY ({query}\n) TO STDOUT {format}");
            let (copied, expected) = (client.simple(&sql), one.simple(&sql));
            assert_eq!(copied.failure, None, "{sql}");
            assert!(
                copied.copied == expected.copied,
                "{sql}:\n{}\nbecame\n{}",
                String::from_utf8_lossy(&expected.copied),
                String::from_utf8_lossy(&copied.copied)
            );
            let tag = |reply: &Reply| reply.outcomes.last().and_then(|last| last.tag.clone());
            assert_eq!(tag(&copied), tag(&expected), "{sql}");
        }
    }
    // What is wrong with it, PostgreSQL says.
    for sql in [
        "COPY (SELECT count(*) FROM facts) TO STDOUT (FORMAT csv, DELIMITER E'\\n')",
        "COPY (SELECT count(*) FROM facts) TO STDOUT (FORMAT text, QUOTE '''')",
        "COPY (SELECT count(*) FROM facts) TO STDOUT (FORMAT binary, HEADER)",
        "COPY (SELECT nothing FROM facts ORDER BY id) TO STDOUT",
        "COPY (SELECT sum(1 / (id - 7)) FROM facts) TO STDOUT",
        "COPY (SELECT word, count(*) FROM facts) TO STDOUT",
    ] {
        let (failure, expected) = (client.fails(sql), one.fails(sql));
        assert_eq!(failure.code(), expected.code(), "{sql}: {failure}");
    }
    for sql in [
        "COPY (SELECT count(*) FROM facts) TO STDOUT (ENCODING 'LATIN1')",
        "COPY (SELECT count(*) AS n, 1 AS m FROM facts) TO STDOUT (FORMAT csv, FORCE_QUOTE (m))",
    ] {
        assert_eq!(client.fails(sql).refusal(), Some("copy-form"), "{sql}");
    }
    // In a block, what it did is seen, and the block goes on.
    client.run("BEGIN; DELETE FROM facts WHERE id > 0");
    assert_eq!(
        client.copy_out("COPY (SELECT count(*) FROM facts) TO STDOUT"),
        b"100\n"
    );
    assert_eq!(client.value("SELECT count(*) FROM facts"), "100");
    client.run("ROLLBACK");
    let reply = client.extended("COPY (SELECT max(id) FROM facts) TO STDOUT", &[], false);
    assert_eq!((reply.failure, &*reply.copied), (None, &b"400\n"[..]));
    assert_eq!(client.value("SELECT 1"), "1");
}

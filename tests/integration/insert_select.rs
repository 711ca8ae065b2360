//! INSERT of a query's rows that belong elsewhere than where they are made, where `tests/differential` cannot look:
//! transactions, limits, parameters, the extended protocol, what stays refused.

use crate::support::{Client, Deployment};

const SCHEMA: &str = "
    CREATE TABLE accounts (aid int PRIMARY KEY, bid int, note text);
    CREATE TABLE branches (bid bigint PRIMARY KEY, total int CHECK (total < 1000), named text DEFAULT 'none');
    CREATE TABLE stamped (id int PRIMARY KEY, at timestamptz DEFAULT now());
    CREATE TABLE numbered (id int PRIMARY KEY, no serial);
    CREATE TABLE journal (id int PRIMARY KEY, entry text)";

/// A hundred accounts on all shards.
fn filled(settings: &str) -> (Deployment<'static>, Client) {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .sharded("branches", "bid")
        .sharded("stamped", "id")
        .sharded("numbered", "id")
        .settings(settings)
        .start();
    let mut client = deployment.connect();
    let rows: Vec<String> = (1..=100)
        .map(|aid| format!("({aid}, {}, repeat('x', 1000))", aid % 10))
        .collect();
    client.run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    (deployment, client)
}

const TOTALS: &str =
    "INSERT INTO branches (bid, total) SELECT bid, sum(aid) FROM accounts GROUP BY bid";

#[test]
fn rows_are_stored_on_all_shards_or_none() {
    let (deployment, mut client) = filled("");
    assert_eq!(client.run(TOTALS), "INSERT 0 10");
    assert_eq!(client.value("SELECT sum(total) FROM branches"), "5050");
    assert!(
        deployment
            .shards_with("SELECT count(*) FROM branches")
            .len()
            > 1
    );
    for bid in 0..10 {
        let sql = format!("SELECT named FROM branches WHERE bid = {bid}");
        assert_eq!(
            client.value(&sql),
            "none",
            "a row is where it is looked for"
        );
    }
    // A constant is of its column's type.
    client.run("INSERT INTO branches SELECT '1234', count(*), NULL FROM accounts");
    assert_eq!(
        client.value("SELECT total FROM branches WHERE bid = 1234 AND named IS NULL"),
        "100"
    );
    for (sql, code) in [
        ("INSERT INTO branches SELECT 'x', 1 FROM accounts", "22P02"),
        (
            "INSERT INTO branches SELECT NULL::int, aid FROM accounts",
            "23502",
        ),
    ] {
        assert_eq!(client.fails(sql).code(), code, "{sql}");
    }
    // One of its rows cannot be stored, wherever that is.
    client.run("DELETE FROM branches WHERE bid > 0");
    assert_eq!(client.fails(TOTALS).code(), "23505");
    client.run("DELETE FROM branches WHERE bid = 0");
    client.run("UPDATE accounts SET aid = aid, bid = 10 WHERE bid < 5");
    assert_eq!(client.fails(TOTALS).code(), "23514");
    assert_eq!(client.value("SELECT count(*) FROM branches"), "0");
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn a_block_stores_what_it_sees_and_takes_it_back() {
    let (_deployment, mut client) = filled("");
    client.run("BEGIN");
    client.run("DELETE FROM accounts WHERE bid > 4");
    assert_eq!(client.run(TOTALS), "INSERT 0 5");
    client.run("SAVEPOINT s");
    assert_eq!(client.fails(TOTALS).code(), "23505");
    client.run("ROLLBACK TO s");
    assert_eq!(
        client.run("INSERT INTO journal SELECT bid, 'of ' || total FROM branches"),
        "INSERT 0 5"
    );
    client.run("COMMIT");
    assert_eq!(client.value("SELECT count(*) FROM journal"), "5");
    client.run("BEGIN; INSERT INTO branches SELECT aid + 100, bid FROM accounts; ROLLBACK");
    assert_eq!(client.value("SELECT count(*) FROM branches"), "5");
}

#[test]
fn more_rows_than_the_limit_are_an_error_that_names_it() {
    let (_deployment, mut client) = filled("[limits]\nmerge_bytes = \"64kB\"");
    let copy = "INSERT INTO accounts SELECT aid + 1000, bid, note FROM accounts";
    let failure = client.fails(copy);
    assert_eq!(failure.code(), "53400");
    assert!(
        failure.message().contains("limits.merge_bytes"),
        "{failure}"
    );
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "100");
    assert_eq!(client.run(&format!("{copy} WHERE aid < 20")), "INSERT 0 19");
}

#[test]
fn parameters_of_the_query_and_rows_of_returning_are_passed() {
    let (_deployment, mut client) = filled("");
    let sql = "INSERT INTO accounts AS new (note, aid, bid) SELECT $2, aid + $1::int, $3::int + 1
        FROM accounts WHERE bid = 3 ORDER BY aid DESC LIMIT 4 RETURNING aid, bid, new.note";
    // A parameter's type is that of its column.
    let refused = client.extended(sql, &[Some("1000"), Some("it's"), Some("8")], false);
    assert_eq!(
        refused
            .failure
            .as_ref()
            .and_then(|failure| failure.refusal()),
        Some("insert-select")
    );
    let sql = sql.replace("SELECT $2,", "SELECT $2::text,");
    for (binary, base) in [(false, "1000"), (true, "2000")] {
        let reply = client.extended(&sql, &[Some(base), Some("it's"), Some("8")], binary);
        assert!(reply.failure.is_none(), "{:?}", reply.failure);
        let outcome = &reply.outcomes[0];
        assert_eq!(outcome.tag.as_deref(), Some("INSERT 0 4"));
        assert_eq!(outcome.rows.len(), 4);
        let ids = format!(
            "SELECT aid FROM accounts WHERE aid > {base} AND aid < {base} + 1000 ORDER BY aid DESC"
        );
        let ids = client.column(&ids);
        if !binary {
            let given = outcome.rows.iter().map(|row| row[0].as_deref().unwrap());
            let given: Vec<String> = given
                .map(|id| String::from_utf8(id.to_vec()).unwrap())
                .collect();
            assert_eq!(given, ids);
        }
        assert_eq!(ids.len(), 4);
    }
    client.run(
        "PREPARE p (int) AS INSERT INTO journal SELECT aid, 'one' FROM accounts WHERE bid < $1",
    );
    assert_eq!(client.run("EXECUTE p (2)"), "INSERT 0 20");
    assert_eq!(client.run("DELETE FROM journal"), "DELETE 20");
    assert_eq!(
        client.value(
            "INSERT INTO branches SELECT bid, 1 FROM accounts WHERE aid = 4 RETURNING named"
        ),
        "none"
    );
}

#[test]
fn rows_of_arrays_are_stored_where_they_belong() {
    let (deployment, mut client) = filled("");
    let sql = "INSERT INTO branches AS b SELECT * FROM unnest($1::int8[], $2::int4[]) \
               ON CONFLICT (bid) DO UPDATE SET total = b.total + excluded.total";
    let (bids, totals) = ("{1,2,3,4,5,6,7,8}", "{1,2,3,4,5,6,7,NULL}");
    for _ in 0..2 {
        let reply = client.extended(sql, &[Some(bids), Some(totals)], false);
        assert!(reply.failure.is_none(), "{:?}", reply.failure);
        assert_eq!(reply.outcomes[0].tag.as_deref(), Some("INSERT 0 8"));
    }
    let stored =
        client.column("SELECT bid || ':' || coalesce(total, 0) FROM branches ORDER BY bid");
    assert_eq!(
        stored,
        ["1:2", "2:4", "3:6", "4:8", "5:10", "6:12", "7:14", "8:0"]
    );
    assert_eq!(
        deployment.on_each_shard("SELECT count(*) < 8 FROM branches"),
        ["t"; 4]
    );
    client.run("INSERT INTO journal SELECT * FROM unnest(ARRAY[1, 2], '{a,b}'::text[]) AS r (id)");
    client.run("INSERT INTO journal SELECT * FROM unnest('{3,4}'::int[]) AS id");
    assert_eq!(
        client.column("SELECT id || coalesce(entry, '-') FROM journal ORDER BY id"),
        ["1a", "2b", "3-", "4-"]
    );
    // What an array of rows gives is not known.
    let sql = "INSERT INTO branches SELECT * FROM unnest(ARRAY(SELECT b FROM branches b))";
    assert_eq!(client.fails(sql).refusal(), Some("insert-select"));
}

#[test]
fn what_would_differ_between_shards_stays_refused() {
    let (_deployment, mut client) = filled("");
    for (sql, code) in [
        (
            "INSERT INTO stamped (id) SELECT bid FROM accounts WHERE aid < 9 RETURNING now()",
            "insert-select",
        ),
        (
            "INSERT INTO branches SELECT bid, 1 FROM accounts ON CONFLICT (total) DO NOTHING",
            "insert-select",
        ),
        (
            "INSERT INTO numbered (id) SELECT bid FROM accounts WHERE aid < 9 RETURNING clock_timestamp()",
            "sequence-default",
        ),
        (
            "INSERT INTO branches SELECT bid, 1 FROM accounts RETURNING (SELECT count(*) FROM accounts)",
            "insert-select",
        ),
        (
            "EXPLAIN ANALYZE INSERT INTO branches SELECT bid, aid FROM accounts",
            "explain-analyze",
        ),
    ] {
        assert_eq!(client.fails(sql).refusal(), Some(code), "{sql}");
    }
    let keyless = "INSERT INTO branches (total) SELECT bid FROM accounts";
    assert_eq!(client.fails(keyless).code(), "23502");
    assert_eq!(client.value("SELECT count(*) FROM branches"), "0");
    let explained = client.column("EXPLAIN INSERT INTO branches SELECT bid, aid FROM accounts");
    assert!(
        explained
            .iter()
            .any(|line| line.contains("where each row belongs")),
        "{explained:?}"
    );
}

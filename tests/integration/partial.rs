//! Aggregates in parts: that what the shards' parts become is what PostgreSQL computes of all rows at once, to the last
//! digit, and what EXPLAIN says of it.

use crate::random::Random;
use crate::support::{Client, Deployment};
use std::fmt::Write;

/// The same rows spread, and whole on every shard.
fn deployment() -> Deployment<'static> {
    let columns = "(id int PRIMARY KEY, g int, small int2, whole int4, big int8, number numeric, scaled numeric(20, 6),
        ratio float8, span interval, day date, at timestamptz, ok bool, label text COLLATE \"C\", pad char(4))";
    let schema = format!("CREATE TABLE spread {columns}; CREATE TABLE copies {columns}");
    Deployment::shared()
        .schema(&schema)
        .sharded("spread", "id")
        .reference("copies")
        .start()
}

/// A value of each column, or NULL.
fn row(random: &mut Random, id: usize) -> String {
    let digits = |random: &mut Random, most: usize| -> String {
        let count = 1 + random.below(most);
        (0..count)
            .map(|_| char::from(b'0' + random.below(10) as u8))
            .collect()
    };
    let number = match random.below(60) {
        0 => "'NaN'".to_owned(),
        1 => "'Infinity'".to_owned(),
        2 => "'-Infinity'".to_owned(),
        3 => "0.000".to_owned(),
        4 => format!("{}e{}", digits(random, 5), random.below(60) as i64 - 30),
        _ => {
            let sign = if random.once_in(2) { "-" } else { "" };
            format!("{sign}{}.{}", digits(random, 25), digits(random, 20))
        }
    };
    let signed = |random: &mut Random, most: usize| random.below(2 * most) as i64 - most as i64;
    let values = [
        random.below(150).to_string(),
        signed(random, 32_768).to_string(),
        signed(random, 2_147_483_648).to_string(),
        signed(random, 1 << 62).to_string(),
        number,
        format!("{}.{}", signed(random, 1_000_000), digits(random, 6)),
        random
            .of(&["'NaN'", "'-Infinity'", "'-0'", "1.5", "-2e300", "3"])
            .to_owned(),
        format!(
            "'{} mons {} days {} us'",
            signed(random, 500),
            signed(random, 5_000),
            signed(random, 1 << 40)
        ),
        format!("date '2000-01-01' + {}", signed(random, 9_000)),
        format!(
            "timestamptz '2000-01-01Z' + interval '{} us'",
            signed(random, 1 << 50)
        ),
        random.once_in(2).to_string(),
        format!("'{}'", random.of(&["", "a", "B", "ä", "zebra", "Zebra"])),
        format!("'{}'", digits(random, 4)),
    ];
    let mut row = format!("({id}");
    for value in values {
        let null = random.once_in(9);
        write!(row, ",{}", if null { "NULL" } else { &value }).unwrap();
    }
    row + ")"
}

fn filled() -> (Deployment<'static>, Client) {
    let deployment = deployment();
    let mut client = deployment.connect();
    let mut random = Random::new(2_024);
    for batch in 0..4 {
        let rows: Vec<String> = (0..500)
            .map(|id| row(&mut random, batch * 500 + id))
            .collect();
        for table in ["spread", "copies"] {
            client.run(&format!("INSERT INTO {table} VALUES {}", rows.join(", ")));
        }
    }
    (deployment, client)
}

#[test]
fn parts_become_what_one_postgresql_computes() {
    let (_deployment, mut client) = filled();
    let mut aggregates = vec![
        "count(*)".to_owned(),
        "count(*) FILTER (WHERE big > small)".to_owned(),
    ];
    for column in ["small", "whole", "big", "number", "scaled", "span"] {
        for function in ["sum", "avg", "min", "max", "count"] {
            aggregates.push(format!("{function}({column})"));
            aggregates.push(format!("{function}({column}) FILTER (WHERE ok)"));
        }
    }
    for column in ["day", "at", "label", "pad", "ratio"] {
        aggregates.extend(["min", "max"].map(|function| format!("{function}({column})")));
    }
    for function in ["bit_and", "bit_or", "bit_xor"] {
        aggregates.extend(["small", "whole", "big"].map(|column| format!("{function}({column})")));
    }
    aggregates.extend(["bool_and", "bool_or", "every"].map(|function| format!("{function}(ok)")));
    aggregates
        .push("sum(whole * scaled), avg(whole::int8 * 2 - small), avg(number / 3)".to_owned());
    let list = aggregates.join(", ");
    for tail in [
        "",
        " WHERE number NOT IN ('NaN', 'Infinity', '-Infinity')",
        " WHERE id < 0",
        " GROUP BY g ORDER BY g",
        " WHERE number BETWEEN -1e20 AND 1e20 GROUP BY g, ok ORDER BY g, ok",
        " GROUP BY label, pad ORDER BY label, pad",
        " GROUP BY CUBE (label, ok) ORDER BY label, ok, count(*)",
        " GROUP BY whole % 7 ORDER BY whole % 7",
    ] {
        let sql = |table: &str| format!("SELECT {list} FROM {table}{tail}");
        let plan = client.column(&format!("EXPLAIN {}", sql("spread")));
        assert!(plan[0].starts_with("partial and final on s"), "{plan:?}");
        for binary in [false, true] {
            let mut rows = |table: &str| {
                let reply = client.extended(&sql(table), &[], binary);
                assert!(reply.failure.is_none(), "{tail}: {:?}", reply.failure);
                reply.outcomes.into_iter().next().expect("an outcome").rows
            };
            let (parts, whole) = (rows("spread"), rows("copies"));
            assert_eq!(parts.len(), whole.len(), "{tail}");
            for (part, whole) in parts.iter().zip(&whole) {
                assert_eq!(part, whole, "{tail}");
            }
        }
    }
}

#[test]
fn integers_and_booleans_become_one_row_in_the_router() {
    let (_deployment, mut client) = filled();
    let mut aggregates = vec!["count(*)".to_owned(), "sum(small)".to_owned()];
    aggregates.push("sum(whole) FILTER (WHERE big > 0)".to_owned());
    for column in ["small", "whole", "big"] {
        for function in ["min", "max", "bit_and", "bit_or", "bit_xor", "count"] {
            aggregates.push(format!("{function}({column}) AS {function}_{column}"));
        }
    }
    aggregates.extend(["bool_and", "bool_or", "every"].map(|function| format!("{function}(ok)")));
    aggregates
        .push("bool_and(id >= 0), bool_or(id < 0), sum(length(label)), count(pad)".to_owned());
    let list = aggregates.join(", ");
    for tail in [
        "",
        " WHERE id < 0",
        " WHERE id = 5 OR id = 6",
        " WHERE ok IS NULL",
    ] {
        let sql = |table: &str| format!("SELECT {list} FROM {table}{tail}");
        let plan = client.column(&format!("EXPLAIN {}", sql("spread")));
        assert!(plan[0].starts_with("push down on s"), "{plan:?}");
        let simple = client.rows(&sql("spread"));
        assert_eq!(simple, client.rows(&sql("copies")), "{tail}");
        for binary in [false, true] {
            let mut outcome = |table: &str| {
                let reply = client.extended(&sql(table), &[], binary);
                assert!(reply.failure.is_none(), "{tail}: {:?}", reply.failure);
                let outcome = reply.outcomes.into_iter().next().expect("an outcome");
                (outcome.rows, outcome.tag)
            };
            assert_eq!(outcome("spread"), outcome("copies"), "{tail}");
        }
    }
}

#[test]
fn a_domain_is_compared_in_its_own_collation() {
    let schema = "CREATE DOMAIN bytes AS text COLLATE \"C\"; CREATE DOMAIN words AS text COLLATE \"und-x-icu\" NOT NULL;
        CREATE TABLE texts (id int PRIMARY KEY, bytes bytes, words words)";
    let deployment = Deployment::shared()
        .schema(schema)
        .sharded("texts", "id")
        .start();
    let mut client = deployment.connect();
    client.run("INSERT INTO texts SELECT 1, 'a', 'a'");
    client
        .run("INSERT INTO texts VALUES (2, 'B', 'B'), (3, 'b', 'b'), (4, 'C', 'C'), (5, 'c', 'c')");
    assert_eq!(
        client.rows(
            "SELECT min(bytes), max(bytes), min(words), max(words), max(lower(words)) FROM texts"
        ),
        [["B", "c", "a", "C", "c"]]
    );
    assert_eq!(
        client.column("SELECT bytes FROM texts GROUP BY bytes ORDER BY bytes"),
        ["B", "C", "a", "b", "c"]
    );
    assert_eq!(
        client.column("SELECT DISTINCT words FROM texts ORDER BY words"),
        ["a", "b", "B", "c", "C"]
    );
    // No NULL of an outer join becomes one of the domain's.
    assert_eq!(
        client.rows(
            "SELECT u.words, count(*) FROM texts t LEFT JOIN texts u ON u.id = t.id AND u.id > 4
            GROUP BY u.words ORDER BY u.words"
        ),
        [["c", "1"], ["NULL", "4"]]
    );
}

#[test]
fn a_shard_sends_a_row_for_each_of_its_groups() {
    let (_deployment, mut client) = filled();
    let explained = |client: &mut Client, sql: &str| {
        let plan = client.column(&format!("EXPLAIN (ANALYZE, COSTS off, TIMING off) {sql}"));
        let tops = plan.iter().zip(&plan[1..]);
        let tops = tops.filter(|(line, _)| line.starts_with("Shard "));
        let tops: Vec<String> = tops.map(|(_, top)| top.trim().to_owned()).collect();
        (plan, tops)
    };
    let (plan, tops) = explained(&mut client, "SELECT count(*) FROM spread");
    assert_eq!(
        plan[..2],
        ["push down on s0, s1, s2, s3", "merge: one row (sum)"]
    );
    assert_eq!(tops, ["Aggregate (actual rows=1 loops=1)"; 4], "{plan:?}");
    let (plan, tops) = explained(&mut client, "SELECT avg(number) FROM spread");
    assert_eq!(
        plan[1],
        "partial from s0, s1, s2, s3: SELECT pg_catalog.sum(number), pg_catalog.count(number) FROM spread"
    );
    assert_eq!(tops, ["Aggregate (actual rows=1 loops=1)"; 4], "{plan:?}");
    let (plan, tops) = explained(&mut client, "SELECT ok, max(big) FROM spread GROUP BY ok");
    assert_eq!(
        tops, ["HashAggregate (actual rows=3 loops=1)"; 4],
        "{plan:?}"
    );
}

#[test]
fn an_error_is_about_the_text_that_the_client_sent() {
    let (_deployment, mut client) = filled();
    for (sql, code, position) in [
        (
            "SELECT count(*), sum(big) FROM spread WHERE whole > 'x'::text",
            "42883",
            "51",
        ),
        ("SELECT count(*) FROM spread WHERE missing", "42703", "35"),
    ] {
        for _ in 0..20 {
            let failure = client.fails(sql);
            assert_eq!(failure.code(), code, "{failure}");
            assert_eq!(
                failure.fields.get(&'P').map(String::as_str),
                Some(position),
                "{failure}"
            );
        }
    }
    assert_eq!(client.value("SELECT count(*) FROM spread"), "2000");
}

#[test]
fn parameters_go_to_both_texts() {
    let (_deployment, mut client) = filled();
    let sql = |table: &str| {
        format!(
            "SELECT g % $1, count(*), $2::text || max(label), sum(whole) FILTER (WHERE small > $3)
            FROM {table} WHERE big > $4 GROUP BY 1 HAVING count(*) > $5 ORDER BY 1 LIMIT $6"
        )
    };
    let values = ["7", "it's ", "5", "-1000000", "100", "5"].map(Some);
    for binary in [false, true] {
        let mut rows = |table: &str| {
            let reply = client.extended(&sql(table), &values, binary);
            assert!(reply.failure.is_none(), "{:?}", reply.failure);
            reply.outcomes.into_iter().next().expect("an outcome").rows
        };
        let parts = rows("spread");
        assert!(parts.len() > 2, "{parts:?}");
        assert_eq!(parts, rows("copies"));
    }
    // A parameter in both texts is of the type that it was declared with.
    for table in ["spread", "copies"] {
        client.run(&format!(
            "PREPARE {table} (int8) AS SELECT count(*), sum(g + $1), $1 FROM {table} WHERE g > $1"
        ));
    }
    let mut rows = |table: &str| client.rows(&format!("EXECUTE {table}(100)"));
    assert_eq!(rows("spread"), rows("copies"));
}

//! TPC-H: its 22 queries on one PostgreSQL and on four shards, each table sharded by its own key.

use crate::support::Deployment;
use pgring::cli::tpch::{Table, Words};

const QUERIES: &str = include_str!("tpch.sql");

/// Bytes of one CopyData message.
const PIECE: usize = 64 * 1024;

#[test]
fn the_queries_of_tpch_agree_with_one_postgresql() {
    let mut options = Deployment::shared();
    for table in Table::ALL {
        options = options.schema(table.ddl());
        options = match table.key() {
            Some(key) => options.sharded(table.name(), key),
            None => options.reference(table.name()),
        };
    }
    let deployment = options.start();
    let (mut one, mut many) = (deployment.one().connect(), deployment.connect());
    let words = Words::new();
    for table in Table::ALL {
        let text = table.copy_text(&words);
        let copy = format!("COPY {} FROM STDIN", table.name());
        for client in [&mut one, &mut many] {
            let reply = client.copy_in(&copy, text.as_bytes(), PIECE);
            assert!(reply.failure.is_none(), "{copy}: {:?}", reply.failure);
        }
    }
    one.run("ANALYZE");
    let mut queries = 0;
    for query in QUERIES.split("\n\n").skip(1) {
        let (number, sql) = query.split_once('\n').expect("a number, then the query");
        let expected = one.rows(sql);
        assert!(!expected.is_empty(), "{number} gives nothing");
        assert_eq!(many.rows(sql), expected, "{number}");
        queries += 1;
    }
    assert_eq!(queries, 22);
}

//! The SQL floor's hot paths: lexing and classifying what OLTP clients send, and cutting COPY data into rows.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pgring::sql::copy_rows::{CopyKey, CopyPiece, CopyRows};
use pgring::sql::lex::{LexLimits, Lexer, lex};
use pgring::sql::statement::{Statement, classify};
use std::hint::black_box;

const LIMITS: LexLimits = LexLimits {
    tokens_max: 100_000,
    depth_max: 200,
};

const STATEMENTS: &[(&str, &str)] = &[
    (
        "point_select",
        "SELECT abalance FROM pgbench_accounts WHERE aid = 4242;",
    ),
    (
        "orm_select",
        "SELECT \"orders\".\"id\", \"orders\".\"customer_id\", \"orders\".\"state\", \"orders\".\"created_at\" \
         FROM \"orders\" WHERE \"orders\".\"customer_id\" = $1 AND \"orders\".\"state\" IN ('open', 'it''s late') \
         ORDER BY \"orders\".\"created_at\" DESC, \"orders\".\"id\" LIMIT $2 OFFSET 0",
    ),
    (
        "insert",
        "INSERT INTO orders (customer_id, total, note) VALUES (42, 19.99, E'first\\nsecond') RETURNING id",
    ),
    ("begin", "BEGIN"),
];

fn statements(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sql");
    for (name, sql) in STATEMENTS {
        group.throughput(Throughput::Bytes(sql.len() as u64));
        group.bench_with_input(BenchmarkId::new("scan", name), sql, |bencher, sql| {
            bencher.iter(|| Lexer::new(black_box(sql)).count());
        });
        group.bench_with_input(BenchmarkId::new("lex", name), sql, |bencher, sql| {
            bencher.iter(|| lex(black_box(sql), &LIMITS));
        });
        let Ok(tokens) = lex(sql, &LIMITS) else {
            continue;
        };
        group.bench_with_input(BenchmarkId::new("classify", name), sql, |bencher, sql| {
            bencher.iter(|| classify(black_box(sql), &tokens).is_ok());
        });
    }
    group.finish();
}

fn copy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy_rows");
    let text = "4242\t155190\t7706\t17\t33078.94\tN\tO\t1996-03-13\tDELIVER IN PERSON\tegular courts above\n";
    let csv = text.replace('\t', ",").replace("egular", "\"egular\"");
    for (sql, line) in [
        ("copy t from stdin", text),
        ("copy t from stdin csv", csv.as_str()),
    ] {
        let chunk = line.repeat(100);
        let Ok(tokens) = lex(sql, &LIMITS) else {
            continue;
        };
        let Ok(Statement::Copy(copy)) = classify(sql, &tokens) else {
            continue;
        };
        let key = CopyKey::new(&copy.options, 0, "id");
        group.throughput(Throughput::Bytes(chunk.len() as u64));
        group.bench_function(BenchmarkId::new("hundred_rows", sql), |bencher| {
            let mut rows = CopyRows::new(&copy.options, 1 << 20);
            bencher.iter(|| {
                rows.push(black_box(chunk.as_bytes()));
                let mut keys = 0;
                while let Ok(Some(CopyPiece::Row(row))) = rows.read() {
                    keys += usize::from(key.value(row).is_ok());
                }
                keys
            });
        });
    }
    group.finish();
}

criterion_group!(benches, statements, copy);
criterion_main!(benches);

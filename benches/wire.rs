//! The wire floor's hot paths: what is done once for each frame or row of a statement.

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pgring::wire::frame::{self, Format, Frame};
use pgring::wire::frontend_message::{self, Bind, FrontendMessage};
use pgring::wire::value::{self, SortType};
use pgring::wire::{backend_message, scram};
use std::hint::black_box;

const ROWS: u64 = 1000;

/// So many rows of four columns, one NULL.
fn rows() -> BytesMut {
    let mut out = BytesMut::new();
    for row in 0..ROWS {
        let (id, balance) = (row.to_string(), (row * 7).to_string());
        let filler = [b' '; 84];
        let values = [
            Some(id.as_bytes()),
            Some(balance.as_bytes()),
            Some(&filler[..]),
            None,
        ];
        backend_message::write_data_row(&mut out, values);
    }
    out
}

fn bind() -> Frame {
    let mut out = BytesMut::new();
    let values = [Some(&b"\0\0\x04\xd2"[..]), Some(b"some text"), None];
    frontend_message::write_bind(
        &mut out,
        "",
        "client_statement",
        [Format::Binary; 3],
        values,
        [Format::Binary],
    );
    Frame::new(out.freeze())
}

fn frames(criterion: &mut Criterion) {
    let rows = rows();
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS));
    let walk = |each: &mut dyn FnMut(&[u8])| {
        let mut rest = &rows[..];
        while let Ok(Some(header)) = frame::header(rest) {
            let (frame, after) = rest.split_at(header.frame_bytes);
            each(&frame[frame::HEADER_BYTES..]);
            rest = after;
        }
    };
    group.bench_function("walk headers", |bencher| {
        bencher.iter(|| walk(&mut |body| _ = black_box(body)));
    });
    group.bench_function("read second column", |bencher| {
        bencher.iter(|| {
            walk(&mut |body| {
                _ = black_box(backend_message::DataRow::read(body).map(|row| row.column(1)))
            })
        });
    });
    group.bench_function("cut last column", |bencher| {
        let mut out = BytesMut::with_capacity(rows.len());
        bencher.iter(|| {
            out.clear();
            walk(&mut |body| _ = backend_message::truncate_data_row(&mut out, body, 3));
        });
    });
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    let bind = bind();
    criterion.bench_function("bind/decode", |bencher| {
        bencher.iter(|| Bind::decode(black_box(bind.body())));
    });
    criterion.bench_function("bind/rewrite", |bencher| {
        let mut out = BytesMut::with_capacity(256);
        bencher.iter(|| {
            out.clear();
            frontend_message::rewrite_bind(&mut out, black_box(bind.body()), "", "pgring_1234")
        });
    });
    let query = b"SELECT abalance FROM pgbench_accounts WHERE aid = 1234;\0";
    criterion.bench_function("query/decode", |bencher| {
        bencher.iter(|| FrontendMessage::decode(b'Q', black_box(query)));
    });
}

fn values(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (sort_type, text) in [
        (SortType::Int8, "1234567890"),
        (SortType::Float8, "12345.678"),
        (SortType::Numeric, "12345.67"),
        (SortType::Timestamptz, "2024-02-29 12:34:56.789+00"),
        (SortType::Text, "some text"),
    ] {
        group.bench_function(sort_type.name(), |bencher| {
            bencher.iter(|| value::decode(sort_type, Format::Text, black_box(text.as_bytes())));
        });
    }
    group.finish();
}

fn login(criterion: &mut Criterion) {
    let verifier =
        scram::Verifier::from_password(b"secret", b"0123456789abcdef", scram::ITERATIONS).unwrap();
    criterion.bench_function("scram/check a proof", |bencher| {
        let secret = scram::Secret::Password(b"secret".to_vec());
        let (client, first) = scram::ClientExchange::start([1; scram::NONCE_BYTES]);
        let start = || {
            scram::ServerExchange::start(
                verifier.clone(),
                [2; scram::NONCE_BYTES],
                first.as_bytes(),
            )
        };
        let (_, challenge) = start().unwrap();
        let (_, proof) = client.answer(&secret, challenge.as_bytes()).unwrap();
        bencher.iter_batched(
            || start().unwrap().0,
            |server| server.finish(proof.as_bytes()),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, frames, messages, values, login);
criterion_main!(benches);

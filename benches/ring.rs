//! What routing by key costs: reading a key, its slot, its owner; and what proposing a placement costs.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pgring::topology::hash::slot;
use pgring::topology::key_value::{KeyType, KeyValue};
use pgring::topology::ring::{Member, propose};
use pgring::topology::{SLOT_COUNT, ShardId};
use std::collections::BTreeMap;
use std::hint::black_box;

const UUID: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";

fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slot");
    let texts = [
        ("int8", KeyType::Int8, "1234567890123"),
        ("text", KeyType::Text, "tenant-0001@example.com"),
        ("uuid", KeyType::Uuid, UUID),
        ("numeric", KeyType::Numeric(None), "12345678.90"),
        (
            "timestamptz",
            KeyType::Timestamptz,
            "2020-02-29 12:34:56.789+05:30",
        ),
    ];
    for (name, key_type, text) in texts {
        group.bench_function(format!("{name} from text"), |bencher| {
            bencher.iter(|| KeyValue::from_text(key_type, black_box(text)).map(|key| slot(&key)));
        });
    }
    group.bench_function("int8 from binary", |bencher| {
        let bytes = 1_234_567_890_123_i64.to_be_bytes();
        bencher.iter(|| {
            KeyValue::from_binary(20, KeyType::Int8, black_box(&bytes)).map(|key| slot(&key))
        });
    });
    group.finish();
}

fn placements(criterion: &mut Criterion) {
    let members: Vec<Member> = (0..16)
        .map(|shard| Member {
            name: format!("s{shard}").into(),
            weight: 1,
        })
        .collect();
    let pins = BTreeMap::new();
    let mut group = criterion.benchmark_group("ring");
    group.sample_size(20);
    group.bench_function("first placement on 15 shards", |bencher| {
        bencher.iter(|| propose(&members[..15], 160, &[], &pins));
    });
    let current: Vec<Option<ShardId>> = match propose(&members[..15], 160, &[], &pins) {
        Ok(owners) => owners.iter().copied().map(Some).collect(),
        Err(_) => vec![None; SLOT_COUNT],
    };
    group.bench_function("adding the 16th shard", |bencher| {
        let current = || current.clone();
        bencher.iter_batched(
            current,
            |current| propose(&members, 160, &current, &pins),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, keys, placements);
criterion_main!(benches);

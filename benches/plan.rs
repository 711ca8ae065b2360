//! What planning costs: a template once per statement, a plan once per execution.

use criterion::{Criterion, criterion_group, criterion_main};
use pgring::planner::{Binding, Context, template};
use pgring::sql::lex::LexLimits;
use pgring::topology::schema::{
    Collation, Column, ColumnDefault, HashFamily, Placement, Relation, RelationKind, Schema,
};
use pgring::topology::snapshot::{Membership, Shard, SlotOwner, Topology};
use pgring::topology::{Epoch, SLOT_COUNT, ShardId};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

fn topology() -> Topology {
    let column = |name: &str, type_oid, type_name: &str| Column {
        name: name.into(),
        type_oid,
        type_name: type_name.into(),
        collation: Collation::None,
        collation_name: None,
        default: ColumnDefault::Null,
        not_null: false,
    };
    let placement = Placement::Sharded {
        key: 0,
        family: HashFamily::Integer,
    };
    let accounts = Relation {
        columns: vec![
            column("aid", 23, "integer"),
            column("bid", 23, "integer"),
            column("balance", 23, "integer"),
        ],
        ..Relation::new("public", "accounts", RelationKind::Table, placement)
    };
    let mut schema = Schema::default();
    schema.relations.insert(
        "public".into(),
        HashMap::from([("accounts".into(), Arc::new(accounts))]),
    );
    Topology {
        generation: 0,
        has_foreign_rows: false,
        in_transit: None,
        cluster: "bench".into(),
        shards: (0..4)
            .map(|number| Shard {
                name: format!("s{number}").into(),
                epoch: Epoch(1),
                membership: Membership::Whole,
                rows_since: 0,
                fences: Arc::default(),
            })
            .collect(),
        owners: (0..SLOT_COUNT)
            .map(|slot| SlotOwner::Shard(ShardId((slot % 4) as u16)))
            .collect(),
        default_shard: ShardId(0),
        schema: Arc::new(schema),
    }
}

fn plan(criterion: &mut Criterion) {
    let topology = topology();
    let search_path: Vec<Arc<str>> = vec!["public".into()];
    let limits = LexLimits {
        tokens_max: 1_000_000,
        depth_max: 500,
    };
    let context = Context {
        topology: &topology,
        search_path: &search_path,
        hint: None,
        limits: &limits,
    };
    let rows = (0..1000)
        .map(|row| format!("({row}, 1, 2)"))
        .collect::<Vec<_>>()
        .join(", ");
    let statements = [
        (
            "point_select",
            "SELECT balance FROM accounts WHERE aid = $1".to_owned(),
        ),
        (
            "sorted_limit",
            "SELECT aid FROM accounts WHERE bid = $1 ORDER BY balance LIMIT 10 OFFSET 5".to_owned(),
        ),
        (
            "insert_1000_rows",
            format!("INSERT INTO accounts VALUES {rows}"),
        ),
    ];
    for (name, sql) in &statements {
        criterion.bench_function(&format!("template/{name}"), |bencher| {
            bencher.iter(|| template(black_box(sql), &[23], &context).expect("a template"));
        });
        let template = template(sql, &[23], &context).expect("a template");
        let value = 42_i32.to_be_bytes();
        let binding = Binding {
            values: &[Some(&value)],
            formats: &[1],
            preferred: None,
            spread: 0,
            drawn: &[],
            cursor: None,
        };
        criterion.bench_function(&format!("plan/{name}"), |bencher| {
            bencher.iter(|| {
                template
                    .plan(black_box(&binding), &topology)
                    .expect("a plan")
            });
        });
    }
}

criterion_group!(benches, plan);
criterion_main!(benches);

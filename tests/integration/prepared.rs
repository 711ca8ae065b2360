//! Prepared statements and pipelines by a real driver, tokio-postgres.

use crate::support::Deployment;
use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

const SCHEMA: &str =
    "CREATE TABLE accounts (aid bigint PRIMARY KEY, name text, balance int CHECK (balance >= 0))";

fn deployment() -> Deployment<'static> {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .start();
    let rows: Vec<String> = (1..=50)
        .map(|aid| format!("({aid}, 'name {aid}', {})", aid * 10))
        .collect();
    deployment
        .connect()
        .run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    deployment
}

async fn connect(deployment: &Deployment<'_>) -> Client {
    let mut config = tokio_postgres::Config::new();
    let target = deployment.target();
    config
        .host(&target.host)
        .port(target.port)
        .user(&target.user)
        .password(&target.password)
        .dbname(&target.database);
    let (client, connection) = config.connect(NoTls).await.expect("log in");
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_statement_is_prepared_once_and_used_on_all_shards() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    let statement = client
        .prepare("SELECT name, balance FROM accounts WHERE aid = $1")
        .await
        .unwrap();
    assert_eq!(statement.params(), [Type::INT8]);
    assert_eq!(
        statement
            .columns()
            .iter()
            .map(|column| column.type_().clone())
            .collect::<Vec<_>>(),
        [Type::TEXT, Type::INT4]
    );
    for round in 0..2 {
        for aid in 1..=50_i64 {
            let row = client.query_one(&statement, &[&aid]).await.unwrap();
            assert_eq!(
                (row.get(0), row.get(1)),
                (format!("name {aid}"), aid as i32 * 10),
                "round {round}"
            );
        }
    }
    assert!(
        client
            .query_opt(&statement, &[&999_i64])
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn many_statements_of_many_clients_do_not_mix() {
    let deployment = deployment();
    let clients = join_all((0..8).map(|_| connect(&deployment))).await;
    let work = clients
        .iter()
        .enumerate()
        .map(|(number, client)| async move {
            for round in 0..20_i64 {
                // The same driver-made names (s0, s1, …) mean other statements to each client.
                let sql = format!("SELECT {number} + {round}, name FROM accounts WHERE aid = $1");
                let statement = client.prepare(&sql).await?;
                let aid = 1 + (number as i64 * 7 + round) % 50;
                let row = client.query_one(&statement, &[&aid]).await?;
                assert_eq!(
                    (row.get::<_, i32>(0), row.get::<_, String>(1)),
                    (number as i32 + round as i32, format!("name {aid}"))
                );
            }
            Ok::<_, tokio_postgres::Error>(())
        });
    try_join_all(work).await.unwrap();
}

#[tokio::test]
async fn queries_in_flight_are_answered_in_order() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    let statement = client
        .prepare("SELECT name FROM accounts WHERE aid = $1")
        .await
        .unwrap();
    let queries = (1..=50_i64).map(|aid| {
        let (client, statement) = (&client, &statement);
        async move {
            client
                .query_one(statement, &[&aid])
                .await
                .map(|row| row.get::<_, String>(0))
        }
    });
    let names = try_join_all(queries).await.unwrap();
    assert_eq!(
        names,
        (1..=50)
            .map(|aid| format!("name {aid}"))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn an_error_in_a_pipeline_hurts_only_its_own_query() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    let update = client
        .prepare("UPDATE accounts SET balance = $2 WHERE aid = $1")
        .await
        .unwrap();
    let changes: Vec<(i64, i32)> = vec![(1, 1), (2, -1), (3, 3), (4, -4), (5, 5)];
    let outcomes = join_all(changes.iter().map(|(aid, balance)| {
        let parameters: [&(dyn ToSql + Sync); 2] = [aid, balance];
        let (client, update) = (&client, &update);
        async move { client.execute(update, &parameters).await }
    }))
    .await;
    for ((aid, balance), outcome) in changes.iter().zip(outcomes) {
        match outcome {
            Ok(count) => assert_eq!((count, *balance > 0), (1, true), "{aid}"),
            Err(error) => assert_eq!(
                (error.code().unwrap().code(), *balance < 0),
                ("23514", true),
                "{aid}"
            ),
        }
    }
    let rows = client
        .query(
            "SELECT balance FROM accounts WHERE aid <= 5 ORDER BY aid",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>(),
        [1, 20, 3, 40, 5]
    );
}

#[tokio::test]
async fn parameters_of_many_types_go_and_come_in_binary() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    client
        .batch_execute("CREATE TABLE types (id int PRIMARY KEY, t text, b bytea, f float8, o bool, a int[], j timestamptz)")
        .await
        .unwrap();
    let now =
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_700_000_000_123_456);
    let insert = "INSERT INTO types VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (text, bytes, array) = ("tëxt\n", vec![0_u8, 1, 255], vec![1, 2, 3]);
    client
        .execute(insert, &[&1, &text, &bytes, &1.5_f64, &true, &array, &now])
        .await
        .unwrap();
    client
        .execute(
            insert,
            &[
                &2,
                &None::<&str>,
                &None::<Vec<u8>>,
                &f64::NAN,
                &None::<bool>,
                &array,
                &now,
            ],
        )
        .await
        .unwrap();
    let row = client
        .query_one("SELECT * FROM types WHERE id = $1", &[&1])
        .await
        .unwrap();
    assert_eq!(
        (row.get(1), row.get(2), row.get(3), row.get(4)),
        (text, bytes, 1.5_f64, true)
    );
    assert_eq!(
        (
            row.get::<_, Vec<i32>>(5),
            row.get::<_, std::time::SystemTime>(6)
        ),
        (array, now)
    );
    let row = client
        .query_one("SELECT * FROM types WHERE id = $1", &[&2])
        .await
        .unwrap();
    assert_eq!(row.get::<_, Option<&str>>(1), None);
    assert!(row.get::<_, f64>(3).is_nan());
}

#[tokio::test]
async fn a_sorted_merge_works_in_binary() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    let sql = "SELECT aid, name FROM accounts WHERE aid > $1 ORDER BY aid DESC LIMIT 5";
    let rows = client.query(sql, &[&10_i64]).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(),
        [50, 49, 48, 47, 46]
    );
    let rows = client
        .query(
            "SELECT aid FROM accounts WHERE aid = ANY ($1) ORDER BY aid",
            &[&vec![9_i64, 3, 5, 99]],
        )
        .await;
    assert_eq!(
        rows.unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect::<Vec<i64>>(),
        [3, 5, 9]
    );
}

#[tokio::test]
async fn a_multi_row_insert_with_parameters_is_split() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    let sql = "INSERT INTO accounts (name, aid, balance) VALUES ($1, $2, 1), ($3, $4, $5), ('c', $6, $5), ($1, 104, $5)";
    let count = client
        .execute(sql, &[&"a", &101_i64, &"b", &102_i64, &2, &103_i64])
        .await
        .unwrap();
    assert_eq!(count, 4);
    let rows = client
        .query(
            "SELECT name, balance FROM accounts WHERE aid > 100 ORDER BY aid",
            &[],
        )
        .await
        .unwrap();
    let rows: Vec<(String, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(
        rows,
        [
            ("a".into(), 1),
            ("b".into(), 2),
            ("c".into(), 2),
            ("a".into(), 2)
        ]
    );
}

#[tokio::test]
async fn a_driver_transaction_spans_shards() {
    let deployment = deployment();
    let mut client = connect(&deployment).await;
    let update = client
        .prepare("UPDATE accounts SET balance = balance + $2 WHERE aid = $1")
        .await
        .unwrap();
    let transaction = client.transaction().await.unwrap();
    for aid in 1..=10_i64 {
        assert_eq!(transaction.execute(&update, &[&aid, &1]).await.unwrap(), 1);
    }
    transaction.rollback().await.unwrap();
    let mut transaction = client.transaction().await.unwrap();
    for aid in 1..=10_i64 {
        transaction.execute(&update, &[&aid, &1]).await.unwrap();
    }
    let savepoint = transaction.savepoint("within").await.unwrap();
    assert_eq!(
        savepoint
            .execute(&update, &[&11_i64, &-1000])
            .await
            .unwrap_err()
            .code()
            .unwrap()
            .code(),
        "23514"
    );
    savepoint.rollback().await.unwrap();
    transaction.commit().await.unwrap();
    let rows = client
        .query(
            "SELECT balance FROM accounts WHERE aid <= 11 ORDER BY aid",
            &[],
        )
        .await
        .unwrap();
    let balances: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(balances, [11, 21, 31, 41, 51, 61, 71, 81, 91, 101, 110]);
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[tokio::test]
async fn a_portal_gives_its_rows_in_pieces() {
    let deployment = deployment();
    let mut client = connect(&deployment).await;
    client
        .batch_execute(
            "CREATE TABLE notes (id int); INSERT INTO notes SELECT generate_series(1, 10)",
        )
        .await
        .unwrap();
    let transaction = client.transaction().await.unwrap();
    let portal = transaction
        .bind("SELECT id FROM notes ORDER BY id", &[])
        .await
        .unwrap();
    for expected in [&[1, 2, 3, 4][..], &[5, 6, 7, 8], &[9, 10], &[]] {
        let rows = transaction.query_portal(&portal, 4).await.unwrap();
        assert_eq!(
            rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>(),
            expected
        );
    }
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_statement_survives_a_change_of_its_table() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    let statement = client
        .prepare("SELECT aid, name FROM accounts WHERE aid = $1")
        .await
        .unwrap();
    client.query_one(&statement, &[&1_i64]).await.unwrap();
    connect(&deployment)
        .await
        .batch_execute("ALTER TABLE accounts ADD COLUMN more int DEFAULT 1")
        .await
        .unwrap();
    for aid in 1..=8_i64 {
        assert_eq!(
            client
                .query_one(&statement, &[&aid])
                .await
                .unwrap()
                .get::<_, i64>(0),
            aid
        );
    }
}

#[tokio::test]
async fn a_new_statement_sees_the_table_as_it_is_now() {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings("[pool]\nsize = 1")
        .start();
    let sql = "SELECT * FROM accounts WHERE aid = 1";
    let first = connect(&deployment).await;
    first.query(sql, &[]).await.unwrap();
    first
        .batch_execute("ALTER TABLE accounts ADD COLUMN note text; CREATE SCHEMA other; CREATE TABLE other.accounts (aid int)")
        .await
        .unwrap();
    // The same text is prepared on the shards, for other columns.
    let second = connect(&deployment).await;
    let columns = second.prepare(sql).await.unwrap().columns().len();
    assert_eq!(columns, 4);
    second.query(sql, &[]).await.unwrap();
    let third = connect(&deployment).await;
    third
        .batch_execute("SET search_path = other")
        .await
        .unwrap();
    third.query(sql, &[]).await.unwrap();
}

#[tokio::test]
async fn copy_goes_both_ways() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    let sink = client
        .copy_in::<_, bytes::Bytes>("COPY accounts FROM STDIN")
        .await
        .unwrap();
    let rows: Vec<_> = (201..=260)
        .map(|aid| Ok(format!("{aid}\tcopied\t7\n").into()))
        .collect();
    let mut sink = std::pin::pin!(sink);
    let mut rows = futures_util::stream::iter(rows);
    futures_util::SinkExt::send_all(&mut sink, &mut rows)
        .await
        .unwrap();
    assert_eq!(sink.finish().await.unwrap(), 60);
    let stream = client.copy_out("COPY accounts TO STDOUT").await.unwrap();
    let bytes: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
    assert_eq!(
        bytes.concat().iter().filter(|byte| **byte == b'\n').count(),
        110
    );
}

#[tokio::test]
async fn a_query_can_be_cancelled_by_its_token() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    let token = client.cancel_token();
    let query = client.query(
        "SELECT pg_sleep(60) FROM accounts WHERE aid = $1",
        &[&7_i64],
    );
    let cancel = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(query, cancel);
    assert_eq!(outcome.unwrap_err().code().unwrap().code(), "57014");
    assert_eq!(
        client
            .query_one("SELECT 1", &[])
            .await
            .unwrap()
            .get::<_, i32>(0),
        1
    );
}

#[tokio::test]
async fn rows_stream_while_others_are_served() {
    let deployment = deployment();
    let (client, other) = (connect(&deployment).await, connect(&deployment).await);
    let parameters: [&i64; 0] = [];
    let sql = "SELECT a.aid, g FROM accounts a, generate_series(1, 2000) g";
    let stream = client.query_raw(sql, parameters).await.unwrap();
    let mut stream = std::pin::pin!(stream);
    let mut count = 0;
    while let Some(row) = stream.next().await {
        row.unwrap();
        count += 1;
        if count % 20_000 == 0 {
            other
                .query_one(
                    "SELECT name FROM accounts WHERE aid = $1",
                    &[&(count / 20_000_i64)],
                )
                .await
                .unwrap();
        }
    }
    assert_eq!(count, 100_000);
}

#[tokio::test]
async fn an_explained_statement_has_its_parameters() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    let explain = "EXPLAIN SELECT * FROM accounts WHERE aid = $1";
    let statement = client.prepare(explain).await.unwrap();
    assert_eq!(statement.params(), [Type::INT8]);
    assert_eq!(statement.columns()[0].name(), "QUERY PLAN");
    for aid in [3_i64, 7] {
        let home =
            deployment.shards_with(&format!("SELECT count(*) FROM accounts WHERE aid = {aid}"))[0];
        let rows = client.query(&statement, &[&aid]).await.unwrap();
        let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let shards = lines
            .iter()
            .filter(|line| line.starts_with("Shard "))
            .collect::<Vec<_>>();
        assert_eq!(shards, [&format!("Shard s{home}:")], "{lines:?}");
    }
    // Two rows, two shards, each with its own numbering of the parameters.
    let each = deployment.on_each_shard("SELECT min(aid) FROM accounts");
    let two = [&each[0], &each[1]].map(|aid| aid.parse::<i64>().unwrap());
    let rows = client
        .query(
            "EXPLAIN INSERT INTO accounts (aid, name) VALUES ($1, $3), ($2, $3)",
            &[&two[0], &two[1], &"x"],
        )
        .await
        .unwrap();
    assert_eq!(
        rows.iter()
            .filter(|row| row.get::<_, &str>(0).starts_with("Shard "))
            .count(),
        2
    );
    let json = client
        .prepare("EXPLAIN (FORMAT json) SELECT 1")
        .await
        .unwrap();
    assert_eq!(json.columns()[0].type_(), &Type::JSON);
}

#[tokio::test]
async fn a_routing_setting_is_shown_to_drivers() {
    let deployment = deployment();
    let client = connect(&deployment).await;
    client
        .batch_execute("SET pgring.shard = 's1'")
        .await
        .unwrap();
    let row = client.query_one("SHOW pgring.shard", &[]).await.unwrap();
    assert_eq!(
        (row.columns()[0].name(), row.get::<_, &str>(0)),
        ("pgring.shard", "s1")
    );
}

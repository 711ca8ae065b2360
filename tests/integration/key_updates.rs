//! UPDATE of the sharding key: rows move to the shard of their new key.

use crate::support::Deployment;

const SCHEMA: &str = "
    CREATE TABLE orders (id int, part int, note text DEFAULT 'none', twice int GENERATED ALWAYS AS (part * 2) STORED,
        number int GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (id, part));
    CREATE TABLE codes (code int PRIMARY KEY);
    CREATE TABLE coded (id int PRIMARY KEY, code int REFERENCES codes);
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE children (id int PRIMARY KEY REFERENCES parents ON UPDATE CASCADE);
    CREATE TABLE owned (id int PRIMARY KEY);
    ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
    CREATE POLICY all_rows ON owned USING (true)";

fn deployment() -> Deployment<'static> {
    let options = Deployment::shared().schema(SCHEMA).reference("codes");
    let sharded = ["orders", "coded", "parents", "children", "owned"];
    let options = sharded
        .iter()
        .fold(options, |options, table| options.sharded(table, "id"));
    options.start()
}

/// A row of each id in 1 to 40; two of them that are on different shards.
fn apart(deployment: &Deployment<'_>) -> (String, String) {
    let mut client = deployment.connect();
    for id in 1..=40 {
        client.run(&format!(
            "INSERT INTO orders (id, part, number) OVERRIDING SYSTEM VALUE VALUES ({id}, {id}, {id})"
        ));
    }
    let ids = deployment.on_each_shard("SELECT min(id) FROM orders");
    (ids[0].clone(), ids[1].clone())
}

fn shards_of(deployment: &Deployment<'_>, id: &str) -> Vec<usize> {
    deployment.shards_with(&format!("SELECT count(*) FROM orders WHERE id = {id}"))
}

#[test]
fn a_row_moves_whole_to_the_shard_of_its_new_key() {
    let deployment = deployment();
    let (source, target) = apart(&deployment);
    let to = shards_of(&deployment, &target);
    assert_ne!(shards_of(&deployment, &source), to);
    let mut client = deployment.connect();
    let update = format!(
        "UPDATE orders SET id = {target}, part = part + 1000, note = NULL WHERE id = {source} \
         RETURNING id, part, note IS NULL, twice, number"
    );
    let part = 1000 + source.parse::<i32>().unwrap();
    let row = [
        target.clone(),
        part.to_string(),
        "t".to_owned(),
        (2 * part).to_string(),
        source.clone(),
    ];
    assert_eq!(client.rows(&update)[0], row);
    assert_eq!(shards_of(&deployment, &source), [0; 0]);
    assert_eq!(shards_of(&deployment, &target), to);
    let rows = client.rows(&format!(
        "SELECT id, part, note IS NULL, twice, number FROM orders WHERE id = {target} ORDER BY part"
    ));
    assert_eq!(rows[1], row);
    assert_eq!(client.run(&update), "UPDATE 0");
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn parameters_give_the_new_key_too() {
    let deployment = deployment();
    let (source, target) = apart(&deployment);
    let mut client = deployment.connect();
    let sql = "UPDATE orders SET id = $2, part = 999 WHERE id = $1 RETURNING part";
    let values = [Some(source.as_str()), Some(target.as_str())];
    let reply = client.extended(sql, &values, true);
    assert!(reply.failure.is_none(), "{:?}", reply.failure);
    assert_eq!(reply.outcomes[0].tag.as_deref(), Some("UPDATE 1"));
    assert_eq!(shards_of(&deployment, &source), [0; 0]);
    client.run("PREPARE move AS UPDATE orders SET id = $1 WHERE id = $2");
    assert_eq!(
        client.run(&format!("EXECUTE move ({source}, {target})")),
        "UPDATE 2"
    );
    assert_eq!(shards_of(&deployment, &target), [0; 0]);
    assert_eq!(shards_of(&deployment, &source).len(), 1);
}

#[test]
fn a_move_is_a_part_of_its_block() {
    let deployment = deployment();
    let (source, target) = apart(&deployment);
    let before = shards_of(&deployment, &source);
    let update = format!("UPDATE orders SET id = {target}, part = 999 WHERE id = {source}");
    let mut client = deployment.connect();
    client.run("BEGIN");
    assert_eq!(client.run(&update), "UPDATE 1");
    let count = format!("SELECT count(*) FROM orders WHERE id = {target}");
    assert_eq!(client.value(&count), "2");
    client.run("ROLLBACK");
    assert_eq!(shards_of(&deployment, &source), before);
    client.run("BEGIN; SAVEPOINT a");
    client.run(&update);
    client.run("ROLLBACK TO a");
    assert_eq!(client.value(&count), "1");
    assert_eq!(client.run("COMMIT"), "COMMIT");
    assert_eq!(shards_of(&deployment, &source), before);
    // The key is taken where the row would go.
    let taken = format!("UPDATE orders SET id = {target}, part = {target} WHERE id = {source}");
    assert_eq!(client.fails(&taken).code(), "23505");
    assert_eq!(shards_of(&deployment, &source), before);
    assert_eq!(deployment.prepared(), [""; 0]);
}

#[test]
fn a_key_of_the_same_shard_passes() {
    let deployment = deployment();
    apart(&deployment);
    let ids = deployment
        .shard(0)
        .column("SELECT id FROM orders ORDER BY id LIMIT 2");
    // It would fire on a row that moves.
    for shard in 0..deployment.shards() {
        deployment.shard(shard).run(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER no BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION no()",
        );
    }
    let update = format!("UPDATE orders SET id = {} WHERE id = {}", ids[1], ids[0]);
    let mut client = deployment.connect();
    assert_eq!(client.run(&update), "UPDATE 1");
    assert_eq!(shards_of(&deployment, &ids[0]), [0; 0]);
}

#[test]
fn what_would_notice_a_move_is_refused() {
    let deployment = deployment();
    let (source, target) = apart(&deployment);
    let mut client = deployment.connect();
    client.run("INSERT INTO codes VALUES (7)");
    client.run(&format!("INSERT INTO coded VALUES ({source}, 7)"));
    let update = |table: &str| format!("UPDATE {table} SET id = {target} WHERE id = {source}");
    assert_eq!(client.run(&update("coded")), "UPDATE 1");
    for table in ["parents", "children", "owned"] {
        client.run(&format!(
            "INSERT INTO parents VALUES ({source}) ON CONFLICT (id) DO NOTHING"
        ));
        client.run(&format!(
            "INSERT INTO {table} VALUES ({source}) ON CONFLICT (id) DO NOTHING"
        ));
        let failure = client.fails(&update(table));
        assert_eq!(failure.refusal(), Some("key-update"), "{table}: {failure}");
    }
    client.run(
        "CREATE FUNCTION fine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER fine BEFORE INSERT ON coded FOR EACH ROW EXECUTE FUNCTION fine()",
    );
    let back = format!("UPDATE coded SET id = {source} WHERE id = {target}");
    assert_eq!(client.fails(&back).refusal(), Some("key-update"));
}

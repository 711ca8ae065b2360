//! What PostgreSQL does where the text shows no call: casts that users made, event triggers, defaults behind views.

use crate::support::{Client, Deployment};

#[track_caller]
fn refused(client: &mut Client, sql: &str, code: &str, names: &str) {
    let failure = client.fails(sql);
    assert_eq!(failure.refusal(), Some(code), "{sql}: {failure}");
    assert!(failure.message().contains(names), "{sql}: {failure}");
}

/// Runs `sql` on each shard, past the router, which is then started anew.
fn as_superuser(deployment: &mut Deployment<'_>, sql: &str) {
    for shard in 0..deployment.shards() {
        deployment.shard(shard).run(sql);
    }
    deployment.kill_and_restart();
}

const CASTS: &str = "
    CREATE TABLE codes (code text PRIMARY KEY, name text, n int);
    CREATE TABLE orders (id int PRIMARY KEY, note text);
    CREATE TYPE label AS (t text);
    CREATE TYPE box2 AS (held label[]);
    CREATE TABLE labels (id int PRIMARY KEY, l label);
    CREATE TABLE boxes (id int PRIMARY KEY, b box2);
    CREATE TABLE plain (id int PRIMARY KEY, note text, CHECK (note <> 'a.b'));
    CREATE FUNCTION labelled(text) RETURNS label LANGUAGE sql AS 'SELECT row(name)::label FROM orders, codes LIMIT 1';
    CREATE FUNCTION spelled(label) RETURNS text LANGUAGE sql IMMUTABLE AS
        'SELECT pg_try_advisory_lock(7); SELECT ($1).t';
    CREATE CAST (text AS label) WITH FUNCTION labelled(text) AS ASSIGNMENT;
    CREATE CAST (label AS text) WITH FUNCTION spelled(label) AS IMPLICIT;
    CREATE FUNCTION plain_text(label) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
    CREATE VIEW spelled_out AS SELECT upper(l) AS u FROM labels";

fn with_casts() -> Deployment<'static> {
    Deployment::shared()
        .schema(CASTS)
        .sharded("orders", "id")
        .sharded("boxes", "id")
        .reference("codes")
        .start()
}

#[test]
fn casts_that_postgresql_applies_by_itself_are_judged_as_calls() {
    let deployment = with_casts();
    let mut client = deployment.connect();
    for (sql, code, cast) in [
        (
            "SELECT upper(l) FROM labels",
            "session-state",
            "the cast from public.label to text",
        ),
        (
            "SELECT u FROM spelled_out",
            "session-state",
            "the cast to text",
        ),
        (
            "SELECT plain_text('(a)')",
            "session-state",
            "the cast from public.label to text",
        ),
        (
            "INSERT INTO labels SELECT 1, note FROM plain",
            "procedural-function",
            "the cast from text to public.label",
        ),
        (
            "UPDATE labels SET l = (SELECT note FROM plain)",
            "procedural-function",
            "the cast from text to public.label",
        ),
        (
            "SELECT * FROM boxes WHERE id = 1",
            "session-state",
            "the cast from public.label to text",
        ),
        (
            "COPY labels FROM STDIN",
            "procedural-function",
            "the cast from text to public.label",
        ),
        (
            "ALTER TABLE plain ALTER COLUMN note TYPE label",
            "procedural-function",
            "the cast from text to public.label",
        ),
    ] {
        refused(&mut client, sql, code, cast);
    }
    // What has nothing to do with the types passes.
    client.run("INSERT INTO codes VALUES ('a', 'one', 1)");
    client.run("INSERT INTO orders VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    client.run("INSERT INTO plain VALUES (1, 'x')");
    client.run("UPDATE codes SET name = lower(name) || n WHERE code = 'a'");
    assert_eq!(client.value("SELECT count(*) FROM orders"), "3");
    client.run("ALTER TABLE plain ALTER COLUMN note SET NOT NULL");
    // Once they are harmless, or gone, so is what they stood in the way of.
    client.run("CREATE OR REPLACE FUNCTION spelled(label) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ($1).t'");
    client.run("DROP CAST (text AS label)");
    client.run("INSERT INTO labels VALUES (1, '(x)')");
    assert_eq!(client.value("SELECT upper(l) FROM labels"), "X");
    assert_eq!(client.value("SELECT u FROM spelled_out"), "X");
}

#[test]
fn a_cast_that_a_block_made_counts_in_it() {
    let deployment = with_casts();
    let mut client = deployment.connect();
    client.run("DROP CAST (text AS label); DROP CAST (label AS text)");
    client.run("INSERT INTO labels VALUES (1, '(x)')");
    client.run("BEGIN");
    client.run("CREATE CAST (label AS text) WITH FUNCTION spelled(label) AS IMPLICIT");
    refused(
        &mut client,
        "SELECT upper(l) FROM labels",
        "session-state",
        "the cast from public.label to text",
    );
    client.run("ROLLBACK");
    client.run("SELECT l FROM labels");
    client.run("BEGIN");
    client.run("CREATE DOMAIN short AS text CHECK (length(VALUE) < 9)");
    client.run("ALTER TABLE plain ADD COLUMN s short");
    client.run("UPDATE plain SET s = 'x'");
    client.run("COMMIT");
}

#[test]
fn a_cast_between_types_of_postgresql_counts_anywhere() {
    let mut deployment = Deployment::shared()
        .schema(
            "CREATE TABLE codes (code text PRIMARY KEY, at timestamptz);
             CREATE TABLE orders (id int PRIMARY KEY, note text, at timestamptz)",
        )
        .sharded("orders", "id")
        .reference("codes")
        .start();
    as_superuser(
        &mut deployment,
        "CREATE CAST (text AS timestamptz) WITH INOUT AS ASSIGNMENT",
    );
    let mut client = deployment.connect();
    let cast = "the cast from text to timestamp with time zone";
    refused(
        &mut client,
        "UPDATE codes SET at = code",
        "reference-write-differs",
        cast,
    );
    refused(
        &mut client,
        "UPDATE orders SET at = note",
        "volatile-function",
        cast,
    );
    client.run("INSERT INTO orders VALUES (1, 'now', NULL)");
    client.run("UPDATE orders SET at = note WHERE id = 1");
    assert_eq!(
        client.value("SELECT count(*) FROM orders WHERE at IS NOT NULL"),
        "1"
    );
}

#[test]
fn event_triggers_that_do_more_than_look_stand_in_the_way_of_ddl_on_every_shard() {
    let mut deployment = Deployment::shared()
        .schema(
            "CREATE TABLE codes (code text PRIMARY KEY);
             CREATE TABLE log (what text);
             CREATE FUNCTION looks() RETURNS event_trigger LANGUAGE plpgsql AS $$
                DECLARE r record;
                BEGIN
                  FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
                    IF r.object_identity LIKE '%forbidden%' THEN RAISE EXCEPTION 'no % here', r.object_identity; END IF;
                  END LOOP;
                END$$;
             CREATE FUNCTION notes() RETURNS event_trigger LANGUAGE plpgsql AS
                $$BEGIN INSERT INTO log VALUES (tg_tag); END$$",
        )
        .reference("codes")
        .start();
    as_superuser(
        &mut deployment,
        "CREATE EVENT TRIGGER looks ON ddl_command_end EXECUTE FUNCTION looks();
         CREATE EVENT TRIGGER notes ON ddl_command_end WHEN TAG IN ('CREATE VIEW', 'ALTER TABLE')
            EXECUTE FUNCTION notes()",
    );
    let mut client = deployment.connect();
    client.run("CREATE TABLE plain (id int)");
    assert_eq!(
        client.fails("CREATE TABLE forbidden (id int)").code(),
        "P0001"
    );
    for sql in [
        "CREATE VIEW v AS SELECT 1",
        "ALTER TABLE codes ADD COLUMN n int",
    ] {
        refused(
            &mut client,
            sql,
            "event-trigger",
            "the event trigger notes does more than look",
        );
    }
    client.run("/* pgring: shard=s0 */ CREATE VIEW w AS SELECT 1");
    assert_eq!(client.value("SELECT count(*) FROM log"), "1");
    drop(client);
    as_superuser(&mut deployment, "ALTER EVENT TRIGGER notes DISABLE");
    let mut client = deployment.connect();
    client.run("CREATE VIEW v AS SELECT 1");
    assert_eq!(client.value("SELECT count(*) FROM log"), "1");
}

#[test]
fn defaults_behind_views_and_beside_sequences_are_seen() {
    let deployment = Deployment::shared()
        .schema(
            "CREATE TABLE codes (code text PRIMARY KEY, at timestamptz DEFAULT now(), n float DEFAULT random());
             CREATE TABLE counted (id serial PRIMARY KEY, name text);
             CREATE TABLE orders (id int PRIMARY KEY, note text);
             CREATE TABLE plain (id int, note text);
             CREATE SEQUENCE s;
             CREATE VIEW all_codes AS SELECT code, at, n FROM codes;
             CREATE VIEW names AS SELECT code FROM codes;
             CREATE VIEW swapped AS SELECT code, at AS n, n AS at FROM codes;
             CREATE VIEW own AS SELECT code, at, n FROM codes;
             ALTER VIEW own ALTER COLUMN n SET DEFAULT 1;
             CREATE VIEW counted_names AS SELECT name FROM counted;
             CREATE FUNCTION dynamic() RETURNS int LANGUAGE plpgsql AS
                $$BEGIN EXECUTE 'SET work_mem = ''77kB'''; RETURN 1; END$$;
             CREATE FUNCTION counts() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM orders';
             CREATE FUNCTION copies() RETURNS int LANGUAGE sql AS 'INSERT INTO codes VALUES (''x''); SELECT 1';
             CREATE FUNCTION next_id() RETURNS bigint LANGUAGE sql AS 'SELECT coalesce(max(id), 0) + 1 FROM plain';
             CREATE TABLE beside (id int, n text DEFAULT nextval('s') || set_config('work_mem', '77kB', false));
             CREATE TABLE random_beside (id int, n float DEFAULT nextval('s') + random());
             CREATE TABLE dynamic_default (id int, n int DEFAULT dynamic());
             CREATE TABLE counting_default (id int, n bigint DEFAULT counts());
             CREATE TABLE copying_default (id int, n bigint DEFAULT copies());
             CREATE TABLE local_default (id bigint DEFAULT next_id(), n int);
             CREATE VIEW dynamic_view AS SELECT id FROM dynamic_default",
        )
        .reference("codes")
        .reference("counted")
        .sharded("orders", "id")
        .start();
    let mut client = deployment.connect();
    for (sql, code, names) in [
        (
            "INSERT INTO names VALUES ('a')",
            "reference-write-differs",
            "codes.at is left",
        ),
        (
            "INSERT INTO all_codes (code, at) VALUES ('a', NULL)",
            "reference-write-differs",
            "codes.n is left",
        ),
        (
            "INSERT INTO all_codes VALUES ('a', NULL, DEFAULT)",
            "reference-write-differs",
            "codes.n is left",
        ),
        (
            "INSERT INTO swapped (code, n, at) VALUES ('a', NULL, 1)",
            "reference-write-differs",
            "is left",
        ),
        (
            "UPDATE all_codes SET at = DEFAULT",
            "reference-write-differs",
            "codes.at is left",
        ),
        (
            "INSERT INTO counted_names VALUES ('a')",
            "sequence-default",
            "counted.id is left",
        ),
        (
            "INSERT INTO beside (id) VALUES (1)",
            "session-state",
            "beside.n is left",
        ),
        (
            "INSERT INTO dynamic_default (id) VALUES (1)",
            "procedural-function",
            "is left",
        ),
        (
            "INSERT INTO dynamic_view (id) VALUES (1)",
            "procedural-function",
            "is left",
        ),
        (
            "INSERT INTO counting_default (id) VALUES (1)",
            "procedural-function",
            "is left",
        ),
        (
            "INSERT INTO copying_default (id) VALUES (1)",
            "procedural-function",
            "is left",
        ),
        (
            "COPY dynamic_default (id) FROM STDIN",
            "procedural-function",
            "is left",
        ),
    ] {
        refused(&mut client, sql, code, names);
    }
    client.run("INSERT INTO all_codes VALUES ('a', NULL, 1)");
    client.run("INSERT INTO all_codes (n, at, code) VALUES (1, '2024-01-01', 'b')");
    client.run("UPDATE all_codes SET n = 2 WHERE code = 'a'");
    assert_eq!(
        deployment.on_each_shard("SELECT sum(n) FROM codes"),
        ["3"; 4]
    );
    client.run("INSERT INTO random_beside (id) VALUES (1)");
    client.run("INSERT INTO local_default (n) VALUES (1)");
    assert_eq!(client.value("SELECT id FROM local_default"), "1");
}

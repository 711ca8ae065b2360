//! What hangs on tables, as PostgreSQL's catalogs tell it: triggers, rules, policies, checks, views' functions, unique
//! constraints, operators. How each is judged is in `tests/plans/attached.txt`.

use crate::support::{Client, Deployment};

const SCHEMA: &str = r#"
    CREATE TABLE orders (id bigint, customer bigint, note text, changed timestamptz, PRIMARY KEY (customer, id));
    CREATE TABLE codes (code text PRIMARY KEY, name text);
    CREATE TABLE log (what text, at timestamptz DEFAULT now());
    CREATE TABLE pairs (id int PRIMARY KEY, note text)
"#;

fn deployment(more: &str) -> Deployment<'static> {
    Deployment::shared()
        .schema(SCHEMA)
        .schema(more)
        .sharded("orders", "customer")
        .sharded("parts", "customer")
        .sharded("children", "customer")
        .sharded("mails", "id")
        .reference("codes")
        .reference("cities")
        .reference("members")
        .start()
}

#[track_caller]
fn refused(client: &mut Client, sql: &str, code: &str) {
    let failure = client.fails(sql);
    assert_eq!(failure.refusal(), Some(code), "{sql}: {failure}");
}

#[test]
fn a_trigger_that_writes_elsewhere_is_refused_and_one_that_tells_the_time_is_not() {
    let deployment = deployment(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN NEW.changed = now(); RETURN NEW; END';
         CREATE TRIGGER touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE FUNCTION track() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO log (what) VALUES (TG_OP); RETURN NULL; END';
         CREATE TRIGGER track AFTER DELETE ON orders FOR EACH ROW WHEN (old.note = ') EXECUTE FUNCTION') EXECUTE FUNCTION track();
         CREATE TRIGGER track AFTER INSERT ON pairs FOR EACH ROW EXECUTE FUNCTION track()",
    );
    let mut client = deployment.connect();
    client.run("INSERT INTO orders VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c'), (4, 4, 'd')");
    assert_eq!(
        client.run("UPDATE orders SET note = 'x' WHERE customer = 1"),
        "UPDATE 1"
    );
    assert_eq!(
        client.value("SELECT changed IS NOT NULL FROM orders WHERE customer = 1"),
        "t"
    );
    refused(&mut client, "UPDATE orders SET note = 'x'", "trigger");
    refused(
        &mut client,
        "DELETE FROM orders WHERE customer = 1",
        "trigger",
    );
    // A local table's trigger may write to local tables.
    client.run("INSERT INTO pairs VALUES (1, 'x')");
    assert_eq!(client.value("SELECT count(*) FROM log"), "1");
    // By hint, and once it is disabled.
    client.run("ALTER TABLE orders DISABLE TRIGGER track");
    client.run("DELETE FROM orders WHERE customer = 1");
    client.run("ALTER TABLE orders ENABLE TRIGGER track");
    refused(&mut client, "DELETE FROM orders", "trigger");
    client.run("/* pgring: key=2 table=orders */ DELETE FROM orders WHERE customer = 2");
    assert_eq!(
        client.value("SELECT count(*) FROM orders WHERE customer = 2"),
        "0"
    );
    // The function's new body counts.
    client.run(
        "CREATE OR REPLACE FUNCTION track() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    );
    client.run("DELETE FROM orders");
    assert_eq!(client.value("SELECT count(*) FROM log"), "1");
}

#[test]
fn triggers_of_partitions_and_by_foreign_keys_count() {
    let deployment = deployment(
        "CREATE TABLE parts (id bigint, customer bigint, PRIMARY KEY (customer, id)) PARTITION BY RANGE (id);
         CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
         CREATE TABLE children (customer bigint, id bigint, FOREIGN KEY (customer, id) REFERENCES orders ON DELETE CASCADE);
         CREATE FUNCTION track() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO log (what) VALUES (TG_OP); RETURN NULL; END';
         CREATE TRIGGER track AFTER INSERT ON parts_low FOR EACH ROW EXECUTE FUNCTION track();
         CREATE TRIGGER track AFTER DELETE ON children FOR EACH STATEMENT EXECUTE FUNCTION track()",
    );
    let mut client = deployment.connect();
    refused(&mut client, "INSERT INTO parts VALUES (1, 1)", "trigger");
    refused(
        &mut client,
        "UPDATE parts SET id = 1 WHERE customer = 1",
        "trigger",
    );
    client.run("DELETE FROM parts WHERE customer = 1");
    client.run("INSERT INTO orders VALUES (1, 1), (2, 2), (3, 3)");
    refused(
        &mut client,
        "DELETE FROM orders WHERE customer = 1",
        "trigger",
    );
    client.run("UPDATE orders SET note = 'x' WHERE customer = 1");
}

#[test]
fn what_partitions_and_foreign_keys_evaluate_counts() {
    let deployment = deployment(
        "CREATE FUNCTION known(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
            'BEGIN RETURN EXISTS (SELECT 1 FROM log WHERE what = $1); END';
         CREATE TABLE parts (id bigint, customer bigint, note text, PRIMARY KEY (customer, id)) PARTITION BY RANGE (id);
         CREATE TABLE parts_low PARTITION OF parts (CHECK (known(note))) FOR VALUES FROM (0) TO (100);
         ALTER TABLE codes ADD UNIQUE (name);
         CREATE SEQUENCE lots;
         CREATE TABLE cities (code text PRIMARY KEY, country text REFERENCES codes ON DELETE SET DEFAULT DEFAULT 'xx',
            named text DEFAULT 'n' || nextval('lots') REFERENCES codes (name) ON UPDATE SET DEFAULT);
         CREATE TABLE members (name text PRIMARY KEY,
            team text DEFAULT random()::text REFERENCES cities ON DELETE SET DEFAULT ON UPDATE SET NULL)",
    );
    let mut client = deployment.connect();
    refused(
        &mut client,
        "INSERT INTO parts VALUES (1, 1, 'x')",
        "procedural-function",
    );
    client.run("INSERT INTO codes VALUES ('xx', 'x'), ('yy', 'y')");
    client.run("INSERT INTO cities VALUES ('a', 'yy', 'x'); INSERT INTO members VALUES ('m', 'a')");
    client.run("DELETE FROM codes WHERE code = 'yy'");
    assert_eq!(client.value("SELECT country FROM cities"), "xx");
    client.run("UPDATE cities SET code = 'b'");
    refused(
        &mut client,
        "UPDATE codes SET name = 'z'",
        "reference-write-differs",
    );
    refused(&mut client, "DELETE FROM cities", "reference-write-differs");
    // By way of the cities that go with it.
    client.run(
        "ALTER TABLE cities ADD FOREIGN KEY (named) REFERENCES codes (name) ON DELETE CASCADE",
    );
    refused(&mut client, "DELETE FROM codes", "reference-write-differs");
}

#[test]
fn a_column_that_is_added_has_its_domains_default() {
    let deployment = deployment(
        "CREATE DOMAIN lot AS float8 DEFAULT random(); CREATE DOMAIN some_lot AS lot CHECK (VALUE < 2);
         CREATE DOMAIN kind AS text DEFAULT 'new'",
    );
    let mut client = deployment.connect();
    client.run("INSERT INTO codes VALUES ('xx', 'x')");
    for domain in ["lot", "public.lot NOT NULL", "\"some_lot\""] {
        refused(
            &mut client,
            &format!("ALTER TABLE codes ADD COLUMN more {domain}"),
            "volatile-function",
        );
    }
    client.run("ALTER TABLE codes ADD COLUMN more lot DEFAULT 0.5, ADD state kind");
    assert_eq!(client.value("SELECT more || state FROM codes"), "0.5new");
    client.run("BEGIN; CREATE DOMAIN other AS float8 DEFAULT random()");
    let failure = client.fails("ALTER TABLE codes ADD COLUMN other other");
    assert!(failure.refusal().is_some(), "{failure}");
    client.run("ROLLBACK");
}

#[test]
fn unique_constraints_without_the_key_refuse_what_they_would_have_to_see() {
    let deployment = deployment(
        "CREATE TABLE mails (id int PRIMARY KEY, email text CONSTRAINT mails_email UNIQUE, note text);
         CREATE UNIQUE INDEX orders_note ON orders (lower(note)) WHERE note <> ''",
    );
    let mut client = deployment.connect();
    for sql in [
        "INSERT INTO mails VALUES (1, 'a')",
        "COPY mails FROM STDIN",
        "UPDATE mails SET email = 'b' WHERE id = 1",
    ] {
        refused(&mut client, sql, "unique-without-key");
    }
    client.run("UPDATE mails SET note = 'b' WHERE id = 1");
    refused(
        &mut client,
        "UPDATE orders SET changed = NULL WHERE customer = 1",
        "unique-without-key",
    );
    client.run("DROP INDEX orders_note");
    client.run("INSERT INTO orders VALUES (1, 1) ON CONFLICT ON CONSTRAINT orders_pkey DO NOTHING");
    client.run("INSERT INTO orders VALUES (1, 1) ON CONFLICT DO NOTHING");
    refused(
        &mut client,
        "INSERT INTO orders VALUES (1, 1) ON CONFLICT ON CONSTRAINT other DO NOTHING",
        "on-conflict",
    );
}

#[test]
fn policies_rules_checks_and_views_are_looked_at() {
    let deployment = deployment(
        "CREATE TABLE mails (id int PRIMARY KEY, owner text, email text);
         CREATE FUNCTION seen(text) RETURNS bool STABLE LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM mails WHERE email = $1)';
         ALTER TABLE orders ADD CONSTRAINT seen CHECK (seen(note));
         CREATE RULE twice AS ON INSERT TO codes DO ALSO INSERT INTO log VALUES (new.code);
         CREATE VIEW mailed AS SELECT seen('x');
         CREATE POLICY own ON mails USING (owner = current_user AND id > current_setting('app.least')::int);
         ALTER TABLE mails ENABLE ROW LEVEL SECURITY",
    );
    let mut client = deployment.connect();
    refused(
        &mut client,
        "INSERT INTO orders VALUES (1, 1, 'x')",
        "procedural-function",
    );
    refused(&mut client, "INSERT INTO codes VALUES ('a', 'b')", "rule");
    refused(&mut client, "SELECT * FROM mailed", "procedural-function");
    client.run("SELECT set_config('app.least', '0', false)");
    assert_eq!(client.rows("SELECT * FROM mails"), [[""; 0]; 0]);
    client.run(
        "CREATE POLICY ordered ON mails USING (EXISTS (SELECT FROM orders WHERE note = owner))",
    );
    refused(
        &mut client,
        "SELECT * FROM mails WHERE id = 1",
        "row-security",
    );
    client.run("ALTER TABLE mails DISABLE ROW LEVEL SECURITY");
    client.run("SELECT * FROM mails WHERE id = 1");
}

#[test]
fn operators_casts_and_aggregates_are_what_their_functions_are() {
    let deployment = deployment(
        "CREATE FUNCTION same(text, text) RETURNS bool STABLE LANGUAGE sql AS 'SELECT count(*) > 0 FROM orders';
         CREATE OPERATOR <-> (LEFTARG = text, RIGHTARG = text, FUNCTION = same);
         CREATE TYPE pair AS (a int, b int);
         CREATE FUNCTION paired(int) RETURNS pair STABLE LANGUAGE sql AS 'SELECT $1, count(*)::int FROM orders';
         CREATE CAST (int AS pair) WITH FUNCTION paired(int);
         CREATE FUNCTION counted(int, text) RETURNS int STABLE LANGUAGE sql AS 'SELECT count(*)::int FROM orders';
         CREATE AGGREGATE counts(text) (SFUNC = counted, STYPE = int, INITCOND = '0');
         CREATE AGGREGATE adds(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')",
    );
    let mut client = deployment.connect();
    for sql in [
        "SELECT 'a'::text <-> 'b'",
        "SELECT 1::pair",
        "SELECT CAST(1 AS pair)",
        "SELECT counts(code) FROM codes",
    ] {
        refused(&mut client, sql, "procedural-function");
    }
    assert_eq!(
        client.value("SELECT adds(n) FROM (VALUES (1), (2)) v(n)"),
        "3"
    );
}

#[test]
fn what_a_block_changed_is_not_planned_by_what_was_loaded() {
    let deployment = deployment(
        "CREATE TABLE parts (id bigint, customer bigint, PRIMARY KEY (customer, id)) PARTITION BY RANGE (id);
         CREATE TABLE mails (id int PRIMARY KEY, email text);
         CREATE FUNCTION counted() RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT 1::bigint'",
    );
    let mut client = deployment.connect();
    client.run("INSERT INTO mails VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')");
    // Another type of the key: rows would be looked for where its values hashed before.
    client.run("BEGIN");
    client.run("DROP TABLE mails");
    client.run("CREATE TABLE mails (id text PRIMARY KEY, email text)");
    client.run("INSERT INTO mails VALUES ('1', 'a'), ('2', 'b'), ('3', 'c')");
    for id in 1..=3 {
        let found = format!("SELECT count(*) FROM mails WHERE id = '{id}'");
        assert_eq!(client.value(&found), "1");
    }
    client.run("ROLLBACK");
    client.run("BEGIN; DROP TABLE mails; CREATE TABLE mails (id text PRIMARY KEY, email text)");
    let reply = client.copy_in("COPY mails FROM STDIN", b"1\ta\n7\tb\n", 10);
    assert!(reply.failure.is_none(), "{:?}", reply.failure);
    for id in [1, 7] {
        let found = format!("SELECT count(*) FROM mails WHERE id = '{id}'");
        assert_eq!(client.value(&found), "1");
    }
    client.run("ROLLBACK");
    assert_eq!(client.value("SELECT email FROM mails WHERE id = 1"), "a");
    client.run(
        "BEGIN; DROP TABLE mails; CREATE TABLE mails (id text PRIMARY KEY, email text); COMMIT",
    );
    client.run("INSERT INTO mails VALUES ('1', 'a'), ('2', 'b'), ('3', 'c'), ('4', 'd')");
    for id in 1..=4 {
        let found = format!("SELECT count(*) FROM mails WHERE id = '{id}'");
        assert_eq!(client.value(&found), "1");
    }
    // Without its key, or in a statement prepared before.
    refused(
        &mut client,
        "CREATE TABLE children (id bigint)",
        "placement-change",
    );
    client.run("BEGIN");
    let select = "SELECT email FROM mails WHERE id = $1";
    assert!(
        client
            .extended(select, &[Some("1")], false)
            .failure
            .is_none()
    );
    client.run("ALTER TABLE mails ADD COLUMN note text");
    let reply = client.extended(select, &[Some("1")], false);
    assert_eq!(reply.outcomes[0].rows.len(), 1, "{:?}", reply.failure);
    client.run("ROLLBACK");
    assert!(
        client
            .extended(select, &[Some("1")], false)
            .failure
            .is_none()
    );
    // Parts, views and functions that were made a moment ago.
    for (make, sql, code) in [
        (
            "CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100)",
            "INSERT INTO parts_low VALUES (1, 1 + 1)",
            "key-value",
        ),
        (
            "CREATE VIEW all_mails AS SELECT * FROM mails",
            "UPDATE all_mails SET email = 'x'",
            "view",
        ),
        (
            "CREATE FUNCTION made() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM mails'",
            "SELECT made()",
            "procedural-function",
        ),
        (
            "CREATE OR REPLACE FUNCTION counted() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM mails'",
            "SELECT counted()",
            "procedural-function",
        ),
        (
            "CREATE RULE twice AS ON DELETE TO mails DO INSTEAD NOTHING",
            "DELETE FROM mails",
            "rule",
        ),
    ] {
        client.run("BEGIN");
        client.run(make);
        refused(&mut client, sql, code);
        client.run("ROLLBACK");
    }
    // A local table is where it is looked for.
    client.run("BEGIN");
    client.run("CREATE TABLE plain (id int)");
    client.run("ALTER TABLE plain ADD COLUMN note text");
    client.run("INSERT INTO plain VALUES (1, 'x')");
    client.run("COMMIT");
    assert_eq!(client.value("SELECT note FROM plain"), "x");
}

#[test]
fn constraints_between_rows_of_several_shards_are_refused() {
    let mut deployment = deployment(
        "CREATE TABLE mails (id int PRIMARY KEY, owner int CONSTRAINT mails_owner REFERENCES pairs)",
    );
    let mut client = deployment.connect();
    for (sql, code) in [
        ("CREATE UNIQUE INDEX i ON orders (id)", "unique-without-key"),
        ("ALTER TABLE orders ADD UNIQUE (id)", "unique-without-key"),
        (
            "CREATE TABLE parts (customer int, id int PRIMARY KEY)",
            "unique-without-key",
        ),
        (
            "CREATE TABLE parts (customer int, owner int REFERENCES mails)",
            "foreign-key",
        ),
        (
            "ALTER TABLE codes ADD FOREIGN KEY (name) REFERENCES pairs",
            "foreign-key",
        ),
        (
            "ALTER TABLE pairs ADD FOREIGN KEY (id) REFERENCES mails",
            "foreign-key",
        ),
    ] {
        refused(&mut client, sql, code);
    }
    // In one block, before the schema is loaded.
    client.run(
        "BEGIN;
         CREATE TABLE parts (customer int PRIMARY KEY REFERENCES mails, code text REFERENCES codes);
         CREATE TABLE children (customer int REFERENCES parts ON DELETE CASCADE, id int, PRIMARY KEY (customer, id));
         COMMIT",
    );
    let log = deployment.router().log();
    let warnings =
        log.matches("the foreign key mails_owner of public.mails references a local table");
    assert_eq!(warnings.count(), 1, "{log}");
}

/// Functions that leave something behind on a connection of the pool, said to be harmless.
const LEAVING: &str = "
    CREATE SEQUENCE counter;
    CREATE FUNCTION locks(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT pg_advisory_lock($1); SELECT $1';
    CREATE FUNCTION sets(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        $$BEGIN PERFORM set_config('work_mem', '77kB', false); RETURN $1; END$$;
    CREATE FUNCTION through(int) RETURNS int LANGUAGE sql STABLE RETURN public.sets($1);
    CREATE FUNCTION steps(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT nextval(''counter'')::int';
    CREATE FUNCTION reads(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT count(*)::int FROM orders WHERE id = $1';
    CREATE FUNCTION shows(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT name FROM codes WHERE code = $1';
    CREATE FUNCTION runs(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        $$DECLARE r int; BEGIN EXECUTE 'SELECT ' || $1 INTO r; RETURN r; END$$;
    CREATE FUNCTION always(int) RETURNS int LANGUAGE plpgsql AS
        $$BEGIN SET work_mem = '77kB'; RETURN $1; END$$;
    CREATE FUNCTION triple(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 * 3; END';
    CREATE FUNCTION sixfold(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT triple($1) * 2';
    CREATE FUNCTION factorial_of(int) RETURNS int LANGUAGE sql IMMUTABLE AS
        'SELECT CASE WHEN $1 < 2 THEN 1 ELSE $1 * factorial_of($1 - 1) END';
    CREATE FUNCTION added(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
    CREATE FUNCTION locked(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT locks($1) + $2';
    CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, FUNCTION = added);
    CREATE OPERATOR <#> (LEFTARG = int, RIGHTARG = int, FUNCTION = locked);
    CREATE TYPE boxed AS (i int);
    CREATE FUNCTION boxed(int) RETURNS boxed LANGUAGE sql IMMUTABLE AS 'SELECT row(locks($1))::boxed';
    CREATE CAST (int AS boxed) WITH FUNCTION boxed(int);
    CREATE DOMAIN locking AS int CHECK (locks(VALUE) > 0);
    CREATE TABLE plain (id serial PRIMARY KEY, token uuid DEFAULT gen_random_uuid(), at timestamptz DEFAULT now(), n int,
        twice int GENERATED ALWAYS AS (sixfold(n)) STORED, CHECK (sixfold(n) > -100));
    CREATE TABLE defaulted (id int PRIMARY KEY, n int DEFAULT always(1));
    CREATE TABLE set_by_default (id int PRIMARY KEY, n text DEFAULT set_config('work_mem', '77kB', false));
    CREATE TABLE locked_by_default (id int PRIMARY KEY, n text DEFAULT pg_advisory_lock(7)::text);
    CREATE TABLE checked (id int PRIMARY KEY, CHECK (pg_try_advisory_lock(id)));
    CREATE TABLE generated (id int PRIMARY KEY, n int GENERATED ALWAYS AS (sets(id)) STORED);
    CREATE TABLE indexed (id int PRIMARY KEY);
    CREATE INDEX ON indexed (locks(id));
    CREATE TABLE partly (id int PRIMARY KEY);
    CREATE INDEX ON partly (id) WHERE sets(id) > 0;
    CREATE TABLE held (id int PRIMARY KEY, n locking);
    CREATE MATERIALIZED VIEW kept AS SELECT id, pg_try_advisory_lock(id) FROM plain WITH NO DATA;
    CREATE VIEW lock_view AS SELECT id, pg_try_advisory_lock(id) FROM plain;
    CREATE VIEW set_view AS SELECT id, sets(id) FROM plain";

#[test]
fn what_functions_are_said_to_be_does_not_hide_what_they_leave_on_a_connection() {
    let deployment = deployment(LEAVING);
    let mut client = deployment.connect();
    let mut second = deployment.connect();
    // What is usual passes.
    for sql in [
        "INSERT INTO plain (n) VALUES (1), (2)",
        "INSERT INTO plain DEFAULT VALUES",
        "INSERT INTO orders VALUES (sixfold(1), 1, 'x')",
        "INSERT INTO codes VALUES ('a', 'one')",
        "UPDATE plain SET n = triple(n) + factorial_of(3) ### 2",
        "SELECT sixfold(1), factorial_of(4), shows('a')",
        "SELECT * FROM orders WHERE id = triple(1)",
        "SELECT * FROM orders WHERE note = shows('a')",
        "SELECT count(*) FROM plain WHERE twice > 0",
    ] {
        client.run(sql);
    }
    let usual = client.value("SHOW work_mem");
    for (sql, code) in [
        ("SELECT locks(1)", "session-state"),
        ("SELECT sets(1)", "session-state"),
        ("SELECT through(1)", "session-state"),
        ("SELECT always(1)", "session-state"),
        ("SELECT * FROM orders WHERE id = locks(1)", "session-state"),
        (
            "SELECT * FROM orders WHERE customer = 1 AND sets(1) = 1",
            "session-state",
        ),
        ("SELECT reads(1)", "procedural-function"),
        ("SELECT runs(1)", "procedural-function"),
        ("SELECT steps(1) FROM orders", "designated-function"),
        ("SELECT 1 <#> 2", "session-state"),
        ("SELECT 1::boxed", "session-state"),
        ("SELECT 1::locking", "session-state"),
        ("SELECT ARRAY[1]::locking[]", "session-state"),
        ("INSERT INTO defaulted (id) VALUES (1)", "session-state"),
        ("INSERT INTO defaulted VALUES (1, DEFAULT)", "session-state"),
        (
            "INSERT INTO set_by_default (id) VALUES (1)",
            "session-state",
        ),
        (
            "INSERT INTO locked_by_default (id) SELECT 1",
            "session-state",
        ),
        ("UPDATE locked_by_default SET n = DEFAULT", "session-state"),
        ("COPY locked_by_default (id) FROM STDIN", "session-state"),
        ("INSERT INTO checked VALUES (1)", "session-state"),
        ("INSERT INTO generated (id) VALUES (1)", "session-state"),
        ("INSERT INTO indexed VALUES (1)", "session-state"),
        ("INSERT INTO partly VALUES (1)", "session-state"),
        ("COPY partly FROM STDIN", "session-state"),
        ("INSERT INTO held VALUES (1, 1)", "session-state"),
        ("SELECT * FROM lock_view", "session-state"),
        ("SELECT count(*) FROM set_view", "session-state"),
        ("COPY lock_view TO STDOUT", "session-state"),
        ("REFRESH MATERIALIZED VIEW kept", "session-state"),
        (
            "CREATE TABLE copied AS SELECT * FROM set_view",
            "session-state",
        ),
        (
            "ALTER TABLE plain ADD COLUMN x text DEFAULT pg_advisory_lock(1)::text",
            "session-state",
        ),
        (
            "ALTER TABLE plain ALTER COLUMN n TYPE bigint USING sets(n)",
            "session-state",
        ),
        ("CREATE INDEX ON plain (locks(n))", "session-state"),
    ] {
        refused(&mut client, sql, code);
        assert_eq!(second.value("SHOW work_mem"), usual, "{sql}");
        let held = deployment.on_each_shard(
            // Those with two keys are the routers' registrations.
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        );
        assert_eq!(held, ["0"; 4], "{sql}");
    }
    // What does not touch the column's default, or gives a value, passes.
    client.run("INSERT INTO locked_by_default VALUES (1, 'x')");
    client.run("INSERT INTO defaulted VALUES (1, 1)");
    client.run("DELETE FROM checked");
    assert_eq!(client.value("SELECT steps(1) > 0"), "t");
}

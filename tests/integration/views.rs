//! Views over sharded tables, where `tests/differential` cannot look: privileges, policies, barriers, blocks, changes.

use crate::support::{Client, Deployment, cluster};

const SCHEMA: &str = "
    CREATE TABLE accounts (aid int PRIMARY KEY, owner text, bid int);
    CREATE VIEW mine AS SELECT aid, bid FROM accounts WHERE owner = current_user;
    CREATE VIEW by_bid AS SELECT bid, count(*) AS n, min(aid) AS least FROM accounts GROUP BY bid;
    CREATE VIEW big AS SELECT aid, owner, bid + 1 AS more FROM accounts WHERE bid > 2";

/// Sixteen accounts on all shards, of `app` and `lesser` in turn.
fn filled(schema: &str) -> (Deployment<'static>, Client) {
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .schema(schema)
        .sharded("accounts", "aid")
        .start();
    let mut client = deployment.connect();
    let rows = (1..=16).map(|aid| {
        let owner = if aid % 2 == 0 { "app" } else { "lesser" };
        format!("({aid}, '{owner}', {})", aid % 4)
    });
    let rows: Vec<String> = rows.collect();
    client.run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    (deployment, client)
}

/// A role without any right, that `app` may be.
fn make_role(deployment: &Deployment<'_>, name: &str) {
    for shard in 0..deployment.shards() {
        let sandbox = deployment.sandbox();
        let mut superuser = cluster::superuser(sandbox, shard, "postgres").connect();
        superuser.run(&format!("DROP ROLE IF EXISTS {name}"));
        superuser.run(&format!("CREATE ROLE {name}"));
        superuser.run(&format!("GRANT {name} TO app"));
    }
}

#[test]
fn a_view_reads_by_its_owners_rights_on_every_tier() {
    let (deployment, mut client) = filled("");
    make_role(&deployment, "view_reader");
    client.run("GRANT SELECT ON big TO view_reader");
    client.run("GRANT SELECT (aid) ON mine TO view_reader");
    client.run("SET ROLE view_reader");
    for (sql, expected) in [
        ("SELECT more FROM big WHERE aid = 3", "4"),
        ("SELECT aid FROM big ORDER BY aid LIMIT 1", "3"),
        ("SELECT count(*) FROM big", "4"),
        ("SELECT count(aid) FROM mine", "0"),
    ] {
        assert_eq!(client.value(sql), expected, "{sql}");
    }
    // Made of rows of several shards, which the view's owner may read and its reader may not.
    client.run("RESET ROLE; GRANT SELECT (n, bid) ON by_bid TO view_reader; SET ROLE view_reader");
    assert_eq!(client.fails("SELECT max(n) FROM by_bid").code(), "42501");
    client.run(
        "RESET ROLE; GRANT SELECT (aid, bid) ON accounts TO view_reader; SET ROLE view_reader",
    );
    assert_eq!(client.value("SELECT max(n) FROM by_bid"), "4");
    assert_eq!(client.value("SELECT n FROM by_bid WHERE bid = 1"), "4");
    assert_eq!(
        client.fails("SELECT max(least) FROM by_bid").code(),
        "42501"
    );
    client.run("RESET ROLE; REVOKE SELECT ON accounts FROM view_reader; SET ROLE view_reader");
    for sql in [
        "SELECT bid FROM mine WHERE aid = 3",
        "SELECT sum(bid) FROM mine",
        "SELECT bid FROM accounts WHERE aid = 3",
        "SELECT sum(bid) FROM accounts",
    ] {
        assert_eq!(client.fails(sql).code(), "42501", "{sql}");
    }
    client.run("RESET ROLE; DROP OWNED BY view_reader");
}

#[test]
fn policies_are_those_of_whom_the_view_reads_for() {
    let (deployment, mut client) = filled(
        "CREATE VIEW asked WITH (security_invoker) AS SELECT aid, owner, bid FROM accounts;
         CREATE POLICY own ON accounts USING (owner = current_user)",
    );
    make_role(&deployment, "lesser_reader");
    client.run("ALTER TABLE accounts ENABLE ROW LEVEL SECURITY");
    client.run("UPDATE accounts SET owner = 'lesser_reader' WHERE owner = 'lesser' AND bid = 1");
    client.run("GRANT SELECT ON accounts, big, asked TO lesser_reader");
    client.run("SET ROLE lesser_reader");
    assert_eq!(
        client.fails("SELECT * FROM by_bid").refusal(),
        Some("group-by")
    );
    // The owner of the table and of the views sees all rows of the table.
    assert_eq!(client.value("SELECT count(*) FROM big"), "4");
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "4");
    assert_eq!(client.value("SELECT count(*) FROM asked"), "4");
    assert_eq!(
        client.column("SELECT aid FROM asked ORDER BY aid LIMIT 2"),
        ["1", "5"]
    );
    assert_eq!(
        client.rows("SELECT aid FROM asked WHERE aid = 2"),
        [[""; 0]; 0]
    );
    client.run("RESET ROLE; DROP OWNED BY lesser_reader");
}

#[test]
fn a_block_uses_views_that_it_made_and_sees_what_it_wrote() {
    let (_deployment, mut client) = filled("");
    client.run("BEGIN");
    client.run("CREATE VIEW made AS SELECT aid AS id, owner FROM accounts WHERE bid < 9");
    client.run("CREATE VIEW over AS SELECT id FROM made WHERE owner = 'app'");
    client.run("UPDATE accounts SET owner = 'app' WHERE aid = 7");
    assert_eq!(client.value("SELECT count(*) FROM over"), "9");
    assert_eq!(client.value("SELECT owner FROM made WHERE id = 7"), "app");
    client.run("ROLLBACK");
    assert_eq!(client.fails("SELECT count(*) FROM over").code(), "42P01");
}

#[test]
fn a_view_that_is_made_anew_is_planned_anew() {
    let (_deployment, mut client) = filled("");
    let sql = "SELECT count(*) FROM big WHERE aid = $1";
    for (definition, expected) in [
        ("SELECT aid, owner, bid + 1 AS more FROM accounts", "1"),
        (
            "SELECT bid AS aid, owner, bid + 1 AS more FROM accounts",
            "4",
        ),
        ("SELECT 1 AS aid, ''::text AS owner, 2 AS more", "1"),
    ] {
        client.run(&format!("CREATE OR REPLACE VIEW big AS {definition}"));
        let reply = client.extended(sql, &[Some("1")], false);
        assert!(reply.failure.is_none(), "{:?}", reply.failure);
        let rows = &reply.outcomes[0].rows;
        assert_eq!(
            rows[0][0].as_deref(),
            Some(expected.as_bytes()),
            "{definition}"
        );
    }
}

#[test]
fn a_view_is_spliced_only_where_its_text_means_the_same() {
    let (_deployment, mut client) = filled(
        "CREATE SCHEMA other;
         CREATE VIEW lengths AS SELECT length(owner) AS long, count(*) AS n FROM accounts GROUP BY 1;
         CREATE VIEW firsts AS SELECT aid FROM accounts WHERE bid = 1 ORDER BY aid LIMIT 2",
    );
    let lengths = "SELECT long, n FROM public.lengths ORDER BY 1";
    let expected = [["3", "8"], ["6", "8"]];
    assert_eq!(client.rows(lengths), expected);
    client
        .run("CREATE FUNCTION other.length(text) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 7'");
    assert_eq!(client.rows(lengths), expected);
    client.run("SET search_path = other, public");
    assert_eq!(client.fails(lengths).refusal(), Some("group-by"));
    // An operator that goes before PostgreSQL's.
    let firsts = "SELECT aid FROM public.firsts";
    assert_eq!(client.column(firsts), ["1", "5"]);
    client.run("CREATE FUNCTION other.never(int, int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT false'");
    client.run("CREATE OPERATOR other.= (LEFTARG = int, RIGHTARG = int, FUNCTION = other.never)");
    client.run("SET search_path = other, pg_catalog, public");
    assert_eq!(client.fails(firsts).refusal(), Some("limit"));
    client.run("SET search_path = public");
    assert_eq!(client.column(firsts), ["1", "5"]);
    assert_eq!(client.rows(lengths), expected);
    client.run("CREATE TEMP TABLE int4 (aid int); CREATE TEMP TABLE accounts (owner text)");
    assert_eq!(client.fails(lengths).refusal(), Some("group-by"));
}

#[test]
fn constants_in_a_view_are_read_as_they_were_meant() {
    let (_deployment, mut client) = filled(
        "ALTER TABLE accounts ADD COLUMN day date DEFAULT '2024-02-03';
         CREATE VIEW days AS SELECT day, count(*) AS n FROM accounts WHERE day < '2024-03-02' GROUP BY day",
    );
    client.run("SET datestyle = 'SQL, DMY'");
    assert_eq!(
        client.rows("SELECT day, n FROM days"),
        [["03/02/2024", "16"]]
    );
    client.run("BEGIN");
    client.run("CREATE VIEW later AS SELECT day, count(*) AS n FROM accounts WHERE day < '02/03/2024' GROUP BY day");
    assert_eq!(client.value("SELECT n FROM later"), "16");
    client.run("COMMIT");
    client.run("SET datestyle = 'SQL, MDY'");
    assert_eq!(
        client.rows("SELECT day, n FROM later"),
        [["02/03/2024", "16"]]
    );
}

#[test]
fn names_in_a_view_are_those_it_was_made_with() {
    let (_deployment, mut client) = filled(
        "CREATE SCHEMA other;
         CREATE TABLE other.accounts (aid int, owner text, bid int);
         CREATE TABLE other.big (aid int)",
    );
    client.run("INSERT INTO other.big VALUES (1)");
    client.run("SET search_path = other");
    assert_eq!(client.value("SELECT count(*) FROM public.big"), "4");
    assert_eq!(client.value("SELECT count(*) FROM big"), "1");
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "0");
    client.run("SET search_path = public");
    client.run("CREATE TEMP TABLE accounts (aid int)");
    assert_eq!(client.value("SELECT count(*) FROM big"), "4");
    let failure = client.fails("CREATE TEMP VIEW shown AS SELECT * FROM big");
    assert_eq!(failure.refusal(), Some("temporary-table"));
}

//! `pgring advise`: by which columns an unsharded database could be sharded, and what each would mean.

use super::check::columns;
use crate::backend::catalog;
use crate::config::{TableDeclaration, TableKind};
use crate::planner::advise::{self, Candidate, ColumnFacts, Database, TableFacts};
use crate::sql::search_path;
use anyhow::{Context as _, bail};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_postgres::{Client, NoTls};

/// Statements that are looked at: those that were run most often.
const STATEMENTS_MAX: i64 = 10_000;
/// Characters of a statement that are shown.
const SHOWN_CHARACTERS: usize = 100;

/// Find candidate sharding keys of an unsharded database, from pg_stat_statements, foreign keys and statistics
#[derive(Debug, clap::Args)]
pub(super) struct Advise {
    /// The database: postgresql://user:password@host/database, or libpq's words
    dsn: String,
    /// How many shards there would be
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=1024))]
    shards: u16,
    /// How many candidates to show
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    show: u8,
    /// Write a shards.toml to start from, by the best candidate; an existing file is not replaced
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

impl Advise {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config: tokio_postgres::Config = self.dsn.parse().context("the DSN")?;
        let (mut client, connection) = config.connect(NoTls).await.context("cannot connect")?;
        tokio::spawn(connection);
        let database = read(&mut client).await?;
        let shards = usize::from(self.shards);
        let candidates = advise::advise(&database, shards);
        let Some(best) = candidates.first() else {
            bail!("the database has no table with a column that could be a sharding key");
        };
        let shown = candidates.iter().take(usize::from(self.show));
        for (number, candidate) in (1..).zip(shown) {
            super::print(&format!("{}\n", report(number, candidate, &database)))?;
        }
        let map = shards_toml(best, config.get_dbname().unwrap_or("postgres"), shards);
        match self.write {
            None => super::print(&format!("# shards.toml by candidate 1\n{map}"))?,
            Some(path) => {
                let mut file =
                    std::fs::File::create_new(&path).with_context(|| path.display().to_string())?;
                std::io::Write::write_all(&mut file, map.as_bytes())?;
                super::print(&format!("wrote {}\n", path.display()))?;
            }
        }
        Ok(())
    }
}

const TABLES: &str = "
    SELECT n.nspname::text, r.relname::text, sum(greatest(c.reltuples, 0))::float8, sum(pg_total_relation_size(c.oid))::int8
    FROM pg_class c JOIN pg_class r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid)
    JOIN pg_namespace n ON n.oid = r.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 GROUP BY 1, 2";

// A negative n_distinct is a share of the rows. Of a table with parts, what was counted over all of them.
const COLUMNS: &str = "
    SELECT DISTINCT ON (s.schemaname, s.tablename, s.attname) s.schemaname::text, s.tablename::text, s.attname::text,
           s.n_distinct::float8, coalesce(s.most_common_freqs[1], 0)::float8, s.null_frac::float8
    FROM pg_stats s ORDER BY s.schemaname, s.tablename, s.attname, s.inherited DESC";

const STATEMENTS_ARE_IN: &str = "
    SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements'";

async fn read(client: &mut Client) -> anyhow::Result<Database> {
    // Before this program's own are among them.
    let statements = statements(client).await?;
    let schema = catalog::load(client).await?;
    let mut tables: HashMap<_, TableFacts> = HashMap::new();
    for row in client.query(TABLES, &[]).await? {
        let name = (
            row.try_get::<_, &str>(0)?.into(),
            row.try_get::<_, &str>(1)?.into(),
        );
        let facts = TableFacts {
            rows: row.try_get(2)?,
            bytes: row.try_get::<_, i64>(3)?.max(0) as u64,
            columns: HashMap::new(),
        };
        tables.insert(name, facts);
    }
    for row in client.query(COLUMNS, &[]).await? {
        let name = (
            row.try_get::<_, &str>(0)?.into(),
            row.try_get::<_, &str>(1)?.into(),
        );
        let Some(table) = tables.get_mut(&name) else {
            continue;
        };
        let distinct: f64 = row.try_get(3)?;
        let facts = ColumnFacts {
            distinct: if distinct < 0.0 {
                -distinct * table.rows
            } else {
                distinct
            },
            top_share: row.try_get(4)?,
            null_share: row.try_get(5)?,
        };
        table
            .columns
            .insert(row.try_get::<_, &str>(2)?.into(), facts);
    }
    let row = client
        .query_one(
            "SELECT current_setting('search_path'), current_user::text",
            &[],
        )
        .await?;
    let search_path = search_path::parse(row.try_get(0)?, row.try_get(1)?)?;
    Ok(Database {
        schema,
        tables,
        statements,
        search_path,
    })
}

/// Empty, with a word on stderr, where they are not counted.
async fn statements(client: &Client) -> anyhow::Result<Vec<(Arc<str>, u64)>> {
    let Some(schema) = client.query_opt(STATEMENTS_ARE_IN, &[]).await? else {
        eprintln!(
            "pgring: the extension pg_stat_statements is not there: nothing is known of the statements. \
             Load it (shared_preload_libraries), CREATE EXTENSION, and ask again after a day"
        );
        return Ok(Vec::new());
    };
    let schema: &str = schema.try_get(0)?;
    let sql = format!(
        "SELECT query, sum(calls)::int8 FROM {schema}.pg_stat_statements \
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query IS NOT NULL \
         GROUP BY query ORDER BY 2 DESC LIMIT {STATEMENTS_MAX}"
    );
    let rows = match client.query(&sql, &[]).await {
        Ok(rows) => rows,
        Err(error) => {
            let reason = error
                .as_db_error()
                .map_or_else(|| error.to_string(), |error| error.message().to_owned());
            eprintln!("pgring: nothing is known of the statements: {reason}");
            return Ok(Vec::new());
        }
    };
    let read = |row: &tokio_postgres::Row| {
        Ok((
            row.try_get::<_, &str>(0)?.into(),
            row.try_get::<_, i64>(1)?.max(0) as u64,
        ))
    };
    rows.iter().map(read).collect()
}

fn report(number: usize, candidate: &Candidate, database: &Database) -> String {
    let mut text = String::new();
    let keys = candidate
        .keys
        .iter()
        .map(|((_, table), key)| format!("{table}.{key}"));
    let _ = writeln!(text, "{number}. {}", keys.collect::<Vec<_>>().join(", "));
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut rows = Vec::new();
    let calls = &candidate.calls;
    if let Some(share) = calls.one_shard_share() {
        let known = calls.one_shard + calls.unsharded + calls.several + calls.refused;
        let of = |part: u64| percent(part as f64 / known as f64);
        rows.push([
            "   statements".to_owned(),
            format!(
                "{} of {known} calls on one shard; {} over several, {} refused",
                percent(share),
                of(calls.several),
                of(calls.refused)
            ),
        ]);
    }
    rows.push([
        "   rows".to_owned(),
        format!(
            "{} of all bytes are spread",
            percent(candidate.spread_share)
        ),
    ]);
    match (candidate.distinct, &candidate.top) {
        (Some(distinct), Some((share, (_, table)))) => rows.push([
            "   values".to_owned(),
            format!(
                "about {distinct:.0}; the most common one has {} of {table}",
                percent(*share)
            ),
        ]),
        _ => rows.push(["   values".to_owned(), "not known: run ANALYZE".to_owned()]),
    }
    let kept = |kind: fn(&TableKind) -> bool| {
        let declared = candidate.declarations.iter();
        declared
            .filter(|table| kind(&table.kind))
            .map(|table| table.name.as_str())
            .collect::<Vec<_>>()
    };
    let copies = kept(|kind| matches!(kind, TableKind::Reference));
    if !copies.is_empty() {
        rows.push(["   copied to all".to_owned(), copies.join(", ")]);
    }
    let is_declared = |name: &(Arc<str>, Arc<str>)| {
        let mut declared = candidate.declarations.iter();
        declared.any(|table| *table.schema == *name.0 && *table.name == *name.1)
    };
    let mut local: Vec<&str> = database
        .tables
        .keys()
        .filter(|name| !is_declared(name))
        .map(|(_, name)| &**name)
        .collect();
    local.sort_unstable();
    if !local.is_empty() {
        rows.push(["   on one shard".to_owned(), local.join(", ")]);
    }
    text.push_str(&columns(&rows));
    for obstacle in &candidate.obstacles {
        let _ = writeln!(text, "   ! {obstacle}");
    }
    for example in &candidate.examples {
        let sql: String = example.sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let sql: String = sql.chars().take(SHOWN_CHARACTERS).collect();
        let what = example.refusal.as_deref().unwrap_or("over several shards");
        let _ = writeln!(text, "   {} × {sql}\n     {what}", example.calls);
    }
    text
}

/// A map to start from: the shards' addresses are to be filled in.
fn shards_toml(candidate: &Candidate, database: &str, shards: usize) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let database = quote(database);
    let mut map =
        format!("[cluster]\nname = {database}\ndatabase = {database}\ndefault_shard = \"s0\"\n");
    for shard in 0..shards {
        let _ = write!(
            map,
            "\n[[shard]]\nname = \"s{shard}\"\ndatabase = {database}\nnodes = [\"127.0.0.1:{}\"] # to be filled in\n",
            5432 + shard
        );
    }
    for TableDeclaration {
        schema, name, kind, ..
    } in &candidate.declarations
    {
        let name = quote(&format!("{schema}.{name}"));
        let kind = match kind {
            TableKind::Sharded { key, .. } => format!("key = {}", quote(key)),
            TableKind::Reference => "kind = \"reference\"".to_owned(),
            TableKind::Local { shard } => format!("kind = \"local\"\nshard = {}", quote(shard)),
        };
        let _ = write!(map, "\n[[table]]\nname = {name}\n{kind}\n");
    }
    map
}

//! Owns what `check --online` asks the shards. Each question is one query; what the shards must agree on is compared
//! with the first shard. Reads only.

use super::check::columns;
use crate::config::{Address, Config, Shard, TableKind};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const SERVER_VERSION_MIN: i32 = 150_000;

/// What was found.
pub(super) struct Report {
    /// A table for people.
    pub(super) facts: String,
    /// What must be mended, a line each.
    pub(super) problems: Vec<String>,
}

/// What one node says of itself.
struct Node {
    address: String,
    version: String,
    version_number: i32,
    in_recovery: bool,
    prepared_transactions_max: i32,
    superuser: bool,
    /// Encoding, locale provider, collation, character type, and the collation's version.
    collation: String,
}

/// What the shards say of a declared table: by its index in the files, the shards that agree on a definition.
type Tables<'c> = BTreeMap<(usize, Definition), Vec<&'c str>>;

/// A table as a shard has it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Definition {
    /// Its columns in order, for people; empty where there is no such table.
    columns: String,
    /// Whether the declared key is one of them.
    has_key: bool,
}

/// Asks all nodes of all shards.
pub(super) async fn inspect(config: &Config) -> Report {
    let mut facts = vec![
        [
            "shard",
            "node",
            "role",
            "version",
            "two-phase commits",
            "collation",
        ]
        .map(str::to_owned),
    ];
    let mut problems = Vec::new();
    let mut collations: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut tables = Tables::new();
    for shard in &config.shards {
        let mut primaries = 0;
        for address in &shard.nodes {
            let asked = async {
                let client = connect(config, shard, address).await?;
                let node = ask_node(&client, address).await?;
                if !node.in_recovery {
                    for index in 0..config.tables.len() {
                        let found = ask_table(&client, config, index).await?;
                        tables.entry((index, found)).or_default().push(&shard.name);
                    }
                }
                Ok::<_, anyhow::Error>(node)
            };
            let node =
                match tokio::time::timeout(config.pool.connect + Duration::from_secs(5), asked)
                    .await
                {
                    Ok(Ok(node)) => node,
                    Ok(Err(error)) => {
                        problems.push(format!("shard \"{}\", {address}: {error:#}", shard.name));
                        continue;
                    }
                    Err(_) => {
                        problems.push(format!(
                            "shard \"{}\", {address}: no answer in time",
                            shard.name
                        ));
                        continue;
                    }
                };
            primaries += usize::from(!node.in_recovery);
            problems.extend(
                node.problems()
                    .into_iter()
                    .map(|what| format!("shard \"{}\", {address}: {what}", shard.name)),
            );
            collations
                .entry(node.collation.clone())
                .or_default()
                .push(&shard.name);
            facts.push(node.row(&shard.name));
        }
        if primaries != 1 {
            problems.push(format!(
                "shard \"{}\" has {primaries} primaries that answer, and needs 1",
                shard.name
            ));
        }
    }
    problems.extend(disagreements(
        "encodings or collations differ, so that rows sort differently",
        &collations,
    ));
    problems.extend(table_problems(config, &tables));
    Report {
        facts: columns(&facts),
        problems,
    }
}

impl Node {
    fn row(&self, shard: &str) -> [String; 6] {
        let role = if self.in_recovery {
            "replica"
        } else {
            "primary"
        };
        let collation = self.collation.clone();
        [
            shard.to_owned(),
            self.address.clone(),
            role.to_owned(),
            self.version.clone(),
            self.prepared_transactions_max.to_string(),
            collation,
        ]
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.version_number < SERVER_VERSION_MIN {
            problems.push(format!(
                "PostgreSQL {} is too old: 15 is the oldest that works",
                self.version
            ));
        }
        if self.prepared_transactions_max == 0 {
            problems.push(
                "max_prepared_transactions is 0, so that writes on several shards are refused"
                    .to_owned(),
            );
        }
        if !self.superuser {
            problems.push("[backend] user is not a superuser, so that it cannot settle prepared transactions of others".to_owned());
        }
        problems
    }
}

async fn connect(config: &Config, shard: &Shard, address: &Address) -> anyhow::Result<Client> {
    let mut target = tokio_postgres::Config::new();
    match address {
        Address::Tcp { host, port } => target.host(host).port(*port),
        Address::Unix { directory, port } => target.host_path(directory).port(*port),
    };
    target
        .user(&config.backend.user)
        .dbname(&shard.database)
        .application_name("pgring check");
    target.connect_timeout(config.pool.connect);
    if let Some(password) = config
        .backend
        .password
        .as_ref()
        .and_then(|secret| secret.password())
    {
        target.password(password);
    }
    let (client, connection) = target.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The first row of a query, as text.
async fn first_row<const N: usize>(
    client: &Client,
    sql: &str,
) -> anyhow::Result<Option<[String; N]>> {
    let messages = client.simple_query(sql).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(std::array::from_fn(|column| {
            row.get(column).unwrap_or_default().to_owned()
        })),
        _ => None,
    }))
}

async fn ask_node(client: &Client, address: &Address) -> anyhow::Result<Node> {
    // Through to_jsonb: datlocprovider's companions have changed their names from version to version.
    let sql = "SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num'),
        pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('max_prepared_transactions'),
        (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
        (SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_encoding_to_char(d.encoding), d.datlocprovider, d.datcollate,
           d.datctype, pg_catalog.to_jsonb(d)->>'daticulocale', pg_catalog.to_jsonb(d)->>'datlocale',
           pg_catalog.pg_database_collation_actual_version(d.oid))
         FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database())";
    let row = first_row::<6>(client, sql).await?;
    let [version, number, in_recovery, prepared, superuser, collation] =
        row.ok_or_else(|| anyhow::anyhow!("it answered without a row"))?;
    Ok(Node {
        address: address.to_string(),
        version: version.split(' ').next().unwrap_or_default().to_owned(),
        version_number: number.parse()?,
        in_recovery: in_recovery == "t",
        prepared_transactions_max: prepared.parse()?,
        superuser: superuser == "t",
        collation,
    })
}

async fn ask_table(client: &Client, config: &Config, index: usize) -> anyhow::Result<Definition> {
    let table = &config.tables[index];
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let key = match &table.kind {
        TableKind::Sharded { key } => literal(key),
        TableKind::Reference | TableKind::Local { .. } => "NULL".to_owned(),
    };
    let sql = format!(
        "SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', pg_catalog.quote_ident(a.attname),
           pg_catalog.format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END), ', ' ORDER BY a.attnum),
           pg_catalog.bool_or(a.attname = {key})
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = {} AND c.relname = {} AND a.attnum > 0 AND NOT a.attisdropped",
        literal(&table.schema),
        literal(&table.name)
    );
    let [columns, has_key] = first_row::<2>(client, &sql).await?.unwrap_or_default();
    Ok(Definition {
        columns,
        has_key: has_key == "t",
    })
}

fn disagreements(what: &str, values: &BTreeMap<String, Vec<&str>>) -> Option<String> {
    let sides: Vec<String> = values
        .iter()
        .map(|(value, shards)| format!("{value} on {}", shards.join(", ")))
        .collect();
    (values.len() > 1).then(|| format!("{what}: {}", sides.join("; ")))
}

fn table_problems(config: &Config, found: &Tables<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, table) in config.tables.iter().enumerate() {
        let name = format!("{}.{}", table.schema, table.name);
        let mut definitions = BTreeMap::new();
        for ((_, definition), shards) in found.iter().filter(|((of, _), _)| *of == index) {
            let shard_names = shards.join(", ");
            if definition.columns.is_empty() {
                problems.push(format!("table {name} is missing on {shard_names}"));
                continue;
            }
            if let (TableKind::Sharded { key }, false) = (&table.kind, definition.has_key) {
                problems.push(format!(
                    "table {name} has no column {key}, its key, on {shard_names}"
                ));
            }
            definitions.insert(definition.columns.clone(), shards.clone());
        }
        problems.extend(disagreements(
            &format!("table {name} differs"),
            &definitions,
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn tables_that_miss_differ_or_lack_their_key_are_named() {
        let config =
            Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shard-config")).unwrap();
        let names: Vec<&str> = config
            .tables
            .iter()
            .map(|table| table.name.as_str())
            .collect();
        assert_eq!(names, ["customers", "orders", "countries", "log"]);
        let definition = |columns: &str, has_key| Definition {
            columns: columns.to_owned(),
            has_key,
        };
        let found = Tables::from([
            ((0, definition("id bigint", true)), vec!["s0", "s1", "s2"]),
            ((1, definition("id bigint", false)), vec!["s2"]),
            ((1, definition("customer_id bigint", true)), vec!["s0"]),
            ((1, definition("", false)), vec!["s1"]),
            ((2, definition("code text", false)), vec!["s0", "s1", "s2"]),
        ]);
        let mut problems = table_problems(&config, &found);
        problems.sort();
        assert_eq!(
            problems,
            [
                "table public.orders differs: customer_id bigint on s0; id bigint on s2",
                "table public.orders has no column customer_id, its key, on s2",
                "table public.orders is missing on s1",
            ]
        );
    }
}

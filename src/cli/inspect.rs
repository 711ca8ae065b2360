//! Owns what `check --online` asks the shards: each node alone, then what the shards must agree on. Reads only.

use super::check::columns;
use crate::backend::store::{self, StoreError};
use crate::config::{Address, Config, Shard, TableKind};
use crate::topology::ownership::{self, OwnershipRecord};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const SERVER_VERSION_MIN: i32 = 150_000;
/// Beyond the time that connecting may take.
const ANSWER: Duration = Duration::from_secs(10);

/// What was found.
pub(super) struct Report {
    /// A table for people.
    pub(super) facts: String,
    /// What must be mended, a line each.
    pub(super) problems: Vec<String>,
}

/// What one node says.
struct Node {
    version: String,
    version_number: i32,
    in_recovery: bool,
    prepared_transactions_max: i32,
    superuser: bool,
    /// Encoding, locale provider, collation, character type, and the collation's version.
    collation: String,
    /// The shard's ownership row, or why there is none.
    ownership: Result<OwnershipRecord, StoreError>,
    /// By the index of the declared table.
    tables: Vec<Definition>,
}

/// A declared table as a shard has it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
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
            "prepared",
            "epoch",
            "slots",
            "collation",
        ]
        .map(str::to_owned),
    ];
    let mut problems = Vec::new();
    let mut primaries: Vec<Option<Node>> = Vec::new();
    for shard in &config.shards {
        let mut nodes = Vec::new();
        for address in &shard.nodes {
            let limit = config.pool.connect + ANSWER;
            let asked = tokio::time::timeout(limit, ask(config, shard, address)).await;
            match asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {limit:?}"))) {
                Ok(node) => {
                    problems.extend(
                        node.problems()
                            .iter()
                            .map(|what| format!("shard {}, {address}: {what}", shard.name)),
                    );
                    facts.push(node.row(&shard.name, address));
                    nodes.push(node);
                }
                Err(error) => problems.push(format!("shard {}, {address}: {error:#}", shard.name)),
            }
        }
        nodes.retain(|node| !node.in_recovery);
        if nodes.len() != 1 {
            problems.push(format!(
                "shard {}: {} primaries answer, and there must be 1",
                shard.name,
                nodes.len()
            ));
        }
        primaries.push(nodes.pop());
    }
    problems.extend(disagreements(config, &primaries));
    Report {
        facts: columns(&facts),
        problems,
    }
}

impl Node {
    fn row(&self, shard: &str, address: &Address) -> [String; 8] {
        let (epoch, slots) = match &self.ownership {
            Ok(record) => (record.epoch.0.to_string(), record.owned.len().to_string()),
            Err(_) => ("none".to_owned(), "none".to_owned()),
        };
        [
            shard.to_owned(),
            address.to_string(),
            if self.in_recovery {
                "replica"
            } else {
                "primary"
            }
            .to_owned(),
            self.version.clone(),
            self.prepared_transactions_max.to_string(),
            epoch,
            slots,
            self.collation.clone(),
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
            problems.push(
                "[backend] user is no superuser, so that it cannot settle what clients prepared"
                    .to_owned(),
            );
        }
        if let Err(error) = &self.ownership {
            problems.push(format!("{error}; run pgring init"));
        }
        problems
    }
}

/// To this one node, whatever its role.
async fn connect(config: &Config, shard: &Shard, address: &Address) -> anyhow::Result<Client> {
    let alone = Shard {
        nodes: vec![address.clone()],
        ..shard.clone()
    };
    let mut target = store::connection_config(config, &alone);
    let connected = target
        .target_session_attrs(TargetSessionAttrs::Any)
        .connect(NoTls)
        .await;
    let (client, connection) =
        connected.map_err(|error| anyhow::Error::msg(store::reason(&error)))?;
    tokio::spawn(connection);
    Ok(client)
}

/// The first row of a query, as text.
async fn first_row<const N: usize>(
    client: &Client,
    sql: &str,
) -> anyhow::Result<Option<[String; N]>> {
    let messages = client
        .simple_query(sql)
        .await
        .map_err(|error| anyhow::Error::msg(store::reason(&error)))?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(std::array::from_fn(|column| {
            row.get(column).unwrap_or_default().to_owned()
        })),
        _ => None,
    }))
}

async fn ask(config: &Config, shard: &Shard, address: &Address) -> anyhow::Result<Node> {
    let client = connect(config, shard, address).await?;
    // By to_jsonb: datlocprovider's companions changed their names from version to version.
    let sql = "SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num'),
        pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('max_prepared_transactions'),
        (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
        (SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_encoding_to_char(d.encoding), d.datlocprovider, d.datcollate,
           d.datctype, pg_catalog.to_jsonb(d)->>'daticulocale', pg_catalog.to_jsonb(d)->>'datlocale',
           pg_catalog.pg_database_collation_actual_version(d.oid))
         FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database())";
    let row = first_row::<6>(&client, sql).await?;
    let [version, number, in_recovery, prepared, superuser, collation] =
        row.ok_or_else(|| anyhow::anyhow!("it answered without a row"))?;
    let mut tables = Vec::new();
    for index in 0..config.tables.len() {
        tables.push(ask_table(&client, config, index).await?);
    }
    Ok(Node {
        version: version.split(' ').next().unwrap_or_default().to_owned(),
        version_number: number.parse()?,
        in_recovery: in_recovery == "t",
        prepared_transactions_max: prepared.parse()?,
        superuser: superuser == "t",
        collation,
        ownership: store::status(&client).await.map(|status| status.ownership),
        tables,
    })
}

async fn ask_table(client: &Client, config: &Config, index: usize) -> anyhow::Result<Definition> {
    let table = &config.tables[index];
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let key = match &table.kind {
        TableKind::Sharded { key, .. } => literal(key),
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

/// What the shards, by their primaries, do not agree on; each in the order of the map.
fn disagreements(config: &Config, primaries: &[Option<Node>]) -> Vec<String> {
    let name = |shard: usize| config.shards[shard].name.as_str();
    let present = || {
        primaries
            .iter()
            .enumerate()
            .filter_map(|(shard, node)| Some((name(shard), node.as_ref()?)))
    };
    let mut problems = Vec::new();
    let collations = present().map(|(shard, node)| (node.collation.as_str(), shard));
    problems.extend(differences(
        "encodings or collations differ, so that text sorts differently",
        collations,
    ));
    // A shard that is down or new is reported already; it would only show as a gap here.
    let records: Vec<_> = primaries
        .iter()
        .map(|node| node.as_ref()?.ownership.as_ref().ok())
        .collect();
    if records.iter().all(Option::is_some) {
        let names: Vec<_> = config
            .shards
            .iter()
            .map(|shard| shard.name.as_str().into())
            .collect();
        problems.extend(
            ownership::problems(&names, &records)
                .iter()
                .map(ToString::to_string),
        );
    }
    for index in 0..config.tables.len() {
        let definitions: Vec<_> = present()
            .map(|(shard, node)| (shard, &node.tables[index]))
            .collect();
        problems.extend(table_problems(config, index, &definitions));
    }
    problems
}

fn table_problems(
    config: &Config,
    index: usize,
    definitions: &[(&str, &Definition)],
) -> Vec<String> {
    let table = &config.tables[index];
    let name = format!("table {}.{}", table.schema, table.name);
    let mut problems = Vec::new();
    let shards_where = |is_so: &dyn Fn(&Definition) -> bool| {
        let shards: Vec<&str> = definitions
            .iter()
            .filter(|(_, definition)| is_so(definition))
            .map(|(shard, _)| *shard)
            .collect();
        (!shards.is_empty()).then(|| shards.join(", "))
    };
    if let Some(shards) = shards_where(&|definition| definition.columns.is_empty()) {
        problems.push(format!("{name} is missing on {shards}"));
    }
    if let TableKind::Sharded { key, .. } = &table.kind
        && let Some(shards) =
            shards_where(&|definition| !definition.columns.is_empty() && !definition.has_key)
    {
        problems.push(format!("{name} has no column {key}, its key, on {shards}"));
    }
    let there = definitions
        .iter()
        .filter(|(_, definition)| !definition.columns.is_empty());
    problems.extend(differences(
        &format!("{name} differs"),
        there.map(|(shard, definition)| (definition.columns.as_str(), *shard)),
    ));
    problems
}

/// The sides where there is more than one value.
fn differences<'a>(what: &str, values: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let mut sides: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (value, shard) in values {
        sides.entry(value).or_default().push(shard);
    }
    let said: Vec<String> = sides
        .iter()
        .map(|(value, shards)| format!("{value} on {}", shards.join(", ")))
        .collect();
    (said.len() > 1).then(|| format!("{what}: {}", said.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn tables_that_miss_differ_or_lack_their_key_are_named() {
        let config =
            Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shard-config")).unwrap();
        let index_of = |name: &str| {
            config
                .tables
                .iter()
                .position(|table| table.name == name)
                .unwrap()
        };
        let definition = |columns: &str, has_key| Definition {
            columns: columns.to_owned(),
            has_key,
        };
        let good = definition("customer_id bigint", true);
        let all_good = [("s0", &good), ("s1", &good)];
        assert_eq!(
            table_problems(&config, index_of("orders"), &all_good),
            [""; 0]
        );
        let (keyless, missing) = (definition("id bigint", false), definition("", false));
        let mixed = [("s0", &good), ("s1", &missing), ("s2", &keyless)];
        assert_eq!(
            table_problems(&config, index_of("orders"), &mixed),
            [
                "table public.orders is missing on s1",
                "table public.orders has no column customer_id, its key, on s2",
                "table public.orders differs: customer_id bigint on s0; id bigint on s2",
            ]
        );
        let reference = [("s0", &keyless), ("s1", &keyless)];
        assert_eq!(
            table_problems(&config, index_of("countries"), &reference),
            [""; 0]
        );
    }
}

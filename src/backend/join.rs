//! [`join`]: a new shard becomes a member of a cluster that is there. It gets a place at once, where all that is written
//! on every shard is written too, and nothing is read: definitions, and the rows of reference tables. When every router
//! knows of it, the rows that were there before are copied; from then on it is read, and slots may move to it. A crash
//! leaves it with its place, and the next run goes on.
//!
//! Until the copy is whole, a write of a reference table may fail there for lack of a row that a foreign key needs.

use super::catalog;
use super::init::{self, Candidate, InitError};
use super::registration::{self, Silent};
use crate::config::Config;
use crate::sql::lex::quote_identifier;
use crate::topology::ownership::{self, OwnershipRecord};
use crate::topology::schema::{ColumnDefault, Placement, Relation, RelationKind, Schema};
use crate::topology::slot::SlotSet;
use crate::topology::{Epoch, ShardId, shard_map};
use futures_util::{SinkExt as _, StreamExt as _};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long routers may take to load a map with the new shard, and to end what they began before.
const ROUTERS_WAIT: Duration = Duration::from_secs(30);
/// Between two looks at what routers have acknowledged.
const PAUSE: Duration = Duration::from_millis(20);
/// The first OID that PostgreSQL gives to what users make.
const OID_OF_USERS: u32 = 16384;
/// How long a writer of a reference table may keep the copy waiting.
const LOCK_WAIT: &str = "30s";

/// Makes the candidate at `new` a member. The others are members, but for those after it.
///
/// # Errors
/// [`InitError`].
pub(super) async fn join(
    config: &Config,
    candidates: &mut [Candidate],
    new: usize,
) -> Result<(), InitError> {
    let is_member = |candidate: &Candidate| {
        let mut record = candidate.record.iter();
        record.any(|record| !record.joining)
    };
    let members = candidates.iter().filter(|candidate| is_member(candidate));
    let (names, records): (Vec<_>, Vec<_>) = members
        .map(|member| (member.name.clone(), member.record.as_ref()))
        .unzip();
    if let Some(problem) = ownership::problems(&names, &records).into_iter().next() {
        return Err(InitError::Ownership(problem));
    }
    let cluster_id = records.into_iter().flatten().next();
    let cluster_id = cluster_id.map_or_else(|| "".into(), |record| record.cluster_id.clone());
    let is_default = |candidate: &Candidate| *candidate.name == *config.cluster.default_shard;
    let model = candidates.iter().position(is_default);
    let Some(model) = model.filter(|model| is_member(&candidates[*model])) else {
        return Err(InitError::Unfit {
            shard: config.cluster.default_shard.as_str().into(),
            reason: "the default shard cannot join a cluster".to_owned(),
        });
    };
    let [model, new] = candidates
        .get_disjoint_mut([model, new])
        .expect("the default shard is a member, the new one is none");
    compare(config, model, new).await?;
    if new.record.is_none() {
        refuse_rows(config, new).await?;
        let record = OwnershipRecord {
            shard: new.name.clone(),
            cluster_id,
            epoch: Epoch(1),
            owned: SlotSet::new(),
            fenced: SlotSet::new(),
            closed: SlotSet::new(),
            foreign_slots: SlotSet::new(),
            joining: true,
        };
        let made = init::make_row(&mut new.client, true, &record).await;
        made.map_err(|source| query(&new.name, source))?;
        new.record = Some(record);
    }
    wait_for_routers(model, new).await?;
    // What routers have defined meanwhile, they have defined on both.
    let tables = compare(config, model, new).await?;
    let copied = copy(model, new, &tables).await?;
    if let Some(record) = &mut new.record {
        record.joining = false;
        record.epoch = copied;
    }
    Ok(())
}

fn query(shard: &Arc<str>, source: tokio_postgres::Error) -> InitError {
    InitError::Query {
        shard: shard.clone(),
        source,
    }
}

/// Refuses a shard whose relations are not those of `model`; gives the reference tables.
async fn compare(
    config: &Config,
    model: &mut Candidate,
    new: &mut Candidate,
) -> Result<Vec<Arc<Relation>>, InitError> {
    let (wanted, found) = (load(config, model).await?, load(config, new).await?);
    let is_user = |relation: &&Arc<Relation>| relation.placement != Placement::Catalog;
    let relations = |schema: &Schema| -> Vec<Arc<Relation>> {
        let relations = schema.relations.values().flat_map(HashMap::values);
        let mut relations: Vec<_> = relations.filter(is_user).cloned().collect();
        relations.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        relations
    };
    let (wanted_relations, found_relations) = (relations(&wanted), relations(&found));
    if found_relations.is_empty() && !wanted_relations.is_empty() {
        return Err(InitError::Empty {
            shard: new.name.clone(),
            model: model.name.clone(),
        });
    }
    let within = |relations: &[Arc<Relation>], relation: &Arc<Relation>| {
        relations.iter().any(|other| is_alike(other, relation))
    };
    let missing = wanted_relations
        .iter()
        .find(|relation| !within(&found_relations, relation));
    let more = || {
        let mut found = found_relations.iter();
        found.find(|relation| !within(&wanted_relations, relation))
    };
    let what = match missing.or_else(more) {
        Some(relation) => Some(format!("{}.{}", relation.schema, relation.name)),
        None if wanted.user_functions != found.user_functions => Some("functions".to_owned()),
        None => None,
    };
    if let Some(what) = what {
        return Err(InitError::Differs {
            shard: new.name.clone(),
            model: model.name.clone(),
            what,
        });
    }
    let is_copied = |relation: &Arc<Relation>| {
        relation.placement == Placement::Reference && relation.kind == RelationKind::Table
    };
    Ok(wanted_relations.into_iter().filter(is_copied).collect())
}

/// Refuses a shard with rows in sharded tables: it owns none, and all shards' rows would be read with them.
async fn refuse_rows(config: &Config, new: &mut Candidate) -> Result<(), InitError> {
    let schema = load(config, new).await?;
    let relations = schema.relations.values().flat_map(HashMap::values);
    let is_sharded = |relation: &&Arc<Relation>| {
        matches!(relation.placement, Placement::Sharded { .. })
            && relation.kind == RelationKind::Table
    };
    for table in relations.filter(is_sharded) {
        let sql = format!("SELECT EXISTS (SELECT FROM {})", name(table));
        let found = new.client.query_typed_one(&sql, &[]).await;
        let found = found.and_then(|row| row.try_get::<_, bool>(0));
        if found.map_err(|source| query(&new.name, source))? {
            return Err(InitError::Unfit {
                shard: new.name.clone(),
                reason: format!("the sharded table {} has rows already", name(table)),
            });
        }
    }
    Ok(())
}

async fn load(config: &Config, candidate: &mut Candidate) -> Result<Schema, InitError> {
    let loaded = catalog::load(&mut candidate.client).await;
    let schema = loaded.map_err(|source| InitError::Catalog {
        shard: candidate.name.clone(),
        source,
    })?;
    let names = shard_map::shard_names(config);
    let is_default = |name: &Arc<str>| **name == *config.cluster.default_shard;
    let default_shard = names.iter().position(is_default).unwrap_or_default();
    let default_shard = ShardId(default_shard as u16);
    Ok(shard_map::place(schema, &config.tables, &names, default_shard).0)
}

/// Whether two shards' relations are the same; types that users made have other OIDs on each.
fn is_alike(a: &Relation, b: &Relation) -> bool {
    let bare = |relation: &Relation| {
        let mut relation = relation.clone();
        for column in &mut relation.columns {
            if column.type_oid >= OID_OF_USERS {
                column.type_oid = OID_OF_USERS;
            }
        }
        relation
    };
    (&a.schema, &a.name) == (&b.schema, &b.name) && bare(a) == bare(b)
}

/// Waits until every router writes on the new shard what it writes on all.
async fn wait_for_routers(model: &Candidate, new: &Candidate) -> Result<(), InitError> {
    let deadline = Instant::now() + ROUTERS_WAIT;
    let epoch = new.record.as_ref().map_or(Epoch(0), |record| record.epoch);
    let registered = async |candidate: &Candidate, epoch: Epoch| {
        let silent = registration::silent(&candidate.client, epoch).await;
        silent.map_err(|source| query(&candidate.name, source))
    };
    loop {
        let (all, here) = (
            registered(model, Epoch::MAX).await?,
            registered(new, Epoch::MAX).await?,
        );
        let is_here = |router: i32| here.iter().any(|silent| silent.router == router);
        let absent = all.into_iter().find(|silent| !is_here(silent.router));
        let late = match absent {
            Some(absent) => Some(absent),
            None => registered(new, epoch).await?.into_iter().next(),
        };
        let Some(late) = late else { break };
        give_up_at(deadline, late, new)?;
        sleep(PAUSE).await;
    }
    // What they began before they knew of it ran on the model too, as all that runs on every shard.
    let sql = "UPDATE pgring.ownership SET epoch = epoch + 1 RETURNING epoch";
    let raised = model.client.query_typed_one(sql, &[]).await;
    let raised = raised.and_then(|row| row.try_get::<_, i64>(0));
    let epoch = Epoch(raised.map_err(|source| query(&model.name, source))? as u64);
    while let Some(late) = registered(model, epoch).await?.into_iter().next() {
        give_up_at(deadline, late, new)?;
        sleep(PAUSE).await;
    }
    Ok(())
}

fn give_up_at(deadline: Instant, late: Silent, new: &Candidate) -> Result<(), InitError> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(InitError::Unloaded {
        router: late.router,
        address: late.address.unwrap_or_else(|| "a local socket".to_owned()),
        shard: new.name.clone(),
        after: ROUTERS_WAIT,
    })
}

/// Makes the reference tables of the new shard those of `model`, and the shard a member; in one transaction there, while
/// nobody writes them anywhere. Gives the new epoch.
async fn copy(
    model: &mut Candidate,
    new: &mut Candidate,
    tables: &[Arc<Relation>],
) -> Result<Epoch, InitError> {
    let of_model = |source| query(&model.name, source);
    let of_new = |source| query(&new.name, source);
    let names: Vec<String> = tables.iter().map(|table| name(table)).collect();
    let lock = |mode: &str| {
        let names = names.iter().map(|name| format!("ONLY {name}"));
        let names = names.collect::<Vec<_>>().join(", ");
        let wait = format!("SET LOCAL lock_timeout = '{LOCK_WAIT}'");
        match tables {
            [] => wait,
            _ => format!("{wait}; LOCK TABLE {names} IN {mode} MODE"),
        }
    };
    let source = model.client.transaction().await.map_err(of_model)?;
    source
        .batch_execute(&lock("SHARE"))
        .await
        .map_err(of_model)?;
    let target = new.client.transaction().await.map_err(of_new)?;
    // Their triggers have fired, and their foreign keys held, on the model.
    let sql = "SET LOCAL session_replication_role = replica";
    target.batch_execute(sql).await.map_err(of_new)?;
    let sql = lock("SHARE ROW EXCLUSIVE");
    target.batch_execute(&sql).await.map_err(of_new)?;
    for (table, name) in tables.iter().zip(&names) {
        let sql = format!("DELETE FROM ONLY {name}");
        target.batch_execute(&sql).await.map_err(of_new)?;
        let columns = table.columns.iter();
        let columns = columns.filter(|column| column.default != ColumnDefault::Generated);
        let columns: Vec<_> = columns
            .map(|column| quote_identifier(&column.name))
            .collect();
        let columns = columns.join(", ");
        let sql = format!("COPY (SELECT {columns} FROM ONLY {name}) TO STDOUT");
        let mut rows = pin!(source.copy_out(&sql).await.map_err(of_model)?);
        let sql = format!("COPY {name} ({columns}) FROM STDIN");
        let mut sink = pin!(target.copy_in(&sql).await.map_err(of_new)?);
        while let Some(bytes) = rows.next().await {
            sink.send(bytes.map_err(of_model)?).await.map_err(of_new)?;
        }
        sink.finish().await.map_err(of_new)?;
    }
    let sql = "UPDATE pgring.ownership SET joining = false, epoch = epoch + 1 RETURNING epoch";
    let row = target.query_typed_one(sql, &[]).await.map_err(of_new)?;
    let epoch: i64 = row.try_get(0).map_err(of_new)?;
    target.commit().await.map_err(of_new)?;
    source.rollback().await.map_err(of_model)?;
    Ok(Epoch(epoch as u64))
}

fn name(table: &Relation) -> String {
    format!(
        "{}.{}",
        quote_identifier(&table.schema),
        quote_identifier(&table.name)
    )
}

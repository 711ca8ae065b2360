//! `pgring init`: makes the schema `pgring` on every shard of a new cluster and gives out the slots. In two rounds, so
//! that it can be run again after a crash at any point: first every shard gets its row at epoch 0, which no router
//! believes; when all have one, every row is raised to epoch 1. A shard that stands at epoch 1 or above is never changed.

use super::catalog::{self, CatalogError};
use super::join;
use super::store::{self, StoreError};
use crate::config::{Config, PinTarget};
use crate::topology::ownership::{self, OwnershipProblem, OwnershipRecord};
use crate::topology::ring::{self, Member, RingError};
use crate::topology::schema::Schema;
use crate::topology::shard_map::{self, PinError, PlacementErrors};
use crate::topology::slot::SlotSet;
use crate::topology::{Epoch, ShardId, SlotId};
use futures_util::future::{join_all, try_join_all};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

/// The oldest PostgreSQL whose publications take row filters.
const SERVER_VERSION_MIN: i32 = 150_000;
/// Session-level advisory lock that one `init` at a time holds in each database: the bytes of "pgring".
pub const LOCK_KEY: i64 = 0x7067_7269_6e67;

/// What was made.
#[derive(Debug, Clone)]
pub struct InitReport {
    /// Drawn for this cluster.
    pub cluster_id: Arc<str>,
    /// Each shard with what it owns now, in the order of the map.
    pub shards: Vec<(Arc<str>, SlotSet)>,
    /// Shards that joined a cluster which was there.
    pub joined: Vec<Arc<str>>,
    /// What works, and should not stay so.
    pub warnings: Vec<String>,
}

/// Why nothing was given out. A run that was interrupted, or failed, may be run again.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A shard does not answer.
    #[error("shard {shard} cannot be reached: {reason}")]
    Unreachable {
        /// Its name.
        shard: Arc<str>,
        /// Why.
        reason: String,
    },
    /// A shard said no.
    #[error("shard {shard}: {}", store::reason(.source))]
    Query {
        /// Its name.
        shard: Arc<str>,
        /// What it said.
        source: tokio_postgres::Error,
    },
    /// A shard cannot be one.
    #[error("shard {shard}: {reason}")]
    Unfit {
        /// Its name.
        shard: Arc<str>,
        /// Why not.
        reason: String,
    },
    /// The cluster is not new.
    #[error(
        "shard {shard} belongs to a cluster already: it has a schema pgring, which init never changes"
    )]
    AlreadyInitialized {
        /// The first such shard.
        shard: Arc<str>,
    },
    /// Another init runs, or two shards are one database.
    #[error(
        "shard {shard}: its database is locked by another pgring init, or it is another shard's database too"
    )]
    Locked {
        /// Its name.
        shard: Arc<str>,
    },
    /// A row that an interrupted run left cannot be read.
    #[error("shard {shard}: {source}")]
    Record {
        /// Its name.
        shard: Arc<str>,
        /// What is wrong.
        source: StoreError,
    },
    /// The catalog cannot be used.
    #[error("shard {shard}: {source}")]
    Catalog {
        /// The shard that was asked.
        shard: Arc<str>,
        /// What is wrong.
        source: CatalogError,
    },
    /// A shard that is to join has no tables yet.
    #[error("shard {shard} has no tables: it needs those of shard {model} before it joins")]
    Empty {
        /// The shard.
        shard: Arc<str>,
        /// One that has them.
        model: Arc<str>,
    },
    /// A shard that is to join has other tables.
    #[error("shard {shard} differs from shard {model} in {what}: make them alike before it joins")]
    Differs {
        /// The shard.
        shard: Arc<str>,
        /// One that is as it should be.
        model: Arc<str>,
        /// The first difference.
        what: String,
    },
    /// A router does not know of the shard that is to join.
    #[error(
        "router {router} ({address}) has not loaded a map with shard {shard} within {after:?}: reload it and run pgring init again"
    )]
    Unloaded {
        /// Its id.
        router: i32,
        /// Where it connects from.
        address: String,
        /// The shard.
        shard: Arc<str>,
        /// The limit.
        after: Duration,
    },
    /// The ring has no proposal.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A pin that cannot be followed.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Declarations do not fit the tables that are there.
    #[error(transparent)]
    Placement(#[from] PlacementErrors),
    /// What is on the shards does not fit together.
    #[error("{0}")]
    Ownership(OwnershipProblem),
}

/// One shard under `init`, with its lock held until the connection goes.
pub(super) struct Candidate {
    pub(super) name: Arc<str>,
    pub(super) client: Client,
    facts: Facts,
    pub(super) record: Option<OwnershipRecord>,
}

/// What the shards should have in common.
struct Facts {
    collation: String,
    max_prepared_transactions: i32,
    wal_level: String,
}

/// Gives out the slots of a new cluster: all shards are checked before anything is made.
///
/// # Errors
/// [`InitError`]. Slots are given out on all shards or on none, or the next run ends what this one began.
pub async fn init(config: &Config) -> Result<InitReport, InitError> {
    let mut candidates = Vec::with_capacity(config.shards.len());
    // One after the other: two shards that are the same database are found by the lock.
    for shard in &config.shards {
        candidates.push(examine(config, shard).await?);
    }
    let given_out =
        |candidate: &&Candidate| candidate.record.as_ref().is_some_and(store::is_given_out);
    let is_member = |candidate: &Candidate| {
        let mut record = candidate.record.iter();
        record.any(|record| store::is_given_out(record) && !record.joining)
    };
    let is_new = |candidate: &&Candidate| match &candidate.record {
        None => true,
        Some(record) => record.joining,
    };
    let new: Vec<usize> = (0..candidates.len())
        .filter(|index| is_new(&&candidates[*index]))
        .collect();
    let mut joined = Vec::new();
    let first_done = candidates.iter().find(given_out);
    if candidates.iter().any(is_member) && !new.is_empty() {
        for index in new {
            join::join(config, &mut candidates, index).await?;
            joined.push(candidates[index].name.clone());
        }
    } else if let Some(done) = first_done {
        let is_interrupted = candidates
            .iter()
            .all(|candidate| candidate.record.is_some())
            && candidates.iter().any(|candidate| !given_out(&candidate));
        if !is_interrupted {
            return Err(InitError::AlreadyInitialized {
                shard: done.name.clone(),
            });
        }
    } else {
        make_rows(config, &mut candidates).await?;
    }
    let names: Vec<Arc<str>> = candidates
        .iter()
        .map(|candidate| candidate.name.clone())
        .collect();
    let records: Vec<Option<&OwnershipRecord>> = candidates
        .iter()
        .map(|candidate| candidate.record.as_ref())
        .collect();
    if let Some(problem) = ownership::problems(&names, &records).into_iter().next() {
        return Err(InitError::Ownership(problem));
    }
    let waiting = candidates.iter().filter(|candidate| !given_out(candidate));
    try_join_all(waiting.map(|candidate| async {
        let raise = candidate
            .client
            .batch_execute("UPDATE pgring.ownership SET epoch = 1 WHERE epoch = 0")
            .await;
        raise.map_err(|source| InitError::Query {
            shard: candidate.name.clone(),
            source,
        })
    }))
    .await?;

    let warnings = warnings(&candidates);
    let records = candidates
        .into_iter()
        .filter_map(|candidate| candidate.record);
    let mut report = InitReport {
        cluster_id: "".into(),
        shards: Vec::new(),
        joined,
        warnings,
    };
    for record in records {
        report.cluster_id = record.cluster_id;
        report.shards.push((record.shard, record.owned));
    }
    Ok(report)
}

const FACTS: &str = "
    SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'),
           current_setting('max_prepared_transactions')::int4, current_setting('wal_level'),
           has_database_privilege(current_database(), 'CREATE'),
           concat_ws(' ', to_jsonb(d) ->> 'datlocprovider', d.datcollate, d.datctype,
                     coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
                     to_jsonb(d) ->> 'datcollversion'),
           EXISTS (SELECT FROM pg_namespace WHERE nspname = 'pgring')
    FROM pg_database d WHERE d.datname = current_database()";

/// Connects to a shard and finds out whether it can be one.
async fn examine(config: &Config, shard: &crate::config::Shard) -> Result<Candidate, InitError> {
    let name: Arc<str> = shard.name.as_str().into();
    let unreachable = |reason| InitError::Unreachable {
        shard: name.clone(),
        reason,
    };
    let unfit = |reason| {
        Err(InitError::Unfit {
            shard: name.clone(),
            reason,
        })
    };
    let query = |source| InitError::Query {
        shard: name.clone(),
        source,
    };
    let connecting = store::connection_config(config, shard);
    let connected = timeout(config.pool.connect, connecting.connect(NoTls)).await;
    let connected = connected
        .map_err(|_| unreachable(format!("not connected within {:?}", config.pool.connect)))?;
    let (client, connection) = connected.map_err(|error| unreachable(store::reason(&error)))?;
    tokio::spawn(connection);

    client
        .batch_execute("SET search_path = pg_catalog")
        .await
        .map_err(query)?;
    let locked = client
        .query_typed_one(
            "SELECT pg_try_advisory_lock($1)",
            &[(&LOCK_KEY, Type::INT8)],
        )
        .await;
    if !locked
        .and_then(|row| row.try_get::<_, bool>(0))
        .map_err(query)?
    {
        return Err(InitError::Locked { shard: name });
    }
    let row = client.query_typed_one(FACTS, &[]).await.map_err(query)?;
    let version: i32 = row.try_get(0).map_err(query)?;
    let encoding: String = row.try_get(1).map_err(query)?;
    let may_create: bool = row.try_get(4).map_err(query)?;
    let exists: bool = row.try_get(6).map_err(query)?;
    let facts = Facts {
        max_prepared_transactions: row.try_get(2).map_err(query)?,
        wal_level: row.try_get(3).map_err(query)?,
        collation: row.try_get(5).map_err(query)?,
    };
    if version < SERVER_VERSION_MIN {
        return unfit(format!(
            "PostgreSQL {} is too old: 15 or newer is needed",
            version / 10_000
        ));
    }
    if encoding != "UTF8" {
        return unfit(format!(
            "the database's encoding is {encoding}: UTF8 is needed"
        ));
    }
    let mut record = None;
    if exists {
        let sql = format!("SELECT {} FROM pgring.ownership", store::RECORD);
        let rows = client.query_typed(&sql, &[]).await;
        let Some(row) = rows.ok().and_then(|rows| rows.into_iter().next()) else {
            return Err(InitError::AlreadyInitialized { shard: name });
        };
        record = Some(
            store::read_record(&row).map_err(|source| InitError::Record {
                shard: name.clone(),
                source,
            })?,
        );
    } else if !may_create {
        return unfit(format!(
            "role {} may not create a schema in {}",
            config.backend.user, shard.database
        ));
    }
    Ok(Candidate {
        name,
        client,
        facts,
        record,
    })
}

/// The first round: every shard gets its row at epoch 0, one that has it already too.
async fn make_rows(config: &Config, candidates: &mut [Candidate]) -> Result<(), InitError> {
    let mut unfinished = candidates
        .iter()
        .filter_map(|candidate| candidate.record.as_ref());
    let cluster_id: Arc<str> = match unfinished.next() {
        Some(record) => record.cluster_id.clone(),
        None => draw_cluster_id(candidates).await?,
    };
    let owned = give_out(config, candidates).await?;
    let made = candidates.iter_mut().zip(owned).map(|(candidate, owned)| {
        let cluster_id = cluster_id.clone();
        async move {
            let shard = candidate.name.clone();
            let name = candidate.name.clone();
            let record = OwnershipRecord {
                shard,
                cluster_id,
                epoch: Epoch(0),
                owned,
                fenced: SlotSet::new(),
                closed: SlotSet::new(),
                foreign_slots: SlotSet::new(),
                joining: false,
            };
            let made = make_row(&mut candidate.client, candidate.record.is_none(), &record).await;
            candidate.record = Some(record);
            made.map_err(|source| InitError::Query {
                shard: name,
                source,
            })
        }
    });
    join_all(made).await.into_iter().collect()
}

pub(super) async fn make_row(
    client: &mut Client,
    is_new: bool,
    record: &OwnershipRecord,
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let sql = if is_new {
        transaction.batch_execute(store::CREATE).await?;
        "INSERT INTO pgring.ownership (shard, cluster, epoch, owned, joining) \
         VALUES ($1, $2::text::uuid, $4, $3::text::int4multirange, $5)"
    } else {
        "UPDATE pgring.ownership SET shard = $1, cluster = $2::text::uuid, owned = $3::text::int4multirange, fenced = '{}', \
         joining = $5, epoch = $4 WHERE epoch = 0"
    };
    let owned = record.owned.to_string();
    transaction
        .query_typed(
            sql,
            &[
                (&&*record.shard, Type::TEXT),
                (&&*record.cluster_id, Type::TEXT),
                (&owned, Type::TEXT),
                (&(record.epoch.0 as i64), Type::INT8),
                (&record.joining, Type::BOOL),
            ],
        )
        .await?;
    transaction.commit().await
}

async fn draw_cluster_id(candidates: &[Candidate]) -> Result<Arc<str>, InitError> {
    let Some(first) = candidates.first() else {
        return Err(RingError::NoWeight.into());
    };
    let drawn = first
        .client
        .query_typed_one("SELECT gen_random_uuid()::text", &[])
        .await;
    let drawn = drawn.and_then(|row| row.try_get::<_, String>(0));
    drawn.map(Arc::from).map_err(|source| InitError::Query {
        shard: first.name.clone(),
        source,
    })
}

/// What each shard is to own.
async fn give_out(
    config: &Config,
    candidates: &mut [Candidate],
) -> Result<Vec<SlotSet>, InitError> {
    let shards = config.shards.iter();
    let members: Vec<Member> = shards
        .map(|shard| Member {
            name: shard.name.as_str().into(),
            weight: shard.weight,
        })
        .collect();
    let pins = pins(config, candidates).await?;
    let proposal = ring::propose(&members, config.ring.virtual_nodes, &[], &pins)?;
    let mut owned = vec![SlotSet::new(); members.len()];
    for (slot, shard) in (0u16..).zip(&proposal) {
        owned[usize::from(shard.0)].insert(SlotId(slot));
    }
    Ok(owned)
}

/// The slots of all pins. A key's slot depends on its column, so its table must exist.
async fn pins(
    config: &Config,
    candidates: &mut [Candidate],
) -> Result<BTreeMap<SlotId, ShardId>, InitError> {
    let names = shard_map::shard_names(config);
    let default_shard = names
        .iter()
        .position(|name| **name == *config.cluster.default_shard)
        .unwrap_or_default();
    let pins_keys = config
        .pins
        .iter()
        .any(|pin| matches!(pin.target, PinTarget::Key { .. }));
    let mut schema = Schema::default();
    if pins_keys && let Some(candidate) = candidates.get_mut(default_shard) {
        let loaded = catalog::load(&mut candidate.client).await;
        let loaded = loaded.map_err(|source| InitError::Catalog {
            shard: candidate.name.clone(),
            source,
        })?;
        schema = shard_map::place_all(
            loaded,
            &config.tables,
            &names,
            ShardId(default_shard as u16),
        )?;
    }
    let (pins, errors) = shard_map::pinned_slots(&config.pins, &schema, &names);
    match errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(pins),
    }
}

fn warnings(candidates: &[Candidate]) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some((first, others)) = candidates.split_first() else {
        return warnings;
    };
    for other in others
        .iter()
        .filter(|other| other.facts.collation != first.facts.collation)
    {
        warnings.push(format!(
            "shards {} and {} sort text differently ({}; {}): text is not merge-sorted",
            first.name, other.name, first.facts.collation, other.facts.collation
        ));
    }
    for candidate in candidates {
        if candidate.facts.max_prepared_transactions == 0 {
            warnings.push(format!(
                "shard {}: max_prepared_transactions is 0, so that writes on several shards are refused",
                candidate.name
            ));
        }
        if candidate.facts.wal_level != "logical" {
            warnings.push(format!(
                "shard {}: wal_level is {}; moving slots will need logical",
                candidate.name, candidate.facts.wal_level
            ));
        }
    }
    warnings
}

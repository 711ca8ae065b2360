//! [`Control::reload`]: another shard map while the router runs.

use super::catalog;
use super::control::{self, Control, ControlError};
use super::member::{Member, Reach};
use crate::config::{Config, Shard};
use crate::sql::lex::quote_identifier;
use crate::topology::ShardId;
use crate::topology::schema::{Relation, RelationKind, Schema};
use crate::topology::shard_map;
use crate::topology::slot::SlotSet;
use crate::topology::snapshot::Topology;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why another shard map is not taken over. Nothing is changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// What holds for as long as a router runs.
    #[error("{what} cannot change while the router runs")]
    Fixed {
        /// A key.
        what: &'static str,
    },
    /// A shard is not named any more, and has its slots still.
    #[error("shard {shard} owns slots {slots} still: move them before it leaves the map", slots = .slots.brief())]
    Owns {
        /// Its name.
        shard: Arc<str>,
        /// Which.
        slots: SlotSet,
    },
    /// A shard is not named any more, and has to stay.
    #[error("{0}")]
    Stays(String),
    /// A declaration does not fit the table that is there.
    #[error("{0}")]
    Misfit(String),
    /// The rows of a table are not where the new map would look for them.
    #[error("table {table} has rows already, which do not move with its declaration")]
    HasRows {
        /// Its name with its schema.
        table: String,
    },
    /// A shard could not be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Another map, and what follows from it.
struct Judged {
    config: Arc<Config>,
    /// Those that there are, and new ones.
    members: Vec<Arc<Member>>,
    /// As the map places it.
    schema: Schema,
}

/// What the map says of a shard.
fn declared<'c>(config: &'c Config, member: &Member) -> Option<&'c Shard> {
    let mut shards = config.shards.iter();
    shards.find(|shard| *shard.name == *member.name)
}

impl Control {
    /// Whether another shard map could be taken over now, but for the shards that it has no more.
    ///
    /// # Errors
    /// [`ReloadError`]
    pub async fn check_map(self: &Arc<Self>, map: &Config) -> Result<(), ReloadError> {
        let _loaded = self.loaded.lock().await;
        self.judge(map).await.map(drop)
    }

    /// Takes over another shard map: its shards, tables, pins and ring; all else stays as it was loaded at the start. A
    /// shard keeps its [`ShardId`], a new one gets the next. Call it on the control plane's runtime. What shards need that
    /// the map has no more is the caller's.
    ///
    /// # Errors
    /// [`ReloadError`]; the map that was in force stays.
    pub async fn reload(self: &Arc<Self>, map: &Config) -> Result<(), ReloadError> {
        // Nobody else places the schema meanwhile.
        let _loaded = self.loaded.lock().await;
        let Judged {
            config,
            members,
            schema,
        } = self.judge(map).await?;
        let known_before = self.members.load().len();
        let mut known = self.known();
        for (index, member) in members.iter().enumerate() {
            let Some(declared) = declared(&config, member) else {
                member.left.store(true, Ordering::Relaxed);
                continue;
            };
            member.left.store(false, Ordering::Relaxed);
            let reach = Reach::new(&config, ShardId(index as u16), declared);
            if reach.endpoint != member.reach.load().endpoint {
                member.reach.store(Arc::new(reach));
            }
        }
        known.records.resize(members.len(), None);
        let added = known_before..members.len();
        self.members.store(Arc::new(members));
        self.config.store(config);
        if !catalog::is_same(&known.schema, &schema) {
            known.schema = Arc::new(Schema {
                version: known.schema.version + 1,
                ..schema
            });
        }
        self.publish(&mut known);
        drop(known);
        for shard in added {
            tokio::spawn(control::watch(Arc::downgrade(self), ShardId(shard as u16)));
        }
        Ok(())
    }

    /// What the map comes to, if it can be taken over.
    async fn judge(&self, map: &Config) -> Result<Judged, ReloadError> {
        let before = self.config();
        let config = Arc::new(Config {
            ring: map.ring.clone(),
            shards: map.shards.clone(),
            tables: map.tables.clone(),
            pins: map.pins.clone(),
            ..Config::clone(&before)
        });
        let fixed = [
            ("cluster.name", map.cluster.name == before.cluster.name),
            (
                "cluster.database",
                map.cluster.database == before.cluster.database,
            ),
            (
                "cluster.default_shard",
                map.cluster.default_shard == before.cluster.default_shard,
            ),
        ];
        if let Some((what, _)) = fixed.into_iter().find(|(_, is_same)| !is_same) {
            return Err(ReloadError::Fixed { what });
        }
        let mut members = Vec::clone(&self.members.load());
        for declared in &config.shards {
            if !members.iter().any(|member| *member.name == *declared.name) {
                let shard = ShardId(members.len() as u16);
                let member = Member::new(&config, shard, declared);
                // Until it says that it has a place.
                member.absent.store(true, Ordering::Relaxed);
                members.push(member);
            }
        }
        let leaving = members.iter().zip(self.known().records.clone());
        for (_, record) in leaving.filter(|(member, _)| declared(&config, member).is_none()) {
            if let Some(record) = record.filter(|record| !record.owned.is_empty()) {
                return Err(ReloadError::Owns {
                    shard: record.shard,
                    slots: record.owned,
                });
            }
        }
        let schema = self.declare(&config, &members).await?;
        Ok(Judged {
            config,
            members,
            schema,
        })
    }

    /// The schema as `config` places it.
    async fn declare(
        &self,
        config: &Config,
        members: &[Arc<Member>],
    ) -> Result<Schema, ReloadError> {
        let topology = self.topology.load_full();
        let before = &topology.schema;
        let names: Vec<_> = members.iter().map(|member| member.name.clone()).collect();
        let schema = Schema::clone(before);
        let (schema, _) = shard_map::place(schema, &config.tables, &names, topology.default_shard);
        let mut misfits = schema.misfits.iter();
        if let Some((_, reason)) = misfits.find(|(name, _)| !before.misfits.contains_key(*name)) {
            return Err(ReloadError::Misfit(reason.to_string()));
        }
        let relations = schema.relations.values().flat_map(HashMap::values);
        for relation in relations.filter(|relation| relation.kind == RelationKind::Table) {
            let was = before.relations.get(&relation.schema);
            let was = was.and_then(|tables| tables.get(&relation.name));
            if was.is_some_and(|was| was.placement != relation.placement)
                && self.has_rows(relation, &topology).await?
            {
                let table = format!("{}.{}", relation.schema, relation.name);
                return Err(ReloadError::HasRows { table });
            }
        }
        Ok(schema)
    }

    async fn has_rows(&self, table: &Relation, topology: &Topology) -> Result<bool, ControlError> {
        let (schema, name) = (
            quote_identifier(&table.schema),
            quote_identifier(&table.name),
        );
        let sql = format!("SELECT EXISTS (SELECT FROM {schema}.{name})");
        for shard in topology.shard_ids() {
            let rows = self.query(shard, &sql, &[]).await?;
            let found = rows.first().and_then(|row| row.try_get(0).ok());
            if found != Some(false) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

//! Edits of the shard map's file, and taking them over at once. The file is left as a person has written it, but for what the
//! command says; it is not touched if it is wrong, before or after, or if this router has loaded another.

use super::AdminError;
use super::answer::{Answer, row};
use super::cluster;
use super::map_change::{MapChange, TableName};
use crate::config::edit::{self, Edit};
use crate::config::rewrite::{Rewrite, RewriteError};
use crate::config::{Address, Config, Pin, PinTarget, SHARDS_FILE, Shard, TableKind};
use crate::router::Router;
use crate::topology::key_value::KeyValue;
use crate::topology::snapshot::Topology;
use crate::topology::{SlotId, hash, shard_map};
use std::sync::Arc;

/// What a command comes to.
enum Decision {
    /// It is so already, for this reason.
    Nothing(String),
    /// These edits, and what people should hear of them.
    Edits(Vec<Edit>, Vec<String>),
}

/// Why the map stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file is not what the router has loaded.
    #[error("{SHARDS_FILE} is not what this router has loaded: nothing is changed")]
    NotLoaded {
        /// Keys that differ.
        keys: Vec<String>,
    },
    /// Somebody edited the file meanwhile.
    #[error("{SHARDS_FILE} was edited meanwhile: nothing is changed")]
    Touched,
    /// The shard is declared otherwise.
    #[error("shard \"{0}\" is declared already")]
    Declared(String),
    /// Something in the map needs the shard.
    #[error("shard \"{shard}\" cannot be {what}: {why}")]
    Needed {
        /// Its name.
        shard: String,
        /// What was asked for.
        what: &'static str,
        /// What needs it.
        why: String,
    },
    /// A pin that cannot be followed.
    #[error("the key cannot be pinned: {0}")]
    Pin(shard_map::PinReason),
    /// The map would be wrong.
    #[error("the shard map would be wrong: nothing is changed")]
    Wrong(crate::config::ConfigError),
    /// The text cannot be edited.
    #[error("{SHARDS_FILE} has to be edited by hand: {0}")]
    Text(#[from] edit::EditError),
    /// The file cannot be read or written.
    #[error("nothing is changed: {0}")]
    File(#[from] RewriteError),
}

/// Does what the command says. It goes on to its end although the operator leaves.
pub(super) async fn change(router: &Arc<Router>, change: &MapChange) -> Result<Answer, AdminError> {
    let (router, change) = (router.clone(), change.clone());
    let control = router.control.clone();
    let done = control.run(async move { Ok(edit_map(&router, &change).await) });
    done.await?
}

async fn edit_map(router: &Arc<Router>, change: &MapChange) -> Result<Answer, AdminError> {
    let _alone = router.editing.lock().await;
    let loaded = router.control.config();
    let file = loaded.directory.join(SHARDS_FILE);
    let mut rewrite = blocking(move || Rewrite::begin(&file)).await?;
    let before = Config::with_shards(&loaded.directory, rewrite.text().to_owned())?;
    let keys: Vec<String> = loaded
        .differences(&before)
        .into_iter()
        .map(|difference| difference.key)
        .filter(|key| is_of_map(key))
        .collect();
    if !keys.is_empty() {
        return Err(MapError::NotLoaded { keys }.into());
    }
    let topology = router.topology();
    let (edits, mut notices) = match decide(router, &topology, change, &before)? {
        Decision::Nothing(why) => return Ok(Answer::notice(format!("{why}: nothing is changed"))),
        Decision::Edits(edits, notices) => (edits, notices),
    };
    let text = edit::apply(rewrite.text(), &edits).map_err(MapError::from)?;
    let after = Config::with_shards(&loaded.directory, text.clone()).map_err(MapError::Wrong)?;
    check_pins(&topology, &before, &after)?;
    let mut rewrite = blocking(move || {
        rewrite.prepare(&text)?;
        Ok(rewrite)
    })
    .await?;
    let after = Arc::new(after);
    router.reload(after.clone()).await?;
    let replaced = blocking(move || match rewrite.is_untouched()? {
        true => rewrite.replace().map(|()| true),
        false => Ok(false),
    });
    let replaced = match replaced.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(MapError::Touched.into()),
        Err(error) => Err(error),
    };
    if let Err(error) = replaced {
        router.reload(Arc::new(before)).await?;
        return Err(error);
    }
    notices.push(format!(
        "{SHARDS_FILE} of this router is changed; other routers go by theirs"
    ));
    let differences = before.differences(&after).into_iter();
    let rows = differences.map(|difference| {
        row![
            difference.key,
            difference.before,
            difference.after,
            "taken over"
        ]
    });
    let rows = rows.collect();
    Ok(Answer { rows, notices })
}

/// Whether a key of the settings stands in the shard map's file.
fn is_of_map(key: &str) -> bool {
    let sections = ["cluster.", "ring.", "shard.", "table.", "pin."];
    sections.iter().any(|section| key.starts_with(section))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RewriteError> + Send + 'static,
) -> Result<T, AdminError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done.map_err(MapError::from)?),
        Err(_) => Err(crate::backend::control::ControlError::Closed.into()),
    }
}

fn decide(
    router: &Router,
    topology: &Topology,
    change: &MapChange,
    map: &Config,
) -> Result<Decision, AdminError> {
    match change {
        MapChange::AddShard {
            name,
            nodes,
            database,
            weight,
        } => add_shard(map, name, nodes, database.as_deref(), *weight),
        MapChange::DrainShard(name) => drain_shard(map, name),
        MapChange::RemoveShard(name) => remove_shard(map, name),
        MapChange::PinKey { key, table, shard } => {
            let key = Key::of(router, topology, map, key, table)?;
            key.pin(topology, map, shard)
        }
        MapChange::UnpinKey { key, table } => {
            let key = Key::of(router, topology, map, key, table)?;
            key.unpin(topology, map)
        }
    }
}

fn add_shard(
    map: &Config,
    name: &str,
    nodes: &[Address],
    database: Option<&str>,
    weight: Option<u32>,
) -> Result<Decision, AdminError> {
    let wanted = Shard {
        name: name.to_owned(),
        weight: weight.unwrap_or(1),
        database: database.unwrap_or(&map.cluster.database).to_owned(),
        nodes: nodes.to_vec(),
    };
    if let Some((_, declared)) = declared(map, name) {
        return match *declared == wanted {
            true => Ok(Decision::Nothing(format!(
                "shard \"{name}\" is declared so already"
            ))),
            false => Err(MapError::Declared(name.to_owned()).into()),
        };
    }
    let edit = Edit::AddShard {
        name: wanted.name,
        nodes: nodes.iter().map(ToString::to_string).collect(),
        database: database.map(str::to_owned),
        weight,
    };
    let notice = "let every router load a map that names it, then run pgring init: it has no place in the cluster before that";
    Ok(Decision::Edits(vec![edit], vec![notice.to_owned()]))
}

fn drain_shard(map: &Config, name: &str) -> Result<Decision, AdminError> {
    let (shard, declared) =
        declared(map, name).ok_or_else(|| AdminError::NoShard(name.to_owned()))?;
    if declared.weight == 0 && pins_to(map, name).is_empty() {
        return Ok(Decision::Nothing(format!(
            "shard \"{name}\" has the weight 0 already"
        )));
    }
    refuse_if_needed(name, "drained", pins_to(map, name))?;
    refuse_if_needed(name, "drained", sole_weight(map, name))?;
    let mut notices = vec!["REBALANCE moves its slots to the others".to_owned()];
    let local = local_tables(map, name);
    if !local.is_empty() {
        notices.push(format!("what stays: {}", local.join(", ")));
    }
    let weigh = Edit::Weigh { shard, weight: 0 };
    Ok(Decision::Edits(vec![weigh], notices))
}

fn remove_shard(map: &Config, name: &str) -> Result<Decision, AdminError> {
    let Some((shard, _)) = declared(map, name) else {
        return Ok(Decision::Nothing(format!(
            "the shard map has no shard \"{name}\""
        )));
    };
    for needs in [
        local_tables(map, name),
        pins_to(map, name),
        sole_weight(map, name),
    ] {
        refuse_if_needed(name, "removed", needs)?;
    }
    let notice = "give the command on every router before the shard's server goes";
    let edits = vec![Edit::RemoveShard(shard)];
    Ok(Decision::Edits(edits, vec![notice.to_owned()]))
}

fn declared<'c>(map: &'c Config, name: &str) -> Option<(usize, &'c Shard)> {
    let mut shards = map.shards.iter().enumerate();
    shards.find(|(_, shard)| shard.name == name)
}

fn refuse_if_needed(shard: &str, what: &'static str, why: Vec<String>) -> Result<(), MapError> {
    if why.is_empty() {
        return Ok(());
    }
    Err(MapError::Needed {
        shard: shard.to_owned(),
        what,
        why: why.join(", "),
    })
}

/// What lies on the shard by name.
fn local_tables(map: &Config, name: &str) -> Vec<String> {
    let mut needs = Vec::new();
    if map.cluster.default_shard == name {
        needs.push("it is the default shard, home of what is not declared".to_owned());
    }
    let here = |kind: &TableKind| matches!(kind, TableKind::Local { shard } if shard == name);
    let tables = map.tables.iter().filter(|table| here(&table.kind));
    needs.extend(
        tables.map(|table| format!("table {}.{} is local there", table.schema, table.name)),
    );
    needs
}

fn pins_to(map: &Config, name: &str) -> Vec<String> {
    let pins = map.pins.iter().filter(|pin| pin.shard == name);
    pins.map(|pin| match &pin.target {
        PinTarget::Key { schema, table, key } => {
            format!("key {key} of {schema}.{table} is pinned there")
        }
        PinTarget::Slots { first, last } => format!("slots {first}-{last} are pinned there"),
    })
    .collect()
}

fn sole_weight(map: &Config, name: &str) -> Vec<String> {
    let others = map.shards.iter().filter(|shard| shard.name != name);
    match others.map(|shard| shard.weight).max() {
        Some(1..) => Vec::new(),
        Some(0) | None => vec!["no other has a weight above 0".to_owned()],
    }
}

/// A key of a sharded table.
struct Key {
    schema: String,
    table: String,
    /// As given.
    text: String,
    slot: SlotId,
    /// Its pins, by their place in the map.
    pins: Vec<usize>,
}

impl Key {
    fn of(
        router: &Router,
        topology: &Topology,
        map: &Config,
        text: &str,
        table: &TableName,
    ) -> Result<Self, AdminError> {
        let (relation, key_type) = cluster::sharded_table(router, &topology.schema, table)?;
        let value = KeyValue::from_text(key_type, text).map_err(|source| AdminError::Key {
            key: text.to_owned(),
            source,
        })?;
        // However it is written.
        let is_pin = |pin: &Pin| match &pin.target {
            PinTarget::Key { schema, table, key } => {
                *schema == *relation.schema
                    && *table == *relation.name
                    && KeyValue::from_text(key_type, key).as_ref() == Ok(&value)
            }
            PinTarget::Slots { .. } => false,
        };
        let pins = map.pins.iter().enumerate();
        let pins = pins.filter(|(_, pin)| is_pin(pin)).map(|(place, _)| place);
        Ok(Self {
            schema: relation.schema.to_string(),
            table: relation.name.to_string(),
            text: text.to_owned(),
            slot: hash::slot(&value),
            pins: pins.collect(),
        })
    }

    fn name(&self) -> String {
        let Self {
            schema,
            table,
            text,
            ..
        } = self;
        format!("key {text} of {schema}.{table}")
    }

    fn pin(&self, topology: &Topology, map: &Config, shard: &str) -> Result<Decision, AdminError> {
        if declared(map, shard).is_none() {
            return Err(AdminError::NoShard(shard.to_owned()));
        }
        let elsewhere = self
            .pins
            .iter()
            .filter(|pin| map.pins[**pin].shard != shard);
        let repin = |pin: &usize| Edit::Repin {
            pin: *pin,
            shard: shard.to_owned(),
        };
        let mut edits: Vec<Edit> = elsewhere.map(repin).collect();
        if self.pins.is_empty() {
            edits.push(Edit::AddPin {
                table: format!("{}.{}", self.schema, self.table),
                key: self.text.clone(),
                shard: shard.to_owned(),
            });
        }
        if edits.is_empty() {
            let name = self.name();
            return Ok(Decision::Nothing(format!(
                "{name} is pinned to {shard} already"
            )));
        }
        let (owner, _) = cluster::owner_in_words(topology, topology.owner(self.slot));
        let slot = self.slot.0;
        let notice = match owner {
            Some(owner) if owner == shard => format!("slot {slot} is there already"),
            Some(owner) => format!("slot {slot} is on {owner} still: REBALANCE moves it"),
            None => format!("nobody owns slot {slot}"),
        };
        Ok(Decision::Edits(edits, vec![notice]))
    }

    fn unpin(&self, topology: &Topology, map: &Config) -> Result<Decision, AdminError> {
        if self.pins.is_empty() {
            return Ok(Decision::Nothing(format!("{} is not pinned", self.name())));
        }
        // From the last: places before it stay what they are.
        let places = self.pins.iter().rev();
        let edits = places.map(|place| Edit::RemovePin(*place)).collect();
        let mut left = map.pins.iter().enumerate();
        let names: Vec<Arc<str>> = shard_map::shard_names(map);
        let pinned_by = left.find(|(place, pin)| {
            let alone = std::slice::from_ref(*pin);
            let (slots, _) = shard_map::pinned_slots(alone, &topology.schema, &names);
            !self.pins.contains(place) && slots.contains_key(&self.slot)
        });
        let slot = self.slot.0;
        let notice = match pinned_by {
            Some((_, pin)) => format!("another pin holds slot {slot} on {}", pin.shard),
            None => format!("slot {slot} stays where it is until a rebalance has a use for it"),
        };
        Ok(Decision::Edits(edits, vec![notice]))
    }
}

/// Refuses a map with a pin that cannot be followed, and that the map before has not.
fn check_pins(topology: &Topology, before: &Config, after: &Config) -> Result<(), MapError> {
    let errors = |map: &Config| {
        let names = shard_map::shard_names(map);
        shard_map::pinned_slots(&map.pins, &topology.schema, &names).1
    };
    let known: Vec<_> = errors(before)
        .into_iter()
        .map(|error| error.reason)
        .collect();
    let mut reasons = errors(after).into_iter().map(|error| error.reason);
    match reasons.find(|reason| !known.contains(reason)) {
        Some(reason) => Err(MapError::Pin(reason)),
        None => Ok(()),
    }
}

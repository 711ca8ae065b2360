//! [`Config::settings`]: what the files say as keys and values in words, for people who look at them or compare two
//! versions. Secrets are not among the words, only that they differ.

use super::document::Document;
use super::load::{LISTEN_FILE, SHARDS_FILE};
use super::unit::{print_bytes, print_duration};
use super::*;
use std::collections::BTreeMap;

/// What a secret is shown as.
const HIDDEN: &str = "(hidden)";

/// One key of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its path, such as `pool.size` or `shard.s0.weight`.
    pub key: String,
    /// Its value in words.
    pub value: String,
    /// What it is where the files do not say; None for what they must say.
    pub default: Option<String>,
    /// Whether a running router can take over another value.
    pub changeable: bool,
}

/// A key whose value is another in another version of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its path.
    pub key: String,
    /// What it was; None if it was not there.
    pub before: Option<String>,
    /// What it is; None if it is not there any more.
    pub after: Option<String>,
    /// Whether a running router can take it over.
    pub changeable: bool,
}

impl Config {
    /// Every key, in the order of the files.
    pub fn settings(&self) -> Vec<Setting> {
        let defaults: BTreeMap<String, String> = minimal()
            .map(|config| config.keys())
            .unwrap_or_default()
            .into_iter()
            .filter(|(key, _)| !is_named(key))
            .collect();
        let keys = self.keys().into_iter();
        keys.map(|(key, value)| Setting {
            default: defaults.get(&key).filter(|_| !must_be_said(&key)).cloned(),
            changeable: is_changeable(&key),
            key,
            value,
        })
        .collect()
    }

    /// What another version of the files says otherwise, in the order of the keys.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) = (
            self.keys().into_iter().collect(),
            other.keys().into_iter().collect(),
        );
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let mut differences: Vec<Difference> = keys
            .into_iter()
            .filter(|key| before.get(*key) != after.get(*key))
            .map(|key| Difference {
                before: before.get(key).cloned(),
                after: after.get(key).cloned(),
                changeable: is_changeable(key),
                key: key.clone(),
            })
            .collect();
        let mut secret = |key: String| {
            differences.push(Difference {
                before: Some(HIDDEN.to_owned()),
                after: Some("(another)".to_owned()),
                changeable: is_changeable(&key),
                key,
            });
        };
        for user in &self.users {
            if let Some(Login::Password(after)) = other.user(&user.name).map(|user| &user.login)
                && let Login::Password(before) = &user.login
                && before != after
            {
                secret(format!("user.{}.password", user.name));
            }
        }
        if let (Some(before), Some(after)) = (&self.backend.password, &other.backend.password)
            && before != after
        {
            secret("backend.password".to_owned());
        }
        differences
    }

    fn keys(&self) -> Vec<(String, String)> {
        let mut keys = Keys(Vec::new());
        let Self {
            directory: _,
            listen,
            users,
            backend,
            pool,
            limits,
            merge,
            state,
            recovery,
            deadlock,
            snapshot,
            rebalance,
            cluster,
            ring,
            shards,
            tables,
            pins,
        } = self;
        keys.add("listen.address", &listen.address);
        if let Some(address) = &listen.admin_http {
            keys.add("listen.admin_http", address);
        }
        keys.add("listen.workers", listen.workers);
        for user in users {
            let name = |key: &str| format!("user.{}.{key}", user.name);
            match &user.login {
                Login::Trust => keys.add(&name("trust"), true),
                Login::Password(_) => keys.add(&name("password"), HIDDEN),
            }
            keys.add(&name("admin"), user.admin);
            keys.add(&name("monitor"), user.monitor);
        }
        keys.add("backend.user", &backend.user);
        if backend.password.is_some() {
            keys.add("backend.password", HIDDEN);
        }
        let BackendTls::Disable = backend.tls;
        keys.add("backend.tls", "disable");
        let mode = match pool.mode {
            PoolMode::Transaction => "transaction",
            PoolMode::Session => "session",
        };
        keys.add("pool.mode", mode);
        keys.add("pool.size", pool.size);
        keys.add("pool.pinned", pool.pinned);
        keys.duration("pool.wait", pool.wait);
        keys.duration("pool.pause", pool.pause);
        keys.duration("pool.connect", pool.connect);
        keys.duration("pool.idle", pool.idle);
        keys.duration("pool.lifetime", pool.lifetime);
        keys.limits(limits);
        let Merge::Shards = merge;
        keys.add("merge.on", "shards");
        keys.add("state.file", state.file.display());
        keys.duration("recovery.interval", recovery.interval);
        keys.duration("deadlock.timeout", deadlock.timeout);
        keys.duration("snapshot.wait", snapshot.wait);
        keys.duration("rebalance.fence_wait", rebalance.fence_wait);
        keys.duration("rebalance.silence", rebalance.silence);
        keys.add("rebalance.wal_bytes", print_bytes(rebalance.wal_bytes));
        keys.add("cluster.name", &cluster.name);
        keys.add("cluster.database", &cluster.database);
        keys.add("cluster.default_shard", &cluster.default_shard);
        keys.add("ring.virtual_nodes", ring.virtual_nodes);
        for shard in shards {
            let name = |key: &str| format!("shard.{}.{key}", shard.name);
            let nodes: Vec<String> = shard.nodes.iter().map(ToString::to_string).collect();
            keys.add(&name("weight"), shard.weight);
            keys.add(&name("database"), &shard.database);
            keys.add(&name("nodes"), nodes.join(", "));
        }
        for table in tables {
            let words = match &table.kind {
                TableKind::Sharded {
                    key,
                    unique_per_shard: false,
                } => format!("sharded by {key}"),
                TableKind::Sharded {
                    key,
                    unique_per_shard: true,
                } => format!("sharded by {key}, unique per shard"),
                TableKind::Reference => "reference".to_owned(),
                TableKind::Local { shard } => format!("local on {shard}"),
            };
            keys.add(&format!("table.{}.{}", table.schema, table.name), words);
        }
        for pin in pins {
            let target = match &pin.target {
                PinTarget::Key { schema, table, key } => format!("{schema}.{table} key {key}"),
                PinTarget::Slots { first, last } => format!("slots {first}-{last}"),
            };
            keys.add(&format!("pin.{target}"), &pin.shard);
        }
        keys.0
    }
}

struct Keys(Vec<(String, String)>);

impl Keys {
    fn add(&mut self, key: &str, value: impl ToString) {
        self.0.push((key.to_owned(), value.to_string()));
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.add(key, print_duration(value));
    }

    fn limits(&mut self, limits: &Limits) {
        let mut bytes = |key: &str, value: usize| {
            self.add(&format!("limits.{key}"), print_bytes(value as u64));
        };
        bytes("frame_bytes", limits.frame_bytes);
        bytes("request_bytes", limits.request_bytes);
        bytes("statement_bytes", limits.statement_bytes);
        bytes("merge_bytes", limits.merge_bytes);
        bytes("merge_bytes_total", limits.merge_bytes_total);
        bytes("copy_buffer_bytes", limits.copy_buffer_bytes);
        bytes("block_bytes", limits.block_bytes);
        let mut count = |key: &str, value: usize| self.add(&format!("limits.{key}"), value);
        count("clients", limits.clients);
        count("unauthenticated_clients", limits.unauthenticated_clients);
        count("statement_tokens", limits.statement_tokens);
        count("statement_depth", limits.statement_depth);
        count("prepared_statements", limits.prepared_statements);
        count("portals", limits.portals);
        count(
            "backend_prepared_statements",
            limits.backend_prepared_statements,
        );
        count("cached_plans", limits.cached_plans);
        self.duration("limits.login", limits.login);
    }
}

/// Keys below something that the files name.
fn is_named(key: &str) -> bool {
    ["user.", "shard.", "table.", "pin."]
        .iter()
        .any(|section| key.starts_with(section))
}

fn must_be_said(key: &str) -> bool {
    ["backend.user", "cluster.name", "cluster.database"].contains(&key)
}

/// What [`crate::backend::control::Control::reload`] takes over: the shard map.
fn is_changeable(key: &str) -> bool {
    ["shard.", "table.", "pin.", "ring."]
        .iter()
        .any(|section| key.starts_with(section))
}

/// Files that say only what they must.
fn minimal() -> Option<Config> {
    let document = |file: &str, text: &str| Document::new(file.into(), text.to_owned());
    let listen = "[[user]]\nname = \"user\"\ntrust = true\n[backend]\nuser = \"user\"\n";
    let shards =
        "[cluster]\nname = \"c\"\ndatabase = \"d\"\n[[shard]]\nname = \"s\"\nnodes = [\"h:1\"]\n";
    Config::read(
        std::path::Path::new(""),
        document(LISTEN_FILE, listen),
        document(SHARDS_FILE, shards),
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn example() -> Config {
        Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shard-config")).unwrap()
    }

    #[test]
    fn settings_show_values_and_defaults_and_no_secret() {
        let mut config = example();
        config.pool.size = 7;
        let settings = config.settings();
        let of = |key: &str| {
            let setting = settings.iter().find(|setting| setting.key == key);
            setting.unwrap_or_else(|| panic!("no {key}")).clone()
        };
        let size = of("pool.size");
        assert_eq!(
            (size.value.as_str(), size.default.as_deref()),
            ("7", Some("20"))
        );
        assert!(!size.changeable);
        assert_eq!(of("pool.pause").value, "2min");
        assert_eq!(of("limits.frame_bytes").default.as_deref(), Some("1GB"));
        assert_eq!(of("user.app.password").value, HIDDEN);
        assert_eq!(of("cluster.name").default, None);
        assert!(of("table.public.orders").changeable);
        assert!(!format!("{settings:?}").contains("SCRAM"));
    }

    #[test]
    fn two_versions_differ_in_what_was_edited() {
        let (before, mut after) = (example(), example());
        assert_eq!(before.differences(&after), []);
        after.pool.size = 30;
        after.shards[0].weight = 9;
        after.tables.pop();
        after.users[0].login = Login::Password(Secret::Password("another".to_owned()));
        let found = before.differences(&after);
        let keys: Vec<(&str, bool)> = found
            .iter()
            .map(|difference| (difference.key.as_str(), difference.changeable))
            .collect();
        let table = keys.iter().find(|(key, _)| key.starts_with("table."));
        assert!(table.is_some_and(|(_, changeable)| *changeable));
        assert!(keys.contains(&("pool.size", false)));
        assert!(keys.contains(&("shard.s0.weight", true)));
        assert!(keys.contains(&("user.app.password", false)));
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert!(!format!("{found:?}").contains("another\""));
    }
}

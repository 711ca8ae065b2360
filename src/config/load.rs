//! Reads and checks the two files. Every problem of both is found in one pass.

use super::document::{Document, Section, Value, nearest};
use super::*;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;

/// The file with listeners, users, pools and limits.
pub const LISTEN_FILE: &str = "pgring.toml";
/// The file with shards, tables and pins.
pub const SHARDS_FILE: &str = "shards.toml";

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Longest name that PostgreSQL keeps whole, in bytes.
const IDENTIFIER_BYTES_MAX: usize = 63;
const SHARDS_MAX: usize = 1024;
const VIRTUAL_NODES: RangeInclusive<u64> = 1..=1000;
const WEIGHT: RangeInclusive<u64> = 0..=100;
const SLOT_LAST: u16 = 16383;
/// The database name that the console answers to.
pub const CONSOLE_DATABASE: &str = "pgring";

impl Config {
    /// Reads `pgring.toml` and `shards.toml` in `directory`.
    ///
    /// # Errors
    ///
    /// Every problem found in both files, each with its file, line and key.
    pub fn load(directory: &Path) -> Result<Self, ConfigError> {
        let listen_file = Document::read(directory.join(LISTEN_FILE));
        let shards_file = Document::read(directory.join(SHARDS_FILE));
        Self::read(directory, listen_file, shards_file)
    }

    /// The same with this text in place of `shards.toml`'s.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn with_shards(directory: &Path, shards: String) -> Result<Self, ConfigError> {
        let listen_file = Document::read(directory.join(LISTEN_FILE));
        let shards_file = Document::new(directory.join(SHARDS_FILE), shards);
        Self::read(directory, listen_file, shards_file)
    }

    pub(super) fn read(
        directory: &Path,
        listen_file: Document,
        shards_file: Document,
    ) -> Result<Self, ConfigError> {
        let listen_half = read_listen_file(directory, &listen_file);
        let shards_half = read_shards_file(&shards_file);
        let clean = listen_file.is_clean() && shards_file.is_clean();
        let (Some(listen_half), Some(shards_half), true) = (listen_half, shards_half, clean) else {
            let mut problems = listen_file.into_problems();
            problems.append(&mut shards_file.into_problems());
            return Err(ConfigError { problems });
        };
        let ListenFile {
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
        } = listen_half;
        let ShardsFile {
            cluster,
            ring,
            shards,
            tables,
            pins,
        } = shards_half;
        let directory = directory.to_owned();
        Ok(Self {
            directory,
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
        })
    }
}

/// What `pgring.toml` says. Where a problem was reported a field holds a placeholder.
struct ListenFile {
    listen: Listen,
    users: Vec<User>,
    backend: Backend,
    pool: Pool,
    limits: Limits,
    merge: Merge,
    state: State,
    recovery: Recovery,
    deadlock: Deadlock,
    snapshot: Snapshot,
    rebalance: Rebalance,
}

/// What `shards.toml` says. Where a problem was reported a field holds a placeholder.
struct ShardsFile {
    cluster: Cluster,
    ring: Ring,
    shards: Vec<Shard>,
    tables: Vec<TableDeclaration>,
    pins: Vec<Pin>,
}

fn read_listen_file(directory: &Path, document: &Document) -> Option<ListenFile> {
    let table = document.parse()?;
    let mut root = document.root(&table);
    let file = ListenFile {
        listen: read_listen(root.section("listen")),
        users: read_users(&mut root, directory),
        backend: read_backend(root.section("backend"), directory),
        pool: read_pool(root.section("pool")),
        limits: read_limits(root.section("limits")),
        merge: read_merge(root.section("merge")),
        state: read_state(root.section("state"), directory),
        recovery: read_recovery(root.section("recovery")),
        deadlock: read_deadlock(root.section("deadlock")),
        snapshot: read_snapshot(root.section("snapshot")),
        rebalance: read_rebalance(root.section("rebalance")),
    };
    root.finish();
    Some(file)
}

fn read_shards_file(document: &Document) -> Option<ShardsFile> {
    let table = document.parse()?;
    let mut root = document.root(&table);
    let mut section = root.section("cluster");
    let name = section
        .required("name")
        .and_then(|value| value.parse(short_name))
        .unwrap_or_default();
    let database = read_cluster_database(&mut section);
    let ring = read_ring(root.section("ring"));
    let shards = read_shards(&mut root, &database);
    let known = Shards(&shards);
    let first = shards
        .first()
        .map(|shard| shard.name.clone())
        .unwrap_or_default();
    let default_shard = section
        .value("default_shard")
        .and_then(|value| known.named(&value))
        .unwrap_or(first);
    section.finish();
    let tables = read_tables(&mut root, known, &default_shard);
    let pins = read_pins(&mut root, known, &tables);
    root.finish();
    Some(ShardsFile {
        cluster: Cluster {
            name,
            database,
            default_shard,
        },
        ring,
        shards,
        tables,
        pins,
    })
}

fn read_listen(mut section: Section<'_>) -> Listen {
    let default = Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 6432,
    };
    let mut tcp = |name| {
        let value = section.value(name)?;
        let address = value.address()?;
        if matches!(address, Address::Unix { .. }) {
            value.problem("must be \"host:port\"".to_owned());
        }
        Some(address)
    };
    let (address, admin_http) = (tcp("address").unwrap_or(default), tcp("admin_http"));
    let listen = Listen {
        address,
        admin_http,
        workers: section.count("workers", 0..=1024, 0),
    };
    if let Some(value) = section.value("tls") {
        value.problem("TLS for clients is not supported yet".to_owned());
    }
    section.finish();
    listen
}

fn read_users(root: &mut Section<'_>, directory: &Path) -> Vec<User> {
    let mut users = Vec::new();
    let mut seen = Seen::default();
    for mut section in root.sections("user") {
        let name = unique_identifier(&mut section, "name", &mut seen);
        let trust = section.boolean("trust", false);
        let password = section.value("password");
        let login = match (&password, trust) {
            (Some(value), true) => {
                value.problem("contradicts trust = true: give one of them".to_owned());
                None
            }
            (Some(value), false) => value
                .parse(|text| Secret::resolve(text, directory))
                .map(Login::Password),
            (None, true) => Some(Login::Trust),
            (None, false) => {
                section.report(
                    "password",
                    "is missing (trust = true lets the user in without one)".to_owned(),
                );
                None
            }
        };
        let admin = section.boolean("admin", false);
        let monitor = section.boolean("monitor", false);
        section.finish();
        users.push(User {
            name,
            login: login.unwrap_or(Login::Trust),
            admin,
            monitor,
        });
    }
    if users.is_empty() {
        root.report("user", "there must be at least one [[user]]".to_owned());
    }
    users
}

fn read_backend(mut section: Section<'_>, directory: &Path) -> Backend {
    let user = section
        .required("user")
        .and_then(|value| value.parse(identifier))
        .unwrap_or_default();
    let secret = |text: &str| match Secret::resolve(text, directory)? {
        Secret::Verifier(_) => {
            Err("must be the password itself: a verifier cannot log in".to_owned())
        }
        secret => Ok(secret),
    };
    let password = section
        .value("password")
        .and_then(|value| value.parse(secret));
    if let Some(value) = section.value("tls") {
        value.parse(|text| match text {
            "disable" => Ok(()),
            "prefer" | "require" | "verify-ca" | "verify-full" => Err(format!(
                "\"{text}\" is not supported yet: only \"disable\" is"
            )),
            _ => Err("must be \"disable\"".to_owned()),
        });
    }
    section.finish();
    Backend {
        user,
        password,
        tls: BackendTls::Disable,
    }
}

fn read_pool(mut section: Section<'_>) -> Pool {
    let mode = |text: &str| match text {
        "transaction" => Ok(PoolMode::Transaction),
        "session" => Ok(PoolMode::Session),
        _ => Err("must be \"transaction\" or \"session\"".to_owned()),
    };
    let size = section.count("size", 1..=10_000, 20);
    let pool = Pool {
        mode: section
            .value("mode")
            .and_then(|value| value.parse(mode))
            .unwrap_or(PoolMode::Transaction),
        size,
        pinned: section.count("pinned", 0..=size as u64, size.div_ceil(2)),
        wait: section.duration("wait", MS..=HOUR, 5 * SECOND),
        pause: section.duration("pause", MS..=HOUR, 120 * SECOND),
        connect: section.duration("connect", 10 * MS..=HOUR, 5 * SECOND),
        idle: section.duration("idle", SECOND..=30 * DAY, 600 * SECOND),
        lifetime: section.duration("lifetime", SECOND..=30 * DAY, HOUR),
    };
    section.finish();
    pool
}

fn read_limits(mut section: Section<'_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        clients: section.count("clients", 1..=1_000_000, default.clients),
        unauthenticated_clients: section.count(
            "unauthenticated_clients",
            1..=1_000_000,
            default.unauthenticated_clients,
        ),
        login: section.duration("login", 100 * MS..=600 * SECOND, default.login),
        frame_bytes: section.bytes(
            "frame_bytes",
            64 << 10..=i32::MAX as u64,
            default.frame_bytes,
        ),
        request_bytes: section.bytes(
            "request_bytes",
            64 << 10..=i32::MAX as u64,
            default.request_bytes,
        ),
        statement_bytes: section.bytes(
            "statement_bytes",
            1 << 10..=64 << 20,
            default.statement_bytes,
        ),
        statement_tokens: section.count(
            "statement_tokens",
            100..=10_000_000,
            default.statement_tokens,
        ),
        statement_depth: section.count("statement_depth", 10..=1000, default.statement_depth),
        merge_bytes: section.bytes("merge_bytes", 64 << 10..=1 << 40, default.merge_bytes),
        merge_bytes_total: section.bytes(
            "merge_bytes_total",
            64 << 10..=1 << 40,
            default.merge_bytes_total,
        ),
        copy_buffer_bytes: section.bytes(
            "copy_buffer_bytes",
            8 << 10..=1 << 30,
            default.copy_buffer_bytes,
        ),
        block_bytes: section.bytes("block_bytes", 1 << 10..=1 << 30, default.block_bytes),
        prepared_statements: section.count(
            "prepared_statements",
            1..=1_000_000,
            default.prepared_statements,
        ),
        portals: section.count("portals", 1..=1_000_000, default.portals),
        backend_prepared_statements: section.count(
            "backend_prepared_statements",
            1..=100_000,
            default.backend_prepared_statements,
        ),
        cached_plans: section.count("cached_plans", 1..=1_000_000, default.cached_plans),
    };
    section.finish();
    limits
}

fn read_merge(mut section: Section<'_>) -> Merge {
    if let Some(value) = section.value("on") {
        value.parse(|text| match text {
            "shards" => Ok(()),
            _ => Err("must be \"shards\": scratch servers are not supported yet".to_owned()),
        });
    }
    section.finish();
    Merge::Shards
}

fn read_state(mut section: Section<'_>, directory: &Path) -> State {
    let file = section.text("file").unwrap_or("topology.json");
    if file.is_empty() {
        section.report("file", "is empty".to_owned());
    }
    section.finish();
    State {
        file: directory.join(file),
    }
}

fn read_recovery(mut section: Section<'_>) -> Recovery {
    let interval = section.duration("interval", 100 * MS..=HOUR, 5 * SECOND);
    section.finish();
    Recovery { interval }
}

fn read_deadlock(mut section: Section<'_>) -> Deadlock {
    let timeout = section.duration("timeout", 100 * MS..=HOUR, SECOND);
    section.finish();
    Deadlock { timeout }
}

fn read_snapshot(mut section: Section<'_>) -> Snapshot {
    let wait = section.duration("wait", 100 * MS..=HOUR, 5 * SECOND);
    section.finish();
    Snapshot { wait }
}

fn read_rebalance(mut section: Section<'_>) -> Rebalance {
    let fence_wait = section.duration("fence_wait", 100 * MS..=HOUR, 10 * SECOND);
    let silence = section.duration("silence", 100 * MS..=HOUR, 60 * SECOND);
    let wal_bytes = section.bytes("wal_bytes", 1 << 20..=1 << 50, 16 << 30);
    section.finish();
    Rebalance {
        fence_wait,
        silence,
        wal_bytes: wal_bytes as u64,
    }
}

fn read_ring(mut section: Section<'_>) -> Ring {
    let virtual_nodes = section.count("virtual_nodes", VIRTUAL_NODES, 160);
    section.finish();
    Ring {
        virtual_nodes: virtual_nodes as u32,
    }
}

fn read_cluster_database(section: &mut Section<'_>) -> String {
    let read = |text: &str| match identifier(text)? {
        name if name == CONSOLE_DATABASE => {
            Err(format!("\"{CONSOLE_DATABASE}\" is the console's name"))
        }
        name => Ok(name),
    };
    section
        .required("database")
        .and_then(|value| value.parse(read))
        .unwrap_or_default()
}

fn read_shards(root: &mut Section<'_>, cluster_database: &str) -> Vec<Shard> {
    let mut shards = Vec::new();
    let (mut names, mut databases) = (Seen::default(), Seen::default());
    for mut section in root.sections("shard") {
        let name = match section.required("name") {
            Some(value) => value
                .parse(short_name)
                .inspect(|name| names.check(name, &value)),
            None => None,
        };
        let weight = section
            .value("weight")
            .and_then(|value| value.integer(WEIGHT))
            .unwrap_or(1) as u32;
        let database = section
            .value("database")
            .and_then(|value| value.parse(identifier));
        let database = database.unwrap_or_else(|| cluster_database.to_owned());
        let nodes = read_nodes(&mut section, &database, &mut databases);
        section.finish();
        shards.push(Shard {
            name: name.unwrap_or_default(),
            weight,
            database,
            nodes,
        });
    }
    match shards.len() {
        0 => root.report("shard", "there must be at least one [[shard]]".to_owned()),
        1..=SHARDS_MAX if shards.iter().all(|shard| shard.weight == 0) => {
            root.report(
                "shard",
                "at least one shard must have a weight above 0".to_owned(),
            );
        }
        1..=SHARDS_MAX => {}
        count => root.report(
            "shard",
            format!("{count} shards are more than {SHARDS_MAX}"),
        ),
    }
    shards
}

/// One database on one server can only be one node of one shard: its rows would count twice.
fn read_nodes(section: &mut Section<'_>, database: &str, databases: &mut Seen) -> Vec<Address> {
    let Some(value) = section.required("nodes") else {
        return Vec::new();
    };
    let items = value.items();
    if items.is_empty() {
        value.problem("must name at least one server".to_owned());
    }
    let read = |item: &Value<'_>| {
        let address = item.address()?;
        databases.check(&format!("{address}/{database}"), item);
        Some(address)
    };
    items.iter().filter_map(read).collect()
}

fn read_tables(
    root: &mut Section<'_>,
    shards: Shards<'_>,
    default_shard: &str,
) -> Vec<TableDeclaration> {
    let mut tables = Vec::new();
    let mut seen = Seen::default();
    for mut section in root.sections("table") {
        let line = section.line();
        let name_value = section.required("name");
        let name = name_value
            .as_ref()
            .and_then(|value| value.parse(table_name));
        if let (Some((schema, name)), Some(value)) = (&name, &name_value) {
            seen.check(&format!("{schema}.{name}"), value);
        }
        let kind = read_table_kind(&mut section, shards, default_shard);
        section.finish();
        if let (Some((schema, name)), Some(kind)) = (name, kind) {
            tables.push(TableDeclaration {
                schema,
                name,
                kind,
                line,
            });
        }
    }
    tables
}

fn read_table_kind(
    section: &mut Section<'_>,
    shards: Shards<'_>,
    default_shard: &str,
) -> Option<TableKind> {
    let kind_value = section.value("kind");
    let kind = kind_value.as_ref().and_then(Value::text);
    let key_value = section.value("key");
    let key = key_value.as_ref().and_then(|value| value.parse(identifier));
    let shard_value = section.value("shard");
    let shard = shard_value.as_ref().and_then(|value| shards.named(value));
    let unique_value = section.value("unique_per_shard");
    let unique_per_shard = unique_value.as_ref().and_then(Value::boolean);
    let superfluous = |value: &Option<Value<'_>>, kind: &str| {
        if let Some(value) = value {
            value.problem(format!("has no meaning for a {kind} table"));
        }
    };
    match (kind, &kind_value) {
        (Some("sharded"), _) | (None, None) => {
            superfluous(&shard_value, "sharded");
            if key_value.is_none() {
                section.report(
                    "key",
                    "is missing (or give kind = \"reference\" or \"local\")".to_owned(),
                );
            }
            key.map(|key| TableKind::Sharded {
                key,
                unique_per_shard: unique_per_shard.unwrap_or(false),
            })
        }
        (Some("reference"), _) => {
            superfluous(&key_value, "reference");
            superfluous(&shard_value, "reference");
            superfluous(&unique_value, "reference");
            Some(TableKind::Reference)
        }
        (Some("local"), _) => {
            superfluous(&key_value, "local");
            superfluous(&unique_value, "local");
            Some(TableKind::Local {
                shard: shard.unwrap_or_else(|| default_shard.to_owned()),
            })
        }
        (Some(other), Some(value)) => {
            let near = nearest(other, ["sharded", "reference", "local"].into_iter());
            value.problem(format!(
                "must be \"sharded\", \"reference\" or \"local\"{near}"
            ));
            None
        }
        (_, _) => None,
    }
}

fn read_pins(root: &mut Section<'_>, shards: Shards<'_>, tables: &[TableDeclaration]) -> Vec<Pin> {
    let mut pins = Vec::new();
    for mut section in root.sections("pin") {
        let line = section.line();
        let shard_value = section.required("shard");
        let shard = shard_value.as_ref().and_then(|value| shards.named(value));
        let target = read_pin_target(&mut section, tables);
        section.finish();
        if let (Some(shard), Some(target)) = (shard, target) {
            pins.push(Pin {
                target,
                shard,
                line,
            });
        }
    }
    pins
}

fn read_pin_target(section: &mut Section<'_>, tables: &[TableDeclaration]) -> Option<PinTarget> {
    let slots = section.value("slots");
    let table_value = section.value("table");
    let key_value = section.value("key");
    match (slots, table_value, key_value) {
        (Some(slots), None, None) => slots
            .parse(slot_range)
            .map(|(first, last)| PinTarget::Slots { first, last }),
        (None, Some(table_value), Some(key)) => {
            let (schema, table) = table_value.parse(table_name)?;
            let key = key.text_or_integer()?.to_owned();
            let declared = tables
                .iter()
                .find(|declared| declared.schema == schema && declared.name == table);
            match declared.map(|declared| &declared.kind) {
                Some(TableKind::Sharded { .. }) => {}
                Some(TableKind::Reference | TableKind::Local { .. }) => {
                    table_value.problem(format!("\"{schema}.{table}\" is not a sharded table"));
                }
                None => {
                    let names: Vec<String> = tables
                        .iter()
                        .map(|table| format!("{}.{}", table.schema, table.name))
                        .collect();
                    let near = nearest(
                        &format!("{schema}.{table}"),
                        names.iter().map(String::as_str),
                    );
                    table_value.problem(format!(
                        "there is no [[table]] named \"{schema}.{table}\"{near}"
                    ));
                }
            }
            Some(PinTarget::Key { schema, table, key })
        }
        (_, _, _) => {
            section.report("", "must have either table and key, or slots".to_owned());
            None
        }
    }
}

/// The shards that names may mean.
#[derive(Clone, Copy)]
struct Shards<'s>(&'s [Shard]);

impl Shards<'_> {
    fn named(self, value: &Value<'_>) -> Option<String> {
        value.parse(
            |text| match self.0.iter().find(|shard| shard.name == text) {
                Some(shard) => Ok(shard.name.clone()),
                None => {
                    let near = nearest(text, self.0.iter().map(|shard| shard.name.as_str()));
                    Err(format!("there is no shard \"{text}\"{near}"))
                }
            },
        )
    }
}

/// Names that must not repeat, with the line of the first.
#[derive(Default)]
struct Seen(HashMap<String, usize>);

impl Seen {
    fn check(&mut self, name: &str, value: &Value<'_>) {
        match self.0.get(name) {
            Some(first) => value.problem(format!("\"{name}\" stands already in line {first}")),
            None => {
                self.0.insert(name.to_owned(), value.line());
            }
        }
    }
}

fn unique_identifier(section: &mut Section<'_>, name: &'static str, seen: &mut Seen) -> String {
    let Some(value) = section.required(name) else {
        return String::new();
    };
    let Some(name) = value.parse(identifier) else {
        return String::new();
    };
    seen.check(&name, &value);
    name
}

/// A name that goes into the names of two-phase transactions.
fn short_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "\"{text}\" must be 1 to 32 characters out of A-Z, a-z, 0-9, _ and -"
    ))
}

/// A name as PostgreSQL stores it.
fn identifier(text: &str) -> Result<String, String> {
    if (1..=IDENTIFIER_BYTES_MAX).contains(&text.len()) && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must be a name of 1 to {IDENTIFIER_BYTES_MAX} bytes"
    ))
}

/// `schema.table`, or a table of schema public.
fn table_name(text: &str) -> Result<(String, String), String> {
    let (schema, name) = text.split_once('.').unwrap_or(("public", text));
    if name.contains('.') || text.contains('"') {
        return Err(format!(
            "\"{text}\" must be \"schema.table\" without quotes, as PostgreSQL stores the names"
        ));
    }
    if matches!(schema, "pg_catalog" | "information_schema" | "pgring") {
        return Err(format!("tables of schema {schema} cannot be declared"));
    }
    Ok((identifier(schema)?, identifier(name)?))
}

/// `first-last`, both included, or one slot.
fn slot_range(text: &str) -> Result<(u16, u16), String> {
    let slot = |text: &str| {
        text.trim()
            .parse::<u16>()
            .ok()
            .filter(|slot| *slot <= SLOT_LAST)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (slot(first), slot(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        (_, _) => Err(format!(
            "\"{text}\" must be \"first-last\" within 0-{SLOT_LAST}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: &str = "[[user]]\nname = \"app\"\ntrust = true\n[backend]\nuser = \"pgring\"\n";
    const SHARDS: &str =
        "[cluster]\nname = \"c\"\ndatabase = \"d\"\n[[shard]]\nname = \"s0\"\nnodes = [\"h:1\"]\n";

    fn read(listen: &str, shards: &str) -> Result<Config, ConfigError> {
        let document = |file: &str, text: &str| Document::new(file.into(), text.to_owned());
        Config::read(
            Path::new("/etc/pgring"),
            document(LISTEN_FILE, listen),
            document(SHARDS_FILE, shards),
        )
    }

    /// The problems after adding lines to files that are good, one a line.
    fn problems(listen: &str, shards: &str) -> String {
        read(&format!("{LISTEN}{listen}"), &format!("{SHARDS}{shards}"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_commented_example_loads() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("shard-config");
        let config = Config::load(&directory).unwrap();
        assert_eq!(config.shards.len(), 3);
        assert_eq!(
            config.shards[1].nodes,
            [Address::Tcp {
                host: "2001:db8::1".to_owned(),
                port: 5432
            }]
        );
        assert_eq!(
            config.tables[1].kind,
            TableKind::Sharded {
                key: "customer_id".to_owned(),
                unique_per_shard: false,
            }
        );
        assert_eq!(
            config.pins[1].target,
            PinTarget::Slots {
                first: 16000,
                last: 16383
            }
        );
        assert!(config.user("dba").unwrap().admin);
        assert_eq!(config.state.file, directory.join("topology.json"));
    }

    #[test]
    fn the_commented_example_shows_the_defaults() {
        let text = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("shard-config")
                .join(LISTEN_FILE),
        )
        .unwrap();
        let setting = |line: &str| {
            line.strip_prefix("# ")
                .filter(|rest| rest.contains(" = "))
                .map(str::to_owned)
        };
        let shown = |line: &str| {
            setting(line).filter(|rest| !rest.contains("env:") && !rest.contains("off by default"))
        };
        let uncommented: Vec<String> = text
            .lines()
            .map(|line| shown(line).unwrap_or_else(|| line.to_owned()))
            .collect();
        let (shown, plain) = (
            read(&uncommented.join("\n"), SHARDS).unwrap(),
            read(&text, SHARDS).unwrap(),
        );
        assert_eq!(shown, plain);
        assert!(uncommented.join("\n").contains("\ncached_plans = 5000"));
    }

    #[test]
    fn defaults_fill_what_is_not_given() {
        let config = read(LISTEN, SHARDS).unwrap();
        assert_eq!(config.listen.address.to_string(), "127.0.0.1:6432");
        assert_eq!(config.cluster.default_shard, "s0");
        assert_eq!(config.shards[0].database, "d");
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.ring.virtual_nodes, 160);
    }

    #[test]
    fn unknown_keys_suggest_the_nearest_name() {
        let found = problems(
            "[limits]\nmerge_byte = \"1MB\"\n[listn]\n",
            "[[shard]]\nname = \"s1\"\nnode = [\"h:2\"]\nzzz = 1\n",
        );
        let expected = "\
            pgring.toml:7: limits.merge_byte: unknown key (did you mean \"merge_bytes\"?)\n\
            pgring.toml:8: listn: unknown key (did you mean \"listen\"?)\n\
            shards.toml:7: shard[1].nodes: is missing\n\
            shards.toml:9: shard[1].node: unknown key (did you mean \"nodes\"?)\n\
            shards.toml:10: shard[1].zzz: unknown key";
        assert_eq!(found, expected);
    }

    #[test]
    fn values_out_of_range_name_the_range() {
        let found = problems(
            "[limits]\nclients = 0\nframe_bytes = \"3GB\"\nlogin = \"1ms\"\n[pool]\nsize = -1\nidle = 5\n",
            "",
        );
        assert_eq!(
            found,
            "pgring.toml:7: limits.clients: must be between 1 and 1000000\n\
             pgring.toml:8: limits.frame_bytes: must be between 64kB and 2147483647B\n\
             pgring.toml:9: limits.login: must be between 100ms and 10min\n\
             pgring.toml:11: pool.size: must be between 1 and 10000\n\
             pgring.toml:12: pool.idle: must be a string, not integer"
        );
    }

    #[test]
    fn names_that_mean_nothing_are_found() {
        let found = problems(
            "",
            "[[table]]\nname = \"t\"\nkey = \"id\"\n[[table]]\nname = \"public.t\"\nkind = \"reference\"\n\
             [[pin]]\ntable = \"x\"\nkey = 1\nshard = \"s0\"\n[[pin]]\nslots = \"5-20000\"\nshard = \"s1\"\n[[pin]]\nshard = \"s0\"\n",
        );
        assert_eq!(
            found,
            "shards.toml:11: table[1].name: \"public.t\" stands already in line 8\n\
             shards.toml:14: pin[0].table: there is no [[table]] named \"public.x\" (did you mean \"public.t\"?)\n\
             shards.toml:18: pin[1].slots: \"5-20000\" must be \"first-last\" within 0-16383\n\
             shards.toml:19: pin[1].shard: there is no shard \"s1\" (did you mean \"s0\"?)\n\
             shards.toml:20: pin[2]: must have either table and key, or slots"
        );
    }

    #[test]
    fn one_database_is_one_node_of_one_shard() {
        let found = problems("", "[[shard]]\nname = \"s0\"\nnodes = [\"h:1\"]\n");
        assert_eq!(
            found,
            "shards.toml:8: shard[1].name: \"s0\" stands already in line 5\n\
             shards.toml:9: shard[1].nodes[0]: \"h:1/d\" stands already in line 6"
        );
        let other_database =
            format!("{SHARDS}[[shard]]\nname = \"s1\"\ndatabase = \"e\"\nnodes = [\"h:1\"]\n");
        assert_eq!(read(LISTEN, &other_database).unwrap().shards.len(), 2);
    }

    #[test]
    fn tables_need_a_key_exactly_when_sharded() {
        let found = problems(
            "",
            "[[table]]\nname = \"a\"\n[[table]]\nname = \"b\"\nkind = \"reference\"\nkey = \"k\"\n\
             [[table]]\nname = \"c\"\nkind = \"locals\"\n[[table]]\nname = \"pg_catalog.d\"\nkey = \"k\"\nshard = \"s0\"\n\
             [[table]]\nname = \"e\"\nkind = \"local\"\nunique_per_shard = true\n",
        );
        assert_eq!(
            found,
            "shards.toml:7: table[0].key: is missing (or give kind = \"reference\" or \"local\")\n\
             shards.toml:12: table[1].key: has no meaning for a reference table\n\
             shards.toml:15: table[2].kind: must be \"sharded\", \"reference\" or \"local\" (did you mean \"local\"?)\n\
             shards.toml:17: table[3].name: tables of schema pg_catalog cannot be declared\n\
             shards.toml:19: table[3].shard: has no meaning for a sharded table\n\
             shards.toml:23: table[4].unique_per_shard: has no meaning for a local table"
        );
    }

    #[test]
    fn tls_is_refused_until_it_works() {
        let found = read(
            "[listen]\ntls = { certificate = \"a\", key = \"b\" }\n[[user]]\nname = \"a\"\n[backend]\nuser = \"b\"\ntls = \"verify-full\"\n",
            SHARDS,
        );
        assert_eq!(
            found.unwrap_err().to_string(),
            "pgring.toml:2: listen.tls: TLS for clients is not supported yet\n\
             pgring.toml:3: user[0].password: is missing (trust = true lets the user in without one)\n\
             pgring.toml:7: backend.tls: \"verify-full\" is not supported yet: only \"disable\" is"
        );
    }

    #[test]
    fn broken_toml_in_one_file_does_not_hide_the_other() {
        let found = read("[listen\naddress = 1\n", "[cluster]\nname = \"a b\"\n").unwrap_err();
        let files: Vec<_> = found
            .problems
            .iter()
            .map(|problem| (problem.file.to_str().unwrap(), problem.line))
            .collect();
        assert_eq!(files.first(), Some(&(LISTEN_FILE, Some(1))));
        assert!(files.contains(&(SHARDS_FILE, Some(2))), "{found}");
        assert!(found.to_string().contains("cluster.database: is missing"));
    }

    #[test]
    fn a_missing_directory_names_both_files() {
        let error = Config::load(Path::new("/nonexistent/pgring")).unwrap_err();
        assert_eq!(error.problems.len(), 2);
        assert!(
            error
                .to_string()
                .starts_with("/nonexistent/pgring/pgring.toml: cannot read: ")
        );
    }

    #[test]
    fn no_secret_is_printed() {
        let listen = "[[user]]\nname = \"a\"\npassword = \"hunter2\"\n[backend]\nuser = \"b\"\npassword = \"hunter2\"\n";
        let config = read(listen, SHARDS).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

//! What the console shows as PgBouncer does: clients, connections, pools, counts. What pgring does not have (reserve pools,
//! checks of idle connections, cancel requests that wait) is 0 or empty. Start with the columns in `questions`.

use super::answer::{Cell, Row, row};
use super::questions::Show;
use super::time::utc;
use crate::backend::pool::{PoolStatus, ServerStatus};
use crate::config::{Address, PoolMode};
use crate::router::Router;
use crate::router::clients::{Activity, Client};
use crate::router::period::Totals;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) fn state(router: &Router) -> Vec<Row> {
    let topology = router.topology();
    let shards = topology.shard_ids().count();
    let paused = topology
        .shard_ids()
        .filter(|shard| router.pools.is_paused(*shard))
        .count();
    let yes = |so: bool| if so { "yes" } else { "no" };
    vec![
        row!["active", yes(paused == 0)],
        row!["paused", yes(paused == shards)],
        row!["partly_paused", yes(paused > 0 && paused < shards)],
        row!["suspended", "no"],
    ]
}

/// Address and port, as far as there are some.
fn place(address: Option<SocketAddr>) -> (String, u16) {
    address.map_or(("unix".to_owned(), 0), |address| {
        (address.ip().to_string(), address.port())
    })
}

/// Whole seconds, and the microseconds left.
fn parts(duration: Duration) -> (u64, u32) {
    (duration.as_secs(), duration.subsec_micros())
}

pub(super) fn clients(router: &Router) -> Vec<Row> {
    let clients = router.clients.all();
    let rows = clients.iter().map(|client| {
        let (activity, requested) = router.clients.activity(client);
        let (state, waited) = match activity {
            Activity::Idle => ("idle", Duration::ZERO),
            Activity::Active => ("active", Duration::ZERO),
            Activity::Waiting(waited) => ("waiting", waited),
        };
        let (remote, local) = client.identity.addresses.unzip();
        let ((addr, port), (local_addr, local_port)) = (place(remote), place(local));
        let (wait, wait_us) = parts(waited);
        row![
            "C",
            &*client.identity.user,
            &*client.identity.database,
            "none",
            state,
            addr,
            port,
            local_addr,
            local_port,
            utc(client.connected),
            utc(requested),
            wait,
            wait_us,
            0u8,
            format!("0x{:x}", client.id),
            "",
            0u8,
            "",
            &*client.application_name(),
            client.statements(),
            client.id
        ]
    });
    rows.collect()
}

pub(super) fn servers(router: &Router) -> Vec<Row> {
    let topology = router.topology();
    let row = |status: ServerStatus| {
        let ServerStatus {
            user,
            shard,
            server,
            idle,
            closing,
        } = status;
        let endpoint = router.control.endpoint(shard);
        let (remote, local) = server.addresses.unzip();
        let ((addr, port), (local_addr, local_port)) = (place(remote), place(local));
        row![
            "S",
            &*user,
            &*endpoint.database,
            "none",
            if idle { "idle" } else { "active" },
            addr,
            port,
            local_addr,
            local_port,
            utc(server.connected),
            utc(server.released()),
            0u8,
            0u8,
            u8::from(closing),
            format!("0x{:x}", server.id),
            "",
            server.pid,
            "",
            "",
            server.statements(),
            server.id,
            &**topology.shard_name(shard)
        ]
    };
    router.pools.servers().into_iter().map(row).collect()
}

fn mode(router: &Router) -> &'static str {
    match router.config.pool.mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    }
}

/// What a user's clients do, and what its pools have.
#[derive(Default)]
struct OfUser {
    clients: usize,
    waiting: usize,
    longest_wait: Duration,
    open: usize,
    idle: usize,
    opening: usize,
}

impl OfUser {
    fn add_client(&mut self, router: &Router, client: &Client) {
        self.clients += 1;
        if let (Activity::Waiting(waited), _) = router.clients.activity(client) {
            self.longest_wait = self.longest_wait.max(waited);
        }
    }

    fn add_pool(&mut self, pool: &PoolStatus) {
        self.waiting += pool.waiting;
        self.open += pool.open;
        self.idle += pool.idle;
        self.opening += pool.opening;
    }

    fn row(&self, database: &str, user: &str, mode: &str) -> Row {
        let waiting = self.waiting.min(self.clients);
        let waited = match waiting {
            0 => Duration::ZERO,
            _ => self.longest_wait,
        };
        let (maxwait, maxwait_us) = parts(waited);
        row![
            database,
            user,
            self.clients - waiting,
            waiting,
            0u8,
            0u8,
            self.open.saturating_sub(self.idle + self.opening),
            0u8,
            0u8,
            self.idle,
            0u8,
            0u8,
            self.opening,
            maxwait,
            maxwait_us,
            mode
        ]
    }
}

pub(super) fn pools(router: &Router) -> Vec<Row> {
    let mut users: BTreeMap<(bool, String), OfUser> = BTreeMap::new();
    for client in router.clients.all() {
        let of = (client.identity.console, client.identity.user.to_string());
        users.entry(of).or_default().add_client(router, &client);
    }
    for pool in router.pools.status() {
        let of = (false, pool.user.to_string());
        users.entry(of).or_default().add_pool(&pool);
    }
    let rows = users.iter().map(|((console, user), of)| match console {
        true => of.row(super::DATABASE, user, "statement"),
        false => of.row(&router.config.cluster.database, user, mode(router)),
    });
    rows.collect()
}

pub(super) fn pools_by_shard(router: &Router) -> Vec<Row> {
    let topology = router.topology();
    let mut pools = router.pools.status();
    pools.sort_by(|one, other| (one.shard, &one.user).cmp(&(other.shard, &other.user)));
    let rows = pools.iter().map(|pool| {
        let (maxwait, maxwait_us) = parts(pool.longest_wait);
        row![
            &**topology.shard_name(pool.shard),
            &*pool.user,
            pool.waiting,
            pool.open.saturating_sub(pool.idle + pool.opening),
            pool.idle,
            pool.pinned,
            pool.opening,
            router.config.pool.size,
            maxwait,
            maxwait_us,
            pool.connects,
            pool.connect_errors,
            pool.timeouts,
            pool.leases,
            u8::from(pool.paused)
        ]
    });
    rows.collect()
}

/// As PgBouncer names them: what was counted since the start.
fn total_numbers(totals: &Totals) -> [u64; 8] {
    let counts = &totals.counts;
    [
        totals.leases,
        counts.transactions,
        counts.queries,
        counts.received,
        counts.sent,
        counts.in_transaction,
        counts.busy,
        microseconds(totals.waited),
    ]
}

/// The same a second, times as means.
fn average_numbers(totals: &Totals, length: Duration) -> [u64; 8] {
    let counts = &totals.counts;
    let a_second = |count: u64| {
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        count.saturating_mul(1000).checked_div(millis).unwrap_or(0)
    };
    let mean = |sum: u64, count: u64| sum.checked_div(count).unwrap_or(0);
    [
        a_second(totals.leases),
        a_second(counts.transactions),
        a_second(counts.queries),
        a_second(counts.received),
        a_second(counts.sent),
        mean(counts.in_transaction, counts.transactions),
        mean(counts.busy, counts.queries),
        mean(microseconds(totals.waited), totals.leases),
    ]
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn numbers(router: &Router, total: bool, average: bool) -> Vec<u64> {
    let mut numbers = Vec::new();
    if total {
        numbers.extend(total_numbers(&router.totals()));
    }
    if average {
        let (totals, length) = router.lately();
        numbers.extend(average_numbers(&totals, length));
    }
    numbers
}

pub(super) fn stats(router: &Router, total: bool, average: bool) -> Vec<Row> {
    let mut row = row![router.config.cluster.database.as_str()];
    row.extend(numbers(router, total, average).into_iter().map(Cell::from));
    vec![row]
}

pub(super) fn totals(router: &Router) -> Vec<Row> {
    let names = Show::Stats.question().columns.iter().skip(1);
    let numbers = numbers(router, true, true);
    names
        .zip(numbers)
        .map(|(column, number)| row![column.name, number])
        .collect()
}

pub(super) fn databases(router: &Router) -> Vec<Row> {
    let config = &router.config;
    let topology = router.topology();
    let disabled = u8::from(router.clients.disabled.load(Ordering::Relaxed));
    let pools = router.pools.status();
    let shard = |id| {
        let endpoint = router.control.endpoint(id);
        let open: usize = pools
            .iter()
            .filter(|pool| pool.shard == id)
            .map(|pool| pool.open)
            .sum();
        let hosts: Vec<String> = endpoint
            .nodes
            .iter()
            .map(|node| match node {
                Address::Tcp { host, .. } => host.clone(),
                Address::Unix { directory, .. } => directory.display().to_string(),
            })
            .collect();
        let port = endpoint.nodes.first().map_or(0, |node| match node {
            Address::Tcp { port, .. } | Address::Unix { port, .. } => *port,
        });
        row![
            config.cluster.database.as_str(),
            hosts.join(","),
            port,
            &*endpoint.database,
            Cell::Null,
            config.pool.size,
            0u8,
            0u8,
            config.pool.lifetime.as_secs(),
            mode(router),
            0u8,
            open,
            u8::from(router.pools.is_paused(id)),
            disabled,
            &**topology.shard_name(id)
        ]
    };
    let mut rows: Vec<Row> = topology.shard_ids().map(shard).collect();
    let listen = match &config.listen.address {
        Address::Tcp { port, .. } | Address::Unix { port, .. } => *port,
    };
    rows.push(row![
        super::DATABASE,
        Cell::Null,
        listen,
        super::DATABASE,
        Cell::Null,
        0u8,
        0u8,
        0u8,
        0u8,
        "statement",
        0u8,
        0u8,
        0u8,
        0u8,
        Cell::Null
    ]);
    rows
}

pub(super) fn users(router: &Router) -> Vec<Row> {
    let pools = router.pools.status();
    let users = router.config.users.iter();
    let rows = users.map(|user| {
        let own = pools.iter().filter(|pool| *pool.user == *user.name);
        let open: usize = own.map(|pool| pool.open).sum();
        row![user.name.as_str(), Cell::Null, Cell::Null, 0u8, open]
    });
    rows.collect()
}

pub(super) fn lists(router: &Router) -> Vec<Row> {
    let pools = router.pools.status();
    let open: usize = pools.iter().map(|pool| pool.open).sum();
    let login = router.clients.unauthenticated.load(Ordering::Relaxed);
    let connected = router.clients.connected.load(Ordering::Relaxed);
    vec![
        row!["databases", 2u8],
        row!["users", router.config.users.len()],
        row!["peers", 0u8],
        row!["pools", pools.len()],
        row!["peer_pools", 0u8],
        row!["free_clients", 0u8],
        row!["used_clients", connected.saturating_sub(login)],
        row!["login_clients", login],
        row!["free_servers", 0u8],
        row!["used_servers", open],
        row!["dns_names", 0u8],
        row!["dns_zones", 0u8],
        row!["dns_queries", 0u8],
        row!["dns_pending", 0u8],
        row!["shards", router.topology().shard_ids().count()],
        row!["workers", router.workers],
        row!["cached_plans", router.templates.len() + router.shapes.len()],
    ]
}

pub(super) fn mem(router: &Router) -> Vec<Row> {
    let (used, max) = router.merge_budget.used();
    let mut rows = vec![row![
        "gathered_rows",
        1u8,
        used,
        max.saturating_sub(used),
        max
    ]];
    if let Some(bytes) = resident() {
        rows.push(row!["resident", 1u8, bytes, 0u8, bytes]);
    }
    rows
}

/// The settings by our names; after them those that tools for PgBouncer ask for by its names.
pub(super) fn config(router: &Router) -> Vec<Row> {
    let config = router.control.config();
    let settings = config.settings().into_iter();
    let mut rows: Vec<Row> = settings
        .map(|setting| {
            let changeable = if setting.changeable { "yes" } else { "no" };
            row![setting.key, setting.value, setting.default, changeable]
        })
        .collect();
    let mut alias = |key: &str, value: String| {
        rows.push(row![key, value, Cell::Null, "no"]);
    };
    if let Address::Tcp { host, port } = &config.listen.address {
        alias("listen_addr", host.clone());
        alias("listen_port", port.to_string());
    }
    alias("pool_mode", mode(router).to_owned());
    alias("max_client_conn", config.limits.clients.to_string());
    alias("default_pool_size", config.pool.size.to_string());
    alias("max_user_connections", "0".to_owned());
    rows
}

/// The bytes of the process that are in memory, where the system says so.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::traffic::Counts;

    #[test]
    fn averages_are_rates_and_means() {
        let totals = Totals {
            counts: Counts {
                queries: 120,
                transactions: 60,
                received: 6000,
                sent: 600,
                busy: 240,
                in_transaction: 600,
            },
            leases: 60,
            waited: Duration::from_micros(120),
        };
        let averages = average_numbers(&totals, Duration::from_secs(60));
        assert_eq!(averages, [1, 1, 2, 100, 10, 10, 2, 2]);
        let nothing = average_numbers(&Totals::default(), Duration::ZERO);
        assert_eq!(nothing, [0; 8]);
    }
}

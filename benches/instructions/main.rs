//! What the router executes for one point SELECT: instructions of user space and allocations, by protocol, counted by
//! callgrind while one client asks: `cargo bench --bench instructions`. What a session executes does not depend on what
//! else the machine does, so this is what notices that the hot path has grown: it fails where a count is over
//! `baseline.toml` by more than its tolerance. With `-- functions` it prints which functions the instructions are in.
//!
//! The router is the real program over four real PostgreSQLs; what the kernel executes is not counted.

#[path = "../../tests/integration/support/mod.rs"]
mod support;

#[path = "../load/link.rs"]
#[allow(dead_code)]
mod link;

mod callgrind;

use bytes::BytesMut;
use callgrind::{Callgrind, Profile};
use link::Link;
use pgring::wire::frame::Format;
use pgring::wire::frontend_message::{self, Target as Named};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use support::deployment::Options;
use support::{Target, cluster};

/// What is counted at a time. The router's own work now and then (it looks after its shards every few seconds) falls
/// into some of the windows, so the least of them counts.
const WINDOW_QUERIES: u64 = 1000;
const WINDOWS: usize = 5;
/// Until all caches, buffers and connections are there.
const WARM_UP_QUERIES: u64 = 500;
/// Allocations a query that the control plane may make meanwhile.
const ELSEWHERE: f64 = 0.05;
/// How many functions are printed.
const FUNCTIONS: usize = 60;

/// What runs a session each time that it wakes. What the runtime does in between depends on how often it wakes, and that
/// on the machine.
const SESSION: &str = "tokio::runtime::task::raw::poll";

const SELECT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = ";
const ACCOUNTS: u64 = 1000;
const STATEMENT: &str = "point_select";
const PROTOCOLS: [&str; 3] = ["simple", "extended", "prepared"];

/// `baseline.toml`.
#[derive(Deserialize)]
struct Baseline {
    /// How much more than its count is not yet a regression, as a part of it.
    tolerance: f64,
    /// Instructions a query, by protocol.
    instructions: BTreeMap<String, f64>,
    /// Allocations a query, by protocol.
    allocations: BTreeMap<String, f64>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, to see whether they build.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let functions = arguments.iter().any(|argument| argument == "functions");
    let baseline =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/baseline.toml");
    let baseline = fs::read_to_string(baseline).expect("read baseline.toml");
    let baseline: Baseline = toml::from_str(&baseline).expect("baseline.toml in its form");
    let sandbox = cluster::start(cluster::SERVERS);
    let mut callgrind = Callgrind::new(sandbox.directory());
    let mut deployment = Options::new(&sandbox)
        .schema("CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84))")
        .schema("INSERT INTO pgbench_accounts SELECT n, 1, n, '' FROM generate_series(1, 1000) AS n")
        .sharded("pgbench_accounts", "aid")
        .under(&callgrind.command())
        .start();
    let mut failed = false;
    println!("instructions and allocations a query");
    println!(
        "{:<9} {:>7} {:>9} {:>11} {:>9} {:>7}",
        "protocol", "session", "baseline", "allocations", "baseline", "in all"
    );
    for protocol in PROTOCOLS {
        let pid = deployment.router().pid();
        let windows = count(protocol, &mut callgrind, &deployment.target(), pid);
        let least = |of: &dyn Fn(&Profile) -> u64| {
            windows.iter().map(of).min().unwrap_or_default() as f64 / WINDOW_QUERIES as f64
        };
        let session = least(&|window| window.whole(SESSION));
        let allocations = least(&|window| window.calls(is_allocation));
        let all = least(&|window| window.instructions);
        let usual = baseline.instructions[protocol];
        let allowed = baseline.allocations[protocol];
        println!(
            "{protocol:<9} {session:>7.0} {usual:>9.0} {allocations:>11.2} {allowed:>9.2} {all:>7.0}"
        );
        failed |= session > usual * (1.0 + baseline.tolerance) || allocations > allowed + ELSEWHERE;
        if functions {
            for (name, own, whole) in windows[0].dearest(FUNCTIONS) {
                let [own, whole] = [own, whole].map(|cost| cost as f64 / WINDOW_QUERIES as f64);
                println!("    {own:>8.1} {whole:>8.1}  {name}");
            }
        }
    }
    assert!(
        !failed,
        "more than the baseline allows: make it less, or write the new counts into benches/instructions/baseline.toml \
         and say why"
    );
}

/// What the router executes for one client's [`WINDOW_QUERIES`], several times.
fn count(
    protocol: &'static str,
    callgrind: &mut Callgrind,
    target: &Target,
    pid: u32,
) -> Vec<Profile> {
    let mut client = None;
    let arrival = callgrind.count(pid, || {
        client
            .insert(Client::login(protocol, target))
            .ask(WARM_UP_QUERIES);
    });
    let mut client = client.expect("a client that has logged in");
    assert!(
        arrival.calls(is_allocation) > 0,
        "a login allocates, but no allocation was seen: what are the allocator's functions called?"
    );
    let windows = (0..WINDOWS).map(|_| callgrind.count(pid, || client.ask(WINDOW_QUERIES)));
    windows.collect()
}

/// Who asks.
struct Client {
    link: Link,
    protocol: &'static str,
    questions: u64,
}

impl Client {
    fn login(protocol: &'static str, target: &Target) -> Self {
        let mut link = Link::login(target);
        if protocol == "prepared" {
            let request = link::parsed(STATEMENT, &format!("{SELECT}$1"), &[]);
            link.ask(&request).expect("prepare a statement");
        }
        Self {
            link,
            protocol,
            questions: 0,
        }
    }

    /// Asks for one account after the other, all over the shards.
    fn ask(&mut self, questions: u64) {
        for _ in 0..questions {
            self.questions += 1;
            let account = self.questions * 7919 % ACCOUNTS + 1;
            let request = request(self.protocol, account);
            self.link.ask(&request).expect("an answer");
        }
    }
}

/// As pgbench sends it: parameters as text.
fn request(protocol: &str, account: u64) -> BytesMut {
    let mut request = BytesMut::new();
    let out = &mut request;
    let (value, sql) = (account.to_string(), format!("{SELECT}$1"));
    let statement = match protocol {
        "simple" => return link::query(&format!("{SELECT}{value};")),
        "extended" => {
            frontend_message::write_parse(out, "", &sql, &[]);
            ""
        }
        _ => STATEMENT,
    };
    frontend_message::write_bind(
        out,
        "",
        statement,
        [],
        [Some(value.as_bytes())],
        [Format::Text],
    );
    frontend_message::write_describe(out, Named::Portal, "");
    frontend_message::write_execute(out, "", 0);
    frontend_message::write_sync(out);
    request
}

/// mimalloc's functions, by which the program allocates.
fn is_allocation(function: &str) -> bool {
    function.contains("mi_") && function.contains("alloc")
}

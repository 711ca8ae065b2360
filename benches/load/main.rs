//! The router under load, beside PgBouncer and PostgreSQL itself in one run on one machine, so that the ratios mean
//! something: `cargo bench --bench load`, or with the name of one of the measures, `cargo bench --bench load -- idle`.
//! Start at [`MEASURES`]; each is a file of its own.
//!
//! PgBouncer is neither handicapped nor favoured: clients reach it over TCP and it reaches PostgreSQL by a unix socket,
//! as with the router; both check SCRAM, pool by transaction with as many connections, and log no connections. A
//! PgBouncer older than 1.21 cannot hold prepared statements when it pools by transaction: it pools by session for
//! that protocol, which is less work, and its row says so. Without PgBouncer on the machine its rows are left out.

#[path = "../../tests/integration/support/mod.rs"]
mod support;

mod commit;
mod hold;
mod idle;
mod large;
mod latency;
mod link;
mod literals;
mod pgbench;
mod pgbouncer;
mod rig;
mod select;
mod statistics;
mod tail;
mod usage;

/// What can be asked for by name; the first is what runs without a name.
const MEASURES: [(&str, fn()); 8] = [
    ("select", select::run),
    ("literals", literals::run),
    ("latency", latency::run),
    ("tail", tail::run),
    ("idle", idle::run),
    ("large", large::run),
    ("commit", commit::run),
    ("hold", hold::run),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, to see whether they build.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    usage::raise_open_files_limit();
    let mut names = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    if names.peek().is_none() {
        MEASURES[0].1();
    }
    for name in names {
        match MEASURES.iter().find(|(measure, _)| measure == name) {
            Some((_, run)) => run(),
            // It may be the filter of another bench.
            None => eprintln!(
                "load has no measure \"{name}\": {}",
                MEASURES.map(|(measure, _)| measure).join(", ")
            ),
        }
    }
}

//! What the console shows: each question and who answers it. Reads only, and asks a shard only where the answer is nowhere
//! else.

use super::AdminError;
use super::answer::{Answer, Row, row};
use super::questions::Show;
use super::{cluster, command, moves, pooler, prepared, route};
use crate::router::Router;
use std::sync::Arc;

/// Answers a question.
///
/// # Errors
/// [`AdminError`].
pub async fn run(router: &Arc<Router>, show: Show) -> Result<Answer, AdminError> {
    let rows = match show {
        Show::Help => help(),
        Show::Version => vec![row![concat!("pgring ", env!("CARGO_PKG_VERSION"))]],
        Show::State => pooler::state(router),
        Show::Clients => pooler::clients(router),
        Show::Servers => pooler::servers(router),
        Show::Pools => pooler::pools(router),
        Show::PoolsByShard => pooler::pools_by_shard(router),
        Show::StatsTotals => pooler::stats(router, true, false),
        Show::StatsAverages => pooler::stats(router, false, true),
        Show::Stats => pooler::stats(router, true, true),
        Show::Totals => pooler::totals(router),
        Show::Databases => pooler::databases(router),
        Show::Users => pooler::users(router),
        Show::Lists => pooler::lists(router),
        Show::Mem => pooler::mem(router),
        Show::Config => pooler::config(router),
        Show::Ring => cluster::ring(router),
        Show::Tables => cluster::tables(router),
        Show::Statements => route::statements(router),
        Show::TransactionsInDoubt => return prepared::in_doubt(router).await,
        Show::Routers => return prepared::routers(router).await,
        Show::Rebalance => return moves::under_way(router).await,
        Show::Moves => return moves::all(router).await,
        Show::Shards => cluster::shards(router),
        Show::Slots => cluster::slots(router),
    };
    Ok(Answer::rows(rows))
}

fn help() -> Vec<Row> {
    command::help()
        .map(|(usage, description)| row![usage, description])
        .collect()
}

//! Moving slots as a router sees it: fences, acknowledgements, rows of other shards. Who moves is played by SQL.

use crate::support::{Deployment, eventually};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// The ids of the routers that are registered on each shard, in order.
fn registered(deployment: &Deployment<'_>) -> Vec<String> {
    deployment.on_each_shard(
        "SELECT string_agg(objid::text, ',' ORDER BY objid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
         AND classid = x'70677269'::int AND granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
}

#[test]
fn each_router_is_registered_on_each_shard_while_it_lives() {
    let deployment = Deployment::shared().shards(2).start();
    let count = |routers: usize| {
        let registered = registered(&deployment);
        registered[0] == registered[1]
            && registered[0].split(',').filter(|id| !id.is_empty()).count() == routers
    };
    eventually(SOON, "one router is registered", || count(1));
    let mut other = deployment.another_router();
    eventually(SOON, "the other one too", || count(2));
    other.kill();
    eventually(SOON, "it is gone", || count(1));
    let before = registered(&deployment);
    deployment.shard(1).run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'pgring control'",
    );
    eventually(SOON, "it registers again by its own id", || {
        registered(&deployment) == before
    });
}

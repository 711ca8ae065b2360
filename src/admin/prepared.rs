//! What the console asks the shards: which parts of transactions are prepared there, and which routers are registered.

use super::AdminError;
use super::answer::{Answer, row};
use super::ask::ask;
use crate::backend::control::ControlError;
use crate::backend::registration::LOCK_CLASS;
use crate::router::Router;
use crate::transaction::recovery;
use tokio_postgres::types::Type;

pub(super) async fn in_doubt(router: &Router) -> Result<Answer, AdminError> {
    let (rows, notices) = ask(router, |control, shard| async move {
        let parts = recovery::prepared(&control, shard).await?;
        let name = control.topology.load().shard_name(shard).to_string();
        let rows = parts.into_iter().map(|part| {
            let decider = part.decider.as_deref().map(str::to_owned);
            row![
                name.as_str(),
                part.gid,
                part.owner,
                part.age.as_secs(),
                decider,
                part.verdict
            ]
        });
        Ok::<_, ControlError>(rows.collect())
    })
    .await?;
    Ok(Answer { rows, notices })
}

/// Routers hold an advisory lock by which they are known; see [`crate::backend::registration`].
const ROUTERS: &str = "
    SELECT l.objid::pg_catalog.int8, l.pid, pg_catalog.host(a.client_addr),
           pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"'),
           k.epoch, o.epoch
    FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    CROSS JOIN pgring.ownership o
    LEFT JOIN pgring.acknowledgement k ON k.router = l.objid::pg_catalog.int8
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
      AND l.classid = $1::pg_catalog.int4::pg_catalog.oid
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
    ORDER BY 1";

pub(super) async fn routers(router: &Router) -> Result<Answer, AdminError> {
    let (rows, notices) = ask(router, |control, shard| async move {
        let client = control.client(shard).await?;
        let name = control.topology.load().shard_name(shard).clone();
        let query = |source| ControlError::Query {
            shard: name.clone(),
            source,
        };
        let found = client.query_typed(ROUTERS, &[(&LOCK_CLASS, Type::INT4)]);
        let own = i64::from(control.router_id());
        let mut rows = Vec::new();
        for found in found.await.map_err(query)? {
            let id: i64 = found.try_get(0).map_err(query)?;
            let address: Option<String> = found.try_get(2).map_err(query)?;
            let acknowledged: Option<i64> = found.try_get(4).map_err(query)?;
            rows.push(row![
                &*name,
                id,
                if id == own { "yes" } else { "no" },
                found.try_get::<_, i32>(1).map_err(query)?,
                address.unwrap_or_else(|| "unix".to_owned()),
                found.try_get::<_, Option<String>>(3).map_err(query)?,
                acknowledged,
                found.try_get::<_, i64>(5).map_err(query)?
            ]);
        }
        Ok::<_, ControlError>(rows)
    })
    .await?;
    Ok(Answer { rows, notices })
}

//! Values of sequences for rows of sharded tables: drawn from the sequence on its home, the default shard, so that no two
//! shards give the same. A value is gone once it is drawn, as in PostgreSQL.

use super::control::{Client, Control, ControlError};
use std::sync::Arc;
use tokio::time::timeout;
use tokio_postgres::types::{Oid, Type};

/// The sequence of a column: that of an identity column, or the one that its default calls `nextval` of, and no more.
const SEQUENCE: &str = r"
    SELECT coalesce(
      CASE WHEN a.attidentity <> '' THEN
        pg_catalog.pg_get_serial_sequence(pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname)::pg_catalog.regclass::pg_catalog.oid
      END,
      (SELECT s.oid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
       WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = def.oid
         AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
         AND pg_catalog.pg_get_expr(def.adbin, def.adrelid) ~ '^nextval\(''[^'']*''::regclass\)$'))
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_attrdef def ON def.adrelid = c.oid AND def.adnum = a.attnum
    WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3";

const DRAW: &str = "SELECT pg_catalog.nextval($1::pg_catalog.oid::pg_catalog.regclass) \
     FROM pg_catalog.generate_series(1, $2::pg_catalog.int8)";

/// A column that is filled by a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceColumn {
    /// The table's schema.
    pub schema: Arc<str>,
    /// The table.
    pub table: Arc<str>,
    /// The column.
    pub column: Arc<str>,
}

/// Draws `count` values for a column. None: it has no sequence that is simply counted on.
///
/// # Errors
/// [`ControlError`], a sequence that has come to its end included.
///
/// # Cancel safety
/// A dropped call may lose values.
pub async fn draw(
    control: &Arc<Control>,
    column: SequenceColumn,
    count: usize,
) -> Result<Option<Vec<i64>>, ControlError> {
    let asked = control.clone();
    let work = async move {
        let home = asked.topology.load().default_shard;
        let shard = asked.topology.load().shard_name(home).clone();
        // One that is being changed by an open transaction would be waited for.
        let after = asked.config().pool.connect;
        let drawing = async {
            let client = asked.client(home).await?;
            let drawn = draw_from(&client, &column, count).await;
            drawn.map_err(|source| ControlError::Query {
                shard: shard.clone(),
                source,
            })
        };
        let late = ControlError::TimedOut {
            shard: shard.clone(),
            after,
        };
        timeout(after, drawing).await.unwrap_or(Err(late))
    };
    control.run(work).await
}

async fn draw_from(
    client: &Client,
    column: &SequenceColumn,
    count: usize,
) -> Result<Option<Vec<i64>>, tokio_postgres::Error> {
    let names = [&column.schema, &column.table, &column.column];
    let [schema, table, name] = names.map(|name| &**name);
    let rows = client
        .query_typed(
            SEQUENCE,
            &[
                (&schema, Type::TEXT),
                (&table, Type::TEXT),
                (&name, Type::TEXT),
            ],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let Some(sequence) = row.try_get::<_, Option<Oid>>(0)? else {
        return Ok(None);
    };
    let count = count as i64;
    let rows = client
        .query_typed(DRAW, &[(&sequence, Type::OID), (&count, Type::INT8)])
        .await?;
    rows.iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()
        .map(Some)
}

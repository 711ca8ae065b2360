//! A session's temporary relations. They live in the backend that the session keeps on the default shard
//! ([`super::pinned`]); which there are is asked of it when something may have changed them, and laid over the schema, so
//! that statements which name them are planned as statements about local tables of that shard.

use super::error::{self, Stop};
use super::session::Session;
use crate::topology::ShardId;
use crate::topology::schema::{
    Collation, Column, ColumnDefault, Placement, Relation, RelationKind, TEMPORARY,
};
use crate::transaction::command::{self, CommandError, Reply};
use crate::transaction::pin::Reasons;
use crate::transaction::state::Phase;

/// The relations in the session's temporary schema, a row for each column.
const RELATIONS: &str = "\
    SELECT c.relname, c.relkind, a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod), \
        CASE WHEN a.attcollation = 0 THEN 'none' ELSE 'other' END \
    FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_attribute a \
        ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v') \
    WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() ORDER BY c.relname, a.attnum";

/// What views in it read: view, schema, relation.
const READS: &str = "\
    SELECT DISTINCT v.relname, CASE n.oid WHEN v.relnamespace THEN 'pg_temp' ELSE n.nspname END, t.relname \
    FROM pg_catalog.pg_class v JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid \
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid \
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> v.oid \
    JOIN pg_catalog.pg_class t ON t.oid = d.refobjid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace \
    WHERE v.relnamespace = pg_catalog.pg_my_temp_schema()";

/// What is known of a session's temporary relations.
#[derive(Debug, Default)]
pub(super) struct Temporary {
    /// Those that there were when the backend was asked.
    pub(super) relations: Vec<Relation>,
    /// Something ran since that may have changed them.
    changed: bool,
    /// The block changed them, or may have.
    by_block: bool,
}

impl Temporary {
    /// Whether there are none for sure.
    pub(super) fn is_none(&self) -> bool {
        self.relations.is_empty() && !self.changed
    }
}

impl Session {
    /// Before a statement that makes temporary relations or changes them: keeps the backend where they live.
    pub(super) async fn change_temporary(&mut self) -> Result<(), Stop> {
        let shard = self.router.topology().default_shard;
        self.join(shard).await?;
        self.transaction.pin(shard, Reasons::TEMPORARY)?;
        self.transaction.mark_unpreparable(shard);
        self.temporary.changed = true;
        self.temporary.by_block = true;
        Ok(())
    }

    /// After what may have made, changed or taken away temporary relations.
    pub(super) fn doubt_temporary(&mut self) {
        let shard = self.router.topology().default_shard;
        let kept = self.transaction.keeps(shard, Reasons::TEMPORARY);
        if kept || !self.temporary.is_none() {
            self.transaction.unsettle(shard);
            self.temporary.changed = true;
            self.temporary.by_block = true;
        }
    }

    /// After ROLLBACK TO.
    pub(super) fn revert_temporary(&mut self) {
        if self.temporary.by_block {
            self.doubt_temporary();
        }
    }

    /// Before a statement is planned: asks which temporary relations there are, if that is not known.
    pub(super) async fn look_at_temporary(&mut self) -> Result<(), Stop> {
        if self.temporary.is_none() || self.transaction.block.phase() == Phase::Failed {
            return Ok(());
        }
        let shard = self.router.topology().default_shard;
        if !self.transaction.keeps(shard, Reasons::TEMPORARY) {
            self.temporary = Temporary::default();
            self.forget_own_topology();
            return Ok(());
        }
        if !self.temporary.changed {
            return Ok(());
        }
        self.leave_shard(None).await?;
        let backend = self.join(shard).await?;
        let reply = command::run_apart(backend, &[RELATIONS, READS]).await;
        if matches!(reply, Err(CommandError::Lost { .. })) {
            self.lose(shard);
        }
        let relations = relations(&reply.map_err(error::of_command)?, shard);
        self.temporary.changed = false;
        if self.temporary.relations != relations {
            self.temporary.relations = relations;
            self.forget_own_topology();
        }
        Ok(())
    }

    /// DISCARD TEMP.
    pub(super) async fn discard_temporary(&mut self) -> Result<(), Stop> {
        let shard = self.router.topology().default_shard;
        if !self.transaction.keeps(shard, Reasons::TEMPORARY) {
            return Ok(());
        }
        self.change_temporary().await?;
        self.transaction.mark_used(shard);
        let backend = self.join(shard).await?;
        let reply = command::run_apart(backend, &["DISCARD TEMP"]).await;
        reply.map(|_| ()).map_err(error::of_command)
    }

    /// After a transaction: whether the backend that is kept has temporary relations that were not known.
    pub(super) fn settle_temporary(&mut self) {
        let shard = self.router.topology().default_shard;
        // It may be gone with the block, or be back.
        self.temporary.changed |= std::mem::take(&mut self.temporary.by_block);
        let kept = self.transaction.keeps(shard, Reasons::TEMPORARY);
        if kept && self.temporary.relations.is_empty() {
            self.temporary.changed = true;
        }
        if !kept && !self.temporary.is_none() {
            self.temporary = Temporary::default();
            self.forget_own_topology();
        }
    }
}

/// The relations that [`RELATIONS`] and [`READS`] gave.
fn relations(reply: &Reply, shard: ShardId) -> Vec<Relation> {
    let mut relations: Vec<Relation> = Vec::new();
    for row in &reply.rows {
        let text = |at: usize| row.get(at).and_then(|value| value.as_deref());
        if let [Some(view), Some(schema), Some(name)] = row.as_slice() {
            let view = relations.iter_mut().find(|known| *known.name == **view);
            if let Some(view) = view {
                view.reads
                    .push((schema.as_str().into(), name.as_str().into()));
            }
            continue;
        }
        let Some(name) = text(0) else { continue };
        if relations.last().is_none_or(|last| *last.name != *name) {
            let kind = match text(1) {
                Some("r" | "p") => RelationKind::Table,
                Some("v") => RelationKind::View,
                Some("S") => RelationKind::Sequence,
                _ => RelationKind::Other,
            };
            let placement = Placement::Local(shard);
            relations.push(Relation::new(TEMPORARY, name, kind, placement));
        }
        if let (Some(relation), Some(column)) = (relations.last_mut(), text(2)) {
            relation.columns.push(Column {
                name: column.into(),
                type_oid: text(3).and_then(|oid| oid.parse().ok()).unwrap_or_default(),
                type_name: text(4).unwrap_or_default().into(),
                collation: match text(5) {
                    Some("none") => Collation::None,
                    _ => Collation::Other,
                },
                collation_name: None,
                default: ColumnDefault::Null,
                not_null: false,
            });
        }
    }
    relations
}

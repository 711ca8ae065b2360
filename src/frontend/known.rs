//! A simple query whose shape is known: it is not parsed, split or classified again, its literals say where it runs.
//! Whatever is not plain (a hint, several statements, settings changed by a function, a text that must be rewritten)
//! is left to [`super::simple_query`], which knows all.

use super::error::Stop;
use super::session::Session;
use crate::planner::plan::{Plan, StepSql};
use crate::planner::{Arguments, Binding, Context, Template};
use crate::router::{TemplateKey, TemplateRef};
use crate::sql::lex;
use crate::topology::ShardId;
use crate::transaction::state::Phase;
use smallvec::SmallVec;
use std::sync::Arc;

/// Literals of a statement that need no allocation.
const LITERALS: usize = 8;

/// Where a known query runs.
enum Way {
    Shard(ShardId),
    Shards(Plan),
}

impl Session {
    /// Answers `sql`, all but ReadyForQuery, if its shape is known. Whether it did.
    pub(super) async fn known_query(&mut self, sql: &str) -> Result<bool, Stop> {
        match self.way(sql) {
            None => return Ok(false),
            Some(Way::Shard(shard)) => {
                self.join(shard).await?;
                self.transaction.mark_used(shard);
                self.run_on(shard, sql, 0).await?;
            }
            Some(Way::Shards(plan)) => self.run_plan(&plan, sql, 0).await?,
        }
        Ok(true)
    }

    fn way(&mut self, sql: &str) -> Option<Way> {
        match self.transaction.block.phase() {
            Phase::Idle | Phase::Open => {}
            Phase::Implicit | Phase::Failed => return None,
        }
        if self.has_hint() || lex::leading_hint(sql).is_some() || !self.shape.read(sql) {
            return None;
        }
        let search_path = self.search_path().ok()?;
        let topology = self.router.control.topology.load();
        let key = TemplateRef {
            sql: self.shape.text(),
            parameter_types: self.shape.types(),
            search_path: &search_path,
            schema_version: topology.schema.version,
        };
        let template = match self.router.shapes.get(&key) {
            Some(known) => known?,
            None => {
                let limits = self.lex_limits();
                let context = Context {
                    topology: &topology,
                    search_path: &search_path,
                    hint: None,
                    limits: &limits,
                };
                let template = crate::planner::template(key.sql, key.parameter_types, &context);
                let template = template.ok().filter(is_plain).map(Arc::new);
                self.router
                    .shapes
                    .insert(TemplateKey::from(key), template.clone());
                template?
            }
        };
        let literals: SmallVec<[_; LITERALS]> = self.shape.values(sql).collect();
        let values: SmallVec<[_; LITERALS]> = literals
            .iter()
            .map(|literal| Some(literal.as_bytes()))
            .collect();
        let arguments = Arguments {
            values: &values,
            formats: &[],
        };
        if let Some(shard) = template.shard(arguments, &topology) {
            return Some(Way::Shard(shard));
        }
        let binding = Binding {
            values: &values,
            formats: &[],
            preferred: self.transaction.preferred(),
            spread: self.router.next_spread(),
        };
        let plan = template.plan(&binding, &topology).ok()?;
        let as_sent = plan.steps.iter().all(|step| step.sql == StepSql::AsSent);
        as_sent.then_some(Way::Shards(plan))
    }
}

/// Whether nothing but the shards needs to know of the statement.
fn is_plain(template: &Template) -> bool {
    template.settings().is_empty()
        && template.session_effects().is_none()
        && !template.has_unknown_relation()
}

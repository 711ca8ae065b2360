//! Statements on several shards that read the clock: all are told one time, that of the block.

use super::error::{self, SessionError, Stop};
use super::session::Session;
use crate::backend::clock;
use crate::planner::plan::{Merge, Plan, StepSql};
use crate::planner::{self, Binding, Context, Refusal, Template};
use crate::transaction::command::{self, CommandError};
use crate::transaction::state::Phase;
use std::sync::Arc;

/// Stands for the time until it is known whether it can be told.
const ANY_TIME: &str = "2000-01-01 00:00:00+00";

impl Session {
    /// The plan of a statement that is `refused` since each shard's clock tells another time: it is told one. Where that
    /// cannot be, the refusal stands.
    pub(super) async fn plan_at_one_time(
        &mut self,
        refused: Stop,
        sql: &str,
        parameter_types: &[u32],
        binding: &Binding<'_>,
    ) -> Result<(Arc<Template>, Plan), Stop> {
        if !refused.is_refusal(Refusal::VolatileFunction)
            || self
                .planned_at(sql, parameter_types, binding, ANY_TIME)?
                .is_none()
        {
            return Err(refused);
        }
        let time = self.one_time().await?;
        let planned = self.planned_at(sql, parameter_types, binding, &time)?;
        planned.ok_or(refused)
    }

    fn planned_at(
        &mut self,
        sql: &str,
        parameter_types: &[u32],
        binding: &Binding<'_>,
        time: &str,
    ) -> Result<Option<(Arc<Template>, Plan)>, Stop> {
        let topology = self.topology();
        let search_path = self.search_path()?;
        let context = Context {
            topology: &topology,
            search_path: &search_path,
            hint: None,
            limits: &self.lex_limits(),
        };
        let Some(text) = planner::at_one_time(sql, time, &context) else {
            return Ok(None);
        };
        let Ok(template) = planner::template(&text, parameter_types, &context) else {
            return Ok(None);
        };
        let mut plan = self.plan(&template, binding)?;
        if !plan.inputs.is_empty() || matches!(plan.merge, Merge::Store(_)) {
            return Ok(None);
        }
        let text: Arc<str> = text.into();
        for step in &mut plan.steps {
            if step.sql == StepSql::AsSent {
                step.sql = StepSql::Rewritten(text.clone());
            }
        }
        Ok(Some((Arc::new(template), plan)))
    }

    /// The time of the block: that of its first shard, where it can be asked. Outside a block, the time now.
    async fn one_time(&mut self) -> Result<Arc<str>, Stop> {
        let in_block = self.transaction.block.phase() != Phase::Idle;
        if let Some(time) = self.transaction.time.clone().filter(|_| in_block) {
            return Ok(time);
        }
        let first = self.transaction.shards().next();
        let first = first.filter(|_| in_block && !self.pipeline.unsynced);
        let backend = first.and_then(|shard| Some((shard, self.transaction.backend(shard)?)));
        let time = match backend {
            None => {
                let asked = clock::ask(&self.router.control).await;
                asked.map_err(SessionError::Clock)?
            }
            Some((shard, backend)) => match command::run_apart(backend, &[clock::NOW]).await {
                Ok(reply) => {
                    let time = reply.rows.into_iter().flatten().flatten().next();
                    time.ok_or(Stop::Gone)?.into()
                }
                Err(error) => {
                    if let CommandError::Lost { .. } = error {
                        self.lose(shard);
                    }
                    return Err(error::of_command(error));
                }
            },
        };
        if in_block {
            self.transaction.time = Some(time.clone());
        }
        Ok(time)
    }
}

//! What must be asked of shards before a plan can be made: values of sequences for the rows of an INSERT (see
//! [`crate::backend::sequence`]), and the time.

use super::error::{SessionError, Stop};
use super::session::Session;
use super::statements::Bound;
use crate::backend::sequence;
use crate::planner::plan::Plan;
use crate::planner::{Binding, PlanError, Refusal, Template};
use crate::topology::ShardId;
use std::sync::Arc;

impl Session {
    /// The plan of a statement, and the template that it is made from, with what has to be asked for it.
    pub(super) async fn plan_asking(
        &mut self,
        template: Arc<Template>,
        sql: &str,
        bound: &Bound<'_>,
        preferred: Option<ShardId>,
    ) -> Result<(Arc<Template>, Plan), Stop> {
        let drawn = self.draw(&template).await?;
        let binding = Binding {
            values: bound.values,
            formats: bound.formats,
            preferred,
            spread: self.router.next_spread(),
            drawn: &drawn,
            cursor: self.cursor_of(&template),
        };
        match self.plan(&template, &binding) {
            Ok(plan) => Ok((template, plan)),
            Err(refused) => {
                self.plan_at_one_time(refused, sql, bound.types, &binding)
                    .await
            }
        }
    }

    /// The values that the statement's rows need, one each; none, if it needs none.
    async fn draw(&self, template: &Template) -> Result<Vec<i64>, Stop> {
        let Some(fill) = template.fill() else {
            return Ok(Vec::new());
        };
        let column = sequence::SequenceColumn {
            schema: fill.schema.clone(),
            table: fill.table.clone(),
            column: fill.column.clone(),
        };
        let drawn = sequence::draw(&self.router.control, column, fill.rows).await;
        match drawn.map_err(SessionError::Sequence)? {
            Some(values) => Ok(values),
            None => Err(PlanError::refused(
                Refusal::SequenceDefault,
                format!(
                    "the default of {}.{} is more than the next value of a sequence",
                    fill.table, fill.column
                ),
            )
            .into()),
        }
    }
}

//! Values of sequences for the rows of an INSERT: see [`crate::backend::sequence`].

use super::error::{SessionError, Stop};
use super::session::Session;
use crate::backend::sequence;
use crate::planner::{PlanError, Refusal, Template};

impl Session {
    /// The values that the statement's rows need, one each; none, if it needs none.
    pub(super) async fn draw(&self, template: &Template) -> Result<Vec<i64>, Stop> {
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

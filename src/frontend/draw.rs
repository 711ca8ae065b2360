//! What must be asked of shards before a plan can be made: values of sequences for the rows of an INSERT (see
//! [`crate::backend::sequence`]), the time, and what else a write's text is to say (see [`planner::Spelling`]).

use super::error::{SessionError, Stop};
use super::session::Session;
use super::statements::Bound;
use crate::backend::sequence;
use crate::planner::plan::{Merge, Plan, StepSql};
use crate::planner::{
    self, Binding, Context, Fill, PlanError, Refusal, SpelledValues, Spelling, Template,
};
use crate::topology::ShardId;
use std::fmt::Write;
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
        let drawn = match template.fill() {
            Some(fill) => self.draw(fill).await?,
            None => Vec::new(),
        };
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
                self.plan_spelled(&template, refused, sql, bound.types, &binding)
                    .await
            }
        }
    }

    /// The plan of a statement that is `refused` since each shard, or each copy, would have values of its own: they are
    /// written out. Where that cannot be, the refusal stands.
    async fn plan_spelled(
        &mut self,
        template: &Template,
        refused: Stop,
        sql: &str,
        parameter_types: &[u32],
        binding: &Binding<'_>,
    ) -> Result<(Arc<Template>, Plan), Stop> {
        let by_shard = [Refusal::VolatileFunction, Refusal::DefaultDiffers];
        let may_help =
            template.is_spelled() || by_shard.iter().any(|refusal| refused.is_refusal(*refusal));
        if !may_help {
            return Err(refused);
        }
        let Some(spelling) = self.spelling(sql)? else {
            return Err(refused);
        };
        // Nothing is asked for in vain.
        let (sample, _) = match self.told(&spelling, &spelling.sample(), parameter_types)? {
            Some(sample) => sample,
            None => return Err(refused),
        };
        if let Err(error) = sample.plan(binding, &self.topology())
            && !error.is_held()
        {
            return Err(refused);
        }
        let values = self.spelled_values(&spelling).await?;
        let told = self.told(&spelling, &values, parameter_types)?;
        let Some((template, text)) = told else {
            return Err(refused);
        };
        let mut plan = self.plan(&template, binding)?;
        if !plan.inputs.is_empty() && !matches!(plan.merge, Merge::Store(_)) {
            return Err(refused);
        }
        for step in &mut plan.steps {
            if step.sql == StepSql::AsSent {
                step.sql = StepSql::Rewritten(text.clone());
            }
        }
        Ok((Arc::new(template), plan))
    }

    fn spelling(&mut self, sql: &str) -> Result<Option<Spelling>, Stop> {
        let topology = self.topology();
        let search_path = self.search_path()?;
        let context = Context {
            topology: &topology,
            search_path: &search_path,
            hint: None,
            limits: &self.lex_limits(),
        };
        Ok(planner::spelling(sql, &context))
    }

    /// The statement with these values, and its text.
    fn told(
        &mut self,
        spelling: &Spelling,
        values: &SpelledValues,
        parameter_types: &[u32],
    ) -> Result<Option<(Template, Arc<str>)>, Stop> {
        let topology = self.topology();
        let search_path = self.search_path()?;
        let context = Context {
            topology: &topology,
            search_path: &search_path,
            hint: None,
            limits: &self.lex_limits(),
        };
        let Some(text) = spelling.text(values) else {
            return Ok(None);
        };
        let template = planner::template(&text, parameter_types, &context);
        let template = template.ok().filter(|template| !template.is_spelled());
        Ok(template.map(|template| (template, text.into())))
    }

    /// Asks for what a statement needs.
    async fn spelled_values(&mut self, spelling: &Spelling) -> Result<SpelledValues, Stop> {
        let mut values = SpelledValues::default();
        for drawn in &spelling.sequences {
            let column = sequence::SequenceColumn {
                schema: drawn.schema.clone(),
                table: drawn.table.clone(),
                column: drawn.column.clone(),
            };
            values
                .numbers
                .push(self.draw_for(column, drawn.count).await?);
        }
        for _ in 0..spelling.uuids {
            values.uuids.push(uuid()?);
        }
        if spelling.time {
            values.time = self.one_time().await?;
        }
        Ok(values)
    }

    /// The values that a statement's rows need, one each.
    async fn draw(&self, fill: &Fill) -> Result<Vec<i64>, Stop> {
        let column = sequence::SequenceColumn {
            schema: fill.schema.clone(),
            table: fill.table.clone(),
            column: fill.column.clone(),
        };
        self.draw_for(column, fill.rows).await
    }

    pub(super) async fn draw_for(
        &self,
        column: sequence::SequenceColumn,
        count: usize,
    ) -> Result<Vec<i64>, Stop> {
        let drawn = sequence::draw(&self.router.control, column.clone(), count).await;
        match drawn.map_err(SessionError::Sequence)? {
            Some(values) => Ok(values),
            None => Err(PlanError::refused(
                Refusal::SequenceDefault,
                format!(
                    "the default of {}.{} is more than the next value of a sequence",
                    column.table, column.column
                ),
            )
            .into()),
        }
    }
}

/// Whether a plan is refused since each shard would have values of its own.
pub(super) fn may_be_spelled(refused: &Stop) -> bool {
    let by_shard = [Refusal::VolatileFunction, Refusal::DefaultDiffers];
    by_shard.iter().any(|refusal| refused.is_refusal(*refusal))
}

/// A UUID of chance (version 4), as PostgreSQL makes and prints it.
pub(super) fn uuid() -> Result<String, Stop> {
    let mut text = String::with_capacity(36);
    for (place, byte) in uuid_bytes()?.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The same, as PostgreSQL sends it in binary.
pub(super) fn uuid_bytes() -> Result<[u8; 16], Stop> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| PlanError::Internal {
        what: "the system has no random numbers".into(),
    })?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(bytes)
}

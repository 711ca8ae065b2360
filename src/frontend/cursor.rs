//! Cursors and portals over several shards: their rows are gathered as one server's, which keeps the cursor or portal; so
//! whatever PostgreSQL's cursors can do, these can.

use super::control::refused;
use super::error::Stop;
use super::session::Session;
use super::several::Request;
use super::simple_query::Sentence;
use super::statements::{Bound, Place, Prepared};
use crate::executor::fan_out::Show;
use crate::planner::plan::{Access, Plan, StepSql};
use crate::planner::{Binding, Template};
use crate::sql::statement::Statement;
use crate::topology::ShardId;
use crate::transaction::state::Phase;
use crate::wire::backend_message;
use crate::wire::frame::Frame;
use crate::wire::frontend_message::FrontendMessage;

impl Session {
    /// The plan of DECLARE for a query over several shards; `None`: one shard has its rows, or it is no DECLARE.
    pub(super) fn declared(
        &mut self,
        sentence: &Sentence<'_>,
        bound: &Bound<'_>,
    ) -> Result<Option<Plan>, Stop> {
        let Statement::Declare { name, body, .. } = &sentence.statement else {
            return Ok(None);
        };
        let template = self.template(&body.text.into(), &bound.types.into())?;
        template.refuse_session_effects()?;
        let binding = Binding {
            values: bound.values,
            formats: bound.formats,
            preferred: self.transaction.preferred(),
            spread: self.router.next_spread(),
            drawn: &[],
            cursor: self.cursor_of(&template),
        };
        let plan = self.plan(&template, &binding)?;
        if plan.steps.len() == 1 && plan.inputs.is_empty() {
            return Ok(None);
        }
        let mut plan = self
            .template_on_one(body.text, bound.types)?
            .plan(&binding, &self.topology())
            .map_err(|_| {
                refused(
                    &format!("cursor \"{name}\" over several shards"),
                    "cursor",
                    "its rows cannot be gathered on one server, which would keep them between two FETCHes",
                    "Fetch all rows at once, or name the sharding key.",
                )
            })?;
        let Some(first) = sentence.tokens.get(body.first_token) else {
            return Err(Stop::Gone);
        };
        for step in &mut plan.steps {
            if let StepSql::Rewritten(text) = &mut step.sql {
                *text = format!("{}{text}", &sentence.sql[..first.start]).into();
            }
        }
        Ok(Some(plan))
    }

    /// DECLARE for a query over several shards, without parameters. False: it is none.
    pub(super) async fn declare_over_shards(
        &mut self,
        sentence: &Sentence<'_>,
    ) -> Result<bool, Stop> {
        let Some(plan) = self.declared(sentence, &Bound::default())? else {
            return Ok(false);
        };
        let [step] = plan.steps.as_slice() else {
            return Err(Stop::Gone);
        };
        Box::pin(self.open_snapshot(plan.access, true)).await?;
        self.join(step.shard).await?;
        self.hold_cursor(&sentence.statement, step.shard)?;
        let request = Request {
            sql: sentence.sql,
            ..Request::default()
        };
        // Its own text is looked at first, so that errors are of its words.
        let show = Show {
            description: true,
            rows_max: None,
            copy: None,
        };
        let done = self.run_bound(&plan, &request, "", show).await?;
        self.after_forward(sentence, step.shard);
        backend_message::write_command_complete(self.client.out(), &done.tag);
        Ok(true)
    }

    /// Has a portal over several shards, which is run in pieces within a block, go on where its rows are gathered; if they
    /// can be, and more than one piece may be asked for.
    pub(super) async fn gather_portal(&mut self, name: &str) -> Result<(), Stop> {
        let Some(portal) = self.portals.get(name).cloned() else {
            return Ok(());
        };
        let Place::Several {
            plan,
            bind,
            described_on,
            ..
        } = &portal.place
        else {
            return Ok(());
        };
        // What lives no longer than to the next Bind is seldom run twice.
        let in_block = self.transaction.block.phase() == Phase::Open;
        if name.is_empty() || plan.access != Access::Read || !in_block {
            return Ok(());
        }
        let prepared = &portal.prepared;
        let Ok(template) = self.template_on_one(&prepared.sql, &prepared.parameter_types) else {
            return Ok(());
        };
        let host = self.bind_in_one(name, prepared, &template, bind, *described_on);
        if let Some(host) = host.await?
            && let Some(portal) = self.portals.get_mut(name)
        {
            portal.place = Place::Shard(host);
        }
        Ok(())
    }

    async fn bind_in_one(
        &mut self,
        name: &str,
        prepared: &Prepared,
        template: &Template,
        bind: &Frame,
        described_on: ShardId,
    ) -> Result<Option<ShardId>, Stop> {
        let Ok(FrontendMessage::Bind(bind)) = FrontendMessage::decode(bind.tag(), bind.body())
        else {
            return Err(Stop::Gone);
        };
        let values: Vec<_> = bind.values().collect();
        let formats: Vec<_> = bind.parameter_formats.iter().collect();
        let results: Vec<_> = bind.result_formats.iter().collect();
        let codes: Vec<i16> = formats.iter().map(|format| format.code() as i16).collect();
        let binding = Binding {
            values: &values,
            formats: &codes,
            preferred: self.transaction.preferred(),
            spread: self.router.next_spread(),
            drawn: &[],
            cursor: self.cursor_of(template),
        };
        let Ok(plan) = template.plan(&binding, &self.topology()) else {
            return Ok(None);
        };
        if plan.inputs.is_empty() {
            return Ok(None);
        }
        self.leave_shard(Some(name)).await?;
        // The client's own text was bound there to be described.
        self.close_portal(described_on, name).await?;
        let request = Request {
            sql: &prepared.sql,
            types: &prepared.parameter_types,
            values: &values,
            formats: &formats,
            results: &results,
        };
        self.bind_gathered(&plan, &request, name).await.map(Some)
    }
}

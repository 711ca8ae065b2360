//! The simple protocol: one string of statements, one ReadyForQuery. Several statements in one string are one
//! transaction unless they say otherwise (PostgreSQL's chapter "Multiple Statements in a Simple Query").

use super::control;
use super::error::{self, Later, SessionError, Stop};
use super::held::Held;
use super::session::Session;
use super::several::Request;
use super::sql_prepare::ExecuteText;
use super::statements::Bound;
use crate::executor::ExecuteError;
use crate::executor::fan_out::{self, FannedOut, Show, Start};
use crate::executor::relay::{self, Answered, Ending, Relayed, Whole};
use crate::planner::plan::{Access, Merge, Plan, Step, StepSql};
use crate::sql::lex::{self, Token};
use crate::sql::split;
use crate::sql::statement::{self, Statement};
use crate::topology::ShardId;
use crate::transaction::state::Phase;
use crate::wire::backend_message::{self, TransactionStatus};
use crate::wire::frame::FrameView;
use crate::wire::frontend_message::{self, FrontendMessage};
use std::sync::Arc;

/// One statement of a client's string, looked at.
pub(super) struct Sentence<'a> {
    /// Its text.
    pub(super) sql: &'a str,
    /// Its tokens.
    pub(super) tokens: &'a [Token],
    /// What it is.
    pub(super) statement: Statement<'a>,
}

impl Session {
    /// Query.
    pub(super) async fn simple_query(&mut self, frame: FrameView<'_>) -> Result<(), Stop> {
        if self.pipeline.unsynced || self.pipeline.unseen.is_some() {
            // Whether those before it failed is known only once they are answered.
            let answered = match self.see_unseen().await {
                Ok(()) => self.drain(false).await,
                seen => seen,
            };
            if let Err(stop) = answered {
                self.fail_pipeline(stop).await?;
            }
        }
        if self.pipeline.failed {
            // All is skipped up to Sync.
            return Ok(());
        }
        if self.pipeline.unsynced {
            // A simple query after extended messages without Sync ends them, as in PostgreSQL.
            Box::pin(self.sync()).await?;
        }
        // A simple query ends the unnamed statement and portal.
        if !self.statements.is_empty() {
            self.statements.remove("");
        }
        if !self.portals.is_empty() {
            self.portals.remove("");
        }
        let answered = match FrontendMessage::decode(frame.tag(), frame.body()) {
            Ok(FrontendMessage::Query { sql }) => match self.lost_pin() {
                Ok(()) => match self.known_query(sql).await {
                    Ok(false) => Box::pin(self.run_string(sql)).await,
                    answered => answered.map(|_| ()),
                },
                lost => lost,
            },
            Ok(_) => Err(SessionError::UnknownMessage(frame.tag()).into()),
            Err(error) => Err(error.into()),
        };
        match answered {
            Ok(()) => {}
            Err(Stop::Gone) => return Err(Stop::Gone),
            Err(stop) => self.tell(stop),
        }
        if self.transaction.block.phase() == Phase::Implicit {
            Box::pin(self.roll_back()).await;
        }
        self.release_idle().await;
        self.ready_for_query();
        Ok(())
    }

    async fn run_string(&mut self, string: &str) -> Result<(), Stop> {
        let ranges = split::split(string, &lex::lex(string, &self.lex_limits())?);
        if ranges.is_empty() {
            backend_message::write_empty_query(self.client.out());
            return Ok(());
        }
        let several = ranges.len() > 1;
        // All of the string is read before any of it runs, as in PostgreSQL.
        let mut sentences = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let sql = &string[range.text.clone()];
            let tokens = lex::lex(sql, &self.lex_limits())?;
            let offset = string[..range.text.start].chars().count() as u32;
            statement::classify(sql, &tokens).map_err(|error| Stop::at(error, offset))?;
            sentences.push((sql, tokens, offset));
        }
        for (sql, tokens, offset) in &sentences {
            let statement = statement::classify(sql, tokens)?;
            if several
                && self.transaction.block.phase() == Phase::Idle
                && !control::controls_transaction(&statement)
            {
                self.begin_implicit().await?;
            }
            self.run_sentence(
                &Sentence {
                    sql,
                    tokens,
                    statement,
                },
                *offset,
            )
            .await?;
        }
        if self.transaction.block.phase() == Phase::Implicit {
            self.commit().await?;
        }
        Ok(())
    }

    /// Runs a statement, and what of it cannot begin yet again.
    async fn run_sentence(&mut self, sentence: &Sentence<'_>, offset: u32) -> Result<(), Stop> {
        let mut held = Held::default();
        loop {
            self.planned = 0;
            match self.run_sentence_now(sentence, offset).await {
                Err(Stop::Later(later)) => {
                    Box::pin(self.wait_for_topology(&mut held, later)).await?;
                }
                ended => return ended,
            }
        }
    }

    async fn run_sentence_now(&mut self, sentence: &Sentence<'_>, offset: u32) -> Result<(), Stop> {
        self.check_block(&sentence.statement)?;
        if control::is_planned(&sentence.statement) {
            self.look_at_temporary().await?;
        }
        match &sentence.statement {
            Statement::Empty => backend_message::write_empty_query(self.client.out()),
            Statement::Query(_) => {
                let sql: Arc<str> = sentence.sql.into();
                let template = self
                    .planned(&sql, &Arc::from([]), i64::from(offset))
                    .await?;
                let preferred = self.transaction.preferred();
                let bound = Bound::default();
                let planned = self.plan_asking(template, &sql, &bound, preferred);
                let (template, plan) = Box::pin(planned).await?;
                self.before(&template, &plan).await?;
                self.run_plan(&plan, sentence.sql, offset).await?;
                if let ([_, ..], [step]) = (template.settings(), plan.steps.as_slice()) {
                    self.adopt_settings(step.shard, template.settings()).await?;
                }
            }
            Statement::Declare { .. } if Box::pin(self.declare_over_shards(sentence)).await? => {}
            statement if control::is_forwarded(statement) => {
                let shard = self.forward_shard(sentence, Some(&Bound::default()))?;
                if !matches!(sentence.statement, Statement::Show(_)) {
                    self.join(shard).await?;
                    self.transaction.mark_used(shard);
                    self.hold_cursor(&sentence.statement, shard)?;
                }
                self.run_on(shard, sentence.sql, offset).await?;
                self.after_forward(sentence, shard);
            }
            Statement::Prepare { .. } => self.prepare(sentence, offset).await?,
            Statement::Execute { .. } => {
                let execute = ExecuteText {
                    sql: sentence.sql,
                    tokens: sentence.tokens,
                    hinted: sentence.sql,
                    offset,
                };
                self.execute_sql(execute).await?;
            }
            _ => self.run_in_session(sentence, true).await?,
        }
        Ok(())
    }

    /// Refuses what a failed block does not allow.
    pub(super) fn check_block(&self, statement: &Statement<'_>) -> Result<(), Stop> {
        let ends = matches!(
            statement,
            Statement::Commit { .. }
                | Statement::Rollback { .. }
                | Statement::RollbackTo(_)
                | Statement::PrepareTransaction(_)
                | Statement::Empty
        );
        if self.transaction.block.phase() == Phase::Failed && !ends {
            return Err(SessionError::FailedBlock.into());
        }
        Ok(())
    }

    /// The router's own block, around what the client sees as one transaction.
    pub(super) async fn begin_implicit(&mut self) -> Result<(), Stop> {
        self.parameters.begin();
        let (transaction, tenant) = self.transaction();
        let begun = transaction.begin_implicit(tenant).await;
        self.note_in_use();
        begun.map_err(error::of_command)
    }

    /// Runs a plan without parameters and gives the client all but ReadyForQuery.
    pub(super) async fn run_plan(
        &mut self,
        plan: &Plan,
        sql: &str,
        offset: u32,
    ) -> Result<(), Stop> {
        let show = Show {
            description: true,
            rows_max: None,
            copy: None,
        };
        if let Merge::Store(_) = &plan.merge {
            return Box::pin(self.run_store(plan, sql)).await;
        }
        if !plan.inputs.is_empty() && plan.access == Access::Ddl {
            return Box::pin(self.create_gathered(plan, sql)).await;
        }
        if !plan.inputs.is_empty() {
            let request = Request {
                sql,
                ..Request::default()
            };
            let done = self.run_bound(plan, &request, "", show).await;
            let done = done.map_err(|stop| stop.shifted(i64::from(offset)))?;
            backend_message::write_command_complete(self.client.out(), &done.tag);
            return Ok(());
        }
        if let ([step], Merge::Relay) = (plan.steps.as_slice(), &plan.merge) {
            let (text, offset) = match &step.sql {
                StepSql::AsSent => (sql, offset),
                StepSql::Rewritten(text) => (&**text, 0),
            };
            self.join(step.shard).await?;
            self.transaction.mark_used(step.shard);
            self.run_on(step.shard, text, offset).await?;
            self.note_schema_change(plan.access);
            return Ok(());
        }
        self.bound_for_several(plan, sql.len())?;
        if plan.access == Access::OutsideBlock {
            return self.run_shard_by_shard(plan, sql).await;
        }
        let own = self.transaction.block.phase() == Phase::Idle && plan.access != Access::Read;
        if own {
            self.begin_implicit().await?;
        }
        self.before_move(plan).await?;
        let done = self
            .fan_out(plan, show, |out, step| {
                frontend_message::write_query(out, text_of(step, sql));
            })
            .await
            .map_err(|stop| stop.in_text_of(plan, sql).shifted(i64::from(offset)))?;
        Box::pin(self.move_rows(plan, &Request::default(), &done)).await?;
        self.note_schema_change(plan.access);
        if own {
            self.commit().await?;
        }
        backend_message::write_command_complete(self.client.out(), &done.tag);
        Ok(())
    }

    /// What runs by a hint is not looked at: it may leave locks, tables or settings in its server session.
    pub(super) async fn taint(&mut self, plan: &Plan) -> Result<(), Stop> {
        for step in &plan.steps {
            self.join(step.shard).await?.tainted = true;
            self.transaction.mark_used(step.shard);
        }
        Ok(())
    }

    /// Runs one statement on one shard, its answer passed through.
    pub(super) async fn run_on(
        &mut self,
        shard: ShardId,
        sql: &str,
        offset: u32,
    ) -> Result<(), Stop> {
        let backend = self.join(shard).await?;
        frontend_message::write_query(backend.stream.out(), sql);
        backend.forget_unnamed();
        let guarded = self.transaction.block.phase() == Phase::Idle && self.planned > 0;
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        let whole = Whole {
            position_offset: i64::from(offset),
            guarded,
            ..Whole::default()
        };
        let answered = relay::relay_whole(backend, &mut self.client, whole).await;
        let answered = self.after_whole(shard, answered)?;
        match answered.rejected {
            None => Ok(()),
            // The shard's rows have moved, which this router has still to hear.
            Some(error) => Err(Stop::Later(Later {
                generation: self.planned,
                otherwise: Box::new(Stop::Shard(error).shifted(i64::from(offset))),
            })),
        }
    }

    /// Takes note of how a whole answer ended.
    pub(super) fn after_whole(
        &mut self,
        shard: ShardId,
        answered: Result<Answered, ExecuteError>,
    ) -> Result<Answered, Stop> {
        let answered = answered.map_err(|error| self.after_loss(shard, error))?;
        let status = Some(answered.status);
        let relayed = match answered.ending {
            Ending::Done | Ending::Stale => Relayed::Done(status),
            Ending::Failed => Relayed::Failed(status),
        };
        self.after_relay(shard, Ok(relayed)).map(|()| answered)
    }

    fn after_loss(&mut self, shard: ShardId, error: ExecuteError) -> Stop {
        if !matches!(error, ExecuteError::ClientGone) {
            self.lose(shard);
        }
        error::of_execute(error)
    }

    /// Takes note of how a relay ended.
    pub(super) fn after_relay(
        &mut self,
        shard: ShardId,
        relayed: Result<Relayed, ExecuteError>,
    ) -> Result<(), Stop> {
        match relayed {
            Ok(Relayed::Done(status)) => {
                self.report_parameters(shard);
                self.check_status(shard, status)
            }
            Ok(Relayed::Stale { .. }) => {
                self.transaction.block.fail();
                Err(Stop::Told)
            }
            Ok(Relayed::Failed(status)) => {
                self.report_parameters(shard);
                self.check_status(shard, status)?;
                self.transaction.block.fail();
                Err(Stop::Told)
            }
            Err(error) => Err(self.after_loss(shard, error)),
        }
    }

    /// A shard that is in a block the session knows nothing of, or out of one it should be in, is let go.
    fn check_status(
        &mut self,
        shard: ShardId,
        status: Option<TransactionStatus>,
    ) -> Result<(), Stop> {
        let in_block = match status {
            None => return Ok(()),
            Some(TransactionStatus::Idle) => false,
            Some(TransactionStatus::InBlock | TransactionStatus::Failed) => true,
        };
        if in_block == (self.transaction.block.phase() != Phase::Idle) {
            return Ok(());
        }
        self.lose(shard);
        Err(SessionError::Refused {
            what: "transaction control inside a statement".to_owned(),
            code: "transaction-control",
            reason: "the statement ended or began a transaction that the router does not know of",
            hint: "Send BEGIN, COMMIT and ROLLBACK as statements of their own.",
        }
        .into())
    }

    /// Refuses a message that is too large to be held once for each shard of the plan.
    pub(super) fn bound_for_several(&self, plan: &Plan, bytes: usize) -> Result<(), Stop> {
        let max = self.router.config.limits.request_bytes;
        if plan.steps.len() > 1 && bytes > max {
            return Err(SessionError::RequestTooLarge { bytes, max }.into());
        }
        Ok(())
    }

    /// Runs a plan on its shards at once; rows go to the client, the command tag to the caller.
    pub(super) async fn fan_out(
        &mut self,
        plan: &Plan,
        show: Show<'_>,
        write: impl Fn(&mut bytes::BytesMut, &Step),
    ) -> Result<FannedOut, Stop> {
        for step in &plan.steps {
            let backend = self.join(step.shard).await?;
            backend.forget_unnamed();
            self.transaction.mark_used(step.shard);
        }
        let mut backends = Vec::with_capacity(plan.steps.len());
        for backend in self.transaction.backends() {
            if let Some(step) = plan.steps.iter().find(|step| step.shard == backend.shard) {
                write(backend.stream.out(), step);
                backends.push(backend);
            }
        }
        // Rows that a split INSERT makes are its own; all else locks what others may lock too.
        let in_turn = plan.access == Access::Ddl
            || plan.access != Access::Read && !matches!(plan.merge, Merge::InTurn(_));
        let start = if in_turn {
            Start::InTurn
        } else {
            Start::AtOnce
        };
        match fan_out::fan_out(backends, &plan.merge, start, show, &mut self.client).await {
            Ok(done) => {
                self.after_steps(&plan.steps, &done)?;
                Ok(done)
            }
            Err(error) => {
                let shards: Vec<ShardId> = plan.steps.iter().map(|step| step.shard).collect();
                Err(self.after_several(&shards, error))
            }
        }
    }

    /// Takes note of what the shards of a fan-out said.
    pub(super) fn after_steps(&mut self, steps: &[Step], done: &FannedOut) -> Result<(), Stop> {
        for (step, status) in steps.iter().zip(&done.statuses) {
            self.report_parameters(step.shard);
            self.check_status(step.shard, Some(*status))?;
        }
        Ok(())
    }

    /// Takes note of which of the shards that ran at once were lost.
    pub(super) fn after_several(&mut self, shards: &[ShardId], error: ExecuteError) -> Stop {
        if !matches!(error, ExecuteError::ClientGone) {
            for shard in shards {
                let backend = self.transaction.backend(*shard);
                if backend.is_some_and(|backend| backend.is_broken()) {
                    self.lose(*shard);
                }
            }
        }
        error::of_execute(error)
    }

    /// Statements that cannot run in a block: on one shard after the other; a failure says how far it came.
    async fn run_shard_by_shard(&mut self, plan: &Plan, sql: &str) -> Result<(), Stop> {
        let topology = self.router.topology();
        let mut done: Vec<&str> = Vec::new();
        let mut tag = String::new();
        for step in &plan.steps {
            let backend = self.join(step.shard).await?;
            match crate::transaction::command::run(backend, text_of(step, sql)).await {
                Ok(reply) => {
                    self.pass_asides(&reply.asides);
                    tag = reply.tag;
                    done.push(topology.shard_name(step.shard));
                }
                Err(error) if done.is_empty() => return Err(error::of_command(error)),
                Err(error) => {
                    let why = match &error {
                        crate::transaction::command::CommandError::Refused(frame) => {
                            backend_message::ErrorFields::read(frame.body())
                                .map(|fields| fields.message.into_owned())
                                .unwrap_or_default()
                        }
                        lost => lost.to_string(),
                    };
                    let failed = format!("{}: {why}", topology.shard_name(step.shard));
                    return Err(SessionError::PartlyDone {
                        done: done.join(", "),
                        failed,
                    }
                    .into());
                }
            }
        }
        self.note_schema_change(Access::Ddl);
        backend_message::write_command_complete(self.client.out(), &tag);
        Ok(())
    }
}

/// What a step's shard is sent.
pub(super) fn text_of<'a>(step: &'a Step, sql: &'a str) -> &'a str {
    match &step.sql {
        StepSql::AsSent => sql,
        StepSql::Rewritten(text) => text,
    }
}

//! The extended protocol: Parse, Bind, Describe, Execute, Close, Flush, Sync.
//!
//! Messages that go to one shard are passed on in a pipeline: what each will be answered is remembered as a queue
//! ([`Expect`]) and read at Sync, Flush, or when the next message goes elsewhere. Up to Sync the client sees one
//! transaction; one that needs a second shard becomes a block of the router's own. After an error all is skipped up
//! to Sync (PostgreSQL's chapter "Extended Query").

use super::control;
use super::error::{self, Later, SessionError, Stop};
use super::explain::PlanFormat;
use super::held::Held;
use super::known::is_plain;
use super::session::{Change, Pipeline, Session};
use super::several::Request;
use super::simple_query::Sentence;
use super::statements::{Bound, Place, Portal, Prepared, PreparedKind, Ran, backend_name};
use crate::backend::connection::Backend;
use crate::executor::ExecuteError;
use crate::executor::fan_out::{FannedOut, Show};
use crate::executor::relay::{self, Expect, Relayed};
use crate::planner::plan::{Access, Plan};
use crate::planner::{Binding, Refusal, Template};
use crate::sql::lex::{self, TokenKind};
use crate::sql::split;
use crate::sql::statement::{self, Discard, Statement};
use crate::topology::ShardId;
use crate::transaction::command::{self, CommandError, Reply};
use crate::transaction::pin::Reasons;
use crate::transaction::state::Phase;
use crate::wire::backend_message::{self, ColumnDescription};
use crate::wire::frame::{Format, Frame, FrameView};
use crate::wire::frontend_message::{self, Bind, FrontendMessage, Target};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

impl Session {
    /// One of the extended protocol's messages.
    pub(super) async fn extended_message(&mut self, frame: FrameView<'_>) -> Result<(), Stop> {
        if frame.tag() == b'S' {
            return self.end_pipeline().await;
        }
        if self.pipeline.failed {
            return Ok(());
        }
        let answered = match FrontendMessage::decode(frame.tag(), frame.body()) {
            Ok(message) => match self.lost_pin() {
                Ok(()) => match self.extended(&message, frame).await {
                    Ok(()) => self.bound_answers().await,
                    Err(Stop::Later(later)) => {
                        Box::pin(self.extended_later(&message, frame, later)).await
                    }
                    Err(stop) => Err(stop),
                },
                lost => lost,
            },
            Err(error) => Err(error.into()),
        };
        match answered {
            Ok(()) => Ok(()),
            Err(Stop::Gone) => Err(Stop::Gone),
            Err(stop) => self.fail_pipeline(stop).await,
        }
    }

    /// Sync, or what else ends a pipeline.
    pub(super) async fn end_pipeline(&mut self) -> Result<(), Stop> {
        self.sync().await?;
        self.release_idle().await;
        self.ready_for_query();
        Ok(())
    }

    /// Tells the client of an error, after which all up to Sync is skipped.
    pub(super) async fn fail_pipeline(&mut self, stop: Stop) -> Result<(), Stop> {
        // What came before the failed message is answered before it.
        let earlier = match stop {
            Stop::Told => Ok(()),
            _ => {
                let earlier = self.answer_earlier().await;
                // A Parse ends the unnamed statement, even one that fails.
                if earlier.is_ok() && self.pipeline.parses_unnamed {
                    self.statements.remove("");
                }
                earlier
            }
        };
        self.pipeline.failed = true;
        self.forget_unanswered();
        match earlier {
            Ok(()) => self.tell(stop),
            Err(Stop::Gone) => return Err(Stop::Gone),
            Err(earlier) => self.tell(earlier),
        }
        Ok(())
    }

    /// Gives the answers to what came before a message that failed.
    async fn answer_earlier(&mut self) -> Result<(), Stop> {
        if !self.pipeline.unseeable {
            self.see_unseen().await?;
        }
        self.drain(false).await
    }

    async fn extended(
        &mut self,
        message: &FrontendMessage<'_>,
        frame: FrameView<'_>,
    ) -> Result<(), Stop> {
        match message {
            FrontendMessage::Parse {
                name,
                sql,
                parameter_types,
            } => Box::pin(self.parse(name, sql, parameter_types)).await,
            FrontendMessage::Bind(bind) => self.bind(bind, frame).await,
            FrontendMessage::Describe {
                target: Target::Statement,
                name,
            } => self.describe_statement(name).await,
            FrontendMessage::Describe {
                target: Target::Portal,
                name,
            } => self.describe_portal(name).await,
            FrontendMessage::Execute { portal, row_limit } => {
                self.execute(portal, *row_limit).await
            }
            FrontendMessage::Close { target, name } => self.close(*target, name).await,
            FrontendMessage::Flush => {
                self.see_unseen().await?;
                self.drain(false).await?;
                self.client.flush().await.map_err(error::of_client)
            }
            _ => Err(SessionError::UnknownMessage(frame.tag()).into()),
        }
    }

    /// Again, what could not begin yet.
    async fn extended_later(
        &mut self,
        message: &FrontendMessage<'_>,
        frame: FrameView<'_>,
        mut later: Later,
    ) -> Result<(), Stop> {
        let mut held = Held::default();
        loop {
            // What came before is answered as if this were still to come.
            self.drain(false).await?;
            self.client.flush().await.map_err(error::of_client)?;
            self.wait_for_topology(&mut held, later).await?;
            self.planned = 0;
            match self.extended(message, frame).await {
                Err(Stop::Later(again)) => later = again,
                Ok(()) => return self.bound_answers().await,
                ended => return ended,
            }
        }
    }

    async fn parse(&mut self, name: &str, sql: &str, parameter_types: &[u32]) -> Result<(), Stop> {
        self.see_unseen().await?;
        self.pipeline.parses_unnamed = name.is_empty();
        let whole = sql;
        let tokens = lex::lex(sql, &self.lex_limits())?;
        let statements = split::split(sql, &tokens);
        let (sql, tokens) = match statements.as_slice() {
            [] => ("", &[][..]),
            // From its first byte, so that the positions in errors are the client's.
            [one] => (&sql[..one.text.end], &tokens[one.tokens.clone()]),
            _ => return Err(SessionError::SeveralStatements.into()),
        };
        let is_known = self.statements.contains_key(name);
        if is_known && !name.is_empty() {
            return Err(SessionError::DuplicateStatement(name.to_owned()).into());
        }
        let max = self.router.config.limits.prepared_statements;
        if self.statements.len() >= max && !is_known {
            return Err(SessionError::TooManyStatements { max }.into());
        }
        let classified = statement::classify(sql, tokens)?;
        self.check_block(&classified)?;
        if control::is_planned(&classified) {
            self.look_at_temporary().await?;
        }
        let sql: Arc<str> = sql.into();
        let parameter_types: Arc<[u32]> = parameter_types.into();
        let kind = match &classified {
            Statement::Empty => PreparedKind::Empty,
            Statement::Query(_) => {
                let template = self.planned(&sql, &parameter_types, 0).await?;
                let schema_version = self.topology().schema.version;
                if name.is_empty() && self.is_plain() && is_plain(&template) {
                    self.remember_parsed(whole, &sql, &parameter_types, &template)?;
                }
                PreparedKind::Query {
                    template,
                    schema_version,
                    search_path: self.search_path()?,
                }
            }
            Statement::Explain { .. } => PreparedKind::Explain,
            Statement::Execute { .. } => PreparedKind::Execute,
            statement if control::is_forwarded(statement) => PreparedKind::Forward,
            _ => PreparedKind::Session,
        };
        let named = !name.is_empty();
        let id = if named {
            let topology = self.topology();
            let key = self.template_key(&sql, &parameter_types, &topology)?;
            self.router.statement_id(&key)
        } else {
            self.router.next_statement()
        };
        let seen_by_shard = match kind {
            PreparedKind::Query { .. } | PreparedKind::Forward | PreparedKind::Explain => true,
            PreparedKind::Session | PreparedKind::Execute | PreparedKind::Empty => false,
        };
        let parameters = if seen_by_shard {
            let numbers = tokens
                .iter()
                .filter(|token| token.kind == TokenKind::Parameter)
                .filter_map(|token| token.text(&sql).get(1..)?.parse().ok());
            numbers.max().unwrap_or(0).max(parameter_types.len())
        } else {
            0
        };
        let prepared = Arc::new(Prepared {
            id,
            parameters: Some(parameters),
            backend_name: if named {
                backend_name(id)
            } else {
                String::new()
            }
            .into(),
            sql,
            parameter_types,
            kind,
            described: OnceLock::new(),
            position_offset: 0,
        });
        let before = self.statements.insert(name.to_owned(), prepared.clone());
        let change = Change::Statement {
            name: name.to_owned(),
            before,
        };
        self.pipeline.parses_unnamed = false;
        if seen_by_shard {
            self.pipeline.note_change(change);
            self.pipeline.unseen = Some(prepared);
        } else {
            self.pipeline.note_answered_change(change);
            self.answer_locally(backend_message::write_parse_complete);
        }
        Ok(())
    }

    /// Puts the router's own answer into the order of the pipeline's answers.
    pub(super) fn answer_locally(&mut self, write: impl FnOnce(&mut BytesMut)) {
        if self.pipeline.queue.is_empty() {
            write(self.client.out());
        } else {
            let mut answer = BytesMut::new();
            write(&mut answer);
            self.pipeline.local_bytes += answer.len();
            self.pipeline
                .queue
                .push_back(Expect::Local(answer.freeze()));
        }
    }

    /// Has a shard accept the statement that was parsed last, if none has seen it yet.
    pub(super) async fn see_unseen(&mut self) -> Result<(), Stop> {
        let Some(prepared) = self.pipeline.unseen.clone() else {
            return Ok(());
        };
        let shard = self.shard_to_describe(&prepared)?;
        self.ensure_parsed(&prepared, shard).await
    }

    pub(super) fn shard_to_describe(&mut self, prepared: &Prepared) -> Result<ShardId, Stop> {
        match &prepared.kind {
            PreparedKind::Query { template, .. } if template.is_temporary() => {
                Ok(self.router.topology().default_shard)
            }
            // Every shard has every definition.
            PreparedKind::Query { .. } => Ok(self.any_shard()),
            PreparedKind::Explain => self.shard_that_knows(&prepared.sql),
            PreparedKind::Forward
            | PreparedKind::Session
            | PreparedKind::Execute
            | PreparedKind::Empty => self.shard_to_forward(prepared, None),
        }
    }

    fn shard_to_forward(
        &mut self,
        prepared: &Prepared,
        bound: Option<&Bound<'_>>,
    ) -> Result<ShardId, Stop> {
        let tokens = lex::lex(&prepared.sql, &self.lex_limits())?;
        let sentence = Sentence {
            sql: &prepared.sql,
            tokens: &tokens,
            statement: statement::classify(&prepared.sql, &tokens)?,
        };
        self.forward_shard(&sentence, bound)
    }

    /// Binds what one shard answers as it stands, or a cursor over several.
    async fn bind_forward(
        &mut self,
        prepared: &Arc<Prepared>,
        bound: &Bound<'_>,
        portal: &str,
        frame: FrameView<'_>,
    ) -> Result<Place, Stop> {
        let declared = {
            let tokens = lex::lex(&prepared.sql, &self.lex_limits())?;
            let sentence = Sentence {
                sql: &prepared.sql,
                tokens: &tokens,
                statement: statement::classify(&prepared.sql, &tokens)?,
            };
            self.declared(&sentence, bound)?
        };
        let Some(plan) = declared else {
            let shard = self.shard_to_forward(prepared, Some(bound))?;
            self.bind_on(prepared, shard, portal, frame).await?;
            return Ok(Place::Shard(shard));
        };
        let [step] = plan.steps.as_slice() else {
            return Err(Stop::Gone);
        };
        Box::pin(self.open_snapshot(plan.access, true)).await?;
        let described_on = step.shard;
        self.bind_on(prepared, described_on, portal, frame).await?;
        Ok(Place::Several {
            plan: Arc::new(plan),
            generation: self.planned,
            bind: self.held(frame),
            described_on,
        })
    }

    /// Makes `shard` the one that the pipeline talks to.
    async fn talk_to(&mut self, shard: ShardId) -> Result<(), Stop> {
        if self.pipeline.shard == Some(shard) && self.pipeline.unsynced {
            return Ok(());
        }
        self.leave_shard(None).await?;
        self.join(shard).await?;
        self.pipeline.shard = Some(shard);
        self.pipeline.unsynced = true;
        self.pipeline.sent = false;
        self.pipeline.known.clear();
        Ok(())
    }

    /// Ends the pipeline's talk with its shard, so that something else can be done: what was executed becomes part of
    /// a block of the router's own, which ends at Sync; and so do portals, but for `run`, which runs now.
    pub(super) async fn leave_shard(&mut self, run: Option<&str>) -> Result<(), Stop> {
        if !self.pipeline.unsynced {
            return Ok(());
        }
        if self.transaction.block.phase() == Phase::Idle
            && (self.pipeline.executed || self.has_portals(run))
        {
            self.drain(false).await?;
            self.begin_implicit().await?;
            self.pipeline.unsynced = false;
        } else {
            self.drain(true).await?;
        }
        self.adopt_pipeline_settings().await
    }

    /// What functions set since the last Sync becomes the session's before anything else can see it.
    async fn adopt_pipeline_settings(&mut self) -> Result<(), Stop> {
        for (shard, template) in std::mem::take(&mut self.pipeline.settings) {
            Box::pin(self.adopt_settings(shard, template.settings())).await?;
        }
        Ok(())
    }

    /// Whether a Sync outside a block would end portals of a shard, `run` aside.
    fn has_portals(&self, run: Option<&str>) -> bool {
        self.portals.iter().any(|(name, portal)| {
            run != Some(name)
                && match portal.place {
                    Place::Shard(_) | Place::Several { .. } | Place::Explained { .. } => true,
                    Place::Session | Place::Suspended(_) | Place::Done { .. } => false,
                }
        })
    }

    /// Has `shard` know the statement; the client's ParseComplete comes from it if the client still waits for one.
    pub(super) async fn ensure_parsed(
        &mut self,
        prepared: &Arc<Prepared>,
        shard: ShardId,
    ) -> Result<(), Stop> {
        self.pipeline.unseeable = true;
        self.talk_to(shard).await?;
        self.pipeline.unseeable = false;
        let shown = match self.pipeline.unseen.take() {
            Some(unseen) if Arc::ptr_eq(&unseen, prepared) => true,
            other => {
                self.pipeline.unseen = other;
                false
            }
        };
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        let known = if prepared.is_named() {
            backend.prepared.contains(prepared.id)
        } else {
            backend.unnamed == Some(prepared.id)
        };
        if known {
            self.pipeline.known.push(prepared.clone());
            if shown {
                self.answer_locally(backend_message::write_parse_complete);
            }
            return Ok(());
        }
        if prepared.is_named() {
            if let Some(evicted) = backend.prepared.insert(prepared.id) {
                frontend_message::write_close(
                    backend.stream.out(),
                    Target::Statement,
                    &backend_name(evicted),
                );
                self.pipeline
                    .queue
                    .push_back(Expect::Close { shown: false });
                // After an error it may be there still.
                self.pipeline.parsed.push(evicted);
            }
            self.pipeline.parsed.push(prepared.id);
        } else {
            backend.unnamed = Some(prepared.id);
        }
        frontend_message::write_parse(
            backend.stream.out(),
            &prepared.backend_name,
            &prepared.sql,
            &prepared.parameter_types,
        );
        self.pipeline.queue.push_back(Expect::Parse { shown });
        self.bound_pipeline(shard).await
    }

    /// Sends and reads when what waits for the shard is over the limit.
    async fn bound_pipeline(&mut self, shard: ShardId) -> Result<(), Stop> {
        let waiting = self
            .transaction
            .backend(shard)
            .map_or(0, |backend| backend.stream.unsent_bytes());
        if waiting > crate::executor::CLIENT_OUTPUT_BYTES {
            self.drain(false).await
        } else {
            Ok(())
        }
    }

    /// Sends the answers that wait when the router's own among them are over the limit.
    async fn bound_answers(&mut self) -> Result<(), Stop> {
        if self.pipeline.local_bytes > crate::executor::CLIENT_OUTPUT_BYTES {
            self.drain(false).await
        } else {
            Ok(())
        }
    }

    fn prepared(&self, name: &str) -> Result<Arc<Prepared>, Stop> {
        match self.statements.get(name) {
            Some(prepared) => Ok(prepared.clone()),
            None if name.is_empty() => Err(SessionError::NoUnnamedStatement.into()),
            None => Err(SessionError::UnknownStatement(name.to_owned()).into()),
        }
    }

    async fn bind(&mut self, bind: &Bind<'_>, frame: FrameView<'_>) -> Result<(), Stop> {
        let prepared = self.prepared(bind.statement)?;
        if let Some(expected) = prepared.parameters
            && expected != bind.value_count()
        {
            return Err(SessionError::WrongValues {
                name: bind.statement.to_owned(),
                expected,
                given: bind.value_count(),
            }
            .into());
        }
        if !bind.portal.is_empty() && self.portals.contains_key(bind.portal) {
            return Err(SessionError::DuplicatePortal(bind.portal.to_owned()).into());
        }
        let max = self.router.config.limits.portals;
        if self.portals.len() >= max && !self.portals.contains_key(bind.portal) {
            return Err(SessionError::TooManyPortals { max }.into());
        }
        if self
            .pipeline
            .unseen
            .as_ref()
            .is_some_and(|unseen| !Arc::ptr_eq(unseen, &prepared))
        {
            self.see_unseen().await?;
        }
        let prepared = match prepared.kind {
            PreparedKind::Query { .. } => {
                self.look_at_temporary().await?;
                let current = self.current(&prepared)?;
                if !Arc::ptr_eq(&current, &prepared) {
                    self.see_unseen().await?;
                }
                current
            }
            PreparedKind::Forward | PreparedKind::Explain | PreparedKind::Execute => {
                self.look_at_temporary().await?;
                prepared
            }
            PreparedKind::Session | PreparedKind::Empty => prepared,
        };
        if matches!(prepared.kind, PreparedKind::Execute) {
            return Box::pin(self.bind_execute(&prepared, bind, frame)).await;
        }
        let values: Vec<_> = bind.values().collect();
        let formats: Vec<_> = bind
            .parameter_formats
            .iter()
            .map(|format| format.code() as i16)
            .collect();
        let place = match &prepared.kind {
            PreparedKind::Query { .. } => {
                if self.transaction.block.phase() == Phase::Failed {
                    return Err(SessionError::FailedBlock.into());
                }
                let mut template = self.current_template(&prepared);
                let unloaded = |stop: &Stop| stop.is_refusal(Refusal::UnloadedTable);
                if template.as_ref().is_err_and(unloaded) && Box::pin(self.look_again()).await {
                    template = self.current_template(&prepared);
                }
                let template = template?;
                let preferred = if self.pipeline.unsynced {
                    self.pipeline.shard
                } else {
                    None
                };
                let preferred = preferred.or(self.transaction.preferred());
                let bound = Bound {
                    types: &prepared.parameter_types,
                    values: &values,
                    formats: &formats,
                };
                let planned = self.plan_asking(template, &prepared.sql, &bound, preferred);
                let (template, plan) = Box::pin(planned).await?;
                let bound = self.bind_planned(&prepared, &template, plan, bind.portal, frame);
                Box::pin(bound).await?
            }
            PreparedKind::Forward => {
                let bound = Bound {
                    types: &prepared.parameter_types,
                    values: &values,
                    formats: &formats,
                };
                let forwarded = self.bind_forward(&prepared, &bound, bind.portal, frame);
                Box::pin(forwarded).await?
            }
            PreparedKind::Explain => {
                if self.transaction.block.phase() == Phase::Failed {
                    return Err(SessionError::FailedBlock.into());
                }
                let shard = self.shard_that_knows(&prepared.sql)?;
                self.bind_on(&prepared, shard, bind.portal, frame).await?;
                Place::Explained {
                    bind: self.held(frame),
                    described_on: shard,
                }
            }
            PreparedKind::Session | PreparedKind::Execute | PreparedKind::Empty => {
                // What may end the block is looked at when it is executed.
                let is_empty = matches!(prepared.kind, PreparedKind::Empty);
                if is_empty && self.transaction.block.phase() == Phase::Failed {
                    return Err(SessionError::FailedBlock.into());
                }
                self.answer_locally(backend_message::write_bind_complete);
                Place::Session
            }
        };
        self.portals
            .insert(bind.portal.to_owned(), Portal { prepared, place });
        Ok(())
    }

    /// Binds a statement where its plan says that it runs.
    pub(super) async fn bind_planned(
        &mut self,
        prepared: &Arc<Prepared>,
        template: &Template,
        plan: Plan,
        portal: &str,
        frame: FrameView<'_>,
    ) -> Result<Place, Stop> {
        self.before(template, &plan).await?;
        if let Some(step) = plan.passed() {
            let shard = step.shard;
            self.bind_on(prepared, shard, portal, frame).await?;
            return Ok(Place::Shard(shard));
        }
        match plan.steps.as_slice() {
            [] => Err(Stop::Gone),
            [first, ..] => {
                // The client's own text, bound on one shard: it answers Bind and Describe.
                self.bound_for_several(&plan, frame.body().len())?;
                let described_on = first.shard;
                self.bind_on(prepared, described_on, portal, frame).await?;
                Ok(Place::Several {
                    plan: Arc::new(plan),
                    generation: self.planned,
                    bind: self.held(frame),
                    described_on,
                })
            }
        }
    }

    /// The statement that a prepared one is now: another where a name in it has come to mean a temporary relation, or means
    /// one no more, since a shard may keep to what it meant.
    pub(super) fn current(&mut self, prepared: &Arc<Prepared>) -> Result<Arc<Prepared>, Stop> {
        let PreparedKind::Query {
            template,
            schema_version,
            ..
        } = &prepared.kind
        else {
            return Ok(prepared.clone());
        };
        let topology = self.topology();
        let may_differ = template.is_temporary() || topology.schema.has_temporary();
        if !may_differ || *schema_version == topology.schema.version {
            return Ok(prepared.clone());
        }
        let now = self.template(&prepared.sql, &prepared.parameter_types)?;
        if !now.is_temporary() && !template.is_temporary() {
            return Ok(prepared.clone());
        }
        let id = self.router.next_statement();
        let current = Arc::new(Prepared {
            id,
            parameters: prepared.parameters,
            backend_name: match prepared.is_named() {
                true => backend_name(id).into(),
                false => Box::default(),
            },
            sql: prepared.sql.clone(),
            parameter_types: prepared.parameter_types.clone(),
            kind: PreparedKind::Query {
                template: now,
                schema_version: topology.schema.version,
                search_path: self.search_path()?,
            },
            described: OnceLock::new(),
            position_offset: prepared.position_offset,
        });
        for known in self.statements.values_mut() {
            if Arc::ptr_eq(known, prepared) {
                *known = current.clone();
            }
        }
        Ok(current)
    }

    /// The template of a named statement, by the schema and search path of now.
    pub(super) fn current_template(&mut self, prepared: &Prepared) -> Result<Arc<Template>, Stop> {
        if let PreparedKind::Query {
            template,
            schema_version,
            search_path,
        } = &prepared.kind
            && *schema_version == self.topology().schema.version
            && Arc::ptr_eq(search_path, &self.search_path()?)
            && !self.has_hint()
        {
            return Ok(template.clone());
        }
        self.template(&prepared.sql, &prepared.parameter_types)
    }

    /// A message of its own for later: the client's, unless it is small enough to be copied.
    fn held(&self, frame: FrameView<'_>) -> Frame {
        match self.large.is_empty() {
            true => frame.to_frame(),
            false => Frame::new(self.large.clone()),
        }
    }

    pub(super) async fn bind_on(
        &mut self,
        prepared: &Arc<Prepared>,
        shard: ShardId,
        portal: &str,
        frame: FrameView<'_>,
    ) -> Result<(), Stop> {
        self.ensure_parsed(prepared, shard).await?;
        if !is_show(&prepared.sql) || !portal.is_empty() {
            self.transaction.mark_used(shard);
        }
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        let rest = frontend_message::rewrite_bind_head(
            backend.stream.out(),
            frame.body(),
            portal,
            &prepared.backend_name,
        )?;
        match self.large.is_empty() {
            true => backend.stream.out().extend_from_slice(rest),
            false => backend.stream.send_shared(self.large.slice_ref(rest)),
        }
        self.pipeline.queue.push_back(Expect::Bind);
        self.bound_pipeline(shard).await
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Stop> {
        let mut prepared = self.prepared(name)?;
        if matches!(prepared.kind, PreparedKind::Query { .. }) {
            self.look_at_temporary().await?;
            let current = self.current(&prepared)?;
            if !Arc::ptr_eq(&current, &prepared) {
                self.see_unseen().await?;
                prepared = current;
            }
        }
        match &prepared.kind {
            PreparedKind::Query { .. } | PreparedKind::Forward | PreparedKind::Explain => {
                if self
                    .pipeline
                    .unseen
                    .as_ref()
                    .is_some_and(|unseen| !Arc::ptr_eq(unseen, &prepared))
                {
                    self.see_unseen().await?;
                }
                let shard = self.shard_to_describe(&prepared)?;
                self.ensure_parsed(&prepared, shard).await?;
                let Some(backend) = self.transaction.backend(shard) else {
                    return Err(Stop::Gone);
                };
                frontend_message::write_describe(
                    backend.stream.out(),
                    Target::Statement,
                    &prepared.backend_name,
                );
                self.pipeline.queue.push_back(Expect::DescribeStatement);
                Ok(())
            }
            PreparedKind::Execute => {
                self.see_unseen().await?;
                Box::pin(self.describe_execute(&prepared)).await
            }
            PreparedKind::Session | PreparedKind::Empty => {
                self.see_unseen().await?;
                self.answer_locally(|out| {
                    backend_message::write_parameter_description(out, &[]);
                    describe_session_rows(out, &prepared.sql);
                });
                Ok(())
            }
        }
    }

    async fn describe_portal(&mut self, name: &str) -> Result<(), Stop> {
        self.see_unseen().await?;
        let (shard, prepared) = match self.portals.get(name) {
            Some(Portal {
                place: Place::Shard(shard),
                prepared,
            }) => (*shard, prepared.clone()),
            Some(Portal {
                place: Place::Several { described_on, .. } | Place::Explained { described_on, .. },
                prepared,
            }) => (*described_on, prepared.clone()),
            Some(Portal {
                place: Place::Suspended(ran) | Place::Done { ran: Some(ran), .. },
                prepared,
            }) => {
                let (prepared, results) = (prepared.clone(), ran.results.clone());
                return Box::pin(self.describe_ran(&prepared, &results)).await;
            }
            Some(Portal {
                place: Place::Session | Place::Done { ran: None, .. },
                prepared,
            }) => {
                let prepared = prepared.clone();
                self.answer_locally(|out| describe_session_rows(out, &prepared.sql));
                return Ok(());
            }
            // A cursor is a portal of its shard.
            None => match self.cursors.get(name) {
                Some(shard) => {
                    let shard = *shard;
                    self.talk_to(shard).await?;
                    return self.describe_portal_on(shard, name);
                }
                None => return Err(SessionError::UnknownPortal(name.to_owned()).into()),
            },
        };
        self.talk_to(shard).await?;
        tracing::trace!(id = prepared.id, "describe portal");
        self.describe_portal_on(shard, name)
    }

    /// Describes a portal that ran on several shards. No shard needs to have it any more: its statement is described, with
    /// the formats that Bind asked for.
    async fn describe_ran(&mut self, prepared: &Prepared, results: &[Format]) -> Result<(), Stop> {
        self.leave_shard(None).await?;
        let shard = self.shard_to_describe(prepared)?;
        let backend = self.join(shard).await?;
        backend.forget_unnamed();
        let out = backend.stream.out();
        frontend_message::write_parse(out, "", &prepared.sql, &prepared.parameter_types);
        frontend_message::write_describe(out, Target::Statement, "");
        frontend_message::write_sync(out);
        let reply = command::answer(backend).await;
        let Some(description) = self.heard(shard, reply)?.description else {
            self.answer_locally(backend_message::write_no_data);
            return Ok(());
        };
        let columns = backend_message::read_row_description(description.body())?;
        let columns = columns.into_iter().enumerate();
        let columns = columns.map(|(index, column)| ColumnDescription {
            format: match results {
                [one] => *one,
                each => each.get(index).copied().unwrap_or_default(),
            },
            ..column
        });
        self.answer_locally(|out| backend_message::write_row_description(out, columns));
        Ok(())
    }

    fn describe_portal_on(&mut self, shard: ShardId, name: &str) -> Result<(), Stop> {
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        frontend_message::write_describe(backend.stream.out(), Target::Portal, name);
        self.pipeline.queue.push_back(Expect::DescribePortal);
        Ok(())
    }

    async fn execute(&mut self, name: &str, row_limit: i32) -> Result<(), Stop> {
        self.see_unseen().await?;
        let Some(portal) = self.portals.get(name).cloned() else {
            if let Some(shard) = self.cursors.get(name).copied() {
                if self.transaction.block.phase() == Phase::Failed {
                    return Err(SessionError::FailedBlock.into());
                }
                return self.execute_on(shard, name, row_limit).await;
            }
            return Err(SessionError::UnknownPortal(name.to_owned()).into());
        };
        // A shard does not know of an error of the router's own, and would run it.
        let in_session = matches!(portal.prepared.kind, PreparedKind::Session);
        if self.transaction.block.phase() == Phase::Failed && !in_session {
            return Err(SessionError::FailedBlock.into());
        }
        if row_limit > 0 && matches!(portal.place, Place::Several { .. }) {
            Box::pin(self.gather_portal(name)).await?;
        }
        let portal = self.portals.get(name).cloned().unwrap_or(portal);
        match portal.place {
            Place::Shard(shard) => {
                self.note_forwarded(&portal.prepared, shard)?;
                if let PreparedKind::Query { template, .. } = &portal.prepared.kind
                    && !template.settings().is_empty()
                {
                    self.pipeline.settings.push((shard, template.clone()));
                }
                self.execute_on(shard, name, row_limit).await?;
                if let PreparedKind::Query { template, .. } = &portal.prepared.kind
                    && template.session_effects().temporary
                {
                    self.doubt_temporary();
                }
                Ok(())
            }
            Place::Several {
                plan,
                generation,
                bind,
                described_on,
            } => {
                self.note_forwarded(&portal.prepared, described_on)?;
                self.planned = generation;
                let is_current = self.router.control.topology.load().generation == generation;
                let (plan, is_last) = match is_current {
                    true => (plan, false),
                    false => match self.plan_again(&portal.prepared, &bind)? {
                        Some(plan) => (plan, false),
                        None => (plan, true),
                    },
                };
                let execute = self.execute_several(name, &portal.prepared, &plan, &bind, row_limit);
                let done = Box::pin(execute).await;
                let done = match is_last {
                    true => done.map_err(Stop::settled)?,
                    false => done?,
                };
                let results = Bind::decode(bind.body())?.result_formats.iter().collect();
                let ran = Ran {
                    described_on,
                    results,
                };
                let command = done.tag.rsplit_once(' ').filter(|_| done.has_rows);
                let place = match done.suspended {
                    true => Place::Suspended(ran),
                    false => Place::Done {
                        again: command.map(|(command, _)| format!("{command} 0")),
                        ran: Some(ran),
                    },
                };
                if let Some(portal) = self.portals.get_mut(name) {
                    portal.place = place;
                }
                Ok(())
            }
            Place::Session if matches!(portal.prepared.kind, PreparedKind::Empty) => {
                self.answer_locally(backend_message::write_empty_query);
                Ok(())
            }
            Place::Explained { bind, described_on } => {
                let explain = self.execute_explain(name, &portal.prepared, &bind);
                let explained = Box::pin(explain).await;
                let results = Bind::decode(bind.body())?.result_formats.iter().collect();
                if let Some(portal) = self.portals.get_mut(name) {
                    portal.place = Place::Done {
                        again: Some("EXPLAIN".to_owned()),
                        ran: Some(Ran {
                            described_on,
                            results,
                        }),
                    };
                }
                explained
            }
            Place::Session => {
                let control = {
                    let tokens = lex::lex(&portal.prepared.sql, &self.lex_limits())?;
                    let statement = statement::classify(&portal.prepared.sql, &tokens)?;
                    self.check_block(&statement)?;
                    self.pipeline.earlier = self.pipeline.executed;
                    if matches!(statement, Statement::Discard(Discard::All)) {
                        self.check_alone("DISCARD ALL")?;
                        // They end with the session's state, so that nothing needs a block.
                        self.portals.retain(|other, _| other == name);
                    }
                    if control::is_planned(&statement) {
                        self.look_at_temporary().await?;
                    }
                    self.leave_shard(Some(name)).await?;
                    let sentence = Sentence {
                        sql: &portal.prepared.sql,
                        tokens: &tokens,
                        statement,
                    };
                    let touches_shards = !control::controls_transaction(&sentence.statement);
                    if touches_shards {
                        self.pipeline.executed = true;
                    }
                    if control::sets(&sentence.statement)
                        && self.transaction.block.phase() == Phase::Idle
                    {
                        // What fails up to Sync takes it back.
                        self.warn_of_no_block(&sentence.statement);
                        self.begin_implicit().await?;
                    }
                    let ran = Box::pin(self.run_in_session(&sentence, false)).await;
                    if matches!(sentence.statement, Statement::Discard(Discard::All)) {
                        // It has committed by itself.
                        self.pipeline.executed = false;
                    }
                    ran
                };
                if let Some(portal) = self.portals.get_mut(name) {
                    let again = shown(&portal.prepared.sql).map(|_| "SHOW".to_owned());
                    portal.place = Place::Done { again, ran: None };
                }
                control
            }
            Place::Suspended(_) => Err(SessionError::Refused {
                what: "a second Execute of a portal over several shards".to_owned(),
                code: "portal-row-limit",
                reason: "the rows of several shards are kept between two Executes for a named portal in a block only",
                hint: "Name the portal and BEGIN before, fetch all rows at once, or name the sharding key.",
            }
            .into()),
            Place::Done {
                again: Some(tag), ..
            } => {
                self.answer_locally(|out| backend_message::write_command_complete(out, &tag));
                Ok(())
            }
            Place::Done { again: None, .. } => {
                Err(SessionError::PortalCannotBeRun(name.to_owned()).into())
            }
        }
    }

    async fn execute_on(&mut self, shard: ShardId, name: &str, row_limit: i32) -> Result<(), Stop> {
        self.talk_to(shard).await?;
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        frontend_message::write_execute(backend.stream.out(), name, row_limit);
        let position_offset = self
            .portals
            .get(name)
            .map_or(0, |portal| portal.prepared.position_offset);
        self.pipeline
            .queue
            .push_back(Expect::Execute { position_offset });
        self.pipeline.executed = true;
        self.bound_pipeline(shard).await
    }

    async fn execute_explain(
        &mut self,
        name: &str,
        prepared: &Prepared,
        bind: &Frame,
    ) -> Result<(), Stop> {
        let bind = Bind::decode(bind.body())?;
        let tokens = lex::lex(&prepared.sql, &self.lex_limits())?;
        let statement = statement::classify(&prepared.sql, &tokens)?;
        let Statement::Explain {
            body,
            analyze,
            options,
        } = &statement
        else {
            return Err(Stop::Gone);
        };
        self.leave_shard(Some(name)).await?;
        self.pipeline.executed = true;
        let values: Vec<_> = bind.values().collect();
        let formats: Vec<_> = bind
            .parameter_formats
            .iter()
            .map(|format| format.code() as i16)
            .collect();
        let bound = Bound {
            types: &prepared.parameter_types,
            values: &values,
            formats: &formats,
        };
        let explain = control::Explain {
            sql: &prepared.sql,
            body: body.text,
            analyze: *analyze,
            format: PlanFormat::of(options),
        };
        self.explain(&explain, &bound, false).await
    }

    /// The plan of a portal that was bound before the topology became another. None: there is but the one that was made.
    fn plan_again(&mut self, prepared: &Prepared, bind: &Frame) -> Result<Option<Arc<Plan>>, Stop> {
        let PreparedKind::Query { template, .. } = &prepared.kind else {
            return Ok(None);
        };
        // What was drawn from a sequence, or belongs to a cursor, is not to be had again.
        let is_asked = template.fill().is_some() || template.is_spelled();
        if is_asked || template.current_of().is_some() {
            return Ok(None);
        }
        let Ok(FrontendMessage::Bind(bind)) = FrontendMessage::decode(bind.tag(), bind.body())
        else {
            return Err(SessionError::UnknownMessage(b'B').into());
        };
        let template = self.current_template(prepared)?;
        let values: Vec<_> = bind.values().collect();
        let formats = bind.parameter_formats.iter();
        let formats: Vec<_> = formats.map(|format| format.code() as i16).collect();
        let binding = Binding {
            values: &values,
            formats: &formats,
            preferred: self.transaction.preferred(),
            spread: self.router.next_spread(),
            drawn: &[],
            cursor: None,
        };
        self.plan(&template, &binding)
            .map(|plan| Some(Arc::new(plan)))
    }

    async fn execute_several(
        &mut self,
        name: &str,
        prepared: &Prepared,
        plan: &Plan,
        bind: &Frame,
        row_limit: i32,
    ) -> Result<FannedOut, Stop> {
        let bind = Bind::decode(bind.body())?;
        self.leave_shard(Some(name)).await?;
        let portal = self.free_portal(name);
        if plan.access != Access::Read && self.transaction.block.phase() == Phase::Idle {
            self.begin_implicit().await?;
        }
        let values: Vec<_> = bind.values().collect();
        let formats: Vec<_> = bind.parameter_formats.iter().collect();
        let results: Vec<_> = bind.result_formats.iter().collect();
        let request = Request {
            sql: &prepared.sql,
            types: &prepared.parameter_types,
            values: &values,
            formats: &formats,
            results: &results,
        };
        let show = Show {
            description: false,
            rows_max: u64::try_from(row_limit).ok().filter(|rows| *rows > 0),
            copy: None,
        };
        let done = self.run_bound(plan, &request, portal, show).await?;
        self.note_schema_change(plan.access);
        self.pipeline.executed = true;
        match done.suspended {
            true => backend_message::write_portal_suspended(self.client.out()),
            false => backend_message::write_command_complete(self.client.out(), &done.tag),
        }
        Ok(done)
    }

    async fn close(&mut self, target: Target, name: &str) -> Result<(), Stop> {
        self.see_unseen().await?;
        match target {
            Target::Statement => {
                let before = self.statements.remove(name);
                self.pipeline.note_answered_change(Change::Statement {
                    name: name.to_owned(),
                    before,
                });
            }
            Target::Portal => {
                let shard = match self.portals.get(name).map(|portal| &portal.place) {
                    Some(
                        Place::Shard(shard)
                        | Place::Several {
                            described_on: shard,
                            ..
                        }
                        | Place::Explained {
                            described_on: shard,
                            ..
                        }
                        | Place::Suspended(Ran {
                            described_on: shard,
                            ..
                        })
                        | Place::Done {
                            ran:
                                Some(Ran {
                                    described_on: shard,
                                    ..
                                }),
                            ..
                        },
                    ) => Some(*shard),
                    Some(Place::Session | Place::Done { ran: None, .. }) => None,
                    None => {
                        let shard = self.cursors.remove(name);
                        if shard.is_some() {
                            self.held_cursors.remove(name);
                        }
                        shard
                    }
                };
                if let Some(shard) = shard
                    && (self.transaction.backend(shard).is_some()
                        || self.transaction.keeps(shard, Reasons::HELD_CURSORS))
                {
                    self.talk_to(shard).await?;
                    self.transaction.unsettle(shard);
                    let before = self.portals.remove(name);
                    let Some(backend) = self.transaction.backend(shard) else {
                        return Err(Stop::Gone);
                    };
                    frontend_message::write_close(backend.stream.out(), Target::Portal, name);
                    self.pipeline.note_change(Change::Portal {
                        name: name.to_owned(),
                        before,
                    });
                    self.pipeline.queue.push_back(Expect::Close { shown: true });
                    return Ok(());
                }
                let before = self.portals.remove(name);
                self.pipeline.note_answered_change(Change::Portal {
                    name: name.to_owned(),
                    before,
                });
            }
        }
        self.answer_locally(backend_message::write_close_complete);
        Ok(())
    }

    /// Reads the answers to what the pipeline sent, after a Flush or a Sync.
    pub(super) async fn drain(&mut self, sync: bool) -> Result<(), Stop> {
        self.pipeline.local_bytes = 0;
        let Some(shard) = self.pipeline.shard.filter(|_| self.pipeline.unsynced) else {
            for expect in std::mem::take(&mut self.pipeline.queue) {
                if let Expect::Local(bytes) = expect {
                    self.client.out().extend_from_slice(&bytes);
                }
            }
            return Ok(());
        };
        let idle = self.transaction.block.phase() == Phase::Idle;
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        if sync {
            frontend_message::write_sync(backend.stream.out());
            self.pipeline.queue.push_back(Expect::Sync);
        } else if self.pipeline.queue.is_empty() {
            return Ok(());
        } else {
            frontend_message::write_flush(backend.stream.out());
        }
        // Up to here nothing of the talk has done anything, outside a block.
        let again = !std::mem::replace(&mut self.pipeline.sent, true)
            && !self.pipeline.known.is_empty()
            && idle;
        let first = again.then(|| Sent {
            bytes: backend.stream.unsent(),
            queue: self.pipeline.queue.clone(),
        });
        let mut relayed =
            relay::relay(backend, &mut self.client, &mut self.pipeline.queue, again).await;
        if let (Ok(Relayed::Stale { told: false }), Some(first)) = (&relayed, first) {
            relayed = Box::pin(self.send_anew(shard, sync, first)).await?;
        }
        if matches!(relayed, Ok(Relayed::Done(Some(_)))) {
            self.pipeline.unsynced = false;
        }
        if let Ok(Relayed::Failed(_) | Relayed::Stale { .. }) = relayed {
            self.pipeline.failed = true;
            self.forget_unanswered();
            // The shard skips all up to a Sync; it gets one here or at the client's.
            let stale = matches!(relayed, Ok(Relayed::Stale { .. }));
            Box::pin(self.resync(shard, sync, stale)).await?;
            self.transaction.block.fail();
            return Err(Stop::Told);
        }
        self.after_relay(shard, relayed)
    }

    /// Sends the talk with a shard once more, after what it needs was prepared anew.
    async fn send_anew(
        &mut self,
        shard: ShardId,
        sync: bool,
        first: Sent,
    ) -> Result<Result<Relayed, ExecuteError>, Stop> {
        let parsed = self.pipeline.parsed.clone();
        self.resync(shard, sync, true).await?;
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        let mut queue = VecDeque::new();
        for prepared in std::mem::take(&mut self.pipeline.known) {
            if prepared.is_named() && backend.prepared.contains(prepared.id) {
                continue;
            }
            if prepared.is_named() {
                backend.prepared.insert(prepared.id);
                self.pipeline.parsed.push(prepared.id);
            } else {
                backend.unnamed = Some(prepared.id);
            }
            frontend_message::write_parse(
                backend.stream.out(),
                &prepared.backend_name,
                &prepared.sql,
                &prepared.parameter_types,
            );
            queue.push_back(Expect::Parse { shown: false });
        }
        for id in parsed {
            backend.prepared.insert(id);
            self.pipeline.parsed.push(id);
        }
        let answered = first.queue.len() - self.pipeline.queue.len();
        // The client has these already.
        queue.extend(
            first
                .queue
                .into_iter()
                .take(answered)
                .filter_map(Expect::hidden),
        );
        queue.append(&mut self.pipeline.queue);
        self.pipeline.queue = queue;
        self.pipeline.unsynced = true;
        for bytes in first.bytes {
            backend.stream.send_shared(bytes);
        }
        Ok(relay::relay(backend, &mut self.client, &mut self.pipeline.queue, false).await)
    }

    /// After an error: a Parse or Close that the client was not told of did not happen.
    pub(super) fn forget_unanswered(&mut self) {
        let queue = std::mem::take(&mut self.pipeline.queue);
        let unseen = self.pipeline.unseen.take().is_some();
        let unanswered = queue.iter().filter(|expect| expect.is_change()).count();
        let changes = &mut self.pipeline.changes;
        let answered = changes
            .len()
            .saturating_sub(unanswered + usize::from(unseen));
        let mut undone = changes.split_off(answered);
        // A Parse that failed has ended the unnamed statement all the same.
        let tried = queue.front().map_or(unseen, Expect::is_parse);
        if let Some(Change::Statement { name, before }) = undone.first_mut()
            && tried
            && name.is_empty()
        {
            *before = None;
        }
        for change in undone.into_iter().rev() {
            match change {
                Change::Statement { name, before } => match before {
                    Some(before) => drop(self.statements.insert(name, before)),
                    None => drop(self.statements.remove(&name)),
                },
                Change::Portal { name, before } => {
                    self.portals.extend(before.map(|before| (name, before)));
                }
            }
        }
    }

    /// After an error in the pipeline: brings the shard back to ReadyForQuery and forgets what it may not have parsed;
    /// if some statement is `stale`, all, since others may be so too.
    async fn resync(
        &mut self,
        shard: ShardId,
        sync_was_sent: bool,
        stale: bool,
    ) -> Result<(), Stop> {
        let mut unsure = std::mem::take(&mut self.pipeline.parsed);
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        if stale {
            unsure.extend(backend.prepared.ids());
        }
        backend.forget_unnamed();
        if !sync_was_sent {
            frontend_message::write_sync(backend.stream.out());
        }
        let mut answered = command::answer(backend).await;
        if !unsure.is_empty() && !matches!(answered, Err(CommandError::Lost { .. })) {
            answered = close_statements(backend, &unsure).await;
        }
        self.pipeline.unsynced = false;
        if let Err(error) = answered {
            self.lose(shard);
            return Err(error::of_command(error));
        }
        Ok(())
    }

    /// Sync: the end of what the client sees as one transaction, unless a block is open. ReadyForQuery is the caller's.
    pub(super) async fn sync(&mut self) -> Result<(), Stop> {
        if !self.pipeline.failed {
            let seen = match self.see_unseen().await {
                Ok(()) => self.drain(true).await,
                Err(stop) => Err(stop),
            };
            match seen {
                Ok(()) => {}
                Err(Stop::Gone) => return Err(Stop::Gone),
                Err(stop) => {
                    self.pipeline.failed = true;
                    self.forget_unanswered();
                    self.tell(stop);
                }
            }
        }
        if !self.pipeline.failed {
            match self.adopt_pipeline_settings().await {
                Ok(()) => {}
                Err(Stop::Gone) => return Err(Stop::Gone),
                Err(stop) => {
                    self.pipeline.failed = true;
                    self.tell(stop);
                }
            }
        }
        let failed = self.pipeline.failed;
        if failed
            && self.pipeline.unsynced
            && let Some(shard) = self.pipeline.shard
        {
            // The router's own error: what the shard ran since the last Sync must not commit.
            let idle = self.transaction.block.phase() == Phase::Idle;
            let backend = self.transaction.backend(shard).ok_or(Stop::Gone)?;
            let ended = if idle && self.pipeline.executed {
                Box::pin(command::run(backend, "ROLLBACK")).await
            } else {
                frontend_message::write_sync(backend.stream.out());
                Box::pin(command::answer(backend)).await
            };
            backend.forget_unnamed();
            if ended.is_err() {
                self.lose(shard);
            }
        }
        self.pipeline = Pipeline::default();
        if self.transaction.block.phase() == Phase::Implicit {
            if failed {
                Box::pin(self.roll_back()).await;
            } else {
                match Box::pin(self.commit()).await {
                    Ok(_) => {}
                    Err(Stop::Gone) => return Err(Stop::Gone),
                    Err(stop) => self.tell(stop),
                }
            }
        }
        if self.transaction.block.phase() == Phase::Idle {
            self.portals.clear();
            self.end_cursors();
        }
        Ok(())
    }
}

/// What a shard was sent since its talk began, and what was expected of it.
struct Sent {
    bytes: Vec<Bytes>,
    queue: VecDeque<Expect>,
}

/// Closes statements on a shard that may or may not be there.
pub(super) async fn close_statements(
    backend: &mut Backend,
    ids: &[u64],
) -> Result<Reply, CommandError> {
    for id in ids {
        backend.prepared.remove(*id);
        let name = backend_name(*id);
        frontend_message::write_close(backend.stream.out(), Target::Statement, &name);
    }
    frontend_message::write_sync(backend.stream.out());
    command::answer(backend).await
}

/// Whether a statement only shows settings.
fn is_show(sql: &str) -> bool {
    lex::Lexer::new(sql)
        .next()
        .is_some_and(|first| first.is_ok_and(|word| word.is(sql, "show")))
}

/// RowDescription of what the session itself answers with rows, which is SHOW of the router's settings; else NoData.
fn describe_session_rows(out: &mut BytesMut, sql: &str) {
    match shown(sql) {
        Some(name) => {
            backend_message::write_row_description(out, [ColumnDescription::text(name)]);
        }
        None => backend_message::write_no_data(out),
    }
}

/// What SHOW shows; no other statement of the session has rows.
fn shown(sql: &str) -> Option<&str> {
    let mut words = lex::Lexer::new(sql).flatten();
    let shows = words.next().is_some_and(|first| first.is(sql, "show"));
    let name = words.next().filter(|_| shows)?;
    Some(sql[name.start..].trim_end())
}

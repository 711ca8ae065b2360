//! What is answered nearly always: a statement that was seen before and that one key places. It is not parsed, split or
//! classified again, goes to its shard in one write, and the shard's answer passes up to ReadyForQuery.
//!
//! A simple query is known by its shape: its literals say where it runs. A statement of the extended protocol is known
//! when all of its messages, from Parse or Bind to Sync, have arrived. Whatever is not plain (a hint, several statements,
//! settings changed by a function, a commented text that must be rewritten) is left to [`super::simple_query`] and
//! [`super::extended_query`], which know all.

use super::error::Stop;
use super::extended_query::close_statements;
use super::session::Session;
use super::statements::{Place, Portal, Prepared, PreparedKind, backend_name};
use crate::backend::connection::Backend;
use crate::executor::relay::{self, Answered, Ending, Whole};
use crate::planner::plan::{Plan, StepArguments, StepSql};
use crate::planner::{Arguments, Binding, Context, Template};
use crate::router::{Parsed, TemplateKey, TemplateRef};
use crate::sql::lex;
use crate::sql::shape::Reading;
use crate::topology::ShardId;
use crate::topology::snapshot::Topology;
use crate::transaction::state::Phase;
use crate::wire::frame::{self, FrameView};
use crate::wire::frontend_message::{self, Bind, FrontendMessage, Target};
use smallvec::SmallVec;
use std::sync::{Arc, OnceLock};

/// Literals of a statement that need no allocation.
const LITERALS: usize = 8;

/// What is known of the shape of the simple query that was read last.
pub(super) struct Shaped {
    /// None: its template does not serve here.
    template: Option<Arc<Template>>,
    schema_version: u64,
    search_path: Arc<[Arc<str>]>,
}

/// Where a known query runs.
enum Way {
    Shard(ShardId),
    Shards(Plan),
}

impl Session {
    /// Answers `sql`, all but ReadyForQuery, if its shape is known. Whether it did.
    pub(super) async fn known_query(&mut self, sql: &str) -> Result<bool, Stop> {
        let ran = match self.way(sql) {
            None => return Ok(false),
            Some(Way::Shard(shard)) => match self.join(shard).await.map(|_| ()) {
                Ok(()) => {
                    self.transaction.mark_used(shard);
                    self.run_on(shard, sql, 0).await
                }
                stop => stop,
            },
            Some(Way::Shards(plan)) => Box::pin(self.run_plan(&plan, sql, 0)).await,
        };
        match ran {
            Ok(()) => Ok(true),
            // To be planned again.
            Err(Stop::Later(_)) => Ok(false),
            Err(stop) => Err(stop),
        }
    }

    /// Whether statements mean what they mean to all: nothing is failed, hinted, temporary, or changed in the schema by the
    /// own block.
    pub(super) fn is_plain(&self) -> bool {
        let running = match self.transaction.block.phase() {
            Phase::Idle | Phase::Open => true,
            Phase::Implicit | Phase::Failed => false,
        };
        running
            && !self.parameters.is_consistent()
            && !self.schema_changed
            && self.temporary.is_none()
            && !self.has_hint()
    }

    fn way(&mut self, sql: &str) -> Option<Way> {
        if !self.is_plain() || lex::leading_hint(sql).is_some() {
            return None;
        }
        let search_path = self.search_path().ok()?;
        let topology = self.router.control.topology.load();
        self.planned = topology.generation;
        let version = topology.schema.version;
        let known = match self.shape.read(sql) {
            Reading::None => return None,
            Reading::Anew => false,
            Reading::Same => self.shaped.as_ref().is_some_and(|shaped| {
                shaped.schema_version == version && Arc::ptr_eq(&shaped.search_path, &search_path)
            }),
        };
        if !known {
            self.shaped = Some(Shaped {
                template: self.template_of_shape(&topology, &search_path),
                schema_version: version,
                search_path,
            });
        }
        let template = self.shaped.as_ref()?.template.as_ref()?;
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
            drawn: &[],
            cursor: None,
        };
        let mut plan = template.plan(&binding, &topology).ok()?;
        // What is gathered are parameters, which a simple query has not; nor has it those of a move.
        if !plan.inputs.is_empty() || plan.merge.goes_on() {
            return None;
        }
        for step in &mut plan.steps {
            let StepSql::Rewritten(text) = &step.sql else {
                continue;
            };
            if self.shape.has_comments() {
                return None;
            }
            let own = self
                .shape
                .with_literals(text, sql, |index| match &step.arguments {
                    StepArguments::AsSent => Some(index),
                    StepArguments::Chosen(chosen) => chosen.get(index).copied().map(usize::from),
                })?;
            step.sql = StepSql::Rewritten(own.into());
            step.arguments = StepArguments::AsSent;
        }
        Some(Way::Shards(plan))
    }
}

impl Session {
    fn template_of_shape(
        &self,
        topology: &Topology,
        search_path: &Arc<[Arc<str>]>,
    ) -> Option<Arc<Template>> {
        let key = TemplateRef {
            sql: self.shape.text(),
            parameter_types: self.shape.types(),
            search_path,
            schema_version: topology.schema.version,
        };
        if let Some(known) = self.router.shapes.get(&key) {
            return known;
        }
        let limits = self.lex_limits();
        let context = Context {
            topology,
            search_path,
            hint: None,
            limits: &limits,
        };
        let template = crate::planner::template(key.sql, key.parameter_types, &context);
        let template = template.ok().filter(is_plain).map(Arc::new);
        let shapes = &self.router.shapes;
        shapes.insert(TemplateKey::from(key), template.clone());
        template
    }
}

/// The longest pipeline that is looked at as a whole.
const PIPELINE_BYTES: usize = 16 * 1024;

/// The messages of one statement up to Sync.
struct Pipelined<'a> {
    /// Text and parameter types of the unnamed statement, if it is parsed first.
    parse: Option<(&'a str, Vec<u32>)>,
    bind: Bind<'a>,
    bind_body: &'a [u8],
    /// All of them as they came.
    messages: &'a [u8],
    /// Describe, if it is there, Execute and Sync as they came.
    rest: &'a [u8],
}

impl<'a> Pipelined<'a> {
    /// Reads the messages that [`Session::whole_pipeline`] found; None if they are not about the unnamed portal.
    fn read(messages: &'a [u8]) -> Option<Self> {
        let mut rest = messages;
        let mut next = split_frame(&mut rest)?;
        let mut parse = None;
        if next.tag() == b'P' {
            let FrontendMessage::Parse {
                name: "",
                sql,
                parameter_types,
            } = FrontendMessage::decode(b'P', next.body()).ok()?
            else {
                return None;
            };
            parse = Some((sql, parameter_types));
            next = split_frame(&mut rest)?;
        }
        let bind = Bind::decode(next.body()).ok()?;
        if !bind.portal.is_empty() || (parse.is_some() && !bind.statement.is_empty()) {
            return None;
        }
        let bind_body = next.body();
        let mut execute = rest;
        let mut message = split_frame(&mut execute)?;
        if message.tag() == b'D' {
            if message.body() != b"P\0" {
                return None;
            }
            message = split_frame(&mut execute)?;
        }
        // The unnamed portal, and four bytes of row limit.
        let unnamed = message.body().len() == 5 && message.body()[0] == 0;
        unnamed.then_some(Self {
            parse,
            bind,
            bind_body,
            messages,
            rest,
        })
    }
}

/// Takes the first message.
fn split_frame<'a>(messages: &mut &'a [u8]) -> Option<FrameView<'a>> {
    let header = frame::header(messages).ok()??;
    let (message, rest) = messages.split_at_checked(header.frame_bytes)?;
    *messages = rest;
    Some(FrameView::new(message))
}

impl Session {
    /// The bytes of one statement's messages up to Sync, if they are what the client's input begins with.
    fn whole_pipeline(&self) -> Option<usize> {
        if !self.pipeline.is_idle() {
            return None;
        }
        let input = self.client.input();
        let mut bytes = 0;
        let mut next = || {
            let header = frame::header(input.get(bytes..)?).ok()??;
            bytes += header.frame_bytes;
            (bytes <= input.len().min(PIPELINE_BYTES)).then_some(header.tag)
        };
        let mut tag = next()?;
        if tag == b'P' {
            tag = next()?;
        }
        if tag != b'B' {
            return None;
        }
        tag = next()?;
        if tag == b'D' {
            tag = next()?;
        }
        (tag == b'E' && next()? == b'S').then_some(bytes)
    }

    /// Answers one statement's messages up to Sync, if they are there and it is known. Whether it did.
    pub(super) async fn known_pipeline(&mut self) -> Result<bool, Stop> {
        let Some(bytes) = self.whole_pipeline() else {
            return Ok(false);
        };
        let alone = self.client.input().len() == bytes;
        let messages = match alone {
            true => self.client.take_all(),
            false => self.copy_request(bytes),
        };
        let answered = match Pipelined::read(&messages) {
            Some(pipelined) => match self.place(&pipelined) {
                Some((prepared, shard)) => match self.join(shard).await.map(|_| ()) {
                    // To be planned again.
                    Err(Stop::Later(_)) => None,
                    joined => {
                        if !alone {
                            self.client.consume(bytes);
                        }
                        Some(match joined {
                            Ok(()) => self.run_whole(&pipelined, &prepared, shard).await,
                            Err(stop) => Err(stop),
                        })
                    }
                },
                None => None,
            },
            None => None,
        };
        match alone && answered.is_none() {
            true => self.client.put_back(messages),
            false => self.forget_messages(messages),
        }
        match answered {
            None => return Ok(false),
            Some(Ok(())) => {}
            Some(Err(Stop::Gone)) => return Err(Stop::Gone),
            Some(Err(stop)) => self.tell(stop),
        }
        self.release_idle().await;
        self.ready_for_query();
        Ok(true)
    }

    /// The statement, and the shard that its key places it on.
    fn place(&mut self, pipelined: &Pipelined<'_>) -> Option<(Arc<Prepared>, ShardId)> {
        if !self.is_plain() || !self.transaction.pins.is_empty() {
            return None;
        }
        let search_path = self.search_path().ok()?;
        let topology = self.router.control.topology.load();
        self.planned = topology.generation;
        let prepared = match &pipelined.parse {
            None => self.statements.get(pipelined.bind.statement)?.clone(),
            Some((sql, parameter_types)) => self.parsed_again(&TemplateRef {
                sql,
                parameter_types,
                search_path: &search_path,
                schema_version: topology.schema.version,
            })?,
        };
        let PreparedKind::Query {
            template,
            schema_version,
            search_path: prepared_for,
        } = &prepared.kind
        else {
            return None;
        };
        let fresh = *schema_version == topology.schema.version
            && Arc::ptr_eq(prepared_for, &search_path)
            && is_plain(template);
        if !fresh {
            return None;
        }
        let bind = &pipelined.bind;
        if prepared
            .parameters
            .is_some_and(|parameters| parameters != bind.value_count())
        {
            return None;
        }
        let values: SmallVec<[_; LITERALS]> = bind.values().collect();
        let formats = bind.parameter_formats.iter();
        let formats: SmallVec<[_; LITERALS]> = formats.map(|format| format.code() as i16).collect();
        let arguments = Arguments {
            values: &values,
            formats: &formats,
        };
        let shard = template.shard(arguments, &topology)?;
        Some((prepared, shard))
    }

    /// What a Parse without a name makes of a text that was parsed before, by this client or another.
    fn parsed_again(&mut self, key: &TemplateRef<'_>) -> Option<Arc<Prepared>> {
        let full = self.statements.len() >= self.router.config.limits.prepared_statements;
        let unnamed = self.statements.get_mut("");
        if let Some(same) = &unnamed
            && *same.sql == *key.sql
            && *same.parameter_types == *key.parameter_types
        {
            return Some((*same).clone());
        }
        let Parsed {
            sql,
            parameter_types,
            template,
        } = self.router.parsed.get(key)?;
        let prepared = Prepared {
            id: self.router.next_statement(),
            parameters: None,
            backend_name: Box::default(),
            sql,
            parameter_types,
            kind: PreparedKind::Query {
                template,
                schema_version: key.schema_version,
                search_path: key.search_path.clone(),
            },
            described: OnceLock::new(),
            position_offset: 0,
        };
        match unnamed {
            None if full => None,
            None => {
                let prepared = Arc::new(prepared);
                self.statements.insert(String::new(), prepared.clone());
                Some(prepared)
            }
            // In its place, unless a portal is made of it.
            Some(unnamed) => {
                match Arc::get_mut(unnamed) {
                    Some(place) => *place = prepared,
                    None => *unnamed = Arc::new(prepared),
                }
                Some(unnamed.clone())
            }
        }
    }

    /// Runs the statement on its shard, which has joined, and passes the answer on, all but ReadyForQuery. One that the shard does not know
    /// any more, or knows as something else, is prepared anew, once, where nothing else can have happened yet.
    async fn run_whole(
        &mut self,
        pipelined: &Pipelined<'_>,
        prepared: &Arc<Prepared>,
        shard: ShardId,
    ) -> Result<(), Stop> {
        let idle = self.transaction.block.phase() == Phase::Idle;
        let mut again = false;
        loop {
            if again {
                self.join(shard).await?;
            }
            self.transaction.mark_used(shard);
            let backend = self.transaction.backend(shard).ok_or(Stop::Gone)?;
            let hidden = send_whole(backend, pipelined, prepared, again)?;
            let whole = Whole {
                position_offset: 0,
                hidden,
                stale: idle && !again,
                guarded: false,
            };
            let answered = relay::relay_whole(backend, &mut self.client, whole).await;
            if let Ok(answered) = &answered {
                self.forget_failed(pipelined, prepared, shard, answered.clone())
                    .await;
            }
            let answered = self.after_whole(shard, answered)?;
            if answered.ending != Ending::Stale {
                break;
            }
            again = true;
        }
        if !idle {
            let portal = Portal {
                prepared: prepared.clone(),
                place: Place::Shard(shard),
            };
            self.portals.insert(String::new(), portal);
        }
        Ok(())
    }

    /// Forgets the statements that an answer which failed shows not to be there.
    async fn forget_failed(
        &mut self,
        pipelined: &Pipelined<'_>,
        prepared: &Prepared,
        shard: ShardId,
        answered: Answered,
    ) {
        if answered.ending == Ending::Done {
            return;
        }
        if pipelined.parse.is_some() && !answered.parsed {
            self.statements.remove("");
        }
        if let Some(backend) = self.transaction.backend(shard) {
            backend.forget_unnamed();
            if answered.hidden_left > 0 {
                backend.prepared.remove(prepared.id);
            }
            if answered.stale_told
                && prepared.is_named()
                && close_statements(backend, &[prepared.id]).await.is_err()
            {
                self.lose(shard);
            }
        }
    }
}

/// Sends the shard the client's messages; first, if it does not know the statement, what makes it. How many answers the
/// client did not ask for come first.
fn send_whole(
    backend: &mut Backend,
    pipelined: &Pipelined<'_>,
    prepared: &Prepared,
    anew: bool,
) -> Result<u8, Stop> {
    let Prepared {
        id,
        backend_name: name,
        sql,
        parameter_types,
        ..
    } = prepared;
    if pipelined.parse.is_some() {
        // Neither statement nor portal has a name to be replaced.
        backend.unnamed = Some(*id);
        backend.stream.out().extend_from_slice(pipelined.messages);
        return Ok(0);
    }
    let mut hidden = 0;
    if prepared.is_named() {
        if anew {
            backend.prepared.remove(*id);
            frontend_message::write_close(backend.stream.out(), Target::Statement, name);
            hidden += 1;
        }
        if !backend.prepared.contains(*id) {
            if let Some(evicted) = backend.prepared.insert(*id) {
                let evicted = backend_name(evicted);
                frontend_message::write_close(backend.stream.out(), Target::Statement, &evicted);
                hidden += 1;
            }
            frontend_message::write_parse(backend.stream.out(), name, sql, parameter_types);
            hidden += 1;
        }
    } else if anew || backend.unnamed != Some(*id) {
        backend.unnamed = Some(*id);
        frontend_message::write_parse(backend.stream.out(), name, sql, parameter_types);
        hidden += 1;
    }
    let out = backend.stream.out();
    frontend_message::rewrite_bind(out, pipelined.bind_body, "", name)?;
    out.extend_from_slice(pipelined.rest);
    Ok(hidden)
}

impl Session {
    /// Remembers what the Parse of an unnamed statement with the text `whole` came to, unless a hint was in it.
    pub(super) fn remember_parsed(
        &mut self,
        whole: &str,
        sql: &Arc<str>,
        parameter_types: &Arc<[u32]>,
        template: &Arc<Template>,
    ) -> Result<(), Stop> {
        let topology = self.router.topology();
        let key = self.template_key(&whole.into(), parameter_types, &topology)?;
        let parsed = Parsed {
            sql: sql.clone(),
            parameter_types: parameter_types.clone(),
            template: template.clone(),
        };
        self.router.parsed.insert(key, parsed);
        Ok(())
    }
}

/// Whether nothing but the shards needs to know of the statement.
pub(super) fn is_plain(template: &Template) -> bool {
    template.settings().is_empty()
        && template.session_effects().is_none()
        && !template.has_unknown_name()
        && !template.is_hinted()
        && template.fill().is_none()
        && !template.is_spelled()
        && template.current_of().is_none()
}

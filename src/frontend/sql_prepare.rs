//! PREPARE and EXECUTE in SQL. Names that SQL gives and names that Parse gives are one namespace, as in PostgreSQL, so a
//! statement prepared by one may be executed by the other.
//!
//! A shard runs EXECUTE under the statement's name there, with the arguments as the client wrote them, where all that
//! decides on the shard are literals: PostgreSQL itself coerces and evaluates them. Else a shard is asked what they are,
//! once, and their values are bound.

use super::control::{Explain, refused};
use super::draw;
use super::error::{self, SessionError, Stop};
use super::extended_query::close_statements;
use super::session::Session;
use super::several::Request;
use super::simple_query::Sentence;
use super::statements::{Bound, Place, Portal, Prepared, PreparedKind, backend_name};
use crate::backend::connection::Backend;
use crate::executor::fan_out::Show;
use crate::executor::relay::{self, Ending, Whole};
use crate::planner::plan::{Access, Merge, Plan, Tier};
use crate::planner::{Binding, Template};
use crate::sql::lex::{self, LexLimits, Token, TokenKind};
use crate::sql::statement::{self, Statement};
use crate::topology::ShardId;
use crate::transaction::command::{self, CommandError, OWN_NAME, Reply};
use crate::transaction::state::Phase;
use crate::wire::backend_message::{self, DataRow};
use crate::wire::frame::{Format, Frame, FrameView};
use crate::wire::frontend_message::{self, Bind, Target};
use bytes::BytesMut;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// What a shard is asked to PREPARE under this name is looked at and forgotten again.
const LOOKED_AT: &str = "pgring_sql";

/// The first OID of types that users made, which differ from shard to shard.
const FIRST_USER_OID: u32 = 16_384;

/// Types whose binary form is exact and the same on all shards, which cannot be said of all texts: these depend on
/// settings, and not all of them are read as what was written.
const BINARY_TYPES: [u32; 22] = [
    16, 17, 20, 21, 23, 25, 114, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1560,
    1562, 1700, 2950, 3802,
];

/// A statement with another prepared statement's name in it.
struct Renamed {
    text: String,
    /// How many characters further on the client's text has what follows the name.
    shift: i64,
}

impl Renamed {
    fn new(sql: &str, name: &Token, new: &str, offset: i64) -> Self {
        let characters = |text: &str| text.chars().count() as i64;
        Self {
            text: format!("{}{new}{}", &sql[..name.start], &sql[name.end..]),
            shift: offset + characters(name.text(sql)) - characters(new),
        }
    }
}

/// An EXECUTE within a text.
#[derive(Clone, Copy)]
pub(super) struct ExecuteText<'a> {
    /// The text.
    pub sql: &'a str,
    /// From the word EXECUTE to its end.
    pub tokens: &'a [Token],
    /// The text with the comment that may be a hint.
    pub hinted: &'a str,
    /// How many characters the client sent before the text.
    pub offset: u32,
}

impl ExecuteText<'_> {
    /// The text with the statement's name on the shards.
    fn renamed(&self, name: &str) -> Renamed {
        Renamed::new(self.sql, &self.tokens[1], name, i64::from(self.offset))
    }
}

/// Values of arguments.
#[derive(Default)]
struct Values {
    values: Vec<Option<Vec<u8>>>,
    formats: Vec<Format>,
}

impl Values {
    fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.values.iter().map(Option::as_deref)
    }
}

/// An EXECUTE, looked up and placed.
pub(super) struct Call {
    prepared: Arc<Prepared>,
    template: Arc<Template>,
    plan: Plan,
    /// None: they are sent as they are written, to the plan's one shard.
    values: Option<Values>,
}

/// The tokens of an argument that is one constant, and whether it is negative.
fn constant(text: &str, limits: &LexLimits) -> Option<(bool, Token)> {
    let tokens = lex::lex(text, limits).ok()?;
    match *tokens.as_slice() {
        [token] => {
            let word = ["null", "true", "false"];
            let is_word = word.iter().any(|word| token.is(text, word));
            let is_constant = is_word || token.is_string() || token.kind == TokenKind::Number;
            is_constant.then_some((false, token))
        }
        [sign, token] if token.kind == TokenKind::Number => match sign.text(text) {
            "-" => Some((true, token)),
            "+" => Some((false, token)),
            _ => None,
        },
        _ => None,
    }
}

/// The value of an argument that any PostgreSQL reads alike as a value of the type, `Some(None)` for NULL; None for what
/// it must be asked.
fn literal<'a>(text: &'a str, type_oid: u32, limits: &LexLimits) -> Option<Option<Cow<'a, str>>> {
    let (negative, token) = constant(text, limits)?;
    if token.is(text, "null") {
        return Some(None);
    }
    if token.is_string() {
        return lex::string_value(&token, text).ok().map(Some);
    }
    if token.kind != TokenKind::Number {
        return None;
    }
    let number: i64 = token.text(text).parse().ok()?;
    let number = if negative { -number } else { number };
    let fits = match type_oid {
        20 | 1700 => true,
        21 => i16::try_from(number).is_ok(),
        23 => i32::try_from(number).is_ok(),
        _ => false,
    };
    fits.then(|| Some(Cow::Owned(number.to_string())))
}

impl Session {
    /// PREPARE, which begins `offset` characters into what the client sent.
    pub(super) async fn prepare(
        &mut self,
        sentence: &Sentence<'_>,
        offset: u32,
    ) -> Result<(), Stop> {
        let Statement::Prepare {
            name,
            parameter_types: declared,
            body,
        } = &sentence.statement
        else {
            return Err(Stop::Gone);
        };
        let Sentence { sql, tokens, .. } = sentence;
        let renamed = Renamed::new(sql, &tokens[1], LOOKED_AT, i64::from(offset));
        let shard = self.shard_that_knows(body.text)?;
        let backend = self.join(shard).await?;
        let reply = look_at(backend, &renamed.text).await;
        let reply = self
            .heard(shard, reply)
            .map_err(|stop| stop.shifted(renamed.shift))?;
        let text: Arc<str> = body.text.into();
        let described: Arc<[u32]> = reply.parameter_types.into();
        let portable = self
            .portable_types(shard, &text, &described, !declared.is_empty())
            .await?;
        let before = sql[..tokens[body.first_token].start].chars().count() as i64;
        let template = self
            .planned(&text, &portable, i64::from(offset) + before)
            .await?;
        if self.statements.contains_key(&**name) {
            return Err(SessionError::DuplicateStatement(name.to_string()).into());
        }
        let max = self.router.config.limits.prepared_statements;
        if self.statements.len() >= max {
            return Err(SessionError::TooManyStatements { max }.into());
        }
        let topology = self.topology();
        let key = self.template_key(&text, &portable, &topology)?;
        let id = self.router.statement_id(&key);
        let prepared = Prepared {
            id,
            parameters: Some(described.len()),
            backend_name: backend_name(id).into(),
            sql: text,
            parameter_types: portable,
            kind: PreparedKind::Query {
                template,
                schema_version: topology.schema.version,
                search_path: self.search_path()?,
            },
            described: OnceLock::from(described),
            position_offset: 0,
        };
        self.statements.insert(name.to_string(), Arc::new(prepared));
        self.complete("PREPARE");
        Ok(())
    }

    /// The parameters' types as all shards can be told them: those that users made have other OIDs there, and are left
    /// to each shard to find.
    async fn portable_types(
        &mut self,
        shard: ShardId,
        sql: &str,
        described: &Arc<[u32]>,
        declared: bool,
    ) -> Result<Arc<[u32]>, Stop> {
        let is_users = |oid: &u32| *oid >= FIRST_USER_OID;
        if !described.iter().any(is_users) || !self.router.topology().is_spread() {
            return Ok(described.clone());
        }
        let portable = described
            .iter()
            .map(|oid| if is_users(oid) { 0 } else { *oid });
        let portable: Arc<[u32]> = portable.collect();
        if declared {
            let backend = self.join(shard).await?;
            let out = backend.stream.out();
            frontend_message::write_close(out, Target::Statement, OWN_NAME);
            frontend_message::write_parse(out, OWN_NAME, sql, &portable);
            frontend_message::write_describe(out, Target::Statement, OWN_NAME);
            let found = command::answer_apart(backend).await;
            if !found.is_ok_and(|reply| *reply.parameter_types == **described) {
                return Err(refused(
                    "PREPARE with a parameter of a type that a user made",
                    "sql-prepare",
                    "the shards know the type by other numbers, and the statement does not say it",
                    "Cast the parameter in the statement, and do not declare its type.",
                ));
            }
        }
        Ok(portable)
    }

    /// What a shard said to a command of the router's own; one that is gone is let go.
    pub(super) fn heard(
        &mut self,
        shard: ShardId,
        reply: Result<Reply, CommandError>,
    ) -> Result<Reply, Stop> {
        match reply {
            Ok(reply) => {
                self.pass_asides(&reply.asides);
                Ok(reply)
            }
            Err(error) => {
                if matches!(error, CommandError::Lost { .. }) {
                    self.lose(shard);
                }
                Err(error::of_command(error))
            }
        }
    }

    /// Has a shard, to which no message waits to be sent, know a named statement.
    async fn prepare_on(&mut self, prepared: &Prepared, shard: ShardId) -> Result<(), Stop> {
        let backend = self.join(shard).await?;
        if backend.prepared.contains(prepared.id) {
            return Ok(());
        }
        let evicted = backend.prepared.insert(prepared.id);
        let out = backend.stream.out();
        if let Some(evicted) = evicted {
            frontend_message::write_close(out, Target::Statement, &backend_name(evicted));
        }
        frontend_message::write_parse(
            out,
            &prepared.backend_name,
            &prepared.sql,
            &prepared.parameter_types,
        );
        frontend_message::write_sync(out);
        let reply = command::answer(backend).await;
        if reply.is_err() {
            backend.prepared.remove(prepared.id);
        }
        self.heard(shard, reply).map(|_| ())
    }

    /// What a shard says of a named statement: the types of its parameters and its rows.
    async fn describe_on(&mut self, prepared: &Prepared, shard: ShardId) -> Result<Reply, Stop> {
        self.prepare_on(prepared, shard).await?;
        let backend = self.join(shard).await?;
        let out = backend.stream.out();
        frontend_message::write_describe(out, Target::Statement, &prepared.backend_name);
        frontend_message::write_sync(out);
        let reply = command::answer(backend).await;
        self.heard(shard, reply)
    }

    /// The types of a statement's parameters, by some shard.
    async fn described_types(&mut self, prepared: &Prepared) -> Result<Arc<[u32]>, Stop> {
        if let Some(types) = prepared.described.get() {
            return Ok(types.clone());
        }
        self.leave_shard(None).await?;
        let shard = self.shard_to_describe(prepared)?;
        let reply = self.describe_on(prepared, shard).await?;
        let types: Arc<[u32]> = reply.parameter_types.into();
        Ok(prepared.described.get_or_init(|| types).clone())
    }

    /// Looks up what EXECUTE executes, and says where it runs, on which values.
    pub(super) async fn call(&mut self, execute: ExecuteText<'_>) -> Result<Call, Stop> {
        let Statement::Execute {
            name,
            mut arguments,
        } = statement::classify(execute.sql, execute.tokens)?
        else {
            return Err(Stop::Gone);
        };
        let Some(prepared) = self.statements.get(&*name).cloned() else {
            return Err(SessionError::UnknownStatement(name.into_owned()).into());
        };
        if !matches!(prepared.kind, PreparedKind::Query { .. }) {
            return Err(refused(
                "EXECUTE of a statement that is not a query",
                "sql-prepare",
                "the router runs such statements itself",
                "Execute it by the protocol, or send it as it is.",
            ));
        }
        let prepared = self.current(&prepared)?;
        let types = self.described_types(&prepared).await?;
        if types.is_empty() {
            // PostgreSQL does not look at them.
            arguments.clear();
        }
        if types.len() != arguments.len() {
            return Err(SessionError::WrongArguments {
                name: name.into_owned(),
                expected: types.len(),
                given: arguments.len(),
            }
            .into());
        }
        let hint = self.hint(execute.hinted)?;
        let template = match hint {
            Some(_) => self.template_by(hint.as_ref(), &prepared.sql, &prepared.parameter_types)?,
            None => self.current_template(&prepared)?,
        };
        let limits = self.lex_limits();
        let literals: Vec<_> = arguments
            .iter()
            .zip(&*types)
            .map(|(text, oid)| literal(text, *oid, &limits))
            .collect();
        let known = |parameter: &u16| {
            let literal = literals.get(usize::from(*parameter));
            literal.is_some_and(Option::is_some)
        };
        let constants = arguments
            .iter()
            .all(|text| constant(text, &limits).is_some());
        let evaluated = match constants {
            true => None,
            false => Some(self.arguments_template(&arguments)?),
        };
        let all_known = literals.iter().all(Option::is_some);
        let asks = template.fill().is_some() || template.is_spelled();
        if template.placing_parameters().iter().all(known) && (all_known || !asks) {
            let values = literals.iter().map(|literal| {
                let value = literal.as_ref()?.as_ref()?;
                Some(value.as_bytes().to_vec())
            });
            let values = Values {
                values: values.collect(),
                formats: Vec::new(),
            };
            let planned = match all_known {
                true => Some(self.plan_call(&template, &prepared, &values).await?),
                false => match self.plan_of(&template, &values) {
                    Ok(plan) => Some((template.clone(), plan)),
                    // Its values are to be written out, once all are known.
                    Err(refused) if draw::may_be_spelled(&refused) => None,
                    Err(refused) => return Err(refused),
                },
            };
            if let Some((template, plan)) = planned {
                let on_one_shard = plan.passed().is_some();
                let as_written = on_one_shard
                    && match &evaluated {
                        Some(template) => self.is_for_any_shard(template)?,
                        None => true,
                    };
                if as_written || all_known {
                    return Ok(Call {
                        prepared,
                        template,
                        plan,
                        values: (!as_written).then_some(values),
                    });
                }
            }
        }
        let evaluated = match evaluated {
            Some(template) => template,
            None => self.arguments_template(&arguments)?,
        };
        let values = self.evaluate(execute, &prepared, &evaluated).await?;
        let (template, plan) = self.plan_call(&template, &prepared, &values).await?;
        Ok(Call {
            prepared,
            template,
            plan,
            values: Some(values),
        })
    }

    /// The plan with values for all parameters, and the template that it is made from, with what has to be asked for it.
    async fn plan_call(
        &mut self,
        template: &Arc<Template>,
        prepared: &Prepared,
        values: &Values,
    ) -> Result<(Arc<Template>, Plan), Stop> {
        let formats = values.formats.iter();
        let formats: Vec<i16> = formats.map(|format| format.code() as i16).collect();
        let values: Vec<_> = values.values().collect();
        let bound = Bound {
            types: &prepared.parameter_types,
            values: &values,
            formats: &formats,
        };
        let preferred = self.transaction.preferred();
        let planned = self.plan_asking(template.clone(), &prepared.sql, &bound, preferred);
        Box::pin(planned).await
    }

    fn plan_of(&mut self, template: &Template, values: &Values) -> Result<Plan, Stop> {
        let formats: Vec<i16> = values
            .formats
            .iter()
            .map(|format| format.code() as i16)
            .collect();
        let values: Vec<_> = values.values().collect();
        let binding = Binding {
            values: &values,
            formats: &formats,
            preferred: self.transaction.preferred(),
            spread: self.router.next_spread(),
            drawn: &[],
            cursor: self.cursor_of(template),
        };
        self.plan(template, &binding)
    }

    /// The arguments as a query.
    fn arguments_template(&mut self, arguments: &[&str]) -> Result<Arc<Template>, Stop> {
        let each: Vec<String> = arguments.iter().map(|text| format!("({text})")).collect();
        let select: Arc<str> = format!("SELECT {}", each.join(", ")).into();
        self.template(&select, &Arc::from([]))
    }

    /// Whether the shard that runs a statement may evaluate its arguments too.
    fn is_for_any_shard(&mut self, arguments: &Template) -> Result<bool, Stop> {
        let plan = self.plan_of(arguments, &Values::default())?;
        Ok(matches!(plan.tier, Tier::AnyShard | Tier::Catalog)
            && arguments.settings().is_empty()
            && arguments.session_effects().is_none())
    }

    /// Has a shard say what the arguments are, once, as values of the parameters' types. Outside a block it begins one
    /// of the router's own, which the statement is to be a part of.
    async fn evaluate(
        &mut self,
        execute: ExecuteText<'_>,
        prepared: &Prepared,
        template: &Template,
    ) -> Result<Values, Stop> {
        self.leave_shard(None).await?;
        let plan = self.plan_of(template, &Values::default())?;
        let ([step], []) = (plan.steps.as_slice(), plan.inputs.as_slice()) else {
            return Err(refused(
                "EXECUTE with an argument that reads tables",
                "sql-prepare",
                "an argument is evaluated by one shard",
                "Read the value first, then pass it as a literal.",
            ));
        };
        let shard = step.shard;
        self.begin_implicit().await?;
        self.before(template, &plan).await?;
        self.join(shard).await?;
        self.transaction.mark_used(shard);
        let known = prepared.described.get().cloned().unwrap_or_default();
        let types = if known.iter().any(|oid| *oid >= FIRST_USER_OID) {
            self.describe_on(prepared, shard).await?.parameter_types
        } else {
            known.to_vec()
        };
        let formats: Vec<Format> = types
            .iter()
            .map(|oid| match BINARY_TYPES.contains(oid) {
                true => Format::Binary,
                false => Format::Text,
            })
            .collect();
        let parameters: Vec<String> = (1..=types.len()).map(|at| format!("${at}")).collect();
        let asked = Renamed::new(
            execute.sql,
            &execute.tokens[1],
            LOOKED_AT,
            i64::from(execute.offset),
        );
        // What comes before EXECUTE (EXPLAIN) is not asked.
        let before = &execute.sql[..execute.tokens[0].start];
        let shift = asked.shift + before.chars().count() as i64;
        let backend = self.join(shard).await?;
        let out = backend.stream.out();
        for name in [LOOKED_AT, OWN_NAME] {
            frontend_message::write_close(out, Target::Statement, name);
        }
        let select = format!("SELECT {}", parameters.join(", "));
        frontend_message::write_parse(out, LOOKED_AT, &select, &types);
        frontend_message::write_parse(out, OWN_NAME, &asked.text[before.len()..], &[]);
        frontend_message::write_close(out, Target::Portal, OWN_NAME);
        frontend_message::write_bind(out, OWN_NAME, OWN_NAME, [], [], formats.iter().copied());
        frontend_message::write_execute(out, OWN_NAME, 0);
        frontend_message::write_close(out, Target::Portal, OWN_NAME);
        for name in [LOOKED_AT, OWN_NAME] {
            frontend_message::write_close(out, Target::Statement, name);
        }
        frontend_message::write_sync(out);
        let mut row = None;
        let reply = command::answer_each(backend, |frame| row = row.take().or(Some(frame))).await;
        self.heard(shard, reply)
            .map_err(|stop| stop.shifted(shift))?;
        self.adopt_settings(shard, template.settings()).await?;
        let row = row.ok_or(Stop::Gone)?;
        let values = DataRow::read(row.body())?.map(|value| Ok(value?.map(<[u8]>::to_vec)));
        Ok(Values {
            values: values.collect::<Result<_, Stop>>()?,
            formats,
        })
    }

    /// What must be known before a statement runs on its shards.
    pub(super) async fn before(&mut self, template: &Template, plan: &Plan) -> Result<(), Stop> {
        for change in template.settings() {
            self.note_custom(&change.name);
        }
        if self.parameters.is_consistent() {
            let crosses = plan.steps.len() > 1 || !plan.inputs.is_empty();
            Box::pin(self.open_snapshot(plan.access, crosses)).await?;
        }
        if template.is_hinted() {
            Box::pin(self.taint(plan)).await?;
        }
        self.hold(template.session_effects(), plan).await
    }

    /// EXECUTE by the simple protocol.
    pub(super) async fn execute_sql(&mut self, execute: ExecuteText<'_>) -> Result<(), Stop> {
        let idle = self.transaction.block.phase() == Phase::Idle;
        let call = self.call(execute).await?;
        self.before(&call.template, &call.plan).await?;
        match (&call.values, call.plan.steps.as_slice()) {
            (None, [step]) => {
                let renamed = execute.renamed(&call.prepared.backend_name);
                self.execute_as_written(&call.prepared, step.shard, &renamed)
                    .await?;
            }
            (values, _) => {
                let tag = self.execute_bound(&call, values.as_ref()).await?;
                if idle && self.transaction.block.phase() == Phase::Implicit {
                    self.adopt_settings_of(&call).await?;
                    self.commit().await?;
                    self.complete(&tag);
                    return Ok(());
                }
                self.complete(&tag);
            }
        }
        self.adopt_settings_of(&call).await
    }

    async fn adopt_settings_of(&mut self, call: &Call) -> Result<(), Stop> {
        match (call.template.settings(), call.plan.steps.as_slice()) {
            (settings @ [_, ..], [step]) => self.adopt_settings(step.shard, settings).await,
            _ => Ok(()),
        }
    }

    /// Runs EXECUTE on one shard, its answer passed through. A statement that the shard does not know any more, or knows
    /// as something else, is prepared anew, once, where nothing else can have happened yet.
    async fn execute_as_written(
        &mut self,
        prepared: &Prepared,
        shard: ShardId,
        renamed: &Renamed,
    ) -> Result<(), Stop> {
        let idle = self.transaction.block.phase() == Phase::Idle;
        let mut again = false;
        loop {
            self.prepare_on(prepared, shard).await?;
            self.transaction.mark_used(shard);
            let backend = self.join(shard).await?;
            frontend_message::write_query(backend.stream.out(), &renamed.text);
            backend.forget_unnamed();
            let backend = self.transaction.backend(shard).ok_or(Stop::Gone)?;
            let whole = Whole {
                position_offset: renamed.shift,
                stale: idle && !again,
                ..Whole::default()
            };
            let answered = relay::relay_whole(backend, &mut self.client, whole).await;
            let stale = answered
                .as_ref()
                .is_ok_and(|answered| answered.ending == Ending::Stale || answered.stale_told);
            if stale && close_statements(backend, &[prepared.id]).await.is_err() {
                self.lose(shard);
            }
            if self.after_whole(shard, answered)?.ending != Ending::Stale {
                return Ok(());
            }
            again = true;
        }
    }

    /// Runs what EXECUTE executes with its values bound; gives the command tag.
    async fn execute_bound(
        &mut self,
        call: &Call,
        values: Option<&Values>,
    ) -> Result<String, Stop> {
        let mut plan = call.plan.clone();
        if plan.merge == Merge::Relay {
            plan.merge = Merge::Append {
                offset: 0,
                limit: None,
            };
        }
        if plan.access != Access::Read {
            self.begin_implicit().await?;
        }
        let bound: Vec<_> = values.into_iter().flat_map(Values::values).collect();
        let formats = values.map_or(&[][..], |values| &values.formats);
        let show = Show {
            description: true,
            rows_max: None,
            copy: None,
        };
        let request = Request {
            sql: &call.prepared.sql,
            types: &call.prepared.parameter_types,
            values: &bound,
            formats,
            results: &[],
        };
        let done = self.run_bound(&plan, &request, "", show).await?;
        Ok(done.tag)
    }

    /// Bind of an EXECUTE: of what it executes, or of itself under the statement's name on its shard.
    pub(super) async fn bind_execute(
        &mut self,
        prepared: &Arc<Prepared>,
        bind: &Bind<'_>,
        frame: FrameView<'_>,
    ) -> Result<(), Stop> {
        if self.transaction.block.phase() == Phase::Failed {
            return Err(SessionError::FailedBlock.into());
        }
        let portal = bind.portal.to_owned();
        let tokens = lex::lex(&prepared.sql, &self.lex_limits())?;
        if self.executed_statement(prepared)?.is_none() {
            // Execute says so.
            self.answer_locally(backend_message::write_bind_complete);
            let place = Place::Session;
            let prepared = prepared.clone();
            self.portals.insert(portal, Portal { prepared, place });
            return Ok(());
        }
        let execute = ExecuteText {
            sql: &prepared.sql,
            tokens: &tokens,
            hinted: &prepared.sql,
            offset: 0,
        };
        let call = self.call(execute).await?;
        let portal = match (&call.values, call.plan.steps.as_slice()) {
            (None, [step]) => {
                self.before(&call.template, &call.plan).await?;
                let shard = step.shard;
                let renamed = execute.renamed(&call.prepared.backend_name);
                self.ensure_parsed(&call.prepared, shard).await?;
                let written = Arc::new(Prepared {
                    id: self.router.next_statement(),
                    parameters: None,
                    backend_name: Box::default(),
                    sql: renamed.text.into(),
                    parameter_types: Arc::from([]),
                    kind: call.prepared.kind.clone(),
                    described: OnceLock::new(),
                    position_offset: renamed.shift,
                });
                self.bind_on(&written, shard, bind.portal, frame).await?;
                Portal {
                    prepared: written,
                    place: Place::Shard(shard),
                }
            }
            (values, _) => {
                let bound = values.iter().flat_map(Values::values);
                let formats = values.iter().flat_map(|values| values.formats.clone());
                let mut frame = BytesMut::new();
                frontend_message::write_bind(
                    &mut frame,
                    bind.portal,
                    &call.prepared.backend_name,
                    formats,
                    bound,
                    bind.result_formats.iter(),
                );
                let frame = Frame::new(frame.freeze());
                let frame = FrameView::new(frame.bytes());
                let Call {
                    prepared,
                    template,
                    plan,
                    ..
                } = call;
                let place = self
                    .bind_planned(&prepared, &template, plan, bind.portal, frame)
                    .await?;
                Portal { prepared, place }
            }
        };
        self.portals.insert(bind.portal.to_owned(), portal);
        Ok(())
    }

    /// The statement that an EXECUTE names now, if there is one.
    fn executed_statement(&self, execute: &Prepared) -> Result<Option<Arc<Prepared>>, Stop> {
        let tokens = lex::lex(&execute.sql, &self.lex_limits())?;
        match statement::classify(&execute.sql, &tokens)? {
            Statement::Execute { name, .. } => Ok(self.statements.get(&*name).cloned()),
            _ => Ok(None),
        }
    }

    /// Describe of an EXECUTE: the rows of what it executes.
    pub(super) async fn describe_execute(&mut self, execute: &Prepared) -> Result<(), Stop> {
        let mut rows = None;
        if let Some(executed) = self.executed_statement(execute)?
            && matches!(executed.kind, PreparedKind::Query { .. })
        {
            self.leave_shard(None).await?;
            let shard = self.shard_to_describe(&executed)?;
            rows = self.describe_on(&executed, shard).await?.description;
        }
        self.answer_locally(|out| {
            backend_message::write_parameter_description(out, &[]);
            match rows {
                Some(frame) => out.extend_from_slice(frame.bytes()),
                None => backend_message::write_no_data(out),
            }
        });
        Ok(())
    }

    /// EXPLAIN EXECUTE. `describe`: whether rows are described (the simple protocol).
    pub(super) async fn explain_execute(
        &mut self,
        explain: &Explain<'_>,
        describe: bool,
    ) -> Result<(), Stop> {
        let idle = self.transaction.block.phase() == Phase::Idle;
        let tokens = lex::lex(explain.body, &self.lex_limits())?;
        let execute = ExecuteText {
            sql: explain.body,
            tokens: &tokens,
            hinted: explain.sql,
            offset: 0,
        };
        let call = self.call(execute).await?;
        if explain.analyze {
            call.template.refuse_session_effects()?;
            self.before(&call.template, &call.plan).await?;
        }
        let prefix = &explain.sql[..explain.sql.len() - explain.body.len()];
        let body = match &call.values {
            None => {
                for step in &call.plan.steps {
                    self.prepare_on(&call.prepared, step.shard).await?;
                }
                Cow::Owned(execute.renamed(&call.prepared.backend_name).text)
            }
            Some(_) => Cow::Borrowed(&*call.prepared.sql),
        };
        let sql = format!("{prefix}{body}");
        let explained = Explain {
            sql: &sql,
            body: &sql[prefix.len()..],
            ..*explain
        };
        let values: Vec<_> = call.values.iter().flat_map(Values::values).collect();
        let formats = call.values.iter().flat_map(|values| &values.formats);
        let formats: Vec<i16> = formats.map(|format| format.code() as i16).collect();
        let bound = Bound {
            types: &call.prepared.parameter_types,
            values: &values,
            formats: &formats,
        };
        let lines = self
            .explained(&call.template, &call.plan, &explained, &bound)
            .await?;
        if describe && idle && self.transaction.block.phase() == Phase::Implicit {
            self.commit().await?;
        }
        if describe {
            backend_message::write_row_description(self.client.out(), [explain.format.column()]);
        }
        for line in &lines {
            backend_message::write_data_row(self.client.out(), [Some(line.as_bytes())]);
        }
        self.complete("EXPLAIN");
        Ok(())
    }
}

/// Has PostgreSQL look at a PREPARE of [`LOOKED_AT`].
async fn look_at(backend: &mut Backend, sql: &str) -> Result<Reply, CommandError> {
    frontend_message::write_close(backend.stream.out(), Target::Statement, LOOKED_AT);
    command::write_apart(backend, sql, &[]);
    let out = backend.stream.out();
    frontend_message::write_describe(out, Target::Statement, LOOKED_AT);
    frontend_message::write_close(out, Target::Statement, LOOKED_AT);
    command::answer_apart(backend).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_known_where_every_postgresql_reads_them_alike() {
        let limits = LexLimits {
            tokens_max: 100,
            depth_max: 10,
        };
        let known = |text: &str, oid: u32| {
            literal(text, oid, &limits).map(|value| value.map(Cow::into_owned))
        };
        let value = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(known("007", 23), value("7"));
        assert_eq!(known("- 5", 20), value("-5"));
        assert_eq!(known("+5", 1700), value("5"));
        assert_eq!(known("'it''s'", 25), value("it's"));
        assert_eq!(known("E'a\\n'", 25), value("a\n"));
        assert_eq!(known("NULL", 25), Some(None));
        // Another type, out of its range, or no literal: PostgreSQL says what it is.
        for (text, oid) in [
            ("5", 25),
            ("70000", 21),
            ("3000000000", 23),
            ("1.5", 23),
            ("1e2", 23),
            ("true", 16),
            ("B'1'", 1560),
            ("N'x'", 25),
            ("5::int", 23),
            ("now()", 1184),
            ("- 'x'", 25),
        ] {
            assert_eq!(known(text, oid), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_replaced_and_what_follows_is_found_again() {
        let sql = "EXPLAIN EXECUTE \"é s\" (1)";
        let limits = LexLimits {
            tokens_max: 100,
            depth_max: 10,
        };
        let tokens = lex::lex(sql, &limits).unwrap();
        let renamed = Renamed::new(sql, &tokens[2], "pgring_12", 3);
        assert_eq!(renamed.text, "EXPLAIN EXECUTE pgring_12 (1)");
        assert_eq!(renamed.shift, 3 + 5 - 9);
    }
}

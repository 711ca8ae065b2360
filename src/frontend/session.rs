//! [`Session`]: one client's conversation from login to the end. The loop is here; what each message does is in
//! [`super::simple_query`] and [`super::extended_query`]; it never decides which shard a statement goes to.

use super::cancel::Cancels;
use super::error::{self, SessionError, Stop};
use super::known::Shaped;
use super::own_schema::OwnSchema;
use super::parameters::Parameters;
use super::statements::{Portal, Prepared};
use super::temporary::Temporary;
use crate::backend::connection::Backend;
use crate::backend::pool::UserPools;
use crate::executor::relay::Expect;
use crate::planner::{self, Context, Hint, PlanError, Refusal, Template};
use crate::router::clients::{Client, Leave};
use crate::router::traffic::Counts;
use crate::router::{Router, TemplateKey};
use crate::sql::lex::{self, LexLimits};
use crate::sql::search_path;
use crate::sql::shape::Shape;
use crate::topology::ShardId;
use crate::topology::snapshot::Topology;
use crate::transaction::command::{self, CommandError};
use crate::transaction::in_use::InUse;
use crate::transaction::pin::Pins;
use crate::transaction::settings::Settings;
use crate::transaction::state::Phase;
use crate::transaction::{Tenant, Transaction};
use crate::wire::backend_message::{self, TransactionStatus};
use crate::wire::error_response::ErrorReply;
use crate::wire::error_response::{self, Severity};
use crate::wire::frame::{Frame, FrameView};
use crate::wire::frontend_message;
use crate::wire::spare::{self, SPARE_BYTES};
use crate::wire::stream::{FrameStream, Head, StreamError};
use bytes::{Bytes, BytesMut};
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

/// The settings that were in force, and where they have names looked up.
type SearchPath = (Arc<Settings>, Arc<[Arc<str>]>);

/// A message larger than this is not copied, but taken as it lies, and passed on so.
const COPIED_BYTES: usize = SPARE_BYTES;

/// One client.
pub struct Session {
    pub(super) router: Arc<Router>,
    pub(super) client: FrameStream,
    pub(super) pools: UserPools,
    pub(super) parameters: Parameters,
    pub(super) transaction: Transaction,
    /// By the client's name; the unnamed one is "".
    pub(super) statements: HashMap<String, Arc<Prepared>, RandomState>,
    /// By the client's name; the unnamed one is "".
    pub(super) portals: HashMap<String, Portal, RandomState>,
    /// Cursors of the block and the shard that has them.
    pub(super) cursors: HashMap<String, ShardId>,
    /// Those of them that outlive it.
    pub(super) held_cursors: HashMap<String, ShardId>,
    /// What was sent to the shard of the messages since the last Sync, and not yet answered.
    pub(super) pipeline: Pipeline,
    /// What the client knows of the parameters that PostgreSQL reports.
    pub(super) reported: Arc<Settings>,
    /// What has changed of that and is told at the next ReadyForQuery.
    unreported: BTreeMap<Arc<str>, Arc<str>>,
    /// A shard was left whose reports the client has heard: the next one's are compared with them.
    pub(super) reports_are_stale: bool,
    /// Notifications that are passed on at the next ReadyForQuery.
    notifications: BytesMut,
    pub(super) in_use: Arc<InUse>,
    /// What the console sees of it.
    record: Arc<Client>,
    /// What of that was not told yet.
    counts: Counts,
    /// When it said something last, by the clients' clock.
    woken: u64,
    /// The settings that name its application to the console.
    named: Arc<Settings>,
    /// The block changed the schema.
    pub(super) schema_changed: bool,
    pub(super) own_schema: OwnSchema,
    /// Its temporary relations.
    pub(super) temporary: Temporary,
    search_path: Option<SearchPath>,
    /// The generation of the topology that the statement was planned against; 0 if it was not.
    pub(super) planned: u64,
    /// The shape of the simple query that was read last.
    pub(super) shape: Shape,
    /// What is known of that.
    pub(super) shaped: Option<Shaped>,
    /// The message that is answered, if it is a large one; else empty.
    pub(super) large: Bytes,
}

/// The message that is answered.
enum Request {
    Copied(BytesMut),
    Large(Bytes),
}

/// The extended-query messages since the last Sync.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// The shard that has been sent messages without a Sync.
    pub(super) shard: Option<ShardId>,
    /// What it, or the router, is to answer, in order.
    pub(super) queue: VecDeque<Expect>,
    /// How many bytes of the router's own answers wait in [`Self::queue`].
    pub(super) local_bytes: usize,
    /// A Parse whose statement no shard has seen yet.
    pub(super) unseen: Option<Arc<Prepared>>,
    /// No shard could be had to see it.
    pub(super) unseeable: bool,
    /// What became of the client's names since the last Sync, in order; what is answered may be left out.
    pub(super) changes: Vec<Change>,
    /// The unnamed statement is parsed now: it ends even if that fails.
    pub(super) parses_unnamed: bool,
    /// Statements that were sent to the shard to be parsed or closed since the last Sync.
    pub(super) parsed: Vec<u64>,
    /// Statements that the shard knew before its talk began.
    pub(super) known: Vec<Arc<Prepared>>,
    /// Something of the talk with the shard was sent to it.
    pub(super) sent: bool,
    /// Statements that changed settings by a function, and where; read back at Sync.
    pub(super) settings: Vec<(ShardId, Arc<Template>)>,
    /// Something was executed since the last Sync.
    pub(super) executed: bool,
    /// The same before the statement that runs now.
    pub(super) earlier: bool,
    /// Something failed: all up to Sync is skipped.
    pub(super) failed: bool,
    /// The shard has been sent something that only Sync ends.
    pub(super) unsynced: bool,
}

/// What a message made of one of the client's names, to be taken back if an earlier message turns out to have failed.
#[derive(Debug)]
pub(super) enum Change {
    /// Parse or Close of a statement.
    Statement {
        /// Its name.
        name: String,
        /// What had the name before.
        before: Option<Arc<Prepared>>,
    },
    /// Close of a portal.
    Portal {
        /// Its name.
        name: String,
        /// What had the name before.
        before: Option<Portal>,
    },
}

impl Pipeline {
    /// Notes a change that a shard, or the router after one, is still to answer.
    pub(super) fn note_change(&mut self, change: Change) {
        if self.queue.is_empty() {
            self.changes.clear();
        }
        self.changes.push(change);
    }

    /// Notes a change that the router answers as soon as what waits before it is answered.
    pub(super) fn note_answered_change(&mut self, change: Change) {
        if self.queue.is_empty() {
            self.changes.clear();
        } else {
            self.changes.push(change);
        }
    }

    /// The shard that has been sent messages and has not answered all of them.
    pub(super) fn talking(&self) -> Option<ShardId> {
        self.shard.filter(|_| self.unsynced)
    }

    /// Whether nothing has come since the last Sync.
    pub(super) fn is_idle(&self) -> bool {
        !self.unsynced
            && !self.failed
            && !self.executed
            && self.unseen.is_none()
            && self.queue.is_empty()
            && self.changes.is_empty()
    }
}

/// The parameter that clients are told once: the lowest of all shards, by which drivers choose what they use.
pub(super) const SERVER_VERSION: &str = "server_version";

/// The setting by which clients say what they are.
pub(super) const APPLICATION_NAME: &str = "application_name";

/// What a session is made of once its client has logged in.
pub struct Start {
    /// The services.
    pub router: Arc<Router>,
    /// The client's stream.
    pub client: FrameStream,
    /// Where it leases connections, as whom.
    pub pools: UserPools,
    /// Its settings.
    pub parameters: Parameters,
    /// What it has been told of the shards' parameters.
    pub reported: Arc<Settings>,
    /// The backends that a cancel must reach.
    pub in_use: Arc<InUse>,
    /// What the console sees of it.
    pub record: Arc<Client>,
}

impl Session {
    /// A session at its first ReadyForQuery.
    pub fn new(start: Start) -> Box<Self> {
        let Start {
            router,
            client,
            pools,
            parameters,
            reported,
            in_use,
            record,
        } = start;
        let pins = Pins::new(router.config.pool.mode);
        Box::new(Self {
            client,
            pools,
            transaction: Transaction::new(pins),
            statements: HashMap::default(),
            portals: HashMap::default(),
            cursors: HashMap::new(),
            held_cursors: HashMap::new(),
            pipeline: Pipeline::default(),
            reported,
            unreported: BTreeMap::new(),
            reports_are_stale: false,
            notifications: BytesMut::new(),
            in_use,
            record,
            counts: Counts::default(),
            woken: router.clients.now(),
            named: parameters.in_force().clone(),
            parameters,
            router,
            schema_changed: false,
            own_schema: OwnSchema::default(),
            temporary: Temporary::default(),
            search_path: None,
            planned: 0,
            shape: Shape::default(),
            shaped: None,
            large: Bytes::new(),
        })
    }

    /// Answers the client until it leaves or the router stops.
    pub async fn run(mut self: Box<Self>) {
        loop {
            self.planned = 0;
            let bytes = match self.client.head(|_| false) {
                Ok(Head::Frame(b'P' | b'B', bytes)) => match self.known_pipeline().await {
                    Ok(true) => continue,
                    Ok(false) => bytes,
                    Err(_) => break,
                },
                Ok(Head::Frame(_, bytes)) => bytes,
                Ok(Head::Pass(_) | Head::Incomplete) => match self.wait().await {
                    Ok(()) => continue,
                    Err(_) => break,
                },
                Err(error) => {
                    Box::pin(self.fatal_stream(error)).await;
                    break;
                }
            };
            let request = self.take_request(bytes);
            let frame = FrameView::new(match &request {
                Request::Copied(bytes) => bytes,
                Request::Large(bytes) => bytes,
            });
            let answered = self.answer(frame).await;
            self.forget_request(request);
            match answered {
                Ok(true) => {}
                Ok(false) | Err(Stop::Gone) => break,
                Err(stop) => self.tell(stop),
            }
        }
        Box::pin(self.leave()).await;
    }

    /// Sends what waits and waits for the client, for the router's end, or for a shard that has waited too long.
    async fn wait(&mut self) -> Result<(), Stop> {
        self.client.flush().await.map_err(error::of_client)?;
        self.client.rest();
        self.transaction.note_resting();
        let in_block = self.transaction.block.phase() != Phase::Idle;
        let unsynced = self.pipeline.unsynced;
        let rested = self.note_rest();
        let woken = poll_fn(|context| {
            if let Poll::Ready(filled) = self.client.poll_fill(context) {
                return Poll::Ready(Woken::Client(filled.map(|_| ())));
            }
            match self.record.leave() {
                Some(Leave::AtRest) if in_block || unsynced => {}
                Some(_) => return Poll::Ready(Woken::Stopping),
                None => {}
            }
            if !in_block && !unsynced {
                let heard = self.transaction.pins.poll_heard(context);
                return heard.map(|(shard, filled)| Woken::Shard(shard, filled));
            }
            if in_block && !unsynced {
                let mut backends = self.transaction.backends();
                if let Some(frame) = backends.find_map(|backend| timed_out(backend, context)) {
                    return Poll::Ready(Woken::TimedOut(frame));
                }
            }
            Poll::Pending
        });
        match woken.await {
            Woken::Client(filled) => {
                self.note_request(in_block.then_some(rested));
                self.transaction.note_busy();
                return filled.map_err(error::of_client);
            }
            Woken::Shard(shard, filled) => return Box::pin(self.hear(shard, filled)).await,
            Woken::Stopping => {
                let stopping = &SessionError::Stopping;
                error_response::write_error_reply(self.client.out(), stopping, Severity::Fatal);
            }
            Woken::TimedOut(frame) => self.client.out().extend_from_slice(frame.bytes()),
        }
        let _ = self.client.flush().await;
        Err(Stop::Gone)
    }

    /// Tells the console what was done since the last time; what time it is by the clients' clock.
    fn note_rest(&mut self) -> u64 {
        let now = self.router.clients.now();
        let busy = now.saturating_sub(self.woken);
        let traffic = self.client.take_traffic();
        let mut counts = std::mem::take(&mut self.counts);
        counts.received += traffic.received;
        counts.sent += traffic.sent;
        counts.busy += busy;
        counts.in_transaction += busy;
        self.router.traffic[self.pools.worker()].add(counts);
        self.record.note_rest(self.statements.len());
        let settings = self.parameters.in_force();
        if !Arc::ptr_eq(settings, &self.named) {
            self.named = settings.clone();
            let name = self.named.get(APPLICATION_NAME).cloned();
            self.record.note_application_name(&name.unwrap_or_default());
        }
        now
    }

    /// The client said something; in a block it had not since `rested`.
    fn note_request(&mut self, rested: Option<u64>) {
        self.woken = self.router.clients.now();
        let idle = rested.map_or(0, |rested| self.woken.saturating_sub(rested));
        self.counts.in_transaction += idle;
        self.record.note_request(self.woken);
    }

    /// Takes the message at the head of the client's input.
    fn take_request(&mut self, bytes: usize) -> Request {
        if bytes > COPIED_BYTES {
            self.large = self.client.take(bytes).freeze();
            return Request::Large(self.large.clone());
        }
        if self.client.input().len() == bytes {
            return Request::Copied(self.client.take_all());
        }
        let request = self.copy_request(bytes);
        self.client.consume(bytes);
        Request::Copied(request)
    }

    fn forget_request(&mut self, request: Request) {
        match request {
            Request::Copied(bytes) => self.forget_messages(bytes),
            Request::Large(_) => self.large = Bytes::new(),
        }
    }

    /// The room of messages that were answered is the client's again.
    pub(super) fn forget_messages(&mut self, mut messages: BytesMut) {
        messages.clear();
        self.client.put_back(messages);
    }

    /// Copies the messages at the head of the client's input, into a spare buffer.
    pub(super) fn copy_request(&self, bytes: usize) -> BytesMut {
        let mut request = spare::take();
        request.extend_from_slice(&self.client.input()[..bytes]);
        request
    }

    /// Answers one message. Whether the session goes on.
    async fn answer(&mut self, frame: FrameView<'_>) -> Result<bool, Stop> {
        match frame.tag() {
            b'Q' => self.simple_query(frame).await?,
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => self.extended_message(frame).await?,
            b'X' => return Ok(false),
            // What a client still sends after its COPY failed.
            b'd' | b'c' | b'f' => {}
            // All is skipped up to Sync.
            b'F' if self.pipeline.failed => {}
            b'F' => {
                let refused = SessionError::Refused {
                    what: "the fastpath function call".to_owned(),
                    code: "fastpath",
                    reason: "large objects and function OIDs belong to one shard",
                    hint: "Call the function in a SELECT.",
                };
                self.fail_pipeline(refused.into()).await?;
                // It ends what was not synced.
                self.end_pipeline().await?;
            }
            tag => {
                let error = SessionError::UnknownMessage(tag);
                error_response::write_error_reply(self.client.out(), &error, Severity::Fatal);
                let _ = self.client.flush().await;
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn fatal_stream(&mut self, error: StreamError) {
        error_response::write_error_reply(self.client.out(), &error, Severity::Fatal);
        let _ = self.client.flush().await;
    }

    /// The client is gone: what runs for it is cancelled and rolled back, since a lease that is dropped cancels.
    async fn leave(&mut self) {
        self.in_use.clear().await;
        self.transaction.abandon();
        self.end_pins().await;
    }

    /// Tells the client of an error, and what that does to its block.
    pub(super) fn tell(&mut self, stop: Stop) {
        match stop {
            Stop::Gone | Stop::Told => {}
            Stop::Later(later) => return self.tell(*later.otherwise),
            Stop::Error(error) => {
                if error.sqlstate() == crate::wire::sqlstate::SqlState::INTERNAL_ERROR {
                    tracing::error!(error = %error, "internal error");
                }
                error_response::write_error_reply(self.client.out(), &*error, Severity::Error);
            }
            // The shard ended its connection, not the client's.
            Stop::Shard(frame) if error_response::is_farewell(frame.body()) => {
                error_response::write_shard_error_as(
                    self.client.out(),
                    frame.body(),
                    Severity::Error,
                );
            }
            Stop::Shard(frame) => self.client.out().extend_from_slice(frame.bytes()),
        }
        self.transaction.block.fail();
        // An error takes back what was set.
        for shard in self.transaction.shards().collect::<Vec<_>>() {
            self.report_parameters(shard);
        }
    }

    pub(super) fn ready_for_query(&mut self) {
        while let Some((name, value)) = self.unreported.pop_first() {
            if self.reported.get(&name) != Some(&value) {
                backend_message::write_parameter_status(self.client.out(), &name, &value);
                Arc::make_mut(&mut self.reported).insert(name, value);
            }
        }
        if !self.notifications.is_empty() {
            let notifications = std::mem::take(&mut self.notifications);
            self.client.out().extend_from_slice(&notifications);
        }
        let status = self.transaction.block.status();
        self.counts.queries += 1;
        self.counts.transactions += u64::from(status == TransactionStatus::Idle);
        backend_message::write_ready_for_query(self.client.out(), status);
    }

    /// The transaction, and who leases for it.
    pub(super) fn transaction(&mut self) -> (&mut Transaction, Tenant<'_>) {
        let tenant = Tenant {
            control: &self.router.control,
            pools: &self.pools,
            settings: self.parameters.before_block(),
            committed: self.parameters.shard_settings(),
            custom: self.parameters.custom(),
            detector: &self.router.detector,
            in_use: &self.in_use,
            talking: self.pipeline.talking(),
        };
        (&mut self.transaction, tenant)
    }

    /// Makes a shard a participant of the block or of the statement.
    pub(super) async fn join(&mut self, shard: ShardId) -> Result<&mut Backend, Stop> {
        if self.transaction.backend(shard).is_none() {
            if let Some(talking) = self.pipeline.talking() {
                // It has answers to give.
                self.transaction.mark_used(talking);
            }
            let at_once = !self.reports_are_stale && {
                let (transaction, tenant) = self.transaction();
                transaction.join_at_once(shard, tenant)
            };
            if at_once {
                self.note_in_use();
            } else {
                // Rare, and so large that it is better not a part of every call.
                Box::pin(self.join_in_time(shard)).await?;
            }
        }
        self.begin_on(shard)?;
        self.transaction.backend(shard).ok_or(Stop::Gone)
    }

    async fn join_in_time(&mut self, shard: ShardId) -> Result<(), Stop> {
        if self.transaction.has_unused() {
            // It may leave shards on the way, which a cancel must not reach any more.
            self.in_use.clear().await;
            self.reports_are_stale = true;
        }
        let mut asides = Vec::new();
        self.record.note_waiting(self.woken);
        let (transaction, tenant) = self.transaction();
        let joining = transaction.join(shard, tenant, &mut asides);
        let joined = joining.await.map(|_| ());
        self.record.note_waiting(0);
        self.note_in_use();
        joined.map_err(error::of_join)?;
        self.pass_asides(&asides);
        if std::mem::take(&mut self.reports_are_stale) {
            self.report_all_parameters(shard);
        }
        Ok(())
    }

    /// A cancel must reach the backends that take part now.
    pub(super) fn note_in_use(&mut self) {
        let mark = self.transaction.mark();
        let backends = self.transaction.backends();
        let tokens = backends.map(|backend| backend.cancel_token());
        self.in_use.set(tokens, mark);
    }

    /// Gives back the leases of a statement outside a block.
    pub(super) async fn release_idle(&mut self) {
        if self.transaction.block.phase() != Phase::Idle || self.pipeline.unsynced {
            return;
        }
        // A call that may wait costs even where it does not.
        if self.in_use.forget() {
            self.in_use.clear().await;
        }
        if self.transaction.is_tainted() {
            self.transaction.clean_tainted().await;
        }
        self.transaction.release_idle();
        if !self.transaction.pins.is_empty() || !self.held_cursors.is_empty() {
            self.settle_pins().await;
        }
        if !self.own_schema.is_unchanged() {
            self.forget_changes();
        }
        if std::mem::take(&mut self.schema_changed) {
            Box::pin(self.spread_schema_change()).await;
        }
    }

    /// Has this router and the others load the schema that a committed statement changed.
    pub(super) async fn spread_schema_change(&self) {
        let control = &self.router.control;
        // At once: until the others have loaded it, they go by the old one.
        let (told, loaded) =
            tokio::join!(control.notify_schema_changed(), control.refresh_schema());
        if let Err(error) = told {
            tracing::warn!(%error, "other routers were not told of a changed schema");
        }
        if let Err(error) = loaded {
            tracing::warn!(%error, "the changed schema was not loaded");
        }
    }

    /// A shard for what any shard can answer: one that takes part already, else one that is up.
    pub(super) fn any_shard(&self) -> ShardId {
        let here = self
            .pipeline
            .shard
            .filter(|_| self.pipeline.unsynced)
            .or(self.transaction.preferred());
        here.unwrap_or_else(|| {
            let default = self.router.topology().default_shard;
            let health = self.router.control.health();
            let up = |shard: &ShardId| {
                health
                    .get(usize::from(shard.0))
                    .is_some_and(|health| health.reachable)
            };
            if up(&default) {
                default
            } else {
                self.router
                    .topology()
                    .readable()
                    .find(up)
                    .unwrap_or(default)
            }
        })
    }

    /// A shard that knows all that the text names: any, unless that is temporary.
    pub(super) fn shard_that_knows(&mut self, sql: &str) -> Result<ShardId, Stop> {
        if self.temporary.relations.is_empty() {
            return Ok(self.any_shard());
        }
        let topology = self.topology();
        let search_path = self.search_path()?;
        let limits = self.lex_limits();
        let context = Context {
            topology: &topology,
            search_path: &search_path,
            hint: None,
            limits: &limits,
        };
        let tokens = lex::lex(sql, &limits)?;
        Ok(match planner::mentioned_temporary(sql, &tokens, &context) {
            Some(_) => topology.default_shard,
            None => self.any_shard(),
        })
    }

    /// Passes NOTICEs on, and notifications at ReadyForQuery; notes parameters that changed.
    pub(super) fn pass_asides(&mut self, asides: &[Frame]) {
        for frame in asides {
            if frame.tag() == b'N' {
                self.client.out().extend_from_slice(frame.bytes());
            } else if frame.tag() == b'A' {
                self.notifications.extend_from_slice(frame.bytes());
            } else if let Ok((name, value)) = backend_message::read_parameter_status(frame.body()) {
                self.note_parameter(name, value);
            }
        }
    }

    /// Notes what a shard reports of a parameter; the client is told at ReadyForQuery if it is news.
    fn note_parameter(&mut self, name: &str, value: &str) {
        if name == SERVER_VERSION {
            return;
        }
        let told = self.unreported.get(name).or(self.reported.get(name));
        if told.is_none_or(|told| **told != *value) {
            self.unreported.insert(name.into(), value.into());
        }
    }

    /// Notes parameters that changed on a backend that the client used; it is told at ReadyForQuery.
    pub(super) fn report_parameters(&mut self, shard: ShardId) {
        let Some(backend) = self.transaction.backend(shard) else {
            return;
        };
        if !backend.take_parameters_changed() {
            return;
        }
        self.report_all_parameters(shard);
    }

    pub(super) fn report_all_parameters(&mut self, shard: ShardId) {
        let Some(backend) = self.transaction.backend(shard) else {
            return;
        };
        let parameters = backend.parameters.clone();
        for (name, value) in &parameters {
            self.note_parameter(name, value);
        }
    }

    /// Closes a shard's connection after its state became unknown.
    pub(super) fn lose(&mut self, shard: ShardId) {
        self.transaction.drop_participant(shard);
        self.reports_are_stale = true;
        if self.pipeline.shard == Some(shard) {
            self.pipeline.shard = None;
            self.pipeline.unsynced = false;
            self.forget_unanswered();
        }
    }

    pub(super) fn lex_limits(&self) -> LexLimits {
        let limits = &self.router.config.limits;
        LexLimits {
            tokens_max: limits.statement_tokens,
            depth_max: limits.statement_depth,
        }
    }

    /// Where unqualified names are looked up now.
    pub(super) fn search_path(&mut self) -> Result<Arc<[Arc<str>]>, Stop> {
        let settings = self.parameters.in_force();
        if let Some((known, path)) = &self.search_path
            && Arc::ptr_eq(known, settings)
        {
            return Ok(path.clone());
        }
        let setting = settings.get("search_path");
        let setting = setting.map_or("", |setting| &**setting);
        let names = search_path::parse(setting, &self.pools.login().user)?;
        let path = match self.search_path.take() {
            // The same path stays the same list, by which statements are known.
            Some((_, path)) if *path == *names => path,
            _ => names.into(),
        };
        self.search_path = Some((settings.clone(), path.clone()));
        Ok(path)
    }

    /// The hint that the session set, if any.
    pub(super) fn hint(&self, sql: &str) -> Result<Option<Hint>, Stop> {
        let topology = self.router.topology();
        if let Some(comment) = crate::sql::lex::leading_hint(sql) {
            return Hint::parse(comment, &topology)
                .map(Some)
                .map_err(Stop::from);
        }
        if let Some(name) = self.parameters.router_setting("pgring.shard") {
            return Ok(topology.shard_named(name).map(Hint::Shard));
        }
        let key = self.parameters.router_setting("pgring.key");
        Ok(key.map(|value| Hint::Key {
            table: None,
            value: value.to_string(),
        }))
    }

    /// What tells a statement from others of the same text.
    pub(super) fn template_key(
        &mut self,
        sql: &Arc<str>,
        parameter_types: &Arc<[u32]>,
        topology: &Topology,
    ) -> Result<TemplateKey, Stop> {
        Ok(TemplateKey {
            sql: sql.clone(),
            parameter_types: parameter_types.clone(),
            search_path: self.search_path()?,
            schema_version: topology.schema.version,
        })
    }

    /// The template of one statement, from the cache where there is no hint.
    pub(super) fn template(
        &mut self,
        sql: &Arc<str>,
        parameter_types: &Arc<[u32]>,
    ) -> Result<Arc<Template>, Stop> {
        let hint = self.hint(sql)?;
        self.template_by(hint.as_ref(), sql, parameter_types)
    }

    /// The template of a query whose rows one server keeps between two requests.
    pub(super) fn template_on_one(
        &mut self,
        sql: &str,
        parameter_types: &[u32],
    ) -> Result<Template, Stop> {
        let topology = self.topology();
        let search_path = self.search_path()?;
        let hint = self.hint(sql)?;
        let context = Context {
            topology: &topology,
            search_path: &search_path,
            hint: hint.as_ref(),
            limits: &self.lex_limits(),
        };
        Ok(crate::planner::template_on_one(
            sql,
            parameter_types,
            &context,
        )?)
    }

    /// [`Self::template`] of a statement that runs by a hint from elsewhere than its own text.
    pub(super) fn template_by(
        &mut self,
        hint: Option<&Hint>,
        sql: &Arc<str>,
        parameter_types: &Arc<[u32]>,
    ) -> Result<Arc<Template>, Stop> {
        let topology = self.topology();
        let key = self.template_key(sql, parameter_types, &topology)?;
        let limits = self.lex_limits();
        let build = |hint: Option<&Hint>| {
            let context = Context {
                topology: &topology,
                search_path: &key.search_path,
                hint,
                limits: &limits,
            };
            crate::planner::template(sql, parameter_types, &context).map(Arc::new)
        };
        if hint.is_some() {
            return build(hint).map_err(Stop::from);
        }
        let template: Result<_, PlanError> = if self.own_schema.is_unchanged() {
            let templates = &self.router.templates;
            templates.get_or_insert_with(&key, || build(None))
        } else {
            build(None)
        };
        let template = template?;
        match template.unknown_function() {
            Some(function) if self.schema_changed && !self.own_schema.is_loaded() => {
                Err(PlanError::refused(
                    Refusal::UnknownFunction,
                    format!("{function} may be what this transaction has made"),
                )
                .into())
            }
            _ => Ok(template),
        }
    }
}

/// Whether PostgreSQL may have another word for why the statement is none.
fn may_be_postgresqls(error: &dyn ErrorReply) -> bool {
    let refusals = [Refusal::Unparsed, Refusal::UnloadedTable];
    let mut codes = refusals.iter().map(|refusal| refusal.code());
    error
        .refusal()
        .is_some_and(|code| codes.any(|other| other == code))
}

impl Session {
    /// [`Self::template`], but where the router's parser gives up or a declared table is not there, PostgreSQL is asked
    /// whether the statement is one at all: an error is then its own, at its own place.
    pub(super) async fn planned(
        &mut self,
        sql: &Arc<str>,
        parameter_types: &Arc<[u32]>,
        position_offset: i64,
    ) -> Result<Arc<Template>, Stop> {
        let mut planned = self.template(sql, parameter_types);
        let unknown = match &planned {
            Ok(template) => template.has_unknown_name(),
            Err(stop) => {
                stop.is_refusal(Refusal::UnloadedTable) || stop.is_refusal(Refusal::UnknownFunction)
            }
        };
        if unknown && Box::pin(self.look_again()).await {
            planned = self.template(sql, parameter_types);
        }
        let refused = match planned {
            Err(Stop::Error(error)) if may_be_postgresqls(error.as_ref()) => error,
            planned => return planned,
        };
        if self.pipeline.unsynced {
            return Err(Stop::Error(refused));
        }
        let shard = self.shard_that_knows(sql)?;
        let backend = self.join(shard).await?;
        frontend_message::write_parse(backend.stream.out(), "", sql, parameter_types);
        frontend_message::write_sync(backend.stream.out());
        backend.forget_unnamed();
        match Box::pin(command::answer(backend)).await {
            Err(CommandError::Refused(frame)) => Err(Stop::Shard(frame).shifted(position_offset)),
            Err(error) => {
                self.lose(shard);
                Err(error::of_command(error))
            }
            Ok(_) => Err(Stop::Error(refused)),
        }
    }
}

impl Session {
    /// Loads the schema if it may have changed: another router, or this one's other sessions, may have made a table a
    /// moment ago. Whether a second look is worth while.
    pub(super) async fn look_again(&mut self) -> bool {
        let before = self.router.topology().schema.version;
        // What this session's own block made is seen by its own backends only before it commits.
        if self.schema_changed {
            return self.load_own_schema().await;
        }
        match self.router.control.refresh_schema().await {
            Ok(()) => self.router.topology().schema.version != before,
            Err(error) => {
                tracing::warn!(%error, "the schema was not looked at again");
                false
            }
        }
    }
}

/// What ends a session's waiting.
enum Woken {
    /// The client sent something, or left.
    Client(Result<(), StreamError>),
    /// A backend that the session keeps said something, or is gone.
    Shard(ShardId, Result<usize, StreamError>),
    /// The router stops.
    Stopping,
    /// A shard closes its connection since its block was idle for too long, as it says here.
    TimedOut(Frame),
}

/// The farewell of a shard whose `idle_in_transaction_session_timeout` ran out, if it has come.
fn timed_out(backend: &mut Backend, context: &mut TaskContext<'_>) -> Option<Frame> {
    let stream = &mut backend.stream;
    if !stream.input().is_empty() || !stream.poll_readable(context) {
        return None;
    }
    let Poll::Ready(Ok(_)) = stream.poll_fill(context) else {
        return None;
    };
    let Ok(Head::Frame(b'E', bytes)) = stream.head(|_| false) else {
        return None;
    };
    let frame = stream.input().get(5..bytes)?;
    error_response::is_idle_timeout(frame).then(|| Frame::new(stream.take(bytes).freeze()))
}

/// Registers a session's cancel key and forgets it when dropped.
pub struct Registered {
    /// The key's process id.
    pub pid: u32,
    /// All keys.
    pub cancels: Arc<Cancels>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancels.forget(self.pid);
    }
}

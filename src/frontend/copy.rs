//! COPY through the router: rows from the client go each to the shard of their key, rows to the client follow each
//! other shard by shard.

use super::control::refused;
use super::copy_added::Adder;
use super::error::{self, Stop};
use super::held::Held;
use super::session::Session;
use super::several::Request;
use super::simple_query::text_of;
use crate::executor::copy_in::{self, CopyInError};
use crate::executor::copy_out::{self, Framing};
use crate::executor::fan_out::Show;
use crate::planner::plan::{Access, Plan};
use crate::planner::{self, CopyAdded, CopyRoute, CopySplit, CopyTimes, PlanError, Refusal};
use crate::sql::copy::{
    CopyDirection, CopyFormat, CopyHeader, CopySource, CopyStatement, CopyTarget,
};
use crate::sql::copy_line::CopyLines;
use crate::sql::copy_rows::{CopyKey, CopyPiece, CopyRow, CopyRows};
use crate::sql::lex;
use crate::sql::statement::{self, Statement};
use crate::topology::ShardId;
use crate::topology::snapshot::Topology;
use crate::transaction::state::Phase;
use crate::wire::frame::Format;
use crate::wire::frontend_message::{self, FrontendMessage};
use crate::wire::stream::Head;
use std::sync::Arc;

/// Refusals of a COPY that are about columns which it leaves out.
const LEFT_OUT: [Refusal; 4] = [
    Refusal::DefaultDiffers,
    Refusal::ReferenceWriteDiffers,
    Refusal::SequenceDefault,
    Refusal::CopyWithoutKey,
];

/// A COPY from the client as far as it has come.
struct Intake<'a> {
    sql: &'a str,
    /// The shards where the COPY has been started.
    started: Vec<ShardId>,
    /// What every shard gets first.
    header: Vec<u8>,
}

/// Looks for texts that each shard would read by its own clock.
struct Timeless<'a> {
    times: &'a CopyTimes,
    /// Its columns; none where the format is binary.
    keys: Vec<(CopyKey, &'a str)>,
    quote: u8,
}

impl<'a> Timeless<'a> {
    fn new(copy: &CopyStatement<'_>, times: &'a CopyTimes) -> Self {
        let options = &copy.options;
        let columns = match options.format {
            CopyFormat::Binary => &[],
            CopyFormat::Text | CopyFormat::Csv => times.columns.as_slice(),
        };
        let key =
            |(place, name): &'a (usize, Arc<str>)| (CopyKey::new(options, *place, name), &**name);
        Self {
            times,
            keys: columns.iter().map(key).collect(),
            quote: match options.format {
                CopyFormat::Csv => options.quote,
                CopyFormat::Text | CopyFormat::Binary => b'\\',
            },
        }
    }

    fn check(&self, row: CopyRow<'_>) -> Result<(), PlanError> {
        if self.keys.is_empty() || self.times.is_passed(row.bytes, self.quote) {
            return Ok(());
        }
        for (key, name) in &self.keys {
            // A row that lacks the column is PostgreSQL's to refuse.
            if let Ok(Some(value)) = key.value(row) {
                CopyTimes::check(name, &value)?;
            }
        }
        Ok(())
    }
}

impl Session {
    /// COPY.
    pub(super) async fn copy(&mut self, copy: &CopyStatement<'_>, sql: &str) -> Result<(), Stop> {
        match (&copy.target, copy.direction) {
            (CopyTarget::File(_) | CopyTarget::Program(_), _) => Err(refused(
                "COPY with a file or program on the server",
                "copy-server-file",
                "each shard has files of its own",
                "Use COPY with STDIN or STDOUT (\\copy in psql).",
            )),
            (CopyTarget::Client, CopyDirection::From) => self.copy_from(copy, sql).await,
            (CopyTarget::Client, CopyDirection::To) => self.copy_to(copy, sql).await,
        }
    }

    async fn copy_to(&mut self, copy: &CopyStatement<'_>, sql: &str) -> Result<(), Stop> {
        let topology = self.topology();
        let copied = {
            let (search_path, limits, hint) =
                (self.search_path()?, self.lex_limits(), self.hint(sql)?);
            let context = planner::Context {
                topology: &topology,
                search_path: &search_path,
                hint: hint.as_ref(),
                limits: &limits,
            };
            let (preferred, spread) = (self.transaction.preferred(), self.router.next_spread());
            self.plan_against(&topology, |topology| {
                let context = planner::Context {
                    topology,
                    ..context
                };
                planner::copy_to(copy, sql, &context, preferred, spread)
            })?
        };
        let framing = match (copy.options.format, copy.options.header) {
            (CopyFormat::Binary, _) => Framing::Binary,
            (CopyFormat::Text | CopyFormat::Csv, CopyHeader::Off) => Framing::Plain,
            (CopyFormat::Text | CopyFormat::Csv, CopyHeader::On | CopyHeader::Match) => {
                Framing::HeaderLine
            }
        };
        let plan = &copied.plan;
        let crosses = plan.steps.len() > 1 || !plan.inputs.is_empty();
        Box::pin(self.open_snapshot(Access::Read, crosses)).await?;
        if let (Some(shape), CopySource::Query(body)) = (&copied.shape, &copy.source) {
            return Box::pin(self.copy_rows(copy, body.text, shape, plan, framing)).await;
        }
        for step in &plan.steps {
            self.join(step.shard).await?;
            self.transaction.mark_used(step.shard);
        }
        let mut backends = Vec::with_capacity(plan.steps.len());
        for backend in self.transaction.backends() {
            if let Some(step) = plan.steps.iter().find(|step| step.shard == backend.shard) {
                frontend_message::write_query(backend.stream.out(), text_of(step, sql));
                backend.forget_unnamed();
                backends.push(backend);
            }
        }
        match copy_out::copy_out(backends, framing, &mut self.client).await {
            Ok((rows, _)) => {
                self.complete(&format!("COPY {rows}"));
                Ok(())
            }
            Err(error) => {
                self.lose_broken();
                Err(error::of_execute(error))
            }
        }
    }

    /// COPY … TO of a query whose rows are merged: one shard says how the output begins, and what is wrong with the
    /// statement; then the rows follow as the query gives them.
    async fn copy_rows(
        &mut self,
        copy: &CopyStatement<'_>,
        query: &str,
        shape: &str,
        plan: &Plan,
        framing: Framing,
    ) -> Result<(), Stop> {
        let (Some(step), Some(lines)) = (plan.steps.first(), CopyLines::new(&copy.options)) else {
            return Err(Stop::Gone);
        };
        let backend = self.join(step.shard).await?;
        backend.forget_unnamed();
        frontend_message::write_query(backend.stream.out(), shape);
        self.transaction.mark_used(step.shard);
        let Some(backend) = self.transaction.backend(step.shard) else {
            return Err(Stop::Gone);
        };
        if let Err(error) = copy_out::begin(backend, framing, &mut self.client).await {
            return Err(self.after_several(&[step.shard], error));
        }
        let results = match lines.is_binary() {
            true => &[Format::Binary][..],
            false => &[],
        };
        let request = Request {
            sql: query,
            results,
            ..Request::default()
        };
        let show = Show {
            description: false,
            rows_max: None,
            copy: Some(&lines),
        };
        let done = self.run_bound(plan, &request, "", show).await?;
        copy_out::end(framing, &mut self.client);
        let rows = done.tag.rsplit(' ').next().unwrap_or_default();
        self.complete(&format!("COPY {rows}"));
        Ok(())
    }

    fn copy_route(
        &mut self,
        copy: &CopyStatement<'_>,
        sql: &str,
    ) -> Result<(Arc<Topology>, CopyRoute), Stop> {
        let topology = self.topology();
        let (search_path, limits, hint) = (self.search_path()?, self.lex_limits(), self.hint(sql)?);
        let context = planner::Context {
            topology: &topology,
            search_path: &search_path,
            hint: hint.as_ref(),
            limits: &limits,
        };
        let (seen, route) = self.plan_against(&topology, |topology| {
            let context = planner::Context {
                topology,
                ..context
            };
            let route = planner::copy_from(copy, sql, &context)?;
            Ok((Arc::new(topology.clone()), route))
        })?;
        Ok((seen, route))
    }

    async fn copy_from(&mut self, copy: &CopyStatement<'_>, sql: &str) -> Result<(), Stop> {
        let mut routed = self.copy_route(copy, sql);
        let unloaded = |stop: &Stop| stop.is_refusal(Refusal::UnloadedTable);
        if routed.as_ref().is_err_and(unloaded) && self.look_again().await {
            routed = self.copy_route(copy, sql);
        }
        let by_default = |stop: &Stop| LEFT_OUT.iter().any(|refusal| stop.is_refusal(*refusal));
        if routed.as_ref().is_err_and(by_default)
            && let Some(added) = self.copy_added(copy, sql)?
        {
            let tokens = lex::lex(&added.sql, &self.lex_limits()).unwrap_or_default();
            if let Ok(Statement::Copy(copy)) = statement::classify(&added.sql, &tokens) {
                // What is left of the refusal is one of this text.
                routed = self.copy_route(&copy, &added.sql).or(routed);
                return self
                    .copy_routed(&copy, &added.sql, routed?, Some(&added))
                    .await;
            }
        }
        self.copy_routed(copy, sql, routed?, None).await
    }

    async fn copy_routed(
        &mut self,
        copy: &CopyStatement<'_>,
        sql: &str,
        routed: (Arc<Topology>, CopyRoute),
        added: Option<&CopyAdded>,
    ) -> Result<(), Stop> {
        let (topology, route) = routed;
        let first = match &route {
            CopyRoute::One(shard) => *shard,
            CopyRoute::AllShards(_) | CopyRoute::Split(_) => self
                .transaction
                .preferred()
                .unwrap_or(topology.default_shard),
        };
        // In a pipeline Sync ends the block.
        let in_pipeline = self.pipeline.executed;
        let own = self.transaction.block.phase() == Phase::Idle
            && (in_pipeline || !matches!(route, CopyRoute::One(_)));
        if own {
            self.begin_implicit().await?;
        }
        let mut intake = Intake {
            sql,
            started: Vec::new(),
            header: Vec::new(),
        };
        Box::pin(self.open_snapshot(Access::Write, false)).await?;
        if !matches!(route, CopyRoute::One(_)) {
            self.join(first).await?;
            let (transaction, tenant) = self.transaction();
            let marked = transaction.mark_for_more(tenant).await;
            self.note_in_use();
            marked.map_err(error::of_command)?;
        }
        let mut adder = match added {
            None => None,
            Some(added) => Some(Box::pin(self.adder(copy, added, first)).await?),
        };
        // The first shard says whether the COPY is one, before the client sends anything.
        let mut response = self.start_copy(first, &mut intake).await?;
        if let Some(adder) = &adder {
            response = adder.response(&response).ok_or(Stop::Gone)?;
        }
        if matches!(route, CopyRoute::AllShards(_)) {
            for shard in topology.shard_ids().filter(|shard| *shard != first) {
                self.start_copy(shard, &mut intake).await?;
            }
        }
        self.client.out().extend_from_slice(response.bytes());
        self.client.flush().await.map_err(error::of_client)?;

        let taken = match &route {
            CopyRoute::Split(split) => {
                self.take_rows(copy, split, topology, &mut intake, &mut adder)
                    .await
            }
            CopyRoute::AllShards(times) => {
                self.take_all(copy, times, &mut intake, &mut adder).await
            }
            CopyRoute::One(_) => {
                self.take_all(copy, &CopyTimes::default(), &mut intake, &mut None)
                    .await
            }
        };
        let rows = match taken {
            Ok(()) => self.finish_copies(&intake).await,
            Err(Stop::Gone) => return Err(Stop::Gone),
            Err(stop) => {
                // The client's data does not come again.
                let stop = stop.settled();
                self.abort_copies(&intake, "another shard or the router refused the data")
                    .await;
                Err(stop)
            }
        }?;
        let rows = if matches!(route, CopyRoute::AllShards(_)) {
            rows.first().copied().unwrap_or(0)
        } else {
            rows.iter().sum()
        };
        self.note_schema_change(Access::Write);
        if own && !in_pipeline {
            self.commit().await?;
        }
        self.complete(&format!("COPY {rows}"));
        Ok(())
    }

    async fn start_copy(
        &mut self,
        shard: ShardId,
        intake: &mut Intake<'_>,
    ) -> Result<crate::wire::frame::Frame, Stop> {
        self.join(shard).await?;
        self.transaction.mark_used(shard);
        let backend = self.transaction.backend(shard).ok_or(Stop::Gone)?;
        match copy_in::start(backend, intake.sql).await {
            Ok(response) => {
                if !intake.header.is_empty() {
                    frontend_message::write_copy_data(backend.stream.out(), &intake.header);
                }
                intake.started.push(shard);
                Ok(response)
            }
            Err(error) => Err(self.copy_failed(shard, intake, error)),
        }
    }

    /// What a shard's failure in a COPY means for the session; the shard is out of the COPY.
    fn copy_failed(
        &mut self,
        shard: ShardId,
        intake: &mut Intake<'_>,
        error: crate::executor::ExecuteError,
    ) -> Stop {
        intake.started.retain(|started| *started != shard);
        if !matches!(error, crate::executor::ExecuteError::Shard(_)) {
            self.lose(shard);
        }
        error::of_execute(error)
    }

    /// Hands each of the client's rows to the shard of its key.
    async fn take_rows(
        &mut self,
        copy: &CopyStatement<'_>,
        split: &CopySplit,
        mut topology: Arc<Topology>,
        intake: &mut Intake<'_>,
        adder: &mut Option<Adder>,
    ) -> Result<(), Stop> {
        let mut rows = CopyRows::new(&copy.options, self.router.config.limits.copy_buffer_bytes);
        let key = CopyKey::new(&copy.options, split.column, &split.name);
        let binary = copy.options.format == CopyFormat::Binary;
        let timeless = Timeless::new(copy, &split.times);
        loop {
            let more = self.next_copy_data(intake, |data| rows.push(data)).await?;
            if !more {
                rows.finish();
            }
            while let Some(piece) = rows.read().map_err(CopyInError::from)? {
                match piece {
                    CopyPiece::Header(bytes) => {
                        intake.header = match adder {
                            Some(adder) => adder.header(bytes),
                            None => bytes.to_vec(),
                        };
                        self.write_to_all(intake, &intake.header);
                    }
                    CopyPiece::Trailer(bytes) => self.write_to_all(intake, bytes),
                    CopyPiece::Row(row) => {
                        timeless.check(row)?;
                        let longer;
                        let row = match adder {
                            None => row,
                            Some(adder) => {
                                longer = adder.add(self, row).await?;
                                CopyRow::new(&longer.0, longer.1)
                            }
                        };
                        let value = key.value(row).map_err(CopyInError::from)?;
                        let value = value.as_deref();
                        let shard = self.place_row(value, split, binary, &mut topology, intake);
                        let shard = shard.await?;
                        let Some(backend) = self.transaction.backend(shard) else {
                            return Err(Stop::Gone);
                        };
                        frontend_message::write_copy_data(backend.stream.out(), row.bytes);
                        self.push_copy(shard, intake).await?;
                    }
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// The shard of a row with this key, where the COPY has begun. Rows may have moved since it began elsewhere.
    async fn place_row(
        &mut self,
        value: Option<&[u8]>,
        split: &CopySplit,
        binary: bool,
        topology: &mut Arc<Topology>,
        intake: &mut Intake<'_>,
    ) -> Result<ShardId, Stop> {
        let placed = split.shard(value, binary, topology);
        let mut started = match placed.map_err(|error| Stop::of_plan(error, topology)) {
            Ok(shard) if intake.started.contains(&shard) => return Ok(shard),
            Ok(shard) => self.start_copy(shard, intake).await.map(|_| shard),
            Err(stop) => Err(stop),
        };
        let mut held = Held::default();
        while let Err(Stop::Later(later)) = started {
            Box::pin(self.wait_for_topology(&mut held, later)).await?;
            let now = self.topology();
            let placed = self.plan_against(&now, |topology| {
                let shard = split.shard(value, binary, topology)?;
                Ok((shard, Arc::new(topology.clone())))
            });
            started = match placed {
                Ok((shard, seen)) => {
                    *topology = seen;
                    match intake.started.contains(&shard) {
                        true => Ok(shard),
                        false => self.start_copy(shard, intake).await.map(|_| shard),
                    }
                }
                Err(stop) => Err(stop),
            };
        }
        started
    }

    /// Hands all of the client's data to every shard of the COPY.
    async fn take_all(
        &mut self,
        copy: &CopyStatement<'_>,
        times: &CopyTimes,
        intake: &mut Intake<'_>,
        adder: &mut Option<Adder>,
    ) -> Result<(), Stop> {
        let timeless = Timeless::new(copy, times);
        let mut rows = CopyRows::new(&copy.options, self.router.config.limits.copy_buffer_bytes);
        loop {
            let mut data = Vec::new();
            let more = self
                .next_copy_data(intake, |chunk| data.extend_from_slice(chunk))
                .await?;
            if !timeless.keys.is_empty() || adder.is_some() {
                // A row's last bytes pass once the row has been looked at.
                rows.push(&data);
                if !more {
                    rows.finish();
                }
                while let Some(piece) = rows.read().map_err(CopyInError::from)? {
                    if let CopyPiece::Row(row) = piece {
                        timeless.check(row)?;
                    }
                    let Some(adder) = adder else { continue };
                    match piece {
                        CopyPiece::Header(bytes) => self.write_to_all(intake, &adder.header(bytes)),
                        CopyPiece::Trailer(bytes) => self.write_to_all(intake, bytes),
                        CopyPiece::Row(row) => {
                            let (row, _) = adder.add(self, row).await?;
                            self.write_to_all(intake, &row);
                        }
                    }
                }
            }
            if !more {
                return Ok(());
            }
            if adder.is_none() {
                self.write_to_all(intake, &data);
            }
            for shard in intake.started.clone() {
                self.push_copy(shard, intake).await?;
            }
        }
    }

    fn write_to_all(&mut self, intake: &Intake<'_>, data: &[u8]) {
        for shard in &intake.started {
            if let Some(backend) = self.transaction.backend(*shard) {
                frontend_message::write_copy_data(backend.stream.out(), data);
            }
        }
    }

    async fn push_copy(&mut self, shard: ShardId, intake: &mut Intake<'_>) -> Result<(), Stop> {
        let Some(backend) = self.transaction.backend(shard) else {
            return Err(Stop::Gone);
        };
        match copy_in::push(backend, &mut self.client).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.copy_failed(shard, intake, error)),
        }
    }

    /// Gives the client's next data to `take`; false once the client is done. A client that gives up makes the shards
    /// give up, in PostgreSQL's words.
    async fn next_copy_data(
        &mut self,
        intake: &mut Intake<'_>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool, Stop> {
        loop {
            let (tag, bytes) = match self.client.head(|_| false) {
                Ok(Head::Frame(tag, bytes)) => (tag, bytes),
                Ok(Head::Pass(_) | Head::Incomplete) => {
                    self.client.fill().await.map_err(error::of_client)?;
                    continue;
                }
                Err(error) => return Err(error::of_client(error)),
            };
            match tag {
                b'd' => {
                    take(&self.client.input()[crate::wire::frame::HEADER_BYTES..bytes]);
                    self.client.consume(bytes);
                    return Ok(true);
                }
                b'c' => {
                    self.client.consume(bytes);
                    return Ok(false);
                }
                b'f' => {
                    let frame = self.client.take(bytes).freeze();
                    let body = &frame[crate::wire::frame::HEADER_BYTES..];
                    let message = match FrontendMessage::decode(tag, body) {
                        Ok(FrontendMessage::CopyFail { message }) => message.to_owned(),
                        _ => String::new(),
                    };
                    let words = self.abort_copies(intake, &message).await;
                    intake.started.clear();
                    return Err(words.unwrap_or(Stop::Gone));
                }
                // PostgreSQL lets these pass unanswered here.
                b'H' | b'S' => self.client.consume(bytes),
                tag => return Err(CopyInError::UnexpectedMessage(tag).into()),
            }
        }
    }

    /// Ends the COPY on every shard; how many rows each took.
    async fn finish_copies(&mut self, intake: &Intake<'_>) -> Result<Vec<u64>, Stop> {
        let mut rows = Vec::with_capacity(intake.started.len());
        let mut failure = None;
        for shard in &intake.started {
            let Some(backend) = self.transaction.backend(*shard) else {
                return Err(Stop::Gone);
            };
            if failure.is_some() {
                let _ = copy_in::abort(backend, "another shard refused the data").await;
                continue;
            }
            match copy_in::finish(backend).await {
                Ok((taken, _, notices)) => {
                    rows.push(taken);
                    self.pass_asides(&notices);
                }
                Err(error) => {
                    if !matches!(error, crate::executor::ExecuteError::Shard(_)) {
                        self.lose(*shard);
                    }
                    failure = Some(error::of_execute(error));
                }
            }
        }
        failure.map_or(Ok(rows), Err)
    }

    /// Breaks the COPY off on every shard; the first one's words.
    async fn abort_copies(&mut self, intake: &Intake<'_>, message: &str) -> Option<Stop> {
        let mut words = None;
        for shard in &intake.started {
            let Some(backend) = self.transaction.backend(*shard) else {
                continue;
            };
            let error = copy_in::abort(backend, message).await;
            if !matches!(error, crate::executor::ExecuteError::Shard(_)) {
                self.lose(*shard);
            }
            words = words.or(Some(error::of_execute(error)));
        }
        words
    }

    /// Lets go of connections on which something went wrong.
    pub(super) fn lose_broken(&mut self) {
        for shard in self.transaction.shards().collect::<Vec<_>>() {
            if self
                .transaction
                .backend(shard)
                .is_some_and(|backend| backend.is_broken())
            {
                self.lose(shard);
            }
        }
    }
}

//! Stores the rows of a query where they belong: see the plan's [`Store`]. All of it is one transaction; rows are held
//! once they are there, up to `limits.merge_bytes`.

use super::error::{self, Stop};
use super::session::Session;
use super::several::{Request, write_step};
use crate::backend::sequence::SequenceColumn;
use crate::executor::fan_out::{self, FannedOut, Show, Start};
use crate::executor::gather::{self, Gathered, Held, Source};
use crate::executor::merge::MergeError;
use crate::planner::plan::{Merge, Plan, RowValue, Step, StepArguments, StepSql, Store, Transport};
use crate::planner::{self, Binding, PlanError, Refusal, Template};
use crate::topology::ShardId;
use crate::transaction::state::Phase;
use crate::wire::backend_message::{self, DataRow};
use crate::wire::frame::{Format, Frame, HEADER_BYTES};
use crate::wire::frontend_message::{self, Target};
use bytes::{BufMut, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How many values of a sequence are drawn at once.
const DRAW_MOST: usize = 10_000;

/// The query's columns.
struct Carried {
    oids: Vec<u32>,
    transports: Vec<Transport>,
    names: Vec<&'static str>,
}

impl Carried {
    /// The columns that are not the query's.
    fn add(&mut self, store: &Store) {
        for value in &*store.added {
            let (oid, name) = match value {
                RowValue::Sequence { .. } => (20, "bigint"),
                RowValue::Uuid => (2950, "uuid"),
            };
            self.oids.push(oid);
            self.transports.push(Transport::Binary { oid });
            self.names.push(name);
        }
    }
}

/// Rows on their way to shards.
struct Placed {
    by_shard: BTreeMap<ShardId, Gathered>,
    /// Each row's shard, in the order of the query's rows; none where all shards store all rows.
    turns: Vec<ShardId>,
}

impl Session {
    /// [`Self::store`] without parameters, in a transaction of its own if there is none.
    pub(super) async fn run_store(&mut self, plan: &Plan, sql: &str) -> Result<(), Stop> {
        let own = self.transaction.block.phase() == Phase::Idle;
        if own {
            self.begin_implicit().await?;
        }
        let request = Request {
            sql,
            ..Request::default()
        };
        let show = Show {
            description: true,
            rows_max: None,
            copy: None,
        };
        let done = self.run_bound(plan, &request, "", show).await?;
        if own {
            self.commit().await?;
        }
        backend_message::write_command_complete(self.client.out(), &done.tag);
        Ok(())
    }

    /// Runs the query of an INSERT and stores its rows. In a block.
    pub(super) async fn store(
        &mut self,
        plan: &Plan,
        store: &Store,
        request: &Request<'_>,
        show: Show<'_>,
    ) -> Result<FannedOut, Stop> {
        let router = self.router.clone();
        let mut held = router.merge_budget.statement();
        let (arrays, from) = if plan.inputs.is_empty() {
            let shards = plan.steps.iter().map(|step| step.shard);
            (Vec::new(), shards.collect::<Vec<_>>())
        } else {
            let inputs = self.inputs(plan, request, "", false, &mut held).await?;
            (inputs.2, inputs.1)
        };
        let mut carried = self.carried(plan, request, store).await?;
        let rows = self.collect(plan, request, &arrays, &carried, &from, &mut held);
        let mut rows = rows.await?;
        drop(arrays);
        if !store.added.is_empty() {
            rows = self.with_values(store, rows).await?;
            carried.add(store);
        }
        let placed = self.placed(store, &carried, rows, &mut held)?;
        self.store_placed(store, &carried, placed, request, show)
            .await
    }

    /// Asks a shard which columns the query has.
    async fn carried(
        &mut self,
        plan: &Plan,
        request: &Request<'_>,
        store: &Store,
    ) -> Result<Carried, Stop> {
        let Some(step) = plan.steps.first() else {
            return Err(Stop::Gone);
        };
        let backend = self.join(step.shard).await?;
        backend.forget_unnamed();
        let types = types_of(step, request);
        let out = backend.stream.out();
        let text = super::simple_query::text_of(step, request.sql);
        frontend_message::write_parse(out, "", text, &types);
        frontend_message::write_describe(out, Target::Statement, "");
        frontend_message::write_sync(out);
        self.transaction.mark_used(step.shard);
        let Some(backend) = self.transaction.backend(step.shard) else {
            return Err(Stop::Gone);
        };
        let source = Source {
            backend,
            describes: true,
            relations: VecDeque::new(),
        };
        let router = self.router.clone();
        let mut held = router.merge_budget.statement();
        let described = gather::gather(vec![source], &mut [], &mut held, &mut self.client).await;
        let description = described.map_err(|error| self.after_several(&[step.shard], error))?;
        let Some(description) = description else {
            return Err(error::of_execute(MergeError::Row.into()));
        };
        let columns = backend_message::read_row_description(description.body())
            .map_err(|_| error::of_execute(MergeError::Row.into()))?;
        let refused =
            |reason: String| Stop::from(PlanError::refused(Refusal::InsertSelect, reason));
        if columns.len() + store.added.len() != store.items.len() {
            return Err(refused(
                "its query has other columns than was thought".to_owned(),
            ));
        }
        let mut carried = Carried {
            oids: Vec::new(),
            transports: Vec::new(),
            names: Vec::new(),
        };
        for column in columns {
            let (transport, name) = planner::carried(column.type_oid).ok_or_else(|| {
                refused(format!(
                    "the type of column {} is another on each shard, or an array",
                    String::from_utf8_lossy(column.name)
                ))
            })?;
            carried.oids.push(column.type_oid);
            carried.transports.push(transport);
            carried.names.push(name);
        }
        Ok(carried)
    }

    /// Runs the query.
    async fn collect(
        &mut self,
        plan: &Plan,
        request: &Request<'_>,
        arrays: &[BytesMut],
        carried: &Carried,
        from: &[ShardId],
        held: &mut Held<'_>,
    ) -> Result<Vec<Frame>, Stop> {
        for step in &plan.steps {
            let backend = self.join(step.shard).await?;
            backend.forget_unnamed();
            self.transaction.mark_used(step.shard);
        }
        let formats: Vec<Format> = Gathered::value_formats(&carried.transports).collect();
        let mut sources = Vec::with_capacity(plan.steps.len());
        for backend in self.transaction.backends() {
            let mut steps = plan.steps.iter();
            let Some(step) = steps.find(|step| step.shard == backend.shard) else {
                continue;
            };
            let out = backend.stream.out();
            write_step(out, "", request, step, arrays, &formats);
            frontend_message::write_sync(out);
            sources.push(Source {
                backend,
                describes: false,
                relations: VecDeque::from([0]),
            });
        }
        let mut relations = [Gathered::whole()];
        let gathered = gather::gather(sources, &mut relations, held, &mut self.client).await;
        gathered.map_err(|error| self.after_several(from, error))?;
        let [rows] = relations;
        Ok(rows.into_rows())
    }

    /// The rows, each with values of its own behind those of the query.
    async fn with_values(&mut self, store: &Store, rows: Vec<Frame>) -> Result<Vec<Frame>, Stop> {
        let mut drawn = Vec::with_capacity(store.added.len());
        for value in &*store.added {
            drawn.push(match value {
                RowValue::Uuid => Vec::new(),
                RowValue::Sequence {
                    schema,
                    table,
                    column,
                } => {
                    let column = SequenceColumn {
                        schema: schema.clone(),
                        table: table.clone(),
                        column: column.clone(),
                    };
                    let mut numbers = Vec::with_capacity(rows.len());
                    while numbers.len() < rows.len() {
                        let count = (rows.len() - numbers.len()).min(DRAW_MOST);
                        numbers.extend(self.draw_for(column.clone(), count).await?);
                    }
                    numbers
                }
            });
        }
        let mut longer = Vec::with_capacity(rows.len());
        for (place, row) in rows.into_iter().enumerate() {
            let broken = || error::of_execute(MergeError::Row.into());
            let (count, fields) = row.body().split_first_chunk::<2>().ok_or_else(broken)?;
            let count = u16::from_be_bytes(*count);
            let mut body = BytesMut::with_capacity(row.body().len() + 20 * drawn.len());
            body.put_u16(count.checked_add(drawn.len() as u16).ok_or_else(broken)?);
            body.put_slice(fields);
            for numbers in &drawn {
                match numbers.get(place) {
                    Some(number) => {
                        body.put_i32(8);
                        body.put_i64(*number);
                    }
                    None => {
                        body.put_i32(16);
                        body.put_slice(&super::draw::uuid_bytes()?);
                    }
                }
            }
            let mut frame = BytesMut::with_capacity(body.len() + HEADER_BYTES);
            frame.put_u8(row.tag());
            frame.put_i32(body.len() as i32 + 4);
            frame.put_slice(&body);
            longer.push(Frame::new(frame.freeze()));
        }
        Ok(longer)
    }

    /// Places each row as one of VALUES.
    fn placed(
        &mut self,
        store: &Store,
        carried: &Carried,
        rows: Vec<Frame>,
        held: &mut Held<'_>,
    ) -> Result<Placed, Stop> {
        let broken = |_| error::of_execute(MergeError::Row.into());
        // A constant of the text is not of the type that it has in the rows.
        let oids = carried.oids.iter().zip(store.items.iter());
        let oids: Arc<[u32]> = oids
            .map(|(oid, item)| if item.is_none() { *oid } else { 0 })
            .collect();
        let template: Arc<Template> = self.template(&store.values().into(), &oids)?;
        let topology = self.topology();
        // They come as text, which is the same in binary.
        let formats = Gathered::value_formats(&carried.transports).zip(store.items.iter());
        let formats: Vec<i16> = formats
            .map(|(format, item)| match item {
                Some(_) => Format::Text.code() as i16,
                None => format.code() as i16,
            })
            .collect();
        let mut placed = Placed {
            by_shard: BTreeMap::new(),
            turns: Vec::with_capacity(rows.len()),
        };
        let mut everywhere = false;
        for row in rows {
            let values = DataRow::read(row.body()).map_err(broken)?;
            let values: Result<Vec<Option<&[u8]>>, _> = values.collect();
            let binding = Binding {
                values: &values.map_err(broken)?,
                formats: &formats,
                preferred: None,
                spread: 0,
                drawn: &[],
                cursor: None,
            };
            let plan =
                self.plan_against(&topology, |topology| template.plan(&binding, topology))?;
            everywhere |= plan.steps.len() > 1;
            for step in &plan.steps {
                let gathered = placed.by_shard.entry(step.shard);
                let gathered = gathered.or_insert_with(|| Gathered::new(&carried.transports));
                let bytes = gathered
                    .add(&row)
                    .map_err(|error| error::of_execute(error.into()))?;
                held.take(bytes)
                    .map_err(|error| error::of_execute(error.into()))?;
                placed.turns.push(step.shard);
            }
        }
        if everywhere {
            placed.turns.clear();
        }
        if placed.by_shard.is_empty() {
            // Without rows, what the INSERT says of itself is any shard's to say.
            let none = Gathered::new(&carried.transports);
            placed.by_shard.insert(topology.default_shard, none);
        }
        Ok(placed)
    }

    async fn store_placed(
        &mut self,
        store: &Store,
        carried: &Carried,
        placed: Placed,
        request: &Request<'_>,
        show: Show<'_>,
    ) -> Result<FannedOut, Stop> {
        let Placed { by_shard, turns } = placed;
        let sql: Arc<str> = store.from_arrays(&carried.names).into();
        let shards: Vec<ShardId> = by_shard.keys().copied().collect();
        let steps: Vec<Step> = shards
            .iter()
            .map(|shard| Step {
                shard: *shard,
                sql: StepSql::Rewritten(sql.clone()),
                arguments: StepArguments::Chosen(Arc::from([])),
            })
            .collect();
        for shard in &shards {
            let backend = self.join(*shard).await?;
            backend.forget_unnamed();
            self.transaction.mark_used(*shard);
        }
        let place = |shard: &ShardId| shards.iter().position(|other| other == shard);
        let merge = match (shards.len(), turns.is_empty()) {
            (1, _) => Merge::Relay,
            (_, true) => Merge::First(planner::alike(&steps, &self.router.topology())),
            (_, false) => {
                let turns = turns.iter().filter_map(place);
                Merge::InTurn(turns.map(|step| step as u16).collect())
            }
        };
        let mut by_shard = by_shard;
        let mut backends = Vec::with_capacity(steps.len());
        for backend in self.transaction.backends() {
            let Some(step) = steps.iter().find(|step| step.shard == backend.shard) else {
                continue;
            };
            let gathered = by_shard.remove(&step.shard);
            let arrays: Vec<BytesMut> = gathered.into_iter().flat_map(Gathered::arrays).collect();
            let out = backend.stream.out();
            write_step(out, "", request, step, &arrays, request.results);
            frontend_message::write_sync(out);
            backends.push(backend);
        }
        let start = match merge {
            // Copies that others write too are written in one order by all.
            Merge::First(_) => Start::InTurn,
            _ => Start::AtOnce,
        };
        let stored = fan_out::fan_out(backends, &merge, start, show, &mut self.client).await;
        match stored {
            Ok(done) => {
                self.after_steps(&steps, &done)?;
                Ok(done)
            }
            Err(error) => Err(self.after_several(&shards, error)),
        }
    }
}

/// The types that the client declared of a step's parameters.
fn types_of(step: &Step, request: &Request<'_>) -> Vec<u32> {
    match &step.arguments {
        StepArguments::AsSent => request.types.to_vec(),
        StepArguments::Chosen(chosen) => {
            let chosen = chosen.iter().map(|number| usize::from(*number));
            chosen
                .map(|number| request.types.get(number).copied().unwrap_or(0))
                .collect()
        }
    }
}

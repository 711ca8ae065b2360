//! Statements with their values bound, on several shards at once, or on one over rows that are gathered first.

use super::error::{self, Stop};
use super::session::Session;
use super::simple_query::text_of;
use crate::executor::fan_out::{self, FannedOut, Show, Start};
use crate::executor::gather::{self, Gathered, Held, Source};
use crate::executor::merge::MergeError;
use crate::planner::plan::{Input, Merge, Plan, Step, StepArguments};
use crate::topology::ShardId;
use crate::transaction::command::OWN_NAME;
use crate::wire::frame::Format;
use crate::wire::frontend_message::{self, Target};
use bytes::BytesMut;
use std::collections::VecDeque;

/// A statement as a client bound it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Request<'a> {
    /// Its text.
    pub sql: &'a str,
    /// The OIDs of Parse.
    pub types: &'a [u32],
    /// By parameter; `None` is NULL.
    pub values: &'a [Option<&'a [u8]>],
    /// Of the values: none (all text), one for all, or one each.
    pub formats: &'a [Format],
    /// Of the results, likewise.
    pub results: &'a [Format],
}

impl Request<'_> {
    pub(super) fn format_of(&self, parameter: usize) -> Format {
        let format = match self.formats {
            [one] => Some(one),
            each => each.get(parameter),
        };
        format.copied().unwrap_or(Format::Text)
    }
}

impl Session {
    /// Runs a plan with values bound; rows go to the client, the command tag to the caller. `portal` is free on all
    /// backends.
    pub(super) async fn run_bound(
        &mut self,
        plan: &Plan,
        request: &Request<'_>,
        portal: &str,
        show: Show<'_>,
    ) -> Result<FannedOut, Stop> {
        if let Merge::Store(store) = &plan.merge {
            return Box::pin(self.store(plan, store, request, show)).await;
        }
        if !plan.inputs.is_empty() {
            return self.gather(plan, request, portal, show).await;
        }
        self.before_move(plan).await?;
        let done = self
            .fan_out(plan, show, |out, step| {
                write_step(out, portal, request, step, &[], request.results);
                frontend_message::write_sync(out);
            })
            .await
            .map_err(|stop| stop.in_text_of(plan, request.sql))?;
        self.move_rows(plan, request, &done).await?;
        Ok(done)
    }

    /// Runs a plan with inputs. Its rows are described as the client's own text describes them: as columns of tables.
    async fn gather(
        &mut self,
        plan: &Plan,
        request: &Request<'_>,
        portal: &str,
        show: Show<'_>,
    ) -> Result<FannedOut, Stop> {
        let router = self.router.clone();
        let mut held = router.merge_budget.statement();
        let inputs = self.inputs(plan, request, portal, show.description, &mut held);
        let (step, shards, arrays) = inputs.await?;
        let Some(backend) = self.transaction.backend(step.shard) else {
            return Err(Stop::Gone);
        };
        let out = backend.stream.out();
        write_step(out, portal, request, step, &arrays, request.results);
        frontend_message::write_sync(out);
        drop(arrays);
        let show = Show {
            description: false,
            ..show
        };
        let host = vec![backend];
        match fan_out::fan_out(host, &Merge::Relay, Start::AtOnce, show, &mut self.client).await {
            Ok(done) => {
                self.after_steps(&plan.steps, &done)?;
                Ok(done)
            }
            Err(error) => Err(self.after_several(&shards, error)),
        }
    }

    /// The portal that runs what `portal` is made of: the client's unnamed one stays, unless it is this one.
    pub(super) fn free_portal(&self, portal: &str) -> &'static str {
        match !portal.is_empty() && self.portals.contains_key("") {
            true => OWN_NAME,
            false => "",
        }
    }

    /// Binds a plan with inputs to a portal on its host, where it stays for as long as the transaction.
    pub(super) async fn bind_gathered(
        &mut self,
        plan: &Plan,
        request: &Request<'_>,
        portal: &str,
    ) -> Result<ShardId, Stop> {
        let router = self.router.clone();
        let mut held = router.merge_budget.statement();
        let inputs = self.inputs(plan, request, self.free_portal(portal), false, &mut held);
        let (step, shards, arrays) = inputs.await?;
        let host = step.shard;
        let Some(backend) = self.transaction.backend(host) else {
            return Err(Stop::Gone);
        };
        let out = backend.stream.out();
        write_bound(out, portal, request, step, &arrays, request.results);
        frontend_message::write_sync(out);
        drop(arrays);
        let source = Source {
            backend,
            describes: false,
            relations: VecDeque::new(),
        };
        let bound = gather::gather(vec![source], &mut [], &mut held, &mut self.client).await;
        bound.map_err(|error| self.after_several(&shards, error))?;
        Ok(host)
    }

    /// Closes a portal on one shard.
    pub(super) async fn close_portal(&mut self, shard: ShardId, name: &str) -> Result<(), Stop> {
        let router = self.router.clone();
        let mut held = router.merge_budget.statement();
        let Some(backend) = self.transaction.backend(shard) else {
            return Ok(());
        };
        let out = backend.stream.out();
        frontend_message::write_close(out, Target::Portal, name);
        frontend_message::write_sync(out);
        let source = Source {
            backend,
            describes: false,
            relations: VecDeque::new(),
        };
        let closed = gather::gather(vec![source], &mut [], &mut held, &mut self.client).await;
        match closed {
            Ok(_) => Ok(()),
            Err(error) => Err(self.after_several(&[shard], error)),
        }
    }

    /// Gathers the inputs of a plan: its one step, all shards that take part, and the arrays that `held` has. With
    /// `describes` the client is sent the RowDescription of its own text.
    pub(super) async fn inputs<'p>(
        &mut self,
        plan: &'p Plan,
        request: &Request<'_>,
        portal: &str,
        describes: bool,
        held: &mut Held<'_>,
    ) -> Result<(&'p Step, Vec<ShardId>, Vec<BytesMut>), Stop> {
        let [step] = plan.steps.as_slice() else {
            return Err(Stop::Gone);
        };
        let host = step.shard;
        let inputs = plan.inputs.iter().flat_map(|input| &input.steps);
        let mut shards: Vec<ShardId> = inputs.chain(&plan.steps).map(|step| step.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let has_text = plan.inputs.iter().any(Input::has_text);
        for shard in &shards {
            let backend = self.join(*shard).await?;
            backend.forget_unnamed();
            if has_text && backend.rounds_floats() {
                return Err(error::of_execute(MergeError::RoundedFloats.into()));
            }
            self.transaction.mark_used(*shard);
        }
        let inputs = plan.inputs.iter();
        let mut relations: Vec<Gathered> =
            inputs.map(|input| Gathered::new(&input.columns)).collect();
        let mut sources = Vec::with_capacity(shards.len());
        for backend in self.transaction.backends() {
            let describes = describes && backend.shard == host;
            if describes {
                let out = backend.stream.out();
                frontend_message::write_parse(out, "", request.sql, request.types);
                frontend_message::write_describe(out, Target::Statement, "");
            }
            let mut relations = VecDeque::new();
            for (index, input) in plan.inputs.iter().enumerate() {
                let here = |step: &&Step| step.shard == backend.shard;
                if let Some(step) = input.steps.iter().find(here) {
                    let formats: Vec<Format> = Gathered::value_formats(&input.columns).collect();
                    let out = backend.stream.out();
                    write_step(out, portal, request, step, &[], &formats);
                    relations.push_back(index);
                }
            }
            if describes || !relations.is_empty() {
                frontend_message::write_sync(backend.stream.out());
                sources.push(Source {
                    backend,
                    describes,
                    relations,
                });
            }
        }
        let gathered = gather::gather(sources, &mut relations, held, &mut self.client).await;
        let description = gathered.map_err(|error| self.after_several(&shards, error))?;
        if let Some(description) = description {
            self.client.out().extend_from_slice(description.bytes());
        }
        let arrays = relations.into_iter().flat_map(Gathered::arrays);
        Ok((step, shards, arrays.collect()))
    }
}

/// Writes all that runs one step of a plan up to, but without, Sync. `arrays` are further values, in binary form.
pub(super) fn write_step(
    out: &mut BytesMut,
    portal: &str,
    request: &Request<'_>,
    step: &Step,
    arrays: &[BytesMut],
    results: &[Format],
) {
    write_bound(out, portal, request, step, arrays, results);
    frontend_message::write_describe(out, Target::Portal, portal);
    frontend_message::write_execute(out, portal, 0);
    if !portal.is_empty() {
        frontend_message::write_close(out, Target::Portal, portal);
    }
}

/// Writes the Parse and Bind of a step.
pub(super) fn write_bound(
    out: &mut BytesMut,
    portal: &str,
    request: &Request<'_>,
    step: &Step,
    arrays: &[BytesMut],
    results: &[Format],
) {
    let chosen: Vec<usize> = match &step.arguments {
        StepArguments::AsSent => (0..request.values.len()).collect(),
        StepArguments::Chosen(chosen) => chosen.iter().map(|number| usize::from(*number)).collect(),
    };
    let chosen = chosen.iter();
    let types: Vec<u32> = chosen
        .clone()
        .map(|number| request.types.get(*number).copied().unwrap_or(0))
        .collect();
    let formats = chosen.clone().map(|number| request.format_of(*number));
    let values = chosen.map(|number| request.values.get(*number).copied().flatten());
    frontend_message::write_parse(out, "", text_of(step, request.sql), &types);
    frontend_message::write_bind(
        out,
        portal,
        "",
        formats.chain(arrays.iter().map(|_| Format::Binary)),
        values.chain(arrays.iter().map(|array| Some(&array[..]))),
        results.iter().copied(),
    );
}

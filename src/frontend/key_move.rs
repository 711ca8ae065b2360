//! Moves the rows of an UPDATE that changed their sharding key: see the plan's [`KeyMove`].

use super::error::{self, SessionError, Stop};
use super::session::Session;
use super::several::Request;
use crate::executor::fan_out::FannedOut;
use crate::executor::gather::Gathered;
use crate::executor::merge::MergeError;
use crate::planner::plan::{KeyMove, Merge, Plan, Transport};
use crate::topology::ShardId;
use crate::transaction::command::{self, OWN_NAME};
use crate::wire::backend_message::DataRow;
use crate::wire::frame::{Format, Frame};
use crate::wire::frontend_message::{self, Target};

/// How many rows a shard is sent before its answers are read.
const ROWS_AT_ONCE: usize = 100;

impl Session {
    /// Refuses a move of values that would not arrive as they are.
    pub(super) async fn before_move(&mut self, plan: &Plan) -> Result<(), Stop> {
        if let (Merge::Move(key_move), [step]) = (&plan.merge, plan.steps.as_slice())
            && key_move.columns.contains(&Transport::Text)
            && self.join(step.shard).await?.rounds_floats()
        {
            return Err(error::of_execute(MergeError::RoundedFloats.into()));
        }
        Ok(())
    }

    /// After the plan's UPDATE: moves the rows that it changed, if it is one that does. In a block.
    pub(super) async fn move_rows(
        &mut self,
        plan: &Plan,
        request: &Request<'_>,
        done: &FannedOut,
    ) -> Result<(), Stop> {
        let (Merge::Move(key_move), [step]) = (&plan.merge, plan.steps.as_slice()) else {
            return Ok(());
        };
        let updated = done.tag.strip_prefix("UPDATE ");
        let updated: usize = updated
            .and_then(|rows| rows.parse().ok())
            .ok_or(SessionError::KeyMove)?;
        if updated == 0 {
            return Ok(());
        }
        let router = self.router.clone();
        let mut held = router.merge_budget.statement();
        let mut rows: Vec<Frame> = Vec::new();
        let mut over = None;
        let backend = self.join(step.shard).await?;
        write_delete(backend.stream.out(), key_move, request);
        let answer = command::answer_each(backend, |row| {
            if over.is_none() {
                over = held.take(row.bytes().len()).err();
                rows.push(row);
            }
        });
        let answer = answer.await;
        self.after_own(step.shard, answer)?;
        if let Some(error) = over {
            return Err(error::of_execute(error.into()));
        }
        if rows.len() != updated {
            return Err(SessionError::KeyMove.into());
        }
        self.join(key_move.target).await?;
        self.transaction.mark_used(key_move.target);
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let backend = self.join(key_move.target).await?;
            write_inserts(backend.stream.out(), key_move, rows)?;
            let answer = command::answer(backend).await;
            self.after_own(key_move.target, answer)?;
        }
        Ok(())
    }

    /// Takes note of how a command of the router's own ended.
    fn after_own(
        &mut self,
        shard: ShardId,
        answer: Result<command::Reply, command::CommandError>,
    ) -> Result<(), Stop> {
        match answer {
            Ok(reply) => {
                self.pass_asides(&reply.asides);
                Ok(())
            }
            Err(error) => {
                if matches!(error, command::CommandError::Lost { .. }) {
                    self.lose(shard);
                }
                Err(error::of_command(error))
            }
        }
    }
}

fn write_close(out: &mut bytes::BytesMut) {
    frontend_message::write_close(out, Target::Portal, OWN_NAME);
    frontend_message::write_close(out, Target::Statement, OWN_NAME);
}

fn write_delete(out: &mut bytes::BytesMut, key_move: &KeyMove, request: &Request<'_>) {
    let parameter = key_move
        .parameter
        .map(|(index, oid)| (usize::from(index), oid));
    let types = parameter.map(|(index, oid)| match oid {
        0 => request.types.get(index).copied().unwrap_or(0),
        oid => oid,
    });
    let format = parameter.map(|(index, _)| request.format_of(index));
    let value = parameter.map(|(index, _)| request.values.get(index).copied().flatten());
    let types: Vec<u32> = types.into_iter().collect();
    write_close(out);
    frontend_message::write_parse(out, OWN_NAME, &key_move.delete, &types);
    let results = Gathered::value_formats(&key_move.columns);
    frontend_message::write_bind(out, OWN_NAME, OWN_NAME, format, value, results);
    frontend_message::write_execute(out, OWN_NAME, 0);
    write_close(out);
    frontend_message::write_sync(out);
}

/// Writes what stores `rows` (DataRow).
fn write_inserts(
    out: &mut bytes::BytesMut,
    key_move: &KeyMove,
    rows: &[Frame],
) -> Result<(), Stop> {
    let types = key_move.columns.iter().map(|transport| match transport {
        Transport::Binary { oid } => *oid,
        // As the column's own type.
        Transport::Text => 0,
    });
    let types: Vec<u32> = types.collect();
    let formats: Vec<Format> = Gathered::value_formats(&key_move.columns).collect();
    write_close(out);
    frontend_message::write_parse(out, OWN_NAME, &key_move.insert, &types);
    for row in rows {
        let values = DataRow::read(row.body()).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let values: Vec<Option<&[u8]>> = values.map_err(|_| SessionError::KeyMove)?;
        let formats = formats.iter().copied();
        frontend_message::write_bind(out, OWN_NAME, OWN_NAME, formats, values, []);
        frontend_message::write_execute(out, OWN_NAME, 0);
        frontend_message::write_close(out, Target::Portal, OWN_NAME);
    }
    write_close(out);
    frontend_message::write_sync(out);
    Ok(())
}

//! What a session keeps on one backend beyond its transactions: advisory locks and channels, all on the default shard,
//! so that they exclude and reach one another whichever router they come by; cursors WITH HOLD; and temporary relations,
//! of which [`super::temporary`] knows more. The backends are in
//! [`crate::transaction::pin`].

use super::error::{self, SessionError, Stop};
use super::session::Session;
use super::simple_query::Sentence;
use crate::planner::plan::{Plan, SessionEffects};
use crate::sql::statement::Statement;
use crate::topology::ShardId;
use crate::transaction::command;
use crate::transaction::pin::{self, LostPin, Reasons};
use crate::transaction::state::Phase;
use crate::wire::error_response::{self, Severity};
use crate::wire::stream::StreamError;

impl Session {
    /// Before a statement runs: keeps the backends where its functions may leave something.
    pub(super) async fn hold(&mut self, effects: SessionEffects, plan: &Plan) -> Result<(), Stop> {
        if effects.is_none() {
            return Ok(());
        }
        for step in &plan.steps {
            Box::pin(self.join(step.shard)).await?;
            self.transaction.mark_used(step.shard);
            if effects.locks {
                self.transaction.pin(step.shard, Reasons::ADVISORY_LOCKS)?;
            }
            if effects.unlocks {
                self.transaction.unsettle(step.shard);
            }
            if effects.notifies {
                self.transaction.mark_unpreparable(step.shard);
            }
        }
        if effects.temporary {
            self.change_temporary().await?;
        }
        Ok(())
    }

    /// Before a statement that one shard answers as it stands: keeps a backend that gets a cursor WITH HOLD.
    pub(super) fn hold_cursor(
        &mut self,
        statement: &Statement<'_>,
        shard: ShardId,
    ) -> Result<(), Stop> {
        if let Statement::Declare { name, .. } = statement
            && self.cursors.get(&**name).is_some_and(|at| *at != shard)
        {
            return Err(SessionError::DuplicatePortal(name.to_string()).into());
        }
        match statement {
            Statement::Declare {
                name, hold: true, ..
            } => {
                self.transaction.pin(shard, Reasons::HELD_CURSORS)?;
                self.transaction.mark_unpreparable(shard);
                self.held_cursors.insert(name.to_string(), shard);
            }
            Statement::Declare { name, .. } | Statement::Close(Some(name)) => {
                self.held_cursors.remove(&**name);
                self.transaction.unsettle(shard);
            }
            _ => {}
        }
        Ok(())
    }

    /// At the end of a transaction: its cursors are gone but for those WITH HOLD.
    pub(super) fn end_cursors(&mut self) {
        self.cursors.clone_from(&self.held_cursors);
    }

    /// After a transaction: gives back the backends where nothing of the session's lives any more.
    pub(super) async fn settle_pins(&mut self) {
        if !self.transaction.pins.is_empty() {
            let asides = Box::pin(self.transaction.pins.clone().settle()).await;
            self.pass_asides(&asides);
            self.held_cursors = self.transaction.pins.held_cursors();
            self.end_cursors();
            self.settle_temporary();
            return;
        }
        if !self.held_cursors.is_empty() {
            self.held_cursors.clear();
            self.end_cursors();
        }
        if !self.temporary.is_none() {
            self.settle_temporary();
        }
    }

    /// DISCARD ALL, or the end: what lives on the session's backends is given up.
    pub(super) async fn end_pins(&mut self) {
        self.held_cursors.clear();
        self.end_cursors();
        for mut pin in self.transaction.pins.take_all() {
            if pin::clean(&mut pin.lease).await {
                pin.lease.release();
            }
        }
        self.settle_temporary();
    }

    /// What the session must hear before anything else runs: that a backend which it kept is gone.
    pub(super) fn lost_pin(&mut self) -> Result<(), Stop> {
        // One that takes part is not lost.
        let in_use = self.transaction.shards().next().is_some();
        if self.transaction.block.phase() != Phase::Idle || self.pipeline.unsynced || in_use {
            return Ok(());
        }
        match self.transaction.pins.take_lost() {
            Some(lost) => {
                self.held_cursors = self.transaction.pins.held_cursors();
                self.end_cursors();
                Err(self.of_lost(lost).into())
            }
            None => Ok(()),
        }
    }

    fn of_lost(&self, lost: LostPin) -> SessionError {
        SessionError::LostPin {
            shard: self.router.topology().shard_name(lost.shard).to_string(),
            reasons: lost.reasons,
        }
    }

    /// While the client is idle: passes on what a backend that the session keeps says unasked. A client that listens may
    /// wait for ever, so it is told at once if its backend is gone, by the end of its own connection.
    pub(super) async fn hear(
        &mut self,
        shard: ShardId,
        heard: Result<usize, StreamError>,
    ) -> Result<(), Stop> {
        let Some(mut pin) = self.transaction.pins.take(shard) else {
            return Ok(());
        };
        let mut alive = heard.is_ok();
        while alive {
            match pin.lease.stream.buffered_frame() {
                Ok(None) => {
                    self.transaction.pins.keep(pin);
                    return Ok(());
                }
                Ok(Some(frame)) => match frame.tag() {
                    b'A' | b'N' => self.client.out().extend_from_slice(frame.bytes()),
                    b'S' => pin.lease.note_parameter(frame.body()),
                    _ => alive = false,
                },
                Err(_) => alive = false,
            }
        }
        pin.lease.mark_broken();
        if !pin.reasons.contains(Reasons::LISTENING) {
            return Ok(());
        }
        drop(pin);
        if let Some(lost) = self.transaction.pins.take_lost() {
            let error = self.of_lost(lost);
            error_response::write_error_reply(self.client.out(), &error, Severity::Fatal);
            let _ = self.client.flush().await;
        }
        Err(Stop::Gone)
    }

    /// LISTEN, UNLISTEN, NOTIFY.
    pub(super) async fn notification(&mut self, sentence: &Sentence<'_>) -> Result<(), Stop> {
        let shard = self.router.topology().default_shard;
        let command = sentence.statement.command_word();
        match sentence.statement {
            Statement::Unlisten(_) if !self.transaction.keeps(shard, Reasons::LISTENING) => {
                self.complete(command);
                return Ok(());
            }
            Statement::Listen(_) => {
                self.join(shard).await?;
                self.transaction.pin(shard, Reasons::LISTENING)?;
            }
            _ => {
                self.join(shard).await?;
                self.transaction.unsettle(shard);
            }
        }
        self.transaction.mark_used(shard);
        self.transaction.mark_unpreparable(shard);
        let backend = self.join(shard).await?;
        let reply = command::run(backend, sentence.sql).await;
        let reply = reply.map_err(error::of_command)?;
        self.pass_asides(&reply.asides);
        self.complete(command);
        Ok(())
    }
}

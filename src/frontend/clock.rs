//! The time of a block, which all of its writes over several shards are told.

use super::error::{self, SessionError, Stop};
use super::session::Session;
use crate::backend::clock;
use crate::transaction::command::{self, CommandError};
use crate::transaction::state::Phase;
use std::sync::Arc;

impl Session {
    /// The time of the block: that of its first shard, where it can be asked. Outside a block, the time now.
    pub(super) async fn one_time(&mut self) -> Result<Arc<str>, Stop> {
        let in_block = self.transaction.block.phase() != Phase::Idle;
        if let Some(time) = self.transaction.time.clone().filter(|_| in_block) {
            return Ok(time);
        }
        let first = self.transaction.shards().next();
        let first = first.filter(|_| in_block && !self.pipeline.unsynced);
        let backend = first.and_then(|shard| Some((shard, self.transaction.backend(shard)?)));
        let time = match backend {
            None => {
                let asked = clock::ask(&self.router.control).await;
                asked.map_err(SessionError::Clock)?
            }
            Some((shard, backend)) => match command::run_apart(backend, &[clock::NOW]).await {
                Ok(reply) => {
                    let time = reply.rows.into_iter().flatten().flatten().next();
                    time.ok_or(Stop::Gone)?.into()
                }
                Err(error) => {
                    if let CommandError::Lost { .. } = error {
                        self.lose(shard);
                    }
                    return Err(error::of_command(error));
                }
            },
        };
        if in_block {
            self.transaction.time = Some(time.clone());
        }
        Ok(time)
    }
}

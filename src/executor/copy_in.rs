//! COPY … FROM STDIN on a shard: start it, hand it data, end it or break it off. Which row goes where is the caller's.
//! (PostgreSQL's chapter "COPY Operations".)

use super::{ExecuteError, WATCH_BYTES, flush_large, shard_lost, unexpected};
use crate::backend::connection::Backend;
use crate::sql::copy_rows::{CopyKeyError, CopyRowError};
use crate::wire::backend_message::{self, TransactionStatus};
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::frame::Frame;
use crate::wire::frontend_message;
use crate::wire::sqlstate::SqlState;
use crate::wire::stream::FrameStream;

/// What waits for a shard at most before it is sent.
const SHARD_OUTPUT_BYTES: usize = 64 * 1024;

/// Why COPY data cannot go to the shards.
#[derive(Debug, thiserror::Error)]
pub enum CopyInError {
    /// The data cannot be cut into rows.
    #[error(transparent)]
    Row(#[from] CopyRowError),
    /// The row's key cannot be found.
    #[error(transparent)]
    Key(#[from] CopyKeyError),
    /// The client sent something other than COPY data.
    #[error("unexpected message type 0x{0:02X} during COPY from stdin")]
    UnexpectedMessage(u8),
}

impl ErrorReply for CopyInError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Row(error) => error.sqlstate(),
            Self::Key(error) => error.sqlstate(),
            Self::UnexpectedMessage(_) => SqlState::PROTOCOL_VIOLATION,
        }
    }
    fn fault(&self) -> Fault {
        Fault::Client
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::Row(error) => error.detail(),
            Self::Key(error) => error.detail(),
            Self::UnexpectedMessage(_) => None,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Row(error) => error.hint(),
            Self::Key(error) => error.hint(),
            Self::UnexpectedMessage(_) => None,
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Row(error) => error.refusal(),
            Self::Key(error) => error.refusal(),
            Self::UnexpectedMessage(_) => None,
        }
    }
}

/// Starts a COPY; its CopyInResponse.
///
/// # Errors
/// [`ExecuteError::Shard`] when the shard refuses (it stands at ReadyForQuery then), else its connection is unusable.
pub async fn start(backend: &mut Backend, sql: &str) -> Result<Frame, ExecuteError> {
    frontend_message::write_query(backend.stream.out(), sql);
    backend.forget_unnamed();
    loop {
        let frame = read(backend).await?;
        match frame.tag() {
            b'G' => return Ok(frame),
            b'E' => {
                settle(backend).await?;
                return Err(ExecuteError::Shard(backend.told(frame)));
            }
            b'S' => backend.note_parameter(frame.body()),
            b'N' => {}
            tag => return Err(unexpected(backend, tag)),
        }
    }
}

/// Sends what waits for the shard once that is a large write's worth; notices when the shard has given up already. What
/// triggers say meanwhile goes to the client: a shard that is not listened to does not listen.
///
/// # Errors
/// [`ExecuteError::Shard`] when it has: its ReadyForQuery was read.
pub async fn push(backend: &mut Backend, client: &mut FrameStream) -> Result<(), ExecuteError> {
    if backend.stream.out().len() < SHARD_OUTPUT_BYTES {
        return Ok(());
    }
    while !backend.stream.out().is_empty() {
        let input_bytes_max = backend.stream.input().len() + WATCH_BYTES;
        let flushed = backend.stream.flush_absorbing(input_bytes_max).await;
        flushed.map_err(|source| shard_lost(backend, source))?;
        loop {
            let frame = backend.stream.buffered_frame();
            let Some(frame) = frame.map_err(|source| shard_lost(backend, source))? else {
                break;
            };
            match frame.tag() {
                b'E' => {
                    settle(backend).await?;
                    return Err(ExecuteError::Shard(backend.told(frame)));
                }
                b'N' => client.out().extend_from_slice(frame.bytes()),
                b'S' => backend.note_parameter(frame.body()),
                b'A' => {}
                tag => return Err(unexpected(backend, tag)),
            }
            flush_large(client).await?;
        }
    }
    Ok(())
}

/// Ends a COPY; how many rows it took, the shard's status, and NOTICEs.
///
/// # Errors
/// [`ExecuteError::Shard`] when it refuses the rows: it stands at ReadyForQuery.
pub async fn finish(
    backend: &mut Backend,
) -> Result<(u64, TransactionStatus, Vec<Frame>), ExecuteError> {
    frontend_message::write_copy_done(backend.stream.out());
    end(backend).await
}

/// Breaks a COPY off; the shard's own words for that.
pub async fn abort(backend: &mut Backend, message: &str) -> ExecuteError {
    frontend_message::write_copy_fail(backend.stream.out(), message);
    match end(backend).await {
        Err(error) => error,
        Ok(_) => unexpected(backend, b'C'),
    }
}

async fn end(backend: &mut Backend) -> Result<(u64, TransactionStatus, Vec<Frame>), ExecuteError> {
    let (mut rows, mut refused, mut notices) = (0, None, Vec::new());
    loop {
        let frame = read(backend).await?;
        match frame.tag() {
            b'C' => {
                let tag = backend_message::read_command_complete(frame.body());
                rows = tag.ok().and_then(|tag| tag.rows).unwrap_or(0);
            }
            b'E' => refused = refused.or(Some(frame)),
            b'N' => notices.push(frame),
            b'S' => backend.note_parameter(frame.body()),
            b'Z' => {
                let status = backend_message::read_ready_for_query(frame.body());
                let status = status.map_err(|_| unexpected(backend, b'Z'))?;
                return match refused {
                    Some(frame) => Err(ExecuteError::Shard(backend.told(frame))),
                    None => Ok((rows, status, notices)),
                };
            }
            tag => return Err(unexpected(backend, tag)),
        }
    }
}

async fn read(backend: &mut Backend) -> Result<Frame, ExecuteError> {
    backend
        .stream
        .read_frame()
        .await
        .map_err(|source| shard_lost(backend, source))
}

async fn settle(backend: &mut Backend) -> Result<(), ExecuteError> {
    while read(backend).await?.tag() != b'Z' {}
    Ok(())
}

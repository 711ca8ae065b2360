//! Runs plans on leases: [`relay`] passes one shard's answer through, [`fan_out`] makes several shards' answers one,
//! [`gather`] collects their rows for a query over them,
//! [`copy_in`] and [`copy_out`] do the same for COPY. Nothing here chooses a shard.

pub mod relay;
pub mod fan_out;
pub mod gather;
pub mod copy_in;
pub mod copy_out;
pub mod merge;

use crate::backend::connection::Backend;
use crate::wire::error_response::{self, ErrorReply, Fault};
use crate::wire::frame::Frame;
use crate::wire::sqlstate::SqlState;
use crate::wire::stream::{FrameStream, StreamError};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What waits for a client at most before it is sent.
pub const CLIENT_OUTPUT_BYTES: usize = 64 * 1024;

/// How long a shard may take to stop after a cancel before its connection is given up.
const DRAIN: Duration = Duration::from_secs(5);

/// How much of a client's next requests is read while it is being answered, to notice that it left.
const WATCH_BYTES: usize = 64 * 1024;

/// Why an execution ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The client left; nobody is there to be answered.
    #[error("the client left")]
    ClientGone,
    /// The connection to a shard broke.
    #[error("lost the connection to shard {shard}")]
    ShardLost {
        /// The shard's name.
        shard: Arc<str>,
        /// How.
        #[source]
        source: StreamError,
    },
    /// A shard's ErrorResponse, to be passed on.
    #[error("a shard reported an error")]
    Shard(Frame),
    /// A shard said something that its protocol does not allow here.
    #[error("shard {shard} sent an unexpected message {tag:?}")]
    Unexpected {
        /// The shard's name.
        shard: Arc<str>,
        /// The message's tag.
        tag: char,
    },
    /// The shards' rows cannot be merged.
    #[error(transparent)]
    Merge(#[from] merge::MergeError),
    /// The rows of a COPY cannot be read or routed.
    #[error(transparent)]
    Copy(#[from] copy_in::CopyInError),
}

impl ErrorReply for ExecuteError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::ClientGone | Self::ShardLost { .. } => SqlState::CONNECTION_FAILURE,
            Self::Shard(_) => SqlState::INTERNAL_ERROR,
            Self::Unexpected { .. } => SqlState::PROTOCOL_VIOLATION,
            Self::Merge(error) => error.sqlstate(),
            Self::Copy(error) => error.sqlstate(),
        }
    }
    fn fault(&self) -> Fault {
        match self {
            Self::ClientGone => Fault::Client,
            Self::ShardLost { .. } | Self::Shard(_) | Self::Unexpected { .. } => Fault::Backend,
            Self::Merge(error) => error.fault(),
            Self::Copy(error) => error.fault(),
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::ShardLost { source, .. } => Some(source.to_string()),
            Self::ClientGone | Self::Shard(_) | Self::Unexpected { .. } => None,
            Self::Merge(error) => error.detail(),
            Self::Copy(error) => error.detail(),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::ShardLost { .. } => Some(
                "The statement may have run; a transaction that it was part of is rolled back."
                    .to_owned(),
            ),
            Self::ClientGone | Self::Shard(_) | Self::Unexpected { .. } => None,
            Self::Merge(error) => error.hint(),
            Self::Copy(error) => error.hint(),
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::ClientGone
            | Self::ShardLost { .. }
            | Self::Shard(_)
            | Self::Unexpected { .. } => None,
            Self::Merge(error) => error.refusal(),
            Self::Copy(error) => error.refusal(),
        }
    }
}

/// What [`ExecuteError::ShardLost`] says of `backend`.
fn shard_lost(backend: &Backend, source: StreamError) -> ExecuteError {
    ExecuteError::ShardLost {
        shard: backend.shard_name.clone(),
        source,
    }
}

fn unexpected(backend: &Backend, tag: u8) -> ExecuteError {
    ExecuteError::Unexpected {
        shard: backend.shard_name.clone(),
        tag: char::from(tag),
    }
}

/// Waits for more from a shard, and meanwhile watches for the client to leave.
async fn fill_watched(backend: &mut Backend, client: &mut FrameStream) -> Result<(), ExecuteError> {
    let filled = poll_fn(|context| {
        if let Poll::Ready(filled) = backend.stream.poll_fill(context) {
            return Poll::Ready(Some(filled));
        }
        watch(client, context).map(|_| None)
    })
    .await;
    match filled {
        Some(Ok(_)) => Ok(()),
        Some(Err(source)) => Err(shard_lost(backend, source)),
        None => Err(ExecuteError::ClientGone),
    }
}

/// Ready when the client has left.
fn watch(client: &mut FrameStream, context: &mut Context<'_>) -> Poll<ExecuteError> {
    while client.input().len() < WATCH_BYTES && client.poll_readable(context) {
        match client.poll_read(context) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(ExecuteError::ClientGone),
            Poll::Pending => break,
        }
    }
    Poll::Pending
}

/// After a failure elsewhere: cancels what the shard still runs, unless its answer has `ended`, and reads up to
/// ReadyForQuery. A shard that does not come there in time is marked broken. The error that it reports, unless that may be
/// of the cancel.
async fn stop(backend: &mut Backend, ended: bool) -> Option<Frame> {
    let mut own = None;
    let drained = tokio::time::timeout(DRAIN, async {
        if !ended {
            let _ = backend.cancel_token().cancel().await;
        }
        loop {
            let frame = backend.stream.read_frame().await?;
            match frame.tag() {
                b'Z' => return Ok::<_, StreamError>(()),
                b'E' if !error_response::is_cancel(frame.body()) => {
                    own = own.take().or(Some(frame))
                }
                _ => {}
            }
        }
    });
    if !matches!(drained.await, Ok(Ok(()))) {
        backend.mark_broken();
        return None;
    }
    own
}

/// Sends the client what waits for it once that is a large write's worth.
async fn flush_large(client: &mut FrameStream) -> Result<(), ExecuteError> {
    if client.out().len() >= CLIENT_OUTPUT_BYTES {
        client.flush().await.map_err(|_| ExecuteError::ClientGone)?;
    }
    Ok(())
}

//! One shard's answer, passed through: bytes are copied in runs and only the frames that matter are looked at.
//!
//! What was sent is remembered as a queue of [`Expect`]ations in order, since a pipeline of many messages goes out
//! before the first answer is read (PostgreSQL's chapter "Message Flow").

use super::{ExecuteError, fill_watched, flush_large, shard_lost, unexpected};
use crate::backend::connection::Backend;
use crate::wire::backend_message::{self, TransactionStatus};
use crate::wire::error_response;
use crate::wire::frame::Frame;
use crate::wire::stream::{FrameStream, Head};
use bytes::Bytes;
use std::collections::VecDeque;

/// One answer that is awaited, in the order in which the requests were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing from the shard: the router's own answer takes its place in the order.
    Local(Bytes),
    /// ParseComplete; shown to the client or the router's own affair.
    Parse {
        /// Whether the client asked for it.
        shown: bool,
    },
    /// BindComplete.
    Bind,
    /// ParameterDescription and RowDescription or NoData.
    DescribeStatement,
    /// RowDescription or NoData.
    DescribePortal,
    /// Rows up to CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close {
        /// Whether the client asked for it.
        shown: bool,
    },
    /// All of a simple query's answer up to ReadyForQuery, which stays with the router.
    Query {
        /// Characters before this statement in the client's string: error positions shift by them.
        position_offset: u32,
    },
    /// ReadyForQuery, which stays with the router.
    Sync,
}

impl Expect {
    /// Whether it tells the client that a Parse is done.
    pub fn is_parse(&self) -> bool {
        match self {
            Self::Local(bytes) => bytes.first() == Some(&b'1'),
            Self::Parse { shown } => *shown,
            _ => false,
        }
    }
}

/// How far a relay came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    /// All expectations are met. The status of the last ReadyForQuery, if one was expected.
    Done(Option<TransactionStatus>),
    /// The shard reported an error, which the client has been sent; all up to the next Sync is void, and the queue holds
    /// what will not be answered. A simple query's ReadyForQuery has been read.
    Failed(Option<TransactionStatus>),
}

/// Meets the expectations in order: sends what waits for the shard, passes its answers to the client.
///
/// # Errors
/// [`ExecuteError::ClientGone`], [`ExecuteError::ShardLost`], [`ExecuteError::Unexpected`], and [`ExecuteError::Shard`]
/// where that is the shard's farewell; the lease must be dropped.
///
/// # Cancel safety
/// Not cancel safe: drop the lease with it.
pub async fn relay(
    backend: &mut Backend,
    client: &mut FrameStream,
    queue: &mut VecDeque<Expect>,
) -> Result<Relayed, ExecuteError> {
    let mut status = None;
    let mut failed = false;
    while let Some(expect) = queue.front() {
        if let Expect::Local(bytes) = expect {
            client.out().extend_from_slice(bytes);
            queue.pop_front();
            continue;
        }
        let rows = matches!(expect, Expect::Execute | Expect::Query { .. });
        let query = matches!(expect, Expect::Query { .. });
        let head = backend
            .stream
            .head(|tag| passes(tag, rows, query))
            .map_err(|source| shard_lost(backend, source))?;
        let (tag, bytes) = match head {
            Head::Pass(bytes) => {
                client
                    .out()
                    .extend_from_slice(&backend.stream.input()[..bytes]);
                backend.stream.consume(bytes);
                flush_large(client).await?;
                continue;
            }
            Head::Incomplete => {
                fill_watched(backend, client).await?;
                continue;
            }
            Head::Frame(tag, bytes) => (tag, bytes),
        };
        let (shown, met) = match (tag, expect) {
            (b'1', Expect::Parse { shown }) | (b'3', Expect::Close { shown }) => (*shown, true),
            (b'2', Expect::Bind) => (true, true),
            (b't', Expect::DescribeStatement) => (true, false),
            (b'T' | b'n', Expect::DescribeStatement | Expect::DescribePortal) => (true, true),
            (b'C' | b'I' | b's', Expect::Execute) => (true, true),
            (b'Z', Expect::Query { .. } | Expect::Sync) => {
                status =
                    backend_message::read_ready_for_query(&backend.stream.input()[5..bytes]).ok();
                (false, true)
            }
            // Notifications come where the session listens only.
            (b'N' | b'A', _) => (true, false),
            (b'S', _) => {
                let body = backend.stream.input()[5..bytes].to_vec();
                backend.note_parameter(&body);
                (false, false)
            }
            (b'E', _) if error_response::is_farewell(&backend.stream.input()[5..bytes]) => {
                backend.mark_broken();
                let frame = Frame::new(backend.stream.take(bytes).freeze());
                return Err(ExecuteError::Shard(frame));
            }
            (b'E', Expect::Query { position_offset }) => {
                failed = true;
                error_response::write_shard_error(
                    client.out(),
                    &backend.stream.input()[5..bytes],
                    *position_offset,
                );
                (false, false)
            }
            (b'E', _) => {
                client
                    .out()
                    .extend_from_slice(&backend.stream.input()[..bytes]);
                backend.stream.consume(bytes);
                return Ok(Relayed::Failed(None));
            }
            (tag, _) => return Err(unexpected(backend, tag)),
        };
        if shown {
            client
                .out()
                .extend_from_slice(&backend.stream.input()[..bytes]);
        }
        backend.stream.consume(bytes);
        if met {
            queue.pop_front();
        }
        flush_large(client).await?;
    }
    Ok(if failed {
        Relayed::Failed(status)
    } else {
        Relayed::Done(status)
    })
}

/// Frames whose contents no one but the client needs.
fn passes(tag: u8, rows: bool, query: bool) -> bool {
    match tag {
        b'D' | b'd' | b'c' | b'H' => rows,
        b'T' | b'C' | b'I' => query,
        _ => false,
    }
}

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
    Execute {
        /// How much further on the client's text has what the shard was sent, in characters.
        position_offset: i64,
    },
    /// CloseComplete.
    Close {
        /// Whether the client asked for it.
        shown: bool,
    },
    /// All of a simple query's answer up to ReadyForQuery, which stays with the router.
    Query {
        /// Characters before this statement in the client's string: error positions shift by them.
        position_offset: i64,
    },
    /// ReadyForQuery, which stays with the router.
    Sync,
}

impl Expect {
    /// Whether it tells the client that a Parse or Close is done.
    pub fn is_change(&self) -> bool {
        match self {
            Self::Local(bytes) => matches!(bytes.first(), Some(b'1' | b'3')),
            Self::Parse { shown } | Self::Close { shown } => *shown,
            _ => false,
        }
    }

    /// Whether it tells the client that a Parse is done.
    pub fn is_parse(&self) -> bool {
        match self {
            Self::Local(bytes) => bytes.first() == Some(&b'1'),
            Self::Parse { shown } => *shown,
            _ => false,
        }
    }
}

impl Expect {
    /// The same answer, which the client does not want again; None for the router's own.
    pub fn hidden(self) -> Option<Self> {
        match self {
            Self::Local(_) => None,
            Self::Parse { .. } => Some(Self::Parse { shown: false }),
            Self::Close { .. } => Some(Self::Close { shown: false }),
            other => Some(other),
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
    /// As [`Self::Failed`], with an error that says that a statement must be prepared anew.
    Stale {
        /// Whether the client has been sent it.
        told: bool,
    },
}

/// Meets the expectations in order: sends what waits for the shard, passes its answers to the client. If `again`, an error
/// that says that a statement must be prepared anew is kept where nothing but Parse and Close has been answered.
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
    mut again: bool,
) -> Result<Relayed, ExecuteError> {
    let mut status = None;
    let mut failed = false;
    while let Some(expect) = queue.front() {
        if let Expect::Local(bytes) = expect {
            client.out().extend_from_slice(bytes);
            queue.pop_front();
            continue;
        }
        let rows = matches!(expect, Expect::Execute { .. } | Expect::Query { .. });
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
            (b'C' | b'I' | b's', Expect::Execute { .. }) => (true, true),
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
                let body = &backend.stream.input()[5..bytes];
                pass_error(backend, body, *position_offset, client);
                (false, false)
            }
            (b'E', expect) => {
                let body = &backend.stream.input()[5..bytes];
                let stale = error_response::is_stale_statement(body);
                let told = !(stale && again);
                if told {
                    let offset = match expect {
                        Expect::Execute { position_offset } => *position_offset,
                        _ => 0,
                    };
                    pass_error(backend, body, offset, client);
                }
                backend.stream.consume(bytes);
                return Ok(if stale {
                    Relayed::Stale { told }
                } else {
                    Relayed::Failed(None)
                });
            }
            (tag, _) => return Err(unexpected(backend, tag)),
        };
        if shown {
            client
                .out()
                .extend_from_slice(&backend.stream.input()[..bytes]);
        }
        backend.stream.consume(bytes);
        if !matches!(tag, b'1' | b'3' | b'S' | b'N' | b'A') {
            again = false;
        }
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

/// What [`relay_whole`] passes on, and what it keeps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whole {
    /// Characters before this statement in the client's string: error positions shift by them.
    pub position_offset: i64,
    /// How many ParseComplete and CloseComplete come first that the client did not ask for.
    pub hidden: u8,
    /// An error that says that the statement must be prepared anew is kept, if it comes first.
    pub stale: bool,
    /// The error of a guard of rows that have moved is kept, if it comes first.
    pub guarded: bool,
}

/// What a whole answer was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// How it ended.
    pub ending: Ending,
    /// Of ReadyForQuery.
    pub status: TransactionStatus,
    /// How many of [`Whole::hidden`] did not come.
    pub hidden_left: u8,
    /// The client has been sent a ParseComplete.
    pub parsed: bool,
    /// The client has been sent an error that says that the statement must be prepared anew.
    pub stale_told: bool,
    /// The error that [`Whole::guarded`] kept.
    pub rejected: Option<Frame>,
}

/// How a whole answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Done,
    /// With an error, which the client has been sent.
    Failed,
    /// With the error that [`Whole::stale`] kept.
    Stale,
}

/// Sends what waits for the shard and passes all of its answer up to ReadyForQuery, which stays with the router.
///
/// # Errors
/// As [`relay`].
///
/// # Cancel safety
/// Not cancel safe: drop the lease with it.
pub async fn relay_whole(
    backend: &mut Backend,
    client: &mut FrameStream,
    whole: Whole,
) -> Result<Answered, ExecuteError> {
    let Whole {
        position_offset,
        mut hidden,
        mut stale,
        mut guarded,
    } = whole;
    let mut rejected = None;
    let (mut ending, mut parsed, mut stale_told) = (Ending::Done, false, false);
    loop {
        let head = backend
            .stream
            .head(is_the_clients)
            .map_err(|source| shard_lost(backend, source))?;
        let (tag, bytes) = match head {
            Head::Pass(bytes) => {
                client
                    .out()
                    .extend_from_slice(&backend.stream.input()[..bytes]);
                backend.stream.consume(bytes);
                (stale, guarded) = (false, false);
                flush_large(client).await?;
                continue;
            }
            Head::Incomplete => {
                fill_watched(backend, client).await?;
                continue;
            }
            Head::Frame(tag, bytes) => (tag, bytes),
        };
        let body = &backend.stream.input()[5..bytes];
        match tag {
            b'Z' => {
                let status = backend_message::read_ready_for_query(body);
                backend.stream.consume(bytes);
                let status = status.map_err(|_| unexpected(backend, tag))?;
                return Ok(Answered {
                    ending,
                    status,
                    hidden_left: hidden,
                    parsed,
                    stale_told,
                    rejected,
                });
            }
            b'1' | b'3' if hidden > 0 => hidden -= 1,
            b'1' | b'3' => {
                client
                    .out()
                    .extend_from_slice(&backend.stream.input()[..bytes]);
                parsed |= tag == b'1';
                stale = false;
            }
            b'S' => {
                let body = body.to_vec();
                backend.note_parameter(&body);
            }
            b'E' if error_response::is_farewell(body) => {
                backend.mark_broken();
                let frame = Frame::new(backend.stream.take(bytes).freeze());
                return Err(ExecuteError::Shard(frame));
            }
            b'E' if stale && error_response::is_stale_statement(body) => {
                ending = Ending::Stale;
            }
            b'E' if guarded && error_response::is_of_guard(body) => {
                rejected = Some(Frame::new(backend.stream.input()[..bytes].to_vec().into()));
            }
            b'E' => {
                ending = Ending::Failed;
                stale_told |= error_response::is_stale_statement(body);
                pass_error(backend, body, position_offset, client);
            }
            tag => return Err(unexpected(backend, tag)),
        }
        backend.stream.consume(bytes);
    }
}

/// Passes on the error with this body, of a text that begins `offset` characters into the client's.
fn pass_error(backend: &Backend, body: &[u8], offset: i64, client: &mut FrameStream) {
    let deadlock = backend.deadlock_error(body);
    let body = deadlock.as_ref().map_or(body, Frame::body);
    error_response::write_shard_error(client.out(), body, offset);
}

/// Frames of a whole answer that no one but the client needs.
fn is_the_clients(tag: u8) -> bool {
    matches!(
        tag,
        b'D' | b'T' | b'C' | b'I' | b'2' | b'n' | b's' | b't' | b'N' | b'A' | b'd' | b'c' | b'H'
    )
}

/// Frames whose contents no one but the client needs.
fn passes(tag: u8, rows: bool, query: bool) -> bool {
    match tag {
        b'D' | b'd' | b'c' | b'H' => rows,
        b'T' | b'C' | b'I' => query,
        _ => false,
    }
}

//! The router's own statements on a leased backend: send one, wait for ReadyForQuery, keep what it said.

use crate::backend::connection::Backend;
use crate::wire::backend_message::{self, DataRow, TransactionStatus};
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::frame::{Format, Frame};
use crate::wire::frontend_message::{self, Target};
use crate::wire::sqlstate::SqlState;
use crate::wire::stream::StreamError;
use std::sync::Arc;

/// What the router's own statements and portals are named where a client's unnamed ones must stay.
pub const OWN_NAME: &str = "pgring_own";

/// What a command of the router's own gave.
#[derive(Debug)]
pub struct Reply {
    /// The command tag (`COMMIT`, `SELECT 1`, …).
    pub tag: String,
    /// Rows as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// What ParameterDescription said last.
    pub parameter_types: Vec<u32>,
    /// The last RowDescription.
    pub description: Option<Frame>,
    /// NOTICEs, notifications, ParameterStatus: what the client should see, in order.
    pub asides: Vec<Frame>,
    /// What ReadyForQuery said.
    pub status: TransactionStatus,
}

/// Why a command of the router's own gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The connection is gone; whether the command ran is not known.
    #[error("lost the connection to shard {shard}")]
    Lost {
        /// The shard's name.
        shard: Arc<str>,
        /// How.
        #[source]
        source: StreamError,
    },
    /// The shard answered with this ErrorResponse.
    #[error("the shard refused the command")]
    Refused(Frame),
}

impl ErrorReply for CommandError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Lost { .. } => SqlState::CONNECTION_FAILURE,
            Self::Refused(_) => SqlState::INTERNAL_ERROR,
        }
    }
    fn fault(&self) -> Fault {
        Fault::Backend
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::Lost { source, .. } => Some(source.to_string()),
            Self::Refused(_) => None,
        }
    }
    fn hint(&self) -> Option<String> {
        None
    }
    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// Sends `sql` as a simple query and waits for its end.
///
/// # Errors
/// [`CommandError`]; after [`CommandError::Refused`] the backend stands at ReadyForQuery and may be used again.
///
/// # Cancel safety
/// Not cancel safe: a dropped call leaves an answer on the wire, so the lease must be dropped too.
pub async fn run(backend: &mut Backend, sql: &str) -> Result<Reply, CommandError> {
    frontend_message::write_query(backend.stream.out(), sql);
    backend.forget_unnamed();
    answer(backend).await
}

/// Sends statements by extended messages under a name of the router's own and waits for their end: what [`run`] sends
/// ends the client's unnamed statement and portal. They are one transaction, unless a block is open; they may be sent
/// between extended messages that were not synced.
///
/// # Errors
/// As [`run`].
///
/// # Cancel safety
/// As [`run`].
pub async fn run_apart(backend: &mut Backend, statements: &[&str]) -> Result<Reply, CommandError> {
    for sql in statements {
        write_apart(backend, sql, &[]);
    }
    answer_apart(backend).await
}

/// Adds a statement, with its parameters as text, to those that [`answer_apart`] sends.
pub fn write_apart(backend: &mut Backend, sql: &str, values: &[&str]) {
    let values = values.iter().map(|value| Some(value.as_bytes()));
    write_bound_apart(backend, sql, &[], [], values);
}

/// Adds a statement, with its parameters as a client bound them, to those that [`answer_apart`] sends.
pub fn write_bound_apart<'a>(
    backend: &mut Backend,
    sql: &str,
    types: &[u32],
    formats: impl IntoIterator<Item = Format>,
    values: impl IntoIterator<Item = Option<&'a [u8]>>,
) {
    let out = backend.stream.out();
    // One that failed may have left them.
    frontend_message::write_close(out, Target::Portal, OWN_NAME);
    frontend_message::write_close(out, Target::Statement, OWN_NAME);
    frontend_message::write_parse(out, OWN_NAME, sql, types);
    frontend_message::write_bind(out, OWN_NAME, OWN_NAME, formats, values, []);
    frontend_message::write_execute(out, OWN_NAME, 0);
}

/// Sends what [`write_apart`] wrote and waits for its end.
///
/// # Errors
/// As [`run_apart`].
pub async fn answer_apart(backend: &mut Backend) -> Result<Reply, CommandError> {
    let out = backend.stream.out();
    frontend_message::write_close(out, Target::Portal, OWN_NAME);
    frontend_message::write_close(out, Target::Statement, OWN_NAME);
    frontend_message::write_sync(out);
    answer(backend).await
}

/// Waits for the answer to one message that ends in ReadyForQuery.
///
/// # Errors
/// As [`run`].
pub async fn answer(backend: &mut Backend) -> Result<Reply, CommandError> {
    let mut rows = Vec::new();
    let mut reply = answer_each(backend, |row| rows.push(text_row(&row))).await?;
    reply.rows = rows;
    Ok(reply)
}

/// [`answer`] whose rows (DataRow) are given to `row` one by one.
///
/// # Errors
/// As [`run`].
pub async fn answer_each(
    backend: &mut Backend,
    mut row: impl FnMut(Frame),
) -> Result<Reply, CommandError> {
    let mut reply = Reply {
        tag: String::new(),
        rows: Vec::new(),
        parameter_types: Vec::new(),
        description: None,
        asides: Vec::new(),
        status: TransactionStatus::Idle,
    };
    let mut refused = None;
    loop {
        let frame = match backend.stream.read_frame().await {
            Ok(frame) => frame,
            Err(source) => return Err(lost(backend, source)),
        };
        match frame.tag() {
            b'D' => row(frame),
            b't' => {
                let types = backend_message::read_parameter_description(frame.body());
                reply.parameter_types = types.unwrap_or_default();
            }
            b'T' => reply.description = Some(frame),
            b'C' => reply.tag = tag(&frame),
            b'E' => refused = refused.or(Some(frame)),
            b'S' => {
                backend.note_parameter(frame.body());
                reply.asides.push(frame);
            }
            b'N' | b'A' => reply.asides.push(frame),
            b'Z' => {
                reply.status = backend_message::read_ready_for_query(frame.body())
                    .unwrap_or(TransactionStatus::Failed);
                return match refused {
                    Some(frame) => Err(CommandError::Refused(backend.told(frame))),
                    None => Ok(reply),
                };
            }
            _ => {}
        }
    }
}

/// Names the shard of a broken connection, which nobody uses any more.
pub fn lost(backend: &mut Backend, source: StreamError) -> CommandError {
    backend.mark_broken();
    CommandError::Lost {
        shard: backend.shard_name.clone(),
        source,
    }
}

fn tag(frame: &Frame) -> String {
    backend_message::read_command_complete(frame.body())
        .map(|tag| tag.to_string())
        .unwrap_or_default()
}

fn text_row(frame: &Frame) -> Vec<Option<String>> {
    let Ok(row) = DataRow::read(frame.body()) else {
        return Vec::new();
    };
    row.map(|value| {
        value
            .ok()
            .flatten()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    })
    .collect()
}

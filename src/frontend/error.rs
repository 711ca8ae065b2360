//! How a conversation's step ends early, and the errors that only a session can raise.

use crate::backend::control::ControlError;
use crate::executor::ExecuteError;
use crate::planner::Refusal;
use crate::planner::plan::{Plan, StepSql};
use crate::sql::position;
use crate::transaction::JoinError;
use crate::transaction::command::CommandError;
use crate::transaction::commit::CommitError;
use crate::transaction::pin::Reasons;
use crate::wire::error_response::{self, ErrorReply, Fault, Severity};
use crate::wire::frame::{Frame, MessageError};
use crate::wire::sqlstate::SqlState;
use crate::wire::stream::StreamError;
use bytes::BytesMut;

/// Why a step ended early.
#[derive(Debug)]
pub enum Stop {
    /// The client is gone; so is the session.
    Gone,
    /// The client is to be told this; the session goes on.
    Error(Box<dyn ErrorReply + Send + Sync>),
    /// The client is to be passed this ErrorResponse of a shard; the session goes on.
    Shard(Frame),
    /// The client has been told; the session goes on.
    Told,
    /// Nothing has run: it may be tried again on another topology.
    Later(Later),
}

/// Why something could not begin.
#[derive(Debug)]
pub struct Later {
    /// The topology that it was planned against.
    pub generation: u64,
    /// What it comes to if there is no other in time.
    pub otherwise: Box<Stop>,
}

impl Stop {
    /// Whether it is this refusal of the planner.
    pub fn is_refusal(&self, refusal: Refusal) -> bool {
        matches!(self, Self::Error(error) if error.refusal() == Some(refusal.code()))
    }

    /// An error of a part of the client's string that begins `offset` characters into it.
    pub fn at(error: impl ErrorReply, offset: u32) -> Self {
        let mut shown = BytesMut::new();
        error_response::write_error_reply(&mut shown, &error, Severity::Error);
        let frame = Frame::new(shown.freeze());
        Self::Shard(shifted(&frame, i64::from(offset)))
    }

    /// The same, where it is about a text that begins `offset` characters into what the client sent.
    pub fn shifted(self, offset: i64) -> Self {
        match self {
            Self::Shard(frame) if offset != 0 => Self::Shard(shifted(&frame, offset)),
            stop => stop,
        }
    }
}

impl Stop {
    /// The same, where it is about the text of one of the plan's steps, which were made of `sql`.
    pub fn in_text_of(self, plan: &Plan, sql: &str) -> Self {
        let Self::Shard(frame) = self else {
            return self;
        };
        let rewritten = plan.steps.iter().filter_map(|step| match &step.sql {
            StepSql::AsSent => None,
            StepSql::Rewritten(text) => Some(text),
        });
        let position = error_response::position(frame.body());
        let Some(position) = position.and_then(|position| usize::try_from(position).ok()) else {
            return Self::Shard(frame);
        };
        let as_sent = rewritten.clone().count() < plan.steps.len();
        let places = rewritten.map(|text| position::in_clients_text(sql, text, position));
        let mut places = places.chain(as_sent.then_some(Some(position)));
        // Which step it was is not said.
        let first = places.next().flatten();
        let place = first.filter(|_| places.all(|place| place == first));
        if place == Some(position) {
            return Self::Shard(frame);
        }
        let mut placed = BytesMut::new();
        let place = place.and_then(|place| i64::try_from(place).ok());
        error_response::write_shard_error_at(&mut placed, frame.body(), place);
        Self::Shard(Frame::new(placed.freeze()))
    }
}

fn shifted(frame: &Frame, offset: i64) -> Frame {
    let mut shifted = BytesMut::new();
    error_response::write_shard_error(&mut shifted, frame.body(), offset);
    Frame::new(shifted.freeze())
}

impl<E: ErrorReply + Send + Sync + 'static> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(Box::new(error))
    }
}

/// What the client hears of a failed join.
pub fn of_join(error: JoinError) -> Stop {
    match error {
        JoinError::Command(error) => of_command(error),
        error => error.into(),
    }
}

/// What the client hears of a failed command of the router's own.
pub fn of_command(error: CommandError) -> Stop {
    match error {
        CommandError::Refused(frame) => Stop::Shard(frame),
        error => error.into(),
    }
}

/// What the client hears of a failed commit.
pub fn of_commit(error: CommitError) -> Stop {
    match error {
        CommitError::RolledBack(error) => of_command(error),
        error => error.into(),
    }
}

/// What the client hears of a failed execution.
pub fn of_execute(error: ExecuteError) -> Stop {
    match error {
        ExecuteError::ClientGone => Stop::Gone,
        ExecuteError::Shard(frame) => Stop::Shard(frame),
        error => error.into(),
    }
}

/// A client's stream failed.
pub fn of_client(_: StreamError) -> Stop {
    Stop::Gone
}

/// Errors that only a session can raise.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Any statement in a failed block but its end.
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    FailedBlock,
    /// A shard's slots became others while a statement was about to begin there, or in a block that has one snapshot.
    #[error("the slots of shard \"{shard}\" have changed while the transaction was under way")]
    Moved {
        /// The shard.
        shard: String,
    },
    /// A cancel of what was held.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// `statement_timeout` of what was held.
    #[error("canceling statement due to statement timeout")]
    StatementTimeout,
    /// ROLLBACK TO in a block that lost a shard.
    #[error("a shard of this transaction was lost, which no savepoint brings back")]
    TornBlock,
    /// Parse of a string with several statements.
    #[error("cannot insert multiple commands into a prepared statement")]
    SeveralStatements,
    /// Bind or Describe of the unnamed statement after it ended.
    #[error("unnamed prepared statement does not exist")]
    NoUnnamedStatement,
    /// Bind or Describe of a statement that was not parsed.
    #[error("prepared statement \"{0}\" does not exist")]
    UnknownStatement(String),
    /// Execute or Describe of a portal that was not bound.
    #[error("portal \"{0}\" does not exist")]
    UnknownPortal(String),
    /// A second Execute of what has no rows.
    #[error("portal \"{0}\" cannot be run")]
    PortalCannotBeRun(String),
    /// Parse under a name that is taken.
    #[error("prepared statement \"{0}\" already exists")]
    DuplicateStatement(String),
    /// EXECUTE with more or fewer arguments than there are parameters.
    #[error("wrong number of parameters for prepared statement \"{name}\"")]
    WrongArguments {
        /// The statement's name.
        name: String,
        /// How many parameters it has.
        expected: usize,
        /// How many arguments there were.
        given: usize,
    },
    /// Bind with more or fewer values than the statement has parameters.
    #[error(
        "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {expected}"
    )]
    WrongValues {
        /// The statement's name.
        name: String,
        /// How many parameters it has.
        expected: usize,
        /// How many values there were.
        given: usize,
    },
    /// Bind under a name that is taken.
    #[error("cursor \"{0}\" already exists")]
    DuplicatePortal(String),
    /// A client's prepared statements are over their limit.
    #[error("too many prepared statements in this session")]
    TooManyStatements {
        /// `limits.prepared_statements`.
        max: usize,
    },
    /// A client's portals are over their limit.
    #[error("too many portals in this session")]
    TooManyPortals {
        /// `limits.portals`.
        max: usize,
    },
    /// What a block has set, and its savepoints, are over their limit.
    #[error("the transaction sets too much, or has too many savepoints")]
    BlockTooLong {
        /// `limits.block_bytes`.
        max: usize,
    },
    /// A savepoint command outside a block.
    #[error("{0} can only be used in transaction blocks")]
    NoBlock(&'static str),
    /// A statement that cannot run inside a block.
    #[error("{0} cannot run inside a transaction block")]
    InBlock(&'static str),
    /// The same, after others of its pipeline.
    #[error("{0} cannot be executed within a pipeline")]
    InPipeline(&'static str),
    /// A savepoint that does not exist.
    #[error("savepoint \"{0}\" does not exist")]
    NoSavepoint(String),
    /// A setting of ours that does not exist or cannot have that value.
    #[error("invalid value for parameter \"{name}\": \"{value}\"")]
    RouterSetting {
        /// The setting.
        name: String,
        /// What it was to be.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// An encoding that PostgreSQL does not know either.
    #[error("invalid value for parameter \"client_encoding\": \"{0}\"")]
    NoEncoding(String),
    /// A setting of ours that does not exist.
    #[error("unrecognized configuration parameter \"{0}\"")]
    UnknownSetting(String),
    /// Refused, with a stable code.
    #[error("{what} is not supported through the router")]
    Refused {
        /// What.
        what: String,
        /// The stable code.
        code: &'static str,
        /// Why.
        reason: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// A message that cannot be read.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message with an unknown type.
    #[error("invalid frontend message type {0}")]
    UnknownMessage(u8),
    /// A message is too large to be held once for each of several shards.
    #[error("a message of {bytes} bytes is too large for several shards")]
    RequestTooLarge {
        /// Its size.
        bytes: usize,
        /// `limits.request_bytes`.
        max: usize,
    },
    /// A backend that the session kept is gone.
    #[error("lost the connection to shard {shard}, and with it what the session had there")]
    LostPin {
        /// The shard's name.
        shard: String,
        /// What it had there.
        reasons: Reasons,
    },
    /// The rows that an UPDATE gave another key are not those that were found under it.
    #[error("the rows whose sharding key was changed cannot be moved")]
    KeyMove,
    /// A sequence's values could not be had.
    #[error("cannot draw values of a sequence: {0}")]
    Sequence(#[source] ControlError),
    /// A shard did not tell the time.
    #[error("cannot ask a shard for the time: {0}")]
    Clock(#[source] ControlError),
    /// The router stops.
    #[error("terminating connection due to administrator command")]
    Stopping,
    /// A statement outside a block failed on one shard after it had run on others.
    #[error("the statement ran on some shards only")]
    PartlyDone {
        /// Where it ran.
        done: String,
        /// Where it failed, and how.
        failed: String,
    },
}

impl ErrorReply for SessionError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::FailedBlock | Self::TornBlock => SqlState::IN_FAILED_SQL_TRANSACTION,
            Self::SeveralStatements | Self::WrongArguments { .. } => SqlState::SYNTAX_ERROR,
            Self::WrongValues { .. } => SqlState::PROTOCOL_VIOLATION,
            Self::UnknownStatement(_) | Self::NoUnnamedStatement => {
                SqlState::INVALID_SQL_STATEMENT_NAME
            }
            Self::UnknownPortal(_) => SqlState::INVALID_CURSOR_NAME,
            Self::PortalCannotBeRun(_) => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::DuplicateStatement(_) => SqlState::DUPLICATE_PREPARED_STATEMENT,
            Self::DuplicatePortal(_) => SqlState::DUPLICATE_CURSOR,
            Self::TooManyStatements { .. }
            | Self::TooManyPortals { .. }
            | Self::BlockTooLong { .. }
            | Self::RequestTooLarge { .. } => SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            Self::NoBlock(_) => SqlState::NO_ACTIVE_SQL_TRANSACTION,
            Self::InBlock(_) | Self::InPipeline(_) => SqlState::ACTIVE_SQL_TRANSACTION,
            Self::NoSavepoint(_) => SqlState::INVALID_SAVEPOINT,
            Self::RouterSetting { .. } | Self::NoEncoding(_) => SqlState::INVALID_PARAMETER_VALUE,
            Self::UnknownSetting(_) => SqlState::UNDEFINED_OBJECT,
            Self::Refused { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Message(error) => error.sqlstate(),
            Self::UnknownMessage(_) => SqlState::PROTOCOL_VIOLATION,
            Self::LostPin { .. } => SqlState::CONNECTION_FAILURE,
            Self::Sequence(ControlError::Query { source, .. }) => {
                let code = source.code().map(|code| code.code().as_bytes());
                let code = code.and_then(SqlState::parse);
                code.unwrap_or(SqlState::CONNECTION_FAILURE)
            }
            Self::Sequence(_) | Self::Clock(_) => SqlState::CONNECTION_FAILURE,
            Self::Stopping => SqlState::ADMIN_SHUTDOWN,
            Self::Moved { .. } => SqlState::SERIALIZATION_FAILURE,
            Self::Cancelled | Self::StatementTimeout => SqlState::QUERY_CANCELED,
            Self::PartlyDone { .. } | Self::KeyMove => SqlState::INTERNAL_ERROR,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Stopping | Self::Moved { .. } => Fault::Router,
            Self::Cancelled | Self::StatementTimeout => Fault::Client,
            Self::PartlyDone { .. }
            | Self::LostPin { .. }
            | Self::KeyMove
            | Self::Sequence(_)
            | Self::Clock(_) => Fault::Backend,
            _ => Fault::Client,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::TooManyStatements { max } => Some(format!("limits.prepared_statements is {max}")),
            Self::TooManyPortals { max } => Some(format!("limits.portals is {max}")),
            Self::BlockTooLong { max } => Some(format!("limits.block_bytes is {max}")),
            Self::RequestTooLarge { max, .. } => Some(format!("limits.request_bytes is {max}")),
            Self::Refused { reason, .. } => Some(sentence(reason)),
            Self::WrongArguments {
                expected, given, ..
            } => Some(format!("Expected {expected} parameters but got {given}.")),
            Self::KeyMove => Some(
                "The shard has other rows of the new key, which does not belong there.".to_owned(),
            ),
            Self::LostPin { reasons, .. } => Some(format!("It was kept for: {reasons}")),
            Self::PartlyDone { done, failed } => {
                Some(format!("It ran on {done} and failed on {failed}"))
            }
            Self::RouterSetting { expected, .. } => Some(format!("It may be {expected}")),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => Some((*hint).to_owned()),
            Self::PartlyDone { .. } => {
                Some("Mend what failed there, then run the statement again.".to_owned())
            }
            Self::TooManyStatements { .. } => {
                Some("Close statements that are no longer used.".to_owned())
            }
            Self::TooManyPortals { .. } => {
                Some("Close portals that are no longer used, or send Sync more often.".to_owned())
            }
            Self::LostPin { .. } => {
                Some("Lock, listen or make again what the session needs.".to_owned())
            }
            Self::TornBlock => Some("Use ROLLBACK and try the transaction again.".to_owned()),
            Self::BlockTooLong { .. } => {
                Some("Release savepoints, or end the transaction.".to_owned())
            }
            Self::RequestTooLarge { .. } => Some(
                "Name the sharding key, so that one shard runs the statement, or raise limits.request_bytes."
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// A reason as a full sentence.
fn sentence(reason: &str) -> String {
    let mut letters = reason.chars();
    let first = letters.next().map(char::to_uppercase);
    first
        .into_iter()
        .flatten()
        .chain(letters)
        .chain(['.'])
        .collect()
}

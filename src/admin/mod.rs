//! The operators' console: what its commands mean and do. [`command`] reads them, [`show`] answers questions, [`act`]
//! changes something. Knows no socket: the conversation is `frontend::console`. Start at [`run`].

pub mod command;
pub mod answer;
pub mod questions;
pub mod show;
mod cluster;
mod pooler;
mod ask;
mod prepared;
mod moves;
mod map_change;
mod map;
pub mod route;
pub mod act;
mod time;

use crate::backend::control::ControlError;
use crate::backend::reload::ReloadError;
use crate::config::rewrite::RewriteError;
use crate::config::{ConfigError, User};
use crate::rebalance::side::MoveError;
use crate::router::Router;
use crate::topology::key_value::KeyError;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use answer::Answer;
use command::{Change, Command};
use map::MapError;
use std::sync::Arc;

/// The database that clients ask for to talk to the console.
pub use crate::config::CONSOLE_DATABASE as DATABASE;

/// What somebody may do in the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// `monitor = true`: look.
    Monitor,
    /// `admin = true`: all.
    Admin,
}

/// Who talks to the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The user's name.
    pub name: Arc<str>,
    /// What it may do.
    pub rights: Rights,
}

impl Operator {
    /// The user as an operator; None if it is not one.
    pub fn of(user: &User) -> Option<Self> {
        let rights = match (user.admin, user.monitor) {
            (true, _) => Rights::Admin,
            (false, true) => Rights::Monitor,
            (false, false) => return None,
        };
        Some(Self {
            name: user.name.as_str().into(),
            rights,
        })
    }
}

/// Why a command that was understood did not do what it says.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Only an administrator may.
    #[error("permission denied for {verb}")]
    NotAllowed {
        /// The command's words.
        verb: &'static str,
    },
    /// A database that is not there, or is the console's own.
    #[error("database \"{0}\" does not exist")]
    NoDatabase(String),
    /// A shard that is not there.
    #[error("shard \"{0}\" does not exist")]
    NoShard(String),
    /// A table that is not there, or not sharded.
    #[error("\"{0}\" is not a sharded table")]
    NoShardedTable(String),
    /// A key that is none.
    #[error("\"{key}\" is {source}")]
    Key {
        /// As given.
        key: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The files are wrong.
    #[error("the files cannot be loaded: nothing is changed")]
    Files(#[from] ConfigError),
    /// The files are right, and cannot be taken over.
    #[error("the shard map stays as it was: {0}")]
    Reload(#[from] ReloadError),
    /// A statement that would be refused.
    #[error("{0}")]
    Refused(Box<dyn ErrorReply + Send + Sync>),
    /// A shard, or the way to it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A step of a move.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// An edit of the shard map.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Slots cannot move for these reasons.
    #[error("slots cannot move yet: nothing has begun")]
    Blocked(Vec<String>),
    /// Moves are under way, and none can have what was asked.
    #[error("no move can be {what}")]
    NoMoveCan {
        /// What was asked.
        what: &'static str,
        /// Of each move.
        why: Vec<String>,
        /// What to do instead.
        hint: &'static str,
    },
}

impl ErrorReply for AdminError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NotAllowed { .. } => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::NoDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::NoShard(_) => SqlState::UNDEFINED_OBJECT,
            Self::NoShardedTable(_) => SqlState::UNDEFINED_TABLE,
            Self::Key { .. } => SqlState::INVALID_TEXT_REPRESENTATION,
            Self::Files(_) => SqlState::CONFIG_FILE_ERROR,
            Self::Reload(_) | Self::Blocked(_) | Self::NoMoveCan { .. } => {
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Self::Refused(error) => error.sqlstate(),
            Self::Control(ControlError::Closed) => SqlState::ADMIN_SHUTDOWN,
            Self::Control(_) => SqlState::CONNECTION_FAILURE,
            Self::Map(error) => match error {
                MapError::Declared(_) => SqlState::DUPLICATE_OBJECT,
                MapError::Wrong(_) => SqlState::CONFIG_FILE_ERROR,
                MapError::File(RewriteError::Io { .. }) => SqlState::IO_ERROR,
                MapError::NotLoaded { .. }
                | MapError::Touched
                | MapError::Needed { .. }
                | MapError::Pin(_)
                | MapError::Text(_)
                | MapError::File(RewriteError::Locked(_)) => {
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
                }
            },
            Self::Move(error) => match error {
                MoveError::Control(ControlError::Closed) => SqlState::ADMIN_SHUTDOWN,
                MoveError::Control(_) | MoveError::Replication(_) | MoveError::Query { .. } => {
                    SqlState::CONNECTION_FAILURE
                }
                MoveError::Late { .. }
                | MoveError::TimedOut { .. }
                | MoveError::Stuck(_)
                | MoveError::Differs(_)
                | MoveError::Interrupted
                | MoveError::Retains { .. }
                | MoveError::State(_) => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            },
        }
    }
    fn fault(&self) -> Fault {
        match self {
            Self::NotAllowed { .. }
            | Self::NoDatabase(_)
            | Self::NoShard(_)
            | Self::NoShardedTable(_)
            | Self::Key { .. } => Fault::Client,
            Self::NoMoveCan { .. } => Fault::Client,
            Self::Map(MapError::File(_)) => Fault::Router,
            Self::Map(_) => Fault::Client,
            Self::Files(_) | Self::Reload(_) => Fault::Router,
            Self::Refused(error) => error.fault(),
            Self::Control(_) | Self::Move(_) | Self::Blocked(_) => Fault::Backend,
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::Files(problems) => Some(problems.to_string()),
            Self::Refused(error) => error.detail(),
            Self::Map(MapError::Wrong(problems)) => Some(problems.to_string()),
            Self::Map(MapError::NotLoaded { keys }) => Some(keys.join("\n")),
            Self::Blocked(lines) | Self::NoMoveCan { why: lines, .. } => Some(lines.join("\n")),
            Self::NotAllowed { .. }
            | Self::NoDatabase(_)
            | Self::NoShard(_)
            | Self::NoShardedTable(_)
            | Self::Key { .. }
            | Self::Reload(_)
            | Self::Control(_)
            | Self::Map(_)
            | Self::Move(_) => None,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotAllowed { .. } => {
                Some("It takes a user with admin = true in pgring.toml.".to_owned())
            }
            Self::NoShard(_) => Some("SHOW SHARDS lists them.".to_owned()),
            Self::NoDatabase(_) => Some("SHOW DATABASES lists them.".to_owned()),
            Self::NoShardedTable(_) => Some("SHOW TABLES lists them.".to_owned()),
            Self::Refused(error) => error.hint(),
            Self::Reload(ReloadError::Owns { .. }) => {
                Some("DRAIN SHARD, then REBALANCE and COMPLETE REBALANCE, empty it.".to_owned())
            }
            Self::Blocked(_) => Some("PLAN REBALANCE shows all of it.".to_owned()),
            Self::NoMoveCan { hint, .. } => Some((*hint).to_owned()),
            Self::Map(error) => match error {
                MapError::NotLoaded { .. } | MapError::Touched => {
                    Some("RELOAD takes the file over.".to_owned())
                }
                MapError::Declared(_) | MapError::Text(_) => {
                    Some("Edit the file, then RELOAD.".to_owned())
                }
                MapError::Needed { .. } => Some(
                    "Edit the file where no command does, then RELOAD; UNPIN KEY takes a key's pin away."
                        .to_owned(),
                ),
                MapError::Pin(_) | MapError::Wrong(_) | MapError::File(_) => None,
            },
            Self::Key { .. }
            | Self::Files(_)
            | Self::Reload(_)
            | Self::Control(_)
            | Self::Move(_) => None,
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Refused(error) => error.refusal(),
            _ => None,
        }
    }
}

/// Does what the command says. What changes something is written to the log (target `audit`), with who and how it ended.
///
/// # Errors
/// [`AdminError`].
///
/// # Cancel safety
/// A dropped call has done what it has done; each command may be given again.
pub async fn run(
    router: &Arc<Router>,
    operator: &Operator,
    command: &Command,
) -> Result<Answer, AdminError> {
    let change = match command {
        Command::Show(show) => return show::run(router, *show).await,
        Command::ExplainRoute(sql) => return route::explain_all(router, sql),
        Command::WhereKey { key, table } => return cluster::where_key(router, key, table.as_ref()),
        Command::CheckPlacement => return moves::check_placement(router).await,
        Command::PlanRebalance => return moves::plan(router).await,
        Command::Check => return Ok(Answer::rows(cluster::check(router))),
        Command::ClientSetting => return Ok(Answer::default()),
        Command::Change(change) => change,
    };
    let verb = change.tag();
    let mut audit = Audit {
        user: &operator.name,
        change,
        told: false,
    };
    let done = match operator.rights {
        Rights::Monitor if !change.only_looks() => Err(AdminError::NotAllowed { verb }),
        Rights::Monitor | Rights::Admin => act::run(router, change).await,
    };
    audit.tell(done.as_ref().err());
    done
}

/// Writes to the log who changed what, and how that ended: also if nobody waited for it.
struct Audit<'a> {
    user: &'a str,
    change: &'a Change,
    told: bool,
}

impl Audit<'_> {
    fn tell(&mut self, error: Option<&AdminError>) {
        self.told = true;
        let (user, command) = (self.user, one_line(self.change));
        match error {
            None => tracing::info!(target: "audit", user, %command, "console: done"),
            Some(error) => {
                let error = one_line(error);
                tracing::warn!(target: "audit", user, %command, %error, "console: not done");
            }
        }
    }
}

/// What an operator wrote may have line ends in it: nobody writes lines of the log.
fn one_line(text: &impl std::fmt::Display) -> String {
    let text = text.to_string();
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(shown).collect()
}

impl Drop for Audit<'_> {
    fn drop(&mut self) {
        if !self.told {
            let (user, command) = (self.user, one_line(self.change));
            tracing::warn!(target: "audit", user, %command, "console: left before it was done");
        }
    }
}

//! The operators' console: what its commands mean and do. [`command`] reads them, [`show`] answers questions, [`act`]
//! changes something. Knows no socket: the conversation is `frontend::console`. Start at [`run`].

pub mod command;
pub mod answer;
pub mod questions;
pub mod show;
mod cluster;
mod pooler;
pub mod act;
mod time;

use crate::backend::control::ControlError;
use crate::config::User;
use crate::router::Router;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use answer::Answer;
use command::Command;
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
    /// A shard, or the way to it.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl ErrorReply for AdminError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NotAllowed { .. } => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::NoDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::NoShard(_) => SqlState::UNDEFINED_OBJECT,
            Self::Control(ControlError::Closed) => SqlState::ADMIN_SHUTDOWN,
            Self::Control(_) => SqlState::CONNECTION_FAILURE,
        }
    }
    fn fault(&self) -> Fault {
        match self {
            Self::NotAllowed { .. } | Self::NoDatabase(_) | Self::NoShard(_) => Fault::Client,
            Self::Control(_) => Fault::Backend,
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::NotAllowed { .. } | Self::NoDatabase(_) | Self::NoShard(_) | Self::Control(_) => {
                None
            }
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotAllowed { .. } => {
                Some("It takes a user with admin = true in pgring.toml.".to_owned())
            }
            Self::NoShard(_) => Some("SHOW SHARDS lists them.".to_owned()),
            Self::NoDatabase(_) => Some("SHOW DATABASES lists them.".to_owned()),
            Self::Control(_) => None,
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::NotAllowed { .. } | Self::NoDatabase(_) | Self::NoShard(_) | Self::Control(_) => {
                None
            }
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
        Command::ClientSetting => return Ok(Answer::default()),
        Command::Change(change) => change,
    };
    let verb = change.tag();
    let done = match operator.rights {
        Rights::Monitor => Err(AdminError::NotAllowed { verb }),
        Rights::Admin => act::run(router, change).await,
    };
    let user = &*operator.name;
    match &done {
        Ok(_) => tracing::info!(target: "audit", user, command = %change, "console: done"),
        Err(error) => {
            tracing::warn!(target: "audit", user, command = %change, %error, "console: not done");
        }
    }
    done
}

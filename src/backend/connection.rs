//! [`Backend`]: one raw connection to a shard, framed by `wire`; and the [`CancelToken`] that stops what it runs. Owns
//! what is known of the connection's state; must not know which statement runs on it or why.

use super::defaults::SettingValues;
use super::login::{self, ConnectError, ConnectProblem, Greeting};
use super::presence::{Attendance, Presence};
use super::statements::PreparedStatements;
use crate::config::{Address, Config};
use crate::topology::ShardId;
use crate::wire::backend_message;
use crate::wire::error_response::{self, Report, Severity};
use crate::wire::frame::Frame;
use crate::wire::frontend_message;
use crate::wire::scram::{ClientKey, ServerKey};
use crate::wire::sqlstate::SqlState;
use crate::wire::stream::{FrameStream, StreamError};
use bytes::BytesMut;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How long a cancel request may take, from connecting to the shard's hanging up.
const CANCEL_WAIT: Duration = Duration::from_secs(5);
/// No message to a cancel request is read: a shard answers none.
const CANCEL_FRAME_BYTES_MAX: usize = 1024;

/// Who logs in to the shards.
#[derive(Debug, Clone)]
pub struct Login {
    /// Role name, the same on every shard.
    pub user: Arc<str>,
    /// How it proves itself.
    pub secret: Secret,
}

/// How a role proves itself to a shard. Its `Debug` form tells nothing.
#[derive(Clone)]
pub enum Secret {
    /// Not at all: the shards trust it.
    None,
    /// By its password.
    Password(Arc<str>),
    /// By the SCRAM keys that a client's own login showed; good only where all shards hold the same verifier.
    ScramKeys {
        /// `HMAC(SaltedPassword, "Client Key")`.
        client_key: ClientKey,
        /// `HMAC(SaltedPassword, "Server Key")`.
        server_key: ServerKey,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(…)",
            Self::ScramKeys { .. } => "ScramKeys(…)",
        })
    }
}

/// One shard as a place to connect to, with the limits that hold for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Which shard.
    pub shard: ShardId,
    /// Its name, which its ownership row must carry.
    pub shard_name: Arc<str>,
    /// Its database.
    pub database: Arc<str>,
    /// Its servers; one is the primary.
    pub nodes: Arc<[Address]>,
    /// `pool.connect`: from the first packet to ready.
    pub connect: Duration,
    /// `limits.frame_bytes`.
    pub frame_bytes_max: usize,
    /// `limits.backend_prepared_statements`.
    pub statements_max: usize,
}

impl Endpoint {
    /// The shard that the map declares so, under the limits of `config`.
    pub fn new(config: &Config, shard: ShardId, declared: &crate::config::Shard) -> Self {
        Self {
            shard,
            shard_name: declared.name.as_str().into(),
            database: declared.database.as_str().into(),
            nodes: declared.nodes.clone().into(),
            connect: config.pool.connect,
            frame_bytes_max: config.limits.frame_bytes,
            statements_max: config.limits.backend_prepared_statements,
        }
    }
}

/// Whether a connection may go back to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackendState {
    /// A session holds it; what it runs is not known here.
    InUse,
    /// Given back at ReadyForQuery 'I'.
    Clean,
    /// Something went wrong on it: never used again.
    Broken,
}

/// One connection to a shard, logged in and checked to be the shard that it should be.
#[derive(Debug)]
pub struct Backend {
    /// The socket with its buffers.
    pub stream: FrameStream,
    /// Which shard.
    pub shard: ShardId,
    /// The shard's name.
    pub shard_name: Arc<str>,
    /// The process that serves it there.
    pub pid: u32,
    /// Every parameter that the shard reports, as it reported it last.
    pub parameters: BTreeMap<Arc<str>, Arc<str>>,
    /// Router-wide ids of the statements that are prepared here.
    pub prepared: PreparedStatements,
    /// Router-wide id of what the unnamed statement is, where that is known.
    pub unnamed: Option<u64>,
    /// The session settings that are known to be in force here.
    pub applied: Arc<SettingValues>,
    /// The customized settings (`a.b`) that may have been set here at some time: PostgreSQL forgets their values, but not
    /// that they are there.
    pub custom: Arc<BTreeSet<Arc<str>>>,
    /// Those of them that are there for sure.
    pub custom_made: Arc<BTreeSet<Arc<str>>>,
    /// What the router says that runs here.
    pub(super) attendance: Attendance,
    /// Something ran here that may have left more than settings behind: it is not given back as it is.
    pub tainted: bool,
    pub(super) state: BackendState,
    parameters_changed: bool,
    cancel: CancelToken,
}

/// What a new connection should find, and where it is told of.
pub struct Cluster<'a> {
    /// Checked where it is known.
    pub id: Option<&'a str>,
    /// Of the shard.
    pub(super) presence: &'a Arc<Presence>,
}

impl Backend {
    /// Connects to one node, logs in with these settings, and makes sure that it is the shard it should be.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing is left open.
    pub async fn connect(
        endpoint: &Endpoint,
        address: &Address,
        login: &Login,
        settings: &SettingValues,
        cluster: &Cluster<'_>,
    ) -> Result<(Self, Greeting), ConnectError> {
        let connecting = Self::connect_now(endpoint, address, login, settings, cluster);
        let connected = timeout(endpoint.connect, connecting).await;
        let connected = connected.unwrap_or(Err(ConnectProblem::TimedOut {
            after: endpoint.connect,
        }));
        connected.map_err(|problem| ConnectError {
            shard: endpoint.shard_name.clone(),
            address: Some(address.clone()),
            problem,
        })
    }

    async fn connect_now(
        endpoint: &Endpoint,
        address: &Address,
        login: &Login,
        settings: &SettingValues,
        cluster: &Cluster<'_>,
    ) -> Result<(Self, Greeting), ConnectProblem> {
        let connected = FrameStream::connect(address, endpoint.frame_bytes_max).await;
        let mut stream = connected.map_err(ConnectProblem::Unreachable)?;
        let logged_in = login::log_in(&mut stream, &endpoint.database, login, settings).await?;
        let attendance = cluster.presence.enter(logged_in.pid);
        let greeting = login::greet(&mut stream, &endpoint.shard_name, cluster.id).await?;
        let backend = Self {
            stream,
            shard: endpoint.shard,
            shard_name: endpoint.shard_name.clone(),
            pid: logged_in.pid.cast_unsigned(),
            parameters: logged_in.parameters,
            prepared: PreparedStatements::new(endpoint.statements_max),
            unnamed: None,
            applied: greeting.settings.clone(),
            custom: Arc::default(),
            custom_made: Arc::default(),
            attendance,
            tainted: false,
            state: BackendState::InUse,
            parameters_changed: false,
            cancel: CancelToken(Arc::new(CancelTarget {
                address: address.clone(),
                pid: logged_in.pid,
                key: logged_in.key.into(),
                deadlock: Mutex::default(),
            })),
        };
        Ok((backend, greeting))
    }

    /// Something begins here that was planned against the topology of this generation. False: nothing has begun, since
    /// the shard has changed and it must be planned again.
    pub fn begin(&self, generation: u64) -> bool {
        self.attendance.begin(generation)
    }

    /// What began has ended: no statement runs, and no transaction is open.
    pub fn rest(&self) {
        self.attendance.rest();
    }

    /// The generation against which that was planned which began here first; none if nothing has.
    pub fn since(&self) -> Option<u64> {
        self.attendance.since()
    }

    /// What stops the statement that runs here.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Whether floats in text form have fewer digits than tell them apart.
    pub fn rounds_floats(&self) -> bool {
        let digits = self.applied.get("extra_float_digits");
        digits.is_some_and(|digits| digits.parse::<i32>().map_or(true, |digits| digits < 1))
    }

    /// Notes a ParameterStatus by its body.
    pub fn note_parameter(&mut self, body: &[u8]) {
        let Ok((name, value)) = backend_message::read_parameter_status(body) else {
            return self.mark_broken();
        };
        match self.parameters.get_mut(name) {
            Some(known) if **known == *value => return,
            Some(known) => *known = value.into(),
            None => {
                self.parameters.insert(name.into(), value.into());
            }
        }
        self.parameters_changed = true;
    }

    /// Whether a parameter changed since this was asked last.
    pub fn take_parameters_changed(&mut self) -> bool {
        std::mem::take(&mut self.parameters_changed)
    }

    /// What the unnamed statement is, is not known any more.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// What the client is told in the place of the ErrorResponse with this body: a statement that was cancelled to break
    /// a deadlock says so.
    pub fn deadlock_error(&self, body: &[u8]) -> Option<Frame> {
        if !error_response::is_cancel(body) {
            return None;
        }
        let detail = self.cancel.take_deadlock()?;
        let report = Report {
            severity: Severity::Error,
            sqlstate: SqlState::DEADLOCK_DETECTED,
            message: "deadlock detected",
            detail: Some(&detail),
            hint: None,
            position: None,
        };
        let mut out = BytesMut::new();
        report.write(&mut out);
        Some(Frame::new(out.freeze()))
    }

    /// An ErrorResponse as the client is told it: see [`Self::deadlock_error`].
    pub fn told(&self, error: Frame) -> Frame {
        self.deadlock_error(error.body()).unwrap_or(error)
    }

    /// Forgets a deadlock for which nothing was cancelled in time.
    pub fn forget_deadlock(&self) {
        self.cancel.take_deadlock();
    }

    /// This connection must not be used again.
    pub fn mark_broken(&mut self) {
        self.state = BackendState::Broken;
    }

    /// Whether something went wrong on it.
    pub fn is_broken(&self) -> bool {
        self.state == BackendState::Broken
    }
}

/// Stops what one backend runs, over a connection of its own.
#[derive(Clone)]
pub struct CancelToken(Arc<CancelTarget>);

struct CancelTarget {
    address: Address,
    pid: i32,
    key: Box<[u8]>,
    /// The deadlock that is broken by a cancel which has not been heard of yet.
    deadlock: Mutex<Option<Arc<str>>>,
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelToken({} at {})", self.0.pid, self.0.address)
    }
}

impl CancelToken {
    /// Sends a CancelRequest and waits until the shard has passed it on: until it hangs up, at most 5 s. Whether
    /// anything was running, nobody says.
    ///
    /// # Errors
    /// The shard could not be reached, or gave no cancel key, or did not hang up in time.
    pub async fn cancel(&self) -> io::Result<()> {
        if self.0.key.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the shard gave no cancel key",
            ));
        }
        match timeout(CANCEL_WAIT, self.cancel_now()).await {
            Ok(cancelled) => cancelled,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Notes that the next cancel breaks this deadlock.
    pub fn note_deadlock(&self, detail: &Arc<str>) {
        *self.deadlock() = Some(detail.clone());
    }

    fn take_deadlock(&self) -> Option<Arc<str>> {
        self.deadlock().take()
    }

    fn deadlock(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        let deadlock = self.0.deadlock.lock();
        deadlock.unwrap_or_else(PoisonError::into_inner)
    }

    async fn cancel_now(&self) -> io::Result<()> {
        let mut stream = FrameStream::connect(&self.0.address, CANCEL_FRAME_BYTES_MAX).await?;
        frontend_message::write_cancel_request(stream.out(), self.0.pid, &self.0.key);
        loop {
            match stream.fill().await {
                Ok(read) => stream.consume(read),
                Err(StreamError::Closed) => return Ok(()),
                // A shard that hangs up before it has read all of a request resets the connection.
                Err(StreamError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(());
                }
                Err(StreamError::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let login = Login {
            user: "app".into(),
            secret: Secret::Password("hunter2".into()),
        };
        assert_eq!(
            format!("{login:?}"),
            "Login { user: \"app\", secret: Password(…) }"
        );
    }
}

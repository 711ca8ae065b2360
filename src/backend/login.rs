//! Logging in to a shard: startup, authentication, and the one query that tells whether the server is the shard that it
//! should be. Follows "Message Flow: Start-up" of PostgreSQL's documentation. Start at [`log_in`], then [`greet`].

use super::connection::{Login, Secret};
use super::defaults::{self, SettingValues};
use super::store::{self, RECORD, RECORD_COLUMNS};
use crate::config::Address;
use crate::topology::ownership::OwnershipRecord;
use crate::wire::backend_message::{
    self, Authentication, DataRow, ErrorFields, TransactionStatus, read_authentication, tag,
};
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::frame::{Frame, MessageError};
use crate::wire::frontend_message;
use crate::wire::scram::{self, ClientExchange, ClientExchangeError, NONCE_BYTES, ProvenExchange};
use crate::wire::sqlstate::SqlState;
use crate::wire::stream::{FrameStream, StreamError};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The one SASL mechanism that is spoken.
const SCRAM: &str = "SCRAM-SHA-256";
/// Parameters that a shard may report at login.
const PARAMETERS_MAX: usize = 1000;

/// Columns of the greeting before those of [`defaults::select_list`].
const GREETING_COLUMNS: usize = RECORD_COLUMNS + 1;

/// What the greeting asks: who the shard is, what it owns, and the settings that the router must know of.
static GREETING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {RECORD}, pg_catalog.pg_is_in_recovery(), {} FROM pgring.ownership",
        defaults::select_list()
    )
});

/// Why there is no connection to a shard.
#[derive(Debug, thiserror::Error)]
#[error("shard {shard}: {problem}")]
pub struct ConnectError {
    /// The shard's name.
    pub shard: Arc<str>,
    /// The node that was tried last.
    pub address: Option<Address>,
    /// What went wrong.
    #[source]
    pub problem: ConnectProblem,
}

/// What can go wrong between the first packet and a connection that is ready.
#[derive(Debug, thiserror::Error)]
pub enum ConnectProblem {
    /// The operating system found no way.
    #[error("cannot connect: {0}")]
    Unreachable(#[source] io::Error),
    /// It took longer than `pool.connect`.
    #[error("not connected within pool.connect ({after:?})")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The connection broke on the way.
    #[error("the connection was lost at login: {0}")]
    Lost(#[from] StreamError),
    /// The shard said no.
    #[error("{0}")]
    Refused(ShardError),
    /// The shard wants a password that the router has not.
    #[error("the shard asks for a password, and there is none")]
    NoSecret,
    /// The shard wants to be shown the password in a way that is not done.
    #[error("the shard asks for {method} authentication, which is not supported")]
    Method {
        /// What it asks for.
        method: String,
    },
    /// SCRAM failed; the shard may not be who it says.
    #[error("SCRAM authentication failed: {0}")]
    Scram(#[from] ClientExchangeError),
    /// The system has no randomness to give.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The shard's messages do not follow the protocol.
    #[error("unexpected message at login: {0}")]
    Protocol(String),
    /// The server is a standby: another node is the primary.
    #[error("the server is a standby")]
    Standby,
    /// There is no ownership row.
    #[error("the database has no pgring ownership")]
    NoOwnership,
    /// The control plane could not register the router on the shard.
    #[error("the router is not registered on the shard after pool.connect ({after:?})")]
    Unregistered {
        /// The limit.
        after: Duration,
    },
    /// The ownership row is another shard's.
    #[error("the server is not this shard: {0}")]
    WrongShard(String),
}

/// A shard's own ErrorResponse, whole.
#[derive(Debug, Clone)]
pub struct ShardError {
    /// As it came.
    pub frame: Frame,
    /// Its code.
    pub sqlstate: SqlState,
}

impl ShardError {
    pub(super) fn new(frame: Frame) -> Self {
        let sqlstate = ErrorFields::read(frame.body())
            .map_or(SqlState::INTERNAL_ERROR, |fields| fields.sqlstate);
        Self { frame, sqlstate }
    }

    fn field(&self, field: impl Fn(ErrorFields<'_>) -> Option<String>) -> Option<String> {
        ErrorFields::read(self.frame.body()).ok().and_then(field)
    }
}

impl fmt::Display for ShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ErrorFields::read(self.frame.body()) {
            Ok(fields) => f.write_str(&fields.message),
            Err(_) => f.write_str("an error that cannot be read"),
        }
    }
}

impl From<MessageError> for ConnectProblem {
    fn from(error: MessageError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl ErrorReply for ConnectError {
    fn sqlstate(&self) -> SqlState {
        match &self.problem {
            ConnectProblem::Refused(error) => error.sqlstate,
            ConnectProblem::NoSecret | ConnectProblem::Method { .. } | ConnectProblem::Scram(_) => {
                SqlState::INVALID_PASSWORD
            }
            ConnectProblem::Lost(_) => SqlState::CONNECTION_FAILURE,
            ConnectProblem::Unreachable(_)
            | ConnectProblem::TimedOut { .. }
            | ConnectProblem::Unregistered { .. }
            | ConnectProblem::NoRandomness
            | ConnectProblem::Protocol(_)
            | ConnectProblem::Standby
            | ConnectProblem::NoOwnership
            | ConnectProblem::WrongShard(_) => SqlState::UNABLE_TO_CONNECT,
        }
    }

    fn fault(&self) -> Fault {
        Fault::Backend
    }

    fn detail(&self) -> Option<String> {
        match &self.problem {
            ConnectProblem::Refused(error) => {
                error.field(|fields| fields.detail.map(|detail| detail.into_owned()))
            }
            ConnectProblem::Unreachable(_)
            | ConnectProblem::TimedOut { .. }
            | ConnectProblem::Unregistered { .. }
            | ConnectProblem::Lost(_)
            | ConnectProblem::NoSecret
            | ConnectProblem::Method { .. }
            | ConnectProblem::Scram(_)
            | ConnectProblem::NoRandomness
            | ConnectProblem::Protocol(_)
            | ConnectProblem::Standby
            | ConnectProblem::NoOwnership
            | ConnectProblem::WrongShard(_) => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match &self.problem {
            ConnectProblem::Refused(error) => error.field(|fields| fields.hint.map(|hint| hint.into_owned())),
            ConnectProblem::NoOwnership => Some("Run pgring init.".to_owned()),
            ConnectProblem::WrongShard(_) => Some("Check the nodes and the database of the shard in shards.toml.".to_owned()),
            ConnectProblem::Method { .. } => {
                Some("Give the role a SCRAM-SHA-256 password and use scram-sha-256 in the shard's pg_hba.conf.".to_owned())
            }
            ConnectProblem::NoSecret => {
                Some("Give the user a password in pgring.toml, or trust the router in the shard's pg_hba.conf.".to_owned())
            }
            ConnectProblem::Unregistered { .. } => {
                Some("See SHOW SHARDS, or the log, for what keeps the control plane from the shard.".to_owned())
            }
            ConnectProblem::Unreachable(_)
            | ConnectProblem::TimedOut { .. }
            | ConnectProblem::Lost(_)
            | ConnectProblem::Scram(_)
            | ConnectProblem::NoRandomness
            | ConnectProblem::Protocol(_)
            | ConnectProblem::Standby => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// What the shard says while it lets a role in.
pub(super) struct LoggedIn {
    pub pid: i32,
    /// Empty where the shard gave none.
    pub key: Vec<u8>,
    pub parameters: BTreeMap<Arc<str>, Arc<str>>,
}

/// Startup with these settings and authentication, until the first ReadyForQuery.
pub(super) async fn log_in(
    stream: &mut FrameStream,
    database: &str,
    login: &Login,
    settings: &SettingValues,
) -> Result<LoggedIn, ConnectProblem> {
    let who = [("user", &*login.user), ("database", database)];
    let settings = settings.iter().map(|(name, value)| (&**name, &**value));
    let parameters = who.into_iter().chain(defaults::FIXED).chain(settings);
    frontend_message::write_startup(stream.out(), parameters);
    authenticate(stream, login).await?;

    let mut logged_in = LoggedIn {
        pid: 0,
        key: Vec::new(),
        parameters: BTreeMap::new(),
    };
    loop {
        let frame = stream.read_frame().await?;
        match frame.tag() {
            tag::PARAMETER_STATUS => {
                let (name, value) = backend_message::read_parameter_status(frame.body())?;
                logged_in.parameters.insert(name.into(), value.into());
                if logged_in.parameters.len() > PARAMETERS_MAX {
                    return Err(ConnectProblem::Protocol("too many parameters".to_owned()));
                }
            }
            tag::BACKEND_KEY_DATA => {
                let data = backend_message::read_backend_key_data(frame.body())?;
                logged_in.pid = data.pid;
                logged_in.key = data.key.to_vec();
            }
            tag::READY_FOR_QUERY => {
                expect_idle(&frame)?;
                return Ok(logged_in);
            }
            tag::NOTICE_RESPONSE => {}
            tag::ERROR_RESPONSE => return Err(ConnectProblem::Refused(ShardError::new(frame))),
            other => return Err(unexpected(other)),
        }
    }
}

/// How far SCRAM got.
enum Scram {
    NotAsked,
    Started(ClientExchange),
    Answered(ProvenExchange),
    Verified,
}

async fn authenticate(stream: &mut FrameStream, login: &Login) -> Result<(), ConnectProblem> {
    let mut scram = Scram::NotAsked;
    loop {
        let frame = authentication_frame(stream).await?;
        let method = match (read_authentication(frame.body())?, scram) {
            (Authentication::Ok, Scram::NotAsked | Scram::Verified) => return Ok(()),
            (Authentication::Sasl { mechanisms }, Scram::NotAsked) => {
                if !mechanisms.contains(&SCRAM) {
                    return Err(ConnectProblem::Method {
                        method: mechanisms.join(", "),
                    });
                }
                let mut nonce = [0; NONCE_BYTES];
                getrandom::fill(&mut nonce).map_err(|_| ConnectProblem::NoRandomness)?;
                let (exchange, message) = ClientExchange::start(nonce);
                frontend_message::write_sasl_initial(stream.out(), SCRAM, message.as_bytes());
                scram = Scram::Started(exchange);
                continue;
            }
            (Authentication::SaslContinue(challenge), Scram::Started(exchange)) => {
                let secret = match &login.secret {
                    Secret::None => return Err(ConnectProblem::NoSecret),
                    Secret::Password(password) => {
                        scram::Secret::Password(password.as_bytes().to_vec())
                    }
                    Secret::ScramKeys {
                        client_key,
                        server_key,
                    } => scram::Secret::Keys(client_key.clone(), server_key.clone()),
                };
                let (proven, message) = exchange.answer(&secret, challenge)?;
                frontend_message::write_sasl_response(stream.out(), message.as_bytes());
                scram = Scram::Answered(proven);
                continue;
            }
            (Authentication::SaslFinal(signature), Scram::Answered(proven)) => {
                proven.verify(signature)?;
                scram = Scram::Verified;
                continue;
            }
            // Whoever skips a step of SCRAM has not shown that it knows the password.
            (
                Authentication::Ok
                | Authentication::Sasl { .. }
                | Authentication::SaslContinue(_)
                | Authentication::SaslFinal(_),
                _,
            ) => return Err(unexpected(tag::AUTHENTICATION)),
            (Authentication::CleartextPassword, _) => "cleartext password".to_owned(),
            (Authentication::Md5Password { .. }, _) => "md5".to_owned(),
            (Authentication::Other(code), _) => format!("another kind of ({code})"),
        };
        return Err(ConnectProblem::Method { method });
    }
}

async fn authentication_frame(stream: &mut FrameStream) -> Result<Frame, ConnectProblem> {
    loop {
        let frame = stream.read_frame().await?;
        match frame.tag() {
            tag::AUTHENTICATION => return Ok(frame),
            tag::NOTICE_RESPONSE => {}
            tag::ERROR_RESPONSE => return Err(ConnectProblem::Refused(ShardError::new(frame))),
            other => return Err(unexpected(other)),
        }
    }
}

/// What a shard says of itself to each new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Its ownership row.
    pub ownership: OwnershipRecord,
    /// The values of [`defaults::NAMES`].
    pub settings: Arc<SettingValues>,
}

/// Asks the shard who it is; refuses a standby, an uninitialised database and another shard.
pub(super) async fn greet(
    stream: &mut FrameStream,
    shard_name: &str,
    cluster_id: Option<&str>,
) -> Result<Greeting, ConnectProblem> {
    frontend_message::write_query(stream.out(), &GREETING);
    let mut row: Option<Frame> = None;
    let mut error: Option<ShardError> = None;
    loop {
        let frame = stream.read_frame().await?;
        match frame.tag() {
            tag::DATA_ROW => row = Some(frame),
            tag::ERROR_RESPONSE => error = Some(ShardError::new(frame)),
            tag::READY_FOR_QUERY => {
                expect_idle(&frame)?;
                break;
            }
            tag::ROW_DESCRIPTION
            | tag::COMMAND_COMPLETE
            | tag::NOTICE_RESPONSE
            | tag::PARAMETER_STATUS => {}
            other => return Err(unexpected(other)),
        }
    }
    if let Some(error) = error {
        return Err(match error.sqlstate {
            SqlState::INVALID_SCHEMA_NAME | SqlState::UNDEFINED_TABLE => {
                ConnectProblem::NoOwnership
            }
            _ => ConnectProblem::Refused(error),
        });
    }
    let row = row.ok_or(ConnectProblem::NoOwnership)?;
    let greeting = read_greeting(row.body())?;
    let ownership = &greeting.ownership;
    if *ownership.shard != *shard_name {
        return Err(ConnectProblem::WrongShard(format!(
            "its ownership row is of shard {}",
            ownership.shard
        )));
    }
    if cluster_id.is_some_and(|id| *ownership.cluster_id != *id) {
        return Err(ConnectProblem::WrongShard(
            "its ownership row is of another cluster".to_owned(),
        ));
    }
    Ok(greeting)
}

fn read_greeting(body: &[u8]) -> Result<Greeting, ConnectProblem> {
    let row = DataRow::read(body)?;
    let column = |index: usize| -> Result<&str, ConnectProblem> {
        let bytes = row
            .column(index)?
            .ok_or_else(|| ConnectProblem::Protocol("NULL in the greeting".to_owned()))?;
        std::str::from_utf8(bytes)
            .map_err(|_| ConnectProblem::Protocol("the greeting is not UTF-8".to_owned()))
    };
    if column(RECORD_COLUMNS)? != "f" {
        return Err(ConnectProblem::Standby);
    }
    let mut record = [""; RECORD_COLUMNS];
    for (index, value) in record.iter_mut().enumerate() {
        *value = column(index)?;
    }
    let ownership =
        store::parse_record(record).map_err(|error| ConnectProblem::Protocol(error.to_string()))?;
    if !store::is_given_out(&ownership) {
        return Err(ConnectProblem::NoOwnership);
    }
    let names = defaults::NAMES.iter().zip(GREETING_COLUMNS..);
    let setting = |(name, index): (&&str, usize)| Ok(((*name).into(), column(index)?.into()));
    let settings: Result<SettingValues, ConnectProblem> = names.map(setting).collect();
    Ok(Greeting {
        ownership,
        settings: Arc::new(settings?),
    })
}

fn expect_idle(frame: &Frame) -> Result<(), ConnectProblem> {
    match backend_message::read_ready_for_query(frame.body())? {
        TransactionStatus::Idle => Ok(()),
        TransactionStatus::InBlock | TransactionStatus::Failed => Err(ConnectProblem::Protocol(
            "a new connection is inside a transaction".to_owned(),
        )),
    }
}

fn unexpected(tag: u8) -> ConnectProblem {
    ConnectProblem::Protocol(format!("message {:?}", char::from(tag)))
}

//! From a new connection to the first ReadyForQuery: SSLRequest and GSSENCRequest, the startup packet, the login, the
//! session's first settings. (PostgreSQL's chapter "Message Flow", Start-up.) TLS joins at [`encryption_answer`].

use super::auth::{AuthError, Users};
use super::cancel::{Cancels, KEY_BYTES, LONG_KEY_BYTES};
use super::console::{self, Console};
use super::control::{check_router_setting, is_known_encoding, is_on, is_postgresql_encoding};
use super::error::SessionError;
use super::parameters::{DateStyle, Parameters, ROUTER_PREFIX};
use super::session::{APPLICATION_NAME, Registered, SERVER_VERSION, Session, Start};
use crate::admin::{self, Operator};
use crate::backend::defaults::DATE_STYLE;
use crate::backend::pool::UserPools;
use crate::router::Router;
use crate::router::clients::{Identity, Visit};
use crate::transaction::command::CommandError;
use crate::transaction::in_use::InUse;
use crate::transaction::settings::Settings;
use crate::transaction::{JoinError, Tenant, Transaction};
use crate::wire::backend_message::{self, TransactionStatus};
use crate::wire::error_response::{self, ErrorReply, Fault, Severity};
use crate::wire::sqlstate::SqlState;
use crate::wire::startup::{self, Startup, StartupError};
use crate::wire::stream::{FrameStream, StreamError};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client left, or asked for a cancel only.
    #[error("the client left")]
    Gone,
    /// A startup packet that cannot be read.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// The same kind of encryption asked for twice, or bytes that came before its answer.
    #[error("received unencrypted data after an encryption request")]
    Encryption,
    /// No user name.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// Another database than the cluster's.
    #[error("database \"{0}\" does not exist")]
    UnknownDatabase(String),
    /// The router waits for the last transactions or clients.
    #[error("the router is shutting down")]
    ShuttingDown,
    /// The cluster's database after DISABLE.
    #[error("database \"{0}\" is not currently accepting connections")]
    Disabled(String),
    /// The console, by a user that is neither its administrator nor its monitor.
    #[error("user \"{0}\" is not allowed to use the console")]
    NoOperator(String),
    /// A replication connection.
    #[error("replication connections are not supported through the router")]
    Replication,
    /// An encoding in which the router cannot read SQL.
    #[error("client_encoding {0} is not supported through the router")]
    Encoding(String),
    /// No encoding at all.
    #[error("invalid value for parameter \"client_encoding\": \"{0}\"")]
    NoEncoding(String),
    /// Strings in which the router cannot find the end.
    #[error("standard_conforming_strings = off is not supported through the router")]
    Strings,
    /// A setting of the router's own that it has not, or that cannot have this value.
    #[error(transparent)]
    Setting(#[from] SessionError),
    /// Wrong password, or no such user.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// No shard took the login.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Not logged in in time.
    #[error("the login took longer than limits.login")]
    TimedOut,
    /// The system has no randomness.
    #[error("no randomness is to be had: {0}")]
    Randomness(#[from] getrandom::Error),
}

impl From<StreamError> for HandshakeError {
    fn from(_: StreamError) -> Self {
        Self::Gone
    }
}

impl ErrorReply for HandshakeError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Gone => SqlState::CONNECTION_FAILURE,
            Self::Startup(error) => error.sqlstate(),
            Self::Encryption => SqlState::PROTOCOL_VIOLATION,
            Self::NoUser => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::UnknownDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::ShuttingDown => SqlState::CANNOT_CONNECT_NOW,
            Self::Disabled(_) => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::NoOperator(_) => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::Replication | Self::Encoding(_) | Self::Strings => {
                SqlState::FEATURE_NOT_SUPPORTED
            }
            Self::NoEncoding(_) => SqlState::INVALID_PARAMETER_VALUE,
            Self::Setting(error) => error.sqlstate(),
            Self::Auth(error) => error.sqlstate(),
            Self::Join(error) => error.sqlstate(),
            Self::TimedOut => SqlState::PROTOCOL_VIOLATION,
            Self::Randomness(_) => SqlState::INTERNAL_ERROR,
        }
    }
    fn fault(&self) -> Fault {
        match self {
            Self::Gone
            | Self::Startup(_)
            | Self::Encryption
            | Self::NoUser
            | Self::UnknownDatabase(_)
            | Self::Disabled(_)
            | Self::NoOperator(_)
            | Self::Replication
            | Self::Encoding(_)
            | Self::NoEncoding(_)
            | Self::Strings
            | Self::TimedOut => Fault::Client,
            Self::Setting(error) => error.fault(),
            Self::Auth(error) => error.fault(),
            Self::Join(error) => error.fault(),
            Self::Randomness(_) | Self::ShuttingDown => Fault::Router,
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::Join(error) => error.detail(),
            Self::Startup(error) => error.detail(),
            Self::Setting(error) => error.detail(),
            _ => None,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Join(error) => error.hint(),
            Self::Startup(error) => error.hint(),
            Self::Disabled(_) => Some("ENABLE in the console lets clients in again.".to_owned()),
            Self::NoOperator(_) => {
                Some("It takes admin = true or monitor = true in pgring.toml.".to_owned())
            }
            Self::Replication => Some("Connect to the shard itself.".to_owned()),
            Self::Encoding(_) => Some("Use client_encoding UTF8.".to_owned()),
            Self::Strings => Some("Write backslashes in E'' strings.".to_owned()),
            _ => None,
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Join(error) => error.refusal(),
            Self::Startup(error) => error.refusal(),
            Self::Replication => Some("replication"),
            Self::Encoding(_) => Some("client-encoding"),
            Self::Strings => Some("standard-conforming-strings"),
            _ => None,
        }
    }
}

/// What a startup packet asked for.
struct Request {
    minor: u16,
    user: String,
    database: String,
    settings: Settings,
}

/// Whom a client talks to.
enum Party {
    /// The shards: where it leases connections, with which settings, of which it was told these.
    Session(UserPools, Parameters, Arc<Settings>),
    /// The router itself.
    Console(Operator),
}

/// A client that was told that it is in, and its places among the clients and the cancel keys.
struct Greeted {
    party: Party,
    in_use: Arc<InUse>,
    visit: Visit,
    registered: Registered,
}

/// A client that is in.
pub struct Entered {
    /// What it begins.
    pub conversation: Conversation,
    /// Its place among the clients.
    pub visit: Visit,
    /// Its place among the cancel keys.
    pub registered: Registered,
}

/// What a client that has logged in begins.
pub enum Conversation {
    /// With the shards.
    Session(Box<Session>),
    /// With the router itself.
    Console(Box<Console>),
}

/// Leads a new connection to its first ReadyForQuery. None: it asked for a cancel, or was told why not.
pub async fn handshake(
    router: &Arc<Router>,
    users: &Users,
    cancels: &Arc<Cancels>,
    worker: usize,
    mut client: FrameStream,
) -> Option<Entered> {
    let limit = router.config.limits.login;
    let greeting = greet(router, users, cancels, worker, &mut client);
    let error = match tokio::time::timeout(limit, greeting).await {
        Ok(Ok(greeted)) => {
            let router = router.clone();
            let record = greeted.visit.client().clone();
            let conversation = match greeted.party {
                Party::Session(pools, parameters, reported) => {
                    Conversation::Session(Session::new(Start {
                        router,
                        client,
                        pools,
                        parameters,
                        reported,
                        in_use: greeted.in_use,
                        record,
                    }))
                }
                Party::Console(operator) => {
                    Conversation::Console(Console::new(router, client, operator, record))
                }
            };
            return Some(Entered {
                conversation,
                visit: greeted.visit,
                registered: greeted.registered,
            });
        }
        Ok(Err(HandshakeError::Gone)) => return None,
        Ok(Err(error)) => error,
        Err(_) => HandshakeError::TimedOut,
    };
    match &error {
        HandshakeError::Join(JoinError::Command(CommandError::Refused(frame))) => {
            error_response::write_shard_error_as(client.out(), frame.body(), Severity::Fatal);
        }
        error => error_response::write_error_reply(client.out(), error, Severity::Fatal),
    }
    tracing::info!(error = %error, "a client did not log in");
    // A client that does not read its error is not waited for longer than for its login.
    let _ = tokio::time::timeout(limit, client.flush()).await;
    None
}

async fn greet(
    router: &Arc<Router>,
    users: &Users,
    cancels: &Arc<Cancels>,
    worker: usize,
    client: &mut FrameStream,
) -> Result<Greeted, HandshakeError> {
    let request = startup(cancels, client).await?;
    let login = users
        .authenticate(client, &router.config, &request.user)
        .await?;
    let application_name = request.settings.get(APPLICATION_NAME);
    let application_name = application_name.cloned().unwrap_or_default();
    let party = if request.database == admin::DATABASE {
        let user = router.config.user(&request.user);
        let operator = user.and_then(Operator::of);
        let refused = || HandshakeError::NoOperator(request.user.clone());
        Party::Console(operator.ok_or_else(refused)?)
    } else if request.database == router.config.cluster.database {
        if router.clients.leaving.load(Ordering::Relaxed) {
            return Err(HandshakeError::ShuttingDown);
        }
        if router.clients.disabled.load(Ordering::Relaxed) {
            return Err(HandshakeError::Disabled(request.database));
        }
        let pools = router.pools.of(login, worker);
        let settings = request.settings;
        let (parameters, reported) = first_parameters(router, &pools, settings).await?;
        Party::Session(pools, parameters, router.shared(reported))
    } else {
        return Err(HandshakeError::UnknownDatabase(request.database));
    };
    let key_bytes = if request.minor >= 2 {
        LONG_KEY_BYTES
    } else {
        KEY_BYTES
    };
    let (pid, key, in_use) = cancels.register(key_bytes)?;
    let registered = Registered {
        pid,
        cancels: cancels.clone(),
    };
    let visit = router.clients.enter(Identity {
        user: request.user.into(),
        database: request.database.into(),
        addresses: client.addresses(),
        application_name,
        pid,
        console: matches!(party, Party::Console(_)),
    });
    let out = client.out();
    backend_message::write_authentication_ok(out);
    match &party {
        Party::Session(_, _, reported) => {
            for (name, value) in &**reported {
                backend_message::write_parameter_status(out, name, value);
            }
        }
        Party::Console(_) => console::write_parameters(out, router),
    }
    backend_message::write_backend_key_data(out, pid as i32, &key);
    backend_message::write_ready_for_query(out, TransactionStatus::Idle);
    Ok(Greeted {
        party,
        in_use,
        visit,
        registered,
    })
}

/// Reads packets up to the one that starts a session.
async fn startup(
    cancels: &Arc<Cancels>,
    client: &mut FrameStream,
) -> Result<Request, HandshakeError> {
    let (mut ssl, mut gss) = (false, false);
    loop {
        let packet = loop {
            if let Some(bytes) = arrived(client.input())? {
                break client.take(bytes);
            }
            client.fill().await?;
        };
        let asked_before = match Startup::decode(&packet[4..])? {
            Startup::Ssl => std::mem::replace(&mut ssl, true),
            Startup::Gss => std::mem::replace(&mut gss, true),
            Startup::Cancel { pid, key } => {
                cancels.cancel(pid as u32, &key).await;
                return Err(HandshakeError::Gone);
            }
            Startup::Start {
                protocol: (_, minor),
                parameters,
            } => return request(client, minor, &parameters),
        };
        if asked_before || !client.input().is_empty() {
            return Err(HandshakeError::Encryption);
        }
        client.out().extend_from_slice(encryption_answer());
        client.flush().await?;
    }
}

/// The router offers no encryption yet.
fn encryption_answer() -> &'static [u8] {
    b"N"
}

/// The length of the packet at the head of the input, once it has arrived whole.
fn arrived(input: &[u8]) -> Result<Option<usize>, StartupError> {
    Ok(startup::packet_bytes(input)?.filter(|bytes| input.len() >= *bytes))
}

fn request(
    client: &mut FrameStream,
    minor_asked: u16,
    parameters: &[(String, String)],
) -> Result<Request, HandshakeError> {
    let minor = startup::negotiate(minor_asked);
    let unknown: Vec<&str> = startup::unknown_options(parameters).collect();
    if minor_asked != minor || !unknown.is_empty() {
        backend_message::write_negotiate_protocol_version(client.out(), minor, unknown.into_iter());
    }
    let mut request = Request {
        minor,
        user: String::new(),
        database: String::new(),
        settings: Settings::new(),
    };
    for (name, value) in parameters {
        match name.as_str() {
            "user" => request.user.clone_from(value),
            "database" => request.database.clone_from(value),
            "options" => {
                for (name, value) in startup::parse_options(value)? {
                    setting(&mut request.settings, &name, &value)?;
                }
            }
            "replication" => {
                if !matches!(
                    value.to_ascii_lowercase().as_str(),
                    "false" | "off" | "no" | "0"
                ) {
                    return Err(HandshakeError::Replication);
                }
            }
            name if name.starts_with("_pq_.") => {}
            name => setting(&mut request.settings, name, value)?,
        }
    }
    if request.user.is_empty() {
        return Err(HandshakeError::NoUser);
    }
    if request.database.is_empty() {
        request.database.clone_from(&request.user);
    }
    Ok(request)
}

/// One setting of the startup packet. The shards' backends speak UTF8 already, which need not be said again.
fn setting(settings: &mut Settings, name: &str, value: &str) -> Result<(), HandshakeError> {
    let name = name.to_ascii_lowercase();
    if name == "client_encoding" {
        if !is_known_encoding(value) {
            let name = value.to_owned();
            let refused = is_postgresql_encoding(value);
            return Err(if refused {
                HandshakeError::Encoding(name)
            } else {
                HandshakeError::NoEncoding(name)
            });
        }
        if !value.to_ascii_lowercase().contains("ascii") {
            return Ok(());
        }
    }
    // It is on, whatever the role's or the database's own default.
    if name == "standard_conforming_strings" {
        return if is_on(value) {
            Ok(())
        } else {
            Err(HandshakeError::Strings)
        };
    }
    settings.insert(name.into(), value.into());
    Ok(())
}

/// Has a shard take the login and its settings; gives the session's settings, and what the shard then reports. Any shard
/// will do: one that is down does not keep clients out.
async fn first_parameters(
    router: &Arc<Router>,
    pools: &UserPools,
    asked: Settings,
) -> Result<(Parameters, Settings), HandshakeError> {
    let topology = router.topology();
    let others = topology
        .readable()
        .filter(|shard| *shard != topology.default_shard);
    let (for_router, asked): (Settings, Settings) = asked
        .into_iter()
        .partition(|(name, _)| name.starts_with(ROUTER_PREFIX));
    for (name, value) in &for_router {
        check_router_setting(&topology, name, value)?;
    }
    let for_router = Arc::new(for_router);
    let mut failure = None;
    for shard in std::iter::once(topology.default_shard).chain(others) {
        let mut settings = match pools.defaults(shard).await {
            Ok(defaults) => Settings::clone(&defaults),
            Err(error) => {
                failure = failure.or(Some(error.into()));
                continue;
            }
        };
        settings.extend(asked.clone());
        if let Some(date_style) = settings.get_mut(DATE_STYLE)
            && let Some(read) = DateStyle::read(date_style)
        {
            *date_style = match read.complete() {
                Ok(shown) => shown.into(),
                Err(part) => match pools.complete_date_style(shard, part).await {
                    Ok(shown) => shown,
                    Err(error) => {
                        failure = failure.or(Some(error.into()));
                        continue;
                    }
                },
            };
        }
        let parameters = Parameters::new(router.shared(settings), for_router.clone());
        let tenant = Tenant {
            control: &router.control,
            pools,
            settings: parameters.shard_settings(),
            committed: parameters.shard_settings(),
            custom: parameters.custom(),
            detector: &router.detector,
            in_use: &Arc::default(),
            talking: None,
        };
        let mut transaction = Transaction::default();
        match transaction.join(shard, tenant, &mut Vec::new()).await {
            Ok(backend) => {
                let mut reported = backend.parameters.clone();
                if let Some(lowest) = router.control.server_version() {
                    reported.insert(SERVER_VERSION.into(), lowest);
                }
                backend.take_parameters_changed();
                transaction.release_idle();
                return Ok((parameters, reported));
            }
            // What one shard says of the login or its settings, each would say.
            Err(error @ JoinError::Command(CommandError::Refused(_))) => return Err(error.into()),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.map_or(HandshakeError::Gone, HandshakeError::Join))
}

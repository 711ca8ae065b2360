//! Who the client is: SCRAM-SHA-256 against the users of `pgring.toml`. Unknown users fail as wrong passwords do: after
//! the same exchange, with the same words (RFC 5802 §5, and PostgreSQL's "SASL Authentication").

use crate::backend::connection::{Login, Secret};
use crate::config::{self, Config};
use crate::wire::backend_message;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::frame::MessageError;
use crate::wire::frontend_message;
use crate::wire::scram::{
    self, MECHANISM, NONCE_BYTES, ServerExchange, ServerExchangeError, Verifier, VerifierError,
};
use crate::wire::sqlstate::SqlState;
use crate::wire::stream::{FrameStream, StreamError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of a made verifier's salt, as PostgreSQL's.
const SALT_BYTES: usize = 16;

/// Why a client could not log in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Wrong password, or no such user.
    #[error("password authentication failed for user \"{0}\"")]
    Failed(String),
    /// A message that breaks the exchange's rules.
    #[error(transparent)]
    Exchange(ServerExchangeError),
    /// A verifier that cannot be.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// A message that is none of the exchange's.
    #[error("expected SASL response, got message type {0}")]
    UnexpectedMessage(u8),
    /// A mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    UnknownMechanism,
    /// A message that cannot be read.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The stream broke.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The system has no randomness.
    #[error("no randomness is to be had: {0}")]
    Randomness(#[from] getrandom::Error),
}

impl ErrorReply for AuthError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Failed(_) => SqlState::INVALID_PASSWORD,
            Self::UnexpectedMessage(_) | Self::Message(_) | Self::UnknownMechanism => {
                SqlState::PROTOCOL_VIOLATION
            }
            Self::Exchange(error) => error.sqlstate(),
            Self::Stream(_) => SqlState::CONNECTION_FAILURE,
            Self::Randomness(_) | Self::Verifier(_) => SqlState::INTERNAL_ERROR,
        }
    }
    fn fault(&self) -> Fault {
        match self {
            Self::Failed(_)
            | Self::UnexpectedMessage(_)
            | Self::UnknownMechanism
            | Self::Message(_)
            | Self::Stream(_) => Fault::Client,
            Self::Exchange(error) => error.fault(),
            Self::Randomness(_) | Self::Verifier(_) => Fault::Router,
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::Exchange(error) => error.detail(),
            _ => None,
        }
    }
    fn hint(&self) -> Option<String> {
        None
    }
    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// The verifiers of the configured users, made once, and what unknown users are answered with.
#[derive(Debug)]
pub struct Users {
    verifiers: HashMap<String, Verifier>,
    /// Makes the verifiers of unknown users, always the same for the same name.
    pretence: [u8; 32],
}

impl Users {
    /// The users of `config`.
    ///
    /// # Errors
    /// When the system has no randomness for salts, or a verifier cannot be.
    pub fn new(config: &Config) -> Result<Self, AuthError> {
        let mut verifiers = HashMap::new();
        for user in &config.users {
            let verifier = match &user.login {
                config::Login::Trust => continue,
                config::Login::Password(config::Secret::Password(password)) => {
                    let mut salt = [0; SALT_BYTES];
                    getrandom::fill(&mut salt)?;
                    Verifier::from_password(password.as_bytes(), &salt, scram::ITERATIONS)?
                }
                config::Login::Password(config::Secret::Verifier(verifier)) => {
                    Verifier::parse(&format!(
                        "{MECHANISM}${}:{}${}:{}",
                        verifier.iterations,
                        STANDARD.encode(&verifier.salt),
                        STANDARD.encode(verifier.stored_key),
                        STANDARD.encode(verifier.server_key)
                    ))?
                }
            };
            verifiers.insert(user.name.clone(), verifier);
        }
        let mut pretence = [0; 32];
        getrandom::fill(&mut pretence)?;
        Ok(Self {
            verifiers,
            pretence,
        })
    }

    /// Has the client prove that it is `user`; what its backends log in with.
    ///
    /// # Errors
    /// [`AuthError`]; the client has not been told.
    pub async fn authenticate(
        &self,
        client: &mut FrameStream,
        config: &Config,
        user: &str,
    ) -> Result<Login, AuthError> {
        let known = config.user(user);
        if let Some(config::User {
            login: config::Login::Trust,
            ..
        }) = known
        {
            return Ok(Login {
                user: user.into(),
                secret: Secret::None,
            });
        }
        let verifier = match self.verifiers.get(user) {
            Some(verifier) => verifier.clone(),
            None => Verifier::of_unknown_user(&self.pretence, user, scram::ITERATIONS),
        };
        let server_key = verifier.server_key().clone();
        let failed = |error| match error {
            ServerExchangeError::Proof => AuthError::Failed(user.to_owned()),
            error => AuthError::Exchange(error),
        };
        backend_message::write_authentication_sasl(client.out(), &[MECHANISM]);
        client.flush().await?;

        let first = sasl_message(client).await?;
        let (mechanism, first) = frontend_message::read_sasl_initial(&first)?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)?;
        if mechanism != MECHANISM {
            return Err(AuthError::UnknownMechanism);
        }
        let (exchange, challenge) =
            ServerExchange::start(verifier, nonce, first.unwrap_or_default()).map_err(failed)?;
        backend_message::write_authentication_sasl_continue(client.out(), challenge.as_bytes());
        client.flush().await?;

        let last = sasl_message(client).await?;
        let (client_key, server_final) = exchange.finish(&last).map_err(failed)?;
        // The exchange was run to its end for a name that nobody has.
        let known = known
            .filter(|_| self.verifiers.contains_key(user))
            .ok_or_else(|| failed(ServerExchangeError::Proof))?;
        backend_message::write_authentication_sasl_final(client.out(), server_final.as_bytes());
        let secret = match &known.login {
            config::Login::Password(config::Secret::Password(password)) => {
                Secret::Password(password.as_str().into())
            }
            config::Login::Password(config::Secret::Verifier(_)) => Secret::ScramKeys {
                client_key,
                server_key,
            },
            config::Login::Trust => Secret::None,
        };
        Ok(Login {
            user: Arc::from(user),
            secret,
        })
    }
}

async fn sasl_message(client: &mut FrameStream) -> Result<Vec<u8>, AuthError> {
    loop {
        if let Some(header) =
            crate::wire::frame::header(client.input()).map_err(StreamError::from)?
        {
            if header.tag != b'p' {
                return Err(AuthError::UnexpectedMessage(header.tag));
            }
            if header.frame_bytes > scram::MESSAGE_BYTES_MAX {
                return Err(StreamError::TooLarge {
                    bytes: header.frame_bytes,
                    max: scram::MESSAGE_BYTES_MAX,
                }
                .into());
            }
        }
        if let Some(frame) = client.buffered_frame()? {
            return Ok(frame.body().to_vec());
        }
        client.fill().await?;
    }
}

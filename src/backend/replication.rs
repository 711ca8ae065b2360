//! A logical replication slot with its exported snapshot: the one thing that needs a connection in replication mode,
//! which the control plane's library does not speak, so it goes over our own wire. Follows "Streaming Replication
//! Protocol" of PostgreSQL's documentation. Knows nothing of what is copied.

use super::connection::{Login, Secret};
use super::defaults::SettingValues;
use super::login::{self, ConnectError, ConnectProblem, ShardError};
use super::store;
use crate::config::{Config, Shard};
use crate::wire::backend_message::{DataRow, tag};
use crate::wire::frontend_message;
use crate::wire::stream::FrameStream;
use std::sync::Arc;
use tokio::time::timeout;

/// A slot that was just made. Its snapshot can be used until this is dropped.
#[derive(Debug)]
pub struct ExportedSlot {
    /// For SET TRANSACTION SNAPSHOT.
    pub snapshot: String,
    /// The snapshot ends with the connection.
    _stream: FrameStream,
}

impl ExportedSlot {
    /// Makes the slot on the shard's primary, for the plugin `pgoutput`. It waits for every transaction that runs there
    /// and has written: as long as they take. `name` is of `[a-z0-9_]`.
    ///
    /// # Errors
    /// [`ConnectError`]: of the last node that was tried.
    ///
    /// # Cancel safety
    /// A dropped call may leave the slot behind.
    pub async fn create(config: &Config, shard: &Shard, name: &str) -> Result<Self, ConnectError> {
        let shard_name: Arc<str> = shard.name.as_str().into();
        let mut refused = ConnectError {
            shard: shard_name.clone(),
            address: None,
            problem: ConnectProblem::Protocol("no node".to_owned()),
        };
        for address in &shard.nodes {
            let connecting = async {
                let stream = FrameStream::connect(address, config.limits.frame_bytes).await;
                let mut stream = stream.map_err(ConnectProblem::Unreachable)?;
                log_in(&mut stream, config, shard).await?;
                Ok(stream)
            };
            let after = config.pool.connect;
            let connected = timeout(after, connecting).await;
            let connected = connected.unwrap_or(Err(ConnectProblem::TimedOut { after }));
            let made = match connected {
                Ok(stream) => create(stream, name).await,
                Err(problem) => Err(problem),
            };
            match made {
                Ok(slot) => return Ok(slot),
                Err(problem) => {
                    refused = ConnectError {
                        shard: shard_name.clone(),
                        address: Some(address.clone()),
                        problem,
                    }
                }
            }
        }
        Err(refused)
    }
}

async fn log_in(
    stream: &mut FrameStream,
    config: &Config,
    shard: &Shard,
) -> Result<(), ConnectProblem> {
    let password = config.backend.password.as_ref();
    let login = Login {
        user: config.backend.user.as_str().into(),
        secret: match password.and_then(|secret| secret.password()) {
            Some(password) => Secret::Password(password.into()),
            None => Secret::None,
        },
    };
    let settings: SettingValues = [
        ("replication", "database"),
        ("application_name", store::APPLICATION_NAME),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value.into()))
    .collect();
    login::log_in(stream, &shard.database, &login, &settings).await?;
    Ok(())
}

async fn create(mut stream: FrameStream, name: &str) -> Result<ExportedSlot, ConnectProblem> {
    let command =
        format!("CREATE_REPLICATION_SLOT \"{name}\" LOGICAL pgoutput (SNAPSHOT 'export')");
    frontend_message::write_query(stream.out(), &command);
    let mut snapshot = None;
    let mut refused = None;
    loop {
        let frame = stream.read_frame().await?;
        match frame.tag() {
            tag::DATA_ROW => {
                // slot_name, consistent_point, snapshot_name, output_plugin
                let row = DataRow::read(frame.body())?;
                let text = row.column(2)?.map(|text| String::from_utf8_lossy(text));
                snapshot = text.map(std::borrow::Cow::into_owned);
            }
            tag::ERROR_RESPONSE => refused = Some(ShardError::new(frame)),
            tag::READY_FOR_QUERY => break,
            _ => {}
        }
    }
    match (refused, snapshot) {
        (Some(error), _) => Err(ConnectProblem::Refused(error)),
        (None, Some(snapshot)) => Ok(ExportedSlot {
            snapshot,
            _stream: stream,
        }),
        (None, None) => Err(ConnectProblem::Protocol(
            "a slot without a snapshot".to_owned(),
        )),
    }
}

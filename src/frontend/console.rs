//! [`Console`]: the conversation with an operator, over the protocol that sessions speak, simple and extended. What
//! commands mean is in [`crate::admin`]; there are no transactions, no parameters and no COPY here.

use super::error::{self, SessionError, Stop};
use crate::admin::answer::{Answer, Cell, Column, Kind, Row};
use crate::admin::command::{self, Command};
use crate::admin::{self, Operator};
use crate::router::Router;
use crate::router::clients::Client;
use crate::wire::backend_message::{self, ColumnDescription, TransactionStatus};
use crate::wire::error_response::{self, Report, Severity};
use crate::wire::frame::{Format, Frame};
use crate::wire::frontend_message::{Bind, FrontendMessage, Target};
use crate::wire::sqlstate::SqlState;
use crate::wire::stream::FrameStream;
use bytes::BytesMut;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

/// What a client may send while a command runs for it; more is left in the socket.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// The parameters that drivers want to hear of; `server_version` is the shards'.
const PARAMETERS: [(&str, &str); 7] = [
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
];

/// What drivers are told of the server while no shard has said its version.
const SERVER_VERSION: &str = "15.0";

/// One operator's connection.
pub struct Console {
    router: Arc<Router>,
    client: FrameStream,
    operator: Operator,
    /// What others see of it.
    record: Arc<Client>,
    /// By the client's name; None is the empty string.
    statements: HashMap<String, Option<Command>>,
    /// By the client's name.
    portals: HashMap<String, Portal>,
    /// Something failed: all up to Sync is skipped.
    failed: bool,
}

/// A command to run, and what it gave.
struct Portal {
    command: Option<Command>,
    /// By column.
    formats: Vec<Format>,
    /// The rows that were not sent yet, once it ran.
    left: Option<std::vec::IntoIter<Row>>,
    /// How many were sent.
    sent: usize,
}

/// Tells a client that logs in to the console of the parameters.
pub fn write_parameters(out: &mut BytesMut, router: &Router) {
    for (name, value) in PARAMETERS {
        backend_message::write_parameter_status(out, name, value);
    }
    let version = router.control.server_version();
    let version = version.as_deref().unwrap_or(SERVER_VERSION);
    backend_message::write_parameter_status(out, "server_version", version);
}

impl Console {
    /// A console at its first ReadyForQuery.
    pub fn new(
        router: Arc<Router>,
        client: FrameStream,
        operator: Operator,
        record: Arc<Client>,
    ) -> Box<Self> {
        Box::new(Self {
            router,
            client,
            operator,
            record,
            statements: HashMap::new(),
            portals: HashMap::new(),
            failed: false,
        })
    }

    /// Answers the client until it leaves or the router stops.
    pub async fn run(mut self: Box<Self>) {
        loop {
            let frame = match self.client.buffered_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => match self.wait().await {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                Err(error) => {
                    error_response::write_error_reply(self.client.out(), &error, Severity::Fatal);
                    break;
                }
            };
            match self.answer(&frame).await {
                Ok(true) => {}
                Ok(false) | Err(Stop::Gone) => break,
                Err(stop) => self.tell(stop),
            }
        }
        let _ = self.client.flush().await;
    }

    async fn wait(&mut self) -> Result<(), Stop> {
        self.client.flush().await.map_err(error::of_client)?;
        self.record.note_rest(self.statements.len());
        let (client, record) = (&mut self.client, &self.record);
        let filled = poll_fn(|context| {
            if record.leave().is_some() {
                return Poll::Ready(None);
            }
            client.poll_fill(context).map(Some)
        });
        match filled.await {
            Some(filled) => {
                self.record.note_request(self.router.clients.now());
                filled.map(|_| ()).map_err(error::of_client)
            }
            None => {
                let stopping = &SessionError::Stopping;
                error_response::write_error_reply(self.client.out(), stopping, Severity::Fatal);
                let _ = self.client.flush().await;
                Err(Stop::Gone)
            }
        }
    }

    fn tell(&mut self, stop: Stop) {
        if let Stop::Error(error) = stop {
            error_response::write_error_reply(self.client.out(), &*error, Severity::Error);
        }
    }

    /// Answers one message. Whether the conversation goes on.
    async fn answer(&mut self, frame: &Frame) -> Result<bool, Stop> {
        let message = match FrontendMessage::decode(frame.tag(), frame.body()) {
            Ok(message) => message,
            Err(error) => {
                error_response::write_error_reply(self.client.out(), &error, Severity::Fatal);
                return Ok(false);
            }
        };
        match message {
            FrontendMessage::Terminate => return Ok(false),
            FrontendMessage::Query { sql } => {
                self.failed = false;
                if let Err(stop) = self.query(sql).await {
                    if let Stop::Gone = stop {
                        return Err(stop);
                    }
                    self.tell(stop);
                }
                self.ready();
            }
            FrontendMessage::Sync => {
                self.failed = false;
                self.portals.clear();
                self.ready();
            }
            // What a client still sends after an error.
            _ if self.failed => {}
            FrontendMessage::CopyData(_)
            | FrontendMessage::CopyDone
            | FrontendMessage::CopyFail { .. } => {}
            FrontendMessage::Flush => self.client.flush().await.map_err(error::of_client)?,
            message => {
                let answered = self.extended(message).await;
                self.failed = answered.is_err();
                answered?;
            }
        }
        Ok(true)
    }

    fn ready(&mut self) {
        backend_message::write_ready_for_query(self.client.out(), TransactionStatus::Idle);
    }

    async fn query(&mut self, text: &str) -> Result<(), Stop> {
        self.statements.remove("");
        self.portals.clear();
        let commands = command::parse(text)?;
        if commands.is_empty() {
            backend_message::write_empty_query(self.client.out());
        }
        for command in &commands {
            let answer = self.perform(command).await?;
            let rows = answer.rows.len();
            if let Some(columns) = command.columns() {
                let formats = vec![Format::Text; columns.len()];
                write_columns(self.client.out(), columns, &formats);
                for row in &answer.rows {
                    write_row(self.client.out(), columns, &formats, row);
                }
            }
            self.complete(command, rows);
        }
        Ok(())
    }

    async fn extended(&mut self, message: FrontendMessage<'_>) -> Result<(), Stop> {
        match message {
            FrontendMessage::Parse { name, sql, .. } => self.parse(name, sql),
            FrontendMessage::Bind(bind) => self.bind(&bind),
            FrontendMessage::Describe { target, name } => self.describe(target, name),
            FrontendMessage::Execute { portal, row_limit } => self.execute(portal, row_limit).await,
            FrontendMessage::Close { target, name } => {
                match target {
                    Target::Statement => drop(self.statements.remove(name)),
                    Target::Portal => drop(self.portals.remove(name)),
                }
                backend_message::write_close_complete(self.client.out());
                Ok(())
            }
            FrontendMessage::FunctionCall => Err(SessionError::Refused {
                what: "the fastpath function call".to_owned(),
                code: "fastpath",
                reason: "the console has no functions",
                hint: "SHOW HELP lists the commands.",
            }
            .into()),
            _ => Ok(()),
        }
    }

    fn parse(&mut self, name: &str, text: &str) -> Result<(), Stop> {
        let max = self.router.config.limits.prepared_statements;
        if !name.is_empty() {
            if self.statements.contains_key(name) {
                return Err(SessionError::DuplicateStatement(name.to_owned()).into());
            }
            if self.statements.len() >= max {
                return Err(SessionError::TooManyStatements { max }.into());
            }
        }
        let mut commands = command::parse(text)?;
        if commands.len() > 1 {
            return Err(SessionError::SeveralStatements.into());
        }
        self.statements.insert(name.to_owned(), commands.pop());
        backend_message::write_parse_complete(self.client.out());
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<&Option<Command>, Stop> {
        let statement = self.statements.get(name);
        statement.ok_or_else(|| match name {
            "" => SessionError::NoUnnamedStatement.into(),
            name => SessionError::UnknownStatement(name.to_owned()).into(),
        })
    }

    fn bind(&mut self, bind: &Bind<'_>) -> Result<(), Stop> {
        let command = self.statement(bind.statement)?.clone();
        if bind.value_count() > 0 {
            return Err(SessionError::WrongValues {
                name: bind.statement.to_owned(),
                expected: 0,
                given: bind.value_count(),
            }
            .into());
        }
        let max = self.router.config.limits.portals;
        if !bind.portal.is_empty() {
            if self.portals.contains_key(bind.portal) {
                return Err(SessionError::DuplicatePortal(bind.portal.to_owned()).into());
            }
            if self.portals.len() >= max {
                return Err(SessionError::TooManyPortals { max }.into());
            }
        }
        let columns = columns_of(command.as_ref()).map_or(0, <[Column]>::len);
        let portal = Portal {
            command,
            formats: (0..columns)
                .map(|index| bind.result_format(index))
                .collect(),
            left: None,
            sent: 0,
        };
        self.portals.insert(bind.portal.to_owned(), portal);
        backend_message::write_bind_complete(self.client.out());
        Ok(())
    }

    fn describe(&mut self, target: Target, name: &str) -> Result<(), Stop> {
        let (columns, formats) = match target {
            Target::Statement => {
                let columns = columns_of(self.statement(name)?.as_ref());
                backend_message::write_parameter_description(self.client.out(), &[]);
                let formats = vec![Format::Text; columns.map_or(0, <[Column]>::len)];
                (columns, formats)
            }
            Target::Portal => {
                let portal = self.portals.get(name);
                let portal = portal.ok_or_else(|| SessionError::UnknownPortal(name.to_owned()))?;
                (columns_of(portal.command.as_ref()), portal.formats.clone())
            }
        };
        let out = self.client.out();
        match columns {
            Some(columns) => write_columns(out, columns, &formats),
            None => backend_message::write_no_data(out),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, row_limit: i32) -> Result<(), Stop> {
        let unknown = || SessionError::UnknownPortal(name.to_owned());
        let mut portal = self.portals.remove(name).ok_or_else(unknown)?;
        let Some(command) = portal.command.clone() else {
            backend_message::write_empty_query(self.client.out());
            self.portals.insert(name.to_owned(), portal);
            return Ok(());
        };
        let columns = command.columns();
        let mut left = match portal.left.take() {
            Some(left) => left,
            None if portal.sent > 0 => {
                return Err(SessionError::PortalCannotBeRun(name.to_owned()).into());
            }
            None => self.perform(&command).await?.rows.into_iter(),
        };
        let most = usize::try_from(row_limit).ok().filter(|most| *most > 0);
        let columns = columns.unwrap_or_default();
        for row in left.by_ref().take(most.unwrap_or(usize::MAX)) {
            write_row(self.client.out(), columns, &portal.formats, &row);
            portal.sent += 1;
        }
        if left.len() > 0 {
            backend_message::write_portal_suspended(self.client.out());
        } else {
            self.complete(&command, portal.sent);
        }
        // What has run does not run again: a portal without rows left gives none.
        portal.left = Some(left);
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    /// Runs a command, while the client stays and the router does.
    async fn perform(&mut self, command: &Command) -> Result<Answer, Stop> {
        let (client, record) = (&mut self.client, &self.record);
        let mut running = pin!(admin::run(&self.router, &self.operator, command));
        let done = poll_fn(|context| {
            if let Poll::Ready(done) = running.as_mut().poll(context) {
                return Poll::Ready(done.map_err(Stop::from));
            }
            if record.leave().is_some() {
                return Poll::Ready(Err(SessionError::Stopping.into()));
            }
            while client.input().len() < INPUT_BYTES_MAX {
                match client.poll_read(context) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error::of_client(error))),
                    Poll::Pending => break,
                }
            }
            Poll::Pending
        });
        let answer = done.await?;
        for notice in &answer.notices {
            let report = Report {
                severity: Severity::Notice,
                sqlstate: SqlState::SUCCESSFUL_COMPLETION,
                message: notice,
                detail: None,
                hint: None,
                position: None,
            };
            report.write(self.client.out());
        }
        Ok(answer)
    }

    fn complete(&mut self, command: &Command, rows: usize) {
        let out = self.client.out();
        match (command, command.tag()) {
            // As PostgreSQL, of what only shows.
            (Command::Show(_), tag) => backend_message::write_command_complete(out, tag),
            (command, tag) if command.columns().is_some() => {
                backend_message::write_command_complete(out, format_args!("{tag} {rows}"));
            }
            (_, tag) => backend_message::write_command_complete(out, tag),
        }
    }
}

fn columns_of(command: Option<&Command>) -> Option<&'static [Column]> {
    command.and_then(Command::columns)
}

fn write_columns(out: &mut BytesMut, columns: &[Column], formats: &[Format]) {
    let described = columns.iter().zip(formats).map(|(column, format)| {
        let (type_oid, type_size) = match column.kind {
            Kind::Text => (25, -1),
            Kind::Integer => (23, 4),
            Kind::Bigint => (20, 8),
        };
        ColumnDescription {
            type_oid,
            type_size,
            format: *format,
            ..ColumnDescription::text(column.name)
        }
    });
    backend_message::write_row_description(out, described);
}

fn write_row(out: &mut BytesMut, columns: &[Column], formats: &[Format], row: &[Cell]) {
    let values: Vec<Option<Vec<u8>>> = columns
        .iter()
        .zip(formats)
        .zip(row)
        .map(
            |((column, format), cell)| match (cell, format, column.kind) {
                (Cell::Null, _, _) => None,
                (Cell::Text(text), _, _) => Some(text.clone().into_bytes()),
                (Cell::Number(number), Format::Binary, Kind::Bigint) => {
                    Some(number.to_be_bytes().to_vec())
                }
                (Cell::Number(number), Format::Binary, Kind::Integer) => {
                    let number = i32::try_from(*number).unwrap_or(i32::MAX);
                    Some(number.to_be_bytes().to_vec())
                }
                (Cell::Number(number), _, _) => Some(number.to_string().into_bytes()),
            },
        )
        .collect();
    backend_message::write_data_row(out, values.iter().map(Option::as_deref));
}

//! [`Command`]: the console's grammar, text → command, with PostgreSQL's errors. Pure: knows what may be said, not what
//! there is. Start at [`parse`]. The help is made of the table of questions and of [`VERBS`].

use super::answer::Column;
use super::map_change::{self, MapChange, TableName};
use super::questions::{SHOWS, Show};
use crate::config::unit;
use crate::rebalance::record::{Options, Wanted};
use crate::sql::lex::{self, LexError, LexLimits, Token, TokenKind, character_position};
use crate::sql::reader::{Reader, StatementError};
use crate::sql::split;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use std::fmt;
use std::time::Duration;

/// What a command of the console may hold: they are short.
const LIMITS: LexLimits = LexLimits {
    tokens_max: 1000,
    depth_max: 100,
};

/// How long statements may be held for a flip, unless the operator says.
const PAUSE_BUDGET: Duration = Duration::from_millis(200);

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Answers a question.
    Show(Show),
    /// Says how SQL would be routed, without running it.
    ExplainRoute(String),
    /// Says where the rows of a key are.
    WhereKey {
        /// The key's text, as its type's input function takes it.
        key: String,
        /// The table whose key it is; None: each sharded table's.
        table: Option<TableName>,
    },
    /// Names what is wrong, as far as the router knows.
    Check,
    /// Counts rows that lie on the wrong shard.
    CheckPlacement,
    /// Says which slots would move, and what stands in the way.
    PlanRebalance,
    /// A setting of PostgreSQL's sessions that drivers make and that means nothing here.
    ClientSetting,
    /// Does something.
    Change(Change),
}

/// What can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Has new transactions wait, and returns when none runs.
    Pause(Scope),
    /// Ends what [`Self::Pause`] and [`Self::KillAll`] do.
    Resume(Scope),
    /// Replaces connections to shards as they come back.
    Reconnect(Scope),
    /// Returns when all of them are replaced.
    WaitClose(Scope),
    /// Cuts off all clients and pauses.
    KillAll(Scope),
    /// Cuts off one client.
    KillClient(u64),
    /// Lets no more clients in.
    Disable(Scope),
    /// Ends [`Self::Disable`].
    Enable(Scope),
    /// Reads the files again, and takes over what can change.
    Reload {
        /// Only says what is different.
        dry_run: bool,
    },
    /// Ends the router.
    Shutdown(Shutdown),
    /// Settles prepared transactions that a crash left, now.
    RecoverTransactions,
    /// Moves slots until ownership is what the shard map declares.
    Rebalance(Options),
    /// Edits the shard map.
    Map(MapChange),
    /// Asks something of the moves that are under way; [`Wanted::Run`]: that those which wait go on.
    OfRebalance(Wanted),
}

/// When the router ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Now.
    Now,
    /// When no transaction runs.
    WaitForServers,
    /// When all clients have left.
    WaitForClients,
}

/// What a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// The database of this name.
    Database(String),
    /// The shard of this name.
    Shard(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Database(name) => write!(f, " {name}"),
            Self::Shard(name) => write!(f, " SHARD {name}"),
        }
    }
}

/// The other commands, and what the help says of them.
const VERBS: &[(&str, &str)] = &[
    (
        "PAUSE [database | SHARD shard]",
        "have new transactions wait, return when none runs, and close the connections",
    ),
    (
        "RESUME [database | SHARD shard]",
        "let them go on; also after KILL",
    ),
    (
        "RECONNECT [database | SHARD shard]",
        "replace each connection as soon as no transaction uses it",
    ),
    (
        "WAIT_CLOSE [database | SHARD shard]",
        "return when RECONNECT has replaced all",
    ),
    ("KILL [database]", "cut off all clients and pause"),
    (
        "KILL_CLIENT id",
        "cut off the client with this id of SHOW CLIENTS",
    ),
    ("DISABLE database", "let no more clients in"),
    ("ENABLE database", "let clients in again"),
    (
        "RELOAD [DRY RUN]",
        "read the files again: what differs, what is taken over now, and what needs a restart",
    ),
    (
        "SHUTDOWN [WAIT_FOR_SERVERS | WAIT_FOR_CLIENTS]",
        "end the router: now, when no transaction runs, or when all clients have left",
    ),
    (
        "EXPLAIN ROUTE statement",
        "how a statement would be routed, without running it",
    ),
    (
        "WHERE KEY 'value' [OF table]",
        "the slot and the shard of a key",
    ),
    (
        "CHECK",
        "what is wrong, as far as the router knows; nothing is asked",
    ),
    (
        "RECOVER TRANSACTIONS",
        "settle prepared transactions that a crash left, now",
    ),
    (
        "ADD SHARD name NODES 'host:port' [, ...] [DATABASE name] [WEIGHT n]",
        "declare a shard in shards.toml; pgring init lets it join",
    ),
    (
        "DRAIN SHARD name",
        "give it the weight 0 in shards.toml, so that REBALANCE moves all its slots away",
    ),
    (
        "REMOVE SHARD name",
        "take it out of shards.toml, if nothing lies there that is nowhere else",
    ),
    (
        "PIN KEY 'value' OF table TO shard",
        "pin a key in shards.toml; REBALANCE moves its slot",
    ),
    (
        "UNPIN KEY 'value' OF table",
        "take the pin out of shards.toml again",
    ),
    (
        "PLAN REBALANCE",
        "which slots would move to make ownership what the shard map declares, and what stands in the way",
    ),
    (
        "REBALANCE [RATE '50MB'] [PAUSE BUDGET '200ms']",
        "begin these moves, or let those that have begun go on; they are carried on by any router",
    ),
    ("PAUSE REBALANCE", "let the moves that are under way wait"),
    ("RESUME REBALANCE", "let them go on"),
    (
        "CANCEL REBALANCE",
        "end moves whose slots have not changed their owner",
    ),
    (
        "ROLLBACK REBALANCE",
        "give the slots of moves that are kept back to where they were",
    ),
    (
        "COMPLETE REBALANCE",
        "end moves that are kept: compare once more, then delete the rows from where they were",
    ),
    (
        "CHECK PLACEMENT",
        "count rows that lie on a shard which does not own them; reads every row of the sharded tables",
    ),
];

const ROUTE_COLUMNS: &[Column] = &[Column::text("QUERY PLAN")];

const KEY_COLUMNS: &[Column] = &[
    Column::text("table"),
    Column::text("key"),
    Column::text("key_type"),
    Column::integer("slot"),
    Column::text("shard"),
    Column::text("state"),
];

const CHECK_COLUMNS: &[Column] = &[Column::text("subject"), Column::text("problem")];

const PLACEMENT_COLUMNS: &[Column] = &[
    Column::text("shard"),
    Column::text("table"),
    Column::bigint("rows"),
    Column::bigint("moving"),
];

const PLAN_COLUMNS: &[Column] = &[
    Column::text("source"),
    Column::text("target"),
    Column::integer("slots"),
    Column::bigint("rows"),
    Column::bigint("bytes"),
    Column::text("blocker"),
];

const MOVE_COLUMNS: &[Column] = &[
    Column::integer("move"),
    Column::text("source"),
    Column::text("target"),
    Column::integer("slots"),
    Column::text("phase"),
    Column::text("wanted"),
    Column::bigint("rows_expected"),
    Column::bigint("bytes_expected"),
];

const RELOAD_COLUMNS: &[Column] = &[
    Column::text("key"),
    Column::text("before"),
    Column::text("after"),
    Column::text("effect"),
];

const RECOVER_COLUMNS: &[Column] = &[
    Column::bigint("committed"),
    Column::bigint("rolled_back"),
    Column::bigint("in_progress"),
    Column::bigint("in_doubt"),
    Column::bigint("shards_skipped"),
];

/// Settings that drivers make in each session. None changes what the console answers.
const CLIENT_SETTINGS: &[&str] = &[
    "application_name",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "timezone",
];

impl Command {
    /// The columns of its answer; None if it has no rows.
    pub fn columns(&self) -> Option<&'static [Column]> {
        match self {
            Self::Show(show) => Some(show.question().columns),
            Self::ExplainRoute(_) => Some(ROUTE_COLUMNS),
            Self::WhereKey { .. } => Some(KEY_COLUMNS),
            Self::Check => Some(CHECK_COLUMNS),
            Self::CheckPlacement => Some(PLACEMENT_COLUMNS),
            Self::PlanRebalance => Some(PLAN_COLUMNS),
            Self::ClientSetting => None,
            Self::Change(change) => change.columns(),
        }
    }

    /// What CommandComplete says.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Show(_) => "SHOW",
            Self::ExplainRoute(_) => "EXPLAIN ROUTE",
            Self::WhereKey { .. } => "WHERE KEY",
            Self::Check => "CHECK",
            Self::CheckPlacement => "CHECK PLACEMENT",
            Self::PlanRebalance => "PLAN REBALANCE",
            Self::ClientSetting => "SET",
            Self::Change(change) => change.tag(),
        }
    }
}

impl Change {
    fn columns(&self) -> Option<&'static [Column]> {
        match self {
            Self::RecoverTransactions => Some(RECOVER_COLUMNS),
            Self::Reload { .. } | Self::Map(_) => Some(RELOAD_COLUMNS),
            Self::Rebalance(_) | Self::OfRebalance(_) => Some(MOVE_COLUMNS),
            Self::Shutdown(_) => None,
            Self::Pause(_)
            | Self::Resume(_)
            | Self::Reconnect(_)
            | Self::WaitClose(_)
            | Self::KillAll(_)
            | Self::KillClient(_)
            | Self::Disable(_)
            | Self::Enable(_) => None,
        }
    }

    /// What CommandComplete says.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Reconnect(_) => "RECONNECT",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::KillAll(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::Reload { .. } => "RELOAD",
            Self::Shutdown(_) => "SHUTDOWN",
            Self::RecoverTransactions => "RECOVER TRANSACTIONS",
            Self::Rebalance(_) => "REBALANCE",
            Self::Map(change) => change.tag(),
            Self::OfRebalance(wanted) => match wanted {
                Wanted::Run => "RESUME REBALANCE",
                Wanted::Pause => "PAUSE REBALANCE",
                Wanted::Cancel => "CANCEL REBALANCE",
                Wanted::Rollback => "ROLLBACK REBALANCE",
                Wanted::Complete => "COMPLETE REBALANCE",
            },
        }
    }

    /// Whether it changes nothing after all.
    pub fn only_looks(&self) -> bool {
        matches!(self, Self::Reload { dry_run: true })
    }
}

impl fmt::Display for Change {
    /// As it would be written, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = self.tag();
        match self {
            Self::Pause(scope)
            | Self::Resume(scope)
            | Self::Reconnect(scope)
            | Self::WaitClose(scope)
            | Self::KillAll(scope)
            | Self::Disable(scope)
            | Self::Enable(scope) => write!(f, "{tag}{scope}"),
            Self::KillClient(id) => write!(f, "{tag} {id}"),
            Self::Reload { dry_run: true } => write!(f, "{tag} DRY RUN"),
            Self::Shutdown(Shutdown::WaitForServers) => write!(f, "{tag} WAIT_FOR_SERVERS"),
            Self::Shutdown(Shutdown::WaitForClients) => write!(f, "{tag} WAIT_FOR_CLIENTS"),
            Self::Map(change) => change.fmt(f),
            Self::Rebalance(options) => {
                f.write_str(tag)?;
                if options.rate > 0 {
                    write!(f, " RATE '{}'", unit::print_bytes(options.rate))?;
                }
                let budget = unit::print_duration(options.pause_budget);
                write!(f, " PAUSE BUDGET '{budget}'")
            }
            Self::Reload { dry_run: false }
            | Self::OfRebalance(_)
            | Self::Shutdown(Shutdown::Now)
            | Self::RecoverTransactions => f.write_str(tag),
        }
    }
}

/// Every command with its description, in the order of the help.
pub fn help() -> impl Iterator<Item = (String, &'static str)> {
    let shows = SHOWS
        .iter()
        .map(|question| (format!("SHOW {}", question.show.words()), question.help));
    let verbs = VERBS
        .iter()
        .map(|(usage, help)| ((*usage).to_owned(), *help));
    shows.chain(verbs)
}

/// Why a text is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not in the grammar.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// There is no such question.
    #[error("unrecognized SHOW \"{words}\"")]
    UnknownShow {
        /// As written.
        words: String,
        /// One that looks like it.
        nearest: Option<String>,
        /// The character where it starts, from 1.
        position: u32,
    },
    /// A statement for a database.
    #[error("the console takes commands, not SQL")]
    Sql {
        /// The character where it starts, from 1.
        position: u32,
    },
    /// One of PgBouncer's commands that means nothing here.
    #[error("{what} is not supported by the console")]
    NotSupported {
        /// The command.
        what: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// A value that an option cannot have.
    #[error("{option}: {reason}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A setting that is none of the console's.
    #[error("parameter \"{0}\" cannot be set in the console")]
    UnknownSetting(String),
    /// An encoding that the console does not speak.
    #[error("client_encoding {0} is not supported by the console")]
    Encoding(String),
}

impl From<LexError> for CommandError {
    fn from(error: LexError) -> Self {
        Self::Statement(error.into())
    }
}

impl ErrorReply for CommandError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Statement(error) => error.sqlstate(),
            Self::UnknownShow { .. } => SqlState::SYNTAX_ERROR,
            Self::Sql { .. } | Self::NotSupported { .. } | Self::Encoding(_) => {
                SqlState::FEATURE_NOT_SUPPORTED
            }
            Self::Value { .. } => SqlState::INVALID_PARAMETER_VALUE,
            Self::UnknownSetting(_) => SqlState::CANT_CHANGE_RUNTIME_PARAM,
        }
    }
    fn fault(&self) -> Fault {
        Fault::Client
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::Sql { .. } => Some(
                "\"pgring\" is no database: it has no catalog, no tables and no transactions."
                    .to_owned(),
            ),
            Self::Statement(_)
            | Self::UnknownShow { .. }
            | Self::NotSupported { .. }
            | Self::Value { .. }
            | Self::UnknownSetting(_)
            | Self::Encoding(_) => None,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Statement(error) => error
                .hint()
                .or_else(|| Some("SHOW HELP lists the commands.".to_owned())),
            Self::UnknownShow {
                nearest: Some(nearest),
                ..
            } => Some(format!("Perhaps you meant SHOW {nearest}.")),
            Self::UnknownShow { nearest: None, .. } => {
                Some("SHOW HELP lists the commands.".to_owned())
            }
            Self::UnknownSetting(_) => {
                Some("Edit pgring.toml or shards.toml, then use RELOAD.".to_owned())
            }
            Self::Sql { .. } => Some(
                "Connect to the cluster's database for SQL, with autocommit on for the console; SHOW HELP lists its commands."
                    .to_owned(),
            ),
            Self::NotSupported { hint, .. } => Some((*hint).to_owned()),
            Self::Value { .. } => None,
            Self::Encoding(_) => Some("Use client_encoding UTF8.".to_owned()),
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Sql { .. } => Some("console-sql"),
            Self::NotSupported { .. } => Some("console-command"),
            Self::Encoding(_) => Some("client-encoding"),
            Self::Statement(_)
            | Self::UnknownShow { .. }
            | Self::Value { .. }
            | Self::UnknownSetting(_) => None,
        }
    }
    fn position(&self) -> Option<u32> {
        match self {
            Self::Statement(error) => error.position(),
            Self::UnknownShow { position, .. } | Self::Sql { position } => Some(*position),
            Self::NotSupported { .. }
            | Self::Value { .. }
            | Self::UnknownSetting(_)
            | Self::Encoding(_) => None,
        }
    }
}

/// The commands of a string, in order; none if it is empty. All of it is read before any of it runs.
///
/// # Errors
/// [`CommandError`] about the first that is none.
pub fn parse(text: &str) -> Result<Vec<Command>, CommandError> {
    let tokens = lex::lex(text, &LIMITS)?;
    let statements = split::split(text, &tokens);
    statements
        .into_iter()
        .map(|range| parse_one(text, &tokens[range.tokens]))
        .collect()
}

fn parse_one(text: &str, tokens: &[Token]) -> Result<Command, CommandError> {
    let mut reader = Reader::new(text, tokens);
    let change = match () {
        () if reader.take(&["show"]) => {
            let show = show(&mut reader)?;
            reader.expect_end()?;
            return Ok(Command::Show(show));
        }
        () if reader.take(&["set"]) => return client_setting(&mut reader),
        () if reader.take(&["explain", "route"]) => {
            return Ok(Command::ExplainRoute(reader.body()?.text.to_owned()));
        }
        () if reader.take(&["where", "key"]) => return where_key(&mut reader),
        () if reader.take(&["check"]) => {
            let command = match reader.take(&["placement"]) {
                true => Command::CheckPlacement,
                false => Command::Check,
            };
            reader.expect_end()?;
            return Ok(command);
        }
        () if reader.take(&["plan", "rebalance"]) => {
            reader.expect_end()?;
            return Ok(Command::PlanRebalance);
        }
        () if reader.take(&["rebalance"]) => Change::Rebalance(options(&mut reader)?),
        () if reader.take(&["pause", "rebalance"]) => Change::OfRebalance(Wanted::Pause),
        () if reader.take(&["resume", "rebalance"]) => Change::OfRebalance(Wanted::Run),
        () if reader.take(&["cancel", "rebalance"]) => Change::OfRebalance(Wanted::Cancel),
        () if reader.take(&["rollback", "rebalance"]) => Change::OfRebalance(Wanted::Rollback),
        () if reader.take(&["complete", "rebalance"]) => Change::OfRebalance(Wanted::Complete),
        () if reader.take(&["reload"]) => Change::Reload {
            dry_run: reader.take(&["dry", "run"]),
        },
        () if reader.take(&["shutdown"]) => Change::Shutdown(match () {
            () if reader.take(&["wait_for_servers"]) => Shutdown::WaitForServers,
            () if reader.take(&["wait_for_clients"]) => Shutdown::WaitForClients,
            () => Shutdown::Now,
        }),
        () if reader.take(&["pause"]) => Change::Pause(scope(&mut reader)?),
        () if reader.take(&["resume"]) => Change::Resume(scope(&mut reader)?),
        () if reader.take(&["reconnect"]) => Change::Reconnect(scope(&mut reader)?),
        () if reader.take(&["wait_close"]) => Change::WaitClose(scope(&mut reader)?),
        () if reader.take(&["kill_client"]) || reader.take(&["kill", "client"]) => {
            Change::KillClient(client(&mut reader)?)
        }
        () if reader.take(&["kill"]) => match reader.peek() {
            Some(token) if token.kind == TokenKind::Number => {
                Change::KillClient(client(&mut reader)?)
            }
            _ => Change::KillAll(database(&mut reader)?.map_or(Scope::All, Scope::Database)),
        },
        () if reader.take(&["disable"]) => Change::Disable(named_database(&mut reader)?),
        () if reader.take(&["enable"]) => Change::Enable(named_database(&mut reader)?),
        () if reader.take(&["recover", "transactions"]) => Change::RecoverTransactions,
        () => match map_change::parse(&mut reader)? {
            Some(change) => Change::Map(change),
            None => return Err(no_command(&reader)),
        },
    };
    reader.expect_end()?;
    Ok(Command::Change(change))
}

/// `WHERE KEY 'value' [OF table]`, after its first words.
fn where_key(reader: &mut Reader<'_, '_>) -> Result<Command, CommandError> {
    let key = map_change::key(reader)?;
    let table = match reader.take(&["of"]) {
        true => Some(map_change::table(reader)?),
        false => None,
    };
    reader.expect_end()?;
    Ok(Command::WhereKey { key, table })
}

/// `[RATE 'bytes'] [PAUSE BUDGET 'time']`, in any order; each once.
fn options(reader: &mut Reader<'_, '_>) -> Result<Options, CommandError> {
    let (mut rate, mut pause_budget) = (None, None);
    let value = |option| move |reason| CommandError::Value { option, reason };
    loop {
        if rate.is_none() && reader.take(&["rate"]) {
            rate = Some(unit::bytes(&reader.string()?).map_err(value("RATE"))?);
        } else if pause_budget.is_none() && reader.take(&["pause", "budget"]) {
            let budget = unit::duration(&reader.string()?);
            pause_budget = Some(budget.map_err(value("PAUSE BUDGET"))?);
        } else {
            break;
        }
    }
    let pause_budget = pause_budget.unwrap_or(PAUSE_BUDGET);
    Options::new(rate.unwrap_or(0), pause_budget).map_err(value("REBALANCE"))
}

/// `[database | SHARD shard]`
fn scope(reader: &mut Reader<'_, '_>) -> Result<Scope, CommandError> {
    let mut shard = reader.clone();
    if shard.take(&["shard"]) && !shard.is_end() {
        let name = name(&mut shard)?;
        *reader = shard;
        return Ok(Scope::Shard(name));
    }
    let mut key = reader.clone();
    if key.take(&["key"]) && !key.is_end() {
        return Err(CommandError::NotSupported {
            what: "a command about one KEY",
            hint: "WHERE KEY names its shard: PAUSE SHARD holds what is new there.",
        });
    }
    Ok(database(reader)?.map_or(Scope::All, Scope::Database))
}

fn database(reader: &mut Reader<'_, '_>) -> Result<Option<String>, CommandError> {
    match reader.is_end() {
        true => Ok(None),
        false => name(reader).map(Some),
    }
}

fn named_database(reader: &mut Reader<'_, '_>) -> Result<Scope, CommandError> {
    Ok(Scope::Database(name(reader)?))
}

/// A name, or a string that holds one: names of shards may have hyphens.
pub(super) fn name(reader: &mut Reader<'_, '_>) -> Result<String, CommandError> {
    if reader.peek().is_some_and(Token::is_string) {
        return Ok(reader.string()?.into_owned());
    }
    Ok(reader.label()?.into_owned())
}

fn client(reader: &mut Reader<'_, '_>) -> Result<u64, CommandError> {
    let unexpected = reader.unexpected();
    reader.number()?.parse().map_err(|_| unexpected.into())
}

fn show(reader: &mut Reader<'_, '_>) -> Result<Show, CommandError> {
    let start = reader.clone();
    let question = SHOWS.iter().find(|question| reader.take(question.words));
    if let Some(question) = question {
        return Ok(question.show);
    }
    let refused = NOT_SHOWN.iter().find(|(word, _)| reader.take(&[word]));
    if let Some((_, what)) = refused {
        return Err(CommandError::NotSupported {
            what,
            hint: "There is nothing of the kind in pgring.",
        });
    }
    let first = reader.peek().ok_or_else(|| reader.unexpected())?;
    let position = character_position(reader.sql(), first.start);
    let words = reader.body()?.text.to_owned();
    if !start.rest().iter().all(Token::is_identifier) {
        return Err(start.unexpected().into());
    }
    let known = SHOWS.iter().map(|question| question.show.words());
    let scored = known.map(|known| {
        let said = words.to_ascii_uppercase();
        (strsim::damerau_levenshtein(&said, &known), known)
    });
    let nearest = scored.min().filter(|(distance, _)| *distance <= 2);
    Err(CommandError::UnknownShow {
        nearest: nearest.map(|(_, known)| known),
        words,
        position,
    })
}

/// What PgBouncer shows and pgring has not.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("fds", "SHOW FDS"),
    ("sockets", "SHOW SOCKETS"),
    ("active_sockets", "SHOW ACTIVE_SOCKETS"),
    ("dns_hosts", "SHOW DNS_HOSTS"),
    ("dns_zones", "SHOW DNS_ZONES"),
    ("peers", "SHOW PEERS"),
    ("peer_pools", "SHOW PEER_POOLS"),
];

/// `SET name = value` of a setting of PostgreSQL's.
fn client_setting(reader: &mut Reader<'_, '_>) -> Result<Command, CommandError> {
    reader.take_any(&["session", "local"]);
    if reader.take(&["time", "zone"]) {
        reader.body()?;
        return Ok(Command::ClientSetting);
    }
    let name = reader.name()?.to_ascii_lowercase();
    if !reader.take_symbol("=") {
        reader.expect(&["to"])?;
    }
    let value = reader.body()?.text.trim_matches(['\'', '"']);
    match name.as_str() {
        "client_encoding" => {
            let folded: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
            match folded.to_ascii_lowercase().as_str() {
                "utf8" | "unicode" => Ok(Command::ClientSetting),
                _ => Err(CommandError::Encoding(value.to_owned())),
            }
        }
        known if CLIENT_SETTINGS.contains(&known) => Ok(Command::ClientSetting),
        _ => Err(CommandError::UnknownSetting(name)),
    }
}

/// The first words of SQL that clients may send: tools that look at the catalog, drivers that begin transactions.
const SQL: &[&str] = &[
    "select",
    "with",
    "values",
    "table",
    "insert",
    "update",
    "delete",
    "merge",
    "copy",
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "savepoint",
    "release",
    "declare",
    "fetch",
    "close",
    "prepare",
    "execute",
    "deallocate",
    "create",
    "alter",
    "drop",
    "truncate",
    "grant",
    "revoke",
    "vacuum",
    "analyze",
    "explain",
    "lock",
    "call",
    "do",
    "listen",
    "unlisten",
    "notify",
    "discard",
    "reset",
];

fn no_command(reader: &Reader<'_, '_>) -> CommandError {
    let Some(first) = reader.peek() else {
        return reader.unexpected().into();
    };
    if first.is(reader.sql(), "suspend") {
        return CommandError::NotSupported {
            what: "SUSPEND",
            hint: "PAUSE has transactions wait; a router can be replaced by another that runs beside it.",
        };
    }
    if SQL.iter().any(|word| first.is(reader.sql(), word)) {
        let position = character_position(reader.sql(), first.start);
        return CommandError::Sql { position };
    }
    reader.unexpected().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Command {
        let [command] = &parse(text).unwrap()[..] else {
            panic!("not one command: {text}");
        };
        command.clone()
    }

    fn refused(text: &str) -> (String, String, Option<u32>) {
        let error = parse(text).unwrap_err();
        let message = format!("{} {error}", error.sqlstate());
        (message, error.hint().unwrap_or_default(), error.position())
    }

    #[test]
    fn commands_are_read_in_any_case_and_with_their_semicolon() {
        assert_eq!(one("show Help;"), Command::Show(Show::Help));
        assert_eq!(
            parse("SHOW slots; recover transactions ;;").unwrap(),
            [
                Command::Show(Show::Slots),
                Command::Change(Change::RecoverTransactions)
            ]
        );
        assert_eq!(parse(" ; -- nothing\n").unwrap(), []);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_told_as_postgresql_does() {
        let (message, hint, position) = refused("SHOW POLS");
        assert_eq!(message, "42601 unrecognized SHOW \"POLS\"");
        assert_eq!(
            (hint.as_str(), position),
            ("Perhaps you meant SHOW POOLS.", Some(6))
        );
        let (_, hint, _) = refused("SHOW shard");
        assert_eq!(hint, "Perhaps you meant SHOW SHARDS.");
        let (message, _, position) = refused("SHOW HELP; SHOW HELP me");
        assert_eq!(message, "42601 syntax error at or near \"me\"");
        assert_eq!(position, Some(22));
        assert_eq!(refused("SHOW").0, "42601 syntax error at end of input");
        assert_eq!(refused("SHOW 1").0, "42601 syntax error at or near \"1\"");
        assert_eq!(refused("FROB").0, "42601 syntax error at or near \"FROB\"");
    }

    #[test]
    fn scopes_are_databases_and_shards() {
        let paused = |text| match one(text) {
            Command::Change(Change::Pause(scope)) => scope,
            other => panic!("{other:?}"),
        };
        assert_eq!(paused("PAUSE"), Scope::All);
        assert_eq!(paused("PAUSE shop"), Scope::Database("shop".to_owned()));
        assert_eq!(paused("PAUSE key"), Scope::Database("key".to_owned()));
        assert_eq!(paused("PAUSE shard"), Scope::Database("shard".to_owned()));
        assert_eq!(paused("PAUSE SHARD s1"), Scope::Shard("s1".to_owned()));
        assert_eq!(paused("PAUSE SHARD 's-1'"), Scope::Shard("s-1".to_owned()));
        assert_eq!(one("KILL 7"), Command::Change(Change::KillClient(7)));
        assert_eq!(one("KILL_CLIENT 7"), Command::Change(Change::KillClient(7)));
        assert_eq!(one("KILL"), Command::Change(Change::KillAll(Scope::All)));
        assert_eq!(
            refused("KILL_CLIENT x").0,
            "42601 syntax error at or near \"x\""
        );
        assert_eq!(refused("DISABLE").0, "42601 syntax error at end of input");
        assert_eq!(
            refused("PAUSE SHARD s1 now").0,
            "42601 syntax error at or near \"now\""
        );
        assert_eq!(
            refused("SUSPEND").0,
            "0A000 SUSPEND is not supported by the console"
        );
        assert_eq!(
            refused("show fds").0,
            "0A000 SHOW FDS is not supported by the console"
        );
    }

    #[test]
    fn keys_and_statements_are_read_as_they_are_written() {
        let where_key = |key: &str, table: Option<(Option<&str>, &str)>| Command::WhereKey {
            key: key.to_owned(),
            table: table.map(|(schema, name)| (schema.map(str::to_owned), name.to_owned())),
        };
        assert_eq!(one("WHERE KEY 'it''s'"), where_key("it's", None));
        let of = Some((Some("public"), "orders"));
        assert_eq!(one("where key -7 of public.orders"), where_key("-7", of));
        assert_eq!(
            refused("WHERE KEY x").0,
            "42601 syntax error at or near \"x\""
        );
        let sql = "SELECT * FROM orders WHERE id = 1";
        let route = Command::ExplainRoute(sql.to_owned());
        assert_eq!(one(&format!("EXPLAIN ROUTE {sql};")), route);
        assert_eq!(
            refused("EXPLAIN SELECT 1").0,
            "0A000 the console takes commands, not SQL"
        );
        let shutdown = |mode| Command::Change(Change::Shutdown(mode));
        assert_eq!(one("SHUTDOWN"), shutdown(Shutdown::Now));
        assert_eq!(
            one("SHUTDOWN WAIT_FOR_SERVERS"),
            shutdown(Shutdown::WaitForServers)
        );
    }

    #[test]
    fn changes_are_logged_as_they_are_written() {
        for text in [
            "PAUSE",
            "RESUME shop",
            "RECONNECT SHARD s1",
            "WAIT_CLOSE",
            "KILL shop",
            "KILL_CLIENT 7",
            "DISABLE shop",
            "ENABLE shop",
            "RELOAD DRY RUN",
            "SHUTDOWN WAIT_FOR_CLIENTS",
            "RECOVER TRANSACTIONS",
            "REBALANCE RATE '50MB' PAUSE BUDGET '300ms'",
            "PAUSE REBALANCE",
            "RESUME REBALANCE",
            "CANCEL REBALANCE",
            "ROLLBACK REBALANCE",
            "COMPLETE REBALANCE",
        ] {
            let Command::Change(change) = one(text) else {
                panic!("{text}");
            };
            assert_eq!(change.to_string(), text);
        }
    }

    #[test]
    fn a_rebalance_has_its_options_once_and_in_any_order() {
        let options = |text| match one(text) {
            Command::Change(Change::Rebalance(options)) => {
                (options.rate, options.pause_budget.as_millis())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(options("REBALANCE"), (0, 200));
        assert_eq!(
            options("rebalance pause budget '1s' rate '1MB'"),
            (1 << 20, 1000)
        );
        for (text, message) in [
            (
                "REBALANCE RATE '1MB' RATE '2MB'",
                "42601 syntax error at or near \"RATE\"",
            ),
            ("REBALANCE RATE 5", "42601 syntax error at or near \"5\""),
            (
                "REBALANCE RATE '5'",
                "22023 RATE: \"5\" is not a size such as \"64kB\", \"64MB\" or \"1GB\"",
            ),
            (
                "REBALANCE PAUSE BUDGET '0ms'",
                "22023 REBALANCE: the pause budget must be between 1ms and 1h",
            ),
        ] {
            assert_eq!(refused(text).0, message);
        }
        // A database of that name is written otherwise.
        let named = Change::Pause(Scope::Database("rebalance".to_owned()));
        assert_eq!(one("PAUSE 'rebalance'"), Command::Change(named));
        assert_eq!(one("CHECK PLACEMENT"), Command::CheckPlacement);
        assert_eq!(one("PLAN REBALANCE"), Command::PlanRebalance);
        // A transaction's word is still SQL.
        assert_eq!(
            refused("ROLLBACK").0,
            "0A000 the console takes commands, not SQL"
        );
    }

    #[test]
    fn sql_is_refused_with_advice() {
        for sql in ["SELECT 1", "begin", "  WITH a AS (SELECT 1) SELECT 1"] {
            let (message, hint, position) = refused(sql);
            assert_eq!(message, "0A000 the console takes commands, not SQL");
            assert!(hint.contains("SHOW HELP"), "{hint}");
            assert!(position.is_some());
        }
    }

    #[test]
    fn drivers_may_make_their_settings() {
        for sql in [
            "SET extra_float_digits = 3",
            "SET application_name = 'PostgreSQL JDBC Driver'",
            "SET SESSION DateStyle TO 'ISO'",
            "set client_encoding to 'UTF8'",
            "SET client_encoding = utf_8",
            "SET TIME ZONE 'UTC'",
        ] {
            assert_eq!(one(sql), Command::ClientSetting, "{sql}");
        }
        assert_eq!(
            refused("SET client_encoding = LATIN1").0,
            "0A000 client_encoding LATIN1 is not supported by the console"
        );
        assert_eq!(
            refused("SET frob = 1").0,
            "55P02 parameter \"frob\" cannot be set in the console"
        );
    }

    #[test]
    fn the_help_knows_each_command_by_words_that_parse() {
        for question in SHOWS {
            let text = format!("SHOW {}", question.words.join(" "));
            assert_eq!(one(&text), Command::Show(question.show));
            assert!(help().any(|(usage, _)| usage.eq_ignore_ascii_case(&text)));
        }
        assert_eq!(help().count(), SHOWS.len() + VERBS.len());
    }
}

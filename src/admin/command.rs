//! [`Command`]: the console's grammar, text → command, with PostgreSQL's errors. Pure: knows what may be said, not what
//! there is. Start at [`parse`]. What `SHOW` can show is one table, [`SHOWS`]; the help is made of it and of [`VERBS`].

use super::answer::Column;
use crate::sql::lex::{self, LexError, LexLimits, Token, character_position};
use crate::sql::reader::{Reader, StatementError};
use crate::sql::split;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use std::fmt;

/// What a command of the console may hold: they are short.
const LIMITS: LexLimits = LexLimits {
    tokens_max: 1000,
    depth_max: 100,
};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Answers a question.
    Show(Show),
    /// A setting of PostgreSQL's sessions that drivers make and that means nothing here.
    ClientSetting,
    /// Does something.
    Change(Change),
}

/// What can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Settles prepared transactions that a crash left, now.
    RecoverTransactions,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// The commands.
    Help,
    /// Of the program.
    Version,
    /// The shards as they are.
    Shards,
    /// Who owns which slots.
    Slots,
}

/// A question: its words, its answer's columns, and what the help says of it.
struct Question {
    show: Show,
    words: &'static [&'static str],
    columns: &'static [Column],
    help: &'static str,
}

const SHOWS: &[Question] = &[
    Question {
        show: Show::Help,
        words: &["help"],
        columns: &[Column::text("command"), Column::text("description")],
        help: "these commands",
    },
    Question {
        show: Show::Version,
        words: &["version"],
        columns: &[Column::text("version")],
        help: "the version of pgring",
    },
    Question {
        show: Show::Shards,
        words: &["shards"],
        columns: &[
            Column::text("shard"),
            Column::text("database"),
            Column::text("nodes"),
            Column::integer("weight"),
            Column::text("state"),
            Column::text("server_version"),
            Column::bigint("epoch"),
            Column::integer("slots"),
            Column::text("last_error"),
        ],
        help: "the shards: where they are, whether they answer, and what they own",
    },
    Question {
        show: Show::Slots,
        words: &["slots"],
        columns: &[
            Column::integer("first"),
            Column::integer("last"),
            Column::integer("slots"),
            Column::text("shard"),
            Column::text("state"),
        ],
        help: "ranges of slots and their owners: owned, fenced, unowned, or claimed by two",
    },
];

/// The other commands, and what the help says of them.
const VERBS: &[(&str, &str)] = &[(
    "RECOVER TRANSACTIONS",
    "settle prepared transactions that a crash left, now",
)];

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
            Self::ClientSetting => None,
            Self::Change(change) => change.columns(),
        }
    }

    /// What CommandComplete says.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Show(_) => "SHOW",
            Self::ClientSetting => "SET",
            Self::Change(change) => change.tag(),
        }
    }
}

impl Change {
    fn columns(&self) -> Option<&'static [Column]> {
        match self {
            Self::RecoverTransactions => Some(RECOVER_COLUMNS),
        }
    }

    /// What CommandComplete says.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::RecoverTransactions => "RECOVER TRANSACTIONS",
        }
    }
}

impl fmt::Display for Change {
    /// As it would be written, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecoverTransactions => f.write_str(self.tag()),
        }
    }
}

impl Show {
    fn question(self) -> &'static Question {
        let question = SHOWS.iter().find(|question| question.show == self);
        question.expect("each question stands in the table")
    }

    fn words(self) -> String {
        self.question().words.join(" ").to_ascii_uppercase()
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
    /// A setting that is none of the console's.
    #[error("unrecognized configuration parameter \"{0}\"")]
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
            Self::Sql { .. } | Self::Encoding(_) => SqlState::FEATURE_NOT_SUPPORTED,
            Self::UnknownSetting(_) => SqlState::UNDEFINED_OBJECT,
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
            Self::UnknownShow { nearest: None, .. } | Self::UnknownSetting(_) => {
                Some("SHOW HELP lists the commands.".to_owned())
            }
            Self::Sql { .. } => Some(
                "Connect to the cluster's database for SQL, with autocommit on for the console; SHOW HELP lists its commands."
                    .to_owned(),
            ),
            Self::Encoding(_) => Some("Use client_encoding UTF8.".to_owned()),
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Sql { .. } => Some("console-sql"),
            Self::Encoding(_) => Some("client-encoding"),
            Self::Statement(_) | Self::UnknownShow { .. } | Self::UnknownSetting(_) => None,
        }
    }
    fn position(&self) -> Option<u32> {
        match self {
            Self::Statement(error) => error.position(),
            Self::UnknownShow { position, .. } | Self::Sql { position } => Some(*position),
            Self::UnknownSetting(_) | Self::Encoding(_) => None,
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
    let command = match () {
        () if reader.take(&["show"]) => Command::Show(show(&mut reader)?),
        () if reader.take(&["set"]) => client_setting(&mut reader)?,
        () if reader.take(&["recover", "transactions"]) => {
            Command::Change(Change::RecoverTransactions)
        }
        () => return Err(no_command(&reader)),
    };
    reader.expect_end()?;
    Ok(command)
}

fn show(reader: &mut Reader<'_, '_>) -> Result<Show, CommandError> {
    let start = reader.clone();
    let question = SHOWS.iter().find(|question| reader.take(question.words));
    if let Some(question) = question {
        return Ok(question.show);
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
            ("SHOW HELP lists the commands.", Some(6))
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
            "42704 unrecognized configuration parameter \"frob\""
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

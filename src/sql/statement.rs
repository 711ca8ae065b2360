//! [`classify`]: what a statement is, by PostgreSQL 15's grammar of its leading words.
//!
//! Statements that a router answers or keeps as session state (transactions, settings, prepared statements, cursors,
//! COPY) are read to their end and a wrong tail is PostgreSQL's syntax error; of the others only what routing needs
//! is read, the rest is for a shard to judge. Knows nothing of tables or of queries' insides.

use super::copy::CopyStatement;
use super::lex::Token;
use super::reader::Reader;
pub use super::reader::{Body, Name, StatementError};
use std::borrow::Cow;
use std::fmt;

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement<'a> {
    /// No token at all.
    Empty,
    /// BEGIN, START TRANSACTION.
    Begin {
        /// Whether it said START TRANSACTION: its command tag.
        start: bool,
        /// The modes it names.
        modes: TransactionModes,
    },
    /// COMMIT, END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint(Cow<'a, str>),
    /// RELEASE SAVEPOINT.
    Release(Cow<'a, str>),
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo(Cow<'a, str>),
    /// PREPARE TRANSACTION.
    PrepareTransaction(Cow<'a, str>),
    /// COMMIT PREPARED; not allowed in a block.
    CommitPrepared(Cow<'a, str>),
    /// ROLLBACK PREPARED; not allowed in a block.
    RollbackPrepared(Cow<'a, str>),
    /// SET of a setting, its special forms (TIME ZONE, SCHEMA, NAMES, ROLE, …) included.
    Set {
        /// How long it holds.
        scope: SetScope,
        /// The setting's name, folded: `timezone`, `search_path`, `client_encoding`, `role`, `a.b`.
        name: String,
        /// What to.
        value: SetValue<'a>,
    },
    /// SET TRANSACTION.
    SetTransaction(TransactionModes),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetSessionCharacteristics(TransactionModes),
    /// SET TRANSACTION SNAPSHOT.
    SetTransactionSnapshot(Cow<'a, str>),
    /// SET CONSTRAINTS.
    SetConstraints,
    /// RESET of one setting, named as in [`Statement::Set`]; RESET ALL is `None`.
    Reset(Option<String>),
    /// SHOW of one setting, named as in [`Statement::Set`]; SHOW ALL is `None`.
    Show(Option<String>),
    /// DISCARD.
    Discard(Discard),
    /// PREPARE.
    Prepare {
        /// The prepared statement's name.
        name: Cow<'a, str>,
        /// The declared types' texts.
        parameter_types: Vec<&'a str>,
        /// What it prepares.
        body: Body<'a>,
    },
    /// EXECUTE.
    Execute {
        /// The prepared statement's name.
        name: Cow<'a, str>,
        /// The argument expressions' texts.
        arguments: Vec<&'a str>,
    },
    /// DEALLOCATE of one prepared statement; DEALLOCATE ALL is `None`.
    Deallocate(Option<Cow<'a, str>>),
    /// LISTEN.
    Listen(Cow<'a, str>),
    /// UNLISTEN of one channel; `UNLISTEN *` is `None`.
    Unlisten(Option<Cow<'a, str>>),
    /// NOTIFY.
    Notify {
        /// The channel.
        channel: Cow<'a, str>,
        /// The payload.
        payload: Option<Cow<'a, str>>,
    },
    /// DECLARE … CURSOR.
    Declare {
        /// The cursor's name.
        name: Cow<'a, str>,
        /// WITH HOLD.
        hold: bool,
        /// SCROLL or NO SCROLL.
        scroll: Option<bool>,
        /// BINARY.
        binary: bool,
        /// Its query.
        body: Body<'a>,
    },
    /// FETCH from this cursor.
    Fetch(Cow<'a, str>),
    /// MOVE of this cursor.
    Move(Cow<'a, str>),
    /// CLOSE of one cursor; CLOSE ALL is `None`.
    Close(Option<Cow<'a, str>>),
    /// LOCK TABLE.
    Lock(Vec<Name<'a>>),
    /// COPY.
    Copy(Box<CopyStatement<'a>>),
    /// EXPLAIN.
    Explain {
        /// Whether the statement is run.
        analyze: bool,
        /// The options, folded, with their values as written.
        options: Vec<(Cow<'a, str>, Option<&'a str>)>,
        /// What it explains.
        body: Body<'a>,
    },
    /// What reads or writes rows.
    Query(QueryKind),
    /// TRUNCATE.
    Truncate(Vec<Name<'a>>),
    /// CREATE TABLE … AS and CREATE MATERIALIZED VIEW.
    CreateTableAs {
        /// What it creates.
        relation: Name<'a>,
        /// Whether that is a temporary table.
        temporary: bool,
        /// Whether that is a materialized view.
        materialized_view: bool,
        /// The query (or EXECUTE), with what follows it (WITH NO DATA).
        body: Body<'a>,
    },
    /// REFRESH MATERIALIZED VIEW.
    Refresh(Name<'a>),
    /// What changes the schema, roles or privileges.
    Ddl(Ddl<'a>),
    /// ANALYZE, VACUUM, REINDEX, CLUSTER, CHECKPOINT.
    Maintenance {
        /// Which.
        command: Maintenance,
        /// Whether it cannot run inside a block.
        outside_block: bool,
    },
    /// DO.
    Do,
    /// CALL.
    Call,
    /// LOAD.
    Load,
}

/// What BEGIN, SET TRANSACTION and the like say; `None` where they say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransactionModes {
    /// ISOLATION LEVEL.
    pub isolation: Option<IsolationLevel>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
    /// DEFERRABLE or NOT DEFERRABLE.
    pub deferrable: Option<bool>,
}

impl fmt::Display for TransactionModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let isolation = self.isolation.map(|level| match level {
            IsolationLevel::ReadUncommitted => "ISOLATION LEVEL READ UNCOMMITTED",
            IsolationLevel::ReadCommitted => "ISOLATION LEVEL READ COMMITTED",
            IsolationLevel::RepeatableRead => "ISOLATION LEVEL REPEATABLE READ",
            IsolationLevel::Serializable => "ISOLATION LEVEL SERIALIZABLE",
        });
        let access = self
            .read_only
            .map(|only| if only { "READ ONLY" } else { "READ WRITE" });
        let deferrable = self
            .deferrable
            .map(|is| if is { "DEFERRABLE" } else { "NOT DEFERRABLE" });
        let said: Vec<&str> = [isolation, access, deferrable]
            .into_iter()
            .flatten()
            .collect();
        f.write_str(&said.join(", "))
    }
}

/// A transaction's isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationLevel {
    /// As READ COMMITTED in PostgreSQL.
    ReadUncommitted,
    /// Each statement has its snapshot.
    ReadCommitted,
    /// The block has one.
    RepeatableRead,
    /// As if one after the other.
    Serializable,
}

impl IsolationLevel {
    /// As `transaction_isolation` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read uncommitted",
            Self::ReadCommitted => "read committed",
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        }
    }

    /// The level that `transaction_isolation` shows so.
    pub fn named(name: &str) -> Option<Self> {
        let levels = [
            Self::ReadUncommitted,
            Self::ReadCommitted,
            Self::RepeatableRead,
            Self::Serializable,
        ];
        levels.into_iter().find(|level| level.as_str() == name)
    }

    /// Whether a transaction has one snapshot for all of its statements.
    pub fn has_snapshot(self) -> bool {
        match self {
            Self::RepeatableRead | Self::Serializable => true,
            Self::ReadCommitted | Self::ReadUncommitted => false,
        }
    }
}

/// How long a SET holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetScope {
    /// For the session, once the transaction commits.
    Session,
    /// Until the transaction ends.
    Local,
}

/// What a setting is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetValue<'a> {
    /// DEFAULT, TIME ZONE LOCAL, or NAMES without a name.
    Default,
    /// FROM CURRENT.
    Current,
    /// One value or a list.
    Values(Vec<SetArgument<'a>>),
    /// TIME ZONE INTERVAL …: the text of it, which only PostgreSQL reads.
    Interval(&'a str),
}

/// One value of a SET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetArgument<'a> {
    /// A string or word. In a setting that is a list of names, PostgreSQL quotes it where it must be.
    Text(Cow<'a, str>),
    /// A number, as PostgreSQL prints it.
    Number(String),
}

/// What DISCARD discards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// All state; not allowed in a block.
    All,
    /// Cached plans.
    Plans,
    /// Cached sequence values.
    Sequences,
    /// Temporary tables.
    Temp,
}

/// A statement about rows, by its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKind {
    /// SELECT; it may hold an INTO.
    Select,
    /// VALUES.
    Values,
    /// TABLE.
    Table,
    /// WITH: a SELECT, INSERT, UPDATE, DELETE or MERGE after it, or one inside it.
    With,
    /// A query in parentheses.
    Parenthesised,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
}

/// ANALYZE and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintenance {
    /// ANALYZE.
    Analyze,
    /// VACUUM.
    Vacuum,
    /// REINDEX.
    Reindex,
    /// CLUSTER.
    Cluster,
    /// CHECKPOINT.
    Checkpoint,
}

/// A change of the schema, roles or privileges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ddl<'a> {
    /// What it does.
    pub verb: DdlVerb,
    /// To what. `None` where the verb has no such word in a fixed place.
    pub object: Option<ObjectKind>,
    /// CREATE, ALTER and DROP of a table, view, materialized view, sequence or foreign table: their names; CREATE
    /// INDEX: the table's name. Empty otherwise.
    pub relations: Vec<Name<'a>>,
    /// CREATE TEMPORARY …, or CREATE of a table, view or sequence in `pg_temp`.
    pub temporary: bool,
    /// Whether it cannot run inside a block.
    pub outside_block: bool,
}

/// What a [`Ddl`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DdlVerb {
    /// CREATE.
    Create,
    /// ALTER.
    Alter,
    /// DROP, DROP OWNED.
    Drop,
    /// COMMENT ON.
    Comment,
    /// GRANT.
    Grant,
    /// REVOKE.
    Revoke,
    /// SECURITY LABEL.
    SecurityLabel,
    /// IMPORT FOREIGN SCHEMA.
    ImportForeignSchema,
    /// REASSIGN OWNED.
    ReassignOwned,
}

macro_rules! object_kinds {
    ($($kind:ident $words:tt)*) => {
        /// What a [`Ddl`] is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum ObjectKind { $($kind),* }

        /// Where one's words begin another's, the longer come first.
        const OBJECT_KINDS: &[(&[&str], ObjectKind)] = &[$((&$words, ObjectKind::$kind)),*];
    };
}

object_kinds! {
    AccessMethod ["access", "method"]
    Aggregate ["aggregate"]
    Cast ["cast"]
    Collation ["collation"]
    Conversion ["conversion"]
    Database ["database"]
    DefaultPrivileges ["default", "privileges"]
    Domain ["domain"]
    EventTrigger ["event", "trigger"]
    Extension ["extension"]
    ForeignDataWrapper ["foreign", "data", "wrapper"]
    ForeignTable ["foreign", "table"]
    Function ["function"]
    Group ["group"]
    Index ["index"]
    Language ["language"]
    LargeObject ["large", "object"]
    MaterializedView ["materialized", "view"]
    OperatorClass ["operator", "class"]
    OperatorFamily ["operator", "family"]
    Operator ["operator"]
    Owned ["owned"]
    Policy ["policy"]
    Procedure ["procedure"]
    Publication ["publication"]
    Role ["role"]
    Routine ["routine"]
    Rule ["rule"]
    Schema ["schema"]
    Sequence ["sequence"]
    Server ["server"]
    Statistics ["statistics"]
    Subscription ["subscription"]
    System ["system"]
    Table ["table"]
    Tablespace ["tablespace"]
    TextSearch ["text", "search"]
    Transform ["transform"]
    Trigger ["trigger"]
    Type ["type"]
    UserMapping ["user", "mapping"]
    User ["user"]
    View ["view"]
}

impl Statement<'_> {
    /// The command tag in CommandComplete, without its counts and without a DDL's object; empty for
    /// [`Statement::Empty`].
    pub fn command_word(&self) -> &'static str {
        match self {
            Self::Empty => "",
            Self::Begin { start: false, .. } => "BEGIN",
            Self::Begin { start: true, .. } => "START TRANSACTION",
            Self::Commit { .. } => "COMMIT",
            Self::Rollback { .. } | Self::RollbackTo(_) => "ROLLBACK",
            Self::Savepoint(_) => "SAVEPOINT",
            Self::Release(_) => "RELEASE",
            Self::PrepareTransaction(_) => "PREPARE TRANSACTION",
            Self::CommitPrepared(_) => "COMMIT PREPARED",
            Self::RollbackPrepared(_) => "ROLLBACK PREPARED",
            Self::Set { .. }
            | Self::SetTransaction(_)
            | Self::SetSessionCharacteristics(_)
            | Self::SetTransactionSnapshot(_) => "SET",
            Self::SetConstraints => "SET CONSTRAINTS",
            Self::Reset(_) => "RESET",
            Self::Show(_) => "SHOW",
            Self::Discard(Discard::All) => "DISCARD ALL",
            Self::Discard(Discard::Plans) => "DISCARD PLANS",
            Self::Discard(Discard::Sequences) => "DISCARD SEQUENCES",
            Self::Discard(Discard::Temp) => "DISCARD TEMP",
            Self::Prepare { .. } => "PREPARE",
            Self::Execute { .. } => "EXECUTE",
            Self::Deallocate(Some(_)) => "DEALLOCATE",
            Self::Deallocate(None) => "DEALLOCATE ALL",
            Self::Listen(_) => "LISTEN",
            Self::Unlisten(_) => "UNLISTEN",
            Self::Notify { .. } => "NOTIFY",
            Self::Declare { .. } => "DECLARE CURSOR",
            Self::Fetch(_) => "FETCH",
            Self::Move(_) => "MOVE",
            Self::Close(Some(_)) => "CLOSE CURSOR",
            Self::Close(None) => "CLOSE CURSOR ALL",
            Self::Lock(_) => "LOCK TABLE",
            Self::Copy(_) => "COPY",
            Self::Explain { .. } => "EXPLAIN",
            Self::Query(kind) => match kind {
                QueryKind::Select
                | QueryKind::Values
                | QueryKind::Table
                | QueryKind::With
                | QueryKind::Parenthesised => "SELECT",
                QueryKind::Insert => "INSERT",
                QueryKind::Update => "UPDATE",
                QueryKind::Delete => "DELETE",
                QueryKind::Merge => "MERGE",
            },
            Self::Truncate(_) => "TRUNCATE TABLE",
            Self::CreateTableAs { .. } => "SELECT",
            Self::Refresh(_) => "REFRESH MATERIALIZED VIEW",
            Self::Ddl(ddl) => match ddl.verb {
                DdlVerb::Create => "CREATE",
                DdlVerb::Alter => "ALTER",
                DdlVerb::Drop => "DROP",
                DdlVerb::Comment => "COMMENT",
                DdlVerb::Grant => "GRANT",
                DdlVerb::Revoke => "REVOKE",
                DdlVerb::SecurityLabel => "SECURITY LABEL",
                DdlVerb::ImportForeignSchema => "IMPORT FOREIGN SCHEMA",
                DdlVerb::ReassignOwned => "REASSIGN OWNED",
            },
            Self::Maintenance { command, .. } => match command {
                Maintenance::Analyze => "ANALYZE",
                Maintenance::Vacuum => "VACUUM",
                Maintenance::Reindex => "REINDEX",
                Maintenance::Cluster => "CLUSTER",
                Maintenance::Checkpoint => "CHECKPOINT",
            },
            Self::Do => "DO",
            Self::Call => "CALL",
            Self::Load => "LOAD",
        }
    }
}

/// What the statement with these tokens is. `sql` may hold more than the statement; positions in errors count from
/// its start.
///
/// # Errors
/// No statement starts so, or one that is read to its end has a wrong part: 42601 with PostgreSQL's message.
pub fn classify<'a>(sql: &'a str, tokens: &[Token]) -> Result<Statement<'a>, StatementError> {
    if tokens.is_empty() {
        return Ok(Statement::Empty);
    }
    let reader = &mut Reader::new(sql, tokens);
    if let Some(kind) = query_kind(reader) {
        return Ok(Statement::Query(kind));
    }
    let Some(first) = reader.take_any(FIRST_WORDS) else {
        return Err(reader.unexpected());
    };
    let statement = match first {
        "begin" | "start" => begin(reader, first == "start")?,
        "commit" if reader.take(&["prepared"]) => Statement::CommitPrepared(reader.string()?),
        "commit" | "end" => Statement::Commit {
            chain: chain(reader)?,
        },
        "rollback" if reader.take(&["prepared"]) => Statement::RollbackPrepared(reader.string()?),
        "rollback" | "abort" => rollback(reader, first == "rollback")?,
        "savepoint" => Statement::Savepoint(reader.name()?),
        "release" => Statement::Release(savepoint_name(reader)?),
        "prepare" => prepare(reader)?,
        "execute" => execute(reader)?,
        "deallocate" => deallocate(reader)?,
        "set" => return set(reader),
        "reset" => Statement::Reset(setting_or_all(reader)?),
        "show" => Statement::Show(setting_or_all(reader)?),
        "discard" => discard(reader)?,
        "listen" => Statement::Listen(reader.name()?),
        "unlisten" if reader.take_symbol("*") => Statement::Unlisten(None),
        "unlisten" => Statement::Unlisten(Some(reader.name()?)),
        "notify" => notify(reader)?,
        "declare" => declare(reader)?,
        "fetch" => Statement::Fetch(last_name(reader)?),
        "move" => Statement::Move(last_name(reader)?),
        "close" if reader.take(&["all"]) => Statement::Close(None),
        "close" => Statement::Close(Some(reader.name()?)),
        "copy" => Statement::Copy(Box::new(super::copy::copy_statement(reader)?)),
        "checkpoint" => Statement::Maintenance {
            command: Maintenance::Checkpoint,
            outside_block: false,
        },
        _ => return shard_statement(reader, first),
    };
    reader.expect_end()?;
    Ok(statement)
}

/// The first words of all statements but queries.
const FIRST_WORDS: &[&str] = &[
    "begin",
    "commit",
    "rollback",
    "set",
    "end",
    "savepoint",
    "release",
    "start",
    "abort",
    "show",
    "reset",
    "discard",
    "prepare",
    "execute",
    "deallocate",
    "copy",
    "explain",
    "declare",
    "fetch",
    "move",
    "close",
    "listen",
    "unlisten",
    "notify",
    "create",
    "alter",
    "drop",
    "truncate",
    "lock",
    "comment",
    "grant",
    "revoke",
    "security",
    "import",
    "reassign",
    "refresh",
    "analyze",
    "analyse",
    "vacuum",
    "reindex",
    "cluster",
    "checkpoint",
    "do",
    "call",
    "load",
];

/// A statement whose tail only a shard judges.
fn shard_statement<'a>(
    reader: &mut Reader<'a, '_>,
    first: &str,
) -> Result<Statement<'a>, StatementError> {
    match first {
        "explain" => explain(reader),
        "create" => create(reader),
        "alter" => alter(reader),
        "drop" => drop(reader),
        "truncate" => {
            reader.take(&["table"]);
            Ok(Statement::Truncate(reader.list(Reader::relation)?))
        }
        "lock" => {
            reader.take(&["table"]);
            Ok(Statement::Lock(reader.list(Reader::relation)?))
        }
        "comment" => {
            reader.expect(&["on"])?;
            Ok(plain_ddl(DdlVerb::Comment))
        }
        "grant" => Ok(plain_ddl(DdlVerb::Grant)),
        "revoke" => Ok(plain_ddl(DdlVerb::Revoke)),
        "security" => {
            reader.expect(&["label"])?;
            Ok(plain_ddl(DdlVerb::SecurityLabel))
        }
        "import" => {
            reader.expect(&["foreign", "schema"])?;
            Ok(plain_ddl(DdlVerb::ImportForeignSchema))
        }
        "reassign" => {
            reader.expect(&["owned"])?;
            Ok(plain_ddl(DdlVerb::ReassignOwned))
        }
        "refresh" => {
            reader.expect(&["materialized", "view"])?;
            reader.take(&["concurrently"]);
            Ok(Statement::Refresh(reader.qualified_name()?))
        }
        "analyze" | "analyse" => maintenance(Maintenance::Analyze, false),
        "vacuum" => maintenance(Maintenance::Vacuum, true),
        "reindex" => reindex(reader),
        "cluster" => cluster(reader),
        "do" => Ok(Statement::Do),
        "call" => Ok(Statement::Call),
        "load" => Ok(Statement::Load),
        _ => Err(reader.unexpected()),
    }
}

fn query_kind(reader: &Reader<'_, '_>) -> Option<QueryKind> {
    const KINDS: &[(&str, QueryKind)] = &[
        ("select", QueryKind::Select),
        ("insert", QueryKind::Insert),
        ("update", QueryKind::Update),
        ("delete", QueryKind::Delete),
        ("with", QueryKind::With),
        ("values", QueryKind::Values),
        ("table", QueryKind::Table),
        ("merge", QueryKind::Merge),
    ];
    if reader.is_symbol(0, "(") {
        return Some(QueryKind::Parenthesised);
    }
    KINDS
        .iter()
        .find(|(word, _)| reader.is_word(0, word))
        .map(|(_, kind)| *kind)
}

fn begin<'a>(reader: &mut Reader<'a, '_>, start: bool) -> Result<Statement<'a>, StatementError> {
    match start {
        true => reader.expect(&["transaction"])?,
        false => work_or_transaction(reader),
    }
    let modes = if reader.is_end() {
        TransactionModes::default()
    } else {
        transaction_modes(reader)?
    };
    Ok(Statement::Begin { start, modes })
}

fn work_or_transaction(reader: &mut Reader<'_, '_>) {
    let _ = reader.take_any(&["work", "transaction"]);
}

/// `[WORK | TRANSACTION] [AND [NO] CHAIN]`.
fn chain(reader: &mut Reader<'_, '_>) -> Result<bool, StatementError> {
    work_or_transaction(reader);
    if !reader.take(&["and"]) {
        return Ok(false);
    }
    let no = reader.take(&["no"]);
    reader.expect(&["chain"])?;
    Ok(!no)
}

fn rollback<'a>(
    reader: &mut Reader<'a, '_>,
    may_say_to: bool,
) -> Result<Statement<'a>, StatementError> {
    let to = usize::from(reader.is_word(0, "work") || reader.is_word(0, "transaction"));
    if may_say_to && reader.is_word(to, "to") {
        reader.advance(to + 1);
        return Ok(Statement::RollbackTo(savepoint_name(reader)?));
    }
    Ok(Statement::Rollback {
        chain: chain(reader)?,
    })
}

/// `[SAVEPOINT] name`; a savepoint may be called savepoint.
fn savepoint_name<'a>(reader: &mut Reader<'a, '_>) -> Result<Cow<'a, str>, StatementError> {
    let name = reader.name()?;
    let mut ahead = reader.clone();
    match ahead.name() {
        Ok(second) if name == "savepoint" => {
            *reader = ahead;
            Ok(second)
        }
        _ => Ok(name),
    }
}

/// One mode or more, with or without commas.
fn transaction_modes(reader: &mut Reader<'_, '_>) -> Result<TransactionModes, StatementError> {
    let mut modes = TransactionModes::default();
    loop {
        if reader.take(&["isolation"]) {
            reader.expect(&["level"])?;
            modes.isolation = Some(isolation_level(reader)?);
        } else if reader.take(&["read"]) {
            let word = reader
                .take_any(&["only", "write"])
                .ok_or_else(|| reader.unexpected())?;
            modes.read_only = Some(word == "only");
        } else if reader.take(&["deferrable"]) {
            modes.deferrable = Some(true);
        } else if reader.take(&["not"]) {
            reader.expect(&["deferrable"])?;
            modes.deferrable = Some(false);
        } else {
            return Err(reader.unexpected());
        }
        if !reader.take_symbol(",") && reader.is_end() {
            return Ok(modes);
        }
    }
}

fn isolation_level(reader: &mut Reader<'_, '_>) -> Result<IsolationLevel, StatementError> {
    match reader.take_any(&["read", "repeatable", "serializable"]) {
        Some("read") => match reader.take_any(&["uncommitted", "committed"]) {
            Some("committed") => Ok(IsolationLevel::ReadCommitted),
            Some(_) => Ok(IsolationLevel::ReadUncommitted),
            None => Err(reader.unexpected()),
        },
        Some("repeatable") => reader
            .expect(&["read"])
            .map(|()| IsolationLevel::RepeatableRead),
        Some(_) => Ok(IsolationLevel::Serializable),
        None => Err(reader.unexpected()),
    }
}

/// SET, whose special forms start with words that may also be names of settings.
fn set<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    let mut scope = SetScope::Session;
    let mut scoped = false;
    if !names_setting(reader) {
        if reader.is_word(0, "constraints") {
            return Ok(Statement::SetConstraints);
        }
        if let Some(word) = reader.take_any(&["local", "session"]) {
            // SET SESSION AUTHORIZATION is the short form of SET SESSION SESSION AUTHORIZATION.
            let authorization = word == "session" && reader.is_word(0, "authorization");
            scope = if word == "local" {
                SetScope::Local
            } else {
                SetScope::Session
            };
            scoped = !authorization;
            if authorization {
                reader.advance(1);
                return finish_set(
                    reader,
                    scope,
                    "session_authorization".to_owned(),
                    role_value,
                );
            }
        }
    }
    if names_setting(reader) {
        let name = setting_name(reader)?;
        return finish_set(reader, scope, name, generic_value);
    }
    let fixed = |name: &str| name.to_owned();
    match reader.take_any(&[
        "transaction",
        "session",
        "time",
        "catalog",
        "schema",
        "names",
        "role",
        "xml",
    ]) {
        Some("transaction") if reader.take(&["snapshot"]) => {
            let snapshot = reader.string()?;
            reader.expect_end()?;
            Ok(Statement::SetTransactionSnapshot(snapshot))
        }
        Some("transaction") => Ok(Statement::SetTransaction(transaction_modes(reader)?)),
        Some("session") if reader.take(&["authorization"]) => {
            finish_set(reader, scope, fixed("session_authorization"), role_value)
        }
        Some("session") => {
            reader.expect(&["characteristics", "as", "transaction"])?;
            Ok(Statement::SetSessionCharacteristics(transaction_modes(
                reader,
            )?))
        }
        Some("time") => {
            reader.expect(&["zone"])?;
            finish_set(reader, scope, fixed("timezone"), zone_value)
        }
        Some("catalog") => {
            reader.string()?;
            Err(StatementError::SetCatalog)
        }
        Some("schema") => finish_set(reader, scope, fixed("search_path"), |reader| {
            text_value(reader.string()?)
        }),
        Some("names") => finish_set(
            reader,
            scope,
            fixed("client_encoding"),
            |reader| match reader.is_end() {
                true => Ok(SetValue::Default),
                false if reader.take(&["default"]) => Ok(SetValue::Default),
                false => text_value(reader.string()?),
            },
        ),
        Some("role") => finish_set(reader, scope, fixed("role"), |reader| {
            text_value(word_or_string(reader)?)
        }),
        Some("xml") => {
            reader.expect(&["option"])?;
            finish_set(reader, scope, fixed("xmloption"), |reader| {
                match reader.take_any(&["document", "content"]) {
                    Some("document") => text_value(Cow::Borrowed("DOCUMENT")),
                    Some(_) => text_value(Cow::Borrowed("CONTENT")),
                    None => Err(reader.unexpected()),
                }
            })
        }
        // The word after SET SESSION named nothing: it may still be CHARACTERISTICS AS TRANSACTION.
        None if scoped && scope == SetScope::Session && reader.take(&["characteristics"]) => {
            reader.expect(&["as", "transaction"])?;
            Ok(Statement::SetSessionCharacteristics(transaction_modes(
                reader,
            )?))
        }
        _ => {
            reader.name()?;
            Err(reader.unexpected())
        }
    }
}

/// Whether what comes next is the name of a setting in the general form, whatever its words.
fn names_setting(reader: &Reader<'_, '_>) -> bool {
    let mut ahead = reader.clone();
    ahead.name().is_ok()
        && (ahead.is_symbol(0, "=")
            || ahead.is_symbol(0, ".")
            || ahead.is_word(0, "to")
            || ahead.is_word(0, "from"))
}

fn finish_set<'a, 't>(
    reader: &mut Reader<'a, 't>,
    scope: SetScope,
    name: String,
    value: impl FnOnce(&mut Reader<'a, 't>) -> Result<SetValue<'a>, StatementError>,
) -> Result<Statement<'a>, StatementError> {
    let value = value(reader)?;
    reader.expect_end()?;
    Ok(Statement::Set { scope, name, value })
}

/// `name[.name…]`, folded: PostgreSQL compares the names of settings without case.
fn setting_name(reader: &mut Reader<'_, '_>) -> Result<String, StatementError> {
    let mut name = reader.name()?.to_ascii_lowercase();
    while reader.take_symbol(".") {
        name.push('.');
        name.push_str(&reader.name()?.to_ascii_lowercase());
    }
    Ok(name)
}

fn generic_value<'a>(reader: &mut Reader<'a, '_>) -> Result<SetValue<'a>, StatementError> {
    if reader.take(&["from"]) {
        return reader.expect(&["current"]).map(|()| SetValue::Current);
    }
    if !reader.take(&["to"]) {
        reader.expect_symbol("=")?;
    }
    if reader.take(&["default"]) {
        return Ok(SetValue::Default);
    }
    reader.list(set_argument).map(SetValue::Values)
}

fn set_argument<'a>(reader: &mut Reader<'a, '_>) -> Result<SetArgument<'a>, StatementError> {
    let Some(token) = reader.peek() else {
        return Err(reader.unexpected());
    };
    if let Some(word) = reader.take_any(&["true", "false", "on"]) {
        return Ok(SetArgument::Text(Cow::Borrowed(word)));
    }
    match token.is_identifier() || token.is_string() {
        true => Ok(SetArgument::Text(word_or_string(reader)?)),
        false => Ok(SetArgument::Number(reader.number()?)),
    }
}

fn word_or_string<'a>(reader: &mut Reader<'a, '_>) -> Result<Cow<'a, str>, StatementError> {
    match reader.peek() {
        Some(token) if token.is_string() => reader.string(),
        _ => reader.word(),
    }
}

fn text_value(text: Cow<'_, str>) -> Result<SetValue<'_>, StatementError> {
    Ok(SetValue::Values(vec![SetArgument::Text(text)]))
}

fn role_value<'a>(reader: &mut Reader<'a, '_>) -> Result<SetValue<'a>, StatementError> {
    match reader.take(&["default"]) {
        true => Ok(SetValue::Default),
        false => text_value(word_or_string(reader)?),
    }
}

fn zone_value<'a>(reader: &mut Reader<'a, '_>) -> Result<SetValue<'a>, StatementError> {
    if reader.take_any(&["default", "local"]).is_some() {
        return Ok(SetValue::Default);
    }
    if reader.is_word(0, "interval") {
        return Ok(SetValue::Interval(reader.body()?.text));
    }
    match reader.peek() {
        Some(token) if token.is_string() => text_value(reader.string()?),
        Some(token) if token.is_identifier() => text_value(reader.name()?),
        _ => Ok(SetValue::Values(vec![SetArgument::Number(
            reader.number()?,
        )])),
    }
}

/// What RESET and SHOW name; `None` is ALL.
fn setting_or_all(reader: &mut Reader<'_, '_>) -> Result<Option<String>, StatementError> {
    if reader.take(&["all"]) {
        return Ok(None);
    }
    let special: &[(&[&str], &str)] = &[
        (&["time", "zone"], "timezone"),
        (
            &["transaction", "isolation", "level"],
            "transaction_isolation",
        ),
        (&["session", "authorization"], "session_authorization"),
    ];
    match special.iter().find(|(words, _)| reader.take(words)) {
        Some((_, name)) => Ok(Some((*name).to_owned())),
        None => setting_name(reader).map(Some),
    }
}

fn discard<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    Ok(Statement::Discard(
        match reader.take_any(&["all", "plans", "sequences", "temp", "temporary"]) {
            Some("all") => Discard::All,
            Some("plans") => Discard::Plans,
            Some("sequences") => Discard::Sequences,
            Some(_) => Discard::Temp,
            None => return Err(reader.unexpected()),
        },
    ))
}

fn prepare<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    if reader.is_word(0, "transaction") {
        let mut ahead = reader.clone();
        ahead.advance(1);
        if ahead.peek().is_some_and(Token::is_string) {
            *reader = ahead;
            return Ok(Statement::PrepareTransaction(reader.string()?));
        }
    }
    let name = reader.name()?;
    let parameter_types = if reader.is_symbol(0, "(") {
        reader.texts_in_parentheses()?
    } else {
        Vec::new()
    };
    reader.expect(&["as"])?;
    expect_query(reader)?;
    Ok(Statement::Prepare {
        name,
        parameter_types,
        body: reader.body()?,
    })
}

fn expect_query(reader: &Reader<'_, '_>) -> Result<(), StatementError> {
    query_kind(reader)
        .map(|_| ())
        .ok_or_else(|| reader.unexpected())
}

fn execute<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    let name = reader.name()?;
    let arguments = if reader.is_symbol(0, "(") {
        reader.texts_in_parentheses()?
    } else {
        Vec::new()
    };
    Ok(Statement::Execute { name, arguments })
}

/// `DEALLOCATE [PREPARE] { name | ALL }`; a statement may be called prepare.
fn deallocate<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    let mut ahead = reader.clone();
    if ahead.take(&["prepare"]) && !ahead.is_end() {
        *reader = ahead;
    }
    match reader.take(&["all"]) {
        true => Ok(Statement::Deallocate(None)),
        false => Ok(Statement::Deallocate(Some(reader.name()?))),
    }
}

fn notify<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    let channel = reader.name()?;
    let payload = if reader.take_symbol(",") {
        Some(reader.string()?)
    } else {
        None
    };
    Ok(Statement::Notify { channel, payload })
}

fn declare<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    let name = reader.name()?;
    let (mut scroll, mut binary) = (None, false);
    while let Some(option) =
        reader.take_any(&["no", "scroll", "binary", "asensitive", "insensitive"])
    {
        match option {
            "no" => {
                reader.expect(&["scroll"])?;
                scroll = Some(false);
            }
            "scroll" => scroll = Some(true),
            "binary" => binary = true,
            _ => {}
        }
    }
    reader.expect(&["cursor"])?;
    let hold = match reader.take_any(&["with", "without"]) {
        Some(word) => reader.expect(&["hold"]).map(|()| word == "with")?,
        None => false,
    };
    reader.expect(&["for"])?;
    expect_query(reader)?;
    Ok(Statement::Declare {
        name,
        hold,
        scroll,
        binary,
        body: reader.body()?,
    })
}

/// The cursor of FETCH or MOVE, which is what every form of them ends with.
fn last_name<'a>(reader: &mut Reader<'a, '_>) -> Result<Cow<'a, str>, StatementError> {
    const DIRECTIONS: &[&str] = &[
        "next", "prior", "first", "last", "all", "absolute", "relative", "forward", "backward",
    ];
    let direction = reader.take_any(DIRECTIONS);
    match direction {
        // A cursor may be called by one of these words, of which only ALL is reserved.
        Some(word) if word != "all" && reader.is_end() => return Ok(Cow::Borrowed(word)),
        Some("next" | "prior" | "first" | "last" | "all") => {}
        Some("forward" | "backward") if reader.take(&["all"]) => {}
        Some("forward" | "backward") | None if reader.peek().is_some_and(Token::is_identifier) => {}
        _ => {
            reader.number()?;
        }
    }
    let _ = reader.take_any(&["from", "in"]);
    reader.name()
}

fn explain<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    let mut analyze = false;
    let mut options = Vec::new();
    if explains_with_options(reader) {
        reader.expect_symbol("(")?;
        options = reader.list(explain_option)?;
        reader.expect_symbol(")")?;
        for (name, value) in &options {
            if matches!(&**name, "analyze" | "analyse") {
                analyze = !value.is_some_and(is_false);
            }
        }
    } else {
        if reader.take_any(&["analyze", "analyse"]).is_some() {
            analyze = true;
            options.push((Cow::Borrowed("analyze"), None));
        }
        if reader.take(&["verbose"]) {
            options.push((Cow::Borrowed("verbose"), None));
        }
    }
    let explainable = ["create", "declare", "refresh", "execute"]
        .iter()
        .any(|word| reader.is_word(0, word));
    if !explainable {
        expect_query(reader)?;
    }
    Ok(Statement::Explain {
        analyze,
        options,
        body: reader.body()?,
    })
}

/// Whether the parenthesis after EXPLAIN opens options rather than a query.
fn explains_with_options(reader: &Reader<'_, '_>) -> bool {
    let query = ["select", "with", "table"]
        .iter()
        .any(|word| reader.is_word(1, word));
    let values = reader.is_word(1, "values") && reader.is_symbol(2, "(");
    reader.is_symbol(0, "(") && !reader.is_symbol(1, "(") && !query && !values
}

fn explain_option<'a>(
    reader: &mut Reader<'a, '_>,
) -> Result<(Cow<'a, str>, Option<&'a str>), StatementError> {
    let name = match reader.take_any(&["analyze", "analyse"]) {
        Some(_) => Cow::Borrowed("analyze"),
        None => reader.word()?,
    };
    if reader.is_symbol(0, ",") || reader.is_symbol(0, ")") {
        return Ok((name, None));
    }
    let start = reader.clone();
    set_argument(reader)?;
    Ok((name, Some(start.text_until(reader))))
}

/// Whether an option's value is a way to say no.
fn is_false(value: &str) -> bool {
    ["false", "off", "0"]
        .iter()
        .any(|no| value.trim_matches('\'').eq_ignore_ascii_case(no))
}

fn maintenance<'a>(
    command: Maintenance,
    outside_block: bool,
) -> Result<Statement<'a>, StatementError> {
    Ok(Statement::Maintenance {
        command,
        outside_block,
    })
}

fn reindex<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    let concurrently = reader.has_word("concurrently");
    if reader.is_symbol(0, "(") {
        reader.parenthesised()?;
    }
    match reader.take_any(&["index", "table", "schema", "database", "system"]) {
        Some("index" | "table") => maintenance(Maintenance::Reindex, concurrently),
        Some(_) => maintenance(Maintenance::Reindex, true),
        None => Err(reader.unexpected()),
    }
}

fn cluster<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    if reader.is_symbol(0, "(") {
        reader.parenthesised()?;
    } else {
        reader.take(&["verbose"]);
    }
    maintenance(Maintenance::Cluster, reader.is_end())
}

fn plain_ddl<'a>(verb: DdlVerb) -> Statement<'a> {
    Statement::Ddl(Ddl {
        verb,
        object: None,
        relations: Vec::new(),
        temporary: false,
        outside_block: false,
    })
}

fn object_kind(reader: &mut Reader<'_, '_>) -> Result<ObjectKind, StatementError> {
    if let Some((_, kind)) = OBJECT_KINDS.iter().find(|(words, _)| reader.take(words)) {
        return Ok(*kind);
    }
    // The error is about the first word that no kind goes on with.
    let known = |words: &[&str]| {
        let same = words
            .iter()
            .enumerate()
            .take_while(|(ahead, word)| reader.is_word(*ahead, word));
        same.count()
    };
    let ahead = OBJECT_KINDS.iter().map(|(words, _)| known(words)).max();
    reader.advance(ahead.unwrap_or(0));
    Err(reader.unexpected())
}

/// Whether the kind's names are those of relations with rows.
fn is_relation(kind: ObjectKind) -> bool {
    matches!(
        kind,
        ObjectKind::Table
            | ObjectKind::View
            | ObjectKind::MaterializedView
            | ObjectKind::Sequence
            | ObjectKind::ForeignTable
    )
}

fn create<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    if reader.take(&["or"]) {
        reader.expect(&["replace"])?;
    }
    let scoped = reader.take_any(&["local", "global"]).is_some();
    let mut temporary = reader.take_any(&["temp", "temporary"]).is_some();
    if scoped && !temporary {
        return Err(reader.unexpected());
    }
    let _ = reader.take_any(&["unlogged", "recursive", "unique", "trusted", "constraint"]);
    let _ = reader.take_any(&["recursive", "procedural"]);
    if reader.is_word(1, "conversion") {
        reader.take(&["default"]);
    }
    let kind = object_kind(reader)?;
    let concurrently = kind == ObjectKind::Index && reader.take(&["concurrently"]);
    let mut relations = Vec::new();
    if is_relation(kind) {
        reader.take(&["if", "not", "exists"]);
        let relation = reader.qualified_name()?;
        temporary |= relation.is_temporary();
        let materialized_view = kind == ObjectKind::MaterializedView;
        if (kind == ObjectKind::Table || materialized_view) && reader.skip_to("as") {
            reader.advance(1);
            let body = reader.body()?;
            return Ok(Statement::CreateTableAs {
                relation,
                temporary,
                materialized_view,
                body,
            });
        }
        relations.push(relation);
    } else if kind == ObjectKind::Index && reader.skip_to("on") {
        reader.advance(1);
        relations.push(reader.relation()?);
    }
    let outside_block = concurrently
        || matches!(
            kind,
            ObjectKind::Database | ObjectKind::Tablespace | ObjectKind::Subscription
        );
    Ok(Statement::Ddl(Ddl {
        verb: DdlVerb::Create,
        object: Some(kind),
        relations,
        temporary,
        outside_block,
    }))
}

fn alter<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    reader.take(&["procedural"]);
    let kind = object_kind(reader)?;
    reader.take(&["if", "exists"]);
    let mut relations = Vec::new();
    // Not ALTER … ALL IN TABLESPACE.
    if is_relation(kind) && !reader.is_word(0, "all") {
        relations.push(reader.relation()?);
    }
    let outside_block = match kind {
        ObjectKind::System => true,
        ObjectKind::Database => reader.has_word_ahead("tablespace"),
        ObjectKind::Subscription => reader.has_word_ahead("publication"),
        ObjectKind::Table => {
            reader.has_word_ahead("detach") && reader.has_word_ahead("concurrently")
        }
        _ => false,
    };
    Ok(Statement::Ddl(Ddl {
        verb: DdlVerb::Alter,
        object: Some(kind),
        relations,
        temporary: false,
        outside_block,
    }))
}

fn drop<'a>(reader: &mut Reader<'a, '_>) -> Result<Statement<'a>, StatementError> {
    reader.take(&["procedural"]);
    let kind = object_kind(reader)?;
    let concurrently = kind == ObjectKind::Index && reader.take(&["concurrently"]);
    reader.take(&["if", "exists"]);
    let relations = if is_relation(kind) {
        reader.list(Reader::qualified_name)?
    } else {
        Vec::new()
    };
    let outside_block = concurrently
        || matches!(
            kind,
            ObjectKind::Database | ObjectKind::Tablespace | ObjectKind::Subscription
        );
    Ok(Statement::Ddl(Ddl {
        verb: DdlVerb::Drop,
        object: Some(kind),
        relations,
        temporary: false,
        outside_block,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lex::{LexLimits, lex};

    fn classified(sql: &str) -> Result<Statement<'_>, StatementError> {
        let tokens = lex(
            sql,
            &LexLimits {
                tokens_max: 1000,
                depth_max: 100,
            },
        )?;
        classify(sql, &tokens)
    }

    fn text(text: &str) -> SetArgument<'_> {
        SetArgument::Text(Cow::Borrowed(text))
    }

    fn modes(sql: &str) -> TransactionModes {
        match classified(sql).unwrap() {
            Statement::Begin { modes, .. }
            | Statement::SetTransaction(modes)
            | Statement::SetSessionCharacteristics(modes) => modes,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn every_command_of_postgresql_is_classified() {
        let cases = [
            ("ABORT", "ROLLBACK"),
            ("ALTER TABLE t ADD c int", "ALTER"),
            ("ALTER TEXT SEARCH CONFIGURATION c RENAME TO d", "ALTER"),
            ("ALTER USER MAPPING FOR u SERVER s OPTIONS (a 'b')", "ALTER"),
            (
                "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
                "ALTER",
            ),
            ("ALTER LARGE OBJECT 1 OWNER TO u", "ALTER"),
            ("ALTER OPERATOR CLASS c USING btree RENAME TO d", "ALTER"),
            ("ALTER ROUTINE f() RENAME TO g", "ALTER"),
            ("ANALYZE", "ANALYZE"),
            ("analyse t", "ANALYZE"),
            ("BEGIN", "BEGIN"),
            ("CALL p(1)", "CALL"),
            ("CHECKPOINT", "CHECKPOINT"),
            ("CLOSE c", "CLOSE CURSOR"),
            ("CLOSE ALL", "CLOSE CURSOR ALL"),
            ("CLUSTER", "CLUSTER"),
            ("COMMENT ON TABLE t IS 'x'", "COMMENT"),
            ("COMMIT", "COMMIT"),
            ("COMMIT PREPARED 'x'", "COMMIT PREPARED"),
            ("COPY t FROM STDIN", "COPY"),
            ("CREATE ACCESS METHOD m TYPE INDEX HANDLER h", "CREATE"),
            (
                "CREATE OR REPLACE AGGREGATE a(int) (sfunc = f, stype = int)",
                "CREATE",
            ),
            ("CREATE CAST (a AS b) WITHOUT FUNCTION", "CREATE"),
            (
                "CREATE DEFAULT CONVERSION c FOR 'a' TO 'b' FROM f",
                "CREATE",
            ),
            (
                "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()",
                "CREATE",
            ),
            (
                "CREATE OR REPLACE TRUSTED PROCEDURAL LANGUAGE l HANDLER h",
                "CREATE",
            ),
            (
                "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
                "CREATE",
            ),
            ("CREATE OPERATOR FAMILY f USING btree", "CREATE"),
            (
                "CREATE OR REPLACE RECURSIVE VIEW v (a) AS SELECT 1",
                "CREATE",
            ),
            (
                "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON x FOR EACH ROW EXECUTE FUNCTION f()",
                "CREATE",
            ),
            ("CREATE USER MAPPING FOR u SERVER s", "CREATE"),
            (
                "CREATE OR REPLACE TRANSFORM FOR t LANGUAGE l (FROM SQL WITH FUNCTION f(internal))",
                "CREATE",
            ),
            ("CREATE TABLE t AS SELECT 1", "SELECT"),
            ("DEALLOCATE p", "DEALLOCATE"),
            ("DEALLOCATE PREPARE ALL", "DEALLOCATE ALL"),
            ("DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR"),
            ("DELETE FROM t", "DELETE"),
            ("DISCARD ALL", "DISCARD ALL"),
            ("DISCARD TEMPORARY", "DISCARD TEMP"),
            ("DO $$ begin end $$", "DO"),
            ("DROP OWNED BY u", "DROP"),
            ("DROP ROUTINE f", "DROP"),
            ("END", "COMMIT"),
            ("EXECUTE p", "EXECUTE"),
            ("EXPLAIN SELECT 1", "EXPLAIN"),
            ("FETCH c", "FETCH"),
            ("GRANT a TO b", "GRANT"),
            (
                "IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y",
                "IMPORT FOREIGN SCHEMA",
            ),
            ("INSERT INTO t VALUES (1)", "INSERT"),
            ("LISTEN c", "LISTEN"),
            ("LOAD 'x'", "LOAD"),
            ("LOCK t", "LOCK TABLE"),
            (
                "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
                "MERGE",
            ),
            ("MOVE c", "MOVE"),
            ("NOTIFY c, 'x'", "NOTIFY"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
            ("REASSIGN OWNED BY a TO b", "REASSIGN OWNED"),
            (
                "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
                "REFRESH MATERIALIZED VIEW",
            ),
            ("REINDEX TABLE t", "REINDEX"),
            ("RELEASE s", "RELEASE"),
            ("RESET ALL", "RESET"),
            ("REVOKE a FROM b", "REVOKE"),
            ("ROLLBACK", "ROLLBACK"),
            ("ROLLBACK PREPARED 'x'", "ROLLBACK PREPARED"),
            ("ROLLBACK TO s", "ROLLBACK"),
            ("SAVEPOINT s", "SAVEPOINT"),
            ("SECURITY LABEL ON TABLE t IS 'x'", "SECURITY LABEL"),
            ("SELECT 1", "SELECT"),
            ("SET a = 1", "SET"),
            ("SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS"),
            ("SHOW a", "SHOW"),
            ("START TRANSACTION", "START TRANSACTION"),
            ("TABLE t", "SELECT"),
            ("TRUNCATE t", "TRUNCATE TABLE"),
            ("UNLISTEN *", "UNLISTEN"),
            ("UPDATE t SET a = 1", "UPDATE"),
            ("VACUUM", "VACUUM"),
            ("VALUES (1)", "SELECT"),
            ("WITH a AS (SELECT 1) SELECT * FROM a", "SELECT"),
            ("(SELECT 1)", "SELECT"),
            ("/* nothing */", ""),
        ];
        for (sql, expected) in cases {
            assert_eq!(
                classified(sql).map(|statement| statement.command_word()),
                Ok(expected),
                "{sql}"
            );
        }
    }

    #[test]
    fn object_words_are_found_longest_first() {
        for (index, (words, _)) in OBJECT_KINDS.iter().enumerate() {
            let hidden = OBJECT_KINDS[..index]
                .iter()
                .any(|(earlier, _)| words.starts_with(earlier));
            assert!(!hidden, "{words:?}");
        }
    }

    #[test]
    fn transaction_modes_are_read() {
        let none = TransactionModes::default();
        let isolation = |level| TransactionModes {
            isolation: Some(level),
            ..none
        };
        let cases = [
            ("begin work", none),
            (
                "begin transaction isolation level read committed",
                isolation(IsolationLevel::ReadCommitted),
            ),
            (
                "start transaction isolation level repeatable read",
                isolation(IsolationLevel::RepeatableRead),
            ),
            (
                "set transaction isolation level read uncommitted",
                isolation(IsolationLevel::ReadUncommitted),
            ),
            (
                "set local transaction isolation level serializable",
                isolation(IsolationLevel::Serializable),
            ),
            (
                "begin read only not deferrable",
                TransactionModes {
                    read_only: Some(true),
                    deferrable: Some(false),
                    ..none
                },
            ),
            (
                "begin read write, deferrable",
                TransactionModes {
                    read_only: Some(false),
                    deferrable: Some(true),
                    ..none
                },
            ),
            (
                "set session characteristics as transaction read only",
                TransactionModes {
                    read_only: Some(true),
                    ..none
                },
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(modes(sql), expected, "{sql}");
        }
    }

    #[test]
    fn transactions_end_and_go_back_in_many_words() {
        let cases = [
            ("commit and chain", Statement::Commit { chain: true }),
            ("end work and no chain", Statement::Commit { chain: false }),
            (
                "abort transaction and chain",
                Statement::Rollback { chain: true },
            ),
            (
                "rollback work to savepoint \"S\"",
                Statement::RollbackTo("S".into()),
            ),
            (
                "rollback to savepoint",
                Statement::RollbackTo("savepoint".into()),
            ),
            ("release savepoint S", Statement::Release("s".into())),
            (
                "release savepoint savepoint",
                Statement::Release("savepoint".into()),
            ),
            (
                "prepare transaction E'a\\'b'",
                Statement::PrepareTransaction("a'b".into()),
            ),
            (
                "set transaction snapshot 'x'",
                Statement::SetTransactionSnapshot("x".into()),
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(classified(sql), Ok(expected), "{sql}");
        }
    }

    #[test]
    fn settings_are_read() {
        use SetScope::{Local, Session};
        let values = SetValue::Values;
        let cases = [
            (
                "SET Work_Mem = '1MB'",
                Session,
                "work_mem",
                values(vec![text("1MB")]),
            ),
            ("set session a to b", Session, "a", values(vec![text("b")])),
            (
                "set local \"A\".b = On",
                Local,
                "a.b",
                values(vec![text("on")]),
            ),
            (
                "set session = 1",
                Session,
                "session",
                values(vec![SetArgument::Number("1".into())]),
            ),
            (
                "set local.x = true",
                Session,
                "local.x",
                values(vec![text("true")]),
            ),
            (
                "set a = -1.50",
                Session,
                "a",
                values(vec![SetArgument::Number("-1.50".into())]),
            ),
            (
                "set a = +007",
                Session,
                "a",
                values(vec![SetArgument::Number("7".into())]),
            ),
            (
                "set search_path to \"$user\", Public, 'x y'",
                Session,
                "search_path",
                { values(vec![text("$user"), text("public"), text("x y")]) },
            ),
            ("set a to default", Session, "a", SetValue::Default),
            ("set a from current", Session, "a", SetValue::Current),
            (
                "set time zone 'UTC'",
                Session,
                "timezone",
                values(vec![text("UTC")]),
            ),
            (
                "set local time zone -8",
                Local,
                "timezone",
                values(vec![SetArgument::Number("-8".into())]),
            ),
            (
                "set time zone local",
                Session,
                "timezone",
                SetValue::Default,
            ),
            (
                "set time zone interval '-8' hour",
                Session,
                "timezone",
                SetValue::Interval("interval '-8' hour"),
            ),
            (
                "set schema 'x'",
                Session,
                "search_path",
                values(vec![text("x")]),
            ),
            ("set names", Session, "client_encoding", SetValue::Default),
            (
                "set names 'utf8'",
                Session,
                "client_encoding",
                values(vec![text("utf8")]),
            ),
            ("set role none", Session, "role", values(vec![text("none")])),
            ("set local role 'x'", Local, "role", values(vec![text("x")])),
            (
                "set session authorization x",
                Session,
                "session_authorization",
                values(vec![text("x")]),
            ),
            (
                "set local session authorization default",
                Local,
                "session_authorization",
                SetValue::Default,
            ),
            (
                "set xml option document",
                Session,
                "xmloption",
                values(vec![text("DOCUMENT")]),
            ),
        ];
        for (sql, scope, name, value) in cases {
            let expected = Statement::Set {
                scope,
                name: name.to_owned(),
                value,
            };
            assert_eq!(classified(sql), Ok(expected), "{sql}");
        }
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(
            classified("show time zone"),
            Ok(Statement::Show(named("timezone")))
        );
        assert_eq!(classified("show all"), Ok(Statement::Show(None)));
        assert_eq!(
            classified("reset transaction isolation level"),
            Ok(Statement::Reset(named("transaction_isolation")))
        );
        assert_eq!(
            classified("reset Session Authorization"),
            Ok(Statement::Reset(named("session_authorization")))
        );
        assert_eq!(
            classified("show pgring.Shard"),
            Ok(Statement::Show(named("pgring.shard")))
        );
        assert_eq!(
            classified("set catalog 'x'"),
            Err(StatementError::SetCatalog)
        );
    }

    #[test]
    fn prepared_statements_and_cursors_are_read() {
        assert_eq!(
            classified("prepare P (int, numeric(4, 2)) as select $1"),
            Ok(Statement::Prepare {
                name: "p".into(),
                parameter_types: vec!["int", "numeric(4, 2)"],
                body: Body {
                    text: "select $1",
                    first_token: 13
                },
            })
        );
        assert_eq!(
            classified("execute p (f(1, 2), '(', array[3, 4])"),
            Ok(Statement::Execute {
                name: "p".into(),
                arguments: vec!["f(1, 2)", "'('", "array[3, 4]"]
            })
        );
        assert_eq!(
            classified("deallocate prepare"),
            Ok(Statement::Deallocate(Some("prepare".into())))
        );
        assert_eq!(
            classified("declare c binary no scroll cursor with hold for select 1"),
            Ok(Statement::Declare {
                name: "c".into(),
                hold: true,
                scroll: Some(false),
                binary: true,
                body: Body {
                    text: "select 1",
                    first_token: 9
                },
            })
        );
        let fetches = [
            "c",
            "from c",
            "next c",
            "next from c",
            "all in c",
            "-5 c",
            "5 from c",
            "absolute -1 from c",
            "relative 0 c",
            "forward c",
            "forward 5 from c",
            "forward all in c",
            "backward from c",
        ];
        for fetch in fetches {
            assert_eq!(
                classified(&format!("fetch {fetch}")),
                Ok(Statement::Fetch("c".into())),
                "{fetch}"
            );
        }
        assert_eq!(
            classified("move forward"),
            Ok(Statement::Move("forward".into()))
        );
    }

    #[test]
    fn explain_tells_options_from_a_query() {
        type Options<'a> = &'a [(&'a str, Option<&'a str>)];
        let cases: &[(&str, bool, Options<'_>, &str)] = &[
            ("explain select 1", false, &[], "select 1"),
            ("explain (select 1)", false, &[], "(select 1)"),
            ("explain ((select 1))", false, &[], "((select 1))"),
            ("explain (values (1))", false, &[], "(values (1))"),
            (
                "explain analyze verbose (select 1)",
                true,
                &[("analyze", None), ("verbose", None)],
                "(select 1)",
            ),
            (
                "explain (analyze, format json) delete from t",
                true,
                &[("analyze", None), ("format", Some("json"))],
                { "delete from t" },
            ),
            (
                "explain (analyze false, costs off) select 1",
                false,
                &[("analyze", Some("false")), ("costs", Some("off"))],
                "select 1",
            ),
            (
                "explain (analyse 'off') execute p(1)",
                false,
                &[("analyze", Some("'off'"))],
                "execute p(1)",
            ),
        ];
        for (sql, expected_analyze, expected_options, expected_body) in cases {
            let Ok(Statement::Explain {
                analyze,
                options,
                body,
            }) = classified(sql)
            else {
                panic!("{sql}")
            };
            let options: Vec<_> = options
                .iter()
                .map(|(name, value)| (&**name, *value))
                .collect();
            assert_eq!(
                (analyze, &*options, body.text),
                (*expected_analyze, *expected_options, *expected_body),
                "{sql}"
            );
        }
    }

    #[test]
    fn ddl_names_its_relations_and_whether_it_runs_in_a_block() {
        let cases: &[(&str, ObjectKind, &[&str], bool, bool)] = &[
            (
                "create table a.b (x int default (1))",
                ObjectKind::Table,
                &["a.b"],
                false,
                false,
            ),
            (
                "create table if (x int)",
                ObjectKind::Table,
                &["if"],
                false,
                false,
            ),
            (
                "create table if not exists T (x int)",
                ObjectKind::Table,
                &["t"],
                false,
                false,
            ),
            (
                "create local temp table t (x int)",
                ObjectKind::Table,
                &["t"],
                true,
                false,
            ),
            (
                "create table pg_temp.t (x int)",
                ObjectKind::Table,
                &["pg_temp.t"],
                true,
                false,
            ),
            (
                "create unlogged table t (x int)",
                ObjectKind::Table,
                &["t"],
                false,
                false,
            ),
            (
                "create temporary sequence s",
                ObjectKind::Sequence,
                &["s"],
                true,
                false,
            ),
            (
                "create or replace temp view v as select 1",
                ObjectKind::View,
                &["v"],
                true,
                false,
            ),
            (
                "create foreign table t (x int) server s",
                ObjectKind::ForeignTable,
                &["t"],
                false,
                false,
            ),
            (
                "create foreign data wrapper w",
                ObjectKind::ForeignDataWrapper,
                &[],
                false,
                false,
            ),
            (
                "create unique index on only t (x)",
                ObjectKind::Index,
                &["t"],
                false,
                false,
            ),
            (
                "create index concurrently if not exists i on a.t (x)",
                ObjectKind::Index,
                &["a.t"],
                false,
                true,
            ),
            ("create database d", ObjectKind::Database, &[], false, true),
            (
                "create schema s create table t (x int)",
                ObjectKind::Schema,
                &[],
                false,
                false,
            ),
            (
                "alter table if exists only t add y int",
                ObjectKind::Table,
                &["t"],
                false,
                false,
            ),
            (
                "alter table all in tablespace a set tablespace b",
                ObjectKind::Table,
                &[],
                false,
                false,
            ),
            (
                "alter table t detach partition p concurrently",
                ObjectKind::Table,
                &["t"],
                false,
                true,
            ),
            (
                "alter table t detach partition p",
                ObjectKind::Table,
                &["t"],
                false,
                false,
            ),
            (
                "alter system set a = 1",
                ObjectKind::System,
                &[],
                false,
                true,
            ),
            (
                "alter type e add value 'x'",
                ObjectKind::Type,
                &[],
                false,
                false,
            ),
            (
                "alter subscription s refresh publication",
                ObjectKind::Subscription,
                &[],
                false,
                true,
            ),
            (
                "alter subscription s disable",
                ObjectKind::Subscription,
                &[],
                false,
                false,
            ),
            (
                "drop table if exists a, b.c cascade",
                ObjectKind::Table,
                &["a", "b.c"],
                false,
                false,
            ),
            (
                "drop index concurrently i",
                ObjectKind::Index,
                &[],
                false,
                true,
            ),
            (
                "drop user mapping for u server s",
                ObjectKind::UserMapping,
                &[],
                false,
                false,
            ),
        ];
        for (sql, object, relations, temporary, outside_block) in cases {
            let Ok(Statement::Ddl(ddl)) = classified(sql) else {
                panic!("{sql}")
            };
            let names = ddl.relations.iter().map(|name| match &name.schema {
                Some(schema) => format!("{schema}.{}", name.name),
                None => name.name.to_string(),
            });
            assert_eq!(names.collect::<Vec<_>>(), *relations, "{sql}");
            assert_eq!(
                (ddl.object, ddl.temporary),
                (Some(*object), *temporary),
                "{sql}"
            );
            assert_eq!(ddl.outside_block, *outside_block, "{sql}");
        }
        let maintenance = [
            ("vacuum t", true),
            ("analyze t", false),
            ("cluster", true),
            ("cluster (verbose)", true),
            ("cluster verbose t", false),
            ("reindex table t", false),
            ("reindex (concurrently) table t", true),
            ("reindex index concurrently i", true),
            ("reindex schema s", true),
        ];
        for (sql, expected) in maintenance {
            let Ok(Statement::Maintenance { outside_block, .. }) = classified(sql) else {
                panic!("{sql}")
            };
            assert_eq!(outside_block, expected, "{sql}");
        }
    }

    #[test]
    fn what_creates_a_table_from_a_query_is_told_apart() {
        let cases = [
            (
                "create temp table t (a, b) with (fillfactor = 10) as select 1",
                true,
                false,
                "select 1",
            ),
            (
                "create table t as execute p(1) with no data",
                false,
                false,
                "execute p(1) with no data",
            ),
            (
                "create materialized view if not exists v as table t",
                false,
                true,
                "table t",
            ),
        ];
        for (sql, expected_temporary, expected_view, expected_body) in cases {
            let Ok(Statement::CreateTableAs {
                temporary,
                materialized_view,
                body,
                ..
            }) = classified(sql)
            else {
                panic!("{sql}")
            };
            assert_eq!(
                (temporary, materialized_view),
                (expected_temporary, expected_view),
                "{sql}"
            );
            assert_eq!(body.text, expected_body, "{sql}");
        }
    }

    #[test]
    fn relations_may_say_only() {
        let name = |schema: Option<&'static str>, name: &'static str| Name {
            catalog: None,
            schema: schema.map(Cow::Borrowed),
            name: Cow::Borrowed(name),
        };
        let expected = vec![name(None, "a"), name(Some("s"), "b"), name(None, "c")];
        assert_eq!(
            classified("truncate table only a, only (s.b), c * restart identity"),
            Ok(Statement::Truncate(expected.clone()))
        );
        assert_eq!(
            classified("lock only a, s.b, c in share mode"),
            Ok(Statement::Lock(expected))
        );
    }

    #[test]
    fn syntax_errors_are_those_of_postgresql() {
        let cases = [
            ("foo", "syntax error at or near \"foo\"", 1),
            ("é = 1", "syntax error at or near \"é\"", 1),
            ("'x'", "syntax error at or near \"'x'\"", 1),
            ("begin foo", "syntax error at or near \"foo\"", 7),
            (
                "begin isolation level snapshot",
                "syntax error at or near \"snapshot\"",
                23,
            ),
            ("start", "syntax error at end of input", 6),
            ("commit and", "syntax error at end of input", 11),
            ("abort to s", "syntax error at or near \"to\"", 7),
            ("savepoint", "syntax error at end of input", 10),
            ("savepoint select", "syntax error at or near \"select\"", 11),
            ("savepoint a b", "syntax error at or near \"b\"", 13),
            (
                "rollback to savepoint a b",
                "syntax error at or near \"b\"",
                25,
            ),
            ("set a", "syntax error at end of input", 6),
            ("set a =", "syntax error at end of input", 8),
            ("set a = select", "syntax error at or near \"select\"", 9),
            ("set a = 1 2", "syntax error at or near \"2\"", 11),
            ("set a = $1", "syntax error at or near \"$1\"", 9),
            ("set transaction", "syntax error at end of input", 16),
            (
                "set session characteristics as foo",
                "syntax error at or near \"foo\"",
                32,
            ),
            ("show", "syntax error at end of input", 5),
            ("show a b", "syntax error at or near \"b\"", 8),
            ("discard foo", "syntax error at or near \"foo\"", 9),
            ("deallocate", "syntax error at end of input", 11),
            (
                "prepare p select 1",
                "syntax error at or near \"select\"",
                11,
            ),
            ("execute p ()", "syntax error at or near \")\"", 12),
            ("execute p (1", "syntax error at end of input", 13),
            ("listen a.b", "syntax error at or near \".\"", 9),
            ("notify a, b", "syntax error at or near \"b\"", 11),
            ("fetch absolute c", "syntax error at or near \"c\"", 16),
            ("close", "syntax error at end of input", 6),
            ("create foo", "syntax error at or near \"foo\"", 8),
            ("drop table", "syntax error at end of input", 11),
            ("explain foo", "syntax error at or near \"foo\"", 9),
            ("security foo", "syntax error at or near \"foo\"", 10),
        ];
        for (sql, message, expected) in cases {
            let error = classified(sql).unwrap_err();
            assert_eq!(error.to_string(), message, "{sql}");
            let (StatementError::Unexpected { position, .. }
            | StatementError::EndOfInput { position }) = error
            else {
                panic!("{sql}: {error:?}")
            };
            assert_eq!(position, expected, "{sql}");
        }
    }

    #[test]
    fn an_early_end_names_the_semicolon_that_caused_it() {
        let sql = "savepoint ; select 1";
        let tokens = lex(
            sql,
            &LexLimits {
                tokens_max: 10,
                depth_max: 1,
            },
        )
        .unwrap();
        let error = classify(sql, &tokens[..1]).unwrap_err();
        assert_eq!(
            error,
            StatementError::Unexpected {
                near: ";".to_owned(),
                at: 10,
                position: 11
            }
        );
    }
}

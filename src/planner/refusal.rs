//! [`Refusal`]: every reason why the router does not run a statement, in one table with stable codes; and
//! [`PlanError`], what planning ends in instead of a plan.

use crate::sql::lex::LexError;
use crate::sql::parse::{self, ParseError};
use crate::topology::SlotId;
use crate::topology::schema::Schema;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use std::sync::Arc;
use thiserror::Error;

/// Declares the table of refusals.
macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident = $code:literal, $hint:literal;)*) => {
        /// Why a statement is refused with SQLSTATE 0A000. Codes never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[$doc])+ $name,)*
        }

        impl Refusal {
            /// All of them, in the order of the table.
            pub const ALL: &[Refusal] = &[$(Refusal::$name,)*];

            /// The stable code that clients see.
            pub fn code(self) -> &'static str {
                match self { $(Refusal::$name => $code,)* }
            }

            /// What to do instead.
            pub fn hint(self) -> &'static str {
                match self { $(Refusal::$name => $hint,)* }
            }
        }
    };
}

refusals! {
    /// An aggregate over rows of several shards without GROUP BY.
    Aggregate = "aggregate", "Restrict the sharding key to one value, or group by the sharding key.";
    /// GROUP BY without the sharding key over several shards.
    GroupBy = "group-by", "Add the sharding key to GROUP BY, or restrict it to one value.";
    /// DISTINCT without the sharding key in the output over several shards.
    Distinct = "distinct", "Add the sharding key to the select list, or restrict it to one value.";
    /// DISTINCT ON without the sharding key over several shards.
    DistinctOn = "distinct-on", "Add the sharding key to DISTINCT ON, or restrict it to one value.";
    /// A window function whose PARTITION BY lacks the sharding key over several shards.
    Window = "window", "Add the sharding key to every PARTITION BY, or restrict it to one value.";
    /// A set operation that needs rows of several shards at once.
    SetOperation = "set-operation", "Use UNION ALL, put the sharding key into the same column of both sides, or restrict it to one value.";
    /// Rows of other shards, which lie here while slots move, would be seen.
    ForeignRows = "foreign-rows", "Wait until the slots have moved, name the sharding key, or write the statement in a simpler form.";
    /// A change of the schema, or TRUNCATE, while slots move.
    MovingSlots = "moving-slots", "Wait until the slots have moved.";
    /// A join of sharded rows that is not an equality of their sharding keys.
    Join = "join", "Join the tables on their sharding keys, or restrict the keys to one value.";
    /// A subquery over sharded rows that is not tied to the outer row's sharding key.
    Subquery = "subquery", "Correlate the subquery with the outer query on the sharding key, or restrict the key to one value in it.";
    /// A recursive query over sharded rows of several shards.
    Recursive = "recursive", "Restrict the sharding key to one value in every part of the recursive query.";
    /// LIMIT, OFFSET or FETCH in a subquery over several shards.
    Limit = "limit", "Move LIMIT to the outermost query, or restrict the sharding key to one value.";
    /// FETCH FIRST … WITH TIES over several shards.
    LimitWithTies = "limit-with-ties", "Use FETCH FIRST … ROWS ONLY, or restrict the sharding key to one value.";
    /// LIMIT or OFFSET that is neither a constant nor a parameter, over several shards.
    LimitExpression = "limit-expression", "Use a constant or a parameter for LIMIT and OFFSET.";
    /// FOR UPDATE or FOR SHARE with LIMIT over several shards: it would lock more rows than it returns.
    LockingWithLimit = "locking-with-limit", "Leave out LIMIT, or restrict the sharding key to one value.";
    /// FOR UPDATE or FOR SHARE of reference rows along with sharded ones: a copy's lock excludes nobody elsewhere.
    LockingReference = "locking-reference", "Name the sharded tables in FOR UPDATE OF.";
    /// ORDER BY that the router cannot merge.
    OrderBy = "order-by", "Sort by columns of the select list, or restrict the sharding key to one value.";
    /// ORDER BY of what only PostgreSQL sorts, over several shards, where the rows cannot be gathered.
    OrderByCollation = "order-by-collation", "Sort by … COLLATE \"C\", or restrict the sharding key to one value.";
    /// Local and sharded tables in one statement that is not on one shard.
    LocalWithSharded = "local-with-sharded", "Declare the local table as a reference table, or query the tables one after the other.";
    /// Local tables of two shards in one statement.
    LocalWithLocal = "local-with-local", "Query the tables one after the other.";
    /// Catalog and sharded tables in one statement over several shards.
    CatalogWithSharded = "catalog-with-sharded", "Query the catalog in a statement of its own, or restrict the sharding key to one value.";
    /// A write of a view over sharded tables, or a query of one whose own query the router does not understand.
    View = "view", "Use the tables of the view, or name the shard with SET pgring.shard.";
    /// A function whose result differs between shards, in a statement over several shards.
    VolatileFunction = "volatile-function", "Pass the value as a literal or a parameter, or restrict the sharding key to one value.";
    /// A function or type that looks at one shard's catalog or server, in a statement over several shards.
    CatalogFunction = "catalog-function", "Restrict the sharding key to one value, or name the shard with SET pgring.shard.";
    /// A function that must run on one designated shard (sequences, locks, messages), along with sharded tables.
    DesignatedFunction = "designated-function", "Call the function in a statement of its own and pass its result as a parameter.";
    /// A function in SQL, PL/pgSQL or another language that may read or write tables on its own.
    ProceduralFunction = "procedural-function", "Declare the function IMMUTABLE if it reads no table, or name the shard with SET pgring.shard.";
    /// A function that the router does not know, in a statement over several shards.
    UnknownFunction = "unknown-function", "Check the function's name; after CREATE FUNCTION outside the router, RELOAD it.";
    /// What keeps state in its server session, or shows it: a function, a write of pg_settings, pg_prepared_statements.
    SessionState = "session-state", "Use SET, or the transaction-level variant of the function, or connect to the shard itself.";
    /// A column of the system (ctid, xmin, tableoid, …) over several shards.
    SystemColumn = "system-column", "Restrict the sharding key to one value: these columns mean nothing across shards.";
    /// TABLESAMPLE over several shards with REPEATABLE, of reference rows, or of what must be gathered.
    TableSample = "table-sample", "Restrict the sharding key to one value.";
    /// UPDATE or DELETE of the row of a cursor that more than the cursor's shard would have to take part in.
    Cursor = "cursor", "Restrict the rows by their key instead of WHERE CURRENT OF.";
    /// INSERT without a value for the sharding key.
    MissingKey = "missing-key", "Give the sharding key column a value.";
    /// INSERT with NULL as the sharding key.
    NullKey = "null-key", "The sharding key cannot be NULL.";
    /// INSERT with a key that the router cannot place.
    KeyValue = "key-value", "Give the sharding key as a literal or a parameter of the column's type.";
    /// INSERT … SELECT whose rows may belong to another shard than the one that makes them, in a form or with columns that
    /// the router does not carry over.
    InsertSelect = "insert-select", "Give constants and parameters a type, write WITH behind INSERT INTO, select the source's sharding key into the target's, or insert the rows by VALUES or COPY.";
    /// UPDATE of the sharding key to what is not one known value, or where the table has what would notice that its rows
    /// are deleted here and inserted there.
    KeyUpdate = "key-update", "Delete the row and insert it with the new key.";
    /// INSERT that leaves a sequence's column of a sharded or reference table to its default, in a form in which the router
    /// does not fill it in.
    SequenceDefault = "sequence-default", "Leave the column out of an INSERT … VALUES, or give it a value: the shards' sequences would repeat each other's.";
    /// INSERT over several shards that leaves a column to a default which differs between shards.
    DefaultDiffers = "default-differs", "Give the column a value, or insert the rows of one sharding key at a time.";
    /// ON CONFLICT whose columns lack the key: the row that conflicts may be on another shard.
    OnConflict = "on-conflict", "Name the sharding key among the columns of ON CONFLICT.";
    /// MERGE over several shards that is not a join on the sharding keys.
    Merge = "merge", "Join target and source on their sharding keys, or restrict the keys to one value.";
    /// INSERT in WITH over several shards.
    DataModifyingCte = "data-modifying-cte", "Restrict the sharding key to one value, or use statements of their own.";
    /// A write of a reference table that the copies might answer differently.
    ReferenceWriteDiffers = "reference-write-differs", "Pass the values as literals or parameters.";
    /// A write of a reference table that reads tables which are not on every shard.
    ReferenceWriteReads = "reference-write-reads", "Read the rows first, then write them with literals or parameters.";
    /// A write of a reference table along with another write.
    ReferenceWriteMixed = "reference-write-mixed", "Write the tables in statements of their own.";
    /// SELECT INTO, CREATE TABLE AS with tables that are local to another shard, CREATE MATERIALIZED VIEW of sharded
    /// tables, or another relation than a local one.
    CreateTableAs = "create-table-as", "Use CREATE TABLE AS without tables that are local to other shards than the default one, or create the table first and fill it.";
    /// Temporary relations in a statement that would run on other shards than the default one, where they are, or that
    /// makes what the router would not know of.
    TemporaryTable = "temporary-table", "Change temporary tables in statements of their own, and fill them by INSERT or COPY with rows that were read first.";
    /// A database, tablespace or other object of a server.
    ServerObject = "server-object", "Run the statement on each shard's server.";
    /// A write that fires a trigger which may reach rows on other shards, or differ between them.
    Trigger = "trigger", "Let the trigger's function change its own row only (a local table's: name local tables only), or name the shard with SET pgring.shard.";
    /// DDL that fires an event trigger which does more on several shards than on one.
    EventTrigger = "event-trigger", "Let the event trigger's function look and complain only, disable it for this command, or name the shard with SET pgring.shard.";
    /// A write of a table with a rule.
    Rule = "rule", "Drop the rule, or name the shard with SET pgring.shard.";
    /// A use of a table whose policies read what is not on every shard, or differ between shards.
    RowSecurity = "row-security", "Let the policy compare columns with constants, current_user and current_setting() only, or name the shard with SET pgring.shard.";
    /// A unique or exclusion constraint without the sharding key: it holds on each shard only.
    UniqueWithoutKey = "unique-without-key", "Add the sharding key to the constraint, or accept that it holds on each shard only by unique_per_shard = true in shards.toml.";
    /// A foreign key between rows that may be on different shards.
    ForeignKey = "foreign-key", "Pair the tables' sharding keys in the foreign key, or declare the referenced table as a reference table.";
    /// DDL that gives a declared table another name, its sharding key another name or type, or makes it a part of one
    /// whose rows are placed in another way.
    PlacementChange = "placement-change", "Declare the tables alike, or create a table under the new declaration and move the rows into it.";
    /// COPY that names tables of different placements, CREATE SCHEMA with what is in it.
    MixedPlacement = "mixed-placement", "Name the tables in statements of their own.";
    /// COPY without the sharding key in its column list.
    CopyWithoutKey = "copy-without-key", "Add the sharding key to the column list.";
    /// COPY with a WHERE clause, or another form that the router does not split; COPY out of a query whose rows are merged,
    /// with ENCODING, FORCE_QUOTE of some columns, or a write in it.
    CopyForm = "copy-form", "Leave the clause out, or name the shard with SET pgring.shard.";
    /// A table that the router's catalog does not have yet: its own transaction has just made or changed it, and the
    /// block's own catalog cannot be asked.
    UnloadedTable = "table-not-loaded", "Commit the transaction that creates or changes the table, then use it.";
    /// A table whose declaration in the shard map does not fit it.
    Declaration = "declaration", "Mend the table on the shards, or its declaration in shards.toml.";
    /// A form that the router's parser or planner does not know.
    Unparsed = "unparsed", "Name the shard with SET pgring.shard, after which the statement passes untouched.";
    /// A statement of more parts than the planner looks at.
    TooComplex = "too-complex", "Simplify the statement, or name the shard with SET pgring.shard.";
    /// A statement that hands rows of one sharded table to several places that the planner cannot tell apart.
    Rewrite = "rewrite", "Restrict the sharding key to one value, or name the shard with SET pgring.shard.";
}

/// The codes that are given elsewhere than by the planner: each with when, and what to do instead. With the table above
/// they are all that clients may see; README.md lists both, and a test holds the three together.
pub const OTHER_CODES: [(&str, &str, &str); 19] = [
    (
        "begin-modes",
        "BEGIN with modes after other statements of its string.",
        "Send BEGIN first, or in a string of its own.",
    ),
    (
        "client-encoding",
        "A client_encoding other than UTF8.",
        "Use client_encoding UTF8.",
    ),
    (
        "console-command",
        "A command of PgBouncer's console that this one does not have.",
        "SHOW HELP lists the commands.",
    ),
    (
        "console-sql",
        "SQL, transactions, or parameters in the console.",
        "Connect to the cluster's database; drivers need autocommit here.",
    ),
    (
        "copy-server-file",
        "COPY with a file or program on the server.",
        "Use COPY with STDIN or STDOUT (\\copy in psql).",
    ),
    (
        "explain-analyze",
        "EXPLAIN ANALYZE of a write on several shards.",
        "Use EXPLAIN without ANALYZE, or name the sharding key.",
    ),
    (
        "fastpath",
        "A call of a function by its OID, for large objects too.",
        "Call the function in a SELECT.",
    ),
    (
        "order-by-type",
        "ORDER BY of a type that only PostgreSQL sorts, which showed when the shards answered; rounded floats, and DateStyles in which times do not sort.",
        "Order by an expression of a simpler type, use DateStyle ISO and extra_float_digits of at least 1.",
    ),
    (
        "portal-row-limit",
        "A second Execute of a portal over several shards that was not kept.",
        "Name the portal and BEGIN before, fetch all rows at once, or name the sharding key.",
    ),
    (
        "prepare-transaction",
        "Two-phase commit by the client.",
        "Use COMMIT: it is atomic over all shards.",
    ),
    (
        "replication",
        "A replication connection.",
        "Connect to the shard itself.",
    ),
    (
        "rounded-floats",
        "Values of several shards that travel as text and may hold floats, while extra_float_digits is below 1.",
        "Use extra_float_digits of at least 1.",
    ),
    (
        "schema-drift",
        "Shards whose rows have other columns than each other, or than the router knows of.",
        "Compare the table's definition on the shards; ask for columns of types of one's own as text.",
    ),
    (
        "session-authorization",
        "SET SESSION AUTHORIZATION.",
        "Use SET ROLE, or log in as that user.",
    ),
    (
        "snapshot-isolation",
        "SERIALIZABLE over several shards, REPEATABLE READ over them without pgring.snapshot = consistent, and reads of them in other blocks with it.",
        "Use SET pgring.snapshot = 'consistent' and BEGIN ISOLATION LEVEL REPEATABLE READ, or one statement outside a block.",
    ),
    (
        "sql-prepare",
        "EXECUTE of what is no query, CREATE TABLE AS EXECUTE, and PREPARE in other places than statements.",
        "Write the statement itself, or prepare it by the protocol.",
    ),
    (
        "standard-conforming-strings",
        "standard_conforming_strings = off.",
        "Write backslashes in E'' strings.",
    ),
    (
        "transaction-control",
        "A statement that ended or began a transaction that the router does not know of.",
        "Send BEGIN, COMMIT and ROLLBACK as statements of their own.",
    ),
    (
        "transaction-snapshot",
        "SET TRANSACTION SNAPSHOT, which pg_dump with parallel jobs needs.",
        "Connect to the shard itself.",
    ),
];

impl Refusal {
    /// Whether what stands in the way of several shards is the statement's shape alone: over the gathered rows one
    /// shard answers it as one PostgreSQL with all rows would.
    pub(super) fn is_of_shape(self) -> bool {
        matches!(
            self,
            Self::Aggregate
                | Self::GroupBy
                | Self::Distinct
                | Self::DistinctOn
                | Self::Window
                | Self::SetOperation
                | Self::Join
                | Self::Subquery
                | Self::Limit
                | Self::LimitWithTies
                | Self::LimitExpression
                | Self::OrderBy
                | Self::OrderByCollation
                | Self::Recursive
                | Self::LocalWithSharded
                | Self::VolatileFunction
                | Self::Rewrite
                | Self::ForeignRows
        )
    }
}

impl Refusal {
    /// Whether it is about ORDER BY or LIMIT alone, which come after all that is computed of rows.
    pub(super) fn is_of_the_end(self) -> bool {
        matches!(
            self,
            Self::OrderBy | Self::OrderByCollation | Self::LimitWithTies | Self::LimitExpression
        )
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// 0A000: the statement's form is refused.
    #[error("{reason}")]
    Refused {
        /// Which refusal.
        refusal: Refusal,
        /// What of the statement, lower case.
        reason: Arc<str>,
    },
    /// 0A000: the parser does not know the statement.
    #[error("this statement is beyond pgring's parser")]
    Unparsed {
        /// What the parser says.
        reason: Arc<str>,
    },
    /// The text is not SQL.
    #[error(transparent)]
    Lex(#[from] LexError),
    /// 54000: over a limit.
    #[error("{what} has more than {limit} {unit}")]
    TooBig {
        /// What is too big.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// 57P03: no shard owns the slot.
    #[error("no shard owns slot {} of the sharding key", slot.0)]
    SlotGap {
        /// The slot.
        slot: SlotId,
    },
    /// XX001: two shards claim the slot.
    #[error("shards \"{first}\" and \"{second}\" both claim slot {} of the sharding key", slot.0)]
    SlotOverlap {
        /// The slot.
        slot: SlotId,
        /// One shard.
        first: Arc<str>,
        /// The other.
        second: Arc<str>,
    },
    /// 40001: the slot is on the move.
    #[error("slot {} of the sharding key is moving to another shard", slot.0)]
    SlotFenced {
        /// The slot.
        slot: SlotId,
    },
    /// 40001: slots of a shard are on the move, and the statement may need rows of them.
    #[error("slots of shard \"{shard}\" are moving to another shard")]
    ShardFenced {
        /// The shard.
        shard: Arc<str>,
    },
    /// 42601: rows of one INSERT that are not of one length, each of which a shard could take by itself.
    #[error("VALUES lists must all be the same length")]
    ValuesLength,
    /// 2201W.
    #[error("LIMIT must not be negative")]
    LimitNegative,
    /// 2201X.
    #[error("OFFSET must not be negative")]
    OffsetNegative,
    /// 22P02 or 22P03: a parameter that is not of its type.
    #[error("invalid input for parameter ${number} of type {type_name}")]
    Parameter {
        /// From 1.
        number: u32,
        /// The type.
        type_name: &'static str,
    },
    /// 22003: a LIMIT or OFFSET beyond a bigint.
    #[error("value \"{text}\" is out of range for type bigint")]
    CountRange {
        /// As given.
        text: Arc<str>,
    },
    /// 42P02: there are fewer values than the statement has parameters.
    #[error("there is no parameter ${number}")]
    NoParameter {
        /// From 1.
        number: u32,
    },
    /// 22023: a routing hint that says nothing.
    #[error("invalid routing hint: {reason}")]
    Hint {
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// XX000: our own fault.
    #[error("{what}")]
    Internal {
        /// What.
        what: Arc<str>,
    },
}

impl PlanError {
    /// A refusal with its reason.
    pub fn refused(refusal: Refusal, reason: impl Into<Arc<str>>) -> Self {
        Self::Refused {
            refusal,
            reason: reason.into(),
        }
    }

    /// Whether it holds only until the topology is another.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::SlotFenced { .. } | Self::ShardFenced { .. })
    }

    /// Whether a shard that runs the statement with these values is sure to report the same, and does nothing before.
    pub(super) fn is_postgresqls(&self, values: usize) -> bool {
        match self {
            Self::NoParameter { number } => usize::try_from(*number).is_ok_and(|it| it > values),
            Self::LimitNegative | Self::OffsetNegative | Self::CountRange { .. } => true,
            Self::Refused { .. }
            | Self::Unparsed { .. }
            | Self::Lex(_)
            | Self::TooBig { .. }
            | Self::SlotGap { .. }
            | Self::SlotOverlap { .. }
            | Self::SlotFenced { .. }
            | Self::ShardFenced { .. }
            | Self::ValuesLength
            | Self::Parameter { .. }
            | Self::Hint { .. }
            | Self::Internal { .. } => false,
        }
    }

    /// A relation that [`Schema::is_unloaded`] says may be there.
    pub(super) fn not_found(
        topology_schema: &Schema,
        schema: Option<&str>,
        name: &str,
        search_path: &[Arc<str>],
    ) -> Self {
        match topology_schema.misfit(schema, name, search_path) {
            Some(reason) => Self::refused(Refusal::Declaration, reason.clone()),
            None => Self::refused(
                Refusal::UnloadedTable,
                format!("{name} is not in the router's catalog yet"),
            ),
        }
    }
}

impl From<ParseError> for PlanError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Lex(LexError::TooManyTokens { tokens_max }) => Self::TooBig {
                what: "statement",
                limit: tokens_max,
                unit: "tokens",
            },
            ParseError::Lex(LexError::TooDeep { depth_max }) => Self::TooBig {
                what: "statement",
                limit: depth_max,
                unit: "levels",
            },
            ParseError::TooDeep => Self::TooBig {
                what: "statement",
                limit: parse::DEPTH_MAX,
                unit: "levels",
            },
            ParseError::Lex(error) => Self::Lex(error),
            ParseError::Beyond { reason } => Self::Unparsed {
                reason: reason.into(),
            },
        }
    }
}

impl ErrorReply for PlanError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Refused { .. } | Self::Unparsed { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Lex(error) => error.sqlstate(),
            Self::ValuesLength => SqlState::SYNTAX_ERROR,
            Self::TooBig { .. } => SqlState::STATEMENT_TOO_COMPLEX,
            Self::SlotGap { .. } => SqlState(*b"57P03"),
            Self::SlotOverlap { .. } => SqlState(*b"XX001"),
            Self::SlotFenced { .. } | Self::ShardFenced { .. } => SqlState::SERIALIZATION_FAILURE,
            Self::LimitNegative => SqlState(*b"2201W"),
            Self::OffsetNegative => SqlState(*b"2201X"),
            Self::Parameter { .. } => SqlState::INVALID_TEXT_REPRESENTATION,
            Self::CountRange { .. } => SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            Self::NoParameter { .. } => SqlState::UNDEFINED_PARAMETER,
            Self::Hint { .. } => SqlState::INVALID_PARAMETER_VALUE,
            Self::Internal { .. } => SqlState(*b"XX000"),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Refused { .. }
            | Self::Unparsed { .. }
            | Self::Lex(_)
            | Self::TooBig { .. }
            | Self::ValuesLength
            | Self::LimitNegative
            | Self::OffsetNegative
            | Self::Parameter { .. }
            | Self::CountRange { .. }
            | Self::NoParameter { .. }
            | Self::Hint { .. } => Fault::Client,
            Self::SlotGap { .. }
            | Self::SlotOverlap { .. }
            | Self::SlotFenced { .. }
            | Self::ShardFenced { .. } => Fault::Backend,
            Self::Internal { .. } => Fault::Router,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Unparsed { reason } => Some(format!("The parser says: {reason}.")),
            Self::Refused { .. }
            | Self::Lex(_)
            | Self::TooBig { .. }
            | Self::SlotGap { .. }
            | Self::SlotOverlap { .. }
            | Self::SlotFenced { .. }
            | Self::ShardFenced { .. }
            | Self::ValuesLength
            | Self::LimitNegative
            | Self::OffsetNegative
            | Self::Parameter { .. }
            | Self::CountRange { .. }
            | Self::NoParameter { .. }
            | Self::Hint { .. }
            | Self::Internal { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.hint().to_owned()),
            Self::Unparsed { .. } => Some(Refusal::Unparsed.hint().to_owned()),
            Self::SlotFenced { .. } | Self::ShardFenced { .. } => {
                Some("Retry the statement.".to_owned())
            }
            Self::SlotGap { .. } | Self::SlotOverlap { .. } => Some(
                "Compare the rows of pgring.ownership on the shards; see SHOW SLOTS.".to_owned(),
            ),
            Self::Lex(_)
            | Self::TooBig { .. }
            | Self::ValuesLength
            | Self::LimitNegative
            | Self::OffsetNegative
            | Self::Parameter { .. }
            | Self::CountRange { .. }
            | Self::NoParameter { .. }
            | Self::Hint { .. }
            | Self::Internal { .. } => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.code()),
            Self::Unparsed { .. } => Some(Refusal::Unparsed.code()),
            Self::Lex(_)
            | Self::TooBig { .. }
            | Self::SlotGap { .. }
            | Self::SlotOverlap { .. }
            | Self::SlotFenced { .. }
            | Self::ShardFenced { .. }
            | Self::ValuesLength
            | Self::LimitNegative
            | Self::OffsetNegative
            | Self::Parameter { .. }
            | Self::CountRange { .. }
            | Self::NoParameter { .. }
            | Self::Hint { .. }
            | Self::Internal { .. } => None,
        }
    }

    fn position(&self) -> Option<u32> {
        match self {
            Self::Lex(LexError::Syntax { position, .. }) => Some(*position),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_cannot_be_read_keeps_its_sqlstate() {
        let wrong = crate::sql::lex::LiteralError::NotUtf8;
        let error = PlanError::Lex(crate::sql::lex::LexError::Literal(wrong));
        assert_eq!(error.sqlstate(), SqlState::CHARACTER_NOT_IN_REPERTOIRE);
    }

    #[test]
    fn every_refusal_has_a_code_of_its_own_and_a_hint_in_sentences() {
        let mut codes = HashSet::new();
        for refusal in Refusal::ALL {
            assert!(
                codes.insert(refusal.code()),
                "{} is there twice",
                refusal.code()
            );
            assert!(
                refusal.hint().ends_with('.')
                    && refusal
                        .hint()
                        .chars()
                        .next()
                        .is_some_and(char::is_uppercase)
            );
        }
    }
}

//! What to run where, as plain data.

use crate::topology::ShardId;
use std::sync::Arc;

/// How a statement is answered, cheapest first (the tiers of the design).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// All sharded rows that matter are on one shard.
    SingleShard,
    /// Reads reference tables or no table: any shard gives the same answer.
    AnyShard,
    /// Lives on one named shard: local tables, or a shard that a hint named.
    NamedShard,
    /// The catalog, asked of one designated shard.
    Catalog,
    /// Runs on several shards; outputs are appended, merge-sorted, or made one row.
    PushDown,
    /// Runs on one shard, over rows that all made of theirs: a row for each group, with parts of its aggregates.
    Partial,
    /// Runs on one shard, over intermediate relations that the others' rows were gathered into.
    Gather,
    /// A statement that every shard runs: DDL, writes of reference tables.
    AllShards,
}

/// What a statement does to data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only (it may lock rows).
    Read,
    /// May write rows.
    Write,
    /// Changes the schema inside a transaction.
    Ddl,
    /// Cannot run inside a block (`VACUUM`, `CREATE INDEX CONCURRENTLY`, …): shard by shard, with a report.
    OutsideBlock,
}

/// A setting that a statement changes by calling `set_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// Its name, lower case.
    pub name: Arc<str>,
    /// Until the end of the transaction only.
    pub local: bool,
    /// Only if there is such a setting.
    pub perhaps: bool,
}

/// What a statement or its functions do beyond their transaction, or at its end, on the designated shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionEffects {
    /// They may lock for the session.
    pub locks: bool,
    /// They may unlock.
    pub unlocks: bool,
    /// They may notify.
    pub notifies: bool,
    /// The statement makes a temporary table.
    pub temporary: bool,
}

impl SessionEffects {
    /// Whether they do nothing of the kind.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// What to run, on which shards, and how the outputs become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How it is answered.
    pub tier: Tier,
    /// What it does.
    pub access: Access,
    /// Intermediate relations that are gathered before the one step runs, whose further parameters they are.
    pub inputs: Vec<Input>,
    /// One for each shard, ascending by shard, never empty.
    pub steps: Vec<Step>,
    /// How the outputs become one. [`Merge::Relay`] if there is one step, unless it moves rows.
    pub merge: Merge,
}

impl Plan {
    /// The one step that runs the client's own text and whose answer is the client's, if that is all.
    pub fn passed(&self) -> Option<&Step> {
        match (self.steps.as_slice(), &self.merge) {
            ([step], Merge::Relay) if step.sql == StepSql::AsSent && self.inputs.is_empty() => {
                Some(step)
            }
            _ => None,
        }
    }
}

/// An intermediate relation: the rows of all its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The table that it stands for, `schema.table`; `partial` for what a query made of its rows.
    pub relation: Arc<str>,
    /// One for each shard that has rows of it, ascending by shard.
    pub steps: Vec<Step>,
    /// Its columns.
    pub columns: Arc<[Transport]>,
}

impl Input {
    /// Whether values of it travel as text.
    pub fn has_text(&self) -> bool {
        self.columns.contains(&Transport::Text)
    }
}

/// How a column of an intermediate relation travels: as an array, which is one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Values in binary form; the type has this OID on every server.
    Binary {
        /// The type.
        oid: u32,
    },
    /// Values in text form, in an array of texts: the type has another OID on each server, or is an array or a row
    /// itself, which `unnest` would take apart.
    Text,
}

/// What one shard runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub shard: ShardId,
    /// The text.
    pub sql: StepSql,
    /// The parameters that go with it.
    pub arguments: StepArguments,
}

/// The text of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepSql {
    /// The client's own bytes.
    AsSent,
    /// Spliced from the client's text.
    Rewritten(Arc<str>),
}

/// The parameters of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepArguments {
    /// All of the client's, unchanged.
    AsSent,
    /// These of the client's (zero-based), renumbered in this order.
    Chosen(Arc<[u16]>),
}

/// How the outputs of several steps become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// One step: its frames pass through.
    Relay,
    /// Rows of all steps in any order; command tags are summed.
    Append {
        /// Rows to skip first.
        offset: u64,
        /// Rows to give at most after that.
        limit: Option<u64>,
    },
    /// Each step's rows arrive sorted by `keys`; so do the merged rows.
    Sort {
        /// Most significant first.
        keys: Vec<SortKey>,
        /// How many trailing columns were added for sorting only, and are cut off.
        hidden_columns: u16,
        /// Rows to skip first.
        offset: u64,
        /// Rows to give at most after that.
        limit: Option<u64>,
    },
    /// Rows of all steps, taken from them in this order (indexes into the steps), as far as they give that many; then
    /// what is left. Tags are summed. For RETURNING of a VALUES list that was split: clients count on its order.
    InTurn(Arc<[u16]>),
    /// Each step gives one row; so does the merge, whose columns are made of theirs.
    Fold(Arc<[Fold]>),
    /// These steps (indexes into the steps) must say the same (a write of a reference table): the output of the first of
    /// them counts. The others are on shards that are joining, and may have found less.
    First(Arc<[u16]>),
    /// The output of this step (an index into the steps) counts; none has rows.
    Of(u16),
    /// The output of the one step; then the rows that it has changed move.
    Move(Arc<KeyMove>),
    /// Rows of all steps in any order, which are then stored: the output is that of the INSERTs.
    Store(Arc<Store>),
}

impl Merge {
    /// Whether what the steps have done is not all that there is to do.
    pub fn goes_on(&self) -> bool {
        match self {
            Self::Move(_) | Self::Store(_) => true,
            Self::Relay
            | Self::Append { .. }
            | Self::Sort { .. }
            | Self::InTurn(_)
            | Self::Fold(_)
            | Self::First(_)
            | Self::Of(_) => false,
        }
    }
}

/// An INSERT around the query whose rows it stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its text before the query.
    pub before: Arc<str>,
    /// Its text behind the query.
    pub after: Arc<str>,
    /// The query's columns: constants whose type is that of the column that they are stored in, as text. Behind them
    /// stand those of `added`.
    pub items: Arc<[Option<Arc<str>>]>,
    /// Columns that the query leaves out, of which each row is given a value of its own.
    pub added: Arc<[RowValue]>,
}

/// A value of each row's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowValue {
    /// The next of a column's sequence.
    Sequence {
        /// The table's schema.
        schema: Arc<str>,
        /// The table.
        table: Arc<str>,
        /// The column.
        column: Arc<str>,
    },
    /// A UUID of chance.
    Uuid,
}

/// How the rows that a step has given another sharding key come to another shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyMove {
    /// The shard of the new key.
    pub target: ShardId,
    /// Takes the rows from the step's shard; `$1` is [`Self::parameter`].
    pub delete: Arc<str>,
    /// Stores one row on the target; its parameters are the row's columns.
    pub insert: Arc<str>,
    /// The columns.
    pub columns: Arc<[Transport]>,
    /// The new key if it is a parameter of the client's, from zero, and its type if the client's text says one.
    pub parameter: Option<(u16, u32)>,
}

/// What a column of a [`Merge::Fold`] is of those of the steps, of which NULL counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// The sum, of bigint.
    Sum,
    /// The least, of integers.
    Min,
    /// The greatest, of integers.
    Max,
    /// Whether all are true.
    And,
    /// Whether any is true.
    Or,
    /// The bits that all integers have.
    BitAnd,
    /// The bits that any integer has.
    BitOr,
    /// The bits that an odd number of integers have.
    BitXor,
}

/// One sort key of a [`Merge::Sort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// Zero-based column in the steps' rows.
    pub column: u16,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST (PostgreSQL's default for DESC).
    pub nulls_first: bool,
    /// Whether a text value is known to compare by bytes. Without it a text key is refused when its type is seen.
    pub text_by_bytes: bool,
}

//! How the rows of several shards become one stream, natively: only where that is provably PostgreSQL's own answer.
//! Pure. [`fold`] makes one row of several; [`order`] compares rows; [`tournament`] picks the next; [`columns`] checks that shards speak of the same.

pub mod columns;
pub mod fold;
pub mod order;
pub mod tournament;

use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;

/// Why rows of several shards cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The type of a sort key has no exact order in the router.
    #[error("ORDER BY over several shards cannot compare column {column} of type {type_oid}")]
    SortType {
        /// One-based column.
        column: usize,
        /// The type's OID.
        type_oid: u32,
    },
    /// A text sort key whose collation is not known to be by bytes.
    #[error("ORDER BY over several shards cannot compare text in this collation")]
    SortCollation {
        /// One-based column.
        column: usize,
    },
    /// A value that the router cannot read in the session's format.
    #[error("ORDER BY over several shards cannot read a value of column {column}")]
    SortValue {
        /// One-based column.
        column: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard's rows came in another order than the router's.
    #[error("shard {shard} sent rows in another order than expected")]
    InputOrder {
        /// The step's index.
        shard: usize,
    },
    /// The shards describe different rows.
    #[error("the shards describe different rows")]
    Columns {
        /// What differs.
        reason: String,
    },
    /// What every shard must answer alike came out differently.
    #[error("the statement's outcome differs between shards")]
    OutcomesDiffer,
    /// Values that travel as text, of types that may hold floats, which the session's settings round.
    #[error(
        "the rows that the statement needs at once may hold floats that extra_float_digits rounds"
    )]
    RoundedFloats,
    /// More rows to gather than the router holds for one statement.
    #[error("the rows that the statement needs at once exceed limits.merge_bytes ({bytes_max})")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// More rows than the router holds for all statements.
    #[error(
        "the rows that all statements need at once exceed limits.merge_bytes_total ({bytes_max})"
    )]
    TotalTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// A sum beyond a bigint.
    #[error("bigint out of range")]
    SumRange,
    /// A row that is not as described.
    #[error("a shard sent a row that cannot be read")]
    Row,
}

impl ErrorReply for MergeError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::SortType { .. }
            | Self::SortCollation { .. }
            | Self::SortValue { .. }
            | Self::RoundedFloats
            | Self::Columns { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::TooLarge { .. } => SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            Self::TotalTooLarge { .. } => SqlState::OUT_OF_MEMORY,
            Self::InputOrder { .. } | Self::OutcomesDiffer => SqlState::INTERNAL_ERROR,
            Self::SumRange => SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            Self::Row => SqlState::PROTOCOL_VIOLATION,
        }
    }
    fn fault(&self) -> Fault {
        match self {
            Self::SortType { .. }
            | Self::SortCollation { .. }
            | Self::SortValue { .. }
            | Self::RoundedFloats
            | Self::SumRange => Fault::Client,
            Self::TooLarge { .. } | Self::TotalTooLarge { .. } => Fault::Router,
            Self::Columns { .. } | Self::Row | Self::InputOrder { .. } | Self::OutcomesDiffer => {
                Fault::Backend
            }
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            Self::SortValue { reason, .. } | Self::Columns { reason } => Some(reason.clone()),
            Self::SortCollation { column } => Some(format!(
                "column {column} is text that does not compare by bytes"
            )),
            Self::InputOrder { .. } => {
                Some("The order of the router and of the shard differ.".to_owned())
            }
            Self::SortType { .. }
            | Self::RoundedFloats
            | Self::TooLarge { .. }
            | Self::TotalTooLarge { .. }
            | Self::OutcomesDiffer
            | Self::SumRange
            | Self::Row => None,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::SortType { .. } => Some("Order by an expression of a simpler type.".to_owned()),
            Self::SortCollation { .. } => {
                Some("order by the column COLLATE \"C\", or name the sharding key".to_owned())
            }
            Self::SortValue { .. } => {
                Some("Use DateStyle ISO and extra_float_digits of at least 1.".to_owned())
            }
            Self::RoundedFloats => Some("Use extra_float_digits of at least 1.".to_owned()),
            Self::TooLarge { .. } => Some(
                "Restrict the tables further, name the sharding key, or raise limits.merge_bytes."
                    .to_owned(),
            ),
            Self::TotalTooLarge { .. } => {
                Some("Try again later, or raise limits.merge_bytes_total.".to_owned())
            }
            Self::InputOrder { .. } | Self::OutcomesDiffer | Self::SumRange | Self::Row => None,
            Self::Columns { .. } => {
                Some("Compare the table's definition on the shards.".to_owned())
            }
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::SortType { .. } | Self::SortValue { .. } => Some("order-by-type"),
            Self::SortCollation { .. } => Some("order-by-collation"),
            Self::Columns { .. } => Some("schema-drift"),
            Self::RoundedFloats => Some("rounded-floats"),
            Self::TooLarge { .. }
            | Self::TotalTooLarge { .. }
            | Self::InputOrder { .. }
            | Self::OutcomesDiffer
            | Self::SumRange
            | Self::Row => None,
        }
    }
}

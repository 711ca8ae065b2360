//! Which of PostgreSQL's aggregates are made of parts: what each shard computes of its rows, and what is computed of
//! that, equal to the last digit to what PostgreSQL computes of all rows at once.

use super::plan::Fold;
use super::typing::oid;
use crate::topology::schema::{Collation, Column};
use crate::wire::value::SortType;

/// Aggregates that the final query computes of distinct values itself.
pub(super) const OF_DISTINCT: [&str; 5] = ["count", "sum", "avg", "array_agg", "string_agg"];

/// Whether the distinct values of a column on several shards are those of all its rows: which of several equal values
/// is taken must not show in what the aggregate makes of them.
pub(super) fn is_of_distinct(name: &str, column: &Column) -> bool {
    let type_oid = column.type_oid;
    match name {
        "count" => SortType::of(type_oid).is_some() || type_oid == oid::JSONB,
        "sum" | "avg" => matches!(type_oid, oid::INT2 | oid::INT4 | oid::INT8),
        "array_agg" => {
            matches!(
                type_oid,
                oid::INT2
                    | oid::INT4
                    | oid::INT8
                    | oid::BOOL
                    | oid::DATE
                    | oid::TIMESTAMP
                    | oid::UUID
            ) || is_plain_text(column)
        }
        "string_agg" => is_plain_text(column),
        _ => false,
    }
}

/// A text in a collation by which equal texts are the same.
fn is_plain_text(column: &Column) -> bool {
    matches!(column.type_oid, oid::TEXT | oid::VARCHAR)
        && column.collation != Collation::Nondeterministic
}

/// What a shard computes, of pg_catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartFunction {
    /// A function, called as the aggregate is.
    Named(&'static str),
    /// The sum of the argument's squares, as numeric.
    Squares,
}

impl PartFunction {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Named(name) => name,
            Self::Squares => "sum",
        }
    }
}

/// [`PartFunction::Squares`] in front of the argument, between it and itself, and behind it.
pub(super) const SQUARES_FIRST: &str = "pg_catalog.sum(CAST((";
pub(super) const SQUARES_BETWEEN: &str = ") AS pg_catalog.numeric) * CAST((";
pub(super) const SQUARES_LAST: &str = ") AS pg_catalog.numeric))";

/// An aggregate in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Split {
    /// What shards compute, and the OIDs of what that gives; 0: the argument's.
    pub(super) parts: Vec<(PartFunction, u32)>,
    /// What the parts become.
    pub(super) whole: Final,
}

impl Split {
    /// How the router itself makes the aggregate of its only part, where that is of a simple type.
    pub(super) fn fold(&self) -> Option<Fold> {
        let [(_, type_oid)] = self.parts.as_slice() else {
            return None;
        };
        let is_integer = matches!(*type_oid, oid::INT2 | oid::INT4 | oid::INT8);
        match self.whole {
            Final::Count | Final::SumOfBigint => Some(Fold::Sum),
            Final::Again("bool_and") => Some(Fold::And),
            Final::Again("bool_or") => Some(Fold::Or),
            Final::Again(function) if is_integer => match function {
                "min" => Some(Fold::Min),
                "max" => Some(Fold::Max),
                "bit_and" => Some(Fold::BitAnd),
                "bit_or" => Some(Fold::BitOr),
                "bit_xor" => Some(Fold::BitXor),
                _ => None,
            },
            Final::Again(_) | Final::Quotient | Final::IntervalQuotient | Final::Spread { .. } => {
                None
            }
        }
    }
}

/// What the parts of all shards become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Final {
    /// The number of all, which is 0 for none.
    Count,
    /// The sum of sums, which are bigint as it is.
    SumOfBigint,
    /// The same function of what it gave.
    Again(&'static str),
    /// The sum by the number, as `numeric_avg` and its like divide them.
    Quotient,
    /// As [`Self::Quotient`], of intervals.
    IntervalQuotient,
    /// The variance of number, sum, and sum of squares, as `numeric_var_samp` and its like compute it, or its root.
    Spread {
        /// Of a sample.
        sample: bool,
        /// The standard deviation.
        root: bool,
    },
}

/// The variance, in PostgreSQL's steps: see `numeric_stddev_internal` in its `numeric.c`. The quotient has as many digits
/// as division gives it there, since the arguments have the same values and scales.
fn variance(parts: &[String], sample: bool) -> String {
    let sum = |index: usize| {
        let part = parts.get(index).map_or("", String::as_str);
        format!("pg_catalog.sum({part})")
    };
    let (number, sum, squares) = (sum(0), sum(1), sum(2));
    let (least, other) = match sample {
        true => ("1", format!("pg_catalog.numeric_sub({number}, 1)")),
        false => ("0", number.clone()),
    };
    let spread = format!(
        "pg_catalog.numeric_sub(pg_catalog.numeric_mul({number}, {squares}), pg_catalog.numeric_mul({sum}, {sum}))"
    );
    format!(
        "CASE WHEN pg_catalog.numeric_le({number}, {least}) THEN NULL WHEN pg_catalog.numeric_le({spread}, 0) THEN CAST(0 AS pg_catalog.numeric) \
         ELSE pg_catalog.numeric_div({spread}, pg_catalog.numeric_mul({number}, {other})) END"
    )
}

/// The root of a variance, rounded to its digits, as `sqrt_var` rounds it there. `sqrt()` may give more digits: where
/// rounding these has rounded up twice, the root's square says so.
fn root(variance: &str) -> String {
    let low = "pg_catalog.numeric_sub(s.c, s.h)";
    format!(
        "(SELECT CASE WHEN pg_catalog.scale(s.v) IS NULL OR pg_catalog.numeric_le(s.v, 0) THEN s.v \
         WHEN pg_catalog.numeric_gt(pg_catalog.numeric_mul({low}, {low}), s.v) THEN pg_catalog.round(pg_catalog.numeric_sub({low}, s.h), pg_catalog.scale(s.v)) \
         ELSE s.c END FROM (SELECT r.v, pg_catalog.round(pg_catalog.sqrt(r.v), pg_catalog.scale(r.v)) AS c, \
         CAST(pg_catalog.concat('5e-', pg_catalog.int4pl(pg_catalog.scale(r.v), 1)) AS pg_catalog.numeric) AS h FROM (SELECT {variance} AS v) AS r) AS s)"
    )
}

impl Final {
    /// As an expression of the columns that the parts are.
    pub(super) fn text(self, parts: &[String]) -> String {
        let part = |index: usize| parts.get(index).map_or("", String::as_str);
        let (first, second) = (part(0), part(1));
        match self {
            Self::Count => format!("CAST(coalesce(pg_catalog.sum({first}), 0) AS bigint)"),
            Self::SumOfBigint => format!("CAST(pg_catalog.sum({first}) AS bigint)"),
            Self::Again(function) => format!("pg_catalog.{function}({first})"),
            Self::Quotient => {
                format!("pg_catalog.numeric_div(pg_catalog.sum({first}), pg_catalog.sum({second}))")
            }
            Self::Spread {
                sample,
                root: false,
            } => format!("({})", variance(parts, sample)),
            Self::Spread { sample, root: true } => root(&variance(parts, sample)),
            Self::IntervalQuotient => format!(
                "pg_catalog.interval_div(pg_catalog.sum({first}), CAST(pg_catalog.sum({second}) AS double precision))"
            ),
        }
    }
}

/// How types are named that partial rows may have. The bare names of some would cut their values.
pub(super) fn type_name(type_oid: u32) -> Option<&'static str> {
    Some(match type_oid {
        oid::BOOL => "boolean",
        oid::INT8 => "bigint",
        oid::INT2 => "smallint",
        oid::INT4 => "integer",
        oid::TEXT => "text",
        oid::FLOAT4 => "real",
        oid::FLOAT8 => "double precision",
        oid::BPCHAR => "pg_catalog.bpchar",
        oid::VARCHAR => "character varying",
        oid::DATE => "date",
        oid::TIME => "time without time zone",
        oid::TIMESTAMP => "timestamp without time zone",
        oid::TIMESTAMPTZ => "timestamp with time zone",
        oid::INTERVAL => "interval",
        oid::NUMERIC => "numeric",
        oid::UUID => "uuid",
        oid::JSONB => "jsonb",
        _ => return None,
    })
}

/// `min` and `max` of a type that has no OID of its own everywhere.
pub(super) fn extreme(name: &str) -> Option<Split> {
    let name = match name {
        "min" => "min",
        "max" => "max",
        _ => return None,
    };
    Some(Split {
        parts: vec![(PartFunction::Named(name), 0)],
        whole: Final::Again(name),
    })
}

/// The parts of an aggregate of an argument of this type; none: of any.
pub(super) fn split(name: &str, argument: Option<u32>, is_distinct: bool) -> Option<Split> {
    let again = |name: &'static str, type_oid: u32| Split {
        parts: vec![(PartFunction::Named(name), type_oid)],
        whole: Final::Again(name),
    };
    if is_distinct
        && !matches!(
            name,
            "min" | "max" | "bool_and" | "bool_or" | "every" | "bit_and" | "bit_or"
        )
    {
        return None;
    }
    if name == "count" {
        return Some(Split {
            parts: vec![(PartFunction::Named("count"), oid::INT8)],
            whole: Final::Count,
        });
    }
    let sum_of = |argument: u32| match argument {
        oid::INT2 | oid::INT4 => Some(oid::INT8),
        oid::INT8 | oid::NUMERIC => Some(oid::NUMERIC),
        oid::INTERVAL => Some(oid::INTERVAL),
        // Of floats it would depend on which rows are added first; of money nothing else is known here.
        _ => None,
    };
    let argument = argument?;
    match name {
        "sum" => match sum_of(argument)? {
            oid::INT8 => Some(Split {
                parts: vec![(PartFunction::Named("sum"), oid::INT8)],
                whole: Final::SumOfBigint,
            }),
            other => Some(again("sum", other)),
        },
        "avg" => {
            let sum = sum_of(argument)?;
            let whole = match sum {
                oid::INTERVAL => Final::IntervalQuotient,
                _ => Final::Quotient,
            };
            Some(Split {
                parts: vec![
                    (PartFunction::Named("sum"), sum),
                    (PartFunction::Named("count"), oid::INT8),
                ],
                whole,
            })
        }
        "variance" | "var_samp" | "var_pop" | "stddev" | "stddev_samp" | "stddev_pop" => {
            let is_number = matches!(argument, oid::INT2 | oid::INT4 | oid::INT8 | oid::NUMERIC);
            let sum = sum_of(argument).filter(|_| is_number)?;
            let parts = vec![
                (PartFunction::Named("count"), oid::INT8),
                (PartFunction::Named("sum"), sum),
                (PartFunction::Squares, oid::NUMERIC),
            ];
            let whole = Final::Spread {
                sample: !name.ends_with("_pop"),
                root: name.starts_with("stddev"),
            };
            Some(Split { parts, whole })
        }
        "min" | "max" => {
            let own = match argument {
                oid::VARCHAR => oid::TEXT,
                oid::INT2
                | oid::INT4
                | oid::INT8
                | oid::NUMERIC
                | oid::FLOAT4
                | oid::FLOAT8
                | oid::TEXT
                | oid::BPCHAR
                | oid::DATE
                | oid::TIME
                | oid::TIMESTAMP
                | oid::TIMESTAMPTZ
                | oid::INTERVAL => argument,
                _ => return None,
            };
            Some(again(if name == "min" { "min" } else { "max" }, own))
        }
        "bool_and" | "every" => (argument == oid::BOOL).then(|| again("bool_and", oid::BOOL)),
        "bool_or" => (argument == oid::BOOL).then(|| again("bool_or", oid::BOOL)),
        "bit_and" | "bit_or" | "bit_xor" => {
            let is_integer = matches!(argument, oid::INT2 | oid::INT4 | oid::INT8);
            let name = match name {
                "bit_and" => "bit_and",
                "bit_or" => "bit_or",
                _ => "bit_xor",
            };
            is_integer.then(|| again(name, argument))
        }
        _ => None,
    }
}

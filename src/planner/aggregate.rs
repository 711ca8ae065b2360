//! Which of PostgreSQL's aggregates are made of parts: what each shard computes of its rows, and what is computed of
//! that, equal to the last digit to what PostgreSQL computes of all rows at once.

use super::plan::Fold;
use super::typing::oid;

/// An aggregate in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Split {
    /// Functions of pg_catalog, each called as the aggregate is, and the OIDs of what they give; 0: the argument's.
    pub(super) parts: Vec<(&'static str, u32)>,
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
            Final::Again(_) | Final::Quotient | Final::IntervalQuotient => None,
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
        parts: vec![(name, 0)],
        whole: Final::Again(name),
    })
}

/// The parts of an aggregate of an argument of this type; none: of any.
pub(super) fn split(name: &str, argument: Option<u32>, is_distinct: bool) -> Option<Split> {
    let again = |name: &'static str, type_oid: u32| Split {
        parts: vec![(name, type_oid)],
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
            parts: vec![("count", oid::INT8)],
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
                parts: vec![("sum", oid::INT8)],
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
                parts: vec![("sum", sum), ("count", oid::INT8)],
                whole,
            })
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

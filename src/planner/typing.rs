//! The types of expressions, as far as PostgreSQL's rules for them are plain: of columns, constants, casts, and the
//! operators and functions that are listed here. An intermediate relation that a shard's query makes needs its columns'
//! types before the shards are asked. What is not known for certain has no type here; and a shard that sends another
//! type than the one told here is an error, never another answer.

use super::analysis::{Analyzer, bare, object_name, placeholder};
use super::scope::Scope;
use crate::sql::parse::{self, ast};
use ast::{BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value};
use std::rc::Rc;
use std::sync::Arc;

/// OIDs of types that have rules here.
pub(super) mod oid {
    pub const BOOL: u32 = 16;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// Numbers, each of which PostgreSQL turns into those behind it where two meet.
const NUMBERS: [u32; 6] = [
    oid::INT2,
    oid::INT4,
    oid::INT8,
    oid::NUMERIC,
    oid::FLOAT4,
    oid::FLOAT8,
];

/// Functions of a text first of all that give a text.
const TEXT_OF_TEXT: [&str; 15] = [
    "lower",
    "upper",
    "initcap",
    "btrim",
    "ltrim",
    "rtrim",
    "left",
    "right",
    "substr",
    "replace",
    "lpad",
    "rpad",
    "repeat",
    "reverse",
    "split_part",
];

/// Functions that give an integer, whatever they are given.
const INTEGER_OF_ANY: [&str; 5] = [
    "length",
    "char_length",
    "character_length",
    "octet_length",
    "strpos",
];

/// What is known of an expression's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// A type, with the collation where it is another than the type's.
    Of {
        oid: u32,
        collation: Option<Arc<str>>,
    },
    /// A text or NULL whose type is what stands around it asks for.
    Open,
}

impl Typed {
    fn plain(oid: u32) -> Self {
        let collation = None;
        Self::Of { oid, collation }
    }

    fn oid(&self) -> Option<u32> {
        match self {
            Self::Of { oid, .. } => Some(*oid),
            Self::Open => None,
        }
    }

    fn may_be_text(&self) -> bool {
        self.oid().is_none_or(is_text)
    }
}

/// Whether values of this type have a collation.
pub(super) fn is_text(oid: u32) -> bool {
    matches!(oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR)
}

fn rank(oid: u32) -> Option<usize> {
    NUMBERS.iter().position(|number| *number == oid)
}

fn is_integer(oid: u32) -> bool {
    matches!(oid, oid::INT2 | oid::INT4 | oid::INT8)
}

/// Text, in the collation that its parts give it; none if they disagree.
fn text<'t>(parts: impl IntoIterator<Item = &'t Typed>) -> Option<Typed> {
    let collation = collation(parts)?;
    Some(Typed::Of {
        oid: oid::TEXT,
        collation,
    })
}

/// The collation of what is made of `parts`: any beats the default one.
fn collation<'t>(parts: impl IntoIterator<Item = &'t Typed>) -> Option<Option<Arc<str>>> {
    let mut found: Option<Arc<str>> = None;
    for part in parts {
        if let Typed::Of {
            collation: Some(collation),
            ..
        } = part
            && found
                .replace(collation.clone())
                .is_some_and(|other| other != *collation)
        {
            return None;
        }
    }
    Some(found)
}

/// The type that CASE, COALESCE and their like give.
fn common(parts: &[Typed]) -> Option<Typed> {
    let mut oids = parts.iter().filter_map(Typed::oid);
    let Some(first) = oids.next() else {
        return text(parts);
    };
    let mut widest = first;
    for other in oids.filter(|other| *other != first) {
        widest = match (rank(widest), rank(other)) {
            (Some(one), Some(two)) => NUMBERS[one.max(two)],
            _ if matches!(
                (widest, other),
                (oid::TEXT | oid::VARCHAR, oid::TEXT | oid::VARCHAR)
            ) =>
            {
                oid::TEXT
            }
            _ => return None,
        };
    }
    if is_text(widest) {
        let collation = collation(parts)?;
        return Some(Typed::Of {
            oid: widest,
            collation,
        });
    }
    Some(Typed::plain(widest))
}

/// The type of `left op right` with numbers, dates and times.
fn arithmetic(op: &BinaryOperator, left: &Typed, right: &Typed) -> Option<Typed> {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
    let (left, right) = match (left.oid(), right.oid()) {
        (Some(left), Some(right)) => (left, right),
        (Some(one), None) | (None, Some(one)) if rank(one).is_some() => (one, one),
        _ => return None,
    };
    let result = match (left, op, right) {
        (_, Modulo, _) if rank(left).max(rank(right)) > rank(oid::NUMERIC) => return None,
        (_, Plus | Minus | Multiply | Divide | Modulo, _)
            if rank(left).is_some() && rank(right).is_some() =>
        {
            match NUMBERS[rank(left).max(rank(right))?] {
                // With other numbers it becomes a double.
                oid::FLOAT4 if left != right => oid::FLOAT8,
                widest => widest,
            }
        }
        (oid::DATE, Minus, oid::DATE) => oid::INT4,
        (oid::DATE, Plus | Minus, oid::INT2 | oid::INT4) => oid::DATE,
        (oid::DATE | oid::TIMESTAMP, Plus | Minus, oid::INTERVAL)
        | (oid::INTERVAL, Plus, oid::DATE | oid::TIMESTAMP) => oid::TIMESTAMP,
        (oid::TIMESTAMPTZ, Plus | Minus, oid::INTERVAL)
        | (oid::INTERVAL, Plus, oid::TIMESTAMPTZ) => oid::TIMESTAMPTZ,
        (oid::TIMESTAMP, Minus, oid::TIMESTAMP)
        | (oid::TIMESTAMPTZ, Minus, oid::TIMESTAMPTZ)
        | (oid::INTERVAL, Plus | Minus, oid::INTERVAL) => oid::INTERVAL,
        _ => return None,
    };
    Some(Typed::plain(result))
}

/// The type that a cast gives, if it is one that has rules here.
fn written(data_type: &DataType) -> Option<u32> {
    Some(match data_type {
        DataType::Boolean | DataType::Bool => oid::BOOL,
        DataType::SmallInt(None) | DataType::Int2(None) => oid::INT2,
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => oid::INT4,
        DataType::BigInt(None) | DataType::Int8(None) => oid::INT8,
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => oid::NUMERIC,
        DataType::Real | DataType::Float4 => oid::FLOAT4,
        DataType::DoublePrecision | DataType::Float8 => oid::FLOAT8,
        DataType::Text => oid::TEXT,
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => {
            oid::VARCHAR
        }
        DataType::Date => oid::DATE,
        DataType::Timestamp(_, zone) => match zone {
            ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone => oid::TIMESTAMP,
            ast::TimezoneInfo::WithTimeZone | ast::TimezoneInfo::Tz => oid::TIMESTAMPTZ,
        },
        DataType::Interval { .. } => oid::INTERVAL,
        DataType::Uuid => oid::UUID,
        DataType::JSON => oid::JSON,
        DataType::JSONB => oid::JSONB,
        _ => return None,
    })
}

/// Whether values of this type have rules here.
fn is_ruled(oid: u32) -> bool {
    rank(oid).is_some()
        || is_text(oid)
        || matches!(
            oid,
            oid::BOOL
                | oid::DATE
                | oid::TIME
                | oid::TIMESTAMP
                | oid::TIMESTAMPTZ
                | oid::INTERVAL
                | oid::UUID
                | oid::JSON
                | oid::JSONB
        )
}

/// Whether values of a type add up to the same in any order: int8, int2, int4, interval, numeric.
pub(super) fn is_exact(type_oid: u32) -> bool {
    matches!(
        type_oid,
        oid::INT2 | oid::INT4 | oid::INT8 | oid::INTERVAL | oid::NUMERIC
    )
}

impl Analyzer<'_> {
    /// Whether an expression is known to be of a type whose values add up to the same in any order.
    pub(super) fn is_exact(&self, expr: &Expr, scope: &Rc<Scope>) -> bool {
        match self.typed(expr, scope) {
            Some(Typed::Of { oid, .. }) => is_exact(oid),
            Some(Typed::Open) | None => self
                .find(bare(expr), scope)
                .is_some_and(|(_, column)| column.is_exact),
        }
    }

    /// The type of `expr`, which stands where `scope` is seen; none unless it is certain.
    pub(super) fn typed(&self, expr: &Expr, scope: &Rc<Scope>) -> Option<Typed> {
        let of = |expr: &Expr| self.typed(expr, scope);
        let all = |list: &[&Expr]| list.iter().map(|expr| of(expr)).collect::<Option<Vec<_>>>();
        // All of them have types, and are compared.
        let truth = |list: &[&Expr]| all(list).map(|_| Typed::plain(oid::BOOL));
        match bare(expr) {
            expr @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_)) => {
                let (level, column) = self.find(expr, scope)?;
                let origin = column.origin.filter(|_| level == 0)?;
                let column = origin.column();
                // A domain's texts may have a collation of its own.
                if is_text(column.type_oid) && self.topology.schema.is_domain(column) {
                    return None;
                }
                Some(Typed::Of {
                    oid: column.type_oid,
                    collation: column.collation_name.clone(),
                })
            }
            Expr::Value(value) => self.constant_type(&value.value),
            Expr::TypedString(typed) => written(&typed.data_type).map(Typed::plain),
            Expr::Interval(interval) => {
                of(&interval.value)?;
                Some(Typed::plain(oid::INTERVAL))
            }
            Expr::UnaryOp { op, expr } => match op {
                ast::UnaryOperator::Not => truth(&[expr]),
                ast::UnaryOperator::Minus | ast::UnaryOperator::Plus => {
                    let typed = of(expr)?;
                    let oid = typed.oid()?;
                    (rank(oid).is_some() || oid == oid::INTERVAL).then_some(typed)
                }
                _ => None,
            },
            Expr::BinaryOp { left, op, right } if !self.is_of_user(op) => {
                let parts = all(&[left, right])?;
                let [left, right] = parts.as_slice() else {
                    return None;
                };
                match op {
                    BinaryOperator::And
                    | BinaryOperator::Or
                    | BinaryOperator::Eq
                    | BinaryOperator::NotEq
                    | BinaryOperator::Lt
                    | BinaryOperator::LtEq
                    | BinaryOperator::Gt
                    | BinaryOperator::GtEq => Some(Typed::plain(oid::BOOL)),
                    BinaryOperator::StringConcat => {
                        let is_plain = |part: &Typed| part.oid().is_none_or(is_ruled);
                        let is_json =
                            |part: &Typed| matches!(part.oid(), Some(oid::JSON | oid::JSONB));
                        let any_text = left.may_be_text() || right.may_be_text();
                        let joins = any_text && parts.iter().all(is_plain);
                        (joins && !parts.iter().any(is_json)).then(|| text(&parts))?
                    }
                    BinaryOperator::LongArrow => {
                        matches!(left.oid(), Some(oid::JSON | oid::JSONB)).then(|| text([]))?
                    }
                    BinaryOperator::Arrow => {
                        let is_json = matches!(left.oid(), Some(oid::JSON | oid::JSONB));
                        is_json.then(|| left.clone())
                    }
                    op => arithmetic(op, left, right),
                }
            }
            Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner) => truth(&[inner]),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                truth(&[left, right])
            }
            Expr::Between {
                expr, low, high, ..
            } => truth(&[expr, low, high]),
            Expr::In {
                expr,
                target: ast::InTarget::List(list),
                ..
            } => {
                let mut parts: Vec<&Expr> = list.iter().collect();
                parts.push(expr);
                truth(&parts)
            }
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
                truth(&[expr, pattern])
            }
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                let whens = conditions.iter().map(|when| &when.condition);
                truth(&whens.chain(operand.as_deref()).collect::<Vec<_>>())?;
                let results = conditions.iter().map(|when| &when.result);
                common(&all(&results
                    .chain(else_result.as_deref())
                    .collect::<Vec<_>>())?)
            }
            Expr::Cast {
                expr, data_type, ..
            } => {
                let inner = of(expr)?;
                let oid = written(data_type)?;
                let collation = if is_text(oid) {
                    collation([&inner])?
                } else {
                    None
                };
                Some(Typed::Of { oid, collation })
            }
            Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => {
                of(time_zone)?;
                match of(timestamp)?.oid()? {
                    oid::TIMESTAMP => Some(Typed::plain(oid::TIMESTAMPTZ)),
                    oid::TIMESTAMPTZ => Some(Typed::plain(oid::TIMESTAMP)),
                    _ => None,
                }
            }
            Expr::Extract { expr, .. } => {
                of(expr)?.oid()?;
                Some(Typed::plain(oid::NUMERIC))
            }
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                let inner = of(expr)?;
                let bounds = substring_from.iter().chain(substring_for);
                let is_number = |bound: &Typed| bound.oid().is_some_and(is_integer);
                let by_number = bounds
                    .map(|bound| of(bound))
                    .all(|bound| bound.as_ref().is_some_and(is_number));
                (inner.may_be_text() && by_number).then(|| text([&inner]))?
            }
            Expr::Trim {
                expr,
                trim_what: None,
                trim_characters: None,
                ..
            } => {
                let inner = of(expr)?;
                inner.may_be_text().then(|| text([&inner]))?
            }
            Expr::Function(function) => self.call_type(function, scope),
            _ => None,
        }
    }

    /// Whether users made an operator of this name: it may be meant.
    fn is_of_user(&self, op: &BinaryOperator) -> bool {
        let mut operators = self.topology.schema.operators.values();
        let symbol = op.to_string();
        operators.any(|operators| operators.contains_key(&*symbol))
    }

    fn constant_type(&self, value: &Value) -> Option<Typed> {
        match value {
            Value::Number(digits, false) => {
                let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
                let is_decimal = |byte: u8| byte.is_ascii_digit() || b".eE+-".contains(&byte);
                Some(Typed::plain(if digits.parse::<i32>().is_ok() {
                    oid::INT4
                } else if digits.parse::<i64>().is_ok() {
                    oid::INT8
                } else if is_whole || digits.bytes().all(is_decimal) {
                    oid::NUMERIC
                } else {
                    return None;
                }))
            }
            Value::Boolean(_) => Some(Typed::plain(oid::BOOL)),
            Value::Null => Some(Typed::Open),
            Value::Placeholder(text) => {
                let declared = self.parameter_types.get(usize::from(placeholder(text)?))?;
                is_ruled(*declared).then(|| Typed::plain(*declared))
            }
            other => parse::string(other).map(|_| Typed::Open),
        }
    }

    fn call_type(&self, function: &ast::Function, scope: &Rc<Scope>) -> Option<Typed> {
        let FunctionArguments::List(list) = &function.args else {
            return None;
        };
        let is_plain = function.over.is_none()
            && function.filter.is_none()
            && function.within_group.is_empty()
            && list.duplicate_treatment.is_none()
            && list.clauses.is_empty();
        if !is_plain {
            return None;
        }
        let argument = |arg: &FunctionArg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.typed(expr, scope),
            _ => None,
        };
        let parts: Vec<Typed> = list.args.iter().map(argument).collect::<Option<_>>()?;
        let parts = parts.as_slice();
        let first = parts.first()?;
        match self.own_function(function)?.as_str() {
            "coalesce" | "greatest" | "least" => common(parts),
            "nullif" => match parts {
                [left, right] if right.oid().is_none_or(|oid| left.oid() == Some(oid)) => {
                    left.oid().is_some().then(|| left.clone())
                }
                _ => None,
            },
            name if TEXT_OF_TEXT.contains(&name) => first.may_be_text().then(|| text(parts))?,
            "concat" | "to_char" => text(parts),
            name if INTEGER_OF_ANY.contains(&name) => Some(Typed::plain(oid::INT4)),
            "abs" => first.oid().and_then(rank).map(|_| first.clone()),
            "round" | "trunc" => match (first.oid()?, parts) {
                (oid::NUMERIC, _) => Some(Typed::plain(oid::NUMERIC)),
                (oid::FLOAT8, [_]) => Some(Typed::plain(oid::FLOAT8)),
                _ => None,
            },
            "mod" => match parts {
                [left, right] => arithmetic(&BinaryOperator::Modulo, left, right),
                _ => None,
            },
            "date_trunc" => match (parts.get(1)?.oid()?, parts.len()) {
                (oid @ (oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::INTERVAL), 2) => {
                    Some(Typed::plain(oid))
                }
                // A date becomes what is preferred among times.
                (oid::DATE, 2) | (_, 3) => Some(Typed::plain(oid::TIMESTAMPTZ)),
                _ => None,
            },
            "date_part" => Some(Typed::plain(oid::FLOAT8)),
            _ => None,
        }
    }

    /// The name of a function of PostgreSQL's own, or of its grammar, that no other can be meant by.
    pub(super) fn own_function(&self, function: &ast::Function) -> Option<String> {
        let mut parts = object_name(&function.name).ok()?;
        let name = parts.pop()?;
        let schema = &self.topology.schema;
        let is_own = match parts.as_slice() {
            [] => {
                let of_user = |within: &Arc<str>| {
                    let functions = schema.user_functions.get(within);
                    functions.is_some_and(|functions| functions.contains_key(&*name))
                };
                !self.search_path.iter().any(of_user)
            }
            [catalog] => catalog == "pg_catalog",
            _ => false,
        };
        is_own.then_some(name)
    }
}

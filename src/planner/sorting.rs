//! Which values the router itself may put in order, and which only PostgreSQL: enums, texts in most collations, arrays,
//! rows. Where that is not certain, the shards' description of their rows says it when they run.

use super::analysis::{Analyzer, bare, object_name};
use super::order::explicit_collation;
use super::scope::Scope;
use super::typing::Typed;
use crate::sql::parse::ast;
use crate::topology::schema::{Collation, Column, Schema};
use crate::wire::value::SortType;
use ast::{BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments};
use std::rc::Rc;

/// Who can put values in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sorts {
    /// The router, as PostgreSQL does.
    Alike,
    /// PostgreSQL alone.
    ByPostgres,
    /// Not known.
    Unknown,
}

/// PostgreSQL's functions that give a text, whatever they are given.
const TEXT_OF_ANY: [&str; 14] = [
    "btrim",
    "concat",
    "concat_ws",
    "encode",
    "format",
    "json_extract_path_text",
    "jsonb_extract_path_text",
    "jsonb_pretty",
    "md5",
    "quote_ident",
    "quote_literal",
    "regexp_replace",
    "string_agg",
    "translate",
];

/// PostgreSQL's functions that give arrays, rows and documents.
const COMPOUND_OF_ANY: [&str; 8] = [
    "array_agg",
    "array_append",
    "jsonb_agg",
    "jsonb_build_array",
    "jsonb_build_object",
    "row",
    "string_to_array",
    "to_jsonb",
];

/// PostgreSQL's functions that give an integer, whatever they are given.
const INTEGER_OF_ANY: [&str; 8] = [
    "ascii",
    "bit_length",
    "cardinality",
    "count",
    "dense_rank",
    "ntile",
    "rank",
    "row_number",
];

/// PostgreSQL's functions whose values are of the type of an argument of theirs.
const SAME_AS_ARGUMENT: [&str; 8] = [
    "coalesce",
    "first_value",
    "greatest",
    "last_value",
    "least",
    "max",
    "min",
    "nullif",
];

impl Sorts {
    /// A table's column.
    pub(super) fn of_column(column: &Column, schema: &Schema) -> Self {
        match (SortType::of(column.type_oid), column.collation) {
            (Some(_), Collation::Bytes) => Self::Alike,
            (Some(kind), _) if !kind.is_collatable() => Self::Alike,
            // A domain is described as what it is made of.
            (None, Collation::None | Collation::Bytes) if schema.is_domain(column) => Self::Unknown,
            _ => Self::ByPostgres,
        }
    }

    /// Of values some of which are of this and some of the `other`.
    pub(super) fn beside(self, other: Self) -> Self {
        match (self, other) {
            (Self::ByPostgres, _) | (_, Self::ByPostgres) => Self::ByPostgres,
            (Self::Alike, Self::Alike) => Self::Alike,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
        }
    }
}

impl Analyzer<'_> {
    /// Who can put the values of an expression in order.
    pub(super) fn sorts(&self, expr: &Expr, scope: &Rc<Scope>) -> Sorts {
        let expr = bare(expr);
        if let Expr::Collate { .. } = expr {
            return match explicit_collation(expr) {
                Collation::Bytes => Sorts::Alike,
                _ => Sorts::ByPostgres,
            };
        }
        if let Some((_, column)) = self.find(expr, scope) {
            return column.sorts;
        }
        if let Some(Typed::Of { oid, .. }) = self.typed(expr, scope) {
            return match SortType::of(oid) {
                Some(kind) if !kind.is_collatable() => Sorts::Alike,
                Some(_) | None => Sorts::ByPostgres,
            };
        }
        let together = |list: &mut dyn Iterator<Item = &Expr>| {
            let mut all = Sorts::Unknown;
            for expr in list {
                if self.sorts(expr, scope) == Sorts::ByPostgres {
                    all = Sorts::ByPostgres;
                }
            }
            all
        };
        match expr {
            Expr::Identifier(ident) => {
                let name = [crate::sql::parse::name(ident)];
                match scope.row(&name) {
                    Some(_) => Sorts::ByPostgres,
                    None => Sorts::Unknown,
                }
            }
            Expr::Tuple(_) | Expr::Array(_) => Sorts::ByPostgres,
            Expr::Case {
                conditions,
                else_result,
                ..
            } => {
                let results = conditions.iter().map(|when| &when.result);
                together(&mut results.chain(else_result.as_deref()))
            }
            // Texts, arrays, documents.
            Expr::BinaryOp {
                op:
                    BinaryOperator::StringConcat
                    | BinaryOperator::Arrow
                    | BinaryOperator::LongArrow
                    | BinaryOperator::HashArrow
                    | BinaryOperator::HashLongArrow,
                ..
            } => Sorts::ByPostgres,
            Expr::Cast {
                data_type: DataType::Array(_),
                ..
            } => Sorts::ByPostgres,
            Expr::Function(function) => self.call_sorts(function, scope),
            _ => Sorts::Unknown,
        }
    }

    fn call_sorts(&self, function: &ast::Function, scope: &Rc<Scope>) -> Sorts {
        let arguments = match &function.args {
            FunctionArguments::List(list) => list.args.as_slice(),
            FunctionArguments::None | FunctionArguments::Subquery(_) => &[],
        };
        let arguments = || {
            arguments.iter().filter_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            })
        };
        let name = object_name(&function.name).ok();
        if name.and_then(|mut parts| parts.pop()).as_deref() == Some("row") {
            return Sorts::ByPostgres;
        }
        let Some(name) = self.own_function(function) else {
            return Sorts::Unknown;
        };
        let name = name.as_str();
        let is_any = |list: &[&str]| list.contains(&name);
        if is_any(&TEXT_OF_ANY) || is_any(&COMPOUND_OF_ANY) {
            Sorts::ByPostgres
        } else if is_any(&INTEGER_OF_ANY) {
            Sorts::Alike
        } else if is_any(&SAME_AS_ARGUMENT) {
            let all = arguments().map(|expr| self.sorts(expr, scope));
            all.reduce(Sorts::beside).unwrap_or(Sorts::Unknown)
        } else {
            Sorts::Unknown
        }
    }
}

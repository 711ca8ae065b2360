//! Expressions: the exhaustive walk that finds subqueries, functions and what else matters for where a statement
//! runs; the predicates that restrict keys; and constants as key sources.
//!
//! Every kind of node is named here: one that a later parser adds does not compile, and one that PostgreSQL does not
//! have is refused.

use super::analysis::{Allow, Analyzer, Outcome, bare, beyond, object_name, placeholder};
use super::automatic::refuse_unloaded;
use super::body::Judge;
use super::function::{self, Effect};
use super::gathered::conjuncts;
use super::key::{KeyColumn, KeySet, NodeId, Source};
use super::plan::SettingChange;
use super::refusal::{PlanError, Refusal};
use super::scope::{Found, Key, Scope};
use super::{catalog_text, clock};
use crate::sql::parse::{self, ast};
use crate::topology::key_value::KeyType;
use crate::topology::schema::{Collation, HashFamily};
use ast::{
    AccessExpr, BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, InTarget, Query, Subscript, UnaryOperator, Value,
    WindowFrameBound, WindowType,
};
use std::rc::Rc;

/// Columns that every table has and that mean something on one server only.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// Types whose input looks into the catalog, so that their values differ between shards.
const CATALOG_TYPES: [&str; 11] = [
    "regclass",
    "regproc",
    "regprocedure",
    "regoper",
    "regoperator",
    "regtype",
    "regrole",
    "regnamespace",
    "regconfig",
    "regdictionary",
    "regcollation",
];

/// Functions that give dates and times, never a text.
const GIVES_TIME: [&str; 14] = [
    "age",
    "clock_timestamp",
    "date_bin",
    "date_trunc",
    "make_date",
    "make_interval",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "now",
    "statement_timestamp",
    "timezone",
    "to_date",
    "to_timestamp",
];

/// Whether a value of this type is, or is made of, dates and times.
fn holds_time(data_type: &DataType) -> bool {
    match data_type {
        DataType::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _)) => holds_time(inner),
        other => type_oid(other).is_some_and(clock::may_be_time),
    }
}

/// text, varchar, char(n), name, "char", unknown, json, jsonb, xml.
fn is_text(oid: u32) -> bool {
    matches!(oid, 25 | 1043 | 1042 | 19 | 18 | 705 | 114 | 3802 | 142)
}

impl<'a> Analyzer<'a> {
    /// Walks one expression.
    pub(super) fn expression(&mut self, expr: &'a Expr, scope: &Rc<Scope>) -> Outcome<()> {
        match expr {
            Expr::Identifier(ident) => self.column_name(&[parse::name(ident)], None, scope),
            Expr::CompoundIdentifier(idents) => {
                let parts: Vec<String> = idents.iter().map(parse::name).collect();
                let place = idents.first().and_then(parse::place_of);
                self.column_name(&parts, place, scope)
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expression(root, scope)?;
                for access in access_chain {
                    match access {
                        AccessExpr::Dot(Expr::Identifier(ident)) => self.field(&parse::name(ident)),
                        AccessExpr::Dot(_) => return beyond("this field"),
                        AccessExpr::Subscript(Subscript::Index { index }) => {
                            self.expression(index, scope)?
                        }
                        AccessExpr::Subscript(Subscript::Slice {
                            lower_bound,
                            upper_bound,
                            stride,
                        }) => {
                            if stride.is_some() {
                                return beyond("a stride");
                            }
                            self.expressions(lower_bound.iter().chain(upper_bound), scope)?;
                        }
                    }
                }
                Ok(())
            }
            Expr::UnaryOp { op, expr: inner } => {
                self.operator(None, &op.to_string())?;
                self.expression(inner, scope)
            }
            Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::IsNormalized {
                expr: inner,
                form: _,
                negated: _,
            }
            | Expr::IsJson {
                expr: inner,
                kind: _,
                unique_keys: _,
                negated: _,
            }
            | Expr::Nested(inner)
            | Expr::Ceil {
                expr: inner,
                field: _,
            }
            | Expr::Floor {
                expr: inner,
                field: _,
            }
            | Expr::Extract {
                field: _,
                syntax: _,
                expr: inner,
            } => self.expression(inner, scope),
            Expr::Collate {
                expr: inner,
                collation: _,
            } => self.expression(inner, scope),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.operator(None, "=")?;
                self.expressions([&**left, right], scope)
            }
            Expr::In {
                expr,
                target,
                negated: _,
                global,
            } => {
                if *global {
                    return beyond("GLOBAL IN");
                }
                self.operator(None, "=")?;
                self.operator(None, "<>")?;
                self.expression(expr, scope)?;
                match target {
                    InTarget::List(list) => self.expressions(list, scope),
                    InTarget::Subquery(query) => self.membership(expr, query, scope, false),
                    InTarget::Unnest(_) | InTarget::Table { .. } => beyond("this IN"),
                }
            }
            Expr::Between {
                expr,
                negated: _,
                low,
                high,
            } => {
                self.operator(None, ">=")?;
                self.operator(None, "<=")?;
                self.expressions([&**expr, low, high], scope)
            }
            Expr::BinaryOp { left, op, right } => {
                self.binary_operator(op)?;
                // Chains lean to the left: go down them without recursion.
                let mut chain = vec![&**right];
                let mut next = &**left;
                while let Expr::BinaryOp { left, op, right } = next {
                    self.binary_operator(op)?;
                    chain.push(right);
                    next = left;
                }
                chain.push(next);
                self.expressions(chain.into_iter().rev(), scope)
            }
            Expr::Like {
                expr,
                pattern,
                negated: _,
                any: _,
                escape_char,
            }
            | Expr::ILike {
                expr,
                pattern,
                negated: _,
                any: _,
                escape_char,
            }
            | Expr::SimilarTo {
                expr,
                pattern,
                negated: _,
                escape_char,
            } => {
                for symbol in ["~~", "!~~", "~~*", "!~~*", "~", "!~"] {
                    self.operator(None, symbol)?;
                }
                self.expressions(
                    [&**expr, pattern].into_iter().chain(escape_char.as_deref()),
                    scope,
                )
            }
            Expr::AnyOp {
                left,
                compare_op,
                right,
                is_some: _,
            } => {
                self.binary_operator(compare_op)?;
                self.expression(left, scope)?;
                match bare(right) {
                    Expr::Subquery(query) if *compare_op == BinaryOperator::Eq => {
                        self.membership(left, query, scope, false)
                    }
                    _ => self.expression(right, scope),
                }
            }
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => {
                self.binary_operator(compare_op)?;
                self.expressions([&**left, right], scope)
            }
            Expr::Cast {
                kind,
                expr,
                data_type,
                format,
            } => {
                if format.is_some()
                    || !matches!(kind, ast::CastKind::Cast | ast::CastKind::DoubleColon)
                {
                    return beyond("this cast");
                }
                let literal = matches!(bare(expr), Expr::Value(value) if parse::string(&value.value).is_some());
                self.cast_type(data_type, literal)?;
                if holds_time(data_type) && self.may_be_text(expr, scope) {
                    self.effect(Effect::Time, "a text that is read as a time");
                }
                self.expression(expr, scope)
            }
            Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => self.expressions([&**timestamp, time_zone], scope),
            Expr::Position { expr, r#in } => self.expressions([&**expr, r#in], scope),
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                special: _,
                shorthand: _,
            } => self.expressions(
                [&**expr]
                    .into_iter()
                    .chain(substring_from.as_deref())
                    .chain(substring_for.as_deref()),
                scope,
            ),
            Expr::Trim {
                trim_where: _,
                trim_what,
                expr,
                trim_characters,
            } => self.expressions(
                [&**expr]
                    .into_iter()
                    .chain(trim_what.as_deref())
                    .chain(trim_characters.iter().flatten()),
                scope,
            ),
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => self.expressions(
                [&**expr, overlay_what, overlay_from]
                    .into_iter()
                    .chain(overlay_for.as_deref()),
                scope,
            ),
            Expr::Value(value) => {
                let text = match &value.value {
                    Value::NationalStringLiteral(text) => Some(text.as_str()),
                    other => parse::string(other),
                };
                if let Some(text) = text.filter(|text| clock::tells_time(text)) {
                    self.effect(Effect::Time, &format!("'{text}'"));
                }
                match &value.value {
                    Value::TripleSingleQuotedString(_)
                    | Value::TripleDoubleQuotedString(_)
                    | Value::DoubleQuotedString(_)
                    | Value::DoubleQuotedByteStringLiteral(_)
                    | Value::TripleSingleQuotedByteStringLiteral(_)
                    | Value::TripleDoubleQuotedByteStringLiteral(_)
                    | Value::SingleQuotedRawStringLiteral(_)
                    | Value::DoubleQuotedRawStringLiteral(_)
                    | Value::TripleSingleQuotedRawStringLiteral(_)
                    | Value::TripleDoubleQuotedRawStringLiteral(_)
                    | Value::QuoteDelimitedStringLiteral(_)
                    | Value::NationalQuoteDelimitedStringLiteral(_) => beyond("this literal"),
                    Value::Number(..)
                    | Value::SingleQuotedString(_)
                    | Value::EscapedStringLiteral(_)
                    | Value::UnicodeStringLiteral(_)
                    | Value::DollarQuotedString(_)
                    | Value::SingleQuotedByteStringLiteral(_)
                    | Value::NationalStringLiteral(_)
                    | Value::HexStringLiteral(_)
                    | Value::Boolean(_)
                    | Value::Null => Ok(()),
                    Value::Placeholder(text) => {
                        self.parameters_used.extend(placeholder(text));
                        Ok(())
                    }
                }
            }
            Expr::TypedString(typed) => {
                self.cast_type(&typed.data_type, true)?;
                if let Some(text) = parse::string(&typed.value.value)
                    && clock::tells_time(text)
                {
                    self.effect(Effect::Time, &format!("'{text}'"));
                }
                Ok(())
            }
            Expr::Function(function) => self.function(function, scope),
            Expr::Case {
                case_token: _,
                end_token: _,
                operand,
                conditions,
                else_result,
            } => {
                self.expressions(
                    operand.as_deref().into_iter().chain(else_result.as_deref()),
                    scope,
                )?;
                for ast::CaseWhen { condition, result } in conditions {
                    self.expressions([condition, result], scope)?;
                }
                Ok(())
            }
            Expr::Exists {
                subquery,
                negated: _,
            } => self.subquery(subquery, scope, false).map(drop),
            Expr::Subquery(query) => self.subquery(query, scope, false).map(drop),
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                self.expressions(sets.iter().flatten(), scope)
            }
            Expr::Tuple(expressions) => self.expressions(expressions, scope),
            Expr::Array(array) => self.expressions(&array.elem, scope),
            Expr::Interval(interval) => self.expression(&interval.value, scope),
            Expr::JsonAccess { .. }
            | Expr::RLike { .. }
            | Expr::Convert { .. }
            | Expr::Prefixed { .. }
            | Expr::Struct { .. }
            | Expr::Named { .. }
            | Expr::Dictionary(_)
            | Expr::Map(_)
            | Expr::MatchAgainst { .. }
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..)
            | Expr::OuterJoin(_)
            | Expr::Prior(_)
            | Expr::Lambda(_)
            | Expr::MemberOf(_) => beyond("this expression"),
        }
    }

    fn expressions(
        &mut self,
        expressions: impl IntoIterator<Item = &'a Expr>,
        scope: &Rc<Scope>,
    ) -> Outcome<()> {
        expressions
            .into_iter()
            .try_for_each(|expr| self.expression(expr, scope))
    }

    /// A name of a column, or of a row; `place` is where it stands, if it has several parts.
    fn column_name(
        &mut self,
        parts: &[String],
        place: Option<parse::Place>,
        scope: &Rc<Scope>,
    ) -> Outcome<()> {
        let Some(name) = parts.last() else {
            return Ok(());
        };
        if parts.len() > 2 {
            self.qualified_column(parts, place, scope);
        } else if let Some(item) = scope.row(parts) {
            self.row_used(item);
        }
        if SYSTEM_COLUMNS.contains(&name.as_str()) && matches!(scope.find(parts), Found::Unknown) {
            self.found.system_column = true;
            self.differs_by_shard(PlanError::refused(
                Refusal::SystemColumn,
                format!("the system column {name}"),
            ));
        } else if parts.len() > 1 && matches!(scope.find(parts), Found::Unknown) {
            self.field(name);
        }
        Ok(())
    }

    /// `x.name` that is not known as a column: PostgreSQL also reads it as the call `name(x)`.
    fn field(&mut self, name: &str) {
        if self
            .topology
            .schema
            .user_functions
            .values()
            .any(|functions| functions.contains_key(name))
        {
            self.touched.add_anything();
            self.never_multi(
                Refusal::ProceduralFunction,
                format!("the field {name}, which may be a function"),
            );
        }
    }

    fn binary_operator(&mut self, op: &BinaryOperator) -> Outcome<()> {
        match op {
            BinaryOperator::Custom(symbol) => {
                self.never_multi(
                    Refusal::UnknownFunction,
                    "an operator that pgring does not know",
                );
                self.operator(None, symbol)
            }
            BinaryOperator::PGCustomBinaryOperator(parts) => {
                self.never_multi(
                    Refusal::UnknownFunction,
                    "an operator that pgring does not know",
                );
                let symbol = parts.last().map_or("", String::as_str);
                let qualifier = parts.iter().rev().nth(1);
                self.operator(qualifier.map(String::as_str), symbol)
            }
            op => self.operator(None, &op.to_string()),
        }
    }

    /// An operator, which is a call of its function.
    fn operator(&mut self, qualifier: Option<&str>, symbol: &str) -> Outcome<()> {
        let schema = &self.topology.schema;
        if schema.operators.is_empty() {
            return Ok(());
        }
        let mut operators = schema.operators.values();
        if operators.any(|operators| operators.contains_key(symbol)) {
            self.touched.add_anything();
        }
        let judge = &mut Judge::new(schema);
        let effect = catalog_text::operator_effect(judge, self.search_path, qualifier, symbol);
        self.called(effect, &format!("the operator {symbol}"))
    }

    /// What calls a function without naming it.
    fn called(&mut self, effect: Effect, what: &str) -> Outcome<()> {
        match effect {
            Effect::Procedural => Err(PlanError::refused(
                Refusal::ProceduralFunction,
                format!("{what} may read or write tables that pgring does not see"),
            )),
            Effect::Session => Err(PlanError::refused(
                Refusal::SessionState,
                format!("{what} keeps state in its server session"),
            )),
            effect => {
                self.effect(effect, what);
                Ok(())
            }
        }
    }

    /// Casts that PostgreSQL applies by itself are called as if they were written.
    pub(super) fn automatic_casts(&mut self) -> Outcome<()> {
        let schema = &self.topology.schema;
        refuse_unloaded(schema)?;
        if schema.automatic_casts.is_empty() {
            return Ok(());
        }
        self.touched.add_parameters(self.parameter_types);
        for (effect, name) in self.touched.casts(schema, self.found.writers > 0) {
            self.called(
                effect,
                &format!("{name}, which PostgreSQL applies by itself,"),
            )?;
        }
        Ok(())
    }

    /// The type of a cast, of a `literal` in quotes or of anything.
    fn cast_type(&mut self, data_type: &DataType, literal: bool) -> Outcome<()> {
        if matches!(data_type, DataType::Custom(..)) {
            self.touched.add_anything();
        }
        self.found.casts_to_time |= type_oid(data_type).is_none_or(clock::may_be_time);
        let schema = &self.topology.schema;
        if !(schema.casts.is_empty() && schema.domains.is_empty()) {
            let written = match data_type {
                DataType::Custom(name, _) => object_name(name)?.pop().unwrap_or_default(),
                other => other.to_string().to_ascii_lowercase(),
            };
            let plain = written.split('(').next().unwrap_or_default().trim();
            let plain = if plain == "int" { "integer" } else { plain };
            let effect = catalog_text::cast_effect(&mut Judge::new(schema), plain, literal);
            self.called(effect, &format!("the cast to {plain}"))?;
        }
        let name = match data_type {
            DataType::Regclass => "regclass".to_owned(),
            DataType::Custom(name, _) => object_name(name)?.pop().unwrap_or_default(),
            DataType::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _)) => {
                return self.cast_type(inner, literal);
            }
            _ => return Ok(()),
        };
        if CATALOG_TYPES.contains(&name.as_str()) {
            self.effect(Effect::Catalog, &format!("the type {name}"));
        }
        Ok(())
    }

    /// Whether an expression may be a text that only a shard sees. Literals and parameters are looked at by themselves.
    fn may_be_text(&self, expr: &Expr, scope: &Rc<Scope>) -> bool {
        let any = |list: &[&Expr]| list.iter().any(|expr| self.may_be_text(expr, scope));
        match expr {
            Expr::Value(_)
            | Expr::TypedString(_)
            | Expr::Interval(_)
            | Expr::AtTimeZone { .. }
            | Expr::Extract { .. } => false,
            Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => any(&[inner]),
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                let column = self.find(expr, scope).map(|(_, column)| column);
                column.is_none_or(|column| column.collation != Collation::None)
            }
            Expr::Cast {
                expr, data_type, ..
            } => {
                type_oid(data_type).is_none_or(is_text) || (!holds_time(data_type) && any(&[expr]))
            }
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Plus | BinaryOperator::Minus,
                right,
            } => any(&[left, right]),
            Expr::Function(function) => {
                let name = object_name(&function.name)
                    .ok()
                    .and_then(|mut parts| parts.pop());
                !name.is_some_and(|name| GIVES_TIME.contains(&name.as_str()))
            }
            _ => true,
        }
    }

    /// Notes what a call means.
    fn effect(&mut self, effect: Effect, what: &str) {
        match effect {
            Effect::Same => {}
            Effect::Random => {
                self.block().random = true;
                self.differ(what);
            }
            Effect::Time => {
                self.never_multi(
                    Refusal::VolatileFunction,
                    format!("{what} differs between shards"),
                );
                self.differ(what);
            }
            Effect::Catalog => {
                self.found.catalog.get_or_insert_with(|| what.into());
                self.never_multi(
                    Refusal::CatalogFunction,
                    format!("{what} looks at one shard"),
                );
                self.differ(what);
            }
            Effect::Designated => {
                self.found.designated.get_or_insert_with(|| what.into());
                self.found.writes = true;
            }
            Effect::Unknown => {
                self.never_multi(
                    Refusal::UnknownFunction,
                    format!("{what} is not known to pgring"),
                );
                self.found.unknown.get_or_insert_with(|| what.into());
                self.found.writes = true;
            }
            Effect::Procedural | Effect::Session => {}
        }
    }

    fn differ(&mut self, what: &str) {
        if self.found.differs.is_none() {
            self.found.differs = Some(PlanError::refused(
                Refusal::ReferenceWriteDiffers,
                format!("{what} gives each copy another value"),
            ));
        }
    }

    /// A function call in FROM or in an expression. `over` of an expression's call is walked by its caller.
    pub(super) fn call(
        &mut self,
        parts: &[String],
        count: usize,
        scope: &Rc<Scope>,
        windowed: Option<bool>,
        args: &'a [FunctionArg],
    ) -> Outcome<()> {
        let (qualifier, name) = match parts {
            [name] => (None, name.as_str()),
            [schema, name] | [_, schema, name] => (Some(schema.as_str()), name.as_str()),
            _ => return beyond("this function's name"),
        };
        let mut call = function::effect(
            &self.topology.schema,
            self.search_path,
            qualifier,
            name,
            count,
        );
        let mut own = self.topology.schema.user_functions.values();
        if own.any(|functions| functions.contains_key(name)) {
            self.touched.add_anything();
        }
        let first_text = args.first().and_then(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => {
                parse::string(&value.value)
            }
            _ => None,
        });
        let setting_named = self.setting_named.filter(|_| {
            matches!(args.first(), Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(column))))
                if parse::name(column) == "name")
        });
        match name {
            // The session's own settings are the same on every shard.
            "current_setting" if first_text.is_some_and(|setting| setting.contains('.')) => {
                call.effect = Effect::Same
            }
            "set_config" if qualifier.is_none_or(|schema| schema == "pg_catalog") => {
                let local = match args.get(2) {
                    Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))) => {
                        match &value.value {
                            Value::Boolean(local) => Some(*local),
                            _ => None,
                        }
                    }
                    _ => None,
                };
                // What is set is read back by name and set on the other shards too.
                let name = first_text.or(setting_named).map(str::to_ascii_lowercase);
                let (name, local) = match local {
                    Some(local) => (name, local),
                    // For how long it holds must be known too.
                    None => (None, false),
                };
                let both = |name: &str| {
                    let mut settings = self.found.settings.iter();
                    settings.any(|other| *other.name == *name && other.local != local)
                };
                match name.filter(|name| is_settable(name) && !both(name)) {
                    Some(name) => {
                        let name = name.into();
                        let perhaps = first_text.is_none();
                        self.found.settings.push(SettingChange {
                            name,
                            local,
                            perhaps,
                        });
                        call.effect = Effect::Designated;
                    }
                    None => call.effect = Effect::Session,
                }
            }
            _ => {}
        }
        if qualifier.is_none_or(|schema| schema == "pg_catalog") {
            let effects = function::session_effects(name);
            let found = &mut self.found.session;
            found.locks |= effects.locks;
            found.unlocks |= effects.unlocks;
            found.notifies |= effects.notifies;
        }
        match call.effect {
            Effect::Procedural => {
                return Err(PlanError::refused(
                    Refusal::ProceduralFunction,
                    format!(
                        "the function {name} may read or write tables that pgring does not see"
                    ),
                ));
            }
            Effect::Session => {
                return Err(PlanError::refused(
                    Refusal::SessionState,
                    format!("{name} keeps state in its server session"),
                ));
            }
            effect => self.effect(effect, &format!("{name}()")),
        }
        let sums_exactly = function::UNORDERED_IF_EXACT.contains(&name)
            && call.effect == Effect::Same
            && args.iter().all(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.is_exact(expr, scope),
                _ => false,
            });
        if call.ordered && !sums_exactly {
            self.block().ordered = true;
        }
        if call.aggregate && windowed == Some(false) {
            self.block().aggregate = true;
            self.own_aggregate(name, args, scope);
        }
        self.arguments(args, scope)
    }

    /// An aggregate of outer columns belongs to the outer query, which this walk does not follow.
    fn own_aggregate(&mut self, name: &str, args: &'a [FunctionArg], scope: &Rc<Scope>) {
        if scope.outer.is_none() {
            return;
        }
        let plain = args.iter().all(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => true,
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                let mut all_own = true;
                columns_in(expr, &mut |parts| {
                    all_own &= matches!(scope.find(parts), Found::Column { level: 0, .. });
                }) && all_own
            }
            _ => false,
        });
        if !plain {
            self.never_multi(
                Refusal::Aggregate,
                format!("{name}() may aggregate rows of an outer query"),
            );
        }
    }

    fn arguments(&mut self, args: &'a [FunctionArg], scope: &Rc<Scope>) -> Outcome<()> {
        for arg in args {
            let arg = match arg {
                FunctionArg::Named { arg, .. } | FunctionArg::Unnamed(arg) => arg,
                FunctionArg::ExprNamed { name, arg, .. } => {
                    self.expression(name, scope)?;
                    arg
                }
            };
            match arg {
                FunctionArgExpr::Expr(expr) => self.expression(expr, scope)?,
                FunctionArgExpr::Wildcard => {}
                FunctionArgExpr::QualifiedWildcard(name) => self.row_of(name, scope),
                FunctionArgExpr::WildcardWithOptions(_) => return beyond("an option of *"),
            }
        }
        Ok(())
    }

    fn function(&mut self, function: &'a ast::Function, scope: &Rc<Scope>) -> Outcome<()> {
        let ast::Function {
            name,
            uses_odbc_syntax,
            parameters,
            args,
            within_group,
            filter,
            null_treatment,
            over,
        } = function;
        if *uses_odbc_syntax
            || null_treatment.is_some()
            || !matches!(parameters, FunctionArguments::None)
        {
            return beyond("this function call");
        }
        let parts = object_name(name)?;
        let list: &'a [FunctionArg] = match args {
            FunctionArguments::None => &[],
            FunctionArguments::Subquery(query) => {
                // ARRAY(SELECT …)
                self.subquery(query, scope, false)?;
                self.array_of(query);
                &[]
            }
            FunctionArguments::List(list) => {
                for clause in &list.clauses {
                    match clause {
                        FunctionArgumentClause::OrderBy(order) => {
                            self.expressions(order.iter().map(|item| &item.expr), scope)?;
                        }
                        FunctionArgumentClause::JsonNullClause(_)
                        | FunctionArgumentClause::JsonReturningClause(_) => {}
                        FunctionArgumentClause::IgnoreOrRespectNulls(_)
                        | FunctionArgumentClause::Where(_)
                        | FunctionArgumentClause::Limit(_)
                        | FunctionArgumentClause::OnOverflow(_)
                        | FunctionArgumentClause::Having(_)
                        | FunctionArgumentClause::Separator(_) => {
                            return beyond("a clause of this function call");
                        }
                    }
                }
                &list.args
            }
        };
        self.call(&parts, list.len(), scope, Some(over.is_some()), list)?;
        if !within_group.is_empty() {
            self.block().aggregate = true;
            self.block().ordered = true;
            if scope.outer.is_some() {
                self.never_multi(Refusal::Aggregate, "WITHIN GROUP in a subquery");
            }
            self.expressions(within_group.iter().map(|item| &item.expr), scope)?;
        }
        if let Some(filter) = filter {
            self.expression(filter, scope)?;
        }
        match over {
            None => {}
            Some(WindowType::WindowSpec(spec)) => {
                let partition = self.window_spec(spec, scope)?;
                let block = self.block();
                block.ordered = true;
                block.windows.push(partition);
            }
            Some(WindowType::NamedWindow(name)) => {
                let name = parse::name(name);
                let block = self.block();
                block.ordered = true;
                let partition = block
                    .window_names
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, partition)| partition.clone());
                block.windows.push(partition.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Walks a window and gives what it partitions by.
    pub(super) fn window_spec(
        &mut self,
        spec: &'a ast::WindowSpec,
        scope: &Rc<Scope>,
    ) -> Outcome<Vec<Expr>> {
        let ast::WindowSpec {
            window_name,
            partition_by,
            order_by,
            window_frame,
        } = spec;
        self.expressions(
            partition_by
                .iter()
                .chain(order_by.iter().map(|item| &item.expr)),
            scope,
        )?;
        if let Some(frame) = window_frame {
            for bound in std::iter::once(&frame.start_bound).chain(&frame.end_bound) {
                match bound {
                    WindowFrameBound::Preceding(Some(expr))
                    | WindowFrameBound::Following(Some(expr)) => self.expression(expr, scope)?,
                    WindowFrameBound::CurrentRow
                    | WindowFrameBound::Preceding(None)
                    | WindowFrameBound::Following(None) => {}
                }
            }
        }
        Ok(match window_name {
            Some(name) => {
                let name = parse::name(name);
                let named = &self.block().window_names;
                named
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, partition)| partition.clone())
                    .unwrap_or_default()
            }
            None => partition_by.clone(),
        })
    }

    // Predicates.

    /// Walks a condition and takes from its AND-terms what restricts keys. Gives the pairs of key nodes of the
    /// innermost FROM that it equates.
    pub(super) fn conjuncts(
        &mut self,
        condition: &'a Expr,
        scope: &Rc<Scope>,
        allow: &Allow,
    ) -> Outcome<Vec<(NodeId, NodeId)>> {
        let mut pairs = Vec::new();
        for expr in conjuncts(condition) {
            self.conjunct(expr, scope, allow, &mut pairs)?;
        }
        Ok(pairs)
    }

    fn conjunct(
        &mut self,
        expr: &'a Expr,
        scope: &Rc<Scope>,
        allow: &Allow,
        pairs: &mut Vec<(NodeId, NodeId)>,
    ) -> Outcome<()> {
        let restricting = matches!(allow, Allow::All);
        match expr {
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Eq,
                right,
            } => {
                self.equal(left, right, scope, allow, pairs);
                self.expression(expr, scope)
            }
            Expr::BinaryOp {
                left,
                op:
                    op @ (BinaryOperator::Gt
                    | BinaryOperator::GtEq
                    | BinaryOperator::Lt
                    | BinaryOperator::LtEq),
                right,
            } => {
                let inclusive = matches!(op, BinaryOperator::GtEq | BinaryOperator::LtEq);
                let above = matches!(op, BinaryOperator::Gt | BinaryOperator::GtEq);
                self.bound(left, right, above, inclusive, scope, allow);
                self.bound(right, left, !above, inclusive, scope, allow);
                self.expression(expr, scope)
            }
            Expr::Between {
                expr: column,
                negated: false,
                low,
                high,
            } => {
                self.bound(column, low, true, true, scope, allow);
                self.bound(column, high, false, true, scope, allow);
                self.expression(expr, scope)
            }
            Expr::IsNotDistinctFrom(left, right) => {
                for (column, value) in [(left, right), (right, left)] {
                    if let Some(key) = self.restrictable(column, scope, allow)
                        && let Some(source @ (Source::Text(_) | Source::Number(_))) =
                            self.constant(value, &self.graph.column(key.node).clone())
                    {
                        self.graph.constrain(key.node, KeySet::Of(vec![source]));
                    }
                }
                self.expression(expr, scope)
            }
            Expr::In {
                expr: column,
                target: InTarget::List(list),
                negated: false,
                global: false,
            } => {
                self.in_list(column, list, scope, allow);
                self.expression(expr, scope)
            }
            Expr::In {
                expr: column,
                target: InTarget::Subquery(query),
                negated: false,
                global: false,
            } if restricting => {
                self.expression(column, scope)?;
                self.membership(column, query, scope, true)
            }
            Expr::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                is_some: _,
            } => {
                if let Expr::Subquery(query) = bare(right)
                    && restricting
                {
                    self.expression(left, scope)?;
                    return self.membership(left, query, scope, true);
                }
                if let Some(key) = self.restrictable(left, scope, allow)
                    && let Some(sources) =
                        self.array(right, &self.graph.column(key.node).clone(), false)
                {
                    self.graph.constrain(key.node, KeySet::Of(sources));
                }
                self.expression(expr, scope)
            }
            Expr::BinaryOp {
                op: BinaryOperator::Or,
                ..
            } => {
                if let Some((node, sources)) = self.alternatives(expr, scope, allow) {
                    self.graph.constrain(node, KeySet::Of(sources));
                }
                self.expression(expr, scope)
            }
            Expr::Exists {
                subquery,
                negated: false,
            } if restricting => self.subquery(subquery, scope, true).map(drop),
            _ => self.expression(expr, scope),
        }
    }

    /// The key that `expr` is, if predicates here may restrict it.
    fn restrictable(&self, expr: &Expr, scope: &Rc<Scope>, allow: &Allow) -> Option<Key> {
        let (level, key) = self.key_of(expr, scope)?;
        self.may_restrict(level, key, scope, allow).then_some(key)
    }

    fn may_restrict(&self, level: usize, key: Key, scope: &Rc<Scope>, allow: &Allow) -> bool {
        match (level, allow) {
            (0, Allow::All) => true,
            (0, Allow::Only(nodes)) => nodes.contains(&key.node),
            (1, Allow::All) => scope.restricts_outer,
            _ => false,
        }
    }

    fn equal(
        &mut self,
        left: &Expr,
        right: &Expr,
        scope: &Rc<Scope>,
        allow: &Allow,
        pairs: &mut Vec<(NodeId, NodeId)>,
    ) {
        if let (Some(lefts), Some(rights)) = (tuple(left), tuple(right)) {
            if lefts.len() == rights.len() {
                for (left, right) in lefts.iter().zip(rights) {
                    self.equal(left, right, scope, allow, pairs);
                }
            }
            return;
        }
        match (self.key_of(left, scope), self.key_of(right, scope)) {
            (Some((left_level, left)), Some((right_level, right))) => {
                if !self
                    .graph
                    .column(left.node)
                    .equals_as(self.graph.column(right.node))
                {
                    return;
                }
                if self.may_restrict(left_level, left, scope, allow) {
                    self.graph.edge(right.node, left.node);
                }
                if self.may_restrict(right_level, right, scope, allow) {
                    self.graph.edge(left.node, right.node);
                }
                if left_level == 0 && right_level == 0 {
                    pairs.push((left.node, right.node));
                }
            }
            (Some((level, key)), None) => self.equal_to_constant(level, key, right, scope, allow),
            (None, Some((level, key))) => self.equal_to_constant(level, key, left, scope, allow),
            (None, None) => {}
        }
    }

    fn equal_to_constant(
        &mut self,
        level: usize,
        key: Key,
        value: &Expr,
        scope: &Rc<Scope>,
        allow: &Allow,
    ) {
        if self.may_restrict(level, key, scope, allow)
            && let Some(source) = self.constant(value, &self.graph.column(key.node).clone())
        {
            self.graph.constrain(key.node, KeySet::Of(vec![source]));
        }
    }

    fn bound(
        &mut self,
        column: &Expr,
        value: &Expr,
        above: bool,
        inclusive: bool,
        scope: &Rc<Scope>,
        allow: &Allow,
    ) {
        let Some(key) = self.restrictable(column, scope, allow) else {
            return;
        };
        if self.graph.column(key.node).key_type.family() != HashFamily::Integer {
            return;
        }
        if let Some(source) = self.constant(value, &self.graph.column(key.node).clone()) {
            if above {
                self.graph.bound_below(key.node, source, inclusive);
            } else {
                self.graph.bound_above(key.node, source, inclusive);
            }
        }
    }

    fn in_list(&mut self, column: &Expr, list: &[Expr], scope: &Rc<Scope>, allow: &Allow) {
        if let Some(columns) = tuple(column) {
            for (position, column) in columns.iter().enumerate() {
                let values: Option<Vec<&Expr>> =
                    list.iter().map(|row| tuple(row)?.get(position)).collect();
                if let Some(values) = values {
                    self.one_of(column, values, scope, allow);
                }
            }
        } else {
            self.one_of(column, list.iter().collect(), scope, allow);
        }
    }

    fn one_of(&mut self, column: &Expr, values: Vec<&Expr>, scope: &Rc<Scope>, allow: &Allow) {
        if let Some(key) = self.restrictable(column, scope, allow)
            && let Some(sources) = self.constants(&values, &self.graph.column(key.node).clone())
        {
            self.graph.constrain(key.node, KeySet::Of(sources));
        }
    }

    /// The constants of a list whose elements PostgreSQL brings to one type.
    fn constants(&self, values: &[&Expr], column: &KeyColumn) -> Option<Vec<Source>> {
        let sources: Vec<Source> = values
            .iter()
            .map(|value| self.constant(value, column))
            .collect::<Option<_>>()?;
        let untyped = sources
            .iter()
            .any(|source| matches!(source, Source::Parameter { oid: 0, .. }));
        let mixed = sources.iter().any(|source| match source {
            Source::Number(text) => match column.key_type {
                KeyType::Int2 => true,
                KeyType::Int4 => text.parse::<i32>().is_err(),
                _ => text.parse::<i64>().is_err(),
            },
            Source::Parameter { oid, .. } => *oid != 0,
            _ => false,
        });
        // The parameter would be of the other elements' type, in a form that is not known here.
        (!(untyped && mixed)).then_some(sources)
    }

    /// `k = 1 OR k = 2 OR …` on one key column.
    fn alternatives(
        &self,
        expr: &Expr,
        scope: &Rc<Scope>,
        allow: &Allow,
    ) -> Option<(NodeId, Vec<Source>)> {
        let mut open = vec![expr];
        let mut found: Option<(NodeId, Vec<Source>)> = None;
        while let Some(expr) = open.pop() {
            let (key, sources) = match bare(expr) {
                Expr::BinaryOp {
                    left,
                    op: BinaryOperator::Or,
                    right,
                } => {
                    open.push(right);
                    open.push(left);
                    continue;
                }
                Expr::BinaryOp {
                    left,
                    op: BinaryOperator::Eq,
                    right,
                } => [(left, right), (right, left)]
                    .iter()
                    .find_map(|(column, value)| {
                        let key = self.restrictable(column, scope, allow)?;
                        Some((
                            key,
                            vec![self.constant(value, self.graph.column(key.node))?],
                        ))
                    })?,
                Expr::In {
                    expr,
                    target: InTarget::List(list),
                    negated: false,
                    global: false,
                } => {
                    let key = self.restrictable(expr, scope, allow)?;
                    let values: Vec<&Expr> = list.iter().collect();
                    (key, self.constants(&values, self.graph.column(key.node))?)
                }
                _ => return None,
            };
            match &mut found {
                None => found = Some((key.node, sources)),
                Some((node, all)) if *node == key.node => all.extend(sources),
                Some(_) => return None,
            }
        }
        found
    }

    /// `column IN (query)`; `positive` if only rows for which it is true matter.
    fn membership(
        &mut self,
        column: &'a Expr,
        query: &'a Query,
        scope: &Rc<Scope>,
        positive: bool,
    ) -> Outcome<()> {
        let rows = self.subquery(query, scope, false)?;
        let Some(outputs) = rows.columns else {
            return Ok(());
        };
        let one = [column];
        let columns: Vec<&Expr> = match tuple(column) {
            Some(columns) => columns.iter().collect(),
            None => one.to_vec(),
        };
        if columns.len() != outputs.len() {
            return Ok(());
        }
        for (column, output) in columns.into_iter().zip(outputs) {
            let (Some((level, outside)), Some(inside)) = (self.key_of(column, scope), output.key)
            else {
                continue;
            };
            if !self
                .graph
                .column(outside.node)
                .equals_as(self.graph.column(inside.node))
            {
                continue;
            }
            // Where NULL and false differ, a NULL among the others would be seen.
            if positive || !(outside.nullable || inside.nullable) {
                self.graph.edge(outside.node, inside.node);
            }
            if positive && self.may_restrict(level, outside, scope, &Allow::All) {
                self.graph.edge(inside.node, outside.node);
            }
        }
        Ok(())
    }

    // Constants.

    /// `expr` as a value of the key `column`, if it is a literal or a parameter that is read as one.
    pub(super) fn constant(&self, expr: &Expr, column: &KeyColumn) -> Option<Source> {
        match bare(expr) {
            Expr::Value(value) => match &value.value {
                Value::Null => Some(Source::Null),
                Value::Number(text, false) => Some(Source::Number(text.as_str().into())),
                Value::Placeholder(text) => {
                    let index = placeholder(text)?;
                    Some(Source::Parameter {
                        index,
                        oid: self.declared(index),
                    })
                }
                other => parse::string(other).map(|text| Source::Text(text.into())),
            },
            Expr::UnaryOp {
                op: op @ (UnaryOperator::Minus | UnaryOperator::Plus),
                expr,
            } => match bare(expr) {
                Expr::Value(value) => match &value.value {
                    Value::Number(text, false) => {
                        let sign = if *op == UnaryOperator::Minus { "-" } else { "" };
                        Some(Source::Number(format!("{sign}{text}").into()))
                    }
                    _ => None,
                },
                _ => None,
            },
            Expr::Cast {
                kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => self.constant_cast(self.constant(expr, column)?, type_oid(data_type)?, column),
            Expr::TypedString(ast::TypedString {
                data_type,
                value,
                uses_odbc_syntax: false,
            }) => {
                let text = parse::string(&value.value)?;
                self.constant_cast(Source::Text(text.into()), type_oid(data_type)?, column)
            }
            _ => None,
        }
    }

    /// `source` cast to the type `oid`, as far as that keeps its meaning.
    fn constant_cast(&self, source: Source, oid: u32, column: &KeyColumn) -> Option<Source> {
        let family = column.key_type.family();
        let integer = matches!(oid, 20 | 21 | 23);
        let own = KeyType::of(oid, &column.type_name) == Some(column.key_type);
        match source {
            Source::Null => Some(Source::Null),
            Source::Text(text) => match family {
                HashFamily::Integer if integer => Some(Source::Text(text)),
                HashFamily::Numeric if integer || own => Some(Source::Text(text)),
                HashFamily::Text if matches!(oid, 25 | 1043) => Some(Source::Text(text)),
                HashFamily::Date
                | HashFamily::Time
                | HashFamily::TimeWithZone
                | HashFamily::Uuid
                | HashFamily::Bytea
                    if own =>
                {
                    Some(Source::Text(text))
                }
                _ => None,
            },
            Source::Number(text) => match family {
                HashFamily::Integer | HashFamily::Numeric if integer => {
                    text.parse::<i64>().is_ok().then_some(Source::Number(text))
                }
                HashFamily::Integer | HashFamily::Numeric if oid == 1700 => {
                    Some(Source::Number(text))
                }
                _ => None,
            },
            // An undeclared parameter right under a cast is of the cast's type.
            Source::Parameter { index, oid: 0 } => Some(Source::Parameter { index, oid }),
            Source::Parameter {
                index,
                oid: declared,
            } => {
                let widens = declared == oid || (integer && matches!(declared, 20 | 21 | 23));
                widens.then_some(Source::Parameter {
                    index,
                    oid: declared,
                })
            }
            Source::ArrayText(_) | Source::ArrayParameter { .. } => None,
        }
    }

    /// The elements of `= ANY (expr)`.
    fn array(&self, expr: &Expr, column: &KeyColumn, cast: bool) -> Option<Vec<Source>> {
        match bare(expr) {
            Expr::Array(array) => {
                let values: Vec<&Expr> = array.elem.iter().collect();
                let sources = self.constants(&values, column)?;
                // Alone, undeclared parameters make an array of text.
                let untyped = sources
                    .iter()
                    .any(|source| matches!(source, Source::Parameter { oid: 0, .. }));
                let text = column.key_type.family() == HashFamily::Text;
                (text || cast || !untyped).then_some(sources)
            }
            Expr::Value(value) => match &value.value {
                Value::Null => Some(Vec::new()),
                Value::Placeholder(text) => {
                    let index = placeholder(text)?;
                    let element_oid = match self.declared(index) {
                        0 => 0,
                        oid => element_oid(oid)?,
                    };
                    Some(vec![Source::ArrayParameter { index, element_oid }])
                }
                other => Some(vec![Source::ArrayText(parse::string(other)?.into())]),
            },
            Expr::Cast {
                kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => {
                let DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)) = data_type
                else {
                    return None;
                };
                let oid = type_oid(element)?;
                let sources = self.array(expr, column, true)?;
                sources
                    .into_iter()
                    .map(|source| match source {
                        Source::ArrayText(text) => self
                            .constant_cast(Source::Text("".into()), oid, column)
                            .map(|_| Source::ArrayText(text)),
                        Source::ArrayParameter {
                            index,
                            element_oid: 0,
                        } => Some(Source::ArrayParameter {
                            index,
                            element_oid: oid,
                        }),
                        Source::ArrayParameter { index, element_oid } => (element_oid == oid)
                            .then_some(Source::ArrayParameter { index, element_oid }),
                        other => self.constant_cast(other, oid, column),
                    })
                    .collect()
            }
            _ => None,
        }
    }

    /// The declared type of a parameter; 0 if there is none.
    fn declared(&self, index: u16) -> u32 {
        match self.parameter_types.get(usize::from(index)) {
            // `unknown` is as good as none.
            None | Some(705) => 0,
            Some(oid) => *oid,
        }
    }
}

/// The parts of `(a, b)` or `ROW(a, b)`.
fn tuple(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(parts) => Some(parts),
        Expr::Nested(inner) => tuple(inner),
        _ => None,
    }
}

/// Calls `each` with every column name in a simple expression; `false` if it is not that simple.
fn columns_in(expr: &Expr, each: &mut impl FnMut(&[String])) -> bool {
    match expr {
        Expr::Identifier(ident) => {
            each(&[parse::name(ident)]);
            true
        }
        Expr::CompoundIdentifier(idents) => {
            each(&idents.iter().map(parse::name).collect::<Vec<_>>());
            true
        }
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Nested(inner)
        | Expr::UnaryOp { expr: inner, .. }
        | Expr::Cast { expr: inner, .. } => columns_in(inner, each),
        Expr::BinaryOp { left, right, .. } => columns_in(left, each) && columns_in(right, each),
        Expr::Function(function) => match &function.args {
            FunctionArguments::List(list) => list.args.iter().all(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => columns_in(expr, each),
                _ => false,
            }),
            FunctionArguments::None => true,
            FunctionArguments::Subquery(_) => false,
        },
        Expr::Case {
            operand,
            conditions,
            else_result,
            ..
        } => {
            operand.as_deref().is_none_or(|expr| columns_in(expr, each))
                && else_result
                    .as_deref()
                    .is_none_or(|expr| columns_in(expr, each))
                && conditions
                    .iter()
                    .all(|when| columns_in(&when.condition, each) && columns_in(&when.result, each))
        }
        _ => false,
    }
}

/// The type that a cast names, if it is one without a modifier that matters for keys.
fn type_oid(data_type: &DataType) -> Option<u32> {
    Some(match data_type {
        DataType::BigInt(None) | DataType::Int8(None) => 20,
        DataType::SmallInt(None) | DataType::Int2(None) => 21,
        DataType::Int(None) | DataType::Int4(None) | DataType::Integer(None) => 23,
        DataType::Text => 25,
        DataType::Varchar(None)
        | DataType::CharacterVarying(None)
        | DataType::CharVarying(None) => 1043,
        DataType::Uuid => 2950,
        DataType::Date => 1082,
        DataType::Timestamp(None, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => {
            1114
        }
        DataType::Timestamp(None, ast::TimezoneInfo::WithTimeZone | ast::TimezoneInfo::Tz) => 1184,
        DataType::Bytea => 17,
        DataType::Numeric(ast::ExactNumberInfo::None)
        | DataType::Decimal(ast::ExactNumberInfo::None)
        | DataType::Dec(ast::ExactNumberInfo::None) => 1700,
        _ => return None,
    })
}

/// The element type of an array type, for types that keys may have.
fn element_oid(array: u32) -> Option<u32> {
    Some(match array {
        1001 => 17,
        1005 => 21,
        1007 => 23,
        1009 => 25,
        1014 => 1042,
        1015 => 1043,
        1016 => 20,
        1115 => 1114,
        1182 => 1082,
        1185 => 1184,
        1231 => 1700,
        2951 => 2950,
        _ => return None,
    })
}

/// Whether `set_config` may set it: not what the router needs as it is, nor what is the router's own.
fn is_settable(name: &str) -> bool {
    let fixed = [
        "client_encoding",
        "standard_conforming_strings",
        "session_authorization",
    ];
    !fixed.contains(&name) && !name.starts_with("pgring.")
}

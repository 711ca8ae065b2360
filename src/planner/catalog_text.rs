//! [`calls`]: what evaluating an expression of the catalog means, judged by the names in its text: defaults, policies,
//! conditions, views' queries, the expressions of trigger functions. And which relations such a text may name.

use super::body::Judge;
use super::clock;
use super::function::{self, Effect};
use crate::sql::lex::{self, LexLimits, Token, TokenKind};
use crate::topology::schema::{Relation, RelationKind, Schema};
use std::sync::Arc;

/// An expression of the catalog is longer than this only by mistake.
pub const LIMITS: LexLimits = LexLimits {
    tokens_max: 50_000,
    depth_max: 10_000,
};

/// Words before a parenthesis that is not a call's.
const KEYWORDS: [&str; 50] = [
    "all",
    "and",
    "any",
    "as",
    "between",
    "by",
    "case",
    "character",
    "conflict",
    "dec",
    "decimal",
    "distinct",
    "else",
    "elsif",
    "end",
    "except",
    "exists",
    "filter",
    "float",
    "from",
    "having",
    "if",
    "ilike",
    "in",
    "intersect",
    "into",
    "is",
    "join",
    "like",
    "nchar",
    "not",
    "on",
    "operator",
    "or",
    "over",
    "perform",
    "raise",
    "return",
    "returning",
    "select",
    "set",
    "similar",
    "some",
    "then",
    "union",
    "using",
    "values",
    "when",
    "where",
    "within",
];

/// The values of the tokens that may be names; `None` for the others.
fn name(token: Option<&Token>, text: &str) -> Option<String> {
    let token = token.filter(|token| token.is_identifier())?;
    let name = lex::identifier_value(token.text(text)).ok()?;
    Some(name.into_owned())
}

/// What is called, and what else is not [`Effect::Same`], with its name. Unqualified names are looked up in
/// `search_path`; PostgreSQL prints catalog expressions with all names qualified but those of `pg_catalog`.
/// [`Effect::Unknown`] is what looks like a call of a function that does not exist: in a text that PostgreSQL
/// printed it is none.
pub fn calls(text: &str, schema: &Schema, search_path: &[Arc<str>]) -> Vec<(Effect, String)> {
    calls_by(&mut Judge::new(schema), text, search_path)
}

/// As [`calls`], for `judge`, which knows what it has looked into.
pub(super) fn calls_by(
    judge: &mut Judge<'_>,
    text: &str,
    search_path: &[Arc<str>],
) -> Vec<(Effect, String)> {
    let Ok(tokens) = lex::lex(text, &LIMITS) else {
        return vec![(Effect::Procedural, "what pgring cannot read".to_owned())];
    };
    let mut found = Vec::new();
    let mut add = |effect: Effect, what: String| {
        if effect != Effect::Same {
            found.push((effect, what));
        }
    };
    let symbol = |at: usize, symbol: &str| {
        let token = tokens.get(at);
        token.is_some_and(|token| token.is_symbol(text, symbol))
    };
    for (index, token) in tokens.iter().enumerate() {
        if let Some(name_here) = name(Some(token), text) {
            let qualified = index > 1 && symbol(index - 1, ".");
            let qualifier = if qualified {
                name(tokens.get(index - 2), text)
            } else {
                None
            };
            let first = if qualified {
                index.saturating_sub(2)
            } else {
                index
            };
            let of_type = first > 0 && symbol(first - 1, "::");
            if of_type && !symbol(index + 1, ".") {
                let literal = tokens
                    .get(first.wrapping_sub(2))
                    .is_some_and(Token::is_string);
                add(
                    cast_effect(judge, &name_here, literal),
                    format!("the cast to {name_here}"),
                );
            } else if symbol(index + 1, "(") && name_here != "varying" {
                let qualifier = qualifier.as_deref();
                let mut effect =
                    function::effect_by(judge, search_path, qualifier, &name_here, 1).effect;
                if qualifier.is_none_or(|schema| schema == "pg_catalog")
                    && function::leaves_state(&name_here)
                    && !is_local_setting(&name_here, &tokens[index + 1..], text)
                {
                    effect = Effect::Session;
                }
                let is_keyword = token.kind == TokenKind::Word
                    && !qualified
                    && KEYWORDS.contains(&name_here.as_str());
                if !(is_keyword && effect == Effect::Unknown) {
                    add(effect, format!("{name_here}()"));
                }
            } else if token.kind == TokenKind::Word && !qualified {
                let effect = function::effect_by(judge, search_path, None, &name_here, 0).effect;
                if effect == Effect::Time && name_here.starts_with(['c', 'l']) {
                    add(effect, name_here.to_uppercase());
                }
            }
        } else if token.is_string() {
            if lex::string_value(token, text).is_ok_and(|value| clock::tells_time(&value)) {
                add(Effect::Time, token.text(text).to_owned());
            }
        } else if token.kind == TokenKind::Operator {
            let qualifier = if index > 1 && symbol(index - 1, ".") {
                name(tokens.get(index - 2), text)
            } else {
                None
            };
            let operator = token.text(text);
            let effect = operator_effect(judge, search_path, qualifier.as_deref(), operator);
            add(effect, format!("the operator {operator}"));
        }
    }
    found
}

/// Whether `name(…)` is `set_config(…, true)`, which ends with the transaction.
fn is_local_setting(name: &str, arguments: &[Token], text: &str) -> bool {
    let mut depth = 0usize;
    let close = arguments.iter().position(|token| {
        depth += usize::from(token.is_symbol(text, "("));
        depth -= usize::from(token.is_symbol(text, ")"));
        depth == 0
    });
    name == "set_config"
        && close.is_some_and(|close| {
            close > 2
                && arguments[close - 1].is(text, "true")
                && arguments[close - 2].is_symbol(text, ",")
        })
}

/// What a cast to the type `name` means: of casts that users made, and of domains. What is a `literal` in quotes is read
/// by the type itself, and cast by nothing.
pub(super) fn cast_effect(judge: &mut Judge<'_>, name: &str, literal: bool) -> Effect {
    let schema = judge.schema;
    let cast = schema.casts.get(name).filter(|_| !literal);
    let mut worst = cast.map_or(Effect::Same, |cast| function::of_user(judge, "", cast));
    for check in judge.domain(name) {
        for (effect, _) in calls_by(judge, &check.text, &[]) {
            // What PostgreSQL printed has no unknown names.
            if effect != Effect::Unknown {
                worst = worst.max(effect);
            }
        }
    }
    worst
}

/// What using an operator means.
pub(super) fn operator_effect(
    judge: &mut Judge<'_>,
    search_path: &[Arc<str>],
    qualifier: Option<&str>,
    symbol: &str,
) -> Effect {
    let schema = judge.schema;
    let mut within = |namespace: &str| {
        let operator = schema.operators.get(namespace)?.get(symbol)?;
        Some(function::of_user(judge, "", operator))
    };
    let worst = match qualifier {
        Some(qualifier) => within(qualifier),
        None => {
            let path = search_path.iter();
            path.filter_map(|schema| within(schema)).max()
        }
    };
    worst.unwrap_or(Effect::Same)
}

/// The relations that some name in `text` may be, whatever the search path. `None`: the text cannot be read.
pub fn relations_named<'a>(text: &str, schema: &'a Schema) -> Option<Vec<&'a Arc<Relation>>> {
    let tokens = lex::lex(text, &LIMITS).ok()?;
    let mut found: Vec<&Arc<Relation>> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let Some(name_here) = name(Some(token), text) else {
            continue;
        };
        let before = |word: &str| {
            index > 1
                && tokens[index - 1].is_symbol(text, ".")
                && name(tokens.get(index - 2), text).as_deref() == Some(word)
        };
        // A column of the trigger's row.
        if before("new") || before("old") {
            continue;
        }
        for (namespace, relations) in &schema.relations {
            // Its views have names of every day.
            if &**namespace == "information_schema" && !before("information_schema") {
                continue;
            }
            let relation = relations
                .get(&*name_here)
                .filter(|relation| match relation.kind {
                    RelationKind::Table
                    | RelationKind::View
                    | RelationKind::MaterializedView
                    | RelationKind::ForeignTable => true,
                    RelationKind::Sequence | RelationKind::Other => false,
                });
            if let Some(relation) = relation
                && !found.iter().any(|known| Arc::ptr_eq(known, relation))
            {
                found.push(relation);
            }
        }
    }
    Some(found)
}

/// Whether all relations that `text` may name are such that `allowed` lets them pass.
pub fn names_only(text: &str, schema: &Schema, allowed: impl Fn(&Relation) -> bool) -> bool {
    relations_named(text, schema)
        .is_some_and(|named| named.iter().all(|relation| allowed(relation)))
}

/// Whether the unquoted word is in it, or it cannot be read.
pub fn has_word(text: &str, word: &str) -> bool {
    lex::lex(text, &LIMITS).map_or(true, |tokens| {
        tokens.iter().any(|token| token.is(text, word))
    })
}

//! [`Judge`]: what the sources of functions do, whatever the functions are said to be. PostgreSQL itself keeps a function
//! that is not VOLATILE from writing, but not from calling what sets, locks or counts, nor from reading tables.

use super::catalog_text::{self, LIMITS};
use super::function::Effect;
use crate::sql::lex::{self, Token};
use crate::topology::ShardId;
use crate::topology::schema::{Body, Expression, Function, Placement, Schema};
use std::collections::HashSet;
use std::sync::Arc;

/// Words after which a name is a relation's.
const BEFORE_RELATION: [&str; 8] = [
    "from", "join", "only", "table", "into", "update", "using", "truncate",
];

/// What the code of other languages contains where it runs SQL.
const RUNS_SQL: [&str; 6] = ["execute", "query", "plpy.", "plv8.", "spi_", "prepare"];

/// Looks into sources, into each once.
pub struct Judge<'a> {
    pub(super) schema: &'a Schema,
    seen: HashSet<*const Body>,
    seen_domains: HashSet<&'a str>,
    /// All schemas: a source's search path is the session's or its own.
    search_path: Option<Arc<[Arc<str>]>>,
    depth: usize,
    /// The shard that all of it runs on.
    home: Option<ShardId>,
}

impl<'a> Judge<'a> {
    /// One that has seen nothing yet. What it has seen counts once: ask a new one for each question.
    pub fn new(schema: &'a Schema) -> Self {
        Self {
            schema,
            seen: HashSet::new(),
            seen_domains: HashSet::new(),
            search_path: None,
            depth: 0,
            home: None,
        }
    }

    /// One for what runs on `shard`, where local tables have their rows.
    pub fn at_home(schema: &'a Schema, shard: ShardId) -> Self {
        Self {
            home: Some(shard),
            ..Self::new(schema)
        }
    }

    /// Whether what it looks into does there what it would do on one server.
    pub(super) fn is_at_home(&self) -> bool {
        self.home.is_some()
    }

    /// Whether it looks into a source.
    pub(super) fn is_inside(&self) -> bool {
        self.depth > 0
    }

    /// The checks of the domain `name`, the first time that they are asked for.
    pub(super) fn domain(&mut self, name: &str) -> &'a [Expression] {
        match self.schema.domains.get_key_value(name) {
            Some((name, checks)) if self.seen_domains.insert(name) => checks,
            _ => &[],
        }
    }

    /// The worst that the sources of `function` do, beside what is theirs to promise: to give the same result.
    pub(super) fn source(&mut self, function: &Function) -> Effect {
        let mut worst = Effect::Same;
        for body in &function.bodies {
            if self.seen.insert(Arc::as_ptr(body)) {
                self.depth += 1;
                worst = worst.max(self.body(body));
                self.depth -= 1;
            }
        }
        worst
    }

    fn body(&mut self, body: &Body) -> Effect {
        if !matches!(&*body.language, "sql" | "plpgsql") {
            let text = body.text.to_ascii_lowercase();
            return match RUNS_SQL.iter().any(|word| text.contains(word)) {
                true => Effect::Procedural,
                false => Effect::Same,
            };
        }
        let Ok(tokens) = lex::lex(&body.text, &LIMITS) else {
            return Effect::Procedural;
        };
        let search_path = self.all_schemas();
        let called = catalog_text::calls_by(self, &body.text, &search_path);
        let called = called.into_iter().map(|(effect, _)| match effect {
            Effect::Designated | Effect::Procedural | Effect::Session => effect,
            // Names of no function: words of the language, types, columns.
            Effect::Unknown => Effect::Same,
            // It is said to give the same result all the same.
            Effect::Same | Effect::Random | Effect::Time | Effect::Catalog => Effect::Same,
        });
        let called = called.max().unwrap_or(Effect::Same);
        called
            .max(statements(&body.text, &tokens))
            .max(self.reads(&body.text, &tokens))
    }

    fn all_schemas(&mut self) -> Arc<[Arc<str>]> {
        let schema = self.schema;
        self.search_path
            .get_or_insert_with(|| {
                let functions = schema.user_functions.keys();
                functions.chain(schema.operators.keys()).cloned().collect()
            })
            .clone()
    }

    /// What reading the relations means that a source names where a relation stands.
    fn reads(&self, text: &str, tokens: &[Token]) -> Effect {
        let name = |at: usize| {
            let token = tokens.get(at).filter(|token| token.is_identifier())?;
            lex::identifier_value(token.text(text)).ok()
        };
        let is_symbol = |at: usize, symbol: &str| {
            tokens
                .get(at)
                .is_some_and(|token| token.is_symbol(text, symbol))
        };
        let mut worst = Effect::Same;
        for (index, before) in tokens.iter().enumerate() {
            let stands = before.is_symbol(text, ",")
                || BEFORE_RELATION.iter().any(|word| before.is(text, word));
            let Some(first) = name(index + 1).filter(|_| stands) else {
                continue;
            };
            let (namespace, relation, end) = match name(index + 3) {
                Some(second) if is_symbol(index + 2, ".") => (Some(first), second, index + 4),
                _ => (None, first, index + 2),
            };
            if is_symbol(end, "(") && !before.is(text, "into") {
                continue;
            }
            for (known, relations) in &self.schema.relations {
                let is_named = match &namespace {
                    Some(namespace) => **namespace == **known,
                    None => !matches!(&**known, "pg_catalog" | "information_schema"),
                };
                let found = relations.get(&*relation).filter(|_| is_named);
                let Some(found) = found else { continue };
                worst = worst.max(match &found.placement {
                    // What writes there may fire more.
                    _ if self.is_at_home()
                        && !(found.triggers.is_empty() && found.rules.is_empty()) =>
                    {
                        Effect::Procedural
                    }
                    Placement::Reference if self.is_at_home() && writes(text, tokens) => {
                        Effect::Procedural
                    }
                    Placement::Reference => Effect::Same,
                    Placement::Catalog => Effect::Catalog,
                    Placement::Local(shard) if self.home == Some(*shard) => Effect::Same,
                    Placement::Sharded { .. } | Placement::Local(_) | Placement::View => {
                        Effect::Procedural
                    }
                });
            }
        }
        worst
    }
}

/// Whether a source may write rows.
fn writes(text: &str, tokens: &[Token]) -> bool {
    let words = ["insert", "update", "delete", "merge", "truncate", "copy"];
    let mut tokens = tokens.iter();
    tokens.any(|token| words.iter().any(|word| token.is(text, word)))
}

/// What the statements in a source mean by the words that they begin with.
fn statements(text: &str, tokens: &[Token]) -> Effect {
    let is = |at: usize, words: &[&str]| {
        tokens
            .get(at)
            .is_some_and(|token| words.iter().any(|word| token.is(text, word)))
    };
    let mut worst = Effect::Same;
    for at in 0..tokens.len() {
        let begins = at == 0
            || tokens[at - 1].is_symbol(text, ";")
            || is(at - 1, &["begin", "then", "else", "loop"]);
        let leaves = (is(at, &["set"]) && !is(at + 1, &["local", "constraints", "transaction"]))
            || is(
                at,
                &[
                    "reset",
                    "discard",
                    "listen",
                    "unlisten",
                    "load",
                    "prepare",
                    "deallocate",
                ],
            )
            || (is(at, &["create"]) && is(at + 1, &["temp", "temporary", "local", "global"]));
        if begins && leaves {
            return Effect::Session;
        }
        // SQL that it makes itself.
        if is(at, &["execute"]) {
            worst = Effect::Procedural;
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::schema::{Relation, RelationKind};

    fn effect(language: &str, text: &str) -> Effect {
        let mut schema = Schema::default();
        for (name, placement) in [
            ("orders", Placement::View),
            ("codes", Placement::Reference),
            ("log", Placement::Local(ShardId(0))),
        ] {
            let relation = Relation::new("public", name, RelationKind::Table, placement);
            let within = schema.relations.entry("public".into()).or_default();
            within.insert(name.into(), Arc::new(relation));
        }
        let body = Body {
            language: language.into(),
            text: text.into(),
        };
        Judge::new(&schema).body(&body)
    }

    #[test]
    fn a_source_that_computes_is_as_it_is_said_to_be() {
        for text in [
            "SELECT $1 * 2",
            "SELECT name FROM codes c WHERE c.code = $1",
            "SELECT extract(year FROM $1), trim(both 'x' from $2)",
            "SELECT set_config('app.user', $1, true)",
            "BEGIN FOR i IN 1..3 LOOP r := r + i; END LOOP; RETURN r; END",
            "DECLARE o orders%ROWTYPE; BEGIN RETURN o; END",
            "BEGIN SET LOCAL work_mem = '1MB'; UPDATE codes SET name = 'x'; END",
        ] {
            assert_eq!(effect("plpgsql", text), Effect::Same, "{text}");
        }
        assert_eq!(effect("plpython3u", "return x.upper()"), Effect::Same);
    }

    #[test]
    fn a_source_that_reads_or_leaves_something_is_not() {
        for (text, expected) in [
            ("SELECT 1 FROM orders", Effect::Procedural),
            ("SELECT 1 FROM codes c, public.log", Effect::Procedural),
            ("SELECT relname FROM pg_catalog.pg_class", Effect::Same),
            ("BEGIN EXECUTE 'SELECT 1'; END", Effect::Procedural),
            ("SELECT pg_advisory_lock(1)", Effect::Session),
            ("SELECT set_config('a.b', 'true', false)", Effect::Session),
            (
                "BEGIN IF $1 THEN SET work_mem = '1MB'; END IF; END",
                Effect::Session,
            ),
            ("BEGIN CREATE TEMP TABLE t (a int); END", Effect::Session),
            ("BEGIN LISTEN x; END", Effect::Session),
            ("not ' closed", Effect::Procedural),
        ] {
            assert_eq!(effect("plpgsql", text), expected, "{text}");
        }
        assert_eq!(
            effect("plpython3u", "plpy.execute('x')"),
            Effect::Procedural
        );
    }
}

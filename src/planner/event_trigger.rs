//! Event triggers: DDL that runs on every shard fires them on each. Those whose functions look and complain at most are
//! let pass; what another would do is done once for each shard. PostgreSQL's chapter "Event Triggers".

use super::catalog_text::{self, calls, relations_named};
use super::function::Effect;
use super::refusal::{PlanError, Refusal};
use super::template::Context;
use crate::sql::lex::{self, Token};
use crate::sql::statement::{Maintenance, ObjectKind, Statement};
use crate::topology::schema::{EventTrigger, Placement, Schema};
use std::sync::Arc;

/// Words of statements that do something, wherever they stand.
const DOING: [&str; 24] = [
    "alter",
    "call",
    "close",
    "comment",
    "copy",
    "create",
    "deallocate",
    "delete",
    "discard",
    "drop",
    "execute",
    "grant",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "notify",
    "prepare",
    "reset",
    "revoke",
    "set",
    "truncate",
    "update",
];

/// Refuses a statement that fires an event trigger on every shard, or on the default one, which is not known to be
/// harmless there.
///
/// # Errors
/// [`Refusal::EventTrigger`].
pub(super) fn check(
    statement: &Statement<'_>,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<(), PlanError> {
    let topology = context.topology;
    if !topology.is_spread() || !fires(statement) {
        return Ok(());
    }
    if topology.schema.unloaded_event_triggers {
        return Err(PlanError::refused(
            Refusal::UnloadedTable,
            "the transaction has changed event triggers",
        ));
    }
    for trigger in &topology.schema.event_triggers {
        if trigger.tags.is_empty() || trigger.tags.iter().any(|tag| may_have(tag, sql, tokens)) {
            harmless(trigger, &topology.schema).map_err(|reason| {
                PlanError::refused(
                    Refusal::EventTrigger,
                    format!("the event trigger {} {reason}", trigger.name),
                )
            })?;
        }
    }
    Ok(())
}

/// Whether event triggers are fired by such statements at all: not by those about what all databases share, nor about
/// event triggers.
fn fires(statement: &Statement<'_>) -> bool {
    match statement {
        Statement::Ddl(ddl) => !matches!(
            ddl.object,
            Some(
                ObjectKind::Database
                    | ObjectKind::EventTrigger
                    | ObjectKind::Group
                    | ObjectKind::Role
                    | ObjectKind::System
                    | ObjectKind::Tablespace
                    | ObjectKind::User
            )
        ),
        Statement::CreateTableAs { .. } | Statement::Refresh(_) => true,
        Statement::Maintenance { command, .. } => *command == Maintenance::Reindex,
        _ => false,
    }
}

/// Whether a statement may have the command tag: its first word is the tag's, and the tag's last is in it.
fn may_have(tag: &str, sql: &str, tokens: &[Token]) -> bool {
    let mut words = tag.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    let last = words.last().unwrap_or(first);
    let is = |token: &Token, word: &str| token.is(sql, &word.to_ascii_lowercase());
    tokens.first().is_some_and(|token| is(token, first))
        && tokens.iter().any(|token| is(token, last))
}

/// Whether the function of an event trigger does the same on every shard, and no more on all than on one: it looks at
/// the command and at catalogs, and gives notices or an error, which undoes the command on all.
fn harmless(trigger: &EventTrigger, schema: &Schema) -> Result<(), String> {
    let function = &trigger.function;
    let (text, name) = (&*function.body, &function.name);
    if &*function.language != "plpgsql" {
        return Err(format!(
            "calls {name}(), which is in the language {}",
            function.language
        ));
    }
    let tokens = lex::lex(text, &catalog_text::LIMITS).map_err(|_| "cannot be read".to_owned())?;
    let is_doing = |token: &&Token| DOING.iter().any(|word| token.is(text, word));
    if let Some(token) = tokens.iter().find(is_doing) {
        return Err(format!(
            "does more than look at the command ({})",
            token.text(text).to_ascii_uppercase()
        ));
    }
    for relation in relations_named(text, schema).ok_or("cannot be read")? {
        if !matches!(
            relation.placement,
            Placement::Catalog | Placement::Reference
        ) {
            return Err(format!(
                "reads {}, which is not the same on every shard",
                relation.name
            ));
        }
    }
    let own = schema.user_functions.keys();
    let search_path: Vec<Arc<str>> = own.chain(schema.operators.keys()).cloned().collect();
    for (effect, called) in calls(text, schema, &search_path) {
        match effect {
            Effect::Same | Effect::Random | Effect::Time | Effect::Catalog => {}
            Effect::Designated if called.starts_with("pg_event_trigger_") => {}
            Effect::Designated | Effect::Unknown | Effect::Procedural | Effect::Session => {
                return Err(format!("calls {called}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: &str, sql: &str) -> bool {
        may_have(tag, sql, &lex::lex(sql, &catalog_text::LIMITS).unwrap())
    }

    #[test]
    fn a_tag_is_told_by_its_first_and_last_word() {
        assert!(tagged(
            "CREATE INDEX",
            "create unique index concurrently i on t (a)"
        ));
        assert!(tagged("DROP TABLE", "DROP TABLE IF EXISTS t"));
        assert!(tagged("GRANT", "GRANT SELECT ON t TO u"));
        assert!(tagged("CREATE TABLE AS", "CREATE TABLE t AS SELECT 1"));
        assert!(!tagged("CREATE TABLE AS", "CREATE TABLE t (a int)"));
        assert!(!tagged("DROP TABLE", "CREATE TABLE t (a int)"));
    }
}

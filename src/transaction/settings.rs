//! A session's settings on the backends that it leases: only what differs is sent, as bound values, never as spliced text.

use super::command::{self, CommandError};
use crate::backend::connection::Backend;
use crate::backend::defaults::SettingValues;
pub use crate::backend::pool::Custom;
use crate::sql::lex::quote_identifier;
use crate::sql::search_path;
use crate::sql::statement::IsolationLevel;
use std::sync::Arc;

/// Setting name (lower case) → value as PostgreSQL confirmed it.
pub type Settings = SettingValues;

/// Gives a customized setting that is not there the value that one has which was reset.
const CREATE: &str = "SELECT CASE WHEN pg_catalog.current_setting($1, true) IS NULL \
     THEN pg_catalog.set_config($1, '', false) END";

/// The setting that decides what the others may be: applied last, taken back first.
const ROLE: &str = "role";

/// Makes the backend's settings the session's, all of them or, where the shard refuses, none.
///
/// # Errors
/// [`CommandError`].
pub async fn apply(backend: &mut Backend, wanted: &Arc<Settings>) -> Result<(), CommandError> {
    if Arc::ptr_eq(&backend.applied, wanted) {
        return Ok(());
    }
    if backend.applied == *wanted {
        // The next time it is seen sooner.
        backend.applied = wanted.clone();
        return Ok(());
    }
    let applied = backend.applied.clone();
    let mut resets: Vec<&str> = applied
        .keys()
        .filter(|name| !wanted.contains_key(*name))
        .map(|name| &**name)
        .collect();
    if applied.get(ROLE) != wanted.get(ROLE)
        && applied.contains_key(ROLE)
        && !resets.contains(&ROLE)
    {
        resets.push(ROLE);
    }
    resets.sort_by_key(|name| *name != ROLE);
    let mut changes: Vec<(&str, &str)> = wanted
        .iter()
        .filter(|(name, value)| applied.get(*name) != Some(value))
        .map(|(name, value)| (&**name, &**value))
        .collect();
    changes.sort_by_key(|(name, _)| *name == ROLE);
    for name in resets {
        command::write_apart(backend, &format!("RESET {}", quoted(name)), &[]);
    }
    if !changes.is_empty() {
        let calls: Vec<String> = (0..changes.len())
            .map(|index| {
                format!(
                    "pg_catalog.set_config(${}, ${}, false)",
                    2 * index + 1,
                    2 * index + 2
                )
            })
            .collect();
        let changes = changes.iter();
        let values: Vec<&str> = changes.flat_map(|(name, value)| [*name, *value]).collect();
        command::write_apart(backend, &format!("SELECT {}", calls.join(", ")), &values);
    }
    command::answer_apart(backend).await?;
    backend.applied = wanted.clone();
    Ok(())
}

/// Whether the backend is known to be set like this, so that neither [`apply`] nor [`create_custom`] would do anything.
pub fn are_applied(backend: &Backend, wanted: &Arc<Settings>, custom: &Arc<Custom>) -> bool {
    let none = backend.custom.is_empty() && custom.is_empty();
    Arc::ptr_eq(&backend.applied, wanted) && (none || Arc::ptr_eq(&backend.custom_made, custom))
}

/// Has a backend that is fit know all of the session's customized settings: those that the session has reset are there
/// still, and empty.
///
/// # Errors
/// As [`apply`].
pub async fn create_custom(
    backend: &mut Backend,
    custom: &Arc<Custom>,
    wanted: &Settings,
) -> Result<(), CommandError> {
    if custom.is_empty() || Arc::ptr_eq(&backend.custom_made, custom) {
        return Ok(());
    }
    let known = backend.custom_made.clone();
    let missing = custom
        .iter()
        .filter(|name| !known.contains(*name) && !wanted.contains_key(*name));
    for name in missing {
        command::write_apart(backend, CREATE, &[name]);
        match command::answer_apart(backend).await {
            // A name that it does not take is not there for the session either.
            Ok(_) | Err(CommandError::Refused(_)) => {}
            Err(lost @ CommandError::Lost { .. }) => return Err(lost),
        }
    }
    backend.custom = custom.clone();
    backend.custom_made = custom.clone();
    Ok(())
}

/// What transactions are isolated by unless they say otherwise.
pub fn default_isolation(settings: &Settings) -> Option<IsolationLevel> {
    let level = settings.get("default_transaction_isolation");
    level.and_then(|level| IsolationLevel::named(level))
}

/// Whether transactions see one snapshot from begin to end unless they say otherwise.
pub fn snapshot_by_default(settings: &Settings) -> bool {
    default_isolation(settings).is_some_and(IsolationLevel::has_snapshot)
}

/// Whether a setting may be one that PostgreSQL makes when it is set.
pub fn is_custom(name: &str) -> bool {
    name.contains('.')
}

/// A setting's name as an identifier; each part of `a.b` by itself.
pub fn quoted(name: &str) -> String {
    name.split('.')
        .map(quote_identifier)
        .collect::<Vec<_>>()
        .join(".")
}

/// A string literal, under standard_conforming_strings.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Settings whose value is a list of names, each of which SET would quote where it must be.
const NAME_LISTS: [&str; 4] = [
    "search_path",
    "temp_tablespaces",
    "session_preload_libraries",
    "local_preload_libraries",
];

/// The statement that sets a setting to a value as PostgreSQL shows it: SET, which takes no snapshot, where it can say
/// the value.
pub fn set_statement(name: &str, value: &str, local: bool) -> String {
    let scope = if local { "LOCAL" } else { "SESSION" };
    if !NAME_LISTS.contains(&name) {
        return format!("SET {scope} {} TO {}", quoted(name), literal(value));
    }
    // `$user` stays what it is.
    let names = search_path::parse(value, "$user").unwrap_or_default();
    let quoted: Vec<String> = names.iter().map(|name| quote_identifier(name)).collect();
    let shown: Vec<&str> = names
        .iter()
        .zip(&quoted)
        .map(|(name, quoted)| if is_plain(name) { name } else { &**quoted })
        .collect();
    if names.is_empty() || shown.join(", ") != value {
        return set_config_statement(name, value, local);
    }
    format!(
        "SET {scope} {} TO {}",
        self::quoted(name),
        quoted.join(", ")
    )
}

/// Whether a name means itself without quotes.
fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name
            .chars()
            .all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_')
}

/// The same by a function, which says any value, and takes a snapshot.
pub fn set_config_statement(name: &str, value: &str, local: bool) -> String {
    format!(
        "SELECT pg_catalog.set_config({}, {}, {local})",
        literal(name),
        literal(value)
    )
}

/// The statement that shows a setting, or NULL if there is none of the name.
pub fn current_setting_statement(name: &str) -> String {
    format!("SELECT pg_catalog.current_setting({}, true)", literal(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_set_to_what_postgresql_shows() {
        let cases = [
            ("work_mem", "5MB", true, "SET LOCAL \"work_mem\" TO '5MB'"),
            (
                "my.own",
                "it's",
                false,
                "SET SESSION \"my\".\"own\" TO 'it''s'",
            ),
            (
                "datestyle",
                "ISO, DMY",
                false,
                "SET SESSION \"datestyle\" TO 'ISO, DMY'",
            ),
            (
                "search_path",
                "app, public",
                true,
                "SET LOCAL \"search_path\" TO \"app\", \"public\"",
            ),
            (
                "search_path",
                "\"$user\", public",
                false,
                "SET SESSION \"search_path\" TO \"$user\", \"public\"",
            ),
            (
                "search_path",
                "PUBLIC, app",
                true,
                "SELECT pg_catalog.set_config('search_path', 'PUBLIC, app', true)",
            ),
            (
                "search_path",
                "",
                false,
                "SELECT pg_catalog.set_config('search_path', '', false)",
            ),
        ];
        for (name, value, local, sql) in cases {
            assert_eq!(set_statement(name, value, local), sql);
        }
    }
}

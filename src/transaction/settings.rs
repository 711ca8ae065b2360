//! A session's settings on the backends that it leases: only what differs is sent, as bound values, never as spliced text.

use super::command::{self, CommandError};
use crate::backend::connection::Backend;
use crate::wire::frontend_message;
use crate::wire::frontend_message::Target;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Setting name (lower case) → value as PostgreSQL confirmed it.
pub type Settings = BTreeMap<Arc<str>, Arc<str>>;

/// Names of customized settings.
pub type Custom = BTreeSet<Arc<str>>;

/// Gives a customized setting that is not there the value that one has which was reset.
const CREATE: &str = "SELECT CASE WHEN pg_catalog.current_setting($1, true) IS NULL \
     THEN pg_catalog.set_config($1, '', false) END";

/// The setting that decides what the others may be: applied last, taken back first.
const ROLE: &str = "role";

/// Makes the backend's settings the session's.
///
/// # Errors
/// [`CommandError`]; what was applied is not known then, so the lease must be dropped.
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
    if !resets.is_empty() {
        resets.sort_by_key(|name| *name != ROLE);
        let statements: Vec<String> = resets
            .iter()
            .map(|name| format!("RESET {}", quoted(name)))
            .collect();
        command::run(backend, &statements.join("; ")).await?;
    }
    let mut changes: Vec<(&str, &str)> = wanted
        .iter()
        .filter(|(name, value)| applied.get(*name) != Some(value))
        .map(|(name, value)| (&**name, &**value))
        .collect();
    if !changes.is_empty() {
        changes.sort_by_key(|(name, _)| *name == ROLE);
        set(backend, &changes).await?;
    }
    backend.applied = wanted.clone();
    Ok(())
}

/// Whether the backend shows a session with these customized settings none that another left.
pub fn is_fit(backend: &Backend, custom: &Arc<Custom>) -> bool {
    backend.custom.is_empty()
        || Arc::ptr_eq(&backend.custom, custom)
        || backend.custom.is_subset(custom)
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
    if custom.is_empty() || Arc::ptr_eq(&backend.custom, custom) {
        return Ok(());
    }
    let known = backend.custom.clone();
    let missing = custom
        .iter()
        .filter(|name| !known.contains(*name) && !wanted.contains_key(*name));
    for name in missing {
        let out = backend.stream.out();
        frontend_message::write_parse(out, "", CREATE, &[]);
        frontend_message::write_bind(out, "", "", [], [Some(name.as_bytes())], []);
        frontend_message::write_execute(out, "", 0);
        frontend_message::write_close(out, Target::Statement, "");
        frontend_message::write_sync(out);
        backend.forget_unnamed();
        match command::answer(backend).await {
            // A name that it does not take is not there for the session either.
            Ok(_) | Err(CommandError::Refused(_)) => {}
            Err(lost @ CommandError::Lost { .. }) => return Err(lost),
        }
    }
    backend.custom = custom.clone();
    Ok(())
}

async fn set(backend: &mut Backend, changes: &[(&str, &str)]) -> Result<(), CommandError> {
    let calls: Vec<String> = (0..changes.len())
        .map(|index| {
            format!(
                "pg_catalog.set_config(${}, ${}, false)",
                2 * index + 1,
                2 * index + 2
            )
        })
        .collect();
    let out = backend.stream.out();
    frontend_message::write_parse(out, "", &format!("SELECT {}", calls.join(", ")), &[]);
    let values = changes
        .iter()
        .flat_map(|(name, value)| [Some(name.as_bytes()), Some(value.as_bytes())]);
    frontend_message::write_bind(out, "", "", [], values, []);
    frontend_message::write_execute(out, "", 0);
    frontend_message::write_close(out, Target::Statement, "");
    frontend_message::write_sync(out);
    backend.forget_unnamed();
    command::answer(backend).await.map(|_| ())
}

/// Whether a setting may be one that PostgreSQL makes when it is set.
pub fn is_custom(name: &str) -> bool {
    name.contains('.')
}

/// A setting's name as an identifier; each part of `a.b` by itself.
pub fn quoted(name: &str) -> String {
    name.split('.')
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect::<Vec<_>>()
        .join(".")
}

//! A session's settings on the backends that it leases: only what differs is sent, as bound values, never as spliced text.

use super::command::{self, CommandError};
use crate::backend::connection::Backend;
use crate::wire::frontend_message;
use crate::wire::frontend_message::Target;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Setting name (lower case) → value as PostgreSQL confirmed it.
pub type Settings = BTreeMap<Arc<str>, Arc<str>>;

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

/// A setting's name as an identifier; each part of `a.b` by itself.
pub fn quoted(name: &str) -> String {
    name.split('.')
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect::<Vec<_>>()
        .join(".")
}

//! [`Foreseeable`]: settings that a shard need not be asked about again, so that a block which begins with SET LOCAL takes
//! no connection for it: the shards hear of it when they join.

use crate::sql::statement::{SetArgument, SetValue};
use crate::transaction::settings;
use std::fmt;
use std::sync::Arc;

/// How many names and values are remembered; those that are used least are forgotten.
const REMEMBERED: usize = 4096;

/// Settings whose values PostgreSQL checks by themselves: whoever sets them, wherever, and whatever else is set. Not among
/// them: what the session's role, the catalogs or other settings have a say in, and timeouts of the block itself, which
/// run on the shard.
const NAMES: [&str; 8] = [
    "lock_timeout",
    "search_path",
    "statement_timeout",
    "synchronous_commit",
    "work_mem",
    "random_page_cost",
    "effective_cache_size",
    "jit",
];

/// What PostgreSQL has taken so far. Shared by all sessions.
pub struct Foreseeable {
    /// Name and value, as they were said → what is shown then. A customized setting takes any value: it is here without
    /// one.
    taken: quick_cache::sync::Cache<(Arc<str>, String), Arc<str>>,
}

impl Default for Foreseeable {
    fn default() -> Self {
        Self {
            taken: quick_cache::sync::Cache::new(REMEMBERED),
        }
    }
}

impl fmt::Debug for Foreseeable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Foreseeable({} settings)", self.taken.len())
    }
}

impl Foreseeable {
    /// What would be shown after this, if that is certain. A customized setting that a library turns out to have defined
    /// may still be refused when a shard joins.
    pub fn shown(&self, name: &str, value: &SetValue<'_>) -> Option<Arc<str>> {
        let taken = self.taken.get(&key(name, value)?)?;
        match (settings::is_custom(name), value) {
            (false, _) => Some(taken),
            (true, SetValue::Values(values)) => match values.as_slice() {
                [SetArgument::Text(text)] => Some(text.as_ref().into()),
                [SetArgument::Number(number)] => Some(number.as_str().into()),
                _ => None,
            },
            (true, SetValue::Default | SetValue::Current | SetValue::Interval(_)) => None,
        }
    }

    /// Remembers what a shard has taken, and shows.
    pub fn learn(&self, name: &str, value: &SetValue<'_>, shown: &Arc<str>) {
        if let Some(key) = key(name, value) {
            self.taken.insert(key, shown.clone());
        }
    }
}

fn key(name: &str, value: &SetValue<'_>) -> Option<(Arc<str>, String)> {
    let SetValue::Values(values) = value else {
        return None;
    };
    let said = match settings::is_custom(name) {
        true => String::new(),
        false if NAMES.contains(&name) => format!("{values:?}"),
        false => return None,
    };
    Some((name.into(), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> SetValue<'_> {
        SetValue::Values(vec![SetArgument::Text(text.into())])
    }

    fn shown(foreseeable: &Foreseeable, name: &str, value: &str) -> Option<String> {
        let shown = foreseeable.shown(name, &text(value));
        shown.map(|shown| shown.to_string())
    }

    #[test]
    fn what_was_taken_is_taken_again() {
        let foreseeable = Foreseeable::default();
        assert_eq!(shown(&foreseeable, "work_mem", "1024kB"), None);
        foreseeable.learn("work_mem", &text("1024kB"), &"1MB".into());
        assert_eq!(
            shown(&foreseeable, "work_mem", "1024kB").as_deref(),
            Some("1MB")
        );
        assert_eq!(shown(&foreseeable, "work_mem", "lots"), None);
        assert_eq!(foreseeable.shown("work_mem", &SetValue::Default), None);
    }

    #[test]
    fn a_setting_of_ones_own_takes_any_value() {
        let foreseeable = Foreseeable::default();
        foreseeable.learn("my.tenant", &text("a"), &"a".into());
        assert_eq!(shown(&foreseeable, "my.tenant", "b").as_deref(), Some("b"));
        assert_eq!(shown(&foreseeable, "my.other", "b"), None);
        let list = vec![SetArgument::Text("a".into()), SetArgument::Text("b".into())];
        assert_eq!(
            foreseeable.shown("my.tenant", &SetValue::Values(list)),
            None
        );
    }

    #[test]
    fn what_others_have_a_say_in_is_asked_each_time() {
        let foreseeable = Foreseeable::default();
        for name in ["role", "datestyle", "session_replication_role"] {
            foreseeable.learn(name, &text("a"), &"a".into());
            assert_eq!(shown(&foreseeable, name, "a"), None, "{name}");
        }
    }
}

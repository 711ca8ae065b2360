//! [`Defaults`]: the settings that decide what a statement means or how its rows are printed, as one role has them on the
//! default shard. Every shard is logged in to with these, whatever its database or the role has there, so that rows of
//! several shards are read and printed alike. Must not know what a client has set.

use arc_swap::ArcSwapOption;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Setting name (lower case) → value as PostgreSQL shows it.
pub type SettingValues = BTreeMap<Arc<str>, Arc<str>>;

/// What each shard is told at login, and RESET goes back to, whatever role and database say: the router reads and writes SQL
/// that way.
pub const FIXED: [(&str, &str); 2] = [
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
];

/// The settings of PostgreSQL 15 that a role may set for itself and that change what a statement means or what its rows
/// look like. Left to each shard is what can at most make a statement fail, slow or loud there: limits, planner settings,
/// `default_transaction_read_only` and `row_security` (a difference is an error, and may be meant), messages
/// (`client_min_messages`, `lc_messages`), where and how things are stored (`default_tablespace`, `synchronous_commit`).
pub const NAMES: [&str; 17] = [
    // How values are printed, and some of them read.
    "bytea_output",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "quote_all_identifiers",
    "timezone",
    "xmlbinary",
    // What a text means.
    "array_nulls",
    "default_text_search_config",
    "search_path",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
    // What a transaction sees.
    "default_transaction_isolation",
];

/// The one setting of which a part may be set.
pub const DATE_STYLE: &str = "datestyle";

/// SQL for the values of [`NAMES`] in that order. Each is set to what it is: a value of the session's own does not change
/// when the server's configuration is loaded again.
pub(super) fn select_list() -> String {
    let column = |name: &&str| {
        format!("pg_catalog.set_config('{name}', pg_catalog.current_setting('{name}'), false)")
    };
    let columns: Vec<String> = NAMES.iter().map(column).collect();
    columns.join(", ")
}

/// One role's defaults, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    known: ArcSwapOption<Known>,
    /// A part of DateStyle → the whole that a login has which asks for it. There are few parts.
    date_styles: Mutex<BTreeMap<&'static str, Arc<str>>>,
}

#[derive(Debug)]
struct Known {
    values: Arc<SettingValues>,
    of_default_shard: bool,
}

impl Defaults {
    /// What is known.
    pub(super) fn known(&self) -> Option<Arc<SettingValues>> {
        self.known.load().as_ref().map(|known| known.values.clone())
    }

    /// What the default shard said.
    pub(super) fn settled(&self) -> Option<Arc<SettingValues>> {
        let known = self.known.load();
        let settled = known.as_ref().filter(|known| known.of_default_shard);
        settled.map(|known| known.values.clone())
    }

    /// What is known of logins that ask for a part of DateStyle.
    pub(super) fn date_styles(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<str>>> {
        let known = self.date_styles.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a shard showed to a login that set nothing: the default shard's word counts, and that of the first
    /// other one as long as the default shard has said nothing.
    pub(super) fn note(&self, shard: &str, is_default_shard: bool, values: &Arc<SettingValues>) {
        let known = self.known.load();
        let is_news = match known.as_deref() {
            None => true,
            Some(known) => is_default_shard && (known.values != *values || !known.of_default_shard),
        };
        if !is_news {
            return;
        }
        if !is_default_shard {
            tracing::warn!(
                shard,
                "the default shard has not said yet how a role's values are printed: as on this shard meanwhile"
            );
        }
        self.date_styles().clear();
        self.known.store(Some(Arc::new(Known {
            values: values.clone(),
            of_default_shard: is_default_shard,
        })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(style: &str) -> Arc<SettingValues> {
        Arc::new([("datestyle".into(), style.into())].into())
    }

    #[test]
    fn the_default_shards_word_counts_and_the_first_others_until_then() {
        let defaults = Defaults::default();
        assert_eq!(defaults.known(), None);
        defaults.note("s1", false, &values("German"));
        defaults.note("s2", false, &values("SQL"));
        assert_eq!(defaults.known(), Some(values("German")));
        defaults.note("s0", true, &values("ISO"));
        defaults.note("s1", false, &values("German"));
        assert_eq!(defaults.known(), Some(values("ISO")));
        defaults.note("s0", true, &values("SQL"));
        assert_eq!(defaults.known(), Some(values("SQL")));
    }

    #[test]
    fn names_are_as_settings_are_kept() {
        for name in NAMES {
            assert_eq!(name, name.to_ascii_lowercase());
            assert!(FIXED.iter().all(|(fixed, _)| *fixed != name));
        }
    }
}

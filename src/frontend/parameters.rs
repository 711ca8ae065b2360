//! A session's settings as the router keeps them: set and rolled back as PostgreSQL would, replayed on the backends
//! that the session leases. Pure.

use crate::transaction::settings::{self, Custom, Settings};
use std::sync::Arc;

/// Settings with this prefix are the router's own and never reach a shard.
pub const ROUTER_PREFIX: &str = "pgring.";
/// The setting of the router's own that says what a query over several shards sees,
pub const SNAPSHOT: &str = "pgring.snapshot";
/// what each shard sees by itself, which is the default,
pub const PER_SHARD: &str = "shard";
/// or every distributed transaction whole or not at all.
pub const CONSISTENT: &str = "consistent";

/// The values at one point of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Values {
    /// For the shards, of the session: in force after the block, if it commits.
    shard: Arc<Settings>,
    /// For the shards, SET LOCAL: in force instead, and gone with the block.
    local: Arc<Settings>,
    /// Those of them that SET LOCAL … TO DEFAULT has set: RESET ALL passes over what is at its default.
    local_defaults: Arc<Custom>,
    /// Those of the session with those of the block over them.
    in_force: Arc<Settings>,
    /// `pgring.*`, of the session.
    router: Arc<Settings>,
    /// `pgring.*`, SET LOCAL: gone with the block.
    router_local: Arc<Settings>,
}

/// A session's settings.
#[derive(Debug, Default)]
pub struct Parameters {
    startup: Arc<Settings>,
    router_startup: Arc<Settings>,
    /// Customized settings that were set at some time.
    custom: Arc<Custom>,
    now: Values,
    /// The values when the block began, and at each savepoint.
    marks: Vec<(Option<String>, Values)>,
}

impl Parameters {
    /// The settings that a client asked for at login, those for the shards and the router's own; RESET returns to them.
    pub fn new(startup: Arc<Settings>, router: Arc<Settings>) -> Self {
        let custom = startup.keys().filter(|name| settings::is_custom(name));
        Self {
            custom: Arc::new(custom.cloned().collect()),
            now: Values {
                shard: startup.clone(),
                in_force: startup.clone(),
                router: router.clone(),
                ..Values::default()
            },
            startup,
            router_startup: router,
            marks: Vec::new(),
        }
    }

    /// What the session's backends must be set to outside a block; in one, once it commits.
    pub fn shard_settings(&self) -> &Arc<Settings> {
        &self.now.shard
    }

    /// The same before the block began, if there is one: what a backend must be set to before its BEGIN.
    pub fn before_block(&self) -> &Arc<Settings> {
        let before = self.marks.first().map(|(_, values)| &values.shard);
        before.unwrap_or(&self.now.shard)
    }

    /// What is in force now, whether it stays after the block or not.
    pub fn in_force(&self) -> &Arc<Settings> {
        &self.now.in_force
    }

    /// What the client logged in with.
    pub fn startup(&self) -> &Arc<Settings> {
        &self.startup
    }

    /// The customized settings that were set at some time: reset or rolled back, PostgreSQL has them still, empty.
    pub fn custom(&self) -> &Arc<Custom> {
        &self.custom
    }

    /// Notes that a setting is about to be set, if it is a customized one. Whether that is news.
    pub fn note_custom(&mut self, name: &str) -> bool {
        if !settings::is_custom(name) || self.custom.contains(name) {
            return false;
        }
        Arc::make_mut(&mut self.custom).insert(name.into())
    }

    /// The value of a `pgring.*` setting; None if it is empty.
    pub fn router_setting(&self, name: &str) -> Option<&Arc<str>> {
        let local = self.now.router_local.get(name);
        let value = local.or_else(|| self.now.router.get(name));
        value.filter(|value| !value.is_empty())
    }

    /// Whether snapshots of several shards are to agree.
    pub fn is_consistent(&self) -> bool {
        let snapshot = self.router_setting(SNAPSHOT);
        snapshot.is_some_and(|snapshot| **snapshot == *CONSISTENT)
    }

    /// SET: the value that PostgreSQL confirmed. What the block set of it for itself is over.
    pub fn set(&mut self, name: &str, value: &str) {
        Arc::make_mut(&mut self.now.shard).insert(name.into(), value.into());
        self.forget_local(name);
    }

    /// SET LOCAL: the value that PostgreSQL confirmed.
    pub fn set_local(&mut self, name: &str, value: &str) {
        self.forget_local(name);
        Arc::make_mut(&mut self.now.local).insert(name.into(), value.into());
        self.overlay();
    }

    /// SET LOCAL … TO DEFAULT: the default as PostgreSQL shows it.
    pub fn set_local_default(&mut self, name: &str, value: &str) {
        self.set_local(name, value);
        Arc::make_mut(&mut self.now.local_defaults).insert(name.into());
    }

    /// What RESET ALL passes over.
    pub fn local_defaults(&self) -> &Arc<Custom> {
        &self.now.local_defaults
    }

    /// Whether the block has set it for itself.
    pub fn is_local(&self, name: &str) -> bool {
        self.now.local.contains_key(name)
    }

    fn forget_local(&mut self, name: &str) {
        if self.is_local(name) {
            Arc::make_mut(&mut self.now.local).remove(name);
        }
        if self.now.local_defaults.contains(name) {
            Arc::make_mut(&mut self.now.local_defaults).remove(name);
        }
        self.overlay();
    }

    fn overlay(&mut self) {
        self.now.in_force = if self.now.local.is_empty() {
            self.now.shard.clone()
        } else {
            let mut in_force = Settings::clone(&self.now.shard);
            let local = self.now.local.iter();
            in_force.extend(local.map(|(name, value)| (name.clone(), value.clone())));
            Arc::new(in_force)
        };
    }

    /// RESET or SET … TO DEFAULT.
    pub fn reset(&mut self, name: &str) {
        if name.starts_with(ROUTER_PREFIX) {
            let settings = Arc::make_mut(&mut self.now.router);
            match self.router_startup.get(name) {
                Some(value) => settings.insert(name.into(), value.clone()),
                None => settings.remove(name),
            };
            Arc::make_mut(&mut self.now.router_local).remove(name);
            return;
        }
        let settings = Arc::make_mut(&mut self.now.shard);
        match self.startup.get(name) {
            Some(value) => settings.insert(name.into(), value.clone()),
            None => settings.remove(name),
        };
        self.forget_local(name);
    }

    /// RESET ALL. As in PostgreSQL the role stays, and what the block has set to its default, which will be the session's
    /// value again.
    pub fn reset_all(&mut self) {
        let defaults = self.now.local_defaults.clone();
        let stays = |name: &str| name == "role" || defaults.contains(name);
        let kept = |settings: &Settings| -> Settings {
            let kept = settings.iter().filter(|(name, _)| stays(name));
            kept.map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        let (session, local) = (kept(&self.now.shard), kept(&self.now.local));
        let mut shard = self.startup.clone();
        if !session.is_empty() || defaults.iter().any(|name| shard.contains_key(name)) {
            let shard = Arc::make_mut(&mut shard);
            shard.retain(|name, _| !stays(name) || name.as_ref() == "role");
            shard.extend(session);
        }
        self.now = Values {
            shard,
            local: Arc::new(local),
            local_defaults: defaults,
            router: self.router_startup.clone(),
            ..Values::default()
        };
        self.overlay();
    }

    /// SET of a `pgring.*` setting.
    pub fn set_router(&mut self, name: &str, value: &str, local: bool) {
        let settings = if local {
            &mut self.now.router_local
        } else {
            &mut self.now.router
        };
        Arc::make_mut(settings).insert(name.into(), value.into());
        if !local {
            Arc::make_mut(&mut self.now.router_local).remove(name);
        }
    }

    /// A block begins.
    pub fn begin(&mut self) {
        if self.marks.is_empty() {
            self.marks.push((None, self.now.clone()));
        }
    }

    /// A savepoint.
    pub fn savepoint(&mut self, name: &str) {
        self.marks.push((Some(name.to_owned()), self.now.clone()));
    }

    /// ROLLBACK TO.
    pub fn rollback_to(&mut self, name: &str) {
        if let Some(position) = self.mark(name) {
            self.marks.truncate(position + 1);
            self.now = self.marks[position].1.clone();
        }
    }

    /// RELEASE.
    pub fn release(&mut self, name: &str) {
        if let Some(position) = self.mark(name) {
            self.marks.truncate(position);
        }
    }

    fn mark(&self, name: &str) -> Option<usize> {
        self.marks
            .iter()
            .rposition(|(mark, _)| mark.as_deref() == Some(name))
    }

    /// The block ends.
    pub fn end(&mut self, committed: bool) {
        let first = self.marks.drain(..).next();
        match first {
            Some((_, values)) if !committed => self.now = values,
            _ => {}
        }
        if !self.now.router_local.is_empty() {
            self.now.router_local = Arc::default();
        }
        if !self.now.local.is_empty() {
            self.now.local = Arc::default();
            self.now.local_defaults = Arc::default();
            self.overlay();
        }
    }
}

/// What a login asks of DateStyle, of which a part may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DateStyle {
    style: Option<&'static str>,
    order: Option<&'static str>,
}

impl DateStyle {
    /// Reads it as PostgreSQL would; None where PostgreSQL must say what it means or what is wrong.
    pub fn read(asked: &str) -> Option<Self> {
        let mut read = Self::default();
        for word in asked.split(',') {
            let word = word.trim().to_ascii_lowercase();
            let (known, place) = match word.as_str() {
                "iso" => ("ISO", &mut read.style),
                "sql" => ("SQL", &mut read.style),
                "german" => ("German", &mut read.style),
                word if word.starts_with("postgres") => ("Postgres", &mut read.style),
                "ymd" => ("YMD", &mut read.order),
                "mdy" | "us" => ("MDY", &mut read.order),
                word if word.starts_with("noneuro") => ("MDY", &mut read.order),
                "dmy" => ("DMY", &mut read.order),
                word if word.starts_with("euro") => ("DMY", &mut read.order),
                _ => return None,
            };
            if place.is_some_and(|before| before != known) {
                return None;
            }
            *place = Some(known);
        }
        if read.style == Some("German") {
            read.order = read.order.or(Some("DMY"));
        }
        Some(read)
    }

    /// How PostgreSQL shows it; what was left out is the server's to say.
    pub fn complete(self) -> Result<String, &'static str> {
        match (self.style, self.order) {
            (Some(style), Some(order)) => Ok(format!("{style}, {order}")),
            (Some(part), None) | (None, Some(part)) => Err(part),
            (None, None) => Err(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
        parameters.shard_settings().get(name).map(|value| &**value)
    }

    #[test]
    fn a_rollback_returns_to_the_values_before_the_block() {
        let mut parameters = Parameters::default();
        parameters.set("a", "1");
        parameters.begin();
        parameters.set("a", "2");
        parameters.savepoint("s");
        parameters.set("a", "3");
        parameters.rollback_to("s");
        assert_eq!(value(&parameters, "a"), Some("2"));
        parameters.end(false);
        assert_eq!(value(&parameters, "a"), Some("1"));
        parameters.begin();
        parameters.set("a", "4");
        parameters.end(true);
        assert_eq!(value(&parameters, "a"), Some("4"));
    }

    #[test]
    fn a_date_style_may_be_asked_for_in_part() {
        let cases = [
            ("ISO", Some(Err("ISO"))),
            ("european", Some(Err("DMY"))),
            ("German", Some(Ok("German, DMY"))),
            ("german , Us", Some(Ok("German, MDY"))),
            ("YMD, Postgresql", Some(Ok("Postgres, YMD"))),
            ("ISO, SQL", None),
            ("default", None),
            ("", None),
        ];
        for (asked, shown) in cases {
            let read = DateStyle::read(asked).map(DateStyle::complete);
            let shown = shown.map(|shown| shown.map(str::to_owned));
            assert_eq!(read, shown, "{asked}");
        }
    }

    #[test]
    fn what_a_block_sets_for_itself_is_over_with_it_or_with_what_is_set_for_the_session() {
        let in_force = |parameters: &Parameters| {
            let value = parameters.in_force().get("a");
            value.map(|value| value.to_string()).unwrap_or_default()
        };
        let mut parameters = Parameters::default();
        parameters.set("a", "1");
        parameters.begin();
        parameters.set_local("a", "2");
        parameters.savepoint("s");
        assert_eq!(in_force(&parameters), "2");
        parameters.set("a", "3");
        assert_eq!(in_force(&parameters), "3");
        parameters.rollback_to("s");
        assert_eq!(in_force(&parameters), "2");
        parameters.reset("a");
        assert_eq!(in_force(&parameters), "");
        parameters.rollback_to("s");
        parameters.reset_all();
        assert_eq!(in_force(&parameters), "");
        parameters.rollback_to("s");
        assert_eq!(
            parameters.before_block().get("a"),
            Some(&Arc::<str>::from("1"))
        );
        parameters.end(true);
        assert_eq!(in_force(&parameters), "1");
    }

    #[test]
    fn reset_all_passes_over_what_the_block_has_at_its_default() {
        let startup = Arc::new([("b".into(), "0".into())].into());
        let mut parameters = Parameters::new(startup, Arc::default());
        for name in ["a", "b", "c"] {
            parameters.set(name, "1");
        }
        parameters.begin();
        parameters.set_local_default("a", "0");
        parameters.set_local_default("b", "0");
        parameters.reset_all();
        assert_eq!(value(&parameters, "c"), None);
        let in_force = parameters.in_force();
        assert_eq!(in_force.get("a").map(|value| &**value), Some("0"));
        parameters.end(true);
        assert_eq!(value(&parameters, "a"), Some("1"));
        assert_eq!(value(&parameters, "b"), Some("1"));
        parameters.begin();
        parameters.set_local_default("a", "0");
        parameters.set_local("a", "2");
        parameters.reset_all();
        parameters.end(true);
        assert_eq!(value(&parameters, "a"), None);
    }

    #[test]
    fn reset_returns_to_what_the_client_logged_in_with() {
        let mut parameters = Parameters::new(
            Arc::new([("timezone".into(), "UTC".into())].into()),
            Arc::default(),
        );
        parameters.set("timezone", "CET");
        parameters.set("x", "1");
        parameters.reset("timezone");
        assert_eq!(value(&parameters, "timezone"), Some("UTC"));
        parameters.reset_all();
        assert_eq!(value(&parameters, "x"), None);
    }

    #[test]
    fn a_router_setting_of_the_login_is_what_reset_returns_to() {
        let startup = Arc::new([("pgring.shard".into(), "s1".into())].into());
        let mut parameters = Parameters::new(Arc::default(), startup);
        let shard = |parameters: &Parameters| {
            let shard = parameters.router_setting("pgring.shard");
            shard.map(|shard| shard.to_string())
        };
        assert_eq!(shard(&parameters).as_deref(), Some("s1"));
        parameters.set_router("pgring.shard", "", false);
        assert_eq!(shard(&parameters), None);
        parameters.reset("pgring.shard");
        assert_eq!(shard(&parameters).as_deref(), Some("s1"));
        parameters.begin();
        parameters.set_router("pgring.shard", "", true);
        assert_eq!(shard(&parameters), None);
        parameters.end(true);
        assert_eq!(shard(&parameters).as_deref(), Some("s1"));
        parameters.set_router("pgring.shard", "s2", false);
        parameters.reset_all();
        assert_eq!(shard(&parameters).as_deref(), Some("s1"));
    }

    #[test]
    fn a_local_router_setting_ends_with_its_block() {
        let mut parameters = Parameters::default();
        parameters.set_router("pgring.shard", "s0", false);
        parameters.begin();
        parameters.set_router("pgring.shard", "s1", true);
        assert_eq!(
            parameters
                .router_setting("pgring.shard")
                .map(|value| &**value),
            Some("s1")
        );
        parameters.end(true);
        assert_eq!(
            parameters
                .router_setting("pgring.shard")
                .map(|value| &**value),
            Some("s0")
        );
    }
}

//! What a session's transaction block is in, and what a shard that joins later must be told first. Pure.
//!
//! Follows PostgreSQL's chapters on transactions and savepoints: an error fails the block, COMMIT of a failed block is
//! ROLLBACK, ROLLBACK TO revives it. What was set is kept as the statements that set it, in their order, so that a later
//! shard comes to the very state of the others, whatever is rolled back after that.

use super::deadlock::Mark;
use super::settings::Custom;
use crate::sql::statement::TransactionModes;
use crate::wire::backend_message::TransactionStatus;
use std::sync::Arc;

/// What an entry takes beside its text, about.
const ENTRY_BYTES: usize = 64;

/// The setting that decides what others may be, and the one by which names in SET CONSTRAINTS are looked up: what was
/// set under them must be set under them again.
const ORDERED: [&str; 2] = ["role", "search_path"];

/// Where a session stands between two statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No block.
    Idle,
    /// A block of the router's own around one message or string that the client sees as one transaction.
    Implicit,
    /// A block that the client opened.
    Open,
    /// A block in which something failed; only its end or a savepoint helps.
    Failed,
}

/// What the block has done, since its BEGIN, that every shard of it must know.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Setting {
        name: Arc<str>,
        local: bool,
        sql: String,
    },
    /// RESET ALL, with what the client logged in with.
    ResetAll {
        sql: String,
        /// What it passes over.
        kept: Arc<Custom>,
    },
    Constraints(String),
    /// A mode that was set after a savepoint: it ends with the savepoint, even a released one.
    Mode(String),
    Savepoint {
        name: String,
        sql: String,
        /// The block's modes when it was set.
        modes: TransactionModes,
    },
}

impl Entry {
    fn sql(&self) -> &str {
        match self {
            Self::Setting { sql, .. }
            | Self::ResetAll { sql, .. }
            | Self::Constraints(sql)
            | Self::Mode(sql)
            | Self::Savepoint { sql, .. } => sql,
        }
    }

    fn bytes(&self) -> usize {
        let name = match self {
            Self::Setting { name, .. } => name.len(),
            Self::Savepoint { name, .. } => name.len(),
            Self::ResetAll { .. } | Self::Constraints(_) | Self::Mode(_) => 0,
        };
        ENTRY_BYTES + name + self.sql().len()
    }

    /// Whether nothing is left of `earlier`, of the same savepoint, once this is said.
    fn outdoes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (
                Self::Setting { name, local, .. },
                Self::Setting {
                    name: other,
                    local: other_is_local,
                    ..
                },
            ) => name == other && (!local || *other_is_local) && !ORDERED.contains(&&**name),
            (Self::ResetAll { kept, .. }, Self::Setting { name, .. }) => {
                !ORDERED.contains(&&**name) && !kept.contains(name)
            }
            (Self::ResetAll { kept, .. }, Self::ResetAll { .. }) => kept.is_empty(),
            _ => false,
        }
    }
}

/// A block's phase, its modes and its preamble.
#[derive(Debug, Clone)]
pub struct BlockState {
    phase: Phase,
    /// The modes with which it started, before what BEGIN said: AND CHAIN's. What is not said is the session's default
    /// of that moment.
    started: TransactionModes,
    /// The modes now.
    modes: TransactionModes,
    entries: Vec<Entry>,
    /// What the entries take.
    bytes: usize,
    /// The connection to a shard of the block is gone, and with it what the block did there.
    torn: bool,
}

impl Default for BlockState {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            started: TransactionModes::default(),
            modes: TransactionModes::default(),
            entries: Vec::new(),
            bytes: 0,
            torn: false,
        }
    }
}

impl BlockState {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What ReadyForQuery says.
    pub fn status(&self) -> TransactionStatus {
        match self.phase {
            Phase::Idle | Phase::Implicit => TransactionStatus::Idle,
            Phase::Open => TransactionStatus::InBlock,
            Phase::Failed => TransactionStatus::Failed,
        }
    }

    /// Opens the router's own block.
    pub fn begin_implicit(&mut self) {
        debug_assert_eq!(self.phase, Phase::Idle);
        *self = Self {
            phase: Phase::Implicit,
            ..Self::default()
        };
    }

    /// Opens the client's block, or makes the router's block the client's.
    pub fn begin(&mut self, modes: &TransactionModes) {
        if self.phase == Phase::Idle {
            *self = Self::default();
        }
        self.phase = Phase::Open;
        self.set_modes(modes);
    }

    /// Ends the block.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// Opens a block by AND CHAIN, with the modes of the one before.
    pub fn chain(&mut self, modes: TransactionModes) {
        *self = Self {
            phase: Phase::Open,
            started: modes,
            modes,
            ..Self::default()
        };
    }

    /// The modes that AND CHAIN hands on: those of now, but a rollback first returns to the first savepoint, and an
    /// error without one to the modes with which the block started.
    pub fn chained_modes(&self, commits: bool) -> TransactionModes {
        let failed = self.phase == Phase::Failed;
        let first = self.entries.iter().find_map(|entry| match entry {
            Entry::Savepoint { modes, .. } => Some(*modes),
            _ => None,
        });
        match first {
            Some(modes) if failed || !commits => modes,
            None if failed => self.started,
            Some(_) | None => self.modes,
        }
    }

    /// An error happened.
    pub fn fail(&mut self) {
        self.phase = match self.phase {
            Phase::Idle => Phase::Idle,
            // The router ends its own block itself, before the client hears of it.
            Phase::Implicit => Phase::Implicit,
            Phase::Open | Phase::Failed => Phase::Failed,
        };
    }

    /// A shard of the block was lost: no savepoint brings back what the block did there.
    pub fn tear(&mut self) {
        self.torn = self.phase != Phase::Idle;
    }

    /// Whether the block can only be rolled back as a whole.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// What later shards must be told takes this many bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, entry: Entry) {
        let savepoint = |entry: &Entry| matches!(entry, Entry::Savepoint { .. });
        let level = self.entries.iter().rposition(savepoint);
        let level = level.map_or(0, |savepoint| savepoint + 1);
        let mut index = 0;
        self.entries.retain(|earlier| {
            index += 1;
            index <= level || !entry.outdoes(earlier)
        });
        self.entries.push(entry);
        self.bytes = self.entries.iter().map(Entry::bytes).sum();
    }

    /// A statement that set a setting, for the block only or for the session: what later shards must repeat.
    pub fn setting(&mut self, name: &str, local: bool, sql: &str) {
        self.push(Entry::Setting {
            name: name.into(),
            local,
            sql: sql.to_owned(),
        });
    }

    /// RESET ALL, as the shards were sent it.
    pub fn reset_all(&mut self, sql: &str, kept: &Arc<Custom>) {
        self.push(Entry::ResetAll {
            sql: sql.to_owned(),
            kept: kept.clone(),
        });
    }

    /// SET CONSTRAINTS.
    pub fn constraints(&mut self, sql: &str) {
        self.push(Entry::Constraints(sql.to_owned()));
    }

    /// The block's modes as they were set; what is not said stays.
    pub fn set_modes(&mut self, modes: &TransactionModes) {
        self.modes.isolation = modes.isolation.or(self.modes.isolation);
        self.modes.read_only = modes.read_only.or(self.modes.read_only);
        self.modes.deferrable = modes.deferrable.or(self.modes.deferrable);
        if self.in_savepoint() && *modes != TransactionModes::default() {
            self.push(Entry::Mode(format!("SET TRANSACTION {modes}")));
        }
    }

    /// The modes as far as they were said; what was not is the session's default when the block began.
    pub fn modes(&self) -> TransactionModes {
        self.modes
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self, name: &str, sql: &str) {
        let savepoint = Entry::Savepoint {
            name: name.to_owned(),
            sql: sql.to_owned(),
            modes: self.modes,
        };
        self.bytes += savepoint.bytes();
        self.entries.push(savepoint);
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.entries.iter().rposition(
            |entry| matches!(entry, Entry::Savepoint { name: other, .. } if other == name),
        )
    }

    /// Whether the block has the savepoint.
    pub fn has_savepoint(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// Whether the block has any.
    pub fn in_savepoint(&self) -> bool {
        let savepoint = |entry: &Entry| matches!(entry, Entry::Savepoint { .. });
        self.entries.iter().any(savepoint)
    }

    /// ROLLBACK TO: forgets what came after, and revives a failed block.
    pub fn rollback_to(&mut self, name: &str) {
        let Some(position) = self.position(name) else {
            return;
        };
        self.entries.truncate(position + 1);
        self.bytes = self.entries.iter().map(Entry::bytes).sum();
        if let Some(Entry::Savepoint { modes, .. }) = self.entries.last() {
            self.modes = *modes;
        }
        self.phase = Phase::Open;
    }

    /// RELEASE: forgets the savepoint and those after it; what was set stays, but for the access mode.
    pub fn release(&mut self, name: &str) {
        let Some(position) = self.position(name) else {
            return;
        };
        let released = self.entries.split_off(position);
        self.bytes = self.entries.iter().map(Entry::bytes).sum();
        for (place, entry) in released.into_iter().enumerate() {
            match entry {
                Entry::Savepoint { modes, .. } if place == 0 => {
                    self.modes.read_only = modes.read_only;
                }
                Entry::Savepoint { .. } | Entry::Mode(_) => {}
                Entry::Setting { .. } | Entry::ResetAll { .. } | Entry::Constraints(_) => {
                    self.push(entry);
                }
            }
        }
    }

    /// What a shard that joins now is sent first, as one string; None outside a block. The mark comes before savepoints,
    /// whose end would take it back.
    pub fn preamble(&self, mark: Option<Mark>) -> Option<String> {
        match self.phase {
            Phase::Idle => return None,
            Phase::Implicit | Phase::Open | Phase::Failed => {}
        }
        let at_first_savepoint = self.entries.iter().find_map(|entry| match entry {
            Entry::Savepoint { modes, .. } => Some(*modes),
            _ => None,
        });
        let modes = at_first_savepoint.unwrap_or(self.modes).to_string();
        let mut preamble = "BEGIN".to_owned();
        if !modes.is_empty() {
            preamble.push(' ');
            preamble.push_str(&modes);
        }
        if let Some(mark) = mark {
            preamble.push(';');
            preamble.push_str(&mark.statement());
        }
        for entry in &self.entries {
            // A comment may end the one before.
            preamble.push_str("\n;");
            preamble.push_str(entry.sql());
        }
        Some(preamble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::statement::IsolationLevel;

    const READ_ONLY: TransactionModes = TransactionModes {
        isolation: None,
        read_only: Some(true),
        deferrable: None,
    };
    const SERIALIZABLE: TransactionModes = TransactionModes {
        isolation: Some(IsolationLevel::Serializable),
        read_only: None,
        deferrable: None,
    };

    fn open() -> BlockState {
        let mut block = BlockState::default();
        block.begin(&TransactionModes::default());
        block
    }

    fn heard(block: &BlockState) -> String {
        block.preamble(None).unwrap().replace('\n', "")
    }

    #[test]
    fn a_later_shard_hears_what_the_block_set_and_its_savepoints() {
        let mut block = open();
        block.setting("a", true, "SET LOCAL a = 1");
        block.savepoint("s", "SAVEPOINT s");
        block.setting("b", true, "SET LOCAL b = 2");
        assert_eq!(
            heard(&block),
            "BEGIN;SET LOCAL a = 1;SAVEPOINT s;SET LOCAL b = 2"
        );
        block.rollback_to("s");
        assert_eq!(heard(&block), "BEGIN;SET LOCAL a = 1;SAVEPOINT s");
    }

    #[test]
    fn a_later_shard_hears_only_what_is_left_of_what_was_set() {
        let mut block = open();
        block.setting("a", false, "SET a = 1");
        block.setting("a", true, "SET LOCAL a = 2");
        block.setting("b", true, "SET LOCAL b = 1");
        block.setting("a", true, "SET LOCAL a = 3");
        let both = "BEGIN;SET a = 1;SET LOCAL b = 1;SET LOCAL a = 3";
        assert_eq!(heard(&block), both);
        block.savepoint("s", "SAVEPOINT s");
        block.setting("a", false, "RESET a");
        assert_eq!(heard(&block), format!("{both};SAVEPOINT s;RESET a"));
        block.release("s");
        assert_eq!(heard(&block), "BEGIN;SET LOCAL b = 1;RESET a");
        block.setting("role", true, "SET LOCAL role = r");
        block.reset_all("RESET ALL", &Arc::default());
        assert_eq!(heard(&block), "BEGIN;SET LOCAL role = r;RESET ALL");
        block.setting("a", true, "SET LOCAL a TO DEFAULT");
        block.setting("b", true, "SET LOCAL b = 1");
        block.reset_all("RESET ALL", &Arc::new(["a".into()].into()));
        assert_eq!(
            heard(&block),
            "BEGIN;SET LOCAL role = r;RESET ALL;SET LOCAL a TO DEFAULT;RESET ALL"
        );
    }

    #[test]
    fn what_was_set_under_a_role_is_set_under_it_again() {
        let mut block = open();
        for (name, sql) in [
            ("role", "SET LOCAL role = r"),
            ("a", "SET LOCAL a = 1"),
            ("role", "SET LOCAL role = none"),
        ] {
            block.setting(name, true, sql);
        }
        assert_eq!(
            heard(&block),
            "BEGIN;SET LOCAL role = r;SET LOCAL a = 1;SET LOCAL role = none"
        );
    }

    #[test]
    fn the_room_for_what_later_shards_hear_is_counted() {
        let mut block = open();
        for value in 0..1000 {
            block.savepoint("s", "SAVEPOINT s");
            block.setting("a", true, &format!("SET LOCAL a = {}", value % 10));
            block.release("s");
        }
        let one = ENTRY_BYTES + "a".len() + "SET LOCAL a = 9".len();
        assert_eq!(block.bytes(), one);
        block.savepoint("s", "SAVEPOINT s");
        assert!(block.bytes() > one);
        block.rollback_to("s");
        block.release("s");
        assert_eq!(block.bytes(), one);
    }

    #[test]
    fn release_keeps_settings_and_earlier_savepoints() {
        let mut block = open();
        block.savepoint("a", "SAVEPOINT a");
        block.savepoint("b", "SAVEPOINT b");
        block.setting("x", true, "SET LOCAL x = 1");
        block.savepoint("c", "SAVEPOINT c");
        block.constraints("SET CONSTRAINTS ALL DEFERRED");
        block.release("b");
        assert_eq!(
            heard(&block),
            "BEGIN;SAVEPOINT a;SET LOCAL x = 1;SET CONSTRAINTS ALL DEFERRED"
        );
        assert!(!block.has_savepoint("c"));
    }

    #[test]
    fn a_savepoint_revives_a_failed_block_and_the_newest_of_a_name_counts() {
        let mut block = open();
        block.savepoint("s", "SAVEPOINT s");
        block.savepoint("s", "SAVEPOINT s");
        block.fail();
        assert_eq!(block.status(), TransactionStatus::Failed);
        block.rollback_to("s");
        assert_eq!(block.phase(), Phase::Open);
        assert_eq!(heard(&block), "BEGIN;SAVEPOINT s;SAVEPOINT s");
    }

    #[test]
    fn an_error_outside_a_block_leaves_nothing_behind() {
        let mut block = BlockState::default();
        block.fail();
        assert_eq!(block.status(), TransactionStatus::Idle);
        assert_eq!(block.preamble(None), None);
    }

    #[test]
    fn the_access_mode_ends_with_the_release_of_its_savepoint() {
        let mut block = open();
        block.set_modes(&SERIALIZABLE);
        block.savepoint("s", "SAVEPOINT s");
        block.set_modes(&READ_ONLY);
        block.setting("a", true, "SET LOCAL a = 1");
        assert_eq!(
            heard(&block),
            "BEGIN ISOLATION LEVEL SERIALIZABLE;SAVEPOINT s;SET TRANSACTION READ ONLY;SET LOCAL a = 1"
        );
        block.release("s");
        assert_eq!(
            heard(&block),
            "BEGIN ISOLATION LEVEL SERIALIZABLE;SET LOCAL a = 1"
        );
        block.savepoint("s", "SAVEPOINT s");
        block.set_modes(&READ_ONLY);
        block.rollback_to("s");
        assert_eq!(block.modes(), SERIALIZABLE);
    }

    #[test]
    fn a_failed_block_is_chained_as_it_was_chained_itself() {
        let mut block = BlockState::default();
        block.begin(&SERIALIZABLE);
        block.setting("a", true, "SET LOCAL a = 1");
        let modes = block.chained_modes(true);
        assert_eq!(modes, SERIALIZABLE);
        block.fail();
        assert_eq!(block.chained_modes(true), TransactionModes::default());
        block.chain(modes);
        assert_eq!(heard(&block), "BEGIN ISOLATION LEVEL SERIALIZABLE");
        block.set_modes(&READ_ONLY);
        block.fail();
        assert_eq!(block.chained_modes(true), SERIALIZABLE);
    }

    #[test]
    fn a_rollback_chains_the_modes_of_the_first_savepoint() {
        let mut block = open();
        block.set_modes(&SERIALIZABLE);
        block.savepoint("a", "SAVEPOINT a");
        block.set_modes(&READ_ONLY);
        block.savepoint("b", "SAVEPOINT b");
        assert_eq!(block.chained_modes(false), SERIALIZABLE);
        assert_eq!(block.chained_modes(true).read_only, Some(true));
        block.fail();
        assert_eq!(block.chained_modes(true), SERIALIZABLE);
    }
}

//! What a session's transaction block is in, and what a shard that joins later must be told first. Pure.
//!
//! Follows PostgreSQL's chapters on transactions and savepoints: an error fails the block, COMMIT of a failed block is
//! ROLLBACK, ROLLBACK TO revives it.

use crate::wire::backend_message::TransactionStatus;

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

/// What the block has done that every shard of it must know.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Begin(String),
    Setting(String),
    /// What SET TRANSACTION sets: it ends with the savepoint that it came after, even a released one.
    Mode(String),
    Savepoint {
        name: String,
        sql: String,
    },
}

impl Entry {
    fn sql(&self) -> &str {
        match self {
            Self::Begin(sql)
            | Self::Setting(sql)
            | Self::Mode(sql)
            | Self::Savepoint { sql, .. } => sql,
        }
    }
}

/// How a block begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// BEGIN with its modes.
    pub sql: String,
    /// Whether these are REPEATABLE READ or SERIALIZABLE.
    pub snapshot_isolation: bool,
}

/// A block's phase and its preamble.
#[derive(Debug, Clone)]
pub struct BlockState {
    phase: Phase,
    preamble: Vec<Entry>,
    /// REPEATABLE READ or SERIALIZABLE was asked for.
    snapshot_isolation: bool,
    /// How the block was opened by the AND CHAIN of the one before it.
    chained: Option<Opening>,
    /// The connection to a shard of the block is gone, and with it what the block did there.
    torn: bool,
}

impl Default for BlockState {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            preamble: Vec::new(),
            snapshot_isolation: false,
            chained: None,
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
        self.phase = Phase::Implicit;
        self.preamble = vec![Entry::Begin("BEGIN".to_owned())];
    }

    /// Opens the client's block with its own words, or makes the router's block the client's.
    pub fn begin(&mut self, sql: &str, snapshot_isolation: bool) {
        if self.phase == Phase::Idle {
            self.preamble = vec![Entry::Begin(sql.to_owned())];
        }
        self.snapshot_isolation = snapshot_isolation;
        self.phase = Phase::Open;
    }

    /// Ends the block.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// How the block that AND CHAIN opens begins where no shard can be asked for its modes: as this one did. After an
    /// error PostgreSQL keeps no more than what this one was chained with.
    pub fn opening(&self) -> Option<Opening> {
        if self.phase == Phase::Failed || self.chained.is_some() {
            return self.chained.clone();
        }
        self.preamble.first().map(|begin| Opening {
            sql: begin.sql().to_owned(),
            snapshot_isolation: self.snapshot_isolation,
        })
    }

    /// Opens a block by AND CHAIN.
    pub fn chain(&mut self, opening: Opening) {
        *self = Self {
            phase: Phase::Open,
            preamble: vec![Entry::Begin(opening.sql.clone())],
            snapshot_isolation: opening.snapshot_isolation,
            chained: Some(opening),
            torn: false,
        };
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

    /// SET LOCAL, SET CONSTRAINTS: what later shards must repeat.
    pub fn setting(&mut self, sql: &str) {
        self.preamble.push(Entry::Setting(sql.to_owned()));
    }

    /// SET TRANSACTION: what later shards must repeat.
    pub fn mode(&mut self, sql: &str) {
        self.preamble.push(Entry::Mode(sql.to_owned()));
    }

    /// The isolation level that SET TRANSACTION named.
    pub fn isolate(&mut self, snapshot_isolation: bool) {
        self.snapshot_isolation = snapshot_isolation && self.phase != Phase::Idle;
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self, name: &str, sql: &str) {
        self.preamble.push(Entry::Savepoint {
            name: name.to_owned(),
            sql: sql.to_owned(),
        });
    }

    /// How many savepoints of the block would stay if `name` were rolled back to (it stays itself); None: no such one.
    fn position(&self, name: &str) -> Option<usize> {
        self.preamble.iter().rposition(
            |entry| matches!(entry, Entry::Savepoint { name: other, .. } if other == name),
        )
    }

    /// Whether the block has the savepoint.
    pub fn has_savepoint(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// ROLLBACK TO: forgets what came after, and revives a failed block.
    pub fn rollback_to(&mut self, name: &str) {
        if let Some(position) = self.position(name) {
            self.preamble.truncate(position + 1);
            self.phase = Phase::Open;
        }
    }

    /// RELEASE: forgets the savepoint and those after it; what was set stays, but for modes.
    pub fn release(&mut self, name: &str) {
        if let Some(position) = self.position(name) {
            let mut index = 0;
            self.preamble.retain(|entry| {
                index += 1;
                index <= position || matches!(entry, Entry::Begin(_) | Entry::Setting(_))
            });
        }
    }

    /// Whether the client's block asked for a snapshot that spans statements.
    pub fn snapshot_isolation(&self) -> bool {
        self.snapshot_isolation
    }

    /// What a shard that joins now is sent first, as one string; None outside a block.
    pub fn preamble(&self) -> Option<String> {
        match self.phase {
            Phase::Idle => None,
            Phase::Implicit | Phase::Open | Phase::Failed => Some(
                self.preamble
                    .iter()
                    .map(Entry::sql)
                    .collect::<Vec<_>>()
                    .join(";"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> BlockState {
        let mut block = BlockState::default();
        block.begin("BEGIN", false);
        block
    }

    #[test]
    fn a_later_shard_hears_what_the_block_set_and_its_savepoints() {
        let mut block = open();
        block.setting("SET LOCAL a = 1");
        block.savepoint("s", "SAVEPOINT s");
        block.setting("SET LOCAL b = 2");
        assert_eq!(
            block.preamble().unwrap(),
            "BEGIN;SET LOCAL a = 1;SAVEPOINT s;SET LOCAL b = 2"
        );
        block.rollback_to("s");
        assert_eq!(
            block.preamble().unwrap(),
            "BEGIN;SET LOCAL a = 1;SAVEPOINT s"
        );
    }

    #[test]
    fn release_keeps_settings_and_earlier_savepoints() {
        let mut block = open();
        block.savepoint("a", "SAVEPOINT a");
        block.savepoint("b", "SAVEPOINT b");
        block.setting("SET LOCAL x = 1");
        block.savepoint("c", "SAVEPOINT c");
        block.release("b");
        assert_eq!(
            block.preamble().unwrap(),
            "BEGIN;SAVEPOINT a;SET LOCAL x = 1"
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
        assert_eq!(block.preamble().unwrap(), "BEGIN;SAVEPOINT s;SAVEPOINT s");
    }

    #[test]
    fn an_error_outside_a_block_leaves_nothing_behind() {
        let mut block = BlockState::default();
        block.fail();
        assert_eq!(block.status(), TransactionStatus::Idle);
        assert_eq!(block.preamble(), None);
    }

    #[test]
    fn a_mode_ends_with_the_release_of_its_savepoint() {
        let mut block = open();
        block.savepoint("s", "SAVEPOINT s");
        block.mode("SET TRANSACTION READ ONLY");
        block.setting("SET LOCAL a = 1");
        block.release("s");
        assert_eq!(block.preamble().unwrap(), "BEGIN;SET LOCAL a = 1");
    }

    #[test]
    fn a_failed_block_is_chained_as_it_was_chained_itself() {
        let mut block = BlockState::default();
        block.begin("BEGIN ISOLATION LEVEL SERIALIZABLE", true);
        block.setting("SET LOCAL a = 1");
        let opening = block.opening().unwrap();
        assert!(opening.snapshot_isolation);
        block.fail();
        assert_eq!(block.opening(), None);
        block.chain(opening.clone());
        assert_eq!(
            block.preamble().unwrap(),
            "BEGIN ISOLATION LEVEL SERIALIZABLE"
        );
        block.fail();
        assert_eq!(block.opening(), Some(opening));
    }
}

//! A PostgreSQL that is its log: what it knows after a crash is what is left of it.

use std::collections::{BTreeMap, BTreeSet};

/// A distributed transaction of the simulation.
pub type Transaction = usize;

/// A row of `pgring.decision`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    pub id: u64,
    pub nonce: u64,
    pub others: Vec<usize>,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Assigned(u64),
    /// With the row that says so, if it was one of those that decide.
    Committed(u64, Option<Transaction>, Option<Decision>),
    Forgotten(Decision),
    Aborted(u64),
    Prepared(u64, String, Transaction),
    CommittedPrepared(String),
    RolledBackPrepared(String),
}

/// One shard's server.
#[derive(Debug, Default)]
pub struct Shard {
    pub up: bool,
    /// Counts restarts: a connection belongs to one.
    pub boot: u32,
    log: Vec<Record>,
    /// How much of the log no crash loses, and no failover.
    written: usize,
    copied: usize,
    next_id: u64,
    running: BTreeSet<u64>,
    prepared: BTreeMap<String, (u64, Transaction)>,
    ended: BTreeMap<u64, bool>,
    rows: BTreeSet<Transaction>,
    decisions: BTreeSet<Decision>,
    /// Whether a session holds the lock of those who decide (shared) or open snapshots (exclusive), by connection.
    pub deciding: BTreeSet<usize>,
    pub opening: Option<usize>,
}

impl Shard {
    pub fn new() -> Self {
        let mut shard = Self {
            up: true,
            ..Self::default()
        };
        shard.replay();
        shard
    }

    fn add(&mut self, record: Record) {
        self.log.push(record);
        let last = self.log.len() - 1;
        self.apply(last);
    }

    fn apply(&mut self, place: usize) {
        match self.log[place].clone() {
            Record::Assigned(id) => {
                self.next_id = id + 1;
                self.running.insert(id);
            }
            Record::Committed(id, transaction, decision) => {
                self.running.remove(&id);
                self.ended.insert(id, true);
                self.rows.extend(transaction);
                self.decisions.extend(decision);
            }
            Record::Forgotten(decision) => {
                self.decisions.remove(&decision);
            }
            Record::Aborted(id) => {
                self.running.remove(&id);
                self.ended.insert(id, false);
            }
            Record::Prepared(id, gid, transaction) => {
                self.running.remove(&id);
                self.prepared.insert(gid, (id, transaction));
            }
            Record::CommittedPrepared(gid) => {
                let (id, transaction) = self.prepared.remove(&gid).expect("it was prepared");
                self.ended.insert(id, true);
                self.rows.insert(transaction);
            }
            Record::RolledBackPrepared(gid) => {
                let (id, _) = self.prepared.remove(&gid).expect("it was prepared");
                self.ended.insert(id, false);
            }
        }
    }

    /// Comes to what the log says; what ran is over.
    fn replay(&mut self) {
        self.next_id = 1;
        self.running.clear();
        self.prepared.clear();
        self.ended.clear();
        self.rows.clear();
        self.decisions.clear();
        for place in 0..self.log.len() {
            self.apply(place);
        }
        for id in std::mem::take(&mut self.running) {
            self.ended.insert(id, false);
        }
    }

    /// Writes out all of the log, and copies it where that is waited for.
    pub fn write(&mut self, copy: bool) {
        self.written = self.log.len();
        if copy {
            self.copied = self.written;
        }
    }

    /// The copy comes up to a point of the log that is written.
    pub fn copy(&mut self, draw: impl Fn(usize) -> usize) {
        self.copied += draw(self.written - self.copied + 1);
    }

    /// Loses the end of what is not written, or not copied; gives the transactions that lost what had lasted.
    pub fn restart(&mut self, failover: bool, draw: impl Fn(usize) -> usize) -> Vec<Transaction> {
        let kept = if failover { self.copied } else { self.written };
        let kept = kept + draw(self.log.len() - kept + 1);
        let mut lost = Vec::new();
        for (place, record) in self.log.iter().enumerate().skip(kept) {
            if place >= self.written {
                break;
            }
            match record {
                Record::Committed(_, transaction, _) => lost.extend(*transaction),
                Record::Prepared(_, _, transaction) => lost.push(*transaction),
                // It is prepared again then.
                Record::CommittedPrepared(_) | Record::RolledBackPrepared(_) => {}
                Record::Assigned(_) | Record::Aborted(_) | Record::Forgotten(_) => {}
            }
        }
        self.log.truncate(kept);
        self.written = kept;
        self.copied = self.copied.min(kept);
        if failover {
            self.copied = kept;
        }
        self.boot += 1;
        self.deciding.clear();
        self.opening = None;
        self.replay();
        lost
    }

    pub fn assign(&mut self) -> u64 {
        let id = self.next_id;
        self.add(Record::Assigned(id));
        id
    }

    pub fn abort(&mut self, id: u64) {
        if self.running.contains(&id) {
            self.add(Record::Aborted(id));
        }
    }

    /// COMMIT; waits for the log if it is to last.
    pub fn commit(
        &mut self,
        id: u64,
        transaction: Option<Transaction>,
        decision: Option<Decision>,
        (lasts, copy): (bool, bool),
    ) {
        self.add(Record::Committed(id, transaction, decision));
        if lasts {
            self.write(copy);
        }
    }

    pub fn prepare(&mut self, id: u64, gid: &str, transaction: Transaction, copy: bool) -> bool {
        if self.prepared.contains_key(gid) {
            self.abort(id);
            return false;
        }
        self.add(Record::Prepared(id, gid.to_owned(), transaction));
        self.write(copy);
        true
    }

    /// COMMIT PREPARED or ROLLBACK PREPARED; whose part it was.
    pub fn finish(&mut self, gid: &str, commit: bool, copy: bool) -> Option<Transaction> {
        let (_, transaction) = *self.prepared.get(gid)?;
        let gid = gid.to_owned();
        self.add(if commit {
            Record::CommittedPrepared(gid)
        } else {
            Record::RolledBackPrepared(gid)
        });
        self.write(copy);
        Some(transaction)
    }

    /// `pg_xact_status`; None of an id that was not given out.
    pub fn status(&self, id: u64) -> Option<String> {
        let prepared = self.prepared.values().any(|(other, _)| *other == id);
        let word = match self.ended.get(&id) {
            Some(true) => "committed",
            Some(false) => "aborted",
            None if prepared || self.running.contains(&id) => "in progress",
            None => return None,
        };
        Some(word.to_owned())
    }

    /// How long the log is, and how much of it the copy has.
    pub fn level(&self) -> (usize, usize) {
        (self.log.len(), self.copied)
    }

    pub fn decisions(&self) -> &BTreeSet<Decision> {
        &self.decisions
    }

    pub fn forget(&mut self, decision: Decision) {
        self.add(Record::Forgotten(decision));
    }

    pub fn prepared(&self) -> Vec<String> {
        self.prepared.keys().cloned().collect()
    }

    pub fn rows(&self) -> &BTreeSet<Transaction> {
        &self.rows
    }
}

//! A PostgreSQL that is its log: what it knows after a crash is what is left of it.

use std::collections::{BTreeMap, BTreeSet};

/// A distributed transaction of the simulation.
pub type Transaction = usize;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An id was given out; to a transaction of the simulation, or another one.
    Assigned(u64, Option<Transaction>),
    Committed(u64, Option<Transaction>),
    Aborted(u64),
    Prepared(u64, String, Transaction),
    CommittedPrepared(String),
    RolledBackPrepared(String),
}

/// One shard's server.
#[derive(Debug, Default)]
pub struct Shard {
    pub up: bool,
    pub timeline: u32,
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
    /// Whether a session holds the lock of those who decide (shared) or open snapshots (exclusive), by connection.
    pub deciding: BTreeSet<usize>,
    pub opening: Option<usize>,
}

impl Shard {
    pub fn new() -> Self {
        let mut shard = Self {
            up: true,
            timeline: 1,
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
            Record::Assigned(id, _) => {
                self.next_id = id + 1;
                self.running.insert(id);
            }
            Record::Committed(id, transaction) => {
                self.running.remove(&id);
                self.ended.insert(id, true);
                self.rows.extend(transaction);
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
        for place in 0..self.log.len() {
            self.apply(place);
        }
        for id in std::mem::take(&mut self.running) {
            self.ended.insert(id, false);
        }
    }

    /// Writes out all of the log, and copies it where that is waited for.
    fn write(&mut self, copy: bool) {
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
                Record::Committed(_, transaction) => lost.extend(*transaction),
                Record::Prepared(_, _, transaction) => lost.push(*transaction),
                // It is prepared again then.
                Record::CommittedPrepared(_) | Record::RolledBackPrepared(_) => {}
                Record::Assigned(..) | Record::Aborted(_) => {}
            }
        }
        self.log.truncate(kept);
        self.written = kept;
        self.copied = self.copied.min(kept);
        if failover {
            self.timeline += 1;
            self.copied = kept;
        }
        self.boot += 1;
        self.deciding.clear();
        self.opening = None;
        self.replay();
        lost
    }

    pub fn assign(&mut self, transaction: Option<Transaction>) -> u64 {
        let id = self.next_id;
        self.add(Record::Assigned(id, transaction));
        id
    }

    pub fn abort(&mut self, id: u64) {
        if self.running.contains(&id) {
            self.add(Record::Aborted(id));
        }
    }

    /// COMMIT; waits for the log if it is to last.
    pub fn commit(&mut self, id: u64, transaction: Option<Transaction>, lasts: bool, copy: bool) {
        self.add(Record::Committed(id, transaction));
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

    /// `pg_xact_status`.
    pub fn status(&self, id: u64) -> Result<Option<String>, String> {
        let prepared = self.prepared.values().any(|(other, _)| *other == id);
        let word = match self.ended.get(&id) {
            Some(true) => "committed",
            Some(false) => "aborted",
            None if prepared || self.running.contains(&id) => "in progress",
            None => return Err("transaction ID is in the future".to_owned()),
        };
        Ok(Some(word.to_owned()))
    }

    pub fn timeline(&self) -> String {
        format!("{:08X}", self.timeline)
    }

    pub fn prepared(&self) -> Vec<String> {
        self.prepared.keys().cloned().collect()
    }

    pub fn is_prepared(&self, transaction: Transaction) -> bool {
        let mut prepared = self.prepared.values();
        prepared.any(|(_, other)| *other == transaction)
    }

    pub fn rows(&self) -> &BTreeSet<Transaction> {
        &self.rows
    }
}

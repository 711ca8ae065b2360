//! [`Servers`]: the connections of one pool as the console shows them. Written when one is opened, given back or closed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The next connection's number, of all pools.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// One connection to a shard.
#[derive(Debug)]
pub struct Server {
    /// No other connection of this process has it.
    pub id: u64,
    /// The process that serves it.
    pub pid: u32,
    /// Where it leads to, and from where; None where sockets have no addresses.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Since when.
    pub connected: SystemTime,
    /// See [`super::gate::Gate::generation`].
    pub(super) generation: u64,
    opened: Instant,
    /// When it was given back last, in microseconds after `opened`.
    released: AtomicU64,
    /// The statements that were prepared on it then.
    statements: AtomicUsize,
}

impl Server {
    /// It was given back.
    pub(super) fn note_released(&self, now: Instant, statements: usize) {
        let after = now.saturating_duration_since(self.opened).as_micros();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.released.store(after, Ordering::Relaxed);
        self.statements.store(statements, Ordering::Relaxed);
    }

    /// When it was given back last; when it was opened, if it never was.
    pub fn released(&self) -> SystemTime {
        self.connected + Duration::from_micros(self.released.load(Ordering::Relaxed))
    }

    /// How many statements were prepared on it when it was given back last.
    pub fn statements(&self) -> usize {
        self.statements.load(Ordering::Relaxed)
    }
}

/// All connections of a pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Servers(Arc<Mutex<HashMap<u64, Arc<Server>>>>);

impl Servers {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Server>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a connection.
    pub(super) fn enter(
        &self,
        pid: u32,
        addresses: Option<(SocketAddr, SocketAddr)>,
        generation: u64,
    ) -> Entry {
        let server = Arc::new(Server {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            pid,
            addresses,
            connected: SystemTime::now(),
            generation,
            opened: Instant::now(),
            released: AtomicU64::new(0),
            statements: AtomicUsize::new(0),
        });
        self.lock().insert(server.id, server.clone());
        Entry {
            servers: self.clone(),
            server,
        }
    }

    /// All, by their numbers.
    pub(super) fn all(&self) -> Vec<Arc<Server>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|server| server.id);
        all
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether one of them is of an earlier generation.
    pub(super) fn any_before(&self, generation: u64) -> bool {
        self.lock()
            .values()
            .any(|server| server.generation < generation)
    }
}

/// A connection's place among all; dropped, it is forgotten.
#[derive(Debug)]
pub(super) struct Entry {
    servers: Servers,
    pub(super) server: Arc<Server>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.servers.lock().remove(&self.server.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_listed_while_they_are_open() {
        let servers = Servers::default();
        let (old, new) = (servers.enter(1, None, 0), servers.enter(2, None, 1));
        assert!(servers.any_before(1));
        drop(old);
        assert!(!servers.any_before(1));
        let pids: Vec<u32> = servers.all().iter().map(|server| server.pid).collect();
        assert_eq!(pids, [2]);
        let later = new.server.opened + Duration::from_secs(3);
        new.server.note_released(later, 4);
        assert_eq!(
            new.server.released(),
            new.server.connected + Duration::from_secs(3)
        );
        assert_eq!(new.server.statements(), 4);
    }
}

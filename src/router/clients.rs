//! [`Clients`]: who is connected to the router, what each does now, and how each can be told to leave. Written by a
//! client's own worker, read by the console. Must not know what a session is.
//!
//! What a session does for every request here are a few stores that no other thread waits for.

use coarsetime::Instant;
use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// All clients of a router.
#[derive(Debug)]
pub struct Clients {
    /// Connected, logged in or not.
    pub connected: AtomicUsize,
    /// Of those, who has not logged in yet.
    pub unauthenticated: AtomicUsize,
    /// Whether nobody new is let in, but to the console.
    pub disabled: AtomicBool,
    /// Whether the router is to end, so that nobody new is let in, but to the console.
    pub leaving: AtomicBool,
    left: Notify,
    started: Instant,
    next: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    clients: HashMap<u64, Arc<Client>>,
    stopping: bool,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            connected: AtomicUsize::new(0),
            unauthenticated: AtomicUsize::new(0),
            disabled: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            left: Notify::new(),
            started: Instant::now(),
            next: AtomicU64::new(1),
            known: Mutex::default(),
        }
    }
}

/// How a client is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// When its transaction is over.
    AtRest,
    /// Now, whatever it does.
    Now,
}

/// What is known of a client when it has logged in.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its user.
    pub user: Arc<str>,
    /// The database that it asked for.
    pub database: Arc<str>,
    /// Where it is, and where it came in; None where sockets have no addresses.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// As it calls itself.
    pub application_name: Arc<str>,
    /// The process id that it was told.
    pub pid: u32,
    /// Whether it talks to the console.
    pub console: bool,
}

/// A client that has logged in.
#[derive(Debug)]
pub struct Client {
    /// Its number: no other client of this process has it.
    pub id: u64,
    /// Who it is.
    pub identity: Identity,
    /// Since when.
    pub connected: SystemTime,
    application_name: Mutex<Arc<str>>,
    /// When it said something last, in microseconds since the router's start.
    requested: AtomicU64,
    /// Whether that has been answered.
    resting: AtomicBool,
    /// Since when it waits for a connection to a shard, likewise; 0 if it does not.
    waiting: AtomicU64,
    /// Its prepared statements.
    statements: AtomicUsize,
    /// 0, or how it is to leave.
    leave: AtomicU8,
    waker: AtomicWaker,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Nothing.
    Idle,
    /// It is being answered.
    Active,
    /// It waits for a connection, this long.
    Waiting(Duration),
}

const AT_REST: u8 = 1;
const NOW: u8 = 2;

impl Client {
    /// How it is to leave, if it is.
    pub fn leave(&self) -> Option<Leave> {
        match self.leave.load(Ordering::Relaxed) {
            0 => None,
            AT_REST => Some(Leave::AtRest),
            _ => Some(Leave::Now),
        }
    }

    /// It said something at this time.
    pub fn note_request(&self, now: u64) {
        self.requested.store(now, Ordering::Relaxed);
        self.resting.store(false, Ordering::Relaxed);
    }

    /// It was answered.
    pub fn note_rest(&self, statements: usize) {
        self.statements.store(statements, Ordering::Relaxed);
        self.resting.store(true, Ordering::Relaxed);
    }

    /// It waits for a connection since this time; 0: it does not any more.
    pub fn note_waiting(&self, since: u64) {
        self.waiting.store(since, Ordering::Relaxed);
    }

    /// It calls itself otherwise.
    pub fn note_application_name(&self, name: &Arc<str>) {
        *lock(&self.application_name) = name.clone();
    }

    /// What it calls itself.
    pub fn application_name(&self) -> Arc<str> {
        lock(&self.application_name).clone()
    }

    /// How many prepared statements it has.
    pub fn statements(&self) -> usize {
        self.statements.load(Ordering::Relaxed)
    }

    fn tell(&self, leave: u8) {
        self.leave.fetch_max(leave, Ordering::SeqCst);
        self.waker.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    /// Microseconds since the router's start; never 0. By the system's coarse clock, which is read at each request and
    /// costs a tenth of the exact one: it advances by some milliseconds, so what is measured by it is right on average.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_micros().max(1)
    }

    /// The time of day of a moment as [`Self::now`] gives it.
    pub fn time_of(&self, moment: u64) -> SystemTime {
        let ago = Duration::from_micros(self.now().saturating_sub(moment));
        SystemTime::now()
            .checked_sub(ago)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Counts a client in that has logged in.
    pub fn enter(self: &Arc<Self>, identity: Identity) -> Visit {
        let mut known = lock(&self.known);
        let client = Arc::new(Client {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            application_name: Mutex::new(identity.application_name.clone()),
            identity,
            connected: SystemTime::now(),
            requested: AtomicU64::new(self.now()),
            resting: AtomicBool::new(true),
            waiting: AtomicU64::new(0),
            statements: AtomicUsize::new(0),
            leave: AtomicU8::new(if known.stopping { AT_REST } else { 0 }),
            waker: AtomicWaker::new(),
        });
        known.clients.insert(client.id, client.clone());
        drop(known);
        Visit {
            clients: self.clone(),
            client,
            registered: None,
        }
    }

    /// All clients that have logged in, by their number.
    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = lock(&self.known).clients.values().cloned().collect();
        all.sort_by_key(|client| client.id);
        all
    }

    /// What a client does, and when it said something last.
    pub fn activity(&self, client: &Client) -> (Activity, SystemTime) {
        let waiting = client.waiting.load(Ordering::Relaxed);
        let activity = match (waiting, client.resting.load(Ordering::Relaxed)) {
            (0, true) => Activity::Idle,
            (0, false) => Activity::Active,
            (since, _) => {
                Activity::Waiting(Duration::from_micros(self.now().saturating_sub(since)))
            }
        };
        let requested = client.requested.load(Ordering::Relaxed);
        (activity, self.time_of(requested))
    }

    /// The router ends: each client leaves as soon as its transaction is over, those included who come yet.
    pub fn stop(&self) {
        let mut known = lock(&self.known);
        known.stopping = true;
        known
            .clients
            .values()
            .for_each(|client| client.tell(AT_REST));
    }

    /// Returns when nobody is left but in the console.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn gone(&self) {
        loop {
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            if self.all().iter().all(|client| client.identity.console) {
                return;
            }
            left.await;
        }
    }

    /// Cuts off the client with this number. Whether there is one.
    pub fn kill(&self, id: u64) -> bool {
        let client = lock(&self.known).clients.get(&id).cloned();
        client.inspect(|client| client.tell(NOW)).is_some()
    }

    /// Cuts off all clients but those of the console; how many.
    pub fn kill_all(&self) -> usize {
        let all = self.all();
        let clients = all.iter().filter(|client| !client.identity.console);
        clients.inspect(|client| client.tell(NOW)).count()
    }
}

/// A client that is in; dropped, it is forgotten.
#[derive(Debug)]
pub struct Visit {
    clients: Arc<Clients>,
    client: Arc<Client>,
    /// What [`Client::waker`] holds.
    registered: Option<Waker>,
}

impl Visit {
    /// Who it is.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Whether it is to leave now. The task is woken when it is told to leave, in whichever way.
    pub fn poll_killed(&mut self, context: &Context<'_>) -> bool {
        let waker = context.waker();
        let known = self.registered.as_ref();
        if !known.is_some_and(|known| known.will_wake(waker)) {
            self.client.waker.register(waker);
            self.registered = Some(waker.clone());
        }
        self.client.leave.load(Ordering::SeqCst) == NOW
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        lock(&self.clients.known).clients.remove(&self.client.id);
        self.clients.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker_ref;

    fn identity(console: bool) -> Identity {
        Identity {
            user: "app".into(),
            database: "shop".into(),
            addresses: None,
            application_name: "".into(),
            pid: 1,
            console,
        }
    }

    #[test]
    fn who_is_in_is_told_and_who_left_is_forgotten() {
        let clients = Arc::<Clients>::default();
        let (mut one, other) = (
            clients.enter(identity(false)),
            clients.enter(identity(false)),
        );
        let context = Context::from_waker(noop_waker_ref());
        assert!(!one.poll_killed(&context));
        assert_eq!(one.client().leave(), None);
        drop(other);
        clients.stop();
        assert_eq!(one.client().leave(), Some(Leave::AtRest));
        assert!(!one.poll_killed(&context));
        assert_eq!(clients.all().len(), 1);
        // Who comes now is told at once.
        let late = clients.enter(identity(false));
        assert_eq!(late.client().leave(), Some(Leave::AtRest));
        assert!(clients.kill(one.client().id));
        assert!(one.poll_killed(&context));
        clients.stop();
        assert_eq!(one.client().leave(), Some(Leave::Now));
    }

    #[test]
    fn killing_all_spares_the_console() {
        let clients = Arc::<Clients>::default();
        let (app, console) = (
            clients.enter(identity(false)),
            clients.enter(identity(true)),
        );
        assert_eq!(clients.kill_all(), 1);
        assert_eq!(app.client().leave(), Some(Leave::Now));
        assert_eq!(console.client().leave(), None);
        assert!(!clients.kill(99));
    }

    #[test]
    fn what_a_client_does_is_seen() {
        let clients = Arc::<Clients>::default();
        let visit = clients.enter(identity(false));
        let client = visit.client();
        assert_eq!(clients.activity(client).0, Activity::Idle);
        client.note_request(clients.now());
        assert_eq!(clients.activity(client).0, Activity::Active);
        client.note_waiting(clients.now());
        assert!(matches!(clients.activity(client).0, Activity::Waiting(_)));
        client.note_waiting(0);
        client.note_rest(3);
        assert_eq!(
            (clients.activity(client).0, client.statements()),
            (Activity::Idle, 3)
        );
    }
}

//! The detector of deadlocks over several shards: knows this router's distributed transactions, asks the shards who waits
//! for whom when one of them runs a statement for too long, and cancels who must give way. What the answers mean is in
//! [`super::deadlock`].
//!
//! Routers do not talk to each other. Each sees the transactions of all in the shards' own lock tables, finds the same
//! circles, and cancels only what is its own: of a circle the youngest, and if that does not end it, the next.

use super::deadlock::{self, Deadlock, Holder, Look, Mark, Part, Wait};
use super::in_use::InUse;
use crate::backend::control::{Client, Control, ControlError};
use crate::topology::ShardId;
use futures_util::future::join_all;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// How often the own transactions are looked at, as a part of `deadlock.timeout`.
const TICKS: u32 = 10;
/// What a shard that is asked may take; one that does not answer is left out.
const LOOK_WAIT: Duration = Duration::from_secs(1);
/// How often, and how far apart, a circle is looked at again before somebody is cancelled for it.
const CONFIRMATIONS: usize = 2;
const CONFIRMATION_PAUSE: Duration = Duration::from_millis(20);

/// This router's transactions of several shards.
#[derive(Debug)]
pub struct Detector {
    timeout: Duration,
    started: Instant,
    watched: Mutex<HashMap<Mark, Watched>>,
    /// There are some.
    arrived: tokio::sync::Notify,
    /// Numbers for marks: the next one, and what makes it unlike those of other routers.
    next: AtomicU64,
    numbers: RandomState,
}

#[derive(Debug)]
struct Watched {
    busy: Arc<Busy>,
    in_use: Arc<InUse>,
}

/// Since when a session runs one statement: milliseconds from [`Detector::started`]; [`RESTING`] while it does not.
#[derive(Debug)]
struct Busy(AtomicU64);

const RESTING: u64 = u64::MAX;

/// A transaction that is watched; dropped, it is no more.
#[derive(Debug)]
pub struct Distributed {
    mark: Mark,
    busy: Arc<Busy>,
    detector: Arc<Detector>,
}

impl Distributed {
    /// What its parts carry.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Its session begins a statement.
    pub fn note_busy(&self) {
        self.busy.0.store(self.detector.now(), Ordering::Relaxed);
    }

    /// Its session waits for the client.
    pub fn note_resting(&self) {
        self.busy.0.store(RESTING, Ordering::Relaxed);
    }
}

impl Drop for Distributed {
    fn drop(&mut self) {
        self.detector.watched().remove(&self.mark);
    }
}

impl Detector {
    /// Without transactions; `timeout` is `deadlock.timeout`.
    pub fn new(timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            timeout,
            started: Instant::now(),
            watched: Mutex::default(),
            arrived: tokio::sync::Notify::new(),
            next: AtomicU64::new(0),
            numbers: RandomState::new(),
        })
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<Mark, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Watches a session's transaction, which runs a statement now, from its second shard on.
    pub fn watch(self: &Arc<Self>, in_use: Arc<InUse>) -> Distributed {
        let busy = Arc::new(Busy(AtomicU64::new(self.now())));
        let mut watched = self.watched();
        let mark = loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let mark = Mark::new(self.numbers.hash_one(number));
            if !watched.contains_key(&mark) {
                break mark;
            }
        };
        let entry = Watched {
            busy: busy.clone(),
            in_use,
        };
        watched.insert(mark, entry);
        drop(watched);
        self.arrived.notify_one();
        Distributed {
            mark,
            busy,
            detector: self.clone(),
        }
    }

    /// The statements that have run for longer than the timeout: of which transaction, and since when.
    fn overdue(&self) -> HashSet<(Mark, u64)> {
        let timeout = self.timeout.as_millis() as u64;
        let latest = self.now().saturating_sub(timeout);
        let watched = self.watched();
        let since = watched
            .iter()
            .map(|(mark, one)| (*mark, one.busy.0.load(Ordering::Relaxed)));
        since.filter(|(_, since)| *since <= latest).collect()
    }

    /// Cancels the transaction if it is this router's and can still be cancelled.
    async fn cancel(&self, mark: Mark, detail: &Arc<str>) -> bool {
        let in_use = self.watched().get(&mark).map(|one| one.in_use.clone());
        match in_use {
            Some(in_use) => in_use.cancel_deadlocked(mark, detail).await,
            None => false,
        }
    }
}

/// Breaks deadlocks until the control plane is gone.
pub async fn run(control: Arc<Control>, detector: Arc<Detector>) {
    let control = Arc::downgrade(&control);
    let tick = detector.timeout / TICKS;
    let mut known: HashSet<(Mark, u64)> = HashSet::new();
    let mut looked = Instant::now();
    // Deadlocks that were seen and how many of those in them were to give way.
    let mut broken: Vec<(Deadlock, usize)> = Vec::new();
    loop {
        if detector.watched().is_empty() {
            detector.arrived.notified().await;
        }
        sleep(tick).await;
        let overdue = detector.overdue();
        let is_due = overdue.difference(&known).next().is_some()
            || !overdue.is_empty() && looked.elapsed() >= detector.timeout;
        known = overdue;
        if !is_due {
            continue;
        }
        looked = Instant::now();
        let Some(found) = find(&control).await else {
            return;
        };
        broken.retain(|(before, _)| found.iter().any(|found| found.is_same(before)));
        for deadlock in found {
            let before = broken
                .iter_mut()
                .find(|(before, _)| before.is_same(&deadlock));
            let turn = match before {
                Some((_, turns)) => {
                    *turns += 1;
                    *turns
                }
                None => {
                    broken.push((deadlock.clone(), 0));
                    0
                }
            };
            let Some(victim) = deadlock.youngest_first.get(turn) else {
                continue;
            };
            let Some(control) = control.upgrade() else {
                return;
            };
            let topology = control.topology.load_full();
            drop(control);
            let name = |shard| topology.shard_name(shard).to_string();
            let detail: Arc<str> = deadlock.describe(name).into();
            if detector.cancel(*victim, &detail).await {
                tracing::info!(%detail, "a deadlock over several shards was broken");
            }
        }
    }
}

/// The deadlocks that there are, each seen in three looks. None: the control plane is gone.
async fn find(control: &Weak<Control>) -> Option<Vec<Deadlock>> {
    let mut found = deadlock::deadlocks(&look(&*control.upgrade()?).await);
    for _ in 0..CONFIRMATIONS {
        if found.is_empty() {
            break;
        }
        sleep(CONFIRMATION_PAUSE).await;
        let looks = look(&*control.upgrade()?).await;
        found.retain(|deadlock| deadlock.stands(&looks));
    }
    Some(found)
}

/// Asks all shards at once; those that do not answer are left out.
async fn look(control: &Control) -> BTreeMap<ShardId, Look> {
    let topology = control.topology.load_full();
    let shards = topology.shard_ids().map(|shard| async move {
        match timeout(LOOK_WAIT, look_at(control, shard)).await {
            Ok(Ok(look)) => Some((shard, look)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a shard was not asked for deadlocks");
                None
            }
            Err(_) => None,
        }
    });
    join_all(shards).await.into_iter().flatten().collect()
}

/// The locks that are marks, with the processes or prepared transactions that hold them.
const PARTS: &str = "
    SELECT held.pid, held.virtualtransaction,
      (held.classid::pg_catalog.int8 << 32) | held.objid::pg_catalog.int8,
      (extract(epoch FROM activity.xact_start) * 1000000)::pg_catalog.int8
    FROM pg_catalog.pg_locks held
    LEFT JOIN pg_catalog.pg_stat_activity activity ON activity.pid = held.pid
    WHERE held.locktype = 'advisory' AND held.objsubid = 1 AND held.mode = 'ShareLock' AND held.granted
      AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

/// Who waits, and for whom. A prepared transaction is no process; who waits for one to end, as for any writer of a row,
/// waits for the lock on its transaction id.
const WAITS: &str = "
    SELECT coalesce(activity.leader_pid, waiting.pid),
      (extract(epoch FROM waiting.waitstart) * 1000000)::pg_catalog.int8,
      pg_catalog.pg_blocking_pids(waiting.pid),
      (SELECT held.virtualtransaction FROM pg_catalog.pg_locks held
       WHERE waiting.locktype = 'transactionid' AND held.locktype = 'transactionid' AND held.granted
         AND held.transactionid = waiting.transactionid AND held.pid IS NULL)
    FROM pg_catalog.pg_locks waiting
    JOIN pg_catalog.pg_stat_activity activity ON activity.pid = waiting.pid
    WHERE NOT waiting.granted AND waiting.waitstart IS NOT NULL
      AND activity.datname = pg_catalog.current_database()";

async fn look_at(control: &Control, shard: ShardId) -> Result<Look, ControlError> {
    let client = control.client(shard).await?;
    let asked = ask(&client).await;
    asked.map_err(|source| ControlError::Query {
        shard: control.topology.load().shard_name(shard).clone(),
        source,
    })
}

async fn ask(client: &Client) -> Result<Look, tokio_postgres::Error> {
    let (waits, parts) = futures_util::future::try_join(
        client.query_typed(WAITS, &[]),
        client.query_typed(PARTS, &[]),
    )
    .await?;
    let mut look = Look::default();
    for row in waits {
        let blocking: Vec<i32> = row.try_get(2)?;
        let prepared: Option<String> = row.try_get(3)?;
        // 0 stands for prepared transactions.
        let pids = blocking.into_iter().filter(|pid| *pid != 0);
        let blockers = pids
            .map(Holder::Backend)
            .chain(prepared.map(Holder::Prepared));
        look.waits.push(Wait {
            pid: row.try_get(0)?,
            since: row.try_get(1)?,
            blockers: blockers.collect(),
        });
    }
    for row in parts {
        let Some(mark) = Mark::of_key(row.try_get(2)?) else {
            continue;
        };
        let holder = match row.try_get::<_, Option<i32>>(0)? {
            Some(pid) => Holder::Backend(pid),
            None => Holder::Prepared(row.try_get(1)?),
        };
        look.parts.push(Part {
            holder,
            mark,
            began: row.try_get(3)?,
        });
    }
    Ok(look)
}

//! What happens between the tasks and the shards, in an order that a seed draws, and what must hold meanwhile.

use crate::random::Random;
use crate::router;
use crate::shard::{Decision, Shard, Transaction};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

pub const SHARDS: usize = 3;
pub const ROUTERS: usize = 2;
const STEPS: usize = 1200;
/// Steps that all that is left may take once nothing crashes any more.
const SETTLE_STEPS: usize = 50_000;
const TASKS_MAX: usize = 6;

/// What is left out of the protocol, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The status of the decider's id is taken for proof, and its row not asked for.
    StatusIsProof,
    /// The row is asked for before the status.
    RowAskedFirst,
    /// A row with the same id is taken for the transaction's own.
    NonceNotCompared,
    /// Decisions are read after the parts are listed that may need them.
    ForgottenTooSoon,
    /// A decision goes before the copies have that its parts are finished.
    CopiesNotAsked,
    /// A log that was cut off and grew again is taken for the same.
    BootNotCompared,
    /// The decider's COMMIT may be answered before it lasts, as the session may have asked for.
    DecisionMayBeLost,
    /// The decider commits though not all are prepared.
    VotesNotCounted,
    /// A decider that does not answer is taken to have rolled back.
    SilenceIsRollback,
    /// Snapshots are opened while transactions become visible.
    SnapshotNotLocked,
    /// Snapshots are opened beside what a crash left half committed.
    SnapshotNotSettled,
}

impl Flaw {
    pub const ALL: [Self; 11] = [
        Self::StatusIsProof,
        Self::RowAskedFirst,
        Self::NonceNotCompared,
        Self::ForgottenTooSoon,
        Self::CopiesNotAsked,
        Self::BootNotCompared,
        Self::DecisionMayBeLost,
        Self::VotesNotCounted,
        Self::SilenceIsRollback,
        Self::SnapshotNotLocked,
        Self::SnapshotNotSettled,
    ];
}

/// What is asked of a shard.
#[derive(Debug, Clone)]
pub enum Request {
    Write(Transaction),
    /// BEGIN, and nothing that takes an id.
    Read,
    WhoWrote,
    /// The decider's lock, its row, and a COMMIT that lasts.
    Ready(u64, Vec<usize>),
    Leave,
    Prepare(String),
    Commit,
    Rollback,
    Finish(String, bool),
    Prepared,
    Status(u64),
    Decisions,
    /// How long the log is, how much of it the copy has, and of which boot.
    Level,
    Forget(Vec<Decision>),
    LockSnapshots,
    UnlockSnapshots,
    Snapshot,
}

/// What it answers.
#[derive(Debug, Clone)]
pub enum Reply {
    Done,
    Refused,
    Wrote(Option<u64>),
    Names(Vec<String>),
    Status(Option<String>),
    Decisions(Vec<Decision>),
    Level(usize, usize, u32),
    Rows(BTreeSet<Transaction>),
}

/// The connection broke; whether the request was, or will be, executed is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// What a client was told of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    Committed,
    RolledBack,
    Unknown,
}

/// A server's side of a connection.
#[derive(Debug, Default)]
struct Session {
    id: Option<u64>,
    transaction: Option<Transaction>,
    begun: bool,
    /// What it commits by.
    decision: Option<Decision>,
    /// Its COMMIT waits for the log.
    lasts: bool,
}

#[derive(Debug)]
struct Connection {
    shard: usize,
    boot: u32,
    router_open: bool,
    server_open: bool,
    request: Option<Request>,
    answer: Option<Reply>,
    delivered: Option<Reply>,
    session: Session,
}

/// What is known of a transaction beside the shards.
#[derive(Debug, Default)]
pub struct Known {
    pub writers: Vec<usize>,
    pub decider: Option<usize>,
    pub told: Option<Told>,
    /// Its session does not wait for the log.
    pub careless: bool,
    /// A failover lost a part of it that had lasted: nobody can make that good.
    lossy: bool,
    /// A part was rolled back after it was prepared.
    rolled_back: bool,
}

/// All that is shared between tasks.
pub struct Inner {
    pub random: Random,
    pub flaw: Option<Flaw>,
    pub shards: Vec<Shard>,
    pub known: BTreeMap<Transaction, Known>,
    connections: Vec<Connection>,
    /// Failovers lose nothing that was answered.
    synchronous: bool,
    /// The numbers of those that are not closed on both sides.
    live: Vec<usize>,
    /// How many steps go by from one crash to the next, about.
    calm: usize,
}

pub type Shared = Rc<RefCell<Inner>>;

/// A router's side of a connection.
pub struct Link {
    world: Shared,
    pub number: usize,
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut inner = self.world.borrow_mut();
        inner.connections[self.number].router_open = false;
    }
}

impl Link {
    /// Connects, unless the shard is down.
    pub fn open(world: &Shared, shard: usize) -> Result<Self, Lost> {
        let mut inner = world.borrow_mut();
        if !inner.shards[shard].up {
            return Err(Lost);
        }
        let boot = inner.shards[shard].boot;
        let number = inner.connections.len();
        inner.live.push(number);
        inner.connections.push(Connection {
            shard,
            boot,
            router_open: true,
            server_open: true,
            request: None,
            answer: None,
            delivered: None,
            session: Session::default(),
        });
        drop(inner);
        Ok(Self {
            world: world.clone(),
            number,
        })
    }

    /// Asks, and waits for the answer.
    pub async fn call(&self, request: Request) -> Result<Reply, Lost> {
        self.world.borrow_mut().connections[self.number].request = Some(request);
        std::future::poll_fn(|_| {
            let mut inner = self.world.borrow_mut();
            let connection = &mut inner.connections[self.number];
            match connection.delivered.take() {
                Some(reply) => Poll::Ready(Ok(reply)),
                None if !connection.router_open => Poll::Ready(Err(Lost)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// Lets others go first.
pub async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut paused, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

impl Inner {
    /// Executes one request where the server still has it. Whether it did anything.
    fn execute(&mut self, number: usize) -> bool {
        let connection = &self.connections[number];
        let shard_number = connection.shard;
        let shard = &self.shards[shard_number];
        if !connection.server_open || !shard.up || connection.boot != shard.boot {
            return false;
        }
        match connection.request {
            None => return false,
            Some(Request::Ready(..)) if shard.opening.is_some() => return false,
            Some(Request::LockSnapshots)
                if shard.opening.is_some() || !shard.deciding.is_empty() =>
            {
                return false;
            }
            Some(_) => {}
        }
        let Some(request) = self.connections[number].request.take() else {
            return false;
        };
        let reply = self.answer(number, shard_number, request);
        self.connections[number].answer = Some(reply);
        true
    }

    fn answer(&mut self, number: usize, shard_number: usize, request: Request) -> Reply {
        let copy = self.synchronous;
        let shard = &mut self.shards[shard_number];
        let session = &mut self.connections[number].session;
        match request {
            Request::Write(transaction) => {
                session.id = Some(shard.assign());
                session.transaction = Some(transaction);
                session.begun = true;
                session.lasts = !self.known[&transaction].careless;
                Reply::Done
            }
            Request::Read => {
                session.begun = true;
                Reply::Done
            }
            Request::WhoWrote => Reply::Wrote(session.id),
            Request::Ready(nonce, others) => {
                shard.deciding.insert(number);
                let decision = |id| Decision { id, nonce, others };
                session.decision = session.id.map(decision);
                session.lasts |= self.flaw != Some(Flaw::DecisionMayBeLost);
                Reply::Done
            }
            Request::Leave => {
                shard.deciding.remove(&number);
                Reply::Done
            }
            Request::Prepare(gid) => {
                let (Some(id), Some(transaction)) = (session.id.take(), session.transaction) else {
                    return Reply::Refused;
                };
                if shard.prepare(id, &gid, transaction, copy) {
                    Reply::Done
                } else {
                    Reply::Refused
                }
            }
            Request::Commit => {
                let lasts = session.lasts;
                let Some((id, transaction)) = session.id.take().zip(session.transaction) else {
                    return Reply::Done;
                };
                let decision = session.decision.take();
                shard.commit(id, Some(transaction), decision, (lasts, copy));
                let known = &self.known[&transaction];
                assert!(
                    !known.rolled_back || known.lossy,
                    "{transaction} commits after a part of it was rolled back"
                );
                Reply::Done
            }
            Request::Rollback => {
                if let Some(id) = session.id.take() {
                    shard.abort(id);
                }
                Reply::Done
            }
            Request::Finish(gid, commit) => self.finish(shard_number, &gid, commit),
            Request::Prepared => Reply::Names(shard.prepared()),
            Request::Status(id) => Reply::Status(shard.status(id)),
            Request::Decisions => Reply::Decisions(shard.decisions().iter().cloned().collect()),
            Request::Level => {
                let (log, copied) = shard.level();
                Reply::Level(log, copied, shard.boot)
            }
            Request::Forget(decisions) => {
                decisions.into_iter().for_each(|one| shard.forget(one));
                Reply::Done
            }
            Request::LockSnapshots => {
                shard.opening = Some(number);
                Reply::Done
            }
            Request::UnlockSnapshots => {
                shard.opening = None;
                Reply::Done
            }
            Request::Snapshot => Reply::Rows(shard.rows().clone()),
        }
    }

    fn finish(&mut self, shard: usize, gid: &str, commit: bool) -> Reply {
        let copy = self.synchronous;
        let Some(transaction) = self.shards[shard].finish(gid, commit, copy) else {
            return Reply::Refused;
        };
        let decider = self.known[&transaction].decider.expect("it has a decider");
        let decided = self.shards[decider].rows().contains(&transaction);
        let known = self.known.get_mut(&transaction).expect("it is known");
        assert!(
            commit == decided || known.lossy,
            "a part of {transaction} ends by commit = {commit}; its decider's: {decided}"
        );
        known.rolled_back |= !commit;
        Reply::Done
    }

    /// The server finds that nobody is there any more.
    fn close(&mut self, number: usize) -> bool {
        let connection = &mut self.connections[number];
        if connection.router_open || !connection.server_open {
            return false;
        }
        connection.server_open = false;
        connection.request = None;
        let shard = &mut self.shards[connection.shard];
        if connection.boot == shard.boot {
            shard.deciding.remove(&number);
            if shard.opening == Some(number) {
                shard.opening = None;
            }
            if let Some(id) = connection.session.id.take() {
                shard.abort(id);
            }
        }
        true
    }

    fn deliver(&mut self, number: usize) -> bool {
        let connection = &mut self.connections[number];
        if !connection.router_open || connection.answer.is_none() {
            return false;
        }
        connection.delivered = connection.answer.take();
        true
    }

    fn restart(&mut self, shard: usize, failover: bool) {
        let random = RefCell::new(&mut self.random);
        let lost = self.shards[shard].restart(failover, |end| random.borrow_mut().below(end));
        for transaction in lost {
            let known = self.known.get_mut(&transaction).expect("it is known");
            known.lossy = true;
        }
        for connection in &mut self.connections {
            if connection.shard == shard {
                connection.router_open = false;
                connection.server_open = false;
            }
        }
    }

    /// The connections on which something is to be done.
    fn busy(&mut self) -> Vec<usize> {
        let connections = &self.connections;
        self.live.retain(|number| {
            let connection = &connections[*number];
            connection.server_open || connection.router_open
        });
        let mut busy = self.live.clone();
        busy.retain(|number| {
            let connection = &connections[*number];
            connection.request.is_some() || connection.answer.is_some() || !connection.router_open
        });
        busy
    }

    /// Now and then something breaks, or comes back; gives the router that crashes.
    fn break_something(&mut self) -> Option<usize> {
        let shard = self.random.below(SHARDS);
        if !self.shards[shard].up {
            self.shards[shard].up = self.random.once_in(20);
        }
        if self.random.once_in(8) {
            let random = RefCell::new(&mut self.random);
            self.shards[shard].copy(|end| random.borrow_mut().below(end));
        }
        if !self.random.once_in(self.calm) {
            return None;
        }
        match self.random.below(10) {
            0..5 => {
                let busy = self.busy();
                if !busy.is_empty() {
                    let number = busy[self.random.below(busy.len())];
                    self.connections[number].router_open = false;
                }
            }
            what @ 5..9 => {
                self.shards[shard].up = !self.random.once_in(3);
                self.restart(shard, what == 8);
            }
            _ => return Some(self.random.below(ROUTERS)),
        }
        None
    }

    /// What a snapshot of all shards shows must be whole.
    pub fn check_snapshot(&self, rows: &[BTreeSet<Transaction>]) {
        for (transaction, known) in self.known.iter().filter(|(_, known)| !known.lossy) {
            let mut seen = known.writers.iter();
            let seen = seen
                .clone()
                .filter(|shard| rows[**shard].contains(transaction))
                .count()
                == seen.len()
                || !seen.any(|shard| rows[*shard].contains(transaction));
            assert!(seen, "a snapshot shows a part of {transaction}");
        }
    }

    pub fn tell(&mut self, transaction: Transaction, told: Told) {
        self.known.get_mut(&transaction).expect("it is known").told = Some(told);
    }
}

struct Task {
    router: usize,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

/// One seed's run.
pub struct World {
    shared: Shared,
    tasks: Vec<Task>,
    transactions: usize,
}

impl World {
    pub fn new(seed: u64, flaw: Option<Flaw>) -> Self {
        let mut random = Random::new(seed);
        let synchronous = random.once_in(2);
        let calm = 20 + random.below(200);
        let inner = Inner {
            random,
            flaw,
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            known: BTreeMap::new(),
            connections: Vec::new(),
            synchronous,
            live: Vec::new(),
            calm,
        };
        Self {
            shared: Rc::new(RefCell::new(inner)),
            tasks: Vec::new(),
            transactions: 0,
        }
    }

    /// Runs until all is settled; counts what clients were told.
    pub fn run(mut self, told: &mut BTreeMap<Told, usize>) {
        for _ in 0..STEPS {
            self.begin_something();
            self.step();
            let crashes = self.shared.borrow_mut().break_something();
            if let Some(router) = crashes {
                self.tasks.retain(|task| task.router != router);
            }
        }
        self.settle_and_check();
        for known in self.shared.borrow().known.values() {
            if let Some(what) = known.told {
                *told.entry(what).or_default() += 1;
            }
        }
    }

    fn draw(&self, end: usize) -> usize {
        self.shared.borrow_mut().random.below(end)
    }

    fn start(&mut self, router: usize, future: impl Future<Output = ()> + 'static) {
        let future = Box::pin(future);
        self.tasks.push(Task { router, future });
    }

    fn begin_something(&mut self) {
        if self.tasks.len() >= TASKS_MAX {
            return;
        }
        let (router, shared) = (self.draw(ROUTERS), self.shared.clone());
        match self.draw(100) {
            0..3 => {
                let transaction = self.transactions;
                self.transactions += 1;
                let known = {
                    let random = &mut shared.borrow_mut().random;
                    let mut writers: Vec<usize> = (0..SHARDS).collect();
                    writers.retain(|_| !random.once_in(4));
                    Known {
                        writers,
                        careless: random.once_in(2),
                        ..Known::default()
                    }
                };
                shared.borrow_mut().known.insert(transaction, known);
                self.start(router, router::transact(shared, transaction));
            }
            3 => self.start(router, router::recover(shared)),
            4 => self.start(router, router::read_consistently(shared)),
            // Others use up ids, too.
            5 => {
                let shard = self.draw(SHARDS);
                let shard = &mut shared.borrow_mut().shards[shard];
                let id = shard.assign();
                shard.commit(id, None, None, (false, false));
            }
            _ => {}
        }
    }

    /// One step of a task, a server or a link.
    fn step(&mut self) {
        let busy = self.shared.borrow_mut().busy();
        if busy.is_empty() || self.draw(2) == 0 {
            return self.poll();
        }
        let number = busy[self.draw(busy.len())];
        let first = self.draw(3);
        let mut inner = self.shared.borrow_mut();
        let ways = [Inner::execute, Inner::deliver, Inner::close];
        // The first that there is something for.
        let _ = (first..first + 3).any(|way| ways[way % 3](&mut inner, number));
    }

    fn poll(&mut self) {
        if self.tasks.is_empty() {
            return;
        }
        let chosen = self.draw(self.tasks.len());
        let mut context = Context::from_waker(Waker::noop());
        if self.tasks[chosen]
            .future
            .as_mut()
            .poll(&mut context)
            .is_ready()
        {
            drop(self.tasks.swap_remove(chosen));
        }
    }

    /// Everything comes up and stays; then recovery, and nothing but recovery, must leave all as it has to be.
    fn settle_and_check(&mut self) {
        {
            let mut inner = self.shared.borrow_mut();
            inner.shards.iter_mut().for_each(|shard| shard.up = true);
        }
        for round in 0..3 {
            let recovery = router::recover(self.shared.clone());
            self.start(ROUTERS, recovery);
            // The second and third also come after what the first sessions left.
            let mut steps = 0;
            while !self.tasks.is_empty() || round == 0 && self.has_open_ends() {
                self.poll();
                let mut inner = self.shared.borrow_mut();
                inner.shards.iter_mut().for_each(|shard| shard.write(true));
                for number in 0..inner.connections.len() {
                    let _ = inner.execute(number) || inner.deliver(number) || inner.close(number);
                }
                steps += 1;
                assert!(steps < SETTLE_STEPS, "something waits for ever");
            }
        }
        let inner = self.shared.borrow();
        for (number, shard) in inner.shards.iter().enumerate() {
            assert_eq!(shard.prepared(), [""; 0], "left prepared on {number}");
            let decisions = shard.decisions();
            assert!(decisions.is_empty(), "left on {number}: {decisions:?}");
        }
        for (transaction, known) in inner.known.iter().filter(|(_, known)| !known.lossy) {
            check_end(&inner, *transaction, known);
        }
    }

    fn has_open_ends(&self) -> bool {
        let inner = self.shared.borrow();
        let mut connections = inner.connections.iter();
        connections.any(|connection| connection.server_open && !connection.router_open)
    }
}

/// All or none; what was acknowledged is there, and what was said to be rolled back is not.
fn check_end(inner: &Inner, transaction: Transaction, known: &Known) {
    let shards = || known.writers.iter().map(|shard| &inner.shards[*shard]);
    let there = shards()
        .filter(|shard| shard.rows().contains(&transaction))
        .count();
    let all = known.writers.len();
    assert!(
        there == 0 || there == all,
        "{there} of {all} parts of {transaction} are there"
    );
    match known.told {
        Some(Told::Committed) => {
            let careless = known.careless && all == 1;
            assert!(
                there == all || careless,
                "{transaction} was acknowledged and is lost"
            );
        }
        Some(Told::RolledBack) => assert_eq!(there, 0, "{transaction} was said to be rolled back"),
        Some(Told::Unknown) | None => {}
    }
}

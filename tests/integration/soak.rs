//! Many clients on few connections: each keeps a model of its own session (settings, savepoints, rows, cursors, prepared
//! statements, advisory locks) and checks that the server shows it exactly that, and nothing of anybody else's.
//!
//! `PGRING_SOAK_SECONDS` makes it longer, `PGRING_SOAK_SEED` makes it another one.

use crate::support::client::{Failure, Reply};
use crate::support::{Client, Deployment, Target, setting};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SCHEMA: &str =
    "CREATE TABLE accounts (aid int PRIMARY KEY, balance int, CHECK (balance >= 0))";
const CLIENTS: usize = 200;
/// Rows of each client.
const ROWS: usize = 4;
/// One lock that all want.
const COMMON_LOCK: usize = 1_000_000;
/// How much of what happened a failure tells.
const STORY: usize = 40;

/// A password that takes little time to check: of 200 that log in at once, and of many that log in again.
const PASSWORD: &str = "soak";
const VERIFIER: &str = "SCRAM-SHA-256$1:MDEyMzQ1Njc4OWFiY2RlZg==\
    $rxkhddvCz5dDfziKVe3hYziCD2DIB50AsaK+VkW+5Wc=:iO0avUGj1SNJRjFuso3pTjYMSHXH4SsW4Snsy9oOojU=";

/// What clients set, and what it is where nobody has set it. PostgreSQL has no default for the last two.
const SETTINGS: [(&str, &str); 6] = [
    ("work_mem", "4MB"),
    ("lock_timeout", "0"),
    ("application_name", ""),
    ("timezone", "Etc/UTC"),
    ("my.first", ""),
    ("my.second", ""),
];

const TIME_ZONES: [&str; 4] = ["UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York"];

#[test]
fn clients_on_few_connections_see_only_their_own() {
    let seconds = setting("PGRING_SOAK_SECONDS", 4);
    let seed = setting("PGRING_SOAK_SEED", 1);
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .settings(&format!(
            "[[user]]\nname = \"postgres\"\npassword = \"{VERIFIER}\"\n\
             [pool]\nsize = 5\npinned = 2\nwait = \"400ms\""
        ))
        .start();
    let rows: Vec<String> = (0..CLIENTS * ROWS)
        .map(|aid| format!("({aid}, 0)"))
        .collect();
    let mut first = deployment.connect();
    first.run(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")));
    drop(first);
    let target = deployment.target().user("postgres", PASSWORD);
    let common = Common {
        until: Instant::now() + Duration::from_secs(seconds),
        stop: AtomicBool::new(false),
        locked: AtomicBool::new(false),
        statements: AtomicU64::new(0),
        crowded: AtomicU64::new(0),
    };
    let sum = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|id| {
                let (target, common) = (&target, &common);
                let random = Random(seed.wrapping_mul(1 << 20) + id as u64);
                scope.spawn(move || Session::live(id, random, target, common))
            })
            .collect();
        let ends = clients.into_iter().map(|client| client.join());
        let (sums, broken): (Vec<_>, Vec<_>) = ends.partition(Result::is_ok);
        if let Some(Err(panic)) = broken.into_iter().next() {
            resume_unwind(panic);
        }
        sums.into_iter().flatten().sum::<i64>()
    });
    let statements = common.statements.load(Ordering::Relaxed);
    let crowded = common.crowded.load(Ordering::Relaxed);
    println!("seed {seed}: {statements} statements, {crowded} found no connection");
    assert!(statements - crowded > 5 * CLIENTS as u64);
    let sums = deployment.on_each_shard("SELECT coalesce(sum(balance), 0) FROM accounts");
    let total: i64 = sums.iter().map(|sum| sum.parse::<i64>().unwrap()).sum();
    assert_eq!(total, sum, "all that was committed, and nothing else");
    assert_eq!(deployment.prepared(), [""; 0]);
}

/// What all clients share.
struct Common {
    until: Instant,
    /// One has failed.
    stop: AtomicBool,
    /// One has the common lock.
    locked: AtomicBool,
    statements: AtomicU64,
    /// Statements that found no connection in time.
    crowded: AtomicU64,
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

type Values = BTreeMap<&'static str, String>;

/// What a rollback returns to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    session: Values,
    local: Values,
    /// Those of them that are at their default.
    local_defaults: BTreeSet<&'static str>,
    balances: [i64; ROWS],
}

/// Whether PostgreSQL knows of a customized setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Never,
    /// What would have made it may not have reached a shard.
    Perhaps,
    Yes,
}

#[derive(Debug)]
struct Block {
    before: State,
    savepoints: Vec<(String, State)>,
    failed: bool,
    one_snapshot: bool,
}

#[derive(Debug)]
struct Cursor {
    name: String,
    balance: i64,
    fetched: bool,
    /// How many savepoints were there.
    depth: usize,
}

struct Session<'a> {
    id: usize,
    random: Random,
    target: &'a Target,
    common: &'a Common,
    client: Client,
    startup: Values,
    now: State,
    block: Option<Block>,
    made: BTreeMap<&'static str, Made>,
    cursors: Vec<Cursor>,
    prepared: bool,
    locks: usize,
    has_common_lock: bool,
    counter: usize,
    row: usize,
    story: VecDeque<String>,
}

/// What a statement came to that the model has no say in.
enum Said {
    Done(Reply),
    /// There was no connection for it, and nothing of it happened.
    Crowded,
    Failed(Failure),
}

impl<'a> Session<'a> {
    /// Lives until the time is over; gives what it has committed.
    fn live(id: usize, random: Random, target: &'a Target, common: &'a Common) -> i64 {
        let mut session = Self {
            id,
            random,
            target,
            common,
            client: connect(target, &[]),
            startup: Values::new(),
            now: State {
                session: Values::new(),
                local: Values::new(),
                local_defaults: BTreeSet::new(),
                balances: [0; ROWS],
            },
            block: None,
            made: BTreeMap::from([("my.first", Made::Never), ("my.second", Made::Never)]),
            cursors: Vec::new(),
            prepared: false,
            locks: 0,
            has_common_lock: false,
            counter: 0,
            row: 0,
            story: VecDeque::new(),
        };
        while Instant::now() < common.until && !common.stop.load(Ordering::Relaxed) {
            let step = catch_unwind(AssertUnwindSafe(|| session.step()));
            if let Err(panic) = step {
                common.stop.store(true, Ordering::Relaxed);
                let story: Vec<String> = session.story.iter().cloned().collect();
                eprintln!("client {id}, at last:\n{}\n", story.join("\n"));
                resume_unwind(panic);
            }
        }
        // What is not committed is not counted.
        if let Some(block) = session.block.take() {
            session.now = block.before;
        }
        session.now.balances.iter().sum()
    }

    fn tell(&mut self, what: String) {
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        self.story.push_back(what);
    }

    fn step(&mut self) {
        match &self.block {
            Some(block) if block.failed => self.recover(),
            Some(_) if self.random.once_in(5) => self.end(),
            Some(_) => self.act_in_block(),
            None if self.random.once_in(3) => self.begin(),
            None => self.act_outside(),
        }
    }

    fn act_outside(&mut self) {
        match self.random.below(20) {
            0..6 => self.check(),
            6..10 => self.set(),
            10 => self.show(),
            11 => self.reset_all(),
            12..14 => self.update(),
            14 => self.pipeline(),
            15 => self.string(),
            16 => self.lock(),
            17 => self.read_all(),
            18 if self.random.once_in(4) => self.discard_all(),
            18 => self.temporary_table(),
            _ if self.random.once_in(4) => self.reconnect(),
            _ => self.prepared_statement(),
        }
    }

    fn act_in_block(&mut self) {
        match self.random.below(20) {
            0..4 => self.check(),
            4..9 => self.set(),
            9 => self.show(),
            10 => self.reset_all(),
            11..13 => self.update(),
            13 | 14 => self.savepoint(),
            15 => self.end_savepoint(),
            16 => self.fail(),
            17 => self.cursor(),
            18 if self.random.once_in(2) => self.lock(),
            18 => self.prepared_statement(),
            _ if self.random.once_in(8) => self.reconnect(),
            _ => self.read_all(),
        }
    }

    // What is said and heard.

    fn say(&mut self, sql: &str) -> Said {
        self.tell(format!("> {sql}"));
        let reply = match self.random.below(3) {
            0 => self.client.extended(sql, &[], false),
            _ => self.client.simple(sql),
        };
        self.hear(reply)
    }

    fn hear(&mut self, reply: Reply) -> Said {
        self.common.statements.fetch_add(1, Ordering::Relaxed);
        let Some(failure) = &reply.failure else {
            let tags = reply.outcomes.iter().flat_map(|outcome| &outcome.tag);
            let tags: Vec<&str> = tags.map(String::as_str).collect();
            let heard = format!("< {} {}", tags.join(", "), reply.status);
            self.tell(heard);
            return Said::Done(reply);
        };
        self.tell(format!("< {failure} {}", reply.status));
        if let Some(block) = &mut self.block {
            block.failed = true;
        }
        match failure.code() {
            "53300" => {
                self.common.crowded.fetch_add(1, Ordering::Relaxed);
                Said::Crowded
            }
            "0A000"
                if failure.refusal() == Some("snapshot-isolation")
                    && self.block.as_ref().is_some_and(|block| block.one_snapshot) =>
            {
                Said::Crowded
            }
            _ => Said::Failed(failure.clone()),
        }
    }

    /// Says what must succeed if there is a connection for it.
    #[track_caller]
    fn succeeds(&mut self, sql: &str) -> Option<Reply> {
        match self.say(sql) {
            Said::Done(reply) => Some(reply),
            Said::Crowded => None,
            Said::Failed(failure) => panic!("{sql}\nfailed: {failure}"),
        }
    }

    // The model.

    fn in_force(&self, name: &str) -> Option<&String> {
        let now = self.now.local.get(name).or(self.now.session.get(name));
        now.or(self.startup.get(name))
    }

    /// Most often the same for some time, so that few blocks need several shards.
    fn row(&mut self) -> usize {
        if self.random.once_in(4) {
            self.row = self.random.below(ROWS);
        }
        self.row
    }

    fn depth(&self) -> usize {
        self.block
            .as_ref()
            .map_or(0, |block| block.savepoints.len())
    }

    fn roll_back(&mut self) {
        if let Some(block) = self.block.take() {
            self.now = block.before;
        }
        self.cursors.clear();
    }

    fn new_value(&mut self, name: &str) -> String {
        self.counter += 1;
        // Odd, so that PostgreSQL shows no larger unit.
        let number = 2 * (self.id * 50 + self.random.below(50)) + 1001;
        match name {
            "work_mem" => format!("{number}kB"),
            "lock_timeout" => format!("{}ms", 100_000 + number),
            "timezone" => TIME_ZONES[self.random.below(TIME_ZONES.len())].to_owned(),
            _ => format!("client {}, {}", self.id, self.counter),
        }
    }

    #[track_caller]
    fn is_as_modelled(&self, name: &str, shown: Option<&str>) {
        let (_, default) = SETTINGS[SETTINGS.iter().position(|(one, _)| *one == name).unwrap()];
        match (self.in_force(name), self.made.get(name)) {
            (Some(value), _) => assert_eq!(shown, Some(&**value), "{name}"),
            (None, None | Some(Made::Yes)) => assert_eq!(shown, Some(default), "{name}"),
            (None, Some(Made::Never)) => assert_eq!(shown, None, "{name} was never set"),
            (None, Some(Made::Perhaps)) => assert_eq!(shown.unwrap_or_default(), "", "{name}"),
        }
    }

    // What clients do.

    fn check(&mut self) {
        let row = self.row();
        let aid = self.id * ROWS + row;
        let sql = format!(
            "SELECT current_setting('work_mem'), current_setting('lock_timeout'), \
             current_setting('application_name'), current_setting('timezone'), \
             current_setting('my.first', true), current_setting('my.second', true), balance \
             FROM accounts WHERE aid = {aid}"
        );
        let Some(reply) = self.succeeds(&sql) else {
            return;
        };
        let row_shown = texts(&reply);
        for ((name, _), shown) in SETTINGS.iter().zip(&row_shown) {
            self.is_as_modelled(name, shown.as_deref());
        }
        let balance = self.now.balances[row].to_string();
        assert_eq!(row_shown.last().unwrap().as_deref(), Some(&*balance));
        for (name, reported) in [
            ("application_name", "application_name"),
            ("timezone", "TimeZone"),
        ] {
            self.is_as_modelled(
                name,
                self.client.parameters.get(reported).map(String::as_str),
            );
        }
    }

    fn show(&mut self) {
        let (name, _) = SETTINGS[self.random.below(4)];
        if let Some(reply) = self.succeeds(&format!("SHOW {name}")) {
            self.is_as_modelled(name, texts(&reply)[0].as_deref());
        }
    }

    fn read_all(&mut self) {
        let aids: Vec<String> = (0..ROWS)
            .map(|row| (self.id * ROWS + row).to_string())
            .collect();
        let sql = format!(
            "SELECT balance FROM accounts WHERE aid IN ({}) ORDER BY aid",
            aids.join(", ")
        );
        if let Some(reply) = self.succeeds(&sql) {
            let balances = self.now.balances.map(|balance| Some(balance.to_string()));
            assert_eq!(texts(&reply), balances);
        }
    }

    fn update(&mut self) {
        let row = self.row();
        let aid = self.id * ROWS + row;
        let sql = format!("UPDATE accounts SET balance = balance + 1 WHERE aid = {aid}");
        if self.succeeds(&sql).is_some() {
            self.now.balances[row] += 1;
        }
    }

    fn set(&mut self) {
        let (name, _) = SETTINGS[self.random.below(SETTINGS.len())];
        let value = self.new_value(name);
        let local = self.random.once_in(2);
        let scope = if local { "LOCAL" } else { "SESSION" };
        let way = self.random.below(8);
        let sql = match way {
            0 => format!("SET {scope} {name} TO DEFAULT"),
            1 if !local => format!("RESET {name}"),
            2 | 3 => format!("SELECT set_config('{name}', '{value}', {local})"),
            _ => format!("SET {scope} {name} = '{value}'"),
        };
        let to_default = way == 0 || (way == 1 && !local);
        let was_local = self.now.local.get(name).cloned();
        let said = self.say(&sql);
        if let Some(made) = self.made.get_mut(name) {
            *made = match (&said, *made) {
                (_, Made::Yes) | (Said::Done(_), _) => Made::Yes,
                _ => Made::Perhaps,
            };
        }
        match said {
            Said::Done(_) => {}
            Said::Crowded => return,
            // Whether it was called does not show.
            Said::Failed(failure)
                if failure.refusal() == Some("session-state")
                    && was_local == Some(value.clone()) =>
            {
                return;
            }
            // PostgreSQL makes a customized setting when it is first set, not when it is reset.
            Said::Failed(failure)
                if to_default && failure.code() == "42704" && self.made.contains_key(name) =>
            {
                return;
            }
            Said::Failed(failure) => panic!("{sql}\nfailed: {failure}"),
        }
        let default = self.startup.get(name).cloned();
        let in_block = self.block.is_some();
        if !local || in_block {
            self.now.local_defaults.remove(name);
        }
        match (local, to_default) {
            (true, _) if !in_block => {}
            (true, true) => {
                let (_, server) =
                    SETTINGS[SETTINGS.iter().position(|(one, _)| *one == name).unwrap()];
                let default = default.unwrap_or_else(|| server.to_owned());
                self.now.local.insert(name, default);
                self.now.local_defaults.insert(name);
            }
            (true, false) => {
                self.now.local.insert(name, value);
            }
            (false, true) => {
                self.now.session.remove(name);
                self.now.local.remove(name);
            }
            (false, false) => {
                self.now.session.insert(name, value);
                self.now.local.remove(name);
            }
        }
    }

    fn reset_all(&mut self) {
        if self.succeeds("RESET ALL").is_some() {
            // PostgreSQL passes over what is at its default.
            let defaults = &self.now.local_defaults;
            self.now.session.retain(|name, _| defaults.contains(name));
            self.now.local.retain(|name, _| defaults.contains(name));
        }
    }

    fn discard_all(&mut self) {
        self.unlock_common();
        if self.succeeds("DISCARD ALL").is_some() {
            self.now.session.clear();
            self.locks = 0;
            self.prepared = false;
        }
    }

    fn begin(&mut self) {
        let one_snapshot = self.random.once_in(8);
        let sql = match one_snapshot {
            true => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            false => "BEGIN",
        };
        self.succeeds(sql).expect("BEGIN needs no connection");
        self.block = Some(Block {
            before: self.now.clone(),
            savepoints: Vec::new(),
            failed: false,
            one_snapshot,
        });
    }

    fn end(&mut self) {
        let commit = !self.random.once_in(3);
        let chain = self.random.once_in(6);
        let word = if commit { "COMMIT" } else { "ROLLBACK" };
        let sql = if chain {
            format!("{word} AND CHAIN")
        } else {
            word.to_owned()
        };
        let Some(block) = &self.block else {
            return;
        };
        let (failed, one_snapshot) = (block.failed, block.one_snapshot);
        let Some(reply) = self.succeeds(&sql) else {
            // COMMIT itself needs no connection; asking for the modes of the next block may.
            return;
        };
        let tag = reply.outcomes[0].tag.clone().unwrap();
        assert_eq!(tag, if failed { "ROLLBACK" } else { word });
        if commit && !failed {
            self.block = None;
            self.now.local.clear();
            self.now.local_defaults.clear();
            self.cursors.clear();
        } else {
            self.roll_back();
        }
        assert_eq!(reply.status, if chain { 'T' } else { 'I' });
        if chain {
            self.block = Some(Block {
                before: self.now.clone(),
                savepoints: Vec::new(),
                failed: false,
                // Unless it failed; then it is allowed what it does not need.
                one_snapshot,
            });
        }
    }

    fn savepoint(&mut self) {
        let name = format!("s{}", self.random.below(3));
        if self.succeeds(&format!("SAVEPOINT {name}")).is_some() {
            let state = self.now.clone();
            let block = self.block.as_mut().unwrap();
            block.savepoints.push((name, state));
        }
    }

    fn end_savepoint(&mut self) {
        if self.random.once_in(2) {
            self.roll_back_to();
        } else {
            self.release();
        }
    }

    /// A savepoint's name and where the newest of that name is.
    fn some_savepoint(&mut self) -> Option<(String, usize)> {
        let name = format!("s{}", self.random.below(3));
        let block = self.block.as_ref()?;
        let place = block
            .savepoints
            .iter()
            .rposition(|(other, _)| *other == name)?;
        Some((name, place))
    }

    fn roll_back_to(&mut self) {
        let Some((name, place)) = self.some_savepoint() else {
            return;
        };
        if self.succeeds(&format!("ROLLBACK TO {name}")).is_none() {
            return;
        }
        let block = self.block.as_mut().unwrap();
        block.savepoints.truncate(place + 1);
        block.failed = false;
        self.now = block.savepoints[place].1.clone();
        self.cursors.retain(|cursor| cursor.depth <= place);
    }

    fn release(&mut self) {
        let Some((name, place)) = self.some_savepoint() else {
            return;
        };
        if self.succeeds(&format!("RELEASE {name}")).is_some() {
            self.block.as_mut().unwrap().savepoints.truncate(place);
            for cursor in &mut self.cursors {
                cursor.depth = cursor.depth.min(place);
            }
        }
    }

    fn fail(&mut self) {
        let aid = self.id * ROWS + self.random.below(ROWS);
        let (sql, code) = match self.random.below(4) {
            0 => ("SELECT 1 / 0".to_owned(), "22012"),
            1 => ("SET LOCAL work_mem = 'lots'".to_owned(), "22023"),
            2 => (
                format!("UPDATE accounts SET balance = -1 WHERE aid = {aid}"),
                "23514",
            ),
            _ => (format!("INSERT INTO accounts VALUES ({aid}, 0)"), "23505"),
        };
        match self.say(&sql) {
            Said::Done(_) => panic!("{sql}\nshould have failed"),
            Said::Crowded => {}
            Said::Failed(failure) => assert_eq!(failure.code(), code, "{sql}: {failure}"),
        }
    }

    /// In a failed block.
    fn recover(&mut self) {
        match self.random.below(4) {
            0 => {
                let sql = "SELECT 1";
                let Said::Failed(failure) = self.say(sql) else {
                    panic!("the block has failed");
                };
                assert_eq!(failure.code(), "25P02");
            }
            1 if self.depth() > 0 => self.roll_back_to(),
            _ => self.end(),
        }
    }

    fn cursor(&mut self) {
        let place = self.random.below(self.cursors.len() + 1);
        if place == self.cursors.len() {
            self.counter += 1;
            let name = format!("c{}", self.counter);
            let row = self.row();
            let aid = self.id * ROWS + row;
            let sql =
                format!("DECLARE {name} CURSOR FOR SELECT balance FROM accounts WHERE aid = {aid}");
            if self.succeeds(&sql).is_some() {
                self.cursors.push(Cursor {
                    name,
                    balance: self.now.balances[row],
                    fetched: false,
                    depth: self.depth(),
                });
            }
            return;
        }
        let name = self.cursors[place].name.clone();
        if self.random.once_in(3) {
            if self.succeeds(&format!("CLOSE {name}")).is_some() {
                self.cursors.remove(place);
            }
            return;
        }
        if let Some(reply) = self.succeeds(&format!("FETCH ALL FROM {name}")) {
            let cursor = &mut self.cursors[place];
            let left = (!cursor.fetched).then(|| Some(cursor.balance.to_string()));
            cursor.fetched = true;
            assert_eq!(texts(&reply), Vec::from_iter(left));
        }
    }

    fn prepared_statement(&mut self) {
        let row = self.row();
        let aid = (self.id * ROWS + row).to_string();
        let parse = !self.prepared && self.random.once_in(2);
        let sql = format!("SELECT {}, balance FROM accounts WHERE aid = $1", self.id);
        self.tell(format!(
            "> prepared{}",
            if parse { ", and parsed" } else { "" }
        ));
        self.client.message(|buffer| {
            if parse {
                frontend::parse("mine", &sql, [], buffer)?;
            }
            bind_and_execute("mine", &[&aid], buffer)?;
            frontend::sync(buffer);
            Ok(())
        });
        let reply = self.client.reply();
        match self.hear(reply) {
            Said::Done(reply) => {
                assert!(self.prepared || parse, "it was not prepared");
                self.prepared = true;
                let row = [self.id as i64, self.now.balances[row]];
                assert_eq!(texts(&reply), row.map(|value| Some(value.to_string())));
            }
            // Whether it was parsed is not known: ask no more of it.
            Said::Crowded if parse => self.deallocate(),
            Said::Crowded => {}
            Said::Failed(failure) => {
                assert!(!self.prepared && !parse, "{failure}");
                assert_eq!(failure.code(), "26000");
            }
        }
    }

    fn deallocate(&mut self) {
        self.tell("> close mine".to_owned());
        self.client.message(|buffer| {
            frontend::close(b'S', "mine", buffer)?;
            frontend::sync(buffer);
            Ok(())
        });
        let failure = self.client.reply().failure;
        assert_eq!(failure, None);
    }

    /// Several statements before one Sync: all of them or none.
    fn pipeline(&mut self) {
        let (name, _) = SETTINGS[self.random.below(4)];
        let value = self.new_value(name);
        let row = self.row();
        let aid = self.id * ROWS + row;
        let fails = self.random.once_in(2);
        let mut statements = vec![
            format!("SET {name} = '{value}'"),
            format!("UPDATE accounts SET balance = balance + 1 WHERE aid = {aid}"),
        ];
        if self.random.once_in(2) {
            statements.swap(0, 1);
        }
        if fails {
            statements.push("SELECT 1 / 0".to_owned());
        }
        self.tell(format!("> pipeline: {}", statements.join("; ")));
        self.client.message(|buffer| {
            for sql in &statements {
                frontend::parse("", sql, [], buffer)?;
                bind_and_execute("", &[], buffer)?;
            }
            frontend::sync(buffer);
            Ok(())
        });
        let reply = self.client.reply();
        match self.hear(reply) {
            Said::Done(_) => {
                assert!(!fails);
                self.now.session.insert(name, value);
                self.now.balances[row] += 1;
            }
            Said::Crowded => {}
            Said::Failed(failure) => assert!(fails && failure.code() == "22012", "{failure}"),
        }
    }

    /// Several statements in one string: a transaction.
    fn string(&mut self) {
        let row = self.row();
        let aid = self.id * ROWS + row;
        let value = self.new_value("my.first");
        let kept = self.new_value("work_mem");
        let sql = format!(
            "SET LOCAL my.first = '{value}'; SET work_mem = '{kept}'; \
             UPDATE accounts SET balance = balance + 1 WHERE aid = {aid} \
             RETURNING current_setting('my.first') || current_setting('work_mem')"
        );
        self.tell(format!("> {sql}"));
        let reply = self.client.simple(&sql);
        match self.hear(reply) {
            Said::Done(reply) => {
                assert_eq!(texts(&reply), [Some(format!("{value}{kept}"))]);
                self.made.insert("my.first", Made::Yes);
                self.now.session.insert("work_mem", kept);
                self.now.balances[row] += 1;
            }
            Said::Crowded if self.made["my.first"] == Made::Never => {
                self.made.insert("my.first", Made::Perhaps);
            }
            Said::Crowded => {}
            Said::Failed(failure) => panic!("{sql}\nfailed: {failure}"),
        }
    }

    /// Few clients do it: each keeps one of the few connections of a shard.
    fn lock(&mut self) {
        if !self.id.is_multiple_of(40) {
            return;
        }
        let id = self.id;
        match self.random.below(4) {
            0 => {
                if self
                    .succeeds(&format!("SELECT pg_advisory_lock({id})"))
                    .is_some()
                {
                    self.locks += 1;
                }
            }
            1 | 2 => {
                let sql = format!("SELECT pg_advisory_unlock({id})");
                if let Some(reply) = self.succeeds(&sql) {
                    let held = if self.locks > 0 { "t" } else { "f" };
                    assert_eq!(texts(&reply), [Some(held.to_owned())]);
                    self.locks = self.locks.saturating_sub(1);
                }
            }
            _ if self.has_common_lock => {
                self.unlock_common();
                self.succeeds(&format!("SELECT pg_advisory_unlock({COMMON_LOCK})"));
            }
            _ => {
                let sql = format!("SELECT pg_try_advisory_lock({COMMON_LOCK})");
                if let Some(reply) = self.succeeds(&sql)
                    && texts(&reply) == [Some("t".to_owned())]
                {
                    let other = self.common.locked.swap(true, Ordering::SeqCst);
                    assert!(!other, "two have the lock");
                    self.has_common_lock = true;
                }
            }
        }
    }

    /// From here on others may have it.
    fn unlock_common(&mut self) {
        if std::mem::take(&mut self.has_common_lock) {
            self.common.locked.store(false, Ordering::SeqCst);
        }
    }

    fn temporary_table(&mut self) {
        let sql = "CREATE TEMPORARY TABLE scratch (n int)";
        match self.say(sql) {
            Said::Crowded => return,
            Said::Failed(failure) => {
                assert_eq!(failure.refusal(), Some("temporary-table"), "{failure}");
                return;
            }
            Said::Done(_) => {}
        }
        let id = self.id;
        self.succeeds(&format!("INSERT INTO scratch VALUES ({id})"));
        if let Some(reply) = self.succeeds("SELECT n FROM scratch") {
            assert_eq!(texts(&reply), [Some(id.to_string())]);
        }
        self.succeeds("DROP TABLE scratch");
    }

    fn reconnect(&mut self) {
        self.unlock_common();
        self.roll_back();
        self.now.session.clear();
        self.now.local.clear();
        self.now.local_defaults.clear();
        self.locks = 0;
        self.prepared = false;
        self.startup.clear();
        self.made.values_mut().for_each(|made| *made = Made::Never);
        let mut options = String::new();
        if self.random.once_in(2) {
            let (work_mem, second) = (self.new_value("work_mem"), format!("second{}", self.id));
            options = format!("-c work_mem={work_mem} -c my.second={second}");
            self.startup.insert("work_mem", work_mem);
            self.startup.insert("my.second", second);
            self.made.insert("my.second", Made::Yes);
        }
        self.tell(format!("connects anew: {options}"));
        self.client = connect(self.target, &[("options", &options)]);
    }
}

/// Logs in, when there is a connection to a shard for it.
fn connect(target: &Target, parameters: &[(&str, &str)]) -> Client {
    let parameters: Vec<_> = parameters
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .copied()
        .collect();
    loop {
        match target.login(&parameters) {
            Ok(mut client) => {
                client.read_timeout(Duration::from_secs(60));
                return client;
            }
            Err(failure) => assert_eq!(failure.code(), "53300", "{failure}"),
        }
    }
}

/// The values of the last statement's rows, one after the other.
fn texts(reply: &Reply) -> Vec<Option<String>> {
    let rows = reply
        .outcomes
        .last()
        .into_iter()
        .flat_map(|outcome| &outcome.rows);
    rows.flatten()
        .map(|value| {
            value
                .as_ref()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        })
        .collect()
}

fn bind_and_execute(
    statement: &str,
    values: &[&str],
    buffer: &mut bytes::BytesMut,
) -> std::io::Result<()> {
    let put = |value: &&str, buffer: &mut bytes::BytesMut| {
        buffer.extend_from_slice(value.as_bytes());
        Ok(IsNull::No)
    };
    frontend::bind("", statement, [], values, put, [], buffer)
        .map_err(|_| std::io::Error::other("cannot bind"))?;
    frontend::execute("", 0, buffer)
}

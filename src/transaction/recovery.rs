//! Finishes what a crash left prepared. Every prepared part names its decider (see [`super::gid`]); the decider's row says
//! what becomes of the part, and goes when no part is left ([`super::forget`]). Any router may do this, at any time, beside
//! any other; nothing is guessed: what the decider cannot say stays prepared and is told. Start at [`run`].

use super::forget::Forgetting;
use super::gid::GlobalTransactionId;
use super::two_phase::{self, Answer, Verdict, judge};
use crate::backend::control::{Client, Control, ControlError};
use crate::topology::ShardId;
use futures_util::future::join_all;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

/// How long the work on one shard may take before it is left to the next round.
const SHARD_WAIT: Duration = Duration::from_secs(30);
/// How long one part may wait for the locks that finishing it needs.
const FINISH_WAIT: Duration = Duration::from_secs(10);
/// Session-level advisory lock of whoever recovers a shard: the bytes of "pgring" and one more.
const LOCK_KEY: i64 = 0x7067_7269_6e67_0001;
/// Between two looks at what is decided.
const SETTLE_PAUSE: Duration = Duration::from_millis(10);
/// A part that stays in doubt is logged this often, in rounds.
const LOG_EVERY: u64 = 60;

/// What became of the parts that were found prepared in one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Finished by COMMIT PREPARED.
    pub committed: usize,
    /// Finished by ROLLBACK PREPARED.
    pub rolled_back: usize,
    /// Their decider still runs the transaction.
    pub in_progress: usize,
    /// Nobody can say now.
    pub in_doubt: Vec<InDoubt>,
    /// Shards that could not be looked at.
    pub shards_skipped: usize,
}

/// A prepared part that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDoubt {
    /// Where it is prepared.
    pub shard: Arc<str>,
    /// Its name.
    pub gid: String,
    /// Since when.
    pub age: Duration,
    /// Why it is not finished.
    pub reason: String,
}

/// Recovers now and then at `recovery.interval` until the control plane is gone.
pub async fn run(control: Arc<Control>) {
    let interval = control.config().recovery.interval;
    let control = Arc::downgrade(&control);
    let mut rounds_in_doubt: HashMap<String, u64> = HashMap::new();
    let mut forgetting = Forgetting::default();
    loop {
        let Some(strong) = control.upgrade() else {
            return;
        };
        forgetting.begin(&strong).await;
        let (report, listed) = round(&strong).await;
        forgetting.go_on(&strong, &listed).await;
        drop(strong);
        if report.committed + report.rolled_back > 0 {
            tracing::info!(
                committed = report.committed,
                rolled_back = report.rolled_back,
                "prepared transactions were recovered"
            );
        }
        let still: HashSet<&String> = report.in_doubt.iter().map(|part| &part.gid).collect();
        rounds_in_doubt.retain(|gid, _| still.contains(gid));
        for part in &report.in_doubt {
            let rounds = rounds_in_doubt.entry(part.gid.clone()).or_default();
            // The first time it may be a decider that is down for a moment.
            if *rounds % LOG_EVERY == 1 {
                tracing::warn!(shard = %part.shard, gid = part.gid, age = ?part.age, reason = part.reason, "a transaction is in doubt");
            }
            *rounds += 1;
        }
        tokio::time::sleep(interval).await;
    }
}

/// Looks at every shard once and finishes what can be finished.
///
/// # Cancel safety
/// A dropped call leaves parts for the next one.
pub async fn recover_once(control: &Control) -> Report {
    round(control).await.0
}

/// What was prepared, on the shards that could be asked.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) shards: HashSet<ShardId>,
    pub(super) gids: Vec<GlobalTransactionId>,
}

async fn round(control: &Control) -> (Report, Listed) {
    let topology = control.topology.load_full();
    let shards = topology.shard_ids();
    let lists = shards.map(|shard| async move { (shard, parts(control, shard).await) });
    let mut listed = Listed::default();
    let mut report = Report::default();
    let mut work = Vec::new();
    for (shard, parts) in join_all(lists).await {
        match parts {
            Ok(parts) => {
                let gids = parts.iter().map(|part| part.text.parse());
                listed.shards.insert(shard);
                listed.gids.extend(gids.filter_map(Result::ok));
                work.push(recover_shard(control, shard, parts));
            }
            Err(error) => {
                tracing::debug!(%error, "recovery left out a shard");
                report.shards_skipped += 1;
            }
        }
    }
    for one in join_all(work).await {
        match one {
            Ok(one) => {
                report.committed += one.committed;
                report.rolled_back += one.rolled_back;
                report.in_progress += one.in_progress;
                report.in_doubt.extend(one.in_doubt);
            }
            Err(error) => {
                tracing::debug!(%error, "recovery left a shard");
                report.shards_skipped += 1;
            }
        }
    }
    (report, listed)
}

/// Finishes every part whose decider has committed, as long as that takes.
///
/// # Errors
/// Why it cannot be said of one whether its decider has.
pub async fn settle(control: &Control) -> Result<(), String> {
    loop {
        let topology = control.topology.load_full();
        let shards = topology.shard_ids();
        let decided = join_all(shards.map(|shard| has_decided(control, shard))).await;
        let decided: Result<Vec<bool>, String> = decided.into_iter().collect();
        if !decided?.contains(&true) {
            return Ok(());
        }
        recover_once(control).await;
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

/// Whether the shard has a part whose decider has committed.
async fn has_decided(control: &Control, shard: ShardId) -> Result<bool, String> {
    let parts = parts(control, shard).await;
    let mut decided = false;
    for part in parts.map_err(|error| error.to_string())? {
        let is_half = part.verdict(control).await.is_half_committed();
        decided |= is_half.map_err(|reason| format!("{} is in doubt: {reason}", part.text))?;
    }
    Ok(decided)
}

/// One prepared part.
struct Part {
    text: String,
    owner: String,
    age: Duration,
}

impl Part {
    async fn verdict(&self, control: &Control) -> Verdict {
        match self.text.parse::<GlobalTransactionId>() {
            Ok(gid) => ask_decider(control, &gid).await,
            Err(error) => Verdict::Unknown(error.to_string()),
        }
    }
}

const PREPARED: &str = "
    SELECT gid, pg_catalog.quote_ident(owner::pg_catalog.text),
           greatest(0, extract(epoch FROM pg_catalog.clock_timestamp() - prepared))::pg_catalog.float8
    FROM pg_catalog.pg_prepared_xacts
    WHERE database = pg_catalog.current_database() AND pg_catalog.starts_with(gid, $1)
    ORDER BY prepared";

/// A part as it is prepared on a shard, and what its decider says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Its name.
    pub gid: String,
    /// Whose it is, quoted as SQL needs it.
    pub owner: String,
    /// Since when.
    pub age: Duration,
    /// Who decides; None for a name that cannot be read.
    pub decider: Option<Arc<str>>,
    /// What the decider says, in words.
    pub verdict: String,
}

/// The parts that are prepared on the shard. Finishes none.
///
/// # Errors
/// [`ControlError`].
pub async fn prepared(control: &Control, shard: ShardId) -> Result<Vec<Prepared>, ControlError> {
    let mut prepared = Vec::new();
    for part in parts(control, shard).await? {
        let verdict = part.verdict(control).await;
        let gid = part.text.parse::<GlobalTransactionId>();
        prepared.push(Prepared {
            decider: gid.ok().map(|gid| gid.decider),
            gid: part.text,
            owner: part.owner,
            age: part.age,
            verdict: match verdict {
                Verdict::Committed => "committed".to_owned(),
                Verdict::Aborted => "aborted".to_owned(),
                Verdict::InProgress => "in progress".to_owned(),
                Verdict::Unknown(reason) => format!("unknown: {reason}"),
            },
        });
    }
    Ok(prepared)
}

/// Asks a shard, for as long as work on one may take.
pub(super) async fn ask_shard(
    control: &Control,
    shard: ShardId,
    sql: &str,
    arguments: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, ControlError> {
    let name = control.topology.load().shard_name(shard).clone();
    let asked = async {
        let client = control.client(shard).await?;
        let rows = client.query_typed(sql, arguments).await;
        rows.map_err(|source| ControlError::Query {
            shard: name.clone(),
            source,
        })
    };
    let late = ControlError::TimedOut {
        shard: name.clone(),
        after: SHARD_WAIT,
    };
    timeout(SHARD_WAIT, asked).await.unwrap_or(Err(late))
}

async fn parts(control: &Control, shard: ShardId) -> Result<Vec<Part>, ControlError> {
    let name = control.topology.load().shard_name(shard).clone();
    let query = |source| ControlError::Query {
        shard: name.clone(),
        source,
    };
    let prefix = GlobalTransactionId::prefix(&control.cluster());
    let rows = ask_shard(control, shard, PREPARED, &[(&prefix, Type::TEXT)]).await?;
    let read = |row: Row| {
        Ok(Part {
            text: row.try_get(0)?,
            owner: row.try_get(1)?,
            age: Duration::try_from_secs_f64(row.try_get(2)?).unwrap_or_default(),
        })
    };
    let rows = rows.into_iter();
    rows.map(|row| read(row).map_err(query)).collect()
}

async fn recover_shard(
    control: &Control,
    shard: ShardId,
    parts: Vec<Part>,
) -> Result<Report, ControlError> {
    let late = ControlError::TimedOut {
        shard: control.topology.load().shard_name(shard).clone(),
        after: SHARD_WAIT,
    };
    let finishing = finish_parts(control, shard, parts);
    timeout(SHARD_WAIT, finishing).await.unwrap_or(Err(late))
}

async fn finish_parts(
    control: &Control,
    shard: ShardId,
    parts: Vec<Part>,
) -> Result<Report, ControlError> {
    let mut report = Report::default();
    if parts.is_empty() {
        return Ok(report);
    }
    let client = control.client(shard).await?;
    let name = control.topology.load().shard_name(shard).clone();
    let query = |source| ControlError::Query {
        shard: name.clone(),
        source,
    };
    let locked = client
        .query_typed_one(
            "SELECT pg_catalog.pg_try_advisory_lock($1)",
            &[(&LOCK_KEY, Type::INT8)],
        )
        .await;
    if !locked
        .and_then(|row| row.try_get::<_, bool>(0))
        .map_err(query)?
    {
        // Another router is at it.
        return Ok(report);
    }
    // The lock ends with its connection, whatever happens in between.
    let client = Client::take(client);
    for part in parts {
        let verdict = part.verdict(control).await;
        let Some(verb) = verdict.outcome().verb() else {
            match verdict {
                Verdict::Unknown(reason) => report.in_doubt.push(InDoubt {
                    shard: name.clone(),
                    gid: part.text,
                    age: part.age,
                    reason,
                }),
                Verdict::InProgress | Verdict::Committed | Verdict::Aborted => {
                    report.in_progress += 1;
                }
            }
            continue;
        };
        match finish_part(&client, verb, &part).await {
            Ok(()) if verdict == Verdict::Committed => report.committed += 1,
            Ok(()) => report.rolled_back += 1,
            // Whoever was faster asked the same decider.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => {}
            Err(error) if error.as_db_error().is_none() => return Err(query(error)),
            Err(error) => {
                let reason = format!("{verb} failed: {}", crate::backend::store::reason(&error));
                report.in_doubt.push(InDoubt {
                    shard: name.clone(),
                    gid: part.text,
                    age: part.age,
                    reason,
                });
            }
        }
    }
    Ok(report)
}

async fn ask_decider(control: &Control, gid: &GlobalTransactionId) -> Verdict {
    let Some(decider) = control.topology.load().shard_named(&gid.decider) else {
        return Verdict::Unknown(format!("the shard map has no shard {}", gid.decider));
    };
    match ask(control, decider, gid).await {
        Ok(answer) => judge(&answer),
        Err(error) => Verdict::Unknown(error.to_string()),
    }
}

async fn ask(
    control: &Control,
    decider: ShardId,
    gid: &GlobalTransactionId,
) -> Result<Answer, ControlError> {
    let name = control.topology.load().shard_name(decider).clone();
    let query = |source| ControlError::Query {
        shard: name.clone(),
        source,
    };
    let status = ask_shard(control, decider, &two_phase::status_question(gid), &[]).await;
    let status = match status {
        Ok(rows) => first(&rows).map_err(query)?,
        // The id is not given out, or not any more after a crash.
        Err(ControlError::Query { source, .. })
            if source.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) =>
        {
            None
        }
        Err(error) => return Err(error),
    };
    let decided = ask_shard(control, decider, &two_phase::decision_question(gid), &[]).await?;
    let decided = first(&decided).map_err(query)?;
    Ok(Answer {
        status,
        decided: decided.as_deref() == Some("true"),
    })
}

fn first(rows: &[Row]) -> Result<Option<String>, tokio_postgres::Error> {
    rows.first().map_or(Ok(None), |row| row.try_get(0))
}

/// COMMIT PREPARED or ROLLBACK PREPARED, as its owner where that is another role.
async fn finish_part(
    client: &tokio_postgres::Client,
    verb: &str,
    part: &Part,
) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(&format!("SET lock_timeout = {}", FINISH_WAIT.as_millis()))
        .await?;
    // A superuser may finish all; a member of the owning role may as that role.
    client
        .batch_execute(&format!("SET ROLE {}", part.owner))
        .await?;
    // A parsed name holds no quote.
    let finished = client
        .batch_execute(&format!("{verb} '{}'", part.text))
        .await;
    client.batch_execute("RESET ROLE").await?;
    finished
}

//! What routers do: the conversations of `transaction::commit`, `recovery` and `visibility` with shards of the simulation.
//! What follows what, and what an answer proves, is the router's own code.

use crate::shard::{Decision as Row, Transaction};
use crate::world::{Flaw, Link, Lost, Reply, Request, SHARDS, Shared, Told, pause};
use futures_util::future::{join, join_all};
use pgring::transaction::gid::GlobalTransactionId;
use pgring::transaction::two_phase::{
    self, Answer, Decision, Outcome, Preparable, Step, Verdict, Vote,
};

const CLUSTER: &str = "sim";
/// How often recovery looks whether copies are level.
const LOOKS: usize = 10;

fn name_of(shard: usize) -> String {
    format!("s{shard}")
}

fn number_of(name: &str) -> usize {
    name[1..].parse().expect("a shard's number")
}

fn has(world: &Shared, flaw: Flaw) -> bool {
    world.borrow().flaw == Some(flaw)
}

/// A client's block over all shards: it writes on some, reads on the others, and commits.
pub async fn transact(world: Shared, transaction: Transaction) {
    let told = block(&world, transaction).await;
    world.borrow_mut().tell(transaction, told);
}

async fn block(world: &Shared, transaction: Transaction) -> Told {
    let writers = world.borrow().known[&transaction].writers.clone();
    let mut links = Vec::new();
    for shard in 0..SHARDS {
        let Ok(link) = Link::open(world, shard) else {
            return Told::RolledBack;
        };
        let request = if writers.contains(&shard) {
            Request::Write(transaction)
        } else {
            Request::Read
        };
        if link.call(request).await.is_err() {
            return Told::RolledBack;
        }
        links.push((shard, link));
    }
    let asked = join_all(links.iter().map(|(_, link)| link.call(Request::WhoWrote))).await;
    let (mut wrote, mut readers) = (Vec::new(), Vec::new());
    for ((shard, link), answer) in links.into_iter().zip(asked) {
        match answer {
            Ok(Reply::Wrote(Some(id))) => wrote.push((shard, link, id)),
            Ok(Reply::Wrote(None)) => readers.push(link),
            Ok(_) | Err(Lost) => return Told::RolledBack,
        }
    }
    let told = if wrote.len() >= 2 {
        let fitness = wrote
            .iter()
            .map(|_| match world.borrow_mut().random.below(4) {
                0 => Preparable::No,
                1 => Preparable::Perhaps,
                _ => Preparable::Yes,
            });
        let decider = two_phase::decider(fitness.collect::<Vec<_>>());
        world
            .borrow_mut()
            .known
            .get_mut(&transaction)
            .expect("it is known")
            .decider = Some(wrote[decider].0);
        commit_in_two_phases(world, wrote, decider).await
    } else if let Some((_, link, ..)) = wrote.first() {
        match link.call(Request::Commit).await {
            Ok(_) => Told::Committed,
            Err(Lost) => Told::Unknown,
        }
    } else {
        Told::Committed
    };
    join_all(readers.iter().map(|link| link.call(Request::Commit))).await;
    told
}

async fn commit_in_two_phases(
    world: &Shared,
    mut wrote: Vec<(usize, Link, u64)>,
    decider: usize,
) -> Told {
    let (shard, decider, xid) = wrote.remove(decider);
    let nonce = world.borrow_mut().random.next();
    let preparing: Vec<usize> = wrote.iter().map(|(shard, ..)| *shard).collect();
    let mut decider = Some(decider);
    let name = GlobalTransactionId {
        cluster: CLUSTER.into(),
        decider: name_of(shard).into(),
        nonce,
        xid,
        number: 0,
    };
    let named = |number| GlobalTransactionId {
        number,
        ..name.clone()
    };
    let mut others: Vec<_> = (1..)
        .zip(wrote)
        .map(|(number, (_, link, ..))| (link, named(number).to_string()))
        .collect();
    let mut prepared = Vec::new();
    let mut step = Step::Prepare;
    loop {
        step = match step {
            Step::Prepare => {
                let asked = std::mem::take(&mut others);
                let prepares = asked
                    .iter()
                    .map(|(link, gid)| link.call(Request::Prepare(gid.clone())));
                let ready = get_ready(&decider, nonce, preparing.clone());
                let (ready, answers) = join(ready, join_all(prepares)).await;
                let mut votes = vec![ready];
                for (answer, part) in answers.into_iter().zip(asked) {
                    votes.push(match answer {
                        Ok(Reply::Refused) => Vote::RolledBack,
                        Ok(_) => {
                            prepared.push(part);
                            Vote::Ready
                        }
                        Err(Lost) => Vote::Lost,
                    });
                }
                if has(world, Flaw::VotesNotCounted) {
                    votes.clear();
                }
                two_phase::voted(&votes)
            }
            Step::Decide => {
                let answer = match &decider {
                    Some(link) => link.call(Request::Commit).await,
                    None => Err(Lost),
                };
                two_phase::decided(match answer {
                    Ok(Reply::Refused) => Decision::RolledBack,
                    Ok(_) => Decision::Committed,
                    Err(Lost) if has(world, Flaw::SilenceIsRollback) => Decision::RolledBack,
                    Err(Lost) => {
                        decider = None;
                        Decision::Lost
                    }
                })
            }
            Step::Ask { time } => {
                pause().await;
                two_phase::told(ask(world, &name).await, time)
            }
            Step::Finish(outcome) => {
                let told = match outcome {
                    Outcome::Committed => Told::Committed,
                    Outcome::RolledBack => Told::RolledBack,
                    Outcome::Unknown => return Told::Unknown,
                };
                let commit = told == Told::Committed;
                join_all(
                    prepared
                        .iter()
                        .map(|(link, gid)| link.call(Request::Finish(gid.clone(), commit))),
                )
                .await;
                if !commit {
                    for (link, _) in &others {
                        let _ = link.call(Request::Rollback).await;
                    }
                }
                if let Some(link) = &decider {
                    if !commit {
                        let _ = link.call(Request::Rollback).await;
                    }
                    let _ = link.call(Request::Leave).await;
                }
                return told;
            }
        }
    }
}

async fn get_ready(decider: &Option<Link>, nonce: u64, others: Vec<usize>) -> Vote {
    let Some(link) = decider else {
        return Vote::Lost;
    };
    match link.call(Request::Ready(nonce, others)).await {
        Ok(_) => Vote::Ready,
        Err(Lost) => Vote::Lost,
    }
}

/// What a decider says of a transaction; None where it does not answer.
async fn ask(world: &Shared, gid: &GlobalTransactionId) -> Option<Verdict> {
    let link = Link::open(world, number_of(&gid.decider)).ok()?;
    let early = match has(world, Flaw::RowAskedFirst) {
        true => Some(has_row(world, &link, gid).await?),
        false => None,
    };
    let Ok(Reply::Status(status)) = link.call(Request::Status(gid.xid)).await else {
        return None;
    };
    let decided = match early {
        Some(decided) => decided,
        None if has(world, Flaw::StatusIsProof) => status.as_deref() == Some("committed"),
        None => has_row(world, &link, gid).await?,
    };
    Some(two_phase::judge(&Answer { status, decided }))
}

async fn has_row(world: &Shared, link: &Link, gid: &GlobalTransactionId) -> Option<bool> {
    let rows = decisions(link).await.ok()?;
    let any_nonce = has(world, Flaw::NonceNotCompared);
    let mut rows = rows.iter();
    Some(rows.any(|row| row.id == gid.xid && (row.nonce == gid.nonce || any_nonce)))
}

async fn decisions(link: &Link) -> Result<Vec<Row>, Lost> {
    match link.call(Request::Decisions).await? {
        Reply::Decisions(rows) => Ok(rows),
        _ => Err(Lost),
    }
}

async fn decisions_on(world: &Shared, shard: usize) -> Vec<Row> {
    let read = async { decisions(&Link::open(world, shard)?).await };
    read.await.unwrap_or_default()
}

async fn prepared_on(world: &Shared, shard: usize) -> Result<Vec<GlobalTransactionId>, Lost> {
    match Link::open(world, shard)?.call(Request::Prepared).await? {
        Reply::Names(names) => Ok(names
            .iter()
            .map(|gid| gid.parse().expect("a name of ours"))
            .collect()),
        _ => Err(Lost),
    }
}

/// One round of recovery.
pub async fn recover(world: Shared) {
    let (mut decided, mut boots) = (Vec::new(), Vec::new());
    for shard in 0..SHARDS {
        decided.push(decisions_on(&world, shard).await);
        boots.push(level(&world, shard).await.map(|(.., boot)| boot));
    }
    let mut listed = Vec::new();
    for shard in 0..SHARDS {
        listed.push(prepared_on(&world, shard).await);
    }
    if has(&world, Flaw::ForgottenTooSoon) {
        for (shard, decided) in decided.iter_mut().enumerate() {
            *decided = decisions_on(&world, shard).await;
        }
    }
    if are_copied(&world, &boots, &listed).await {
        for (shard, decided) in decided.into_iter().enumerate() {
            forget(&world, shard, decided, &listed).await;
        }
    }
    for (shard, parts) in listed.into_iter().enumerate() {
        for gid in parts.unwrap_or_default() {
            let Some(verdict) = ask(&world, &gid).await else {
                continue;
            };
            if verdict.outcome().verb().is_none() {
                continue;
            }
            let commit = verdict.outcome() == Outcome::Committed;
            if let Ok(link) = Link::open(&world, shard) {
                let _ = link.call(Request::Finish(gid.to_string(), commit)).await;
            }
        }
    }
}

async fn level(world: &Shared, shard: usize) -> Result<(usize, usize, u32), Lost> {
    match Link::open(world, shard)?.call(Request::Level).await? {
        Reply::Level(log, copied, boot) => Ok((log, copied, boot)),
        _ => Err(Lost),
    }
}

/// Whether the copies of the shards that listed what is prepared come to have all up to then, in a while.
async fn are_copied(
    world: &Shared,
    boots: &[Result<u32, Lost>],
    listed: &[Result<Vec<GlobalTransactionId>, Lost>],
) -> bool {
    if has(world, Flaw::CopiesNotAsked) {
        return true;
    }
    let is_same = |before, now| before == now || has(world, Flaw::BootNotCompared);
    let mut needed = Vec::new();
    for (shard, _) in listed.iter().enumerate().filter(|(_, list)| list.is_ok()) {
        match (&boots[shard], level(world, shard).await) {
            (Ok(before), Ok((log, _, boot))) if is_same(*before, boot) => {
                needed.push((shard, log, boot));
            }
            _ => return false,
        }
    }
    for _ in 0..LOOKS {
        pause().await;
        let mut all = true;
        for (shard, log, boot) in &needed {
            match level(world, *shard).await {
                Ok((_, copied, now)) if is_same(*boot, now) => all &= copied >= *log,
                Ok(_) | Err(Lost) => return false,
            }
        }
        if all {
            return true;
        }
    }
    false
}

/// Those decisions of a shard go whose parts are finished on all shards that prepared some.
async fn forget(
    world: &Shared,
    decider: usize,
    mut rows: Vec<Row>,
    listed: &[Result<Vec<GlobalTransactionId>, Lost>],
) {
    rows.retain(|row| {
        let is_of_row = |gid: &GlobalTransactionId| {
            number_of(&gid.decider) == decider && (gid.xid, gid.nonce) == (row.id, row.nonce)
        };
        let mut others = row.others.iter();
        others.all(|other| matches!(&listed[*other], Ok(gids) if !gids.iter().any(is_of_row)))
    });
    if !rows.is_empty()
        && let Ok(link) = Link::open(world, decider)
    {
        let _ = link.call(Request::Forget(rows)).await;
    }
}

/// Whether parts are half committed; Err where that cannot be said.
async fn is_half_committed(world: &Shared) -> Result<bool, Lost> {
    let mut half = false;
    for shard in 0..SHARDS {
        for gid in prepared_on(world, shard).await? {
            let verdict = ask(world, &gid).await.ok_or(Lost)?;
            half |= verdict.is_half_committed().map_err(|_| Lost)?;
        }
    }
    Ok(half)
}

/// A block with consistent snapshots of all shards.
pub async fn read_consistently(world: Shared) {
    let _ = snapshots(&world).await;
}

async fn snapshots(world: &Shared) -> Result<(), Lost> {
    let mut links = Vec::new();
    for shard in 0..SHARDS {
        links.push(Link::open(world, shard)?);
    }
    if !has(world, Flaw::SnapshotNotLocked) {
        for link in &links {
            link.call(Request::LockSnapshots).await?;
        }
    }
    while !has(world, Flaw::SnapshotNotSettled) && is_half_committed(world).await? {
        recover(world.clone()).await;
    }
    let mut rows = Vec::new();
    for answer in join_all(links.iter().map(|link| link.call(Request::Snapshot))).await {
        match answer? {
            Reply::Rows(shown) => rows.push(shown),
            _ => return Err(Lost),
        }
    }
    for link in &links {
        link.call(Request::UnlockSnapshots).await?;
    }
    world.borrow().check_snapshot(&rows);
    Ok(())
}

//! What routers do: the conversations of `transaction::commit`, `recovery` and `visibility` with shards of the simulation.
//! What follows what, and what an answer proves, is the router's own code.

use crate::shard::Transaction;
use crate::world::{Flaw, Link, Lost, Reply, Request, SHARDS, Shared, Told, pause};
use futures_util::future::join_all;
use pgring::transaction::gid::GlobalTransactionId;
use pgring::transaction::two_phase::{
    self, Answer, Decision, Outcome, Preparable, Step, Verdict, Vote,
};

const CLUSTER: &str = "sim";

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
            Ok(Reply::Wrote(Some(id), timeline)) => wrote.push((shard, link, id, timeline)),
            Ok(Reply::Wrote(None, _)) => readers.push(link),
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
    mut wrote: Vec<(usize, Link, u64, String)>,
    decider: usize,
) -> Told {
    let (shard, decider, xid, timeline) = wrote.remove(decider);
    let mut decider = Some(decider);
    let name = GlobalTransactionId {
        cluster: CLUSTER.into(),
        decider: name_of(shard).into(),
        timeline,
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
    let mut step = Step::MakeIdsDurable;
    loop {
        step = match step {
            Step::MakeIdsDurable => {
                let durable = match Link::open(world, shard) {
                    Ok(link) => link.call(Request::MakeIdsDurable).await.is_ok(),
                    Err(Lost) => false,
                };
                two_phase::named(durable)
            }
            Step::GetReady if has(world, Flaw::DeciderNotSeenAgain) => Step::Prepare,
            Step::GetReady => two_phase::ready(get_ready(&decider).await),
            Step::Prepare => {
                let asked = std::mem::take(&mut others);
                let prepares = asked
                    .iter()
                    .map(|(link, gid)| link.call(Request::Prepare(gid.clone())));
                let answers = join_all(prepares).await;
                let mut votes = Vec::new();
                if has(world, Flaw::DeciderNotSeenAgain) {
                    votes.push(get_ready(&decider).await);
                }
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

async fn get_ready(decider: &Option<Link>) -> Vote {
    let Some(link) = decider else {
        return Vote::Lost;
    };
    match link.call(Request::Ready).await {
        Ok(_) => Vote::Ready,
        Err(Lost) => Vote::Lost,
    }
}

/// What a decider says of a transaction; None where it does not answer.
async fn ask(world: &Shared, gid: &GlobalTransactionId) -> Option<Verdict> {
    let link = Link::open(world, number_of(&gid.decider)).ok()?;
    let Ok(Reply::Status(status)) = link.call(Request::Status(gid.xid)).await else {
        return None;
    };
    let Ok(Reply::Timeline(timeline)) = link.call(Request::Timeline).await else {
        return None;
    };
    let timeline = if has(world, Flaw::TimelineNotAsked) {
        gid.timeline.clone()
    } else {
        timeline
    };
    Some(two_phase::judge(gid, &Answer { status, timeline }))
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
    for shard in 0..SHARDS {
        let Ok(parts) = prepared_on(&world, shard).await else {
            continue;
        };
        for gid in parts {
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

//! [`ask`]: a question that every shard answers for itself. Knows no question.

use super::AdminError;
use crate::backend::control::Control;
use crate::router::Router;
use crate::topology::ShardId;
use futures_util::future::join_all;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long one shard may take to answer.
const SHARD_WAIT: Duration = Duration::from_secs(10);

/// Asks all shards at once. Gives what they answered, in their order, and beside it what people should hear of those that
/// did not.
pub(super) async fn ask<T, E, F>(
    router: &Router,
    question: impl Fn(Arc<Control>, ShardId) -> F + Send + 'static,
) -> Result<(Vec<T>, Vec<String>), AdminError>
where
    T: Send + 'static,
    E: Display + Send + 'static,
    F: Future<Output = Result<Vec<T>, E>> + Send,
{
    let control = router.control.clone();
    let answers = router.control.run(async move {
        let topology = control.topology.load_full();
        let shards = topology.shard_ids().map(|shard| {
            let asked = question(control.clone(), shard);
            async move { (shard, timeout(SHARD_WAIT, asked).await) }
        });
        let answers = join_all(shards).await.into_iter();
        let named = answers.map(|(shard, answer)| (topology.shard_name(shard).clone(), answer));
        Ok(named.collect::<Vec<_>>())
    });
    let (mut all, mut notices) = (Vec::new(), Vec::new());
    for (shard, answer) in answers.await? {
        match answer {
            Ok(Ok(answer)) => all.extend(answer),
            Ok(Err(error)) => notices.push(error.to_string()),
            Err(_) => notices.push(format!(
                "shard {shard} did not answer within {SHARD_WAIT:?}"
            )),
        }
    }
    Ok((all, notices))
}

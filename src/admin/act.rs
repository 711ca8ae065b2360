//! What the console changes, one function a verb. Each verb may be given again: what is so already stays so.

use super::AdminError;
use super::answer::{Answer, row};
use super::command::Change;
use crate::router::Router;
use crate::transaction::recovery;
use std::sync::Arc;

/// Does what the command says.
///
/// # Errors
/// [`AdminError`].
pub async fn run(router: &Arc<Router>, change: &Change) -> Result<Answer, AdminError> {
    match change {
        Change::RecoverTransactions => recover_transactions(router).await,
    }
}

async fn recover_transactions(router: &Arc<Router>) -> Result<Answer, AdminError> {
    let control = router.control.clone();
    let round = async move { Ok(recovery::recover_once(&control).await) };
    let report = router.control.run(round).await?;
    let rows = vec![row![
        report.committed,
        report.rolled_back,
        report.in_progress,
        report.in_doubt.len(),
        report.shards_skipped
    ]];
    Ok(Answer::rows(rows))
}

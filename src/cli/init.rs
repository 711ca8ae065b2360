//! `pgring init`: makes the schema `pgring` on new shards and gives out the slots.

use super::ConfigArgument;
use super::check::columns;
use crate::backend::init::{self, InitReport};

/// Create the pgring schema on new shards and give out the slots
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Init {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        let InitReport {
            cluster_id,
            shards,
            warnings,
        } = init::init(&config).await?;
        for warning in warnings {
            eprintln!("pgring: warning: {warning}");
        }
        let mut rows = vec![["shard", "slots"].map(str::to_owned)];
        rows.extend(
            shards
                .iter()
                .map(|(name, slots)| [name.to_string(), slots.len().to_string()]),
        );
        let directory = config.directory.display();
        let report = format!(
            "made cluster {cluster_id}\n\n{}\nnext: pgring serve -c {directory}\n",
            columns(&rows)
        );
        Ok(super::print(&report)?)
    }
}

//! `pgring init`: makes the schema `pgring` on new shards and gives out the slots.

use super::ConfigArgument;
use crate::backend::control;

/// Create the pgring schema on new shards and give out the slots
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Init {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        control::init(&config).await?;
        Ok(super::print(&format!(
            "{} shards are ready: pgring serve -c {}\n",
            config.shards.len(),
            config.directory.display()
        ))?)
    }
}

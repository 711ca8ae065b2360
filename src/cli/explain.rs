//! `pgring explain`: how statements would be routed, by the schema and ownership that the shards have now. Runs none.

use super::ConfigArgument;
use crate::admin::route;
use crate::backend::control::Control;
use crate::planner::Context;
use crate::sql::lex;
use crate::sql::search_path;
use crate::sql::split;
use crate::wire::error_response::ErrorReply;
use std::fmt::Write;
use std::sync::Arc;

/// Show how a statement would be routed, or why it is refused, without running it
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    #[command(flatten)]
    config: ConfigArgument,
    /// The statement; several are separated by semicolons
    sql: String,
}

impl Explain {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = Arc::new(self.config.load()?);
        let control = Control::observe(config.clone()).await?;
        let topology = control.topology.load_full();
        let search_path = search_path::parse(&control.default_search_path(), &config.backend.user)?;
        let limits = route::lex_limits(&config);
        let tokens = lex::lex(&self.sql, &limits).map_err(|error| refusal(&error))?;
        for range in split::split(&self.sql, &tokens) {
            let context = Context {
                topology: &topology,
                search_path: &search_path,
                hint: None,
                limits: &limits,
            };
            let lines = route::explain(&self.sql[range.text], &context)
                .map_err(|error| refusal(error.as_ref()))?;
            super::print(&format!("{}\n", lines.join("\n")))?;
        }
        Ok(())
    }
}

/// As psql shows an error.
fn refusal(error: &dyn ErrorReply) -> anyhow::Error {
    let mut text = format!("{} {error}", error.sqlstate());
    let code = error.refusal().map(|code| format!("refusal: {code}"));
    for line in [
        error.detail().map(|detail| format!("detail: {detail}")),
        error.hint().map(|hint| format!("hint: {hint}")),
        code,
    ]
    .into_iter()
    .flatten()
    {
        let _ = write!(text, "\n  {line}");
    }
    anyhow::Error::msg(text)
}

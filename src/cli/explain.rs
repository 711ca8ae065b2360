//! `pgring explain`: how statements would be routed, by the schema and ownership that the shards have now. Runs none.

use super::ConfigArgument;
use crate::backend::control::Control;
use crate::config::Config;
use crate::planner::{self, Binding, Context, CopyRoute, PlanError};
use crate::sql::copy::CopyDirection;
use crate::sql::lex::{self, LexLimits};
use crate::sql::search_path;
use crate::sql::split;
use crate::sql::statement::{self, Statement};
use crate::topology::snapshot::Topology;
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
        let limits = lex_limits(&config);
        let tokens = lex::lex(&self.sql, &limits).map_err(|error| refusal(&error))?;
        for range in split::split(&self.sql, &tokens) {
            let context = Context {
                topology: &topology,
                search_path: &search_path,
                hint: None,
                limits: &limits,
            };
            let lines = explain(&self.sql[range.text], &context)
                .map_err(|error| refusal(error.as_ref()))?;
            super::print(&format!("{}\n", lines.join("\n")))?;
        }
        Ok(())
    }
}

fn lex_limits(config: &Config) -> LexLimits {
    LexLimits {
        tokens_max: config.limits.statement_tokens,
        depth_max: config.limits.statement_depth,
    }
}

fn explain(sql: &str, context: &Context<'_>) -> Result<Vec<String>, Box<dyn ErrorReply>> {
    let tokens = lex::lex(sql, context.limits).map_err(boxed)?;
    let statement = statement::classify(sql, &tokens).map_err(boxed)?;
    let topology = context.topology;
    match &statement {
        Statement::Query(_) => explain_query(sql, context).map_err(boxed),
        Statement::Explain { body, .. } => explain(body.text, context),
        Statement::Copy(copy) => match copy.direction {
            CopyDirection::From => {
                let route = planner::copy_from(copy, sql, context).map_err(boxed)?;
                Ok(vec![describe_copy(&route, topology)])
            }
            CopyDirection::To => {
                let plan = planner::copy_to(copy, sql, context, None, 0).map_err(boxed)?;
                Ok(plan.describe(topology))
            }
        },
        Statement::Truncate(_) | Statement::Ddl(_) | Statement::Maintenance { .. } => {
            let plan = planner::utility(&statement, sql, &tokens, context).map_err(boxed)?;
            Ok(plan.describe(topology))
        }
        _ => Ok(vec![format!(
            "{}: the session's own, no shard is chosen before it runs",
            statement.command_word()
        )]),
    }
}

fn describe_copy(route: &CopyRoute, topology: &Topology) -> String {
    match route {
        CopyRoute::One(shard) => format!("all rows to {}", topology.shard_name(*shard)),
        CopyRoute::AllShards(_) => "all rows to every shard".to_owned(),
        CopyRoute::Split(split) => format!("each row to the shard of its {}", split.name),
    }
}

fn explain_query(sql: &str, context: &Context<'_>) -> Result<Vec<String>, PlanError> {
    let topology: &Topology = context.topology;
    let template = planner::template(sql, &[], context)?;
    let binding = Binding {
        values: &[],
        formats: &[],
        preferred: None,
        spread: 0,
        drawn: &[],
        cursor: None,
    };
    Ok(template.plan(&binding, topology)?.describe(topology))
}

fn boxed(error: impl ErrorReply + 'static) -> Box<dyn ErrorReply> {
    Box::new(error)
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

//! How statements would be routed, by the schema and ownership that the router knows. Runs none.

use super::AdminError;
use super::answer::{Answer, Cell, Row, row};
use crate::config::Config;
use crate::planner::{self, Binding, Context, CopyRoute, PlanError, Template};
use crate::router::Router;
use crate::sql::copy::CopyDirection;
use crate::sql::lex::{self, LexLimits, TokenKind};
use crate::sql::search_path;
use crate::sql::split;
use crate::sql::statement::{self, Statement};
use crate::topology::snapshot::Topology;
use crate::wire::error_response::ErrorReply;
use std::collections::BTreeMap;

/// An error of whatever looked at the statement.
pub type Refused = Box<dyn ErrorReply + Send + Sync>;

/// What statements may hold.
pub fn lex_limits(config: &Config) -> LexLimits {
    LexLimits {
        tokens_max: config.limits.statement_tokens,
        depth_max: config.limits.statement_depth,
    }
}

/// The statements of a string, in lines.
pub(super) fn explain_all(router: &Router, sql: &str) -> Result<Answer, AdminError> {
    let (config, topology) = (router.control.config(), router.topology());
    let limits = lex_limits(&config);
    let refused = |error| AdminError::Refused(error);
    let path = router.control.default_search_path();
    let path = search_path::parse(&path, &config.backend.user);
    let search_path = path.map_err(boxed).map_err(refused)?;
    let context = Context {
        topology: &topology,
        search_path: &search_path,
        hint: None,
        limits: &limits,
    };
    let tokens = lex::lex(sql, &limits).map_err(boxed).map_err(refused)?;
    let mut lines = Vec::new();
    for range in split::split(sql, &tokens) {
        lines.extend(explain(&sql[range.text], &context).map_err(refused)?);
    }
    Ok(Answer::rows(
        lines.into_iter().map(|line| row![line]).collect(),
    ))
}

/// How one statement would be routed, in lines.
///
/// # Errors
/// Why it is refused.
pub fn explain(sql: &str, context: &Context<'_>) -> Result<Vec<String>, Refused> {
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
                let copied = planner::copy_to(copy, sql, context, None, 0).map_err(boxed)?;
                Ok(copied.plan.describe(topology))
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

fn boxed(error: impl ErrorReply + Send + Sync + 'static) -> Refused {
    Box::new(error)
}

/// The statements whose plans are cached.
pub(super) fn statements(router: &Router) -> Vec<Row> {
    let topology = router.topology();
    let limits = lex_limits(&router.control.config());
    let templates = router
        .templates
        .iter()
        .map(|(key, template)| (key.sql, template));
    let shapes = router.shapes.iter();
    let shapes = shapes.filter_map(|(key, template)| Some((key.sql, template?)));
    let mut rows = BTreeMap::new();
    for (sql, template) in templates.chain(shapes) {
        let Some(text) = without_literals(&sql, &limits) else {
            continue;
        };
        let (tier, refusal) = tier(&template, &topology);
        let parameters = template.placing_parameters();
        let parameters: Vec<String> = parameters
            .iter()
            .map(|index| format!("${}", index + 1))
            .collect();
        rows.insert(
            text.clone(),
            row![text, tier, parameters.join(","), refusal],
        );
    }
    rows.into_values().collect()
}

/// How it is answered, as far as its text says; or why it is refused.
fn tier(template: &Template, topology: &Topology) -> (Cell, Cell) {
    if !template.placing_parameters().is_empty() {
        return ("by key".into(), Cell::Null);
    }
    match template.plan(&Binding::default(), topology) {
        Ok(plan) => (plan.tier.words().into(), Cell::Null),
        Err(error) => (Cell::Null, error.refusal().into()),
    }
}

/// The text on one line, with `?` for each literal.
fn without_literals(sql: &str, limits: &LexLimits) -> Option<String> {
    let tokens = lex::lex(sql, limits).ok()?;
    let mut shown = String::new();
    let mut end = None;
    for token in tokens {
        if end.is_some_and(|end| end < token.start) {
            shown.push(' ');
        }
        let is_literal = token.is_string()
            || matches!(
                token.kind,
                TokenKind::Number | TokenKind::BitString | TokenKind::NationalString
            );
        shown.push_str(if is_literal { "?" } else { token.text(sql) });
        end = Some(token.end);
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_not_shown() {
        let limits = LexLimits {
            tokens_max: 100,
            depth_max: 10,
        };
        let shown = |sql| without_literals(sql, &limits);
        let sql = "SELECT  a, 'secret' /* note */ FROM t\nWHERE id=12 AND b = $1 AND c = E'x' AND d = X'ff'";
        let expected = "SELECT a, ? FROM t WHERE id=? AND b = $1 AND c = ? AND d = ?";
        assert_eq!(shown(sql).as_deref(), Some(expected));
        assert_eq!(shown("SELECT 'open"), None);
    }
}

//! CREATE TABLE AS and CREATE MATERIALIZED VIEW: the definition goes to every shard as that of any relation does, the
//! rows to where the relation is at home.

use super::ddl;
use super::plan::{Access, Merge, Plan, StepSql, Tier};
use super::refusal::{PlanError, Refusal};
use super::template::{self, Binding, Context, all_shards};
use crate::sql::lex::Token;
use crate::sql::reader::Body;
use crate::sql::statement::Name;
use crate::topology::ShardId;

/// The statement's text in parts.
struct Parts<'a> {
    /// What stands in front of the query.
    before: &'a str,
    /// Whether the relation gets the query's rows.
    with_data: bool,
    /// Without WITH DATA or WITH NO DATA.
    query: &'a str,
    /// What every shard but the one with the rows runs.
    without_data: String,
}

/// Takes the statement apart at its tokens.
fn parts<'a>(sql: &'a str, tokens: &[Token], body: &Body<'_>) -> Option<Parts<'a>> {
    let of_body = tokens.get(body.first_token..)?;
    let ends_with = |words: &[&str]| {
        let count = of_body.len().checked_sub(words.len())?;
        let (before, last) = of_body.split_at(count);
        let same = last
            .iter()
            .zip(words)
            .all(|(token, word)| token.is(sql, word));
        // After a period it is the name of a column.
        let is_clause = before
            .last()
            .is_some_and(|token| !token.is_symbol(sql, "."));
        (same && is_clause).then_some(count)
    };
    let no_data = ends_with(&["with", "no", "data"]);
    let of_query = no_data
        .or_else(|| ends_with(&["with", "data"]))
        .unwrap_or(of_body.len());
    let (first, last) = (of_body.first()?, of_body.get(of_query.checked_sub(1)?)?);
    Some(Parts {
        before: &sql[tokens.first()?.start..first.start],
        with_data: no_data.is_none(),
        query: &sql[first.start..last.end],
        without_data: format!("{} WITH NO DATA", &sql[tokens.first()?.start..last.end]),
    })
}

fn refused(reason: impl Into<String>) -> PlanError {
    PlanError::refused(Refusal::CreateTableAs, reason.into())
}

/// Plans the statement, to which no hint applies.
///
/// # Errors
/// The relation is declared to be elsewhere than on the default shard, or its rows come from elsewhere.
pub(super) fn create_as(
    relation: &Name<'_>,
    materialized_view: bool,
    body: &Body<'_>,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<Plan, PlanError> {
    let topology = context.topology;
    let what = if materialized_view {
        "CREATE MATERIALIZED VIEW"
    } else {
        "CREATE TABLE AS"
    };
    if ddl::is_placed(relation, context) {
        return Err(refused(format!(
            "{what} of {}, which the shard map declares, would fill it on one shard only",
            relation.name
        )));
    }
    let parts = parts(sql, tokens, body).ok_or_else(|| PlanError::Internal {
        what: "CREATE TABLE AS without a query".into(),
    })?;
    let template = template::template(parts.query, &[], context)?;
    template.refuse_session_effects()?;
    if template.is_temporary() && topology.is_spread() {
        return Err(PlanError::refused(
            Refusal::TemporaryTable,
            format!("{what} from a temporary table, which the other shards do not have"),
        ));
    }
    let plan = template.plan(&Binding::default(), topology)?;
    let home = match (plan.tier, plan.steps.as_slice()) {
        // A view is at home where the tables are that it shows, a table on the default shard.
        (Tier::NamedShard, [step])
            if step.shard == topology.default_shard
                || (materialized_view && template.has_locals()) =>
        {
            step.shard
        }
        (Tier::NamedShard, _) => {
            return Err(refused(format!(
                "{what} from local tables of another shard than the default one"
            )));
        }
        (Tier::AnyShard | Tier::Catalog, _) => topology.default_shard,
        (
            Tier::SingleShard | Tier::PushDown | Tier::Partial | Tier::Gather | Tier::AllShards,
            _,
        ) if materialized_view => {
            return Err(refused(format!(
                "{what} from sharded tables would show rows of one shard only"
            )));
        }
        (
            Tier::SingleShard | Tier::PushDown | Tier::Partial | Tier::Gather | Tier::AllShards,
            _,
        ) => return made_of_sharded(&parts, context),
    };
    if materialized_view && !template.has_locals() {
        // It is read on any shard, as what it shows would be.
        if let Some(reason) = template.copies_differ() {
            return Err(refused(format!(
                "{what}, which each shard has rows of: {reason}"
            )));
        }
        return Ok(all_shards(Access::Ddl, topology));
    }
    Ok(filled_on(home, &parts.without_data, context))
}

/// A table of the default shard whose rows are gathered there first.
fn made_of_sharded(parts: &Parts<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let topology = context.topology;
    let home = topology.default_shard;
    // It must be one that can be gathered, so that what is made does not depend on whether it has rows.
    let template = template::template_at_home(parts.query, context)?;
    let gathered = template.plan_home(home, topology)?;
    let [query] = gathered.steps.as_slice() else {
        return Err(refused("a query that several shards answer"));
    };
    if !parts.with_data || !topology.is_spread() {
        return Ok(all_shards(Access::Ddl, topology));
    }
    let StepSql::Rewritten(text) = &query.sql else {
        return Err(refused("a query that is not gathered"));
    };
    let mut plan = filled_on(home, &parts.without_data, context);
    for step in plan.steps.iter_mut().filter(|step| step.shard == home) {
        step.sql = StepSql::Rewritten(format!("{}{text}", parts.before).into());
        step.arguments = query.arguments.clone();
    }
    plan.inputs = gathered.inputs;
    Ok(plan)
}

/// As sent on one shard, without rows on the others.
fn filled_on(home: ShardId, without_data: &str, context: &Context<'_>) -> Plan {
    let mut plan = all_shards(Access::Ddl, context.topology);
    if plan.steps.len() == 1 {
        return plan;
    }
    for (step, place) in plan.steps.iter_mut().zip(0u16..) {
        if step.shard == home {
            plan.merge = Merge::Of(place);
        } else {
            step.sql = StepSql::Rewritten(without_data.into());
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::catalog_text;
    use crate::sql::lex;
    use crate::sql::statement::{self, Statement};

    #[test]
    fn the_clause_at_the_end_is_replaced_and_nothing_else() {
        let cases = [
            (
                "CREATE TABLE t AS SELECT 1",
                "SELECT 1",
                "CREATE TABLE t AS SELECT 1",
            ),
            (
                "create table t (a) on commit drop as (select 1) with data -- so",
                "(select 1)",
                "create table t (a) on commit drop as (select 1)",
            ),
            (
                "CREATE TABLE t AS TABLE s WITH /* no */ NO DATA",
                "TABLE s",
                "CREATE TABLE t AS TABLE s",
            ),
            (
                "CREATE TABLE t AS SELECT 'with no data'",
                "SELECT 'with no data'",
                "CREATE TABLE t AS SELECT 'with no data'",
            ),
            (
                "CREATE TABLE t AS WITH data AS (SELECT 1) SELECT * FROM data -- with data",
                "WITH data AS (SELECT 1) SELECT * FROM data",
                "CREATE TABLE t AS WITH data AS (SELECT 1) SELECT * FROM data",
            ),
            (
                "CREATE TABLE t AS SELECT (r).with data",
                "SELECT (r).with data",
                "CREATE TABLE t AS SELECT (r).with data",
            ),
        ];
        for (sql, query, before) in cases {
            let tokens = lex::lex(sql, &catalog_text::LIMITS).unwrap();
            let Ok(Statement::CreateTableAs { body, .. }) = statement::classify(sql, &tokens)
            else {
                panic!("{sql}")
            };
            let parts = parts(sql, &tokens, &body).unwrap();
            assert_eq!(parts.query, query);
            assert!(sql.starts_with(&format!("{}{query}", parts.before)));
            assert_eq!(parts.with_data, !sql.ends_with("NO DATA"));
            assert_eq!(parts.without_data, format!("{before} WITH NO DATA"));
        }
    }
}

//! Temporary relations, which one server session has, on the default shard: [`plan`] says which statements are about
//! them, and refuses those that would mean them here and something else, or nothing, on other shards. Queries are
//! placed as those of local tables are, since [`crate::topology::schema`] knows them as such.

use super::plan::{Access, Plan, StepSql, Tier};
use super::refusal::{PlanError, Refusal};
use super::template::{self, Binding, Context};
use super::utility::{hinted, one};
use crate::sql::definition;
use crate::sql::lex::{self, Token};
use crate::sql::reader::{Name, Reader};
use crate::sql::statement::{Ddl, DdlVerb, Maintenance, ObjectKind, Statement};
use crate::topology::schema::{Placement, Relation, TEMPORARY};
use crate::topology::snapshot::Topology;
use std::sync::Arc;

fn refused(reason: impl Into<Arc<str>>) -> PlanError {
    PlanError::refused(Refusal::TemporaryTable, reason)
}

/// Plans a statement that makes temporary relations, or is about those that there are; None for all others.
///
/// # Errors
/// It is about others as well, or makes what only its server session would know.
pub fn plan(
    statement: &Statement<'_>,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<Option<Plan>, PlanError> {
    let Some(access) = access(statement, sql, tokens, context)? else {
        return Ok(None);
    };
    let default = context.topology.default_shard;
    if hinted(sql, context)?.is_some_and(|shard| shard != default) {
        return Err(refused(
            "temporary tables are on the default shard, and a hint names another",
        ));
    }
    Ok(Some(one(Tier::NamedShard, access, default)))
}

fn access(
    statement: &Statement<'_>,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<Option<Access>, PlanError> {
    let about = |names: &[Name<'_>], access| Ok(are_temporary(names, context)?.then_some(access));
    match statement {
        Statement::CreateTableAs {
            relation,
            temporary,
            materialized_view,
            body,
        } => {
            if !is_made_temporary(relation.schema.as_deref(), *temporary, context)? {
                return Ok(None);
            }
            if *materialized_view {
                return Err(refused("a materialized view cannot be temporary"));
            }
            made_here(body.text, context)?;
            Ok(Some(Access::Write))
        }
        Statement::Ddl(ddl) => of_ddl(ddl, sql, tokens, context),
        Statement::Truncate(names) | Statement::Lock(names) => {
            let is_temporary = |name: &Name<'_>| find(name, context).is_some();
            if !names.iter().any(is_temporary) {
                return Ok(None);
            }
            let default = Placement::Local(context.topology.default_shard);
            let schema = &context.topology.schema;
            let is_here = |name: &Name<'_>| {
                let relation =
                    schema.relation(name.schema.as_deref(), &name.name, context.search_path);
                relation.is_some_and(|relation| relation.placement == default)
            };
            match names.iter().find(|name| !is_here(name)) {
                None => Ok(Some(Access::Write)),
                Some(other) => Err(mixed(other)),
            }
        }
        Statement::Maintenance {
            command,
            outside_block,
        } => {
            let access = match outside_block {
                true => Access::OutsideBlock,
                false => Access::Write,
            };
            match maintained(*command, sql, tokens) {
                Some(names) => about(&names, access),
                None => not_about(sql, tokens, context),
            }
        }
        _ => Ok(None),
    }
}

fn of_ddl(
    ddl: &Ddl<'_>,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<Option<Access>, PlanError> {
    let access = match ddl.outside_block {
        true => Access::OutsideBlock,
        false => Access::Write,
    };
    let reads = |definition: definition::Definition<'_>| -> Result<(), PlanError> {
        let definition::Definition {
            foreign_keys,
            parents,
            attached,
            detached,
            disinherited,
            like,
            ..
        } = definition;
        let tables = foreign_keys.into_iter().map(|key| key.table);
        let like = like.into_iter().map(|(table, _)| table);
        let parts = [attached, detached, disinherited].into_iter().flatten();
        let mut names = tables.chain(like).chain(parents).chain(parts);
        match names.find(|name| find(name, context).is_some()) {
            None => Ok(()),
            Some(name) => Err(refused(format!(
                "{} is temporary, and the table is not",
                name.name
            ))),
        }
    };
    match (ddl.verb, ddl.object, ddl.relations.as_slice()) {
        (
            DdlVerb::Create,
            Some(
                kind @ (ObjectKind::Table
                | ObjectKind::View
                | ObjectKind::Sequence
                | ObjectKind::ForeignTable),
            ),
            [name],
        ) => {
            let made = is_made_temporary(name.schema.as_deref(), ddl.temporary, context)?;
            match kind {
                ObjectKind::Table if made => {
                    let definition = definition::read(sql, tokens).unwrap_or_default();
                    let mut parents = definition.parents.iter();
                    if parents.any(|parent| find(parent, context).is_none()) {
                        return Err(refused(
                            "rows of a temporary table would be rows of a table that is not",
                        ));
                    }
                }
                ObjectKind::View if made => made_here(query_of_view(sql, tokens)?, context)?,
                ObjectKind::ForeignTable if made => {
                    return Err(refused("a foreign table cannot be temporary"));
                }
                ObjectKind::Table => {
                    // What is no statement is PostgreSQL's to report.
                    reads(definition::read(sql, tokens).unwrap_or_default())?;
                }
                ObjectKind::View => {
                    let after = tokens.iter().position(|token| token.is(sql, "as"));
                    return not_about(sql, &tokens[after.unwrap_or(0)..], context);
                }
                _ => {}
            }
            Ok(made.then_some(access))
        }
        (DdlVerb::Create, Some(ObjectKind::Index), [name]) => {
            Ok(find(name, context).map(|_| access))
        }
        (DdlVerb::Alter | DdlVerb::Drop, _, names @ [_, ..]) => {
            if are_temporary(names, context)? {
                if ddl.verb == DdlVerb::Alter {
                    let definition = definition::read(sql, tokens).unwrap_or_default();
                    let parts = [&definition.attached, &definition.disinherited];
                    let parents = definition.parents.iter();
                    if let Some(other) = parents
                        .chain(parts.into_iter().flatten())
                        .find(|name| find(name, context).is_none())
                    {
                        return Err(mixed(other));
                    }
                }
                return Ok(Some(access));
            }
            if ddl.verb == DdlVerb::Alter {
                reads(definition::read(sql, tokens).unwrap_or_default())?;
            }
            Ok(None)
        }
        (DdlVerb::Drop, Some(ObjectKind::Index), _) => {
            let mut reader = Reader::new(sql, tokens);
            reader.take(&["drop", "index"]);
            reader.take(&["concurrently"]);
            reader.take(&["if", "exists"]);
            let names = reader.list(Reader::qualified_name).unwrap_or_default();
            Ok(are_temporary(&names, context)?.then_some(access))
        }
        (DdlVerb::Create, Some(kind), _) if is_in_schema(kind) => {
            if makes_in_temporary_schema(kind, sql, tokens, context)? {
                return Err(refused(format!(
                    "a {} in {TEMPORARY} would be known to one server session only",
                    format!("{kind:?}").to_lowercase()
                )));
            }
            not_about(sql, tokens, context)
        }
        _ => not_about(sql, tokens, context),
    }
}

/// What the name means, if that is temporary.
fn find<'a>(name: &Name<'_>, context: &Context<'a>) -> Option<&'a Arc<Relation>> {
    let schema = &context.topology.schema;
    let relation = schema.relation(name.schema.as_deref(), &name.name, context.search_path)?;
    relation.is_temporary().then_some(relation)
}

fn mixed(other: &Name<'_>) -> PlanError {
    refused(format!(
        "a temporary table and {}, which is not, in one statement",
        other.name
    ))
}

/// Whether all the names are those of temporary relations.
fn are_temporary(names: &[Name<'_>], context: &Context<'_>) -> Result<bool, PlanError> {
    let is = |name: &&Name<'_>| find(name, context).is_some() || name.is_temporary();
    let temporary = names.iter().filter(is).count();
    if temporary == 0 {
        return Ok(false);
    }
    match names.iter().find(|name| !is(name)) {
        None => Ok(true),
        Some(other) => Err(mixed(other)),
    }
}

/// Whether a relation made under a name with this schema, or none, is temporary. `said`: the statement says so.
///
/// # Errors
/// It depends on what is not known.
pub fn is_made_temporary(
    schema: Option<&str>,
    said: bool,
    context: &Context<'_>,
) -> Result<bool, PlanError> {
    made_temporary(schema, said, context.topology, context.search_path)
}

/// [`is_made_temporary`] where there is no [`Context`].
pub fn made_temporary(
    schema: Option<&str>,
    said: bool,
    topology: &Topology,
    search_path: &[Arc<str>],
) -> Result<bool, PlanError> {
    match schema {
        Some(TEMPORARY) => return Ok(true),
        Some(schema) if schema.starts_with("pg_temp_") => {
            return Err(refused(format!(
                "{schema} is the temporary schema of one server session"
            )));
        }
        Some(_) => return Ok(said),
        None if said => return Ok(true),
        None => {}
    }
    // What is made without a schema goes to the first of the path that exists.
    let Some(place) = search_path.iter().position(|schema| &**schema == TEMPORARY) else {
        return Ok(false);
    };
    let before = &search_path[..place];
    if before.is_empty() {
        return Ok(true);
    }
    let known = &topology.schema;
    if before.iter().any(|schema| known.has_schema(schema)) {
        return Ok(false);
    }
    Err(refused(format!(
        "whether it would be temporary depends on whether the schema {} of the search path exists",
        before[0]
    )))
}

/// Refuses rows of a new temporary relation that are not those of the default shard alone.
fn made_here(query: &str, context: &Context<'_>) -> Result<(), PlanError> {
    // A hint names where the statement runs, which is looked at elsewhere.
    let context = Context {
        hint: None,
        ..*context
    };
    let template = template::template(query, &[], &context)?;
    template.refuse_session_effects()?;
    let default = context.topology.default_shard;
    let binding = Binding {
        preferred: Some(default),
        ..Binding::default()
    };
    let plan = template.plan(&binding, context.topology)?;
    match plan.steps.as_slice() {
        [step] if step.shard == default && step.sql == StepSql::AsSent => Ok(()),
        _ => Err(refused(
            "a temporary table is on the default shard, and its rows are made on others",
        )),
    }
}

/// The query of a CREATE VIEW.
fn query_of_view<'a>(sql: &'a str, tokens: &[Token]) -> Result<&'a str, PlanError> {
    let mut reader = Reader::new(sql, tokens);
    if !reader.skip_to("as") {
        // What is no statement is PostgreSQL's to report, which it does of no query too.
        return Ok("SELECT");
    }
    reader.advance(1);
    let mut rest = reader.rest();
    for words in [
        &["with", "cascaded", "check", "option"][..],
        &["with", "local", "check", "option"],
        &["with", "check", "option"],
    ] {
        if let Some(at) = rest.len().checked_sub(words.len())
            && words
                .iter()
                .zip(&rest[at..])
                .all(|(word, token)| token.is(sql, word))
        {
            rest = &rest[..at];
            break;
        }
    }
    match rest {
        [first, .., last] => Ok(&sql[first.start..last.end]),
        _ => Ok("SELECT"),
    }
}

/// Refuses a statement that goes elsewhere if it names temporary relations.
fn not_about(
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<Option<Access>, PlanError> {
    match mentioned(sql, tokens, context) {
        None => Ok(None),
        Some(name) => Err(refused(format!(
            "{name} is temporary, and the statement would run on every shard"
        ))),
    }
}

/// A temporary relation's name among the tokens.
pub fn mentioned(sql: &str, tokens: &[Token], context: &Context<'_>) -> Option<String> {
    let schema = &context.topology.schema;
    if !schema.has_temporary() {
        return None;
    }
    let is = |at: Option<usize>, symbol: &str| {
        at.and_then(|at| tokens.get(at))
            .is_some_and(|token| token.is_symbol(sql, symbol))
    };
    tokens.iter().enumerate().find_map(|(at, token)| {
        if !token.is_identifier() {
            return None;
        }
        let name = lex::identifier_value(token.text(sql)).ok()?;
        if name == TEMPORARY && is(Some(at + 1), ".") {
            return Some(name.into_owned());
        }
        let qualified = is(at.checked_sub(1), ".");
        let relation = schema.relation(None, &name, context.search_path)?;
        (relation.is_temporary() && !qualified).then(|| name.into_owned())
    })
}

/// Whether objects of the kind are in a schema and found by the search path.
fn is_in_schema(kind: ObjectKind) -> bool {
    matches!(
        kind,
        ObjectKind::Aggregate
            | ObjectKind::Collation
            | ObjectKind::Conversion
            | ObjectKind::Domain
            | ObjectKind::Function
            | ObjectKind::Operator
            | ObjectKind::OperatorClass
            | ObjectKind::OperatorFamily
            | ObjectKind::Procedure
            | ObjectKind::Statistics
            | ObjectKind::TextSearch
            | ObjectKind::Type
    )
}

/// Whether CREATE of such an object makes it in the temporary schema.
fn makes_in_temporary_schema(
    kind: ObjectKind,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<bool, PlanError> {
    let word = match kind {
        ObjectKind::OperatorClass => "class".to_owned(),
        ObjectKind::OperatorFamily => "family".to_owned(),
        ObjectKind::TextSearch => "search".to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    };
    let mut reader = Reader::new(sql, tokens);
    reader.skip_to(&word);
    reader.advance(1 + usize::from(kind == ObjectKind::TextSearch));
    reader.take(&["if", "not", "exists"]);
    let schema = match reader.label() {
        Ok(schema) if reader.is_symbol(0, ".") => Some(schema),
        _ => None,
    };
    is_made_temporary(schema.as_deref(), false, context)
}

/// The tables that a maintenance statement names; None where they are not read.
fn maintained<'a>(
    command: Maintenance,
    sql: &'a str,
    tokens: &'a [Token],
) -> Option<Vec<Name<'a>>> {
    let mut reader = Reader::new(sql, tokens);
    reader.advance(1);
    match command {
        Maintenance::Analyze | Maintenance::Vacuum => {
            if reader.is_symbol(0, "(") {
                reader.parenthesised().ok()?;
            }
            while reader
                .take_any(&["full", "freeze", "verbose", "analyze", "analyse"])
                .is_some()
            {}
            if reader.is_end() {
                return Some(Vec::new());
            }
            let table = |reader: &mut Reader<'a, 'a>| {
                let name = reader.qualified_name()?;
                if reader.is_symbol(0, "(") {
                    reader.parenthesised()?;
                }
                Ok(name)
            };
            reader.list(table).ok()
        }
        Maintenance::Reindex => {
            reader.take_any(&["table", "index"])?;
            Some(vec![reader.qualified_name().ok()?])
        }
        Maintenance::Cluster => {
            if reader.is_end() {
                return Some(Vec::new());
            }
            reader.take(&["verbose"]);
            Some(vec![reader.qualified_name().ok()?])
        }
        Maintenance::Checkpoint => Some(Vec::new()),
    }
}

//! [`template()`]: a statement's text → [`Template`], once; [`Template::plan`]: parameters and ownership → [`Plan`],
//! each time. A template depends on the schema and the declared tables, never on who owns which slot.

use super::analysis::{self, Analysis, Count, Fill, KeyUpdate, Use};
use super::clock;
use super::foreign;
use super::gather::{self, GatherText};
use super::gathered::Gathered;
use super::hint::{Hint, hinted_column};
use super::key::{Arguments, Formula, KeyColumn, KeySet, Source};
use super::partial_text;
use super::plan::{
    Access, Fold, Input, Merge, Plan, SessionEffects, SettingChange, SortKey, Step, StepArguments,
    StepSql, Tier,
};
use super::refusal::{PlanError, Refusal};
use super::rewrite::{self, InsertText, QueryText};
use super::spelled;
use super::store::{StoreText, store_text};
use super::view::{ViewTexts, Views};
use super::write;
use crate::sql::lex::LexLimits;
use crate::sql::parse::{self, Parsed};
use crate::topology::schema::{Column, Relation};
use crate::topology::snapshot::{SlotOwner, Topology};
use crate::topology::{ShardId, SlotId};
use std::num::IntErrorKind;
use std::sync::Arc;

/// What a statement is planned against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// For its schema and placements; who owns what is read by [`Template::plan`].
    pub topology: &'a Topology,
    /// The session's, with `$user` put in.
    pub search_path: &'a [Arc<str>],
    /// Where the session wants the statement to run.
    pub hint: Option<&'a Hint>,
    /// For the lexer's and parser's sake.
    pub limits: &'a LexLimits,
}

/// A statement's parameters and what the session knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Binding<'a> {
    /// By parameter; `None` is NULL.
    pub values: &'a [Option<&'a [u8]>],
    /// Bind's format codes: none (all text), one for all, or one each.
    pub formats: &'a [i16],
    /// A shard that the block has joined already: where what any shard can answer goes.
    pub preferred: Option<ShardId>,
    /// Picks a shard for what any shard can answer, when none is preferred.
    pub spread: usize,
    /// The values that [`Template::fill`] asks for, one a row.
    pub drawn: &'a [i64],
    /// Where the cursor is that [`Template::current_of`] names.
    pub cursor: Option<ShardId>,
}

/// A statement, parsed and understood.
#[derive(Debug, Clone)]
pub struct Template {
    sql: Arc<str>,
    access: Access,
    route: Route,
    /// [`Topology::has_foreign_rows`] when it was made.
    tells_rows_apart: bool,
    /// Why it can be planned only with its values spelled out; the route is that of a text with some values.
    spelled: Option<PlanError>,
}

#[derive(Debug, Clone)]
enum Route {
    /// A hint named the shard, which runs this text if rows of other shards may lie there.
    Shard(ShardId, Option<Arc<str>>),
    /// A hint named the key; likewise.
    Key(SlotId, Option<Arc<str>>),
    /// The statement says.
    Statement(Box<Statement>),
}

#[derive(Debug, Clone)]
struct Statement {
    analysis: Analysis,
    /// The distinct formulas of the uses.
    formulas: Vec<Formula>,
    /// Parameters, from zero, whose text is never read as a time.
    timeless: Vec<u16>,
    /// How it runs on several shards.
    several: Result<Several, PlanError>,
    /// What several shards run in the place of the client's text, while rows of other shards may lie there.
    own_rows: Option<Arc<str>>,
    /// The one value that says where it runs, if it is as simple as that.
    lone: Option<Lone>,
    /// The cursor whose row it changes.
    current_of: Option<Arc<str>>,
}

/// The key of a statement that names one.
#[derive(Debug, Clone)]
struct Lone {
    column: Arc<KeyColumn>,
    source: Source,
}

/// How a statement runs on several shards.
#[derive(Debug, Clone)]
enum Several {
    /// The same text everywhere; outputs are appended, tags summed.
    Append,
    /// As [`Several::Append`], with LIMIT or OFFSET, which the text has as it was sent.
    Query {
        /// The text, unless the client's own will do.
        text: Option<QueryText>,
        /// None: appended.
        keys: Vec<SortKey>,
    },
    /// The rows of a VALUES list, each where it belongs.
    Split(InsertText),
    /// The same text everywhere; the rows, one of each, become one.
    Fold(Arc<[Fold]>),
    /// On one shard, over rows that are gathered there, or that the shards made of theirs.
    Gather(GatherText),
    /// A query's rows, which are then stored where they belong.
    Store(StoreText),
}

/// Plans one statement: SELECT, VALUES, TABLE, WITH, INSERT, UPDATE, DELETE or MERGE. `parameter_types` are the OIDs
/// that Parse declared: maybe fewer than there are parameters, 0 for unknown. With a hint the text is not parsed.
///
/// # Errors
/// The statement's form is refused on any shard, is beyond the parser, or over a limit.
pub fn template(
    sql: &str,
    parameter_types: &[u32],
    context: &Context<'_>,
) -> Result<Template, PlanError> {
    template_for(sql, parameter_types, context, Answer::AnyWay)
}

/// As [`template()`], for a query whose rows one server keeps: a cursor, or a portal that is run in pieces.
///
/// # Errors
/// As [`template()`]; plans over several shards may be refused that [`template()`] has.
pub fn template_on_one(
    sql: &str,
    parameter_types: &[u32],
    context: &Context<'_>,
) -> Result<Template, PlanError> {
    template_for(sql, parameter_types, context, Answer::OnOne)
}

/// Who may answer a statement over several shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Whoever does it best.
    AnyWay,
    /// One server has all rows of the answer.
    OnOne,
    /// The rows are collected in any order.
    Collected,
    /// As [`Self::OnOne`], which is where the query's own rows may not be: [`Template::plan_home`].
    AtHome,
}

/// As [`template()`], for a query whose rows are collected before anything is done with them.
pub(super) fn template_collected(
    sql: &str,
    parameter_types: &[u32],
    context: &Context<'_>,
) -> Result<Template, PlanError> {
    let template = template_for(sql, parameter_types, context, Answer::Collected)?;
    let is_plain = template.access == Access::Read
        && template.settings().is_empty()
        && template.session_effects().is_none()
        && !template.is_temporary()
        && !template.has_unknown_name();
    match is_plain {
        true => Ok(template),
        false => Err(PlanError::refused(
            Refusal::InsertSelect,
            "a query that does more than read",
        )),
    }
}

/// As [`template()`], for a query whose rows are made on one shard, wherever they come from: see
/// [`Template::plan_home`].
pub(super) fn template_at_home(sql: &str, context: &Context<'_>) -> Result<Template, PlanError> {
    template_for(sql, &[], context, Answer::AtHome)
}

fn template_for(
    sql: &str,
    parameter_types: &[u32],
    context: &Context<'_>,
    answer: Answer,
) -> Result<Template, PlanError> {
    match context.hint {
        None => {}
        Some(Hint::Shard(shard)) => {
            let text = hinted_text(sql, parameter_types, context)?;
            return Ok(Template {
                sql: sql.into(),
                access: leading_access(sql),
                route: Route::Shard(*shard, text),
                tells_rows_apart: context.topology.has_foreign_rows,
                spelled: None,
            });
        }
        Some(Hint::Key { table, value }) => {
            let column = hinted_column(table.as_deref(), context)?;
            let slot = column.hinted(value)?;
            let text = hinted_text(sql, parameter_types, context)?;
            return Ok(Template {
                sql: sql.into(),
                access: leading_access(sql),
                route: Route::Key(slot, text),
                tells_rows_apart: context.topology.has_foreign_rows,
                spelled: None,
            });
        }
    }
    let tokens = parse::tokens(sql, context.limits)?;
    let texts = ViewTexts::named(sql, &tokens, context);
    let depth = parse::depth(sql, &tokens) + texts.depth();
    let work = || {
        let parsed = parse::parse(sql, tokens)?;
        let views = texts.parse();
        let template = understood(sql, &parsed, &views, parameter_types, context, answer);
        let template = match template {
            Err(error) => stored(sql, &parsed, parameter_types, context, error),
            template => template,
        };
        let template =
            template.or_else(|error| spelled_out(sql, &parsed, parameter_types, context, error));
        // Dropping the trees recurses as parsing them does.
        drop((parsed, views));
        template
    };
    parse::on_stack_for(depth, work)
}

/// What a shard that a hint names runs of a statement, if rows of other shards may lie there. None: the client's text.
fn hinted_text(
    sql: &str,
    parameter_types: &[u32],
    context: &Context<'_>,
) -> Result<Option<Arc<str>>, PlanError> {
    if !context.topology.has_foreign_rows {
        return Ok(None);
    }
    let unhinted = Context {
        hint: None,
        ..*context
    };
    let template = template_for(sql, parameter_types, &unhinted, Answer::AnyWay)?;
    let Route::Statement(statement) = template.route else {
        return Ok(None);
    };
    match (statement.own_rows, statement.analysis.uses.is_empty()) {
        (None, false) => Err(PlanError::refused(
            Refusal::ForeignRows,
            "slots are moving, and the shard that a hint names may have rows of others",
        )),
        (text, _) => Ok(text),
    }
}

fn understood(
    sql: &str,
    parsed: &Parsed,
    views: &Views,
    parameter_types: &[u32],
    context: &Context<'_>,
    answer: Answer,
) -> Result<Template, PlanError> {
    let mut analysis = analysis::analyze(
        &parsed.statement,
        views,
        context.topology,
        context.search_path,
        parameter_types,
    )?;
    refused_anywhere(&analysis)?;
    analysis.is_update =
        matches!(parsed.statement, parse::ast::Statement::Update(_)) && analysis.writers == 1;
    let mut formulas: Vec<Formula> = Vec::new();
    for used in &analysis.uses {
        if !formulas.contains(&used.formula) {
            formulas.push(used.formula.clone());
        }
    }
    let current_of = current_of(sql, parsed, &analysis)?;
    let lone = lone(&analysis, &formulas);
    // While rows of other shards may lie there, several shards run another text than the client's.
    let own_rows = match context.topology.has_foreign_rows {
        true => foreign::own_rows(sql, parsed, &analysis, context),
        false => Ok(None),
    };
    let own_parsed = match &own_rows {
        Ok(Some(text)) => Some(parse::parse(text, parse::tokens(text, context.limits)?)),
        Ok(None) | Err(_) => None,
    };
    let (pushed_sql, pushed) = match (&own_rows, &own_parsed) {
        (Ok(Some(text)), Some(Ok(own))) => (text.as_str(), own),
        _ => (sql, parsed),
    };
    let mixed = match (&own_rows, &own_parsed) {
        (Err(obstacle), _) => Some(obstacle.clone()),
        (_, Some(Err(_))) => Some(PlanError::refused(
            Refusal::ForeignRows,
            "slots are moving, and rows of other shards cannot be told apart in this form of statement",
        )),
        _ => None,
    };
    let several = several(pushed_sql, pushed, &analysis, context);
    let several = match mixed.clone().map_or(several, Err) {
        Ok(_) if matches!(answer, Answer::OnOne | Answer::AtHome) => Err(PlanError::refused(
            Refusal::Rewrite,
            "one server would have to have all rows of the answer",
        )),
        Ok(Several::Query { .. }) if answer == Answer::Collected => Err(PlanError::refused(
            Refusal::Rewrite,
            "rows that are collected have no order",
        )),
        several => several,
    };
    let several = several.or_else(|obstacle| {
        let store = || {
            store_text(
                sql,
                &parsed.tokens,
                &parsed.statement,
                parameter_types,
                context,
            )
        };
        if let Some(store) = store() {
            return Ok(Several::Store(store));
        }
        let is_placed = |lone: &Lone| {
            lone.column
                .slot(&lone.source, Arguments::default())
                .is_some()
        };
        let way = match &lone {
            // A literal says where it runs: it never needs several shards.
            Some(lone) if is_placed(lone) && answer != Answer::AtHome => None,
            // The rows are described by the text that is run, so it is the client's but for the tables' names.
            _ if matches!(answer, Answer::OnOne | Answer::AtHome) => {
                gathered(sql, parsed, parameter_types, &analysis, &obstacle, context)
                    .map(Several::Gather)
            }
            _ => partial(pushed_sql, pushed, parameter_types, &analysis, context)
                .filter(|_| mixed.is_none())
                // What the router makes itself goes to the client only.
                .filter(|way| answer != Answer::Collected || !matches!(way, Several::Fold(_)))
                .or_else(|| {
                    gathered(sql, parsed, parameter_types, &analysis, &obstacle, context)
                        .map(Several::Gather)
                }),
        };
        way.ok_or(obstacle)
    });
    if let Some(fill) = &analysis.fill
        && !(matches!(parsed.statement, parse::ast::Statement::Insert(_))
            && analysis.writers == 1
            && matches!(several, Ok(Several::Split(_))))
    {
        return Err(left_to_sequence(fill));
    }
    // They are of use for no more than the text.
    analysis.sources = Vec::new();
    analysis.partial = None;
    analysis.first_rows = None;
    let access = if analysis.writes {
        Access::Write
    } else {
        Access::Read
    };
    let mut timeless = analysis.timeless_parameters.clone();
    if !analysis.casts_to_time {
        let declared = (0u16..).zip(parameter_types);
        timeless.extend(
            declared
                .filter(|(_, oid)| !clock::may_be_time(**oid))
                .map(|(parameter, _)| parameter),
        );
    }
    let route = Route::Statement(Box::new(Statement {
        analysis,
        timeless,
        formulas,
        several,
        own_rows: own_rows
            .ok()
            .flatten()
            .map(Arc::from)
            .filter(|_| mixed.is_none()),
        lone,
        current_of,
    }));
    // Dropping the tree recurses as parsing it does.
    drop(own_parsed);
    Ok(Template {
        sql: sql.into(),
        access,
        route,
        tells_rows_apart: context.topology.has_foreign_rows,
        spelled: None,
    })
}

/// The cursor whose row the statement changes, which it does on the cursor's shard alone.
fn current_of(
    sql: &str,
    parsed: &Parsed,
    analysis: &Analysis,
) -> Result<Option<Arc<str>>, PlanError> {
    let cursors = parse::current_of(sql, &parsed.tokens);
    let cursor = match cursors.as_slice() {
        [] => return Ok(None),
        [cursor] if is_update_or_delete(&parsed.statement) => cursor,
        _ => {
            return Err(PlanError::Unparsed {
                reason: "WHERE CURRENT OF in a part of a statement".into(),
            });
        }
    };
    let refused = |refusal, reason| Err(PlanError::refused(refusal, reason));
    if let Some(table) = analysis.reference_writes.first() {
        let reason = format!("the cursor {cursor} is on one shard, and {table} on all");
        return refused(Refusal::Cursor, reason);
    }
    if analysis.uses.len() + analysis.locals.len() > 1 {
        let reason = format!("the row of the cursor {cursor} is joined with those of other tables");
        return refused(Refusal::Cursor, reason);
    }
    if let Some(update) = analysis.key_updates.first() {
        let reason = format!("the sharding key {} is updated", update.column.name);
        return refused(Refusal::KeyUpdate, reason);
    }
    Ok(Some(cursor.as_ref().into()))
}

fn is_update_or_delete(statement: &parse::ast::Statement) -> bool {
    use parse::ast::Statement;
    matches!(statement, Statement::Update(_) | Statement::Delete(_))
}

/// The template of a write that can be planned once its values are spelled out.
fn spelled_out(
    sql: &str,
    parsed: &Parsed,
    parameter_types: &[u32],
    context: &Context<'_>,
    error: PlanError,
) -> Result<Template, PlanError> {
    if !spelled::may_help(&error) {
        return Err(error);
    }
    let spelling = spelled::spelling_of(sql, parsed, context);
    let sample = spelling.and_then(|spelling| spelling.text(&spelling.sample()));
    let sample = sample.map(|sample| template(&sample, parameter_types, context));
    match sample {
        Some(Ok(sample)) => Ok(Template {
            sql: sql.into(),
            spelled: Some(error),
            ..sample
        }),
        Some(Err(_)) | None => Err(error),
    }
}

/// The template of an INSERT whose rows are placed once they are there.
fn stored(
    sql: &str,
    parsed: &Parsed,
    parameter_types: &[u32],
    context: &Context<'_>,
    error: PlanError,
) -> Result<Template, PlanError> {
    let PlanError::Refused { refusal, .. } = error else {
        return Err(error);
    };
    let is_of_rows = matches!(
        refusal,
        Refusal::InsertSelect
            | Refusal::ReferenceWriteReads
            // A value of each row's own is given it when it is stored.
            | Refusal::ReferenceWriteDiffers
            | Refusal::SequenceDefault
            | Refusal::MissingKey
    );
    if !is_of_rows {
        return Err(error);
    }
    let text = store_text(
        sql,
        &parsed.tokens,
        &parsed.statement,
        parameter_types,
        context,
    );
    let text = text.ok_or(error)?;
    let analysis = Analysis {
        writes: true,
        ..Analysis::default()
    };
    Ok(Template {
        sql: sql.into(),
        access: Access::Write,
        route: Route::Statement(Box::new(Statement {
            analysis,
            formulas: Vec::new(),
            timeless: Vec::new(),
            several: Ok(Several::Store(text)),
            own_rows: None,
            lone: None,
            current_of: None,
        })),
        tells_rows_apart: context.topology.has_foreign_rows,
        spelled: None,
    })
}

fn lone(analysis: &Analysis, formulas: &[Formula]) -> Option<Lone> {
    let is_plain = analysis.locals.is_empty() && analysis.key_updates.is_empty();
    if !is_plain || analysis.fill.is_some() {
        return None;
    }
    match (formulas, analysis.stored.as_slice()) {
        ([Formula::Is(constraint)], []) => {
            let KeySet::Of(sources) = &constraint.set else {
                return None;
            };
            let [source] = sources.as_slice() else {
                return None;
            };
            Some(Lone {
                column: constraint.column.clone(),
                source: source.clone(),
            })
        }
        ([], [stored]) => match stored.keys.as_slice() {
            [source] => Some(Lone {
                column: stored.column.clone(),
                source: source.clone(),
            }),
            _ => None,
        },
        _ => None,
    }
}

/// What is refused however many shards it takes.
fn refused_anywhere(analysis: &Analysis) -> Result<(), PlanError> {
    let sharded = !analysis.uses.is_empty() || !analysis.stored.is_empty();
    if sharded && let Some(function) = &analysis.designated {
        return Err(PlanError::refused(
            Refusal::DesignatedFunction,
            format!(
                "{function} runs on one designated shard, but the statement uses sharded tables"
            ),
        ));
    }
    if analysis.reference_locks && sharded {
        return Err(PlanError::refused(
            Refusal::LockingReference,
            "FOR UPDATE of reference rows along with sharded rows",
        ));
    }
    if let Some(table) = analysis.reference_writes.first() {
        if analysis.writers > 1 {
            return Err(PlanError::refused(
                Refusal::ReferenceWriteMixed,
                format!("the reference table {table} is written along with another table"),
            ));
        }
        if sharded || !analysis.locals.is_empty() || analysis.catalog_relation {
            return Err(PlanError::refused(
                Refusal::ReferenceWriteReads,
                format!(
                    "the reference table {table} is written with rows that are not on every shard"
                ),
            ));
        }
        if let Some(reason) = copies_differ(analysis) {
            return Err(PlanError::refused(
                Refusal::ReferenceWriteDiffers,
                format!("the reference table {table}: {reason}"),
            ));
        }
    }
    Ok(())
}

/// Why a column is not filled.
fn left_to_sequence(fill: &Fill) -> PlanError {
    PlanError::refused(
        Refusal::SequenceDefault,
        format!("{}.{} is left to its sequence", fill.table, fill.column),
    )
}

/// Why a key is not changed.
fn key_update(update: &KeyUpdate, reason: &str) -> PlanError {
    PlanError::refused(
        Refusal::KeyUpdate,
        format!(
            "the sharding key {} is updated {reason}",
            update.column.name
        ),
    )
}

/// Why each shard might make other rows of what all have.
fn copies_differ(analysis: &Analysis) -> Option<String> {
    if let Some(function) = analysis.designated.as_ref().or(analysis.unknown.as_ref()) {
        return Some(format!("{function} may give each copy another value"));
    }
    let reason = analysis.differs.as_ref().or(analysis.unstable.as_ref());
    reason.map(ToString::to_string)
}

/// Decides how the statement runs on several shards, if it can.
fn several(
    sql: &str,
    parsed: &Parsed,
    analysis: &Analysis,
    context: &Context<'_>,
) -> Result<Several, PlanError> {
    if let Some((_, table)) = analysis.locals.first() {
        return Err(PlanError::refused(
            Refusal::LocalWithSharded,
            format!("the local table {table} is used along with sharded tables on other shards"),
        ));
    }
    if analysis.catalog_relation {
        return Err(PlanError::refused(
            Refusal::CatalogWithSharded,
            "the catalog is used along with sharded tables on several shards",
        ));
    }
    let obstacle = analysis
        .multi
        .as_ref()
        .or(analysis.shape.as_ref())
        .or(analysis.unstable.as_ref());
    if let Some(obstacle) = obstacle {
        return Err(obstacle.clone());
    }
    if let Some(update) = analysis.key_updates.first() {
        return Err(key_update(update, "for rows of several shards"));
    }
    match analysis.stored.as_slice() {
        [] => {}
        [stored] if stored.split && analysis.uses.is_empty() => {
            return rewrite::insert_text(
                sql,
                &parsed.tokens,
                &parsed.statement,
                analysis.fill.as_ref(),
                context.limits,
            )
            .map(Several::Split);
        }
        _ => {
            return Err(PlanError::refused(
                Refusal::InsertSelect,
                "rows for one shard are made from rows of several",
            ));
        }
    }
    let outer = &analysis.outer;
    if outer.order.is_empty() && outer.limit.is_none() && outer.offset.is_none() {
        return Ok(Several::Append);
    }
    let hidden: Vec<usize> = outer
        .order
        .iter()
        .enumerate()
        .filter(|(_, order)| order.column.is_none())
        .map(|(index, _)| index)
        .collect();
    let mut keys = Vec::with_capacity(outer.order.len());
    let mut added = 0;
    for order in &outer.order {
        let column = match order.column {
            Some(column) => column,
            None => {
                let Some(width) = outer.width else {
                    return Err(PlanError::refused(
                        Refusal::OrderBy,
                        "ORDER BY with a select list whose columns are not known",
                    ));
                };
                added += 1;
                width + added - 1
            }
        };
        keys.push(SortKey {
            column,
            descending: order.descending,
            nulls_first: order.nulls_first,
            text_by_bytes: order.by_bytes,
        });
    }
    // A literal LIMIT alone can stay as it is.
    let as_sent = hidden.is_empty()
        && outer.offset.is_none()
        && !matches!(outer.limit, Some(Count::Parameter { .. }));
    let text = if as_sent {
        None
    } else {
        Some(rewrite::query_text(
            sql,
            &parsed.tokens,
            &parsed.statement,
            &hidden,
            context.limits,
        )?)
    };
    Ok(Several::Query { text, keys })
}

/// Whether it is a query whose names are all known, and nothing else.
fn is_query(parsed: &Parsed, analysis: &Analysis) -> bool {
    matches!(parsed.statement, parse::ast::Statement::Query(_))
        && !analysis.writes
        && !analysis.unknown_relation
        && !analysis.catalog_relation
        && analysis.unknown.is_none()
        && analysis.stored.is_empty()
}

/// How the statement is answered of parts that the shards make, if it can be.
fn partial(
    sql: &str,
    parsed: &Parsed,
    parameter_types: &[u32],
    analysis: &Analysis,
    context: &Context<'_>,
) -> Option<Several> {
    let is_clear = is_query(parsed, analysis)
        && analysis.locals.is_empty()
        && analysis.unstable.is_none()
        && analysis.rows_obstacle.is_none();
    let partial = analysis.partial.as_deref().filter(|_| is_clear)?;
    if let Some(folds) = partial_text::folds(parsed, partial) {
        return Some(Several::Fold(folds));
    }
    let uses = analysis.uses.len();
    partial_text::partial_text(sql, parsed, partial, parameter_types, uses, context)
        .map(Several::Gather)
}

/// How the statement runs over gathered rows, if all that stands in its way is its shape.
fn gathered(
    sql: &str,
    parsed: &Parsed,
    parameter_types: &[u32],
    analysis: &Analysis,
    obstacle: &PlanError,
    context: &Context<'_>,
) -> Option<GatherText> {
    let PlanError::Refused { refusal, .. } = obstacle else {
        return None;
    };
    let is_query = is_query(parsed, analysis);
    let uses = analysis.sources.iter().map(Gathered::use_count);
    let is_whole = uses.sum::<usize>() == analysis.uses.len() && !analysis.whole_row;
    if !refusal.is_of_shape() || analysis.ungatherable.is_some() || !is_query || !is_whole {
        return None;
    }
    gather::gather_text(sql, parsed, analysis, parameter_types.len(), context).ok()
}

/// What a statement that is not parsed may do, by its first word.
fn leading_access(sql: &str) -> Access {
    let first = crate::sql::lex::Lexer::new(sql).next().and_then(Result::ok);
    match first {
        Some(token)
            if ["select", "values", "table", "show"]
                .iter()
                .any(|word| token.is(sql, word)) =>
        {
            Access::Read
        }
        Some(token)
            if ["create", "alter", "drop", "comment", "grant", "revoke"]
                .iter()
                .any(|word| token.is(sql, word)) =>
        {
            Access::Ddl
        }
        _ => Access::Write,
    }
}

impl Template {
    /// What the statement does.
    pub fn access(&self) -> Access {
        self.access
    }

    /// How many columns its rows have, if that is known.
    pub(super) fn width(&self) -> Option<usize> {
        match &self.route {
            Route::Statement(statement) => statement.analysis.outer.width.map(usize::from),
            Route::Shard(..) | Route::Key(..) => None,
        }
    }

    /// Whether rows like those that it stores may be stored in parts, each where it belongs.
    pub(super) fn stores_in_parts(&self) -> bool {
        match &self.route {
            Route::Statement(statement) => {
                let Statement {
                    analysis, several, ..
                } = &**statement;
                let is_local = analysis.uses.is_empty()
                    && analysis.stored.is_empty()
                    && !analysis.locals.is_empty();
                several.is_ok() || is_local
            }
            Route::Shard(..) | Route::Key(..) => false,
        }
    }

    /// Whether it names a relation or a function that is not in the schema.
    pub fn has_unknown_name(&self) -> bool {
        match &self.route {
            Route::Statement(statement) => {
                statement.analysis.unknown_relation || statement.analysis.unknown.is_some()
            }
            Route::Shard(..) | Route::Key(..) => false,
        }
    }

    /// A function that is not in the schema.
    pub fn unknown_function(&self) -> Option<&Arc<str>> {
        match &self.route {
            Route::Statement(statement) => statement.analysis.unknown.as_ref(),
            Route::Shard(..) | Route::Key(..) => None,
        }
    }

    /// Whether it can be planned only with its values spelled out; see [`spelled::spelling`].
    pub fn is_spelled(&self) -> bool {
        self.spelled.is_some()
    }

    /// Whether a hint names where it runs, so that it passes without being looked at.
    pub fn is_hinted(&self) -> bool {
        match self.route {
            Route::Shard(..) | Route::Key(..) => true,
            Route::Statement(_) => false,
        }
    }

    /// The settings that the statement changes by calling `set_config`.
    pub fn settings(&self) -> &[SettingChange] {
        match &self.route {
            Route::Statement(statement) => &statement.analysis.settings,
            Route::Shard(..) | Route::Key(..) => &[],
        }
    }

    /// Whether the statement uses or creates a temporary relation.
    pub fn is_temporary(&self) -> bool {
        match &self.route {
            Route::Statement(statement) => statement.analysis.temporary,
            Route::Shard(..) | Route::Key(..) => false,
        }
    }

    /// What the statement's functions do beyond its transaction.
    pub fn session_effects(&self) -> SessionEffects {
        match &self.route {
            Route::Statement(statement) => statement.analysis.session,
            Route::Shard(..) | Route::Key(..) => SessionEffects::default(),
        }
    }

    /// Refuses what would leave something in the session, where nobody looks after it.
    ///
    /// # Errors
    /// [`Refusal::SessionState`], [`Refusal::TemporaryTable`].
    pub fn refuse_session_effects(&self) -> Result<(), PlanError> {
        if self.session_effects().temporary {
            let reason = "a temporary table is made by a statement other than a query";
            return Err(PlanError::refused(Refusal::TemporaryTable, reason));
        }
        if !self.settings().is_empty() {
            let reason = "set_config is called by a statement other than a query";
            return Err(PlanError::refused(Refusal::SessionState, reason));
        }
        if self.session_effects().locks {
            let reason = "a session's advisory lock is taken by a statement other than a query";
            return Err(PlanError::refused(Refusal::SessionState, reason));
        }
        Ok(())
    }

    /// Whether it reads or writes local tables.
    pub(super) fn has_locals(&self) -> bool {
        match &self.route {
            Route::Shard(..) | Route::Key(..) => false,
            Route::Statement(statement) => !statement.analysis.locals.is_empty(),
        }
    }

    /// Why each shard might make other rows of what all have.
    pub(super) fn copies_differ(&self) -> Option<String> {
        match &self.route {
            Route::Shard(..) | Route::Key(..) => None,
            Route::Statement(statement) => {
                let catalog = statement.analysis.catalog.as_ref();
                copies_differ(&statement.analysis)
                    .or_else(|| catalog.map(|catalog| format!("{catalog} is each shard's own")))
            }
        }
    }

    /// The column that a sequence is to fill: its values go into [`Binding::drawn`].
    pub fn fill(&self) -> Option<&Fill> {
        match &self.route {
            Route::Shard(..) | Route::Key(..) => None,
            Route::Statement(statement) => statement.analysis.fill.as_ref(),
        }
    }

    /// The cursor whose row it changes: it runs where the cursor is, or wherever a shard says that there is none.
    pub fn current_of(&self) -> Option<&Arc<str>> {
        match &self.route {
            Route::Shard(..) | Route::Key(..) => None,
            Route::Statement(statement) => statement.current_of.as_ref(),
        }
    }

    /// What several shards run in the place of the text, while rows of other shards may lie there.
    pub(super) fn own_rows(&self) -> Option<&Arc<str>> {
        match &self.route {
            Route::Shard(_, text) | Route::Key(_, text) => text.as_ref(),
            Route::Statement(statement) => statement.own_rows.as_ref(),
        }
    }

    /// The statement's text.
    pub fn sql(&self) -> &Arc<str> {
        &self.sql
    }

    /// The shard that can Parse and Describe the untouched text; `None`: any can.
    pub fn describe_shard(&self, topology: &Topology) -> Option<ShardId> {
        match &self.route {
            Route::Shard(shard, _) => Some(*shard),
            Route::Key(slot, _) => owner(topology, *slot).ok(),
            Route::Statement(statement) => {
                statement.analysis.locals.first().map(|(shard, _)| *shard)
            }
        }
    }

    /// Whether it was made for a topology with rows of other shards, or without them, as this one is: else it must be
    /// made again.
    pub fn suits(&self, topology: &Topology) -> bool {
        self.tells_rows_apart == topology.has_foreign_rows
    }

    /// Says which shards run what.
    ///
    /// # Errors
    /// The statement needs several shards in a form that is refused, a slot has no owner, or a parameter is malformed.
    pub fn plan(&self, binding: &Binding<'_>, topology: &Topology) -> Result<Plan, PlanError> {
        if let Some(refused) = &self.spelled {
            return Err(refused.clone());
        }
        match &self.route {
            Route::Shard(shard, text) => {
                unfenced(topology, *shard)?;
                Ok(self.hinted(*shard, text.as_ref()))
            }
            Route::Key(slot, text) => Ok(self.hinted(owner(topology, *slot)?, text.as_ref())),
            Route::Statement(statement) if statement.current_of.is_some() => {
                let shard = binding.cursor;
                let shard = shard.unwrap_or_else(|| any_shard(binding, topology));
                Ok(self.one(Tier::NamedShard, shard))
            }
            Route::Statement(statement) => {
                let unsharded =
                    statement.formulas.is_empty() && statement.analysis.stored.is_empty();
                let analysis = &statement.analysis;
                let is_whole = analysis.locals.is_empty() && analysis.reference_writes.is_empty();
                let plan = if unsharded
                    && is_whole
                    && let Ok(Several::Store(text)) = &statement.several
                {
                    text.plan(binding, topology)
                } else if unsharded {
                    self.unsharded(&statement.analysis, binding, topology)
                } else {
                    self.sharded(statement, binding, topology)
                }?;
                if plan.steps.len() > 1 || !plan.inputs.is_empty() {
                    same_everywhere(binding.values, &statement.timeless)?;
                }
                Ok(plan)
            }
        }
    }

    /// As [`Self::plan`]; what PostgreSQL is sure to find wrong with the values is any shard's to say, in its words and
    /// in its turn.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn plan_or_report(
        &self,
        binding: &Binding<'_>,
        topology: &Topology,
    ) -> Result<Plan, PlanError> {
        match self.plan(binding, topology) {
            Err(error) if error.is_postgresqls(binding.values.len()) => {
                Ok(self.one(Tier::AnyShard, any_shard(binding, topology)))
            }
            planned => planned,
        }
    }

    /// The parameters, from zero, whose values decide on which shards it runs; a value may be there twice.
    pub fn placing_parameters(&self) -> Vec<u16> {
        let mut parameters = Vec::new();
        if let Route::Statement(statement) = &self.route {
            let analysis = &statement.analysis;
            let updates = analysis.key_updates.iter();
            let formulas = updates.clone().map(|update| &update.formula);
            for formula in statement.formulas.iter().chain(formulas) {
                formula.add_parameters(&mut parameters);
            }
            let stored = analysis.stored.iter().flat_map(|stored| &stored.keys);
            let keys = stored.chain(updates.map(|update| &update.key));
            parameters.extend(keys.filter_map(Source::parameter));
        }
        parameters
    }

    /// The shard of a statement that one value places, without the ceremony of [`Self::plan`], which has the answer for
    /// all others.
    pub fn shard(&self, arguments: Arguments<'_>, topology: &Topology) -> Option<ShardId> {
        let Route::Statement(statement) = &self.route else {
            return None;
        };
        let lone = statement.lone.as_ref().filter(|_| !self.is_spelled())?;
        let slot = lone.column.slot(&lone.source, arguments)?;
        owner(topology, slot).ok()
    }

    fn hinted(&self, shard: ShardId, text: Option<&Arc<str>>) -> Plan {
        let mut plan = self.one(Tier::NamedShard, shard);
        if let (Some(text), [step]) = (text, plan.steps.as_mut_slice()) {
            step.sql = StepSql::Rewritten(text.clone());
        }
        plan
    }

    fn one(&self, tier: Tier, shard: ShardId) -> Plan {
        Plan {
            tier,
            access: self.access,
            inputs: Vec::new(),
            steps: vec![Step {
                shard,
                sql: StepSql::AsSent,
                arguments: StepArguments::AsSent,
            }],
            merge: Merge::Relay,
        }
    }

    fn unsharded(
        &self,
        analysis: &Analysis,
        binding: &Binding<'_>,
        topology: &Topology,
    ) -> Result<Plan, PlanError> {
        if !analysis.reference_writes.is_empty() {
            return Ok(all_shards(self.access, topology));
        }
        if let Some((shard, table)) = analysis.locals.first() {
            if let Some(function) = &analysis.designated
                && !analysis.session.is_none()
                && *shard != topology.default_shard
            {
                return Err(PlanError::refused(
                    Refusal::DesignatedFunction,
                    format!(
                        "{function} runs on the default shard, but the local table {table} is on another"
                    ),
                ));
            }
            if let Some((_, other)) = analysis.locals.iter().find(|(other, _)| other != shard) {
                return Err(PlanError::refused(
                    Refusal::LocalWithLocal,
                    format!("the local tables {table} and {other} are on different shards"),
                ));
            }
            return Ok(self.one(Tier::NamedShard, *shard));
        }
        if analysis.designated.is_some()
            || analysis.unknown.is_some()
            || analysis.reference_locks
            || analysis.writes
        {
            return Ok(self.one(Tier::NamedShard, topology.default_shard));
        }
        if analysis.catalog.is_some() {
            return Ok(self.one(Tier::Catalog, topology.default_shard));
        }
        Ok(self.one(Tier::AnyShard, any_shard(binding, topology)))
    }

    fn sharded(
        &self,
        statement: &Statement,
        binding: &Binding<'_>,
        topology: &Topology,
    ) -> Result<Plan, PlanError> {
        let Statement {
            analysis,
            formulas,
            several,
            timeless: _,
            own_rows,
            lone: _,
            current_of: _,
        } = statement;
        let arguments = Arguments {
            values: binding.values,
            formats: binding.formats,
        };
        let mut shards = Vec::new();
        for formula in formulas {
            match formula.slots(arguments)? {
                Some(slots) => {
                    for slot in slots {
                        shards.push(owner(topology, slot)?);
                    }
                }
                None => {
                    shards = every_shard(topology)?;
                    break;
                }
            }
        }
        let mut rows: Vec<(ShardId, usize)> = Vec::new();
        if let Some(fill) = &analysis.fill
            && binding.drawn.len() != fill.rows
        {
            return Err(left_to_sequence(fill));
        }
        let is_drawn = analysis.fill.as_ref().is_some_and(|fill| fill.is_key);
        for stored in &analysis.stored {
            for (row, key) in stored.keys.iter().enumerate() {
                let slot = match binding.drawn.get(row) {
                    Some(drawn) if is_drawn => {
                        let key = Source::Number(drawn.to_string().into());
                        stored.column.stored(&key, arguments)?
                    }
                    _ => stored.column.stored(key, arguments)?,
                };
                let shard = owner(topology, slot)?;
                shards.push(shard);
                if stored.split {
                    rows.push((shard, row));
                }
            }
        }
        shards.sort_unstable();
        shards.dedup();
        if let [(local, _), ..] = analysis.locals.as_slice() {
            if shards.is_empty() {
                shards.push(*local);
            }
            if let Ok(Several::Gather(text)) = several
                && shards != [*local]
                && analysis.locals.iter().all(|(shard, _)| shard == local)
            {
                return self.gather(text, *local, &analysis.uses, None, arguments, topology);
            }
            if let Ok(Several::Store(text)) = several
                && analysis.locals.iter().any(|(shard, _)| shards != [*shard])
            {
                return text.plan(binding, topology);
            }
            if let Some((_, table)) = analysis.locals.iter().find(|(shard, _)| shards != [*shard]) {
                return Err(PlanError::refused(
                    Refusal::LocalWithSharded,
                    format!(
                        "the local table {table} is used along with sharded tables on other shards"
                    ),
                ));
            }
        }
        // No key satisfies the statement: one shard answers as well as all.
        let none = shards.is_empty();
        if none {
            shards.push(any_shard(binding, topology));
        }
        let mut moves = None;
        for update in &analysis.key_updates {
            let new = update.column.set(&update.key, arguments)?;
            let slots = update.formula.slots(arguments)?;
            if slots.is_some_and(|slots| slots.iter().all(|slot| *slot == new)) {
                continue;
            }
            let target = owner(topology, new)?;
            if shards == [target] {
                continue;
            }
            let reason = match &update.moves {
                _ if shards.len() > 1 => "for rows of several shards",
                _ if !analysis.is_update => "by more than a plain UPDATE",
                _ if analysis.system_column => "by a statement that names a system column",
                Ok(text) => {
                    moves = Some(text.to(target));
                    continue;
                }
                Err(reason) => reason,
            };
            return Err(key_update(update, reason));
        }
        if let (Some(moves), [shard]) = (moves, shards.as_slice()) {
            return Ok(Plan {
                merge: Merge::Move(Arc::new(moves)),
                ..self.one(Tier::SingleShard, *shard)
            });
        }
        if let [shard] = shards.as_slice() {
            let mut plan = self.one(Tier::SingleShard, *shard);
            if let (Some(fill), Ok(Several::Split(text))) = (&analysis.fill, several) {
                let rows: Vec<usize> = (0..fill.rows).collect();
                let (sql, _) = text.with_rows(&self.sql, &rows, binding.drawn);
                plan.steps[0].sql = StepSql::Rewritten(sql);
            }
            return Ok(plan);
        }
        let several = several.as_ref().map_err(Clone::clone)?;
        let text = match own_rows {
            Some(text) => StepSql::Rewritten(text.clone()),
            None => StepSql::AsSent,
        };
        let plain = |shards: &[ShardId]| {
            shards
                .iter()
                .map(|shard| Step {
                    shard: *shard,
                    sql: text.clone(),
                    arguments: StepArguments::AsSent,
                })
                .collect()
        };
        let (steps, merge) = match several {
            Several::Append => (
                plain(&shards),
                Merge::Append {
                    offset: 0,
                    limit: None,
                },
            ),
            Several::Query { text, keys } => {
                // PostgreSQL looks at OFFSET first.
                let offset = count(
                    analysis.outer.offset.as_ref(),
                    arguments,
                    PlanError::OffsetNegative,
                )?
                .unwrap_or(0);
                let limit = count(
                    analysis.outer.limit.as_ref(),
                    arguments,
                    PlanError::LimitNegative,
                )?;
                let (steps, hidden) = match text {
                    None => (plain(&shards), 0),
                    Some(text) => {
                        // PostgreSQL counts rows in a bigint.
                        let pushed =
                            limit.map(|limit| limit.saturating_add(offset).min(i64::MAX as u64));
                        let sql = text.with_limit(pushed);
                        let arguments = match &text.parameters {
                            Some(parameters) => StepArguments::Chosen(parameters.clone()),
                            None => StepArguments::AsSent,
                        };
                        let step = |shard: &ShardId| Step {
                            shard: *shard,
                            sql: StepSql::Rewritten(sql.clone()),
                            arguments: arguments.clone(),
                        };
                        (shards.iter().map(step).collect(), text.hidden)
                    }
                };
                let merge = if keys.is_empty() {
                    Merge::Append { offset, limit }
                } else {
                    Merge::Sort {
                        keys: keys.clone(),
                        hidden_columns: hidden,
                        offset,
                        limit,
                    }
                };
                (steps, merge)
            }
            Several::Fold(folds) => (plain(&shards), Merge::Fold(folds.clone())),
            Several::Store(text) => return text.plan(binding, topology),
            Several::Split(text) => {
                let mut steps = Vec::with_capacity(shards.len());
                for shard in &shards {
                    let own: Vec<usize> = rows
                        .iter()
                        .filter(|(owner, _)| owner == shard)
                        .map(|(_, row)| *row)
                        .collect();
                    let (sql, parameters) = text.with_rows(&self.sql, &own, binding.drawn);
                    steps.push(Step {
                        shard: *shard,
                        sql: StepSql::Rewritten(sql),
                        arguments: parameters.map_or(StepArguments::AsSent, StepArguments::Chosen),
                    });
                }
                let place = |owner: &ShardId| shards.iter().position(|shard| shard == owner);
                let turns = rows.iter().filter_map(|(owner, _)| place(owner));
                (
                    steps,
                    Merge::InTurn(turns.map(|step| step as u16).collect()),
                )
            }
            Several::Gather(text) => {
                // What is wrong with the numbers, PostgreSQL says.
                let of = |number: &Option<Count>, negative: PlanError| {
                    count(number.as_ref(), arguments, negative).ok()
                };
                let limit = of(&analysis.outer.limit, PlanError::LimitNegative).flatten();
                let offset = of(&analysis.outer.offset, PlanError::OffsetNegative);
                let rows_max = limit.zip(offset).map(|(limit, offset)| {
                    let rows = limit.saturating_add(offset.unwrap_or(0));
                    rows.min(i64::MAX as u64)
                });
                let spread = shards[binding.spread % shards.len()];
                let host = binding.preferred.filter(|shard| shards.contains(shard));
                return self.gather(
                    text,
                    host.unwrap_or(spread),
                    &analysis.uses,
                    rows_max,
                    arguments,
                    topology,
                );
            }
        };
        Ok(Plan {
            tier: Tier::PushDown,
            access: self.access,
            inputs: Vec::new(),
            steps,
            merge,
        })
    }

    /// How a query of sharded tables, without parameters, is answered on `home`, which is where its local tables are.
    ///
    /// # Errors
    /// It cannot run over gathered rows, or its local tables are elsewhere.
    pub(super) fn plan_home(&self, home: ShardId, topology: &Topology) -> Result<Plan, PlanError> {
        let Route::Statement(statement) = &self.route else {
            return Ok(self.one(Tier::NamedShard, home));
        };
        let Statement {
            analysis, several, ..
        } = &**statement;
        if let Some((_, table)) = analysis.locals.iter().find(|(shard, _)| *shard != home) {
            return Err(PlanError::refused(
                Refusal::LocalWithSharded,
                format!(
                    "the local table {table} is used along with sharded tables on other shards"
                ),
            ));
        }
        match several {
            Ok(Several::Gather(text)) => {
                let arguments = Arguments::default();
                self.gather(text, home, &analysis.uses, None, arguments, topology)
            }
            Err(obstacle) => Err(obstacle.clone()),
            Ok(_) => Err(PlanError::refused(
                Refusal::Rewrite,
                "the rows cannot be gathered on one shard",
            )),
        }
    }

    /// Rows from where each table's keys are, and the query over them on `host`, which needs the first `rows_max` of them if
    /// they come in an order.
    fn gather(
        &self,
        text: &GatherText,
        host: ShardId,
        uses: &[Use],
        rows_max: Option<u64>,
        arguments: Arguments<'_>,
        topology: &Topology,
    ) -> Result<Plan, PlanError> {
        if arguments.values.len() != text.parameters {
            let number = arguments.values.len().min(text.parameters) as u32 + 1;
            return Err(PlanError::NoParameter { number });
        }
        let mut inputs = Vec::with_capacity(text.inputs.len());
        for input in &text.inputs {
            let mut shards = Vec::new();
            for used in input.uses.iter().filter_map(|used| uses.get(*used)) {
                match used.formula.slots(arguments)? {
                    Some(slots) => {
                        for slot in slots {
                            shards.push(owner(topology, slot)?);
                        }
                    }
                    None => shards.extend(every_shard(topology)?),
                }
            }
            shards.sort_unstable();
            shards.dedup();
            let sql: Arc<str> = match (&input.order, rows_max) {
                (Some(order), Some(rows)) => {
                    format!("{} ORDER BY {order} LIMIT {rows}", input.sql).into()
                }
                _ => input.sql.clone(),
            };
            let step = |shard| Step {
                shard,
                sql: StepSql::Rewritten(sql.clone()),
                arguments: StepArguments::Chosen(input.parameters.clone()),
            };
            inputs.push(Input {
                relation: input.relation.clone(),
                steps: shards.into_iter().map(step).collect(),
                columns: input.columns.clone(),
            });
        }
        Ok(Plan {
            tier: text.tier,
            access: self.access,
            inputs,
            steps: vec![Step {
                shard: host,
                sql: StepSql::Rewritten(text.sql.clone()),
                arguments: text.arguments.clone(),
            }],
            merge: Merge::Relay,
        })
    }

    /// A plan of this template in lines, for EXPLAIN: what [`Plan::describe`] says, the keys that were found, and
    /// what is missing where it runs on several shards.
    pub fn describe(&self, plan: &Plan, topology: &Topology) -> Vec<String> {
        let mut lines = plan.describe(topology);
        if let Route::Statement(statement) = &self.route {
            for used in &statement.analysis.uses {
                lines.push(match used.formula.words() {
                    Some(words) => format!("key: {words}"),
                    None => format!(
                        "no key: {} is not restricted on {}",
                        used.relation, used.column.name
                    ),
                });
            }
            for stored in &statement.analysis.stored {
                lines.push(format!(
                    "key: {} of {} stored",
                    stored.column.name,
                    count_of(stored.keys.len(), "row")
                ));
            }
        } else {
            lines.push("by hint".to_owned());
        }
        lines
    }
}

pub(super) fn count_of(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The steps on shards that may be read, whose copies are whole.
pub fn alike(steps: &[Step], topology: &Topology) -> Arc<[u16]> {
    let readable = |step: &Step| topology.readable().any(|shard| shard == step.shard);
    let steps = (0..).zip(steps).filter(|(_, step)| readable(step));
    steps.map(|(index, _)| index).collect()
}

/// The same text on every shard, whose answers must be alike.
pub fn all_shards(access: Access, topology: &Topology) -> Plan {
    let step = |shard| Step {
        shard,
        sql: StepSql::AsSent,
        arguments: StepArguments::AsSent,
    };
    let steps: Vec<Step> = topology.shard_ids().map(step).collect();
    let merge = if steps.len() == 1 {
        Merge::Relay
    } else {
        Merge::First(alike(&steps, topology))
    };
    Plan {
        tier: Tier::AllShards,
        access,
        inputs: Vec::new(),
        steps,
        merge,
    }
}

pub(super) fn any_shard(binding: &Binding<'_>, topology: &Topology) -> ShardId {
    binding.preferred.unwrap_or_else(|| {
        let count = topology.readable().count().max(1);
        topology
            .readable()
            .nth(binding.spread % count)
            .unwrap_or(topology.default_shard)
    })
}

/// All shards, for what may need rows of every slot.
pub(super) fn every_shard(topology: &Topology) -> Result<Vec<ShardId>, PlanError> {
    match topology.fenced_shard() {
        None => Ok(topology.readable().collect()),
        Some(shard) => Err(shard_fenced(topology, shard)),
    }
}

/// For what may need rows of every slot of one shard.
fn unfenced(topology: &Topology, shard: ShardId) -> Result<(), PlanError> {
    match topology.fences(shard).is_empty() {
        true => Ok(()),
        false => Err(shard_fenced(topology, shard)),
    }
}

fn shard_fenced(topology: &Topology, shard: ShardId) -> PlanError {
    PlanError::ShardFenced {
        shard: topology.shard_name(shard).clone(),
    }
}

/// The shard that owns `slot`.
pub(super) fn owner(topology: &Topology, slot: SlotId) -> Result<ShardId, PlanError> {
    match topology.owner(slot) {
        SlotOwner::Shard(shard) => Ok(shard),
        SlotOwner::Fenced(_) => Err(PlanError::SlotFenced { slot }),
        SlotOwner::Gap => Err(PlanError::SlotGap { slot }),
        SlotOwner::Overlap(first, second) => Err(PlanError::SlotOverlap {
            slot,
            first: topology.shard_name(first).clone(),
            second: topology.shard_name(second).clone(),
        }),
    }
}

/// Refuses a parameter that each shard's clock would read in its own way.
fn same_everywhere(values: &[Option<&[u8]>], timeless: &[u16]) -> Result<(), PlanError> {
    let differs = |value: &&[u8]| std::str::from_utf8(value).is_ok_and(clock::tells_time);
    let index = values.iter().enumerate().position(|(index, value)| {
        value.as_ref().is_some_and(differs)
            && !timeless
                .iter()
                .any(|timeless| usize::from(*timeless) == index)
    });
    match index {
        None => Ok(()),
        Some(index) => Err(PlanError::refused(
            Refusal::VolatileFunction,
            format!(
                "the value of parameter ${} may be the time, which differs between shards",
                index + 1
            ),
        )),
    }
}

/// LIMIT or OFFSET as a number; `None` for none.
fn count(
    count: Option<&Count>,
    arguments: Arguments<'_>,
    negative: PlanError,
) -> Result<Option<u64>, PlanError> {
    let number = match count {
        None => return Ok(None),
        Some(Count::Number(number)) => *number,
        Some(Count::Parameter { index, oid }) => {
            if !matches!(oid, 0 | 20 | 21 | 23) {
                return Err(PlanError::refused(
                    Refusal::LimitExpression,
                    "LIMIT or OFFSET is a parameter that is not an integer",
                ));
            }
            let invalid = || PlanError::Parameter {
                number: u32::from(*index) + 1,
                type_name: "bigint",
            };
            match arguments.value(*index)? {
                (None, _) => return Ok(None),
                (Some(value), false) => {
                    let text = std::str::from_utf8(value).map_err(|_| invalid())?;
                    let parsed = text.trim_ascii().parse::<i64>();
                    parsed.map_err(|error| match error.kind() {
                        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                            PlanError::CountRange { text: text.into() }
                        }
                        _ => invalid(),
                    })?
                }
                (Some(value), true) => match value.len() {
                    2 => i64::from(i16::from_be_bytes(value.try_into().map_err(|_| invalid())?)),
                    4 => i64::from(i32::from_be_bytes(value.try_into().map_err(|_| invalid())?)),
                    8 => i64::from_be_bytes(value.try_into().map_err(|_| invalid())?),
                    _ => return Err(invalid()),
                },
            }
        }
    };
    u64::try_from(number).map(Some).map_err(|_| negative)
}

/// Refuses a column's default that would differ between shards or copies.
pub(super) fn default_is_shared(
    relation: &Relation,
    column: &Column,
    reference: bool,
    topology: &Topology,
    search_path: &[Arc<str>],
) -> Result<(), PlanError> {
    match write::default_obstacle(relation, column, reference, topology, search_path) {
        None => Ok(()),
        Some((obstacle, _)) => Err(obstacle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::snapshot::{Membership, Shard};
    use crate::topology::{Epoch, SLOT_COUNT};

    fn topology() -> Topology {
        Topology {
            generation: 0,
            has_foreign_rows: false,
            in_transit: None,
            cluster: "test".into(),
            shards: vec![Shard {
                rows_since: 0,
                fences: Arc::default(),
                name: "s0".into(),
                epoch: Epoch(1),
                membership: Membership::Whole,
            }],
            owners: (0..SLOT_COUNT)
                .map(|_| SlotOwner::Shard(ShardId(0)))
                .collect(),
            default_shard: ShardId(0),
            schema: Arc::default(),
        }
    }

    fn planned(sql: &str) -> Result<Template, PlanError> {
        let topology = topology();
        let limits = LexLimits {
            tokens_max: 100_000,
            depth_max: 2000,
        };
        let context = Context {
            topology: &topology,
            search_path: &[],
            hint: None,
            limits: &limits,
        };
        template(sql, &[], &context)
    }

    #[test]
    fn deep_statements_are_walked_on_a_stack_that_holds_them() {
        let repeat = |before: &str, middle: &str, after: &str, times: usize| {
            format!(
                "SELECT {}{middle}{}",
                before.repeat(times),
                after.repeat(times)
            )
        };
        for sql in [
            repeat("(", "1", ")", 150),
            repeat("", "true", " OR a = 1", 480),
            repeat("", "1", " + 1", 900),
            repeat("(SELECT ", "1", ")", 60),
            repeat("f(", "1", ")", 100),
            repeat("CASE WHEN a THEN ", "1", " END", 90),
            repeat("", "1", " UNION ALL SELECT 1", 400),
        ] {
            // Whatever the parser makes of it, the process lives.
            match planned(&sql) {
                Ok(_) | Err(PlanError::Unparsed { .. } | PlanError::TooBig { .. }) => {}
                Err(error) => panic!("{sql}: {error}"),
            }
        }
        assert!(planned(&repeat("(", "1", ")", 150)).is_ok());
        assert!(matches!(
            planned(&repeat("(", "1", ")", 1500)),
            Err(PlanError::TooBig { .. })
        ));
    }

    #[test]
    fn a_template_suits_no_topology_with_other_rows_than_its_own() {
        let plain = topology();
        let moving = Topology {
            has_foreign_rows: true,
            ..topology()
        };
        let made = |topology: &Topology| {
            let context = Context {
                topology,
                search_path: &[],
                hint: None,
                limits: &LexLimits {
                    tokens_max: 100,
                    depth_max: 10,
                },
            };
            template("SELECT 1", &[], &context).unwrap()
        };
        for (topology, other) in [(&plain, &moving), (&moving, &plain)] {
            let template = made(topology);
            assert!(template.suits(topology) && !template.suits(other));
        }
    }

    #[test]
    fn a_quoted_hint_may_hold_anything() {
        let topology = topology();
        assert_eq!(
            Hint::parse("key='it''s, = x' table=a.b", &topology),
            Ok(Hint::Key {
                table: Some("a.b".to_owned()),
                value: "it's, = x".to_owned()
            })
        );
        assert_eq!(
            Hint::parse("shard=s0", &topology),
            Ok(Hint::Shard(ShardId(0)))
        );
        for wrong in [
            "",
            "shard",
            "shard=s0 key=1",
            "key='open",
            "shard=s0 shard=s0",
            "colour=red",
        ] {
            assert!(Hint::parse(wrong, &topology).is_err(), "{wrong}");
        }
    }
}

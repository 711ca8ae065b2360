//! What hangs on a relation and runs, or has to hold, when a statement uses it: triggers, rules, policies, checks,
//! the queries of views, unique constraints. A shard runs it over its own rows, so what is not known to come to the
//! same as on one PostgreSQL with all rows is refused.
//!
//! [`read`] is asked for each use of a relation, [`write()`] for each that is written. Both give an error where the
//! statement is refused on one shard too, else what stands in the way of several shards or copies, if anything.

use super::catalog_text::{self, calls, has_word, names_only};
use super::function::Effect;
use super::refusal::{PlanError, Refusal};
use crate::sql::plpgsql;
use crate::topology::schema::{
    Caused, ColumnDefault, Event, Expression, Placement, Relation, RelationKind, Schema, Trigger,
    Unique,
};
use std::collections::HashSet;
use std::sync::Arc;

/// What stands in the way of several shards or copies.
pub type Obstacle = Option<PlanError>;

/// The relation, and the tables that it shows if it is a view.
pub(super) fn and_reads<'a>(
    relation: &'a Relation,
    schema: &'a Schema,
) -> impl Iterator<Item = &'a Relation> {
    let reads = relation.reads.iter();
    let tables = reads.filter_map(|(namespace, name)| schema.relations.get(namespace)?.get(name));
    std::iter::once(relation).chain(tables.map(Arc::as_ref))
}

/// Policies and views' queries.
///
/// # Errors
/// One of them reads what is not on every shard, or may.
pub fn read(relation: &Relation, schema: &Schema) -> Result<Obstacle, PlanError> {
    let mut obstacle = None;
    for table in and_reads(relation, schema) {
        for policy in &table.policies {
            let what = format!("the policy {} of {}", policy.name, table.name);
            obstacle = obstacle.or(policy_obstacle(policy, &what, table, schema)?);
        }
    }
    if relation.kind == RelationKind::View {
        obstacle = obstacle.or(queries(relation, schema)?);
    }
    Ok(obstacle)
}

/// The queries of a view, or of a materialized view that is made anew.
///
/// # Errors
/// One of them reads what is not on every shard, or may, or leaves something in its session.
pub fn queries(view: &Relation, schema: &Schema) -> Result<Obstacle, PlanError> {
    let mut obstacle = None;
    for query in &view.queries {
        for (effect, called) in calls(&query.text, schema, &[]) {
            let what = format!("the view {} calls {called}", query.name);
            obstacle = obstacle.or(call_obstacle(effect, what, &view.placement)?);
        }
    }
    Ok(obstacle)
}

/// What a call means in a view's query or a check.
fn call_obstacle(
    effect: Effect,
    what: String,
    placement: &Placement,
) -> Result<Obstacle, PlanError> {
    let refused = |refusal| PlanError::refused(refusal, what.clone());
    match effect {
        Effect::Procedural => Err(refused(Refusal::ProceduralFunction)),
        Effect::Session => Err(refused(Refusal::SessionState)),
        Effect::Designated if matches!(placement, Placement::Local(_)) => Ok(None),
        Effect::Designated => Err(refused(Refusal::DesignatedFunction)),
        Effect::Random | Effect::Time => Ok(Some(refused(Refusal::VolatileFunction))),
        Effect::Catalog => Ok(Some(refused(Refusal::CatalogFunction))),
        Effect::Same | Effect::Unknown => Ok(None),
    }
}

fn policy_obstacle(
    policy: &Expression,
    what: &str,
    table: &Relation,
    schema: &Schema,
) -> Result<Obstacle, PlanError> {
    if has_word(&policy.text, "select") {
        let is_here = |read: &Relation| match (&read.placement, &table.placement) {
            (Placement::Reference, _) => true,
            (Placement::Local(shard), Placement::Local(own)) => shard == own,
            (Placement::Catalog, Placement::Local(_)) => true,
            // The row itself: PostgreSQL lets no policy read its own table.
            _ => (&read.schema, &read.name) == (&table.schema, &table.name),
        };
        if !names_only(&policy.text, schema, is_here) {
            return Err(PlanError::refused(
                Refusal::RowSecurity,
                format!("{what} reads tables that are not whole on every shard"),
            ));
        }
    }
    let mut obstacle = None;
    for (effect, called) in calls(&policy.text, schema, &[]) {
        let reason = format!("{what} calls {called}");
        match effect {
            Effect::Procedural | Effect::Session | Effect::Designated => {
                return Err(PlanError::refused(Refusal::RowSecurity, reason));
            }
            // The session's settings are the same on every shard.
            Effect::Catalog if called == "current_setting()" => {}
            Effect::Random | Effect::Time | Effect::Catalog => {
                obstacle = obstacle.or(Some(PlanError::refused(Refusal::RowSecurity, reason)));
            }
            Effect::Same | Effect::Unknown => {}
        }
    }
    Ok(obstacle)
}

/// Rules, triggers, checks and unique constraints. `assigned`: the columns that an UPDATE sets; `None`: any.
///
/// # Errors
/// One of them needs, or may need, rows of other shards, or may write such.
pub fn write(
    relation: &Relation,
    events: &[Event],
    assigned: Option<&[Arc<str>]>,
    schema: &Schema,
) -> Result<Obstacle, PlanError> {
    if relation.placement == Placement::Catalog {
        return Ok(None);
    }
    let mut obstacle = None;
    for table in and_reads(relation, schema) {
        for rule in table
            .rules
            .iter()
            .filter(|rule| events.contains(&rule.event))
        {
            let text = &rule.definition.text;
            let is_here = |named: &Relation| named.placement == table.placement;
            let is_local = matches!(table.placement, Placement::Local(_));
            let calls_none = || {
                calls(text, schema, &[])
                    .iter()
                    .all(|(effect, _)| *effect < Effect::Procedural)
            };
            if !(is_local && names_only(text, schema, is_here) && calls_none()) {
                return Err(PlanError::refused(
                    Refusal::Rule,
                    format!(
                        "the rule {} of {} rewrites the statement",
                        rule.definition.name, table.name
                    ),
                ));
            }
        }
        let mut set: Vec<Arc<str>> = assigned.unwrap_or_default().to_vec();
        for trigger in &table.triggers {
            if !trigger.events.iter().any(|event| events.contains(event)) {
                continue;
            }
            let fired = fired(trigger, schema).map_err(|reason| {
                PlanError::refused(
                    Refusal::Trigger,
                    format!(
                        "the trigger {} of {} {reason}",
                        trigger.name, trigger.table.1
                    ),
                )
            })?;
            set.extend(fired.assigned.iter().map(|column| column.as_str().into()));
            obstacle = obstacle.or_else(|| fired.obstacle(trigger, &table.placement));
        }
        if events
            .iter()
            .any(|event| matches!(event, Event::Insert | Event::Update))
        {
            for check in &table.checks {
                for (effect, called) in calls(&check.text, schema, &[]) {
                    if matches!(effect, Effect::Procedural | Effect::Session) {
                        let what = format!("the {} of {} calls {called}", check.name, table.name);
                        call_obstacle(effect, what, &table.placement)?;
                    }
                }
            }
        }
        for caused in &table.caused {
            if caused.events.iter().any(|event| events.contains(event)) {
                obstacle = obstacle.or(caused_obstacle(caused, schema)?);
            }
        }
        let touched = |unique: &Unique| {
            events.contains(&Event::Insert)
                || (events.contains(&Event::Update)
                    && (assigned.is_none() || is_touched(unique, table, &set)))
        };
        if !table.unique_per_shard
            && let Some(unique) = without_key(table).find(|unique| touched(unique))
        {
            return Err(PlanError::refused(
                Refusal::UniqueWithoutKey,
                format!(
                    "the unique index {} of {} does not include the sharding key",
                    unique.name, table.name
                ),
            ));
        }
    }
    Ok(obstacle)
}

/// A check or default of another table that is evaluated too.
fn caused_obstacle(caused: &Caused, schema: &Schema) -> Result<Obstacle, PlanError> {
    let (namespace, name) = &caused.table;
    let table = schema
        .relations
        .get(namespace)
        .and_then(|tables| tables.get(name));
    let Some(table) = table else {
        return Ok(None);
    };
    let mut obstacle = None;
    for (effect, called) in calls(&caused.expression.text, schema, &[]) {
        let what = format!("the {} of {name} calls {called}", caused.expression.name);
        let refused = |refusal, why| Some(PlanError::refused(refusal, format!("{what}{why}")));
        let found = match (effect, &table.placement) {
            (Effect::Procedural | Effect::Session, placement) => {
                call_obstacle(effect, what, placement)?
            }
            _ if !caused.is_stored => None,
            (Effect::Designated, Placement::Reference | Placement::Sharded { .. }) => {
                refused(Refusal::SequenceDefault, "")
            }
            (Effect::Random | Effect::Time | Effect::Catalog, Placement::Reference) => refused(
                Refusal::ReferenceWriteDiffers,
                ", which gives each copy another value",
            ),
            (Effect::Time | Effect::Catalog, Placement::Sharded { .. }) => {
                refused(Refusal::VolatileFunction, ", which differs between shards")
            }
            _ => None,
        };
        obstacle = obstacle.or(found);
    }
    Ok(obstacle)
}

/// Unique indexes that hold on each shard only.
pub fn without_key(relation: &Relation) -> impl Iterator<Item = &Unique> {
    let key = match relation.placement {
        Placement::Sharded { key, .. } => Some(key),
        Placement::Reference | Placement::Local(_) | Placement::Catalog | Placement::View => None,
    };
    let unique = relation.unique.iter();
    unique.filter(move |unique| key.is_some_and(|key| !unique.columns.contains(&key)))
}

fn is_touched(unique: &Unique, table: &Relation, set: &[Arc<str>]) -> bool {
    unique.is_partial
        || unique.columns.iter().any(|column| {
            let column = &table.columns[*column];
            column.default == ColumnDefault::Generated || set.contains(&column.name)
        })
}

/// What a trigger does, if it is known to touch nothing but its row, or nothing beyond its shard.
struct Fired {
    /// The columns that it may change.
    assigned: Vec<String>,
    /// What tells shards apart in it.
    differs: Option<(Effect, String)>,
}

impl Fired {
    fn obstacle(&self, trigger: &Trigger, placement: &Placement) -> Obstacle {
        let (effect, called) = self.differs.as_ref()?;
        let reason = format!(
            "the trigger {} of {} calls {called}",
            trigger.name, trigger.table.1
        );
        match placement {
            Placement::Reference => Some(PlanError::refused(
                Refusal::ReferenceWriteDiffers,
                format!("{reason}, which gives each copy another value"),
            )),
            // Each row gets a value of its own on one server too.
            Placement::Sharded { .. } if *effect == Effect::Random => None,
            Placement::Sharded { .. } => Some(PlanError::refused(
                Refusal::Trigger,
                format!("{reason}, which differs between shards"),
            )),
            Placement::Local(_) | Placement::Catalog | Placement::View => None,
        }
    }
}

/// Why a trigger is not known to be harmless, as the rest of a sentence.
type Reason = String;

fn fired(trigger: &Trigger, schema: &Schema) -> Result<Fired, Reason> {
    let (namespace, name) = &trigger.table;
    let table = schema
        .relations
        .get(namespace)
        .and_then(|tables| tables.get(name));
    let table = table.ok_or("is of a table that is not in the router's catalog")?;
    let mut found = Fired {
        assigned: Vec::new(),
        differs: None,
    };
    if let Some(condition) = &trigger.condition {
        for (effect, called) in calls(condition, schema, &[]) {
            found.note(effect, called, false)?;
        }
    }
    let function = &trigger.function;
    match (&*function.language, &*function.schema, &*function.name) {
        (
            "internal",
            "pg_catalog",
            "suppress_redundant_updates_trigger"
            | "tsvector_update_trigger"
            | "tsvector_update_trigger_column",
        ) => {}
        // Of the extension of this name: it sets the column that it is given to the time.
        ("c", _, "moddatetime") => {
            found.assigned = trigger.arguments.iter().map(ToString::to_string).collect();
            found.differs = Some((Effect::Time, "moddatetime()".to_owned()));
        }
        ("plpgsql", ..) => found.body(&function.body, table, schema)?,
        (language, _, name) => {
            return Err(format!(
                "calls {name}(), which is in the language {language}"
            ));
        }
    }
    if let Placement::Sharded { key, .. } = table.placement {
        let key = &table.columns[key].name;
        if found.assigned.iter().any(|column| **column == **key) {
            return Err(format!("may change the sharding key {key}"));
        }
    }
    Ok(found)
}

impl Fired {
    /// Takes note of a call. `late`: whether its name was not looked up when it was stored.
    fn note(&mut self, effect: Effect, called: String, late: bool) -> Result<(), Reason> {
        match effect {
            Effect::Same => {}
            Effect::Unknown if !late => {}
            // The session's settings are the same on every shard.
            Effect::Catalog if called == "current_setting()" => {}
            Effect::Random | Effect::Time | Effect::Catalog => {
                let worse = self
                    .differs
                    .as_ref()
                    .is_none_or(|(known, _)| *known < effect);
                if worse {
                    self.differs = Some((effect, called));
                }
            }
            Effect::Designated | Effect::Unknown | Effect::Procedural | Effect::Session => {
                return Err(format!("calls {called}"));
            }
        }
        Ok(())
    }

    /// The body of a function in PL/pgSQL.
    fn body(&mut self, text: &str, table: &Arc<Relation>, schema: &Schema) -> Result<(), Reason> {
        // Its search path is the session's or its own: all schemas, to be sure.
        let search_path: Vec<Arc<str>> = all_schemas(schema);
        let simple = match plpgsql::read(text, &catalog_text::LIMITS) {
            Err(plpgsql::Beyond(what)) => Err(format!("does more than change its row ({what})")),
            Ok(body) => {
                let found = body.expressions.iter().try_for_each(|expression| {
                    let called = calls(&text[expression.clone()], schema, &search_path);
                    let mut called = called.into_iter();
                    called.try_for_each(|(effect, what)| self.note(effect, what, true))
                });
                self.assigned = body.assigned;
                found
            }
        };
        match simple {
            Err(reason) if matches!(table.placement, Placement::Local(_)) => {
                stays_local(text, table, schema, &search_path, &mut HashSet::new())
                    .map_err(|why| format!("{reason} and {why}"))
            }
            simple => simple,
        }
    }
}

fn all_schemas(schema: &Schema) -> Vec<Arc<str>> {
    let functions = schema.user_functions.keys();
    functions.chain(schema.operators.keys()).cloned().collect()
}

/// Whether a function in PL/pgSQL touches tables of the local table's shard only, and no table whose triggers do more.
fn stays_local(
    text: &str,
    table: &Arc<Relation>,
    schema: &Schema,
    search_path: &[Arc<str>],
    seen: &mut HashSet<(Arc<str>, Arc<str>)>,
) -> Result<(), Reason> {
    let named = catalog_text::relations_named(text, schema).ok_or("cannot be read")?;
    for relation in &named {
        let is_here = relation.placement == table.placement
            || (relation.placement == Placement::Catalog && &*relation.schema != "pgring");
        if !is_here {
            return Err(format!("names {}, which is not local", relation.name));
        }
    }
    for (effect, called) in calls(text, schema, search_path) {
        let is_relation = named
            .iter()
            .any(|relation| called == format!("{}()", relation.name));
        match effect {
            Effect::Procedural | Effect::Session => return Err(format!("calls {called}")),
            Effect::Unknown if !is_relation => return Err(format!("calls {called}")),
            _ => {}
        }
    }
    if has_word(text, "execute") {
        return Err("runs SQL that it makes itself".to_owned());
    }
    for relation in named {
        if !seen.insert((relation.schema.clone(), relation.name.clone())) {
            continue;
        }
        if !relation.rules.is_empty() {
            return Err(format!("names {}, which has rules", relation.name));
        }
        for trigger in &relation.triggers {
            let function = &trigger.function;
            if &*function.body != text {
                if &*function.language != "plpgsql" {
                    return Err(format!(
                        "names {}, whose trigger calls {}()",
                        relation.name, function.name
                    ));
                }
                stays_local(&function.body, table, schema, search_path, seen)?;
            }
        }
    }
    Ok(())
}

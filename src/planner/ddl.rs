//! DDL against what the shard map declares: [`check`] refuses what would take a table's rows from where its declaration
//! finds them, and constraints that each shard would check among its own rows only; [`changes`] says what the rest of
//! a block no longer knows after it.

use super::automatic::{self, Touched};
use super::catalog_text;
use super::clock;
use super::function::Effect;
use super::refusal::{PlanError, Refusal};
use super::template::Context;
use crate::sql::definition::{self, Definition, ForeignKey, Source};
use crate::sql::lex::{self, Lexer, Token};
use crate::sql::reader::Reader;
use crate::sql::statement::{Ddl, DdlVerb, Name, ObjectKind, Statement};
use crate::topology::colocation::{Home, foreign_key_gap};
use crate::topology::schema::{Changes, Declared, HashFamily, Placement, Relation};
use std::sync::Arc;

/// A table that DDL names.
struct Target<'a> {
    home: Home,
    /// As it was loaded; None if it is new, or changed in this block.
    relation: Option<&'a Arc<Relation>>,
    declared: Option<&'a Declared>,
    unique_per_shard: bool,
}

fn declared<'a>(name: &Name<'_>, context: &Context<'a>) -> Option<&'a Declared> {
    let schema = &context.topology.schema;
    schema.declared(name.schema.as_deref(), &name.name, context.search_path)
}

impl<'a> Target<'a> {
    /// A table that is there.
    fn existing(name: &Name<'_>, context: &Context<'a>) -> Self {
        let schema = &context.topology.schema;
        let relation = schema.relation(name.schema.as_deref(), &name.name, context.search_path);
        let Some(relation) = relation else {
            return Self::new(name, context);
        };
        let own = (relation.schema.clone(), relation.name.clone());
        Self {
            home: Home::of(relation),
            relation: Some(relation),
            declared: schema.declared.get(&own),
            unique_per_shard: relation.unique_per_shard,
        }
    }

    /// A table that is made, or was a moment ago.
    fn new(name: &Name<'_>, context: &Context<'a>) -> Self {
        let declared = declared(name, context);
        let schema = &context.topology.schema;
        let home = match declared {
            Some(declared) => Home::declared(declared),
            None if schema.is_unloaded(name.schema.as_deref(), &name.name, context.search_path) => {
                Home::Other
            }
            None => Home::Local(context.topology.default_shard),
        };
        let unique_per_shard = matches!(
            declared,
            Some(Declared::Sharded {
                unique_per_shard: true,
                ..
            })
        );
        Self {
            home,
            relation: None,
            declared,
            unique_per_shard,
        }
    }

    /// Whether it is placed by the shard map, not left to the default shard.
    fn is_placed(&self) -> bool {
        match self.home {
            Home::Sharded { .. } | Home::Reference | Home::Other => true,
            Home::Local(_) => false,
        }
    }
}

fn placement_change(reason: String) -> PlanError {
    PlanError::refused(Refusal::PlacementChange, reason)
}

/// Refuses what the declarations do not allow.
///
/// # Errors
/// With the reason.
pub fn check(
    ddl: &Ddl<'_>,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<(), PlanError> {
    let (verb, object) = (ddl.verb, ddl.object);
    match (verb, object, ddl.relations.as_slice()) {
        (DdlVerb::Alter, Some(ObjectKind::Schema), _) => renamed_schema(sql, tokens, context),
        (DdlVerb::Alter, Some(kind), [name]) => {
            let target = Target::existing(name, context);
            if let Some(what) = change_of_placement(&target.home, sql, tokens) {
                return Err(placement_change(format!(
                    "{what} of {}, which the shard map declares",
                    name.name
                )));
            }
            if let Some(new) = new_name(name, &target, sql, tokens)
                && declared(&new, context).is_some()
            {
                return Err(placement_change(format!(
                    "{} gets the name {}, which the shard map declares",
                    name.name, new.name
                )));
            }
            if kind != ObjectKind::Table {
                return Ok(());
            }
            // What is no statement is PostgreSQL's to report.
            let Ok(definition) = definition::read(sql, tokens) else {
                return Ok(());
            };
            altered(name, &target, &definition, context)?;
            computed(name, &target, &definition, context)?;
            constraints(name, &target, &definition, context)
        }
        (DdlVerb::Create, Some(ObjectKind::Schema), _) => bare_schema(sql, tokens),
        (DdlVerb::Create, Some(ObjectKind::Table), [name]) => {
            let Ok(definition) = definition::read(sql, tokens) else {
                return Ok(());
            };
            let mut target = Target::new(name, context);
            created(name, &mut target, &definition, context)?;
            constraints(name, &target, &definition, context)
        }
        (DdlVerb::Create, Some(ObjectKind::Index), [name]) => {
            let Ok(definition) = definition::read(sql, tokens) else {
                return Ok(());
            };
            constraints(name, &Target::existing(name, context), &definition, context)
        }
        _ => Ok(()),
    }
}

fn renamed_schema(sql: &str, tokens: &[Token], context: &Context<'_>) -> Result<(), PlanError> {
    let mut reader = Reader::new(sql, tokens);
    reader.take(&["alter", "schema"]);
    let Ok(old) = reader.name() else {
        return Ok(());
    };
    if !reader.take(&["rename", "to"]) {
        return Ok(());
    }
    let new = reader.name().unwrap_or_default();
    let declared = context.topology.schema.declared.keys();
    let within = declared.filter(|(schema, _)| **schema == *old || **schema == *new);
    match within.min() {
        None => Ok(()),
        Some((_, table)) => Err(placement_change(format!(
            "RENAME of the schema {old}: the shard map declares {table}"
        ))),
    }
}

/// Refuses the elements of CREATE SCHEMA: tables, views and more in one statement.
fn bare_schema(sql: &str, tokens: &[Token]) -> Result<(), PlanError> {
    let mut reader = Reader::new(sql, tokens);
    reader.take(&["create", "schema"]);
    reader.take(&["if", "not", "exists"]);
    if !reader.is_word(0, "authorization") && reader.name().is_err() {
        return Ok(());
    }
    if reader.take(&["authorization"]) {
        reader.advance(1);
    }
    if reader.is_end() {
        return Ok(());
    }
    Err(PlanError::refused(
        Refusal::MixedPlacement,
        "CREATE SCHEMA with the tables and other objects in it",
    ))
}

/// The name that ALTER gives, if it gives one.
fn new_name<'a>(
    name: &'a Name<'_>,
    target: &Target<'_>,
    sql: &'a str,
    tokens: &'a [Token],
) -> Option<Name<'a>> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(sql, word));
    let at = (0..tokens.len()).find(|at| {
        (is(*at, "rename") && is(at + 1, "to")) || (is(*at, "set") && is(at + 1, "schema"))
    })?;
    let new = Reader::new(sql, tokens.get(at + 2..)?).name().ok()?;
    let own_schema = || {
        let loaded = target.relation.map(|relation| relation.schema.to_string());
        loaded.map(Into::into).or(name.schema.clone())
    };
    let (schema, name) = if is(at, "rename") {
        (own_schema(), new)
    } else {
        (Some(new), name.name.clone())
    };
    Some(Name {
        catalog: None,
        schema,
        name,
    })
}

/// What an ALTER does that leaves a declared table's rows where its declaration no longer finds them, if it does.
fn change_of_placement(home: &Home, sql: &str, tokens: &[Token]) -> Option<&'static str> {
    // Integers of all sizes hash alike.
    const INTEGERS: [&str; 7] = [
        "smallint", "integer", "int", "bigint", "int2", "int4", "int8",
    ];
    let (key, family) = match home {
        Home::Sharded { key, family } => (Some(key), *family),
        Home::Reference => (None, None),
        Home::Local(_) | Home::Other => return None,
    };
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(sql, word));
    (0..tokens.len()).find_map(|at| {
        if is(at, "rename") && is(at + 1, "to") {
            return Some("RENAME");
        }
        if is(at, "set") && is(at + 1, "schema") {
            return Some("SET SCHEMA");
        }
        let mut column = at + 1 + usize::from(is(at + 1, "column"));
        if is(column, "if") && is(column + 1, "exists") {
            column += 2;
        }
        let names_key = key.is_some_and(|key| {
            let token = tokens.get(column);
            token.is_some_and(|token| lex::unquote_identifier(token.text(sql)) == **key)
        });
        let rest = column + 1 + 2 * usize::from(is(column + 1, "set") && is(column + 2, "data"));
        match () {
            () if !names_key => None,
            () if is(at, "rename") => Some("RENAME of the sharding key"),
            () if is(at, "drop") => Some("DROP of the sharding key"),
            () if is(at, "alter")
                && is(rest, "type")
                && !(family == Some(HashFamily::Integer)
                    && INTEGERS.iter().any(|integer| is(rest + 1, integer))) =>
            {
                Some("another type of the sharding key")
            }
            () => None,
        }
    })
}

/// Parts that ALTER TABLE adds and takes away.
fn altered(
    name: &Name<'_>,
    target: &Target<'_>,
    definition: &Definition<'_>,
    context: &Context<'_>,
) -> Result<(), PlanError> {
    for parent in &definition.parents {
        let parent_home = Target::existing(parent, context).home;
        beside(&name.name, &target.home, &parent.name, &parent_home)?;
    }
    if let Some(part) = &definition.attached {
        let part_home = Target::existing(part, context).home;
        beside(&part.name, &part_home, &name.name, &target.home)?;
    }
    let leaves = |part: &Name<'_>, part_target: &Target<'_>, parent: &Name<'_>| {
        if part_target.declared.is_none() && part_target.is_placed() {
            return Err(placement_change(format!(
                "{} would be no part of {} any more, and the shard map does not declare it",
                part.name, parent.name
            )));
        }
        Ok(())
    };
    if let Some(part) = &definition.detached {
        leaves(part, &Target::existing(part, context), name)?;
    }
    if let Some(parent) = &definition.disinherited {
        leaves(name, target, parent)?;
    }
    Ok(())
}

fn beside(part: &str, home: &Home, parent: &str, parent_home: &Home) -> Result<(), PlanError> {
    if home.is_beside(parent_home) {
        return Ok(());
    }
    Err(placement_change(format!(
        "{part} becomes a part of {parent}, and its rows are placed in another way"
    )))
}

/// A new table, and what it is a part of.
fn created(
    name: &Name<'_>,
    target: &mut Target<'_>,
    definition: &Definition<'_>,
    context: &Context<'_>,
) -> Result<(), PlanError> {
    let is_whole =
        definition.parents.is_empty() && definition.like.is_empty() && !definition.of_type;
    if let Home::Sharded { key, .. } = &target.home
        && is_whole
        && !definition.columns.iter().any(|column| **column == **key)
    {
        return Err(placement_change(format!(
            "{} without {key}, which the shard map declares as its sharding key",
            name.name
        )));
    }
    for (index, parent) in definition.parents.iter().enumerate() {
        let parent_target = Target::existing(parent, context);
        // A new part is placed as its parent is.
        if index == 0 && target.declared.is_none() {
            target.home = parent_target.home;
            target.unique_per_shard = parent_target.unique_per_shard;
        } else {
            beside(&name.name, &target.home, &parent.name, &parent_target.home)?;
        }
    }
    Ok(())
}

/// Unique constraints and foreign keys.
fn constraints(
    name: &Name<'_>,
    target: &Target<'_>,
    definition: &Definition<'_>,
    context: &Context<'_>,
) -> Result<(), PlanError> {
    if let Home::Sharded { key, .. } = &target.home
        && !target.unique_per_shard
    {
        let lacks = |columns: &[&str]| !columns.contains(&&**key);
        let refused = || {
            PlanError::refused(
                Refusal::UniqueWithoutKey,
                format!(
                    "a unique constraint of {} does not include the sharding key {key}",
                    name.name
                ),
            )
        };
        for unique in &definition.unique {
            let columns: Vec<&str> = match (&unique.index, target.relation) {
                (None, _) => unique.columns.iter().map(|column| &**column).collect(),
                (Some(index), Some(relation)) => {
                    let of = relation.unique.iter().find(|known| *known.name == **index);
                    of.map(|unique| names_of(relation, &unique.columns))
                        .unwrap_or_default()
                }
                (Some(_), None) => Vec::new(),
            };
            if lacks(&columns) {
                return Err(refused());
            }
        }
        for (like, with_indexes) in &definition.like {
            let source = Target::existing(like, context).relation;
            let mut unique = source.iter().flat_map(|relation| {
                let unique = relation.unique.iter();
                unique.map(|unique| names_of(relation, &unique.columns))
            });
            if *with_indexes && unique.any(|columns| lacks(&columns)) {
                return Err(refused());
            }
        }
    }
    for key in &definition.foreign_keys {
        foreign_key(name, target, key, definition, context)?;
    }
    Ok(())
}

fn names_of<'a>(relation: &'a Relation, columns: &[usize]) -> Vec<&'a str> {
    columns
        .iter()
        .map(|column| &*relation.columns[*column].name)
        .collect()
}

fn foreign_key(
    name: &Name<'_>,
    target: &Target<'_>,
    key: &ForeignKey<'_>,
    definition: &Definition<'_>,
    context: &Context<'_>,
) -> Result<(), PlanError> {
    let refused = |gap: &str| {
        let columns = key.columns.join(", ");
        PlanError::refused(
            Refusal::ForeignKey,
            format!("the foreign key ({columns}) of {} {gap}", name.name),
        )
    };
    let is_itself = key.table.name == name.name
        && (key.table.schema.is_none() || key.table.schema == name.schema);
    let referenced_target = Target::existing(&key.table, context);
    let other = if is_itself {
        &target.home
    } else {
        &referenced_target.home
    };
    let primary: Vec<&str> = if !key.referenced.is_empty() {
        key.referenced.iter().map(|column| &**column).collect()
    } else if let Some(primary) = definition
        .unique
        .iter()
        .find(|unique| is_itself && unique.is_primary)
    {
        primary.columns.iter().map(|column| &**column).collect()
    } else if let Some(relation) = referenced_target.relation {
        let primary = relation.unique.iter().find(|unique| unique.is_primary);
        primary
            .map(|unique| names_of(relation, &unique.columns))
            .unwrap_or_default()
    } else {
        match other {
            // Its primary key includes the sharding key, and has one column.
            Home::Sharded { key: other_key, .. }
                if key.columns.len() == 1 && !referenced_target.unique_per_shard =>
            {
                vec![&**other_key]
            }
            _ => Vec::new(),
        }
    };
    let columns = key.columns.iter().map(|column| &**column);
    if let Some(gap) = foreign_key_gap(&target.home, other, columns.zip(primary)) {
        return Err(refused(gap));
    }
    if let Home::Sharded { key: own_key, .. } = &target.home {
        let is_key = |columns: &[std::borrow::Cow<'_, str>]| {
            columns.iter().any(|column| **column == **own_key)
        };
        if is_key(&key.emptied) {
            return Err(refused("would empty the sharding key"));
        }
        // A sharded table's key is never updated.
        if key.follows_updates && *other == Home::Reference && is_key(&key.columns) {
            return Err(refused("would change the sharding key"));
        }
    }
    Ok(())
}

/// Refuses DDL that evaluates for the rows that are there what leaves something in its session: defaults, checks,
/// conversions and the expressions of indexes.
///
/// # Errors
/// With the call.
pub fn evaluated(ddl: &Ddl<'_>, sql: &str, context: &Context<'_>) -> Result<(), PlanError> {
    let evaluates = matches!(
        (ddl.verb, ddl.object),
        (DdlVerb::Alter, Some(ObjectKind::Table)) | (DdlVerb::Create, Some(ObjectKind::Index))
    );
    if !evaluates {
        return Ok(());
    }
    let schema = &context.topology.schema;
    // The rest of ALTER TABLE changes no rows.
    let words = ["add", "type", "using", "index"];
    if words.iter().any(|word| catalog_text::has_word(sql, word)) {
        let copies = context.topology.is_spread();
        automatic::check(&Touched::anything(), "the statement", copies, schema)?;
    }
    let called = catalog_text::calls(sql, schema, context.search_path);
    match called
        .into_iter()
        .find(|(effect, _)| *effect == Effect::Session)
    {
        None => Ok(()),
        Some((_, what)) => Err(PlanError::refused(
            Refusal::SessionState,
            format!("the statement evaluates {what}, which keeps state in its server session"),
        )),
    }
}

/// Refuses values for rows that are there which each shard would make in its own way: of one row's copies, or of rows that
/// one PostgreSQL would give the same or different ones.
fn computed(
    name: &Name<'_>,
    target: &Target<'_>,
    definition: &Definition<'_>,
    context: &Context<'_>,
) -> Result<(), PlanError> {
    let is_copied = match target.home {
        Home::Local(_) => return Ok(()),
        Home::Sharded { .. } => false,
        Home::Reference | Home::Other => true,
    };
    if !context.topology.is_spread() {
        return Ok(());
    }
    for computed in &definition.computed {
        let column = format!("{}.{}", name.name, computed.column);
        let schema = &context.topology.schema;
        let texts: Vec<&str> = match &computed.from {
            Source::Sequence => {
                let reason = format!("the rows of each shard would be numbered anew in {column}");
                return Err(PlanError::refused(Refusal::SequenceDefault, reason));
            }
            Source::Expression(text) => vec![text],
            Source::Type(name) => {
                let defaults = schema.domain_defaults.get(&**name).into_iter().flatten();
                defaults.map(|text| &**text).collect()
            }
        };
        let called = texts.iter().flat_map(|text| {
            let called = catalog_text::calls(text, schema, context.search_path);
            // What does not exist is PostgreSQL's to report.
            let called = called
                .into_iter()
                .filter(|(effect, _)| *effect != Effect::Unknown);
            let told = text_of_time(text).map(|text| (Effect::Time, text.to_owned()));
            called.chain(told)
        });
        let Some((effect, what)) = called.max_by_key(|(effect, _)| *effect) else {
            continue;
        };
        let refusal = match effect {
            Effect::Same | Effect::Unknown => continue,
            // What is different for each row may be so on each shard.
            Effect::Random if !is_copied => continue,
            Effect::Random | Effect::Time => Refusal::VolatileFunction,
            Effect::Catalog => Refusal::CatalogFunction,
            Effect::Designated => Refusal::SequenceDefault,
            Effect::Procedural => Refusal::ProceduralFunction,
            Effect::Session => Refusal::SessionState,
        };
        let reason = format!(
            "each shard would compute {what} for {column} of the rows that it has: add the column without it, \
             UPDATE the rows, then SET DEFAULT"
        );
        return Err(PlanError::refused(refusal, reason));
    }
    Ok(())
}

/// A literal that PostgreSQL may read as the time.
fn text_of_time(sql: &str) -> Option<&str> {
    let tokens = Lexer::new(sql).map_while(Result::ok);
    let mut strings = tokens.filter(Token::is_string);
    let tells =
        |token: &Token| lex::string_value(token, sql).is_ok_and(|value| clock::tells_time(&value));
    strings.find(tells).map(|token| token.text(sql))
}

/// Whether the shard map says that a new table of this name is not on the default shard alone.
pub fn is_placed(name: &Name<'_>, context: &Context<'_>) -> bool {
    let declared = declared(name, context);
    declared.is_some_and(|declared| !declared.is_local_on(context.topology.default_shard))
}

/// What the rest of a block no longer knows of after a statement, until the schema is loaded again.
pub fn changes(
    statement: &Statement<'_>,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Changes {
    let mut changes = Changes::default();
    let ddl = match statement {
        Statement::CreateTableAs {
            relation,
            materialized_view: true,
            ..
        } => {
            note(&mut changes, relation, context);
            return changes;
        }
        Statement::Ddl(ddl) => ddl,
        _ => return changes,
    };
    let is_placed = |name: &Name<'_>| {
        let schema = &context.topology.schema;
        let relation = schema.relation(name.schema.as_deref(), &name.name, context.search_path);
        declared(name, context).is_some()
            || relation.is_some_and(|relation| !matches!(relation.placement, Placement::Local(_)))
            || schema.is_unloaded(name.schema.as_deref(), &name.name, context.search_path)
    };
    let has = |words: &[&str]| {
        let mut tokens = tokens.iter();
        tokens.any(|token| words.iter().any(|word| token.is(sql, word)))
    };
    match (ddl.verb, ddl.object) {
        (_, Some(ObjectKind::Cast | ObjectKind::Operator | ObjectKind::Domain)) => {
            changes.conversions = true;
        }
        (_, Some(ObjectKind::EventTrigger)) => changes.event_triggers = true,
        (DdlVerb::Create, Some(ObjectKind::View | ObjectKind::MaterializedView)) => {
            ddl.relations
                .iter()
                .for_each(|name| note(&mut changes, name, context));
        }
        (DdlVerb::Create, Some(ObjectKind::Table)) => {
            let is_part =
                definition::read(sql, tokens).is_ok_and(|found| !found.parents.is_empty());
            for name in &ddl.relations {
                if is_part || declared(name, context).is_some() {
                    note(&mut changes, name, context);
                }
            }
        }
        (DdlVerb::Create, Some(ObjectKind::Index)) if has(&["unique"]) => {
            let placed = ddl.relations.iter().filter(|name| is_placed(name));
            placed.for_each(|name| note(&mut changes, name, context));
        }
        (DdlVerb::Alter | DdlVerb::Drop, _) if !ddl.relations.is_empty() => {
            let reshapes =
                ddl.verb == DdlVerb::Alter && has(&["enable", "attach", "detach", "inherit"]);
            let names = ddl.relations.iter();
            for name in names.filter(|name| reshapes || is_placed(name)) {
                note(&mut changes, name, context);
                if ddl.verb == DdlVerb::Alter
                    && let Some(new) = new_name(name, &Target::existing(name, context), sql, tokens)
                {
                    note(&mut changes, &new, context);
                }
            }
            if let Ok(Definition {
                attached: Some(part),
                ..
            }) = definition::read(sql, tokens)
            {
                note(&mut changes, &part, context);
            }
        }
        (
            DdlVerb::Create | DdlVerb::Alter,
            Some(ObjectKind::Trigger | ObjectKind::Rule | ObjectKind::Policy),
        ) => {
            let mut reader = Reader::new(sql, tokens);
            let before = match ddl.object {
                Some(ObjectKind::Rule) if ddl.verb == DdlVerb::Create => "to",
                _ => "on",
            };
            if reader.skip_to(before) {
                reader.advance(1);
                if let Ok(name) = reader.qualified_name() {
                    note(&mut changes, &name, context);
                }
            }
        }
        (DdlVerb::Alter | DdlVerb::Drop, Some(ObjectKind::Schema)) => {
            let mut reader = Reader::new(sql, tokens);
            reader.advance(2);
            reader.take(&["if", "exists"]);
            for schema in reader.list(Reader::name).unwrap_or_default() {
                changes.schema(&schema, &context.topology.schema);
            }
        }
        (
            _,
            Some(
                kind @ (ObjectKind::Function
                | ObjectKind::Procedure
                | ObjectKind::Routine
                | ObjectKind::Aggregate),
            ),
        ) => {
            let word = format!("{kind:?}").to_lowercase();
            let mut reader = Reader::new(sql, tokens);
            if reader.skip_to(&word) {
                reader.advance(1);
                reader.take(&["if", "exists"]);
                if let Ok(name) = reader.qualified_name() {
                    changes.functions.insert((&*name.name).into());
                }
            }
        }
        _ => {}
    }
    changes
}

/// A name without a schema may be one of any schema of the path.
fn note(changes: &mut Changes, name: &Name<'_>, context: &Context<'_>) {
    let table: Arc<str> = (&*name.name).into();
    match &name.schema {
        Some(schema) => drop(changes.relations.insert(((&**schema).into(), table))),
        None => {
            let path = context.search_path.iter();
            changes
                .relations
                .extend(path.map(|schema| (schema.clone(), table.clone())));
        }
    }
}

//! INSERT: where its rows go, and ON CONFLICT.

use super::analysis::{
    Analyzer, Block, Fill, Outcome, Rows, Stored, bare, beyond, is_default, object_name,
};
use super::attached;
use super::key::{KeyColumn, Source};
use super::refusal::{PlanError, Refusal};
use super::scope::{From, Scope};
use crate::sql::parse::{self, ast};
use crate::topology::schema::{Column, ColumnDefault, Event, Placement, Relation, RelationKind};
use ast::{Expr, SetExpr};
use std::rc::Rc;
use std::sync::Arc;

impl<'a> Analyzer<'a> {
    pub(super) fn insert(
        &mut self,
        insert: &'a ast::Insert,
        outer: Option<Rc<Scope>>,
    ) -> Outcome<Rows> {
        let ast::Insert {
            insert_token: _,
            optimizer_hints: _,
            or,
            ignore,
            into,
            table,
            table_alias,
            columns,
            by_name,
            overwrite,
            source,
            assignments,
            partitioned,
            after_columns,
            overriding,
            has_table_keyword,
            on,
            returning,
            output,
            replace_into,
            priority,
            insert_alias,
            settings,
            format_clause,
            multi_table_insert_type,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause,
        } = insert;
        let foreign = or.is_some()
            || *ignore
            || !*into
            || *by_name
            || *overwrite
            || !assignments.is_empty()
            || partitioned.is_some()
            || !after_columns.is_empty()
            || *has_table_keyword
            || output.is_some()
            || *replace_into
            || priority.is_some()
            || insert_alias.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || multi_table_insert_type.is_some()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty()
            || multi_table_else_clause.is_some();
        if foreign {
            return beyond("a clause of this INSERT");
        }
        let ast::TableObject::TableName(name) = table else {
            return beyond("this INSERT's target");
        };
        let parts = object_name(name)?;
        self.found.writes = true;
        self.found.writers += 1;
        self.blocks.push(Block::default());
        let before = self.uses.len();
        let mut target = self.table(&parts, None, None, true)?;
        // The rows that an INSERT touches are those that it stores, not those that are there.
        self.uses.truncate(before);
        if let Some(alias) = table_alias {
            target.items[0].name = parse::name(&alias.alias);
            target.items[0].schema = None;
        }
        let relation = self.relation(&parts);
        let updates = matches!(on, Some(ast::OnInsert::OnConflict(conflict))
            if matches!(conflict.action, ast::OnConflictAction::DoUpdate(_)));
        let events: &[Event] = if updates {
            &[Event::Insert, Event::Update]
        } else {
            &[Event::Insert]
        };
        self.written(relation.as_deref(), events, None)?;
        let reference = target.items[0].reference;
        let sharded = match relation.as_deref() {
            Some(Relation {
                placement: Placement::Sharded { key, .. },
                ..
            }) => Some(*key),
            _ => None,
        };
        let mut listed = Vec::new();
        for column in columns {
            // `a.b` and `a[1]` store into a part of column a.
            listed.push(object_name(column)?.into_iter().next().unwrap_or_default());
        }
        let source_rows = match source.as_deref() {
            None => None,
            Some(query) => match &*query.body {
                SetExpr::Values(values)
                    if query.with.is_none()
                        && query.order_by.is_none()
                        && query.limit_clause.is_none()
                        && query.fetch.is_none() =>
                {
                    if values.explicit_row || values.value_keyword {
                        return beyond("this VALUES");
                    }
                    let scope = Rc::new(Scope {
                        from: From::default(),
                        outer: outer.clone(),
                        restricts_outer: false,
                    });
                    let columns = relation.as_deref().map_or(&[][..], |found| &found.columns);
                    let column_at = |position: usize| match listed.get(position) {
                        Some(name) => columns.iter().find(|column| *column.name == **name),
                        None if listed.is_empty() => columns.get(position),
                        None => None,
                    };
                    for row in &values.rows {
                        for (position, expr) in row.content.iter().enumerate() {
                            if !is_default(expr) {
                                self.stored_value(expr, column_at(position), &scope)?;
                            }
                        }
                    }
                    Some(InsertRows::Values(&values.rows))
                }
                _ => Some(InsertRows::Query(self.query(
                    query,
                    outer.clone(),
                    false,
                    false,
                )?)),
            },
        };
        // Which columns are given, by their index in the relation.
        let width = match &source_rows {
            None => 0,
            Some(InsertRows::Values(rows)) => rows.first().map_or(0, |row| row.content.len()),
            Some(InsertRows::Query(rows)) => rows.columns.as_ref().map_or(usize::MAX, Vec::len),
        };
        if let Some(InsertRows::Values(rows)) = &source_rows
            && rows.iter().any(|row| row.content.len() != width)
        {
            return Err(PlanError::ValuesLength);
        }
        let mut obstacle = None;
        if let Some(relation) = relation.as_deref() {
            let given: Vec<usize> = if listed.is_empty() {
                (0..relation.columns.len().min(width)).collect()
            } else {
                listed
                    .iter()
                    .map(|name| relation.column(name).unwrap_or(usize::MAX))
                    .collect()
            };
            let mut given_names = Vec::with_capacity(given.len());
            let is_sequence = |column: &Column| column.default == ColumnDefault::Sequence;
            let mut sequences = (0..).zip(&relation.columns);
            let filled = match (
                &source_rows,
                sequences.find(|(_, column)| is_sequence(column)),
            ) {
                (Some(InsertRows::Values(rows)), Some((index, column)))
                    if sharded.is_some()
                        && relation.kind == RelationKind::Table
                        && overriding.is_none()
                        && !given.contains(&index)
                        && !sequences.any(|(_, column)| is_sequence(column)) =>
                {
                    let unlisted = relation.columns.iter().take(width);
                    let unlisted = unlisted.map(|column| column.name.clone());
                    self.found.fill = Some(Fill {
                        schema: relation.schema.clone(),
                        table: relation.name.clone(),
                        column: column.name.clone(),
                        unlisted: unlisted.filter(|_| listed.is_empty()).collect(),
                        rows: rows.len(),
                        is_key: sharded == Some(index),
                    });
                    Some(index)
                }
                _ => None,
            };
            for (index, column) in relation.columns.iter().enumerate() {
                if filled == Some(index) {
                    given_names.push(&*column.name);
                    continue;
                }
                let defaulted = match given.iter().position(|given| *given == index) {
                    None => true,
                    Some(position) => match &source_rows {
                        Some(InsertRows::Values(rows)) => rows
                            .iter()
                            .any(|row| row.content.get(position).is_some_and(is_default)),
                        Some(InsertRows::Query(_)) | None => false,
                    },
                };
                if defaulted {
                    self.defaulted(relation, column, reference)?;
                } else {
                    given_names.push(&*column.name);
                }
            }
            self.defaulted_behind(relation, &|name| given_names.contains(&name))?;
            if let Some(key) = sharded {
                let Some(column) = relation
                    .columns
                    .get(key)
                    .and_then(|column| KeyColumn::new(&relation.name, column))
                else {
                    return Err(PlanError::Internal {
                        what: "the sharding key has a type that cannot be hashed".into(),
                    });
                };
                let missing = || {
                    PlanError::refused(
                        Refusal::MissingKey,
                        format!("INSERT without the sharding key {}", column.name),
                    )
                };
                let position = given.iter().position(|given| *given == key);
                // A row without it has NULL there, unless the default says otherwise.
                let is_null =
                    column.not_null && relation.columns[key].default == ColumnDefault::Null;
                let without = || is_null.then_some(Source::Null).ok_or_else(missing);
                let column = Arc::new(column.clone());
                match &source_rows {
                    // The values are drawn when it is planned.
                    Some(InsertRows::Values(rows)) if filled == Some(key) => {
                        self.found.stored.push(Stored {
                            column,
                            keys: vec![Source::Null; rows.len()],
                            split: true,
                        });
                    }
                    None => self.found.stored.push(Stored {
                        column,
                        keys: vec![without()?],
                        split: false,
                    }),
                    Some(InsertRows::Values(rows)) => {
                        let mut keys = Vec::with_capacity(rows.len());
                        for row in rows.iter() {
                            let value = position.and_then(|position| row.content.get(position));
                            let Some(value) = value.filter(|value| !is_default(value)) else {
                                keys.push(without()?);
                                continue;
                            };
                            keys.push(self.constant(value, &column).ok_or_else(|| {
                                PlanError::refused(
                                    Refusal::KeyValue,
                                    format!("the sharding key {} is an expression", column.name),
                                )
                            })?);
                        }
                        self.found.stored.push(Stored {
                            column,
                            keys,
                            split: true,
                        });
                    }
                    Some(InsertRows::Query(rows)) => {
                        let refused =
                            |reason: String| PlanError::refused(Refusal::InsertSelect, reason);
                        let position = position.ok_or_else(missing)?;
                        if let Some(Some(constant)) = rows.constants.get(position) {
                            let source = self.constant(constant, &column).ok_or_else(|| {
                                refused(format!(
                                    "the sharding key {} is an expression",
                                    column.name
                                ))
                            })?;
                            self.found.stored.push(Stored {
                                column,
                                keys: vec![source],
                                split: false,
                            });
                            if rows.partitioned {
                                obstacle = Some(refused(
                                    "rows of several shards are stored under one sharding key"
                                        .to_owned(),
                                ));
                            }
                        } else {
                            let key = rows
                                .columns
                                .as_ref()
                                .and_then(|columns| columns.get(position))
                                .and_then(|column| column.key);
                            let carried = key.filter(|key| {
                                !key.nullable && self.graph.column(key.node).stores_as(&column)
                            });
                            if carried.is_none() {
                                return Err(refused(format!(
                                    "the sharding key {} is not the source's sharding key",
                                    column.name
                                )));
                            }
                        }
                    }
                }
            }
        }
        let scope = {
            let mut from = target.clone();
            let mut excluded = target.items[0].clone();
            excluded.name = "excluded".to_owned();
            excluded.schema = None;
            from.items.push(excluded);
            Rc::new(Scope {
                from,
                outer: outer.clone(),
                restricts_outer: false,
            })
        };
        match on {
            None => {}
            Some(ast::OnInsert::OnConflict(conflict)) => {
                if let Some(ast::ConflictTarget::Columns {
                    predicate: Some(predicate),
                    ..
                }) = &conflict.conflict_target
                {
                    self.expression(predicate, &scope)?;
                }
                if reference && matches!(source_rows, Some(InsertRows::Query(_))) {
                    self.unstable(
                        Refusal::ReferenceWriteDiffers,
                        "ON CONFLICT may meet the rows in another order on each shard",
                    );
                }
                if let (Some(relation), Some(key)) = (relation.as_deref(), sharded) {
                    arbitrates_by_key(conflict.conflict_target.as_ref(), relation, key)?;
                }
                if let ast::OnConflictAction::DoUpdate(update) = &conflict.action {
                    self.conflict_updates(
                        &update.assignments,
                        conflict.conflict_target.as_ref(),
                        relation.as_deref(),
                        &scope,
                    )?;
                    if let Some(selection) = &update.selection {
                        self.expression(selection, &scope)?;
                    }
                }
            }
            Some(_) => return beyond("ON DUPLICATE KEY"),
        }
        let target_scope = Rc::new(Scope {
            from: target,
            outer,
            restricts_outer: false,
        });
        let mut rows = self.returning(returning, &target_scope, &From::default())?;
        let block = self.blocks.pop().unwrap_or_default();
        if block.random && reference {
            self.unstable(
                Refusal::VolatileFunction,
                "a volatile function gives each copy another value",
            );
        }
        // A row that is stored has no key node to tie a subquery to.
        let subquery_obstacle = self.settle(block.pending, &[]);
        match source_rows {
            Some(InsertRows::Query(source)) => {
                rows.partitioned = source.partitioned && sharded.is_some();
                rows.obstacle = source.obstacle.or(obstacle).or(subquery_obstacle);
                if source.partitioned && sharded.is_none() {
                    rows.obstacle.get_or_insert_with(|| {
                        PlanError::refused(
                            Refusal::LocalWithSharded,
                            "rows of several shards are stored in a table that is not sharded",
                        )
                    });
                }
            }
            Some(InsertRows::Values(_)) | None => {
                rows.partitioned = sharded.is_some();
                rows.obstacle = subquery_obstacle;
            }
        }
        Ok(rows)
    }

    /// ON CONFLICT … DO UPDATE SET.
    fn conflict_updates(
        &mut self,
        assignments: &'a [ast::Assignment],
        target: Option<&ast::ConflictTarget>,
        relation: Option<&Relation>,
        scope: &Rc<Scope>,
    ) -> Outcome<()> {
        let key = match relation.map(|relation| (&relation.placement, relation)) {
            Some((Placement::Sharded { key, .. }, relation)) => {
                relation.columns.get(*key).map(|column| &*column.name)
            }
            _ => None,
        };
        let arbiter = matches!(target, Some(ast::ConflictTarget::Columns { columns, .. })
            if key.is_some_and(|key| columns.iter().any(|column| parse::name(column) == key)));
        for assignment in assignments {
            // A row that conflicts in its key has the key of the row that was to be stored.
            let same = match (&assignment.target, bare(&assignment.value)) {
                (ast::AssignmentTarget::ColumnName(name), Expr::CompoundIdentifier(value)) => {
                    let name = object_name(name)?;
                    let value: Vec<String> = value.iter().map(parse::name).collect();
                    arbiter
                        && name.len() == 1
                        && value.len() == 2
                        && value[0] == "excluded"
                        && value[1] == name[0]
                        && Some(name[0].as_str()) == key
                }
                _ => false,
            };
            if !same {
                self.assignments(std::slice::from_ref(assignment), relation, None, scope)?;
            }
        }
        Ok(())
    }
}

enum InsertRows<'a> {
    Values(&'a [ast::Parens<Vec<Expr>>]),
    Query(Rows),
}

/// Refuses an ON CONFLICT whose unique index lacks the sharding key: the row that conflicts may be on another shard.
fn arbitrates_by_key(
    target: Option<&ast::ConflictTarget>,
    relation: &Relation,
    key: usize,
) -> Outcome<()> {
    let key_name = &relation.columns[key].name;
    let reason = match target {
        Some(ast::ConflictTarget::Columns { columns, .. }) => {
            if columns
                .iter()
                .any(|column| parse::name(column) == **key_name)
            {
                return Ok(());
            }
            "ON CONFLICT".to_owned()
        }
        Some(ast::ConflictTarget::OnConstraint(name)) => {
            let name = object_name(name)?.pop().unwrap_or_default();
            let named = relation
                .unique
                .iter()
                .find(|unique| unique.is_constraint && *unique.name == *name);
            if named.is_some_and(|unique| unique.columns.contains(&key)) {
                return Ok(());
            }
            format!("ON CONFLICT ON CONSTRAINT {name}")
        }
        None => match attached::without_key(relation).next() {
            None => return Ok(()),
            Some(unique) => format!("ON CONFLICT by {}", unique.name),
        },
    };
    Err(PlanError::refused(
        Refusal::OnConflict,
        format!("{reason} without the sharding key {key_name} sees the rows of one shard only"),
    ))
}

//! UPDATE and DELETE, and what all writes share: their target, assignments, defaults and RETURNING.

use super::analysis::{
    Allow, Analyzer, Block, Outcome, Rows, bare, beyond, is_default, object_name, placeholder,
};
use super::body::Judge;
use super::function::Effect;
use super::key::NodeId;
use super::key_move::MoveText;
use super::refusal::{PlanError, Refusal};
use super::scope::{From, Scope};
use super::{attached, catalog_text, clock};
use crate::sql::parse::{self, ast};
use crate::topology::schema::{Column, ColumnDefault, Event, Placement, Relation, RelationKind};
use crate::topology::snapshot::Topology;
use ast::{Expr, FromTable, SelectItem, TableFactor, TableWithJoins};
use std::rc::Rc;
use std::sync::Arc;

impl<'a> Analyzer<'a> {
    /// Notes what gives other rows or values on each shard.
    pub(super) fn differs_by_shard(&mut self, obstacle: PlanError) {
        self.never_gathered(&obstacle);
        self.found.differs.get_or_insert_with(|| obstacle.clone());
        self.found.rows_obstacle.get_or_insert(obstacle.clone());
        self.found.multi.get_or_insert(obstacle);
    }

    /// A write of `relation`; `assigned` as in [`attached::write()`].
    pub(super) fn written(
        &mut self,
        relation: Option<&Relation>,
        events: &[Event],
        assigned: Option<&[Arc<str>]>,
    ) -> Outcome<()> {
        let Some(relation) = relation else {
            return Ok(());
        };
        for table in attached::and_reads(relation, &self.topology.schema) {
            self.touched.add_relation(table, true);
        }
        let obstacle = attached::write(relation, events, assigned, &self.topology.schema)?;
        if let Some(obstacle) = obstacle {
            self.differs_by_shard(obstacle);
        }
        Ok(())
    }

    /// RETURNING; `groups` as in [`Self::projected`].
    pub(super) fn returning(
        &mut self,
        returning: &'a Option<Vec<SelectItem>>,
        scope: &Rc<Scope>,
        groups: &From,
    ) -> Outcome<Rows> {
        let mut columns = Some(Vec::new());
        for item in returning.iter().flatten() {
            self.projected(item, scope, groups, &mut columns, &mut Vec::new())?;
        }
        Ok(Rows {
            columns,
            ..Rows::default()
        })
    }

    /// The target of a write.
    pub(super) fn target(
        &mut self,
        factor: &'a TableFactor,
    ) -> Outcome<(From, Option<Arc<Relation>>)> {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
        else {
            return beyond("this target");
        };
        self.found.writes = true;
        self.found.writers += 1;
        let parts = object_name(name)?;
        let from = self.table(&parts, alias.as_ref(), None, true)?;
        let relation = self.relation(&parts);
        if relation.as_ref().is_some_and(|relation| {
            &*relation.name == "pg_settings" && relation.placement == Placement::Catalog
        }) {
            return Err(PlanError::refused(
                Refusal::SessionState,
                "a write of pg_settings sets what its server session keeps",
            ));
        }
        Ok((from, relation))
    }

    pub(super) fn assignments(
        &mut self,
        assignments: &'a [ast::Assignment],
        relation: Option<&Relation>,
        key: Option<NodeId>,
        scope: &Rc<Scope>,
    ) -> Outcome<()> {
        let key_name = match relation.map(|relation| (&relation.placement, relation)) {
            Some((Placement::Sharded { key, .. }, relation)) => {
                relation.columns.get(*key).map(|column| column.name.clone())
            }
            _ => None,
        };
        if let Some((Placement::Sharded { key, .. }, relation)) =
            relation.map(|relation| (&relation.placement, relation))
            && let Some(column) = relation.columns.get(*key)
            && column.default == ColumnDefault::Generated
        {
            return Err(PlanError::refused(
                Refusal::KeyUpdate,
                format!(
                    "the sharding key {} is generated from the row's columns",
                    column.name
                ),
            ));
        }
        for assignment in assignments {
            let column = match &assignment.target {
                ast::AssignmentTarget::ColumnName(name) => object_name(name)?.pop(),
                ast::AssignmentTarget::Tuple(_) => None,
            };
            if let (ast::AssignmentTarget::Tuple(names), Expr::Tuple(values), Some(relation)) =
                (&assignment.target, bare(&assignment.value), relation)
            {
                for (name, value) in names.iter().zip(values) {
                    let index = object_name(name)?
                        .pop()
                        .and_then(|name| relation.column(&name));
                    if let Some(column) = index.map(|index| &relation.columns[index])
                        && is_default(value)
                    {
                        let reference = relation.placement == Placement::Reference;
                        self.defaulted(relation, column, reference)?;
                        self.defaulted_behind(relation, &|name| *name != *column.name)?;
                    }
                }
            }
            let column = column.zip(relation);
            let column = column.and_then(|(name, relation)| {
                relation
                    .column(&name)
                    .map(|column| &relation.columns[column])
            });
            match (column, relation) {
                (Some(column), Some(relation)) if is_default(&assignment.value) => {
                    let reference = relation.placement == Placement::Reference;
                    self.defaulted(relation, column, reference)?;
                    self.defaulted_behind(relation, &|name| *name != *column.name)?;
                }
                (column, _) => self.stored_value(&assignment.value, column, scope)?,
            }
            let Some(key_name) = &key_name else { continue };
            let refused = || {
                PlanError::refused(
                    Refusal::KeyUpdate,
                    format!("the sharding key {key_name} is updated"),
                )
            };
            match &assignment.target {
                ast::AssignmentTarget::ColumnName(name) => {
                    if object_name(name)?.iter().any(|part| part == &**key_name) {
                        let (Some(node), true) = (key, name.0.len() == 1) else {
                            return Err(refused());
                        };
                        // SET k = k changes nothing.
                        if matches!(self.key_of(&assignment.value, scope), Some((0, same)) if same.node == node)
                        {
                            continue;
                        }
                        let column = self.graph.column(node).clone();
                        let source = self
                            .constant(&assignment.value, &column)
                            .ok_or_else(refused)?;
                        let schema = &self.topology.schema;
                        let moves = relation.map_or(Err(String::new()), |relation| {
                            MoveText::new(relation, &source, schema)
                        });
                        self.key_updates.push((node, source, moves));
                    }
                }
                ast::AssignmentTarget::Tuple(names) => {
                    for name in names {
                        if object_name(name)?.iter().any(|part| part == &**key_name) {
                            return Err(refused());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The value of a column. Where the column holds no time, a word such as `now` is no more than a word.
    pub(super) fn stored_value(
        &mut self,
        value: &'a Expr,
        column: Option<&Column>,
        scope: &Rc<Scope>,
    ) -> Outcome<()> {
        if let (Expr::Value(value), Some(column)) = (value, column)
            && !clock::may_be_time(column.type_oid)
        {
            match &value.value {
                ast::Value::Placeholder(text) => {
                    self.parameters_stored.extend(placeholder(text));
                    return Ok(());
                }
                other if parse::string(other).is_some() => return Ok(()),
                _ => {}
            }
        }
        self.expression(value, scope)
    }

    pub(super) fn update(
        &mut self,
        update: &'a ast::Update,
        outer: Option<Rc<Scope>>,
    ) -> Outcome<Rows> {
        let ast::Update {
            update_token: _,
            optimizer_hints: _,
            table,
            on_cluster,
            assignments,
            from,
            selection,
            returning,
            output,
            or,
            order_by,
            limit,
            settings,
        } = update;
        if !table.joins.is_empty()
            || on_cluster.is_some()
            || output.is_some()
            || or.is_some()
            || !order_by.is_empty()
            || limit.is_some()
            || settings.is_some()
        {
            return beyond("a clause of this UPDATE");
        }
        let sources: &[TableWithJoins] = match from {
            None => &[],
            Some(ast::UpdateTableFromKind::AfterSet(sources)) => sources,
            Some(ast::UpdateTableFromKind::BeforeSet(_)) => return beyond("FROM before SET"),
        };
        self.blocks.push(Block::default());
        let (target, relation) = self.target(&table.relation)?;
        let assigned = assigned_columns(assignments)?;
        self.written(relation.as_deref(), &[Event::Update], Some(&assigned))?;
        let key = target
            .groups
            .first()
            .and_then(|group| group.first())
            .copied();
        let is_sharded = target.partitioned;
        if !sources.is_empty() && target.items.first().is_some_and(|item| item.reference) {
            self.unstable(
                Refusal::ReferenceWriteDiffers,
                "UPDATE … FROM may join other rows on each shard",
            );
        }
        let others = self.sources(sources, &outer)?;
        self.write(
            target.beside(others),
            is_sharded,
            selection.as_ref(),
            outer,
            |this, scope, groups| {
                this.assignments(assignments, relation.as_deref(), key, scope)?;
                this.returning(returning, scope, groups)
            },
        )
    }

    pub(super) fn delete(
        &mut self,
        delete: &'a ast::Delete,
        outer: Option<Rc<Scope>>,
    ) -> Outcome<Rows> {
        let ast::Delete {
            delete_token: _,
            optimizer_hints: _,
            tables,
            from,
            on_cluster,
            using,
            selection,
            returning,
            output,
            order_by,
            limit,
            settings,
        } = delete;
        if !tables.is_empty()
            || on_cluster.is_some()
            || output.is_some()
            || !order_by.is_empty()
            || limit.is_some()
            || settings.is_some()
        {
            return beyond("a clause of this DELETE");
        }
        let FromTable::WithFromKeyword(from) = from else {
            return beyond("DELETE without FROM");
        };
        let [table] = from.as_slice() else {
            return beyond("DELETE FROM several tables");
        };
        if !table.joins.is_empty() {
            return beyond("DELETE FROM a join");
        }
        self.blocks.push(Block::default());
        let (target, relation) = self.target(&table.relation)?;
        self.written(relation.as_deref(), &[Event::Delete], None)?;
        let is_sharded = target.partitioned;
        let others = self.sources(using.as_deref().unwrap_or_default(), &outer)?;
        self.write(
            target.beside(others),
            is_sharded,
            selection.as_ref(),
            outer,
            |this, scope, groups| this.returning(returning, scope, groups),
        )
    }

    /// What UPDATE and DELETE share: the target joined with other sources, filtered.
    fn write(
        &mut self,
        from: From,
        is_sharded: bool,
        selection: Option<&'a Expr>,
        outer: Option<Rc<Scope>>,
        rest: impl FnOnce(&mut Self, &Rc<Scope>, &From) -> Outcome<Rows>,
    ) -> Outcome<Rows> {
        let scope = Rc::new(Scope {
            from,
            outer,
            restricts_outer: false,
        });
        let mut groups = scope.from.clone();
        if let Some(selection) = selection {
            for (a, b) in self.conjuncts(selection, &scope, &Allow::All)? {
                groups.equate(a, b);
            }
        }
        let mut rows = rest(self, &scope, &groups)?;
        let block = self.blocks.pop().unwrap_or_default();
        let anchors = groups.nodes();
        let subquery_obstacle = self.settle(block.pending, &anchors);
        rows.partitioned = groups.partitioned;
        rows.obstacle = groups.obstacle.clone();
        if groups.groups.len() > 1 {
            rows.obstacle.get_or_insert_with(|| {
                PlanError::refused(
                    Refusal::Join,
                    "a join of sharded tables that is not an equality of their sharding keys",
                )
            });
        }
        if groups.partitioned && !is_sharded {
            rows.obstacle.get_or_insert_with(|| {
                PlanError::refused(
                    Refusal::LocalWithSharded,
                    "a table that is not sharded is written with rows of sharded tables",
                )
            });
        }
        if !groups.partitioned && block.random {
            self.unstable(
                Refusal::VolatileFunction,
                "a volatile function gives each copy another value",
            );
        }
        rows.obstacle = rows.obstacle.or(subquery_obstacle);
        Ok(rows)
    }

    /// A write of a view leaves to their defaults the columns of the tables behind it that it does not give; `is_given`
    /// tells of the view's own columns whether it does.
    pub(super) fn defaulted_behind(
        &mut self,
        view: &Relation,
        is_given: &dyn Fn(&str) -> bool,
    ) -> Outcome<()> {
        if view.kind != RelationKind::View {
            return Ok(());
        }
        // PostgreSQL prints AS where a column of a view has another name than the table's.
        let mut queries = view.queries.iter();
        let alike = view.reads.len() == 1
            && !queries.any(|query| catalog_text::has_word(&query.text, "as"));
        let topology = self.topology;
        for table in attached::and_reads(view, &topology.schema).skip(1) {
            let columns = table.columns.iter();
            for column in columns.filter(|column| !(alike && is_given(&column.name))) {
                self.defaulted(table, column, table.placement == Placement::Reference)?;
            }
        }
        Ok(())
    }

    /// A write leaves `column` to its default.
    pub(super) fn defaulted(
        &mut self,
        relation: &Relation,
        column: &Column,
        reference: bool,
    ) -> Outcome<()> {
        match default_obstacle(relation, column, reference, self.topology, self.search_path) {
            None => {}
            Some((obstacle, true)) => return Err(obstacle),
            Some((obstacle, false)) if reference => {
                self.found.differs.get_or_insert(obstacle);
            }
            Some((obstacle, false)) => {
                self.found.multi.get_or_insert(obstacle);
            }
        }
        Ok(())
    }
}

/// The columns that an UPDATE sets.
fn assigned_columns(assignments: &[ast::Assignment]) -> Outcome<Vec<Arc<str>>> {
    let mut columns = Vec::with_capacity(assignments.len());
    for assignment in assignments {
        let names = match &assignment.target {
            ast::AssignmentTarget::ColumnName(name) => std::slice::from_ref(name),
            ast::AssignmentTarget::Tuple(names) => names,
        };
        for name in names {
            // `a.b` sets a part of column a.
            let first = object_name(name)?.into_iter().next();
            columns.push(first.unwrap_or_default().into());
        }
    }
    Ok(columns)
}

/// Why a column's default is not what one PostgreSQL would give, and whether that is so on one shard too.
pub(super) fn default_obstacle(
    relation: &Relation,
    column: &Column,
    reference: bool,
    topology: &Topology,
    search_path: &[Arc<str>],
) -> Option<(PlanError, bool)> {
    let text = match &column.default {
        ColumnDefault::Null | ColumnDefault::Generated => return None,
        ColumnDefault::Sequence if matches!(relation.placement, Placement::Local(_)) => {
            return None;
        }
        ColumnDefault::Sequence => {
            let reason = format!("{}.{} is left to its sequence", relation.name, column.name);
            return Some((PlanError::refused(Refusal::SequenceDefault, reason), true));
        }
        ColumnDefault::Expression(text) => text,
    };
    let reason = format!(
        "{}.{} is left to its default {text}",
        relation.name, column.name
    );
    let judge = &mut match relation.placement {
        Placement::Local(shard) => Judge::at_home(&topology.schema, shard),
        _ => Judge::new(&topology.schema),
    };
    let called = catalog_text::calls_by(judge, text, search_path).into_iter();
    let effect = called.map(|(effect, _)| effect).max();
    let (refusal, always) = match effect.unwrap_or(Effect::Same) {
        Effect::Session => (Refusal::SessionState, true),
        Effect::Procedural => (Refusal::ProceduralFunction, true),
        // One shard has its rows and its sequences.
        _ if matches!(relation.placement, Placement::Local(_)) => return None,
        Effect::Same => return None,
        Effect::Random if !reference => return None,
        Effect::Random | Effect::Time | Effect::Catalog | Effect::Unknown if reference => {
            (Refusal::ReferenceWriteDiffers, false)
        }
        Effect::Random | Effect::Time | Effect::Catalog | Effect::Unknown => {
            (Refusal::DefaultDiffers, false)
        }
        Effect::Designated => (Refusal::SequenceDefault, true),
    };
    Some((PlanError::refused(refusal, reason), always))
}

//! MERGE: where the rows of its target and source are, what its actions write, and where inserted rows go.

use super::analysis::{
    Allow, Analyzer, Block, Outcome, Rows, Stored, beyond, is_default, object_name,
};
use super::key::NodeId;
use super::refusal::{PlanError, Refusal};
use super::scope::{From, Scope};
use crate::sql::parse::ast;
use crate::topology::schema::{Event, Placement, Relation};
use std::rc::Rc;

impl<'a> Analyzer<'a> {
    pub(super) fn merge(
        &mut self,
        merge: &'a ast::Merge,
        outer: Option<Rc<Scope>>,
    ) -> Outcome<Rows> {
        let ast::Merge {
            merge_token: _,
            optimizer_hints: _,
            into,
            table,
            source,
            on,
            clauses,
            output,
        } = merge;
        if !*into || output.is_some() {
            return beyond("a clause of this MERGE");
        }
        self.blocks.push(Block::default());
        let (target, relation) = self.target(table)?;
        let events = clauses.iter().filter_map(|clause| match &clause.action {
            ast::MergeAction::Insert(_) => Some(Event::Insert),
            ast::MergeAction::Update(_) => Some(Event::Update),
            ast::MergeAction::Delete { .. } => Some(Event::Delete),
            ast::MergeAction::DoNothing { .. } => None,
        });
        self.written(relation.as_deref(), &events.collect::<Vec<_>>(), None)?;
        if target.items[0].reference {
            self.unstable(
                Refusal::ReferenceWriteDiffers,
                "MERGE may meet the rows in another order on each shard",
            );
        }
        let key = target
            .groups
            .first()
            .and_then(|group| group.first())
            .copied();
        let is_sharded = target.partitioned;
        let other = self.factor(source, &From::default(), &outer)?;
        let source_groups = other.groups.clone();
        let source_partitioned = other.partitioned;
        // Every source row counts, matched or not: an outer join that keeps the source.
        let allow = Allow::Only(target.key_nodes());
        let scope = Rc::new(Scope {
            from: target.beside(other),
            outer,
            restricts_outer: false,
        });
        let pairs = self.conjuncts(on, &scope, &allow)?;
        let mut groups = scope.from.clone();
        for (a, b) in pairs {
            groups.equate(a, b);
        }
        for clause in clauses {
            if let Some(predicate) = &clause.predicate {
                self.expression(predicate, &scope)?;
            }
            match &clause.action {
                ast::MergeAction::Delete { .. } | ast::MergeAction::DoNothing { .. } => {}
                ast::MergeAction::Update(update) => {
                    let (ast::MergeUpdateKind::Set(assignments), None, None) = (
                        &update.kind,
                        &update.update_predicate,
                        &update.delete_predicate,
                    ) else {
                        return beyond("this UPDATE of MERGE");
                    };
                    self.assignments(assignments, relation.as_deref(), key, &scope)?;
                }
                ast::MergeAction::Insert(insert) => {
                    self.merge_insert(insert, relation.as_deref(), key, &scope, &source_groups)?
                }
            }
        }
        let block = self.blocks.pop().unwrap_or_default();
        let subquery_obstacle = self.settle(block.pending, &groups.nodes());
        let mut obstacle = groups.obstacle.clone();
        // Each shard may merge all of a reference table with its own rows, unless a row that matches none is stored.
        let stores =
            |clause: &ast::MergeClause| matches!(clause.action, ast::MergeAction::Insert(_));
        let is_table = matches!(source, ast::TableFactor::Table { .. });
        let is_whole = is_table && !source_partitioned && !clauses.iter().any(stores);
        if is_sharded && !is_whole && !(source_partitioned && groups.groups.len() == 1) {
            obstacle.get_or_insert_with(|| {
                PlanError::refused(
                    Refusal::Merge,
                    "MERGE does not join target and source on their sharding keys",
                )
            });
        }
        if !is_sharded && source_partitioned {
            obstacle.get_or_insert_with(|| {
                PlanError::refused(
                    Refusal::LocalWithSharded,
                    "a table that is not sharded is written with rows of sharded tables",
                )
            });
        }
        Ok(Rows {
            columns: None,
            partitioned: groups.partitioned,
            ordered: false,
            obstacle: obstacle.or(subquery_obstacle),
            constants: Vec::new(),
        })
    }

    fn merge_insert(
        &mut self,
        insert: &'a ast::MergeInsertExpr,
        relation: Option<&Relation>,
        key: Option<NodeId>,
        scope: &Rc<Scope>,
        source_groups: &[Vec<NodeId>],
    ) -> Outcome<()> {
        let (ast::MergeInsertKind::Values(values), None) = (&insert.kind, &insert.insert_predicate)
        else {
            return beyond("this INSERT of MERGE");
        };
        let [row] = values.rows.as_slice() else {
            return beyond("this INSERT of MERGE");
        };
        for expr in &row.content {
            if !is_default(expr) {
                self.expression(expr, scope)?;
            }
        }
        let Some(relation) = relation else {
            return Ok(());
        };
        let is_reference = relation.placement == Placement::Reference;
        let mut listed = Vec::new();
        for column in &insert.columns {
            listed.push(object_name(column)?.pop().unwrap_or_default());
        }
        // MERGE INTO a view is PostgreSQL 17's.
        self.defaulted_behind(relation, &|_| false)?;
        for (index, column) in relation.columns.iter().enumerate() {
            let position = if listed.is_empty() {
                Some(index)
            } else {
                listed
                    .iter()
                    .position(|name| name.as_str() == &*column.name)
            };
            let value = position
                .and_then(|position| row.content.get(position))
                .filter(|value| !is_default(value));
            let is_key =
                matches!(relation.placement, Placement::Sharded { key, .. } if key == index);
            match (value, key) {
                (None, _) if is_key => {
                    return Err(PlanError::refused(
                        Refusal::MissingKey,
                        format!("INSERT without the sharding key {}", column.name),
                    ));
                }
                (None, _) => self.defaulted(relation, column, is_reference)?,
                (Some(value), Some(node)) if is_key => {
                    let key_column = self.graph.column(node).clone();
                    if let Some(source) = self.constant(value, &key_column) {
                        self.found.stored.push(Stored {
                            column: key_column,
                            keys: vec![source],
                            split: false,
                        });
                        self.never_multi(Refusal::Merge, "MERGE stores a constant sharding key");
                        continue;
                    }
                    let carried = matches!(self.key_of(value, scope), Some((0, key))
                        if !key.nullable && source_groups.iter().any(|group| group.contains(&key.node))
                            && self.graph.column(key.node).stores_as(&key_column));
                    if !carried {
                        return Err(PlanError::refused(
                            Refusal::Merge,
                            "MERGE stores a sharding key that is not the source's",
                        ));
                    }
                }
                (Some(_), _) => {}
            }
        }
        Ok(())
    }
}

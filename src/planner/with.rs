//! WITH queries: which a name means, and their rows, walked anew at each use.

use super::analysis::{Analyzer, CteEntry, Done, Outcome, Rows, UseNode, beyond};
use super::key::NodeId;
use super::refusal::{PlanError, Refusal};
use super::scope::{OutColumn, Scope};
use crate::sql::parse::{self, ast};
use ast::SetExpr;
use std::rc::Rc;

impl<'a> Analyzer<'a> {
    pub(super) fn with(&mut self, with: &'a ast::With, outer: &Option<Rc<Scope>>) -> Outcome<()> {
        let first = self.ctes.len();
        for cte in &with.cte_tables {
            if cte.from.is_some() {
                return beyond("FROM after a WITH query");
            }
            let entry = CteEntry {
                name: parse::name(&cte.alias.name),
                alias: &cte.alias,
                query: &cte.query,
                env: self.env,
                scope: outer.clone(),
                parent: self.env,
                done: None,
                used: false,
            };
            self.ctes.push(entry);
            self.env = Some(self.ctes.len() - 1);
        }
        if with.recursive {
            // Each may use itself and the others.
            for index in first..self.ctes.len() {
                self.ctes[index].env = self.env;
            }
        }
        // What writes runs once, whether it is used or not.
        for index in first..self.ctes.len() {
            let mut body = &self.ctes[index].query.body;
            while let SetExpr::Query(inner) = &**body {
                body = &inner.body;
            }
            match **body {
                // Each shard changes its rows, and sees what it gives of them.
                SetExpr::Update(_) | SetExpr::Delete(_) => {
                    let first = self.uses.len();
                    let rows = self.cte_rows(index)?;
                    let target = self.uses.get(first).map(|used| used.node);
                    if let Some(obstacle) = rows.obstacle.clone() {
                        self.never_gathered(&obstacle);
                        self.found.multi.get_or_insert(obstacle);
                    }
                    self.ctes[index].done = Some(Done { rows, target });
                }
                SetExpr::Insert(_) | SetExpr::Merge(_) => {
                    self.never_multi(
                        Refusal::DataModifyingCte,
                        "a data-modifying WITH query that stores rows",
                    );
                    let rows = self.cte_rows(index)?;
                    let columns = rows.columns.map(|columns| {
                        let keyless = |column| OutColumn {
                            key: None,
                            ..column
                        };
                        columns.into_iter().map(keyless).collect()
                    });
                    let rows = Rows {
                        columns,
                        ..Rows::default()
                    };
                    self.ctes[index].done = Some(Done { rows, target: None });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The rows of a WITH query, as if it stood where it is used.
    pub(super) fn cte_rows(&mut self, index: usize) -> Outcome<Rows> {
        self.ctes[index].used = true;
        if let Some(done) = self.ctes[index].done.clone() {
            return Ok(self.given_back(done));
        }
        let (query, env, scope) = (
            self.ctes[index].query,
            self.ctes[index].env,
            self.ctes[index].scope.clone(),
        );
        let saved = std::mem::replace(&mut self.env, env);
        self.expanding.push(index);
        let rows = self.query(query, scope, false, false);
        self.expanding.pop();
        self.env = saved;
        let mut rows = rows?;
        if self.recursive.contains(&index) {
            self.recursive.retain(|recursive| *recursive != index);
            rows.columns = None;
            if rows.partitioned || rows.obstacle.is_some() {
                rows.obstacle = Some(PlanError::refused(
                    Refusal::Recursive,
                    "a recursive query over sharded rows",
                ));
            }
        }
        Ok(rows)
    }

    /// The rows that a write gives back, for one use of them: what is asked of their keys there says nothing of the rows
    /// that are written.
    fn given_back(&mut self, done: Done) -> Rows {
        let Done { mut rows, target } = done;
        // Obstacles are the statement's already.
        rows.obstacle = None;
        let mut known: Vec<(NodeId, NodeId)> = Vec::new();
        for column in rows.columns.iter_mut().flatten() {
            let Some(key) = &mut column.key else { continue };
            let seen = known.iter().find(|(written, _)| *written == key.node);
            key.node = match seen {
                Some((_, given)) => *given,
                None => {
                    let given = self.use_after(key.node);
                    known.push((key.node, given));
                    given
                }
            };
        }
        if let (true, true, Some(target)) = (rows.partitioned, known.is_empty(), target) {
            // No column says where a row is.
            self.use_after(target);
        }
        rows
    }

    /// A use of rows whose keys are among those of `written`.
    fn use_after(&mut self, written: NodeId) -> NodeId {
        let column = self.graph.column(written).clone();
        let node = self.graph.add(column);
        self.graph.edge(written, node);
        self.uses.push(UseNode {
            relation: "what a WITH query gives back".into(),
            node,
        });
        node
    }

    pub(super) fn cte_named(&self, name: &str) -> Option<usize> {
        let mut next = self.env;
        while let Some(index) = next {
            if self.ctes[index].name == name {
                return Some(index);
            }
            next = self.ctes[index].parent;
        }
        None
    }
}

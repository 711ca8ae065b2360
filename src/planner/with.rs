//! WITH queries: which a name means, and their rows, walked anew at each use.

use super::analysis::{Analyzer, CteEntry, Outcome, Rows, beyond};
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
            if matches!(
                **body,
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
            ) {
                self.never_multi(Refusal::DataModifyingCte, "a data-modifying WITH query");
                let rows = self.cte_rows(index)?;
                self.ctes[index].done = Some(Rows {
                    columns: rows.columns.map(|columns| {
                        columns
                            .into_iter()
                            .map(|column| OutColumn {
                                key: None,
                                ..column
                            })
                            .collect()
                    }),
                    ..Rows::default()
                });
            }
        }
        Ok(())
    }

    /// The rows of a WITH query, as if it stood where it is used.
    pub(super) fn cte_rows(&mut self, index: usize) -> Outcome<Rows> {
        self.ctes[index].used = true;
        if let Some(done) = &self.ctes[index].done {
            return Ok(done.clone());
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

//! Views over sharded tables. Each shard has the view, and shows of it what its own rows give. So the view's query is
//! walked like a subquery that stands where the view is named, which tells where its keys are and whether the shards'
//! parts of it make up the whole; what runs on the shards is the client's text, which names the view. Privileges,
//! policies, barriers and row types are as PostgreSQL has them. Where the parts are not the whole, rows of the view's
//! tables are gathered by [`super::gather`], and its query runs over them, if it means there what it means in the view
//! ([`means_the_same`]).

use super::analysis::{Analyzer, Outcome};
use super::gathered::Inside;
use super::refusal::{PlanError, Refusal};
use super::scope::{From, Item, Origin, OutColumn};
use super::sorting::Sorts;
use super::template::Context;
use super::typing::is_exact;
use crate::sql::lex::{self, Token, TokenKind};
use crate::sql::parse::{self, Place, ast};
use crate::topology::schema::{Placement, Relation, RelationKind, TEMPORARY};
use ast::{Query, TableAlias};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Schema and name.
type Name = (Arc<str>, Arc<str>);

/// The views' trees may be this deep, taken together.
const DEPTH_MAX: usize = parse::DEPTH_MAX;

/// The queries of views over sharded tables, as text in tokens.
#[derive(Debug, Default)]
pub(super) struct ViewTexts(Vec<(Name, Arc<str>, Vec<Token>)>);

/// The queries of views over sharded tables.
#[derive(Debug)]
pub(super) struct Views {
    queries: HashMap<Name, Query>,
    /// PostgreSQL prints views with all names qualified but those of `pg_catalog`.
    search_path: [Arc<str>; 2],
}

impl ViewTexts {
    /// Those of all views that a name in `sql` may mean, and those of the views in them.
    pub fn named(sql: &str, tokens: &[Token], context: &Context<'_>) -> Self {
        let mut found = Self::default();
        found.add(sql, tokens, context);
        let mut next = 0;
        while let Some((_, text, tokens)) = found.0.get(next) {
            let (text, tokens) = (text.clone(), tokens.clone());
            found.add(&text, &tokens, context);
            next += 1;
        }
        found
    }

    fn add(&mut self, sql: &str, tokens: &[Token], context: &Context<'_>) {
        let relations = &context.topology.schema.relations;
        for token in tokens.iter().filter(|token| token.is_identifier()) {
            let Ok(name) = lex::identifier_value(token.text(sql)) else {
                continue;
            };
            for view in relations.values().filter_map(|within| within.get(&*name)) {
                if view.placement != Placement::View || view.kind != RelationKind::View {
                    continue;
                }
                let own = (view.schema.clone(), view.name.clone());
                let Some(text) = &view.query else { continue };
                if self.0.iter().any(|(known, _, _)| *known == own) {
                    continue;
                }
                // One that cannot be read is not found later.
                if let Ok(tokens) = parse::tokens(text, context.limits) {
                    let depth = parse::depth(text, &tokens);
                    if self.depth() + depth <= DEPTH_MAX {
                        self.0.push((own, text.clone(), tokens));
                    }
                }
            }
        }
    }

    /// How deep a tree with all of them in it is at most.
    pub fn depth(&self) -> usize {
        let depths = self.0.iter();
        depths
            .map(|(_, text, tokens)| parse::depth(text, tokens))
            .sum()
    }

    /// Parses those that the parser knows.
    pub fn parse(self) -> Views {
        let parsed = self.0.into_iter().filter_map(|(name, text, tokens)| {
            match parse::parse(&text, tokens).ok()?.statement {
                ast::Statement::Query(query) => Some((name, *query)),
                _ => None,
            }
        });
        Views {
            queries: parsed.collect(),
            search_path: ["pg_catalog".into(), TEMPORARY.into()],
        }
    }
}

const BEYOND: &str = "reads sharded tables by a query that is beyond pgring's parser";

/// Whether what PostgreSQL printed under the search path `pg_catalog` means the same in a session's statement.
pub(super) fn means_the_same(text: &str, tokens: &[Token], context: &Context<'_>) -> bool {
    let schema = &context.topology.schema;
    let path = context.search_path;
    let is_first = |place: usize| place == 0;
    let place = path.iter().position(|schema| &**schema == "pg_catalog");
    let symbol = |at: usize, symbol: &str| {
        tokens
            .get(at)
            .is_some_and(|token| token.is_symbol(text, symbol))
    };
    let is_ambiguous = |(index, token): (usize, &Token)| {
        if token.kind == TokenKind::Operator {
            let operator = token.text(text);
            return path.iter().any(|path| {
                let within = schema.operators.get(path);
                within.is_some_and(|within| within.contains_key(operator))
            });
        }
        if !token.is_identifier() || (index > 0 && symbol(index - 1, ".")) {
            return false;
        }
        let Ok(name) = lex::identifier_value(token.text(text)) else {
            return true;
        };
        let within = |name: &str| {
            path.iter().any(|path| {
                let within = schema.user_functions.get(path);
                within.is_some_and(|within| within.contains_key(name))
            })
        };
        let temporary = schema.relations.get(TEMPORARY);
        (symbol(index + 1, "(") && within(&name))
            || temporary.is_some_and(|temporary| temporary.contains_key(&*name))
            // As a session's lc_monetary prints it.
            || name == "money"
    };
    place.is_none_or(is_first) && !tokens.iter().enumerate().any(is_ambiguous)
}

/// Why a view over sharded tables is refused.
fn refused(view: &Relation, reason: &str) -> PlanError {
    let Relation { schema, name, .. } = view;
    PlanError::refused(Refusal::View, format!("the view {schema}.{name} {reason}"))
}

impl<'a> Analyzer<'a> {
    /// The tables that a view reads, through other views too, whose rows are not on every shard.
    fn tables_of(&self, view: &Relation) -> impl Iterator<Item = String> {
        let relations = &self.topology.schema.relations;
        view.reads.iter().filter_map(|(schema, name)| {
            match relations.get(schema)?.get(name)?.placement {
                Placement::Sharded { .. } | Placement::Local(_) => Some(format!("{schema}.{name}")),
                Placement::Reference | Placement::Catalog | Placement::View => None,
            }
        })
    }

    /// A use of a view over sharded tables, of which `called` is the name in the statement.
    pub(super) fn view(
        &mut self,
        relation: Arc<Relation>,
        called: String,
        alias: Option<&TableAlias>,
        place: Option<Place>,
    ) -> Outcome<From> {
        if relation.is_temporary() {
            return Err(refused(&relation, "is temporary and reads sharded tables"));
        }
        let views = self.views;
        let own = (relation.schema.clone(), relation.name.clone());
        let query = views.queries.get(&own);
        let query = query.ok_or_else(|| refused(&relation, BEYOND))?;

        let first = self.uses.len();
        let locals = self.found.locals.len();
        let every_column = std::mem::take(&mut self.found.every_column);
        let whole_row = std::mem::take(&mut self.found.whole_row);
        let qualified = self.found.qualified.len();
        let sources = std::mem::take(&mut self.found.sources);
        let env = self.env.take();
        let search_path = std::mem::replace(&mut self.search_path, &views.search_path);
        let found = &mut self.found;
        let before = [&mut found.multi, &mut found.unstable, &mut found.differs];
        let before = before.map(Option::take);
        let rows = self.query(query, None, false, false);
        self.search_path = search_path;
        self.env = env;
        let inside = Inside {
            sources: std::mem::replace(&mut self.found.sources, sources),
            every_column: std::mem::replace(&mut self.found.every_column, every_column),
        };
        let mut whole_row_inside = std::mem::replace(&mut self.found.whole_row, whole_row);
        // Their places are in the view's text.
        whole_row_inside |= self.found.qualified.len() > qualified;
        self.found.qualified.truncate(qualified);
        let mut rows = rows.map_err(|error| match error {
            PlanError::Unparsed { .. } => refused(&relation, BEYOND),
            error => error,
        })?;
        rows.constants.clear();
        let read = self.uses[first..].iter().map(|used| &used.relation);
        let read = read.chain(self.found.locals[locals..].iter().map(|(_, table)| table));
        if !self
            .tables_of(&relation)
            .all(|table| read.clone().any(|read| **read == table))
        {
            return Err(refused(&relation, "reads other tables than its query says"));
        }

        // Whether the shards' parts of the view are gathered as they are a table's; else those of its tables are.
        let found = &mut self.found;
        let own = [&found.multi, &found.unstable, &found.differs];
        let differs = own.iter().any(|obstacle| obstacle.is_some());
        let [multi, unstable, differs_before] = before;
        found.multi = multi.or(found.multi.take());
        found.unstable = unstable.or(found.unstable.take());
        found.differs = differs_before.or(found.differs.take());
        let is_part = rows.partitioned
            && rows.obstacle.is_none()
            && !rows.ordered
            && !differs
            && found.locals.len() == locals;
        if !is_part {
            self.found.whole_row |= whole_row_inside;
            // Its tables are read by the client's rights, not by those of the view's owner.
            let relations = &self.topology.schema.relations;
            let mut read = relation
                .reads
                .iter()
                .filter_map(|(schema, name)| relations.get(schema)?.get(name));
            if !read.all(|table| table.policies.is_empty()) {
                self.never_gathered(&refused(&relation, "reads tables with policies"));
            }
        }

        // The view has the columns of its query, under names and in collations of its own.
        let known = rows.columns.take();
        let known = known.filter(|known| known.len() == relation.columns.len());
        let keys = known.iter().flatten().map(|column| column.key);
        let mut keys = keys.chain(std::iter::repeat(None));
        let columns = relation.columns.iter().enumerate();
        let columns = columns.map(|(index, column)| OutColumn {
            name: Rc::from(&*column.name),
            id: 0,
            key: keys.next().flatten(),
            collation: column.collation,
            origin: Some(Origin {
                relation: relation.clone(),
                index,
            }),
            is_exact: is_exact(column.type_oid),
            sorts: Sorts::of_column(column, &self.topology.schema),
        });
        rows.columns = Some(columns.collect());
        let mut from = self.derived(rows, alias)?;
        if let [item] = from.items.as_mut_slice() {
            *item = Item {
                name: called,
                schema: alias.is_none().then(|| relation.schema.to_string()),
                ..item.clone()
            };
            let item = item.clone();
            // Which rows are the shard's own, the tables' keys say.
            let whole = !is_part || self.topology.has_foreign_rows;
            let inside = Some(inside).filter(|_| whole);
            self.note_source(relation, &item, first, place, alias, inside);
        }
        Ok(from)
    }
}

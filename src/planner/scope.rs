//! Names to columns, as PostgreSQL resolves them: the relations of a FROM clause, what a query outputs, and which
//! column an expression is. A name that cannot be attributed for certain is [`Found::Unknown`], and then nothing
//! is concluded from it.

use super::key::NodeId;
use super::refusal::PlanError;
use super::sorting::Sorts;
use crate::topology::schema::{Collation, Column, Relation};
use std::rc::Rc;
use std::sync::Arc;

/// A key column of a row source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its node.
    pub node: NodeId,
    /// Whether an outer join may have made it NULL, so that it no longer tells where the row is.
    pub nullable: bool,
}

/// A column of a row source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutColumn {
    /// Its name.
    pub name: Rc<str>,
    /// Equal for two expressions only if they are the same column of the same row source; 0: an expression.
    pub id: u32,
    /// Set if rows are where this column says.
    pub key: Option<Key>,
    /// How it compares.
    pub collation: Collation,
    /// Whether it is known to be of a type whose values add up to the same in any order: not of floats.
    pub is_exact: bool,
    /// Who can put its values in order.
    pub sorts: Sorts,
    /// The table's column that its values are of, if they are that alone.
    pub origin: Option<Origin>,
}

/// A table's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The table.
    pub relation: Arc<Relation>,
    /// The index into its columns.
    pub index: usize,
}

impl Origin {
    /// What the catalog says of it.
    pub fn column(&self) -> &Column {
        &self.relation.columns[self.index]
    }

    /// Whether the other's values are of the same type and collation.
    pub fn is_alike(&self, other: &Self) -> bool {
        let (own, other) = (self.column(), other.column());
        own.type_name == other.type_name && own.collation_name == other.collation_name
    }
}

/// A row source with a name.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its alias or name.
    pub name: String,
    /// Its schema, if it has no alias.
    pub schema: Option<String>,
    /// Its columns, if all are known.
    pub columns: Option<Rc<[OutColumn]>>,
    /// Whether it is a reference table's own rows.
    pub reference: bool,
}

/// A FROM clause, or a part of it.
#[derive(Debug, Clone, Default)]
pub struct From {
    /// Row sources in order.
    pub items: Vec<Item>,
    /// Columns that USING or NATURAL merged.
    pub merged: Vec<OutColumn>,
    /// Columns behind merged ones: index of the item, name.
    pub hidden: Vec<(usize, Rc<str>)>,
    /// What `*` stands for, if known.
    pub output: Option<Vec<OutColumn>>,
    /// Whether the rows are spread over shards; else every shard has all of them.
    pub partitioned: bool,
    /// Whether its rows come in an order that a subquery gives them.
    pub ordered: bool,
    /// Sets of key nodes; the sources of one set are co-located.
    pub groups: Vec<Vec<NodeId>>,
    /// Why it cannot run on several shards.
    pub obstacle: Option<PlanError>,
}

impl From {
    /// All key nodes of its columns.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.groups.iter().flatten().copied().collect()
    }

    /// All key nodes of all columns, located or not.
    pub fn key_nodes(&self) -> Vec<NodeId> {
        let columns = self
            .items
            .iter()
            .filter_map(|item| item.columns.as_ref())
            .flat_map(|columns| columns.iter());
        columns
            .chain(&self.merged)
            .filter_map(|column| column.key.map(|key| key.node))
            .collect()
    }

    /// Two row sources side by side.
    pub fn beside(self, other: From) -> From {
        let offset = self.items.len();
        let mut both = self;
        both.items.extend(other.items);
        both.merged.extend(other.merged);
        both.hidden.extend(
            other
                .hidden
                .into_iter()
                .map(|(item, name)| (item + offset, name)),
        );
        both.output = match (both.output, other.output) {
            (Some(mut left), Some(right)) => {
                left.extend(right);
                Some(left)
            }
            _ => None,
        };
        both.partitioned |= other.partitioned;
        both.ordered |= other.ordered;
        both.groups.extend(other.groups);
        both.obstacle = both.obstacle.or(other.obstacle);
        both
    }

    /// Marks the keys as possibly NULL.
    pub fn make_nullable(&mut self) {
        let nullable = |columns: &mut Vec<OutColumn>| {
            for column in columns {
                if let Some(key) = &mut column.key {
                    key.nullable = true;
                }
            }
        };
        for item in &mut self.items {
            if let Some(columns) = &mut item.columns {
                let mut own = columns.to_vec();
                nullable(&mut own);
                *columns = own.into();
            }
        }
        nullable(&mut self.merged);
        if let Some(output) = &mut self.output {
            nullable(output);
        }
    }

    /// Notes that rows are equal in the keys `a` and `b`.
    pub fn equate(&mut self, a: NodeId, b: NodeId) {
        let group = |node: NodeId| self.groups.iter().position(|group| group.contains(&node));
        if let (Some(first), Some(second)) = (group(a), group(b))
            && first != second
        {
            let moved = self.groups.swap_remove(first.max(second));
            self.groups[first.min(second)].extend(moved);
        }
    }

    /// The column that an unqualified name is.
    pub fn unqualified(&self, name: &str) -> Lookup {
        let mut found = None;
        let mut unknown = false;
        let mut several = false;
        for column in self.merged.iter().filter(|column| &*column.name == name) {
            several |= found.replace(column.clone()).is_some();
        }
        for (index, item) in self.items.iter().enumerate() {
            match &item.columns {
                Some(columns) => {
                    if self
                        .hidden
                        .iter()
                        .any(|(hidden, column)| *hidden == index && &**column == name)
                    {
                        continue;
                    }
                    for column in columns.iter().filter(|column| &*column.name == name) {
                        several |= found.replace(column.clone()).is_some();
                    }
                }
                None => unknown = true,
            }
        }
        match (found, unknown || several) {
            (Some(column), false) => Lookup::Column(column),
            (None, false) => Lookup::Absent,
            (_, true) => Lookup::Unknown,
        }
    }

    /// The row source that `schema.name` or `name` is.
    pub fn item(&self, schema: Option<&str>, name: &str) -> Option<&Item> {
        let mut matches = self.items.iter().filter(|item| {
            item.name == name && (schema.is_none() || item.schema.as_deref() == schema)
        });
        let first = matches.next()?;
        // PostgreSQL reports an ambiguity; nothing is concluded from it here.
        matches.next().is_none().then_some(first)
    }
}

/// What a name is in one FROM clause.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// This column.
    Column(OutColumn),
    /// Certainly nothing of it.
    Absent,
    /// Cannot be told.
    Unknown,
}

/// FROM clauses around an expression, innermost first.
#[derive(Debug)]
pub struct Scope {
    /// The innermost.
    pub from: From,
    /// The next, further out.
    pub outer: Option<Rc<Scope>>,
    /// Whether a row of `outer` matters only if this query has rows for it (`WHERE EXISTS`), so that this query's
    /// predicates restrict the outer rows too.
    pub restricts_outer: bool,
}

/// Which column an expression is.
#[derive(Debug, Clone)]
pub enum Found {
    /// A column.
    Column {
        /// How many scopes further out.
        level: usize,
        /// The column.
        column: OutColumn,
    },
    /// Not certain.
    Unknown,
}

impl Scope {
    /// Resolves `name`, `relation.name` or `schema.relation.name`.
    pub fn find(self: &Rc<Self>, parts: &[String]) -> Found {
        let mut level = 0;
        let mut scope = Some(self);
        while let Some(here) = scope {
            let lookup = match parts {
                [name] => match here.from.unqualified(name) {
                    // A relation's own name is its whole row.
                    Lookup::Absent if here.from.items.iter().any(|item| item.name == *name) => {
                        Lookup::Unknown
                    }
                    lookup => lookup,
                },
                [relation, name] => here.from.qualified(None, relation, name),
                [schema, relation, name] => here.from.qualified(Some(schema), relation, name),
                _ => Lookup::Unknown,
            };
            match lookup {
                Lookup::Column(column) => return Found::Column { level, column },
                Lookup::Unknown => return Found::Unknown,
                Lookup::Absent => {}
            }
            scope = here.outer.as_ref();
            level += 1;
        }
        Found::Unknown
    }
}

impl Scope {
    /// The row source of this name, if that is certain.
    pub fn item(&self, name: &str) -> Option<&Item> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if here.from.items.iter().any(|item| item.name == *name) {
                return here.from.item(None, name);
            }
            scope = here.outer.as_deref();
        }
        None
    }

    /// The relation whose row a name is that is no column, or that is a function of its row (`relation.function`).
    pub fn row(&self, parts: &[String]) -> Option<&Item> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            let (relation, lookup) = match parts {
                [name] => (name, here.from.unqualified(name)),
                [relation, name] => (relation, here.from.qualified(None, relation, name)),
                _ => return None,
            };
            let is_known = |item: &&Item| item.name == *relation && item.columns.is_some();
            match (lookup, here.from.items.iter().find(is_known)) {
                (Lookup::Column(_), _) => return None,
                (Lookup::Absent | Lookup::Unknown, Some(item)) => return Some(item),
                (Lookup::Absent, None) => scope = here.outer.as_deref(),
                (Lookup::Unknown, None) => return None,
            }
        }
        None
    }
}

impl From {
    fn qualified(&self, schema: Option<&str>, relation: &str, name: &str) -> Lookup {
        if !self.items.iter().any(|item| {
            item.name == relation && (schema.is_none() || item.schema.as_deref() == schema)
        }) {
            return Lookup::Absent;
        }
        let columns = self
            .item(schema, relation)
            .and_then(|item| item.columns.as_ref());
        match columns.and_then(|columns| {
            let mut same = columns.iter().filter(|column| &*column.name == name);
            let first = same.next()?;
            same.next().is_none().then_some(first)
        }) {
            Some(column) => Lookup::Column(column.clone()),
            None => Lookup::Unknown,
        }
    }
}

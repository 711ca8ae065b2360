//! FROM: tables, joins, functions and subqueries as row sources, and which of them are co-located.

use super::analysis::{
    Allow, Analyzer, Outcome, Pending, RELATIONS_MAX, Rows, UseNode, bare, beyond, object_name,
};
use super::attached;
use super::key::{KeyColumn, NodeId};
use super::refusal::{PlanError, Refusal};
use super::scope::{From, Item, Key, Lookup, Origin, OutColumn, Scope};
use super::sorting::Sorts;
use super::typing::is_exact;
use crate::sql::parse::{self, ast};
use crate::topology::schema::{Collation, Placement, Relation, RelationKind};
use ast::{Expr, JoinConstraint, JoinOperator, TableAlias, TableFactor, TableWithJoins};
use std::rc::Rc;
use std::sync::Arc;

impl<'a> Analyzer<'a> {
    pub(super) fn sources(
        &mut self,
        list: &'a [TableWithJoins],
        outer: &Option<Rc<Scope>>,
    ) -> Outcome<From> {
        let mut all = From {
            output: Some(Vec::new()),
            ..From::default()
        };
        for source in list {
            let next = self.joined(source, &all, outer)?;
            all = all.beside(next);
        }
        Ok(all)
    }

    /// One element of FROM; `left` is what a lateral source in it sees.
    fn joined(
        &mut self,
        source: &'a TableWithJoins,
        left: &From,
        outer: &Option<Rc<Scope>>,
    ) -> Outcome<From> {
        let mut from = self.factor(&source.relation, left, outer)?;
        for join in &source.joins {
            if join.global {
                return beyond("GLOBAL JOIN");
            }
            let seen = left.clone().beside(from.clone());
            let right = self.factor(&join.relation, &seen, outer)?;
            from = self.join(from, right, &join.join_operator, outer)?;
        }
        Ok(from)
    }

    fn join(
        &mut self,
        mut left: From,
        mut right: From,
        operator: &'a JoinOperator,
        outer: &Option<Rc<Scope>>,
    ) -> Outcome<From> {
        #[derive(PartialEq, Clone, Copy)]
        enum Kind {
            Inner,
            Left,
            Right,
            Full,
        }
        let (kind, constraint) = match operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::CrossJoin(constraint) => (Kind::Inner, constraint),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (Kind::Left, constraint)
            }
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                (Kind::Right, constraint)
            }
            JoinOperator::FullOuter(constraint) => (Kind::Full, constraint),
            JoinOperator::Semi(_)
            | JoinOperator::LeftSemi(_)
            | JoinOperator::RightSemi(_)
            | JoinOperator::Anti(_)
            | JoinOperator::LeftAnti(_)
            | JoinOperator::RightAnti(_)
            | JoinOperator::CrossApply
            | JoinOperator::OuterApply
            | JoinOperator::AsOf { .. }
            | JoinOperator::StraightJoin(_)
            | JoinOperator::ArrayJoin
            | JoinOperator::LeftArrayJoin
            | JoinOperator::InnerArrayJoin => return beyond("this kind of join"),
        };
        let allow = match kind {
            Kind::Inner => Allow::All,
            Kind::Left => Allow::Only(right.key_nodes()),
            Kind::Right => Allow::Only(left.key_nodes()),
            Kind::Full => Allow::Only(Vec::new()),
        };
        let mut pairs = Vec::new();
        let mut merged = Vec::new();
        match constraint {
            JoinConstraint::None => {}
            JoinConstraint::On(condition) => {
                let both = left.clone().beside(right.clone());
                let scope = Rc::new(Scope {
                    from: both,
                    outer: outer.clone(),
                    restricts_outer: false,
                });
                pairs = self.conjuncts(condition, &scope, &allow)?;
            }
            JoinConstraint::Using(names) => {
                for name in names {
                    merged.push(object_name(name)?.pop().unwrap_or_default());
                }
            }
            JoinConstraint::UsingAlias(..) => return beyond("an alias for USING"),
            JoinConstraint::Natural => match (&left.output, &right.output) {
                (Some(left), Some(right)) => {
                    self.found.every_column = true;
                    let names = |columns: &[OutColumn], name: &str| {
                        columns.iter().any(|column| &*column.name == name)
                    };
                    merged.extend(
                        left.iter()
                            .filter(|column| names(right, &column.name))
                            .map(|column| column.name.to_string()),
                    );
                }
                _ => {
                    return Err(PlanError::Unparsed {
                        reason: "NATURAL JOIN of relations whose columns are not known".into(),
                    });
                }
            },
        }
        let mut merged_columns = Vec::new();
        for name in &merged {
            let (Lookup::Column(a), Lookup::Column(b)) =
                (left.unqualified(name), right.unqualified(name))
            else {
                merged_columns.push(self.column(name));
                continue;
            };
            let mut column = match kind {
                Kind::Inner | Kind::Left => a.clone(),
                Kind::Right => b.clone(),
                Kind::Full => OutColumn {
                    key: None,
                    id: 0,
                    ..a.clone()
                },
            };
            // Columns of two types are merged into one of a third.
            column.sorts = a.sorts.beside(b.sorts);
            column.origin = match (a.origin, b.origin) {
                (Some(first), Some(second)) if first.is_alike(&second) => Some(first),
                _ => None,
            };
            if let (Some(first), Some(second)) = (a.key, b.key)
                && self
                    .graph
                    .column(first.node)
                    .equals_as(self.graph.column(second.node))
            {
                let may = |node: NodeId| match &allow {
                    Allow::All => true,
                    Allow::Only(nodes) => nodes.contains(&node),
                };
                if may(second.node) {
                    self.graph.edge(first.node, second.node);
                }
                if may(first.node) {
                    self.graph.edge(second.node, first.node);
                }
                pairs.push((first.node, second.node));
                if kind == Kind::Full {
                    let node = self.graph.add(self.graph.column(first.node).clone());
                    self.graph.edge(node, first.node);
                    self.graph.edge(node, second.node);
                    self.graph.union(node, &[first.node, second.node]);
                    column.key = Some(Key {
                        node,
                        nullable: first.nullable || second.nullable,
                    });
                }
            }
            merged_columns.push(column);
        }
        let linked = left.groups.len() == 1
            && right.groups.len() == 1
            && pairs.iter().any(|(a, b)| {
                (left.groups[0].contains(a) && right.groups[0].contains(b))
                    || (left.groups[0].contains(b) && right.groups[0].contains(a))
            });
        let sound = match (kind, left.partitioned, right.partitioned) {
            (Kind::Inner, _, _)
            | (_, false, false)
            | (Kind::Left, true, false)
            | (Kind::Right, false, true) => true,
            (Kind::Left | Kind::Right | Kind::Full, true, true) => linked,
            (Kind::Left, false, true)
            | (Kind::Right, true, false)
            | (Kind::Full, true, false)
            | (Kind::Full, false, true) => false,
        };
        match kind {
            Kind::Inner => {}
            Kind::Left => right.make_nullable(),
            Kind::Right => left.make_nullable(),
            Kind::Full => {
                left.make_nullable();
                right.make_nullable();
            }
        }
        let mut both = left.beside(right);
        if !sound {
            let reason = if linked || both.groups.len() < 2 {
                "an outer join keeps reference rows that have no match among sharded rows"
            } else {
                "an outer join of sharded tables that is not an equality of their sharding keys"
            };
            both.obstacle
                .get_or_insert_with(|| PlanError::refused(Refusal::Join, reason));
        }
        for (a, b) in pairs {
            both.equate(a, b);
        }
        if !merged.is_empty() {
            for column in &merged_columns {
                if let Some(key) = column.key
                    && kind == Kind::Full
                    && both.groups.len() == 1
                {
                    both.groups[0].push(key.node);
                }
            }
            for index in 0..both.items.len() {
                for name in &merged {
                    both.hidden.push((index, name.as_str().into()));
                }
            }
            both.merged
                .retain(|column| !merged.iter().any(|name| **name == *column.name));
            both.output = both.output.take().map(|output| {
                let rest = output
                    .into_iter()
                    .filter(|column| !merged.iter().any(|name| **name == *column.name));
                merged_columns.iter().cloned().chain(rest).collect()
            });
            both.merged.extend(merged_columns);
        }
        Ok(both)
    }

    pub(super) fn factor(
        &mut self,
        factor: &'a TableFactor,
        left: &From,
        outer: &Option<Rc<Scope>>,
    ) -> Outcome<From> {
        let lateral_scope = || {
            Rc::new(Scope {
                from: left.clone(),
                outer: outer.clone(),
                restricts_outer: false,
            })
        };
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_directives,
                inheritance,
            } => {
                if !with_hints.is_empty()
                    || version.is_some()
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || !index_directives.is_empty()
                {
                    return beyond("a clause of this table");
                }
                let parts = object_name(name)?;
                if let Some(args) = args {
                    if args.settings.is_some() {
                        return beyond("SETTINGS");
                    }
                    let scope = lateral_scope();
                    self.call(&parts, args.args.len(), &scope, None, &args.args)?;
                    return self.called_rows(&parts, alias.as_ref(), *with_ordinality);
                }
                if *with_ordinality {
                    return beyond("WITH ORDINALITY here");
                }
                if let Some(
                    ast::TableSampleKind::BeforeTableAlias(sample)
                    | ast::TableSampleKind::AfterTableAlias(sample),
                ) = sample
                {
                    let obstacle = PlanError::refused(Refusal::TableSample, "TABLESAMPLE");
                    self.never_gathered(&obstacle);
                    // Of rows that are each taken or not by itself, the shards' samples are one of all.
                    let is_by_row = matches!(
                        sample.name,
                        Some(ast::TableSampleMethod::Bernoulli | ast::TableSampleMethod::System)
                    ) && sample.seed.is_none();
                    let is_sharded = self.relation(&parts).is_some_and(|relation| {
                        matches!(relation.placement, Placement::Sharded { .. })
                    });
                    if !is_by_row || !is_sharded {
                        self.never_multi(Refusal::TableSample, "TABLESAMPLE");
                        self.unstable(Refusal::TableSample, "TABLESAMPLE");
                    }
                    if let Some(quantity) = &sample.quantity {
                        self.expression(&quantity.value, &lateral_scope())?;
                    }
                }
                let place = parse::place(name).filter(|_| inheritance.is_none());
                self.table(&parts, alias.as_ref(), place, false)
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample,
            } => {
                if sample.is_some() {
                    return beyond("a sample of a subquery");
                }
                let first = self.uses.len();
                let parent = if *lateral {
                    Some(lateral_scope())
                } else {
                    outer.clone()
                };
                let mut rows = self.query(subquery, parent, false, false)?;
                let uses = first..self.uses.len();
                if *lateral && !uses.is_empty() {
                    // It is computed for each row on its left, like a subquery of an expression.
                    self.block().pending.push(Pending {
                        uses,
                        obstacle: rows.obstacle.take(),
                    });
                    rows.partitioned = false;
                }
                self.derived(rows, alias.as_ref())
            }
            TableFactor::Function {
                lateral: _,
                name,
                args,
                with_ordinality,
                alias,
            } => {
                let parts = object_name(name)?;
                let scope = lateral_scope();
                self.call(&parts, args.len(), &scope, None, args)?;
                self.called_rows(&parts, alias.as_ref(), *with_ordinality)
            }
            TableFactor::TableFunction { expr, alias } => {
                self.expression(expr, &lateral_scope())?;
                self.function_rows("table".to_owned(), None, alias.as_ref())
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                with_offset_alias,
                with_ordinality,
            } => {
                if *with_offset || with_offset_alias.is_some() {
                    return beyond("WITH OFFSET");
                }
                let scope = lateral_scope();
                for expr in array_exprs {
                    self.expression(expr, &scope)?;
                }
                // An array of rows gives a column for each of their columns.
                let is_known = !with_ordinality && array_exprs.iter().all(has_plain_elements);
                let width = is_known.then_some(array_exprs.len());
                self.function_rows("unnest".to_owned(), width, alias.as_ref())
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                let mut from = self.joined(table_with_joins, left, outer)?;
                if let Some(alias) = alias {
                    // The alias hides the names inside.
                    let columns = from.output.take();
                    let (partitioned, groups, obstacle) =
                        (from.partitioned, from.groups, from.obstacle);
                    let columns = columns.map(|columns| renamed(columns, alias)).transpose()?;
                    from = From {
                        items: vec![Item {
                            name: parse::name(&alias.name),
                            schema: None,
                            columns: columns.clone().map(Into::into),
                            reference: false,
                        }],
                        output: columns,
                        partitioned,
                        groups,
                        obstacle,
                        ..From::default()
                    };
                }
                Ok(from)
            }
            TableFactor::JsonTable { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::UnpivotExpr { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::XmlTable { .. }
            | TableFactor::SemanticView { .. } => beyond("this kind of row source"),
        }
    }

    fn called_rows(
        &mut self,
        function: &[String],
        alias: Option<&TableAlias>,
        ordinality: bool,
    ) -> Outcome<From> {
        // What other functions give may have any number of columns.
        let single = [
            "generate_series",
            "generate_subscripts",
            "string_to_table",
            "regexp_split_to_table",
        ];
        let name = function.last().cloned().unwrap_or_default();
        let width = (!ordinality && single.contains(&name.as_str())).then_some(1);
        self.function_rows(name, width, alias)
    }

    /// The rows of a function that is called `name`, which have `width` columns if that is known.
    fn function_rows(
        &mut self,
        name: String,
        width: Option<usize>,
        alias: Option<&TableAlias>,
    ) -> Outcome<From> {
        let listed = alias.map_or(&[][..], |alias| &alias.columns);
        let columns: Option<Vec<OutColumn>> = width.map(|width| {
            let columns = (0..width).map(|index| {
                let column = match (listed.get(index), alias) {
                    (Some(column), _) => parse::name(&column.name),
                    (None, Some(alias)) if width == 1 => parse::name(&alias.name),
                    (None, _) => name.clone(),
                };
                let mut column = self.column(&column);
                if name.starts_with("generate_") {
                    // Numbers and times.
                    column.collation = Collation::None;
                }
                column
            });
            columns.collect()
        });
        let mut defined = alias.iter().flat_map(|alias| &alias.columns);
        if defined.any(|column| column.data_type.is_some()) {
            self.touched.add_anything();
        }
        let name = alias.map_or(name, |alias| parse::name(&alias.name));
        let item = Item {
            name,
            schema: None,
            columns: columns.clone().map(Into::into),
            reference: false,
        };
        Ok(From {
            items: vec![item],
            output: columns,
            ..From::default()
        })
    }

    pub(super) fn derived(&mut self, rows: Rows, alias: Option<&TableAlias>) -> Outcome<From> {
        let columns = match (rows.columns, alias) {
            (Some(columns), Some(alias)) => Some(renamed(columns, alias)?),
            (columns, _) => columns,
        };
        let columns: Option<Vec<OutColumn>> = columns.map(|columns| {
            columns
                .into_iter()
                .map(|column| {
                    self.next_column += 1;
                    OutColumn {
                        id: self.next_column,
                        ..column
                    }
                })
                .collect()
        });
        let nodes = columns
            .iter()
            .flatten()
            .filter_map(|column| column.key.map(|key| key.node))
            .collect();
        Ok(From {
            items: vec![Item {
                name: alias
                    .map(|alias| parse::name(&alias.name))
                    .unwrap_or_default(),
                schema: None,
                columns: columns.clone().map(Into::into),
                reference: false,
            }],
            output: columns,
            partitioned: rows.partitioned,
            ordered: rows.ordered,
            groups: if rows.partitioned {
                vec![nodes]
            } else {
                Vec::new()
            },
            obstacle: rows.obstacle,
            ..From::default()
        })
    }

    /// The relation that a name means.
    pub(super) fn relation(&self, parts: &[String]) -> Option<Arc<Relation>> {
        let (schema, name) = match parts {
            [name] => (None, name),
            [schema, name] | [_, schema, name] => (Some(schema.as_str()), name),
            _ => return None,
        };
        self.topology
            .schema
            .relation(schema, name, self.search_path)
            .cloned()
    }

    /// A use of a relation by name; `target` if it is written.
    pub(super) fn table(
        &mut self,
        parts: &[String],
        alias: Option<&TableAlias>,
        place: Option<parse::Place>,
        target: bool,
    ) -> Outcome<From> {
        self.relations += 1;
        if self.relations > RELATIONS_MAX {
            return Err(PlanError::refused(
                Refusal::TooComplex,
                "this statement uses too many relations",
            ));
        }
        if let [name] = parts
            && !target
            && let Some(index) = self.cte_named(name)
        {
            if self.expanding.contains(&index) {
                self.recursive.push(index);
                let name = alias.map_or(name.clone(), |alias| parse::name(&alias.name));
                let item = Item {
                    name,
                    schema: None,
                    columns: None,
                    reference: false,
                };
                return Ok(From {
                    items: vec![item],
                    ..From::default()
                });
            }
            let mut rows = self.cte_rows(index)?;
            let own = self.ctes[index].alias;
            rows.columns = rows
                .columns
                .map(|columns| renamed(columns, own))
                .transpose()?;
            let mut from = self.derived(rows, alias)?;
            if alias.is_none() {
                from.items[0].name = name.clone();
            }
            return Ok(from);
        }
        let called = alias.map_or_else(
            || parts.last().cloned().unwrap_or_default(),
            |alias| parse::name(&alias.name),
        );
        let Some(relation) = self.relation(parts) else {
            let (name, schema) = (parts.last(), parts.iter().rev().nth(1));
            let declared = &self.topology.schema;
            if let Some(name) = name
                && declared.is_unloaded(schema.map(String::as_str), name, self.search_path)
            {
                return Err(PlanError::not_found(
                    declared,
                    schema.map(String::as_str),
                    name,
                    self.search_path,
                ));
            }
            self.found.unknown_relation = true;
            // PostgreSQL reports it.
            self.found
                .locals
                .push((self.topology.default_shard, parts.join(".").into()));
            let item = Item {
                name: called,
                schema: None,
                columns: None,
                reference: false,
            };
            return Ok(From {
                items: vec![item],
                ..From::default()
            });
        };
        let full: Arc<str> = format!("{}.{}", relation.schema, relation.name).into();
        self.found.temporary |= relation.is_temporary();
        self.touched.add_relation(&relation, false);
        if let Some(obstacle) = attached::read(&relation, &self.topology.schema)? {
            self.differs_by_shard(obstacle);
        }
        let mut columns: Option<Vec<OutColumn>> = (!relation.columns.is_empty()).then(|| {
            relation
                .columns
                .iter()
                .enumerate()
                .map(|(index, column)| {
                    self.next_column += 1;
                    let relation = relation.clone();
                    OutColumn {
                        name: (&*column.name).into(),
                        id: self.next_column,
                        key: None,
                        collation: column.collation,
                        origin: Some(Origin { relation, index }),
                        is_exact: is_exact(column.type_oid),
                        sorts: Sorts::of_column(column, &self.topology.schema),
                    }
                })
                .collect()
        });
        let mut partitioned = false;
        let mut groups = Vec::new();
        let mut reference = false;
        match &relation.placement {
            Placement::View if !target && relation.kind == RelationKind::View => {
                return self.view(relation, called, alias, place);
            }
            Placement::View => {
                return Err(PlanError::refused(
                    Refusal::View,
                    format!("the view {full} reads sharded tables"),
                ));
            }
            Placement::Sharded { .. }
                if matches!(
                    relation.kind,
                    RelationKind::View | RelationKind::MaterializedView
                ) =>
            {
                return Err(PlanError::refused(
                    Refusal::View,
                    format!("the view {full} reads sharded tables"),
                ));
            }
            Placement::Sharded { key, .. } => {
                let key_column = relation
                    .columns
                    .get(*key)
                    .and_then(|column| KeyColumn::new(&relation.name, column));
                let (Some(column), Some(columns)) = (key_column, &mut columns) else {
                    return Err(PlanError::Internal {
                        what: format!(
                            "the sharding key of {full} has a type that cannot be hashed"
                        )
                        .into(),
                    });
                };
                let node = self.graph.add(Arc::new(column));
                self.uses.push(UseNode {
                    relation: full,
                    node,
                });
                columns[*key].key = Some(Key {
                    node,
                    nullable: false,
                });
                partitioned = true;
                groups.push(vec![node]);
            }
            Placement::Reference => {
                reference = true;
                if target {
                    self.found.reference_writes.push(full);
                } else {
                    self.found.reference = true;
                }
            }
            Placement::Local(shard) => self.found.locals.push((*shard, full)),
            Placement::Catalog if &*full == "pg_catalog.pg_prepared_statements" => {
                return Err(PlanError::refused(
                    Refusal::SessionState,
                    "pg_prepared_statements shows what one connection to a shard has prepared, for all its clients",
                ));
            }
            Placement::Catalog => {
                self.found.catalog_relation = true;
                self.found.catalog.get_or_insert(full);
            }
        }
        let columns = match (columns, alias) {
            (Some(columns), Some(alias)) => Some(renamed(columns, alias)?),
            (columns, _) => columns,
        };
        let schema = alias.is_none().then(|| relation.schema.to_string());
        let item = Item {
            name: called,
            schema,
            columns: columns.clone().map(Into::into),
            reference,
        };
        if partitioned {
            let first = self.uses.len() - 1;
            self.note_source(relation, &item, first, place, alias, None);
        }
        Ok(From {
            items: vec![item],
            output: columns,
            partitioned,
            groups,
            ..From::default()
        })
    }
}

/// Whether it is surely an array of values of PostgreSQL's own types, none of which is a row.
fn has_plain_elements(array: &Expr) -> bool {
    match bare(array) {
        Expr::Cast {
            data_type: ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)),
            ..
        } => !matches!(
            **element,
            ast::DataType::Custom(..) | ast::DataType::Array(_)
        ),
        Expr::Array(array) => {
            let mut elements = array.elem.iter();
            elements.all(|element| matches!(element, Expr::Value(_)))
        }
        _ => false,
    }
}

/// Columns under the names of an alias's list.
fn renamed(mut columns: Vec<OutColumn>, alias: &TableAlias) -> Outcome<Vec<OutColumn>> {
    if alias.at.is_some() {
        return beyond("AT in an alias");
    }
    for (column, new) in columns.iter_mut().zip(&alias.columns) {
        column.name = parse::name(&new.name).as_str().into();
    }
    Ok(columns)
}

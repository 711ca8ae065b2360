//! Statements that are placed by the tables they name, not by keys: DDL, TRUNCATE, LOCK, and COPY.

use super::attached;
use super::automatic::{self, Touched};
use super::clock;
use super::create_as::create_as;
use super::ddl;
use super::event_trigger;
use super::foreign;
use super::hint::Hint;
use super::key::{Arguments, KeyColumn, Source};
use super::plan::{Access, Merge, Plan, Step, StepArguments, StepSql, Tier};
use super::refusal::{PlanError, Refusal};
use super::template::{self, Binding, Context, all_shards, owner};
use super::temporary;
use crate::sql::copy::{CopyDirection, CopySource, CopyStatement};
use crate::sql::copy_line::CopyLines;
use crate::sql::lex::Token;
use crate::sql::reader::Body;
use crate::sql::statement::{Maintenance, Name, ObjectKind, Statement};
use crate::topology::ShardId;
use crate::topology::schema::{Column, ColumnDefault, Event, Placement, Relation, RelationKind};
use crate::topology::snapshot::Topology;
use std::sync::Arc;

pub(super) fn one(tier: Tier, access: Access, shard: ShardId) -> Plan {
    let step = Step {
        shard,
        sql: StepSql::AsSent,
        arguments: StepArguments::AsSent,
    };
    Plan {
        tier,
        access,
        inputs: Vec::new(),
        steps: vec![step],
        merge: Merge::Relay,
    }
}

/// The shard that the session's hint names.
pub(super) fn hinted(sql: &str, context: &Context<'_>) -> Result<Option<ShardId>, PlanError> {
    match context.hint {
        None => Ok(None),
        Some(Hint::Shard(shard)) => Ok(Some(*shard)),
        Some(Hint::Key { .. }) => {
            let plan = template::template(sql, &[], context)?
                .plan(&Binding::default(), context.topology)?;
            Ok(plan.steps.first().map(|step| step.shard))
        }
    }
}

fn relation<'a>(name: &Name<'_>, context: &Context<'a>) -> Option<&'a Arc<Relation>> {
    context
        .topology
        .schema
        .relation(name.schema.as_deref(), &name.name, context.search_path)
}

fn is_unloaded(name: &Name<'_>, context: &Context<'_>) -> bool {
    let schema = &context.topology.schema;
    schema.is_unloaded(name.schema.as_deref(), &name.name, context.search_path)
}

/// Plans a statement that is not a query: where it runs follows from its kind and the tables it names.
///
/// # Errors
/// It would not do on several shards what it does on one.
pub fn utility(
    statement: &Statement<'_>,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<Plan, PlanError> {
    let plan = placed(statement, sql, tokens, context)?;
    let changes = matches!(
        statement,
        Statement::Ddl(_) | Statement::CreateTableAs { .. } | Statement::Truncate(_)
    );
    if context.topology.has_foreign_rows && changes && plan.tier == Tier::AllShards {
        return Err(PlanError::refused(
            Refusal::MovingSlots,
            format!(
                "{} while slots move from shard to shard",
                tokens
                    .first()
                    .map_or("", |token| token.text(sql))
                    .to_uppercase()
            ),
        ));
    }
    Ok(plan)
}

fn placed(
    statement: &Statement<'_>,
    sql: &str,
    tokens: &[Token],
    context: &Context<'_>,
) -> Result<Plan, PlanError> {
    if context.hint.is_none() {
        event_trigger::check(statement, sql, tokens, context)?;
    }
    if let Some(plan) = temporary::plan(statement, sql, tokens, context)? {
        return Ok(plan);
    }
    let topology = context.topology;
    let hint = hinted(sql, context)?;
    let everywhere = |access| match hint {
        Some(shard) => one(Tier::NamedShard, access, shard),
        None => all_shards(access, topology),
    };
    match statement {
        Statement::Truncate(names) => match hint {
            Some(shard) => Ok(one(Tier::NamedShard, Access::Write, shard)),
            None => {
                for name in names {
                    if let Some(relation) = relation(name, context) {
                        // A trigger of TRUNCATE has no row whose values could differ.
                        attached::write(relation, &[Event::Truncate], None, &topology.schema)?;
                    }
                }
                for_relations(names, "TRUNCATE", Access::Write, context)
            }
        },
        Statement::Lock(names) => match hint {
            Some(shard) => Ok(one(Tier::NamedShard, Access::Write, shard)),
            None => for_relations(names, "LOCK", Access::Read, context),
        },
        Statement::CreateTableAs {
            relation,
            materialized_view,
            body,
            ..
        } => match hint {
            Some(shard) => Ok(one(Tier::NamedShard, Access::Ddl, shard)),
            None => create_as(relation, *materialized_view, body, sql, tokens, context),
        },
        Statement::Refresh(name) => match hint {
            Some(shard) => Ok(one(Tier::NamedShard, Access::Ddl, shard)),
            None => match relation(name, context)
                .map(|relation| {
                    attached::queries(relation, &topology.schema)?;
                    let copies = relation.placement == Placement::Reference;
                    let what = format!("the query of {}", relation.name);
                    automatic::check(&Touched::anything(), &what, copies, &topology.schema)?;
                    Ok::<_, PlanError>(&relation.placement)
                })
                .transpose()?
            {
                Some(Placement::View | Placement::Sharded { .. }) => Err(PlanError::refused(
                    Refusal::View,
                    format!("the materialized view {} reads sharded tables", name.name),
                )),
                Some(Placement::Reference) => Ok(all_shards(Access::Ddl, topology)),
                Some(Placement::Local(shard)) => Ok(one(Tier::NamedShard, Access::Ddl, *shard)),
                Some(Placement::Catalog) | None => {
                    Ok(one(Tier::NamedShard, Access::Ddl, topology.default_shard))
                }
            },
        },
        Statement::Ddl(ddl) => {
            if let Some(
                kind @ (ObjectKind::Database
                | ObjectKind::Tablespace
                | ObjectKind::System
                | ObjectKind::Subscription),
            ) = ddl.object
                && hint.is_none()
            {
                return Err(PlanError::refused(
                    Refusal::ServerObject,
                    format!("{kind:?} is of a server, and each shard has servers of its own")
                        .to_lowercase(),
                ));
            }
            if hint.is_none() {
                ddl::check(ddl, sql, tokens, context)?;
                ddl::evaluated(ddl, sql, context)?;
            }
            Ok(everywhere(if ddl.outside_block {
                Access::OutsideBlock
            } else {
                Access::Ddl
            }))
        }
        Statement::Maintenance {
            command,
            outside_block,
        } => Ok(everywhere(match (outside_block, command) {
            (true, _) => Access::OutsideBlock,
            (false, Maintenance::Analyze) => Access::Write,
            (
                false,
                Maintenance::Vacuum
                | Maintenance::Reindex
                | Maintenance::Cluster
                | Maintenance::Checkpoint,
            ) => Access::Ddl,
        })),
        Statement::Do | Statement::Call => match hint {
            Some(shard) => Ok(one(Tier::NamedShard, Access::Write, shard)),
            None => Err(PlanError::refused(
                Refusal::ProceduralFunction,
                "procedural code may read or write tables that pgring does not see",
            )),
        },
        Statement::Load => Err(PlanError::refused(
            Refusal::SessionState,
            "LOAD changes one server session",
        )),
        Statement::SetConstraints => Ok(everywhere(Access::Read)),
        _ => {
            let first = tokens.first().map_or("", |token| token.text(sql));
            Err(PlanError::refused(
                Refusal::Unparsed,
                format!("{} is not placed by pgring", first.to_uppercase()),
            ))
        }
    }
}

/// TRUNCATE and LOCK: on the one shard where all the tables live, else on every shard, since each has every definition
/// and where a table has no rows the statement does nothing.
fn for_relations(
    names: &[Name<'_>],
    what: &str,
    access: Access,
    context: &Context<'_>,
) -> Result<Plan, PlanError> {
    let topology = context.topology;
    let mut homes = Vec::with_capacity(names.len());
    for name in names {
        homes.push(
            match relation(name, context).map(|relation| &relation.placement) {
                Some(Placement::Sharded { .. } | Placement::Reference) => None,
                Some(Placement::View) => {
                    return Err(PlanError::refused(
                        Refusal::View,
                        format!(
                            "{what} of the view {}, which reads sharded tables",
                            name.name
                        ),
                    ));
                }
                Some(Placement::Local(shard)) => Some(*shard),
                // Wherever its rows belong, its definition is everywhere.
                None if is_unloaded(name, context) => None,
                // PostgreSQL says what is wrong with it.
                Some(Placement::Catalog) | None => Some(topology.default_shard),
            },
        );
    }
    match homes.first().copied().flatten() {
        Some(shard) if homes.iter().all(|home| *home == Some(shard)) => {
            Ok(one(Tier::NamedShard, access, shard))
        }
        _ => Ok(all_shards(access, topology)),
    }
}

/// Where the rows of a COPY FROM go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyRoute {
    /// All to this shard.
    One(ShardId),
    /// All to every shard: a reference table.
    AllShards(CopyTimes),
    /// Each to the shard of its key.
    Split(CopySplit),
}

/// How the rows of a COPY FROM are split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySplit {
    /// The key's place in a row, from 0.
    pub column: usize,
    /// The key column's name.
    pub name: Arc<str>,
    key: KeyColumn,
    /// What must not tell the time.
    pub times: CopyTimes,
}

/// The columns of a COPY FROM over several shards whose texts may be read as the time, by the clock of each shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyTimes {
    /// Place in a row, from 0, and name.
    pub columns: Vec<(usize, Arc<str>)>,
}

impl CopyTimes {
    fn new(order: &[&Column]) -> Self {
        let columns = order.iter().enumerate();
        Self {
            columns: columns
                .filter(|(_, column)| clock::may_be_time(column.type_oid))
                .map(|(place, column)| (place, column.name.clone()))
                .collect(),
        }
    }

    /// Whether a row need not be looked at. `quote`: the byte by which a text's letters may be hidden.
    pub fn is_passed(&self, row: &[u8], quote: u8) -> bool {
        self.columns.is_empty() || !clock::may_tell_time(row, quote)
    }

    /// Refuses a value, decoded, of the column called `name`.
    ///
    /// # Errors
    /// Each shard's clock would read it in its own way.
    pub fn check(name: &str, value: &[u8]) -> Result<(), PlanError> {
        if std::str::from_utf8(value).is_ok_and(clock::tells_time) {
            return Err(PlanError::refused(
                Refusal::VolatileFunction,
                format!("a value of the column {name} is the time, which differs between shards"),
            ));
        }
        Ok(())
    }
}

impl CopySplit {
    /// The shard of a row with this key: decoded text in UTF-8, or the type's binary form.
    ///
    /// # Errors
    /// The key is NULL or not understood, or its slot has no owner.
    pub fn shard(
        &self,
        value: Option<&[u8]>,
        binary: bool,
        topology: &Topology,
    ) -> Result<ShardId, PlanError> {
        let format = [i16::from(binary)];
        let arguments = Arguments {
            values: &[value],
            formats: &format,
        };
        owner(
            topology,
            self.key
                .stored(&Source::Parameter { index: 0, oid: 0 }, arguments)?,
        )
    }
}

/// Plans COPY … FROM.
///
/// # Errors
/// The data lack the sharding key, or columns that are left out would differ between shards.
pub fn copy_from(
    copy: &CopyStatement<'_>,
    sql: &str,
    context: &Context<'_>,
) -> Result<CopyRoute, PlanError> {
    debug_assert!(copy.direction == CopyDirection::From);
    if let Some(shard) = hinted(sql, context)? {
        return Ok(CopyRoute::One(shard));
    }
    let default = context.topology.default_shard;
    let CopySource::Table { name, columns } = &copy.source else {
        return Ok(CopyRoute::One(default));
    };
    let Some(relation) = relation(name, context) else {
        if is_unloaded(name, context) {
            return Err(PlanError::not_found(
                &context.topology.schema,
                name.schema.as_deref(),
                &name.name,
                context.search_path,
            ));
        }
        return Ok(CopyRoute::One(default));
    };
    let schema = &context.topology.schema;
    let obstacle = attached::write(relation, &[Event::Insert], None, schema)?;
    let mut touched = Touched::default();
    for table in attached::and_reads(relation, schema) {
        touched.add_relation(table, true);
    }
    let copies = !matches!(relation.placement, Placement::Local(_));
    automatic::check(&touched, "COPY", copies, schema)?;
    let order: Vec<&Column> = match columns {
        // Generated columns are not in the data.
        None => relation
            .columns
            .iter()
            .filter(|column| column.default != ColumnDefault::Generated)
            .collect(),
        Some(names) => names
            .iter()
            .filter_map(|name| {
                relation
                    .columns
                    .iter()
                    .find(|column| *column.name == **name)
            })
            .collect(),
    };
    // A name that is not there is PostgreSQL's to report.
    let complete = columns
        .as_ref()
        .is_none_or(|names| names.len() == order.len());
    match &relation.placement {
        Placement::Sharded { key, .. } => {
            let column = &relation.columns[*key];
            if !complete {
                return Ok(CopyRoute::One(default));
            }
            let missing = || {
                PlanError::refused(
                    Refusal::CopyWithoutKey,
                    format!(
                        "COPY without the sharding key {}.{}",
                        relation.name, column.name
                    ),
                )
            };
            let place = order
                .iter()
                .position(|other| other.name == column.name)
                .ok_or_else(missing)?;
            let given = given_always(copy, &order);
            left_out(relation, given, context, false)?;
            obstacle.map_or(Ok(()), Err)?;
            let key =
                KeyColumn::new(&relation.name, column).ok_or_else(|| PlanError::Internal {
                    what: "the sharding key has a type that cannot be hashed".into(),
                })?;
            // Rows of any slot may come.
            template::every_shard(context.topology)?;
            Ok(CopyRoute::Split(CopySplit {
                column: place,
                name: column.name.clone(),
                key,
                times: CopyTimes::new(&order),
            }))
        }
        Placement::Reference => {
            left_out(relation, given_always(copy, &order), context, true)?;
            obstacle.map_or(Ok(()), Err)?;
            if copy.where_clause {
                return Err(PlanError::refused(
                    Refusal::CopyForm,
                    "COPY … WHERE into a reference table",
                ));
            }
            Ok(CopyRoute::AllShards(CopyTimes::new(&order)))
        }
        Placement::Local(shard) => {
            left_out(relation, given_always(copy, &order), context, false)?;
            Ok(CopyRoute::One(*shard))
        }
        Placement::Catalog => Ok(CopyRoute::One(default)),
        Placement::View => Err(PlanError::refused(
            Refusal::View,
            format!(
                "COPY into the view {}, which reads sharded tables",
                relation.name
            ),
        )),
    }
}

/// The columns that the data give in each row: with the option DEFAULT, a row may leave any to its default.
fn given_always<'a, 'b>(copy: &CopyStatement<'_>, order: &'b [&'a Column]) -> &'b [&'a Column] {
    match copy.options.default {
        None => order,
        Some(_) => &[],
    }
}

/// Refuses defaults that would differ between shards, or that leave something in the session, for the columns that the
/// data leave out.
fn left_out(
    relation: &Relation,
    given: &[&Column],
    context: &Context<'_>,
    reference: bool,
) -> Result<(), PlanError> {
    for column in &relation.columns {
        if given.iter().any(|given| given.name == column.name) {
            continue;
        }
        template::default_is_shared(
            relation,
            column,
            reference,
            context.topology,
            context.search_path,
        )?;
    }
    Ok(())
}

/// How rows are copied out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOut {
    /// What the shards run: the COPY itself, or its query if there is a `shape`.
    pub plan: Plan,
    /// The COPY without any row, which one shard judges and describes.
    pub shape: Option<Arc<str>>,
}

/// Plans COPY … TO. `preferred` and `spread` as in [`Binding`].
///
/// # Errors
/// The query is refused, or its outputs would have to be merged in a form that the router does not write.
pub fn copy_to(
    copy: &CopyStatement<'_>,
    sql: &str,
    context: &Context<'_>,
    preferred: Option<ShardId>,
    spread: usize,
) -> Result<CopyOut, PlanError> {
    copied(copy, sql, context, preferred, spread).and_then(|plan| match plan {
        Ok(plan) => Ok(CopyOut { plan, shape: None }),
        Err((plan, body)) => made_of_rows(copy, sql, body, plan, context),
    })
}

/// A COPY whose rows are made by the plan of its query.
fn made_of_rows(
    copy: &CopyStatement<'_>,
    sql: &str,
    body: &Body<'_>,
    plan: Plan,
    context: &Context<'_>,
) -> Result<CopyOut, PlanError> {
    if plan.access != Access::Read || CopyLines::new(&copy.options).is_none() {
        return Err(PlanError::refused(
            Refusal::CopyForm,
            "COPY of a query whose rows are merged over several shards, with a write in it, ENCODING or FORCE_QUOTE of some columns",
        ));
    }
    let shape = format!("SELECT * FROM ({}\n) AS pgring_copy LIMIT 0", body.text);
    let shape = foreign::copy_of(sql, body, &shape, context)?;
    Ok(CopyOut {
        plan,
        shape: Some(shape),
    })
}

/// The plan of COPY … TO; that of its query, with it, if the shards' outputs cannot follow each other.
fn copied<'a>(
    copy: &'a CopyStatement<'a>,
    sql: &str,
    context: &Context<'_>,
    preferred: Option<ShardId>,
    spread: usize,
) -> Result<Result<Plan, (Plan, &'a Body<'a>)>, PlanError> {
    let topology = context.topology;
    let binding = Binding {
        preferred,
        spread,
        ..Binding::default()
    };
    if let Some(shard) = hinted(sql, context)? {
        if topology.has_foreign_rows {
            return Err(PlanError::refused(
                Refusal::ForeignRows,
                "slots are moving, and the shard that a hint names may have rows of others",
            ));
        }
        return Ok(Ok(one(Tier::NamedShard, Access::Write, shard)));
    }
    match &copy.source {
        CopySource::Table { name, columns } => match relation(name, context)
            .map(|relation| {
                let obstacle = attached::read(relation, &topology.schema)?;
                match (obstacle, &relation.placement) {
                    (Some(obstacle), Placement::Sharded { .. }) => Err(obstacle),
                    _ => Ok(relation),
                }
            })
            .transpose()?
            .map(|relation| (&relation.placement, relation.kind, relation))
        {
            Some((Placement::Sharded { .. }, kind, relation)) => {
                template::every_shard(topology)?;
                let mut plan = all_shards(Access::Read, topology);
                plan.tier = if plan.steps.len() == 1 {
                    Tier::SingleShard
                } else {
                    Tier::PushDown
                };
                if plan.steps.len() > 1 {
                    plan.merge = Merge::Append {
                        offset: 0,
                        limit: None,
                    };
                }
                // What is no plain table PostgreSQL does not copy.
                if topology.has_foreign_rows && kind == RelationKind::Table {
                    foreign::check_alone(relation, &topology.schema)?;
                    let text = foreign::copy_text(sql, relation, columns.as_deref(), context)?;
                    for step in &mut plan.steps {
                        step.sql = StepSql::Rewritten(text.clone());
                    }
                }
                Ok(Ok(plan))
            }
            Some((Placement::Reference, RelationKind::Table, _)) => Ok(Ok(one(
                Tier::AnyShard,
                Access::Read,
                template::any_shard(&binding, topology),
            ))),
            Some((Placement::Local(shard), ..)) => {
                Ok(Ok(one(Tier::NamedShard, Access::Read, *shard)))
            }
            // PostgreSQL copies no views; it says so.
            Some((Placement::Reference | Placement::Catalog | Placement::View, ..)) | None => Ok(
                Ok(one(Tier::NamedShard, Access::Read, topology.default_shard)),
            ),
        },
        CopySource::Query(body) => {
            let template = template::template(body.text, &[], context)?;
            template.refuse_session_effects()?;
            let mut plan = template.plan(&binding, topology)?;
            let query = plan.clone();
            if let Some(text) = template.own_rows() {
                let own = StepSql::Rewritten(text.clone());
                let copied = foreign::copy_of(sql, body, text, context)?;
                let sees = plan.steps.iter().all(|step| step.sql == own);
                for step in plan.steps.iter_mut().filter(|_| sees) {
                    step.sql = StepSql::Rewritten(copied.clone());
                }
                let appended = matches!(
                    plan.merge,
                    Merge::Append {
                        offset: 0,
                        limit: None
                    }
                );
                if sees && plan.inputs.is_empty() && appended {
                    return Ok(Ok(plan));
                }
            }
            let untouched =
                plan.inputs.is_empty() && plan.steps.iter().all(|step| step.sql == StepSql::AsSent);
            let appended = matches!(
                plan.merge,
                Merge::Relay
                    | Merge::Append {
                        offset: 0,
                        limit: None
                    }
            );
            if untouched && (appended || plan.steps.len() == 1) {
                Ok(Ok(plan))
            } else {
                Ok(Err((query, body)))
            }
        }
    }
}

//! [`OwnSchema`]: the schema as a session sees it: its block after its own DDL, which nobody else sees before it commits,
//! and with its temporary relations.
//!
//! What a statement changed is not looked up any more in what the router has loaded. If a later statement of the block
//! needs it, the catalog is read over one of the block's own backends, inside its transaction. Both are the session's
//! alone: no plan that was made by them goes into a cache of all sessions.

use super::session::Session;
use crate::backend::catalog::{self, Row};
use crate::backend::connection::Backend;
use crate::planner::{self, Context};
use crate::sql::lex::Token;
use crate::sql::statement::Statement;
use crate::topology::schema::{Changes, Schema};
use crate::topology::snapshot::Topology;
use crate::transaction::command::{self, CommandError};
use crate::transaction::state::Phase;
use std::sync::Arc;

/// Versions of schemas that a session sees in its own way; the router's own count from zero.
const OWN_VERSIONS: u64 = 1 << 63;

/// Where the settings of a block return to after its catalog was read.
const SAVEPOINT: &str = "pgring_own_catalog";

/// What a block did to the schema, and what its session sees.
#[derive(Debug, Default)]
pub struct OwnSchema {
    changes: Changes,
    /// Whether a hint sent some of it to one shard only.
    hinted: bool,
    /// The schema that the block sees, and the router's topology when it was read.
    read: Option<(Arc<Topology>, Schema)>,
    /// The session's topology, and the router's that it was made of.
    seen: Option<(Arc<Topology>, Arc<Topology>)>,
}

impl OwnSchema {
    /// Whether the block changed nothing that the router's schema tells of.
    pub fn is_unchanged(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether what the block sees was read.
    pub fn is_loaded(&self) -> bool {
        self.read.is_some()
    }

    /// Takes note of how a statement changes the schema; `hinted` if on one shard.
    fn note(&mut self, changes: Changes, hinted: bool) {
        if !changes.is_empty() {
            self.changes.extend(changes);
            self.hinted |= hinted;
            self.look_anew();
        }
    }

    /// What the block sees may have become another: by DDL, or by going back to a savepoint.
    pub fn look_anew(&mut self) {
        self.read = None;
        self.seen = None;
    }
}

impl Session {
    /// The topology that the session's statements are planned against.
    pub(super) fn topology(&mut self) -> Arc<Topology> {
        let topology = self.router.topology();
        let temporary = &self.temporary.relations;
        let own = &mut self.own_schema;
        if own.is_unchanged() && temporary.is_empty() {
            return topology;
        }
        if let Some((base, seen)) = &own.seen
            && Arc::ptr_eq(base, &topology)
        {
            return seen.clone();
        }
        // The router knows of more than it did.
        own.read.take_if(|(base, _)| !Arc::ptr_eq(base, &topology));
        let mut schema = match &own.read {
            Some((_, schema)) => schema.clone(),
            None if own.is_unchanged() => (*topology.schema).clone(),
            None => topology.schema.without(&own.changes),
        };
        if !temporary.is_empty() {
            schema.add_temporary(temporary, topology.default_shard);
        }
        // No other session's statement is one of this.
        schema.version = OWN_VERSIONS | self.router.next_statement();
        let seen = Arc::new(Topology {
            schema: Arc::new(schema),
            ..(*topology).clone()
        });
        own.seen = Some((topology, seen.clone()));
        seen
    }

    /// The session has other temporary relations than it had.
    pub(super) fn forget_own_topology(&mut self) {
        self.own_schema.seen = None;
    }

    /// Reads what the block sees after its own DDL. Whether that is news.
    pub(super) async fn load_own_schema(&mut self) -> bool {
        let base = self.router.topology();
        let open = matches!(
            self.transaction.block.phase(),
            Phase::Open | Phase::Implicit
        );
        // What was sent and not answered yet may change it once more.
        if !open || self.pipeline.unsynced || self.own_schema.hinted {
            return false;
        }
        let known = self.own_schema.read.as_ref();
        let is_current = known.is_some_and(|(known, _)| Arc::ptr_eq(known, &base));
        if self.own_schema.is_unchanged() || is_current {
            return false;
        }
        // DDL runs on all shards: each that takes part has seen it.
        let Some(shard) = self.transaction.shards().next() else {
            return false;
        };
        let Some(backend) = self.transaction.backend(shard) else {
            return false;
        };
        let schema = match read(backend).await {
            Ok(schema) => schema,
            Err(CommandError::Refused(_)) => None,
            Err(error) => {
                tracing::warn!(%error, "the schema of a block was not read");
                self.lose(shard);
                return false;
            }
        };
        let Some(schema) = schema else {
            return false;
        };
        let schema = self.router.control.place(schema);
        self.own_schema.look_anew();
        self.own_schema.read = Some((base, schema));
        true
    }

    /// Takes note of how a statement changes the schema.
    pub(super) fn note_changes(
        &mut self,
        statement: &Statement<'_>,
        sql: &str,
        tokens: &[Token],
        context: &Context<'_>,
    ) {
        let changes = planner::changes(statement, sql, tokens, context);
        if matches!(
            statement,
            Statement::Ddl(_) | Statement::CreateTableAs { .. }
        ) {
            self.own_schema.look_anew();
        }
        self.own_schema.note(changes, context.hint.is_some());
    }

    pub(super) fn forget_changes(&mut self) {
        if !self.own_schema.is_unchanged() {
            self.own_schema = OwnSchema::default();
        }
    }
}

/// The catalog as the transaction of `backend` sees it; `None` if it cannot be read. The transaction stays as it is.
async fn read(backend: &mut Backend) -> Result<Option<Schema>, CommandError> {
    let savepoint = format!("SAVEPOINT {SAVEPOINT}");
    command::run_apart(backend, &[&savepoint]).await?;
    let answers = ask(backend).await;
    if let Err(error @ CommandError::Lost { .. }) = answers {
        return Err(error);
    }
    let back = format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}");
    let release = format!("RELEASE SAVEPOINT {SAVEPOINT}");
    command::run_apart(backend, &[&back, &release]).await?;
    match catalog::assemble(answers?) {
        Ok(schema) => Ok(Some(schema)),
        Err(error) => {
            tracing::warn!(%error, "the schema of a block was not read");
            Ok(None)
        }
    }
}

async fn ask(backend: &mut Backend) -> Result<Vec<Vec<Row>>, CommandError> {
    command::run_apart(backend, &[catalog::SETTINGS]).await?;
    let mut answers = Vec::with_capacity(catalog::QUERIES.len());
    for sql in catalog::QUERIES {
        let rows = command::run_apart(backend, &[sql]).await?.rows;
        answers.push(rows.into_iter().map(Row).collect());
    }
    Ok(answers)
}

//! What a client has parsed and bound.

use crate::planner::Template;
use crate::planner::plan::Plan;
use crate::topology::ShardId;
use crate::wire::frame::{Format, Frame};
use std::sync::{Arc, OnceLock};

/// A statement that a client parsed.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its number; for a named statement the same for all clients that mean the same by it.
    pub id: u64,
    /// Its name on the shards; "" for the unnamed one.
    pub backend_name: Box<str>,
    /// The client's text.
    pub sql: Arc<str>,
    /// The OIDs of Parse.
    pub parameter_types: Arc<[u32]>,
    /// How many parameters it has; not counted where only shards know, and name it as the client does.
    pub parameters: Option<usize>,
    /// What runs it.
    pub kind: PreparedKind,
    /// The parameters' types as a shard described them, once one has.
    pub described: OnceLock<Arc<[u32]>>,
    /// How much further on the client's text has what the shard is sent, in characters.
    pub position_offset: i64,
}

/// What runs a prepared statement.
#[derive(Debug, Clone)]
pub enum PreparedKind {
    /// The planner; the template is that of Parse time and is looked up anew when schema or search path changed.
    Query {
        /// The template.
        template: Arc<Template>,
        /// [`crate::topology::schema::Schema::version`] of it.
        schema_version: u64,
        /// The search path of it.
        search_path: Arc<[Arc<str>]>,
    },
    /// The session: transaction control, SET, COPY, DDL and the like.
    Session,
    /// One shard as it stands: SHOW, FETCH and the like.
    Forward,
    /// The session too, but a shard says what its parameters are: EXPLAIN.
    Explain,
    /// What it names when it is bound: EXECUTE.
    Execute,
    /// Nothing.
    Empty,
}

impl Prepared {
    /// Whether it has a name.
    pub fn is_named(&self) -> bool {
        !self.backend_name.is_empty()
    }
}

/// The name on the shards of the statement with this number.
pub fn backend_name(id: u64) -> String {
    format!("pgring_{id}")
}

/// What a statement's parameters are bound to; the default is a statement without any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bound<'a> {
    /// The OIDs of Parse.
    pub types: &'a [u32],
    /// By parameter; `None` is NULL.
    pub values: &'a [Option<&'a [u8]>],
    /// Bind's format codes: none (all text), one for all, or one each.
    pub formats: &'a [i16],
}

impl Bound<'_> {
    /// The type that Parse gave a parameter; 0 leaves it to the shard.
    pub fn type_of(&self, parameter: usize) -> u32 {
        self.types.get(parameter).copied().unwrap_or(0)
    }

    /// The format of a parameter's value.
    pub fn format_of(&self, parameter: usize) -> Format {
        let code = match self.formats {
            [one] => Some(one),
            each => each.get(parameter),
        };
        match code {
            Some(1) => Format::Binary,
            Some(_) | None => Format::Text,
        }
    }
}

/// A portal that a client bound.
#[derive(Debug, Clone)]
pub struct Portal {
    /// Of which statement.
    pub prepared: Arc<Prepared>,
    /// Where it runs.
    pub place: Place,
}

/// Where a portal runs.
#[derive(Debug, Clone)]
pub enum Place {
    /// Bound on this shard under the client's own name.
    Shard(ShardId),
    /// On several shards, from the client's Bind.
    Several {
        /// What runs.
        plan: Arc<Plan>,
        /// The generation of the topology that it was planned against.
        generation: u64,
        /// The client's Bind.
        bind: Frame,
        /// Where the client's own text is bound too, to be described.
        described_on: ShardId,
    },
    /// In the session.
    Session,
    /// In the session, from the client's Bind.
    Explained {
        /// The client's Bind.
        bind: Frame,
        /// Where it is bound too, to be described.
        described_on: ShardId,
    },
    /// Run on several shards up to its row limit; the rest of its rows is gone.
    Suspended(Ran),
    /// Run already.
    Done {
        /// The tag of a further Execute, which finds no more rows; without rows there is none.
        again: Option<String>,
        /// What is left of it, unless the session alone ran it.
        ran: Option<Ran>,
    },
}

/// What is left of a portal that was bound on one shard to be described, and ran elsewhere.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The shard, which may have the portal still.
    pub described_on: ShardId,
    /// The formats of its rows, as Bind asked for them.
    pub results: Box<[Format]>,
}

//! What calling a function means for where a statement may run. Start at [`effect`]; sources are judged in `body`.

use super::body::Judge;
use super::plan::SessionEffects;
use crate::topology::schema::{Function, Schema, Volatility};
use std::sync::Arc;

/// What a call does, as far as it matters where it runs; each worse than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The same everywhere.
    Same,
    /// Different with each call, and harmless (`random`).
    Random,
    /// The server's clock or transaction: the same within a shard's transaction only.
    Time,
    /// Looks at its server or its catalog.
    Catalog,
    /// Changes something that only one designated shard keeps: sequences, locks, messages, large objects.
    Designated,
    /// Not in the schema.
    Unknown,
    /// Reads or writes tables by itself.
    Procedural,
    /// Leaves something in its server session.
    Session,
}

/// A call as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What it does.
    pub effect: Effect,
    /// Whether it may be an aggregate.
    pub aggregate: bool,
    /// Whether its result depends on the order of rows.
    pub ordered: bool,
}

/// Functions that the grammar knows without an entry in `pg_proc`.
const GRAMMAR: &[&str] = &[
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "grouping",
    "row",
    "xmlelement",
    "xmlforest",
    "xmlconcat",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmlexists",
    "json_object",
    "json_array",
    "json_scalar",
    "json_serialize",
    "json_value",
    "json_query",
    "json_exists",
    "current_user",
    "current_role",
    "session_user",
    "user",
    "system_user",
    "current_schema",
    "normalize",
    "array",
    "treat",
    "collation",
    "overlay",
    "position",
    "substring",
    "trim",
    "extract",
    "ceil",
    "floor",
    "merge_action",
];

/// Functions of the grammar that tell the time.
const GRAMMAR_TIME: &[&str] = &[
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
];

/// Built-in functions that tell the time.
const TIME: &[&str] = &[
    "now",
    "transaction_timestamp",
    "statement_timestamp",
    "clock_timestamp",
    "timeofday",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
];

/// Volatile functions whose every call may differ anyway.
const RANDOM: &[&str] = &[
    "random",
    "random_normal",
    "gen_random_uuid",
    "uuidv4",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
];

/// Time-ordered identifiers are random enough: each call differs on one server too.
const RANDOM_TIME: &[&str] = &["uuidv7"];

/// Functions of extensions like [`RANDOM`].
const RANDOM_EXTENSION: &[&str] = &[
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "gen_random_bytes",
    "gen_salt",
    "normal_rand",
];

/// Built-in and extension functions that run SQL which the router does not see.
const RUNS_SQL: &[&str] = &[
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "table_to_xml",
    "table_to_xmlschema",
    "table_to_xml_and_xmlschema",
    "schema_to_xml",
    "schema_to_xmlschema",
    "schema_to_xml_and_xmlschema",
    "database_to_xml",
    "database_to_xmlschema",
    "database_to_xml_and_xmlschema",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "ts_stat",
    "ts_rewrite",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "connectby",
    "xpath_table",
    "dblink",
    "dblink_exec",
    "dblink_open",
    "dblink_send_query",
    "lo_import",
    "lo_export",
];

/// Functions that keep state in the session.
const SESSION: &[&str] = &[
    "currval",
    "lastval",
    "setseed",
    "pg_export_snapshot",
    "pg_prepared_statement",
];

/// Built-in functions that read their own server's catalog or settings though their names do not begin with `pg_`.
const CATALOG: &[&str] = &[
    "current_database",
    "current_catalog",
    "current_schemas",
    "version",
    "format_type",
    "obj_description",
    "col_description",
    "shobj_description",
    "to_regclass",
    "to_regcollation",
    "to_regnamespace",
    "to_regoper",
    "to_regoperator",
    "to_regproc",
    "to_regprocedure",
    "to_regrole",
    "to_regtype",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "row_security_active",
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_foreign_data_wrapper_privilege",
    "has_function_privilege",
    "has_language_privilege",
    "has_parameter_privilege",
    "has_schema_privilege",
    "has_sequence_privilege",
    "has_server_privilege",
    "has_table_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "regclass",
    "regproc",
    "regprocedure",
    "regoper",
    "regoperator",
    "regtype",
    "regrole",
    "regnamespace",
    "regconfig",
    "regdictionary",
    "regcollation",
    "current_setting",
];

/// Aggregates whose result does not depend on the order of their rows.
const UNORDERED: &[&str] = &[
    "count", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor",
];

/// Aggregates whose result does not depend on the order of their rows where the values are exact: floats are rounded
/// with each that is added.
pub(super) const UNORDERED_IF_EXACT: &[&str] = &[
    "sum",
    "avg",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "variance",
    "var_pop",
    "var_samp",
];

/// What calling `name` (with its schema, if it was written) means.
pub fn effect(
    schema: &Schema,
    search_path: &[Arc<str>],
    qualifier: Option<&str>,
    name: &str,
    arguments: usize,
) -> Call {
    effect_by(
        &mut Judge::new(schema),
        search_path,
        qualifier,
        name,
        arguments,
    )
}

/// As [`effect`], for `judge`, which knows what it has looked into.
pub(super) fn effect_by(
    judge: &mut Judge<'_>,
    search_path: &[Arc<str>],
    qualifier: Option<&str>,
    name: &str,
    arguments: usize,
) -> Call {
    let schema = judge.schema;
    if qualifier.is_none() {
        if GRAMMAR.contains(&name) && !schema.builtin_functions.contains_key(name) {
            return Call {
                effect: Effect::Same,
                aggregate: false,
                ordered: false,
            };
        }
        if GRAMMAR_TIME.contains(&name) {
            return Call {
                effect: Effect::Time,
                aggregate: false,
                ordered: false,
            };
        }
    }
    let builtin = match qualifier {
        None | Some("pg_catalog") => schema
            .builtin_functions
            .get(name)
            .map(|function| built_in(name, function, arguments)),
        Some(_) => None,
    };
    let mut worst = builtin;
    let mut add = |found: Option<&Function>| {
        if let Some(function) = found {
            let call = user(judge, name, function);
            worst = Some(match worst {
                None => call,
                Some(other) => Call {
                    effect: call.effect.max(other.effect),
                    aggregate: call.aggregate || other.aggregate,
                    ordered: call.ordered || other.ordered,
                },
            });
        }
    };
    let within = |schema_name: &str| {
        schema
            .user_functions
            .get(schema_name)
            .and_then(|functions| functions.get(name))
    };
    match qualifier {
        Some(qualifier) => add(within(qualifier)),
        // All of the path: overloads of several schemas compete by their argument types.
        None => search_path
            .iter()
            .for_each(|schema_name| add(within(schema_name))),
    }
    worst.unwrap_or(Call {
        effect: Effect::Unknown,
        aggregate: false,
        ordered: false,
    })
}

/// What a built-in function of this name does beyond its transaction, or at its end.
pub fn session_effects(name: &str) -> SessionEffects {
    let advisory = name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_");
    let unlocks = name.starts_with("pg_advisory_unlock");
    SessionEffects {
        locks: advisory && !unlocks && !name.contains("_xact_"),
        unlocks,
        notifies: name == "pg_notify",
        temporary: false,
    }
}

fn built_in(name: &str, function: &Function, arguments: usize) -> Call {
    let effect = if RUNS_SQL.contains(&name) {
        Effect::Procedural
    } else if SESSION.contains(&name) {
        Effect::Session
    } else if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") {
        Effect::Designated
    } else if TIME.contains(&name)
        || (name == "age" && arguments == 1)
        || (name.starts_with("json") && (name.ends_with("_record") || name.ends_with("_recordset")))
    {
        // What makes rows of JSON reads texts as the types of their columns say.
        Effect::Time
    } else if RANDOM.contains(&name) || RANDOM_TIME.contains(&name) {
        Effect::Random
    } else if CATALOG.contains(&name) {
        Effect::Catalog
    } else if function.volatility == Volatility::Volatile {
        Effect::Designated
    } else if name == "pg_typeof" || name == "pg_size_pretty" || name == "pg_size_bytes" {
        Effect::Same
    } else if name.starts_with("pg_") {
        Effect::Catalog
    } else {
        Effect::Same
    };
    let aggregate = function.aggregate && !function.window;
    Call {
        effect,
        aggregate,
        ordered: (function.aggregate && !UNORDERED.contains(&name)) || function.window,
    }
}

fn user(judge: &mut Judge<'_>, name: &str, function: &Function) -> Call {
    Call {
        effect: of_user(judge, name, function),
        aggregate: function.aggregate,
        ordered: function.aggregate || function.window,
    }
}

/// What calling a function that a user or an extension made means: what it is said to be, and what its source does.
pub(super) fn of_user(judge: &mut Judge<'_>, name: &str, function: &Function) -> Effect {
    if RUNS_SQL.contains(&name) {
        return Effect::Procedural;
    }
    if RANDOM_EXTENSION.contains(&name) && !function.procedural {
        return Effect::Random;
    }
    let source = judge.source(function);
    match (function.volatility, function.procedural) {
        (Volatility::Immutable, _) | (Volatility::Stable, false) => source,
        // What is called by a function that is said to be immutable is as good as its source.
        (Volatility::Stable, true) if judge.is_inside() => source,
        (Volatility::Stable | Volatility::Volatile, true) if judge.is_at_home() => source,
        (Volatility::Stable | Volatility::Volatile, true) if source == Effect::Session => source,
        (Volatility::Stable | Volatility::Volatile, true) => Effect::Procedural,
        (Volatility::Volatile, false) => Effect::Designated,
    }
}

/// Whether a built-in function leaves something in its session unless told otherwise by its arguments.
pub(super) fn leaves_state(name: &str) -> bool {
    let effects = session_effects(name);
    effects.locks || effects.unlocks || name == "set_config"
}

//! Plan cases: statements and how they are planned, as text files that a DBA could read, in `tests/plans/`.
//!
//! A file begins with a declaration of shards, tables, views and functions (see [`declare`]), then come cases: the
//! statement, maybe `types` and `bind` lines, `----`, and the plan or refusal. `UPDATE_EXPECT=1` rewrites the latter.

use pgring::planner::{self, Binding, Context, CopyRoute, Hint, PlanError, Template, template};
use pgring::sql::copy::CopyDirection;
use pgring::sql::lex;
use pgring::sql::lex::LexLimits;
use pgring::sql::statement::{self, Statement};
use pgring::topology::key_value::KeyType;
use pgring::topology::schema::{
    Collation, Column, ColumnDefault, Declared, Event, Expression, Function, Placement, Relation,
    RelationKind, Rule, Schema, TEMPORARY, Trigger, TriggerFunction, Unique, Volatility,
};
use pgring::topology::snapshot::{Membership, Shard, SlotOwner, Topology};
use pgring::topology::{Epoch, SLOT_COUNT, ShardId};
use pgring::wire::error_response::ErrorReply;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// A type by its name: OID, as `format_type` prints it, whether it collates.
fn type_named(name: &str) -> (u32, &str, bool) {
    match name {
        "int2" => (21, "smallint", false),
        "int4" => (23, "integer", false),
        "int8" => (20, "bigint", false),
        "text" => (25, "text", true),
        "varchar" => (1043, "character varying", true),
        "uuid" => (2950, "uuid", false),
        "numeric" => (1700, "numeric", false),
        "date" => (1082, "date", false),
        "timestamp" => (1114, "timestamp without time zone", false),
        "timestamptz" => (1184, "timestamp with time zone", false),
        "bool" => (16, "boolean", false),
        "float8" => (701, "double precision", false),
        "jsonb" => (3802, "jsonb", false),
        "int8[]" => (1016, "bigint[]", false),
        "int4[]" => (1007, "integer[]", false),
        other => panic!("no type {other}"),
    }
}

/// One column: `name type [C] [key] [serial] [notnull] [= default]`.
fn column(text: &str) -> (Column, bool) {
    let (declared, default) = match text.split_once('=') {
        Some((declared, default)) => (declared, Some(default.trim())),
        None => (text, None),
    };
    let words: Vec<&str> = declared.split_whitespace().collect();
    let (type_oid, type_name, collates) = type_named(words[1]);
    let default = match default {
        Some(default) => ColumnDefault::Expression(default.into()),
        None if words.contains(&"serial") => ColumnDefault::Sequence,
        None if words.contains(&"generated") => ColumnDefault::Generated,
        None => ColumnDefault::Null,
    };
    let collation = match (collates, words.contains(&"C")) {
        (false, _) => Collation::None,
        (true, true) => Collation::Bytes,
        (true, false) => Collation::Other,
    };
    let column = Column {
        name: words[0].into(),
        type_oid,
        type_name: type_name.into(),
        collation,
        collation_name: (collation == Collation::Bytes).then(|| "pg_catalog.\"C\"".into()),
        default,
        not_null: words.contains(&"notnull"),
    };
    (column, words.contains(&"key"))
}

/// Reads the head of a file, one thing a line:
///
/// ```text
/// shards s0 s1 …
/// gap 0..100                      slots without an owner
/// sharded orders: id int8 serial, customer_id int8 key
/// reference countries: code text C
/// local settings: name text       on the first shard
/// temporary t: id int4            of the session, on the first shard
/// sharded old new: id int8 key    declared, and not made yet
/// sharded part of orders: …       a partition, not declared itself
/// view v: id int8                 over sharded tables
/// function f volatile procedural  in schema public; `builtin` puts it into pg_catalog
/// operator === stable procedural  in schema public
/// cast pair volatile procedural   to the type `pair`
/// query v: SELECT f()             of a view; one that was not declared is over reference tables
/// ```
///
/// and what hangs on the tables before it (see [`attach`]).
fn declare(head: &str) -> Topology {
    let mut shards = Vec::new();
    let mut schema = Schema::default();
    let mut tables: HashMap<Arc<str>, Arc<Relation>> = HashMap::new();
    let mut gap = 0..0;
    let mut has_foreign_rows = false;
    let mut temporary = Vec::new();
    builtins(&mut schema);
    for line in head
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (kind, rest) = line.split_once(' ').expect("a kind and the rest");
        if attach(kind, rest, &mut tables) {
            continue;
        }
        if kind == "query" {
            let (name, text) = rest.split_once(": ").expect("a query");
            let query = Expression {
                name: name.into(),
                text: text.into(),
            };
            let known: HashSet<Arc<str>> = tables.keys().cloned().collect();
            let view = tables.entry(name.into()).or_insert_with(|| {
                let (kind, placement) = (RelationKind::View, Placement::Reference);
                Arc::new(Relation::new("public", name, kind, placement))
            });
            let view = Arc::make_mut(view);
            // What `pg_depend` says: here, all words of it that are tables.
            let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let reads = words.filter(|word| known.contains(*word) && *word != name);
            view.reads = reads.map(|word| ("public".into(), word.into())).collect();
            view.query = Some(text.into());
            view.queries = vec![query];
            continue;
        }
        let (head, columns) = rest.split_once(':').unwrap_or((rest, ""));
        let (name, more) = head.split_once(' ').unwrap_or((head, ""));
        let more: Vec<&str> = more.split(' ').collect();
        let read: Vec<(Column, bool)> = columns
            .split(',')
            .filter(|text| !text.trim().is_empty())
            .map(column)
            .collect();
        let key = read.iter().position(|(_, key)| *key);
        let columns: Vec<Column> = read.into_iter().map(|(column, _)| column).collect();
        let placement = match kind {
            "shards" => {
                shards = rest
                    .split_whitespace()
                    .map(|name| Shard {
                        name: name.into(),
                        epoch: Epoch(1),
                        membership: Membership::Whole,
                        rows_since: 0,
                        fences: Arc::default(),
                    })
                    .collect();
                continue;
            }
            "foreign" => {
                has_foreign_rows = rest == "rows";
                continue;
            }
            "gap" => {
                let (from, to) = rest.split_once("..").expect("from..to");
                gap = from.parse().expect("a slot")..to.parse().expect("a slot");
                continue;
            }
            "function" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let function = function(&words[1..]);
                if words.contains(&"builtin") {
                    schema.builtin_functions.insert(words[0].into(), function);
                } else {
                    schema
                        .user_functions
                        .entry("public".into())
                        .or_default()
                        .insert(words[0].into(), function);
                }
                continue;
            }
            "operator" | "cast" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let map = match kind {
                    "cast" => &mut schema.casts,
                    _ => schema.operators.entry("public".into()).or_default(),
                };
                map.insert(words[0].into(), function(&words[1..]));
                continue;
            }
            "sharded" => {
                let key = key.expect("a key");
                let family = KeyType::of_column(&columns[key])
                    .expect("a key type")
                    .family();
                Placement::Sharded { key, family }
            }
            "reference" => Placement::Reference,
            "local" | "temporary" => Placement::Local(ShardId(0)),
            "view" => Placement::View,
            other => panic!("no kind {other}"),
        };
        let declared = match &placement {
            Placement::Sharded { key, .. } => Some(Declared::Sharded {
                key: columns[*key].name.clone(),
                unique_per_shard: false,
            }),
            Placement::Reference => Some(Declared::Reference),
            Placement::Local(_) | Placement::Catalog | Placement::View => None,
        };
        let declared = declared
            .filter(|_| !more.contains(&"of"))
            .map(|declared| (("public".into(), name.into()), declared));
        schema.declared.extend(declared);
        if more.contains(&"new") {
            continue;
        }
        if kind == "temporary" {
            temporary.push(Relation {
                columns,
                ..Relation::new(TEMPORARY, name, RelationKind::Table, placement)
            });
            continue;
        }
        let kind = if placement == Placement::View {
            RelationKind::View
        } else {
            RelationKind::Table
        };
        tables.insert(
            name.into(),
            Arc::new(Relation {
                columns,
                parents: match more.as_slice() {
                    ["of", parent] => vec![("public".into(), (*parent).into())],
                    _ => Vec::new(),
                },
                ..Relation::new("public", name, kind, placement)
            }),
        );
    }
    schema.relations.insert("public".into(), tables);
    for (catalog, name) in [("pg_catalog", "pg_class"), ("information_schema", "tables")] {
        let relation = Relation::new(catalog, name, RelationKind::Table, Placement::Catalog);
        schema
            .relations
            .entry(catalog.into())
            .or_default()
            .insert(name.into(), Arc::new(relation));
    }
    if !temporary.is_empty() {
        schema.add_temporary(&temporary, ShardId(0));
    }
    let count = shards.len();
    let owner = |slot: usize| {
        if gap.contains(&slot) {
            SlotOwner::Gap
        } else {
            SlotOwner::Shard(ShardId((slot * count / SLOT_COUNT) as u16))
        }
    };
    Topology {
        generation: 0,
        has_foreign_rows,
        in_transit: None,
        cluster: "test".into(),
        shards,
        owners: (0..SLOT_COUNT).map(owner).collect(),
        default_shard: ShardId(0),
        schema: Arc::new(schema),
    }
}

/// What hangs on a table:
///
/// ```text
/// trigger t on orders insert update: BEGIN … END     in PL/pgSQL; of a function f as `trigger t on orders insert = c f x`
/// when t on orders: new.id > 0                      its condition
/// unique u on orders: id, note                      with `primary`, `constraint` or `partial` after `on orders`
/// per_shard u on orders                             unique_per_shard
/// policy p on orders: expression
/// check c on orders: expression
/// rule r on orders insert: CREATE RULE …
/// ```
fn attach(kind: &str, rest: &str, tables: &mut HashMap<Arc<str>, Arc<Relation>>) -> bool {
    let kinds = [
        "trigger",
        "when",
        "unique",
        "per_shard",
        "policy",
        "check",
        "rule",
    ];
    if !kinds.contains(&kind) {
        return false;
    }
    let (head, text) = rest.split_once(": ").unwrap_or((rest, ""));
    let (head, external) = head.split_once(" = ").unwrap_or((head, ""));
    let words: Vec<&str> = head.split(' ').collect();
    let [name, "on", table, more @ ..] = words.as_slice() else {
        panic!("no name on table: {rest}");
    };
    let relation = Arc::make_mut(tables.get_mut(*table).expect("a table"));
    let expression = Expression {
        name: (*name).into(),
        text: text.into(),
    };
    let events = more.iter().filter_map(|word| match *word {
        "insert" => Some(Event::Insert),
        "update" => Some(Event::Update),
        "delete" => Some(Event::Delete),
        "truncate" => Some(Event::Truncate),
        _ => None,
    });
    let mut events: Vec<Event> = events.collect();
    match kind {
        "trigger" => {
            let external: Vec<&str> = external.split_whitespace().collect();
            let function = match external.as_slice() {
                [] => ["public", "plpgsql", "touch", text],
                ["internal", name, ..] => ["pg_catalog", "internal", name, ""],
                [language, name, ..] => ["public", language, name, ""],
                [_] => panic!("a language and a function"),
            };
            let [schema, language, function, body] = function.map(Arc::from);
            relation.triggers.push(Trigger {
                name: (*name).into(),
                table: ("public".into(), (*table).into()),
                events,
                arguments: external.iter().skip(2).map(|word| (*word).into()).collect(),
                condition: None,
                function: Arc::new(TriggerFunction {
                    schema,
                    name: function,
                    language,
                    body,
                }),
            });
        }
        "when" => {
            let mut triggers = relation.triggers.iter_mut();
            let trigger = triggers.find(|trigger| &*trigger.name == *name);
            trigger.expect("a trigger").condition = Some(expression.text);
        }
        "unique" => relation.unique.push(Unique {
            name: expression.name,
            is_primary: more.contains(&"primary"),
            is_constraint: more.contains(&"primary") || more.contains(&"constraint"),
            columns: text
                .split(", ")
                .filter(|name| !name.is_empty())
                .map(|name| relation.column(name).expect("a column"))
                .collect(),
            is_partial: more.contains(&"partial"),
        }),
        "per_shard" => relation.unique_per_shard = true,
        "policy" => relation.policies.push(expression),
        "check" => relation.checks.push(Expression {
            name: format!("check constraint {name}").into(),
            text: text.into(),
        }),
        _ => relation.rules.push(Rule {
            event: events.pop().expect("an event"),
            definition: expression,
        }),
    }
    true
}

fn function(words: &[&str]) -> Function {
    let has = |word: &str| words.contains(&word);
    Function {
        volatility: if has("immutable") {
            Volatility::Immutable
        } else if has("stable") {
            Volatility::Stable
        } else {
            Volatility::Volatile
        },
        procedural: has("procedural"),
        aggregate: has("aggregate"),
        window: has("window"),
        set_returning: has("set"),
        bodies: Vec::new(),
    }
}

fn builtins(schema: &mut Schema) {
    let groups: [(&[&str], &str); 6] = [
        (
            &[
                "count",
                "sum",
                "avg",
                "min",
                "max",
                "array_agg",
                "variance",
                "var_pop",
                "stddev",
                "string_agg",
                "bool_or",
            ],
            "immutable aggregate",
        ),
        (&["row_number", "rank", "lag"], "immutable window"),
        (
            &[
                "lower",
                "upper",
                "abs",
                "length",
                "mod",
                "round",
                "unnest",
                "date_part",
                "concat_ws",
            ],
            "immutable",
        ),
        (
            &[
                "now",
                "statement_timestamp",
                "age",
                "to_char",
                "current_setting",
                "current_database",
                "pg_table_is_visible",
            ],
            "stable",
        ),
        (
            &[
                "random",
                "clock_timestamp",
                "gen_random_uuid",
                "nextval",
                "setval",
                "currval",
                "lastval",
                "set_config",
                "pg_notify",
                "pg_advisory_lock",
                "pg_advisory_xact_lock",
                "pg_advisory_unlock_all",
                "lo_create",
                "query_to_xml",
            ],
            "volatile",
        ),
        (&["generate_series"], "immutable set"),
    ];
    for (names, words) in groups {
        let words: Vec<&str> = words.split(' ').collect();
        for name in names {
            schema
                .builtin_functions
                .insert((*name).into(), function(&words));
        }
    }
}

/// A value of a `bind` line: `null`, text, or `int8:42` and the like for binary.
fn bound(text: &str) -> (Option<Vec<u8>>, i16) {
    let array = |elements: &str, oid: u32, width: usize| {
        let elements: Vec<&str> = elements
            .split(';')
            .filter(|element| !element.is_empty())
            .collect();
        let mut bytes = Vec::new();
        for word in [1, 0, oid, elements.len() as u32, 1] {
            bytes.extend(word.to_be_bytes());
        }
        for element in elements {
            let number: i64 = element.parse().expect("an integer");
            bytes.extend((width as u32).to_be_bytes());
            bytes.extend(&number.to_be_bytes()[8 - width..]);
        }
        bytes
    };
    match text.split_once(':') {
        _ if text == "null" => (None, 0),
        Some(("int8", value)) => (
            Some(
                value
                    .parse::<i64>()
                    .expect("an int8")
                    .to_be_bytes()
                    .to_vec(),
            ),
            1,
        ),
        Some(("int4", value)) => (
            Some(
                value
                    .parse::<i32>()
                    .expect("an int4")
                    .to_be_bytes()
                    .to_vec(),
            ),
            1,
        ),
        Some(("int8[]", value)) => (Some(array(value, 20, 8)), 1),
        Some(("int4[]", value)) => (Some(array(value, 23, 4)), 1),
        _ => (Some(text.as_bytes().to_vec()), 0),
    }
}

/// Plans one case and says what came of it.
fn plan(topology: &Topology, statement: &str) -> String {
    let search_path: Vec<Arc<str>> = vec!["public".into()];
    let limits = LexLimits {
        tokens_max: 100_000,
        depth_max: 500,
    };
    let mut lines: Vec<&str> = Vec::new();
    let (mut types, mut binds) = (Vec::new(), vec![(Vec::new(), String::new())]);
    let mut is_bound = false;
    let mut hint = None;
    for line in statement.lines() {
        if let Some(rest) = line.strip_prefix("types ") {
            types = rest
                .split(", ")
                .map(|name| if name == "0" { 0 } else { type_named(name).0 })
                .collect();
        } else if let Some(rest) = line.strip_prefix("hint ") {
            match Hint::parse(rest, topology) {
                Ok(parsed) => hint = Some(parsed),
                Err(error) => return format!("error {}: {error}", error.sqlstate()),
            }
        } else if let Some(rest) = line.strip_prefix("bind ") {
            if !std::mem::replace(&mut is_bound, true) {
                binds.clear();
            }
            binds.push((
                rest.split(", ").map(bound).collect(),
                format!("bind {rest}: "),
            ));
        } else {
            lines.push(line);
        }
    }
    let sql = lines.join("\n");
    let context = Context {
        topology,
        search_path: &search_path,
        hint: hint.as_ref(),
        limits: &limits,
    };
    let refused = |error: &PlanError| match error.refusal() {
        Some(code) => format!("refused {code}: {error}"),
        None => format!("error {}: {error}", error.sqlstate()),
    };
    if let Some(said) = placed(&sql, &context, topology, &refused) {
        return said;
    }
    let template = match template(&sql, &types, &context) {
        Ok(template) => template,
        Err(error @ PlanError::Unparsed { .. }) => {
            return format!(
                "{}\n{}",
                refused(&error),
                error.detail().unwrap_or_default()
            );
        }
        Err(error) => return refused(&error),
    };
    let mut out = String::new();
    for (values, prefix) in &binds {
        let formats: Vec<i16> = values.iter().map(|(_, format)| *format).collect();
        let values: Vec<Option<&[u8]>> = values.iter().map(|(value, _)| value.as_deref()).collect();
        let rows = template.fill().map_or(0, |fill| fill.rows as i64);
        let drawn: Vec<i64> = (1..=rows).collect();
        let binding = Binding {
            values: &values,
            formats: &formats,
            preferred: None,
            spread: 1,
            drawn: &drawn,
            cursor: None,
        };
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(prefix);
        match template.plan(&binding, topology) {
            Ok(plan) => out.push_str(&template.describe(&plan, topology).join("\n")),
            Err(error) => match spelled(&sql, &types, &template, &error, &binding, &context) {
                Some(said) => out.push_str(&said),
                None => out.push_str(&refused(&error)),
            },
        }
    }
    out
}

/// The text of a write with sample values, and its plan, if it is refused only as long as they are not there.
fn spelled(
    sql: &str,
    types: &[u32],
    refused: &Template,
    error: &PlanError,
    binding: &Binding<'_>,
    context: &Context<'_>,
) -> Option<String> {
    let by_shard = [Some("volatile-function"), Some("default-differs")];
    if !refused.is_spelled() && !by_shard.contains(&error.refusal()) {
        return None;
    }
    let spelling = planner::spelling(sql, context)?;
    let text = spelling.text(&spelling.sample())?;
    let told = template(&text, types, context).ok()?;
    let plan = told.plan(binding, context.topology).ok()?;
    let plan = told.describe(&plan, context.topology).join("\n");
    Some(format!("spelled out: {text}\n{plan}"))
}

/// Plans a statement that is not a query; `None` if it is one.
fn placed(
    sql: &str,
    context: &Context<'_>,
    topology: &Topology,
    refused: &dyn Fn(&PlanError) -> String,
) -> Option<String> {
    let tokens = lex::lex(sql, context.limits).ok()?;
    let outcome = match statement::classify(sql, &tokens).ok()? {
        Statement::Query(_) => return None,
        Statement::Copy(copy)
            if copy.direction == CopyDirection::From
                && planner::copy_from(&copy, sql, context).is_err()
                && let Some(added) = planner::copy_added(&copy, sql, context) =>
        {
            let placed = placed(&added.sql, context, topology, refused)?;
            return Some(format!("spelled out: {}\n{placed}", added.sql));
        }
        Statement::Copy(copy) if copy.direction == CopyDirection::From => {
            planner::copy_from(&copy, sql, context).map(|route| match route {
                CopyRoute::One(shard) => format!("all rows to {}", topology.shard_name(shard)),
                CopyRoute::AllShards(_) => "all rows to every shard".to_owned(),
                CopyRoute::Split(split) => format!(
                    "rows by {} in column {}; key 42 to {}",
                    split.name,
                    split.column + 1,
                    split.shard(Some(b"42"), false, topology).map_or_else(
                        |error| refused(&error),
                        |shard| topology.shard_name(shard).to_string()
                    )
                ),
            })
        }
        Statement::Copy(copy) => planner::copy_to(&copy, sql, context, None, 1)
            .map(|copied| copied.plan.describe(topology).join("\n")),
        statement => planner::utility(&statement, sql, &tokens, context)
            .map(|plan| plan.describe(topology).join("\n")),
    };
    Some(outcome.unwrap_or_else(|error| refused(&error)))
}

fn run(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("a case file");
    let (head, cases) = text.split_once("\n====\n").expect("a head, then ====");
    let topology = declare(head);
    let mut rewritten = format!("{head}\n====\n");
    let mut failures = Vec::new();
    for case in cases.trim_matches('\n').split("\n\n") {
        let (statement, expected) = case
            .split_once("\n----\n")
            .unwrap_or((case.trim_end_matches("\n----"), ""));
        let (comments, statement): (Vec<&str>, Vec<&str>) =
            statement.lines().partition(|line| line.starts_with('#'));
        let statement = statement.join("\n");
        let mut block = String::new();
        for comment in comments {
            let _ = writeln!(block, "{comment}");
        }
        if statement.is_empty() {
            let _ = write!(rewritten, "\n{block}");
            continue;
        }
        let actual = plan(&topology, &statement);
        let _ = write!(rewritten, "\n{block}{statement}\n----\n{actual}\n");
        if actual.trim_end() != expected.trim_end() {
            failures.push(format!(
                "{}:\n{statement}\nexpected\n{expected}\nactual\n{actual}\n",
                path.display()
            ));
        }
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, rewritten).expect("the case file can be written");
        failures.clear();
    }
    failures
}

#[test]
fn statements_are_planned_as_the_cases_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("tests/plans")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let failures: Vec<String> = paths.iter().flat_map(|path| run(path)).collect();
    assert!(
        failures.is_empty(),
        "{} cases differ; UPDATE_EXPECT=1 rewrites them\n\n{}",
        failures.len(),
        failures.join("\n")
    );
}

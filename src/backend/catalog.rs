//! Loads one shard's catalog into a [`Schema`]: a few queries in one snapshot, then plain assembly. Where rows live is
//! laid over it by [`crate::topology::shard_map`]; here all is as PostgreSQL says. Start at [`load`]; whoever runs
//! [`QUERIES`] in another way has [`assemble`].

use crate::topology::schema::{
    AutomaticCast, Body, Caused, Collation, Column, ColumnDefault, Event, EventTrigger, Expression,
    ForeignKey, Function, Placement, Relation, RelationKind, Rule, Schema, Trigger,
    TriggerFunction, Unique, Volatility,
};
use futures_util::future::try_join_all;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Why a catalog could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The shard did not answer as it should.
    #[error("cannot read the catalog: {}", super::store::reason(.0))]
    Query(#[from] tokio_postgres::Error),
    /// An answer that is not one to the query.
    #[error("cannot read the catalog: column {column} of an answer cannot be understood")]
    Answer {
        /// Its place, from 0.
        column: usize,
    },
}

/// One row of an answer, as text.
#[derive(Debug, Clone)]
pub struct Row(pub Vec<Option<String>>);

impl Row {
    fn try_get<'a, T: Cell<'a>>(&'a self, column: usize) -> Result<T, CatalogError> {
        let text = self.0.get(column).ok_or(CatalogError::Answer { column })?;
        T::read(text.as_deref()).ok_or(CatalogError::Answer { column })
    }
}

/// What a column's text is read as.
trait Cell<'a>: Sized {
    fn read(text: Option<&'a str>) -> Option<Self>;
}

impl<'a> Cell<'a> for &'a str {
    fn read(text: Option<&'a str>) -> Option<Self> {
        text
    }
}

impl<'a> Cell<'a> for Option<&'a str> {
    fn read(text: Option<&'a str>) -> Option<Self> {
        Some(text)
    }
}

impl Cell<'_> for bool {
    fn read(text: Option<&str>) -> Option<Self> {
        match text? {
            "t" => Some(true),
            "f" => Some(false),
            _ => None,
        }
    }
}

macro_rules! number_cells {
    ($($number:ty),*) => {
        $(impl Cell<'_> for $number {
            fn read(text: Option<&str>) -> Option<Self> {
                text?.parse().ok()
            }
        }

        impl Cell<'_> for Vec<$number> {
            fn read(text: Option<&str>) -> Option<Self> {
                let elements = text?.strip_prefix('{')?.strip_suffix('}')?;
                let elements = elements.split(',').filter(|element| !element.is_empty());
                elements.map(|element| element.parse().ok()).collect()
            }
        })*
    };
}

number_cells!(i16, u32);

/// A relation's name: schema, then name.
type Name = (Arc<str>, Arc<str>);

/// Changes whenever something that [`load`] reads may have changed; says nothing else. A few milliseconds.
///
/// # Errors
/// What the shard says.
pub async fn fingerprint(client: &Client) -> Result<String, CatalogError> {
    let row = client.query_typed_one(FINGERPRINT, &[]).await?;
    Ok(row.try_get(0)?)
}

// Row versions of what users made: `xmin` and `ctid` change with each DDL, and not with VACUUM, ANALYZE or temporary tables.
const FINGERPRINT: &str = "
    WITH relation AS NOT MATERIALIZED (
      SELECT c.oid, c.xmin, c.ctid FROM pg_catalog.pg_class c WHERE c.oid >= 16384 AND c.relpersistence <> 't'
    ), version(row) AS (
      SELECT 'c' || oid::text || xmin::text || ctid::text FROM relation
      UNION ALL SELECT 'a' || a.attrelid::text || a.attnum::text || a.xmin::text || a.ctid::text
        FROM pg_catalog.pg_attribute a JOIN relation r ON r.oid = a.attrelid
      UNION ALL SELECT 'd' || d.oid::text || d.xmin::text FROM pg_catalog.pg_attrdef d JOIN relation r ON r.oid = d.adrelid
      UNION ALL SELECT 'i' || i.indexrelid::text || i.xmin::text
        FROM pg_catalog.pg_index i JOIN relation r ON r.oid = i.indexrelid
      UNION ALL SELECT 'g' || t.oid::text || t.xmin::text || t.ctid::text
        FROM pg_catalog.pg_trigger t JOIN relation r ON r.oid = t.tgrelid
      UNION ALL SELECT 'k' || k.oid::text || k.xmin::text || k.ctid::text
        FROM pg_catalog.pg_constraint k LEFT JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
        WHERE k.oid >= 16384 AND c.relpersistence IS DISTINCT FROM 't'
      UNION ALL SELECT 'l' || oid::text || xmin::text || ctid::text FROM pg_catalog.pg_policy
      UNION ALL SELECT 'q' || oid::text || xmin::text || ctid::text FROM pg_catalog.pg_operator WHERE oid >= 16384
      UNION ALL SELECT 's' || oid::text || xmin::text FROM pg_catalog.pg_cast WHERE oid >= 16384
      UNION ALL SELECT 'e' || oid::text || xmin::text || ctid::text FROM pg_catalog.pg_event_trigger
      UNION ALL SELECT 'h' || h.inhrelid::text || h.inhparent::text
        FROM pg_catalog.pg_inherits h JOIN relation r ON r.oid = h.inhrelid
      UNION ALL SELECT 'r' || w.oid::text || w.xmin::text || w.ctid::text
        FROM pg_catalog.pg_rewrite w JOIN relation r ON r.oid = w.ev_class
      UNION ALL SELECT 'p' || oid::text || xmin::text || ctid::text FROM pg_catalog.pg_proc WHERE oid >= 16384
      UNION ALL SELECT 't' || oid::text || xmin::text || ctid::text
        FROM pg_catalog.pg_type WHERE oid >= 16384 AND typtype = 'd'
      UNION ALL SELECT 'o' || oid::text || xmin::text FROM pg_catalog.pg_collation WHERE oid >= 16384
      UNION ALL SELECT 'n' || oid::text || xmin::text || ctid::text
        FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
    )
    SELECT pg_catalog.current_setting('server_version_num') || ':' || pg_catalog.count(*)::text || ':'
           || coalesce(pg_catalog.sum(pg_catalog.hashtextextended(row, 0)), 0)::text
    FROM version";

/// Loads the catalog as of one moment; `version` is 0 and every placement [`Placement::Catalog`].
///
/// # Errors
/// What the shard says.
pub async fn load(client: &mut Client) -> Result<Schema, CatalogError> {
    let transaction = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    transaction.batch_execute(SETTINGS).await?;
    let answers = try_join_all(QUERIES.map(|sql| transaction.simple_query(sql))).await?;
    transaction.commit().await?;
    let rows = |answer: Vec<SimpleQueryMessage>| -> Vec<Row> {
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(Row((0..row.len())
                .map(|column| row.get(column).map(str::to_owned))
                .collect())),
            _ => None,
        });
        rows.collect()
    };
    assemble(answers.into_iter().map(rows).collect())
}

/// Before [`QUERIES`], for the rest of their transaction: expressions are printed with every name qualified, and constants
/// so that any session reads them alike.
pub const SETTINGS: &str = "
    SELECT set_config('search_path', 'pg_catalog', true), set_config('datestyle', 'ISO, YMD', true),
           set_config('intervalstyle', 'postgres', true), set_config('extra_float_digits', '1', true),
           set_config('quote_all_identifiers', 'off', true)";

/// What tells of a catalog, to be asked in one snapshot and under [`SETTINGS`].
pub const QUERIES: [&str; 18] = [
    RELATIONS,
    COLUMNS,
    DOMAINS,
    UNIQUE,
    PARENTS,
    READS,
    FUNCTIONS,
    FOREIGN_KEYS,
    TRIGGERS,
    REWRITES,
    POLICIES,
    CHECKS,
    OPERATORS,
    CASTS,
    BODIES,
    INDEXES,
    AUTOMATIC_CASTS,
    EVENT_TRIGGERS,
];

/// The catalog that the answers to [`QUERIES`] tell of; see [`load`].
///
/// # Errors
/// They are answers to other questions.
pub fn assemble(answers: Vec<Vec<Row>>) -> Result<Schema, CatalogError> {
    let Ok(
        [
            relations,
            columns,
            domains,
            unique,
            parents,
            reads,
            functions,
            foreign_keys,
            triggers,
            rewrites,
            policies,
            checks,
            operators,
            casts,
            bodies,
            indexes,
            automatic_casts,
            event_triggers,
        ],
    ) = <[Vec<Row>; QUERIES.len()]>::try_from(answers)
    else {
        return Err(CatalogError::Answer { column: 0 });
    };
    let mut draft = Draft::relations(&relations)?;
    draft.columns(&columns, &domains, &checks)?;
    draft.unique(&unique)?;
    draft.foreign_keys(&foreign_keys)?;
    draft.triggers(&triggers)?;
    draft.rewrites(&rewrites)?;
    draft.policies(&policies)?;
    draft.checks(&checks)?;
    draft.checks(&indexes)?;
    draft.parents(&parents)?;
    draft.reads(&reads)?;
    let mut schema = draft.into_schema();
    let bodies = Bodies::read(&bodies)?;
    add_domains(&mut schema, &domains, &checks)?;
    add_functions(&mut schema, &functions, &bodies)?;
    for row in &operators {
        let within = schema.operators.entry(row.try_get::<&str>(0)?.into());
        let symbol = row.try_get::<&str>(1)?.into();
        within.or_default().insert(symbol, called(row, 2, &bodies)?);
    }
    for row in &casts {
        let called = called(row, 1, &bodies)?;
        schema.casts.insert(row.try_get::<&str>(0)?.into(), called);
    }
    for row in &automatic_casts {
        let calls: bool = row.try_get(5)?;
        schema.automatic_casts.push(AutomaticCast {
            name: row.try_get::<&str>(0)?.into(),
            is_implicit: row.try_get(1)?,
            function: calls.then(|| called(row, 2, &bodies)).transpose()?,
            types: row.try_get(6)?,
        });
    }
    for row in &event_triggers {
        let text = |column: usize| row.try_get::<&str>(column).map(Arc::<str>::from);
        let tags = row.try_get::<&str>(1)?;
        schema.event_triggers.push(EventTrigger {
            name: text(0)?,
            tags: tags.lines().map(Arc::from).collect(),
            function: TriggerFunction {
                schema: text(2)?,
                name: text(3)?,
                language: text(4)?,
                body: text(5)?,
            },
        });
    }
    Ok(schema)
}

const RELATIONS: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND n.nspname <> 'pg_toast'";

const COLUMNS: &str = "
    SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attcollation = 0 THEN 'none'
                WHEN NOT o.collisdeterministic THEN 'nondeterministic'
                WHEN coalesce(nullif(o.collprovider, 'd'), d.datlocprovider) = 'b' THEN 'bytes'
                WHEN coalesce(nullif(o.collprovider, 'd'), d.datlocprovider) = 'c'
                 AND CASE o.collprovider WHEN 'd' THEN d.datcollate ELSE o.collcollate END
                     IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8') THEN 'bytes'
                ELSE 'other' END,
           a.attidentity <> '', a.attgenerated <> '', pg_get_expr(e.adbin, e.adrelid),
           CASE WHEN a.attcollation <> t.typcollation
                THEN format('%I.%I', s.nspname, o.collname) END,
           a.attnotnull
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_database d ON d.datname = current_database()
    LEFT JOIN pg_collation o ON o.oid = a.attcollation
    LEFT JOIN pg_namespace s ON s.oid = o.collnamespace
    LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'pgring')
    ORDER BY a.attrelid, a.attnum";

const DOMAINS: &str = "
    SELECT oid, typbasetype, pg_get_expr(typdefaultbin, 0), typname::text
    FROM pg_type WHERE typtype = 'd' AND oid >= 16384";

// A key column of 0 is an expression, or is compared by another operator or collation than its sharding key would be.
const UNIQUE: &str = "
    SELECT i.indrelid, x.relname::text, i.indisprimary, k.oid IS NOT NULL,
           ARRAY(SELECT CASE WHEN o.collisdeterministic IS NOT FALSE AND (k.contype IS DISTINCT FROM 'x' OR p.oprname = '=')
                             THEN i.indkey[n] ELSE 0::int2 END
                 FROM generate_series(0, i.indnkeyatts - 1) n
                 LEFT JOIN pg_collation o ON o.oid = i.indcollation[n]
                 LEFT JOIN pg_operator p ON p.oid = k.conexclop[n + 1]
                 ORDER BY n),
           i.indpred IS NOT NULL
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
    WHERE (i.indisunique OR i.indisexclusion) AND i.indisready AND i.indrelid >= 16384";

const FOREIGN_KEYS: &str = "
    SELECT conrelid, conname::text, conkey, confrelid, confkey, confupdtype::text, confdeltype::text, conparentid = 0
    FROM pg_constraint WHERE contype = 'f'";

// A condition that is not found is one that cannot be read.
const TRIGGERS: &str = "
    SELECT t.tgrelid, t.tgname::text, t.tgtype,
           CASE WHEN t.tgqual IS NOT NULL THEN
             coalesce(substring(pg_get_triggerdef(t.oid) FROM ' WHEN \\((.*)\\) EXECUTE (?:FUNCTION|PROCEDURE) '), '''') END,
           encode(t.tgargs, 'escape'), n.nspname::text, p.proname::text, l.lanname::text, p.prosrc
    FROM pg_trigger t
    JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND n.nspname <> 'pgring'";

const REWRITES: &str = "
    SELECT ev_class, rulename::text, ev_type::text,
           CASE ev_type WHEN '1' THEN pg_get_viewdef(ev_class) ELSE pg_get_ruledef(w.oid) END
    FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class
    WHERE ev_class >= 16384 AND ev_enabled IN ('O', 'A') AND c.relpersistence <> 't'";

const POLICIES: &str = "
    SELECT p.polrelid, p.polname::text,
           concat_ws(' AND ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
    WHERE c.relrowsecurity";

const CHECKS: &str = "
    SELECT conrelid, contypid, 'check constraint ' || conname, pg_get_expr(conbin, conrelid)
    FROM pg_constraint WHERE contype = 'c' AND oid >= 16384";

// Only what calls functions, or uses operators, that users made: all others in indexes are immutable.
const INDEXES: &str = "
    SELECT i.indrelid, 0::oid, 'index ' || c.relname,
           concat_ws(' AND ', pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid))
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid >= 16384 AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) AND EXISTS (
      SELECT FROM pg_depend d
      WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
        AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass))";

// Of functions, and of aggregates those of what they are made of.
const BODIES: &str = "
    WITH source(oid, language, body) AS (
      SELECT p.oid, l.lanname::text, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)
      FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
      WHERE p.oid >= 16384 AND l.lanname NOT IN ('internal', 'c'))
    SELECT oid, language, body FROM source
    UNION ALL
    SELECT a.aggfnoid::oid, s.language, s.body
    FROM pg_aggregate a JOIN source s ON s.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
                                                   a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)";

const OPERATORS: &str = "
    SELECT n.nspname::text, o.oprname::text, max(p.provolatile::text), bool_or(l.lanname NOT IN ('internal', 'c')),
           array_agg(p.oid)
    FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
    JOIN pg_proc p ON p.oid = o.oprcode JOIN pg_language l ON l.oid = p.prolang
    WHERE o.oid >= 16384
    GROUP BY 1, 2";

const CASTS: &str = "
    SELECT s.name, max(p.provolatile::text), bool_or(l.lanname NOT IN ('internal', 'c')), array_agg(p.oid)
    FROM pg_cast c JOIN pg_type t ON t.oid = c.casttarget
    JOIN pg_proc p ON p.oid = c.castfunc JOIN pg_language l ON l.oid = p.prolang
    CROSS JOIN LATERAL (VALUES (t.typname::text), (format_type(t.oid, NULL))) s(name)
    WHERE c.oid >= 16384
    GROUP BY 1";

// With a type that a user made go its arrays, ranges, domains and the types with it inside. The row type of a table is
// written by the table's name.
const AUTOMATIC_CASTS: &str = "
    WITH RECURSIVE automatic AS (
      SELECT c.*, CASE WHEN s.oid >= 16384 THEN s.oid WHEN t.oid >= 16384 THEN t.oid END AS own
      FROM pg_cast c JOIN pg_type s ON s.oid = c.castsource JOIN pg_type t ON t.oid = c.casttarget
      WHERE c.oid >= 16384 AND c.castcontext IN ('i', 'a')
        AND (c.castfunc <> 0 OR (c.castmethod = 'i' AND s.typcategory = 'S' AND t.typcategory = 'D'))
    ), holding(cast_oid, type) AS (
      SELECT a.oid, a.own
      FROM automatic a JOIN pg_type t ON t.oid = a.own LEFT JOIN pg_class r ON r.oid = t.typrelid
      WHERE r.relkind IS NULL OR r.relkind = 'c'
      UNION
      SELECT h.cast_oid, m.type
      FROM holding h CROSS JOIN LATERAL (
        SELECT t.oid FROM pg_type t WHERE h.type IN (t.typelem, t.typbasetype)
        UNION ALL
        SELECT t.oid FROM pg_attribute a JOIN pg_type t ON t.typrelid = a.attrelid WHERE a.atttypid = h.type
        UNION ALL
        SELECT unnest(ARRAY[r.rngtypid, r.rngmultitypid]) FROM pg_range r WHERE r.rngsubtype = h.type) m(type))
    SELECT format('the cast from %s to %s', format_type(a.castsource, NULL), format_type(a.casttarget, NULL)),
           a.castcontext = 'i', coalesce(p.provolatile::text, 's'), coalesce(l.lanname NOT IN ('internal', 'c'), false),
           ARRAY[a.castfunc], a.castfunc <> 0,
           ARRAY(SELECT h.type FROM holding h WHERE h.cast_oid = a.oid ORDER BY 1)
    FROM automatic a LEFT JOIN pg_proc p ON p.oid = a.castfunc LEFT JOIN pg_language l ON l.oid = p.prolang
    ORDER BY a.oid";

// The triggers of logins are fired by no command.
const EVENT_TRIGGERS: &str = "
    SELECT e.evtname::text, coalesce(array_to_string(e.evttags, chr(10)), ''),
           n.nspname::text, p.proname::text, l.lanname::text, coalesce(p.prosrc, '')
    FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
    JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE e.evtenabled IN ('O', 'A') AND e.evtevent <> 'login'
    ORDER BY 1";

const PARENTS: &str = "SELECT inhrelid, inhparent FROM pg_inherits";

const READS: &str = "
    SELECT DISTINCT r.ev_class, d.refobjid
    FROM pg_rewrite r
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                    AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
    WHERE r.rulename = '_RETURN' AND r.ev_class >= 16384";

// Built-in functions in SQL read catalogs at most; a few in C run queries that they are given. An aggregate is what its
// functions are.
const FUNCTIONS: &str = "
    SELECT n.nspname::text, p.proname::text, max(greatest(p.provolatile::text, f.provolatile)),
           bool_or(CASE WHEN p.oid < 16384
                        THEN p.proname ~ '^(query|table|cursor|schema|database)_to_xml|^ts_(stat|rewrite)$'
                        ELSE l.lanname NOT IN ('internal', 'c') OR coalesce(f.procedural, false) END),
           bool_or(p.prokind = 'a'), bool_or(p.prokind = 'w'), bool_or(p.proretset),
           array_agg(p.oid)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    LEFT JOIN LATERAL (
      SELECT max(o.provolatile::text), bool_or(m.lanname NOT IN ('internal', 'c'))
      FROM pg_aggregate a JOIN pg_proc o ON o.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
                                                      a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
      JOIN pg_language m ON m.oid = o.prolang
      WHERE a.aggfnoid = p.oid) f(provolatile, procedural) ON p.prokind = 'a' AND p.oid >= 16384
    WHERE n.nspname <> 'pgring'
    GROUP BY 1, 2";

/// A catalog on its way from rows to a [`Schema`].
struct Draft {
    relations: HashMap<u32, DraftRelation>,
}

struct DraftRelation {
    name: Name,
    kind: RelationKind,
    columns: Vec<Column>,
    attribute_numbers: Vec<i16>,
    unique: Vec<Unique>,
    foreign_keys: Vec<DraftForeignKey>,
    triggers: Vec<DraftTrigger>,
    rules: Vec<Rule>,
    policies: Vec<Expression>,
    checks: Vec<Expression>,
    query: Option<Arc<str>>,
    parents: Vec<u32>,
    reads: Vec<u32>,
}

struct DraftForeignKey {
    key: ForeignKey,
    table: u32,
    /// What it does to this relation's rows.
    actions: Vec<Action>,
    /// Whether it is not a part of one on a partitioned table.
    is_whole: bool,
}

/// What a foreign key does.
struct Action {
    /// What happens to the referenced row.
    cause: Event,
    /// What is done to the rows that reference it.
    effect: Event,
    /// The defaults that they get, by their columns' names.
    defaults: Vec<Expression>,
}

impl Action {
    fn plain(cause: Event, effect: Event) -> Self {
        Self {
            cause,
            effect,
            defaults: Vec::new(),
        }
    }
}

struct DraftTrigger {
    trigger: Trigger,
    for_each_row: bool,
}

/// What writes of a relation set off, there and elsewhere.
#[derive(Default)]
struct Fired {
    triggers: Vec<Trigger>,
    caused: Vec<Caused>,
}

impl Fired {
    fn trigger(&mut self, trigger: &Trigger, written: Event) {
        let mut known = self.triggers.iter_mut();
        let known = known.find(|known| known.name == trigger.name && known.table == trigger.table);
        match known {
            Some(known) if known.events.contains(&written) => {}
            Some(known) => known.events.push(written),
            None => self.triggers.push(Trigger {
                events: vec![written],
                ..trigger.clone()
            }),
        }
    }

    fn evaluates(
        &mut self,
        table: &Name,
        expression: &Expression,
        is_stored: bool,
        written: Event,
    ) {
        let mut known = self.caused.iter_mut();
        let known = known.find(|known| known.table == *table && known.expression == *expression);
        match known {
            Some(known) if known.events.contains(&written) => {}
            Some(known) => known.events.push(written),
            None => self.caused.push(Caused {
                table: table.clone(),
                expression: expression.clone(),
                is_stored,
                events: vec![written],
            }),
        }
    }
}

impl DraftRelation {
    fn is_system(&self) -> bool {
        matches!(&*self.name.0, "pg_catalog" | "information_schema")
    }

    fn column_at(&self, attribute_number: i16) -> Option<usize> {
        self.attribute_numbers.binary_search(&attribute_number).ok()
    }

    /// What `DEFAULT` is for those of its columns that have one.
    fn defaults(&self, columns: &[Arc<str>]) -> Vec<Expression> {
        let columns = self
            .columns
            .iter()
            .filter(|column| columns.contains(&column.name));
        let defaults = columns.filter_map(|column| {
            let text = match &column.default {
                ColumnDefault::Expression(text) => text.clone(),
                ColumnDefault::Sequence => "nextval()".into(),
                ColumnDefault::Generated | ColumnDefault::Null => return None,
            };
            let name = format!("default of {}", column.name).into();
            Some(Expression { name, text })
        });
        defaults.collect()
    }
}

impl Draft {
    fn relations(rows: &[Row]) -> Result<Self, CatalogError> {
        let mut schemas = HashSet::new();
        let mut relations = HashMap::with_capacity(rows.len());
        for row in rows {
            let kind = match row.try_get(3)? {
                "r" | "p" => RelationKind::Table,
                "v" => RelationKind::View,
                "m" => RelationKind::MaterializedView,
                "S" => RelationKind::Sequence,
                "f" => RelationKind::ForeignTable,
                _ => RelationKind::Other,
            };
            let relation = DraftRelation {
                name: (
                    shared(&mut schemas, row.try_get(1)?),
                    row.try_get::<&str>(2)?.into(),
                ),
                kind,
                columns: Vec::new(),
                attribute_numbers: Vec::new(),
                unique: Vec::new(),
                foreign_keys: Vec::new(),
                triggers: Vec::new(),
                rules: Vec::new(),
                policies: Vec::new(),
                checks: Vec::new(),
                query: None,
                parents: Vec::new(),
                reads: Vec::new(),
            };
            relations.insert(row.try_get(0)?, relation);
        }
        Ok(Self { relations })
    }

    fn columns(
        &mut self,
        rows: &[Row],
        domains: &[Row],
        checks: &[Row],
    ) -> Result<(), CatalogError> {
        let checks_of = checks_of_domains(checks)?;
        let mut domain_of: HashMap<u32, (u32, Option<&str>)> = HashMap::new();
        for row in domains {
            domain_of.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
        }
        let mut texts = HashSet::new();
        for row in rows {
            let Some(relation) = self.relations.get_mut(&row.try_get(0)?) else {
                continue;
            };
            let mut type_oid: u32 = row.try_get(3)?;
            let mut expression: Option<&str> = row.try_get(8)?;
            while let Some((base, default)) = domain_of.get(&type_oid) {
                let checks = checks_of.get(&type_oid);
                relation
                    .checks
                    .extend(checks.into_iter().flatten().cloned());
                type_oid = *base;
                expression = expression.or(*default);
            }
            let default = match expression {
                _ if row.try_get(6)? => ColumnDefault::Sequence,
                Some(text) if row.try_get(7)? => {
                    relation.checks.push(Expression {
                        name: format!("generated column {}", row.try_get::<&str>(2)?).into(),
                        text: text.into(),
                    });
                    ColumnDefault::Generated
                }
                Some(text) if is_sequence(text) => ColumnDefault::Sequence,
                Some(text) => ColumnDefault::Expression(shared(&mut texts, text)),
                None => ColumnDefault::Null,
            };
            let collation = match row.try_get(5)? {
                "none" => Collation::None,
                "bytes" => Collation::Bytes,
                "nondeterministic" => Collation::Nondeterministic,
                _ => Collation::Other,
            };
            relation.attribute_numbers.push(row.try_get(1)?);
            relation.columns.push(Column {
                name: shared(&mut texts, row.try_get(2)?),
                type_oid,
                type_name: shared(&mut texts, row.try_get(4)?),
                collation,
                collation_name: row
                    .try_get::<Option<&str>>(9)?
                    .map(|name| shared(&mut texts, name)),
                default,
                not_null: row.try_get(10)?,
            });
        }
        Ok(())
    }

    fn unique(&mut self, rows: &[Row]) -> Result<(), CatalogError> {
        for row in rows {
            let Some(relation) = self.relations.get_mut(&row.try_get(0)?) else {
                continue;
            };
            let attribute_numbers: Vec<i16> = row.try_get(4)?;
            let columns: Vec<usize> = attribute_numbers
                .iter()
                .filter_map(|number| relation.column_at(*number))
                .collect();
            relation.unique.push(Unique {
                name: row.try_get::<&str>(1)?.into(),
                is_primary: row.try_get(2)?,
                is_constraint: row.try_get(3)?,
                is_partial: row.try_get(5)? || columns.len() != attribute_numbers.len(),
                columns,
            });
        }
        Ok(())
    }

    fn foreign_keys(&mut self, rows: &[Row]) -> Result<(), CatalogError> {
        for row in rows {
            let (oid, table): (u32, u32) = (row.try_get(0)?, row.try_get(3)?);
            let names = |oid: u32, numbers: Vec<i16>| -> Vec<Arc<str>> {
                let Some(relation) = self.relations.get(&oid) else {
                    return Vec::new();
                };
                let columns = numbers.iter().filter_map(|number| {
                    let column = relation.column_at(*number)?;
                    Some(relation.columns[column].name.clone())
                });
                columns.collect()
            };
            let Some(referenced) = self.relations.get(&table) else {
                continue;
            };
            let key = ForeignKey {
                name: row.try_get::<&str>(1)?.into(),
                columns: names(oid, row.try_get(2)?),
                table: referenced.name.clone(),
                referenced: names(table, row.try_get(4)?),
            };
            let set_default = |cause: Event| {
                let relation = self.relations.get(&oid);
                let defaults = relation.map(|relation| relation.defaults(&key.columns));
                Action {
                    cause,
                    effect: Event::Update,
                    defaults: defaults.unwrap_or_default(),
                }
            };
            let mut actions = vec![Action::plain(Event::Truncate, Event::Truncate)];
            actions.extend(match row.try_get(5)? {
                "c" | "n" => Some(Action::plain(Event::Update, Event::Update)),
                "d" => Some(set_default(Event::Update)),
                _ => None,
            });
            actions.extend(match row.try_get(6)? {
                "c" => Some(Action::plain(Event::Delete, Event::Delete)),
                "n" => Some(Action::plain(Event::Delete, Event::Update)),
                "d" => Some(set_default(Event::Delete)),
                _ => None,
            });
            let is_whole = row.try_get(7)?;
            if let Some(relation) = self.relations.get_mut(&oid) {
                relation.foreign_keys.push(DraftForeignKey {
                    key,
                    table,
                    actions,
                    is_whole,
                });
            }
        }
        Ok(())
    }

    fn triggers(&mut self, rows: &[Row]) -> Result<(), CatalogError> {
        let mut texts = HashSet::new();
        for row in rows {
            let Some(relation) = self.relations.get_mut(&row.try_get(0)?) else {
                continue;
            };
            let kind: i16 = row.try_get(2)?;
            let events = [
                (1 << 2, Event::Insert),
                (1 << 4, Event::Update),
                (1 << 3, Event::Delete),
                (1 << 5, Event::Truncate),
            ];
            let events = events.into_iter().filter(|(bit, _)| kind & bit != 0);
            let arguments = row.try_get::<&str>(4)?;
            let mut arguments: Vec<Arc<str>> = arguments.split("\\000").map(Arc::from).collect();
            // Each argument ends with a zero byte.
            arguments.pop();
            let mut text = |column: usize| -> Result<Arc<str>, CatalogError> {
                Ok(shared(&mut texts, row.try_get(column)?))
            };
            let function = TriggerFunction {
                schema: text(5)?,
                name: text(6)?,
                language: text(7)?,
                body: text(8)?,
            };
            relation.triggers.push(DraftTrigger {
                trigger: Trigger {
                    name: row.try_get::<&str>(1)?.into(),
                    table: relation.name.clone(),
                    events: events.map(|(_, event)| event).collect(),
                    arguments,
                    condition: row.try_get::<Option<&str>>(3)?.map(Arc::from),
                    function: Arc::new(function),
                },
                for_each_row: kind & 1 != 0,
            });
        }
        Ok(())
    }

    fn rewrites(&mut self, rows: &[Row]) -> Result<(), CatalogError> {
        for row in rows {
            let Some(relation) = self.relations.get_mut(&row.try_get(0)?) else {
                continue;
            };
            let event = match row.try_get(2)? {
                "2" => Event::Update,
                "3" => Event::Insert,
                "4" => Event::Delete,
                _ => {
                    relation.query = Some(row.try_get::<&str>(3)?.into());
                    continue;
                }
            };
            let definition = Expression {
                name: row.try_get::<&str>(1)?.into(),
                text: row.try_get::<&str>(3)?.into(),
            };
            relation.rules.push(Rule { event, definition });
        }
        Ok(())
    }

    fn policies(&mut self, rows: &[Row]) -> Result<(), CatalogError> {
        for row in rows {
            if let Some(relation) = self.relations.get_mut(&row.try_get(0)?) {
                relation.policies.push(expression(row, 1)?);
            }
        }
        Ok(())
    }

    fn checks(&mut self, rows: &[Row]) -> Result<(), CatalogError> {
        for row in rows {
            if let Some(relation) = self.relations.get_mut(&row.try_get(0)?) {
                relation.checks.push(expression(row, 2)?);
            }
        }
        Ok(())
    }

    fn parents(&mut self, rows: &[Row]) -> Result<(), CatalogError> {
        for row in rows {
            if let Some(relation) = self.relations.get_mut(&row.try_get(0)?) {
                relation.parents.push(row.try_get(1)?);
            }
        }
        Ok(())
    }

    fn reads(&mut self, rows: &[Row]) -> Result<(), CatalogError> {
        for row in rows {
            if let Some(relation) = self.relations.get_mut(&row.try_get(0)?) {
                relation.reads.push(row.try_get(1)?);
            }
        }
        Ok(())
    }

    fn into_schema(mut self) -> Schema {
        let mut fired_by = HashMap::new();
        let inherited = self.inherited();
        for (oid, (fired, unique)) in inherited {
            if let Some(relation) = self.relations.get_mut(&oid) {
                relation.unique.extend(unique);
            }
            fired_by.insert(oid, fired);
        }
        for relation in self.relations.values_mut() {
            relation.unique.sort();
            relation.rules.sort();
            relation.policies.sort();
            relation.checks.sort();
            relation.checks.dedup();
        }
        let mut queries: HashMap<u32, Vec<Expression>> = HashMap::new();
        let mut views: HashMap<u32, Vec<Name>> = HashMap::new();
        let mut children: HashMap<u32, Vec<Name>> = HashMap::new();
        for (oid, relation) in &self.relations {
            if is_view(relation.kind) {
                let (mut seen, mut reads) = (HashSet::new(), HashSet::new());
                self.collect_reads(relation, &mut seen, &mut reads);
                views.insert(*oid, self.names(reads));
                let through = seen.iter().filter_map(|oid| self.relations.get(oid));
                let own = std::iter::once(relation).chain(through);
                let texts = own.filter(|view| !view.is_system()).filter_map(|view| {
                    Some(Expression {
                        name: view.name.1.clone(),
                        text: view.query.clone()?,
                    })
                });
                let mut texts: Vec<Expression> = texts.collect();
                texts.sort();
                queries.insert(*oid, texts);
            }
            if relation.kind != RelationKind::Other && !relation.parents.is_empty() {
                children.insert(*oid, self.names(relation.parents.iter().copied()));
            }
        }
        let mut schema = Schema::default();
        for (oid, relation) in self.relations {
            let keys = relation.foreign_keys.into_iter();
            let mut foreign_keys: Vec<ForeignKey> = keys
                .filter(|foreign| foreign.is_whole)
                .map(|foreign| foreign.key)
                .collect();
            foreign_keys.sort();
            let fired = fired_by.remove(&oid).unwrap_or_default();
            let (schema_name, name) = relation.name;
            let relation = Relation {
                columns: relation.columns,
                unique: relation.unique,
                foreign_keys,
                triggers: fired.triggers,
                rules: relation.rules,
                policies: relation.policies,
                checks: relation.checks,
                caused: fired.caused,
                query: relation.query,
                queries: queries.remove(&oid).unwrap_or_default(),
                reads: views.remove(&oid).unwrap_or_default(),
                parents: children.remove(&oid).unwrap_or_default(),
                ..Relation::new(schema_name, name, relation.kind, Placement::Catalog)
            };
            let within = schema.relations.entry(relation.schema.clone()).or_default();
            within.insert(relation.name.clone(), Arc::new(relation));
        }
        schema
    }

    /// By relation: all that a write of it may fire, and its partitions' own unique indexes.
    fn inherited(&self) -> HashMap<u32, (Fired, Vec<Unique>)> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut referencing: HashMap<u32, Vec<(u32, &DraftForeignKey)>> = HashMap::new();
        for (oid, relation) in &self.relations {
            for parent in &relation.parents {
                children.entry(*parent).or_default().push(*oid);
            }
            for key in &relation.foreign_keys {
                referencing.entry(key.table).or_default().push((*oid, key));
            }
        }
        let mut inherited = HashMap::new();
        for (oid, relation) in &self.relations {
            let own = !relation.triggers.is_empty();
            if own || children.contains_key(oid) || referencing.contains_key(oid) {
                let fired = self.fired(*oid, &children, &referencing);
                let unique = self.unique_of_children(*oid, relation, &children);
                inherited.insert(*oid, (fired, unique));
            }
        }
        inherited
    }

    fn fired(
        &self,
        oid: u32,
        children: &HashMap<u32, Vec<u32>>,
        referencing: &HashMap<u32, Vec<(u32, &DraftForeignKey)>>,
    ) -> Fired {
        const EVENTS: [Event; 4] = [Event::Insert, Event::Update, Event::Delete, Event::Truncate];
        let mut fired = Fired::default();
        let own = self.relations.get(&oid).map(|relation| &relation.checks);
        for written in EVENTS {
            let mut seen = HashSet::new();
            let mut waiting = vec![(oid, written, false)];
            while let Some((at, event, rows_only)) = waiting.pop() {
                let Some(relation) = self.relations.get(&at) else {
                    continue;
                };
                if !seen.insert((at, event, rows_only)) {
                    continue;
                }
                for draft in &relation.triggers {
                    let fires = draft.trigger.events.contains(&event);
                    if fires && (!rows_only || draft.for_each_row) {
                        fired.trigger(&draft.trigger, written);
                    }
                }
                if at != oid && matches!(event, Event::Insert | Event::Update) {
                    let checks = relation.checks.iter();
                    for check in checks.filter(|check| !own.is_some_and(|own| own.contains(check)))
                    {
                        fired.evaluates(&relation.name, check, false, written);
                    }
                }
                for child in children.get(&at).into_iter().flatten() {
                    waiting.push((*child, event, event != Event::Truncate));
                    // A row that moves to another partition.
                    if event == Event::Update {
                        waiting.push((*child, Event::Delete, true));
                        waiting.push((*child, Event::Insert, true));
                    }
                }
                for (table, key) in referencing.get(&at).into_iter().flatten() {
                    for action in key.actions.iter().filter(|action| action.cause == event) {
                        waiting.push((*table, action.effect, false));
                        for default in &action.defaults {
                            if let Some(relation) = self.relations.get(table) {
                                fired.evaluates(&relation.name, default, true, written);
                            }
                        }
                    }
                }
            }
        }
        let name = |trigger: &Trigger| (trigger.table.clone(), trigger.name.clone());
        fired.triggers.sort_by_cached_key(name);
        fired.caused.sort();
        fired
    }

    fn unique_of_children(
        &self,
        oid: u32,
        relation: &DraftRelation,
        children: &HashMap<u32, Vec<u32>>,
    ) -> Vec<Unique> {
        let mut found: Vec<Unique> = Vec::new();
        let mut waiting: Vec<u32> = children.get(&oid).cloned().unwrap_or_default();
        let mut seen = HashSet::new();
        while let Some(child) = waiting.pop() {
            let Some(draft) = self.relations.get(&child).filter(|_| seen.insert(child)) else {
                continue;
            };
            waiting.extend(children.get(&child).into_iter().flatten());
            for unique in &draft.unique {
                let place = |column: &usize| {
                    let name = &draft.columns[*column].name;
                    relation.columns.iter().position(|own| own.name == *name)
                };
                let columns: Vec<usize> = unique.columns.iter().filter_map(place).collect();
                let is_partial = unique.is_partial || columns.len() != unique.columns.len();
                // A partition's part of the parent's own index says nothing new.
                let known = relation.unique.iter().chain(&found);
                let mut same = known
                    .filter(|known| known.columns == columns && known.is_partial == is_partial);
                if same.next().is_none() {
                    found.push(Unique {
                        name: unique.name.clone(),
                        is_primary: false,
                        is_constraint: false,
                        columns,
                        is_partial,
                    });
                }
            }
        }
        found
    }

    fn names(&self, oids: impl IntoIterator<Item = u32>) -> Vec<Name> {
        let relations = oids.into_iter().filter_map(|oid| self.relations.get(&oid));
        let mut names: Vec<Name> = relations.map(|relation| relation.name.clone()).collect();
        names.sort();
        names
    }

    /// What `view` reads that is no view of a user: through other views, and through what a materialized view was made of.
    fn collect_reads(
        &self,
        view: &DraftRelation,
        seen: &mut HashSet<u32>,
        reads: &mut HashSet<u32>,
    ) {
        for oid in &view.reads {
            if !seen.insert(*oid) {
                continue;
            }
            match self.relations.get(oid) {
                Some(read) if is_view(read.kind) && !read.is_system() => {
                    self.collect_reads(read, seen, reads)
                }
                Some(_) => drop(reads.insert(*oid)),
                None => {}
            }
        }
    }
}

fn is_view(kind: RelationKind) -> bool {
    matches!(kind, RelationKind::View | RelationKind::MaterializedView)
}

/// One `Arc` for each text.
fn shared(texts: &mut HashSet<Arc<str>>, text: &str) -> Arc<str> {
    if let Some(known) = texts.get(text) {
        return known.clone();
    }
    let text: Arc<str> = text.into();
    texts.insert(text.clone());
    text
}

fn expression(row: &Row, name: usize) -> Result<Expression, CatalogError> {
    Ok(Expression {
        name: row.try_get::<&str>(name)?.into(),
        text: row.try_get::<&str>(name + 1)?.into(),
    })
}

fn volatility(text: &str) -> Volatility {
    match text {
        "i" => Volatility::Immutable,
        "s" => Volatility::Stable,
        _ => Volatility::Volatile,
    }
}

/// Sources by their functions' OIDs.
struct Bodies(HashMap<u32, Vec<Arc<Body>>>);

impl Bodies {
    fn read(rows: &[Row]) -> Result<Self, CatalogError> {
        let mut languages = HashSet::new();
        let mut bodies: HashMap<u32, Vec<Arc<Body>>> = HashMap::new();
        for row in rows {
            let body = Body {
                language: shared(&mut languages, row.try_get(1)?),
                text: row.try_get::<&str>(2)?.into(),
            };
            let of = bodies.entry(row.try_get(0)?).or_default();
            of.push(Arc::new(body));
        }
        Ok(Self(bodies))
    }

    fn of(&self, oids: &[u32]) -> Vec<Arc<Body>> {
        let known = oids.iter().filter_map(|oid| self.0.get(oid));
        let mut bodies: Vec<_> = known.flatten().cloned().collect();
        bodies.sort();
        bodies.dedup();
        bodies
    }
}

/// The functions of an operator or a cast, from the columns after `first`.
fn called(row: &Row, first: usize, bodies: &Bodies) -> Result<Function, CatalogError> {
    Ok(Function {
        volatility: volatility(row.try_get(first)?),
        procedural: row.try_get(first + 1)?,
        aggregate: false,
        window: false,
        set_returning: false,
        bodies: bodies.of(&row.try_get::<Vec<u32>>(first + 2)?),
    })
}

fn add_domains(schema: &mut Schema, domains: &[Row], checks: &[Row]) -> Result<(), CatalogError> {
    let checks_of = checks_of_domains(checks)?;
    let mut bases: HashMap<u32, u32> = HashMap::new();
    for row in domains {
        bases.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for row in domains {
        // Domains of one name in several schemas are taken together.
        let of = schema.domains.entry(row.try_get::<&str>(3)?.into());
        let texts = of.or_default();
        let mut oid = Some(row.try_get(0)?);
        while let Some(domain) = oid {
            texts.extend(checks_of.get(&domain).into_iter().flatten().cloned());
            oid = bases.get(&domain).copied();
        }
        texts.sort();
        if let Some(default) = row.try_get::<Option<&str>>(2)? {
            let of = schema.domain_defaults.entry(row.try_get::<&str>(3)?.into());
            let texts = of.or_default();
            texts.push(default.into());
            texts.sort();
        }
    }
    Ok(())
}

/// CHECK constraints of domains, by the domain's OID.
fn checks_of_domains(checks: &[Row]) -> Result<HashMap<u32, Vec<Expression>>, CatalogError> {
    let mut checks_of: HashMap<u32, Vec<Expression>> = HashMap::new();
    for row in checks {
        let of = checks_of.entry(row.try_get(1)?).or_default();
        of.push(expression(row, 2)?);
    }
    Ok(checks_of)
}

/// Whether a default is the next value of a sequence and nothing else.
fn is_sequence(expression: &str) -> bool {
    let name = expression.strip_prefix("nextval('");
    let name = name.and_then(|rest| rest.strip_suffix("'::regclass)"));
    name.is_some_and(|name| !name.contains("'::"))
}

fn add_functions(schema: &mut Schema, rows: &[Row], bodies: &Bodies) -> Result<(), CatalogError> {
    for row in rows {
        let function = Function {
            volatility: volatility(row.try_get(2)?),
            procedural: row.try_get(3)?,
            aggregate: row.try_get(4)?,
            window: row.try_get(5)?,
            set_returning: row.try_get(6)?,
            bodies: bodies.of(&row.try_get::<Vec<u32>>(7)?),
        };
        let (namespace, name): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        if namespace == "pg_catalog" {
            schema.builtin_functions.insert(name.into(), function);
        } else {
            schema
                .user_functions
                .entry(namespace.into())
                .or_default()
                .insert(name.into(), function);
        }
    }
    Ok(())
}

/// Whether two schemas say the same, whatever their versions.
pub fn is_same(a: &Schema, b: &Schema) -> bool {
    a.relations == b.relations
        && a.builtin_functions == b.builtin_functions
        && a.user_functions == b.user_functions
        && a.operators == b.operators
        && a.casts == b.casts
        && a.automatic_casts == b.automatic_casts
        && a.event_triggers == b.event_triggers
        && a.domains == b.domains
        && a.domain_defaults == b.domain_defaults
        && a.declared == b.declared
        && a.misfits == b.misfits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(kind: RelationKind, name: &str, reads: &[u32], parents: &[u32]) -> DraftRelation {
        DraftRelation {
            name: ("public".into(), name.into()),
            kind,
            columns: Vec::new(),
            attribute_numbers: Vec::new(),
            unique: Vec::new(),
            foreign_keys: Vec::new(),
            triggers: Vec::new(),
            rules: Vec::new(),
            policies: Vec::new(),
            checks: Vec::new(),
            query: None,
            parents: parents.to_vec(),
            reads: reads.to_vec(),
        }
    }

    fn names(names: &[Name]) -> Vec<&str> {
        names.iter().map(|(_, name)| &**name).collect()
    }

    #[test]
    fn a_view_reads_what_the_views_in_it_read() {
        let draft = Draft {
            relations: HashMap::from([
                (1, relation(RelationKind::Table, "orders", &[], &[])),
                (2, relation(RelationKind::View, "inside", &[1], &[])),
                (3, relation(RelationKind::View, "outside", &[2, 4, 5], &[])),
                (4, relation(RelationKind::Table, "notes", &[], &[])),
                (
                    5,
                    relation(RelationKind::MaterializedView, "sums", &[6, 3], &[]),
                ),
                (6, relation(RelationKind::Table, "lines", &[], &[])),
            ]),
        };
        let schema = draft.into_schema();
        assert_eq!(
            names(&schema.relations["public"]["outside"].reads),
            ["lines", "notes", "orders"]
        );
        assert_eq!(
            names(&schema.relations["public"]["inside"].reads),
            ["orders"]
        );
    }

    #[test]
    fn a_partition_names_its_parent_and_an_index_does_not() {
        let draft = Draft {
            relations: HashMap::from([
                (1, relation(RelationKind::Table, "orders", &[], &[])),
                (2, relation(RelationKind::Table, "orders_1", &[], &[1])),
                (3, relation(RelationKind::Other, "orders_pkey", &[], &[])),
                (4, relation(RelationKind::Other, "orders_1_pkey", &[], &[3])),
            ]),
        };
        let schema = draft.into_schema();
        assert_eq!(
            names(&schema.relations["public"]["orders_1"].parents),
            ["orders"]
        );
        assert!(
            schema.relations["public"]["orders_1_pkey"]
                .parents
                .is_empty()
        );
    }

    #[test]
    fn answers_are_read_by_what_they_must_be() {
        let row = Row(vec![
            Some("t".to_owned()),
            Some("{}".to_owned()),
            Some("{1,-2}".to_owned()),
            Some("4294967295".to_owned()),
            None,
        ]);
        assert_eq!(row.try_get::<bool>(0).ok(), Some(true));
        assert_eq!(row.try_get::<Vec<u32>>(1).ok(), Some(vec![]));
        assert_eq!(row.try_get::<Vec<i16>>(2).ok(), Some(vec![1, -2]));
        assert_eq!(row.try_get::<u32>(3).ok(), Some(u32::MAX));
        assert_eq!(row.try_get::<Option<&str>>(4).ok(), Some(None));
        assert!(row.try_get::<&str>(4).is_err());
        assert!(row.try_get::<bool>(1).is_err());
        assert!(row.try_get::<Vec<u32>>(2).is_err());
        assert!(row.try_get::<i16>(3).is_err());
        assert!(row.try_get::<&str>(5).is_err());
        assert!(assemble(Vec::new()).is_err());
    }

    #[test]
    fn a_serial_columns_default_is_a_sequence() {
        assert!(is_sequence("nextval('orders_id_seq'::regclass)"));
        assert!(is_sequence("nextval('\"it''s (odd)\"'::regclass)"));
        for expression in [
            "'nextval'::text",
            "(nextval('s'::regclass) + 1)",
            "nextval('s'::regclass) + nextval('t'::regclass)",
        ] {
            assert!(!is_sequence(expression), "{expression}");
        }
    }
}

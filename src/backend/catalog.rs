//! Loads one shard's catalog into a [`Schema`]: a few queries in one snapshot, then plain assembly. Where rows live is
//! laid over it by [`crate::topology::shard_map`]; here all is as PostgreSQL says. Start at [`load`].

use crate::topology::schema::{
    Collation, Column, ColumnDefault, Function, Placement, Relation, RelationKind, Schema,
    Volatility,
};
use futures_util::future::try_join_all;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio_postgres::{Client, Row};

/// Why a catalog could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The shard did not answer as it should.
    #[error("cannot read the catalog: {}", super::store::reason(.0))]
    Query(#[from] tokio_postgres::Error),
}

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
      UNION ALL SELECT 'h' || inhrelid::text || inhparent::text FROM pg_catalog.pg_inherits
      UNION ALL SELECT 'r' || oid::text || xmin::text FROM pg_catalog.pg_rewrite WHERE oid >= 16384
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
    // Expressions are then printed with every name qualified.
    transaction
        .batch_execute("SET LOCAL search_path = pg_catalog")
        .await?;
    let queries = [
        RELATIONS, COLUMNS, DOMAINS, UNIQUE, PARENTS, READS, FUNCTIONS,
    ];
    let rows = try_join_all(queries.map(|sql| transaction.query_typed(sql, &[]))).await?;
    transaction.commit().await?;
    let Ok(
        [
            relations,
            columns,
            domains,
            unique,
            parents,
            reads,
            functions,
        ],
    ) = <[Vec<Row>; 7]>::try_from(rows)
    else {
        return Ok(Schema::default());
    };
    let mut draft = Draft::relations(&relations)?;
    draft.columns(&columns, &domains)?;
    draft.unique(&unique)?;
    draft.parents(&parents)?;
    draft.reads(&reads)?;
    let mut schema = draft.into_schema();
    add_functions(&mut schema, &functions)?;
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
           a.attidentity <> '', a.attgenerated <> '', pg_get_expr(e.adbin, e.adrelid)
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_database d ON d.datname = current_database()
    LEFT JOIN pg_collation o ON o.oid = a.attcollation
    LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'pgring')
    ORDER BY a.attrelid, a.attnum";

const DOMAINS: &str = "
    SELECT oid, typbasetype, pg_get_expr(typdefaultbin, 0) FROM pg_type WHERE typtype = 'd' AND oid >= 16384";

// Whole-table uniqueness only: neither partial indexes nor expressions.
const UNIQUE: &str = "
    SELECT i.indrelid, (i.indkey::int2[])[0:i.indnkeyatts - 1]
    FROM pg_index i
    WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indrelid >= 16384";

const PARENTS: &str = "SELECT inhrelid, inhparent FROM pg_inherits";

const READS: &str = "
    SELECT DISTINCT r.ev_class, d.refobjid
    FROM pg_rewrite r
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                    AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
    WHERE r.rulename = '_RETURN' AND r.ev_class >= 16384";

// Built-in functions in SQL read catalogs at most; a few in C run queries that they are given.
const FUNCTIONS: &str = "
    SELECT n.nspname::text, p.proname::text, max(p.provolatile::text),
           bool_or(CASE WHEN p.oid < 16384
                        THEN p.proname ~ '^(query|table|cursor|schema|database)_to_xml|^ts_(stat|rewrite)$'
                        ELSE l.lanname NOT IN ('internal', 'c') END),
           bool_or(p.prokind = 'a'), bool_or(p.prokind = 'w'), bool_or(p.proretset)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
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
    unique: Vec<Vec<usize>>,
    parents: Vec<u32>,
    reads: Vec<u32>,
}

impl DraftRelation {
    fn is_system(&self) -> bool {
        matches!(&*self.name.0, "pg_catalog" | "information_schema")
    }

    fn column_at(&self, attribute_number: i16) -> Option<usize> {
        self.attribute_numbers.binary_search(&attribute_number).ok()
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
                    row.try_get::<_, &str>(2)?.into(),
                ),
                kind,
                columns: Vec::new(),
                attribute_numbers: Vec::new(),
                unique: Vec::new(),
                parents: Vec::new(),
                reads: Vec::new(),
            };
            relations.insert(row.try_get(0)?, relation);
        }
        Ok(Self { relations })
    }

    fn columns(&mut self, rows: &[Row], domains: &[Row]) -> Result<(), CatalogError> {
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
                type_oid = *base;
                expression = expression.or(*default);
            }
            let default = match expression {
                _ if row.try_get(6)? => ColumnDefault::Sequence,
                _ if row.try_get(7)? => ColumnDefault::Generated,
                Some(text) if calls_nextval(text) => ColumnDefault::Sequence,
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
                default,
            });
        }
        Ok(())
    }

    fn unique(&mut self, rows: &[Row]) -> Result<(), CatalogError> {
        for row in rows {
            let Some(relation) = self.relations.get_mut(&row.try_get(0)?) else {
                continue;
            };
            let attribute_numbers: Vec<i16> = row.try_get(1)?;
            let columns: Option<Vec<usize>> = attribute_numbers
                .iter()
                .map(|number| relation.column_at(*number))
                .collect();
            relation.unique.extend(columns);
        }
        self.relations
            .values_mut()
            .for_each(|relation| relation.unique.sort());
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

    fn into_schema(self) -> Schema {
        let mut views: HashMap<u32, Vec<Name>> = HashMap::new();
        let mut children: HashMap<u32, Vec<Name>> = HashMap::new();
        for (oid, relation) in &self.relations {
            if is_view(relation.kind) {
                let mut reads = HashSet::new();
                self.collect_reads(relation, &mut HashSet::new(), &mut reads);
                views.insert(*oid, self.names(reads));
            }
            if relation.kind != RelationKind::Other && !relation.parents.is_empty() {
                children.insert(*oid, self.names(relation.parents.iter().copied()));
            }
        }
        let mut schema = Schema::default();
        for (oid, relation) in self.relations {
            let relation = Relation {
                schema: relation.name.0,
                name: relation.name.1,
                kind: relation.kind,
                columns: relation.columns,
                placement: Placement::Catalog,
                unique: relation.unique,
                reads: views.remove(&oid).unwrap_or_default(),
                parents: children.remove(&oid).unwrap_or_default(),
            };
            let within = schema.relations.entry(relation.schema.clone()).or_default();
            within.insert(relation.name.clone(), Arc::new(relation));
        }
        schema
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

fn calls_nextval(expression: &str) -> bool {
    expression.contains("nextval(")
}

fn add_functions(schema: &mut Schema, rows: &[Row]) -> Result<(), CatalogError> {
    for row in rows {
        let volatility = match row.try_get(2)? {
            "i" => Volatility::Immutable,
            "s" => Volatility::Stable,
            _ => Volatility::Volatile,
        };
        let function = Function {
            volatility,
            procedural: row.try_get(3)?,
            aggregate: row.try_get(4)?,
            window: row.try_get(5)?,
            set_returning: row.try_get(6)?,
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
    fn a_serial_columns_default_is_a_sequence() {
        assert!(calls_nextval("nextval('orders_id_seq'::regclass)"));
        assert!(!calls_nextval("'nextval'::text"));
    }
}

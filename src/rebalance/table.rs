//! [`MovedTable`]: a sharded table as the steps of a move need it, read from a shard's own catalog.

use super::side::{MoveError, Side, ident, literal};
use crate::topology::hash;
use crate::topology::key_value::KeyType;
use crate::topology::schema::{Placement, Relation, RelationKind, Schema};
use crate::topology::slot::SlotSet;

/// The first OID that is not the same on every server.
const FIRST_NORMAL_OID: u32 = 16_384;

/// A sharded table that holds rows, or the partitioned table above those that do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedTable {
    /// `schema.name`, quoted where it must be.
    pub name: String,
    /// The key's column.
    pub key: String,
    /// The key's type.
    pub key_type: KeyType,
    /// Partitioned: its partitions go with it. Else its children, if any, are tables of their own.
    pub is_partitioned: bool,
    /// The columns that hold values of their own, quoted.
    pub columns: Vec<String>,
    /// What the columns are, for comparing it with another shard's.
    pub definition: String,
    /// Some values may carry numbers of types that another server gave other numbers, so that rows travel as text.
    pub has_own_types: bool,
    /// The tables that hold the rows.
    pub leaves: Vec<Leaf>,
    /// By the statistics.
    pub rows: i64,
    /// With its indexes.
    pub bytes: i64,
}

/// A table that holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// `schema.name`, quoted where it must be.
    pub name: String,
    /// The columns of its replica identity; empty: it has none.
    pub identity: Vec<String>,
    /// Whether its rows are found by all of their columns.
    pub identity_is_full: bool,
    /// Whether it writes no log.
    pub is_unlogged: bool,
}

impl MovedTable {
    /// The slot of a row as int4; `row` is what qualifies the column (`NEW.`), or nothing.
    pub fn slot(&self, row: &str) -> String {
        let column = format!("{row}{}", ident(&self.key));
        let slot = hash::sql_expression(&column, self.key_type);
        format!("({slot})::pg_catalog.int4")
    }

    /// The condition of rows in `slots`.
    pub fn is_in(&self, slots: &SlotSet) -> String {
        format!(
            "({} OPERATOR(pg_catalog.<@) '{slots}'::pg_catalog.int4multirange)",
            self.slot("")
        )
    }

    /// The table in FROM, without what is a table of its own.
    pub fn from(&self) -> String {
        match self.is_partitioned {
            true => self.name.clone(),
            false => format!("ONLY {}", self.name),
        }
    }
}

impl Leaf {
    /// Whether an UPDATE or DELETE of a row can be told to a subscriber which filters by `key`.
    pub fn identifies(&self, key: &str) -> bool {
        self.identity_is_full || self.identity.iter().any(|column| column == key)
    }
}

/// The tables of `schema` that are moved, in the order of their names.
pub fn sharded(schema: &Schema) -> Vec<&Relation> {
    let relations = schema
        .relations
        .values()
        .flat_map(|relations| relations.values());
    let mut relations: Vec<&Relation> = relations
        .map(std::convert::AsRef::as_ref)
        .filter(|relation| {
            relation.kind == RelationKind::Table
                && matches!(relation.placement, Placement::Sharded { .. })
        })
        .collect();
    relations.sort_by_key(|relation| (&relation.schema, &relation.name));
    relations
}

/// What one shard knows of the sharded tables of `schema`. A table that is not there is left out, and so is a partition,
/// which its partitioned table speaks for.
///
/// # Errors
/// [`MoveError`]
pub async fn describe(side: &Side, schema: &Schema) -> Result<Vec<MovedTable>, MoveError> {
    let mut tables = Vec::new();
    for relation in sharded(schema) {
        if let Some(table) = describe_one(side, relation).await? {
            tables.push(table);
        }
    }
    Ok(tables)
}

async fn describe_one(side: &Side, relation: &Relation) -> Result<Option<MovedTable>, MoveError> {
    let (Some(key_type), &Placement::Sharded { key, .. }) =
        (relation.key_type(), &relation.placement)
    else {
        return Ok(None);
    };
    let oid = format!("{}.{}", ident(&relation.schema), ident(&relation.name));
    let oid = format!("pg_catalog.to_regclass({})", literal(&oid));
    let about = side
        .rows(&format!(
            "SELECT c.relkind = 'p', c.relispartition, pg_catalog.format('%I.%I', n.nspname, c.relname) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {oid}"
        ))
        .await?;
    let refuse = |error| side.refuse(error);
    let Some(row) = about.first() else {
        return Ok(None);
    };
    let is_partitioned: bool = row.try_get(0).map_err(refuse)?;
    if row.try_get(1).map_err(refuse)? {
        return Ok(None);
    }
    let columns = side
        .rows(&format!(
            "SELECT pg_catalog.quote_ident(a.attname), a.attgenerated <> '', a.atttypid, \
               pg_catalog.concat_ws(' ', pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod), \
                 CASE WHEN a.attnotnull THEN 'not null' END, nullif(a.attgenerated::pg_catalog.text, '')) \
             FROM pg_catalog.pg_attribute a WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped \
             ORDER BY a.attname"
        ))
        .await?;
    let mut table = MovedTable {
        name: row.try_get(2).map_err(refuse)?,
        key: relation.columns[key].name.to_string(),
        key_type,
        is_partitioned,
        columns: Vec::new(),
        definition: String::new(),
        has_own_types: false,
        leaves: Vec::new(),
        rows: 0,
        bytes: 0,
    };
    let mut definitions: Vec<String> = Vec::new();
    for row in &columns {
        definitions.push(row.try_get(3).map_err(refuse)?);
        if !row.try_get::<_, bool>(1).map_err(refuse)? {
            table.columns.push(row.try_get(0).map_err(refuse)?);
            table.has_own_types |= row.try_get::<_, u32>(2).map_err(refuse)? >= FIRST_NORMAL_OID;
        }
    }
    table.definition = definitions.join(", ");
    // Columns of the index that identifies a row: the primary key's unless another was chosen.
    let leaves = side
        .rows(&format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relreplident = 'f', c.relpersistence = 'u', \
               ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_index i \
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) \
                     WHERE i.indrelid = c.oid AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident) \
                     ORDER BY a.attname), \
               greatest(c.reltuples, 0)::pg_catalog.int8, pg_catalog.pg_total_relation_size(c.oid) \
             FROM (SELECT relid FROM pg_catalog.pg_partition_tree({oid}) WHERE isleaf \
                   UNION SELECT {oid} WHERE NOT {is_partitioned}) tree \
             JOIN pg_catalog.pg_class c ON c.oid = tree.relid AND c.relkind <> 'p' \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1"
        ))
        .await?;
    for row in &leaves {
        table.leaves.push(Leaf {
            name: row.try_get(0).map_err(refuse)?,
            identity_is_full: row.try_get(1).map_err(refuse)?,
            is_unlogged: row.try_get(2).map_err(refuse)?,
            identity: row.try_get(3).map_err(refuse)?,
        });
        table.rows += row.try_get::<_, i64>(4).map_err(refuse)?;
        table.bytes += row.try_get::<_, i64>(5).map_err(refuse)?;
    }
    Ok(Some(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_told_in_sql_by_the_keys_column() {
        let table = MovedTable {
            name: "public.\"Orders\"".to_owned(),
            key: "Customer".to_owned(),
            key_type: KeyType::Int8,
            is_partitioned: false,
            columns: Vec::new(),
            definition: String::new(),
            has_own_types: false,
            leaves: Vec::new(),
            rows: 0,
            bytes: 0,
        };
        assert_eq!(
            table.slot("NEW."),
            format!(
                "((pg_catalog.hashint8extended(NEW.\"Customer\", {}) & 16383))::pg_catalog.int4",
                hash::SEED
            )
        );
        assert!(
            table
                .is_in(&"{[0,5)}".parse().unwrap())
                .ends_with("<@) '{[0,5)}'::pg_catalog.int4multirange)")
        );
        assert_eq!(table.from(), "ONLY public.\"Orders\"");
        let leaf = Leaf {
            name: String::new(),
            identity: vec!["Customer".to_owned()],
            identity_is_full: false,
            is_unlogged: false,
        };
        assert!(leaf.identifies("Customer") && !leaf.identifies("customer"));
    }
}

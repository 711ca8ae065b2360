//! [`read`]: what CREATE TABLE, ALTER TABLE and CREATE UNIQUE INDEX say of constraints between rows, and of tables that
//! others are parts of. The rest of these statements is for a shard to judge. Knows nothing of tables that exist.

use super::lex::Token;
use super::reader::{Name, Reader, StatementError};
use std::borrow::Cow;

/// A column's name.
type Column<'a> = Cow<'a, str>;

/// What a definition says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definition<'a> {
    /// Columns that it names with their types.
    pub columns: Vec<Column<'a>>,
    /// Primary keys, unique and exclusion constraints, and a unique index.
    pub unique: Vec<Unique<'a>>,
    /// Foreign keys.
    pub foreign_keys: Vec<ForeignKey<'a>>,
    /// CREATE TABLE … PARTITION OF, INHERITS; ALTER TABLE … INHERIT: parents of the table.
    pub parents: Vec<Name<'a>>,
    /// ALTER TABLE … ATTACH PARTITION: a new part of the table.
    pub attached: Option<Name<'a>>,
    /// ALTER TABLE … DETACH PARTITION: the part.
    pub detached: Option<Name<'a>>,
    /// ALTER TABLE … NO INHERIT: the table is its part no more.
    pub disinherited: Option<Name<'a>>,
    /// LIKE: tables whose columns it has too, and whether with their indexes.
    pub like: Vec<(Name<'a>, bool)>,
    /// CREATE TABLE … OF a type, so that not all columns are named.
    pub of_type: bool,
    /// Values that ALTER TABLE gives to rows that are there: of added columns, and of those that are converted by an
    /// expression.
    pub computed: Vec<Computed<'a>>,
}

/// A column's values in rows that are there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computed<'a> {
    /// Its name.
    pub column: Column<'a>,
    /// Where they come from.
    pub from: Source<'a>,
}

/// Where values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source<'a> {
    /// The text from DEFAULT or USING on.
    Expression(&'a str),
    /// A sequence of the column's own.
    Sequence,
    /// The type of this name, if it is a domain with a default.
    Type(Column<'a>),
}

/// The types of columns that have sequences.
const SERIAL: &[&str] = &[
    "smallserial",
    "serial2",
    "serial",
    "serial4",
    "bigserial",
    "serial8",
];

/// A constraint that no two rows may break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique<'a> {
    /// Whether it is the primary key.
    pub is_primary: bool,
    /// The columns that rows must be equal in to break it; expressions and columns under another collation are none.
    pub columns: Vec<Column<'a>>,
    /// USING INDEX: the index that has the columns.
    pub index: Option<Column<'a>>,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey<'a> {
    /// Its columns.
    pub columns: Vec<Column<'a>>,
    /// The table that it references.
    pub table: Name<'a>,
    /// The referenced columns; none: the primary key's.
    pub referenced: Vec<Column<'a>>,
    /// Whether ON UPDATE changes its columns.
    pub follows_updates: bool,
    /// The columns that ON DELETE sets to NULL or their defaults.
    pub emptied: Vec<Column<'a>>,
}

/// Reads the statement; one of another kind says nothing.
///
/// # Errors
/// Where it is no statement.
pub fn read<'a>(sql: &'a str, tokens: &'a [Token]) -> Result<Definition<'a>, StatementError> {
    let mut found = Definition::default();
    let mut reader = Reader::new(sql, tokens);
    if reader.take(&["alter", "table"]) {
        reader.take(&["if", "exists"]);
        reader.relation()?;
        for action in parts(&mut reader) {
            found.action(Reader::new(sql, action))?;
        }
    } else if reader.take(&["create", "unique", "index"]) {
        if !reader.skip_to("on") {
            return Err(reader.unexpected());
        }
        reader.advance(1);
        reader.relation()?;
        if reader.take(&["using"]) {
            reader.name()?;
        }
        let columns = index_columns(sql, &mut reader, |_| true)?;
        found.unique.push(Unique {
            is_primary: false,
            columns,
            index: None,
        });
    } else if reader.take(&["create"]) {
        let _ = reader.take_any(&["local", "global"]);
        let _ = reader.take_any(&["temp", "temporary", "unlogged"]);
        if reader.take(&["table"]) {
            reader.take(&["if", "not", "exists"]);
            reader.qualified_name()?;
            found.table(sql, &mut reader)?;
        }
    }
    Ok(found)
}

/// What is between the commas, up to the end or a closing parenthesis, outside of parentheses.
fn parts<'a>(reader: &mut Reader<'a, 'a>) -> Vec<&'a [Token]> {
    let mut parts = Vec::new();
    let mut depth = 0usize;
    let mut start = reader.rest();
    let mut length = 0;
    while !reader.is_end() {
        if reader.is_symbol(0, "(") || reader.is_symbol(0, "[") {
            depth += 1;
        } else if reader.is_symbol(0, ")") || reader.is_symbol(0, "]") {
            if depth == 0 {
                break;
            }
            depth -= 1;
        } else if depth == 0 && reader.is_symbol(0, ",") {
            parts.push(&start[..length]);
            reader.advance(1);
            start = reader.rest();
            length = 0;
            continue;
        }
        reader.advance(1);
        length += 1;
    }
    parts.push(&start[..length]);
    parts
}

/// What the statement says from `word` on, if it is there.
fn from_word<'a>(mut reader: Reader<'a, 'a>, word: &str) -> Option<Source<'a>> {
    if !reader.skip_to(word) {
        return None;
    }
    let mut end = reader.clone();
    end.advance(end.rest().len());
    Some(Source::Expression(reader.text_until(&end)))
}

/// The parts of a parenthesised list.
fn in_parentheses<'a>(reader: &mut Reader<'a, 'a>) -> Result<Vec<&'a [Token]>, StatementError> {
    reader.expect_symbol("(")?;
    let parts = parts(reader);
    reader.expect_symbol(")")?;
    Ok(parts)
}

fn names<'a>(reader: &mut Reader<'a, 'a>) -> Result<Vec<Column<'a>>, StatementError> {
    reader.expect_symbol("(")?;
    let names = reader.list(Reader::name)?;
    reader.expect_symbol(")")?;
    Ok(names)
}

/// Of a parenthesised list of index elements, the plain columns that `takes` takes, given what follows the name.
fn index_columns<'a>(
    sql: &'a str,
    reader: &mut Reader<'a, 'a>,
    takes: impl Fn(&Reader<'a, 'a>) -> bool,
) -> Result<Vec<Column<'a>>, StatementError> {
    let mut columns = Vec::new();
    for element in in_parentheses(reader)? {
        let mut element = Reader::new(sql, element);
        let Ok(name) = element.name() else { continue };
        let plain = !element.is_symbol(0, "(") && !element.is_symbol(0, ".");
        if plain && !element.is_word(0, "collate") && takes(&element) {
            columns.push(name);
        }
    }
    Ok(columns)
}

impl<'a> Definition<'a> {
    /// What follows the name in CREATE TABLE.
    fn table(&mut self, sql: &'a str, reader: &mut Reader<'a, 'a>) -> Result<(), StatementError> {
        if reader.take(&["partition", "of"]) {
            self.parents.push(reader.qualified_name()?);
        } else if reader.take(&["of"]) {
            reader.qualified_name()?;
            self.of_type = true;
        }
        if reader.is_symbol(0, "(") {
            for element in in_parentheses(reader)? {
                self.element(Reader::new(sql, element))?;
            }
        }
        if reader.take(&["inherits"]) {
            reader.expect_symbol("(")?;
            self.parents.extend(reader.list(Reader::qualified_name)?);
        }
        Ok(())
    }

    /// One action of ALTER TABLE.
    fn action(&mut self, mut reader: Reader<'a, 'a>) -> Result<(), StatementError> {
        if reader.take(&["add"]) {
            reader.take(&["column"]);
            reader.take(&["if", "not", "exists"]);
            let known = self.columns.len();
            let mut added = reader.clone();
            self.element(reader)?;
            if self.columns.len() > known {
                let column = added.name()?;
                let from = if SERIAL.iter().any(|word| added.is_word(0, word))
                    || added.clone().skip_to("identity")
                {
                    Source::Sequence
                } else if let Some(expression) = from_word(added.clone(), "default") {
                    expression
                } else {
                    Source::Type(added.qualified_name()?.name)
                };
                self.computed.push(Computed { column, from });
            }
            Ok(())
        } else {
            if reader.take(&["alter"]) {
                reader.take(&["column"]);
                let column = reader.name()?;
                reader.take(&["set", "data"]);
                if reader.take(&["type"])
                    && let Some(from) = from_word(reader, "using")
                {
                    self.computed.push(Computed { column, from });
                }
            } else if reader.take(&["attach", "partition"]) {
                self.attached = Some(reader.qualified_name()?);
            } else if reader.take(&["detach", "partition"]) {
                self.detached = Some(reader.qualified_name()?);
            } else if reader.take(&["inherit"]) {
                self.parents.push(reader.qualified_name()?);
            } else if reader.take(&["no", "inherit"]) {
                self.disinherited = Some(reader.qualified_name()?);
            }
            Ok(())
        }
    }

    /// A column, a constraint of the table, or LIKE.
    fn element(&mut self, mut reader: Reader<'a, 'a>) -> Result<(), StatementError> {
        if reader.is_end() {
            return Ok(());
        }
        if reader.take(&["like"]) {
            let table = reader.qualified_name()?;
            let mut with_indexes = false;
            while !reader.is_end() {
                match reader.take_any(&["including", "excluding"]) {
                    Some(word) => {
                        if reader.is_word(0, "indexes") || reader.is_word(0, "all") {
                            with_indexes = word == "including";
                        }
                    }
                    None => reader.advance(1),
                }
            }
            self.like.push((table, with_indexes));
            return Ok(());
        }
        if reader.take(&["constraint"]) {
            reader.name()?;
        }
        if reader.take(&["foreign", "key"]) {
            let columns = names(&mut reader)?;
            reader.expect(&["references"])?;
            return self.references(columns, &mut reader);
        }
        let is_primary = reader.take(&["primary", "key"]);
        if is_primary || reader.take(&["unique"]) {
            if reader.take(&["using", "index"]) {
                let index = Some(reader.name()?);
                self.unique.push(Unique {
                    is_primary,
                    columns: Vec::new(),
                    index,
                });
                return Ok(());
            }
            reader.take(&["nulls"]);
            reader.take(&["not"]);
            reader.take(&["distinct"]);
            let columns = names(&mut reader)?;
            self.unique.push(Unique {
                is_primary,
                columns,
                index: None,
            });
            return Ok(());
        }
        if reader.is_word(0, "check") {
            return Ok(());
        }
        if reader.is_word(0, "exclude") && (reader.is_word(1, "using") || reader.is_symbol(1, "("))
        {
            reader.advance(1);
            if reader.take(&["using"]) {
                reader.name()?;
            }
            let sql = reader.sql();
            let columns = index_columns(sql, &mut reader, |element| {
                let mut element = element.clone();
                element.skip_to("with") && element.is_symbol(1, "=")
            })?;
            self.unique.push(Unique {
                is_primary: false,
                columns,
                index: None,
            });
            return Ok(());
        }
        let column = reader.name()?;
        self.columns.push(column.clone());
        let mut depth = 0usize;
        while !reader.is_end() {
            if reader.is_symbol(0, "(") {
                depth += 1;
            } else if reader.is_symbol(0, ")") {
                depth = depth.saturating_sub(1);
            }
            if depth > 0 {
                reader.advance(1);
            } else if reader.take(&["references"]) {
                self.references(vec![column.clone()], &mut reader)?;
            } else {
                let is_primary = reader.take(&["primary", "key"]);
                if is_primary || reader.take(&["unique"]) {
                    self.unique.push(Unique {
                        is_primary,
                        columns: vec![column.clone()],
                        index: None,
                    });
                } else {
                    reader.advance(1);
                }
            }
        }
        Ok(())
    }

    /// What follows REFERENCES.
    fn references(
        &mut self,
        columns: Vec<Column<'a>>,
        reader: &mut Reader<'a, 'a>,
    ) -> Result<(), StatementError> {
        let table = reader.qualified_name()?;
        let referenced = if reader.is_symbol(0, "(") {
            names(reader)?
        } else {
            Vec::new()
        };
        let mut key = ForeignKey {
            columns,
            table,
            referenced,
            follows_updates: false,
            emptied: Vec::new(),
        };
        if reader.take(&["match"]) {
            reader.advance(1);
        }
        loop {
            if reader.take(&["on", "update"]) {
                key.follows_updates = reader.take_any(&["cascade", "set"]).is_some();
                let _ = reader.take_any(&["null", "default", "restrict"]);
                reader.take(&["no", "action"]);
            } else if reader.take(&["on", "delete"]) {
                if reader.take(&["set"]) {
                    let _ = reader.take_any(&["null", "default"]);
                    key.emptied = if reader.is_symbol(0, "(") {
                        names(reader)?
                    } else {
                        key.columns.clone()
                    };
                }
                let _ = reader.take_any(&["cascade", "restrict"]);
                reader.take(&["no", "action"]);
            } else {
                break;
            }
        }
        self.foreign_keys.push(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lex::{LexLimits, lex};

    fn said(sql: &str) -> String {
        let limits = LexLimits {
            tokens_max: 1000,
            depth_max: 100,
        };
        let tokens = lex(sql, &limits).unwrap();
        let found = read(sql, &tokens).unwrap();
        let name = |name: &Name<'_>| match &name.schema {
            Some(schema) => format!("{schema}.{}", name.name),
            None => name.name.to_string(),
        };
        let mut words = Vec::new();
        if !found.columns.is_empty() {
            words.push(format!("columns {}", found.columns.join(" ")));
        }
        for unique in &found.unique {
            let kind = if unique.is_primary {
                "primary"
            } else {
                "unique"
            };
            let by = unique.index.as_deref().unwrap_or_default();
            words.push(format!("{kind} {}{by}", unique.columns.join(" ")));
        }
        for key in &found.foreign_keys {
            let follows = if key.follows_updates { " follows" } else { "" };
            words.push(format!(
                "foreign {} of {} {}{follows} emptied {}",
                key.columns.join(" "),
                name(&key.table),
                key.referenced.join(" "),
                key.emptied.join(" ")
            ));
        }
        words.extend(
            found
                .parents
                .iter()
                .map(|parent| format!("parent {}", name(parent))),
        );
        let parts = [
            ("attached", &found.attached),
            ("detached", &found.detached),
            ("disinherited", &found.disinherited),
        ];
        words.extend(
            parts
                .iter()
                .filter_map(|(word, part)| Some(format!("{word} {}", name(part.as_ref()?)))),
        );
        words.extend(
            found
                .like
                .iter()
                .map(|(table, indexes)| format!("like {} {indexes}", name(table))),
        );
        words.join("; ")
    }

    #[test]
    fn constraints_of_a_new_table_are_read() {
        for (sql, expected) in [
            (
                "CREATE TABLE a.t (id bigint PRIMARY KEY, \"B\" numeric(10, 2) DEFAULT (1) UNIQUE NOT NULL, c int CHECK (c > 0))",
                "columns id B c; primary id; unique B",
            ),
            (
                "CREATE UNLOGGED TABLE IF NOT EXISTS t (a int, CONSTRAINT p PRIMARY KEY (a, b), UNIQUE NULLS NOT DISTINCT (c), \
                 EXCLUDE USING gist (room WITH =, lower(x) WITH =, during WITH &&) WHERE (a > 0), CHECK (a > 0))",
                "columns a; primary a b; unique c; unique room",
            ),
            (
                "CREATE TABLE t (a int REFERENCES s.p (x) MATCH FULL ON DELETE SET NULL ON UPDATE CASCADE UNIQUE, b int, exclude int, \
                 FOREIGN KEY (a, b) REFERENCES q ON UPDATE NO ACTION ON DELETE SET NULL (b) DEFERRABLE) INHERITS (p, s.q)",
                "columns a b exclude; unique a; foreign a of s.p x follows emptied a; foreign a b of q  emptied b; parent p; parent s.q",
            ),
            (
                "CREATE TABLE t PARTITION OF p (PRIMARY KEY (a)) FOR VALUES IN (1, 2)",
                "primary a; parent p",
            ),
            (
                "CREATE TABLE t PARTITION OF p FOR VALUES FROM (1) TO (2)",
                "parent p",
            ),
            (
                "CREATE TABLE t (LIKE p INCLUDING ALL EXCLUDING INDEXES, LIKE q INCLUDING INDEXES)",
                "like p false; like q true",
            ),
            ("CREATE TABLE t ()", ""),
            ("CREATE INDEX i ON t (a)", ""),
            ("DROP TABLE t", ""),
        ] {
            assert_eq!(said(sql), expected, "{sql}");
        }
    }

    #[test]
    fn actions_of_alter_table_and_unique_indexes_are_read() {
        for (sql, expected) in [
            (
                "ALTER TABLE ONLY s.t ADD COLUMN IF NOT EXISTS a int UNIQUE, ADD b text, ADD CONSTRAINT u UNIQUE (a, b), \
                 ADD PRIMARY KEY USING INDEX i, DROP COLUMN c, ALTER d TYPE numeric(1, 2)",
                "columns a b; unique a; unique a b; primary i",
            ),
            (
                "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES p (b) NOT VALID",
                "foreign a of p b emptied ",
            ),
            (
                "ALTER TABLE t ATTACH PARTITION s.p FOR VALUES IN (1, 2)",
                "attached s.p",
            ),
            (
                "ALTER TABLE t DETACH PARTITION p CONCURRENTLY",
                "detached p",
            ),
            (
                "ALTER TABLE t INHERIT p, NO INHERIT q",
                "parent p; disinherited q",
            ),
            (
                "CREATE UNIQUE INDEX CONCURRENTLY i ON ONLY t USING btree (a, lower(b), (c), d COLLATE \"C\", e DESC) INCLUDE (f) WHERE g",
                "unique a e",
            ),
        ] {
            assert_eq!(said(sql), expected, "{sql}");
        }
    }
}

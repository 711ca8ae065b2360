//! Runs a statement on both sides and says whether they agree.

use crate::support::client::{Column, Outcome};
use crate::support::{Client, Failure, Reply};

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides agree.
    Same,
    /// The router refused, with this code.
    Refused(String),
    /// They do not agree; how.
    Different(String),
}

/// One PostgreSQL, the router, and its shards past the router.
pub struct Pair {
    one: Client,
    many: Client,
    shards: Vec<Client>,
}

impl Pair {
    /// The sides.
    pub fn new(one: Client, many: Client, shards: Vec<Client>) -> Self {
        Self { one, many, shards }
    }

    /// Runs `sql` on both sides: on the router first, so that what it refuses changes nothing on the other.
    pub fn run(&mut self, sql: &str, ordered: bool) -> Verdict {
        let many = self.many.simple(sql);
        if let Some(code) = many.failure.as_ref().and_then(Failure::refusal) {
            let hint = many.failure.as_ref().map_or("", Failure::hint);
            if hint.is_empty() {
                return Verdict::Different(format!("  refused with {code} but without a hint"));
            }
            return Verdict::Refused(code.into());
        }
        let one = self.one.simple(sql);
        if let Err(how) = same(one, many, ordered) {
            return Verdict::Different(how);
        }
        if !reads(sql) {
            return Verdict::Same;
        }
        let many = self.many.extended(sql, &[], true);
        let one = self.one.extended(sql, &[], true);
        match same(one, many, ordered) {
            Ok(()) => Verdict::Same,
            Err(how) => Verdict::Different(format!("  extended, binary results:\n{how}")),
        }
    }

    /// Whether all tables hold the same rows: those of the shards put together, read past the router. Tables that
    /// are on every shard alike are reference tables; each shard must then hold all rows.
    pub fn same_state(&mut self, tables: &[(&str, &str)]) -> Result<(), String> {
        for (table, order) in tables {
            let sql = format!("SELECT * FROM {table} ORDER BY {order}");
            let mut expected = self.one.rows(&sql);
            let parts: Vec<_> = self
                .shards
                .iter_mut()
                .map(|shard| shard.rows(&sql))
                .collect();
            if parts.iter().all(|part| *part == expected) {
                continue;
            }
            let mut found: Vec<_> = parts.concat();
            found.sort();
            expected.sort();
            if found != expected {
                let missing: Vec<_> = expected
                    .iter()
                    .filter(|row| !found.contains(row))
                    .take(3)
                    .collect();
                let extra: Vec<_> = found
                    .iter()
                    .filter(|row| !expected.contains(row))
                    .take(3)
                    .collect();
                let (have, want) = (found.len(), expected.len());
                return Err(format!(
                    "{table}: {have} rows for {want}; missing {missing:?}, extra {extra:?}"
                ));
            }
        }
        Ok(())
    }
}

fn reads(sql: &str) -> bool {
    ["SELECT", "WITH", "VALUES", "TABLE"]
        .iter()
        .any(|verb| sql.trim_start().to_uppercase().starts_with(verb))
}

fn same(one: Reply, many: Reply, ordered: bool) -> Result<(), String> {
    if one.status != many.status {
        let failure = many.failure.map(|failure| failure.to_string());
        return Err(format!(
            "  status {} became {}: {failure:?}",
            one.status, many.status
        ));
    }
    match (&one.failure, &many.failure) {
        (None, None) => {}
        (Some(one), Some(many)) if identity(one) == identity(many) => {}
        (one, many) => return Err(format!("  error\n    {one:?}\n  became\n    {many:?}")),
    }
    if one.outcomes.len() != many.outcomes.len() {
        return Err(format!(
            "  {} results became {}",
            one.outcomes.len(),
            many.outcomes.len()
        ));
    }
    one.outcomes
        .into_iter()
        .zip(many.outcomes)
        .try_for_each(|(one, many)| same_outcome(one, many, ordered))
}

/// What of an error does not depend on which row failed first: the detail does.
fn identity(failure: &Failure) -> Vec<Option<&String>> {
    ['V', 'C', 'M', 'P', 's', 't', 'c', 'd', 'n']
        .iter()
        .map(|code| failure.fields.get(code))
        .collect()
}

fn same_outcome(mut one: Outcome, mut many: Outcome, ordered: bool) -> Result<(), String> {
    // A table's OID is its server's own.
    let plain = |columns: &[Column]| -> Vec<Column> {
        columns
            .iter()
            .map(|column| Column {
                table_oid: 0,
                ..column.clone()
            })
            .collect()
    };
    if plain(&one.columns) != plain(&many.columns) {
        return Err(format!(
            "  columns {:?}\n  became  {:?}",
            one.columns, many.columns
        ));
    }
    if one.tag != many.tag {
        return Err(format!("  tag {:?} became {:?}", one.tag, many.tag));
    }
    if !ordered {
        one.rows.sort();
        many.rows.sort();
    }
    if let Some(at) =
        (0..one.rows.len().max(many.rows.len())).find(|at| one.rows.get(*at) != many.rows.get(*at))
    {
        let text = |outcome: &Outcome| match outcome.rows.get(at) {
            None => "no row".into(),
            Some(row) => {
                let values = row
                    .iter()
                    .map(|value| value.as_deref().map(String::from_utf8_lossy));
                format!("{:?}", values.collect::<Vec<_>>())
            }
        };
        return Err(format!("  row {at}: {} became {}", text(&one), text(&many)));
    }
    Ok(())
}

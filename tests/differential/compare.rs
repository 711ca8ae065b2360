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
            let mut expected = whole_rows(&mut self.one, &sql);
            let parts: Vec<_> = self
                .shards
                .iter_mut()
                .map(|shard| whole_rows(shard, &sql))
                .collect();
            // Copies are alike to the last time in them.
            let copies = parts.iter().all(|part| *part == parts[0]);
            let mut found = if copies && parts[0].len() == expected.len() {
                parts[0].clone()
            } else {
                parts.concat()
            };
            found.sort();
            expected.sort();
            rank(&mut found);
            rank(&mut expected);
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

/// A value, and whether its type is a time.
type Value = (String, bool);

fn whole_rows(client: &mut Client, sql: &str) -> Vec<Vec<Value>> {
    let reply = client.simple(sql);
    assert!(reply.failure.is_none(), "{sql}: {:?}", reply.failure);
    let outcome = reply.outcomes.into_iter().next().expect("rows");
    let are_times: Vec<bool> = outcome.columns.iter().map(is_time).collect();
    let text = |value: Option<Vec<u8>>| match value {
        None => "NULL".to_owned(),
        Some(value) => String::from_utf8(value).expect("text"),
    };
    let rows = outcome.rows.into_iter();
    rows.map(|row| {
        let values = row.into_iter().map(text);
        values.zip(are_times.iter().copied()).collect()
    })
    .collect()
}

/// Dates and times tell when the statement ran, which is never the same on both sides.
fn is_time(column: &Column) -> bool {
    matches!(column.type_oid, 1082 | 1083 | 1114 | 1184 | 1266)
}

/// Puts in the place of each time of now its rank among those of its column.
fn rank(rows: &mut [Vec<Value>]) {
    let width = rows.first().map_or(0, Vec::len);
    for column in 0..width {
        let of_now = |(text, is_time): &Value| *is_time && is_of_now(text.as_bytes());
        let mut known: Vec<String> = rows
            .iter()
            .map(|row| &row[column])
            .filter(|value| of_now(value))
            .map(|(text, _)| text.clone())
            .collect();
        known.sort();
        known.dedup();
        for row in rows.iter_mut().filter(|row| of_now(&row[column])) {
            let rank = known.binary_search(&row[column].0).unwrap();
            row[column].0 = format!("time {rank}");
        }
    }
}

/// As [`rank`], of an answer in text form.
fn rank_times(outcome: &mut Outcome) {
    for (place, column) in outcome.columns.iter().enumerate() {
        if !is_time(column) {
            continue;
        }
        let values = || outcome.rows.iter().filter_map(|row| row[place].clone());
        let mut known: Vec<_> = values().filter(|value| is_of_now(value)).collect();
        known.sort();
        known.dedup();
        for value in outcome
            .rows
            .iter_mut()
            .filter_map(|row| row[place].as_mut())
        {
            if let Ok(rank) = known.binary_search(value) {
                *value = format!("time {rank}").into_bytes();
            }
        }
    }
}

/// Whether a time is one that the tests' rows do not have: theirs are of the years before 2025, or whole seconds.
fn is_of_now(text: &[u8]) -> bool {
    let year = text.get(..5).filter(|year| year[4] == b'-');
    let year = year.and_then(|year| std::str::from_utf8(&year[..4]).ok()?.parse::<u32>().ok());
    match year {
        Some(year) => (2025..3000).contains(&year),
        None => text.contains(&b'.') && text.contains(&b':'),
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
    rank_times(&mut one);
    rank_times(&mut many);
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

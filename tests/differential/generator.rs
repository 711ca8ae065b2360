//! Makes statements that need one shard, a fan-out or a sorted merge, and makes them smaller again.

use crate::random::Random;
use crate::schema::EVENTS;
use crate::{aggregates, everyday};

/// A statement in parts, so that parts can be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// SELECT
    Select(Select),
    /// UPDATE or DELETE: the part before WHERE, and its predicates.
    Change {
        head: String,
        predicates: Vec<String>,
    },
    /// INSERT: the part before the rows, and the rows.
    Insert {
        head: String,
        rows: Vec<String>,
        tail: String,
    },
}

/// The parts of a SELECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// WITH and its query, or nothing.
    pub with: String,
    pub distinct: bool,
    pub columns: Vec<String>,
    pub from: String,
    pub predicates: Vec<String>,
    pub group_by: Option<String>,
    pub having: Vec<String>,
    pub order_by: Vec<String>,
    /// Whether `order_by` leaves no ties; only then may there be limit or offset.
    pub total: bool,
    pub limit: Option<usize>,
    pub offset: Option<usize>,
}

impl Statement {
    /// As text.
    pub fn sql(&self) -> String {
        let filtered = |predicates: &[String]| match predicates.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", predicates.join(" AND ")),
        };
        match self {
            Self::Select(select) => {
                let distinct = if select.distinct { "DISTINCT " } else { "" };
                let mut sql = format!(
                    "{}SELECT {distinct}{} FROM {}",
                    select.with,
                    select.columns.join(", "),
                    select.from
                );
                sql.push_str(&filtered(&select.predicates));
                if let Some(group_by) = &select.group_by {
                    sql.push_str(&format!(" GROUP BY {group_by}"));
                }
                if !select.having.is_empty() {
                    sql.push_str(&format!(" HAVING {}", select.having.join(" AND ")));
                }
                if !select.order_by.is_empty() {
                    sql.push_str(&format!(" ORDER BY {}", select.order_by.join(", ")));
                }
                if let Some(limit) = select.limit {
                    sql.push_str(&format!(" LIMIT {limit}"));
                }
                if let Some(offset) = select.offset {
                    sql.push_str(&format!(" OFFSET {offset}"));
                }
                sql
            }
            Self::Change { head, predicates } => format!("{head}{}", filtered(predicates)),
            Self::Insert { head, rows, tail } => format!("{head} VALUES {}{tail}", rows.join(", ")),
        }
    }

    /// Whether the order of the rows is fixed.
    pub fn is_ordered(&self) -> bool {
        matches!(self, Self::Select(select) if select.total)
    }

    /// Whether tables may be different afterwards.
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Select(_))
    }

    /// Leaves out parts for as long as `still_wrong` holds.
    pub fn shrink(self, mut still_wrong: impl FnMut(&Self) -> bool) -> Self {
        let mut smallest = self;
        while let Some(smaller) = smallest
            .smaller()
            .into_iter()
            .find(|smaller| still_wrong(smaller))
        {
            smallest = smaller;
        }
        smallest
    }

    /// All statements with one part less.
    fn smaller(&self) -> Vec<Self> {
        fn without<T: Clone>(list: &[T]) -> impl Iterator<Item = Vec<T>> {
            (0..list.len()).map(move |at| [&list[..at], &list[at + 1..]].concat())
        }
        match self {
            Self::Select(select) => {
                let mut all = Vec::new();
                let mut add = |select: Select| all.push(Self::Select(select));
                add(Select {
                    offset: None,
                    ..select.clone()
                });
                add(Select {
                    limit: None,
                    ..select.clone()
                });
                add(Select {
                    distinct: false,
                    ..select.clone()
                });
                if select.limit.is_none() && select.offset.is_none() {
                    add(Select {
                        order_by: Vec::new(),
                        total: false,
                        ..select.clone()
                    });
                }
                without(&select.predicates).for_each(|predicates| {
                    add(Select {
                        predicates,
                        ..select.clone()
                    })
                });
                without(&select.having).for_each(|having| {
                    add(Select {
                        having,
                        ..select.clone()
                    })
                });
                // The last sort key is the one that leaves no ties.
                let keys = select.order_by.len().saturating_sub(1);
                without(&select.order_by[..keys]).for_each(|mut order_by| {
                    order_by.extend(select.order_by.last().cloned());
                    add(Select {
                        order_by,
                        ..select.clone()
                    });
                });
                if select.columns.len() > 1 {
                    without(&select.columns).for_each(|columns| {
                        add(Select {
                            columns,
                            ..select.clone()
                        })
                    });
                }
                all.retain(|smaller| smaller != self);
                all
            }
            Self::Change { head, predicates } => without(predicates)
                .map(|predicates| Self::Change {
                    head: head.clone(),
                    predicates,
                })
                .collect(),
            Self::Insert { head, rows, tail } if rows.len() > 1 => without(rows)
                .map(|rows| Self::Insert {
                    head: head.clone(),
                    rows,
                    tail: tail.clone(),
                })
                .collect(),
            Self::Insert { .. } => Vec::new(),
        }
    }
}

const COLUMNS: [&str; 11] = [
    "id", "kind", "label", "title", "amount", "ratio", "at", "day", "tag", "raw", "ok",
];

/// The next statement.
pub fn statement(random: &mut Random) -> Statement {
    match random.below(21) {
        0..=5 => Statement::Select(select_events(random)),
        6..=7 => Statement::Select(select_joined(random)),
        8 => Statement::Select(select_grouped(random)),
        9 => change(random),
        10 => insert(random),
        11..=15 => Statement::Select(aggregates::select(random)),
        16..=19 => Statement::Select(everyday::select(random)),
        _ => Statement::Select(select_other(random)),
    }
}

fn id(random: &mut Random) -> usize {
    random.below(EVENTS + 20)
}

/// An integer as a literal of some form that PostgreSQL reads as it.
fn key(random: &mut Random, id: usize) -> String {
    let signed = if random.once_in(9) {
        format!("-{id}")
    } else {
        id.to_string()
    };
    let (first, rest) = signed.split_at(1);
    let code = first.as_bytes()[0];
    match random.below(22) {
        0 => format!("'{signed}'"),
        1 => format!("' {signed} '"),
        2 => format!("E'\\x{code:02x}{rest}'"),
        3 => format!("E'\\{code:03o}{rest}'"),
        4 => format!("E'\\u{code:04x}{rest}\\n'"),
        5 => format!("U&'\\{code:04x}{rest}'"),
        6 => format!("U&'!{code:04x}{rest}' UESCAPE '!'"),
        7 => format!("$k${signed}$k$"),
        8 => format!("'{first}'\n'{rest}'"),
        9 => format!("'{signed}'::bigint"),
        10 => format!("CAST('{signed}' AS int)"),
        11 => format!("({signed})"),
        12 => format!("{signed}.0"),
        13 => format!("int8 '{signed}'"),
        _ => signed,
    }
}

fn predicate(random: &mut Random, prefix: &str) -> String {
    let (one, other) = (id(random), id(random));
    let text = match random.below(20) {
        0..=2 => format!("#id = {}", key(random, one)),
        3 => format!(
            "#id IN ({}, {}, {})",
            key(random, one),
            key(random, other),
            id(random)
        ),
        4 => format!(
            "#id = ANY (ARRAY[{}, {}]::bigint[])",
            key(random, one),
            key(random, other)
        ),
        5 => format!(
            "#id BETWEEN {} AND {}",
            key(random, one),
            one + random.below(9)
        ),
        6 => format!("#id > {}", key(random, one)),
        7 => format!("({} = #id OR #id = {other})", key(random, one)),
        16 => format!(
            "#id IN (SELECT event_id FROM lines WHERE qty > {})",
            random.below(9)
        ),
        17 => format!(
            "EXISTS (SELECT FROM lines n WHERE n.event_id = #id AND n.no = {})",
            random.below(4)
        ),
        18 => format!(
            "#kind = (SELECT max(kind) FROM kinds WHERE kind < {})",
            random.below(6)
        ),
        19 => format!(
            "#id = (SELECT min(event_id) FROM lines WHERE event_id = {})",
            key(random, one)
        ),
        8 => format!("(#id = {one} OR #kind = {})", random.below(6)),
        9 => format!("NOT (#id = {one})"),
        10 => format!("#kind = {}", random.below(6)),
        11 => format!("#{} IS NULL", random.of(&COLUMNS)),
        12 => format!(
            "#label {} '{}'",
            random.of(&["<", ">=", "=", "<>"]),
            random.of(&["a", "b", "Zebra", "ä"])
        ),
        13 => format!(
            "#amount {} {}.5",
            random.of(&["<", ">", "<="]),
            random.below(9)
        ),
        14 => format!("#at < '2024-0{}-01'", 1 + random.below(9)),
        _ => format!(
            "#kind IN (SELECT kind FROM kinds WHERE name > '{}')",
            random.of(&["a", "o", "u"])
        ),
    };
    text.replace('#', prefix)
}

/// Predicates on `events`.
pub fn predicates(random: &mut Random, prefix: &str) -> Vec<String> {
    (0..random.below(3))
        .map(|_| predicate(random, prefix))
        .collect()
}

fn select_events(random: &mut Random) -> Select {
    let mut columns: Vec<String> = match random.below(4) {
        0 => vec!["*".into()],
        1 => vec![
            "id".into(),
            "upper(label)".into(),
            "amount * 2 AS twice".into(),
        ],
        _ => (0..1 + random.below(4))
            .map(|_| random.of(&COLUMNS).to_owned())
            .collect(),
    };
    columns.dedup();
    let (order_by, total) = order(random, "", "id");
    let (limit, offset) = window(random, total);
    let at = id(random);
    let key = key(random, at);
    let (with, from) = match random.below(8) {
        0 => ("", "(SELECT * FROM events) AS events".to_owned()),
        1 => (
            "",
            format!("(SELECT * FROM events WHERE id = {key}) AS events"),
        ),
        2 => (
            "WITH events AS (SELECT * FROM events WHERE kind < 4) ",
            "events".to_owned(),
        ),
        3 => (
            "WITH w AS MATERIALIZED (SELECT * FROM events) ",
            format!("(SELECT * FROM w WHERE id = {key}) AS events"),
        ),
        _ => ("", "events".to_owned()),
    };
    let (with, predicates) = (with.to_owned(), predicates(random, ""));
    Select {
        with,
        distinct: false,
        columns,
        from,
        predicates,
        group_by: None,
        having: Vec::new(),
        order_by,
        total,
        limit,
        offset,
    }
}

fn order(random: &mut Random, prefix: &str, unique: &str) -> (Vec<String>, bool) {
    if random.once_in(3) {
        return (Vec::new(), false);
    }
    let mut order_by = Vec::new();
    for _ in 0..random.below(3) {
        let direction = random.of(&["", " DESC", " ASC", " DESC NULLS LAST", " NULLS FIRST"]);
        order_by.push(format!("{prefix}{}{direction}", random.of(&COLUMNS)));
    }
    order_by.push(format!("{prefix}{unique}{}", random.of(&["", " DESC"])));
    (order_by, true)
}

/// LIMIT and OFFSET.
pub fn window(random: &mut Random, total: bool) -> (Option<usize>, Option<usize>) {
    let limit = (total && random.once_in(2))
        .then(|| random.of(&[&0, &1, &7, &1000]))
        .copied();
    let offset = (total && random.once_in(4))
        .then(|| random.of(&[&0, &3, &500]))
        .copied();
    (limit, offset)
}

fn select_joined(random: &mut Random) -> Select {
    let (from, unique) = match random.below(4) {
        0 => ("events e JOIN lines l ON l.event_id = e.id", "e.id, l.no"),
        1 => (
            "events e LEFT JOIN lines l ON l.event_id = e.id",
            "e.id, l.no",
        ),
        2 => ("events e LEFT JOIN kinds l ON l.kind = e.kind", "e.id"),
        _ => ("events e JOIN kinds l USING (kind)", "e.id"),
    };
    let columns = match from.contains("kinds") {
        true => vec!["e.id".into(), "l.name".into(), "e.amount".into()],
        false => vec![
            "e.id".into(),
            "l.no".into(),
            "l.qty".into(),
            "e.label".into(),
        ],
    };
    let total = random.once_in(2);
    let order_by = if total {
        vec![unique.to_owned()]
    } else {
        Vec::new()
    };
    let (limit, offset) = window(random, total);
    let predicates = predicates(random, "e.");
    Select {
        with: String::new(),
        distinct: false,
        columns,
        from: from.into(),
        predicates,
        group_by: None,
        having: Vec::new(),
        order_by,
        total,
        limit,
        offset,
    }
}

fn select_grouped(random: &mut Random) -> Select {
    let predicates = predicates(random, "")
        .iter()
        .map(|text| text.replace("id", "event_id"))
        .collect::<Vec<_>>();
    // Of the events' predicates only those on the key make sense here.
    let known = |text: &String| {
        !text.contains("SELECT")
            && !COLUMNS
                .iter()
                .any(|column| *column != "id" && text.contains(column))
    };
    let predicates = predicates.into_iter().filter(known).collect();
    let aggregates = [
        "count(*)",
        "sum(qty)",
        "min(no)",
        "max(what)",
        "avg(qty)",
        "count(DISTINCT what)",
    ];
    let mut columns = vec![
        "event_id".to_owned(),
        random.of(&aggregates).into(),
        random.of(&aggregates).into(),
    ];
    let distinct = random.once_in(3);
    if distinct {
        columns = vec!["event_id".into(), "what".into()];
    }
    let group_by = (!distinct).then(|| "event_id".to_owned());
    let total = random.once_in(2);
    let order_by = match (total, distinct) {
        (false, _) => Vec::new(),
        (true, true) => vec!["event_id".into(), "what".into()],
        (true, false) => vec!["event_id".into()],
    };
    let (limit, offset) = window(random, total);
    Select {
        with: String::new(),
        distinct,
        columns,
        from: "lines".into(),
        predicates,
        group_by,
        having: Vec::new(),
        order_by,
        total,
        limit,
        offset,
    }
}

fn select_other(random: &mut Random) -> Select {
    let people = [
        "name = 'Ann'",
        "name IN ('ä', '', 'nobody')",
        "age > 8",
        "name < 'b'",
        "name = 'a''b'",
        r"name = E'\x41nn'",
        r"name IN (E'A\156n', U&'\00e4', $$a'b$$)",
        "name = 'A'\n'nn'",
        "name = E'a\\'b' OR name = ''",
    ];
    let things = [
        "id = '12345678-9ABC-4DEF-8123-456789ABCDEF'",
        "id = 'ffffffff-0000-4000-8000-00000000000b'::uuid",
        "id IN ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000000')",
        "n > 1",
    ];
    let (from, key, predicate) = match random.below(7) {
        0 => ("people", "name", random.of(&people)),
        1 => ("things", "id", random.of(&things)),
        2 => (
            "sparse",
            "id",
            random.of(&["id = 1", "n IS NULL", "id = 9", "true"]),
        ),
        3 => (
            "kinds",
            "kind",
            random.of(&["kind = 1", "name IS NULL", "kind > 1"]),
        ),
        4 => (
            "kind_names",
            "kind",
            random.of(&["kind = 1", "name > 'O'", "kind IN (SELECT kind FROM kinds)"]),
        ),
        5 => (
            "noted",
            "id",
            random.of(&["id = 1", "name IS NULL", "note <> ''"]),
        ),
        _ => (
            "audit",
            "id",
            random.of(&["id = 1", "note IS NULL", "id > 1"]),
        ),
    };
    let total = random.once_in(2);
    let order_by = if total {
        vec![format!("{key}{}", random.of(&["", " DESC"]))]
    } else {
        Vec::new()
    };
    let (limit, offset) = window(random, total);
    let predicates = if random.once_in(4) {
        Vec::new()
    } else {
        vec![predicate.to_owned()]
    };
    let (columns, from) = (vec!["*".into()], from.into());
    Select {
        with: String::new(),
        distinct: false,
        columns,
        from,
        predicates,
        group_by: None,
        having: Vec::new(),
        order_by,
        total,
        limit,
        offset,
    }
}

fn change(random: &mut Random) -> Statement {
    let heads = [
        "UPDATE events SET kind = kind + 1",
        "UPDATE events SET label = label || '!', amount = amount - 1",
        "UPDATE events SET raw = NULL, ok = NOT ok",
        "DELETE FROM events",
        "UPDATE lines SET qty = qty * 2",
    ];
    let head = random.of(&heads).to_owned();
    if head.contains("lines") {
        return Statement::Change {
            head,
            predicates: vec![format!("event_id = {}", id(random))],
        };
    }
    let mut predicates = predicates(random, "");
    if head.starts_with("DELETE") {
        predicates.push(format!("id < {}", random.below(30)));
    }
    Statement::Change { head, predicates }
}

fn insert(random: &mut Random) -> Statement {
    let mut ids: Vec<usize> = (0..1 + random.below(5))
        .map(|_| id(random) + EVENTS / 2)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let rows = ids
        .iter()
        .map(|id| format!("({}, {}, 'new')", key(random, *id), random.below(6)))
        .collect();
    let tail = random.of(&[
        "",
        " ON CONFLICT DO NOTHING",
        " ON CONFLICT (id) DO UPDATE SET label = excluded.label",
    ]);
    let tail = tail.to_owned();
    Statement::Insert {
        head: "INSERT INTO events (id, kind, label)".into(),
        rows,
        tail,
    }
}

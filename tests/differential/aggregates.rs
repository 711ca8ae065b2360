//! Makes queries of groups and aggregates, of all kinds that shards may compute in parts, and of others.

use crate::generator::{Select, predicates, window};
use crate::random::Random;

/// What events are grouped by; `#` stands for their name.
const KEYS: [&str; 18] = [
    "#kind",
    "#ok",
    "#label",
    "#title",
    "#day",
    "#tag",
    "#amount",
    "#ratio",
    "#at",
    "#raw",
    "#kind % 3",
    "#id % 5",
    "lower(#title)",
    "date_trunc('month', #at)",
    "extract(year FROM #day)",
    "#kind IS NULL",
    "coalesce(#label, 'none')",
    "CASE WHEN #amount > 2 THEN 'much' ELSE #label END",
];

/// Columns that are compared.
const ORDERED: [&str; 11] = [
    "#id",
    "#kind",
    "#label",
    "#title",
    "#amount",
    "#ratio",
    "#at",
    "#day",
    "#kind + #id",
    "upper(#title)",
    "#amount / 3",
];

/// Numbers that are added in any order to the same sum.
const EXACT: [&str; 8] = [
    "#kind",
    "#id",
    "#amount",
    "#kind * 2 - 1",
    "#id % 7",
    "#amount * #kind",
    "CASE WHEN #ok THEN 1 ELSE 0 END",
    "#kind::smallint",
];

/// How numbers spread.
const SPREADS: [&str; 6] = [
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "variance",
    "var_pop",
    "var_samp",
];

/// What is made of distinct values in their order.
const OF_DISTINCT: [&str; 5] = [
    "array_agg(DISTINCT #kind)",
    "array_agg(DISTINCT #title ORDER BY #title DESC)",
    "string_agg(DISTINCT #label, '|' ORDER BY #label)",
    "string_agg(DISTINCT #title, ',')",
    "avg(DISTINCT #kind)",
];

/// The rows that are counted, and their events' name.
const SOURCES: [(&str, &str); 9] = [
    ("events", ""),
    ("events", ""),
    ("events e", "e."),
    ("events e JOIN lines l ON l.event_id = e.id", "e."),
    ("events e LEFT JOIN lines l ON l.event_id = e.id", "e."),
    ("events e LEFT JOIN kinds k ON k.kind = e.kind", "e."),
    ("events e JOIN sparse s USING (id)", "e."),
    ("(SELECT * FROM events WHERE id < 120) e", "e."),
    ("events e JOIN lines l ON l.qty = e.kind AND l.no = 1", "e."),
];

fn aggregate(random: &mut Random) -> String {
    let ordered = random.of(&ORDERED);
    let exact = random.of(&EXACT);
    let call = match random.below(25) {
        0..=2 => "count(*)".to_owned(),
        3 => format!("count({ordered})"),
        4 => format!("count(DISTINCT {ordered})"),
        5..=7 => format!("sum({exact})"),
        8..=10 => format!("avg({exact})"),
        11..=12 => format!("min({ordered})"),
        13..=14 => format!("max({ordered})"),
        15 => format!("{}(#ok)", random.of(&["bool_and", "bool_or", "every"])),
        16 => format!("{}(#kind)", random.of(&["bit_and", "bit_or", "bit_xor"])),
        17 => format!("max(DISTINCT {ordered})"),
        18 => format!("{}(DISTINCT {exact})", random.of(&["sum", "avg", "count"])),
        19 => format!("{}({exact})", random.of(&SPREADS)),
        22 => format!("{}({exact})", random.of(&SPREADS)),
        23 => format!(
            "count(DISTINCT {})",
            random.of(&["#kind", "#title", "#at", "#tag", "#amount"])
        ),
        24 => random.of(&OF_DISTINCT).to_string(),
        20 => "count(#id) + sum(#kind)".to_owned(),
        _ => return "array_agg(DISTINCT #id ORDER BY #id)".to_owned(),
    };
    let is_call = call.ends_with(')') && !call.contains(" + sum");
    let filter = match random.below(8) {
        _ if !is_call => "",
        0 => " FILTER (WHERE #ok)",
        1 => " FILTER (WHERE #kind > 2 AND #label IS NOT NULL)",
        2 => " FILTER (WHERE #id % 2 = 0 OR #title < 'b')",
        _ => "",
    };
    let call = format!("{call}{filter}");
    match random.below(10) {
        0 => format!("({call})::text"),
        1 => format!("coalesce(({call})::text, 'none')"),
        2 => format!("{call} IS NULL"),
        3 => format!("CASE WHEN count(*) > 3 THEN {call} END"),
        4 => format!("nullif({call}, {call})"),
        _ => call,
    }
}

fn having(random: &mut Random) -> String {
    let number = random.below(12);
    match random.below(6) {
        0 => format!("count(*) > {number}"),
        1 => format!("min(#id) < {}", number * 10),
        2 => "bool_or(#ok)".to_owned(),
        3 => format!("sum(#kind) IS NOT NULL OR count(*) < {number}"),
        4 => format!("avg(#amount) BETWEEN -{number} AND {number}"),
        _ => "max(#label) > min(#label)".to_owned(),
    }
}

/// A query of groups, of all rows as one, or of distinct rows.
pub fn select(random: &mut Random) -> Select {
    let (from, prefix) = SOURCES[random.below(SOURCES.len())];
    let mut keys: Vec<String> = (0..random.below(4))
        .map(|_| random.of(&KEYS).to_owned())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    if random.once_in(6) && !keys.is_empty() {
        let select = distinct(random, keys);
        return named(random, select, from, prefix);
    }
    let count = 1 + random.below(3);
    let mut columns = keys.clone();
    columns.extend((0..count).map(|_| aggregate(random)));
    let is_plain = |key: &String| key.starts_with('#') && !key.contains(' ');
    let sets = !keys.is_empty() && keys.iter().all(is_plain) && random.once_in(3);
    let list = keys.join(", ");
    let group_by = match keys.len() {
        0 => None,
        _ if sets => Some(match random.below(3) {
            0 => format!("ROLLUP ({list})"),
            1 => format!("CUBE ({list})"),
            _ => format!("GROUPING SETS (({list}), ({}), ())", keys[0]),
        }),
        // By their numbers.
        length if random.once_in(3) => {
            let numbers: Vec<String> = (1..=length).map(|number| number.to_string()).collect();
            Some(numbers.join(", "))
        }
        _ => Some(list.clone()),
    };
    if sets {
        columns.push(format!("grouping({list})"));
    }
    if group_by.is_some() && random.once_in(5) {
        columns.push(match random.below(3) {
            0 => format!("rank() OVER (ORDER BY count(*) DESC, {})", keys[0]),
            1 => format!("sum(count(*)) OVER (PARTITION BY {})", keys[0]),
            _ => "max(max(#id)) OVER ()".to_owned(),
        });
    }
    let having = (0..random.below(4).saturating_sub(2)).map(|_| having(random));
    let having = having.collect();
    let total = random.once_in(2);
    // All columns, in any order of theirs.
    let mut order_by: Vec<String> = (1..=columns.len())
        .map(|number| number.to_string())
        .collect();
    let first = random.below(order_by.len());
    order_by.rotate_left(first);
    if random.once_in(3) {
        order_by[0].push_str(random.of(&[" DESC", " NULLS FIRST", " DESC NULLS LAST"]));
    }
    let distinct = random.once_in(8);
    if !distinct && total && random.once_in(3) {
        order_by.insert(0, aggregate(random));
    }
    let (limit, offset) = window(random, total);
    let select = Select {
        with: String::new(),
        distinct,
        columns,
        from: String::new(),
        predicates: Vec::new(),
        group_by,
        having,
        order_by: if total { order_by } else { Vec::new() },
        total,
        limit,
        offset,
    };
    named(random, select, from, prefix)
}

fn distinct(random: &mut Random, columns: Vec<String>) -> Select {
    let total = random.once_in(2);
    let order_by = if total { columns.clone() } else { Vec::new() };
    let (limit, offset) = window(random, total);
    Select {
        with: String::new(),
        distinct: true,
        columns,
        from: String::new(),
        predicates: Vec::new(),
        group_by: None,
        having: Vec::new(),
        order_by,
        total,
        limit,
        offset,
    }
}

/// Puts in the source and its name.
fn named(random: &mut Random, select: Select, from: &str, prefix: &str) -> Select {
    let name = |list: Vec<String>| {
        let named = list.iter().map(|text| text.replace('#', prefix));
        named.collect::<Vec<_>>()
    };
    Select {
        columns: name(select.columns),
        from: from.to_owned(),
        predicates: predicates(random, prefix),
        group_by: select.group_by.map(|text| text.replace('#', prefix)),
        having: name(select.having),
        order_by: name(select.order_by),
        ..select
    }
}

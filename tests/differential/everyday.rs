//! Makes queries of several shards in the forms that applications send: in orders that only PostgreSQL knows, of rows as
//! values, by sets and ranges of values, with names in full.

use crate::generator::{Select, window};
use crate::random::Random;

/// What rows of `odds` are sorted by, before their id.
const ODD_KEYS: [&str; 19] = [
    "#mood",
    "#moods",
    "#tags",
    "#words",
    "#pair",
    "#price",
    "#doc",
    "#span",
    "#net",
    "#wait",
    "#hour",
    "#paid",
    "#bits",
    "#title",
    "coalesce(#mood, 'glad')",
    "#doc->>'a'",
    "CASE WHEN #id < 20 THEN #mood END",
    "lower(#title)",
    "#mood::text",
];

/// What events are sorted by, before their id.
const EVENT_KEYS: [&str; 18] = [
    "#title",
    "upper(#title)",
    "lower(#label)",
    "#label || '!'",
    "#title || #kind",
    "#label COLLATE \"und-x-icu\"",
    "#title COLLATE \"C\"",
    "#kind::text",
    "to_char(#day, 'YYYY-MM')",
    "length(#title)",
    "coalesce(#title, 'none')",
    "CASE WHEN #ok THEN #title ELSE 'none' END",
    "nullif(#label, 'a')",
    "md5(#title)",
    "#amount - #kind",
    "extract(month FROM #day)",
    "#kind % 3",
    "row(#kind, #ok)",
];

/// What is asked of rows.
const PREDICATES: [&str; 14] = [
    "#id BETWEEN SYMMETRIC 30 AND 4",
    "#id NOT BETWEEN SYMMETRIC 9 AND 2",
    "#id BETWEEN ASYMMETRIC 9 AND 31",
    "#id = ANY (VALUES (3), (5), (37), (199))",
    "#id <> ALL (VALUES (1), (2))",
    "#id IN (VALUES (3), (5), (7), (11))",
    "#id IN (SELECT id FROM (TABLE sparse) s)",
    "#id < 25",
    "#id % 3 = 1",
    "#title > 'a'",
    "#title IS NOT NULL",
    "(#id, 1) IN (VALUES (4, 1), (8, 1))",
    "EXISTS (TABLE sparse)",
    "#id >= (SELECT min(sparse.id) FROM public.sparse)",
];

/// What is made of rows; `@` stands for the row.
const ROWS: [&str; 12] = [
    "@::text",
    "row_to_json(@)::text",
    "to_jsonb(@)->>'title'",
    "to_jsonb(@.*) - 'id'",
    "@ IS NULL",
    "@ IS NOT NULL",
    "(@).title",
    "(@).id + 1",
    "json_build_object('row', to_json(@))::text",
    "coalesce(@.title, 'none')",
    "count(@) OVER (PARTITION BY @.id)",
    "pg_typeof(@) IS NULL",
];

/// What is made of all rows; `@` stands for the row.
const OF_ALL: [&str; 9] = [
    "count(@)",
    "count(@.*)",
    "json_agg(@ ORDER BY @.id)::text",
    "jsonb_agg(to_jsonb(@) ORDER BY @.id DESC)",
    "array_agg(@ ORDER BY @.id)::text",
    "string_agg(@::text, ';' ORDER BY @.id)",
    "max(row_to_json(@)::text)",
    "count(DISTINCT @.title)",
    "coalesce(json_agg(@.title ORDER BY @.id), '[]')::text",
];

/// Sources whose rows are those of `odds` or `events`: text, whether of `odds`, the row's name, the columns' prefix.
const SOURCES: [(&str, bool, &str, &str); 8] = [
    ("odds o", true, "o", "o."),
    ("odds", true, "odds", ""),
    ("public.odds", true, "odds", "public.odds."),
    ("(SELECT id, title, tags, mood FROM odds) o", true, "o", ""),
    ("events e", false, "e", "e."),
    ("events", false, "events", ""),
    ("public.events", false, "events", "public.events."),
    ("(TABLE events) e", false, "e", "e."),
];

/// The next query.
pub fn select(random: &mut Random) -> Select {
    let (from, is_odds, row, prefix) = SOURCES[random.below(SOURCES.len())];
    let with_types = !from.contains("SELECT");
    let keys: &[&str] = match (is_odds, with_types) {
        (true, true) => &ODD_KEYS,
        (true, false) => &["#mood", "#tags", "#title", "lower(#title)"],
        (false, _) => &EVENT_KEYS,
    };
    let named = |text: &str| text.replace('#', prefix).replace('@', row);
    let predicates = (0..random.below(3))
        .map(|_| named(random.of(&PREDICATES)))
        .collect();
    let is_of_all = random.once_in(3);
    let columns: Vec<String> = match is_of_all {
        true => (0..1 + random.below(2))
            .map(|_| named(random.of(&OF_ALL)))
            .collect(),
        false => {
            let made = (0..random.below(3)).map(|_| named(random.of(&ROWS)));
            std::iter::once(format!("{prefix}id")).chain(made).collect()
        }
    };
    let total = !is_of_all && !random.once_in(4);
    let mut order_by = Vec::new();
    if total {
        for _ in 0..1 + random.below(2) {
            let direction = random.of(&["", " DESC", " DESC NULLS LAST", " NULLS FIRST"]);
            order_by.push(format!("{}{direction}", named(random.of(keys))));
        }
        order_by.push(format!("{prefix}id"));
    }
    let (limit, offset) = window(random, total);
    Select {
        with: String::new(),
        distinct: false,
        columns,
        from: from.to_owned(),
        predicates,
        group_by: None,
        having: Vec::new(),
        order_by,
        total,
        limit,
        offset,
    }
}

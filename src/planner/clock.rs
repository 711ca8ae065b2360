//! Which texts PostgreSQL reads as the time of its clock, and which types read them: each shard has a clock of its own.
//! And which calls give it: [`time_calls`].

use crate::sql::lex::{Token, TokenKind};

/// Words that stand for the time; the input of date and time types takes them in any case.
const NOW: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// What may stand beside them.
const BESIDE: [&str; 43] = [
    "ad",
    "allballs",
    "am",
    "at",
    "bc",
    "d",
    "dst",
    "epoch",
    "fri",
    "friday",
    "h",
    "j",
    "jd",
    "jt",
    "m",
    "mm",
    "mon",
    "monday",
    "null",
    "on",
    "pm",
    "s",
    "sat",
    "saturday",
    "sun",
    "sunday",
    "t",
    "thu",
    "thur",
    "thurs",
    "thursday",
    "tue",
    "tues",
    "tuesday",
    "wed",
    "wednes",
    "wednesday",
    "weds",
    "y",
    "julian",
    "time",
    "noon",
    "midnight",
];

/// First parts of the names of time zones that have several.
const REGIONS: [&str; 19] = [
    "africa",
    "america",
    "antarctica",
    "arctic",
    "asia",
    "atlantic",
    "australia",
    "brazil",
    "canada",
    "chile",
    "etc",
    "europe",
    "indian",
    "mexico",
    "pacific",
    "posix",
    "right",
    "systemv",
    "us",
];

/// Abbreviations and short names of time zones, sorted.
#[rustfmt::skip]
const ZONES: [&str; 270] = [
    "acdt", "acsst", "acst", "act", "acwst", "adt", "aedt", "aesst", "aest", "aft", "akdt", "akst", "almst", "almt",
    "amst", "amt", "anast", "anat", "aqtst", "aqtt", "arst", "art", "ast", "awsst", "awst", "azost", "azot", "azst",
    "azt", "bdst", "bdt", "bnt", "bort", "bot", "bra", "brst", "brt", "bst", "btt", "cadt", "cast", "cat", "cct",
    "cdt", "cest", "cet", "cetdst", "chadt", "chast", "chat", "chost", "chot", "chst", "chut", "cit", "ckt", "clst",
    "clt", "cot", "cst", "cuba", "cvt", "cwst", "cxt", "davt", "ddut", "easst", "east", "eat", "ect", "edt", "eest",
    "eet", "eetdst", "egst", "egt", "egypt", "eire", "eit", "est", "factory", "fet", "fjst", "fjt", "fkst", "fkt",
    "fnst", "fnt", "galt", "gamt", "gb", "gest", "get", "gft", "gilt", "gmt", "greenwich", "gst", "gyt", "hadt",
    "hast", "hdt", "hkt", "hongkong", "hovst", "hovt", "hst", "iceland", "ict", "idt", "iot", "iran", "irdt", "irkst",
    "irkt", "irst", "irt", "israel", "ist", "jamaica", "japan", "jayt", "jst", "kdt", "kgst", "kgt", "kost", "krast",
    "krat", "kst", "kwajalein", "lhdt", "lhst", "libya", "ligt", "lint", "lkt", "lmt", "localtime", "magst", "magt",
    "mart", "mawt", "mdt", "mest", "mesz", "met", "metdst", "mez", "mht", "mist", "mmt", "mpt", "msd", "msk", "mst",
    "must", "mut", "mvt", "myt", "navajo", "nct", "ndt", "nft", "novst", "novt", "npt", "nrt", "nst", "nut", "nz",
    "nzdt", "nzst", "nzt", "omsst", "omst", "orat", "pdt", "pet", "petst", "pett", "pgt", "phot", "pht", "pkst",
    "pkt", "pmdt", "pmst", "poland", "pont", "portugal", "posixrules", "prc", "pst", "pwt", "pyst", "pyt", "qyzt",
    "ret", "roc", "rok", "rott", "sadt", "sakst", "sakt", "samst", "samt", "sast", "sat", "sbt", "sct", "sgt",
    "singapore", "sret", "srt", "sst", "su", "syot", "taht", "tft", "tjt", "tkt", "tlt", "tmt", "tot", "trut",
    "turkey", "tvt", "uct", "ulast", "ulat", "universal", "ut", "utc", "uyst", "uyt", "uzst", "uzt", "vet", "vlast",
    "vlat", "volt", "vost", "vut", "w", "wadt", "wakt", "wast", "wat", "wdt", "west", "wet", "wetdst", "wft", "wgst",
    "wgt", "wib", "wit", "wita", "wsdt", "wsst", "wst", "xjt", "yakst", "yakt", "yapt", "yekst", "yekt", "z", "zulu",
];

/// Whether PostgreSQL may read a text as a date or time that depends on the clock, or as an array, range or row of
/// such: it is one of the words of [`NOW`], beside times, days and zones at most. PostgreSQL skips punctuation there.
pub fn tells_time(text: &str) -> bool {
    let mut special = false;
    let is_space =
        |character: char| character.is_ascii_whitespace() || ",()[]{}\"".contains(character);
    text.split(is_space).all(|part| {
        let region = part.split_once('/').map(|(region, _)| region);
        let in_region = |region: &str| {
            REGIONS
                .iter()
                .any(|known| region.eq_ignore_ascii_case(known))
        };
        if region.is_some_and(in_region) {
            return true;
        }
        part.split(|character: char| character.is_ascii() && !character.is_ascii_alphanumeric())
            .map(|word| word.trim_matches(|character: char| character.is_ascii_digit()))
            .filter(|word| !word.is_empty())
            .all(|word| {
                let is_one_of =
                    |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
                let now = is_one_of(&NOW);
                special |= now;
                now || is_one_of(&BESIDE) || is_zone(word)
            })
    }) && special
}

/// An abbreviation, or a zone as POSIX writes it.
fn is_zone(word: &str) -> bool {
    let posix = word.len() <= 16
        && word.bytes().any(|byte| byte.is_ascii_digit())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    posix
        || ZONES
            .binary_search(&word.to_ascii_lowercase().as_str())
            .is_ok()
}

/// Whether any text in a row of COPY data may tell the time. `quote`: the byte that may hide a word's letters, an escape
/// or a quote.
pub fn may_tell_time(row: &[u8], quote: u8) -> bool {
    row.iter().enumerate().any(|(at, byte)| match byte {
        b'n' | b'N' | b't' | b'T' | b'y' | b'Y' => NOW.iter().any(|word| {
            let here = row.get(at..at + word.len());
            here.is_some_and(|here| here.eq_ignore_ascii_case(word.as_bytes()))
        }),
        byte => *byte == quote,
    })
}

/// Whether values of a type may be dates or times, or hold such. 0, for not known, may.
pub fn may_be_time(type_oid: u32) -> bool {
    !matches!(
        type_oid,
        // bool, bytea, "char", name, int8, int2, int4, text, oid
        16..=21 | 23 | 25 | 26
        // json, xml, float4, float8, money, macaddr, inet, cidr, macaddr8
        | 114 | 142 | 700 | 701 | 790 | 829 | 869 | 650 | 774
        // bpchar, varchar, interval, bit, varbit, numeric, uuid, tsvector, jsonb
        | 1042 | 1043 | 1186 | 1560 | 1562 | 1700 | 2950 | 3614 | 3802
        // arrays of: bool, bytea, int2, int4, text, bpchar, varchar, int8, float4, float8, numeric, uuid, json, jsonb
        | 1000 | 1001 | 1005 | 1007 | 1009 | 1014 | 1015 | 1016 | 1021 | 1022 | 1231 | 2951 | 199 | 3807
        // int4range, numrange, int8range
        | 3904 | 3906 | 3926
    )
}

/// Functions without arguments that give the time at which the transaction began.
pub(super) const BEGAN: [&str; 2] = ["now", "transaction_timestamp"];

/// Keywords that give it, and the type of what they give.
const KEYWORDS: [(&str, &str); 5] = [
    ("current_timestamp", "timestamptz"),
    ("current_date", "date"),
    ("current_time", "timetz"),
    ("localtimestamp", "timestamp"),
    ("localtime", "time"),
];

/// Words after which a list of results begins, and those before which it ends.
const LISTS: [&str; 2] = ["select", "returning"];
const AFTER_LISTS: [&str; 12] = [
    "from",
    "into",
    "where",
    "group",
    "having",
    "window",
    "order",
    "limit",
    "union",
    "intersect",
    "except",
    "values",
];

/// A call that gives the time at which the transaction began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimeCall {
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// What the time, a timestamptz, is cast to then: `::date`; or nothing.
    pub cast: String,
}

/// The calls in a statement, or in an expression. None if there is one whose value may name a column of a result; `unnamed`
/// are the first token of a list of results, and the one behind it, whose columns' names nobody sees.
pub(super) fn time_calls(
    sql: &str,
    tokens: &[Token],
    unnamed: Option<(usize, usize)>,
) -> Option<Vec<TimeCall>> {
    let mut found = Vec::new();
    // By depth of parentheses, whether a list of results is being read; parentheses in one are a part of it.
    let mut lists = vec![false];
    for (place, token) in tokens.iter().enumerate() {
        let is_unnamed = unnamed.is_some_and(|(first, behind)| (first..behind).contains(&place));
        if token.is_symbol(sql, "(") {
            lists.push(*lists.last()?);
        } else if token.is_symbol(sql, ")") {
            lists.pop();
        } else if let Some(call) = call(sql, tokens, place) {
            if *lists.last()? {
                return None;
            }
            found.push(call);
        } else if token.kind == TokenKind::Word {
            let is_any = |words: &[&str]| words.iter().any(|word| token.is(sql, word));
            let list = lists.last_mut()?;
            let begins = is_any(&LISTS) && !(is_unnamed && place == unnamed?.0);
            *list = begins || *list && !is_any(&AFTER_LISTS);
        }
    }
    Some(found)
}

/// The call whose name is at `place`.
fn call(sql: &str, tokens: &[Token], place: usize) -> Option<TimeCall> {
    let name = &tokens[place];
    let before = |count: usize| place.checked_sub(count).map(|place| &tokens[place]);
    let symbol =
        |token: Option<&Token>, symbol| token.is_some_and(|token| token.is_symbol(sql, symbol));
    let qualified = symbol(before(1), ".");
    let call = |start: usize, end: usize, cast: String| Some(TimeCall { start, end, cast });
    if BEGAN.iter().any(|function| name.is(sql, function)) {
        let called = symbol(tokens.get(place + 1), "(") && symbol(tokens.get(place + 2), ")");
        let end = tokens.get(place + 2).filter(|_| called)?.end;
        if !qualified {
            return call(name.start, end, String::new());
        }
        let schema = before(2).filter(|schema| schema.is(sql, "pg_catalog"))?;
        let whole = !symbol(before(3), ".");
        return call(schema.start, end, String::new()).filter(|_| whole);
    }
    let (_, type_name) = KEYWORDS.iter().find(|(word, _)| name.is(sql, word))?;
    if qualified || before(1).is_some_and(|token| token.is(sql, "as")) {
        return None;
    }
    if !symbol(tokens.get(place + 1), "(") {
        let cast = match *type_name {
            "timestamptz" => String::new(),
            other => format!("::{other}"),
        };
        return call(name.start, name.end, cast);
    }
    // With a precision.
    let precision = tokens.get(place + 2)?;
    let close = tokens
        .get(place + 3)
        .filter(|close| close.is_symbol(sql, ")"))?;
    let digits = precision.text(sql);
    let is_plain = digits.len() == 1 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let cast = format!("::{type_name}({digits})");
    call(name.start, close.end, cast).filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lex;

    #[test]
    fn what_postgresql_reads_as_the_clock_is_found() {
        for text in [
            "now",
            " NOW\n",
            "(now)",
            "{now,NULL}",
            "[today,)",
            "today 10:00",
            "10:00today",
            "tomorrow CET",
            "tomorrow cest",
            "yesterday at 10:00",
            "today America/New_York",
            "today 10:00 Etc/GMT+5",
            "now bc",
            "today +2",
            "mon today",
            "Monday, today",
            "today EST5EDT",
            "tomorrow,allballs",
        ] {
            assert!(tells_time(text), "{text}");
        }
        for text in [
            "",
            "10",
            "2024-01-01",
            "nowhere",
            "now or never",
            "today's news",
            "BUY NOW",
            "buy / now",
            "ACT NOW!",
            "now hiring",
            "epoch",
            "infinity",
        ] {
            assert_eq!(tells_time(text), text == "ACT NOW!", "{text}");
        }
        assert!(ZONES.is_sorted());
    }

    #[test]
    fn a_statement_is_told_the_time() {
        let told = |sql: &str| {
            let limits = lex::LexLimits {
                tokens_max: 100,
                depth_max: 10,
            };
            let calls = time_calls(sql, &lex::lex(sql, &limits).unwrap(), None)?;
            let mut text = String::new();
            let mut at = 0;
            for call in &calls {
                text.push_str(&sql[at..call.start]);
                text.push_str(&format!("'T'::timestamptz{}", call.cast));
                at = call.end;
            }
            (at > 0).then(|| text + &sql[at..])
        };
        for (sql, expected) in [
            (
                "UPDATE t SET a = now(), b = 'now()' WHERE c < pg_catalog.NOW ( ) - '1 day'::interval RETURNING a",
                "UPDATE t SET a = 'T'::timestamptz, b = 'now()' WHERE c < 'T'::timestamptz - '1 day'::interval RETURNING a",
            ),
            (
                "UPDATE t SET a = current_timestamp(3), b = LOCALTIME (0), c = t.current_date",
                "UPDATE t SET a = 'T'::timestamptz::timestamptz(3), b = 'T'::timestamptz::time(0), c = t.current_date",
            ),
            (
                "INSERT INTO t VALUES (1, Current_Date), (2, coalesce(localtime, x))",
                "INSERT INTO t VALUES (1, 'T'::timestamptz::date), (2, coalesce('T'::timestamptz::time, x))",
            ),
            (
                "DELETE FROM t WHERE a IN (SELECT b FROM u WHERE c = current_timestamp)",
                "DELETE FROM t WHERE a IN (SELECT b FROM u WHERE c = 'T'::timestamptz)",
            ),
            (
                "SELECT 1 + abs(extract(year FROM now())) FROM t",
                "SELECT 1 + abs(extract(year FROM 'T'::timestamptz)) FROM t",
            ),
        ] {
            assert_eq!(told(sql).as_deref(), Some(expected));
        }
        for sql in [
            "SELECT now() FROM t",
            "UPDATE t SET a = now() RETURNING current_date",
            "UPDATE t SET a = 1 RETURNING a, (CASE a WHEN 1 THEN b ELSE (now()) END)",
            "UPDATE t SET a = now RETURNING mine.now()",
            "UPDATE t SET a = current_time(x), b = t.current_date",
        ] {
            assert_eq!(told(sql), None, "{sql}");
        }
    }

    #[test]
    fn rows_that_cannot_tell_the_time_are_passed_over() {
        for row in ["1\tTODAY\tx", "1\t\\x6eow", "knows"] {
            assert!(may_tell_time(row.as_bytes(), b'\\'), "{row}");
        }
        for row in ["", "1\tyes\tno", "\"x\",to", "no"] {
            assert!(!may_tell_time(row.as_bytes(), b'\\'), "{row}");
        }
    }
}

//! [`Shape`]: a statement with its literals taken out, as one pass over its bytes. Texts that differ in literals only
//! have the same shape, so that what is known of one holds for the other: the shape is the text of a prepared statement
//! (`k = 5` becomes `k = $1`), and the literals are its arguments.
//!
//! A number's sign goes with it. A literal is taken out only where a parameter may stand in its place whatever its value: as an operand, and in the
//! lists of `IN` and `VALUES`. All others (`LIMIT 5`, `ORDER BY 1`, a function's arguments, a type's) stay part of the
//! shape. What is not plain (escape and dollar strings, parameters, hints, several statements) has no shape. Knows no
//! grammar beyond that; whoever plans the shape must take its parameters as it takes any.

use super::lex::{self, Lexer, TokenKind};
use std::borrow::Cow;
use std::ops::Range;

/// The most literals that are taken out.
const LITERALS_MAX: usize = 1024;

/// The OIDs of int4, int8 and numeric, the types that PostgreSQL gives to numbers; a string's is not known yet.
const NUMBER_OIDS: [u32; 3] = [23, 20, 1700];
const UNKNOWN_OID: u32 = 0;

/// A statement without its literals. Its buffers are kept from one statement to the next.
#[derive(Debug, Default)]
pub struct Shape {
    text: String,
    types: Vec<u32>,
    literals: Vec<Range<usize>>,
    /// Where the parameters stand in the text.
    places: Vec<Place>,
    comments: bool,
    /// The statement that was read last has this shape.
    whole: bool,
}

/// A parameter in the text of a shape.
#[derive(Debug, Clone)]
struct Place {
    range: Range<usize>,
    /// Its literal had a sign.
    signed: bool,
}

/// What a statement's shape is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// That of the statement that was read before.
    Same,
    /// Perhaps another.
    Anew,
    /// It has none.
    None,
}

/// What came before a literal, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// An operator, or a word that takes an operand.
    Operator,
    /// `IN` or `VALUES`.
    ListWord,
    /// The bracket that closes a list.
    ListEnd,
    /// A comma after [`Before::ListEnd`].
    NextList,
    /// The bracket or a comma inside a list.
    Item,
    /// A word that begins a query: the bracket around it holds no list.
    Query,
    /// Anything else.
    Other,
}

impl Shape {
    /// The statement with `$1`, `$2`, … for the literals.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The types that PostgreSQL gives to the literals, 0 for a string.
    pub fn types(&self) -> &[u32] {
        &self.types
    }

    /// The values of the literals in `sql`, the text that was read last.
    pub fn values<'a>(&self, sql: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        let literals = self.literals.iter().zip(&self.types);
        literals.map(|(range, oid)| {
            let literal = &sql[range.clone()];
            match *oid == UNKNOWN_OID && literal.contains('\'') {
                true => Cow::Owned(literal.replace("''", "'")),
                false => Cow::Borrowed(literal),
            }
        })
    }

    /// Whether comments were left out, which may mean something to a shard.
    pub fn has_comments(&self) -> bool {
        self.comments
    }

    /// `text`, which was made of the shape, with the literals of `sql`, the text that was read last, for its parameters:
    /// `$1` is the literal `chosen(0)`. `None`: they are not the literals' parameters.
    pub fn with_literals(
        &self,
        text: &str,
        sql: &str,
        chosen: impl Fn(usize) -> Option<usize>,
    ) -> Option<String> {
        let mut whole = String::with_capacity(text.len() + sql.len());
        let mut copied = 0;
        for token in Lexer::new(text) {
            let token = token.ok()?;
            if token.kind != TokenKind::Parameter {
                continue;
            }
            let number: usize = token.text(text)[1..].parse().ok()?;
            let literal = chosen(number.checked_sub(1)?)?;
            let range = self.literals.get(literal)?;
            // A string's value lies between its quotes.
            let quote = usize::from(*self.types.get(literal)? == UNKNOWN_OID);
            whole.push_str(&text[copied..token.start]);
            whole.push_str(&sql[range.start - quote..range.end + quote]);
            copied = token.end;
        }
        whole.push_str(&text[copied..]);
        Some(whole)
    }

    /// Reads `sql`. If it has no shape the rest of this says nothing.
    pub fn read(&mut self, sql: &str) -> Reading {
        if self.whole && !self.comments && self.read_again(sql).is_some() {
            return Reading::Same;
        }
        self.text.clear();
        self.types.clear();
        self.literals.clear();
        self.places.clear();
        self.comments = false;
        self.whole = self.scan(sql).is_some();
        match self.whole {
            true => Reading::Anew,
            false => Reading::None,
        }
    }

    /// Reads `sql` if it is the statement that was read before, but for literals of the same types with signs where those
    /// had signs: a scan comes to each of them in the same state then, and goes on behind it in the same.
    fn read_again(&mut self, sql: &str) -> Option<()> {
        let bytes = sql.as_bytes();
        let (mut at, mut compared) = (0, 0);
        for (index, place) in self.places.iter().enumerate() {
            let between = &self.text.as_bytes()[compared..place.range.start];
            compared = place.range.end;
            if !bytes[at..].starts_with(between) {
                return None;
            }
            at += between.len();
            let oid = self.types[index];
            let (end, inside) = if oid == UNKNOWN_OID {
                string(bytes, at)?
            } else {
                let first = at + usize::from(place.signed);
                let signed = bytes.get(at) == Some(&b'-');
                if signed != place.signed || !bytes.get(first)?.is_ascii_digit() {
                    return None;
                }
                let (end, own) = number(bytes, first, signed)?;
                if own != oid || bytes.get(end) == Some(&b':') {
                    return None;
                }
                (end, at..end)
            };
            self.literals[index] = inside;
            at = end;
        }
        let end = &self.text.as_bytes()[compared..];
        let rest = bytes[at..].strip_prefix(end)?;
        is_end(rest).then_some(())
    }

    fn scan(&mut self, sql: &str) -> Option<()> {
        let bytes = sql.as_bytes();
        let mut at = 0;
        // What is before this is in `text` already.
        let mut copied = 0;
        let mut before = Before::Other;
        // One bit for each open bracket, the innermost lowest: whether it holds a list.
        let (mut lists, mut depth) = (0u64, 0u32);
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' => at += 1,
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => {
                    let end = lex::word_end(bytes, at);
                    // E'…', N'…', B'…', X'…', U&'…' and U&"…".
                    if end == at + 1 && matches!(bytes.get(end), Some(b'\'' | b'&')) {
                        return None;
                    }
                    before = of_word(&bytes[at..end]);
                    if before == Before::Query {
                        lists &= !1;
                    }
                    // What follows nearly always.
                    at = end + usize::from(bytes.get(end) == Some(&b' '));
                }
                b'-' if self.is_taken(before) && is_sign(bytes, at) => {
                    let (end, oid) = number(bytes, at + 1, true)?;
                    if bytes.get(end) == Some(&b':') {
                        // The cast comes before the sign.
                        at += 1;
                        continue;
                    }
                    self.take(sql, &mut copied, at..end, at..end, oid);
                    before = Before::Other;
                    at = end;
                }
                b'0'..=b'9' => {
                    let (end, oid) = number(bytes, at, false)?;
                    let casts = bytes.get(end) == Some(&b':');
                    if self.is_taken(before) && !casts {
                        self.take(sql, &mut copied, at..end, at..end, oid);
                    }
                    before = Before::Other;
                    at = end;
                }
                b'\'' => {
                    let (end, inside) = string(bytes, at)?;
                    if self.is_taken(before) {
                        self.take(sql, &mut copied, at..end, inside, UNKNOWN_OID);
                    }
                    before = Before::Other;
                    at = end;
                }
                b'"' => {
                    at = lex::quoted_end(bytes, at + 1, b'"')?;
                    before = Before::Other;
                }
                b'(' => {
                    let list = matches!(before, Before::ListWord | Before::NextList | Before::Item);
                    depth += 1;
                    if depth > u64::BITS {
                        return None;
                    }
                    lists = lists << 1 | u64::from(list);
                    before = if list { Before::Item } else { Before::Other };
                    at += 1;
                }
                b')' => {
                    depth = depth.checked_sub(1)?;
                    let list = lists & 1 == 1;
                    before = if list { Before::ListEnd } else { Before::Other };
                    lists >>= 1;
                    at += 1;
                }
                b',' => {
                    before = match before {
                        _ if depth > 0 && lists & 1 == 1 => Before::Item,
                        Before::ListEnd => Before::NextList,
                        _ => Before::Other,
                    };
                    at += 1;
                }
                b';' if is_end(&bytes[at..]) => break,
                b';' => return None,
                b'-' if bytes.get(at + 1) == Some(&b'-') => {
                    let end = lex::line_end(bytes, at);
                    self.skip(sql, &mut copied, at..end, "");
                    at = end;
                }
                b'/' if bytes.get(at + 1) == Some(&b'*') => {
                    let end = lex::comment_end(bytes, at)?;
                    // Empty, but there: no literal goes on behind a block comment.
                    self.skip(sql, &mut copied, at..end, "/**/");
                    at = end;
                }
                b'.' => {
                    // `.5` is rare enough to stay.
                    at += 1 + digits(&bytes[at + 1..]);
                    before = Before::Other;
                }
                b'[' | b']' | b':' => {
                    at += 1;
                    before = Before::Other;
                }
                _ if lex::is_operator(byte) => {
                    // `f(name => 5)` names an argument.
                    let names = bytes[at..].starts_with(b"=>");
                    before = if names {
                        Before::Other
                    } else {
                        Before::Operator
                    };
                    at += if names { 2 } else { 1 };
                }
                _ => return None,
            }
        }
        self.text.push_str(sql.get(copied..at)?);
        Some(())
    }

    fn is_taken(&self, before: Before) -> bool {
        matches!(before, Before::Operator | Before::Item) && self.literals.len() < LITERALS_MAX
    }

    /// Puts a parameter in the place of the literal `whole`.
    fn take(
        &mut self,
        sql: &str,
        copied: &mut usize,
        whole: Range<usize>,
        inside: Range<usize>,
        oid: u32,
    ) {
        self.text.push_str(&sql[*copied..whole.start]);
        *copied = whole.end;
        let start = self.text.len();
        self.literals.push(inside);
        self.types.push(oid);
        self.text.push('$');
        push_number(&mut self.text, self.literals.len());
        self.places.push(Place {
            range: start..self.text.len(),
            signed: sql.as_bytes()[whole.start] == b'-',
        });
    }

    /// Leaves a comment out, but for `rest`.
    fn skip(&mut self, sql: &str, copied: &mut usize, comment: Range<usize>, rest: &str) {
        self.text.push_str(&sql[*copied..comment.start]);
        self.text.push_str(rest);
        self.comments = true;
        *copied = comment.end;
    }
}

/// Whether nothing follows but the end of the statement.
fn is_end(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b';', rest @ ..] => rest.iter().all(u8::is_ascii_whitespace),
        _ => false,
    }
}

/// The end of the string whose quote is at `start`, and what lies between its quotes. None: there is none, or it goes on.
fn string(bytes: &[u8], start: usize) -> Option<(usize, Range<usize>)> {
    if bytes.get(start) != Some(&b'\'') {
        return None;
    }
    let end = lex::quoted_end(bytes, start + 1, b'\'')?;
    match lex::continuation(bytes, end) {
        Some(_) => None,
        None => Some((end, start + 1..end - 1)),
    }
}

fn push_number(text: &mut String, number: usize) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

fn of_word(word: &[u8]) -> Before {
    if word.len() > "between".len() {
        return Before::Other;
    }
    let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
    let initial = word.first().map_or(0, u8::to_ascii_lowercase);
    match (initial, word.len()) {
        (b'i', 2) if is(b"in") => Before::ListWord,
        (b'v', 6) if is(b"values") => Before::ListWord,
        (b's', 6) if is(b"select") => Before::Query,
        (b't', 5) if is(b"table") => Before::Query,
        (b'w', 4) if is(b"with") => Before::Query,
        (b'a', 3) if is(b"and") => Before::Operator,
        (b'b', 7) if is(b"between") => Before::Operator,
        (b'l', 4) if is(b"like") => Before::Operator,
        (b'i', 5) if is(b"ilike") => Before::Operator,
        _ => Before::Other,
    }
}

/// Whether the `-` at `at`, where an operand is to come, is the sign of the number behind it: PostgreSQL takes it for the
/// end of another operator if that has a character which SQL's own operators lack.
fn is_sign(bytes: &[u8], at: usize) -> bool {
    let before = bytes[..at].iter().rev();
    let mut operator = before.take_while(|byte| lex::is_operator(**byte));
    bytes.get(at + 1).is_some_and(u8::is_ascii_digit) && operator.all(|byte| b"=<>".contains(byte))
}

/// The end of the number whose digits start at `start`, and its type. None: what follows belongs to it.
fn number(bytes: &[u8], start: usize, negative: bool) -> Option<(usize, u32)> {
    let whole = start + digits(&bytes[start..]);
    let mut end = whole;
    if bytes.get(end) == Some(&b'.') {
        end += 1;
        end += digits(&bytes[end..]);
    }
    // Exponents and junk are left to the lexer.
    if bytes
        .get(end)
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | 0x80..))
    {
        return None;
    }
    let [int4, int8, numeric] = NUMBER_OIDS;
    if end > whole {
        return Some((end, numeric));
    }
    // The last that fits is 19 digits long; more are numeric, leading zeros or not.
    let value = bytes[start..whole].iter().try_fold(0i64, |value, digit| {
        let digit = i64::from(digit - b'0');
        // The least integer has no positive counterpart.
        value.checked_mul(10)?.checked_sub(digit)
    });
    let value = value.and_then(|value| match negative {
        true => Some(value),
        false => value.checked_neg(),
    });
    Some((
        end,
        match value {
            Some(value) if i32::try_from(value).is_ok() => int4,
            Some(_) => int8,
            None => numeric,
        },
    ))
}

fn digits(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lex::LexLimits;
    use proptest::prelude::*;

    fn shape(sql: &str) -> Option<(String, Vec<u32>, Vec<String>)> {
        let mut shape = Shape::default();
        (shape.read(sql) != Reading::None).then(|| {
            let values = shape.values(sql).map(Cow::into_owned).collect();
            (shape.text.clone(), shape.types.clone(), values)
        })
    }

    #[track_caller]
    fn check(sql: &str, text: &str, values: &[&str]) {
        let (shaped, types, found) = shape(sql).expect("it has a shape");
        assert_eq!(shaped, text);
        assert_eq!(found, values);
        assert_eq!(types.len(), values.len());
    }

    #[test]
    fn operands_and_list_items_are_taken_out() {
        check(
            "SELECT abalance FROM pgbench_accounts WHERE aid = 42;",
            "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
            &["42"],
        );
        check(
            "UPDATE t SET a = a + -7, b='it''s' WHERE k IN (1, 22 ,'x') AND d BETWEEN 5 AND 6.5",
            "UPDATE t SET a = a + $1, b=$2 WHERE k IN ($3, $4 ,$5) AND d BETWEEN $6 AND $7",
            &["-7", "it's", "1", "22", "x", "5", "6.5"],
        );
        check(
            "SELECT 1 WHERE (a, b) IN ((1, 2), (3, 4)) AND c IN (SELECT 1, 2 GROUP BY 1, 2)",
            "SELECT 1 WHERE (a, b) IN (($1, $2), ($3, $4)) AND c IN (SELECT 1, 2 GROUP BY 1, 2)",
            &["1", "2", "3", "4"],
        );
        check(
            "INSERT INTO t (a, b) VALUES (1, 'x'), (2, now()), (3, f(4, 5))",
            "INSERT INTO t (a, b) VALUES ($1, $2), ($3, now()), ($4, f(4, 5))",
            &["1", "x", "2", "3"],
        );
    }

    #[test]
    fn a_sign_goes_with_its_number() {
        check(
            "SELECT a -5, b - -5, -6 WHERE k=-7 AND k IN (-8, -9.5) OR k <-1 OR k = - 2",
            "SELECT a -$1, b - $2, -$3 WHERE k=$4 AND k IN ($5, $6) OR k <$7 OR k = - $8",
            &["5", "-5", "6", "-7", "-8", "-9.5", "-1", "2"],
        );
        // `@-` is an operator, `+-` is two; a cast comes before the sign.
        check(
            "SELECT 1 WHERE k @-5 OR k +-5 OR k = -5::int OR k = --5\n6",
            "SELECT 1 WHERE k @-$1 OR k +-$2 OR k = -5::int OR k = \n$3",
            &["5", "5", "6"],
        );
    }

    #[test]
    fn literals_are_put_back_as_they_were_written() {
        let sql = "INSERT INTO t VALUES (-1, 'it''s', '$1'), (2, '', f('$2'))";
        let mut shape = Shape::default();
        assert_eq!(shape.read(sql), Reading::Anew);
        assert_eq!(
            shape.with_literals(shape.text(), sql, Some).as_deref(),
            Some(sql)
        );
        let second = "INSERT INTO t VALUES ($1, $2, f('$2'))";
        let chosen = |index: usize| [3, 4].get(index).copied();
        assert_eq!(
            shape.with_literals(second, sql, chosen).as_deref(),
            Some("INSERT INTO t VALUES (2, '', f('$2'))")
        );
        assert_eq!(shape.with_literals("SELECT $3", sql, chosen), None);
        assert_eq!(shape.with_literals("SELECT $9", sql, Some), None);
    }

    #[test]
    fn what_a_parameter_cannot_stand_for_stays() {
        for sql in [
            "SELECT 5, 'x' FROM t ORDER BY 1 LIMIT 10 OFFSET 5",
            "SELECT set_config('a', 'b', false), f(x => 5)",
            "SELECT interval '1 day', date '2020-01-01', a[1], numeric(5)",
            "SELECT 007::text WHERE (5) = ANY ('{1,2}')",
        ] {
            check(sql, sql, &[]);
        }
        check(
            "SELECT 1 WHERE a = 007::text",
            "SELECT 1 WHERE a = 007::text",
            &[],
        );
        check(
            "SELECT 1 WHERE a = '5'::int",
            "SELECT 1 WHERE a = $1::int",
            &["5"],
        );
    }

    #[test]
    fn comments_are_no_part_of_it() {
        check(
            "SELECT /* a 'b */ 1 -- c '\n FROM t WHERE k = 1 /* trace=1 */",
            "SELECT /**/ 1 \n FROM t WHERE k = $1 /**/",
            &["1"],
        );
        check("'x'/* a */\n'y'", "'x'/**/\n'y'", &[]);
    }

    #[test]
    fn numbers_have_the_types_that_postgresql_gives_them() {
        let types = shape("SELECT 1 WHERE a IN (1, 2147483648, 9223372036854775808, 1.5, 'x')");
        assert_eq!(types.expect("it has a shape").1, [23, 20, 1700, 1700, 0]);
        let types = shape(
            "VALUES (-2147483648, -2147483649, -9223372036854775808, -9223372036854775809, 2147483647, -1.5)",
        );
        let expected = [23, 20, 20, 1700, 23, 1700];
        assert_eq!(types.expect("it has a shape").1, expected);
    }

    #[test]
    fn what_is_not_plain_has_no_shape() {
        for sql in [
            "SELECT E'a\\'b'",
            "SELECT $1",
            "SELECT $$a$$",
            "SELECT 1; SELECT 2",
            "SELECT 'open",
            "SELECT 1 WHERE a = 'x'\n'y'",
            "SELECT 1 WHERE a = 1e5",
            "SELECT 1)",
            "SELECT U&'x'",
            "SELECT /* open",
        ] {
            assert!(shape(sql).is_none(), "{sql}");
        }
    }

    #[test]
    fn a_statement_with_other_literals_has_the_same_shape() {
        let mut shape = Shape::default();
        let mut read = |sql: &str| {
            let reading = shape.read(sql);
            (reading, shape.values(sql).map(Cow::into_owned).collect())
        };
        let values =
            |values: &[&str]| -> Vec<String> { values.iter().map(|it| it.to_string()).collect() };
        let first = "SELECT a FROM t WHERE k = 5 AND b IN ('x', -6)";
        assert_eq!(read(first), (Reading::Anew, values(&["5", "x", "-6"])));
        let same = "SELECT a FROM t WHERE k = 4711 AND b IN ('it''s', -7);\n";
        assert_eq!(read(same), (Reading::Same, values(&["4711", "it's", "-7"])));
        for other in [
            "SELECT a FROM t WHERE k = -5 AND b IN ('x', -6)",
            "SELECT a FROM t WHERE k = 5 AND b IN ('x', 6)",
            "SELECT a FROM t WHERE k = 5.0 AND b IN ('x', -6)",
            "SELECT a FROM t WHERE k = 5 AND b IN ('x', -6) LIMIT 1",
            "SELECT a FROM t WHERE k = 5 AND b IN ('x', -6) --",
        ] {
            read(first);
            assert_eq!(read(other).0, Reading::Anew, "{other}");
        }
        assert_eq!(read("SELECT 1 WHERE a = 'x'").0, Reading::Anew);
        assert_eq!(read("SELECT 1 WHERE a = 'x'\n'y'").0, Reading::None);
        assert_eq!(read("SELECT 1 WHERE a = 'x'").0, Reading::Anew);
    }

    proptest! {
        /// What was read before changes nothing.
        #[test]
        fn a_statement_is_read_alike_after_another(
            parts in prop::collection::vec(
                (prop::sample::select(vec![
                    "a", "=", "=", "<", "-", "(", ")", ",", "IN (", "AND", "::int", "/**/", "LIMIT", "||", "LIKE", "é", " ", ";", "@",
                ]), prop::sample::select(vec!["5", "-5", "6.5", "'x'", "''", "'it''s'", "''\n'x'", "99999999999", ""])),
                1..8,
            ),
            others in prop::collection::vec(
                prop::sample::select(vec!["5", "7", "-5", "1.25", "'y'", "'-'", "88888888888", "5x", "'a''", "", "5::"]),
                8,
            ),
            end in prop::sample::select(vec!["", ";", " ;", "; ", " --"]),
            space in prop::sample::select(vec!["", " "]),
        ) {
            let text = |literals: Vec<&str>, end: &str| {
                let parts = parts.iter().zip(literals).map(|((part, _), literal)| format!("{part}{space}{literal}{space}"));
                parts.collect::<String>() + end
            };
            let first = text(parts.iter().map(|(_, literal)| *literal).collect(), "");
            let one = parts.iter().zip(&others).map(|((_, own), other)| if own.len() % 2 == 0 { *own } else { *other });
            for second in [text(one.collect(), end), text(others.clone(), end)] {
                let mut shape = Shape::default();
                shape.read(&first);
                let read = shape.read(&second) != Reading::None;
                let alone = super::tests::shape(&second);
                prop_assert_eq!(read, alone.is_some());
                if let Some((alone, types, values)) = alone {
                    prop_assert_eq!(shape.text(), alone);
                    prop_assert_eq!(shape.types(), types);
                    let own: Vec<String> = shape.values(&second).map(Cow::into_owned).collect();
                    prop_assert_eq!(own, values);
                    prop_assert!(!shape.has_comments() || second.contains("/*") || second.contains("--"));
                }
            }
        }

        /// The shape's tokens are the statement's, but for the literals, which are whole tokens of it.
        #[test]
        fn a_shape_is_the_statement_but_for_its_literals(
            parts in prop::collection::vec(prop::sample::select(vec![
                "SELECT", "a", "=", "<", "-", "-5", "=-6.5", "@-7", "(", ")", ",", "IN (", "VALUES (", "5", "6.5", "'x'", "'it''s'", "\"q'\"",
                "AND", "BETWEEN", "::", "int", "/* c' */", "-- d'\n", "LIMIT", "[", "]", ".", "=>", "||", "é", "\n", "99999999999",
            ]), 0..24),
        ) {
            let sql = parts.join(" ");
            let limits = LexLimits { tokens_max: usize::MAX, depth_max: usize::MAX };
            let mut shape = Shape::default();
            prop_assume!(shape.read(&sql) != Reading::None);
            let whole = lex::lex(&sql, &limits);
            prop_assume!(whole.is_ok());
            let shaped = lex::lex(shape.text(), &limits).expect("a shape is SQL where its statement is");
            let whole = whole.expect("checked");
            let mut values = shape.values(&sql);
            let mut whole = whole.iter();
            for other in &shaped {
                let token = whole.next().expect("as many tokens");
                if other.kind == TokenKind::Parameter {
                    let text = token.text(&sql);
                    let value = match token.kind {
                        TokenKind::Operator if text == "-" => {
                            let number = whole.next().expect("a number");
                            prop_assert_eq!(number.kind, TokenKind::Number);
                            prop_assert_eq!(number.start, token.end);
                            Cow::Borrowed(&sql[token.start..number.end])
                        }
                        TokenKind::Number => Cow::Borrowed(text),
                        TokenKind::String => lex::string_value(token, &sql).expect("a string"),
                        other => panic!("{other:?} is no literal"),
                    };
                    prop_assert_eq!(values.next(), Some(value));
                } else {
                    prop_assert_eq!(token.text(&sql), other.text(shape.text()));
                }
            }
            prop_assert_eq!(values.next(), None);
            prop_assert_eq!(whole.next(), None);
        }
    }
}

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
    comments: bool,
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

    /// Reads `sql`. Whether it has a shape; without one the rest of this says nothing.
    pub fn read(&mut self, sql: &str) -> bool {
        self.text.clear();
        self.types.clear();
        self.literals.clear();
        self.comments = false;
        self.scan(sql).is_some()
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
                    let end = lex::quoted_end(bytes, at + 1, b'\'')?;
                    if lex::continuation(bytes, end).is_some() {
                        return None;
                    }
                    if self.is_taken(before) {
                        let inside = at + 1..end - 1;
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
                b';' => {
                    let rest = &bytes[at + 1..];
                    if !rest.iter().all(u8::is_ascii_whitespace) {
                        return None;
                    }
                    break;
                }
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
        self.literals.push(inside);
        self.types.push(oid);
        self.text.push('$');
        push_number(&mut self.text, self.literals.len());
    }

    /// Leaves a comment out, but for `rest`.
    fn skip(&mut self, sql: &str, copied: &mut usize, comment: Range<usize>, rest: &str) {
        self.text.push_str(&sql[*copied..comment.start]);
        self.text.push_str(rest);
        self.comments = true;
        *copied = comment.end;
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
        shape.read(sql).then(|| {
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
        assert!(shape.read(sql));
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

    proptest! {
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
            prop_assume!(shape.read(&sql));
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

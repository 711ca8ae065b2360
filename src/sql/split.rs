//! [`split`]: the statements of a simple query, as PostgreSQL's grammar parts them. Knows only where a semicolon
//! does not end a statement: inside parentheses (`CREATE RULE … DO (a; b)`) and inside `BEGIN ATOMIC … END`.

use super::lex::{Token, TokenKind};
use std::ops::Range;

/// One statement of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementRange {
    /// Its bytes, without its semicolon: from the comments before it to its last token.
    pub text: Range<usize>,
    /// Its tokens; never none.
    pub tokens: Range<usize>,
}

/// The statements of `sql`, in order; empty ones are left out.
///
/// Where the parts would not be valid SQL (a parenthesis left open), PostgreSQL finds the same fault in the last
/// part that it would find in the whole.
pub fn split(sql: &str, tokens: &[Token]) -> Vec<StatementRange> {
    let mut statements = Vec::new();
    let mut text_start = 0;
    let mut first = 0;
    while first < tokens.len() {
        let end = statement_end(sql, tokens, first);
        if let Some(last) = tokens[first..end].last() {
            let start = last
                .start
                .min(text_start + leading_space(&sql[text_start..]));
            statements.push(StatementRange {
                text: start..last.end,
                tokens: first..end,
            });
        }
        text_start = tokens.get(end).map_or(sql.len(), |semicolon| semicolon.end);
        first = end + 1;
    }
    statements
}

fn leading_space(text: &str) -> usize {
    text.len() - text.trim_ascii_start().len()
}

/// The index of the semicolon that ends the statement whose first token is `first`, or the number of tokens.
fn statement_end(sql: &str, tokens: &[Token], first: usize) -> usize {
    let has_body = is_create_function(sql, &tokens[first..]);
    let mut parentheses = 0usize;
    let mut bodies = 0usize;
    // Whether a statement of a BEGIN ATOMIC body can begin here: only there is END the end of that body.
    let mut at_statement = false;
    for (index, token) in tokens.iter().enumerate().skip(first) {
        let starts_statement = std::mem::take(&mut at_statement);
        match token.kind {
            TokenKind::Punctuation => match token.text(sql) {
                "(" => parentheses += 1,
                ")" => parentheses = parentheses.saturating_sub(1),
                ";" if parentheses == 0 && bodies == 0 => return index,
                ";" if parentheses == 0 => at_statement = true,
                _ => {}
            },
            TokenKind::Word if has_body && parentheses == 0 => {
                if token.is(sql, "atomic") && index > first && tokens[index - 1].is(sql, "begin") {
                    bodies += 1;
                    at_statement = true;
                } else if starts_statement && bodies > 0 && token.is(sql, "end") {
                    bodies -= 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

fn is_create_function(sql: &str, tokens: &[Token]) -> bool {
    let is = |index: usize, word: &str| tokens.get(index).is_some_and(|token| token.is(sql, word));
    let object = if is(1, "or") && is(2, "replace") {
        3
    } else {
        1
    };
    is(0, "create") && (is(object, "function") || is(object, "procedure"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lex::{LexLimits, lex};

    fn texts(sql: &str) -> Vec<&str> {
        let tokens = lex(
            sql,
            &LexLimits {
                tokens_max: 1000,
                depth_max: 100,
            },
        )
        .unwrap();
        let statements = split(sql, &tokens);
        for statement in &statements {
            assert!(statement.text.start <= tokens[statement.tokens.start].start);
            assert_eq!(statement.text.end, tokens[statement.tokens.end - 1].end);
        }
        statements
            .into_iter()
            .map(|statement| &sql[statement.text])
            .collect()
    }

    #[test]
    fn semicolons_part_statements() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" ; ;; -- x", &[]),
            ("select 1", &["select 1"]),
            (" select 1 ; select 2;", &["select 1", "select 2"]),
            (
                "select ';'; select $$;$$; select \";\" /* ; */",
                &["select ';'", "select $$;$$", "select \";\""],
            ),
            ("a; /* pgring: key=1 */ b", &["a", "/* pgring: key=1 */ b"]),
            ("-- c\na -- d\n; b", &["-- c\na", "b"]),
            (
                "begin; select 1; end; select 2",
                &["begin", "select 1", "end", "select 2"],
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(&texts(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_statement_may_hold_semicolons() {
        let whole = [
            "create rule r as on insert to t do also (insert into a values (1); delete from b;)",
            "create function f() returns int begin atomic select 1; select 2; end",
            "create or replace procedure p(begin atomic) begin atomic end",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END",
            "create function f() returns int begin atomic select 1 as end; select 2 end; select case; end",
            "create function f() returns int begin atomic select (select 1 as begin); end",
        ];
        for sql in whole {
            let two = format!("{sql}; select 3");
            assert_eq!(texts(&two), [sql, "select 3"], "{sql}");
        }
    }

    #[test]
    fn only_a_function_has_a_body() {
        assert_eq!(
            texts("create table begin (a int); atomic; end"),
            ["create table begin (a int)", "atomic", "end"]
        );
        assert_eq!(texts("begin atomic; end"), ["begin atomic", "end"]);
        assert_eq!(texts("select (1; select 2"), ["select (1; select 2"]);
    }
}

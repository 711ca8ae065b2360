//! [`read`]: the body of a trigger function in PL/pgSQL, as far as it does no more than look at its row, change fields
//! of it, complain, and return.
//!
//! PL/pgSQL evaluates each expression as `SELECT` with the expression after it, so a word that begins or goes on with
//! a query inside one makes it more than that. What the expressions call is for the planner to judge. Follows the
//! chapter "PL/pgSQL". Knows no catalog.

use super::lex::{self, LexLimits, Token, TokenKind};
use std::ops::Range;

/// Blocks and IFs may nest this deep.
const DEPTH_MAX: usize = 50;

/// Words that begin a query inside an expression, or go on with the SELECT that the expression is.
const QUERY_WORDS: [&str; 20] = [
    "select",
    "from",
    "table",
    "values",
    "with",
    "into",
    "union",
    "intersect",
    "except",
    "where",
    "group",
    "having",
    "window",
    "limit",
    "offset",
    "fetch",
    "for",
    "order",
    "execute",
    "using",
];

/// Calls whose arguments may be told apart by FROM and FOR.
const WORDY_CALLS: [&str; 4] = ["extract", "substring", "trim", "overlay"];

/// What a body does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Body {
    /// The columns of the row that it assigns, folded.
    pub assigned: Vec<String>,
    /// Where its expressions and declarations are in the text.
    pub expressions: Vec<Range<usize>>,
}

/// Why a body does more, or what is not understood of it: a word or two of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Beyond(pub String);

/// Reads a body.
///
/// # Errors
/// It does more, or it is not PL/pgSQL.
pub fn read(text: &str, limits: &LexLimits) -> Result<Body, Beyond> {
    let tokens = lex::lex(text, limits).map_err(|error| Beyond(error.to_string()))?;
    let mut walk = Walk {
        text,
        tokens: &tokens,
        at: 0,
        body: Body::default(),
    };
    walk.block(0)?;
    walk.take_symbol(";");
    match walk.tokens.get(walk.at) {
        None => Ok(walk.body),
        Some(_) => Err(walk.beyond()),
    }
}

struct Walk<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
    body: Body,
}

impl Walk<'_> {
    fn is(&self, at: usize, word: &str) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|token| token.is(self.text, word))
    }

    fn is_symbol(&self, at: usize, symbol: &str) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|token| token.is_symbol(self.text, symbol))
    }

    fn take(&mut self, word: &str) -> bool {
        let is = self.is(self.at, word);
        self.at += usize::from(is);
        is
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let is = self.is_symbol(self.at, symbol);
        self.at += usize::from(is);
        is
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), Beyond> {
        if self.take_symbol(symbol) {
            Ok(())
        } else {
            Err(self.beyond())
        }
    }

    /// What stands here is not of the simple sort.
    fn beyond(&self) -> Beyond {
        Beyond(match self.tokens.get(self.at) {
            None => "its end is missing".to_owned(),
            Some(token) if token.kind == TokenKind::Word => {
                token.text(self.text).to_ascii_uppercase()
            }
            Some(token) => format!("\"{}\"", token.text(self.text)),
        })
    }

    fn name(&mut self) -> Result<String, Beyond> {
        let token = self
            .tokens
            .get(self.at)
            .filter(|token| token.is_identifier());
        let name = token.and_then(|token| lex::identifier_value(token.text(self.text)).ok());
        let name = name.ok_or_else(|| self.beyond())?.into_owned();
        self.at += 1;
        Ok(name)
    }

    /// `[DECLARE …] BEGIN … END`.
    fn block(&mut self, depth: usize) -> Result<(), Beyond> {
        if self.take("declare") {
            while !self.is(self.at, "begin") {
                self.name()?;
                self.expression(&[], false)?;
                self.expect_symbol(";")?;
            }
        }
        if !self.take("begin") {
            return Err(self.beyond());
        }
        self.statements(depth + 1)?;
        if self.take("end") {
            Ok(())
        } else {
            Err(self.beyond())
        }
    }

    /// Statements up to a word that ends them.
    fn statements(&mut self, depth: usize) -> Result<(), Beyond> {
        if depth > DEPTH_MAX {
            return Err(Beyond("it nests too deeply".to_owned()));
        }
        loop {
            if ["end", "else", "elsif", "elseif"]
                .iter()
                .any(|word| self.is(self.at, word))
            {
                return Ok(());
            }
            self.statement(depth)?;
        }
    }

    fn statement(&mut self, depth: usize) -> Result<(), Beyond> {
        if self.is(self.at, "begin") || self.is(self.at, "declare") {
            self.block(depth)?;
        } else if self.take("if") {
            loop {
                self.expression(&["then"], false)?;
                self.at += 1;
                self.statements(depth + 1)?;
                if !(self.take("elsif") || self.take("elseif")) {
                    break;
                }
            }
            if self.take("else") {
                self.statements(depth + 1)?;
            }
            if !(self.take("end") && self.take("if")) {
                return Err(self.beyond());
            }
        } else if self.take("return") {
            if !["new", "old", "null"].iter().any(|word| self.take(word)) {
                return Err(self.beyond());
            }
        } else if self.take("raise") {
            self.expression(&[], true)?;
        } else if self.take("assert") {
            self.expression(&[], false)?;
        } else if !self.take("null") {
            self.assignment()?;
        }
        self.expect_symbol(";")
    }

    /// `NEW.column := …` or `variable := …`.
    fn assignment(&mut self) -> Result<(), Beyond> {
        let start = self.at;
        let is_row = self.is(start, "new") || self.is(start, "old");
        self.name()?;
        if is_row {
            self.expect_symbol(".")?;
            let column = self.name()?;
            self.body.assigned.push(column);
        }
        // A field or an element of it.
        while self.take_symbol(".") {
            self.name()?;
        }
        if self.is_symbol(self.at, "[") {
            self.expression(&[":=", "="], false)?;
        }
        if self.take_symbol(":=") || self.take_symbol("=") {
            self.expression(&[], false)
        } else {
            self.at = start;
            Err(self.beyond())
        }
    }

    /// An expression, up to `;` or one of `ends` outside of parentheses.
    fn expression(&mut self, ends: &[&str], raise: bool) -> Result<(), Beyond> {
        let first = self.at;
        let mut cases = 0usize;
        // For each open parenthesis, whether it is that of a call with FROM and FOR in it.
        let mut open: Vec<bool> = Vec::new();
        loop {
            let Some(token) = self.tokens.get(self.at) else {
                return Err(self.beyond());
            };
            let is_end = self.is_symbol(self.at, ";")
                || ends
                    .iter()
                    .any(|end| self.is(self.at, end) || self.is_symbol(self.at, end));
            if open.is_empty() && cases == 0 && is_end {
                break;
            }
            let after_dot = self.at > first && self.is_symbol(self.at - 1, ".");
            match token.text(self.text) {
                "(" | "[" => {
                    let before = self.at.checked_sub(1).filter(|before| *before >= first);
                    let wordy = before
                        .is_some_and(|before| WORDY_CALLS.iter().any(|call| self.is(before, call)));
                    open.push(wordy);
                }
                ")" | "]" if open.pop().is_some() => {}
                ")" | "]" | ";" => return Err(self.beyond()),
                _ if after_dot => {}
                _ if self.is(self.at, "case") => cases += 1,
                _ if self.is(self.at, "end") => {
                    cases = cases.checked_sub(1).ok_or_else(|| self.beyond())?;
                }
                _ if QUERY_WORDS.iter().any(|word| self.is(self.at, word)) => {
                    let wordy = open.last() == Some(&true);
                    let is_argument =
                        wordy && (self.is(self.at, "from") || self.is(self.at, "for"));
                    let is_distinct = self.is(self.at, "from")
                        && self.at >= first + 2
                        && self.is(self.at - 1, "distinct")
                        && (self.is(self.at - 2, "is") || self.is(self.at - 2, "not"));
                    let is_option = raise && open.is_empty() && self.is(self.at, "using");
                    if !(is_argument || is_distinct || is_option) {
                        return Err(self.beyond());
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
        if let (Some(start), Some(end)) = (self.tokens.get(first), self.tokens.get(self.at)) {
            self.body.expressions.push(start.start..end.start);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Body, String> {
        let limits = LexLimits {
            tokens_max: 10_000,
            depth_max: 500,
        };
        read(text, &limits).map_err(|Beyond(what)| what)
    }

    fn expressions(text: &str) -> Vec<&str> {
        let found = body(text).unwrap().expressions;
        found.into_iter().map(|range| text[range].trim()).collect()
    }

    #[test]
    fn what_only_changes_its_row_is_read() {
        let text = "DECLARE n int := 1; old_name text;
            BEGIN
              -- SELECT in a comment
              NEW.updated_at = now();
              NEW.\"Name\" := CASE WHEN NEW.a IS DISTINCT FROM OLD.a THEN lower(NEW.a) ELSE 'select' END;
              IF TG_OP = 'INSERT' THEN n := extract(epoch FROM NEW.at); ELSIF n > 1 THEN NULL; ELSE RETURN OLD; END IF;
              IF NEW.limit < 0 THEN RAISE EXCEPTION 'no % here', NEW.limit USING ERRCODE = '23514'; END IF;
              NEW.tags[1] := 'x';
              RETURN NEW;
            END";
        let found = body(text).unwrap();
        assert_eq!(found.assigned, ["updated_at", "Name", "tags"]);
        assert_eq!(
            expressions(text),
            [
                "int := 1",
                "text",
                "now()",
                "CASE WHEN NEW.a IS DISTINCT FROM OLD.a THEN lower(NEW.a) ELSE 'select' END",
                "TG_OP = 'INSERT'",
                "extract(epoch FROM NEW.at)",
                "n > 1",
                "NEW.limit < 0",
                "EXCEPTION 'no % here', NEW.limit USING ERRCODE = '23514'",
                "[1]",
                "'x'",
            ]
        );
        assert_eq!(body("BEGIN RETURN NULL; END;").unwrap(), Body::default());
    }

    #[test]
    fn what_may_read_or_write_tables_is_beyond() {
        for (text, what) in [
            (
                "BEGIN INSERT INTO log VALUES (1); RETURN NEW; END",
                "INSERT",
            ),
            ("BEGIN PERFORM f(); RETURN NEW; END", "PERFORM"),
            ("BEGIN EXECUTE 'x'; RETURN NEW; END", "EXECUTE"),
            ("BEGIN NEW.a := (SELECT 1); RETURN NEW; END", "SELECT"),
            ("BEGIN NEW.a := b FROM t; RETURN NEW; END", "FROM"),
            (
                "BEGIN NEW.a := extract((b FROM t) FROM c); RETURN NEW; END",
                "FROM",
            ),
            ("BEGIN NEW.a := 1 UNION TABLE t; RETURN NEW; END", "UNION"),
            (
                "BEGIN IF EXISTS (TABLE t) THEN NULL; END IF; RETURN NEW; END",
                "TABLE",
            ),
            (
                "BEGIN IF count(*) > 0 FROM t THEN NULL; END IF; RETURN NEW; END",
                "FROM",
            ),
            ("BEGIN SELECT 1 INTO NEW.a; RETURN NEW; END", "SELECT"),
            ("BEGIN NEW := OLD; RETURN NEW; END", "\":=\""),
            (
                "DECLARE c CURSOR FOR SELECT 1; BEGIN RETURN NEW; END",
                "FOR",
            ),
            ("DECLARE r t%ROWTYPE; BEGIN RETURN r; END", "R"),
            (
                "BEGIN FOR i IN 1..2 LOOP NULL; END LOOP; RETURN NEW; END",
                "FOR",
            ),
            (
                "BEGIN RETURN NEW; EXCEPTION WHEN others THEN RETURN NULL; END",
                "EXCEPTION",
            ),
            (
                "#variable_conflict use_column BEGIN RETURN NEW; END",
                "\"#\"",
            ),
            ("SELECT 1", "SELECT"),
            ("BEGIN RETURN NEW; END; DROP", "DROP"),
        ] {
            assert_eq!(body(text), Err(what.to_owned()), "{text}");
        }
        let deep = format!(
            "BEGIN {} {} RETURN NEW; END",
            "IF a THEN ".repeat(60),
            "END IF; ".repeat(60)
        );
        assert_eq!(body(&deep), Err("it nests too deeply".to_owned()));
    }
}

//! [`Reader`]: walks a statement's tokens as PostgreSQL's grammar does, one token of look-ahead and its errors.
//! Knows names, strings and lists; no commands.

use super::lex::{
    LexError, Lexer, LiteralError, Token, TokenKind, character_position, identifier_value,
    string_value,
};
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use std::borrow::Cow;
use thiserror::Error;

/// A text that is no statement.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StatementError {
    /// The lexer's.
    #[error(transparent)]
    Lex(#[from] LexError),
    /// A token that the grammar has no use for: 42601.
    #[error("syntax error at or near \"{near}\"")]
    Unexpected {
        /// The token.
        near: String,
        /// The byte where it starts.
        at: usize,
        /// The character where it starts, from 1.
        position: u32,
    },
    /// More was to come: 42601.
    #[error("syntax error at end of input")]
    EndOfInput {
        /// The character after the last, from 1.
        position: u32,
    },
    /// A name or string with a wrong escape.
    #[error("{source}")]
    Literal {
        /// What is wrong with it.
        source: LiteralError,
        /// The character where it starts, from 1.
        position: u32,
    },
    /// `SET CATALOG`: 0A000.
    #[error("current database cannot be changed")]
    SetCatalog,
    /// COPY with an unknown format: 22023.
    #[error("COPY format \"{format}\" not recognized")]
    CopyFormat {
        /// The format.
        format: String,
    },
    /// A COPY option that must be one byte and is not: 0A000.
    #[error("COPY {option} must be a single one-byte character")]
    CopyCharacter {
        /// delimiter, quote or escape.
        option: &'static str,
    },
    /// COPY with a HEADER that is neither Boolean nor "match": 42601.
    #[error("header requires a Boolean value or \"match\"")]
    CopyHeader,
    /// A COPY option without the value that it needs: 42601.
    #[error("{option} requires a parameter")]
    CopyParameter {
        /// The option.
        option: String,
    },
}

impl ErrorReply for StatementError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Lex(lex) => lex.sqlstate(),
            Self::Literal { source, .. } => source.sqlstate(),
            Self::Unexpected { .. }
            | Self::EndOfInput { .. }
            | Self::CopyHeader
            | Self::CopyParameter { .. } => SqlState::SYNTAX_ERROR,
            Self::SetCatalog | Self::CopyCharacter { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::CopyFormat { .. } => SqlState::INVALID_PARAMETER_VALUE,
        }
    }

    fn fault(&self) -> Fault {
        Fault::Client
    }

    fn detail(&self) -> Option<String> {
        None
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Lex(lex) => lex.hint(),
            Self::Literal { source, .. } => source.hint(),
            Self::Unexpected { .. }
            | Self::EndOfInput { .. }
            | Self::SetCatalog
            | Self::CopyFormat { .. }
            | Self::CopyCharacter { .. }
            | Self::CopyHeader
            | Self::CopyParameter { .. } => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }

    fn position(&self) -> Option<u32> {
        match self {
            Self::Lex(lex) => lex.position(),
            Self::Unexpected { position, .. }
            | Self::EndOfInput { position }
            | Self::Literal { position, .. } => Some(*position),
            Self::SetCatalog
            | Self::CopyFormat { .. }
            | Self::CopyCharacter { .. }
            | Self::CopyHeader
            | Self::CopyParameter { .. } => None,
        }
    }
}

/// A possibly qualified name, as PostgreSQL stores it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name<'a> {
    /// The database, of a name with three parts.
    pub catalog: Option<Cow<'a, str>>,
    /// The schema.
    pub schema: Option<Cow<'a, str>>,
    /// The name itself.
    pub name: Cow<'a, str>,
}

impl Name<'_> {
    /// Whether it names the session's own schema for temporary objects.
    pub fn is_temporary(&self) -> bool {
        self.schema.as_deref() == Some("pg_temp")
    }
}

/// The part of a statement that is a statement itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body<'a> {
    /// Its text.
    pub text: &'a str,
    /// Its first token's index among the tokens of the whole statement.
    pub first_token: usize,
}

/// Walks the tokens of one statement.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a, 't> {
    sql: &'a str,
    tokens: &'t [Token],
    at: usize,
}

impl<'a, 't> Reader<'a, 't> {
    pub(crate) fn new(sql: &'a str, tokens: &'t [Token]) -> Self {
        Self { sql, tokens, at: 0 }
    }

    pub(crate) fn sql(&self) -> &'a str {
        self.sql
    }

    /// The tokens from here on.
    pub(crate) fn rest(&self) -> &'t [Token] {
        &self.tokens[self.at..]
    }

    pub(crate) fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.at)
    }

    /// Whether the token `ahead` from here is this word.
    pub(crate) fn is_word(&self, ahead: usize, word: &str) -> bool {
        self.tokens
            .get(self.at + ahead)
            .is_some_and(|token| token.is(self.sql, word))
    }

    /// Whether the token `ahead` from here is this symbol.
    pub(crate) fn is_symbol(&self, ahead: usize, symbol: &str) -> bool {
        self.tokens
            .get(self.at + ahead)
            .is_some_and(|token| token.is_symbol(self.sql, symbol))
    }

    pub(crate) fn is_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.at = (self.at + tokens).min(self.tokens.len());
    }

    /// Takes these words if all of them come next.
    pub(crate) fn take(&mut self, words: &[&str]) -> bool {
        let all = words
            .iter()
            .enumerate()
            .all(|(ahead, word)| self.is_word(ahead, word));
        if all {
            self.advance(words.len());
        }
        all
    }

    /// Takes whichever of the words comes next.
    pub(crate) fn take_any(&mut self, words: &[&'static str]) -> Option<&'static str> {
        let word = words.iter().find(|word| self.is_word(0, word))?;
        self.advance(1);
        Some(word)
    }

    pub(crate) fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(0, symbol);
        if found {
            self.advance(1);
        }
        found
    }

    pub(crate) fn expect(&mut self, words: &[&str]) -> Result<(), StatementError> {
        words.iter().try_for_each(|word| {
            if self.take(&[word]) {
                Ok(())
            } else {
                Err(self.unexpected())
            }
        })
    }

    pub(crate) fn expect_symbol(&mut self, symbol: &str) -> Result<(), StatementError> {
        if self.take_symbol(symbol) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    pub(crate) fn expect_end(&self) -> Result<(), StatementError> {
        if self.is_end() {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    /// The syntax error about the next token. After the last one that is the semicolon, or the end.
    pub(crate) fn unexpected(&self) -> StatementError {
        let end = self.tokens.last().map_or(0, |token| token.end);
        let next = self.peek().copied().or_else(|| {
            let mut after = Lexer::new(&self.sql[end..]).next()?.ok()?;
            (after.start, after.end) = (after.start + end, after.end + end);
            Some(after)
        });
        match next {
            Some(token) => StatementError::Unexpected {
                near: token.text(self.sql).to_owned(),
                at: token.start,
                position: character_position(self.sql, token.start),
            },
            None => StatementError::EndOfInput {
                position: character_position(self.sql, self.sql.len()),
            },
        }
    }

    /// A name that is no keyword in the way (`ColId`).
    pub(crate) fn name(&mut self) -> Result<Cow<'a, str>, StatementError> {
        match self.peek() {
            Some(token)
                if token.is_identifier()
                    && !is_keyword_of(token, self.sql, &[RESERVED, TYPE_OR_FUNCTION]) =>
            {
                self.identifier()
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A name, any keyword included (`ColLabel`).
    pub(crate) fn label(&mut self) -> Result<Cow<'a, str>, StatementError> {
        match self.peek() {
            Some(token) if token.is_identifier() => self.identifier(),
            _ => Err(self.unexpected()),
        }
    }

    /// A word that is not reserved (`NonReservedWord`).
    pub(crate) fn word(&mut self) -> Result<Cow<'a, str>, StatementError> {
        match self.peek() {
            Some(token)
                if token.is_identifier() && !is_keyword_of(token, self.sql, &[RESERVED]) =>
            {
                self.identifier()
            }
            _ => Err(self.unexpected()),
        }
    }

    fn identifier(&mut self) -> Result<Cow<'a, str>, StatementError> {
        let Some(token) = self.peek() else {
            return Err(self.unexpected());
        };
        let name = identifier_value(token.text(self.sql))
            .map_err(|source| self.literal_error(token, source))?;
        self.advance(1);
        Ok(name)
    }

    fn literal_error(&self, token: &Token, source: LiteralError) -> StatementError {
        StatementError::Literal {
            source,
            position: character_position(self.sql, token.start),
        }
    }

    /// A name of up to three parts (`qualified_name`).
    pub(crate) fn qualified_name(&mut self) -> Result<Name<'a>, StatementError> {
        let mut name = Name {
            catalog: None,
            schema: None,
            name: self.name()?,
        };
        while name.catalog.is_none() && self.take_symbol(".") {
            let part = self.label()?;
            name.catalog = name.schema.take();
            name.schema = Some(std::mem::replace(&mut name.name, part));
        }
        Ok(name)
    }

    /// A name that may say ONLY or `*` (`relation_expr`).
    pub(crate) fn relation(&mut self) -> Result<Name<'a>, StatementError> {
        let only = self.take(&["only"]);
        let parenthesised = only && self.take_symbol("(");
        let name = self.qualified_name()?;
        if parenthesised {
            self.expect_symbol(")")?;
        } else if !only {
            self.take_symbol("*");
        }
        Ok(name)
    }

    /// What `item` reads, once and again after each comma.
    pub(crate) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, StatementError>,
    ) -> Result<Vec<T>, StatementError> {
        let mut items = vec![item(self)?];
        while self.take_symbol(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A string constant (`Sconst`).
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, StatementError> {
        let token = self
            .peek()
            .filter(|token| token.is_string())
            .ok_or_else(|| self.unexpected())?;
        let value =
            string_value(token, self.sql).map_err(|source| self.literal_error(token, source))?;
        self.advance(1);
        Ok(value)
    }

    /// A number with or without a sign, as PostgreSQL prints the constant.
    pub(crate) fn number(&mut self) -> Result<String, StatementError> {
        let signed = usize::from(self.is_symbol(0, "+") || self.is_symbol(0, "-"));
        let minus = self.is_symbol(0, "-");
        let number = self
            .tokens
            .get(self.at + signed)
            .filter(|token| token.kind == TokenKind::Number);
        let Some(number) = number else {
            self.advance(signed);
            return Err(self.unexpected());
        };
        self.advance(signed + 1);
        let text = number.text(self.sql);
        Ok(match text.parse::<i32>() {
            Ok(integer) if minus => (-integer).to_string(),
            Ok(integer) => integer.to_string(),
            Err(_) if minus => format!("-{text}"),
            Err(_) => text.to_owned(),
        })
    }

    /// The texts between the commas of a parenthesised list that is not empty.
    pub(crate) fn texts_in_parentheses(&mut self) -> Result<Vec<&'a str>, StatementError> {
        self.expect_symbol("(")?;
        let mut texts = Vec::new();
        loop {
            let first = self.peek().ok_or_else(|| self.unexpected())?.start;
            let item = self.at;
            let mut depth = 0usize;
            while let Some(token) = self.peek() {
                match token.text(self.sql) {
                    _ if token.kind != TokenKind::Punctuation => {}
                    "(" | "[" => depth += 1,
                    ")" | "," if depth == 0 => break,
                    ")" | "]" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                self.advance(1);
            }
            if self.is_end() || self.at == item {
                return Err(self.unexpected());
            }
            texts.push(&self.sql[first..self.tokens[self.at - 1].end]);
            if !self.take_symbol(",") {
                self.advance(1);
                return Ok(texts);
            }
        }
    }

    /// Skips a parenthesised group, and gives the text inside with its first token's index.
    pub(crate) fn parenthesised(&mut self) -> Result<Body<'a>, StatementError> {
        self.expect_symbol("(")?;
        let first_token = self.at;
        let mut depth = 1usize;
        while let Some(token) = self.peek() {
            if token.is_symbol(self.sql, "(") {
                depth += 1;
            } else if token.is_symbol(self.sql, ")") {
                depth -= 1;
            }
            if depth == 0 {
                let start = self.tokens[first_token].start;
                let text = self.sql[start..token.start].trim_ascii_end();
                self.advance(1);
                return Ok(Body { text, first_token });
            }
            self.advance(1);
        }
        Err(self.unexpected())
    }

    /// All that is left, which must be something.
    pub(crate) fn body(&mut self) -> Result<Body<'a>, StatementError> {
        let (Some(first), Some(last)) = (self.peek(), self.tokens.last()) else {
            return Err(self.unexpected());
        };
        let body = Body {
            text: &self.sql[first.start..last.end],
            first_token: self.at,
        };
        self.at = self.tokens.len();
        Ok(body)
    }

    /// The text from here to where `end` is.
    pub(crate) fn text_until(&self, end: &Self) -> &'a str {
        match self.tokens[self.at..end.at] {
            [] => "",
            [first, ..] => &self.sql[first.start..self.tokens[end.at - 1].end],
        }
    }

    /// Whether a token from here on is this word.
    pub(crate) fn has_word(&self, word: &str) -> bool {
        self.tokens[self.at..]
            .iter()
            .any(|token| token.is(self.sql, word))
    }

    /// Whether a token outside parentheses, from here on, is this word.
    pub(crate) fn has_word_ahead(&self, word: &str) -> bool {
        self.words_ahead()
            .any(|(_, token)| token.is(self.sql, word))
    }

    /// Goes on to the first token outside parentheses that is this word, if there is one.
    pub(crate) fn skip_to(&mut self, word: &str) -> bool {
        let found = self
            .words_ahead()
            .find(|(_, token)| token.is(self.sql, word))
            .map(|(index, _)| index);
        self.at = found.unwrap_or(self.at);
        found.is_some()
    }

    fn words_ahead(&self) -> impl Iterator<Item = (usize, &'t Token)> + use<'a, 't> {
        let (sql, from) = (self.sql, self.at);
        let mut depth = 0usize;
        self.tokens[from..]
            .iter()
            .enumerate()
            .filter_map(move |(ahead, token)| {
                if token.is_symbol(sql, "(") {
                    depth += 1;
                } else if token.is_symbol(sql, ")") {
                    depth = depth.saturating_sub(1);
                }
                (depth == 0 && token.kind == TokenKind::Word).then_some((from + ahead, token))
            })
    }
}

fn is_keyword_of(token: &Token, sql: &str, groups: &[&[&str]]) -> bool {
    let word = token.text(sql);
    token.kind == TokenKind::Word
        && groups
            .iter()
            .any(|group| group.iter().any(|it| it.eq_ignore_ascii_case(word)))
}

/// Keywords that name nothing unless quoted: `pg_get_keywords()` of PostgreSQL 15, `catcode = 'R'`.
#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "both", "case", "cast", "check",
    "collate", "column", "constraint", "create", "current_catalog", "current_date", "current_role", "current_time",
    "current_timestamp", "current_user", "default", "deferrable", "desc", "distinct", "do", "else", "end", "except",
    "false", "fetch", "for", "foreign", "from", "grant", "group", "having", "in", "initially", "intersect", "into",
    "lateral", "leading", "limit", "localtime", "localtimestamp", "not", "null", "offset", "on", "only", "or", "order",
    "placing", "primary", "references", "returning", "select", "session_user", "some", "symmetric", "table", "then",
    "to", "trailing", "true", "union", "unique", "user", "using", "variadic", "when", "where", "window", "with",
];

/// Keywords that name functions and types only: `catcode = 'T'`.
#[rustfmt::skip]
const TYPE_OR_FUNCTION: &[&str] = &[
    "authorization", "binary", "collation", "concurrently", "cross", "current_schema", "freeze", "full", "ilike",
    "inner", "is", "isnull", "join", "left", "like", "natural", "notnull", "outer", "overlaps", "right", "similar",
    "tablesample", "verbose",
];

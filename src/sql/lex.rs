//! [`Lexer`]: PostgreSQL's lexical structure, as byte ranges into the statement.
//!
//! Follows the chapter "Lexical Structure" and `scan.l` of PostgreSQL 15 with `standard_conforming_strings` on.
//! What later versions read otherwise (`0x1F`, `1_000`, from 16) is an error here, as it is in 15. Knows no
//! keywords and no grammar. Start at [`lex`].

use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use std::borrow::Cow;
use thiserror::Error;

/// The longest identifier in bytes; longer ones are cut (`NAMEDATALEN - 1`).
pub const IDENTIFIER_BYTES_MAX: usize = 63;

/// How much of a token an error message repeats, in bytes.
const NEAR_BYTES_MAX: usize = 1024;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// An unquoted identifier or a keyword.
    Word,
    /// `"…"`.
    QuotedIdentifier,
    /// `U&"…"`, with its UESCAPE clause.
    UnicodeIdentifier,
    /// `'…'`, with the segments that continue it on further lines.
    String,
    /// `E'…'`, with the segments that continue it.
    EscapeString,
    /// `U&'…'`, with the segments that continue it and its UESCAPE clause.
    UnicodeString,
    /// `N'…'`, with the segments that continue it.
    NationalString,
    /// `B'…'` or `X'…'`, with the segments that continue it.
    BitString,
    /// `$tag$…$tag$`.
    DollarString,
    /// `1`, `1.5`, `.5`, `1e10`; never signed.
    Number,
    /// `$1`.
    Parameter,
    /// A run of operator characters, cut as PostgreSQL cuts it; also `=>`, `<=` and the like.
    Operator,
    /// One of `( ) [ ] , ; : . :: := ..`.
    Punctuation,
}

/// One token: `sql[start..end]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

impl Token {
    /// Its text in the statement that it was read from.
    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        &sql[self.start..self.end]
    }

    /// Whether it is the unquoted word `word`, in any case.
    pub fn is(&self, sql: &str, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text(sql).eq_ignore_ascii_case(word)
    }

    /// Whether it is this operator or punctuation.
    pub fn is_symbol(&self, sql: &str, symbol: &str) -> bool {
        matches!(self.kind, TokenKind::Operator | TokenKind::Punctuation)
            && self.text(sql) == symbol
    }

    /// Whether it can stand for a name, as far as its form goes (a reserved word is a [`TokenKind::Word`] too).
    pub fn is_identifier(&self) -> bool {
        matches!(
            self.kind,
            TokenKind::Word | TokenKind::QuotedIdentifier | TokenKind::UnicodeIdentifier
        )
    }

    /// Whether the grammar takes it as a string constant (`Sconst`). [`TokenKind::NationalString`] is not one: it
    /// is an expression of type `character`.
    pub fn is_string(&self) -> bool {
        matches!(
            self.kind,
            TokenKind::String
                | TokenKind::EscapeString
                | TokenKind::UnicodeString
                | TokenKind::DollarString
        )
    }
}

/// What one statement may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LexLimits {
    /// The most tokens.
    pub tokens_max: usize,
    /// The deepest nesting of `(` and `[`.
    pub depth_max: usize,
}

/// A text that PostgreSQL's lexer does not accept, or that is over a limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LexError {
    /// Not SQL: 42601.
    #[error("{message} at or near \"{near}\"")]
    Syntax {
        /// PostgreSQL's words.
        message: &'static str,
        /// The text from `at` on, at most 1024 bytes of it.
        near: String,
        /// The byte where it starts.
        at: usize,
        /// The character where it starts, from 1.
        position: u32,
    },
    /// A literal with a wrong escape: 22025, but 42601 for `U&`.
    #[error(transparent)]
    Literal(#[from] LiteralError),
    /// Too many tokens: 54001.
    #[error("statement has more than {tokens_max} tokens")]
    TooManyTokens {
        /// [`LexLimits::tokens_max`].
        tokens_max: usize,
    },
    /// Nested too deeply: 54001.
    #[error("statement nests more than {depth_max} parentheses")]
    TooDeep {
        /// [`LexLimits::depth_max`].
        depth_max: usize,
    },
}

impl LexError {
    /// A 42601 about `sql[start..end]`.
    pub(crate) fn syntax(sql: &str, message: &'static str, start: usize, end: usize) -> Self {
        let end = sql.floor_char_boundary(end.min(start + NEAR_BYTES_MAX));
        Self::Syntax {
            message,
            near: sql[start..end].to_owned(),
            at: start,
            position: character_position(sql, start),
        }
    }
}

/// A literal or name whose inside has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LiteralError {
    /// `\u` or `\U` without its digits: 22025.
    #[error("invalid Unicode escape")]
    EscapeDigits,
    /// A `U&` escape without its digits: 42601.
    #[error("invalid Unicode escape")]
    UnicodeEscape,
    /// A code point that does not exist, or zero: 42601.
    #[error("invalid Unicode escape value")]
    CodePoint,
    /// Half a surrogate pair: 42601.
    #[error("invalid Unicode surrogate pair")]
    SurrogatePair,
    /// Bytes written as escapes that are not UTF-8: 22021.
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    NotUtf8,
    /// `""`: 42601.
    #[error("zero-length delimited identifier")]
    EmptyIdentifier,
    /// `\v`, a letter before PostgreSQL 16 and a vertical tab since: 0A000.
    #[error("the escape \\v means different things to different versions of PostgreSQL")]
    VerticalTab,
    /// Not a literal or name of this sort.
    #[error("not a string literal")]
    OtherKind,
}

impl ErrorReply for LexError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Syntax { .. } => SqlState::SYNTAX_ERROR,
            Self::Literal(literal) => literal.sqlstate(),
            Self::TooManyTokens { .. } | Self::TooDeep { .. } => SqlState::STATEMENT_TOO_COMPLEX,
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
            Self::Literal(literal) => literal.hint(),
            Self::Syntax { .. } | Self::TooManyTokens { .. } | Self::TooDeep { .. } => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }

    fn position(&self) -> Option<u32> {
        match self {
            Self::Syntax { position, .. } => Some(*position),
            Self::Literal(_) | Self::TooManyTokens { .. } | Self::TooDeep { .. } => None,
        }
    }
}

impl ErrorReply for LiteralError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::EscapeDigits => SqlState(*b"22025"),
            Self::NotUtf8 => SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            Self::VerticalTab => SqlState::FEATURE_NOT_SUPPORTED,
            Self::UnicodeEscape
            | Self::CodePoint
            | Self::SurrogatePair
            | Self::EmptyIdentifier
            | Self::OtherKind => SqlState::SYNTAX_ERROR,
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
            Self::EscapeDigits => {
                Some("Unicode escapes must be \\uXXXX or \\UXXXXXXXX.".to_owned())
            }
            Self::UnicodeEscape => Some("Unicode escapes must be \\XXXX or \\+XXXXXX.".to_owned()),
            Self::VerticalTab => Some("Write \\x0b or v.".to_owned()),
            Self::CodePoint
            | Self::SurrogatePair
            | Self::NotUtf8
            | Self::EmptyIdentifier
            | Self::OtherKind => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// The 1-based character of the byte `at`, as ErrorResponse's field P counts.
pub fn character_position(sql: &str, at: usize) -> u32 {
    u32::try_from(sql[..at].chars().count() + 1).unwrap_or(u32::MAX)
}

/// All tokens of `sql`.
///
/// # Errors
/// What PostgreSQL's lexer rejects, at the first byte of the offending token; a limit passed.
pub fn lex(sql: &str, limits: &LexLimits) -> Result<Vec<Token>, LexError> {
    let mut tokens = Vec::with_capacity((sql.len() / 5).min(limits.tokens_max).min(256));
    let mut depth = 0usize;
    for token in Lexer::new(sql) {
        let token = token?;
        if tokens.len() == limits.tokens_max {
            return Err(LexError::TooManyTokens {
                tokens_max: limits.tokens_max,
            });
        }
        if token.kind == TokenKind::Punctuation {
            match sql.as_bytes()[token.start] {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > limits.depth_max {
                return Err(LexError::TooDeep {
                    depth_max: limits.depth_max,
                });
            }
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// The text after `pgring:` in the block comment that does so first, among the comments before the first token.
pub fn leading_hint(sql: &str) -> Option<&str> {
    let bytes = sql.as_bytes();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            byte if is_space(*byte) => at += 1,
            b'-' if bytes.get(at + 1) == Some(&b'-') => at = line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let end = comment_end(bytes, at)?;
                if let Some(hint) = sql[at + 2..end - 2].trim_ascii().strip_prefix("pgring:") {
                    return Some(hint.trim_ascii());
                }
                at = end;
            }
            _ => return None,
        }
    }
}

/// The name that the text of an identifier token means: unquoted or decoded, folded, cut to 63 bytes.
///
/// # Errors
/// `U&"…"` with a wrong escape; `""`; a text that is no identifier.
pub fn identifier_value(text: &str) -> Result<Cow<'_, str>, LiteralError> {
    let bytes = text.as_bytes();
    match bytes {
        [b'"', ..] => match text.len() {
            2 => Err(LiteralError::EmptyIdentifier),
            _ => Ok(unquote_identifier(text)),
        },
        [b'u' | b'U', b'&', b'"', ..] => {
            let close = quoted_end(bytes, 3, b'"').ok_or(LiteralError::OtherKind)?;
            let undoubled = undouble(&text[3..close - 1], '"');
            match decode_unicode(&undoubled, escape_character(&text[close..])?)? {
                name if name.is_empty() => Err(LiteralError::EmptyIdentifier),
                name => Ok(truncate_identifier(Cow::Owned(name))),
            }
        }
        [first, ..] if is_identifier_start(*first) => Ok(unquote_identifier(text)),
        _ => Err(LiteralError::OtherKind),
    }
}

/// `name` as an identifier that means just that.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a [`TokenKind::Word`] or [`TokenKind::QuotedIdentifier`] names: ASCII letters of a word folded to lower
/// case, `""` inside quotes made one, cut to 63 bytes at a character's border. For `U&"…"` see [`identifier_value`].
pub fn unquote_identifier(text: &str) -> Cow<'_, str> {
    let quoted = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    truncate_identifier(match quoted {
        Some(quoted) => undouble(quoted, '"'),
        None if text.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Cow::Owned(text.to_ascii_lowercase())
        }
        None => Cow::Borrowed(text),
    })
}

/// The value of a string token: [`TokenKind::String`], `EscapeString`, `UnicodeString`, `NationalString` or
/// `DollarString`.
///
/// # Errors
/// A wrong escape; escapes that do not make UTF-8, or make a zero byte; a token that is no such string.
pub fn string_value<'a>(token: &Token, sql: &'a str) -> Result<Cow<'a, str>, LiteralError> {
    let text = token.text(sql);
    match token.kind {
        TokenKind::String => Ok(undouble_segments(text, 1)),
        TokenKind::NationalString => Ok(undouble_segments(text, 2)),
        TokenKind::EscapeString => decode_escapes(text),
        TokenKind::UnicodeString => {
            let bytes = text.as_bytes();
            let close = string_end(bytes, 3, false).ok_or(LiteralError::OtherKind)?;
            let undoubled = undouble_segments(&text[..close], 3);
            decode_unicode(&undoubled, escape_character(&text[close..])?).map(Cow::Owned)
        }
        TokenKind::DollarString => {
            let tag =
                memchr::memchr(b'$', &text.as_bytes()[1..]).ok_or(LiteralError::OtherKind)? + 2;
            Ok(Cow::Borrowed(&text[tag..text.len() - tag]))
        }
        _ => Err(LiteralError::OtherKind),
    }
}

/// Whether the first token is the unquoted word `word`, in any case.
pub fn first_is(sql: &str, word: &str) -> bool {
    let first = Lexer::new(sql).next();
    first.is_some_and(|first| first.is_ok_and(|token| token.is(sql, word)))
}

/// Reads one token after the other. After an error it ends.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at the first byte of `sql`.
    pub fn new(sql: &'a str) -> Self {
        Self { sql, at: 0 }
    }

    fn read(&mut self) -> Result<Option<Token>, LexError> {
        self.skip_space()?;
        let bytes = self.sql.as_bytes();
        let start = self.at;
        let Some(&first) = bytes.get(start) else {
            return Ok(None);
        };
        let second = bytes.get(start + 1).copied();
        let (kind, end) = match (first, second) {
            (b'n' | b'N', Some(b'\'')) => {
                (TokenKind::NationalString, self.string(start + 2, false)?)
            }
            (b'e' | b'E', Some(b'\'')) => (TokenKind::EscapeString, self.string(start + 2, true)?),
            (b'b' | b'B' | b'x' | b'X', Some(b'\'')) => {
                (TokenKind::BitString, self.bit_string(start + 2)?)
            }
            (b'u' | b'U', Some(b'&')) if bytes.get(start + 2) == Some(&b'\'') => {
                let close = self.string(start + 3, false)?;
                (TokenKind::UnicodeString, self.escape_clause(close)?)
            }
            (b'u' | b'U', Some(b'&')) if bytes.get(start + 2) == Some(&b'"') => {
                let close = self.quoted_identifier(start + 2)?;
                (TokenKind::UnicodeIdentifier, self.escape_clause(close)?)
            }
            (b'\'', _) => (TokenKind::String, self.string(start + 1, false)?),
            (b'"', _) => (TokenKind::QuotedIdentifier, self.quoted_identifier(start)?),
            (b'0'..=b'9', _) | (b'.', Some(b'0'..=b'9')) => (TokenKind::Number, self.number()?),
            (b'$', Some(b'0'..=b'9')) => (TokenKind::Parameter, self.parameter()?),
            (b'$', _) => (TokenKind::DollarString, self.dollar_string()?),
            (b':', Some(b':' | b'=')) | (b'.', Some(b'.')) => (TokenKind::Punctuation, start + 2),
            (b'(' | b')' | b'[' | b']' | b',' | b';' | b':' | b'.', _) => {
                (TokenKind::Punctuation, start + 1)
            }
            _ if is_identifier_start(first) => (TokenKind::Word, word_end(bytes, start)),
            _ if is_operator(first) => (TokenKind::Operator, self.operator()?),
            _ => return Err(LexError::syntax(self.sql, "syntax error", start, start + 1)),
        };
        self.at = end;
        Ok(Some(Token { kind, start, end }))
    }

    fn skip_space(&mut self) -> Result<(), LexError> {
        let bytes = self.sql.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            let next = bytes.get(self.at + 1).copied();
            match (byte, next) {
                _ if is_space(byte) => self.at += 1,
                (b'-', Some(b'-')) => self.at = line_end(bytes, self.at),
                (b'/', Some(b'*')) => {
                    self.at = comment_end(bytes, self.at)
                        .ok_or_else(|| self.error("unterminated /* comment", bytes.len()))?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// An error about the token that starts here and ends before `end`.
    fn error(&self, message: &'static str, end: usize) -> LexError {
        LexError::syntax(self.sql, message, self.at, end)
    }

    fn string(&self, inside: usize, escapes: bool) -> Result<usize, LexError> {
        let bytes = self.sql.as_bytes();
        // PostgreSQL reads the N of N'…' as a word of its own.
        let start = self.at + usize::from(matches!(bytes[self.at], b'n' | b'N'));
        let unterminated =
            || LexError::syntax(self.sql, "unterminated quoted string", start, bytes.len());
        string_end(bytes, inside, escapes).ok_or_else(unterminated)
    }

    fn bit_string(&self, mut inside: usize) -> Result<usize, LexError> {
        let bytes = self.sql.as_bytes();
        loop {
            let Some(length) = memchr::memchr(b'\'', &bytes[inside..]) else {
                let message = match bytes[self.at] {
                    b'b' | b'B' => "unterminated bit string literal",
                    _ => "unterminated hexadecimal string literal",
                };
                return Err(self.error(message, bytes.len()));
            };
            let close = inside + length + 1;
            match continuation(bytes, close) {
                Some(next) => inside = next,
                None => return Ok(close),
            }
        }
    }

    fn quoted_identifier(&self, open: usize) -> Result<usize, LexError> {
        let bytes = self.sql.as_bytes();
        let close = quoted_end(bytes, open + 1, b'"')
            .ok_or_else(|| self.error("unterminated quoted identifier", bytes.len()))?;
        match close - open {
            2 => Err(self.error("zero-length delimited identifier", close)),
            _ => Ok(close),
        }
    }

    fn dollar_string(&self) -> Result<usize, LexError> {
        let bytes = self.sql.as_bytes();
        let start = self.at;
        let mut tag = start + 1;
        if bytes.get(tag).copied().is_some_and(is_identifier_start) {
            while bytes
                .get(tag)
                .copied()
                .is_some_and(|byte| is_identifier_start(byte) || byte.is_ascii_digit())
            {
                tag += 1;
            }
        }
        if bytes.get(tag) != Some(&b'$') {
            return Err(self.error("syntax error", start + 1));
        }
        let delimiter = &bytes[start..=tag];
        memchr::memmem::find(&bytes[tag + 1..], delimiter)
            .map(|length| tag + 1 + length + delimiter.len())
            .ok_or_else(|| self.error("unterminated dollar-quoted string", bytes.len()))
    }

    /// Takes in a UESCAPE clause that follows a `U&` token, as PostgreSQL does between lexer and grammar.
    fn escape_clause(&self, close: usize) -> Result<usize, LexError> {
        let mut ahead = Lexer {
            sql: self.sql,
            at: close,
        };
        let clause = match ahead.read()? {
            Some(token) if token.is(self.sql, "uescape") => ahead.read()?,
            _ => return Ok(close),
        };
        let Some(clause) = clause.filter(Token::is_string) else {
            let (start, end) =
                clause.map_or((ahead.at, ahead.at), |token| (token.start, token.end));
            let message = "UESCAPE must be followed by a simple string literal";
            return Err(LexError::syntax(self.sql, message, start, end));
        };
        match string_value(&clause, self.sql)?.as_bytes() {
            [escape] if is_unicode_escape(*escape) => Ok(clause.end),
            _ => Err(LexError::syntax(
                self.sql,
                "invalid Unicode escape character",
                clause.start,
                clause.end,
            )),
        }
    }

    fn number(&self) -> Result<usize, LexError> {
        let bytes = self.sql.as_bytes();
        let mut end = digits_end(bytes, self.at);
        if bytes.get(end) == Some(&b'.') {
            // `1..10` is a range of two integers.
            if bytes.get(end + 1) == Some(&b'.') {
                return Ok(end);
            }
            end = digits_end(bytes, end + 1);
        }
        let mantissa = end;
        if let Some(b'e' | b'E') = bytes.get(end) {
            let signed = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
            let digits = end + 1 + usize::from(signed);
            let exponent = digits_end(bytes, digits);
            if exponent > digits {
                end = exponent;
            } else if signed {
                return Err(self.error("trailing junk after numeric literal", digits));
            }
        }
        self.no_junk(mantissa, end, "trailing junk after numeric literal")
    }

    fn parameter(&self) -> Result<usize, LexError> {
        let end = digits_end(self.sql.as_bytes(), self.at + 1);
        self.no_junk(end, end, "trailing junk after parameter")
    }

    /// `end`, unless an identifier that starts after the mantissa, or there, goes on past it.
    fn no_junk(
        &self,
        mantissa: usize,
        end: usize,
        message: &'static str,
    ) -> Result<usize, LexError> {
        let bytes = self.sql.as_bytes();
        let word = |at: usize| match bytes.get(at) {
            Some(byte) if is_identifier_start(*byte) => word_end(bytes, at),
            _ => at,
        };
        match word(mantissa).max(word(end)) {
            junk if junk > end => Err(self.error(message, junk)),
            _ => Ok(end),
        }
    }

    fn operator(&self) -> Result<usize, LexError> {
        let bytes = self.sql.as_bytes();
        let start = self.at;
        let mut end = start;
        while bytes.get(end).copied().is_some_and(is_operator) {
            if end > start && matches!(&bytes[end..], [b'/', b'*', ..] | [b'-', b'-', ..]) {
                break;
            }
            end += 1;
        }
        // Only an operator that has a character which SQL's own operators lack may end in + or -: `a=-1` is `=`
        // and `-`, while `a!=-1` is `!=-`.
        let own = |byte: &u8| b"~!@#^&|`?%".contains(byte);
        if end - start > 1
            && matches!(bytes[end - 1], b'+' | b'-')
            && !bytes[start..end - 1].iter().any(own)
        {
            while end - start > 1 && matches!(bytes[end - 1], b'+' | b'-') {
                end -= 1;
            }
        }
        match end - start {
            length if length > IDENTIFIER_BYTES_MAX => Err(self.error("operator too long", end)),
            _ => Ok(end),
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Result<Token, LexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let token = self.read().transpose();
        if let Some(Err(_)) = token {
            self.at = self.sql.len();
        }
        token
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

fn is_identifier_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

/// Bytes that operators are made of.
const OPERATORS: [bool; 256] = {
    let mut operators = [false; 256];
    let bytes = b"~!@#^&|`?+-*/%<>=";
    let mut at = 0;
    while at < bytes.len() {
        operators[bytes[at] as usize] = true;
        at += 1;
    }
    operators
};

pub(super) fn is_operator(byte: u8) -> bool {
    OPERATORS[usize::from(byte)]
}

/// Whether UESCAPE may name it.
fn is_unicode_escape(byte: u8) -> bool {
    byte.is_ascii()
        && !byte.is_ascii_hexdigit()
        && !matches!(byte, b'+' | b'\'' | b'"')
        && !is_space(byte)
}

/// Whether a byte may be part of an unquoted word after its first.
const WORD_PARTS: [bool; 256] = {
    let mut parts = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let part = byte as u8;
        parts[byte] =
            part.is_ascii_alphanumeric() || !part.is_ascii() || part == b'_' || part == b'$';
        byte += 1;
    }
    parts
};

pub(super) fn word_end(bytes: &[u8], start: usize) -> usize {
    let mut end = start;
    while end < bytes.len() && WORD_PARTS[usize::from(bytes[end])] {
        end += 1;
    }
    end
}

fn digits_end(bytes: &[u8], start: usize) -> usize {
    start
        + bytes[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
}

pub(super) fn line_end(bytes: &[u8], start: usize) -> usize {
    memchr::memchr2(b'\n', b'\r', &bytes[start..]).map_or(bytes.len(), |length| start + length)
}

/// The byte after a block comment that opens at `start`; block comments nest.
pub(super) fn comment_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 2;
    let mut depth = 1usize;
    while depth > 0 {
        at += memchr::memchr2(b'/', b'*', &bytes[at..])?;
        match (bytes[at], bytes.get(at + 1)?) {
            (b'/', b'*') => (depth, at) = (depth + 1, at + 2),
            (b'*', b'/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    Some(at)
}

/// The byte after the quote that closes what `inside` is the first byte of; a doubled quote does not close.
pub(super) fn quoted_end(bytes: &[u8], inside: usize, quote: u8) -> Option<usize> {
    let mut at = inside;
    loop {
        at += memchr::memchr(quote, &bytes[at..])? + 1;
        match bytes.get(at) {
            Some(next) if *next == quote => at += 1,
            _ => return Some(at),
        }
    }
}

/// As [`quoted_end`], where a backslash hides the byte after it.
fn escaped_end(bytes: &[u8], inside: usize) -> Option<usize> {
    let mut at = inside;
    loop {
        at += memchr::memchr2(b'\'', b'\\', &bytes[at..])? + 1;
        match (bytes[at - 1], bytes.get(at)) {
            (b'\\', hidden) => at += usize::from(hidden.is_some()),
            (_, Some(b'\'')) => at += 1,
            _ => return Some(at),
        }
    }
}

/// The byte after a string literal, all its segments included.
fn string_end(bytes: &[u8], inside: usize, escapes: bool) -> Option<usize> {
    let mut at = inside;
    loop {
        at = if escapes {
            escaped_end(bytes, at)?
        } else {
            quoted_end(bytes, at, b'\'')?
        };
        match continuation(bytes, at) {
            Some(next) => at = next,
            None => return Some(at),
        }
    }
}

/// Where the next segment's inside starts, if after the closing quote only space, line comments and at least one
/// newline come before another quote.
pub(super) fn continuation(bytes: &[u8], close: usize) -> Option<usize> {
    let mut at = close;
    let mut newline = false;
    loop {
        match bytes.get(at)? {
            b'\n' | b'\r' => (newline, at) = (true, at + 1),
            byte if is_space(*byte) => at += 1,
            b'-' if bytes.get(at + 1) == Some(&b'-') => at = line_end(bytes, at),
            b'\'' if newline => return Some(at + 1),
            _ => return None,
        }
    }
}

fn truncate_identifier(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= IDENTIFIER_BYTES_MAX {
        return name;
    }
    let end = name.floor_char_boundary(IDENTIFIER_BYTES_MAX);
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..end]),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Cow::Owned(name)
        }
    }
}

/// `inside` with each doubled `quote` made one.
fn undouble(inside: &str, quote: char) -> Cow<'_, str> {
    let mut rest = inside;
    let mut value = String::new();
    while let Some(at) = rest.find(quote) {
        value.push_str(&rest[..=at]);
        // The second of the pair.
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    match value.is_empty() {
        true => Cow::Borrowed(inside),
        false => Cow::Owned(value + rest),
    }
}

/// The value of a string without escapes: its segments joined. `inside` is the first segment's first byte.
fn undouble_segments(text: &str, inside: usize) -> Cow<'_, str> {
    let mut segments =
        Segments::new(text, inside, false).map(|(start, end)| undouble(&text[start..end], '\''));
    let mut value = segments.next().unwrap_or_default();
    for segment in segments {
        value.to_mut().push_str(&segment);
    }
    value
}

/// The insides of a string literal's segments.
struct Segments<'a> {
    bytes: &'a [u8],
    next: Option<usize>,
    escapes: bool,
}

impl<'a> Segments<'a> {
    fn new(text: &'a str, inside: usize, escapes: bool) -> Self {
        Self {
            bytes: text.as_bytes(),
            next: Some(inside),
            escapes,
        }
    }
}

impl Iterator for Segments<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next?;
        let close = match self.escapes {
            true => escaped_end(self.bytes, start)?,
            false => quoted_end(self.bytes, start, b'\'')?,
        };
        self.next = continuation(self.bytes, close);
        Some((start, close - 1))
    }
}

/// The value of `E'…'`.
fn decode_escapes(text: &str) -> Result<Cow<'_, str>, LiteralError> {
    let mut value = Vec::with_capacity(text.len());
    for (start, end) in Segments::new(text, 2, true) {
        let mut rest = &text.as_bytes()[start..end];
        while let Some(at) = memchr::memchr2(b'\\', b'\'', rest) {
            value.extend_from_slice(&rest[..at]);
            rest = match rest[at] {
                b'\'' => {
                    value.push(b'\'');
                    rest.get(at + 2..).unwrap_or_default()
                }
                _ => decode_escape(&rest[at + 1..], &mut value)?,
            };
        }
        value.extend_from_slice(rest);
    }
    if value.contains(&0) {
        return Err(LiteralError::NotUtf8);
    }
    String::from_utf8(value)
        .map(Cow::Owned)
        .map_err(|_| LiteralError::NotUtf8)
}

/// Decodes what follows a backslash onto `value`, and gives back what is left.
fn decode_escape<'a>(rest: &'a [u8], value: &mut Vec<u8>) -> Result<&'a [u8], LiteralError> {
    let Some(&first) = rest.first() else {
        return Ok(rest);
    };
    let run = |from: usize, radix: u32, digits_max: usize| {
        let digits = rest[from..]
            .iter()
            .take(digits_max)
            .take_while(|byte| char::from(**byte).is_digit(radix));
        digits.fold((0u32, from), |(number, end), byte| {
            (
                number.wrapping_mul(radix) + char::from(*byte).to_digit(radix).unwrap_or(0),
                end + 1,
            )
        })
    };
    let (byte, end) = match first {
        b'0'..=b'7' => {
            let (number, end) = run(0, 8, 3);
            // As PostgreSQL: `\777` keeps its low eight bits.
            ((number & 0xff) as u8, end)
        }
        b'x' => match run(1, 16, 2) {
            (_, 1) => (b'x', 1),
            (number, end) => (number as u8, end),
        },
        b'u' | b'U' => {
            let digits = if first == b'u' { 4 } else { 8 };
            let (number, end) = run(1, 16, digits);
            if end != 1 + digits {
                return Err(LiteralError::EscapeDigits);
            }
            return decode_pair(number, &rest[end..], value);
        }
        b'b' => (b'\x08', 1),
        b'f' => (b'\x0c', 1),
        b'n' => (b'\n', 1),
        b'r' => (b'\r', 1),
        b't' => (b'\t', 1),
        b'v' => return Err(LiteralError::VerticalTab),
        other => (other, 1),
    };
    value.push(byte);
    Ok(&rest[end..])
}

/// Pushes a `\u` code point; one that is a high surrogate takes the low one from `rest`.
fn decode_pair<'a>(
    number: u32,
    rest: &'a [u8],
    value: &mut Vec<u8>,
) -> Result<&'a [u8], LiteralError> {
    let (number, rest) = match number {
        0xd800..=0xdbff => {
            let (digits, width) = match rest {
                [b'\\', b'u', digits @ ..] => (digits, 4),
                [b'\\', b'U', digits @ ..] => (digits, 8),
                _ => return Err(LiteralError::SurrogatePair),
            };
            let low = digits
                .get(..width)
                .and_then(hexadecimal)
                .ok_or(LiteralError::EscapeDigits)?;
            (combine_surrogates(number, low)?, &digits[width..])
        }
        number => (number, rest),
    };
    let character = code_point(number)?;
    value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(rest)
}

fn combine_surrogates(high: u32, low: u32) -> Result<u32, LiteralError> {
    match low {
        0xdc00..=0xdfff => Ok(0x10000 + ((high & 0x3ff) << 10) + (low & 0x3ff)),
        _ => Err(LiteralError::SurrogatePair),
    }
}

fn code_point(number: u32) -> Result<char, LiteralError> {
    match number {
        0 => Err(LiteralError::CodePoint),
        0xd800..=0xdfff => Err(LiteralError::SurrogatePair),
        number => char::from_u32(number).ok_or(LiteralError::CodePoint),
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |number, byte| {
        Some(number << 4 | char::from(*byte).to_digit(16)?)
    })
}

/// The escape character of a `U&` token, given what follows its closing quote.
fn escape_character(clause: &str) -> Result<char, LiteralError> {
    let mut tokens = Lexer::new(clause);
    match (tokens.next(), tokens.next()) {
        (None, _) => Ok('\\'),
        (Some(Ok(_)), Some(Ok(token))) => string_value(&token, clause)?
            .chars()
            .next()
            .ok_or(LiteralError::OtherKind),
        _ => Err(LiteralError::OtherKind),
    }
}

/// Decodes `U&` escapes: `\XXXX`, `\+XXXXXX` and the doubled escape character.
fn decode_unicode(inside: &str, escape: char) -> Result<String, LiteralError> {
    let mut value = String::with_capacity(inside.len());
    let mut rest = inside;
    let mut high = None;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        if first != escape || after.starts_with(escape) {
            if high.is_some() {
                return Err(LiteralError::SurrogatePair);
            }
            value.push(first);
            rest = if first == escape { &after[1..] } else { after };
            continue;
        }
        let (start, width) = if after.starts_with('+') {
            (1, 6)
        } else {
            (0, 4)
        };
        let digits = after.as_bytes().get(start..start + width);
        let number = digits
            .and_then(hexadecimal)
            .ok_or(LiteralError::UnicodeEscape)?;
        rest = &after[start + width..];
        match (high.take(), number) {
            (Some(high), low) => value.push(code_point(combine_surrogates(high, low)?)?),
            (None, 0xd800..=0xdbff) => high = Some(number),
            (None, number) => value.push(code_point(number)?),
        }
    }
    match high {
        Some(_) => Err(LiteralError::SurrogatePair),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::TokenKind::*;
    use super::*;

    const LIMITS: LexLimits = LexLimits {
        tokens_max: 10_000,
        depth_max: 100,
    };

    fn texts(sql: &str) -> Vec<(TokenKind, &str)> {
        lex(sql, &LIMITS)
            .unwrap()
            .iter()
            .map(|token| (token.kind, token.text(sql)))
            .collect()
    }

    fn only(sql: &str) -> Token {
        let tokens = lex(sql, &LIMITS).unwrap();
        assert_eq!(tokens.len(), 1, "{sql}");
        tokens[0]
    }

    #[test]
    fn tokens_are_those_of_postgresql() {
        let cases: &[(&str, &[(TokenKind, &str)])] = &[
            ("", &[]),
            (" \t\n\r\x0c", &[]),
            ("SELECT 1", &[(Word, "SELECT"), (Number, "1")]),
            ("a$b", &[(Word, "a$b")]),
            ("größe\u{a0}x", &[(Word, "größe\u{a0}x")]),
            (r#""a""b""#, &[(QuotedIdentifier, r#""a""b""#)]),
            (
                r#""a"" c"" " d"#,
                &[(QuotedIdentifier, r#""a"" c"" ""#), (Word, "d")],
            ),
            (r#"U&"d\0061""#, &[(UnicodeIdentifier, r#"U&"d\0061""#)]),
            (
                r#"u&"d!0061" uescape '!' x"#,
                &[
                    (UnicodeIdentifier, r#"u&"d!0061" uescape '!'"#),
                    (Word, "x"),
                ],
            ),
            ("u & 'x'", &[(Word, "u"), (Operator, "&"), (String, "'x'")]),
            ("'it''s'", &[(String, "'it''s'")]),
            (r"'a\' b", &[(String, r"'a\'"), (Word, "b")]),
            (r"E'\''", &[(EscapeString, r"E'\''")]),
            (r"e'\\' 'x'", &[(EscapeString, r"e'\\'"), (String, "'x'")]),
            ("N'a'", &[(NationalString, "N'a'")]),
            ("b'01' X'1F'", &[(BitString, "b'01'"), (BitString, "X'1F'")]),
            ("b'0''1'", &[(BitString, "b'0'"), (String, "'1'")]),
            ("'a'\n  'b'", &[(String, "'a'\n  'b'")]),
            (
                "'a' -- c\n -- d\n 'b'",
                &[(String, "'a' -- c\n -- d\n 'b'")],
            ),
            ("'a' 'b'", &[(String, "'a'"), (String, "'b'")]),
            ("'a' /* c\n */ 'b'", &[(String, "'a'"), (String, "'b'")]),
            ("'a' -- c", &[(String, "'a'")]),
            ("E'a'\n'\\''", &[(EscapeString, "E'a'\n'\\''")]),
            ("$$a'b$$", &[(DollarString, "$$a'b$$")]),
            (
                "$tag$ $$ $TAG$ $tag$;",
                &[(DollarString, "$tag$ $$ $TAG$ $tag$"), (Punctuation, ";")],
            ),
            ("$é1$x$é1$", &[(DollarString, "$é1$x$é1$")]),
            ("$1", &[(Parameter, "$1")]),
            ("$12$3", &[(Parameter, "$12"), (Parameter, "$3")]),
            (
                "1 1.5 .5 1.",
                &[
                    (Number, "1"),
                    (Number, "1.5"),
                    (Number, ".5"),
                    (Number, "1."),
                ],
            ),
            (
                "1e10 1.e5 1.5E-3",
                &[(Number, "1e10"), (Number, "1.e5"), (Number, "1.5E-3")],
            ),
            (
                "1..10",
                &[(Number, "1"), (Punctuation, ".."), (Number, "10")],
            ),
            ("1.5.5", &[(Number, "1.5"), (Number, ".5")]),
            ("a.b", &[(Word, "a"), (Punctuation, "."), (Word, "b")]),
            (
                "SELECT a::int",
                &[
                    (Word, "SELECT"),
                    (Word, "a"),
                    (Punctuation, "::"),
                    (Word, "int"),
                ],
            ),
            (
                "a:=b:c",
                &[
                    (Word, "a"),
                    (Punctuation, ":="),
                    (Word, "b"),
                    (Punctuation, ":"),
                    (Word, "c"),
                ],
            ),
            (
                "@> ->> #>>",
                &[(Operator, "@>"), (Operator, "->>"), (Operator, "#>>")],
            ),
            (
                "=> <= <>",
                &[(Operator, "=>"), (Operator, "<="), (Operator, "<>")],
            ),
            ("!=-1", &[(Operator, "!=-"), (Number, "1")]),
            ("=-1", &[(Operator, "="), (Operator, "-"), (Number, "1")]),
            (
                "<>+-1",
                &[
                    (Operator, "<>"),
                    (Operator, "+"),
                    (Operator, "-"),
                    (Number, "1"),
                ],
            ),
            ("*/", &[(Operator, "*/")]),
            ("+/*x*/1", &[(Operator, "+"), (Number, "1")]),
            ("@--x\n1", &[(Operator, "@"), (Number, "1")]),
            ("*--x", &[(Operator, "*")]),
            ("a/* /* x */ ' */b", &[(Word, "a"), (Word, "b")]),
            ("a/*/**/*/b", &[(Word, "a"), (Word, "b")]),
            ("a--b\rc", &[(Word, "a"), (Word, "c")]),
            (
                "([]);",
                &[
                    (Punctuation, "("),
                    (Punctuation, "["),
                    (Punctuation, "]"),
                    (Punctuation, ")"),
                    (Punctuation, ";"),
                ],
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(&texts(sql), expected, "{sql}");
        }
    }

    #[test]
    fn errors_are_those_of_postgresql() {
        let cases = [
            (
                "select 'abc",
                r#"unterminated quoted string at or near "'abc""#,
                8,
            ),
            (
                "é 'abc",
                r#"unterminated quoted string at or near "'abc""#,
                3,
            ),
            (
                r"E'\'",
                r#"unterminated quoted string at or near "E'\'""#,
                1,
            ),
            (
                "'a'\n'b",
                "unterminated quoted string at or near \"'a'\n'b\"",
                1,
            ),
            (
                "a \"b",
                r#"unterminated quoted identifier at or near ""b""#,
                3,
            ),
            (
                "a \"\"",
                r#"zero-length delimited identifier at or near """""#,
                3,
            ),
            (
                "a /* /* */",
                r#"unterminated /* comment at or near "/* /* */""#,
                3,
            ),
            ("/*/", r#"unterminated /* comment at or near "/*/""#, 1),
            (
                "$a$ $b$",
                r#"unterminated dollar-quoted string at or near "$a$ $b$""#,
                1,
            ),
            (
                "b'1",
                r#"unterminated bit string literal at or near "b'1""#,
                1,
            ),
            (
                "x'1",
                r#"unterminated hexadecimal string literal at or near "x'1""#,
                1,
            ),
            (
                "$1a",
                r#"trailing junk after parameter at or near "$1a""#,
                1,
            ),
            ("N'a", r#"unterminated quoted string at or near "'a""#, 2),
            (
                "1e5$1x",
                r#"trailing junk after numeric literal at or near "1e5$1x""#,
                1,
            ),
            (
                "1a",
                r#"trailing junk after numeric literal at or near "1a""#,
                1,
            ),
            (
                "0x1F",
                r#"trailing junk after numeric literal at or near "0x1F""#,
                1,
            ),
            (
                "1_000",
                r#"trailing junk after numeric literal at or near "1_000""#,
                1,
            ),
            (
                "1e+",
                r#"trailing junk after numeric literal at or near "1e+""#,
                1,
            ),
            (
                "1.5e",
                r#"trailing junk after numeric literal at or near "1.5e""#,
                1,
            ),
            ("a $b", r#"syntax error at or near "$""#, 3),
            ("a {", r#"syntax error at or near "{""#, 3),
            (
                "U&'a' UESCAPE 1",
                r#"UESCAPE must be followed by a simple string literal at or near "1""#,
                15,
            ),
            (
                "U&'a' UESCAPE '+'",
                r#"invalid Unicode escape character at or near "'+'""#,
                15,
            ),
        ];
        for (sql, message, expected) in cases {
            let error = lex(sql, &LIMITS).unwrap_err();
            assert_eq!(error.to_string(), message, "{sql}");
            let LexError::Syntax { position, .. } = error else {
                panic!("{sql}: {error:?}")
            };
            assert_eq!(position, expected, "{sql}");
        }
    }

    #[test]
    fn strings_have_the_values_that_postgresql_gives_them() {
        let cases = [
            ("''", ""),
            ("''''", "'"),
            ("'it''s'", "it's"),
            (r"'a\n'", r"a\n"),
            ("'a'\n'b''c'", "ab'c"),
            ("''\n''\n'x'", "x"),
            ("N'x''y'", "x'y"),
            (r"E'\'a''b'", "'a'b"),
            (r"E'\b\f\n\r\t\q\\'", "\x08\x0c\n\r\tq\\"),
            (r"E'\101\x41\x4z\xg'", "AA\x04zxg"),
            (r"E'\xc3\xa9\u00e9\U0001F600'", "éé😀"),
            (r"E'\ud83d\ude00'", "😀"),
            ("E'a\\''\n'b'", "a'b"),
            (r"U&'d\0061t\+000061\\'''", r"data\'"),
            (r"U&'\d83d\de00'", "😀"),
            (r"U&'d!0061!!\' UESCAPE '!'", r"da!\"),
            ("$$it''s$$", "it''s"),
            ("$a$ $$ $a$", " $$ "),
        ];
        for (sql, expected) in cases {
            assert_eq!(
                string_value(&only(sql), sql).as_deref(),
                Ok(expected),
                "{sql}"
            );
        }
    }

    #[test]
    fn wrong_escapes_are_errors() {
        let cases = [
            (r"E'\u12'", LiteralError::EscapeDigits),
            (r"E'\u0000'", LiteralError::CodePoint),
            (r"E'\U00110000'", LiteralError::CodePoint),
            (r"E'\ud83d'", LiteralError::SurrogatePair),
            (r"E'\ude00'", LiteralError::SurrogatePair),
            (r"E'\ud83d\u0041'", LiteralError::SurrogatePair),
            (r"E'\xff'", LiteralError::NotUtf8),
            (r"E'\0'", LiteralError::NotUtf8),
            (r"E'\v'", LiteralError::VerticalTab),
            (r"U&'\12'", LiteralError::UnicodeEscape),
            (r"U&'\d83d'", LiteralError::SurrogatePair),
            (r"U&'\d83dx'", LiteralError::SurrogatePair),
            ("b'1'", LiteralError::OtherKind),
        ];
        for (sql, expected) in cases {
            assert_eq!(string_value(&only(sql), sql), Err(expected), "{sql}");
        }
    }

    #[test]
    fn names_are_folded_unquoted_and_cut() {
        let long = "é".repeat(40);
        let cases = [
            ("Orders", "orders"),
            ("ÄB", "Äb"),
            (r#""Or""ders""#, "Or\"ders"),
            (r#"U&"d\0061""#, "da"),
            (r#"U&"D!0061""" UESCAPE '!'"#, "Da\""),
            (&long, &long[..62]),
        ];
        for (sql, expected) in cases {
            assert_eq!(
                identifier_value(only(sql).text(sql)).as_deref(),
                Ok(expected),
                "{sql}"
            );
        }
    }

    #[test]
    fn a_hint_is_found_before_the_first_token_only() {
        let cases = [
            ("/* pgring: key=42 */ select 1", Some("key=42")),
            (" -- x\n/* trace */ /*pgring:shard=s1*/", Some("shard=s1")),
            ("select /* pgring: key=42 */ 1", None),
            ("/* key=42 */ select 1", None),
            ("/* pgring: key=42", None),
            ("/*/ pgring: key=42 */", None),
            ("'/* pgring: key=42 */'", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(leading_hint(sql), expected, "{sql}");
        }
    }

    #[test]
    fn limits_hold_at_and_past_them() {
        let limits = LexLimits {
            tokens_max: 4,
            depth_max: 2,
        };
        assert_eq!(lex("(())", &limits).map(|tokens| tokens.len()), Ok(4));
        assert_eq!(
            lex("(()))", &limits),
            Err(LexError::TooManyTokens { tokens_max: 4 })
        );
        assert_eq!(lex("([(", &limits), Err(LexError::TooDeep { depth_max: 2 }));
    }

    #[test]
    fn a_lexer_ends_after_an_error() {
        let mut lexer = Lexer::new("a { b");
        assert!(lexer.next().unwrap().is_ok());
        assert!(lexer.next().unwrap().is_err());
        assert_eq!(lexer.next(), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_tokens_in_order_or_an_error(sql in "[a1é '\"$&UuEe./*\\\\\n-]{0,40}") {
            if let Ok(tokens) = lex(&sql, &LIMITS) {
                for pair in tokens.windows(2) {
                    assert!(pair[0].end <= pair[1].start);
                }
                for token in &tokens {
                    assert!(token.start < token.end && token.end <= sql.len());
                    let _ = string_value(token, &sql);
                    let _ = identifier_value(token.text(&sql));
                }
            }
        }
    }
}

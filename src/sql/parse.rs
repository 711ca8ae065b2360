//! [`parse`]: one statement's text → sqlparser's tree and PostgreSQL's tokens. The only file that names sqlparser.
//!
//! sqlparser's tree is read, never printed: a statement is rewritten by splicing its text at the tokens of our own
//! lexer. So both must cut the text alike, and that is checked for every statement: a text that sqlparser's tokenizer
//! cuts elsewhere than PostgreSQL is refused. Knows nothing of tables or shards.

use super::lex::{self, LexError, LexLimits, LiteralError, Token, TokenKind};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError, ParserOptions};
use sqlparser::tokenizer::{Span, Token as Cut, TokenWithSpan, Tokenizer, Word};
use std::borrow::Cow;
use thiserror::Error;

pub use sqlparser::ast;

/// Statements whose [`depth`] is at most this are parsed on the caller's stack.
const DEPTH_ON_CALLER: usize = 12;

/// Stack for each level of [`depth`], in bytes: an unoptimised build needs less than half.
const STACK_BYTES_PER_LEVEL: usize = 64 * 1024;

/// Stack for what does not depend on depth, in bytes.
const STACK_BYTES_BASE: usize = 4 * 1024 * 1024;

/// The deepest [`depth`] of a statement.
pub const DEPTH_MAX: usize = 1000;

/// One statement.
#[derive(Debug)]
pub struct Parsed {
    /// Its tree.
    pub statement: ast::Statement,
    /// Its tokens, without comments and a trailing semicolon.
    pub tokens: Vec<Token>,
}

/// Why there is no tree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// PostgreSQL's lexer does not accept it, or it has too many tokens.
    #[error(transparent)]
    Lex(#[from] LexError),
    /// Deeper than [`DEPTH_MAX`].
    #[error("statement nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// sqlparser does not know it, or cuts it into other tokens than PostgreSQL.
    #[error("this statement is beyond pgring's parser: {reason}")]
    Beyond {
        /// What the parser says.
        reason: String,
    },
}

/// Lexes `sql` within `limits`, without a trailing semicolon.
pub fn tokens(sql: &str, limits: &LexLimits) -> Result<Vec<Token>, ParseError> {
    let mut tokens = lex::lex(sql, limits)?;
    while tokens.last().is_some_and(|token| token.is_symbol(sql, ";")) {
        tokens.pop();
    }
    if depth(sql, &tokens) > DEPTH_MAX {
        return Err(ParseError::TooDeep);
    }
    Ok(tokens)
}

/// An upper estimate of how deep the tree of `tokens` is: brackets, and operators that may chain in each.
pub fn depth(sql: &str, tokens: &[Token]) -> usize {
    const CHAINING: [&str; 22] = [
        "and",
        "or",
        "not",
        "is",
        "in",
        "like",
        "ilike",
        "similar",
        "between",
        "case",
        "union",
        "intersect",
        "except",
        "collate",
        "at",
        "join",
        "isnull",
        "notnull",
        "interval",
        "select",
        "array",
        "using",
    ];
    let mut open: Vec<usize> = Vec::new();
    let (mut level, mut deepest, mut below) = (1_usize, 0_usize, 0_usize);
    for token in tokens {
        let text = token.text(sql);
        match token.kind {
            TokenKind::Punctuation => match text {
                "(" | "[" => {
                    below += level + 1;
                    open.push(level);
                    level = 1;
                }
                ")" | "]" => {
                    level = open.pop().unwrap_or(1);
                    below = below.saturating_sub(level + 1);
                    // `a[1][2]` and `f(x)(y)` nest to the left.
                    level += 1;
                }
                "," => level = 1,
                "::" | "." => level += 1,
                _ => {}
            },
            TokenKind::Operator => level += 1,
            TokenKind::Word if CHAINING.iter().any(|word| text.eq_ignore_ascii_case(word)) => {
                level += 1
            }
            _ => {}
        }
        deepest = deepest.max(below + level);
    }
    deepest
}

/// Runs `work`, which walks trees `depth` levels deep, on a stack that is large enough.
pub fn on_stack_for<T>(depth: usize, work: impl FnOnce() -> T) -> T {
    if depth <= DEPTH_ON_CALLER {
        return work();
    }
    stacker::grow(STACK_BYTES_BASE + depth * STACK_BYTES_PER_LEVEL, work)
}

/// Parses the one statement that `tokens` (of [`tokens`]) are.
pub fn parse(sql: &str, tokens: Vec<Token>) -> Result<Parsed, ParseError> {
    let beyond = |reason: String| ParseError::Beyond { reason };
    let end = tokens.last().map_or(0, |token| token.end);
    let dialect = PostgreSqlDialect {};
    let cuts = Tokenizer::new(&dialect, &masked(&sql[..end], &tokens))
        .with_unescape(false)
        .tokenize_with_location()
        .map_err(|error| beyond(error.to_string()))?;
    let cuts: Vec<TokenWithSpan> = cuts
        .into_iter()
        .filter(|cut| !matches!(cut.token, Cut::Whitespace(_) | Cut::EOF))
        .collect();
    let cuts = agree(&sql[..end], &tokens, cuts)?;
    let mut parser = Parser::new(&dialect)
        .with_options(ParserOptions::new().with_unescape(false))
        .with_recursion_limit(500)
        .with_tokens_with_locations(normal(cuts));
    let statement = parser
        .parse_statement()
        .map_err(|error| beyond(message(error)))?;
    match &parser.peek_token_ref().token {
        Cut::EOF => Ok(Parsed { statement, tokens }),
        other => Err(beyond(format!("it stops at \"{other}\""))),
    }
}

/// The text with other characters in strings with escapes, as many and on the same lines: sqlparser reads escapes in its
/// own way, and only where the strings are is asked of it.
fn masked<'a>(sql: &'a str, tokens: &[Token]) -> Cow<'a, str> {
    let escaped = |token: &&Token| {
        matches!(
            token.kind,
            TokenKind::EscapeString | TokenKind::UnicodeString
        )
    };
    if !tokens.iter().any(|token| escaped(&token)) {
        return Cow::Borrowed(sql);
    }
    let mut masked = String::with_capacity(sql.len());
    let mut done = 0;
    for token in tokens.iter().filter(escaped) {
        let inside = token.start + 2..token.end - 1;
        masked.push_str(&sql[done..inside.start]);
        let whole = token.kind == TokenKind::EscapeString;
        let characters = sql[inside.clone()].chars();
        masked.extend(characters.map(|character| match character {
            '\n' => '\n',
            '\\' => 'x',
            _ if whole => 'x',
            other => other,
        }));
        done = inside.end;
    }
    masked.push_str(&sql[done..]);
    Cow::Owned(masked)
}

fn message(error: ParserError) -> String {
    match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => "it nests too deeply".to_owned(),
    }
}

/// Proves that sqlparser cut the text where PostgreSQL does, and gives its tokens: one for each of ours, a string's with
/// the value that our lexer reads. A string that goes on in further segments, or has a UESCAPE clause, is one token to
/// PostgreSQL and several to sqlparser.
fn agree(
    sql: &str,
    tokens: &[Token],
    cuts: Vec<TokenWithSpan>,
) -> Result<Vec<TokenWithSpan>, ParseError> {
    let mut places = Places::new(sql);
    let mut agreed = Vec::with_capacity(tokens.len());
    let mut cuts = cuts.into_iter().peekable();
    for token in tokens {
        let cut = cuts
            .next()
            .filter(|cut| same_kind(token.kind, &cut.token))
            .filter(|cut| places.byte(cut.span) == Some(token.start));
        let Some(mut cut) = cut else {
            let near = token.text(sql).chars().take(40).collect::<String>();
            return Err(ParseError::Beyond {
                reason: format!("it reads \"{near}\" in another way"),
            });
        };
        if token.is_string() || token.kind == TokenKind::NationalString {
            set_value(&mut cut.token, token, sql)?;
            while cuts
                .next_if(|cut| places.peek(cut.span).is_some_and(|start| start < token.end))
                .is_some()
            {}
        }
        agreed.push(cut);
    }
    match cuts.next() {
        None => Ok(agreed),
        Some(_) => Err(ParseError::Beyond {
            reason: "it reads its end in another way".to_owned(),
        }),
    }
}

/// Gives a string token of sqlparser's the value that PostgreSQL reads.
fn set_value(cut: &mut Cut, token: &Token, sql: &str) -> Result<(), ParseError> {
    let value = lex::string_value(token, sql).map_err(|error| match error {
        LiteralError::VerticalTab => ParseError::Beyond {
            reason: error.to_string(),
        },
        error => ParseError::Lex(error.into()),
    })?;
    match cut {
        Cut::SingleQuotedString(text)
        | Cut::EscapedStringLiteral(text)
        | Cut::UnicodeStringLiteral(text)
        | Cut::NationalStringLiteral(text) => *text = value.into_owned(),
        Cut::DollarQuotedString(string) => string.value = value.into_owned(),
        _ => {}
    }
    Ok(())
}

fn same_kind(kind: TokenKind, cut: &Cut) -> bool {
    match kind {
        TokenKind::Word => matches!(cut, Cut::Word(word) if word.quote_style.is_none()),
        TokenKind::QuotedIdentifier => {
            matches!(cut, Cut::Word(word) if word.quote_style == Some('"'))
        }
        TokenKind::String => matches!(cut, Cut::SingleQuotedString(_)),
        TokenKind::EscapeString => matches!(cut, Cut::EscapedStringLiteral(_)),
        TokenKind::UnicodeString => matches!(cut, Cut::UnicodeStringLiteral(_)),
        TokenKind::NationalString => matches!(cut, Cut::NationalStringLiteral(_)),
        TokenKind::BitString => {
            matches!(
                cut,
                Cut::SingleQuotedByteStringLiteral(_) | Cut::HexStringLiteral(_)
            )
        }
        TokenKind::DollarString => matches!(cut, Cut::DollarQuotedString(_)),
        TokenKind::Number => matches!(cut, Cut::Number(_, false)),
        TokenKind::Parameter => matches!(cut, Cut::Placeholder(text) if text.starts_with('$')),
        // sqlparser has no token for it.
        TokenKind::UnicodeIdentifier => false,
        TokenKind::Operator | TokenKind::Punctuation => !matches!(
            cut,
            Cut::Word(_)
                | Cut::Number(..)
                | Cut::Placeholder(_)
                | Cut::SingleQuotedString(_)
                | Cut::DoubleQuotedString(_)
                | Cut::DollarQuotedString(_)
                | Cut::EscapedStringLiteral(_)
                | Cut::UnicodeStringLiteral(_)
                | Cut::NationalStringLiteral(_)
                | Cut::HexStringLiteral(_)
                | Cut::SingleQuotedByteStringLiteral(_)
                | Cut::CopyData { .. }
        ),
    }
}

/// Turns sqlparser's lines and columns (characters, from 1), asked in ascending order, into bytes.
struct Places<'a> {
    sql: &'a str,
    byte: usize,
    line: u64,
    column: u64,
}

impl<'a> Places<'a> {
    fn new(sql: &'a str) -> Self {
        Self {
            sql,
            byte: 0,
            line: 1,
            column: 1,
        }
    }

    fn byte(&mut self, span: Span) -> Option<usize> {
        self.byte_at((span.start.line, span.start.column))
    }

    fn byte_at(&mut self, place: Place) -> Option<usize> {
        while (self.line, self.column) < place {
            let next = self.sql[self.byte..].chars().next()?;
            self.byte += next.len_utf8();
            if next == '\n' {
                (self.line, self.column) = (self.line + 1, 1);
            } else {
                self.column += 1;
            }
        }
        ((self.line, self.column) == place).then_some(self.byte)
    }

    /// As [`Self::byte`], without moving on.
    fn peek(&self, span: Span) -> Option<usize> {
        Self { ..*self }.byte(span)
    }
}

/// Replaces what PostgreSQL accepts and sqlparser does not by what means the same to a reader of the tree.
fn normal(cuts: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |index: usize, keyword: &str| {
        matches!(cuts.get(index).map(|cut| &cut.token),
            Some(Cut::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
    };
    let mut normal = Vec::with_capacity(cuts.len());
    // Where brackets end that were opened here.
    let mut ends = Vec::new();
    let mut index = 0;
    while index < cuts.len() {
        normal.push(cuts[index].clone());
        if ends.contains(&index) {
            normal.push(cuts[index].clone());
        }
        if is(index, "for")
            && is(index + 1, "no")
            && is(index + 2, "key")
            && is(index + 3, "update")
        {
            // FOR NO KEY UPDATE locks as FOR UPDATE does, but lets foreign keys pass.
            index += 3;
        } else if is(index, "for") && is(index + 1, "key") && is(index + 2, "share") {
            index += 2;
        } else if is(index, "where") && is(index + 1, "current") && is(index + 2, "of") {
            // The row where a cursor is: one that no predicate tells. See [`current_of`].
            let span = cuts[index].span;
            let token = word("TRUE", Keyword::TRUE);
            normal.push(TokenWithSpan { token, span });
            index += 4;
        } else if is(index, "table") && starts_query(&cuts, index) && !is(index + 1, "function") {
            normal.pop();
            normal.extend(select_all(cuts[index].span));
            index += 1;
        } else if is(index, "between") && is(index + 1, "asymmetric") {
            index += 2;
        } else if is(index, "between") && is(index + 1, "symmetric") {
            // Negated, it bounds nothing to a reader of the tree; and no other text means its bound.
            let span = cuts[index + 1].span;
            if !index.checked_sub(1).is_some_and(|before| is(before, "not")) {
                let token = word("NOT", Keyword::NOT);
                normal.insert(normal.len() - 1, TokenWithSpan { token, span });
            }
            let token = Cut::Tilde;
            normal.push(TokenWithSpan { token, span });
            index += 2;
        } else if ["any", "some", "all"].iter().any(|word| is(index, word))
            && matches!(cuts.get(index + 1).map(|cut| &cut.token), Some(Cut::LParen))
            && is(index + 2, "values")
            && let Some(end) = closing(&cuts, index + 1)
        {
            let open = &cuts[index + 1];
            normal.push(open.clone());
            normal.extend(select_all(open.span));
            normal.push(open.clone());
            ends.push(end);
            index += 2;
        } else {
            index += 1;
        }
    }
    normal
}

/// The cursors that `WHERE CURRENT OF` names, folded, in order; [`parse`] puts TRUE in their place.
pub fn current_of<'a>(sql: &'a str, tokens: &'a [Token]) -> Vec<Cow<'a, str>> {
    let named = tokens.windows(4).filter_map(|four| match four {
        [word, current, of, name]
            if word.is(sql, "where") && current.is(sql, "current") && of.is(sql, "of") =>
        {
            lex::identifier_value(name.text(sql)).ok()
        }
        _ => None,
    });
    named.collect()
}

fn word(text: &str, keyword: Keyword) -> Cut {
    Cut::Word(Word {
        value: text.to_owned(),
        quote_style: None,
        keyword,
    })
}

/// `SELECT * FROM`
fn select_all(span: Span) -> [TokenWithSpan; 3] {
    let all = [
        word("SELECT", Keyword::SELECT),
        Cut::Mul,
        word("FROM", Keyword::FROM),
    ];
    all.map(|token| TokenWithSpan { token, span })
}

/// Where the bracket ends that is opened at `index`.
fn closing(cuts: &[TokenWithSpan], index: usize) -> Option<usize> {
    let mut open = 0_usize;
    for (place, cut) in cuts.iter().enumerate().skip(index) {
        match cut.token {
            Cut::LParen => open += 1,
            Cut::RParen => open = open.checked_sub(1)?,
            _ => {}
        }
        if open == 0 {
            return Some(place);
        }
    }
    None
}

/// Whether a query may start at `index`: there, TABLE is the command.
fn starts_query(cuts: &[TokenWithSpan], index: usize) -> bool {
    let Some(before) = index.checked_sub(1).map(|before| &cuts[before].token) else {
        return true;
    };
    match before {
        Cut::LParen | Cut::RParen => true,
        Cut::Word(_) if is_target(cuts, index) => true,
        Cut::Word(word) if word.quote_style.is_none() => ["union", "intersect", "except", "all"]
            .iter()
            .any(|text| word.value.eq_ignore_ascii_case(text)),
        _ => false,
    }
}

/// Whether `INSERT INTO name` stands right before `index`.
fn is_target(cuts: &[TokenWithSpan], index: usize) -> bool {
    let at = |back: usize| index.checked_sub(back).map(|place| &cuts[place].token);
    let is = |back: usize, keyword: &str| matches!(at(back), Some(Cut::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword));
    let mut back = 1;
    while matches!(at(back + 1), Some(Cut::Period)) && matches!(at(back + 2), Some(Cut::Word(_))) {
        back += 2;
    }
    is(back + 1, "into") && is(back + 2, "insert")
}

/// A name as PostgreSQL stores it: folded unless quoted, quotes undone, cut at 63 bytes.
pub fn name(ident: &ast::Ident) -> String {
    let mut name = match ident.quote_style {
        Some(_) => ident.value.replace("\"\"", "\""),
        None => ident.value.to_ascii_lowercase(),
    };
    name.truncate(name.floor_char_boundary(lex::IDENTIFIER_BYTES_MAX));
    name
}

/// Where a name stands in its text: line and column in characters, from 1.
pub type Place = (u64, u64);

/// Where `name` begins.
pub fn place(name: &ast::ObjectName) -> Option<Place> {
    match name.0.first()? {
        ast::ObjectNamePart::Identifier(ident) => place_of(ident),
        ast::ObjectNamePart::Function(_) => None,
    }
}

/// Where an identifier begins.
pub fn place_of(ident: &ast::Ident) -> Option<Place> {
    let start = ident.span.start;
    (start.line > 0).then_some((start.line, start.column))
}

/// The byte of `sql` at `place`.
pub fn byte(sql: &str, place: Place) -> Option<usize> {
    Places::new(sql).byte_at(place)
}

/// The value of a string constant in any form. `N'…'` is none: it is an expression of type `character`.
pub fn string(value: &ast::Value) -> Option<&str> {
    match value {
        ast::Value::SingleQuotedString(value)
        | ast::Value::EscapedStringLiteral(value)
        | ast::Value::UnicodeStringLiteral(value) => Some(value),
        ast::Value::DollarQuotedString(string) => Some(&string.value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LexLimits = LexLimits {
        tokens_max: 1_000_000,
        depth_max: 1000,
    };

    fn parsed(sql: &str) -> Result<Parsed, ParseError> {
        parse(sql, tokens(sql, &LIMITS)?)
    }

    #[test]
    fn what_orms_send_is_parsed() {
        for sql in [
            "SELECT 1;",
            "SELECT * FROM t FOR NO KEY UPDATE",
            "SELECT * FROM t FOR KEY SHARE SKIP LOCKED",
            "TABLE t",
            "INSERT INTO t (a) TABLE u",
            "INSERT INTO s.t TABLE u ORDER BY 1",
            "SELECT * FROM t WHERE a = ANY (VALUES (1), ((2))) AND (b) <> ALL (VALUES ('x') LIMIT 1)",
            "SELECT a BETWEEN SYMMETRIC 2 AND $1 AND b NOT BETWEEN ASYMMETRIC -1 AND 3 FROM t",
            "SELECT a->>'b', a #>> '{c}', a @> b, a || b, a <-> b, a::numeric(10, 2) FROM t WHERE a ~* 'x' AND b ILIKE 'y'",
            "SELECT e'\\'', '\\', $$'$$, U&'\\0041', B'1', X'f', N'n', 1.5e3, .5 /* /* */ */ FROM \"T\" -- x",
            "INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET b = EXCLUDED.b WHERE t.a > 1 RETURNING *",
            "UPDATE t SET (a, b) = (1, 2) WHERE c = ANY($1::int[])",
            "SELECT * FROM t LIMIT ALL OFFSET 0 ROWS",
        ] {
            assert!(parsed(sql).is_ok(), "{sql}: {:?}", parsed(sql).err());
        }
    }

    #[test]
    fn a_text_that_sqlparser_cuts_elsewhere_is_refused() {
        for sql in [
            "SELECT U&\"a\"",
            "SELECT 'a' 'b'",
            "SELECT 1; SELECT 2",
            "SELECT a b c",
        ] {
            assert!(
                matches!(parsed(sql), Err(ParseError::Beyond { .. })),
                "{sql}: {:?}",
                parsed(sql)
            );
        }
    }

    #[test]
    fn a_string_is_what_postgresql_reads() {
        for (literal, expected) in [
            ("'it''s'", Some("it's")),
            (r"'a\b'", Some(r"a\b")),
            (r"E'a\\b\x41\'\''", Some(r"a\bA''")),
            (r"U&'\0041''\\'", Some(r"A'\")),
            (r"U&'!0041\' UESCAPE '!'", Some(r"A\")),
            (r"E'\xc3\xa9\ud83d\ude00ß'", Some("é😀ß")),
            ("E'a\\\\' -- c\n '\\'b\nc'", Some("a\\'b\nc")),
            ("U&'d!0061!!' UESCAPE '!'", Some("da!")),
            ("$a$it''s$$$a$", Some("it''s$$")),
            ("'a'\n'b' -- c\n 'd'", Some("abd")),
            ("N'a'", None),
            ("B'1'", None),
        ] {
            let found = parsed(&format!("SELECT {literal}, 1")).ok().map(|parsed| {
                let ast::Statement::Query(query) = parsed.statement else {
                    panic!("not a query")
                };
                let ast::SetExpr::Select(select) = *query.body else {
                    panic!("not a SELECT")
                };
                match &select.projection[0] {
                    ast::SelectItem::UnnamedExpr(ast::Expr::Value(value)) => {
                        string(&value.value).map(str::to_owned)
                    }
                    other => panic!("{literal} is {other:?}"),
                }
            });
            assert_eq!(found.flatten().as_deref(), expected, "{literal}");
        }
        for literal in [r"E'\v'", r"E'\xff'"] {
            assert!(parsed(&format!("SELECT {literal}")).is_err(), "{literal}");
        }
    }

    #[test]
    fn positions_after_wide_characters_and_lines_agree() {
        assert!(parsed("SELECT 'ß€😀', \"ñ\"\n\t, 'x' -- é\r\n FROM tä WHERE a = 'ö'").is_ok());
    }

    #[test]
    fn deep_statements_neither_overflow_the_stack_nor_pass_the_limit() {
        let nested =
            |levels: usize| format!("SELECT {}1{}", "(".repeat(levels), ")".repeat(levels));
        let chained = |terms: usize| format!("SELECT 1 WHERE {}true", "a OR ".repeat(terms));
        for sql in [
            nested(200),
            chained(900),
            format!("SELECT {}1", "NOT ".repeat(200)),
            format!("SELECT 1{}", "::int".repeat(900)),
        ] {
            let tokens = tokens(&sql, &LIMITS).expect("within the limit");
            let depth = depth(&sql, &tokens);
            let parsed = on_stack_for(depth, || {
                parse(&sql, tokens).map(|parsed| format!("{:?}", parsed.statement).len())
            });
            assert!(parsed.is_ok());
        }
        for sql in [nested(600), chained(5000)] {
            assert!(
                matches!(tokens(&sql, &LIMITS), Err(ParseError::TooDeep)),
                "{}",
                sql.len()
            );
        }
    }

    #[test]
    fn long_lists_are_not_deep() {
        let sql = format!("SELECT * FROM t WHERE a IN ({}1)", "1, ".repeat(50_000));
        let tokens = tokens(&sql, &LIMITS).expect("tokens");
        assert!(depth(&sql, &tokens) < 20);
    }

    #[test]
    fn names_fold_and_are_cut_as_postgresql_does() {
        let ident = |value: &str, quote_style| ast::Ident {
            value: value.to_owned(),
            quote_style,
            span: Span::empty(),
        };
        assert_eq!(name(&ident("FooÄ", None)), "fooÄ");
        assert_eq!(name(&ident("Fo\"\"o", Some('"'))), "Fo\"o");
        assert_eq!(name(&ident(&"x".repeat(70), None)).len(), 63);
        assert_eq!(name(&ident(&"é".repeat(40), None)).len(), 62);
    }
}

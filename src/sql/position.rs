//! Where an error in a text that was made of a client's text is in the client's own. Pure texts; knows no statement but
//! the rows of VALUES, of which the other text may have some only.

use super::lex::{self, LexLimits, Token};

/// A position is looked for in texts of up to so many tokens.
const LIMITS: LexLimits = LexLimits {
    tokens_max: 100_000,
    depth_max: 10_000,
};

/// The place in `sql` of what is at `position` in `sent`, both in characters from 1. `None` where the texts are not the same
/// up to there, nor from there on: a wrong place is worse than none.
pub fn in_clients_text(sql: &str, sent: &str, position: usize) -> Option<usize> {
    if sql == sent {
        return Some(position);
    }
    let (at, _) = sent.char_indices().nth(position.checked_sub(1)?)?;
    let (before, after) = around_rows(sql);
    let same = sql.bytes().zip(sent.bytes());
    let head = same.take_while(|(own, other)| own == other).count();
    if at < head.min(before) {
        return Some(position);
    }
    let same = sql.bytes().rev().zip(sent.bytes().rev());
    let tail = same.take_while(|(own, other)| own == other).count();
    let left = sent.len() - at;
    (left <= tail.min(sql.len() - after)).then(|| {
        let from_there = sent[at..].chars().count();
        sql.chars().count() + 1 - from_there
    })
}

/// Where the rows of an INSERT's VALUES begin and end; all of the text is before and after them where there are none.
fn around_rows(sql: &str) -> (usize, usize) {
    let nothing = (sql.len(), 0);
    let Ok(tokens) = lex::lex(sql, &LIMITS) else {
        return (0, sql.len());
    };
    let inserts = tokens.iter().any(|token| token.is(sql, "insert"));
    let mut depth = 0usize;
    let mut nesting = |token: &Token| {
        depth += usize::from(token.is_symbol(sql, "("));
        let here = depth;
        depth = depth.saturating_sub(usize::from(token.is_symbol(sql, ")")));
        here
    };
    let depths: Vec<usize> = tokens.iter().map(&mut nesting).collect();
    let values = tokens
        .iter()
        .zip(&depths)
        .position(|(token, depth)| *depth == 0 && token.is(sql, "values"));
    let Some(values) = values.filter(|_| inserts) else {
        return nothing;
    };
    let rest = tokens.iter().zip(&depths).skip(values + 1);
    let mut rest = rest.skip_while(|(token, depth)| **depth > 0 || token.is_symbol(sql, ","));
    let after = rest.next().map_or(sql.len(), |(token, _)| token.start);
    (tokens[values].end, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rest of the client's text at the place of `mark` in the other.
    fn found<'a>(sql: &'a str, sent: &str, mark: &str) -> Option<&'a str> {
        let at = sent.find(mark).unwrap();
        let position = sent[..at].chars().count() + 1;
        let place = in_clients_text(sql, sent, position)?;
        let (byte, _) = sql.char_indices().nth(place - 1)?;
        Some(&sql[byte..])
    }

    #[test]
    fn what_was_not_touched_is_where_it_was() {
        let sql = "SELECT ä, b FROM t WHERE x ORDER BY a LIMIT 5 OFFSET 2";
        let sent = "SELECT ä, b, (a) FROM t WHERE x ORDER BY a LIMIT 7";
        assert_eq!(
            found(sql, sent, "b,"),
            Some("b FROM t WHERE x ORDER BY a LIMIT 5 OFFSET 2")
        );
        assert_eq!(found(sql, sent, "x ORDER"), None);
        assert_eq!(found(sql, sent, "7"), None);
        let sent = "SELECT ä, b, (a) FROM t WHERE x ORDER BY a LIMIT 5 OFFSET 2";
        assert_eq!(
            found(sql, sent, "x ORDER"),
            Some("x ORDER BY a LIMIT 5 OFFSET 2")
        );
        assert_eq!(found(sql, sql, "x"), Some("x ORDER BY a LIMIT 5 OFFSET 2"));
        assert_eq!(in_clients_text(sql, "other", 9), None);
    }

    #[test]
    fn one_row_is_not_taken_for_another() {
        let sql = "INSERT INTO t (a, b) VALUES (1, f(x)), (2, f(x)) RETURNING nothing";
        let first = "INSERT INTO t (a, b) VALUES (1, f(x)) RETURNING nothing";
        let second = "INSERT INTO t (a, b) VALUES (2, f(x)) RETURNING nothing";
        for sent in [first, second] {
            assert_eq!(
                found(sql, sent, "b)"),
                Some("b) VALUES (1, f(x)), (2, f(x)) RETURNING nothing")
            );
            assert_eq!(found(sql, sent, "nothing"), Some("nothing"));
            assert_eq!(found(sql, sent, "f(x)"), None);
        }
    }
}

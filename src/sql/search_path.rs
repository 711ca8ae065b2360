//! [`parse`]: the value of the setting `search_path` as a list of schemas.

use super::lex::unquote_identifier;
use crate::wire::error_response::{ErrorReply, Fault};
use crate::wire::sqlstate::SqlState;
use std::sync::Arc;
use thiserror::Error;

/// A value that PostgreSQL does not take for a list of names: 22023.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid value for parameter \"search_path\": \"{value}\"")]
pub struct SearchPathError {
    /// The value.
    pub value: String,
}

impl ErrorReply for SearchPathError {
    fn sqlstate(&self) -> SqlState {
        SqlState::INVALID_PARAMETER_VALUE
    }

    fn fault(&self) -> Fault {
        Fault::Client
    }

    fn detail(&self) -> Option<String> {
        Some("List syntax is invalid.".to_owned())
    }

    fn hint(&self) -> Option<String> {
        None
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// The schemas of `value` in order, as PostgreSQL stores names; `$user`, quoted or not, becomes `user`.
///
/// Schemas that do not exist are kept: a look-up finds nothing in them.
///
/// # Errors
/// A list that PostgreSQL rejects.
pub fn parse(value: &str, user: &str) -> Result<Vec<Arc<str>>, SearchPathError> {
    let wrong = || SearchPathError {
        value: value.to_owned(),
    };
    let mut schemas = Vec::new();
    let mut rest = trim_start(value);
    if rest.is_empty() {
        return Ok(schemas);
    }
    loop {
        let end = name_end(rest).ok_or_else(wrong)?;
        let name = unquote_identifier(&rest[..end]);
        schemas.push(Arc::from(if name == "$user" { user } else { &*name }));
        rest = trim_start(&rest[end..]);
        match rest.strip_prefix(',') {
            Some(after) => rest = trim_start(after),
            None if rest.is_empty() => return Ok(schemas),
            None => return Err(wrong()),
        }
    }
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\x0c'])
}

/// Where the name at the start of `text` ends. Unquoted, it is anything up to a space or comma.
fn name_end(text: &str) -> Option<usize> {
    let Some(inside) = text.strip_prefix('"') else {
        let end = text
            .find([' ', '\t', '\n', '\r', '\x0c', ','])
            .unwrap_or(text.len());
        return (end > 0).then_some(end);
    };
    let mut end = 0;
    loop {
        end += inside[end..].find('"')? + 1;
        match inside.as_bytes().get(end) {
            Some(b'"') => end += 1,
            _ => return Some(1 + end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_postgresql_does() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  ", &[]),
            ("\"$user\", public", &["ann", "public"]),
            ("$user", &["ann"]),
            (
                "Public ,\"My \"\"S, x\" , pg_temp",
                &["public", "My \"S, x", "pg_temp"],
            ),
            ("a-b", &["a-b"]),
            ("\"\"", &[""]),
        ];
        for (value, expected) in cases {
            let schemas = parse(value, "ann").unwrap();
            assert_eq!(
                schemas.iter().map(|schema| &**schema).collect::<Vec<_>>(),
                *expected,
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for value in ["a b", "a,,b", ",a", "a,", "\"a", "\"a\"b"] {
            let error = SearchPathError {
                value: value.to_owned(),
            };
            assert_eq!(parse(value, "ann"), Err(error));
        }
    }

    #[test]
    fn long_names_are_cut() {
        let long = "x".repeat(70);
        assert_eq!(parse(&long, "ann").unwrap()[0].len(), 63);
    }
}

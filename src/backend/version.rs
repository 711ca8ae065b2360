//! [`ServerVersion`]: which PostgreSQL the shards run, and what clients are told of it. Pure.

use std::sync::Arc;

/// A server's version. Ordered by its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// `server_version_num`: 150004.
    pub number: i32,
    /// `server_version` as the server says it: `15.4 (Debian 15.4-1)`.
    pub text: Arc<str>,
}

impl ServerVersion {
    fn major(&self) -> i32 {
        self.number / 10_000
    }
}

/// What is wrong with shards of these versions: different majors. A client that goes by the lowest version uses nothing
/// that one of them lacks, but some statements may still mean different things to them.
pub fn mixed<'a>(shards: impl IntoIterator<Item = (&'a str, &'a ServerVersion)>) -> Option<String> {
    let shards: Vec<_> = shards.into_iter().collect();
    let (_, first) = shards.first()?;
    if shards.iter().all(|(_, one)| one.major() == first.major()) {
        return None;
    }
    let named: Vec<String> = shards
        .iter()
        .map(|(shard, version)| format!("{shard} {}", version.text))
        .collect();
    Some(format!(
        "the shards run different major versions of PostgreSQL: {}",
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: i32, text: &str) -> ServerVersion {
        ServerVersion {
            number,
            text: text.into(),
        }
    }

    #[test]
    fn the_lowest_is_so_by_number() {
        let (nine, fifteen) = (version(90_624, "9.6.24"), version(150_004, "15.4 (Debian)"));
        assert_eq!([&fifteen, &nine].into_iter().min(), Some(&nine));
        let (fourth, tenth) = (version(150_004, "15.4"), version(150_010, "15.10"));
        assert_eq!([&tenth, &fourth].into_iter().min(), Some(&fourth));
    }

    #[test]
    fn only_majors_make_a_difference() {
        let (fourth, tenth) = (version(150_004, "15.4"), version(150_010, "15.10"));
        assert_eq!(mixed([("s0", &fourth), ("s1", &tenth)]), None);
        assert_eq!(mixed([]), None);
        let sixteen = version(160_001, "16.1");
        assert_eq!(
            mixed([("s0", &tenth), ("s1", &sixteen)]).as_deref(),
            Some("the shards run different major versions of PostgreSQL: s0 15.10, s1 16.1")
        );
    }
}

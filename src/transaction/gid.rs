//! [`GlobalTransactionId`]: the name of a prepared part of a distributed transaction. It says who decides, so that any
//! router can finish the part with nothing but the shards. Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How every name of ours starts.
pub const PREFIX: &str = "pgring:";
/// What PostgreSQL keeps of such a name at most (its `GIDSIZE` less the end mark).
pub const BYTES_MAX: usize = 199;
/// Hexadecimal digits of a nonce.
const NONCE_DIGITS: usize = 16;

/// `pgring:<cluster>:<decider shard>:<nonce>:<xid>:<number>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GlobalTransactionId {
    /// The cluster's name; of `[A-Za-z0-9_-]`.
    pub cluster: Arc<str>,
    /// Name of the shard whose own commit is the decision; of `[A-Za-z0-9_-]`.
    pub decider: Arc<str>,
    /// Tells the transaction from another one that a decider, which forgot it in a crash or a failover, gives its `xid`:
    /// drawn for it, printed as 16 hexadecimal digits.
    pub nonce: u64,
    /// The decider's transaction, with its epoch.
    pub xid: u64,
    /// Tells the prepared parts apart.
    pub number: u16,
}

/// A name that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not the name of a part of a distributed transaction")]
pub struct GlobalTransactionIdError(pub String);

impl GlobalTransactionId {
    /// What the names of all distributed transactions of `cluster` start with.
    pub fn prefix(cluster: &str) -> String {
        format!("{PREFIX}{cluster}:")
    }
}

impl fmt::Display for GlobalTransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            decider,
            nonce,
            xid,
            number,
        } = self;
        write!(f, "{PREFIX}{cluster}:{decider}:{nonce:016x}:{xid}:{number}")
    }
}

impl FromStr for GlobalTransactionId {
    type Err = GlobalTransactionIdError;

    /// Takes exactly what [`fmt::Display`] prints.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| GlobalTransactionIdError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<GlobalTransactionId> {
    let mut parts = text.strip_prefix(PREFIX)?.split(':');
    let id = GlobalTransactionId {
        cluster: parts.next().filter(|name| is_name(name))?.into(),
        decider: parts.next().filter(|name| is_name(name))?.into(),
        nonce: parts.next().and_then(nonce)?,
        xid: parts.next()?.parse().ok()?,
        number: parts.next()?.parse().ok()?,
    };
    (parts.next().is_none() && text.len() <= BYTES_MAX).then_some(id)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn nonce(text: &str) -> Option<u64> {
    let digits = Some(text).filter(|text| text.len() == NONCE_DIGITS)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_as_it_was_printed() {
        let id = GlobalTransactionId {
            cluster: "shop".into(),
            decider: "s-0".into(),
            nonce: 0xa,
            xid: 4_294_967_999,
            number: 3,
        };
        assert_eq!(
            id.to_string(),
            "pgring:shop:s-0:000000000000000a:4294967999:3"
        );
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert!(
            id.to_string()
                .starts_with(&GlobalTransactionId::prefix("shop"))
        );
    }

    #[test]
    fn the_longest_name_fits() {
        let id = GlobalTransactionId {
            cluster: "c".repeat(32).into(),
            decider: "s".repeat(32).into(),
            nonce: u64::MAX,
            xid: u64::MAX,
            number: u16::MAX,
        };
        assert!(id.to_string().len() <= BYTES_MAX);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn what_is_not_ours_is_not_read() {
        for text in [
            "",
            "pgring:",
            "other:shop:s0:0000000000000001:5:1",
            "pgring:shop:s0:0000000000000001:5",
            "pgring:shop:s0:0000000000000001:5:1:",
            "pgring:shop::0000000000000001:5:1",
            "pgring:shop:s0:000000000000000A:5:1",
            "pgring:shop:s0:+000000000000001:5:1",
            "pgring:shop:s0:00000001:5:1",
            "pgring:shop:s0:0000000000000001:-5:1",
            "pgring:shop:s0:0000000000000001:+5:1",
            "pgring:shop:s0:0000000000000001:05:1",
            "pgring:shop:s0:0000000000000001:18446744073709551616:1",
            "pgring:shop:s'0:0000000000000001:5:1",
        ] {
            assert!(text.parse::<GlobalTransactionId>().is_err(), "{text}");
        }
    }
}

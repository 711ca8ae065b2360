//! Where a PostgreSQL or this router listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `host:port`, `[v6]:port` or `/socket/directory:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Over TCP.
    Tcp {
        /// A name or an address; IPv6 without its brackets.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// Over a Unix socket: `<directory>/.s.PGSQL.<port>`.
    Unix {
        /// Absolute.
        directory: PathBuf,
        /// Never 0.
        port: u16,
    },
}

/// Why a text is not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No port at the end.
    #[error("\"{0}\" does not end with a port, as in \"10.0.0.1:5432\"")]
    Port(String),
    /// A host that is none.
    #[error("\"{0}\" is not \"host:port\", \"[v6]:port\" or \"/socket/directory:port\"")]
    Host(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| AddressError::Port(text.to_owned()))?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::Port(text.to_owned()));
        }
        let port: u16 = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| AddressError::Port(text.to_owned()))?;
        if host.starts_with('/') {
            return Ok(Self::Unix {
                directory: host.into(),
                port,
            });
        }
        if let Some(v6) = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            let parsed: Result<std::net::Ipv6Addr, _> = v6.split('%').next().unwrap_or(v6).parse();
            parsed.map_err(|_| AddressError::Host(text.to_owned()))?;
            return Ok(Self::Tcp {
                host: v6.to_owned(),
                port,
            });
        }
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(allowed) {
            return Err(AddressError::Host(text.to_owned()));
        }
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_were_written() {
        for text in [
            "10.0.0.1:5432",
            "db-1.example.com:1",
            "[::1]:6432",
            "[fe80::1%eth0]:6432",
            "/run/postgresql:5432",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(
            "[::1]:6432".parse(),
            Ok(Address::Tcp {
                host: "::1".to_owned(),
                port: 6432
            })
        );
        assert_eq!(
            "/run:5432".parse(),
            Ok(Address::Unix {
                directory: "/run".into(),
                port: 5432
            })
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "host",
            "host:",
            ":5432",
            "host:0",
            "host:65536",
            "host:+1",
            "::1:5432",
            "[]:1",
            "a b:1",
            "[::1]",
            "u@h:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}

//! Passwords and verifiers, resolved once and never printed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::path::Path;

/// A password or a SCRAM verifier. Its `Debug` form tells nothing.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Password(String),
    /// What PostgreSQL stores instead of it.
    Verifier(ScramVerifier),
}

/// A SCRAM-SHA-256 verifier as `pg_authid.rolpassword` holds it:
/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    /// Rounds of PBKDF2, at least 1.
    pub iterations: u32,
    /// Never empty.
    pub salt: Vec<u8>,
    /// SHA-256 of the client's key.
    pub stored_key: [u8; 32],
    /// The server's key.
    pub server_key: [u8; 32],
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::Verifier(_) => f.write_str("Verifier(…)"),
        }
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramVerifier(…)")
    }
}

impl Secret {
    /// The password, unless only its verifier is known.
    pub fn password(&self) -> Option<&str> {
        match self {
            Self::Password(password) => Some(password),
            Self::Verifier(_) => None,
        }
    }

    /// Resolves `env:NAME`, `file:PATH` (relative to `directory`; one line end is cut off) or a literal.
    pub(super) fn resolve(text: &str, directory: &Path) -> Result<Self, String> {
        let value = if let Some(name) = text.strip_prefix("env:") {
            // `var_os` panics on names that no environment can hold.
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!(
                    "\"{name}\" is not the name of an environment variable"
                ));
            }
            let value = std::env::var_os(name)
                .ok_or_else(|| format!("environment variable {name} is not set"))?;
            value
                .into_string()
                .map_err(|_| format!("environment variable {name} is not UTF-8"))?
        } else if let Some(path) = text.strip_prefix("file:") {
            let path = directory.join(path);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            line.strip_suffix('\r').unwrap_or(line).to_owned()
        } else {
            text.to_owned()
        };
        Self::from_value(value)
    }

    fn from_value(value: String) -> Result<Self, String> {
        if value.is_empty() {
            return Err("the password is empty".to_owned());
        }
        if value.contains('\0') {
            return Err("the password has a NUL byte".to_owned());
        }
        if value.starts_with("SCRAM-SHA-256$") {
            let verifier =
                ScramVerifier::parse(&value).ok_or("not a complete SCRAM-SHA-256 verifier")?;
            return Ok(Self::Verifier(verifier));
        }
        let md5 = value
            .strip_prefix("md5")
            .is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if md5 {
            return Err(
                "md5 hashes are not supported: give a SCRAM-SHA-256 verifier or the password"
                    .to_owned(),
            );
        }
        Ok(Self::Password(value))
    }
}

impl ScramVerifier {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("SCRAM-SHA-256$")?.split('$');
        let (iterations, salt) = parts.next()?.split_once(':')?;
        let (stored_key, server_key) = parts.next()?.split_once(':')?;
        if parts.next().is_some() || !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            iterations: iterations
                .parse()
                .ok()
                .filter(|iterations| *iterations > 0)?,
            salt: STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?,
            stored_key: STANDARD.decode(stored_key).ok()?.try_into().ok()?,
            server_key: STANDARD.decode(server_key).ok()?.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 7677: user "user", password "pencil".
    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_verifier_is_told_from_a_password() {
        let Secret::Verifier(verifier) = Secret::resolve(VERIFIER, Path::new("/")).unwrap() else {
            panic!("a verifier");
        };
        assert_eq!((verifier.iterations, verifier.salt.len()), (4096, 16));
        assert_eq!(
            Secret::resolve("pencil", Path::new("/"))
                .unwrap()
                .password(),
            Some("pencil")
        );
    }

    #[test]
    fn broken_secrets_are_refused() {
        let cut = &VERIFIER[..VERIFIER.len() - 2];
        for text in [
            cut,
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$0:AA==$AA==:AA==",
            "",
            "env:",
            "env:A=B",
            "env:PGRING_NOT_SET_ANYWHERE",
            "file:/nonexistent/pgring",
            "md5aabbccddeeff00112233445566778899",
            "a\0b",
        ] {
            assert!(Secret::resolve(text, Path::new("/")).is_err(), "{text}");
        }
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        let secrets = [
            Secret::resolve("pencil", Path::new("/")).unwrap(),
            Secret::resolve(VERIFIER, Path::new("/")).unwrap(),
        ];
        let printed = format!("{secrets:?}");
        assert_eq!(printed, "[Password(…), Verifier(…)]");
    }
}

//! The first packet of a connection, which has no tag: requests for encryption, to cancel, to start; and the
//! `options` parameter. Owns what PostgreSQL's postmaster decides before authentication. Must not know of users,
//! databases or what a setting means.
//!
//! PostgreSQL's documentation: "Start-up", "Protocol Versions", and "StartupMessage" among the message formats.

use super::backend_message::CANCEL_KEY_BYTES;
use super::error_response::{ErrorReply, Fault};
use super::frame::{MessageError, Reader};
use super::sqlstate::SqlState;

/// Bytes that a startup packet may have, its length included: PostgreSQL's limit.
pub const PACKET_BYTES_MAX: usize = 10_000;

/// Bytes that a startup packet must have: a length and a code.
pub const PACKET_BYTES_MIN: usize = 8;

/// The newest minor version of protocol 3 that the router speaks. It speaks 3.0 also; 3.1 never was.
pub const MINOR_VERSION: u16 = 2;

/// The codes of packets that are no StartupMessage, under this major version.
const REQUEST: u16 = 1234;

/// The first packet.
#[derive(Clone, PartialEq, Eq)]
pub enum Startup {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest.
    Cancel {
        /// The process id that was given out.
        pid: i32,
        /// The key that was given out: 4 to 256 bytes.
        key: Vec<u8>,
    },
    /// StartupMessage.
    Start {
        /// Major (always 3) and minor version asked for; see [`negotiate`].
        protocol: (u16, u16),
        /// Names and values in order, `_pq_.` options too. A name may repeat: the last counts.
        parameters: Vec<(String, String)>,
    },
}

impl std::fmt::Debug for Startup {
    /// Without the cancel key, which is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Startup::Ssl => f.write_str("Ssl"),
            Startup::Gss => f.write_str("Gss"),
            Startup::Cancel { pid, .. } => write!(f, "Cancel({pid})"),
            Startup::Start {
                protocol,
                parameters,
            } => write!(f, "Start({protocol:?}, {parameters:?})"),
        }
    }
}

/// A first packet that cannot be answered otherwise than by closing, with these words where the client may read
/// them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length is below [`PACKET_BYTES_MIN`] or above [`PACKET_BYTES_MAX`].
    #[error("invalid length of startup packet")]
    Length(u32),
    /// A major version other than 3.
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.{MINOR_VERSION}")]
    Version(u16, u16),
    /// Names and values that are not pairs of texts with an empty name at the very end.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A cancel key outside 4 to 256 bytes.
    #[error("invalid length of cancel request packet")]
    CancelKey(usize),
    /// A name or value that is not UTF-8.
    #[error(transparent)]
    Text(MessageError),
    /// `options` holds what is no setting.
    #[error("invalid command-line argument for server process: {0}")]
    Option(String),
    /// `options` ends where a setting's name or value should follow.
    #[error("{0} requires a value")]
    OptionValue(String),
}

impl ErrorReply for StartupError {
    fn sqlstate(&self) -> SqlState {
        match self {
            StartupError::Version(..) => SqlState::FEATURE_NOT_SUPPORTED,
            StartupError::Length(_) | StartupError::Layout | StartupError::CancelKey(_) => {
                SqlState::PROTOCOL_VIOLATION
            }
            StartupError::Text(error) => error.sqlstate(),
            StartupError::Option(_) | StartupError::OptionValue(_) => SqlState::SYNTAX_ERROR,
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
            StartupError::Option(_) | StartupError::OptionValue(_) => {
                Some("Write settings as -c name=value or --name=value.".to_owned())
            }
            StartupError::Length(_)
            | StartupError::Version(..)
            | StartupError::Layout
            | StartupError::CancelKey(_)
            | StartupError::Text(_) => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// Reads the length at the start of `buffer`: the bytes of the whole packet, its length included; `None` while
/// there are fewer than four bytes.
///
/// # Errors
///
/// [`StartupError::Length`].
pub fn packet_bytes(buffer: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some(length) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    match length as usize {
        bytes @ PACKET_BYTES_MIN..=PACKET_BYTES_MAX => Ok(Some(bytes)),
        _ => Err(StartupError::Length(length)),
    }
}

impl Startup {
    /// Decodes a whole packet without its length, as [`packet_bytes`] measured it.
    ///
    /// # Errors
    ///
    /// All of [`StartupError`] but those of `options`.
    pub fn decode(body: &[u8]) -> Result<Startup, StartupError> {
        let mut reader = Reader::new(body);
        let mut half = || reader.u16().map_err(|_| StartupError::Layout);
        match (half()?, half()?) {
            (REQUEST, 5678) => decode_cancel(reader),
            (REQUEST, 5679) => reader
                .end()
                .map(|()| Startup::Ssl)
                .map_err(|_| StartupError::Layout),
            (REQUEST, 5680) => reader
                .end()
                .map(|()| Startup::Gss)
                .map_err(|_| StartupError::Layout),
            (3, minor) => Ok(Startup::Start {
                protocol: (3, minor),
                parameters: decode_parameters(reader)?,
            }),
            (major, minor) => Err(StartupError::Version(major, minor)),
        }
    }
}

fn decode_cancel(mut reader: Reader<'_>) -> Result<Startup, StartupError> {
    let pid = reader.i32().map_err(|_| StartupError::CancelKey(0))?;
    let key = reader.rest();
    if !CANCEL_KEY_BYTES.contains(&key.len()) {
        return Err(StartupError::CancelKey(key.len()));
    }
    Ok(Startup::Cancel {
        pid,
        key: key.to_vec(),
    })
}

fn decode_parameters(mut reader: Reader<'_>) -> Result<Vec<(String, String)>, StartupError> {
    let mut text = || match reader.text() {
        Ok(text) => Ok(text.to_owned()),
        Err(error @ MessageError::Utf8(_)) => Err(StartupError::Text(error)),
        Err(_) => Err(StartupError::Layout),
    };
    let mut parameters = Vec::new();
    loop {
        let name = text()?;
        if name.is_empty() {
            break;
        }
        parameters.push((name, text()?));
    }
    reader.end().map_err(|_| StartupError::Layout)?;
    Ok(parameters)
}

/// The minor version to speak with a client that asked for 3.`minor`: 0 or [`MINOR_VERSION`]. Where it differs from
/// `minor`, and where [`unknown_options`] finds some, the client is told by NegotiateProtocolVersion.
pub fn negotiate(minor: u16) -> u16 {
    if minor >= MINOR_VERSION {
        MINOR_VERSION
    } else {
        0
    }
}

/// The `_pq_.` options among `parameters`: the router knows none. They are no settings.
pub fn unknown_options(parameters: &[(String, String)]) -> impl Iterator<Item = &str> {
    parameters
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.starts_with("_pq_."))
}

/// Reads the `options` parameter as PostgreSQL does: words between blanks, in which a backslash takes the next
/// character as it is; each a setting as `-c name=value`, `-cname=value` or `--name=value`. Dashes in a name are
/// underscores. Names and values come in order; a name may repeat: the last counts.
///
/// # Errors
///
/// [`StartupError::Option`] and [`StartupError::OptionValue`]: the server's other switches are not for clients of
/// a router.
pub fn parse_options(options: &str) -> Result<Vec<(String, String)>, StartupError> {
    let mut words = words(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let (shown, setting) = if word == "-c" {
            let setting = words.next().ok_or(StartupError::OptionValue(word))?;
            (format!("-c {setting}"), setting)
        } else if let Some(setting) = word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
            let setting = setting.to_owned();
            (word, setting)
        } else {
            return Err(StartupError::Option(word));
        };
        match setting.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                settings.push((name.replace('-', "_"), value.to_owned()));
            }
            Some(_) => return Err(StartupError::Option(shown)),
            None => return Err(StartupError::OptionValue(shown)),
        }
    }
    Ok(settings)
}

/// Splits at blanks (of C's `isspace`) that no backslash precedes.
fn words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::super::frontend_message::{write_cancel_request, write_startup};
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn decode(write: impl FnOnce(&mut BytesMut)) -> Result<Startup, StartupError> {
        let mut out = BytesMut::new();
        write(&mut out);
        assert_eq!(packet_bytes(&out), Ok(Some(out.len())));
        Startup::decode(&out[4..])
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_packet_has_8_to_10000_bytes() {
        assert_eq!(packet_bytes(b"\0\0\0"), Ok(None));
        assert_eq!(packet_bytes(b"\0\0\0\x08"), Ok(Some(8)));
        assert_eq!(packet_bytes(b"\0\0\0\x07"), Err(StartupError::Length(7)));
        assert_eq!(packet_bytes(b"\0\0\x27\x10"), Ok(Some(10_000)));
        assert_eq!(
            packet_bytes(b"\0\0\x27\x11"),
            Err(StartupError::Length(10_001))
        );
        assert_eq!(
            packet_bytes(b"GET "),
            Err(StartupError::Length(0x4745_5420))
        );
    }

    #[test]
    fn the_requests_before_a_start_are_known() {
        assert_eq!(Startup::decode(b"\x04\xd2\x16\x2f"), Ok(Startup::Ssl));
        assert_eq!(Startup::decode(b"\x04\xd2\x16\x30"), Ok(Startup::Gss));
        assert_eq!(
            Startup::decode(b"\x04\xd2\x16\x30more"),
            Err(StartupError::Layout)
        );
        let cancel = |bytes| decode(|out| write_cancel_request(out, -7, &vec![9; bytes]));
        assert_eq!(
            cancel(4),
            Ok(Startup::Cancel {
                pid: -7,
                key: vec![9; 4]
            })
        );
        assert_eq!(
            cancel(256),
            Ok(Startup::Cancel {
                pid: -7,
                key: vec![9; 256]
            })
        );
        assert_eq!(cancel(257), Err(StartupError::CancelKey(257)));
        assert_eq!(cancel(3), Err(StartupError::CancelKey(3)));
    }

    #[test]
    fn a_start_has_its_parameters_in_order() {
        let parameters = [("user", "app"), ("options", ""), ("database", "shop")];
        assert_eq!(
            decode(|out| write_startup(out, parameters)),
            Ok(Startup::Start {
                protocol: (3, 0),
                parameters: pairs(&parameters)
            })
        );
    }

    #[test]
    fn a_start_must_end_where_its_parameters_end() {
        for body in [
            &b"\0\x03\0\0"[..],
            b"\0\x03\0\0user\0",
            b"\0\x03\0\0user\0app\0",
            b"\0\x03\0\0user\0app\0\0\0",
        ] {
            assert_eq!(Startup::decode(body), Err(StartupError::Layout));
        }
        let error = Startup::decode(b"\0\x03\0\0user\0\xff\0\0").unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::CHARACTER_NOT_IN_REPERTOIRE);
    }

    #[test]
    fn another_major_version_is_refused_in_postgresqls_words() {
        let error = Startup::decode(b"\0\x02\0\0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"
        );
        assert_eq!(error.sqlstate().as_str(), "0A000");
    }

    #[test]
    fn the_minor_version_is_negotiated_down() {
        assert_eq!([0, 1, 2, 3, 9999].map(negotiate), [0, 0, 2, 2, 2]);
    }

    #[test]
    fn protocol_options_are_listed() {
        let parameters = pairs(&[("user", "a"), ("_pq_.grease", "1"), ("_pq", "2")]);
        assert!(unknown_options(&parameters).eq(["_pq_.grease"]));
    }

    #[test]
    fn options_are_settings_in_three_spellings() {
        assert_eq!(
            parse_options(" -c a=1  -cb=2\t--c-d=x=y-z\n"),
            Ok(pairs(&[("a", "1"), ("b", "2"), ("c_d", "x=y-z")]))
        );
        assert_eq!(parse_options(""), Ok(vec![]));
    }

    #[test]
    fn a_backslash_in_options_takes_the_next_character_as_it_is() {
        assert_eq!(
            parse_options(r"-c search_path=a,\ b -c x=\\\' -c\ y=1"),
            Ok(pairs(&[("search_path", "a, b"), ("x", r"\'"), (" y", "1")]))
        );
        assert_eq!(parse_options(r"-c x=1\"), Ok(pairs(&[("x", "1")])));
    }

    #[test]
    fn what_is_no_setting_in_options_is_an_error() {
        assert_eq!(
            parse_options("-E"),
            Err(StartupError::Option("-E".to_owned()))
        );
        assert_eq!(
            parse_options("a=1"),
            Err(StartupError::Option("a=1".to_owned()))
        );
        assert_eq!(
            parse_options("-c"),
            Err(StartupError::OptionValue("-c".to_owned()))
        );
        assert_eq!(
            parse_options("-c a"),
            Err(StartupError::OptionValue("-c a".to_owned()))
        );
        assert_eq!(
            parse_options("--a"),
            Err(StartupError::OptionValue("--a".to_owned()))
        );
        assert_eq!(
            parse_options("--=1"),
            Err(StartupError::Option("--=1".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn no_packet_panics(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = packet_bytes(&body);
            let _ = Startup::decode(&body);
            for code in [&b"\0\x03\0\0"[..], b"\x04\xd2\x16\x2e"] {
                let _ = Startup::decode(&[code, &body].concat());
            }
        }

        #[test]
        fn escaped_options_are_read_back(name in "[a-z_]{1,9}", value in "[ -~\t]{0,20}") {
            let escaped: String = value.chars().flat_map(|character| ['\\', character]).collect();
            prop_assert_eq!(
                parse_options(&format!("-c {name}={escaped}")),
                Ok(vec![(name.clone(), value.clone())])
            );
        }

        #[test]
        fn no_options_panic(options in any::<String>()) {
            let _ = parse_options(&options);
        }
    }
}

//! SCRAM-SHA-256, both sides, as pure steps: messages in, messages out. Owns verifiers, proofs and the recovered
//! keys. Must not know of users, files or where randomness comes from: nonces are arguments. Deriving keys from a
//! password takes the time of its iterations: run it where that may block.
//!
//! RFC 5802, RFC 7677, and "SASL Authentication" in PostgreSQL's documentation.

use super::error_response::{ErrorReply, Fault};
use super::sqlstate::SqlState;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::ops::RangeInclusive;
use stringprep::tables;
use subtle::ConstantTimeEq as _;
use unicode_normalization::UnicodeNormalization as _;

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Iterations of a new verifier: PostgreSQL's default.
pub const ITERATIONS: u32 = 4096;

/// Iterations that a verifier or a server may ask for.
pub const ITERATIONS_ALLOWED: RangeInclusive<u32> = 1..=10_000_000;

/// Bytes of randomness in a nonce, as PostgreSQL's own.
pub const NONCE_BYTES: usize = 18;

/// Characters that the other side's part of the nonce may have.
pub const NONCE_CHARACTERS_MAX: usize = 1024;

/// Bytes that a salt may have.
pub const SALT_BYTES_ALLOWED: RangeInclusive<usize> = 1..=1024;

/// Bytes that any message of an exchange may have.
pub const MESSAGE_BYTES_MAX: usize = 8192;

/// Bytes of each key.
const KEY_BYTES: usize = 32;

/// Proves to any server with the same verifier that its holder knows the password. A secret.
#[derive(Clone)]
pub struct ClientKey([u8; KEY_BYTES]);

/// Proves to a client that its holder has the verifier. A secret.
#[derive(Clone)]
pub struct ServerKey([u8; KEY_BYTES]);

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(…)")
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey(…)")
    }
}

/// What a server keeps instead of a password.
#[derive(Clone)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; KEY_BYTES],
    server_key: ServerKey,
}

/// Text that is no verifier, or parameters that none may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// Not of the form `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    #[error("not a SCRAM-SHA-256 verifier")]
    Form,
    /// Outside [`ITERATIONS_ALLOWED`].
    #[error("a SCRAM verifier cannot have {0} iterations")]
    Iterations(u32),
    /// Outside [`SALT_BYTES_ALLOWED`].
    #[error("a SCRAM verifier cannot have a salt of {0} bytes")]
    Salt(usize),
}

impl Verifier {
    /// Parses `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as in `pg_authid.rolpassword`.
    ///
    /// # Errors
    ///
    /// [`VerifierError`]; it shows nothing of the text.
    pub fn parse(text: &str) -> Result<Verifier, VerifierError> {
        let parts = || {
            let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
            let (iterations, salt) = parameters.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            Some(Verifier {
                iterations: digits(iterations)?,
                salt: BASE64.decode(salt).ok()?,
                stored_key: BASE64.decode(stored_key).ok()?.try_into().ok()?,
                server_key: ServerKey(BASE64.decode(server_key).ok()?.try_into().ok()?),
            })
        };
        let verifier = parts().ok_or(VerifierError::Form)?;
        check_parameters(&verifier.salt, verifier.iterations)?;
        Ok(verifier)
    }

    /// Derives the verifier of `password`. Takes the time of `iterations`.
    ///
    /// # Errors
    ///
    /// Parameters that no verifier may have.
    pub fn from_password(
        password: &[u8],
        salt: &[u8],
        iterations: u32,
    ) -> Result<Verifier, VerifierError> {
        check_parameters(salt, iterations)?;
        let (client_key, server_key) = derive_keys(password, salt, iterations);
        Ok(Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(client_key.0).into(),
            server_key,
        })
    }

    /// The verifier of a user who does not exist: the same for the same name and secret, and matched by no password.
    /// With it an exchange fails as with a wrong password. `iterations` should be what real verifiers have.
    pub fn of_unknown_user(server_secret: &[u8], user: &str, iterations: u32) -> Verifier {
        let derive =
            |purpose: &str| hmac(server_secret, &[purpose.as_bytes(), b"\0", user.as_bytes()]);
        Verifier {
            iterations,
            salt: derive("salt")[..16].to_vec(),
            stored_key: derive("stored key"),
            server_key: ServerKey(derive("server key")),
        }
    }

    /// The form that [`Verifier::parse`] reads and `pg_authid` stores. A secret: whoever has it can play the server.
    pub fn to_text(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key.0)
        )
    }

    /// The key that a [`ClientExchange`] needs beside the recovered [`ClientKey`].
    pub fn server_key(&self) -> &ServerKey {
        &self.server_key
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} iterations, …)", self.iterations)
    }
}

fn check_parameters(salt: &[u8], iterations: u32) -> Result<(), VerifierError> {
    if !ITERATIONS_ALLOWED.contains(&iterations) {
        return Err(VerifierError::Iterations(iterations));
    }
    if !SALT_BYTES_ALLOWED.contains(&salt.len()) {
        return Err(VerifierError::Salt(salt.len()));
    }
    Ok(())
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerExchangeError {
    /// A message not of the form that the RFC gives.
    #[error("malformed SCRAM message")]
    Malformed(&'static str),
    /// The client binds to a TLS channel under a mechanism without binding.
    #[error("malformed SCRAM message")]
    ChannelBinding,
    /// The client wants to act as another user.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// The client demands an extension.
    #[error("client requires an unsupported SCRAM extension")]
    Extension,
    /// The last message does not repeat the nonce or the channel binding of the first.
    #[error("invalid SCRAM response")]
    Response(&'static str),
    /// The proof is wrong: another password, or an unknown user.
    #[error("password authentication failed")]
    Proof,
}

impl ErrorReply for ServerExchangeError {
    fn sqlstate(&self) -> SqlState {
        match self {
            ServerExchangeError::Malformed(_)
            | ServerExchangeError::ChannelBinding
            | ServerExchangeError::Response(_) => SqlState::PROTOCOL_VIOLATION,
            ServerExchangeError::AuthorizationIdentity | ServerExchangeError::Extension => {
                SqlState::FEATURE_NOT_SUPPORTED
            }
            ServerExchangeError::Proof => SqlState::INVALID_PASSWORD,
        }
    }

    fn fault(&self) -> Fault {
        Fault::Client
    }

    fn detail(&self) -> Option<String> {
        match self {
            ServerExchangeError::Malformed(detail) | ServerExchangeError::Response(detail) => {
                Some((*detail).to_owned())
            }
            ServerExchangeError::ChannelBinding => Some(
                "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel \
                 binding data."
                    .to_owned(),
            ),
            ServerExchangeError::AuthorizationIdentity
            | ServerExchangeError::Extension
            | ServerExchangeError::Proof => None,
        }
    }

    fn hint(&self) -> Option<String> {
        None
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// The server's side between its challenge and the client's proof.
#[derive(Debug)]
pub struct ServerExchange {
    verifier: Verifier,
    /// What the client's `c=` must be.
    binding: &'static str,
    /// Both parts.
    nonce: String,
    /// `client-first-message-bare "," server-first-message`.
    transcript: String,
}

impl ServerExchange {
    /// Answers the client's first message with the challenge to send. `nonce` must be new and random.
    ///
    /// # Errors
    ///
    /// All of [`ServerExchangeError`] but [`ServerExchangeError::Response`] and [`ServerExchangeError::Proof`].
    pub fn start(
        verifier: Verifier,
        nonce: [u8; NONCE_BYTES],
        client_first: &[u8],
    ) -> Result<(ServerExchange, String), ServerExchangeError> {
        Self::start_with(verifier, &BASE64.encode(nonce), client_first)
    }

    fn start_with(
        verifier: Verifier,
        server_nonce: &str,
        client_first: &[u8],
    ) -> Result<(ServerExchange, String), ServerExchangeError> {
        let malformed = ServerExchangeError::Malformed;
        let message = message_text(client_first).ok_or(malformed(
            "The message is too long or is not UTF-8 text without NUL.",
        ))?;
        let (flag, rest) = message
            .split_once(',')
            .ok_or(malformed("Comma expected, but not found."))?;
        let binding = match flag {
            "n" => "biws",
            // The client could bind and believes that the server cannot, which is so.
            "y" => "eSws",
            _ if flag.starts_with("p=") => return Err(ServerExchangeError::ChannelBinding),
            _ => return Err(malformed("Unexpected channel-binding flag.")),
        };
        let (identity, bare) = rest
            .split_once(',')
            .ok_or(malformed("Comma expected, but not found."))?;
        if identity.starts_with("a=") {
            return Err(ServerExchangeError::AuthorizationIdentity);
        }
        if !identity.is_empty() {
            return Err(malformed("Unexpected attribute in client-first-message."));
        }
        if bare.starts_with("m=") {
            return Err(ServerExchangeError::Extension);
        }
        let mut attributes = bare.split(',');
        // The user is the one of the startup packet, as with PostgreSQL.
        attributes
            .next()
            .and_then(|user| user.strip_prefix("n="))
            .ok_or(malformed("Expected attribute n."))?;
        let client_nonce = attributes
            .next()
            .and_then(|nonce| nonce.strip_prefix("r="))
            .ok_or(malformed("Expected attribute r."))?;
        if !is_nonce(client_nonce) {
            return Err(malformed("The nonce is empty, too long or not printable."));
        }
        if !attributes.all(is_attribute) {
            return Err(malformed("Attribute expected, but not found."));
        }
        let nonce = format!("{client_nonce}{server_nonce}");
        let challenge = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&verifier.salt),
            verifier.iterations
        );
        let transcript = format!("{bare},{challenge}");
        Ok((
            ServerExchange {
                verifier,
                binding,
                nonce,
                transcript,
            },
            challenge,
        ))
    }

    /// Checks the client's proof. Gives the key recovered from it, and the last message to send.
    ///
    /// # Errors
    ///
    /// [`ServerExchangeError::Malformed`], [`ServerExchangeError::Response`], [`ServerExchangeError::Proof`].
    pub fn finish(self, client_final: &[u8]) -> Result<(ClientKey, String), ServerExchangeError> {
        let malformed = ServerExchangeError::Malformed;
        let message = message_text(client_final).ok_or(malformed(
            "The message is too long or is not UTF-8 text without NUL.",
        ))?;
        let (without_proof, proof) = message
            .rsplit_once(",p=")
            .ok_or(malformed("Expected attribute p."))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes
            .next()
            .and_then(|binding| binding.strip_prefix("c="))
            .ok_or(malformed("Expected attribute c."))?;
        let nonce = attributes
            .next()
            .and_then(|nonce| nonce.strip_prefix("r="))
            .ok_or(malformed("Expected attribute r."))?;
        if !attributes.all(is_attribute) {
            return Err(malformed("Attribute expected, but not found."));
        }
        let mut client_key: [u8; KEY_BYTES] = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(malformed("Malformed proof in client-final-message."))?;
        if binding != self.binding {
            return Err(ServerExchangeError::Response(
                "The channel binding does not match.",
            ));
        }
        if !bool::from(nonce.as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(ServerExchangeError::Response("The nonce does not match."));
        }
        let transcript = [self.transcript.as_bytes(), b",", without_proof.as_bytes()];
        xor(
            &mut client_key,
            &hmac(&self.verifier.stored_key, &transcript),
        );
        let stored_key: [u8; KEY_BYTES] = Sha256::digest(client_key).into();
        if !bool::from(stored_key.ct_eq(&self.verifier.stored_key)) {
            return Err(ServerExchangeError::Proof);
        }
        let signature = hmac(&self.verifier.server_key.0, &transcript);
        Ok((
            ClientKey(client_key),
            format!("v={}", BASE64.encode(signature)),
        ))
    }
}

/// What a client logs in with.
#[derive(Clone)]
pub enum Secret {
    /// The password.
    Password(Vec<u8>),
    /// The keys of a verifier that the server shares, recovered when a client logged in here.
    Keys(ClientKey, ServerKey),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Password(_) => f.write_str("Password(…)"),
            Secret::Keys(..) => f.write_str("Keys(…)"),
        }
    }
}

/// Why the router does not go on logging in to a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientExchangeError {
    /// A message not of the form that the RFC gives.
    #[error("the server sent a malformed SCRAM message")]
    Malformed,
    /// The server's nonce does not go on from ours.
    #[error("the server sent a SCRAM nonce that is not for this login")]
    Nonce,
    /// Outside [`ITERATIONS_ALLOWED`].
    #[error("the server asks for {0} SCRAM iterations")]
    Iterations(u32),
    /// Outside [`SALT_BYTES_ALLOWED`].
    #[error("the server sent a SCRAM salt of {0} bytes")]
    Salt(usize),
    /// The server reports an error instead of its signature.
    #[error("the server ended the SCRAM login: {0}")]
    Refused(String),
    /// The server cannot prove that it knows the verifier: it may be another server.
    #[error("the server's SCRAM signature is wrong")]
    Signature,
}

impl ErrorReply for ClientExchangeError {
    fn sqlstate(&self) -> SqlState {
        match self {
            ClientExchangeError::Refused(_) => SqlState::CONNECTION_REJECTED,
            ClientExchangeError::Malformed
            | ClientExchangeError::Nonce
            | ClientExchangeError::Iterations(_)
            | ClientExchangeError::Salt(_)
            | ClientExchangeError::Signature => SqlState::UNABLE_TO_CONNECT,
        }
    }

    fn fault(&self) -> Fault {
        Fault::Backend
    }

    fn detail(&self) -> Option<String> {
        None
    }

    fn hint(&self) -> Option<String> {
        None
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// The client's side between its first message and the server's challenge.
#[derive(Debug)]
pub struct ClientExchange {
    nonce: String,
}

impl ClientExchange {
    /// Makes the first message to send; the user's name is left to the startup packet. `nonce` must be new and
    /// random.
    pub fn start(nonce: [u8; NONCE_BYTES]) -> (ClientExchange, String) {
        let nonce = BASE64.encode(nonce);
        let message = format!("n,,n=,r={nonce}");
        (ClientExchange { nonce }, message)
    }

    /// Answers the server's challenge with the proof to send. With a password it takes the time of the iterations
    /// that the server asks for.
    ///
    /// # Errors
    ///
    /// [`ClientExchangeError`] for a challenge that cannot be or may not be answered.
    pub fn answer(
        self,
        secret: &Secret,
        challenge: &[u8],
    ) -> Result<(ProvenExchange, String), ClientExchangeError> {
        self.answer_as("", secret, challenge)
    }

    fn answer_as(
        self,
        user: &str,
        secret: &Secret,
        challenge: &[u8],
    ) -> Result<(ProvenExchange, String), ClientExchangeError> {
        let challenge = message_text(challenge).ok_or(ClientExchangeError::Malformed)?;
        let mut attributes = challenge.split(',');
        let mut attribute = |name: &str| {
            attributes
                .next()
                .and_then(|attribute| attribute.strip_prefix(name))
                .ok_or(ClientExchangeError::Malformed)
        };
        let nonce = attribute("r=")?;
        let salt = BASE64
            .decode(attribute("s=")?)
            .map_err(|_| ClientExchangeError::Malformed)?;
        let iterations = digits(attribute("i=")?).ok_or(ClientExchangeError::Malformed)?;
        if !attributes.all(is_attribute) {
            return Err(ClientExchangeError::Malformed);
        }
        if !nonce.strip_prefix(&self.nonce).is_some_and(is_nonce) {
            return Err(ClientExchangeError::Nonce);
        }
        match check_parameters(&salt, iterations) {
            Ok(()) => (),
            Err(VerifierError::Iterations(iterations)) => {
                return Err(ClientExchangeError::Iterations(iterations));
            }
            Err(VerifierError::Salt(bytes)) => return Err(ClientExchangeError::Salt(bytes)),
            Err(VerifierError::Form) => return Err(ClientExchangeError::Malformed),
        }
        let (client_key, server_key) = match secret {
            Secret::Password(password) => derive_keys(password, &salt, iterations),
            Secret::Keys(client_key, server_key) => (client_key.clone(), server_key.clone()),
        };
        let without_proof = format!("c=biws,r={nonce}");
        let transcript = format!("n={user},r={},{challenge},{without_proof}", self.nonce);
        let stored_key = Sha256::digest(client_key.0);
        let mut proof = client_key.0;
        xor(&mut proof, &hmac(&stored_key, &[transcript.as_bytes()]));
        let server_signature = hmac(&server_key.0, &[transcript.as_bytes()]);
        let message = format!("{without_proof},p={}", BASE64.encode(proof));
        Ok((ProvenExchange { server_signature }, message))
    }
}

/// The client's side between its proof and the server's.
pub struct ProvenExchange {
    server_signature: [u8; KEY_BYTES],
}

impl fmt::Debug for ProvenExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProvenExchange(…)")
    }
}

impl ProvenExchange {
    /// Checks the server's last message. Until then the server may be any.
    ///
    /// # Errors
    ///
    /// [`ClientExchangeError::Signature`], [`ClientExchangeError::Refused`], [`ClientExchangeError::Malformed`].
    pub fn verify(self, server_final: &[u8]) -> Result<(), ClientExchangeError> {
        let message = message_text(server_final).ok_or(ClientExchangeError::Malformed)?;
        let mut attributes = message.split(',');
        let first = attributes.next().ok_or(ClientExchangeError::Malformed)?;
        if let Some(error) = first.strip_prefix("e=") {
            return Err(ClientExchangeError::Refused(error.to_owned()));
        }
        let signature = first
            .strip_prefix("v=")
            .and_then(|signature| BASE64.decode(signature).ok())
            .ok_or(ClientExchangeError::Malformed)?;
        if !attributes.all(is_attribute) {
            return Err(ClientExchangeError::Malformed);
        }
        if bool::from(signature.ct_eq(&self.server_signature)) {
            Ok(())
        } else {
            Err(ClientExchangeError::Signature)
        }
    }
}

fn message_text(message: &[u8]) -> Option<&str> {
    if message.len() > MESSAGE_BYTES_MAX || message.contains(&0) {
        return None;
    }
    std::str::from_utf8(message).ok()
}

fn is_nonce(nonce: &str) -> bool {
    (1..=NONCE_CHARACTERS_MAX).contains(&nonce.len())
        && nonce
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// An extension that may be passed over: `<letter>=<value>`.
fn is_attribute(attribute: &str) -> bool {
    let bytes = attribute.as_bytes();
    bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b'='
}

/// A number without sign.
fn digits(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn derive_keys(password: &[u8], salt: &[u8], iterations: u32) -> (ClientKey, ServerKey) {
    let mut salted = [0; KEY_BYTES];
    pbkdf2::pbkdf2_hmac::<Sha256>(&prepare(password), salt, iterations, &mut salted);
    (
        ClientKey(hmac(&salted, &[b"Client Key"])),
        ServerKey(hmac(&salted, &[b"Server Key"])),
    )
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn xor(left: &mut [u8; KEY_BYTES], right: &[u8; KEY_BYTES]) {
    for (left, right) in left.iter_mut().zip(right) {
        *left ^= right;
    }
}

/// SASLprep (RFC 4013) as PostgreSQL has it: what is not UTF-8, or is prohibited, stays as it is. Like PostgreSQL,
/// and unlike the RFC, it looks for prohibited characters before they are normalized: a verifier made there must
/// match here.
fn prepare(password: &[u8]) -> Vec<u8> {
    let Some(text) = std::str::from_utf8(password)
        .ok()
        .filter(|text| !text.is_ascii())
    else {
        return password.to_vec();
    };
    let mapped: String = text
        .chars()
        .map(|character| {
            if tables::non_ascii_space_character(character) {
                ' '
            } else {
                character
            }
        })
        .filter(|character| !tables::commonly_mapped_to_nothing(*character))
        .collect();
    if mapped.is_empty() || mapped.chars().any(is_prohibited) || !is_one_direction(&mapped) {
        return password.to_vec();
    }
    mapped.nfkc().collect::<String>().into_bytes()
}

fn is_prohibited(character: char) -> bool {
    tables::non_ascii_space_character(character)
        || tables::ascii_control_character(character)
        || tables::non_ascii_control_character(character)
        || tables::private_use(character)
        || tables::non_character_code_point(character)
        || tables::inappropriate_for_plain_text(character)
        || tables::inappropriate_for_canonical_representation(character)
        || tables::change_display_properties_or_deprecated(character)
        || tables::tagging_character(character)
        || tables::unassigned_code_point(character)
}

/// RFC 3454, section 6: with a right-to-left character there is no left-to-right one, and it is at both ends.
fn is_one_direction(text: &str) -> bool {
    !text.contains(tables::bidi_r_or_al)
        || (!text.contains(tables::bidi_l)
            && text.starts_with(tables::bidi_r_or_al)
            && text.ends_with(tables::bidi_r_or_al))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SERVER_NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];
    const CLIENT_NONCE: [u8; NONCE_BYTES] = [8; NONCE_BYTES];

    fn verifier() -> Verifier {
        Verifier::from_password(b"pencil", b"0123456789abcdef", 16).unwrap()
    }

    /// Both sides of a login; what each gets from it.
    fn login(
        verifier: Verifier,
        secret: &Secret,
    ) -> Result<(ClientKey, Result<(), ClientExchangeError>), ServerExchangeError> {
        let (client, first) = ClientExchange::start(CLIENT_NONCE);
        let (server, challenge) = ServerExchange::start(verifier, SERVER_NONCE, first.as_bytes())?;
        let (client, proof) = client.answer(secret, challenge.as_bytes()).unwrap();
        let (client_key, signature) = server.finish(proof.as_bytes())?;
        Ok((client_key, client.verify(signature.as_bytes())))
    }

    #[test]
    fn the_exchange_of_rfc_7677_comes_out_as_printed_there() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::from_password(b"pencil", &salt, 4096).unwrap();
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let signature = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

        let (server, sent) = ServerExchange::start_with(
            verifier,
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        )
        .unwrap();
        assert_eq!(sent, challenge);
        assert_eq!(server.finish(proof.as_bytes()).unwrap().1, signature);

        let client = ClientExchange {
            nonce: "rOprNGfwEbeRWgbNEkqO".to_owned(),
        };
        let secret = Secret::Password(b"pencil".to_vec());
        let (client, sent) = client
            .answer_as("user", &secret, challenge.as_bytes())
            .unwrap();
        assert_eq!(sent, proof);
        assert_eq!(client.verify(signature.as_bytes()), Ok(()));
    }

    #[test]
    fn a_login_with_the_password_convinces_both_sides() {
        let (_, signature) = login(verifier(), &Secret::Password(b"pencil".to_vec())).unwrap();
        assert_eq!(signature, Ok(()));
    }

    #[test]
    fn a_login_recovers_the_key_that_logs_in_elsewhere() {
        let (client_key, _) = login(verifier(), &Secret::Password(b"pencil".to_vec())).unwrap();
        let secret = Secret::Keys(client_key, verifier().server_key().clone());
        assert_eq!(login(verifier(), &secret).unwrap().1, Ok(()));
        let other_salt = Verifier::from_password(b"pencil", b"other", 16).unwrap();
        assert_eq!(
            login(other_salt, &secret).unwrap_err(),
            ServerExchangeError::Proof
        );
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_fail_alike() {
        let wrong = Secret::Password(b"pen".to_vec());
        let unknown = Verifier::of_unknown_user(b"secret", "nobody", 16);
        let errors = [verifier(), unknown].map(|verifier| login(verifier, &wrong).unwrap_err());
        assert_eq!(
            errors,
            [ServerExchangeError::Proof, ServerExchangeError::Proof]
        );
        assert_eq!(errors[0].sqlstate().as_str(), "28P01");
    }

    #[test]
    fn an_unknown_user_has_the_same_salt_each_time() {
        let text = |secret: &[u8], user| Verifier::of_unknown_user(secret, user, 4096).to_text();
        assert_eq!(text(b"secret", "nobody"), text(b"secret", "nobody"));
        assert_ne!(text(b"secret", "nobody"), text(b"secret", "other"));
        assert_ne!(text(b"secret", "nobody"), text(b"other", "nobody"));
        assert!(Verifier::parse(&text(b"secret", "nobody")).is_ok());
    }

    #[test]
    fn a_verifier_is_printed_as_it_was_read() {
        let text = verifier().to_text();
        assert_eq!(Verifier::parse(&text).unwrap().to_text(), text);
        assert!(!format!("{:?}", verifier()).contains(&text[20..40]));
    }

    #[test]
    fn a_verifier_that_is_none_is_refused() {
        let text = verifier().to_text();
        let parse = |text: &str| Verifier::parse(text).map(drop);
        assert_eq!(parse("md5abc"), Err(VerifierError::Form));
        assert_eq!(parse(&text[..text.len() - 4]), Err(VerifierError::Form));
        assert_eq!(
            parse(&text.replace("$16:", "$+16:")),
            Err(VerifierError::Form)
        );
        assert_eq!(
            parse(&text.replace("$16:", "$0:")),
            Err(VerifierError::Iterations(0))
        );
        assert_eq!(
            parse(&text.replace("$16:", "$10000001:")),
            Err(VerifierError::Iterations(10_000_001))
        );
        let salt = Verifier::from_password(b"x", b"", 1).map(drop);
        assert_eq!(salt, Err(VerifierError::Salt(0)));
    }

    #[track_caller]
    fn check_first(message: &[u8], expect: Result<(), ServerExchangeError>) {
        assert_eq!(
            ServerExchange::start(verifier(), SERVER_NONCE, message).map(drop),
            expect
        );
    }

    #[test]
    fn first_messages_are_taken_or_refused_as_postgresql_does() {
        let malformed = |detail| Err(ServerExchangeError::Malformed(detail));
        check_first(b"n,,n=,r=abc", Ok(()));
        check_first(b"y,,n=user,r=abc,x=1", Ok(()));
        check_first(
            b"p=tls-server-end-point,,n=,r=abc",
            Err(ServerExchangeError::ChannelBinding),
        );
        check_first(
            b"n,a=other,n=,r=abc",
            Err(ServerExchangeError::AuthorizationIdentity),
        );
        check_first(b"n,,m=x,n=,r=abc", Err(ServerExchangeError::Extension));
        check_first(
            b"x,,n=,r=abc",
            malformed("Unexpected channel-binding flag."),
        );
        check_first(b"n,,r=abc", malformed("Expected attribute n."));
        check_first(b"n,,n=", malformed("Expected attribute r."));
        check_first(
            b"n,,n=,r=abc,?",
            malformed("Attribute expected, but not found."),
        );
        for nonce in ["", "a\x7f", "a b", &"a".repeat(NONCE_CHARACTERS_MAX + 1)] {
            let message = format!("n,,n=,r={nonce}");
            check_first(
                message.as_bytes(),
                malformed("The nonce is empty, too long or not printable."),
            );
        }
    }

    #[test]
    fn a_proof_must_repeat_the_nonce_and_the_binding() {
        let proof = |change: fn(String) -> String| {
            let (client, first) = ClientExchange::start(CLIENT_NONCE);
            let (server, challenge) =
                ServerExchange::start(verifier(), SERVER_NONCE, first.as_bytes()).unwrap();
            let secret = Secret::Password(b"pencil".to_vec());
            let (_, proof) = client.answer(&secret, challenge.as_bytes()).unwrap();
            server.finish(change(proof).as_bytes()).map(drop)
        };
        assert_eq!(proof(|proof| proof), Ok(()));
        let binding = proof(|proof| proof.replace("c=biws", "c=eSws"));
        assert_eq!(
            binding,
            Err(ServerExchangeError::Response(
                "The channel binding does not match."
            ))
        );
        let nonce = proof(|proof| proof.replace(",p=", "x,p="));
        assert_eq!(
            nonce,
            Err(ServerExchangeError::Response("The nonce does not match."))
        );
        let extended = proof(|proof| proof.replace(",p=", ",x=1,p="));
        assert_eq!(extended, Err(ServerExchangeError::Proof));
    }

    #[test]
    fn a_client_does_not_answer_a_challenge_that_is_not_for_it() {
        let answer = |change: fn(String) -> String| {
            let (client, first) = ClientExchange::start(CLIENT_NONCE);
            let (_, challenge) =
                ServerExchange::start(verifier(), SERVER_NONCE, first.as_bytes()).unwrap();
            client
                .answer(
                    &Secret::Password(b"pencil".to_vec()),
                    change(challenge).as_bytes(),
                )
                .map(drop)
        };
        assert_eq!(answer(|challenge| challenge), Ok(()));
        assert_eq!(
            answer(|challenge| challenge.replace("r=", "r=x")),
            Err(ClientExchangeError::Nonce)
        );
        let own_nonce = answer(|_| format!("r={},s=c2FsdA==,i=1", BASE64.encode(CLIENT_NONCE)));
        assert_eq!(own_nonce, Err(ClientExchangeError::Nonce));
        assert_eq!(
            answer(|challenge| challenge.replace("i=16", "i=0")),
            Err(ClientExchangeError::Iterations(0))
        );
        let dear = answer(|challenge| challenge.replace("i=16", "i=4000000000"));
        assert_eq!(dear, Err(ClientExchangeError::Iterations(4_000_000_000)));
        assert_eq!(
            answer(|challenge| challenge.replace("i=16", "i=99999999999")),
            Err(ClientExchangeError::Malformed)
        );
        assert_eq!(
            answer(|_| "e=other-error".to_owned()),
            Err(ClientExchangeError::Malformed)
        );
    }

    #[test]
    fn a_client_does_not_trust_a_server_without_the_verifier() {
        let (client, first) = ClientExchange::start(CLIENT_NONCE);
        let (_, challenge) =
            ServerExchange::start(verifier(), SERVER_NONCE, first.as_bytes()).unwrap();
        let secret = Secret::Password(b"pencil".to_vec());
        let (proven, _) = client.answer(&secret, challenge.as_bytes()).unwrap();
        let signature = format!("v={}", BASE64.encode([0; KEY_BYTES]));
        assert_eq!(
            proven.verify(signature.as_bytes()),
            Err(ClientExchangeError::Signature)
        );
        let proven = ProvenExchange {
            server_signature: [0; KEY_BYTES],
        };
        assert_eq!(proven.verify(b"v="), Err(ClientExchangeError::Signature));
        let proven = ProvenExchange {
            server_signature: [0; KEY_BYTES],
        };
        let refused = ClientExchangeError::Refused("unknown-user".to_owned());
        assert_eq!(proven.verify(b"e=unknown-user"), Err(refused));
    }

    #[test]
    fn passwords_are_prepared_as_postgresql_does() {
        let check = |password: &str, expect: &str| {
            assert_eq!(prepare(password.as_bytes()), expect.as_bytes())
        };
        check("I\u{ad}X", "IX");
        check("\u{aa}", "a");
        check("\u{2168}", "IX");
        check("a\u{a0}b", "a b");
        // Prohibited or empty: as they are.
        check("\u{ad}", "\u{ad}");
        check("ä\u{7}", "ä\u{7}");
        check("\u{341}a", "\u{341}a");
        check("\u{627}\u{31}", "\u{627}\u{31}");
        check("a\u{7}", "a\u{7}");
        assert_eq!(prepare(b"\xff\xaa"), b"\xff\xaa");
    }

    proptest! {
        #[test]
        fn no_message_makes_either_side_panic(message in "[nypcrsiv=,a0+/]{0,40}", raw in prop::collection::vec(any::<u8>(), 0..64)) {
            for message in [message.as_bytes(), &raw] {
                let _ = Verifier::parse(&String::from_utf8_lossy(message));
                let _ = ServerExchange::start(verifier(), SERVER_NONCE, message);
                let (client, first) = ClientExchange::start(CLIENT_NONCE);
                let (server, _) = ServerExchange::start(verifier(), SERVER_NONCE, first.as_bytes()).unwrap();
                prop_assert!(server.finish(message).is_err());
                prop_assert!(client.answer(&Secret::Password(vec![]), message).is_err());
                let proven = ProvenExchange { server_signature: [1; KEY_BYTES] };
                prop_assert!(proven.verify(message).is_err());
            }
        }

        #[test]
        fn any_password_logs_in_and_any_other_does_not(password in any::<String>(), other in any::<String>()) {
            let verifier = Verifier::from_password(password.as_bytes(), b"salt", 1).unwrap();
            let secret = Secret::Password(password.clone().into_bytes());
            prop_assert_eq!(login(verifier.clone(), &secret).unwrap().1, Ok(()));
            if prepare(password.as_bytes()) != prepare(other.as_bytes()) {
                let error = login(verifier, &Secret::Password(other.into_bytes())).unwrap_err();
                prop_assert_eq!(error, ServerExchangeError::Proof);
            }
        }
    }
}

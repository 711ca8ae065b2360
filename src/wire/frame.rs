//! Framing: one tag byte, a four-byte length that counts itself, a body. Owns the header, the whole [`Frame`],
//! the checked [`Reader`] over a body and the writer of one message. Must not know what any message means.

use super::error_response::{ErrorReply, Fault};
use super::sqlstate::SqlState;
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// Bytes of a header: the tag and the length.
pub const HEADER_BYTES: usize = 5;

/// The first five bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of message.
    pub tag: u8,
    /// Tag, length and body together.
    pub frame_bytes: usize,
}

/// Reads the header at the start of `buffer`; `None` while there are fewer than five bytes.
///
/// # Errors
///
/// A length below 4 or above `i32::MAX`: the stream cannot be read on.
pub fn header(buffer: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(&[tag, a, b, c, d]) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    if !(4..=i32::MAX as u32).contains(&length) {
        return Err(FrameError::Length { tag, length });
    }
    Ok(Some(Header {
        tag,
        frame_bytes: length as usize + 1,
    }))
}

/// A stream that cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is below 4 or above `i32::MAX`.
    #[error("invalid message length")]
    Length {
        /// The message's tag.
        tag: u8,
        /// Its length as sent.
        length: u32,
    },
}

impl ErrorReply for FrameError {
    fn sqlstate(&self) -> SqlState {
        match self {
            FrameError::Length { .. } => SqlState::PROTOCOL_VIOLATION,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            FrameError::Length { .. } => Fault::Client,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            FrameError::Length { tag, length } => Some(format!(
                "A message of type 0x{tag:02x} gives its length as {length}."
            )),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            FrameError::Length { .. } => None,
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        match self {
            FrameError::Length { .. } => None,
        }
    }
}

/// One whole message, borrowed.
#[derive(Clone, Copy)]
pub struct FrameView<'a> {
    bytes: &'a [u8],
}

impl<'a> FrameView<'a> {
    /// The bytes of exactly one message, as [`header`] measured it.
    ///
    /// # Panics
    ///
    /// When there is no whole header.
    pub fn new(bytes: &'a [u8]) -> Self {
        assert!(bytes.len() >= HEADER_BYTES, "a frame holds its header");
        debug_assert!(
            matches!(header(bytes), Ok(Some(header)) if header.frame_bytes == bytes.len())
        );
        Self { bytes }
    }

    /// The kind of message.
    pub fn tag(&self) -> u8 {
        self.bytes[0]
    }

    /// What follows the header.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// A message of its own, copied.
    pub fn to_frame(self) -> Frame {
        Frame::new(Bytes::copy_from_slice(self.bytes))
    }
}

/// One whole message: tag, length and body in one piece of memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
}

impl Frame {
    /// Takes the bytes of exactly one message, as [`header`] measured it.
    ///
    /// # Panics
    ///
    /// When there is no whole header.
    pub fn new(bytes: Bytes) -> Frame {
        assert!(bytes.len() >= HEADER_BYTES, "a frame holds its header");
        debug_assert!(
            matches!(header(&bytes), Ok(Some(header)) if header.frame_bytes == bytes.len())
        );
        Frame { bytes }
    }

    /// The kind of message.
    pub fn tag(&self) -> u8 {
        self.bytes[0]
    }

    /// What follows the header.
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The whole message, header included: what is passed on.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl fmt::Debug for Frame {
    /// Tag and size only: bodies hold passwords and rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Frame({:?}, {} bytes)",
            char::from(self.tag()),
            self.bytes.len()
        )
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// As its type's output function prints it.
    #[default]
    Text,
    /// As its type's send function writes it.
    Binary,
}

impl Format {
    /// The code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }

    /// The format with this code.
    ///
    /// # Errors
    ///
    /// [`MessageError::Format`] for any code but 0 and 1.
    pub fn from_code(code: u16) -> Result<Format, MessageError> {
        match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            _ => Err(MessageError::Format(code)),
        }
    }
}

/// A message whose body does not say what its kind of message must say. The stream itself can be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A tag that this side never sends.
    #[error("invalid message type 0x{0:02x}")]
    Tag(u8),
    /// A field, or as many as a count promised, is not there.
    #[error("insufficient data left in message")]
    Truncated,
    /// Bytes after the last field.
    #[error("invalid message format")]
    Trailing,
    /// Text without its NUL.
    #[error("invalid string in message")]
    Unterminated,
    /// A value's length below -1.
    #[error("invalid value length {0} in message")]
    ValueLength(i32),
    /// Text that is not UTF-8; the first bytes that are not.
    #[error("invalid byte sequence for encoding \"UTF8\": 0x{0:02x}")]
    Utf8(u8),
    /// A format code that is neither text nor binary.
    #[error("unsupported format code: {0}")]
    Format(u16),
    /// A Bind with several parameter formats, but not one for each parameter.
    #[error("bind message has {formats} parameter formats but {parameters} parameters")]
    FormatCount {
        /// Format codes sent.
        formats: usize,
        /// Values sent.
        parameters: usize,
    },
    /// A field holds a value that the protocol does not know.
    #[error("invalid {field} in message: {value}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it held.
        value: i64,
    },
}

impl ErrorReply for MessageError {
    fn sqlstate(&self) -> SqlState {
        match self {
            MessageError::Utf8(_) => SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            MessageError::Format(_) => SqlState::INVALID_PARAMETER_VALUE,
            MessageError::Tag(_)
            | MessageError::Truncated
            | MessageError::Trailing
            | MessageError::Unterminated
            | MessageError::ValueLength(_)
            | MessageError::FormatCount { .. }
            | MessageError::Field { .. } => SqlState::PROTOCOL_VIOLATION,
        }
    }

    /// The client's, whose messages these errors reach unchanged; what a shard sends wrongly is reported by the
    /// backend's own error.
    fn fault(&self) -> Fault {
        Fault::Client
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

/// Reads a body from front to back; nothing is taken that is not there.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `body`.
    pub fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { rest: body }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    ///
    /// [`MessageError::Truncated`], here and below.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], MessageError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(MessageError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(MessageError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, MessageError> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes, unsigned, as PostgreSQL reads counts.
    pub fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Two bytes, signed.
    pub fn i16(&mut self) -> Result<i16, MessageError> {
        self.array().map(i16::from_be_bytes)
    }

    /// Four bytes, unsigned.
    pub fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Four bytes, signed.
    pub fn i32(&mut self) -> Result<i32, MessageError> {
        self.array().map(i32::from_be_bytes)
    }

    /// Bytes up to a NUL, which is read over.
    ///
    /// # Errors
    ///
    /// [`MessageError::Unterminated`] without a NUL.
    pub fn text_bytes(&mut self) -> Result<&'a [u8], MessageError> {
        let end = memchr::memchr(0, self.rest).ok_or(MessageError::Unterminated)?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// UTF-8 up to a NUL, which is read over.
    ///
    /// # Errors
    ///
    /// [`MessageError::Unterminated`] without a NUL, [`MessageError::Utf8`].
    pub fn text(&mut self) -> Result<&'a str, MessageError> {
        let bytes = self.text_bytes()?;
        std::str::from_utf8(bytes).map_err(|error| MessageError::Utf8(bytes[error.valid_up_to()]))
    }

    /// A value: its length and so many bytes; `None` is NULL (length -1).
    ///
    /// # Errors
    ///
    /// [`MessageError::ValueLength`] below -1.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, MessageError> {
        match self.i32()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.bytes(length).map(Some),
                Err(_) => Err(MessageError::ValueLength(length)),
            },
        }
    }

    /// A two-byte count, then so many format codes, each checked.
    pub fn formats(&mut self) -> Result<Formats<'a>, MessageError> {
        let count = usize::from(self.u16()?);
        let codes = self.bytes(count * 2)?;
        for code in codes.chunks_exact(2) {
            Format::from_code(u16::from_be_bytes([code[0], code[1]]))?;
        }
        Ok(Formats { codes })
    }

    /// A two-byte count, then so many OIDs.
    pub fn oids(&mut self) -> Result<Vec<u32>, MessageError> {
        let count = usize::from(self.u16()?);
        let bytes = self.bytes(count * 4)?;
        Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|oid| u32::from_be_bytes(*oid))
            .collect())
    }

    /// Nothing may be left.
    ///
    /// # Errors
    ///
    /// [`MessageError::Trailing`].
    pub fn end(self) -> Result<(), MessageError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(MessageError::Trailing)
        }
    }
}

/// Format codes as they were sent: none, one, or one for each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Formats<'a> {
    codes: &'a [u8],
}

impl<'a> Formats<'a> {
    /// How many were sent.
    pub fn len(&self) -> usize {
        self.codes.len() / 2
    }

    /// Whether none was sent: all text.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// Those that were sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Format> + use<'a> {
        // The codes were checked when they were read: the last byte of each is 0 or 1.
        self.codes.chunks_exact(2).map(|code| {
            if code[1] == 1 {
                Format::Binary
            } else {
                Format::Text
            }
        })
    }

    /// The format of value `index` (from 0): none sent means text, one sent is for all.
    pub fn of(&self, index: usize) -> Format {
        match self.len() {
            1 => self.iter().next(),
            _ => self.iter().nth(index),
        }
        .unwrap_or_default()
    }
}

/// Appends one message: `tag`, the length, and what `body` appends.
///
/// # Panics
///
/// When the message passes `i32::MAX` bytes: no buffer's limit is so high.
pub fn write_message(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    write_length(out, body);
}

/// Appends a length that counts itself and what `body` appends: a message without a tag.
pub fn write_length(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    body(out);
    let length = i32::try_from(out.len() - start).expect("a message is below 2 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends text and its NUL. As in C the text ends at a NUL of its own, so that no text can move what follows.
pub fn put_text(out: &mut BytesMut, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.put_slice(&text[..end]);
    out.put_u8(0);
}

/// Appends a two-byte count and what `items` appends, once for each item.
///
/// # Panics
///
/// With more than 65,535 items, which no message can count.
pub fn put_counted<T>(
    out: &mut BytesMut,
    items: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut BytesMut, T),
) {
    let start = out.len();
    out.put_u16(0);
    let mut count = 0_usize;
    for item in items {
        put(out, item);
        count += 1;
    }
    let count = u16::try_from(count).expect("a count fits two bytes");
    out[start..start + 2].copy_from_slice(&count.to_be_bytes());
}

/// Appends a value: its length and bytes, or -1 for NULL.
pub fn put_value(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(value) => {
            out.put_i32(i32::try_from(value.len()).expect("a value is below 2 GiB"));
            out.put_slice(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_needs_five_bytes() {
        assert_eq!(header(b"Q\0\0\0"), Ok(None));
        assert_eq!(
            header(b"S\0\0\0\x04"),
            Ok(Some(Header {
                tag: b'S',
                frame_bytes: 5
            }))
        );
    }

    #[test]
    fn a_length_that_cannot_be_is_an_error_before_anything_is_allocated() {
        assert_eq!(
            header(b"Q\0\0\0\x03"),
            Err(FrameError::Length {
                tag: b'Q',
                length: 3
            })
        );
        assert_eq!(
            header(b"Q\x80\0\0\0"),
            Err(FrameError::Length {
                tag: b'Q',
                length: 0x8000_0000
            })
        );
        assert_eq!(
            header(b"Q\x7f\xff\xff\xff").map(|header| header.map(|header| header.frame_bytes)),
            Ok(Some(0x8000_0000))
        );
        assert_eq!(
            header(b"Q\0\0\0\x03").unwrap_err().sqlstate().as_str(),
            "08P01"
        );
    }

    #[test]
    fn a_frame_shows_its_tag_and_body() {
        let frame = Frame::new(Bytes::from_static(b"Z\0\0\0\x05I"));
        assert_eq!((frame.tag(), frame.body()), (b'Z', &b"I"[..]));
        assert_eq!(format!("{frame:?}"), "Frame('Z', 6 bytes)");
    }

    #[test]
    fn a_count_larger_than_what_is_there_is_truncated() {
        assert_eq!(
            Reader::new(b"\xff\xff\0\0\0\x17").oids(),
            Err(MessageError::Truncated)
        );
        assert_eq!(
            Reader::new(b"\x7f\xff\xff\xffab").value(),
            Err(MessageError::Truncated)
        );
        assert_eq!(
            Reader::new(b"\xff\xff\xff\xfe").value(),
            Err(MessageError::ValueLength(-2))
        );
        assert_eq!(Reader::new(b"\xff\xff\xff\xff").value(), Ok(None));
    }

    #[test]
    fn text_needs_its_nul_and_its_encoding() {
        assert_eq!(Reader::new(b"abc").text(), Err(MessageError::Unterminated));
        assert_eq!(
            Reader::new(b"a\xff\0").text(),
            Err(MessageError::Utf8(0xff))
        );
        assert_eq!(MessageError::Utf8(0xff).sqlstate().as_str(), "22021");
        assert_eq!(Reader::new(b"a\xffb\0").text_bytes(), Ok(&b"a\xffb"[..]));
    }

    #[test]
    fn a_format_is_for_all_or_for_each() {
        let formats = |bytes: &'static [u8]| Reader::new(bytes).formats();
        assert_eq!(formats(b"\0\0").unwrap().of(7), Format::Text);
        assert_eq!(formats(b"\0\x01\0\x01").unwrap().of(7), Format::Binary);
        let each = formats(b"\0\x02\0\0\0\x01").unwrap();
        assert_eq!((each.of(0), each.of(1)), (Format::Text, Format::Binary));
        assert_eq!(formats(b"\0\x01\x01\0"), Err(MessageError::Format(256)));
    }

    #[test]
    fn text_with_a_nul_cannot_move_what_follows() {
        let mut out = BytesMut::new();
        put_text(&mut out, b"a\0b");
        assert_eq!(&out[..], b"a\0");
    }

    proptest! {
        #[test]
        fn a_written_message_is_read_back(tag in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut out = BytesMut::new();
            write_message(&mut out, tag, |out| out.put_slice(&body));
            let header = header(&out).unwrap().unwrap();
            prop_assert_eq!(header, Header { tag, frame_bytes: out.len() });
            let frame = Frame::new(out.freeze());
            prop_assert_eq!(frame.body(), &body[..]);
        }

        #[test]
        fn no_header_panics(bytes in prop::collection::vec(any::<u8>(), 0..9)) {
            let _ = header(&bytes);
        }
    }
}

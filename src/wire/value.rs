//! The order of values as they arrive on the wire, for merge sorts: exactly that of PostgreSQL's btree operators, or
//! an error. Owns the decoding of the types that sort, in both formats. Must not know of rows, NULLs or directions.
//! Start at [`SortType::of`] and [`decode`].
//!
//! Two things are the caller's to know. Text types are compared by bytes here: whether their collation does so is in
//! the catalog. And `float4` and `float8` as text are exact only while `extra_float_digits` is 1 (the default) or
//! more: below that different values print alike.

use super::error_response::{ErrorReply, Fault};
use super::frame::Format;
use super::sqlstate::SqlState;
use std::borrow::Cow;
use std::cmp::Ordering;

/// A type whose order is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SortType {
    /// boolean.
    Bool,
    /// smallint.
    Int2,
    /// integer.
    Int4,
    /// bigint.
    Int8,
    /// oid.
    Oid,
    /// real.
    Float4,
    /// double precision.
    Float8,
    /// numeric of any precision.
    Numeric,
    /// date.
    Date,
    /// time without time zone.
    Time,
    /// timestamp without time zone.
    Timestamp,
    /// timestamp with time zone.
    Timestamptz,
    /// uuid.
    Uuid,
    /// bytea.
    Bytea,
    /// "char": one byte.
    Char,
    /// text, varchar and name, by bytes.
    Text,
    /// char(n), by bytes, trailing blanks apart.
    Bpchar,
}

impl SortType {
    /// The type with this OID; `None` for any whose order the router does not know.
    pub fn of(type_oid: u32) -> Option<SortType> {
        Some(match type_oid {
            16 => SortType::Bool,
            17 => SortType::Bytea,
            18 => SortType::Char,
            19 | 25 | 1043 => SortType::Text,
            20 => SortType::Int8,
            21 => SortType::Int2,
            23 => SortType::Int4,
            26 => SortType::Oid,
            700 => SortType::Float4,
            701 => SortType::Float8,
            1042 => SortType::Bpchar,
            1082 => SortType::Date,
            1083 => SortType::Time,
            1114 => SortType::Timestamp,
            1184 => SortType::Timestamptz,
            1700 => SortType::Numeric,
            2950 => SortType::Uuid,
            _ => return None,
        })
    }

    /// Whether its order is that of its bytes only under a collation that compares so.
    pub fn is_collatable(self) -> bool {
        matches!(self, SortType::Text | SortType::Bpchar)
    }

    /// PostgreSQL's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            SortType::Bool => "boolean",
            SortType::Int2 => "smallint",
            SortType::Int4 => "integer",
            SortType::Int8 => "bigint",
            SortType::Oid => "oid",
            SortType::Float4 => "real",
            SortType::Float8 => "double precision",
            SortType::Numeric => "numeric",
            SortType::Date => "date",
            SortType::Time => "time without time zone",
            SortType::Timestamp => "timestamp without time zone",
            SortType::Timestamptz => "timestamp with time zone",
            SortType::Uuid => "uuid",
            SortType::Bytea => "bytea",
            SortType::Char => "\"char\"",
            SortType::Text => "text",
            SortType::Bpchar => "character",
        }
    }
}

/// A value that a shard sent and that cannot be ordered. Shows nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Text that the type's output function does not print.
    #[error("a shard sent text that is no value of type {}", .0.name())]
    Text(SortType),
    /// Bytes that the type's send function does not write.
    #[error("a shard sent bytes that are no value of type {}", .0.name())]
    Binary(SortType),
    /// A date or timestamp as text that is not in ISO format.
    #[error("values of type {} can be merge-sorted in ISO format only", .0.name())]
    DateStyle(SortType),
}

impl ErrorReply for ValueError {
    fn sqlstate(&self) -> SqlState {
        match self {
            ValueError::Text(_) => SqlState::INVALID_TEXT_REPRESENTATION,
            ValueError::Binary(_) => SqlState::INVALID_BINARY_REPRESENTATION,
            ValueError::DateStyle(_) => SqlState::FEATURE_NOT_SUPPORTED,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            ValueError::Text(_) | ValueError::Binary(_) => Fault::Backend,
            ValueError::DateStyle(_) => Fault::Client,
        }
    }

    fn detail(&self) -> Option<String> {
        None
    }

    fn hint(&self) -> Option<String> {
        match self {
            ValueError::Text(_) | ValueError::Binary(_) => None,
            ValueError::DateStyle(_) => Some("SET DateStyle = 'ISO'.".to_owned()),
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        match self {
            ValueError::Text(_) | ValueError::Binary(_) => None,
            ValueError::DateStyle(_) => Some("sort_datestyle"),
        }
    }
}

/// Compares two values as `ORDER BY … ASC` does; neither is NULL.
///
/// # Errors
///
/// As [`decode`].
pub fn compare(
    sort_type: SortType,
    format: Format,
    left: &[u8],
    right: &[u8],
) -> Result<Ordering, ValueError> {
    if sort_type == SortType::Text {
        return Ok(left.cmp(right));
    }
    Ok(decode(sort_type, format, left)?.cmp(&decode(sort_type, format, right)?))
}

/// Decodes a value into its place in the order of its type, so that a merge decodes each row once.
///
/// # Errors
///
/// [`ValueError`] for bytes that PostgreSQL does not send for a value of this type and format.
pub fn decode(sort_type: SortType, format: Format, bytes: &[u8]) -> Result<Value<'_>, ValueError> {
    match format {
        Format::Text => text(sort_type, bytes).ok_or(match sort_type {
            SortType::Date | SortType::Timestamp | SortType::Timestamptz => {
                ValueError::DateStyle(sort_type)
            }
            _ => ValueError::Text(sort_type),
        }),
        Format::Binary => binary(sort_type, bytes).ok_or(ValueError::Binary(sort_type)),
    }
}

/// A value's place in the order of its type. Of two types' values the order means nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value<'a>(Place<'a>);

impl Value<'_> {
    /// An integer as it is; 1 and 0 of a boolean.
    pub fn integer(&self) -> Option<i64> {
        match &self.0 {
            Place::Integer(value) => Some(*value),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    /// Booleans, integers, and times: days or microseconds with the infinities at the ends.
    Integer(i64),
    Float(Float),
    Numeric(Numeric),
    Uuid([u8; 16]),
    Bytes(Cow<'a, [u8]>),
}

/// NaN is above all and equal to itself; -0 equals 0.
#[derive(Debug, Clone, Copy)]
struct Float(f64);

impl Ord for Float {
    fn cmp(&self, other: &Float) -> Ordering {
        let nan = self.0.is_nan().cmp(&other.0.is_nan());
        self.0.partial_cmp(&other.0).unwrap_or(nan)
    }
}

impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Float) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Float {
    fn eq(&self, other: &Float) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Float {}

/// The derived order is PostgreSQL's: NaN is above infinity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Numeric {
    NegativeInfinity,
    Negative(std::cmp::Reverse<Magnitude>),
    Zero,
    Positive(Magnitude),
    Infinity,
    NotANumber,
}

/// A number above zero: digits to base 10,000, none of them a leading or trailing zero, and the power of the first.
/// So the derived order is that of the numbers, and 1.0 is 1.00.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Magnitude {
    weight: i32,
    digits: Vec<u16>,
}

impl Numeric {
    fn of(is_negative: bool, weight: i32, mut digits: Vec<u16>) -> Numeric {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let Some(zeros) = digits.iter().position(|digit| *digit != 0) else {
            return Numeric::Zero;
        };
        digits.drain(..zeros);
        // Below 2^31 digits there are fewer than 2^31 zeros.
        let weight = weight.saturating_sub(zeros as i32);
        let magnitude = Magnitude { weight, digits };
        if is_negative {
            Numeric::Negative(std::cmp::Reverse(magnitude))
        } else {
            Numeric::Positive(magnitude)
        }
    }
}

fn integer<'a>(value: impl Into<i64>) -> Value<'a> {
    Value(Place::Integer(value.into()))
}

fn text(sort_type: SortType, bytes: &[u8]) -> Option<Value<'_>> {
    let ascii = || std::str::from_utf8(bytes).ok();
    Some(match sort_type {
        SortType::Bool => match bytes {
            b"t" => integer(true),
            b"f" => integer(false),
            _ => return None,
        },
        SortType::Int2 => integer(ascii()?.parse::<i16>().ok()?),
        SortType::Int4 => integer(ascii()?.parse::<i32>().ok()?),
        SortType::Int8 => integer(ascii()?.parse::<i64>().ok()?),
        SortType::Oid => integer(ascii()?.parse::<u32>().ok()?),
        // As its own type first: that is how the digits were chosen.
        SortType::Float4 => float_text(bytes, |text| text.parse::<f32>().ok().map(f64::from))?,
        SortType::Float8 => float_text(bytes, |text| text.parse::<f64>().ok())?,
        SortType::Numeric => Value(Place::Numeric(numeric_text(bytes)?)),
        SortType::Date => integer(date_text(bytes)?),
        SortType::Time => {
            let mut scanner = Scanner { rest: bytes };
            let time = scanner.time()?;
            scanner.end()?;
            integer(time)
        }
        SortType::Timestamp => integer(timestamp_text(bytes, false)?),
        SortType::Timestamptz => integer(timestamp_text(bytes, true)?),
        SortType::Uuid => Value(Place::Uuid(uuid_text(bytes)?)),
        SortType::Bytea => Value(Place::Bytes(Cow::Owned(bytea_text(bytes)?))),
        SortType::Char => integer(char_text(bytes)?),
        SortType::Text => Value(Place::Bytes(Cow::Borrowed(bytes))),
        SortType::Bpchar => Value(Place::Bytes(Cow::Borrowed(without_blanks(bytes)))),
    })
}

fn binary(sort_type: SortType, bytes: &[u8]) -> Option<Value<'_>> {
    Some(match sort_type {
        SortType::Bool => integer(u8::from_be_bytes(bytes.try_into().ok()?) != 0),
        SortType::Int2 => integer(i16::from_be_bytes(bytes.try_into().ok()?)),
        SortType::Int4 => integer(i32::from_be_bytes(bytes.try_into().ok()?)),
        SortType::Int8 | SortType::Time | SortType::Timestamp | SortType::Timestamptz => {
            integer(i64::from_be_bytes(bytes.try_into().ok()?))
        }
        SortType::Oid => integer(u32::from_be_bytes(bytes.try_into().ok()?)),
        SortType::Float4 => Value(Place::Float(Float(
            f32::from_be_bytes(bytes.try_into().ok()?).into(),
        ))),
        SortType::Float8 => Value(Place::Float(Float(f64::from_be_bytes(
            bytes.try_into().ok()?,
        )))),
        SortType::Numeric => Value(Place::Numeric(numeric_binary(bytes)?)),
        SortType::Date => integer(match i32::from_be_bytes(bytes.try_into().ok()?) {
            i32::MAX => i64::MAX,
            i32::MIN => i64::MIN,
            days => days.into(),
        }),
        SortType::Uuid => Value(Place::Uuid(bytes.try_into().ok()?)),
        SortType::Char => integer(u8::from_be_bytes(bytes.try_into().ok()?)),
        SortType::Bytea | SortType::Text => Value(Place::Bytes(Cow::Borrowed(bytes))),
        SortType::Bpchar => Value(Place::Bytes(Cow::Borrowed(without_blanks(bytes)))),
    })
}

fn without_blanks(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != b' ')
        .map_or(0, |last| last + 1);
    &bytes[..end]
}

/// Rust reads more words than PostgreSQL prints, and rounds what is too large to infinity: neither is let through.
fn float_text(bytes: &[u8], parse: impl FnOnce(&str) -> Option<f64>) -> Option<Value<'static>> {
    let float = match bytes {
        b"NaN" => f64::NAN,
        b"Infinity" => f64::INFINITY,
        b"-Infinity" => f64::NEG_INFINITY,
        _ => {
            let is_number = bytes
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e'));
            let text = std::str::from_utf8(bytes).ok().filter(|_| is_number)?;
            parse(text).filter(|float| float.is_finite())?
        }
    };
    Some(Value(Place::Float(Float(float))))
}

fn numeric_text(bytes: &[u8]) -> Option<Numeric> {
    match bytes {
        b"NaN" => return Some(Numeric::NotANumber),
        b"Infinity" => return Some(Numeric::Infinity),
        b"-Infinity" => return Some(Numeric::NegativeInfinity),
        _ => (),
    }
    let (is_negative, unsigned) = match bytes.strip_prefix(b"-") {
        Some(unsigned) => (true, unsigned),
        None => (false, bytes),
    };
    let point = memchr::memchr(b'.', unsigned);
    let (whole, fraction) = match point {
        Some(point) => (&unsigned[..point], &unsigned[point + 1..]),
        None => (unsigned, &unsigned[..0]),
    };
    let is_digits = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !is_digits(whole) || (point.is_some() && !is_digits(fraction)) {
        return None;
    }
    let group = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
    };
    // Groups of four digits are counted from the point: the first of the whole part may be short at its front, the
    // last of the fraction at its end.
    let (first, rest) = whole.split_at(whole.len() % 4);
    let mut digits = Vec::with_capacity(unsigned.len() / 4 + 2);
    digits.push(group(first));
    digits.extend(rest.chunks_exact(4).map(group));
    let weight = i32::try_from(digits.len()).ok()? - 1;
    let (full, last) = fraction.as_chunks::<4>();
    digits.extend(full.iter().map(|digits| group(digits)));
    digits.push(group(last) * 10_u16.pow(4 - last.len() as u32));
    Some(Numeric::of(is_negative, weight, digits))
}

fn numeric_binary(bytes: &[u8]) -> Option<Numeric> {
    let (halves, rest) = bytes.as_chunks::<2>();
    let [count, weight, sign, scale, digits @ ..] = halves else {
        return None;
    };
    let is_whole = rest.is_empty() && usize::from(u16::from_be_bytes(*count)) == digits.len();
    if !is_whole || u16::from_be_bytes(*scale) > 0x3fff {
        return None;
    }
    let is_negative = match u16::from_be_bytes(*sign) {
        0x0000 => false,
        0x4000 => true,
        0xc000 => return Some(Numeric::NotANumber),
        0xd000 => return Some(Numeric::Infinity),
        0xf000 => return Some(Numeric::NegativeInfinity),
        _ => return None,
    };
    let digits: Vec<u16> = digits
        .iter()
        .map(|digit| u16::from_be_bytes(*digit))
        .collect();
    if digits.iter().any(|digit| *digit > 9999) {
        return None;
    }
    Some(Numeric::of(
        is_negative,
        i16::from_be_bytes(*weight).into(),
        digits,
    ))
}

/// Days from 2000-01-01, as on the wire, but for the infinities.
fn date_text(bytes: &[u8]) -> Option<i64> {
    if let Some(infinity) = infinity(bytes) {
        return Some(infinity);
    }
    let mut scanner = Scanner { rest: bytes };
    let date = scanner.date()?;
    let days = date.days(scanner.is_bc())?;
    scanner.end()?;
    Some(days)
}

/// Microseconds from 2000-01-01, as on the wire; in UTC where there is a zone.
fn timestamp_text(bytes: &[u8], has_zone: bool) -> Option<i64> {
    if let Some(infinity) = infinity(bytes) {
        return Some(infinity);
    }
    let mut scanner = Scanner { rest: bytes };
    let date = scanner.date()?;
    scanner.take(b" ")?;
    let time = scanner.time()?;
    let zone_seconds = if has_zone { scanner.zone_seconds()? } else { 0 };
    let days = date.days(scanner.is_bc())?;
    scanner.end()?;
    days.checked_mul(86_400_000_000)?
        .checked_add(time)?
        .checked_sub(zone_seconds * 1_000_000)
}

fn infinity(bytes: &[u8]) -> Option<i64> {
    match bytes {
        b"infinity" => Some(i64::MAX),
        b"-infinity" => Some(i64::MIN),
        _ => None,
    }
}

/// A date as printed: its year is not astronomical.
struct Date {
    year: i64,
    month: i64,
    day: i64,
}

impl Date {
    /// Days from 2000-01-01 in the proleptic Gregorian calendar. `None` for a date that is not in it.
    fn days(&self, is_bc: bool) -> Option<i64> {
        let Date { year, month, day } = *self;
        if year == 0 {
            return None;
        }
        // 1 BC is the year 0.
        let year = if is_bc { 1 - year } else { year };
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let month_days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if is_leap => 29,
            2 => 28,
            _ => return None,
        };
        if !(1..=month_days).contains(&day) {
            return None;
        }
        // Years that start in March have the leap day at their end, and their months' lengths repeat every five:
        // 153 days.
        let (year, month) = if month > 2 {
            (year, month - 3)
        } else {
            (year - 1, month + 9)
        };
        let before_year =
            year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let before_month = (153 * month + 2) / 5;
        // From 0000-03-01 to 2000-01-01 there are 730,425 days.
        Some(before_year + before_month + day - 1 - 730_425)
    }
}

/// Reads ISO dates and times from front to back.
struct Scanner<'a> {
    rest: &'a [u8],
}

impl Scanner<'_> {
    fn take(&mut self, expected: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }

    fn end(&self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }

    /// As many digits as there are, within `count`.
    fn number(&mut self, count: std::ops::RangeInclusive<usize>) -> Option<(i64, usize)> {
        let digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !count.contains(&digits) {
            return None;
        }
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        Some((
            number
                .iter()
                .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')),
            digits,
        ))
    }

    fn two_digits(&mut self, max: i64) -> Option<i64> {
        self.number(2..=2)
            .map(|(number, _)| number)
            .filter(|number| *number <= max)
    }

    /// Of at least four digits: no other style's date starts so.
    fn date(&mut self) -> Option<Date> {
        let (year, _) = self.number(4..=7)?;
        self.take(b"-")?;
        let month = self.two_digits(12)?;
        self.take(b"-")?;
        let day = self.two_digits(31)?;
        Some(Date { year, month, day })
    }

    /// Microseconds from midnight. 24:00:00 is a time, and the last.
    fn time(&mut self) -> Option<i64> {
        let hours = self.two_digits(24)?;
        self.take(b":")?;
        let minutes = self.two_digits(59)?;
        self.take(b":")?;
        let seconds = self.two_digits(59)?;
        let mut microseconds = 0;
        if self.take(b".").is_some() {
            let (fraction, digits) = self.number(1..=6)?;
            microseconds = fraction * 10_i64.pow(6 - digits as u32);
        }
        let time = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + microseconds;
        (time <= 86_400_000_000).then_some(time)
    }

    /// Seconds east of Greenwich: `+02`, `+05:30`, `-00:25:21`.
    fn zone_seconds(&mut self) -> Option<i64> {
        let is_west = self.take(b"-").is_some();
        if !is_west {
            self.take(b"+")?;
        }
        let hours = self.two_digits(99)?;
        let minutes = if self.take(b":").is_some() {
            self.two_digits(59)?
        } else {
            0
        };
        let seconds = if self.take(b":").is_some() {
            self.two_digits(59)?
        } else {
            0
        };
        let east = (hours * 60 + minutes) * 60 + seconds;
        Some(if is_west { -east } else { east })
    }

    fn is_bc(&mut self) -> bool {
        self.take(b" BC").is_some()
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

fn uuid_text(bytes: &[u8]) -> Option<[u8; 16]> {
    if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|dash| bytes[*dash] != b'-') {
        return None;
    }
    let mut digits = bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        let (_, high) = digits.next()?;
        let (_, low) = digits.next()?;
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(uuid)
}

/// Hex (`\x0aff`) or escape form (`\012\\a`), whichever `bytea_output` says.
fn bytea_text(bytes: &[u8]) -> Option<Vec<u8>> {
    if let Some(hex) = bytes.strip_prefix(b"\\x") {
        let (pairs, rest) = hex.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        return pairs
            .iter()
            .map(|[high, low]| Some(hex_digit(*high)? << 4 | hex_digit(*low)?))
            .collect();
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            decoded.push(*byte);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            decoded.push(b'\\');
            rest = after;
        } else {
            let (digits, after) = rest.split_first_chunk::<3>()?;
            decoded.push(octal(*digits)?);
            rest = after;
        }
    }
    Some(decoded)
}

fn octal([a, b, c]: [u8; 3]) -> Option<u8> {
    match (a, b, c) {
        (b'0'..=b'3', b'0'..=b'7', b'0'..=b'7') => {
            Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
        }
        _ => None,
    }
}

/// A byte as it is, nothing for 0, or, from PostgreSQL 16, `\ooo` for one above 127.
fn char_text(bytes: &[u8]) -> Option<u8> {
    match *bytes {
        [] => Some(0),
        [byte] => Some(byte),
        [b'\\', a, b, c] => octal([a, b, c]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each of `values`, least first, is below all after it.
    #[track_caller]
    fn check_ascending<T: AsRef<[u8]>>(sort_type: SortType, format: Format, values: &[T]) {
        for (i, left) in values.iter().enumerate() {
            for (j, right) in values.iter().enumerate() {
                let (left, right) = (left.as_ref(), right.as_ref());
                assert_eq!(
                    compare(sort_type, format, left, right),
                    Ok(i.cmp(&j)),
                    "{:?} {:?}",
                    left.escape_ascii().to_string(),
                    right.escape_ascii().to_string()
                );
            }
        }
    }

    #[track_caller]
    fn check_equal(sort_type: SortType, values: &[&str]) {
        for left in values {
            for right in values {
                let order = compare(sort_type, Format::Text, left.as_bytes(), right.as_bytes());
                assert_eq!(order, Ok(Ordering::Equal), "{left} {right}");
            }
        }
    }

    #[track_caller]
    fn check_refused(sort_type: SortType, values: &[&str]) {
        for value in values {
            assert!(
                decode(sort_type, Format::Text, value.as_bytes()).is_err(),
                "{value}"
            );
        }
    }

    #[test]
    fn integers_compare_as_numbers_not_as_text() {
        check_ascending(
            SortType::Int2,
            Format::Text,
            &["-32768", "-9", "0", "9", "10", "32767"],
        );
        check_ascending(
            SortType::Int8,
            Format::Text,
            &["-9223372036854775808", "2", "10", "9223372036854775807"],
        );
        check_ascending(
            SortType::Oid,
            Format::Text,
            &["0", "2147483647", "4294967295"],
        );
        check_ascending(
            SortType::Int4,
            Format::Binary,
            &[(-1_i32).to_be_bytes(), 1_i32.to_be_bytes()],
        );
        check_ascending(
            SortType::Oid,
            Format::Binary,
            &[1_u32.to_be_bytes(), u32::MAX.to_be_bytes()],
        );
        check_refused(SortType::Int2, &["32768", "", "1 ", "1.0", "x"]);
        check_refused(SortType::Oid, &["-1", "4294967296"]);
    }

    #[test]
    fn false_is_below_true() {
        check_ascending(SortType::Bool, Format::Text, &["f", "t"]);
        check_ascending(SortType::Bool, Format::Binary, &[[0], [1]]);
        check_refused(SortType::Bool, &["true", ""]);
    }

    #[test]
    fn floats_have_nan_above_infinity_and_one_zero() {
        let ascending = [
            "-Infinity",
            "-1e+300",
            "-1",
            "0",
            "5e-324",
            "1.5",
            "1e+300",
            "Infinity",
            "NaN",
        ];
        check_ascending(SortType::Float8, Format::Text, &ascending);
        check_equal(SortType::Float8, &["0", "-0"]);
        let nans = [f64::NAN, -f64::NAN].map(f64::to_be_bytes);
        assert_eq!(
            compare(SortType::Float8, Format::Binary, &nans[0], &nans[1]),
            Ok(Ordering::Equal)
        );
        check_ascending(
            SortType::Float4,
            Format::Text,
            &["-3.4028235e+38", "0.1", "0.10000001", "1e+20", "NaN"],
        );
        check_refused(
            SortType::Float8,
            &["nan", "inf", "infinity", "1e400", "", "1,5", "0x10", " 1"],
        );
        check_refused(SortType::Float4, &["1e39"]);
    }

    #[test]
    fn numerics_compare_by_value_not_by_scale() {
        check_ascending(
            SortType::Numeric,
            Format::Text,
            &[
                "-Infinity",
                "-100000000000000000000",
                "-10000",
                "-9999.9999",
                "-1.1",
                "-1",
                "-0.00001",
                "0",
                "0.000000000000000000000000000001",
                "0.00009",
                "0.0001",
                "0.1",
                "1",
                "1.00000000000000000001",
                "9999",
                "9999.5",
                "10000",
                "100000000.0001",
                "100000001",
                "Infinity",
                "NaN",
            ],
        );
        check_equal(SortType::Numeric, &["1", "1.0", "1.00000", "01"]);
        check_equal(SortType::Numeric, &["0", "0.00", "-0", "-0.0"]);
        check_equal(SortType::Numeric, &["NaN"]);
        check_refused(
            SortType::Numeric,
            &["", "-", ".", "1.", ".5", "1e5", "+1", "1.2.3", "nan", "--1"],
        );
    }

    #[test]
    fn binary_numerics_are_checked() {
        let numeric = |halves: &[u16]| {
            let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_be_bytes()).collect();
            decode(SortType::Numeric, Format::Binary, &bytes).map(drop)
        };
        let refused = Err(ValueError::Binary(SortType::Numeric));
        assert_eq!(numeric(&[2, 0, 0, 1, 1, 5000]), Ok(()));
        assert_eq!(numeric(&[3, 0, 0, 1, 1, 5000]), refused);
        assert_eq!(numeric(&[1, 0, 0, 1, 1, 5000]), refused);
        assert_eq!(numeric(&[1, 0, 0, 1, 10_000]), refused);
        assert_eq!(numeric(&[1, 0, 0x8000, 1, 1]), refused);
        assert_eq!(numeric(&[1, 0, 0, 0x4000, 1]), refused);
        assert_eq!(numeric(&[0, 0, 0]), refused);
    }

    #[test]
    fn dates_reach_from_before_christ_to_far_away() {
        check_ascending(
            SortType::Date,
            Format::Text,
            &[
                "-infinity",
                "4713-01-01 BC",
                "0002-12-31 BC",
                "0001-02-29 BC",
                "0001-12-31 BC",
                "0001-01-01",
                "1900-02-28",
                "1900-03-01",
                "1999-12-31",
                "2000-02-29",
                "2000-03-01",
                "9999-12-31",
                "10000-01-01",
                "5874897-12-31",
                "infinity",
            ],
        );
        let infinite = [i32::MIN, -1, 0, 1, i32::MAX].map(i32::to_be_bytes);
        check_ascending(SortType::Date, Format::Binary, &infinite);
    }

    #[test]
    fn a_date_has_the_same_place_in_both_formats() {
        for (text, days) in [
            ("2000-01-01", 0_i32),
            ("1970-01-01", -10_957),
            ("2024-02-29", 8825),
            ("0001-01-01", -730_119),
            ("0001-12-31 BC", -730_120),
            ("4713-01-01 BC", -2_451_507),
            ("5874897-12-31", 2_145_031_948),
            ("infinity", i32::MAX),
        ] {
            let from_text = decode(SortType::Date, Format::Text, text.as_bytes());
            assert_eq!(
                from_text,
                decode(SortType::Date, Format::Binary, &days.to_be_bytes()),
                "{text}"
            );
        }
    }

    #[test]
    fn dates_in_another_style_are_refused_never_guessed() {
        let dates = [
            "12/17/1997",
            "17.12.1997",
            "12-17-1997",
            "17-12-1997",
            "",
            "2001-02-29",
            "2001-13-01",
        ];
        check_refused(SortType::Date, &dates);
        check_refused(
            SortType::Date,
            &[
                "0000-01-01",
                "2001-01-01 AD",
                "2001-01-01 ",
                "2001-1-1",
                "12345678-01-01",
            ],
        );
        let timestamps = [
            "12/17/1997 07:37:16",
            "17.12.1997 07:37:16",
            "Wed Dec 17 07:37:16 1997",
            "1997-12-17",
            "1997-12-17T07:37:16",
            "1997-12-17 07:37",
            "1997-12-17 07:37:16.",
            "1997-12-17 07:37:16.1234567",
            "1997-12-17 07:37:16+00",
            "1997-12-17 24:00:01",
            "Infinity",
        ];
        check_refused(SortType::Timestamp, &timestamps);
        check_refused(
            SortType::Timestamptz,
            &[
                "1997-12-17 07:37:16",
                "1997-12-17 07:37:16 PST",
                "1997-12-17 07:37:16-8",
            ],
        );
        let error = decode(SortType::Timestamp, Format::Text, b"12/17/1997 07:37:16").unwrap_err();
        assert_eq!(
            (error.sqlstate().as_str(), error.refusal()),
            ("0A000", Some("sort_datestyle"))
        );
    }

    #[test]
    fn timestamps_compare_to_the_microsecond() {
        check_ascending(
            SortType::Timestamp,
            Format::Text,
            &[
                "-infinity",
                "4713-01-01 00:00:00 BC",
                "0044-03-15 12:00:00 BC",
                "0044-03-15 12:00:00.5 BC",
                "1999-12-31 23:59:59.999999",
                "2000-01-01 00:00:00",
                "2000-01-01 00:00:00.000001",
                "2000-01-01 00:00:00.1",
                "10000-01-01 00:00:00",
                "294276-12-31 23:59:59.999999",
                "infinity",
            ],
        );
        let infinite = [i64::MIN, -1, 0, 1, i64::MAX].map(i64::to_be_bytes);
        check_ascending(SortType::Timestamp, Format::Binary, &infinite);
    }

    #[test]
    fn timestamps_with_zone_compare_in_utc() {
        check_equal(
            SortType::Timestamptz,
            &[
                "2024-01-01 00:30:00+00",
                "2024-01-01 06:00:00+05:30",
                "2023-12-31 23:30:00-01",
                "2024-01-01 00:55:21+00:25:21",
            ],
        );
        check_ascending(
            SortType::Timestamptz,
            Format::Text,
            &[
                "-infinity",
                "0044-03-15 12:00:00-07:52:58 BC",
                "0044-03-15 12:00:00-07:52:59 BC",
                "2024-10-27 02:30:00+02",
                "2024-10-27 02:30:00+01",
                "10000-01-01 00:00:00+14",
                "infinity",
            ],
        );
    }

    #[test]
    fn times_end_at_24_hours() {
        check_ascending(
            SortType::Time,
            Format::Text,
            &["00:00:00", "00:00:00.000001", "23:59:59.999999", "24:00:00"],
        );
        check_refused(
            SortType::Time,
            &[
                "24:00:00.1",
                "12:60:00",
                "1:00:00",
                "12:00",
                "12:00:00+00",
                "-1:00:00",
            ],
        );
    }

    #[test]
    fn uuids_compare_by_bytes_in_any_case() {
        let (low, high) = (
            "00000000-0000-0000-0000-0000000000ff",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        );
        check_ascending(SortType::Uuid, Format::Text, &[low, high]);
        check_equal(SortType::Uuid, &[high, &high.to_uppercase()]);
        check_refused(
            SortType::Uuid,
            &[
                "",
                &high[1..],
                &high.replace('-', "_"),
                &high.replace('e', "g"),
            ],
        );
    }

    #[test]
    fn bytea_is_read_in_both_forms() {
        check_ascending(
            SortType::Bytea,
            Format::Text,
            &["", "\\x00", "\\x0000", "\\x5c", "\\xff"],
        );
        check_ascending(
            SortType::Bytea,
            Format::Text,
            &["", "\\000", "\\000\\000", "\\\\", "a", "ab", "\\377"],
        );
        check_equal(SortType::Bytea, &["\\x615c00", "a\\\\\\000"]);
        check_refused(
            SortType::Bytea,
            &["\\x0", "\\xgg", "\\", "\\40", "\\400", "\\08x"],
        );
    }

    #[test]
    fn char_is_an_unsigned_byte() {
        check_ascending(
            SortType::Char,
            Format::Text,
            &[&b""[..], b"\x01", b"A", b"\\", b"a", b"\xff"],
        );
        check_equal(SortType::Char, &["\\101", "A"]);
        check_refused(SortType::Char, &["ab", "\\400", "\\\\"]);
        check_ascending(SortType::Char, Format::Binary, &[[0], [0x41], [0xff]]);
    }

    #[test]
    fn text_compares_by_bytes_and_blank_padding_does_not_count() {
        check_ascending(
            SortType::Text,
            Format::Text,
            &["", " ", "A", "B", "a", "a ", "ab", "ä"],
        );
        check_ascending(
            SortType::Bpchar,
            Format::Binary,
            &["", "A", "A\t", "B  ", "ä "],
        );
        check_equal(SortType::Bpchar, &["a", "a ", "a   "]);
        check_equal(SortType::Bpchar, &["", "  "]);
    }

    #[test]
    fn only_types_with_a_known_order_sort() {
        // json, money, interval, timetz, inet, int4[], regclass.
        for type_oid in [114, 790, 1186, 1266, 869, 1007, 2205, 0] {
            assert_eq!(SortType::of(type_oid), None);
        }
        assert_eq!(SortType::of(1043), Some(SortType::Text));
    }

    const ALL: [SortType; 17] = [
        SortType::Bool,
        SortType::Int2,
        SortType::Int4,
        SortType::Int8,
        SortType::Oid,
        SortType::Float4,
        SortType::Float8,
        SortType::Numeric,
        SortType::Date,
        SortType::Time,
        SortType::Timestamp,
        SortType::Timestamptz,
        SortType::Uuid,
        SortType::Bytea,
        SortType::Char,
        SortType::Text,
        SortType::Bpchar,
    ];

    /// One value in both formats.
    type Both = (String, Vec<u8>);

    /// The calendar, counted year by year and month by month: slow, and not the arithmetic under test.
    fn civil(days: i64) -> (i64, i64, i64) {
        let is_leap = |year: i64| {
            year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
        };
        let mut year = 2000 + days.div_euclid(146_097) * 400;
        let mut rest = days.rem_euclid(146_097);
        while rest >= if is_leap(year) { 366 } else { 365 } {
            rest -= if is_leap(year) { 366 } else { 365 };
            year += 1;
        }
        let months = [
            31,
            if is_leap(year) { 29 } else { 28 },
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ];
        let mut month = 0;
        while rest >= months[month] {
            rest -= months[month];
            month += 1;
        }
        (year, month as i64 + 1, rest + 1)
    }

    fn date_parts(days: i64) -> (String, &'static str) {
        let (year, month, day) = civil(days);
        let (year, era) = if year > 0 {
            (year, "")
        } else {
            (1 - year, " BC")
        };
        (format!("{year:04}-{month:02}-{day:02}"), era)
    }

    fn time_text(microseconds: i64) -> String {
        let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
        let time = format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        if fraction == 0 {
            time
        } else {
            format!("{time}.{fraction:06}")
                .trim_end_matches('0')
                .to_owned()
        }
    }

    fn zone_text(seconds: i64) -> String {
        let (sign, east) = if seconds < 0 {
            ('-', -seconds)
        } else {
            ('+', seconds)
        };
        let zone = format!("{sign}{:02}", east / 3600);
        match (east / 60 % 60, east % 60) {
            (0, 0) => zone,
            (minutes, 0) => format!("{zone}:{minutes:02}"),
            (minutes, seconds) => format!("{zone}:{minutes:02}:{seconds:02}"),
        }
    }

    const DAY: i64 = 86_400_000_000;

    fn dates() -> impl Strategy<Value = Both> {
        prop_oneof![
            8 => (-2_451_507..2_145_031_949_i64).boxed(),
            8 => (-800_000..800_000_i64).boxed(),
        ]
        .prop_map(|days| {
            let (date, era) = date_parts(days);
            (format!("{date}{era}"), (days as i32).to_be_bytes().to_vec())
        })
    }

    fn timestamps(zone: Option<i64>) -> impl Strategy<Value = Both> {
        (
            -2_451_000..100_000_000_i64,
            prop_oneof![0..DAY, Just(0), (0..86_400_i64).prop_map(|s| s * 1_000_000)],
        )
            .prop_map(move |(days, time)| {
                let (date, era) = date_parts(days);
                let seconds = zone.unwrap_or(0);
                let zone = zone.map(zone_text).unwrap_or_default();
                let binary = days * DAY + time - seconds * 1_000_000;
                (
                    format!("{date} {}{zone}{era}", time_text(time)),
                    binary.to_be_bytes().to_vec(),
                )
            })
    }

    fn numerics() -> impl Strategy<Value = Both> {
        (any::<bool>(), "[0-9]{1,14}", "[0-9]{0,12}").prop_map(|(is_negative, whole, fraction)| {
            let sign = if is_negative { "-" } else { "" };
            let point = if fraction.is_empty() { "" } else { "." };
            let text = format!("{sign}{whole}{point}{fraction}");
            // Padded to whole groups: 16 digits before the point, 12 after it.
            let digits = format!("{whole:0>16}{fraction:0<12}");
            let groups = digits
                .as_bytes()
                .chunks(4)
                .map(|group| std::str::from_utf8(group).unwrap().parse::<u16>().unwrap());
            let mut halves: Vec<u16> = vec![
                7,
                3,
                if is_negative { 0x4000 } else { 0 },
                fraction.len() as u16,
            ];
            halves.extend(groups);
            (
                text,
                halves.iter().flat_map(|half| half.to_be_bytes()).collect(),
            )
        })
    }

    fn both(sort_type: SortType) -> BoxedStrategy<Both> {
        match sort_type {
            SortType::Bool => any::<bool>()
                .prop_map(|value| {
                    (
                        (if value { "t" } else { "f" }).to_owned(),
                        vec![value.into()],
                    )
                })
                .boxed(),
            SortType::Int2 => any::<i16>()
                .prop_map(|value| (value.to_string(), value.to_be_bytes().into()))
                .boxed(),
            SortType::Int4 => any::<i32>()
                .prop_map(|value| (value.to_string(), value.to_be_bytes().into()))
                .boxed(),
            SortType::Int8 => any::<i64>()
                .prop_map(|value| (value.to_string(), value.to_be_bytes().into()))
                .boxed(),
            SortType::Oid => any::<u32>()
                .prop_map(|value| (value.to_string(), value.to_be_bytes().into()))
                .boxed(),
            SortType::Float4 => any::<f32>()
                .prop_map(|value| (format!("{value:e}"), value.to_be_bytes().into()))
                .boxed(),
            SortType::Float8 => any::<f64>()
                .prop_map(|value| (format!("{value:e}"), value.to_be_bytes().into()))
                .boxed(),
            SortType::Numeric => numerics().boxed(),
            SortType::Date => dates().boxed(),
            SortType::Time => (0..=DAY)
                .prop_map(|time| (time_text(time), time.to_be_bytes().into()))
                .boxed(),
            SortType::Timestamp => timestamps(None).boxed(),
            SortType::Timestamptz => prop_oneof![
                Just(0),
                (-56_000..=56_000_i64),
                (-14..=14_i64).prop_map(|hours| hours * 3600)
            ]
            .prop_flat_map(|zone| timestamps(Some(zone)))
            .boxed(),
            SortType::Uuid => any::<[u8; 16]>()
                .prop_map(|value| {
                    let hex = format!("{:032x}", u128::from_be_bytes(value));
                    let text = [
                        &hex[..8],
                        &hex[8..12],
                        &hex[12..16],
                        &hex[16..20],
                        &hex[20..],
                    ]
                    .join("-");
                    (text, value.into())
                })
                .boxed(),
            SortType::Bytea => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..5))
                .prop_map(|(is_hex, value)| {
                    let hex = || {
                        value
                            .iter()
                            .map(|byte| format!("{byte:02x}"))
                            .collect::<String>()
                    };
                    let escape = |byte: &u8| match byte {
                        b'\\' => "\\\\".to_owned(),
                        0x20..=0x7e => char::from(*byte).to_string(),
                        _ => format!("\\{byte:03o}"),
                    };
                    let text = if is_hex {
                        format!("\\x{}", hex())
                    } else {
                        value.iter().map(escape).collect()
                    };
                    (text, value)
                })
                .boxed(),
            SortType::Char => (0..128_u8)
                .prop_map(|value| {
                    (
                        if value == 0 {
                            String::new()
                        } else {
                            char::from(value).to_string()
                        },
                        vec![value],
                    )
                })
                .boxed(),
            SortType::Text | SortType::Bpchar => "[ aAä\t]{0,5}"
                .prop_map(|text| (text.clone(), text.into_bytes()))
                .boxed(),
        }
    }

    fn two_of_a_type() -> impl Strategy<Value = (SortType, Both, Both)> {
        prop::sample::select(&ALL[..])
            .prop_flat_map(|sort_type| (Just(sort_type), both(sort_type), both(sort_type)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn both_formats_have_one_order((sort_type, left, right) in two_of_a_type()) {
            let text = |value: &Both| decode(sort_type, Format::Text, value.0.as_bytes()).map(|value| format!("{value:?}"));
            let binary = |value: &Both| decode(sort_type, Format::Binary, &value.1).map(|value| format!("{value:?}"));
            prop_assert_eq!(text(&left), binary(&left));
            prop_assert_eq!(
                compare(sort_type, Format::Text, left.0.as_bytes(), right.0.as_bytes()),
                compare(sort_type, Format::Binary, &left.1, &right.1)
            );
        }

        #[test]
        fn the_order_of_floats_is_total(bits in prop::array::uniform3(any::<u64>()), pick in prop::array::uniform3(0..8_usize)) {
            let special = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
            let value = |at: usize| special.get(pick[at]).copied().unwrap_or(f64::from_bits(bits[at])).to_be_bytes();
            check_total(SortType::Float8, Format::Binary, &[value(0), value(1), value(2)])?;
        }

        #[test]
        fn the_order_of_numerics_is_total(values in prop::array::uniform3("-?[01]{1,6}(\\.[01]{1,5})?|NaN|-?Infinity")) {
            check_total(SortType::Numeric, Format::Text, &values)?;
        }

        #[test]
        fn numerics_that_floats_hold_exactly_compare_as_they_do(left in any::<i32>(), right in any::<i32>(), scale in 0..4_u32) {
            let text = |value: i32| format!("{:.4}", f64::from(value) / f64::from(2_u32.pow(scale)));
            let order = compare(SortType::Numeric, Format::Text, text(left).as_bytes(), text(right).as_bytes());
            prop_assert_eq!(order, Ok(left.cmp(&right)));
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "[-+0-9.:eE BC\\\\x]{0,30}") {
            for sort_type in ALL {
                for bytes in [&bytes[..], text.as_bytes()] {
                    let _ = decode(sort_type, Format::Text, bytes);
                    let _ = decode(sort_type, Format::Binary, bytes);
                }
            }
        }
    }

    /// Antisymmetric and transitive.
    fn check_total<T: AsRef<[u8]>>(
        sort_type: SortType,
        format: Format,
        values: &[T; 3],
    ) -> Result<(), TestCaseError> {
        let order = |left: usize, right: usize| {
            compare(
                sort_type,
                format,
                values[left].as_ref(),
                values[right].as_ref(),
            )
            .unwrap()
        };
        for [a, b, c] in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            prop_assert_eq!(order(a, b), order(b, a).reverse());
            prop_assert_eq!(order(a, a), Ordering::Equal);
            if order(a, b).is_le() && order(b, c).is_le() {
                prop_assert!(order(a, c).is_le());
            }
        }
        Ok(())
    }
}

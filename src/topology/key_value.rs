//! Sharding keys: which column types can be one, and values in the one form that hashes. Text is UTF-8, as on the
//! shards. Must not know statements: the planner says where a value stands, this says what it is.
//!
//! A value is coerced to the column's type as an assignment would: rounded to a numeric's scale, blanks cut to fit a
//! varchar. A comparison with the uncoerced value finds no row then, on any shard, so that the slot of the coerced
//! value serves both.

use super::date_time::{self, DateTimeError};
use super::decimal::{Decimal, DecimalError};
use super::schema::{Column, HashFamily};

/// Type OIDs of PostgreSQL's catalog, which are fixed.
mod oid {
    pub const BYTEA: u32 = 17;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const UNKNOWN: u32 = 705;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
}

/// A column type that can be a sharding key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// smallint
    Int2,
    /// integer
    Int4,
    /// bigint
    Int8,
    /// date
    Date,
    /// timestamp, to the microsecond
    Timestamp,
    /// timestamptz, to the microsecond
    Timestamptz,
    /// text
    Text,
    /// varchar, or varchar(n) of that many characters
    Varchar(Option<u32>),
    /// char(n)
    Bpchar,
    /// uuid
    Uuid,
    /// bytea
    Bytea,
    /// numeric
    Numeric(Option<NumericBounds>),
}

/// numeric(precision, scale)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NumericBounds {
    /// Digits in all.
    pub precision: u16,
    /// Digits after the point; may be negative.
    pub scale: i16,
}

impl KeyType {
    /// The key type of a column of base type `type_oid` that `format_type` prints as `type_name`. None: such a column
    /// cannot be a key. Domains can, unless their base type's modifier would be needed and cannot be seen.
    pub fn of(type_oid: u32, type_name: &str) -> Option<Self> {
        Some(match type_oid {
            oid::INT2 => Self::Int2,
            oid::INT4 => Self::Int4,
            oid::INT8 => Self::Int8,
            oid::DATE => Self::Date,
            oid::TIMESTAMP if type_name == "timestamp without time zone" => Self::Timestamp,
            oid::TIMESTAMPTZ if type_name == "timestamp with time zone" => Self::Timestamptz,
            oid::TEXT => Self::Text,
            oid::VARCHAR => Self::Varchar(varchar_length(type_name)?),
            oid::BPCHAR => Self::Bpchar,
            oid::UUID => Self::Uuid,
            oid::BYTEA => Self::Bytea,
            oid::NUMERIC => Self::Numeric(numeric_bounds(type_name)?),
            _ => return None,
        })
    }

    /// The key type of `column`, whatever its collation.
    pub fn of_column(column: &Column) -> Option<Self> {
        Self::of(column.type_oid, &column.type_name)
    }

    /// How its values hash; keys of one family are co-located.
    pub fn family(self) -> HashFamily {
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => HashFamily::Integer,
            Self::Date => HashFamily::Date,
            Self::Timestamp => HashFamily::Time,
            Self::Timestamptz => HashFamily::TimeWithZone,
            Self::Text | Self::Varchar(_) => HashFamily::Text,
            Self::Bpchar => HashFamily::Character,
            Self::Uuid => HashFamily::Uuid,
            Self::Bytea => HashFamily::Bytea,
            Self::Numeric(_) => HashFamily::Numeric,
        }
    }

    fn oid(self) -> u32 {
        match self {
            Self::Int2 => oid::INT2,
            Self::Int4 => oid::INT4,
            Self::Int8 => oid::INT8,
            Self::Date => oid::DATE,
            Self::Timestamp => oid::TIMESTAMP,
            Self::Timestamptz => oid::TIMESTAMPTZ,
            Self::Text => oid::TEXT,
            Self::Varchar(_) => oid::VARCHAR,
            Self::Bpchar => oid::BPCHAR,
            Self::Uuid => oid::UUID,
            Self::Bytea => oid::BYTEA,
            Self::Numeric(_) => oid::NUMERIC,
        }
    }
}

fn varchar_length(type_name: &str) -> Option<Option<u32>> {
    match type_name.strip_prefix("character varying")? {
        "" => Some(None),
        modifier => modifier
            .strip_prefix('(')?
            .strip_suffix(')')?
            .parse()
            .ok()
            .map(Some),
    }
}

fn numeric_bounds(type_name: &str) -> Option<Option<NumericBounds>> {
    let modifier = match type_name.strip_prefix("numeric")? {
        "" => return Some(None),
        modifier => modifier.strip_prefix('(')?.strip_suffix(')')?,
    };
    let (precision, scale) = modifier.split_once(',')?;
    Some(Some(NumericBounds {
        precision: precision.parse().ok()?,
        scale: scale.parse().ok()?,
    }))
}

/// A key in the one form that hashes: equal keys of a family are equal here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyValue {
    /// int2, int4, int8
    Integer(i64),
    /// Days since 2000-01-01; the ends are the infinities.
    Date(i32),
    /// Microseconds since 2000-01-01; the ends are the infinities.
    Timestamp(i64),
    /// The same in UTC.
    Timestamptz(i64),
    /// text, varchar
    Text(Box<str>),
    /// char(n), without the blanks at its end
    Character(Box<str>),
    /// uuid
    Uuid([u8; 16]),
    /// bytea
    Bytea(Box<[u8]>),
    /// numeric
    Numeric(NumericValue),
}

/// A numeric without what does not change its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NumericValue {
    /// `digits[0] × 10000^weight + digits[1] × 10000^(weight − 1) + …`
    Finite {
        /// Below zero.
        negative: bool,
        /// Power of 10000 of the first digit; 0 for zero.
        weight: i32,
        /// Each 0 to 9999, neither the first nor the last 0; none for zero.
        digits: Box<[i16]>,
    },
    /// Infinity or -Infinity.
    Infinity {
        /// Below zero.
        negative: bool,
    },
    /// NaN, which equals itself here.
    NaN,
}

/// Why there is no key value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// PostgreSQL refuses the value as well, so any shard gives its error.
    #[error("not a value of the key's type")]
    Invalid,
    /// No row can hold the value: a comparison matches nothing, a write is an error, on any shard.
    #[error("beyond the range of the key's type")]
    OutOfRange,
    /// PostgreSQL may understand it, perhaps by its settings; here it is not. Never to be guessed.
    #[error("not understood as a value of the key's type")]
    NotUnderstood,
}

use KeyError::{Invalid, NotUnderstood, OutOfRange};

impl From<DecimalError> for KeyError {
    fn from(error: DecimalError) -> Self {
        match error {
            DecimalError::Invalid => Invalid,
            DecimalError::NotUnderstood => NotUnderstood,
        }
    }
}

impl From<DateTimeError> for KeyError {
    fn from(error: DateTimeError) -> Self {
        match error {
            DateTimeError::NotUnderstood => NotUnderstood,
            DateTimeError::OutOfRange => OutOfRange,
        }
    }
}

impl KeyValue {
    /// Reads what the type's input function reads: a string literal's value without a cast, a text parameter of
    /// unknown type, a field of COPY.
    ///
    /// # Errors
    ///
    /// [`KeyError`]. Dates and times must be in an ISO form that no setting changes, timestamptz with its offset.
    pub fn from_text(key_type: KeyType, text: &str) -> Result<Self, KeyError> {
        if text.contains('\0') {
            return Err(Invalid);
        }
        match key_type {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
                integer(key_type, read_integer(text.trim_matches(is_blank))?)
            }
            KeyType::Date => Ok(Self::Date(date_time::date(text.trim_matches(is_blank))?)),
            KeyType::Timestamp => Ok(Self::Timestamp(date_time::timestamp(
                text.trim_matches(is_blank),
            )?)),
            KeyType::Timestamptz => Ok(Self::Timestamptz(date_time::timestamptz(
                text.trim_matches(is_blank),
            )?)),
            KeyType::Text | KeyType::Varchar(_) | KeyType::Bpchar => character(key_type, text),
            KeyType::Uuid => read_uuid(text.as_bytes()).map(Self::Uuid).ok_or(Invalid),
            KeyType::Bytea => read_bytea(text.as_bytes())
                .map(|bytes| Self::Bytea(bytes.into()))
                .ok_or(Invalid),
            KeyType::Numeric(bounds) => numeric(bounds, read_numeric(text.trim_matches(is_blank))?),
        }
    }

    /// Reads an SQL number literal, with its sign.
    ///
    /// # Errors
    ///
    /// [`KeyError`]
    pub fn from_number(key_type: KeyType, text: &str) -> Result<Self, KeyError> {
        let number = Number::Finite(Decimal::parse(text)?);
        match key_type {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => integer_of(key_type, &number),
            KeyType::Numeric(bounds) => numeric(bounds, number),
            // An assignment casts a number to text, printing it in its own way.
            KeyType::Text | KeyType::Varchar(_) | KeyType::Bpchar => match text.parse::<i64>() {
                Ok(integer) => character(key_type, &integer.to_string()),
                Err(_) => Err(NotUnderstood),
            },
            KeyType::Date
            | KeyType::Timestamp
            | KeyType::Timestamptz
            | KeyType::Uuid
            | KeyType::Bytea => Err(NotUnderstood),
        }
    }

    /// Reads a parameter in text format whose type is `parameter_type_oid`, 0 if the client left it open.
    ///
    /// # Errors
    ///
    /// [`KeyError`]
    pub fn from_parameter_text(
        parameter_type_oid: u32,
        key_type: KeyType,
        text: &str,
    ) -> Result<Self, KeyError> {
        let text_like = matches!(
            key_type,
            KeyType::Text | KeyType::Varchar(_) | KeyType::Bpchar
        );
        let integers = |oid| matches!(oid, oid::INT2 | oid::INT4 | oid::INT8);
        match (parameter_type_oid, key_type) {
            (0 | oid::UNKNOWN, _) => Self::from_text(key_type, text),
            (same, _) if same == key_type.oid() => Self::from_text(key_type, text),
            (oid::TEXT | oid::VARCHAR, _) if text_like => Self::from_text(key_type, text),
            // The parameter is beyond its own range long before it is beyond that of a wider key: an error anywhere.
            (integer, KeyType::Int2 | KeyType::Int4 | KeyType::Int8 | KeyType::Numeric(_))
                if integers(integer) =>
            {
                Self::from_text(key_type, text)
            }
            (oid::NUMERIC, KeyType::Int2 | KeyType::Int4 | KeyType::Int8) => {
                integer_of(key_type, &read_numeric(text.trim_matches(is_blank))?)
            }
            (_, _) => Err(NotUnderstood),
        }
    }

    /// Reads a parameter in binary format whose type is `parameter_type_oid`, 0 for the key's own. Also a field of
    /// binary COPY.
    ///
    /// # Errors
    ///
    /// [`KeyError`]
    pub fn from_binary(
        parameter_type_oid: u32,
        key_type: KeyType,
        bytes: &[u8],
    ) -> Result<Self, KeyError> {
        let type_oid = if parameter_type_oid == 0 {
            key_type.oid()
        } else {
            parameter_type_oid
        };
        match (type_oid, key_type) {
            (oid::INT2 | oid::INT4 | oid::INT8, KeyType::Int2 | KeyType::Int4 | KeyType::Int8) => {
                integer(key_type, binary_integer(type_oid, bytes)?)
            }
            (oid::INT2 | oid::INT4 | oid::INT8, KeyType::Numeric(bounds)) => {
                let number = Decimal::parse(&binary_integer(type_oid, bytes)?.to_string())?;
                numeric(bounds, Number::Finite(number))
            }
            (oid::NUMERIC, KeyType::Int2 | KeyType::Int4 | KeyType::Int8) => {
                integer_of(key_type, &binary_numeric(bytes)?)
            }
            (oid::NUMERIC, KeyType::Numeric(bounds)) => numeric(bounds, binary_numeric(bytes)?),
            (
                oid::TEXT | oid::VARCHAR | oid::UNKNOWN,
                KeyType::Text | KeyType::Varchar(_) | KeyType::Bpchar,
            )
            | (oid::BPCHAR, KeyType::Bpchar) => {
                let text = std::str::from_utf8(bytes).map_err(|_| Invalid)?;
                Self::from_text(key_type, text)
            }
            (oid::DATE, KeyType::Date) => Ok(Self::Date(i32::from_be_bytes(exactly(bytes)?))),
            (oid::TIMESTAMP, KeyType::Timestamp) => {
                Ok(Self::Timestamp(i64::from_be_bytes(exactly(bytes)?)))
            }
            (oid::TIMESTAMPTZ, KeyType::Timestamptz) => {
                Ok(Self::Timestamptz(i64::from_be_bytes(exactly(bytes)?)))
            }
            (oid::UUID, KeyType::Uuid) => Ok(Self::Uuid(exactly(bytes)?)),
            (oid::BYTEA, KeyType::Bytea) => Ok(Self::Bytea(bytes.into())),
            (_, _) => Err(NotUnderstood),
        }
    }
}

/// Finite or not.
enum Number {
    Finite(Decimal),
    Special(NumericValue),
}

/// What PostgreSQL skips around numbers: C's isspace.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn integer(key_type: KeyType, value: i64) -> Result<KeyValue, KeyError> {
    let fits = match key_type {
        KeyType::Int2 => i16::try_from(value).is_ok(),
        KeyType::Int4 => i32::try_from(value).is_ok(),
        _ => true,
    };
    if fits {
        Ok(KeyValue::Integer(value))
    } else {
        Err(OutOfRange)
    }
}

fn integer_of(key_type: KeyType, number: &Number) -> Result<KeyValue, KeyError> {
    match number {
        Number::Finite(decimal) => integer(key_type, decimal.to_integer().ok_or(OutOfRange)?),
        Number::Special(_) => Err(OutOfRange),
    }
}

fn read_integer(text: &str) -> Result<i64, KeyError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| OutOfRange);
    }
    // Decimal tells what newer versions read from what none does.
    match Decimal::parse(text) {
        Err(DecimalError::NotUnderstood) => Err(NotUnderstood),
        Ok(_) | Err(DecimalError::Invalid) => Err(Invalid),
    }
}

fn read_numeric(text: &str) -> Result<Number, KeyError> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if unsigned.eq_ignore_ascii_case("infinity") || unsigned.eq_ignore_ascii_case("inf") {
        return Ok(Number::Special(NumericValue::Infinity { negative }));
    }
    if text.eq_ignore_ascii_case("nan") {
        return Ok(Number::Special(NumericValue::NaN));
    }
    Ok(Number::Finite(Decimal::parse(text)?))
}

fn numeric(bounds: Option<NumericBounds>, number: Number) -> Result<KeyValue, KeyError> {
    let decimal = match (number, bounds) {
        (Number::Special(NumericValue::Infinity { .. }), Some(_)) => return Err(OutOfRange),
        (Number::Special(special), _) => return Ok(KeyValue::Numeric(special)),
        (Number::Finite(decimal), None) => decimal,
        (Number::Finite(decimal), Some(NumericBounds { precision, scale })) => {
            let rounded = decimal.rounded(i32::from(scale));
            if rounded.whole_digits() > i32::from(precision) - i32::from(scale) {
                return Err(OutOfRange);
            }
            rounded
        }
    };
    Ok(KeyValue::Numeric(decimal.to_numeric()))
}

fn character(key_type: KeyType, text: &str) -> Result<KeyValue, KeyError> {
    match key_type {
        KeyType::Bpchar => Ok(KeyValue::Character(text.trim_end_matches(' ').into())),
        KeyType::Varchar(Some(length)) => {
            let end = text
                .char_indices()
                .nth(length as usize)
                .map_or(text.len(), |(end, _)| end);
            let (kept, cut) = text.split_at(end);
            if cut.bytes().any(|byte| byte != b' ') {
                return Err(OutOfRange);
            }
            Ok(KeyValue::Text(kept.into()))
        }
        _ => Ok(KeyValue::Text(text.into())),
    }
}

/// 32 hex digits in either case; a hyphen may follow each four; braces may stand around all.
fn read_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut rest = match text {
        [b'{', inside @ .., b'}'] => inside,
        _ => text,
    };
    let mut bytes = [0; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else {
            return None;
        };
        *byte = hex(*high)? << 4 | hex(*low)?;
        rest = match after {
            [b'-', after @ ..] if index % 2 == 1 && index < 15 => after,
            after => after,
        };
    }
    rest.is_empty().then_some(bytes)
}

/// Hex format (`\x`, blanks between digit pairs) or escape format (`\\`, `\ooo`).
fn read_bytea(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    if let Some(mut rest) = text.strip_prefix(b"\\x") {
        loop {
            rest = match rest {
                [] => return Some(bytes),
                [b' ' | b'\n' | b'\t' | b'\r', rest @ ..] => rest,
                [high, low, rest @ ..] => {
                    bytes.push(hex(*high)? << 4 | hex(*low)?);
                    rest
                }
                [_] => return None,
            };
        }
    }
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [
                b'\\',
                o1 @ b'0'..=b'3',
                o2 @ b'0'..=b'7',
                o3 @ b'0'..=b'7',
                rest @ ..,
            ] => {
                bytes.push((o1 - b'0') << 6 | (o2 - b'0') << 3 | (o3 - b'0'));
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], KeyError> {
    bytes.try_into().map_err(|_| Invalid)
}

fn binary_integer(type_oid: u32, bytes: &[u8]) -> Result<i64, KeyError> {
    match type_oid {
        oid::INT2 => exactly(bytes).map(i16::from_be_bytes).map(i64::from),
        oid::INT4 => exactly(bytes).map(i32::from_be_bytes).map(i64::from),
        _ => exactly(bytes).map(i64::from_be_bytes),
    }
}

/// Count of digits, weight, sign, display scale, then the base-10000 digits; 16 bits each.
fn binary_numeric(bytes: &[u8]) -> Result<Number, KeyError> {
    let (words, rest) = bytes.as_chunks::<2>();
    let [count, weight, sign, scale, digits @ ..] = words else {
        return Err(Invalid);
    };
    let digits: Vec<u16> = digits
        .iter()
        .map(|digit| u16::from_be_bytes(*digit))
        .collect();
    let scale = i32::from(u16::from_be_bytes(*scale));
    if usize::from(u16::from_be_bytes(*count)) != digits.len()
        || !rest.is_empty()
        || digits.iter().any(|digit| *digit > 9999)
    {
        return Err(Invalid);
    }
    let negative = match u16::from_be_bytes(*sign) {
        0x0000 => false,
        0x4000 => true,
        0xC000 => return Ok(Number::Special(NumericValue::NaN)),
        0xD000 => return Ok(Number::Special(NumericValue::Infinity { negative: false })),
        0xF000 => return Ok(Number::Special(NumericValue::Infinity { negative: true })),
        _ => return Err(Invalid),
    };
    let decimal =
        Decimal::from_base_10000(negative, i32::from(i16::from_be_bytes(*weight)), &digits);
    // PostgreSQL cuts such digits off; no driver sends them.
    if decimal.fraction_digits() > scale {
        return Err(NotUnderstood);
    }
    Ok(Number::Finite(decimal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NUMERIC_5_2: KeyType = KeyType::Numeric(Some(NumericBounds {
        precision: 5,
        scale: 2,
    }));

    fn text(key_type: KeyType, text: &str) -> Result<KeyValue, KeyError> {
        KeyValue::from_text(key_type, text)
    }

    /// PostgreSQL's `numeric_send`.
    fn numeric_bytes(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let words = [digits.len() as u16, weight as u16, sign, scale];
        words
            .iter()
            .chain(digits)
            .flat_map(|word| word.to_be_bytes())
            .collect()
    }

    #[test]
    fn column_types_are_told_by_oid_and_modifier() {
        assert_eq!(KeyType::of(23, "integer"), Some(KeyType::Int4));
        assert_eq!(
            KeyType::of(1043, "character varying(20)"),
            Some(KeyType::Varchar(Some(20)))
        );
        assert_eq!(
            KeyType::of(1043, "character varying"),
            Some(KeyType::Varchar(None))
        );
        assert_eq!(KeyType::of(1700, "numeric(5,2)"), Some(NUMERIC_5_2));
        assert_eq!(KeyType::of(1700, "numeric"), Some(KeyType::Numeric(None)));
        assert_eq!(KeyType::of(1042, "character(3)"), Some(KeyType::Bpchar));
        for (type_oid, type_name) in [
            (1114, "timestamp(3) without time zone"),
            (1043, "short_name"),
            (1700, "money_amount"),
            (701, "double precision"),
            (16, "boolean"),
        ] {
            assert_eq!(KeyType::of(type_oid, type_name), None, "{type_name}");
        }
    }

    #[test]
    fn integers_are_read_as_postgresql_reads_them() {
        assert_eq!(text(KeyType::Int4, " +0042\n"), Ok(KeyValue::Integer(42)));
        assert_eq!(text(KeyType::Int2, "-32768"), Ok(KeyValue::Integer(-32768)));
        assert_eq!(text(KeyType::Int2, "32768"), Err(OutOfRange));
        assert_eq!(text(KeyType::Int8, "9223372036854775808"), Err(OutOfRange));
        for bad in [
            "", " ", "4 2", "1.0", "1e3", "+-1", "nan", "é", "42\u{a0}", "1\0",
        ] {
            assert_eq!(text(KeyType::Int8, bad), Err(Invalid), "{bad:?}");
        }
        for newer in ["0x2A", "1_000", "-0b1"] {
            assert_eq!(text(KeyType::Int8, newer), Err(NotUnderstood), "{newer}");
        }
    }

    #[test]
    fn number_literals_are_coerced_to_the_key() {
        let number = KeyValue::from_number;
        assert_eq!(number(KeyType::Int4, "42.0"), Ok(KeyValue::Integer(42)));
        assert_eq!(number(KeyType::Int4, "4.2e1"), Ok(KeyValue::Integer(42)));
        assert_eq!(number(KeyType::Int4, "1.5"), Ok(KeyValue::Integer(2)));
        assert_eq!(number(KeyType::Int4, "2147483648"), Err(OutOfRange));
        assert_eq!(number(KeyType::Int8, "1e30"), Err(OutOfRange));
        assert_eq!(
            number(KeyType::Numeric(None), "1.0"),
            text(KeyType::Numeric(None), "1")
        );
        assert_eq!(number(KeyType::Text, "042"), text(KeyType::Text, "42"));
        assert_eq!(number(KeyType::Text, "1.50"), Err(NotUnderstood));
        assert_eq!(number(KeyType::Date, "1"), Err(NotUnderstood));
    }

    #[test]
    fn numerics_round_to_their_scale_and_end_at_their_precision() {
        assert_eq!(
            text(NUMERIC_5_2, "1.005"),
            text(KeyType::Numeric(None), "1.01")
        );
        assert_eq!(
            text(NUMERIC_5_2, "999.994"),
            text(KeyType::Numeric(None), "999.99")
        );
        assert_eq!(text(NUMERIC_5_2, "999.995"), Err(OutOfRange));
        assert_eq!(text(NUMERIC_5_2, "inf"), Err(OutOfRange));
        assert_eq!(
            text(NUMERIC_5_2, "NaN"),
            Ok(KeyValue::Numeric(NumericValue::NaN))
        );
        assert_eq!(
            text(KeyType::Numeric(None), "-Infinity"),
            Ok(KeyValue::Numeric(NumericValue::Infinity { negative: true }))
        );
        assert_eq!(text(KeyType::Numeric(None), "1.2.3"), Err(Invalid));
    }

    #[test]
    fn characters_lose_only_the_blanks_that_storing_loses() {
        assert_eq!(
            text(KeyType::Varchar(Some(3)), "abc  "),
            Ok(KeyValue::Text("abc".into()))
        );
        assert_eq!(
            text(KeyType::Varchar(Some(3)), "ab "),
            Ok(KeyValue::Text("ab ".into()))
        );
        assert_eq!(text(KeyType::Varchar(Some(3)), "äöüß"), Err(OutOfRange));
        assert_eq!(
            text(KeyType::Varchar(None), "a "),
            Ok(KeyValue::Text("a ".into()))
        );
        assert_eq!(
            text(KeyType::Bpchar, "a  "),
            Ok(KeyValue::Character("a".into()))
        );
        assert_eq!(text(KeyType::Text, "a\0b"), Err(Invalid));
    }

    #[test]
    fn uuids_have_many_forms_and_bytes_have_two() {
        let uuid = text(KeyType::Uuid, "{A0EEBC99-9c0b4ef8-bb6d6bb9-bd380a11}");
        assert_eq!(
            uuid,
            text(KeyType::Uuid, "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11")
        );
        for bad in [
            "",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a1g",
            " a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
            "a-0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0e--ebc999c0b4ef8bb6d6bb9bd380a1",
        ] {
            assert_eq!(text(KeyType::Uuid, bad), Err(Invalid), "{bad}");
        }
        assert_eq!(
            text(KeyType::Bytea, "\\x6162 63"),
            text(KeyType::Bytea, "a\\142c")
        );
        for bad in ["\\x6", "\\x6 1", "\\xgg", "\\", "a\\9", "\\400", "\\12"] {
            assert_eq!(text(KeyType::Bytea, bad), Err(Invalid), "{bad}");
        }
    }

    #[test]
    fn binary_parameters_are_coerced_from_their_own_type() {
        let binary = KeyValue::from_binary;
        assert_eq!(
            binary(21, KeyType::Int8, &[0xff, 0xfe]),
            Ok(KeyValue::Integer(-2))
        );
        assert_eq!(
            binary(20, KeyType::Int4, &(1_i64 << 31).to_be_bytes()),
            Err(OutOfRange)
        );
        assert_eq!(
            binary(0, KeyType::Int4, &[0, 0, 0, 5]),
            Ok(KeyValue::Integer(5))
        );
        assert_eq!(binary(0, KeyType::Int8, &[0, 0, 0, 5]), Err(Invalid));
        assert_eq!(
            binary(23, KeyType::Numeric(None), &[0, 0, 0, 10]),
            text(KeyType::Numeric(None), "10.0")
        );
        assert_eq!(
            binary(1700, KeyType::Int4, &numeric_bytes(0, 0x4000, 1, &[42])),
            Ok(KeyValue::Integer(-42))
        );
        assert_eq!(
            binary(25, KeyType::Uuid, b"a0eebc999c0b4ef8bb6d6bb9bd380a11"),
            Err(NotUnderstood)
        );
        assert_eq!(
            binary(1043, KeyType::Text, "ä".as_bytes()),
            Ok(KeyValue::Text("ä".into()))
        );
        assert_eq!(binary(25, KeyType::Text, b"\xff"), Err(Invalid));
        assert_eq!(binary(1042, KeyType::Text, b"a "), Err(NotUnderstood));
        assert_eq!(
            binary(0, KeyType::Timestamptz, &0_i64.to_be_bytes()),
            text(KeyType::Timestamptz, "2000-01-01 01:00:00+01")
        );
        assert_eq!(
            binary(1184, KeyType::Timestamp, &0_i64.to_be_bytes()),
            Err(NotUnderstood)
        );
        assert_eq!(
            binary(0, KeyType::Date, &i32::MAX.to_be_bytes()),
            text(KeyType::Date, "infinity")
        );
    }

    #[test]
    fn binary_numerics_are_checked() {
        let binary = |bytes: &[u8]| KeyValue::from_binary(1700, KeyType::Numeric(None), bytes);
        let numeric = |literal| text(KeyType::Numeric(None), literal);
        assert_eq!(
            binary(&numeric_bytes(1, 0, 4, &[1, 0, 2345])),
            numeric("10000.2345")
        );
        assert_eq!(binary(&numeric_bytes(0, 0x4000, 0, &[])), numeric("0"));
        assert_eq!(binary(&numeric_bytes(0, 0xC000, 0, &[])), numeric("NaN"));
        assert_eq!(binary(&numeric_bytes(0, 0xF000, 0, &[])), numeric("-inf"));
        assert_eq!(binary(&numeric_bytes(-1, 0, 3, &[1])), Err(NotUnderstood));
        assert_eq!(binary(&numeric_bytes(0, 0, 0, &[10_000])), Err(Invalid));
        assert_eq!(binary(&numeric_bytes(0, 0x1234, 0, &[1])), Err(Invalid));
        assert_eq!(binary(&numeric_bytes(0, 0, 0, &[1])[..9]), Err(Invalid));
        assert_eq!(binary(&[]), Err(Invalid));
    }

    #[test]
    fn text_parameters_follow_their_declared_type() {
        let parameter = KeyValue::from_parameter_text;
        assert_eq!(parameter(0, KeyType::Int8, "42"), Ok(KeyValue::Integer(42)));
        assert_eq!(
            parameter(23, KeyType::Int8, "42"),
            Ok(KeyValue::Integer(42))
        );
        assert_eq!(
            parameter(1700, KeyType::Int8, "42.0"),
            Ok(KeyValue::Integer(42))
        );
        assert_eq!(parameter(25, KeyType::Int8, "42"), Err(NotUnderstood));
        assert_eq!(
            parameter(25, KeyType::Varchar(None), "a"),
            Ok(KeyValue::Text("a".into()))
        );
        assert_eq!(parameter(1042, KeyType::Text, "a"), Err(NotUnderstood));
        assert_eq!(
            parameter(1114, KeyType::Timestamptz, "2000-01-01 00:00:00+00"),
            Err(NotUnderstood)
        );
    }

    fn key_types() -> impl Strategy<Value = KeyType> {
        let all = [
            KeyType::Int2,
            KeyType::Int4,
            KeyType::Int8,
            KeyType::Date,
            KeyType::Timestamp,
            KeyType::Timestamptz,
            KeyType::Text,
            KeyType::Varchar(Some(4)),
            KeyType::Bpchar,
            KeyType::Uuid,
            KeyType::Bytea,
            KeyType::Numeric(None),
            NUMERIC_5_2,
        ];
        proptest::sample::select(all.to_vec())
    }

    proptest! {
        #[test]
        fn an_integer_is_one_value_in_every_form(value: i32) {
            let expected = Ok(KeyValue::Integer(i64::from(value)));
            let literal = value.to_string();
            for key_type in [KeyType::Int4, KeyType::Int8] {
                prop_assert_eq!(&KeyValue::from_text(key_type, &literal), &expected);
                prop_assert_eq!(&KeyValue::from_number(key_type, &format!("{literal}.00")), &expected);
                prop_assert_eq!(&KeyValue::from_binary(23, key_type, &value.to_be_bytes()), &expected);
                prop_assert_eq!(&KeyValue::from_binary(20, key_type, &i64::from(value).to_be_bytes()), &expected);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(key_type in key_types(), parameter in 0_u32..3000, bytes in any::<Vec<u8>>()) {
            let _ = KeyValue::from_binary(0, key_type, &bytes);
            let _ = KeyValue::from_binary(parameter, key_type, &bytes);
            let _ = KeyValue::from_binary(1700, key_type, &bytes);
        }

        #[test]
        fn any_text_is_read_or_refused(key_type in key_types(), text in "\\PC{0,40}|[-+{}0-9a-fx\\\\ ]{0,40}") {
            let _ = KeyValue::from_text(key_type, &text);
            let _ = KeyValue::from_number(key_type, &text);
        }
    }
}

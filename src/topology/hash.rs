//! PostgreSQL's extended hash functions, bit for bit, and the slot of a key. The same expression runs in SQL on a
//! shard, so that placement can be checked, copied and filtered there. Golden vectors from a real PostgreSQL pin it.
//!
//! The algorithm is Bob Jenkins' lookup3 (public domain, <http://burtleburtle.net/bob/hash/doobs.html>) with
//! PostgreSQL's way to mix in a 64-bit seed.

use super::SlotId;
use super::key_value::{KeyType, KeyValue, NumericValue};

/// The one seed of all slots: the ASCII bytes of "pgring". Never changes: it is part of where rows live. It differs
/// from PostgreSQL's own `HASH_PARTITION_SEED`, so that ring and hash partitions do not correlate.
pub const SEED: u64 = 0x7067_7269_6e67;

/// `hash & SLOT_MASK` is the slot.
const SLOT_MASK: u64 = super::SLOT_COUNT as u64 - 1;

/// What `hash_array_extended` gives is this plus the hash of the only element. It is how SQL reaches the hash of
/// types whose own function it cannot call: date and timestamptz (declared for int4 and timestamp), bytea
/// (declared for `internal` before PostgreSQL 18).
const ARRAY_OF_ONE: u64 = 31;

/// The slot that `key` lives in.
pub fn slot(key: &KeyValue) -> SlotId {
    SlotId((hash(key) & SLOT_MASK) as u16)
}

/// The 64 bits that [`slot`] takes the lowest of.
pub fn hash(key: &KeyValue) -> u64 {
    match key {
        KeyValue::Integer(value) | KeyValue::Timestamp(value) => hash_int8(*value, SEED),
        KeyValue::Date(days) => hash_int8(i64::from(*days), SEED).wrapping_add(ARRAY_OF_ONE),
        KeyValue::Timestamptz(microseconds) => {
            hash_int8(*microseconds, SEED).wrapping_add(ARRAY_OF_ONE)
        }
        KeyValue::Text(text) | KeyValue::Character(text) => hash_bytes(text.as_bytes(), SEED),
        KeyValue::Uuid(bytes) => hash_bytes(bytes, SEED),
        KeyValue::Bytea(bytes) => hash_bytes(bytes, SEED).wrapping_add(ARRAY_OF_ONE),
        KeyValue::Numeric(value) => hash_numeric(value, SEED),
    }
}

/// The SQL expression (bigint, immutable, built-in functions only) that gives [`slot`] of a column of that type.
/// `column` goes into the text as it is: quoted where it must be.
pub fn sql_expression(column: &str, key_type: KeyType) -> String {
    format!("({} & {SLOT_MASK})", sql_hash(column, key_type))
}

fn sql_hash(column: &str, key_type: KeyType) -> String {
    let function = match key_type {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => "hashint8extended",
        KeyType::Timestamp => "timestamp_hash_extended",
        KeyType::Text | KeyType::Varchar(_) => "hashtextextended",
        KeyType::Bpchar => "hashbpcharextended",
        KeyType::Uuid => "uuid_hash_extended",
        KeyType::Numeric(_) => "hash_numeric_extended",
        KeyType::Date | KeyType::Timestamptz | KeyType::Bytea => {
            return format!("pg_catalog.hash_array_extended(ARRAY[{column}], {SEED})");
        }
    };
    format!("pg_catalog.{function}({column}, {SEED})")
}

/// `hashint8extended`; int2, int4 and int8 of one value agree.
fn hash_int8(value: i64, seed: u64) -> u64 {
    let (low, high) = (value as u32, (value >> 32) as u32);
    let word = low ^ if value >= 0 { high } else { !high };
    let mut state = State::new(4, seed);
    state.a = state.a.wrapping_add(word);
    state.finish()
}

/// `hash_numeric_extended`: the base-10000 digits without outer zeros, and the weight; the sign does not count.
fn hash_numeric(value: &NumericValue, seed: u64) -> u64 {
    match value {
        NumericValue::NaN | NumericValue::Infinity { .. } => seed,
        NumericValue::Finite { digits, .. } if digits.is_empty() => seed.wrapping_sub(1),
        NumericValue::Finite { weight, digits, .. } => {
            let bytes: Vec<u8> = digits
                .iter()
                .flat_map(|digit| digit.to_le_bytes())
                .collect();
            hash_bytes(&bytes, seed) ^ i64::from(*weight) as u64
        }
    }
}

/// `hash_bytes_extended` of a little-endian machine, which is what PostgreSQL runs on.
pub fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut state = State::new(bytes.len() as u32, seed);
    let mut blocks = bytes.chunks_exact(12);
    for block in &mut blocks {
        state.add(word(&block[..4]), word(&block[4..8]), word(&block[8..]));
        state.mix();
    }
    let rest = blocks.remainder();
    let part = |from: usize, to: usize| word(rest.get(from..rest.len().min(to)).unwrap_or(&[]));
    // The lowest byte of the last word is the length's.
    state.add(part(0, 4), part(4, 8), part(8, 12) << 8);
    state.finish()
}

/// Up to four bytes as a little-endian word.
fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(length: u32, seed: u64) -> Self {
        let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
        let mut state = Self {
            a: start,
            b: start,
            c: start,
        };
        if seed != 0 {
            state.add((seed >> 32) as u32, seed as u32, 0);
            state.mix();
        }
        state
    }

    fn add(&mut self, a: u32, b: u32, c: u32) {
        self.a = self.a.wrapping_add(a);
        self.b = self.b.wrapping_add(b);
        self.c = self.c.wrapping_add(c);
    }

    /// lookup3's reversible mix of three words.
    fn mix(&mut self) {
        let Self {
            mut a,
            mut b,
            mut c,
        } = *self;
        for (first, second, third) in [(4, 6, 8), (16, 19, 4)] {
            a = a.wrapping_sub(c) ^ c.rotate_left(first);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(second);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(third);
            b = b.wrapping_add(a);
        }
        *self = Self { a, b, c };
    }

    /// lookup3's final mix; the result is `b` and `c`.
    fn finish(self) -> u64 {
        let Self {
            mut a,
            mut b,
            mut c,
        } = self;
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        c = (c ^ b).wrapping_sub(b.rotate_left(24));
        u64::from(b) << 32 | u64::from(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTORS: &str = include_str!("hash_vectors.txt");
    const VECTORS_SQL: &str = include_str!("hash_vectors.sql");

    /// The type as it is in `hash_vectors.txt`.
    fn key_type(name: &str) -> KeyType {
        let type_name = name.replace('_', " ");
        let base = type_name.split('(').next().unwrap();
        let type_oid = match base {
            "smallint" => 21,
            "integer" => 23,
            "bigint" => 20,
            "date" => 1082,
            "timestamp without time zone" => 1114,
            "timestamp with time zone" => 1184,
            "text" => 25,
            "character varying" => 1043,
            "character" => 1042,
            "uuid" => 2950,
            "bytea" => 17,
            "numeric" => 1700,
            _ => panic!("{name}"),
        };
        KeyType::of(type_oid, &type_name).unwrap()
    }

    fn vectors() -> impl Iterator<Item = (KeyType, String, i64)> {
        VECTORS.lines().map(|line| {
            let [name, hex, hash] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes = (0..hex.len()).step_by(2).map(byte).collect();
            (
                key_type(name),
                String::from_utf8(bytes).unwrap(),
                hash.parse().unwrap(),
            )
        })
    }

    #[test]
    fn hashes_are_those_of_postgresql() {
        let mut count = 0;
        for (key_type, text, expected) in vectors() {
            let key = KeyValue::from_text(key_type, &text)
                .unwrap_or_else(|error| panic!("{key_type:?} {text:?}: {error}"));
            assert_eq!(hash(&key) as i64, expected, "{key_type:?} {text:?}");
            assert_eq!(i64::from(slot(&key).0), expected & 16383);
            count += 1;
        }
        assert!(count > 450, "{count}");
    }

    #[test]
    fn the_vectors_were_made_by_the_expression_that_shards_get() {
        for (key_type, _, _) in vectors() {
            let expression = sql_hash("v", key_type);
            assert!(
                VECTORS_SQL.contains(&format!("       {expression}\n")),
                "{expression}"
            );
        }
        assert_eq!(
            sql_expression("\"Customer\"", KeyType::Int4),
            "(pg_catalog.hashint8extended(\"Customer\", 123589603454567) & 16383)"
        );
    }

    #[test]
    fn integers_of_all_widths_agree() {
        for (key_type, text, expected) in vectors() {
            if matches!(key_type, KeyType::Int2 | KeyType::Int4) {
                assert_eq!(
                    hash(&KeyValue::from_text(KeyType::Int8, &text).unwrap()) as i64,
                    expected
                );
            }
        }
    }

    #[test]
    fn the_seed_is_for_ever() {
        assert_eq!(SEED.to_be_bytes(), *b"\0\0pgring");
        assert_eq!(
            slot(&KeyValue::Integer(42)),
            SlotId((hash_int8(42, SEED) & 16383) as u16)
        );
    }
}

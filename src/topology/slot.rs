//! Sets of slots, and their text as PostgreSQL's int4multirange.

use super::{SLOT_COUNT, SlotId};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = SLOT_COUNT / WORD_BITS;

/// What a message shows of many ranges.
const BRIEF_RANGES: usize = 4;

/// A set of slots. Prints and reads as an int4multirange in PostgreSQL's canonical form: `{[0,5),[7,9)}`.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; WORDS]>);

/// Why a text is not a set of slots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotSetError {
    /// Not `{[a,b),…}`.
    #[error("\"{0}\" is not an int4multirange of slots such as \"{{[0,5),[7,9)}}\"")]
    Form(String),
    /// A range that is empty or goes beyond the last slot.
    #[error("\"{0}\" is not a range within [0,{SLOT_COUNT})")]
    Range(String),
}

impl SlotSet {
    /// No slot.
    pub fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// Every slot.
    pub fn full() -> Self {
        Self(Box::new([u64::MAX; WORDS]))
    }

    /// Adds a slot.
    pub fn insert(&mut self, slot: SlotId) {
        let (word, bit) = place(slot);
        self.0[word] |= bit;
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: SlotId) {
        let (word, bit) = place(slot);
        self.0[word] &= !bit;
    }

    /// Whether the slot is in.
    pub fn contains(&self, slot: SlotId) -> bool {
        let (word, bit) = place(slot);
        self.0[word] & bit != 0
    }

    /// How many slots are in.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// For a message: no more than a few ranges, and how many slots there are.
    pub fn brief(&self) -> Brief<'_> {
        Brief(self)
    }

    /// Whether none is in.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine | theirs)
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine & theirs)
    }

    /// What is in this one only.
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine & !theirs)
    }

    fn combine(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = Self::new();
        for (word, (mine, theirs)) in result.0.iter_mut().zip(self.0.iter().zip(other.0.iter())) {
            *word = combine(*mine, *theirs);
        }
        result
    }

    /// The slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = SlotId> + '_ {
        (0..SLOT_COUNT as u16)
            .map(SlotId)
            .filter(|slot| self.contains(*slot))
    }

    /// The slots as maximal ranges, ascending; the end is not included.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u16>> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            let within = |slot: &u16| self.contains(SlotId(*slot));
            let start = (next..SLOT_COUNT as u16).find(within)?;
            let end = (start..SLOT_COUNT as u16)
                .find(|slot| !within(slot))
                .unwrap_or(SLOT_COUNT as u16);
            next = end;
            Some(start..end)
        })
    }
}

fn place(slot: SlotId) -> (usize, u64) {
    (
        usize::from(slot.0) / WORD_BITS,
        1 << (usize::from(slot.0) % WORD_BITS),
    )
}

impl Default for SlotSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, range) in self.ranges().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}[{},{})", range.start, range.end)?;
        }
        f.write_str("}")
    }
}

/// A [`SlotSet`] for people: see [`SlotSet::brief`].
#[derive(Debug, Clone, Copy)]
pub struct Brief<'a>(&'a SlotSet);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slots, ranges) = (self.0, self.0.ranges().count());
        if ranges <= BRIEF_RANGES {
            return slots.fmt(f);
        }
        for range in slots.ranges().take(BRIEF_RANGES) {
            write!(f, "[{},{}), ", range.start, range.end)?;
        }
        write!(f, "… ({} in all)", slots.len())
    }
}

impl FromStr for SlotSet {
    type Err = SlotSetError;

    fn from_str(text: &str) -> Result<Self, SlotSetError> {
        let form = || SlotSetError::Form(text.to_owned());
        let inside = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .ok_or_else(form)?;
        let mut slots = Self::new();
        if inside.is_empty() {
            return Ok(slots);
        }
        let inside = inside
            .strip_prefix('[')
            .and_then(|inside| inside.strip_suffix(')'))
            .ok_or_else(form)?;
        for range in inside.split("),[") {
            let (start, end) = range.split_once(',').ok_or_else(form)?;
            let bound = |text: &str| {
                text.parse::<u16>()
                    .map_err(|_| SlotSetError::Range(format!("[{range})")))
            };
            let (start, end) = (bound(start)?, bound(end)?);
            if start >= end || usize::from(end) > SLOT_COUNT {
                return Err(SlotSetError::Range(format!("[{range})")));
            }
            slots.extend((start..end).map(SlotId));
        }
        Ok(slots)
    }
}

impl Extend<SlotId> for SlotSet {
    fn extend<I: IntoIterator<Item = SlotId>>(&mut self, slots: I) {
        slots.into_iter().for_each(|slot| self.insert(slot));
    }
}

impl FromIterator<SlotId> for SlotSet {
    fn from_iter<I: IntoIterator<Item = SlotId>>(slots: I) -> Self {
        let mut set = Self::new();
        set.extend(slots);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_multirange_reads_and_prints() {
        for text in [
            "{}",
            "{[0,5),[7,9)}",
            "{[0,16384)}",
            "{[63,65)}",
            "{[16383,16384)}",
        ] {
            assert_eq!(text.parse::<SlotSet>().unwrap().to_string(), text);
        }
        assert_eq!("{[0,16384)}".parse(), Ok(SlotSet::full()));
        assert_eq!(
            "{[0,5),[5,9)}".parse::<SlotSet>().unwrap().to_string(),
            "{[0,9)}"
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "{",
            "[0,5)",
            "{[0,5]}",
            "{(0,5)}",
            "{[,5)}",
            "{[5,5)}",
            "{[6,5)}",
            "{[0,16385)}",
            "{[-1,5)}",
            "{[0,5),}",
            "{[0,5,7)}",
            "{empty}",
        ] {
            assert!(text.parse::<SlotSet>().is_err(), "{text}");
        }
    }

    fn slots() -> impl Strategy<Value = BTreeSet<u16>> {
        let range = (0..SLOT_COUNT as u16, 1_u16..200);
        let ranges = proptest::collection::vec(range, 0..8);
        ranges.prop_map(|ranges| {
            let range =
                |(start, length): (u16, u16)| start..(start + length).min(SLOT_COUNT as u16);
            ranges.into_iter().flat_map(range).collect()
        })
    }

    fn set(slots: &BTreeSet<u16>) -> SlotSet {
        slots.iter().copied().map(SlotId).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_slot_set_is_a_set(left in slots(), right in slots()) {
            prop_assert_eq!(set(&left).len(), left.len());
            prop_assert_eq!(set(&left).is_empty(), left.is_empty());
            prop_assert_eq!(set(&left).iter().map(|slot| slot.0).collect::<BTreeSet<_>>(), left.clone());
            prop_assert_eq!(set(&left).union(&set(&right)), set(&(&left | &right)));
            prop_assert_eq!(set(&left).intersection(&set(&right)), set(&(&left & &right)));
            prop_assert_eq!(set(&left).difference(&set(&right)), set(&(&left - &right)));
            prop_assert_eq!(set(&left).to_string().parse(), Ok(set(&left)));
        }
    }
}

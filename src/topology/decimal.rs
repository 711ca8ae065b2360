//! Exact decimal numbers, as far as keys need them: read, round, turn into an integer or PostgreSQL's digits.

use super::key_value::NumericValue;

/// Characters and exponents beyond this are not understood. Far below numeric's own limits, so that nothing that
/// is accepted here overflows there.
const LENGTH_MAX: usize = 4000;

/// Why a text is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecimalError {
    /// PostgreSQL would not read it either.
    Invalid,
    /// PostgreSQL might.
    NotUnderstood,
}

/// `0.<digits> × 10^point`, digits 0 to 9, most significant first, no zero first or last. Zero has no digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    pub negative: bool,
    digits: Vec<u8>,
    point: i32,
}

impl Decimal {
    fn new(negative: bool, mut digits: Vec<u8>, point: i32) -> Self {
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        let trailing = digits.iter().rev().take_while(|digit| **digit == 0).count();
        digits.truncate(digits.len() - trailing);
        if digits.is_empty() {
            return Self {
                negative: false,
                digits,
                point: 0,
            };
        }
        Self {
            negative,
            digits,
            point: point - leading as i32,
        }
    }

    /// Reads `[sign] digits [. digits] [e [sign] digits]` without blanks around it.
    pub(super) fn parse(text: &str) -> Result<Self, DecimalError> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(unsigned) => (true, unsigned),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        // 0x1F and 1_000 are numbers since PostgreSQL 16.
        let newer = unsigned.contains('_')
            || matches!(
                unsigned.as_bytes(),
                [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]
            );
        if newer || text.len() > LENGTH_MAX {
            return Err(DecimalError::NotUnderstood);
        }
        let (mantissa, exponent) = unsigned
            .split_once(['e', 'E'])
            .map_or((unsigned, None), |(m, e)| (m, Some(e)));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
            return Err(DecimalError::Invalid);
        }
        let exponent = exponent.map_or(Ok(0), read_exponent)?;
        let digits = whole
            .bytes()
            .chain(fraction.bytes())
            .map(|byte| byte - b'0')
            .collect();
        Ok(Self::new(negative, digits, whole.len() as i32 + exponent))
    }

    /// From PostgreSQL's binary digits: `digits[0] × 10000^weight + …`, each 0 to 9999.
    pub(super) fn from_base_10000(negative: bool, weight: i32, digits: &[u16]) -> Self {
        let decimal = |digit: &u16| {
            [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|digit| digit as u8)
        };
        Self::new(
            negative,
            digits.iter().flat_map(decimal).collect(),
            (weight + 1) * 4,
        )
    }

    /// Rounded to `scale` digits after the point, half away from zero, as an assignment to numeric does.
    pub(super) fn rounded(mut self, scale: i32) -> Self {
        let kept = self.point + scale;
        if kept >= self.digits.len() as i32 {
            return self;
        }
        if kept < 0 {
            return Self {
                negative: false,
                digits: Vec::new(),
                point: 0,
            };
        }
        let kept = kept as usize;
        let up = self.digits[kept] >= 5;
        self.digits.truncate(kept);
        let mut point = self.point;
        if up {
            match self.digits.iter().rposition(|digit| *digit < 9) {
                Some(last) => {
                    self.digits.truncate(last + 1);
                    self.digits[last] += 1;
                }
                None => {
                    self.digits = vec![1];
                    point += 1;
                }
            }
        }
        Self::new(self.negative, self.digits, point)
    }

    /// Digits before the point; not above 0 for what is smaller than 1.
    pub(super) fn whole_digits(&self) -> i32 {
        if self.digits.is_empty() {
            i32::MIN
        } else {
            self.point
        }
    }

    /// Digits after the point.
    pub(super) fn fraction_digits(&self) -> i32 {
        (self.digits.len() as i32 - self.point).max(0)
    }

    /// Rounded to a whole number; None if that is beyond 64 bits.
    pub(super) fn to_integer(&self) -> Option<i64> {
        let whole = self.clone().rounded(0);
        if whole.point > 19 {
            return None;
        }
        let digit = |place: usize| i128::from(whole.digits.get(place).copied().unwrap_or(0));
        let magnitude =
            (0..whole.point.max(0) as usize).fold(0, |number, place| number * 10 + digit(place));
        i64::try_from(if whole.negative {
            -magnitude
        } else {
            magnitude
        })
        .ok()
    }

    /// As PostgreSQL holds it, without outer zero digits.
    pub(super) fn to_numeric(&self) -> NumericValue {
        if self.digits.is_empty() {
            return NumericValue::Finite {
                negative: false,
                weight: 0,
                digits: Box::default(),
            };
        }
        // Zeros in front until the point stands between two base-10000 digits.
        let weight = (self.point - 1).div_euclid(4);
        let zeros = ((weight + 1) * 4 - self.point) as usize;
        let mut decimal = vec![0; zeros];
        decimal.extend_from_slice(&self.digits);
        let digit = |four: &[u8]| {
            (0..4).fold(0, |digit, place| {
                digit * 10 + i16::from(four.get(place).copied().unwrap_or(0))
            })
        };
        let digits = decimal.chunks(4).map(digit).collect();
        NumericValue::Finite {
            negative: self.negative,
            weight,
            digits,
        }
    }
}

fn read_exponent(text: &str) -> Result<i32, DecimalError> {
    // PostgreSQL 15 lets blanks stand here, newer versions do not.
    if text.starts_with(|c: char| c.is_ascii_whitespace() || c == '\x0b') {
        return Err(DecimalError::NotUnderstood);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::Invalid);
    }
    let in_range = |exponent: &i32| exponent.unsigned_abs() as usize <= LENGTH_MAX;
    text.parse()
        .ok()
        .filter(in_range)
        .ok_or(DecimalError::NotUnderstood)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn one_number_has_one_form() {
        for text in ["1.0", "+1", "001", "1e0", "10e-1", "0.1E+1", "1.", "1.000"] {
            assert_eq!(decimal(text), decimal("1"), "{text}");
        }
        for text in ["-0", "0.000", ".0", "0e5"] {
            assert_eq!(decimal(text), decimal("0"), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_told_from_what_is_too_new() {
        for text in ["", "-", ".", "e5", "1e", "1e+", "1..2", "--1", "1 2", "१"] {
            assert_eq!(Decimal::parse(text), Err(DecimalError::Invalid), "{text}");
        }
        for text in [
            "0x1F",
            "1_000",
            "1e99999",
            "1e99999999999999999999",
            "1e 5",
            "-0b1",
        ] {
            assert_eq!(
                Decimal::parse(text),
                Err(DecimalError::NotUnderstood),
                "{text}"
            );
        }
    }

    #[test]
    fn rounding_goes_away_from_zero() {
        for (text, scale, rounded) in [
            ("1.005", 2, "1.01"),
            ("-1.005", 2, "-1.01"),
            ("1.004", 2, "1"),
            ("999.995", 2, "1000"),
            ("1250", -2, "1300"),
            ("49", -2, "0"),
            ("50", -2, "100"),
            ("0.04", 0, "0"),
            ("0.5", 0, "1"),
            ("-0.4", 0, "0"),
            ("5", 3, "5"),
            ("0.05", 1, "0.1"),
        ] {
            assert_eq!(decimal(text).rounded(scale), decimal(rounded), "{text}");
        }
    }

    #[test]
    fn whole_numbers_end_at_64_bits() {
        assert_eq!(decimal("9223372036854775807").to_integer(), Some(i64::MAX));
        assert_eq!(
            decimal("-9223372036854775808.4").to_integer(),
            Some(i64::MIN)
        );
        assert_eq!(decimal("9223372036854775807.5").to_integer(), None);
        assert_eq!(decimal("1e19").to_integer(), None);
        assert_eq!(decimal("1e4000").to_integer(), None);
        assert_eq!(decimal("1e-4000").to_integer(), Some(0));
        assert_eq!(decimal("2.5").to_integer(), Some(3));
    }

    proptest! {
        #[test]
        fn digits_of_base_10000_read_back(number in -1_000_000_000_000_i64..1_000_000_000_000, shift in -9_i32..9) {
            let decimal = decimal(&format!("{number}e{shift}"));
            let NumericValue::Finite { negative, weight, digits } = decimal.to_numeric() else { panic!("finite") };
            prop_assert!(digits.first() != Some(&0) && digits.last() != Some(&0));
            let digits: Vec<u16> = digits.iter().map(|digit| *digit as u16).collect();
            prop_assert_eq!(Decimal::from_base_10000(negative, weight, &digits), decimal);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,12}|[-+0-9.eE]{0,12}") {
            let _ = Decimal::parse(&text).map(|decimal| (decimal.to_integer(), decimal.to_numeric()));
        }
    }
}

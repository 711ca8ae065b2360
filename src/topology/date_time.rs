//! Dates and timestamps in the ISO forms that mean the same under every DateStyle and TimeZone.

/// Why a text is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DateTimeError {
    /// Not one of the plain ISO forms, or no such day.
    NotUnderstood,
    /// Beyond the type's range.
    OutOfRange,
}

use DateTimeError::{NotUnderstood, OutOfRange};

const DAY_MICROSECONDS: i64 = 86_400_000_000;
/// The first timestamp that is too late: 294277-01-01.
const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
const DATE_YEAR_MAX: i64 = 5_874_897;

/// Days since 2000-01-01; infinities are the ends of the range.
pub(super) fn date(text: &str) -> Result<i32, DateTimeError> {
    match infinity(text) {
        Some(true) => return Ok(i32::MAX),
        Some(false) => return Ok(i32::MIN),
        None => {}
    }
    let days = days(text.as_bytes())?;
    i32::try_from(days).map_err(|_| OutOfRange)
}

/// Microseconds since 2000-01-01; infinities are the ends of the range.
pub(super) fn timestamp(text: &str) -> Result<i64, DateTimeError> {
    if let Some(positive) = infinity(text) {
        return Ok(if positive { i64::MAX } else { i64::MIN });
    }
    in_range(microseconds(text)?)
}

/// As [`timestamp`], in UTC; the text must give a time and its offset.
pub(super) fn timestamptz(text: &str) -> Result<i64, DateTimeError> {
    if infinity(text).is_some() {
        return timestamp(text);
    }
    let (_, time) = text.split_once(['T', ' ']).ok_or(NotUnderstood)?;
    let at = time.find(['Z', '+', '-']).ok_or(NotUnderstood)?;
    let (local, zone) = text.split_at(text.len() - time.len() + at);
    in_range(microseconds(local)? - i128::from(offset(zone.as_bytes())?) * 1_000_000)
}

fn microseconds(text: &str) -> Result<i128, DateTimeError> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, time_of_day(time.as_bytes())?),
        None => (text, 0),
    };
    Ok(i128::from(days(date.as_bytes())?) * i128::from(DAY_MICROSECONDS) + i128::from(time))
}

fn in_range(microseconds: i128) -> Result<i64, DateTimeError> {
    let microseconds = i64::try_from(microseconds).map_err(|_| OutOfRange)?;
    if microseconds < TIMESTAMP_END {
        Ok(microseconds)
    } else {
        Err(OutOfRange)
    }
}

fn infinity(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("infinity") {
        return Some(true);
    }
    text.eq_ignore_ascii_case("-infinity").then_some(false)
}

/// `YYYY-MM-DD`, the year of 4 to 7 digits and not 0.
fn days(text: &[u8]) -> Result<i64, DateTimeError> {
    let split = text
        .len()
        .checked_sub(6)
        .filter(|year| (4..=7).contains(year))
        .ok_or(NotUnderstood)?;
    let (year, rest) = text.split_at(split);
    let &[b'-', m1, m2, b'-', d1, d2] = rest else {
        return Err(NotUnderstood);
    };
    let (year, month, day) = (number(year)?, number(&[m1, m2])?, number(&[d1, d2])?);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_of_month(year, month) {
        return Err(NotUnderstood);
    }
    if year > DATE_YEAR_MAX {
        return Err(OutOfRange);
    }
    Ok(days_from_civil(year, month, day))
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 2000-01-01 of the proleptic Gregorian calendar: years start in March, so that leap days come last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let years = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    years * 365 + years / 4 - years / 100 + years / 400 + day_of_year - 730_425
}

/// `HH:MM[:SS[.ffffff]]` in microseconds.
fn time_of_day(text: &[u8]) -> Result<i64, DateTimeError> {
    let (clock, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], Some(&text[point + 1..])),
        None => (text, None),
    };
    let (hour, minute, second) = clock_of(clock)?;
    let microsecond = match fraction {
        None => 0,
        Some(digits) if clock.len() == 8 && (1..=6).contains(&digits.len()) => {
            number(digits)? * 10_i64.pow(6 - digits.len() as u32)
        }
        Some(_) => return Err(NotUnderstood),
    };
    if hour > 23 {
        return Err(NotUnderstood);
    }
    Ok(((hour * 60 + minute) * 60 + second) * 1_000_000 + microsecond)
}

/// `Z` or a signed `HH`, `HHMM`, `HH:MM`, `HH:MM:SS`, in seconds east.
fn offset(text: &[u8]) -> Result<i64, DateTimeError> {
    let (sign, clock) = match text {
        b"Z" => return Ok(0),
        [b'+', clock @ ..] => (1, clock),
        [b'-', clock @ ..] => (-1, clock),
        _ => return Err(NotUnderstood),
    };
    let (hour, minute, second) = match clock {
        &[h1, h2] => (number(&[h1, h2])?, 0, 0),
        &[h1, h2, m1, m2] => clock_of(&[h1, h2, b':', m1, m2])?,
        clock => clock_of(clock)?,
    };
    if hour > 15 {
        return Err(NotUnderstood);
    }
    Ok(sign * ((hour * 60 + minute) * 60 + second))
}

/// `HH:MM[:SS]`, minutes and seconds below 60.
fn clock_of(text: &[u8]) -> Result<(i64, i64, i64), DateTimeError> {
    let (hour, minute, second) = match text {
        [h1, h2, b':', m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?, 0),
        [h1, h2, b':', m1, m2, b':', s1, s2] => (
            number(&[*h1, *h2])?,
            number(&[*m1, *m2])?,
            number(&[*s1, *s2])?,
        ),
        _ => return Err(NotUnderstood),
    };
    if minute > 59 || second > 59 {
        return Err(NotUnderstood);
    }
    Ok((hour, minute, second))
}

/// Up to seven ASCII digits.
fn number(digits: &[u8]) -> Result<i64, DateTimeError> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(NotUnderstood);
    }
    Ok(digits
        .iter()
        .fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_count_from_2000() {
        assert_eq!(date("2000-01-01"), Ok(0));
        assert_eq!(date("1999-12-31"), Ok(-1));
        assert_eq!(date("2000-03-01"), Ok(60));
        assert_eq!(date("0001-01-01"), Ok(-730_119));
        assert_eq!(date("5874897-12-31"), Ok(2_145_031_948));
        assert_eq!(date("5874898-01-01"), Err(OutOfRange));
        assert_eq!(date("-InFiNiTy"), Ok(i32::MIN));
    }

    #[test]
    fn an_offset_is_needed_and_taken_off() {
        assert_eq!(timestamptz("2000-01-01 05:30:00+05:30"), Ok(0));
        assert_eq!(timestamptz("1999-12-31T16:00:00.000001-0800"), Ok(1));
        assert_eq!(timestamptz("2000-01-01 00:00Z"), Ok(0));
        assert_eq!(timestamptz("2000-01-01 00:00:01+00"), Ok(1_000_000));
        assert_eq!(timestamptz("2000-01-01 00:00:00"), Err(NotUnderstood));
        assert_eq!(timestamptz("2000-01-01"), Err(NotUnderstood));
        assert_eq!(timestamptz("294276-12-31 23:59:59-01"), Err(OutOfRange));
    }

    #[test]
    fn what_depends_on_settings_is_not_understood() {
        for text in [
            "01/02/2003",
            "2003-1-2",
            "20030102",
            "99-01-02",
            "now",
            "today",
            "epoch",
            "2003-02-29",
            "0000-01-01",
            "",
            "2003-01-02 BC",
            "2003-01-02 24:00:00",
            "2003-01-02 10:00:60",
            "2003-01-02 10:00:00.1234567",
            "2003-01-02 10:00:00+01",
            "2003-01-02 10:00:00.",
            "2003-01-02 10:00.5",
            "2003-01-02  10:00",
            "2003-13-01",
            "é003-01-02",
        ] {
            assert_eq!(timestamp(text), Err(NotUnderstood), "{text}");
        }
    }

    proptest! {
        #[test]
        fn each_day_follows_the_one_before(year in 1_i64..12_000, month in 1_i64..=12, day in 1_i64..=31) {
            let day = day.min(days_of_month(year, month));
            let (year_after, month_after, day_after) = match (month, day == days_of_month(year, month)) {
                (_, false) => (year, month, day + 1),
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
            };
            let read = |year, month, day| date(&format!("{year:04}-{month:02}-{day:02}")).unwrap();
            prop_assert_eq!(read(year_after, month_after, day_after), read(year, month, day) + 1);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}|[-+:.TZ 0-9]{0,30}") {
            let _ = (date(&text), timestamp(&text), timestamptz(&text));
        }
    }
}

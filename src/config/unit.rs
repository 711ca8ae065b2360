//! Sizes and durations as the files write them: `"64MB"`, `"15s"`.

use std::time::Duration;

/// Reads `"250ms"`, `"5s"`, `"10min"`, `"1h"`, `"1d"`.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => {
            return Err(format!(
                "\"{text}\" is not a duration such as \"250ms\", \"5s\", \"10min\" or \"1h\""
            ));
        }
    };
    let count: u64 = number
        .parse()
        .map_err(|_| format!("\"{text}\" has no whole number before its unit"))?;
    let total = count
        .checked_mul(milliseconds)
        .ok_or_else(|| format!("\"{text}\" is too long"))?;
    Ok(Duration::from_millis(total))
}

/// Reads `"512B"`, `"64kB"`, `"64MB"`, `"1GB"`; as in PostgreSQL each unit is 1024 of the one before.
///
/// # Errors
/// What is wrong with the text.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit {
        "B" => 0,
        "kB" | "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => {
            return Err(format!(
                "\"{text}\" is not a size such as \"64kB\", \"64MB\" or \"1GB\""
            ));
        }
    };
    let count: u64 = number
        .parse()
        .map_err(|_| format!("\"{text}\" has no whole number before its unit"))?;
    count
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("\"{text}\" is too large"))
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// Prints a size in the largest unit that holds it exactly.
pub fn print_bytes(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{}GB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}kB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

/// Prints a duration in the largest unit that holds it exactly.
pub fn print_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, length) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("min", 60_000),
        ("s", 1000),
    ] {
        if milliseconds >= length && milliseconds.is_multiple_of(length) {
            return format!("{}{unit}", milliseconds / length);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_whole_number_and_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("10min"), Ok(Duration::from_secs(600)));
        assert_eq!(duration(" 1 h "), Ok(Duration::from_secs(3600)));
        for bad in [
            "5",
            "s",
            "-1s",
            "1.5s",
            "5 seconds",
            "",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(bytes("64MB"), Ok(64 << 20));
        assert_eq!(bytes("1GB"), Ok(1 << 30));
        assert_eq!(bytes("3kB"), Ok(3072));
        for bad in ["64", "64mb", "MB", "1.5GB", "99999999999999999GB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn printed_units_read_back() {
        for text in ["1GB", "64MB", "3kB", "5B", "0B"] {
            assert_eq!(print_bytes(bytes(text).unwrap()), text);
        }
        for text in ["2d", "1h", "90min", "15s", "250ms"] {
            assert_eq!(print_duration(duration(text).unwrap()), text);
        }
    }
}

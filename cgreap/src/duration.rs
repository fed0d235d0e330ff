//! Durations as they are typed (`10ms`, `1.5s`, `2m`) and as they are printed.

use std::time::Duration;

/// The units, each with its length in nanoseconds.
const UNITS: [(&str, u128); 6] = [
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest duration accepted. Far beyond any use, and short enough to be added to any clock reading.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Parses a number, with or without a fraction, and its unit. A number without a unit is refused: some tools
/// take it for seconds, others for milliseconds, and here it decides when processes are killed.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    if number.is_empty() {
        return Err("expected a number and a unit, such as 10ms, 1.5s or 2m".to_owned());
    }
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((whole, fraction)) if !whole.is_empty() && !fraction.is_empty() && !fraction.contains('.') => {
            (whole, fraction)
        }
        Some(_) => return Err(format!("`{number}` is not a number")),
    };
    if unit.is_empty() {
        return Err(format!("a unit is missing: {number}ms, {number}s or {number}m?"));
    }
    let Some(&(_, unit_nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` is no unit: us, ms, s, m and h are"));
    };

    let nanos = whole_nanos(whole, unit_nanos)
        .map(|nanos| nanos + fraction_nanos(fraction, unit_nanos))
        .filter(|&nanos| nanos <= LONGEST.as_nanos())
        .ok_or_else(|| format!("too long; {}h is the longest", LONGEST.as_secs() / 3600))?;
    // At most LONGEST, so neither part is cut short.
    Ok(Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32))
}

/// `None` if the number does not fit.
fn whole_nanos(digits: &str, unit_nanos: u128) -> Option<u128> {
    // Digits only, so a u64 is refused for its size alone, and a u64 of hours fits a u128 of nanoseconds.
    digits.parse::<u64>().ok().map(|whole| u128::from(whole) * unit_nanos)
}

/// The part after the point, rounded down to nanoseconds.
fn fraction_nanos(digits: &str, unit_nanos: u128) -> u128 {
    // 18 digits are exact to the nanosecond for the longest unit, and their product with it fits a u128.
    let digits = &digits[..digits.len().min(18)];
    let scale = 10_u128.pow(digits.len() as u32);
    digits.parse::<u128>().map_or(0, |fraction| fraction * unit_nanos / scale)
}

/// A duration as it is printed: in milliseconds below one second, in seconds from there.
pub fn human(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units() {
        for (text, nanos) in [
            ("10ms", 10_000_000),
            ("1.5s", 1_500_000_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("250us", 250_000),
            ("250µs", 250_000),
            ("0s", 0),
            ("0.001s", 1_000_000),
            ("1.5us", 1_500),
            ("0.1h", 360_000_000_000),
            ("007s", 7_000_000_000),
            ("0.0000000019s", 1),
            ("0.3333333333333333333333333333333333333333333333333333s", 333_333_333),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_refused_with_a_hint() {
        for text in ["10", "0", "1.5", "99999999999999999999999999"] {
            let hint = parse(text).unwrap_err();
            assert!(
                hint.contains("unit is missing") && hint.contains(&format!("{text}ms")),
                "{text}: {hint}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "s", "ms", "-1s", "+1s", " 1s", "1 s", "1s ", ".5s", "5.s", "1..5s", "1.2.3s", ".", "..s"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for text in ["1d", "1S", "1sec", "1ns", "1e3s", "1m30s", "1\u{0}s", "٣s", "1µ"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_bounds_are_kept_without_a_panic() {
        assert_eq!(parse("876000h"), Ok(LONGEST));
        for text in ["876001h", "876000.0000001h", "18446744073709551615h", "18446744073709551616us"] {
            assert!(parse(text).unwrap_err().starts_with("too long"), "{text}");
        }
        let endless = "9".repeat(1000);
        assert!(parse(&format!("{endless}us")).is_err());
        assert_eq!(parse(&format!("0.{endless}us")), Ok(Duration::from_nanos(999)));
        assert_eq!(parse(&format!("0.{endless}h")).map(|d| d.as_secs()), Ok(3599));
        // Every accepted duration can be added to a clock reading.
        let _ = std::time::Instant::now() + LONGEST;
    }

    #[test]
    fn durations_are_readable() {
        for (micros, expected) in [
            (0, "0.0 ms"),
            (400, "0.4 ms"),
            (12_345, "12.3 ms"),
            (1_000_000, "1.0 s"),
            (90_000_000, "90.0 s"),
        ] {
            assert_eq!(human(Duration::from_micros(micros)), expected);
        }
    }
}

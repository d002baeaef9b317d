//! Times as people and tables write them: RFC 3339 in UTC, with milliseconds. No time zones, no leap seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firsthop_core::Timestamp;
use firsthop_intake::time;

/// The machine's clock. Before 1970 it says 1970.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

const DAY_MS: u64 = 86_400_000;
/// The first moment of the year 10,000: RFC 3339 ends before it.
const END_MS: u64 = 253_402_300_800_000;

/// `2026-11-21T21:18:03.123Z`: 24 characters that sort as the times do. What lies after the year 9999 is held there.
pub(crate) fn format(time: Timestamp) -> String {
    let mut text = String::with_capacity(24);
    push(&mut text, time);
    text
}

/// [`format`] onto the end of a text.
pub(crate) fn push(out: &mut String, time: Timestamp) {
    let ms = time.as_millis().min(END_MS - 1);
    let (year, month, day) = civil(ms / DAY_MS);
    let of_day = ms % DAY_MS;
    let mut digits = |number: u64, width: u32, end: char| {
        for place in (0..width).rev() {
            out.push(char::from(b'0' + (number / 10_u64.pow(place) % 10) as u8));
        }
        out.push(end);
    };
    digits(year, 4, '-');
    digits(month, 2, '-');
    digits(day, 2, 'T');
    digits(of_day / 3_600_000, 2, ':');
    digits(of_day / 60_000 % 60, 2, ':');
    digits(of_day / 1000 % 60, 2, '.');
    digits(of_day % 1000, 3, 'Z');
}

/// Reads `2026-11-21`, `2026-11-21T21:18[:03[.123]]` with `Z`, an offset or neither (UTC then), or milliseconds since 1970.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    if text.len() > 10 && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Timestamp::from_millis);
    }
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, zone) = match rest.rfind(['Z', 'z', '+', '-']) {
        _ if rest.is_empty() => ("T00:00:00", "Z"),
        Some(at) => rest.split_at(at),
        None => (rest, "Z"),
    };
    let seconds = if clock.len() == 6 { ":00" } else { "" };
    let ms = time::parse(&format!("{date}{clock}{seconds}{zone}"))?;
    u64::try_from(ms).ok().map(Timestamp::from_millis)
}

/// A duration: `250ms`, `10s`, `5m`, `2h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => DAY_MS,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_millis)
}

/// A duration in the largest unit that says it whole.
pub(crate) fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".into();
    }
    for (unit, name) in [(u128::from(DAY_MS), "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms >= unit && ms.is_multiple_of(unit) {
            return format!("{}{name}", ms / unit);
        }
    }
    format!("{ms}ms")
}

/// Year, month and day of a day since 1970-01-01: Hinnant's `civil_from_days`, for days that are not negative.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year_of_era, if month < 10 { month + 3 } else { month - 9 });
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_formatted_parses_to_itself(ms in 0..END_MS) {
            let time = Timestamp::from_millis(ms);
            prop_assert_eq!(parse(&format(time)), Some(time));
        }

        #[test]
        fn text_sorts_as_time_does(a in 0..END_MS, b in 0..END_MS) {
            let text = |ms| format(Timestamp::from_millis(ms));
            prop_assert_eq!(text(a).cmp(&text(b)), a.cmp(&b));
        }

        #[test]
        fn no_text_panics(text in "\\PC*|[0-9]{4}-[0-9]{2}-[0-9]{2}[T0-9:.+Z-]*") {
            let _ = parse(&text);
            let _ = parse_duration(&text);
        }
    }

    #[test]
    fn known_moments() {
        let at = |ms| Some(Timestamp::from_millis(ms));
        assert_eq!(format(Timestamp::from_millis(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse("2023-11-14T22:13:20.123Z"), at(1_700_000_000_123));
        assert_eq!(parse("2023-11-14T23:13:20.1234+01:00"), at(1_700_000_000_123));
        assert_eq!(parse("2023-11-14 22:13"), at(1_699_999_980_000));
        assert_eq!(parse("2024-02-29"), at(1_709_164_800_000));
        assert_eq!(parse("1700000000123"), at(1_700_000_000_123));
        for bad in ["", "2023-02-29", "2023-13-01", "1969-12-31", "2023-11-14T25:00", "2023-11-14T1", "yesterday"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("7d", 604_800_000)] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(text), Some(duration));
            assert_eq!(format_duration(duration), text);
        }
        assert_eq!(parse_duration("10"), None);
        assert_eq!(parse_duration("99999999999999999d"), None);
    }
}

//! Timestamps as people and messages write them: RFC 3339, in milliseconds since the Unix epoch; and the calendar under it.

/// Reads a date and time with its zone (RFC 3339 §5.6), to the millisecond; finer digits are cut. A leap second is the
/// last millisecond of its minute.
///
/// A time without a zone is none: to guess one would move the event by hours and nobody would know.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    let number = |at: usize, len: usize| -> Option<i64> {
        let digits = b.get(at..at + len)?;
        digits.iter().try_fold(0, |n, &d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
    };
    let is = |at: usize, set: &[u8]| b.get(at).is_some_and(|c| set.contains(c));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (millis, zone_at) = fraction(b)?;
    let offset = match b.get(zone_at)? {
        b'Z' | b'z' if b.len() == zone_at + 1 => 0,
        sign @ (b'+' | b'-') if b.len() == zone_at + 6 && is(zone_at + 3, b":") => {
            let (hours, minutes) = (number(zone_at + 1, 2)?, number(zone_at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = (hours * 60 + minutes) * 60_000;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let in_minute = if second == 60 { 59_999 } else { second * 1000 + millis };
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60_000 + in_minute - offset)
}

/// The milliseconds of a fraction, and where what follows it begins.
fn fraction(b: &[u8]) -> Option<(i64, usize)> {
    if b.get(19) != Some(&b'.') {
        return Some((0, 19));
    }
    let digits = b[20..].iter().take_while(|d| d.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let millis = (0..3).fold(0, |n, i| n * 10 + if i < digits { i64::from(b[20 + i] - b'0') } else { 0 });
    Some((millis, 20 + digits))
}

/// Days of a month, 1 to 12, in the proleptic Gregorian calendar.
#[must_use]
pub const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that the leap day is
/// a year's last.
#[must_use]
pub const fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_others_compute() {
        // Checked with `date -u -d … +%s%3N`.
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2012-12-02T00:30:08.276Z", 1_354_408_208_276),
            ("2015-02-23T22:28:55.387+01:00", 1_424_726_935_387),
            ("2024-02-29T23:59:59.9999999-08:00", 1_709_279_999_999),
            ("2000-02-29t12:00:00.5z", 951_825_600_500),
            ("1969-12-31 23:59:59.999Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_799_999),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
        ] {
            assert_eq!(parse(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp() {
        for text in [
            "",
            "2012",
            "2012-12-02",
            "2012-12-02T00:30:08",
            "2012-12-02T00:30:08.Z",
            "2012-12-02T00:30:08.276",
            "2012-12-02T00:30:08.276+0100",
            "2012-12-02T00:30:08.276+24:00",
            "2012-12-02T00:30:08.276+01:00x",
            "2012-12-02T00:30:08ZZ",
            "2012-13-02T00:30:08Z",
            "2012-00-02T00:30:08Z",
            "2013-02-29T00:30:08Z",
            "2012-12-32T00:30:08Z",
            "2012-12-02T24:30:08Z",
            "2012-12-02T00:60:08Z",
            "2012-12-02T00:30:61Z",
            "2012/12/02T00:30:08Z",
            "+012-12-02T00:30:08Z",
            "Sun, 02 Dec 2012 00:30:08 GMT",
            "1354408208276",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        /// A day later is 86,400,000 ms later, for every day of the calendar's four hundred years.
        #[test]
        fn days_follow_one_another(year in 0..9999i64, month in 1..=12i64, day in 1..=31i64) {
            prop_assume!(day <= days_in(year, month));
            let (y, m, d) = match (day == days_in(year, month), month) {
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
            let text = |y, m, d| format!("{y:04}-{m:02}-{d:02}T12:34:56.789Z");
            prop_assert_eq!(parse(&text(y, m, d)).unwrap() - parse(&text(year, month, day)).unwrap(), 86_400_000);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}

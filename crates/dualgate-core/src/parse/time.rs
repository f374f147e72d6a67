//! Times as Kubernetes writes them: RFC 3339.

/// Seconds since 1970, as Kubernetes' `Time`.
pub fn rfc3339(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Microseconds since 1970, as Kubernetes' `MicroTime`.
pub fn rfc3339_micros(micros: i64) -> String {
    let mut text = rfc3339(micros.div_euclid(1_000_000));
    text.pop();
    format!("{text}.{:06}Z", micros.rem_euclid(1_000_000))
}

/// RFC 3339 to seconds since 1970; a fraction is dropped.
pub fn seconds(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, what: &[u8]| bytes.get(at).is_some_and(|b| what.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut zone = 19;
    if is(zone, b".") {
        let fraction = bytes[zone + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        zone += 1 + fraction;
        (fraction > 0).then_some(())?;
    }
    let offset = match bytes.get(zone)? {
        b'Z' | b'z' => (zone + 1 == bytes.len()).then_some(0)?,
        sign @ (b'+' | b'-') if is(zone + 3, b":") && zone + 6 == bytes.len() => {
            let (hours, minutes) = (digits(zone + 1, zone + 3)?, digits(zone + 4, zone + 6)?);
            (hours <= 23 && minutes <= 59).then_some(())?;
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// In the proleptic Gregorian calendar: years start in March, so that the leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_since_1970`].
fn civil(days: i64) -> (i64, i64, i64) {
    let since_march_0000 = days + 719_468;
    let (era, of_era) = (since_march_0000.div_euclid(146_097), since_march_0000.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2026-11-22T09:30:00Z", Some(1_795_339_800)),
            ("2026-11-22T10:30:00+01:00", Some(1_795_339_800)),
            ("2026-11-22T09:30:00.123456Z", Some(1_795_339_800)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-22", None),
            ("2026-11-22T09:30:00", None),
            ("2026-11-22T09:30:00.Z", None),
            ("2026-11-22T09:30:00Zx", None),
            ("", None),
        ] {
            assert_eq!(super::seconds(text), seconds, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same_time() {
        assert_eq!(rfc3339(951_825_600), "2000-02-29T12:00:00Z");
        assert_eq!(rfc3339_micros(1_795_339_800_000_042), "2026-11-22T09:30:00.000042Z");
        assert_eq!(rfc3339_micros(-1), "1969-12-31T23:59:59.999999Z");
        for days in (-200_000i64..200_000).step_by(13) {
            let time = days * 86_400 + days.rem_euclid(86_400);
            assert_eq!(super::seconds(&rfc3339(time)), Some(time));
        }
    }
}

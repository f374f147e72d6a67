//! Heads to bytes, straight into the buffer that is sent.
//!
//! What came out of a parser of this crate (or of the `http` crate) is written as it is. What comes from anywhere else,
//! configuration first of all, goes through [`try_write_field`] or a [`crate::HeaderPatch`], which refuse bytes that
//! would begin a new line.

use crate::syntax::{is_field_value, is_token, is_visible};

/// A field that would not be read back as what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The name is no token.
    #[error("malformed field name")]
    Name,
    /// The value has a control byte, such as a line end.
    #[error("control byte in a field value")]
    Value,
}

/// Writes `method SP target SP HTTP/1.1`. Both come from a parser; the target is canonical.
pub fn write_request_line(method: &str, target: &[u8], out: &mut Vec<u8>) {
    debug_assert!(is_token(method.as_bytes()) && !target.is_empty() && is_visible(target), "parsed");
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes the status line of an HTTP/1.1 response, with the phrase of the registry if there is no `reason`.
pub fn write_status_line(status: u16, reason: Option<&[u8]>, out: &mut Vec<u8>) {
    debug_assert!((100..1000).contains(&status), "three digits");
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(u64::from(status), out);
    out.push(b' ');
    match reason {
        Some(reason) if is_field_value(reason) => out.extend_from_slice(reason),
        Some(_) | None => out.extend_from_slice(reason_phrase(status).as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a field that a parser has checked.
pub fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    debug_assert!(is_token(name) && is_field_value(value), "parsed");
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a field that nobody has checked, or nothing.
pub fn try_write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
    if !is_token(name) {
        return Err(WriteError::Name);
    }
    if !is_field_value(value) {
        return Err(WriteError::Value);
    }
    write_field(name, value, out);
    Ok(())
}

/// Writes an IMF-fixdate, such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 5.6.7).
pub fn write_date(unix_seconds: u64, out: &mut Vec<u8>) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // The last second of the year 9999: the format has four digits.
    let seconds = unix_seconds.min(253_402_300_799);
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    out.extend_from_slice(DAYS[(days % 7) as usize].as_bytes());
    out.extend_from_slice(b", ");
    write_two_digits(day, out);
    out.push(b' ');
    out.extend_from_slice(MONTHS[(month - 1) as usize].as_bytes());
    out.push(b' ');
    write_decimal(year, out);
    out.push(b' ');
    write_two_digits(second_of_day / 3600, out);
    out.push(b':');
    write_two_digits(second_of_day / 60 % 60, out);
    out.push(b':');
    write_two_digits(second_of_day % 60, out);
    out.extend_from_slice(b" GMT");
}

/// Writes a number in decimal.
pub fn write_decimal(number: u64, out: &mut Vec<u8>) {
    write_digits(number, 10, out);
}

/// Writes a number in lower-case hexadecimal.
pub(crate) fn write_hexadecimal(number: u64, out: &mut Vec<u8>) {
    write_digits(number, 16, out);
}

fn write_digits(mut number: u64, base: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b"0123456789abcdef"[(number % base) as usize];
        number /= base;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

fn write_two_digits(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
}

/// Year, month and day of a day since 1970-01-01. The year is made to begin in March, so that its leap day is its last,
/// and 400 years are 146,097 days.
fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) = if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day)
}

/// The phrases of the IANA registry; empty for a status that is not in it.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_written_as_they_go_on_the_wire() {
        assert_eq!(written(|out| write_request_line("GET", b"/a?b", out)), "GET /a?b HTTP/1.1\r\n");
        assert_eq!(written(|out| write_status_line(404, None, out)), "HTTP/1.1 404 Not Found\r\n");
        assert_eq!(written(|out| write_status_line(299, Some(b"Fine"), out)), "HTTP/1.1 299 Fine\r\n");
        assert_eq!(written(|out| write_field(b"a", b"b", out)), "a: b\r\n");
    }

    #[test]
    fn a_reason_that_would_begin_a_new_line_gives_way_to_the_standard_one() {
        assert_eq!(written(|out| write_status_line(200, Some(b"x\r\nevil: 1"), out)), "HTTP/1.1 200 OK\r\n");
    }

    #[test]
    fn a_field_that_would_begin_a_new_line_is_refused_and_leaves_no_trace() {
        let mut out = Vec::new();
        for value in ["a\r\nb: c", "a\nb", "a\rb", "\0"] {
            assert_eq!(try_write_field(b"x", value.as_bytes(), &mut out), Err(WriteError::Value), "{value:?}");
        }
        for name in ["", "a b", "a:", "a\r\nb", "ä"] {
            assert_eq!(try_write_field(name.as_bytes(), b"v", &mut out), Err(WriteError::Name), "{name:?}");
        }
        assert!(out.is_empty());
    }

    #[test]
    fn a_date_is_an_imf_fixdate() {
        let date = |seconds| written(|out| write_date(seconds, out));
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(date(1_735_689_599), "Tue, 31 Dec 2024 23:59:59 GMT");
        assert_eq!(date(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn numbers_have_no_leading_zeros() {
        assert_eq!(written(|out| write_decimal(0, out)), "0");
        assert_eq!(written(|out| write_decimal(u64::MAX, out)), u64::MAX.to_string());
        assert_eq!(written(|out| write_hexadecimal(0xdead_beef, out)), "deadbeef");
    }
}

//! What a query asks of the echo backend: `?status=503&delay=2s&size=1MiB` or `?stream=5`. Other keys are left alone.

use std::time::Duration;

use hyper::StatusCode;

/// The longest `delay`.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// The largest `size`.
const MAX_SIZE: u64 = 1 << 30;
/// The most chunks of a `stream`: a minute's.
const MAX_CHUNKS: u32 = 300;

/// What a query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// The status of the answer.
    pub status: StatusCode,
    /// How long the answer is held back.
    pub delay: Duration,
    /// What the answer holds.
    pub form: Form,
}

/// What an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What was asked.
    Report,
    /// So many octets.
    Size(u64),
    /// So many chunks.
    Stream(u32),
}

impl Knobs {
    /// From the query of a request.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut knobs = Self { status: StatusCode::OK, delay: Duration::ZERO, form: Form::Report };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "status" => knobs.status = status(value)?,
                "delay" => knobs.delay = delay(value)?,
                "size" => knobs.form = Form::Size(size(value)?),
                "stream" => knobs.form = Form::Stream(chunks(value)?),
                _ => {}
            }
        }
        Ok(knobs)
    }
}

fn status(value: &str) -> Result<StatusCode, String> {
    let number = value.parse().ok().filter(|number| (200..=599).contains(number));
    number
        .and_then(|number| StatusCode::from_u16(number).ok())
        .ok_or_else(|| format!("status `{value}` is not a number from 200 to 599"))
}

fn delay(value: &str) -> Result<Duration, String> {
    let wrong = || format!("delay `{value}` is not a time up to 60s, such as `2s` or `250ms`");
    let (digits, unit) = split(value);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let delay = match unit {
        "ms" => Duration::from_millis(number),
        "s" | "" => Duration::from_secs(number),
        _ => return Err(wrong()),
    };
    if delay <= MAX_DELAY { Ok(delay) } else { Err(wrong()) }
}

fn size(value: &str) -> Result<u64, String> {
    let wrong = || format!("size `{value}` is not a size up to 1GiB, such as `1MiB` or `1000`");
    let (digits, unit) = split(value);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).filter(|size| *size <= MAX_SIZE).ok_or_else(wrong)
}

fn chunks(value: &str) -> Result<u32, String> {
    let number = value.parse().ok().filter(|number| (1..=MAX_CHUNKS).contains(number));
    number.ok_or_else(|| format!("stream `{value}` is not a number of chunks from 1 to {MAX_CHUNKS}"))
}

/// Digits and what follows them.
fn split(value: &str) -> (&str, &str) {
    value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_documented() {
        let knobs = |query| Knobs::parse(query).unwrap();
        let plain = Knobs { status: StatusCode::OK, delay: Duration::ZERO, form: Form::Report };
        assert_eq!(knobs(""), plain);
        assert_eq!(knobs("x=1&y"), plain);
        assert_eq!(
            knobs("status=503&delay=2s&size=1MiB"),
            Knobs {
                status: StatusCode::SERVICE_UNAVAILABLE,
                delay: Duration::from_secs(2),
                form: Form::Size(1024 * 1024)
            }
        );
        assert_eq!(knobs("delay=250ms").delay, Duration::from_millis(250));
        assert_eq!(knobs("stream=5").form, Form::Stream(5));
        assert_eq!(knobs("size=1GiB").form, Form::Size(MAX_SIZE));
    }

    #[test]
    fn what_is_out_of_bounds_is_said() {
        for query in [
            "status=100",
            "status=600",
            "status=x",
            "delay=61s",
            "delay=99999999999999999999s",
            "delay=1m",
            "size=2GiB",
            "size=18014398509481984KiB",
            "size=-1",
            "stream=0",
            "stream=301",
        ] {
            let (_, value) = query.split_once('=').unwrap();
            let why = Knobs::parse(query).unwrap_err();
            assert!(why.contains(&format!("`{value}`")), "{query}: {why}");
        }
    }
}

//! Durations as Go writes them: `1m30s`, `1.5h`, `500ms`.
//! See <https://pkg.go.dev/time#ParseDuration>.

/// A text that is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid duration {0:?}")]
pub struct DurationError(pub String);

impl DurationError {
    /// Returns what a duration looks like.
    pub fn hint(&self) -> Option<String> {
        Some("a duration is numbers with units (ns, us, ms, s, m, h), as in 1m30s".to_owned())
    }
}

/// Returns a duration in nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let error = || DurationError(text.chars().take(100).collect());
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if digits == "0" {
        return Ok(0);
    }
    if digits.is_empty() {
        return Err(error());
    }
    let mut rest = digits;
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = take_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => take_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(error());
        }
        let unit_length = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit: i128 = match &after[..unit_length] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3600 * 1_000_000_000,
            _ => return Err(error()),
        };
        // Digits below a nanosecond don't count, and 10^15 of them at most fit i128.
        let fraction = &fraction[..fraction.len().min(15)];
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            i128::from(whole.parse::<i64>().map_err(|_| error())?)
        };
        let part: i128 = fraction.parse().unwrap_or(0);
        total += whole * unit + part * unit / 10_i128.pow(fraction.len() as u32);
        if total > i128::from(i64::MAX) {
            return Err(error());
        }
        rest = &after[unit_length..];
    }
    let total = i64::try_from(total).map_err(|_| error())?;
    Ok(if negative { -total } else { total })
}

fn take_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("500ms", Some(500_000_000)),
            ("3us", Some(3_000)),
            ("3µs", Some(3_000)),
            ("-1s", Some(-1_000_000_000)),
            ("0.3333333333333333333s", Some(333_333_333)),
            ("", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("5 s", None),
            ("1d", None),
            ("9999999999h", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text).ok(), expected, "{text}");
        }
    }
}

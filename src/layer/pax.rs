//! PAX records: `LENGTH KEY=VALUE\n`, where the length alone says where a record ends, since a
//! value may hold newlines. See pax(1), "pax Extended Header".

use super::stat::Timestamp;

/// The longest extended header that is taken.
pub(super) const MAX_HEADER: u64 = 1 << 20;
/// The prefix of keys that hold extended attributes as they are.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// A key and its value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// Returns the records of an extended header, in order.
pub(super) fn parse(mut data: &[u8]) -> Result<Vec<Record>, &'static str> {
    let mut records = Vec::new();
    // Some writers pad with NUL bytes.
    while !data.is_empty() && data.iter().any(|&b| b != 0) {
        let space = data
            .iter()
            .take(20)
            .position(|&b| b == b' ')
            .ok_or("a PAX record has no length")?;
        let length = decimal(&data[..space]).ok_or("a PAX record has no length")?;
        let length = usize::try_from(length).map_err(|_| "a PAX record is too long")?;
        if length <= space + 1 || length > data.len() {
            return Err("the length of a PAX record is wrong");
        }
        let (record, rest) = data.split_at(length);
        let record = record[space + 1..]
            .strip_suffix(b"\n")
            .ok_or("a PAX record does not end where its length says")?;
        let equals = record
            .iter()
            .position(|&b| b == b'=')
            .ok_or("a PAX record has no value")?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return Err("a PAX record has a malformed key");
        }
        records.push((key.to_vec(), value.to_vec()));
        data = rest;
    }
    Ok(records)
}

/// Appends a record.
pub(super) fn append(header: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = rest + digits(rest);
    if digits(length) != digits(rest) {
        length = rest + digits(length);
    }
    header.extend(length.to_string().into_bytes());
    header.push(b' ');
    header.extend(key);
    header.push(b'=');
    header.extend(value);
    header.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// Returns a number of decimal digits only.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Returns a time such as `-1.5`. What is finer than nanoseconds is cut off.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|&b| b == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    let mut nanoseconds = 0;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    for place in 0..9 {
        let digit = fraction
            .get(place)
            .map_or(0, |digit| u32::from(digit - b'0'));
        nanoseconds = nanoseconds * 10 + digit;
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp {
            seconds,
            nanoseconds,
        },
        (true, 0) => Timestamp::from_seconds(-seconds),
        (true, _) => Timestamp {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_in_a_value_smuggles_in_no_record() {
        let mut header = Vec::new();
        let value = b"x\n21 linkpath=/etc/shadow\n";
        append(&mut header, b"SCHILY.xattr.user.a", value);
        append(&mut header, b"path", b"file");
        let records = parse(&header).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].1, value);
        assert_eq!(records[1], (b"path".to_vec(), b"file".to_vec()));
    }

    #[test]
    fn record_lengths_count_their_own_digits() {
        for size in [
            0, 1, 3, 90, 91, 92, 93, 94, 95, 980, 990, 991, 992, 993, 9990, 9989,
        ] {
            let mut header = Vec::new();
            let value = vec![b'v'; size];
            append(&mut header, b"k", &value);
            assert_eq!(parse(&header).unwrap(), [(b"k".to_vec(), value)]);
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"path=x\n"[..],
            b"9999 path=x\n",
            b"11 path=abc\n",
            b"0 path=x\n",
            b"2 \n",
            b"7 path\n",
            b"5 =x\n",
            b"-9 path=x\n",
            b"18446744073709551616 path=x\n",
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_round_down() {
        let time = |text: &str| time(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(time("1.5"), Some((1, 500_000_000)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("7.1234567899"), Some((7, 123_456_789)));
        assert_eq!(time("-3"), Some((-3, 0)));
        assert_eq!(time("3."), Some((3, 0)));
        for bad in ["", "-", ".5", "1e9", "1.x", "99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}

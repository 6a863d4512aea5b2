//! From the bytes of a Dockerfile to its text.

/// Bytes that are no text.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Windows programs write it with a byte order mark.
    #[error("the file is UTF-16 text, not UTF-8")]
    Utf16,
    /// Latin-1, or no text at all.
    #[error("line {0} is not UTF-8 text")]
    Line(usize),
}

/// Returns the text of a Dockerfile. Comments in another encoding do no harm: what is no UTF-8
/// in them is replaced.
///
/// # Errors
/// It is no UTF-8 where that matters.
pub fn decode(bytes: Vec<u8>) -> Result<String, DecodeError> {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let bytes = error.as_bytes();
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(DecodeError::Utf16);
    }
    let mut text = String::with_capacity(bytes.len());
    for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        match std::str::from_utf8(line) {
            Ok(line) => text.push_str(line),
            Err(_) if line.trim_ascii_start().starts_with(b"#") => {
                text.push_str(&String::from_utf8_lossy(line));
            }
            Err(_) => return Err(DecodeError::Line(index + 1)),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_comments_may_be_in_another_encoding() {
        let cases: [(&[u8], Result<&str, DecodeError>); 6] = [
            ("FROM é".as_bytes(), Ok("FROM é")),
            (b"# caf\xe9\nFROM x", Ok("# caf\u{fffd}\nFROM x")),
            (b"FROM x\n \t# \xe9\n", Ok("FROM x\n \t# \u{fffd}\n")),
            (b"FROM x\nENV A=\xe9", Err(DecodeError::Line(2))),
            (b"FROM x # \xe9", Err(DecodeError::Line(1))),
            (b"\xff\xfeF\0R\0", Err(DecodeError::Utf16)),
        ];
        for (bytes, expected) in cases {
            let expected = expected.map(str::to_owned);
            assert_eq!(decode(bytes.to_vec()), expected, "{bytes:?}");
        }
    }
}

//! Maps of sparse files in archives: GNU's old one in the header, and the three of its PAX
//! formats. See the tar manual, "Storing Sparse Files".

use super::pax;

/// The most segments that are taken.
pub(super) const MAX_SEGMENTS: usize = 1 << 20;

/// A run of bytes that the archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it lies in the file.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

/// Returns `map` without empty segments, if it is in order and within a file of `size` bytes,
/// and accounts for all of the `stored` bytes.
pub(super) fn check(
    map: Vec<Segment>,
    size: u64,
    stored: u64,
) -> Result<Vec<Segment>, &'static str> {
    let (mut end, mut total) = (0u64, 0u64);
    for segment in &map {
        if segment.offset < end {
            return Err("its sparse map is out of order");
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .filter(|end| *end <= size)
            .ok_or("its sparse map goes past the end of the file")?;
        total += segment.length;
    }
    if total != stored {
        return Err("its sparse map does not match its data");
    }
    Ok(map.into_iter().filter(|s| s.length > 0).collect())
}

/// Returns the map of alternating offsets and lengths.
pub(super) fn from_numbers(numbers: &[u64]) -> Result<Vec<Segment>, &'static str> {
    if !numbers.len().is_multiple_of(2) {
        return Err("its sparse map is malformed");
    }
    if numbers.len() / 2 > MAX_SEGMENTS {
        return Err("its sparse map is too long");
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| Segment {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

/// Returns the map of format 0.1: numbers between commas.
pub(super) fn from_commas(text: &[u8]) -> Result<Vec<Segment>, &'static str> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Option<Vec<u64>> = text.split(|&b| b == b',').map(pax::decimal).collect();
    from_numbers(&numbers.ok_or("its sparse map is malformed")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_maps_are_refused() {
        let map = |text: &str| from_commas(text.as_bytes());
        let checked = |text: &str, stored| check(map(text).unwrap(), 100, stored);
        assert_eq!(checked("0,10,50,5,100,0", 15).unwrap().len(), 2);
        assert!(checked("50,5,0,10", 15).is_err());
        assert!(checked("0,10,5,10", 20).is_err());
        assert!(checked("99,2", 2).is_err());
        assert!(checked("18446744073709551615,2", 2).is_err());
        assert!(checked("0,10", 9).is_err());
        assert!(map("1,2,3").is_err());
        assert!(map("a,2").is_err());
        assert!(map("").unwrap().is_empty());
    }
}

//! "Did you mean": the nearest of the names that would have been right.

/// Longer words are not compared: the cost is quadratic and nobody mistypes them.
const MAX_LENGTH: usize = 100;

/// Returns the option that differs least from `wanted`, if it differs by little.
/// Letter case does not count; an exact match is no suggestion.
pub fn closest<'a>(wanted: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = wanted.chars().flat_map(char::to_lowercase).collect();
    if wanted.is_empty() || wanted.len() > MAX_LENGTH {
        return None;
    }
    let limit = match wanted.len() {
        1..=2 => 1,
        _ => 2,
    };
    options
        .into_iter()
        .filter_map(|option| {
            let chars: Vec<char> = option.chars().flat_map(char::to_lowercase).collect();
            if chars.len() > MAX_LENGTH || chars.len().abs_diff(wanted.len()) > limit {
                return None;
            }
            let distance = distance(&wanted, &chars);
            (distance <= limit && distance < chars.len()).then_some((distance, option))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, option)| option)
}

/// Returns `did you mean X?` for the option nearest to `wanted`.
pub fn did_you_mean<'a>(
    wanted: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    closest(wanted, options).map(|option| format!("did you mean {option}?"))
}

/// The optimal string alignment distance: insertions, deletions, substitutions and swaps
/// of neighbours count one each.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let names = ["COPY", "CMD", "RUN", "WORKDIR", "ENTRYPOINT"];
        let cases = [
            ("COYP", Some("COPY")),
            ("copyy", Some("COPY")),
            ("RNU", Some("RUN")),
            ("WORKDRI", Some("WORKDIR")),
            ("ENTRYPIONT", Some("ENTRYPOINT")),
            ("FOOBAR", None),
            ("X", None),
            ("", None),
        ];
        for (wanted, expected) in cases {
            assert_eq!(closest(wanted, names), expected, "{wanted}");
        }
        assert_eq!(closest(&"a".repeat(10_000), names), None);
        assert_eq!(
            did_you_mean("mont", ["mount", "network"]).as_deref(),
            Some("did you mean mount?")
        );
    }
}

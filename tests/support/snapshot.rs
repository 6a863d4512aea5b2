//! Output with what differs from run to run made equal, so that it can be compared with a
//! literal: what a person sees is part of the product.

/// Returns `text` with each of the given values replaced by its name, the times of steps and
/// transfers by zeros (`#4 0.000 out`, `DONE 0.0s`), and `26 years ago` by `NN years ago`.
pub fn settled(text: &str, names: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (value, name) in names {
        text = text.replace(value, name);
    }
    let ends_in_newline = text.ends_with('\n');
    let lines: Vec<String> = text.lines().map(settled_line).collect();
    let end = if ends_in_newline { "\n" } else { "" };
    lines.join("\n") + end
}

fn settled_line(line: &str) -> String {
    if let Some(at) = line.find(" years ago") {
        let digits = line[..at]
            .bytes()
            .rev()
            .take_while(u8::is_ascii_digit)
            .count();
        return format!(
            "{}{}{}",
            &line[..at - digits],
            "N".repeat(digits),
            &line[at..]
        );
    }
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let is_step = words[0].strip_prefix('#').is_some_and(is_number);
    let is_transfer = ["pull", "push", "extract"].contains(&words[0].as_str());
    if is_step
        && words
            .get(1)
            .is_some_and(|word| is_number(word) && word.contains('.'))
    {
        words[1] = "0.000".to_owned();
    } else if is_step || is_transfer {
        for word in &mut words {
            if word.strip_suffix('s').is_some_and(is_number) {
                *word = "0.0s".to_owned();
            }
        }
    }
    words.join(" ")
}

fn is_number(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Returns the lines in order, for output whose order is that of a race.
pub fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

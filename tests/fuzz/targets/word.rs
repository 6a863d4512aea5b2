//! The expander: every word ends in a bounded text or an error, whatever the variables hold.
#![no_main]

use kiln::dockerfile::{Span, Word};
use libfuzzer_sys::fuzz_target;

// The first line of an input is the value of a variable, the rest is the word.
fuzz_target!(|input: &str| {
    let (value, text) = input.split_once('\n').unwrap_or(("abc", input));
    let escape = if value.ends_with('`') { '`' } else { '\\' };
    let word = Word {
        text: text.to_owned(),
        span: Span::default(),
    };
    let lookup = |name: &str| match name {
        "A" => Some(value.to_owned()),
        "E" => Some(String::new()),
        _ => None,
    };
    let whole = word.expand(&lookup, escape);
    if let Ok(expanded) = &whole {
        assert!(expanded.len() <= 16 << 20, "{}", expanded.len());
    }
    // Splitting is no other expansion: both work or neither, and no word has a blank that is
    // not in the whole.
    let split = word.expand_words(&lookup, escape);
    match (&whole, &split) {
        (Ok(whole), Ok(words)) => {
            let bare = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(bare(whole), bare(&words.concat()));
            assert!(words.iter().all(|word| !word.is_empty()));
        }
        (one, other) => assert_eq!(one.as_ref().err(), other.as_ref().err()),
    }
    // Without anything special it is itself.
    if !text.contains(['$', '\'', '"', escape]) {
        assert_eq!(whole.as_deref(), Ok(text));
    }
    let quoted = Word {
        text: format!("'{}'", text.replace('\'', "")),
        span: Span::default(),
    };
    assert_eq!(
        quoted.expand(&lookup, escape).unwrap(),
        text.replace('\'', "")
    );
});

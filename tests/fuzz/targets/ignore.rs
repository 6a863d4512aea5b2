//! The ignore matcher against a naive one, and the walk against the single question.
#![no_main]

use kiln::context::ignore::IgnoreFile;
use libfuzzer_sys::fuzz_target;

#[path = "../src/naive.rs"]
mod naive;

// The first line of an input is a path, the rest are the rules.
fuzz_target!(|input: &str| {
    let Some((path, rules)) = input.split_once('\n') else {
        return;
    };
    // The naive one takes exponential time.
    if rules.len() > 60 || path.len() > 30 {
        return;
    }
    let Ok(file) = IgnoreFile::parse(rules.as_bytes(), "rules") else {
        return;
    };
    let is_clean = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !is_clean {
        let _ = file.decide(path.as_bytes());
        let _ = file.may_reinclude_below(path.as_bytes());
        return;
    }
    let found = file.decide(path.as_bytes()).excluded;
    let mut walked = file.root();
    for end in path
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([path.len()])
    {
        // A subtree that is not walked must have nothing in it.
        if !found && end < path.len() {
            let below = file.decide(&path.as_bytes()[..end]).excluded;
            assert!(!below || file.may_reinclude_below(&path.as_bytes()[..end]));
        }
        walked = file.decide_below(walked, &path.as_bytes()[..end]);
    }
    assert_eq!(walked.excluded, found);
    assert_eq!(found, naive::excluded(rules, path));
});

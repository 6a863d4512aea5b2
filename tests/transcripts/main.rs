//! What a person sees: sessions with every command, all their output and their exit codes.
//!
//! `UPDATE_EXPECT=1 cargo test --test transcripts` writes down what the commands say now; read
//! the difference as a user would.

#[path = "../support/mod.rs"]
mod support;

mod builds;
mod containers;
mod images;
mod registries;
mod store;

use support::Kiln;

const TRANSCRIPTS: [&str; 5] = [
    include_str!("builds.rs"),
    include_str!("containers.rs"),
    include_str!("images.rs"),
    include_str!("registries.rs"),
    include_str!("store.rs"),
];

/// Commands that only a broken machine makes fail, or that are not of kiln's own making.
const NEVER_FAIL: [&str; 4] = ["container ls", "image ls", "ps", "system reset"];

/// A command of a transcript: its words up to the first flag, and whether it worked.
struct Shown {
    words: String,
    worked: bool,
}

fn shown() -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    for line in TRANSCRIPTS.iter().flat_map(|text| text.lines()) {
        let line = line.trim_start();
        if let Some(typed) = line.strip_prefix("$ ") {
            // Of several commands in one line, the exit code is that of the last.
            let words = typed
                .rfind("kiln ")
                .map_or("", |at| &typed[at + "kiln ".len()..]);
            shown.push(Shown {
                words: words.to_owned() + " ",
                worked: true,
            });
        } else if line.starts_with("[exit code")
            && let Some(command) = shown.last_mut()
        {
            command.worked = false;
        }
    }
    shown
}

/// Returns the commands that a help text lists.
fn commands_of(kiln: &Kiln, command: &[&str]) -> Vec<String> {
    let help = kiln.run([command, &["--help"]].concat()).ok().stdout();
    let Some((_, list)) = help.split_once("\nCommands:\n") else {
        return Vec::new();
    };
    let lines = list.lines().take_while(|line| !line.is_empty());
    // What goes on from the line before stands further right.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_has_a_transcript_of_its_work_and_of_its_failure() {
    let kiln = Kiln::new();
    let mut commands = Vec::new();
    for command in commands_of(&kiln, &[])
        .into_iter()
        .chain(["builder".to_owned()])
    {
        let below = commands_of(&kiln, &[&command]);
        match below.is_empty() {
            true => commands.push(command),
            false => commands.extend(below.iter().map(|name| format!("{command} {name}"))),
        }
    }
    assert!(commands.len() > 60, "{commands:?}");
    let shown = shown();
    let mut missing = Vec::new();
    for command in &commands {
        for worked in [true, false] {
            let is_it = |shown: &&Shown| {
                shown.worked == worked && shown.words.starts_with(&format!("{command} "))
            };
            let is_needed = worked || !NEVER_FAIL.contains(&command.as_str());
            if is_needed && !shown.iter().any(|shown| is_it(&shown)) {
                let what = if worked { "that works" } else { "that fails" };
                missing.push(format!("{command} {what}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "no transcript of {}",
        missing.join(", ")
    );
}

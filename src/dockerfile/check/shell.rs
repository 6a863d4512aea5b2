//! Shell scripts as far as checks need them: their simple commands, word by word. What is not
//! understood is left out, so that nothing is reported of it.

/// A word of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ShellWord {
    /// The text without quotes and escapes; variables as written.
    pub(super) text: String,
    /// Whether the shell puts something in or matches files: `$x`, `` `x` ``, `*`.
    pub(super) expands: bool,
}

/// A program with its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SimpleCommand {
    /// The words; assignments before the program are dropped.
    pub(super) words: Vec<ShellWord>,
}

impl SimpleCommand {
    /// Returns the program without its directory.
    pub(super) fn program(&self) -> &str {
        let text = self.words.first().map_or("", |word| word.text.as_str());
        text.rsplit('/').next().unwrap_or(text)
    }

    /// Returns the arguments.
    pub(super) fn arguments(&self) -> &[ShellWord] {
        self.words.get(1..).unwrap_or_default()
    }

    /// Tells whether one of the arguments is this.
    pub(super) fn has(&self, argument: &str) -> bool {
        self.arguments().iter().any(|word| word.text == argument)
    }

    /// Tells whether an option is given, alone or among other letters.
    pub(super) fn has_option(&self, letter: char, long: &str) -> bool {
        self.arguments().iter().any(|word| {
            let text = &word.text;
            text == long
                || (text.starts_with('-') && !text.starts_with("--") && text.contains(letter))
        })
    }
}

/// What a script does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// Its commands, in order.
    pub(super) commands: Vec<SimpleCommand>,
    /// The variables that it uses where the shell expands them.
    pub(super) variables: Vec<String>,
    /// The variables that it sets itself.
    pub(super) assigned: Vec<String>,
    /// Whether the last command runs in the script's own shell, and not in a pipe, a
    /// subshell, a loop or in the background.
    pub(super) ends_plainly: bool,
}

/// Words before a command that are not part of it.
const KEYWORDS: [&str; 13] = [
    "if", "then", "elif", "else", "fi", "while", "until", "do", "done", "!", "{", "}", "time",
];

/// Programs that run the rest of their arguments.
const WRAPPERS: [&str; 4] = ["exec", "command", "nohup", "builtin"];

impl Script {
    /// Reads a script.
    pub(super) fn parse(text: &str) -> Script {
        let mut reader = Reader {
            chars: text.chars().collect(),
            at: 0,
            script: Script::default(),
            command: SimpleCommand::default(),
            word: None,
            compound: false,
        };
        reader.run();
        reader.script
    }
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    script: Script,
    command: SimpleCommand,
    word: Option<ShellWord>,
    /// A keyword or operator came that makes commands run elsewhere or not at all.
    compound: bool,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn run(&mut self) {
        while let Some(c) = self.peek(0) {
            match c {
                ' ' | '\t' | '\r' => self.end_word(),
                '\n' | ';' => self.end_command(),
                '#' if self.word.is_none() => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                    continue;
                }
                '&' if self.peek(1) == Some('&') => {
                    self.end_command();
                    self.at += 1;
                }
                '|' if self.peek(1) == Some('|') => {
                    self.end_command();
                    self.at += 1;
                    // What is behind it may not run.
                    self.compound = true;
                }
                '|' | '(' | ')' => {
                    self.end_command();
                    self.compound = true;
                }
                '&' if !matches!(self.peek(1), Some('>')) && !self.after_redirection() => {
                    self.end_command();
                    self.compound = true;
                }
                '\'' => self.single_quoted(),
                '"' => self.double_quoted(),
                '\\' => {
                    self.at += 1;
                    if let Some(c) = self.peek(0)
                        && c != '\n'
                    {
                        self.push(c);
                    }
                }
                '$' | '`' => {
                    self.expansion();
                    continue;
                }
                '*' | '?' | '[' => {
                    self.push(c);
                    self.word.get_or_insert_default().expands = true;
                }
                '~' if self.word.is_none() => {
                    self.push(c);
                    self.word.get_or_insert_default().expands = true;
                }
                c => self.push(c),
            }
            self.at += 1;
        }
        self.end_command();
        self.script.ends_plainly = !self.compound;
    }

    fn after_redirection(&self) -> bool {
        self.at > 0 && matches!(self.chars[self.at - 1], '>' | '<')
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().text.push(c);
    }

    fn single_quoted(&mut self) {
        self.word.get_or_insert_default();
        self.at += 1;
        while let Some(c) = self.peek(0).filter(|c| *c != '\'') {
            self.push(c);
            self.at += 1;
        }
    }

    fn double_quoted(&mut self) {
        self.word.get_or_insert_default();
        self.at += 1;
        while let Some(c) = self.peek(0).filter(|c| *c != '"') {
            match c {
                '\\' => {
                    self.at += 1;
                    if let Some(c) = self.peek(0) {
                        self.push(c);
                    }
                }
                '$' | '`' => {
                    self.expansion();
                    continue;
                }
                c => self.push(c),
            }
            self.at += 1;
        }
    }

    /// Takes `$name`, `${…}`, `$(…)` or `` `…` `` as it stands.
    fn expansion(&mut self) {
        let start = self.at;
        let word = self.word.get_or_insert_default();
        word.expands = true;
        let mut end = start + 1;
        match (self.chars[start], self.peek(1)) {
            ('`', _) => {
                while self.chars.get(end).is_some_and(|c| *c != '`') {
                    end += 1;
                }
                end += 1;
            }
            (_, Some(open @ ('{' | '('))) => {
                let close = if open == '{' { '}' } else { ')' };
                let mut depth = 0;
                while let Some(c) = self.chars.get(end) {
                    depth += i32::from(*c == open) - i32::from(*c == close);
                    end += 1;
                    if depth == 0 {
                        break;
                    }
                }
                // `${name}` and `${name%x}`; `${name:-x}` says what happens without it.
                let inner: String = self.chars[start + 2..end.min(self.chars.len())]
                    .iter()
                    .collect();
                if open == '{' {
                    let name = leading_name(&inner);
                    let plain = !matches!(
                        inner[name.len()..].chars().next(),
                        Some(':' | '-' | '+' | '=')
                    );
                    if plain && !name.is_empty() {
                        self.script.variables.push(name.to_owned());
                    }
                } else {
                    let inner = Script::parse(inner.strip_suffix(')').unwrap_or(&inner));
                    self.script.variables.extend(inner.variables);
                    self.script.assigned.extend(inner.assigned);
                }
            }
            _ => {
                let rest: String = self.chars[end..].iter().take(200).collect();
                let name = leading_name(&rest).to_owned();
                end += name.chars().count();
                if !name.is_empty() {
                    self.script.variables.push(name);
                }
            }
        }
        let end = end.min(self.chars.len());
        let text: String = self.chars[start..end].iter().collect();
        self.word.get_or_insert_default().text.push_str(&text);
        self.at = end;
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else {
            return;
        };
        let words = &mut self.command.words;
        if words.is_empty() {
            let name = leading_name(&word.text);
            if !name.is_empty() && word.text[name.len()..].starts_with('=') {
                self.script.assigned.push(name.to_owned());
                return;
            }
            if KEYWORDS.contains(&word.text.as_str()) {
                self.compound |= !matches!(word.text.as_str(), "!" | "time");
                return;
            }
            if matches!(word.text.as_str(), "for" | "case" | "select" | "function") {
                self.compound = true;
            }
        }
        words.push(word);
    }

    fn end_command(&mut self) {
        self.end_word();
        let mut command = std::mem::take(&mut self.command);
        while WRAPPERS.contains(&command.program()) {
            command.words.remove(0);
        }
        match command.program() {
            "" => return,
            "export" | "local" | "declare" | "readonly" | "read" | "for" | "unset" => {
                for word in command.arguments() {
                    let name = leading_name(&word.text);
                    self.script.assigned.push(name.to_owned());
                }
            }
            // What it sets can't be known.
            "." | "source" | "eval" => self.script.assigned.push("*".to_owned()),
            _ => {}
        }
        self.script.commands.push(command);
    }
}

/// Returns the name of a variable that a text begins with.
fn leading_name(text: &str) -> &str {
    let first = text.chars().next();
    if !first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_') {
        return "";
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<String> {
        let joined = |command: &SimpleCommand| {
            let words: Vec<&str> = command.words.iter().map(|w| w.text.as_str()).collect();
            words.join("|")
        };
        Script::parse(text).commands.iter().map(joined).collect()
    }

    #[test]
    fn a_script_is_its_simple_commands() {
        let cases: [(&str, &[&str]); 10] = [
            ("a b && c; d || e | f &", &["a|b", "c", "d", "e", "f"]),
            ("a 'b c' \"d e\" f\\ g", &["a|b c|d e|f g"]),
            ("X=1 Y=2 /usr/bin/a b", &["/usr/bin/a|b"]),
            ("X=1", &[]),
            ("if a; then b; fi", &["a", "b"]),
            ("(cd x && y)", &["cd|x", "y"]),
            ("a # b && c\nd", &["a", "d"]),
            ("a > /dev/null 2>&1 && b", &["a|>|/dev/null|2>&1", "b"]),
            ("echo $(a b; c) `d e`", &["echo|$(a b; c)|`d e`"]),
            ("exec a 'unclosed", &["a|unclosed"]),
        ];
        for (text, expected) in cases {
            assert_eq!(commands(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_are_those_that_the_shell_expands() {
        let script = Script::parse(
            r#"a $A "${B}x" '$C' \$D "\$E" ${F:-x} ${G%y} $(h $H) $1 $$ && I=1 j $I"#,
        );
        assert_eq!(script.variables, ["A", "B", "G", "H", "I"]);
        assert_eq!(script.assigned, ["I"]);
        let script = Script::parse("for x in a b; do echo $x; done; export Y=1; . ./env");
        assert_eq!(script.assigned, ["x", "in", "a", "b", "Y", "*"]);
    }

    #[test]
    fn a_script_ends_plainly_where_its_last_command_runs_in_its_shell() {
        for (text, plain) in [
            ("a && cd x", true),
            ("a; cd x", true),
            ("(cd x)", false),
            ("a || cd x", false),
            ("a | cd x", false),
            ("if a; then cd x; fi", false),
            ("cd x &", false),
        ] {
            assert_eq!(Script::parse(text).ends_plainly, plain, "{text}");
        }
    }

    #[test]
    fn options_are_found_among_others() {
        let script = Script::parse("chown -vR a b; chmod --recursive x y; rm --rf -f");
        assert!(script.commands[0].has_option('R', "--recursive"));
        assert!(script.commands[1].has_option('R', "--recursive"));
        assert!(!script.commands[2].has_option('r', "--recursive"));
    }
}

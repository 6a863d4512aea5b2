//! Which variables a stage sees: the rules of ARG and ENV.
//! See <https://docs.docker.com/reference/dockerfile/#scope>.

use std::collections::BTreeMap;

use super::Word;
use super::expand::ExpandError;
use super::heredoc::Heredoc;
use super::instruction::{ArgItem, KeyValue};
use super::mount::{Mount, MountError, MountSpec};

/// Build arguments that reach every RUN without ARG. They count in neither spelling for
/// history or cache keys.
const PROXIES: [&str; 5] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// Arguments for scanners of what was built: declared, but never variables.
const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Tells whether a name is one of the predefined proxy arguments, in any spelling.
pub(super) fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
}

/// The variables of one stage as the build goes through it.
///
/// ARG and ENV share one environment, in which the later one wins. Only ENV reaches the
/// image config; that is the build's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    globals: BTreeMap<String, String>,
    build_args: BTreeMap<String, String>,
    escape: char,
    /// In order of first definition.
    env: Vec<(String, String)>,
    /// Names that ARG declared, in order, and the value each had then.
    args: Vec<(String, Option<String>)>,
}

impl Scope {
    /// Returns the scope at the start of a stage on an image (or on scratch). `globals` are
    /// those of the plan, `base_env` is the base image's `Env`.
    pub fn new(
        globals: &BTreeMap<String, String>,
        build_args: &BTreeMap<String, String>,
        base_env: &[String],
        escape: char,
    ) -> Scope {
        let mut scope = Scope {
            globals: globals.clone(),
            build_args: build_args.clone(),
            escape,
            env: Vec::new(),
            args: Vec::new(),
        };
        scope.apply_env(base_env);
        scope
    }

    /// Returns the scope at the start of a stage built on the stage of this scope: its ARGs
    /// go on, and what its config has as `Env` is set again.
    pub fn inherit(&self, base_env: &[String]) -> Scope {
        let mut scope = self.clone();
        scope.apply_env(base_env);
        scope
    }

    fn apply_env(&mut self, entries: &[String]) {
        for entry in entries {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            self.set_env(name, value);
        }
    }

    /// Returns the value of a variable.
    pub fn lookup(&self, name: &str) -> Option<String> {
        let entry = self.env.iter().find(|(key, _)| key == name);
        entry.map(|(_, value)| value.clone())
    }

    /// Sets a variable, as ENV does after all its values are expanded.
    pub fn set_env(&mut self, name: &str, value: &str) {
        match self.env.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Declares one name of an ARG and returns its value: the build argument, else the
    /// default (expanded only if it is used), else the global value. A name without any is
    /// declared but unset.
    pub fn declare_arg(&mut self, item: &ArgItem) -> Result<Option<String>, ExpandError> {
        let value = match (self.build_args.get(&item.name), &item.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(self.expand(default)?),
            (None, None) => self.globals.get(&item.name).cloned(),
        };
        if let Some(value) = &value
            && !NOT_VARIABLES.contains(&item.name.as_str())
        {
            self.set_env(&item.name, value);
        }
        self.args.push((item.name.clone(), value.clone()));
        Ok(value)
    }

    /// Returns a word expanded.
    pub fn expand(&self, word: &Word) -> Result<String, ExpandError> {
        word.expand(&|name| self.lookup(name), self.escape)
    }

    /// Returns the words that a word expands to.
    pub fn expand_words(&self, word: &Word) -> Result<Vec<String>, ExpandError> {
        word.expand_words(&|name| self.lookup(name), self.escape)
    }

    /// Returns the pairs of one ENV or LABEL expanded: all see the environment before it.
    pub fn expand_pairs(&self, pairs: &[KeyValue]) -> Result<Vec<(String, String)>, ExpandError> {
        let expand_pair = |pair: &KeyValue| {
            let name = self.expand(&pair.name)?;
            match name.trim().is_empty() {
                true => Err(ExpandError::BlankName),
                false => Ok((name, self.expand(&pair.value)?)),
            }
        };
        pairs.iter().map(expand_pair).collect()
    }

    /// Returns the content of a heredoc of COPY or ADD.
    pub fn expand_heredoc(&self, heredoc: &Heredoc) -> Result<String, ExpandError> {
        heredoc.expand(&|name| self.lookup(name))
    }

    /// Returns a mount expanded and checked.
    pub fn expand_mount(&self, mount: &Mount) -> Result<MountSpec, MountError> {
        mount.expand(&|name| self.lookup(name), self.escape)
    }

    /// Returns the environment that counts for the cache key of a RUN: ARGs and ENVs, without
    /// proxies that no ARG declares.
    pub fn key_environment(&self) -> &[(String, String)] {
        &self.env
    }

    /// Returns the environment of a RUN: [`Scope::key_environment`] and the proxies that were
    /// given as build arguments, each in both spellings.
    pub fn run_environment(&self) -> Vec<(String, String)> {
        let mut with_proxies = self.clone();
        for proxy in PROXIES {
            // Where both spellings are given, the lower-case one counts: it sorts last.
            let given = self
                .build_args
                .iter()
                .rfind(|(name, _)| name.eq_ignore_ascii_case(proxy));
            if let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) {
                with_proxies.set_env(proxy, value);
                with_proxies.set_env(&proxy.to_ascii_lowercase(), value);
            }
        }
        with_proxies.env
    }

    /// Returns `NAME=value` of all declared ARGs with the values they have now, as the
    /// history shows them before a RUN's command. Unset ones are empty.
    pub fn args_for_history(&self) -> Vec<String> {
        let mut lines: Vec<(&str, String)> = Vec::new();
        for (name, declared) in &self.args {
            let value = self.lookup(name).or_else(|| declared.clone());
            let line = format!("{name}={}", value.unwrap_or_default());
            match lines.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = line,
                None => lines.push((name, line)),
            }
        }
        lines.into_iter().map(|(_, line)| line).collect()
    }

    /// Returns how the history names a RUN of these arguments:
    /// `RUN |1 FOO=x /bin/sh -c cmd # buildkit`.
    pub fn run_history(&self, arguments: &[String]) -> String {
        let args = self.args_for_history();
        let mut words = vec!["RUN".to_owned()];
        if !args.is_empty() {
            words.push(format!("|{}", args.len()));
            words.extend(args);
        }
        words.extend_from_slice(arguments);
        words.push("# buildkit".to_owned());
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::instruction::InstructionKind;
    use super::super::{Source, parse};
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        owned.collect()
    }

    /// Goes through the ARGs and ENVs of the last stage of a file.
    fn go(scope: Scope, text: &str) -> Scope {
        let file = parse(&Source::new("Dockerfile", format!("FROM x\n{text}"))).unwrap();
        let mut scope = scope;
        for instruction in &file.stages[0].instructions {
            match &instruction.kind {
                InstructionKind::Arg(items) => {
                    for item in items {
                        scope.declare_arg(item).unwrap();
                    }
                }
                InstructionKind::Env(pairs) => {
                    for (name, value) in scope.expand_pairs(pairs).unwrap() {
                        scope.set_env(&name, &value);
                    }
                }
                _ => {}
            }
        }
        scope
    }

    fn run(build_args: &[(&str, &str)], text: &str) -> Scope {
        let globals = map(&[("GLOBAL", "g"), ("TARGETARCH", "arm64")]);
        go(
            Scope::new(&globals, &map(build_args), &["PATH=/bin".into()], '\\'),
            text,
        )
    }

    /// SEMANTICS 19
    #[test]
    fn one_env_sees_the_old_environment_and_one_arg_its_earlier_items() {
        let scope = run(&[], "ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc");
        assert_eq!(scope.lookup("def").as_deref(), Some("hello"));
        assert_eq!(scope.lookup("ghi").as_deref(), Some("bye"));
        let scope = run(&[], "ARG a=1 b=$a");
        assert_eq!(scope.lookup("b").as_deref(), Some("1"));
    }

    /// SEMANTICS 22, SEMANTICS 23, SEMANTICS 24
    #[test]
    fn priority_of_values() {
        let given = &[("GIVEN", "cli")];
        let cases = [
            ("ARG GIVEN=default", "GIVEN", Some("cli")),
            ("ARG GIVEN", "GIVEN", Some("cli")),
            ("ENV X=1", "GIVEN", None),
            ("ARG GLOBAL", "GLOBAL", Some("g")),
            ("ARG GLOBAL=stage", "GLOBAL", Some("stage")),
            ("ENV X=1", "GLOBAL", None),
            ("ARG FOO", "FOO", None),
            ("ARG BAR=", "BAR", Some("")),
            ("ENV X=$TARGETARCH", "X", Some("")),
            ("ARG TARGETARCH\nENV X=$TARGETARCH", "X", Some("arm64")),
            ("ARG A=1\nENV A=2", "A", Some("2")),
            ("ENV A=2\nARG A=1", "A", Some("1")),
            ("ENV A=2\nARG A", "A", Some("2")),
            ("ARG GIVEN=${broken:=x}", "GIVEN", Some("cli")),
            ("ARG $X=1", "$X", Some("1")),
        ];
        for (text, name, expected) in cases {
            assert_eq!(run(given, text).lookup(name).as_deref(), expected, "{text}");
        }
    }

    /// SEMANTICS 25
    #[test]
    fn a_stage_on_a_stage_keeps_its_args_and_the_config_wins() {
        let parent = run(&[], "ARG A=1\nENV B=env\nARG B=arg");
        let child = go(parent.inherit(&["B=env".into()]), "ARG A");
        assert_eq!(child.lookup("A").as_deref(), Some("1"));
        assert_eq!(child.lookup("B").as_deref(), Some("env"));
        assert_eq!(child.args_for_history(), ["A=1", "B=env"]);
    }

    #[test]
    fn an_override_keeps_its_place_in_the_order() {
        let scope = run(&[], "ENV A=1 PATH=/x");
        assert_eq!(scope.key_environment()[0], ("PATH".into(), "/x".into()));
    }

    /// SEMANTICS 59
    #[test]
    fn history_lists_each_declared_arg_once() {
        let scope = run(&[], "ARG A=1 UNSET\nARG A=2");
        assert_eq!(scope.args_for_history(), ["A=2", "UNSET="]);
        let shell = ["/bin/sh", "-c", "true"].map(String::from);
        assert_eq!(
            scope.run_history(&shell),
            "RUN |2 A=2 UNSET= /bin/sh -c true # buildkit"
        );
        assert_eq!(
            run(&[], "").run_history(&shell),
            "RUN /bin/sh -c true # buildkit"
        );
    }

    /// SEMANTICS 26
    #[test]
    fn proxies_reach_a_run_and_nothing_else() {
        let given = &[("http_proxy", "p"), ("NO_PROXY", "n"), ("ftp_proxy", "")];
        let scope = run(given, "");
        let env = scope.run_environment();
        for (name, value) in [
            ("HTTP_PROXY", "p"),
            ("http_proxy", "p"),
            ("NO_PROXY", "n"),
            ("no_proxy", "n"),
        ] {
            assert!(env.contains(&(name.into(), value.into())), "{name}");
        }
        assert!(!env.iter().any(|(name, _)| name == "ftp_proxy"));
        assert_eq!(scope.key_environment().len(), 1);
        assert!(scope.args_for_history().is_empty());
        assert_eq!(scope.lookup("http_proxy"), None);

        let declared = run(given, "ARG http_proxy");
        assert_eq!(declared.args_for_history(), ["http_proxy=p"]);
        assert_eq!(declared.key_environment().len(), 2);
    }

    /// SEMANTICS 58
    #[test]
    fn blank_names_are_refused_after_expansion() {
        let file = parse(&Source::new("D", "FROM x\nENV \"$NONE\"=1")).unwrap();
        let InstructionKind::Env(pairs) = &file.stages[0].instructions[0].kind else {
            panic!()
        };
        assert_eq!(
            run(&[], "").expand_pairs(pairs),
            Err(ExpandError::BlankName)
        );
    }
}

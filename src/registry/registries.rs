//! `registries.conf`: mirrors of registries, and which may be used how.
//! See <https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md>.

mod file;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use super::error::Reason;
use crate::image::{Reference, ReferenceError};
use file::{drop_ins, read};

/// A `registries.conf` that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// A file that can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file that kiln does not understand.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl RegistriesError {
    /// Returns the remedy, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            RegistriesError::Read { .. } => None,
            RegistriesError::Malformed { path, .. } => Some(format!(
                "repair {}, or name another file in CONTAINERS_REGISTRIES_CONF",
                path.display()
            )),
        }
    }
}

/// Where `registries.conf` may be.
#[derive(Clone, Debug, Default)]
pub struct RegistriesPaths {
    /// `$CONTAINERS_REGISTRIES_CONF`: this file and no other.
    pub named: Option<PathBuf>,
    /// The user's directory.
    pub user: Option<PathBuf>,
    /// The system's directory.
    pub system: Option<PathBuf>,
}

impl RegistriesPaths {
    /// Returns the paths of this process.
    pub fn from_environment() -> RegistriesPaths {
        let path = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        RegistriesPaths {
            named: path("CONTAINERS_REGISTRIES_CONF"),
            user: path("XDG_CONFIG_HOME")
                .or_else(|| path("HOME").map(|home| home.join(".config")))
                .map(|config| config.join("containers")),
            system: Some(PathBuf::from("/etc/containers")),
        }
    }
}

/// What the user and the system say of registries.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    entries: Vec<Entry>,
    /// Where names without a registry are looked for; none: where docker does.
    search: Vec<String>,
    /// Repositories by the short names that stand for them.
    aliases: BTreeMap<String, String>,
}

/// Where to read a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub registry: String,
    pub repository: String,
    pub insecure: bool,
    pub is_mirror: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// One `[[registry]]`.
#[derive(Clone, Debug)]
struct Entry {
    /// The file that has it.
    path: PathBuf,
    prefix: String,
    /// What stands in place of the prefix; nothing where it stays.
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    insecure: bool,
    mode: Mode,
}

/// The list of aliases that comes with the container tools of a distribution: it says what
/// their publishers prefer, and nobody here has chosen it. docker's meaning of a name must not
/// depend on whether podman is installed.
const DISTRIBUTIONS_ALIASES: &str = "shortnames.conf";

impl Registries {
    /// Reads the files that exist: the user's in place of the system's, then the drop-ins of
    /// both, where a later file replaces what an earlier one says of the same prefix.
    ///
    /// # Errors
    /// Where a file can't be read or parsed.
    pub fn load(paths: &RegistriesPaths) -> Result<Registries, RegistriesError> {
        let mut files = Vec::new();
        if let Some(named) = &paths.named {
            files.push(named.clone());
        } else {
            let directories = || [&paths.user, &paths.system].into_iter().flatten();
            let main = directories().map(|directory| directory.join("registries.conf"));
            files.extend(main.into_iter().find(|file| file.exists()));
            for directory in [&paths.system, &paths.user].into_iter().flatten() {
                files.extend(drop_ins(&directory.join("registries.conf.d")));
            }
        }
        let mut registries = Registries::default();
        for path in files {
            let content = read(&path)?;
            for entry in content.entries {
                registries.entries.retain(|old| old.prefix != entry.prefix);
                registries.entries.push(entry);
            }
            registries.search = content.search.unwrap_or(registries.search);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.ends_with(DISTRIBUTIONS_ALIASES) {
                registries.aliases.extend(content.aliases);
            }
        }
        Ok(registries)
    }

    /// Returns what a name as people write it may stand for, in the order in which to try. One
    /// without a registry is docker.io's, unless an alias or search registries are named.
    ///
    /// # Errors
    /// It is no name of an image.
    pub fn candidates(&self, text: &str) -> Result<Vec<Reference>, ReferenceError> {
        let plain: Reference = text.parse()?;
        if !Reference::is_short(text) {
            return Ok(vec![plain]);
        }
        let end = text.find([':', '@']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let alias = self.aliases.get(name).filter(|alias| !alias.is_empty());
        if let Some(alias) = alias {
            return Ok(vec![format!("{alias}{rest}").parse()?]);
        }
        if self.search.is_empty() {
            return Ok(vec![plain]);
        }
        let below = |registry: &String| format!("{registry}/{text}").parse();
        self.search.iter().map(below).collect()
    }

    /// Returns where to read a repository from, in the order in which to try: the mirrors, and
    /// the origin last.
    pub(super) fn sources(
        &self,
        registry: &str,
        repository: &str,
        by_digest: bool,
    ) -> Result<Vec<Source>, Reason> {
        let origin = self.origin(registry, repository)?;
        let Some((entry, rest)) = self.entry(registry, repository) else {
            return Ok(vec![origin]);
        };
        let fits = |mirror: &&Mirror| match mirror.mode {
            Mode::All => true,
            Mode::DigestOnly => by_digest,
            Mode::TagOnly => !by_digest,
        };
        let mirrors = entry.mirrors.iter().filter(fits);
        let mut sources: Vec<Source> = mirrors
            .map(|mirror| Source::new(&mirror.location, &rest, mirror.insecure, true))
            .collect();
        sources.push(match &entry.location {
            Some(location) => Source::new(location, &rest, entry.insecure, false),
            None => origin,
        });
        Ok(sources)
    }

    /// Returns the repository under its own name, which is where it is written to.
    pub(super) fn origin(&self, registry: &str, repository: &str) -> Result<Source, Reason> {
        let entry = self.entry(registry, repository).map(|(entry, _)| entry);
        if let Some(Entry { path, prefix, .. }) = entry.filter(|entry| entry.blocked) {
            return Err(Reason::Blocked {
                prefix: prefix.clone(),
                path: path.clone(),
            });
        }
        Ok(Source {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            insecure: entry.is_some_and(|entry| entry.insecure),
            is_mirror: false,
        })
    }

    /// Returns the entry with the longest prefix of a name, and what follows that there.
    fn entry(&self, registry: &str, repository: &str) -> Option<(&Entry, String)> {
        let name = match repository {
            "" => registry.to_owned(),
            repository => format!("{registry}/{repository}"),
        };
        let matches = self.entries.iter().filter_map(|entry| {
            let length = match entry.prefix.strip_prefix("*.") {
                Some(domain) => {
                    let host = registry.strip_suffix(domain)?;
                    (host.len() > 1 && host.ends_with('.')).then_some(registry.len())?
                }
                None => {
                    let rest = name.strip_prefix(&entry.prefix)?;
                    (rest.is_empty() || rest.starts_with('/')).then_some(entry.prefix.len())?
                }
            };
            Some((entry, name[length..].trim_start_matches('/').to_owned()))
        });
        // A name of its own goes before one of a whole domain.
        matches.max_by_key(|(entry, _)| (!entry.prefix.starts_with("*."), entry.prefix.len()))
    }
}

impl Source {
    /// Makes the source of `rest` below a location, which is a registry or a part of one.
    fn new(location: &str, rest: &str, insecure: bool, is_mirror: bool) -> Source {
        let (registry, namespace) = location.split_once('/').unwrap_or((location, ""));
        let separator = if namespace.is_empty() || rest.is_empty() {
            ""
        } else {
            "/"
        };
        Source {
            registry: registry.to_owned(),
            repository: format!("{namespace}{separator}{rest}"),
            insecure,
            is_mirror,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(text: &str) -> Result<Registries, RegistriesError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.conf");
        fs::write(&path, text).unwrap();
        Registries::load(&RegistriesPaths {
            named: Some(path),
            ..RegistriesPaths::default()
        })
    }

    /// Returns the sources of a name as text, the insecure ones marked with `!`.
    fn sources(registries: &Registries, registry: &str, repository: &str) -> Vec<String> {
        let sources = registries.sources(registry, repository, false).unwrap();
        let text = |source: Source| {
            let mark = if source.insecure { "!" } else { "" };
            format!("{}/{}{mark}", source.registry, source.repository)
        };
        sources.into_iter().map(text).collect()
    }

    #[test]
    fn mirrors_come_in_order_and_the_origin_last() {
        let registries = parse(
            r#"
            unqualified-search-registries = ["quay.io"]
            short-name-mode = "enforcing"
            [aliases]
            "x" = "y.example/x"
            [[registry]]
            prefix = "docker.io"
            [[registry.mirror]]
            location = "one.example:5000/hub"
            [[registry.mirror]]
            location = "two.example/"
            insecure = true
            [[registry]]
            location = "docker.io/secret"
            [[registry]]
            prefix = "old.example/team"
            location = "new.example:1/a/b"
            insecure = true
            [[registry]]
            prefix = "*.wild.example"
            insecure = true
            "#,
        )
        .unwrap();
        for (registry, repository, expected) in [
            (
                "docker.io",
                "library/x",
                &[
                    "one.example:5000/hub/library/x",
                    "two.example/library/x!",
                    "docker.io/library/x",
                ][..],
            ),
            ("docker.io", "secret/x", &["docker.io/secret/x"]),
            (
                "docker.io",
                "secretive/x",
                &[
                    "one.example:5000/hub/secretive/x",
                    "two.example/secretive/x!",
                    "docker.io/secretive/x",
                ],
            ),
            ("old.example", "team/app", &["new.example:1/a/b/app!"]),
            ("old.example", "other", &["old.example/other"]),
            ("a.wild.example", "x", &["a.wild.example/x!"]),
            ("wild.example", "x", &["wild.example/x"]),
            ("notwild.example", "x", &["notwild.example/x"]),
        ] {
            let found = sources(&registries, registry, repository);
            assert_eq!(found, expected, "{registry}/{repository}");
        }
        // What is pushed goes where its name says.
        let origin = registries.origin("old.example", "team/app").unwrap();
        assert_eq!(
            (origin.registry.as_str(), origin.repository.as_str()),
            ("old.example", "team/app")
        );
    }

    #[test]
    fn name_without_a_registry_is_docker_ios_unless_the_file_says_otherwise() {
        let names = |registries: &Registries, text: &str| -> Vec<String> {
            let candidates = registries.candidates(text).unwrap();
            candidates.iter().map(ToString::to_string).collect()
        };
        let none = Registries::default();
        assert_eq!(names(&none, "x:1"), ["docker.io/library/x:1"]);
        let registries = parse(
            r#"
            unqualified-search-registries = ["one.example", "docker.io"]
            [aliases]
            "x" = "two.example/team/x"
            "me/y" = "two.example/y"
            "off" = ""
            "#,
        )
        .unwrap();
        for (text, expected) in [
            (
                "z",
                &["one.example/z:latest", "docker.io/library/z:latest"][..],
            ),
            ("me/z:1", &["one.example/me/z:1", "docker.io/me/z:1"]),
            ("x:1", &["two.example/team/x:1"]),
            ("me/y", &["two.example/y:latest"]),
            (
                "off",
                &["one.example/off:latest", "docker.io/library/off:latest"],
            ),
            ("docker.io/x", &["docker.io/library/x:latest"]),
            ("localhost/x", &["localhost/x:latest"]),
        ] {
            assert_eq!(names(&registries, text), expected, "{text}");
        }
        assert!(registries.candidates("X Y").is_err());
    }

    #[test]
    fn mirrors_may_be_for_digests_or_for_tags_only() {
        let registries = parse(
            r#"
            [[registry]]
            location = "r.example"
            [[registry.mirror]]
            location = "digests.example"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "tags.example"
            pull-from-mirror = "tag-only"
            "#,
        )
        .unwrap();
        let first = |by_digest| {
            let sources = registries.sources("r.example", "x", by_digest).unwrap();
            (sources[0].registry.clone(), sources.len())
        };
        assert_eq!(first(true), ("digests.example".to_owned(), 2));
        assert_eq!(first(false), ("tags.example".to_owned(), 2));
    }

    #[test]
    fn the_users_file_replaces_the_systems_and_drop_ins_add_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, prefix: &str, insecure: bool| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = format!("[[registry]]\nprefix = {prefix:?}\ninsecure = {insecure}\n");
            fs::write(path, text).unwrap();
        };
        write("system/registries.conf", "system.example", true);
        write("user/registries.conf", "user.example", true);
        write("system/registries.conf.d/1.conf", "dropped.example", true);
        write("system/registries.conf.d/2.conf", "both.example", false);
        write("system/registries.conf.d/2.txt", "no.example", true);
        write("user/registries.conf.d/1.conf", "both.example", true);
        let paths = RegistriesPaths {
            named: None,
            user: Some(directory.path().join("user")),
            system: Some(directory.path().join("system")),
        };
        let registries = Registries::load(&paths).unwrap();
        for (registry, insecure) in [
            ("system.example", false),
            ("user.example", true),
            ("dropped.example", true),
            ("both.example", true),
            ("no.example", false),
        ] {
            let origin = registries.origin(registry, "x").unwrap();
            assert_eq!(origin.insecure, insecure, "{registry}");
        }
        let none = RegistriesPaths {
            user: Some("/nonexistent".into()),
            ..RegistriesPaths::default()
        };
        assert!(Registries::load(&none).unwrap().entries.is_empty());
    }

    #[test]
    fn aliases_of_a_distribution_do_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let drop_ins = directory.path().join("registries.conf.d");
        fs::create_dir(&drop_ins).unwrap();
        let text = |name: &str| format!("[aliases]\n{name:?} = \"other.example/{name}\"\n");
        fs::write(drop_ins.join("000-shortnames.conf"), text("theirs")).unwrap();
        fs::write(drop_ins.join("mine.conf"), text("own")).unwrap();
        let paths = RegistriesPaths {
            system: Some(directory.path().to_owned()),
            ..RegistriesPaths::default()
        };
        let registries = Registries::load(&paths).unwrap();
        let first = |name: &str| registries.candidates(name).unwrap()[0].to_string();
        assert_eq!(first("theirs"), "docker.io/library/theirs:latest");
        assert_eq!(first("own"), "other.example/own:latest");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, problem) in [
            (
                "\n[[registry]\n",
                "registries.conf: line 2: unclosed array table, expected `]`",
            ),
            (
                "[[registry]]\ninsecure = \"yes\"\n",
                "registries.conf: line 2: invalid type: string \"yes\", expected a boolean",
            ),
            (
                "[[registry]]\ninsecure = true\n",
                "registries.conf: a [[registry]] has neither prefix nor location",
            ),
            (
                "[[registry]]\nlocation = \"https://r.example\"\n",
                "registries.conf: \"https://r.example\": a location has no http:// or https://",
            ),
            (
                "[registries.search]\nregistries = []\n",
                "registries.conf: [registries.…] is version 1 of the format: \
                 write [[registry]] instead",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().ends_with(problem), "{error}");
            assert!(error.hint().is_some());
        }
    }
}

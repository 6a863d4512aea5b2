//! What a text means that may name something elsewhere: a git repository, a URL, or a path.
//! See <https://docs.docker.com/build/concepts/context/#git-repositories>.

use crate::registry::percent_decoded;

/// Where a source of ADD, or a build context, is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a git repository.
    Git(GitLocation),
    /// Behind an `http` or `https` URL.
    Url(String),
    /// None of these: a path.
    Path(String),
}

/// A tree of a git repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitLocation {
    /// The repository, as git takes it.
    pub remote: String,
    /// A branch, a tag, another ref, or a whole commit id; empty for the default branch.
    pub reference: String,
    /// A directory in the tree; empty for all of it.
    pub subdir: String,
    /// The commit that it has to be, or the first digits of it.
    pub checksum: Option<String>,
    /// Whether `.git` stays, where the location says so itself.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
    /// Whether the user named a repository of the local file system.
    pub is_local: bool,
}

/// A location that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid git URL {text:?}: {reason}")]
pub struct LocationError {
    text: String,
    reason: String,
}

impl LocationError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(
            "what is built from a repository is named as \
             https://HOST/PATH.git#BRANCH_OR_TAG_OR_COMMIT:SUBDIRECTORY"
                .to_owned(),
        )
    }
}

impl Location {
    /// Reads a source of ADD or COPY.
    ///
    /// # Errors
    /// It names a repository in a way that has no meaning.
    pub fn of_source(text: &str) -> Result<Location, LocationError> {
        let scheme = scheme(text);
        match scheme {
            Some("http" | "https") => {
                let path = &text[..text.find(['?', '#']).unwrap_or(text.len())];
                if path.ends_with(".git") {
                    git(text, text).map(Location::Git)
                } else {
                    Ok(Location::Url(text.to_owned()))
                }
            }
            Some("git" | "ssh") => git(text, text).map(Location::Git),
            Some(_) => Ok(Location::Path(text.to_owned())),
            None if is_scp_style(text) => git(text, text).map(Location::Git),
            None => Ok(Location::Path(text.to_owned())),
        }
    }

    /// Reads a build context of the command line, where repositories of the local file system
    /// (`file://`) and `github.com/…` are taken too.
    ///
    /// # Errors
    /// As for [`Location::of_source`].
    pub fn of_context(text: &str) -> Result<Location, LocationError> {
        if scheme(text) == Some("file") {
            return Ok(Location::Git(GitLocation {
                is_local: true,
                ..git(text, text)?
            }));
        }
        if text.starts_with("github.com/") && !std::path::Path::new(text).exists() {
            return git(text, &format!("https://{text}")).map(Location::Git);
        }
        Location::of_source(text)
    }
}

/// Returns what stands before `://`.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    is_scheme.then_some(scheme)
}

/// Tells whether a text is `user@host:path`, as scp and git write it.
fn is_scp_style(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let Some((host, _)) = rest.split_once(':') else {
        return false;
    };
    let plain = |text: &str, more: &[u8]| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    plain(user, b"-_") && plain(host, b"-.")
}

/// Reads `remote[?query][#ref[:subdir]]`.
fn git(text: &str, url: &str) -> Result<GitLocation, LocationError> {
    let error = |reason: String| LocationError {
        text: crate::registry::shown_url(text),
        reason,
    };
    let (url, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (remote, query) = url.split_once('?').unwrap_or((url, ""));
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let mut location = GitLocation {
        remote: remote.to_owned(),
        reference: reference.to_owned(),
        subdir: subdir.to_owned(),
        ..GitLocation::default()
    };
    let set = |slot: &mut String, value: String, what: &str| {
        if !slot.is_empty() && *slot != value {
            return Err(error(format!("it names two {what}: {slot} and {value}")));
        }
        *slot = value;
        Ok(())
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = String::from_utf8(percent_decoded(&value.replace('+', " ")))
            .map_err(|_| error(format!("the value of {name} is no text")))?;
        let full = |prefix: &str| match value.starts_with(prefix) {
            true => value.clone(),
            false => format!("{prefix}{value}"),
        };
        let flag = || match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(error(format!("{name} is true or false, not {value:?}"))),
        };
        let needs_value = !matches!(name, "submodules" | "keep-git-dir" | "fetch-by-commit");
        if needs_value && value.is_empty() {
            return Err(error(format!("{name} has no value")));
        }
        match name {
            "ref" => set(&mut location.reference, value, "refs")?,
            "tag" => set(&mut location.reference, full("refs/tags/"), "refs")?,
            "branch" => set(&mut location.reference, full("refs/heads/"), "refs")?,
            "subdir" => set(&mut location.subdir, value, "directories")?,
            "checksum" | "commit" => location.checksum = Some(value),
            "keep-git-dir" => location.keep_git_dir = Some(flag()?),
            "submodules" => location.skip_submodules = !flag()?,
            // A commit is fetched by its id wherever the server allows it, and files have the
            // time of their commit: results must not depend on when they were built.
            "fetch-by-commit" => {
                flag()?;
            }
            "mtime" if matches!(value.as_str(), "checkout" | "commit") => {}
            "mtime" => return Err(error(format!("mtime is checkout or commit, not {value:?}"))),
            name => return Err(error(format!("{name:?} means nothing in its query"))),
        }
    }
    // As git itself says; see git-check-ref-format(1).
    let is_ref = |text: &str| {
        !text.starts_with(['-', '/', '+'])
            && !text.contains("..")
            && !text.contains(|c: char| c.is_control() || " ~^:?*[\\".contains(c))
    };
    if !is_ref(&location.reference) {
        return Err(error(format!("{:?} is no ref", location.reference)));
    }
    if let Some(checksum) = &location.checksum {
        check_commit(checksum).map_err(error)?;
    }
    if location.remote.contains(|c: char| c.is_control()) {
        return Err(error("it has control characters".to_owned()));
    }
    Ok(location)
}

/// Checks that a text is a commit id, or the first digits of one.
pub(super) fn check_commit(text: &str) -> Result<(), String> {
    let hex = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if (7..=64).contains(&text.len()) && hex {
        return Ok(());
    }
    Err(format!(
        "{text:?} is no commit: 40 hexadecimal digits, or at least the first 7"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> GitLocation {
        match Location::of_source(text) {
            Ok(Location::Git(location)) => location,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn sources_are_told_as_buildkit_tells_them() {
        for text in [
            "https://h.example/a.git",
            "http://h.example/a.git#main",
            "https://h.example/a.git?branch=x",
            "git://h.example/a",
            "ssh://git@h.example/a",
            "git@h.example:a/b",
            "me@h.example:a#v1:sub",
        ] {
            assert!(!parse(text).is_local, "{text}");
        }
        for text in [
            "https://h.example/a",
            "http://h.example/a.git.gz",
            "https://h/?x=.git",
        ] {
            assert_eq!(
                Location::of_source(text),
                Ok(Location::Url(text.to_owned()))
            );
        }
        for text in [
            "a/b",
            "./a@b:c",
            "file:///a.git",
            "ftp://h/a.git",
            "@h:x",
            "-x@h:y",
            "a b@c:d",
        ] {
            assert_eq!(
                Location::of_source(text),
                Ok(Location::Path(text.to_owned()))
            );
        }
    }

    #[test]
    fn the_fragment_and_the_query_say_the_same() {
        let location = parse("https://h.example/a.git#refs/tags/v1:x/y");
        assert_eq!(location.remote, "https://h.example/a.git");
        assert_eq!(location.reference, "refs/tags/v1");
        assert_eq!(location.subdir, "x/y");
        let query = "https://h.example/a.git?tag=v1&subdir=x%2Fy";
        assert_eq!(parse(query), location);
        let query = parse("git@h.example:a?commit=0123456&keep-git-dir&submodules=false");
        assert_eq!(query.remote, "git@h.example:a");
        assert_eq!(query.checksum.as_deref(), Some("0123456"));
        assert_eq!(query.keep_git_dir, Some(true));
        assert!(query.skip_submodules);
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for (text, reason) in [
            ("https://h/a.git?x=1", "\"x\" means nothing in its query"),
            ("https://h/a.git?branch", "branch has no value"),
            (
                "https://h/a.git?tag=a#b",
                "it names two refs: b and refs/tags/a",
            ),
            (
                "https://h/a.git#--upload-pack=x",
                "\"--upload-pack=x\" is no ref",
            ),
            (
                "https://h/a.git?submodules=2",
                "submodules is true or false, not \"2\"",
            ),
            (
                "https://h/a.git?checksum=12",
                "\"12\" is no commit: 40 hexadecimal digits, or at least the first 7",
            ),
        ] {
            let error = Location::of_source(text).unwrap_err();
            assert_eq!(error.reason, reason, "{text}");
        }
    }

    #[test]
    fn only_contexts_may_be_local_repositories_or_lack_their_scheme() {
        let context = |text| match Location::of_context(text) {
            Ok(Location::Git(location)) => location,
            other => panic!("{text}: {other:?}"),
        };
        assert!(context("file:///srv/a.git#main").is_local);
        assert_eq!(
            context("github.com/a/b#v1").remote,
            "https://github.com/a/b"
        );
    }
}

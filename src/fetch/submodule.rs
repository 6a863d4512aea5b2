//! What a repository says of its submodules, and which of it is believed.

use super::Location;

/// Submodules of one repository.
const MAX_SUBMODULES: usize = 256;

/// Reads the pairs of path and URL out of `git config -z --get-regexp`.
pub(super) fn submodules_of(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(&str, Option<&str>, Option<&str>)> = Vec::new();
    for entry in text.split('\0').filter(|entry| !entry.is_empty()) {
        let (key, value) = entry.split_once('\n').unwrap_or((entry, ""));
        let Some((section, name)) = key.rsplit_once('.') else {
            continue;
        };
        let at = match found.iter().position(|(other, ..)| *other == section) {
            Some(at) => at,
            None if found.len() < MAX_SUBMODULES => {
                found.push((section, None, None));
                found.len() - 1
            }
            None => continue,
        };
        match name {
            "path" => found[at].1 = Some(value),
            _ => found[at].2 = Some(value),
        }
    }
    let whole = |(_, path, url): (&str, Option<&str>, Option<&str>)| {
        Some((path?.trim_end_matches('/').to_owned(), url?.to_owned()))
    };
    found.into_iter().filter_map(whole).collect()
}

/// Returns the commit of a submodule out of a line of `git ls-tree -z`.
pub(super) fn gitlink(line: &str, path: &str) -> Option<String> {
    line.split('\0').find_map(|entry| {
        let (attributes, name) = entry.split_once('\t')?;
        let id = attributes.strip_prefix("160000 commit ")?;
        (name == path && super::git::is_whole_id(id)).then(|| id.to_owned())
    })
}

/// Resolves the URL of a submodule, which may be relative to that of its repository.
/// See <https://git-scm.com/docs/gitmodules>.
pub(super) fn resolve_url(base: &str, url: &str) -> Option<String> {
    if !(url.starts_with("./") || url.starts_with("../")) {
        return Some(url.to_owned());
    }
    let mut base = base.trim_end_matches('/').to_owned();
    let mut rest = url;
    let mut separator = '/';
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            let at = base.rfind(['/', ':'])?;
            separator = if base[at..].starts_with(':') {
                ':'
            } else {
                '/'
            };
            base.truncate(at);
            // Not beyond the host.
            if base.ends_with('/') || !base.contains([':', '/', '@']) {
                return None;
            }
        } else {
            break;
        }
    }
    Some(format!("{base}{separator}{}", rest.trim_end_matches('/')))
}

/// Tells whether a URL is of a transport that a foreign repository may send git to.
pub(super) fn is_remote(url: &str) -> bool {
    if url.contains(|c: char| c.is_control()) || url.contains("::") {
        return false;
    }
    let schemes = ["https://", "http://", "ssh://", "git://"];
    schemes.iter().any(|scheme| url.starts_with(scheme))
        || matches!(Location::of_source(url), Ok(Location::Git(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_submodules_are_resolved_as_git_does() {
        for (base, url, resolved) in [
            (
                "https://h.example/a/b.git",
                "../c.git",
                "https://h.example/a/c.git",
            ),
            (
                "https://h.example/a/b.git/",
                "../../x/c",
                "https://h.example/x/c",
            ),
            (
                "https://h.example/a/b.git",
                "./c",
                "https://h.example/a/b.git/c",
            ),
            ("git@h.example:a/b.git", "../c.git", "git@h.example:a/c.git"),
            ("git@h.example:b.git", "../c.git", "git@h.example:c.git"),
            (
                "https://h.example/a",
                "ssh://x.example/y",
                "ssh://x.example/y",
            ),
        ] {
            assert_eq!(
                resolve_url(base, url).as_deref(),
                Some(resolved),
                "{base} {url}"
            );
        }
        assert_eq!(resolve_url("https://h.example/a", "../../../etc"), None);
    }

    #[test]
    fn submodules_come_over_the_network_alone() {
        for url in ["https://h/a", "ssh://h/a", "git@h:a", "git://h/a"] {
            assert!(is_remote(url), "{url}");
        }
        for url in [
            "file:///srv/a",
            "/srv/a",
            "ext::sh -c x",
            "--upload-pack=x",
            "https::x://h/a",
            "-x@h:a",
        ] {
            assert!(!is_remote(url), "{url}");
        }
    }

    #[test]
    fn paths_and_urls_of_submodules_are_paired_by_their_section() {
        let text = "submodule.a.path\nlib/a\0submodule.b.c.url\n../b\0submodule.a.url\nhttps://h/a\0submodule.b.c.path\nb\0submodule.x.url\nx\0";
        assert_eq!(
            submodules_of(text),
            [
                ("lib/a".to_owned(), "https://h/a".to_owned()),
                ("b".to_owned(), "../b".to_owned())
            ]
        );
        let id = "0123456789012345678901234567890123456789";
        let line = format!("160000 commit {id}\tlib/a\0");
        assert_eq!(gitlink(&line, "lib/a").as_deref(), Some(id));
        assert_eq!(gitlink(&line, "lib"), None);
        assert_eq!(gitlink(&format!("100644 blob {id}\ta\0"), "a"), None);
    }
}

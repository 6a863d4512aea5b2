//! Trees of git repositories.
//!
//! git runs on the host, as the user. What talks to a server sees the user's configuration,
//! since that is where credentials, proxies and rewritten URLs are. What writes the tree sees
//! none of it: the result must not depend on who builds, and no filter of the user's runs over
//! a foreign repository. No hook runs at all. Submodules are fetched one by one in the same
//! way, never by `git submodule`, which runs what a configuration says.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kiln_runtime::{HostCommand, OUTPUT_LIMIT};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::archive::open_directory;
use super::location::check_commit;
use super::submodule::{gitlink, is_remote, resolve_url, submodules_of};
use super::{FetchError, Fetcher, GitLocation, Result};
use crate::event::{TransferOutcome, Verb};
use crate::layer::{LayerDir, Ownership, View};
use crate::registry::shown_url;

/// Submodules within submodules.
const MAX_DEPTH: usize = 8;
/// The longest text of git that is shown.
const LONGEST_SHOWN: usize = 300;

/// Variables by which a git that runs kiln (in a hook, say) would tell ours where to work.
const FOREIGN: [&str; 14] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CEILING_DIRECTORIES",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_CONFIG_PARAMETERS",
    "GIT_TEMPLATE_DIR",
    "GIT_TRACE",
];

/// A commit of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// The ref that it was found under; none where the id itself was given.
    name: Option<String>,
    /// The object of the annotated tag that it was found under.
    tag: Option<String>,
}

/// Whose configuration a command sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Config {
    /// The user's.
    User,
    /// Nobody's.
    None,
}

/// One repository, on its way into a directory.
struct Repository<'a> {
    fetcher: &'a Fetcher<'a>,
    remote: &'a str,
    is_local: bool,
    /// What servers are told, by the beginnings of their URLs.
    authorizations: Rc<[(String, String)]>,
}

impl Fetcher<'_> {
    /// Returns the commit that a location names now.
    ///
    /// # Errors
    /// The repository can't be reached, has no such ref, or another commit than the location's
    /// checksum says.
    pub fn git_commit(&self, location: &GitLocation) -> Result<Commit> {
        let repository = self.repository(location);
        let commit = if is_whole_id(&location.reference) {
            Commit::of_id(&location.reference)
        } else {
            let checksum = location.checksum.as_deref().filter(|id| is_whole_id(id));
            match checksum {
                // It is said which one it has to be: without a ref, no server is asked.
                Some(id) if location.reference.is_empty() => Commit::of_id(id),
                _ => repository.resolve(&location.reference)?,
            }
        };
        if let Some(checksum) = &location.checksum {
            check_commit(checksum).map_err(|reason| repository.error(reason))?;
            let mut objects = [Some(&commit.id), commit.tag.as_ref()]
                .into_iter()
                .flatten();
            if !objects.any(|id| id.starts_with(checksum.as_str())) {
                return Err(FetchError::Git {
                    remote: shown_url(&location.remote),
                    reason: format!(
                        "{} is commit {}, and {checksum} was asked for",
                        shown_ref(&location.reference),
                        commit.id
                    ),
                    hint: Some(
                        "either the branch or tag was moved, or the checksum is of another one"
                            .to_owned(),
                    ),
                });
            }
        }
        Ok(commit)
    }

    /// Returns the tree of a commit of a location, or of the location's directory in it. It
    /// lies in the session. Files have the time of the commit.
    ///
    /// # Errors
    /// The commit or directory is not there, or can't be fetched.
    pub fn git_tree(
        &self,
        location: &GitLocation,
        commit: &Commit,
        keep_git_dir: bool,
    ) -> Result<View> {
        let repository = self.repository(location);
        let path = self.transfer.session.directory()?;
        let name = format!("{} {}", shown_url(&location.remote), short(&commit.id));
        let reported = self.transfer.begin(&name, Verb::Pull, None);
        // A directory of the tree is no work tree of its own.
        let keep_git_dir = keep_git_dir && location.subdir.is_empty();
        repository.fetch(&path, commit)?;
        repository.check_out(&path, commit)?;
        if !location.skip_submodules {
            repository.submodules(&path, commit, keep_git_dir, 0)?;
        }
        let time = repository
            .git(
                &path,
                Config::None,
                &["log", "-1", "--format=%ct", &commit.id],
            )?
            .trim()
            .parse()
            .unwrap_or(0);
        if keep_git_dir {
            repository.tidy_git_dir(&path, commit)?;
        } else {
            remove_git_dir(&path)?;
        }
        set_times(&path, time)?;
        reported.end(TransferOutcome::Done);
        let root = open_directory(&path)?;
        if location.subdir.is_empty() {
            return Ok(View::new(vec![LayerDir::new(root, Ownership::Single)]));
        }
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let subdir = location.subdir.as_str();
        let opened = openat2(root.as_fd(), subdir, how).map_err(|errno| {
            repository.error(format!(
                "{subdir:?} is no directory in commit {}: {}",
                short(&commit.id),
                errno.desc()
            ))
        })?;
        Ok(View::new(vec![LayerDir::new(opened, Ownership::Single)]))
    }

    fn repository<'a>(&'a self, location: &'a GitLocation) -> Repository<'a> {
        Repository {
            fetcher: self,
            remote: &location.remote,
            is_local: location.is_local,
            authorizations: self.authorizations.of_repository(&location.remote).into(),
        }
    }
}

impl Fetcher<'_> {
    /// Tells whether the user has no ssh of their own for git.
    fn is_ssh_plain(&self) -> bool {
        let names = ["GIT_SSH_COMMAND", "GIT_SSH"];
        if names.iter().any(|name| std::env::var_os(name).is_some()) {
            return false;
        }
        let args = ["config", "--get", "core.sshCommand"];
        let configured = self.host.run("git", &args, b"");
        configured.is_ok_and(|output| output.code != Some(0))
    }
}

/// Tells whether a text is a commit id: SHA-1 or SHA-256.
pub(super) fn is_whole_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn shown_ref(reference: &str) -> &str {
    if reference.is_empty() {
        "the default branch"
    } else {
        reference
    }
}

impl Repository<'_> {
    fn error(&self, reason: impl Into<String>) -> FetchError {
        FetchError::Git {
            remote: shown_url(self.remote),
            reason: reason.into(),
            hint: None,
        }
    }

    fn is_ssh(&self) -> bool {
        self.remote.starts_with("ssh://") || !self.remote.contains("://")
    }

    /// Returns a git that works in a directory, and knows the repository as `origin`: its URL
    /// is in no command line, where others would see a password in it.
    fn command(&self, directory: &Path, config: Config) -> HostCommand {
        // Behind the settings that the caller's environment has.
        let given = match config {
            Config::User => std::env::var("GIT_CONFIG_COUNT").ok(),
            Config::None => None,
        };
        let count: u32 = given.and_then(|count| count.parse().ok()).unwrap_or(0);
        let mut hidden = vec![("remote.origin.url".to_owned(), self.remote.to_owned())];
        if config == Config::User {
            hidden.extend(self.authorizations.iter().map(|(base, value)| {
                let header = format!("Authorization: {value}");
                (format!("http.{base}.extraHeader"), header)
            }));
        }
        let mut command = HostCommand::new("git")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .umask(0o022);
        let mut last = count;
        for (key, value) in &hidden {
            command = command
                .env(&format!("GIT_CONFIG_KEY_{last}"), key)
                .env(&format!("GIT_CONFIG_VALUE_{last}"), value);
            last = last.saturating_add(1);
        }
        command = command.env("GIT_CONFIG_COUNT", &last.to_string());
        // Behind a progress display, a question of ssh would never be seen.
        if config == Config::User && self.is_ssh() && self.fetcher.is_ssh_plain() {
            command = command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        }
        for name in FOREIGN {
            command = command.without_env(name);
        }
        if config == Config::None {
            command = command
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_ATTR_NOSYSTEM", "1")
                // For a git that does not know GIT_CONFIG_GLOBAL yet.
                .env("HOME", "/dev/null")
                .env("XDG_CONFIG_HOME", "/dev/null");
        }
        let local = match self.is_local {
            true => "protocol.file.allow=always",
            false => "protocol.file.allow=never",
        };
        let settings = [
            local,
            "protocol.ext.allow=never",
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.symlinks=true",
            "core.fileMode=true",
            "core.autocrlf=false",
            "core.attributesFile=/dev/null",
            "fetch.recurseSubmodules=false",
            "submodule.recurse=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "init.defaultBranch=main",
            "init.templateDir=",
            // A minute of silence, as for other downloads.
            "http.lowSpeedLimit=1",
            "http.lowSpeedTime=60",
        ];
        for setting in settings {
            command = command.args(["-c", setting]);
        }
        command.args([Path::new("-C"), directory])
    }

    /// Runs git in a directory and returns what it prints.
    fn git(&self, directory: &Path, config: Config, args: &[&str]) -> Result<String> {
        let command = self.command(directory, config).args(args);
        let output = self.fetcher.host.execute(&command).map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            FetchError::Git {
                remote: shown_url(self.remote),
                reason: match missing {
                    true => "git is not installed".to_owned(),
                    false => format!("git can't be run: {error}"),
                },
                hint: missing.then(|| "install the package git".to_owned()),
            }
        })?;
        if output.code != Some(0) {
            return Err(self.refused(&String::from_utf8_lossy(&output.stderr)));
        }
        if output.stdout.len() as u64 >= OUTPUT_LIMIT {
            return Err(self.error("git prints more than is read"));
        }
        String::from_utf8(output.stdout).map_err(|_| self.error("git prints what is no text"))
    }

    /// Makes the error of a git that failed, from what it says.
    fn refused(&self, stderr: &str) -> FetchError {
        let lines: Vec<&str> = stderr.lines().map(str::trim).collect();
        let told = |prefix: &str| {
            lines
                .iter()
                .find_map(|line| line.strip_prefix(prefix))
                .map(str::to_owned)
        };
        let reason = told("fatal: ")
            .or_else(|| told("error: "))
            .or_else(|| {
                lines
                    .iter()
                    .rfind(|l| !l.is_empty())
                    .map(|l| (*l).to_owned())
            })
            .unwrap_or_else(|| "git failed without a word".to_owned());
        let said = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
        let hint = if said(&["Host key verification failed"]) {
            Some("connect once with ssh by hand, so that the host is known")
        } else if said(&[
            "could not read Username",
            "could not read Password",
            "Authentication failed",
            "terminal prompts disabled",
            "Permission denied",
            "not found",
            "does not exist",
            "returned error: 403",
        ]) {
            Some(
                "the repository does not exist or is private: git's credential helpers and the \
                 ssh agent are asked, but no question can be answered; a token is given with \
                 --secret id=GIT_AUTH_TOKEN,env=VARIABLE",
            )
        } else if said(&[
            "Could not resolve host",
            "unable to connect",
            "Failed to connect",
        ]) {
            Some("check the name, and that the host can be reached from here")
        } else {
            None
        };
        let mut reason: String = reason
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LONGEST_SHOWN)
            .collect();
        // git hides passwords itself in most of its messages.
        let shown = shown_url(self.remote);
        if shown != self.remote {
            reason = reason.replace(self.remote, &shown);
        }
        FetchError::Git {
            remote: shown,
            reason,
            hint: hint.map(str::to_owned),
        }
    }

    /// Asks the server which commit a ref is.
    fn resolve(&self, reference: &str) -> Result<Commit> {
        let scratch = self.fetcher.transfer.session.directory()?;
        let wanted = match reference {
            "" => "HEAD",
            reference => reference,
        };
        let peeled = format!("{wanted}^{{}}");
        let args = ["ls-remote", "origin", wanted, peeled.as_str()];
        let listed = self.git(&scratch, Config::User, &args)?;
        let refs: Vec<(&str, &str)> = listed
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter(|(id, _)| is_whole_id(id))
            .collect();
        let find = |name: &str| {
            let found = refs.iter().find(|(_, other)| *other == name);
            found.map(|(id, _)| (*id).to_owned())
        };
        let bare = wanted.strip_prefix("refs/").unwrap_or(wanted);
        // git-checkout prefers branches; a branch may be called heads/x.
        let candidates = [
            if wanted == "HEAD" {
                "HEAD".to_owned()
            } else {
                format!("refs/{bare}")
            },
            format!("refs/heads/{wanted}"),
            format!("refs/tags/{wanted}"),
        ];
        for name in candidates {
            let Some(id) = find(&name) else { continue };
            // An annotated tag is an object of its own, and may be what a checksum is of.
            let (id, tag) = match find(&format!("{name}^{{}}")) {
                Some(commit) => (commit, Some(id)),
                None => (id, None),
            };
            return Ok(Commit {
                id,
                name: Some(name),
                tag,
            });
        }
        Err(FetchError::Git {
            remote: shown_url(self.remote),
            reason: format!("it has no branch or tag {}", shown_ref(reference)),
            hint: Some(
                if check_commit(reference).is_ok() {
                    "a commit is named by all of its 40 digits"
                } else {
                    "`git ls-remote` lists what there is"
                }
                .to_owned(),
            ),
        })
    }

    /// Brings a commit into a new repository in a directory.
    fn fetch(&self, directory: &Path, commit: &Commit) -> Result<()> {
        let id = commit.id.as_str();
        let mut init = vec!["init", "-q"];
        if id.len() == 64 {
            init.push("--object-format=sha256");
        }
        self.git(directory, Config::None, &init)?;
        let has = || {
            let object = format!("{id}^{{commit}}");
            let args = ["rev-parse", "-q", "--verify", "--end-of-options", &object];
            self.git(directory, Config::None, &args).is_ok()
        };
        let fetch = |depth: &[&str], what: &[&str]| {
            let mut args = vec!["fetch", "-q", "--force", "--update-head-ok"];
            args.extend(depth);
            args.extend(["--", "origin"]);
            args.extend(what);
            self.git(directory, Config::User, &args).map(|_| ())
        };
        let shallow = ["--depth=1", "--no-tags"];
        // By its ref, which every server allows; it may have moved since it was asked for.
        if let Some(name) = &commit.name
            && fetch(&shallow, &[name]).is_ok()
            && has()
        {
            return Ok(());
        }
        // By its id, which some servers refuse; without a depth, which some don't know.
        if fetch(&shallow, &[id]).is_ok() && has() {
            return Ok(());
        }
        let all = [
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/tags/*:refs/tags/*",
        ];
        fetch(&[], &all)?;
        if has() {
            return Ok(());
        }
        Err(self.error(format!("it has no commit {id}")))
    }

    fn check_out(&self, directory: &Path, commit: &Commit) -> Result<()> {
        let args = ["checkout", "-q", "--force", "--detach", &commit.id];
        self.git(directory, Config::None, &args).map(|_| ())
    }

    /// Fetches the submodules of a commit that is checked out.
    fn submodules(
        &self,
        directory: &Path,
        commit: &Commit,
        keep_git_dir: bool,
        depth: usize,
    ) -> Result<()> {
        let listed = directory.join(".gitmodules");
        if !std::fs::symlink_metadata(&listed).is_ok_and(|file| file.is_file()) {
            return Ok(());
        }
        let blob = format!("--blob={}:.gitmodules", commit.id);
        let keys = r"^submodule\..*\.(path|url)$";
        let args = ["config", &blob, "-z", "--get-regexp", keys];
        let Ok(text) = self.git(directory, Config::None, &args) else {
            return Ok(());
        };
        for (path, url) in submodules_of(&text) {
            let args = ["ls-tree", "-z", "--full-tree", &commit.id, "--", &path];
            let Some(id) = self
                .git(directory, Config::None, &args)
                .ok()
                .and_then(|line| gitlink(&line, &path))
            else {
                // Listed, and not in the tree: it means nothing.
                continue;
            };
            if depth >= MAX_DEPTH {
                return Err(self.error("its submodules are nested too deeply"));
            }
            let remote = resolve_url(self.remote, &url)
                .filter(|url| is_remote(url))
                .ok_or_else(|| FetchError::Git {
                    remote: shown_url(self.remote),
                    reason: format!("its submodule {path:?} has the URL {:?}", shown_url(&url)),
                    hint: Some(
                        "submodules come over https, http, ssh or git; ?submodules=false leaves \
                         them out"
                            .to_owned(),
                    ),
                })?;
            // What was checked out has an empty directory there, and no link on the way.
            let root = open_directory(directory)?;
            let how = OpenHow::new()
                .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
            openat2(root.as_fd(), path.as_str(), how)
                .map_err(|errno| FetchError::io(&directory.join(&path), errno))?;
            let below = directory.join(&path);
            let submodule = Repository {
                fetcher: self.fetcher,
                remote: &remote,
                is_local: false,
                authorizations: self.authorizations.clone(),
            };
            let commit = Commit::of_id(&id);
            submodule.fetch(&below, &commit)?;
            submodule.check_out(&below, &commit)?;
            submodule.submodules(&below, &commit, keep_git_dir, depth + 1)?;
            if keep_git_dir {
                submodule.tidy_git_dir(&below, &commit)?;
            } else {
                remove_git_dir(&below)?;
            }
        }
        Ok(())
    }

    /// Makes of `.git` what a clone would have: the remote, and the ref.
    fn tidy_git_dir(&self, directory: &Path, commit: &Commit) -> Result<()> {
        let url = shown_url(self.remote);
        let args = ["config", "--local", "remote.origin.url", &url];
        self.git(directory, Config::None, &args)?;
        let refspec = "+refs/heads/*:refs/remotes/origin/*";
        let args = ["config", "--local", "remote.origin.fetch", refspec];
        self.git(directory, Config::None, &args)?;
        if let Some(name) = commit
            .name
            .as_deref()
            .filter(|name| name.starts_with("refs/"))
        {
            self.git(directory, Config::None, &["update-ref", name, &commit.id])?;
        }
        let git_dir = directory.join(".git");
        for left in ["logs", "hooks", "description", "ORIG_HEAD", "FETCH_HEAD"] {
            let path = git_dir.join(left);
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
        Ok(())
    }
}

impl Commit {
    fn of_id(id: &str) -> Commit {
        Commit {
            id: id.to_owned(),
            name: None,
            tag: None,
        }
    }
}

fn remove_git_dir(directory: &Path) -> Result<()> {
    let path = directory.join(".git");
    let removed = match std::fs::symlink_metadata(&path) {
        Ok(file) if file.is_dir() => std::fs::remove_dir_all(&path),
        Ok(_) => std::fs::remove_file(&path),
        Err(_) => return Ok(()),
    };
    removed.map_err(|error| FetchError::io(&path, error))
}

/// Gives all that is in a directory one time. Nobody else writes there.
fn set_times(directory: &Path, seconds: i64) -> Result<()> {
    let time = TimeSpec::new(seconds, 0);
    let mut waiting: Vec<PathBuf> = vec![directory.to_owned()];
    let mut directories = Vec::new();
    let touch = |path: &Path| {
        utimensat(
            AT_FDCWD,
            path,
            &time,
            &time,
            UtimensatFlags::NoFollowSymlink,
        )
        .map_err(|errno| FetchError::io(path, errno))
    };
    while let Some(directory) = waiting.pop() {
        let entries =
            std::fs::read_dir(&directory).map_err(|error| FetchError::io(&directory, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| FetchError::io(&directory, error))?;
            let kind = entry.file_type();
            if kind.is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            } else {
                touch(&entry.path())?;
            }
        }
        directories.push(directory);
    }
    directories.iter().try_for_each(|path| touch(path))
}

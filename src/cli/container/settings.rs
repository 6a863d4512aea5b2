//! The flags that `run` and `create` have in common: what a container is made with.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::refused::Refused;
use crate::cli::build::settings::{host, resolver_word, size, ulimit};
use crate::cli::connection::Access;
use crate::cli::session::{self, Workshop};
use crate::cli::{CliError, Result};
use crate::container::{self, ContainerError, Wanted};
use crate::image::{ImageConfig, Reference, RunConfig};
use crate::store::{
    Container, ContainerLock, ContainerMount, ContainerSettings, MountSource, Stack, StoreError,
};
use crate::{transfer, ui};

/// No file of variables or labels is larger, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

/// Arguments that say what a container is made with.
#[derive(clap::Args)]
pub(in crate::cli) struct SettingsArguments {
    /// The container's name
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(in crate::cli) name: String,
    /// Remove the container, and what it changed, when it has ended
    #[arg(long)]
    rm: bool,
    /// Give it standard input
    #[arg(short, long)]
    pub(in crate::cli) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(in crate::cli) tty: bool,
    /// Set an environment variable; without a value, the caller's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the environment variables that a file has, one on each line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Where the command starts
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it: user[:group], by name or number
    #[arg(short, long)]
    user: Option<String>,
    /// A further group, by name or number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Replace the image's entry point; an empty one removes it
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Which network it sees
    #[arg(long, visible_alias = "net", value_enum, default_value_t = NetworkChoice::Host)]
    network: NetworkChoice,
    /// The host name [default: the beginning of the container's id]
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Show a file or directory of yours in it: SOURCE:TARGET[:ro]
    #[arg(short, long, value_name = "SOURCE:TARGET")]
    volume: Vec<String>,
    /// Likewise: type=bind,source=PATH,target=PATH[,readonly], or type=tmpfs,target=PATH
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Memory as a directory: PATH[:size=SIZE,mode=MODE,exec,ro]
    #[arg(long, value_name = "PATH")]
    tmpfs: Vec<String>,
    /// Keep its root from being written
    #[arg(long)]
    read_only: bool,
    /// Set a label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Set the labels that a file has, one on each line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Give a host a name in it
    #[arg(long, value_name = "HOST:ADDRESS", value_parser = host)]
    add_host: Vec<(String, IpAddr)>,
    /// Ask this name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Look for short names in this domain
    #[arg(long, value_name = "DOMAIN", value_parser = resolver_word)]
    dns_search: Vec<String>,
    /// An option of the resolver
    #[arg(long, value_name = "OPTION", alias = "dns-opt", value_parser = resolver_word)]
    dns_option: Vec<String>,
    /// The size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shm_size: Option<u64>,
    /// Limit a resource of each process
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    ulimit: Vec<Option<(u32, u64, u64)>>,
    /// Take a capability away, or all of them
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// The signal that asks it to end [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How many seconds it has to end when it is stopped [default: 10]
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// Write the container's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// When the image is pulled
    #[arg(long, value_enum, default_value_t = PullChoice::Missing)]
    pull: PullChoice,
    /// Say nothing while the image is pulled
    #[arg(short, long)]
    quiet: bool,
    /// Which image of a multi-platform one, as in linux/arm64
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    access: Access,
    /// When it is started again: nobody is there to do that
    #[arg(long, value_parser = ["no"], hide = true)]
    restart: Option<String>,
    #[command(flatten)]
    refused: Refused,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image, and the command in place of the image's: what follows the image is never
    /// taken for a flag of kiln
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

/// `--network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum NetworkChoice {
    /// The host's
    #[value(alias = "default", alias = "bridge")]
    Host,
    /// A loopback interface and nothing else
    None,
}

impl From<NetworkChoice> for kiln_runtime::Network {
    fn from(choice: NetworkChoice) -> kiln_runtime::Network {
        match choice {
            NetworkChoice::Host => kiln_runtime::Network::Host,
            NetworkChoice::None => kiln_runtime::Network::None,
        }
    }
}

/// `--pull`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PullChoice {
    /// Even where it is in the store
    Always,
    /// Where it is not in the store
    Missing,
    /// Not at all
    Never,
}

impl SettingsArguments {
    /// Makes the container; what can be wrong without a store is said before.
    pub(in crate::cli) fn create(&self, workshop: &Workshop) -> Result<(Container, ContainerLock)> {
        self.refused.check()?;
        if let Some(path) = self.cidfile.as_deref().filter(|path| path.exists()) {
            return Err(CliError::message(format!(
                "the file for the container's id is there already: {}",
                path.display()
            ))
            .hinted("remove it, or name another with --cidfile"));
        }
        let mounts = self.mounts()?;
        let (image, config, stack) = self.find_or_pull(workshop)?;
        let (made, lock) = container::create(
            &workshop.store,
            &workshop.session,
            Wanted {
                name: &self.name,
                image,
                image_name: self.image(),
                stack: &stack,
                settings: self.settings(&config.config, mounts)?,
            },
        )?;
        if let Some(path) = &self.cidfile {
            session::write_whole(path, made.record.id.as_bytes())?;
        }
        Ok((made, lock))
    }

    fn settings(
        &self,
        config: &RunConfig,
        mounts: Vec<ContainerMount>,
    ) -> Result<ContainerSettings> {
        let (entrypoint, command) =
            container::command_line(config, self.entrypoint.as_deref(), self.command());
        if entrypoint.is_empty() && command.is_empty() {
            return Err(CliError::message("the image has no command")
                .hinted("give one: kiln run IMAGE COMMAND"));
        }
        let working_dir = match &self.workdir {
            Some(dir) if dir.starts_with('/') => dir.clone(),
            Some(dir) => {
                return Err(CliError::message(format!(
                    "the working directory {dir:?} must be an absolute path"
                )));
            }
            None if config.working_dir.is_empty() => "/".to_owned(),
            None => config.working_dir.clone(),
        };
        let mut labels = config.labels.clone();
        for path in &self.label_file {
            for line in lines(path)? {
                let (name, value) = line.split_once('=').unwrap_or((&line, ""));
                labels.insert(name.to_owned(), value.to_owned());
            }
        }
        for label in &self.label {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            labels.insert(name.to_owned(), value.to_owned());
        }
        let stop_signal = match &self.stop_signal {
            Some(signal) => crate::dockerfile::parse_signal(signal)
                .map(|_| signal.clone())
                .map_err(|error| CliError::message(error.to_string()))?,
            None => config.stop_signal.clone(),
        };
        Ok(ContainerSettings {
            entrypoint,
            command,
            env: self.environment(config)?,
            working_dir,
            user: self.user.clone().unwrap_or_else(|| config.user.clone()),
            groups: self.group_add.clone(),
            hostname: self.hostname.clone().unwrap_or_default(),
            no_network: self.network == NetworkChoice::None,
            terminal: self.tty,
            open_stdin: self.interactive,
            remove: self.rm,
            read_only: self.read_only,
            labels,
            mounts,
            hosts: self.add_host.clone(),
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            dns_options: self.dns_option.clone(),
            shm_size: self.shm_size,
            rlimits: self.ulimit.iter().flatten().copied().collect(),
            cap_drop: self.dropped_capabilities()?,
            stop_signal,
            stop_timeout: self.stop_timeout,
        })
    }

    /// Returns the names of capabilities as the kernel has them: docker's lack the beginning.
    fn dropped_capabilities(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for name in &self.cap_drop {
            let name = name.to_uppercase();
            if name == "ALL" {
                return Ok(vec![name]);
            }
            names.push(match name.starts_with("CAP_") {
                true => name,
                false => format!("CAP_{name}"),
            });
        }
        kiln_runtime::capability::CapabilitySet::from_names(&names)
            .map_err(ContainerError::from)?;
        Ok(names)
    }

    fn environment(&self, config: &RunConfig) -> Result<Vec<String>> {
        let mut merged = RunConfig {
            env: config.env.clone(),
            ..RunConfig::default()
        };
        let mut given = Vec::new();
        for path in &self.env_file {
            given.extend(lines(path)?);
        }
        given.extend(self.env.iter().cloned());
        for (name, value) in given.iter().filter_map(|entry| variable(entry)) {
            merged.set_env(&name, &value);
        }
        Ok(merged.env)
    }

    fn mounts(&self) -> Result<Vec<ContainerMount>> {
        let wrong = |flag: &str, text: &str, reason: String| {
            CliError::message(format!("invalid {flag} {text:?}: {reason}"))
        };
        let mut by_target: BTreeMap<String, ContainerMount> = BTreeMap::new();
        let mut add =
            |flag: &str, text: &str, mount: std::result::Result<ContainerMount, String>| {
                let mount = mount.map_err(|reason| wrong(flag, text, reason))?;
                let target = mount.target.clone();
                match by_target.insert(target.clone(), mount) {
                    Some(_) => Err(wrong(flag, text, format!("{target} has a mount already"))),
                    None => Ok(()),
                }
            };
        for text in &self.volume {
            add("-v", text, volume(text))?;
        }
        for text in &self.mount {
            add("--mount", text, mount(text))?;
        }
        for text in &self.tmpfs {
            add("--tmpfs", text, tmpfs(text))?;
        }
        Ok(by_target.into_values().collect())
    }

    fn image(&self) -> &str {
        self.image_and_command.first().map_or("", String::as_str)
    }

    fn command(&self) -> &[String] {
        self.image_and_command.get(1..).unwrap_or_default()
    }

    /// Returns an image of the store, else pulls it.
    fn find_or_pull(
        &self,
        workshop: &Workshop,
    ) -> Result<(crate::image::Digest, ImageConfig, Stack)> {
        let platform = session::platform(self.platform.as_deref())?;
        if self.pull != PullChoice::Always {
            match workshop.store.find(self.image()) {
                // Another image of its index was asked for.
                Ok(image)
                    if self.platform.is_some()
                        && !image.config.fits(&platform)
                        && !image.is_for_one_platform() =>
                {
                    if self.pull == PullChoice::Never {
                        let (name, found) = (self.image(), image.config.platform());
                        return Err(CliError::message(format!(
                            "the image {name} is here for {found}, not for {platform}"
                        ))
                        .hinted(format!("kiln pull --platform={platform} {name}")));
                    }
                }
                Ok(image) => {
                    if !image.config.fits(&platform) {
                        ui::say(&format!(
                            "warning: {} is an image for {}, not for {platform}\n",
                            self.image(),
                            image.config.platform()
                        ));
                    }
                    if let Some(stack) = workshop.store.stack(&image.config.rootfs.diff_ids)? {
                        return Ok((image.id, image.config, stack));
                    }
                }
                Err(StoreError::NoImage(_)) if self.pull == PullChoice::Missing => {}
                Err(error) => return Err(error.into()),
            }
        }
        let reference: Reference = self.image().parse()?;
        let client = self.access.client_of(workshop, [self.image()])?;
        let is_known = self.pull == PullChoice::Always;
        let (_, pulled) = workshop.transfer(self.quiet, ui::Mode::Auto, |transfer| {
            if !is_known {
                transfer.reporter.report(crate::event::Event::Info {
                    message: format!("{} is not in the store: pulling it", reference.familiar()),
                });
            }
            transfer::pull_named(transfer, &client, self.image(), &platform)
        })?;
        Ok((pulled.id, pulled.config, pulled.stack))
    }
}

/// Returns a variable that is given as `NAME=value`, or by its name alone with the caller's value.
pub(in crate::cli) fn variable(text: &str) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.to_owned(), std::env::var(text).ok()?)),
    }
}

/// Returns the lines of a file that are neither blank nor comments.
pub(in crate::cli) fn lines(path: &Path) -> Result<Vec<String>> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| {
        CliError::message(format!("cannot read {}: {error}", path.display()))
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_LIMIT).read_to_string(&mut text))
        .map_err(failed)?;
    let lines = text.lines().map(str::trim_start);
    Ok(lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

type Parsed = std::result::Result<ContainerMount, String>;

fn target(text: &str) -> std::result::Result<String, String> {
    let clean = crate::dockerfile::join_path("/", text);
    match text.starts_with('/') && clean != "/" {
        true => Ok(clean),
        false => Err("the target must be an absolute path, and not /".to_owned()),
    }
}

fn source(text: &str) -> std::result::Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

/// Parses `SOURCE:TARGET[:OPTIONS]`. A source that is missing becomes a directory, as in docker.
fn volume(text: &str) -> Parsed {
    let (from, rest) = text
        .split_once(':')
        .ok_or("kiln has no volumes: it is SOURCE:TARGET[:ro]")?;
    if !from.starts_with(['/', '.']) {
        return Err(
            "kiln has no volumes: the source is a path, which begins with / or .".to_owned(),
        );
    }
    let (to, options) = rest.split_once(':').unwrap_or((rest, ""));
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => read_only = true,
            // What is not needed here, and what kiln does anyway.
            "rw" | "z" | "Z" | "rprivate" | "private" | "cached" | "delegated" | "consistent" => {}
            other => return Err(format!("unknown option {other:?}")),
        }
    }
    let path = source(from)?;
    if !path.exists() {
        // As docker does, with what it then is: a new and empty directory.
        std::fs::create_dir_all(&path)
            .map_err(|error| format!("{from} is not there, and cannot be made: {error}"))?;
    }
    Ok(ContainerMount {
        source: MountSource::Bind(path),
        target: target(to)?,
        read_only,
    })
}

/// Parses `type=bind|tmpfs,key=value,…`.
fn mount(text: &str) -> Parsed {
    let (mut kind, mut from, mut to, mut read_only) = ("volume", None, None, false);
    let (mut bytes, mut mode) = (None, 0o1777);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match key {
            "type" => kind = value,
            "source" | "src" => from = Some(value),
            "target" | "dst" | "destination" => to = Some(value),
            "readonly" | "ro" => {
                read_only = match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(format!("{field} is neither true nor false")),
                }
            }
            "tmpfs-size" => bytes = Some(size(value)?),
            "tmpfs-mode" => mode = octal(value)?,
            "bind-propagation" | "consistency" => {}
            other => return Err(format!("unknown field {other:?}")),
        }
    }
    let source = match (kind, from) {
        ("bind", Some(from)) => MountSource::Bind(source(from)?),
        ("bind", None) => return Err("the source is missing".to_owned()),
        ("tmpfs", None) => MountSource::Tmpfs {
            size: bytes,
            mode,
            exec: false,
        },
        ("tmpfs", Some(_)) => return Err("type=tmpfs has no source".to_owned()),
        ("volume", _) => {
            return Err("kiln has no volumes: there are type=bind and type=tmpfs".to_owned());
        }
        (other, _) => return Err(format!("unknown type {other:?}: there are bind and tmpfs")),
    };
    Ok(ContainerMount {
        source,
        target: target(to.ok_or("the target is missing")?)?,
        read_only,
    })
}

/// Parses `PATH[:OPTIONS]`.
fn tmpfs(text: &str) -> Parsed {
    let (to, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut bytes, mut mode, mut exec, mut read_only) = (None, 0o1777, false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("size", value) => bytes = Some(size(value)?),
            ("mode", value) => mode = octal(value)?,
            ("exec", _) => exec = true,
            ("ro", _) => read_only = true,
            ("rw" | "noexec" | "nosuid" | "nodev", _) => {}
            (other, _) => return Err(format!("unknown option {other:?}")),
        }
    }
    Ok(ContainerMount {
        source: MountSource::Tmpfs {
            size: bytes,
            mode,
            exec,
        },
        target: target(to)?,
        read_only,
    })
}

fn octal(text: &str) -> std::result::Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("{text:?} is no mode"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_written_as_for_docker() {
        let bind = |read_only| ContainerMount {
            source: MountSource::Bind("/usr".into()),
            target: "/b".to_owned(),
            read_only,
        };
        assert_eq!(volume("/usr:/b"), Ok(bind(false)));
        assert_eq!(volume("/usr:/b:ro,z"), Ok(bind(true)));
        assert_eq!(mount("type=bind,src=/usr,dst=/b/,readonly"), Ok(bind(true)));
        assert_eq!(
            mount("type=bind,source=/usr,target=/b,ro=false"),
            Ok(bind(false))
        );
        let memory = tmpfs("/m:size=1m,mode=700,exec").unwrap();
        assert_eq!(
            memory.source,
            MountSource::Tmpfs {
                size: Some(1 << 20),
                mode: 0o700,
                exec: true
            }
        );
        for text in [
            "data:/b",
            "/usr",
            "/usr:b",
            "/usr:/",
            "/usr:/b:what",
            "/usr:/..",
        ] {
            assert!(volume(text).is_err(), "{text}");
        }
        for text in [
            "type=volume,src=a,dst=/b",
            "type=bind,dst=/b",
            "type=bind,src=/usr",
            "x=1",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }
}

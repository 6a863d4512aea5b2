//! `kiln inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Result, output_line, session};
use crate::image::Reference;
use crate::store::{Container, ContainerState, Image, MountSource, Store, StoreError};
use crate::ui::template::Template;

/// Arguments of `kiln inspect`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// What to inspect, where an image and a container have the same name
    #[arg(long = "type", value_parser = ["image", "container"])]
    kind: Option<String>,
    /// `json`, or a Go template such as '{{.Config.Env}}', for each image
    #[arg(short, long)]
    format: Option<String>,
}

/// Arguments of `kiln container inspect`.
#[derive(clap::Args)]
pub(super) struct ContainerArguments {
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Print the bytes that each has changed: kiln doesn't
    #[arg(short, long, hide = true)]
    size: bool,
    /// `json`, or a Go template such as '{{.State.Status}}', for each container
    #[arg(short, long)]
    format: Option<String>,
}

/// What there may be under a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Image,
    Container,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let kind = match arguments.kind.as_deref() {
        Some("image") => Kind::Image,
        Some(_) => Kind::Container,
        None => Kind::Any,
    };
    inspect(&arguments.images, kind, arguments.format.as_deref(), root)
}

pub(super) fn run_images(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    inspect(
        &arguments.images,
        Kind::Image,
        arguments.format.as_deref(),
        root,
    )
}

pub(super) fn run_containers(
    arguments: &ContainerArguments,
    root: Option<PathBuf>,
) -> Result<ExitCode> {
    let format = arguments.format.as_deref();
    inspect(&arguments.containers, Kind::Container, format, root)
}

fn inspect(
    names: &[String],
    kind: Kind,
    format: Option<&str>,
    root: Option<PathBuf>,
) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let template = match format {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let mut found: Vec<Value> = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match find(&store, name, kind) {
            Ok(described) => found.push(described),
            Err(error) => {
                error.show();
                code = ExitCode::FAILURE;
            }
        }
    }
    match (template, format) {
        (Some(template), _) => {
            for mut described in found {
                complete(&mut described);
                output_line(&template.render(&described)?)?;
            }
        }
        (None, Some("json")) => output_line(&serde_json::to_string(&found)?)?,
        (None, _) => output_line(&serde_json::to_string_pretty(&found)?)?,
    }
    Ok(code)
}

/// Returns what there is under a name: a container rather than an image, as in docker.
fn find(store: &Store, name: &str, kind: Kind) -> Result<Value> {
    if kind != Kind::Image {
        match store.find_container(name) {
            Ok(container) => return Ok(describe_container(&container)),
            Err(StoreError::NoContainer(_)) if kind == Kind::Any => {}
            Err(error) => return Err(error.into()),
        }
    }
    describe(&store.find(name)?)
}

/// Returns a container as docker's `inspect` does.
fn describe_container(container: &Container) -> Value {
    let (record, status) = (&container.record, &container.status);
    let settings = &record.settings;
    let mut words = settings.entrypoint.iter().chain(&settings.command);
    let path = words.next().cloned().unwrap_or_default();
    let args: Vec<&String> = words.collect();
    let never = "0001-01-01T00:00:00Z".to_owned();
    let is_running = container.is_running();
    let exit_code = match container.state {
        ContainerState::Exited(code) => code,
        ContainerState::Running | ContainerState::Paused => 0,
        ContainerState::Created => status.exit_code.unwrap_or(0),
    };
    let mounts: Vec<Value> = settings
        .mounts
        .iter()
        .map(|mount| {
            let (kind, source) = match &mount.source {
                MountSource::Bind(path) => ("bind", path.display().to_string()),
                MountSource::Tmpfs { .. } => ("tmpfs", String::new()),
            };
            json!({
                "Type": kind,
                "Source": source,
                "Destination": mount.target,
                "Mode": if mount.read_only { "ro" } else { "" },
                "RW": !mount.read_only,
            })
        })
        .collect();
    json!({
        "Id": record.id,
        "Created": record.created,
        "Path": path,
        "Args": args,
        "State": {
            "Status": container.state.name(),
            "Running": is_running,
            "Paused": container.state == ContainerState::Paused,
            "Restarting": false,
            "OOMKilled": false,
            "Dead": false,
            "Pid": container.process().filter(|_| is_running).map_or(0, |process| process.pid),
            "ExitCode": exit_code,
            "Error": status.error.clone().unwrap_or_default(),
            "StartedAt": status.started.clone().unwrap_or_else(|| never.clone()),
            "FinishedAt": status.finished.clone().unwrap_or(never),
        },
        "Image": record.image,
        "LogPath": container.log(),
        "Name": format!("/{}", record.name),
        "RestartCount": 0,
        "Platform": "linux",
        "Mounts": mounts,
        "Config": {
            "Hostname": settings.hostname,
            "User": settings.user,
            "Tty": settings.terminal,
            "OpenStdin": settings.open_stdin,
            "Env": settings.env,
            "Cmd": settings.command,
            "Image": record.image_name,
            "WorkingDir": settings.working_dir,
            "Entrypoint": settings.entrypoint,
            "Labels": settings.labels,
            "StopSignal": settings.stop_signal,
        },
        "HostConfig": {
            "AutoRemove": settings.remove,
            "NetworkMode": if settings.no_network { "none" } else { "host" },
            "ReadonlyRootfs": settings.read_only,
            "CapDrop": settings.cap_drop,
        },
    })
}

/// Adds the fields that an image leaves out: to a template they are there, and empty.
fn complete(image: &mut Value) {
    let Value::Object(config) = &mut image["Config"] else {
        return;
    };
    for (name, empty) in [
        ("User", json!("")),
        ("ExposedPorts", json!({})),
        ("Env", json!([])),
        ("Entrypoint", json!([])),
        ("Cmd", json!([])),
        ("Healthcheck", Value::Null),
        ("Volumes", json!({})),
        ("WorkingDir", json!("")),
        ("Labels", json!({})),
        ("StopSignal", json!("")),
        ("Shell", json!([])),
        ("OnBuild", json!([])),
    ] {
        config.entry(name).or_insert(empty);
    }
}

/// Returns an image as docker's `inspect` does.
fn describe(image: &Image) -> Result<Value> {
    let references: Vec<Reference> = image
        .refs
        .iter()
        .filter_map(|record| record.name.parse().ok())
        .collect();
    let tags: Vec<String> = references.iter().map(Reference::familiar).collect();
    let digests: std::collections::BTreeSet<String> = image
        .refs
        .iter()
        .filter_map(|record| {
            let reference: Reference = record.name.parse().ok()?;
            let digest = record.digest()?;
            Some(format!("{}@{digest}", reference.familiar_repository()))
        })
        .collect();
    let config = &image.config;
    let last = config.history.last();
    Ok(json!({
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": last.and_then(|entry| entry.comment.clone()).unwrap_or_default(),
        "Created": config.created,
        "Author": config.author.clone().unwrap_or_default(),
        "Config": serde_json::to_value(&config.config)?,
        "Architecture": config.architecture,
        "Variant": config.variant.clone().unwrap_or_default(),
        "Os": config.os,
        "Size": image.size,
        "RootFS": {
            "Type": config.rootfs.kind,
            "Layers": config.rootfs.diff_ids,
        },
    }))
}

//! `kiln inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{CliError, Result, output_line, session};
use crate::image::Reference;
use crate::store::{Image, StoreError};
use crate::ui::template::Template;

/// Arguments of `kiln inspect`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// What to inspect; kiln has images only
    #[arg(long = "type", value_parser = ["image"])]
    kind: Option<String>,
    /// `json`, or a Go template such as '{{.Config.Env}}', for each image
    #[arg(short, long)]
    format: Option<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let template = match arguments.format.as_deref() {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let mut found: Vec<Value> = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for name in &arguments.images {
        match store.find(name) {
            Ok(image) => found.push(describe(&image)?),
            Err(error @ (StoreError::NoImage(_) | StoreError::Ambiguous(_))) => {
                CliError::from(error).show();
                code = ExitCode::FAILURE;
            }
            Err(error) => return Err(error.into()),
        }
    }
    match (template, arguments.format.as_deref()) {
        (Some(template), _) => {
            for mut image in found {
                complete(&mut image);
                output_line(&template.render(&image)?)?;
            }
        }
        (None, Some("json")) => output_line(&serde_json::to_string(&found)?)?,
        (None, _) => output_line(&serde_json::to_string_pretty(&found)?)?,
    }
    Ok(code)
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

//! `RUN --mount`: what a step sees beside its root, and what of that its result depends on.
//! See <https://docs.docker.com/reference/dockerfile/#run---mount>.

mod layout;
mod prepare;
mod trees;

use super::error::{Step, Trouble};
use super::key::Key;
use super::origin::Origin;
use super::sources::{Selected, Tree};
use super::stage::State;
use crate::context::Context;
use crate::dockerfile::{MountKind, MountSpec, Run, join_path};
use crate::image::ChainId;

pub(super) use prepare::Script;

/// Where the socket of an SSH agent is, but for its number. Scripts know the place.
const SSH_SOCKETS: &str = "/run/buildkit/ssh_agent.";

/// Where secrets are files.
const SECRETS: &str = "/run/secrets";

/// The mounts of one RUN, expanded.
pub(super) struct Mounts<'a> {
    list: Vec<Planned<'a>>,
}

/// One mount, expanded.
struct Planned<'a> {
    spec: MountSpec,
    /// Where, absolute and clean; none for a secret that is only a variable.
    target: Option<String>,
    /// What a bind shows, and what a cache begins with.
    source: Option<Source<'a>>,
}

/// A file or directory of a tree.
struct Source<'a> {
    tree: Tree<'a>,
    /// The path as written.
    text: String,
    /// Where that leads to.
    path: Vec<u8>,
    is_directory: bool,
    from: From<'a>,
}

/// What a source is part of.
enum From<'a> {
    /// The build context, of which this is selected.
    Context(Box<Selected<'a>>),
    /// Layers of the store.
    Layers(Option<&'a ChainId>),
}

/// What a key says of a source in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// All that it holds: what else is in the layers does not matter.
    Content,
    /// The layers that it is in: nothing is read.
    Layers,
}

/// Returns the last component of a path.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}

impl<'a> Mounts<'a> {
    /// Expands the mounts of a RUN. `origins` are what their `from` names, in order.
    pub(super) fn plan(
        run: &Run,
        state: &State,
        context: &'a Context,
        origins: &'a [Option<Origin>],
    ) -> Step<Mounts<'a>> {
        let mut list = Vec::new();
        let mut sockets = 0;
        for (mount, origin) in run.mounts.iter().zip(origins) {
            let mut spec = state.scope.expand_mount(mount)?;
            let written = spec.target.clone();
            if spec.kind == MountKind::Secret {
                let id = spec.id.take().or(spec.source.take());
                let named = || {
                    written
                        .as_deref()
                        .map(|target| base_name(target).to_owned())
                };
                spec.id = id.or_else(named);
            }
            let id = spec.id.clone().unwrap_or_default();
            let target = match (spec.kind, written) {
                (_, Some(target)) => Some(target),
                (MountKind::Secret, None) if spec.env.is_some() => None,
                (MountKind::Secret, None) => Some(format!("{SECRETS}/{}", base_name(&id))),
                (MountKind::Ssh, None) => {
                    sockets += 1;
                    Some(format!("{SSH_SOCKETS}{}", sockets - 1))
                }
                (_, None) => Some(String::new()),
            };
            if spec.kind == MountKind::Cache && spec.id.is_none() {
                spec.id = Some(cleaned(target.as_deref().unwrap_or_default()));
            }
            let target = target.map(|target| join_path(&state.config.config.working_dir, &target));
            if let Some(target) = &target {
                check_target(&spec, target)?;
            }
            let source = plan_source(&spec, context, origin.as_ref())?;
            list.push(Planned {
                spec,
                target,
                source,
            });
        }
        Ok(Mounts { list })
    }

    /// Tells whether a key by identity says something else than one by content.
    pub(super) fn have_layers(&self) -> bool {
        let sources = self.list.iter().filter_map(|mount| mount.source.as_ref());
        sources
            .into_iter()
            .any(|source| matches!(source.from, From::Layers(_)))
    }

    /// Returns what is mounted of contexts: what their files hold has to be read before there
    /// is a key.
    pub(super) fn of_contexts<'s>(&'s mut self) -> impl Iterator<Item = &'s mut Selected<'a>> {
        let sources = self
            .list
            .iter_mut()
            .filter_map(|mount| mount.source.as_mut());
        sources.filter_map(|source| match &mut source.from {
            From::Context(selected) => Some(&mut **selected),
            From::Layers(_) => None,
        })
    }

    /// Adds what the result depends on: of binds the content, of all others the form only.
    /// Neither the id of a cache, nor how it is shared, nor the value of a secret is part of it.
    pub(super) fn add_to_key(&self, key: &mut Key, by: By) -> Step<()> {
        key.number(self.list.len() as u64);
        for Planned {
            spec,
            target,
            source,
        } in &self.list
        {
            key.text(spec.kind.name())
                .text(target.as_deref().unwrap_or_default())
                .text(spec.env.as_deref().unwrap_or_default())
                .number(spec.read_only.into())
                .number(spec.size.unwrap_or_default());
            if matches!(spec.kind, MountKind::Secret | MountKind::Ssh) {
                key.text(spec.id.as_deref().unwrap_or_default());
            }
            if let Some(source) = source {
                source.add_to_key(key, by)?;
            }
        }
        Ok(())
    }
}

impl<'a> Source<'a> {
    fn of_context(context: &'a Context, text: String) -> Step<Source<'a>> {
        let tree = Tree::context(context);
        let selected = Box::new(tree.one(&text)?);
        Ok(Source {
            tree,
            text,
            is_directory: selected.top().stat.is_dir(),
            path: selected.top().path.clone(),
            from: From::Context(selected),
        })
    }

    fn add_to_key(&self, key: &mut Key, by: By) -> Step<()> {
        match (&self.from, by) {
            (From::Context(selected), _) => selected.hash(key.text("context")),
            (From::Layers(chain_id), By::Layers) => {
                key.text("layers").chain(*chain_id).bytes(&self.path);
                Ok(())
            }
            (From::Layers(_), By::Content) => {
                let mut selected = self.tree.one(&self.text)?;
                selected.read_contents(None)?;
                selected.hash(key.text("files"))
            }
        }
    }
}

/// Returns a path without superfluous slashes and dots, relative if it was.
fn cleaned(path: &str) -> String {
    let absolute = join_path("", path);
    match path.starts_with('/') {
        true => absolute,
        false => absolute[1..].to_owned(),
    }
}

fn check_target(spec: &MountSpec, target: &str) -> Step<()> {
    let kind = spec.kind.name();
    if target == "/" {
        let hint = match &spec.target {
            Some(_) => "give it a target below: target=/path",
            None => "give it a target: target=/path (without one it is the working directory)",
        };
        return Err(Trouble::hinted(
            format!("a mount of type {kind} can't be at \"/\""),
            hint,
        ));
    }
    let first = target[1..].split('/').next().unwrap_or_default();
    if ["proc", "sys"].contains(&first) || target == "/dev" {
        return Err(Trouble::hinted(
            format!("a mount of type {kind} can't be at {target:?}: the kernel's files are there"),
            "choose another target",
        ));
    }
    Ok(())
}

fn plan_source<'a>(
    spec: &MountSpec,
    context: &'a Context,
    origin: Option<&'a Origin>,
) -> Step<Option<Source<'a>>> {
    let text = spec.source.clone().unwrap_or_else(|| "/".to_owned());
    match (spec.kind, origin) {
        (MountKind::Bind | MountKind::Cache, Some(Origin::Layers { view, chain_id })) => {
            let tree = Tree::mounted(view);
            let node = tree.node(&text)?;
            Ok(Some(Source {
                tree,
                text,
                is_directory: node.stat.is_dir(),
                path: node.path,
                from: From::Layers(chain_id.as_ref()),
            }))
        }
        (MountKind::Bind | MountKind::Cache, Some(Origin::Context(context))) => {
            Ok(Some(Source::of_context(context, text)?))
        }
        (MountKind::Bind, None) => Ok(Some(Source::of_context(context, text)?)),
        (MountKind::Cache, None) if spec.source.is_some() => Err(Trouble::hinted(
            "the source of a cache needs a from: the stage or image that it begins with",
            "leave source out for a cache that begins empty",
        )),
        _ => Ok(None),
    }
}

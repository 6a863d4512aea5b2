//! What a Dockerfile offers to who builds it: its targets, arguments and secrets, with their
//! descriptions.

use std::collections::{BTreeMap, BTreeSet};

use super::comments_above;
use super::variables::expand_noting;
use crate::dockerfile::{
    Diagnostics, Dockerfile, InstructionKind, MountKind, Scope, Source, Span, Stage,
};

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetInfo {
    /// Its name.
    pub name: Option<String>,
    /// Whether it is built when no target is named.
    pub default: bool,
    /// The comment above it, if that begins with the name.
    pub description: Option<String>,
    /// What FROM says, as written.
    pub base: String,
    /// What `--platform` says, as written.
    pub platform: Option<String>,
    /// The FROM line.
    pub span: Span,
}

/// What can be given to the build of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The name of the target.
    pub name: Option<String>,
    /// The comment above it, if that begins with the name.
    pub description: Option<String>,
    /// Build arguments, in order of the file.
    pub args: Vec<ArgInfo>,
    /// Secrets that steps mount.
    pub secrets: Vec<UsedInfo>,
    /// Ssh agents that steps mount.
    pub ssh: Vec<UsedInfo>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgInfo {
    /// Its name.
    pub name: String,
    /// The comment above it, if that begins with the name.
    pub description: Option<String>,
    /// The value that it has now.
    pub value: Option<String>,
    /// The ARG.
    pub span: Span,
}

/// A secret, or an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedInfo {
    /// Its id.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The RUN.
    pub span: Span,
}

/// Returns the description of `name` in the comments above a place.
fn description(source: &Source, span: Span, name: &str) -> Option<String> {
    let comments = comments_above(source, span);
    let own = |line: &&str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    comments.iter().find_map(own)
}

fn describe(source: &Source, stage: &Stage) -> Option<String> {
    description(source, stage.from.span, stage.name.as_deref()?)
}

impl Dockerfile {
    /// Returns the stages that can be built.
    pub fn targets(&self, source: &Source) -> Vec<TargetInfo> {
        let target = |stage: &Stage| TargetInfo {
            name: stage.name.clone(),
            default: stage.index + 1 == self.stages.len(),
            description: describe(source, stage),
            base: stage.from.base.text.clone(),
            platform: stage.from.platform.as_ref().map(|word| word.text.clone()),
            span: stage.from.span,
        };
        self.stages.iter().map(target).collect()
    }

    /// Returns what can be given to the build of a target.
    ///
    /// # Errors
    /// There is no such target, or a FROM line can't be resolved.
    pub fn outline(
        &self,
        source: &Source,
        target: Option<&str>,
        build_args: &BTreeMap<String, String>,
        predefined: &BTreeMap<String, String>,
    ) -> Result<Outline, Diagnostics> {
        let plan = self.plan(target, build_args, predefined)?;
        let mut outline = Outliner {
            source,
            globals: &plan.globals,
            build_args,
            args: Vec::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            used: BTreeSet::new(),
        };
        // The target comes first: an ARG of its own hides one of the same name elsewhere.
        for index in plan.order.iter().rev() {
            outline.stage(self, &self.stages[*index]);
        }
        outline.global_args(self);
        let Outliner {
            mut args,
            mut secrets,
            mut ssh,
            ..
        } = outline;
        args.sort_by_key(|arg| arg.span.start);
        secrets.sort_by_key(|secret| secret.span.start);
        ssh.sort_by_key(|agent| agent.span.start);
        let stage = &self.stages[plan.target];
        Ok(Outline {
            name: stage.name.clone(),
            description: describe(source, stage),
            args,
            secrets,
            ssh,
        })
    }
}

struct Outliner<'a> {
    source: &'a Source,
    globals: &'a BTreeMap<String, String>,
    build_args: &'a BTreeMap<String, String>,
    args: Vec<ArgInfo>,
    secrets: Vec<UsedInfo>,
    ssh: Vec<UsedInfo>,
    /// Names of ARGs before the first FROM that are used.
    used: BTreeSet<String>,
}

impl Outliner<'_> {
    fn stage(&mut self, file: &Dockerfile, stage: &Stage) {
        let globals = self.globals;
        for word in [Some(&stage.from.base), stage.from.platform.as_ref()] {
            let Some(word) = word else { continue };
            let lookup = |name: &str| globals.get(name).cloned();
            let (_, met) = expand_noting(&lookup, |lookup| word.expand(lookup, file.escape));
            self.used.extend(met.matched);
            self.used.extend(met.unmatched);
        }
        let mut scope = Scope::new(globals, self.build_args, &[], file.escape);
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(items) => {
                    for item in items {
                        let value = scope.declare_arg(item).unwrap_or_default();
                        let own = item.default.is_some();
                        if !own && is_global(file, &item.name) {
                            self.used.insert(item.name.clone());
                        } else if own || !globals.contains_key(&item.name) {
                            self.arg(&item.name, value, instruction.span);
                        }
                    }
                }
                InstructionKind::Env(pairs) => {
                    for (name, value) in scope.expand_pairs(pairs).unwrap_or_default() {
                        scope.set_env(&name, &value);
                    }
                }
                InstructionKind::Run(run) => {
                    let mounts = run.mounts.iter().filter_map(|m| scope.expand_mount(m).ok());
                    for mount in mounts {
                        let list = match mount.kind {
                            MountKind::Secret => &mut self.secrets,
                            MountKind::Ssh => &mut self.ssh,
                            _ => continue,
                        };
                        let name = mount.id.clone().unwrap_or_else(|| "default".to_owned());
                        if list.iter().all(|used| used.name != name) {
                            list.push(UsedInfo {
                                name,
                                required: mount.required,
                                span: instruction.span,
                            });
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn arg(&mut self, name: &str, value: Option<String>, span: Span) {
        if self.args.iter().all(|arg| arg.name != name) {
            self.args.push(ArgInfo {
                name: name.to_owned(),
                description: description(self.source, span, name),
                value,
                span,
            });
        }
    }

    /// Adds the ARGs before the first FROM that are used, and those that their defaults use.
    fn global_args(&mut self, file: &Dockerfile) {
        let mut visited = BTreeSet::new();
        while let Some(name) = self.used.pop_first() {
            if !visited.insert(name.clone()) {
                continue;
            }
            for instruction in &file.global_args {
                let InstructionKind::Arg(items) = &instruction.kind else {
                    continue;
                };
                for item in items.iter().filter(|item| item.name == name) {
                    let globals = self.globals;
                    if let Some(default) = &item.default {
                        let lookup = |name: &str| globals.get(name).cloned();
                        let expand = |lookup: &dyn Fn(&str) -> Option<String>| {
                            default.expand(lookup, file.escape)
                        };
                        let (_, met) = expand_noting(&lookup, expand);
                        self.used.extend(met.matched);
                    }
                    self.arg(&name, globals.get(&name).cloned(), instruction.span);
                }
            }
        }
    }
}

fn is_global(file: &Dockerfile, name: &str) -> bool {
    file.global_args.iter().any(|instruction| {
        matches!(&instruction.kind, InstructionKind::Arg(items)
            if items.iter().any(|item| item.name == name))
    })
}

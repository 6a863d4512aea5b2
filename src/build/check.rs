//! Checks of a Dockerfile, with what the context and the store know around it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::contexts::{self, Opened};
use super::{BuildError, Options, predefined_args};
use crate::context::Context;
use crate::dockerfile::check::{self, Findings, Subject};
use crate::dockerfile::{self, Diagnostics, Dockerfile, Plan, Source};
use crate::event::{Event, Reporter};
use crate::image::Platform;
use crate::store::Store;

/// A build shows this many findings; `--check` shows them all.
const SHOWN: usize = 10;

/// A Dockerfile that was looked at and not built.
pub struct Examined {
    /// The text.
    pub source: Arc<Source>,
    /// The same, parsed; nothing where that failed.
    pub file: Option<Dockerfile>,
    /// The platform arguments.
    pub predefined: BTreeMap<String, String>,
    /// What checks found.
    pub findings: Findings,
    /// Why it could not be built.
    pub error: Option<Diagnostics>,
}

/// Looks at a Dockerfile as a build would, without doing anything. Base images are known as far
/// as the store has them.
///
/// # Errors
/// The context or the Dockerfile can't be read.
pub fn examine(options: &Options, store: Option<&Store>) -> Result<Examined, BuildError> {
    let Opened {
        context,
        dockerfile,
    } = contexts::open_in_place(options)?;
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let mut examined = Examined {
        source: Arc::new(dockerfile),
        file: None,
        predefined: predefined_args(&platform, options.target.as_deref()),
        findings: Findings::default(),
        error: None,
    };
    let frontend = options.build_args.get("BUILDKIT_SYNTAX");
    let file = match dockerfile::parse_for(&examined.source, frontend.map(String::as_str)) {
        Ok(file) => file,
        Err(error) => {
            examined.error = Some(error);
            return Ok(examined);
        }
    };
    let target = options.target.as_deref();
    let plan = file.plan_with_contexts(
        target,
        &options.build_args,
        &examined.predefined,
        &options.contexts.keys().cloned().collect(),
    );
    // Without a target, all of them.
    let stages = match (&plan, target) {
        (Ok(plan), Some(_)) => Some(plan.order.as_slice()),
        _ => None,
    };
    let around = Around {
        options,
        context: &context,
        store,
        platform: &platform,
        predefined: &examined.predefined,
    };
    match around.findings(&examined.source, &file, stages) {
        Ok(findings) => examined.findings = findings,
        Err(error) => examined.error = Some(error),
    }
    if let Err(error) = plan {
        examined.error = Some(error);
    }
    examined.file = Some(file);
    Ok(examined)
}

/// What is known around a Dockerfile.
pub(super) struct Around<'a> {
    pub(super) options: &'a Options,
    pub(super) context: &'a Context,
    pub(super) store: Option<&'a Store>,
    pub(super) platform: &'a Platform,
    pub(super) predefined: &'a BTreeMap<String, String>,
}

impl Around<'_> {
    fn findings(
        &self,
        source: &Source,
        file: &Dockerfile,
        stages: Option<&[usize]>,
    ) -> Result<Findings, Diagnostics> {
        let base = |name: &str| Some(self.store?.find(name).ok()?.config);
        let contexts = self.options.contexts.keys().cloned().collect();
        let subject = Subject {
            source,
            file,
            build_args: &self.options.build_args,
            predefined: self.predefined,
            platform: self.platform,
            stages,
            contexts: &contexts,
            excluded: &|path| self.context.ignore().excludes_for_good(path),
            base: &base,
        };
        Ok(check::run(&subject)?)
    }

    /// Reports what checks find in the stages of a plan.
    ///
    /// # Errors
    /// The `check` directive can't be read, or makes a finding an error.
    pub(super) fn warn(
        &self,
        source: &Arc<Source>,
        file: &Dockerfile,
        plan: &Plan,
        reporter: &dyn Reporter,
    ) -> Result<(), BuildError> {
        let findings = self
            .findings(source, file, Some(&plan.order))
            .map_err(|diagnostics| BuildError::Dockerfile {
                diagnostics,
                source_text: source.clone(),
            })?;
        if self.options.show_checks {
            show(source, &findings, reporter);
        }
        match findings.error {
            true => Err(BuildError::Checks(findings.names().join(", "))),
            false => Ok(()),
        }
    }
}

fn show(source: &Source, findings: &Findings, reporter: &dyn Reporter) {
    let count = findings.all.len();
    for (index, finding) in findings.all.iter().take(SHOWN).enumerate() {
        let line = source.line_of(finding.span.start);
        let (name, message) = (finding.check.name, &finding.message);
        let last = index + 1 == count.min(SHOWN);
        let more = match count.saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("{more} more: "),
        };
        reporter.report(Event::Warning {
            message: format!("{}:{line}: {message} ({name})", source.name),
            hint: last.then(|| {
                format!(
                    "{more}kiln build --check shows the lines, \
                     kiln check --explain {name} says why and how to skip it"
                )
            }),
        });
    }
}

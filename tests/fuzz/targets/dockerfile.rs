//! Parser and plan: every text is parsed or refused, and what is reported lies within it.
#![no_main]

use std::collections::BTreeMap;

use kiln::dockerfile::{
    self, Dockerfile, InstructionKind, Plan, Source, Span, parse_onbuild_trigger,
};
use libfuzzer_sys::fuzz_target;

fn within(source: &Source, span: Span) {
    assert!(span.start <= span.end, "{span:?}");
    assert!(source.text.get(span.start..span.end).is_some(), "{span:?}");
}

fn check_file(source: &Source, file: &Dockerfile) {
    assert!(!file.stages.is_empty());
    let mut end = 0;
    let arguments = file.global_args.iter().map(|i| i.span);
    let in_stages = file.stages.iter().flat_map(|stage| {
        within(source, stage.span);
        assert!(stage.span.start <= stage.from.span.start);
        [stage.from.span]
            .into_iter()
            .chain(stage.instructions.iter().map(|i| i.span))
    });
    // One after the other, without overlapping.
    for span in arguments.chain(in_stages) {
        within(source, span);
        assert!(
            span.start >= end && span.end > span.start,
            "{span:?} after {end}"
        );
        end = span.end;
    }
    for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
        let name = instruction.kind.name();
        let written = &source.text[instruction.span.start..];
        // A continuation may stand within the name.
        if !written[..written.len().min(name.len())].contains(['\\', '`']) {
            assert!(
                written
                    .get(..name.len())
                    .is_some_and(|w| w.eq_ignore_ascii_case(name))
            );
        }
        if let InstructionKind::OnBuild(trigger) = &instruction.kind {
            // What the config keeps is read again by whoever builds on the image.
            if file.escape == '\\' {
                let read = parse_onbuild_trigger(&trigger.raw).expect("a trigger is read again");
                assert_eq!(read.kind.name(), trigger.instruction.kind.name());
            }
        }
    }
}

fn check_plan(file: &Dockerfile, plan: &Plan) {
    assert_eq!(plan.stages.len(), file.stages.len());
    assert_eq!(plan.order.last(), Some(&plan.target));
    for (place, stage) in plan.order.iter().enumerate() {
        let done = &plan.order[..place];
        assert!(plan.needs(*stage).iter().all(|need| done.contains(need)));
    }
}

fuzz_target!(|text: &str| {
    let source = Source::new("Dockerfile", text);
    let found = match dockerfile::parse(&source) {
        Ok(file) => {
            check_file(&source, &file);
            match file.plan(None, &BTreeMap::new(), &BTreeMap::new()) {
                Ok(plan) => {
                    check_plan(&file, &plan);
                    return;
                }
                Err(found) => found,
            }
        }
        Err(found) => found,
    };
    assert!(!found.0.is_empty());
    for finding in &found.0 {
        within(&source, finding.span);
    }
    let rendered = found.render(&source);
    assert!(rendered.starts_with("error: ") && !rendered.contains('\u{1b}'));
});

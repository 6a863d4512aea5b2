//! A registry that says nothing any more: it takes the minute that silence is borne.

mod support;

use support::{Fault, FaultyRegistry, Kiln};

#[test]
fn layer_that_stalls_is_gone_on_with_after_a_while() {
    support::soak_only!();
    let (registry, kiln) = (FaultyRegistry::start(), Kiln::new());
    let image = registry.image("1", &[("hello", "hello\n")]);
    let path = format!("app/blobs/{}", image.layer);
    registry.fault_times(&path, Fault::Stall(700), 1);
    kiln.run(["pull", &registry.reference("1")]).ok();
    assert_eq!(registry.sent(&path), 2048);
}

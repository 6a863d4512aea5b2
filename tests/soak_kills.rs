//! kill -9 at a hundred random moments, for `ci/soak`.

mod support;

use support::{Registry, Victim, soak_only};

#[test]
fn store_works_after_a_hundred_kills() {
    soak_only!();
    // The large base: its pull takes long enough to be hit in all of its parts.
    let mut victim = Victim::new(Registry::shared().debian());
    for _ in 0..10 {
        victim.suffer(10);
        victim.assert_unharmed();
    }
}

//! A kiln that is killed leaves a store that works, and no process. The long version is
//! `soak_kills`.

mod support;

use support::{Registry, Victim};

#[test]
fn store_works_after_kills_at_random_moments() {
    let mut victim = Victim::new(Registry::shared().multi());
    victim.suffer(8);
    victim.assert_unharmed();
}

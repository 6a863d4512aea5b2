//! Layers of 2 GiB, for `ci/soak`. Takes some 12 GiB of disk and a few minutes.

mod support;

use support::{assert_large_layers_pass, soak_only};

#[test]
fn layers_of_2_gib_pass_through_all_that_is_done_with_images() {
    soak_only!();
    assert_large_layers_pass(2048, 100);
}

//! No blob is ever held in memory. `ci/soak` does the same with layers of 2 GiB.

mod support;

use support::assert_large_layers_pass;

#[test]
fn layers_larger_than_the_limit_pass_through_all_that_is_done_with_images() {
    assert_large_layers_pass(96, 80);
}

//! Stacks of more layers than the kernel mounts at once.

mod support;

use support::{Kiln, Registry};

/// The kernel's own limit is 500.
const STEPS: usize = 510;

#[test]
fn more_steps_than_an_overlay_has_layers() {
    let kiln = Kiln::new();
    let mut dockerfile = format!("FROM {}\n", Registry::shared().busybox());
    // Early files that late steps remove, replace and look at, across what is merged.
    dockerfile.push_str(
        "RUN mkdir -m 1777 /d && echo old > /early && echo x > /gone && chown 7:8 /early\n",
    );
    for step in 0..STEPS {
        dockerfile.push_str(&format!(
            "RUN echo {step} > /d/{step} && rm -f /d/{} && test -e /early\n",
            step as i64 - 3
        ));
    }
    dockerfile.push_str(
        "RUN rm /gone && ls /d | wc -l > /left && stat -c %u:%g:%a:%h /early /d > /seen\n",
    );
    kiln.build(&dockerfile, &[]).ok();
    let cat = |file: &str| kiln.run(["run", "--rm", "test", "cat", file]).ok().stdout();
    assert_eq!(cat("/left"), "3\n");
    let seen = cat("/seen");
    assert!(seen.starts_with("7:8:644:"), "{seen}");
    assert!(
        seen.lines().nth(1).unwrap().starts_with("0:0:1777:"),
        "{seen}"
    );
    let image = kiln.image("test");
    assert_eq!(image.layers.len(), STEPS + 3);
    assert!(image.tree.get("/gone").is_none());
    assert!(image.tree.get("/d/100").is_none());
    assert_eq!(image.tree.file("/early").content(), b"old\n");
    assert_eq!(
        image.layers.last().unwrap().len(),
        3,
        "{:?}",
        image.layers.last()
    );
    let again = kiln.build(&dockerfile, &[]).ok();
    assert!(!again.stderr().contains("0.000"), "{again}");
}

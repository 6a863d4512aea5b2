//! Large layers through all that kiln does with images, and how much memory that takes.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use super::{Bases, Kiln, Registry, Sandbox, say};

/// Builds an image with a layer of noise and one that is a hole, of so many MiB each; pushes,
/// pulls, saves and loads it. Asserts that no process of kiln, and nothing that it waited for,
/// ever had more than `limit` MiB resident.
///
/// The kernel counts for this whole process: a file of tests has room for one call of this.
pub fn assert_large_layers_pass(mebibytes: u64, limit: i64) {
    let registry = Registry::start();
    let name = registry.reference("large:1");
    let kiln = || Kiln::within(Sandbox::on_disk()).limit(Duration::from_secs(3600));
    let mut peaks = Vec::new();
    let mut note = |what: &str| {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        peaks.push((what.to_owned(), usage.max_rss() / 1024));
    };
    let archives = Sandbox::on_disk();
    let archive = archives.join("image.tar");
    let archive = archive.to_str().unwrap();

    let from = kiln();
    let base = Bases::shared().busybox_tar();
    from.run(["import", base.to_str().unwrap(), "base"]).ok();
    note("before");
    let dockerfile = format!(
        "FROM base\n\
         RUN dd if=/dev/urandom of=/noise bs=1M count={mebibytes} && sha256sum /noise > /sum\n\
         RUN truncate -s {mebibytes}M /hole\n"
    );
    from.build(&dockerfile, &[]).ok();
    note("build");
    from.run(["tag", "test", &name]).ok();
    from.run(["push", "-q", &name]).ok();
    note("push");
    let packed = registry.reference("packed:1");
    let copy = ["copy", "-q", "--compression", "zstd", &name, &packed];
    from.run(copy).ok();
    note("copy");
    let id = from.run(["images", "-q", "--no-trunc", "test"]).ok().line();
    drop(from);

    let to = kiln();
    assert_eq!(to.run(["pull", "-q", &name]).ok().line(), id);
    note("pull");
    to.run(["save", "-o", archive, &name]).ok();
    note("save");
    drop(to);

    let back = kiln();
    back.run(["load", "-q", "-i", archive]).ok();
    note("load");
    assert_eq!(
        back.run(["images", "-q", "--no-trunc", &name]).ok().line(),
        id
    );
    back.run(["run", "--rm", &name, "sh", "-ec", "sha256sum -c /sum"])
        .ok();
    say(&format!("peaks in MiB, each of all so far: {peaks:?}"));
    assert!(peaks.iter().all(|(_, peak)| *peak <= limit), "{peaks:?}");
}

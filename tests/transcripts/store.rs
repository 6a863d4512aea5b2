//! The store as a whole: what it takes, what can go, whether it is sound; and the machine.

use expect_test::expect;
use serde_json::json;

use crate::support::{FaultyRegistry, Session, tar_of};

/// A user with an image of 1234 bytes, and one built on it.
fn session() -> Session {
    let registry = FaultyRegistry::start();
    let layer = tar_of(&[("a", &"a".repeat(1234))]);
    registry.image_of("one", &layer, json!({}));
    let session = Session::new().call(&registry.address(), "registry.test");
    session.files(&[("Dockerfile", "FROM registry.test/app:one\nCOPY Dockerfile /\n")]).prepare(
        "sed -i s,registry.test,ADDRESS, Dockerfile"
    )
}

#[test]
fn nothing_there() {
    Session::new().transcript(expect![[r#"
        $ kiln du
        TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE
        Images          0         0         0B        0B
        Containers      0         0         0B        0B
        Build Cache     0         0         0B        0B
        Cache Mounts    0         0         0B        0B
        URLs            0         0         0B        0B
        Contexts        0         0         0B        0B
        Unused Layers   0         0         0B        0B
        Blobs           0         0         0B        0B
        Records         0         0         0B        0B
        Trash           0         0         0B        0B
        $ kiln du -v
        Images space usage:

        REPOSITORY   TAG       IMAGE ID   CREATED   SIZE      SHARED SIZE   UNIQUE SIZE

        Build cache usage: 0B

        CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   SHARED
        $ kiln prune
        Total reclaimed space: 0B
        $ kiln image prune
        Total reclaimed space: 0B
        $ kiln builder prune
        Total reclaimed space: 0B
        $ kiln system prune
        Total reclaimed space: 0B
        $ kiln fsck
        Verified 0 blobs, 0 layers, 0 images, 0 names, 0 records: no damage
        $ kiln system reset
        $ ls -A .local/share
    "#]]);
}

//! The store as a whole: what it takes, what can go, whether it is sound; and the machine.

use expect_test::expect;
use serde_json::json;

use crate::support::{FaultyRegistry, Session, tar_of};

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
        Merged Trees    0         0         0B        0B
        Sessions        0         0         0B        0B
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

#[test]
fn filled_pruned_damaged_and_reset() {
    let registry = FaultyRegistry::start();
    let layer = tar_of(&[("a", &"a".repeat(1234))]);
    registry.image_of("one", &layer, json!({}));
    let session = Session::new()
        .call(&registry.address(), "registry.test")
        .prepare("kiln pull -q registry.test/app:one && kiln tag registry.test/app:one base")
        .files(&[("Dockerfile", "FROM base\nCOPY Dockerfile /\n")]);
    session.transcript(expect![[r#"
        $ kiln build -q -t mine .
        sha256:1111111111111111111111111111111111111111111111111111111111111111
        $ echo 'LABEL a=b' >> Dockerfile; touch -d @0 Dockerfile; kiln build -q -t mine .
        sha256:2222222222222222222222222222222222222222222222222222222222222222
        $ kiln images
        REPOSITORY          TAG       IMAGE ID       CREATED        SIZE
        mine                latest    222222222222   NN years ago   1.27kB
        <none>              <none>    111111111111   NN years ago   1.26kB
        registry.test/app   one       333333333333   NN years ago   1.23kB
        base                latest    333333333333   NN years ago   1.23kB
        $ kiln du --format '{{.Type}}: {{.TotalCount}}, {{.Active}} active'
        Images: 3, 2 active
        Containers: 0, 0 active
        Build Cache: 2, 2 active
        Cache Mounts: 0, 0 active
        URLs: 0, 0 active
        Contexts: 0, 0 active
        Unused Layers: 0, 0 active
        Blobs: 5, 5 active
        Records: 12, 11 active
        Merged Trees: 0, 0 active
        Sessions: 0, 0 active
        Trash: 0, 0 active
        $ kiln system df --format '{{.Type}} {{.TotalCount}}'
        Images 3
        Containers 0
        Build Cache 2
        Cache Mounts 0
        URLs 0
        Contexts 0
        Unused Layers 0
        Blobs 5
        Records 12
        Merged Trees 0
        Sessions 0
        Trash 0
        $ kiln system df --format '{{.Kind}}'
        2> error: invalid template: there is no field .Kind
        2> hint: the fields are Active, Reclaimable, Size, TotalCount, Type
        [exit code 1]
        $ kiln du --format '{{.Kind}}'
        2> error: invalid template: there is no field .Kind
        2> hint: the fields are Active, Reclaimable, Size, TotalCount, Type
        [exit code 1]
        $ kiln du -v
        Images space usage:

        REPOSITORY          TAG       IMAGE ID       CREATED        SIZE      SHARED SIZE   UNIQUE SIZE
        mine                latest    222222222222   NN years ago   1.27kB    1.23kB        38B
        <none>              <none>    111111111111   NN years ago   1.26kB    1.23kB        28B
        registry.test/app   one       333333333333   NN years ago   1.23kB    1.23kB        0B
        base                latest    333333333333   NN years ago   1.23kB    1.23kB        0B

        Build cache usage: 0B

        CACHE ID       CACHE TYPE   SIZE      CREATED        LAST USED     SHARED
        444444444444   regular      38B       NN years ago   moments ago   true
        555555555555   regular      28B       NN years ago   moments ago   true
        $ kiln prune --filter colour=red
        2> error: invalid filter "colour=red"
        2> hint: the filters are until=TIME, label=NAME[=VALUE] and label!=NAME[=VALUE]
        [exit code 2]
        $ kiln prune --keep-storage much
        2> error: invalid value 'much' for '--keep-storage <SIZE>': expected a size such as 500MB or 10GB
        2>
        2> For more information, try '--help'.
        [exit code 2]
        $ kiln image prune
        Deleted Images:
        deleted: sha256:1111111111111111111111111111111111111111111111111111111111111111

        Total reclaimed space: 525B
        $ kiln image prune --filter until=never
        2> error: invalid time "never" in the filter until
        2> hint: give a duration such as 24h, or a date such as 2026-01-31T12:00:00
        [exit code 2]
        $ kiln builder prune --keep-storage 1GB
        Total reclaimed space: 0B
        $ kiln builder prune --filter colour=red
        2> error: invalid filter "colour=red"
        2> hint: the filters are until=TIME, label=NAME[=VALUE] and label!=NAME[=VALUE]
        [exit code 2]
        $ kiln prune
        Total reclaimed space: 0B
        $ kiln fsck
        Verified 4 blobs, 3 layers, 2 images, 3 names, 5 records: no damage
        $ rm .local/share/kiln/blobs/sha256/*
        $ kiln fsck
        images/2222222222222222222222222222222222222222222222222222222222222222: its config is missing
        images/3333333333333333333333333333333333333333333333333333333333333333: its config is missing
        refs/registry.test%2fapp%3aone: registry.test/app:one: its config is missing
        refs/docker.io%2flibrary%2fbase%3alatest: docker.io/library/base:latest: its config is missing
        refs/docker.io%2flibrary%2fmine%3alatest: docker.io/library/mine:latest: its config is missing
        Verified 0 blobs, 3 layers, 2 images, 3 names, 5 records: 5 damages
        `kiln fsck --repair` removes what is damaged: pull or build it again then
        [exit code 1]
        $ kiln fsck --repair
        images/2222222222222222222222222222222222222222222222222222222222222222: its config is missing (removed)
        images/3333333333333333333333333333333333333333333333333333333333333333: its config is missing (removed)
        refs/registry.test%2fapp%3aone: registry.test/app:one: its config is missing (removed)
        refs/docker.io%2flibrary%2fbase%3alatest: docker.io/library/base:latest: its config is missing (removed)
        refs/docker.io%2flibrary%2fmine%3alatest: docker.io/library/mine:latest: its config is missing (removed)
        Verified 0 blobs, 3 layers, 2 images, 3 names, 5 records: 5 damages
        $ kiln fsck -q
        $ kiln images
        REPOSITORY   TAG       IMAGE ID   CREATED   SIZE
        $ kiln build -q --pull=never -t mine .
        2> error: base for linux/amd64 is not in the store, and --pull=never forbids to pull it
        2>  --> Dockerfile:1:1
        2>   |
        2> 1 | FROM base
        2>   | ^^^^^^^^^
        2> hint: kiln pull base
        [exit code 1]
        $ kiln system prune --all
        Deleted build cache objects:
        555555555555
        444444444444

        Total reclaimed space: 1.53kB
        $ kiln system prune --filter colour=red
        2> error: invalid filter "colour=red"
        2> hint: the filters are until=TIME, label=NAME[=VALUE] and label!=NAME[=VALUE]
        [exit code 2]
        $ kiln system reset -f
        $ mkdir -p elsewhere/kept
        $ kiln --root elsewhere system reset -f
        2> error: elsewhere is no store of kiln: nothing was removed
        [exit code 1]
        $ kiln --root /dev/null images
        2> error: cannot create the store /dev/null: File exists (os error 17)
        [exit code 1]
    "#]]);
}

#[test]
fn machine() {
    Session::new()
        .call(env!("CARGO_PKG_VERSION"), "VERSION")
        .transcript(expect![[r#"
        $ kiln version
        kiln VERSION (linux/amd64)
        $ kiln --version
        kiln VERSION
        $ kiln version --format yaml
        2> error: invalid value 'yaml' for '--format <FORMAT>'
        2>   [possible values: json]
        2>
        2> For more information, try '--help'.
        [exit code 2]
        $ kiln doctor | grep -o '^kernel:'
        kernel:
        $ kiln doctor --format yaml
        2> error: invalid value 'yaml' for '--format <FORMAT>'
        2>   [possible values: json]
        2>
        2> For more information, try '--help'.
        [exit code 2]
        $ kiln unshare id -u
        0
        $ kiln unshare no-such-program
        2> error: cannot execute "no-such-program": No such file or directory (os error 2)
        [exit code 127]
        $ kiln unshare sh -c 'exit 4'
        [exit code 4]
        $ kiln 2>&1 | head -n 3
        Build container images from Dockerfiles, without root and without a daemon

        Usage: kiln [OPTIONS] <COMMAND>
        $ kiln frobnicate
        2> error: unrecognized subcommand 'frobnicate'
        2>
        2> Usage: kiln [OPTIONS] <COMMAND>
        2>
        2> For more information, try '--help'.
        [exit code 2]
        $ kiln biuld .
        2> error: unrecognized subcommand 'biuld'
        2>
        2>   tip: some similar subcommands exist: 'builder', 'build'
        2>
        2> Usage: kiln [OPTIONS] <COMMAND>
        2>
        2> For more information, try '--help'.
        [exit code 2]
    "#]]);
}

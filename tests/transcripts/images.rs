//! Images in the store: listed, looked at, named, removed.

use expect_test::expect;
use serde_json::json;

use crate::support::{FaultyRegistry, Session, tar_of};

/// A user with two images to pull.
fn session() -> Session {
    let registry = FaultyRegistry::start();
    let layer = tar_of(&[("a", &"a".repeat(1234))]);
    registry.image_of("one", &layer, json!({}));
    registry.image_of("two", &tar_of(&[("b", "b")]), json!({}));
    Session::new().call(&registry.address(), "registry.test")
}

#[test]
fn empty_store() {
    Session::new().transcript(expect![[r#"
        $ kiln images
        REPOSITORY   TAG       IMAGE ID   CREATED   SIZE
        $ kiln image ls
        REPOSITORY   TAG       IMAGE ID   CREATED   SIZE
        $ kiln images -q
        $ kiln images --format json
        $ kiln images nothing
        REPOSITORY   TAG       IMAGE ID   CREATED   SIZE
        $ kiln inspect nothing
        []
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln image inspect nothing
        []
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln history nothing
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln image history nothing
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln tag nothing something
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln image tag nothing something
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln rmi nothing
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln rmi -f nothing
        $ kiln image rm nothing
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln save nothing -o nothing.tar
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln image save nothing > nothing.tar
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln push nothing
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
        $ kiln image push nothing
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 1]
    "#]]);
}

#[test]
fn pulled_tagged_and_removed() {
    session().transcript(expect![[r#"
        $ kiln pull registry.test/app:one
        Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        Status: Downloaded newer image for registry.test/app:one
        2> pull 222222222222 3.072kB done 0.0s
        $ kiln pull registry.test/app:one
        Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        Status: Image is up to date for registry.test/app:one
        2> pull 222222222222 exists
        $ kiln pull -q registry.test/app:two
        sha256:3333333333333333333333333333333333333333333333333333333333333333
        $ kiln image pull registry.test/app:two
        Digest: sha256:4444444444444444444444444444444444444444444444444444444444444444
        Status: Image is up to date for registry.test/app:two
        2> pull 555555555555 exists
        $ kiln pull registry.test/app:three
        2> error: registry.test/app: manifest three: no such tag
        2> hint: tags that exist: one, two
        [exit code 1]
        $ kiln pull registry.test/app:One:two
        2> error: invalid image reference "registry.test/app:One:two": invalid reference format
        2> hint: a name is [registry/]repository[:tag][@sha256:digest]
        [exit code 1]
        $ kiln pull --platform linux/s390x registry.test/app:one
        Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        Status: Image is up to date for registry.test/app:one
        2> warning: registry.test/app:one is an image for linux/amd64, not for linux/s390x
        2> pull 222222222222 exists
        $ kiln tag registry.test/app:one mine
        $ kiln image tag mine mine:2
        $ kiln tag mine Mine
        2> error: invalid image reference "Mine": invalid reference format
        2> hint: repositories have no capitals in their names; tags may
        [exit code 1]
        $ kiln images
        REPOSITORY          TAG       IMAGE ID       CREATED        SIZE
        registry.test/app   one       666666666666   NN years ago   1.23kB
        mine                2         666666666666   NN years ago   1.23kB
        mine                latest    666666666666   NN years ago   1.23kB
        registry.test/app   two       333333333333   NN years ago   1B
        $ kiln image ls mine
        REPOSITORY   TAG       IMAGE ID       CREATED        SIZE
        mine         2         666666666666   NN years ago   1.23kB
        mine         latest    666666666666   NN years ago   1.23kB
        $ kiln images -q
        666666666666
        333333333333
        $ kiln images --digests
        REPOSITORY          TAG       DIGEST                                                                    IMAGE ID       CREATED        SIZE
        registry.test/app   one       sha256:1111111111111111111111111111111111111111111111111111111111111111   666666666666   NN years ago   1.23kB
        mine                2         <none>                                                                    666666666666   NN years ago   1.23kB
        mine                latest    <none>                                                                    666666666666   NN years ago   1.23kB
        registry.test/app   two       sha256:4444444444444444444444444444444444444444444444444444444444444444   333333333333   NN years ago   1B
        $ kiln images --no-trunc
        REPOSITORY          TAG       IMAGE ID                                                                  CREATED        SIZE
        registry.test/app   one       sha256:6666666666666666666666666666666666666666666666666666666666666666   NN years ago   1.23kB
        mine                2         sha256:6666666666666666666666666666666666666666666666666666666666666666   NN years ago   1.23kB
        mine                latest    sha256:6666666666666666666666666666666666666666666666666666666666666666   NN years ago   1.23kB
        registry.test/app   two       sha256:3333333333333333333333333333333333333333333333333333333333333333   NN years ago   1B
        $ kiln images --format json
        {"Containers":"N/A","CreatedAt":"2000-01-01 00:00:00 +0000 UTC","CreatedSince":"NN years ago","Digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111","ID":"666666666666","Repository":"registry.test/app","SharedSize":"N/A","Size":"1.23kB","Tag":"one","UniqueSize":"N/A","VirtualSize":"1.23kB"}
        {"Containers":"N/A","CreatedAt":"2000-01-01 00:00:00 +0000 UTC","CreatedSince":"NN years ago","Digest":"<none>","ID":"666666666666","Repository":"mine","SharedSize":"N/A","Size":"1.23kB","Tag":"2","UniqueSize":"N/A","VirtualSize":"1.23kB"}
        {"Containers":"N/A","CreatedAt":"2000-01-01 00:00:00 +0000 UTC","CreatedSince":"NN years ago","Digest":"<none>","ID":"666666666666","Repository":"mine","SharedSize":"N/A","Size":"1.23kB","Tag":"latest","UniqueSize":"N/A","VirtualSize":"1.23kB"}
        {"Containers":"N/A","CreatedAt":"2000-01-01 00:00:00 +0000 UTC","CreatedSince":"NN years ago","Digest":"sha256:4444444444444444444444444444444444444444444444444444444444444444","ID":"333333333333","Repository":"registry.test/app","SharedSize":"N/A","Size":"1B","Tag":"two","UniqueSize":"N/A","VirtualSize":"1B"}
        $ kiln images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}'
        registry.test/app:one 666666666666 1.23kB
        mine:2 666666666666 1.23kB
        mine:latest 666666666666 1.23kB
        registry.test/app:two 333333333333 1B
        $ kiln images --format '{{.Color}}'
        2> error: invalid template: there is no field .Color
        2> hint: the fields are Containers, CreatedAt, CreatedSince, Digest, ID, Repository, SharedSize, Size, Tag, UniqueSize, VirtualSize
        [exit code 1]
        $ kiln images --filter color=red
        2> error: invalid filter "color=red"
        2> hint: the filters are reference=PATTERN, label=NAME[=VALUE], label!=NAME[=VALUE], dangling=true|false, before=IMAGE, since=IMAGE and until=TIME
        [exit code 2]
        $ kiln images --filter reference='mine:*'
        REPOSITORY   TAG       IMAGE ID       CREATED        SIZE
        mine         2         666666666666   NN years ago   1.23kB
        mine         latest    666666666666   NN years ago   1.23kB
        $ kiln history mine
        IMAGE          CREATED        CREATED BY   SIZE      COMMENT
        666666666666   NN years ago   COPY . /     1.23kB
        $ kiln history -q mine
        666666666666
        $ kiln image history --no-trunc mine
        IMAGE                                                                     CREATED        CREATED BY   SIZE      COMMENT
        sha256:6666666666666666666666666666666666666666666666666666666666666666   NN years ago   COPY . /     1.23kB
        $ kiln history --format '{{.CreatedBy}}' mine
        COPY . /
        $ kiln inspect mine
        [
          {
            "Id": "sha256:6666666666666666666666666666666666666666666666666666666666666666",
            "RepoTags": [
              "registry.test/app:one",
              "mine:2",
              "mine:latest"
            ],
            "RepoDigests": [
              "registry.test/app@sha256:1111111111111111111111111111111111111111111111111111111111111111"
            ],
            "Parent": "",
            "Comment": "",
            "Created": "2000-01-01T00:00:00Z",
            "Author": "",
            "Config": {
              "Cmd": [
                "sh"
              ]
            },
            "Architecture": "amd64",
            "Variant": "",
            "Os": "linux",
            "Size": 1234,
            "RootFS": {
              "Type": "layers",
              "Layers": [
                "sha256:2222222222222222222222222222222222222222222222222222222222222222"
              ]
            }
          }
        ]
        $ kiln inspect --format '{{.Os}} {{json .Config.Cmd}}' mine
        linux ["sh"]
        $ kiln image inspect --format '{{.RepoTags}} {{.Size}}' mine
        [registry.test/app:one mine:2 mine:latest] 1234
        $ kiln image inspect --format '{{.Colour}}' mine
        2> error: invalid template: there is no field .Colour
        2> hint: the fields are Architecture, Author, Comment, Config, Created, Id, Os, Parent, RepoDigests, RepoTags, RootFS, Size, Variant
        [exit code 1]
        $ kiln rmi mine:2
        Untagged: mine:2
        $ kiln rmi $(kiln images -q mine)
        2> error: unable to delete 666666666666: the image has several names (registry.test/app:one, mine:latest)
        2> hint: remove it by name, or all of it with -f
        [exit code 1]
        $ kiln image rm -f $(kiln images -q mine)
        Untagged: registry.test/app:one
        Untagged: mine:latest
        Deleted: sha256:6666666666666666666666666666666666666666666666666666666666666666
        $ kiln image rm registry.test/app:two
        Untagged: registry.test/app:two
        Deleted: sha256:3333333333333333333333333333333333333333333333333333333333333333
        $ kiln images
        REPOSITORY   TAG       IMAGE ID   CREATED   SIZE
    "#]]);
}

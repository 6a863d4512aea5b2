//! Registries and archives: images that come and go.

use expect_test::expect;
use serde_json::json;

use crate::support::{FaultyRegistry, Registry, Session, tar_of};

/// A line of htpasswd for the password `sesame`.
const HTPASSWD: &str = "ann:$2y$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";

/// A registry with an image `app:one`, and a user.
fn session() -> Session {
    let registry = FaultyRegistry::start();
    let layer = tar_of(&[("a", &"a".repeat(1234))]);
    registry.image_of("one", &layer, json!({}));
    registry.image_of("mainframe", &layer, json!({"architecture": "s390x"}));
    Session::new().call(&registry.address(), "registry.test")
}

#[test]
fn pushed() {
    let session = session().prepare("kiln pull -q registry.test/app:one");
    session.transcript(expect![[r#"
        $ kiln tag registry.test/app:one registry.test/mine/app:1
        $ kiln push registry.test/mine/app:1
        registry.test/mine/app:1: digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        2> push 222222222222 exists
        2> push 333333333333 exists
        $ kiln image push registry.test/mine/app:1
        registry.test/mine/app:1: digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        2> push 222222222222 exists
        2> push 333333333333 exists
        $ kiln push -q registry.test/mine/app:1
        sha256:1111111111111111111111111111111111111111111111111111111111111111
        $ kiln push registry.test/mine/app
        2> error: no such image: registry.test/mine/app
        2> hint: `kiln images` lists what there is; `kiln pull registry.test/mine/app` fetches it
        [exit code 1]
        $ kiln tag registry.test/app:one 127.0.0.1:9/app
        $ kiln push 127.0.0.1:9/app
        2> error: 127.0.0.1:9/app: blob sha256:…: can't connect: Connection refused (os error 111)
        2> hint: check the name and port, and that 127.0.0.1:9 can be reached from here (HTTP_PROXY, HTTPS_PROXY and NO_PROXY are respected)
        [exit code 1]
        $ kiln pull registry.test/mine/app:1
        Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        Status: Image is up to date for registry.test/mine/app:1
        2> pull 333333333333 exists
        $ kiln pull --platform linux/s390x registry.test/app:one
        Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        Status: Image is up to date for registry.test/app:one
        2> warning: registry.test/app:one is an image for linux/amd64, not for linux/s390x
        2> pull 333333333333 exists
        $ kiln pull registry.test/app:mainframe
        Digest: sha256:4444444444444444444444444444444444444444444444444444444444444444
        Status: Downloaded newer image for registry.test/app:mainframe
        2> warning: registry.test/app:mainframe is an image for linux/s390x, not for linux/amd64
        2> pull 333333333333 exists
        $ kiln run --rm registry.test/app:mainframe
        2> warning: registry.test/app:mainframe is an image for linux/s390x, not for linux/amd64
        2> error: exec "sh": no such file in the image
        [exit code 127]
        $ kiln run --pull always registry.test/app:mainframe
        2> warning: registry.test/app:mainframe is an image for linux/s390x, not for linux/amd64
        2> pull 333333333333 exists
        2> error: exec "sh": no such file in the image
        [exit code 127]
        $ echo FROM registry.test/app:mainframe | kiln build -
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> warning: Dockerfile:1: the image registry.test/app:mainframe is for linux/s390x, and linux/amd64 is built (InvalidBaseImagePlatform)
        2> hint: kiln build --check shows the lines, kiln check --explain InvalidBaseImagePlatform says why and how to skip it
        2> #2 [1/1] FROM registry.test/app:mainframe
        2> #2 CACHED
        2> #3 exporting to image
        2> #3 DONE 0.0s (image 555555555555)
        $ kiln rmi -f registry.test/app:mainframe
        Untagged: registry.test/app:mainframe
        Deleted: sha256:6666666666666666666666666666666666666666666666666666666666666666
        $ printf 'FROM registry.test/app:mainframe\nRUN true\n' | kiln build -
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> #2 [1/2] FROM registry.test/app:mainframe
        2> warning: registry.test/app:mainframe is an image for linux/s390x, not for linux/amd64
        2> #2 pull 333333333333 exists
        2> #2 DONE 0.0s
        2> #3 [2/2] RUN true
        2> #3 ERROR: exec /bin/sh: no such file in the image
        2> error: exec /bin/sh: no such file in the image
        2>  --> Dockerfile:2:1
        2>   |
        2> 2 | RUN true
        2>   | ^^^^^^^^
        2> hint: the image has no such shell: name one with SHELL, or use the exec form: RUN ["program", "argument"]
        [exit code 1]
        $ kiln pull registry.test/mine/other
        2> error: registry.test/mine/other: manifest latest: no such repository
        2> hint: check the spelling, and that the repository exists
        [exit code 1]
        $ kiln image pull 127.0.0.1:9/app
        2> error: 127.0.0.1:9/app: manifest latest: can't connect: Connection refused (os error 111)
        2> hint: check the name and port, and that 127.0.0.1:9 can be reached from here (HTTP_PROXY, HTTPS_PROXY and NO_PROXY are respected)
        [exit code 1]
    "#]]);
}

#[test]
fn private() {
    let registry = Registry::start_with_user(HTPASSWD);
    let session = session()
        .call(registry.address(), "private.test")
        .prepare("kiln pull -q registry.test/app:one");
    session.transcript(expect![[r#"
        $ kiln tag registry.test/app:one private.test/app
        $ kiln push private.test/app
        2> error: private.test/app: blob sha256:…: unauthorized: 401
        2> hint: the repository is private or does not exist; log in: kiln login private.test
        [exit code 1]
        $ kiln pull private.test/app
        2> error: private.test/app: manifest latest: unauthorized: 401 UNAUTHORIZED: authentication required
        2> hint: the repository is private or does not exist; log in: kiln login private.test
        [exit code 1]
        $ echo wrong | kiln login -u ann --password-stdin private.test
        2> error: private.test: unauthorized: 401 UNAUTHORIZED: authentication required
        2> hint: check the user name and the password; some registries want an access token in its place. Nothing was stored
        [exit code 1]
        $ kiln login private.test
        2> error: cannot ask for the user name and password: standard input is no terminal
        2> hint: give them with --username and --password-stdin
        [exit code 1]
        $ kiln login -u ann private.test
        2> error: cannot ask for the user name and password: standard input is no terminal
        2> hint: give them with --username and --password-stdin
        [exit code 1]
        $ echo sesame | kiln login -u ann --password-stdin private.test
        Login Succeeded
        2> warning: the password is stored unencrypted in /home/ann/.docker/config.json
        2> hint: name a credential helper there (credsStore), and log in again
        $ kiln push private.test/app
        private.test/app:latest: digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        2> push 222222222222 279B done 0.0s
        2> push 333333333333 3.072kB done 0.0s
        $ kiln logout private.test
        Removing login credentials for private.test
        $ kiln logout private.test
        Not logged in to private.test
        $ echo { > .docker/config.json; kiln logout private.test
        2> error: /home/ann/.docker/config.json: unexpected end at line 2 column 0
        2> hint: repair /home/ann/.docker/config.json, or remove it and log in again
        [exit code 1]
        $ echo '{}' > .docker/config.json
        $ kiln logout registry/with/path
        Not logged in to registry
        $ kiln pull private.test/app
        2> error: private.test/app: manifest latest: unauthorized: 401 UNAUTHORIZED: authentication required
        2> hint: the repository is private or does not exist; log in: kiln login private.test
        [exit code 1]
    "#]]);
}

#[test]
fn archives() {
    let session = session().prepare("kiln pull -q registry.test/app:one");
    session.transcript(expect![[r#"
        $ kiln tag registry.test/app:one app:one
        $ kiln save -o app.tar app:one
        $ kiln image save --format oci-dir -o layout app:one
        $ kiln save -o /no/such/place.tar app:one
        2> error: cannot write /no/such/place.tar: No such file or directory (os error 2)
        [exit code 1]
        $ kiln save --format oci-dir app:one
        2> error: a directory can't go to standard output
        2> hint: name it: -o DIR
        [exit code 1]
        $ kiln rmi app:one registry.test/app:one
        Untagged: app:one
        Untagged: registry.test/app:one
        Deleted: sha256:1111111111111111111111111111111111111111111111111111111111111111
        $ kiln load -i app.tar
        Loaded image: app:one
        2> extract 222222222222 3.072kB done 0.0s
        $ kiln load -i layout
        Loaded image: app:one
        2> extract 222222222222 exists
        $ kiln load < app.tar
        Loaded image: app:one
        2> extract 222222222222 exists
        $ kiln image load -q -i app.tar
        Loaded image: app:one
        $ kiln load -i missing.tar
        2> error: cannot read missing.tar: No such file or directory (os error 2)
        [exit code 1]
        $ echo no archive | kiln load
        2> error: cannot read the archive: truncated tar stream: it ends within a header
        2> hint: fetch or make the archive again: its end is missing
        [exit code 1]
        $ kiln load < /dev/null
        2> error: this is no archive of images: it has neither index.json nor manifest.json
        2> hint: a tar of a root file system is taken by `kiln import`
        [exit code 1]
        $ head -c 3000 app.tar | kiln image load
        2> error: cannot read the archive: truncated tar stream: it ends within the data of an entry
        2> hint: fetch or make the archive again: its end is missing
        [exit code 1]
        $ mkdir root && echo hi > root/hi && tar c --mtime=@0 --sort=name --owner=0 --group=0 -C root . > root.tar
        $ kiln import root.tar rooted
        sha256:3333333333333333333333333333333333333333333333333333333333333333
        $ kiln image import -c 'CMD ["/hi"]' - < root.tar
        sha256:4444444444444444444444444444444444444444444444444444444444444444
        $ kiln import missing.tar rooted
        2> error: cannot read missing.tar: No such file or directory (os error 2)
        [exit code 1]
        $ echo no tar | kiln image import -
        2> error: truncated tar stream: it ends within a header
        2> hint: fetch or make the archive again: its end is missing
        [exit code 1]
        $ kiln import -c 'RUN true' root.tar rooted
        2> error: cannot apply the change "RUN true": RUN does not change the config alone
        2> hint: what does is CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR
        [exit code 1]
        $ kiln images
        REPOSITORY   TAG       IMAGE ID       CREATED        SIZE
        <none>       <none>    444444444444   moments ago    3B
        rooted       latest    333333333333   moments ago    3B
        app          one       111111111111   NN years ago   1.23kB
    "#]]);
}

#[test]
fn copied() {
    let session = session();
    session.transcript(expect![[r#"
        $ kiln copy registry.test/app:one oci:layout:one
        Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        2> copy 222222222222 279B done 0.0s
        2> copy 333333333333 3.072kB done 0.0s
        $ kiln copy docker://registry.test/app:one docker://registry.test/other:one
        Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
        2> copy 222222222222 exists
        2> copy 333333333333 exists
        $ kiln copy -q oci:layout:one store:mine
        sha256:1111111111111111111111111111111111111111111111111111111111111111
        $ kiln copy oci:layout:two store:mine
        2> error: the layout has no image two
        2> hint: its images are one
        [exit code 1]
        $ kiln copy registry.test/app:two oci:layout
        2> error: registry.test/app: manifest two: no such tag
        2> hint: tags that exist: mainframe, one
        [exit code 1]
        $ kiln copy registry.test/app:one
        2> error: the following required arguments were not provided:
        2>   <DESTINATION>
        2>
        2> Usage: kiln copy <SOURCE> <DESTINATION>
        2>
        2> For more information, try '--help'.
        [exit code 2]
        $ kiln images
        REPOSITORY   TAG       IMAGE ID       CREATED        SIZE
        mine         latest    222222222222   NN years ago   1.23kB
    "#]]);
}

#[test]
fn lists() {
    let session = session().prepare("kiln pull -q registry.test/app:one");
    session.transcript(expect![[r#"
        $ kiln manifest create registry.test/list:1 registry.test/app:one
        Created manifest list registry.test/list:1
        $ kiln manifest create registry.test/list:1
        2> error: there is a manifest list registry.test/list:1 already
        2> hint: add to it with --amend, or remove it: kiln manifest rm registry.test/list:1
        [exit code 1]
        $ kiln manifest add registry.test/list:1 registry.test/app:two
        2> error: registry.test/app: manifest two: no such tag
        2> hint: tags that exist: mainframe, one
        [exit code 1]
        $ kiln manifest create registry.test/list:2
        Created manifest list registry.test/list:2
        $ kiln manifest add registry.test/list:2 registry.test/app:one
        sha256:1111111111111111111111111111111111111111111111111111111111111111
        $ kiln manifest add nothing registry.test/app:one
        2> error: no such manifest list: nothing:latest
        2> hint: make one: kiln manifest create nothing:latest IMAGE...
        [exit code 1]
        $ kiln manifest annotate --arch arm64 registry.test/list:2 registry.test/app:one
        $ kiln manifest annotate --arch arm64 registry.test/list:2 registry.test/app:two
        2> error: registry.test/app:two is not in the list
        2> hint: its images are sha256:1111111111111111111111111111111111111111111111111111111111111111
        [exit code 1]
        $ kiln manifest inspect registry.test/list:2
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.oci.image.index.v1+json",
          "manifests": [
            {
              "mediaType": "application/vnd.oci.image.manifest.v1+json",
              "digest": "sha256:1111111111111111111111111111111111111111111111111111111111111111",
              "size": 397,
              "platform": {
                "architecture": "arm64",
                "os": "linux"
              }
            }
          ]
        }
        $ kiln manifest inspect registry.test/list:9
        2> error: registry.test/list: manifest 9: no such repository
        2> hint: check the spelling, and that the repository exists
        [exit code 1]
        $ kiln manifest exists registry.test/list:2
        $ kiln manifest exists registry.test/list:9
        [exit code 1]
        $ kiln manifest push registry.test/list:1
        sha256:2222222222222222222222222222222222222222222222222222222222222222
        2> copy 333333333333 exists
        2> copy 444444444444 exists
        $ kiln manifest push nothing
        2> error: no such manifest list: nothing:latest
        2> hint: make one: kiln manifest create nothing:latest IMAGE...
        [exit code 1]
        $ kiln manifest remove registry.test/list:2 registry.test/app:two
        2> error: registry.test/app:two is not in the list
        2> hint: its images are sha256:1111111111111111111111111111111111111111111111111111111111111111
        [exit code 1]
        $ kiln manifest remove registry.test/list:2 registry.test/app:one
        sha256:1111111111111111111111111111111111111111111111111111111111111111
        $ kiln manifest rm registry.test/list:2
        Untagged: registry.test/list:2
        $ kiln manifest rm registry.test/list:2
        2> error: no such manifest list: registry.test/list:2
        2> hint: make one: kiln manifest create registry.test/list:2 IMAGE...
        [exit code 1]
    "#]]);
}

//! Images that are built: what a build says, and what it says of mistakes.

use expect_test::expect;

use crate::support::Session;

#[test]
fn built_built_again_and_changed() {
    let session = Session::with_busybox().files(&[
        (
            "Dockerfile",
            "FROM busybox\nLABEL team=blue\nCOPY hello.txt /srv/\nRUN wc -c < /srv/hello.txt > /srv/size\nCMD [\"cat\", \"/srv/size\"]\n",
        ),
        ("hello.txt", "hello\n"),
    ]);
    session.transcript(expect![[r#"
        $ cat Dockerfile
        FROM busybox
        LABEL team=blue
        COPY hello.txt /srv/
        RUN wc -c < /srv/hello.txt > /srv/size
        CMD ["cat", "/srv/size"]
        $ kiln build -t hello .
        2> #1 [1/3] FROM busybox
        2> #1 CACHED
        2> #2 [2/3] COPY hello.txt /srv/
        2> #2 DONE 0.0s
        2> #3 [3/3] RUN wc -c < /srv/hello.txt > /srv/size
        2> #3 DONE 0.0s
        2> #4 exporting to image
        2> #4 DONE 0.0s (image 111111111111, named hello:latest)
        $ kiln build -t hello .
        2> #1 [1/3] FROM busybox
        2> #1 CACHED
        2> #2 [2/3] COPY hello.txt /srv/
        2> #2 CACHED
        2> #3 [3/3] RUN wc -c < /srv/hello.txt > /srv/size
        2> #3 CACHED
        2> #4 exporting to image
        2> #4 DONE 0.0s (image 111111111111, named hello:latest)
        $ kiln builder build -t hello .
        2> #1 [1/3] FROM busybox
        2> #1 CACHED
        2> #2 [2/3] COPY hello.txt /srv/
        2> #2 CACHED
        2> #3 [3/3] RUN wc -c < /srv/hello.txt > /srv/size
        2> #3 CACHED
        2> #4 exporting to image
        2> #4 DONE 0.0s (image 111111111111, named hello:latest)
        $ echo good morning > hello.txt; touch -d @0 hello.txt
        $ kiln build -t hello .
        2> #1 [1/3] FROM busybox
        2> #1 CACHED
        2> #2 [2/3] COPY hello.txt /srv/
        2> #2 DONE 0.0s
        2> #3 [3/3] RUN wc -c < /srv/hello.txt > /srv/size
        2> #3 DONE 0.0s
        2> #4 exporting to image
        2> #4 DONE 0.0s (image 222222222222, named hello:latest)
        $ kiln build -q .
        sha256:2222222222222222222222222222222222222222222222222222222222222222
        $ kiln builder build --target test .
        2> error: there is no stage "test"
        2>  --> Dockerfile
        2> hint: no stage of the file has a name
        [exit code 1]
        $ kiln build -t Hello .
        2> error: invalid image reference "Hello": invalid reference format
        2> hint: repositories have no capitals in their names; tags may
        [exit code 1]
        $ kiln build --target test .
        2> error: there is no stage "test"
        2>  --> Dockerfile
        2> hint: no stage of the file has a name
        [exit code 1]
        $ kiln build -f Containerfile .
        2> error: cannot read the Dockerfile Containerfile: No such file or directory (os error 2)
        2> hint: did you mean Dockerfile? Name it with -f FILE
        [exit code 1]
        $ kiln build nowhere
        2> error: cannot open the build context nowhere: No such file or directory (os error 2)
        2> hint: the last argument is the directory to build from, such as `.`
        [exit code 1]
        $ kiln build
        2> error: the following required arguments were not provided:
        2>   <CONTEXT>
        2>
        2> Usage: kiln build <CONTEXT>
        2>
        2> For more information, try '--help'.
        [exit code 2]
        $ kiln build --iidfile id --build-arg VERSION=1 .
        2> #1 [1/3] FROM busybox
        2> #1 CACHED
        2> #2 [2/3] COPY hello.txt /srv/
        2> #2 CACHED
        2> #3 [3/3] RUN wc -c < /srv/hello.txt > /srv/size
        2> #3 CACHED
        2> #4 exporting to image
        2> #4 DONE 0.0s (image 222222222222)
        2> warning: build argument not used: VERSION
        2> hint: a stage takes one with ARG NAME
        $ kiln images
        REPOSITORY   TAG       IMAGE ID       CREATED        SIZE
        busybox      latest    333333333333   moments ago    1.09MB
        hello        latest    222222222222   NN years ago   1.09MB
        <none>       <none>    111111111111   NN years ago   1.09MB
        $ kiln history hello
        IMAGE          CREATED        CREATED BY                                      SIZE      COMMENT
        222222222222   NN years ago   CMD ["cat" "/srv/size"]                         0B        kiln
        <missing>      NN years ago   RUN /bin/sh -c wc -c < /srv/hello.txt > /srv…   3B        kiln
        <missing>      NN years ago   COPY hello.txt /srv/ # buildkit                 13B       kiln
        <missing>      NN years ago   LABEL team=blue                                 0B        kiln
        <missing>      moments ago    base image of kiln's tests                      1.09MB
        $ kiln run --rm hello
        13
        $ kiln build --no-cache --progress quiet -t hello .
    "#]]);
}

#[test]
fn steps_that_fail() {
    let session = Session::with_busybox();
    session.transcript(expect![[r#"
        $ kiln build - <<END
        > FROM busybox
        > RUN echo one && exit 3
        > END
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> #2 [1/2] FROM busybox
        2> #2 CACHED
        2> #3 [2/2] RUN echo one && exit 3
        2> #3 0.000 one
        2> #3 ERROR: exit code: 3
        2> error: step failed: [2/2] RUN echo one && exit 3
        2>   Dockerfile:2
        2>     1 | FROM busybox
        2> >   2 | RUN echo one && exit 3
        2>   command: /bin/sh -c 'echo one && exit 3'
        2>   exit code: 3
        2>   output:
        2>     one
        2>   full log: /home/ann/.local/share/kiln/logs/STEP.log
        [exit code 1]
        $ kiln build - <<END
        > FROM busybox
        > RUN no-such-program --version
        > END
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> #2 [1/2] FROM busybox
        2> #2 CACHED
        2> #3 [2/2] RUN no-such-program --version
        2> #3 0.000 /bin/sh: no-such-program: not found
        2> #3 ERROR: exit code: 127
        2> error: step failed: [2/2] RUN no-such-program --version
        2>   Dockerfile:2
        2>     1 | FROM busybox
        2> >   2 | RUN no-such-program --version
        2>   command: /bin/sh -c 'no-such-program --version'
        2>   exit code: 127 (command not found)
        2>   output:
        2>     /bin/sh: no-such-program: not found
        2>   full log: /home/ann/.local/share/kiln/logs/STEP.log
        [exit code 1]
        $ kiln build - <<END
        > FROM busybox
        > COPY hello.txt /
        > END
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> #2 [1/2] FROM busybox
        2> #2 CACHED
        2> #3 [2/2] COPY hello.txt /
        2> #3 ERROR: there is no build context to take "hello.txt" from
        2> error: there is no build context to take "hello.txt" from
        2>  --> Dockerfile:2:6
        2>   |
        2> 2 | COPY hello.txt /
        2>   |      ^^^^^^^^^
        2> hint: the Dockerfile came alone: give a directory too, as in `kiln build -f - .`
        [exit code 1]
        $ printf 'FROM busybox\nCOPY helo.txt /\n' > Dockerfile; echo > hello.txt
        $ kiln build .
        2> #1 [1/2] FROM busybox
        2> #1 CACHED
        2> #2 [2/2] COPY helo.txt /
        2> #2 ERROR: "helo.txt" is not in the build context: no such file or directory
        2> error: "helo.txt" is not in the build context: no such file or directory
        2>  --> Dockerfile:2:6
        2>   |
        2> 2 | COPY helo.txt /
        2>   |      ^^^^^^^^
        2> hint: did you mean "hello.txt"?
        [exit code 1]
        $ kiln build - <<END
        > FROM busybox
        > RUNN true
        > END
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> error: unknown instruction: RUNN
        2>  --> Dockerfile:2:1
        2>   |
        2> 2 | RUNN true
        2>   | ^^^^
        2> hint: did you mean RUN?
        [exit code 1]
        $ kiln build - <<END
        > RUN true
        > END
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> error: RUN before the first FROM
        2>  --> Dockerfile:1:1
        2>   |
        2> 1 | RUN true
        2>   | ^^^^^^^^
        2> hint: a Dockerfile starts with FROM; only ARG may stand before it
        [exit code 1]
        $ kiln build - < /dev/null
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> error: file with no instructions
        2>  --> Dockerfile
        2> hint: a Dockerfile starts with FROM
        [exit code 1]
        $ kiln build - <<END
        > FROM busybox
        > USER nobdy
        > RUN true
        > END
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> #2 [1/2] FROM busybox
        2> #2 CACHED
        2> #3 [2/2] RUN true
        2> #3 ERROR: no user "nobdy" in the image's /etc/passwd
        2> error: no user "nobdy" in the image's /etc/passwd
        2>  --> Dockerfile:3:1
        2>   |
        2> 3 | RUN true
        2>   | ^^^^^^^^
        2> hint: did you mean "nobody"?
        [exit code 1]
        $ kiln build - <<END
        > FROM busybox
        > USER rot
        > RUN true
        > END
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> #2 [1/2] FROM busybox
        2> #2 CACHED
        2> #3 [2/2] RUN true
        2> #3 ERROR: no user "rot" in the image's /etc/passwd
        2> error: no user "rot" in the image's /etc/passwd
        2>  --> Dockerfile:3:1
        2>   |
        2> 3 | RUN true
        2>   | ^^^^^^^^
        2> hint: did you mean "root"?
        [exit code 1]
        $ kiln build --pull=never - <<END
        > FROM busybox AS base
        > COPY --from=bse /bin/sh /sh
        > END
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> warning: Dockerfile:2: no stage is named bse, so that it is an image (MistypedStageName)
        2> hint: kiln build --check shows the lines, kiln check --explain MistypedStageName says why and how to skip it
        2> #2 [base 1/2] FROM busybox
        2> #2 CACHED
        2> #3 [base 2/2] COPY --from=bse /bin/sh /sh
        2> #3 ERROR: no stage is named bse, and as an image: bse for linux/amd64 is not in the store, and --pull=never forbids to pull it
        2> error: no stage is named bse, and as an image: bse for linux/amd64 is not in the store, and --pull=never forbids to pull it
        2>  --> Dockerfile:2:1
        2>   |
        2> 2 | COPY --from=bse /bin/sh /sh
        2>   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^
        2> hint: did you mean the stage base?
        [exit code 1]
        $ kiln build --pull=never - <<END
        > FROM busybex
        > END
        2> #1 [internal] load build context from standard input
        2> #1 DONE 0.0s
        2> #2 [1/1] FROM busybex
        2> #2 ERROR: busybex for linux/amd64 is not in the store, and --pull=never forbids to pull it
        2> error: busybex for linux/amd64 is not in the store, and --pull=never forbids to pull it
        2>  --> Dockerfile:1:1
        2>   |
        2> 1 | FROM busybex
        2>   | ^^^^^^^^^^^^
        2> hint: kiln pull busybex
        [exit code 1]
        $ kiln images -a
        REPOSITORY   TAG       IMAGE ID       CREATED       SIZE
        busybox      latest    111111111111   moments ago   1.09MB
    "#]]);
}

#[test]
fn checks() {
    let session = Session::new();
    session.transcript(expect![[r#"
        $ kiln check
        2> error: cannot read the Dockerfile ./Dockerfile: No such file or directory (os error 2)
        2> hint: name it with -f FILE
        [exit code 1]
        $ printf 'FROM busybox\nRUN true\n' > Dockerfile
        $ kiln check
        Check complete, no warnings found.
        $ printf 'FROM busybox as base\nENV PASSWORD 1234\nRUN echo $VERSON\nCMD echo hello\n' > Dockerfile
        $ kiln check
        Check complete, 4 warnings have been found!

        WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
        as is not in the casing of FROM
        Dockerfile:1
        --------------------
           1 | >>> FROM busybox as base
           2 |     ENV PASSWORD 1234
           3 |     RUN echo $VERSON
        --------------------

        WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
        write ENV PASSWORD=… in place of ENV PASSWORD …
        Dockerfile:2
        --------------------
           1 |     FROM busybox as base
           2 | >>> ENV PASSWORD 1234
           3 |     RUN echo $VERSON
           4 |     CMD echo hello
        --------------------

        WARNING: SecretsUsedInArgOrEnv - https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/
        ENV PASSWORD looks like a secret, and stays in the image
        Dockerfile:2
        --------------------
           1 |     FROM busybox as base
           2 | >>> ENV PASSWORD 1234
           3 |     RUN echo $VERSON
           4 |     CMD echo hello
        --------------------
        hint: use RUN --mount=type=secret

        WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
        CMD in shell form: signals end at the shell
        Dockerfile:4
        --------------------
           2 |     ENV PASSWORD 1234
           3 |     RUN echo $VERSON
           4 | >>> CMD echo hello
        --------------------
        [exit code 1]
        $ kiln check . | head -n 1
        Check complete, 4 warnings have been found!
        $ kiln check Dockerfile | head -n 1
        Check complete, 4 warnings have been found!
        $ kiln check -f Containerfile
        2> error: cannot read the Dockerfile Containerfile: No such file or directory (os error 2)
        2> hint: did you mean Dockerfile? Name it with -f FILE
        [exit code 1]
        $ kiln check nowhere
        2> error: cannot open the build context nowhere: No such file or directory (os error 2)
        2> hint: the last argument is the directory to build from, such as `.`
        [exit code 1]
        $ printf 'FROM busybox\nRUN --mont=type=cache true\n' | kiln check -
        2> error: unknown flag for RUN: --mont
        2>  --> Dockerfile:2:5
        2>   |
        2> 2 | RUN --mont=type=cache true
        2>   |     ^^^^^^^^^^^^^^^^^
        2> hint: did you mean --mount?
        [exit code 1]
        $ kiln check --explain FromAsCasing
        FromAsCasing: FROM and AS are not written in the same casing (one of BuildKit's)

        Casing has no meaning, but mixed keywords are harder to read.

        Bad:
            FROM debian as builder

        Good:
            FROM debian AS builder

        To skip it, at the top of the file or above the instruction:
            # check=skip=FromAsCasing
        or for one build:
            --build-arg BUILDKIT_DOCKERFILE_CHECK=skip=FromAsCasing

        More: https://docs.docker.com/go/dockerfile/rule/from-as-casing/
        $ kiln check --explain FromAs
        2> error: no check is named "FromAs"
        2> hint: kiln check --list names them
        [exit code 1]
        $ kiln check --list
        NAME                              OF               FINDS
        ConsistentInstructionCasing       BuildKit         an instruction is not written in the casing of the others
        CopyIgnoredFile                   BuildKit         a file to be copied is excluded by the ignore file
        DuplicateStageName                BuildKit         two stages have the same name
        ExposeInvalidFormat               BuildKit         EXPOSE names an address or a port of the host
        ExposeProtoCasing                 BuildKit         the protocol in EXPOSE is not in lower case
        FromAsCasing                      BuildKit         FROM and AS are not written in the same casing
        FromPlatformFlagConstDisallowed   BuildKit         FROM --platform has a fixed value
        InvalidBaseImagePlatform          BuildKit         the base image is for another platform
        InvalidDefaultArgInFrom           BuildKit         without --build-arg, FROM has no valid image
        InvalidDefinitionDescription      BuildKit   off   the comment above ARG or a stage does not begin with its name
        JSONArgsRecommended               BuildKit         CMD or ENTRYPOINT is in shell form
        LegacyKeyValueFormat              BuildKit         ENV or LABEL has a blank where = belongs
        MaintainerDeprecated              BuildKit         MAINTAINER is deprecated
        MultipleInstructionsDisallowed    BuildKit         CMD, ENTRYPOINT or HEALTHCHECK is there twice in a stage
        NoEmptyContinuation               BuildKit         an instruction goes on after an empty line
        RedundantTargetPlatform           BuildKit         FROM --platform=$TARGETPLATFORM says what holds anyway
        ReservedStageName                 BuildKit         a stage is named scratch or context
        SecretsUsedInArgOrEnv             BuildKit         ARG or ENV holds what looks like a secret
        StageNameCasing                   BuildKit         the name of a stage is not in lower case
        UndefinedArgInFrom                BuildKit         FROM uses a variable that no ARG before it declares
        UndefinedVar                      BuildKit         a variable is used that nothing sets
        WorkdirRelativePath               BuildKit         WORKDIR is relative to what the base image says
        AddWithoutNeed                    kiln             ADD is used where COPY would do
        ArgNotInStage                     kiln             RUN uses a build argument that the stage does not declare
        BrokenJsonForm                    kiln             what looks like a JSON array is none, and becomes a shell command
        FloatingBaseImage                 kiln       off   the base image has no tag, or the tag latest
        HeredocIgnoresErrors              kiln       off   a RUN heredoc of several commands goes on after an error
        MistypedStageName                 kiln             --from names an image whose name is almost that of a stage
        OwnershipDoublesLayer             kiln             chown -R or chmod -R in RUN stores files again that COPY brought
        PackageListsLeft                  kiln       off   the lists of apt stay in the image
        PackageListsStale                 kiln             apt-get update is cached apart from the install that needs it
        ShellStateLost                    kiln             RUN ends with a command that changes only the shell, which then ends
        SudoAsRoot                        kiln             RUN uses sudo although it runs as root
        UnknownCheckName                  kiln             the check directive names a check that does not exist
        UseraddFillsLastlog               kiln             useradd with a huge uid makes a huge /var/log/lastlog
        VariableInExecForm                kiln             an argument in exec form is a variable, which nobody expands
    "#]]);
}

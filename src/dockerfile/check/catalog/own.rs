//! kiln's own checks: what costs people space, time or an afternoon.

use super::{Check, Origin};

/// ADD of a plain file.
pub static ADD_WITHOUT_NEED: Check = Check {
    name: "AddWithoutNeed",
    summary: "ADD is used where COPY would do",
    origin: Origin::Kiln,
    experimental: false,
    why: "ADD unpacks what turns out to be an archive and downloads what looks like an \
          address. COPY does what it says.",
    bad: "FROM alpine\nADD app.conf /etc/",
    good: "FROM alpine\nCOPY app.conf /etc/",
};

/// $TARGETARCH in RUN without ARG TARGETARCH.
pub static ARG_NOT_IN_STAGE: Check = Check {
    name: "ArgNotInStage",
    summary: "RUN uses a build argument that the stage does not declare",
    origin: Origin::Kiln,
    experimental: false,
    why: "An ARG before the first FROM, and predefined ones like TARGETARCH, are seen by a \
          stage only after ARG with their name. Without it, the shell sees an empty variable.",
    bad: "FROM alpine\nRUN wget https://example.com/tool-$TARGETARCH",
    good: "FROM alpine\nARG TARGETARCH\nRUN wget https://example.com/tool-$TARGETARCH",
};

/// CMD ['a'].
pub static BROKEN_JSON_FORM: Check = Check {
    name: "BrokenJsonForm",
    summary: "what looks like a JSON array is none, and becomes a shell command",
    origin: Origin::Kiln,
    experimental: false,
    why: "JSON has double quotes, commas between elements and none behind the last. Anything \
          else is taken as text: the shell looks for a program named [node, and VOLUME makes \
          a directory with quotes in its name.",
    bad: "FROM node\nCMD ['node', 'app.js']",
    good: "FROM node\nCMD [\"node\", \"app.js\"]",
};

/// FROM alpine, FROM alpine:latest.
pub static FLOATING_BASE_IMAGE: Check = Check {
    name: "FloatingBaseImage",
    summary: "the base image has no tag, or the tag latest",
    origin: Origin::Kiln,
    experimental: true,
    why: "The next build may stand on another version than this one.",
    bad: "FROM node",
    good: "FROM node:22",
};

/// RUN <<EOF without set -e.
pub static HEREDOC_IGNORES_ERRORS: Check = Check {
    name: "HeredocIgnoresErrors",
    summary: "a RUN heredoc of several commands goes on after an error",
    origin: Origin::Kiln,
    experimental: true,
    why: "The shell goes on after a command that fails; only the last one decides whether the \
          step succeeds. set -e ends it at the first error.",
    bad: "FROM debian\nRUN <<EOF\napt-get update\napt-get install -y curl\nrm -rf /var/lib/apt/lists/*\nEOF",
    good: "FROM debian\nRUN <<EOF\nset -e\napt-get update\napt-get install -y curl\nrm -rf /var/lib/apt/lists/*\nEOF",
};

/// COPY --from=bulider.
pub static MISTYPED_STAGE_NAME: Check = Check {
    name: "MistypedStageName",
    summary: "--from names an image whose name is almost that of a stage",
    origin: Origin::Kiln,
    experimental: false,
    why: "What is no stage is an image, and is downloaded from wherever it may be: somebody else \
          may have given an image just that name. Where an image is meant, write its tag.",
    bad: "FROM debian:13 AS builder\nFROM scratch\nCOPY --from=bulider /app /",
    good: "FROM debian:13 AS builder\nFROM scratch\nCOPY --from=builder /app /",
};

/// RUN chown -R over what COPY brought.
pub static OWNERSHIP_DOUBLES_LAYER: Check = Check {
    name: "OwnershipDoublesLayer",
    summary: "chown -R or chmod -R in RUN stores files again that COPY brought",
    origin: Origin::Kiln,
    experimental: false,
    why: "A layer holds whole files: changing owner or mode of files of an earlier layer puts \
          each of them into the image a second time.",
    bad: "FROM node\nCOPY . /app\nRUN chown -R node:node /app",
    good: "FROM node\nCOPY --chown=node:node . /app",
};

/// apt-get install without rm -rf /var/lib/apt/lists.
pub static PACKAGE_LISTS_LEFT: Check = Check {
    name: "PackageListsLeft",
    summary: "the lists of apt stay in the image",
    origin: Origin::Kiln,
    experimental: true,
    why: "The lists of packages are some 20 MB that nobody needs in the image, and removing \
          them in a later step makes it no smaller.",
    bad: "FROM debian\nRUN apt-get update && apt-get install -y curl",
    good: "FROM debian\nRUN apt-get update && apt-get install -y curl \\\n    && rm -rf /var/lib/apt/lists/*",
};

/// RUN apt-get update.
pub static PACKAGE_LISTS_STALE: Check = Check {
    name: "PackageListsStale",
    summary: "apt-get update is cached apart from the install that needs it",
    origin: Origin::Kiln,
    experimental: false,
    why: "The step with the update is taken from the cache for months. A later install, once \
          changed, asks for versions that the mirrors no longer have: 404 Not Found.",
    bad: "FROM debian\nRUN apt-get update\nRUN apt-get install -y curl",
    good: "FROM debian\nRUN apt-get update && apt-get install -y curl",
};

/// RUN cd /app.
pub static SHELL_STATE_LOST: Check = Check {
    name: "ShellStateLost",
    summary: "RUN ends with a command that changes only the shell, which then ends",
    origin: Origin::Kiln,
    experimental: false,
    why: "Each RUN has a shell of its own: its directory, variables and limits are gone with \
          it. WORKDIR and ENV last.",
    bad: "FROM alpine\nRUN cd /app\nRUN export MODE=production",
    good: "FROM alpine\nWORKDIR /app\nENV MODE=production",
};

/// RUN sudo.
pub static SUDO_AS_ROOT: Check = Check {
    name: "SudoAsRoot",
    summary: "RUN uses sudo although it runs as root",
    origin: Origin::Kiln,
    experimental: false,
    why: "It changes nothing, and most images don't have it.",
    bad: "FROM scratch\nRUN sudo apt-get update",
    good: "FROM scratch\nRUN apt-get update",
};

/// check=skip=NoSuchCheck.
pub static UNKNOWN_CHECK_NAME: Check = Check {
    name: "UnknownCheckName",
    summary: "the check directive names a check that does not exist",
    origin: Origin::Kiln,
    experimental: false,
    why: "A mistyped name skips nothing. Casing counts.",
    bad: "# check=skip=jsonargsrecommended\nFROM alpine",
    good: "# check=skip=JSONArgsRecommended\nFROM alpine",
};

/// useradd -u 1000000000.
pub static USERADD_FILLS_LASTLOG: Check = Check {
    name: "UseraddFillsLastlog",
    summary: "useradd with a huge uid makes a huge /var/log/lastlog",
    origin: Origin::Kiln,
    experimental: false,
    why: "lastlog and faillog are indexed by uid: a uid of a billion makes a file of hundreds \
          of gigabytes, sparse on a disk but not in an image.",
    bad: "FROM debian\nRUN useradd -u 1200000000 app",
    good: "FROM debian\nRUN useradd --no-log-init -u 1200000000 app",
};

/// CMD ["echo", "$HOME"].
pub static VARIABLE_IN_EXEC_FORM: Check = Check {
    name: "VariableInExecForm",
    summary: "an argument in exec form is a variable, which nobody expands",
    origin: Origin::Kiln,
    experimental: false,
    why: "In exec form there is no shell: the program gets the text with its dollar sign.",
    bad: "FROM eclipse-temurin\nENV OPTS=-Xmx1g\nCMD [\"java\", \"$OPTS\", \"App\"]",
    good: "FROM eclipse-temurin\nENV OPTS=-Xmx1g\nCMD [\"sh\", \"-c\", \"exec java $OPTS App\"]",
};

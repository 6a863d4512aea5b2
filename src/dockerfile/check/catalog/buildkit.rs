//! The 22 checks of BuildKit. See <https://docs.docker.com/reference/build-checks/>.

use super::{Check, Origin};

/// All instructions in one casing.
pub static CONSISTENT_INSTRUCTION_CASING: Check = Check {
    name: "ConsistentInstructionCasing",
    summary: "an instruction is not written in the casing of the others",
    origin: Origin::BuildKit(Some("consistent-instruction-casing")),
    experimental: false,
    why: "Casing has no meaning, but a file in one casing, upper by custom, reads better.",
    bad: "From alpine\nRUN echo hello\nCMD [\"sh\"]",
    good: "FROM alpine\nRUN echo hello\nCMD [\"sh\"]",
};

/// COPY of what the ignore file leaves out.
pub static COPY_IGNORED_FILE: Check = Check {
    name: "CopyIgnoredFile",
    summary: "a file to be copied is excluded by the ignore file",
    origin: Origin::BuildKit(Some("copy-ignored-file")),
    experimental: false,
    why: "What .dockerignore excludes is not part of the context, so that copying it fails.",
    bad: "# .dockerignore: *.md\nFROM scratch\nCOPY README.md /",
    good: "# .dockerignore: docs/*.md\nFROM scratch\nCOPY README.md /",
};

/// Two stages of one name.
pub static DUPLICATE_STAGE_NAME: Check = Check {
    name: "DuplicateStageName",
    summary: "two stages have the same name",
    origin: Origin::BuildKit(Some("duplicate-stage-name")),
    experimental: false,
    why: "A name then means the nearest stage above, which is rarely what was meant, and \
          --target the last one.",
    bad: "FROM debian AS builder\nFROM golang AS builder",
    good: "FROM debian AS tools\nFROM golang AS builder",
};

/// EXPOSE with an address or a mapping.
pub static EXPOSE_INVALID_FORMAT: Check = Check {
    name: "ExposeInvalidFormat",
    summary: "EXPOSE names an address or a port of the host",
    origin: Origin::BuildKit(Some("expose-invalid-format")),
    experimental: false,
    why: "EXPOSE says on which ports the container listens. Where they are published is said \
          when it is run: the other parts are dropped, and later versions of BuildKit refuse them.",
    bad: "FROM alpine\nEXPOSE 127.0.0.1:8080:80",
    good: "FROM alpine\nEXPOSE 80",
};

/// EXPOSE 80/TCP.
pub static EXPOSE_PROTO_CASING: Check = Check {
    name: "ExposeProtoCasing",
    summary: "the protocol in EXPOSE is not in lower case",
    origin: Origin::BuildKit(Some("expose-proto-casing")),
    experimental: false,
    why: "Protocols are written in lower case everywhere else.",
    bad: "FROM alpine\nEXPOSE 80/TCP",
    good: "FROM alpine\nEXPOSE 80/tcp",
};

/// FROM … as.
pub static FROM_AS_CASING: Check = Check {
    name: "FromAsCasing",
    summary: "FROM and AS are not written in the same casing",
    origin: Origin::BuildKit(Some("from-as-casing")),
    experimental: false,
    why: "Casing has no meaning, but mixed keywords are harder to read.",
    bad: "FROM debian as builder",
    good: "FROM debian AS builder",
};

/// FROM --platform=linux/amd64.
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Check = Check {
    name: "FromPlatformFlagConstDisallowed",
    summary: "FROM --platform has a fixed value",
    origin: Origin::BuildKit(Some("from-platform-flag-const-disallowed")),
    experimental: false,
    why: "The stage can then be built for that one platform only. Choose the platform with \
          kiln build --platform, use $BUILDPLATFORM for a stage that cross-compiles, or put \
          the platform into the stage's name where it is meant.",
    bad: "FROM --platform=linux/amd64 alpine AS base",
    good: "FROM --platform=$BUILDPLATFORM alpine AS base",
};

/// A base image of another platform.
pub static INVALID_BASE_IMAGE_PLATFORM: Check = Check {
    name: "InvalidBaseImagePlatform",
    summary: "the base image is for another platform",
    origin: Origin::BuildKit(None),
    experimental: false,
    why: "An image without a list of platforms may be for a machine other than the one that is \
          built for: its programs don't start.",
    bad: "FROM --platform=linux/arm64 example.com/tool:amd64-only",
    good: "FROM example.com/tool:for-all",
};

/// A base that needs --build-arg.
pub static INVALID_DEFAULT_ARG_IN_FROM: Check = Check {
    name: "InvalidDefaultArgInFrom",
    summary: "without --build-arg, FROM has no valid image",
    origin: Origin::BuildKit(Some("invalid-default-arg-in-from")),
    experimental: false,
    why: "A Dockerfile should build without any build argument.",
    bad: "ARG TAG\nFROM busybox:${TAG}",
    good: "ARG TAG=latest\nFROM busybox:${TAG}",
};

/// A comment above ARG or FROM that describes something else.
pub static INVALID_DEFINITION_DESCRIPTION: Check = Check {
    name: "InvalidDefinitionDescription",
    summary: "the comment above ARG or a stage does not begin with its name",
    origin: Origin::BuildKit(Some("invalid-definition-description")),
    experimental: true,
    why: "The comment above an ARG or a stage is its description in kiln build --call=outline \
          and --call=targets, if it begins with the name. A blank line below makes it a comment \
          like any other.",
    bad: "# the version to build\nARG VERSION\nFROM scratch AS app",
    good: "# VERSION the version to build\nARG VERSION\nFROM scratch AS app",
};

/// CMD in shell form.
pub static JSON_ARGS_RECOMMENDED: Check = Check {
    name: "JSONArgsRecommended",
    summary: "CMD or ENTRYPOINT is in shell form",
    origin: Origin::BuildKit(Some("json-args-recommended")),
    experimental: false,
    why: "In shell form a shell is the first process of the container, and SIGTERM ends at it: \
          stopping takes ten seconds and a SIGKILL. Where a shell is wanted, say so with SHELL.",
    bad: "FROM alpine\nENTRYPOINT my-program start",
    good: "FROM alpine\nENTRYPOINT [\"my-program\", \"start\"]",
};

/// ENV NAME value.
pub static LEGACY_KEY_VALUE_FORMAT: Check = Check {
    name: "LegacyKeyValueFormat",
    summary: "ENV or LABEL has a blank where = belongs",
    origin: Origin::BuildKit(Some("legacy-key-value-format")),
    experimental: false,
    why: "The old form takes all the rest of the line as one value: ENV A=1 B=2 without its \
          first = sets a single variable.",
    bad: "FROM alpine\nENV DIR /my dir",
    good: "FROM alpine\nENV DIR=\"/my dir\"",
};

/// MAINTAINER.
pub static MAINTAINER_DEPRECATED: Check = Check {
    name: "MaintainerDeprecated",
    summary: "MAINTAINER is deprecated",
    origin: Origin::BuildKit(Some("maintainer-deprecated")),
    experimental: false,
    why: "A label does the same and is seen by every tool.",
    bad: "FROM alpine\nMAINTAINER moby@example.com",
    good: "FROM alpine\nLABEL org.opencontainers.image.authors=\"moby@example.com\"",
};

/// Two CMDs.
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Check = Check {
    name: "MultipleInstructionsDisallowed",
    summary: "CMD, ENTRYPOINT or HEALTHCHECK is there twice in a stage",
    origin: Origin::BuildKit(Some("multiple-instructions-disallowed")),
    experimental: false,
    why: "Only the last one counts; the others look as if they did something.",
    bad: "FROM alpine\nENTRYPOINT [\"one\"]\nENTRYPOINT [\"two\"]",
    good: "FROM alpine\nENTRYPOINT [\"two\"]",
};

/// A blank line within an instruction.
pub static NO_EMPTY_CONTINUATION: Check = Check {
    name: "NoEmptyContinuation",
    summary: "an instruction goes on after an empty line",
    origin: Origin::BuildKit(Some("no-empty-continuation")),
    experimental: false,
    why: "The empty line is skipped today, and will be an error: a forgotten \\ at the end of \
          an instruction swallows the next one.",
    bad: "FROM alpine\nRUN echo one \\\n\n    two",
    good: "FROM alpine\nRUN echo one \\\n    # a comment may stand here\n    two",
};

/// FROM --platform=$TARGETPLATFORM.
pub static REDUNDANT_TARGET_PLATFORM: Check = Check {
    name: "RedundantTargetPlatform",
    summary: "FROM --platform=$TARGETPLATFORM says what holds anyway",
    origin: Origin::BuildKit(Some("redundant-target-platform")),
    experimental: false,
    why: "A stage is built for the target platform unless told otherwise.",
    bad: "FROM --platform=$TARGETPLATFORM alpine AS builder",
    good: "FROM alpine AS builder",
};

/// A stage named scratch.
pub static RESERVED_STAGE_NAME: Check = Check {
    name: "ReservedStageName",
    summary: "a stage is named scratch or context",
    origin: Origin::BuildKit(Some("reserved-stage-name")),
    experimental: false,
    why: "These names have a meaning of their own.",
    bad: "FROM alpine AS scratch",
    good: "FROM alpine AS builder",
};

/// ARG PASSWORD.
pub static SECRETS_USED_IN_ARG_OR_ENV: Check = Check {
    name: "SecretsUsedInArgOrEnv",
    summary: "ARG or ENV holds what looks like a secret",
    origin: Origin::BuildKit(Some("secrets-used-in-arg-or-env")),
    experimental: false,
    why: "Values of ARG and ENV stay in the image, where everyone who has it can read them \
          (kiln history). A secret mount is there for one step only.",
    bad: "FROM alpine\nARG NPM_TOKEN\nRUN npm ci",
    good: "FROM alpine\nRUN --mount=type=secret,id=npm,env=NPM_TOKEN npm ci",
};

/// AS Builder.
pub static STAGE_NAME_CASING: Check = Check {
    name: "StageNameCasing",
    summary: "the name of a stage is not in lower case",
    origin: Origin::BuildKit(Some("stage-name-casing")),
    experimental: false,
    why: "Names of stages have no case; lower case sets them apart from instructions.",
    bad: "FROM alpine AS BuilderBase",
    good: "FROM alpine AS builder-base",
};

/// FROM $UNKNOWN.
pub static UNDEFINED_ARG_IN_FROM: Check = Check {
    name: "UndefinedArgInFrom",
    summary: "FROM uses a variable that no ARG before it declares",
    origin: Origin::BuildKit(Some("undefined-arg-in-from")),
    experimental: false,
    why: "FROM sees the ARGs before the first FROM and the predefined ones; any other variable \
          is empty there.",
    bad: "ARG VARIANT=slim\nFROM debian:stable${VARIAN}",
    good: "ARG VARIANT=-slim\nFROM debian:stable${VARIANT}",
};

/// $UNKNOWN.
pub static UNDEFINED_VAR: Check = Check {
    name: "UndefinedVar",
    summary: "a variable is used that nothing sets",
    origin: Origin::BuildKit(Some("undefined-var")),
    experimental: false,
    why: "A variable that neither ARG nor ENV nor the base image sets is empty. An ARG before \
          the first FROM must be named again in the stage. Where kiln does not have the base \
          image, it reports only names that are close to one of the file.",
    bad: "FROM alpine AS base\nCOPY $foo .",
    good: "FROM alpine AS base\nARG foo=bar\nCOPY $foo .",
};

/// WORKDIR app.
pub static WORKDIR_RELATIVE_PATH: Check = Check {
    name: "WorkdirRelativePath",
    summary: "WORKDIR is relative to what the base image says",
    origin: Origin::BuildKit(Some("workdir-relative-path")),
    experimental: false,
    why: "The working directory of a base image may change with its next version.",
    bad: "FROM nginx AS web\nWORKDIR usr/share/nginx/html",
    good: "FROM nginx AS web\nWORKDIR /usr/share/nginx/html",
};

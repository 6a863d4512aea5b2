# shellcheck shell=bash disable=SC2034
# What the scripts in ci/ share. Source it; it runs nothing by itself.
#
# Everything but the set-up runs as a non-root user, since kiln is made for one. A script
# that is called as root calls `rerun_as_test_user`, which makes that user, gives it a copy
# of the tree and a toolchain that it can read, and starts the same script again as that user.

# What is built once has no use for it; it fills the disk, and left a library of mixed objects once.
export CARGO_INCREMENTAL=0

set -Eeuo pipefail
# No script ends without a word.
trap 'printf "error: %s:%d: exit code %d: %s\n" "${BASH_SOURCE[0]}" "$LINENO" "$?" "$BASH_COMMAND" >&2' ERR

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TEST_USER=kiln-test
# Root owns this directory and the toolchains in it; the user owns only `home`.
TEST_BASE=/var/lib/kiln-test
TEST_HOME=$TEST_BASE/home

# What the tests and the oracle need. The first line is what kiln itself uses; libFuzzer is C++.
KILN_PACKAGES=(uidmap fuse-overlayfs ca-certificates)
BASE_PACKAGES=(mmdebstrap busybox-static docker-registry skopeo umoci jq curl)
BUILD_PACKAGES=(gcc libc6-dev git)
TEST_PACKAGES=(g++ python3 buildah crun openssh-client shellcheck acl attr libcap2-bin zstd pigz xz-utils bzip2 strace util-linux procps)

# ---- saying what goes on -------------------------------------------------------------------

# A caller that runs several scripts exports KILN_STAGES (the total) and KILN_STAGE (those
# that are done), so that one count goes through all of them.
plan_stages() {
    export KILN_STAGES=${KILN_STAGES:-$1} KILN_STAGE=${KILN_STAGE:-0}
}

stage() {
    KILN_STAGE=$((KILN_STAGE + 1))
    printf '==> [%d/%d] %s\n' "$KILN_STAGE" "$KILN_STAGES" "$*"
}

note() { printf '    %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$1" >&2
    shift
    local hint
    for hint in "$@"; do printf 'hint: %s\n' "$hint" >&2; done
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# ---- packages ------------------------------------------------------------------------------

missing_packages() {
    local package
    for package in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Status} ' "$package" 2>/dev/null || true) in
        *installed*) ;;
        *) printf '%s\n' "$package" ;;
        esac
    done
}

# Installs as root, or through $SUDO (set by quickstart).
install_packages() {
    local missing
    command -v dpkg-query >/dev/null ||
        die "this machine has no dpkg: the set-up knows Debian and Ubuntu" \
            "install the equivalents of: $*"
    mapfile -t missing < <(missing_packages "$@")
    if [ ${#missing[@]} -eq 0 ]; then
        note "all packages are there"
        return
    fi
    note "installing ${missing[*]}"
    local apt=(${SUDO:+"$SUDO"} env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    local log
    log=$(mktemp)
    if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } \
        </dev/null >"$log" 2>&1; then
        tail -n 25 "$log" >&2
        die "apt-get could not install ${missing[*]} (log: $log)" \
            "run: apt-get update && apt-get install ${missing[*]}"
    fi
    rm "$log"
}

# For callers who are not root: says what to install, and stops.
require_packages() {
    local missing
    command -v dpkg-query >/dev/null || return 0
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] ||
        die "these packages are missing: ${missing[*]}" \
            "sudo apt-get update && sudo apt-get install ${missing[*]}" \
            "or run this script as root: it installs them and goes on as the user $TEST_USER"
}

# ---- what only root can set up -------------------------------------------------------------

# Makes the user's range of ids in $1 (/etc/subuid or /etc/subgid) behind all others there.
ensure_subordinate_ids() {
    local file=$1 user=$2
    touch "$file"
    grep -q "^$user:" "$file" && return
    awk -F: -v user="$user" '
        { end = $2 + $3; if (end > next_id) next_id = end }
        END { if (next_id < 100000) next_id = 100000; printf "%s:%d:65536\n", user, next_id }
    ' "$file" >"$file.kiln-new"
    cat "$file.kiln-new" >>"$file"
    rm "$file.kiln-new"
    note "added $(grep "^$user:" "$file") to $file"
}

ensure_test_user() {
    install -d -m 0755 "$TEST_BASE"
    if ! id "$TEST_USER" >/dev/null 2>&1; then
        useradd --home-dir "$TEST_HOME" --no-create-home --shell /bin/bash "$TEST_USER"
        note "made the user $TEST_USER (uid $(id -u "$TEST_USER"), home $TEST_HOME)"
    fi
    install -d -m 0755 -o "$TEST_USER" -g "$TEST_USER" "$TEST_HOME"
    install -d -m 0700 -o "$TEST_USER" -g "$TEST_USER" "$TEST_HOME/run"
    ensure_subordinate_ids /etc/subuid "$TEST_USER"
    ensure_subordinate_ids /etc/subgid "$TEST_USER"
}

# fuse-overlayfs and user-mode networks need these; in many containers only root may open them.
open_device() {
    [ -c "$1" ] || { note "$1 is not there: tests that need it will say so"; return; }
    [ "$(stat -c %a "$1")" = 666 ] && return
    if chmod 0666 "$1"; then note "chmod 0666 $1"; else note "could not chmod $1"; fi
}

apparmor_restricts_userns() {
    [ "$(cat /proc/sys/kernel/apparmor_restrict_unprivileged_userns 2>/dev/null || echo 0)" = 1 ]
}

# Allows user namespaces to the programs that match $2. Runs as root or through $SUDO.
install_apparmor_profile() {
    local name=$1 programs=$2 file=/etc/apparmor.d/$1
    printf '%s\n' \
        '# Written by kiln: allows it user namespaces and restricts nothing.' \
        'abi <abi/4.0>,' 'include <tunables/global>' \
        "profile $name \"$programs\" flags=(unconfined) {" '  userns,' '}' |
        ${SUDO:+"$SUDO"} tee "$file" >/dev/null
    ${SUDO:+"$SUDO"} apparmor_parser -r "$file"
    note "installed the AppArmor profile $file for $programs"
}

set_up_as_root() {
    install_packages "$@"
    ensure_test_user
    open_device /dev/fuse
    open_device /dev/net/tun
    if apparmor_restricts_userns; then
        install_apparmor_profile kiln-test "$TEST_HOME/**"
    fi
}

# ---- the toolchain -------------------------------------------------------------------------

# Prints the directory of the toolchain that this tree asks for.
find_toolchain() {
    local dir
    for dir in "${CARGO_HOME:-$HOME/.cargo}/bin" ~root/.cargo/bin /usr/local/cargo/bin; do
        [ -x "$dir/rustc" ] && PATH=$PATH:$dir
    done
    command -v rustc >/dev/null ||
        die "no Rust toolchain was found (rustc is not in PATH)" "install Rust 1.90 or newer, with rustup or from your distribution"
    (cd "$REPO" && rustc --print sysroot) ||
        die "rustc does not start in $REPO" "see rust-toolchain.toml for the toolchain that is asked for"
}

# Prints a directory with bin/cargo that the test user can read. A toolchain below a closed
# home is linked (or copied, over file systems) once per version.
share_toolchain() {
    local sysroot key shared
    sysroot=$(find_toolchain)
    if [ -x "$sysroot/bin/cargo" ] && as_test_user test -x "$sysroot/bin/cargo"; then
        printf '%s\n' "$sysroot"
        return
    fi
    [ -x "$sysroot/bin/cargo" ] || die "$sysroot/bin has no cargo"
    key=$({ "$sysroot/bin/rustc" -vV; ls "$sysroot/bin"; } | sha256sum | cut -c1-16)
    shared=$TEST_BASE/toolchain-$key
    exec 8>"$TEST_BASE/lock"
    flock 8
    if [ ! -d "$shared" ]; then
        rm -rf "$shared.new"
        install -d -m 0755 "$shared.new"
        local part
        for part in bin lib libexec; do
            [ -d "$sysroot/$part" ] || continue
            cp -al "$sysroot/$part" "$shared.new/" 2>/dev/null || {
                rm -rf "${shared.new:?}/$part"
                cp -a "$sysroot/$part" "$shared.new/"
            }
        done
        mv "$shared.new" "$shared"
    fi
    printf '%s\n' "$shared"
}

# ---- becoming the test user ----------------------------------------------------------------

# Variables that a machine behind a proxy or with its own certificates can't do without.
NETWORK_VARIABLES=(http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY
    SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE CARGO_HTTP_CAINFO)
# Switches of the scripts and tests that go through to the user.
SWITCH_VARIABLES=(CI TERM KILN_STAGE KILN_STAGES KILN_SOAK KILN_COMMIT KILN_TEST_KEEP KILN_TEST_CACHE)

setpriv_test_user() {
    setpriv --reuid "$TEST_USER" --regid "$TEST_USER" --init-groups --inh-caps=-all -- "$@"
}

# Runs a command as the user with a clean environment and no input.
as_test_user() {
    local environment=(
        "HOME=$TEST_HOME" "USER=$TEST_USER" "LOGNAME=$TEST_USER" "LANG=C.UTF-8"
        "XDG_RUNTIME_DIR=$TEST_HOME/run"
        "PATH=${TEST_PATH:-}${TEST_PATH:+:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )
    local name
    for name in "${NETWORK_VARIABLES[@]}" "${SWITCH_VARIABLES[@]}"; do
        [ -z "${!name:-}" ] || environment+=("$name=${!name}")
    done
    (
        # The caller's directory may be closed to the user.
        cd "${TEST_DIRECTORY:-/}" || exit
        setpriv_test_user env -i "${environment[@]}" "$@" </dev/null
    )
}

# Prints the files that belong to the tree, NUL-separated: what git knows, and what is new.
list_tree() {
    local file
    if git -c safe.directory='*' -C "$REPO" rev-parse >/dev/null 2>&1; then
        git -c safe.directory='*' -C "$REPO" ls-files -z --cached --others --exclude-standard |
            while IFS= read -r -d '' file; do
                if [ -e "$REPO/$file" ] || [ -L "$REPO/$file" ]; then printf '%s\0' "$file"; fi
            done
    else
        (cd "$REPO" && find . -path ./target -prune -o -path ./.git -prune -o ! -type d -print0)
    fi
}

# Copies the tree into $1 of the user; modification times stay, so cargo rebuilds only changes.
copy_tree() {
    local to=$1
    as_test_user rm -rf "$to.new"
    as_test_user mkdir -p "$to.new"
    list_tree | tar -C "$REPO" --null --files-from=- --owner=0 --group=0 -cf - |
        (cd / && setpriv_test_user tar -C "$to.new" --no-same-owner -xf -)
    as_test_user rm -rf "$to.old"
    as_test_user sh -c "if [ -e '$to' ]; then mv '$to' '$to.old'; fi; mv '$to.new' '$to'; rm -rf '$to.old'"
}

# Prints where the user keeps its copy of this tree (tree) and the builds (target).
user_place() {
    printf '%s/%s-%s\n' "$TEST_HOME" "$(basename "$REPO")" "$(printf %s "$REPO" | sha256sum | cut -c1-8)"
}

# Called as root: copies, and runs "$@" (a path below the tree, and arguments) as the user.
rerun_as_test_user() {
    local place tree
    place=$(user_place)
    tree=$place/tree
    TEST_PATH=$(share_toolchain)/bin
    copy_tree "$tree"
    # A mirror of the package index that is configured for the caller is needed by the user too.
    local config=${CARGO_HOME:-$HOME/.cargo}/config.toml
    if [ -f "$config" ]; then
        install -d -o "$TEST_USER" -g "$TEST_USER" "$TEST_HOME/.cargo"
        install -m 0600 -o "$TEST_USER" -g "$TEST_USER" "$config" "$TEST_HOME/.cargo/config.toml"
    fi
    note "going on as $TEST_USER in $tree"
    # What failed has said so already.
    TEST_DIRECTORY=$tree as_test_user env CARGO_TARGET_DIR="$place/target" "$@" || exit
}

# ---- the loopback registry -----------------------------------------------------------------

# Starts Debian's docker-registry over the storage $1, with its files in $2. Sets REGISTRY
# (127.0.0.1:PORT) and REGISTRY_PID. It dies with this shell. The kernel picks the port.
start_registry() {
    local storage=$1 work=$2 waited
    cat >"$work/registry.yml" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: "$storage"}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: "127.0.0.1:0", secret: loopback}
YAML
    setpriv --pdeathsig KILL docker-registry serve "$work/registry.yml" \
        >"$work/registry.log" 2>&1 </dev/null &
    REGISTRY_PID=$!
    for ((waited = 0; waited < 200; waited++)); do
        REGISTRY=$(sed -nE 's/.*listening on (127\.0\.0\.1:[0-9]+).*/\1/p' "$work/registry.log")
        [ -z "$REGISTRY" ] || return 0
        kill -0 "$REGISTRY_PID" 2>/dev/null || break
        sleep 0.05
    done
    cat "$work/registry.log" >&2
    die "docker-registry did not start"
}

stop_registry() {
    [ -n "${REGISTRY_PID:-}" ] || return 0
    kill "$REGISTRY_PID" 2>/dev/null || true
    wait "$REGISTRY_PID" 2>/dev/null || true
}

# Removes a directory whose files may belong to subordinate ids.
remove_tree() {
    rm -rf "$1" 2>/dev/null || unshare --map-root-user --map-auto rm -rf "$1"
}

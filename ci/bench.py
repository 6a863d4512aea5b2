"""The rows of ci/bench, which starts this. See there."""

import gzip
import hashlib
import itertools
import json
import os
import pathlib
import platform
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

KILN, BASES, WORK = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
ARGUMENTS = sys.argv[4:]
SMOKE = "--smoke" in ARGUMENTS
PROFILE = "--profile" in ARGUMENTS
ROUNDS = 1 if SMOKE else 5
FILES = 2_000 if SMOKE else 50_000
MEGABYTES = 32 if SMOKE else 1024
STEPS = 10 if SMOKE else 50


class Failed(Exception):
    pass


class LeftOut(Exception):
    """This machine can't measure a row."""


def note(text):
    print("   ", text, flush=True)


# A process inherits the peak of the one that forks it. So commands are started by a process that
# is small and stays so: what it says of their memory is theirs.
STARTER = """
import json, os, sys, time
for line in sys.stdin:
    command, cwd, log = json.loads(line)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            if cwd:
                os.chdir(cwd)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
            os.dup2(1, 2)
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, str(error).encode())
        os._exit(127)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss]), flush=True)
"""
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
starter = subprocess.Popen([sys.executable, "-S", "-c", STARTER], text=True,
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def run(command, cwd=None):
    """Runs a command; returns its seconds and its peak resident memory in MiB."""
    command, log = [str(part) for part in command], WORK / "log"
    print(json.dumps([command, cwd and str(cwd), str(log)]), file=starter.stdin, flush=True)
    code, seconds, peak = json.loads(starter.stdout.readline())
    if code != 0:
        text = log.read_text(errors="replace")[-2000:]
        raise Failed(f"{' '.join(command)}: exit code {code}\n{text}")
    return seconds, peak / 1024


def shell(script, cwd=None):
    return run(["bash", "-euo", "pipefail", "-c", script], cwd=cwd)


# ---- the contenders -------------------------------------------------------------------------

STORE = WORK / "store"
POLICY = WORK / "policy.json"
# Where a run leaves what the next one must not find; emptied after each, outside of the time.
SCRATCH = WORK / "scratch"
DISK = pathlib.Path(os.environ.get("TMPDIR", "/var/tmp"))


class Peer:
    """Another builder, with a storage of its own."""

    def __init__(self, name, build):
        self.name, self.root = name, WORK / name
        self.command = [name, "--storage-driver", "overlay", "--root", self.root / "root",
                        "--runroot", self.root / "run"]
        self.verb = build

    def is_there(self):
        return not (SMOKE or PROFILE) and shutil.which(self.name) is not None

    def build(self, context, *arguments, name="bench"):
        return run([*self.command, self.verb, "--isolation", "chroot", "--format", "oci",
                    "--layers", "--signature-policy", POLICY, "-q", "-t", name, *arguments,
                    context])


# podman's `build` is buildah's library behind another start.
BUILDAH, PODMAN = Peer("buildah", "bud"), Peer("podman", "build")
PEERS = [BUILDAH, PODMAN]


def kiln(*arguments, root=STORE):
    return run([KILN, "--root", root, *arguments])


def kiln_build(context, *arguments, root=STORE, name="bench"):
    return kiln("build", "-q", "-t", name, *arguments, context, root=root)


def with_peers(contenders, measured):
    """Adds the peers that are there."""
    for peer in PEERS:
        if peer.is_there():
            contenders[peer.name] = lambda peer=peer: measured(peer)


def remove(*paths):
    """Removes trees, what subordinate ids own in them too."""
    paths = [path for path in paths if path.exists()]
    if paths:
        subprocess.run(["unshare", "-r", "--map-auto", "rm", "-rf", *paths], check=True)


# ---- what is right --------------------------------------------------------------------------

def layers_of(archive):
    """Yields the layers of an OCI archive as streams of tar, bottom first."""
    with tarfile.open(archive) as outer:
        def blob(descriptor):
            return outer.extractfile("blobs/" + descriptor["digest"].replace(":", "/"))
        index = json.load(outer.extractfile("index.json"))
        manifest = json.load(blob(index["manifests"][0]))
        for layer in manifest["layers"]:
            mode = "r|gz" if layer["mediaType"].endswith("gzip") else "r|"
            with tarfile.open(fileobj=blob(layer), mode=mode) as stream:
                yield stream


def tree_of(archive):
    """Returns what an image's root file system holds: type, mode, owner and content by path."""
    tree = {}
    for layer in layers_of(archive):
        for entry in layer:
            path = os.path.normpath("/" + entry.name).strip("/")
            parent, _, name = path.rpartition("/")
            if name.startswith(".wh."):
                gone = f"{parent}/{name[4:]}".strip("/")
                below = gone + "/" if name != ".wh..wh..opq" else parent + "/"
                tree = {p: v for p, v in tree.items() if p != gone and not p.startswith(below)}
                continue
            content = entry.linkname
            if entry.isreg():
                content = hashlib.file_digest(layer.extractfile(entry), "sha256").hexdigest()
            # A hard link is what it leads to.
            if entry.islnk():
                tree[path] = tree[entry.linkname.removeprefix("./").strip("/")]
                continue
            tree[path] = (entry.type, entry.mode & 0o7777, entry.uid, entry.gid, content)
    tree.pop("", None)
    return tree


# What buildah mounted over and left behind; a layer of kiln must not have it.
STUBS = ["etc/hostname", "etc/hosts", "etc/resolv.conf", "run", "run/.containerenv", "proc", "sys"]


# What has times in it, and so differs each time.
DATED = ("var/log/", "var/cache/ldconfig/", "var/cache/apt/")


def check_equal(name="bench"):
    """Holds kiln's image against buildah's, file by file."""
    ours, theirs = SCRATCH / "ours.tar", SCRATCH / "theirs.tar"
    kiln("save", "--format", "oci-archive", "-o", ours, name)
    run([*BUILDAH.command, "push", "--signature-policy", POLICY, name, f"oci-archive:{theirs}"])
    ours, theirs = tree_of(ours), tree_of(theirs)
    for path in STUBS:
        if path not in ours:
            theirs.pop(path, None)
    for tree in (ours, theirs):
        for path in [path for path in tree if path.startswith(DATED)]:
            del tree[path]
    # A device of the base is lost to buildah, which can't make one without root.
    devices = [path for path, what in ours.items() if what[0] in (tarfile.CHRTYPE, tarfile.BLKTYPE)]
    for path in devices:
        if path not in theirs:
            del ours[path]
    if ours != theirs:
        wrong = [p for p in sorted(ours.keys() | theirs.keys()) if ours.get(p) != theirs.get(p)]
        shown = [f"{p}: kiln {ours.get(p)}, buildah {theirs.get(p)}" for p in wrong[:5]]
        raise Failed(f"{len(wrong)} paths differ from buildah's image: " + "; ".join(shown))


# ---- workloads ------------------------------------------------------------------------------

def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def base(system="busybox"):
    """Makes the base image known to all builders."""
    if not (STORE / "refs").is_dir():
        kiln("import", BASES / f"{system}.tar", "bench-base")
    for peer in PEERS:
        if peer.is_there() and not peer.root.exists():
            write(peer.root / "context/Dockerfile", f"FROM scratch\nADD {system}.tar /\n")
            shutil.copy(BASES / f"{system}.tar", peer.root / "context")
            peer.build(peer.root / "context", name="bench-base")


def many_files():
    """Returns a directory with many files of 4 KiB on average, committed to git."""
    root = WORK / "many"
    if root.exists():
        return root
    source = random.Random(1)
    block = source.randbytes(1 << 20)
    for number in range(FILES):
        path = root / f"d{number % 50}" / f"e{number // 50 % 20}" / f"f{number}"
        if number < 1000:
            path.parent.mkdir(parents=True, exist_ok=True)
        start, size = source.randrange(1 << 19), source.randrange(1, 8192)
        path.write_bytes(block[start:start + size])
    write(root / "Dockerfile", "FROM bench-base\nCOPY . /many\n")
    write(root / ".dockerignore", ".git\n")
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench", "-c", "gc.auto=0"]
    run([*git, "init", "-q"], cwd=root)
    run([*git, "add", "-A"], cwd=root)
    run([*git, "commit", "-qm", "bench"], cwd=root)
    # Neither git nor kiln trusts what was written in the very moment it was looked at.
    time.sleep(2)
    run([*git, "status"], cwd=root)
    return root


# ---- rows -----------------------------------------------------------------------------------
# Each returns {contender: function} or {contender: (function, rounds)}, the companion last. A
# function returns seconds and MiB. `finish` is run before images are compared, `end` at last.

def noop():
    base()
    context = WORK / "noop"
    lines = "".join(f"RUN echo {i} > /f{i}\n" for i in range(8))
    write(context / "Dockerfile", f"FROM bench-base\nENV A=1\n{lines}COPY . /src\n")
    write(context / "file", "x")
    kiln_build(context)
    contenders = {"kiln": lambda: kiln_build(context)}

    def again(peer):
        return peer.build(context)
    for peer in PEERS:
        if peer.is_there():
            again(peer)
    with_peers(contenders, again)
    contenders["start of a process"] = lambda: run(["true"])
    return contenders


def noop_many():
    base()
    context = many_files()
    kiln_build(context)
    kiln_build(context)
    contenders = {"kiln": lambda: kiln_build(context)}
    for peer in PEERS:
        if peer.is_there():
            peer.build(context)
    with_peers(contenders, lambda peer: peer.build(context))
    contenders["git status"] = lambda: run(["git", "status"], cwd=context)
    return contenders


def one_changed():
    base()
    context = many_files()
    kiln_build(context)
    count = iter(range(1_000_000))

    def changed(build):
        write(context / "d0" / "e0" / "f0", f"changed {next(count)}")
        return build(context)

    def finish():
        kiln_build(context)
        BUILDAH.build(context)
    contenders = {"kiln": lambda: changed(kiln_build)}
    with_peers(contenders, lambda peer: changed(peer.build))
    contenders["cp -a"] = lambda: copy_tree(context)
    contenders["finish"] = finish
    return contenders


def copy_tree(source):
    target = SCRATCH / "copied"
    target.mkdir()
    return shell(f"cp -a {source}/d* {target}/")


def copy_many():
    base()
    context = many_files()
    contenders = {"kiln": lambda: kiln_build(context, "--no-cache")}
    with_peers(contenders, lambda peer: peer.build(context, "--no-cache"))
    contenders["cp -a"] = lambda: copy_tree(context)
    return contenders


def steps():
    base()
    context, short = WORK / "steps", WORK / "short-steps"
    lines = [f"RUN true {i}\n" for i in range(STEPS)]
    write(context / "Dockerfile", "FROM bench-base\n" + "".join(lines))
    write(short / "Dockerfile", "FROM bench-base\n" + "".join(lines[:10]))

    def each(count, measured):
        seconds, memory = measured
        return seconds / count, memory
    contenders = {"kiln": lambda: each(STEPS, kiln_build(context, "--no-cache"))}
    with_peers(contenders, lambda peer: each(10, peer.build(short, "--no-cache")))
    unshare = f"for ((i = 0; i < {STEPS}; i++)); do unshare -Urmpf true; done"
    contenders["unshare -Urmpf true"] = lambda: each(STEPS, shell(unshare))
    contenders["finish"] = lambda: kiln_build(short, "--no-cache")
    return contenders


def big_layer():
    base()
    # What can't be compressed, and is the same whoever builds it.
    blocks = 16
    seed = WORK / "seed"
    seed.mkdir()
    (seed / "seed").write_bytes(random.Random(3).randbytes((MEGABYTES << 20) // blocks))
    write(seed / "Dockerfile", "FROM bench-base\nCOPY seed /seed\n")
    context = WORK / "big"
    numbers = " ".join(map(str, range(blocks)))

    def make(seed, target):
        return (f"mkdir {target}; for i in {numbers}; do echo $i; cat {seed}; done > {target}/file; "
                f"for i in $(seq 2000); do echo $i > {target}/$i; done")
    write(context / "Dockerfile", f"FROM bench-seed\nRUN {make('/seed', '/big')}\n")

    def ours():
        root = SCRATCH / "store"
        kiln("import", BASES / "busybox.tar", "bench-base", root=root)
        kiln_build(seed, root=root, name="bench-seed")
        return kiln_build(context, root=root)

    def theirs(peer):
        peer.build(seed, name="bench-seed")
        measured = peer.build(context, "--no-cache")
        run([*peer.command, "rmi", "-f", "bench"])
        return measured

    def plain():
        target = SCRATCH / "plain"
        return shell(f"{make(seed / 'seed', target)}; tar -C {target} -c . | sha256sum")

    def finish():
        kiln_build(seed, name="bench-seed")
        kiln_build(context)
        BUILDAH.build(context)
    contenders = {"kiln": ours}
    with_peers(contenders, theirs)
    contenders["the same, tar | sha256sum"] = plain
    contenders["finish"] = finish
    return contenders


class Registry:
    """A registry on loopback with an empty storage."""

    def __init__(self):
        self.directory = WORK / f"registry.{time.monotonic_ns()}"
        self.directory.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.name = "127.0.0.1:%d" % probe.getsockname()[1]
        write(self.directory / "config.yml", json.dumps({
            "version": 0.1, "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.directory / "data")}},
            "http": {"addr": self.name},
        }))
        self.process = subprocess.Popen(
            ["docker-registry", "serve", self.directory / "config.yml"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        host, port = self.name.split(":")
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.05)
        raise Failed("docker-registry does not listen")

    def clear(self):
        """Forgets all blobs, so that the next push sends them again."""
        remove(self.directory / "data")

    def end(self):
        self.process.terminate()
        self.process.wait()


def compressible(path, megabytes, start=0):
    """Writes what images hold: a part of a Debian, from so many MiB on."""
    with open(BASES / "debian.tar", "rb") as debian, open(path, "wb") as file:
        size = os.fstat(debian.fileno()).st_size
        for number in range(start, start + megabytes):
            debian.seek((number << 20) % (size - (1 << 20)))
            file.write(debian.read(1 << 20))


def push():
    base()
    context = WORK / "push"
    context.mkdir()
    compressible(context / "file", MEGABYTES // 2)
    write(context / "Dockerfile", "FROM scratch\nCOPY file /\n")
    kiln_build(context, name="pushed")
    tar = WORK / "pushed.tar"
    shell(f"tar -C {context} -cf {tar} file")
    registry = Registry()
    count = iter(range(1_000_000))

    def ours():
        # A store that has not compressed it before.
        root, name = SCRATCH / "store", f"{registry.name}/pushed{next(count)}:1"
        kiln_build(context, root=root, name=name)
        measured = kiln("push", "-q", name, root=root)
        registry.clear()
        return measured

    def theirs(peer):
        name = f"{registry.name}/pushed{next(count)}:1"
        peer.build(context, "--no-cache", name=name)
        measured = run([*peer.command, "push", "--tls-verify=false", "--signature-policy", POLICY,
                        "-q", name])
        run([*peer.command, "rmi", "-f", name])
        registry.clear()
        return measured
    contenders = {"kiln": ours}
    with_peers(contenders, theirs)

    def finish():
        # What buildah gets of kiln's push is what was built, and as small as pigz makes it.
        name = f"{registry.name}/pushed:1"
        kiln("tag", "pushed", name)
        kiln("tag", "pushed", "bench")
        kiln("push", "-q", name)
        run([*BUILDAH.command, "pull", "--tls-verify=false", "--signature-policy", POLICY, "-q", name])
        run([*BUILDAH.command, "tag", name, "bench"])
        sent = max(p.stat().st_size for p in (registry.directory / "data").rglob("data") if p.is_file())
        shell(f"pigz -6 -c {tar} > {SCRATCH}/pushed.gz")
        least = (SCRATCH / "pushed.gz").stat().st_size
        note(f"kiln sent {sent:,} bytes, pigz -6 makes {least:,}: {sent / least:.3f}")
        if sent > least * 1.05:
            raise Failed("what kiln pushed is more than 5 % larger than what pigz makes of it")
    contenders["pigz -6"] = lambda: shell(f"pigz -6 -c {tar} > {SCRATCH}/pushed.gz")
    contenders["finish"] = finish
    contenders["end"] = registry.end
    return contenders


def pull():
    base()
    registry = Registry()
    context, layers = WORK / "pull", 10
    lines = ""
    for number in range(layers):
        directory = context / f"l{number}"
        directory.mkdir(parents=True)
        part = max(1, MEGABYTES // 25)
        compressible(directory / "big", part, number * part)
        for small in range(FILES // 200):
            (directory / f"s{small}").write_bytes(os.urandom(4096))
        lines += f"COPY l{number} /l{number}\n"
    write(context / "Dockerfile", "FROM scratch\n" + lines)
    name = f"{registry.name}/pulled:1"
    kiln_build(context, name=name)
    kiln("push", "-q", name)
    archive = WORK / "pulled.tar"
    kiln("save", "--format", "oci-archive", "-o", archive, name)
    blobs = []
    for number, data in enumerate(compressed_layers(archive)):
        blobs.append(WORK / f"pulled.{number}.gz")
        blobs[-1].write_bytes(data)

    def plain():
        return shell("".join(
            f"mkdir {SCRATCH}/{i}; gzip -dc {blob} | tar -C {SCRATCH}/{i} -x\n"
            for i, blob in enumerate(blobs)))

    def theirs(peer):
        return run([peer.name, "--storage-driver", "overlay", "--root", SCRATCH / "root",
                    "--runroot", SCRATCH / "run", "pull", "--tls-verify=false",
                    "--signature-policy", POLICY, "-q", name])

    def finish():
        # All that was pushed is pulled, by kiln and by buildah.
        for command in [[KILN, "--root", STORE, "rmi", "-f", name],
                        [KILN, "--root", STORE, "prune", "-af"],
                        [KILN, "--root", STORE, "pull", "-q", name],
                        [KILN, "--root", STORE, "tag", name, "bench"],
                        [*BUILDAH.command, "pull", "--tls-verify=false", "--signature-policy",
                         POLICY, "-q", name],
                        [*BUILDAH.command, "tag", name, "bench"]]:
            run(command)
    contenders = {"kiln": lambda: kiln("pull", "-q", name, root=SCRATCH / "store")}
    with_peers(contenders, theirs)
    contenders["gzip -dc | tar x"] = plain
    contenders["finish"] = finish
    contenders["end"] = registry.end
    return contenders


def compressed_layers(archive):
    with tarfile.open(archive) as outer:
        index = json.load(outer.extractfile("index.json"))
        digest = index["manifests"][0]["digest"].replace(":", "/")
        manifest = json.load(outer.extractfile(f"blobs/{digest}"))
        for layer in manifest["layers"]:
            digest = layer["digest"].replace(":", "/")
            yield outer.extractfile(f"blobs/{digest}").read()


def stages():
    base()
    context = WORK / "stages"
    seconds = 1 if SMOKE else 2
    file = "".join(
        f"FROM bench-base AS s{i}\nRUN sleep {seconds} && echo {i} > /f{i}\n" for i in range(4))
    file += "FROM scratch\n" + "".join(f"COPY --from=s{i} /f{i} /\n" for i in range(4))
    write(context / "Dockerfile", file)
    contenders = {"kiln": lambda: kiln_build(context, "--no-cache")}
    with_peers(contenders, lambda peer: peer.build(context, "--no-cache", "--jobs", "4"))
    contenders[f"sleep {seconds}"] = lambda: run(["sleep", seconds])
    return contenders


INSTALL = "apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make"


def apt_context():
    write(WORK / "apt/Dockerfile", f"FROM bench-base\nRUN {INSTALL}\n")
    return WORK / "apt"


def make_chroot(root):
    shell(f"mkdir {root}; unshare -r --map-auto tar -C {root} --exclude=./dev/* "
          f"-xf {BASES}/debian.tar")


def install_in(root):
    inside = f"""
        mount -t proc proc {root}/proc
        mount --rbind /dev {root}/dev
        cp /etc/resolv.conf {root}/etc/resolv.conf
        export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
        chroot {root} sh -c '{INSTALL}'
    """
    return run(["unshare", "-r", "--map-auto", "-mpf", "sh", "-ec", inside])


def apt():
    """apt-get install within RUN, and in a plain chroot, where no disk is waited for."""
    base("debian")
    context = apt_context()

    def plain():
        make_chroot(SCRATCH / "chroot")
        return install_in(SCRATCH / "chroot")
    contenders = {"kiln": lambda: kiln_build(context, "--no-cache")}
    with_peers(contenders, lambda peer: peer.build(context, "--no-cache"))
    contenders["chroot"] = plain
    return contenders


def apt_on_disk():
    """The same on a disk. ext4 passes one by one over the inodes that were freed within the last
    minutes, when it looks for a free one: so nothing is removed before all is measured."""
    room = shutil.disk_usage(DISK).free >> 30
    kind = subprocess.run(["stat", "-f", "-c", "%T", DISK], capture_output=True, text=True).stdout
    if room < 2 * ROUNDS or kind.strip() == "tmpfs":
        raise LeftOut(f"{DISK} has {room} GiB free ({kind.strip()}); TMPDIR names another place")
    place = pathlib.Path(tempfile.mkdtemp(prefix="kiln-bench.", dir=DISK))
    context, turns = apt_context(), itertools.count()
    kiln("import", BASES / "debian.tar", "bench-base", root=place / "store")

    def at_rest(work):
        # Nobody writes what another one has made dirty.
        subprocess.run(["sync", "-f", place], check=True)
        return work()

    def ours():
        name = f"bench:{next(turns)}"
        return at_rest(lambda: kiln_build(context, "--no-cache", root=place / "store", name=name))

    def plain():
        root = place / f"chroot.{next(turns)}"
        make_chroot(root)
        return at_rest(lambda: install_in(root))
    return {"kiln": ours, "chroot": plain, "end": lambda: remove(place)}


# Name: what it is, its goal against the companion (or in milliseconds), and what sets it up.
ROWS = {
    "noop": ("no-op rebuild, 10 instructions, small context", "≤ 15 ms", noop),
    "noop-many": (f"no-op rebuild, context of {FILES:,} files", "≤ 2.0 ×", noop_many),
    "one-changed": (f"one file of {FILES:,} changed, COPY . again", "≤ 1.0 ×", one_changed),
    "steps": ("one RUN step of many", "≤ 5 ms", steps),
    "copy": (f"COPY of {FILES:,} files without cache", "≤ 1.3 ×", copy_many),
    "big-layer": (f"RUN that writes {MEGABYTES} MiB, image ready", "≤ 1.2 ×", big_layer),
    "push": (f"push of a layer of {MEGABYTES // 2} MiB, gzip", "≤ 1.0 ×", push),
    "pull": ("pull and extract, 10 layers", "≤ 1.0 ×", pull),
    "stages": ("four independent stages of sleep", "≤ 2.3 s", stages),
    "apt": ("apt-get install in a RUN", "–", apt),
    "apt-disk": ("apt-get install in a RUN, store on a disk", "≤ 1.0 ×", apt_on_disk),
}


def measure(name):
    title, goal, set_up = ROWS[name]
    # Room is short where all is on tmpfs: each row begins with nothing.
    remove(*(path for path in WORK.iterdir() if path.name not in ("many", "policy.json", "log")))
    SCRATCH.mkdir()
    contenders = set_up()
    finish, end = contenders.pop("finish", None), contenders.pop("end", None)
    compare = BUILDAH.name in contenders
    times, memory = {c: [] for c in contenders}, 0
    try:
        for _ in range(ROUNDS):
            for contender, how in contenders.items():
                seconds, mebibytes = how()
                times[contender].append(seconds)
                if contender == "kiln":
                    memory = max(memory, mebibytes)
                remove(*SCRATCH.iterdir())
        if compare:
            if finish:
                finish()
            check_equal()
    finally:
        if end:
            end()
    medians = {c: statistics.median(values) for c, values in times.items()}
    row = {"name": name, "title": title, "goal": goal, "seconds": medians, "runs": times,
           "peak_mib": round(memory, 1), "compared": compare}
    note(f"{name}: " + ", ".join(f"{c} {show(s)}" for c, s in medians.items())
         + f"; kiln's peak {memory:.0f} MiB" + ("; same image as buildah's" if compare else ""))
    return row


def profile(name):
    """Samples what kiln alone does in a row, and prints where most of the time goes."""
    remove(*(path for path in WORK.iterdir() if path.name not in ("many", "policy.json", "log")))
    SCRATCH.mkdir()
    contenders = ROWS[name][2]()
    function, end = contenders["kiln"], contenders.get("end")
    data = WORK / "perf.data"
    # The whole machine: to follow one process and its children slows each fork tenfold.
    perf = subprocess.Popen(["perf", "record", "-q", "-a", "-F", "1999", "-o", data])
    try:
        time.sleep(1)
        if perf.poll() is not None:
            raise Failed("perf can't look at the whole machine\n"
                         "hint: sysctl kernel.perf_event_paranoid=-1 kernel.kptr_restrict=0")
        # Few samples of a short command mean nothing.
        spent = rounds = 0
        while spent < 3:
            spent += function()[0]
            rounds += 1
            remove(*SCRATCH.iterdir())
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait()
        if end:
            end()
    print(f"\n## {name}: {rounds} × {show(spent / rounds)}\n")
    for keys, count in (("comm,dso", 12), ("comm,symbol", 24)):
        report = subprocess.run(["perf", "report", "--stdio", "-i", data, "-s", keys],
                                capture_output=True, text=True, check=True)
        lines = [line.strip() for line in report.stdout.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        print("\n".join(line[:100].rstrip(" -") for line in lines[:count]) + "\n", flush=True)


def show(seconds):
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def table(rows):
    peers = [peer.name for peer in PEERS if any(peer.name in row["seconds"] for row in rows)]
    head = ["Work", "kiln", *peers, "companion", "kiln : companion", "goal", "peak of kiln"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        seconds = row["seconds"]
        companion = list(seconds)[-1]
        lines.append("| " + " | ".join([
            row["title"], show(seconds["kiln"]),
            *(show(seconds[peer]) if peer in seconds else "–" for peer in peers),
            f"{show(seconds[companion])} ({companion})".replace("|", "\\|"),
            f"{seconds['kiln'] / seconds[companion]:.2f}", row["goal"],
            f"{row['peak_mib']:.0f} MiB",
        ]) + " |")
    return "\n".join(lines) + "\n"


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((l.split(":")[1].strip() for l in file if l.startswith("model name")), "?")
    return f"{os.cpu_count()} × {model}, Linux {platform.release().split('-')[0]}"


def main():
    names = [a for a in ARGUMENTS if not a.startswith("--")]
    if "--list" in ARGUMENTS:
        for name, (title, goal, _) in ROWS.items():
            print(f"{name:12} {title} (goal {goal})")
        return
    for name in names:
        if name not in ROWS:
            sys.exit(f"error: there is no row {name!r}; the rows are {', '.join(ROWS)}")
    write(POLICY, '{"default":[{"type":"insecureAcceptAnything"}]}')
    # A smoke test has no network to speak of.
    chosen = names or [name for name in ROWS if not (SMOKE and name.startswith("apt"))]
    if PROFILE:
        for name in chosen:
            profile(name)
        return
    rows = []
    for name in chosen:
        try:
            rows.append(measure(name))
        except LeftOut as why:
            note(f"{name}: LEFT OUT: {why}")
    text = table(rows)
    print(text)
    if names or SMOKE:
        return
    commit = os.environ.get("KILN_COMMIT") or subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    when = time.strftime("%Y-%m-%d")
    head = (f"# Benchmarks\n\nWritten by `ci/bench`: {machine()}; {when}; "
            f"commit {commit or 'unknown'}. Medians of {ROUNDS} runs, interleaved, "
            "stores and contexts on tmpfs but for `apt-disk`, the same non-root user. The companion is the best that the machine can do with plain "
            "tools; the goals are against it. buildah and podman are Debian's, with the overlay "
            "driver, chroot isolation and `--layers`. After each row kiln's image is compared with "
            "buildah's, file by file (in `push`, what buildah pulls with what kiln built; in `apt`, all "
            "but logs and caches; `apt-disk` is the same image). The kernel counts the processes of RUN as kiln's: the peak of `apt` is that of "
            "apt-get.\n\n")
    pathlib.Path("docs").mkdir(exist_ok=True)
    pathlib.Path("docs/benchmarks.md").write_text(head + text)
    pathlib.Path("docs/benchmarks.json").write_text(json.dumps(rows, indent=1) + "\n")


try:
    main()
except Failed as failure:
    sys.exit(f"error: {failure}")

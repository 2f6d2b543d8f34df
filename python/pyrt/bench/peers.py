"""Other tools that start containers, each with the same program from the same files.

Whatever can be turned on to match pyrt's container is turned on; what can't is said in the row. A tool that is not
there, or that can't work on this machine, gives a row with the reason. Daemons are the user's own ones: what is put
into them is removed at the end.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from pyrt import _native
from pyrt.bench.cases import Case, unavailable
from pyrt.bench.commands import run, stamped
from pyrt.bench.ground import CLOCK, IDLE, IMAGE
from pyrt.runtime.capabilities import DEFAULT
from pyrt.runtime.seccomp import default_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pyrt.bench.ground import Ground

    Words = Callable[[], Sequence[str]]
    """The command line of the next sample."""

_PREFIX: Final = f"pyrt-bench-{os.getpid()}-"
_NAMES: Final = (f"{_PREFIX}{number}" for number in itertools.count())
_NETWORK: Final = ("--network", "none")
# Ids of a bundle's user namespace: none that a person has.
_FIRST_ID, _IDS = 1 << 30, 1 << 16
_PIDS: Final = 1024
# Podman's usual limits are ones that a root without CAP_SYS_RESOURCE can't set.
_LIMITS: Final = ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:4096")
_FILTER: Final = 10
"""The descriptor on which bubblewrap reads its filter."""


class Unavailable(Exception):
    """The tool can't be measured here, and why."""


class Commands(NamedTuple):
    """``start``: a new container that runs the clock. ``join``: the clock in a container that runs, if it can do that.

    ``files`` are opened for the command for reading, by descriptor.
    """

    start: Words
    join: Words | None = None
    files: dict[int, str] | None = None


class Peer(NamedTuple):
    """``program`` has to be installed, from Debian's ``package``; ``missing``: what its container lacks."""

    name: str
    program: str
    package: str
    missing: str
    prepare: Callable[[Ground, str], AbstractContextManager[Commands]]


@contextmanager
def start_cases(ground: Ground) -> Iterator[list[Case]]:
    """A row for each tool: a new container from the command's execve to its end."""
    with _commands(ground, PEERS) as found:
        yield [_case(ground, peer, commands, lambda commands: commands.start) for peer, commands in found]


@contextmanager
def join_cases(ground: Ground) -> Iterator[list[Case]]:
    """A row for each tool that can run another command in a container that runs."""
    joining = [peer for peer in PEERS if peer.name in _JOINING]
    with _commands(ground, joining) as found:
        yield [_case(ground, peer, commands, lambda commands: commands.join) for peer, commands in found]


@contextmanager
def commands(ground: Ground, names: Sequence[str]) -> Iterator[dict[str, Commands | str]]:
    """What these tools are called with, or why they can't be: for other measures than those above."""
    with _commands(ground, [peer for peer in PEERS if peer.name in names]) as found:
        yield {peer.name: commands for peer, commands in found}


@contextmanager
def _commands(ground: Ground, peers: Sequence[Peer]) -> Iterator[list[tuple[Peer, Commands | str]]]:
    """What each tool is called with, or why it can't be."""
    try:
        with ExitStack() as stack:
            yield [(peer, _prepared(ground, peer, stack)) for peer in peers]
    finally:
        _remove_groups()


def _remove_groups() -> None:
    """The cgroups of containers that some tools could not start, and left."""
    for hierarchy in {*_native.host()["controllers"].values()}:
        for group in Path(hierarchy).glob(f"*{_PREFIX}*"):
            with suppress(OSError):
                group.rmdir()


def _prepared(ground: Ground, peer: Peer, stack: ExitStack) -> Commands | str:
    program = ground.program(peer.program)
    if program is None:
        return f"{peer.program} is not installed (Debian: {peer.package})"
    try:
        return stack.enter_context(peer.prepare(ground, program))
    except (Unavailable, OSError, subprocess.SubprocessError) as error:
        return " ".join(str(error).split())


def _case(ground: Ground, peer: Peer, commands: Commands | str, choose: Callable[[Commands], Words | None]) -> Case:
    if isinstance(commands, str):
        return unavailable(peer.name, commands, peer.missing)
    words = choose(commands)
    assert words is not None
    sample = stamped(ground, words, commands.files)
    return Case(peer.name, sample, version=_version(ground, peer.program), missing=peer.missing)


def _version(ground: Ground, name: str) -> str:
    """The first line that has a digit of what ``--version`` prints; of Docker both halves."""
    versions = ["version", "--format", "docker {{.Client.Version}}, daemon {{.Server.Version}}"]
    words = [name, *(versions if name == "docker" else ["--version"])]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ground.environment)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if any(letter.isdigit() for letter in line)]
    return lines[0].strip()[:100] if lines else ""


def _tell(words: Sequence[str], ground: Ground) -> str:
    """Runs what prepares or clears up. Raises Unavailable with what it complained of."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ground.environment)
    if done.returncode:
        raise Unavailable(f"{Path(words[0]).name} {words[1]}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def _clear(words: Sequence[str], ground: Ground) -> None:
    """Runs what clears up. What can't be cleared up is no reason to throw away what was measured."""
    subprocess.run(words, capture_output=True, check=False, env=ground.environment)


def _leave_running(words: Sequence[str], ground: Ground) -> None:
    """Runs what returns while its container goes on, which may keep the streams that it was given."""
    # Files of our own, for a runtime gives what it is handed to the container's user: not this machine's /dev/null.
    with (ground.folder / "complaints").open("w+") as complaints, (ground.folder / "nothing").open("w+") as nothing:
        done = subprocess.run(
            words, stdin=nothing, stdout=nothing, stderr=complaints, check=False, env=ground.environment
        )
        if done.returncode:
            complaints.seek(0)
            raise Unavailable(complaints.read().strip()[-300:])


# ---- tools without images ----


@contextmanager
def _unshare(ground: Ground, program: str) -> Iterator[Commands]:
    kinds = ("--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--cgroup")
    words = [program, *kinds, f"--root={ground.rootfs}", CLOCK]
    yield Commands(lambda: words)


@contextmanager
def _bubblewrap(ground: Ground, program: str) -> Iterator[Commands]:
    filter = ground.folder / "bubblewrap-filter"
    filter.write_bytes(_native.compile_seccomp(default_profile(DEFAULT)))
    mounts = ("--ro-bind", str(ground.rootfs), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")
    words = [program, "--unshare-all", *mounts, "--seccomp", str(_FILTER), "--die-with-parent", "--", CLOCK]
    yield Commands(lambda: words, files={_FILTER: str(filter)})


@contextmanager
def _nspawn(ground: Ground, program: str) -> Iterator[Commands]:
    fixed = (f"--directory={ground.rootfs}", "--quiet", "--private-network", "--private-users=no", "--read-only")
    apart = ("--register=no", "--keep-unit", "--link-journal=no", "--timezone=off", "--resolv-conf=off", "--pipe")
    name = next(_NAMES)
    try:
        yield Commands(lambda: [program, *fixed, *apart, f"--machine={name}", "--", CLOCK])
    finally:
        with suppress(OSError):  # It does not remove this one where /run is no tmpfs.
            Path(f"/run/systemd/nspawn/propagate/{name}").rmdir()


@contextmanager
def _lxc(ground: Ground, program: str) -> Iterator[Commands]:
    room = ground.room(next(_NAMES))
    # Its own seccomp rules stay off: they are others, in another language.
    (room / "config").write_text(
        f"lxc.rootfs.path = dir:{ground.rootfs}\nlxc.net.0.type = empty\nlxc.mount.auto = proc:mixed sys:ro\n"
        "lxc.uts.name = bench\nlxc.console.path = none\n"
    )
    fixed = ("-P", str(room), "-f", str(room / "config"))
    yield Commands(lambda: [program, *fixed, "-n", next(_NAMES), "--", CLOCK])


# ---- runtimes of bundles ----


@contextmanager
def _bundle(ground: Ground, program: str, *, seccomp: bool, users: bool) -> Iterator[Commands]:
    room = ground.room(next(_NAMES))
    state = room / "state"
    call = [program, "--root", str(state)]
    bundles = {
        command: _make_bundle(ground, program, room / command[5:], command, seccomp, users) for command in (CLOCK, IDLE)
    }

    def start() -> list[str]:
        return [*call, "run", "--bundle", str(bundles[CLOCK]), next(_NAMES)]

    running = next(_NAMES)

    def join() -> list[str]:
        if not (state / running).exists():
            _leave_running([*call, "run", "--detach", "--bundle", str(bundles[IDLE]), running], ground)
        return [*call, "exec", running, CLOCK]

    try:
        yield Commands(start, join)
    finally:
        if (state / running).exists():
            _clear([*call, "delete", "--force", running], ground)


def _make_bundle(ground: Ground, program: str, place: Path, command: str, seccomp: bool, users: bool) -> Path:
    place.mkdir()
    done = subprocess.run([program, "spec"], cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(done.stderr.strip())
    path = place / "config.json"
    config: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    config["process"].update(args=[command], terminal=False)
    config["root"] = {"path": str(ground.rootfs), "readonly": True}
    linux = config["linux"]
    linux["resources"]["pids"] = {"limit": _PIDS}
    if seccomp:
        linux["seccomp"] = msgspec.Raw(default_profile(DEFAULT))
    if users:
        linux["namespaces"].append({"type": "user"})
        mapping = [{"containerID": 0, "hostID": _FIRST_ID, "size": _IDS}]
        linux["uidMappings"] = linux["gidMappings"] = mapping
    path.write_bytes(msgspec.json.encode(config))
    return place


def _bundle_peer(name: str, suffix: str, missing: str, *, seccomp: bool, users: bool) -> Peer:
    def prepare(ground: Ground, program: str) -> AbstractContextManager[Commands]:
        return _bundle(ground, program, seccomp=seccomp, users=users)

    return Peer(f"{name}{suffix}", name, name, missing, prepare)


def _bundle_peers(name: str) -> list[Peer]:
    lacks = "layers, a writable root"
    return [
        _bundle_peer(name, " without seccomp", f"seccomp, user namespace, {lacks}", seccomp=False, users=False),
        _bundle_peer(name, "", f"user namespace, {lacks}", seccomp=True, users=False),
        _bundle_peer(name, " with user namespace", lacks, seccomp=True, users=True),
    ]


# ---- engines ----


@contextmanager
def _ctr(ground: Ground, program: str) -> Iterator[Commands]:
    call = [program, "--namespace", next(_NAMES)]
    image = f"docker.io/{IMAGE}"
    _tell([*call, "image", "import", str(ground.archive)], ground)
    running = next(_NAMES)
    seccomp = (
        ("--rm", "--seccomp", "--pids-limit", str(_PIDS))
        if "--pids-limit" in _help(call, ground)
        else ("--rm", "--seccomp")
    )

    def start() -> list[str]:
        return [*call, "run", *seccomp, image, next(_NAMES), CLOCK]

    joined: list[str] = []

    def join() -> list[str]:
        if not joined:
            _leave_running([*call, "run", "--detach", *seccomp[1:], image, running, IDLE], ground)
            joined.append(running)
        return [*call, "task", "exec", "--exec-id", next(_NAMES), running, CLOCK]

    try:
        yield Commands(start, join)
    finally:
        # It loses the output of a container now and then, and then the container as well.
        for task in _list([*call, "task", "list", "--quiet"], ground):
            _clear([*call, "task", "delete", "--force", task], ground)
        for container in _list([*call, "container", "list", "--quiet"], ground):
            _clear([*call, "container", "delete", container], ground)
        _clear([*call, "image", "remove", "--sync", image], ground)
        _clear([program, "namespace", "remove", call[-1]], ground)


def _list(words: Sequence[str], ground: Ground) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ground.environment)
    return done.stdout.split()


def _help(call: Sequence[str], ground: Ground) -> str:
    return subprocess.run(
        [*call, "run", "--help"], capture_output=True, text=True, check=False, env=ground.environment
    ).stdout


def _engine(call: list[str], ground: Ground, options: Sequence[str], image: str) -> Iterator[Commands]:
    """Docker and Podman: one command line."""
    running: list[str] = []

    def join() -> list[str]:
        if not running:
            name = next(_NAMES)
            _leave_running([*call, "run", "--detach", "--name", name, *options, image, IDLE], ground)
            running.append(name)
        return [*call, "exec", running[0], CLOCK]

    _tell([*call, "load", "--input", str(ground.archive)], ground)
    try:
        yield Commands(lambda: [*call, "run", "--rm", *options, image, CLOCK], join)
    finally:
        for name in running:
            _clear([*call, "rm", "--force", name], ground)
        _clear([*call, "rmi", "--force", image], ground)


@contextmanager
def _podman(ground: Ground, program: str) -> Iterator[Commands]:
    room = ground.room(next(_NAMES))
    places = ("--root", str(room / "root"), "--runroot", str(room / "run"), "--storage-driver", "overlay")
    call = [program, *places, "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    options = (*_NETWORK, "--pids-limit", str(_PIDS), "--log-driver", "none", *_LIMITS)
    yield from _engine(call, ground, options, f"localhost/{IMAGE}")


@contextmanager
def _docker(ground: Ground, program: str) -> Iterator[Commands]:
    try:
        run([program, "version"], ground.environment)
    except Exception as error:
        raise Unavailable(f"no daemon answers: {str(error).splitlines()[-1][:200]}") from None
    yield from _engine([program], ground, (*_NETWORK, "--pids-limit", str(_PIDS)), IMAGE)


_JOINING: Final = ("crun", "runc", "ctr (containerd)", "podman", "docker")
PEERS: Final = (
    Peer(
        "unshare + chroot", "unshare", "util-linux", "mounts, limits, seccomp, dropped capabilities, layers", _unshare
    ),
    Peer("bubblewrap", "bwrap", "bubblewrap", "limits, layers, a writable root", _bubblewrap),
    *_bundle_peers("crun"),
    *_bundle_peers("runc"),
    Peer("lxc-execute", "lxc-execute", "lxc", "seccomp, user namespace, layers", _lxc),
    Peer("systemd-nspawn", "systemd-nspawn", "systemd-container", "limits, user namespace, layers", _nspawn),
    Peer("ctr (containerd)", "ctr", "containerd", "user namespace", _ctr),
    Peer("podman", "podman", "podman", "user namespace", _podman),
    Peer("docker", "docker", "docker.io", "user namespace", _docker),
)

"""`pyrt-runtime` beside crun and runc: whole commands, the same bundle, and what Docker saves that calls it.

The bundle has what Docker gives a container: a seccomp profile for three architectures, capabilities, masked paths,
rules about devices, limits of memory, processor and processes. All but pyrt-runtime compile the profile by libseccomp.
State directories lie on a tmpfs, as /run does.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from pyrt.bench import commands, peers, results
from pyrt.bench.cases import Case, interleave, unavailable
from pyrt.bench.ground import CLOCK, IDLE, prepared
from pyrt.bench.startup import GAP, HOT
from pyrt.runtime.capabilities import DEFAULT
from pyrt.runtime.seccomp import default_profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.ground import Ground
    from pyrt.bench.peers import Commands
    from pyrt.bench.results import Document, Run

NAME: Final = "runtime"
OURS: Final = "pyrt-runtime"
RUNTIMES: Final = (OURS, "crun", "runc")
_LIMITS: Final = {
    "memory": {"limit": 256 << 20},
    "cpu": {"shares": 512, "quota": 100_000, "period": 100_000},
    "pids": {"limit": 1024},
}
# shm_overview(7).
_TMPFS: Final = "/dev/shm"
# All three know it.
_VERSION: Final = "1.0.2"
_NAMES: Final = (f"pyrt-bench-runtime-{os.getpid()}-{number}" for number in itertools.count())


class Runtime:
    """One of them, with bundles and a state directory of its own."""

    def __init__(self, ground: Ground, program: str, states: Path) -> None:
        self.ground = ground
        self.call = [program, "--root", str(states / Path(program).name)]
        self.bundles = {command: _make_bundle(ground, command) for command in (CLOCK, IDLE)}
        self.pid_file = ground.room(next(_NAMES)) / "pid"

    def words(self, verb: str, *words: str) -> list[str]:
        """The command line of a verb."""
        return [*self.call, verb, *words]

    def run(self) -> list[str]:
        """A whole container's."""
        return self.words("run", "--bundle", str(self.bundles[CLOCK]), next(_NAMES))

    @contextmanager
    def created(self, command: str) -> Iterator[tuple[str, float]]:
        """Name of a container that waits for its start, and the milliseconds it took; to be deleted in the block."""
        name = next(_NAMES)
        bundle = str(self.bundles[command])
        took = self.timed("create", "--bundle", bundle, "--pid-file", str(self.pid_file), name)
        try:
            yield name, took
        except BaseException:
            self.timed("delete", "--force", name)
            raise

    def memory(self) -> dict[str, float]:
        """KiB of the process that was created last."""
        lines = Path(f"/proc/{self.pid_file.read_text()}/smaps_rollup").read_text().splitlines()
        sizes = {words[0]: float(words[1]) for words in map(str.split, lines[1:])}
        return {"resident": sizes["Rss:"], "proportional": sizes["Pss:"]}

    def timed(self, *words: str) -> float:
        """Milliseconds from the execve of a command to its end. Raises CommandFailed."""
        return commands.timed(self.ground, self.words(*words))


async def measure(scale: Scale) -> Document:
    with prepared() as ground, tempfile.TemporaryDirectory(prefix="pyrt-bench-", dir=_TMPFS) as states:
        found = {name: ground.program(name) for name in RUNTIMES}
        runtimes = {name: Runtime(ground, program, Path(states)) for name, program in found.items() if program}
        missing = [unavailable(name, "it is not installed") for name, program in found.items() if not program]
        runs: list[Run] = []
        for title, gap, samples in ((HOT, 0.0, scale.samples), (GAP, scale.quiet, scale.gap_samples)):
            for what, sample in (("run", _run), ("create, start, delete", _apart)):
                cases = [*(Case(name, sample(runtime)) for name, runtime in runtimes.items()), *missing]
                await interleave(cases, samples, gap=gap)
                runs.append(results.summarized(f"{what}, {title}", "ms", cases, OURS))
        cases = [*(Case(name, _waiting(runtime)) for name, runtime in runtimes.items()), *missing]
        await interleave(cases, scale.slow_samples)
        runs.append(results.summarized("a created container that waits", "KiB", cases, OURS))
        runs.append(await _under_docker(ground, scale))
    return results.document(NAME, runs)


def _make_bundle(ground: Ground, command: str) -> Path:
    place = ground.room(next(_NAMES))
    program = ground.program(OURS)
    assert program is not None
    commands.run([program, "spec", "--bundle", str(place)], ground.environment)
    path = place / "config.json"
    config: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    config["ociVersion"] = _VERSION
    config["process"].update(args=[command], terminal=False)
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), sorted(DEFAULT))
    config["root"] = {"path": str(ground.rootfs), "readonly": True}
    config["linux"]["resources"] |= _LIMITS
    config["linux"]["seccomp"] = _profile()
    path.write_bytes(msgspec.json.encode(config))
    return place


def _profile() -> dict[str, Any]:
    """As long as Docker's: its architectures, its gates; without arguments of socket(2), where libseccomp gives up."""
    profile: dict[str, Any] = msgspec.json.decode(default_profile(DEFAULT))
    rules = [rule for rule in profile["syscalls"] if rule["names"] != ["socket"] or not rule.get("args")]
    architectures = [f"SCMP_ARCH_{name}" for name in ("X86_64", "X86", "X32")]
    return profile | {"syscalls": rules, "architectures": architectures}


def _run(runtime: Runtime) -> Sample:
    """From the command's execve to the first instruction of the container's program, and to the command's end."""
    return commands.stamped(runtime.ground, runtime.run)


def _apart(runtime: Runtime) -> Sample:
    """The three commands one after another, without what lies between them."""

    async def sample() -> dict[str, float]:
        with runtime.created(CLOCK) as (name, created):
            process = os.pidfd_open(int(runtime.pid_file.read_text()))
            started = runtime.timed("start", name)
            # runc looks ten times a second whether one is dead that it has to kill: here it is dead.
            with os.fdopen(process):
                await trio.lowlevel.wait_readable(process)
            deleted = runtime.timed("delete", name)
        return {"create": created, "start": started, "delete": deleted, "whole": created + started + deleted}

    return sample


def _waiting(runtime: Runtime) -> Sample:
    """What the process of a container takes that nobody has started yet: all of it, and its part of what it shares."""

    async def sample() -> dict[str, float]:
        with runtime.created(IDLE) as (name, _):
            sizes = runtime.memory()
            runtime.timed("delete", "--force", name)
        return sizes

    return sample


async def _under_docker(ground: Ground, scale: Scale) -> Run:
    """`docker run` of the same daemon, with one runtime and with the other."""
    with ExitStack() as stack:
        found = stack.enter_context(peers.commands(ground, ["docker"]))["docker"]
        cases = [_docker(ground, found, name) for name in ("pyrt", "runc")]
        await interleave(cases, scale.gap_samples)
    return results.summarized("under Docker", "ms", cases, cases[0].name)


def _docker(ground: Ground, found: Commands | str, runtime: str) -> Case:
    name = f"docker run --runtime {runtime}"
    if isinstance(found, str):
        return unavailable(name, found)
    program, verb, *words = found.start()
    return Case(name, commands.stamped(ground, lambda: [program, verb, f"--runtime={runtime}", *words]))

"""The floor of a start: a program in C that makes the same container with the fewest system calls (`floor.c`).

It is compiled when it is wanted; where there is no compiler, its rows say so.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt import _native
from pyrt.bench.cases import Case, unavailable
from pyrt.runtime.capabilities import DEFAULT
from pyrt.runtime.seccomp import default_profile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyrt.bench.cases import Sample
    from pyrt.bench.ground import Ground

SOURCE: Final = Path(__file__).parent / "floor.c"
NAME: Final = "floor"
VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    NAME: (),
    "floor, host's network": ("--no-network",),
    "floor, host's users": ("--no-user",),
    "floor, pooled namespaces": ("--pooled",),
    "floor, parked before execve": ("--parked",),
}
_MISSING: Final = {
    "floor, host's network": "net namespace",
    "floor, host's users": "user namespace",
}
# Those that pyrt puts its containers into on cgroup v1 (rust/container/src/compile/cgroups.rs).
_CONTROLLERS: Final = ("memory", "devices", "pids")


class Answer(msgspec.Struct):
    """Of one container: nanoseconds since it was asked for, of each step its name and when it was done."""

    ready: int
    ended: int
    gone: int
    parent: list[tuple[str, int]]
    child: list[tuple[str, int]]


class _Many(msgspec.Struct):
    containers: int
    elapsed: int


_decode: Final = msgspec.json.Decoder(Answer).decode


class FloorFailed(Exception):
    """The program could not make its container; what it said."""


class Floor:
    """The compiled program, and where it makes its containers."""

    def __init__(self, ground: Ground, program: Path) -> None:
        self._ground = ground
        self._program = program
        self._filter = ground.folder / "floor-filter"
        self._filter.write_bytes(_native.compile_seccomp(default_profile(DEFAULT)))
        self._spares = ground.room("floor-spares")

    def _words(self, lowers: Sequence[str], more: Sequence[str], command: str) -> list[str]:
        layers = [word for lower in lowers for word in ("--lower", lower)]
        place = ["--spares", str(self._spares), "--seccomp", str(self._filter), *_hierarchies()]
        return [str(self._program), *layers, *place, *more, command]

    @contextmanager
    def open(self, lowers: Sequence[str], more: Sequence[str], command: str) -> Iterator[FloorProcess]:
        """The program, waiting for requests, for the time of the block."""
        words = self._words(lowers, more, command)
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yield FloorProcess(process)
        finally:
            process.communicate()
            _remove_groups(process.pid)

    def throughput(self, lowers: Sequence[str], more: Sequence[str], at_once: int, count: int, command: str) -> float:
        """Containers a second, from nothing to nothing left."""
        words = self._words(lowers, ["--at-once", str(at_once), "--count", str(count), *more], command)
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, errors = process.communicate()
        _remove_groups(process.pid)
        if process.returncode:
            raise FloorFailed(errors.decode(errors="replace").strip())
        many = msgspec.json.decode(output, type=_Many)
        return many.containers / many.elapsed * 1e9

    @contextmanager
    def keeping(self, lowers: Sequence[str], more: Sequence[str], count: int, command: str) -> Iterator[None]:
        """``count`` containers that stay for the time of the block."""
        words = self._words(lowers, ["--keep", str(count), *more], command)
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise FloorFailed(process.communicate()[1].decode(errors="replace").strip())
            yield
        finally:
            process.communicate()
            _remove_groups(process.pid)


class FloorProcess:
    """One running program: makes a container when asked."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def make(self) -> Answer:
        """One container, from the request to nothing left. Raises FloorFailed."""
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        try:
            stdin.write(b"\n")
            stdin.flush()
        except BrokenPipeError:
            pass
        if line := stdout.readline():
            return _decode(line)
        raise FloorFailed(stderr.read().decode(errors="replace").strip())

    def sample(self) -> Sample:
        """As a case is measured: milliseconds to the program's first instruction, to its end, to nothing left."""

        async def sample() -> dict[str, float]:
            answer = self.make()
            return {"ready": answer.ready / 1e6, "whole": answer.ended / 1e6, "gone": answer.gone / 1e6}

        return sample


def compiled(ground: Ground) -> Floor | str:
    """The program, or the reason why there is none."""
    compiler = ground.program("cc") or ground.program("gcc")
    if compiler is None:
        return "no C compiler (Debian: gcc and libc6-dev)"
    program = ground.folder / "floor"
    words = [compiler, "-O2", "-static", "-o", str(program), str(SOURCE)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        return f"{compiler} can't compile it: {complaints[0][:200]}"
    return Floor(ground, program)


@contextmanager
def cases(ground: Ground, lowers: Sequence[str], command: str) -> Iterator[list[Case]]:
    """A row for each variant."""
    floor = compiled(ground)
    if isinstance(floor, str):
        yield [unavailable(name, floor) for name in VARIANTS]
        return
    with _all_open(floor, lowers, VARIANTS, command) as processes:
        yield [Case(name, process.sample(), missing=_MISSING.get(name, "")) for name, process in processes.items()]


@contextmanager
def _all_open(
    floor: Floor, lowers: Sequence[str], variants: Mapping[str, Sequence[str]], command: str
) -> Iterator[dict[str, FloorProcess]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(floor.open(lowers, more, command)) for name, more in variants.items()}


def _hierarchies() -> list[str]:
    """The options that name the cgroup hierarchies."""
    host = _native.host()
    mounted = [host["controllers"][name] for name in _CONTROLLERS if name in host["controllers"]]
    if host["cgroups"] == "v2":
        return ["--v2", "/sys/fs/cgroup"]
    return [word for path in mounted for word in ("--v1", path)]


def _remove_groups(pid: int) -> None:
    """What a program that failed has left."""
    for hierarchy in {*_native.host()["controllers"].values()}:
        top = Path(hierarchy) / f"pyrt-floor-{pid}"
        if top.is_dir():
            for group in [*top.iterdir(), top]:
                if group.is_dir():
                    group.rmdir()

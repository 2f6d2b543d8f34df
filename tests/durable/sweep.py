"""Hits one process of the chain at one call into the kernel, for every verb; looks what the next engine makes of it.

Hit is by SIGKILL, or by the refusal of that one call, as a full or broken disk or a machine without descriptors or
memory has it. What is hit is the real thing: the native client, a server, its spawner, the keepers, the carriers of a
copy and the first process of a container. A program of its own, single-threaded, so that it may fork and trace; run by
``test_sweep`` with a sample and by the soak with all points. Point by point::

    stage, a process     server and clients under the tracer; one of them is hit
    check, a process     an engine as the next one would be: the state is as before or as after; repeated, it works
    oracle               nothing is left behind
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import select
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import trio

from pyrt.cli.main import main as pyrt_main
from pyrt.cli.verbs import VERBS, parser_of
from pyrt.engine.engine import Engine, open_engine
from pyrt.engine.results import Verdict
from pyrt.engine.states import LIVE, State
from pyrt.errors import ContainerNotFound, ImageNotFound
from pyrt.runtime.options import RunOptions
from tests import leakcheck, ward
from tests.durable.tracer import ERRORS, ROLES, Strike, Tracer
from tests.images.making import assert_sound, config_of, debris, docker_archive
from tests.images.registry_fixtures import build, enemy_at
from tests.security import making

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TALK = ("sh", "-c", "echo hello; exit 7")
SLEEPER = ("run", "-d", "--name", "box", "host", "sleep", "1000")
PATIENCE = 30
CONTENT = b"content of a file\n" * 4000
KILL = ""
PROGRAM = Path(__file__).resolve().parents[2] / "build/wheel/scripts/pyrt"
_KINDS = (leakcheck.processes, leakcheck.mounts, leakcheck.descriptors, leakcheck.state_files, leakcheck.leases)


class Ground(NamedTuple):
    """Where it happens: a folder of its own for each verb, and what there is to pull and load."""

    folder: Path
    registry: str

    @property
    def state(self) -> leakcheck.State:
        return leakcheck.State(self.folder / "root", self.folder / "run", self.folder / "tmp")

    @property
    def archive(self) -> Path:
        return self.folder.parent / "image.tar"

    @property
    def file(self) -> Path:
        return self.folder.parent / "file"

    @property
    def copy(self) -> Path:
        return self.state.temporary / "copy"


class Call(NamedTuple):
    """A client's command line, and what it is to print and to return."""

    words: tuple[str, ...]
    output: bytes | None = None
    code: int = 0


class Said(NamedTuple):
    """What a client has done; ``code`` is negative if a signal ended it."""

    code: int
    output: bytes
    error: bytes


class Hit(NamedTuple):
    """What came of a stage: who was hit at which call ("": the verb was over before), and how many calls there were."""

    role: str
    error: str
    call: str
    counts: dict[str, int]


# ---- verbs ----


class Case:
    """A verb: what there is before it, the verb, and what must be true after it was cut off or refused."""

    def before(self, ground: Ground) -> list[Call]:
        return []

    def is_ready(self, ground: Ground) -> bool:
        """Whether what was begun ``before`` has come to its end."""
        return True

    def act(self, ground: Ground) -> list[Call]:
        raise NotImplementedError

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        raise NotImplementedError

    async def repeat(self, ground: Ground, engine: Engine) -> None:
        """Once more, on what ``after`` has left."""


class Run(Case):
    def act(self, ground: Ground) -> list[Call]:
        return [Call(("run", "--rm", "host", *TALK), b"hello\n", 7)]

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        with trio.fail_after(PATIENCE):
            while engine.containers():  # noqa: ASYNC110 - another engine's janitor may be the one
                await trio.sleep(0.005)

    async def repeat(self, ground: Ground, engine: Engine) -> None:
        done = await engine.run("host", TALK)
        assert (done.stdout, done.exit_code) == (b"hello\n", 7)


class Detach(Case):
    def act(self, ground: Ground) -> list[Call]:
        return [Call(("run", "-d", "--name", "box", "host", *TALK)), Call(("wait", "box"), b"7\n")]

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        for record in engine.containers():
            if record.state is not State.CREATED:
                await ended_well(engine, record.id, hit)

    async def repeat(self, ground: Ground, engine: Engine) -> None:
        await remove_all(engine)
        record = await engine.run_detached("host", RunOptions(command=TALK, name="box"))
        assert (await engine.wait(record.id)).code == 7
        assert logged(engine, record.id) == b"hello\n"


class DetachParked(Detach):
    """The container waits for its command already when it is asked for."""

    def before(self, ground: Ground) -> list[Call]:
        return [Call(("run", "-d", "host", *TALK))] * 2

    def is_ready(self, ground: Ground) -> bool:
        with closing(sqlite3.connect(ground.state.root / "journal.db")) as journal:
            (count,) = journal.execute("SELECT count(*) FROM parked").fetchone()
        # They are made one after the other: the first is whole when the second is begun.
        return bool(count == 2)

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        await super().after(ground, engine, hit)
        if not hit.call:
            timing = engine.journal.timing(engine.inspect("box").id)
            assert any(mark.name == "AwaitStdio" for mark in timing.marks)


class Start(Detach):
    def act(self, ground: Ground) -> list[Call]:
        created = Call(("create", "--name", "box", "host", *TALK))
        return [created, Call(("start", "box"), b"box\n"), Call(("wait", "box"), b"7\n")]


class Running(Case):
    """A verb on a container that sleeps."""

    def before(self, ground: Ground) -> list[Call]:
        return [Call(SLEEPER)]

    async def still_runs(self, engine: Engine, hit: Hit) -> None:
        """It does, unless what was killed is its own keeper."""
        record = engine.inspect("box")
        if record.state is not State.RUNNING:
            assert (hit.role, hit.error) == ("keeper", KILL), record
            await engine.remove("box", force=True)
            await engine.run_detached("host", RunOptions(command=("sleep", "1000"), name="box"))


class Exec(Running):
    def act(self, ground: Ground) -> list[Call]:
        return [Call(("exec", "box", *TALK), b"hello\n", 7)]

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        await self.still_runs(engine, hit)

    async def repeat(self, ground: Ground, engine: Engine) -> None:
        execution = await engine.exec("box", TALK, wants_stdin=False)
        done = await engine.complete(execution, b"", 100)
        assert (done.stdout, done.exit_code) == (b"hello\n", 7)


class Stop(Running):
    def act(self, ground: Ground) -> list[Call]:
        return [Call(("stop", "-t", "0", "box"), b"box\n")]

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        assert engine.inspect("box").state in {State.RUNNING, State.STOPPING, State.EXITED}

    async def repeat(self, ground: Ground, engine: Engine) -> None:
        assert (await engine.stop("box", 0)).verdict in {Verdict.KILLED, Verdict.SIGNALED, Verdict.LOST}


class Remove(Running):
    def act(self, ground: Ground) -> list[Call]:
        return [Call(("rm", "-f", "box"), b"box\n")]

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        try:
            await engine.remove("box", force=True)
        except ContainerNotFound:
            pass
        assert engine.containers() == []


class Images(Case):
    """A verb that brings an image."""

    name = ""

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        await whole_or_absent(engine, self.name)

    async def repeat(self, ground: Ground, engine: Engine) -> None:
        await self.bring(ground, engine)
        done = await engine.run(self.name, ["sh", "-c", "cat /file; exit 3"])
        assert (done.stdout, done.exit_code) == (CONTENT, 3)
        assert_sound(engine.store)

    async def bring(self, ground: Ground, engine: Engine) -> None:
        raise NotImplementedError


class Pull(Images):
    name = "pulled"

    def act(self, ground: Ground) -> list[Call]:
        return [Call(("pull", "-q", f"{ground.registry}/small:1"))]

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        await whole_or_absent(engine, f"{ground.registry}/small:1")

    async def bring(self, ground: Ground, engine: Engine) -> None:
        await engine.pull(f"{ground.registry}/small:1")
        await engine.tag(f"{ground.registry}/small:1", self.name)


class Load(Images):
    name = "small:1"

    def act(self, ground: Ground) -> list[Call]:
        return [Call(("load", "-q", "-i", str(ground.archive)))]

    async def bring(self, ground: Ground, engine: Engine) -> None:
        await engine.load(str(ground.archive))


class Commit(Images):
    name = "new"

    def before(self, ground: Ground) -> list[Call]:
        return [
            Call(("load", "-q", "-i", str(ground.archive))),
            Call(("run", "-d", "--name", "box", "small:1", "sleep", "1000")),
            Call(("exec", "box", "sh", "-c", "echo changed > /changed; rm /gone")),
        ]

    def act(self, ground: Ground) -> list[Call]:
        return [Call(("commit", "box", "new"))]

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        with trio.fail_after(PATIENCE):
            while engine.inspect("box").state is State.PAUSED:  # noqa: ASYNC110 - until it is adopted
                await trio.sleep(0.005)
        if (state := engine.inspect("box").state) is not State.RUNNING:
            assert (state, hit.role, hit.error) == (State.EXITED, "keeper", KILL)
        await super().after(ground, engine, hit)

    async def bring(self, ground: Ground, engine: Engine) -> None:
        await engine.commit_container("box", "new")
        done = await engine.run("new", ["sh", "-c", "cat /changed; test ! -e /gone"])
        assert (done.stdout, done.exit_code) == (b"changed\n", 0)


class CopyIn(Running):
    def act(self, ground: Ground) -> list[Call]:
        return [Call(("cp", str(ground.file), "box:/root/copy"))]

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        await self.still_runs(engine, hit)

    async def repeat(self, ground: Ground, engine: Engine) -> None:
        await engine.copy_in("box", ground.file, "/root/copy")
        execution = await engine.exec("box", ["cat", "/root/copy"], wants_stdin=False)
        assert (await engine.complete(execution, b"", 1 << 20)).stdout == CONTENT


class CopyOut(Running):
    def before(self, ground: Ground) -> list[Call]:
        return [*super().before(ground), Call(("cp", str(ground.file), "box:/root/copy"))]

    def act(self, ground: Ground) -> list[Call]:
        return [Call(("cp", "box:/root/copy", str(ground.copy)))]

    async def after(self, ground: Ground, engine: Engine, hit: Hit) -> None:
        await self.still_runs(engine, hit)

    async def repeat(self, ground: Ground, engine: Engine) -> None:
        await engine.copy_in("box", ground.file, "/root/copy")
        await engine.copy_out("box", "/root/copy", ground.copy)
        assert ground.copy.read_bytes() == CONTENT
        ground.copy.unlink()


CASES: dict[str, Case] = {
    "run": Run(),
    "run -d": Detach(),
    "run -d, parked": DetachParked(),
    "create, start": Start(),
    "exec": Exec(),
    "stop": Stop(),
    "rm": Remove(),
    "pull": Pull(),
    "load": Load(),
    "commit": Commit(),
    "cp in": CopyIn(),
    "cp out": CopyOut(),
}


async def ended_well(engine: Engine, container: str, hit: Hit) -> None:
    """Either nothing of it ever ran, or it wrote all and told its own end."""
    with trio.fail_after(PATIENCE):
        status = await engine.wait(container)
    record = engine.inspect(container)
    assert record.state not in LIVE, record
    if status.verdict is Verdict.EXITED:
        assert status.code == 7, status
        lost = status.lost_output and hit.error
        assert logged(engine, record.id) == (b"" if lost else b"hello\n")
    else:
        assert status.verdict in {Verdict.LOST, Verdict.SIGNALED} or record.state is State.FAILED, (record, status)
        assert b"hello\n".startswith(logged(engine, record.id))


async def whole_or_absent(engine: Engine, name: str) -> None:
    assert_sound(engine.store)
    try:
        image = engine.find_image(name)
    except ImageNotFound:
        return
    assert (await engine.run(image, ["true"])).exit_code == 0


async def remove_all(engine: Engine) -> None:
    for record in engine.containers():
        try:
            await engine.remove(record.id, force=True)
        except ContainerNotFound:
            pass  # One that goes by itself.


def logged(engine: Engine, container: str) -> bytes:
    file = Path(engine.layout.folder(container), "log")
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    return b"".join(line.split(b" ", 3)[3] for line in lines)


# ---- the stage ----


class Stage:
    """Server and clients under the tracer, in a process of their own."""

    def __init__(self, ground: Ground, strike: Strike | None) -> None:
        self.ground = ground
        self.tracer = Tracer(strike)
        self.server = 0

    def play(self, case: Case) -> Hit:
        self._serve()
        for call in case.before(self.ground):
            said = self._call(call, traced=False)
            assert said.code == call.code, said
        while not case.is_ready(self.ground):
            # Its end wakes us.
            self._call(Call(("ps", "-q")), traced=False)
        self.tracer.armed = True
        strike = self.tracer.strike
        for call in case.act(self.ground):
            said = self._call(call, traced=True)
            self._judge(call, said)
            if self.tracer.struck and said.code != call.code:
                break  # What follows needs what has failed.
            if self.server in self.tracer.ended:
                break
        if self.server not in self.tracer.ended:
            if strike and strike.error:
                self.tracer.armed = False
                self._works_again()
            os.kill(self.server, signal.SIGTERM)
            self.tracer.pump(lambda: self.server in self.tracer.ended)
        self._end_successor()
        status = self.tracer.ended[self.server]
        killed = strike is not None and strike.role == "server" and strike.error == KILL and bool(self.tracer.struck)
        assert os.WIFSIGNALED(status) if killed else status == 0, f"the server ended with {status}"
        return Hit(
            strike.role if strike else "", strike.error if strike else "", self.tracer.struck, self.tracer.counts
        )

    def _serve(self) -> None:
        """A server, seized before it opens its engine; returns when it listens."""
        reader, writer = os.pipe()
        go, gone = os.pipe()
        self.server = os.fork()
        if not self.server:
            os.close(gone)
            os.dup2(writer, 1)
            os.read(go, 1)
            # A server that hangs must not keep the pipe open on which the stage's end is told.
            for descriptor in _reports:
                os.close(descriptor)
            os._exit(pyrt_main(["serve", "--idle", "0"]))
        os.close(writer)
        os.close(go)
        self.tracer.seize(self.server, "server")
        os.close(gone)
        self.tracer.pump(lambda: bool(select.select([reader], [], [], 0)[0]))
        assert b"serves at" in os.read(reader, 1000), "the server does not come up"
        os.close(reader)

    def _call(self, call: Call, *, traced: bool) -> Said:
        output, error = os.memfd_create("output"), os.memfd_create("error")
        go, gone = os.pipe()
        client = os.fork()
        if not client:
            os.close(gone)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(error, 2)
            os.read(go, 1)
            os.closerange(3, 100)
            os.execv(PROGRAM, ["pyrt", *call.words])
        os.close(go)
        if traced:
            self.tracer.seize(client, "client")
        os.close(gone)
        self.tracer.pump(lambda: client in self.tracer.ended)
        said = Said(os.waitstatus_to_exitcode(self.tracer.ended[client]), _content(output), _content(error))
        os.close(output)
        os.close(error)
        return said

    def _judge(self, call: Call, said: Said) -> None:
        """Right, or a sentence; what has been printed is the beginning of what was to be."""
        strike = self.tracer.strike
        where = (call, said, strike, self.tracer.struck)
        if call.words[0] == "wait" and said.code == 0 and self.tracer.struck:
            return  # It tells what became of a container that was hit; so does the record: see ended_well.
        if call.output is not None:
            assert call.output.startswith(said.output), where
        if said.code == call.code:
            assert call.output is None or said.output == call.output, where
            return
        assert self.tracer.struck, where
        assert strike, where
        assert b"Traceback" not in said.error, where
        assert b"something went wrong that should not have" not in said.error, where
        if said.code == -signal.SIGKILL:
            return  # The client itself.
        if said.code == 128 + signal.SIGKILL and not said.error:
            return  # The first process of the container, when it was the command's already.
        assert said.error.startswith(b"pyrt: "), where
        assert said.code not in {0, call.code}, where

    def _end_successor(self) -> None:
        """A client whose server is gone before it has looked at the call starts another one."""
        for lock in self.ground.state.run.glob("*.lock"):
            process = int(lock.read_text() or 0)
            if process == self.server:
                continue
            try:
                pidfd = os.pidfd_open(process)
            except ProcessLookupError:
                continue
            os.kill(process, signal.SIGTERM)
            select.select([pidfd], [], [])
            os.close(pidfd)

    def _works_again(self) -> None:
        """The very same server."""
        said = self._call(Call(("run", "--rm", "host", *TALK), b"hello\n", 7), traced=False)
        assert (said.code, said.output) == (7, b"hello\n"), (said, self.tracer.struck)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 20, 0)


# ---- one point ----


_reports: list[int] = []
"""In a child of ``in_child``: where it tells what it has found."""


def in_child(work: Callable[[], object]) -> str:
    """Runs it in a child, which may take a minute; returns what it returned, as JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _reports.append(writer)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, _too_late)
        signal.alarm(2 * PATIENCE)
        _finish(work, writer)
    os.close(writer)
    with os.fdopen(reader) as file:
        found = file.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise Failure(f"exit status {os.waitstatus_to_exitcode(status)}")
    return found


def _too_late(*_: object) -> NoReturn:
    raise TimeoutError("it takes too long")


def _finish(work: Callable[[], object], writer: int) -> NoReturn:
    try:
        os.write(writer, json.dumps(work()).encode())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Failure(AssertionError):
    """A point that was not survived; what went wrong has been printed."""


async def check(ground: Ground, case: Case, hit: Hit) -> None:
    async with open_engine(warm=0) as engine:
        await case.after(ground, engine, hit)
        await case.repeat(ground, engine)
        await remove_all(engine)
        await engine.settled()
        await engine.prune_images(all=True)
        assert engine.containers() == []
        # But for places that are set aside, which go with the engine.
        assert {*engine.journal.leases().values()} == {*engine.journal.parked(engine.owner.id)}
        assert_sound(engine.store)
        left = debris(ground.state.root)
        assert left == [], left


def point(ground: Ground, case: Case, strike: Strike | None) -> Hit:
    """Hits, checks, and sees that nothing is left. Raises AssertionError where something went wrong."""
    oracle = leakcheck.Oracle(ground.state, kinds=[*_KINDS, _cgroups], patience=PATIENCE)
    hit = Hit(*json.loads(in_child(lambda: Stage(ground, strike).play(case))))
    for path in ground.state.run.iterdir():
        if path.suffix in {".sock", ".lock", ".log", ".start"}:
            path.unlink()
    in_child(lambda: trio.run(check, ground, case, hit))
    ground.copy.unlink(missing_ok=True)
    oracle.check()
    return hit


def _cgroups(state: leakcheck.State) -> leakcheck.Findings:
    return leakcheck.cgroups(state, set())


# ---- many points ----


class Point(NamedTuple):
    """The N-th call of a role in a verb; ``error`` "": killed."""

    verb: str
    role: str
    error: str
    number: int

    @property
    def kind(self) -> str:
        return f"{self.verb}: {self.role}, {self.error or 'SIGKILL'}"


class Sweep:
    """Goes from point to point, and keeps the tally."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.folder = folder
        self.registry = registry
        self.points: Counter[str] = Counter()
        self.absent = 0
        """Points where the verb was over before: what others than who is hit have to do varies with their pace."""
        self.survived: Counter[str] = Counter()

    def every(self, verb: str) -> list[Point]:
        """All points of a verb: what it calls when nobody touches it, on a ground where it has been before."""
        point(self._ground(verb), CASES[verb], None)
        counts = point(self._ground(verb), CASES[verb], None).counts
        found = []
        for key, count in counts.items():
            role, _, error = key.partition(" ")
            found += [Point(verb, role, error, number) for number in range(1, count + 1) if role in ROLES]
        return found

    def visit(self, there: Point) -> bool:
        """Whether there was such a call."""
        before = ward.descendants(ward.init())
        ground = self._ground(there.verb)
        try:
            hit = point(ground, CASES[there.verb], Strike(there.role, there.number, there.error))
        except AssertionError as error:
            self.points[there.kind] += 1
            print(f"NOT SURVIVED: {tuple(there)}: {error}", file=sys.stderr, flush=True)
            _put_away(ground, before)
            return True
        self.absent += not hit.call
        self.points[there.kind] += bool(hit.call)
        self.survived[there.kind] += bool(hit.call)
        return bool(hit.call)

    def _ground(self, verb: str) -> Ground:
        ground = Ground(self.folder / verb.replace(" ", "-"), self.registry)
        for name, path in zip(("PYRT_ROOT", "PYRT_RUN", "TMPDIR"), ground.state, strict=True):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.environ[name] = str(path)
        return ground


def _put_away(ground: Ground, before: set[int]) -> None:
    """What a failure has left is not to fail the next point too."""
    for pid in ward.descendants(ward.init()) - before:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    ground.folder.rename(f"{ground.folder}-failed-{time.monotonic_ns()}")


@contextmanager
def grounds(folder: Path) -> Iterator[Sweep]:
    """With a registry, an archive and a file in the folder."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    links = [making.link(f"bin/{name}", "busybox") for name in ("sh", "cat", "true", "sleep", "rm", "test")]
    layers = (
        making.layer(making.folder("bin"), making.file("bin/busybox", busybox), *links),
        making.layer(making.file("file", CONTENT), making.file("gone", b"gone")),
    )
    (folder / "image.tar").write_bytes(docker_archive([(["small:1"], config_of(*layers), list(layers))]))
    (folder / "file").write_bytes(CONTENT)
    reader, writer = os.pipe()
    registry = os.fork()
    if not registry:
        os.close(reader)
        with enemy_at() as enemy:
            enemy.offer("small", "1", build(*layers))
            os.write(writer, enemy.address.encode())
            signal.pause()
    os.close(writer)
    try:
        address = os.read(reader, 100).decode()
        os.close(reader)
        yield Sweep(folder, address)
    finally:
        os.kill(registry, signal.SIGKILL)
        os.waitpid(registry, 0)


def load_all() -> None:
    """What servers and checks import, before they are forked: most of what a point takes would be that."""
    import_module("pyrt.cli.server")
    for verb in VERBS:
        parser_of(verb)
    gc.collect()
    gc.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where it happens; what is not survived is kept there")
    parser.add_argument("--verb", action="append", choices=[*CASES])
    parser.add_argument("--role", action="append", choices=ROLES)
    parser.add_argument("--error", action="append", choices=[KILL, *ERRORS], help='"" for SIGKILL')
    parser.add_argument("--number", type=int)
    parser.add_argument("--sample", type=int, help="so many of all points")
    parser.add_argument("--verbs", type=int, help="so many verbs of all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ward.enter()
    os.environ["PYRT_PYTHON"] = sys.executable
    load_all()
    luck = random.Random(options.seed)
    verbs = options.verb or [*CASES]
    verbs = luck.sample(verbs, options.verbs or len(verbs))
    with grounds(options.folder) as sweep:
        for verb in verbs:
            found = [
                there
                for there in sweep.every(verb)
                if (not options.role or there.role in options.role)
                and (options.error is None or there.error in options.error)
                and options.number in {None, there.number}
            ]
            luck.shuffle(found)
            wanted = options.sample // len(verbs) if options.sample else len(found)
            for there in found if not options.sample else found[: 4 * wanted]:
                wanted -= sweep.visit(there)
                if wanted <= 0:
                    break
            for kind, count in sweep.points.items():
                if kind.startswith(f"{verb}: "):
                    print(f"{kind}: survived {sweep.survived[kind]} of {count}", file=sys.stderr, flush=True)
    tally = {"points": sweep.points.total(), "survived": sweep.survived.total(), "absent": sweep.absent}
    print(json.dumps(tally))


if __name__ == "__main__":
    main()

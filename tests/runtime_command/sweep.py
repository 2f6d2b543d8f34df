"""Each command killed at each of its calls into the kernel, or refused it: ``delete --force`` leaves nothing.

A command that is refused one says so and has left nothing itself, if it was to make a container.

A process of its own, because whoever traces takes the ends of all its children: `test_sweep.py` calls it with a sample,
and without ``--sample`` it goes through all points. Prints how many there were of each verb and role.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.durable.tracer import ERRORS, Strike, Tracer

# The command itself, and the container's process until it is the container's command.
ROLES: Final = ("keeper", "inside")
VERBS: Final = ("create", "start", "run", "exec", "delete")


class Sweep:
    """One bundle, and containers of one name, one after the other."""

    def __init__(self, program: str, root: Path, bundle: Path, name: str) -> None:
        self.line = [program, "--root", str(root)]
        self.root = root
        self.bundle = bundle
        self.name = name

    def call(self, *words: str) -> None:
        """A verb that nobody disturbs."""
        done = subprocess.run([*self.line, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, words

    def words(self, verb: str) -> list[str]:
        """The verb's own command line."""
        return {
            "create": ["create", "--bundle", str(self.bundle), self.name],
            "run": ["run", "--bundle", str(self.bundle), self.name],
            "exec": ["exec", self.name, "/bin/true"],
        }.get(verb, [verb, self.name])

    def prepare(self, verb: str) -> None:
        """What has to be there before."""
        if verb not in {"create", "run"}:
            self.call("create", "--bundle", str(self.bundle), self.name)

    def traced(self, verb: str, strike: Strike | None) -> tuple[Tracer, int]:
        """Runs the verb to its end; the second is its exit code, negative for a signal."""
        gate, opener = os.pipe()
        pid = os.fork()
        if not pid:
            os.read(gate, 1)
            nothing = os.open("/dev/null", os.O_RDWR)
            for descriptor in range(3):
                os.dup2(nothing, descriptor)
            os.execv(self.line[0], [*self.line, *self.words(verb)])
        tracer = Tracer(strike)
        tracer.seize(pid, "keeper")
        tracer.armed = True
        os.write(opener, b"!")
        tracer.pump(lambda: pid in tracer.ended)
        return tracer, os.waitstatus_to_exitcode(tracer.ended[pid])

    def aside(self, verb: str, strike: Strike | None) -> tuple[dict[str, int], str, int]:
        """The same in a process that ends, so that nobody traces what lives on. Counts, what was hit, exit code."""
        answer, told = os.pipe()
        pid = os.fork()
        if not pid:
            tracer, code = self.traced(verb, strike)
            os.write(told, json.dumps([tracer.counts, tracer.struck, code]).encode())
            os._exit(0)
        os.close(told)
        _, status = os.waitpid(pid, 0)
        with os.fdopen(answer, "rb") as file:
            said = file.read()
        assert status == 0, f"{verb} {strike}: the tracer has failed"
        counts, struck, code = json.loads(said)
        return counts, struck, code

    def point(self, verb: str, strike: Strike | None) -> dict[str, int]:
        """One run, and what has to hold after it."""
        self.prepare(verb)
        counts, struck, code = self.aside(verb, strike)
        if strike is None or strike.error:
            assert code in {0, 1, 255}, f"{verb} {strike} {struck}: {code}"
            # At the end of a `run`, who can open nothing can't delete either.
            if code and (verb == "create" or (verb == "run" and strike and strike.error != "EMFILE")):
                assert not self.left(), f"{verb} {strike} {struck}: {self.left()} before it was deleted"
        self.call("delete", "--force", self.name)
        assert not self.left(), f"{verb} {strike} {struck}: {self.left()}"
        return counts

    def left(self) -> list[Path]:
        """What there is of a container."""
        return [*self.root.iterdir(), *Path("/sys/fs/cgroup").glob(f"*/pyrt/{self.name}")]


def main() -> None:
    """Reads the command line and sweeps."""
    parser = argparse.ArgumentParser(description=__doc__)
    for word in ("program", "root", "bundle", "name"):
        parser.add_argument(word)
    parser.add_argument("--sample", type=int, default=sys.maxsize, help="points of each verb and role")
    parser.add_argument("--seed", default="0")
    given = parser.parse_args()
    sweep = Sweep(given.program, Path(given.root), Path(given.bundle), given.name)
    chosen = random.Random(given.seed)
    points = {}
    for verb in VERBS:
        counts = sweep.point(verb, None)
        for role, error in itertools.product(ROLES, ("", *ERRORS)):
            key = f"{role} {error}".strip()
            numbers = range(1, counts.get(key, 0) + 1)
            for number in chosen.sample(numbers, min(given.sample, len(numbers))):
                sweep.point(verb, Strike(role, number, error))
            points[f"{verb} {key}"] = len(numbers)
    print(json.dumps(points))


if __name__ == "__main__":
    main()

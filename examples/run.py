"""Code that you don't trust, run with limits; what came of it is told, never guessed.

python examples/run.py [IMAGE]
"""

from __future__ import annotations

import sys

import trio

import pyrt

LIMITS = pyrt.Limits(memory="64M", pids=64, cpus=1.0, time=2.0)

PROGRAMS = {
    "answers": "read line; echo you said: $line",
    "complains": "echo no >&2; exit 3",
    "never ends": "while :; do sleep 1; done",
    "eats memory": "x=x; while :; do x=$x$x; done",
}


async def main(image: str) -> None:
    async with pyrt.open_engine() as engine:
        for name, program in PROGRAMS.items():
            done = await engine.run(image, ["sh", "-c", program], stdin=b"hello\n", limits=LIMITS)
            print(f"{name:12} {done.verdict:14} exit code {done.exit_code:3} after {done.duration:.3f} s", end="  ")
            print(done.stdout, done.stderr)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "host")

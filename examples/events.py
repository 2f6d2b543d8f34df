"""What happens, as it happens: every event exactly once, also if this program was away for a while.

python examples/events.py [SINCE]        # begins after that event; prints the cursor to go on from
"""

from __future__ import annotations

import sys

import trio

import pyrt


async def main(since: int | None) -> None:
    async with pyrt.open_engine() as engine:
        stream = engine.events(since)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run, "host", ["sh", "-c", "exit 3"])
            async for event in stream:
                match event:
                    case pyrt.ContainerStarted(name=name, pid=pid):
                        print(f"{event.seq:4} {name} runs as process {pid}")
                    case pyrt.ContainerExited(name=name, verdict=verdict, exit_code=code):
                        print(f"{event.seq:4} {name} ended: {verdict}, exit code {code}")
                    case pyrt.ContainerRemoved(name=name):
                        print(f"{event.seq:4} {name} is gone")
                        break
                    case _:
                        print(f"{event.seq:4} {event}")
        print(f"go on with: python examples/events.py {stream.cursor}")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else None)

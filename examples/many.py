"""A hundred containers at once, from one task each; the first to find the answer ends the others.

python examples/many.py [IMAGE]
"""

from __future__ import annotations

import sys

import trio

import pyrt


async def main(image: str) -> None:
    begun = trio.current_time()
    async with pyrt.open_engine() as engine, trio.open_nursery() as nursery:

        async def look(number: int) -> None:
            done = await engine.run(image, ["sh", "-c", f"test {number} = 42 && echo found || sleep 60"])
            if done.stdout:
                print(f"{number}: {done.stdout.decode().strip()}, after {trio.current_time() - begun:.2f} s")
                nursery.cancel_scope.cancel()

        for number in range(100):
            nursery.start_soon(look, number)
    print(f"all gone after {trio.current_time() - begun:.2f} s")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "host")

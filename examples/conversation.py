"""A container that lives as long as a block: talk to it, run other programs in it, and it is gone afterwards.

python examples/conversation.py [IMAGE]
"""

from __future__ import annotations

import sys

import trio

import pyrt


async def main(image: str) -> None:
    async with pyrt.open_engine() as engine, engine.open_container(image, ["cat"], hostname="parrot") as container:
        await container.stdin.send_all(b"hello\n")
        print("it says", await container.stdout.receive_some())

        done = await container.exec(["sh", "-c", "hostname; ps | wc -l || true"])
        print("inside:", done.stdout.decode().split())

        await container.stdin.aclose()
        async for piece in container.stdout:
            print("and then", piece)
        print("it ended:", await container.wait())


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "host")

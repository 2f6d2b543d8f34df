"""The way to the spawner: messages arrive whole with their descriptors, and a spawner that is gone is replaced."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.spawner import Message, Spawner, control_pair, receive
from pyrt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ends:
    """Stands for spawner processes: their ends of the sockets that a Spawner was given."""

    def __init__(self) -> None:
        self.theirs: list[socket.socket] = []

    def launch(self) -> tuple[int, int]:
        # First the process: its copy of a descriptor would outlive the call by a moment.
        pid = os.posix_spawn("/bin/true", ["true"], {})
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs.append(theirs)
        return pid, ours.detach()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    for end in ends.theirs:
        end.close()


async def test_a_message_brings_its_descriptors(ends: Ends) -> None:
    spawner = Spawner(ends.launch)
    reading, writing = os.pipe()
    await spawner.send(b"start", [writing])
    data, descriptors, _, _ = socket.recv_fds(ends.theirs[0], 99, 9)
    os.write(descriptors[0], b"through")
    assert (data, os.read(reading, 99)) == (b"start", b"through")
    for descriptor in (reading, writing, *descriptors):
        os.close(descriptor)
    await spawner.aclose()


async def test_many_senders_wait_their_turn_while_the_socket_is_full(ends: Ends) -> None:
    spawner = Spawner(ends.launch)
    seen: list[bytes] = []
    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(spawner.send, b"%03d" % number + bytes(10_000), [])
        await trio.testing.wait_all_tasks_blocked()
        theirs = trio.socket.from_stdlib_socket(ends.theirs[0].dup())
        while len(seen) < 200:
            seen.append(await theirs.recv(20_000))
        theirs.close()
    assert sorted(int(data[:3]) for data in seen) == list(range(200))
    assert {len(data) for data in seen} == {10_003}
    await spawner.aclose()


async def test_one_that_is_gone_is_replaced_and_nothing_is_lost(ends: Ends) -> None:
    spawner = Spawner(ends.launch)
    ends.theirs[0].close()
    await spawner.send(b"start", [])
    assert spawner.launches == 2
    assert ends.theirs[1].recv(99) == b"start"
    await spawner.aclose()


async def test_if_the_next_is_gone_too_it_is_an_error(ends: Ends) -> None:
    def launch() -> tuple[int, int]:
        launched = ends.launch()
        ends.theirs[-1].close()
        return launched

    spawner = Spawner(launch)
    with pytest.raises(EngineError, match="spawner"):
        await spawner.send(b"start", [])
    assert spawner.launches == 2
    await spawner.aclose()


async def test_a_keeper_is_heard_to_its_end() -> None:
    ours, theirs = control_pair()
    reading, writing = os.pipe()
    socket.send_fds(theirs, [b"Started"], [reading])
    theirs.send(b"Exited")
    theirs.close()
    first = await receive(ours)
    assert first.data == b"Started"
    assert os.fstat(first.descriptors[0]).st_ino == os.fstat(reading).st_ino
    assert not os.get_inheritable(first.descriptors[0])
    assert (await receive(ours)).data == b"Exited"
    assert await receive(ours) == Message(b"", [])
    for descriptor in (reading, writing, *first.descriptors):
        os.close(descriptor)
    ours.close()

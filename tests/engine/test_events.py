"""Events as values and as lines."""

from __future__ import annotations

import msgspec
import pytest

from pyrt.engine.events import (
    AnyEvent,
    ContainerExited,
    ContainerStarted,
    ExecStarted,
    Gap,
    ImagePulled,
    decode_line,
    encode_line,
)
from pyrt.engine.results import Verdict

EVENTS: list[AnyEvent] = [
    Gap(seq=7, missed=7),
    ImagePulled(seq=8, time=1, cause="pull", image="sha256:ab", name="debian:12"),
    ContainerStarted(seq=9, time=2, container="ab", name="n", image="debian:12", pid=5),
    ContainerExited(
        seq=10, time=3, container="ab", name="n", image="x", verdict=Verdict.OUT_OF_MEMORY, exit_code=137, signal=9
    ),
    ExecStarted(seq=11, time=4, container="ab", name="n", image="x", execution="cd", command=("id", "-u"), pid=6),
]


@pytest.mark.parametrize("event", EVENTS)
def test_a_line_holds_the_whole_event(event: AnyEvent) -> None:
    line = encode_line(event)
    assert b"\n" not in line
    assert decode_line(line) == event


def test_a_line_tells_its_kind_first() -> None:
    line = encode_line(EVENTS[2])
    assert line.startswith(b'{"kind":"container started",')
    assert msgspec.json.decode(line) == {
        "kind": "container started",
        "seq": 9,
        "time": 2,
        "container": "ab",
        "name": "n",
        "image": "debian:12",
        "pid": 5,
    }


def test_events_are_made_for_match() -> None:
    match EVENTS[3]:
        case ContainerExited(verdict=Verdict.OUT_OF_MEMORY, container=container):
            assert container == "ab"
        case _:
            pytest.fail("no match")


def test_events_do_not_change() -> None:
    with pytest.raises(AttributeError):
        EVENTS[0].seq = 1  # type: ignore[misc]


@pytest.mark.parametrize("line", [b"{}", b'{"kind":"unheard of"}', b"", b'{"kind":"container started","seq":"9"}'])
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_line(line)

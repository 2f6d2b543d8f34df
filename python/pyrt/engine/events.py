"""What happens, as frozen values.

Every change of state is one of these, with a sequence number that only grows, a wall-clock time and a
cause. They are made for ``match`` and travel as JSON lines; where they are kept is the journal's affair.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from pyrt.engine.results import Verdict


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """Base of all. ``seq`` is unique in a state root and never reused; ``time`` is Unix time in nanoseconds.

    ``time`` is when it happened, ``seq`` the order in which it became known. ``cause`` says on whose behalf
    ("run", "time limit", "engine closed"), or is "".
    """

    seq: int = 0
    time: int = 0
    cause: str = ""


class Gap(Event, frozen=True, tag="gap"):
    """``missed`` events before and including ``seq`` are no longer kept: the reader's cursor was too old."""

    missed: int


class ImageEvent(Event, frozen=True):
    """Base of what happens to images. ``image`` is its id (``sha256:...``), ``name`` the name in question or ""."""

    image: str
    name: str = ""


class ImagePulled(ImageEvent, frozen=True, tag="image pulled"):
    """An image came from a registry."""


class ImageLoaded(ImageEvent, frozen=True, tag="image loaded"):
    """An image came from an archive."""


class ImageImported(ImageEvent, frozen=True, tag="image imported"):
    """An image was made from a root file system."""


class ImageCommitted(ImageEvent, frozen=True, kw_only=True, tag="image committed"):
    """An image was made of a container."""

    container: str


class ImageSaved(ImageEvent, frozen=True, tag="image saved"):
    """An image was written to an archive."""


class ImageTagged(ImageEvent, frozen=True, tag="image tagged"):
    """An image got another name."""


class ImageUntagged(ImageEvent, frozen=True, tag="image untagged"):
    """An image lost a name."""


class ImageRemoved(ImageEvent, frozen=True, tag="image removed"):
    """An image is gone."""


class ContainerEvent(Event, frozen=True):
    """Base of what happens to containers: its id (64 hex digits), its name, the image as it was asked for."""

    container: str
    name: str
    image: str


class ContainerCreated(ContainerEvent, frozen=True, tag="container created"):
    """A container is recorded; nothing of it runs yet."""


class ContainerStarted(ContainerEvent, frozen=True, tag="container started"):
    """Its process runs. ``pid`` is in the pid namespace of the host."""

    pid: int


class ContainerFailed(ContainerEvent, frozen=True, tag="container failed"):
    """It could not be started; ``error`` says why in one sentence."""

    error: str


class ContainerSignaled(ContainerEvent, frozen=True, tag="container signaled"):
    """Somebody sent its process a signal."""

    signal: int


class ContainerPaused(ContainerEvent, frozen=True, tag="container paused"):
    """Its processes are frozen."""


class ContainerUnpaused(ContainerEvent, frozen=True, tag="container unpaused"):
    """Its processes run again."""


class ContainerRenamed(ContainerEvent, frozen=True, tag="container renamed"):
    """It has another name; ``before`` is the one it had."""

    before: str


class ContainerUpdated(ContainerEvent, frozen=True, tag="container updated"):
    """Its limits were changed."""


class ContainerOutOfMemory(ContainerEvent, frozen=True, tag="container out of memory"):
    """The kernel killed ``kills`` tasks of it for want of memory. Comes before the exit."""

    kills: int


class ContainerHealth(ContainerEvent, frozen=True, tag="container health"):
    """Its health has changed: "healthy" or "unhealthy"."""

    status: str


class ContainerExited(ContainerEvent, frozen=True, tag="container exited"):
    """Its process has ended. ``exit_code`` is as `docker run` has it: the code, or 128 and the signal."""

    verdict: Verdict
    exit_code: int
    code: int | None = None
    signal: int | None = None


class ContainerRemoved(ContainerEvent, frozen=True, tag="container removed"):
    """Nothing of it is left."""


class ExecStarted(ContainerEvent, frozen=True, tag="exec started"):
    """Another process was started in it; ``execution`` tells this one from others."""

    execution: str
    command: tuple[str, ...]
    pid: int


class ExecExited(ContainerEvent, frozen=True, tag="exec exited"):
    """That process has ended."""

    execution: str
    verdict: Verdict
    exit_code: int


AnyEvent: TypeAlias = (
    Gap
    | ImagePulled
    | ImageLoaded
    | ImageImported
    | ImageCommitted
    | ImageSaved
    | ImageTagged
    | ImageUntagged
    | ImageRemoved
    | ContainerCreated
    | ContainerStarted
    | ContainerFailed
    | ContainerSignaled
    | ContainerPaused
    | ContainerUnpaused
    | ContainerRenamed
    | ContainerUpdated
    | ContainerOutOfMemory
    | ContainerHealth
    | ContainerExited
    | ContainerRemoved
    | ExecStarted
    | ExecExited
)

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[AnyEvent]] = msgspec.json.Decoder(AnyEvent)


def encode_line(event: Event) -> bytes:
    """One line of JSON, without its newline; ``kind`` is the tag, defaults are left out."""
    return _encoder.encode(event)


def decode_line(line: bytes | str) -> AnyEvent:
    """The event of one line; raises msgspec.ValidationError or msgspec.DecodeError if it is none."""
    return _decoder.decode(line)

"""What this room needs to know of an image. Those of ``pyrt.images`` fit; nothing of that room is imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The id of this machine's own files as an image: they have no place for files of our making, and need none.
HOST: Final = "host"


class Config(Protocol):
    """How an image wants to be run: the fields of its configuration, "" or None or () where it says nothing."""

    @property
    def user(self) -> str: ...
    @property
    def env(self) -> Sequence[str]: ...
    @property
    def entrypoint(self) -> Sequence[str] | None: ...
    @property
    def cmd(self) -> Sequence[str] | None: ...
    @property
    def working_dir(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def stop_signal(self) -> str: ...
    @property
    def volumes(self) -> Sequence[str]: ...


class Image(Protocol):
    """``layers`` are absolute directories, topmost first."""

    @property
    def id(self) -> str: ...
    @property
    def config(self) -> Config: ...
    @property
    def layers(self) -> Sequence[str]: ...

"""Where the server's files are: socket, locks, log. ``rust/client/src/place.rs`` is the twin of this."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

USUAL_ROOT: Final = "/var/lib/pyrt"


class Place(msgspec.Struct, frozen=True):
    """The runtime folder, and the name that the files of one server share in it."""

    folder: Path
    name: str

    @classmethod
    def find(cls, environment: Mapping[str, str]) -> Place:
        """By $PYRT_RUN, $PYRT_ROOT, $XDG_RUNTIME_DIR and the user."""
        root = _absolute(environment, "PYRT_ROOT")
        usual = root in {None, USUAL_ROOT}
        return cls(Path(_folder(environment)), "pyrt" if usual else f"pyrt-{_hash(os.fsencode(root or '')):016x}")

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.name}.sock"

    @property
    def lock(self) -> Path:
        """Held locked by the server as long as the socket is its own."""
        return self.folder / f"{self.name}.lock"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def prepare(self) -> None:
        """Makes the folder, 0700, if it is not there.

        Nobody else may own it or have rights in it: a client gives its descriptors to whoever has the socket.
        """
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            facts = self.folder.stat()
        except OSError as error:
            raise HostError(
                f"creating {self.folder}: {error.strerror}", hint="PYRT_RUN names another folder"
            ) from error
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise HostError(f"{self.folder} is open to others", hint=f"chmod 700 {self.folder}, and own it")


def _absolute(environment: Mapping[str, str], variable: str) -> str | None:
    value = environment.get(variable) or None
    if value is not None and not value.startswith("/"):
        raise UsageError(f"{variable} is {value}, which is no absolute path", hint="write it from / on")
    return value


def _folder(environment: Mapping[str, str]) -> str:
    if chosen := _absolute(environment, "PYRT_RUN"):
        return chosen
    if os.geteuid() == 0:
        return "/run/pyrt"
    if user := _absolute(environment, "XDG_RUNTIME_DIR"):
        return f"{user}/pyrt"
    raise HostError("there is no folder for the server's socket", hint="set XDG_RUNTIME_DIR or PYRT_RUN")


def _hash(data: bytes) -> int:
    """FNV-1a, 64 bits: a short name for a state folder, the same in both languages."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value

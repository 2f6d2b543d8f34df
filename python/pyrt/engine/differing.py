"""What a container has changed of its image's files: its upper directory, held against the layers below."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE: Final = "trusted.overlay.opaque"


class FileChange(msgspec.Struct, frozen=True):
    """``kind``: "A" for added, "C" for changed, "D" for deleted. ``path`` is absolute, as the container has it."""

    kind: Literal["A", "C", "D"]
    path: str


def changes(upper: int, base: int) -> list[FileChange]:
    """What the open directory ``upper`` changes of ``base``, sorted by path; a change brings its folders along."""
    found: list[FileChange] = []
    todo = [("", os.dup(upper), os.dup(base) if base >= 0 else -1)]
    while todo:
        path, above, below = todo.pop()
        try:
            for name in os.listdir(above):
                todo += _compare(f"{path}/{name}", name, above, below, found)
            if below >= 0 and path and _is_opaque(above):
                gone = set(os.listdir(below)) - set(os.listdir(above))
                found += [FileChange("D", f"{path}/{name}") for name in gone]
        finally:
            os.close(above)
            if below >= 0:
                os.close(below)
    return _with_folders(found)


def _compare(path: str, name: str, above: int, below: int, found: list[FileChange]) -> list[tuple[str, int, int]]:
    """Notes one name, and returns what is to be gone through next if it is a folder."""
    status = os.stat(name, dir_fd=above, follow_symlinks=False)
    before = _status(below, name)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        found.append(FileChange("D", path))
        return []
    if not stat.S_ISDIR(status.st_mode):
        found.append(FileChange("C" if before else "A", path))
        return []
    both = before is not None and stat.S_ISDIR(before.st_mode)
    if before is None:
        found.append(FileChange("A", path))
    elif not both or _looks(status) != _looks(before):
        found.append(FileChange("C", path))
    inner = os.open(name, _FOLDER, dir_fd=above)
    return [(path, inner, os.open(name, _FOLDER, dir_fd=below) if both else -1)]


def _status(folder: int, name: str) -> os.stat_result | None:
    if folder < 0:
        return None
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


def _looks(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns


def _is_opaque(folder: int) -> bool:
    with suppress(OSError):
        return os.getxattr(folder, _OPAQUE) == b"y"
    return False


def _with_folders(found: list[FileChange]) -> list[FileChange]:
    """Overlayfs copies folders up with their times: that something in them has changed is told of them as well."""
    known = {change.path for change in found}
    folders = {change.path[:end] for change in found for end in _slashes(change.path)}
    return sorted([*found, *(FileChange("C", path) for path in folders - known)], key=lambda change: change.path)


def _slashes(path: str) -> list[int]:
    return [place for place, letter in enumerate(path) if letter == "/" and place]


def disk_usage(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk; of what goes meanwhile nothing is counted."""
    total, seen = 0, set[tuple[int, int]]()
    for _, _, files, descriptor in os.fwalk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if (status.st_dev, status.st_ino) not in seen:
                    seen |= {(status.st_dev, status.st_ino)} if status.st_nlink > 1 else set()
                    total += status.st_blocks * 512
    return total

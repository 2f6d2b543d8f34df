"""Mounts that a caller asks for: from the words of ``-v``, ``--mount`` and ``--tmpfs`` to values, and checked.

What every container has mounted is in ``filesystem``.
"""

from __future__ import annotations

import os.path
import posixpath
import re
from typing import Final

from pyrt.errors import UsageError
from pyrt.runtime.options import Mount
from pyrt.runtime.words import parse_mode, parse_size

_PROPAGATION: Final = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
# Words that the native core takes for any mount.
_FLAGS: Final = frozenset(
    {
        *("rw", "ro", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "atime", "noatime", "relatime"),
        *("strictatime", "diratime", "nodiratime", "symfollow", "nosymfollow"),
    }
)
_BIND_WORDS: Final = _FLAGS | _PROPAGATION | {"bind", "rbind", "rro"}
# Docker's for its virtual machine on a Mac, and for SELinux, which means nothing on a host without it: no effect.
_NO_EFFECT: Final = frozenset({"cached", "delegated", "consistent", "z", "Z"})
_TMPFS_KEYS: Final = re.compile(r"(size|mode|uid|gid|nr_inodes)=(.+)", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)

_VOLUMES: Final = "mount a folder of the host, as in -v /srv/data:/data, or memory with --tmpfs"


def volume(text: str, folder: str = "") -> Mount:
    """The words of ``-v``."""
    source, colon, rest = text.partition(":")
    target, _, words = rest.partition(":")
    if not colon:
        raise UsageError(f"{text!r} asks for a volume without a name, and volumes are not built yet", hint=_VOLUMES)
    if source.startswith(".") and folder:
        source = os.path.normpath(os.path.join(folder, source))
    if not source.startswith("/"):
        raise UsageError(f"{source!r} names a volume, and volumes are not built yet", hint=_VOLUMES)
    if ":" in words:
        raise UsageError(f"{text!r} has too many colons", hint="use --mount for a path with a colon in it")
    options = tuple(word for word in words.split(",") if word and word not in _NO_EFFECT)
    return _bind(source, target, options)


def mount(text: str) -> Mount:
    """The words of ``--mount``."""
    import csv

    pairs = [part.partition("=") for part in next(csv.reader([text]), [])]
    given = {_KEYS.get(key.strip().lower(), key.strip()): value for key, _, value in pairs}
    kind = given.pop("type", "volume")
    if kind == "volume":
        raise UsageError(f"{text!r} asks for a volume, and volumes are not built yet", hint=_VOLUMES)
    readonly = _truth(given.pop("readonly", "false"), text)
    target = given.pop("target", "")
    if kind == "bind":
        made = _mount_bind(given, target, readonly)
    elif kind == "tmpfs":
        made = _mount_tmpfs(given, target, readonly)
    else:
        raise UsageError(f"{kind!r} is no type of mount", hint="there are bind and tmpfs")
    if given:
        raise UsageError(f"a mount of type {kind} has no {next(iter(given))!r}")
    return made


def tmpfs(text: str) -> Mount:
    """The words of ``--tmpfs``."""
    target, _, words = text.partition(":")
    options = tuple(word for word in words.split(",") if word)
    return checked(Mount("tmpfs", target, readonly="ro" in options, options=options))


_KEYS: Final = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "bind-propagation": "propagation",
}


def _truth(text: str, whole: str) -> bool:
    if text.lower() in {"", "1", "true"}:
        return True
    if text.lower() in {"0", "false"}:
        return False
    raise UsageError(f"readonly is true or false, not {text!r}, in {whole!r}")


def _bind(source: str, target: str, options: tuple[str, ...], readonly: bool = False) -> Mount:
    return checked(Mount("bind", target, source, readonly or "ro" in options, options))


def _mount_bind(given: dict[str, str], target: str, readonly: bool) -> Mount:
    propagation = given.pop("propagation", "")
    return _bind(given.pop("source", ""), target, (propagation,) if propagation else (), readonly)


def _mount_tmpfs(given: dict[str, str], target: str, readonly: bool) -> Mount:
    keys = {"tmpfs-size": "size", "tmpfs-mode": "mode"}
    options = tuple(f"{word}={given.pop(key)}" for key, word in keys.items() if key in given)
    return checked(Mount("tmpfs", target, readonly=readonly, options=options))


def checked(asked: Mount) -> Mount:
    """The same with plain paths; UsageError if it can't be mounted whatever the container is."""
    target = plain_path(asked.target, "target of a mount")
    if target == "/":
        raise UsageError("nothing can be mounted at / of a container")
    if asked.kind == "tmpfs":
        return Mount("tmpfs", target, "", asked.readonly, tuple(_tmpfs_word(word) for word in asked.options))
    for word in asked.options:
        if word not in _BIND_WORDS:
            raise UsageError(f"{word!r} is no option of a bind mount", hint="such as ro, rslave, noexec")
    source = asked.source
    if not source.startswith("/") or "\0" in source:
        raise UsageError(f"the source of a bind mount is an absolute path, not {source!r}")
    return Mount("bind", target, source, asked.readonly, asked.options)


def _tmpfs_word(word: str) -> str:
    if word in _FLAGS:
        return word
    match = _TMPFS_KEYS.fullmatch(word)
    if not match:
        raise UsageError(f"{word!r} is no option of a tmpfs", hint="such as size=64m, mode=1777, exec")
    key, value = match.groups()
    if key == "size":
        return f"size={parse_size(value)}"
    if key == "mode":
        return f"mode={parse_mode(value):o}"
    if not _NUMBER.fullmatch(value):
        raise UsageError(f"{key} of a tmpfs is a number, not {value!r}")
    return word


def plain_path(path: str, what: str) -> str:
    """An absolute path without ``//``, ``.`` and ``..``."""
    if not path.startswith("/") or "\0" in path:
        raise UsageError(f"the {what} is an absolute path, not {path!r}")
    return "/" + posixpath.normpath(path).lstrip("/")

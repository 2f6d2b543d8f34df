"""Every error that pyrt raises, one hierarchy.

Each is one sentence and, where something can be done about it, a hint. The command prints them so and
ends with ``exit_code``; the native extension imports these classes and raises them itself.
"""

from __future__ import annotations

import errno
from typing import Final

SCARCE: Final = {
    errno.EMFILE: "raise the limit of open files: ulimit -n; or end some containers",
    errno.ENFILE: "this machine has no file descriptor left: see /proc/sys/fs/file-max",
    errno.ENOMEM: "this machine has no memory left",
    errno.ENOSPC: "the disk is full: pyrt system prune makes some room",
    errno.EDQUOT: "the disk is full: pyrt system prune makes some room",
    errno.EIO: "the disk is broken: dmesg may say more",
    errno.EROFS: "the disk can't be written to: dmesg may say more",
}
"""Hints on what a machine can lack at any moment, in any call: nobody's mistake."""


class PyrtError(Exception):
    """Base of all: ``message`` is one sentence without a full stop, ``hint`` says what to do or is None."""

    exit_code = 125
    usual_hint: str | None = None
    """What to do about any error of this class that has no better advice."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.usual_hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(PyrtError):
    """What the caller asked for is malformed: an option, a limit, a reference, a combination."""


class SpecError(UsageError):
    """A runtime specification that is refused; ``field`` is the JSON path of the culprit."""

    def __init__(self, message: str, *, field: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class HostError(PyrtError):
    """This machine lacks something: rights, a kernel feature, a cgroup hierarchy, a writable folder."""


class StateError(PyrtError):
    """The state folder can't be used: not writable, full, damaged, of a newer pyrt."""


class ImageError(PyrtError):
    """Base of what can be wrong with an image."""


class ImageNotFound(ImageError):
    """No such image here, or no such repository, tag or digest in its registry."""


class ImageInUse(ImageError):
    """A container uses the image."""


class PlatformNotFound(ImageError):
    """The image has no variant for the wanted platform; ``available`` lists what it has."""

    usual_hint = "one of them can be had all the same, if not to be run here: --platform OS/ARCH"

    def __init__(self, message: str, *, available: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.available = available


class InvalidImage(ImageError):
    """Not an image, or one that lies: malformed manifest, wrong digest or size, unsafe or damaged layer."""

    usual_hint = "get it again; if that does not help, whoever made it has to make it anew"


class RegistryError(ImageError):
    """A registry can't be reached or answers with an error; ``status`` is the HTTP status or None."""

    def __init__(self, message: str, *, status: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Unauthorized(RegistryError):
    """The registry wants other credentials than those that were found."""


class ContainerError(PyrtError):
    """Base of what can be wrong with a container."""


class ContainerNotFound(ContainerError):
    """No container has this name or id."""


class NameInUse(ContainerError):
    """Another container has this name."""


class IllegalTransition(ContainerError):
    """The container's state does not allow this; it is left as it was."""


class StartFailed(ContainerError):
    """A step in the making of the container failed; nothing of it is left.

    ``step`` is its name, ``index`` its place in the plan counted from 1, ``path`` what it worked on or
    "", ``errno`` the kernel's error number.
    """

    def __init__(
        self, message: str, *, step: str = "", index: int = 0, path: str = "", errno: int = 0, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.index = index
        self.path = path
        self.errno = errno


class CommandNotExecutable(StartFailed):
    """The command is there and can't be executed: no permission, a directory, another architecture."""

    exit_code = 126


class CommandNotFound(StartFailed):
    """The command, or the interpreter that it names, is not in the image."""

    exit_code = 127


class EngineError(PyrtError):
    """The engine itself fails: spawner gone, socket in use, server of another version."""

"""What a container is asked for that outlives its engine: plain values, which the journal keeps with its record."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

DEFAULT_LOG_SIZE: Final = 20 * 1024 * 1024
DEFAULT_LOG_FILES: Final = 5
"""As Docker's log driver `local` has them: 100 MiB at most."""

RestartWhen = Literal["no", "on-failure", "always", "unless-stopped"]

BACKOFF_FIRST: Final = 0.1
BACKOFF_LONGEST: Final = 60.0
STEADY: Final = 10.0
"""Seconds after which a container that ends has not failed to start: its next restart waits as briefly as its first."""


class Restart(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a container that has ended is started again; ``most``: how often after a failure, 0 for any number."""

    when: RestartWhen = "no"
    most: int = 0

    def wants(self, exit_code: int, restarts: int, *, stopped: bool) -> bool:
        """Whether it is to run again after ``restarts`` restarts; ``stopped``: somebody asked for this end."""
        if stopped or self.when == "no":
            return False
        return self.when != "on-failure" or (exit_code != 0 and (self.most == 0 or restarts < self.most))

    def wants_after_boot(self, exit_code: int, *, stopped: bool) -> bool:
        """Whether one that had ended before the machine was started anew is to run again."""
        if self.when == "always":
            return True
        return not stopped and (self.when == "unless-stopped" or (self.when == "on-failure" and exit_code != 0))


class Log(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of the output: ``files`` files of ``size`` bytes; 0 files for none.

    ``journal``: its lines go to journald as well, with ``tag``, in which {{.Name}} and the like are filled in.
    ``labels`` and ``env`` are names of those that are told with its lines, where somebody asks for details.
    """

    size: int = DEFAULT_LOG_SIZE
    files: int = DEFAULT_LOG_FILES
    journal: bool = False
    tag: str = ""
    labels: tuple[str, ...] = ()
    env: tuple[str, ...] = ()

    @property
    def driver(self) -> str:
        """As `--log-driver` has it."""
        if self.journal:
            return "journald"
        return "local" if self.files else "none"


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """How it is looked whether a container is well: ``test`` as Docker has it, times in seconds.

    ``test`` is ("CMD", word, ...) or ("CMD-SHELL", text). It is unhealthy after ``retries`` failures in a row;
    failures within ``start_period`` do not count, and until it is healthy it is looked at every ``start_interval``.
    """

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0


class Lasting(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """All of it. ``stdin``: its standard input is kept open for whoever attaches, and
    with ``stdin_once`` ends with the first who does."""

    restart: Restart = Restart()
    log: Log = Log()
    health: Health | None = None
    stdin: bool = False
    stdin_once: bool = False


USUAL: Final = Lasting()

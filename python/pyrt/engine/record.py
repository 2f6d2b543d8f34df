"""What the journal keeps of one container: enough to show it, to find its debris, and to start it again."""

from __future__ import annotations

from typing import Literal

import msgspec

from pyrt.engine.lasting import Lasting
from pyrt.engine.results import ExitStatus
from pyrt.engine.states import State


class Probe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One look at a container's health; ``exit_code`` is -1 where the command could not be run, or took too long."""

    started: int
    finished: int
    exit_code: int
    output: str = ""


class HealthState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a container is: ``failing`` looks in a row have failed; ``probes`` are the latest."""

    status: Literal["starting", "healthy", "unhealthy"] = "starting"
    failing: int = 0
    probes: tuple[Probe, ...] = ()


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One container. Times are Unix time in nanoseconds, 0 for not yet.

    ``image`` is the image as it was asked for, ``image_id`` its id; ``layers`` are the directories it uses.
    ``owner`` is the engine whose process supervises it. ``id_base`` is the first host id of its user namespace,
    or None where it has none of its own. ``auto_remove``: nothing of it is kept when it has ended.
    ``stop_signal`` is a number. ``options`` are the runtime's options as JSON. ``error`` is why it could not be
    started. ``cgroup_parent`` is the folder of its cgroups, if it was given one. ``at_rest``: it is paused for as long
    as an engine works on its files, not because somebody wished it.

    ``lasting`` is None where it ends with its engine. For one that does not: ``keeper`` is the path of its keeper's
    socket, ``boot`` the machine's boot in which it was started, ``restarts`` counts what its policy has done since
    somebody started it, ``backoff`` is how many seconds the last of them waited, ``stopped`` says that somebody
    asked for its end, ``health`` what was found of it, if anybody looks.
    """

    id: str
    name: str
    image: str
    image_id: str
    owner: str
    command: tuple[str, ...] = ()
    state: State = State.CREATED
    auto_remove: bool = False
    created: int = 0
    started: int = 0
    pid: int = 0
    id_base: int | None = None
    labels: dict[str, str] = {}
    stop_signal: int = 15
    status: ExitStatus | None = None
    error: str = ""
    lasting: Lasting | None = None
    keeper: str = ""
    boot: str = ""
    restarts: int = 0
    backoff: float = 0.0
    stopped: bool = False
    health: HealthState | None = None
    at_rest: bool = False
    cgroup_parent: str = ""
    options: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def finished(self) -> int:
        return self.status.finished if self.status else 0

    @property
    def is_gone(self) -> bool:
        """It keeps nothing, and has ended: what is left of it is the engine's affair, and nobody else's."""
        return self.auto_remove and self.state is State.REMOVING

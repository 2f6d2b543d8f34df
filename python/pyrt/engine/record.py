"""What the journal keeps of one container: enough to show it, to find its debris, and to start it again."""

from __future__ import annotations

import msgspec

from pyrt.engine.results import ExitStatus
from pyrt.engine.states import State


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One container. Times are Unix time in nanoseconds, 0 for not yet.

    ``image`` is the image as it was asked for, ``image_id`` its id; ``layers`` are the directories it uses.
    ``owner`` is the engine whose process supervises it. ``id_base`` is the first host id of its user namespace,
    or None where it has none of its own. ``auto_remove``: nothing of it is kept when it has ended.
    ``stop_signal`` is a number. ``options`` are the runtime's options as JSON. ``error`` is why it could not be
    started.
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
    options: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def finished(self) -> int:
        return self.status.finished if self.status else 0

    @property
    def is_gone(self) -> bool:
        """It keeps nothing, and has ended: what is left of it is the engine's affair, and nobody else's."""
        return self.auto_remove and self.state is State.REMOVING

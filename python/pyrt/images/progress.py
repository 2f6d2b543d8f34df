"""What a long work on images tells while it runs. Whoever shows it stands above; nothing here prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

State = Literal["waiting", "downloading", "extracting", "done", "exists"]


class Progress(msgspec.Struct, frozen=True):
    """One layer's state: ``layer`` is its digest, ``current`` and ``total`` count compressed bytes (None: unknown)."""

    layer: str
    state: State
    current: int = 0
    total: int | None = None


Callback = Callable[[Progress], None]

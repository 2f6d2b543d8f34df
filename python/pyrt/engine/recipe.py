"""From an image and options to a plan: what the engine asks of ``runtime`` and of the native core.

Whatever is the same at every start of an image is remembered: nothing here opens a file twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pyrt import _native

if TYPE_CHECKING:
    from pathlib import Path

    from pyrt.images.image import Image
    from pyrt.runtime.options import RunOptions

_PLAN_FILES: Final = 4 << 20


class Recipe(NamedTuple):
    """How one container is to be made, and what its process is called."""

    plan: _native.Plan
    command: tuple[str, ...]

"""How much is measured: all of it for figures that are told to people, a little in CI, which looks whether it works."""

from __future__ import annotations

import msgspec

from pyrt.bench.startup import QUIET


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of a case back to back, with gaps of ``quiet`` seconds, and of what takes seconds each.

    ``whole``: with the sizes that the goals speak of; else the smallest that show anything.
    """

    samples: int = 200
    gap_samples: int = 50
    slow_samples: int = 10
    quiet: float = QUIET
    whole: bool = True

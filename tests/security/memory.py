"""How much memory this process takes at the most."""

from __future__ import annotations

from pathlib import Path


class Peak:
    """The most that this process has had resident since this was made."""

    def __init__(self) -> None:
        # proc_pid_clear_refs(5): 5 sets the peak to what is resident now.
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _peak()

    def grown(self) -> int:
        """Bytes by which the peak is now above what was resident then."""
        return _peak() - self._before


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])

"""Capabilities: which a container has by default, and what ``--cap-add`` and ``--cap-drop`` make of it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pyrt.errors import UsageError

# linux/capability.h, in the order of their numbers.
ALL: Final = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
_KNOWN: Final = frozenset(ALL)

# Docker's but for what a container hardly ever needs: raw packets (address spoofing), device nodes, chroot (it opens
# the classic way out of one), audit messages, capabilities of files and of others (SETFCAP, SETPCAP).
DEFAULT: Final = frozenset(
    f"CAP_{name}" for name in "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETGID SETUID".split()
)


@lru_cache(maxsize=256)
def choose(add: tuple[str, ...], drop: tuple[str, ...], available: frozenset[str]) -> frozenset[str]:
    """The set after adding and dropping, as Docker does it: "ALL" on one side makes the other the exceptions.

    ``available`` is what can be had at all: "ALL" means that much, and a name beyond it is a UsageError.
    """
    added, dropped = [name(word) for word in add], [name(word) for word in drop]
    if "ALL" in added:
        chosen = available - set(dropped)
    elif "ALL" in dropped:
        chosen = frozenset(added)
    else:
        chosen = (DEFAULT & available) - set(dropped) | set(added)
    for missing in sorted(chosen - available):
        raise UsageError(
            f"{missing} can't be given: this process does not have it itself",
            hint="leave it out, or give the container a user namespace of its own",
        )
    return chosen


def name(word: str) -> str:
    """The full name of a capability: "net_admin" is CAP_NET_ADMIN. "ALL" is itself."""
    upper = word.strip().upper()
    full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in _KNOWN and full != "ALL":
        raise UsageError(f"{word!r} is no capability", hint=f"see capabilities(7); {_similar(full)}")
    return full


def _similar(full: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(full, ALL, 1, 0.5)
    return f"did you mean {close[0]}?" if close else "such as NET_ADMIN"

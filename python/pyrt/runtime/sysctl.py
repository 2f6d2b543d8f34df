"""Kernel parameters of a container: only those that its own namespaces have, never one of the host."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pyrt.errors import UsageError

if TYPE_CHECKING:
    from pyrt.runtime.options import RunOptions

# ipc_namespaces(7).
_IPC: Final = frozenset(
    f"kernel.{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)
_NAME: Final = re.compile(r"[a-z][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_@:-]+)+", re.ASCII)
_VALUE: Final = re.compile(r"[^\x00\r\n]{1,1024}")


def sysctls(options: RunOptions) -> dict[str, str]:
    """``linux.sysctl``."""
    return {name: _checked(name, value, options) for name, value in options.sysctls}


def _checked(name: str, value: str, options: RunOptions) -> str:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise UsageError(f"{name}={value!r} is no kernel parameter", hint="write it as in net.ipv4.ip_forward=1")
    # "/" may be written for ".", which names of interfaces need.
    dotted = name.replace("/", ".")
    if dotted.startswith("net."):
        _needs(options.network != "host", name, "network")
    elif dotted in _IPC or dotted.startswith("fs.mqueue."):
        _needs(options.ipc == "private", name, "ipc")
    elif dotted == "kernel.domainname":
        _needs(options.uts == "private", name, "uts")
    else:
        hint = "containers have net.*, fs.mqueue.* and those of System V IPC"
        if dotted == "kernel.hostname":
            hint = "the host name has an option of its own, --hostname"
        raise UsageError(f"the kernel parameter {name} is the whole machine's, not a container's", hint=hint)
    return value


def _needs(own: bool, name: str, namespace: str) -> None:
    if not own:
        raise UsageError(
            f"the kernel parameter {name} would be the host's: the container shares its {namespace} namespace"
        )

"""Devices of the host that a container is given, and the rules of its devices cgroup."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

from pyrt.errors import UsageError
from pyrt.runtime.mounting import plain_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyrt.runtime.host import Host
    from pyrt.runtime.options import Device, DeviceRule

# To these the native core adds what every container has: null, zero, full, random, urandom, tty, ptmx, terminals.
_EVERY_ACCESS: Final = "rwm"
_DENY_ALL: Final = {"allow": False, "access": _EVERY_ACCESS}
_ALLOW_ALL: Final = {"allow": True, "access": _EVERY_ACCESS}
_MOST: Final = 512


def nodes_and_rules(
    devices: Sequence[Device],
    host: Host,
    *,
    everything: bool,
    mapped: bool,
    binds: bool = False,
    asked: Sequence[DeviceRule] = (),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """``linux.devices`` and ``linux.resources.devices``.

    ``everything``: all devices of the host, and no rules. ``mapped``: the container has a user namespace, in which
    owners of the host mean nothing: its root owns them. ``binds``: it sees folders of the host, in which nodes may be.
    ``asked``: what is allowed beside the devices.
    """
    if everything:
        nodes = {
            node["path"]: node for node in _below("/dev", "/dev", mapped=mapped) if _is_for_containers(node["path"])
        }
    else:
        nodes = {}
    rules = [_ALLOW_ALL if everything else _DENY_ALL]
    for device in devices:
        for node in _resolve(device, mapped=mapped):
            nodes[node["path"]] = node
            rules.append(
                {"allow": True, "access": device.access, **{key: node[key] for key in ("type", "major", "minor")}}
            )
    rules += [_rule(each) for each in asked]
    if len(nodes) > _MOST:
        raise UsageError(f"{len(nodes)} devices are more than the {_MOST} that a container can have")
    # In a user namespace no node can be made, and none of an image's layers can be opened: rules, a sixth of a
    # millisecond at each start, are for what comes from the host.
    ruled = not mapped or binds or any(device.access != _EVERY_ACCESS for device in devices)
    return list(nodes.values()), rules if ruled and (host.device_rules or host.device_programs) else []


def _rule(asked: DeviceRule) -> dict[str, Any]:
    numbers = {"major": asked.major, "minor": asked.minor}
    numbers = {name: number for name, number in numbers.items() if number is not None}
    return {"allow": True, "access": asked.access, "type": asked.kind, **numbers}


def _resolve(device: Device, *, mapped: bool) -> Iterator[dict[str, Any]]:
    target = plain_path(device.target or device.source, "device")
    if not target.startswith("/dev/"):
        raise UsageError(f"{target} is not below /dev, where devices are", hint=f"as in {device.source}:/dev/name")
    try:
        status = os.stat(device.source)
    except OSError as error:
        raise UsageError(f"the device {device.source} can't be given: {error.strerror}") from None
    found = list(_below(device.source, target, mapped=mapped)) if stat.S_ISDIR(status.st_mode) else []
    if _kind(status.st_mode):
        found = [_node(target, status, mapped=mapped)]
    if not found:
        raise UsageError(f"{device.source} is not a device")
    yield from found


def _below(folder: str, target: str, *, mapped: bool) -> Iterator[dict[str, Any]]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            status = os.lstat(os.path.join(root, name))
            if _kind(status.st_mode):
                place = os.path.normpath(os.path.join(target, os.path.relpath(root, folder), name))
                yield _node(place, status, mapped=mapped)


def _node(path: str, status: os.stat_result, *, mapped: bool) -> dict[str, Any]:
    return {
        "path": path,
        "type": _kind(status.st_mode),
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": 0 if mapped else status.st_uid,
        "gid": 0 if mapped else status.st_gid,
    }


def _kind(mode: int) -> str:
    return "c" if stat.S_ISCHR(mode) else "b" if stat.S_ISBLK(mode) else ""


def _is_for_containers(path: str) -> bool:
    """Terminals, shared memory and what the native core makes itself are each container's own."""
    name = path.removeprefix("/dev/")
    return not name.startswith(("pts/", "shm/", "mqueue/")) and name not in {"console", "ptmx", "tty"}

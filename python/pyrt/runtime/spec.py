"""From an image, options and the host's facts to what the native core compiles: two JSON documents.

::

    Image --+
            +-- build --> spec:  OCI runtime specification 1.2
    options +             start: what the specification has no place for (layers, upper, files of this container)
    Host  --+

A pure function of its arguments: it opens nothing, but for a seccomp profile given by path and devices asked for. Every
refusal is a UsageError that names the option, or an InvalidImage that names the field.
"""

from __future__ import annotations

import os.path
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pyrt.errors import UsageError
from pyrt.runtime import filesystem, process
from pyrt.runtime.devices import nodes_and_rules
from pyrt.runtime.filesystem import UpperKind, upper_kind
from pyrt.runtime.process import build_process, encode
from pyrt.runtime.resources import resources
from pyrt.runtime.seccomp import default_profile, read_profile
from pyrt.runtime.signals import parse_signal
from pyrt.runtime.sysctl import sysctls
from pyrt.runtime.user import User

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrt.runtime.host import Host
    from pyrt.runtime.image import Image
    from pyrt.runtime.options import RunOptions

__all__ = ["Built", "build", "build_process", "upper_kind"]

VERSION: Final = "1.2.0"
# __NEW_UTS_LEN, and what may stand in /etc/hosts.
_CGROUPS: Final = "pyrt"
_CGROUP_PARENT: Final = re.compile(r"[A-Za-z0-9_.@:/-]{1,1024}", re.ASCII)
_HOSTNAME: Final = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)


class Built(msgspec.Struct, frozen=True):
    """Both documents, and what was decided on the way that others want to know.

    ``process`` is the specification's part of that name; ``stop_signal`` is a number; ``labels`` are the image's with
    the caller's over them; ``cgroup_parent`` is "" for the usual one.
    """

    spec: bytes
    start: bytes
    process: bytes
    command: tuple[str, ...]
    user: User
    hostname: str
    stop_signal: int
    labels: dict[str, str]
    upper: UpperKind
    cgroup_parent: str = ""


def no_peers(name: str) -> int:
    """Where no other container is known."""
    raise UsageError(f"there is no container {name} to share a namespace with")


def no_donor(name: str, userns: str) -> None:
    """Where each has its own /dev/shm."""


def build(
    image: Image,
    options: RunOptions,
    *,
    id: str,
    id_base: int | None,
    host: Host,
    lookup: Callable[[str], bytes | None],
    lowers: Sequence[str] = (),
    folder: str | None = None,
    hidden: Sequence[str] = (),
    volatile: bool = True,
    exists: Callable[[str], bool] = os.path.exists,
    peers: Callable[[str], int] = no_peers,
    donor: Callable[[str, str], int | None] = no_donor,
) -> Built:
    """The documents of a new container.

    ``id``: 64 hexadecimal digits. ``id_base``: first of the 65,536 host ids that are its own, None for a container in
    the host's user namespace. ``lookup`` gives a file of the image (/etc/passwd, /etc/group) or None. ``lowers``:
    directories of the root file system, topmost first; the image's layers if empty. ``folder``: holds ``upper`` and
    ``work``, needed if ``upper_kind`` says "directory". ``hidden``: paths that must not be seen, of the image ``host``.
    ``exists``: whether the host has the source of a bind mount. ``peers``: the process of another container, whose
    namespaces are to be shared; ``donor``: the same if one with this ``userns`` can share its /dev/shm.
    """
    _refuse_unbuilt(options, id_base)
    mapped = id_base is not None
    config = image.config
    hostname = _hostname(options, host, id)
    who = process.user(config, options, lookup, process.ids_of(id_base))
    words = process.command(config, options)
    env = process.environment(config, options, hostname, who.home)
    cwd = process.working_directory(config, options)
    rights = process.granted(options, host, mapped=mapped)
    asked = filesystem.asked_mounts(config, options, exists)
    upper = upper_kind(image, options)
    linux = _linux(options, host, id, id_base, rights, peers)
    linux["maskedPaths"] = filesystem.masked(options, host, hidden, asked)
    linux["readonlyPaths"] = filesystem.readonly(options)
    described = encode(process.process(options, words, env, who, cwd, rights))
    spec: dict[str, Any] = {
        "ociVersion": VERSION,
        "process": msgspec.Raw(described),
        "root": {"path": "rootfs", "readonly": options.read_only},
        "mounts": filesystem.mounts(asked, options, hidden, _shm_source(options, donor)),
        "linux": linux,
    }
    if options.uts == "private":
        spec["hostname"] = hostname
        if options.domainname:
            spec["domainname"] = _domainname(options.domainname)
    if options.annotations:
        spec["annotations"] = dict(options.annotations)
    rootfs = {
        "lowers": lowers or image.layers,
        "upper": _upper(upper, folder),
        "volatile": volatile,
        "files": filesystem.files(image, options, host, hostname, asked),
    }
    return Built(
        spec=encode(spec),
        start=encode({"id": id, "rootfs": rootfs, "init": options.init}),
        process=described,
        command=words,
        user=who,
        hostname=hostname,
        stop_signal=parse_signal(options.stop_signal or config.stop_signal or "SIGTERM"),
        labels={**config.labels, **dict(options.labels)},
        upper=upper,
        cgroup_parent=cgroup_parent(options.cgroup_parent),
    )


def cgroup_parent(text: str) -> str:
    """The folder of a container's cgroups below the root of each hierarchy; "" for the usual one."""
    if not text:
        return ""
    if not _CGROUP_PARENT.fullmatch(text) or ".." in text.split("/"):
        raise UsageError(f"{text!r} is no parent of cgroups", hint="such as /batch or batch/night")
    if text.endswith(".slice"):
        raise UsageError(
            f"{text} is a slice of systemd's, which alone makes groups in it",
            hint="name another folder, such as /batch",
        )
    parts = [part for part in text.split("/") if part not in {"", "."}]
    return "/".join(parts if text.startswith("/") else [_CGROUPS, *parts])


def _refuse_unbuilt(options: RunOptions, id_base: int | None) -> None:
    if options.publish:
        raise UsageError(
            f"ports can't be published yet: {options.publish[0]}",
            hint="run it with --network host, where its ports are this machine's",
        )
    if options.network not in {"none", "host"}:
        raise UsageError(f"there is no network {options.network!r} yet", hint="there are none and host")
    if (options.userns == "host") != (id_base is None):
        raise UsageError("userns='host' goes without a range of ids, and 'auto' with one")


def _hostname(options: RunOptions, host: Host, id: str) -> str:
    if options.uts != "private":
        if options.hostname or options.domainname:
            raise UsageError(
                "a host name can't be set: the container shares that of somebody else", hint="leave --uts out"
            )
        return host.hostname if options.uts == "host" else id[:12]
    if not options.hostname:
        return host.hostname if options.network == "host" else id[:12]
    if not _HOSTNAME.fullmatch(options.hostname):
        hint = "it has 1 to 64 letters, digits, dots and hyphens"
        raise UsageError(f"{options.hostname!r} is no host name", hint=hint)
    return options.hostname


def _domainname(name: str) -> str:
    if not _HOSTNAME.fullmatch(name):
        raise UsageError(f"{name!r} is no domain name", hint="it has 1 to 64 letters, digits, dots and hyphens")
    return name


def _upper(kind: UpperKind, folder: str | None) -> dict[str, Any] | None:
    if kind == "none":
        return None
    if kind == "tmpfs":
        return {"tmpfs": {"size": None}}
    if not folder:
        raise ValueError("the upper directory is missing")
    return {"directory": folder}


def _linux(
    options: RunOptions,
    host: Host,
    id: str,
    id_base: int | None,
    rights: frozenset[str],
    peers: Callable[[str], int],
) -> dict[str, Any]:
    mapped = id_base is not None
    everything = options.privileged and not mapped
    binds = any(mount.kind == "bind" for mount in options.mounts)
    nodes, rules = nodes_and_rules(
        options.devices, host, everything=everything, mapped=mapped, binds=binds, asked=options.device_rules
    )
    linux: dict[str, Any] = {
        "namespaces": _namespaces(options, peers, mapped=mapped),
        "cgroupsPath": f"/{cgroup_parent(options.cgroup_parent) or _CGROUPS}/{id}",
        "resources": ({"devices": rules} if rules else {}) | resources(options.limits, host),
    }
    if mapped:
        mapping = [{"containerID": 0, "hostID": id_base, "size": process.RANGE}]
        linux["uidMappings"] = linux["gidMappings"] = mapping
    if nodes:
        linux["devices"] = nodes
    if options.sysctls:
        linux["sysctl"] = sysctls(options)
    if (profile := _seccomp(options, host, rights)) is not None:
        linux["seccomp"] = msgspec.Raw(profile)
    return linux


def _namespaces(options: RunOptions, peers: Callable[[str], int], *, mapped: bool) -> list[dict[str, str]]:
    shared = {kind: getattr(options, name) for kind, name in _SHARED.items()}
    for kind, how in shared.items():
        if how not in {"private", "host"} and not how.startswith(PEER):
            raise UsageError(f"{how!r} is no {kind} namespace", hint="private, host, or container:NAME")
    own = {"mount": "private", "network": "host" if options.network == "host" else "private", **shared}
    if mapped:
        own["user"] = "private"
    return [_namespace(kind, how, peers) for kind, how in own.items() if how != "host"]


def _namespace(kind: str, how: str, peers: Callable[[str], int]) -> dict[str, str]:
    if how == "private":
        return {"type": kind}
    return {"type": kind, "path": f"/proc/{peers(how.removeprefix(PEER))}/ns/{kind}"}


def _shm_source(options: RunOptions, donor: Callable[[str, str], int | None]) -> str:
    """POSIX shared memory and semaphores are files: whoever shares an ipc namespace shares them, too."""
    if options.ipc == "host":
        return "/dev/shm"
    if not options.ipc.startswith(PEER):
        return ""
    process = donor(options.ipc.removeprefix(PEER), options.userns)
    return "" if process is None else f"/proc/{process}/root/dev/shm"


PEER: Final = "container:"
_SHARED: Final = {"pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroupns"}


def _seccomp(options: RunOptions, host: Host, rights: frozenset[str]) -> bytes | None:
    if options.seccomp == "default":
        return None if options.privileged else default_profile(rights)
    if options.seccomp == "unconfined":
        return None
    if not options.seccomp.startswith("/"):
        hint = "default, unconfined, or the absolute path of a profile"
        raise UsageError(f"{options.seccomp!r} is no seccomp profile", hint=hint)
    return read_profile(options.seccomp, rights, host.architecture, host.kernel)

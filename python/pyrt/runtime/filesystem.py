"""What a container sees as its files: mounts that each has, mounts asked for, hidden paths, files of its own."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from pyrt.errors import UsageError
from pyrt.runtime.image import HOST
from pyrt.runtime.mounting import checked, plain_path
from pyrt.runtime.options import Mount
from pyrt.runtime.words import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyrt.runtime.host import Host
    from pyrt.runtime.image import Config, Image
    from pyrt.runtime.options import RunOptions

# Docker's list, and what has been found since: sounds, keys, schedulers, and thermal and power sensors, through which
# neighbours have been watched.
_MASKED_PROC: Final = "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats"
MASKED: Final = (
    *(f"/proc/{name}" for name in _MASKED_PROC.split()),
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/devices/virtual/powercap",
)
READONLY: Final = tuple(f"/proc/{name}" for name in "bus fs irq sys sysrq-trigger".split())

# Places below which every image has what is mounted there, or the kernel has.
_PREPARED: Final = ("/proc", "/sys", "/dev")
_FORBIDDEN: Final = ("/proc", "/sys")

UpperKind = Literal["none", "tmpfs", "directory"]


@lru_cache(maxsize=64)
def _own_mounts(shm_size: int, rights: bool, shm_source: str) -> dict[str, dict[str, Any]]:
    """What each container has, by destination. ``rights``: /sys and cgroups can be written; ``shm_source``: whose
    /dev/shm it shares, "" for its own."""
    plain = ("nosuid", "noexec", "nodev")
    seen = plain if rights else (*plain, "ro")
    shm = _mount("/dev/shm", "tmpfs", (*plain, "mode=1777", f"size={shm_size}"))
    mounts = [
        _mount("/proc", "proc", plain),
        _mount("/dev", "tmpfs", ("nosuid", "noexec", "strictatime", "mode=755", "size=65536k")),
        _mount("/dev/pts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
        _mount("/sys", "sysfs", seen),
        _mount("/sys/fs/cgroup", "cgroup", (*seen, "relatime")),
        # Shows the queues of the ipc namespace that the container is in.
        _mount("/dev/mqueue", "mqueue", plain),
        _bind("/dev/shm", shm_source, plain) if shm_source else shm,
    ]
    return {mount["destination"]: mount for mount in mounts}


def _mount(destination: str, kind: str, options: tuple[str, ...]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": options}


def _bind(destination: str, source: str, options: tuple[str, ...]) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": ("rbind", *options)}


def asked_mounts(config: Config, options: RunOptions, exists: Callable[[str], bool]) -> list[Mount]:
    """What caller and image ask for, checked, outermost first."""
    asked = [checked(mount) for mount in (*options.mounts, *options.tmpfs)]
    targets = {mount.target for mount in asked}
    if len(targets) < len(asked):
        twice = next(target for target in targets if sum(mount.target == target for mount in asked) > 1)
        raise UsageError(f"two mounts at {twice}", hint="a place can have one")
    for mount in asked:
        _check_place(mount)
        if mount.kind == "bind" and not exists(mount.source):
            raise UsageError(
                f"there is no {mount.source} on this machine to mount at {mount.target}",
                hint="make it first; Docker would make a directory that belongs to root",
            )
    if options.read_only:
        # Data of a volume can be written although the image can't; until there are volumes it is kept in memory.
        # What an image says of the places that are ours means nothing, as in a container that is not read-only.
        places = {plain_path(f"/{volume}", "volume") for volume in config.volumes} - targets
        asked += [Mount("tmpfs", place, options=("tmpcopyup",)) for place in places if not _is_prepared(place)]
    return sorted(asked, key=lambda mount: mount.target.split("/")) if len(asked) > 1 else asked


def _check_place(mount: Mount) -> None:
    """A false /proc or /sys would be taken at its word (CVE-2019-16884, CVE-2023-27561)."""
    for place in _FORBIDDEN:
        inside = mount.target.startswith(f"{place}/")
        genuine = mount.kind == "bind" and mount.source.startswith(place)
        if (mount.target == place or inside) and not genuine:
            raise UsageError(f"nothing can be mounted at {mount.target}", hint=f"{place} is the kernel's own")


def mounts(
    asked: Iterable[Mount], options: RunOptions, hidden: Sequence[str], shm_source: str = ""
) -> list[dict[str, Any]]:
    """``mounts``. What is asked for takes the place of what each container has. ``shm_source``: a /dev/shm to share."""
    shm_size = parse_size(options.shm_size, "size of /dev/shm")
    own = _own_mounts(shm_size, options.privileged, shm_source)
    wanted = [_as_spec(mount) for mount in asked]
    if not wanted:
        return list(own.values())
    taken = {mount["destination"] for mount in wanted}
    # The host's /dev brings along what is in it.
    covered = "/dev/" if "/dev" in taken else "\0"
    kept = [mount for place, mount in own.items() if place not in taken and not place.startswith(covered)]
    # A mask would hide what is mounted below it as well.
    empty = [_mount(path, "tmpfs", ("nosuid", "nodev", "mode=755")) for path in hidden if _has_below(taken, path)]
    return [*kept, *empty, *wanted]


def _as_spec(mount: Mount) -> dict[str, Any]:
    options = (*mount.options, "ro") if mount.readonly and "ro" not in mount.options else mount.options
    if mount.kind == "bind":
        below = () if {"bind", "rbind"} & set(options) else ("rbind",)
        return {"destination": mount.target, "type": "bind", "source": mount.source, "options": (*below, *options)}
    # Docker's own for a tmpfs; a word of the caller's comes later and wins.
    return _mount(mount.target, "tmpfs", ("noexec", "nosuid", "nodev", *options))


def _has_below(places: Iterable[str], path: str) -> bool:
    return any(place.startswith(f"{path}/") for place in places)


def masked(options: RunOptions, host: Host, hidden: Sequence[str], asked: Iterable[Mount]) -> tuple[str, ...]:
    """``linux.maskedPaths``. ``hidden`` are an image's own, whatever the options; a mount over one shows it."""
    own = _without((*MASKED, *host.masked), options)
    if not hidden:
        return own
    places = {mount.target for mount in asked}
    return own + tuple(path for path in hidden if path not in places and not _has_below(places, path))


def readonly(options: RunOptions) -> tuple[str, ...]:
    """``linux.readonlyPaths``."""
    return _without(READONLY, options)


def _without(paths: tuple[str, ...], options: RunOptions) -> tuple[str, ...]:
    if options.privileged or "all" in options.unmask or "ALL" in options.unmask:
        return ()
    if not options.unmask:
        return paths
    shown = {plain_path(path, "path to unmask") for path in options.unmask}
    return tuple(path for path in paths if path not in shown)


def upper_kind(image: Image, options: RunOptions) -> UpperKind:
    """What takes the container's changes: nothing, memory, or the directory that the engine has to make.

    A read-only container has nothing, unless a place has to be made in it for a mount or as working directory: then a
    tmpfs, which is made read-only once the places are there.
    """
    if not options.read_only:
        return "directory" if options.upper == "disk" else "tmpfs"
    targets = [mount.target for mount in (*options.mounts, *options.tmpfs)]
    places = [*targets, *image.config.volumes, options.workdir or image.config.working_dir or "/"]
    return "none" if all(map(_is_prepared, places)) else "tmpfs"


def _is_prepared(place: str) -> bool:
    return place == "/" or any(f"{place}/".startswith(f"{parent}/") for parent in _PREPARED)


def files(image: Image, options: RunOptions, host: Host, hostname: str, asked: Iterable[Mount]) -> list[dict[str, Any]]:
    """Files of this container alone: who it is, whom it can ask for names. An image's own are never changed."""
    if image.id == HOST:
        return []
    taken = {mount.target for mount in asked}
    texts = {
        "/etc/hostname": f"{hostname}\n",
        "/etc/hosts": _hosts(options, host, hostname),
        "/etc/resolv.conf": _resolv_conf(options, host),
    }
    return [{"path": path, "content": text, "mode": 0o644} for path, text in texts.items() if path not in taken]


_HOSTS: Final = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def _hosts(options: RunOptions, host: Host, hostname: str) -> str:
    if options.network == "host" and host.hosts:
        text = host.hosts if host.hosts.endswith("\n") else f"{host.hosts}\n"
    else:
        text = f"{_HOSTS}127.0.0.1\t{hostname}\n"
    return text + "".join(f"{_address(address)}\t{_label(name)}\n" for name, address in options.extra_hosts)


def _resolv_conf(options: RunOptions, host: Host) -> str:
    if not (options.dns or options.dns_search or options.dns_options):
        return host.resolv_conf if options.network == "host" else "# This container has no network.\n"
    lines = [f"nameserver {_address(server)}" for server in options.dns]
    if options.dns_search:
        lines.append(f"search {' '.join(_label(domain) for domain in options.dns_search)}")
    if options.dns_options:
        lines.append(f"options {' '.join(_label(word) for word in options.dns_options)}")
    return "\n".join(lines) + "\n"


_LABEL: Final = re.compile(r"[A-Za-z0-9_.:-]{1,253}", re.ASCII)


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise UsageError(f"{text!r} is no name of a host, domain or resolver option")
    return text


def _address(text: str) -> str:
    from ipaddress import ip_address

    try:
        return str(ip_address(text))
    except ValueError:
        raise UsageError(f"{text!r} is no IP address") from None

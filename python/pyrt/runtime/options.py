"""What can be asked of a container: plain frozen values, and how the words of the command line become them.

Nothing here looks at an image or at this machine, and nothing here decides: ``spec`` does. All of it can be
written as JSON and read back, which is how the journal keeps it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec

from pyrt.errors import UsageError
from pyrt.runtime.words import (
    parse_count,
    parse_cpus,
    parse_duration,
    parse_mode,
    parse_pair,
    parse_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Device",
    "DeviceRate",
    "DeviceRule",
    "ExecOptions",
    "Limits",
    "Mount",
    "RunOptions",
    "Ulimit",
    "make_options",
    "parse_count",
    "parse_cpus",
    "parse_device",
    "parse_device_rate",
    "parse_device_rule",
    "parse_duration",
    "parse_mode",
    "parse_mount",
    "parse_pair",
    "parse_size",
    "parse_tmpfs",
    "parse_ulimit",
    "parse_volume",
]


class DeviceRate(msgspec.Struct, frozen=True):
    """What a container has of a block device of the host: bytes or operations a second, or a weight of 10 to 1000."""

    device: str
    rate: int


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of the machine a container may use. None is no limit, and so are -1 and 0 for ``pids`` and ``memory``.

    Sizes are bytes or texts like "64m" (multiples of 1024). ``memory_swap`` is memory and swap together, as Docker
    has it; -1 is no limit; not given or 0, as much swap again as memory; equal to it, no swap. ``cpus`` is a
    number of processors, 0.5 being half the time of one. ``time`` is in seconds of the clock on the wall, from the
    start of the command: the engine keeps it. ``blkio_weight``, 10 to 1000, counts among readers of disks whose
    scheduler is BFQ; the ``device`` lists are rates a second. Swappiness (0 to 100), ``oom_kill_disable`` (processes
    wait for memory instead of being killed; with ``memory`` alone) and real time are of cgroup version 1.
    """

    memory: int | str | None = None
    memory_swap: int | str | None = None
    memory_reservation: int | str | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpus: float | str | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpu_rt_period: int | None = None
    cpu_rt_runtime: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int | None = 1024
    blkio_weight: int | None = None
    blkio_weight_device: tuple[DeviceRate, ...] = ()
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()
    time: float | None = None


class Mount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place of the host (``bind``) or memory (``tmpfs``) at ``target``.

    ``options`` are words of mount(8): for a bind propagation and flags, for a tmpfs also size=, mode=, uid=, gid=,
    nr_inodes=.
    """

    kind: Literal["bind", "tmpfs"]
    target: str
    source: str = ""
    readonly: bool = False
    options: tuple[str, ...] = ()


class Ulimit(msgspec.Struct, frozen=True):
    """One of setrlimit(2): ``name`` as of ulimit ("nofile"), -1 is no limit."""

    name: str
    soft: int
    hard: int


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device of the host, or all in a folder of it, at ``target`` (below /dev). ``access``: letters of "rwm"."""

    source: str
    target: str = ""
    access: str = "rwm"


class DeviceRule(msgspec.Struct, frozen=True):
    """Which devices of a kind ("a" any, "c", "b") may be opened or made; None is any number. ``access`` as Device's."""

    kind: Literal["a", "b", "c"]
    major: int | None
    minor: int | None
    access: str


class RunOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, cache_hash=True):
    """All that a start can be told, each with what is done if it is not. ``make_options`` takes looser forms.

    ``entrypoint``: None is the image's, () is none. ``env``: later ones win. ``hostname``: else the first 12 digits
    of the id. ``seccomp``: "default", "unconfined" or a profile's path. ``upper``: where changes go that the
    container makes to its files. ``unmask``: paths that are masked or read-only by default and shall not be; "all"
    for all. ``publish`` is there to be refused by name. ``annotations`` are for the specification: they have no effect.

    ``pid``, ``ipc``, ``uts`` and ``cgroupns``: "private", "host", or that of another container that runs,
    "container:NAME". ``cgroup_parent``: below it are its cgroups, from the root of each hierarchy if it begins with
    "/", else from pyrt's own. ``stop_timeout``: seconds that `stop` gives it, else 10.

    ``privileged`` lifts what is inside the container's user namespace: all capabilities, no seccomp filter, nothing
    masked or read-only, privileges can be gained. Only together with ``userns="host"`` has it the host's devices
    and rights as well, which is no isolation.
    """

    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    group_add: tuple[str, ...] = ()
    workdir: str = ""
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    domainname: str = ""
    extra_hosts: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    tty: bool = False
    rows: int | None = None
    columns: int | None = None
    init: bool = False
    stop_signal: str = ""
    stop_timeout: float | None = None
    cgroup_parent: str = ""
    limits: Limits = Limits()
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int | None = None
    read_only: bool = False
    upper: Literal["disk", "tmpfs"] = "disk"
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[Mount, ...] = ()
    shm_size: int | str = 64 << 20
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    network: Literal["none", "host"] = "none"
    publish: tuple[str, ...] = ()
    pid: str = "private"
    ipc: str = "private"
    uts: str = "private"
    cgroupns: str = "private"
    userns: Literal["auto", "host"] = "auto"
    sysctls: tuple[tuple[str, str], ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = True
    seccomp: str = "default"
    unmask: tuple[str, ...] = ()


class ExecOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One more process in a running container. What is empty is as it is for the container's own.

    ``privileged``: all capabilities that the container's user namespace has; its seccomp filter stays.
    """

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    workdir: str = ""
    tty: bool = False
    rows: int | None = None
    columns: int | None = None
    privileged: bool = False


def make_options(command: Iterable[str] = (), limits: Limits | None = None, **fields: Any) -> RunOptions:
    """RunOptions from what a Python program likes to write.

    ``env``, ``labels``, ``annotations``, ``sysctls`` and ``extra_hosts`` may be mappings, ``entrypoint`` a text;
    ``mounts``, ``tmpfs``, ``ulimits``, ``devices`` and ``device_rules`` hold texts as the command line has them.
    UsageError names a field that is not known or has the wrong type.
    """
    if isinstance(command, str):
        raise UsageError("the command is a text", hint="give a sequence of words, such as ['sh', '-c', '...']")
    given: dict[str, Any] = {"command": tuple(command), **fields}
    if limits is not None:
        given["limits"] = limits
    for name, value in given.items():
        if name in _LOOSE and value is not None:
            given[name] = _LOOSE[name](value)
    try:
        options = RunOptions(**given)
        return msgspec.convert(msgspec.to_builtins(options), RunOptions)
    except TypeError as error:
        unknown = sorted(set(given) - set(RunOptions.__struct_fields__))
        message = f"there is no option {unknown[0]!r}" if unknown else str(error)
        raise UsageError(message, hint=_similar(unknown)) from None
    except msgspec.ValidationError as error:
        raise UsageError(f"an option is malformed: {error}") from None


def _similar(unknown: list[str]) -> str | None:
    from difflib import get_close_matches

    close = get_close_matches(unknown[0], RunOptions.__struct_fields__, 1) if unknown else []
    return f"did you mean {close[0]!r}?" if close else None


def _pairs(value: Any) -> Any:
    items = value.items() if hasattr(value, "items") else value
    return tuple((key, str(text)) for key, text in items)


def _words(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value)


def parse_volume(text: str, *, folder: str = "") -> Mount:
    """``-v``: "/of/host:/in/container[:ro,rslave,...]"; a source that begins with "." is relative to ``folder``."""
    from pyrt.runtime.mounting import volume

    return volume(text, folder)


def parse_mount(text: str) -> Mount:
    """``--mount``: "type=bind,source=/a,target=/b,readonly" or "type=tmpfs,target=/t,tmpfs-size=64m"."""
    from pyrt.runtime.mounting import mount

    return mount(text)


def parse_tmpfs(text: str) -> Mount:
    """``--tmpfs``: "/in/container[:size=64m,mode=1777,exec]"."""
    from pyrt.runtime.mounting import tmpfs

    return tmpfs(text)


def parse_ulimit(text: str) -> Ulimit:
    """``--ulimit``: "nofile=1024:2048", or one number for both; -1 is no limit."""
    name, _, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    try:
        return Ulimit(name.strip().lower(), int(soft), int(hard if colon else soft))
    except ValueError:
        raise UsageError(f"{text!r} is no limit", hint="write it as in nofile=1024:2048") from None


def parse_device(text: str) -> Device:
    """``--device``: "/dev/fuse[:/dev/there][:rwm]"."""
    source, *rest = text.split(":")
    access = rest.pop() if rest and set(rest[-1]) <= set("rwm") else "rwm"
    target = rest.pop() if rest else ""
    if rest or not source.startswith("/") or not access or (target and not target.startswith("/")):
        raise UsageError(f"{text!r} is no device", hint="write it as in /dev/fuse:/dev/fuse:rwm")
    return Device(source, target, access)


def parse_device_rate(text: str, what: str) -> DeviceRate:
    """``--device-read-bps`` and its kin: "/dev/sda:1m", "/dev/sda:1000"."""
    device, colon, rate = text.rpartition(":")
    if not colon or not device.startswith("/"):
        raise UsageError(f"{text!r} is no {what} of a device", hint="write it as in /dev/sda:1m")
    return DeviceRate(device, parse_size(rate, what))


_DEVICE_RULE: Final = re.compile(r"([abc]) (\d{1,9}|\*):(\d{1,9}|\*) ([rwm]{1,3})", re.ASCII)


def parse_device_rule(text: str) -> DeviceRule:
    """``--device-cgroup-rule``: "c 189:* rwm"."""
    if (match := _DEVICE_RULE.fullmatch(text.strip())) is None:
        raise UsageError(f"{text!r} is no rule for devices", hint="write it as in 'c 189:* rwm'")
    kind, *numbers, access = match.groups()
    major, minor = (None if number == "*" else int(number) for number in numbers)
    return DeviceRule(cast("Literal['a', 'b', 'c']", kind), major, minor, access)


def _each(parse: Any) -> Any:
    return lambda value: tuple(parse(one) if isinstance(one, str) else one for one in _words(value))


_LOOSE: dict[str, Any] = {
    "env": _pairs,
    "labels": _pairs,
    "annotations": _pairs,
    "sysctls": _pairs,
    "extra_hosts": _pairs,
    "entrypoint": _words,
    "group_add": _words,
    "dns": _words,
    "dns_search": _words,
    "dns_options": _words,
    "publish": _words,
    "cap_add": _words,
    "cap_drop": _words,
    "unmask": _words,
    "mounts": _each(parse_volume),
    "tmpfs": _each(parse_tmpfs),
    "ulimits": _each(parse_ulimit),
    "devices": _each(parse_device),
    "device_rules": _each(parse_device_rule),
}

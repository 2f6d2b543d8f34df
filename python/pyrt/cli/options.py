"""The options of ``run`` that say what a container is like: read here, with the user's files and folders, and handed to
``runtime``, which knows what they mean."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pyrt.cli.attached import add_terminal_options
from pyrt.cli.environment import add_environment_options, environment_of, labels_of
from pyrt.cli.not_built import NETWORK, add_not_built_options
from pyrt.errors import UsageError
from pyrt.runtime import options as runtime
from pyrt.runtime.options import Limits, RunOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrt.cli.console import Console
    from pyrt.cli.parser import Parser


def add_run_options(parser: Parser) -> None:
    """All of them, in groups."""
    _add_process(parser)
    _add_limits(parser)
    _add_files(parser)
    _add_isolation(parser)
    add_not_built_options(parser)


def _add_process(parser: Parser) -> None:
    group = parser.add_argument_group("the process")
    add_terminal_options(parser)
    add_environment_options(parser)
    group.add_argument("--name", metavar="NAME", help="the container's name, if not one that is made up")
    group.add_argument("-l", "--label", action="append", default=[], metavar="NAME[=VALUE]", help="a label")
    group.add_argument("--label-file", action="append", default=[], metavar="FILE", help="labels, one a line")
    group.add_argument("--annotation", action="append", default=[], metavar="NAME=VALUE", help="for its specification")
    group.add_argument("-u", "--user", metavar="USER[:GROUP]", help="as whom: names of the image or numbers")
    group.add_argument("--group-add", action="append", default=[], metavar="GROUP", help="another group")
    group.add_argument("-w", "--workdir", metavar="DIR", help="where in the container")
    group.add_argument("--entrypoint", metavar="COMMAND", help="instead of the image's; '' for none")
    group.add_argument("--init", action="store_true", help="a first process that reaps and passes signals on")
    group.add_argument("--stop-signal", metavar="SIGNAL", help="what `pyrt stop` sends")
    group.add_argument("--stop-timeout", type=float, metavar="SECONDS", help="until `pyrt stop` kills it (10)")
    group.add_argument("--timeout", metavar="TIME", help="kill it after so long: 5, 300ms, 2m")


def _add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("limits")
    add_limit_options(group)
    group.add_argument(
        "--memory-swappiness", type=int, metavar="NUMBER", help="0 to 100: how readily it is swapped out"
    )
    group.add_argument("--oom-kill-disable", action="store_true", help="let it wait for memory, instead of killing it")
    group.add_argument(
        "--blkio-weight-device", action="append", default=[], metavar="DISK:NUMBER", help="weight of one"
    )
    for (way, unit), what in _RATES.items():
        group.add_argument(f"--device-{way}-{unit}", action="append", default=[], metavar="DISK:RATE", help=what)
    group.add_argument("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="nofile=1024:4096")
    group.add_argument("--oom-score-adj", type=int, metavar="NUMBER", help="-1000 to 1000: whom the kernel kills first")
    group.add_argument("--shm-size", metavar="SIZE", help="of /dev/shm (64m)")
    group.add_argument("--cgroup-parent", metavar="FOLDER", help="where its cgroups are: /batch, or below pyrt's own")


_RATES: Final = {
    ("read", "bps"): "bytes a second from a disk: /dev/sda:1m",
    ("write", "bps"): "bytes a second to a disk",
    ("read", "iops"): "operations a second from a disk: /dev/sda:100",
    ("write", "iops"): "operations a second to a disk",
}


def add_limit_options(group: Any) -> None:
    """Those that can be changed while a container runs."""
    group.add_argument("-m", "--memory", metavar="SIZE", help="memory: 64m, 2g; 0: any")
    group.add_argument("--memory-swap", metavar="SIZE", help="memory and swap together (twice the memory); -1: any")
    group.add_argument("--memory-reservation", metavar="SIZE", help="what it may keep when memory is short")
    group.add_argument("--cpus", metavar="NUMBER", help="processors' time: .5, 2")
    group.add_argument("-c", "--cpu-shares", type=int, metavar="NUMBER", help="weight against others (1024)")
    group.add_argument("--cpu-period", type=int, metavar="USEC", help="of the limit of time")
    group.add_argument("--cpu-quota", type=int, metavar="USEC", help="of time in each period")
    group.add_argument("--cpu-rt-period", type=int, metavar="USEC", help="of the limit of real time")
    group.add_argument("--cpu-rt-runtime", type=int, metavar="USEC", help="of real time in each period")
    group.add_argument("--cpuset-cpus", metavar="LIST", help="which processors: 0-2,4")
    group.add_argument("--cpuset-mems", metavar="LIST", help="which memory nodes")
    group.add_argument("--pids-limit", type=int, metavar="COUNT", help="processes and threads (1024); -1: any number")
    group.add_argument("--blkio-weight", type=int, metavar="NUMBER", help="10 to 1000: among readers of disks")


def _add_files(parser: Parser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument("--read-only", action="store_true", help="the root file system can't be written to")
    group.add_argument(
        "--tmpfs", action="append", default=[], metavar="DIR[:OPTIONS]", help="files in memory: /tmp:size=64m"
    )
    group.add_argument("-v", "--volume", action="append", default=[], metavar="HOST:DIR[:ro]", help="a folder of yours")
    group.add_argument("--mount", action="append", default=[], metavar="LIST", help="type=bind,src=...,dst=...[,ro]")
    group.add_argument(
        "--device", action="append", default=[], metavar="PATH[:PATH[:rwm]]", help="a device of the host"
    )
    group.add_argument("--device-cgroup-rule", action="append", default=[], metavar="RULE",
                       help="allow more devices: 'c 189:* rwm'")  # fmt: skip


def _add_isolation(parser: Parser) -> None:
    group = parser.add_argument_group("isolation")
    group.add_argument("-h", "--hostname", metavar="NAME", help="what it calls itself")
    group.add_argument("--domainname", metavar="NAME", help="its domain")
    group.add_argument("--network", "--net", metavar="none|host", help="loopback alone (usual), or the host's network")
    for namespace, what in _NAMESPACES.items():
        group.add_argument(f"--{namespace}", type=_sharing, metavar="WHOSE", help=f"{what}, container:NAME")
    group.add_argument(
        "--userns", choices=("auto", "host"), metavar="auto|host", help="user ids of its own (usual), or the host's"
    )
    group.add_argument("--cap-add", action="append", default=[], metavar="NAME", help="a capability, or ALL")
    group.add_argument("--cap-drop", action="append", default=[], metavar="NAME", help="a capability, or ALL")
    group.add_argument("--security-opt", action="append", default=[], metavar="WORD[=VALUE]",
                       help="no-new-privileges=false, seccomp=unconfined|FILE, unmask=ALL|PATH")  # fmt: skip
    group.add_argument(
        "--privileged",
        action="store_true",
        help="all rights within its user namespace; with --userns host all of the host's: no protection from it",
    )
    group.add_argument("--add-host", action="append", default=[], metavar="NAME:ADDRESS", help="a line for /etc/hosts")
    for names in (("--dns",), ("--dns-search",), ("--dns-option", "--dns-opt")):
        group.add_argument(*names, action="append", default=[], metavar="WORD", help="a word for /etc/resolv.conf")
    group.add_argument("--sysctl", action="append", default=[], metavar="NAME=VALUE", help="net.core.somaxconn=1024")


_NAMESPACES: Final = {
    "pid": "private: its own processes (usual), host",
    "ipc": "private: its own shared memory (usual), host",
    "uts": "private: its own host name (usual), host",
    "cgroupns": "private: its own view of cgroups (usual), host",
}


# ---- from words to values ----


def _sharing(text: str) -> str:
    # What Docker calls one that others may join: any can be joined here.
    if text in {"", "shareable"}:
        return "private"
    if text not in {"private", "host"} and not text.removeprefix("container:"):
        raise argparse.ArgumentTypeError("container: is to be followed by a name or an id")
    return text


async def run_options_of(options: Any, console: Console) -> RunOptions:
    """The options of one start. Raises UsageError."""
    plain: RunOptions = options.once(_plain)
    fields = _security(options, console) if options.security_opt else {}
    if options.env or options.env_file:
        fields["env"] = await environment_of(options, console)
    if options.label or options.label_file:
        fields["labels"] = tuple((await labels_of(options, console)).items())
    if options.tty:
        fields["rows"], fields["columns"] = console.rows, console.columns
    if options.volume or options.mount:
        binds = [runtime.parse_volume(text, folder=console.directory) for text in options.volume]
        fields["mounts"] = (*binds, *(runtime.parse_mount(text) for text in options.mount))
    return msgspec.structs.replace(plain, **fields) if fields else plain


_PLAIN: Final = (
    *("user", "workdir", "name", "hostname", "domainname", "tty", "init", "stop_signal", "stop_timeout"),
    *("oom_score_adj", "read_only", "cgroup_parent"),
    *("shm_size", "pid", "ipc", "uts", "cgroupns", "userns", "privileged"),
)
_LISTS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "group_add": ("group_add", str),
    "cap_add": ("cap_add", str),
    "cap_drop": ("cap_drop", str),
    "dns": ("dns", str),
    "dns_search": ("dns_search", str),
    "dns_option": ("dns_options", str),
    "tmpfs": ("tmpfs", runtime.parse_tmpfs),
    "ulimit": ("ulimits", runtime.parse_ulimit),
    "device": ("devices", runtime.parse_device),
    "device_cgroup_rule": ("device_rules", runtime.parse_device_rule),
    "annotation": ("annotations", lambda text: runtime.parse_pair(text, "annotation")),
    "sysctl": ("sysctls", lambda text: runtime.parse_pair(text, "sysctl")),
    "add_host": ("extra_hosts", lambda text: _host(text)),
}
"""Options that may be repeated: the field that they fill, and what makes a value of a word."""


def _plain(options: Any) -> RunOptions:
    """All that does not depend on who calls, where. What was not given keeps the default that ``RunOptions`` has."""
    given: dict[str, Any] = {name: value for name in _PLAIN if (value := getattr(options, name)) is not None}
    given["command"] = tuple(options.command[1:] if options.command[:1] == ["--"] else options.command)
    given["limits"] = _limits(options)
    given["network"] = _network(options.network or "none")
    if options.entrypoint is not None:
        given["entrypoint"] = (options.entrypoint,) if options.entrypoint else ()
    for name, (field, parse) in _LISTS.items():
        if words := getattr(options, name):
            given[field] = tuple(parse(word) for word in words)
    return RunOptions(**given)


def _limits(options: Any) -> Limits:
    limits = limits_of(options)
    if options.memory_swappiness is not None:
        limits["memory_swappiness"] = options.memory_swappiness
    limits["oom_kill_disable"] = options.oom_kill_disable
    for name, what in _OF_DEVICES.items():
        limits[name] = tuple(runtime.parse_device_rate(text, what) for text in getattr(options, name))
    if options.timeout is not None:
        limits["time"] = runtime.parse_duration(options.timeout)
    return Limits(**limits)


_OF_DEVICES: Final = {
    "blkio_weight_device": "weight",
    **{f"device_{way}_{unit}": "rate" for way, unit in _RATES},
}


def limits_of(options: Any) -> dict[str, Any]:
    """The limits that were given, as fields of ``Limits``."""
    given = {
        "memory": options.memory,
        "memory_swap": -1 if options.memory_swap == "-1" else options.memory_swap,
        "memory_reservation": options.memory_reservation,
        "cpus": options.cpus,
        "cpu_period": options.cpu_period,
        "cpu_quota": options.cpu_quota,
        "cpu_shares": options.cpu_shares,
        "cpuset_cpus": options.cpuset_cpus,
        "cpuset_mems": options.cpuset_mems,
        "pids": options.pids_limit,
        "blkio_weight": options.blkio_weight,
        "cpu_rt_period": options.cpu_rt_period,
        "cpu_rt_runtime": options.cpu_rt_runtime,
    }
    return {name: value for name, value in given.items() if value is not None}


def _network(name: str) -> str:
    if name not in {"none", "host"}:
        raise UsageError(f"--network {name} is not built yet", hint=NETWORK)
    return name


def _host(text: str) -> tuple[str, str]:
    """NAME:ADDRESS, where the address may have colons of its own, or NAME=ADDRESS."""
    name, _, address = text.partition("=" if "=" in text else ":")
    if not name or not address:
        raise UsageError(f"{text!r} is no host and address", hint="such as --add-host db:10.0.0.7")
    return name, address.strip("[]")


_MODULES: Final = {"label": "SELinux label", "apparmor": "AppArmor profile"}


def _security(options: Any, console: Console) -> dict[str, Any]:
    """--security-opt, where Docker takes "=" and ":" alike."""
    fields: dict[str, Any] = {}
    for text in options.security_opt:
        name, _, value = text.partition("=" if "=" in text else ":")
        match name:
            case "no-new-privileges" if value in {"", "true", "false"}:
                fields["no_new_privileges"] = value != "false"
            case "seccomp" if value:
                word = value in {"default", "unconfined"}
                fields["seccomp"] = value if word else str(console.path(value))
            case "unmask" if value:
                fields["unmask"] = ("all",) if value.lower() == "all" else tuple(value.split(":"))
            case "systempaths" if value == "unconfined":
                fields["unmask"] = ("all",)
            case "label" | "apparmor" if value in {"disable", "unconfined"}:
                pass  # As without: pyrt sets neither.
            case "label" | "apparmor":
                raise UsageError(
                    f"--security-opt {text}: pyrt gives containers no {_MODULES[name]}",
                    hint="capabilities, seccomp, namespaces and its own user ids confine it; leave the option out",
                )
            case _:
                raise UsageError(
                    f"--security-opt {text} is not known",
                    hint="there are no-new-privileges=false, seccomp=unconfined|FILE and unmask=all|PATH",
                )
    return fields

"""How ``inspect`` tells what a container was told: Docker's Config, HostConfig, Mounts and NetworkSettings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pyrt.cli.template import Map
from pyrt.runtime.words import parse_cpus, parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.engine.record import Record
    from pyrt.images.config import ImageConfig
    from pyrt.runtime.options import DeviceRate, DeviceRule, Limits, Mount, RunOptions

_NANO: Final = 1_000_000_000


def config_document(record: Record, options: RunOptions, config: ImageConfig | None) -> dict[str, Any]:
    """``Config``: what it runs. ``config`` is what image and options say together; None if the image is gone."""
    return {
        "Hostname": options.hostname or record.id[:12],
        "Domainname": options.domainname,
        "User": config.user if config else options.user,
        "AttachStdin": False,
        "AttachStdout": record.lasting is None,
        "AttachStderr": record.lasting is None,
        "Tty": options.tty,
        "OpenStdin": bool(record.lasting and record.lasting.stdin),
        "StdinOnce": bool(record.lasting and record.lasting.stdin_once),
        "Env": list(config.env) if config else [f"{name}={value}" for name, value in options.env],
        "Cmd": list(config.cmd or ()) if config else list(record.command),
        "Entrypoint": list(config.entrypoint) if config and config.entrypoint else None,
        "Image": record.image,
        "Volumes": {path: {} for path in config.volumes} if config else None,
        "WorkingDir": config.working_dir if config else options.workdir,
        "ExposedPorts": {port: {} for port in config.exposed_ports} if config else {},
        "Labels": Map(record.labels),
        "StopSignal": options.stop_signal or (config.stop_signal if config else ""),
        "StopTimeout": options.stop_timeout,
    }


def host_config_document(record: Record, options: RunOptions) -> dict[str, Any]:
    """``HostConfig``: how it is confined."""
    binds = [_bind(mount) for mount in options.mounts if mount.kind == "bind"]
    return {
        "AutoRemove": record.auto_remove,
        "Binds": binds or None,
        "CapAdd": list(options.cap_add) or None,
        "CapDrop": list(options.cap_drop) or None,
        "Cgroup": "",
        "CgroupParent": record.cgroup_parent,
        "CgroupnsMode": options.cgroupns,
        "Annotations": Map(options.annotations),
        "DeviceCgroupRules": [_rule(each) for each in options.device_rules] or None,
        "Devices": [_device(each.source, each.target, each.access) for each in options.devices],
        "Dns": list(options.dns),
        "DnsOptions": list(options.dns_options),
        "DnsSearch": list(options.dns_search),
        "ExtraHosts": [f"{name}:{address}" for name, address in options.extra_hosts] or None,
        "GroupAdd": list(options.group_add) or None,
        "Init": options.init,
        "IpcMode": options.ipc,
        "NetworkMode": options.network,
        "OomScoreAdj": options.oom_score_adj or 0,
        "PidMode": "" if options.pid == "private" else options.pid,
        "PortBindings": {},
        "Privileged": options.privileged,
        "PublishAllPorts": False,
        "ReadonlyRootfs": options.read_only,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "Runtime": "pyrt",
        "SecurityOpt": _security(options) or None,
        "ShmSize": parse_size(options.shm_size),
        "Sysctls": Map(options.sysctls),
        "Tmpfs": Map((mount.target, ",".join(mount.options)) for mount in options.tmpfs),
        "UTSMode": "" if options.uts == "private" else options.uts,
        "Ulimits": [{"Name": each.name, "Soft": each.soft, "Hard": each.hard} for each in options.ulimits],
        "UsernsMode": "host" if options.userns == "host" else "private",
        **_limits(options.limits),
    }


def _device(source: str, target: str, access: str) -> dict[str, str]:
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": access}


def _bind(mount: Mount) -> str:
    words = (*(("ro",) if mount.readonly else ()), *mount.options)
    return ":".join([mount.source, mount.target, *([",".join(words)] if words else [])])


def _security(options: RunOptions) -> list[str]:
    return [
        *(["no-new-privileges"] if options.no_new_privileges else []),
        *([f"seccomp={options.seccomp}"] if options.seccomp != "default" else []),
        *(f"unmask={path}" for path in options.unmask),
    ]


def _limits(limits: Limits) -> dict[str, Any]:
    memory = _size(limits.memory)
    return {
        "Memory": memory,
        "MemorySwap": 2 * max(memory, 0) if limits.memory_swap is None else _size(limits.memory_swap),
        "MemoryReservation": _size(limits.memory_reservation),
        "NanoCpus": round(parse_cpus(limits.cpus) * _NANO) if limits.cpus is not None else 0,
        "CpuPeriod": limits.cpu_period or 0,
        "CpuQuota": limits.cpu_quota or 0,
        "CpuShares": limits.cpu_shares or 0,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "CpuRealtimePeriod": limits.cpu_rt_period or 0,
        "CpuRealtimeRuntime": limits.cpu_rt_runtime or 0,
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids,
        "BlkioWeight": limits.blkio_weight or 0,
        "BlkioWeightDevice": _of_devices(limits.blkio_weight_device, "Weight"),
        "BlkioDeviceReadBps": _of_devices(limits.device_read_bps, "Rate"),
        "BlkioDeviceWriteBps": _of_devices(limits.device_write_bps, "Rate"),
        "BlkioDeviceReadIOps": _of_devices(limits.device_read_iops, "Rate"),
        "BlkioDeviceWriteIOps": _of_devices(limits.device_write_iops, "Rate"),
    }


def _of_devices(limited: Sequence[DeviceRate], what: str) -> list[dict[str, Any]]:
    return [{"Path": each.device, what: each.rate} for each in limited]


def _rule(asked: DeviceRule) -> str:
    major, minor = ("*" if number is None else number for number in (asked.major, asked.minor))
    return f"{asked.kind} {major}:{minor} {asked.access}"


def _size(value: int | str | None) -> int:
    return -1 if str(value) == "-1" else parse_size(value) if value is not None else 0


def mount_documents(options: RunOptions) -> list[dict[str, Any]]:
    """``Mounts``."""
    return [
        {
            "Type": mount.kind,
            "Source": mount.source,
            "Destination": mount.target,
            "Mode": ",".join(mount.options),
            "RW": not mount.readonly and "ro" not in mount.options,
            "Propagation": "rprivate" if mount.kind == "bind" else "",
        }
        for mount in (*options.mounts, *options.tmpfs)
    ]


def network_document(options: RunOptions) -> dict[str, Any]:
    """``NetworkSettings``: no address of its own yet."""
    address = {"IPAddress": "", "Gateway": "", "MacAddress": "", "IPPrefixLen": 0, "GlobalIPv6Address": ""}
    return {**address, "Ports": Map(), "Networks": Map({options.network: {**address, "Aliases": None}})}

"""Limits: what becomes of them, and which are refused with which sentence."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pyrt.errors import UsageError
from pyrt.runtime.host import Host
from pyrt.runtime.options import DeviceRate, Limits, Ulimit
from pyrt.runtime.resources import resources, rlimits

if TYPE_CHECKING:
    from pathlib import Path

HOST = Host(cpus=frozenset({0, 1, 2, 3}))
MEBI = 1 << 20


def judged(**fields: Any) -> dict[str, Any]:
    return resources(Limits(pids=-1, **fields), HOST)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"memory": "64m"}, {"memory": {"limit": 64 * MEBI, "swap": 128 * MEBI}}),
        ({"memory": "64m", "memory_swap": 0}, {"memory": {"limit": 64 * MEBI, "swap": 128 * MEBI}}),
        ({"memory": "64m", "memory_swap": "64m"}, {"memory": {"limit": 64 * MEBI, "swap": 64 * MEBI}}),
        ({"memory": 0}, {}),
        ({"memory": "0"}, {}),
        ({"memory": "-1"}, {}),
        ({"memory": 64 * MEBI, "memory_swap": "96m"}, {"memory": {"limit": 64 * MEBI, "swap": 96 * MEBI}}),
        ({"memory": "64m", "memory_swap": -1}, {"memory": {"limit": 64 * MEBI, "swap": -1}}),
        ({"memory": "64m", "memory_swap": "-1"}, {"memory": {"limit": 64 * MEBI, "swap": -1}}),
        ({"memory": -1}, {}),
        ({"memory_reservation": "32m"}, {"memory": {"reservation": 32 * MEBI}}),
        ({"cpus": 0.5}, {"cpu": {"period": 100_000, "quota": 50_000}}),
        ({"cpus": "4"}, {"cpu": {"period": 100_000, "quota": 400_000}}),
        ({"cpus": 0.01}, {"cpu": {"period": 100_000, "quota": 1_000}}),
        ({"cpu_period": 50_000, "cpu_quota": 25_000}, {"cpu": {"period": 50_000, "quota": 25_000}}),
        ({"cpu_quota": -1}, {}),
        ({"cpu_shares": 512}, {"cpu": {"shares": 512}}),
        (
            {"cpu_rt_period": 500_000, "cpu_rt_runtime": 1000},
            {"cpu": {"realtimePeriod": 500_000, "realtimeRuntime": 1000}},
        ),
        ({"memory_swappiness": 0}, {"memory": {"swappiness": 0}}),
        ({"memory_swappiness": -1}, {}),
        (
            {"memory": "64m", "memory_swap": "64m", "oom_kill_disable": True},
            {"memory": {"limit": 64 * MEBI, "swap": 64 * MEBI, "disableOOMKiller": True}},
        ),
        ({"blkio_weight": 300}, {"blockIO": {"weight": 300}}),
        ({"blkio_weight": 0}, {}),
        ({"cpuset_cpus": "0-1,3", "cpuset_mems": "0"}, {"cpu": {"cpus": "0-1,3", "mems": "0"}}),
    ],
)
def test_limits(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert judged(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"memory": "5m"}, "too small to start a container.*6m"),
        ({"memory": "much"}, "is no memory limit.*64m"),
        ({"memory": "64m", "memory_swap": "32m"}, "below that of memory"),
        ({"memory_swap": "64m"}, "needs one of memory"),
        ({"memory": "64m", "memory_reservation": "65m"}, "above the limit"),
        ({"memory_swappiness": 101}, "swappiness.*0 to 100"),
        ({"oom_kill_disable": True}, "whole machine.*goes with -m"),
        ({"cpu_rt_runtime": -5}, "real time"),
        ({"blkio_weight": 5}, "10 to 1000"),
        ({"blkio_weight_device": (DeviceRate("/dev/null", 100),)}, "/dev/null is no block device"),
        ({"device_read_bps": (DeviceRate("/dev/none", 100),)}, "/dev/none can't be limited"),
        ({"cpus": 0}, "number of processors"),
        ({"cpus": "half"}, "number of processors"),
        ({"cpus": 5}, "can't be had.*the 4 there are"),
        ({"cpus": 0.001}, "can't be had"),
        ({"cpus": 1, "cpu_quota": 5000}, "the same thing"),
        ({"cpu_period": 10}, "CPU period"),
        ({"cpu_quota": 10}, "CPU quota"),
        ({"cpu_shares": 1}, "CPU shares"),
        ({"cpuset_cpus": "0-7"}, "no processor 4.*0-3"),
        ({"cpuset_cpus": "3-1"}, "no list of processors"),
        ({"cpuset_cpus": "a"}, "no list of processors"),
        ({"cpuset_cpus": "0-99999999999999999999"}, "no list of processors"),
        ({"cpuset_mems": "0-"}, "no list of memory nodes"),
    ],
)
def test_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        judged(**fields)


def test_processes() -> None:
    assert resources(Limits(), HOST) == {"pids": {"limit": 1024}}
    assert resources(Limits(pids=32), HOST) == {"pids": {"limit": 32}}
    for unlimited in (-1, 0, None):
        assert resources(Limits(pids=unlimited), HOST) == {}
    for wrong in (-2, 1 << 23):
        with pytest.raises(UsageError, match="number of processes"):
            resources(Limits(pids=wrong), HOST)


def test_swap_is_left_alone_where_it_cannot_be_limited() -> None:
    assert resources(Limits(pids=-1, memory="64m"), Host(swap_limits=False)) == {"memory": {"limit": 64 * MEBI}}


def test_rates_name_a_disk_by_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = str(tmp_path / "disk")
    status = SimpleNamespace(st_mode=stat.S_IFBLK | 0o600, st_rdev=os.makedev(8, 16))
    monkeypatch.setattr("pyrt.runtime.block_io.os.stat", {disk: status}.__getitem__)
    given = judged(
        blkio_weight_device=(DeviceRate(disk, 200),),
        device_read_bps=(DeviceRate(disk, MEBI),),
        device_write_iops=(DeviceRate(disk, 100),),
    )
    numbers = {"major": 8, "minor": 16}
    assert given == {
        "blockIO": {
            "weightDevice": [{**numbers, "weight": 200}],
            "throttleReadBpsDevice": [{**numbers, "rate": MEBI}],
            "throttleWriteIOPSDevice": [{**numbers, "rate": 100}],
        }
    }


def test_ulimits() -> None:
    asked = [Ulimit("nofile", 1, 2), Ulimit("core", 0, -1), Ulimit("nofile", 10, 20)]
    assert rlimits(asked) == [
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
    ]
    for wrong in (Ulimit("files", 1, 1), Ulimit("nofile", 2, 1), Ulimit("nofile", -1, 1), Ulimit("nofile", -2, -2)):
        with pytest.raises(UsageError):
            rlimits([wrong])

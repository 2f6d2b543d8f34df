"""Limits: what becomes of them, and which are refused with which sentence."""

from __future__ import annotations

from typing import Any

import pytest

from pyrt.errors import UsageError
from pyrt.runtime.host import Host
from pyrt.runtime.options import Limits, Ulimit
from pyrt.runtime.resources import resources, rlimits

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


def test_ulimits() -> None:
    asked = [Ulimit("nofile", 1, 2), Ulimit("core", 0, -1), Ulimit("nofile", 10, 20)]
    assert rlimits(asked) == [
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
    ]
    for wrong in (Ulimit("files", 1, 1), Ulimit("nofile", 2, 1), Ulimit("nofile", -1, 1), Ulimit("nofile", -2, -2)):
        with pytest.raises(UsageError):
            rlimits([wrong])

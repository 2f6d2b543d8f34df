"""Options from Python and from the command line, and their way through the journal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pyrt.errors import UsageError
from pyrt.runtime.options import (
    Device,
    DeviceRate,
    DeviceRule,
    ExecOptions,
    Limits,
    Mount,
    RunOptions,
    Ulimit,
    make_options,
    parse_device,
    parse_device_rate,
    parse_device_rule,
    parse_ulimit,
)


def test_looser_forms_become_values() -> None:
    options = make_options(
        ["a", "b"],
        Limits(memory="64m"),
        env={"A": "1", "B": 2},
        labels={"l": "x"},
        entrypoint="sh",
        mounts=["/a:/b:ro"],
        tmpfs="/tmp:size=1m",
        ulimits=["nofile=10:20"],
        devices="/dev/fuse",
        cap_add="NET_ADMIN",
        sysctls={"net.ipv4.ip_forward": 1},
        extra_hosts=[("box", "10.0.0.1")],
    )
    assert options == RunOptions(
        command=("a", "b"),
        limits=Limits(memory="64m"),
        env=(("A", "1"), ("B", "2")),
        labels=(("l", "x"),),
        entrypoint=("sh",),
        mounts=(Mount("bind", "/b", "/a", True, ("ro",)),),
        tmpfs=(Mount("tmpfs", "/tmp", options=("size=1048576",)),),
        ulimits=(Ulimit("nofile", 10, 20),),
        devices=(Device("/dev/fuse"),),
        cap_add=("NET_ADMIN",),
        sysctls=(("net.ipv4.ip_forward", "1"),),
        extra_hosts=(("box", "10.0.0.1"),),
    )


def test_they_survive_as_json() -> None:
    options = make_options(["a"], Limits(cpus=0.5, time=3), env={"A": "1"}, entrypoint=(), mounts=["/a:/b"], rows=5)
    assert msgspec.json.decode(msgspec.json.encode(options), type=RunOptions) == options
    assert msgspec.json.encode(RunOptions()) == b"{}"
    ask = ExecOptions(command=("a",), user="app")
    assert msgspec.json.decode(msgspec.json.encode(ask), type=ExecOptions) == ask


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"memory": "64m"}, "no option 'memory'"),
        ({"read_onl": True}, "did you mean 'read_only'"),
        ({"tty": "yes"}, "tty"),
        ({"network": "bridge"}, "network"),
        ({"userns": None}, "userns"),
        ({"cap_add": [1]}, "cap_add"),
        ({"command": "true"}, "text"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_options(**fields)


def test_ulimits() -> None:
    assert parse_ulimit("nofile=1024") == Ulimit("nofile", 1024, 1024)
    assert parse_ulimit("CORE=0:-1") == Ulimit("core", 0, -1)
    for text in ("nofile", "nofile=", "nofile=a", "nofile=1:", "nofile=1:2:3", "=1:x"):
        with pytest.raises(UsageError, match="is no limit"):
            parse_ulimit(text)


def test_devices() -> None:
    assert parse_device("/dev/fuse") == Device("/dev/fuse", "", "rwm")
    assert parse_device("/dev/a:/dev/b") == Device("/dev/a", "/dev/b", "rwm")
    assert parse_device("/dev/a:/dev/b:r") == Device("/dev/a", "/dev/b", "r")
    assert parse_device("/dev/a:rw") == Device("/dev/a", "", "rw")
    for text in ("", "dev/a", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/dev/b:/dev/c:r", "/dev/a::r:"):
        with pytest.raises(UsageError, match="is no device"):
            parse_device(text)


def test_rates_of_devices() -> None:
    assert parse_device_rate("/dev/sda:1m", "rate") == DeviceRate("/dev/sda", 1 << 20)
    assert parse_device_rate("/dev/disk/by-path/a:b:1000", "rate") == DeviceRate("/dev/disk/by-path/a:b", 1000)
    for text in ("", "/dev/sda", "sda:1", "/dev/sda:", "/dev/sda:-1", "/dev/sda:many"):
        with pytest.raises(UsageError, match="is no rate"):
            parse_device_rate(text, "rate")


def test_rules_for_devices() -> None:
    assert parse_device_rule("c 189:* rwm") == DeviceRule("c", 189, None, "rwm")
    assert parse_device_rule("a *:* r") == DeviceRule("a", None, None, "r")
    for text in ("", "c 189:*", "x 1:2 r", "c 1 r", "c 1:2 x", "c -1:2 r", "c 1:2 rwmr"):
        with pytest.raises(UsageError, match="is no rule for devices"):
            parse_device_rule(text)

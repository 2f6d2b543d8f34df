"""Devices of the host in a container."""

from __future__ import annotations

import pytest

from pyrt.errors import UsageError
from pyrt.runtime.devices import nodes_and_rules
from pyrt.runtime.host import Host
from pyrt.runtime.options import Device, DeviceRule

DENY_ALL = {"allow": False, "access": "rwm"}


V1, V2 = Host(), Host(device_rules=False, device_programs=True)


@pytest.mark.parametrize("host", [V1, V2])
def test_rules_are_for_those_whom_no_user_namespace_keeps_from_devices(host: Host) -> None:
    assert nodes_and_rules((), host, everything=False, mapped=False) == ([], [DENY_ALL])
    assert nodes_and_rules((), host, everything=False, mapped=True) == ([], [])


@pytest.mark.parametrize("host", [V1, V2])
def test_and_for_those_who_see_folders_of_the_host(host: Host) -> None:
    assert nodes_and_rules((), host, everything=False, mapped=True, binds=True) == ([], [DENY_ALL])


@pytest.mark.parametrize("host", [V1, V2])
def test_and_for_a_device_that_is_given_by_halves(host: Host) -> None:
    _, whole = nodes_and_rules([Device("/dev/zero", "/dev/zero")], host, everything=False, mapped=True)
    _, half = nodes_and_rules([Device("/dev/zero", "/dev/zero", "r")], host, everything=False, mapped=True)
    assert whole == []
    assert half == [DENY_ALL, {"allow": True, "access": "r", "type": "c", "major": 1, "minor": 5}]


def test_and_for_those_who_ask_for_more() -> None:
    _, rules = nodes_and_rules(
        (),
        V1,
        everything=False,
        mapped=False,
        asked=[DeviceRule("c", 189, None, "rw"), DeviceRule("a", None, None, "r")],
    )
    assert rules == [
        DENY_ALL,
        {"allow": True, "access": "rw", "type": "c", "major": 189},
        {"allow": True, "access": "r", "type": "a"},
    ]


def test_where_nothing_has_rules_there_are_none() -> None:
    assert nodes_and_rules((), Host(device_rules=False), everything=False, mapped=False) == ([], [])


def test_a_device_is_made_and_allowed() -> None:
    nodes, rules = nodes_and_rules([Device("/dev/zero", "/dev/nothing", "r")], Host(), everything=False, mapped=True)
    node = {"path": "/dev/nothing", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666, "uid": 0, "gid": 0}
    assert nodes == [node]
    assert rules == [DENY_ALL, {"allow": True, "access": "r", "type": "c", "major": 1, "minor": 5}]


def test_a_folder_gives_what_is_in_it() -> None:
    nodes, _ = nodes_and_rules([Device("/dev", "/dev/of/host")], Host(), everything=False, mapped=True)
    assert {"/dev/of/host/null", "/dev/of/host/zero"} <= {node["path"] for node in nodes}


def test_all_devices_but_the_containers_own() -> None:
    nodes, rules = nodes_and_rules((), Host(), everything=True, mapped=False)
    paths = {node["path"] for node in nodes}
    assert "/dev/null" in paths
    assert not paths & {"/dev/console", "/dev/tty", "/dev/ptmx"}
    assert not any(path.startswith("/dev/pts/") for path in paths)
    assert rules == [{"allow": True, "access": "rwm"}]


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (Device("/dev/none"), "No such file"),
        (Device("/etc/passwd", "/dev/x"), "is not a device"),
        (Device("/dev/zero", "/etc/x"), "not below /dev"),
        (Device("/dev/zero", "/dev/../etc/x"), "not below /dev"),
        (Device("/etc", "/dev/x"), "is not a device"),
    ],
)
def test_refused(device: Device, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        nodes_and_rules([device], Host(), everything=False, mapped=True)

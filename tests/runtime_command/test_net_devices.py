"""linux.netDevices: a device of the host becomes the container's, with its addresses."""

from __future__ import annotations

import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root


def ip(*words: str) -> str:
    """The host's ip(8)."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def device() -> Iterator[str]:
    """A device with lasting addresses of global scope, and one of the link's."""
    name = f"pyrt{uuid.uuid4().hex[:8]}"
    ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    for address in ("198.51.100.7/24", "2001:db8::7/64"):
        ip("address", "add", address, "dev", name)
    ip("address", "add", "169.254.3.3/16", "dev", name, "scope", "link")
    yield name
    # Where the container's network namespace has ended already, its device has taken the peer along.
    subprocess.run(["ip", "link", "del", f"{name}p"], check=False, capture_output=True)


def addresses(runtime: Runtime, bundle: Bundle, name: str, device: str) -> list[str]:
    """What the container's own ip(8) shows of it."""
    bundle.shell(f"ip addr show dev {device} | awk '/inet/ {{print $2}} NR == 1 {{print ($3 ~ /UP/)}}'")
    return runtime.ok("run", "--bundle", bundle.path, name).split()


LASTING = ["1", "198.51.100.7/24", "2001:db8::7/64"]


@pytest.mark.parametrize("inside", [None, "eth7", "lan%d"])
def test_a_device_moves_with_its_addresses(
    runtime: Runtime, bundle: Bundle, name: str, device: str, inside: str | None
) -> None:
    bundle.set("linux.netDevices", {device: {"name": inside} if inside else {}})
    seen = addresses(runtime, bundle, name, (inside or device).replace("%d", "0"))
    assert [line for line in seen if not line.startswith("fe80:")] == LASTING
    assert f" {device}@" not in ip("-o", "link", "show")


def test_it_moves_into_a_user_namespace(runtime: Runtime, bundle: Bundle, name: str, device: str) -> None:
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.config["linux"]["namespaces"].append({"type": "user"})
    bundle.config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    bundle.set("linux.netDevices", {device: {"name": "eth0"}})
    assert addresses(runtime, bundle, name, "eth0")[:2] == LASTING[:2]


def test_a_name_that_is_taken(runtime: Runtime, bundle: Bundle, name: str, device: str) -> None:
    bundle.set("linux.netDevices", {device: {"name": "lo"}})
    assert "has a device of that name" in runtime.fails("create", "--bundle", bundle.path, name)
    assert f" {device}@" in ip("-o", "link", "show")


@pytest.mark.parametrize(
    ("devices", "line"),
    [
        ({"no-such-link": {}}, "moving the network device no-such-link into the container as no-such-link: "),
        ({"a/b": {}}, "linux.netDevices.a/b: "),
        ({"eth0": {"name": "x" * 16}}, "linux.netDevices.eth0.name: "),
        ({"eth0": {"name": "a%s"}}, "linux.netDevices.eth0.name: "),
        ({"eth0": {"name": "x"}, "eth1": {"name": "x"}}, "linux.netDevices.eth1.name: another"),
    ],
)
def test_what_can_not_be_moved(runtime: Runtime, bundle: Bundle, name: str, devices: dict[str, Any], line: str) -> None:
    bundle.set("linux.netDevices", devices)
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith(line)


def test_the_hosts_network_has_them_already(runtime: Runtime, bundle: Bundle, name: str) -> None:
    namespaces = bundle.config["linux"]["namespaces"]
    bundle.set("linux.namespaces", [entry for entry in namespaces if entry["type"] != "network"])
    bundle.set("linux.netDevices", {"eth0": {}})
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith("linux.netDevices: needs")

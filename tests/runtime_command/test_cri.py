"""containerd's CRI plug-in, which a kubelet talks to, with `pyrt-runtime` for every pod and container."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime_command.cri import Kubelet, Message, decode
from tests.services import SHORT, Containerd, Unavailable, answer, containerd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

POD, CONTAINER, NODE = 0, 1, 2
# Of CONTAINER_CREATED, RUNNING, EXITED.
RUNNING, EXITED = 1, 2


@pytest.fixture(scope="module")
def server(program: Path, busybox_rootfs: Path) -> Iterator[Containerd]:
    """A containerd of its own with the image `localhost/bb:1`, which is also what holds a pod's namespaces."""
    with tempfile.TemporaryDirectory(prefix="cri-", dir=SHORT) as name:
        try:
            with containerd(Path(name), program, pause="localhost/bb:1") as server:
                archive = _archive(busybox_rootfs, Path(name))
                subprocess.run(["ctr", "-a", server.address, "-n", "k8s.io", "images", "import", archive], check=True)
                yield server
        except Unavailable as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def kubelet(server: Containerd) -> Iterator[Kubelet]:
    """A connection to it."""
    with Kubelet(server.address) as kubelet:
        # Connected before the first test looks what is open.
        assert _text(kubelet("Version", {})[2]) == "containerd"
        yield kubelet


def _archive(rootfs: Path, folder: Path) -> Path:
    """Busybox as an OCI archive; it sleeps unless it is told otherwise."""
    layout, bundle = folder / "layout", folder / "bundle"
    for words in (
        ("init", "--layout", layout),
        ("new", "--image", f"{layout}:bb"),
        ("unpack", "--image", f"{layout}:bb", bundle),
    ):
        subprocess.run(["umoci", *words], check=True)
    shutil.copytree(rootfs, bundle / "rootfs", symlinks=True, dirs_exist_ok=True)
    subprocess.run(["umoci", "repack", "--image", f"{layout}:bb", bundle], check=True)
    command = ("--config.entrypoint", "/bin/sleep", "--config.cmd", "1000", "--config.env", "PATH=/bin")
    subprocess.run(["umoci", "config", "--image", f"{layout}:bb", *command], check=True)
    archive = folder / "bb.tar"
    subprocess.run(["skopeo", "copy", f"oci:{layout}:bb", f"oci-archive:{archive}:localhost/bb:1"], check=True)
    return archive


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()


def test_a_pod_lives_with_a_container(kubelet: Kubelet, tmp_path: Path) -> None:
    # PodSandboxConfig: name, log directory, labels; in the network of its node.
    security: Message = {1: {1: NODE}}
    pod: Message = {
        1: {1: "pod", 2: "uid-1", 3: "default"},
        3: str(tmp_path),
        8: {1: "/pyrt", 2: security},
    }
    sandbox = _text(kubelet("RunPodSandbox", {1: pod})[1])
    try:
        script = "echo started; echo $WORD; exec sleep 1000"
        container: Message = {
            1: {1: "main"},
            2: {1: "localhost/bb:1"},
            3: ["/bin/sh", "-c", script],
            6: {1: "WORD", 2: "word"},
            11: "main.log",
            15: {1: {2: 50000, 1: 100000, 4: 32 << 20}, 2: {3: {1: NODE}}},
        }
        made = _text(kubelet("CreateContainer", {1: sandbox, 2: container, 3: pod})[1])
        kubelet("StartContainer", {1: made})
        seen = kubelet("ExecSync", {1: made, 2: ["/bin/sh", "-c", "echo $WORD; echo bad >&2; exit 3"], 3: 10})
        assert (_text(seen[1]), _text(seen[2]), seen[3]) == ("word\n", "bad\n", 3)
        limit = kubelet("ExecSync", {1: made, 2: ["/bin/sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes"]})
        assert _text(limit[1]) == f"{32 << 20}\n"
        assert _state(kubelet, made) == RUNNING
        lines = (tmp_path / "main.log").read_text().splitlines()
        assert [line.split(" ", 1)[1] for line in lines] == ["stdout F started", "stdout F word"]
        kubelet("StopContainer", {1: made, 2: 0})
        assert _state(kubelet, made) == EXITED
        kubelet("RemoveContainer", {1: made})
    finally:
        kubelet("StopPodSandbox", {1: sandbox})
        kubelet("RemovePodSandbox", {1: sandbox})


def test_a_pod_has_a_network_of_its_own(server: Containerd, kubelet: Kubelet, tmp_path: Path) -> None:
    """By CNI plug-ins: an address on the bridge of the node, and a port of the node that leads to it."""
    options: Message = {1: POD, 2: CONTAINER, 3: POD}
    pod: Message = {
        1: {1: "net", 2: "uid-2", 3: "default"},
        2: "own-name",
        3: str(tmp_path),
        5: {2: 80, 3: 8080},
        8: {1: "/pyrt", 2: {1: options}},
    }
    sandbox = _text(kubelet("RunPodSandbox", {1: pod})[1])
    try:
        # PodSandboxStatus.network.ip.
        status = decode(_bytes(kubelet("PodSandboxStatus", {1: sandbox})[1]))
        address = _text(decode(_bytes(status[5]))[1])
        container: Message = {
            1: {1: "server"},
            2: {1: "localhost/bb:1"},
            3: ["/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/echo", "served"],
            15: {2: {3: options}},
        }
        made = _text(kubelet("CreateContainer", {1: sandbox, 2: container, 3: pod})[1])
        kubelet("StartContainer", {1: made})
        script = "hostname; ip -o -4 address show dev eth0"
        seen = _text(kubelet("ExecSync", {1: made, 2: ["/bin/sh", "-c", script]})[1])
        assert seen.startswith("own-name\n")
        assert f"{address}/16" in seen
        for host, port in ((address, 80), ("127.0.0.1", 8080)):
            assert answer(["nsenter", "--target", f"{server.process}", "--net"], host, port) == "served\n", host
    finally:
        kubelet("StopPodSandbox", {1: sandbox})
        kubelet("RemovePodSandbox", {1: sandbox})


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


def _state(kubelet: Kubelet, container: str) -> int:
    status = kubelet("ContainerStatus", {1: container})[1]
    assert isinstance(status, bytes)
    state = decode(status).get(3, 0)
    assert isinstance(state, int)
    return state

"""Images that would steer whoever loads and runs them.

CVE-2026-53488 and kin: what other engines take for an instruction, or would like to, is in labels and variables; the
container is the same to the bit. CVE-2014-9357, moby 2026-41567: nothing is executed to bring an image in, least of
all a decompressor from it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.images.making import config_of, docker_archive, tar_of
from tests.security.making import file, layer
from tests.security.probing import judged

if TYPE_CHECKING:
    from pathlib import Path

    from pyrt.engine.engine import Engine
    from tests.security.conftest import MakeImage

pytestmark = pytest.mark.root

LABELS = {
    "RUN": "podman run --privileged IMAGE",
    "INSTALL": "rm -rf /",
    "io.containers.capabilities": "ALL",
    "io.podman.annotations.privileged": "TRUE",
    "io.podman.annotations.seccomp": "unconfined",
    "io.podman.annotations.label": "disable",
    "io.podman.annotations.userns": "host",
    "io.podman.annotations.init": "TRUE",
    "io.kubernetes.cri.untrusted-workload": "false",
    "io.kubernetes.cri-o.userns-mode": "host",
    "io.kubernetes.cri-o.Devices": "/dev/mem:/dev/mem:rwm",
    "io.kubernetes.cri-o.UnifiedCgroup": "memory.max=max",
    "io.kubernetes.cri-o.ShmSize": "1g",
    "com.docker.security.privileged": "true",
    "com.github.containers.toolbox": "true",
    "run.oci.seccomp.receiver": "/run/socket",
    "run.oci.keep_original_groups": "1",
    "run.oci.systemd.force_cgroup_v1": "/sys/fs/cgroup",
    "run.oci.mount_context_type": "context",
    "run.oci.hooks.stderr": "/canary",
    "org.systemd.property.DeviceAllow": "['char-*', 'rwm']",
    "org.criu.config": "/etc/passwd",
    "pyrt.privileged": "true",
    "pyrt.userns": "host",
    "dev.pyrt.mounts": "/:/host",
}
ENV = [
    "PATH=/bin",
    "PYRT_ROOT=/tmp",
    "PYRT_RUN=/tmp",
    "PYRT_INIT=/bin/sh",
    "LD_PRELOAD=/bin/evil.so",
    "LD_LIBRARY_PATH=/bin",
    "GCONV_PATH=/bin",
    "TMPDIR=/proc",
    "LISTEN_FDS=50",
    "LISTEN_PID=1",
    "NOTIFY_SOCKET=/run/systemd/notify",
    "_LIBCONTAINER_INITPIPE=3",
    "_LIBCONTAINER_LOGPIPE=4",
    "container=host",
    "NVIDIA_VISIBLE_DEVICES=all",
    "DOCKER_HOST=tcp://198.51.100.1:2375",
    "=nameless",
    "no value",
]


async def test_an_image_that_sets_all_of_them_is_like_any_other(engine: Engine, make_image: MakeImage) -> None:
    plain, loud = make_image(), make_image(Labels=LABELS, Env=ENV, StopSignal="SIGTERM", Shell=["/bin/evil"])
    assert await reports(engine, plain) == await reports(engine, loud)


async def reports(engine: Engine, image: Any) -> list[dict[str, Any]]:
    done = await engine.run(image, ["probe"], hostname="box")
    async with engine.open_container(image, ["sleep", "1000"], hostname="box") as container:
        joined = await container.exec(["probe"])
    return [judged(json.loads(one.stdout)) for one in (done, joined)]


async def test_a_variable_of_an_image_is_no_path_of_the_host(engine: Engine, make_image: MakeImage) -> None:
    """PATH is looked through inside, and nothing but the container's own working directory is meant by ``.``."""
    image = make_image(Env=["PATH=.:/proc/self/cwd:/proc/1/root/usr/bin:relative:/bin"], WorkingDir="/srv")
    done = await engine.run(image, ["sh", "-c", "echo $PATH"])
    assert done.stdout == b".:/proc/self/cwd:/proc/1/root/usr/bin:relative:/bin\n"


# ---- what brings an image in ------------------------------------------------------------------------------------

LOADING = """
import os, sys
from pyrt.images.archive import load
from pyrt.images.importing import import_rootfs
from pyrt.images.store import Store
store = Store.open(sys.argv[1])
for archive in sys.argv[2:]:
    name = os.path.basename(archive)
    if name.startswith("root"):
        import_rootfs(store, archive, name=name.replace(".", "-"))
    else:
        load(store, archive)
print(len(store.list()))
"""
UNPACKERS = "tar gzip gunzip zcat pigz unpigz igzip bzip2 xz unxz zstd unzstd docker-untar sh true".split()


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


def test_nothing_is_executed_to_bring_an_image_in(tmp_path: Path) -> None:
    """In any compression, of layers and of archives, with every unpacker's name taken in image and PATH."""
    traps = layer(
        *(file(f"{place}/{name}", b"#!/bin/sh\nexit 3\n") for place in ("bin", "usr/bin") for name in UNPACKERS)
    )
    plain = tar_of({"file": b"content"})
    archives = []
    for kind, pack in PACKINGS.items():
        image = docker_archive([([], config_of(traps, plain), [traps, plain])])
        packed = docker_archive([([f"x:{kind}"], config_of(traps), [pack(traps)])])
        archives.append(put(tmp_path / f"root.{kind}", pack(traps)))
        archives.append(put(tmp_path / f"image.{kind}", pack(image)))
        archives.append(put(tmp_path / f"packed.{kind}", packed))
    with tarfile.open(fileobj=io.BytesIO(traps)) as tar:
        tar.extractall(tmp_path, filter="data")
    log = tmp_path / "trace"
    words = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=execve,execveat", sys.executable, "-c", LOADING]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{tmp_path / 'usr/bin'}"}
    words += [str(tmp_path / "store"), *archives]
    done = subprocess.run(words, executable="/usr/bin/strace", env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    executed = [line for line in log.read_text().splitlines() if "= 0" in line]
    assert len(executed) == 1, executed


def put(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)

"""CVE-2026-53488 and kin: labels, annotations and variables of an image that steer whoever runs it.

What other engines take for an instruction, or would like to, is in the image; the container is the same to the bit.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.security.probing import judged

if TYPE_CHECKING:
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

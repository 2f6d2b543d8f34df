"""`checkpoint` and `restore` where criu is missing or does not come up. What they do where it does: tests/guest."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root


def test_without_criu_it_is_said_so(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path) -> None:
    bundle.runs("/bin/sleep", "1000")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    images = tmp_path / "images"
    for words in (("checkpoint", name), ("restore", "--bundle", bundle.path, "other")):
        line = runtime.fails("--criu", tmp_path / "criu", words[0], "--image-path", images, *words[1:])
        assert line.startswith(f"{words[0]}: criu is not installed: {tmp_path}/criu is not there ("), line
    assert runtime.state(name)["status"] == "running"
    assert not images.exists()
    runtime.ok("delete", "--force", name)


def test_criu_itself_says_why_it_can_not(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path) -> None:
    """Debian 12's does not know the vDSO of newer kernels. Either way the container runs on."""
    bundle.runs("/bin/sleep", "1000")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    check = subprocess.run(["criu", "check"], capture_output=True, text=True, check=False)
    images = tmp_path / "images"
    flags = ("checkpoint", "--image-path", images, "--leave-running", "--tcp-established", name)
    if check.returncode == 0:
        runtime.ok(*flags)
        assert (images / "inventory.img").exists()
    else:
        # "Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds"
        words = check.stderr.splitlines()[0].partition("): ")[2]
        assert runtime.fails(*flags) == f"checkpoint: criu: {words} ({images}/dump.log has the rest)"
        assert [path.name for path in images.iterdir()] == ["dump.log"]
    assert runtime.state(name)["status"] == "running"
    runtime.ok("delete", "--force", name)


def test_what_is_no_checkpoint_is_not_restored(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path) -> None:
    line = runtime.fails("restore", "--image-path", tmp_path / "none", "--bundle", bundle.path, name)
    assert line == f"reading {tmp_path}/none/descriptors.json: no such file or directory (is it a checkpoint?)"
    assert not (runtime.root / name).exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--lazy-pages"], "--lazy-pages: not supported"),
        (["--page-server", "127.0.0.1:1"], "--page-server: not supported"),
        (["--empty-ns", "pid"], "--empty-ns pid: only network can be left empty"),
        (["--manage-cgroups-mode", "ignore"], "--manage-cgroups-mode ignore: not supported (the container would "),
        (["--manage-cgroups-mode", "no"], "--manage-cgroups-mode no: soft, full or strict"),
        (["--parent-path", "/images"], "--parent-path /images: no folder, seen from "),
    ],
)
def test_a_flag_that_is_not_there_is_named(
    runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path, flags: list[str], line: str
) -> None:
    bundle.runs("/bin/sleep", "1000")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    assert runtime.fails("checkpoint", "--image-path", tmp_path / "images", *flags, name).startswith(line)
    runtime.ok("delete", "--force", name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("linux.namespaces[6]", {"type": "user"}),
        ("linux.memoryPolicy", {"mode": "MPOL_LOCAL"}),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 3}),
    ],
)
def test_what_would_be_lost_is_named(
    runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path, field: str, value: dict[str, object]
) -> None:
    """Rather than a container that has less when it is back."""
    bundle.runs("/bin/sleep", "1000")
    if value == {"type": "user"}:
        bundle.config["linux"]["namespaces"].append(value)
        for kind in ("uidMappings", "gidMappings"):
            bundle.set(f"linux.{kind}", [{"containerID": 0, "hostID": 0, "size": 65536}])
    else:
        bundle.set(field, value)
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    line = runtime.fails("checkpoint", "--image-path", tmp_path / "images", name)
    assert line == f"{field}: a container that has it can't be checkpointed"
    assert runtime.state(name)["status"] == "running"
    runtime.ok("delete", "--force", name)


def test_a_container_that_waits_or_has_ended_is_refused(runtime: Runtime, bundle: Bundle, name: str) -> None:
    runtime.ok("create", "--bundle", bundle.path, name)
    assert runtime.fails("checkpoint", name) == "cannot checkpoint a container that is created"
    assert runtime.fails("checkpoint", f"{name}-no") == f"container does not exist: {name}-no"
    runtime.ok("delete", "--force", name)


def test_an_engine_asks_whether_there_are_checkpoints(runtime: Runtime) -> None:
    """As podman does."""
    assert "checkpoint" in runtime.ok("checkpoint", "--help")

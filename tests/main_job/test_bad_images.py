"""An image that is nowhere, a registry in trouble, an archive that is none, a full disk: as the command tells it."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.cli.desk import Desk, eventually, interrupt
from tests.images.registry_fixtures import Reply, build, layer, ranged, serve_enemy, sha256  # noqa: F401
from tests.main_job.sentences import said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.foreign import Layout
    from tests.images.registry_fixtures import Enemy
    from tests.services import Registry

pytestmark = pytest.mark.root

AT_ONCE = {"Retry-After": "0"}


def nothing_is_left(pyrt: Desk) -> None:
    """No image, no container, no temporary file."""
    assert pyrt.ok("images", "-q") == ""
    assert pyrt.ok("ps", "-aq") == ""


def test_names_that_lead_nowhere(pyrt: Desk, registry: Registry, private_registry: Registry) -> None:
    here = registry.address
    said(pyrt.run("run", "--pull", "never", "nothing:1", "true"), 125, "no image 'nothing:1' here", "pyrt pull")
    said(pyrt.run("run", "--rm", f"{here}/busybox:none", "true"), 125, "does not have", ":none")
    said(pyrt.run("pull", f"{here}/nobody/nothing"), 125, "does not have", "nobody/nothing")
    said(pyrt.run("pull", "--platform", "linux/mips", f"{here}/platforms:index"), 125, "linux/arm64", "windows/amd64")
    said(pyrt.run("pull", "--platform", "", f"{here}/busybox"), 125, "is not a platform")
    said(pyrt.run("pull", f"{private_registry.address}/busybox"), 125, "without credentials", "docker login")
    said(pyrt.run("pull", "localhost:1/busybox"), 125, "connection refused", "is it running?")
    said(pyrt.run("pull", "BOX"), 125, "lowercase", "did you mean 'box'?")
    said(pyrt.run("pull", "box:"), 125, "its tag is empty")
    said(pyrt.run("run", "--rm", "box@sha256:123", "true"), 125, "its digest is malformed")
    nothing_is_left(pyrt)


def test_registries_in_trouble(pyrt: Desk, enemy: Enemy) -> None:
    for status, words in ((401, "credentials"), (403, "denies"), (418, "418"), (429, "too many"), (500, "in trouble")):
        enemy.on(f"/v2/s{status}/manifests/1", Reply(status, b"{}", AT_ONCE))
        said(pyrt.run("pull", f"{enemy.address}/s{status}:1"), 125, words)
        said(pyrt.run("run", "--rm", f"{enemy.address}/s{status}:1", "true"), 125, words)
    enemy.on("/v2/page/manifests/1", Reply(body=b"<html>", headers={"Content-Type": "text/html"}))
    said(pyrt.run("pull", f"{enemy.address}/page:1"), 125, "not JSON")
    nothing_is_left(pyrt)


def test_layers_that_are_not_what_was_promised(pyrt: Desk, enemy: Enemy) -> None:
    image = build(layer("file", b"x" * 100_000))
    [blob] = image.layers
    other = build(layer("file", b"y" * 100_000)).layers[0]
    changed = other[: len(blob)].ljust(len(blob), b"\0")
    for name, answer in {
        "noise": Reply(body=b"y" * len(blob)),
        "other": Reply(body=changed),
        "longer": Reply(body=blob + b"1"),
        "shorter": Reply(body=blob[:-1]),
    }.items():
        enemy.offer(name, "1", image)
        enemy.on(f"/v2/{name}/blobs/{sha256(blob)}", answer)
        said(pyrt.run("pull", f"{enemy.address}/{name}:1"), 125, sha256(blob))
    nothing_is_left(pyrt)


def test_a_registry_that_is_cut_in_mid_layer(pyrt: Desk, enemy: Enemy) -> None:
    """Once: it goes on. For ever: it is told, and the next attempt is whole."""
    image = build(layer("bin/x", Random(0).randbytes(200_000)))
    path = f"/v2/cut/blobs/{sha256(image.layers[0])}"
    enemy.offer("cut", "1", image)
    enemy.on(path, ranged(image.layers[0], cut=1000), ranged(image.layers[0]))
    assert "Downloaded newer image" in pyrt.ok("pull", f"{enemy.address}/cut:1")
    pyrt.ok("rmi", f"{enemy.address}/cut:1")
    enemy.on(path, ranged(image.layers[0], cut=1000))
    said(pyrt.run("pull", f"{enemy.address}/cut:1"), 125, "was cut", "try again")
    nothing_is_left(pyrt)
    enemy.on(path, ranged(image.layers[0]))
    pyrt.ok("pull", f"{enemy.address}/cut:1")
    pyrt.ok("rmi", f"{enemy.address}/cut:1")


def test_a_registry_that_falls_silent_can_be_left(pyrt: Desk, enemy: Enemy) -> None:
    image = build(layer("bin/x", b"x" * 100_000))
    enemy.offer("slow", "1", image)
    path = f"/v2/slow/blobs/{sha256(image.layers[0])}"
    enemy.on(path, ranged(image.layers[0], cut=100, hang=True))
    client = pyrt.popen("pull", f"{enemy.address}/slow:1", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: enemy.asked(path))
    interrupt(client)
    output, error = client.communicate(timeout=20)
    assert (output, error, client.returncode) == (b"", b"", -2)
    nothing_is_left(pyrt)
    # The beginning of the layer, if it had arrived, is kept: the next attempt goes on from there.
    enemy.on(path, ranged(image.layers[0]))
    pyrt.ok("pull", f"{enemy.address}/slow:1")
    pyrt.ok("rmi", f"{enemy.address}/slow:1")


def test_archives_that_are_none(pyrt: Desk, docker_saved: Path, windows_only: Layout) -> None:
    whole = docker_saved.read_bytes()
    contents = {
        "noise": b"noise " * 4000,
        "zeroes": bytes(10240),
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "no-image": layer("file", b"content"),
    }
    for name, content in contents.items():
        (pyrt.folder / name).write_bytes(content)
        said(pyrt.run("load", "-i", name), 125, name)
        said(pyrt.run("load", input=content), 125, "the archive")
    said(pyrt.run("load", "-i", "nowhere"), 125, "nowhere")
    said(pyrt.run("load", "-i", "."), 125, "neither manifest.json nor index.json")
    said(pyrt.run("load", "-i", str(windows_only.path)), 125, "windows/amd64 10.0.20348.2849")
    said(pyrt.run("import", "noise", "noise"), 125)
    nothing_is_left(pyrt)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A tmpfs of that size."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full_while_a_layer_is_extracted(
    pyrt: Desk, enemy: Enemy, busybox: Layout, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "6m"):
        pyrt.environment["PYRT_ROOT"] = str(tmp_path / "small/root")
        big = build(layer("big", bytes(16 << 20)))
        enemy.offer("big", "1", big)
        said(pyrt.run("pull", f"{enemy.address}/big:1"), 125, "no space left", "disk is full")
        (pyrt.folder / "big.tar").write_bytes(layer("big", bytes(16 << 20)))
        said(pyrt.run("import", "big.tar", "big"), 125, "no space left")
        nothing_is_left(pyrt)
        # What was written is gone, so what fits fits.
        pyrt.ok("load", "-i", str(busybox.path), "--name", "box")
        assert pyrt.ok("run", "--rm", "box", "echo", "fits") == "fits\n"
        pyrt.close()

"""`pyrt bench startup` and `pyrt inspect --timing --plot`, as somebody types them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pyrt.bench import results, startup
from tests.cli.desk import Desk, eventually, interrupt

if TYPE_CHECKING:
    from pathlib import Path

    from tests.leakcheck import State

pytestmark = pytest.mark.root


@pytest.fixture
def bare(pyrt: Desk, tmp_path: Path) -> Desk:
    """On a machine where nothing is installed but what it takes to hide a cgroup hierarchy."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "umount", "unshare"):
        (tools / name).symlink_to(shutil.which(name) or name)
    pyrt.environment = {**pyrt.environment, "PATH": str(tools)}
    return pyrt


def test_startup_is_measured_and_drawn_and_what_is_not_there_says_so(bare: Desk) -> None:
    output = bare.ok("bench", "startup", "--samples", "2", "--gap-samples", "1", "--guest-samples", "0", timeout=60)
    assert "pyrt run" in output
    found = results.read(bare.folder / "pyrt-bench/startup.json")
    rows = {row.case: row for row in found.run(startup.HOT).rows}
    assert len(rows[startup.LIBRARY].samples["ready"]) == len(rows[startup.COMMAND].samples["whole"]) == 2
    assert "not installed (Debian: podman)" in rows["podman"].failure
    assert "compiler" in rows["floor"].failure
    assert (bare.folder / "pyrt-bench/startup.svg").read_text().startswith("<?xml")


def test_an_interrupted_bench_ends_and_clears_up(bare: Desk, state: State) -> None:
    """Nothing is left of its containers, its own server and its folders."""
    client = bare.popen("bench", "startup", "--samples", "100000", "--out", "interrupted")
    eventually(lambda: [*state.temporary.glob("pyrt-bench-*/root/containers/*")])
    interrupt(client)
    client.wait(30)
    eventually(lambda: not [*state.temporary.iterdir()])
    assert not (bare.folder / "interrupted").exists()


def test_a_start_is_drawn(pyrt: Desk) -> None:
    pyrt.ok("run", "--name", "drawn", "host", "true")
    pyrt.ok("inspect", "--timing", "--plot", "start.png", "drawn")
    assert (pyrt.folder / "start.png").read_bytes().startswith(b"\x89PNG")
    refused = pyrt.run("inspect", "--timing", "--plot", "start.gif", "drawn")
    assert refused.returncode == 125
    assert b"start.gif is neither .svg nor .png" in refused.stderr
    assert b"--plot draws the --timing of one container" in pyrt.run("inspect", "--plot", "a.svg", "drawn").stderr

"""SIGKILL before every call into the kernel or SQLite: an image is whole or absent, and nothing is left for good."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyrt.images.store import Store
from tests.images.making import assert_sound, debris, digest_of, piped, tar_of

if TYPE_CHECKING:
    from pathlib import Path

HALFWAY = """
import sys
from pyrt._native import extract_layer
from pyrt.images.store import Store
with Store.open(sys.argv[1]) as store, store.ingest_layer(sys.argv[2], sys.argv[2]) as layer:
    layer.commit(extract_layer(0, layer.directory, blob=layer.blob, cancel=None))
"""


@pytest.mark.parametrize(("action", "least"), [("add_image", 100), ("tag", 20), ("remove", 30), ("prune", 25)])
def test_killed_anywhere(tmp_path: Path, action: str, least: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.images.crash_sweep", action, str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # The sweep has really gone through the action, and not stopped at the first call.
    assert int(done.stdout) >= least


def test_killed_while_a_layer_is_extracted(tmp_path: Path) -> None:
    plain = tar_of({f"file{number}": os.urandom(1 << 20) for number in range(6)})
    layer_id = digest_of(plain)
    command = [sys.executable, "-c", HALFWAY, str(tmp_path / "state"), layer_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as worker:
        assert worker.stdin
        # More than a pipe holds: when it is written, most of it has been taken.
        worker.stdin.write(plain[: 4 << 20])
        worker.kill()
    with Store.open(tmp_path / "state") as store:
        assert not store.has_layer(layer_id)
        with store.ingest_layer(layer_id, layer_id) as layer, piped(plain) as source:
            assert os.pread(layer.blob, layer.blob_size, 0) == plain[: layer.blob_size]
            assert os.listdir(layer.directory) == []
            from pyrt._native import extract_layer

            layer.commit(extract_layer(source, layer.directory, blob=layer.blob, cancel=None))
        assert store.has_layer(layer_id)
        assert_sound(store)
    assert debris(tmp_path / "state") == []

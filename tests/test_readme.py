"""What the README tells people to type works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.foreign import REPOSITORY
from tests.leakcheck import State

README = (REPOSITORY / "README.md").read_text()


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.root
def test_the_python_example_runs(tmp_path: Path) -> None:
    """On the image that is always there instead of one that would have to be pulled."""
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    output = run([sys.executable, "-c", example.replace("debian:12", "host")], tmp_path)
    assert "b'hello\\n' 0 exited" in output
    assert "from inside" in output


@pytest.mark.root
@pytest.mark.parametrize(("start", "output"), [("pyrt run host", "42"), ("mkdir -p box", "hello")])
def test_the_commands_run(start: str, output: str, tmp_path: Path, state: State) -> None:
    """Without a server, which would live on for a while."""
    [line] = [line.strip() for line in README.splitlines() if line.strip().startswith(start)]
    command = re.sub(r"\bpyrt (?=run|image)", f"{sys.executable} -m pyrt ", line.partition("    #")[0])
    assert run(["sh", "-c", command.replace(" run ", " run --rm ")], tmp_path).split()[-1] == output

"""The user's terminal is the user's: a container never holds it (TIOCSTI), and what an image says does not steer it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import client_program, pyrt  # noqa: F401  fixtures, by their names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.desk import Desk

pytestmark = pytest.mark.root

ESCAPE = "\x1b]0;owned\x07\x1b[2J\r\nhint: all is well\x9b31m"


def import_image(desk: Desk, base: bytes, folder: Path, name: str, *changes: str) -> None:
    archive = folder / "base.tar"
    archive.write_bytes(base)
    options = [word for change in changes for word in ("-c", change)]
    desk.ok("import", *options, "-c", "ENV PATH=/bin", str(archive), name)


@pytest.mark.parametrize("options", [[], ["-i"]], ids=str)
def test_a_container_is_not_handed_the_users_terminal(
    pyrt: Desk,  # noqa: F811
    base: bytes,
    tmp_path: Path,
    options: list[str],
) -> None:
    """With it on any descriptor, and seccomp or the right to it out of the way, a command could be typed."""
    import_image(pyrt, base, tmp_path, "box")
    script = "for n in 0 1 2; do readlink /proc/self/fd/$n; done; echo over"
    words = ["run", "--rm", "--privileged", "--userns", "host", *options, "box", "sh", "-c", script]
    with pyrt.terminal(*words) as terminal:
        terminal.expect("over")
        assert terminal.wait() == 0
        said = terminal.shown.decode()
    assert said.count("pipe:[") == 3
    assert "/dev/" not in said


def test_a_terminal_of_its_own_is_of_its_own_devpts(pyrt: Desk, base: bytes, tmp_path: Path) -> None:  # noqa: F811
    import_image(pyrt, base, tmp_path, "box")
    script = "readlink /proc/self/fd/0; stat -c %d /dev/pts; stat -L -c %d /proc/self/fd/0; echo over"
    with pyrt.terminal("run", "--rm", "-it", "box", "sh", "-c", script) as terminal:
        terminal.expect("over")
        assert terminal.wait() == 0
        name, pts, own, _ = terminal.shown.decode().split()
    assert name.startswith("/dev/")
    assert pts == own


def test_what_an_image_says_moves_no_cursor(pyrt: Desk, base: bytes, tmp_path: Path) -> None:  # noqa: F811
    """CVE-2021-25743 and its kin: escapes in a command, a label or an error repaint what the user reads."""
    quoted = ESCAPE.encode("unicode_escape").decode().replace("\\x9b", "\\u009b").replace("\\x", "\\u00")
    changes = (f'ENTRYPOINT ["/{quoted}"]', "LABEL plain=text")
    import_image(pyrt, base, tmp_path, "loud", *changes)
    done = pyrt.run("run", "--name", "x", "loud")
    assert done.returncode == 127
    said = [
        ["ps", "-a"],
        ["ps", "-a", "--no-trunc"],
        ["ps", "-a", "--format", "table {{.Command}}\t{{.Names}}"],
        ["explain", "loud"],
        ["events", "--since", "0", "--until", "0s"],
    ]
    shown = [done.stderr, *(pyrt.run(*words).stdout for words in said)]
    for text in shown:
        assert text
        assert not {byte for byte in text if byte < 0x20} - {0x0A}, text
        assert b"\xc2\x9b" not in text
    # The container is listed, in one line.
    assert len(shown[1].splitlines()) == 2

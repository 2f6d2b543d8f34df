"""What a command finds that config.json does not name and engines leave to the runtime: HOME, and the null device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root


def entries(path: Path) -> None:
    path.write_text("root:x:0:0::/root:/bin/sh\nother:x:7:7::/other:/bin/sh\nseven:x:7:7::/seven:/bin/sh\n")


def nobody(path: Path) -> None:
    path.write_text("# none\nroot:x:0\n:::::/x\nfar:x:4294967296:0::/far:\n")


def unusable(path: Path) -> None:
    path.write_text("other:x:7:7::relative:/bin/sh\n" + "x" * 10000 + ":x:7:7::/long:\n")


def endless(path: Path) -> None:
    """Longer than anybody reads (security: an image's passwd is bounded)."""
    path.write_bytes(b"\0" * (2 << 20) + b"\nother:x:7:7::/other:\n")


@pytest.mark.parametrize(
    ("make", "home"), [(entries, "/other"), (nobody, "/"), (unusable, "/"), (endless, "/"), (os.mkfifo, "/")]
)
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_home_is_the_users(
    runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path, make: Callable[[Path], None], home: str, verb: str
) -> None:
    """As it is mounted, whatever the root file system has."""
    make(tmp_path / "passwd")
    bundle.config["mounts"] += [
        {"destination": "/etc/passwd", "source": str(tmp_path / "passwd"), "options": ["bind", "ro"]}
    ]
    bundle.config["process"]["env"] = ["PATH=/bin"]
    if verb == "run":
        bundle.config["process"]["user"] = {"uid": 7, "gid": 7}
        bundle.shell("echo $HOME")
        assert runtime.ok("run", "--bundle", bundle.path, name) == f"{home}\n"
        return
    bundle.runs("/bin/sleep", "1000")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    assert runtime.ok("exec", "--user", "7:7", name, "/bin/sh", "-c", "echo $HOME") == f"{home}\n"
    runtime.ok("delete", "--force", name)


def test_a_home_that_is_given_stays(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.config["process"]["env"] = ["PATH=/bin", "HOME=/given"]
    bundle.shell("echo $HOME; grep -ac HOME /proc/self/environ")
    assert runtime.ok("run", "--bundle", bundle.path, name) == "/given\n1\n"


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_null_device_is_the_containers_own(runtime: Runtime, bundle: Bundle, name: str, verb: str) -> None:
    """Standard input is one here: what is on the mount of /dev inside has a path there."""
    script = "readlink /proc/self/fd/0; test $(stat -Lc %d /proc/self/fd/0) = $(stat -c %d /dev) && echo own"
    bundle.config["process"]["args"] = ["/bin/sh", "-c", script] if verb == "run" else ["/bin/sleep", "1000"]
    bundle.write()
    if verb == "run":
        assert runtime.ok("run", "--bundle", bundle.path, name) == "/dev/null\nown\n"
        return
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    assert runtime.ok("exec", name, "/bin/sh", "-c", script) == "/dev/null\nown\n"
    runtime.ok("delete", "--force", name)


def test_what_lies_there_instead_is_not_opened(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path) -> None:
    """A bind at its place is a fifo."""
    os.mkfifo(tmp_path / "null")
    bundle.config["mounts"] += [{"destination": "/dev/null", "source": str(tmp_path / "null"), "options": ["bind"]}]
    bundle.shell("test -p /dev/null && ! test -p /proc/self/fd/0 && echo on")
    assert runtime.ok("run", "--bundle", bundle.path, name) == "on\n"


def test_binds_lie_over_what_every_dev_has(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path) -> None:
    """Such as /dev/urandom over /dev/random."""
    (tmp_path / "file").write_text("word\n")
    bundle.config["mounts"] += [
        {"destination": "/dev/random", "source": "/dev/urandom", "options": ["bind"]},
        {"destination": "/dev/stdin", "source": str(tmp_path / "file"), "options": ["bind"]},
    ]
    bundle.shell("stat -Lc %t:%T /dev/random; cat /dev/stdin")
    assert runtime.ok("run", "--bundle", bundle.path, name) == "1:9\nword\n"


def test_a_node_can_be_opened_where_rules_hold(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Whoever installs a system in a folder makes a null device in it, and writes to it."""
    sets = ("bounding", "effective", "permitted")
    bundle.config["process"]["capabilities"] = {kind: ["CAP_MKNOD"] for kind in sets}
    bundle.config["mounts"] += [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]
    script = (
        "for at in /home /tmp; do rm -f $at/node; mknod $at/node c 1 3 && echo x > $at/node && echo $at; done; "
        "mknod /tmp/memory c 1 1; cat /tmp/memory 2>/dev/null || echo refused; rm -f /home/node"
    )
    bundle.config["root"]["readonly"] = False
    bundle.set("linux.resources", {"devices": [{"allow": False, "access": "rwm"}]})
    bundle.shell(script)
    assert runtime.ok("run", "--bundle", bundle.path, name).split() == ["/home", "/tmp", "refused"]
    # Without rules only what was mounted for it has devices.
    bundle.set("linux.resources", {})
    bundle.shell(script.replace("mknod /tmp/memory", "false") + "; true")
    assert "/home" not in runtime.call("run", "--bundle", bundle.path, name).output.split()

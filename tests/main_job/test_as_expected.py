"""What people are used to from Docker, where an image or a machine is a little unusual."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.desk import Desk
from tests.images.registry_fixtures import build, layer, serve_enemy  # noqa: F401

if TYPE_CHECKING:
    from tests.images.registry_fixtures import Enemy

pytestmark = pytest.mark.root


def test_user_path_and_working_directory_of_an_image(pyrt: Desk, tree: Path) -> None:
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:33:44::/srv/web:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nweb:x:44:\nextra:x:55:web\n")
    (tree / "opt/bin").mkdir(parents=True)
    (tree / "opt/bin/hello").write_text("#!/bin/sh\necho hello from $0\n")
    (tree / "opt/bin/hello").chmod(0o755)
    changes = ("USER web", "ENV PATH=/opt/bin:/bin", "WORKDIR /srv/made/here", 'CMD ["hello"]')
    pyrt.ok("import", *(word for change in changes for word in ("-c", change)), str(tree), "app")
    assert pyrt.ok("run", "--rm", "app") == "hello from /opt/bin/hello\n"
    script = "id -u; id -g; id -G; pwd; echo $HOME"
    assert pyrt.ok("run", "--rm", "app", "sh", "-c", script) == "33\n44\n44 55\n/srv/made/here\n/srv/web\n"
    for user, ids in (("0", "0\n0\n"), ("33:55", "33\n55\n"), ("web:extra", "33\n55\n"), ("1234", "1234\n0\n")):
        assert pyrt.ok("run", "--rm", "-u", user, "app", "sh", "-c", "id -u; id -g") == ids
    # PATH is the container's, as the caller sets it.
    assert pyrt.run("run", "--rm", "-e", "PATH=/bin", "app", "hello").returncode == 127
    assert pyrt.ok("run", "--rm", "-w", "/srv/new/place", "app", "sh", "-c", "pwd") == "/srv/new/place\n"


def test_an_image_without_a_command_is_explained(pyrt: Desk, tree: Path) -> None:
    pyrt.ok("import", str(tree), "bare")
    last = pyrt.ok("explain", "bare").splitlines()[-1]
    assert "executing COMMAND" in last
    assert "the image names none" in last
    assert pyrt.ok("explain", "bare", "ls", "/").rstrip().endswith("executing ls /")
    steps = [json.loads(line) for line in pyrt.ok("explain", "--json", "bare").splitlines()]
    assert steps[-1]["name"] == "Exec"


def test_explained_without_capabilities(box: Desk) -> None:
    text = box.ok("explain", "--cap-drop", "ALL", "box")
    assert "giving up all capabilities for ever" in text
    assert "none" not in text


def test_ps_and_inspect_call_an_image_as_it_was_asked_for(box: Desk) -> None:
    box.ok("tag", "box", "other:2")
    for name in ("box", "box:latest", "other:2", "docker.io/library/box"):
        box.ok("run", "--name", "C", name, "true")
        assert box.ok("ps", "-a", "--format", "{{.Image}}") == f"{name}\n"
        assert box.ok("inspect", "-f", "{{.Config.Image}}", "C") == f"{name}\n"
        for ancestor in (name, "box:latest" if "box" in name else "other:2"):
            assert box.ok("ps", "-a", "-f", f"ancestor={ancestor}", "--format", "{{.Names}}") == "C\n"
        box.ok("rm", "C")


def test_short_names_mean_what_registries_conf_says(pyrt: Desk, enemy: Enemy) -> None:
    """Pulled once by a search registry or an alias, they are found here and not asked for again."""
    rules = Path(pyrt.environment["CONTAINERS_REGISTRIES_CONF"])
    rules.write_text(
        f'unqualified-search-registries = ["{enemy.address}"]\n[aliases]\n"nick" = "{enemy.address}/some/app"\n'
    )
    image = build(layer("bin/x", b"x"))
    enemy.offer("app", "1", image)
    enemy.offer("some/app", "1", image)
    for name, meant in (("app:1", f"{enemy.address}/app:1"), ("nick:1", f"{enemy.address}/some/app:1")):
        assert pyrt.ok("pull", name).splitlines()[1:] == [f"Status: Downloaded newer image for {meant}", meant]
        asked = len(enemy.seen)
        done = pyrt.run("run", "--rm", name, "/bin/x")
        assert done.returncode == 126
        assert b"Unable to find image" not in done.stderr
        assert json.loads(pyrt.ok("inspect", name))[0]["RepoTags"] == [meant]
        assert len(pyrt.ok("explain", name, "x").splitlines()) > 10
        pyrt.ok("save", "-o", "saved.tar", name)
        pyrt.ok("tag", name, "mine")
        assert "Untagged" in pyrt.ok("rmi", name)
        assert len(enemy.seen) == asked
        # Names that are given here are found whatever the rules say.
        assert pyrt.run("run", "--rm", "--pull", "never", "mine", "/bin/x").returncode == 126
        pyrt.ok("rmi", "mine")


def test_ipc_of_the_host_needs_no_mqueue_of_the_host(box: Desk) -> None:
    """A machine may have none at /dev/mqueue: the container's shows the same queues all the same."""
    listed = box.ok(
        "run", "--rm", "--ipc", "host", "box", "sh", "-c", "ls -d /dev/mqueue /dev/shm; readlink /proc/1/ns/ipc"
    )
    assert listed == f"/dev/mqueue\n/dev/shm\n{os.readlink('/proc/self/ns/ipc')}\n"


@pytest.mark.parametrize("target", ["../run/systemd/resolve/stub-resolv.conf", "/nowhere/at/all", "resolv.conf"])
def test_a_link_at_resolv_conf_that_leads_nowhere(pyrt: Desk, tree: Path, target: str) -> None:
    (tree / "etc/resolv.conf").symlink_to(target)
    pyrt.ok("import", str(tree), "dangling")
    for options in ((), ("--read-only",), ("--read-only", "--tmpfs", "/run")):
        text = pyrt.ok("run", "--rm", *options, "--dns", "10.0.0.1", "dangling", "cat", "/etc/resolv.conf")
        assert text == "nameserver 10.0.0.1\n"
    assert not Path("/nowhere").exists()

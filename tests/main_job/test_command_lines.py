"""Every command line that the README and the issue of the main job promise, as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import services
from tests.cli.desk import Desk, eventually
from tests.foreign import tool

if TYPE_CHECKING:
    from tests.foreign import Layout
    from tests.services import Registry

pytestmark = pytest.mark.root

LONG = 60.0
"""Seconds for what brings in an image of 200 MB on a machine under load."""


def test_this_machine_s_own_files_need_no_download(pyrt: Desk) -> None:
    assert pyrt.ok("run", "host", "--", "python3", "-c", "print(6*7)") == "42\n"


def test_bash_of_a_pulled_debian_on_a_terminal(pyrt: Desk, registry: Registry) -> None:
    """Size, keys, job control and exit status are the terminal's and bash's own; afterwards all is as it was."""
    name = f"{registry.address}/debian:12"
    assert name in pyrt.ok("pull", name, timeout=LONG)
    options = ("-e", "PS1=prompt>", "-e", "TERM=dumb")
    # A job that is in the foreground when it says so: between two commands the keys would be the shell's.
    job = "sh -c 'echo be\"\"gun; exec sleep 1000'"
    with pyrt.terminal("run", "-it", *options, name, "bash", "--norc", rows=31, columns=99) as terminal:
        terminal.expect("prompt>")
        assert terminal.is_raw()
        terminal.type("stty size; cat /etc/debian_version\r")
        terminal.expect("31 99")
        terminal.expect("12.")
        terminal.resize(40, 132)
        terminal.type("stty size\r")
        terminal.expect("40 132")
        terminal.type(f"{job}\r")
        terminal.expect("begun")
        terminal.type("\x03")
        terminal.expect("prompt>")
        terminal.type("echo code=$?\r")
        terminal.expect("code=130")
        terminal.type(f"{job}\r")
        terminal.expect("begun")
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.expect("prompt>")
        # Not `exit`, which bash refuses once because of the stopped job.
        terminal.type("exec sh -c 'exit 7'\r")
        assert terminal.wait() == 7
        assert terminal.mode() == terminal.usual_mode


def test_what_docker_saves_is_loaded_from_a_pipe(pyrt: Desk, docker_saved: Path) -> None:
    with docker_saved.open("rb") as archive:
        assert pyrt.ok("load", stdin=archive) == "Loaded image: example/saved:1\n"
    assert pyrt.ok("run", "--rm", "example/saved:1") == "built by docker\n"
    who = pyrt.ok("run", "--rm", "example/saved:1", "sh", "-c", "id -un; pwd; echo $GREETING")
    assert who == "alice\n/home/alice\nhello world\n"


def test_docker_save_and_skopeo_from_a_daemon(pyrt: Desk, docker_saved: Path) -> None:
    try:
        with services.docker_daemon() as docker:
            docker("load", "--input", docker_saved)
            folder = Path(docker("info", "--format", "{{.DockerRootDir}}").strip()).parent
            host = f"unix://{folder / 'socket'}"
            save = ["docker", "--host", host, "save", "example/saved:1"]
            with subprocess.Popen(save, stdout=subprocess.PIPE) as saving:
                assert pyrt.ok("load", stdin=saving.stdout) == "Loaded image: example/saved:1\n"
            assert saving.returncode == 0
            source = ("--src-daemon-host", host, "docker-daemon:example/saved:1")
            tool("skopeo", "copy", *source, f"oci:{pyrt.folder / 'dir'}")
    except services.Unavailable as reason:
        pytest.skip(str(reason))
    assert pyrt.ok("load", "-i", "dir") == "Loaded image: localhost/dir:latest\n"
    assert pyrt.ok("run", "--rm", "localhost/dir") == "built by docker\n"


def test_images_of_every_tool_side_by_side(
    pyrt: Desk, registry: Registry, busybox: Layout, buildah_image: Layout
) -> None:
    tool("skopeo", "copy", "--src-tls-verify=false", f"docker://{registry.address}/busybox", f"oci:{pyrt.folder}/dir")
    assert pyrt.ok("load", "-i", "dir").startswith("Loaded image")
    assert "umoci:1" in pyrt.ok("load", "-i", str(busybox.path), "--name", "umoci:1")
    assert pyrt.ok("load", "-i", str(buildah_image.path), "--name", "buildah:1").endswith("buildah:1\n")
    listed = {tuple(line.split()[:2]) for line in pyrt.ok("images").splitlines()[1:]}
    assert listed >= {("umoci", "1"), ("buildah", "1")}
    assert pyrt.ok("run", "--rm", "umoci:1", "echo", "hello") == "hello\n"
    assert pyrt.ok("run", "--rm", "buildah:1") == "yes\n"


def test_the_long_line_and_each_of_its_limits(box: Desk) -> None:
    """Seen from inside where that is possible, else in the container's cgroups, which this process may read."""
    (box.folder / "f").write_text("B=file\n# a remark\nC=with spaces\n")
    line = (
        "run --name long -m 64m --pids-limit 32 --cpus .5 --read-only --tmpfs /tmp -u 1000:1000 -w /srv "
        "-e A=1 --env-file f --hostname box --entrypoint sh box -c"
    )
    script = (
        "id -u; id -g; pwd; hostname; echo $A $B $C; touch /srv/x 2>&1; touch /tmp/x && echo tmp; "
        "(i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done) 2>/dev/null; exec sleep 1000"
    )
    client = box.popen(*shlex.split(line), script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout
    shown = [client.stdout.readline().decode().strip() for _ in range(7)]
    assert shown == ["1000", "1000", "/srv", "box", "1 file with spaces", shown[5], "tmp"]
    assert "Read-only file system" in shown[5]
    identifier = box.ok("ps", "--no-trunc", "-q").strip()
    wanted = {
        "memory/memory.limit_in_bytes": str(64 << 20),
        "memory/memory.memsw.limit_in_bytes": str(128 << 20),
        "pids/pids.max": "32",
        "cpu/cpu.cfs_quota_us": "50000",
        "cpu/cpu.cfs_period_us": "100000",
    }
    # A machine with version 2 alone names them otherwise.
    wanted_v2 = {"memory.max": str(64 << 20), "pids.max": "32", "cpu.max": "50000 100000"}
    if Path("/sys/fs/cgroup/memory").is_dir():
        found = {file: _limit(file, identifier) for file in wanted}
        assert found == wanted
        refused = "pids/pids.events"
    else:
        assert {file: _limit(file, identifier) for file in wanted_v2} == wanted_v2
        refused = "pids.events"
    eventually(lambda: int(_limit(refused, identifier).split()[-1]) > 0)
    assert box.ok("kill", "long") == "long\n"
    assert client.wait(20) == 137
    client.stdout.close()


def _limit(file: str, identifier: str) -> str:
    hierarchy, _, name = file.rpartition("/")
    return Path("/sys/fs/cgroup", hierarchy, "pyrt", identifier, name).read_text().strip()


def test_memory_and_time_limits_end_a_container_and_say_so(box: Desk) -> None:
    eater = "x=a; while :; do x=$x$x; done"
    done = box.run("run", "--rm", "-m", "16m", "--memory-swap", "16m", "box", "sh", "-c", eater)
    assert done.returncode == 137
    assert b"out of memory" in done.stderr
    done = box.run("run", "--rm", "--timeout", "100ms", "box", "sleep", "1000")
    assert done.returncode == 137
    assert b"time limit of 100ms" in done.stderr


def test_a_container_is_explained_timed_and_told(box: Desk) -> None:
    explained = box.ok("explain", "box")
    assert re.search(r"^ +1 +creating the cgroup", explained, re.MULTILINE)
    assert explained.rstrip().endswith("executing sh")
    box.ok("run", "--name", "C", "box", "true")
    assert re.search(r"in all", box.ok("inspect", "--timing", "C"))
    follower = box.popen("events", "--since", "0", "--json", stdout=subprocess.PIPE)
    assert follower.stdout
    told = [json.loads(follower.stdout.readline()) for _ in range(4)]
    kinds = ["image loaded", "container created", "container started", "container exited"]
    assert [event["kind"] for event in told] == kinds
    assert [event["seq"] for event in told] == [1, 2, 3, 4]
    follower.terminate()
    follower.wait(20)
    follower.stdout.close()


def test_completion_for_each_shell(pyrt: Desk) -> None:
    for shell, mark in (("bash", "complete -"), ("zsh", "#compdef pyrt"), ("fish", "complete -c pyrt")):
        assert mark in pyrt.ok("completion", shell)
    (pyrt.folder / "pyrt.bash").write_text(pyrt.ok("completion", "bash"))
    with pyrt.shell() as terminal:
        terminal.type("source ./pyrt.bash\n")
        terminal.expect("bash>")
        terminal.type("pyrt vers\t")
        terminal.expect("pyrt version")
        terminal.type("\n")
        terminal.expect("bash>")

"""The verbs on real containers and real images, as somebody types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.desk import Desk, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.foreign import Layout
    from tests.services import Registry

pytestmark = pytest.mark.root


@pytest.fixture
def loaded(pyrt: Desk, busybox: Layout) -> Desk:
    """With an image called box."""
    assert "box" in pyrt.ok("load", "-i", str(busybox.path), "--name", "box")
    return pyrt


@pytest.fixture
def running(loaded: Desk) -> Iterator[Desk]:
    """With a container called web that runs."""
    client = loaded.popen("run", "--rm", "--name", "web", "box", "sleep", "1000")
    eventually(lambda: loaded.ok("ps", "-q"))
    yield loaded
    loaded.run("kill", "web")
    client.wait(20)


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# ---- run ----


def test_the_first_command_of_the_readme(pyrt: Desk) -> None:
    assert pyrt.ok("run", "--rm", "host", "--", "python3", "-c", "print(6*7)") == "42\n"


def test_options_of_run_reach_the_container(loaded: Desk) -> None:
    (loaded.folder / "vars").write_text("B=file\n")
    script = "id -u; id -g; pwd; hostname; echo $A $B; touch /x 2>/dev/null || echo read-only; touch /tmp/y && echo tmp"
    options = "--rm --read-only --tmpfs /tmp -u 1000:1001 -w /srv -e A=1 --env-file vars --hostname box -m 64m"
    text = loaded.ok(
        "run", *options.split(), "--pids-limit", "32", "--cpus", ".5", "--entrypoint", "sh", "box", "-c", script
    )
    assert text.split() == ["1000", "1001", "/srv", "box", "1", "file", "read-only", "tmp"]


def test_a_folder_of_the_caller_by_a_relative_path(loaded: Desk) -> None:
    (loaded.folder / "data").mkdir()
    (loaded.folder / "data" / "in").write_text("here")
    assert (
        loaded.ok("run", "--rm", "-v", "./data:/data", "box", "sh", "-c", "cat /data/in; echo out >/data/out") == "here"
    )
    assert (loaded.folder / "data" / "out").read_text() == "out\n"
    done = loaded.run("run", "--rm", "-v", "./data:/data:ro", "box", "touch", "/data/no")
    assert done.returncode == 1


def test_exit_statuses_are_those_of_docker(loaded: Desk) -> None:
    def status(*words: str) -> int:
        return loaded.run("run", "--rm", "box", *words).returncode

    assert status("true") == 0
    assert status("sh", "-c", "exit 41") == 41
    assert status("sh", "-c", "kill -9 $$; sleep 1") in {0, 137}  # PID 1 of a container can't kill itself.
    assert status("no-such-command") == 127
    assert status("/etc/passwd") == 126
    assert status("/etc") == 126
    assert loaded.run("run", "--no-such-option", "box").returncode == 125


def test_an_image_that_is_nowhere(pyrt: Desk) -> None:
    done = pyrt.run("run", "--pull", "never", "nothing:1", "true")
    assert done.returncode == 125
    assert done.stderr.startswith(b"pyrt: ")
    assert done.stderr.count(b"\n") == 2


def test_out_of_memory_and_time_are_told(loaded: Desk) -> None:
    done = loaded.run("run", "--rm", "-m", "16m", "box", "sh", "-c", "x=$(cat /dev/zero | tr '\\0' x)")
    assert done.returncode in {1, 137}
    done = loaded.run("run", "--rm", "--timeout", "200ms", "box", "sleep", "100")
    assert done.returncode == 137
    assert b"time limit of 200ms" in done.stderr


def test_a_killed_client_leaves_nothing(loaded: Desk) -> None:
    client = loaded.popen("run", "--rm", "box", "sh", "-c", "echo up; sleep 1000", stdout=subprocess.PIPE)
    assert client.stdout
    assert client.stdout.readline() == b"up\n"
    client.kill()
    client.wait()
    client.stdout.close()
    eventually(lambda: not loaded.ok("ps", "-aq"))


def test_a_name_is_free_when_its_container_was_to_go(loaded: Desk) -> None:
    for _ in range(3):
        loaded.ok("run", "--rm", "--name", "again", "box", "true")


def test_the_id_is_written_once(loaded: Desk) -> None:
    loaded.ok("run", "--cidfile", "id", "box", "true")
    assert loaded.ok("ps", "-aq", "--no-trunc").strip() == (loaded.folder / "id").read_text()
    done = loaded.run("run", "--cidfile", "id", "box", "true")
    assert done.returncode == 125
    assert b"is there already" in done.stderr


def test_a_shell_on_a_terminal(loaded: Desk) -> None:
    with loaded.terminal("run", "-it", "--rm", "-e", "PS1=prompt>", "box", "sh", rows=31, columns=99) as terminal:
        terminal.expect("prompt>")
        terminal.type("stty size\r")
        terminal.expect("31 99")
        terminal.resize(40, 132)
        terminal.type("stty size\r")
        terminal.expect("40 132")
        terminal.type("exit 3\r")
        assert terminal.wait() == 3
        assert terminal.mode() == terminal.usual_mode


# ---- containers ----


def test_exec_in_what_runs(running: Desk) -> None:
    assert running.ok("exec", "-e", "A=1", "-w", "/tmp", "web", "sh", "-c", "echo $A; pwd; id -u") == "1\n/tmp\n0\n"
    assert running.run("exec", "-i", "web", "cat", input=b"piped").stdout == b"piped"
    assert running.run("exec", "web", "sh", "-c", "exit 5").returncode == 5
    assert running.run("exec", "web", "nothing").returncode == 127
    assert running.run("exec", "nobody", "true").returncode == 125
    with running.terminal("exec", "-it", "web", "sh", "-c", "tty; read line; echo got $line") as terminal:
        terminal.expect("/dev/pts/")
        terminal.type("keys\r")
        terminal.expect("got keys")
        assert terminal.wait() == 0


def test_ps_shows_what_runs_and_with_a_what_has_ended(running: Desk) -> None:
    running.run("run", "--name", "old", "-l", "kind=test", "box", "sh", "-c", "exit 3")
    heads, web = running.ok("ps").splitlines()
    assert heads.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert web.endswith("web")
    assert '"sleep 1000"' in web
    assert " Up " in web
    assert running.ok("ps", "-a", "--format", "{{.Names}}|{{.State}}") == "old|exited\nweb|running\n"
    assert running.ok("ps", "-f", "exited=3", "--format", "{{.Names}}") == "old\n"
    assert running.ok("ps", "-a", "-f", "label=kind=test", "--format", "{{.Names}}") == "old\n"
    assert "Exited (3)" in running.ok("ps", "-l", "--format", "{{.Status}}")
    assert {json.loads(line)["Names"] for line in running.ok("ps", "-a", "--json").splitlines()} == {"web", "old"}
    done = running.run("ps", "-f", "nmae=x")
    assert b"did you mean name?" in done.stderr


def test_inspect_and_its_templates(loaded: Desk) -> None:
    loaded.run("run", "--name", "old", "box", "sh", "-c", "exit 3")
    assert loaded.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.Name}}", "old") == "exited 3 /old\n"
    (document,) = json.loads(loaded.ok("inspect", "old"))
    assert document["State"]["Verdict"] == "exited"
    assert document["Config"]["Cmd"] == ["sh", "-c", "exit 3"]
    (image,) = json.loads(loaded.ok("inspect", "box"))
    assert image["RepoTags"] == ["box:latest"]
    done = loaded.run("inspect", "old", "nothing")
    assert done.returncode == 125
    assert b"neither a container nor an image is called nothing" in done.stderr
    assert json.loads(done.stdout)
    done = loaded.run("inspect", "-f", "{{.Stat}}", "old")
    assert b"did you mean State?" in done.stderr


def test_timing_and_explain_tell_the_same_steps(loaded: Desk) -> None:
    loaded.ok("run", "--name", "timed", "box", "true")
    marks = json.loads(loaded.ok("inspect", "--timing", "--json", "timed"))
    steps = [json.loads(line) for line in loaded.ok("explain", "--json", "box", "true").splitlines()]
    assert [mark["at"] for mark in marks] == sorted(mark["at"] for mark in marks)
    assert {step["name"] for step in steps} >= {mark["step"] for mark in marks if mark["part"] != "engine"} - {
        "take the plan"
    }
    assert "in all" in loaded.ok("inspect", "--timing", "timed")
    assert "new namespaces" in loaded.ok("explain", "box")


def test_kill_stop_and_rm(running: Desk) -> None:
    done = running.run("rm", "web")
    assert done.returncode == 125
    assert b"stop it first" in done.stderr
    assert running.ok("stop", "-t", "0", "web") == "web\n"
    assert running.run("kill", "web").returncode == 125
    running.ok("run", "--name", "old", "box", "true")
    done = running.run("rm", "old", "nobody")
    assert (done.stdout, done.returncode) == (b"old\n", 125)
    assert running.ok("rm", "-f", "nobody") == ""


def test_events_are_told_once_and_in_order(loaded: Desk) -> None:
    loaded.ok("run", "--name", "told", "box", "true")
    text = loaded.ok("events", "--since", "0", "--until", "0s", "--json", "-f", "container=told")
    events = [json.loads(line) for line in text.splitlines()]
    assert [event["kind"] for event in events] == ["container created", "container started", "container exited"]
    last = events[-1]["seq"]
    follower = loaded.popen("events", "--since", str(last), "--json", stdout=subprocess.PIPE)
    assert follower.stdout
    loaded.ok("rm", "told")
    assert json.loads(follower.stdout.readline())["kind"] == "container removed"
    follower.send_signal(signal.SIGINT)
    assert follower.wait(20) == -signal.SIGINT
    follower.stdout.close()
    assert loaded.ok("events", "--since", "1h", "--until", "0s", "-f", "type=image").count("image loaded") == 1


def test_a_reader_of_events_that_leaves_ends_them(loaded: Desk) -> None:
    follower = loaded.popen("events", "--since", "0", stdout=subprocess.PIPE)
    assert follower.stdout
    follower.stdout.readline()
    follower.stdout.close()
    assert follower.wait(20) == -signal.SIGPIPE


# ---- images ----


def test_images_are_listed_tagged_and_removed(loaded: Desk) -> None:
    heads, box = loaded.ok("images").splitlines()
    assert heads.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert box.split()[:2] == ["box", "latest"]
    loaded.ok("tag", "box", "localhost:5000/other:2")
    assert loaded.ok("images", "localhost:5000/other", "--format", "{{.Tag}}") == "2\n"
    assert loaded.ok("rmi", "box").startswith("Untagged: ")
    assert "Deleted: sha256:" in loaded.ok("rmi", "localhost:5000/other:2")
    assert len(loaded.ok("images").splitlines()) == 1
    assert loaded.run("rmi", "box").returncode == 125


def test_save_and_load_through_pipes(loaded: Desk) -> None:
    archive = loaded.run("save", "box").stdout
    loaded.ok("rmi", "box")
    assert loaded.ok("load", input=archive) == "Loaded image: box:latest\n"
    assert loaded.ok("run", "--rm", "box", "echo", "again") == "again\n"
    loaded.ok("save", "--format", "oci", "-o", "layout/", "box")
    assert (loaded.folder / "layout" / "oci-layout").exists()
    loaded.ok("save", "-o", "box.tar", "box")
    assert loaded.ok("load", "-i", "box.tar") == "Loaded image: box:latest\n"


def test_a_client_that_is_killed_while_it_loads_leaves_no_image(pyrt: Desk) -> None:
    reader, writer = os.pipe()
    client = pyrt.popen("load", stdin=reader)
    os.close(reader)
    os.write(writer, b"\0" * 512)
    eventually(lambda: pyrt.socket_of_any())
    client.kill()
    client.wait()
    os.close(writer)
    assert pyrt.ok("images", "-q") == ""


def test_import_of_a_folder_and_of_a_pipe(pyrt: Desk, busybox_rootfs: Path) -> None:
    pyrt.ok("import", "-c", 'CMD ["/bin/sh", "-c", "echo mine"]', str(busybox_rootfs), "mine:1")
    assert pyrt.ok("run", "--rm", "mine:1") == "mine\n"
    with subprocess.Popen(["tar", "c", "-C", busybox_rootfs, "."], stdout=subprocess.PIPE) as tar:
        pyrt.ok("image", "import", "-", "piped", stdin=tar.stdout)
    assert pyrt.ok("run", "--rm", "piped", "echo", "two") == "two\n"
    assert "pyrt import" in pyrt.ok("image", "history", "piped")


def test_what_is_no_archive_is_refused(pyrt: Desk) -> None:
    (pyrt.folder / "no.tar").write_bytes(b"\0" * 10240)
    done = pyrt.run("load", "-i", "no.tar")
    assert done.returncode == 125
    assert b"Traceback" not in done.stderr
    with pyrt.terminal("load") as terminal:
        terminal.expect("stdin is a terminal")
        assert terminal.wait() == 125


def test_pull_from_a_registry(pyrt: Desk, registry: Registry) -> None:
    name = f"{registry.address}/busybox"
    text = pyrt.ok("pull", name)
    assert f"Downloaded newer image for {name}:latest" in text
    assert "Image is up to date" in pyrt.ok("pull", name)
    assert pyrt.ok("pull", "-q", name) == f"{name}:latest\n"
    pyrt.ok("rmi", name)
    with pyrt.terminal("pull", name) as terminal:
        assert terminal.wait() == 0
        assert "━".encode() in terminal.shown
        assert terminal.shown.rstrip().endswith(f"{name}:latest".encode())
        assert terminal.shown.count(b"\x1b[?25l") == terminal.shown.count(b"\x1b[?25h")
    pyrt.ok("rmi", name)
    done = pyrt.run("run", "--rm", name, "echo", "pulled")
    assert done.stdout == b"pulled\n"
    assert b"Unable to find image" in done.stderr
    done = pyrt.run("pull", f"{registry.address}/nothing")
    assert done.returncode == 125


def test_prune_asks_and_system_df_counts(loaded: Desk) -> None:
    loaded.ok("run", "box", "true")
    assert [line[0] for line in lines(loaded.ok("system", "df"))] == ["TYPE", "Images", "Containers"]
    assert loaded.ok("system", "prune", input=b"n\n") == ""
    assert loaded.ok("ps", "-aq")
    text = loaded.ok("system", "prune", "-a", input=b"y\n")
    assert "Deleted containers:" in text
    assert "Total reclaimed space:" in text
    assert loaded.ok("ps", "-aq") == ""
    assert loaded.ok("images", "-q") == ""
    assert loaded.ok("image", "prune", "-f") == "Total reclaimed space: 0B\n"


# ---- without a server ----


def test_the_same_verbs_without_a_server(loaded: Desk) -> None:
    def local(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        command = [loaded.environment["PYRT_PYTHON"], "-m", "pyrt", *words]
        return subprocess.run(command, env=loaded.environment, capture_output=True, timeout=30, **options)  # type: ignore[call-overload,no-any-return]

    done = local("run", "--rm", "-i", "box", "sh", "-c", "cat; echo err >&2; exit 4", input=b"in")
    assert (done.stdout, done.stderr, done.returncode) == (b"in", b"err\n", 4)
    assert local("images", "-q").stdout.decode() == loaded.ok("images", "-q")
    assert local("run", "--rm", "box", "nothing").returncode == 127
    assert local("no-verb").stderr.startswith(b"pyrt: ")


def test_a_command_is_quick(loaded: Desk) -> None:
    """Not a benchmark, but a start-up of Python in the way would show."""
    begun = time.monotonic()
    for _ in range(20):
        loaded.ok("version")
    assert time.monotonic() - begun < 2

"""The verbs on running containers and their files, as somebody who knows Docker types them."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.desk import eventually, is_alive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.desk import Desk
    from tests.foreign import Layout

pytestmark = pytest.mark.root


@pytest.fixture
def loaded(pyrt: Desk, busybox: Layout) -> Desk:
    """With an image called box."""
    pyrt.ok("load", "-i", str(busybox.path), "--name", "box")
    return pyrt


@pytest.fixture
def web(loaded: Desk) -> Iterator[Desk]:
    """With a container called web that runs, and has changed its files."""
    script = "echo new >/etc/new; rm /etc/group; trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"
    command = ["run", "--name", "web", "-l", "app=web", "-l", "tier", "-m", "64m", "box", "sh", "-c", script]
    client = loaded.popen(*command, stdout=subprocess.PIPE)
    assert client.stdout
    assert client.stdout.readline() == b"up\n"
    yield loaded
    loaded.run("rm", "-f", "web")
    client.wait(20)
    client.stdout.close()


def test_pause_and_unpause(web: Desk) -> None:
    assert web.ok("pause", "web") == "web\n"
    assert web.ok("ps", "-q", "-f", "status=paused") == web.ok("ps", "-q")
    assert "(Paused)" in web.ok("ps")
    assert web.ok("inspect", "-f", "{{.State.Status}} {{.State.Paused}}", "web") == "paused true\n"
    refused = web.run("pause", "web")
    assert refused.returncode == 125
    assert b"is paused" in refused.stderr
    done = web.run("unpause", "web", "nobody")
    assert done.stdout == b"web\n"
    assert done.returncode == 125
    assert web.ok("container", "ls", "--format", "{{.State}}") == "running\n"
    web.ok("pause", "web")
    assert web.ok("stop", "web") == "web\n"
    assert web.ok("inspect", "-f", "{{.State.ExitCode}}", "web") == "3\n"


def test_a_paused_container_does_not_outlive_its_server(web: Desk) -> None:
    """What is frozen does not die of SIGKILL: the next engine thaws it."""
    web.ok("pause", "web")
    process = int(web.ok("inspect", "-f", "{{.State.Pid}}", "web"))
    server = int(next(web.run_folder.glob("*.lock")).read_text())
    os.kill(server, signal.SIGKILL)
    eventually(lambda: not is_alive(server))
    assert web.ok("ps", "-q") == ""
    eventually(lambda: not is_alive(process))
    assert web.ok("ps", "-a", "--format", "{{.Names}}: {{.State}}") == "web: exited\n"


def test_rename_and_kill_of_several(web: Desk) -> None:
    web.ok("rename", "web", "old")
    assert web.ok("ps", "--format", "{{.Names}}") == "old\n"
    assert web.run("rename", "old", "-bad-").returncode == 125
    web.ok("rename", "old", "web")
    done = web.run("kill", "-s", "TERM", "web", "nobody")
    assert done.stdout == b"web\n"
    assert done.returncode == 125
    eventually(lambda: web.ok("inspect", "-f", "{{.State.ExitCode}}", "web") == "3\n")


def test_update_is_seen_by_inspect_and_by_the_kernel(web: Desk) -> None:
    assert web.ok("update", "-m", "96m", "--cpus", ".5", "--pids-limit", "33", "web") == "web\n"
    form = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"
    assert web.ok("inspect", "-f", form, "web") == f"{96 << 20} 500000000 33\n"
    stats = json.loads(web.ok("stats", "--no-stream", "--json", "web"))
    assert stats["MemUsage"].endswith("/ 96MiB")
    web.ok("update", "--blkio-weight", "300", "web")
    group = Path("/sys/fs/cgroup/blkio/pyrt", web.ok("ps", "-q", "--no-trunc").strip())
    assert (group / "blkio.bfq.weight").read_text() == "300\n"
    assert b"nothing to change" in web.run("update", "web").stderr
    assert b"not built yet" in web.run("update", "--kernel-memory", "1m", "web").stderr


def test_one_that_ends_with_its_client_gets_no_restart_policy(web: Desk) -> None:
    refused = web.run("update", "--restart", "always", "web")
    assert refused.returncode == 125
    assert b"ends with its client" in refused.stderr
    assert b"is no policy" in web.run("update", "--restart", "sometimes", "web").stderr


def test_top_has_the_columns_of_ps(web: Desk) -> None:
    heads, first, *_ = [line.split() for line in web.ok("top", "web").splitlines()]
    assert heads == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert first[1] == web.ok("inspect", "-f", "{{.State.Pid}}", "web").strip()
    assert first[7:9] == ["sh", "-c"]
    assert web.ok("top", "web", "aux").split()[:6] == ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS"]
    assert web.ok("top", "web", "-eo", "pid,comm=WHAT").splitlines()[0].split() == ["PID", "WHAT"]
    assert json.loads(web.ok("top", "--json", "web").splitlines()[0])["PID"] == first[1]
    assert b"are not known" in web.run("top", "web", "-Z").stderr


def test_stats_once_and_on_a_terminal(web: Desk) -> None:
    heads, row = web.ok("stats", "--no-stream").splitlines()
    assert re.split(r"\s{2,}", heads) == [
        "CONTAINER ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "PIDS",
    ]
    assert re.match(r"[0-9a-f]{12} +web +\d+\.\d\d% +\S+B / 64MiB +\d+\.\d\d% +0B / 0B +\S+ / \S+ +\d", row)
    assert re.fullmatch(r"web \d+\.\d\d%\n", web.ok("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}"))
    web.ok("run", "--name", "gone", "box", "true")
    assert re.search(r"gone +-- +-- / -- +--", web.ok("stats", "-a", "--no-stream"))
    with web.terminal("stats") as terminal:
        terminal.expect("\x1b[2J\x1b[H")
        terminal.expect("web")
        # Again, over the first.
        terminal.expect("\x1b[HCONTAINER ID")
        terminal.type("\x03")
        assert terminal.wait() != 0
    assert b"no container nobody" in web.run("stats", "--no-stream", "nobody").stderr


def test_diff_and_export(web: Desk) -> None:
    assert web.ok("diff", "web") == "C /etc\nD /etc/group\nA /etc/new\n"
    assert web.ok("diff", "--format", "{{.Path}}", "web").split() == ["/etc", "/etc/group", "/etc/new"]
    web.ok("export", "-o", "web.tar", "web")
    with tarfile.open(web.folder / "web.tar") as tar:
        assert {"etc/new", "bin/busybox"} <= set(tar.getnames())
    assert web.run("export", "web").stdout[257:262] == b"ustar"
    with web.terminal("export", "web") as terminal:
        terminal.expect("nothing for a terminal")


def test_cp_by_paths_and_by_streams(web: Desk) -> None:
    (web.folder / "site" / "sub").mkdir(parents=True)
    (web.folder / "site" / "page").write_text("page")
    assert web.ok("cp", "site", "web:/srv") == ""
    assert web.ok("exec", "web", "cat", "/srv/page") == "page"
    web.ok("cp", "-a", "./site/.", "web:/tmp")
    assert web.ok("exec", "web", "cat", "/tmp/page") == "page"
    web.ok("cp", "web:/etc/new", ".")
    assert (web.folder / "new").read_text() == "new\n"
    web.ok("cp", "web:srv", "copied")
    assert (web.folder / "copied" / "page").read_text() == "page"
    stream = web.run("cp", "web:/srv/.", "-").stdout
    web.ok("exec", "web", "mkdir", "/in")
    web.ok("cp", "-", "web:/in", input=stream)
    assert web.ok("exec", "web", "cat", "/in/page") == "page"
    (web.folder / "with:colon").write_text("x")
    web.ok("cp", "./with:colon", "web:/c")
    web.ok("kill", "web")
    eventually(lambda: not web.ok("ps", "-q"))
    web.ok("cp", "web:/in/page", "after")
    assert (web.folder / "after").read_text() == "page"
    for words, said in (
        (("web:/nothing", "."), b"/nothing: no such file"),
        (("a", "b"), b"neither is in a container"),
        (("web:/a", "web:/b"), b"both are in containers"),
        (("web:/in", "after"), b"over a file"),
        (("nobody:/a", "."), b"no container nobody"),
        (("missing", "web:/"), b"missing: no such file"),
    ):
        done = web.run("cp", *words)
        assert done.returncode == 125
        assert said in done.stderr


def test_commit_and_history(web: Desk) -> None:
    identifier = web.ok("commit", "-a", "me", "-m", "why", "-c", 'CMD ["cat", "/etc/new"]', "web", "mine:2").strip()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", identifier)
    assert web.ok("run", "--rm", "mine:2") == "new\n"
    assert "why" in web.ok("history", "mine:2")
    assert web.ok("inspect", "-f", "{{.Author}} {{.Config.Labels.app}}", "mine:2") == "me web\n"
    assert (
        web.ok("events", "--since", "0", "--until", "0s", "-f", "event=commit", "--format", "{{.Action}}") == "commit\n"
    )
    archive = web.run("save", "mine:2").stdout
    web.ok("rmi", "mine:2")
    web.ok("load", input=archive)
    assert web.ok("run", "--rm", "mine:2") == "new\n"


def test_port_says_why_there_is_none(web: Desk) -> None:
    done = web.run("port", "web")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"publishes no port: it has loopback alone" in done.stderr
    assert web.run("port", "web", "80/tcp").returncode == 125


def test_ps_filters_and_forms(web: Desk) -> None:
    assert web.run("run", "--name", "other", "box", "sh", "-c", "exit 7").returncode == 7

    def names(*words: str) -> list[str]:
        return web.ok("ps", "--format", "{{.Names}}", *words).split()

    assert names("-a") == ["other", "web"]
    assert names("-a", "-f", "name=^we") == names("-a", "-f", "name=^/web$") == ["web"]
    assert names("-f", "label=tier", "-f", "label=app=web") == ["web"]
    assert names("-f", "label=app=other") == []
    assert names("-f", "health=none") == ["web"]
    assert names("-a", "-f", "health=healthy") == []
    assert names("-f", "exited=7") == names("-f", "status=exited") == ["other"]
    assert names("-a", "-f", "before=other") == ["web"]
    assert names("-a", "-f", "since=web") == ["other"]
    assert names("-a", "-f", "ancestor=box") == names("-n", "2") == ["other", "web"]
    assert names("-l") == ["other"]
    assert names("-a", "-f", "id=" + web.ok("inspect", "-f", "{{.Id}}", "web")[:5]) == ["web"]
    assert len(web.ok("ps", "-q", "--no-trunc").strip()) == 64
    assert re.search(r"\S+B \(virtual \d\.\d+MB\)", web.ok("ps", "-s"))
    assert web.ok("ps", "--format", '{{.Label "app"}} {{.Networks}}') == "web none\n"
    assert json.loads(web.ok("ps", "--format", "{{json .}}"))["Names"] == "web"
    assert b"no regular expression" in web.run("ps", "-f", "name=(").stderr


def test_inspect_as_scripts_ask_it(web: Desk) -> None:
    def shown(form: str) -> str:
        return web.ok("inspect", "-f", form, "web").removesuffix("\n")

    assert shown("{{.State.Running}} {{.Name}} {{.Config.Image}}") == "true /web box"
    assert shown('{{index .Config.Labels "app"}} {{len .Mounts}}') == "web 0"
    assert shown("{{range .Config.Env}}{{println .}}{{end}}").startswith("PATH=")
    assert shown("{{(index .Config.Env 0)}}") == shown("{{$first := index .Config.Env 0}}{{$first}}")
    assert shown("{{range $name, $net := .NetworkSettings.Networks}}{{$name}}{{.IPAddress}}{{end}}") == "none"
    assert shown("{{if .HostConfig.Privileged}}yes{{else}}no{{end}} {{.HostConfig.RestartPolicy.Name}}") == "no no"
    assert json.loads(shown("{{json .State}}"))["Status"] == "running"
    assert shown("{{.Config.Labels.app}} {{.Config.Labels.nothing}}") == "web <no value>"
    assert shown("{{slice .Id 0 12}}") == web.ok("ps", "-q").strip()
    assert json.loads(web.ok("inspect", "-s", "web"))[0]["SizeRw"] > 0


def test_events_in_docker_s_words(web: Desk) -> None:
    web.ok("pause", "web")
    web.ok("unpause", "web")
    words = ("events", "--since", "0", "--until", "0s")
    assert web.ok(*words, "-f", "label=app=web", "-f", "event=pause", "--format", "{{.Type}} {{.Action}}") == (
        "container pause\n"
    )
    told = web.ok(*words, "-f", "container=web", "--format", "{{.Status}} {{.Actor.Attributes.name}}").splitlines()
    assert told == ["create web", "start web", "pause web", "unpause web"]
    attributes = "{{.Actor.Attributes.app}} {{.Actor.Attributes.nothing}}"
    assert web.ok(*words, "-f", "event=start", "--format", attributes) == "web <no value>\n"


def test_prune_with_filters(web: Desk) -> None:
    for label in ("keep", "drop"):
        web.ok("run", "-l", label, "--name", label, "box", "touch", "/file")
    assert "keep" not in web.ok("container", "prune", "-f", "--filter", "label=drop")
    assert web.ok("ps", "-a", "--format", "{{.Names}}").split() == ["keep", "web"]
    assert web.ok("container", "prune", "-f", "--filter", "until=1h") == "Total reclaimed space: 0B\n"
    assert "Deleted" not in web.ok("system", "prune", "-af", "--filter", "label=nobody")
    assert b"is no time" in web.run("container", "prune", "-f", "--filter", "until=5").stderr
    text = web.ok("container", "prune", input=b"y\n")
    assert text.startswith("Deleted containers:\n")
    assert web.ok("ps", "-a", "--format", "{{.Names}}").split() == ["web"]


def test_exec_in_the_background(web: Desk) -> None:
    assert web.ok("exec", "-d", "-e", "A=1", "-w", "/tmp", "web", "sh", "-c", "pwd >/out; echo $A >>/out") == ""
    eventually(lambda: web.run("exec", "web", "cat", "/out").stdout == b"/tmp\n1\n")
    assert web.run("exec", "-d", "web", "nothing").returncode == 127


def test_names_are_completed(web: Desk) -> None:
    assert web.ok("__complete", "files") == "web:\n"
    for shell in ("bash", "zsh", "fish"):
        assert all(verb in web.ok("completion", shell) for verb in ("unpause", "cp", "stats", "commit"))


def test_every_verb_has_help_with_examples(loaded: Desk) -> None:
    for verb in ("pause", "unpause", "rename", "update", "top", "stats", "diff", "cp", "export", "commit", "port"):
        text = loaded.ok(verb, "--help")
        assert "examples:" in text
        assert loaded.ok("help", verb) == text
        assert loaded.ok("container", verb, "--help").splitlines()[0].replace("container ", "") == text.splitlines()[0]


def test_what_is_copied_while_it_is_started_is_not_lost_in_silence(loaded: Desk) -> None:
    """Into its layers it went, from which overlayfs need not take notice of anything once they are mounted."""
    loaded.ok("create", "--name", "late", "box", "sleep", "1000")
    client = loaded.popen("cp", "-", "late:/root", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdin
    # It may have ended when the last bytes are written.
    with suppress(BrokenPipeError), tarfile.open(fileobj=client.stdin, mode="w|") as archive:
        large = tarfile.TarInfo("copied")
        large.size = 8 << 20
        # More than a pipe holds: when it is written, most of it was read.
        archive.addfile(large, io.BytesIO(bytes(large.size)))
        loaded.ok("start", "late")
    _, error = client.communicate(timeout=20)
    assert client.returncode == 125
    assert b"was started while files were copied into it" in error

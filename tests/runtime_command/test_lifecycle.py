"""runtime.md, clause by clause: states, operations, hooks."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root


def wait_for_death(pid: int) -> None:
    """Waits until a process has ended, whoever its parent is."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], 10)
        assert ready, f"process {pid} lives"
    finally:
        os.close(descriptor)


def test_a_container_is_created_started_and_deleted(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.config["annotations"] = {"org.example.key": "value"}
    bundle.shell("echo started > /dev/stdout; sleep 100")
    runtime.ok("create", "--bundle", bundle.path, "--pid-file", bundle.path / "pid", name)
    created = runtime.state(name)
    assert created["status"] == "created"
    assert created["ociVersion"] == "1.0.2"
    assert created["id"] == name
    assert created["bundle"] == str(bundle.path)
    assert created["annotations"] == {"org.example.key": "value"}
    assert (bundle.path / "pid").read_text() == str(created["pid"])
    runtime.ok("start", name)
    assert runtime.state(name)["status"] == "running"
    runtime.ok("kill", name, "KILL")
    wait_for_death(created["pid"])
    stopped = runtime.state(name)
    assert (stopped["status"], stopped["pid"]) == ("stopped", 0)
    runtime.ok("delete", name)
    assert "does not exist" in runtime.fails("state", name)


def test_the_command_does_not_run_before_start(runtime: Runtime, bundle: Bundle, name: str) -> None:
    witness = bundle.path / "witness"
    witness.mkdir()
    bundle.config["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": str(witness), "options": ["rbind", "rw"]}
    )
    bundle.shell("echo ran > /tmp/ran")
    runtime.ok("create", "--bundle", bundle.path, name)
    # What waits has done everything but execve(2): had it run, it would be over.
    assert runtime.state(name)["status"] == "created"
    assert list(witness.iterdir()) == []
    pid = runtime.state(name)["pid"]
    descriptor = os.pidfd_open(pid)
    runtime.ok("start", name)
    select.select([descriptor], [], [], 10)
    os.close(descriptor)
    assert (witness / "ran").read_text() == "ran\n"


def test_config_json_is_read_once(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """runtime.md: a change of config.json after `create` has no effect on the container."""
    bundle.shell("exit 5")
    runtime.ok("create", "--bundle", bundle.path, name)
    (bundle.path / "config.json").write_text("{}")
    runtime.ok("start", name)
    runtime.ok("delete", "--force", name)


def test_what_is_not_allowed_changes_nothing(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.runs("/bin/sleep", "100")
    runtime.ok("create", "--bundle", bundle.path, name)
    assert "already exists" in runtime.fails("create", "--bundle", bundle.path, name)
    assert "cannot resume" in runtime.fails("resume", name)
    runtime.ok("start", name)
    assert "cannot start a container that is running" in runtime.fails("start", name)
    assert "not stopped" in runtime.fails("delete", name)
    assert runtime.state(name)["status"] == "running"
    pid = runtime.state(name)["pid"]
    runtime.ok("kill", name, "9")
    wait_for_death(pid)
    assert "container not running" in runtime.fails("kill", name, "TERM")
    assert "has stopped" in runtime.fails("start", name)
    assert "cannot exec" in runtime.fails("exec", name, "/bin/true")


@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete", "pause", "resume", "ps", "events"])
def test_a_container_that_is_not_there(runtime: Runtime, verb: str) -> None:
    assert runtime.fails(verb, "nobody") == "container does not exist: nobody"


def test_deleting_by_force_what_is_not_there_is_done_already(runtime: Runtime) -> None:
    runtime.ok("delete", "--force", "nobody")


def test_of_two_starts_one_wins(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.runs("/bin/sleep", "100")
    runtime.ok("create", "--bundle", bundle.path, name)
    line = [*runtime.command, "--root", str(runtime.root), "start", name]
    both = [subprocess.Popen(line, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert sorted(process.wait() for process in both) == [0, 1]


def test_a_killed_create_is_deleted_by_force(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """The hook stands still in the middle of `create`, which is killed there."""
    gate = bundle.path / "gate"
    os.mkfifo(gate)
    bundle.set(
        "hooks", {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo in > {gate}; exec sleep 100"]}]}
    )
    line = [*runtime.command, "--root", str(runtime.root), "create", "--bundle", str(bundle.path), name]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL) as create:
        assert gate.read_text() == "in\n"
        create.kill()
    assert runtime.state(name)["status"] == "creating"
    runtime.ok("delete", "--force", name)
    assert not (runtime.root / name).exists()


def test_what_waits_is_no_file_of_the_host(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """CVE-2019-5736, CVE-2024-21626: a sealed memfd, with nothing open but its standard descriptors and two fifos."""
    bundle.runs("/bin/sleep", "100")
    runtime.ok("create", "--bundle", bundle.path, name)
    _is_no_file_of_the_host(runtime, name)


def test_where_the_kernel_keeps_the_file_a_copy_is_executed(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """PR_SET_MM, the first prctl(2) of the program, needs a kernel with CONFIG_CHECKPOINT_RESTORE."""
    bundle.runs("/bin/sleep", "100")
    refused = ["strace", "-qq", "-o", os.devnull, "-e", "inject=prctl:error=EINVAL:when=1"]
    plain, runtime.command = runtime.command, [*refused, *runtime.command]
    runtime.ok("create", "--bundle", bundle.path, name)
    runtime.command = plain
    assert _is_no_file_of_the_host(runtime, name).stat().st_size == Path(plain[0]).stat().st_size
    runtime.ok("start", name)


def _is_no_file_of_the_host(runtime: Runtime, name: str) -> Path:
    process = Path(f"/proc/{runtime.state(name)['pid']}")
    assert os.readlink(process / "exe").startswith("/memfd:pyrt-runtime")
    opened = {os.readlink(file) for file in (process / "fd").iterdir() if int(file.name) > 2}
    assert opened == {str(runtime.root / name / "release"), str(runtime.root / name / "outcome")}
    return process / "exe"


@pytest.mark.parametrize("verb", ["run", "create"])
def test_a_container_does_not_execute_what_made_it(runtime: Runtime, bundle: Bundle, name: str, verb: str) -> None:
    """CVE-2019-5736: the kernel resolves an interpreter inside, where /proc/self/exe is still the runtime's."""
    (bundle.path / "trap").write_text("#!/proc/self/exe\n")
    (bundle.path / "trap").chmod(0o755)
    bundle.config["mounts"].append({"destination": "/tmp", "type": "bind", "source": ".", "options": ["bind"]})
    bundle.runs("/tmp/trap")
    if verb == "create":
        runtime.ok("create", "--bundle", bundle.path, name)
        verb = "start"
    line = runtime.fails("start", name) if verb == "start" else runtime.fails("run", "--bundle", bundle.path, name)
    assert "/tmp/trap" in line


def test_a_container_writes_to_nothing_that_meets_it(
    runtime: Runtime, bundle: Bundle, name: str, program: Path
) -> None:
    """CVE-2019-5736: it opens every /proc/PID/exe for writing while processes join it."""
    before = program.read_bytes()
    loop = "while :; do for each in /proc/[0-9]*; do (echo bad > $each/exe) 2>/dev/null; done; done"
    bundle.set("process.capabilities", {kind: ["CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")})
    bundle.shell(loop)
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    for _ in range(5):
        assert runtime.ok("exec", name, "/bin/echo", "here") == "here\n"
    assert program.read_bytes() == before


def test_run_waits_and_has_the_exit_code(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.shell("echo out; echo err >&2; exit 7")
    answer = runtime.call("run", "--bundle", bundle.path, name)
    assert answer == (7, "out\n", "err\n")
    assert not (runtime.root / name).exists()


def test_run_hands_signals_on(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done")
    line = [*runtime.command, "--root", str(runtime.root), "run", "--bundle", str(bundle.path), name]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(10) == 9


def test_a_container_of_run_can_be_changed_while_it_runs(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Who waits for it has not locked it."""
    bundle.shell("echo ready; sleep 100")
    line = [*runtime.command, "--root", str(runtime.root), "run", "--bundle", str(bundle.path), name]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        assert runtime.ok("exec", name, "/bin/echo", "inside") == "inside\n"
        runtime.ok("pause", name)
        runtime.ok("resume", name)
        runtime.ok("kill", name, "KILL")
        assert run.wait(10) == 128 + signal.SIGKILL
    assert not (runtime.root / name).exists()


def test_flags_name_files_from_where_the_command_was_called(
    runtime: Runtime, bundle: Bundle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle becomes the working directory, but not for them."""
    monkeypatch.chdir(runtime.root.parent)
    bundle.runs("/bin/sleep", "100")
    words = ["--root", runtime.root.name, "create", "--bundle", bundle.path.name, "--pid-file", "pid", name]
    runtime.ok(*words)
    assert (runtime.root.parent / "pid").read_text() == str(runtime.state(name)["pid"])


def test_list_knows_all(runtime: Runtime, bundle: Bundle, name: str) -> None:
    assert json.loads(runtime.ok("list", "--format", "json")) == []
    bundle.runs("/bin/sleep", "100")
    runtime.ok("create", "--bundle", bundle.path, name)
    (listed,) = json.loads(runtime.ok("list", "--format", "json"))
    assert (listed["id"], listed["status"]) == (name, "created")
    assert runtime.ok("list", "-q") == f"{name}\n"
    assert runtime.ok("list").splitlines()[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]


def test_a_container_is_paused_and_resumed(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.runs("/bin/sleep", "100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    runtime.ok("pause", name)
    assert runtime.state(name)["status"] == "paused"
    assert "cannot exec" in runtime.fails("exec", name, "/bin/true")
    runtime.ok("resume", name)
    assert runtime.state(name)["status"] == "running"
    runtime.ok("pause", name)
    # A frozen container can be killed all the same.
    runtime.ok("delete", "--force", name)


def test_what_is_frozen_before_its_start_is_not_started(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """It would never answer, and whoever waits for it holds the lock that `resume` wants."""
    runtime.ok("create", "--bundle", bundle.path, name)
    runtime.ok("pause", name)
    assert runtime.state(name)["status"] == "paused"
    assert runtime.fails("start", name) == "cannot start a container that is paused"
    runtime.ok("resume", name)
    assert runtime.state(name)["status"] == "created"
    runtime.ok("start", name)


def test_exec_joins_with_its_own_rights(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.runs("/bin/sleep", "100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    words = ["--user", "7:8", "--additional-gids", "9", "--cwd", "/tmp", "--env", "A=b"]
    seen = runtime.ok("exec", *words, name, "/bin/sh", "-c", "id -u; id -g; id -G; pwd; echo $A; echo $$")
    uid, gid, gids, cwd, variable, pid = seen.splitlines()
    assert (uid, gid, gids, cwd, variable) == ("7", "8", "8 9", "/tmp", "b")
    assert int(pid) > 1
    assert runtime.call("exec", name, "/bin/sh", "-c", "exit 3").code == 3
    document = bundle.config["process"] | {"args": ["/bin/echo", "from a file"]}
    (bundle.path / "process.json").write_text(json.dumps(document))
    assert runtime.ok("exec", "--process", bundle.path / "process.json", name) == "from a file\n"
    pid_file = bundle.path / "exec.pid"
    runtime.ok("exec", "--detach", "--pid-file", pid_file, name, "/bin/sleep", "100")
    pids = json.loads(runtime.ok("ps", "--format", "json", name))
    assert pids == sorted([runtime.state(name)["pid"], int(pid_file.read_text())])


def test_limits_are_changed_and_statistics_printed(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.set("linux.resources", {"memory": {"limit": 64 << 20}, "pids": {"limit": 32}})
    bundle.runs("/bin/sleep", "100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    data = json.loads(runtime.ok("events", "--stats", name))["data"]
    assert data["memory"]["usage"]["limit"] == 64 << 20
    assert data["pids"] == {"current": 1, "limit": 32}
    runtime.ok("update", "--memory", str(32 << 20), "--pids-limit", "16", name)
    runtime.ok("update", "--resources", "-", name, text=json.dumps({"cpu": {"quota": 50000, "period": 100000}}))
    data = json.loads(runtime.ok("events", "--stats", name))["data"]
    assert data["memory"]["usage"]["limit"] == 32 << 20
    assert data["pids"]["limit"] == 16


def test_limits_have_the_flags_of_runc(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.runs("/bin/sleep", "100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    runtime.ok("update", "--memory", "64M", "--memory-swap", "-1", name)
    assert json.loads(runtime.ok("events", "--stats", name))["data"]["memory"]["usage"]["limit"] == 64 << 20
    for flag in ("--l3-cache-schema", "--mem-bw-schema"):
        assert runtime.fails("update", flag, "x", name) == f"{flag}: not supported"
    assert runtime.fails("update", "--memory", "much", name) == "--memory much: not a number of bytes"
    answer = runtime.call("update", "--kernel-memory", "1m", name)
    assert (answer.code, "--kernel-memory: kernels have no such limit" in answer.error) == (0, True)


@pytest.mark.parametrize("verb", ["run", "create"])
def test_sockets_of_whoever_has_started_it_are_the_containers(
    runtime: Runtime, bundle: Bundle, name: str, verb: str, tmp_path: Path
) -> None:
    """sd_listen_fds(3). runc hands them on before those of --preserve-fds, and writes no names."""
    bundle.config["mounts"].append({"destination": "/tmp", "type": "bind", "source": ".", "options": ["bind"]})
    bundle.shell("{ echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES $$; ls -l /proc/self/fd; } > /tmp/said; cat <&4")
    (tmp_path / "first").touch()
    (tmp_path / "second").write_text("second\n")
    words = " ".join([*runtime.command, "--root", str(runtime.root), verb, "--preserve-fds", "1", "--bundle"])
    script = f"export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=$$; exec {words} {bundle.path} {name}"
    with (tmp_path / "output").open("w+") as output:
        line = ["sh", "-c", f"exec 3< first 4< second; {script}"]
        subprocess.run(line, cwd=tmp_path, stdout=output, check=True, timeout=30)
        if verb == "create":
            pid = runtime.state(name)["pid"]
            runtime.ok("start", name)
            wait_for_death(pid)
        output.seek(0)
        assert output.read() == "second\n"
    environment, *listed = (bundle.path / "said").read_text().splitlines()
    assert environment == "1 1 web 1"
    assert [line.split("/")[-1] for line in listed if " 3 -> " in line or " 4 -> " in line] == ["first", "second"]


def test_sockets_for_somebody_else_are_left_alone(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.shell("echo $LISTEN_FDS; ls /proc/self/fd | wc -l")
    variables = {"LISTEN_FDS": "2", "LISTEN_PID": "1"}
    assert runtime.call("run", "--bundle", bundle.path, name, env=variables).output == "\n4\n"


def test_want_of_memory_is_an_event(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.set("linux.resources", {"memory": {"limit": 32 << 20, "swap": 32 << 20}})
    bundle.runs("/bin/sleep", "100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    line = [*runtime.command, "--root", str(runtime.root), "events", "--interval", "20ms", name]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout is not None
        documents = map(json.loads, events.stdout)
        assert next(documents)["type"] == "stats"
        assert runtime.call("exec", name, "/bin/tail", "/dev/zero").code == 128 + signal.SIGKILL
        assert next(document for document in documents if document["type"] != "stats") == {"type": "oom", "id": name}
        # And so on, until it ends.
        assert next(documents)["type"] in {"stats", "oom"}
        runtime.ok("kill", name, "KILL")
        assert {document["type"] for document in documents} <= {"stats", "oom"}
    assert events.returncode == 0
    assert "container not running" in runtime.fails("events", name)


def test_a_terminal_goes_to_the_console_socket(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path) -> None:
    bundle.set("process.terminal", True)
    bundle.shell("read word; echo got $word")
    master = runtime.create_on_terminal(bundle, name, tmp_path / "console")
    with os.fdopen(master, "r+b", buffering=0) as terminal:
        runtime.ok("start", name)
        terminal.write(b"hello\n")
        seen = b""
        while b"got hello" not in seen:
            seen += terminal.read(4096) or b""


def hook(kind: str, log: Path, *, status: int = 0) -> dict[str, Any]:
    """A hook that notes its kind, its state and one variable, and exits so."""
    script = f'printf "%s %s %s\\n" {kind} "$MARK" "$(cat)" >> {log}; exit {status}'
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["MARK=here", "PATH=/bin:/usr/bin"], "timeout": 20}


def test_hooks_run_in_order_and_know_the_state(runtime: Runtime, bundle: Bundle, name: str) -> None:
    log = bundle.path / "log"
    kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    hooks = {kind: [hook(kind, log)] for kind in kinds}
    bundle.config["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": str(bundle.path), "options": ["rbind", "rw"]}
    )
    hooks["startContainer"] = [hook("startContainer", Path("/tmp/log"))]
    bundle.set("hooks", hooks)
    bundle.runs("/bin/sleep", "100")
    runtime.ok("create", "--bundle", bundle.path, name)
    pid = runtime.state(name)["pid"]
    assert [line.split()[0] for line in log.read_text().splitlines()] == kinds[:3]
    runtime.ok("start", name)
    runtime.ok("delete", "--force", name)
    lines = [line.split(maxsplit=2) for line in log.read_text().splitlines()]
    states = {kind: json.loads(state) for kind, mark, state in lines if mark == "here"}
    assert [kind for kind, _, _ in lines] == [*kinds[:3], "startContainer", *kinds[3:]]
    assert {kind: state["status"] for kind, state in states.items()} == {
        "prestart": "created",
        "createRuntime": "created",
        "createContainer": "created",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    # As each sees it: inside its own pid namespace the process is the first.
    assert (states["createRuntime"]["pid"], states["poststart"]["pid"]) == (pid, pid)
    assert (states["createContainer"]["pid"], states["startContainer"]["pid"]) == (1, 1)
    assert all(state["id"] == name and state["bundle"] == str(bundle.path) for state in states.values())


def test_hooks_before_the_change_of_root_see_the_mounts(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """runtime.md: createContainer hooks resolve in the host's tree and run in the container's mount namespace."""
    rootfs = bundle.config["root"]["path"]
    script = f"grep -c ' {rootfs}/proc ' /proc/self/mountinfo > {bundle.path}/seen"
    bundle.set("hooks", {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]})
    runtime.ok("create", "--bundle", bundle.path, name)
    assert (bundle.path / "seen").read_text() == "1\n"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_ends_create(runtime: Runtime, bundle: Bundle, name: str, kind: str) -> None:
    bundle.set("hooks", {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo no good >&2; exit 1"]}]})
    line = runtime.fails("create", "--bundle", bundle.path, name)
    assert "running the hook /bin/sh: it has failed: no good" in line
    assert not (runtime.root / name).exists()


def test_a_hook_that_is_too_slow_is_killed(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.set("hooks", {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]})
    assert "not done after 1 s" in runtime.fails("create", "--bundle", bundle.path, name)


def test_a_poststop_hook_that_fails_keeps_nothing_back(runtime: Runtime, bundle: Bundle, name: str) -> None:
    log = bundle.path / "log"
    bundle.set("hooks", {"poststop": [hook("first", log, status=1), hook("second", log)]})
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    runtime.ok("delete", "--force", name)
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["first", "second"]


def test_a_command_that_is_not_there_fails_at_create(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.runs("no-such-command")
    assert "executable file not found in $PATH" in runtime.fails("create", "--bundle", bundle.path, name)
    bundle.runs("/etc")
    assert "permission denied" in runtime.fails("create", "--bundle", bundle.path, name)


def test_what_fails_after_the_start_is_said_by_start(runtime: Runtime, bundle: Bundle, name: str) -> None:
    script = bundle.path / "script"
    script.write_text("no program at all\n")
    script.chmod(0o755)
    bundle.config["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": str(bundle.path), "options": ["rbind"]}
    )
    bundle.runs("/tmp/script")
    runtime.ok("create", "--bundle", bundle.path, name)
    assert "/tmp/script" in runtime.fails("start", name)


def test_descriptors_are_handed_on_only_if_asked_for(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.shell("cat <&3; ls /proc/self/fd | wc -l")
    read, write = os.pipe()
    os.write(write, b"by descriptor\n")
    os.close(write)
    spare = os.dup(read)

    def call(*words: str) -> str:
        line = [*runtime.command, "--root", str(runtime.root), "run", *words, "--bundle", str(bundle.path), name]
        script = f'exec "$@" 3<&{read} 4<&{spare}'
        done = subprocess.run(
            ["bash", "-c", script, "bash", *line], capture_output=True, text=True, pass_fds=(read, spare), check=False
        )
        return done.stdout

    # ls(1) itself has the folder open.
    assert call("--preserve-fds", "1").splitlines() == ["by descriptor", "5"]
    os.close(read)
    os.close(spare)


def test_readers_do_not_wait_for_whoever_holds_the_lock(runtime: Runtime, bundle: Bundle, name: str) -> None:
    gate = bundle.path / "gate"
    os.mkfifo(gate)
    bundle.set("hooks", {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo in > {gate}; cat {gate}"]}]})
    line = [*runtime.command, "--root", str(runtime.root), "create", "--bundle", str(bundle.path), name]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as create:
        assert gate.read_text() == "in\n"
        assert runtime.state(name)["status"] == "creating"
        gate.write_text("")
        assert create.wait(10) == 0
    assert runtime.state(name)["status"] == "created"


def test_flags_of_engines_are_understood(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """What runc takes before and after the verb; `--rootless` changes nothing for root."""
    runtime.command += ["--rootless", "auto", "--debug"]
    bundle.shell("grep -c ' / / ' /proc/self/mountinfo; cat /proc/keys | wc -l; sleep 100")
    runtime.ok("create", "--no-pivot", "--no-new-keyring", "--bundle", bundle.path, name)
    runtime.ok("start", name)
    assert f" {runtime.state(name)['pid']} " in runtime.ok("ps", name)
    runtime.ok("kill", "--all", name, "KILL")


def test_one_more_process_gets_more_capabilities(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.runs("/bin/sleep", "100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    script = "grep -E 'Cap(Eff|Prm|Bnd)' /proc/self/status | cut -f2 | sort -u"
    assert runtime.ok("exec", "--cap", "CAP_KILL", name, "/bin/sh", "-c", script) == "0000000000000020\n"
    assert runtime.ok("exec", name, "/bin/sh", "-c", script) == "0000000000000000\n"


def test_delete_waits_for_create(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Both change the container: the second finds it whole, and takes it away."""
    gate = bundle.path / "gate"
    os.mkfifo(gate)
    bundle.set("hooks", {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo in > {gate}; cat {gate}"]}]})
    line = [*runtime.command, "--root", str(runtime.root)]
    with subprocess.Popen(
        [*line, "create", "--bundle", str(bundle.path), name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as create:
        assert gate.read_text() == "in\n"
        with subprocess.Popen([*line, "delete", "--force", name]) as delete:
            gate.write_text("")
            assert (create.wait(10), delete.wait(10)) == (0, 0)
    assert not (runtime.root / name).exists()

"""Other people's engines on `pyrt-runtime`: dockerd with its containerd, podman, buildah."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.services import PLUGINS, SHORT, Docker, Unavailable, answer, docker_daemon, network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.leakcheck import Oracle
    from tests.runtime_command.plain import PlainUser

pytestmark = pytest.mark.root

# No test of an engine has to wait longer for one command, on a busy machine of two cores.
PATIENCE = 60.0


@pytest.fixture(scope="module")
def archive(busybox_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Busybox as a plain tar, which every engine imports."""
    path = tmp_path_factory.mktemp("engines") / "busybox.tar"
    subprocess.run(["tar", "-C", str(busybox_rootfs), "-cf", str(path), "."], check=True)
    return path


@pytest.fixture(scope="module")
def docker(program: Path, archive: Path) -> Iterator[Docker]:
    """Docker with the image `bb`."""
    try:
        with docker_daemon(runtime=program) as docker:
            docker("import", archive, "bb")
            yield docker
    except Unavailable as error:
        pytest.skip(str(error))


RUN = ("run", "--runtime", "pyrt", "--network", "none")


def test_docker_runs_and_limits(docker: Docker) -> None:
    limits = ("--memory", "32m", "--cpus", "0.5", "--pids-limit", "17", "--user", "1000:1000")
    groups = "memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max"
    script = f"id -u; cd /sys/fs/cgroup; cat {groups}"
    seen = docker(*RUN, "--rm", *limits, "bb", "/bin/sh", "-c", script).split()
    assert seen == ["1000", str(32 << 20), "50000", "17"]


@pytest.mark.parametrize(("command", "code"), [("/no/such", 127), ("no-such", 127), ("/etc", 126)])
def test_docker_tells_why_a_command_can_not_run(docker: Docker, command: str, code: int) -> None:
    """The daemon reads it off the words of the error, and a container that was made remembers it."""
    with pytest.raises(RuntimeError):
        docker(*RUN, "--name", "bad", "bb", command)
    try:
        (found,) = json.loads(docker("inspect", "bad"))
        assert found["State"]["ExitCode"] == code
    finally:
        docker("rm", "-f", "bad")


def test_docker_lives_with_a_container(docker: Docker) -> None:
    docker(*RUN, "-d", "--name", "box", "--tty", "bb", "/bin/sleep", "1000")
    try:
        assert docker("exec", "box", "/bin/echo", "inside") == "inside\n"
        assert "/dev/pts/" in docker("exec", "--tty", "box", "/bin/readlink", "/proc/self/fd/0")
        assert "sleep" in docker("top", "box")
        docker("pause", "box")
        assert docker("inspect", "-f", "{{.State.Status}}", "box") == "paused\n"
        docker("unpause", "box")
        docker("update", "--memory", "64m", "--memory-swap", "128m", "box")
        assert docker("exec", "box", "/bin/cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes") == f"{64 << 20}\n"
        assert "box" in docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "box")
        docker("restart", "--time", "0", "box")
        docker("stop", "--time", "0", "box")
    finally:
        docker("rm", "-f", "box")


def typed(words: list[str | Path], text: str) -> str:
    """What a command line shows on a terminal of its own, on which `text` is typed."""
    master, slave = pty.openpty()
    with os.fdopen(master, "r+b", buffering=0) as terminal:
        with subprocess.Popen(list(map(str, words)), stdin=slave, stdout=slave, stderr=slave) as process:
            os.close(slave)
            terminal.write(text.encode())
            seen = b""
            try:
                while piece := terminal.read(4096):
                    seen += piece
            except OSError:
                # EIO: nobody has its other side any more.
                pass
            process.wait(PATIENCE)
    return seen.decode()


def becomes(look: Callable[[], str], wanted: str) -> None:
    """Asks until the answer is the one that is wanted."""
    deadline, seen = time.monotonic() + PATIENCE, ""
    while (seen := look().strip()) != wanted:
        assert time.monotonic() < deadline, seen


def test_docker_hands_terminals_and_input_over(docker: Docker) -> None:
    """`exec -it` and `attach`, which ends with the container's exit code."""
    client = ["docker", "--host", docker.address]
    script = "read word; echo got $word; read more; exit 5"
    docker(*RUN, "-d", "--interactive", "--name", "box", "bb", "/bin/sh", "-c", script)
    try:
        shown = typed([*client, "exec", "-it", "box", "/bin/sh", "-c", f"tty; {script}"], "typed\nmore\n")
        assert "/dev/pts/" in shown
        assert "got typed" in shown
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        with subprocess.Popen([*client, "attach", "box"], **pipes) as attached:
            assert attached.stdin is not None
            assert attached.stdout is not None
            attached.stdin.write("word\n")
            assert attached.stdout.readline() == "got word\n"
            attached.stdin.write("more\n")
            assert attached.wait(PATIENCE) == 5
    finally:
        docker("rm", "-f", "box")


def test_docker_keeps_what_volumes_hold(docker: Docker) -> None:
    """Named ones, read-only ones, and memory."""
    docker("volume", "create", "kept")
    try:
        docker(*RUN, "--rm", "--volume", "kept:/data", "bb", "/bin/sh", "-c", "echo word > /data/file")
        script = "cat /data/file; touch /data/x 2>/dev/null || echo refused; df -k /memory | tail -n 1"
        seen = docker(
            *RUN, "--rm", "--volume", "kept:/data:ro", "--tmpfs", "/memory:size=1m", "bb", "/bin/sh", "-c", script
        )
        assert seen.split()[:4] == ["word", "refused", "tmpfs", "1024"]
    finally:
        docker("volume", "rm", "kept")


def test_docker_restarts_what_fails(docker: Docker) -> None:
    docker(*RUN, "-d", "--restart", "on-failure:2", "--name", "box", "bb", "/bin/false")
    try:
        state = "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}"
        becomes(lambda: docker("inspect", "--format", state, "box"), "2 exited 1")
    finally:
        docker("rm", "-f", "box")


def test_docker_looks_after_health(docker: Docker) -> None:
    check = ("--health-cmd", "test -f /tmp/well", "--health-interval", "1s", "--health-retries", "1")
    docker(*RUN, "-d", *check, "--name", "box", "bb", "/bin/sleep", "1000")
    try:
        becomes(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", "box"), "unhealthy")
        docker("exec", "box", "/bin/touch", "/tmp/well")
        becomes(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", "box"), "healthy")
    finally:
        docker("rm", "-f", "box")


def test_docker_gives_everything_to_the_privileged(docker: Docker) -> None:
    """What this machine's root has not itself is left out with a warning, as the specification wants it."""
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapPrm"))
    seen = docker(*RUN, "--rm", "--privileged", "bb", "/bin/grep", "CapEff", "/proc/self/status")
    # Docker 20.10 ends at CAP_AUDIT_READ, the 38th.
    assert int(seen.split()[1], 16) == int(own.split()[1], 16) & ((1 << 38) - 1)


GIVEN = (
    *("--user", "1000:7", "--group-add", "9", "--workdir", "/tmp", "--env", "A=b", "--hostname", "own", "--read-only"),
    *("--ulimit", "nofile=100:200", "--sysctl", "net.ipv4.ip_forward=1", "--shm-size", "1m", "--cpuset-cpus", "0"),
    *("--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--security-opt", "no-new-privileges"),
    *("--memory", "32m", "--oom-kill-disable"),
)
GIVEN_SCRIPT = """
id -u; id -G; pwd; echo $A $HOME; hostname; touch /x 2>/dev/null || echo refused; ulimit -Sn; ulimit -Hn
cat /proc/sys/net/ipv4/ip_forward; grep -o 'size=1024k' /proc/mounts; grep Cpus_allowed_list /proc/self/status
grep -E 'CapBnd|NoNewPrivs' /proc/self/status; head -n 1 /sys/fs/cgroup/memory/memory.oom_control
"""
GIVEN_SEEN = (
    "1000 7 9 /tmp b /home/alice own refused 100 200 1 size=1024k Cpus_allowed_list: 0 "
    "CapBnd: 0000000000001000 NoNewPrivs: 1 oom_kill_disable 1"
)


def test_docker_gives_what_is_asked_for(docker: Docker) -> None:
    assert docker(*RUN, "--rm", *GIVEN, "bb", "/bin/sh", "-c", GIVEN_SCRIPT).split() == GIVEN_SEEN.split()


def test_docker_puts_containers_where_it_is_told(docker: Docker) -> None:
    """Below a group of its own, in others' namespaces, and without a filter."""
    own = os.readlink("/proc/self/ns/pid")
    flags = ("--pid", "host", "--cgroup-parent", "/pyrt-parent", "--security-opt", "seccomp=unconfined")
    script = "readlink /proc/self/ns/pid; grep Seccomp: /proc/self/status; sleep 1000"
    docker(*RUN, "-d", *flags, "--ipc", "shareable", "--name", "box", "bb", "/bin/sh", "-c", script)
    try:
        becomes(lambda: " ".join(docker("logs", "box").split()), f"{own} Seccomp: 0")
        assert len([path for path in Path("/sys/fs/cgroup/memory/pyrt-parent").iterdir() if path.is_dir()]) == 1
        kinds = "for kind in ipc net; do readlink /proc/self/ns/$kind; done"
        shared = docker("exec", "box", "/bin/sh", "-c", kinds)
        joined = ("--network", "container:box", "--ipc", "container:box")
        assert docker("run", "--runtime", "pyrt", "--rm", *joined, "bb", "/bin/sh", "-c", kinds) == shared
    finally:
        docker("rm", "-f", "box")
        for parent in Path("/sys/fs/cgroup").glob("*/pyrt-parent"):
            parent.rmdir()


def test_docker_opens_what_may_be_made(docker: Docker) -> None:
    """Nodes in the root file system, by the rules of the container's group; /dev/net/tun is among them."""
    script = (
        "mknod /node c 1 3 && echo x > /node && echo made; mknod /memory c 1 1; cat /memory 2>&1 | grep -o permitted; "
        "cd /sys/fs/cgroup/devices; grep -o 'c 10:200 rwm' devices.list; grep -o 'c 10:237 r' devices.list"
    )
    flags = ("--rm", "--device-cgroup-rule", "c 10:237 r")
    assert docker(*RUN, *flags, "bb", "/bin/sh", "-c", script).splitlines() == [
        *("made", "permitted", "c 10:200 rwm", "c 10:237 r")
    ]


def test_docker_executes_as_somebody_else(docker: Docker) -> None:
    docker(*RUN, "-d", "--name", "box", "bb", "/bin/sleep", "1000")
    try:
        script = "id -u; id -g; pwd; echo $A $HOME"
        seen = docker("exec", "-u", "1000:9", "-w", "/tmp", "-e", "A=b", "box", "/bin/sh", "-c", script)
        assert seen.split() == ["1000", "9", "/tmp", "b", "/home/alice"]
        seen = docker("exec", "--privileged", "box", "/bin/grep", "CapEff", "/proc/self/status")
        assert int(seen.split()[1], 16) & 1 << 21, "CAP_SYS_ADMIN"
        for command, code in (("/no/such", 126), ("/etc", 126), ("/bin/false", 1)):
            line = ["docker", "--host", docker.address, "exec", "box", command]
            assert subprocess.run(line, capture_output=True, check=False).returncode == code
    finally:
        docker("rm", "-f", "box")


def test_docker_copies_signals_and_follows(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("word\n")
    script = "trap 'cat /tmp/file; exit 3' USR1; echo up; while :; do sleep 0.1; done"
    docker(*RUN, "-d", "--stop-signal", "USR1", "--name", "box", "bb", "/bin/sh", "-c", script)
    try:
        becomes(lambda: docker("logs", "box"), "up")
        docker("cp", tmp_path / "file", "box:/tmp/file")
        docker("cp", "box:/tmp/file", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "word\n"
        with subprocess.Popen(
            ["docker", "--host", docker.address, "logs", "-f", "box"], stdout=subprocess.PIPE
        ) as logs:
            docker("kill", "-s", "USR1", "box")
            assert docker("wait", "box") == "3\n"
            # Ends with the container.
            assert logs.communicate(timeout=PATIENCE)[0] == b"up\nword\n"
        docker("start", "box")
        docker("stop", "box")
        assert docker("inspect", "--format", "{{.State.ExitCode}}", "box") == "3\n"
    finally:
        docker("rm", "-f", "box")


@pytest.fixture(scope="module")
def docker_aside(program: Path, archive: Path) -> Iterator[Docker]:
    """Docker with a bridge, published ports and user ids of its own for containers."""
    try:
        with docker_daemon(runtime=program, aside=True) as docker:
            docker("import", archive, "bb")
            yield docker
    except Unavailable as error:
        pytest.skip(str(error))


SERVER = ("/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/echo", "served")


def test_docker_publishes_ports(docker_aside: Docker) -> None:
    docker_aside("run", "--runtime", "pyrt", "-d", "--name", "box", "--publish", "8080:80", "bb", *SERVER)
    try:
        daemon = (docker_aside.folder / "pid").read_text()
        # By the daemon's proxy, and by the firewall's rules.
        for address in ("127.0.0.1", "172.17.0.1"):
            assert answer(["nsenter", "--target", daemon, "--net"], address, 8080) == "served\n", address
    finally:
        docker_aside("rm", "-f", "box")


def test_docker_remaps_users(docker_aside: Docker) -> None:
    out = docker_aside.folder / "out"
    out.mkdir()
    out.chmod(0o777)
    script = "cat /proc/self/uid_map; touch /out/made; id -u"
    volume = ("--volume", f"{out}:/out")
    seen = docker_aside("run", "--runtime", "pyrt", "--rm", *volume, "bb", "/bin/sh", "-c", script).split()
    assert seen == ["0", "300000", "65536", "0"]
    assert (out / "made").stat().st_uid == 300000
    kept = ("--runtime", "pyrt", "--rm", "--userns", "host", "bb", "/bin/cat", "/proc/self/uid_map")
    assert docker_aside("run", *kept).split() == ["0", "0", "4294967295"]


def call(*words: str | Path) -> str:
    """A command line to its end."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def storage(leakcheck: Oracle) -> Iterator[tuple[Any, ...]]:
    """Folders of its own for podman and buildah, and what is mounted there is unmounted."""
    with tempfile.TemporaryDirectory(prefix="podman-", dir=SHORT) as name:
        yield ("--root", f"{name}/root", "--runroot", f"{name}/run", "--storage-driver", "vfs")


class Podman(NamedTuple):
    """Called, its command line."""

    line: tuple[str | Path, ...]

    def __call__(self, *words: str | Path) -> str:
        return call(*self.line, *words)


@pytest.fixture
def podman(program: Path, archive: Path, storage: tuple[Any, ...]) -> Podman:
    """Podman with the image `bb`."""
    flags = ("--tmpdir", f"{storage[1]}/tmp", "--cgroup-manager", "cgroupfs", "--events-backend", "file")
    podman = Podman(("podman", *storage, *flags, "--runtime", program))
    podman("import", archive, "bb")
    return podman


def test_podman_lives_with_a_container(podman: Podman) -> None:
    assert podman("run", "--rm", "--network", "none", "bb", "/bin/echo", "hello") == "hello\n"
    mapped = podman(
        "run", "--rm", "--network", "none", "--uidmap", "0:100000:65536", "bb", "/bin/cat", "/proc/self/uid_map"
    )
    assert mapped.split() == ["0", "100000", "65536"]
    podman("run", "-d", "--name", "box", "--network", "none", "bb", "/bin/sleep", "1000")
    try:
        assert podman("exec", "box", "/bin/echo", "inside") == "inside\n"
        podman("pause", "box")
        podman("unpause", "box")
        podman("stop", "--time", "0", "box")
    finally:
        podman("rm", "-f", "box")


def test_podman_limits_restarts_and_looks_after_health(podman: Podman, tmp_path: Path) -> None:
    """Limits that hold and are changed, volumes, `attach`, a health check and a restart policy."""
    options = ("--network", "none", "--memory", "32m", "--pids-limit", "17", "--volume", f"{tmp_path}:/data")
    check = ("--health-cmd", "test -f /data/well", "--health-interval", "disable", "--health-retries", "1")
    podman("run", "-d", "--interactive", "--name", "box", *options, *check, "bb", "/bin/sh", "-c", "read word; exit 5")
    try:
        files = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max")
        assert podman("exec", "box", "/bin/cat", *files).split() == [str(32 << 20), "17"]
        podman("update", "--memory", "64m", "box")
        assert podman("exec", "box", "/bin/cat", files[0]).split() == [str(64 << 20)]
        assert "box" in podman("stats", "--no-stream", "--format", "{{.Name}}", "box")
        with pytest.raises(AssertionError):
            podman("healthcheck", "run", "box")
        podman("exec", "box", "/bin/touch", "/data/well")
        podman("healthcheck", "run", "box")
        assert (tmp_path / "well").exists()
        subprocess.run(
            [*map(str, podman.line), "attach", "box"], input="word\n", text=True, check=True, timeout=PATIENCE
        )
        assert podman("wait", "box") == "5\n"
        podman("run", "-d", "--name", "again", "--restart", "on-failure:1", "--network", "none", "bb", "/bin/false")
        state = "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}"
        becomes(lambda: podman("inspect", "--format", state, "again"), "1 exited 1")
    finally:
        podman("rm", "--force", "--all", "--time", "0")


CONFIGURATION = """
[network]
network_backend = "cni"
cni_plugin_dirs = ["{plugins}"]
network_config_dir = "{folder}/networks"
"""


def test_podman_publishes_ports(podman: Podman, tmp_path: Path) -> None:
    """On a bridge, by rules of the firewall."""
    configuration = tmp_path / "containers.conf"
    configuration.write_text(CONFIGURATION.format(plugins=PLUGINS, folder=tmp_path))
    with network() as within:
        inside = Podman((*within, "env", f"CONTAINERS_CONF={configuration}", *podman.line))
        inside("run", "-d", "--name", "box", "--publish", "8080:80", "bb", *SERVER)
        try:
            (found,) = json.loads(inside("inspect", "box"))
            own = found["NetworkSettings"]["Networks"]["podman"]
            for address, port in (("127.0.0.1", 8080), (own["Gateway"], 8080), (own["IPAddress"], 80)):
                assert answer(within, address, port) == "served\n", address
        finally:
            inside("rm", "--force", "--time", "0", "box")


def test_podman_gives_what_is_asked_for(podman: Podman) -> None:
    run = ("run", "--rm", "--network", "none")
    seen = podman(*run, *GIVEN, "bb", "/bin/sh", "-c", GIVEN_SCRIPT).split()
    # Podman itself says where a user is at home that the image does not know.
    assert seen == GIVEN_SEEN.split()
    # A systemd inside has its hierarchy of groups, where there is one.
    script = "mount | grep -c ' /sys/fs/cgroup/systemd '"
    named = " /sys/fs/cgroup/systemd " in Path("/proc/self/mounts").read_text()
    seen = podman(*run, "--systemd", "always", "bb", "/bin/sh", "-c", f"{script}; echo $container").split()
    assert (seen[0] != "0", seen[1]) == (named, "podman")


POD = """
apiVersion: v1
kind: Pod
metadata: {{name: pod}}
spec:
  restartPolicy: Never
  containers:
  - name: one
    image: localhost/bb:latest
    imagePullPolicy: Never
    command: [sh, -c, "cat /data/word; id -u; touch /x 2>/dev/null || echo refused; exec sleep 1000"]
    securityContext: {{runAsUser: 1000, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
    resources: {{limits: {{memory: 64Mi}}}}
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, hostPath: {{path: {folder}}}}}]
"""
POD_CONFIGURATION = """
[engine]
infra_image = "localhost/pause:latest"
"""


def test_podman_plays_a_pod_of_kubernetes(podman: Podman, archive: Path, tmp_path: Path) -> None:
    podman("import", "--change", "CMD /bin/sleep 1000", archive, "pause")
    configuration = tmp_path / "containers.conf"
    configuration.write_text(POD_CONFIGURATION)
    inside = Podman(("env", f"CONTAINERS_CONF={configuration}", *podman.line))
    data = tmp_path / "data"
    data.mkdir()
    (data / "word").write_text("word\n")
    (tmp_path / "pod.yml").write_text(POD.format(folder=data))
    try:
        inside("play", "kube", "--network", "none", tmp_path / "pod.yml")
        becomes(lambda: " ".join(inside("logs", "pod-one").split()), "word 1000 refused")
        limit = inside("exec", "pod-one", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
        assert limit == f"{64 << 20}\n"
        assert "sleep 1000" in inside("pod", "top", "pod", "args")
        assert "ExecStart=" in inside("generate", "systemd", "--name", "pod")
    finally:
        inside("play", "kube", "--down", tmp_path / "pod.yml")


def test_podman_of_a_plain_user(program: Path, archive: Path, plain_user: PlainUser) -> None:
    """In the user namespace that podman makes: devices are bound, and there are no cgroups to be had."""
    runtime = shutil.copy2(program, plain_user.home / "pyrt-runtime")
    image = shutil.copy2(archive, plain_user.home / "bb.tar")
    flags = ("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file")

    def podman(*words: str | Path) -> str:
        return call(*plain_user.words, "podman", *flags, "--runtime", runtime, *words)

    podman("import", image, "bb")
    try:
        script = "cat /proc/self/uid_map; echo x > /dev/null && head -c 3 /dev/zero | wc -c; touch /proc/version 2>&1"
        seen = podman("run", "--rm", "--network", "none", "bb", "/bin/sh", "-c", f"{script}; true").split()
        assert seen[:7] == ["0", "7777", "1", "1", "400000", "65536", "3"]
        kept = podman("run", "--rm", "--network", "none", "--userns", "keep-id", "bb", "/bin/sh", "-c", "id -u; id -g")
        assert kept.split() == ["7777", "7777"]
        podman("run", "-d", "--name", "box", "--network", "none", "--tty", "bb", "/bin/sleep", "1000")
        assert podman("exec", "box", "/bin/echo", "inside") == "inside\n"
        assert podman("inspect", "--format", "{{.State.Status}}", "box") == "running\n"
        podman("stop", "--time", "0", "box")
        podman("rm", "-f", "box")
        # By slirp4netns, which needs no rights.
        podman("run", "-d", "--name", "box", "--publish", "127.0.0.1::80", "bb", *SERVER)
        address, _, port = podman("port", "box", "80").strip().rpartition(":")
        assert answer([], address, int(port)) == "served\n"
        podman("rm", "--force", "--time", "0", "box")
    finally:
        # Ends the process that keeps podman's namespaces.
        podman("system", "migrate")


def test_a_pod_of_podman_shares_namespaces(podman: Podman) -> None:
    """Two containers that join what the pod's own process has, by the paths of its namespaces."""
    infra = ("--infra-image", "bb", "--infra-command", "/bin/sleep 1000", "--network", "none")
    podman("pod", "create", "--name", "pod", "--share", "net,ipc,uts", *infra)
    try:
        podman("run", "-d", "--pod", "pod", "--name", "one", "bb", "/bin/sleep", "1000")
        script = "for kind in net ipc uts; do readlink /proc/self/ns/$kind; done"
        first = podman("exec", "one", "/bin/sh", "-c", script)
        assert podman("run", "--rm", "--pod", "pod", "bb", "/bin/sh", "-c", script) == first
    finally:
        podman("pod", "rm", "--force", "--time", "0", "pod")


def test_containerd_runs_it_for_runc(docker: Docker, program: Path, busybox_rootfs: Path) -> None:
    """`ctr run --runc-binary`, at the containerd that Docker has started."""
    address = docker.folder / "exec" / "containerd" / "containerd.sock"
    flags = ("--rm", "--runc-binary", program, "--rootfs", busybox_rootfs)
    assert call("ctr", "--address", address, "run", *flags, "box", "/bin/echo", "hello") == "hello\n"


@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")
def test_buildah_runs_a_step(program: Path, archive: Path, storage: tuple[Any, ...], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f'FROM scratch\nADD {archive.name} /\nRUN ["/bin/sh", "-c", "echo built > /built"]\n'
    )
    shutil.copy2(archive, tmp_path)
    flags = ("--runtime", program, "--isolation", "oci", "--network", "none")
    assert "COMMIT" in call("buildah", *storage, "bud", *flags, "--tag", "out", tmp_path)

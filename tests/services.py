"""Other people's daemons, each with folders and an address of its own: docker-registry, dockerd, containerd."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.leakcheck import resident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# dockerd, cold, on a busy machine of two cores.
PATIENCE = 60.0
# Whatever TMPDIR says while a test runs: a socket's path has room for 104 bytes.
SHORT = "/tmp"


class Unavailable(Exception):
    """The daemon can't be had on this machine, and why."""


class Registry(NamedTuple):
    """A registry that is being served."""

    address: str
    credentials: tuple[str, str] | None


@contextmanager
def serving(storage: Path, *, credentials: tuple[str, str] | None = None) -> Iterator[Registry]:
    """docker-registry 2.8 on a free port of 127.0.0.1, over `storage`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="registry-", dir=SHORT)))
        configuration = folder / "config.yml"
        configuration.write_text(_configuration(storage, folder, credentials))
        server = stack.enter_context(_running(["docker-registry", "serve", str(configuration)], folder / "log"))
        address = _wait_for(server, folder / "log", lambda log: re.search(r"listening on (127\.0\.0\.1:\d+)", log))
        yield Registry(address[1], credentials)


def _configuration(storage: Path, folder: Path, credentials: tuple[str, str] | None) -> str:
    lines = [
        "version: 0.1",
        "log: {level: info, accesslog: {disabled: true}}",
        f"storage: {{filesystem: {{rootdirectory: {storage}}}, maintenance: {{uploadpurging: {{enabled: false}}}}}}",
        "http: {addr: '127.0.0.1:0', secret: not-a-secret}",
    ]
    if credentials is not None:
        name, password = credentials
        hashed = subprocess.run(["htpasswd", "-Bbn", name, password], capture_output=True, text=True, check=True)
        (folder / "htpasswd").write_text(hashed.stdout)
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {folder / 'htpasswd'}}}}}")
    return "\n".join(lines)


class Docker(NamedTuple):
    """A running daemon; called, its command line."""

    folder: Path

    @property
    def address(self) -> str:
        """As $DOCKER_HOST has it."""
        return f"unix://{self.folder / 'socket'}"

    @property
    def containerd(self) -> Path:
        """The socket of the containerd that it has started."""
        return self.folder / "exec/containerd/containerd.sock"

    def __call__(self, *words: str | Path) -> str:
        # The classic builder: BuildKit's client is a package of its own.
        environment = {"DOCKER_BUILDKIT": "0", "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.folder)}
        line = ["docker", "--host", self.address, *map(str, words)]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"docker {words[0]}: {done.stderr}")
        return done.stdout


@contextmanager
def docker_daemon(storage: str = "vfs", *, runtime: Path | None = None, aside: bool = False) -> Iterator[Docker]:
    """Docker's daemon, in folders of its own and without a network.

    With `runtime` that OCI runtime is called by the name `pyrt`. `aside` is a daemon in a network and a mount namespace
    of its own, which has its bridge and its firewall rules there, and gives each container the user ids from 300000 on.

    Raises:
        Unavailable: it is not installed or does not start.
    """
    if shutil.which("dockerd") is None:
        raise Unavailable("dockerd is not installed")
    with tempfile.TemporaryDirectory(prefix="dockerd-", dir=SHORT) as name:
        docker = Docker(Path(name))
        folder = docker.folder
        command = [
            *("dockerd", "--host", docker.address, "--pidfile", str(folder / "pid")),
            *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
            f"--storage-driver={storage}",
            *([] if runtime is None else [f"--add-runtime=pyrt={runtime}"]),
            *(
                ["--userns-remap=nobody:nogroup"]
                if aside
                else ["--bridge=none", "--iptables=false", "--ip6tables=false"]
            ),
        ]
        if aside:
            command = _aside(folder, command)
        with _running(command, folder / "log") as server:
            try:
                _wait_for(server, folder / "log", lambda log: re.search("API listen on", log))
            except RuntimeError as error:
                raise Unavailable(f"dockerd does not start here: {error}") from error
            yield docker


def _aside(folder: Path, command: list[str]) -> list[str]:
    """The command where it neither finds nor leaves anything of this machine's network and its lists of user ids."""
    # Its containers' root has to come by.
    folder.chmod(0o711)
    steps = []
    for file in ("subuid", "subgid"):
        (folder / file).write_text("nobody:300000:65536\n")
        steps.append(f"mount --bind {folder / file} /etc/{file}")
    return apart(command, steps)


def apart(command: list[str], steps: Iterable[str] = ()) -> list[str]:
    """The command in a network and a mount namespace of its own, after these lines of a shell."""
    script = " && ".join(["ip link set lo up", *steps, 'exec "$@"'])
    return ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *command]


# Where network plug-ins and their callers keep what they have made: it is to end with the namespaces.
FORGETFUL = tuple(f"mount -t tmpfs tmpfs {folder}" for folder in ("/run", "/var/lib"))
# Debian's package containernetworking-plugins.
PLUGINS = Path("/usr/lib/cni")


@contextmanager
def network() -> Iterator[list[str]]:
    """A network for bridges and firewall rules; yields the words that a command line in it begins with."""
    command = apart(["sleep", "infinity"], (*FORGETFUL, "echo ready"))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield ["nsenter", "--target", str(process.pid), "--net", "--mount"]
        finally:
            process.kill()


def answer(within: list[str], host: str, port: int) -> str:
    """What a server says, which need not listen yet; `within` are the words of a network."""
    line = [*within, "busybox", "nc", "-w", "5", host, str(port)]
    deadline, said = time.monotonic() + PATIENCE, ""
    while not said and time.monotonic() < deadline:
        said = subprocess.run(line, stdin=subprocess.PIPE, capture_output=True, text=True, check=False).stdout
    return said


class Containerd(NamedTuple):
    """A running containerd: its socket, and the process whose network it is in."""

    address: Path
    process: int


@contextmanager
def containerd(folder: Path, runtime: Path, *, pause: str) -> Iterator[Containerd]:
    """containerd with its CRI plug-in, which calls `runtime` and makes pods of the image `pause`.

    It is in a network of its own, in which its pods have a bridge.

    Raises:
        Unavailable: it is not installed or does not start.
    """
    if shutil.which("containerd") is None:
        raise Unavailable("containerd is not installed")
    configuration = folder / "containerd.toml"
    configuration.write_text(_CONTAINERD.format(folder=folder, runtime=runtime, pause=pause, plugins=PLUGINS))
    (folder / "networks").mkdir()
    (folder / "networks" / "pods.conflist").write_text(json.dumps(_PODS))
    with _running(apart(["containerd", "--config", str(configuration)], FORGETFUL), folder / "log") as server:
        try:
            _wait_for(server, folder / "log", lambda log: re.search("containerd successfully booted", log))
        except RuntimeError as error:
            raise Unavailable(f"containerd does not start here: {error}") from error
        yield Containerd(folder / "socket", server.pid)


_PODS = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pods",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/16"}]]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

_CONTAINERD = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{folder}/socket"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/networks"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "pyrt"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.pyrt]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.pyrt.options]
BinaryName = "{runtime}"
"""


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    resident(process.pid)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait_for(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[str], re.Match[str] | None]
) -> re.Match[str]:
    """Looks at the log until it says that the daemon serves."""
    deadline = time.monotonic() + PATIENCE
    text = ""
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if match := ready(text):
            return match
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not serve:\n{text[-2000:]}")

"""Where a bench takes place: folders of its own, one image, and the same files unpacked for tools that want a folder.

Nothing of the user's is touched: state root, sockets and temporary files of everything that is started lie in here.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pyrt.bench.programs import write_programs

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE: Final = "bench/clock:latest"
CLOCK: Final = "/bin/clock"
IDLE: Final = "/bin/idle"
LINGER: Final = "/bin/linger"
LAYERS: Final = 5
"""Of the image that starts are measured with, as a usual one has."""
# Whatever TMPDIR says: the path of a socket has room for 107 bytes. Servers have theirs in memory, where the name of a
# socket costs no disk's journal.
_SHORT: Final = "/run" if os.access("/run", os.W_OK) else "/tmp"
_FOLDERS: Final = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")


class Ground:
    """``folder`` holds everything; ``rootfs`` is the image's tree, ``archive`` the image as `docker save` writes it."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder = folder
        self.root, self.run = folder / "root", run
        self.rootfs = folder / "rootfs"
        self.archive = folder / "image.tar"
        self.stamp = str(self.rootfs / "bin/stamp")
        self.environment = {
            **os.environ,
            "PYRT_ROOT": str(self.root),
            "PYRT_RUN": str(self.run),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        }

    def program(self, name: str) -> str | None:
        """The absolute path of a program, if it is installed."""
        return shutil.which(name, path=self.environment["PATH"])

    def room(self, name: str) -> Path:
        """An empty folder for one tool."""
        room = self.folder / name
        room.mkdir()
        return room


@contextmanager
def prepared(layers: int = LAYERS) -> Iterator[Ground]:
    """A ground for the time of the block: below $PYRT_BENCH_DIR, or where temporary files are. Raises HostError."""
    with (
        tempfile.TemporaryDirectory(prefix="pyrt-bench-", dir=os.environ.get("PYRT_BENCH_DIR")) as name,
        tempfile.TemporaryDirectory(prefix="pyrt-bench-", dir=_SHORT) as run,
    ):
        ground = Ground(Path(name), Path(run))
        # What runs in a user namespace of its own has to get to the image's tree.
        ground.folder.chmod(0o755)
        ground.root.mkdir(mode=0o700)
        _build_rootfs(ground.rootfs)
        write_archive(ground.archive, ground.rootfs, layers)
        yield ground


def _build_rootfs(rootfs: Path) -> None:
    for name in ("bin", *_FOLDERS):
        (rootfs / name).mkdir(parents=True)
    write_programs(rootfs / "bin")
    for name in ("hosts", "hostname", "resolv.conf"):
        (rootfs / "etc" / name).touch()
    # systemd-nspawn starts nothing that does not look like a system.
    (rootfs / "etc/os-release").write_text("ID=bench\n")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/false\n")


def write_archive(path: Path, rootfs: Path, layers: int, name: str = IMAGE) -> None:
    """An image of ``layers`` layers, the lowest of which is ``rootfs``, in the form of `docker save`."""
    plain = [_tar_of_tree(rootfs), *(_tar_of_file(f"layers/{number}", number) for number in range(1, layers))]
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in plain]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": [CLOCK], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "pyrt bench"}] * layers,
    }
    files = {f"{number}.tar": layer for number, layer in enumerate(plain)}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": list(files)}]
    with tarfile.open(path, "w") as archive:
        for member, content in {**files, "config.json": _json(config), "manifest.json": _json(manifest)}.items():
            _add(archive, member, content)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _tar_of_tree(tree: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(tree, ".", filter=_of_root)
    return buffer.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


def _tar_of_file(name: str, number: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, name, b"%d\n" % number)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@contextmanager
def serving(ground: Ground) -> Iterator[str]:
    """`pyrt serve` on this ground, for the time of the block; gives the native command that speaks to it."""
    words = [sys.executable, "-m", "pyrt", "serve"]
    server = subprocess.Popen(words, env=ground.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()  # It says where it serves once it does.
        client = ground.program("pyrt")
        if client is None:
            raise FileNotFoundError("the native command pyrt is not installed beside this Python")
        yield client
    finally:
        server.terminate()
        server.communicate()

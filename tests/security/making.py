"""Images with traps in them, and the programs of this folder that run inside: the probe and the hostile loops."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrt.images.composing import compose_manifest
from pyrt.images.manifest import OCI_MANIFEST
from pyrt.images.reference import Reference
from tests.images.making import config_of, ingest

if TYPE_CHECKING:
    from pyrt.images.image import Image
    from pyrt.images.store import Store

HERE = Path(__file__).parent
PROGRAMS = ("probe", "hostile")
APPLETS = "cat chmod cp echo find id ln ls mkdir mknod mount rm sh sleep stat touch true umount".split()
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = b"root:x:0:\nalice:x:1000:\nvideo:x:44:alice\n"
# How much longer than in CI races and sweeps go on: PYRT_SECURITY_ROUNDS=20 is the thousands of the security notes.
ROUNDS = int(os.environ.get("PYRT_SECURITY_ROUNDS", "1"))

Member = tuple[tarfile.TarInfo, bytes]


def compiled(source: Path, program: Path, *flags: str) -> Path:
    """The program of a C file."""
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", *flags, "-o", program, source], check=True)
    return program


def file(name: str, content: bytes = b"", mode: int = 0o755) -> Member:
    return _member(name, tarfile.REGTYPE, content, mode=mode)


def folder(name: str, mode: int = 0o755) -> Member:
    return _member(name, tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> Member:
    return _member(name, tarfile.SYMTYPE, linkname=target)


def fifo(name: str) -> Member:
    return _member(name, tarfile.FIFOTYPE)


def device(name: str, major: int, minor: int) -> Member:
    return _member(name, tarfile.CHRTYPE, devmajor=major, devminor=minor)


def _member(name: str, kind: bytes, content: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o755
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def layer(*members: Member) -> bytes:
    """A plain tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def base_layer(programs: Path) -> bytes:
    """A shell, a few tools, the programs of this folder, and two users."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    return layer(
        *(folder(name) for name in ("bin", "etc", "root", "srv", "home", "home/alice")),
        folder("tmp", 0o1777),
        file("bin/busybox", busybox.read_bytes()),
        *(link(f"bin/{name}", "busybox") for name in APPLETS),
        *(file(f"bin/{name}", (programs / name).read_bytes()) for name in PROGRAMS),
        file("etc/passwd", PASSWD, 0o644),
        file("etc/group", GROUP, 0o644),
    )


def add(store: Store, *plain: bytes, name: str | None = None, **config: Any) -> Image:
    """An image of these layers, the lowest first; ``config`` is the run part of its configuration."""
    config.setdefault("Env", ["PATH=/bin"])
    with store.pinned():
        layers = [ingest(store, one, compress=False) for one in plain]
        content = config_of(*plain, **config)
        known = [(found, "") for _, diff_id, _ in layers if (found := store.layer(diff_id))]
        return store.add_image(
            manifest=compose_manifest(content, known),
            manifest_media_type=OCI_MANIFEST,
            config=content,
            layers=layers,
            names=[Reference.parse(name)] if name else [],
        )

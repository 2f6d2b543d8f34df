"""Getting a layer onto the disk: pyrt with both digests, and what others take for it.

Each extraction has a fresh ext4 of its own on a loop device: on one file system, extracting right after deleting trees
is eight times slower than it would be, and the first to come has the best places.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

import pyrt
from pyrt import _native
from pyrt.bench import results
from pyrt.bench.cases import Case, interleave, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benches.scale import Scale

    from pyrt.bench.cases import Sample
    from pyrt.bench.results import Document, Run

    Work = Callable[[Path], object]

NAME: Final = "extraction"
_DISK: Final = 2 << 30
_SMALL_FILES: Final = 20_000
_NAME: Final = "bench/extraction:latest"


async def measure(scale: Scale) -> Document:
    with tempfile.TemporaryDirectory(prefix="pyrt-bench-", dir=os.environ.get("PYRT_BENCH_DIR")) as name:
        folder = Path(name)
        layers = _layers(folder, scale)
        runs = [await _run(folder, title, layer, scale.slow_samples) for title, layer in layers.items()]
    return results.document(NAME, runs)


# ---- what is extracted ----


def _layers(folder: Path, scale: Scale) -> dict[str, Path]:
    files = folder / "small-files.tar.gz"
    count = _SMALL_FILES if scale.whole else 50
    _write_small_files(files, count)
    layers = {f"{count:,} files of 1 KB, gzip": files}
    if scale.whole:
        plain = folder / "debian.tar"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", plain], check=True)
        subprocess.run(["gzip", "--keep", "-6", plain], check=True)
        subprocess.run(["zstd", "--quiet", "-3", plain, "-o", f"{plain}.zst"], check=True)
        compressed = {"gzip": Path(f"{plain}.gz"), "zstd": Path(f"{plain}.zst"), "plain": plain}
        layers |= {f"Debian minbase, {title}": path for title, path in compressed.items()}
        layers = {
            title if "D" in title or "f" in title else f"Debian minbase, {title}": at for title, at in layers.items()
        }
    return layers


def _write_small_files(path: Path, count: int) -> None:
    with gzip.open(path, "wb", compresslevel=6) as compressed, tarfile.open(fileobj=compressed, mode="w|") as archive:
        for number in range(count):
            member = tarfile.TarInfo(f"folder-{number // 100}/file-{number}")
            content = (b"%d\n" % number) * 170
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


# ---- who extracts ----


async def _run(folder: Path, title: str, layer: Path, samples: int) -> Run:
    with ExitStack() as stack:
        archive = stack.enter_context(_image(folder, layer)) if layer.suffix == ".gz" else None
        cases = [
            Case("pyrt, both digests", _on_a_fresh_disk(folder, lambda target: _by_pyrt(layer, target))),
            *_tools(folder, layer),
            *(_loaders(folder, archive) if archive else []),
        ]
        await interleave(cases, samples, warmup=1)
    base = "tar xzf" if layer.suffix == ".gz" else "tar"
    return results.summarized(title, "ms", cases, base)


def _tools(folder: Path, layer: Path) -> list[Case]:
    decompress = {".gz": ["-z"], ".zst": ["--zstd"], ".tar": []}[layer.suffix]
    name = "tar xzf" if layer.suffix == ".gz" else "tar"
    missing = "digests, whiteouts"
    tar = ["tar", "--numeric-owner", "--xattrs", "-xp", *decompress, "-f", str(layer)]
    return [
        _tool(folder, name, [*tar, "-C"], missing),
        _tool(folder, "bsdtar", ["bsdtar", "-xpf", str(layer), "-C"], missing),
    ]


def _loaders(folder: Path, archive: Path) -> list[Case]:
    """Whole images: each reads the same archive, an OCI layout in a tar."""
    layout = folder / f"{archive.stem}-layout"
    call = ["ctr", "--namespace", "pyrt-bench", "image"]
    return [
        Case("pyrt load", _on_a_fresh_disk(folder, lambda target: _load_by_pyrt(archive, target))),
        _tool(folder, "umoci raw unpack", ["umoci", "raw", "unpack", "--image", f"{layout}:latest"], "", "rootfs"),
        Case("podman load", _on_a_fresh_disk(folder, lambda target: _load_by_podman(archive, target)), version=""),
        _loading_by_ctr(call, archive),
    ]


def _tool(folder: Path, name: str, words: Sequence[str], missing: str, below: str = "") -> Case:
    if shutil.which(words[0]) is None:
        return unavailable(name, f"{words[0]} is not installed", missing)

    def work(target: Path) -> None:
        _tell([*words, str(target / below) if below else str(target)])

    return Case(name, _on_a_fresh_disk(folder, work), missing=missing)


def _by_pyrt(layer: Path, target: Path) -> None:
    source, directory = os.open(layer, os.O_RDONLY), os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _native.extract_layer(source, directory)
    finally:
        os.close(source)
        os.close(directory)


def _load_by_pyrt(archive: Path, target: Path) -> None:
    async def load() -> None:
        async with pyrt.open_engine(target / "root", run_dir=target / "run") as engine:
            await engine.load(archive, name=_NAME)

    # In a loop of its own: this one is in a thread.
    trio.run(load)


def _load_by_podman(archive: Path, target: Path) -> None:
    places = ["--root", str(target / "root"), "--runroot", str(target / "run"), "--storage-driver", "overlay"]
    _tell(["podman", *places, "load", "--quiet", "--input", str(archive)])
    subprocess.run(["umount", str(target / "root/overlay")], capture_output=True, check=False)


def _loading_by_ctr(call: list[str], archive: Path) -> Case:
    async def sample() -> dict[str, float]:
        begun = time.monotonic()
        await trio.to_thread.run_sync(_tell, [*call, "import", "--base-name", "bench/extraction", str(archive)])
        took = (time.monotonic() - begun) * 1000
        for name in _tell([*call, "list", "--quiet"]).split():
            _tell([*call, "remove", "--sync", name])
        return {"whole": took}

    return Case("ctr image import", sample, missing="a fresh disk")


def _tell(words: Sequence[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


# ---- where to ----


def _on_a_fresh_disk(folder: Path, work: Work) -> Sample:
    async def sample() -> dict[str, float]:
        with _disk(folder) as target:
            begun = time.monotonic()
            await trio.to_thread.run_sync(work, target)
            return {"whole": (time.monotonic() - begun) * 1000}

    return sample


@contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    """A new ext4, which goes with the block."""
    file, target = folder / "disk", folder / "mounted"
    with file.open("wb") as made:
        made.truncate(_DISK)
    target.mkdir(exist_ok=True)
    _tell(["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1", str(file)])
    _tell(["mount", "-o", "loop", str(file), str(target)])
    place = target / "place"
    place.mkdir()
    try:
        os.sync()
        yield place
    finally:
        _tell(["umount", str(target)])
        file.unlink()


@contextmanager
def _image(folder: Path, layer: Path) -> Iterator[Path]:
    """An OCI layout of this one layer, written by umoci and as a tar."""
    archive = folder / f"{layer.name.partition('.')[0]}.oci"
    layout = folder / f"{archive.stem}-layout"
    plain = folder / "layer.tar"
    with gzip.open(layer) as source, plain.open("wb") as target:
        shutil.copyfileobj(source, target)
    _tell(["umoci", "init", "--layout", str(layout)])
    _tell(["umoci", "new", "--image", f"{layout}:latest"])
    _tell(["umoci", "raw", "add-layer", "--image", f"{layout}:latest", str(plain)])
    _tell(["tar", "-cf", str(archive), "-C", str(layout), "."])
    plain.unlink()
    try:
        yield archive
    finally:
        archive.unlink()
        shutil.rmtree(layout)

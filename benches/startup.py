"""Start-up against the peers that are installed: `python -m benches.startup [--samples N]`.

What is timed is a static program that prints CLOCK_MONOTONIC: `ready` is from just before the request to that
print, `whole` until the request has been answered (the command has exited, the library call has returned).
Every case runs it from the same files: an image of five layers for pyrt, the same tree unpacked for the
runtimes that take a bundle. `hot` is back to back, `gap` has 100 ms of quiet before each start.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio
from benches import timing
from benches.timing import Case

import pyrt
from pyrt.runtime.capabilities import DEFAULT
from pyrt.runtime.seccomp import default_profile

HERE = Path(__file__).parent
IMAGE = "bench/five-layers:latest"


def build_rootfs(folder: Path) -> Path:
    """A root file system of busybox and the clock program."""
    rootfs = folder / "rootfs"
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "a", "b", "c", "d"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    (rootfs / "bin/sh").symlink_to("busybox")
    subprocess.run(["cc", "-O2", "-static", "-o", rootfs / "bin/clock", HERE / "clock.c"], check=True)
    return rootfs


def five_layers(folder: Path, rootfs: Path) -> Path:
    """An OCI layout of five layers, written by umoci."""
    layout = folder / "layout"

    def umoci(*words: str) -> None:
        subprocess.run(["umoci", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    umoci("init", "--layout", str(layout))
    umoci("new", "--image", f"{layout}:five")
    for directory in ("bin", "a", "b", "c", "d"):
        layer = folder / f"{directory}.tar"
        with tarfile.open(layer, "w") as archive:
            archive.add(rootfs / directory, directory)
        umoci("raw", "add-layer", "--image", f"{layout}:five", str(layer))
    umoci("config", "--image", f"{layout}:five", "--config.cmd", "/bin/clock")
    return layout


def bundle(folder: Path, rootfs: Path, seccomp: dict[str, object] | None) -> Path:
    """A bundle for crun and runc, with the seccomp profile that pyrt uses or without any."""
    place = folder / ("bundle-seccomp" if seccomp else "bundle")
    place.mkdir()
    subprocess.run(["runc", "spec"], cwd=place, check=True)
    config = json.loads((place / "config.json").read_text())
    config["process"].update(args=["/bin/clock"], terminal=False)
    config["root"] = {"path": str(rootfs), "readonly": True}
    if seccomp:
        config["linux"]["seccomp"] = seccomp
    (place / "config.json").write_text(json.dumps(config))
    return place


def figures(output: bytes, begun: int, ended: int) -> dict[str, float]:
    """Milliseconds until the program's own clock reading, and until the answer."""
    return {"ready": (int(output) - begun) / 1e6, "whole": (ended - begun) / 1e6}


def command(words: Sequence[str]) -> Callable[[], Awaitable[dict[str, float]]]:
    """A command of somebody's, from just before its fork to its end."""

    async def sample() -> dict[str, float]:
        begun = time.monotonic_ns()
        # Blocks the event loop on purpose: nothing else is to run meanwhile.
        done = subprocess.run(words, capture_output=True, check=False, stdin=subprocess.DEVNULL)  # noqa: ASYNC221
        ended = time.monotonic_ns()
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}")
        return figures(done.stdout, begun, ended)

    return sample


def library(engine: pyrt.Engine) -> Callable[[], Awaitable[dict[str, float]]]:
    """A call of the engine in this process."""

    async def sample() -> dict[str, float]:
        begun = time.monotonic_ns()
        done = await engine.run(IMAGE, ["/bin/clock"])
        ended = time.monotonic_ns()
        if done.exit_code:
            raise RuntimeError(done.stderr.decode(errors="replace"))
        return figures(done.stdout, begun, ended)

    return sample


def peers(folder: Path, rootfs: Path) -> list[Case]:
    """What else is installed, from the least to the most that it does."""
    folder.mkdir()
    profile = json.loads(default_profile(DEFAULT))
    plain, filtered = bundle(folder, rootfs, None), bundle(folder, rootfs, profile)
    names = (f"pyrt-bench-{os.getpid()}-{number}" for number in itertools.count())

    def runtime(name: str, place: Path) -> Callable[[], Awaitable[dict[str, float]]]:
        async def sample() -> dict[str, float]:
            return await command([name, "run", "--bundle", str(place), next(names)])()

        return sample

    bwrap = ["bwrap", "--ro-bind", str(rootfs), "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "/bin/clock"]
    unshare = ["unshare", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", f"--root={rootfs}", "/bin/clock"]
    return [
        Case("unshare + chroot", command(unshare), "no mounts, limits, seccomp, capabilities"),
        Case("bubblewrap", command(bwrap), "no limits, no seccomp"),
        Case("crun", runtime("crun", plain), "no seccomp, no user namespace"),
        Case("crun, same seccomp", runtime("crun", filtered), "no user namespace"),
        Case("runc", runtime("runc", plain), "no seccomp, no user namespace"),
        Case("runc, same seccomp", runtime("runc", filtered), "no user namespace"),
    ]


async def measure(samples: int, out: Path) -> None:
    """Both runs, as tables on the standard output and as JSON in ``out``."""
    client = shutil.which("pyrt", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with tempfile.TemporaryDirectory(prefix="pyrt-bench-") as place:
        folder = Path(place)
        rootfs = build_rootfs(folder)
        layout = five_layers(folder, rootfs)
        async with pyrt.open_engine() as engine:
            await engine.load(layout, name=IMAGE)
            results = {}
            for title, gap, share in (("hot", 0.0, 1), ("gap of 100 ms", 0.1, 4)):
                cases = [Case("pyrt, library", library(engine))]
                if client:
                    cases.append(Case("pyrt run", command([client, "run", "--rm", IMAGE, "/bin/clock"])))
                cases += peers(folder / title.replace(" ", "-"), rootfs)
                await timing.interleave(cases, max(3, samples // share), gap)
                print(timing.table(title, cases, "pyrt, library"), end="\n\n")
                results[title] = cases
            timing.write(out, results)
            print(f"all samples: {out}")


def hide_cgroup2() -> None:
    """crun 1.8 refuses a host with controllers on both cgroup versions: shows all cases version 1 alone, if it has any.

    In a mount namespace of our own, which this process enters by starting anew.
    """
    unified = Path("/sys/fs/cgroup/unified")
    if unified.is_mount() and "PYRT_BENCH_INSIDE" not in os.environ:
        os.environ["PYRT_BENCH_INSIDE"] = "1"
        script = f'umount {unified} && exec "$@"'
        words = [sys.executable, "-m", "benches.startup", *sys.argv[1:]]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200, help="of each case, hot; a quarter with gaps")
    parser.add_argument("--out", type=Path, default=HERE.parent / "build/benches/startup.json")
    options = parser.parse_args()
    hide_cgroup2()
    trio.run(measure, options.samples, options.out)


if __name__ == "__main__":
    main()

"""`make demo`: containers from `host` and from a real image, how long each step took, where the files are.

It runs the commands that it prints, on a state folder of its own, so that a stranger can go on from any of them.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "build" / "demo"
STARTS = 20


def main() -> None:
    os.environ["PYRT_ROOT"] = str(BUILD / "state")
    os.environ["PYRT_RUN"] = str(BUILD / "run")
    os.environ["PATH"] = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    end_server()
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)

    say("This machine's own files as a disposable view: no image, no download. The first call starts the server.")
    run("pyrt run --rm host -- python3 -c 'print(6*7)'")
    run("pyrt run --rm host -- python3 -c 'print(6*7)'")

    say("A real image, made of one Debian package: busybox-static.")
    make_tree(BUILD / "busybox")
    run(f"pyrt image import {BUILD / 'busybox'} busybox")
    run("pyrt run --rm busybox sh -c 'echo hello from $(hostname), as $(id -un); ls /'")
    run("pyrt images")

    say("Every step that makes it, and what each took.")
    run("pyrt run --name demo busybox true")
    run("pyrt inspect --timing demo")

    say(f"{STARTS} of them, from the shell's point of view, back to back and with 100 ms between.")
    print(f"  back to back  {measure(pause=0):6.1f} ms\n  with a gap    {measure(pause=0.1):6.1f} ms\n")

    say("What happened, and what is left.")
    run("pyrt rm demo")
    run("pyrt events --since 0 --until 0s | tail -4")
    print(f"The image's files are in {layer()}\nEverything else is below {BUILD}")
    end_server()


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(command: str) -> None:
    print(f"$ {command}", flush=True)
    begun = time.perf_counter()
    done = subprocess.run(["sh", "-c", command], check=False)
    print(f"  ({(time.perf_counter() - begun) * 1000:.1f} ms)\n", flush=True)
    if done.returncode != 0:
        sys.exit(f"that ended with exit code {done.returncode}")


def make_tree(root: Path) -> None:
    """A root file system of one static program under some of its names."""
    busybox = shutil.which("busybox") or sys.exit("busybox-static is not installed")
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("bin", "etc", "tmp"):
        (root / folder).mkdir(parents=True)
    shutil.copy2(busybox, root / "bin/busybox")
    for applet in subprocess.check_output([busybox, "--list"], text=True).split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")


def measure(*, pause: float) -> float:
    """Median time of `pyrt run busybox true`, milliseconds."""
    command = shlex.split("pyrt run --rm busybox true")
    taken = []
    for _ in range(STARTS):
        time.sleep(pause)
        begun = time.perf_counter()
        subprocess.run(command, check=True)
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


def layer() -> str:
    layers = Path(os.environ["PYRT_ROOT"], "layers", "sha256")
    return ", ".join(str(path) for path in layers.iterdir())


def end_server() -> None:
    """It would end by itself when nobody has called for a while. It holds the lock as long as it lives."""
    for path in Path(os.environ["PYRT_RUN"]).glob("*.lock"):
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.kill(int(lock.read()), signal.SIGTERM)
                fcntl.flock(lock, fcntl.LOCK_EX)


if __name__ == "__main__":
    main()

"""The build backend: maturin's hooks, after the native commands have been put where maturin packs them.

The wheel carries what maturin alone would not build together: the extension module and the static
programs ``pyrt`` and ``pyrt-runtime``. The first is built once, here; the extension takes the same file
in as its spawner (``PYRT_INIT``, read by ``rust/python/build.rs``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maturin import build_editable as maturin_build_editable
from maturin import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from maturin import build_wheel as maturin_build_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "build" / "wheel" / "scripts"
# Packages of the workspace, and what their programs are called in the wheel.
PROGRAMS = {"pyrt-init": "pyrt", "pyrt-runtime": "pyrt-runtime"}
# maturin wants to see the folder even when it is asked for metadata alone.
SCRIPTS.mkdir(parents=True, exist_ok=True)
# The same words as in rust/python/build.rs: no interpreter and no relocation, so that it runs from a memfd anywhere.
STATIC = "-C target-feature=+crt-static -C relocation-model=static"


def small_target() -> str:
    """The target of static programs: with musl for a C library, if Rust has it for this machine.

    Before a program's first own instruction glibc asks the processor some sixty questions (CPUID). In a virtual machine
    each of them is answered by the host: two thirds of a millisecond where a container starts in three.
    """
    own = subprocess.check_output(["rustc", "--print", "host-tuple"], text=True).strip()
    small = own.replace("-gnu", "-musl")
    words = ["rustc", "--print", "target-libdir", "--target", small]
    return small if Path(subprocess.check_output(words, text=True).strip()).is_dir() else own


def build_commands() -> None:
    """Builds the static programs and places them as the wheel's scripts."""
    folder = ROOT / "target" / "static"
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_ENCODED_RUSTFLAGS"}
    environment |= {"RUSTFLAGS": STATIC, "CARGO_TARGET_DIR": str(folder)}
    # A named target, if only this machine's own, keeps the flags from procedural macros, which can't be static.
    target = small_target()
    packages = [word for package in PROGRAMS for word in ("--package", package)]
    cargo = ["cargo", "build", "--profile", "init", *packages, "--locked", "--target", target]
    subprocess.run(cargo, cwd=ROOT, env=environment, check=True)
    for package, command in PROGRAMS.items():
        # A running command can't be written over, a new file can take its name.
        fresh = SCRIPTS / f"{command}.new"
        shutil.copy2(folder / target / "init" / package, fresh)
        fresh.replace(SCRIPTS / command)
    os.environ["PYRT_INIT"] = str(folder / target / "init" / "pyrt-init")


def build_wheel(
    wheel_directory: str,
    config_settings: Mapping[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """PEP 517: a wheel with the library and the commands."""
    build_commands()
    return str(maturin_build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(
    wheel_directory: str,
    config_settings: Mapping[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """PEP 660: the same with the Python files left where they are."""
    build_commands()
    return str(maturin_build_editable(wheel_directory, config_settings, metadata_directory))

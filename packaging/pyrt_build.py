"""The build backend: maturin's hooks, after the native commands have been put where maturin packs them.

The wheel carries what maturin alone would not build together: the extension module and the static
programs ``pyrt`` and ``pyrt-runtime``. ``pyrt-init`` is built with them; the extension takes it in as its
spawner (``PYRT_INIT``, read by ``rust/python/build.rs``).
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
# The wheel's scripts.
COMMANDS = ("pyrt", "pyrt-runtime")
# maturin wants to see the folder even when it is asked for metadata alone.
SCRIPTS.mkdir(parents=True, exist_ok=True)
# The same words as in rust/python/build.rs: no interpreter and no relocation, so that it runs from a memfd anywhere.
STATIC = "-C target-feature=+crt-static -C relocation-model=static"


def small_target(own: str) -> str:
    """The target with musl for a C library, if Rust has it, for a command whose own start counts.

    Before a program's first own instruction glibc asks the processor some sixty questions (CPUID). In a virtual machine
    each of them is answered by the host: two thirds of a millisecond, where a `run` takes four.
    """
    small = own.replace("-gnu", "-musl")
    words = ["rustc", "--print", "target-libdir", "--target", small]
    return small if Path(subprocess.check_output(words, text=True).strip()).is_dir() else own


def build_static(target: str, *packages: str) -> Path:
    """Builds programs of the workspace for a target; the folder that they are in."""
    folder = ROOT / "target" / "static"
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_ENCODED_RUSTFLAGS"}
    environment |= {"RUSTFLAGS": STATIC, "CARGO_TARGET_DIR": str(folder)}
    words = [word for package in packages for word in ("--package", package)]
    # A named target, if only this machine's own, keeps the flags from procedural macros, which can't be static.
    cargo = ["cargo", "build", "--profile", "init", *words, "--locked", "--target", target]
    subprocess.run(cargo, cwd=ROOT, env=environment, check=True)
    return folder / target / "init"


def build_commands() -> None:
    """Builds the static programs and places them as the wheel's scripts."""
    own = subprocess.check_output(["rustc", "--print", "host-tuple"], text=True).strip()
    usual = build_static(own, "pyrt-client", "pyrt-init")
    small = build_static(small_target(own), "pyrt-runtime")
    for command, folder in zip(COMMANDS, (usual, small), strict=True):
        # A running command can't be written over, a new file can take its name.
        fresh = SCRIPTS / f"{command}.new"
        shutil.copy2(folder / command, fresh)
        fresh.replace(SCRIPTS / command)
    os.environ["PYRT_INIT"] = str(usual / "pyrt-init")


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

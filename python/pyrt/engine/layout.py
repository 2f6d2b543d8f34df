"""Where the engine's things lie below the state root, and the folders that it makes there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, final

from pyrt.errors import StateError

DEFAULT_ROOT: Final = "/var/lib/pyrt"
DEFAULT_RUN: Final = "/run/pyrt"

# The lowest layer of every root file system: what pyrt mounts over has to be there, whatever the image holds.
_SCAFFOLD_FOLDERS: Final = (("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("etc", 0o755))
_SCAFFOLD_FILES: Final = ("etc/hosts", "etc/hostname", "etc/resolv.conf")


@final
class Layout:
    """The paths of one state root. Making it makes the folders."""

    def __init__(self, root: str | os.PathLike[str] | None, run_dir: str | os.PathLike[str] | None) -> None:
        self.root = Path(root or os.environ.get("PYRT_ROOT") or DEFAULT_ROOT).absolute()
        self.run_dir = Path(run_dir or os.environ.get("PYRT_RUN") or DEFAULT_RUN).absolute()
        self.journal = self.root / "journal.db"
        self.containers = self.root / "containers"
        self.scaffold = self.root / "scaffold"
        self.owners = self.root / "engines"
        self.keepers = self.run_dir / "keepers"
        try:
            # Nobody else may walk them (CVE-2021-41103), whatever the umask is.
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.containers, self.owners):
                folder.mkdir(mode=0o700, exist_ok=True)
            self._make_scaffold()
        except OSError as error:
            raise StateError(
                f"the state folder {self.root} can't be used: {error.strerror}: {error.filename}",
                hint="run as root, or set PYRT_ROOT to a folder of your own",
            ) from error

    def _make_scaffold(self) -> None:
        if (self.scaffold / _SCAFFOLD_FILES[-1]).exists():
            return
        self.scaffold.mkdir(mode=0o755, exist_ok=True)
        for name, mode in _SCAFFOLD_FOLDERS:
            folder = self.scaffold / name
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        self.scaffold.chmod(0o755)
        for name in _SCAFFOLD_FILES:
            (self.scaffold / name).touch(mode=0o644)
            (self.scaffold / name).chmod(0o644)

    def folder(self, container: str) -> str:
        """The folder of a container."""
        return f"{self.containers}/{container}"

"""The store's folders below the state root, held open; and the pin that keeps others from deleting.

blobs/sha256/<hex>    manifests, configurations, layers as they came
layers/sha256/<hex>   extracted layers, named by the digest of their plain tar
ingest/               what is not finished; its own flock is the pin: shared by whoever reads or adds,
                      exclusive for whoever deletes
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from pyrt.errors import StateError
from pyrt.images.durable import lock, open_folder, private_folder, state_errors, unlock
from pyrt.images.image import hex_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What shows that an existing folder is a state root, whichever room came first; lost+found: a fresh file system.
_OURS: Final = frozenset({"store.db", "journal.db", "blobs", "layers", "ingest", "containers", "scaffold"})
_HARMLESS: Final = frozenset({"lost+found"})


class Layout:
    """Descriptors of the store's folders: ``blobs`` and ``layers`` are the sha256 ones."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        with state_errors("use the state folder", self.root):
            self._refuse_foreign()
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self._pinning = threading.Lock()
            self._pins = 0
            with ExitStack() as stack:
                self.folder = _held(stack, private_folder(os.fspath(self.root)))
                self.ingest = _held(stack, private_folder("ingest", within=self.folder))
                self.blobs = _held(stack, self._digests("blobs"))
                self.layers = _held(stack, self._digests("layers"))
                self._descriptors = stack.pop_all()

    def close(self) -> None:
        self._descriptors.close()

    def layer_path(self, diff_id: str) -> str:
        return f"{self.root}/layers/sha256/{hex_of(diff_id)}"

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """While open, nobody deletes a layer or a blob. Waits only for the moment in which one is being unlinked.

        Those who hold pins at the same time share one lock, and so need no descriptor each.
        """
        with self._pinning:
            if not self._pins:
                lock(self.ingest, shared=True)
            self._pins += 1
        try:
            yield
        finally:
            with self._pinning:
                self._pins -= 1
                if not self._pins:
                    unlock(self.ingest)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody has a pin; if so, nobody gets one until the end of the block."""
        descriptor = self._own_ingest()
        try:
            yield lock(descriptor, wait=False)
        finally:
            os.close(descriptor)

    def _own_ingest(self) -> int:
        # A flock belongs to an open file description: each holder needs one of its own, in one process too.
        with state_errors("open", self.root / "ingest"):
            return open_folder("ingest", within=self.folder)

    def _digests(self, name: str) -> int:
        outer = private_folder(name, within=self.folder)
        try:
            return private_folder("sha256", within=outer)
        finally:
            os.close(outer)

    def _refuse_foreign(self) -> None:
        """Nobody's home folder becomes 0700 by a slip of PYRT_ROOT."""
        try:
            found = set(os.listdir(self.root)) - _HARMLESS
        except FileNotFoundError:
            return
        if found and not found & _OURS:
            raise StateError(
                f"{self.root} is not a state folder of pyrt: it holds other things",
                hint="set PYRT_ROOT to a folder that does not exist yet",
            )


def _held(stack: ExitStack, descriptor: int) -> int:
    """The descriptor, which the stack closes."""
    stack.callback(os.close, descriptor)
    return descriptor

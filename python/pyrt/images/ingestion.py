"""How a layer gets into the store: extracted once, by one, and there only when it is whole.

    lock ingest/layer-<key>  ->  somebody finished it meanwhile? done
      -> extract into root/, copy what came into blob-<digest>      (the caller, by the extension)
      -> verify digests -> syncfs -> [one transaction: rename both into place, fsync the folders, insert the row]

Cut before the last step, nothing of it is seen; what was downloaded stays for the next attempt.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.errors import InvalidImage, StateError
from pyrt.images.durable import (
    create_file,
    exists,
    make_folder,
    open_folder,
    state_errors,
    sync_file_system,
)
from pyrt.images.image import hex_of
from pyrt.images.scratch import Scratch

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from types import TracebackType

    from pyrt.images.image import LayerReport
    from pyrt.images.layout import Layout
    from pyrt.images.schema import Database

LAYER: Final = "layer"
COLUMNS: Final = "diff_id, digest, blob_size, size, opaque"
_ROOT: Final = "root"
# What overlay shows as the mode of "/" if a layer does not say.
_ROOT_MODE: Final = 0o755


class Layer(msgspec.Struct, frozen=True):
    """A layer that is whole: ``blob_size`` counts the bytes as they came, ``size`` plain ones.

    ``opaque``: its root hides all layers below it.
    """

    diff_id: str
    digest: str
    blob_size: int
    size: int
    opaque: bool

    @classmethod
    def of(cls, row: tuple[str, str, int, int, int]) -> Layer:
        """From a row of ``COLUMNS``."""
        diff_id, digest, blob_size, size, opaque = row
        return cls(diff_id, digest, blob_size, size, bool(opaque))


class LayerIngestion:
    """One layer on its way in; made by ``Store.ingest_layer``, used in a worker thread.

    ``exists``: it is in the store already (nothing else is then set, nothing is to be done).
    ``directory``: descriptor of an empty folder to extract into. ``blob``: descriptor, at its beginning, of a
    file for the compressed bytes, of which an earlier attempt may have left the first ``blob_size``; they are
    to be read from there or written again. Both belong to this object.
    """

    def __init__(
        self,
        layout: Layout,
        database: Database,
        diff_id: str | None,
        digest: str | None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.exists = False
        self.diff_id = diff_id
        self.digest = digest
        self.directory = -1
        self.blob = -1
        self.blob_size = 0
        self._layout = layout
        self._database = database
        self._cancelled = cancelled
        self._adopted: tuple[int, str] | None = None
        self._worthless = False
        self._committed = False

    def __enter__(self) -> LayerIngestion:
        with ExitStack() as stack:
            stack.enter_context(self._layout.pinned())
            if not self._look():
                with state_errors("write to", self._layout.root / "ingest"):
                    self._begin(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Bytes that turned out to be no layer are of no use to the next attempt; those that were cut short are.
        self._worthless |= isinstance(error, InvalidImage)
        self._stack.close()

    def adopt(self, name: str, *, within: int) -> None:
        """Let ``commit`` take this file, of the same file system, as the blob; nothing is to be written to ``blob``."""
        self._adopted = (within, name)

    def commit(self, report: LayerReport) -> str:
        """Verify, make durable and publish; returns the diff id. ``InvalidImage`` if it is not what was promised."""
        self._verify(report)
        with state_errors("store a layer in", self._layout.root):
            folder, name = self._finished_blob(report)
            sync_file_system(self._scratch.descriptor)
            with self._database.write() as database:
                self._publish_directory(database, report.diff_id)
                os.rename(name, hex_of(report.digest), src_dir_fd=folder, dst_dir_fd=self._layout.blobs)
                os.fsync(self._layout.layers)
                os.fsync(self._layout.blobs)
                _record(database, report)
        self._committed = True
        self.diff_id, self.digest = report.diff_id, report.digest
        return report.diff_id

    def _look(self) -> bool:
        layer = find_layer(self._layout, self._database, self.diff_id, self.digest)
        if layer:
            self.exists = True
            self.diff_id, self.digest = layer.diff_id, layer.digest
        return self.exists

    def _begin(self, stack: ExitStack) -> None:
        key = self.diff_id or self.digest
        if key is None:
            self._scratch = Scratch.fresh(self._layout.ingest)
        else:
            name = f"{LAYER}-{hex_of(key)}"
            self._scratch = Scratch.take(self._layout.ingest, name, cancelled=self._cancelled)
        stack.callback(self._leave)
        if self._look():
            return
        self._scratch.discard_inside(_ROOT)
        make_folder(_ROOT, within=self._scratch.descriptor, mode=_ROOT_MODE)
        self.directory = open_folder(_ROOT, within=self._scratch.descriptor)
        stack.callback(os.close, self.directory)
        self.blob = create_file(self._blob_name, within=self._scratch.descriptor)
        stack.callback(os.close, self.blob)
        self.blob_size = os.fstat(self.blob).st_size

    def _leave(self) -> None:
        """Give up the scratch folder; keep in it what a later attempt can go on from."""
        with state_errors("clean up", self._layout.root / "ingest"):
            if self._committed or self.exists or self._worthless or not self._has_part():
                self._scratch.discard()
            else:
                self._scratch.discard_inside(_ROOT)
                self._scratch.keep()

    def _has_part(self) -> bool:
        if self.digest is None or self._adopted or not exists(self._blob_name, within=self._scratch.descriptor):
            return False
        return os.stat(self._blob_name, dir_fd=self._scratch.descriptor, follow_symlinks=False).st_size > 0

    @property
    def _blob_name(self) -> str:
        return f"blob-{hex_of(self.digest)}" if self.digest else "blob"

    def _verify(self, report: LayerReport) -> None:
        for promised, found, what in (
            (self.digest, report.digest, "the bytes of"),
            (self.diff_id, report.diff_id, "the plain tar in"),
        ):
            if promised not in (None, found):
                self._worthless = True
                raise InvalidImage(
                    f"{what} layer {self.digest or self.diff_id} do not have the digest that was promised: "
                    f"{found} instead of {promised}",
                    hint="get the image again; if that does not help, its source is damaged",
                )

    def _finished_blob(self, report: LayerReport) -> tuple[int, str]:
        """Folder and name of the file that holds the compressed bytes and nothing else."""
        if self._adopted:
            return self._adopted
        if os.fstat(self.blob).st_size < report.compressed_size:
            raise StateError(f"the copy of layer {report.digest} is too short")
        # An earlier attempt may have left more than there is.
        os.ftruncate(self.blob, report.compressed_size)
        return self._scratch.descriptor, self._blob_name

    def _publish_directory(self, database: sqlite3.Connection, diff_id: str) -> None:
        name = hex_of(diff_id)
        if exists(name, within=self._layout.layers):
            if database.execute("SELECT 1 FROM layers WHERE diff_id = ?", (diff_id,)).fetchone():
                # Whole, and containers may stand on it: only its blob was missing.
                return
            os.rename(name, "orphan", src_dir_fd=self._layout.layers, dst_dir_fd=self._scratch.descriptor)
        os.rename(_ROOT, name, src_dir_fd=self._scratch.descriptor, dst_dir_fd=self._layout.layers)


def find_layer(layout: Layout, database: Database, diff_id: str | None, digest: str | None) -> Layer | None:
    """The layer of this diff id (or, if that is not known, of this digest), if directory and blob are both there."""
    column, value = ("diff_id", diff_id) if diff_id else ("digest", digest)
    with database.read() as connection:
        row = connection.execute(f"SELECT {COLUMNS} FROM layers WHERE {column} = ?", (value,)).fetchone()
    if row is None:
        return None
    layer = Layer.of(row)
    whole = exists(hex_of(layer.diff_id), within=layout.layers) and exists(hex_of(layer.digest), within=layout.blobs)
    return layer if whole else None


def _record(database: sqlite3.Connection, report: LayerReport) -> None:
    database.execute(
        """INSERT INTO layers (diff_id, digest, blob_size, size, opaque, added) VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT (diff_id) DO UPDATE SET digest = excluded.digest, blob_size = excluded.blob_size""",
        (report.diff_id, report.digest, report.compressed_size, report.size, report.opaque_root, time.time()),
    )

"""What reading Docker's archives and OCI's layouts has in common: bounded documents, names, layers into the store.

All of it is input from an enemy: paths are only looked up in the archive, and nothing in it is believed
about a layer that its extraction does not prove.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import msgspec

from pyrt.errors import InvalidImage, UsageError
from pyrt.images.archive_files import read_small
from pyrt.images.manifest import LARGEST_MANIFEST
from pyrt.images.progress import Progress
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    from pyrt.images.archive_files import ArchiveFiles, Opened
    from pyrt.images.ingestion import Layer, LayerIngestion
    from pyrt.images.progress import Callback, State
    from pyrt.images.store import Store

_Document = TypeVar("_Document")


class Archive:
    """An archive's ``files`` on their way into a ``store``."""

    def __init__(self, store: Store, files: ArchiveFiles, progress: Callback | None) -> None:
        self.store = store
        self.files = files
        self._progress = progress

    @property
    def name(self) -> str:
        """For messages."""
        return self.files.name

    def decode(self, path: str, kind: type[_Document]) -> _Document:
        """A JSON document of this shape; unknown fields are ignored."""
        data = read_small(self.files, path, limit=LARGEST_MANIFEST)
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidImage(f"{path} in {self.name} is malformed: {error}") from None

    def parse_name(self, text: str) -> Reference:
        """A name that the archive gives to an image; a digest in it proves nothing and is left away."""
        try:
            reference = Reference.parse(text)
        except UsageError as error:
            raise InvalidImage(f"an image in {self.name} has no valid name: {error.message}") from error
        return Reference(reference.registry, reference.repository, reference.tag)

    def ingest(self, diff_id: str, digest: str | None, path: str) -> Layer:
        """See to it that the layer is in the store; hold the store's pin meanwhile."""
        with self.store.ingest_layer(diff_id, digest) as ingestion:
            if ingestion.exists:
                self._tell(digest or diff_id, "exists")
            else:
                self._extract(ingestion, path)
        layer = self.store.layer(diff_id)
        if layer is None:
            raise InvalidImage(f"layer {diff_id} vanished from the store while it was loaded", hint="try again")
        return layer

    def _extract(self, ingestion: LayerIngestion, path: str) -> None:
        opened = self.files.open(path)
        layer = ingestion.digest or ingestion.diff_id or path
        try:
            self._tell(layer, "extracting", 0, opened.size)
            extract_opened(ingestion, opened)
            self._tell(layer, "done", opened.size, opened.size)
        finally:
            os.close(opened.descriptor)

    def _tell(self, layer: str, state: State, current: int = 0, total: int | None = None) -> None:
        if self._progress:
            self._progress(Progress(layer, state, current, total))


def extract_opened(ingestion: LayerIngestion, opened: Opened) -> str:
    """Extract a layer from a file; one that lies in the store's scratch folder becomes the blob and is not copied."""
    from pyrt._native import extract_layer

    if opened.place:
        folder, name = opened.place
        report = extract_layer(opened.descriptor, ingestion.directory, blob=None, cancel=None)
        ingestion.adopt(name, within=folder)
    else:
        report = extract_layer(opened.descriptor, ingestion.directory, blob=ingestion.blob, cancel=None)
    return ingestion.commit(report)

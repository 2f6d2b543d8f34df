"""From a directory to a layer of the store: one thread writes a tar into a pipe, the other extracts what comes out."""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pyrt.errors import InvalidImage
from pyrt.images.durable import state_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrt.images.ingestion import Layer, LayerIngestion
    from pyrt.images.store import Store

# What any user may have; the default of 64 KiB makes reader and writer take turns.
_PIPE_BYTES: Final = 1 << 20


class PipeWriter:
    """``source`` is the end to read from, for the time of the block; ``write`` is given the other one."""

    def __init__(self, write: Callable[[int], object]) -> None:
        self._write_to = write
        self._failure: BaseException | None = None
        self.source, self._target = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.fcntl(self._target, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._thread = threading.Thread(target=self._write, name="pyrt-pipe-writer", daemon=True)

    def __enter__(self) -> PipeWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Nobody reads any more: the writer, if it still writes, gets EPIPE and ends.
        os.close(self.source)
        self._thread.join()

    def check(self) -> None:
        """Wait for the writer and raise what it failed with."""
        self._thread.join()
        if self._failure:
            with state_errors("read", "the directory"):
                raise self._failure

    def _write(self) -> None:
        try:
            self._write_to(self._target)
        except BaseException as error:
            self._failure = error
        finally:
            os.close(self._target)


def ingest_tar(
    store: Store,
    source: int,
    check: Callable[[], None],
    inspect: Callable[[LayerIngestion], None] = lambda ingestion: None,
) -> Layer:
    """Brings a tar into the store as a layer; for a worker thread. Hold ``store.pinned`` until an image has it.

    ``check`` raises what went wrong with writing it; ``inspect`` may refuse what was extracted.
    """
    from pyrt._native import extract_layer

    with store.ingest_layer(None, None) as ingestion:
        try:
            report = extract_layer(source, ingestion.directory, blob=ingestion.blob, cancel=None)
        except InvalidImage:
            # If the directory could not be read to its end, that is why the tar is cut short.
            check()
            raise
        check()
        inspect(ingestion)
        diff_id = ingestion.commit(report)
    layer = store.layer(diff_id)
    if layer is None:
        raise InvalidImage(f"layer {diff_id} vanished from the store while it was brought in", hint="try again")
    return layer

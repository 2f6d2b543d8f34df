"""The store's database: its tables, its version, and transactions that several processes can hold.

What is an image, a name or a layer is decided by the rows here alone; files without a row are debris. Two
connections: readers never wait for this process's own writer, and learn of every change by SQLite's data_version.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Final

from pyrt.errors import StateError
from pyrt.images.durable import create_file, state_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION: Final = 1
# SQLite's application_id: "pyrt" in ASCII.
_APPLICATION: Final = 0x70797274
# Longer than any transaction takes, even behind a disk that syncs for seconds.
_PATIENCE: Final = 60.0

_TABLES: Final = (
    """CREATE TABLE images (
        id TEXT PRIMARY KEY,                -- digest of the configuration
        manifest TEXT NOT NULL,             -- digest of the manifest
        media_type TEXT NOT NULL            -- of the manifest
    ) WITHOUT ROWID""",
    """CREATE TABLE names (
        name TEXT PRIMARY KEY,              -- canonical: docker.io/library/debian:12
        image TEXT NOT NULL REFERENCES images ON DELETE CASCADE
    ) WITHOUT ROWID""",
    "CREATE INDEX names_of_image ON names (image)",
    """CREATE TABLE repo_digests (
        name TEXT PRIMARY KEY,              -- docker.io/library/debian@sha256:...
        image TEXT NOT NULL REFERENCES images ON DELETE CASCADE
    ) WITHOUT ROWID""",
    "CREATE INDEX repo_digests_of_image ON repo_digests (image)",
    """CREATE TABLE layers (
        diff_id TEXT PRIMARY KEY,           -- digest of the plain tar: names the directory
        digest TEXT NOT NULL,               -- digest of the bytes as they came: names the blob
        blob_size INTEGER NOT NULL,
        size INTEGER NOT NULL,              -- bytes of the plain tar
        opaque INTEGER NOT NULL,            -- whether its root hides all layers below
        added REAL NOT NULL,                -- seconds since 1970
        used INTEGER NOT NULL DEFAULT 0     -- whether an image ever had it: if not, its image may be on its way
    ) WITHOUT ROWID""",
    "CREATE INDEX layers_of_digest ON layers (digest)",
    """CREATE TABLE image_layers (
        image TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
        position INTEGER NOT NULL,          -- 0 is the lowest
        diff_id TEXT NOT NULL REFERENCES layers,
        PRIMARY KEY (image, position)
    ) WITHOUT ROWID""",
    "CREATE INDEX images_of_layer ON image_layers (diff_id)",
)


class Database:
    """Two connections to store.db, usable from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        with state_errors("open", path):
            # SQLite would create it readable for everybody, and gives -wal and -shm the mode of this file.
            os.close(create_file(os.fspath(path)))
            with ExitStack() as stack:
                self._writer = stack.enter_context(closing(_connect(path)))
                _prepare(self._writer, path)
                self._reader = stack.enter_context(closing(_connect(path)))
                self._reader.execute("PRAGMA query_only = ON")
                self._connections = stack.pop_all()

    def close(self) -> None:
        with self._reading, self._writing:
            self._connections.close()

    def version(self) -> int:
        """A number that changes whenever anybody, in any process, has changed the database. Takes some 5 us."""
        with self._reading:
            try:
                row = self._reader.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error:
                with state_errors("read", self.path):
                    raise
        return int(row[0])

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One snapshot for several queries. Don't touch files meanwhile: other readers wait."""
        with self._reading, state_errors("read", self.path):
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                if self._reader.in_transaction:
                    self._reader.execute("ROLLBACK")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on the disk afterwards, or, after an exception, nothing."""
        with self._writing, state_errors("write", self.path):
            # IMMEDIATE: to wait for another writer now, where it is possible, and not at the first change.
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        _to_wal(connection)
        # FULL: in WAL mode only this survives a loss of power.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _to_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; two processes that do so at once get SQLITE_BUSY without any waiting."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables, or make sure that they are of this version."""
    if _is_current(connection, path):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_current(connection, path):
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _is_current(connection: sqlite3.Connection, path: Path) -> bool:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if application not in (0, _APPLICATION):
        raise StateError(f"{path} is the database of another program", hint="set PYRT_ROOT to a folder of its own")
    if version > VERSION:
        raise StateError(
            f"{path} was written by a newer pyrt (format {version}, this one knows {VERSION})",
            hint="upgrade pyrt, or set PYRT_ROOT to another folder",
        )
    if 0 < version < VERSION:
        raise StateError(
            f"{path} was written by an older pyrt (format {version}, this one has {VERSION})",
            hint="use that one, or set PYRT_ROOT to another folder",
        )
    return version == VERSION

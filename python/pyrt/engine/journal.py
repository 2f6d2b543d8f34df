"""The truth about containers and events: one SQLite database in WAL mode, shared by any number of processes.

A transition is one transaction: the container's new state, its lease of ids, and the event that tells of it. It
is committed before anyone is told, but for what this process alone has seen so far (``soon``). What a transition means
is not known here; the table in ``states`` says which are legal.

Commits run on the caller's thread: one takes 15 to 25 us where the hop to a worker thread and back takes
53 to 72. Only a checkpoint syncs the disk, and that runs on a worker thread. So a killed process loses nothing,
while a power loss may take the last moments (``synchronous=NORMAL``): the journal is whole, but ends a little
earlier, and its sequence numbers jump ahead, so that none is given twice.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import msgspec

from pyrt.engine.events import AnyEvent, Event, decode_line, encode_line
from pyrt.engine.record import Record
from pyrt.engine.results import Timing
from pyrt.engine.states import State, Verb, refusal, sources, target
from pyrt.errors import (
    ContainerError,
    ContainerNotFound,
    EngineError,
    IllegalTransition,
    NameInUse,
    StateError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
log = logging.getLogger("pyrt.engine")

VERSION: Final = 3
"""Of the tables; PRAGMA user_version holds it."""

LEASE_SIZE: Final = 65536
LEASE_FIRST: Final = 0x7000_0000
# The ids from 0x7fff0000 on stay free: 2^31 and above are negative to some programs.
LEASE_COUNT: Final = (0x7FFF_0000 - LEASE_FIRST) // LEASE_SIZE

DEFAULT_KEPT: Final = 1_000_000
_TRIM_EVERY: Final = 256
# More than power loss can take: a checkpoint syncs at the latest after CHECKPOINT_EVERY commits.
_JUMP: Final = 100_000
CHECKPOINT_EVERY: Final = 2_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, line BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL, owner TEXT NOT NULL,
    record BLOB NOT NULL, asked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS timings (container TEXT PRIMARY KEY, timing BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (base INTEGER PRIMARY KEY, container TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS parked (id TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS boots (boot TEXT NOT NULL, floor INTEGER NOT NULL, resumed INTEGER NOT NULL);
"""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Record).decode
_timing: Final = msgspec.json.Decoder(Timing).decode

_SELECT: Final = "SELECT name, record FROM containers"
# "'created', 'exited'" for each verb, made once.
_FROM: Final = {verb: ", ".join(f"'{state}'" for state in sorted(sources(verb))) for verb in Verb}


class Busy(Exception):
    """Another process is writing just now: try again in a moment."""


class Journal:
    """An open journal. Belongs to one thread, but for ``checkpoint``."""

    def __init__(self, path: Path, *, kept: int = DEFAULT_KEPT) -> None:
        self.path = path
        self.kept = kept
        self.commits = 0
        """Since the last checkpoint."""
        self.published: Callable[[list[AnyEvent]], None] = lambda events: None
        """Called after each commit with its events, in order."""
        # What was listed last, by its row: most of it has not changed, and to decode it is what costs.
        self._listed: dict[tuple[str, bytes], Record] = {}
        self._lease_hint = time.monotonic_ns() % LEASE_COUNT
        self._waiting: list[Callable[[Transaction], object]] = []
        with _translated(path):
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0, cached_statements=64)
            try:
                self.boot = _boot()
                """The machine's boot, as the kernel names it."""
                self._floor = _prepare(self._db, self.boot)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Closes the database; the journal can't be used any more."""
        self._look()
        self._db.close()

    # ---- writing ----

    def apply(self, change: Callable[[Transaction], T]) -> T:
        """Runs ``change`` in a transaction and publishes its events once it is committed.

        If it raises, nothing is changed by it. Raises Busy if another process holds the write lock.
        """
        waiting, self._waiting = self._waiting, []
        try:
            return self._apply(waiting, change)
        except BaseException as error:
            self._waiting = waiting
            if waiting and not isinstance(error, (Busy, StateError)):
                self._look()
            raise

    def soon(self, change: Callable[[Transaction], object]) -> None:
        """Has ``change`` made with the next one, and before anything is read here; call ``flush`` soon.

        For what would not be missed if this process were killed at once: a start that nobody else has seen. A
        ContainerError of the change is logged.
        """
        self._waiting.append(change)

    def flush(self) -> None:
        """Makes the changes that wait; raises Busy, StateError, and then they go on waiting."""
        if self._waiting:
            self.apply(lambda transaction: None)

    def _look(self) -> None:
        with suppress(Busy, StateError):
            self.flush()

    def _apply(self, before: list[Callable[[Transaction], object]], change: Callable[[Transaction], T]) -> T:
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                transaction = Transaction(db, self)
                for earlier in before:
                    _make(earlier, transaction)
                result = change(transaction)
                transaction.finish(self.kept)
                db.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled it back already.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _as_ours(error, self.path) from error
        self.commits += 1
        if transaction.events:
            self.published(transaction.events)
        return result

    def checkpoint(self) -> None:
        """Moves the WAL's pages into the database and syncs; blocks for milliseconds, so for a worker thread."""
        self.commits = 0
        with _translated(self.path):
            db = sqlite3.connect(self.path, isolation_level=None, timeout=10.0)
            try:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                # The first to write after a whole checkpoint starts the WAL anew and syncs its header
                # (sqlite's walWriteFrames): let it be this thread.
                db.execute("UPDATE boots SET floor = floor")
            finally:
                db.close()

    # ---- reading ----

    def get(self, reference: str) -> Record:
        """The container with this id, name, or unique beginning of an id; raises ContainerNotFound."""
        self._look()
        with _translated(self.path):
            rows = self._db.execute(f"{_SELECT} WHERE id = ?1 OR name = ?1", (reference,)).fetchall()
            if not rows and reference and not reference.strip("0123456789abcdef"):
                rows = self._db.execute(
                    f"{_SELECT} WHERE id >= ? AND id < ? LIMIT 2", (reference, reference + "g")
                ).fetchall()
        if not rows:
            raise ContainerNotFound(f"no container {reference}", hint="pyrt ps -a lists them")
        if len(rows) > 1:
            raise ContainerNotFound(f"more than one container begins with {reference}", hint="give more of the id")
        return _record(rows[0])

    def records(self, *, owner: str | None = None) -> list[Record]:
        """All containers, or those of one owner, the newest first."""
        where, values = ("", ()) if owner is None else (" WHERE owner = ?", (owner,))
        self._look()
        with _translated(self.path):
            rows = self._db.execute(_SELECT + where, values).fetchall()
        known = self._listed
        found = {row: known.get(row) or _record(row) for row in rows}
        if owner is None:
            self._listed = found
        return sorted(found.values(), key=lambda record: record.created, reverse=True)

    def ids(self) -> frozenset[str]:
        """The ids of all containers, also of parked ones, which are on no list."""
        self._look()
        with _translated(self.path):
            return frozenset(
                row[0] for row in self._db.execute("SELECT id FROM containers UNION SELECT id FROM parked")
            )

    def owners(self) -> list[str]:
        """Every engine that has something to do for a container, as far as is recorded."""
        self._look()
        with _translated(self.path):
            rows = self._db.execute("SELECT owner FROM containers WHERE owner != '' UNION SELECT owner FROM parked")
            return [row[0] for row in rows]

    def parked(self, owner: str) -> list[str]:
        """The containers that an engine has made beforehand."""
        with _translated(self.path):
            return [row[0] for row in self._db.execute("SELECT id FROM parked WHERE owner = ?", (owner,))]

    def is_resumed(self) -> bool:
        """Whether what is to run since the machine was started does."""
        with _translated(self.path):
            return bool(self._db.execute("SELECT resumed FROM boots").fetchone()[0])

    def timing(self, container: str) -> Timing:
        """What the steps of its last start took; empty if that is not kept."""
        self._look()
        with _translated(self.path):
            row = self._db.execute("SELECT timing FROM timings WHERE container = ?", (container,)).fetchone()
        return _timing(row[0]) if row else Timing()

    def leases(self) -> dict[int, str]:
        """The first host id of each leased range, and the container that has it."""
        with _translated(self.path):
            return dict(self._db.execute("SELECT base, container FROM leases"))

    def span(self) -> tuple[int, int]:
        """The sequence numbers of the oldest and the newest event that is kept; (head + 1, head) if there is none."""
        self._look()
        with _translated(self.path):
            oldest, newest = self._db.execute(
                "SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events)"
            ).fetchone()
        head = max(newest or 0, self._floor)
        return (head + 1 if oldest is None else oldest), head

    def events_after(self, seq: int, limit: int) -> list[AnyEvent]:
        """At most ``limit`` events that come after ``seq``, in order."""
        self._look()
        with _translated(self.path):
            rows = self._db.execute("SELECT line FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
            return [decode_line(line) for (line,) in rows]

    def changed_by_others(self) -> int:
        """A number that changes when another process has committed. Costs 2 us."""
        return cast("int", self._db.execute("PRAGMA data_version").fetchone()[0])


def _make(change: Callable[[Transaction], object], transaction: Transaction) -> None:
    try:
        change(transaction)
    except ContainerError:
        log.exception("what has happened to a container can't be recorded")


class Transaction:
    """What may be done to the journal in one step.

    A container that begins in it, and perhaps has ended by now, is written once more at the end: whatever it has gone
    through meanwhile nobody else can have seen.
    """

    def __init__(self, db: sqlite3.Connection, journal: Journal) -> None:
        self._db = db
        self._journal = journal
        self._new: dict[str, Record] = {}
        self._moved: set[str] = set()
        """Of the new ones, those whose rows are out of date."""
        self._lines: list[tuple[int, bytes]] = []
        self._head: int = db.execute("SELECT max(seq) FROM events").fetchone()[0] or 0
        self._head = max(self._head, journal._floor)
        self.now = time.time_ns()
        self.events: list[AnyEvent] = []

    def insert(self, record: Record) -> None:
        """Records a new container; raises NameInUse."""
        try:
            self._db.execute(
                "INSERT INTO containers (id, name, state, owner, record) VALUES (?, ?, ?, ?, ?)",
                (record.id, record.name, record.state, record.owner, _encode(record)),
            )
        except sqlite3.IntegrityError:
            raise self._name_in_use(record.name) from None
        self._new[record.id] = record

    def move(self, record: Record, verb: Verb, **changes: object) -> Record:
        """Moves a container along the table and returns its new record, with ``changes`` to its fields.

        Raises IllegalTransition if it is, by now, in a state that does not allow it; ContainerNotFound if it is gone.
        """
        after = msgspec.structs.replace(record, state=target(verb), **changes)
        if (new := self._new.get(record.id)) and new.state in sources(verb):
            self._new[record.id] = after
            self._moved.add(record.id)
            return after
        self._write_new()
        cursor = self._db.execute(
            f"UPDATE containers SET state = ?, owner = ?, record = ? WHERE id = ? AND state IN ({_FROM[verb]})",
            (after.state, after.owner, _encode(after), record.id),
        )
        if cursor.rowcount != 1:
            raise self._refused(record, verb)
        return after

    def amend(self, record: Record, **changes: object) -> Record:
        """Changes fields of a container without moving it along the table.

        Raises IllegalTransition if it has been moved meanwhile.
        """
        self._write_new()
        after = msgspec.structs.replace(record, **changes)
        cursor = self._db.execute(
            "UPDATE containers SET record = ? WHERE id = ? AND state = ?", (_encode(after), record.id, record.state)
        )
        if cursor.rowcount != 1:
            raise IllegalTransition(f"container {record.name} is not {record.state} any more", hint="try again")
        return after

    def keep_timing(self, record: Record, timing: Timing) -> None:
        """Remembers what the steps of its start took: apart from the record, which is written anew at each move."""
        self._db.execute("INSERT OR REPLACE INTO timings VALUES (?, ?)", (record.id, _encode(timing)))

    def rename(self, record: Record, name: str) -> Record:
        """Gives a container another name; raises NameInUse."""
        self._write_new()
        after = msgspec.structs.replace(record, name=name)
        try:
            self._db.execute(
                "UPDATE containers SET name = ?, record = ? WHERE id = ?", (name, _encode(after), record.id)
            )
        except sqlite3.IntegrityError:
            raise self._name_in_use(name) from None
        return after

    def own(self, record: Record, owner: str) -> Record:
        """Makes an engine responsible for what is still to be done for a container; "" if nothing is."""
        self._write_new()
        after = msgspec.structs.replace(record, owner=owner)
        cursor = self._db.execute(
            "UPDATE containers SET owner = ?, record = ? WHERE id = ? AND owner = ?",
            (owner, _encode(after), record.id, record.owner),
        )
        if cursor.rowcount != 1:
            raise ContainerNotFound(f"container {record.name} is in the care of another engine")
        return after

    def delete(self, record: Record) -> None:
        """Forgets a container that is being removed; raises IllegalTransition otherwise."""
        self._write_new()
        cursor = self._db.execute(
            f"DELETE FROM containers WHERE id = ? AND state IN ({_FROM[Verb.REMOVED]})", (record.id,)
        )
        if cursor.rowcount != 1:
            raise self._refused(record, Verb.REMOVED)
        if not record.auto_remove:
            self._db.execute("DELETE FROM timings WHERE container = ?", (record.id,))

    def note_signal(self, container: str, number: int) -> None:
        """Remembers that pyrt was asked to send a signal to a container which another engine supervises."""
        self._db.execute("UPDATE containers SET asked = asked | ? WHERE id = ?", (1 << number - 1, container))

    def asked(self, container: str) -> frozenset[int]:
        """The signals for which ``note_signal`` was called since its last start."""
        if container in self._new:
            return frozenset()
        row = self._db.execute("SELECT asked FROM containers WHERE id = ?", (container,)).fetchone()
        return frozenset(number for number in range(1, 65) if row and row[0] >> (number - 1) & 1)

    def forget_signals(self, container: str) -> None:
        """A new start: what was asked for before is done with."""
        self._db.execute("UPDATE containers SET asked = 0 WHERE id = ?", (container,))

    def current(self, container: str) -> Record | None:
        """What is recorded by now; None if it is gone."""
        if new := self._new.get(container):
            return new
        row = self._db.execute(f"{_SELECT} WHERE id = ?", (container,)).fetchone()
        return _record(row) if row else None

    def resume_boot(self) -> None:
        """What is to run since the machine was started does."""
        self._db.execute("UPDATE boots SET resumed = 1")

    def lease(self, container: str) -> int:
        """A range of LEASE_SIZE host ids that no other container has; returns its first.

        Ranges are taken in turn, so that one is not used again soon. Raises EngineError if all are taken.
        """
        for _ in range(LEASE_COUNT):
            base = LEASE_FIRST + self._journal._lease_hint * LEASE_SIZE
            self._journal._lease_hint = (self._journal._lease_hint + 1) % LEASE_COUNT
            if self._db.execute("INSERT OR IGNORE INTO leases VALUES (?, ?)", (base, container)).rowcount == 1:
                return base
        raise EngineError(f"all {LEASE_COUNT} ranges of user ids are taken by containers", hint="stop some of them")

    def park(self, container: str, owner: str) -> None:
        """Says that something of a container may be there which nobody has asked for yet."""
        self._db.execute("INSERT INTO parked VALUES (?, ?)", (container, owner))

    def unpark(self, container: str) -> None:
        """Takes ``park`` back; raises ContainerNotFound if that was done already. A lease stays."""
        if self._db.execute("DELETE FROM parked WHERE id = ?", (container,)).rowcount != 1:
            raise ContainerNotFound(f"no container {container} is parked")

    def dispose(self, *containers: str) -> None:
        """Forgets parked containers of which nothing is left, and their ranges of ids."""
        rows = [(container,) for container in containers]
        self._db.executemany("DELETE FROM parked WHERE id = ?", rows)
        self._db.executemany("DELETE FROM leases WHERE container = ?", rows)

    def release(self, record: Record) -> None:
        """Gives the container's range of ids back."""
        if record.id_base is not None:
            self._db.execute("DELETE FROM leases WHERE base = ? AND container = ?", (record.id_base, record.id))

    def emit(self, event: Event, *, at: int = 0) -> None:
        """Adds an event; ``at`` is when it happened, if that is not now."""
        self._head += 1
        stamped = msgspec.structs.replace(event, seq=self._head, time=at or self.now)
        self._lines.append((self._head, encode_line(stamped)))
        self.events.append(cast("AnyEvent", stamped))

    def finish(self, kept: int) -> None:
        """Before the commit: writes what was put off, and forgets the oldest events beyond about ``kept``."""
        self._write_new()
        self._db.executemany("INSERT INTO events VALUES (?, ?)", self._lines)
        self._trim(kept)

    def _write_new(self) -> None:
        for record in map(self._new.__getitem__, self._moved):
            self._db.execute(
                "UPDATE containers SET state = ?, owner = ?, record = ? WHERE id = ?",
                (record.state, record.owner, _encode(record), record.id),
            )
        self._moved.clear()
        self._new.clear()

    def _trim(self, kept: int) -> None:
        """Some at a time."""
        before = self._head - len(self.events)
        if self._head // _TRIM_EVERY != before // _TRIM_EVERY:
            self._db.execute("DELETE FROM events WHERE seq <= ?", (self._head - kept,))

    def _name_in_use(self, name: str) -> NameInUse:
        row = self._db.execute("SELECT id FROM containers WHERE name = ?", (name,)).fetchone()
        whose = f" by container {row[0][:12]}" if row else ""
        return NameInUse(
            f"the name {name} is in use{whose}", hint="remove or rename that container, or take another name"
        )

    def _refused(self, record: Record, verb: Verb) -> Exception:
        row = self._db.execute("SELECT state FROM containers WHERE id = ?", (record.id,)).fetchone()
        if row is None:
            return ContainerNotFound(f"no container {record.name}")
        return refusal(State(row[0]), verb, f"container {record.name}")


def _record(row: tuple[str, bytes]) -> Record:
    # The name may have been changed by an engine that does not own the container: the column is right.
    name, encoded = row
    record = _decode(encoded)
    return record if record.name == name else msgspec.structs.replace(record, name=name)


def _prepare(db: sqlite3.Connection, boot: str) -> int:
    """Makes the tables where they are missing; returns the number below which no event may be numbered."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found not in (0, VERSION):
        age = "a newer" if found > VERSION else "an older"
        raise StateError(
            f"the journal was written by {age} pyrt (format {found}, this one has {VERSION})",
            hint="use that one, or another state folder; with nothing running, journal.db can be removed",
        )
    row = db.execute("SELECT boot, floor FROM boots").fetchone() if found else None
    if row is None or row[0] != boot:
        row = _begin_boot(db, boot)
    db.execute("PRAGMA busy_timeout = 0")
    return cast("int", row[1])


def _begin_boot(db: sqlite3.Connection, boot: str) -> tuple[str, int]:
    """The machine has been started anew: number events from where no lost one can have been."""
    db.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    row: tuple[str, int] | None = db.execute("SELECT boot, floor FROM boots").fetchone()
    if row is None or row[0] != boot:
        head = max(db.execute("SELECT max(seq) FROM events").fetchone()[0] or 0, row[1] if row else 0)
        row = boot, (head + _JUMP if row else 0)
        db.execute("DELETE FROM boots")
        db.execute("INSERT INTO boots VALUES (?, ?, 0)", row)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")
    return row


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _as_ours(error, path) from error


def _as_ours(error: sqlite3.Error, path: Path) -> Busy | StateError:
    name: str = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy()
    sentence, hint = _SENTENCES.get(name.split("_")[1] if "_" in name else "", (f"fails: {error}", None))
    return StateError(f"the journal {path} {sentence}", hint=hint)


_SENTENCES: Final[dict[str, tuple[str, str | None]]] = {
    "FULL": ("can't be written: the disk is full", "free some space: pyrt system prune"),
    "READONLY": ("can't be written", "run as root, or set PYRT_ROOT to a folder of your own"),
    "PERM": ("can't be opened: permission denied", "run as root, or set PYRT_ROOT to a folder of your own"),
    "CANTOPEN": ("can't be opened", "run as root, or set PYRT_ROOT to a folder of your own"),
    "CORRUPT": ("is damaged", "move it away: images are not touched by that, records of containers are lost"),
    "NOTADB": ("is damaged", "move it away: images are not touched by that, records of containers are lost"),
    "IOERR": ("can't be read or written: input/output error", "look at the disk: dmesg"),
}

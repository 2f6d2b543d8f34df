"""The journal: transitions are whole or absent, names and leases are unique, nothing is told before it is written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pyrt.engine.events import ContainerCreated
from pyrt.engine.journal import LEASE_COUNT, LEASE_FIRST, LEASE_SIZE, Busy, Journal
from pyrt.engine.results import Mark, Timing
from pyrt.engine.states import State, Verb
from pyrt.errors import ContainerNotFound, EngineError, IllegalTransition, NameInUse, StateError
from tests.engine.journals import created, insert, new_record, run_through, tell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyrt.engine.events import AnyEvent
    from pyrt.engine.journal import Transaction


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path)
    yield opened
    opened.close()


def test_a_container_is_found_by_id_name_and_the_beginning_of_its_id(journal: Journal) -> None:
    record = insert(journal, "quiet-otter")
    for reference in (record.id, "quiet-otter", record.id[:12], record.id[:1]):
        assert journal.get(reference) == record


@pytest.mark.parametrize("reference", ["", "nobody", "abc", "%", "g" * 64])
def test_what_is_not_there_is_not_found(journal: Journal, reference: str) -> None:
    with pytest.raises(ContainerNotFound):
        journal.get(reference)


def test_an_ambiguous_beginning_is_refused(journal: Journal) -> None:
    insert(journal, "one", id="ab" + "0" * 62)
    insert(journal, "two", id="ab" + "1" * 62)
    with pytest.raises(ContainerNotFound, match="more than one"):
        journal.get("ab")
    assert journal.get("ab1").name == "two"


def test_an_illegal_transition_changes_nothing(journal: Journal) -> None:
    record = insert(journal, "box")
    before, events = journal.get("box"), journal.events_after(0, 99)

    def change(transaction: Transaction) -> None:
        transaction.emit(created(record))
        transaction.move(record, Verb.EXIT, error="never written")

    with pytest.raises(IllegalTransition, match="container box is created"):
        journal.apply(change)
    assert journal.get("box") == before
    assert journal.events_after(0, 99) == events


def test_the_state_on_disk_decides_not_the_one_that_the_caller_remembers(journal: Journal) -> None:
    record = insert(journal, "box")
    run_through(journal, record)
    with pytest.raises(IllegalTransition):
        journal.apply(lambda transaction: transaction.move(record, Verb.STARTED))


def test_of_two_journals_one_makes_the_transition(journal: Journal, path: Path) -> None:
    record = insert(journal, "box")
    other = Journal(path)
    try:
        other.apply(lambda transaction: transaction.move(record, Verb.START))
        with pytest.raises(ContainerNotFound):
            journal.apply(lambda transaction: transaction.move(new_record("x"), Verb.START))
        with pytest.raises(IllegalTransition):
            journal.apply(lambda transaction: transaction.move(record, Verb.REMOVE))
        assert journal.get("box").state is State.STARTING
    finally:
        other.close()


def test_a_name_is_given_once_and_free_again_after_removal(journal: Journal) -> None:
    record = run_through(journal, insert(journal, "box"))
    with pytest.raises(NameInUse, match="box is in use by container"):
        insert(journal, "box")
    journal.apply(lambda transaction: transaction.delete(transaction.move(record, Verb.REMOVE)))
    insert(journal, "box")


def test_a_rename_survives_the_owner_s_next_transition(journal: Journal) -> None:
    record = insert(journal, "box")
    journal.apply(lambda transaction: transaction.rename(record, "crate"))
    journal.apply(lambda transaction: transaction.move(record, Verb.START))  # still says "box"
    assert journal.get("crate").state is State.STARTING
    with pytest.raises(ContainerNotFound):
        journal.get("box")


def test_a_container_that_runs_is_not_forgotten(journal: Journal) -> None:
    record = insert(journal, "box")
    with pytest.raises(IllegalTransition):
        journal.apply(lambda transaction: transaction.delete(record))
    assert journal.get("box") == record


def lease_all(journal: Journal, count: int) -> list[int]:
    def change(transaction: Transaction) -> list[int]:
        return [transaction.lease(f"c{number}") for number in range(count)]

    return journal.apply(change)


def test_leases_are_whole_ranges_that_nobody_shares(journal: Journal) -> None:
    bases = lease_all(journal, 500)
    assert len(set(bases)) == 500
    assert all((base - LEASE_FIRST) % LEASE_SIZE == 0 for base in bases)
    assert LEASE_FIRST == 0x7000_0000
    assert min(bases) >= LEASE_FIRST
    assert max(bases) + LEASE_SIZE <= 0x7FFF_0000


def test_when_all_ranges_are_leased_the_error_says_so_and_one_that_is_given_back_is_used(journal: Journal) -> None:
    bases = lease_all(journal, LEASE_COUNT)
    with pytest.raises(EngineError, match="ranges of user ids"):
        journal.apply(lambda transaction: transaction.lease("d"))
    journal.apply(lambda transaction: transaction.release(new_record("x", id="c7", id_base=bases[7])))
    assert journal.apply(lambda transaction: transaction.lease("d")) == bases[7]


def test_a_lease_is_given_back_by_its_holder_alone(journal: Journal) -> None:
    base = journal.apply(lambda transaction: transaction.lease("holder"))
    journal.apply(lambda transaction: transaction.release(new_record("x", id="other", id_base=base)))
    assert journal.leases() == {base: "holder"}


def test_events_are_numbered_without_a_hole_and_told_after_the_commit(journal: Journal, path: Path) -> None:
    seen: list[list[AnyEvent]] = []

    def published(events: list[AnyEvent]) -> None:
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT max(seq) FROM events").fetchone()[0] == events[-1].seq
        other.close()
        seen.append(events)

    journal.published = published
    tell(journal, 3)
    tell(journal, 1)
    assert [[event.seq for event in events] for events in seen] == [[1, 2, 3], [4]]
    assert journal.events_after(1, 2) == [*seen[0][1:]]
    assert journal.span() == (1, 4)


def test_a_change_that_fails_is_not_told(journal: Journal) -> None:
    told: list[AnyEvent] = []
    journal.published = told.extend

    def change(transaction: Transaction) -> None:
        transaction.emit(created(new_record("x")))
        raise ValueError

    with pytest.raises(ValueError):
        journal.apply(change)
    assert not told
    assert journal.span() == (1, 0)


def test_old_events_are_forgotten_and_numbers_go_on(path: Path) -> None:
    journal = Journal(path, kept=1000)
    for _ in range(30):
        tell(journal, 100)
    oldest, newest = journal.span()
    assert newest == 3000
    assert 1000 <= newest - oldest + 1 <= 1000 + 256
    journal.close()


def test_after_the_machine_was_restarted_no_number_is_given_twice(path: Path) -> None:
    journal = Journal(path)
    tell(journal, 5)
    journal.close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE boots SET boot = 'another'")
        raw.execute("DELETE FROM events WHERE seq > 3")  # What a power loss takes.
    raw.close()
    journal = Journal(path)
    tell(journal, 1)
    assert journal.span()[1] > 5
    journal.close()
    journal = Journal(path)
    head = journal.span()[1]
    tell(journal, 1)
    assert journal.span()[1] == head + 1
    journal.close()


def test_a_writer_that_waits_is_told_that_it_is_busy(journal: Journal, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy):
        tell(journal, 1)
    other.execute("ROLLBACK")
    other.close()
    tell(journal, 1)


def test_what_is_recorded_soon_is_there_for_whoever_reads_here_and_comes_in_order(journal: Journal, path: Path) -> None:
    record = insert(journal, "box")
    published: list[AnyEvent] = []
    journal.published = published.extend
    journal.soon(lambda transaction: transaction.move(record, Verb.START))
    with closing(Journal(path)) as another:
        assert another.get("box").state is State.CREATED
        assert journal.get("box").state is State.STARTING
        assert another.get("box").state is State.STARTING
    journal.soon(lambda transaction: transaction.emit(created(new_record("first"))))
    journal.apply(lambda transaction: transaction.emit(created(new_record("second"))))
    assert [event.name for event in published if isinstance(event, ContainerCreated)] == ["first", "second"]
    assert journal.span()[1] == published[-1].seq


def test_a_change_that_is_refused_does_not_take_along_what_waits(journal: Journal) -> None:
    record = insert(journal, "box")
    journal.soon(lambda transaction: transaction.move(record, Verb.START))
    with pytest.raises(IllegalTransition):
        journal.apply(lambda transaction: transaction.move(record, Verb.UNPAUSE))
    assert journal.get("box").state is State.STARTING


def test_what_waits_and_can_not_be_made_is_logged_and_nobody_elses(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    record = insert(journal, "box")
    journal.soon(lambda transaction: transaction.move(record, Verb.UNPAUSE))
    insert(journal, "other")
    assert [record.message for record in caplog.records] == ["what has happened to a container can't be recorded"]
    assert journal.get("other").state is journal.get("box").state is State.CREATED


def test_what_waits_outlasts_a_busy_journal_and_is_recorded_on_closing(path: Path) -> None:
    with closing(Journal(path)) as journal:
        record = insert(journal, "box")
        journal.soon(lambda transaction: transaction.move(record, Verb.START))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Busy):
                journal.flush()
            assert journal.get("box").state is State.CREATED
            other.execute("ROLLBACK")
    with closing(Journal(path)) as journal:
        assert journal.get("box").state is State.STARTING


def test_the_timing_of_the_last_start_is_kept_beside_the_record(journal: Journal) -> None:
    record = insert(journal, "box")
    timing = Timing((Mark("engine", "plan", 5),), (("keeper", "Clone"), ("child", "Exec")), (0, 900))
    assert journal.timing(record.id) == Timing()
    record = journal.apply(lambda transaction: transaction.move(record, Verb.START))
    record = journal.apply(lambda transaction: transaction.move(record, Verb.STARTED))
    journal.apply(lambda transaction: transaction.keep_timing(record, timing))
    record = journal.apply(lambda transaction: transaction.move(record, Verb.EXIT))
    assert journal.timing(record.id) == timing
    assert timing.marks == (Mark("engine", "plan", 5), Mark("child", "Exec", 900))
    assert timing.total == 900
    journal.apply(lambda transaction: transaction.delete(transaction.move(record, Verb.REMOVE)))
    assert journal.timing(record.id) == Timing()


def test_a_checkpoint_loses_nothing(journal: Journal, path: Path) -> None:
    record = insert(journal, "box")
    tell(journal, 100)
    journal.checkpoint()
    tell(journal, 1)
    assert journal.get("box") == record
    assert [event.seq for event in journal.events_after(0, 999)] == list(range(1, 103))


def test_a_signal_that_another_engine_sent_is_remembered(journal: Journal) -> None:
    record = insert(journal, "box")
    journal.apply(lambda transaction: transaction.note_signal(record.id, signal.SIGTERM))
    assert journal.apply(lambda transaction: transaction.asked(record.id)) == {signal.SIGTERM}
    journal.apply(lambda transaction: transaction.forget_signals(record.id))
    assert journal.apply(lambda transaction: transaction.asked(record.id)) == frozenset()


def test_a_damaged_journal_is_named_as_such(path: Path) -> None:
    path.write_bytes(b"this is no database at all, whatever its name says" * 99)
    with pytest.raises(StateError, match="damaged"):
        Journal(path)


@pytest.mark.parametrize(("version", "age"), [(1, "an older"), (99, "a newer")])
def test_a_journal_of_another_format_is_refused_with_a_sentence(path: Path, version: int, age: str) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {version}")
    raw.close()
    with pytest.raises(StateError, match=f"written by {age} pyrt") as refused:
        Journal(path)
    assert refused.value.hint


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="can't be opened"):
        Journal(tmp_path / "missing" / "journal.db")


IMPORTS = """
import os, sys
from pyrt.engine.journal import Busy, Journal
from tests.engine.journals import insert, tell
"""


def in_process(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Another Python that runs ``code`` with what a writer needs."""
    return subprocess.Popen([sys.executable, "-c", IMPORTS + code, *map(str, arguments)])


WRITE_MANY = """
journal, left = Journal(sys.argv[1]), int(sys.argv[2])
while left:
    try:
        tell(journal, 1)
        left -= 1
    except Busy:
        os.sched_yield()
"""

WRITE_FOR_EVER = """
journal = Journal(sys.argv[1])
while True:
    try:
        insert(journal, os.urandom(8).hex())
    except Busy:
        os.sched_yield()
"""


def test_many_processes_write_without_a_hole(path: Path) -> None:
    Journal(path).close()
    writers = [in_process(WRITE_MANY, path, 50) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    journal = Journal(path)
    assert [event.seq for event in journal.events_after(0, 999)] == list(range(1, 151))
    journal.close()


def test_a_killed_writer_leaves_whole_transitions(path: Path) -> None:
    journal = Journal(path)
    with in_process(WRITE_FOR_EVER, path) as writer:
        while journal.span()[1] < 20:
            assert writer.poll() is None
            os.sched_yield()
        writer.kill()
    assert len(journal.records()) == len(journal.events_after(0, 10_000_000)) >= 20
    tell(journal, 1)
    journal.close()

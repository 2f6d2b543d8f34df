"""What the tests of the journal and of the feed have in common: a journal, and containers that never ran."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pyrt.engine.events import ContainerCreated, ContainerEvent, ContainerExited
from pyrt.engine.record import Record
from pyrt.engine.results import ExitStatus, Verdict
from pyrt.engine.states import State, Verb

if TYPE_CHECKING:
    from pyrt.engine.journal import Journal, Transaction


def new_record(name: str, **fields: object) -> Record:
    container = secrets.token_hex(32)
    values: dict[str, object] = {"id": container, "image": "debian:12", "image_id": "sha256:00", "owner": "me"} | fields
    return Record(name=name, **values)  # type: ignore[arg-type]


def created(record: Record) -> ContainerCreated:
    return ContainerCreated(container=record.id, name=record.name, image=record.image)


def insert(journal: Journal, name: str, **fields: object) -> Record:
    record = new_record(name, **fields)

    def change(transaction: Transaction) -> Record:
        transaction.insert(record)
        transaction.emit(created(record))
        return record

    return journal.apply(change)


def tell(journal: Journal, count: int, name: str = "n") -> None:
    """``count`` events in one transaction."""

    def change(transaction: Transaction) -> None:
        for _ in range(count):
            transaction.emit(created(new_record(name)))

    journal.apply(change)


def run_through(journal: Journal, record: Record) -> Record:
    """From created to exited."""

    def change(transaction: Transaction) -> Record:
        after = transaction.move(record, Verb.START)
        after = transaction.move(after, Verb.STARTED, pid=5)
        after = transaction.move(after, Verb.EXIT, status=ExitStatus(verdict=Verdict.EXITED, code=0))
        transaction.emit(
            ContainerExited(
                container=after.id, name=after.name, image=after.image, verdict=Verdict.EXITED, exit_code=0, code=0
            )
        )
        return after

    return journal.apply(change)


def names_of(events: list[ContainerEvent]) -> list[str]:
    return [event.name for event in events]


__all__ = ["State", "created", "insert", "names_of", "new_record", "run_through", "tell"]

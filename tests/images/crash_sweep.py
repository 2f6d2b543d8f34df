"""Kills a process before each of its system-level calls, one call later each time; run by ``test_store_crashes``.

A program of its own, single-threaded, so that it may fork: the child traces its calls into the kernel and
into SQLite and sends itself SIGKILL at the N-th; the parent then opens the store as the next process would.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrt.errors import ImageNotFound
from pyrt.images.store import Store
from tests.images.making import add, assert_sound, debris, tar_of

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = tar_of({"base": b"b" * 5000})
TOP = tar_of({"top": b"t" * 5000})
_TRACED = frozenset({"posix", "fcntl", "pyrt._native"})


def add_image(store: Store) -> None:
    add(store, BASE, TOP, name="new")


def tag(store: Store) -> None:
    store.tag("kept", "new")


def remove(store: Store) -> None:
    store.remove("old")


def prune(store: Store) -> None:
    store.prune()


def kill_at(number: int, action: Callable[[Store], None], root: Path) -> bool:
    """Whether the child was killed; False: it finished with fewer calls."""
    child = os.fork()
    if not child:
        left = number

        def count(_: Any, event: str, function: Any) -> None:
            nonlocal left
            if event == "c_call" and _is_of_the_system(function):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        with Store.open(root) as store:
            action(store)
        sys.setprofile(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0, f"the child failed at call {number}: {status}"
    return False


def check(root: Path, number: int) -> None:
    """After any cut: what there is is whole, what was there is there, and the next process gets all done."""
    with Store.open(root) as store:
        assert_sound(store)
        assert len(store.find("kept").layers) == 1, number
        for name in ("new", "old"):
            try:
                store.find(name)
            except ImageNotFound:
                continue
        add_image(store)
        assert len(store.find("new").layers) == 2
        store.remove("new")
        store.prune()
        assert_sound(store)
        add(store, TOP, name="old")
    assert debris(root) == [], number


def sweep(action: Callable[[Store], None], root: Path) -> int:
    with Store.open(root) as store:
        add(store, BASE, name="kept")
        add(store, TOP, name="old")
    number = 1
    while kill_at(number, action, root):
        check(root, number)
        number += 1
    check(root, number)
    return number - 1


def _is_of_the_system(function: Any) -> bool:
    if getattr(function, "__module__", None) in _TRACED:
        return True
    return type(getattr(function, "__self__", None)).__module__ == "sqlite3"


if __name__ == "__main__":
    print(sweep(globals()[sys.argv[1]], Path(sys.argv[2])))

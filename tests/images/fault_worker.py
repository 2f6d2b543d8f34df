"""Adds an image, while ``test_store_faults`` lets the kernel refuse one of its calls; a program of its own."""

from __future__ import annotations

import sys

from pyrt.errors import StateError
from pyrt.images.store import Store
from tests.images.making import add, tar_of

BASE = tar_of({"base": b"b" * 5000})
NEW = tar_of({"new": b"n" * 5000})
TOP = tar_of({"top": b"t" * 5000})
REFUSED = 3


def main(root: str) -> int:
    try:
        with Store.open(root) as store:
            add(store, BASE, NEW, name="new")
            store.remove("old")
    except StateError as error:
        print(error)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

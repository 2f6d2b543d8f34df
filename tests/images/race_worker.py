"""What one of several processes does to a store in ``test_store_races``; run as a program of its own."""

from __future__ import annotations

import os
import random
import sys

from pyrt.errors import ImageInUse, ImageNotFound, StateError
from pyrt.images.store import Store
from tests.images.making import add, tar_of

LAYERS = [tar_of({f"layer{number}": bytes([number]) * 40_000}) for number in range(6)]


def add_same(root: str) -> None:
    """Everybody adds the same image."""
    with Store.open(root) as store:
        add(store, *LAYERS, name="same")


def churn(root: str, seed: int) -> None:
    """Add, find, tag, remove and prune at random, images that share layers."""
    choose = random.Random(seed)
    with Store.open(root) as store:
        for _ in range(25):
            layers = choose.sample(LAYERS, 3)
            name = f"image{choose.randrange(3)}"
            try:
                match choose.randrange(6):
                    case 0 | 1 | 2:
                        image = add(store, *layers, name=name)
                        with store.pinned():
                            _check(store, image.id)
                    case 3:
                        store.tag(name, f"{name}:other")
                    case 4:
                        store.remove(name)
                    case 5:
                        store.prune(all=choose.random() < 0.3)
            except (ImageNotFound, ImageInUse):
                pass


def _check(store: Store, image_id: str) -> None:
    """While pinned, an image that is found is whole and stays so."""
    try:
        image = store.find(image_id)
    except ImageNotFound:
        return
    for layer in image.layers:
        if not os.path.isdir(layer):
            raise StateError(f"{layer} is gone from under {image_id}")


if __name__ == "__main__":
    if sys.argv[1] == "same":
        add_same(sys.argv[2])
    else:
        churn(sys.argv[2], int(sys.argv[3]))

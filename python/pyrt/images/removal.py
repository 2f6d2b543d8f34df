"""What ``rmi`` and ``prune`` mean, as Docker has it: a name is taken away first, the image goes with its last.

by name, others left   -> only that name goes
by name, the last      -> the image goes, unless a container uses it
by id                  -> all of it, unless it has several names or a container uses it
forced, a container uses it -> its names go, the image stays without one until the container is gone
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pyrt.errors import ImageInUse
from pyrt.images.naming import resolve
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection


class Detached(msgspec.Struct):
    """Names and repo digests that are gone, and ids of images that are."""

    untagged: list[str]
    deleted: list[str]


def remove_one(database: sqlite3.Connection, text: str, *, force: bool, in_use: Collection[str]) -> Detached:
    """Take away what the text means; raises in the open transaction, which is to be rolled back then."""
    image, name = resolve(database, text)
    if name:
        untagged = _untag(database, image, name)
        if _names(database, image) or _digests(database, image):
            return Detached(untagged, [])
    else:
        if not force:
            _refuse_several_names(text, _names(database, image))
        untagged = _untag_all(database, image)
    if image in in_use:
        if not force:
            raise ImageInUse(
                f"a container uses image {text!r}",
                hint="remove the container first (pyrt ps --all), or force the image to lose its name",
            )
        # Its layers are under a root file system: the first prune after the container deletes it.
        return Detached(untagged, [])
    database.execute("DELETE FROM images WHERE id = ?", (image,))
    return Detached(untagged, [image])


def remove_unneeded(database: sqlite3.Connection, *, everything: bool, in_use: Collection[str]) -> Detached:
    """Delete images without a name, or, if ``everything``, all that no container uses."""
    query = "SELECT id FROM images"
    if not everything:
        query += " WHERE NOT EXISTS (SELECT 1 FROM names WHERE image = images.id)"
    pruned = Detached([], [])
    for (image,) in database.execute(query).fetchall():
        if image not in in_use:
            pruned.untagged += _untag_all(database, image)
            pruned.deleted.append(image)
            database.execute("DELETE FROM images WHERE id = ?", (image,))
    return pruned


def _refuse_several_names(text: str, names: list[str]) -> None:
    if len(names) > 1:
        listed = ", ".join(Reference.parse(name).familiar() for name in names)
        raise ImageInUse(f"image {text!r} has several names: {listed}", hint="remove it by each name, or force it")


def _untag(database: sqlite3.Connection, image: str, name: str) -> list[str]:
    """Take away one name; with the last tag of a repository go the digests that the image has there."""
    database.execute("DELETE FROM names WHERE name = ?", (name,))
    database.execute("DELETE FROM repo_digests WHERE name = ?", (name,))
    if "@" in name:
        return [name]
    repository = Reference.parse(name).name
    if repository in {Reference.parse(other).name for other in _names(database, image)}:
        return [name]
    digests = [digest for digest in _digests(database, image) if digest.partition("@")[0] == repository]
    database.executemany("DELETE FROM repo_digests WHERE name = ?", [(digest,) for digest in digests])
    return [name, *digests]


def _untag_all(database: sqlite3.Connection, image: str) -> list[str]:
    gone = _names(database, image) + _digests(database, image)
    database.execute("DELETE FROM names WHERE image = ?", (image,))
    database.execute("DELETE FROM repo_digests WHERE image = ?", (image,))
    return gone


def _names(database: sqlite3.Connection, image: str) -> list[str]:
    return [row[0] for row in database.execute("SELECT name FROM names WHERE image = ? ORDER BY name", (image,))]


def _digests(database: sqlite3.Connection, image: str) -> list[str]:
    return [row[0] for row in database.execute("SELECT name FROM repo_digests WHERE image = ? ORDER BY name", (image,))]

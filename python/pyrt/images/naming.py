"""From what a person writes to an image's id: names, digests, ids and their beginnings; and giving names.

Works on an open transaction, so that what was found is still true when it is acted upon.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from pyrt.errors import ImageNotFound, UsageError
from pyrt.images.reference import Reference

if TYPE_CHECKING:
    import sqlite3

# Shorter beginnings of an id are refused: they are typing errors more often than ids.
_ID: Final = re.compile(r"(?:sha256:)?(?P<hex>[0-9a-f]{4,64})")


class Found(NamedTuple):
    """An image's id, and the canonical name or repo digest by which it was found; None: by its id."""

    image: str
    name: str | None


def resolve(database: sqlite3.Connection, text: str) -> Found:
    """The one image that is meant; a name comes before the beginning of an id, as in Docker."""
    match = _ID.fullmatch(text)
    surely_id = match and (len(match["hex"]) == 64 or text.startswith("sha256:"))
    found = None if surely_id else _by_name(database, text, strict=match is None)
    if found is None and match:
        found = _by_id(database, text, match["hex"])
    if found is None:
        hint = "see pyrt images" if surely_id else f"get it with: pyrt pull {text}"
        raise ImageNotFound(f"there is no image {text!r} here", hint=hint)
    return found


def give_name(database: sqlite3.Connection, reference: Reference, image: str) -> None:
    """Name the image so; another that had the name loses it."""
    if reference.digest:
        raise UsageError(
            f"{str(reference)!r} has a digest: a name that is given must not", hint="leave @sha256:... away"
        )
    database.execute(
        "INSERT INTO names (name, image) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET image = excluded.image",
        (str(reference.with_default_tag()), image),
    )


def give_repo_digest(database: sqlite3.Connection, text: str, image: str) -> None:
    """Record where the image came from: "docker.io/library/debian@sha256:..."."""
    database.execute(
        "INSERT INTO repo_digests (name, image) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET image = excluded.image",
        (text, image),
    )


def _by_name(database: sqlite3.Connection, text: str, *, strict: bool) -> Found | None:
    try:
        reference = Reference.parse(text).with_default_tag()
    except UsageError:
        if strict:
            raise
        return None
    if reference.digest:
        # A tag beside a digest says nothing: the digest decides.
        query, name = "SELECT image FROM repo_digests WHERE name = ?", f"{reference.name}@{reference.digest}"
    else:
        query, name = "SELECT image FROM names WHERE name = ?", str(reference)
    row = database.execute(query, (name,)).fetchone()
    return Found(row[0], name) if row else None


def _by_id(database: sqlite3.Connection, text: str, digits: str) -> Found | None:
    rows = database.execute(
        "SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2", (f"sha256:{digits}", f"sha256:{digits}g")
    ).fetchall()
    if len(rows) > 1:
        raise UsageError(f"{text!r} is ambiguous: several images have ids that begin so", hint="write more of the id")
    return Found(rows[0][0], None) if rows else None

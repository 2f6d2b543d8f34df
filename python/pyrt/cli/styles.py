"""Colours of plain text, for what needs no more than that."""

from __future__ import annotations

from typing import Final

_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def paint(text: str, style: str, *, colour: bool) -> str:
    """``text`` in a style (words of the table above), if there is colour."""
    if not colour or not text:
        return text
    codes = ";".join(_CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"

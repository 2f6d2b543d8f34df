"""How plain text is shown: colours, and the texts of strangers."""

from __future__ import annotations

from typing import Final

# C0, DEL and C1: what a terminal takes for an instruction.
_CONTROLS: Final = {number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0))}
_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def paint(text: str, style: str, *, colour: bool) -> str:
    """``text`` in a style (words of the table above), if there is colour."""
    if not colour or not text:
        return text
    codes = ";".join(_CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"


def visible(text: str) -> str:
    """One line that moves no cursor and sets no title: images and registries write what they like (CVE-2021-25743)."""
    # Most is plain, and that is seen faster than it is translated.
    return text if text.isprintable() else text.translate(_CONTROLS)

"""Terminal modes."""

from __future__ import annotations

import termios
from typing import Any, Final, TypeAlias

Mode: TypeAlias = list[Any]
"""As termios.tcgetattr has it: input, output, control and local flags, two speeds, control characters."""

_INPUT, _OUTPUT, _CONTROL, _LOCAL = range(4)
_FLAGS: Final = 4


def raw_mode_of(usual: Mode) -> Mode:
    """What cfmakeraw(3), and so the native client, makes of a mode."""
    mode = usual.copy()
    mode[_INPUT] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    mode[_OUTPUT] &= ~termios.OPOST
    mode[_CONTROL] = (mode[_CONTROL] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    mode[_LOCAL] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    return mode


def restore(terminal: int, usual: Mode) -> None:
    """Gives a terminal its usual mode if it still is in the raw one made of that; else somebody else already has."""
    try:
        now = termios.tcgetattr(terminal)
        if now[:_FLAGS] == raw_mode_of(usual)[:_FLAGS] != usual[:_FLAGS]:
            termios.tcsetattr(terminal, termios.TCSANOW, usual)
    except termios.error:
        pass  # The terminal itself is gone.

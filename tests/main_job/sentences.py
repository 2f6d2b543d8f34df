"""What a failure has to look like to the one who typed the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess


def said(done: subprocess.CompletedProcess[bytes], code: int, *words: str) -> str:
    """Exactly one sentence with a hint, in which ``words`` occur; the exit status is ``code``. Returns both."""
    text = done.stderr.decode()
    assert done.returncode == code, (done.returncode, text)
    assert "Traceback" not in text, text
    # As with Docker, the start of a pull is told before it fails.
    lines = [line for line in text.splitlines() if not line.startswith("Unable to find image ")]
    assert lines[0].startswith("pyrt: "), text
    assert len(lines) > 1, f"there is no hint: {text}"
    assert all(line.startswith("hint: ") and len(line) > 12 for line in lines[1:]), text
    for number in ("(os error", "Errno"):
        assert number not in text, text
    for word in words:
        assert word.lower() in text.lower(), f"{word!r} is missing in: {text}"
    return "\n".join(lines)

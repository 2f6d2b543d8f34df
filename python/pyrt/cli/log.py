"""The server's log: JSON lines beside its socket, for what should not have happened."""

from __future__ import annotations

import logging
import time
import traceback
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST: Final = 1 << 20


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "process": record.process,
            "message": record.getMessage(),
            "arguments": getattr(record, "arguments", None),
            "traceback": "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else None,
        }
        return msgspec.json.encode({key: value for key, value in line.items() if value is not None}).decode()


def log_to(path: Path) -> None:
    """From now on the messages of this process go there; the file is renamed when it is full, one is kept."""
    handler = RotatingFileHandler(path, maxBytes=_LARGEST, backupCount=1, delay=True)
    handler.setFormatter(_Lines())
    logger = logging.getLogger("pyrt")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False

"""The command: what people type, and what they read.

``verbs`` has one module a verb. A verb is written once, against a Console and an Engine: it can't tell whether
it runs in the server, on behalf of the native client, or in this very process (``python -m pyrt``).
Nothing here decides what a container is; nothing below knows of this room.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
"""The same as in Cargo.toml: a server takes no calls of a client of another version."""

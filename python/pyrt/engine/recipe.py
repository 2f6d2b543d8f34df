"""From an image and options to a plan: what the engine asks of ``runtime`` and of the native core.

Whatever is the same at every start of an image is remembered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import msgspec

from pyrt import _native
from pyrt.errors import UsageError
from pyrt.images import host as host_view
from pyrt.runtime.host import Host, read_host
from pyrt.runtime.options import ExecOptions, RunOptions
from pyrt.runtime.spec import Built, build, build_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrt.engine.layout import Layout
    from pyrt.engine.record import Record
    from pyrt.images.image import Image
    from pyrt.images.store import Store

# /etc/passwd and /etc/group of an image are input from a stranger (CVE-2026-30892).
_LARGEST_FILE: Final = 4 << 20
# A server that is asked for ever new images must not remember the files of all.
_MOST_FILES: Final = 512
# Seconds after which this machine's own files are looked at anew: that takes a millisecond.
_FRESH: Final = 10.0

_encode: Final = msgspec.json.Encoder().encode
_decode_options: Final = msgspec.json.Decoder(RunOptions).decode


class _Machine(NamedTuple):
    """What this machine was like when it was last looked at."""

    until: float
    facts: Host
    image: Image
    hidden: tuple[str, ...]


@final
class Recipes:
    """Makes plans; remembers what images hold and what this machine is like."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._scaffold = str(layout.scaffold)
        self._files: dict[tuple[str, str], bytes | None] = {}
        self._machine = self._look()

    def image(self, store: Store, image: str | Image) -> Image:
        """The image of this name or id; ``host`` is this machine's own files. Raises ImageNotFound."""
        if not isinstance(image, str):
            return image
        return self._now().image if image == host_view.NAME else store.find(image)

    def build(self, image: Image, options: RunOptions, container: str, id_base: int | None, *, keep: bool) -> Built:
        """The specification of a container. Raises UsageError, InvalidImage."""
        machine = self._now()
        is_host = image.id == host_view.NAME
        return build(
            image,
            options,
            id=container,
            id_base=id_base,
            host=machine.facts,
            lookup=partial(self._file, image),
            # "/" holds whatever the scaffold would add, and overlayfs refuses a layer that lies within another.
            lowers=image.layers if is_host else (*image.layers, self._scaffold),
            folder=self._layout.folder(container),
            hidden=machine.hidden if is_host else (),
            volatile=not keep,
        )

    def joining_plan(self, image: Image, record: Record, options: ExecOptions, pidfd: int) -> _native.Plan:
        """The plan of a process that joins a running container, of which ``pidfd`` is PID 1."""
        keep = not record.auto_remove
        built = self.build(image, _decode_options(record.options), record.id, record.id_base, keep=keep)
        lookup = partial(self._file, image)
        process = build_process(built.spec, options, host=self._now().facts, lookup=lookup)
        return _native.compile_exec(built.spec, process, built.start, pidfd)

    def _file(self, image: Image, path: str) -> bytes | None:
        """What a file of an image holds; None if it is not there."""
        key = image.id, path
        try:
            return self._files[key]
        except KeyError:
            content = _native.read_image_file(image.layers, path, _LARGEST_FILE)
        # This machine's own files change.
        if image.id != host_view.NAME:
            if len(self._files) >= _MOST_FILES:
                self._files.clear()
            self._files[key] = content
        return content

    def _now(self) -> _Machine:
        if time.monotonic() > self._machine.until:
            self._machine = self._look()
        return self._machine

    def _look(self) -> _Machine:
        hidden = host_view.hidden_paths(self._layout.root, self._layout.run_dir)
        return _Machine(time.monotonic() + _FRESH, read_host(), host_view.host_image(), hidden)


def options_as_json(options: RunOptions) -> msgspec.Raw:
    """The options as a container's record keeps them."""
    return msgspec.Raw(_encode(options))


def make_exec_options(command: Sequence[str], **fields: Any) -> ExecOptions:
    """ExecOptions from what a Python program likes to write: ``env`` may be a mapping. Raises UsageError."""
    if isinstance(command, str):
        raise UsageError("the command is a text", hint="give a sequence of words, such as ['sh', '-c', '...']")
    if isinstance(env := fields.get("env"), Mapping):
        fields["env"] = tuple(env.items())
    if fields.get("env") is None:
        fields.pop("env", None)
    try:
        return ExecOptions(command=tuple(command), **fields)
    except TypeError as error:
        raise UsageError(str(error)) from None

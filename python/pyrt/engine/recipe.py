"""From an image and options to a plan: what the engine asks of ``runtime`` and of the native core.

Whatever is the same at every start of an image is remembered.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypedDict, final

import msgspec

from pyrt import _native
from pyrt.images import host as host_view
from pyrt.runtime.options import RunOptions
from pyrt.runtime.spec import build, build_process

if TYPE_CHECKING:
    from pyrt._native import Plan
    from pyrt.engine.layout import Layout
    from pyrt.engine.record import Record
    from pyrt.images.image import Image
    from pyrt.images.store import Store
    from pyrt.runtime.options import ExecOptions
    from pyrt.runtime.spec import Built

# /etc/passwd and /etc/group of an image are input from a stranger (CVE-2026-30892).
_LARGEST_FILE: Final = 4 << 20
# Entries of the memory of files: a server that is asked for ever new images must not remember them all.
_MOST_FILES: Final = 512
# The paths of secrets on this machine are looked up anew after so many seconds: a look takes a millisecond.
_HOST_FRESH: Final = 10.0

_encode: Final = msgspec.json.Encoder().encode
_decode_options: Final = msgspec.json.Decoder(RunOptions).decode


class Description(TypedDict):
    """What a container's record says of its options."""

    command: tuple[str, ...]
    labels: dict[str, str]
    stop_signal: str
    options: msgspec.Raw


@final
class Recipes:
    """Makes plans; remembers what images hold."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._facts = _native.host()
        self._files: dict[tuple[str, str], bytes | None] = {}
        self._host: tuple[float, Image, tuple[str, ...]] | None = None

    def image(self, store: Store, image: str | Image) -> Image:
        """The image of this name or id; ``host`` is this machine's own files. Raises ImageNotFound."""
        if not isinstance(image, str):
            return image
        return self._host_view()[0] if image == host_view.NAME else store.find(image)

    def describe(self, image: Image, options: RunOptions) -> Description:
        """What is recorded of them."""
        config = image.config
        entrypoint = config.entrypoint if options.entrypoint is None else options.entrypoint
        command = options.command or (config.cmd if options.entrypoint is None else None)
        return Description(
            command=(*(entrypoint or ()), *(command or ())),
            labels={**config.labels, **dict(options.labels)},
            stop_signal=options.stop_signal or config.stop_signal or "TERM",
            options=msgspec.Raw(_encode(options)),
        )

    def wants_folder(self, options: RunOptions) -> bool:
        """Whether the container writes to a folder of its own."""
        return options.upper == "disk" and not options.read_only

    def plan(self, image: Image, options: RunOptions, container: str, id_base: int | None, upper: str | None) -> Plan:
        """The plan of a container; ``upper`` is its folder, made already, or None. Raises SpecError, HostError."""
        built = self._built(image, options, container, id_base, upper)
        return _native.compile(built.spec, built.start)

    def joining_plan(self, image: Image, record: Record, options: ExecOptions, folder: str, pidfd: int) -> Plan:
        """The plan of a process that joins a running container, of which ``pidfd`` is PID 1."""
        own = _decode_options(record.options)
        built = self._built(image, own, record.id, record.id_base, folder if self.wants_folder(own) else None)
        process = build_process(image, own, options, files=partial(self._file, image))
        return _native.compile_exec(built.spec, process, built.start, pidfd)

    def _built(
        self, image: Image, options: RunOptions, container: str, id_base: int | None, upper: str | None
    ) -> Built:
        return build(
            image,
            options,
            id=container,
            id_base=id_base,
            host=self._facts,
            files=partial(self._file, image),
            upper=upper,
            scaffold=str(self._layout.scaffold),
            hidden=self._host_view()[1] if image.id == host_view.NAME else (),
        )

    def _file(self, image: Image, path: str) -> bytes | None:
        """What a file of an image holds; None if it is not there."""
        key = image.id, path
        try:
            return self._files[key]
        except KeyError:
            content = _native.read_image_file(list(image.layers), path, _LARGEST_FILE)
        # This machine's own files change.
        if image.id != host_view.NAME:
            if len(self._files) >= _MOST_FILES:
                self._files.clear()
            self._files[key] = content
        return content

    def _host_view(self) -> tuple[Image, tuple[str, ...]]:
        """This machine as an image, and what is to be hidden of it."""
        now = time.monotonic()
        if self._host is None or now - self._host[0] > _HOST_FRESH:
            hidden = host_view.hidden_paths(self._layout.root, self._layout.run_dir)
            self._host = now, host_view.host_image(), hidden
        return self._host[1:]

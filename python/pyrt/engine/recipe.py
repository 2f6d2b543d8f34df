"""From an image and options to a plan: what the engine asks of ``runtime`` and of the native core.

Whatever is the same at every start of an image is remembered.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

import msgspec

from pyrt import _native
from pyrt.engine.journal import LEASE_FIRST, LEASE_SIZE
from pyrt.errors import UsageError
from pyrt.images import host as host_view
from pyrt.runtime.block_io import names_devices
from pyrt.runtime.host import Host, read_host
from pyrt.runtime.options import ExecOptions, RunOptions
from pyrt.runtime.spec import PEER, Built, build, build_process, no_donor
from pyrt.runtime.user import LARGEST_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrt.engine.layout import Layout
    from pyrt.engine.record import Record
    from pyrt.engine.stopwatch import Steps
    from pyrt.images.image import Image

# A server that is asked for ever new images must not remember the files of all, and of none a large one: an image's
# /etc/passwd may have a mebibyte (CVE-2026-30892).
_MOST_FILES: Final = 512
_LARGEST_KEPT: Final = 16 << 10
_MOST_MOULDS: Final = 256
# Seconds after which this machine's own files are looked at anew: that takes a millisecond.
_FRESH: Final = 10.0

_encode: Final = msgspec.json.Encoder().encode
_decode_options: Final = msgspec.json.Decoder(RunOptions).decode


# The number in whose place a container's first host id is put; as a lease it is never given.
_BASE: Final = LEASE_FIRST - LEASE_SIZE
_BLANK_BASE: Final = b'"hostID":%d,' % _BASE


# The options that make no other container of it: at most another command in the same place.
OF_A_COMMAND: Final[dict[str, Any]] = {
    name: getattr(RunOptions(), name)
    for name in ("command", "entrypoint", "env", "labels", "name", "stop_signal", "stop_timeout")
}


Key: TypeAlias = tuple[str, RunOptions, bool, bytes]
"""Image id, options, whether the container is kept, and a stamp of the image's layers."""


class _Machine(NamedTuple):
    """What this machine was like when it was last looked at."""

    until: float
    facts: Host
    image: Image
    hidden: tuple[str, ...]


@final
class Frame:
    """What all containers of one image with the same options have in common, whatever their commands are.

    ``options`` are those that count: neither name nor labels, command and environment.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self.steps: Steps = ()
        """The steps of the plan of one that waits for its descriptors, once one was compiled."""

    @property
    def options(self) -> RunOptions:
        return self.key[1]


@final
class Mould:
    """The specification of all containers of one image with the same options, with blanks for what differs.

    Two things do: the id, which nobody could have guessed when the blank was made, and the first host id, which stands
    where no text can. Filling them in takes 5 us, making the specification 90.
    """

    def __init__(self, built: Built, blank: str, peers: Sequence[str] = (), frame: Frame | None = None) -> None:
        self.built = built
        self.frame = frame
        """None for one that serves a single start."""
        self.peers = peers
        """Containers whose namespaces are shared."""
        # Both maps have it, or fill would leave a container with ids of nobody's.
        assert built.spec.count(_BLANK_BASE) == (2 if b'"uidMappings"' in built.spec else 0)
        self.steps: Steps = ()
        """The steps of its plan, once one was compiled."""
        self._blank = blank
        self._sample: _native.Sample | None = None
        self.template: _native.Template | None = None
        """Fills in plans, once two were compiled."""

    @property
    def leases_ids(self) -> bool:
        """Whether each container has a range of host ids of its own."""
        return _BLANK_BASE in self.built.spec

    def fill(self, container: str, id_base: int | None, *, parked: bool = False) -> tuple[bytes, bytes]:
        """Specification and start document of one container; ``parked``: one that waits for its descriptors."""
        spec, start = self._name(self.built.spec, container), self._name(self.built.start, container)
        if parked:
            start = start[:-1] + b',"parked":true}'
        if id_base is not None:
            spec = spec.replace(_BLANK_BASE, b'"hostID":%d,' % id_base)
        return spec, start

    def plan(self, container: str, id_base: int | None) -> _native.Plan:
        """The plan of one container; from a template once two were compiled. Raises what compiling does."""
        template, self.template = self.template, None
        if template and id_base is not None and (plan := template.fill(container, id_base)):
            self.template = template
            return plan
        plan = _native.compile(*self.fill(container, id_base))
        if self.frame and id_base is not None:
            before, self._sample = self._sample, plan.sample(container, id_base)
            self.template = before.template(self._sample) if before and self._sample else None
        return plan

    def command(self, container: str) -> bytes | None:
        """This mould's command for a container of its frame that waits; None if it is too long for that."""
        return _native.compile_command(self._name(self.built.process, container))

    def _name(self, document: bytes, container: str) -> bytes:
        named = document.replace(self._blank.encode(), container.encode())
        # The host name of a container that was given none is the beginning of its id.
        return named.replace(self._blank[:12].encode(), container[:12].encode())


@final
class Recipes:
    """Makes plans; remembers what images hold and what this machine is like.

    ``peers``: the process of a running container, of which others share namespaces; ``donor``: see ``build``.
    """

    def __init__(
        self, layout: Layout, peers: Callable[[str], int], donor: Callable[[str, str], int | None] = no_donor
    ) -> None:
        self._layout = layout
        self._peers = peers
        self._donor = donor
        self._scaffold = str(layout.scaffold)
        self._files: dict[tuple[str, str], bytes | None] = {}
        self._moulds: dict[Key, Mould] = {}
        self._frames: dict[Key, Frame] = {}
        self._machine = self._look()

    def image(self, find: Callable[[str], Image], image: str | Image) -> Image:
        """The image of this name or id; ``host`` is this machine's own files. Raises ImageNotFound."""
        if not isinstance(image, str):
            return image
        return self._now().image if image == host_view.NAME else find(image)

    def mould(self, image: Image, options: RunOptions, *, keep: bool) -> Mould:
        """The specification of such containers. Raises UsageError, InvalidImage."""
        machine = self._now()
        if _changes(options):
            return self._build(machine, image, options, keep=keep)
        unnamed = options if not options.name else msgspec.structs.replace(options, name="")
        key = (image.id, unnamed, keep, _stamp(image))
        try:
            mould = self._moulds.get(key)
        except TypeError:
            hint = "tuples are meant; make_options takes lists as well"
            raise UsageError("an option holds a list or another value that can change", hint=hint) from None
        if mould is None:
            mould = self._build(machine, image, options, keep=keep, frame=self._frame(key))
            if len(self._moulds) >= _MOST_MOULDS:
                del self._moulds[next(iter(self._moulds))]
            self._moulds[key] = mould
        return mould

    def _frame(self, key: Key) -> Frame:
        image, options, keep, stamp = key
        key = image, msgspec.structs.replace(options, **OF_A_COMMAND), keep, stamp
        frame = self._frames.get(key)
        if frame is None:
            if len(self._frames) >= _MOST_MOULDS:
                self._forget()
            frame = self._frames[key] = Frame(key)
        return frame

    def _forget(self) -> None:
        self._moulds.clear()
        self._frames.clear()

    def is_current(self, frame: Frame) -> bool:
        """Whether what was made in ``frame`` is what would be made of its image and options now."""
        self._now()
        return self._frames.get(frame.key) is frame

    def _build(
        self,
        machine: _Machine,
        image: Image,
        options: RunOptions,
        *,
        keep: bool,
        joins: bool = False,
        peer: int | None = None,
        frame: Frame | None = None,
    ) -> Mould:
        blank = secrets.token_hex(32)
        is_host = image.id == host_view.NAME
        built = build(
            image,
            options,
            id=blank,
            id_base=_BASE if options.userns == "auto" else None,
            host=machine.facts,
            lookup=partial(self._file, image),
            # "/" holds whatever the scaffold would add, and overlayfs refuses a layer that lies within another.
            lowers=image.layers if is_host else (*image.layers, self._scaffold),
            folder=self._layout.folder(blank),
            hidden=machine.hidden if is_host else (),
            volatile=not keep,
            # The source of a mount may have gone since the container was started: no matter for who joins.
            exists=_is_there if joins else os.path.exists,
            peers=self._peers if peer is None else lambda name: peer,
            donor=self._donor if peer is None else no_donor,
        )
        return Mould(built, blank, shares(options), frame)

    def joining_plan(self, image: Image, record: Record, options: ExecOptions, pidfd: int) -> _native.Plan:
        """The plan of a process that joins a running container, of which ``pidfd`` is PID 1."""
        machine, own, keep = self._now(), options_of(record), not record.auto_remove
        if _changes(own):
            # Namespaces that it shares with another are its own first process's as well, whatever became of the other.
            mould = self._build(machine, image, own, keep=keep, joins=True, peer=record.pid)
        else:
            mould = self.mould(image, own, keep=keep)
        spec, start = mould.fill(record.id, record.id_base)
        process = build_process(spec, options, host=machine.facts, lookup=partial(self._file, image))
        return _native.compile_exec(spec, process, start, pidfd)

    @property
    def facts(self) -> Host:
        """This machine, as specifications depend on it."""
        return self._now().facts

    def _file(self, image: Image, path: str) -> bytes | None:
        """What a file of an image holds; None if it is not there."""
        key = image.id, path
        try:
            return self._files[key]
        except KeyError:
            content = _native.read_image_file(image.layers, path, LARGEST_FILE)
        # This machine's own files change.
        if image.id != host_view.NAME and len(content or b"") <= _LARGEST_KEPT:
            if len(self._files) >= _MOST_FILES:
                self._files.clear()
            self._files[key] = content
        return content

    def _now(self) -> _Machine:
        if time.monotonic() > self._machine.until:
            before, self._machine = self._machine, self._look()
            if before[1:] != self._machine[1:]:
                self._forget()
        return self._machine

    def _look(self) -> _Machine:
        hidden = host_view.hidden_paths(self._layout.root, self._layout.run_dir)
        return _Machine(time.monotonic() + _FRESH, read_host(), host_view.host_image(), hidden)


def _stamp(image: Image) -> bytes:
    """Tells an image from itself when it was removed and is here again: what was made of its old layers is stale."""
    return b"" if image.id == host_view.NAME else _native.stamps(image.layers)


def _changes(options: RunOptions) -> bool:
    """Whether the specification depends on what there is just now."""
    files = options.mounts or options.devices or options.seccomp.startswith("/") or names_devices(options.limits)
    return bool(files or shares(options))


def shares(options: RunOptions) -> list[str]:
    """The containers whose namespaces it shares."""
    ways = (options.pid, options.ipc, options.uts, options.cgroupns)
    return [how.removeprefix(PEER) for how in ways if how.startswith(PEER)]


def _is_there(path: str) -> bool:
    return True


def options_of(record: Record) -> RunOptions:
    """The options with which a container was made."""
    return _decode_options(record.options)


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

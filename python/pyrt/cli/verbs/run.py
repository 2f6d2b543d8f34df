"""``pyrt run``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import trio

from pyrt.cli.attached import STREAMS, Attachment, exit_code_of, follow, takes_ends
from pyrt.cli.lasting import add_lasting_options, lasting_of
from pyrt.cli.options import add_run_options, run_options_of
from pyrt.cli.parser import Help, Parser
from pyrt.cli.pulling import find_or_pull
from pyrt.cli.tied import add_tie_options, parse_keys, tie
from pyrt.engine.results import Verdict
from pyrt.errors import ContainerError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from pyrt.cli.console import Console
    from pyrt.cli.verbs import Invocation
    from pyrt.engine.lasting import Lasting
    from pyrt.engine.results import ExitStatus
    from pyrt.images.image import Image
    from pyrt.runtime.options import RunOptions

HELP = Help(
    "run [OPTIONS] IMAGE [COMMAND] [ARG ...]",
    "Runs a command in a new container, and ends with its exit status: 125 if pyrt fails, 126 if the command can't be\n"
    "executed, 127 if it is not there, 128 and a signal's number if that ended it.",
    (
        ("pyrt run host -- python3 -c 'print(6*7)'", "on a disposable view of this machine"),
        ("pyrt run -it --rm debian:12 bash", "a shell, of which nothing is kept"),
        ("pyrt run -m 64m --pids-limit 32 --cpus .5 IMAGE", "with limits"),
        ("pyrt run --read-only --tmpfs /tmp -u 1000:1000 IMAGE", "with nothing to write to but /tmp"),
        ("pyrt run -v ./src:/src:ro -w /src IMAGE make", "with a folder of yours"),
        ("tar c . | pyrt run -i --rm IMAGE tar x", "in a pipe"),
    ),
)


_REMOVAL_TIME: Final = 10.0
"""Seconds that a removal may take before nobody waits for it any more."""


def arguments(parser: Parser) -> None:
    common_arguments(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="leave it running, and print its id")
    add_tie_options(parser)


def common_arguments(parser: Parser) -> None:
    """Those of ``create``, too."""
    parser.add_argument("image", metavar="IMAGE", help="a name or an id; host: this machine's own files")
    parser.add_command("instead of the image's own")
    parser.add_argument("-a", "--attach", action="append", metavar="STREAM", help="stdin, stdout or stderr alone")
    parser.add_argument("--rm", action="store_true", help="keep nothing of it when it has ended")
    parser.add_argument("--pull", choices=("always", "missing", "never"), default="missing", metavar="WHEN",
                        help="pull the image: always, missing (usual), never")  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress of a pull")
    parser.add_argument("--platform", metavar="OS/ARCH", help="which variant to pull")
    parser.add_argument("--cidfile", metavar="FILE", help="write the container's id there")
    add_run_options(parser)
    add_lasting_options(parser)


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    attachment = _attachment(options)
    parse_keys(options.detach_keys)
    if not options.detach:
        attachment.check(console)
    run_options = await run_options_of(options, console)
    cidfile = reserve(console.path(options.cidfile)) if options.cidfile else None
    image = await find_or_pull(
        console, engine, options.image, when=options.pull, platform=options.platform, quiet=options.quiet
    )
    lasting = lasting_of(options, image)
    if options.detach:
        record = await engine.run_detached(image, run_options, lasting, keep=not options.rm, asked=options.image)
        if cidfile is not None:
            write_id(cidfile, record.id)
        await console.out(f"{record.id}\n")
        return 0
    if lasting.restart.when != "no":
        raise UsageError("--restart is for a container that lasts", hint="-d detaches it")
    if attachment.interactive and attachment.tty and lasting.log.files:
        return await _with_keys(invocation, image, run_options, lasting, cidfile)
    anonymous = options.rm and not options.name and cidfile is None
    container = await engine.start(
        image,
        run_options,
        wants_stdin=attachment.interactive,
        take_ends=takes_ends(console, attachment) if anonymous else None,
        keep=not options.rm,
        asked=options.image,
        cause="run",
        brief=cidfile is None,
    )
    try:
        if cidfile is not None:
            write_id(cidfile, container.id)
        status = await follow(console, container, attachment, container.kill)
    except BaseException:
        await container.destroy("client gone")
        raise
    return await _finish(invocation, status)


async def _with_keys(
    invocation: Invocation, image: str | Image, run_options: RunOptions, lasting: Lasting, cidfile: Path | None
) -> int:
    """On a terminal whose user may leave it by keys: so it is one that lasts, although it ends if its client goes."""
    options, console, engine = invocation.options, invocation.console, invocation.engine
    record = await engine.create(image, run_options, lasting, keep=not options.rm, asked=options.image, cause="run")
    stream = engine.next_log(record.id)
    try:
        if cidfile is not None:
            write_id(cidfile, record.id)
        record = await engine.launch(record.id, cause="run")
        running = engine.live.get(record.id)
        try:
            way_in = await engine.open_input(record.id)
        except ContainerError:
            way_in = None  # It has ended by now: what it wrote is still to be shown.
        status = await tie(
            console,
            engine,
            record,
            stream,
            way_in,
            keys=options.detach_keys,
            forwards_signals=options.sig_proxy,
            running=running,
        )
    except BaseException:
        stream.close()
        if running := engine.live.get(record.id):
            await running.destroy("client gone")
        raise
    return 0 if status is None else await _finish(invocation, status)


def streams_of(options: Any) -> frozenset[str]:
    """The streams that -a names; raises UsageError."""
    streams = frozenset(name.lower() for name in options.attach or STREAMS)
    if unknown := streams - set(STREAMS):
        raise UsageError(f"-a {min(unknown)}: there is no such stream", hint="stdin, stdout or stderr")
    return streams


def _attachment(options: Any) -> Attachment:
    streams = streams_of(options)
    return Attachment(
        interactive=options.interactive and "stdin" in streams,
        tty=options.tty,
        outputs=streams - {"stdin"},
        forwards_signals=options.sig_proxy,
    )


def reserve(path: Path) -> Path:
    """Where a container's id is to be written; raises UsageError if something is there."""
    if path.exists():
        raise UsageError(f"{path} is there already", hint="another container may have it as its --cidfile: remove it")
    return path


def write_id(path: Path, identifier: str) -> None:
    """Writes a container's id there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"writing {path}: {error.strerror}") from error
    with open(descriptor, "w") as file:
        file.write(identifier)


async def _tell_limits(console: Console, options: Any, status: ExitStatus) -> None:
    """Why it was killed or failed, if that was for a limit: its exit status alone does not say it."""
    if status.verdict is Verdict.OUT_OF_MEMORY:
        limit = f" of {options.memory}" if options.memory else ""
        await console.err(f"pyrt: the container ran out of memory\nhint: -m raises its limit{limit}\n")
    elif status.verdict is Verdict.TIMED_OUT:
        await console.err(f"pyrt: the container was killed at its time limit of {options.timeout}\n")
    elif status.pids_refused and status.exit_code:
        await console.err(
            f"pyrt: the container's limit on processes refused {status.pids_refused} of them\n"
            f"hint: --pids-limit raises it{f' of {options.pids_limit}' if options.pids_limit else ''}\n"
        )


async def _finish(invocation: Invocation, status: ExitStatus) -> int:
    """The exit status of the command. A name that is to be free again after it has to be so when it ends."""
    await _tell_limits(invocation.console, invocation.options, status)
    if invocation.options.rm and invocation.options.name:
        with trio.move_on_after(_REMOVAL_TIME):
            await invocation.engine.settled()
    return await exit_code_of(invocation.console, status)

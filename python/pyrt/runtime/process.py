"""The process of a container: what is run, as whom, with which environment and which rights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pyrt.errors import InvalidImage, UsageError
from pyrt.runtime import capabilities
from pyrt.runtime.mounting import plain_path
from pyrt.runtime.resources import rlimits
from pyrt.runtime.user import LARGEST_ID, User, resolve_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyrt.runtime.host import Host
    from pyrt.runtime.image import Config
    from pyrt.runtime.options import ExecOptions, RunOptions

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENV_NAME: Final = re.compile(r"[^=\x00]+")
# MAX_ARG_STRLEN: the kernel takes no longer word.
_LONGEST_WORD: Final = 131_072


def command(config: Config, options: RunOptions) -> tuple[str, ...]:
    """Entrypoint and arguments; UsageError if neither image nor caller names any."""
    words = combined(config, options)
    if not words:
        raise UsageError("there is no command to run", hint="the image names none; give one after the image's name")
    return _checked_words(words)


def combined(config: Config, options: RunOptions) -> tuple[str, ...]:
    """As Docker does it: an entrypoint of the caller's clears the image's command."""
    if options.entrypoint is not None:
        return (*(word for word in options.entrypoint if word), *options.command)
    return (*(config.entrypoint or ()), *(options.command or config.cmd or ()))


def _checked_words(words: Sequence[str]) -> tuple[str, ...]:
    if not words or not words[0]:
        raise UsageError("the command is empty", hint="its first word names a program")
    for word in words:
        if "\0" in word or len(word) >= _LONGEST_WORD:
            raise UsageError("a word of the command has a NUL character or more than 128 KiB")
    return tuple(words)


def environment(config: Config, options: RunOptions, hostname: str, home: str) -> dict[str, str]:
    """The variables, in order; what the image says goes over our defaults, what the caller says over both."""
    env = {"PATH": PATH, "HOSTNAME": hostname}
    if options.tty:
        env["TERM"] = "xterm"
    env.update(_parsed(config.env))
    env.update(_checked_env(options.env))
    env.setdefault("HOME", home)
    return env


def _parsed(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition("=")
        # Docker drops such lines of an image, too.
        if name and "\0" not in line:
            yield name, value


def _checked_env(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    for name, value in pairs:
        if not _ENV_NAME.fullmatch(name) or "\0" in value:
            raise UsageError(f"{name[:80]!r} is no name of a variable, or its value has a NUL character")
        yield name, value


def user(config: Config, options: RunOptions, lookup: Callable[[str], bytes | None], ids: int) -> User:
    """Who it runs as."""
    text = options.user or config.user
    return _find(text, options.group_add, lookup, ids, of_image=not options.user)


def _find(text: str, extra: Sequence[str], lookup: Callable[[str], bytes | None], ids: int, *, of_image: bool) -> User:
    try:
        return resolve_user(text, lookup("/etc/passwd"), lookup("/etc/group"), extra, ids=ids)
    except UsageError as error:
        if not of_image or extra:
            raise
        raise InvalidImage(f"the image's user is unusable: {error.message}", hint=error.hint) from None


def working_directory(config: Config, options: RunOptions) -> str:
    """Absolute and plain; made if it is not there."""
    if options.workdir:
        return plain_path(options.workdir, "working directory")
    return plain_path(f"/{config.working_dir}", "working directory of the image")


def ids_of(id_base: int | None) -> int:
    """How many user ids a container has: a range of its own, or all."""
    return LARGEST_ID + 1 if id_base is None else RANGE


RANGE: Final = 65_536
"""Ids of one container's user namespace."""


def granted(options: RunOptions, host: Host, *, mapped: bool) -> frozenset[str]:
    """Capabilities. In a user namespace of its own a container may have all, whatever this process has."""
    available = _ALL if mapped else host.capabilities
    if options.privileged:
        return available
    chosen = capabilities.choose(options.cap_add, options.cap_drop, available)
    if "CAP_MKNOD" in chosen and not (mapped or host.device_rules or host.device_programs):
        raise UsageError(
            "CAP_MKNOD can't be given here: no cgroup hierarchy has rules that would keep devices closed",
            hint="drop it, or leave --userns host out",
        )
    return chosen


_ALL: Final = frozenset(capabilities.ALL)


def sets(granted: frozenset[str], uid: int) -> dict[str, tuple[str, ...]]:
    """The five sets. Inheritable and ambient stay empty (CVE-2022-24769); who is not root starts with none in force."""
    names = tuple(sorted(granted))
    in_force = names if uid == 0 else ()
    return {"bounding": names, "effective": in_force, "permitted": in_force, "inheritable": (), "ambient": ()}


def process(
    options: RunOptions, words: Sequence[str], env: dict[str, str], who: User, cwd: str, rights: frozenset[str]
) -> dict[str, Any]:
    """``process`` of the specification."""
    found: dict[str, Any] = {
        "user": {"uid": who.uid, "gid": who.gid, "additionalGids": who.groups},
        "args": words,
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": cwd,
        "capabilities": sets(rights, who.uid),
        "noNewPrivileges": options.no_new_privileges and not options.privileged,
        **_terminal(options),
    }
    if options.ulimits:
        found["rlimits"] = rlimits(options.ulimits)
    if options.oom_score_adj is not None:
        if not -1000 <= options.oom_score_adj <= 1000:
            raise UsageError(f"{options.oom_score_adj} is no OOM score adjustment", hint="it is from -1000 to 1000")
        found["oomScoreAdj"] = options.oom_score_adj
    return found


def _terminal(options: RunOptions | ExecOptions) -> dict[str, Any]:
    if not options.tty:
        return {}
    if not options.rows or not options.columns:
        return {"terminal": True}
    if not (0 < options.rows < 65_536 and 0 < options.columns < 65_536):
        raise UsageError(f"{options.rows} rows and {options.columns} columns are no size of a terminal")
    return {"terminal": True, "consoleSize": {"height": options.rows, "width": options.columns}}


class _User(msgspec.Struct, rename="camel"):
    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()


class _Capabilities(msgspec.Struct):
    bounding: tuple[str, ...] = ()


class _Process(msgspec.Struct, rename="camel"):
    user: _User
    cwd: str
    capabilities: _Capabilities
    env: tuple[str, ...] = ()
    no_new_privileges: bool = False
    rlimits: tuple[dict[str, Any], ...] = ()
    oom_score_adj: int | None = None


class _Linux(msgspec.Struct, rename={"uid_mappings": "uidMappings"}):
    uid_mappings: tuple[Any, ...] = ()


class _Spec(msgspec.Struct):
    process: _Process
    linux: _Linux


def build_process(spec: bytes, options: ExecOptions, *, host: Host, lookup: Callable[[str], bytes | None]) -> bytes:
    """The JSON of one more process for the container that ``spec`` made; what ``options`` leaves open is as there.

    ``lookup`` gives a file of the image (/etc/passwd, /etc/group) or None.
    """
    known = msgspec.json.decode(spec, type=_Spec)
    own, mapped = known.process, bool(known.linux.uid_mappings)
    who = User(own.user.uid, own.user.gid, own.user.additional_gids, "", "")
    env = dict(_parsed(own.env))
    if options.tty:
        env.setdefault("TERM", "xterm")
    if options.user:
        who = _become(who, options.user, env, lookup, RANGE if mapped else LARGEST_ID + 1)
    env.update(_checked_env(options.env))
    rights = frozenset(own.capabilities.bounding)
    if options.privileged:
        rights = _ALL if mapped else host.capabilities
    found: dict[str, Any] = {
        "user": {"uid": who.uid, "gid": who.gid, "additionalGids": who.groups},
        "args": _checked_words(options.command),
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": plain_path(options.workdir, "working directory") if options.workdir else own.cwd,
        "capabilities": sets(rights, who.uid),
        "noNewPrivileges": own.no_new_privileges and not options.privileged,
        **_terminal(options),
    }
    if own.rlimits:
        found["rlimits"] = own.rlimits
    if own.oom_score_adj is not None:
        found["oomScoreAdj"] = own.oom_score_adj
    return encode(found)


def _become(before: User, text: str, env: dict[str, str], lookup: Callable[[str], bytes | None], ids: int) -> User:
    """Another user, who gets a home of their own; one that was set by hand stays."""
    home = resolve_user(str(before.uid), lookup("/etc/passwd"), None).home
    who = _find(text, (), lookup, ids, of_image=False)
    if env.get("HOME") == home:
        env["HOME"] = who.home
    return who


def encode(document: Any) -> bytes:
    """JSON; UsageError for a text that is not UTF-8, which the specification has no way to write."""
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        raise UsageError(
            "a text that was given is not valid UTF-8", hint="look at command, environment, paths"
        ) from None

"""Credentials for registries, from where Docker and the containers tools keep them.

Files are read in the containers tools' order, then Docker's; credential helpers are asked when a registry
wants credentials, never before. A secret is never part of a message, a repr or a log.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from pyrt import threads
from pyrt.errors import RegistryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HELPER_SECONDS: Final = 30.0

_HUB: Final = "docker.io"
_HUB_KEY: Final = "https://index.docker.io/v1/"
_HUB_HOSTS: Final = frozenset({_HUB, "index.docker.io", "registry-1.docker.io"})
_HELPER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
# What the helpers of docker-credential-helpers print when they work and have nothing.
_NOTHING_FOUND: Final = b"credentials not found in native keychain"


class Credentials(msgspec.Struct, frozen=True):
    """What a registry or its token server may be told: a name and password, or one of two kinds of token.

    ``identity_token`` is an OAuth2 refresh token for the token server, ``registry_token`` a bearer token
    for the registry itself. Fields that are not used are "".
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, secrets withheld)"

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class _Entry(msgspec.Struct, frozen=True):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class _File(msgspec.Struct, frozen=True):
    auths: dict[str, _Entry] | None = None
    helpers: dict[str, str] | None = msgspec.field(default=None, name="credHelpers")
    store: str | None = msgspec.field(default=None, name="credsStore")


class _Answer(msgspec.Struct, frozen=True, rename="pascal"):
    """What a credential helper prints."""

    username: str = ""
    secret: str = ""


class Keyring:
    """Every place that may know credentials, in order. Files are read once, when first asked."""

    def __init__(self, paths: tuple[Path, ...], environ: Mapping[str, str]) -> None:
        self._paths = paths
        self._environ = environ
        self._files: tuple[tuple[Path, _File], ...] | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str] | None = None) -> Keyring:
        """The keyring of a user, who is told by their environment (default: this process's)."""
        environ = os.environ if environ is None else environ
        explicit = environ.get("REGISTRY_AUTH_FILE")
        if explicit and not Path(explicit).exists():
            raise UsageError(f"REGISTRY_AUTH_FILE names {explicit}, which does not exist")
        return cls((Path(explicit),) if explicit else tuple(_usual_paths(environ)), environ)

    async def find(self, registry: str, repository: str = "") -> Credentials | None:
        """Credentials for a repository; None: nothing is known. ``registry`` as in a reference."""
        for path, file in self._read():
            found = await self._find_in(path, file, registry, repository)
            if found:
                return found
        return None

    async def _find_in(self, path: Path, file: _File, registry: str, repository: str) -> Credentials | None:
        helper = _by_host(file.helpers or {}, registry)
        if helper:
            return await self._ask(helper, path, registry)
        entries = {_key(name): entry for name, entry in (file.auths or {}).items()}
        for wanted in _keys(registry, repository):
            found = _from_entry(path, entries.get(wanted, _Entry()))
            if found:
                return found
        return await self._ask(file.store, path, registry) if file.store else None

    async def _ask(self, helper: str, path: Path, registry: str) -> Credentials | None:
        """Run a credential helper, as docker-credential-helpers defines its protocol."""
        program = _program(helper, path, self._environ)
        server = _HUB_KEY if registry in _HUB_HOSTS and path.name == "config.json" else registry
        with threads.wanted(), trio.move_on_after(HELPER_SECONDS) as scope:
            done = await trio.run_process(
                [program, "get"],
                stdin=server.encode(),
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
                check=False,
                env=dict(self._environ),
            )
        if scope.cancelled_caught:
            raise RegistryError(
                f"the credential helper {program} gave no answer within {HELPER_SECONDS:.0f} s",
                hint="it may wait for a key store to be unlocked",
            )
        if done.returncode:
            if _NOTHING_FOUND in done.stdout.lower():
                return None
            raise RegistryError(f"the credential helper {program} failed with status {done.returncode}")
        return _from_helper(program, done.stdout)

    def _read(self) -> tuple[tuple[Path, _File], ...]:
        if self._files is None:
            self._files = tuple((path, _decode(path)) for path in self._paths if path.is_file())
        return self._files


def _usual_paths(environ: Mapping[str, str]) -> Iterator[Path]:
    home = Path(environ.get("HOME") or Path.home())
    runtime = environ.get("XDG_RUNTIME_DIR")
    # Without a runtime folder the containers tools of root fall back to this one.
    yield Path(runtime or "/run", "containers", "" if runtime else str(os.getuid()), "auth.json")
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    yield Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _decode(path: Path) -> _File:
    try:
        content = path.read_bytes()
        return msgspec.json.decode(content, type=_File) if content.strip() else _File()
    except OSError as error:
        raise UsageError(f"the credentials in {path} can't be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Without its cause: a decoder's message may quote what it stumbled over, and that may be a secret.
        raise UsageError(f"{path} is damaged", hint="it should be the JSON that `docker login` writes") from None


def _key(name: str) -> str:
    """An entry's name as host[/path]; of a URL the host alone, since Docker writes "https://host/v1/"."""
    scheme, found, rest = name.partition("://")
    if found and scheme in ("http", "https"):
        name = rest.partition("/")[0]
    host, slash, path = name.rstrip("/").partition("/")
    if host in _HUB_HOSTS:
        return f"{_HUB}/{path}" if slash and path not in ("v1", "v2") else _HUB
    return name.rstrip("/")


def _keys(registry: str, repository: str) -> Iterator[str]:
    """What to look for, from the most to the least specific."""
    host = _HUB if registry in _HUB_HOSTS else registry
    parts = repository.split("/") if repository else []
    for length in range(len(parts), -1, -1):
        yield "/".join([host, *parts[:length]])


def _by_host(helpers: dict[str, str], registry: str) -> str | None:
    host = _HUB if registry in _HUB_HOSTS else registry
    return next((helper for name, helper in helpers.items() if _key(name) == host), None)


def _from_entry(path: Path, entry: _Entry) -> Credentials | None:
    username, password = entry.username or "", entry.password or ""
    if entry.auth:
        try:
            text = base64.b64decode(entry.auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise UsageError(f"{path} holds an entry that is damaged", hint="log in to the registry again") from None
        # Docker has padded the field with NULs.
        username, _, password = text.rstrip("\0").partition(":")
    if not (username or entry.identitytoken or entry.registrytoken):
        return None
    return Credentials(username, password, entry.identitytoken or "", entry.registrytoken or "")


def _program(helper: str, path: Path, environ: Mapping[str, str]) -> str:
    name = f"docker-credential-{helper}"
    if not _HELPER_NAME.fullmatch(helper):
        raise UsageError(f"{path} names a credential helper that can't be one: {helper[:64]!r}")
    found = shutil.which(name, path=environ.get("PATH"))
    if not found:
        raise UsageError(
            f"{path} names the credential helper {name}, which is not installed",
            hint="install it, or remove its line from that file",
        )
    return found


def _from_helper(program: str, output: bytes) -> Credentials | None:
    try:
        answer = msgspec.json.decode(output, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RegistryError(f"the credential helper {program} answered with something else than JSON") from None
    if answer.username == "<token>":
        return Credentials(identity_token=answer.secret)
    return Credentials(answer.username, answer.secret) if answer.username else None

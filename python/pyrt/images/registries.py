"""Which servers stand behind a registry's name on this machine: containers-registries.conf(5), version 2.

Mirrors, locations, blocked and insecure registries, aliases and search registries of short names. It says
where to ask and in which order; asking is ``registry``'s part.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from pyrt import _native
from pyrt.errors import RegistryError, UsageError
from pyrt.images.reference import Reference, has_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_FOLDER: Final = Path("/etc/containers")

# Docker Hub's API has a name of its own.
_API_HOSTS: Final = {"docker.io": "registry-1.docker.io"}


class Endpoint(msgspec.Struct, frozen=True):
    """One repository on one server, and how far the server is trusted.

    ``registry`` is the name under which credentials are kept, ``host`` where the API answers (host[:port]).
    ``insecure``: plain HTTP and unverified certificates are allowed.
    """

    registry: str
    repository: str
    insecure: bool = False
    mirror: bool = False

    @property
    def host(self) -> str:
        return _API_HOSTS.get(self.registry, self.registry)

    @property
    def schemes(self) -> tuple[str, ...]:
        """What to try, in order. Nobody can sit between us and our own loopback, so it may be plain there."""
        if is_loopback(self.host):
            return ("http", "https")
        return ("https", "http") if self.insecure else ("https",)

    @property
    def verified(self) -> bool:
        """Whether its TLS certificate must be valid."""
        return not (self.insecure or is_loopback(self.host))

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"


class _Mirror(msgspec.Struct, frozen=True, rename="kebab"):
    location: str
    insecure: bool = False
    pull_from_mirror: str = "all"


class _Rule(msgspec.Struct, frozen=True, rename="kebab"):
    location: str = ""
    prefix: str = ""
    insecure: bool = False
    blocked: bool = False
    mirror_by_digest_only: bool = False
    mirror: tuple[_Mirror, ...] = ()

    @property
    def key(self) -> str:
        return (self.prefix or self.location).rstrip("/")


class _File(msgspec.Struct, frozen=True, rename="kebab"):
    unqualified_search_registries: tuple[str, ...] | None = None
    short_name_mode: str = ""
    registry: tuple[_Rule, ...] = ()
    registries: object = None
    aliases: dict[str, str] = {}


class Registries(msgspec.Struct, frozen=True):
    """The rules of this machine, merged. The default has none: every registry is what it is called."""

    rules: dict[str, _Rule] = {}
    aliases: dict[str, str] = {}
    search: tuple[str, ...] = ()
    enforcing: bool = False

    @classmethod
    def of(cls, environ: Mapping[str, str] | None = None, *, system: Path = SYSTEM_FOLDER) -> Registries:
        """The rules of a user, who is told by their environment (default: this process's)."""
        environ = os.environ if environ is None else environ
        key = (*map(environ.get, _VARIABLES), str(system))
        known = _remembered.get(key)
        if known and known.stamps == _native.stamps(known.watched):
            return known.registries
        # Stamped before they are read: what is changed meanwhile is read again the next time.
        watched = tuple(map(str, _watched(environ, system)))
        stamps = _native.stamps(watched)
        merged = cls()
        for path in _paths(environ, system):
            merged = merged._with(_decode(path))
        if len(_remembered) >= _MOST_REMEMBERED:
            _remembered.clear()
        _remembered[key] = _Known(watched, stamps, merged)
        return merged

    def resolve(self, text: str) -> tuple[Reference, ...]:
        """What a name may mean, in the order in which to try; one reference unless it is short.

        Short names go by alias, then by the search registries, then, as with Docker, to docker.io.
        """
        reference = Reference.parse(text)
        # Behind the last slash a colon starts a tag; before it, it belongs to a registry's port.
        name = text.partition("@")[0]
        head, slash, last = name.rpartition("/")
        short = f"{head}{slash}{last.partition(':')[0]}"
        if has_registry(short):
            return (reference,)
        if self.aliases.get(short):
            meant = Reference.parse(self.aliases[short])
            return (Reference(meant.registry, meant.repository, reference.tag, reference.digest),)
        if self.enforcing and len(self.search) > 1:
            raise UsageError(
                f"{text!r} may be in any of {', '.join(self.search)}",
                hint="name the registry too, as registries.conf enforces it",
            )
        return tuple(Reference.parse(f"{registry}/{text}") for registry in self.search) or (reference,)

    def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Where to ask for an image: its mirrors, then its registry. ``RegistryError`` when that is blocked."""
        rule = self._rule(reference)
        if rule is None:
            return (Endpoint(reference.registry, reference.repository),)
        if rule.blocked:
            raise RegistryError(f"{reference} is blocked by the rule for {rule.key} in registries.conf")
        mirrors = (
            _endpoint(reference, rule.key, mirror.location, insecure=mirror.insecure, mirror=True)
            for mirror in rule.mirror
            if _serves(mirror, rule, reference)
        )
        return (*mirrors, _endpoint(reference, rule.key, rule.location, insecure=rule.insecure))

    def _rule(self, reference: Reference) -> _Rule | None:
        """The rule with the longest prefix. Wildcards are longer the more they say."""
        matching = [key for key in self.rules if _matches(key, reference)]
        return self.rules[max(matching, key=len)] if matching else None

    def _with(self, file: _File) -> Registries:
        """These rules, overridden by another file: a later rule of the same prefix replaces the former whole."""
        aliases = {name: meant for name, meant in {**self.aliases, **file.aliases}.items() if meant}
        search = file.unqualified_search_registries
        return Registries(
            {**self.rules, **{rule.key: rule for rule in file.registry}},
            aliases,
            self.search if search is None else search,
            file.short_name_mode == "enforcing" if file.short_name_mode else self.enforcing,
        )


class _Known(NamedTuple):
    """Rules as they were read, and how the files and folders looked that they came from."""

    watched: tuple[str, ...]
    stamps: bytes
    registries: Registries


# Every start of an image with a short name asks. Reading the files that Debian has takes 3 ms, a look at them 10 us.
_remembered: dict[tuple[str | None, ...], _Known] = {}
_MOST_REMEMBERED: Final = 64
_VARIABLES: Final = ("HOME", "XDG_CONFIG_HOME", "CONTAINERS_REGISTRIES_CONF")


def is_loopback(host: str) -> bool:
    """Whether host[:port] can only be this machine."""
    import ipaddress

    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    # "x.localhost" is not enough: where glibc does not know better, it is looked up in the DNS.
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _paths(environ: Mapping[str, str], system: Path) -> Iterator[Path]:
    """Files in the order of containers-registries.conf.d(5); later ones override."""
    home = _own_folder(environ)
    explicit = environ.get("CONTAINERS_REGISTRIES_CONF")
    if explicit:
        yield Path(explicit)
        return
    own = home / "registries.conf"
    if own.is_file():
        yield own
    else:
        if (system / "registries.conf").is_file():
            yield system / "registries.conf"
        yield from sorted((system / "registries.conf.d").glob("*.conf"))
    yield from sorted((home / "registries.conf.d").glob("*.conf"))


def _watched(environ: Mapping[str, str], system: Path) -> Iterator[Path]:
    """The files that count, and wherever others may come to count."""
    yield from _paths(environ, system)
    own = _own_folder(environ)
    yield from (own / "registries.conf", own / "registries.conf.d")
    yield from (system / "registries.conf", system / "registries.conf.d")


def _own_folder(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home()) / ".config") / "containers"


def _decode(path: Path) -> _File:
    try:
        file = msgspec.convert(tomllib.loads(path.read_text()), type=_File)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path} is malformed: {error}") from error
    if file.registries is not None:
        raise UsageError(
            f"{path} is of version 1, with [registries.search] and the like",
            hint="write it with [[registry]] tables: containers-registries.conf(5)",
        )
    for rule in file.registry:
        _check(path, rule)
    return file


def _check(path: Path, rule: _Rule) -> None:
    if not rule.key:
        raise UsageError(f"{path} has a [[registry]] without prefix and location")
    if "*" in rule.key.removeprefix("*.") or (rule.key.startswith("*.") and ("/" in rule.key or ":" in rule.key)):
        raise UsageError(f"{path} has the prefix {rule.key!r}", hint="a wildcard goes before a host: *.example.com")
    if not rule.location and not rule.key.startswith("*."):
        raise UsageError(f"{path} has no location for the prefix {rule.key!r}")
    for mirror in rule.mirror:
        if mirror.pull_from_mirror not in ("", "all", "digest-only", "tag-only"):
            raise UsageError(f"{path} has pull-from-mirror = {mirror.pull_from_mirror!r}")


def _matches(prefix: str, reference: Reference) -> bool:
    if prefix.startswith("*."):
        return reference.registry.partition(":")[0].endswith(prefix[1:])
    text = str(reference)
    # The prefix ends where a component, a tag or a digest ends: "example.com/foo" is not in "example.com/foobar",
    # and "example.com" is another registry than "example.com:5000".
    if not text.startswith(prefix):
        return False
    rest = text[len(prefix) :]
    return not rest or rest[0] in "/@" or (rest[0] == ":" and "/" in prefix)


def _serves(mirror: _Mirror, rule: _Rule, reference: Reference) -> bool:
    by_digest = reference.digest is not None
    if rule.mirror_by_digest_only:
        return by_digest
    return {"digest-only": by_digest, "tag-only": not by_digest}.get(mirror.pull_from_mirror, True)


def _endpoint(reference: Reference, prefix: str, location: str, *, insecure: bool, mirror: bool = False) -> Endpoint:
    """The reference with the rule's prefix replaced by the location."""
    name = reference.name
    if location and prefix.startswith("*."):
        name = f"{location}/{reference.repository}"
    elif location:
        # A prefix may go as far as the tag; what it says there is not part of the name.
        name = location + name[len(prefix) :]
    if not has_registry(name):
        raise UsageError(f"registries.conf moves {reference.name} to {name!r}, which names no registry")
    meant = Reference.parse(name)
    return Endpoint(meant.registry, meant.repository, insecure, mirror)

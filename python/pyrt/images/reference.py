"""Image references: ``registry/repository:tag@digest`` as people know them from Docker.

What lives here is grammar alone, after github.com/distribution/reference. Which server stands behind a
registry name, and what a short name means to this machine, is known in ``registries``.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from pyrt.errors import UsageError

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"

_OFFICIAL: Final = "library/"
_ALIASES: Final = {"index.docker.io": DEFAULT_REGISTRY}
# The limit of the reference implementation; longer names don't fit into one path component of a registry's disk.
_LONGEST_REPOSITORY: Final = 255
_LONGEST_TEXT: Final = 1024

_REGISTRY = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
    r"|\[[a-fA-F0-9:]+\])(?::(?P<port>[0-9]+))?"
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ALGORITHM = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True):
    """One image in one registry. A reference without tag and digest means the repository as a whole.

    ``registry`` is a host with an optional port ("docker.io", "localhost:5000", "[::1]:5000"),
    ``repository`` a lowercase path, ``digest`` of the form "sha256:<64 hex digits>".
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read what a person types. ``UsageError`` says which part is wrong."""
        if not text or len(text) > _LONGEST_TEXT:
            raise _malformed(text, "it is empty" if not text else f"it is longer than {_LONGEST_TEXT} characters")
        if "://" in text:
            raise _malformed(text, "it starts like a URL", hint=f"leave {text.partition('://')[0]}:// away")
        name, at, digest = text.partition("@")
        if at:
            _check_digest(text, digest)
        name, tag = _split_tag(text, name)
        registry, repository = split_registry(name)
        _check_registry(text, registry)
        _check_repository(text, repository)
        return cls(registry, repository, tag, digest or None)

    def __str__(self) -> str:
        """The canonical form: nothing implied, "docker.io/library/debian:12"."""
        return f"{self.name}{self._suffix}"

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    def familiar(self) -> str:
        """The shortest form that is parsed back to the same reference: "debian:12"."""
        return f"{self._familiar_name()}{self._suffix}"

    def with_default_tag(self) -> Reference:
        """Self, or with the tag "latest" where neither tag nor digest is given."""
        if self.tag or self.digest:
            return self
        return Reference(self.registry, self.repository, DEFAULT_TAG)

    def pinned(self, digest: str) -> Reference:
        """The same repository by digest alone; ``digest`` must be valid."""
        return Reference(self.registry, self.repository, None, digest)

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def _familiar_name(self) -> str:
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = self.repository.removeprefix(_OFFICIAL)
        for candidate in (short, self.repository):
            if split_registry(candidate) == (self.registry, self.repository):
                return candidate
        return self.name


def is_digest(text: object) -> bool:
    """Whether this is a digest that may become part of a path or a URL (CVE-2024-3727: many a one was not)."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def has_registry(name: str) -> bool:
    """Whether a name says which registry it means: its first component has a dot, a port, a capital or is localhost."""
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())


def split_registry(name: str) -> tuple[str, str]:
    """Registry and repository of a name without tag and digest, with Docker's defaults filled in."""
    registry, repository = DEFAULT_REGISTRY, name
    if has_registry(name):
        registry, _, repository = name.partition("/")
    registry = _ALIASES.get(registry, registry)
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    return registry, repository


def _split_tag(text: str, name: str) -> tuple[str, str | None]:
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, None
    if not _TAG.fullmatch(tag):
        raise _malformed(
            text,
            "its tag is empty" if not tag else f"{tag!r} is no tag",
            hint="a tag is at most 128 letters, digits, '_', '.' and '-', and does not start with '.' or '-'",
        )
    return path, tag


def _check_digest(text: str, digest: str) -> None:
    if is_digest(digest):
        return
    algorithm = digest.partition(":")[0]
    if ":" in digest and _ALGORITHM.fullmatch(algorithm) and algorithm != "sha256":
        raise _malformed(text, f"its digest is of the kind {algorithm!r}", hint="pyrt knows sha256")
    raise _malformed(text, "its digest is malformed", hint="a digest is 'sha256:' and 64 lowercase hex digits")


def _check_registry(text: str, registry: str) -> None:
    match = _REGISTRY.fullmatch(registry)
    if not match:
        raise _malformed(text, f"{registry!r} is no host name", hint="write it as registry[:port]/repository[:tag]")
    if match["port"] and not 0 < int(match["port"][:6]) <= 65535:
        raise _malformed(text, f"{match['port'][:20]} is no port number")


def _check_repository(text: str, repository: str) -> None:
    if len(repository) > _LONGEST_REPOSITORY:
        raise _malformed(text, f"its repository is longer than {_LONGEST_REPOSITORY} characters")
    if all(_COMPONENT.fullmatch(part) for part in repository.split("/")):
        if _IDENTIFIER.fullmatch(repository.removeprefix(_OFFICIAL)):
            raise _malformed(text, "64 hex digits are an image's id, not its name")
        return
    if repository != repository.lower():
        raise _malformed(text, "repository names are lowercase", hint=f"did you mean {_as_typed(text, repository)!r}?")
    if "" in repository.split("/"):
        raise _malformed(text, "a part of its path is empty")
    raise _malformed(
        text,
        f"{repository!r} is no repository name",
        hint="its parts are lowercase letters and digits, joined by '.', '_', '__' or dashes",
    )


def _as_typed(text: str, repository: str) -> str:
    """In lower case, without what was filled in."""
    return repository.lower() if repository in text else repository.removeprefix(_OFFICIAL).lower()


def _malformed(text: str, why: str, *, hint: str | None = None) -> UsageError:
    shown = text if len(text) <= 100 else text[:97] + "..."
    return UsageError(f"{shown!r} is not an image name: {why}", hint=hint)

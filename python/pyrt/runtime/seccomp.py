"""System call filters: the default profile for a set of capabilities, and profiles in Docker's form or OCI's.

All come out as the JSON of ``linux.seccomp`` (OCI runtime specification 1.2), which the native core compiles.
"""

from __future__ import annotations

import errno
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from pyrt.errors import UsageError
from pyrt.runtime import profile

_LARGEST_PROFILE: Final = 1 << 20
# The kernel looks at 32 bits of these arguments, and the caller fills 64: a comparison of all of them is passed by
# a 1 in the upper half (CVE-2019-7303).
_LOWER: Final = 0xFFFF_FFFF
_ALL: Final = 0xFFFF_FFFF_FFFF_FFFF


@lru_cache(maxsize=64)
def default_profile(capabilities: frozenset[str]) -> bytes:
    """The JSON of the default profile for a container with these capabilities."""
    allowed = set(profile.ALLOWED)
    for capability in capabilities:
        allowed.update(profile.GATES.get(capability, "").split())
    rules: list[dict[str, Any]] = [_allow(*sorted(allowed))]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules += _without_namespaces()
    rules += [_allow("personality", when=_masked(0, _LOWER, value)) for value in profile.PERSONALITIES]
    rules += _sockets()
    rules += [_refuse("ioctl", errno.EPERM, _masked(1, _LOWER, request)) for request in profile.REFUSED_REQUESTS]
    rules.append(_allow("ioctl"))
    return msgspec.json.encode({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.EPERM, "syscalls": rules})


def _without_namespaces() -> list[dict[str, Any]]:
    return [
        _allow("clone", when=_masked(0, profile.NAMESPACE_FLAGS, 0)),
        _allow("unshare", when=_masked(0, _ALL & ~profile.UNSHARE_FLAGS, 0)),
        # Its flags lie behind a pointer, where no filter sees them: C libraries fall back to clone.
        _refuse("clone3", errno.ENOSYS),
    ]


def _sockets() -> list[dict[str, Any]]:
    refused = [_masked(0, _LOWER, family) for family in profile.REFUSED_FAMILIES]
    refused.append({"index": 0, "value": profile.LARGEST_FAMILY, "op": "SCMP_CMP_GT"})
    return [*(_refuse("socket", errno.EAFNOSUPPORT, when) for when in refused), _allow("socket")]


def _allow(*names: str, when: dict[str, Any] | None = None) -> dict[str, Any]:
    return _rule(names, "SCMP_ACT_ALLOW", when)


def _refuse(name: str, number: int, when: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**_rule((name,), "SCMP_ACT_ERRNO", when), "errnoRet": number}


def _rule(names: tuple[str, ...], action: str, when: dict[str, Any] | None) -> dict[str, Any]:
    return {"names": names, "action": action, **({"args": [when]} if when else {})}


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def read_profile(path: str, capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> bytes:
    """The profile in a file, in Docker's form or as ``linux.seccomp``. UsageError if it can't be read."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST_PROFILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"the seccomp profile {path} can't be read: {reason}") from None
    if len(text) > _LARGEST_PROFILE:
        raise UsageError(f"the seccomp profile {path} is larger than {_LARGEST_PROFILE} bytes")
    try:
        return convert_profile(text, capabilities, architecture, kernel)
    except UsageError as error:
        raise UsageError(f"the seccomp profile {path} {error.message}") from None


def convert_profile(text: bytes, capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> bytes:
    """A profile in Docker's form as ``linux.seccomp``; one that is in that form already comes back in meaning the same.

    Docker's form has conditions on capabilities, architecture and kernel, and pairs of architectures; ``architecture``
    is as Docker names it ("amd64", "arm64"). What neither form has is an error of the native core.
    """
    try:
        document = msgspec.json.decode(text, type=_Document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"is malformed: {error}") from None
    result: dict[str, Any] = {"defaultAction": document.default_action}
    _set_errno(result, "defaultErrnoRet", document.default_errno_ret, document.default_errno)
    architectures = document.architectures or []
    for pair in document.arch_map or []:
        if pair.architecture == _ARCHITECTURES.get(architecture):
            architectures = [pair.architecture, *(pair.sub_architectures or [])]
    optional = {
        "architectures": architectures,
        "flags": document.flags,
        "listenerPath": document.listener_path,
        "listenerMetadata": document.listener_metadata,
    }
    result.update({field: value for field, value in optional.items() if value})
    around = _Around(capabilities, architecture, kernel)
    result["syscalls"] = [_convert(rule) for rule in document.syscalls or [] if around.has(rule)]
    return msgspec.json.encode(result)


_ARCHITECTURES: Final = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}


class _Filter(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = None


class _Rule(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    action: str
    names: list[str] | None = None
    name: str | None = None
    args: list[Any] | None = None
    errno_ret: int | None = None
    errno: str | None = None
    comment: str | None = None
    includes: _Filter | None = None
    excludes: _Filter | None = None


class _Architecture(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    architecture: str
    sub_architectures: list[str] | None = None


class _Document(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    default_action: str
    default_errno_ret: int | None = None
    default_errno: str | None = None
    architectures: list[str] | None = None
    arch_map: list[_Architecture] | None = None
    flags: list[str] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: list[_Rule] | None = None


class _Around(msgspec.Struct):
    """What the conditions of Docker's form are about."""

    capabilities: frozenset[str]
    architecture: str
    kernel: tuple[int, int]

    def has(self, rule: _Rule) -> bool:
        return (rule.includes is None or self._all(rule.includes)) and (
            rule.excludes is None or not self._any(rule.excludes)
        )

    def _all(self, wanted: _Filter) -> bool:
        if wanted.arches and self.architecture not in wanted.arches:
            return False
        if wanted.caps and not self.capabilities.issuperset(wanted.caps):
            return False
        return not wanted.min_kernel or self.kernel >= _version(wanted.min_kernel)

    def _any(self, unwanted: _Filter) -> bool:
        if unwanted.arches and self.architecture in unwanted.arches:
            return True
        if unwanted.caps and not self.capabilities.isdisjoint(unwanted.caps):
            return True
        return bool(unwanted.min_kernel) and self.kernel >= _version(unwanted.min_kernel or "")


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal() and text.isascii()):
        raise UsageError(f"has a kernel version {text!r}")
    return int(major), int(minor)


def _convert(rule: _Rule) -> dict[str, Any]:
    names = rule.names or ([rule.name] if rule.name else [])
    result: dict[str, Any] = {"names": names, "action": rule.action}
    _set_errno(result, "errnoRet", rule.errno_ret, rule.errno)
    if rule.args:
        result["args"] = rule.args
    return result


def _set_errno(result: dict[str, Any], field: str, number: int | None, name: str | None) -> None:
    """Podman writes the name as well, and the name alone counts to it."""
    if name:
        found = getattr(errno, name, None)
        if not isinstance(found, int):
            raise UsageError(f"has an unknown error name {name!r}")
        number = found
    if number is not None:
        result[field] = number

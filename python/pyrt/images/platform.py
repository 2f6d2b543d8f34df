"""Platforms: what machine an image is for, and which of an index's images fits the one at hand.

Normal forms are Go's names ("amd64", "arm"), with the variants that the OCI image index lists. A variant
of "" means the architecture's baseline: v1 of amd64, v8 of arm64, v7 of arm.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SYSTEMS: Final = _words(
    "aix android darwin dragonfly freebsd illumos ios js linux nacl netbsd openbsd plan9 solaris wasip1 windows"
)
_ARCHITECTURES: Final = _words(
    "386 amd64 arm arm64 loong64 mips mipsle mips64 mips64le ppc64 ppc64le riscv64 s390x sparc64 wasm"
)
# What uname, Debian and others say, in Go's words: architecture and variant.
_SPELLINGS: Final = {
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "loongarch64": ("loong64", ""),
    "mipsel": ("mipsle", ""),
    "mips64el": ("mips64le", ""),
    "ppc64el": ("ppc64le", ""),
}
_BASELINES: Final = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
_PART = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SYSTEM = re.compile(r"(?P<os>[A-Za-z0-9_.-]{1,64})(?:\((?P<version>[A-Za-z0-9_.-]{1,64})\))?")

# The x86-64 psABI's levels in the words of /proc/cpuinfo, each on top of the one before.
_AMD64_LEVELS: Final = (
    ("v2", _words("cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3")),
    ("v3", _words("abm avx avx2 bmi1 bmi2 f16c fma movbe xsave")),
    ("v4", _words("avx512bw avx512cd avx512dq avx512f avx512vl")),
)


class Platform(msgspec.Struct, frozen=True):
    """What an image runs on; always normalised, "" where nothing is said."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, system: str, architecture: str, variant: str = "", os_version: str = "", os_features: Iterable[str] = ()
    ) -> Platform:
        """A platform in normal form from whatever words a person or an image uses."""
        architecture, variant = _normal_architecture(architecture, variant)
        return cls(_normal_system(system), architecture, variant, os_version, tuple(os_features))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read "linux/arm64/v8", "arm64", "linux" or "windows(10.0.20348)/amd64"; what is not said is this host's."""
        parts = text.split("/")
        if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts[1:]):
            raise _malformed(text)
        match = _SYSTEM.fullmatch(parts[0])
        if not match:
            raise _malformed(text)
        if len(parts) == 1 and not match["version"]:
            return _from_one_word(text, parts[0])
        here = host()
        architecture = parts[1] if len(parts) > 1 else here.architecture
        variant = parts[2] if len(parts) > 2 else ""
        return cls.of(match["os"], architecture, variant, match["version"] or "")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def describe(self) -> str:
        """For people: "windows/amd64 10.0.20348"."""
        return f"{self} {self.os_version}" if self.os_version else str(self)


def host() -> Platform:
    """This machine, with the best variant that its processor can run."""
    machine = os.uname().machine
    architecture, variant = _normal_architecture(machine, "")
    if architecture == "amd64":
        variant = _amd64_level(_cpu_flags())
    return Platform("linux", architecture, variant)


def choose(candidates: Sequence[Platform | None], wanted: Platform) -> int | None:
    """Which of an index's entries fits best: its place, or None when none does.

    Equal candidates go to the first, as the image-index specification has it. An entry without a platform
    (None) fits only where nothing else does and it is the only such one: its configuration has to tell.
    Another architecture that the processor could run too (386 on amd64) is not chosen: the system-call
    filter lets the native one through alone.
    """
    ranks = ((_rank(candidate, wanted), place) for place, candidate in enumerate(candidates) if candidate)
    fitting = [(rank, -place) for rank, place in ranks if rank is not None]
    if fitting:
        return -max(fitting)[1]
    unlabelled = [place for place, candidate in enumerate(candidates) if candidate is None]
    return unlabelled[0] if len(unlabelled) == 1 else None


def fits(candidate: Platform, wanted: Platform) -> bool:
    """Whether an image for ``candidate`` is what was asked for."""
    return _rank(candidate, wanted) is not None


def _rank(candidate: Platform, wanted: Platform) -> tuple[int, int] | None:
    """How well it fits: (version, variant), more is better; None: not at all."""
    if (candidate.os, candidate.architecture) != (wanted.os, wanted.architecture):
        return None
    if not set(candidate.os_features) <= set(wanted.os_features):
        return None
    version = _rank_version(candidate.os_version, wanted.os_version)
    variant = _rank_variant(candidate, wanted)
    return None if version is None or variant is None else (version, variant)


def _rank_version(candidate: str, wanted: str) -> int | None:
    if not wanted or candidate == wanted:
        return 1
    # Windows runs an image of the same build: the first three numbers of four.
    if candidate.split(".")[:3] == wanted.split(".")[:3]:
        return 0
    return None


def _rank_variant(candidate: Platform, wanted: Platform) -> int | None:
    baseline = _BASELINES.get(wanted.architecture, "")
    have, want = candidate.variant or baseline, wanted.variant or baseline
    have_level, want_level = _level(have), _level(want)
    if have_level is None or want_level is None:
        return 0 if have == want else None
    return have_level if have_level <= want_level else None


def _level(variant: str) -> int | None:
    """ "v8.1" -> 801, so that levels compare; None for a variant that is a word."""
    match = re.fullmatch(r"v(\d{1,3})(?:\.(\d{1,2}))?", variant)
    return int(match[1]) * 100 + int(match[2] or 0) if match else None


def _normal_system(system: str) -> str:
    system = system.strip().lower()
    return {"macos": "darwin", "": "linux"}.get(system, system)


def _normal_architecture(architecture: str, variant: str) -> tuple[str, str]:
    architecture, variant = architecture.strip().lower(), variant.strip().lower()
    architecture, implied = _SPELLINGS.get(architecture, (architecture, ""))
    variant = variant or implied
    if variant[:1].isdigit():
        variant = f"v{variant}"
    if architecture != "arm" and variant == _BASELINES.get(architecture):
        variant = ""
    if architecture == "arm":
        variant = variant or _BASELINES["arm"]
    return architecture, variant


def _from_one_word(text: str, word: str) -> Platform:
    here = host()
    if _normal_system(word) in _SYSTEMS:
        return Platform.of(word, here.architecture)
    architecture, variant = _normal_architecture(word, "")
    if architecture in _ARCHITECTURES:
        return Platform(here.os, architecture, variant)
    raise _malformed(text)


def _cpu_flags() -> frozenset[str]:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _amd64_level(flags: frozenset[str]) -> str:
    level = ""
    for name, needed in _AMD64_LEVELS:
        if not needed <= flags:
            break
        level = name
    return level


def _malformed(text: str) -> UsageError:
    return UsageError(f"{text[:100]!r} is not a platform", hint="write it as os/architecture[/variant]: linux/arm64/v8")

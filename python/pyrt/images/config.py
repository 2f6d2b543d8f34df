"""The configuration of an image: what OCI and Docker write, turned into one frozen value.

It is an enemy's text: bounded, typed, and refused as a whole with a sentence that names the field. What
tools get wrong harmlessly (null for empty, a string for a list of one, unknown fields) is taken.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from pyrt.errors import InvalidImage
from pyrt.images.reference import is_digest

# A configuration of 1 MiB is 200 times the usual one; without a bound it would eat memory (CVE-2020-1702).
LARGEST_CONFIG: Final = 1 << 20
# OVL_MAX_STACK of the kernel's overlayfs.
MOST_LAYERS: Final = 500


class Healthcheck(msgspec.Struct, frozen=True, omit_defaults=True):
    """``test`` as Docker has it (("CMD", ...), ("CMD-SHELL", text) or ("NONE",)); times in nanoseconds, 0: unset."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of how the image was made; ``empty_layer``: it has no layer."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an image says of how it wants to be run. ``entrypoint`` and ``cmd`` are None where nothing is said.

    ``env`` are "NAME=value" lines, ``volumes`` paths, ``exposed_ports`` like "80/tcp", ``created`` is RFC 3339's
    text, ``diff_ids`` the digests of the plain layers, lowest first.
    """

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    architecture: str = ""
    os: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    variant: str = ""
    created: str = ""
    author: str = ""
    history: tuple[History, ...] = ()
    diff_ids: tuple[str, ...] = ()


def parse_config(data: bytes) -> ImageConfig:
    """Read the JSON of an image configuration (OCI image-spec 1.1 config.md, Docker image spec 1.2).

    ``InvalidImage`` says what is wrong with it: too large, not JSON, a field of the wrong type, no layers' digests.
    """
    if len(data) > LARGEST_CONFIG:
        raise InvalidImage(f"the image's configuration has {len(data)} bytes, more than the {LARGEST_CONFIG} allowed")
    try:
        document = msgspec.json.decode(data, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidImage(f"the image's configuration is malformed: {_reason(error)}") from None
    if document.rootfs is None:
        raise InvalidImage("the image's configuration lists no layers: it is not an image that can be run")
    config = _from_document(document)
    _check(config)
    return config


def encode_config(config: ImageConfig) -> bytes:
    """The JSON of a configuration of our own making, in OCI's form; the same value gives the same bytes."""
    run: dict[str, Any] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Env": config.env,
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.working_dir,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
        "Healthcheck": _health_document(config.healthcheck),
        "Shell": config.shell,
        "OnBuild": config.on_build,
    }
    document: dict[str, Any] = {
        "created": config.created,
        "author": config.author,
        "architecture": config.architecture,
        "variant": config.variant,
        "os": config.os,
        "os.version": config.os_version,
        "config": {key: value for key, value in run.items() if value},
    }
    document = {key: value for key, value in document.items() if value or key == "config"}
    document["rootfs"] = {"type": "layers", "diff_ids": config.diff_ids}
    document["history"] = config.history
    return msgspec.json.encode(document)


def _health_document(health: Healthcheck | None) -> dict[str, Any]:
    names = {
        "Test": "test",
        "Interval": "interval",
        "Timeout": "timeout",
        "StartPeriod": "start_period",
        "StartInterval": "start_interval",
        "Retries": "retries",
    }
    return {key: value for key, name in names.items() if (value := getattr(health, name, None))}


def parse_time(text: str) -> datetime | None:
    """RFC 3339 in UTC; None for nothing, for nonsense and for Docker's "no time" (year 1)."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment.year > 1 else None


class _Health(msgspec.Struct, rename="pascal"):
    test: list[str] | str | None = None
    interval: int | None = None
    timeout: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    retries: int | None = None


class _Run(msgspec.Struct, rename="pascal"):
    user: str | None = None
    env: list[str] | None = None
    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    working_dir: str | None = None
    labels: dict[str, str | None] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None
    volumes: dict[str, Any] | None = None
    exposed_ports: dict[str, Any] | None = None
    healthcheck: _Health | None = None
    shell: list[str] | str | None = None
    on_build: list[str] | None = None


class _Line(msgspec.Struct):
    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class _RootFs(msgspec.Struct):
    diff_ids: list[str] | None = None


class _Document(msgspec.Struct, rename={"os_version": "os.version", "os_features": "os.features"}):
    architecture: str | None = None
    os: str | None = None
    os_version: str | None = None
    os_features: list[str] | None = None
    variant: str | None = None
    created: str | None = None
    author: str | None = None
    config: _Run | None = None
    rootfs: _RootFs | None = None
    history: list[_Line] | None = None


def _from_document(document: _Document) -> ImageConfig:
    run = document.config or _Run()
    return ImageConfig(
        user=run.user or "",
        env=tuple(run.env or ()),
        entrypoint=_words(run.entrypoint) or None,
        cmd=_words(run.cmd) or None,
        working_dir=run.working_dir or "",
        labels={key: value or "" for key, value in (run.labels or {}).items()},
        stop_signal=run.stop_signal or "",
        stop_timeout=run.stop_timeout,
        volumes=tuple(run.volumes or ()),
        exposed_ports=tuple(run.exposed_ports or ()),
        healthcheck=_health(run.healthcheck),
        shell=_words(run.shell),
        on_build=tuple(run.on_build or ()),
        architecture=document.architecture or "",
        os=document.os or "",
        os_version=document.os_version or "",
        os_features=tuple(document.os_features or ()),
        variant=document.variant or "",
        created=document.created or "",
        author=document.author or "",
        history=tuple(_history(line) for line in document.history or ()),
        diff_ids=tuple((document.rootfs or _RootFs()).diff_ids or ()),
    )


def _words(value: list[str] | str | None) -> tuple[str, ...]:
    """A command: Docker takes a bare string for a list of one, and so do we."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def _health(value: _Health | None) -> Healthcheck | None:
    if value is None:
        return None
    return Healthcheck(
        _words(value.test),
        value.interval or 0,
        value.timeout or 0,
        value.start_period or 0,
        value.start_interval or 0,
        value.retries or 0,
    )


def _history(line: _Line) -> History:
    return History(
        line.created or "", line.created_by or "", line.author or "", line.comment or "", bool(line.empty_layer)
    )


def _check(config: ImageConfig) -> None:
    for diff_id in config.diff_ids:
        if not is_digest(diff_id):
            raise InvalidImage(f"the image's configuration names a layer {diff_id[:80]!r}, which is no sha256 digest")
    if len(config.diff_ids) > MOST_LAYERS:
        raise InvalidImage(
            f"the image has {len(config.diff_ids)} layers, more than the {MOST_LAYERS} that can be stacked"
        )
    # A NUL ends a string of the kernel's early: what was checked would not be what is run.
    texts = (config.user, config.working_dir, *config.env, *(config.entrypoint or ()), *(config.cmd or ()))
    if any("\0" in text for text in texts):
        raise InvalidImage("the image's configuration has a NUL character in its user, folder, environment or command")


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)

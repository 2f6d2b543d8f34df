"""What a container was told to be: its image's configuration with its own options over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pyrt.engine.recipe import options_of

if TYPE_CHECKING:
    from pyrt.engine.record import Record
    from pyrt.images.config import ImageConfig


def config_of(config: ImageConfig, record: Record) -> ImageConfig:
    """The configuration of an image that would be run as the container was; of its image it keeps what is not told."""
    options = options_of(record)
    env = dict(line.partition("=")[::2] for line in config.env) | dict(options.env)
    told: dict[str, object] = {
        "env": tuple(f"{name}={value}" for name, value in env.items()),
        "user": options.user or config.user,
        "working_dir": options.workdir or config.working_dir,
        "labels": record.labels,
        "stop_signal": options.stop_signal or config.stop_signal,
    }
    if options.entrypoint is not None:
        told["entrypoint"] = tuple(word for word in options.entrypoint if word) or None
        told["cmd"] = tuple(options.command) or None
    elif options.command:
        told["cmd"] = options.command
    return msgspec.structs.replace(config, **told)

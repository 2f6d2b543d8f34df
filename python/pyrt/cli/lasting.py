"""Options of ``run`` and ``create`` that say how a container lasts: restarts, logs, health."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from pyrt.engine.lasting import DEFAULT_LOG_FILES, DEFAULT_LOG_SIZE, Health, Lasting, Log, Restart, RestartWhen
from pyrt.errors import UsageError
from pyrt.runtime.options import parse_duration, parse_size

if TYPE_CHECKING:
    from pyrt.cli.parser import Parser
    from pyrt.images.config import Healthcheck
    from pyrt.images.image import Image

RESTART_HELP: Final = "no, on-failure[:COUNT], always, unless-stopped"
_KNOWN_IN_TAGS: Final = re.compile(r"\{\{\.(ID|FullID|Name|ImageName)\}\}")
_LOG_OPTIONS: Final = frozenset({"max-size", "max-file", "compress", "labels", "env"})
_SMALLEST_LOG: Final = 1024
_HEALTH_WORDS: Final = ("interval", "timeout", "start_period", "start_interval")


def add_lasting_options(parser: Parser) -> None:
    """All of them, in groups."""
    group = parser.add_argument_group("its life")
    group.add_argument("--restart", default="no", metavar="POLICY", help=RESTART_HELP)
    group.add_argument(
        "--log-driver", default="local", metavar="DRIVER", help="local, journald (as well as local), none"
    )
    group.add_argument("--log-opt", action="append", default=[], metavar="NAME=VALUE",
                       help="max-size (20m), max-file (5), labels, env, tag (journald)")  # fmt: skip
    group = parser.add_argument_group("its health")
    group.add_argument("--health-cmd", metavar="COMMAND", help="run in it with sh -c: 0 is well")
    group.add_argument("--health-interval", metavar="TIME", help="between two looks (30s)")
    group.add_argument("--health-timeout", metavar="TIME", help="that one may take (30s)")
    group.add_argument("--health-retries", type=int, metavar="COUNT", help="failures until it is unhealthy (3)")
    group.add_argument("--health-start-period", metavar="TIME", help="in which failures do not count (0s)")
    group.add_argument("--health-start-interval", metavar="TIME", help="between two looks in that time (5s)")
    group.add_argument("--no-healthcheck", action="store_true", help="nor the image's")


def lasting_of(options: Any, image: Image | str) -> Lasting:
    """How one container of the image is to last. Raises UsageError."""
    restart = options.once(_restart)
    if restart.when != "no" and options.rm:
        raise UsageError("--restart and --rm exclude each other", hint="one removes what the other starts again")
    return Lasting(
        restart=restart,
        log=options.once(_log),
        health=_health(options, None if isinstance(image, str) else image.config.healthcheck),
        stdin=options.interactive,
    )


def parse_restart(text: str) -> Restart:
    """A policy as Docker writes it: "on-failure:3"."""
    when, _, most = text.partition(":")
    if when not in get_args(RestartWhen) or (most and (when != "on-failure" or not most.isdecimal())):
        raise UsageError(
            f"--restart {text} is no policy", hint="no, on-failure, on-failure:COUNT, always, unless-stopped"
        )
    return Restart(cast("RestartWhen", when), int(most or 0))


def _restart(options: Any) -> Restart:
    return parse_restart(options.restart)


def _log(options: Any) -> Log:
    # Docker's usual one writes another format to the same end.
    if options.log_driver not in {"local", "json-file", "journald", "none"}:
        raise UsageError(f"--log-driver {options.log_driver} is not built", hint="there are local, journald and none")
    given = dict(text.partition("=")[::2] for text in options.log_opt)
    journal = options.log_driver == "journald"
    if unknown := set(given) - _LOG_OPTIONS - ({"tag"} if journal else set()):
        raise UsageError(
            f"--log-opt {min(unknown)} is not known",
            hint="there are max-size, max-file, labels, env, and tag of journald",
        )
    tag = given.get("tag", "")
    if "{{" in _KNOWN_IN_TAGS.sub("", tag):
        raise UsageError(
            f"--log-opt tag={tag} can't be filled in", hint="there are {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageName}}"
        )
    if options.log_driver == "none":
        return Log(files=0)
    size = parse_size(given["max-size"], "--log-opt max-size") if "max-size" in given else DEFAULT_LOG_SIZE
    files = given.get("max-file", str(DEFAULT_LOG_FILES))
    if not files.isdecimal() or not int(files) or size < _SMALLEST_LOG:
        raise UsageError("--log-opt wants max-file of at least 1 and max-size of at least 1k")
    labels, env = (tuple(filter(None, given.get(name, "").split(","))) for name in ("labels", "env"))
    return Log(size=size, files=int(files), journal=journal, tag=tag, labels=labels, env=env)


def _health(options: Any, of_image: Healthcheck | None) -> Health | None:
    """The image's, with what the options change."""
    times = {word: text for word in _HEALTH_WORDS if (text := getattr(options, f"health_{word}")) is not None}
    asks = options.health_cmd is not None or bool(times) or options.health_retries is not None
    if options.no_healthcheck:
        if asks:
            raise UsageError("--no-healthcheck and --health-... exclude each other")
        return None
    fields: dict[str, Any] = {"test": ()}
    if of_image:
        fields |= {"test": of_image.test, "retries": of_image.retries}
        fields |= {word: getattr(of_image, word) / 1e9 for word in _HEALTH_WORDS}
    if options.health_cmd is not None:
        fields["test"] = ("CMD-SHELL", options.health_cmd)
    # As Docker has it: 0 is as if it were not given.
    given = {word: parse_duration(text, may_be_none=True) for word, text in times.items()}
    fields |= {word: seconds for word, seconds in given.items() if seconds}
    if options.health_retries is not None:
        fields["retries"] = options.health_retries
    if fields["test"][:1] in {(), ("NONE",)}:
        return None
    return Health(**{name: value for name, value in fields.items() if value})


def as_words(health: Health) -> str:
    """The test, for people."""
    return shlex.join(health.test[1:])

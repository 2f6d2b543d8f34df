"""An image, a host and a short way to build a specification from them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from pyrt.runtime.host import Host
from pyrt.runtime.options import RunOptions, make_options
from pyrt.runtime.spec import Built, build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
app:x:1000:1000:App,,,:/home/app:/bin/sh
www-data:x:33:33::/var/www:
"""
GROUP = b"root:x:0:\ndaemon:x:1:\nadm:x:4:app,daemon\nvideo:x:44:daemon,app\napp:x:1000:\nwww-data:x:33:\n"
ID = "0123456789ab" + "c" * 52
BASE = 1 << 20


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an image's configuration that count."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = ("sh",)
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image of two layers."""

    id: str = "sha256:" + "a" * 64
    config: Config = Config()
    layers: tuple[str, ...] = ("/layers/top", "/layers/base")


class Documents:
    """What was built, with both documents decoded."""

    def __init__(self, built: Built) -> None:
        self.built = built
        self.spec: dict[str, Any] = json.loads(built.spec)
        self.start: dict[str, Any] = json.loads(built.start)
        self.process: dict[str, Any] = self.spec["process"]
        self.linux: dict[str, Any] = self.spec["linux"]
        self.mounts: dict[str, dict[str, Any]] = {mount["destination"]: mount for mount in self.spec["mounts"]}

    @property
    def env(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.process["env"])

    @property
    def namespaces(self) -> set[str]:
        return {namespace["type"] for namespace in self.linux["namespaces"]}


HOST = Host(
    hostname="machine",
    hosts="127.0.0.1 localhost\n10.0.0.1 friend",
    resolv_conf="nameserver 10.0.0.53\n",
    kernel=(6, 18),
    cpus=frozenset({0, 1, 2, 3}),
)


def no_file(_: str) -> None:
    """The lookup of an image without any."""


def make(
    image: Image | None = None,
    *,
    host: Host = HOST,
    files: Mapping[str, bytes] | None = None,
    hidden: tuple[str, ...] = (),
    exists: Callable[[str], bool] = lambda _: True,
    **fields: Any,
) -> Documents:
    """Builds with these options and everything else as usual."""
    options: RunOptions = make_options(**fields)
    found = {"/etc/passwd": PASSWD, "/etc/group": GROUP} if files is None else files
    return Documents(
        build(
            image or Image(),
            options,
            id=ID,
            id_base=None if options.userns == "host" else BASE,
            host=host,
            lookup=found.get,
            folder="/state/containers/x",
            hidden=hidden,
            exists=exists,
        )
    )

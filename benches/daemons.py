"""Docker's daemon and its containerd for the time of a bench, where `docker` and `ctr` look for them."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests import services

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS: Final = frozenset({"startup", "joining", "runtime", "extraction"})
"""Benches that have rows of them."""


@contextmanager
def started() -> Iterator[None]:
    """Both, if they start here; else the environment stays as it is, and the rows of the tools say what is wrong."""
    with ExitStack() as stack:
        try:
            # With overlay, as people run it; the tests' own daemons copy.
            runtime = Path(sys.executable).with_name("pyrt-runtime")
            docker = stack.enter_context(services.docker_daemon(storage="overlay2", runtime=runtime))
        except services.Unavailable as reason:
            print(f"docker and ctr can't be measured: {reason}")
        else:
            os.environ.update(DOCKER_HOST=docker.address, CONTAINERD_ADDRESS=str(docker.containerd))
        yield

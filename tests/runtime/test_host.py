"""This machine, as the kernel shows it."""

from __future__ import annotations

import os
import socket

import pytest

from pyrt.runtime.capabilities import ALL
from pyrt.runtime.host import parse_cpu_list, read_host


def test_it_is_this_machine() -> None:
    host = read_host()
    assert host.hostname == socket.gethostname()
    assert os.sched_getaffinity(0) <= host.cpus
    assert host.kernel >= (5, 11)
    assert host.architecture in {"amd64", "arm64"}
    assert host.capabilities <= frozenset(ALL)


@pytest.mark.root
def test_root_has_capabilities() -> None:
    assert "CAP_SYS_ADMIN" in read_host().capabilities


def test_lists_of_processors() -> None:
    assert parse_cpu_list("0-2,7\n") == {0, 1, 2, 7}
    for text in ("", "-1", "1-", "2-1", "0-9999", "a", "1,,2", "٣", "9" * 30):
        with pytest.raises(ValueError):
            parse_cpu_list(text)

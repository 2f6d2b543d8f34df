"""Kernel parameters: the container's own, and never the host's."""

from __future__ import annotations

from typing import Any

import pytest

from pyrt.errors import UsageError
from pyrt.runtime.options import make_options
from pyrt.runtime.sysctl import sysctls


@pytest.mark.parametrize(
    "name",
    [
        *("net.ipv4.ip_forward", "net/ipv4/conf/eth0.5/rp_filter", "net.core.somaxconn", "fs.mqueue.msg_max"),
        *("kernel.msgmax", "kernel.shm_rmid_forced", "kernel.sem", "kernel.domainname"),
    ],
)
def test_taken(name: str) -> None:
    assert sysctls(make_options(sysctls={name: "1 2"})) == {name: "1 2"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("kernel.core_pattern", "whole machine's"),
        ("kernel.randomize_va_space", "whole machine's"),
        ("vm.overcommit_memory", "whole machine's"),
        ("fs.file-max", "whole machine's"),
        ("kernel.hostname", "--hostname"),
        ("network.x", "whole machine's"),
        ("net", "no kernel parameter"),
        ("net..x", "no kernel parameter"),
        ("net/../kernel/core_pattern", "no kernel parameter"),
        ("net.ipv4/../../kernel/core_pattern", "no kernel parameter"),
        ("/net.ipv4.x", "no kernel parameter"),
        ("net.x\0y", "no kernel parameter"),
        ("", "no kernel parameter"),
    ],
)
def test_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        sysctls(make_options(sysctls={name: "1"}))


@pytest.mark.parametrize("value", ["", "1\n2", "1\0", "a" * 2000])
def test_no_values(value: str) -> None:
    with pytest.raises(UsageError, match="no kernel parameter"):
        sysctls(make_options(sysctls={"net.a": value}))


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("net.a", {"network": "host"}),
        ("kernel.msgmax", {"ipc": "host"}),
        ("fs.mqueue.x", {"ipc": "host"}),
        ("kernel.domainname", {"uts": "host"}),
    ],
)
def test_a_shared_namespace_keeps_its_parameters(name: str, shared: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="would be the host's"):
        sysctls(make_options(sysctls={name: "1"}, **shared))

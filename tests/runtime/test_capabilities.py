"""Which capabilities a container has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrt.errors import UsageError
from pyrt.runtime.capabilities import ALL, DEFAULT, choose, name

EVERY = frozenset(ALL)


def short(*names: str) -> frozenset[str]:
    return frozenset(f"CAP_{name}" for name in names)


@pytest.mark.parametrize(
    ("add", "drop", "result"),
    [
        ((), (), DEFAULT),
        (("net_admin",), (), DEFAULT | short("NET_ADMIN")),
        (("CAP_NET_ADMIN", "SYS_TIME"), ("chown",), (DEFAULT | short("NET_ADMIN", "SYS_TIME")) - short("CHOWN")),
        ((), ("ALL",), frozenset()),
        (("chown",), ("all",), short("CHOWN")),
        (("ALL",), (), EVERY),
        (("all",), ("SYS_ADMIN",), EVERY - short("SYS_ADMIN")),
        (("ALL",), ("ALL",), EVERY),
        (("CHOWN",), ("CHOWN",), DEFAULT),
    ],
)
def test_adding_and_dropping(add: tuple[str, ...], drop: tuple[str, ...], result: frozenset[str]) -> None:
    assert choose(add, drop, EVERY) == result


def test_the_default_is_eight() -> None:
    assert short("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID") == DEFAULT


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean CAP_NET_ADMIN"):
        choose(("NET_ADMN",), (), EVERY)
    with pytest.raises(UsageError, match="is no capability"):
        name("")


def test_what_this_process_lacks_is_left_out_of_all_and_refused_by_name() -> None:
    available = EVERY - short("SYS_RESOURCE")
    assert choose(("ALL",), (), available) == available
    with pytest.raises(UsageError, match="CAP_SYS_RESOURCE can't be given"):
        choose(("SYS_RESOURCE",), (), available)


def test_the_list_is_the_kernels() -> None:
    assert len(ALL) >= int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1
    assert (ALL[0], ALL[21], ALL[40]) == ("CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE")
